//! From an I/O error to a storage error that says what happened.

use std::io;

use strongroom_core::storage::{Effect, Error, ErrorKind, Operation, Retry};

/// An I/O error. What is not found once the folder was opened is no blob: that is told apart by those who look for one.
pub(crate) fn failed(operation: Operation, context: impl Into<String>, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound && operation != Operation::Open {
        return Error::new(ErrorKind::Other, operation, context)
            .with_effect(operation.effect_if_lost())
            .with_source(format!("the folder is gone, or a part of it: {error}"));
    }
    Error::from_io(operation, context, error)
}

/// The folder itself was removed since it was opened.
pub(crate) fn gone(operation: Operation) -> Error {
    failed(operation, "the folder", io::ErrorKind::NotFound.into()).with_effect(Effect::None)
}

/// An I/O error of a call that changed nothing.
pub(crate) fn without_effect(operation: Operation, context: impl Into<String>, error: io::Error) -> Error {
    failed(operation, context, error).with_effect(Effect::None)
}

/// An I/O error while reading a blob: what cannot be read as a file was not put by us.
pub(crate) fn reading(operation: Operation, context: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::NotSeekable => {
            corrupt(operation, context, "something else than a file is in its place")
        }
        _ => failed(operation, context, error),
    }
}

/// The error of the step that makes a blob visible: where its kind proves that the step was refused, without effect.
pub(crate) fn publishing(operation: Operation, context: &str, error: io::Error) -> Error {
    let is_gone = error.kind() == io::ErrorKind::NotFound;
    let error = failed(operation, context, error);
    match error.kind() {
        _ if is_gone => error.with_effect(Effect::None),
        ErrorKind::Full | ErrorKind::PermissionDenied | ErrorKind::ReadOnly | ErrorKind::Invalid => {
            error.with_effect(Effect::None)
        }
        _ => error,
    }
}

/// The medium holds what no put of ours left there.
pub(crate) fn corrupt(operation: Operation, context: &str, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, operation, context).with_source(what.to_owned())
}

/// A barrier was asked for, and an earlier one failed: after that the operating system may take for clean what never
/// reached the medium, so no later barrier may claim it.
pub(crate) fn unknown_durability(operation: Operation, context: impl Into<String>, what: &str) -> Error {
    Error::new(ErrorKind::Other, operation, context)
        .with_effect(Effect::Unknown)
        .with_retry(Retry::Useless)
        .with_source(format!("{what}, because an earlier attempt to make it durable failed"))
}
