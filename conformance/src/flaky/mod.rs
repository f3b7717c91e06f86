//! **A storage that fails like a network**, deterministically: a wrapper around any other.
//!
//! Calls fail before their effect or after it, take effect late or twice, answer slowly or not at all; listings are old.
//! What happens is drawn from a seed by [`Rates`], or said call by call. Most of it is what the clauses allow. What they
//! do not allow says so ([`Fault::Duplicate`], [`Fault::StaleList`]): there the engine owes no success, but still no
//! wrong data, and nothing lost that is in storage.
//!
//! ```
//! # use std::sync::Arc;
//! # use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
//! # use strongroom_conformance::flaky::{Fault, FlakyOptions, FlakyStorage};
//! # use strongroom_core::storage::{Effect, Name, Put, Storage as _};
//! # futures_lite::future::block_on(async {
//! let medium = Arc::new(CrashingStorage::new(CrashOptions::default()));
//! let storage = FlakyStorage::new(medium, FlakyOptions::default());
//! let name = Name::new([1; 16]);
//!
//! storage.fail_call(1, Fault::LostReply);
//! let error = storage.put(name, "content".into()).await.unwrap_err();
//! assert_eq!(error.effect(), Effect::Unknown);
//! assert_eq!(storage.put(name, "content".into()).await.unwrap(), Put::Exists); // it had arrived
//! # });
//! ```

mod rates;
mod scheme;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::{
    BatchSupport, Capabilities, Change, Effect, Error, ErrorKind, ExclusiveGuard, Name, Operation, Put, Result, Retry,
    Storage,
};

use crate::crash::Calls;
use world::{Action, World};

pub use rates::{Rate, RateError, Rates};
pub use scheme::{PARAMETERS, SCHEME_PREFIX, open_as_uri_says, register};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this kind and without effect.
    Refused(ErrorKind),
    /// Nothing happened, and the caller cannot know: the effect is unknown.
    LostRequest,
    /// It took effect, and the caller cannot know.
    LostReply,
    /// It takes effect after so many further calls; the caller was told that the effect is unknown.
    Late {
        /// The number of calls between.
        calls: u64,
    },
    /// A put is delivered twice. With no calls between, the answer is that of the second delivery: nobody is answered
    /// `Created` (**breaks S1 and S2**). Otherwise the answer is right, and the second delivery comes after so many
    /// further calls, when the blob may have been deleted (**breaks S6**).
    Duplicate {
        /// The number of calls between.
        calls: u64,
    },
    /// A listing shows the names of so many calls ago (**breaks S5 and S7**).
    StaleList {
        /// How old it is.
        calls: u64,
    },
    /// It waits until so many other calls have begun; where nobody calls, for a bounded number of turns of the executor.
    Slow {
        /// The number of calls to wait for.
        calls: u64,
    },
    /// It arrives after [`FlakyStorage::release`], and waits until then.
    Stuck,
    /// It arrives at once, and is answered after [`FlakyStorage::release`].
    StuckReply,
}

/// What the double is like.
#[derive(Clone, Copy, Debug)]
pub struct FlakyOptions {
    /// Decides which calls suffer.
    pub seed: u64,
    /// How often what happens.
    pub rates: Rates,
    /// The most calls by which a thing that is late is late, at least 1.
    pub calls_max: u64,
}

impl Default for FlakyOptions {
    /// Nothing happens by itself.
    fn default() -> Self {
        Self { seed: 0, rates: Rates::default(), calls_max: 8 }
    }
}

/// A handle on a flaky medium: a wrapper around a handle of another storage.
pub struct FlakyStorage {
    inner: Arc<dyn Storage>,
    world: Arc<World>,
}

impl FlakyStorage {
    /// A flaky handle, with a fate of its own.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, options: FlakyOptions) -> Self {
        Self { inner, world: Arc::new(World::new(options)) }
    }

    /// Wraps another handle on the same medium, of another process for instance: both count calls together.
    #[must_use]
    pub fn over(&self, inner: Arc<dyn Storage>) -> Self {
        Self { inner, world: self.world.clone() }
    }

    /// The `n`-th call from now, of whatever operation, suffers this (1 is the next).
    pub fn fail_call(&self, n: u64, fault: Fault) {
        let mut state = self.world.lock();
        let number = state.calls.all() + n;
        state.at_call.insert(number, fault);
    }

    /// The `n`-th call of one operation from now suffers this (1 is the next).
    pub fn fail_operation(&self, operation: Operation, n: u64, fault: Fault) {
        let mut state = self.world.lock();
        let number = state.calls.of(operation) + n;
        state.at_operation.insert((operation, number), fault);
    }

    /// From now on this happens by itself.
    pub fn set_rates(&self, rates: Rates) {
        self.world.lock().rates = rates;
    }

    /// Nothing happens any more, save what is late already.
    pub fn clear_faults(&self) {
        let mut state = self.world.lock();
        state.rates = Rates::default();
        state.at_call.clear();
        state.at_operation.clear();
    }

    /// Lets go all calls that are stuck now.
    pub fn release(&self) {
        self.world.release();
    }

    /// How many calls are stuck.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.world.lock().stuck
    }

    /// How many changes are still to take effect.
    #[must_use]
    pub fn in_air(&self) -> usize {
        self.world.lock().late.len()
    }

    /// What is late takes effect now.
    pub async fn deliver(&self) {
        let late = std::mem::take(&mut self.world.lock().late);
        for (_, action) in late {
            let _ = self.perform(&action).await;
        }
    }

    /// What is late never takes effect.
    pub fn forget(&self) {
        self.world.lock().late.clear();
    }

    /// How many calls there were, of all handles.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.world.lock().calls.clone()
    }

    /// How many calls suffered something.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.world.lock().faults
    }

    /// Counts the call, delivers what is due, and says what happens to it. What only delays it has happened already.
    async fn begin(&self, operation: Operation) -> Option<Fault> {
        let (fault, due, number) = self.world.begin(operation);
        for action in due {
            let _ = self.perform(&action).await;
        }
        match fault {
            Some(Fault::Slow { calls }) => self.world.others(number + calls, calls).await,
            Some(Fault::Stuck) => self.world.released().await,
            Some(fault) => return Some(fault),
            None => {}
        }
        None
    }

    async fn mutate(&self, operation: Operation, context: String, action: Action) -> Result<Vec<Put>> {
        match self.begin(operation).await {
            Some(Fault::Refused(kind)) => Err(refused(kind, operation, context)),
            Some(Fault::LostRequest) => Err(unknown(operation, context)),
            Some(Fault::LostReply) => {
                self.perform(&action).await?;
                Err(unknown(operation, context))
            }
            Some(Fault::Late { calls }) => {
                self.world.later(calls, action);
                Err(unknown(operation, context))
            }
            Some(Fault::Duplicate { calls }) if matches!(action, Action::Put { .. }) => {
                let answer = self.perform(&action).await?;
                if calls == 0 {
                    return self.perform(&action).await;
                }
                self.world.later(calls, action);
                Ok(answer)
            }
            Some(Fault::StuckReply) => {
                let answer = self.perform(&action).await;
                self.world.released().await;
                answer
            }
            _ => self.perform(&action).await,
        }
    }

    /// What a call that changes nothing can suffer; what is left is for its caller.
    async fn read(&self, operation: Operation, context: &(dyn fmt::Display + Sync)) -> Result<Option<Fault>> {
        let kind = match self.begin(operation).await {
            Some(Fault::Refused(kind)) => kind,
            Some(Fault::LostRequest | Fault::LostReply | Fault::Late { .. }) => ErrorKind::Unavailable,
            fault => return Ok(fault),
        };
        Err(refused(kind, operation, context.to_string()))
    }

    async fn answered<T>(&self, fault: Option<Fault>, answer: Result<T>) -> Result<T> {
        if fault == Some(Fault::StuckReply) {
            self.world.released().await;
        }
        answer
    }

    async fn perform(&self, action: &Action) -> Result<Vec<Put>> {
        match action {
            Action::Put { name, bytes, durable } => {
                let put = match durable {
                    true => self.inner.put_durable(*name, bytes.clone()).await?,
                    false => self.inner.put(*name, bytes.clone()).await?,
                };
                if put == Put::Created {
                    self.world.changed(*name, true);
                }
                Ok(vec![put])
            }
            Action::Delete(name) => {
                // Whether a stale listing may show it.
                let was_there = self.inner.size(*name).await.is_ok();
                self.inner.delete(*name).await?;
                if was_there {
                    self.world.changed(*name, false);
                }
                Ok(Vec::new())
            }
            Action::Apply(batch) => self.inner.apply(batch.clone()).await,
            Action::Sync => self.inner.sync().await.map(|()| Vec::new()),
            Action::Persist(names) => self.inner.persist(names).await.map(|()| Vec::new()),
        }
    }

    /// A page as it was `calls` calls ago.
    async fn stale_page(&self, prefix: &[u8], after: Option<Name>, calls: u64) -> Result<Vec<Name>> {
        let since = self.world.changes_since(calls);
        let mut after = after;
        loop {
            let page = self.inner.list(prefix, after).await?;
            let last = page.last().copied();
            let within = |name: &Name| {
                name.as_bytes().starts_with(prefix)
                    && after.is_none_or(|after| *name > after)
                    && last.is_none_or(|last| *name <= last)
            };
            let gone = since.iter().filter(|(_, was_there)| **was_there).map(|(name, _)| *name).filter(within);
            let mut stale: Vec<Name> = gone.collect();
            stale.extend(page.into_iter().filter(|name| since.get(name) != Some(&false)));
            stale.sort_unstable();
            stale.dedup();
            // An empty page would end the listing.
            if !stale.is_empty() || last.is_none() {
                return Ok(stale);
            }
            after = last;
        }
    }
}

fn refused(kind: ErrorKind, operation: Operation, context: String) -> Error {
    Error::new(kind, operation, context).with_source("the flaky storage wants it so")
}

fn unknown(operation: Operation, context: String) -> Error {
    Error::new(ErrorKind::Unavailable, operation, context)
        .with_effect(Effect::Unknown)
        .with_retry(Retry::CanHelp)
        .with_source("the flaky storage wants it so")
}

fn only(outcomes: Vec<Put>) -> Put {
    outcomes.first().copied().unwrap_or(Put::Exists)
}

impl fmt::Debug for FlakyStorage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FlakyStorage").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Storage for FlakyStorage {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let action = Action::Put { name, bytes, durable: false };
        self.mutate(Operation::Put, name.to_hex(), action).await.map(only)
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let action = Action::Put { name, bytes, durable: true };
        self.mutate(Operation::PutDurable, name.to_hex(), action).await.map(only)
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let fault = self.read(Operation::Get, &name).await?;
        let answer = self.inner.get(name, range, max_bytes).await;
        self.answered(fault, answer).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        let fault = self.read(Operation::Size, &name).await?;
        let answer = self.inner.size(name).await;
        self.answered(fault, answer).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.mutate(Operation::Delete, name.to_hex(), Action::Delete(name)).await.map(drop)
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let fault = self.read(Operation::List, &"names").await?;
        let answer = match fault {
            Some(Fault::StaleList { calls }) => self.stale_page(prefix, after, calls).await,
            _ => self.inner.list(prefix, after).await,
        };
        self.answered(fault, answer).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
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
        self.mutate(Operation::Persist, format!("{} names", names.len()), Action::Persist(names.to_vec()))
            .await
            .map(drop)
    }
    fn occupancy(&self) -> Option<std::sync::Arc<strongroom_core::storage::Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        let fault = self.read(Operation::TryExclusive, &"the medium").await?;
        let answer = self.inner.try_exclusive().await;
        self.answered(fault, answer).await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        let fault = self.read(Operation::Size, &"the medium").await?;
        let answer = self.inner.available_bytes().await;
        self.answered(fault, answer).await
    }

    async fn vacate(&self) -> Result<()> {
        self.inner.vacate().await
    }
}
