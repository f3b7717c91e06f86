//! One folder: what it is, and what is made of one that is new.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use strongroom_core::storage::{Error, ErrorKind, OpenMode, Operation, Result};

use crate::error::{failed, guarded};

/// The trees.
const BLOBS: &str = "blobs";
const FORMAT: &str = "strongroom";
const FORMAT_KEY: &str = "format";
const FORMAT_VERSION: &[u8] = b"1";

/// What sled may keep of the files in memory: its own default is 1 GiB.
const CACHE_BYTES: u64 = 64 << 20;

/// The file by which sled knows a folder of its own.
const SLED_CONFIG: &str = "conf";

/// What tells one folder from all others, as long as it is open.
#[cfg(unix)]
pub(crate) type Identity = (u64, u64);
#[cfg(not(unix))]
pub(crate) type Identity = PathBuf;

#[cfg(unix)]
fn identity(_: &Path, metadata: &std::fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(path: &Path, _: &std::fs::Metadata) -> Identity {
    path.to_owned()
}

/// A folder that is there, by its real path.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    path: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) shown: String,
}

impl Place {
    /// Finds the folder, or makes it where it may be made. One that is not empty must be sled's.
    pub(crate) fn find(path: &Path, mode: OpenMode, shown: &str) -> Result<Self> {
        let refused = |error| Error::from_io(Operation::Open, shown, error);
        let metadata = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && mode == OpenMode::CreateIfMissing => {
                std::fs::create_dir_all(path).map_err(refused)?;
                std::fs::metadata(path).map_err(refused)?
            }
            metadata => metadata.map_err(refused)?,
        };
        if !metadata.is_dir() {
            return Err(invalid(shown, "it is no folder: name the folder of a database, or a new one"));
        }
        let path = std::fs::canonicalize(path).map_err(refused)?;
        if !path.join(SLED_CONFIG).is_file() {
            // sled makes `blobs` first.
            let others = std::fs::read_dir(&path).map_err(refused)?.flatten().any(|entry| entry.file_name() != "blobs");
            if others {
                return Err(invalid(shown, "its folder holds something else: name another one, or a new one"));
            }
            if mode == OpenMode::Existing {
                return Err(Error::new(ErrorKind::NotFound, Operation::Open, shown)
                    .with_source("there is no database in the folder"));
            }
        }
        let identity = identity(&path, &metadata);
        Ok(Self { path, identity, shown: shown.to_owned() })
    }

    /// Whether the folder was removed, or replaced, since it was found.
    pub(crate) fn is_gone(&self) -> bool {
        !std::fs::metadata(&self.path).is_ok_and(|metadata| identity(&self.path, &metadata) == self.identity)
    }
}

fn invalid(shown: &str, what: &str) -> Error {
    Error::new(ErrorKind::Invalid, Operation::Open, shown).with_source(what.to_owned())
}

/// An open database.
pub(crate) struct Base {
    pub(crate) blobs: sled::Tree,
    /// Closed with the last of these.
    _database: sled::Db,
    /// So that the folder's identity is that of no other, even if it is removed meanwhile.
    _folder: Option<File>,
}

/// Opens the database, or makes one where there is none.
pub(crate) fn open(place: &Place, mode: OpenMode) -> Result<Base> {
    guarded(Operation::Open, &place.shown, || {
        let refused = |error| failed(Operation::Open, &place.shown, error);
        let folder = File::open(&place.path).ok();
        // Flushed when we say so.
        let config = sled::Config::new().path(&place.path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let database = config.open().map_err(refused)?;
        let is_ours = database.tree_names().iter().any(|name| name == FORMAT.as_bytes());
        if !is_ours && (!database.is_empty() || database.tree_names().len() > 1) {
            return Err(invalid(
                &place.shown,
                "it is a database of another program: name another folder, or a new one",
            ));
        }
        if !is_ours && mode == OpenMode::Existing {
            return Err(Error::new(ErrorKind::NotFound, Operation::Open, place.shown.as_str())
                .with_source("the database is empty"));
        }
        let format = database.open_tree(FORMAT).map_err(refused)?;
        match format.get(FORMAT_KEY).map_err(refused)? {
            Some(version) if version == FORMAT_VERSION => {}
            Some(_) => {
                return Err(Error::new(ErrorKind::Unsupported, Operation::Open, place.shown.as_str())
                    .with_source("its format is not known here: use a newer version"));
            }
            None if mode == OpenMode::Existing => {
                return Err(Error::new(ErrorKind::NotFound, Operation::Open, place.shown.as_str())
                    .with_source("the database was only begun"));
            }
            None => {
                format.insert(FORMAT_KEY, FORMAT_VERSION).map_err(refused)?;
                database.flush().map_err(refused)?;
            }
        }
        let blobs = database.open_tree(BLOBS).map_err(refused)?;
        Ok(Base { blobs, _database: database, _folder: folder })
    })
}

/// Removes the files of a database without blobs that nobody has open: the first thing in it that is not sled's stops this.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let gone = |outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    };
    let names = |path: &Path| match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>(),
    };
    for blob in names(&path.join("blobs"))? {
        gone(std::fs::remove_file(blob))?;
    }
    gone(std::fs::remove_dir(path.join("blobs")))?;
    for file in names(path)? {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // What tells that it is sled's, last.
        if name == "db" || name.starts_with("snap.") {
            gone(std::fs::remove_file(file))?;
        }
    }
    gone(std::fs::remove_file(path.join(SLED_CONFIG)))?;
    gone(std::fs::remove_dir(path))
}
