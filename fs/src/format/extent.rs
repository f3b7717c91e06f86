use strongroom_core::engine::ChunkNumber;
use strongroom_core::{Error, Result};

use super::FILE_BYTES_MAX;
use super::fields::Fields;

const STRUCTURE: &str = "extent";
const DATA: u8 = 1;
const HOLE: u8 = 2;

/// Where a stretch of a file is. The extents of a file cover it without gap or overlap: what is missing is damage, and
/// never zeros.
///
/// `1 u8 ‖ chunk u64 ‖ length u32 ‖ skip u32`, or `2 u8 ‖ length u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Bytes `skip..skip + length` of a chunk's plaintext. The row owns one reference to the chunk.
    Data {
        /// The chunk.
        chunk: ChunkNumber,
        /// How many of its bytes, at least 1.
        length: u32,
        /// From which byte: truncation and overwriting keep parts of chunks.
        skip: u32,
    },
    /// Zeros that take no space.
    Hole {
        /// How many, at least 1.
        length: u64,
    },
}

impl Extent {
    /// Bytes of the file that it covers.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Data { length, .. } => u64::from(*length),
            Self::Hole { length } => *length,
        }
    }

    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(17);
        match self {
            Self::Data { chunk, length, skip } => {
                row.push(DATA);
                row.extend(chunk.0.to_le_bytes());
                row.extend(length.to_le_bytes());
                row.extend(skip.to_le_bytes());
            }
            Self::Hole { length } => {
                row.push(HOLE);
                row.extend(length.to_le_bytes());
            }
        }
        row
    }

    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(STRUCTURE, row);
        let extent = match fields.u8()? {
            DATA => {
                let (chunk, length, skip) = (ChunkNumber(fields.u64()?), fields.u32()?, fields.u32()?);
                if length.checked_add(skip).is_none() {
                    return Err(fields.damaged("runs past the largest chunk"));
                }
                Self::Data { chunk, length, skip }
            }
            HOLE => Self::Hole { length: fields.u64()? },
            other => return Err(fields.damaged(format!("unknown kind {other}"))),
        };
        if extent.length() == 0 || extent.length() > FILE_BYTES_MAX {
            return Err(fields.damaged("impossible length"));
        }
        fields.done()?;
        Ok(extent)
    }
}

pub(crate) fn extent_key(inode: u64, offset: u64) -> [u8; 16] {
    ((u128::from(inode) << 64) | u128::from(offset)).to_be_bytes()
}

pub(crate) fn split_extent_key(key: &[u8]) -> Result<(u64, u64)> {
    let damaged = || Error::damaged(STRUCTURE, None, format!("key of {} bytes", key.len()));
    let (inode, offset) = key.split_first_chunk::<8>().ok_or_else(damaged)?;
    let offset = offset.try_into().map_err(|_| damaged())?;
    Ok((u64::from_be_bytes(*inode), u64::from_be_bytes(offset)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_extent_reads_back_as_written(number in any::<u64>(), length in 1u32..1 << 31, skip in 0u32..1 << 31, hole in 1..=FILE_BYTES_MAX) {
            for extent in [Extent::Data { chunk: ChunkNumber(number), length, skip }, Extent::Hole { length: hole }] {
                prop_assert_eq!(Extent::decode(&extent.encode()).unwrap(), extent);
            }
        }

        #[test]
        fn any_bytes_decode_to_an_error_or_to_an_extent_that_encodes_to_them(bytes in proptest::collection::vec(0u8..4, 0..20)) {
            if let Ok(extent) = Extent::decode(&bytes) {
                prop_assert_eq!(extent.encode(), bytes);
            }
        }

        #[test]
        fn extent_keys_sort_by_inode_then_offset(a in any::<(u64, u64)>(), b in any::<(u64, u64)>()) {
            let (left, right) = (extent_key(a.0, a.1), extent_key(b.0, b.1));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            prop_assert_eq!(split_extent_key(&left).unwrap(), a);
        }
    }

    #[test]
    fn an_empty_extent_is_damage() {
        assert!(Extent::decode(&Extent::Hole { length: 0 }.encode()).is_err());
        assert!(Extent::decode(&Extent::Data { chunk: ChunkNumber(1), length: 0, skip: 0 }.encode()).is_err());
    }

    #[test]
    fn an_extent_that_wraps_around_is_damage() {
        assert!(Extent::decode(&Extent::Data { chunk: ChunkNumber(1), length: u32::MAX, skip: 1 }.encode()).is_err());
    }
}
