//! Whether the content of a file is what is held elsewhere: told without storing that, so that who finds no difference need
//! not make a version of none.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use strongroom_core::engine::{ChunkNumber, Transaction};

use super::FsTransaction;
use crate::error::{Error, Result, damaged};
use crate::extents;
use crate::format::Extent;
use crate::inodes;
use crate::shared::Shared;

/// So many bytes are held against a hole at once.
const PIECE_BYTES: u64 = 64 << 10;

/// Bytes of elsewhere, by their offsets, that the content of a file is compared with.
pub trait Comparand {
    /// Fills `out` from an offset on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the end comes before that, which is a difference; any other ends the comparison.
    fn read_exact_at(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// The first offset at or after `offset` at which there may be anything but a zero; `None` where only zeros follow.
    ///
    /// # Errors
    /// Any ends the comparison.
    fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>>;
}

impl FsTransaction {
    /// Whether the content of a file is `size` bytes that are the same as those of elsewhere; zeros are zeros, holes or not.
    /// Chunks that are stored once are told by their identities and not read. Others are, up to the first difference.
    ///
    /// # Errors
    /// [`Error::Source`] where elsewhere cannot be read; [`Error::IsADirectory`], and as [`super::FileSystem::read`].
    pub async fn has_content(&self, path: impl AsRef<[u8]>, size: u64, other: &mut impl Comparand) -> Result<bool> {
        let inode = self.file_inode(path.as_ref()).await?;
        if inodes::file_content(&self.transaction, inode).await?.size != size {
            return Ok(false);
        }
        let shared = self.shared_for(inode).await?;
        let mut identities = Identities { shared: &shared, lookup: None };
        let mut buffer = Vec::new();
        let mut walk = extents::walk(&self.transaction, inode, 0);
        let mut end = 0;
        while let Some(placed) = walk.next().await? {
            end = placed.end();
            let Extent::Data { chunk, length, skip } = placed.extent else {
                if !is_zero(other, &(placed.start..placed.end()), &mut buffer)? {
                    return Ok(false);
                }
                continue;
            };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > shared.plain_bytes_max() {
                return Err(damaged("extent", format!("names {length} bytes of a chunk")));
            }
            buffer.resize(length, 0);
            if !fill(other, placed.start, &mut buffer)? {
                return Ok(false);
            }
            // Only the whole of a chunk has its identity.
            if (skip == 0 && identities.chunk(&buffer).await? == Some(chunk))
                || extents::data(&shared, &self.transaction, &placed.extent).await? == buffer
            {
                continue;
            }
            return Ok(false);
        }
        if end != size {
            return Err(damaged("extent", format!("a file of {size} bytes has extents for {end}")));
        }
        Ok(true)
    }
}

/// Which chunks hold bytes, where equal ones are stored once.
struct Identities<'s> {
    shared: &'s Arc<Shared>,
    lookup: Option<Transaction>,
}

impl Identities<'_> {
    async fn chunk(&mut self, plain: &[u8]) -> Result<Option<ChunkNumber>> {
        if !self.shared.options.dedup {
            return Ok(None);
        }
        let engine = &self.shared.engine;
        let lookup = self.lookup.get_or_insert_with(|| engine.begin());
        Ok(lookup.known_chunk(&engine.identity(plain)).await?)
    }
}

/// Fills a buffer; answers false where the end came before.
pub(super) fn fill(other: &mut impl Comparand, offset: u64, out: &mut [u8]) -> Result<bool> {
    match other.read_exact_at(offset, out) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::Source(Arc::new(error))),
    }
}

fn is_zero(other: &mut impl Comparand, range: &Range<u64>, buffer: &mut Vec<u8>) -> Result<bool> {
    let mut at = range.start;
    while at < range.end {
        let data = other.next_data(at).map_err(|error| Error::Source(Arc::new(error)))?;
        let Some(data) = data.filter(|data| *data < range.end) else { return Ok(true) };
        let start = data.max(at);
        let length = (range.end - start).min(PIECE_BYTES);
        buffer.resize(usize::try_from(length).unwrap_or_default(), 0);
        if !fill(other, start, buffer)? || buffer.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at = start + length;
    }
    Ok(true)
}
