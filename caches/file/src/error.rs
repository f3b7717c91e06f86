//! What opening a cache can answer. Once it is open it has no errors: whatever fails is a miss.

use std::io;
use std::path::Path;

use strongroom_core::storage::{Effect, Error, ErrorKind, Operation};

pub(crate) fn failed(folder: &Path, source: io::Error) -> Error {
    Error::from_io(Operation::Open, format!("the cache in {}", folder.display()), source).with_effect(Effect::None)
}

/// Another process has it open with another size.
pub(crate) fn other_size(folder: &Path) -> Error {
    let context = format!("the cache in {} with another size than it is in use with", folder.display());
    Error::new(ErrorKind::Busy, Operation::Open, context)
}

/// There is a file of another kind.
pub(crate) fn foreign(path: &Path) -> Error {
    let context = format!("{} as a cache, which it is not, so it is left alone: name another folder", path.display());
    Error::new(ErrorKind::Invalid, Operation::Open, context)
}
