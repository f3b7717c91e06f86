use std::collections::HashMap;
use std::sync::Arc;

use strongroom_core::engine::{CommitInfo, Transaction};

use super::{DirEntry, directory};
use crate::error::{Error, Result, shown};
use crate::extents;
use crate::file::OpenFile;
use crate::format::{CONTENT, ContentRow, ENTRY, EntryRow, Kind, SUBDIRECTORIES, entry_key, inode_key};
use crate::inodes::{self, Metadata};
use crate::path::{Last, Located, locate};
use crate::shared::Shared;
use crate::versions::ContentChange;

/// Many operations, all or nothing. It sees its own changes; others see them when it is committed. Dropping it aborts it.
///
/// An operation that is refused, say because a name is taken, changes nothing, and the transaction goes on. One that fails
/// half way (storage failed, or its future was dropped) leaves the transaction fit for nothing but dropping, and
/// [`Self::commit`] says so.
pub struct FsTransaction {
    pub(crate) shared: Arc<Shared>,
    pub(crate) transaction: Transaction,
    /// An operation began to change rows and has not come to its end.
    pub(super) unfinished: bool,
    /// What it does to contents, by inode: all changes to one file make one version.
    pub(super) changes: HashMap<u64, ContentChange>,
    /// Files that it deletes.
    pub(super) deleted: Vec<u64>,
    /// Files whose last name it removes, and that are open: kept until it is settled.
    pub(super) orphaned: Vec<Arc<OpenFile>>,
}

impl FsTransaction {
    pub(super) fn new(shared: Arc<Shared>, transaction: Transaction) -> Self {
        Self {
            shared,
            transaction,
            unfinished: false,
            changes: HashMap::new(),
            deleted: Vec::new(),
            orphaned: Vec::new(),
        }
    }

    /// Makes it durable, all or nothing.
    ///
    /// # Errors
    /// [`strongroom_core::Error::Conflict`] where another transaction changed what this one read or changed: begin anew.
    /// [`Error::Interrupted`] after an operation that failed half way. Those of the engine.
    pub async fn commit(self) -> Result<CommitInfo> {
        if self.unfinished {
            return Err(Error::Interrupted);
        }
        let Self { shared, transaction, deleted, orphaned, .. } = self;
        let going = shared.common.handles.go(&deleted)?;
        let result = transaction.commit().await;
        drop((going, orphaned));
        shared.reclaim_abandoned().await;
        Ok(result?)
    }

    /// The engine's transaction, to change application tables along with files.
    pub fn engine(&mut self) -> &mut Transaction {
        &mut self.transaction
    }

    /// Bytes of memory that it holds until it is committed. Long imports commit when this grows over a few MiB.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.transaction.pending_bytes()
    }

    /// What is at a path; symbolic links are followed.
    ///
    /// # Errors
    /// As [`super::FileSystem::metadata`].
    pub async fn metadata(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let path = path.as_ref();
        let entry = self.locate(path, Last::Followed).await?.existing(path)?;
        inodes::metadata(&self.transaction, entry.inode).await
    }

    /// What is at a path, a symbolic link at its end not followed.
    ///
    /// # Errors
    /// As [`super::FileSystem::metadata`].
    pub async fn symlink_metadata(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let path = path.as_ref();
        let entry = self.locate(path, Last::Itself).await?.existing(path)?;
        inodes::metadata(&self.transaction, entry.inode).await
    }

    /// Whether something is at a path.
    ///
    /// # Errors
    /// Those of walking a path, save that nothing is there.
    pub async fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        match self.metadata(path).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All names in a directory, in the order of their bytes.
    ///
    /// # Errors
    /// As [`super::FileSystem::metadata`].
    pub async fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<Vec<DirEntry>> {
        directory::open(&self.shared, &self.transaction, path.as_ref(), None).await?.collect().await
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// As [`super::FileSystem::read_link`].
    pub async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        directory::read_link(&self.shared, &self.transaction, path.as_ref()).await
    }

    /// The whole content of a file.
    ///
    /// # Errors
    /// As [`super::FileSystem::read`].
    pub async fn read(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let inode = self.file_inode(path).await?;
        let size = inodes::file_content(&self.transaction, inode).await?.size;
        let mut content = zeros(size)?;
        extents::read(&self.shared, &self.transaction, inode, 0, &mut content).await?;
        Ok(content)
    }

    pub(super) async fn file_inode(&self, path: &[u8]) -> Result<u64> {
        let entry = self.locate(path, Last::Followed).await?.existing(path)?;
        file_only(entry, path)
    }

    pub(super) async fn locate(&self, path: &[u8], last: Last) -> Result<Located> {
        locate(&self.shared, &self.transaction, path, last).await
    }

    /// Puts a name into a directory. Of the directory's own rows only the merged ones change, so that others can do the
    /// same at the same time.
    pub(super) async fn put_entry(&mut self, parent: u64, name: &[u8], entry: EntryRow, moment: u64) -> Result<()> {
        self.transaction.put(ENTRY, entry_key(parent, name).as_slice(), &entry.encode())?;
        if entry.kind == Kind::Directory {
            self.transaction.add(SUBDIRECTORIES, &inode_key(parent), 1).await?;
        }
        self.touch_directory(parent, moment).await
    }

    /// Takes a name out of a directory.
    pub(super) async fn delete_entry(&mut self, parent: u64, name: &[u8], kind: Kind, moment: u64) -> Result<()> {
        self.transaction.delete(ENTRY, entry_key(parent, name).as_slice())?;
        if kind == Kind::Directory {
            self.transaction.add(SUBDIRECTORIES, &inode_key(parent), -1).await?;
        }
        self.touch_directory(parent, moment).await
    }

    /// What this transaction does to the content of a file, and the content as it is now; [`Self::put_change`] gives it back.
    pub(super) async fn take_change(&mut self, inode: u64) -> Result<(ContentChange, ContentRow)> {
        let now = inodes::file_content(&self.transaction, inode).await?;
        let change = match self.changes.remove(&inode) {
            Some(change) => change.resumed(&now),
            None => ContentChange::of(&self.shared, inode, now),
        };
        Ok((change, now))
    }

    pub(super) fn put_change(&mut self, change: ContentChange) {
        self.changes.insert(change.inode(), change);
    }

    /// The change is complete for now: the rows say so.
    pub(super) async fn finish_change(
        &mut self,
        mut change: ContentChange,
        now: ContentRow,
        size: u64,
        moment: u64,
    ) -> Result<()> {
        change.finish(&self.shared, &mut self.transaction, now, size, moment).await?;
        self.put_change(change);
        Ok(())
    }

    /// The content row of a file or link that this transaction has just made.
    pub(super) fn put_first_content(&mut self, inode: u64, size: u64, moment: u64) -> Result<()> {
        let row = ContentRow { changed: moment, size, ..ContentRow::default() };
        put_row(&mut self.transaction, inode, &row)
    }

    pub(super) async fn touch_directory(&mut self, inode: u64, moment: u64) -> Result<()> {
        Ok(self.transaction.max(CONTENT, &inode_key(inode), moment).await?)
    }
}

pub(crate) fn put_row(transaction: &mut Transaction, inode: u64, row: &ContentRow) -> Result<()> {
    Ok(transaction.put(CONTENT, &inode_key(inode), &row.encode())?)
}

pub(crate) fn file_only(entry: EntryRow, path: &[u8]) -> Result<u64> {
    match entry.kind {
        Kind::File => Ok(entry.inode),
        Kind::Directory => Err(Error::IsADirectory { path: shown(path) }),
        Kind::Symlink => Err(Error::SymlinkLoop { path: shown(path) }),
    }
}

/// A buffer for the whole of a file. Holes make a file longer than any memory, and that is no reason to end the process.
pub(crate) fn zeros(bytes: u64) -> Result<Vec<u8>> {
    let mut zeros = Vec::new();
    let length = usize::try_from(bytes).map_err(|_| Error::OutOfMemory { bytes })?;
    zeros.try_reserve_exact(length).map_err(|_| Error::OutOfMemory { bytes })?;
    zeros.resize(length, 0);
    Ok(zeros)
}
