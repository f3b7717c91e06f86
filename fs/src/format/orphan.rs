use strongroom_core::Result;

use super::fields::Fields;

/// The epoch in the orphan row of a file that is deleted, and of which rows are left: no writer has it.
pub(crate) const NO_EPOCH: u32 = 0;

/// The row of a file that has no name: the writer epoch of the process that has it open, or [`NO_EPOCH`].
pub(crate) fn encode_orphan(epoch: u32) -> [u8; 4] {
    epoch.to_le_bytes()
}

pub(crate) fn decode_orphan(row: &[u8]) -> Result<u32> {
    let mut fields = Fields::new("orphan", row);
    let epoch = fields.u32()?;
    fields.done()?;
    Ok(epoch)
}
