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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::database::{Access, identity};

/// What the files of the locks are called after that of the database.
pub(crate) const SUFFIXES: [&str; 2] = ["-here", "-gate"];

/// So often the files are opened anew that were taken away between being opened and being locked.
const OPENED_ANEW_MAX: u32 = 8;

/// How often it is tried to share a lock again that was given up for a moment, and how long in between: for half a second.
const SHARE_LOOKS: u32 = 100;
const SHARE_PAUSE: Duration = Duration::from_millis(5);

/// In the gate, which nobody closes meanwhile.
#[derive(Debug)]
pub(crate) struct Gate {
    files: Option<Files>,
}

/// The locks of one process. `None` where it only reads, and the files cannot be: in a folder that cannot be written to.
#[derive(Debug)]
pub(crate) struct Presence {
    files: Option<Files>,
    /// Whether others can see this process. It could not take a lock back that it had given up for a moment: another program holds it.
    is_here: AtomicBool,
}

#[derive(Debug)]
struct Files {
    here: LockFile,
    gate: LockFile,
}

/// A lock tells of other processes only as long as they find the file by its name.
#[derive(Debug)]
struct LockFile {
    file: File,
    path: PathBuf,
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
        let cannot_be = |error: &io::Error| access != Access::Write && cannot_be(error);
        for _ in 0..OPENED_ANEW_MAX {
            let files = match Files::open(database) {
                Err(error) if cannot_be(&error) => return Ok(Some(Self { files: None })),
                files => files?,
            };
            match files.gate.file.try_lock_shared() {
                // Else it was taken away since it was opened, and another process may lock its successor.
                Ok(()) if files.gate.is_in_place() => return Ok(Some(Self { files: Some(files) })),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) if cannot_be(&error) => return Ok(Some(Self { files: None })),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Closes it behind oneself, without waiting; false where another process is in it. Then this one no longer is.
    pub(crate) fn try_close(&self) -> io::Result<bool> {
        let Some(Files { gate, .. }) = &self.files else { return Ok(false) };
        gate.file.unlock()?;
        match gate.file.try_lock() {
            Ok(()) => Ok(gate.is_in_place()),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Comes in, and leaves the gate open.
    pub(crate) fn try_enter(self) -> io::Result<Option<Presence>> {
        let Some(files) = self.files else { return Ok(Some(Presence::new(None))) };
        match files.here.file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if !files.are_in_place() {
            return Ok(None);
        }
        files.gate.file.unlock()?;
        Ok(Some(Presence::new(Some(files))))
    }
}

impl Presence {
    fn new(files: Option<Files>) -> Self {
        Self { files, is_here: AtomicBool::new(true) }
    }

    /// Makes sure that others can see this process, without waiting; false where another holds the lock that tells them.
    pub(crate) fn try_be_here(&self) -> io::Result<bool> {
        let Some(files) = self.files.as_ref().filter(|_| !self.is_here.load(Ordering::SeqCst)) else { return Ok(true) };
        match files.here.file.try_lock_shared() {
            Ok(()) => {
                self.is_here.store(true, Ordering::SeqCst);
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes the shared lock again.
    fn share_again(&self, files: &Files) -> io::Result<()> {
        let shared = files.here.share_again();
        self.is_here.store(shared.is_ok(), Ordering::SeqCst);
        shared
    }

    /// Keeps other processes out, without waiting; false where one is there, or where nobody can tell.
    pub(crate) fn try_alone(&self) -> io::Result<bool> {
        let Some(files) = &self.files else { return Ok(false) };
        match files.gate.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let alone = files.try_take();
        if !matches!(alone, Ok(true)) {
            let shared = self.share_again(files);
            let _ = files.gate.file.unlock();
            shared?;
        }
        alone
    }

    /// Lets them in again.
    pub(crate) fn no_longer_alone(&self) {
        if let Some(files) = &self.files {
            // Nobody of ours can hold it exclusively while the gate is ours, so this does not wait. Where it fails, the next call does.
            let _ = self.share_again(files);
            let _ = files.gate.file.unlock();
        }
    }
}

#[cfg(test)]
impl Presence {
    /// Another program takes the lock, in the moment in which this process tries whether it is alone; and holds it until this is closed.
    pub(crate) fn lose(&self) -> File {
        let files = self.files.as_ref().unwrap();
        files.here.file.unlock().unwrap();
        let foreign = File::options().read(true).write(true).open(&files.here.path).unwrap();
        foreign.lock().unwrap();
        assert!(self.try_alone().is_err());
        foreign
    }
}

impl Files {
    fn open(database: &Path) -> io::Result<Self> {
        let like = std::fs::metadata(database)?;
        let open = |suffix| {
            let path = beside(database, suffix);
            match lock_file(&path, &like) {
                Ok(file) => Ok(LockFile { file, path }),
                Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
            }
        };
        let [here, gate] = SUFFIXES.map(open);
        Ok(Self { here: here?, gate: gate? })
    }

    /// From shared to exclusive, while the gate is closed; false where another process is here.
    fn try_take(&self) -> io::Result<bool> {
        self.here.file.unlock()?;
        match self.here.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        for file in [&self.here, &self.gate] {
            if !file.is_in_place() {
                let what = "it was removed, or replaced, while it was locked, so nobody can tell who is there";
                return Err(io::Error::other(format!("{}: {what}: close all handles", file.path.display())));
            }
        }
        Ok(true)
    }

    fn are_in_place(&self) -> bool {
        self.here.is_in_place() && self.gate.is_in_place()
    }
}

impl LockFile {
    /// Whether another process that opens it by its name gets this one.
    fn is_in_place(&self) -> bool {
        let found = std::fs::metadata(&self.path).map(|found| identity(&self.path, &found));
        let locked = self.file.metadata().map(|locked| identity(&self.path, &locked));
        matches!((found, locked), (Ok(found), Ok(locked)) if found == locked)
    }

    /// Takes the shared lock in place of what is held. Does not wait for ever, as a program that is none of ours may hold it.
    fn share_again(&self) -> io::Result<()> {
        // Not every system takes it well where nothing is held.
        let _ = self.file.unlock();
        for _ in 0..SHARE_LOOKS {
            match self.file.try_lock_shared() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(SHARE_PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::other(format!("{}: another program keeps it locked: end that", self.path.display())))
    }
}

impl Drop for Files {
    /// To close the files is not enough: a child of this process shares them, and the locks, until it begins its program.
    fn drop(&mut self) {
        let _ = self.here.file.unlock();
        let _ = self.gate.file.unlock();
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

    #[cfg(unix)]
    #[test]
    fn who_holds_locks_that_others_do_not_find_is_not_alone() {
        for suffix in SUFFIXES {
            let folder = tempfile::tempdir().unwrap();
            let path = database(&folder);
            let one = enter(&path).unwrap();
            std::fs::remove_file(beside(&path, suffix)).unwrap();
            let error = one.try_alone().unwrap_err().to_string();
            assert!(error.contains(suffix), "{error}");
            let other = enter(&path).unwrap();
            assert!(!matches!(one.try_alone(), Ok(true)), "{suffix}");
            drop(one);
            assert!(other.try_alone().unwrap(), "{suffix}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn who_locked_a_file_that_was_taken_away_does_not_come_in() {
        for suffix in SUFFIXES {
            let folder = tempfile::tempdir().unwrap();
            let path = database(&folder);
            let gate = Gate::try_pass(&path, Access::Write).unwrap().unwrap();
            std::fs::remove_file(beside(&path, suffix)).unwrap();
            assert!(gate.try_enter().unwrap().is_none(), "{suffix}");
            assert!(enter(&path).is_some(), "{suffix}");
        }
    }

    #[test]
    fn a_program_that_is_none_of_ours_and_locks_the_file_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(&folder);
        let one = enter(&path).unwrap();
        let here = beside(&path, "-here");
        let foreign = File::options().read(true).write(true).open(&here).unwrap();
        one.files.as_ref().unwrap().here.file.unlock().unwrap();
        foreign.lock().unwrap();
        let error = one.try_alone().unwrap_err().to_string();
        assert!(error.contains("another program"), "{error}");
        assert!(!one.try_be_here().unwrap(), "nobody sees it");
        drop(foreign);
        assert!(one.try_be_here().unwrap());
        assert!(enter(&path).is_some(), "the gate is left closed");
        assert!(one.try_alone().unwrap());
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
