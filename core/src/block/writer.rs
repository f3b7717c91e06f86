use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::sealing::impossible;
use super::slot::Slot;
use super::upload::{is_there, taken, upload};
use super::{BlockBuilder, BlockContext, lock};
use crate::env::TaskHandle;
use crate::format::{BlockClass, BlockId, COUNTER_MAX, Pointer, RecordKind, SALT_BYTES};
use crate::layer::put_own_durable;
use crate::storage::Put;
use crate::{Error, Result};

/// How many numbers are tried for a block that holds nothing.
const EMPTY_ATTEMPTS_COUNT: u32 = 8;

/// Payloads from this length on need not be copied on their way into a block: see [`BlockWriter::append_since`]. Smaller
/// ones could hold on to much more than themselves.
pub const SHARED_BYTES_MIN: usize = 16 << 10;

/// How a writer behaves.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// How many bytes of full blocks may be on their way into storage; more, and appending waits. At least one block is
    /// always allowed.
    pub in_flight_bytes_max: usize,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { in_flight_bytes_max: 16 << 20 }
    }
}

/// The way into storage: records go into open blocks, one for each class; full blocks are sealed and put by the workers,
/// many at once, bounded.
///
/// Dropping any future of it in the middle loses nothing that was appended: what runs belongs to the writer, not to who
/// waits for it.
pub struct BlockWriter {
    context: Arc<BlockContext>,
    in_flight_max: usize,
    polled_max: usize,
    state: Mutex<State>,
    // Finds a block by writer epoch and counter as long as storage may not have it. Apart from the state, so that reading
    // does not wait for appending.
    pending: RwLock<HashMap<(u32, u64), Arc<Slot>>>,
    // Shared with the running uploads, which report here before anyone waits for them.
    failures: Arc<Mutex<Failures>>,
    // Held across awaits by whoever drives the uploads. An upload leaves it only when it has ended.
    running: async_lock::Mutex<FuturesUnordered<Upload>>,
}

#[derive(Default)]
struct State {
    writer_epoch: Option<u32>,
    next_counter: u64,
    open_data: Option<Arc<Slot>>,
    open_metadata: Option<Arc<Slot>>,
    open_spill: Option<Arc<Slot>>,
    // By ticket; tickets ascend in the order in which uploads were started.
    in_flight: BTreeMap<u64, InFlight>,
    next_ticket: u64,
    // Started, and not yet taken over by whoever drives.
    started: VecDeque<Upload>,
    // With their tickets, which they keep: a flush that waits for one goes on waiting when it is tried again.
    failed: Vec<(u64, Arc<Slot>)>,
    put: Vec<BlockId>,
    // Epochs of blocks that failed and were given up: they may have arrived all the same.
    unsure: BTreeSet<u32>,
    // Uploads of an older generation were given up.
    generation: u64,
}

struct InFlight {
    slot: Arc<Slot>,
    generation: u64,
}

/// The blocks that failed, by writer epoch and counter.
#[derive(Default)]
struct Failures {
    generation: u64,
    errors: BTreeMap<(u32, u64), Error>,
}

impl Failures {
    fn record(&mut self, generation: u64, slot: &Slot, error: &Error) {
        if self.generation == generation && !slot.is_given_up() {
            self.errors.insert(slot.place(), error.clone());
        }
    }
}

/// Every block.
const ANY: (u32, u64) = (0, 0);

/// A running upload and its ticket.
struct Upload {
    ticket: u64,
    handle: TaskHandle<Result<()>>,
}

impl Future for Upload {
    type Output = (u64, Option<Result<()>>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.handle).poll(context).map(|outcome| (self.ticket, outcome))
    }
}

/// What one step of appending did.
pub(super) enum Step {
    NoRoom,
    Placed(Pointer, usize),
}

impl BlockWriter {
    /// A writer; it needs [`BlockWriter::set_epoch`] before the first record.
    #[must_use]
    pub fn new(context: Arc<BlockContext>, options: WriterOptions) -> Self {
        let in_flight_max = (options.in_flight_bytes_max / context.geometry.block_bytes() as usize).max(1);
        // Without workers an upload runs only while it is polled. One at a time then: a second one, polled once and left
        // alone, could sit on something that the next read needs.
        let polled_max = if context.env.parallelism() > 1 { usize::MAX } else { 1 };
        Self {
            context,
            in_flight_max,
            polled_max,
            state: Mutex::default(),
            pending: RwLock::default(),
            failures: Arc::default(),
            running: async_lock::Mutex::default(),
        }
    }

    /// Numbers the blocks from now on under a writer epoch that this process has claimed and never used, from 0. Blocks
    /// that are open stay under the epoch before.
    pub fn set_epoch(&self, writer_epoch: u32) {
        self.set_epoch_from(writer_epoch, 0);
    }

    /// As [`BlockWriter::set_epoch`], from this number.
    pub fn set_epoch_from(&self, writer_epoch: u32, first_counter: u64) {
        let mut state = lock(&self.state);
        if state.writer_epoch == Some(writer_epoch) {
            return; // Starting again would give the same names to other blocks.
        }
        self.close_all(&mut state);
        state.writer_epoch = Some(writer_epoch);
        state.next_counter = first_counter;
    }

    /// Appends a record to the open block of its class, and says where it will be. A chunk is cut where it fills a block;
    /// other kinds never are. Waits while too much is on its way.
    ///
    /// # Errors
    /// The failure of an earlier block, until [`BlockWriter::take_failure`]; [`Error::LimitExceeded`] for what is not cut
    /// and fits no block; [`Error::Invalid`] for a class or kind that has other ways into storage, and without an epoch.
    pub async fn append(&self, class: BlockClass, kind: RecordKind, id: u64, payload: &[u8]) -> Result<Vec<Pointer>> {
        self.check_record(kind, payload.len())?;
        self.append_checked(ANY, class, kind, id, Bytes::copy_from_slice(payload)).await
    }

    /// As [`BlockWriter::append`] for one who began to write at `since` ([`BlockWriter::place`]): the failure of a block before
    /// that is somebody else's, and is not told here. A payload of [`SHARED_BYTES_MIN`] or more is not copied: it, and whatever
    /// it is a slice of, is held until its blocks are sealed.
    ///
    /// # Errors
    /// As [`BlockWriter::append`].
    pub async fn append_since(
        &self,
        since: (u32, u64),
        class: BlockClass,
        kind: RecordKind,
        id: u64,
        payload: &Bytes,
    ) -> Result<Vec<Pointer>> {
        self.check_record(kind, payload.len())?;
        let payload = if payload.len() < SHARED_BYTES_MIN { Bytes::copy_from_slice(payload) } else { payload.clone() };
        self.append_checked(since, class, kind, id, payload).await
    }

    fn check_record(&self, kind: RecordKind, length: usize) -> Result<()> {
        if !kind.is_listed() {
            return Err(Error::Invalid(format!("a {} is not appended", kind.name())));
        }
        let capacity = self.context.geometry.record_capacity();
        if kind != RecordKind::ChunkData && length > capacity {
            let (value, limit) = (length as u64, capacity as u64);
            return Err(Error::LimitExceeded { what: "record_bytes", value, limit });
        }
        Ok(())
    }

    async fn append_checked(
        &self,
        since: (u32, u64),
        class: BlockClass,
        kind: RecordKind,
        id: u64,
        payload: Bytes,
    ) -> Result<Vec<Pointer>> {
        let mut pointers = Vec::with_capacity(1);
        let mut rest = payload;
        loop {
            let pieces_left = self.context.geometry.pieces_max().saturating_sub(pointers.len());
            match self.put_record(since, class, kind, id, &rest, pieces_left)? {
                Step::NoRoom => self.drive(since, |state| state.in_flight.len() < self.in_flight_max).await,
                Step::Placed(pointer, bytes) => {
                    pointers.push(pointer);
                    if bytes >= rest.len() {
                        return Ok(pointers);
                    }
                    rest = rest.slice(bytes..);
                }
            }
        }
    }

    /// Where the next record may go at the earliest: writer epoch and counter. Blocks numbered below it take no more.
    pub fn oldest_open(&self) -> Option<(u32, u64)> {
        let state = lock(&self.state);
        let open = [&state.open_data, &state.open_metadata, &state.open_spill];
        let counters = open.into_iter().flatten().map(|slot| slot.counter);
        Some((state.writer_epoch?, counters.chain([state.next_counter]).min()?))
    }

    /// Where the next record of this class may go at the earliest: writer epoch and counter.
    pub fn place(&self, class: BlockClass) -> Option<(u32, u64)> {
        let mut state = lock(&self.state);
        let open = state.open(class).ok()?.as_ref().map(|slot| slot.place());
        Some(open.unwrap_or((state.writer_epoch?, state.next_counter)))
    }

    /// Puts a block that holds nothing, at once and durably: a commit may name it. Answers its number and its salt.
    ///
    /// # Errors
    /// [`Error::Invalid`] without an epoch; what the storage raises.
    pub async fn put_empty(&self) -> Result<(BlockId, [u8; SALT_BYTES])> {
        let mut attempts_left = EMPTY_ATTEMPTS_COUNT;
        let storage = &*self.context.storage;
        loop {
            let (id, builder) = {
                let mut state = lock(&self.state);
                let id = self.next_id(&mut state)?;
                (id, BlockBuilder::new(&self.context, BlockClass::Data, &id)?)
            };
            let sealed = builder.seal(&self.context.keys)?;
            attempts_left -= 1;
            // What is there is what an earlier try has put after all, or has another salt than would be noted: of a writer that
            // was apart.
            match put_own_durable(storage, &self.context.env, sealed.name, sealed.bytes.clone()).await? {
                Put::Created => return Ok((id, sealed.salt)),
                Put::Exists if is_there(storage, sealed.name, &sealed.bytes).await? => return Ok((id, sealed.salt)),
                Put::Exists if attempts_left == 0 => return Err(taken(sealed.name)),
                Put::Exists => {}
            }
        }
    }

    /// Seals what is open and waits until storage has answered every put that was started before. This is no barrier: see
    /// [`Storage::sync`](crate::storage::Storage::sync). Answers the blocks put since the last flush that answered.
    ///
    /// # Errors
    /// The failure of a block, until [`BlockWriter::take_failure`].
    pub async fn flush(&self) -> Result<Vec<BlockId>> {
        self.flush_since(ANY).await
    }

    /// As [`BlockWriter::flush`] for one who began to write at `since`, as in [`BlockWriter::append_since`].
    ///
    /// # Errors
    /// As [`BlockWriter::flush`].
    pub async fn flush_since(&self, since: (u32, u64)) -> Result<Vec<BlockId>> {
        let end = {
            let mut state = lock(&self.state);
            self.check(since)?;
            self.close_all(&mut state);
            state.next_ticket
        };
        let done = |state: &State| state.in_flight.first_key_value().is_none_or(|(ticket, _)| *ticket >= end);
        loop {
            {
                let mut state = lock(&self.state);
                self.check(since)?;
                if done(&state) {
                    return Ok(std::mem::take(&mut state.put));
                }
            }
            self.drive(since, done).await;
        }
    }

    /// The payload of a record that is not known to be in storage yet; `None` where storage is the one to ask.
    ///
    /// # Errors
    /// [`Error::Damaged`] where the pointer is to no record of that kind.
    pub fn pending(&self, pointer: &Pointer, kind: RecordKind) -> Result<Option<Bytes>> {
        let slot = self.pending_read().get(&(pointer.writer_epoch, pointer.counter)).cloned();
        slot.map_or(Ok(None), |slot| slot.read(pointer, kind))
    }

    /// The failure that is being reported, where there is one. It is reported no longer, and the blocks that failed are
    /// tried again with the same bytes: the next flush waits for them, so that no pointer handed out leads nowhere.
    pub fn take_failure(&self) -> Option<Error> {
        self.take_failure_since(ANY).map(|(_, error)| error)
    }

    /// As [`BlockWriter::take_failure`], of the blocks from `since` on; with the place of the last one that failed.
    pub fn take_failure_since(&self, since: (u32, u64)) -> Option<((u32, u64), Error)> {
        let mut state = lock(&self.state);
        let failed = lock(&self.failures).errors.split_off(&since);
        let (again, others) =
            std::mem::take(&mut state.failed).into_iter().partition(|(_, slot)| slot.place() >= since);
        state.failed = others;
        let again: Vec<(u64, Arc<Slot>)> = again;
        for (ticket, slot) in again {
            self.start_as(&mut state, ticket, slot);
        }
        failed.into_iter().next_back()
    }

    /// Where the last of the failed blocks from `since` on is.
    pub fn failed_since(&self, since: (u32, u64)) -> Option<(u32, u64)> {
        lock(&self.failures).errors.range(since..).next_back().map(|(place, _)| *place)
    }

    /// Gives up the blocks before `place` that are closed and that storage has not acknowledged: nobody's pointers lead to
    /// them. What is being put may still arrive.
    pub fn give_up_before(&self, place: (u32, u64)) {
        let mut state = lock(&self.state);
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.failed).into_iter().partition(|(_, slot)| slot.place() >= place);
        state.failed = kept;
        state
            .in_flight
            .values()
            .filter(|running| running.slot.place() < place)
            .for_each(|running| running.slot.give_up());
        {
            let mut failures = lock(&self.failures);
            failures.errors = failures.errors.split_off(&place);
        }
        for (_, slot) in &gone {
            self.pending_write().remove(&slot.place());
            state.unsure.insert(slot.writer_epoch);
        }
    }

    /// Under which epochs there may be blocks in storage that failed and were given up; asked once.
    pub fn take_unsure(&self) -> BTreeSet<u32> {
        std::mem::take(&mut lock(&self.state).unsure)
    }

    /// Gives up everything that storage has not acknowledged, and forgets the failure. Every transaction that appended
    /// since the last flush must be aborted: its pointers lead nowhere. What is being put may still arrive.
    pub fn discard(&self) {
        let mut state = lock(&self.state);
        state.generation += 1;
        *lock(&self.failures) = Failures { generation: state.generation, errors: BTreeMap::new() };
        state.open_data = None;
        state.open_metadata = None;
        state.open_spill = None;
        state.failed.clear();
        state.put.clear();
        self.pending_write().clear();
    }

    fn check(&self, since: (u32, u64)) -> Result<()> {
        lock(&self.failures).errors.range(since..).next().map_or(Ok(()), |(_, error)| Err(error.clone()))
    }

    /// Puts a record, or as much of a chunk as fits. The rest of it, this piece included, is to be in so many pieces at most.
    pub(super) fn put_record(
        &self,
        since: (u32, u64),
        class: BlockClass,
        kind: RecordKind,
        id: u64,
        payload: &Bytes,
        pieces_left: usize,
    ) -> Result<Step> {
        let mut state = lock(&self.state);
        self.check(since)?;
        if state.in_flight.len() >= self.in_flight_max {
            return Ok(Step::NoRoom);
        }
        let geometry = self.context.geometry;
        let piece_min = geometry.piece_bytes_min();
        // Others may leave little room in each block: what is left to place must fit the pieces that are left, by halves of blocks.
        let half = geometry.record_capacity() / 2;
        let is_free = payload.len().div_ceil(half) < pieces_left;
        let cut_min = if is_free { piece_min } else { half };
        // Twice at most: an empty block takes the record, or as much of the chunk as there is room for.
        for _ in 0..2 {
            let slot = match state.open(class)? {
                Some(slot) => slot.clone(),
                None => self.open_block(&mut state, class)?,
            };
            let (placed, left) = slot.with_builder(|builder| {
                let room = builder.remaining();
                let cut = kind == RecordKind::ChunkData && room >= cut_min && room < payload.len();
                let piece = if cut { payload.slice(..room) } else { payload.clone() };
                let length = piece.len();
                (builder.append_shared(kind, id, piece).map(|place| (place, length)), builder.remaining())
            })?;
            let least = if class == BlockClass::Data { piece_min } else { 1 };
            if placed.is_none() || left < least {
                *state.open(class)? = None;
                self.start(&mut state, slot.clone());
            }
            if let Some((place, bytes)) = placed {
                return Ok(Step::Placed(slot.pointer(place), bytes));
            }
        }
        Err(impossible("a record does not fit an empty block"))
    }

    fn open_block(&self, state: &mut State, class: BlockClass) -> Result<Arc<Slot>> {
        let id = self.next_id(state)?;
        let BlockId::Data { key_epoch, writer_epoch, counter } = id else {
            return Err(impossible("a numbered block is of another kind"));
        };
        let builder = BlockBuilder::new(&self.context, class, &id)?;
        let slot = Arc::new(Slot::new(builder, key_epoch, writer_epoch, counter));
        self.pending_write().insert((writer_epoch, counter), slot.clone());
        *state.open(class)? = Some(slot.clone());
        Ok(slot)
    }

    /// A number that was never given before.
    fn next_id(&self, state: &mut State) -> Result<BlockId> {
        let writer_epoch = state
            .writer_epoch
            .ok_or_else(|| Error::Invalid("no block is written before an epoch is claimed".into()))?;
        let counter = state.next_counter;
        if counter > COUNTER_MAX {
            return Err(Error::LimitExceeded { what: "blocks_count", value: counter, limit: COUNTER_MAX });
        }
        state.next_counter = counter + 1;
        Ok(BlockId::Data { key_epoch: self.context.keys.newest_epoch(), writer_epoch, counter })
    }

    fn close_all(&self, state: &mut State) {
        let open = [state.open_data.take(), state.open_metadata.take(), state.open_spill.take()];
        for slot in open.into_iter().flatten() {
            self.start(state, slot);
        }
    }

    fn start(&self, state: &mut State, slot: Arc<Slot>) {
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        self.start_as(state, ticket, slot);
    }

    // Uploads take no lock of the writer but the failure's, so it does not matter where and when the workers run them.
    fn start_as(&self, state: &mut State, ticket: u64, slot: Arc<Slot>) {
        let generation = state.generation;
        state.in_flight.insert(ticket, InFlight { slot: slot.clone(), generation });
        let (context, failures) = (self.context.clone(), self.failures.clone());
        let handle = self.context.env.spawn(async move {
            let outcome = upload(&context, &slot).await;
            if let Err(error) = &outcome {
                lock(&failures).record(generation, &slot, error);
            }
            outcome
        });
        state.started.push_back(Upload { ticket, handle });
    }

    /// Waits until one upload has ended, unless it is enough already.
    async fn drive(&self, since: (u32, u64), enough: impl Fn(&State) -> bool) {
        let mut running = self.running.lock().await;
        {
            let mut state = lock(&self.state);
            while running.len() < self.polled_max
                && let Some(upload) = state.started.pop_front()
            {
                running.push(upload);
            }
            if enough(&state) || self.check(since).is_err() {
                return;
            }
        }
        match running.next().await {
            Some((ticket, outcome)) => self.settle(ticket, outcome),
            None => return self.settle_lost(),
        }
        while let Some(Some((ticket, outcome))) = running.next().now_or_never() {
            self.settle(ticket, outcome);
        }
    }

    fn settle(&self, ticket: u64, outcome: Option<Result<()>>) {
        let mut state = lock(&self.state);
        let Some(InFlight { slot, generation }) = state.in_flight.remove(&ticket) else { return };
        if generation != state.generation {
            return;
        }
        match outcome {
            Some(Ok(())) => {
                state.put.push(slot.id());
                self.pending_write().remove(&slot.place());
                return;
            }
            Some(Err(_)) => {} // It has reported itself.
            None => lock(&self.failures).record(generation, &slot, &Error::WorkerLost),
        }
        if slot.is_given_up() {
            self.pending_write().remove(&slot.place());
            state.unsure.insert(slot.writer_epoch);
        } else if lock(&self.failures).errors.contains_key(&slot.place()) {
            state.failed.push((ticket, slot));
        } else {
            // Its failure was taken before it was settled: the next try is due already.
            self.start_as(&mut state, ticket, slot);
        }
    }

    // Every upload in flight is running, so there is none when nothing runs. Were that wrong, waiting would never end.
    fn settle_lost(&self) {
        let tickets: Vec<u64> = lock(&self.state).in_flight.keys().copied().collect();
        tickets.into_iter().for_each(|ticket| self.settle(ticket, None));
    }

    fn pending_read(&self) -> RwLockReadGuard<'_, HashMap<(u32, u64), Arc<Slot>>> {
        self.pending.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending_write(&self) -> RwLockWriteGuard<'_, HashMap<(u32, u64), Arc<Slot>>> {
        self.pending.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&mut self, class: BlockClass) -> Result<&mut Option<Arc<Slot>>> {
        match class {
            BlockClass::Data => Ok(&mut self.open_data),
            BlockClass::Metadata => Ok(&mut self.open_metadata),
            BlockClass::Spill => Ok(&mut self.open_spill),
            BlockClass::Commit | BlockClass::Hint => {
                Err(Error::Invalid(format!("blocks of class {class:?} are put one by one")))
            }
        }
    }
}

impl std::fmt::Debug for BlockWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let in_flight = lock(&self.state).in_flight.len();
        formatter.debug_struct("BlockWriter").field("in_flight", &in_flight).finish_non_exhaustive()
    }
}
