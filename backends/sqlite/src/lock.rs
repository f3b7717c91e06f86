//! Who else is here, in other processes: SQLite lets any number in, and does not tell.
//!
//! A process that has the database open holds `FILE-here` shared, and has passed through `FILE-gate`. Whoever wants to be alone
//! closes the gate first: then, between giving up the shared lock and taking it exclusively, nobody slips in, and taking it
//! back always succeeds. Files of their own, because closing a file ends all locks that SQLite has on it in the same process.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// What the files of the locks are called after that of the database.
pub(crate) const SUFFIXES: [&str; 2] = ["-here", "-gate"];

/// The locks of one process. `None` where the files cannot be: in a folder that cannot be written to.
#[derive(Debug)]
pub(crate) struct Presence {
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    here: File,
    gate: File,
}

pub(crate) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(suffix);
    name.into()
}

impl Presence {
    /// Comes in, without waiting; `None` where another process has the database for itself.
    pub(crate) fn try_enter(database: &Path) -> io::Result<Option<Self>> {
        let [here, gate] = SUFFIXES.map(|suffix| lock_file(&beside(database, suffix)));
        let (Ok(here), Ok(gate)) = (here, gate) else { return Ok(Some(Self { files: None })) };
        for file in [&gate, &here] {
            match file.try_lock_shared() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(Some(Self { files: None }));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        gate.unlock()?;
        Ok(Some(Self { files: Some(Files { here, gate }) }))
    }

    /// Keeps other processes out, without waiting; false where one is there, or where nobody can tell.
    pub(crate) fn try_alone(&self) -> io::Result<bool> {
        let Some(Files { here, gate }) = &self.files else { return Ok(false) };
        match gate.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let alone = here.unlock().and_then(|()| match here.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => here.lock_shared().map(|()| false),
            Err(TryLockError::Error(error)) => here.lock_shared().and(Err(error)),
        });
        if !matches!(alone, Ok(true)) {
            let _ = gate.unlock();
        }
        alone
    }

    /// Lets them in again.
    pub(crate) fn no_longer_alone(&self) {
        if let Some(Files { here, gate }) = &self.files {
            // Nobody can hold it exclusively while the gate is ours, so this does not wait.
            let _ = here.unlock();
            let _ = here.lock_shared();
            let _ = gate.unlock();
        }
    }
}

impl Drop for Presence {
    /// To close the files is not enough: a child of this process shares them, and the locks, until it begins its program.
    fn drop(&mut self) {
        if let Some(Files { here, gate }) = &self.files {
            let _ = here.unlock();
            let _ = gate.unlock();
        }
    }
}

/// Opened for reading where that is all that is allowed: it can be locked so, too.
fn lock_file(path: &Path) -> io::Result<File> {
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(path);
    opened.or_else(|_| File::open(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_processes_none_is_alone_and_newcomers_wait_for_the_one_who_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("database");
        let enter = || Presence::try_enter(&path).unwrap();
        let (one, other) = (enter().unwrap(), enter().unwrap());
        assert!(!one.try_alone().unwrap() && !other.try_alone().unwrap());
        drop(other);
        assert!(one.try_alone().unwrap());
        assert!(enter().is_none());
        one.no_longer_alone();
        let other = enter().unwrap();
        assert!(!one.try_alone().unwrap() && !other.try_alone().unwrap());
    }
}
