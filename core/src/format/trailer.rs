use super::limits::FORMAT_VERSION;
use super::{BlockClass, FormatError, Reader, SEAL_BYTES, Writer};

/// The plaintext of a block's trailer: what the block is for, and where its directory begins.
///
/// ```text
/// block class u8 ‖ format version u16 ‖ records u16 ‖ directory offset u32 ‖ zeros 23     (32 bytes)
/// ```
///
/// Sealed, it is the last 48 bytes of the block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// What the block is for.
    pub class: BlockClass,
    /// How many records the directory lists.
    pub records: u16,
    /// Where the sealed directory begins in the block, in bytes: where the last record ends.
    pub directory_offset: u32,
}

const STRUCTURE: &str = "block trailer";

impl Trailer {
    /// The length of the encoding.
    pub const BYTES: usize = 32;
    /// The length of the sealed trailer.
    pub const SEALED_BYTES: usize = Self::BYTES + SEAL_BYTES;
    const RESERVED_BYTES: usize = 23;

    /// The bytes of the trailer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(Self::BYTES);
        writer.u8(self.class.code()).u16(FORMAT_VERSION).u16(self.records).u32(self.directory_offset);
        writer.zeros(Self::RESERVED_BYTES);
        writer.into_vec()
    }

    /// Reads what [`Trailer::encode`] wrote. Whether the offset lies in the block is for the reader to check.
    ///
    /// # Errors
    /// [`FormatError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(STRUCTURE, bytes);
        let class = reader.u8()?;
        let class = BlockClass::from_code(class).ok_or_else(|| reader.error(format!("unknown block class {class}")))?;
        let version = reader.u16()?;
        if version != FORMAT_VERSION {
            return Err(reader.error(format!("format version {version}, not {FORMAT_VERSION}")));
        }
        let (records, directory_offset) = (reader.u16()?, reader.u32()?);
        reader.zeros(Self::RESERVED_BYTES)?;
        reader.finish()?;
        Ok(Self { class, records, directory_offset })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRAILER: Trailer = Trailer { class: BlockClass::Metadata, records: 0x0201, directory_offset: 0x0605_0403 };

    #[test]
    fn the_layout_is_frozen() {
        let mut expected = vec![2, 0, 0, 1, 2, 3, 4, 5, 6];
        expected.resize(32, 0);
        assert_eq!(TRAILER.encode(), expected);
        assert_eq!(Trailer::decode(&expected), Ok(TRAILER));
    }

    #[test]
    fn unknown_classes_other_versions_and_reserved_bits_are_refused() {
        for (index, byte) in [(0, 9), (1, 7), (9, 1), (31, 1)] {
            let mut bytes = TRAILER.encode();
            bytes[index] = byte;
            assert!(Trailer::decode(&bytes).is_err(), "byte {index}");
        }
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(start: [u8; 9], length in 0..40_usize) {
            let mut bytes = start.to_vec();
            bytes[0] %= 6;
            bytes[1] %= 2;
            bytes[2] = 0;
            bytes.resize(length, 0);
            if let Ok(trailer) = Trailer::decode(&bytes) {
                prop_assert_eq!(trailer.encode(), bytes);
            }
        }
    }
}
