use strongroom_core::{Error, Result};

use super::VERSIONS_MAX;
use super::fields::Fields;
use crate::chunker::ChunkSizes;

const STRUCTURE: &str = "file system options";
const LAYOUT: u8 = 1;
const CHUNKER: u8 = 1;
/// Length of a row without a seed.
const OWN_SEED_BYTES: usize = 20;

pub(crate) const OPTIONS_KEY: &[u8] = b"fs";

/// What is tried on chunks before they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// LZ4, kept where it saves at least a sixteenth.
    #[default]
    Lz4,
    /// Nothing.
    None,
}

/// The file system's settings, fixed at creation:
/// `layout u8 ‖ chunker u8 ‖ compression u8 ‖ dedup u8 ‖ versions u32 ‖ chunk min u32 ‖ average u32 ‖ max u32 [‖ seed u64]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionsRow {
    /// What is tried on chunks.
    pub compression: Compression,
    /// Whether equal chunks are stored once.
    pub dedup: bool,
    /// Versions of a file to keep beside the current one, where the file has no limit of its own.
    pub versions: u32,
    /// Where chunks are cut.
    pub sizes: ChunkSizes,
    /// The seed of the boundaries, where it is not the repository's own: that of a repository that this one is a copy of, so
    /// that content is cut as it was there, and found when it is stored again.
    pub seed: Option<u64>,
}

impl OptionsRow {
    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let compression = match self.compression {
            Compression::None => 0,
            Compression::Lz4 => 1,
        };
        let mut row = vec![LAYOUT, CHUNKER, compression, u8::from(self.dedup)];
        for field in [self.versions, self.sizes.min_bytes, self.sizes.average_bytes, self.sizes.max_bytes] {
            row.extend(field.to_le_bytes());
        }
        row.extend(self.seed.iter().flat_map(|seed| seed.to_le_bytes()));
        row
    }

    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Error::NewerFormat`] for a layout, chunker or compression of a later version, [`Error::Damaged`] for anything
    /// else amiss.
    pub fn decode(row: &[u8]) -> Result<Self> {
        let newer = |detail: String| Error::NewerFormat { detail };
        let mut fields = Fields::new(STRUCTURE, row);
        let (layout, chunker) = (fields.u8()?, fields.u8()?);
        if layout != LAYOUT {
            return Err(newer(format!("file system layout {layout}")));
        }
        if chunker != CHUNKER {
            return Err(newer(format!("chunker {chunker}")));
        }
        let compression = match fields.u8()? {
            0 => Compression::None,
            1 => Compression::Lz4,
            other => return Err(newer(format!("compression {other}"))),
        };
        let dedup = match fields.u8()? {
            0 => false,
            1 => true,
            _ => return Err(fields.damaged("dedup is neither on nor off")),
        };
        let versions = fields.u32()?;
        if versions > VERSIONS_MAX {
            return Err(fields.damaged("impossible limit of versions"));
        }
        let sizes = ChunkSizes { min_bytes: fields.u32()?, average_bytes: fields.u32()?, max_bytes: fields.u32()? };
        if !sizes.valid() {
            return Err(fields.damaged("impossible chunk sizes"));
        }
        let seed = if row.len() > OWN_SEED_BYTES { Some(fields.u64()?) } else { None };
        fields.done()?;
        Ok(Self { compression, dedup, versions, sizes, seed })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_options_read_back_as_written() {
        for compression in [Compression::Lz4, Compression::None] {
            for (dedup, seed) in [(false, None), (true, None), (true, Some(u64::MAX - 7))] {
                let sizes = ChunkSizes::for_block(131_072, 262_144);
                let row = OptionsRow { compression, dedup, versions: 3, sizes, seed };
                assert_eq!(OptionsRow::decode(&row.encode()).unwrap(), row);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_an_error_or_to_options_that_encode_to_them(
            head in proptest::collection::vec(0u8..3, 6), tail in proptest::collection::vec(any::<u8>(), 10..26),
        ) {
            let bytes = [head, tail].concat();
            if let Ok(row) = OptionsRow::decode(&bytes) {
                prop_assert_eq!(row.encode(), bytes);
            }
        }
    }
}
