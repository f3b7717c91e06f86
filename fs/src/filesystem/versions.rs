//! Versions of files, by path.

use std::ops::Range;

use super::transaction::{put_row, zeros};
use super::{FileSystem, FsSnapshot, FsTransaction, transact};
use crate::error::Result;
use crate::extents;
use crate::file::{File, Shown};
use crate::format::{ContentRow, Extent};
use crate::inodes;
use crate::versions::{self, Version};

impl FsSnapshot {
    /// The versions of a file, the oldest first, the current one last.
    ///
    /// # Errors
    /// As [`FileSystem::history`].
    pub async fn history(&self, path: impl AsRef<[u8]>) -> Result<Vec<Version>> {
        let inode = self.file_inode(path.as_ref()).await?;
        let content = inodes::file_content(&self.snapshot, inode).await?;
        versions::list(&self.snapshot, inode, &content).await
    }

    /// How many versions a file keeps beside the current one, where it has a limit of its own.
    ///
    /// # Errors
    /// As [`FileSystem::history`].
    pub async fn version_limit(&self, path: impl AsRef<[u8]>) -> Result<Option<u32>> {
        let inode = self.file_inode(path.as_ref()).await?;
        Ok(inodes::file_content(&self.snapshot, inode).await?.versions.limit)
    }

    /// Opens a version of a file for reading, at any offset.
    ///
    /// # Errors
    /// As [`FileSystem::open_version`].
    pub async fn open_version(&self, path: impl AsRef<[u8]>, number: u64) -> Result<File> {
        let path = path.as_ref();
        let inode = self.file_inode(path).await?;
        let content = inodes::file_content(&self.snapshot, inode).await?;
        let version = versions::load(&self.snapshot, inode, path, &content, number).await?;
        let versions = content.versions;
        let content = ContentRow { changed: version.changed, size: version.size, versions, tag: None };
        let (shared, snapshot) = (self.shared.clone(), self.snapshot.clone());
        Ok(if number == versions.current {
            File::pinned(shared, inode, snapshot)
        } else {
            File::at_version(shared, inode, snapshot, Shown { number, content })
        })
    }

    /// The whole content of a version.
    ///
    /// # Errors
    /// As [`FileSystem::open_version`] and [`File::read_at`].
    pub async fn read_version(&self, path: impl AsRef<[u8]>, number: u64) -> Result<Vec<u8>> {
        let file = self.open_version(path, number).await?;
        let mut content = zeros(file.len().await?)?;
        file.read_exact_at(0, &mut content).await?;
        Ok(content)
    }

    /// Where two versions of a file differ, in ascending ranges of bytes; what only the longer one has is among it. No
    /// content is read: whole chunks are told apart by whether they are stored once, so that a range may begin
    /// before the first byte that differs and end after the last.
    ///
    /// # Errors
    /// As [`FileSystem::open_version`].
    pub async fn diff_versions(&self, path: impl AsRef<[u8]>, from: u64, to: u64) -> Result<Vec<Range<u64>>> {
        let (path, view) = (path.as_ref(), &self.snapshot);
        let inode = self.file_inode(path).await?;
        let content = inodes::file_content(view, inode).await?;
        let from = versions::load(view, inode, path, &content, from).await?;
        let to = versions::load(view, inode, path, &content, to).await?;
        let current = content.versions.current;
        Ok(versions::differing(view, inode, [&from, &to], current, versions::stride(&self.shared))
            .await?
            .iter()
            .collect())
    }
}

impl FsTransaction {
    /// Makes the content of an older version that of the file, which is a new version. No content is read or stored for it.
    /// That of the current version changes nothing.
    ///
    /// # Errors
    /// As [`FileSystem::open_version`].
    pub async fn restore_version(&mut self, path: impl AsRef<[u8]>, number: u64) -> Result<()> {
        let path = path.as_ref();
        let inode = self.file_inode(path).await?;
        let content = inodes::file_content(&self.transaction, inode).await?;
        let current = content.versions.current;
        let from = versions::load(&self.transaction, inode, path, &content, number).await?;
        if number == current {
            return Ok(());
        }
        let to = versions::load(&self.transaction, inode, path, &content, current).await?;
        let stride = versions::stride(&self.shared);
        let differing = versions::differing(&self.transaction, inode, [&from, &to], current, stride).await?;
        let (mut change, before) = self.take_change(inode).await?;
        let moment = self.shared.moment();
        self.begin_change();
        let transaction = &mut self.transaction;
        for range in differing.iter() {
            let mut at = range.start;
            while at < range.end.min(from.size) {
                let piece = at..at.saturating_add(stride).min(range.end).min(from.size);
                at = piece.end;
                // Looked up before the extents in the way go to the version before.
                let pieces = versions::pieces(transaction, inode, number, current, piece.clone()).await?;
                for placed in &pieces {
                    if let Extent::Data { chunk, .. } = placed.extent {
                        transaction.retain_chunk(chunk)?;
                    }
                }
                extents::clear(transaction, &mut change, &(piece.start..piece.end.min(before.size))).await?;
                for placed in &pieces {
                    extents::put(transaction, inode, placed.start, &placed.extent)?;
                }
            }
        }
        extents::truncate(transaction, &mut change, before.size, from.size).await?;
        self.finish_change(change, before, from.size, moment).await?;
        self.end_change();
        Ok(())
    }

    /// Sets how many versions a file keeps beside the current one: 0 for none, `None` for what the repository says. What
    /// is too many goes with the next change of its content, or with [`Self::prune_versions`].
    ///
    /// # Errors
    /// As [`FileSystem::set_version_limit`].
    pub async fn set_version_limit(&mut self, path: impl AsRef<[u8]>, limit: Option<u32>) -> Result<()> {
        let inode = self.file_inode(path.as_ref()).await?;
        self.limit_versions(inode, limit).await
    }

    pub(super) async fn limit_versions(&mut self, inode: u64, limit: Option<u32>) -> Result<()> {
        versions::check_limit(limit.unwrap_or_default())?;
        let mut row = inodes::file_content(&self.transaction, inode).await?;
        if row.versions.limit == limit {
            return Ok(());
        }
        row.versions.limit = limit;
        put_row(&mut self.transaction, inode, &row)
    }

    /// Gives up the versions of a file that are over its limit.
    ///
    /// # Errors
    /// As [`FileSystem::prune_versions`].
    pub async fn prune_versions(&mut self, path: impl AsRef<[u8]>) -> Result<()> {
        let inode = self.file_inode(path.as_ref()).await?;
        let mut row = inodes::file_content(&self.transaction, inode).await?;
        let kept = self.shared.versions_kept(&row);
        if row.versions.older_count() <= kept {
            return Ok(());
        }
        self.begin_change();
        versions::evict(&mut self.transaction, inode, &mut row.versions, kept).await?;
        put_row(&mut self.transaction, inode, &row)?;
        self.end_change();
        Ok(())
    }
}

impl FileSystem {
    /// The versions of a file, the oldest first, the current one last.
    ///
    /// # Errors
    /// [`crate::Error::IsADirectory`], and as [`Self::metadata`].
    pub async fn history(&self, path: impl AsRef<[u8]>) -> Result<Vec<Version>> {
        self.snapshot().history(path).await
    }

    /// How many versions a file keeps beside the current one, where it has a limit of its own.
    ///
    /// # Errors
    /// As [`Self::history`].
    pub async fn version_limit(&self, path: impl AsRef<[u8]>) -> Result<Option<u32>> {
        self.snapshot().version_limit(path).await
    }

    /// Opens a version of a file for reading, at any offset. It stays as long as the handle does, whatever becomes of the
    /// file.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchVersion`], and as [`Self::history`].
    pub async fn open_version(&self, path: impl AsRef<[u8]>, number: u64) -> Result<File> {
        self.snapshot().open_version(path, number).await
    }

    /// The whole content of a version.
    ///
    /// # Errors
    /// As [`Self::open_version`] and [`File::read_at`].
    pub async fn read_version(&self, path: impl AsRef<[u8]>, number: u64) -> Result<Vec<u8>> {
        self.snapshot().read_version(path, number).await
    }

    /// Where two versions of a file differ; see [`FsSnapshot::diff_versions`].
    ///
    /// # Errors
    /// As [`Self::open_version`].
    pub async fn diff_versions(&self, path: impl AsRef<[u8]>, from: u64, to: u64) -> Result<Vec<Range<u64>>> {
        self.snapshot().diff_versions(path, from, to).await
    }

    /// Makes the content of an older version that of the file, which is a new version. No content is read or stored for it.
    ///
    /// # Errors
    /// As [`Self::open_version`].
    pub async fn restore_version(&self, path: impl AsRef<[u8]>, number: u64) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.restore_version(path, number).await)
    }

    /// Sets how many versions a file keeps beside the current one: 0 for none, `None` for what the repository says. What
    /// is too many goes with the next change of its content, or with [`Self::prune_versions`].
    ///
    /// # Errors
    /// [`strongroom_core::Error::LimitExceeded`] over [`crate::VERSIONS_MAX`], and as [`Self::history`].
    pub async fn set_version_limit(&self, path: impl AsRef<[u8]>, limit: Option<u32>) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.set_version_limit(path, limit).await)
    }

    /// Gives up the versions of a file that are over its limit.
    ///
    /// # Errors
    /// As [`Self::history`].
    pub async fn prune_versions(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.prune_versions(path).await)
    }
}
