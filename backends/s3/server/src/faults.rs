//! What goes wrong: by a seed at rates, or the next request of a kind.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

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
        };
        Self { state: Mutex::new(state) }
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
        *self.lock() = Self::default().state.into_inner().unwrap_or_else(PoisonError::into_inner);
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
