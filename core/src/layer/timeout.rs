use std::fmt::Display;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, select};

use crate::env::Env;
use crate::storage::{Capabilities, Change, Error, ErrorKind, ExclusiveGuard, Name, Operation, Put, Result, Storage};

/// What carries blobs takes a second more each so many bytes: over a slow line, with others beside it, it is no sign that the
/// storage hangs.
const BYTES_PER_SECOND: u64 = 4 << 10;

/// No blob is longer; whoever asks for one may allow for any length.
const BLOB_BYTES_MAX: u64 = 4 << 20;

/// Gives up a call that does not answer in time: [`ErrorKind::Unavailable`], and where it would change something, of
/// unknown effect. The call is dropped; what it had begun may still happen.
///
/// Calls that carry blobs may take longer, by a second each 4 KiB of what they carry.
///
/// A storage whose calls block the thread that awaits them cannot be given up; where they block another, the waiting ends and
/// that thread stays in the call. So a storage that blocks needs a limit of its own, below this one.
#[derive(Clone, Debug)]
pub struct Timeout {
    inner: Arc<dyn Storage>,
    env: Env,
    call_max: Duration,
}

impl Timeout {
    /// The storage, each call of which may take so long, and longer for what it carries.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, env: Env, call_max: Duration) -> Self {
        Self { inner, env, call_max }
    }

    async fn within<T>(
        &self,
        operation: Operation,
        context: impl Display,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.carrying(0, operation, context, call).await
    }

    /// For a call that carries so many bytes.
    async fn carrying<T>(
        &self,
        bytes: u64,
        operation: Operation,
        context: impl Display,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let limit = self.call_max.saturating_add(Duration::from_secs(bytes / BYTES_PER_SECOND));
        match select(pin!(call), self.env.sleep(limit)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), _)) => Err(Error::new(ErrorKind::Unavailable, operation, context.to_string())
                .with_effect(operation.effect_if_lost())
                .with_source(format!("no answer within {limit:?}"))),
        }
    }
}

/// How many bytes a get carries at most, of those that a blob can have.
fn wanted(range: Option<&Range<u64>>, max_bytes: u64) -> u64 {
    let asked = range.map_or(max_bytes, |range| range.end.saturating_sub(range.start).min(max_bytes));
    asked.min(BLOB_BYTES_MAX)
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Storage for Timeout {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.carrying(bytes.len() as u64, Operation::Put, name, self.inner.put(name, bytes)).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.carrying(bytes.len() as u64, Operation::PutDurable, name, self.inner.put_durable(name, bytes)).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let bytes = wanted(range.as_ref(), max_bytes);
        self.carrying(bytes, Operation::Get, name, self.inner.get(name, range, max_bytes)).await
    }

    async fn get_cached(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let bytes = wanted(range.as_ref(), max_bytes);
        self.carrying(bytes, Operation::Get, name, self.inner.get_cached(name, range, max_bytes)).await
    }

    async fn forget(&self, name: Name) -> bool {
        self.inner.forget(name).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.within(Operation::Size, name, self.inner.size(name)).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.within(Operation::Delete, name, self.inner.delete(name)).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.within(Operation::List, "names", self.inner.list(prefix, after)).await
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        self.within(Operation::List, "names", self.inner.list_page(prefix, after)).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        let puts = batch.iter().map(|change| match change {
            Change::Put(_, bytes) => bytes.len() as u64,
            Change::Delete(_) => 0,
        });
        let bytes = puts.sum();
        self.carrying(bytes, Operation::Apply, "a batch", self.inner.apply(batch)).await
    }

    async fn sync(&self) -> Result<()> {
        self.within(Operation::Sync, "everything", self.inner.sync()).await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.within(Operation::Persist, format!("{} names", names.len()), self.inner.persist(names)).await
    }
    fn occupancy(&self) -> Option<std::sync::Arc<crate::storage::Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.within(Operation::TryExclusive, "the storage", self.inner.try_exclusive()).await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.within(Operation::Size, "the storage", self.inner.available_bytes()).await
    }

    async fn vacate(&self) -> Result<()> {
        self.within(Operation::Delete, "the storage", self.inner.vacate()).await
    }
}
