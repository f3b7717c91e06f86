//! The handle: what the clauses ask for, as statements.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, MAIN_DB, OptionalExtension as _, Transaction, TransactionBehavior, params};
use strongroom_core::storage::bounds::{check_blob_bytes, check_range, name_range, not_found};
use strongroom_core::storage::{
    BatchSupport, Blocking, Capabilities, Change, Durability, Error, ErrorKind, ExclusiveGuard, ListOrder, Name,
    Occupancy, OnlyHandle, OpenContext, OpenMode, OpenStores, Operation, Put, RangeReads, Reach, Result, Storage,
    StorageUri, StoreHandle, Torn,
};

use crate::database::{Access, Content, Identity, Place, Stamp, connect, initialise, open};
use crate::error::{corrupt, failed, gone, in_doubt, leaves_doubt};
use crate::lock::{Presence, beside};

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

/// So many names come with one page of a listing.
const PAGE_NAMES: usize = 4096;

/// So many connections for reading are kept; as many as are needed are opened.
const READERS_KEPT: usize = 8;

/// After so many bytes of puts the log is written into the database, so that it does not grow without end.
const CHECKPOINT_BYTES: u64 = 8 << 20;

/// Of so many pages at most the space is given back when the last handle is closed, where they are more than a quarter of the file.
const GIVEN_BACK_PAGES_MAX: u32 = 16 * 1024;

/// How often opening looks whether a process that has the database for itself has left, and how long it waits in between: for a minute.
const GATE_LOOKS: u32 = 12_000;
const GATE_PAUSE: Duration = Duration::from_millis(5);

const PUT: &str = "INSERT INTO blobs (name, content) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const DELETE: &str = "DELETE FROM blobs WHERE name = ?1";

/// The databases that this process has open: a barrier is the process's, and what failed for one handle is lost for all.
static OPEN: OpenStores<Identity, Store> = OpenStores::new();

/// A handle on a database.
#[derive(Debug)]
pub struct SqliteStorage {
    store: Arc<StoreHandle<Store>>,
    blocking: Blocking,
}

#[derive(Debug)]
struct Store {
    place: Place,
    access: Access,
    readers: Mutex<Vec<Connection>>,
    writer: Mutex<Writer>,
    /// A barrier failed: see [`leaves_doubt`].
    is_in_doubt: AtomicBool,
    /// Let go last.
    presence: Presence,
}

#[derive(Debug)]
struct Writer {
    connection: Connection,
    /// Whether the next commit is synced.
    syncs: Syncs,
    /// Whether something was changed that no synced commit followed.
    is_dirty: bool,
    bytes_since_checkpoint: u64,
}

/// SQLite's `synchronous`: whether a commit waits until the log is on the medium. What comes before it in the log is there then,
/// too, whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syncs {
    Normal,
    Full,
}

impl SqliteStorage {
    /// Opens a database; waits while another process has it for itself, up to a minute. One that cannot be written to can be
    /// read.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the file is absent and may not be created, or its folder is; [`ErrorKind::Invalid`] where
    /// something else is there; [`ErrorKind::Unsupported`] for a later format, or where SQLite's log cannot be; what SQLite
    /// raises.
    pub async fn open(path: &Path, context: &OpenContext) -> Result<Self> {
        let blocking = context.blocking();
        let (path, mode, shown) = (path.to_owned(), context.mode, shown(path));
        let place = blocking.run(Operation::Open, move || Place::find(&path, mode, &shown)).await?;
        let entrance = Arc::new(OPEN.enter(place.identity.to_owned()).await);
        for _ in 0..GATE_LOOKS {
            let (entrance, place) = (entrance.clone(), place.clone());
            let enter = move || {
                let mut is_at_the_gate = false;
                match entrance.open(|| Store::open(place, mode, &mut is_at_the_gate)) {
                    Err(_) if is_at_the_gate => Ok(None),
                    outcome => outcome.map(Some),
                }
            };
            if let Some(store) = blocking.run(Operation::Open, enter).await? {
                return Ok(Self { store: Arc::new(store), blocking });
            }
            context.env.sleep(GATE_PAUSE).await;
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

/// The path as errors show it.
fn shown(path: &Path) -> String {
    StorageUri::from_path(path).map_or_else(|_| "the database".to_owned(), |uri| uri.redacted())
}

fn at_the_gate(place: &Place) -> Error {
    Error::new(ErrorKind::Busy, Operation::Open, place.shown.as_str()).with_source("another process has it for itself")
}

impl Store {
    fn open(place: Place, mode: OpenMode, is_at_the_gate: &mut bool) -> Result<Self> {
        let (mut connection, access, found) = open(&place)?;
        if found == Content::Nothing && (mode == OpenMode::Existing || access != Access::Write) {
            return Err(match mode {
                OpenMode::Existing => Error::new(ErrorKind::NotFound, Operation::Open, place.shown.as_str())
                    .with_source("the file is empty"),
                OpenMode::CreateIfMissing => Error::new(ErrorKind::ReadOnly, Operation::Open, place.shown.as_str()),
            });
        }
        // Only now: beside what is not ours nothing is made.
        let presence = Presence::try_enter(&place.path)
            .map_err(|error| Error::from_io(Operation::Open, place.shown.as_str(), error))?;
        let Some(presence) = presence else {
            *is_at_the_gate = true;
            return Err(at_the_gate(&place));
        };
        if access == Access::Write {
            initialise(&mut connection, &place, found)?;
        }
        // What processes that died left in the log counts.
        let bytes_since_checkpoint = std::fs::metadata(beside(&place.path, "-wal")).map_or(0, |log| log.len());
        let writer = Writer { connection, syncs: Syncs::Full, is_dirty: false, bytes_since_checkpoint };
        Ok(Self {
            place,
            access,
            readers: Mutex::default(),
            writer: Mutex::new(writer),
            is_in_doubt: AtomicBool::new(false),
            presence,
        })
    }

    fn put(&self, operation: Operation, name: Name, bytes: &Bytes) -> Result<Put> {
        let syncs = if operation == Operation::PutDurable { Syncs::Full } else { Syncs::Normal };
        self.change(operation, name.to_hex(), syncs, |writer| {
            writer.bytes_since_checkpoint += bytes.len() as u64;
            put(&writer.connection, name, bytes)
        })
    }

    fn delete(&self, name: Name) -> Result<()> {
        self.change(Operation::Delete, name.to_hex(), Syncs::Normal, |writer| {
            writer.connection.prepare_cached(DELETE)?.execute([name.as_bytes().as_slice()]).map(drop)
        })
    }

    fn apply(&self, batch: &[Change]) -> Result<Vec<Put>> {
        self.change(Operation::Apply, "a batch", Syncs::Normal, |writer| {
            let transaction = writer.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut outcomes = Vec::new();
            for change in batch {
                match change {
                    Change::Put(name, bytes) => {
                        writer.bytes_since_checkpoint += bytes.len() as u64;
                        outcomes.push(put(&transaction, *name, bytes)?);
                    }
                    Change::Delete(name) => {
                        transaction.prepare_cached(DELETE)?.execute([name.as_bytes().as_slice()])?;
                    }
                }
            }
            transaction.commit()?;
            Ok(outcomes)
        })
    }

    fn sync(&self) -> Result<()> {
        if self.writer().is_dirty { self.barrier(Operation::Sync) } else { self.check_doubt(Operation::Sync) }
    }

    fn persist(&self, names: &[Name]) -> Result<()> {
        for name in names {
            let is_there = self.read(Operation::Persist, name.to_hex(), |transaction| number_of(transaction, *name))?;
            if is_there.is_none() {
                return Err(self.absent(Operation::Persist, *name));
            }
        }
        if names.is_empty() { Ok(()) } else { self.barrier(Operation::Persist) }
    }

    /// A commit that is synced, and with it all before it.
    fn barrier(&self, operation: Operation) -> Result<()> {
        self.change(operation, "the database", Syncs::Full, |writer| {
            writer.connection.prepare_cached("UPDATE barriers SET count = count + 1")?.execute([]).map(drop)
        })
    }

    /// Does one change, in one transaction, and then what is due.
    fn change<T>(
        &self,
        operation: Operation,
        context: impl Into<String>,
        syncs: Syncs,
        change: impl FnOnce(&mut Writer) -> rusqlite::Result<T>,
    ) -> Result<T> {
        if self.access != Access::Write {
            return Err(Error::new(ErrorKind::ReadOnly, operation, context));
        }
        let mut writer = self.writer();
        if self.place.is_gone() {
            return Err(gone(operation));
        }
        if syncs == Syncs::Full {
            self.check_doubt(operation)?;
        }
        writer.is_dirty = true;
        let outcome = writer.set(syncs).and_then(|()| change(&mut writer));
        if !writer.connection.is_autocommit() {
            // What fails at its end may leave its transaction open.
            let _ = writer.connection.execute_batch("ROLLBACK");
        }
        match outcome {
            Ok(answer) => {
                // Nothing may have changed, and nothing been synced then: only a barrier certainly does.
                writer.is_dirty &= !matches!(operation, Operation::Sync | Operation::Persist);
                if writer.bytes_since_checkpoint >= CHECKPOINT_BYTES {
                    writer.bytes_since_checkpoint = 0;
                    self.checkpoint(&writer.connection);
                }
                Ok(answer)
            }
            Err(error) => {
                let error = failed(operation, context, error);
                if leaves_doubt(&error) {
                    self.is_in_doubt.store(true, Ordering::SeqCst);
                }
                Err(error)
            }
        }
    }

    /// Writes the log into the database, as far as readers allow. What fails is told by the next barrier.
    fn checkpoint(&self, connection: &Connection) {
        let outcome = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = outcome
            && leaves_doubt(&failed(Operation::Sync, "the database", error))
        {
            self.is_in_doubt.store(true, Ordering::SeqCst);
        }
    }

    fn check_doubt(&self, operation: Operation) -> Result<()> {
        if self.is_in_doubt.load(Ordering::SeqCst) { Err(in_doubt(operation)) } else { Ok(()) }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let answer = self.read(Operation::Get, name.to_hex(), |transaction| {
            let Some(number) = number_of(transaction, name)? else { return Ok(None) };
            let blob = transaction.blob_open(MAIN_DB, "blobs", "content", number, true)?;
            // Before anything is made room for.
            let range = match check_range(name, range, blob.len() as u64, max_bytes) {
                Ok(range) => range,
                Err(error) => return Ok(Some(Err(error))),
            };
            // Within the blob, so within usize.
            let mut bytes = vec![0; (range.end - range.start) as usize];
            blob.read_at_exact(&mut bytes, range.start as usize)?;
            Ok(Some(Ok(Bytes::from(bytes))))
        })?;
        answer.unwrap_or_else(|| Err(self.absent(Operation::Get, name)))
    }

    fn size(&self, name: Name) -> Result<u64> {
        let bytes: Option<i64> = self.read(Operation::Size, name.to_hex(), |transaction| {
            let sql = "SELECT length(content) FROM blobs WHERE name = ?1";
            transaction.prepare_cached(sql)?.query_row([name.as_bytes().as_slice()], |row| row.get(0)).optional()
        })?;
        let Some(bytes) = bytes else { return Err(self.absent(Operation::Size, name)) };
        u64::try_from(bytes).map_err(|_| corrupt(Operation::Size, name.to_hex(), "its length is below zero"))
    }

    fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let Some((first, last)) = name_range(prefix, after) else { return Ok(Vec::new()) };
        let page: Vec<Name> = self.read(Operation::List, "the database", |transaction| {
            let sql = "SELECT name FROM blobs WHERE name BETWEEN ?1 AND ?2 ORDER BY name LIMIT ?3";
            let mut statement = transaction.prepare_cached(sql)?;
            let limits = params![first.as_bytes().as_slice(), last.as_bytes().as_slice(), PAGE_NAMES as i64];
            statement.query_map(limits, |row| row.get::<_, [u8; Name::BYTES]>(0).map(Name::new))?.collect()
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

    /// Reads in one transaction: what is found by its number is what had the name.
    fn read<T>(
        &self,
        operation: Operation,
        context: impl Into<String>,
        read: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = readers.pop();
        drop(readers);
        let connection = match kept {
            Some(connection) => connection,
            None => connect(&self.place, self.access).map_err(|error| self.reconnecting(operation, error))?,
        };
        let outcome = connection.unchecked_transaction().and_then(|transaction| read(&transaction));
        let outcome = outcome.map_err(|error| failed(operation, context, error));
        if let Access::Frozen(stamp) = self.access
            && Stamp::of(&self.place) != Some(stamp)
        {
            return Err(Error::new(ErrorKind::Other, operation, "the database")
                .with_source("it was opened where it cannot be written, and is written to: open it anew"));
        }
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_KEPT && connection.is_autocommit() {
            readers.push(connection);
        }
        outcome
    }

    /// An error of one more connection: what is not found there is no blob.
    fn reconnecting(&self, operation: Operation, error: Error) -> Error {
        if self.place.is_gone() {
            return gone(operation);
        }
        Error::new(error.kind(), operation, "the database").with_source(error)
    }
}

impl Writer {
    fn set(&mut self, syncs: Syncs) -> rusqlite::Result<()> {
        if self.syncs == syncs {
            return Ok(());
        }
        let sql = match syncs {
            Syncs::Normal => "PRAGMA synchronous = NORMAL",
            Syncs::Full => "PRAGMA synchronous = FULL",
        };
        self.connection.execute_batch(sql)?;
        self.syncs = syncs;
        Ok(())
    }

    /// Shortens a file of which much is free.
    fn give_back(&self) -> rusqlite::Result<()> {
        let pages = |pragma| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0));
        let free = pages("freelist_count")?;
        if free > pages("page_count")? / 4 {
            let sql = format!("PRAGMA incremental_vacuum({})", free.min(GIVEN_BACK_PAGES_MAX));
            let mut statement = self.connection.prepare(&sql)?;
            let mut steps = statement.query([])?;
            // Each gives back a page.
            while steps.next()?.is_some() {}
        }
        Ok(())
    }
}

impl Drop for Store {
    /// The last connection of all writes the log into the database, and removes it.
    fn drop(&mut self) {
        if self.access == Access::Write && !self.place.is_gone() {
            let writer = self.writer();
            // What is not given back is there for the next blobs.
            let _ = writer.give_back();
        }
    }
}

fn put(connection: &Connection, name: Name, bytes: &Bytes) -> rusqlite::Result<Put> {
    let changed = connection.prepare_cached(PUT)?.execute(params![name.as_bytes().as_slice(), bytes.as_ref()])?;
    Ok(if changed == 0 { Put::Exists } else { Put::Created })
}

fn number_of(transaction: &Transaction<'_>, name: Name) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT number FROM blobs WHERE name = ?1";
    transaction.prepare_cached(sql)?.query_row([name.as_bytes().as_slice()], |row| row.get(0)).optional()
}

/// No other handle is there, in this process or another.
struct Alone {
    store: Arc<StoreHandle<Store>>,
    _here: OnlyHandle,
}

impl ExclusiveGuard for Alone {}

impl Drop for Alone {
    fn drop(&mut self) {
        self.store.presence.no_longer_alone();
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
            let alone = store.presence.try_alone();
            match alone.map_err(|error| Error::from_io(Operation::TryExclusive, "the locks", error))? {
                true => Ok(Some(Box::new(Alone { store, _here: here }) as Box<dyn ExclusiveGuard>)),
                false => Ok(None),
            }
        };
        self.blocking.run(Operation::TryExclusive, try_alone).await
    }
}
