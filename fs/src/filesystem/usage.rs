//! What a tree takes, counted.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;

use strongroom_core::engine::{ChunkNumber, Direction, View};

use super::directory::entries;
use super::{FileSystem, FsSnapshot, ReadDir};
use crate::error::Result;
use crate::extents;
use crate::format::{
    EXTENT, EntryRow, Extent, INODE, InodeRow, Kind, PAST, XATTR, XattrRow, split_extent_key, split_inode_key,
};
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

/// The content of all files, by what becomes of it on the way to the storage. All in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentBytes {
    /// Lengths of all files together, each counted once however many names it has, holes included.
    pub file_bytes: u64,
    /// The holes among them.
    pub hole_bytes: u64,
    /// What older versions of files have that the current ones have no longer.
    pub version_bytes: u64,
    /// What is left of all that, and of long values of extended attributes, where what is stored once counts once and holes
    /// count nothing; before compression. Of a chunk whose end nobody needs, the end is not counted.
    pub unique_bytes: u64,
}

/// What a file system holds, and what its repository takes, counted to the last file. How full the storage is:
/// [`FileSystem::statfs`].
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
    /// What the file system holds, and what its repository takes.
    ///
    /// Costs a look at the rows of all inodes, extents, chunks and blocks, each table once in its order, and one listing of the
    /// storage; no content is read. So it grows with the number of files, and is not for every call of `statfs`:
    /// [`FileSystem::statfs`] is. Nothing keeps count of files as commits go by, since each would pay for it.
    /// `cargo bench -p strongroom-benches --bench workloads -- --filter summary` says what it takes at 100,000 files.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn summary(&self) -> Result<Summary> {
        let usage = self.snapshot().usage_of_all().await?;
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

    /// Counts the content of all files; see [`FsSnapshot::content_bytes`].
    ///
    /// # Errors
    /// As there.
    pub async fn content_bytes(&self) -> Result<ContentBytes> {
        self.snapshot().content_bytes().await
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
    /// Counts the content of all files, those included that are open and have no name any more or are being deleted, and targets of symbolic links
    /// that are too long for their row. Costs a look at the rows of all extents, of older versions too, and a few dozen bytes
    /// of memory for each chunk; no content is read.
    ///
    /// # Errors
    /// Damage; those of the storage.
    pub async fn content_bytes(&self) -> Result<ContentBytes> {
        let mut counted = ContentBytes::default();
        // Of a chunk, how far what refers to it reaches.
        let mut reached: HashMap<ChunkNumber, u64> = HashMap::new();
        let mut reach = |chunk: ChunkNumber, end: u64| {
            let known = reached.entry(chunk).or_default();
            *known = end.max(*known);
        };
        let all = (Bound::Unbounded, Bound::Unbounded);
        for table in [EXTENT, PAST] {
            let mut scan = self.snapshot.scan(table, all, Direction::Ascending);
            while let Some((_, row)) = scan.next().await? {
                let extent = Extent::decode(&row)?;
                let length = extent.length();
                if table == EXTENT {
                    counted.file_bytes = counted.file_bytes.saturating_add(length);
                }
                match extent {
                    Extent::Data { chunk, length, skip } => {
                        reach(chunk, u64::from(skip).saturating_add(length.into()));
                        if table == PAST {
                            counted.version_bytes = counted.version_bytes.saturating_add(length.into());
                        }
                    }
                    Extent::Hole { .. } if table == EXTENT => {
                        counted.hole_bytes = counted.hole_bytes.saturating_add(length);
                    }
                    Extent::Hole { .. } => {}
                }
            }
        }
        let chunk_bytes_max = self.shared.engine.chunk_bytes_max().max(1);
        let mut scan = self.snapshot.scan(XATTR, all, Direction::Ascending);
        while let Some((_, row)) = scan.next().await? {
            let row = XattrRow::decode(&row)?;
            let mut left = row.length();
            for chunk in row.chunks() {
                let piece = left.min(chunk_bytes_max);
                left = left.saturating_sub(piece);
                reach(*chunk, piece as u64);
            }
        }
        counted.unique_bytes = reached.into_values().fold(0, u64::saturating_add);
        Ok(counted)
    }

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

    /// What [`Self::usage`] of the root counts, from the rows in their order: each inode once, whatever names lead to it.
    async fn usage_of_all(&self) -> Result<Usage> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let mut usage = Usage::default();
        let mut inodes = self.snapshot.scan(INODE, all, Direction::Ascending);
        let mut extents = self.snapshot.scan(EXTENT, all, Direction::Ascending);
        let mut extent = extents.next().await?;
        while let Some((key, row)) = inodes.next().await? {
            let (inode, row) = (split_inode_key("inode", &key)?, InodeRow::decode(&row)?);
            let kind = (row.nlink > 0).then_some(row.kind);
            match kind {
                Some(Kind::Directory) => usage.directories += 1,
                Some(Kind::Symlink) => usage.symlinks += 1,
                Some(Kind::File) => usage.files += 1,
                // Open, and without a name.
                None => {}
            }
            while let Some((key, row)) = &extent {
                let (owner, _) = split_extent_key(key)?;
                if owner > inode {
                    break;
                }
                if owner == inode && kind == Some(Kind::File) {
                    let extent = Extent::decode(row)?;
                    usage.logical_bytes = usage.logical_bytes.saturating_add(extent.length());
                    if let Extent::Data { length, .. } = extent {
                        usage.data_bytes = usage.data_bytes.saturating_add(length.into());
                    }
                }
                extent = extents.next().await?;
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
