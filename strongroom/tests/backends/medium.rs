//! A real storage in the place of the crashing double: the same handles, processes and faults, on a medium that keeps what it is given.
//!
//! Whatever the double may lose when the power goes, this loses nothing: of all that a crash may leave it is the one outcome that a
//! test can bring about on any storage, and every test must pass with it. That barriers keep what they promise is for the tests of
//! each backend.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::{block_on, yield_now};
use strongroom::core;
use strongroom::core::engine::TrustedState;
use strongroom::core::storage::{
    Capabilities, Change, Effect, Error, ErrorKind, ExclusiveGuard, Name, Occupancy, Operation, Put, Result, Retry,
    Storage, StorageExt as _,
};
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, Fault, Loss};

use crate::places::{Ground, is_full};

/// How many random cases a test runs here that runs `all` of them on the double.
pub(crate) fn cases(all: u32) -> u32 {
    if is_full() { all } else { (all / 64).max(2) }
}

/// What a device remembers that opens it.
pub(crate) fn memory() -> Option<Arc<dyn TrustedState>> {
    Some(Arc::new(Followed))
}

/// Of a device that has followed here all that was written: a lock is a proof for it also where there are several places. What it has
/// seen speaks against nothing, for tests put older states back.
struct Followed;

#[async_trait]
impl TrustedState for Followed {
    async fn load(&self, _: &[u8; 16]) -> core::Result<Option<(u64, [u8; 32])>> {
        Ok(Some((0, [0; 32])))
    }

    async fn store(&self, _: &[u8; 16], _: u64, _: [u8; 32]) -> core::Result<()> {
        Ok(())
    }

    async fn is_settled(&self, _: &[u8; 16]) -> core::Result<bool> {
        Ok(true)
    }
}

/// A handle of a process.
pub(crate) struct Medium {
    world: Arc<World>,
    process: u64,
    handle: Arc<Handle>,
    capabilities: Capabilities,
    is_remote: bool,
    occupancy: Option<Arc<Occupancy>>,
}

/// What dies with the process.
#[derive(Default)]
struct Handle {
    storage: Mutex<Option<Arc<dyn Storage>>>,
    alone: Mutex<Option<Box<dyn ExclusiveGuard>>>,
}

struct World {
    options: CrashOptions,
    state: Mutex<State>,
    // Last: handles are closed before their ground is cleared.
    ground: Ground,
}

#[derive(Default)]
struct State {
    processes: BTreeMap<u64, Process>,
    processes_count: u64,
    calls: Calls,
    at_call: BTreeMap<u64, Fault>,
    at_operation: BTreeMap<(Operation, u64), Fault>,
    at_random: Option<(Dice, u64)>,
    capacity_bytes: Option<u64>,
}

/// One that lives.
#[derive(Default)]
struct Process {
    handles: Vec<Weak<Handle>>,
    mutating: u64,
    /// When it dies by itself, and how its last call ends.
    after: Option<(u64, Fault)>,
}

/// How many calls there were, failed ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls(BTreeMap<Operation, u64>);

impl Calls {
    pub(crate) fn of(&self, operation: Operation) -> u64 {
        self.0.get(&operation).copied().unwrap_or_default()
    }

    pub(crate) fn all(&self) -> u64 {
        self.0.values().sum()
    }

    pub(crate) fn mutating(&self) -> u64 {
        self.0.iter().filter(|(operation, _)| is_mutating(**operation)).map(|(_, calls)| calls).sum()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn error(fault: Option<Fault>, operation: Operation) -> Error {
    let error = match fault {
        Some(Fault::Refused(kind)) => Error::new(kind, operation, "the medium"),
        _ => Error::new(ErrorKind::Unavailable, operation, "the medium")
            .with_effect(operation.effect_if_lost())
            .with_retry(Retry::CanHelp),
    };
    error.with_source("the test wants it so")
}

fn dead(operation: Operation) -> Error {
    Error::new(ErrorKind::Other, operation, "a process that is dead")
        .with_retry(Retry::Useless)
        .with_effect(Effect::None)
}

fn is_mutating(operation: Operation) -> bool {
    operation.effect_if_lost() == Effect::Unknown
}

/// As the double draws them, save those that a storage which keeps everything does not know.
fn seeded(dice: &mut Dice, per_mille: u64) -> Option<Fault> {
    let faults = [Fault::Refused(ErrorKind::Unavailable), Fault::LostRequest, Fault::LostReply];
    let drawn = |dice: &mut Dice| faults.get(usize::try_from(dice.below(3)).ok()?).copied();
    dice.per_mille(per_mille).then(|| drawn(dice)).flatten()
}

impl World {
    fn kill(&self, process: u64) {
        let dead = lock(&self.state).processes.remove(&process);
        for handle in dead.into_iter().flat_map(|process| process.handles).filter_map(|handle| handle.upgrade()) {
            // Its locks first: they may need what they lock.
            drop(lock(&handle.alone).take());
            drop(lock(&handle.storage).take());
        }
    }
}

impl Medium {
    /// A handle on a fresh, empty place of the backend that is tested. Of the options it keeps whether there are locks and whether
    /// tasks take turns; everything else is as the backend has it.
    pub(crate) fn new(options: CrashOptions) -> Self {
        let world = World { options, state: Mutex::default(), ground: Ground::new() };
        Self::open(Arc::new(world), None)
    }

    /// One more handle of the same process; dead where the process is dead.
    pub(crate) fn another(&self) -> Self {
        Self::open(self.world.clone(), Some(self.process))
    }

    /// A handle of a new process.
    pub(crate) fn reopen(&self) -> Self {
        Self::open(self.world.clone(), None)
    }

    fn open(world: Arc<World>, process: Option<u64>) -> Self {
        let storage = block_on(world.ground.open()).unwrap();
        let (capabilities, is_remote) = (storage.capabilities(), storage.is_remote());
        let occupancy = storage.occupancy().filter(|_| world.options.locks);
        let handle = Arc::new(Handle::default());
        let process = {
            let mut state = lock(&world.state);
            let process = process.unwrap_or_else(|| {
                state.processes_count += 1;
                let process = state.processes_count;
                state.processes.insert(process, Process::default());
                process
            });
            if let Some(alive) = state.processes.get_mut(&process) {
                *lock(&handle.storage) = Some(storage);
                alive.handles.push(Arc::downgrade(&handle));
            }
            process
        };
        Self { world, process, handle, capabilities, is_remote, occupancy }
    }

    /// The power fails, and nothing is lost: every process dies.
    pub(crate) fn crash(&self, _seed: u64) {
        self.crash_with(Loss::Nothing);
    }

    /// As [`Medium::crash`], whatever may be lost.
    pub(crate) fn crash_with(&self, _loss: Loss) {
        let processes: Vec<_> = lock(&self.world.state).processes.keys().copied().collect();
        processes.into_iter().for_each(|process| self.world.kill(process));
    }

    /// The process of this handle dies, and all its handles with it.
    pub(crate) fn process_kill(&self) {
        self.world.kill(self.process);
    }

    /// The `n`-th call from now, of whatever operation, fails (1 is the next).
    pub(crate) fn fail_call(&self, n: u64, fault: Fault) {
        let mut state = lock(&self.world.state);
        let number = state.calls.all() + n;
        state.at_call.insert(number, fault);
    }

    /// The `n`-th call of one operation from now fails (1 is the next).
    pub(crate) fn fail_operation(&self, operation: Operation, n: u64, fault: Fault) {
        let mut state = lock(&self.world.state);
        let number = state.calls.of(operation) + n;
        state.at_operation.insert((operation, number), fault);
    }

    /// So many calls in a thousand fail, in ways that the seed decides.
    pub(crate) fn fail_at_random(&self, seed: u64, per_mille: u64) {
        lock(&self.world.state).at_random = Some((Dice::new(seed), per_mille));
    }

    /// No call fails any more, save those of the dead.
    pub(crate) fn clear_faults(&self) {
        let mut state = lock(&self.world.state);
        state.at_call.clear();
        state.at_operation.clear();
        state.at_random = None;
    }

    /// After `calls` more mutating calls this process is dead: the next one ends as `last` says, and no call after it answers.
    pub(crate) fn cut_off_after(&self, calls: u64, last: Fault) {
        if let Some(process) = lock(&self.world.state).processes.get_mut(&self.process) {
            process.after = Some((process.mutating + calls, last));
        }
    }

    /// As [`Medium::cut_off_after`], for every process that lives, each counting its own calls.
    pub(crate) fn cut_off_all_after(&self, calls: u64, last: Fault) {
        for process in lock(&self.world.state).processes.values_mut() {
            process.after = Some((process.mutating + calls, last));
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        !lock(&self.world.state).processes.contains_key(&self.process)
    }

    /// Puts that would make the medium hold more than so many bytes are answered `Full`; its blobs must be of one size.
    pub(crate) fn set_capacity(&self, capacity_bytes: Option<u64>) {
        lock(&self.world.state).capacity_bytes = capacity_bytes;
    }

    pub(crate) fn calls(&self) -> Calls {
        lock(&self.world.state).calls.clone()
    }

    /// Everything that is there, as the backend itself gives it.
    pub(crate) fn snapshot_blobs(&self) -> BTreeMap<Name, Bytes> {
        self.by_hand(async |storage| {
            let mut blobs = BTreeMap::new();
            for name in storage.list_all(&[]).await? {
                blobs.insert(name, storage.get_all(name, u64::MAX).await?);
            }
            Ok(blobs)
        })
    }

    /// What a power cut would leave: here, all of it.
    pub(crate) fn durable_blobs(&self) -> BTreeMap<Name, Bytes> {
        self.snapshot_blobs()
    }

    /// A hostile hand: the blob is this from now on, whatever was there.
    pub(crate) fn overwrite(&self, name: Name, bytes: Bytes) {
        self.by_hand(async |storage| {
            storage.delete(name).await?;
            storage.put(name, bytes).await.map(drop)
        });
    }

    /// A hostile hand: the blob is gone.
    pub(crate) fn remove(&self, name: Name) {
        self.by_hand(async |storage| storage.delete(name).await);
    }

    /// A hostile hand: the medium holds exactly this, such as what it held once.
    pub(crate) fn restore(&self, blobs: BTreeMap<Name, Bytes>) {
        let there = self.snapshot_blobs();
        self.by_hand(async |storage| {
            for (name, bytes) in &there {
                if blobs.get(name) != Some(bytes) {
                    storage.delete(*name).await?;
                }
            }
            for (name, bytes) in blobs {
                storage.put(name, bytes).await?;
            }
            Ok(())
        });
    }

    /// Past processes, faults and caches.
    fn by_hand<T>(&self, work: impl AsyncFnOnce(Arc<dyn Storage>) -> Result<T>) -> T {
        block_on(async { work(self.world.ground.open_bare().await?).await }).unwrap()
    }

    async fn turn(&self) {
        if self.world.options.yields {
            yield_now().await;
        }
    }

    /// The storage, and how the call fails, if it does.
    fn admit(&self, operation: Operation) -> Result<(Arc<dyn Storage>, Option<Fault>)> {
        let storage = lock(&self.handle.storage).clone().ok_or_else(|| dead(operation))?;
        let mut state = lock(&self.world.state);
        let process = state.processes.get_mut(&self.process).ok_or_else(|| dead(operation))?;
        let mut last = None;
        if is_mutating(operation) {
            process.mutating += 1;
            last = process.after.filter(|(after, _)| process.mutating > *after).map(|(_, last)| last);
        }
        *state.calls.0.entry(operation).or_default() += 1;
        let (all, of) = (state.calls.all(), state.calls.of(operation));
        let planned = state.at_call.remove(&all).or_else(|| state.at_operation.remove(&(operation, of)));
        let fault = planned.or_else(|| state.at_random.as_mut().and_then(|(dice, chance)| seeded(dice, *chance)));
        drop(state);
        if last.is_some() {
            self.world.kill(self.process);
        }
        Ok((storage, last.or(fault)))
    }

    async fn mutate<T, F>(
        &self,
        operation: Operation,
        bytes: usize,
        call: impl FnOnce(Arc<dyn Storage>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.turn().await;
        let (storage, fault) = self.admit(operation)?;
        self.check_space(&*storage, operation, bytes as u64).await?;
        let answer = match fault {
            None => call(storage).await,
            Some(Fault::LostReply | Fault::NotDurable) => call(storage).await.and(Err(error(fault, operation))),
            Some(_) => Err(error(fault, operation)),
        };
        self.turn().await;
        answer
    }

    async fn look<T, F>(&self, operation: Operation, call: impl FnOnce(Arc<dyn Storage>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.turn().await;
        let (storage, fault) = self.admit(operation)?;
        let answer = match fault {
            None => call(storage).await,
            // What changes nothing is refused without effect.
            Some(_) => Err(error(Some(Fault::Refused(ErrorKind::Unavailable)), operation)),
        };
        self.turn().await;
        answer
    }

    async fn check_space(&self, storage: &dyn Storage, operation: Operation, bytes: u64) -> Result<()> {
        match self.left_bytes(storage).await? {
            Some(left_bytes) if bytes > left_bytes => Err(Error::new(ErrorKind::Full, operation, "the medium")),
            _ => Ok(()),
        }
    }

    /// What [`Medium::set_capacity`] leaves.
    async fn left_bytes(&self, storage: &dyn Storage) -> Result<Option<u64>> {
        let Some(capacity_bytes) = lock(&self.world.state).capacity_bytes else { return Ok(None) };
        let names = storage.list_all(&[]).await?;
        let Some(one) = names.first() else { return Ok(Some(capacity_bytes)) };
        let held_bytes = names.len() as u64 * storage.size(*one).await?;
        Ok(Some(capacity_bytes.saturating_sub(held_bytes)))
    }
}

impl fmt::Debug for Medium {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Medium").field("process", &self.process).finish_non_exhaustive()
    }
}

/// The guard of who is alone, which ends with its process.
struct Alone(Arc<Handle>);

impl ExclusiveGuard for Alone {}

impl Drop for Alone {
    fn drop(&mut self) {
        drop(lock(&self.0.alone).take());
    }
}

fn bytes_of(batch: &[Change]) -> usize {
    let bytes = batch.iter().map(|change| if let Change::Put(_, bytes) = change { bytes.len() } else { 0 });
    bytes.sum()
}

#[async_trait]
impl Storage for Medium {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn is_remote(&self) -> bool {
        self.is_remote
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let count = bytes.len();
        self.mutate(Operation::Put, count, |storage| async move { storage.put(name, bytes).await }).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let count = bytes.len();
        self.mutate(Operation::PutDurable, count, |storage| async move { storage.put_durable(name, bytes).await }).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.look(Operation::Get, |storage| async move { storage.get(name, range, max_bytes).await }).await
    }

    async fn get_cached(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.look(Operation::Get, |storage| async move { storage.get_cached(name, range, max_bytes).await }).await
    }

    async fn forget(&self, name: Name) -> bool {
        let storage = lock(&self.handle.storage).clone();
        if let Some(storage) = storage { storage.forget(name).await } else { false }
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.look(Operation::Size, |storage| async move { storage.size(name).await }).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.mutate(Operation::Delete, 0, |storage| async move { storage.delete(name).await }).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.look(Operation::List, |storage| async move { storage.list(prefix, after).await }).await
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        self.look(Operation::List, |storage| async move { storage.list_page(prefix, after).await }).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        let bytes = bytes_of(&batch);
        self.mutate(Operation::Apply, bytes, |storage| async move { storage.apply(batch).await }).await
    }

    async fn sync(&self) -> Result<()> {
        self.mutate(Operation::Sync, 0, |storage| async move { storage.sync().await }).await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.mutate(Operation::Persist, 0, |storage| async move { storage.persist(names).await }).await
    }

    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        self.occupancy.clone()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        let held = self.look(Operation::TryExclusive, |storage| async move {
            if self.world.options.locks { storage.try_exclusive().await } else { Ok(None) }
        });
        let Some(held) = held.await? else { return Ok(None) };
        *lock(&self.handle.alone) = Some(held);
        Ok(Some(Box::new(Alone(self.handle.clone()))))
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.look(Operation::Size, |storage| async move {
            match self.left_bytes(&*storage).await? {
                Some(left_bytes) => Ok(Some(left_bytes)),
                None => storage.available_bytes().await,
            }
        })
        .await
    }

    async fn vacate(&self) -> Result<()> {
        self.mutate(Operation::Delete, 0, |storage| async move { storage.vacate().await }).await
    }
}
