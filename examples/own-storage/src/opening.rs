//! Opening a log: one process at a time, what a crash left is cut off, and what is dead is left behind.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use strongroom_core::storage::{Change, Error, ErrorKind, OpenMode, Operation, Result, StorageUri};

use crate::error::corrupt;
use crate::format::{
    Index, PAGE_BYTES, Page, end_the_making, first_page, frame, note, read_frame, read_page, write_mark,
};

/// Less than this is not worth leaving behind.
const DEAD_BYTES_MIN: u64 = 1 << 20;

/// Where a log is, by its real path.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) shown: String,
}

/// The log that takes the place of one of which much is dead.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

impl Place {
    pub(crate) fn find(path: &Path) -> Result<Self> {
        let shown = StorageUri::show_path("log", path, "the log");
        let refused = |error| Error::from_io(Operation::Open, &*shown, error);
        let real = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = fs::canonicalize(folder.unwrap_or(Path::new("."))).map_err(refused)?;
                folder.join(path.file_name().ok_or_else(|| invalid(&shown, "it is no name of a file"))?)
            }
            found => found.map_err(refused)?,
        };
        if fs::metadata(&real).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(invalid(&shown, "it is no file: name the file of a log, or a new one"));
        }
        Ok(Self { path: real, shown: shown.clone() })
    }

    /// Whether it is this file that has the name.
    pub(crate) fn names(&self, file: &File) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let (named, open) = (fs::metadata(&self.path).map(identity), file.metadata().map(identity));
        named.is_ok_and(|named| open.is_ok_and(|open| open == named))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }

    fn refused(&self, error: io::Error) -> Error {
        Error::from_io(Operation::Open, &*self.shown, error)
    }
}

fn invalid(shown: &str, what: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, Operation::Open, shown).with_source(what)
}

/// A file that no other process has open as this one does.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Locked {
    fn try_new(file: File, place: &Place) -> Result<Self> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::new(ErrorKind::Busy, Operation::Open, &*place.shown)
                .with_source("a log is for one process at a time")),
            Err(TryLockError::Error(error)) => Err(place.refused(error)),
        }
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing it would not do: the lock lives on in a child of this process until that begins its program.
        let _ = self.0.unlock();
    }
}

/// What is known of a log that was opened: all of it is durable.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: Locked,
    pub(crate) index: Index,
    pub(crate) end: u64,
    /// The sector of the next mark.
    pub(crate) sector: usize,
}

pub(crate) fn open(place: &Place, mode: OpenMode) -> Result<Opened> {
    let refused = |error| place.refused(error);
    let creates = mode == OpenMode::CreateIfMissing;
    let file = OpenOptions::new().read(true).write(true).create(creates).truncate(false).open(&place.path);
    let file = Locked::try_new(file.map_err(refused)?, place)?;
    if !place.names(&file) {
        return Err(Error::new(ErrorKind::Busy, Operation::Open, &*place.shown)
            .with_source("it was replaced while it was opened"));
    }
    let absent = || Error::new(ErrorKind::NotFound, Operation::Open, &*place.shown);
    let (mark, sector) = match read_page(&file).map_err(refused)? {
        Page::Ours { mark, next, in_the_making } => {
            if in_the_making {
                // It has its place, and who gave it that died before it could say so.
                end_the_making(&file).map_err(refused)?;
            }
            (mark, next)
        }
        Page::Unfinished if creates => {
            file.set_len(0).and_then(|()| file.write_all_at(&first_page(false), 0)).map_err(refused)?;
            (PAGE_BYTES, 1)
        }
        Page::Unfinished => return Err(absent().with_source("the log was never finished")),
        Page::Version(version) => {
            return Err(Error::new(ErrorKind::Unsupported, Operation::Open, &*place.shown)
                .with_source(format!("it is a log of version {version}, which is not known here")));
        }
        Page::Damaged => return Err(corrupt(Operation::Open, &place.shown, "its first page is damaged")),
        Page::Foreign => return Err(invalid(&place.shown, "it is something else than a log, and stays as it is")),
    };
    let opened = recover(place, file, mark, sector)?;
    Ok(leave_the_dead_behind(place, &opened)?.unwrap_or(opened))
}

/// Reads the frames, and cuts off what a crash left behind the last whole one.
fn recover(place: &Place, file: Locked, mark: u64, sector: usize) -> Result<Opened> {
    let refused = |error| place.refused(error);
    let (mut end, mut index) = (PAGE_BYTES, Index::new());
    let length = file.metadata().map_err(refused)?.len();
    let damaged = |end| corrupt(Operation::Open, &place.shown, &format!("a frame at {end} is damaged or cut short"));
    while end < length {
        match read_frame(&file, end, length, &mut index) {
            Ok(Some(next)) => end = next,
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged(end)),
            Err(error) => return Err(refused(error)),
        }
    }
    // A barrier has covered this: it is no tail that a crash tore.
    if end < mark {
        return Err(damaged(end));
    }
    if end < length {
        // Before anything is appended there, so that nothing of it is found behind that later.
        file.set_len(end).map_err(refused)?;
    }
    // Who wrote the frames, or gave the file its name, may have died before that was durable.
    file.sync_all().and_then(|()| place.sync_folder()).map_err(refused)?;
    let sector = write_mark(&file, end, sector).map_err(refused)?;
    Ok(Opened { file, index, end, sector })
}

/// Where more is dead than alive, makes a log of what is alive and gives it the place of this one. `None` where it is not worth it, or
/// could not be made: then this one serves.
fn leave_the_dead_behind(place: &Place, old: &Opened) -> Result<Option<Opened>> {
    let path = beside(&place.path);
    remove_what_was_begun(place, &path);
    let live_bytes: u64 = old.index.values().map(|extent| extent.frame_bytes()).sum();
    let dead_bytes = (old.end - PAGE_BYTES).saturating_sub(live_bytes);
    if dead_bytes < live_bytes.max(DEAD_BYTES_MIN) {
        return Ok(None);
    }
    let new = written_anew(place, &path, old);
    let Ok(new) =
        new.and_then(|new| fs::rename(&path, &place.path).map(|()| new).map_err(|error| place.refused(error)))
    else {
        remove_what_was_begun(place, &path);
        return Ok(None);
    };
    // From here on it is the log; but after a loss of power only for certain when the folder is synced.
    place.sync_folder().and_then(|()| end_the_making(&new.file)).map_err(|error| place.refused(error))?;
    Ok(Some(new))
}

/// Removes a log that was begun to be made of this one; another log of that name, or anything else, is left alone.
fn remove_what_was_begun(place: &Place, path: &Path) {
    let file = File::open(path).ok().and_then(|file| Locked::try_new(file, place).ok());
    let page = file.as_ref().map(|file| read_page(file));
    if matches!(page, Some(Ok(Page::Ours { in_the_making: true, .. }))) {
        // Where it stays it is in the way of the next one, and of nothing else.
        let _ = fs::remove_file(path);
    }
}

fn written_anew(place: &Place, path: &Path, old: &Opened) -> Result<Opened> {
    let refused = |error| place.refused(error);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(refused)?;
    let file = Locked::try_new(file, place)?;
    // There is nothing in what a crash left that had not come to its first page.
    if read_page(&file).map_err(refused)? != Page::Unfinished {
        return Err(invalid(&place.shown, "something else has the name of the log that is to be made"));
    }
    file.set_len(0).map_err(refused)?;
    let permissions = old.file.metadata().map_err(refused)?.permissions();
    file.set_permissions(permissions).map_err(refused)?;
    file.write_all_at(&first_page(true), 0).map_err(refused)?;
    let (mut index, mut end) = (Index::new(), PAGE_BYTES);
    for (name, extent) in &old.index {
        let mut bytes = vec![0; extent.bytes as usize];
        old.file.read_exact_at(&mut bytes, extent.at).map_err(refused)?;
        let change = [Change::Put(*name, Bytes::from(bytes))];
        let frame = frame(end, &change);
        file.write_all_at(&frame, end).map_err(refused)?;
        note(end, &change, &mut index);
        end += frame.len() as u64;
    }
    file.sync_all().map_err(refused)?;
    // On the medium too, before it has the place of the old one, whose mark is gone then.
    let sector = write_mark(&file, end, 1).map_err(refused)?;
    file.sync_all().map_err(refused)?;
    Ok(Opened { file, index, end, sector })
}
