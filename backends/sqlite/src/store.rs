//! An open database: what the clauses ask for, as statements.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, slice};

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, MAIN_DB, OptionalExtension as _, Transaction, TransactionBehavior, params};
use strongroom_core::storage::bounds::{check_range, name_range, not_found};
use strongroom_core::storage::{Change, Error, ErrorKind, Name, OpenMode, Operation, Put, Result};

use crate::database::{
    Access, BUSY_WAIT, Content, PAGE_BYTES, Place, Stamp, connect, initialise, limit_cache, look, open, other_journal,
};
use crate::error::{
    corrupt, failed, gone, in_doubt, is_put_off, is_refused_write, leaves_doubt, log_lost, no_room, unseen,
};
use crate::header::has_journal;
use crate::lock::{Gate, Presence};
use crate::log::Log;
use crate::room::{self, Need};

/// So many names come with one page of a listing.
const PAGE_NAMES: usize = 4096;

/// So many connections for reading are kept; as many as are needed are opened.
const READERS_KEPT: usize = 8;

/// After so many pages more the log is written into the database, so that it does not grow without end: 8 MiB.
const CHECKPOINT_PAGES: u64 = 512;

/// Where so many pages are in the log, because somebody was always reading, what is due waits for them: 64 MiB.
const LOG_PAGES_MAX: u64 = 8 * CHECKPOINT_PAGES;

/// The space of so many pages is given back at once at most, where they are more than a quarter of the file: when the log is
/// written into the database, and when the last handle is closed, which may be in a thread that must not wait for long.
const GIVEN_BACK_PAGES_MAX: u64 = 1024;

/// How long it is waited between two attempts at a checkpoint while another process makes one.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(5);

/// How long closing waits for other processes, at each attempt; and how many it makes, where they leave something in the log.
const CLOSING_WAIT: Duration = Duration::from_millis(20);
const CLOSING_LOOKS: u32 = 5;

const PUT: &str = "INSERT INTO blobs (name, content) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const DELETE: &str = "DELETE FROM blobs WHERE name = ?1";
const BARRIER: &str = "UPDATE barriers SET count = count + 1";

#[derive(Debug)]
pub(crate) struct Store {
    place: Place,
    access: Access,
    /// Where this process writes.
    log: Option<Log>,
    readers: Mutex<Vec<Connection>>,
    writer: Mutex<Writer>,
    /// A barrier or a checkpoint failed ([`leaves_doubt`]), or the log was lost: then nothing is written any more.
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
    /// Whether the log may hold what a process failed to sync that is dead now: the operating system may take that for written,
    /// so that to sync it again proves nothing. Then the first barrier writes it into the database, which is synced.
    inherits_log: bool,
    /// In the log as of the last commit here, from its beginning on.
    log_pages: Arc<AtomicU64>,
    /// Of these, so many were there when the log was last written into the database.
    checkpointed_pages: u64,
    has_deleted: bool,
    /// How long others are waited for.
    patience: Duration,
}

/// SQLite's `synchronous`: whether a commit waits until the log is on the medium. What comes before it in the log is there then,
/// too, whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syncs {
    Normal,
    Full,
}

/// How hard a checkpoint tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checkpoint {
    /// As far as others allow.
    Passive,
    /// Waits for those who write or read an earlier state.
    Full,
    /// The same, and cuts the log to nothing.
    Truncate,
}

/// What a change is going to put.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    blobs: u64,
    bytes: u64,
}

pub(crate) fn at_the_gate(place: &Place) -> Error {
    Error::new(ErrorKind::Busy, Operation::Open, place.shown.as_str()).with_source("another process has it for itself")
}

impl Store {
    /// Opens a database that this process does not have open; without waiting for who has it for itself.
    pub(crate) fn open(place: Place, mode: OpenMode, is_at_the_gate: &mut bool) -> Result<Self> {
        let refused = |error: io::Error| Error::from_io(Operation::Open, place.shown.as_str(), error);
        let mut at_the_gate = || {
            *is_at_the_gate = true;
            at_the_gate(&place)
        };
        // Its name may lead to another file by now, which this process may have open.
        let check_place = || if place.is_gone() { Err(gone(Operation::Open)) } else { Ok(()) };
        check_place()?;
        let (connection, access) = open(&place)?;
        check_place()?;
        // Before the files of the locks are made beside it.
        refuse_nothing(std::fs::metadata(&place.path).map_err(refused)?.len() == 0, &place, mode, access)?;
        let gate = Gate::try_pass(&place.path, access).map_err(refused)?.ok_or_else(&mut at_the_gate)?;
        let (mut connection, access, mut found) = look(&place, connection, access)?;
        refuse_nothing(found == Content::Nothing, &place, mode, access)?;
        if found == Content::Nothing {
            if !gate.try_close().map_err(refused)? {
                return Err(at_the_gate());
            }
            (connection, _, found) = look(&place, connection, access)?;
        }
        let (mut inherits_log, mut log) = (false, None);
        if access == Access::Write {
            inherits_log = Log::of(&place).is_some_and(|log| log.bytes() > 0);
            initialise(&mut connection, &place, found)?;
            log = Some(Log::of(&place).ok_or_else(|| log_lost(Operation::Open))?);
        }
        let presence = gate.try_enter().map_err(refused)?.ok_or_else(&mut at_the_gate)?;
        let writer = Writer::new(connection, inherits_log)
            .map_err(|error| failed(Operation::Open, place.shown.as_str(), error))?;
        Ok(Self {
            place,
            access,
            log,
            readers: Mutex::default(),
            writer: Mutex::new(writer),
            is_in_doubt: AtomicBool::new(false),
            presence,
        })
    }

    /// Keeps other processes out, without waiting; false where one is there.
    pub(crate) fn try_keep_others_out(&self) -> io::Result<bool> {
        self.presence.try_alone()
    }

    pub(crate) fn let_others_in(&self) {
        self.presence.no_longer_alone();
    }

    pub(crate) fn put(&self, operation: Operation, name: Name, bytes: &Bytes) -> Result<Put> {
        let syncs = if operation == Operation::PutDurable { Syncs::Full } else { Syncs::Normal };
        let size = Size::of([bytes]);
        self.change(operation, name.to_hex(), syncs, size, |writer| put(&writer.connection, name, bytes))
    }

    pub(crate) fn delete(&self, name: Name) -> Result<()> {
        self.change(Operation::Delete, name.to_hex(), Syncs::Normal, Size::default(), |writer| {
            writer.has_deleted = true;
            delete(&writer.connection, name)
        })
    }

    pub(crate) fn apply(&self, batch: &[Change]) -> Result<Vec<Put>> {
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

    pub(crate) fn sync(&self) -> Result<()> {
        if self.writer().is_dirty {
            return self.barrier(Operation::Sync);
        }
        self.check_doubt(Operation::Sync)?;
        self.check_log(Operation::Sync)
    }

    pub(crate) fn persist(&self, names: &[Name]) -> Result<()> {
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
        self.change(operation, "the database", Syncs::Full, Size::default(), |writer| {
            // Without a row nothing is committed, so nothing synced.
            match writer.connection.prepare_cached(BARRIER)?.execute([])? {
                1 => Ok(()),
                rows => Err(rusqlite::Error::StatementChangedRows(rows)),
            }
        })
    }

    /// Does one change, in one transaction, and then what is due.
    fn change<T>(
        &self,
        operation: Operation,
        context: impl Into<String>,
        syncs: Syncs,
        size: Size,
        change: impl Fn(&mut Writer) -> rusqlite::Result<T>,
    ) -> Result<T> {
        if self.access != Access::Write {
            return Err(Error::new(ErrorKind::ReadOnly, operation, context));
        }
        self.check_presence(operation)?;
        let mut writer = self.writer();
        if self.place.is_gone() {
            return Err(gone(operation));
        }
        self.check_log(operation)?;
        self.check_doubt(operation)?;
        if syncs == Syncs::Full {
            self.settle(operation, &mut writer)?;
        }
        let context = context.into();
        if size.blobs > 0 && !self.has_room(operation, &mut writer, size)? {
            return Err(no_room(operation, context));
        }
        writer.is_dirty = true;
        let mut outcome = writer.attempt(syncs, &change);
        let lacks_room = |error: &rusqlite::Error| {
            error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) || is_refused_write(error)
        };
        if outcome.as_ref().is_err_and(lacks_room) && self.checkpoint(&mut writer, Checkpoint::Truncate) {
            outcome = writer.attempt(syncs, &change);
        }
        let answer = outcome.map_err(|error| self.noted(failed(operation, context, error)))?;
        if syncs == Syncs::Full {
            self.check_log(operation)?;
        }
        // Nothing may have changed, and nothing been synced then: only a barrier certainly does.
        writer.is_dirty &= !matches!(operation, Operation::Sync | Operation::Persist);
        self.checkpoint_if_due(&mut writer);
        Ok(answer)
    }

    /// Remembers what an error means for later barriers.
    fn noted(&self, error: Error) -> Error {
        if leaves_doubt(&error) {
            self.is_in_doubt.store(true, Ordering::SeqCst);
        }
        error
    }

    /// Remembers what an error means of which nobody hears: of a checkpoint, or where space is given back.
    fn note(&self, error: &rusqlite::Error) {
        if !is_put_off(error) {
            self.is_in_doubt.store(true, Ordering::SeqCst);
        }
    }

    /// Before the first barrier, what others left in the log is made durable in another way than theirs.
    fn settle(&self, operation: Operation, writer: &mut Writer) -> Result<()> {
        if writer.inherits_log {
            let is_whole = writer.checkpoint(Checkpoint::Full).map_err(|error| {
                self.note(&error);
                failed(operation, "the database", error)
            })?;
            if !is_whole {
                return Err(Error::new(ErrorKind::Busy, operation, "the database")
                    .with_source("another process reads or writes it all the time"));
            }
            writer.inherits_log = false;
        }
        Ok(())
    }

    fn checkpoint_if_due(&self, writer: &mut Writer) {
        let pages = writer.log_pages.load(Ordering::Relaxed);
        if pages < writer.checkpointed_pages {
            // It was begun anew.
            writer.checkpointed_pages = 0;
        }
        if pages - writer.checkpointed_pages >= CHECKPOINT_PAGES {
            writer.checkpointed_pages = pages;
            let is_long = pages >= LOG_PAGES_MAX;
            self.checkpoint(writer, if is_long { Checkpoint::Truncate } else { Checkpoint::Passive });
            if self.is_in_doubt() {
                return;
            }
            if let Err(error) = writer.give_back() {
                self.note(&error);
            }
        }
    }

    /// Writes the log into the database; answers whether all of it is there now. What leaves doubt is told by the next change.
    fn checkpoint(&self, writer: &mut Writer, how: Checkpoint) -> bool {
        if self.check_log(Operation::Sync).is_err() || self.is_in_doubt() {
            // It would put what is old over what is newer; or let the log be begun anew, which may be all that is left of what
            // an earlier one wrote into the database and failed to sync.
            return false;
        }
        match writer.checkpoint(how) {
            Ok(is_whole) => is_whole,
            Err(error) => {
                self.note(&error);
                false
            }
        }
    }

    /// Whether the disk takes so much, and deletions after it.
    fn has_room(&self, operation: Operation, writer: &mut Writer, size: Size) -> Result<bool> {
        let left = || room::left(&self.place.path).unwrap_or(u64::MAX);
        if left() > room::AMPLE_BYTES.saturating_add(size.bytes) {
            return Ok(true);
        }
        let refused = |error| failed(operation, "the database", error);
        if self.need(writer, size).map_err(refused)?.bytes() <= left() {
            return Ok(true);
        }
        self.checkpoint(writer, Checkpoint::Truncate);
        Ok(self.need(writer, size).map_err(refused)?.bytes() <= left())
    }

    fn need(&self, writer: &Writer, size: Size) -> rusqlite::Result<Need> {
        let page_bytes = u64::from(PAGE_BYTES);
        let pages = size.bytes / page_bytes + size.blobs * room::PAGES_BESIDE;
        let log_file = self.log.as_ref().map_or(0, Log::bytes);
        // Before the first commit here, or where another process wrote since, it is not known how much of the file is in use.
        let log_pages = writer.log_pages.load(Ordering::Relaxed).max(log_file / page_bytes);
        let new_pages = pages.saturating_sub(writer.pages("freelist_count")?);
        Ok(Need {
            database: writer.pages("page_count")?.saturating_add(new_pages).saturating_mul(page_bytes),
            database_file: std::fs::metadata(&self.place.path).map_or(0, |metadata| metadata.len()),
            log: log_pages.saturating_add(pages).saturating_mul(page_bytes),
            log_file,
        })
    }

    fn is_in_doubt(&self) -> bool {
        self.is_in_doubt.load(Ordering::SeqCst)
    }

    fn check_doubt(&self, operation: Operation) -> Result<()> {
        if self.is_in_doubt() { Err(in_doubt(operation)) } else { Ok(()) }
    }

    /// Nothing is read or changed where others take themselves for alone.
    fn check_presence(&self, operation: Operation) -> Result<()> {
        match self.presence.try_be_here() {
            Ok(true) => Ok(()),
            Ok(false) => Err(unseen(operation)),
            Err(error) => Err(Error::from_io(operation, "the locks", error)),
        }
    }

    fn check_log(&self, operation: Operation) -> Result<()> {
        match &self.log {
            Some(log) if !log.is_in_place() => Err(self.noted(log_lost(operation))),
            _ => Ok(()),
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
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

    pub(crate) fn size(&self, name: Name) -> Result<u64> {
        let bytes: Option<i64> = self.read(Operation::Size, name.to_hex(), |transaction| {
            let sql = "SELECT length(content) FROM blobs WHERE name = ?1";
            transaction.prepare_cached(sql)?.query_row([name.as_bytes().as_slice()], |row| row.get(0)).optional()
        })?;
        let Some(bytes) = bytes else { return Err(self.absent(Operation::Size, name)) };
        u64::try_from(bytes).map_err(|_| corrupt(Operation::Size, name.to_hex(), "its length is below zero"))
    }

    pub(crate) fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
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
        self.check_presence(operation)?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = readers.pop();
        drop(readers);
        let connection = match kept {
            Some(connection) => connection,
            None => self.connect_reader(operation)?,
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

    /// One more connection, to the file that is open and to no other that has its name now: SQLite would take the log of the one
    /// for that of the other.
    fn connect_reader(&self, operation: Operation) -> Result<Connection> {
        if self.place.is_gone() {
            return Err(gone(operation));
        }
        if has_journal(&self.place.path) {
            return Err(self.reconnecting(operation, other_journal(&self.place.shown)));
        }
        let connection = connect(&self.place, self.access).map_err(|error| self.reconnecting(operation, error))?;
        if self.place.is_gone() {
            return Err(gone(operation));
        }
        limit_cache(&connection).map_err(|error| failed(operation, "the database", error))?;
        Ok(connection)
    }

    /// An error of one more connection: what is not found there is no blob.
    fn reconnecting(&self, operation: Operation, error: Error) -> Error {
        if self.place.is_gone() {
            return gone(operation);
        }
        Error::new(error.kind(), operation, "the database").with_source(error)
    }
}

impl Size {
    fn of<'a>(blobs: impl IntoIterator<Item = &'a Bytes>) -> Self {
        let add = |sum: Self, bytes: &Bytes| Self { blobs: sum.blobs + 1, bytes: sum.bytes + bytes.len() as u64 };
        blobs.into_iter().fold(Self::default(), add)
    }
}

impl Writer {
    fn new(mut connection: Connection, inherits_log: bool) -> rusqlite::Result<Self> {
        let log_pages = Arc::new(AtomicU64::new(0));
        let counted = log_pages.clone();
        connection.wal_hook(Some(move |_: &mut Wal, pages: std::ffi::c_int| {
            counted.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            connection,
            syncs: Syncs::Full,
            is_dirty: false,
            inherits_log,
            log_pages,
            checkpointed_pages: 0,
            has_deleted: false,
            patience: BUSY_WAIT,
        })
    }

    /// Does a change, all or nothing.
    fn attempt<T>(&mut self, syncs: Syncs, change: impl Fn(&mut Self) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let outcome = self.set(syncs).and_then(|()| change(self));
        if !self.connection.is_autocommit() {
            // What fails at its end may leave its transaction open.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        outcome
    }

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

    /// Syncs the log, writes it into the database, and syncs that; false where others did not allow all of it.
    fn checkpoint(&mut self, how: Checkpoint) -> rusqlite::Result<bool> {
        let sql = match how {
            Checkpoint::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            Checkpoint::Full => "PRAGMA wal_checkpoint(FULL)",
            Checkpoint::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
        };
        let numbers =
            |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (mut busy, mut in_log, mut done) = self.connection.query_row(sql, [], numbers)?;
        if how != Checkpoint::Passive {
            // For whoever makes a checkpoint at this moment SQLite does not wait, as it does for all others.
            for _ in 0..self.patience.as_millis() / CHECKPOINT_PAUSE.as_millis() {
                if busy == 0 || in_log >= 0 {
                    break;
                }
                std::thread::sleep(CHECKPOINT_PAUSE);
                (busy, in_log, done) = self.connection.query_row(sql, [], numbers)?;
            }
        }
        let is_whole = busy == 0 && in_log == done;
        if is_whole && how == Checkpoint::Truncate {
            self.log_pages.store(0, Ordering::Relaxed);
        }
        Ok(is_whole)
    }

    fn pages(&self, pragma: &str) -> rusqlite::Result<u64> {
        let pages = self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))?;
        Ok(u64::try_from(pages).unwrap_or(0))
    }

    /// Shortens a file of which much is free, where that came of deletions here. What is not given back is there for the next blobs.
    fn give_back(&self) -> rusqlite::Result<()> {
        let free = if self.has_deleted { self.pages("freelist_count")? } else { 0 };
        if free > self.pages("page_count")? / 4 {
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
    /// Writes the log into the database, whoever else is there, so that nothing stays in the log alone; who is the last gives space
    /// back, and SQLite removes the log. That is 8 MiB and what is given back here, and no process is waited for for long. It is
    /// dropped in the thread of the last handle: on a worker, it would go on when the caller takes the database for closed, and
    /// moves it.
    fn drop(&mut self) {
        if self.access != Access::Write {
            return;
        }
        if self.empty_log_and_be_alone() {
            if let Err(error) = self.writer().give_back() {
                self.note(&error);
            }
            if self.is_whole() {
                return;
            }
        }
        // What is in doubt, whoever opens it next takes from the log by its checksums. SQLite takes itself for the last one, too, where
        // the locks of another process are lost, and would take away the log that it writes to. Ours are not lost so. While alone,
        // nobody comes in before all is closed.
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = self.writer();
        for connection in readers.iter().chain(slice::from_ref(&writer.connection)) {
            let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

impl Store {
    /// Where the file is gone, what is called like its log may be another's.
    fn is_whole(&self) -> bool {
        !self.place.is_gone() && self.check_log(Operation::Sync).is_ok() && !self.is_in_doubt()
    }

    /// Writes the log into the database and cuts it to nothing, as far as others allow; answers whether this process is alone then,
    /// and nothing is in doubt. Of two that close at once each may find the other still there, and neither be alone: so each has
    /// written what there is before it goes.
    fn empty_log_and_be_alone(&self) -> bool {
        let mut writer = self.writer();
        writer.patience = CLOSING_WAIT;
        // Of readers none is at work: whoever reads has a handle.
        if writer.connection.busy_timeout(CLOSING_WAIT).is_err() {
            return false;
        }
        for _ in 0..CLOSING_LOOKS {
            if !self.is_whole() {
                return false;
            }
            let is_empty = self.checkpoint(&mut writer, Checkpoint::Truncate);
            if !self.is_whole() {
                return false;
            }
            if matches!(self.presence.try_alone(), Ok(true)) {
                return true;
            }
            if is_empty {
                return false;
            }
            std::thread::sleep(CHECKPOINT_PAUSE);
        }
        false
    }
}

/// Where nothing is there yet, and nothing may be made.
fn refuse_nothing(is_nothing: bool, place: &Place, mode: OpenMode, access: Access) -> Result<()> {
    match mode {
        OpenMode::Existing if is_nothing => {
            Err(Error::new(ErrorKind::NotFound, Operation::Open, place.shown.as_str()).with_source("the file is empty"))
        }
        OpenMode::CreateIfMissing if is_nothing && access != Access::Write => {
            Err(Error::new(ErrorKind::ReadOnly, Operation::Open, place.shown.as_str()))
        }
        _ => Ok(()),
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn while_others_cannot_see_this_process_nothing_is_read_or_changed() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::find(&folder.path().join("database"), OpenMode::CreateIfMissing, "the database").unwrap();
        let store = Store::open(place, OpenMode::CreateIfMissing, &mut false).unwrap();
        let (name, bytes) = (Name::new([7; Name::BYTES]), Bytes::from_static(b"content"));
        store.put(Operation::Put, name, &bytes).unwrap();
        let foreign = store.presence.lose();
        for outcome in [
            store.size(name).map(drop),
            store.put(Operation::Put, name, &bytes).map(drop),
            store.delete(name),
            store.persist(&[name]),
        ] {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        }
        drop(foreign);
        assert_eq!(store.size(name).unwrap(), 7);
        store.delete(name).unwrap();
        // Seen again.
        assert!(store.try_keep_others_out().unwrap());
    }

    #[test]
    fn a_file_that_was_replaced_since_it_was_found_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["database", "other"].map(|name| folder.path().join(name));
        let place = Place::find(&path, OpenMode::CreateIfMissing, "the database").unwrap();
        std::fs::write(&other, "").unwrap();
        // Both at once for a moment, so that they are two files.
        std::fs::rename(&other, &path).unwrap();
        let mut is_at_the_gate = false;
        let error = Store::open(place, OpenMode::CreateIfMissing, &mut is_at_the_gate).unwrap_err();
        assert!(error.to_string().contains("replaced"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was made beside it");
    }
}
