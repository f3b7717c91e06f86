//! The handle: what the clauses ask for, as transactions.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable as _, Table, WriteTransaction};
use strongroom_core::storage::bounds::{check_range, name_range, not_found};
use strongroom_core::storage::{
    BatchSupport, BlockingStorage, BlockingStore, Capabilities, Change, Durability, Error, ErrorKind, ListOrder, Name,
    OpenContext, OpenMode, OpenStores, Operation, Put, RangeReads, Reach, Result, StorageUri, StoreHandle, Torn,
};

use crate::database::{Base, Identity, NAMES, PIECE_KEY_BYTES, PIECES, Place, open};
use crate::error::{corrupt, failed, gone, guarded, still_full};

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

/// How often opening looks whether another process has left: for a second, which a short command takes to end.
const BUSY_LOOKS: u32 = 200;

/// The databases that this process has open, which redb lets it open once.
static OPEN: OpenStores<Identity, Store> = OpenStores::new();

type Rows<T> = std::result::Result<T, redb::Error>;

/// A handle on a database, which all handles of a process share. To open it, another process that has it open is waited for, a
/// second. One that cannot be written to can be read.
///
/// `open` fails with [`ErrorKind::NotFound`] where the file is absent and may not be created, or its folder is;
/// [`ErrorKind::Invalid`] where something else is there; [`ErrorKind::Unsupported`] for a later format; [`ErrorKind::Busy`]
/// where another process has it open; and what redb raises.
pub type RedbStorage = BlockingStorage<Store>;

/// An open database.
pub struct Store {
    place: Place,
    base: Base,
    unsynced: Mutex<Unsynced>,
    /// Whether the disk was full when a call failed last: redb takes no more calls then, and does not say why.
    was_full: AtomicBool,
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
    fn new(place: Place, mode: OpenMode) -> Result<Self> {
        let base = open(&place, mode)?;
        Ok(Self { place, base, unsynced: Mutex::default(), was_full: AtomicBool::default() })
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
            transact().map_err(|error| self.failed(operation, context, error))
        })?;
        // Whatever failed before, it goes on.
        self.was_full.store(false, Ordering::SeqCst);
        // A synced commit makes all before it durable, too.
        *unsynced = match syncs {
            true => Unsynced { had_barrier: true, ..Unsynced::default() },
            false => Unsynced { is_dirty: true, bytes: unsynced.bytes + bytes, ..*unsynced },
        };
        Ok(answer)
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
            begun.and_then(|transaction| read(&transaction)).map_err(|error| self.failed(operation, context, error))
        })
    }

    fn failed(&self, operation: Operation, context: &str, error: redb::Error) -> Error {
        if matches!(error, redb::Error::PreviousIo) && self.was_full.load(Ordering::SeqCst) {
            return still_full(operation, context);
        }
        let is_of_file = matches!(error, redb::Error::Io(_));
        let error = failed(operation, context, error);
        if is_of_file {
            self.was_full.store(error.kind() == ErrorKind::Full, Ordering::SeqCst);
        }
        error
    }

    fn bytes_of(&self, operation: Operation, name: Name) -> Result<u64> {
        let length = self.read(operation, &name.to_hex(), |transaction| {
            Ok(transaction.open_table(NAMES)?.get(name.as_bytes())?.map(|length| length.value()))
        })?;
        length.map(u64::from).ok_or_else(|| self.absent(operation, name))
    }

    /// What there is to say of a name without a row.
    fn absent(&self, operation: Operation, name: Name) -> Error {
        if self.place.is_gone() { gone(operation) } else { not_found(operation, name) }
    }

    fn put_as(&self, operation: Operation, name: Name, bytes: &Bytes) -> Result<Put> {
        self.change(operation, &name.to_hex(), bytes.len(), |tables| tables.put(name, bytes))
    }
}

#[async_trait]
impl BlockingStore for Store {
    const CAPABILITIES: Capabilities = CAPABILITIES;
    const BUSY_LOOKS: u32 = BUSY_LOOKS;

    async fn open(path: &Path, context: &OpenContext) -> Result<StoreHandle<Self>> {
        let (blocking, mode) = (context.blocking(), context.mode);
        let (path, shown) = (path.to_owned(), StorageUri::show_path("redb", path, "the database"));
        let tag = context.env.random().map(u64::from_le_bytes);
        let tag = tag.map_err(|error| Error::new(ErrorKind::Other, Operation::Open, &*shown).with_source(error))?;
        let place = blocking.run(Operation::Open, move || Place::find(&path, mode, &shown, tag)).await?;
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

    fn size(&self, name: Name) -> Result<u64> {
        self.bytes_of(Operation::Size, name)
    }

    fn delete(&self, name: Name) -> Result<()> {
        self.change(Operation::Delete, &name.to_hex(), 0, |tables| tables.delete(name))
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
            self.bytes_of(Operation::Persist, *name)?;
        }
        // Since the first barrier nobody else can have put them.
        let is_due = {
            let unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
            unsynced.is_dirty || !unsynced.had_barrier
        };
        if is_due && !names.is_empty() { self.barrier(Operation::Persist) } else { Ok(()) }
    }

    /// Other processes are kept out by redb's lock as long as this one has the database open for writing; beside one that only
    /// reads there may be other readers.
    fn try_keep_others_out(&self) -> Result<bool> {
        Ok(!matches!(self.base, Base::Read(_)))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_the_failure_that_was_the_last_is_given_for_the_reason_why_no_more_calls_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::find(&folder.path().join("blobs"), OpenMode::CreateIfMissing, "blobs", 1).unwrap();
        let store = Store::new(place, OpenMode::CreateIfMissing).unwrap();
        let fails = |error| store.failed(Operation::Put, "a blob", error).kind();
        let io = |kind: io::ErrorKind| redb::Error::Io(kind.into());
        assert_eq!(fails(io(io::ErrorKind::StorageFull)), ErrorKind::Full);
        assert_eq!([fails(redb::Error::PreviousIo), fails(redb::Error::PreviousIo)], [ErrorKind::Full; 2]);
        // It had not given up.
        store.put(Name::new([1; 16]), &Bytes::from_static(b"one")).unwrap();
        assert_eq!(fails(redb::Error::PreviousIo), ErrorKind::Other);
        assert_eq!(fails(io(io::ErrorKind::StorageFull)), ErrorKind::Full);
        assert_eq!(fails(io(io::ErrorKind::ConnectionReset)), ErrorKind::Unavailable);
        assert_eq!(fails(redb::Error::PreviousIo), ErrorKind::Other);
    }
}
