//! How fast it goes, and how long it will take: what of late was done in a time, and so how much time the rest takes.
//!
//! Of late, because an import passes by what is unchanged, which is as good as no work, and then meets what is new.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units;

/// How far back is looked.
const SPAN: Duration = Duration::from_secs(15);
/// Between two moments that are remembered; in less, nothing is told.
const STEP: Duration = Duration::from_millis(500);

/// What was done up to a moment.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// Since the beginning.
    at: Duration,
    bytes: u64,
}

/// The last moments of something that goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    /// Ascending; the first is the last one before the span.
    past: VecDeque<Moment>,
    now: Option<Moment>,
}

impl Pace {
    /// Notes what is done by a moment after the beginning.
    pub(super) fn note(&mut self, at: Duration, bytes: u64) {
        let moment = Moment { at, bytes };
        self.now = Some(moment);
        if self.past.back().is_none_or(|last| at.saturating_sub(last.at) >= STEP) {
            self.past.push_back(moment);
        }
        while self.past.get(1).is_some_and(|second| at.saturating_sub(second.at) >= SPAN) {
            self.past.pop_front();
        }
    }

    /// What was done of late, and in which time.
    fn of_late(&self) -> Option<(u64, Duration)> {
        let (first, now) = (self.past.front()?, self.now?);
        let time = now.at.saturating_sub(first.at);
        (time >= STEP).then(|| (now.bytes.saturating_sub(first.bytes), time))
    }

    /// How long the rest will take: `None` where that cannot be told yet, or nothing goes on.
    fn left(&self, bytes: u64) -> Option<Duration> {
        if bytes == 0 {
            return Some(Duration::ZERO);
        }
        let (done, time) = self.of_late().filter(|(done, _)| *done > 0)?;
        let millis = u128::from(bytes) * time.as_millis() / u128::from(done);
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    /// Both, as they are shown.
    pub(super) fn told(&self, done: u64, total: Option<u64>) -> String {
        let Some((bytes, time)) = self.of_late() else { return String::new() };
        let rate = units::rate(bytes, time);
        match total.and_then(|total| self.left(total.saturating_sub(done))) {
            // By the second: anything finer only flickers.
            Some(left) if left.as_secs() < 10 => format!("{rate}, {}s left", left.as_secs()),
            Some(left) => format!("{rate}, {} left", units::duration(left)),
            None => rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Goes on from where it is, at a pace, with four looks a second.
    fn goes_on(pace: &mut Pace, seconds: u64, bytes_per_second: u64) -> u64 {
        let Moment { at, bytes } = pace.now.unwrap_or(Moment { at: Duration::ZERO, bytes: 0 });
        for quarter in 0..=seconds * 4 {
            pace.note(at + Duration::from_millis(quarter * 250), bytes + bytes_per_second * quarter / 4);
        }
        bytes + bytes_per_second * seconds
    }

    #[test]
    fn at_a_steady_pace_the_rest_takes_as_long_as_it_has_bytes() {
        let mut pace = Pace::default();
        for seconds in [1, 9, 10, 40] {
            let done = goes_on(&mut pace, seconds, 2 * MIB);
            assert_eq!(pace.left(200 * MIB - done), Some(Duration::from_secs((200 * MIB - done) / (2 * MIB))));
        }
        assert_eq!(pace.told(120 * MIB, Some(200 * MIB)), "2MiB/s, 40s left");
        assert_eq!(pace.told(190 * MIB, Some(200 * MIB)), "2MiB/s, 5s left");
        assert_eq!(pace.told(0, Some(2_000 * MIB)), "2MiB/s, 16m40s left");
        assert_eq!(pace.told(200 * MIB, Some(200 * MIB)), "2MiB/s, 0s left");
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let mut pace = Pace::default();
        // Unchanged files, passed by; then new ones.
        goes_on(&mut pace, 5, 4_096 * MIB);
        goes_on(&mut pace, 16, MIB);
        assert_eq!(pace.left(60 * MIB), Some(Duration::from_secs(60)));
        // And the other way round.
        goes_on(&mut pace, 16, 10 * MIB);
        assert_eq!(pace.left(60 * MIB), Some(Duration::from_secs(6)));
        assert!(pace.past.len() < 40, "no more is remembered than is looked at");
    }

    #[test]
    fn what_cannot_be_told_is_not() {
        let mut pace = Pace::default();
        assert_eq!(pace.told(0, Some(MIB)), "");
        pace.note(Duration::ZERO, 0);
        pace.note(Duration::from_millis(499), MIB);
        assert_eq!((pace.told(MIB, Some(2 * MIB)), pace.left(MIB)), (String::new(), None));
        pace.note(Duration::from_secs(1), MIB);
        assert_eq!(pace.told(MIB, Some(2 * MIB)), "1MiB/s, 1s left");
        // How much there is in all is counted beside the work.
        assert_eq!(pace.told(MIB, None), "1MiB/s");
        // Nothing comes any more: no rest of any length is near.
        for second in 2..30 {
            pace.note(Duration::from_secs(second), MIB);
        }
        assert_eq!(pace.told(MIB, Some(2 * MIB)), "0B/s");
        // More than was counted, as files grow.
        assert_eq!(pace.left(0), Some(Duration::ZERO));
        assert_eq!(pace.told(3 * MIB, Some(2 * MIB)), "0B/s, 0s left");
    }
}
