//! What is in a folder before sled has it: sled takes any folder for its own, and then writes over its `conf`, and removes from its
//! `blobs` what its log does not know of.
//!
//! What sled 0.34 writes into `conf` is the same everywhere, so that is how a database is known. It is written here, before sled
//! would, because sled refuses for ever a `conf` that it was stopped in the middle of writing; and since all write the same, a part
//! of it can be made whole by anybody at any time.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use strongroom_core::storage::{Error, ErrorKind, Operation, Result};

/// What sled 0.34 writes into `conf` with the settings that we leave as they are, its CRC-32 at the end.
const CONFIG: &[u8] = b"segment_size: 524288\nuse_compression: false\nversion: 0.34\nv\x19Q\xc1";

/// sled's files: what it is, its log, the folder of what does not fit into that, and the state of the log at an opening.
const CONFIG_FILE: &str = "conf";
const LOG_FILE: &str = "db";
const BLOBS_FOLDER: &str = "blobs";
const SNAPSHOT_PREFIX: &str = "snap.";
/// What is added to the name of a snapshot as long as it is being written.
const UNFINISHED_SUFFIX: &str = ".generating";

/// What a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    /// Nothing, or what a creation that died left before there could be anything in it.
    Empty,
    /// A database of sled's.
    Database {
        /// Whether there is anything in `blobs`.
        has_blobs: bool,
    },
}

/// Looks what a folder is, and refuses what is not sled's.
pub(crate) fn inspect(path: &Path, shown: &str) -> Result<Folder> {
    let refused = |error| Error::from_io(Operation::Open, shown, error);
    // In this order: where another process makes it meanwhile, what is there later was made earlier.
    let has_blobs = !is_empty(&path.join(BLOBS_FOLDER)).map_err(refused)?;
    let names = names(path).map_err(refused)?;
    let config = read_config(path).map_err(refused)?;
    let is = |name: &str| names.iter().any(|found| found == name);
    let has_others = names.iter().any(|name| ![CONFIG_FILE, BLOBS_FOLDER].contains(&name.as_str()));
    match config.as_deref() {
        Some(CONFIG) if path.join(LOG_FILE).is_file() => Ok(Folder::Database { has_blobs }),
        None | Some([]) if !has_others && !has_blobs => Ok(Folder::Empty),
        Some(part) if CONFIG.starts_with(part) && !has_others && !has_blobs => Ok(Folder::Empty),
        Some(CONFIG) if !is(LOG_FILE) => Err(unfinished(shown, "`db` is missing")),
        Some(_) if is(LOG_FILE) && is(BLOBS_FOLDER) => Err(invalid(
            shown,
            "its `conf` is not one of sled 0.34: it is another version's or program's, or damaged: name another folder",
        )),
        _ => Err(invalid(shown, "its folder holds something else: name another one, or a new one")),
    }
}

/// Makes of an empty folder one that sled knows for its own.
pub(crate) fn begin(path: &Path) -> io::Result<()> {
    let mut config = File::options().write(true).create(true).truncate(false).open(path.join(CONFIG_FILE))?;
    config.write_all(CONFIG)?;
    config.sync_all()
}

/// Makes a database ready for sled, when nobody has it open: removes the snapshots that a process died writing, because sled takes
/// the last one for whole. Refuses what sled would not notice.
pub(crate) fn clean(path: &Path, shown: &str) -> Result<()> {
    let refused = |error| Error::from_io(Operation::Open, shown, error);
    let log = File::options().read(true).write(true).open(path.join(LOG_FILE)).map_err(refused)?;
    // The lock that sled takes.
    match log.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(
                Error::new(ErrorKind::Busy, Operation::Open, shown).with_source("sled lets in one process at a time")
            );
        }
        Err(TryLockError::Error(error)) => return Err(refused(error)),
    }
    let cleaned = clean_locked(path, shown);
    // A child process may share the file, and the lock with it, until it begins its program.
    let _ = log.unlock();
    cleaned
}

fn clean_locked(path: &Path, shown: &str) -> Result<()> {
    let refused = |error| Error::from_io(Operation::Open, shown, error);
    for name in names(path).map_err(refused)? {
        if name.starts_with(SNAPSHOT_PREFIX) && name.ends_with(UNFINISHED_SUFFIX) {
            std::fs::remove_file(path.join(name)).map_err(refused)?;
        }
    }
    if !has_snapshot(path, shown)? && !is_empty(&path.join(BLOBS_FOLDER)).map_err(refused)? {
        return Err(unfinished(shown, "`blobs` holds something, and there is no `snap.…`"));
    }
    Ok(())
}

/// Whether sled wrote the state of the log at an opening.
pub(crate) fn has_snapshot(path: &Path, shown: &str) -> Result<bool> {
    let names = names(path).map_err(|error| Error::from_io(Operation::Open, shown, error))?;
    Ok(names.iter().any(|name| name.starts_with(SNAPSHOT_PREFIX) && !name.ends_with(UNFINISHED_SUFFIX)))
}

/// Removes the files of a database without blobs that nobody has open: the first thing in it that is not sled's stops this.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let gone = |outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    };
    let blobs = path.join(BLOBS_FOLDER);
    for name in names(&blobs)?.iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
        gone(std::fs::remove_file(blobs.join(name)))?;
    }
    gone(std::fs::remove_dir(blobs))?;
    for name in names(path)?.iter().filter(|name| *name == LOG_FILE || name.starts_with(SNAPSHOT_PREFIX)) {
        gone(std::fs::remove_file(path.join(name)))?;
    }
    // What tells that it is sled's, last.
    gone(std::fs::remove_file(path.join(CONFIG_FILE)))?;
    gone(std::fs::remove_dir(path))
}

/// Something of a database is not there.
pub(crate) fn unfinished(shown: &str, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, Operation::Open, shown)
        .with_source(format!("{what}: an unfinished copy? copy the whole folder anew, while nobody has it open"))
}

pub(crate) fn invalid(shown: &str, what: &str) -> Error {
    Error::new(ErrorKind::Invalid, Operation::Open, shown).with_source(what.to_owned())
}

/// The names in a folder, as text; none where it is absent.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Whether there is nothing in a folder, or no folder.
fn is_empty(path: &Path) -> io::Result<bool> {
    match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        // A file is something.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        entries => Ok(entries?.next().is_none()),
    }
}

/// As much as tells whether it is sled's; `None` where it is absent.
fn read_config(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let path: PathBuf = path.join(CONFIG_FILE);
    let metadata = match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    let mut bytes = Vec::new();
    if metadata.is_file() {
        File::open(&path)?.take(CONFIG.len() as u64 + 1).read_to_end(&mut bytes)?;
    } else {
        // Not even a beginning of it.
        bytes.push(0);
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_begun_here_is_what_sled_begins() {
        let root = tempfile::tempdir().unwrap();
        drop(sled::Config::new().path(root.path().join("theirs")).open().unwrap());
        std::fs::create_dir(root.path().join("ours")).unwrap();
        begin(&root.path().join("ours")).unwrap();
        let read = |name: &str| std::fs::read(root.path().join(name).join(CONFIG_FILE)).unwrap();
        assert_eq!(read("ours"), read("theirs"));
        assert_eq!(inspect(&root.path().join("ours"), "").unwrap(), Folder::Empty);
        assert_eq!(inspect(&root.path().join("theirs"), "").unwrap(), Folder::Database { has_blobs: false });
    }
}
