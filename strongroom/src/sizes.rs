//! What becomes of files and keys on the way to the storage.

use strongroom_core::engine::EngineInfo;
use strongroom_fs::{Result, Usage};

use crate::repository::Repository;
use crate::snapshots::Contents;

/// How many bytes there are, from what applications see to what the storage holds. Counted one after another: where others
/// write meanwhile, parts may be of different moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Lengths of all files together, each counted once however many names it has, holes included.
    pub file_bytes: u64,
    /// The holes among them.
    pub hole_bytes: u64,
    /// Lengths of all values of keys, of all tables.
    pub value_bytes: u64,
    /// What older versions of files have that the current ones have no longer.
    pub version_bytes: u64,
    /// What is left of files, versions and values where what is stored once counts once, and holes count nothing; before
    /// compression. Of a chunk whose end nobody needs, the end is not counted.
    pub unique_bytes: u64,
    /// What the same take after compression, before they are sealed and packed.
    pub compressed_bytes: u64,
    /// What only snapshots need, after compression: in none of the figures above, since no row says how long it was before.
    pub snapshot_bytes: u64,
    /// What the storage holds: blobs of one size, with metadata, fill, and what waits to be given back.
    pub stored_bytes: u64,
    /// The counts of the engine.
    pub engine: EngineInfo,
}

impl Sizes {
    /// What applications see: files with their holes, and values.
    #[must_use]
    pub fn logical_bytes(&self) -> u64 {
        self.file_bytes.saturating_add(self.value_bytes)
    }
}

/// What a snapshot keeps, counted. What several states share is in the figures of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizesAt {
    /// Its files and folders.
    pub usage: Usage,
    /// Lengths of all files together, each counted once however many names it has, holes included.
    pub file_bytes: u64,
    /// The holes among them.
    pub hole_bytes: u64,
    /// Lengths of all values of keys, of all tables.
    pub value_bytes: u64,
    /// What older versions of files have that the ones of then have no longer.
    pub version_bytes: u64,
    /// As [`Sizes::unique_bytes`].
    pub unique_bytes: u64,
    /// What the same take after compression, before they are sealed and packed.
    pub compressed_bytes: u64,
    /// What their records take, sealed; what blocks hold beside them, and nodes of trees, is not told apart by state.
    pub live_bytes: u64,
    /// Chunks, each counted once.
    pub chunks: u64,
}

impl SizesAt {
    /// What applications saw: files with their holes, and values.
    #[must_use]
    pub fn logical_bytes(&self) -> u64 {
        self.file_bytes.saturating_add(self.value_bytes)
    }
}

impl Repository {
    /// Counts what a snapshot keeps: as [`Repository::sizes`], as far as that can be told of one state. What blobs take in
    /// storage is of all states together, and [`Repository::info`]'s to say. Costs a look at all its rows and those of its
    /// chunks, with a few dozen bytes of memory for each chunk; no content is read.
    ///
    /// # Errors
    /// Of [`strongroom_core::Error`]: `NoSnapshot`; damage; those of the storage.
    pub async fn sizes_at(&self, name: &str) -> Result<SizesAt> {
        let state = self.engine().open_snapshot(name).await?;
        let files = self.fs().at(state.clone());
        let (usage, content) = (files.usage("/").await?, files.content_bytes().await?);
        let values = self.kv().at(state.clone()).value_bytes(self.engine().chunk_bytes_max()).await?;
        let footprint = state.footprint(&Contents).await?;
        Ok(SizesAt {
            usage,
            file_bytes: content.file_bytes,
            hole_bytes: content.hole_bytes,
            value_bytes: values.value_bytes,
            version_bytes: content.version_bytes,
            unique_bytes: sum(&[content.unique_bytes, values.value_bytes, values.list_bytes]),
            compressed_bytes: sum(&[footprint.chunk_bytes, values.inline_bytes]),
            live_bytes: footprint.live_bytes,
            chunks: footprint.chunks,
        })
    }

    /// Counts bytes, from what applications see to what the storage holds. Costs what [`Repository::info`] costs, and a look at
    /// the rows of all extents and keys, with a few dozen bytes of memory for each chunk; no content is read.
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
    /// # use strongroom::{CreateOptions, Credentials, Repository};
    /// # let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// # let repository = Repository::create("mem://sizes", options).await?;
    /// repository.fs().write("/one", vec![7; 1 << 20]).await?;
    /// repository.fs().copy("/one", "/two").await?;
    /// let sizes = repository.sizes().await?;
    /// assert_eq!(sizes.logical_bytes(), 2 << 20);
    /// assert!(sizes.unique_bytes <= 1 << 20 && sizes.compressed_bytes < sizes.unique_bytes);
    /// # repository.close().await
    /// # }) }
    /// ```
    ///
    /// # Errors
    /// Damage; those of the storage.
    pub async fn sizes(&self) -> Result<Sizes> {
        let engine = self.info().await?;
        let content = self.fs().content_bytes().await?;
        let values = self.kv().snapshot().value_bytes(self.engine().chunk_bytes_max()).await?;
        let compressed_bytes = engine.chunk_bytes.saturating_sub(engine.snapshot_chunk_bytes);
        Ok(Sizes {
            file_bytes: content.file_bytes,
            hole_bytes: content.hole_bytes,
            value_bytes: values.value_bytes,
            version_bytes: content.version_bytes,
            unique_bytes: sum(&[content.unique_bytes, values.value_bytes, values.list_bytes]),
            compressed_bytes: sum(&[compressed_bytes, values.inline_bytes]),
            snapshot_bytes: engine.snapshot_chunk_bytes,
            stored_bytes: engine.blobs.saturating_mul(u64::from(engine.block_bytes)),
            engine,
        })
    }
}

fn sum(parts: &[u64]) -> u64 {
    parts.iter().copied().fold(0, u64::saturating_add)
}
