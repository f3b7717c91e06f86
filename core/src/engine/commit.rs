//! Committing: one leader at a time takes every waiting transaction, has each judged against what was committed since it
//! began (`admit`), and puts one commit for all that pass.
//!
//! What must stay true: a transaction is answered `Ok` only after its commit is durable and part of the chain; whatever a
//! cancelled or failed leader leaves behind (`Leader::in_flight`, `Leader::group`) is settled by the next one first.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{Either, select};

use super::ballast::Room;
use super::chain::SealedCommit;
use super::checkpoint::Trees;
use super::place::is_open;
use super::recent::Keys;
use super::room::is_full;
use super::root::Root;
use super::shared::{Shared, lock};
use super::transaction::{CommitInfo, Kept, Work};
use crate::format::rows::{self, ChunkRow, DataBlock};
use crate::tree::TreeRoot;
use crate::{Error, Result};

/// A transaction waiting for its commit.
pub(crate) struct Request {
    work: Work,
    answer: oneshot::Sender<Result<CommitInfo>>,
}

/// What the leader keeps between turns.
#[derive(Default)]
pub(crate) struct Leader {
    /// Taken from the queue, not answered yet, and in no commit that was put.
    pub(super) group: Vec<Request>,
    /// Put, and not known to be in the chain or out of it.
    pub(super) in_flight: Option<Prepared>,
}

/// Rows to write, gathered over a group.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) rows: BTreeMap<Bytes, Option<Bytes>>,
    /// Change of live bytes, by block.
    pub(crate) usage: HashMap<DataBlock, i64>,
}

impl Draft {
    /// What a row takes in the body of a commit.
    pub(super) fn row_bytes(key: &Bytes, value: Option<&Bytes>) -> usize {
        2 + 4 + key.len() + value.map_or(0, Bytes::len)
    }

    /// How long the body of a commit is that has all of it.
    pub(super) fn body_bytes(&self) -> usize {
        4 + self.rows.iter().map(|(key, value)| Self::row_bytes(key, value.as_ref())).sum::<usize>()
    }

    /// Whether it says of any chunk that it is damaged, or no longer.
    pub(super) fn notes_damage(&self) -> bool {
        let range = (Bound::Included(&[rows::DAMAGED][..]), Bound::Excluded(&[rows::DAMAGED + 1][..]));
        self.rows.range::<[u8], _>(range).next().is_some()
    }
}

/// What a commit carries beside rows.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) roots: Option<(Option<TreeRoot>, Option<TreeRoot>)>,
    /// How far the floor rises.
    pub(crate) floor: Floor,
    /// Commits below this were deleted.
    pub(crate) oldest: Option<u64>,
    /// Generation and hash of a header that comes into force.
    pub(crate) header: Option<(u64, [u8; 32])>,
    /// Whether this is the commit of the leader's group, so that its fate answers the group.
    pub(crate) answers_group: bool,
}

/// How far a commit raises the floor.
#[derive(Clone, Copy, Default)]
pub(crate) enum Floor {
    /// By the reader grace alone.
    #[default]
    Grace,
    /// To the state that the commit builds on, as far as this process's own readers allow: nobody else is there.
    Alone,
}

/// A sealed commit with the state that it leads to.
pub(super) struct Prepared {
    pub(super) sealed: SealedCommit,
    pub(super) base: Arc<Root>,
    pub(super) next: Arc<Root>,
    pub(super) keys: Keys,
    /// The transactions in it: its fate is theirs, whoever comes to learn it.
    pub(super) requests: Vec<Request>,
    /// What those of them kept that were told that nobody knows.
    pub(super) kept: Vec<Kept>,
    /// Whether it may have reached storage already.
    pub(super) put: bool,
}

impl Request {
    /// What it kept is gone for whoever has the answer.
    fn answer(self, result: Result<CommitInfo>) {
        let Self { work, answer } = self;
        drop(work);
        let _ = answer.send(result);
    }
}

impl Leader {
    /// Writer epoch and counter of the first block that any of the group may have records in.
    pub(super) fn oldest_place(&self) -> Option<(u32, u64)> {
        self.group.iter().filter_map(|request| Some(request.work.appending.as_ref()?.since)).min()
    }

    /// Answers those of the group that a test is true of.
    pub(super) fn refuse(&mut self, error: &Error, test: impl Fn(&Work) -> bool) {
        let (refused, kept) = std::mem::take(&mut self.group).into_iter().partition(|request| test(&request.work));
        self.group = kept;
        let refused: Vec<Request> = refused;
        for request in refused {
            request.answer(Err(error.clone()));
        }
    }

    /// Whether everything in the group is for giving space back.
    fn all_free(&self) -> bool {
        self.group.iter().all(|request| request.work.frees())
    }

    /// Whether no transaction waits for it.
    pub(super) fn is_idle(&self) -> bool {
        self.group.is_empty()
    }

    /// The commit in flight is in the chain.
    pub(super) fn published(&mut self, sequence: u64) {
        for request in self.in_flight.take().into_iter().flat_map(|prepared| prepared.requests) {
            request.answer(Ok(CommitInfo { sequence }));
        }
    }

    /// The commit in flight is out of the chain, and its transactions wait again.
    pub(super) fn lost(&mut self) {
        if let Some(mut prepared) = self.in_flight.take() {
            prepared.requests.append(&mut self.group);
            self.group = prepared.requests;
        }
    }

    /// Nobody can say what becomes of the commit in flight.
    pub(super) fn unknown(&mut self, error: &Error) {
        let Some(prepared) = &mut self.in_flight else { return };
        for mut request in prepared.requests.drain(..) {
            // They are answered, and not settled.
            prepared.kept.append(&mut request.work.kept);
            request.answer(Err(error.clone()));
        }
    }
}

/// What became of a commit.
pub(crate) enum Outcome {
    /// It is durable and in the chain.
    Published(u64),
    /// Somebody else's commit took its place; the state has been brought up to it.
    Lost,
}

impl Shared {
    /// Hands work to whoever leads, leading when nobody does, and waits for the answer.
    pub(crate) async fn submit(self: &Arc<Self>, work: Work) -> Result<CommitInfo> {
        let (answer, mut answered) = oneshot::channel();
        lock(&self.queue).push(Request { work, answer });
        loop {
            let mut leader = match select(&mut answered, Box::pin(self.leader.lock())).await {
                Either::Left((answer, _)) => return answer.unwrap_or(Err(Error::WorkerLost)),
                Either::Right((leader, _)) => leader,
            };
            if let Ok(Some(answer)) = answered.try_recv() {
                return answer;
            }
            self.lead(&mut leader).await;
            drop(leader);
            if let Ok(Some(answer)) = answered.try_recv() {
                return answer;
            }
        }
    }

    async fn lead(self: &Arc<Self>, leader: &mut Leader) {
        if self.answer_waiting(leader).await && self.checkpoint_due() {
            // The group is answered: a checkpoint that fails costs space and time, not data, and the next commit tries again.
            if let Err(error) = self.checkpoint(leader, Trees::Change).await {
                tracing::warn!(%error, "checkpoint failed; it is tried again after the next commit");
            }
        }
    }

    /// One commit for all who wait; whether there was no failure of all of them.
    pub(super) async fn answer_waiting(self: &Arc<Self>, leader: &mut Leader) -> bool {
        let waiting = std::mem::take(&mut *lock(&self.queue));
        leader.group.extend(waiting);
        let result = self.commit_group(leader).await;
        if let Err(error) = &result {
            for request in leader.group.drain(..) {
                request.answer(Err(error.clone()));
            }
        }
        result.is_ok()
    }

    /// Settles what an earlier leader left in the air.
    pub(crate) async fn settle(self: &Arc<Self>, leader: &mut Leader) -> Result<()> {
        if leader.in_flight.is_some() {
            self.finish(leader).await?;
        }
        Ok(())
    }

    async fn commit_group(self: &Arc<Self>, leader: &mut Leader) -> Result<()> {
        self.settle(leader).await?;
        if leader.group.is_empty() {
            return Ok(());
        }
        self.flush_group(leader).await?;
        let mut room = Room::default();
        while !leader.group.is_empty() {
            let base = self.root();
            let sequence = base.sequence;
            match self.try_group(leader, base, self.spent.load(Ordering::Acquire), room.spent).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if is_full(&error) => {
                    if !self.make_room(leader, &error, &mut room).await? {
                        return Err(error);
                    }
                }
                Err(error) => self.move_on(error, sequence).await?,
            }
        }
        Ok(())
    }

    /// One attempt to commit the group on a state; `false` where another commit came first.
    /// With `in_need` storage is full, or was: what the commit condemns is deleted at once, where nobody else is there.
    /// `spends`: ballast was given up for this group, so none is put.
    async fn try_group(
        self: &Arc<Self>,
        leader: &mut Leader,
        base: Arc<Root>,
        in_need: bool,
        spends: bool,
    ) -> Result<bool> {
        let mut draft = Draft::default();
        let mut refused = Vec::new();
        for (position, request) in leader.group.iter().enumerate() {
            match self.admit(&base, &request.work, &mut draft).await {
                Ok(()) => {}
                Err(error @ (Error::Missing { .. } | Error::Expired)) => return Err(error),
                Err(error) => refused.push((position, error)),
            }
        }
        for (position, error) in refused.into_iter().rev() {
            leader.group.remove(position).answer(Err(error));
        }
        if leader.group.is_empty() {
            return Ok(true);
        }
        let restores = in_need && lock(&self.epoch).number.is_some() && !leader.all_free();
        let mut put = Vec::new();
        if restores {
            // Before anything else fills the storage again, what the next deletion needs is put aside.
            self.restore_ballast(&base, &mut draft).await?;
        } else if in_need && !spends && lock(&self.epoch).number.is_some() {
            // What was given back meanwhile is put aside, before somebody else takes it.
            put = self.top_up_ballast(&base, &mut draft).await?;
        } else if in_need {
            // What was given up for this commit is no longer there to be missed.
            for block in self.missing_ballast(&self.ballast(&base).await?).await? {
                draft.rows.insert(rows::ballast_key(block), None);
            }
        }
        let guard = if in_need { self.try_alone().await? } else { None };
        let floor = if guard.is_some() { Floor::Alone } else { Floor::Grace };
        let extra = Extra { answers_group: true, floor, ..Extra::default() };
        let published = self.publish(leader, base, draft, extra).await;
        if !matches!(published, Ok(Outcome::Published(_)) | Err(Error::CommitUnknown { .. })) {
            self.take_ballast_back(&put).await?;
        }
        let published = matches!(published?, Outcome::Published(_));
        if guard.is_some()
            && let Err(error) = self.delete_condemned(&self.root(), true).await
        {
            tracing::warn!(%error, "what was freed could not be deleted yet");
        }
        if published && restores {
            self.spent.store(false, Ordering::Release);
        }
        Ok(published)
    }

    /// Others may have ended our epoch while we slept: what was made under it may be swept, so none of it may be committed.
    pub(super) async fn check_epoch(&self, base: &Root, draft: &Draft) -> Result<()> {
        let Some(epoch) = lock(&self.epoch).number else { return Ok(()) };
        if is_open(self.current(base, draft, &rows::epoch_key(epoch)).await?)? {
            return Ok(());
        }
        let mut state = lock(&self.epoch);
        if state.number == Some(epoch) {
            *state = super::shared::EpochState::default();
        }
        Err(Error::Conflict)
    }

    pub(super) async fn current(&self, base: &Root, draft: &Draft, key: &Bytes) -> Result<Option<Bytes>> {
        match draft.rows.get(key) {
            Some(value) => Ok(value.clone()),
            None => base.get(&self.nodes, key).await,
        }
    }

    pub(super) async fn current_chunk(&self, base: &Root, draft: &Draft, key: &Bytes) -> Result<Option<ChunkRow>> {
        let row = self.current(base, draft, key).await?;
        let decode = |row| ChunkRow::decode(&row).map_err(|error| Error::damaged("chunk", None, error.to_string()));
        row.map(decode).transpose()
    }

    /// The sequence of the newest snapshot that is kept; 0 where there is none. What was born after it is in no snapshot.
    pub(super) async fn newest_snapshot(&self, base: &Root, draft: &Draft) -> Result<u64> {
        match self.current(base, draft, &rows::counter_key(rows::NEWEST_SNAPSHOT)).await? {
            Some(row) => {
                rows::decode_count(&row).map_err(|error| Error::damaged("snapshot counter", None, error.to_string()))
            }
            None => Ok(0),
        }
    }

    /// Turns changes of live bytes into rows; a block that nothing lives in any more is condemned by this commit.
    pub(super) async fn settle_usage(&self, base: &Root, draft: &mut Draft, sequence: u64) -> Result<Vec<DataBlock>> {
        let mut named = Vec::new();
        let mut loosened = 0_u64;
        let usage: BTreeMap<DataBlock, i64> = draft.usage.drain().collect();
        for (block, change) in usage {
            let key = rows::usage_key(block);
            let before = match base.get(&self.nodes, &key).await? {
                Some(row) => {
                    Some(rows::decode_count(&row).map_err(|error| Error::damaged("usage", None, error.to_string()))?)
                }
                None => None,
            };
            if change == 0 && before.is_some() {
                continue;
            }
            let after = before.unwrap_or(0).checked_add_signed(change).ok_or_else(|| {
                Error::damaged("usage", None, format!("block {block:?} would have less than no live bytes"))
            })?;
            match (before, after) {
                (None, 0) => {}
                (Some(_), 0) => {
                    draft.rows.insert(key, None);
                    draft.rows.insert(rows::condemned_key(sequence, block), Some(Bytes::new()));
                }
                (before, after) => {
                    if before.is_none() {
                        named.push(block);
                    }
                    loosened += before.unwrap_or(0).saturating_sub(after);
                    draft.rows.insert(key, Some(Bytes::copy_from_slice(&after.to_le_bytes())));
                }
            }
        }
        self.note_loosened(loosened);
        Ok(named)
    }
}
