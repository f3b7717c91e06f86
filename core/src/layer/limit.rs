use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_lock::{Mutex as AsyncMutex, Semaphore, SemaphoreGuardArc};
use async_trait::async_trait;
use bytes::Bytes;

use super::metrics::uploaded;
use crate::env::Env;
use crate::storage::{Capabilities, Change, ExclusiveGuard, Name, Put, Result, Storage};

/// What [`Limit`] holds to; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many calls are under way at once.
    pub calls_max: Option<NonZeroUsize>,
    /// Bytes of blobs sent, a second.
    pub upload_bytes_per_second: Option<NonZeroU64>,
    /// Bytes of blobs received, a second.
    pub download_bytes_per_second: Option<NonZeroU64>,
}

/// Lets calls wait, in the order in which they come, so that limits hold. A call that is dropped while it waits gives its
/// place to those behind it.
///
/// A blob goes at full speed, and the next one waits until this one's time is over: the rate holds on average, from the
/// first byte on, and time in which nothing was sent is not saved up.
#[derive(Clone, Debug)]
pub struct Limit {
    inner: Arc<dyn Storage>,
    env: Env,
    calls: Option<Arc<Gate>>,
    upload: Option<Arc<Rate>>,
    download: Option<Arc<Rate>>,
}

impl Limit {
    /// The storage within these limits.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, env: Env, limits: Limits) -> Self {
        Self {
            inner,
            calls: limits.calls_max.map(|calls| Arc::new(Gate::new(calls))),
            upload: limits.upload_bytes_per_second.map(|rate| Arc::new(Rate::new(env.clone(), rate))),
            download: limits.download_bytes_per_second.map(|rate| Arc::new(Rate::new(env.clone(), rate))),
            env,
        }
    }

    async fn send<T>(&self, bytes: u64, call: impl Future<Output = Result<T>>) -> Result<T> {
        let reservation = self.wait(self.upload.as_ref(), bytes).await;
        let _permit = self.enter().await;
        // Whatever becomes of the call now, its bytes may have gone out.
        if let Some(reservation) = reservation {
            reservation.settle(bytes);
        }
        call.await
    }

    async fn receive(&self, bytes_max: u64, call: impl Future<Output = Result<Bytes>>) -> Result<Bytes> {
        let reservation = self.wait(self.download.as_ref(), bytes_max).await;
        let _permit = self.enter().await;
        let answer = call.await;
        if let Some(reservation) = reservation {
            reservation.settle(answer.as_ref().map_or(0, |bytes| bytes.len() as u64));
        }
        answer
    }

    async fn plain<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let _permit = self.enter().await;
        call.await
    }

    async fn enter(&self) -> Option<SemaphoreGuardArc> {
        match &self.calls {
            Some(gate) => Some(gate.enter().await),
            None => None,
        }
    }

    async fn wait(&self, rate: Option<&Arc<Rate>>, bytes: u64) -> Option<Reservation> {
        let rate = rate?;
        let (now, start, reservation) = rate.reserve(bytes);
        if start > now {
            self.env.sleep(Duration::from_nanos(start - now)).await;
        }
        Some(reservation)
    }

    /// The most that a read can answer.
    fn reply_bytes_max(&self, range: Option<&Range<u64>>, max_bytes: u64) -> u64 {
        let most = max_bytes.min(self.inner.capabilities().block_bytes_max.into());
        range.map_or(most, |range| range.end.saturating_sub(range.start).min(most))
    }
}

/// So many at once.
#[derive(Debug)]
struct Gate {
    permits: Arc<Semaphore>,
    /// Whoever is first in line stands here: so no newcomer slips in before those who wait.
    line: AsyncMutex<()>,
}

impl Gate {
    fn new(permits: NonZeroUsize) -> Self {
        Self { permits: Arc::new(Semaphore::new(permits.get())), line: AsyncMutex::new(()) }
    }

    async fn enter(&self) -> SemaphoreGuardArc {
        let _first = self.line.lock().await;
        self.permits.acquire_arc().await
    }
}

/// So many bytes a second.
#[derive(Debug)]
struct Rate {
    env: Env,
    bytes_per_second: NonZeroU64,
    /// When what was admitted so far has gone through, in nanoseconds of the clock.
    free_at: Mutex<u64>,
}

impl Rate {
    fn new(env: Env, bytes_per_second: NonZeroU64) -> Self {
        Self { env, bytes_per_second, free_at: Mutex::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.free_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanos(&self, bytes: u64) -> u64 {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// What time it is, when so many bytes may go, and the right to it.
    fn reserve(self: &Arc<Self>, bytes: u64) -> (u64, u64, Reservation) {
        let mut free_at = self.lock();
        let now = self.env.monotonic_nanos();
        let start = (*free_at).max(now);
        let end = start.saturating_add(self.nanos(bytes));
        *free_at = end;
        (now, start, Reservation { rate: self.clone(), bytes, used: 0, end })
    }
}

/// Bytes that were admitted; those that were not used are given back when it goes.
struct Reservation {
    rate: Arc<Rate>,
    bytes: u64,
    used: u64,
    /// When its time is over, in nanoseconds of the clock.
    end: u64,
}

impl Reservation {
    fn settle(mut self, used: u64) {
        self.used = used;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Time that has passed is nobody's any more: given back, it would let two go at once later.
        let ahead = self.end.saturating_sub(self.rate.env.monotonic_nanos());
        let unused = self.rate.nanos(self.bytes.saturating_sub(self.used)).min(ahead);
        let mut free_at = self.rate.lock();
        *free_at = free_at.saturating_sub(unused);
    }
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Storage for Limit {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.send(bytes.len() as u64, self.inner.put(name, bytes)).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.send(bytes.len() as u64, self.inner.put_durable(name, bytes)).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let most = self.reply_bytes_max(range.as_ref(), max_bytes);
        self.receive(most, self.inner.get(name, range, max_bytes)).await
    }

    async fn get_cached(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let most = self.reply_bytes_max(range.as_ref(), max_bytes);
        self.receive(most, self.inner.get_cached(name, range, max_bytes)).await
    }

    async fn forget(&self, name: Name) -> bool {
        self.inner.forget(name).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.plain(self.inner.size(name)).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.plain(self.inner.delete(name)).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.plain(self.inner.list(prefix, after)).await
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        self.plain(self.inner.list_page(prefix, after)).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        self.send(uploaded(&batch), self.inner.apply(batch)).await
    }

    async fn sync(&self) -> Result<()> {
        self.plain(self.inner.sync()).await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.plain(self.inner.persist(names)).await
    }
    fn occupancy(&self) -> Option<std::sync::Arc<crate::storage::Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        // It answers without waiting, so it takes no place in the line either.
        self.inner.try_exclusive().await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.plain(self.inner.available_bytes()).await
    }

    async fn vacate(&self) -> Result<()> {
        self.plain(self.inner.vacate()).await
    }
}
