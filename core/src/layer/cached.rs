use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::cache::{Cache, Part};
use crate::storage::{Capabilities, Change, ExclusiveGuard, Name, Put, Result, Storage};

/// Answers [`Storage::get_cached`] from a cache, and nothing else; see [`crate::cache`] for what is cached and why.
///
/// The cache is believed in nothing: what has the wrong length is dropped and asked for again here, what has the wrong
/// content by the reader, which finds out ([`Storage::forget`]). What is put is not cached (only what storage gave is), and
/// a name that is created or deleted through this layer is dropped from the cache.
#[derive(Clone, Debug)]
pub struct Cached {
    inner: Arc<dyn Storage>,
    cache: Arc<dyn Cache>,
}

impl Cached {
    /// The storage, with the cache in front of it. Storages may share a cache where no two of them
    /// hold different blobs under one name, as those of the engine do not.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, cache: Arc<dyn Cache>) -> Self {
        Self { inner, cache }
    }

    /// A name that was free holds nothing that anyone knows of.
    async fn created(&self, name: Name, put: Put) -> Put {
        if put == Put::Created {
            self.cache.remove(name).await;
        }
        put
    }
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Storage for Cached {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let put = self.inner.put(name, bytes).await?;
        Ok(self.created(name, put).await)
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let put = self.inner.put_durable(name, bytes).await?;
        Ok(self.created(name, put).await)
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.inner.get(name, range, max_bytes).await
    }

    async fn get_cached(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let part = Part::from(range.clone());
        let refused = AtomicBool::new(false);
        let load = async {
            let answer = self.inner.get_cached(name, range.clone(), max_bytes).await;
            refused.store(answer.is_err(), Ordering::Relaxed);
            answer
        };
        match self.cache.fetch(name, part, Box::pin(load)).await {
            Ok(bytes) if part.fits(bytes.len()) && bytes.len() as u64 <= max_bytes => return Ok(bytes),
            Ok(_) => {
                self.forget(name).await;
            }
            Err(error) if refused.load(Ordering::Relaxed) => return Err(error),
            // Not storage's error: a cache has none to report.
            Err(_) => {}
        }
        self.inner.get(name, range, max_bytes).await
    }

    async fn forget(&self, name: Name) -> bool {
        self.cache.remove(name).await;
        self.inner.forget(name).await;
        true
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.inner.size(name).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        // Before, in case that this is dropped in the middle; after, because a read may have come between.
        self.cache.remove(name).await;
        let deleted = self.inner.delete(name).await;
        self.cache.remove(name).await;
        deleted
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.inner.list(prefix, after).await
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        self.inner.list_page(prefix, after).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        let names: Vec<Name> = batch
            .iter()
            .map(|change| match change {
                Change::Put(name, _) | Change::Delete(name) => *name,
            })
            .collect();
        for name in &names {
            self.cache.remove(*name).await;
        }
        let applied = self.inner.apply(batch).await;
        for name in &names {
            self.cache.remove(*name).await;
        }
        applied
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.inner.persist(names).await
    }
    fn occupancy(&self) -> Option<std::sync::Arc<crate::storage::Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.inner.try_exclusive().await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.inner.available_bytes().await
    }

    async fn vacate(&self) -> Result<()> {
        self.inner.vacate().await
    }
}
