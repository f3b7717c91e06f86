//! What must be left of a disk: where it has no room, sled does not fail, it waits for ever.
//!
//! So nothing is given to sled while less is left than it may need for what it was given. What other programs take meanwhile, and a
//! quota that does not show in what is left, are not foreseen.

use std::path::Path;

use strongroom_core::storage::{Error, ErrorKind, Operation, Result};

/// For what sled has in memory, and writes when it is flushed or closed.
const FLUSH_BYTES: u64 = 1 << 20;

/// For a deletion and what it makes sled write anew: a node, which has up to so many blobs in it, of the length that is best.
const REMOVAL_BYTES: u64 = FLUSH_BYTES + NODE_BLOBS * 128 * 1024;
const NODE_BLOBS: u64 = 16;

/// For more deletions, each of which writes more than it gives back.
const SPARE_BYTES: u64 = 2 << 20;

/// What sled is asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Use {
    /// To keep a blob of so many bytes.
    Blob(usize),
    /// To remove one.
    Removal,
    /// To make all durable, to close, or to open, which writes a little.
    Flush,
}

impl Use {
    fn bytes(self) -> u64 {
        match self {
            // The blob, and the node that it is in.
            Self::Blob(bytes) => {
                (bytes as u64).saturating_mul(1 + NODE_BLOBS).saturating_add(REMOVAL_BYTES + SPARE_BYTES)
            }
            Self::Removal => REMOVAL_BYTES,
            Self::Flush => FLUSH_BYTES,
        }
    }
}

/// Refuses what the disk that a folder is on has no room for.
pub(crate) fn check(folder: &Path, operation: Operation, context: &str, what: Use) -> Result<()> {
    match left(folder) {
        Some(left) if left < what.bytes() => Err(Error::new(ErrorKind::Full, operation, context)
            .with_source("sled needs some MiB beside what it keeps, and would wait for them for ever")),
        _ => Ok(()),
    }
}

/// What this process may still write to the disk that a folder is on; `None` where nobody says.
#[cfg(unix)]
fn left(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    // Some file systems do not count.
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn left(_: &Path) -> Option<u64> {
    None
}
