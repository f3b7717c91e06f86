//! A database that is new is in its place whole, or not at all: redb refuses for ever what it was stopped in the middle of making.
//!
//! It is made in memory, written beside its place under `FILE.new-` and 16 random digits, synced, and then given its name, which
//! replaces nothing; then the folder is synced. Whatever stops this leaves no database, or one that is whole.
//!
//! An empty file is what `touch` leaves, and no database of anybody: a new one may replace it. Who does so holds the lock of the
//! empty file, and has looked that it still has the name and is still empty; whoever comes second finds that it does not.
//!
//! The file under the other name is locked as long as somebody is at it. What a process that died left there goes with the next
//! creation of the same database: when nobody holds the lock, and there is nothing in it but a part of a new database.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Builder, StorageBackend};
use strongroom_core::storage::{Error, ErrorKind, Operation, Result};

use crate::database::{identity, invalid, make_tables};
use crate::error::{failed, guarded};

/// What follows the name of the database, before [`TAG_DIGITS`], in that of a file that is to become it.
const NEW: &str = ".new-";
const TAG_DIGITS: usize = 16;

/// What a medium writes at once.
const SECTOR_BYTES: usize = 512;

/// Makes a database where there is none, or an empty file; anything else that is there is left as it is. The tag is random.
pub(crate) fn create_where_missing(path: &Path, shown: &str, tag: u64) -> Result<()> {
    let refused = |error| Error::from_io(Operation::Open, shown, error);
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
                return Err(invalid(shown, "it is the name of a folder: name a file"));
            }
            if path.is_symlink() {
                return Err(Error::new(ErrorKind::NotFound, Operation::Open, shown)
                    .with_source("it is a link to a file that is not there: name that file"));
            }
            let place = NewPlace::of(path).map_err(|error| without_folder(shown, error))?;
            let image = image(shown)?;
            place.remove_leftovers(&image);
            let draft = place.draft(&image, tag).map_err(refused)?.ok_or_else(|| busy(shown))?;
            // Where another was first, that one is found now.
            draft.publish(&place.path).and_then(|()| sync_folder(&place.folder)).map_err(refused)
        }
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => {
            let path = std::fs::canonicalize(path).map_err(refused)?;
            let place = NewPlace::of(&path).map_err(refused)?;
            replace_empty(&place, shown, tag)
        }
        // Whoever opens it says what is wrong with it.
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn replace_empty(place: &NewPlace, shown: &str, tag: u64) -> Result<()> {
    let refused = |error| Error::from_io(Operation::Open, shown, error);
    let empty = File::options().write(true).open(&place.path).map_err(refused)?;
    match empty.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(busy(shown)),
        Err(TryLockError::Error(error)) => return Err(refused(error)),
    }
    let image = image(shown)?;
    place.remove_leftovers(&image);
    let draft = place.draft(&image, tag).map_err(refused)?.ok_or_else(|| busy(shown))?;
    let replace = || {
        let metadata = empty.metadata()?;
        draft.file.set_permissions(metadata.permissions())?;
        draft.file.sync_all()?;
        if is_at(&empty, &place.path) && empty.metadata()?.len() == 0 {
            std::fs::rename(&draft.path, &place.path)?;
        }
        sync_folder(&place.folder)
    };
    replace().map_err(refused)
}

/// Where a file cannot be told from another that has its name now, nothing may be replaced.
#[cfg(not(unix))]
fn replace_empty(_: &NewPlace, shown: &str, _: u64) -> Result<()> {
    Err(invalid(shown, "it is an empty file: remove it, and a database is made in its place"))
}

fn busy(shown: &str) -> Error {
    Error::new(ErrorKind::Busy, Operation::Open, shown).with_source("another process is making it")
}

fn without_folder(shown: &str, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        return Error::new(ErrorKind::NotFound, Operation::Open, shown)
            .with_source("its folder is not there: create that first");
    }
    Error::from_io(Operation::Open, shown, error)
}

/// Makes the names in a folder durable.
#[cfg(unix)]
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// There is no such call.
#[cfg(not(unix))]
pub(crate) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether an open file is the one that has the name.
fn is_at(file: &File, path: &Path) -> bool {
    let metadata = file.metadata().and_then(|file| Ok((file, std::fs::symlink_metadata(path)?)));
    metadata.is_ok_and(|(file, at)| identity(path, &file) == identity(path, &at))
}

/// Where a database is to be.
struct NewPlace {
    folder: PathBuf,
    name: OsString,
    path: PathBuf,
}

impl NewPlace {
    fn of(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let folder = std::fs::canonicalize(folder)?;
        Ok(Self { path: folder.join(name), name: name.to_owned(), folder })
    }

    /// A file beside the place, written, synced and locked; `None` where another process was at it meanwhile.
    fn draft(&self, image: &[u8], tag: u64) -> io::Result<Option<Draft>> {
        let mut name = self.name.clone();
        name.push(format!("{NEW}{tag:016x}"));
        let path = self.folder.join(name);
        let file = match File::options().read(true).write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            file => file?,
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // Where there are no locks, nobody takes it for a leftover.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Before it was locked it looked like a leftover.
        if !is_at(&file, &path) {
            return Ok(None);
        }
        let mut draft = Draft { path, file };
        draft.file.write_all(image)?;
        draft.file.sync_all()?;
        Ok(Some(draft))
    }

    /// What cannot be read or removed stays: it costs nothing but its space.
    fn remove_leftovers(&self, image: &[u8]) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten().filter(|entry| self.is_draft_name(&entry.file_name())) {
            let path = entry.path();
            if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                continue;
            }
            let Ok(file) = File::options().read(true).write(true).open(&path) else { continue };
            // It stays locked until it is removed: whoever made it just now finds it so, or gone.
            if file.try_lock().is_ok() && is_at(&file, &path) && is_part_of(&file, image).unwrap_or(false) {
                let _ = std::fs::remove_file(path);
            }
            drop(file);
        }
    }

    fn is_draft_name(&self, name: &OsStr) -> bool {
        let tag = name.as_encoded_bytes().strip_prefix(self.name.as_encoded_bytes());
        let tag = tag.and_then(|rest| rest.strip_prefix(NEW.as_bytes()));
        tag.is_some_and(|tag| {
            tag.len() == TAG_DIGITS && tag.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        })
    }
}

/// Whether a file holds nothing but what was written of a new database, each sector or not.
fn is_part_of(file: &File, image: &[u8]) -> io::Result<bool> {
    if file.metadata()?.len() > image.len() as u64 {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    file.take(image.len() as u64).read_to_end(&mut bytes)?;
    let is_of_it = |(sector, new): (&[u8], &[u8])| new.starts_with(sector) || sector.iter().all(|byte| *byte == 0);
    Ok(bytes.chunks(SECTOR_BYTES).zip(image.chunks(SECTOR_BYTES)).all(is_of_it))
}

/// A database that has not its name yet. Dropping it removes the other name, if that is still there.
struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    /// Gives it its name, unless something has that.
    fn publish(&self, path: &Path) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            use rustix::io::Errno;
            match renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::EXIST) => return Ok(()),
                // Some file systems cannot; a hard link does not replace either.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match std::fs::hard_link(&self.path, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            outcome => outcome,
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        // A child process may share the file, and the lock with it, until it begins its program.
        let _ = self.file.unlock();
    }
}

/// The bytes of a database without blobs, closed.
fn image(shown: &str) -> Result<Vec<u8>> {
    guarded(Operation::Open, shown, || {
        let memory = Memory::default();
        let refused = |error: redb::DatabaseError| failed(Operation::Open, shown, error);
        let database = Builder::new().create_with_backend(memory.clone()).map_err(refused)?;
        make_tables(&database, shown)?;
        database.close().map_err(refused)?;
        let bytes = std::mem::take(&mut *memory.lock());
        Ok(bytes)
    })
}

#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn at(offset: u64, length: usize) -> Option<std::ops::Range<usize>> {
    let offset = usize::try_from(offset).ok()?;
    Some(offset..offset.checked_add(length)?)
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.lock();
        let part = at(offset, out.len()).and_then(|range| bytes.get(range)).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.lock().resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.lock();
        let part = at(offset, data.len()).and_then(|range| bytes.get_mut(range)).ok_or(io::ErrorKind::UnexpectedEof)?;
        part.copy_from_slice(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_new_database_is_known_for_a_leftover_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let place = NewPlace::of(&root.path().join("db")).unwrap();
        let draft = root.path().join("db.new-0123456789abcdef");
        let image = image("").unwrap();
        let goes = |bytes: &[u8]| {
            std::fs::write(&draft, bytes).unwrap();
            place.remove_leftovers(&image);
            !draft.exists()
        };
        let few = (0..65_536).step_by(SECTOR_BYTES).chain((65_536..image.len()).step_by(65_536)).chain([image.len()]);
        for length in few {
            let part = &image[..length];
            assert!(goes(part), "{length}");
            // The length is on the medium, and what comes after half of it not.
            let torn = [&image[..length / SECTOR_BYTES / 2 * SECTOR_BYTES], &vec![0; length][..]].concat();
            assert!(goes(&torn[..length]), "{length}");
            if let Some(last) = length.checked_sub(1) {
                let mut other = part.to_owned();
                other[last] ^= 1;
                assert!(!goes(&other), "{length}");
            }
        }
        assert!(!goes(&[&image[..], b"\0"].concat()));
    }

    #[test]
    fn the_same_bytes_are_made_each_time() {
        assert!(image("").unwrap() == image("").unwrap());
    }
}
