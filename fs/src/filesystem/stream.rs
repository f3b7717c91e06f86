//! A directory read while it changes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::directory::entries;
use super::{DirEntry, FileSystem};
use crate::error::{Error, Result, shown};
use crate::format::Kind;
use crate::path::{Last, locate};
use crate::shared::Shared;

/// How many names are looked up at once.
const PAGE_ENTRIES: usize = 256;

/// A place in a directory: after a name, whether that is still there or not. It means the same to every process and after
/// the repository was opened again; the default is the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirCursor(Option<Vec<u8>>);

impl DirCursor {
    /// After a name.
    #[must_use]
    pub fn after(name: impl Into<Vec<u8>>) -> Self {
        Self(Some(name.into()))
    }

    /// The name it comes after; `None` at the start.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }
}

/// The names of a directory in the order of their bytes, read while it changes. It holds no state of the past, and may be
/// kept for as long as one likes.
///
/// A name that is there throughout comes exactly once; one that comes or goes meanwhile comes once or not at all. Of a
/// directory that was removed there are no more names.
pub struct DirStream {
    shared: Arc<Shared>,
    inode: u64,
    cursor: DirCursor,
    page: VecDeque<DirEntry>,
}

impl FileSystem {
    /// Opens a directory to be read while it changes; [`Self::open_dir`] reads it as it is at one moment.
    ///
    /// # Errors
    /// [`Error::NotADirectory`], and as [`Self::metadata`].
    pub async fn stream_dir(&self, path: impl AsRef<[u8]>) -> Result<DirStream> {
        let path = path.as_ref();
        let snapshot = self.shared.engine.snapshot();
        let entry = locate(&self.shared, &snapshot, path, Last::Followed).await?.existing(path)?;
        if entry.kind != Kind::Directory {
            return Err(Error::NotADirectory { path: shown(path) });
        }
        let shared = self.shared.clone();
        Ok(DirStream { shared, inode: entry.inode, cursor: DirCursor::default(), page: VecDeque::new() })
    }
}

impl DirStream {
    /// The next name.
    ///
    /// # Errors
    /// Those of the engine; the stream stays where it is then, and may be asked again.
    pub async fn next(&mut self) -> Result<Option<DirEntry>> {
        if self.page.is_empty() {
            let snapshot = self.shared.engine.snapshot();
            let mut listing = entries(&snapshot, self.inode, self.cursor.name());
            let mut page = VecDeque::new();
            while page.len() < PAGE_ENTRIES
                && let Some(entry) = listing.next().await?
            {
                page.push_back(entry);
            }
            self.page = page;
        }
        let entry = self.page.pop_front();
        if let Some(entry) = &entry {
            self.cursor = DirCursor::after(entry.name.clone());
        }
        Ok(entry)
    }

    /// Where the stream is: after the name that came last.
    #[must_use]
    pub fn cursor(&self) -> &DirCursor {
        &self.cursor
    }

    /// Goes on from a cursor, of this stream or of any other of the directory. What changed since is seen.
    pub fn seek(&mut self, cursor: DirCursor) {
        self.page.clear();
        self.cursor = cursor;
    }
}
