//! From redb's errors to storage errors that say what happened.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::StorageError;
use strongroom_core::storage::{Error, ErrorKind, Operation, Result};

/// An error of redb, on a database that is open.
pub(crate) fn failed(operation: Operation, context: &str, error: impl Into<redb::Error>) -> Error {
    let new = |kind| Error::new(kind, operation, context).with_effect(operation.effect_if_lost());
    match error.into() {
        // It is not the blob that is not found.
        redb::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => new(ErrorKind::Other).with_source(error),
        // A file ends where redb was told that it goes on: asking again does not help.
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            new(ErrorKind::Corrupt).with_source("the file ends too early: it was cut short")
        }
        redb::Error::Io(error) => Error::from_io(operation, context, error),
        redb::Error::PreviousIo => new(ErrorKind::Other)
            .with_source("an earlier call failed to read or write the file: close it, and open it anew"),
        error @ (redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_)) => new(ErrorKind::Corrupt).with_source(error),
        error => new(ErrorKind::Other).with_source(error),
    }
}

/// After the disk was full, redb takes no more calls.
pub(crate) fn still_full(operation: Operation, context: &str) -> Error {
    Error::new(ErrorKind::Full, operation, context)
        .with_effect(operation.effect_if_lost())
        .with_source("it was full when an earlier call failed: when there is room, close it, and open it anew")
}

/// redb trusts what it wrote, and panics on some of what others changed in the file.
pub(crate) fn guarded<T>(operation: Operation, context: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        Err(corrupt(operation, context, "redb gave up on what is in the file, which was changed since it was written"))
    })
}

/// The medium holds what no put of ours left there.
pub(crate) fn corrupt(operation: Operation, context: &str, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, operation, context)
        .with_effect(operation.effect_if_lost())
        .with_source(what.to_owned())
}

/// The file was removed, or another put in its place, since it was opened.
pub(crate) fn gone(operation: Operation) -> Error {
    Error::new(ErrorKind::Other, operation, "the database")
        .with_source("its file was removed, or replaced by another, since it was opened")
}

/// Whether a file is none of redb's.
pub(crate) fn is_foreign(error: &redb::DatabaseError) -> bool {
    matches!(error, redb::DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData)
}
