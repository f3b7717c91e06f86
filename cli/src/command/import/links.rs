//! Which names of this machine are names of one file, so that they become names of one file in the repository too.
//!
//! Two things are kept apart: the names of one file here, of which the first is stored and the others become links to it;
//! and files of the repository with several names, of which one file here at most may be the original. What is stored
//! never goes into a file that another name leads to as well: that name may stand for something else by now.

use std::collections::{HashMap, HashSet};

use crate::first_name::{First, FirstNames};
use crate::local::source::{Entry, Identity};

/// So many files of the repository with several names are remembered; the names of further ones become files of their own.
const ORIGINALS_MAX: usize = 1 << 20;

/// Names of files that have several.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// With the inode in the repository, where the file was found there unchanged.
    firsts: FirstNames<Identity, Option<u64>>,
    originals: HashMap<u64, Identity>,
    /// Paths at which no more is than was before the import, though they were met: when the steps were taken again, theirs
    /// could not be.
    left_out: HashSet<Vec<u8>>,
}

impl Links {
    /// The name that this file was met under before; each name is asked for once.
    pub(super) fn first(&mut self, entry: &Entry) -> Option<First<Option<u64>>> {
        if entry.names < 2 { None } else { self.firsts.of(&entry.identity) }
    }

    /// Remembers where a file went that has further names, or where it was found.
    pub(super) fn met(&mut self, entry: &Entry, path: &[u8], inode: Option<u64>) {
        self.firsts.met(entry.identity, entry.names, path, inode);
    }

    /// Remembers that what was to go to a path was left out after all.
    pub(super) fn left_out(&mut self, path: &[u8]) {
        self.left_out.insert(path.to_vec());
    }

    /// Whether what is at a path is not the file that was met under it.
    pub(super) fn is_left_out(&self, path: &[u8]) -> bool {
        self.left_out.contains(path)
    }

    /// Whether a file of the repository that has several names may be taken for the one here: no other was, so far.
    pub(super) fn is_original(&mut self, inode: u64, identity: Identity) -> bool {
        if let Some(original) = self.originals.get(&inode) {
            return *original == identity;
        }
        // What cannot be remembered is not relied on.
        let remembered = self.originals.len() < ORIGINALS_MAX;
        if remembered {
            self.originals.insert(inode, identity);
        }
        remembered
    }

    /// How many files with several names were too many to remember.
    pub(super) fn forgotten(&self) -> u64 {
        self.firsts.forgotten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::source::entry_at;

    #[test]
    fn a_file_of_the_repository_is_the_copy_of_one_file_here_at_most() {
        let files = [tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap()];
        let [one, other] = files.each_ref().map(|file| entry_at(file.path(), Vec::new()).unwrap().identity);
        let mut links = Links::default();
        assert!(links.is_original(1, one) && links.is_original(1, one));
        assert!(!links.is_original(1, other) && links.is_original(2, other));
    }

    #[test]
    fn a_first_name_whose_file_was_left_out_after_all_is_told_from_one_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        std::fs::write(&one, "two names").unwrap();
        std::fs::hard_link(&one, &other).unwrap();
        let mut links = Links::default();
        links.met(&entry_at(&one, Vec::new()).unwrap(), b"/one", None);
        links.left_out(b"/one");
        let first = links.first(&entry_at(&other, Vec::new()).unwrap()).unwrap();
        assert!(links.is_left_out(&first.path) && !links.is_left_out(b"/other"));
    }
}
