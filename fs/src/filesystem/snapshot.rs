use std::sync::Arc;

use strongroom_core::engine::Snapshot;

use super::transaction::{file_only, zeros};
use super::{DirCursor, DirEntry, ReadDir, directory};
use crate::error::{Error, Result};
use crate::file::File;
use crate::inodes::{self, Metadata};
use crate::path::{Last, locate};
use crate::shared::Shared;

/// The file system as it was at one moment, for reading.
#[derive(Clone)]
pub struct FsSnapshot {
    pub(crate) shared: Arc<Shared>,
    pub(crate) snapshot: Snapshot,
}

impl FsSnapshot {
    pub(super) fn new(shared: Arc<Shared>, snapshot: Snapshot) -> Self {
        Self { shared, snapshot }
    }

    /// The number of the commit whose state this is.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.snapshot.sequence()
    }

    /// What was at a path; symbolic links are followed.
    ///
    /// # Errors
    /// As [`super::FileSystem::metadata`].
    pub async fn metadata(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let path = path.as_ref();
        let entry = locate(&self.shared, &self.snapshot, path, Last::Followed).await?.existing(path)?;
        inodes::metadata(&self.snapshot, entry.inode).await
    }

    /// What was at a path, a symbolic link at its end not followed.
    ///
    /// # Errors
    /// As [`super::FileSystem::metadata`].
    pub async fn symlink_metadata(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let path = path.as_ref();
        let entry = locate(&self.shared, &self.snapshot, path, Last::Itself).await?.existing(path)?;
        inodes::metadata(&self.snapshot, entry.inode).await
    }

    /// What an inode was.
    ///
    /// # Errors
    /// Damage where there was no such inode.
    pub async fn inode_metadata(&self, inode: u64) -> Result<Metadata> {
        inodes::metadata(&self.snapshot, inode).await
    }

    /// Whether something was at a path.
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
        self.open_dir(path).await?.collect().await
    }

    /// The names in a directory, one by one in the order of their bytes.
    ///
    /// # Errors
    /// As [`super::FileSystem::metadata`].
    pub async fn open_dir(&self, path: impl AsRef<[u8]>) -> Result<ReadDir> {
        directory::open(&self.shared, &self.snapshot, path.as_ref(), None).await
    }

    /// As [`Self::open_dir`], the names after a cursor.
    ///
    /// # Errors
    /// As [`super::FileSystem::metadata`].
    pub async fn open_dir_at(&self, path: impl AsRef<[u8]>, cursor: &DirCursor) -> Result<ReadDir> {
        directory::open(&self.shared, &self.snapshot, path.as_ref(), cursor.name()).await
    }

    /// Where a symbolic link led.
    ///
    /// # Errors
    /// As [`super::FileSystem::read_link`].
    pub async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        directory::read_link(&self.shared, &self.snapshot, path.as_ref()).await
    }

    /// The whole content of a file.
    ///
    /// # Errors
    /// As [`super::FileSystem::read`].
    pub async fn read(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let file = self.open_file(path).await?;
        let mut content = zeros(file.len().await?)?;
        file.read_exact_at(0, &mut content).await?;
        Ok(content)
    }

    /// Opens a file for reading, as it was.
    ///
    /// # Errors
    /// [`Error::IsADirectory`], and as [`super::FileSystem::metadata`].
    pub async fn open_file(&self, path: impl AsRef<[u8]>) -> Result<File> {
        let inode = self.file_inode(path.as_ref()).await?;
        Ok(File::pinned(self.shared.clone(), inode, self.snapshot.clone()))
    }

    pub(super) async fn file_inode(&self, path: &[u8]) -> Result<u64> {
        let entry = locate(&self.shared, &self.snapshot, path, Last::Followed).await?.existing(path)?;
        file_only(entry, path)
    }
}
