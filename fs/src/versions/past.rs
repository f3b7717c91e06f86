use std::ops::{Bound, Range};

use strongroom_core::engine::{Direction, Scan, View};

use crate::error::{Result, damaged};
use crate::extents::{self, Placed};
use crate::format::{ContentRow, Extent, PAST, past_key, split_past_key};
use crate::ranges::Ranges;
use crate::shared::Shared;

/// The past extents of one file, in the order of the versions that replaced them, then of offsets.
pub(crate) struct Past {
    scan: Scan,
    inode: u64,
}

impl Past {
    /// Those that the versions of a range replaced.
    pub(crate) fn of(view: &dyn View, inode: u64, deaths: std::ops::RangeInclusive<u64>) -> Self {
        let (low, high) = (past_key(inode, *deaths.start(), 0), past_key(inode, *deaths.end(), u64::MAX));
        let range = (Bound::Included(low.as_slice()), Bound::Included(high.as_slice()));
        Self { scan: view.scan(PAST, range, Direction::Ascending), inode }
    }

    /// The version that replaced it, and the extent.
    pub(crate) async fn next(&mut self) -> Result<Option<(u64, Placed)>> {
        let Some((key, value)) = self.scan.next().await? else { return Ok(None) };
        let (inode, death, start) = split_past_key(&key)?;
        let placed = Placed { start, extent: Extent::decode(&value)? };
        if inode != self.inode || start.checked_add(placed.extent.length()).is_none() {
            return Err(damaged("past extent", "out of its file's range"));
        }
        Ok(Some((death, placed)))
    }
}

/// What a version replaced that lies in a range, in part at least.
async fn replaced(view: &dyn View, inode: u64, death: u64, range: &Range<u64>) -> Result<Vec<Placed>> {
    let bound = |offset| past_key(inode, death, offset);
    let (low, first, end) = (bound(0), bound(range.start), bound(range.end));
    let mut found = Vec::new();
    let before = (Bound::Included(low.as_slice()), Bound::Excluded(first.as_slice()));
    let mut before = Past { scan: view.scan(PAST, before, Direction::Descending), inode };
    found.extend(before.next().await?.map(|(_, placed)| placed).filter(|placed| placed.end() > range.start));
    let within = (Bound::Included(first.as_slice()), Bound::Excluded(end.as_slice()));
    let mut within = Past { scan: view.scan(PAST, within, Direction::Ascending), inode };
    while let Some((_, placed)) = within.next().await? {
        found.push(placed);
    }
    Ok(found)
}

/// A range of version `number`, which must lie within its length, in pieces that cover it end to end. `current` is the
/// version that the extents are of.
pub(crate) async fn pieces(
    view: &dyn View,
    inode: u64,
    number: u64,
    current: u64,
    range: Range<u64>,
) -> Result<Vec<Placed>> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let mut known = Ranges::default();
    let mut found = Vec::new();
    for death in number.saturating_add(1)..=current {
        for placed in replaced(view, inode, death, &range).await? {
            let within = placed.start.max(range.start)..placed.end().min(range.end);
            for gap in known.gaps(within) {
                found.push(placed.part(&gap));
                known.insert(gap);
            }
        }
        if known.gaps(range.clone()).is_empty() {
            break;
        }
    }
    for gap in known.gaps(range) {
        found.extend(extents::between(view, inode, &gap).await?.iter().map(|placed| placed.clipped(&gap)));
    }
    found.sort_unstable_by_key(|placed| placed.start);
    Ok(found)
}

/// The first offset at or after `offset` that lies in data of a version with this number and content row, or in a hole, as
/// [`crate::reflink::seek`].
pub(crate) async fn seek(
    shared: &Shared,
    view: &dyn View,
    inode: u64,
    (number, content): (u64, &ContentRow),
    offset: u64,
    data: bool,
) -> Result<Option<u64>> {
    let mut at = offset;
    while at < content.size {
        let range = at..at.saturating_add(stride(shared)).min(content.size);
        at = range.end;
        let pieces = pieces(view, inode, number, content.versions.current, range).await?;
        if let Some(found) = pieces.iter().find(|placed| matches!(placed.extent, Extent::Data { .. }) == data) {
            return Ok(Some(found.start));
        }
    }
    Ok((!data && offset < content.size).then_some(content.size))
}

/// How many bytes of versions are looked up at once.
pub(crate) fn stride(shared: &Shared) -> u64 {
    const CHUNKS: u64 = 1024;
    (shared.boundaries().average_bytes() as u64).saturating_mul(CHUNKS)
}
