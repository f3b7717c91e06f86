//! The log beside a database, as far as the operating system shows it.

use std::path::{Path, PathBuf};

use crate::database::{Identity, Place, identity};
use crate::lock::beside;

/// The file that a connection of this process writes its commits to, and the index of it that processes share.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    identity: Identity,
    index: PathBuf,
    index_identity: Identity,
}

impl Log {
    /// Of a database to which a connection is open that has read from it, and with that opened the log; `None` where there is none.
    pub(crate) fn of(place: &Place) -> Option<Self> {
        let [path, index] = ["-wal", "-shm"].map(|suffix| beside(&place.path, suffix));
        Some(Self { identity: found(&path)?, index_identity: found(&index)?, path, index })
    }

    /// Whether both are still where other processes look for them. SQLite removes them when the last process closes the database,
    /// and takes itself for the last one, too, where this process has lost its locks. Without the index alone, others would make
    /// one of their own, and see neither what is written here nor its locks.
    pub(crate) fn is_in_place(&self) -> bool {
        found(&self.path).as_ref() == Some(&self.identity) && found(&self.index).as_ref() == Some(&self.index_identity)
    }

    pub(crate) fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }
}

fn found(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|metadata| identity(path, &metadata))
}
