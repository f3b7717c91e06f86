//! Committing: one leader at a time takes every waiting transaction, judges each against what was committed since it
//! began, and puts one commit for all that pass.
//!
//! What must stay true: a transaction is answered `Ok` only after its commit is durable and part of the chain; whatever a
//! cancelled or failed leader leaves behind (`Leader::in_flight`, `Leader::group`) is settled by the next one first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{Either, select};

use super::chain::{LoadedCommit, SealedCommit};
use super::root::{Applied, Root};
use super::shared::{Shared, lock};
use super::transaction::{CommitInfo, Op, Work, merge_row};
use crate::format::Pointer;
use crate::format::commit::{CommitHead, Delta, SPILL_DEPTH_MAX, SpilledBody, encode_deltas};
use crate::format::rows::{self, ChunkRow, DataBlock, Place};
use crate::format::{BlockClass, RecordKind};
use crate::storage::{Effect, Put};
use crate::tree::TreeRoot;
use crate::{Error, Result};

/// How often an ambiguous put is tried again before the caller is told.
const PUT_ATTEMPTS: usize = 3;
/// How often the chain is looked at anew while commits vanish under the look.
const CATCH_UP_ATTEMPTS: usize = 16;

/// A transaction waiting for its commit.
pub(crate) struct Request {
    work: Work,
    answer: oneshot::Sender<Result<CommitInfo>>,
}

/// What the leader keeps between turns.
#[derive(Default)]
pub(crate) struct Leader {
    /// Taken from the queue, not answered yet, and in no commit that was put.
    group: Vec<Request>,
    /// Put, and not known to be in the chain or out of it.
    in_flight: Option<Prepared>,
}

/// Rows to write, gathered over a group.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) rows: BTreeMap<Bytes, Option<Bytes>>,
    /// Change of live bytes, by block.
    pub(crate) usage: HashMap<DataBlock, i64>,
}

/// What a commit carries beside rows.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) roots: Option<(Option<TreeRoot>, Option<TreeRoot>)>,
    /// Raise the floor to this sequence, or to the commit itself.
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
    /// To the commit itself, as far as this process's own readers allow: nobody else is there.
    Alone,
}

/// A sealed commit with the state that it leads to.
struct Prepared {
    sealed: SealedCommit,
    base: Arc<Root>,
    next: Arc<Root>,
    keys: Vec<Bytes>,
    /// The transactions in it: its fate is theirs, whoever comes to learn it.
    requests: Vec<Request>,
    /// Whether it may have reached storage already.
    put: bool,
}

impl Leader {
    /// The commit in flight is in the chain.
    fn published(&mut self, sequence: u64) {
        for request in self.in_flight.take().into_iter().flat_map(|prepared| prepared.requests) {
            let _ = request.answer.send(Ok(CommitInfo { sequence }));
        }
    }

    /// The commit in flight is out of the chain, and its transactions wait again.
    fn lost(&mut self) {
        if let Some(mut prepared) = self.in_flight.take() {
            prepared.requests.append(&mut self.group);
            self.group = prepared.requests;
        }
    }

    /// Nobody can say what becomes of the commit in flight.
    fn unknown(&mut self, error: &Error) {
        for request in self.in_flight.iter_mut().flat_map(|prepared| prepared.requests.drain(..)) {
            let _ = request.answer.send(Err(error.clone()));
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
        let waiting = std::mem::take(&mut *lock(&self.queue));
        leader.group.extend(waiting);
        let result = self.commit_group(leader).await;
        if let Err(error) = result {
            for request in leader.group.drain(..) {
                let _ = request.answer.send(Err(error.clone()));
            }
        } else if self.checkpoint_due() {
            // The group is answered: a checkpoint that fails costs space and time, not data, and the next commit tries again.
            if let Err(error) = self.checkpoint(leader).await {
                tracing::warn!(%error, "checkpoint failed; it is tried again after the next commit");
            }
        }
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
        if leader.group.iter().any(|request| request.work.has_blocks) {
            self.flush_blocks().await?;
        }
        loop {
            let base = self.root();
            let sequence = base.sequence;
            match self.try_group(leader, base).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => self.move_on(error, sequence).await?,
            }
        }
    }

    /// One attempt to commit the group on a state; `false` where another commit came first.
    async fn try_group(self: &Arc<Self>, leader: &mut Leader, base: Arc<Root>) -> Result<bool> {
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
            let request = leader.group.remove(position);
            let _ = request.answer.send(Err(error));
        }
        if leader.group.is_empty() {
            return Ok(true);
        }
        let extra = Extra { answers_group: true, ..Extra::default() };
        Ok(matches!(self.publish(leader, base, draft, extra).await?, Outcome::Published(_)))
    }

    /// Something of the state that we build on is missing: others may have given that state up. Then there is a newer one
    /// to build on, and this answers `Ok`; otherwise it is damage.
    pub(crate) async fn move_on(&self, error: Error, sequence: u64) -> Result<()> {
        if !matches!(error, Error::Missing { .. } | Error::Expired) {
            return Err(error);
        }
        self.catch_up(true).await?;
        if self.root().sequence > sequence { Ok(()) } else { Err(self.explain(error, sequence).await) }
    }

    /// Adds a transaction to the draft, or says why it cannot be in it; then the draft is as before.
    pub(crate) async fn admit(&self, base: &Root, work: &Work, draft: &mut Draft) -> Result<()> {
        self.check_epoch(base, draft).await?;
        if work.epoch.is_some_and(|epoch| lock(&self.epoch).number != Some(epoch)) {
            // Drawn under an epoch that others have ended: void.
            return Err(Error::Conflict);
        }
        let since = lock(&self.recent).since(work.base, base.sequence).ok_or(Error::Conflict)?;
        let touches = |key: &Bytes| work.reads.holds(key) || matches!(work.ops.get(key), Some(Op::Put(_) | Op::Delete));
        if since.iter().any(|keys| keys.iter().any(touches)) || draft.rows.keys().any(touches) {
            return Err(Error::Conflict);
        }
        if work.has_blocks && shares_condemned(work, &since) {
            return Err(Error::Conflict);
        }
        let mut rows: Vec<Delta> = Vec::with_capacity(work.ops.len());
        let mut usage: Vec<(DataBlock, i64)> = Vec::new();
        let mut freed: Vec<(Bytes, u64)> = Vec::new();
        for (key, op) in &work.ops {
            match op {
                Op::Put(value) => rows.push((key.clone(), Some(value.clone()))),
                Op::Delete => rows.push((key.clone(), None)),
                Op::NewChunk(row) => {
                    count_place(&row.place, 1, &mut usage);
                    rows.push((key.clone(), Some(Bytes::from(row.encode()))));
                }
                Op::Identity(number) => {
                    if self.current(base, draft, key).await?.is_none() {
                        rows.push((key.clone(), Some(Bytes::copy_from_slice(&number.to_le_bytes()))));
                    }
                }
                Op::Add(0) => {}
                Op::Add(_) if key.first() == Some(&rows::CHUNK) => {
                    // A chunk that is gone was condemned since we looked: it is never revived.
                    let row = self.current(base, draft, key).await?.ok_or(Error::Conflict)?;
                    let merged = merge_row(Some(&row), op)?;
                    let chunk =
                        ChunkRow::decode(&merged).map_err(|error| Error::damaged("chunk", None, error.to_string()))?;
                    if chunk.references > 0 {
                        rows.push((key.clone(), Some(merged)));
                        continue;
                    }
                    count_place(&chunk.place, -1, &mut usage);
                    rows.push((key.clone(), None));
                    if let Some(identity) = chunk.identity {
                        let number = rows::decode_number_key(key).map_err(|error| Error::Invalid(error.to_string()))?;
                        freed.push((rows::identity_key(&identity), number));
                    }
                }
                Op::Add(_) | Op::Max(_) => {
                    let row = self.current(base, draft, key).await?;
                    rows.push((key.clone(), Some(merge_row(row.as_ref(), op)?)));
                }
            }
        }
        for (key, number) in freed {
            let named = self.current(base, draft, &key).await?;
            if named.and_then(|row| rows::decode_count(&row).ok()) == Some(number) {
                rows.push((key, None));
            }
        }
        draft.rows.extend(rows);
        for (block, bytes) in usage {
            *draft.usage.entry(block).or_default() += bytes;
        }
        Ok(())
    }

    /// Others may have ended our epoch while we slept: what was made under it may be swept, so none of it may be committed.
    async fn check_epoch(&self, base: &Root, draft: &Draft) -> Result<()> {
        let Some(epoch) = lock(&self.epoch).number else { return Ok(()) };
        if self.current(base, draft, &rows::epoch_key(epoch)).await?.is_some() {
            return Ok(());
        }
        let mut state = lock(&self.epoch);
        if state.number == Some(epoch) {
            *state = super::shared::EpochState::default();
        }
        Err(Error::Conflict)
    }

    async fn current(&self, base: &Root, draft: &Draft, key: &Bytes) -> Result<Option<Bytes>> {
        match draft.rows.get(key) {
            Some(value) => Ok(value.clone()),
            None => base.get(&self.nodes, key).await,
        }
    }

    /// Turns changes of live bytes into rows; a block that nothing lives in any more is condemned by this commit.
    async fn settle_usage(&self, base: &Root, draft: &mut Draft, sequence: u64) -> Result<Vec<DataBlock>> {
        let mut named = Vec::new();
        let usage: BTreeMap<DataBlock, i64> = draft.usage.drain().collect();
        for (block, change) in usage {
            let key = rows::usage_key(block);
            let before = match base.get(&self.nodes, &key).await? {
                Some(row) => {
                    Some(rows::decode_count(&row).map_err(|error| Error::damaged("usage", None, error.to_string()))?)
                }
                None => None,
            };
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
                    draft.rows.insert(key, Some(Bytes::copy_from_slice(&after.to_le_bytes())));
                }
            }
        }
        Ok(named)
    }

    /// Seals a commit on `base` and brings it into the chain. On [`Outcome::Lost`] the state has moved on and the draft must
    /// be made anew.
    pub(crate) async fn publish(
        self: &Arc<Self>,
        leader: &mut Leader,
        base: Arc<Root>,
        mut draft: Draft,
        extra: Extra,
    ) -> Result<Outcome> {
        let sequence = base.sequence + 1;
        let named = self.settle_usage(&base, &mut draft, sequence).await?;
        let now = self.env().now();
        let floor = self.floor(&base, sequence, now, extra.floor);
        let checkpoint = extra.roots.is_some();
        let (content, space) = extra.roots.unwrap_or_default();
        let pointer = |root: Option<TreeRoot>| root.map(|root| (root.height, root.pointer));
        let mut body =
            if draft.rows.is_empty() { Vec::new() } else { encode_deltas(draft.rows.iter()).map_err(over_limit)? };
        let spilled = body.len() > self.chain.body_bytes_max();
        let mut spills = Vec::new();
        if spilled {
            body = self.spill(body, &mut spills).await?;
        }
        let (header_generation, header_hash) = extra.header.unwrap_or((base.header_generation, base.header_hash));
        let head = CommitHead {
            sequence,
            previous: base.hash,
            checkpoint,
            spilled,
            writer_epoch: lock(&self.epoch).number.unwrap_or(0),
            time: now,
            header_generation,
            header_hash,
            floor,
            oldest: extra.oldest.unwrap_or(base.oldest).min(sequence),
            base: if checkpoint { sequence } else { base.base },
            body_bytes: u32::try_from(body.len()).map_err(|_| Error::Invalid("commit body".into()))?,
            content: pointer(content),
            space: pointer(space),
        };
        let sealed = self.chain.seal(&head, &body)?;
        let deltas: Vec<Delta> = draft.rows.into_iter().collect();
        let next = Arc::new(base.after(Applied {
            head: &head,
            hash: sealed.hash,
            salt: sealed.salt,
            deltas: &deltas,
            spills: &spills,
        })?);
        let keys = deltas.into_iter().map(|(key, _)| key).collect();
        let requests = if extra.answers_group { std::mem::take(&mut leader.group) } else { Vec::new() };
        leader.in_flight = Some(Prepared { sealed, base, next, keys, requests, put: false });
        let outcome = self.finish(leader).await?;
        if matches!(outcome, Outcome::Published(_)) {
            let mut unreferenced = lock(&self.unreferenced);
            for block in named.iter().chain(&spills) {
                unreferenced.remove(block);
            }
        }
        Ok(outcome)
    }

    /// Puts deltas that no commit blob holds into records, durably, and answers the body that points to them.
    async fn spill(&self, mut body: Vec<u8>, spills: &mut Vec<DataBlock>) -> Result<Vec<u8>> {
        let piece_bytes = self.context.geometry.record_capacity().min(256 * 1024);
        for depth in 0..=SPILL_DEPTH_MAX {
            let mut pointers: Vec<Pointer> = Vec::new();
            for piece in body.chunks(piece_bytes) {
                pointers.extend(
                    self.blocks.writer.append(BlockClass::Spill, RecordKind::Spill, u64::from(depth), piece).await?,
                );
            }
            spills.extend(pointers.iter().map(DataBlock::of).collect::<BTreeSet<_>>());
            let total_bytes = u32::try_from(body.len()).map_err(|_| Error::Invalid("deltas over 4 GiB".into()))?;
            body = SpilledBody { depth, total_bytes, pointers }.encode();
            if body.len() <= self.chain.body_bytes_max() {
                self.flush_blocks().await?;
                return Ok(body);
            }
        }
        Err(Error::LimitExceeded {
            what: "commit_bytes",
            value: body.len() as u64,
            limit: self.chain.body_bytes_max() as u64,
        })
    }

    /// Everything appended so far is in storage, durably.
    pub(crate) async fn flush_blocks(&self) -> Result<()> {
        let put = self.blocks.writer.flush().await;
        let put = match put {
            Ok(put) => put,
            Err(error) => {
                // The transactions that needed those blocks fail with this error; later ones start afresh.
                let _ = self.blocks.writer.take_failure();
                return Err(error);
            }
        };
        self.note_unreferenced(put);
        if let Err(error) = self.storage().sync().await {
            // Nothing is promised any more about what was put under this epoch, by a later sync either: whoever has
            // records in those blocks must not be committed.
            self.abandon_epoch();
            return Err(error.into());
        }
        Ok(())
    }

    /// Brings the commit in flight into the chain, or finds that it is out of it. On an error that leaves its fate open it
    /// stays in flight, and the same bytes are put again next time.
    async fn finish(self: &Arc<Self>, leader: &mut Leader) -> Result<Outcome> {
        let outcome = self.bring_in(leader).await;
        if let Err(error) = &outcome {
            leader.unknown(error);
        }
        outcome
    }

    async fn bring_in(self: &Arc<Self>, leader: &mut Leader) -> Result<Outcome> {
        let Some(prepared) = &mut leader.in_flight else { return Ok(Outcome::Lost) };
        // Before the first await: whoever finds it in flight must not take it for one that never left.
        let mut put_before = std::mem::replace(&mut prepared.put, true);
        let (base, sequence) = (prepared.base.clone(), prepared.next.sequence);
        let (name, salt, blob) = (prepared.sealed.name, prepared.sealed.salt, prepared.sealed.blob.clone());
        let unknown = |error: Error| Error::CommitUnknown { sequence, detail: error.to_string() };
        let is_anchored = async || self.chain.predecessor_is_there(base.sequence, &base.salt).await.map_err(unknown);
        let mut attempt = 0;
        let (ours, durable) = loop {
            // It may have been counted and deleted since: put anew, it would pass for one that others may follow.
            if put_before && !is_anchored().await? {
                break (self.chain.salt_of(name).await.map_err(unknown)? == Some(salt), false);
            }
            attempt += 1;
            match self.storage().put_durable(name, blob.clone()).await {
                Ok(Put::Created) => break (true, true),
                Ok(Put::Exists) => break (self.chain.salt_of(name).await.map_err(unknown)? == Some(salt), false),
                Err(error) if error.effect() == Effect::None && !put_before => {
                    leader.lost();
                    return Err(error.into());
                }
                Err(error) => match self.chain.salt_of(name).await {
                    Ok(Some(found)) => break (found == salt, false),
                    _ if attempt < PUT_ATTEMPTS => put_before = true,
                    _ => return Err(unknown(error.into())),
                },
            }
        };
        if ours && !durable {
            self.persist_commit(sequence).await.map_err(unknown)?;
        }
        if !is_anchored().await? {
            return self.resolve(leader, ours).await.map_err(|error| match error {
                Error::CommitUnknown { .. } | Error::Damaged(_) | Error::RolledBack { .. } => error,
                error => unknown(error),
            });
        }
        if ours {
            // First visible, then answered: who has the answer sees the commit.
            if let Some(prepared) = &mut leader.in_flight {
                self.adopt(prepared.next.clone(), std::mem::take(&mut prepared.keys));
            }
            leader.published(sequence);
            return Ok(Outcome::Published(sequence));
        }
        // Nothing was deleted here yet, so what is there was there first.
        leader.lost();
        self.catch_up(true).await?;
        Ok(Outcome::Lost)
    }

    /// The predecessor of the commit in flight is gone: the chain went past it, with it or without. `ours` says whether the
    /// commit is in storage now.
    async fn resolve(self: &Arc<Self>, leader: &mut Leader, ours: bool) -> Result<Outcome> {
        let Some(prepared) = &leader.in_flight else { return Ok(Outcome::Lost) };
        let (sequence, hash, name) = (prepared.next.sequence, prepared.sealed.hash, prepared.sealed.name);
        let base = prepared.base.clone();
        let head = self.chain.find_head().await?;
        if let Some(detail) = self.contradiction(&head, base.sequence, &base.hash).await? {
            if ours && head.sequence > sequence {
                self.storage().delete(name).await?;
            }
            return Err(Error::RolledBack { detail });
        }
        let in_chain = if head.sequence == sequence {
            head.hash == hash
        } else if head.sequence > sequence {
            let row = head.get(&self.nodes, &rows::history_key(sequence)).await?;
            match row {
                Some(row) => row.as_ref() == hash.as_slice(),
                None => {
                    // Nobody will ever know; what comes after it must not wait for that.
                    let error = Error::CommitUnknown { sequence, detail: "the history no longer remembers it".into() };
                    self.persist_commit(head.sequence).await?;
                    leader.unknown(&error);
                    leader.lost();
                    self.replace_root(head);
                    return Err(error);
                }
            }
        } else {
            return Err(Error::damaged(
                "commit chain",
                Some(name),
                format!("the head went back from {sequence} to {}", head.sequence),
            ));
        };
        // Others may have put the head: what we build on must be durable.
        self.persist_commit(head.sequence).await?;
        if ours && (!in_chain || sequence < head.oldest) {
            // A stray, or put anew after its deletion: it must not be in the way of anybody.
            self.storage().delete(name).await?;
        }
        self.replace_root(head);
        if in_chain {
            leader.published(sequence);
            return Ok(Outcome::Published(sequence));
        }
        leader.lost();
        Ok(Outcome::Lost)
    }

    /// Makes a state the newest, unless somebody has seen to that: the leader and one who learns may meet.
    fn adopt(&self, next: Arc<Root>, keys: Vec<Bytes>) {
        let mut root = lock(&self.root);
        if root.sequence + 1 == next.sequence {
            lock(&self.recent).push(next.sequence, next.time, keys);
            *root = next;
        }
    }

    /// Jumps to a state; what was written between is not known, so nothing that began before can be validated.
    fn replace_root(&self, head: Root) {
        let mut root = lock(&self.root);
        if head.sequence > root.sequence {
            lock(&self.recent).clear();
            *root = Arc::new(head);
        }
    }

    /// Learns what others committed. A writer makes it durable before it builds on it.
    pub(crate) async fn catch_up(&self, persist: bool) -> Result<()> {
        for _ in 0..CATCH_UP_ATTEMPTS {
            let base = self.root();
            let found = self.chain.successors(base.sequence, 1).await;
            let linked = found.and_then(|found| Ok((link(&base, &found)?, found)));
            let anchor = match &linked {
                Ok((states, _)) => states.iter().rev().nth(1).unwrap_or(&base),
                Err(_) => &base,
            };
            if !self.chain.predecessor_is_there(anchor.sequence, &anchor.salt).await? {
                // Deletion has passed us, and what we saw may be strays: find the head anew.
                return self.jump(&base, persist).await;
            }
            let (states, found) = linked?;
            if persist && !found.is_empty() {
                let names: Vec<_> = found.iter().map(|commit| self.chain.name(commit.head.sequence)).collect();
                match self.storage().persist(&names).await {
                    Err(error) if error.kind() == crate::storage::ErrorKind::NotFound => continue,
                    done => done?,
                }
            }
            for (state, commit) in states.into_iter().zip(found) {
                self.adopt(state, commit.deltas.into_iter().map(|(key, _)| key).collect());
            }
            return Ok(());
        }
        Err(Error::damaged("commit chain", None, "its commits come and go"))
    }

    /// Goes on to the head, however far it is; it must continue what we know.
    async fn jump(&self, base: &Root, persist: bool) -> Result<()> {
        let head = self.chain.find_head().await?;
        if let Some(detail) = self.contradiction(&head, base.sequence, &base.hash).await? {
            return Err(Error::RolledBack { detail });
        }
        if persist {
            self.persist_commit(head.sequence).await?;
        }
        self.replace_root(head);
        Ok(())
    }

    /// What in a state contradicts a commit that is known to have been. History too old to compare is no contradiction.
    pub(crate) async fn contradiction(&self, head: &Root, sequence: u64, hash: &[u8; 32]) -> Result<Option<String>> {
        if head.sequence < sequence {
            return Ok(Some(format!("commit {sequence} was seen here, and the newest one now is {}", head.sequence)));
        }
        let known = if head.sequence == sequence {
            Some(Bytes::copy_from_slice(&head.hash))
        } else {
            head.get(&self.nodes, &rows::history_key(sequence)).await?
        };
        let differs = sequence > 0 && known.is_some_and(|known| known.as_ref() != hash.as_slice());
        Ok(differs.then(|| format!("commit {sequence} is another one than was seen here")))
    }

    pub(crate) async fn persist_commit(&self, sequence: u64) -> Result<()> {
        if sequence == 0 {
            return Ok(());
        }
        match self.storage().persist(&[self.chain.name(sequence)]).await {
            Err(error) if error.kind() == crate::storage::ErrorKind::NotFound => Ok(()),
            done => Ok(done?),
        }
    }

    /// The floor that a commit at `sequence` may state.
    fn floor(&self, base: &Root, sequence: u64, now: u64, floor: Floor) -> u64 {
        let allowed = match floor {
            Floor::Alone => sequence,
            Floor::Grace => now
                .checked_sub(self.tuning.reader_grace_millis)
                .and_then(|time| lock(&self.recent).newest_at(time))
                .unwrap_or(0),
        };
        // The base counts as looked at: we build on it.
        let pinned = self.oldest_pin().unwrap_or(sequence);
        base.floor.max(allowed.min(pinned).min(sequence))
    }
}

/// Whether a block that the work names was condemned after the work began. Open transactions share blocks, so one that is
/// empty for the accounts may hold what this one put; it is not revived.
fn shares_condemned(work: &Work, since: &[Arc<Vec<Bytes>>]) -> bool {
    let mut condemned = since
        .iter()
        .flat_map(|keys| keys.iter())
        .filter(|key| key.first() == Some(&rows::CONDEMNED))
        .filter_map(|key| rows::decode_condemned_key(key).ok())
        .map(|(_, block)| block)
        .peekable();
    if condemned.peek().is_none() {
        return false;
    }
    let named: HashSet<DataBlock> = (work.ops.values())
        .filter_map(|op| match op {
            Op::NewChunk(ChunkRow { place: Place::Records(pointers), .. }) => Some(pointers),
            _ => None,
        })
        .flat_map(|pointers| pointers.iter().map(DataBlock::of))
        .collect();
    condemned.any(|block| named.contains(&block))
}

/// The states after each of the commits.
fn link(base: &Root, commits: &[LoadedCommit]) -> Result<Vec<Arc<Root>>> {
    let mut states: Vec<Arc<Root>> = Vec::with_capacity(commits.len());
    for commit in commits {
        let next = states.last().map_or(base, Arc::as_ref).after(commit.as_applied())?;
        states.push(Arc::new(next));
    }
    Ok(states)
}

fn count_place(place: &Place, sign: i64, usage: &mut Vec<(DataBlock, i64)>) {
    if let Place::Records(pointers) = place {
        usage.extend(pointers.iter().map(|pointer| (DataBlock::of(pointer), sign * i64::from(pointer.length))));
    }
}

fn over_limit(_: crate::format::FormatError) -> Error {
    Error::LimitExceeded {
        what: "commit_bytes",
        value: u64::MAX,
        limit: u64::from(crate::format::commit::DELTA_BYTES_MAX),
    }
}
