//! Time, randomness and threads, injected so that every test can be deterministic.
//!
//! The engine never asks the operating system: it asks its [`Env`]. The `strongroom` crate supplies the system's, this
//! module one for tests ([`Env::deterministic`]).

mod manual;
mod task;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use crate::storage::MaybeSendSync;

pub use manual::ManualClock;
pub use task::{BoxTask, Spawn, TaskHandle};

/// Milliseconds since the Unix epoch.
pub type UnixMillis = u64;

/// The clock.
pub trait Clock: MaybeSendSync {
    /// Wall-clock time.
    fn now(&self) -> UnixMillis;
    /// Nanoseconds since some fixed moment, never going back.
    fn monotonic_nanos(&self) -> u64;
}

/// Wakes those who wait for time to pass.
pub trait Timer: MaybeSendSync {
    /// A task that ends so much later, by [`Clock::monotonic_nanos`], and never earlier.
    fn sleep(&self, duration: Duration) -> BoxTask;
}

/// The source of randomness; it must be fit for keys.
pub trait Random: MaybeSendSync {
    /// Fills the whole slice.
    ///
    /// # Errors
    /// When the operating system has no randomness to give; then nothing may be sealed.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomUnavailable>;
}

/// The operating system gave no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no randomness; nothing can be encrypted safely")]
pub struct RandomUnavailable;

/// Clock, randomness and workers, cheap to clone.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    spawn: Option<Arc<dyn Spawn>>,
    timer: Option<Arc<dyn Timer>>,
}

impl Env {
    /// An environment from its parts; without `spawn` every task runs on the thread that awaits it.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>, spawn: Option<Arc<dyn Spawn>>) -> Self {
        Self { clock, random, spawn, timer: None }
    }

    /// The same, with this timer. Without one, whoever sleeps asks the clock again and again.
    #[must_use]
    pub fn with_timer(mut self, timer: Arc<dyn Timer>) -> Self {
        self.timer = Some(timer);
        self
    }

    /// For tests: the clock advances a millisecond a look, randomness is a BLAKE3 stream of the seed, and there are no
    /// threads. Never fit for real data.
    #[must_use]
    pub fn deterministic(seed: u64) -> Self {
        let state =
            Arc::new(Deterministic { seed, clock: AtomicU64::new(1_700_000_000_000), drawn: AtomicU64::new(0) });
        Self::new(state.clone(), state, None)
    }

    /// As [`Env::deterministic`], and time passes only when the clock is told to.
    #[must_use]
    pub fn manual(seed: u64) -> (Self, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        let random = Arc::new(Deterministic { seed, clock: AtomicU64::default(), drawn: AtomicU64::default() });
        (Self::new(clock.clone(), random, None).with_timer(clock.clone()), clock)
    }

    /// Wall-clock time.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Nanoseconds since some fixed moment, never going back.
    #[must_use]
    pub fn monotonic_nanos(&self) -> u64 {
        self.clock.monotonic_nanos()
    }

    /// Ends so much later.
    pub fn sleep(&self, duration: Duration) -> BoxTask {
        if let Some(timer) = &self.timer {
            return timer.sleep(duration);
        }
        let clock = self.clock.clone();
        let end = clock.monotonic_nanos().saturating_add(nanos(duration));
        Box::pin(poll_fn(move |context| {
            if clock.monotonic_nanos() >= end {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    /// An array of random bytes.
    ///
    /// # Errors
    /// As [`Random::fill`].
    pub fn random<const N: usize>(&self) -> Result<[u8; N], RandomUnavailable> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Fills the slice with random bytes.
    ///
    /// # Errors
    /// As [`Random::fill`].
    pub fn fill_random(&self, bytes: &mut [u8]) -> Result<(), RandomUnavailable> {
        self.random.fill(bytes)
    }

    /// How many tasks can make progress at once, at least 1.
    #[must_use]
    pub fn parallelism(&self) -> usize {
        self.spawn.as_ref().map_or(1, |spawn| spawn.parallelism().max(1))
    }

    /// Whether a task that is started runs without being awaited.
    #[must_use]
    pub fn has_workers(&self) -> bool {
        self.spawn.is_some()
    }

    /// Starts a task on the workers; without workers it runs when the handle is awaited. Dropping the handle lets a
    /// started task finish, and forgets one that has not started.
    pub fn spawn<T: MaybeSend + 'static>(&self, task: impl Future<Output = T> + MaybeSend + 'static) -> TaskHandle<T> {
        task::start(self.spawn.as_deref(), task)
    }

    /// As [`Env::spawn`], for what is of use to who waits for it alone: when the handle is dropped the task ends where it waits next.
    pub fn spawn_wanted<T: MaybeSend + 'static>(
        &self,
        task: impl Future<Output = T> + MaybeSend + 'static,
    ) -> TaskHandle<T> {
        task::start_wanted(self.spawn.as_deref(), task)
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Env").field("parallelism", &self.parallelism()).finish_non_exhaustive()
    }
}

/// `Send` off wasm.
#[cfg(not(target_family = "wasm"))]
pub trait MaybeSend: Send {}
#[cfg(not(target_family = "wasm"))]
impl<T: Send + ?Sized> MaybeSend for T {}
/// `Send` off wasm.
#[cfg(target_family = "wasm")]
pub trait MaybeSend {}
#[cfg(target_family = "wasm")]
impl<T: ?Sized> MaybeSend for T {}

/// A duration in nanoseconds; five centuries are the most.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

struct Deterministic {
    seed: u64,
    clock: AtomicU64,
    drawn: AtomicU64,
}

impl Clock for Deterministic {
    fn now(&self) -> UnixMillis {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn monotonic_nanos(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed).wrapping_mul(1_000_000)
    }
}

impl Random for Deterministic {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomUnavailable> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&self.drawn.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        hasher.finalize_xof().fill(bytes);
        Ok(())
    }
}
