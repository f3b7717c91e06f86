//! What two states need differently: one ordered pass over both tables of blocks, which reads no node that they share.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{Stream, StreamExt as _, stream};

use super::state::State;
use super::target::in_clone;
use crate::engine::nodes::Nodes;
use crate::engine::root::Root;
use crate::engine::shared::Shared;
use crate::engine::view::table_range;
use crate::format::Pointer;
use crate::format::node::Node;
use crate::format::rows::{self, DataBlock};
use crate::tree::{Difference, Layered, MergedDiff, NodeStore};
use crate::{Error, Result};

/// A block that only one of two states needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Added(DataBlock),
    Removed(DataBlock),
}

/// The state that a clone is at, and how the blocks that it needs become those of a later one.
#[derive(Clone)]
pub(super) struct UsageChanges {
    old: OldNodes,
    head: Root,
}

impl UsageChanges {
    pub(super) fn new(shared: &Shared, head: Root, nodes: Arc<Nodes>) -> Self {
        let is_near = !shared.storage().is_remote();
        Self { old: OldNodes { source: shared.nodes.clone(), is_near, clone: nodes }, head }
    }

    /// The blocks that only one of the states needs, in their order. An error in reading the clone is one in the clone.
    pub(super) fn stream(&self, shared: &Arc<Shared>, state: &State) -> impl Stream<Item = Result<Change>> + use<> {
        let (before, after) = (&self.head.space, &state.root.space);
        let before = Layered { store: self.old.clone(), tree: before.tree, overlay: before.overlay.clone() };
        let after = Layered { store: shared.nodes.clone(), tree: after.tree, overlay: after.overlay.clone() };
        let range = table_range(rows::USAGE, (Bound::Unbounded, Bound::Unbounded));
        let diff = MergedDiff::new(before, after, range);
        let (shared, pin) = (shared.clone(), state.pin.clone());
        let used = stream::try_unfold((diff, shared, pin), |(mut diff, shared, pin)| async move {
            loop {
                match diff.next().await {
                    Ok(None) => return Ok(None),
                    Ok(Some(difference)) => {
                        if let Some(change) = change(&difference)? {
                            return Ok(Some((change, (diff, shared, pin))));
                        }
                    }
                    Err(error @ Error::InClone(_)) => return Err(error),
                    Err(error) => return Err(shared.explain(error, pin.sequence).await),
                }
            }
        });
        // Blocks of spilled deltas have no row.
        let spills = |root: &Root| root.spills.iter().copied().collect::<BTreeSet<_>>();
        let (before, after) = (spills(&self.head), spills(&state.root));
        let added = after.difference(&before).copied().map(Change::Added);
        let removed = before.difference(&after).copied().map(Change::Removed);
        let spilled: Vec<_> = added.chain(removed).map(Ok).collect();
        used.chain(stream::iter(spilled))
    }

    /// How many blocks are added and removed.
    pub(super) async fn count(&self, shared: &Arc<Shared>, state: &State) -> Result<(u64, u64)> {
        let mut changes = std::pin::pin!(self.stream(shared, state));
        let (mut added, mut removed) = (0, 0);
        while let Some(change) = changes.next().await {
            match change? {
                Change::Added(_) => added += 1,
                Change::Removed(_) => removed += 1,
            }
        }
        Ok((added, removed))
    }
}

fn change(difference: &Difference) -> Result<Option<Change>> {
    let of = |key| rows::decode_block_key(key).map_err(|error| Error::damaged("usage row", None, error.to_string()));
    Ok(match (&difference.before, &difference.after) {
        (None, Some(_)) => Some(Change::Added(of(&difference.key)?)),
        (Some(_), None) => Some(Change::Removed(of(&difference.key)?)),
        // It holds more than before, or less.
        _ => None,
    })
}

/// The nodes of the state that a clone is at: the clone has them. The source may have them still, under the same pointer, which
/// names one sealing; it is asked first where that is cheap.
#[derive(Clone)]
struct OldNodes {
    source: Arc<Nodes>,
    is_near: bool,
    clone: Arc<Nodes>,
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl NodeStore for OldNodes {
    fn cached(&self, pointer: &Pointer) -> Option<Arc<Node>> {
        self.source.cached(pointer).or_else(|| self.clone.cached(pointer))
    }

    async fn read(&self, pointer: &Pointer) -> Result<Arc<Node>> {
        if self.is_near
            && let Ok(node) = self.source.read(pointer).await
        {
            return Ok(node);
        }
        self.clone.read(pointer).await.map_err(in_clone)
    }

    async fn write(&self, _: &[u8], _: u8) -> Result<Pointer> {
        Err(Error::ReadOnly)
    }

    fn node_bytes_max(&self) -> usize {
        self.source.node_bytes_max()
    }
}
