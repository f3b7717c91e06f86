use strongroom_core::{Error, Result};

use super::FILE_BYTES_MAX;
use super::fields::Fields;

const STRUCTURE: &str = "content row";

/// What changes with every write: `changed u64`, and for files `size u64`.
///
/// It stands apart from the inode so that writers of content and changers of attributes do not conflict. A directory's
/// row is only ever merged to the larger `changed`, so that creating in one directory at the same time does not conflict.
/// A file's `changed` grows with every commit to its content: an unchanged row means unchanged extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ContentRow {
    /// When it last changed, in nanoseconds since the epoch.
    pub changed: u64,
    /// Length in bytes; 0 for a directory.
    pub size: u64,
}

impl ContentRow {
    /// The row's value for a file.
    #[must_use]
    pub fn encode(&self) -> [u8; 16] {
        ((u128::from(self.size) << 64) | u128::from(self.changed)).to_le_bytes()
    }

    /// Reads a row's value, a file's or a directory's.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(STRUCTURE, row);
        let changed = fields.u64()?;
        let size = if row.len() > 8 { fields.u64()? } else { 0 };
        if size > FILE_BYTES_MAX {
            return Err(fields.damaged("impossible size"));
        }
        fields.done()?;
        Ok(Self { changed, size })
    }
}

pub(crate) fn decode_count(row: &[u8]) -> Result<u64> {
    let mut fields = Fields::new("subdirectory count", row);
    let count = fields.u64()?;
    fields.done()?;
    Ok(count)
}

pub(crate) fn split_inode_key(structure: &'static str, key: &[u8]) -> Result<u64> {
    key.try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| Error::damaged(structure, None, format!("key of {} bytes", key.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_content_row_reads_back_as_written(changed in any::<u64>(), size in 0..=FILE_BYTES_MAX) {
            let row = ContentRow { changed, size };
            prop_assert_eq!(ContentRow::decode(&row.encode()).unwrap(), row);
            prop_assert_eq!(ContentRow::decode(&changed.to_le_bytes()).unwrap(), ContentRow { changed, size: 0 });
        }

        #[test]
        fn any_bytes_decode_to_an_error_or_to_a_row(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            prop_assert_eq!(ContentRow::decode(&bytes).is_ok(), bytes.len() == 8 || bytes.len() == 16 && bytes[15] < 0x80);
        }
    }
}
