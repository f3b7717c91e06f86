//! Which chunks the rows of the file system own references to.

use strongroom_core::Result;
use strongroom_core::engine::{ChunkNumber, Table};

use crate::format::{EXTENT, Extent, PAST, XATTR, XattrRow};

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
