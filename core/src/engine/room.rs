//! Getting along on a full storage, in company too: what can be given back without a commit, deletions that take one block,
//! and folding the chain before the last of the ballast is used up.
//!
//! What must stay true: after a deletion was committed there is something that is given back later without a commit, or
//! ballast for the next one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::checkpoint::Trees;
use super::commit::{Draft, Extra, Floor, Leader};
use super::root::{Root, Side};
use super::shared::{Shared, lock};
use super::transaction::{Op, Work};
use crate::format::node::leaf_entry_bytes_max;
use crate::format::rows::{self, DataBlock};
use crate::format::{BlockId, rows::ChunkRow, rows::Place};
use crate::storage::{ErrorKind, Name};
use crate::tree;
use crate::{Error, Result};

/// How often the head is looked for anew because it moves on while it is asked about a block.
const LOOKS_MAX: usize = 4;

/// What this process has deleted that takes no commit.
#[derive(Clone, Copy, Default)]
pub(crate) struct GivenBack {
    /// The newest commit that condemned any of it.
    condemned: u64,
    /// Commits below this.
    commits: u64,
}

/// A block of nodes, a commit and its hint: with less no checkpoint is tried.
const FOLD_BLOCKS_MIN: usize = 3;

pub(super) fn is_full(error: &Error) -> bool {
    error.storage_kind() == Some(ErrorKind::Full)
}

impl Shared {
    /// The floor that a commit on `root` could state now: what was condemned up to there is nobody's, whether or not a
    /// commit gets to say so. `alone`: nobody else is there.
    pub(super) fn passed(&self, root: &Root, alone: bool) -> u64 {
        self.floor(root, root.sequence, self.env().now(), if alone { Floor::Alone } else { Floor::Grace })
    }

    /// Whether a state that names this blob has been given up: for a block, where the newest one does without it, since it may
    /// be deleted before a commit raises the floor; and what the newest needs is lost, whatever the floor says.
    pub(super) async fn has_expired(&self, blob: Name, sequence: u64) -> Result<bool> {
        let mut looks_left = LOOKS_MAX;
        loop {
            let head = self.chain.find_head().await?;
            let Some(BlockId::Data { key_epoch, writer_epoch, counter }) = self.blocks.reader.block_id(blob) else {
                return Ok(sequence < head.floor);
            };
            let block = DataBlock { key_epoch, writer_epoch, counter };
            match self.does_without(&head, block, sequence).await {
                Ok(expired) => return Ok(expired),
                // That state was given up in turn, or is damaged.
                Err(Error::Missing { .. }) if looks_left > 0 => looks_left -= 1,
                Err(Error::Missing { .. } | Error::Damaged(_)) => return Ok(sequence < head.floor),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a later state does without a block that the one at `sequence` names.
    pub(super) async fn does_without(&self, head: &Root, block: DataBlock, sequence: u64) -> Result<bool> {
        if sequence >= head.sequence || head.spills.contains(&block) {
            return Ok(false);
        }
        Ok(head.get(&self.nodes, &rows::usage_key(block)).await?.is_none())
    }

    /// Deletes what nothing needs any more and no commit is needed for; whether that was anything.
    pub(super) async fn give_back_condemned(&self) -> Result<bool> {
        let guard = self.try_alone().await?;
        let alone = guard.is_some();
        let root = self.root();
        // The rows of what was deleted stand until the next checkpoint: that is not given back again.
        let before = *lock(&self.given_back);
        let given_back = async {
            let deleted = self.delete_condemned(&root, alone).await?;
            let condemned =
                deleted.iter().filter_map(|key| rows::decode_condemned_key(key).ok()).map(|(at, _)| at).max();
            let oldest = self.delete_commits(&root, alone).await?;
            let after = GivenBack { condemned: condemned.unwrap_or(0), commits: oldest };
            *lock(&self.given_back) = after;
            Ok(after.condemned > before.condemned || after.commits > before.commits.max(root.oldest).max(1))
        };
        let given_back = match given_back.await {
            // A hint comes first, and there is no room for it.
            Err(error) if is_full(&error) => Ok(false),
            done => done,
        };
        drop(guard);
        given_back
    }

    /// Whether a block that found storage full may be tried again, because what nobody needs any more made room.
    pub(super) async fn makes_room(&self, error: &Error) -> bool {
        is_full(error) && self.give_back_condemned().await.unwrap_or(false)
    }

    /// A writer epoch for a commit. A deletion does without where claiming one would cost it the ballast: nothing is put
    /// under it.
    pub(super) async fn hold_epoch_to_commit(self: &Arc<Self>, work: &Work) -> Result<()> {
        match self.hold_epoch().await {
            Err(error) if is_full(&error) && work.frees() => {
                if work.epoch.is_none() && self.fits_a_commit(work) {
                    return Ok(());
                }
                self.hold_epoch_for(true).await.map(drop)
            }
            held => held.map(drop),
        }
    }

    /// Whether the rows of this work are sure to fit the blob of a commit, with those that follow from them.
    fn fits_a_commit(&self, work: &Work) -> bool {
        let row_bytes_max = leaf_entry_bytes_max(self.context.geometry.node_bytes_max());
        let bytes = |op: &Op| match op {
            Op::Put(value) => value.len(),
            Op::Delete => 0,
            // The chunk's row or its identity's, and those of the blocks that it leaves.
            _ => 3 * row_bytes_max,
        };
        let total: usize = work.ops.iter().map(|(key, op)| key.len() + bytes(op) + 16).sum();
        total + 64 * self.ballast_count() <= self.chain.body_bytes_max()
    }

    /// After a deletion that found storage full: gives back what can be, and folds the chain while what is left of the
    /// ballast still suffices for that. Commits, and files smaller than a block, give nothing back otherwise.
    pub(super) async fn keep_room(self: &Arc<Self>) {
        if !self.spent.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.try_to_keep_room().await {
            tracing::warn!(%error, "the chain of a full storage could not be folded");
        }
    }

    async fn try_to_keep_room(self: &Arc<Self>) -> Result<()> {
        let mut leader = self.leader.lock().await;
        self.settle(&mut leader).await?;
        self.give_back_condemned().await?;
        let root = self.root();
        let (cost, trees) = self.fold_cost(&root).await?;
        let ballast = self.ballast(&root).await?;
        let left = ballast.len() - self.missing_ballast(&ballast).await?.len();
        drop(leader);
        // One more deletion may come before the next look, from one that dies then.
        if left > cost + 1 || left < FOLD_BLOCKS_MIN || root.sequence - root.base < 2 {
            return Ok(());
        }
        self.hold_epoch_for(true).await?;
        let mut leader = self.leader.lock().await;
        self.fold(&mut leader, trees).await?;
        self.give_back_condemned().await?;
        // Before somebody else takes what that gave back.
        let (base, mut draft) = (self.root(), Draft::default());
        if !self.top_up_ballast(&base, &mut draft).await?.is_empty() {
            self.publish(&mut leader, base, draft, Extra::default()).await?;
        }
        Ok(())
    }

    /// A checkpoint, for which the ballast may be used up.
    async fn fold(self: &Arc<Self>, leader: &mut Leader, trees: Trees) -> Result<()> {
        let before = self.root().base;
        loop {
            let root = self.root();
            let done = match root.base > before {
                // All but its hint was there.
                true => self.ensure_hint(&root).await.map(|()| true),
                false => self.checkpoint(leader, trees).await,
            };
            match done {
                Err(error) if is_full(&error) => {
                    self.give_back_aborted().await?;
                    if !self.spend_ballast(&self.root()).await? {
                        return Err(error);
                    }
                }
                done => return done.map(drop),
            }
        }
    }

    /// About how many blocks a checkpoint puts before it gives any back, and how it is to be made: where all nodes fit into
    /// as many blocks as those that change, they are written anew, so that no block of nodes is left half empty.
    async fn fold_cost(&self, root: &Root) -> Result<(usize, Trees)> {
        let geometry = &self.context.geometry;
        let capacity = geometry.record_capacity().max(1);
        let inline: usize = (root.space.overlay.iter())
            .filter(|(key, _)| key.first() == Some(&rows::CHUNK))
            .filter_map(|(_, value)| ChunkRow::decode(&value?).ok())
            .map(|row| if let Place::Inline(payload) = row.place { payload.len() } else { 0 })
            .sum();
        let nodes = |side: &Side| {
            let height = side.tree.as_ref().map_or(1, |tree| usize::from(tree.height));
            if side.overlay.is_empty() { 0 } else { height + side.overlay.len() / 8 }
        };
        let changed = ((nodes(&root.content) + nodes(&root.space)) * geometry.node_bytes_max()).div_ceil(capacity);
        let bytes_max = (changed * capacity).saturating_sub(geometry.node_bytes_max());
        let rebuilds = self.are_trees_within(root, bytes_max).await?;
        let claim = usize::from(lock(&self.epoch).number.is_none());
        // And the commit and its hint.
        let cost = inline.div_ceil(capacity) + changed + claim + 2;
        Ok((cost, if rebuilds { Trees::Rebuild } else { Trees::Change }))
    }

    /// Whether all nodes of a state, with what is to come into them, have no more than so many bytes. No more of them are
    /// read than that.
    async fn are_trees_within(&self, root: &Root, bytes_max: usize) -> Result<bool> {
        let overlay_bytes = |side: &Side| -> usize {
            side.overlay.iter().map(|(key, value)| 40 + key.len() + value.as_ref().map_or(0, bytes::Bytes::len)).sum()
        };
        let mut bytes = overlay_bytes(&root.content) + overlay_bytes(&root.space);
        for tree in [&root.content.tree, &root.space.tree] {
            let walked = tree::walk(&self.nodes, tree.as_ref(), |visit| {
                bytes += visit.node?.bytes().len() + 40;
                // Any error ends the walk; this one is not told.
                if bytes > bytes_max { Err(Error::Conflict) } else { Ok(()) }
            })
            .await;
            match walked {
                Err(Error::Conflict) => return Ok(false),
                done => done?,
            }
        }
        Ok(bytes <= bytes_max)
    }
}
