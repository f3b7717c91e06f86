//! A wrapper with something in between: before each call a test may let another process go on, or refuse the call.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::{
    BatchSupport, Capabilities, ExclusiveGuard, Name, Occupancy, Operation, Put, Result, Storage,
};

/// What happens before a call.
#[async_trait]
pub trait Before: fmt::Debug + Send + Sync {
    /// Is called before the call; `name` is that of its blob, where it is of one.
    ///
    /// # Errors
    /// What the call is to answer, without being passed on.
    async fn before(&self, operation: Operation, name: Option<Name>) -> Result<()>;
}

/// A storage and what happens before each of its calls. Batches are their changes one after the other.
#[derive(Debug)]
pub struct Between<S, B> {
    inner: S,
    before: B,
}

impl<S: Storage, B: Before> Between<S, B> {
    /// Puts something before a storage.
    pub fn new(inner: S, before: B) -> Self {
        Self { inner, before }
    }

    /// What happens before calls.
    pub fn hook(&self) -> &B {
        &self.before
    }
}

#[async_trait]
impl<S: Storage, B: Before> Storage for Between<S, B> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { batch: BatchSupport::Sequential, ..self.inner.capabilities() }
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.before.before(Operation::Put, Some(name)).await?;
        self.inner.put(name, bytes).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.before.before(Operation::PutDurable, Some(name)).await?;
        self.inner.put_durable(name, bytes).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.before.before(Operation::Get, Some(name)).await?;
        self.inner.get(name, range, max_bytes).await
    }

    async fn forget(&self, name: Name) -> bool {
        self.inner.forget(name).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.before.before(Operation::Size, Some(name)).await?;
        self.inner.size(name).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.before.before(Operation::Delete, Some(name)).await?;
        self.inner.delete(name).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.before.before(Operation::List, None).await?;
        self.inner.list(prefix, after).await
    }

    async fn sync(&self) -> Result<()> {
        self.before.before(Operation::Sync, None).await?;
        self.inner.sync().await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.before.before(Operation::Persist, None).await?;
        self.inner.persist(names).await
    }

    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.before.before(Operation::TryExclusive, None).await?;
        self.inner.try_exclusive().await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.before.before(Operation::Size, None).await?;
        self.inner.available_bytes().await
    }

    async fn vacate(&self) -> Result<()> {
        self.before.before(Operation::Delete, None).await?;
        self.inner.vacate().await
    }
}
