use strongroom_core::engine::ChunkNumber;
use strongroom_core::{Error, Result};

use super::fields::Fields;
use super::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};

const STRUCTURE: &str = "extended attribute";
const INLINE: u8 = 0;
const CHUNKS: u8 = 1;
const NUMBER_BYTES: usize = 8;

/// The value of an extended attribute, or where it is.
///
/// `0 u8 ‖ value`, or `1 u8 ‖ length u32 ‖ chunk u64` for each chunk, in order. The row owns one reference to each chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XattrRow {
    /// The value itself.
    Inline(Vec<u8>),
    /// The value is in chunks, joined to `length` bytes.
    Chunks {
        /// Bytes of the value.
        length: u32,
        /// The chunks, in order.
        chunks: Vec<ChunkNumber>,
    },
}

impl XattrRow {
    /// Bytes of the value.
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            Self::Inline(value) => value.len(),
            Self::Chunks { length, .. } => *length as usize,
        }
    }

    /// The chunks that it refers to.
    #[must_use]
    pub fn chunks(&self) -> &[ChunkNumber] {
        match self {
            Self::Inline(_) => &[],
            Self::Chunks { chunks, .. } => chunks,
        }
    }

    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Inline(value) => [&[INLINE], &value[..]].concat(),
            Self::Chunks { length, chunks } => {
                let mut row = Vec::with_capacity(5 + chunks.len() * NUMBER_BYTES);
                row.push(CHUNKS);
                row.extend(length.to_le_bytes());
                row.extend(chunks.iter().flat_map(|chunk| chunk.0.to_le_bytes()));
                row
            }
        }
    }

    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(STRUCTURE, row);
        let row = match fields.u8()? {
            INLINE => Self::Inline(fields.rest().to_vec()),
            CHUNKS => {
                let length = fields.u32()?;
                let numbers = fields.rest();
                // Each chunk holds a byte at least.
                if !numbers.len().is_multiple_of(NUMBER_BYTES) || numbers.len() / NUMBER_BYTES > length as usize {
                    return Err(Error::damaged(STRUCTURE, None, "impossible list of chunks"));
                }
                let number = |bytes: &[u8]| bytes.try_into().ok().map(|bytes| ChunkNumber(u64::from_le_bytes(bytes)));
                Self::Chunks { length, chunks: numbers.chunks_exact(NUMBER_BYTES).filter_map(number).collect() }
            }
            other => return Err(fields.damaged(format!("unknown kind {other}"))),
        };
        if row.length() > XATTR_VALUE_BYTES_MAX {
            return Err(Error::damaged(STRUCTURE, None, format!("value of {} bytes", row.length())));
        }
        Ok(row)
    }
}

pub(crate) fn xattr_key(inode: u64, name: &[u8]) -> Vec<u8> {
    [&inode.to_be_bytes(), name].concat()
}

pub(crate) fn split_xattr_key(key: &[u8]) -> Result<(u64, &[u8])> {
    key.split_first_chunk::<8>()
        .filter(|(_, name)| (1..=XATTR_NAME_BYTES_MAX).contains(&name.len()))
        .map(|(inode, name)| (u64::from_be_bytes(*inode), name))
        .ok_or_else(|| Error::damaged(STRUCTURE, None, format!("key of {} bytes", key.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_attribute_reads_back_as_written(value in proptest::collection::vec(any::<u8>(), 0..300), numbers in proptest::collection::vec(any::<u64>(), 0..9)) {
            let chunks: Vec<_> = numbers.into_iter().map(ChunkNumber).collect();
            for row in [XattrRow::Inline(value), XattrRow::Chunks { length: 60_000, chunks }] {
                prop_assert_eq!(XattrRow::decode(&row.encode()).unwrap(), row);
            }
        }

        #[test]
        fn any_bytes_decode_to_an_error_or_to_an_attribute_that_encodes_to_them(bytes in proptest::collection::vec(0u8..3, 0..40)) {
            if let Ok(row) = XattrRow::decode(&bytes) {
                prop_assert_eq!(row.encode(), bytes);
            }
        }

        #[test]
        fn attribute_keys_are_taken_apart_as_they_were_put_together(inode: u64, name in proptest::collection::vec(any::<u8>(), 1..=255)) {
            let key = xattr_key(inode, &name);
            prop_assert_eq!(split_xattr_key(&key).unwrap(), (inode, name.as_slice()));
        }
    }

    #[test]
    fn a_value_over_the_limit_is_damage() {
        let row = XattrRow::Chunks { length: 65_537, chunks: vec![ChunkNumber(1)] };
        assert!(XattrRow::decode(&row.encode()).is_err());
        assert!(XattrRow::decode(&XattrRow::Inline(vec![0; 65_537]).encode()).is_err());
    }
}
