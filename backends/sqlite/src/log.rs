//! The log beside a database, as far as the operating system shows it.

use std::path::PathBuf;

use crate::database::{Identity, Place, identity};
use crate::lock::beside;

/// The file that a connection of this process writes its commits to.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    identity: Identity,
}

impl Log {
    /// Of a database to which a connection is open that has read from it, and with that opened the log; `None` where there is none.
    pub(crate) fn of(place: &Place) -> Option<Self> {
        let path = beside(&place.path, "-wal");
        let metadata = std::fs::metadata(&path).ok()?;
        Some(Self { identity: identity(&path, &metadata), path })
    }

    /// Whether it is still where other processes look for it. SQLite removes it when the last process closes the database, and
    /// takes itself for the last one, too, where this process has lost its locks.
    pub(crate) fn is_in_place(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| identity(&self.path, &metadata) == self.identity)
    }

    pub(crate) fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }
}
