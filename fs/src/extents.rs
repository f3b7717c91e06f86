//! The map from a file's offsets to chunks: look up, read through, shorten, lengthen, replace, drop.
//!
//! Invariant: the extents of a file cover `0..size` without gap or overlap.

use std::ops::Bound;

use strongroom_core::engine::{Direction, Scan, Transaction, View};

use crate::error::{Result, damaged};
use crate::format::{EXTENT, Extent, extent_key, split_extent_key};
use crate::shared::Shared;
use crate::writer::Ingest;

/// An extent and where in the file it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) start: u64,
    pub(crate) extent: Extent,
}

impl Placed {
    fn decode(inode: u64, row: Option<(bytes::Bytes, bytes::Bytes)>) -> Result<Option<Self>> {
        let Some((key, value)) = row else { return Ok(None) };
        let (owner, start) = split_extent_key(&key)?;
        let extent = Extent::decode(&value)?;
        if owner != inode || start.checked_add(extent.length()).is_none() {
            return Err(damaged("extent", "out of its file's range"));
        }
        Ok(Some(Self { start, extent }))
    }

    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.extent.length())
    }
}

/// The extent that covers `offset`, which lies before the end of the file.
pub(crate) async fn find(view: &dyn View, inode: u64, offset: u64) -> Result<Placed> {
    let (low, high) = (extent_key(inode, 0), extent_key(inode, offset));
    let range = (Bound::Included(low.as_slice()), Bound::Included(high.as_slice()));
    let row = view.scan(EXTENT, range, Direction::Descending).next().await?;
    let placed = Placed::decode(inode, row)?.filter(|placed| offset < placed.end());
    placed.ok_or_else(|| damaged("extent", format!("inode {inode:#x} has none at offset {offset}")))
}

/// The extents that start at `from` or after it, each where the one before ends.
pub(crate) struct Walk {
    scan: Scan,
    inode: u64,
    next: u64,
}

pub(crate) fn walk(view: &dyn View, inode: u64, from: u64) -> Walk {
    let (low, high) = (extent_key(inode, from), extent_key(inode, u64::MAX));
    let range = (Bound::Included(low.as_slice()), Bound::Included(high.as_slice()));
    Walk { scan: view.scan(EXTENT, range, Direction::Ascending), inode, next: from }
}

impl Walk {
    pub(crate) async fn next(&mut self) -> Result<Option<Placed>> {
        let Some(placed) = Placed::decode(self.inode, self.scan.next().await?)? else { return Ok(None) };
        if placed.start != self.next {
            let (inode, next) = (self.inode, self.next);
            return Err(damaged("extent", format!("inode {inode:#x} has none at offset {next}")));
        }
        self.next = placed.end();
        Ok(Some(placed))
    }
}

/// The bytes of a data extent from `from` on, counted from its start.
pub(crate) async fn data(shared: &Shared, view: &dyn View, extent: &Extent) -> Result<bytes::Bytes> {
    let Extent::Data { chunk, length, skip } = *extent else { return Ok(bytes::Bytes::new()) };
    slice(&shared.chunk(view, chunk).await?, length, skip)
}

/// The part of a chunk that an extent names.
pub(crate) fn slice(plain: &bytes::Bytes, length: u32, skip: u32) -> Result<bytes::Bytes> {
    let (start, end) = (skip as usize, (skip as usize).saturating_add(length as usize));
    if end > plain.len() {
        return Err(damaged("extent", format!("names bytes {start}..{end} of a chunk of {}", plain.len())));
    }
    Ok(plain.slice(start..end))
}

/// Fills `out` with the file's bytes from `offset` on; all of them must lie before the end of the file.
pub(crate) async fn read(shared: &Shared, view: &dyn View, inode: u64, offset: u64, out: &mut [u8]) -> Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let mut placed = find(view, inode, offset).await?;
    let mut following = walk(view, inode, placed.end());
    let (mut at, mut out) = (offset, out);
    loop {
        let within = usize::try_from(at - placed.start).unwrap_or(usize::MAX);
        let here = usize::try_from(placed.end() - at).unwrap_or(usize::MAX).min(out.len());
        let (head, rest) = out.split_at_mut(here);
        match placed.extent {
            Extent::Hole { .. } => head.fill(0),
            Extent::Data { .. } => {
                let bytes = data(shared, view, &placed.extent).await?;
                copy(head, bytes.get(within..).unwrap_or_default())?;
            }
        }
        out = rest;
        at += here as u64;
        if out.is_empty() {
            return Ok(());
        }
        placed = following
            .next()
            .await?
            .ok_or_else(|| damaged("extent", format!("inode {inode:#x} has none at offset {at}")))?;
    }
}

/// Fills `to` from the front of `from`.
pub(crate) fn copy(to: &mut [u8], from: &[u8]) -> Result<()> {
    let from = from.get(..to.len()).ok_or_else(|| damaged("extent", "shorter than it says"))?;
    to.copy_from_slice(from);
    Ok(())
}

pub(crate) fn put(transaction: &mut Transaction, inode: u64, start: u64, extent: &Extent) -> Result<()> {
    Ok(transaction.put(EXTENT, &extent_key(inode, start), &extent.encode())?)
}

/// Adds zeros at the end; they join a hole that is there.
pub(crate) async fn extend(transaction: &mut Transaction, inode: u64, size: u64, new_size: u64) -> Result<()> {
    let length = new_size.saturating_sub(size);
    if length == 0 {
        return Ok(());
    }
    if size > 0
        && let Placed { start, extent: Extent::Hole { length: before } } = find(transaction, inode, size - 1).await?
    {
        return put(transaction, inode, start, &Extent::Hole { length: before.saturating_add(length) });
    }
    put(transaction, inode, size, &Extent::Hole { length })
}

/// Drops everything from `new_size` on. An extent that straddles it keeps its front, without reading the chunk.
pub(crate) async fn truncate(transaction: &mut Transaction, inode: u64, size: u64, new_size: u64) -> Result<()> {
    if new_size >= size {
        return Ok(());
    }
    let mut from = new_size;
    if new_size > 0 {
        let placed = find(transaction, inode, new_size - 1).await?;
        if let Some(front) = front(&placed, new_size) {
            put(transaction, inode, placed.start, &front)?;
        }
        from = placed.end();
    }
    remove_from(transaction, inode, from).await
}

/// Drops all extents that start at `from` or after it.
pub(crate) async fn remove_from(transaction: &mut Transaction, inode: u64, from: u64) -> Result<()> {
    const PAGE: usize = 1024;
    let mut from = from;
    loop {
        let mut walk = walk(transaction, inode, from);
        let mut page = Vec::new();
        while page.len() < PAGE
            && let Some(placed) = walk.next().await?
        {
            page.push(placed);
        }
        let more = page.len() == PAGE;
        for placed in &page {
            remove(transaction, inode, placed)?;
        }
        let Some(last) = page.last().filter(|_| more) else { return Ok(()) };
        from = last.end();
    }
}

pub(crate) fn remove(transaction: &mut Transaction, inode: u64, placed: &Placed) -> Result<()> {
    transaction.delete(EXTENT, &extent_key(inode, placed.start))?;
    if let Extent::Data { chunk, .. } = placed.extent {
        transaction.release_chunk(chunk)?;
    }
    Ok(())
}

/// What of an extent lies before `end`, where that is not all of it.
fn front(placed: &Placed, end: u64) -> Option<Extent> {
    if end >= placed.end() || end <= placed.start {
        return None;
    }
    let kept = end - placed.start;
    Some(match placed.extent {
        Extent::Hole { .. } => Extent::Hole { length: kept },
        // Below the extent's own length, which is a u32.
        Extent::Data { chunk, length, skip } => {
            Extent::Data { chunk, length: u32::try_from(kept).unwrap_or(length), skip }
        }
    })
}

/// Overwrites part of a file, all of it before the end. Only the chunks that are touched are cut anew; one more is where
/// the last piece would be short otherwise, so that small writes do not crumble a file.
pub(crate) async fn replace(
    shared: &std::sync::Arc<Shared>,
    transaction: &mut Transaction,
    inode: u64,
    offset: u64,
    bytes: &[u8],
) -> Result<()> {
    const ABSORBED_MAX: usize = 2;
    if bytes.is_empty() {
        return Ok(());
    }
    let end = offset.saturating_add(bytes.len() as u64);
    let first = find(transaction, inode, offset).await?;
    let mut touched = vec![first];
    let mut following = walk(transaction, inode, first.end());
    let mut last = first;
    while last.end() < end {
        last = following
            .next()
            .await?
            .ok_or_else(|| damaged("extent", format!("inode {inode:#x} has none at offset {}", last.end())))?;
        touched.push(last);
    }

    let mut ingest_start = offset;
    let mut before = bytes::Bytes::new();
    let mut hole_before = None;
    if first.start < offset {
        match first.extent {
            Extent::Hole { .. } => hole_before = Some((first.start, Extent::Hole { length: offset - first.start })),
            Extent::Data { .. } => {
                ingest_start = first.start;
                let whole = data(shared, transaction, &first.extent).await?;
                before = whole.slice(..usize::try_from(offset - first.start).unwrap_or(0).min(whole.len()));
            }
        }
    }
    let mut after = bytes::Bytes::new();
    let mut hole_after = None;
    if last.end() > end {
        match last.extent {
            Extent::Hole { .. } => hole_after = Some((end, Extent::Hole { length: last.end() - end })),
            Extent::Data { .. } => {
                let whole = data(shared, transaction, &last.extent).await?;
                after = whole.slice(usize::try_from(end - last.start).unwrap_or(0).min(whole.len())..);
            }
        }
    }
    for placed in &touched {
        remove(transaction, inode, placed)?;
    }
    for (start, hole) in [hole_before, hole_after].into_iter().flatten() {
        put(transaction, inode, start, &hole)?;
    }

    let mut ingest = Ingest::new(shared.clone(), inode, ingest_start);
    for piece in [&before[..], bytes, &after[..]] {
        ingest.write(transaction, piece).await?;
    }
    if hole_after.is_none() {
        for _ in 0..ABSORBED_MAX {
            if ingest.uncut().len() >= shared.boundaries().short_bytes() {
                break;
            }
            let mut next = walk(transaction, inode, ingest.end());
            let Some(placed) = next.next().await? else { break };
            let Extent::Data { .. } = placed.extent else { break };
            let absorbed = data(shared, transaction, &placed.extent).await?;
            remove(transaction, inode, &placed)?;
            ingest.write(transaction, &absorbed).await?;
        }
    }
    ingest.finish(transaction).await
}

/// A writer at the end of a file. A last chunk that is short is cut again with what follows, so that many
/// small appends make few chunks.
pub(crate) async fn append(
    shared: &std::sync::Arc<Shared>,
    transaction: &mut Transaction,
    inode: u64,
    size: u64,
) -> Result<Ingest> {
    if size > 0 {
        let last = find(transaction, inode, size - 1).await?;
        if let Extent::Data { length, .. } = last.extent
            && (length as usize) < shared.boundaries().short_bytes()
        {
            let bytes = data(shared, transaction, &last.extent).await?;
            remove(transaction, inode, &last)?;
            let mut ingest = Ingest::new(shared.clone(), inode, last.start);
            ingest.write(transaction, &bytes).await?;
            return Ok(ingest);
        }
    }
    Ok(Ingest::new(shared.clone(), inode, size))
}
