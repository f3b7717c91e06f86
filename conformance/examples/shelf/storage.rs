//! `shelf://name`: blobs in a map that lives as long as its registry. It claims no more than that.
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::bounds::{check_blob_bytes, check_range, name_range, not_found};
use strongroom_core::storage::*;

const CAPABILITIES: Capabilities = Capabilities {
    reach: Reach::Process,
    durability: Durability::None,
    torn: Torn::Never,
    batch: BatchSupport::Sequential,
    list_order: ListOrder::Ascending,
    range_reads: RangeReads::Native,
    block_bytes_best: 128 * 1024,
    block_bytes_max: 4 * 1024 * 1024,
};

#[derive(Clone, Debug, Default)]
struct Shelf(Arc<Mutex<BTreeMap<Name, Bytes>>>);

impl Shelf {
    /// Each change is one call on the map, so a panic elsewhere leaves none half done.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn store(&self, operation: Operation, name: Name, bytes: Bytes) -> Result<Put> {
        check_blob_bytes(operation, name, bytes.len(), CAPABILITIES.block_bytes_max)?; // S13
        let mut blobs = self.lock(); // until the end: looking and putting are one step (S1, S2)
        let is_taken = blobs.contains_key(&name);
        blobs.entry(name).or_insert(bytes);
        Ok(if is_taken { Put::Exists } else { Put::Created })
    }
}

#[async_trait]
impl Storage for Shelf {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }
    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.store(Operation::Put, name, bytes)
    }
    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.store(Operation::PutDurable, name, bytes) // `Durability::None` promises no more
    }
    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let blob = self.lock().get(&name).cloned().ok_or_else(|| not_found(Operation::Get, name))?; // S4
        let range = check_range(name, range, blob.len() as u64, max_bytes)?; // S3
        Ok(blob.slice(range.start as usize..range.end as usize))
    }
    async fn size(&self, name: Name) -> Result<u64> {
        self.lock().get(&name).map(|blob| blob.len() as u64).ok_or_else(|| not_found(Operation::Size, name))
    }
    async fn delete(&self, name: Name) -> Result<()> {
        self.lock().remove(&name); // absent or not (S6)
        Ok(())
    }
    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let Some((first, last)) = name_range(prefix, after) else { return Ok(Vec::new()) };
        Ok(self.lock().range(first..=last).take(1000).map(|(name, _)| *name).collect()) // a page (S7)
    }
    async fn sync(&self) -> Result<()> {
        Ok(())
    }
    async fn persist(&self, names: &[Name]) -> Result<()> {
        let absent = names.iter().find(|name| !self.lock().contains_key(name)).copied();
        absent.map_or(Ok(()), |name| Err(not_found(Operation::Persist, name)))
    }
}

#[derive(Default)]
struct Shelves(Mutex<HashMap<String, Shelf>>);

#[async_trait]
impl StorageConstructor for Shelves {
    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
        uri.allow_parameters(&[])?;
        let mut shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if context.mode == OpenMode::Existing && !shelves.contains_key(&uri.to_string()) {
            return Err(Error::new(ErrorKind::NotFound, Operation::Open, uri.redacted()));
        }
        Ok(Arc::new(shelves.entry(uri.to_string()).or_default().clone()))
    }
    fn info(&self) -> SchemeInfo {
        SchemeInfo::new("a map in memory, an example").form("shelf://name").capabilities(CAPABILITIES)
    }
}

/// Adds `shelf:` to a registry.
pub fn register(registry: &mut Registry) {
    registry.register("shelf", Shelves::default());
}
