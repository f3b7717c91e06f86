//! A clock that stands still until it is told to go on.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::{BoxTask, Clock, Timer, UnixMillis, nanos};

const EPOCH_MILLIS: UnixMillis = 1_700_000_000_000;

/// The clock and timer of [`super::Env::manual`].
#[derive(Debug, Default)]
pub struct ManualClock {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    nanos: u64,
    numbers: u64,
    /// Who sleeps, by when it ends.
    sleepers: BTreeMap<(u64, u64), Option<Waker>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ManualClock {
    /// How much time has passed since the clock was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(lock(&self.state).nanos)
    }

    /// Lets time pass, and wakes whose sleep has ended.
    pub fn advance(&self, duration: Duration) {
        let mut state = lock(&self.state);
        state.nanos = state.nanos.saturating_add(nanos(duration));
        let now = state.nanos;
        let woken: Vec<Waker> =
            state.sleepers.range_mut(..=(now, u64::MAX)).filter_map(|(_, waker)| waker.take()).collect();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// When the next sleep ends, from now; `None` where nobody sleeps.
    #[must_use]
    pub fn until_next(&self) -> Option<Duration> {
        let state = lock(&self.state);
        let (end, _) = state.sleepers.first_key_value()?.0;
        Some(Duration::from_nanos(end.saturating_sub(state.nanos)))
    }

    /// How many sleep.
    #[must_use]
    pub fn sleepers_count(&self) -> usize {
        lock(&self.state).sleepers.len()
    }

    /// Runs a task to its end, on this thread, letting time pass whenever it can only wait for that. `None` where it waits
    /// for something that is neither time nor itself, and so would wait for ever.
    pub fn run<T>(&self, task: impl Future<Output = T>) -> Option<T> {
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(flag.clone());
        let mut context = Context::from_waker(&waker);
        let mut task = pin!(task);
        loop {
            if let Poll::Ready(answer) = task.as_mut().poll(&mut context) {
                return Some(answer);
            }
            if !flag.0.swap(false, Ordering::SeqCst) {
                self.advance(self.until_next()?);
            }
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        EPOCH_MILLIS.saturating_add(lock(&self.state).nanos / 1_000_000)
    }

    fn monotonic_nanos(&self) -> u64 {
        lock(&self.state).nanos
    }
}

impl Timer for ManualClock {
    fn sleep(&self, duration: Duration) -> BoxTask {
        let mut state = lock(&self.state);
        state.numbers = state.numbers.saturating_add(1);
        let key = (state.nanos.saturating_add(nanos(duration)), state.numbers);
        state.sleepers.insert(key, None);
        let sleeper = Sleeper { state: self.state.clone(), key };
        Box::pin(poll_fn(move |context| sleeper.poll(context)))
    }
}

/// One sleep; it ends when it is dropped too.
struct Sleeper {
    state: Arc<Mutex<State>>,
    key: (u64, u64),
}

impl Sleeper {
    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.nanos >= self.key.0 {
            state.sleepers.remove(&self.key);
            return Poll::Ready(());
        }
        state.sleepers.insert(self.key, Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        lock(&self.state).sleepers.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join;

    use super::super::Env;
    use super::*;

    #[test]
    fn time_passes_only_as_far_as_the_next_sleep() {
        let (env, clock) = Env::manual(1);
        let order = Mutex::new(Vec::new());
        let sleep = async |seconds| {
            env.sleep(Duration::from_secs(seconds)).await;
            order.lock().unwrap().push((seconds, clock.elapsed().as_secs()));
        };
        clock.run(join(sleep(5), sleep(2))).unwrap();
        assert_eq!(*order.lock().unwrap(), [(2, 2), (5, 5)]);
        assert_eq!(clock.sleepers_count(), 0);
    }

    #[test]
    fn a_dropped_sleep_is_no_longer_waited_for_and_a_task_without_hope_is_given_up() {
        let (env, clock) = Env::manual(1);
        drop(env.sleep(Duration::from_secs(1)));
        assert_eq!(clock.until_next(), None);
        assert!(clock.run(std::future::pending::<()>()).is_none());
    }

    #[test]
    fn without_a_timer_a_sleep_asks_the_clock() {
        let env = Env::deterministic(1);
        let before = env.now();
        futures_lite::future::block_on(env.sleep(Duration::from_millis(50)));
        assert!(env.now() >= before + 50);
    }
}
