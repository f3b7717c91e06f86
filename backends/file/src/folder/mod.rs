//! The operating system's part: the same few steps on Unix, relative to an open folder, and elsewhere, by path.

#[cfg(not(unix))]
mod portable;
#[cfg(unix)]
mod unix;

use std::io;
use std::path::Path;

#[cfg(not(unix))]
pub(crate) use portable::{Folder, FolderId, read_at};
#[cfg(unix)]
pub(crate) use unix::{Folder, FolderId, read_at};

/// Whether a file got its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// It did, and the temporary name is gone.
    Created,
    /// Another file has that name; the temporary one is still there.
    Taken,
}

/// The two locks of a folder. `Presence` is held shared by every handle, and exclusively by a guard; `Gate` is passed
/// while entering, so that whoever holds it exclusively keeps newcomers out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LockKind {
    Presence,
    Gate,
}

/// Creates a folder and those above it, each durable in its parent.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(io::ErrorKind::NotFound.into()),
    };
    create_folder(parent)?;
    match std::fs::create_dir(path) {
        Ok(()) => Folder::open(parent)?.sync_root(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}
