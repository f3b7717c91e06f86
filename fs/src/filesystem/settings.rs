//! How a file's content is kept, where it is not as the repository's options say.

use strongroom_core::engine::View;

use super::attributes::put_inode;
use super::{FileSystem, FsSnapshot, FsTransaction, transact};
use crate::error::Result;
use crate::format::Compression;
use crate::inodes;
use crate::options::OpenOptions;
use crate::path::{Last, locate};
use crate::time::Timestamp;

/// What a file has of its own; the default is the repository's for everything. It is about content that is written from then
/// on: what is there stays as it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Versions to keep beside the current one, 0 for none; `None` takes the repository's setting. What is too many goes with
    /// the next change of the content, or with [`FileSystem::prune_versions`].
    pub versions: Option<u32>,
    /// Whether equal chunks of it are stored once; `None` takes the repository's setting.
    pub dedup: Option<bool>,
    /// What is tried on its chunks before they are stored; `None` takes the repository's setting.
    pub compression: Option<Compression>,
}

impl FsSnapshot {
    /// What a file has of its own; symbolic links are followed.
    ///
    /// # Errors
    /// As [`FileSystem::settings`].
    pub async fn settings(&self, path: impl AsRef<[u8]>) -> Result<Settings> {
        let path = path.as_ref();
        let entry = locate(&self.shared, &self.snapshot, path, Last::Followed).await?.existing(path)?;
        settings(&self.snapshot, super::transaction::file_only(entry, path)?).await
    }
}

async fn settings(view: &dyn View, inode: u64) -> Result<Settings> {
    let (row, content) = (inodes::load(view, inode).await?, inodes::file_content(view, inode).await?);
    Ok(Settings { versions: content.versions.limit, dedup: row.dedup, compression: row.compression })
}

impl FileSystem {
    /// What a file has of its own; symbolic links are followed.
    ///
    /// # Errors
    /// [`crate::Error::IsADirectory`], and as [`Self::metadata`].
    pub async fn settings(&self, path: impl AsRef<[u8]>) -> Result<Settings> {
        self.snapshot().settings(path).await
    }

    /// Sets what a file has of its own; symbolic links are followed. Handles that are open go on as before, save for versions,
    /// until one more of the file is opened.
    ///
    /// # Errors
    /// [`strongroom_core::Error::LimitExceeded`] over [`crate::VERSIONS_MAX`], and as [`Self::settings`].
    pub async fn set_settings(&self, path: impl AsRef<[u8]>, settings: Settings) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.set_settings(path, settings).await)
    }
}

impl FsTransaction {
    /// Sets what a file has of its own; symbolic links are followed.
    ///
    /// # Errors
    /// As [`FileSystem::settings`].
    pub async fn set_settings(&mut self, path: impl AsRef<[u8]>, settings: Settings) -> Result<()> {
        let inode = self.file_inode(path.as_ref()).await?;
        self.set_inode_settings(inode, settings).await
    }

    /// Sets some of it: what is not given stays.
    pub(super) async fn set_options(&mut self, inode: u64, options: &OpenOptions) -> Result<()> {
        if !options.sets() {
            return Ok(());
        }
        let before = settings(&self.transaction, inode).await?;
        let settings = Settings {
            versions: options.versions.or(before.versions),
            dedup: options.dedup.or(before.dedup),
            compression: options.compression.or(before.compression),
        };
        self.set_inode_settings(inode, settings).await
    }

    pub(super) async fn set_inode_settings(&mut self, inode: u64, settings: Settings) -> Result<()> {
        let Settings { versions, dedup, compression } = settings;
        self.limit_versions(inode, versions).await?;
        let mut row = inodes::load(&self.transaction, inode).await?;
        if (row.dedup, row.compression) == (dedup, compression) {
            return Ok(());
        }
        (row.dedup, row.compression) = (dedup, compression);
        row.ctime = Timestamp::from_nanos(self.shared.moment());
        put_inode(&mut self.transaction, inode, &row)
    }
}
