//! The environment of a real process: the system's clock, its randomness, and a pool of worker threads.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_executor::Executor;
use futures_channel::oneshot;
use futures_lite::FutureExt as _;
use futures_lite::future::block_on;
use futures_timer::Delay;
use strongroom_core::env::{BoxTask, Clock, Env, Random, RandomUnavailable, Spawn, Timer, UnixMillis};

/// Workers are two at least: one that waits for the disk must not stop the one that seals.
const WORKERS_MIN: usize = 2;

/// The system's clock and randomness, and one worker thread a core (two at least).
///
/// The threads live as long as the environment or any clone of it, and are joined when the last one is dropped. A task
/// that panics ends alone: whoever awaits it is told, and the worker goes on.
///
/// # Errors
/// When the operating system gives no thread.
pub fn system() -> std::io::Result<Env> {
    let cores = std::thread::available_parallelism().map_or(WORKERS_MIN, usize::from);
    let workers: Arc<dyn Spawn> = Arc::new(Workers::start(cores.max(WORKERS_MIN))?);
    Ok(Env::new(Arc::new(SystemClock::new()), Arc::new(SystemRandom), Some(workers)).with_timer(Arc::new(SystemTimer)))
}

/// The longest that the timer is asked for at once.
const SLEEP_PART_MAX: Duration = Duration::from_secs(24 * 60 * 60);

struct SystemTimer;

impl Timer for SystemTimer {
    fn sleep(&self, duration: Duration) -> BoxTask {
        // Made when it is first awaited: a timeout that is never waited for starts no thread.
        Box::pin(async move {
            // In parts: the timer adds what it is given to the time that it is, and panics where there is no such time.
            let mut left = duration;
            while left > SLEEP_PART_MAX {
                Delay::new(SLEEP_PART_MAX).await;
                left = left.saturating_sub(SLEEP_PART_MAX);
            }
            Delay::new(left).await;
        })
    }
}

struct SystemClock {
    start: Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    fn now(&self) -> UnixMillis {
        // A clock before 1970 is a dead battery: 0 then, rather than an error on every commit.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic_nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomUnavailable> {
        getrandom::fill(bytes).map_err(|_| RandomUnavailable)
    }
}

/// The worker threads. Invariant: a thread ends only when its `stop` sender is gone.
struct Workers {
    executor: Arc<Executor<'static>>,
    stop: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(count: usize) -> std::io::Result<Self> {
        let mut workers = Self { executor: Arc::new(Executor::new()), stop: Vec::new(), threads: Vec::new() };
        for number in 0..count {
            let (sender, receiver) = oneshot::channel::<()>();
            let executor = workers.executor.clone();
            let thread = std::thread::Builder::new().name(format!("strongroom-{number}")).spawn(move || {
                // Dropping the sender is the signal, so the answer is always an error.
                let _ = block_on(executor.run(receiver));
            })?;
            workers.stop.push(sender);
            workers.threads.push(thread);
        }
        Ok(workers)
    }
}

impl Spawn for Workers {
    fn spawn(&self, task: BoxTask) {
        // Caught here, so that the panic drops the task (and with it the sender that its waiter listens to) and nothing
        // else. Nobody sees what the task left half done but its waiter, which is told that it died.
        let guarded = std::panic::AssertUnwindSafe(task).catch_unwind();
        self.executor
            .spawn(async move {
                let _ = guarded.await;
            })
            .detach();
    }

    fn parallelism(&self) -> usize {
        self.threads.len()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.clear();
        let own = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // The last handle may die in a task: a worker cannot wait for itself.
            if thread.thread().id() != own {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_may_be_as_long_as_anyone_says() {
        let env = system().unwrap();
        for duration in [Duration::MAX, Duration::from_secs(u64::MAX / 2)] {
            let mut sleep = env.sleep(duration);
            assert_eq!(block_on(futures_lite::future::poll_once(&mut sleep)), None);
        }
        block_on(env.sleep(Duration::ZERO));
    }

    #[test]
    fn tasks_run_on_named_workers_and_answer() {
        let env = system().unwrap();
        assert!(env.parallelism() >= 2);
        let name = block_on(env.spawn(async { std::thread::current().name().map(str::to_owned) })).flatten();
        assert!(name.unwrap().starts_with("strongroom-"));
    }

    #[test]
    fn a_panicking_task_tells_its_waiter_and_the_workers_go_on() {
        let env = system().unwrap();
        for _ in 0..8 {
            assert_eq!(block_on(env.spawn(async { if true { panic!("on purpose") } else { 1 } })), None);
        }
        assert_eq!(block_on(env.spawn(async { 2 })), Some(2));
    }

    #[test]
    fn a_task_that_was_never_finished_tells_its_waiter_when_the_workers_end() {
        let env = system().unwrap();
        let waiting = env.spawn(std::future::pending::<()>());
        drop(env);
        assert_eq!(block_on(waiting), None);
    }

    #[test]
    fn the_last_handle_may_be_dropped_by_a_task() {
        let env = system().unwrap();
        let inner = env.clone();
        let (sender, receiver) = oneshot::channel::<()>();
        let done = env.spawn(async move {
            let _ = receiver.await;
            drop(inner);
            3
        });
        drop(env);
        sender.send(()).unwrap();
        assert!(matches!(block_on(done), Some(3) | None));
    }

    #[test]
    fn a_sleep_ends_and_not_before_its_time() {
        let env = system().unwrap();
        let (before, duration) = (env.monotonic_nanos(), Duration::from_millis(2));
        block_on(env.sleep(duration));
        assert!(env.monotonic_nanos() - before >= 2_000_000);
    }

    #[test]
    fn two_draws_of_randomness_differ_and_the_clock_runs_forward() {
        let env = system().unwrap();
        assert_ne!(env.random::<32>().unwrap(), env.random::<32>().unwrap());
        assert!(env.now() > 1_700_000_000_000);
        let earlier = env.monotonic_nanos();
        assert!(env.monotonic_nanos() >= earlier);
    }
}
