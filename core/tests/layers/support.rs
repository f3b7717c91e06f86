//! A small flaky storage, and names.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_conformance::Dice;
use strongroom_core::storage::{
    Capabilities, Change, Effect, Error, ErrorKind, ExclusiveGuard, Name, Occupancy, Operation, Put, Result, Retry,
    Storage,
};
use strongroom_memory::MemoryStorage;

pub(crate) fn name(number: u8) -> Name {
    Name::new([number; 16])
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Fine,
    /// It does nothing and says so.
    Refused(ErrorKind),
    /// It does nothing, and who knows.
    LostRequest,
    /// It does what it should, and who knows.
    LostReply,
    /// Likewise, and its error says that trying again is useless.
    LostReplyForGood,
    /// It never answers, and does nothing.
    Stuck,
}

/// Memory, where calls suffer what was planned for them, else what a seed decides.
#[derive(Debug, Default)]
pub(crate) struct Flaky {
    pub(crate) inner: MemoryStorage,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    planned: VecDeque<Fate>,
    random: Option<(Dice, u64)>,
    calls: Vec<Operation>,
    created: BTreeMap<Name, u64>,
}

impl Flaky {
    /// The next calls suffer these, in order.
    pub(crate) fn planned(fates: impl IntoIterator<Item = Fate>) -> Self {
        let flaky = Self::default();
        flaky.plan(fates);
        flaky
    }

    pub(crate) fn plan(&self, fates: impl IntoIterator<Item = Fate>) {
        self.state.lock().unwrap().planned.extend(fates);
    }

    /// So many calls in a thousand fail, by seed.
    pub(crate) fn random(seed: u64, per_mille: u64) -> Self {
        let flaky = Self::default();
        flaky.fail_at_random(seed, per_mille);
        flaky
    }

    /// From now on so many calls in a thousand fail.
    pub(crate) fn fail_at_random(&self, seed: u64, per_mille: u64) {
        self.state.lock().unwrap().random = Some((Dice::new(seed), per_mille));
    }

    /// The calls since the last look.
    pub(crate) fn take_calls(&self) -> Vec<Operation> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    /// How often a name was created.
    pub(crate) fn created(&self, name: Name) -> u64 {
        self.state.lock().unwrap().created.get(&name).copied().unwrap_or_default()
    }

    fn note(&self, name: Name, put: Put) -> Put {
        if put == Put::Created {
            *self.state.lock().unwrap().created.entry(name).or_default() += 1;
        }
        put
    }

    async fn call<T>(&self, operation: Operation, call: impl Future<Output = Result<T>>) -> Result<T> {
        let mutates = operation.effect_if_lost() == Effect::Unknown;
        let fate = {
            let mut state = self.state.lock().unwrap();
            state.calls.push(operation);
            let State { planned, random, .. } = &mut *state;
            let strikes = random.as_mut().is_some_and(|(dice, chance)| dice.per_mille(*chance));
            match (planned.pop_front(), random) {
                (Some(fate), _) => fate,
                (None, Some((dice, _))) if strikes => match dice.below(3) {
                    0 => Fate::Refused(ErrorKind::Unavailable),
                    _ if !mutates => Fate::Refused(ErrorKind::Busy),
                    1 => Fate::LostRequest,
                    _ => Fate::LostReply,
                },
                _ => Fate::Fine,
            }
        };
        let lost = || Error::new(ErrorKind::Unavailable, operation, "flaky").with_effect(operation.effect_if_lost());
        match fate {
            Fate::Fine => call.await,
            Fate::Refused(kind) => Err(Error::new(kind, operation, "flaky")),
            Fate::LostRequest => Err(lost()),
            Fate::LostReply => {
                call.await?;
                Err(lost())
            }
            Fate::LostReplyForGood => {
                call.await?;
                Err(lost().with_retry(Retry::Useless))
            }
            Fate::Stuck => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Storage for Flaky {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.call(Operation::Put, async { Ok(self.note(name, self.inner.put(name, bytes).await?)) }).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.call(Operation::PutDurable, async { Ok(self.note(name, self.inner.put_durable(name, bytes).await?)) })
            .await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.call(Operation::Get, self.inner.get(name, range, max_bytes)).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.call(Operation::Size, self.inner.size(name)).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.call(Operation::Delete, self.inner.delete(name)).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.call(Operation::List, self.inner.list(prefix, after)).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        let names: Vec<Name> = batch
            .iter()
            .filter_map(|change| match change {
                Change::Put(name, _) => Some(*name),
                Change::Delete(_) => None,
            })
            .collect();
        self.call(Operation::Apply, async {
            let outcomes = self.inner.apply(batch).await?;
            Ok(names.into_iter().zip(outcomes).map(|(name, put)| self.note(name, put)).collect())
        })
        .await
    }

    async fn sync(&self) -> Result<()> {
        self.call(Operation::Sync, self.inner.sync()).await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.call(Operation::Persist, self.inner.persist(names)).await
    }
    fn occupancy(&self) -> Option<std::sync::Arc<strongroom_core::storage::Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.call(Operation::TryExclusive, self.inner.try_exclusive()).await
    }
}

/// A storage as it would be over a network, and what was asked of it.
#[derive(Debug)]
pub(crate) struct Remote {
    inner: Arc<dyn Storage>,
    ranges: Mutex<Vec<Option<Range<u64>>>>,
}

impl Remote {
    pub(crate) fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, ranges: Mutex::default() }
    }

    /// The parts of blobs that were asked for since the last look.
    pub(crate) fn take_ranges(&self) -> Vec<Option<Range<u64>>> {
        std::mem::take(&mut self.ranges.lock().unwrap())
    }
}

#[async_trait]
impl Storage for Remote {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        true
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.inner.put(name, bytes).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.inner.put_durable(name, bytes).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.ranges.lock().unwrap().push(range.clone());
        self.inner.get(name, range, max_bytes).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.inner.size(name).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.inner.delete(name).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.inner.list(prefix, after).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        self.inner.apply(batch).await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.inner.persist(names).await
    }

    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.inner.try_exclusive().await
    }
}
