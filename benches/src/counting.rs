//! A storage that counts what is asked of it: the proof that a durable row waited for its barriers.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use strongroom::storage::{Capabilities, Change, ExclusiveGuard, Name, Put, Result, Storage};

/// How often each call was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of `put`, in batches too, and of `put_durable`.
    pub puts: u64,
    /// Calls of `put_durable`, `sync` and `persist` that succeeded.
    pub barriers: u64,
    /// Calls of `get`.
    pub gets: u64,
    /// Calls of `list`.
    pub lists: u64,
    /// Bytes that `get` answered.
    pub bytes_read: u64,
}

/// Counts, and passes everything on.
#[derive(Debug)]
pub struct Counting {
    inner: Arc<dyn Storage>,
    puts: AtomicU64,
    barriers: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    bytes_read: AtomicU64,
}

impl Counting {
    /// Around a storage.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        let zero = || AtomicU64::new(0);
        Self { inner, puts: zero(), barriers: zero(), gets: zero(), lists: zero(), bytes_read: zero() }
    }

    /// What was counted until now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Counts {
            puts: of(&self.puts),
            barriers: of(&self.barriers),
            gets: of(&self.gets),
            lists: of(&self.lists),
            bytes_read: of(&self.bytes_read),
        }
    }

    fn count(counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::SeqCst);
    }
}

#[async_trait]
impl Storage for Counting {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        Self::count(&self.puts, 1);
        self.inner.put(name, bytes).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        Self::count(&self.puts, 1);
        let put = self.inner.put_durable(name, bytes).await?;
        Self::count(&self.barriers, 1);
        Ok(put)
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        Self::count(&self.gets, 1);
        let bytes = self.inner.get(name, range, max_bytes).await?;
        Self::count(&self.bytes_read, bytes.len());
        Ok(bytes)
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.inner.size(name).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.inner.delete(name).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        Self::count(&self.lists, 1);
        self.inner.list(prefix, after).await
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        Self::count(&self.lists, 1);
        self.inner.list_page(prefix, after).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        Self::count(&self.puts, batch.iter().filter(|change| matches!(change, Change::Put(..))).count());
        self.inner.apply(batch).await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await?;
        Self::count(&self.barriers, 1);
        Ok(())
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.inner.persist(names).await?;
        Self::count(&self.barriers, 1);
        Ok(())
    }

    fn occupancy(&self) -> Option<std::sync::Arc<strongroom::storage::Occupancy>> {
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
