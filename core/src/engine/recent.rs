//! What recent commits wrote, by which transactions that began before them are judged, and when they were made.
//!
//! Held in few bytes: of a key, what differs from the one before. What is over the bound is forgotten, oldest first, and
//! with it the transactions that are older still; when commits were made stays known for longer, as the floor needs it.

use std::collections::VecDeque;
use std::sync::Arc;

/// How many commits are remembered, at most.
const COMMITS_MAX: usize = 4096;
/// How many bytes the keys of all of them take, at most.
const KEYS_BYTES_MAX: usize = 4 << 20;

/// The keys of one commit, in their order: how much each has in common with the one before, how much more there is, and
/// that.
#[derive(Debug, Default)]
pub(crate) struct Keys(Box<[u8]>);

impl Keys {
    pub(crate) fn new<'k>(keys: impl IntoIterator<Item = &'k [u8]>) -> Self {
        let mut packed = Vec::new();
        let mut last: &[u8] = &[];
        for key in keys {
            let common = last.iter().zip(key).take_while(|(one, other)| one == other).count();
            // A key is shorter than a tree node, so both lengths fit; of one that was not, less would be in common.
            let common = common.min(usize::from(u16::MAX));
            let rest = key.get(common..).unwrap_or_default();
            packed.extend_from_slice(&u16::try_from(common).unwrap_or(u16::MAX).to_le_bytes());
            packed.extend_from_slice(&u16::try_from(rest.len()).unwrap_or(u16::MAX).to_le_bytes());
            packed.extend_from_slice(rest);
            last = key;
        }
        Self(packed.into_boxed_slice())
    }

    /// Whether a test is true of any.
    pub(crate) fn any(&self, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        let mut key = Vec::new();
        let mut packed = &*self.0;
        while let Some((common, more)) = packed.split_first_chunk()
            && let Some((rest, more)) = more.split_first_chunk()
        {
            let (rest, more) = more.split_at_checked(u16::from_le_bytes(*rest).into()).unwrap_or((more, &[]));
            key.truncate(u16::from_le_bytes(*common).into());
            key.extend_from_slice(rest);
            if test(&key) {
                return true;
            }
            packed = more;
        }
        false
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// The newest commits, without gaps.
#[derive(Default)]
pub(crate) struct Recent {
    commits: VecDeque<RecentCommit>,
    /// How many of the newest have their keys.
    with_keys: usize,
    keys_bytes: usize,
}

struct RecentCommit {
    sequence: u64,
    time: u64,
    /// `None` where they are forgotten.
    keys: Option<Arc<Keys>>,
}

impl Recent {
    pub(crate) fn push(&mut self, sequence: u64, time: u64, keys: Keys) {
        if self.commits.back().is_some_and(|last| last.sequence + 1 != sequence) {
            self.clear();
        }
        self.keys_bytes += keys.bytes();
        self.with_keys += 1;
        self.commits.push_back(RecentCommit { sequence, time, keys: Some(Arc::new(keys)) });
        // Those of the newest stay, however many they are: whoever began just before is not to begin anew for ever.
        while self.keys_bytes > KEYS_BYTES_MAX && self.with_keys > 1 {
            let oldest = self.commits.len() - self.with_keys;
            self.with_keys -= 1;
            let forgotten = self.commits.get_mut(oldest).and_then(|commit| commit.keys.take());
            self.keys_bytes -= forgotten.map_or(0, |keys| keys.bytes());
        }
        while self.commits.len() > COMMITS_MAX {
            let forgotten = self.commits.pop_front().and_then(|commit| commit.keys);
            self.with_keys = self.with_keys.min(self.commits.len());
            self.keys_bytes -= forgotten.map_or(0, |keys| keys.bytes());
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What was written after `base`, up to `head`; `None` where that is not remembered any more.
    pub(crate) fn since(&self, base: u64, head: u64) -> Option<Vec<Arc<Keys>>> {
        if base == head {
            return Some(Vec::new());
        }
        let first = self.commits.front()?.sequence;
        let last = self.commits.back()?.sequence;
        if first > base + 1 || last != head {
            return None;
        }
        self.commits.iter().filter(|commit| commit.sequence > base).map(|commit| commit.keys.clone()).collect()
    }

    /// The newest commit made at or before `time`.
    pub(crate) fn newest_at(&self, time: u64) -> Option<u64> {
        self.commits.iter().rev().find(|commit| commit.time <= time).map(|commit| commit.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_of(keys: &Keys) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        keys.any(|key| {
            all.push(key.to_vec());
            false
        });
        all
    }

    #[test]
    fn keys_come_out_as_they_went_in() {
        let long = vec![7; 4000];
        let given: Vec<&[u8]> = vec![b"", b"a", b"ab", b"abc", b"abd", b"b", &long[..3999], &long, b"\xff"];
        assert_eq!(keys_of(&Keys::new(given.iter().copied())), given);
        assert_eq!(keys_of(&Keys::default()), Vec::<Vec<u8>>::new());
        assert!(Keys::new(given.iter().copied()).any(|key| key == b"abd"));
    }

    #[test]
    fn a_million_keys_that_are_alike_take_a_few_bytes_each() {
        let keys: Vec<[u8; 17]> = (0..100_000_u64)
            .map(|number| {
                let mut key = [0x10; 17];
                key[9..].copy_from_slice(&number.to_be_bytes());
                key
            })
            .collect();
        let packed = Keys::new(keys.iter().map(<[u8; 17]>::as_slice));
        assert!(packed.bytes() <= 6 * keys.len(), "{}", packed.bytes());
    }

    #[test]
    fn what_is_over_the_bound_is_forgotten_oldest_first_and_its_time_is_not() {
        let mut recent = Recent::default();
        let key = vec![1; 30_000];
        let commits = (KEYS_BYTES_MAX / key.len() + 10) as u64;
        for sequence in 1..=commits {
            let key: Vec<u8> = key.iter().map(|_| sequence as u8).collect();
            recent.push(sequence, sequence * 10, Keys::new([key.as_slice()]));
        }
        assert!(recent.keys_bytes <= KEYS_BYTES_MAX);
        assert_eq!(recent.since(1, commits).map(|keys| keys.len()), None);
        let kept = recent.with_keys as u64;
        assert!(kept > 100 && kept < commits, "{kept}");
        assert_eq!(recent.since(commits - kept, commits).map(|keys| keys.len() as u64), Some(kept));
        assert!(recent.since(commits - kept - 1, commits).is_none());
        assert_eq!(recent.newest_at(15), Some(1));
        recent.push(commits + 1, commits * 10, Keys::new([vec![3; 65_000].as_slice()]));
        assert_eq!(recent.since(commits, commits + 1).map(|keys| keys.len()), Some(1));
        // A gap is not bridged.
        recent.push(commits + 5, commits * 10, Keys::default());
        assert!(recent.since(commits, commits + 5).is_none());
        assert_eq!(recent.since(commits + 4, commits + 5).map(|keys| keys.len()), Some(1));
    }

    #[test]
    fn commits_beyond_the_number_remembered_are_forgotten_whole() {
        let mut recent = Recent::default();
        for sequence in 1..=COMMITS_MAX as u64 + 3 {
            recent.push(sequence, sequence, Keys::new([b"key".as_slice()]));
        }
        assert_eq!((recent.commits.len(), recent.with_keys), (COMMITS_MAX, COMMITS_MAX));
        assert_eq!(recent.keys_bytes, 7 * COMMITS_MAX);
        assert_eq!(recent.newest_at(3), None);
    }
}
