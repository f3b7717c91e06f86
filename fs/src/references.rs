//! Which chunks the rows of the file system own references to, and what becomes of both in another repository.

use bytes::Bytes;
use strongroom_core::Result;
use strongroom_core::engine::{ChunkNumber, Engine, Table};

use crate::codec;
use crate::format::{EXTENT, Extent, OPTIONS, OPTIONS_KEY, OptionsRow, PAST, XATTR, XattrRow};

/// The chunks that a row of one of the file system's tables owns a reference to, each as often as it does.
///
/// # Errors
/// [`strongroom_core::Error::Damaged`] for a row of another shape.
pub fn chunks_of(table: Table, value: &[u8]) -> Result<Vec<ChunkNumber>> {
    Ok(match table {
        EXTENT | PAST => match Extent::decode(value)? {
            Extent::Data { chunk, .. } => vec![chunk],
            Extent::Hole { .. } => Vec::new(),
        },
        XATTR => XattrRow::decode(value)?.chunks().to_vec(),
        _ => Vec::new(),
    })
}

/// The plaintext of a chunk that takes part in dedup, which is what its identity is made of. At most so many bytes long.
///
/// # Errors
/// [`strongroom_core::Error::Damaged`] for a payload of no known encoding, or that stands for more.
pub fn plain(payload: &Bytes, plain_bytes_max: usize) -> Result<Bytes> {
    codec::decode(payload, plain_bytes_max)
}

/// A row as it is in a copy of the repository that `engine` is: content goes on being cut where it was, though the keys are
/// others, so that it is found when it is stored again.
///
/// # Errors
/// As [`OptionsRow::decode`].
pub fn copied_row(engine: &Engine, table: Table, key: &[u8], row: Bytes) -> Result<Bytes> {
    if table != OPTIONS || key != OPTIONS_KEY {
        return Ok(row);
    }
    let options = OptionsRow::decode(&row)?;
    let seed = options.seed.unwrap_or_else(|| engine.boundary_seed());
    Ok(OptionsRow { seed: Some(seed), ..options }.encode().into())
}
