//! One handle of two: who can only read, and who writes beside it.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::{Capabilities, Change, ExclusiveGuard, Name, Occupancy, Put, Result, Storage};

/// Changes blobs through one handle, and does everything else through the other, which is the one that is tried.
#[derive(Debug)]
pub(super) struct Apart {
    pub(super) reader: Arc<dyn Storage>,
    pub(super) writer: Arc<dyn Storage>,
}

#[async_trait]
impl Storage for Apart {
    fn capabilities(&self) -> Capabilities {
        self.reader.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.reader.is_remote()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.writer.put(name, bytes).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.writer.put_durable(name, bytes).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.reader.get(name, range, max_bytes).await
    }

    async fn get_cached(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.reader.get_cached(name, range, max_bytes).await
    }

    async fn forget(&self, name: Name) -> bool {
        self.reader.forget(name).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.reader.size(name).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.writer.delete(name).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.reader.list(prefix, after).await
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        self.reader.list_page(prefix, after).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        self.writer.apply(batch).await
    }

    async fn sync(&self) -> Result<()> {
        self.reader.sync().await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.reader.persist(names).await
    }

    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        self.reader.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.reader.try_exclusive().await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.reader.available_bytes().await
    }

    async fn vacate(&self) -> Result<()> {
        self.writer.vacate().await
    }
}
