//! One database file: what it is, and what is made of one that is new.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, StorageError,
    TableDefinition, TableHandle as _, TransactionError,
};
use strongroom_core::storage::{Error, ErrorKind, Name, OpenMode, Operation, Result};

use crate::creation::{create_where_missing, sync_folder};
use crate::error::{failed, guarded, is_foreign};

/// A name, and the number of a piece, so that the pieces of a blob stand together in their order.
pub(crate) const PIECE_KEY_BYTES: usize = Name::BYTES + 2;

pub(crate) const NAMES: TableDefinition<'_, &[u8; Name::BYTES], u32> = TableDefinition::new("names");
pub(crate) const PIECES: TableDefinition<'_, &[u8; PIECE_KEY_BYTES], &[u8]> = TableDefinition::new("pieces");
const FORMAT: TableDefinition<'_, &str, u32> = TableDefinition::new("strongroom");
const FORMAT_KEY: &str = "format";
const FORMAT_VERSION: u32 = 1;

/// What redb may keep of the file in memory: its own default is 1 GiB.
const CACHE_BYTES: usize = 32 << 20;

/// What tells one file from all others, as long as it is open.
#[cfg(unix)]
pub(crate) type Identity = (u64, u64);
#[cfg(not(unix))]
pub(crate) type Identity = PathBuf;

#[cfg(unix)]
pub(crate) fn identity(_: &Path, metadata: &std::fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
pub(crate) fn identity(path: &Path, _: &std::fs::Metadata) -> Identity {
    path.to_owned()
}

/// A file that is there, by its real path.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    path: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) shown: String,
}

impl Place {
    /// Finds the file, or makes it, a database without blobs, where it may be made. The tag is random.
    pub(crate) fn find(path: &Path, mode: OpenMode, shown: &str, tag: u64) -> Result<Self> {
        let refused = |error| Error::from_io(Operation::Open, shown, error);
        if mode == OpenMode::CreateIfMissing {
            create_where_missing(path, shown, tag)?;
        }
        let metadata = std::fs::metadata(path).map_err(refused)?;
        if !metadata.is_file() {
            let what = if metadata.is_dir() { "it is a folder" } else { "it is no file" };
            return Err(invalid(shown, &format!("{what}: name the file of a database, or a new one")));
        }
        let path = std::fs::canonicalize(path).map_err(refused)?;
        let identity = identity(&path, &metadata);
        Ok(Self { path, identity, shown: shown.to_owned() })
    }

    /// Whether the file was removed, or replaced, since it was found.
    pub(crate) fn is_gone(&self) -> bool {
        !std::fs::metadata(&self.path).is_ok_and(|metadata| identity(&self.path, &metadata) == self.identity)
    }

    fn is_empty(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == 0)
    }
}

pub(crate) fn invalid(shown: &str, what: &str) -> Error {
    Error::new(ErrorKind::Invalid, Operation::Open, shown).with_source(what.to_owned())
}

/// An open database.
pub(crate) enum Base {
    Write(Database),
    Read(ReadOnlyDatabase),
    /// What is left of it while it is being closed.
    Closed,
}

impl Base {
    pub(crate) fn begin_read(&self) -> std::result::Result<ReadTransaction, TransactionError> {
        match self {
            Self::Write(database) => database.begin_read(),
            Self::Read(database) => database.begin_read(),
            Self::Closed => Err(StorageError::DatabaseClosed.into()),
        }
    }
}

/// Opens the database. Where it cannot be written to, it is opened for reading.
pub(crate) fn open(place: &Place, mode: OpenMode) -> Result<Base> {
    guarded(Operation::Open, &place.shown, || {
        if place.is_empty() {
            return Err(
                Error::new(ErrorKind::NotFound, Operation::Open, place.shown.as_str()).with_source("the file is empty")
            );
        }
        forget_what_is_not_written(place)?;
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let base = match builder.open(&place.path) {
            Err(DatabaseError::Storage(StorageError::Io(error))) if is_read_only(&error) => {
                builder.open_read_only(&place.path).map(Base::Read).map_err(|error| reading(place, error))?
            }
            opened => opened.map(Base::Write).map_err(|error| refused(place, error))?,
        };
        if place.is_gone() {
            // What was opened may be the other one, which is not known by this one's identity.
            return Err(Error::new(ErrorKind::Busy, Operation::Open, place.shown.as_str())
                .with_source("it was replaced while it was opened"));
        }
        if !look(&base, place)? {
            match (&base, mode) {
                (Base::Write(database), OpenMode::CreateIfMissing) => make_tables(database, &place.shown)?,
                _ => return Err(Error::new(ErrorKind::NotFound, Operation::Open, place.shown.as_str())),
            }
        }
        if let (Base::Write(_), Some(folder)) = (&base, place.path.parent()) {
            // Whoever gave the file its name may have died before it was durable, and what is put into it is to be so.
            match sync_folder(folder) {
                // It was not made by us, then, and cannot be helped.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                outcome => outcome.map_err(|error| Error::from_io(Operation::Open, place.shown.as_str(), error))?,
            }
        }
        Ok(base)
    })
}

/// Sees to it that what redb reads is on the medium, where nobody has the database open. On a file system without locks redb lets
/// in everybody, each as the only one: that is refused.
fn forget_what_is_not_written(place: &Place) -> Result<()> {
    let refused = |error| Error::from_io(Operation::Open, place.shown.as_str(), error);
    let file = File::open(&place.path).map_err(refused)?;
    match file.try_lock_shared() {
        Ok(()) => {
            let forgotten = read_anew(&file);
            // Closing it would do, but for a child process that shares it until it begins its program.
            file.unlock().map_err(refused)?;
            forgotten.map_err(refused)
        }
        // redb itself says so, after trying for a while.
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
            Err(Error::new(ErrorKind::Unsupported, Operation::Open, place.shown.as_str()).with_source(
                "files cannot be locked there, and nothing would keep two processes apart: use another place",
            ))
        }
        Err(TryLockError::Error(error)) => Err(refused(error)),
    }
}

/// What a sync failed to write, the operating system may keep in memory all the same, and take it for written. redb would find a
/// commit whole there that the medium never got, and build on it. So what still can be is written now, and the memory given
/// up: what is read then is what is on the medium, and redb goes back to the commit that is.
fn read_anew(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if !is_read_only(&error) => return Err(error),
        _ => {}
    }
    // A wish: where it is none that the system knows, nothing better is to be had.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(())
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn refused(place: &Place, error: DatabaseError) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            Error::new(ErrorKind::Busy, Operation::Open, place.shown.as_str())
                .with_source("redb lets in one process at a time")
        }
        DatabaseError::UpgradeRequired(version) => {
            Error::new(ErrorKind::Unsupported, Operation::Open, place.shown.as_str())
                .with_source(format!("it is of redb's format {version}, which is not known here"))
        }
        error if is_foreign(&error) => invalid(&place.shown, "it is no redb database: name another file, or a new one"),
        error => failed(Operation::Open, &place.shown, error),
    }
}

fn reading(place: &Place, error: DatabaseError) -> Error {
    match error {
        DatabaseError::RepairAborted => Error::new(ErrorKind::ReadOnly, Operation::Open, place.shown.as_str())
            .with_source("a process that died left it to be repaired, which takes the right to write"),
        error => refused(place, error),
    }
}

/// Whether the database is one of ours; false where it is empty, or was only begun.
fn look(base: &Base, place: &Place) -> Result<bool> {
    let read = || -> std::result::Result<_, redb::Error> {
        let transaction = base.begin_read()?;
        let mut tables = transaction.list_tables()?;
        if tables.any(|table| table.name() == FORMAT.name()) {
            let version = transaction.open_table(FORMAT)?.get(FORMAT_KEY)?.map(|version| version.value());
            return Ok(Some(version));
        }
        Ok((transaction.list_tables()?.next().is_some() || transaction.list_multimap_tables()?.next().is_some())
            .then_some(None))
    };
    match read().map_err(|error| failed(Operation::Open, &place.shown, error))? {
        None => Ok(false),
        Some(Some(FORMAT_VERSION)) => Ok(true),
        Some(Some(version)) => Err(Error::new(ErrorKind::Unsupported, Operation::Open, place.shown.as_str())
            .with_source(format!("its format is {version}, and only {FORMAT_VERSION} is known: use a newer version"))),
        Some(None) => {
            Err(invalid(&place.shown, "it is a database of another program: name another file, or a new one"))
        }
    }
}

/// Makes what tells that a database is ours.
pub(crate) fn make_tables(database: &Database, shown: &str) -> Result<()> {
    let make = || -> std::result::Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(NAMES)?;
        transaction.open_table(PIECES)?;
        transaction.open_table(FORMAT)?.insert(FORMAT_KEY, FORMAT_VERSION)?;
        Ok(transaction.commit()?)
    };
    make().map_err(|error| failed(Operation::Open, shown, error))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::IoSliceMut;

    use rustix::fs::Advice;
    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::*;

    const PIECE_BYTES: usize = 64 << 10;
    const PIECES: usize = 64;

    /// How many pieces of a file the system has in memory; `None` where the file system does not tell, or has no other place.
    fn in_memory(file: &File) -> io::Result<Option<usize>> {
        /// `linux/magic.h`.
        const TMPFS: i128 = 0x0102_1994;
        if i128::from(rustix::fs::fstatfs(file)?.f_type) == TMPFS {
            return Ok(None);
        }
        // Else looking at one piece would bring those after it.
        rustix::fs::fadvise(file, 0, None, Advice::Random)?;
        let mut there = 0;
        for piece in 0..PIECES {
            let mut byte = [0];
            let at = (piece * PIECE_BYTES) as u64;
            match preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) {
                Ok(_) => there += 1,
                Err(Errno::AGAIN) => {}
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(there))
    }

    #[test]
    fn before_a_database_is_opened_the_system_forgets_what_it_has_of_it_in_memory() {
        // Beside the sources, which are on a disk where a folder for what is temporary may be in memory.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![7; PIECES * PIECE_BYTES]).unwrap();
        let file = File::open(&path).unwrap();
        let Some(before) = in_memory(&file).unwrap() else {
            eprintln!("not tested: this file system does not tell what of a file is in memory");
            return;
        };
        assert_eq!(before, PIECES);
        let place = Place::find(&path, OpenMode::Existing, "the database", 0).unwrap();
        forget_what_is_not_written(&place).unwrap();
        let after = in_memory(&file).unwrap().unwrap();
        assert!(after < PIECES / 4, "{after} of {PIECES} pieces are still in memory");
    }
}
