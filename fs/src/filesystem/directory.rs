use std::ops::Bound;

use strongroom_core::engine::{Direction, Scan, View};

use crate::error::{Error, Result, damaged, shown};
use crate::format::{ENTRY, EntryRow, Kind, entry_range, split_entry_key};
use crate::inodes;
use crate::path::{Last, locate};
use crate::shared::Shared;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name: any bytes but zero and the slash.
    pub name: Vec<u8>,
    /// The inode.
    pub inode: u64,
    /// What it is.
    pub kind: Kind,
}

impl DirEntry {
    /// The name as text, where it is UTF-8.
    #[must_use]
    pub fn name_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.name).ok()
    }
}

/// The names of a directory, one by one in the order of their bytes.
pub struct ReadDir {
    scan: Scan,
    inode: u64,
}

impl ReadDir {
    /// The next name.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn next(&mut self) -> Result<Option<DirEntry>> {
        let Some((key, value)) = self.scan.next().await? else { return Ok(None) };
        let (parent, name) = split_entry_key(&key)?;
        if parent != self.inode {
            return Err(damaged("directory entry", "out of its directory's range"));
        }
        let EntryRow { inode, kind } = EntryRow::decode(&value)?;
        Ok(Some(DirEntry { name: name.to_vec(), inode, kind }))
    }

    /// All names that are left.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn collect(mut self) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        while let Some(entry) = self.next().await? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// The names of the directory `inode`, those after `after` where it is given.
pub(crate) fn entries(view: &dyn View, inode: u64, after: Option<&[u8]>) -> ReadDir {
    let (start, end) = entry_range(inode, after);
    let range = (as_slice(&start), as_slice(&end));
    ReadDir { scan: view.scan(ENTRY, range, Direction::Ascending), inode }
}

fn as_slice(bound: &Bound<crate::format::EntryKey>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key.as_slice()),
        Bound::Excluded(key) => Bound::Excluded(key.as_slice()),
        Bound::Unbounded => Bound::Unbounded,
    }
}

pub(super) async fn open(shared: &Shared, view: &dyn View, path: &[u8], after: Option<&[u8]>) -> Result<ReadDir> {
    let entry = locate(shared, view, path, Last::Followed).await?.existing(path)?;
    if entry.kind != Kind::Directory {
        return Err(Error::NotADirectory { path: shown(path) });
    }
    Ok(entries(view, entry.inode, after))
}

pub(super) async fn read_link(shared: &Shared, view: &dyn View, path: &[u8]) -> Result<Vec<u8>> {
    let entry = locate(shared, view, path, Last::Itself).await?.existing(path)?;
    if entry.kind != Kind::Symlink {
        return Err(Error::NotASymlink { path: shown(path) });
    }
    inodes::symlink_target(shared, view, entry.inode).await
}
