//! Files whose power can be cut: for a store in files of its own, such as a database, that is to be tried as it is.
//!
//! After each barrier the files are kept as they are. When the power is cut, each sector that was written since is the old one or the
//! new one, by a seed, and the files go on in another folder. That is what a medium may do that was told to sync and did; that
//! it was told is not seen here: count the calls for that, as `backends/sqlite/tests/syncs` does.
//!
//! **Not for a medium that this process has locked by `fcntl`**: the files are opened, read and closed here at each barrier, which ends
//! all such locks that this process has on them, and another process would take itself for alone. It serves where no other process
//! has the store open as long as this one has, as the tests of `backends/sqlite` see to; else the files are to be read through a
//! child process, which this does not do. Locks by `flock`, and those of open file descriptions, do not end so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::{Capabilities, Change, ExclusiveGuard, Name, Occupancy, Put, Result, Storage};

use crate::Dice;

/// What a medium writes at once.
const SECTOR_BYTES: usize = 512;

/// What a store writes at once, more often than not.
const PAGE_BYTES: usize = 4096;

/// The files in a folder; files in folders below are not seen.
#[derive(Debug)]
pub struct Files(Mutex<State>);

#[derive(Debug)]
struct State {
    root: PathBuf,
    cuts: u64,
    /// The files as of the last barrier.
    synced: BTreeMap<OsString, Vec<u8>>,
}

impl State {
    fn folder(&self) -> PathBuf {
        self.root.join(self.cuts.to_string())
    }
}

fn read_all(folder: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.insert(entry.file_name(), fs::read(entry.path())?);
        }
    }
    Ok(files)
}

impl Files {
    /// Files in a new folder within `root`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Arc<Self>> {
        let state = State { root: root.into(), cuts: 0, synced: BTreeMap::new() };
        fs::create_dir_all(state.folder())?;
        Ok(Arc::new(Self(Mutex::new(state))))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder that the files are in until the power is cut next.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.lock().folder()
    }

    /// Says that all that is in the files now is on the medium.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn note_barrier(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.synced = read_all(&state.folder())?;
        Ok(())
    }

    /// Cuts the power. Handles that are open go on in a world that is gone.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn cut(&self, seed: u64) -> io::Result<()> {
        let mut state = self.lock();
        let written = read_all(&state.folder())?;
        state.cuts += 1;
        let folder = state.folder();
        fs::create_dir_all(&folder)?;
        let mut dice = Dice::new(seed ^ 0x0070_6f77_6572);
        for (name, new) in &written {
            let old = state.synced.get(name);
            // A file that no barrier saw may have no name yet.
            if old.is_none() && dice.per_mille(300) {
                continue;
            }
            fs::write(folder.join(name), left_of(old.map_or(&[][..], Vec::as_slice), new, &mut dice))?;
        }
        state.synced = read_all(&folder)?;
        Ok(())
    }

    /// A storage in these files, whose barriers are noted.
    #[must_use]
    pub fn watch(self: &Arc<Self>, storage: Arc<dyn Storage>) -> Arc<dyn Storage> {
        Arc::new(Watched { inner: storage, folder: self.folder(), files: self.clone() })
    }
}

/// What is left of a file that was `old` at the last barrier and was made `new` since.
fn left_of(old: &[u8], new: &[u8], dice: &mut Dice) -> Vec<u8> {
    // How much reached the medium: little, half, or nearly all.
    let chance = [50, 500, 950].get(dice.below(3) as usize).copied().unwrap_or_default();
    let mut left = Vec::with_capacity(new.len());
    for (page, bytes) in new.chunks(PAGE_BYTES).enumerate() {
        let is_torn = dice.per_mille(50);
        let is_new = dice.per_mille(chance);
        for (sector, bytes) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let at = page * PAGE_BYTES + sector * SECTOR_BYTES;
            let is_new = if is_torn { dice.per_mille(500) } else { is_new };
            // What was never written of a file that became longer is zeros.
            let old = old.get(at..).unwrap_or_default();
            match is_new {
                true => left.extend_from_slice(bytes),
                false => left.extend((0..bytes.len()).map(|byte| old.get(byte).copied().unwrap_or_default())),
            }
        }
    }
    if new.len() > old.len() && dice.per_mille(300) {
        // Its new length is not on the medium either.
        left.truncate(old.len());
    }
    left
}

#[derive(Debug)]
struct Watched {
    inner: Arc<dyn Storage>,
    folder: PathBuf,
    files: Arc<Files>,
}

impl Watched {
    fn note<T>(&self, answer: T) -> Result<T> {
        // A handle of before the power was cut says nothing of what is there now.
        if self.files.folder() == self.folder {
            self.files.note_barrier().map_err(|error| {
                strongroom_core::storage::Error::from_io(
                    strongroom_core::storage::Operation::Sync,
                    "the files of a test",
                    error,
                )
            })?;
        }
        Ok(answer)
    }
}

#[async_trait]
impl Storage for Watched {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.inner.put(name, bytes).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let put = self.inner.put_durable(name, bytes).await?;
        if put == Put::Created { self.note(put) } else { Ok(put) }
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.inner.get(name, range, max_bytes).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.inner.size(name).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.inner.delete(name).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.inner.list(prefix, after).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        self.inner.apply(batch).await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await.and_then(|()| self.note(()))
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.inner.persist(names).await.and_then(|()| self.note(()))
    }

    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.inner.try_exclusive().await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.inner.available_bytes().await
    }

    async fn vacate(&self) -> Result<()> {
        self.inner.vacate().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_barrier_covered_stays_and_the_rest_is_old_or_new_by_sector() {
        let mut dice = Dice::new(1);
        let (old, new) = (vec![1; 100_000], vec![2; 120_000]);
        let mut seen = [false; 3];
        for _ in 0..50 {
            let left = left_of(&old, &new, &mut dice);
            assert!(left.len() == old.len() || left.len() == new.len());
            for sector in left.chunks(SECTOR_BYTES) {
                let kinds = [1, 2, 0].map(|byte| sector.contains(&byte));
                seen.iter_mut().zip(kinds).for_each(|(seen, kind)| *seen |= kind);
            }
            assert_eq!(left_of(&old, &old, &mut dice), old);
        }
        assert_eq!(seen, [true; 3]);
    }
}
