//! A correct storage, and around it one that does one thing wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::yield_now;
use strongroom_conformance::crash::CrashingStorage;
use strongroom_core::storage::{
    Capabilities, Change, Effect, Error, ErrorKind, ExclusiveGuard, Name, Operation, Put, Result, Retry, Storage, Torn,
};

use crate::defects::Defect;
use crate::medium::{Crash, Whose, Wrap};

/// The length of a blob whose deletion is forgotten.
const PAGE_BYTES: usize = 4096;

/// From this length on a blob is put in halves.
const LARGE_BYTES: usize = 150 * 1024;

/// So many looks are one at least that began after the first half was there, whoever else looks.
const LOOKS: u64 = 8;

/// So often others are let go first, and then it is clear that nobody looks.
const TURNS_MAX: u64 = 50_000;

/// So many polls opening takes where it is slow.
const SLOW_POLLS: u32 = 100;

/// How many blobs a barrier covers that counts them.
const COVERED_MAX: usize = 16;

/// From this length on a durable put is a plain one.
const LONG_BYTES: usize = 8192;

/// How often others are let go first between looking and putting.
const MOMENT_TURNS: u64 = 4;

/// What all handles of one place share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// What was deleted at some time.
    deleted: Mutex<BTreeSet<Name>>,
    /// Which handle put it, of those opened so far.
    putters: Mutex<BTreeMap<Name, u64>>,
    handles: Mutex<u64>,
    /// A put was dropped.
    is_stuck: AtomicBool,
    /// How often a blob was read.
    looks: AtomicU64,
    /// The threads that have a call open.
    busy: Mutex<BTreeSet<String>>,
    /// What each process put.
    put_by: [Mutex<BTreeSet<Name>>; 2],
    /// Of the handles that are open, those of each process.
    open: [AtomicU64; 2],
    /// Of ours, those that did not have to wait for a guard.
    open_at_once: AtomicU64,
    /// A guard lives.
    is_held: AtomicBool,
    /// How often exclusive access was given.
    guards: AtomicU64,
    /// The handles that count as open, where not all do.
    present: Mutex<BTreeSet<u64>>,
    /// What was changed since the last barrier, in order, with the handle that did it.
    unsynced: Mutex<Vec<(Name, u64)>>,
    /// What batches put.
    put_in_batches: Mutex<BTreeSet<Name>>,
    /// What was put by handles that are open, with the handle.
    open_putters: Mutex<BTreeMap<Name, u64>>,
    /// What was put and made durable at some time.
    durable_once: Mutex<BTreeSet<Name>>,
    /// The last handle that was opened before a process died.
    last_before_a_death: AtomicU64,
    /// A crash left something torn.
    is_torn: AtomicBool,
    /// What was put since.
    behind: Mutex<BTreeSet<Name>>,
}

impl Shared {
    fn opened(&self) -> u64 {
        self.open.iter().map(|handles| handles.load(Ordering::SeqCst)).sum()
    }
}

/// Opens handles that do one thing wrong.
pub(crate) struct Breaking {
    defect: Defect,
    shared: Arc<Shared>,
}

impl Breaking {
    pub(crate) fn new(defect: Defect) -> Self {
        Self { defect, shared: Arc::default() }
    }
}

#[async_trait]
impl Wrap for Breaking {
    async fn open(&self, mut double: CrashingStorage, whose: Whose) -> Result<Arc<dyn Storage>> {
        if self.defect == Defect::SyncByHandle && whose == Whose::Ours {
            double = double.reopen();
        }
        if self.defect == Defect::SlowNewcomersDoNotWait {
            for _ in 0..SLOW_POLLS {
                yield_now().await;
            }
        }
        let waits = self.shared.is_held.load(Ordering::SeqCst);
        let double = double.admitted().await?;
        if self.shared.opened() == 0 {
            for name in std::mem::take(&mut *self.shared.behind.lock().unwrap()) {
                double.remove(name);
            }
        }
        Ok(Arc::new(Broken::new(double, self.defect, self.shared.clone(), whose, waits)))
    }

    fn crashes(&self, double: &CrashingStorage, crash: Crash) {
        let leaves_its_tail = match (self.defect, crash) {
            (Defect::AppendsBehindATornTail, Crash::OfThePower) => double.unsynced() > 0,
            (Defect::AppendsBehindTheDead, Crash::OfAProcess) => true,
            _ => false,
        };
        if crash == Crash::OfAProcess {
            let last = *self.shared.handles.lock().unwrap();
            self.shared.last_before_a_death.store(last, Ordering::SeqCst);
        } else {
            self.shared.last_before_a_death.store(0, Ordering::SeqCst);
            self.shared.unsynced.lock().unwrap().clear();
        }
        if leaves_its_tail {
            self.shared.is_torn.store(true, Ordering::SeqCst);
        }
    }

    fn patience(&self) -> Duration {
        // For what never comes the test need not wait long: that a guard that was given is given up.
        let is_in_vain = self.defect == Defect::NeverGivesUp && self.shared.guards.load(Ordering::SeqCst) > 0;
        Duration::from_secs(if is_in_vain { 1 } else { 60 })
    }
}

/// A handle that does one thing wrong.
#[derive(Debug)]
pub(crate) struct Broken {
    inner: CrashingStorage,
    defect: Defect,
    shared: Arc<Shared>,
    number: u64,
    whose: Whose,
    waited: bool,
    own: Mutex<BTreeSet<Name>>,
    lengths: Mutex<BTreeMap<Name, u64>>,
    deleted_last: Mutex<Option<(Name, Bytes)>>,
}

impl Broken {
    fn new(inner: CrashingStorage, defect: Defect, shared: Arc<Shared>, whose: Whose, waited: bool) -> Self {
        shared.open[whose as usize].fetch_add(1, Ordering::SeqCst);
        shared.open_at_once.fetch_add(u64::from(!waited), Ordering::SeqCst);
        let number = {
            let mut handles = shared.handles.lock().unwrap();
            *handles += 1;
            *handles
        };
        shared.present.lock().unwrap().insert(number);
        let (own, lengths, deleted_last) = Default::default();
        Self { inner, defect, shared, number, whose, waited, own, lengths, deleted_last }
    }

    fn is(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    /// Takes a change for one that the next barrier is to cover.
    fn note(&self, name: Name) {
        self.shared.unsynced.lock().unwrap().push((name, self.number));
        self.shared.put_by[self.whose as usize].lock().unwrap().insert(name);
        self.shared.open_putters.lock().unwrap().insert(name, self.number);
        if self.is(Defect::BatchesByHandle) {
            self.own.lock().unwrap().insert(name);
        }
        if self.is(Defect::SurvivorsAppendBehindTheDead)
            && self.number < self.shared.last_before_a_death.load(Ordering::SeqCst)
        {
            self.shared.behind.lock().unwrap().insert(name);
        }
    }

    fn forgets_at_a_sync(&self) -> bool {
        use Defect::{DurableOnceIsDurable, SyncCoversSixteen, SyncCoversTheOlder, SyncForgetsBatches};
        matches!(self.defect, SyncCoversTheOlder | SyncCoversSixteen | DurableOnceIsDurable | SyncForgetsBatches)
    }

    /// Whether a barrier covers this, where it does not cover all: the place among what it is to cover, and the handle that
    /// put it.
    fn covers(&self, place: usize, name: Name, handle: u64) -> bool {
        match self.defect {
            Defect::SyncCoversTheOlder => handle <= self.number,
            Defect::SyncCoversSixteen => place < COVERED_MAX,
            Defect::DurableOnceIsDurable => !self.shared.durable_once.lock().unwrap().contains(&name),
            Defect::SyncForgetsBatches => !self.shared.put_in_batches.lock().unwrap().contains(&name),
            Defect::PersistByProcess => self.shared.put_by[self.whose as usize].lock().unwrap().contains(&name),
            Defect::PersistForgetsTheClosed => self.shared.open_putters.lock().unwrap().contains_key(&name),
            _ => true,
        }
    }

    /// Makes durable what is there of these: again, where somebody deleted one of them meanwhile.
    async fn cover(&self, names: impl IntoIterator<Item = Name>) -> Result<()> {
        let mut names: Vec<Name> = names.into_iter().collect();
        loop {
            names.retain(|name| self.must_be_there(Operation::Persist, *name).is_ok());
            match self.inner.persist(&names).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                outcome => return outcome,
            }
        }
    }

    async fn put_as(&self, operation: Operation, name: Name, bytes: Bytes) -> Result<Put> {
        let is_durable = operation == Operation::PutDurable;
        let max_bytes = self.inner.capabilities().block_bytes_max as usize;
        let straight = async |bytes: Bytes| match operation {
            Operation::PutDurable
                if bytes.len() > max_bytes
                    || match self.defect {
                        Defect::PutDurableLies => false,
                        Defect::LongPutsArePlain => bytes.len() < LONG_BYTES,
                        Defect::DurableOnceIsDurable => !self.shared.durable_once.lock().unwrap().contains(&name),
                        _ => true,
                    } =>
            {
                self.inner.put_durable(name, bytes).await
            }
            _ => self.inner.put(name, bytes).await,
        };
        let refused = |kind| Err(Error::new(kind, operation, name.to_hex()));
        match self.defect {
            Defect::ReplacesWhatIsThere => {
                let outcome = straight(bytes.clone()).await?;
                if outcome == Put::Exists {
                    self.inner.overwrite(name, bytes);
                }
                Ok(outcome)
            }
            Defect::CallsTakenCreated => straight(bytes).await.map(|_| Put::Created),
            Defect::ReplacesOtherLengths if is_durable => {
                let outcome = straight(bytes.clone()).await?;
                if outcome == Put::Exists && self.inner.size(name).await? != bytes.len() as u64 {
                    self.inner.overwrite(name, bytes);
                }
                Ok(outcome)
            }
            Defect::PutIfAbsentByHandle => {
                let outcome = straight(bytes.clone()).await?;
                let is_first_here = self.own.lock().unwrap().insert(name);
                if outcome == Put::Exists && is_first_here {
                    self.inner.overwrite(name, bytes);
                    return Ok(Put::Created);
                }
                Ok(outcome)
            }
            Defect::PutIfAbsentByProcess => {
                let outcome = straight(bytes.clone()).await?;
                let is_first_here = self.shared.put_by[self.whose as usize].lock().unwrap().insert(name);
                if outcome == Put::Exists && is_first_here {
                    self.inner.overwrite(name, bytes);
                    return Ok(Put::Created);
                }
                Ok(outcome)
            }
            Defect::LooksThenPuts => {
                if self.must_be_there(operation, name).is_ok() {
                    return Ok(Put::Exists);
                }
                // A moment, in which those go on who were at the same point.
                (0..MOMENT_TURNS).for_each(|_| thread::yield_now());
                if straight(bytes.clone()).await? == Put::Exists {
                    self.inner.overwrite(name, bytes);
                }
                Ok(Put::Created)
            }
            Defect::AppendsBehindATornTail | Defect::AppendsBehindTheDead => {
                let outcome = straight(bytes).await?;
                if outcome == Put::Created && self.shared.is_torn.load(Ordering::SeqCst) {
                    self.shared.behind.lock().unwrap().insert(name);
                }
                Ok(outcome)
            }
            Defect::NamesStayTaken if self.shared.deleted.lock().unwrap().contains(&name) => Ok(Put::Exists),
            Defect::ListsFromBefore => {
                self.shared.putters.lock().unwrap().insert(name, self.number);
                straight(bytes).await
            }
            Defect::VisibleInHalves | Defect::DroppedInHalves if bytes.len() <= max_bytes => {
                let half = bytes.slice(..bytes.len() / 2);
                let outcome = straight(half).await?;
                if outcome == Put::Created {
                    yield_now().await;
                    if self.is(Defect::VisibleInHalves) {
                        // A step of its own, before which the process may die.
                        self.inner.persist(&[]).await?;
                    }
                    self.inner.overwrite(name, bytes);
                }
                Ok(outcome)
            }
            Defect::DurableInHalves if is_durable && bytes.len() <= max_bytes => {
                let outcome = straight(bytes.slice(..bytes.len() / 2)).await?;
                if outcome == Put::Created {
                    yield_now().await;
                    self.inner.overwrite(name, bytes);
                }
                Ok(outcome)
            }
            Defect::SeenInHalves if !is_durable && (LARGE_BYTES..=max_bytes).contains(&bytes.len()) => {
                let outcome = straight(bytes.slice(..bytes.len() / 2)).await?;
                if outcome == Put::Created {
                    // Until somebody has looked, if anybody is there who does.
                    let looks = self.shared.looks.load(Ordering::SeqCst);
                    for _ in 0..TURNS_MAX {
                        if self.shared.looks.load(Ordering::SeqCst) >= looks + LOOKS {
                            break;
                        }
                        thread::yield_now();
                    }
                    self.inner.overwrite(name, bytes);
                }
                Ok(outcome)
            }
            Defect::BreaksOnTheFarTooLarge if bytes.len() > 2 * max_bytes => {
                refused(ErrorKind::Unavailable).map_err(|error| error.with_effect(Effect::Unknown))
            }
            Defect::ClaimsNoEffect if is_durable => straight(bytes).await,
            Defect::ClaimsNoDurableEffect if is_durable => {
                straight(bytes).await.map_err(|error| error.with_effect(Effect::None))
            }
            Defect::ClaimsNoEffect => straight(bytes).await.map_err(|error| error.with_effect(Effect::None)),
            Defect::RefusesAndStores if bytes.len() > max_bytes => {
                straight(bytes.slice(..max_bytes)).await?;
                refused(ErrorKind::LimitExceeded)
            }
            Defect::BusyAfterADrop => {
                if self.shared.is_stuck.load(Ordering::SeqCst) {
                    return refused(ErrorKind::Busy);
                }
                let mut sticking = Sticking { shared: &self.shared, is_over: false };
                let outcome = straight(bytes).await;
                sticking.is_over = true;
                outcome
            }
            Defect::RefusesTheEmpty if bytes.is_empty() => refused(ErrorKind::Invalid),
            Defect::RefusesTheLargest if bytes.len() == max_bytes => refused(ErrorKind::LimitExceeded),
            Defect::RefusesPaths if name.as_bytes().contains(&b'/') && name.as_bytes().starts_with(b"..") => {
                refused(ErrorKind::Invalid)
            }
            Defect::OneCallAThread => {
                let Some(_call) = Call::begin(&self.shared) else { return refused(ErrorKind::Busy) };
                straight(bytes).await
            }
            _ => straight(bytes).await,
        }
    }

    /// Looks without a call, which would be one that can fail by itself.
    fn must_be_there(&self, operation: Operation, name: Name) -> Result<()> {
        match self.inner.snapshot_blobs().contains_key(&name) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::NotFound, operation, name.to_hex())),
        }
    }

    /// What errors say, where that is what is wrong.
    fn tell<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| match self.defect {
            Defect::NoContext => Error::new(error.kind(), error.operation(), ""),
            Defect::RetriesInVain => error.with_retry(Retry::CanHelp),
            Defect::GivesUpLostReplies => error.with_retry(Retry::Useless),
            Defect::ClaimsNoDeletion if error.operation() == Operation::Delete => error.with_effect(Effect::None),
            Defect::ClaimsNoBarrier if matches!(error.operation(), Operation::Sync | Operation::Persist) => {
                error.with_effect(Effect::None)
            }
            _ => error,
        })
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        self.shared.open[self.whose as usize].fetch_sub(1, Ordering::SeqCst);
        self.shared.open_at_once.fetch_sub(u64::from(!self.waited), Ordering::SeqCst);
        self.shared.open_putters.lock().unwrap().retain(|_, handle| *handle != self.number);
        let mut present = self.shared.present.lock().unwrap();
        if self.is(Defect::ClosingForgetsOthers) {
            present.clear();
        }
        present.remove(&self.number);
    }
}

/// A put that is under way.
struct Sticking<'a> {
    shared: &'a Shared,
    is_over: bool,
}

impl Drop for Sticking<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.is_stuck.store(true, Ordering::SeqCst);
        }
    }
}

/// The only call of a thread.
struct Call<'a>(&'a Shared, ThreadId);

impl<'a> Call<'a> {
    fn begin(shared: &'a Shared) -> Option<Self> {
        let thread = thread::current().id();
        let is_free = shared.busy.lock().unwrap().insert(format!("{thread:?}"));
        is_free.then(|| Self(shared, thread))
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.busy.lock().unwrap().remove(&format!("{:?}", self.1));
    }
}

struct NotAlone;
impl ExclusiveGuard for NotAlone {}

/// A guard that others know of.
struct Held {
    guard: Option<Box<dyn ExclusiveGuard>>,
    defect: Defect,
    shared: Arc<Shared>,
}

impl ExclusiveGuard for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        if self.defect == Defect::NeverGivesUp {
            std::mem::forget(self.guard.take());
        }
        self.shared.is_held.store(false, Ordering::SeqCst);
    }
}

#[async_trait]
impl Storage for Broken {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        match self.defect {
            Defect::TornAllTheSame | Defect::TornAtTheEndOfALog => capabilities.torn = Torn::Never,
            // What is under it takes more.
            Defect::StoresTheTooLarge => capabilities.block_bytes_max /= 2,
            _ => {}
        }
        capabilities
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let outcome = self.tell(self.put_as(Operation::Put, name, bytes).await);
        if matches!(outcome, Ok(Put::Created)) {
            self.note(name);
        }
        outcome
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let outcome = self.tell(self.put_as(Operation::PutDurable, name, bytes).await);
        if matches!(outcome, Ok(Put::Created)) {
            self.note(name);
            self.shared.durable_once.lock().unwrap().insert(name);
        }
        outcome
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let found = match (self.defect, range) {
            (Defect::WrongBytesInTheMiddle, Some(range)) if range.start > 0 && range.end > range.start => {
                let mut bytes = self.inner.get(name, Some(range), max_bytes).await?.to_vec();
                bytes[0] ^= 1;
                Ok(bytes.into())
            }
            (Defect::RangePastTheEnd, Some(range)) if range.start <= range.end => {
                let length = self.inner.size(name).await.unwrap_or(0);
                let clipped = range.start.min(length)..range.end.min(length);
                self.inner.get(name, Some(clipped), max_bytes).await
            }
            (Defect::RepliesOverTheMaximum, range) => self.inner.get(name, range, u64::MAX).await,
            (Defect::RefusesTheEmptyRange, Some(range))
                if range.is_empty() && Some(range.start) == self.inner.size(name).await.ok() =>
            {
                Err(Error::new(ErrorKind::RangeInvalid, Operation::Get, name.to_hex()))
            }
            (Defect::NothingOfNothing, Some(Range { start: 0, end: 0 })) => Ok(Bytes::new()),
            (_, range) => self.inner.get(name, range, max_bytes).await,
        };
        self.tell(found)
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.shared.looks.fetch_add(1, Ordering::SeqCst);
        let remembered = self.lengths.lock().unwrap().get(&name).copied();
        let found = match (self.defect, remembered) {
            (Defect::RemembersLengths, Some(length)) => Ok(length),
            (Defect::AbsentHasSizeZero, _) => Ok(self.inner.size(name).await.unwrap_or(0)),
            _ => self.inner.size(name).await,
        };
        if let Ok(length) = found {
            self.lengths.lock().unwrap().insert(name, length);
        }
        self.tell(found)
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.lengths.lock().unwrap().remove(&name);
        if self.is(Defect::BatchesByHandle) {
            self.own.lock().unwrap().remove(&name);
        }
        if self.is(Defect::RefusesToDeleteTheAbsent) {
            self.must_be_there(Operation::Delete, name)?;
        }
        if self.is(Defect::SyncForgetsDeletions)
            && let Some(bytes) = self.inner.snapshot_blobs().remove(&name)
            && bytes.len() == PAGE_BYTES
        {
            *self.deleted_last.lock().unwrap() = Some((name, bytes));
        }
        if self.is(Defect::NamesStayTaken) && self.must_be_there(Operation::Delete, name).is_ok() {
            self.shared.deleted.lock().unwrap().insert(name);
        }
        self.tell(self.inner.delete(name).await)
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let prefix = if self.is(Defect::IgnoresThePrefix) { &[] } else { prefix };
        let mut page = self.tell(self.inner.list(prefix, after).await)?;
        match (self.defect, after) {
            (Defect::ListsTwice, Some(after)) => page.insert(0, after),
            (Defect::ListsTooLittle, Some(_)) if !page.is_empty() => drop(page.remove(0)),
            (Defect::ListsBackwards, _) => page.reverse(),
            (Defect::ListsFromBefore, _) => {
                let putters = self.shared.putters.lock().unwrap();
                let opened_later = |putter: &u64| *putter > self.number;
                page.retain(|name| !putters.get(name).is_some_and(opened_later));
            }
            _ => {}
        }
        Ok(page)
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        for change in &batch {
            if let Change::Put(name, _) = change
                && !self.is(Defect::BatchesByHandle)
            {
                self.note(*name);
                self.shared.put_in_batches.lock().unwrap().insert(*name);
            }
        }
        let too_long = |change: &Change| match change {
            Change::Put(_, bytes) => bytes.len() > self.capabilities().block_bytes_max as usize,
            Change::Delete(_) => false,
        };
        if self.is(Defect::StoresTheTooLarge) {
            return self.inner.apply(batch).await;
        }
        if batch.iter().any(too_long) && !self.is(Defect::HalfOfWhatFails) {
            return self.tell(self.inner.apply(batch).await);
        }
        match self.defect {
            Defect::DeletesFirst => {
                let (deletes, puts) = batch.into_iter().partition(|change| matches!(change, Change::Delete(_)));
                self.inner.apply(deletes).await?;
                self.inner.apply(puts).await
            }
            Defect::OutcomesOfDeletions => {
                let mut outcomes = Vec::new();
                for change in batch {
                    outcomes.push(self.inner.apply(vec![change]).await?.first().copied().unwrap_or(Put::Exists));
                }
                Ok(outcomes)
            }
            Defect::HalfOfWhatFails | Defect::HalfOfWhatCrashes => {
                let mut outcomes = Vec::new();
                for change in batch {
                    outcomes.extend(self.inner.apply(vec![change]).await?);
                }
                Ok(outcomes)
            }
            Defect::BatchesByHandle => {
                let mut outcomes = Vec::new();
                for change in batch {
                    let Change::Put(name, bytes) = change else {
                        if let Change::Delete(name) = &change {
                            self.own.lock().unwrap().remove(name);
                        }
                        self.inner.apply(vec![change]).await?;
                        continue;
                    };
                    let is_first_here = self.own.lock().unwrap().insert(name);
                    let mut outcome = self.inner.put(name, bytes.clone()).await?;
                    if outcome == Put::Exists && is_first_here {
                        self.inner.overwrite(name, bytes);
                        outcome = Put::Created;
                    }
                    outcomes.push(outcome);
                }
                Ok(outcomes)
            }
            _ => self.tell(self.inner.apply(batch).await),
        }
    }

    async fn sync(&self) -> Result<()> {
        let last = self.deleted_last.lock().unwrap().take();
        match (self.defect, last) {
            (Defect::SyncLies | Defect::SyncLiesInALog, _) => Ok(()),
            (Defect::SyncForgetsDeletions, Some((name, bytes))) => {
                // As if it were deleted only afterwards.
                self.inner.put(name, bytes).await?;
                self.inner.sync().await?;
                self.inner.delete(name).await
            }
            _ if self.forgets_at_a_sync() => {
                let unsynced = std::mem::take(&mut *self.shared.unsynced.lock().unwrap());
                let all = unsynced.len();
                let covered = (0..).zip(unsynced).filter(|(place, (name, handle))| self.covers(*place, *name, *handle));
                let covered: Vec<Name> = covered.map(|(_, (name, _))| name).collect();
                match covered.len() == all {
                    true => self.inner.sync().await,
                    false => self.cover(covered).await,
                }
            }
            _ => self.tell(self.inner.sync().await),
        }
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        let outcome = match self.defect {
            Defect::PersistLies | Defect::PersistLiesInALog => {
                for name in names {
                    self.must_be_there(Operation::Persist, *name)?;
                }
                Ok(())
            }
            Defect::PersistsTheAbsent => {
                let mut present = Vec::new();
                for name in names {
                    if self.inner.size(*name).await.is_ok() {
                        present.push(*name);
                    }
                }
                self.inner.persist(&present).await
            }
            Defect::PersistByProcess | Defect::PersistForgetsTheClosed | Defect::DurableOnceIsDurable => {
                for name in names {
                    self.must_be_there(Operation::Persist, *name)?;
                }
                self.cover(names.iter().copied().filter(|name| self.covers(0, *name, 0))).await
            }
            _ => self.inner.persist(names).await,
        };
        self.tell(outcome)
    }
    fn occupancy(&self) -> Option<std::sync::Arc<strongroom_core::storage::Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        if self.is(Defect::EveryoneIsAlone) {
            return Ok(Some(Box::new(NotAlone)));
        }
        if self.shared.is_held.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let given = self.inner.try_exclusive().await?;
        let is_alone = given.is_some()
            || match self.defect {
                Defect::NewcomersDoNotCount => self.shared.open_at_once.load(Ordering::SeqCst) == 1,
                Defect::ClosingForgetsOthers => {
                    let mut present = self.shared.present.lock().unwrap();
                    let is_alone = present.iter().all(|handle| *handle == self.number);
                    // Trying is what makes it count again.
                    present.insert(self.number);
                    is_alone
                }
                Defect::AloneInItsProcess => self.shared.open[self.whose as usize].load(Ordering::SeqCst) == 1,
                _ => false,
            };
        if !is_alone {
            return Ok(None);
        }
        // Given back at once, it keeps nobody waiting.
        let guards = self.shared.guards.fetch_add(1, Ordering::SeqCst);
        let guard = given.filter(|_| match self.defect {
            Defect::NewcomersDoNotWait | Defect::SlowNewcomersDoNotWait => false,
            Defect::NewcomersWaitOnce => guards == 0,
            _ => true,
        });
        self.shared.is_held.store(true, Ordering::SeqCst);
        Ok(Some(Box::new(Held { guard, defect: self.defect, shared: self.shared.clone() })))
    }
}
