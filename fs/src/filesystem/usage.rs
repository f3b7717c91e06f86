//! What a tree takes, counted.

use std::collections::HashSet;

use super::directory::entries;
use super::{FileSystem, FsSnapshot, ReadDir};
use crate::error::Result;
use crate::extents;
use crate::format::{EntryRow, Extent, Kind};
use crate::inodes;
use crate::path::{Last, locate};

/// What lies at a path and below it. A file with several names in the tree counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Regular files.
    pub files: u64,
    /// Directories, the one at the path included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Lengths of all files together, holes included.
    pub logical_bytes: u64,
    /// Lengths of all files together without their holes: before compression, and with what they share counted for each.
    pub data_bytes: u64,
}

/// What a file system holds, and what its repository takes: what `statfs` asks for, as far as there is an answer. Free
/// space is the storage's, and not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// All that has a name.
    pub usage: Usage,
    /// Size of every blob in bytes.
    pub block_bytes: u32,
    /// Blobs in storage.
    pub blobs: u64,
    /// Bytes that blobs take in storage.
    pub stored_bytes: u64,
    /// Bytes that live records take, compressed and sealed: what is stored beyond them is fill, metadata, and what waits to be
    /// given back.
    pub live_bytes: u64,
    /// Chunks, each counted once however many share it.
    pub chunks: u64,
}

impl FileSystem {
    /// What the file system holds, and what its repository takes. Costs a walk through all rows ([`Self::usage`] of the root,
    /// and a count of chunks) and one listing of the storage; no content is read.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn summary(&self) -> Result<Summary> {
        let usage = self.usage("/").await?;
        let info = self.shared.engine.info().await?;
        Ok(Summary {
            usage,
            block_bytes: info.block_bytes,
            blobs: info.blobs,
            stored_bytes: info.blobs.saturating_mul(u64::from(info.block_bytes)),
            live_bytes: info.live_bytes,
            chunks: info.chunks,
        })
    }

    /// Counts what lies at a path and below it. Costs O(names + extents): every row is read, and no content. What the
    /// repository takes in storage, with sharing and compression, is [`strongroom_core::engine::Engine::info`]'s to say.
    ///
    /// # Errors
    /// As [`Self::metadata`]. A symbolic link at the end of the path is counted itself.
    pub async fn usage(&self, path: impl AsRef<[u8]>) -> Result<Usage> {
        self.snapshot().usage(path).await
    }
}

impl FsSnapshot {
    /// Counts what lies at a path and below it.
    ///
    /// # Errors
    /// As [`FileSystem::usage`].
    pub async fn usage(&self, path: impl AsRef<[u8]>) -> Result<Usage> {
        let path = path.as_ref();
        let entry = locate(&self.shared, &self.snapshot, path, Last::Itself).await?.existing(path)?;
        let mut usage = Usage::default();
        let mut linked = HashSet::new();
        let mut levels: Vec<ReadDir> = Vec::new();
        levels.extend(self.count(entry, &mut usage, &mut linked).await?);
        while let Some(listing) = levels.last_mut() {
            match listing.next().await? {
                Some(entry) => {
                    let entry = EntryRow { inode: entry.inode, kind: entry.kind };
                    levels.extend(self.count(entry, &mut usage, &mut linked).await?);
                }
                None => {
                    levels.pop();
                }
            }
        }
        Ok(usage)
    }

    /// Counts one thing; answers what is in it, where it is a directory.
    async fn count(&self, entry: EntryRow, usage: &mut Usage, linked: &mut HashSet<u64>) -> Result<Option<ReadDir>> {
        let EntryRow { inode, kind } = entry;
        match kind {
            Kind::Directory => {
                usage.directories += 1;
                return Ok(Some(entries(&self.snapshot, inode, None)));
            }
            Kind::Symlink => {
                if inodes::load(&self.snapshot, inode).await?.nlink == 1 || linked.insert(inode) {
                    usage.symlinks += 1;
                }
            }
            Kind::File => {
                if inodes::load(&self.snapshot, inode).await?.nlink > 1 && !linked.insert(inode) {
                    return Ok(None);
                }
                usage.files += 1;
                let mut walk = extents::walk(&self.snapshot, inode, 0);
                while let Some(placed) = walk.next().await? {
                    let length = placed.extent.length();
                    usage.logical_bytes = usage.logical_bytes.saturating_add(length);
                    if let Extent::Data { .. } = placed.extent {
                        usage.data_bytes = usage.data_bytes.saturating_add(length);
                    }
                }
            }
        }
        Ok(None)
    }
}
