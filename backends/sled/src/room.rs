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
    counted(&rustix::fs::statvfs(folder).ok()?, || is_told_by_a_program(folder))
}

/// What is left, where that is counted: of some programs that serve a file system all numbers are zero, or all but its size.
#[cfg(unix)]
fn counted(disk: &rustix::fs::StatVfs, is_told_by_a_program: impl FnOnce() -> bool) -> Option<u64> {
    let is_size_all = disk.f_bfree == 0 && disk.f_bavail == 0 && disk.f_files == 0;
    let counts = disk.f_blocks > 0 && disk.f_frsize > 0 && !(is_size_all && is_told_by_a_program());
    counts.then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether it is a program that says how much is left: FUSE, which virtiofs is too, and 9p. Kernels count the room, if not all of them the
/// files.
#[cfg(target_os = "linux")]
fn is_told_by_a_program(folder: &Path) -> bool {
    const FUSE: u64 = 0x6573_5546;
    const NINE_P: u64 = 0x0102_1997;
    // However wide the number is, and whether or not it has a sign.
    rustix::fs::statfs(folder).is_ok_and(|disk| [FUSE, NINE_P].contains(&(disk.f_type as u64 & 0xffff_ffff)))
}

#[cfg(all(unix, not(target_os = "linux")))]
fn is_told_by_a_program(_: &Path) -> bool {
    false
}

#[cfg(not(unix))]
fn left(_: &Path) -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_counted_is_not_taken_for_full() {
        let some = rustix::fs::statvfs(std::env::temp_dir().as_path()).unwrap();
        let disk = |blocks, free, available, files| {
            let (f_blocks, f_bfree, f_bavail, f_files) = (blocks, free, available, files);
            rustix::fs::StatVfs { f_frsize: 4096, f_blocks, f_bfree, f_bavail, f_files, ..some }
        };
        for (disk, by_program, left) in [
            (disk(100, 20, 10, 5), false, Some(40_960)),
            (disk(100, 20, 10, 5), true, Some(40_960)),
            // Full, for this user or all; some kernels count no files.
            (disk(100, 20, 0, 5), true, Some(0)),
            (disk(100, 0, 0, 5), true, Some(0)),
            (disk(100, 0, 0, 0), false, Some(0)),
            (disk(100, 0, 0, 0), true, None),
            (disk(0, 0, 0, 0), false, None),
            (rustix::fs::StatVfs { f_frsize: 0, ..disk(100, 20, 10, 5) }, false, None),
        ] {
            let numbers = [disk.f_blocks, disk.f_bfree, disk.f_bavail, disk.f_files];
            assert_eq!(counted(&disk, || by_program), left, "{numbers:?}, by a program: {by_program}");
        }
        assert!(!is_told_by_a_program(Path::new("/proc")));
    }
}
