//! Time, randomness and threads, injected so that every test can be deterministic.
//!
//! The engine never asks the operating system: it asks its [`Env`]. The `strongroom` crate supplies the system's, this
//! module one for tests ([`Env::deterministic`]).

mod task;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::storage::MaybeSendSync;

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
}

impl Env {
    /// An environment from its parts; without `spawn` every task runs on the thread that awaits it.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>, spawn: Option<Arc<dyn Spawn>>) -> Self {
        Self { clock, random, spawn }
    }

    /// For tests: the clock advances a millisecond a look, randomness is a BLAKE3 stream of the seed, and there are no
    /// threads. Never fit for real data.
    #[must_use]
    pub fn deterministic(seed: u64) -> Self {
        let state =
            Arc::new(Deterministic { seed, clock: AtomicU64::new(1_700_000_000_000), drawn: AtomicU64::new(0) });
        Self { clock: state.clone(), random: state, spawn: None }
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

    /// Starts a task on the workers; without workers it runs when the handle is awaited. Dropping the handle lets a
    /// started task finish, and forgets one that has not started.
    pub fn spawn<T: MaybeSend + 'static>(&self, task: impl Future<Output = T> + MaybeSend + 'static) -> TaskHandle<T> {
        task::start(self.spawn.as_deref(), task)
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
