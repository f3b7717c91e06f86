//! From sled's errors to storage errors that say what happened.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use strongroom_core::storage::{Error, ErrorKind, Operation, Result};

/// An error of sled.
pub(crate) fn failed(operation: Operation, context: &str, error: sled::Error) -> Error {
    let new = |kind| Error::new(kind, operation, context).with_effect(operation.effect_if_lost());
    match error {
        // It is not the blob that is not found.
        sled::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => new(ErrorKind::Other).with_source(error),
        // sled has no kind for it.
        sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock") => {
            Error::new(ErrorKind::Busy, operation, context).with_source("sled lets in one process at a time")
        }
        sled::Error::Io(error) => Error::from_io(operation, context, error),
        error @ sled::Error::Corruption { .. } => new(ErrorKind::Corrupt).with_source(error),
        error => new(ErrorKind::Other).with_source(error),
    }
}

/// sled trusts what it wrote, and panics on some of what others changed in its files.
pub(crate) fn guarded<T>(operation: Operation, context: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Corrupt, operation, context)
            .with_effect(operation.effect_if_lost())
            .with_source("sled gave up on what is in its files, which were changed since they were written"))
    })
}

/// The folder was removed, or another put in its place, since it was opened.
pub(crate) fn gone(operation: Operation) -> Error {
    Error::new(ErrorKind::Other, operation, "the database")
        .with_source("its folder was removed, or replaced by another, since it was opened")
}
