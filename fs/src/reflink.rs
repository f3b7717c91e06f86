//! Sharing stretches of files: extents are copied and their chunks counted once more; no content is read.
//!
//! A chunk is retained for the new extent before it is released for the old one, so that it never counts none in between.

use strongroom_core::engine::{Transaction, View};

use crate::error::Result;
use crate::extents::{self, Placed, Walk, find, put, walk};
use crate::format::Extent;
use crate::versions::ContentChange;

fn retain(transaction: &mut Transaction, placed: &Placed) -> Result<()> {
    if let Extent::Data { chunk, .. } = placed.extent {
        transaction.retain_chunk(chunk)?;
    }
    Ok(())
}

/// Two neighbours as one extent, where they are parts of one chunk that follow each other, or holes both.
fn joined(before: &Placed, after: &Placed) -> Option<Extent> {
    if before.end() != after.start {
        return None;
    }
    match (before.extent, after.extent) {
        (Extent::Hole { length }, Extent::Hole { length: more }) => {
            Some(Extent::Hole { length: length.checked_add(more)? })
        }
        (Extent::Data { chunk, length, skip }, Extent::Data { chunk: other, length: more, skip: next })
            if chunk == other && length.checked_add(skip) == Some(next) =>
        {
            Some(Extent::Data { chunk, length: length.checked_add(more)?, skip })
        }
        _ => None,
    }
}

/// Fills a gap with pieces that lie end to end and are retained, so that a copy in small steps does not crumble a file.
async fn fill(transaction: &mut Transaction, inode: u64, pieces: Vec<Placed>) -> Result<()> {
    let mut last = match pieces.first() {
        Some(first) if first.start > 0 => Some(find(transaction, inode, first.start - 1).await?),
        _ => None,
    };
    for piece in pieces {
        if let Some(before) = &mut last
            && let Some(extent) = joined(before, &piece)
        {
            put(transaction, inode, before.start, &extent)?;
            if let Extent::Data { chunk, .. } = extent {
                // The two are one owner now.
                transaction.release_chunk(chunk)?;
            }
            before.extent = extent;
            continue;
        }
        put(transaction, inode, piece.start, &piece.extent)?;
        last = Some(piece);
    }
    Ok(())
}

/// Gives a file without extents those of another, maybe of another state.
pub(crate) async fn share_all(transaction: &mut Transaction, mut extents: Walk, to: u64) -> Result<()> {
    while let Some(placed) = extents.next().await? {
        retain(transaction, &placed)?;
        put(transaction, to, placed.start, &placed.extent)?;
    }
    Ok(())
}

/// Where a stretch is taken from, and where it goes.
#[derive(Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) from: u64,
    pub(crate) from_offset: u64,
    pub(crate) to_offset: u64,
    pub(crate) length: u64,
    /// The length of the file that it goes to.
    pub(crate) to_size: u64,
}

/// Makes a stretch of one file, before its end, a stretch of another, which grows as need be; answers its new length.
pub(crate) async fn share(transaction: &mut Transaction, to: &mut ContentChange, stretch: Stretch) -> Result<u64> {
    let Stretch { from, from_offset, to_offset, length, to_size } = stretch;
    let taken = from_offset..from_offset.saturating_add(length);
    let mut pieces = Vec::new();
    for placed in extents::between(transaction, from, &taken).await? {
        let mut piece = placed.clipped(&taken);
        retain(transaction, &piece)?;
        piece.start = piece.start - from_offset + to_offset;
        pieces.push(piece);
    }
    let end = to_offset.saturating_add(length);
    extents::clear(transaction, to, &(to_offset..end.min(to_size))).await?;
    extents::extend(transaction, to.inode(), to_size, to_offset).await?;
    fill(transaction, to.inode(), pieces).await?;
    Ok(end.max(to_size))
}

/// Makes a stretch before the end of a file read as zeros that take no space.
pub(crate) async fn punch(
    transaction: &mut Transaction,
    change: &mut ContentChange,
    start: u64,
    end: u64,
) -> Result<()> {
    if start >= end {
        return Ok(());
    }
    extents::clear(transaction, change, &(start..end)).await?;
    fill(transaction, change.inode(), vec![Placed { start, extent: Extent::Hole { length: end - start } }]).await
}

/// The first offset at or after `offset` that lies in data, or in a hole; the end of a file counts as one. `None` at the
/// end and beyond it, and where no data follows.
pub(crate) async fn seek(view: &dyn View, inode: u64, size: u64, offset: u64, data: bool) -> Result<Option<u64>> {
    if offset >= size {
        return Ok(None);
    }
    let mut placed = find(view, inode, offset).await?;
    let mut following = walk(view, inode, placed.end());
    loop {
        if matches!(placed.extent, Extent::Data { .. }) == data {
            return Ok(Some(placed.start.max(offset)));
        }
        match following.next().await? {
            Some(next) => placed = next,
            None => return Ok((!data).then_some(size)),
        }
    }
}
