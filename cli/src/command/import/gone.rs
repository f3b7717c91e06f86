//! What the repository has and the sources no longer have: noted while the sources are gone through, and removed when
//! everything else is stored.
//!
//! Nothing is taken for gone because it could not be looked at. A name counts only if its folder was listed without it, or
//! with a device, FIFO or socket in its place, which are not stored; and if, when all is stored, the same folder is still there
//! and still is so. Where anything at all could not be read, nothing is removed.

use std::path::{Path, PathBuf};

use strongroom::fs::{FsSnapshot, Kind};

use crate::exit::Failure;
use crate::local::exclude::Exclude;
use crate::local::source::{Entry, Identity};
use crate::walk::{Step, Walk, join};

/// So many bytes of memory are spent on names; what is gone beyond that is removed by the next import.
const MEMORY_BYTES_MAX: usize = 64 << 20;
/// What a row takes beside the names in it.
const ROW_BYTES: usize = 64;

/// Names that were gone from one folder.
#[derive(Debug)]
pub(super) struct Lacking {
    /// The folder as it was met.
    pub(super) folder: PathBuf,
    pub(super) identity: Identity,
    /// From the name of the SRC on.
    pub(super) relative: Vec<u8>,
    pub(super) names: Vec<Vec<u8>>,
}

/// What is to be removed at the end.
#[derive(Debug, Default)]
pub(super) struct Gone {
    folders: Vec<Lacking>,
    /// Files and links that have a folder of the repository in their way.
    blocked: Vec<Entry>,
    bytes: usize,
    forgotten: u64,
}

impl Gone {
    /// A name that the repository has in a folder, and the folder here has not, or has for something that is not stored.
    pub(super) fn lacks(&mut self, folder: &Path, identity: Identity, relative: &[u8], name: Vec<u8>) {
        let is_last = |last: &Lacking| last.identity == identity && last.relative == relative;
        let is_further = self.folders.last().is_some_and(is_last);
        let paths = if is_further { 0 } else { folder.as_os_str().len() + relative.len() };
        if !self.grows(name.len() + paths) {
            return;
        }
        match self.folders.last_mut() {
            Some(last) if is_further => last.names.push(name),
            _ => {
                let (folder, relative) = (folder.to_owned(), relative.to_vec());
                self.folders.push(Lacking { folder, identity, relative, names: vec![name] });
            }
        }
    }

    /// Something that can be stored only when a folder of the repository is gone.
    pub(super) fn blocks(&mut self, entry: Entry) {
        if self.grows(entry.relative.len()) {
            self.blocked.push(entry);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.blocked.is_empty()
    }

    /// How many names were too many to remember.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub(super) fn take(&mut self) -> (Vec<Lacking>, Vec<Entry>) {
        (std::mem::take(&mut self.folders), std::mem::take(&mut self.blocked))
    }

    fn grows(&mut self, bytes: usize) -> bool {
        let bytes = self.bytes.saturating_add(ROW_BYTES + bytes);
        let fits = bytes <= MEMORY_BYTES_MAX;
        if fits {
            self.bytes = bytes;
        } else {
            self.forgotten += 1;
        }
        fits
    }
}

/// Something to remove from the repository: all that was in it is removed before.
#[derive(Debug)]
pub(super) enum Doomed {
    Leaf(Vec<u8>),
    Folder(Vec<u8>),
    /// It cannot be looked into, and stays.
    Unreadable(Vec<u8>, Failure),
}

/// Goes through what is at a path of the repository, in the order in which it can be removed, without what is excluded
/// and what leads to that.
pub(super) struct Doom {
    walk: Option<Walk>,
    exclude_from: Vec<u8>,
    top: Option<Doomed>,
    /// For each open folder, whether something in it stays.
    kept: Vec<bool>,
}

impl Doom {
    /// `relative`: the path from the name of the SRC on, which patterns are held against.
    pub(super) async fn at(snapshot: &FsSnapshot, path: &[u8], relative: &[u8]) -> Result<Self, Failure> {
        let (walk, top) = match snapshot.symlink_metadata(path).await {
            Ok(metadata) if metadata.kind == Kind::Directory => {
                (Some(Walk::new(snapshot.clone(), path, true).await?), Some(Doomed::Folder(path.to_vec())))
            }
            Ok(_) => (None, Some(Doomed::Leaf(path.to_vec()))),
            Err(strongroom::Error::NotFound { .. }) => (None, None),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { walk, exclude_from: relative.to_vec(), top, kept: vec![false] })
    }

    /// The next thing to remove.
    pub(super) async fn next(&mut self, exclude: &Exclude) -> Option<Doomed> {
        while let Some(walk) = &mut self.walk {
            match walk.next().await {
                Some(Step::Entry(found)) => {
                    let excluded = exclude.matches(&join(&self.exclude_from, &found.relative));
                    if excluded {
                        walk.skip();
                        self.keep();
                    } else if found.entry.kind == Kind::Directory {
                        self.kept.push(false);
                    } else {
                        return Some(Doomed::Leaf(found.path));
                    }
                }
                Some(Step::Leave(found)) => match self.kept.pop() {
                    Some(false) => return Some(Doomed::Folder(found.path)),
                    _ => self.keep(),
                },
                Some(Step::Unreadable(path, failure)) => {
                    self.keep();
                    return Some(Doomed::Unreadable(path, failure));
                }
                None => self.walk = None,
            }
        }
        if self.kept_any() { None } else { self.top.take() }
    }

    /// Whether something in it stays, and so it does itself.
    pub(super) fn kept_any(&self) -> bool {
        self.kept.first().is_some_and(|kept| *kept)
    }

    fn keep(&mut self) {
        if let Some(kept) = self.kept.last_mut() {
            *kept = true;
        }
    }
}
