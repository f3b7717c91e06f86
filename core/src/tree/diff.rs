use std::cmp::Ordering;

use bytes::Bytes;

use super::read::Place;
use super::{NodeStore, TreeRoot};
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
#[derive(Debug)]
pub struct Diff<S> {
    store: S,
    before: Front,
    after: Front,
}

/// How far one tree has been gone through: what comes next is a row, or a subtree that has not been read.
#[derive(Debug)]
struct Front {
    root: Option<TreeRoot>,
    path: Vec<(Place, usize)>,
}

enum Next<'a> {
    End,
    Row(Key<'a>),
    Subtree { pointer: Pointer, level: u8, lower: Key<'a> },
}

enum Step {
    End,
    PassBoth,
    EnterBefore,
    EnterAfter,
    OnlyBefore,
    OnlyAfter,
    Both,
}

impl<S: NodeStore> Diff<S> {
    /// From one tree to another. Nothing is read yet.
    #[must_use]
    pub fn new(store: S, before: Option<TreeRoot>, after: Option<TreeRoot>) -> Self {
        Self { store, before: Front::new(before), after: Front::new(after) }
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
                Step::End => return Ok(None),
                Step::PassBoth => {
                    self.before.pass();
                    self.after.pass();
                }
                Step::EnterBefore => self.before.enter(&self.store).await?,
                Step::EnterAfter => self.after.enter(&self.store).await?,
                Step::OnlyBefore => {
                    if let Some((key, value)) = self.before.take() {
                        return Ok(Some(Difference { key, before: Some(value), after: None }));
                    }
                }
                Step::OnlyAfter => {
                    if let Some((key, value)) = self.after.take() {
                        return Ok(Some(Difference { key, before: None, after: Some(value) }));
                    }
                }
                Step::Both => {
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
fn step(before: &Next<'_>, after: &Next<'_>) -> Step {
    match (before, after) {
        (Next::End, Next::End) => Step::End,
        (Next::Row(_), Next::End) => Step::OnlyBefore,
        (Next::End, Next::Row(_)) => Step::OnlyAfter,
        (Next::Subtree { .. }, Next::End) => Step::EnterBefore,
        (Next::End, Next::Subtree { .. }) => Step::EnterAfter,
        (Next::Row(before), Next::Row(after)) => match before.cmp(after) {
            Ordering::Less => Step::OnlyBefore,
            Ordering::Greater => Step::OnlyAfter,
            Ordering::Equal => Step::Both,
        },
        (Next::Row(key), Next::Subtree { lower, .. }) => {
            if key < lower {
                Step::OnlyBefore
            } else {
                Step::EnterAfter
            }
        }
        (Next::Subtree { lower, .. }, Next::Row(key)) => {
            if key < lower {
                Step::OnlyAfter
            } else {
                Step::EnterBefore
            }
        }
        (
            Next::Subtree { pointer, level, lower },
            Next::Subtree { pointer: other, level: other_level, lower: other_lower },
        ) => {
            if pointer == other {
                return Step::PassBoth;
            }
            // The other may still come to stand where this one's neighbours are.
            match lower.cmp(other_lower).then(other_level.cmp(level)) {
                Ordering::Greater => Step::EnterAfter,
                _ => Step::EnterBefore,
            }
        }
    }
}

impl Front {
    fn new(root: Option<TreeRoot>) -> Self {
        Self { root, path: Vec::new() }
    }

    /// Goes up from nodes that have been gone through.
    fn leave(&mut self) {
        while self.path.last().is_some_and(|(place, next)| *next >= place.node.count()) {
            self.path.pop();
        }
    }

    fn next(&self) -> Next<'_> {
        if let Some(root) = &self.root {
            let lower = Key { prefix: &[], suffix: &[] };
            return Next::Subtree { pointer: root.pointer, level: root.height.saturating_sub(1), lower };
        }
        let Some((place, next)) = self.path.last() else { return Next::End };
        match (place.node.key(*next), place.node.child(*next)) {
            (Some(lower), Some(pointer)) => {
                Next::Subtree { pointer, level: place.node.level().saturating_sub(1), lower }
            }
            (Some(key), None) => Next::Row(key),
            (None, _) => Next::End,
        }
    }

    fn pass(&mut self) {
        if self.root.take().is_none()
            && let Some((_, next)) = self.path.last_mut()
        {
            *next += 1;
        }
    }

    async fn enter(&mut self, store: &impl NodeStore) -> Result<()> {
        let place = match (&self.root, self.path.last()) {
            (Some(root), _) => Place::root(store, root).await?,
            (None, Some((place, next))) => place.child(store, *next).await?,
            (None, None) => return Ok(()),
        };
        // Only what has been read is passed by: see the promise about errors.
        self.pass();
        self.path.push((place, 0));
        Ok(())
    }

    fn take(&mut self) -> Option<(Bytes, Bytes)> {
        let (place, next) = self.path.last_mut()?;
        let row = place.node.key_bytes(*next).zip(place.node.value(*next));
        *next += 1;
        row
    }
}
