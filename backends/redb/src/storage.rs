//! The handle: what the clauses ask for, as transactions.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable as _, Table, WriteTransaction};
use strongroom_core::storage::bounds::{check_blob_bytes, check_range, name_range, not_found};
use strongroom_core::storage::{
    BatchSupport, Blocking, Capabilities, Change, Durability, Error, ErrorKind, ExclusiveGuard, ListOrder, Name,
    Occupancy, OpenContext, OpenMode, OpenStores, Operation, Put, RangeReads, Reach, Result, Storage, StorageUri,
    StoreHandle, Torn,
};

use crate::database::{Base, Identity, NAMES, PIECE_KEY_BYTES, PIECES, Place, open};
use crate::error::{corrupt, failed, gone, guarded};

pub(crate) const CAPABILITIES: Capabilities = Capabilities {
    reach: Reach::Process,
    durability: Durability::Power,
    torn: Torn::Never,
    batch: BatchSupport::Atomic,
    list_order: ListOrder::Ascending,
    range_reads: RangeReads::Native,
    block_bytes_best: 128 * 1024,
    block_bytes_max: 4 * 1024 * 1024,
};

/// So many names come with one page of a listing.
const PAGE_NAMES: usize = 4096;

/// Content is cut so that a piece, with its key and what redb adds, just fills a page of 16 KiB.
const PIECE_BYTES: usize = 16 * 1024 - 64;

/// What no barrier covered is kept in memory in part, and what it freed is not used again: so after so many bytes there is one.
const UNSYNCED_BYTES_MAX: usize = 32 << 20;

/// How often opening looks whether another process has left, and how long it waits in between: for a second, which a short
/// command takes to end.
const BUSY_LOOKS: u32 = 200;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// The databases that this process has open, which redb lets it open once.
static OPEN: OpenStores<Identity, Store> = OpenStores::new();

type Rows<T> = std::result::Result<T, redb::Error>;

/// A handle on a database.
#[derive(Debug)]
pub struct RedbStorage {
    store: Arc<StoreHandle<Store>>,
    blocking: Blocking,
}

struct Store {
    place: Place,
    base: Base,
    unsynced: Mutex<Unsynced>,
}

/// Closes the database: redb makes durable what waits, where it can.
impl Drop for Store {
    fn drop(&mut self) {
        let base = std::mem::replace(&mut self.base, Base::Closed);
        // There is nobody to tell, and what no barrier covered was not promised.
        let _ = guarded(Operation::Open, &self.place.shown, || {
            drop(base);
            Ok(())
        });
    }
}

/// What was committed without a sync since the last one with it.
#[derive(Debug, Default)]
struct Unsynced {
    is_dirty: bool,
    /// Whether there was a sync since the database was opened: what was found then, who put it may not have synced.
    had_barrier: bool,
    bytes: usize,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").field("place", &self.place).finish_non_exhaustive()
    }
}

impl RedbStorage {
    /// Opens a database. All handles of a process share it; another process that has it open is waited for, a second. One that
    /// cannot be written to can be read.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the file is absent and may not be created, or its folder is; [`ErrorKind::Invalid`] where
    /// something else is there; [`ErrorKind::Unsupported`] for a later format; [`ErrorKind::Busy`] where another process has it
    /// open; what redb raises.
    pub async fn open(path: &Path, context: &OpenContext) -> Result<Self> {
        let shown = StorageUri::from_path(path).map_or_else(|_| "the database".to_owned(), |uri| uri.redacted());
        let mut looks_left = BUSY_LOOKS;
        loop {
            match Self::look(path, &shown, context).await {
                Err(error) if error.kind() == ErrorKind::Busy && looks_left > 0 => looks_left -= 1,
                outcome => return outcome,
            }
            context.env.sleep(BUSY_PAUSE).await;
        }
    }

    /// Opens it if nobody else has it open at the moment.
    async fn look(path: &Path, shown: &str, context: &OpenContext) -> Result<Self> {
        let blocking = context.blocking();
        let tag = context.env.random().map(u64::from_le_bytes);
        let tag = tag.map_err(|error| Error::new(ErrorKind::Other, Operation::Open, shown).with_source(error))?;
        let (path, shown, mode) = (path.to_owned(), shown.to_owned(), context.mode);
        let place = blocking.run(Operation::Open, move || Place::find(&path, mode, &shown, tag)).await?;
        let entrance = OPEN.enter(place.identity.to_owned()).await;
        let enter = move || entrance.open(|| Store::open(place, mode));
        let store = blocking.run(Operation::Open, enter).await?;
        Ok(Self { store: Arc::new(store), blocking })
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

/// The tables of a change.
struct Tables<'t> {
    names: Table<'t, &'static [u8; Name::BYTES], u32>,
    pieces: Table<'t, &'static [u8; PIECE_KEY_BYTES], &'static [u8]>,
}

impl Tables<'_> {
    fn put(&mut self, name: Name, bytes: &Bytes) -> Rows<Put> {
        if self.names.get(name.as_bytes())?.is_some() {
            return Ok(Put::Exists);
        }
        for (number, piece) in (0..).zip(bytes.chunks(PIECE_BYTES)) {
            self.pieces.insert(&piece_key(name, number), piece)?;
        }
        // Blobs are far shorter than 4 GiB.
        self.names.insert(name.as_bytes(), bytes.len() as u32)?;
        Ok(Put::Created)
    }

    fn delete(&mut self, name: Name) -> Rows<()> {
        if self.names.remove(name.as_bytes())?.is_some() {
            let (first, last) = (piece_key(name, 0), piece_key(name, u16::MAX));
            self.pieces.retain_in::<&[u8; PIECE_KEY_BYTES], _>(&first..=&last, |_, _| false)?;
        }
        Ok(())
    }
}

fn piece_key(name: Name, number: u16) -> [u8; PIECE_KEY_BYTES] {
    let [high, low] = number.to_be_bytes();
    let mut key = [0; PIECE_KEY_BYTES];
    for (to, from) in key.iter_mut().zip(name.as_bytes().iter().chain(&[high, low])) {
        *to = *from;
    }
    key
}

impl Store {
    fn open(place: Place, mode: OpenMode) -> Result<Self> {
        let base = open(&place, mode)?;
        Ok(Self { place, base, unsynced: Mutex::default() })
    }

    /// Does one change, in one transaction.
    fn change<T>(
        &self,
        operation: Operation,
        context: &str,
        bytes: usize,
        change: impl FnOnce(&mut Tables<'_>) -> Rows<T>,
    ) -> Result<T> {
        let Base::Write(database) = &self.base else {
            return Err(Error::new(ErrorKind::ReadOnly, operation, context));
        };
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if self.place.is_gone() {
            return Err(gone(operation));
        }
        let is_barrier = matches!(operation, Operation::PutDurable | Operation::Sync | Operation::Persist);
        let syncs = is_barrier || unsynced.bytes.saturating_add(bytes) > UNSYNCED_BYTES_MAX;
        let durability = if syncs { redb::Durability::Immediate } else { redb::Durability::None };
        let answer = guarded(operation, context, || {
            let transact = || -> Rows<T> {
                let mut transaction: WriteTransaction = database.begin_write()?;
                transaction.set_durability(durability)?;
                let answer = {
                    let (names, pieces) = (transaction.open_table(NAMES)?, transaction.open_table(PIECES)?);
                    change(&mut Tables { names, pieces })?
                };
                transaction.commit()?;
                Ok(answer)
            };
            transact().map_err(|error| failed(operation, context, error))
        })?;
        // A synced commit makes all before it durable, too.
        *unsynced = match syncs {
            true => Unsynced { had_barrier: true, ..Unsynced::default() },
            false => Unsynced { is_dirty: true, bytes: unsynced.bytes + bytes, ..*unsynced },
        };
        Ok(answer)
    }

    fn put(&self, operation: Operation, name: Name, bytes: &Bytes) -> Result<Put> {
        self.change(operation, &name.to_hex(), bytes.len(), |tables| tables.put(name, bytes))
    }

    fn apply(&self, batch: &[Change]) -> Result<Vec<Put>> {
        let size = |change: &Change| match change {
            Change::Put(_, bytes) => bytes.len(),
            Change::Delete(_) => 0,
        };
        self.change(Operation::Apply, "a batch", batch.iter().map(size).sum(), |tables| {
            let mut outcomes = Vec::new();
            for change in batch {
                match change {
                    Change::Put(name, bytes) => outcomes.push(tables.put(*name, bytes)?),
                    Change::Delete(name) => tables.delete(*name)?,
                }
            }
            Ok(outcomes)
        })
    }

    fn sync(&self) -> Result<()> {
        if !self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).is_dirty {
            return Ok(());
        }
        self.barrier(Operation::Sync)
    }

    fn persist(&self, names: &[Name]) -> Result<()> {
        for name in names {
            self.size(Operation::Persist, *name)?;
        }
        // Since the first barrier nobody else can have put them.
        let is_due = {
            let unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
            unsynced.is_dirty || !unsynced.had_barrier
        };
        if is_due && !names.is_empty() { self.barrier(Operation::Persist) } else { Ok(()) }
    }

    fn barrier(&self, operation: Operation) -> Result<()> {
        self.change(operation, "the database", 0, |_| Ok(()))
    }

    /// Reads in one transaction.
    fn read<T>(
        &self,
        operation: Operation,
        context: &str,
        read: impl FnOnce(&ReadTransaction) -> Rows<T>,
    ) -> Result<T> {
        guarded(operation, context, || {
            let begun = self.base.begin_read().map_err(redb::Error::from);
            begun.and_then(|transaction| read(&transaction)).map_err(|error| failed(operation, context, error))
        })
    }

    fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let context = name.to_hex();
        let damaged = |what| Ok(Err(corrupt(Operation::Get, &context, what)));
        self.read(Operation::Get, &context, |transaction| {
            let Some(length) = transaction.open_table(NAMES)?.get(name.as_bytes())?.map(|length| length.value()) else {
                return Ok(Err(self.absent(Operation::Get, name)));
            };
            if length > CAPABILITIES.block_bytes_max {
                return damaged("it is longer than any that was put");
            }
            let range = match check_range(name, range, length.into(), max_bytes) {
                Ok(range) => range,
                Err(error) => return Ok(Err(error)),
            };
            // Within the blob, so within usize.
            let (start, end, length) = (range.start as usize, range.end as usize, length as usize);
            let mut bytes = Vec::with_capacity(end - start);
            let pieces = transaction.open_table(PIECES)?;
            while start + bytes.len() < end {
                let at = start + bytes.len();
                let begin = at / PIECE_BYTES * PIECE_BYTES;
                // A blob has 258 pieces at most.
                let Some(piece) = pieces.get(&piece_key(name, (at / PIECE_BYTES) as u16))? else {
                    return damaged("a piece of it is missing");
                };
                let piece = piece.value();
                let part = piece.get(at - begin..piece.len().min(end - begin));
                match part {
                    Some(part) if piece.len() == PIECE_BYTES.min(length - begin) => bytes.extend_from_slice(part),
                    _ => return damaged("a piece of it has another length than it was put with"),
                }
            }
            Ok(Ok(bytes.into()))
        })?
    }

    fn size(&self, operation: Operation, name: Name) -> Result<u64> {
        let length = self.read(operation, &name.to_hex(), |transaction| {
            Ok(transaction.open_table(NAMES)?.get(name.as_bytes())?.map(|length| length.value()))
        })?;
        length.map(u64::from).ok_or_else(|| self.absent(operation, name))
    }

    fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let Some((first, last)) = name_range(prefix, after) else { return Ok(Vec::new()) };
        let page = self.read(Operation::List, "the database", |transaction| {
            let mut page = Vec::new();
            let names = transaction.open_table(NAMES)?;
            for row in names.range::<&[u8; Name::BYTES]>(first.as_bytes()..=last.as_bytes())?.take(PAGE_NAMES) {
                page.push(Name::new(*row?.0.value()));
            }
            Ok(page)
        })?;
        if page.is_empty() && self.place.is_gone() {
            return Err(gone(Operation::List));
        }
        Ok(page)
    }

    /// What there is to say of a name without a row.
    fn absent(&self, operation: Operation, name: Name) -> Error {
        if self.place.is_gone() { gone(operation) } else { not_found(operation, name) }
    }
}

#[async_trait]
impl Storage for RedbStorage {
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
        self.run(Operation::Size, move |store| store.size(Operation::Size, name)).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        let delete =
            move |store: &Store| store.change(Operation::Delete, &name.to_hex(), 0, |tables| tables.delete(name));
        self.run(Operation::Delete, delete).await
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

    /// Other processes are kept out by redb's lock as long as this one has the database open for writing; beside one that only
    /// reads there may be other readers.
    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        if matches!(self.store.base, Base::Read(_)) {
            return Ok(None);
        }
        Ok(self.store.try_alone().map(|alone| Box::new(alone) as Box<dyn ExclusiveGuard>))
    }
}
