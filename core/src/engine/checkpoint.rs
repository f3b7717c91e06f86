//! Checkpoints: the overlay goes into the trees, payloads kept in rows into blocks, and the commits before become
//! superfluous.
//!
//! Accounts lag one checkpoint: the usage rows that a checkpoint's own nodes cause are deltas of the checkpoint commit, on
//! top of the new trees. That ends the recursion.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::commit::{Draft, Extra, Floor, Leader, Outcome};
use super::gather::Gathering;
use super::place;
use super::root::{Overlay, Root, Side};
use super::settled::heard_of;
use super::shared::{Shared, lock};
use super::snapshots::keep;
use super::view::table_range;
use crate::format::Pointer;
use crate::format::rows::{self, ChunkRow, DataBlock, Place};
use crate::format::{BlockClass, RecordKind};
use crate::storage::ErrorKind;
use crate::tree::{self, Applied, Dead, Direction, MergedCursor};
use crate::{Error, Result};

/// What a checkpoint does to the trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trees {
    /// Writes the nodes that change.
    Change,
    /// Writes every node, so that none is half empty and no block of them sparse.
    Rebuild,
}

/// What a checkpoint does beside.
#[derive(Clone, Copy)]
pub(super) enum Beside<'a> {
    Nothing,
    /// Keeps its content under a name, as of now or of the time that is given.
    Keep(&'a str, Option<u64>),
    /// Moves nodes out of sparse blocks.
    Gather(&'a Gathering),
}

impl Shared {
    pub(crate) fn checkpoint_due(&self) -> bool {
        let root = self.root();
        root.tail_bytes >= self.tuning.checkpoint_bytes || root.sequence - root.base >= self.tuning.checkpoint_commits
    }

    /// Makes a checkpoint on the newest state. A lost race leaves it to the winner; without an epoch, as while one is being
    /// claimed, it waits for the next commit: what it wrote under the epoch before could be swept with that.
    /// `false` where none was made.
    pub(crate) async fn checkpoint(self: &Arc<Self>, leader: &mut Leader, trees: Trees) -> Result<bool> {
        self.checkpoint_beside(leader, trees, Beside::Nothing).await
    }

    /// As [`Shared::checkpoint`], with something beside in the same commit.
    pub(super) async fn checkpoint_beside(
        self: &Arc<Self>,
        leader: &mut Leader,
        trees: Trees,
        beside: Beside<'_>,
    ) -> Result<bool> {
        self.settle(leader).await?;
        let base = self.root();
        let sequence = base.sequence;
        match self.checkpoint_on(leader, base, trees, beside).await {
            Err(Error::Conflict) => Ok(false),
            Err(error) => self.move_on(error, sequence).await.map(|()| false),
            done => done,
        }
    }

    async fn checkpoint_on(
        self: &Arc<Self>,
        leader: &mut Leader,
        base: Arc<Root>,
        trees: Trees,
        beside: Beside<'_>,
    ) -> Result<bool> {
        let mut draft = Draft::default();
        if let Beside::Keep(name, _) = beside {
            self.check_free(&base, name).await?;
        }
        // Others may have ended our epoch: what is written under it could be swept before a commit names it.
        self.check_epoch(&base, &draft).await?;
        let Some(epoch) = lock(&self.epoch).number else { return Ok(false) };
        let appending = self.start_appending_any();
        let now = self.env().now();
        for open in self.lasting_epochs(&base, epoch).await?.into_iter().chain([epoch]) {
            let key = rows::epoch_key(open);
            // Others may have disowned it meanwhile: that stays.
            let row = match base.get(&self.nodes, &key).await? {
                Some(row) => heard_of(&place::decode(&row)?, now),
                None => self.own_claimant(open).row(now),
            };
            draft.rows.insert(key, Some(row.encode()));
        }
        let guard = self.try_alone().await?;
        if !self.spent.load(Ordering::Acquire) {
            self.top_up_ballast(&base, &mut draft).await?;
        }
        let mut space = base.space.overlay.clone();
        self.pack_inline(&base, &mut space, &mut draft).await?;
        for key in self.delete_condemned(&base, guard.is_some()).await? {
            space.insert(&key, None);
        }
        let oldest = self.delete_commits(&base, guard.is_some()).await?;
        let sequence = base.sequence + 1;
        let kept = self.newest_snapshot(&base, &draft).await?;
        // Snapshots would keep the nodes that are replaced: written anew, the content would be there twice.
        let content_trees = if kept > 0 { Trees::Change } else { trees };
        let mut content = self.write_tree(&base.content, base.content.overlay.clone(), content_trees, sequence).await?;
        count(&content.written, 1, &mut draft);
        let (parked, dead): (Vec<Dead>, Vec<Dead>) = content.dead.iter().partition(|dead| dead.birth <= kept);
        for node in parked {
            let birth = Bytes::copy_from_slice(&node.birth.to_le_bytes());
            draft.rows.insert(rows::parked_node_key(sequence, &node.pointer), Some(birth));
        }
        count(dead.iter().map(|dead| &dead.pointer), -1, &mut draft);
        let mut space = self.write_tree(&base.space, space, trees, 0).await?;
        count(&space.written, 1, &mut draft);
        count(space.dead.iter().map(|dead| &dead.pointer), -1, &mut draft);
        match beside {
            Beside::Nothing => {}
            Beside::Keep(name, time) => keep(name, sequence, time.unwrap_or(now), content.root, &mut draft),
            Beside::Gather(gathering) => {
                let roots = [&mut content.root, &mut space.root];
                self.move_nodes(&base, roots, gathering, &mut draft).await?;
            }
        }
        for block in &base.spills {
            draft.rows.insert(rows::condemned_key(sequence, *block), Some(Bytes::new()));
        }
        self.flush_blocks(appending.since).await?;
        let extra = Extra {
            roots: Some((content.root, space.root)),
            floor: if guard.is_some() { Floor::Alone } else { Floor::Grace },
            oldest: Some(oldest),
            ..Extra::default()
        };
        match self.publish(leader, base, draft, extra).await? {
            Outcome::Published(sequence) => {
                let root = self.root();
                if root.sequence == sequence {
                    self.ensure_hint(&root).await?;
                }
                drop(guard);
                Ok(true)
            }
            Outcome::Lost => Ok(false),
        }
    }

    /// Payloads that small transactions kept in their rows share blocks from here on: this is the aggregation.
    async fn pack_inline(&self, base: &Root, space: &mut Overlay, draft: &mut Draft) -> Result<()> {
        let range = table_range(rows::CHUNK, (Bound::Unbounded, Bound::Unbounded));
        for (key, value) in base.space.overlay.range(&range) {
            let Some(value) = value else { continue };
            let mut row = ChunkRow::decode(&value).map_err(|error| Error::damaged("chunk", None, error.to_string()))?;
            let Place::Inline(payload) = &row.place else { continue };
            let number =
                rows::decode_number_key(&key).map_err(|error| Error::damaged("chunk", None, error.to_string()))?;
            let pointers = self.blocks.writer.append(BlockClass::Data, RecordKind::ChunkData, number, payload).await?;
            count(&pointers, 1, draft);
            row.place = Place::Records(pointers);
            space.insert(&key, Some(&row.encode()));
        }
        Ok(())
    }

    /// `birth`: the checkpoint that the nodes are for, where snapshots may keep them.
    async fn write_tree(&self, side: &Side, overlay: Overlay, trees: Trees, birth: u64) -> Result<Applied> {
        let tree = side.tree.as_ref();
        match trees {
            Trees::Change => tree::apply(self.nodes.as_ref(), tree, overlay, birth).await,
            Trees::Rebuild => tree::rebuild(&self.nodes, tree, overlay, birth).await,
        }
    }

    /// Deletes the blocks that were condemned at or before the floor that the next commit could state, and answers the rows
    /// that named them. `alone`: nobody else is there while this runs.
    pub(crate) async fn delete_condemned(&self, root: &Root, alone: bool) -> Result<Vec<Bytes>> {
        self.delete_condemned_some(root, alone, &BTreeSet::new(), usize::MAX).await
    }

    /// As [`Shared::delete_condemned`], so many at most, and without those whose rows are known to be of deleted ones.
    pub(super) async fn delete_condemned_some(
        &self,
        root: &Root,
        alone: bool,
        known: &BTreeSet<Bytes>,
        count_max: usize,
    ) -> Result<Vec<Bytes>> {
        let mut deleted = Vec::new();
        let passed = self.passed(root, alone);
        let (start, end) = table_range(rows::CONDEMNED, (Bound::Unbounded, Bound::Unbounded));
        let mut cursor = MergedCursor::new(
            self.nodes.clone(),
            root.space.tree,
            root.space.overlay.clone(),
            (start, end),
            Direction::Ascending,
        );
        while deleted.len() < count_max
            && let Some((key, _)) = cursor.next().await?
        {
            let (sequence, block) = rows::decode_condemned_key(&key)
                .map_err(|error| Error::damaged("condemned row", None, error.to_string()))?;
            // A reader may have come to the state before while the commit that raised the floor was under way.
            if sequence > passed.min(self.oldest_pin().unwrap_or(u64::MAX)) {
                break;
            }
            if known.contains(&key) {
                continue;
            }
            // An older hint leads through commits whose spilled deltas may be condemned.
            self.ensure_hint(root).await?;
            self.storage().delete(self.block_name(block)).await?;
            deleted.push(key);
        }
        Ok(deleted)
    }

    /// Whether a state names condemned blocks by other rows than these.
    pub(super) async fn has_condemned_beside(&self, root: &Root, known: &BTreeSet<Bytes>) -> Result<bool> {
        let range = table_range(rows::CONDEMNED, (Bound::Unbounded, Bound::Unbounded));
        let overlay = root.space.overlay.clone();
        let mut cursor = MergedCursor::new(self.nodes.clone(), root.space.tree, overlay, range, Direction::Ascending);
        while let Some((key, _)) = cursor.next().await? {
            if !known.contains(&key) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes the commits that no readable state needs, ascending and without gaps, and answers the oldest one left.
    pub(crate) async fn delete_commits(&self, root: &Root, alone: bool) -> Result<u64> {
        // The checkpoint itself and its tail stay; so does everything while states before the checkpoint are readable.
        if self.passed(root, alone) < root.base {
            return Ok(root.oldest);
        }
        let mut oldest = root.oldest.max(1);
        if oldest >= root.base {
            return Ok(oldest);
        }
        self.ensure_hint(root).await?;
        while oldest < root.base {
            if self.is_ours(root, oldest).await {
                self.storage().delete(self.chain.name(oldest)).await?;
            }
            oldest += 1;
        }
        Ok(oldest)
    }

    /// A hint to the root's checkpoint is durably there: nothing before that checkpoint may be deleted otherwise.
    pub(crate) async fn ensure_hint(&self, root: &Root) -> Result<()> {
        if self.hinted.load(Ordering::Acquire) >= root.base {
            return Ok(());
        }
        let hints = self.chain.hints().await?;
        if let Some((name, _)) =
            hints.iter().find(|(_, hint)| hint.as_ref().is_ok_and(|hint| hint.sequence == root.base))
        {
            // Whoever put it may have died before it was durable.
            match self.storage().persist(&[*name]).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => {
                    done?;
                    self.hinted.fetch_max(root.base, Ordering::AcqRel);
                    return Ok(());
                }
            }
        }
        let hash = if root.sequence == root.base {
            root.hash
        } else {
            let row = root.get(&self.nodes, &rows::history_key(root.base)).await?;
            let hash = row.and_then(|row| <[u8; 32]>::try_from(row.as_ref()).ok());
            hash.ok_or_else(|| Error::damaged("history", None, format!("checkpoint {} is not in it", root.base)))?
        };
        self.chain.put_hint(root.base, hash).await?;
        self.hinted.fetch_max(root.base, Ordering::AcqRel);
        Ok(())
    }

    pub(crate) fn block_name(&self, block: DataBlock) -> crate::storage::Name {
        self.blocks.reader.name(&block.id())
    }
}

pub(super) fn count<'p>(pointers: impl IntoIterator<Item = &'p Pointer>, sign: i64, draft: &mut Draft) {
    let mut sums: BTreeMap<DataBlock, i64> = BTreeMap::new();
    for pointer in pointers {
        *sums.entry(DataBlock::of(pointer)).or_default() += sign * rows::live_bytes(pointer).cast_signed();
    }
    for (block, bytes) in sums {
        *draft.usage.entry(block).or_default() += bytes;
    }
}
