//! What `statfs` asks for, as fast as whoever asks expects it.

use super::FileSystem;
use crate::error::Result;
use crate::format::NAME_BYTES_MAX;

/// How full the place of a repository is. Two numbers of POSIX are missing: how many inodes there are and may be. Nothing
/// bounds them but the space, and nobody keeps count, so a front answers 0 for both, as other file systems without a table of
/// inodes do; [`FileSystem::summary`] counts what has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statfs {
    /// Size of a block in bytes, the unit of what follows: every blob in storage has it.
    pub block_bytes: u32,
    /// Blocks that are needed: what files, keys, versions and snapshots take, compressed, sealed and shared, with metadata and
    /// fill. What waits to be given back is not in it.
    pub blocks_used: u64,
    /// Blocks that can still be stored. `None` where the storage does not say: of memory, of databases, and of remote storage,
    /// which has no end that could be known.
    pub blocks_free: Option<u64>,
    /// Both together, so what a repository alone on its storage could have: what others have stored there is in neither. `None`
    /// where it is not known how many are free.
    pub blocks: Option<u64>,
    /// Of the used blocks, the bytes that are in use: compacting packs them more closely.
    pub live_bytes: u64,
    /// The longest name, in bytes.
    pub name_bytes_max: u32,
}

impl FileSystem {
    /// How full the place of this repository is, as this process knows it. Nothing is listed and no file is looked at: it costs
    /// what [`strongroom_core::engine::Engine::held`] says, which does not grow with the number of files.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn statfs(&self) -> Result<Statfs> {
        let engine = &self.shared.engine;
        let (held, block_bytes) = (engine.held().await?, engine.block_bytes());
        let blocks_free = held.available_bytes.map(|bytes| bytes / u64::from(block_bytes).max(1));
        Ok(Statfs {
            block_bytes,
            blocks_used: held.blobs,
            blocks_free,
            blocks: blocks_free.map(|free| free.saturating_add(held.blobs)),
            live_bytes: held.live_bytes,
            name_bytes_max: u32::try_from(NAME_BYTES_MAX).unwrap_or(u32::MAX),
        })
    }
}
