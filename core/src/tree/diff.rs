use std::cmp::Ordering;
use std::ops::{Bound, Range};

use bytes::Bytes;

use super::cursor::entries_within;
use super::read::Place;
use super::{KeyRange, NodeStore, TreeRoot};
use crate::error::Result;
use crate::format::Pointer;
use crate::format::node::Key;

/// A key that has not the same value in two trees; `None` where it is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: Bytes,
    /// Its value in the first tree.
    pub before: Option<Bytes>,
    /// Its value in the second.
    pub after: Option<Bytes>,
}

/// What differs between two trees, in ascending order of the keys. A subtree that both have is passed by unread, so that of
/// trees that share most of their nodes only the others are met. After an error, or after a dropped future, `next` goes on
/// where it stood.
///
/// The trees may lie in two stores. Nodes under one pointer are the same node then.
#[derive(Debug)]
pub struct Diff<B, A = B> {
    before: Front<B>,
    after: Front<A>,
    range: KeyRange,
}

/// How far one tree has been gone through: what comes next is a row, or a subtree that has not been read.
#[derive(Debug)]
struct Front<S> {
    store: S,
    root: Option<TreeRoot>,
    path: Vec<Step>,
}

/// A node on the path, and which of its entries are still to come.
#[derive(Debug)]
struct Step {
    place: Place,
    left: Range<usize>,
}

enum Next<'a> {
    End,
    Row(Key<'a>),
    Subtree { pointer: Pointer, level: u8, lower: Key<'a> },
}

enum Turn {
    End,
    PassBoth,
    EnterBefore,
    EnterAfter,
    OnlyBefore,
    OnlyAfter,
    Both,
}

impl<S: NodeStore + Clone> Diff<S> {
    /// From one tree to another. Nothing is read yet.
    #[must_use]
    pub fn new(store: S, before: Option<TreeRoot>, after: Option<TreeRoot>) -> Self {
        Self::between((store.clone(), before), (store, after), (Bound::Unbounded, Bound::Unbounded))
    }
}

impl<B: NodeStore, A: NodeStore> Diff<B, A> {
    /// The keys of a range, from a tree to another, each with the store it is in. Nothing is read yet.
    #[must_use]
    pub fn between(before: (B, Option<TreeRoot>), after: (A, Option<TreeRoot>), range: KeyRange) -> Self {
        Self { before: Front::new(before), after: Front::new(after), range }
    }

    /// The store of the second tree.
    pub(super) fn after_store(&self) -> &A {
        &self.after.store
    }

    /// The next difference, or `None` after the last.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged) for a node that breaks an invariant, and what the store raises.
    pub async fn next(&mut self) -> Result<Option<Difference>> {
        loop {
            self.before.leave();
            self.after.leave();
            match step(&self.before.next(), &self.after.next()) {
                Turn::End => return Ok(None),
                Turn::PassBoth => {
                    self.before.pass();
                    self.after.pass();
                }
                Turn::EnterBefore => self.before.enter(&self.range).await?,
                Turn::EnterAfter => self.after.enter(&self.range).await?,
                Turn::OnlyBefore => {
                    if let Some((key, value)) = self.before.take() {
                        return Ok(Some(Difference { key, before: Some(value), after: None }));
                    }
                }
                Turn::OnlyAfter => {
                    if let Some((key, value)) = self.after.take() {
                        return Ok(Some(Difference { key, before: None, after: Some(value) }));
                    }
                }
                Turn::Both => {
                    if let (Some((key, before)), Some((_, after))) = (self.before.take(), self.after.take())
                        && before != after
                    {
                        return Ok(Some(Difference { key, before: Some(before), after: Some(after) }));
                    }
                }
            }
        }
    }
}

/// What to do with what comes next on both sides. All keys of a subtree are at or above its lower bound.
fn step(before: &Next<'_>, after: &Next<'_>) -> Turn {
    match (before, after) {
        (Next::End, Next::End) => Turn::End,
        (Next::Row(_), Next::End) => Turn::OnlyBefore,
        (Next::End, Next::Row(_)) => Turn::OnlyAfter,
        (Next::Subtree { .. }, Next::End) => Turn::EnterBefore,
        (Next::End, Next::Subtree { .. }) => Turn::EnterAfter,
        (Next::Row(before), Next::Row(after)) => match before.cmp(after) {
            Ordering::Less => Turn::OnlyBefore,
            Ordering::Greater => Turn::OnlyAfter,
            Ordering::Equal => Turn::Both,
        },
        (Next::Row(key), Next::Subtree { lower, .. }) => {
            if key < lower {
                Turn::OnlyBefore
            } else {
                Turn::EnterAfter
            }
        }
        (Next::Subtree { lower, .. }, Next::Row(key)) => {
            if key < lower {
                Turn::OnlyAfter
            } else {
                Turn::EnterBefore
            }
        }
        (
            Next::Subtree { pointer, level, lower },
            Next::Subtree { pointer: other, level: other_level, lower: other_lower },
        ) => {
            if pointer == other {
                return Turn::PassBoth;
            }
            // The other may still come to stand where this one's neighbours are.
            match lower.cmp(other_lower).then(other_level.cmp(level)) {
                Ordering::Greater => Turn::EnterAfter,
                _ => Turn::EnterBefore,
            }
        }
    }
}

impl<S: NodeStore> Front<S> {
    fn new((store, root): (S, Option<TreeRoot>)) -> Self {
        Self { store, root, path: Vec::new() }
    }

    /// Goes up from nodes that have been gone through.
    fn leave(&mut self) {
        while self.path.last().is_some_and(|step| step.left.is_empty()) {
            self.path.pop();
        }
    }

    fn next(&self) -> Next<'_> {
        if let Some(root) = &self.root {
            let lower = Key { prefix: &[], suffix: &[] };
            return Next::Subtree { pointer: root.pointer, level: root.height.saturating_sub(1), lower };
        }
        let Some(Step { place, left }) = self.path.last() else { return Next::End };
        match (place.node.key(left.start), place.node.child(left.start)) {
            (Some(lower), Some(pointer)) => {
                Next::Subtree { pointer, level: place.node.level().saturating_sub(1), lower }
            }
            (Some(key), None) => Next::Row(key),
            (None, _) => Next::End,
        }
    }

    fn pass(&mut self) {
        if self.root.take().is_none()
            && let Some(step) = self.path.last_mut()
        {
            step.left.start += 1;
        }
    }

    async fn enter(&mut self, range: &KeyRange) -> Result<()> {
        let place = match (&self.root, self.path.last()) {
            (Some(root), _) => Place::root(&self.store, root).await?,
            (None, Some(step)) => step.place.child(&self.store, step.left.start).await?,
            (None, None) => return Ok(()),
        };
        // Only what has been read is passed by: see the promise about errors.
        self.pass();
        let left = entries_within(&place.node, range);
        self.path.push(Step { place, left });
        Ok(())
    }

    fn take(&mut self) -> Option<(Bytes, Bytes)> {
        let Step { place, left } = self.path.last_mut()?;
        let row = place.node.key_bytes(left.start).zip(place.node.value(left.start));
        left.start += 1;
        row
    }
}
