//! One folder: what it is, and what is made of one that is new.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use strongroom_core::storage::{Error, ErrorKind, OpenMode, Operation, Result};

use crate::error::{failed, guarded};
use crate::folder::{Folder, begin, clean, has_snapshot, inspect, invalid, unfinished};

/// The trees.
const BLOBS: &str = "blobs";
const FORMAT: &str = "strongroom";
const FORMAT_KEY: &str = "format";
const FORMAT_VERSION: &[u8] = b"1";

/// What sled may keep of the files in memory: its own default is 1 GiB.
const CACHE_BYTES: u64 = 64 << 20;

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
    pub(crate) path: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) shown: String,
}

impl Place {
    /// Finds the folder, or makes it where it may be made.
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
        let identity = identity(&path, &metadata);
        Ok(Self { path, identity, shown: shown.to_owned() })
    }

    /// Whether the folder was removed, or replaced, since it was found.
    pub(crate) fn is_gone(&self) -> bool {
        !std::fs::metadata(&self.path).is_ok_and(|metadata| identity(&self.path, &metadata) == self.identity)
    }
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
    let busy =
        |what: &str| Error::new(ErrorKind::Busy, Operation::Open, place.shown.as_str()).with_source(what.to_owned());
    // sled writes its first snapshot when a log is opened for the second time. It has no blobs before that, because a log that is
    // cut off, as in an unfinished copy, is not noticed without one.
    for _ in 0..2 {
        let folder = File::open(&place.path).ok();
        let has_blobs = match inspect(&place.path, &place.shown)? {
            Folder::Database { has_blobs } => {
                clean(&place.path, &place.shown)?;
                has_blobs
            }
            Folder::Empty if mode == OpenMode::Existing => {
                return Err(absent(place, "there is no database in the folder"));
            }
            Folder::Empty => {
                begin(&place.path).map_err(|error| Error::from_io(Operation::Open, place.shown.as_str(), error))?;
                false
            }
        };
        let opened = guarded(Operation::Open, &place.shown, || {
            let base = open_ours(place, folder, mode, has_blobs)?;
            // Dropped in here where it is not to be used.
            if place.is_gone() {
                // What was opened may be the other one, which is not known by this one's identity.
                return Err(busy("its folder was replaced while it was opened"));
            }
            Ok(has_snapshot(&place.path, &place.shown)?.then_some(base))
        })?;
        if let Some(base) = opened {
            return Ok(base);
        }
    }
    Err(busy("another process is making it"))
}

fn absent(place: &Place, what: &str) -> Error {
    Error::new(ErrorKind::NotFound, Operation::Open, place.shown.as_str()).with_source(what.to_owned())
}

fn open_ours(place: &Place, folder: Option<File>, mode: OpenMode, has_blobs: bool) -> Result<Base> {
    let refused = |error| failed(Operation::Open, &place.shown, error);
    // Flushed when we say so.
    let config = sled::Config::new().path(&place.path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    let database = config.open().map_err(refused)?;
    let is_ours = database.tree_names().iter().any(|name| name == FORMAT.as_bytes());
    if !is_ours && (!database.is_empty() || database.tree_names().len() > 1) {
        return Err(invalid(&place.shown, "it is a database of another program: name another folder, or a new one"));
    }
    if !is_ours && has_blobs {
        return Err(unfinished(&place.shown, "`blobs` holds what `db` does not know of"));
    }
    if !is_ours && mode == OpenMode::Existing {
        return Err(absent(place, "the database is empty"));
    }
    let format = database.open_tree(FORMAT).map_err(refused)?;
    match format.get(FORMAT_KEY).map_err(refused)? {
        Some(version) if version == FORMAT_VERSION => {}
        Some(_) => {
            return Err(Error::new(ErrorKind::Unsupported, Operation::Open, place.shown.as_str())
                .with_source("its format is not known here: use a newer version"));
        }
        None if mode == OpenMode::Existing => return Err(absent(place, "the database was only begun")),
        None => {
            format.insert(FORMAT_KEY, FORMAT_VERSION).map_err(refused)?;
            database.flush().map_err(refused)?;
        }
    }
    let blobs = database.open_tree(BLOBS).map_err(refused)?;
    Ok(Base { blobs, _database: database, _folder: folder })
}
