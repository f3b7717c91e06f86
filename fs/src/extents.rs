//! The map from a file's offsets to chunks: look up, read through, shorten, lengthen, replace, drop.
//!
//! Invariant: the extents of a file cover `0..size` without gap or overlap.

use std::ops::{Bound, Range};

use strongroom_core::engine::{Direction, Scan, Transaction, View};

use crate::error::{Result, damaged};
use crate::format::{EXTENT, Extent, extent_key, split_extent_key};
use crate::shared::Shared;
use crate::versions::ContentChange;
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

    /// The part of it that a range within it covers.
    pub(crate) fn part(&self, range: &Range<u64>) -> Self {
        let kept = range.end.saturating_sub(range.start);
        let extent = match self.extent {
            Extent::Hole { .. } => Extent::Hole { length: kept },
            // Both are at most the extent's own length, which is a u32.
            Extent::Data { chunk, length, skip } => {
                let dropped = u32::try_from(range.start.saturating_sub(self.start)).unwrap_or(length);
                let length = u32::try_from(kept).unwrap_or(length);
                Extent::Data { chunk, length, skip: skip.saturating_add(dropped) }
            }
        };
        Self { start: range.start, extent }
    }

    /// The part of it that lies in a range which overlaps with it.
    pub(crate) fn clipped(&self, range: &Range<u64>) -> Self {
        self.part(&(self.start.max(range.start)..self.end().min(range.end)))
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

    /// The next, where there must be one.
    async fn expect(&mut self, inode: u64, offset: u64) -> Result<Placed> {
        let next = self.next().await?;
        next.ok_or_else(|| damaged("extent", format!("inode {inode:#x} has none at offset {offset}")))
    }
}

/// The extents that lie in a range, in part at least; all of it must lie before the end of the file.
pub(crate) async fn between(view: &dyn View, inode: u64, range: &Range<u64>) -> Result<Vec<Placed>> {
    let mut found = Vec::new();
    if range.is_empty() {
        return Ok(found);
    }
    let mut last = find(view, inode, range.start).await?;
    found.push(last);
    let mut following = walk(view, inode, last.end());
    while last.end() < range.end {
        last = following.expect(inode, last.end()).await?;
        found.push(last);
    }
    Ok(found)
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
        placed = following.expect(inode, at).await?;
    }
}

/// Fills `to` from the front of `from`.
pub(crate) fn copy(to: &mut [u8], from: &[u8]) -> Result<()> {
    let from = from.get(..to.len()).ok_or_else(|| damaged("extent", "shorter than it says"))?;
    to.copy_from_slice(from);
    Ok(())
}

/// Puts bytes that lie from `start` on in a file over what `out` holds of it from `offset` on, as far as they meet.
pub(crate) fn lay_over(out: &mut [u8], offset: u64, bytes: &[u8], start: u64) {
    let end = offset.saturating_add(out.len() as u64);
    let (from, to) = (start.max(offset), start.saturating_add(bytes.len() as u64).min(end));
    if from >= to {
        return;
    }
    let position = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
    let source = bytes.get(position(from, start)..position(to, start));
    let target = out.get_mut(position(from, offset)..position(to, offset));
    if let (Some(source), Some(target)) = (source, target) {
        target.copy_from_slice(source);
    }
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
pub(crate) async fn truncate(
    transaction: &mut Transaction,
    change: &mut ContentChange,
    size: u64,
    new_size: u64,
) -> Result<()> {
    if new_size >= size {
        return Ok(());
    }
    let mut from = new_size;
    if new_size > 0 {
        let placed = find(transaction, change.inode(), new_size - 1).await?;
        from = placed.end();
        if new_size < placed.end() {
            carve(transaction, change, &placed, &(new_size..placed.end()))?;
        }
    }
    remove_from(transaction, change, from).await
}

/// Drops all extents that start at `from` or after it.
async fn remove_from(transaction: &mut Transaction, change: &mut ContentChange, from: u64) -> Result<()> {
    const PAGE: usize = 1024;
    let mut from = from;
    loop {
        let mut walk = walk(transaction, change.inode(), from);
        let mut page = Vec::new();
        while page.len() < PAGE
            && let Some(placed) = walk.next().await?
        {
            page.push(placed);
        }
        let more = page.len() == PAGE;
        for placed in &page {
            remove(transaction, change, placed)?;
        }
        let Some(last) = page.last().filter(|_| more) else { return Ok(()) };
        from = last.end();
    }
}

pub(crate) fn remove(transaction: &mut Transaction, change: &mut ContentChange, placed: &Placed) -> Result<()> {
    transaction.delete(EXTENT, &extent_key(change.inode(), placed.start))?;
    change.replaced(transaction, placed, true)
}

/// Takes a range before the end out of a file, and leaves a gap for the caller to fill.
pub(crate) async fn clear(transaction: &mut Transaction, change: &mut ContentChange, range: &Range<u64>) -> Result<()> {
    for placed in between(transaction, change.inode(), range).await? {
        carve(transaction, change, &placed, range)?;
    }
    Ok(())
}

/// Takes a range out of an extent that overlaps with it, without reading the chunk: what lies before and after stays.
pub(crate) fn carve(
    transaction: &mut Transaction,
    change: &mut ContentChange,
    placed: &Placed,
    range: &Range<u64>,
) -> Result<()> {
    let inode = change.inode();
    let taken = placed.clipped(range);
    let (before, after) = (placed.start..taken.start, taken.end()..placed.end());
    if before.is_empty() && after.is_empty() {
        return remove(transaction, change, placed);
    }
    if before.is_empty() {
        transaction.delete(EXTENT, &extent_key(inode, placed.start))?;
    }
    for part in [&before, &after] {
        if !part.is_empty() {
            put(transaction, inode, part.start, &placed.part(part).extent)?;
        }
    }
    if let (false, false, Extent::Data { chunk, .. }) = (before.is_empty(), after.is_empty(), placed.extent) {
        transaction.retain_chunk(chunk)?;
    }
    change.replaced(transaction, &taken, false)
}

/// Overwrites part of a file, all of it before the end. Only the chunks that are touched are cut anew; one more is where
/// the last piece would be short otherwise, so that small writes do not crumble a file.
pub(crate) async fn replace(
    shared: &std::sync::Arc<Shared>,
    transaction: &mut Transaction,
    change: &mut ContentChange,
    offset: u64,
    bytes: &[u8],
) -> Result<()> {
    const ABSORBED_MAX: usize = 2;
    let inode = change.inode();
    if bytes.is_empty() {
        return Ok(());
    }
    let end = offset.saturating_add(bytes.len() as u64);
    let touched = between(transaction, inode, &(offset..end)).await?;
    let (Some(first), Some(last)) = (touched.first(), touched.last()) else { return Ok(()) };

    let mut ingest_start = offset;
    let mut before = bytes::Bytes::new();
    if let (true, Extent::Data { .. }) = (first.start < offset, first.extent) {
        ingest_start = first.start;
        let whole = data(shared, transaction, &first.extent).await?;
        before = whole.slice(..usize::try_from(offset - first.start).unwrap_or(0).min(whole.len()));
    }
    let mut after = bytes::Bytes::new();
    let mut hole_follows = false;
    if last.end() > end {
        match last.extent {
            Extent::Hole { .. } => hole_follows = true,
            Extent::Data { .. } => {
                let whole = data(shared, transaction, &last.extent).await?;
                after = whole.slice(usize::try_from(end - last.start).unwrap_or(0).min(whole.len())..);
            }
        }
    }
    for placed in &touched {
        match placed.extent {
            // What stays of a hole was not replaced.
            Extent::Hole { .. } => carve(transaction, change, placed, &(offset..end))?,
            Extent::Data { .. } => remove(transaction, change, placed)?,
        }
    }

    let mut ingest = Ingest::new(shared.clone(), inode, ingest_start);
    for piece in [&before[..], bytes, &after[..]] {
        ingest.write(transaction, piece).await?;
    }
    if !hole_follows {
        for _ in 0..ABSORBED_MAX {
            if ingest.uncut().len() >= shared.boundaries().short_bytes() {
                break;
            }
            let mut next = walk(transaction, inode, ingest.end());
            let Some(placed) = next.next().await? else { break };
            let Extent::Data { .. } = placed.extent else { break };
            let absorbed = data(shared, transaction, &placed.extent).await?;
            remove(transaction, change, &placed)?;
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
    change: &mut ContentChange,
    size: u64,
) -> Result<Ingest> {
    let inode = change.inode();
    if size > 0 {
        let last = find(transaction, inode, size - 1).await?;
        if let Extent::Data { length, .. } = last.extent
            && (length as usize) < shared.boundaries().short_bytes()
        {
            let bytes = data(shared, transaction, &last.extent).await?;
            remove(transaction, change, &last)?;
            let mut ingest = Ingest::new(shared.clone(), inode, last.start);
            ingest.write(transaction, &bytes).await?;
            return Ok(ingest);
        }
    }
    Ok(Ingest::new(shared.clone(), inode, size))
}
