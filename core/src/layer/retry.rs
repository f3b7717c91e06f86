use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::env::{Env, nanos};
use crate::storage::{
    BatchSupport, Capabilities, Change, Effect, Error, ErrorKind, ExclusiveGuard, Name, Operation, Put, Result,
    Retry as Advice, Storage,
};

/// How often and how long a call is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often at most, the first time included.
    pub attempts_max: u32,
    /// How long to wait before the second try; each further wait is twice as long, give or take a quarter.
    pub delay_first: Duration,
    /// The longest wait.
    pub delay_max: Duration,
    /// After so long no further try begins.
    pub total_max: Duration,
}

impl Default for RetryPolicy {
    /// Eight tries, 100 ms to 10 s apart; within six minutes, so that one that was given up after five is not the last.
    fn default() -> Self {
        Self {
            attempts_max: 8,
            delay_first: Duration::from_millis(100),
            delay_max: Duration::from_secs(10),
            total_max: Duration::from_secs(360),
        }
    }
}

/// Tries again what can succeed later, and settles what nobody knows the effect of.
///
/// * What only looks, and what was refused without effect, is tried again where [`Error::retry`] says that it can help.
/// * **A plain put of unknown effect** is sent again. If the name is taken then, what is there is read back: equal bytes
///   are ours (every block holds a random salt, so nobody else's are equal), and the answer is `Created`, as it would have
///   been; other bytes are another's, and the answer is `Exists`.
/// * **A durable put of unknown effect** is read back, and not sent again. Equal bytes are made durable and are `Created`,
///   other bytes are `Exists`; where there is nothing, the error stays, its effect unknown. For the blob may have been there
///   and been deleted since, as commits are: put anew, it would show a state that others have left behind. Whoever knows
///   what the blob means can tell, and puts it again: over a network the engine does so with commits, hints and ballast, for half
///   a minute. Headers, and the commits of a clone, it leaves to who changes keys or clones again.
/// * **A delete** is repeated: the second one finds nothing to do.
/// * **A barrier** (`sync`, `persist`) of unknown effect is not: what the medium failed to write once, it may have dropped,
///   and a second barrier would answer that all is well.
/// * **A batch** is repeated change by change, or as a whole where batches are atomic; its puts are settled as above. One
///   that names a blob twice is not repeated where its effect is unknown.
#[derive(Clone, Debug)]
pub struct Retry {
    inner: Arc<dyn Storage>,
    env: Env,
    policy: RetryPolicy,
}

impl Retry {
    /// The storage, tried as the policy says.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, env: Env, policy: RetryPolicy) -> Self {
        Self { inner, env, policy }
    }

    fn attempts(&self) -> Attempts<'_> {
        Attempts::new(&self.env, self.policy)
    }

    /// For calls that may be repeated as they are where `may` says so.
    async fn repeat<T, F: Future<Output = Result<T>>>(
        &self,
        may: fn(&Error) -> bool,
        mut call: impl FnMut() -> F,
    ) -> Result<T> {
        let mut attempts = self.attempts();
        let mut unknown = false;
        loop {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    unknown |= error.effect() == Effect::Unknown;
                    if !may(&error) || !attempts.another(&error).await {
                        return Err(with_effect(error, unknown));
                    }
                }
            }
        }
    }
}

/// For how long a durable put of unknown effect is put again, over a network, by those who know what it means: a server that throttles
/// does so for some seconds. A good dozen tries, 100 ms to 5 s apart, within half a minute.
const AMBIGUOUS: RetryPolicy = RetryPolicy {
    attempts_max: 16,
    delay_first: Duration::from_millis(100),
    delay_max: Duration::from_secs(5),
    total_max: Duration::from_secs(30),
};

/// Puts a blob under a name that is this call's own, drawn for it: put anew though it was there and was deleted, it misleads nobody.
/// So one of unknown effect is put again, which [`Retry`] must not do. Then `Exists` is what an earlier try put, and it is made durable;
/// and a later try that is refused says nothing of an earlier one: the effect stays unknown.
///
/// # Errors
/// What the storage raises; `NotFound` of a `persist` where somebody has deleted it since it was there.
pub(crate) async fn put_own_durable(storage: &dyn Storage, env: &Env, name: Name, bytes: Bytes) -> Result<Put> {
    let mut attempts = Attempts::at_ambiguous(env, storage);
    let mut unknown = false;
    loop {
        match storage.put_durable(name, bytes.clone()).await {
            Err(error) if error.effect() == Effect::Unknown => {
                unknown = true;
                if !attempts.another(&error).await {
                    return Err(error);
                }
            }
            Ok(Put::Exists) if unknown => {
                let persisted = storage.persist(&[name]).await;
                return persisted.map(|()| Put::Exists).map_err(|error| with_effect(error, unknown));
            }
            answer => return answer.map_err(|error| with_effect(error, unknown)),
        }
    }
}

/// The tries of one call.
pub(crate) struct Attempts<'a> {
    env: &'a Env,
    policy: RetryPolicy,
    begun: u64,
    made: u32,
}

impl<'a> Attempts<'a> {
    fn new(env: &'a Env, policy: RetryPolicy) -> Self {
        Self { env, policy, begun: env.monotonic_nanos(), made: 1 }
    }

    /// Of a durable put of unknown effect, by who knows what the blob means. A medium that is near says what it means: there is
    /// none.
    pub(crate) fn at_ambiguous(env: &'a Env, storage: &dyn Storage) -> Self {
        let attempts_max = if storage.is_remote() { AMBIGUOUS.attempts_max } else { 1 };
        Self::new(env, RetryPolicy { attempts_max, ..AMBIGUOUS })
    }

    /// Waits for the next try; `false` where there is none any more, or none helps.
    pub(crate) async fn another(&mut self, error: &Error) -> bool {
        let (policy, env) = (&self.policy, self.env);
        if error.retry() != Advice::CanHelp || self.made >= policy.attempts_max {
            return false;
        }
        let delay = self.delay();
        let spent = env.monotonic_nanos().saturating_sub(self.begun);
        if spent.saturating_add(nanos(delay)) > nanos(policy.total_max) {
            return false;
        }
        tracing::debug!(%error, attempt = self.made, ?delay, "storage is tried again");
        env.sleep(delay).await;
        self.made = self.made.saturating_add(1);
        true
    }

    fn delay(&self) -> Duration {
        let policy = &self.policy;
        let doubled = 1_u32.checked_shl(self.made - 1).unwrap_or(u32::MAX);
        let full = policy.delay_first.saturating_mul(doubled).min(policy.delay_max);
        // Spread, so that those whom one outage stopped do not all come back at once. Without randomness, unspread.
        let spread = self.env.random::<2>().map_or(0x8000, u16::from_le_bytes);
        // In integers: a policy may state any duration, and none of them is a reason to panic.
        let full = u128::from(nanos(full));
        let delay = full * 3 / 4 + full / 2 * u128::from(spread) / u128::from(u16::MAX);
        Duration::from_nanos(u64::try_from(delay).unwrap_or(u64::MAX)).min(policy.delay_max)
    }
}

/// What is found under the name of a put of which nobody knows the effect.
enum Found {
    Ours,
    Others,
    Nothing,
}

impl Found {
    /// The outcome of the put, where there is one.
    fn outcome(&self) -> Option<Put> {
        match self {
            Self::Ours => Some(Put::Created),
            Self::Others => Some(Put::Exists),
            Self::Nothing => None,
        }
    }
}

impl Retry {
    async fn read_back(&self, name: Name, bytes: &Bytes) -> Result<Found> {
        match self.inner.get(name, None, bytes.len() as u64).await {
            Ok(found) if found == *bytes => Ok(Found::Ours),
            Ok(_) => Ok(Found::Others),
            Err(error) => match error.kind() {
                ErrorKind::LimitExceeded => Ok(Found::Others),
                ErrorKind::NotFound => Ok(Found::Nothing),
                _ => Err(error),
            },
        }
    }

    /// Puts; `sent` says whether an earlier try may have taken effect.
    async fn put_again(&self, name: Name, bytes: Bytes, mut sent: bool) -> Result<Put> {
        let mut attempts = self.attempts();
        loop {
            let error = match self.inner.put(name, bytes.clone()).await {
                Ok(Put::Exists) if sent => match self.read_back(name, &bytes).await {
                    Ok(found) => match found.outcome() {
                        Some(put) => return Ok(put),
                        // Whatever was there has been deleted since.
                        None => Error::new(ErrorKind::Unavailable, Operation::Put, name.to_hex())
                            .with_source("the name is taken and free in turns"),
                    },
                    Err(error) => error,
                },
                Ok(put) => return Ok(put),
                Err(error) => error,
            };
            sent |= error.effect() == Effect::Unknown;
            if !attempts.another(&error).await {
                return Err(with_effect(error, sent));
            }
        }
    }

    /// Whether a durable put of unknown effect took effect: if so, it is durable now.
    async fn settle_durable(&self, name: Name, bytes: &Bytes, attempts: &mut Attempts<'_>) -> Result<Option<Put>> {
        loop {
            let error = match self.read_back(name, bytes).await {
                Ok(Found::Ours) => match self.persist(&[name]).await {
                    Ok(()) => return Ok(Some(Put::Created)),
                    // Deleted meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                },
                Ok(found) => return Ok(found.outcome()),
                Err(error) => error,
            };
            if !attempts.another(&error).await {
                return Err(error);
            }
        }
    }

    /// A batch of which an unknown part has taken effect.
    async fn apply_again(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for change in batch {
            match change {
                Change::Put(name, bytes) => outcomes.push(self.put_again(name, bytes, true).await?),
                Change::Delete(name) => self.delete(name).await?,
            }
        }
        Ok(outcomes)
    }
}

fn with_effect(error: Error, unknown: bool) -> Error {
    if unknown { error.with_effect(Effect::Unknown) } else { error }
}

fn always(_: &Error) -> bool {
    true
}

fn refused(error: &Error) -> bool {
    error.effect() == Effect::None
}

/// Whether no blob is named twice: only then the order of the changes does not matter.
fn names_differ(batch: &[Change]) -> bool {
    let mut names = BTreeSet::new();
    batch.iter().all(|change| match change {
        Change::Put(name, _) | Change::Delete(name) => names.insert(*name),
    })
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Storage for Retry {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.put_again(name, bytes, false).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let mut attempts = self.attempts();
        loop {
            let error = match self.inner.put_durable(name, bytes.clone()).await {
                Ok(put) => return Ok(put),
                Err(error) => error,
            };
            if error.effect() == Effect::Unknown {
                return match self.settle_durable(name, &bytes, &mut attempts).await {
                    Ok(Some(put)) => Ok(put),
                    // Reading said more of nothing: the first error is the one that counts.
                    Ok(None) | Err(_) => Err(error),
                };
            }
            if !attempts.another(&error).await {
                return Err(error);
            }
        }
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.repeat(always, || self.inner.get(name, range.clone(), max_bytes)).await
    }

    async fn get_cached(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.repeat(always, || self.inner.get_cached(name, range.clone(), max_bytes)).await
    }

    async fn forget(&self, name: Name) -> bool {
        self.inner.forget(name).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.repeat(always, || self.inner.size(name)).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.repeat(always, || self.inner.delete(name)).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.repeat(always, || self.inner.list(prefix, after)).await
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        self.repeat(always, || self.inner.list_page(prefix, after)).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        let atomic = self.capabilities().batch == BatchSupport::Atomic;
        let mut attempts = self.attempts();
        let mut sent = false;
        loop {
            let error = match self.inner.apply(batch.clone()).await {
                Ok(outcomes) if sent => return self.settle_outcomes(&batch, outcomes).await,
                Ok(outcomes) => return Ok(outcomes),
                Err(error) => error,
            };
            // Where changes come one after the other, an error speaks for one of them: those before it took effect.
            sent |= !atomic || error.effect() == Effect::Unknown;
            if sent && !names_differ(&batch) {
                return Err(with_effect(error, true));
            }
            if !attempts.another(&error).await {
                return Err(with_effect(error, sent));
            }
            if !atomic {
                return self.apply_again(batch).await.map_err(|error| with_effect(error, true));
            }
        }
    }

    async fn sync(&self) -> Result<()> {
        self.repeat(refused, || self.inner.sync()).await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.repeat(refused, || self.inner.persist(names)).await
    }
    fn occupancy(&self) -> Option<std::sync::Arc<crate::storage::Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.repeat(always, || self.inner.try_exclusive()).await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.repeat(always, || self.inner.available_bytes()).await
    }

    async fn vacate(&self) -> Result<()> {
        self.repeat(always, || self.inner.vacate()).await
    }
}

impl Retry {
    /// What an atomic batch, repeated after a try of unknown effect, answers: where a name is taken by our bytes, the
    /// earlier try has put them.
    async fn settle_outcomes(&self, batch: &[Change], outcomes: Vec<Put>) -> Result<Vec<Put>> {
        let puts = batch.iter().filter_map(|change| match change {
            Change::Put(name, bytes) => Some((*name, bytes)),
            Change::Delete(_) => None,
        });
        let mut settled = Vec::with_capacity(outcomes.len());
        for ((name, bytes), outcome) in puts.zip(outcomes) {
            settled.push(match outcome {
                Put::Created => Put::Created,
                Put::Exists => {
                    let found = self.repeat(always, || self.read_back(name, bytes)).await;
                    // It was there a moment ago: deleted since, by whoever it belonged to.
                    found.map_err(|error| with_effect(error, true))?.outcome().unwrap_or(Put::Exists)
                }
            });
        }
        Ok(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Durability, ListOrder, RangeReads, Reach, Torn};
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// Far away; answers durable puts as is planned, and counts who makes what is there durable.
    #[derive(Debug, Default)]
    struct Planned {
        puts: Mutex<VecDeque<Result<Put>>>,
        persists: Mutex<VecDeque<Result<()>>>,
    }

    fn of_no_use<T>() -> Result<T> {
        Err(Error::new(ErrorKind::Unsupported, Operation::Get, "a test"))
    }

    #[cfg_attr(not(target_family = "wasm"), async_trait)]
    #[cfg_attr(target_family = "wasm", async_trait(?Send))]
    impl Storage for Planned {
        fn capabilities(&self) -> Capabilities {
            Capabilities {
                reach: Reach::Everywhere,
                durability: Durability::Power,
                torn: Torn::Never,
                batch: BatchSupport::Sequential,
                list_order: ListOrder::Ascending,
                range_reads: RangeReads::Native,
                block_bytes_best: 4096,
                block_bytes_max: 4096,
            }
        }

        fn is_remote(&self) -> bool {
            true
        }

        async fn put(&self, _: Name, _: Bytes) -> Result<Put> {
            of_no_use()
        }

        async fn put_durable(&self, _: Name, _: Bytes) -> Result<Put> {
            self.puts.lock().unwrap().pop_front().unwrap_or_else(of_no_use)
        }

        async fn get(&self, _: Name, _: Option<Range<u64>>, _: u64) -> Result<Bytes> {
            of_no_use()
        }

        async fn size(&self, _: Name) -> Result<u64> {
            of_no_use()
        }

        async fn delete(&self, _: Name) -> Result<()> {
            of_no_use()
        }

        async fn list(&self, _: &[u8], _: Option<Name>) -> Result<Vec<Name>> {
            of_no_use()
        }

        async fn sync(&self) -> Result<()> {
            of_no_use()
        }

        async fn persist(&self, _: &[Name]) -> Result<()> {
            self.persists.lock().unwrap().pop_front().unwrap_or_else(of_no_use)
        }
    }

    /// What a put of one's own answers, and how many of the planned persists are left.
    fn own(puts: Vec<Result<Put>>, persists: Vec<Result<()>>) -> (Result<Put>, usize) {
        let planned = Planned { puts: Mutex::new(puts.into()), persists: Mutex::new(persists.into()) };
        let (env, clock) = Env::manual(1);
        let name = Name::new([1; Name::BYTES]);
        let put = clock.run(put_own_durable(&planned, &env, name, Bytes::from_static(b"x"))).unwrap();
        assert!(planned.puts.lock().unwrap().is_empty());
        let left = planned.persists.lock().unwrap().len();
        (put, left)
    }

    fn failure(kind: ErrorKind, effect: Effect) -> Error {
        Error::new(kind, Operation::PutDurable, "a test").with_effect(effect)
    }

    #[test]
    fn what_an_earlier_try_may_have_put_is_not_forgotten_when_a_later_one_is_refused() {
        let unknown = || Err(failure(ErrorKind::Unavailable, Effect::Unknown));
        let told = |puts| own(puts, Vec::new()).0.map_err(|error| (error.kind(), error.effect()));
        let full = || Err(failure(ErrorKind::Full, Effect::None));
        assert_eq!(told(vec![unknown(), full()]), Err((ErrorKind::Full, Effect::Unknown)));
        assert_eq!(told(vec![full()]), Err((ErrorKind::Full, Effect::None)));
        assert_eq!(told(vec![unknown(), unknown(), Ok(Put::Created)]), Ok(Put::Created));
    }

    #[test]
    fn what_an_earlier_try_has_put_is_made_durable_and_only_that() {
        let unknown = || Err(failure(ErrorKind::Unavailable, Effect::Unknown));
        let (put, left) = own(vec![unknown(), Ok(Put::Exists)], vec![Ok(())]);
        assert_eq!((put.unwrap(), left), (Put::Exists, 0));
        let refused = Err(failure(ErrorKind::Unavailable, Effect::None));
        let error = own(vec![unknown(), Ok(Put::Exists)], vec![refused]).0.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
        for answer in [Put::Created, Put::Exists] {
            let (put, left) = own(vec![Ok(answer)], vec![Ok(())]);
            assert_eq!((put.unwrap(), left), (answer, 1));
        }
    }
}
