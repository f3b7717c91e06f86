//! What is visible and not yet durable, and the barriers that make it so.
//!
//! Two rules keep a barrier honest. What was acknowledged before it began is in its batch, what came later belongs to
//! the next. And what an fsync failed on stays *suspect*: the operating system may drop the data and call the file
//! clean, so a second fsync that succeeds proves nothing; every barrier fails until the blob is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use strongroom_core::storage::bounds::not_found;
use strongroom_core::storage::{Name, Operation, Result};

use crate::error::{failed, reading, unknown_durability};
use crate::folder::{Folder, FolderId};
use crate::layout::{Shard, blob_path, shard_from, shard_of, shard_path};

/// From so many files and shards on, one flush of the file system is cheaper than one for each. Shards count, because a
/// checkpoint deletes hundreds of blobs, each in a shard of its own more often than not.
const WHOLE_FLUSH_CHANGES: usize = 32;

/// So many files are kept open until they are synced: an error of write-back is then certainly seen.
const OPEN_FILES_MAX: usize = 128;

/// Over so many bytes or files it is time to begin writing back, so that the barrier at the end finds little to do.
const HEAVY_BYTES: u64 = 32 * 1024 * 1024;
const HEAVY_FILES: usize = 512;

/// The ledgers of the folders that are open. Not of a registry or of a handle, because a barrier is the process's: it covers
/// what was acknowledged on all its handles (S9), and what failed for one of them is lost for all.
static OPEN: Mutex<BTreeMap<FolderId, Weak<Ledger>>> = Mutex::new(BTreeMap::new());

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    /// Held by whoever flushes: the next one finds the rest, after the first has ended.
    flushing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    pending: Batch,
    suspect_names: BTreeSet<Name>,
    suspect_shards: BTreeSet<Shard>,
    root_is_suspect: bool,
    /// The shards whose own entry in the folder is known to be durable.
    durable_shards: BTreeSet<Shard>,
}

/// Changes that no barrier covered.
#[derive(Debug, Default)]
struct Batch {
    /// The files put, open where there was room for it.
    files: BTreeMap<Name, Option<File>>,
    open_files: usize,
    bytes: u64,
    /// The shards in which names were made or removed.
    shards: BTreeSet<Shard>,
}

impl Ledger {
    /// The one that all handles on this folder share; whoever holds it keeps the folder open, so that its identity is that of
    /// no other.
    pub(crate) fn of(folder: &Folder) -> io::Result<Arc<Self>> {
        let id = folder.id()?;
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, ledger| ledger.strong_count() > 0);
        if let Some(ledger) = open.get(&id).and_then(Weak::upgrade) {
            return Ok(ledger);
        }
        let ledger = Arc::<Self>::default();
        open.insert(id, Arc::downgrade(&ledger));
        Ok(ledger)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a put that became visible. True when it is time to flush.
    pub(crate) fn note_put(&self, name: Name, file: File, bytes: u64) -> bool {
        let pending = &mut self.lock().pending;
        let keep_open = pending.open_files < OPEN_FILES_MAX;
        pending.open_files += usize::from(keep_open);
        if let Some(Some(_)) = pending.files.insert(name, keep_open.then_some(file)) {
            pending.open_files -= 1;
        }
        pending.shards.insert(shard_of(name));
        pending.bytes += bytes;
        pending.bytes >= HEAVY_BYTES || pending.files.len() >= HEAVY_FILES
    }

    /// Notes a deletion that became visible: the content need not be durable any more, the absence must.
    pub(crate) fn note_delete(&self, name: Name) {
        let mut state = self.lock();
        if let Some(Some(_)) = state.pending.files.remove(&name) {
            state.pending.open_files -= 1;
        }
        state.pending.shards.insert(shard_of(name));
        state.suspect_names.remove(&name);
    }

    /// Makes everything durable that was noted before.
    pub(crate) fn flush(&self, folder: &Folder) -> Result<()> {
        let _one_at_a_time = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = std::mem::take(&mut self.lock().pending);
        let mut outcome = Ok(());
        let changes = batch.files.len() + batch.shards.len();
        let whole = (changes >= WHOLE_FLUSH_CHANGES).then(|| folder.sync_filesystem()).flatten();
        match whole {
            Some(Ok(())) => self.lock().durable_shards.extend(&batch.shards),
            Some(Err(error)) => {
                self.suspect(folder, batch.files.into_keys());
                self.lock().suspect_shards.extend(&batch.shards);
                outcome = Err(failed(Operation::Sync, "the file system", error));
            }
            None => {
                for (name, file) in batch.files {
                    outcome = outcome.and(self.flush_file(folder, name, file));
                }
                outcome = outcome.and(self.flush_shards(folder, Operation::Sync, &batch.shards));
            }
        }
        outcome.and(self.check())
    }

    /// Makes durable what any process put under these names.
    pub(crate) fn persist(&self, folder: &Folder, names: &[Name]) -> Result<()> {
        for name in names {
            let path = blob_path(*name);
            let file = match folder.open_to_sync(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(not_found(Operation::Persist, *name));
                }
                Err(error) => return Err(reading(Operation::Persist, &path, error)),
            };
            if self.lock().suspect_names.contains(name) {
                return Err(unknown_durability(Operation::Persist, path, "its content may be lost"));
            }
            if let Err(error) = folder.sync_file(&file) {
                self.suspect(folder, [*name]);
                return Err(failed(Operation::Persist, path, error));
            }
        }
        self.flush_shards(folder, Operation::Persist, &names.iter().copied().map(shard_of).collect())
    }

    /// Makes the names in these shards durable, and the shards themselves.
    pub(crate) fn flush_shards(&self, folder: &Folder, operation: Operation, shards: &BTreeSet<Shard>) -> Result<()> {
        if shards.is_empty() {
            return Ok(());
        }
        let mut outcome = Ok(());
        for shard in shards {
            let path = shard_path(*shard);
            if self.lock().suspect_shards.contains(shard) {
                outcome = outcome.and(Err(unknown_durability(operation, path, "names in it may be lost")));
            } else if let Err(error) = folder.sync_directory(&path) {
                let mut state = self.lock();
                if is_passing(&error) {
                    state.pending.shards.insert(*shard);
                } else {
                    state.suspect_shards.insert(*shard);
                }
                outcome = outcome.and(Err(failed(operation, path, error)));
            }
        }
        outcome.and_then(|()| self.flush_root(folder, operation, shards)).and_then(|()| {
            folder.barrier().map_err(|error| {
                self.lock().pending.shards.extend(shards);
                failed(operation, "the folder", error)
            })
        })
    }

    /// Makes the shards' own names durable, once for all that exist.
    fn flush_root(&self, folder: &Folder, operation: Operation, shards: &BTreeSet<Shard>) -> Result<()> {
        {
            let state = self.lock();
            if state.root_is_suspect {
                return Err(unknown_durability(operation, "the folder", "names in it may be lost"));
            }
            if shards.is_subset(&state.durable_shards) {
                return Ok(());
            }
        }
        let mut present = BTreeSet::new();
        let synced =
            folder.each_entry(".", |entry| present.extend(shard_from(entry))).and_then(|()| folder.sync_root());
        let mut state = self.lock();
        match synced {
            Ok(()) => {
                state.durable_shards.extend(present);
                Ok(())
            }
            Err(error) => {
                state.root_is_suspect |= !is_passing(&error);
                state.pending.shards.extend(shards);
                Err(failed(operation, "the folder", error))
            }
        }
    }

    fn flush_file(&self, folder: &Folder, name: Name, file: Option<File>) -> Result<()> {
        let path = blob_path(name);
        let file = match file.map_or_else(|| folder.open_to_sync(&path), Ok) {
            Ok(file) => file,
            // Deleted meanwhile: by another process, or by a task of ours that ran beside this.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Nothing was tried, so the next barrier may try.
            Err(error) => {
                self.lock().pending.files.entry(name).or_insert(None);
                return Err(failed(Operation::Sync, path, error));
            }
        };
        folder.sync_file(&file).map_err(|error| {
            self.suspect(folder, [name]);
            failed(Operation::Sync, path, error)
        })
    }

    /// Notes names whose content may be lost, save those that are gone: the order here and in `delete` (gone first,
    /// then cleared) is such that none is left behind.
    fn suspect(&self, folder: &Folder, names: impl IntoIterator<Item = Name>) {
        for name in names {
            self.lock().suspect_names.insert(name);
            let gone = folder.file_bytes(&blob_path(name)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            if gone {
                self.lock().suspect_names.remove(&name);
            }
        }
    }

    fn check(&self) -> Result<()> {
        let state = self.lock();
        if state.root_is_suspect {
            return Err(unknown_durability(Operation::Sync, "the folder", "names in it may be lost"));
        }
        if let Some(shard) = state.suspect_shards.first() {
            return Err(unknown_durability(Operation::Sync, shard_path(*shard), "names in it may be lost"));
        }
        match state.suspect_names.first() {
            None => Ok(()),
            Some(name) => {
                let what =
                    format!("{} blobs may be lost until they are deleted and put again", state.suspect_names.len());
                Err(unknown_durability(Operation::Sync, blob_path(*name), &what))
            }
        }
    }
}

/// Whether a failed sync of a folder left its changes pending, rather than dropped: it was refused, or lacked space.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotFound
    )
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use strongroom_core::storage::{Effect, ErrorKind};
    use tempfile::TempDir;

    use super::*;

    const NAME: Name = Name::new([0xab; 16]);

    /// A file that cannot be synced, in the place of one that was put.
    fn put_that_cannot_be_synced(place: &TempDir, ledger: &Ledger) {
        std::fs::create_dir_all(place.path().join("ab")).unwrap();
        std::fs::write(place.path().join(blob_path(NAME)), b"content").unwrap();
        ledger.note_put(NAME, File::open("/dev/null").unwrap(), 7);
    }

    #[test]
    fn after_a_failed_sync_no_sync_succeeds_until_the_blob_is_deleted() {
        let place = TempDir::new().unwrap();
        let (folder, ledger) = (Folder::open(place.path()).unwrap(), Ledger::default());
        put_that_cannot_be_synced(&place, &ledger);
        ledger.flush(&folder).unwrap_err();
        for _ in 0..2 {
            let error = ledger.flush(&folder).unwrap_err();
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Other, Effect::Unknown));
            assert!(error.to_string().contains("may be lost"), "{error}");
            ledger.persist(&folder, &[NAME]).unwrap_err();
        }
        folder.remove(&blob_path(NAME)).unwrap();
        ledger.note_delete(NAME);
        ledger.flush(&folder).unwrap();
    }

    #[test]
    fn a_blob_that_was_deleted_meanwhile_needs_no_sync() {
        let place = TempDir::new().unwrap();
        let (folder, ledger) = (Folder::open(place.path()).unwrap(), Ledger::default());
        put_that_cannot_be_synced(&place, &ledger);
        std::fs::remove_file(place.path().join(blob_path(NAME))).unwrap();
        // The sync fails, and what it was for is gone: only that one barrier may say so.
        ledger.flush(&folder).unwrap_err();
        ledger.flush(&folder).unwrap();
    }

    #[test]
    fn a_shard_that_cannot_be_reached_is_tried_again() {
        let place = TempDir::new().unwrap();
        let (folder, ledger) = (Folder::open(place.path()).unwrap(), Ledger::default());
        ledger.note_delete(NAME);
        ledger.flush(&folder).unwrap_err();
        ledger.flush(&folder).unwrap_err();
        std::fs::create_dir(place.path().join("ab")).unwrap();
        ledger.flush(&folder).unwrap();
    }

    #[test]
    fn only_so_many_files_stay_open_and_all_are_synced() {
        let place = TempDir::new().unwrap();
        let (folder, ledger) = (Folder::open(place.path()).unwrap(), Ledger::default());
        std::fs::create_dir(place.path().join("00")).unwrap();
        for number in 0..OPEN_FILES_MAX + 10 {
            let mut bytes = [0; 16];
            bytes[15] = number as u8;
            let path = place.path().join(blob_path(Name::new(bytes)));
            ledger.note_put(Name::new(bytes), File::create(path).unwrap(), 1);
        }
        assert_eq!(ledger.lock().pending.open_files, OPEN_FILES_MAX);
        ledger.flush(&folder).unwrap();
        assert!(ledger.lock().pending.files.is_empty());
        assert_eq!(ledger.lock().durable_shards, BTreeSet::from([0]));
    }

    #[test]
    fn handles_on_one_folder_share_what_is_to_be_synced() {
        let (place, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let open = |place: &TempDir| {
            let folder = Folder::open(place.path()).unwrap();
            let ledger = Ledger::of(&folder).unwrap();
            (folder, ledger)
        };
        let (one, other, foreign) = (open(&place), open(&place), open(&elsewhere));
        put_that_cannot_be_synced(&place, &one.1);
        foreign.1.flush(&foreign.0).unwrap();
        // The other handle's barrier covers it: so it fails, and for both.
        other.1.flush(&other.0).unwrap_err();
        one.1.flush(&one.0).unwrap_err();
        drop((one, other));
        let (folder, ledger) = open(&place);
        ledger.flush(&folder).unwrap();
    }
}
