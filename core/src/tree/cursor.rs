use std::ops::{Bound, Range};

use bytes::Bytes;

use super::read::Place;
use super::{NodeStore, TreeRoot};
use crate::error::Result;
use crate::format::node::Node;

/// A range of keys. One that ends before it starts holds nothing.
pub type KeyRange = (Bound<Bytes>, Bound<Bytes>);

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the lowest key to the highest.
    Ascending,
    /// From the highest key to the lowest.
    Descending,
}

/// A scan of a range of keys. It holds the path from the root to where it stands, and since nodes never change it stays
/// valid whatever is committed meanwhile. After an error, or after a dropped future, `next` goes on where it stood.
#[derive(Debug)]
pub struct Cursor<S> {
    store: S,
    /// The root, until it has been read.
    root: Option<TreeRoot>,
    range: KeyRange,
    direction: Direction,
    path: Vec<Step>,
}

/// A node on the path, and which of its entries are still to be visited.
#[derive(Debug)]
struct Step {
    place: Place,
    left: Range<usize>,
}

impl<S: NodeStore> Cursor<S> {
    /// A scan of the tree's keys within `range`. Nothing is read yet.
    #[must_use]
    pub fn new(store: S, root: Option<TreeRoot>, range: KeyRange, direction: Direction) -> Self {
        Self { store, root, range, direction, path: Vec::new() }
    }

    /// The next row, or `None` after the last.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged) for a node that breaks an invariant, and what the store raises.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        if let Some(root) = &self.root {
            let place = Place::root(&self.store, root).await?;
            self.enter(place);
            self.root = None;
        }
        loop {
            let Some(step) = self.path.last_mut() else { return Ok(None) };
            let next = match self.direction {
                Direction::Ascending => step.left.start,
                Direction::Descending => step.left.end.wrapping_sub(1),
            };
            if step.left.is_empty() {
                self.path.pop();
            } else if step.place.node.is_leaf() {
                step.advance(self.direction);
                return Ok(step.place.node.key_bytes(next).zip(step.place.node.value(next)));
            } else {
                // Only what has been read is passed by: see the promise about errors.
                let place = step.place.child(&self.store, next).await?;
                step.advance(self.direction);
                self.enter(place);
            }
        }
    }

    fn enter(&mut self, place: Place) {
        let left = entries_within(&place.node, &self.range);
        self.path.push(Step { place, left });
    }
}

impl Step {
    fn advance(&mut self, direction: Direction) {
        match direction {
            Direction::Ascending => self.left.start += 1,
            Direction::Descending => self.left.end -= 1,
        }
    }
}

/// The rows of a leaf that lie within the range; the children of an inner node that may hold some.
pub(super) fn entries_within(node: &Node, (lower, upper): &KeyRange) -> Range<usize> {
    // The number of keys that are below, or not above, a bound.
    let below = |key: &Bytes| node.search(key).unwrap_or_else(|before| before);
    let up_to = |key: &Bytes| node.search(key).map_or_else(|before| before, |index| index + 1);
    let start = match lower {
        Bound::Unbounded => 0,
        // The child before the first separator above the bound may hold keys above the bound too.
        Bound::Included(key) | Bound::Excluded(key) if !node.is_leaf() => up_to(key).saturating_sub(1),
        Bound::Included(key) => below(key),
        Bound::Excluded(key) => up_to(key),
    };
    let end = match upper {
        Bound::Unbounded => node.count(),
        Bound::Included(key) => up_to(key),
        // A child whose separator is at the bound holds nothing below it.
        Bound::Excluded(key) => below(key),
    };
    start..end
}
