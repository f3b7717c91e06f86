//! What a transaction has looked at, by which commits since its beginning are judged.
//!
//! It takes what was looked at, however often that was: ranges that overlap or touch are one.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Bound;

use bytes::Bytes;

/// Keys and ranges of keys that a transaction has looked at.
#[derive(Default)]
pub(crate) struct ReadSet {
    pub(crate) points: Points,
    pub(crate) ranges: KeyRanges,
}

impl ReadSet {
    pub(crate) fn holds(&self, key: &[u8]) -> bool {
        self.points.may_hold(key) || self.ranges.holds(key)
    }
}

/// A set of keys, of each of which it has a hash. It may take a key for one of them that is not, with a chance of one in 2^64 for
/// each that it has: who looked at neither is told of a conflict then, and looks again. Where the
/// system has randomness for the standard library, nobody can choose keys that come to that: the hash is another in each set.
#[derive(Default)]
pub(crate) struct Points {
    hashes: HashSet<u64>,
    hasher: RandomState,
}

impl Points {
    pub(crate) fn insert(&mut self, key: &[u8]) {
        self.hashes.insert(self.hasher.hash_one(key));
    }

    fn may_hold(&self, key: &[u8]) -> bool {
        !self.hashes.is_empty() && self.hashes.contains(&self.hasher.hash_one(key))
    }
}

/// A set of keys as ranges that neither overlap nor touch: where each starts, and where it ends.
#[derive(Default)]
pub(crate) struct KeyRanges(BTreeMap<Bytes, End>);

/// The first key that a range has no longer. Ordered as ranges end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Never,
}

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < &**end,
            Self::Never => true,
        }
    }

    fn touches(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key <= &**end,
            Self::Never => true,
        }
    }
}

/// The key that comes next after a key.
fn next(key: &[u8]) -> Bytes {
    Bytes::from([key, &[0]].concat())
}

impl KeyRanges {
    pub(crate) fn insert(&mut self, range: (Bound<Bytes>, Bound<Bytes>)) {
        let mut start = match range.0 {
            Bound::Included(key) => key,
            Bound::Excluded(key) => next(&key),
            Bound::Unbounded => Bytes::new(),
        };
        let mut end = match range.1 {
            Bound::Included(key) => End::Before(next(&key)),
            Bound::Excluded(key) => End::Before(key),
            Bound::Unbounded => End::Never,
        };
        if !end.is_after(&start) {
            return;
        }
        while let Some((first, last)) = self.last_begun(&end).filter(|(_, last)| last.touches(&start)) {
            if *first <= start && *last >= end {
                // What is read again and again costs no more than this look.
                return;
            }
            let (first, last) = (first.clone(), last.clone());
            self.0.remove(&first);
            start = start.min(first);
            end = end.max(last);
        }
        self.0.insert(start, end);
    }

    /// The last range that starts before `end`, or there.
    fn last_begun(&self, end: &End) -> Option<(&Bytes, &End)> {
        match end {
            End::Before(key) => self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(&**key))).next_back(),
            End::Never => self.0.last_key_value(),
        }
    }

    fn holds(&self, key: &[u8]) -> bool {
        let begun = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        begun.is_some_and(|(_, end)| end.is_after(key))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds as _;

    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(0_u8..3, 0..4).prop_map(Bytes::from)
    }

    fn bound() -> impl Strategy<Value = Bound<Bytes>> {
        prop_oneof![key().prop_map(Bound::Included), key().prop_map(Bound::Excluded), Just(Bound::Unbounded)]
    }

    proptest! {
        #[test]
        fn a_key_is_held_where_one_of_the_ranges_has_it(
            ranges in proptest::collection::vec((bound(), bound()), 0..8), keys in proptest::collection::vec(key(), 30),
        ) {
            let mut set = KeyRanges::default();
            for range in &ranges {
                set.insert(range.clone());
            }
            for key in keys {
                let expected = ranges.iter().any(|range| range.contains(&key));
                prop_assert_eq!(set.holds(&key), expected, "{:?}", key);
            }
            let mut before: Option<&End> = None;
            for (start, end) in &set.0 {
                prop_assert!(end.is_after(start) && before.is_none_or(|before| !before.touches(start)));
                before = Some(end);
            }
        }
    }

    #[test]
    fn a_point_is_held_and_none_beside_it() {
        let key = |number: u32| number.to_be_bytes();
        let mut set = ReadSet::default();
        assert!(!set.holds(&key(0)));
        for number in (0..20_000).step_by(2) {
            set.points.insert(&key(number));
        }
        assert!((0..20_000).all(|number| set.holds(&key(number)) == (number % 2 == 0)));
    }

    #[test]
    fn what_is_read_again_takes_nothing_more() {
        let key = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
        let mut set = KeyRanges::default();
        for number in 0..10_000 {
            // As whoever looks for what covers an offset, and reads on from there.
            set.insert((Bound::Included(key(0)), Bound::Included(key(number * 7919 % 1000))));
            set.insert((Bound::Included(key(number * 31 % 1000)), Bound::Included(key(u32::MAX))));
        }
        assert_eq!(set.0.len(), 1);
    }
}
