//! What goes wrong: by a seed at rates, or the next request of a kind.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Verb {
    Put,
    Get,
    Head,
    Delete,
    List,
    Other,
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 500 `InternalError`; nothing happened.
    InternalError,
    /// 500 `InternalError`; it happened.
    InternalErrorAfter,
    /// 503 `SlowDown`; nothing happened.
    SlowDown,
    /// No answer, and nothing happens.
    Hang,
    /// It happened, and the connection ends without an answer.
    LostReply,
    /// The connection ends in the middle of the answer's body.
    TruncatedBody,
    /// A listing as it was a while ago.
    StaleList,
    /// The body is longer than its length was announced to be: without a length.
    Endless,
    /// Refused with this status and code; nothing happened.
    Refused(u16, &'static str),
    /// Sent elsewhere with this status, to an address; nothing happened.
    Redirect(u16, &'static str),
    /// A put that is not answered and that has no effect until [`crate::Server::deliver_late`].
    Late,
}

/// How a server fails, changed while it runs.
#[derive(Debug)]
pub struct Faults {
    state: Mutex<State>,
    released: Notify,
    /// Of those who wait for each other: one came, or all may go on.
    gathered: Notify,
}

#[derive(Debug)]
struct State {
    dice: u64,
    rates: Vec<(Fault, f64)>,
    next: VecDeque<(Vec<Verb>, Fault)>,
    always: Vec<(Vec<Verb>, Fault)>,
    latency: Duration,
    bytes_per_second: Option<u64>,
    link: Option<Link>,
    /// Requests of these kinds wait, and how many do.
    holds: Vec<Verb>,
    held: usize,
    meeting: Option<Meeting>,
    met: Vec<usize>,
}

/// Requests wait for each other.
#[derive(Clone, Copy, Debug)]
struct Meeting {
    wanted: usize,
    /// For one that is alone, and for one more than are wanted.
    briefly: Duration,
    /// For those who are still wanted, since the last one came.
    patience: Duration,
    times_left: usize,
    /// So many are there, and it is seen whether more come.
    is_full: bool,
}

/// A request that waits.
struct Held<'a>(&'a Faults);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.lock().held -= 1;
    }
}

/// The request that all others waited for: with it they go on.
struct Full<'a>(&'a Faults);

impl Drop for Full<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let held = state.held;
        state.met.push(held);
        state.meeting = state.meeting.and_then(|meeting| {
            let times_left = meeting.times_left.saturating_sub(1);
            (times_left > 0).then_some(Meeting { times_left, is_full: false, ..meeting })
        });
        self.0.gathered.notify_waiters();
    }
}

/// A line that all bodies share, each way for itself.
#[derive(Clone, Copy, Debug)]
struct Link {
    bytes_per_second: u64,
    /// When what has a place on it will have passed: up, and down.
    free: [Instant; 2],
}

/// Timers are late: time in which nothing passed a line is saved up, up to so much.
const SAVED_UP_MAX: Duration = Duration::from_millis(10);

/// Which way a body goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Up,
    Down,
}

impl Default for Faults {
    fn default() -> Self {
        let state = State {
            dice: 1,
            rates: Vec::new(),
            next: VecDeque::new(),
            always: Vec::new(),
            latency: Duration::ZERO,
            bytes_per_second: None,
            link: None,
            holds: Vec::new(),
            held: 0,
            meeting: None,
            met: Vec::new(),
        };
        Self { state: Mutex::new(state), released: Notify::new(), gathered: Notify::new() }
    }
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on each request meets these, each at its rate from 0 to 1; the same seed draws the same.
    pub fn at_rates(&self, seed: u64, rates: &[(Fault, f64)]) {
        let mut state = self.lock();
        state.dice = seed;
        state.rates = rates.to_vec();
    }

    /// The next request of one of these kinds (of any, where there are none) meets this; several wait in line.
    pub fn next(&self, verbs: &[Verb], fault: Fault) {
        self.lock().next.push_back((verbs.to_vec(), fault));
    }

    /// Every request of one of these kinds (of any, where there are none) meets this.
    pub fn always(&self, verbs: &[Verb], fault: Fault) {
        self.lock().always.push((verbs.to_vec(), fault));
    }

    /// No more faults, and no more slowness.
    pub fn clear(&self) {
        let fresh = Self::default().state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        *state = State { held: state.held, ..fresh };
        self.released.notify_waiters();
        self.gathered.notify_waiters();
    }

    /// Requests of these kinds wait from now on, before anything is done for them, until [`Faults::release`].
    pub fn hold(&self, verbs: &[Verb]) {
        self.lock().holds = verbs.to_vec();
    }

    /// How many wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lock().held
    }

    /// Those who wait go on, and nobody waits any more.
    pub fn release(&self) {
        self.lock().holds.clear();
        self.released.notify_waiters();
    }

    /// Each request waits until so many are there, or until nobody has come for so long: `briefly` where it is alone, as one that
    /// the client sends by itself is, else `patience`, which may be long. Once they are there, all of them wait `briefly` for one
    /// more, and then it is noted how many there are. So often; then nobody waits any more.
    ///
    /// While all of its requests wait, a client has exactly so many under way: none is answered meanwhile, and the end of one that it
    /// gave up has long been seen.
    pub fn meet(&self, wanted: usize, times: usize, briefly: Duration, patience: Duration) {
        self.lock().meeting = Some(Meeting { wanted, briefly, patience, times_left: times, is_full: false });
    }

    /// How many there were each time, since the last call.
    pub fn take_met(&self) -> Vec<usize> {
        std::mem::take(&mut self.lock().met)
    }

    /// Waits for the others.
    pub(crate) async fn gather(&self) {
        let (_held, meeting, fills) = {
            let mut state = self.lock();
            let held = state.held + 1;
            let Some(meeting) = &mut state.meeting else { return };
            let fills = held >= meeting.wanted && !meeting.is_full;
            meeting.is_full |= fills;
            let meeting = *meeting;
            state.held = held;
            // Who waits has company now.
            self.gathered.notify_waiters();
            (Held(self), meeting, fills)
        };
        if fills {
            let _full = Full(self);
            tokio::time::sleep(meeting.briefly).await;
            return;
        }
        loop {
            let mut changed = pin!(self.gathered.notified());
            let patience = {
                let state = self.lock();
                // From here on it hears of it.
                changed.as_mut().enable();
                match &state.meeting {
                    Some(now) if now.times_left != meeting.times_left => return,
                    Some(now) if now.is_full => None,
                    Some(now) => Some(if state.held > 1 { now.patience } else { now.briefly }),
                    None => return,
                }
            };
            match patience {
                None => changed.await,
                Some(patience) => {
                    let is_over = timeout(patience, changed).await.is_err();
                    if is_over && !self.lock().meeting.is_some_and(|meeting| meeting.is_full) {
                        return;
                    }
                }
            }
        }
    }

    /// Waits where requests of this kind do.
    pub(crate) async fn pass(&self, verb: Verb) {
        let mut released = pin!(self.released.notified());
        let _held = {
            let mut state = self.lock();
            if !state.holds.contains(&verb) {
                return;
            }
            // From here on it hears of it.
            released.as_mut().enable();
            state.held += 1;
            Held(self)
        };
        released.await;
    }

    /// Each answer comes so much later.
    pub fn latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// Bodies take so long, each for itself.
    pub fn bandwidth(&self, bytes_per_second: u64) {
        self.lock().bytes_per_second = Some(bytes_per_second.max(1));
    }

    /// All bodies of one direction together take so long, as on one line.
    pub fn link(&self, bytes_per_second: u64) {
        self.lock().link = Some(Link { bytes_per_second: bytes_per_second.max(1), free: [Instant::now(); 2] });
    }

    /// When so many bytes that come to the line now have passed it.
    pub(crate) fn passed(&self, way: Way, bytes: u64) -> Option<Instant> {
        let mut state = self.lock();
        let Link { bytes_per_second, free: [up, down] } = state.link.as_mut()?;
        let free = match way {
            Way::Up => up,
            Way::Down => down,
        };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(*bytes_per_second);
        let now = Instant::now();
        *free = (*free).max(now.checked_sub(SAVED_UP_MAX).unwrap_or(now))
            + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(*free)
    }

    /// What this request meets.
    pub(crate) fn draw(&self, verb: Verb) -> Option<Fault> {
        let mut state = self.lock();
        let is_meant = |wanted: &[Verb]| wanted.is_empty() || wanted.contains(&verb);
        if let Some(place) = state.next.iter().position(|(wanted, _)| is_meant(wanted)) {
            return state.next.remove(place).map(|(_, fault)| fault);
        }
        if let Some((_, fault)) = state.always.iter().find(|(wanted, _)| is_meant(wanted)) {
            return Some(*fault);
        }
        for (fault, rate) in state.rates.clone() {
            let roll = roll(&mut state.dice);
            let applies = match fault {
                Fault::TruncatedBody | Fault::Endless => matches!(verb, Verb::Get | Verb::List),
                Fault::StaleList => verb == Verb::List,
                _ => true,
            };
            if applies && roll < rate {
                return Some(fault);
            }
        }
        None
    }

    /// How long a request with a body of so many bytes takes.
    pub(crate) fn delay(&self, bytes: u64) -> Duration {
        let state = self.lock();
        let transfer = state.bytes_per_second.map_or(0, |rate| bytes.saturating_mul(1_000_000) / rate);
        state.latency + Duration::from_micros(transfer)
    }
}

/// SplitMix64, as a fraction of one.
#[allow(clippy::cast_precision_loss)] // fifty-three bits fit
fn roll(dice: &mut u64) -> f64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *dice;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_request_of_a_kind_meets_what_waits_for_it_and_only_that_one() {
        let faults = Faults::default();
        faults.next(&[Verb::Get], Fault::SlowDown);
        assert_eq!(faults.draw(Verb::Put), None);
        assert_eq!(faults.draw(Verb::Get), Some(Fault::SlowDown));
        assert_eq!(faults.draw(Verb::Get), None);
    }

    #[test]
    fn what_shares_a_line_waits_for_what_came_before_it_in_the_same_direction() {
        let faults = Faults::default();
        assert_eq!(faults.passed(Way::Down, 1), None);
        faults.link(1_000);
        let first = faults.passed(Way::Down, 3_000).unwrap();
        let second = faults.passed(Way::Down, 2_000).unwrap();
        assert_eq!(second - first, Duration::from_secs(2));
        assert!(faults.passed(Way::Up, 2_000).unwrap() < first);
    }

    #[test]
    fn those_who_meet_go_on_together_and_one_more_than_was_waited_for_is_counted() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let faults = Faults::default();
            faults.meet(2, 2, Duration::from_millis(50), Duration::from_millis(50));
            futures_util::future::join(faults.gather(), faults.gather()).await;
            assert_eq!(faults.take_met(), [2]);
            // One alone is not kept for ever.
            faults.gather().await;
            futures_util::future::join3(faults.gather(), faults.gather(), faults.gather()).await;
            assert_eq!((faults.take_met(), faults.held()), (vec![3], 0));
            faults.gather().await;
            assert!(faults.take_met().is_empty(), "nobody waits any more");
        });
    }

    #[test]
    fn who_has_company_waits_for_the_one_that_is_missing_longer_than_who_is_alone() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (faults, briefly) = (Faults::default(), Duration::from_millis(20));
            faults.meet(3, 1, briefly, Duration::from_secs(300));
            // Alone it goes, and counts for nothing.
            faults.gather().await;
            let late = async {
                tokio::time::sleep(briefly * 10).await;
                faults.gather().await;
            };
            futures_util::future::join3(faults.gather(), faults.gather(), late).await;
            assert_eq!((faults.take_met(), faults.held()), (vec![3], 0));
            // Not for ever either.
            faults.meet(3, 1, briefly, briefly * 2);
            futures_util::future::join(faults.gather(), faults.gather()).await;
            assert_eq!((faults.take_met(), faults.held()), (vec![], 0));
        });
    }

    #[test]
    fn one_seed_draws_the_same_again() {
        let draws = || {
            let faults = Faults::default();
            faults.at_rates(7, &[(Fault::LostReply, 0.2), (Fault::StaleList, 0.5)]);
            (0..100).map(|_| faults.draw(Verb::Put)).collect::<Vec<_>>()
        };
        let drawn = draws();
        assert_eq!(drawn, draws());
        let lost = drawn.iter().flatten().count();
        assert!((5..50).contains(&lost), "{lost}");
        assert!(!drawn.contains(&Some(Fault::StaleList)));
    }
}
