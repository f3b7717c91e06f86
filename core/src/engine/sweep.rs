//! Sweeping: what writers have put that nothing names, and nothing can come to name.
//!
//! Where there is one place, those are the blocks of every epoch that has ended. Where there are several, another writer may have
//! claimed an epoch of the same number, and its commits may be on their way: there are swept only blocks of claims that are
//! known to have ended. So the row of an epoch keeps its claim, marked as ended, until all is swept. It goes before a sweep can
//! be missed: of a writer at the own place only once a lock proves that this one puts nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::place::Claimant;
use super::root::Root;
use super::settled::{NOWHERE, disowned};
use super::shared::{Shared, lock};
use super::transaction::Transaction;
use crate::format::rows::{self, DataBlock, EpochRow};
use crate::format::{BlockId, FormatError};
use crate::storage::StorageExt;
use crate::{Error, Result};

/// How many epochs of writers that are gone one claim takes, at most: as many rows as the smallest commit has room for. Without an
/// epoch nothing can spill.
const GONE_EPOCHS_MAX: usize = 60;

/// What is to become of the epochs of writers that are gone.
#[derive(Default)]
pub(super) struct Gone {
    /// Their rows go: nothing is put under them any more.
    pub(super) over: BTreeMap<u32, EpochRow>,
    /// Their rows say from then on that they have ended.
    ended: BTreeMap<u32, EpochRow>,
    /// Of those that we have given up, the ones that others have ended.
    past: BTreeSet<u32>,
    /// Those of this place that a lock proves nothing of from then on: see [`super::settled`].
    disowned: BTreeMap<u32, EpochRow>,
    /// Whether there are no more of those of this place.
    is_settled: bool,
}

impl Gone {
    pub(super) fn is_empty(&self) -> bool {
        self.over.is_empty() && self.ended.is_empty() && self.past.is_empty() && self.disowned.is_empty()
    }

    /// Whether nothing is left, once this is committed, of what another history may have claimed from this place.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    pub(super) fn has(&self, epoch: u32) -> bool {
        self.over.contains_key(&epoch) || self.ended.contains_key(&epoch) || self.past.contains(&epoch)
    }

    /// The rows, as they are to be.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u32, Option<EpochRow>)> {
        let ended = self.ended.iter().map(|(epoch, row)| (*epoch, row.ended()));
        let disowned = self.disowned.iter().map(|(epoch, row)| (*epoch, Some(disowned(row, row.time))));
        self.over.keys().map(|epoch| (*epoch, None)).chain(ended).chain(disowned)
    }

    /// Those that were to go stay as ended ones, unless all that they have left was swept.
    pub(super) fn stay_unless(&mut self, is_swept: bool) {
        if !is_swept {
            self.ended.append(&mut self.over);
        }
    }

    /// Takes no more than a commit has room for.
    fn bounded(mut self) -> Self {
        let count = self.ended.len() + self.over.len() + self.disowned.len();
        for _ in GONE_EPOCHS_MAX..count {
            if self.ended.pop_last().or_else(|| self.over.pop_last()).is_none() {
                self.disowned.pop_last();
                self.is_settled = false;
            }
        }
        self
    }
}

/// Under what claim a block was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// Of an epoch that is open: it may be at work.
    Open,
    /// Of one whose row says that it has ended.
    Ended,
    /// Of none that there is a row of: it is left over, or has come before the commits that name it.
    Unclaimed,
    /// Of a number that was not claimed yet: one that is claimed meanwhile, or the claim is on its way.
    NotKnownYet,
}

/// The claims of epochs that there are in a state.
pub(super) struct Claims {
    pub(super) rows: BTreeMap<u32, EpochRow>,
    /// The first epoch that was not claimed.
    pub(super) next: u64,
    pub(super) is_one_place: bool,
}

impl Claims {
    /// Under which of them a block of this number was made.
    pub(super) fn made(&self, epoch: u32, counter: u64) -> Made {
        let row = self.rows.get(&epoch).filter(|row| self.is_one_place || Claimant::of(row).made(counter));
        match row {
            _ if u64::from(epoch) >= self.next => Made::NotKnownYet,
            Some(row) if row.has_ended() => Made::Ended,
            Some(_) => Made::Open,
            None => Made::Unclaimed,
        }
    }
}

/// What the counter of epochs says, which is not there before the first is claimed.
pub(super) fn next_epoch(row: Option<Bytes>) -> Result<u64> {
    let damaged = |error: FormatError| Error::damaged("epoch counter", None, error.to_string());
    row.map_or(Ok(1), |row| rows::decode_count(&row).map_err(damaged))
}

impl Shared {
    /// Epochs whose writer is gone: all of this place that are open where nobody else is there, and those of which nothing was
    /// heard for long. A writer that sleeps so long loses what it had not committed, and nothing else. And those that have ended,
    /// where the rest can be done now.
    pub(super) async fn gone_epochs(&self, view: &Transaction, alone: bool) -> Result<Gone> {
        let (now, here) = (self.env().now(), self.place());
        let (abandoned, lasting) = (lock(&self.abandoned).clone(), lock(&self.lasting).clone());
        let rows = self.epoch_rows(view).await?;
        let is_past = |epoch: &u32| rows.get(epoch).is_none_or(EpochRow::has_ended) && !lasting.contains(epoch);
        let past = abandoned.iter().copied().filter(is_past).collect();
        let mut gone = Gone { past, is_settled: true, ..Gone::default() };
        let (is_strange, own) = (self.is_strange(), self.own_epochs());
        let mut too_many =
            if alone && is_strange { self.too_many_disowned(view, &rows).await? } else { BTreeSet::new() };
        for (epoch, row) in rows {
            if lasting.contains(&epoch) {
                continue;
            }
            if too_many.remove(&epoch) {
                gone.over.insert(epoch, row);
                continue;
            }
            // Where there is one place all are of it, whatever their rows say: a clone has those of its source.
            let is_here = here.is_none() || Claimant::of(&row).place() == here;
            if is_here && is_strange && here.is_some() && !own.contains(&epoch) {
                // One that has ended is open again only where none of its writer's can be there, to commit under it.
                if alone || !row.has_ended() {
                    gone.disowned.insert(epoch, row);
                } else {
                    gone.is_settled = false;
                }
                continue;
            }
            // Of a writer elsewhere no lock tells, and what it committed may be on its way.
            let silence = if is_here { self.tuning.epoch_silence_millis } else { self.tuning.elsewhere_silence_millis };
            // Whose clock is wrong, of two places, nobody knows: what was committed since it was last heard of has to be as late.
            let is_elsewhere = Claimant::of(&row).place().is_some_and(|place| Some(place) != here && place != NOWHERE);
            let now = if is_elsewhere && here.is_some() { now.min(view.began_on().time) } else { now };
            // What we have given up may still be under way to storage.
            let (is_given_up, is_alone) = (abandoned.contains(&epoch), is_here && alone);
            let is_over = match row.has_ended() {
                true if is_here && !alone => continue,
                true => true,
                false if !is_given_up && !is_alone && row.time >= now.saturating_sub(silence) => continue,
                false => is_alone && !is_given_up,
            };
            // Where there is one place a number is enough to sweep by, and where there is no claim there is nothing to keep.
            let goes = is_over || here.is_none() || row.claim.is_none();
            if goes {
                gone.over.insert(epoch, row)
            } else {
                gone.ended.insert(epoch, row)
            };
        }
        let mut gone = gone.bounded();
        // What is disowned together is of one time, whatever its clocks said.
        let heard = gone.disowned.values().map(|row| row.time).fold(now, u64::max);
        gone.disowned.values_mut().for_each(|row| row.time = heard);
        Ok(gone)
    }

    /// Epochs of this place that were disowned, and wait no longer: some that were later do, of a history that nobody else has written
    /// to. To be asked by who is alone here, and does not remember it: each time, it may be, and crashes each time.
    async fn too_many_disowned(&self, view: &Transaction, rows: &BTreeMap<u32, EpochRow>) -> Result<BTreeSet<u32>> {
        if self.place().is_none() || !self.is_written_here_alone(view).await? {
            return Ok(BTreeSet::new());
        }
        let own = self.own_epochs();
        let is_disowned = |(epoch, row): &(&u32, &EpochRow)| {
            !row.has_ended() && Claimant::of(row).place() == Some(NOWHERE) && !own.contains(epoch)
        };
        // What was disowned together waits together; a clock that was ahead once is no reason to give up what came after it.
        let (mut last, mut before) = (0, BTreeSet::new());
        for (epoch, row) in rows.iter().rev().filter(is_disowned) {
            if row.time < last {
                before.insert(*epoch);
            }
            last = last.max(row.time);
        }
        Ok(before)
    }

    /// Sweeps after the writers of these epochs; whether all is gone that they left. It is no error where that has to wait.
    pub(super) async fn sweep_settled(self: &Arc<Self>, over: &BTreeMap<u32, EpochRow>) -> bool {
        let settled = {
            let mut leader = self.leader.lock().await;
            self.settle(&mut leader).await
        };
        // Else one of ours may still be put that names some of them.
        let swept = match settled {
            Ok(()) => self.sweep_claims(over).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &swept {
            tracing::warn!(%error, "leftovers of a writer that died stay for now");
        }
        swept.is_ok()
    }

    async fn sweep_claims(self: &Arc<Self>, over: &BTreeMap<u32, EpochRow>) -> Result<u64> {
        self.catch_up_as_writer().await?;
        let (root, _pin) = self.pin();
        let held = lock(&self.epoch).number;
        // What has come meanwhile may have disowned some: that stands.
        let now = self.epoch_rows(&Transaction::new(self)).await?;
        let is_over = |epoch: u32, counter: u64| {
            let row = over.get(&epoch).filter(|row| now.get(&epoch) == Some(row));
            Some(epoch) != held && row.is_some_and(|row| Claimant::of(row).made(counter))
        };
        self.sweep_after(&root, is_over, false).await
    }

    /// What a claim has ended is swept after it.
    pub(super) async fn sweep_after_claim(self: &Arc<Self>, gone: &Gone) -> Result<()> {
        match self.place() {
            None if !gone.is_empty() => self.sweep(false).await.map(drop),
            // The rows stay, and with them what is to be done.
            Some(_) if !gone.ended.is_empty() => {
                if let Err(error) = self.sweep(false).await {
                    tracing::warn!(%error, "leftovers of a writer that died stay for now");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Deletes the blocks that nothing names of ended epochs: of all, because an earlier sweep may have been cut short; where there
    /// are several places, of those whose rows say so. What is not understood is kept.
    ///
    /// `everything`: of all that are not open, there too, and what is left of commits before the oldest, whosever they are: for one
    /// who says that nothing is on its way.
    pub(crate) async fn sweep(self: &Arc<Self>, everything: bool) -> Result<u64> {
        let view = Transaction::new(self);
        let next = view.get_own(&rows::counter_key(rows::NEXT_EPOCH)).await?;
        let is_one_place = self.place().is_none();
        let mut claims = Claims { rows: self.epoch_rows(&view).await?, next: next_epoch(next)?, is_one_place };
        if !everything && !is_one_place && self.is_strange() {
            // Those of here that have ended are to be disowned, as soon as that can be done.
            claims.rows.retain(|_, row| Claimant::of(row).place() != self.place());
        }
        // Ours is to be told from what is left over by nothing but what names it: that is done elsewhere.
        let own = self.own_epochs();
        let is_over = |epoch: u32, counter: u64| match claims.made(epoch, counter) {
            Made::Open | Made::NotKnownYet => false,
            Made::Ended => !own.contains(&epoch),
            Made::Unclaimed => (everything || is_one_place) && !own.contains(&epoch),
        };
        self.sweep_after(&self.root(), is_over, everything).await
    }

    /// Storage is full, and even ending the epochs of the dead takes a commit. To be called while nobody else can be there:
    /// then no epoch is alive but ours, and what nothing names of the others can be deleted before they end.
    pub(super) async fn sweep_alone(self: &Arc<Self>) -> Result<u64> {
        self.catch_up_as_writer().await?;
        let (root, _pin) = self.pin();
        let (held, here, is_strange) = (lock(&self.epoch).number, self.place(), self.is_strange());
        let rows = if here.is_some() { self.epoch_rows(&Transaction::new(self)).await? } else { BTreeMap::new() };
        let is_left = |row: &EpochRow, counter: u64| {
            let was = Claimant::of(row);
            // Of what is disowned with the next claim no lock tells.
            let is_here = was.place() == here;
            if is_here { !is_strange && was.made(counter) } else { row.has_ended() && was.made(counter) }
        };
        let is_over = |epoch: u32, counter: u64| {
            Some(epoch) != held && (here.is_none() || rows.get(&epoch).is_some_and(|row| is_left(row, counter)))
        };
        self.sweep_after(&root, is_over, false).await
    }

    /// `is_over`: whether nobody can come to name a block, by epoch and counter, that `root` does not name. The root must be pinned.
    async fn sweep_after(&self, root: &Root, is_over: impl Fn(u32, u64) -> bool, everything: bool) -> Result<u64> {
        let (condemned, ballast) = (self.condemned(root).await?, self.ballast(root).await?);
        let mut swept = 0;
        for name in self.storage().list_all(&[]).await? {
            match self.blocks.reader.block_id(name) {
                Some(BlockId::Data { key_epoch, writer_epoch, counter }) if is_over(writer_epoch, counter) => {
                    let block = DataBlock { key_epoch, writer_epoch, counter };
                    let waits = root.spills.contains(&block) || condemned.contains(&block) || ballast.contains(&block);
                    if !waits && root.get(&self.nodes, &rows::usage_key(block)).await?.is_none() {
                        self.storage().delete(name).await?;
                        swept += 1;
                    }
                }
                // Strays of writers that died before they could take them back; or commits of another line that come late.
                Some(BlockId::Commit { sequence, .. })
                    if sequence < root.oldest && (everything || self.is_ours(root, sequence).await) =>
                {
                    self.storage().delete(name).await?;
                    swept += 1;
                }
                _ => {}
            }
        }
        Ok(swept)
    }
}
