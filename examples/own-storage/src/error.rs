//! From errors of files to storage errors that say what happened.

use std::io;

use strongroom_core::storage::{Effect, Error, ErrorKind, Operation};

/// An error of the open file.
pub(crate) fn failed(operation: Operation, context: &str, error: io::Error) -> Error {
    match error.kind() {
        // `NotFound` would say that a blob is absent.
        io::ErrorKind::NotFound => other(operation, error),
        io::ErrorKind::UnexpectedEof => corrupt(operation, context, "the log ends before it"),
        io::ErrorKind::InvalidData => corrupt(operation, context, "the log holds what nobody appends"),
        _ => Error::from_io(operation, context, error),
    }
}

/// The log holds what no call of ours left there.
pub(crate) fn corrupt(operation: Operation, context: &str, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, operation, context)
        .with_effect(operation.effect_if_lost())
        .with_source(what.to_owned())
}

/// The file was removed, or another put in its place, since it was opened.
pub(crate) fn gone(operation: Operation) -> Error {
    other(operation, "its file was removed, or replaced by another, since it was opened").with_effect(Effect::None)
}

/// After a sync that failed nobody knows what is on the medium, and a second one would prove nothing.
pub(crate) fn broken(operation: Operation) -> Error {
    let why = "an earlier call failed to write or to sync the log: close it, and open it anew";
    other(operation, why).with_effect(Effect::None)
}

fn other(operation: Operation, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Other, operation, "the log").with_effect(operation.effect_if_lost()).with_source(why)
}
