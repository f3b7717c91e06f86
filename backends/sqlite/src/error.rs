//! From SQLite's errors to storage errors that say what happened.

use rusqlite::ErrorCode;
use strongroom_core::storage::{Effect, Error, ErrorKind, Operation};

/// An error of SQLite, on a database that is open. What it refuses before it writes has no effect: a statement that fails is rolled
/// back whole. What fails while it writes or syncs may have reached the file.
pub(crate) fn failed(operation: Operation, context: impl Into<String>, error: rusqlite::Error) -> Error {
    let kind = kind_of(&error);
    let effect = match kind {
        ErrorKind::Other if is_refused_write(&error) => Effect::None,
        ErrorKind::Other => operation.effect_if_lost(),
        ErrorKind::Corrupt if operation.effect_if_lost() == Effect::Unknown => Effect::Unknown,
        _ => Effect::None,
    };
    Error::new(kind, operation, context).with_effect(effect).with_source(error)
}

fn kind_of(error: &rusqlite::Error) -> ErrorKind {
    match error {
        rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => match error.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                ErrorKind::Busy
            }
            ErrorCode::DiskFull => ErrorKind::Full,
            // The index of the log, which is made when the database is opened, could not be made as long as it has to be.
            _ if error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => ErrorKind::Full,
            ErrorCode::PermissionDenied => ErrorKind::PermissionDenied,
            ErrorCode::ReadOnly if error.extended_code != rusqlite::ffi::SQLITE_READONLY_DBMOVED => ErrorKind::ReadOnly,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TypeMismatch => ErrorKind::Corrupt,
            ErrorCode::TooBig => ErrorKind::LimitExceeded,
            // A table that is gone, or a column: the schema was looked at when it was opened.
            ErrorCode::SchemaChanged | ErrorCode::Unknown => ErrorKind::Corrupt,
            _ => ErrorKind::Other,
        },
        // A table has lost rows, or has too many; a column is of another type than was put.
        rusqlite::Error::StatementChangedRows(_) => ErrorKind::Corrupt,
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => ErrorKind::Corrupt,
        _ => ErrorKind::Other,
    }
}

/// Whether after this nobody knows what of the log reached the medium: what the operating system failed to write it may take
/// for clean, so a later sync that succeeds proves nothing.
pub(crate) fn leaves_doubt(error: &Error) -> bool {
    error.kind() == ErrorKind::Other && error.effect() == Effect::Unknown
}

/// A write that the operating system refused, as one beyond a quota or the longest file that there may be (SQLite tells a full disk
/// alone from these): the statement is rolled back, and what had been written is not lost by it, as by a sync that fails.
pub(crate) fn is_refused_write(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE)
}

/// Whether a checkpoint that failed so is just made another time: others were at work, or the disk had no room. Whatever else stops
/// it, nobody knows how far it came, nor what it would have put where.
pub(crate) fn is_put_off(error: &rusqlite::Error) -> bool {
    matches!(kind_of(error), ErrorKind::Busy | ErrorKind::Full) || is_refused_write(error)
}

/// The medium holds what no put of ours left there.
pub(crate) fn corrupt(operation: Operation, context: impl Into<String>, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, operation, context)
        .with_effect(operation.effect_if_lost())
        .with_source(what.to_owned())
}

/// The file was removed, or another put in its place, since it was opened.
pub(crate) fn gone(operation: Operation) -> Error {
    Error::new(ErrorKind::Other, operation, "the database")
        .with_source("its file was removed, or replaced by another, since it was opened")
}

/// The log that this process writes to, or its index, has lost its name, or another has it: then no other process sees what is written there.
pub(crate) fn log_lost(operation: Operation) -> Error {
    Error::new(ErrorKind::Other, operation, "the database").with_effect(Effect::Unknown).with_source(
        "its log was removed while it was open, so what was written last may be lost: close all handles, and open it anew \
        (the locks of a process end when it opens a file of the database by itself and closes it: see the README)",
    )
}

/// Another program holds the lock by which others see this process.
pub(crate) fn unseen(operation: Operation) -> Error {
    Error::new(ErrorKind::Busy, operation, "the locks")
        .with_source("another program keeps the file `-here` beside the database locked: end that")
}

/// This storage does not let the last bytes be taken, which deleting needs.
pub(crate) fn no_room(operation: Operation, context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Full, operation, context)
        .with_source("the disk is full, but for what deleting needs: remove something, or make room")
}

/// An earlier barrier failed, or a checkpoint.
pub(crate) fn in_doubt(operation: Operation) -> Error {
    Error::new(ErrorKind::Other, operation, "the database")
        .with_effect(Effect::Unknown)
        .with_source("an earlier attempt to make it durable failed: close it, and open it anew")
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn a_checkpoint_is_put_off_for_others_and_for_room_and_leaves_doubt_else() {
        let error = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_BUSY_RECOVERY, ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE] {
            assert!(is_put_off(&error(code)), "{code}");
            assert!(!leaves_doubt(&failed(Operation::Sync, "the database", error(code))), "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_READ] {
            assert!(!is_put_off(&error(code)), "{code}");
        }
        assert!(leaves_doubt(&failed(Operation::Sync, "the database", error(ffi::SQLITE_IOERR_FSYNC))));
    }

    #[test]
    fn no_room_for_the_index_of_the_log_is_a_full_disk() {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_SHMSIZE), None);
        let error = failed(Operation::Open, "the database", error);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Full, Effect::None));
    }
}
