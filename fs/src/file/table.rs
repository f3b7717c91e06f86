//! Which files are open, which are on their way out, and which nobody looks after: a table that threads share. No call of it
//! waits for anything but another call.
//!
//! Built by itself in `tests/table`, on other primitives: so it names nothing of this crate but [`super::sync`].

use std::collections::{BTreeSet, HashMap};

use super::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What all handles of a file share; it tells the table when it is dropped.
pub(super) struct Table<F> {
    files: Mutex<HashMap<u64, Entry<F>>>,
    /// Removed files of which the last handle was dropped.
    abandoned: Mutex<BTreeSet<u64>>,
}

enum Entry<F> {
    Open(Weak<F>),
    /// Transactions that delete it are being committed. All but one lose, and not in the order in which they came.
    Going(Vec<Gate>),
}

/// A transaction that deletes files. The lock is held while somebody awaits its commit.
pub(super) type Gate = Arc<async_lock::Mutex<()>>;

/// A handle of the file is there.
#[derive(Debug)]
pub(super) struct IsOpen;

// Each change of a map is a single insertion or removal: no panic leaves it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<F> Default for Table<F> {
    fn default() -> Self {
        Self { files: Mutex::new(HashMap::new()), abandoned: Mutex::new(BTreeSet::new()) }
    }
}

impl<F> Table<F> {
    /// The file, where a handle of it is there.
    pub(super) fn get(&self, inode: u64) -> Option<Arc<F>> {
        match lock(&self.files).get(&inode) {
            Some(Entry::Open(file)) => file.upgrade(),
            _ => None,
        }
    }

    /// All files of which a handle is there.
    pub(super) fn all(&self) -> Vec<Arc<F>> {
        let open = |entry: &Entry<F>| match entry {
            Entry::Open(file) => file.upgrade(),
            Entry::Going(_) => None,
        };
        lock(&self.files).values().filter_map(open).collect()
    }

    /// The file, for one more handle; `make` makes it for the first.
    ///
    /// # Errors
    /// A transaction that is about to delete it.
    pub(super) fn open(&self, inode: u64, make: impl FnOnce() -> F) -> Result<Arc<F>, Gate> {
        let mut files = lock(&self.files);
        match files.get(&inode) {
            Some(Entry::Going(gates)) => {
                if let Some(gate) = gates.first() {
                    return Err(gate.clone());
                }
            }
            Some(Entry::Open(file)) => {
                if let Some(file) = file.upgrade() {
                    return Ok(file);
                }
            }
            None => {}
        }
        let file = Arc::new(make());
        files.insert(inode, Entry::Open(Arc::downgrade(&file)));
        Ok(file)
    }

    /// The last handle of a file was dropped; `was_removed` where its last name had gone.
    pub(super) fn dropped(&self, inode: u64, was_removed: bool) {
        let mut files = lock(&self.files);
        // Another may have been opened since.
        if matches!(files.get(&inode), Some(Entry::Open(file)) if file.strong_count() == 0) {
            files.remove(&inode);
        }
        drop(files);
        if was_removed {
            lock(&self.abandoned).insert(inode);
        }
    }

    /// Holds the door for files that a transaction is about to delete, or for none of them.
    pub(super) fn go(&self, inodes: &[u64], gate: &Gate) -> Result<(), IsOpen> {
        let mut files = lock(&self.files);
        let is_open = |inode: &u64| matches!(files.get(inode), Some(Entry::Open(file)) if file.strong_count() > 0);
        if inodes.iter().any(is_open) {
            return Err(IsOpen);
        }
        for inode in inodes {
            match files.get_mut(inode) {
                Some(Entry::Going(gates)) => gates.push(gate.clone()),
                _ => drop(files.insert(*inode, Entry::Going(vec![gate.clone()]))),
            }
        }
        Ok(())
    }

    /// Opens the door again, unless others hold it too.
    pub(super) fn let_go(&self, inodes: &[u64], gate: &Gate) {
        let mut files = lock(&self.files);
        for inode in inodes {
            let Some(Entry::Going(gates)) = files.get_mut(inode) else { continue };
            gates.retain(|held| !Arc::ptr_eq(held, gate));
            if gates.is_empty() {
                files.remove(inode);
            }
        }
    }

    /// Whether that transaction holds the door.
    pub(super) fn is_held_by(&self, inode: u64, gate: &Gate) -> bool {
        matches!(lock(&self.files).get(&inode), Some(Entry::Going(gates)) if gates.iter().any(|held| Arc::ptr_eq(held, gate)))
    }

    /// Whether any transaction does.
    #[cfg(test)]
    pub(super) fn is_closed(&self, inode: u64) -> bool {
        matches!(lock(&self.files).get(&inode), Some(Entry::Going(_)))
    }

    /// Removed files whose last handle was dropped; the caller looks after them.
    pub(super) fn take_abandoned(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *lock(&self.abandoned))
    }

    /// To be looked after another time.
    pub(super) fn put_back_abandoned(&self, inodes: &[u64]) {
        lock(&self.abandoned).extend(inodes);
    }
}
