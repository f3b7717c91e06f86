//! The handle: what the clauses ask for, as calls of sled.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::bounds::{check_range, name_range, not_found};
use strongroom_core::storage::{
    BatchSupport, BlockingStorage, BlockingStore, Capabilities, Durability, ListOrder, Name, OpenContext, OpenMode,
    OpenStores, Operation, Put, RangeReads, Reach, Result, StorageUri, StoreHandle, Torn,
};

use crate::database::{Base, Identity, Place, open};
use crate::error::{failed, gone, guarded};
use crate::room::{self, Use};

pub(crate) const CAPABILITIES: Capabilities = Capabilities {
    reach: Reach::Process,
    // sled's flush hands its log to the kernel and asks it to write it out, and does not ask that it be durable.
    durability: Durability::Process,
    torn: Torn::BeforeSync,
    batch: BatchSupport::Sequential,
    list_order: ListOrder::Ascending,
    range_reads: RangeReads::Emulated,
    block_bytes_best: 128 * 1024,
    block_bytes_max: 4 * 1024 * 1024,
};

/// So many names come with one page of a listing.
const PAGE_NAMES: usize = 4096;

/// How often opening looks whether another process has left: for a second, which a short command takes to end. sled's own
/// threads let go of its lock a moment after it was closed, too.
const BUSY_LOOKS: u32 = 200;

/// The databases that this process has open, which sled lets it open once.
static OPEN: OpenStores<Identity, Store> = OpenStores::new();

/// Those that this process could not close for want of room. sled would wait for that for ever; and as long as one is not closed, its
/// lock keeps out whoever opens it anew, this process too.
static UNCLOSED: Mutex<BTreeMap<Identity, Base>> = Mutex::new(BTreeMap::new());

/// A handle on a database, which all handles of a process share. To open it, another process that has it open is waited for, a
/// second.
///
/// `open` fails with [`ErrorKind`](strongroom_core::storage::ErrorKind)`::NotFound` where it is absent and may not be created;
/// `Invalid` where something else is there; `Unsupported` for a later format; `Busy` where another process has it open; and what
/// sled raises.
pub type SledStorage = BlockingStorage<Store>;

/// An open database.
pub struct Store {
    place: Place,
    /// `None` only once it is being closed.
    base: Option<Base>,
}

/// Closes the database: sled flushes what waits.
impl Drop for Store {
    fn drop(&mut self) {
        let Some(base) = self.base.take() else { return };
        if room::check(&self.place.path, Operation::Open, &self.place.shown, Use::Flush).is_err() {
            unclosed().insert(self.place.identity.to_owned(), base);
            return;
        }
        close(base, &self.place);
    }
}

fn close(base: Base, place: &Place) {
    // There is nobody to tell, and what no barrier covered was not promised.
    let _ = guarded(Operation::Open, &place.shown, || {
        drop(base);
        Ok(())
    });
}

fn unclosed() -> MutexGuard<'static, BTreeMap<Identity, Base>> {
    UNCLOSED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes sure that there is room to open a database, which sled writes to then, and closes it where this process could not before.
fn close_at_last(place: &Place) -> Result<()> {
    room::check(&place.path, Operation::Open, &place.shown, Use::Flush)?;
    // Closed when the lock is free again: that takes its time.
    let base = unclosed().remove(&place.identity);
    base.into_iter().for_each(|base| close(base, place));
    Ok(())
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Store {
    fn new(place: Place, mode: OpenMode) -> Result<Self> {
        close_at_last(&place)?;
        let base = open(&place, mode)?;
        Ok(Self { place, base: Some(base) })
    }

    fn call<T>(
        &self,
        operation: Operation,
        context: &str,
        call: impl FnOnce(&sled::Tree) -> sled::Result<T>,
    ) -> Result<T> {
        let Some(base) = &self.base else { return Err(gone(operation)) };
        guarded(operation, context, || call(&base.blobs).map_err(|error| failed(operation, context, error)))
    }

    fn change<T>(
        &self,
        operation: Operation,
        context: &str,
        room: Use,
        call: impl FnOnce(&sled::Tree) -> sled::Result<T>,
    ) -> Result<T> {
        if self.place.is_gone() {
            return Err(gone(operation));
        }
        room::check(&self.place.path, operation, context, room)?;
        self.call(operation, context, call)
    }

    fn barrier(&self, operation: Operation) -> Result<()> {
        self.change(operation, "the database", Use::Flush, |blobs| blobs.flush().map(drop))
    }

    fn blob(&self, operation: Operation, name: Name) -> Result<sled::IVec> {
        let blob = self.call(operation, &name.to_hex(), |blobs| blobs.get(name.as_bytes()))?;
        blob.ok_or_else(|| if self.place.is_gone() { gone(operation) } else { not_found(operation, name) })
    }

    fn put_as(&self, operation: Operation, name: Name, bytes: &Bytes) -> Result<Put> {
        self.change(operation, &name.to_hex(), Use::Blob(bytes.len()), |blobs| {
            // First, because it costs nothing, and what is compared is copied.
            if blobs.contains_key(name.as_bytes())? {
                return Ok(Put::Exists);
            }
            let put = blobs.compare_and_swap(name.as_bytes(), None::<&[u8]>, Some(bytes.as_ref()))?;
            if operation == Operation::PutDurable && put.is_ok() {
                blobs.flush()?;
            }
            Ok(if put.is_ok() { Put::Created } else { Put::Exists })
        })
    }
}

#[async_trait]
impl BlockingStore for Store {
    const CAPABILITIES: Capabilities = CAPABILITIES;
    const BUSY_LOOKS: u32 = BUSY_LOOKS;

    async fn open(path: &Path, context: &OpenContext) -> Result<StoreHandle<Self>> {
        let (blocking, mode) = (context.blocking(), context.mode);
        let (path, shown) = (path.to_owned(), StorageUri::show_path("sled", path, "the database"));
        let place = blocking.run(Operation::Open, move || Place::find(&path, mode, &shown)).await?;
        let entrance = OPEN.enter(place.identity.to_owned()).await;
        blocking.run(Operation::Open, move || entrance.open(|| Store::new(place, mode))).await
    }

    fn put(&self, name: Name, bytes: &Bytes) -> Result<Put> {
        self.put_as(Operation::Put, name, bytes)
    }

    fn put_durable(&self, name: Name, bytes: &Bytes) -> Result<Put> {
        self.put_as(Operation::PutDurable, name, bytes)
    }

    fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let blob = self.blob(Operation::Get, name)?;
        let range = check_range(name, range, blob.len() as u64, max_bytes)?;
        // Within the blob, so within usize.
        Ok(Bytes::from_owner(blob).slice(range.start as usize..range.end as usize))
    }

    fn size(&self, name: Name) -> Result<u64> {
        Ok(self.blob(Operation::Size, name)?.len() as u64)
    }

    fn delete(&self, name: Name) -> Result<()> {
        self.change(Operation::Delete, &name.to_hex(), Use::Removal, |blobs| blobs.remove(name.as_bytes()).map(drop))
    }

    fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let Some((first, last)) = name_range(prefix, after) else { return Ok(Vec::new()) };
        let page = self.call(Operation::List, "the database", |blobs| {
            let mut page = Vec::new();
            for key in blobs
                .range::<&[u8], _>(first.as_bytes().as_slice()..=last.as_bytes().as_slice())
                .keys()
                .take(PAGE_NAMES)
            {
                // What is no name was not put by us.
                page.extend(<[u8; Name::BYTES]>::try_from(key?.as_ref()).ok().map(Name::new));
            }
            Ok(page)
        })?;
        if page.is_empty() && self.place.is_gone() {
            return Err(gone(Operation::List));
        }
        Ok(page)
    }

    fn sync(&self) -> Result<()> {
        self.barrier(Operation::Sync)
    }

    fn persist(&self, names: &[Name]) -> Result<()> {
        for name in names {
            self.blob(Operation::Persist, *name)?;
        }
        if names.is_empty() { Ok(()) } else { self.barrier(Operation::Persist) }
    }

    /// Other processes are kept out by sled's lock.
    fn try_keep_others_out(&self) -> Result<bool> {
        Ok(true)
    }
}
