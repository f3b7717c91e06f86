use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::storage::{
    Capabilities, Change, Error, ErrorKind, ExclusiveGuard, Name, Occupancy, Operation, Put, Result, Storage,
};

/// Refuses whatever would put or delete a blob: [`ErrorKind::ReadOnly`], of no effect, without asking the storage. So whoever is
/// given it can read, and nothing else, whatever the medium and its credentials allow.
///
/// What changes no blob is passed on. That includes barriers: [`Storage::sync`] still covers what others of this process put
/// (S9), and [`Storage::persist`] what anybody did. It includes presence too: who reads counts as somebody who is there.
///
/// The capabilities stay those of the storage. They tell what is there and how it is read; what they promise of changes, one
/// that is refused does not break.
#[derive(Clone, Debug)]
pub struct ReadOnly {
    inner: Arc<dyn Storage>,
}

impl ReadOnly {
    /// The storage, for reading alone.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner }
    }
}

fn refused<T>(operation: Operation, context: impl Into<String>) -> Result<T> {
    let why = "it was opened for reading only: open it for writing to change it";
    Err(Error::new(ErrorKind::ReadOnly, operation, context).with_source(why))
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Storage for ReadOnly {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, name: Name, _: Bytes) -> Result<Put> {
        refused(Operation::Put, name.to_hex())
    }

    async fn put_durable(&self, name: Name, _: Bytes) -> Result<Put> {
        refused(Operation::PutDurable, name.to_hex())
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.inner.get(name, range, max_bytes).await
    }

    async fn get_cached(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.inner.get_cached(name, range, max_bytes).await
    }

    async fn forget(&self, name: Name) -> bool {
        self.inner.forget(name).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.inner.size(name).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        refused(Operation::Delete, name.to_hex())
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.inner.list(prefix, after).await
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        self.inner.list_page(prefix, after).await
    }

    /// A batch of nothing changes nothing (S8).
    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        if batch.is_empty() { Ok(Vec::new()) } else { refused(Operation::Apply, "a batch") }
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.inner.persist(names).await
    }

    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.inner.try_exclusive().await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.inner.available_bytes().await
    }

    async fn vacate(&self) -> Result<()> {
        refused(Operation::Delete, "the storage")
    }
}
