//! Who else is here, in other processes: SQLite lets any number in, and does not tell.
//!
//! A process that has the database open holds `FILE-here` shared, and has passed through `FILE-gate`. Whoever wants to be alone
//! closes the gate first: then, between giving up the shared lock and taking it exclusively, nobody slips in, and taking it
//! back always succeeds. Whoever makes the database closes it, too. Files of their own, because closing a file ends all locks
//! that SQLite has on it in the same process.

use std::ffi::OsString;
use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::database::Access;

/// What the files of the locks are called after that of the database.
pub(crate) const SUFFIXES: [&str; 2] = ["-here", "-gate"];

/// In the gate, which nobody closes meanwhile.
#[derive(Debug)]
pub(crate) struct Gate {
    files: Option<Files>,
}

/// The locks of one process. `None` where it only reads, and the files cannot be: in a folder that cannot be written to.
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

impl Gate {
    /// Goes into the gate, without waiting; `None` where another process has closed it. Who writes must be seen by all others, so
    /// then whatever fails here is an error.
    pub(crate) fn try_pass(database: &Path, access: Access) -> io::Result<Option<Self>> {
        let files = match Files::open(database) {
            Err(error) if access != Access::Write && cannot_be(&error) => return Ok(Some(Self { files: None })),
            files => files?,
        };
        match files.gate.try_lock_shared() {
            Ok(()) => Ok(Some(Self { files: Some(files) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) if access != Access::Write && cannot_be(&error) => {
                Ok(Some(Self { files: None }))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Closes it behind oneself, without waiting; false where another process is in it. Then this one no longer is.
    pub(crate) fn try_close(&self) -> io::Result<bool> {
        let Some(Files { gate, .. }) = &self.files else { return Ok(false) };
        gate.unlock()?;
        match gate.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Comes in, and leaves the gate open.
    pub(crate) fn try_enter(self) -> io::Result<Option<Presence>> {
        let Some(files) = self.files else { return Ok(Some(Presence { files: None })) };
        match files.here.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        files.gate.unlock()?;
        Ok(Some(Presence { files: Some(files) }))
    }
}

impl Presence {
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

impl Files {
    fn open(database: &Path) -> io::Result<Self> {
        let like = std::fs::metadata(database)?;
        let open = |suffix| {
            let path = beside(database, suffix);
            lock_file(&path, &like)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        let [here, gate] = SUFFIXES.map(open);
        Ok(Self { here: here?, gate: gate? })
    }
}

impl Drop for Files {
    /// To close the files is not enough: a child of this process shares them, and the locks, until it begins its program.
    fn drop(&mut self) {
        let _ = self.here.unlock();
        let _ = self.gate.unlock();
    }
}

/// Whether this is how a place answers that cannot be written to, or that locks no files.
fn cannot_be(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::PermissionDenied | Kind::ReadOnlyFilesystem | Kind::NotFound | Kind::Unsupported)
}

/// Opened for reading where that is all that is allowed: it can be locked so, too.
fn lock_file(path: &Path, like: &Metadata) -> io::Result<File> {
    match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if cannot_be(&error) => return File::open(path),
        opened => return opened,
    }
    match make(path, like) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => File::options().read(true).write(true).open(path),
        made => made,
    }
}

/// Whoever may open the database may open this, too.
#[cfg(unix)]
fn make(path: &Path, like: &Metadata) -> io::Result<File> {
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
    let mode = like.mode() & 0o666;
    let file = File::options().read(true).write(true).create_new(true).mode(mode).open(path)?;
    // As far as this process may give files away: SQLite does the same for its log.
    if fchown(&file, Some(like.uid()), Some(like.gid())).is_err() {
        let _ = fchown(&file, None, Some(like.gid()));
    }
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    Ok(file)
}

#[cfg(not(unix))]
fn make(path: &Path, _: &Metadata) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("database");
        std::fs::write(&path, "").unwrap();
        path
    }

    fn enter(path: &Path) -> Option<Presence> {
        Gate::try_pass(path, Access::Write).unwrap().and_then(|gate| gate.try_enter().unwrap())
    }

    #[test]
    fn of_two_processes_none_is_alone_and_newcomers_wait_for_the_one_who_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(&folder);
        let (one, other) = (enter(&path).unwrap(), enter(&path).unwrap());
        assert!(!one.try_alone().unwrap() && !other.try_alone().unwrap());
        drop(other);
        assert!(one.try_alone().unwrap());
        assert!(enter(&path).is_none());
        one.no_longer_alone();
        let other = enter(&path).unwrap();
        assert!(!one.try_alone().unwrap() && !other.try_alone().unwrap());
    }

    #[test]
    fn whoever_makes_the_database_keeps_newcomers_at_the_gate_until_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(&folder);
        let (one, other) = [(), ()].map(|()| Gate::try_pass(&path, Access::Write).unwrap().unwrap()).into();
        assert!(!one.try_close().unwrap(), "another is in it");
        drop((one, other));
        let one = Gate::try_pass(&path, Access::Write).unwrap().unwrap();
        assert!(one.try_close().unwrap());
        assert!(enter(&path).is_none());
        let one = one.try_enter().unwrap().unwrap();
        assert!(enter(&path).is_some());
        drop(one);
    }

    #[test]
    fn a_writer_that_nobody_could_see_does_not_come_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(&folder);
        // A place where the file cannot be, for root too.
        std::fs::create_dir(beside(&path, "-here")).unwrap();
        let error = Gate::try_pass(&path, Access::Write).unwrap_err();
        assert!(error.to_string().contains("database-here"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(Gate::try_pass(&path, Access::Read).unwrap().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn the_files_of_the_locks_are_open_to_whom_the_database_is() {
        use std::os::unix::fs::PermissionsExt as _;
        for mode in [0o600, 0o660, 0o666] {
            let folder = tempfile::tempdir().unwrap();
            let path = database(&folder);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let _here = enter(&path).unwrap();
            for suffix in SUFFIXES {
                let found = std::fs::metadata(beside(&path, suffix)).unwrap().permissions().mode();
                assert_eq!(found & 0o777, mode, "{suffix}");
            }
        }
    }
}
