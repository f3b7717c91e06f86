//! Which names of this machine are names of one file, so that they become names of one file in the repository too.
//!
//! Two things are kept apart: the names of one file here, of which the first is stored and the others become links to it;
//! and files of the repository with several names, of which one file here at most may be the original. What is stored
//! never goes into a file that another name leads to as well: that name may stand for something else by now.

use std::collections::HashMap;

use crate::local::source::{Entry, Identity};

/// So many bytes of memory are spent on remembering names; beyond, each further name is stored as a file of its own.
const MEMORY_BYTES_MAX: usize = 64 << 20;
/// What a row takes beside the path in it.
const ROW_BYTES: usize = 96;

/// The first name that a file was stored under.
#[derive(Debug)]
pub(super) struct First {
    pub(super) path: Vec<u8>,
    /// In the repository, where the file was found there unchanged.
    pub(super) inode: Option<u64>,
    names_left: u64,
}

/// Names of files that have several.
#[derive(Debug, Default)]
pub(super) struct Links {
    firsts: HashMap<Identity, First>,
    originals: HashMap<u64, Identity>,
    bytes: usize,
    forgotten: u64,
}

impl Links {
    /// The name that this file was met under before; each name is asked for once.
    pub(super) fn first(&mut self, entry: &Entry) -> Option<First> {
        if entry.names < 2 {
            return None;
        }
        let first = self.firsts.get_mut(&entry.identity)?;
        first.names_left = first.names_left.saturating_sub(1);
        if first.names_left > 0 {
            let First { path, inode, names_left } = first;
            return Some(First { path: path.clone(), inode: *inode, names_left: *names_left });
        }
        let last = self.firsts.remove(&entry.identity)?;
        self.bytes = self.bytes.saturating_sub(ROW_BYTES + last.path.len());
        Some(last)
    }

    /// Remembers where a file went that has further names, or where it was found.
    pub(super) fn met(&mut self, entry: &Entry, path: &[u8], inode: Option<u64>) {
        if entry.names < 2 {
            return;
        }
        if !self.grows(path.len()) {
            self.forgotten += 1;
            return;
        }
        let first = First { path: path.to_vec(), inode, names_left: entry.names - 1 };
        self.firsts.insert(entry.identity, first);
    }

    /// Whether a file of the repository that has several names may be taken for the one here: no other was, so far.
    pub(super) fn is_original(&mut self, inode: u64, identity: Identity) -> bool {
        if let Some(original) = self.originals.get(&inode) {
            return *original == identity;
        }
        // What cannot be remembered is not relied on.
        let remembered = self.grows(0);
        if remembered {
            self.originals.insert(inode, identity);
        }
        remembered
    }

    /// How many files with several names were too many to remember.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn grows(&mut self, path_bytes: usize) -> bool {
        let bytes = self.bytes.saturating_add(ROW_BYTES + path_bytes);
        let fits = bytes <= MEMORY_BYTES_MAX;
        if fits {
            self.bytes = bytes;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::source::entry_at;

    fn entry(names: u64) -> Entry {
        let file = tempfile::NamedTempFile::new().unwrap();
        Entry { names, ..entry_at(file.path(), b"file".to_vec()).unwrap() }
    }

    #[test]
    fn the_first_name_is_forgotten_with_the_last() {
        let (mut links, three) = (Links::default(), entry(3));
        assert!(links.first(&three).is_none());
        links.met(&three, b"/a", Some(7));
        for _ in 0..2 {
            let first = links.first(&three).unwrap();
            assert_eq!((first.path.as_slice(), first.inode), (&b"/a"[..], Some(7)));
        }
        assert!(links.first(&three).is_none());
        assert_eq!(links.bytes, 0);
        links.met(&entry(1), b"/b", None);
        assert_eq!(links.bytes, 0);
    }

    #[test]
    fn a_file_of_the_repository_is_the_copy_of_one_file_here_at_most() {
        let (mut links, one, other) = (Links::default(), entry(1), entry(1));
        let (one, other) = (one.identity, other.identity);
        if one != other {
            assert!(links.is_original(1, one) && links.is_original(1, one));
            assert!(!links.is_original(1, other) && links.is_original(2, other));
        }
    }

    #[test]
    fn beyond_the_bound_nothing_is_remembered_and_nothing_relied_on() {
        let (mut links, two) = (Links { bytes: MEMORY_BYTES_MAX, ..Links::default() }, entry(2));
        links.met(&two, b"/a", None);
        assert!(links.first(&two).is_none() && !links.is_original(1, two.identity));
        assert_eq!((links.forgotten(), links.bytes), (1, MEMORY_BYTES_MAX));
    }
}
