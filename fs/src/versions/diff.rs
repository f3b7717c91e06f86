use std::ops::Range;

use strongroom_core::engine::View;

use super::history::Found;
use super::past::{Past, pieces};
use crate::error::{Result, damaged};
use crate::extents::Placed;
use crate::format::Extent;
use crate::ranges::Ranges;

/// Where two versions of a file differ, by their extents: no content is read, so what was written again as it was may be
/// among it, where it was not recognised as stored already. `stride` bytes are compared at once.
pub(crate) async fn differing(
    view: &dyn View,
    inode: u64,
    [one, other]: [&Found; 2],
    current: u64,
    stride: u64,
) -> Result<Ranges> {
    let (older, newer) = if one.number <= other.number { (one, other) } else { (other, one) };
    let common = older.size.min(newer.size);
    let mut suspects = Ranges::default();
    if older.number < newer.number {
        let mut past = Past::of(view, inode, older.number.saturating_add(1)..=newer.number);
        while let Some((_, placed)) = past.next().await? {
            suspects.insert(placed.start.min(common)..placed.end().min(common));
        }
    }
    let mut differing = Ranges::default();
    for suspect in suspects.iter() {
        let mut at = suspect.start;
        while at < suspect.end {
            let range = at..at.saturating_add(stride.max(1)).min(suspect.end);
            at = range.end;
            let left = pieces(view, inode, older.number, current, range.clone()).await?;
            let right = pieces(view, inode, newer.number, current, range.clone()).await?;
            compare(&left, &right, range, &mut differing)?;
        }
    }
    differing.insert(common..older.size.max(newer.size));
    Ok(differing)
}

/// Both cover the range end to end.
fn compare(left: &[Placed], right: &[Placed], range: Range<u64>, differing: &mut Ranges) -> Result<()> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut at = range.start;
    while at < range.end {
        let (Some(one), Some(other)) = (left.peek(), right.peek()) else {
            return Err(damaged("past extent", "does not cover what it must"));
        };
        let end = one.end().min(other.end());
        if end <= at {
            return Err(damaged("past extent", "does not lie where it must"));
        }
        if !same(one, other, at) {
            differing.insert(at..end);
        }
        if one.end() == end {
            left.next();
        }
        if other.end() == end {
            right.next();
        }
        at = end;
    }
    Ok(())
}

/// Whether two extents show the same at an offset in both, and then in all that they have in common.
fn same(one: &Placed, other: &Placed, at: u64) -> bool {
    let place = |placed: &Placed| match placed.extent {
        Extent::Hole { .. } => None,
        Extent::Data { chunk, skip, .. } => {
            Some((chunk, u64::from(skip).saturating_add(at.saturating_sub(placed.start))))
        }
    };
    place(one) == place(other)
}
