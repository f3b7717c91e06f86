//! The handle: what the clauses ask for, as statements.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, MAIN_DB, OptionalExtension as _, Transaction, TransactionBehavior, params};
use strongroom_core::storage::bounds::{check_range, name_range};
use strongroom_core::storage::{
    BatchSupport, BlockingStorage, BlockingStore, Capabilities, Change, Durability, Entrance, Error, ListOrder, Name,
    OpenContext, OpenStores, Operation, Put, RangeReads, Reach, Result, StorageUri, StoreHandle, Torn,
};

use crate::database::{Identity, Place};
use crate::error::{corrupt, gone};
use crate::store::{Size, Store, Syncs, at_the_gate};

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

const PUT: &str = "INSERT INTO blobs (name, content) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const DELETE: &str = "DELETE FROM blobs WHERE name = ?1";

/// How often opening looks whether a process that has the database for itself has left, and how long it waits in between: for a minute.
const GATE_LOOKS: u32 = 12_000;
const GATE_PAUSE: Duration = Duration::from_millis(5);

/// The databases that this process has open: a barrier is the process's, and what failed for one handle is lost for all.
static OPEN: OpenStores<Identity, Store> = OpenStores::new();

/// A handle on a database. To open it, another process that has it for itself is waited for, up to a minute. One that cannot be
/// written to can be read.
///
/// `open` fails with [`ErrorKind`](strongroom_core::storage::ErrorKind)`::NotFound` where the file is absent and may not be
/// created, or its folder is; `Invalid` where something else is there, the file has several names or too long a path, a log is
/// left of one that is elsewhere, or what is called like its journal is none; `Unsupported` for a later format, or where SQLite's
/// log cannot be, as on a network file system; and what SQLite raises.
pub type SqliteStorage = BlockingStorage<Store>;

/// The file that a path leads to now, and where its store is.
async fn find(path: &Path, context: &OpenContext) -> Result<(Place, Arc<Entrance<Store>>)> {
    let (path, mode, shown) = (path.to_owned(), context.mode, StorageUri::show_path("sqlite", path, "the database"));
    let place = context.blocking().run(Operation::Open, move || Place::find(&path, mode, &shown)).await?;
    let entrance = OPEN.enter(place.identity.to_owned()).await;
    Ok((place, Arc::new(entrance)))
}

impl Store {
    fn put_as(&self, operation: Operation, name: Name, bytes: &Bytes) -> Result<Put> {
        let syncs = if operation == Operation::PutDurable { Syncs::Full } else { Syncs::Normal };
        let size = Size::of([bytes]);
        self.change(operation, name.to_hex(), syncs, size, |writer| put(&writer.connection, name, bytes))
    }
}

#[async_trait]
impl BlockingStore for Store {
    const CAPABILITIES: Capabilities = CAPABILITIES;

    async fn open(path: &Path, context: &OpenContext) -> Result<StoreHandle<Self>> {
        let blocking = context.blocking();
        let (mut place, mut entrance) = find(path, context).await?;
        for _ in 0..GATE_LOOKS {
            let (at, entrance_at, mode) = (place.clone(), entrance.clone(), context.mode);
            let enter = move || {
                let mut is_at_the_gate = false;
                match entrance_at.open(|| Self::new(at.clone(), mode, &mut is_at_the_gate)) {
                    Err(_) if is_at_the_gate => Ok(None),
                    // What its name leads to now is another file, or none.
                    Err(_) if at.is_gone() => Ok(None),
                    outcome => outcome.map(Some),
                }
            };
            if let Some(store) = blocking.run(Operation::Open, enter).await? {
                return Ok(store);
            }
            context.env.sleep(GATE_PAUSE).await;
            let at = place.clone();
            if blocking.run(Operation::Open, move || Ok(at.is_gone())).await? {
                (place, entrance) = find(path, context).await?;
            }
        }
        Err(at_the_gate(&place))
    }

    fn put(&self, name: Name, bytes: &Bytes) -> Result<Put> {
        self.put_as(Operation::Put, name, bytes)
    }

    fn put_durable(&self, name: Name, bytes: &Bytes) -> Result<Put> {
        self.put_as(Operation::PutDurable, name, bytes)
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

    fn delete(&self, name: Name) -> Result<()> {
        self.change(Operation::Delete, name.to_hex(), Syncs::Normal, Size::default(), |writer| {
            writer.has_deleted = true;
            delete(&writer.connection, name)
        })
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

    fn apply(&self, batch: &[Change]) -> Result<Vec<Put>> {
        let size = Size::of(batch.iter().filter_map(|change| match change {
            Change::Put(_, bytes) => Some(bytes),
            Change::Delete(_) => None,
        }));
        self.change(Operation::Apply, "a batch", Syncs::Normal, size, |writer| {
            let transaction = writer.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut outcomes = Vec::new();
            for change in batch {
                match change {
                    Change::Put(name, bytes) => outcomes.push(put(&transaction, *name, bytes)?),
                    Change::Delete(name) => {
                        writer.has_deleted = true;
                        delete(&transaction, *name)?;
                    }
                }
            }
            transaction.commit()?;
            Ok(outcomes)
        })
    }

    fn sync(&self) -> Result<()> {
        if self.writer().is_dirty {
            return self.barrier(Operation::Sync);
        }
        self.check_doubt(Operation::Sync)?;
        self.check_log(Operation::Sync)
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

    fn try_keep_others_out(&self) -> Result<bool> {
        self.presence.try_alone().map_err(|error| Error::from_io(Operation::TryExclusive, "the locks", error))
    }

    fn let_others_in(&self) {
        self.presence.no_longer_alone();
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

fn delete(connection: &Connection, name: Name) -> rusqlite::Result<()> {
    connection.prepare_cached(DELETE)?.execute([name.as_bytes().as_slice()]).map(drop)
}
