use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::storage::{Capabilities, Change, ErrorKind, ExclusiveGuard, Name, Operation, Put, Result, Storage};

const OPERATIONS: [Operation; 11] = [
    Operation::Open,
    Operation::Put,
    Operation::PutDurable,
    Operation::Get,
    Operation::Size,
    Operation::Delete,
    Operation::List,
    Operation::Apply,
    Operation::Sync,
    Operation::Persist,
    Operation::TryExclusive,
];

const KINDS: [ErrorKind; 13] = [
    ErrorKind::NotFound,
    ErrorKind::RangeInvalid,
    ErrorKind::LimitExceeded,
    ErrorKind::Full,
    ErrorKind::PermissionDenied,
    ErrorKind::ReadOnly,
    ErrorKind::Busy,
    ErrorKind::Unavailable,
    ErrorKind::Credentials,
    ErrorKind::Invalid,
    ErrorKind::Unsupported,
    ErrorKind::Corrupt,
    ErrorKind::Other,
];

/// Counters, shared by their clones and by every storage that is measured with them.
///
/// They are written without order among each other: a snapshot taken while calls run may see some of a call and not the
/// rest.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    operations: [OperationCounters; OPERATIONS.len()],
    errors: [AtomicU64; KINDS.len()],
}

#[derive(Debug, Default)]
struct OperationCounters {
    calls: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The storage, counted.
    #[must_use]
    pub fn over(&self, inner: Arc<dyn Storage>) -> Measured {
        Measured { inner, metrics: self.clone() }
    }

    /// What was counted so far.
    #[must_use]
    pub fn snapshot(&self) -> MetricsSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MetricsSnapshot {
            operations: self.counters.operations.each_ref().map(|counters| OperationCounts {
                calls: read(&counters.calls),
                errors: read(&counters.errors),
                bytes: read(&counters.bytes),
            }),
            errors: self.counters.errors.each_ref().map(read),
        }
    }

    async fn count<T>(
        &self,
        operation: Operation,
        bytes_of: impl FnOnce(&T) -> u64,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let counters = self.counters.operations.get(operation as usize);
        let add = |counter: Option<&AtomicU64>, more: u64| {
            if let Some(counter) = counter {
                counter.fetch_add(more, Ordering::Relaxed);
            }
        };
        // Before: a call that is dropped in the middle went out all the same.
        add(counters.map(|counters| &counters.calls), 1);
        let answer = call.await;
        match &answer {
            Ok(answer) => add(counters.map(|counters| &counters.bytes), bytes_of(answer)),
            Err(error) => {
                add(counters.map(|counters| &counters.errors), 1);
                add(self.counters.errors.get(error.kind() as usize), 1);
            }
        }
        answer
    }
}

/// What was counted of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Calls that were made, failed and abandoned ones included.
    pub calls: u64,
    /// Calls that answered an error; that a name is absent is one too.
    pub errors: u64,
    /// The bytes of blobs that went there or came back in calls that succeeded.
    pub bytes: u64,
}

/// What was counted up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsSnapshot {
    operations: [OperationCounts; OPERATIONS.len()],
    errors: [u64; KINDS.len()],
}

impl MetricsSnapshot {
    /// Of one operation.
    #[must_use]
    pub fn of(&self, operation: Operation) -> OperationCounts {
        self.operations.get(operation as usize).copied().unwrap_or_default()
    }

    /// Errors of one kind.
    #[must_use]
    pub fn errors(&self, kind: ErrorKind) -> u64 {
        self.errors.get(kind as usize).copied().unwrap_or_default()
    }

    /// Calls of all operations.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.operations.iter().map(|counts| counts.calls).sum()
    }

    /// Calls that make something durable: `put_durable`, `sync`, `persist`.
    #[must_use]
    pub fn barriers(&self) -> u64 {
        [Operation::PutDurable, Operation::Sync, Operation::Persist].iter().map(|of| self.of(*of).calls).sum()
    }

    /// The bytes of blobs that were put.
    #[must_use]
    pub fn uploaded_bytes(&self) -> u64 {
        [Operation::Put, Operation::PutDurable, Operation::Apply].iter().map(|of| self.of(*of).bytes).sum()
    }

    /// The bytes of blobs that were read.
    #[must_use]
    pub fn downloaded_bytes(&self) -> u64 {
        self.of(Operation::Get).bytes
    }

    /// What was counted after an earlier snapshot of the same metrics.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        for (counts, earlier) in since.operations.iter_mut().zip(&earlier.operations) {
            counts.calls = counts.calls.saturating_sub(earlier.calls);
            counts.errors = counts.errors.saturating_sub(earlier.errors);
            counts.bytes = counts.bytes.saturating_sub(earlier.bytes);
        }
        for (errors, earlier) in since.errors.iter_mut().zip(&earlier.errors) {
            *errors = errors.saturating_sub(*earlier);
        }
        since
    }
}

impl fmt::Display for MetricsSnapshot {
    /// One line: what was called how often, and the bytes.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} requests", self.calls())?;
        let mut separator = " (";
        for operation in OPERATIONS {
            let counts = self.of(operation);
            if counts.calls > 0 {
                write!(formatter, "{separator}{operation:?} {}", counts.calls)?;
                separator = ", ";
            }
        }
        if separator == ", " {
            formatter.write_str(")")?;
        }
        write!(formatter, ", {} bytes up, {} bytes down", self.uploaded_bytes(), self.downloaded_bytes())?;
        let mut separator = "; errors: ";
        for kind in KINDS {
            let errors = self.errors(kind);
            if errors > 0 {
                write!(formatter, "{separator}{kind:?} {errors}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// A storage whose calls are counted; made by [`Metrics::over`].
#[derive(Clone, Debug)]
pub struct Measured {
    inner: Arc<dyn Storage>,
    metrics: Metrics,
}

fn none<T>(_: &T) -> u64 {
    0
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Storage for Measured {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let length = bytes.len() as u64;
        self.metrics.count(Operation::Put, |_| length, self.inner.put(name, bytes)).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let length = bytes.len() as u64;
        self.metrics.count(Operation::PutDurable, |_| length, self.inner.put_durable(name, bytes)).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let call = self.inner.get(name, range, max_bytes);
        self.metrics.count(Operation::Get, |bytes: &Bytes| bytes.len() as u64, call).await
    }

    async fn get_cached(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let call = self.inner.get_cached(name, range, max_bytes);
        self.metrics.count(Operation::Get, |bytes: &Bytes| bytes.len() as u64, call).await
    }

    async fn forget(&self, name: Name) -> bool {
        self.inner.forget(name).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.metrics.count(Operation::Size, none, self.inner.size(name)).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.metrics.count(Operation::Delete, none, self.inner.delete(name)).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.metrics.count(Operation::List, none, self.inner.list(prefix, after)).await
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        self.metrics.count(Operation::List, none, self.inner.list_page(prefix, after)).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        let length = uploaded(&batch);
        self.metrics.count(Operation::Apply, |_| length, self.inner.apply(batch)).await
    }

    async fn sync(&self) -> Result<()> {
        self.metrics.count(Operation::Sync, none, self.inner.sync()).await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.metrics.count(Operation::Persist, none, self.inner.persist(names)).await
    }
    fn occupancy(&self) -> Option<std::sync::Arc<crate::storage::Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.metrics.count(Operation::TryExclusive, none, self.inner.try_exclusive()).await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.metrics.count(Operation::Size, none, self.inner.available_bytes()).await
    }

    async fn vacate(&self) -> Result<()> {
        self.metrics.count(Operation::Delete, none, self.inner.vacate()).await
    }
}

/// The bytes that a batch sends.
pub(super) fn uploaded(batch: &[Change]) -> u64 {
    batch
        .iter()
        .map(|change| match change {
            Change::Put(_, bytes) => bytes.len() as u64,
            Change::Delete(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_and_every_kind_has_its_place() {
        for (place, operation) in OPERATIONS.into_iter().enumerate() {
            assert_eq!(operation as usize, place);
        }
        for (place, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
        assert_eq!(Operation::TryExclusive as usize + 1, OPERATIONS.len());
        assert_eq!(ErrorKind::Other as usize + 1, KINDS.len());
    }
}
