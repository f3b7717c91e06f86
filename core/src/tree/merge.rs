use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;

use super::{Change, Cursor, Direction, KeyRange, NodeStore, Overlay, TreeRoot};
use crate::error::Result;

/// How many changes are taken from the overlay at once: finding the place costs a search.
const AHEAD_COUNT: usize = 32;

/// A scan of a tree as if an overlay of changes had been applied to it: what the overlay puts wins over the tree, and
/// what it deletes is passed over. It owns all that it reads, so it sees one state from beginning to end.
#[derive(Debug)]
pub struct MergedCursor<S> {
    tree: Cursor<S>,
    /// The tree's next row, once it is known.
    row: Option<(Bytes, Bytes)>,
    /// The tree has no row but `row`.
    tree_ended: bool,
    overlay: Overlay,
    /// What of the overlay has not been taken into `changes`.
    rest: KeyRange,
    changes: VecDeque<Change>,
    direction: Direction,
}

impl<S: NodeStore> MergedCursor<S> {
    /// A scan of the keys within `range`. Nothing is read yet.
    #[must_use]
    pub fn new(store: S, root: Option<TreeRoot>, overlay: Overlay, range: KeyRange, direction: Direction) -> Self {
        Self {
            tree: Cursor::new(store, root, range.clone(), direction),
            row: None,
            tree_ended: false,
            overlay,
            rest: range,
            changes: VecDeque::new(),
            direction,
        }
    }

    /// The next row, or `None` after the last.
    ///
    /// # Errors
    /// As [`Cursor::next`]; after an error, or after a dropped future, the scan goes on where it stood.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        loop {
            if self.row.is_none() && !self.tree_ended {
                self.row = self.tree.next().await?;
                self.tree_ended = self.row.is_none();
            }
            if self.changes.is_empty() {
                self.take_changes();
            }
            let Some((key, _)) = self.changes.front() else { return Ok(self.row.take()) };
            if let Some((row_key, _)) = &self.row {
                let row_first = match self.direction {
                    Direction::Ascending => row_key < key,
                    Direction::Descending => row_key > key,
                };
                if row_first {
                    return Ok(self.row.take());
                }
                if row_key == key {
                    self.row = None;
                }
            }
            if let Some((key, Some(value))) = self.changes.pop_front() {
                return Ok(Some((key, value)));
            }
        }
    }

    fn take_changes(&mut self) {
        if is_empty(&self.rest) {
            return;
        }
        let range = self.overlay.range(&self.rest);
        match self.direction {
            Direction::Ascending => self.changes.extend(range.take(AHEAD_COUNT)),
            Direction::Descending => self.changes.extend(range.rev().take(AHEAD_COUNT)),
        }
        let ended = self.changes.len() < AHEAD_COUNT;
        match self.changes.back() {
            Some((last, _)) if !ended => match self.direction {
                Direction::Ascending => self.rest.0 = Bound::Excluded(last.clone()),
                Direction::Descending => self.rest.1 = Bound::Excluded(last.clone()),
            },
            // Nothing is left: a range that holds nothing.
            _ => self.rest = (Bound::Excluded(Bytes::new()), Bound::Excluded(Bytes::new())),
        }
    }
}

/// Whether a range holds no key at all; maps may refuse those that end before they start.
pub(super) fn is_empty((lower, upper): &KeyRange) -> bool {
    match (lower, upper) {
        (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
        (Bound::Included(lower) | Bound::Excluded(lower), Bound::Included(upper) | Bound::Excluded(upper)) => {
            lower >= upper
        }
        (_, Bound::Excluded(upper)) => upper.is_empty(),
        _ => false,
    }
}
