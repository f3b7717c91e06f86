//! Files with several names: which name each was met under first, remembered in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;

/// So many bytes of memory are spent on remembering; beyond, each further name is a file of its own.
const MEMORY_BYTES_MAX: usize = 64 << 20;
/// What a row takes beside the path in it.
const ROW_BYTES: usize = 96;

/// The name that a file was met under first, and what was noted with it.
#[derive(Clone, Debug)]
pub(crate) struct First<T> {
    pub(crate) path: Vec<u8>,
    pub(crate) note: T,
}

/// The first names of files that have several.
#[derive(Debug)]
pub(crate) struct FirstNames<K, T> {
    rows: HashMap<K, Row<T>>,
    bytes: usize,
    forgotten: u64,
}

#[derive(Debug)]
struct Row<T> {
    first: First<T>,
    names_left: u64,
}

impl<K, T> Default for FirstNames<K, T> {
    fn default() -> Self {
        Self { rows: HashMap::new(), bytes: 0, forgotten: 0 }
    }
}

impl<K: Hash + Eq, T: Clone> FirstNames<K, T> {
    /// The name that this file was met under before. Each name is asked for once: with the last, the row is given up.
    pub(crate) fn of(&mut self, key: &K) -> Option<First<T>> {
        let row = self.rows.get_mut(key)?;
        row.names_left = row.names_left.saturating_sub(1);
        if row.names_left > 0 {
            return Some(row.first.clone());
        }
        let last = self.rows.remove(key)?;
        self.bytes = self.bytes.saturating_sub(ROW_BYTES + last.first.path.len());
        Some(last.first)
    }

    /// Remembers where a file with so many names was met first.
    pub(crate) fn met(&mut self, key: K, names: u64, path: &[u8], note: T) {
        let bytes = self.bytes.saturating_add(ROW_BYTES + path.len());
        if names < 2 {
            return;
        }
        if bytes > MEMORY_BYTES_MAX {
            self.forgotten += 1;
            return;
        }
        self.bytes = bytes;
        let first = First { path: path.to_vec(), note };
        self.rows.insert(key, Row { first, names_left: names - 1 });
    }

    /// How many files were too many to remember.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_is_forgotten_with_the_last() {
        let mut names = FirstNames::default();
        assert!(names.of(&1).is_none());
        names.met(1, 3, b"/a", 7);
        for _ in 0..2 {
            let first = names.of(&1).unwrap();
            assert_eq!((first.path.as_slice(), first.note), (&b"/a"[..], 7));
        }
        assert!(names.of(&1).is_none());
        assert_eq!(names.bytes, 0);
        names.met(2, 1, b"/b", 7);
        assert_eq!(names.bytes, 0);
    }

    #[test]
    fn beyond_the_bound_nothing_is_remembered() {
        let mut names = FirstNames { bytes: MEMORY_BYTES_MAX, ..FirstNames::default() };
        names.met(1, 2, b"/a", ());
        assert!(names.of(&1).is_none());
        assert_eq!((names.forgotten(), names.bytes), (1, MEMORY_BYTES_MAX));
    }
}
