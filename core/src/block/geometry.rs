use crate::format::{DirectoryEntry, Pointer, SALT_BYTES, SEAL_BYTES, Trailer, limits, node, rows};
use crate::{Error, Result};

/// The size of every block of a repository, and what follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    block_bytes: u32,
}

impl Geometry {
    /// What each block loses to salt, directory tag and trailer, in bytes.
    pub const BLOCK_OVERHEAD_BYTES: usize = SALT_BYTES + SEAL_BYTES + Trailer::SEALED_BYTES;
    /// What each record costs beside its payload: its tag and its line in the directory, in bytes.
    pub const RECORD_OVERHEAD_BYTES: usize = SEAL_BYTES + DirectoryEntry::BYTES;

    /// The geometry of blocks of a size.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless it is a power of two from 4 KiB to 4 MiB.
    pub fn new(block_bytes: u32) -> Result<Self> {
        limits::check_block_bytes(block_bytes).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(Self { block_bytes })
    }

    /// The size of a block in bytes.
    #[must_use]
    pub const fn block_bytes(self) -> u32 {
        self.block_bytes
    }

    /// The largest tree node in bytes.
    #[must_use]
    pub const fn node_bytes_max(self) -> usize {
        limits::node_bytes_max(self.block_bytes) as usize
    }

    /// The largest payload of a record in bytes: what fits an otherwise empty block.
    #[must_use]
    pub const fn record_capacity(self) -> usize {
        self.block_bytes as usize - Self::BLOCK_OVERHEAD_BYTES - Self::RECORD_OVERHEAD_BYTES
    }

    /// The smallest piece in bytes that a chunk is cut into to fill a block: 2 % of it. Less than that is left empty.
    #[must_use]
    pub const fn piece_bytes_min(self) -> usize {
        self.block_bytes as usize / 50
    }

    /// As many pieces as the row of a chunk has room for, whatever else it says.
    #[must_use]
    pub const fn pieces_max(self) -> usize {
        node::leaf_entry_bytes_max(self.node_bytes_max()).saturating_sub(rows::CHUNK_ROW_BYTES_MAX_BUT_POINTERS)
            / Pointer::BYTES
    }

    /// The longest payload of a chunk in bytes: 256 KiB, or four blocks where nodes are smaller than elsewhere. In pieces of
    /// half a block its row has room for it.
    #[must_use]
    pub const fn chunk_bytes_max(self) -> usize {
        if self.node_bytes_max() < node::NODE_BYTES_MAX {
            4 * self.block_bytes as usize
        } else {
            limits::CHUNK_BYTES_MAX
        }
    }

    /// Whether a sealed record can lie there: after the salt, and before the shortest directory that lists it.
    pub(super) fn holds(self, offset: u32, length: u32) -> bool {
        let tail = DirectoryEntry::BYTES + SEAL_BYTES + Trailer::SEALED_BYTES;
        let end = u64::from(offset) + u64::from(length);
        offset as usize >= SALT_BYTES
            && length as usize >= SEAL_BYTES
            && end <= u64::from(self.block_bytes).saturating_sub(tail as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_in_bounds_are_block_sizes() {
        assert!(Geometry::new(4096).is_ok());
        assert!(Geometry::new(4 << 20).is_ok());
        for bad in [0, 2048, 4095, 5000, 8 << 20] {
            assert!(matches!(Geometry::new(bad), Err(Error::Invalid(_))));
        }
    }

    #[test]
    fn the_row_of_the_longest_chunk_has_room_for_it_in_halves_of_blocks() {
        for shift in 12..=22 {
            let geometry = Geometry::new(1 << shift).unwrap();
            let halves = geometry.chunk_bytes_max().div_ceil(geometry.record_capacity() / 2);
            assert!(halves <= geometry.pieces_max(), "blocks of {} bytes", geometry.block_bytes());
            assert!(geometry.pieces_max() <= usize::from(u8::MAX));
        }
    }

    #[test]
    fn the_longest_row_of_a_chunk_is_as_long_as_is_counted_on() {
        let pointer =
            Pointer { key_epoch: 1, writer_epoch: 2, counter: 3, salt: [4; 16], index: 5, offset: 16, length: 17 };
        for count in [0, 1, 255] {
            let row = rows::ChunkRow {
                references: 0,
                birth: 1,
                death: 2,
                identity: Some([7; 32]),
                place: rows::Place::Records(vec![pointer; count]),
            };
            let bytes = rows::chunk_key(1).len() + row.encode().len();
            assert_eq!(bytes, rows::CHUNK_ROW_BYTES_MAX_BUT_POINTERS + count * Pointer::BYTES);
        }
    }

    #[test]
    fn a_record_lies_between_the_salt_and_the_directory() {
        let geometry = Geometry::new(4096).unwrap();
        let largest = (geometry.record_capacity() + SEAL_BYTES) as u32;
        assert!(geometry.holds(16, largest));
        assert!(!geometry.holds(16, largest + 1));
        assert!(!geometry.holds(17, largest));
        assert!(!geometry.holds(15, 16));
        assert!(!geometry.holds(16, 15));
        assert!(!geometry.holds(u32::MAX, u32::MAX));
    }
}
