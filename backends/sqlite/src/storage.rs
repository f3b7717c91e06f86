//! The handle: what the clauses ask for, in the thread that the caller wants.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::bounds::check_blob_bytes;
use strongroom_core::storage::{
    BatchSupport, Blocking, Capabilities, Change, Durability, Entrance, Error, ExclusiveGuard, ListOrder, Name,
    Occupancy, OnlyHandle, OpenContext, OpenStores, Operation, Put, RangeReads, Reach, Result, Storage, StorageUri,
    StoreHandle, Torn,
};

use crate::database::{Identity, Place};
use crate::store::{Store, at_the_gate};

pub(crate) const CAPABILITIES: Capabilities = Capabilities {
    reach: Reach::Host,
    durability: Durability::Power,
    torn: Torn::Never,
    batch: BatchSupport::Atomic,
    list_order: ListOrder::Ascending,
    range_reads: RangeReads::Native,
    block_bytes_best: 128 * 1024,
    block_bytes_max: 4 * 1024 * 1024,
};

/// How often opening looks whether a process that has the database for itself has left, and how long it waits in between: for a minute.
const GATE_LOOKS: u32 = 12_000;
const GATE_PAUSE: Duration = Duration::from_millis(5);

/// The databases that this process has open: a barrier is the process's, and what failed for one handle is lost for all.
static OPEN: OpenStores<Identity, Store> = OpenStores::new();

/// A handle on a database.
#[derive(Debug)]
pub struct SqliteStorage {
    store: Arc<StoreHandle<Store>>,
    blocking: Blocking,
}

impl SqliteStorage {
    /// Opens a database; waits while another process has it for itself, up to a minute. One that cannot be written to can be
    /// read.
    ///
    /// # Errors
    /// [`ErrorKind`](strongroom_core::storage::ErrorKind)`::NotFound` where the file is absent and may not be created, or its
    /// folder is; `Invalid` where something else is there, the file has several names or too long a path, a log is left of one that is
    /// elsewhere, or what is called like its journal is none;
    /// `Unsupported` for a later format, or where SQLite's log cannot be, as on a network file system; what SQLite raises.
    pub async fn open(path: &Path, context: &OpenContext) -> Result<Self> {
        let blocking = context.blocking();
        let (mut place, mut entrance) = find(path, context).await?;
        for _ in 0..GATE_LOOKS {
            let (at, entrance_at, mode) = (place.clone(), entrance.clone(), context.mode);
            let enter = move || {
                let mut is_at_the_gate = false;
                match entrance_at.open(|| Store::open(at.clone(), mode, &mut is_at_the_gate)) {
                    Err(_) if is_at_the_gate => Ok(None),
                    // What its name leads to now is another file, or none.
                    Err(_) if at.is_gone() => Ok(None),
                    outcome => outcome.map(Some),
                }
            };
            if let Some(store) = blocking.run(Operation::Open, enter).await? {
                return Ok(Self { store: Arc::new(store), blocking });
            }
            context.env.sleep(GATE_PAUSE).await;
            let at = place.clone();
            if blocking.run(Operation::Open, move || Ok(at.is_gone())).await? {
                (place, entrance) = find(path, context).await?;
            }
        }
        Err(at_the_gate(&place))
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        call: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.store.clone();
        self.blocking.run(operation, move || call(&store)).await
    }
}

/// The file that a path leads to now, and where its store is.
async fn find(path: &Path, context: &OpenContext) -> Result<(Place, Arc<Entrance<Store>>)> {
    let (path, mode, shown) = (path.to_owned(), context.mode, shown(path));
    let place = context.blocking().run(Operation::Open, move || Place::find(&path, mode, &shown)).await?;
    let entrance = OPEN.enter(place.identity.to_owned()).await;
    Ok((place, Arc::new(entrance)))
}

/// The path as errors show it.
fn shown(path: &Path) -> String {
    StorageUri::from_path(path).map_or_else(|_| "the database".to_owned(), |uri| uri.redacted())
}

/// No other handle is there, in this process or another.
struct Alone {
    store: Arc<StoreHandle<Store>>,
    _here: OnlyHandle,
}

impl ExclusiveGuard for Alone {}

impl Drop for Alone {
    fn drop(&mut self) {
        self.store.let_others_in();
    }
}

#[async_trait]
impl Storage for SqliteStorage {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        check_blob_bytes(Operation::Put, name, bytes.len(), CAPABILITIES.block_bytes_max)?;
        self.run(Operation::Put, move |store| store.put(Operation::Put, name, &bytes)).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        check_blob_bytes(Operation::PutDurable, name, bytes.len(), CAPABILITIES.block_bytes_max)?;
        self.run(Operation::PutDurable, move |store| store.put(Operation::PutDurable, name, &bytes)).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.run(Operation::Get, move |store| store.get(name, range, max_bytes)).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.run(Operation::Size, move |store| store.size(name)).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.run(Operation::Delete, move |store| store.delete(name)).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let prefix = prefix.to_vec();
        self.run(Operation::List, move |store| store.list(&prefix, after)).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        for change in &batch {
            if let Change::Put(name, bytes) = change {
                check_blob_bytes(Operation::Apply, *name, bytes.len(), CAPABILITIES.block_bytes_max)?;
            }
        }
        self.run(Operation::Apply, move |store| store.apply(&batch)).await
    }

    async fn sync(&self) -> Result<()> {
        self.run(Operation::Sync, Store::sync).await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        let names = names.to_vec();
        self.run(Operation::Persist, move |store| store.persist(&names)).await
    }

    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        Some(self.store.occupancy().clone())
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        let store = self.store.clone();
        let try_alone = move || {
            let Some(here) = store.try_alone() else { return Ok(None) };
            let alone = store.try_keep_others_out();
            match alone.map_err(|error| Error::from_io(Operation::TryExclusive, "the locks", error))? {
                true => Ok(Some(Box::new(Alone { store, _here: here }) as Box<dyn ExclusiveGuard>)),
                false => Ok(None),
            }
        };
        self.blocking.run(Operation::TryExclusive, try_alone).await
    }
}
