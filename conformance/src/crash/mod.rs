//! **A storage that crashes on request**, deterministically.
//!
//! It keeps what is durable apart from what is visible. A plain put or delete is visible at once, and durable only after
//! the barrier that its process asks for; [`CrashingStorage::crash`] takes away, keeps or tears, by seed, whatever no
//! barrier covered. Several handles, of one process or of several, share one medium, as files on one host do.
//!
//! ```
//! # use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Loss};
//! # use strongroom_core::storage::{Name, Storage as _};
//! # futures_lite::future::block_on(async {
//! let storage = CrashingStorage::new(CrashOptions::default());
//! storage.put(Name::new([1; 16]), "plain".into()).await.unwrap();
//! storage.put_durable(Name::new([2; 16]), "durable".into()).await.unwrap();
//! storage.crash_with(Loss::Everything);
//!
//! assert!(storage.size(Name::new([2; 16])).await.is_err()); // this handle died with its process
//! let storage = storage.reopen();
//! assert!(storage.size(Name::new([1; 16])).await.is_err());
//! assert!(storage.size(Name::new([2; 16])).await.is_ok());
//! # });
//! ```

mod alone;
mod faults;
mod image;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_lock::RwLock as AsyncRwLock;
use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::yield_now;
use strongroom_core::storage::bounds::{check_blob_bytes, check_range, name_range, not_found};
use strongroom_core::storage::{
    BatchSupport, Capabilities, Change, Durability, Effect, Error, ErrorKind, ExclusiveGuard, ListOrder, Name,
    Occupancy, Operation, Put, RangeReads, Reach, Result, Retry, Storage, Torn,
};

use crate::Dice;
use alone::Alone;
use faults::{Faults, is_mutating};
use image::{Image, Process};

pub use faults::{Calls, Fault};
pub use image::Loss;

/// What the double is like.
#[derive(Clone, Debug)]
pub struct CrashOptions {
    /// What it claims, and does: `torn` and `batch` decide what a crash leaves.
    pub capabilities: Capabilities,
    /// Whether it can tell that nobody else is there; otherwise `try_exclusive` always answers `None`.
    pub locks: bool,
    /// Whether each call lets other tasks run before it takes effect and again before it answers.
    pub yields: bool,
    /// How many names one page of a listing holds, at least 1.
    pub page_names: usize,
}

impl Default for CrashOptions {
    /// Like a folder of files on one host.
    fn default() -> Self {
        Self {
            capabilities: Capabilities {
                reach: Reach::Host,
                durability: Durability::Power,
                torn: Torn::BeforeSync,
                batch: BatchSupport::Sequential,
                list_order: ListOrder::Ascending,
                range_reads: RangeReads::Native,
                block_bytes_best: 128 * 1024,
                block_bytes_max: 4 * 1024 * 1024,
            },
            locks: true,
            yields: true,
            page_names: 100,
        }
    }
}

impl CrashOptions {
    /// Like an embedded database: batches are atomic, nothing is torn, and a crash loses the end of its log.
    #[must_use]
    pub fn atomic() -> Self {
        let mut options = Self::default();
        options.capabilities.torn = Torn::Never;
        options.capabilities.batch = BatchSupport::Atomic;
        options
    }

    /// Like an object store: a put is durable when it answers, nothing is torn, everyone sees it, and there are no locks.
    #[must_use]
    pub fn object_store() -> Self {
        let mut options = Self { locks: false, page_names: 1000, ..Self::default() };
        options.capabilities.torn = Torn::Never;
        options.capabilities.reach = Reach::Everywhere;
        options
    }

    fn puts_are_durable(&self) -> bool {
        self.capabilities.reach == Reach::Everywhere
    }
}

/// A handle on a medium that crashes. What a test does to the medium is a method here; what the engine does, one of
/// [`Storage`].
pub struct CrashingStorage {
    world: Arc<World>,
    process: Process,
    handle: u64,
    /// Whether it got past the gate: a handle that is opened while another holds the medium exclusively waits there.
    admitted: AtomicBool,
    occupancy: Arc<Occupancy>,
}

struct World {
    options: CrashOptions,
    state: Mutex<State>,
}

struct State {
    image: Image,
    faults: Faults,
    calls: Calls,
    barriers: u64,
    barriers_ignored: bool,
    barriers_dropped: BTreeSet<u64>,
    capacity_bytes: Option<u64>,
    late: Vec<(u64, Process, Action)>,
    /// Those that live.
    processes: BTreeMap<Process, CutOff>,
    /// The handles that were opened and not closed, with their process.
    handles: BTreeMap<u64, Process>,
    /// How many handles and processes there were, ever: so numbers are not used again.
    numbers: u64,
    gate: Arc<AsyncRwLock<()>>,
    gate_held_by: Option<Process>,
}

/// When a process dies by itself.
#[derive(Default)]
struct CutOff {
    mutating: u64,
    after: Option<(u64, Fault)>,
}

#[derive(Clone, Debug)]
enum Action {
    Put { name: Name, bytes: Bytes, durable: bool },
    Delete(Name),
    Apply(Vec<Change>),
    Sync,
    Persist(Vec<Name>),
}

impl CrashingStorage {
    /// A handle on a fresh, empty medium.
    #[must_use]
    pub fn new(options: CrashOptions) -> Self {
        let state = State {
            image: Image::new(options.capabilities.batch == BatchSupport::Atomic),
            faults: Faults::default(),
            calls: Calls::default(),
            barriers: 0,
            barriers_ignored: false,
            barriers_dropped: BTreeSet::new(),
            capacity_bytes: None,
            late: Vec::new(),
            processes: BTreeMap::new(),
            handles: BTreeMap::new(),
            numbers: 0,
            gate: Arc::default(),
            gate_held_by: None,
        };
        let world = Arc::new(World { options, state: Mutex::new(state) });
        Self::open(world, None)
    }

    /// One more handle of the same process; dead where the process is dead.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::open(self.world.clone(), Some(self.process))
    }

    /// A handle of a new process on what the medium holds now: after a crash, or beside the living.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self::open(self.world.clone(), None)
    }

    /// Waits as opening a storage does while another handle holds the medium exclusively. A handle that was not waited for
    /// waits in its first call.
    ///
    /// # Errors
    /// Where the process died meanwhile.
    pub async fn admitted(self) -> Result<Self> {
        self.come_in(Operation::Open).await?;
        Ok(self)
    }

    /// The handle no longer counts as open, as if it were dropped. [`CrashingStorage::another`] opens others of its process,
    /// which lives on.
    pub fn close(&self) {
        self.world.lock().handles.remove(&self.handle);
    }

    fn open(world: Arc<World>, process: Option<Process>) -> Self {
        let (process, handle, admitted) = {
            let mut state = world.lock();
            let process = process.unwrap_or_else(|| {
                let process = state.number();
                state.processes.insert(process, CutOff::default());
                process
            });
            let handle = state.number();
            let admitted = state.gate.try_read().is_some() && state.processes.contains_key(&process);
            if admitted {
                state.handles.insert(handle, process);
            }
            (process, handle, admitted)
        };
        Self { world, process, handle, admitted: AtomicBool::new(admitted), occupancy: Arc::default() }
    }

    /// The power fails: every process dies, and of what was not made durable the seed decides what is left.
    pub fn crash(&self, seed: u64) {
        self.crash_with(Loss::Seeded(seed));
    }

    /// The power fails: every process dies, and what was not made durable suffers as said.
    pub fn crash_with(&self, loss: Loss) {
        let mut state = self.world.lock();
        state.image.power_loss(loss, self.world.options.capabilities.torn);
        state.late.clear();
        state.processes.clear();
        state.handles.clear();
        state.gate = Arc::default();
        state.gate_held_by = None;
    }

    /// The process of this handle dies, and all its handles with it. What it did stays visible, durable or not.
    pub fn process_kill(&self) {
        self.world.lock().kill(self.process);
    }

    /// The `n`-th call from now, of whatever operation, fails (1 is the next).
    pub fn fail_call(&self, n: u64, fault: Fault) {
        let mut state = self.world.lock();
        let number = state.calls.all() + n;
        state.faults.at_call.insert(number, fault);
    }

    /// The `n`-th call of one operation from now fails (1 is the next).
    pub fn fail_operation(&self, operation: Operation, n: u64, fault: Fault) {
        let mut state = self.world.lock();
        let number = state.calls.of(operation) + n;
        state.faults.at_operation.insert((operation, number), fault);
    }

    /// So many calls in a thousand fail, in ways that the seed decides.
    pub fn fail_at_random(&self, seed: u64, per_mille: u64) {
        self.world.lock().faults.at_random = Some((Dice::new(seed), per_mille));
    }

    /// No call fails any more, save those of the dead.
    pub fn clear_faults(&self) {
        self.world.lock().faults = Faults::default();
    }

    /// After `calls` more mutating calls this process is dead: the next one ends as `last` says, and no call after it
    /// answers. Follow it with [`CrashingStorage::crash`] or [`CrashingStorage::process_kill`], and reopen.
    pub fn cut_off_after(&self, calls: u64, last: Fault) {
        if let Some(process) = self.world.lock().processes.get_mut(&self.process) {
            process.after = Some((process.mutating + calls, last));
        }
    }

    /// As [`CrashingStorage::cut_off_after`], for every process that lives, each counting its own calls.
    pub fn cut_off_all_after(&self, calls: u64, last: Fault) {
        for process in self.world.lock().processes.values_mut() {
            process.after = Some((process.mutating + calls, last));
        }
    }

    /// Whether the process of this handle is dead.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        !self.world.lock().processes.contains_key(&self.process)
    }

    /// Puts that would make the medium hold more than so many bytes are answered `Full`.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.world.lock().capacity_bytes = capacity_bytes;
    }

    /// While true, `sync`, `put_durable` and `persist` answer without making anything durable: to show that they matter.
    pub fn lying_sync(&self, lies: bool) {
        self.world.lock().barriers_ignored = lies;
    }

    /// The `n`-th barrier from now (1 is the next) answers without making anything durable.
    pub fn drop_barrier(&self, n: u64) {
        let mut state = self.world.lock();
        let number = state.barriers + n;
        state.barriers_dropped.insert(number);
    }

    /// How many calls there were, of all processes.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.world.lock().calls.clone()
    }

    /// How many barriers (`sync`, `put_durable`, `persist`) took place, lying ones included.
    #[must_use]
    pub fn barriers(&self) -> u64 {
        self.world.lock().barriers
    }

    /// How many changes are visible and not durable.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.world.lock().image.unsynced()
    }

    /// Everything that is visible.
    #[must_use]
    pub fn snapshot_blobs(&self) -> BTreeMap<Name, Bytes> {
        self.world.lock().image.live.clone()
    }

    /// Everything that is durable.
    #[must_use]
    pub fn durable_blobs(&self) -> BTreeMap<Name, Bytes> {
        self.world.lock().image.durable.clone()
    }

    /// A hostile hand: the blob is this from now on, whatever was there.
    pub fn overwrite(&self, name: Name, bytes: Bytes) {
        self.world.lock().image.force(name, Some(bytes));
    }

    /// A hostile hand: the blob is gone.
    pub fn remove(&self, name: Name) {
        self.world.lock().image.force(name, None);
    }

    /// A hostile hand: the medium holds exactly this, such as what it held once.
    pub fn restore(&self, blobs: BTreeMap<Name, Bytes>) {
        self.world.lock().image.force_all(blobs);
    }

    /// Waits while another handle holds the medium exclusively, and then for the other tasks' turn.
    async fn enter(&self, operation: Operation) -> Result<()> {
        self.come_in(operation).await?;
        self.turn().await;
        Ok(())
    }

    async fn come_in(&self, operation: Operation) -> Result<()> {
        while !self.admitted.load(Ordering::Acquire) {
            let gate = self.world.lock().gate.clone();
            let _open = gate.read().await;
            let mut state = self.world.lock();
            if !state.processes.contains_key(&self.process) {
                return Err(dead(operation));
            }
            if Arc::ptr_eq(&gate, &state.gate) {
                state.handles.insert(self.handle, self.process);
                self.admitted.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    async fn turn(&self) {
        if self.world.options.yields {
            yield_now().await;
        }
    }

    async fn mutate(&self, operation: Operation, context: String, action: Action) -> Result<Vec<Put>> {
        self.enter(operation).await?;
        let answer = self.world.lock().mutate(&self.world.options, self.process, operation, &context, action);
        self.turn().await;
        answer
    }

    async fn read<T>(
        &self,
        operation: Operation,
        context: &str,
        look: impl FnOnce(&Image) -> Result<T> + Send,
    ) -> Result<T>
    where
        T: Send,
    {
        self.enter(operation).await?;
        let answer = {
            let mut state = self.world.lock();
            match state.admit(&self.world.options, self.process, operation) {
                Err(dead) => Err(dead),
                Ok(Some(fault)) => Err(fault.of_reading().error(operation, context)),
                Ok(None) => look(&state.image),
            }
        };
        self.turn().await;
        answer
    }
}

impl Drop for CrashingStorage {
    fn drop(&mut self) {
        self.world.lock().handles.remove(&self.handle);
    }
}

impl fmt::Debug for CrashingStorage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CrashingStorage").field("process", &self.process).finish_non_exhaustive()
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn kill(&mut self, process: Process) {
        self.processes.remove(&process);
        self.handles.retain(|_, owner| *owner != process);
        if self.gate_held_by == Some(process) {
            self.gate = Arc::default();
            self.gate_held_by = None;
        }
    }

    /// Counts the call, and says how it fails, if it does. An error where the process is dead already.
    fn admit(&mut self, options: &CrashOptions, process: Process, operation: Operation) -> Result<Option<Fault>> {
        if !self.processes.contains_key(&process) {
            return Err(dead(operation));
        }
        self.calls.count(operation);
        let now = self.calls.all();
        let (due, late) = std::mem::take(&mut self.late).into_iter().partition(|(when, ..)| *when <= now);
        self.late = late;
        for (_, process, action) in due {
            let _ = self.perform(options, process, &action, true);
        }
        if is_mutating(operation)
            && let Some(cut_off) = self.processes.get_mut(&process)
        {
            cut_off.mutating += 1;
            if let Some((_, last)) = cut_off.after.filter(|(after, _)| cut_off.mutating > *after) {
                self.kill(process);
                return Ok(Some(last));
            }
        }
        Ok(self.faults.of_call(operation, &self.calls))
    }

    fn mutate(
        &mut self,
        options: &CrashOptions,
        process: Process,
        operation: Operation,
        context: &str,
        action: Action,
    ) -> Result<Vec<Put>> {
        let Some(fault) = self.admit(options, process, operation)? else {
            return self.perform(options, process, &action, true);
        };
        match fault {
            Fault::Refused(_) | Fault::LostRequest => {}
            Fault::LostReply => drop(self.perform(options, process, &action, true)),
            Fault::NotDurable => drop(self.perform(options, process, &action, false)),
            Fault::Late { calls } => self.late.push((self.calls.all() + calls, process, action)),
        }
        Err(fault.error(operation, context))
    }

    /// Does what was asked; without `barrier` it stops short of making it durable.
    fn perform(
        &mut self,
        options: &CrashOptions,
        process: Process,
        action: &Action,
        barrier: bool,
    ) -> Result<Vec<Put>> {
        self.check_space(action)?;
        self.image.next_batch();
        match action {
            Action::Put { name, bytes, durable } => {
                let durable = *durable || options.puts_are_durable();
                let lies = durable && barrier && self.barrier_lies();
                let outcome = self.image.put(process, *name, bytes.clone(), durable && !lies);
                if durable && barrier && !lies && outcome == Put::Created {
                    self.image.persist(*name);
                }
                return Ok(vec![outcome]);
            }
            Action::Delete(name) => {
                self.image.delete(process, *name);
                if options.puts_are_durable() && barrier {
                    self.image.persist(*name);
                }
            }
            Action::Apply(batch) => {
                let mut outcomes = Vec::new();
                for change in batch {
                    match change {
                        Change::Put(name, bytes) => {
                            outcomes.push(self.image.put(process, *name, bytes.clone(), false));
                        }
                        Change::Delete(name) => self.image.delete(process, *name),
                    }
                }
                return Ok(outcomes);
            }
            Action::Sync => {
                if barrier && !self.barrier_lies() {
                    self.image.sync(process);
                }
            }
            Action::Persist(names) => {
                if let Some(absent) = names.iter().find(|name| !self.image.live.contains_key(name)) {
                    return Err(not_found(Operation::Persist, *absent));
                }
                if barrier && !self.barrier_lies() {
                    names.iter().for_each(|name| self.image.persist(*name));
                }
            }
        }
        Ok(Vec::new())
    }

    fn barrier_lies(&mut self) -> bool {
        self.barriers += 1;
        self.barriers_dropped.remove(&self.barriers) || self.barriers_ignored
    }

    fn check_space(&self, action: &Action) -> Result<()> {
        let Some(capacity_bytes) = self.capacity_bytes else { return Ok(()) };
        let (operation, bytes) = match action {
            Action::Put { name, .. } if self.image.live.contains_key(name) => return Ok(()),
            Action::Put { bytes, durable, .. } => {
                (if *durable { Operation::PutDurable } else { Operation::Put }, bytes.len() as u64)
            }
            Action::Apply(batch) => (Operation::Apply, batch_bytes(batch)),
            Action::Delete(_) | Action::Sync | Action::Persist(_) => return Ok(()),
        };
        if bytes > 0 && self.image.live_bytes + bytes > capacity_bytes {
            return Err(Error::new(ErrorKind::Full, operation, "the medium"));
        }
        Ok(())
    }
}

fn batch_bytes(batch: &[Change]) -> u64 {
    batch
        .iter()
        .map(|change| match change {
            Change::Put(_, bytes) => bytes.len() as u64,
            Change::Delete(_) => 0,
        })
        .sum()
}

/// The dead get no answer; that a call returns at all is for the test's sake.
fn dead(operation: Operation) -> Error {
    Error::new(ErrorKind::Other, operation, "a process that is dead")
        .with_retry(Retry::Useless)
        .with_effect(Effect::None)
}

#[async_trait]
impl Storage for CrashingStorage {
    fn capabilities(&self) -> Capabilities {
        self.world.options.capabilities
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        check_blob_bytes(Operation::Put, name, bytes.len(), self.capabilities().block_bytes_max)?;
        let action = Action::Put { name, bytes, durable: false };
        Ok(only(self.mutate(Operation::Put, name.to_hex(), action).await?))
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        check_blob_bytes(Operation::PutDurable, name, bytes.len(), self.capabilities().block_bytes_max)?;
        let action = Action::Put { name, bytes, durable: true };
        Ok(only(self.mutate(Operation::PutDurable, name.to_hex(), action).await?))
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.read(Operation::Get, &name.to_hex(), |image| {
            let blob = image.live.get(&name).ok_or_else(|| not_found(Operation::Get, name))?;
            let range = check_range(name, range, blob.len() as u64, max_bytes)?;
            // Within the blob, so within usize.
            Ok(blob.slice(range.start as usize..range.end as usize))
        })
        .await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.read(Operation::Size, &name.to_hex(), |image| {
            image.live.get(&name).map(|blob| blob.len() as u64).ok_or_else(|| not_found(Operation::Size, name))
        })
        .await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.mutate(Operation::Delete, name.to_hex(), Action::Delete(name)).await.map(drop)
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let page_names = self.world.options.page_names.max(1);
        self.read(Operation::List, "names", |image| {
            let Some((first, last)) = name_range(prefix, after) else { return Ok(Vec::new()) };
            Ok(image.live.range(first..=last).take(page_names).map(|(name, _)| *name).collect())
        })
        .await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        for change in &batch {
            if let Change::Put(name, bytes) = change {
                check_blob_bytes(Operation::Apply, *name, bytes.len(), self.capabilities().block_bytes_max)?;
            }
        }
        if self.capabilities().batch == BatchSupport::Atomic {
            let context = format!("a batch of {}", batch.len());
            return self.mutate(Operation::Apply, context, Action::Apply(batch)).await;
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        for change in batch {
            match change {
                Change::Put(name, bytes) => outcomes.push(self.put(name, bytes).await?),
                Change::Delete(name) => self.delete(name).await?,
            }
        }
        Ok(outcomes)
    }

    async fn sync(&self) -> Result<()> {
        self.mutate(Operation::Sync, "the medium".to_owned(), Action::Sync).await.map(drop)
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        let context = format!("{} names", names.len());
        self.mutate(Operation::Persist, context, Action::Persist(names.to_vec())).await.map(drop)
    }

    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        self.world.options.locks.then(|| self.occupancy.clone())
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.read(Operation::TryExclusive, "the medium", |_| Ok(())).await?;
        let mut state = self.world.lock();
        if !self.world.options.locks || state.handles.len() != 1 {
            return Ok(None);
        }
        let Some(held) = state.gate.try_write_arc() else { return Ok(None) };
        state.gate_held_by = Some(self.process);
        let gate = state.gate.clone();
        Ok(Some(Box::new(Alone::new(self.world.clone(), self.process, gate, held))))
    }

    /// What [`CrashingStorage::set_capacity`] leaves.
    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.read(Operation::Size, "the medium", |_| Ok(())).await?;
        let state = self.world.lock();
        Ok(state.capacity_bytes.map(|capacity_bytes| capacity_bytes.saturating_sub(state.image.live_bytes)))
    }
}

fn only(outcomes: Vec<Put>) -> Put {
    outcomes.first().copied().unwrap_or(Put::Exists)
}
