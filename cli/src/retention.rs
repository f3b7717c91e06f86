//! Which snapshots a policy keeps: the newest of each of the last so many hours, days, weeks and months that have any.

use std::collections::HashSet;

use clap::Args;

use crate::units;

/// How many to keep of each kind. Periods are those of UTC, and weeks begin on Monday.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Policy {
    /// Keep the newest N
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    keep_last: usize,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    keep_hourly: usize,
    /// Keep the newest of each of the last N days that have one
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    keep_daily: usize,
    /// Keep the newest of each of the last N weeks that have one
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    keep_weekly: usize,
    /// Keep the newest of each of the last N months that have one
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    keep_monthly: usize,
}

impl Policy {
    /// Whether it keeps nothing: then it was not meant.
    pub(crate) fn is_empty(&self) -> bool {
        [self.keep_last, self.keep_hourly, self.keep_daily, self.keep_weekly, self.keep_monthly].iter().all(|n| *n == 0)
    }

    /// Which of the snapshots are kept, given when each was taken by the clock of its maker, the first commit first.
    pub(crate) fn kept(&self, taken_millis: &[u64]) -> Vec<bool> {
        let mut kept = vec![false; taken_millis.len()];
        let seconds = |millis: u64| i64::try_from(millis / 1000).unwrap_or(i64::MAX);
        self.keep(&mut kept, taken_millis, self.keep_last, |index, _| i64::try_from(index).unwrap_or(i64::MAX));
        self.keep(&mut kept, taken_millis, self.keep_hourly, |_, millis| seconds(millis) / 3_600);
        self.keep(&mut kept, taken_millis, self.keep_daily, |_, millis| seconds(millis) / 86_400);
        // The first of January 1970 was a Thursday.
        self.keep(&mut kept, taken_millis, self.keep_weekly, |_, millis| (seconds(millis) / 86_400 + 3) / 7);
        self.keep(&mut kept, taken_millis, self.keep_monthly, |_, millis| {
            let (year, month, _) = units::date(seconds(millis));
            i64::try_from(year * 12 + month).unwrap_or(i64::MAX)
        });
        kept
    }

    /// Keeps the newest of each of the last periods. What is newer the order of commits tells, not the clocks of those who
    /// made them: after one that is years ahead, the newest must not be what goes. So periods may be met again.
    fn keep(&self, kept: &mut [bool], taken: &[u64], periods: usize, period: impl Fn(usize, u64) -> i64) {
        let mut met = HashSet::new();
        for (index, millis) in taken.iter().enumerate().rev() {
            if met.len() >= periods {
                return;
            }
            if met.insert(period(index, *millis))
                && let Some(kept) = kept.get_mut(index)
            {
                *kept = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(policy: Policy, taken: &[&str]) -> Vec<usize> {
        let millis: Vec<u64> = taken.iter().map(|text| units::parse_moment(text).unwrap() as u64 * 1000).collect();
        policy.kept(&millis).iter().enumerate().filter(|(_, kept)| **kept).map(|(index, _)| index).collect()
    }

    const TAKEN: [&str; 8] = [
        "2026-01-31T23:00:00Z",
        "2026-02-01T00:30:00Z", // a Sunday
        "2026-02-02T09:00:00Z", // a Monday
        "2026-02-02T09:59:59Z",
        "2026-02-02T10:00:00Z",
        "2026-02-08T23:59:59Z", // the Sunday after it
        "2026-02-09T00:00:00Z",
        "2026-02-09T00:00:01Z",
    ];

    #[test]
    fn the_newest_of_each_period_is_kept() {
        let none = Policy::default();
        assert!(none.is_empty());
        assert_eq!(kept(none, &TAKEN), [0_usize; 0]);
        assert_eq!(kept(Policy { keep_last: 3, ..none }, &TAKEN), [5, 6, 7]);
        assert_eq!(kept(Policy { keep_hourly: 4, ..none }, &TAKEN), [3, 4, 5, 7]);
        assert_eq!(kept(Policy { keep_daily: 3, ..none }, &TAKEN), [4, 5, 7]);
        assert_eq!(kept(Policy { keep_weekly: 2, ..none }, &TAKEN), [5, 7]);
        assert_eq!(kept(Policy { keep_weekly: 9, ..none }, &TAKEN), [1, 5, 7]);
        assert_eq!(kept(Policy { keep_monthly: 2, ..none }, &TAKEN), [0, 7]);
        assert_eq!(kept(Policy { keep_monthly: 2, keep_last: 2, ..none }, &TAKEN), [0, 6, 7]);
        assert_eq!(kept(Policy { keep_last: 100, ..none }, &TAKEN).len(), TAKEN.len());
    }

    #[test]
    fn as_many_periods_are_kept_where_clocks_disagree_and_the_newest_snapshot_always() {
        let none = Policy::default();
        let fast_clock = [
            "2026-02-02T12:00:00Z",
            "2026-02-03T12:00:00Z",
            "2026-02-04T00:00:05Z",
            "2026-02-03T23:59:58Z",
            "2026-02-04T09:00:00Z",
        ];
        assert_eq!(kept(Policy { keep_daily: 3, ..none }, &fast_clock), [0, 3, 4]);
        assert_eq!(kept(Policy { keep_daily: 2, ..none }, &fast_clock), [3, 4]);
        // What came after one of a clock that was years ahead is newer all the same.
        let wrong_clock = ["2026-02-02T12:00:00Z", "2031-01-01T00:00:00Z", "2026-02-03T12:00:00Z"];
        assert_eq!(kept(Policy { keep_daily: 1, ..none }, &wrong_clock), [2]);
        assert_eq!(kept(Policy { keep_monthly: 2, ..none }, &wrong_clock), [1, 2]);
    }
}
