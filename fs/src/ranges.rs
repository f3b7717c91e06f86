use std::collections::BTreeMap;
use std::ops::Range;

/// A set of offsets, as ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// Start -> end.
    ends: BTreeMap<u64, u64>,
}

impl Ranges {
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ends.iter().map(|(&start, &end)| start..end)
    }

    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&before, &until)) = self.ends.range(..=end).next_back().filter(|(_, until)| **until >= start) {
            start = start.min(before);
            end = end.max(until);
            self.ends.remove(&before);
        }
        self.ends.insert(start, end);
    }

    /// The parts of a range that are not in the set.
    pub(crate) fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let before = self.ends.range(..=range.start).next_back();
        for (&start, &end) in before.into_iter().chain(self.ends.range(range.start.saturating_add(1)..)) {
            if start >= range.end {
                break;
            }
            if start > at {
                gaps.push(at..start);
            }
            at = at.max(end);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_the_set_of_what_was_inserted(
            inserted in proptest::collection::vec((0u64..60, 0u64..20), 0..12), asked in (0u64..60, 0u64..30),
        ) {
            let (mut ranges, mut set) = (Ranges::default(), [false; 100]);
            for (start, length) in inserted {
                ranges.insert(start..start + length);
                set[start as usize..(start + length) as usize].fill(true);
            }
            let mut seen = [false; 100];
            let mut last = None;
            for range in ranges.iter() {
                prop_assert!(!range.is_empty() && last.is_none_or(|last| last < range.start));
                last = Some(range.end);
                seen[range.start as usize..range.end as usize].fill(true);
            }
            prop_assert_eq!(seen, set);
            let mut missing = [false; 100];
            for gap in ranges.gaps(asked.0..asked.0 + asked.1) {
                prop_assert!(!gap.is_empty());
                missing[gap.start as usize..gap.end as usize].fill(true);
            }
            for at in 0..100_u64 {
                let asked = (asked.0..asked.0 + asked.1).contains(&at);
                prop_assert_eq!(missing[at as usize], asked && !set[at as usize]);
            }
        }
    }
}
