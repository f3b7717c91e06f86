//! Writer epochs, and giving space back.
//!
//! A block that no usage row names belongs to an unfinished transaction, or to one that never finished. Which of the two,
//! its writer epoch tells: only after an epoch has ended are its unreferenced blocks swept.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::checkpoint::Trees;
use super::commit::{Draft, Extra, Floor, Leader, Outcome};
use super::place::{self, is_open};
use super::root::Root;
use super::shared::{EpochState, Shared, lock};
use super::sweep::next_epoch;
use super::transaction::{Transaction, Work};
use super::view::{Scan, table_range};
use crate::format::BlockId;
use crate::format::rows::{self, DataBlock, EpochRow, Place};
use crate::storage::{ErrorKind, Reach, StorageExt};
use crate::tree::{Direction, MergedCursor};
use crate::{Error, Result};

/// The rows of a scan of the table of epochs.
pub(super) async fn epoch_rows(mut scan: Scan) -> Result<BTreeMap<u32, EpochRow>> {
    let mut epochs = BTreeMap::new();
    while let Some((key, value)) = scan.next().await? {
        let epoch = <[u8; 4]>::try_from(key.as_ref())
            .map_err(|_| Error::damaged("epoch row", None, "key of another length"))?;
        epochs.insert(u32::from_be_bytes(epoch), place::decode(&value)?);
    }
    Ok(epochs)
}

impl Shared {
    /// A fresh number under our epoch, claiming one first where we hold none.
    pub(crate) async fn fresh_number(self: &Arc<Self>) -> Result<(u32, u64)> {
        loop {
            let epoch = self.hold_epoch().await?;
            let mut state = lock(&self.epoch);
            if state.number != Some(epoch) {
                continue;
            }
            match state.next_number.checked_add(1) {
                Some(next) => {
                    let number = u64::from(epoch) << 32 | u64::from(state.next_number);
                    state.next_number = next;
                    return Ok((epoch, number));
                }
                // Four thousand million numbers: time for another epoch.
                None => *state = EpochState::default(),
            }
        }
    }

    /// Our writer epoch, claimed by a commit of its own where we hold none.
    pub(crate) async fn hold_epoch(self: &Arc<Self>) -> Result<u32> {
        self.check_writable()?;
        if let Some(epoch) = lock(&self.epoch).number {
            return Ok(epoch);
        }
        // Apart, since it is done once: else it is a part of the future of whatever stores anything, and makes that large.
        Box::pin(self.hold_epoch_for(false)).await
    }

    /// `urgent`: to give space back, for which the ballast is there.
    pub(crate) async fn hold_epoch_for(self: &Arc<Self>, urgent: bool) -> Result<u32> {
        self.check_writable()?;
        if let Some(epoch) = lock(&self.epoch).number {
            return Ok(epoch);
        }
        let _claim = self.claim.lock().await;
        if let Some(epoch) = lock(&self.epoch).number {
            return Ok(epoch);
        }
        let mut has_swept = false;
        for _ in 0..self.tuning.attempts_max {
            let guard = self.try_alone().await?;
            let mut claim = Transaction::new(self);
            let counter = rows::counter_key(rows::NEXT_EPOCH);
            let seen = match claim.get_own(&counter).await {
                Err(error) => {
                    self.move_on(error, claim.began_at()).await?;
                    continue;
                }
                seen => seen?,
            };
            let epoch = next_epoch(seen)?;
            let epoch = u32::try_from(epoch).map_err(|_| Error::LimitExceeded {
                what: "writer_epochs",
                value: epoch,
                limit: u64::from(u32::MAX),
            })?;
            let claimant = self.new_claimant()?;
            let mut gone = self.gone_epochs(&claim, guard.is_some()).await?;
            if self.place().is_some() && !gone.over.is_empty() {
                // Before the rows go that say which blocks are meant: a sweep after that would not be made up for if it is cut short.
                gone.stay_unless(self.sweep_settled(&gone.over).await);
            }
            for (epoch, row) in gone.rows() {
                claim.put_own(rows::epoch_key(epoch), row.map(|row| row.encode()));
            }
            claim.put_own(counter, Some(Bytes::copy_from_slice(&(u64::from(epoch) + 1).to_le_bytes())));
            claim.put_own(rows::epoch_key(epoch), Some(claimant.row(self.env().now()).encode()));
            match self.submit(Work { urgent, ..claim.into_work() }).await {
                Ok(_) => {}
                Err(Error::Conflict) => {
                    self.catch_up(true).await?;
                    continue;
                }
                Err(error)
                    if guard.is_some()
                        && error.storage_kind() == Some(ErrorKind::Full)
                        && !std::mem::replace(&mut has_swept, true)
                        && self.sweep_alone().await? > 0 =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            }
            lock(&self.claims).insert(epoch, claimant);
            self.blocks.writer.set_epoch_from(epoch, claimant.first_counter());
            *lock(&self.epoch) = EpochState { number: Some(epoch), ..EpochState::default() };
            if self.is_strange() && gone.is_settled() {
                self.settled().await?;
            }
            // What was put under those that stay open, and is named by nobody, is looked for once more.
            {
                let lasting = lock(&self.lasting).clone();
                let mut abandoned = lock(&self.abandoned);
                lock(&self.unlisted).extend(abandoned.intersection(&lasting));
                abandoned.retain(|epoch| !lasting.contains(epoch));
            }
            lock(&self.abandoned).retain(|epoch| !gone.has(*epoch));
            self.sweep_after_claim(&gone).await?;
            let (root, _pin) = self.pin();
            // A creation that died before its hint left the checkpoint to be searched for by every name.
            self.ensure_hint(&root).await?;
            if self.is_ballast_spent(&root).await? {
                self.spent.store(true, Ordering::Release);
            }
            return Ok(epoch);
        }
        Err(Error::Conflict)
    }

    /// Gives up our epoch: its open transactions are void, and the next claim ends it.
    pub(crate) fn abandon_epoch(&self) {
        let mut state = lock(&self.epoch);
        if let Some(epoch) = state.number {
            lock(&self.abandoned).insert(epoch);
        }
        *state = EpochState::default();
    }

    /// The epochs that have not ended, and what their rows say.
    pub(crate) async fn open_epochs(&self, view: &Transaction) -> Result<BTreeMap<u32, EpochRow>> {
        let mut open = self.epoch_rows(view).await?;
        open.retain(|_, row| !row.has_ended());
        Ok(open)
    }

    /// As [`Shared::open_epochs`], with those that have ended, and are not swept after.
    pub(super) async fn epoch_rows(&self, view: &Transaction) -> Result<BTreeMap<u32, EpochRow>> {
        epoch_rows(view.scan_own(rows::EPOCH)).await
    }

    /// A payload at a place that only this writer knows of, put under its epoch. Where its blocks are missing because others
    /// took the writer for dead, and swept after it, that is a conflict and no damage.
    pub(crate) async fn own_payload(&self, epoch: Option<u32>, place: &Place) -> Result<Bytes> {
        let error = match self.payload_at(place).await {
            Err(error @ Error::Missing { .. }) => error,
            payload => return payload,
        };
        let Some(epoch) = epoch else { return Err(error) };
        let head = self.chain.find_head().await?;
        match is_open(head.get(&self.nodes, &rows::epoch_key(epoch)).await?)? {
            true => Err(error),
            false => Err(Error::Conflict),
        }
    }

    /// For a writer that has just come: ends what dead writers left open and sweeps after them. It is no error where that
    /// has to wait.
    pub(crate) async fn clear_up(self: &Arc<Self>) -> Result<()> {
        let mut attempts_left = self.tuning.attempts_max;
        loop {
            match self.clear_up_at_head().await {
                // Others gave that state up since it was found.
                Err(Error::Expired) if attempts_left > 0 => attempts_left -= 1,
                done => return done,
            }
            self.catch_up(true).await?;
        }
    }

    async fn clear_up_at_head(self: &Arc<Self>) -> Result<()> {
        let view = Transaction::new(self);
        let (mut is_idle, mut is_settled) = (self.epoch_rows(&view).await?.is_empty(), true);
        if !is_idle {
            let alone = self.try_alone().await?.is_some();
            let gone = self.gone_epochs(&view, alone).await?;
            (is_idle, is_settled) = (gone.is_empty(), gone.is_settled());
        }
        if is_idle {
            return if self.is_strange() && is_settled { self.settled().await } else { Ok(()) };
        }
        drop(view);
        // One after the other would use the ballast up, though nothing is gained by it.
        let is_ballast_whole = !self.is_ballast_spent(&self.root()).await?;
        match self.hold_epoch_for(is_ballast_whole).await {
            Err(error) if matches!(error, Error::Conflict) || error.storage_kind() == Some(ErrorKind::Full) => {
                tracing::warn!(%error, "leftovers of a writer that died stay for now");
                Ok(())
            }
            held => held.map(|_| ()),
        }
    }

    /// Blocks that are condemned wait for the floor: readers of older states still need them.
    pub(crate) async fn condemned(&self, root: &Root) -> Result<HashSet<DataBlock>> {
        let range = table_range(rows::CONDEMNED, (Bound::Unbounded, Bound::Unbounded));
        let mut cursor = MergedCursor::new(
            self.nodes.clone(),
            root.space.tree,
            root.space.overlay.clone(),
            range,
            Direction::Ascending,
        );
        let mut blocks = HashSet::new();
        while let Some((key, _)) = cursor.next().await? {
            let (_, block) = rows::decode_condemned_key(&key)
                .map_err(|error| Error::damaged("condemned row", None, error.to_string()))?;
            blocks.insert(block);
        }
        Ok(blocks)
    }

    /// Ends our epoch and gives back what nothing needs any more.
    pub(crate) async fn close(self: &Arc<Self>) -> Result<()> {
        if self.read_only {
            return self.remember().await;
        }
        // Closing again finishes what was cut short.
        self.closed.store(true, Ordering::Release);
        let mut leader = self.leader.lock().await;
        self.settle(&mut leader).await?;
        let held = lock(&self.epoch).number;
        if held.is_none() && self.spent.load(Ordering::Acquire) {
            self.give_back_condemned().await?;
        }
        if let Some(epoch) = held {
            let root = self.root();
            let due = root.sequence - root.base >= self.tuning.close_commits
                || root.tail_bytes >= self.tuning.checkpoint_bytes / 4;
            // On a storage that was full, commits are in the way of what is put next; but where others keep us from deleting
            // anything, a checkpoint would only take what room there is.
            let was_full = self.spent.load(Ordering::Acquire);
            if (due && !was_full) || (was_full && self.try_alone().await?.is_some()) {
                // It can wait; giving back space that an unfinished transaction took cannot.
                if let Err(error) = self.checkpoint(&mut leader, Trees::Change).await {
                    tracing::warn!(%error, "no checkpoint at closing; the next writer makes it");
                }
                // One whose fate is open may be there, and what it names must not be taken for left over.
                self.settle(&mut leader).await?;
            }
            let guard = self.try_alone().await?;
            let mut with_ballast = true;
            for _ in 0..self.tuning.attempts_max {
                let base = self.root();
                let sequence = base.sequence;
                match self.end_epoch(&mut leader, base, epoch, guard.is_some(), with_ballast).await {
                    Ok(true) => break,
                    Ok(false) => {}
                    // The ballast itself may have taken the last room.
                    Err(error) if error.storage_kind() == Some(ErrorKind::Full) && with_ballast => {
                        with_ballast = false;
                    }
                    Err(error) if error.storage_kind() == Some(ErrorKind::Full) => {
                        tracing::warn!(%error, "the writer's epoch stays open; the next writer ends it");
                        break;
                    }
                    Err(error) => self.move_on(error, sequence).await?,
                }
            }
            *lock(&self.epoch) = EpochState::default();
            drop(guard);
            self.give_back_condemned().await?;
        }
        drop(leader);
        self.remember().await
    }

    pub(crate) fn note_unreferenced(&self, put: Vec<BlockId>) {
        lock(&self.unreferenced).extend(put.into_iter().filter_map(|id| match id {
            BlockId::Data { key_epoch, writer_epoch, counter } => Some(DataBlock { key_epoch, writer_epoch, counter }),
            BlockId::Commit { .. } => None,
        }));
    }

    /// One attempt to end our epoch on a state; `false` where another commit came first.
    async fn end_epoch(
        self: &Arc<Self>,
        leader: &mut Leader,
        base: Arc<Root>,
        epoch: u32,
        alone: bool,
        with_ballast: bool,
    ) -> Result<bool> {
        // A transaction may wait for its commit still, and this can fail: it must not be committed after that.
        lock(&self.epoch).is_void = true;
        // Before the epoch ends, so that its end proves that nothing of it is left over.
        self.drop_unreferenced(&base, true).await?;
        let key = rows::epoch_key(epoch);
        if !is_open(base.get(&self.nodes, &key).await?)? {
            return Ok(true);
        }
        let mut draft = Draft::default();
        draft.rows.insert(key, None);
        for lasting in self.lasting_epochs(&base, epoch).await? {
            draft.rows.insert(rows::epoch_key(lasting), None);
        }
        for key in self.delete_condemned(&base, alone).await? {
            draft.rows.insert(key, None);
        }
        let oldest = Some(self.delete_commits(&base, alone).await?);
        let is_put = with_ballast && !self.top_up_ballast(&base, &mut draft).await?.is_empty();
        if !alone && !is_put && self.is_ballast_spent(&base).await? {
            // The commit would give nothing back, and the next deletion needs its block.
            tracing::warn!(
                "storage is full: the writer's epoch stays open, and ends when nothing was heard of it for long"
            );
            return Ok(true);
        }
        let floor = if alone { Floor::Alone } else { Floor::Grace };
        let extra = Extra { floor, oldest, ..Extra::default() };
        Ok(matches!(self.publish(leader, base, draft, extra).await?, Outcome::Published(_)))
    }

    /// Deletes blocks of ours that no commit came to name: of aborted transactions, of lost checkpoints. At the end all of
    /// them; before it, those that no open transaction can name.
    pub(super) async fn drop_unreferenced(&self, root: &Root, at_end: bool) -> Result<u64> {
        let mut unlisted = lock(&self.unlisted).clone();
        unlisted.extend(lock(&self.abandoned).iter());
        if at_end {
            unlisted.extend(lock(&self.lasting).iter());
        }
        unlisted.extend(self.blocks.writer.take_unsure());
        match self.blocks.writer.flush().await {
            Ok(put) => self.note_unreferenced(put),
            // Which blocks arrived before the failure, only storage can tell now. On a full one it is they that fill it.
            Err(_) if at_end => {
                self.blocks.writer.discard();
                // What was under way comes to its end before storage is asked.
                self.note_unreferenced(self.blocks.writer.flush().await.unwrap_or_default());
                unlisted.extend(lock(&self.epoch).number);
            }
            Err(_) => {
                let _ = self.blocks.writer.take_failure();
            }
        }
        if !unlisted.is_empty() {
            self.note_unreferenced(self.blocks_of(&unlisted).await?);
            lock(&self.unlisted).retain(|epoch| !unlisted.contains(epoch));
        }
        let candidates: Vec<DataBlock> = lock(&self.unreferenced).iter().copied().collect();
        let mut dropped = 0;
        if candidates.is_empty() {
            return Ok(dropped);
        }
        let (condemned, ballast) = (self.condemned(root).await?, self.ballast(root).await?);
        for block in candidates {
            if !at_end && !self.is_settled(block) {
                continue;
            }
            let waits = root.spills.contains(&block) || condemned.contains(&block) || ballast.contains(&block);
            if !waits && root.get(&self.nodes, &rows::usage_key(block)).await?.is_none() {
                self.storage().delete(self.block_name(block)).await?;
                dropped += 1;
            }
            lock(&self.unreferenced).remove(&block);
        }
        Ok(dropped)
    }

    /// Every block in storage that was made under these epochs of ours.
    async fn blocks_of(&self, epochs: &BTreeSet<u32>) -> Result<Vec<BlockId>> {
        let names = self.storage().list_all(&[]).await?;
        let is_one_place = self.place().is_none();
        let ids = names.into_iter().filter_map(|name| self.blocks.reader.block_id(name));
        let is_made = |id: &BlockId| match id {
            BlockId::Data { writer_epoch, counter, .. } => {
                epochs.contains(writer_epoch) && (is_one_place || self.own_claimant(*writer_epoch).made(*counter))
            }
            BlockId::Commit { .. } => false,
        };
        Ok(ids.filter(is_made).collect())
    }

    /// Writes down the newest commit that we know to be durable, unless this device has seen a newer one.
    pub(crate) async fn remember(&self) -> Result<()> {
        let Some(trusted) = &self.trusted else { return Ok(()) };
        let Some((sequence, hash)) = self.durable() else { return Ok(()) };
        trusted.advance(self.context.keys.repository(), sequence, hash).await
    }

    /// Writes down where we are, though this device has seen more: its owner has given that up.
    pub(crate) async fn remember_instead(&self) -> Result<()> {
        let Some(trusted) = &self.trusted else { return Ok(()) };
        let root = self.root();
        trusted.store(self.context.keys.repository(), root.sequence, root.hash).await
    }

    /// The newest commit that is known to be durable. A reader makes nothing durable; but the head's writer did that for
    /// what it built on.
    fn durable(&self) -> Option<(u64, [u8; 32])> {
        let root = self.root();
        if !self.read_only || self.storage().capabilities().reach == Reach::Everywhere {
            return Some((root.sequence, root.hash));
        }
        let sequence = root.sequence.checked_sub(1)?;
        let hash = root.space.overlay.get(&rows::history_key(sequence))??;
        Some((sequence, <[u8; 32]>::try_from(hash.as_ref()).ok()?))
    }
}
