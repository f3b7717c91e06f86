//! Ballast: a few empty blocks that are given up when storage is full, because deleting takes a commit, and a commit takes
//! a block. Nothing else may use them up.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::commit::{Draft, Extra, Leader, Outcome};
use super::room::is_full;
use super::root::Root;
use super::shared::{Shared, lock};
use super::transaction::{Op, Work};
use super::view::table_range;
use crate::format::rows::{self, DataBlock};
use crate::format::{BlockId, SALT_BYTES};
use crate::storage::{Durability, Effect, ErrorKind, Name};
use crate::tree::{Direction, MergedCursor};
use crate::{Error, Result};

/// What was done to make room for one group of transactions.
#[derive(Default)]
pub(super) struct Room {
    gave_back: bool,
    /// Whether ballast was given up: none is put then.
    pub(super) spent: bool,
}

impl Shared {
    /// How many blocks of ballast there should be: about a megabyte, and six or seven. None where storage does not fill up:
    /// the far ones, and memory.
    pub(super) fn ballast_count(&self) -> usize {
        let capabilities = self.storage().capabilities();
        if self.storage().is_remote() || capabilities.durability == Durability::None {
            return 0;
        }
        ((1 << 20) / self.context.geometry.block_bytes() as usize).clamp(6, 7)
    }

    /// The blocks that a state names as ballast.
    pub(crate) async fn ballast(&self, root: &Root) -> Result<BTreeSet<DataBlock>> {
        Ok(self.ballast_rows(root).await?.into_keys().collect())
    }

    /// The blocks that a state names as ballast, with the salts of their sealings.
    pub(crate) async fn ballast_rows(&self, root: &Root) -> Result<BTreeMap<DataBlock, [u8; SALT_BYTES]>> {
        let range = table_range(rows::BALLAST, (Bound::Unbounded, Bound::Unbounded));
        let overlay = root.space.overlay.clone();
        let mut cursor = MergedCursor::new(self.nodes.clone(), root.space.tree, overlay, range, Direction::Ascending);
        let damaged = |detail: String| Error::damaged("ballast row", None, detail);
        let mut blocks = BTreeMap::new();
        while let Some((key, value)) = cursor.next().await? {
            let block = rows::decode_block_key(&key).map_err(|error| damaged(error.to_string()))?;
            let salt = value.as_ref().try_into().map_err(|_| damaged("its value has another length".into()))?;
            blocks.insert(block, salt);
        }
        Ok(blocks)
    }

    /// Makes the ballast whole, as far as storage has room for it and for the commit that the rows are for; answers what
    /// was put.
    pub(super) async fn top_up_ballast(&self, root: &Root, draft: &mut Draft) -> Result<Vec<DataBlock>> {
        let (mut put, mut failed) = self.put_ballast(root, draft).await?;
        if failed.is_none() && !put.is_empty() && self.spent.load(Ordering::Acquire) {
            // Whether there is room for the commit still, shows when something is put there.
            match self.blocks.writer.put_empty().await {
                Ok((id, _)) => self.storage().delete(self.blocks.reader.name(&id)).await?,
                Err(error) => {
                    self.note_unlisted(&error);
                    failed = Some(error);
                }
            }
        }
        if let Some(error) = failed {
            tracing::debug!(%error, "the ballast is not whole");
            if let Some(last) = put.pop() {
                draft.rows.remove(&rows::ballast_key(last));
                self.storage().delete(self.block_name(last)).await?;
            }
        }
        Ok(put)
    }

    /// As [`Shared::top_up_ballast`], all or nothing: the storage is left as it was where it has not room for all of it.
    pub(super) async fn restore_ballast(&self, root: &Root, draft: &mut Draft) -> Result<()> {
        let (put, failed) = self.put_ballast(root, draft).await?;
        let Some(error) = failed else { return Ok(()) };
        self.take_ballast_back(&put).await?;
        Err(error)
    }

    /// Deletes ballast that no commit came to name.
    pub(super) async fn take_ballast_back(&self, put: &[DataBlock]) -> Result<()> {
        for block in put {
            self.storage().delete(self.block_name(*block)).await?;
        }
        Ok(())
    }

    /// Whether ballast is wanting: never put, or given up by a writer that could not put it back.
    pub(super) async fn is_ballast_spent(&self, root: &Root) -> Result<bool> {
        let ballast = self.ballast(root).await?;
        Ok(ballast.len() < self.ballast_count() || !self.missing_ballast(&ballast).await?.is_empty())
    }

    /// Those of these blocks that storage does not have.
    pub(super) async fn missing_ballast(&self, ballast: &BTreeSet<DataBlock>) -> Result<Vec<DataBlock>> {
        let mut missing = Vec::new();
        for block in ballast {
            match self.storage().size(self.block_name(*block)).await {
                Err(error) if error.kind() == ErrorKind::NotFound => missing.push(*block),
                done => drop(done?),
            }
        }
        Ok(missing)
    }

    /// Makes the ballast whole, and puts others for those of these blobs that belong to it, and still are not what was put;
    /// answers for how many. They held nothing, and go when others are there and named: damaged ones, too, give their room for a
    /// deletion. Where storage has no room for others, all stays as it is.
    pub(super) async fn renew_ballast(self: &Arc<Self>, suspects: &BTreeSet<Name>) -> Result<u64> {
        let root = self.root();
        let rows = self.ballast_rows(&root).await?;
        let is_suspect = |block: &DataBlock| suspects.contains(&self.block_name(*block));
        if !rows.keys().any(is_suspect) && !self.is_ballast_spent(&root).await? {
            return Ok(0);
        }
        // Not as for a deletion, which may use ballast up.
        let epoch = match self.hold_epoch_for(false).await {
            Err(error) if is_full(&error) => return Ok(0),
            held => held?,
        };
        let mut leader = self.leader.lock().await;
        self.settle(&mut leader).await?;
        let base = self.root();
        let mut there = self.ballast_rows(&base).await?;
        let mut draft = Draft::default();
        for block in self.missing_ballast(&there.keys().copied().collect()).await? {
            there.remove(&block);
            draft.rows.insert(rows::ballast_key(block), None);
        }
        let damaged = self.damaged_ballast(&there, suspects).await?;
        let wanted = self.ballast_count() + damaged.len();
        let (mut put, mut failed) = self.put_blocks(wanted, there.len(), &mut draft).await;
        if failed.is_some()
            && let Some(last) = put.pop()
        {
            // Its room is for the commit.
            draft.rows.remove(&rows::ballast_key(last));
            self.take_ballast_back(&[last]).await?;
        }
        // As many as there are others for.
        let count = (there.len() + put.len()).saturating_sub(self.ballast_count()).min(damaged.len());
        let given_up = damaged.get(..count).unwrap_or_default();
        for block in given_up {
            draft.rows.insert(rows::ballast_key(*block), None);
        }
        let mut is_published = false;
        if !draft.rows.is_empty() {
            let published = match self.check_epoch(&base, &draft).await {
                Ok(()) => self.publish(&mut leader, base, draft, Extra::default()).await,
                Err(error) => Err(error),
            };
            match published {
                Ok(outcome) => is_published = matches!(outcome, Outcome::Published(_)),
                // What is named by a commit that may be there stays.
                Err(error @ Error::CommitUnknown { .. }) => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        if !is_published {
            self.take_ballast_back(&put).await?;
            return match failed {
                Some(error) if !is_full(&error) => Err(error),
                _ => Ok(0),
            };
        }
        for block in given_up {
            if let Err(error) = self.storage().delete(self.block_name(*block)).await {
                tracing::warn!(%error, "a block of ballast that was given up is left for the next sweep");
                lock(&self.unlisted).insert(epoch);
            }
        }
        Ok(count as u64)
    }

    /// Those of these blobs that are ballast of a state, and not what was put.
    async fn damaged_ballast(
        &self,
        ballast: &BTreeMap<DataBlock, [u8; SALT_BYTES]>,
        suspects: &BTreeSet<Name>,
    ) -> Result<Vec<DataBlock>> {
        let mut damaged = Vec::new();
        for (block, salt) in ballast {
            let name = self.block_name(*block);
            if !suspects.contains(&name) {
                continue;
            }
            match self.blocks.reader.read_whole(name).await {
                Ok(read) if read.salt == *salt => {}
                Err(Error::Missing { .. }) => {}
                Ok(_) | Err(Error::Damaged(_)) => damaged.push(*block),
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    /// Puts what is wanting, and answers what was put and what ended that early.
    async fn put_ballast(&self, root: &Root, draft: &mut Draft) -> Result<(Vec<DataBlock>, Option<Error>)> {
        let wanted = self.ballast_count();
        let mut there = 0;
        for block in self.ballast(root).await? {
            match self.storage().size(self.block_name(block)).await {
                Ok(_) => there += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    draft.rows.insert(rows::ballast_key(block), None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.put_blocks(wanted, there, draft).await)
    }

    /// Puts blocks until so many are there, or one cannot be put; answers what was put and what ended that early.
    async fn put_blocks(&self, wanted: usize, there: usize, draft: &mut Draft) -> (Vec<DataBlock>, Option<Error>) {
        let mut put = Vec::new();
        for _ in there..wanted {
            match self.blocks.writer.put_empty().await {
                Ok((id, salt)) => {
                    self.note_unreferenced(vec![id]);
                    if let BlockId::Data { key_epoch, writer_epoch, counter } = id {
                        let block = DataBlock { key_epoch, writer_epoch, counter };
                        draft.rows.insert(rows::ballast_key(block), Some(Bytes::copy_from_slice(&salt)));
                        put.push(block);
                    }
                }
                Err(error) => {
                    self.note_unlisted(&error);
                    return (put, Some(error));
                }
            }
        }
        (put, None)
    }

    /// What could not be put may be there all the same.
    fn note_unlisted(&self, error: &Error) {
        if matches!(error, Error::Storage(error) if error.effect() == Effect::Unknown)
            && let Some(epoch) = lock(&self.epoch).number
        {
            lock(&self.unlisted).insert(epoch);
        }
    }

    /// Gives one block of ballast up, and answers whether there was any. The rows go with the next commit.
    pub(super) async fn spend_ballast(&self, root: &Root) -> Result<bool> {
        for block in self.ballast(root).await? {
            let name = self.block_name(block);
            let is_there = self.storage().size(name).await.is_ok();
            self.storage().delete(name).await?;
            if is_there {
                self.spent.store(true, Ordering::Release);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Storage is full. First, what aborted transactions left there and what nobody needs any more; then, for those of the
    /// group that free space, the ballast, block by block, and the others are told. `false` where there is nothing left to try.
    pub(super) async fn make_room(
        self: &Arc<Self>,
        leader: &mut Leader,
        error: &Error,
        room: &mut Room,
    ) -> Result<bool> {
        // Each attempt that spills leaves something of it; but that alone is no progress.
        let gave_back = self.give_back_aborted().await?;
        if !std::mem::replace(&mut room.gave_back, true)
            && (self.give_back_condemned().await.unwrap_or(false) || gave_back)
        {
            return Ok(true);
        }
        leader.refuse(error, |work| !work.frees());
        room.spent = true;
        Ok(leader.is_idle() || self.spend_ballast(&self.root()).await?)
    }

    /// Deletes what transactions of ours put that were given up; `true` where that gave anything back.
    pub(super) async fn give_back_aborted(self: &Arc<Self>) -> Result<bool> {
        if self.discard_if_idle()
            && let Some(epoch) = lock(&self.epoch).number
        {
            // Which of the discarded blocks arrived, only storage can tell.
            lock(&self.unlisted).insert(epoch);
        }
        Ok(self.drop_unreferenced(&self.root(), false).await? > 0)
    }
}

impl Work {
    /// Whether it is for giving space back: it puts no payload, and removes something. That an epoch ends is nothing to count:
    /// whoever is about to store does so on the way.
    pub(super) fn frees(&self) -> bool {
        let puts = |op: &Op| matches!(op, Op::NewChunk(_) | Op::Move { .. } | Op::Heal { .. });
        let removes = |(key, op): (&Bytes, &Op)| {
            let removes = matches!(op, Op::Delete | Op::Add(..0) | Op::Free { .. } | Op::FreeNode(_));
            removes && !matches!(key.first(), Some(&rows::EPOCH | &rows::DAMAGED))
        };
        self.urgent || (!self.ops.values().any(puts) && self.ops.iter().any(removes))
    }
}
