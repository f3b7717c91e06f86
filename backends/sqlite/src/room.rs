//! What must be left of a disk, so that deleting works when it is full.
//!
//! To delete is a commit, too, and goes into the log. Where the log can no longer grow it must be written into the database, which
//! grows with the blobs that are in the log. So blobs are put only as long as the disk has room for the database with all that is
//! in the log, and some bytes more.

use std::path::Path;

/// For the log of a few deletions: then it is written into the database and begun anew.
const SPARE_BYTES: u64 = 2 << 20;

/// With more than that nobody counts.
pub(crate) const AMPLE_BYTES: u64 = 128 << 20;

/// Pages that a blob takes beside those that are full of it: the table, the index, the pointer map, free lists.
pub(crate) const PAGES_BESIDE: u64 = 8;

/// A database and its log, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// As large as the database is once the log is written into it and the change is made.
    pub(crate) database: u64,
    pub(crate) database_file: u64,
    /// As long as the log is after the change.
    pub(crate) log: u64,
    pub(crate) log_file: u64,
}

impl Need {
    /// More than the files take already.
    pub(crate) fn bytes(self) -> u64 {
        let database = self.database.saturating_sub(self.database_file);
        let log = self.log.saturating_sub(self.log_file);
        database.saturating_add(log).saturating_add(SPARE_BYTES)
    }
}

/// What this process may still write to the disk that a file is on; `None` where nobody says.
#[cfg(unix)]
pub(crate) fn left(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    // Some file systems do not count.
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
pub(crate) fn left(_: &Path) -> Option<u64> {
    None
}
