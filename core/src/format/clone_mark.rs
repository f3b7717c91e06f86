//! What a clone says of itself, in the hint to its checkpoint.

use super::{FormatError, Reader, Writer};

/// What was in a clone when a run came to its end: `commit hash 32 ‖ blocks u64 ‖ spare u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloneMark {
    /// The commit that was its newest one then: of a clone with another head it says nothing.
    pub head: [u8; 32],
    /// How many data blocks that state needs: all of them were there.
    pub blocks: u64,
    /// How many other data blocks were there.
    pub spare: u64,
}

impl CloneMark {
    /// Length of every mark.
    pub const BYTES: usize = 48;

    /// The mark's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(Self::BYTES);
        writer.bytes(&self.head);
        writer.u64(self.blocks);
        writer.u64(self.spare);
        writer.into_vec()
    }

    /// Reads a mark.
    ///
    /// # Errors
    /// [`FormatError`] for another length.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("clone mark", bytes);
        let mark = Self { head: reader.array()?, blocks: reader.u64()?, spare: reader.u64()? };
        reader.finish()?;
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_what_was_written_and_of_its_length_only() {
        let mark = CloneMark { head: [7; 32], blocks: 300, spare: u64::MAX };
        let bytes = mark.encode();
        assert_eq!(bytes.len(), CloneMark::BYTES);
        assert_eq!(CloneMark::decode(&bytes), Ok(mark));
        assert!(CloneMark::decode(&bytes[1..]).is_err());
        assert!(CloneMark::decode(&[bytes, vec![0]].concat()).is_err());
    }
}
