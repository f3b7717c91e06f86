//! Walking a tree of the repository, names ascending by bytes, without following links.

use strongroom::fs::{DirEntry, FsSnapshot, Kind, Metadata, ReadDir};

use crate::exit::Failure;
use crate::output::shown;

/// Something met below the folder that the walk began at.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// From the folder that the walk began at.
    pub(crate) relative: Vec<u8>,
    /// In the repository.
    pub(crate) path: Vec<u8>,
    pub(crate) entry: DirEntry,
    /// For each folder above it in this walk, and for itself: whether it is the last in its folder.
    pub(crate) last: Vec<bool>,
}

impl Found {
    pub(crate) async fn metadata(&self, snapshot: &FsSnapshot) -> Result<Metadata, Failure> {
        snapshot.inode_metadata(self.entry.inode).await.map_err(|error| Failure::from(error).on(shown(&self.path)))
    }
}

/// One step of a walk.
pub(crate) enum Step {
    /// A name; what is in it follows if it is a folder.
    Entry(Found),
    /// A folder is done.
    Leave(Found),
    /// A folder, or the rest of one, cannot be read; the walk goes on behind it.
    Unreadable(Vec<u8>, Failure),
}

struct Open {
    /// The folder; none for the one that the walk began at.
    found: Option<Found>,
    relative: Vec<u8>,
    path: Vec<u8>,
    names: Option<ReadDir>,
    peeked: Option<DirEntry>,
    /// Why the names end here, if not because there are no more.
    failure: Option<Failure>,
}

impl Open {
    async fn advance(&mut self) {
        let Some(names) = &mut self.names else { return };
        match names.next().await {
            Ok(next) => self.peeked = next,
            Err(error) => {
                self.names = None;
                self.failure = Some(error.into());
            }
        }
    }
}

/// A walk in progress.
pub(crate) struct Walk {
    snapshot: FsSnapshot,
    open: Vec<Open>,
    /// A folder that was answered and is entered next.
    enter: Option<Found>,
    descend: bool,
}

impl Walk {
    /// Begins in a folder. Without `descend` only its own names are met.
    pub(crate) async fn new(snapshot: FsSnapshot, path: &[u8], descend: bool) -> Result<Self, Failure> {
        let names = Some(snapshot.open_dir(path).await?);
        let mut open =
            Open { found: None, relative: Vec::new(), path: path.to_vec(), names, peeked: None, failure: None };
        open.advance().await;
        Ok(Self { snapshot, open: vec![open], enter: None, descend })
    }

    /// The next step; `None` at the end. A folder that was answered as an entry is entered, and left later, whether it
    /// can be read or not, unless [`Walk::skip`] was called between.
    pub(crate) async fn next(&mut self) -> Option<Step> {
        if let Some(found) = self.enter.take() {
            self.enter(found).await;
        }
        let folder = self.open.last_mut()?;
        let Some(entry) = folder.peeked.take() else {
            if let Some(failure) = folder.failure.take() {
                return Some(Step::Unreadable(folder.path.clone(), failure));
            }
            return self.open.pop().and_then(|folder| folder.found).map(Step::Leave);
        };
        folder.advance().await;
        let is_last = folder.peeked.is_none();
        let relative = join(&folder.relative, &entry.name);
        let path = join(&folder.path, &entry.name);
        let mut last: Vec<bool> = folder.found.as_ref().map_or_else(Vec::new, |found| found.last.clone());
        last.push(is_last);
        let found = Found { relative, path, entry, last };
        if self.descend && found.entry.kind == Kind::Directory {
            self.enter = Some(found.clone());
        }
        Some(Step::Entry(found))
    }

    /// Leaves out what is in the folder that was answered last.
    pub(crate) fn skip(&mut self) {
        self.enter = None;
    }

    async fn enter(&mut self, found: Found) {
        let (names, failure) = match self.snapshot.open_dir(&found.path).await {
            Ok(names) => (Some(names), None),
            Err(error) => (None, Some(error.into())),
        };
        let (relative, path) = (found.relative.clone(), found.path.clone());
        let mut open = Open { found: Some(found), relative, path, names, peeked: None, failure };
        open.advance().await;
        self.open.push(open);
    }
}

/// A name below a folder.
pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = folder.to_vec();
    if !path.is_empty() && path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
