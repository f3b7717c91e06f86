//! An open database: its changes and reads, each in one transaction, and the connections for them.

mod checkpoints;
mod closing;
mod writer;

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, Transaction};
use strongroom_core::storage::bounds::not_found;
use strongroom_core::storage::{Error, ErrorKind, Name, OpenMode, Operation, Result};

pub(crate) use self::writer::Syncs;
use self::writer::{Checkpoint, Writer};
use crate::database::{Access, Content, Place, Stamp, connect, initialise, limit_cache, look, open, other_journal};
use crate::error::{failed, gone, is_refused_write, log_lost, no_room, unseen};
use crate::header::has_journal;
use crate::lock::{Gate, Presence};
use crate::log::Log;

/// So many connections for reading are kept; as many as are needed are opened.
const READERS_KEPT: usize = 8;

const BARRIER: &str = "UPDATE barriers SET count = count + 1";

/// An open database.
#[derive(Debug)]
pub struct Store {
    pub(crate) place: Place,
    access: Access,
    /// Where this process writes.
    log: Option<Log>,
    readers: Mutex<Vec<Connection>>,
    writer: Mutex<Writer>,
    /// A barrier or a checkpoint failed ([`leaves_doubt`](crate::error::leaves_doubt)), or the log was lost: then nothing is written any more.
    is_in_doubt: AtomicBool,
    /// Let go last.
    pub(crate) presence: Presence,
}

/// What a change is going to put.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    blobs: u64,
    bytes: u64,
}

pub(crate) fn at_the_gate(place: &Place) -> Error {
    Error::new(ErrorKind::Busy, Operation::Open, place.shown.as_str()).with_source("another process has it for itself")
}

impl Store {
    /// Opens a database that this process does not have open; without waiting for who has it for itself.
    pub(crate) fn new(place: Place, mode: OpenMode, is_at_the_gate: &mut bool) -> Result<Self> {
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

    /// A commit that is synced, and with it all before it.
    pub(crate) fn barrier(&self, operation: Operation) -> Result<()> {
        self.change(operation, "the database", Syncs::Full, Size::default(), |writer| {
            // Without a row nothing is committed, so nothing synced.
            match writer.connection.prepare_cached(BARRIER)?.execute([])? {
                1 => Ok(()),
                rows => Err(rusqlite::Error::StatementChangedRows(rows)),
            }
        })
    }

    /// Does one change, in one transaction, and then what is due.
    pub(crate) fn change<T>(
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

    /// Nothing is read or changed where others take themselves for alone.
    fn check_presence(&self, operation: Operation) -> Result<()> {
        match self.presence.try_be_here() {
            Ok(true) => Ok(()),
            Ok(false) => Err(unseen(operation)),
            Err(error) => Err(Error::from_io(operation, "the locks", error)),
        }
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to say of a name without a row.
    pub(crate) fn absent(&self, operation: Operation, name: Name) -> Error {
        if self.place.is_gone() { gone(operation) } else { not_found(operation, name) }
    }

    /// Reads in one transaction: what is found by its number is what had the name.
    pub(crate) fn read<T>(
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
    pub(crate) fn of<'a>(blobs: impl IntoIterator<Item = &'a Bytes>) -> Self {
        let add = |sum: Self, bytes: &Bytes| Self { blobs: sum.blobs + 1, bytes: sum.bytes + bytes.len() as u64 };
        blobs.into_iter().fold(Self::default(), add)
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

#[cfg(all(test, unix))]
mod tests {
    use bytes::Bytes;
    use strongroom_core::storage::{BlockingStore as _, Name};

    use super::*;

    #[test]
    fn while_others_cannot_see_this_process_nothing_is_read_or_changed() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::find(&folder.path().join("database"), OpenMode::CreateIfMissing, "the database").unwrap();
        let store = Store::new(place, OpenMode::CreateIfMissing, &mut false).unwrap();
        let (name, bytes) = (Name::new([7; Name::BYTES]), Bytes::from_static(b"content"));
        store.put(name, &bytes).unwrap();
        let foreign = store.presence.lose();
        for outcome in
            [store.size(name).map(drop), store.put(name, &bytes).map(drop), store.delete(name), store.persist(&[name])]
        {
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
        let error = Store::new(place, OpenMode::CreateIfMissing, &mut is_at_the_gate).unwrap_err();
        assert!(error.to_string().contains("replaced"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was made beside it");
    }
}
