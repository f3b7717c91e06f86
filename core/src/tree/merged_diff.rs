use std::collections::BTreeSet;
use std::ops::RangeBounds as _;

use bytes::Bytes;

use super::{Diff, Difference, KeyRange, NodeStore, Overlay, TreeRoot, get};
use crate::error::Result;

/// A tree under an overlay of changes, and the store that it is in.
#[derive(Clone, Debug)]
pub struct Layered<S> {
    /// Where its nodes are.
    pub store: S,
    /// The tree; `None` where it is empty.
    pub tree: Option<TreeRoot>,
    /// What is changed in it.
    pub overlay: Overlay,
}

/// What differs between two trees under overlays, as [`Diff`] tells it of the trees alone: it costs as much as differs between
/// those, and a look-up for each key of a range that an overlay changes.
#[derive(Debug)]
pub struct MergedDiff<B, A = B> {
    diff: Diff<B, A>,
    before: Overlay,
    after: Overlay,
    after_tree: Option<TreeRoot>,
    /// The next difference of the trees, once it is known.
    difference: Option<Difference>,
    has_ended: bool,
    /// Keys that an overlay changes, and that are still to come.
    overlaid: BTreeSet<Bytes>,
}

impl<B: NodeStore, A: NodeStore> MergedDiff<B, A> {
    /// The keys of a range, from one to the other. Nothing is read yet.
    #[must_use]
    pub fn new(before: Layered<B>, after: Layered<A>, range: KeyRange) -> Self {
        let overlaid = if before.tree == after.tree {
            // Over the same tree, only where the overlays differ.
            let keys = before.overlay.differing_keys(&after.overlay).into_iter();
            keys.filter(|key| range.contains(key)).collect()
        } else {
            before.overlay.range(&range).chain(after.overlay.range(&range)).map(|(key, _)| key).collect()
        };
        Self {
            diff: Diff::between((before.store, before.tree), (after.store, after.tree), range),
            before: before.overlay,
            after: after.overlay,
            after_tree: after.tree,
            difference: None,
            has_ended: false,
            overlaid,
        }
    }

    /// The next difference, or `None` after the last.
    ///
    /// # Errors
    /// As [`Diff::next`]; after an error, or after a dropped future, it goes on where it stood.
    pub async fn next(&mut self) -> Result<Option<Difference>> {
        loop {
            if self.difference.is_none() && !self.has_ended {
                self.difference = self.diff.next().await?;
                self.has_ended = self.difference.is_none();
            }
            let key = match (self.overlaid.first(), &self.difference) {
                (None, _) => return Ok(self.difference.take()),
                (Some(key), Some(difference)) if difference.key < *key => return Ok(self.difference.take()),
                (Some(key), _) => key.clone(),
            };
            let (in_before, in_after) = match &self.difference {
                Some(difference) if difference.key == key => (difference.before.clone(), difference.after.clone()),
                // No difference between the trees: what one has the other has.
                _ => {
                    let row = get(self.diff.after_store(), self.after_tree.as_ref(), &key).await?;
                    (row.clone(), row)
                }
            };
            // Nothing is awaited from here on, so that nothing is lost where the future is dropped.
            self.overlaid.remove(&key);
            if self.difference.as_ref().is_some_and(|difference| difference.key == key) {
                self.difference = None;
            }
            let before = self.before.get(&key).unwrap_or(in_before);
            let after = self.after.get(&key).unwrap_or(in_after);
            if before != after {
                return Ok(Some(Difference { key, before, after }));
            }
        }
    }
}
