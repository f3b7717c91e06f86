//! Files with damaged chunks, and storing what these held once more.

use std::collections::HashSet;

use bytes::Bytes;
use strongroom_core::engine::ChunkNumber;

use super::compare::{Comparand, fill};
use super::{FileSystem, FsSnapshot, FsTransaction, transact};
use crate::codec;
use crate::error::{Result, damaged};
use crate::extents::{self, Placed};
use crate::format::Extent;
use crate::inodes;
use crate::shared::Shared;

/// Chunks that one transaction stores again, at most.
const MENDED_AT_ONCE: usize = 64;

impl FsSnapshot {
    /// Whether the content of a file is in any of these chunks. Its older versions are not looked at.
    ///
    /// # Errors
    /// Damage; what the engine raises.
    pub async fn refers_to(&self, inode: u64, chunks: &HashSet<ChunkNumber>) -> Result<bool> {
        let mut walk = extents::walk(&self.snapshot, inode, 0);
        while let Some(placed) = walk.next().await? {
            if is_of(&placed, chunks) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl FileSystem {
    /// Stores what the damaged chunks of a file's content held once more, where elsewhere has it; they are those of
    /// [`strongroom_core::engine::Engine::damaged_chunks`]. The file itself does not change, nor does it get a version: it can
    /// be read again, as can all else that shares these chunks, in versions and snapshots, too. Answers whether none is left:
    /// `false` where elsewhere has other content, or what is left of a chunk is a part of it, or it has no identity to be
    /// known by.
    ///
    /// # Errors
    /// [`crate::Error::Source`] where elsewhere cannot be read; as [`FileSystem::read`] and [`FileSystem::write`].
    pub async fn mend(
        &self,
        path: impl AsRef<[u8]>,
        damaged: &HashSet<ChunkNumber>,
        other: &mut impl Comparand,
    ) -> Result<bool> {
        let of = self.snapshot();
        let inode = of.file_inode(path.as_ref()).await?;
        let shared = self.shared.for_file(&inodes::load(&of.snapshot, inode).await?);
        let mut hurt = Vec::new();
        let mut walk = extents::walk(&of.snapshot, inode, 0);
        while let Some(placed) = walk.next().await? {
            if is_of(&placed, damaged) {
                hurt.push(placed);
            }
        }
        let mut is_mended = true;
        for stretches in hurt.chunks(MENDED_AT_ONCE) {
            is_mended &= transact!(self, transaction => transaction.mend(&shared, stretches, &mut *other).await)?;
        }
        Ok(is_mended)
    }
}

impl FsTransaction {
    async fn mend(&mut self, shared: &Shared, hurt: &[Placed], other: &mut impl Comparand) -> Result<bool> {
        let mut is_mended = true;
        for placed in hurt {
            let Extent::Data { chunk, length, skip } = placed.extent else { continue };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > shared.plain_bytes_max() {
                return Err(damaged("extent", format!("names {length} bytes of a chunk")));
            }
            let mut plain = vec![0; length];
            // Only the whole of a chunk has its identity.
            if skip > 0 || !fill(other, placed.start, &mut plain)? {
                is_mended = false;
                continue;
            }
            let identity = shared.engine.identity(&plain);
            let payload = codec::encode(&Bytes::from(plain), shared.options.compression);
            is_mended &= self.transaction.heal_chunk(chunk, &identity, payload).await?;
        }
        Ok(is_mended)
    }
}

fn is_of(placed: &Placed, chunks: &HashSet<ChunkNumber>) -> bool {
    matches!(&placed.extent, Extent::Data { chunk, .. } if chunks.contains(chunk))
}
