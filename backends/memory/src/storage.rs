//! The store, and the handles on it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_lock::{RwLock as AsyncRwLock, RwLockWriteGuardArc};
use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::bounds::{check_blob_bytes, check_range, name_range, not_found};
use strongroom_core::storage::{
    BatchSupport, Capabilities, Change, Durability, ExclusiveGuard, ListOrder, Name, Occupancy, Operation, Put,
    RangeReads, Reach, Result, Storage, Torn,
};

pub(crate) const CAPABILITIES: Capabilities = Capabilities {
    reach: Reach::Process,
    durability: Durability::None,
    torn: Torn::Never,
    batch: BatchSupport::Atomic,
    list_order: ListOrder::Ascending,
    range_reads: RangeReads::Native,
    block_bytes_best: 128 * 1024,
    block_bytes_max: 4 * 1024 * 1024,
};

/// So many names come with one page of a listing.
const PAGE_NAMES: usize = 4096;

/// So many bytes of deleted blobs are let go one by one, as new ones come: freed all at once, an allocator gives the memory
/// back to the system, only to get it anew, page by page, for what is put next.
const LET_GO_BYTES_MAX: usize = 32 << 20;

#[derive(Default)]
struct Blobs {
    present: BTreeMap<Name, Bytes>,
    /// Deleted, and not yet let go.
    deleted: VecDeque<Bytes>,
    deleted_bytes: usize,
}

impl Blobs {
    fn put(&mut self, name: Name, bytes: Bytes) -> Put {
        // Two, so that they become fewer.
        self.let_go();
        self.let_go();
        match self.present.entry(name) {
            Entry::Vacant(free) => {
                free.insert(bytes);
                Put::Created
            }
            Entry::Occupied(_) => Put::Exists,
        }
    }

    fn delete(&mut self, name: Name) {
        let Some(bytes) = self.present.remove(&name) else { return };
        self.deleted_bytes += bytes.len();
        self.deleted.push_back(bytes);
        while self.deleted_bytes > LET_GO_BYTES_MAX {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        if let Some(bytes) = self.deleted.pop_front() {
            self.deleted_bytes -= bytes.len();
        }
    }
}

/// What the handles share.
#[derive(Default)]
pub(crate) struct Store {
    /// Every operation holds this for the time of one map access: a put moves a `Bytes`, and copies nothing.
    blobs: RwLock<Blobs>,
    handles: AtomicUsize,
    /// Opening reads it, an exclusive guard writes it: so newcomers wait while a guard lives.
    gate: Arc<AsyncRwLock<()>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Store")
            .field("blobs", &self.read().present.len())
            .field("handles", &self.handles.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl Store {
    pub(crate) fn is_empty(&self) -> bool {
        self.read().present.is_empty()
    }

    // Each change of the map is a single call on it, so a panic elsewhere never leaves it half changed; what is counted of
    // deleted blobs decides only when their memory goes.
    fn read(&self) -> RwLockReadGuard<'_, Blobs> {
        self.blobs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Blobs> {
        self.blobs.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle on a store in memory. Clone the `Arc` around it to share the handle; [`MemoryStorage::another`] opens one
/// more, as another process would.
#[derive(Debug)]
pub struct MemoryStorage {
    store: Arc<Store>,
    occupancy: Arc<Occupancy>,
}

impl MemoryStorage {
    /// A handle on a fresh, empty store.
    #[must_use]
    pub fn new() -> Self {
        let store = Arc::<Store>::default();
        store.handles.store(1, Ordering::SeqCst);
        Self { store, occupancy: Arc::default() }
    }

    /// Another handle on the same store; waits while someone holds it exclusively.
    pub async fn another(&self) -> Self {
        Self::on(self.store.clone()).await
    }

    pub(crate) async fn on(store: Arc<Store>) -> Self {
        let gate = store.gate.clone();
        let _open = gate.read().await;
        store.handles.fetch_add(1, Ordering::SeqCst);
        Self { store, occupancy: Arc::default() }
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStorage {
    fn drop(&mut self) {
        self.store.handles.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Alone {
    _gate: RwLockWriteGuardArc<()>,
}

impl ExclusiveGuard for Alone {}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Storage for MemoryStorage {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        check_blob_bytes(Operation::Put, name, bytes.len(), CAPABILITIES.block_bytes_max)?;
        Ok(self.store.write().put(name, bytes))
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        check_blob_bytes(Operation::PutDurable, name, bytes.len(), CAPABILITIES.block_bytes_max)?;
        Ok(self.store.write().put(name, bytes))
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let blob = self.store.read().present.get(&name).cloned().ok_or_else(|| not_found(Operation::Get, name))?;
        let range = check_range(name, range, blob.len() as u64, max_bytes)?;
        // Within the blob, so within usize.
        Ok(blob.slice(range.start as usize..range.end as usize))
    }

    async fn size(&self, name: Name) -> Result<u64> {
        let blobs = self.store.read();
        blobs.present.get(&name).map(|blob| blob.len() as u64).ok_or_else(|| not_found(Operation::Size, name))
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.store.write().delete(name);
        Ok(())
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let Some((first, last)) = name_range(prefix, after) else { return Ok(Vec::new()) };
        Ok(self.store.read().present.range(first..=last).take(PAGE_NAMES).map(|(name, _)| *name).collect())
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        for change in &batch {
            if let Change::Put(name, bytes) = change {
                check_blob_bytes(Operation::Apply, *name, bytes.len(), CAPABILITIES.block_bytes_max)?;
            }
        }
        let mut blobs = self.store.write();
        let mut outcomes = Vec::with_capacity(batch.len());
        for change in batch {
            match change {
                Change::Put(name, bytes) => outcomes.push(blobs.put(name, bytes)),
                Change::Delete(name) => blobs.delete(name),
            }
        }
        Ok(outcomes)
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        let blobs = self.store.read();
        match names.iter().find(|name| !blobs.present.contains_key(name)) {
            None => Ok(()),
            Some(absent) => Err(not_found(Operation::Persist, *absent)),
        }
    }

    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        Some(self.occupancy.clone())
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        let Some(gate) = self.store.gate.try_write_arc() else { return Ok(None) };
        if self.store.handles.load(Ordering::SeqCst) != 1 {
            return Ok(None);
        }
        Ok(Some(Box::new(Alone { _gate: gate })))
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn a_put_copies_nothing() {
        let storage = MemoryStorage::new();
        let bytes = Bytes::from(vec![7; 1000]);
        let name = Name::new([1; 16]);
        block_on(storage.put(name, bytes.clone())).unwrap();
        let read = block_on(storage.get(name, None, 1000)).unwrap();
        assert_eq!(read.as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn what_is_deleted_is_let_go_as_new_blobs_come_and_at_once_beyond_a_bound() {
        let storage = MemoryStorage::new();
        let name = |number: u8| Name::new([number; 16]);
        let blobs: Vec<Bytes> = (0..40).map(|_| Bytes::from(vec![7; 1 << 20])).collect();
        for (number, blob) in (0..).zip(&blobs) {
            block_on(storage.put(name(number), blob.clone())).unwrap();
            block_on(storage.delete(name(number))).unwrap();
            assert!(block_on(storage.size(name(number))).is_err());
        }
        // Each put let the one before go.
        assert_eq!(blobs.iter().filter(|blob| !blob.is_unique()).count(), 1);
        for (number, blob) in (0..).zip(&blobs) {
            block_on(storage.put(name(number), blob.clone())).unwrap();
        }
        for number in 0..40 {
            block_on(storage.delete(name(number))).unwrap();
        }
        let held = blobs.iter().filter(|blob| !blob.is_unique()).count();
        assert_eq!(held, LET_GO_BYTES_MAX >> 20);
    }

    #[test]
    fn a_newcomer_waits_for_the_exclusive_guard() {
        block_on(async {
            let storage = MemoryStorage::new();
            let other = storage.another().await;
            assert!(storage.try_exclusive().await.unwrap().is_none());
            drop(other);
            let guard = storage.try_exclusive().await.unwrap().unwrap();
            assert!(storage.try_exclusive().await.unwrap().is_none());
            assert!(poll_once(storage.another()).await.is_none());
            drop(guard);
            storage.another().await;
        });
    }
}
