//! The files that handles of one file system have open: what all handles of one file share, and when a file that has no
//! name any more may go.
//!
//! Invariant: a file is deleted by a commit of this process only while no handle of it is there. A removal that meets one
//! leaves the file without a name, an orphan, under the writer's epoch. One that meets none holds the door until its commit
//! is settled, so that none is opened meanwhile: until it is known whether it is part of the chain, though the future of the
//! commit may be gone by then, or nobody could tell whoever awaited it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_lock::Mutex as AsyncMutex;
use strongroom_core as core;
use strongroom_core::engine::Transaction;

use super::pending::Pending;
use super::table::{Gate, IsOpen, Table};
use crate::error::{Error, Result};
use crate::shared::Shared;

/// How many files may gather overwritten bytes to their own bound at once.
const WRITERS_AT_BOUND_MAX: usize = 4;

/// What this process has open.
#[derive(Default)]
pub(crate) struct Handles {
    table: Table<OpenFile>,
    /// Bytes of memory in which overwritten bytes wait for their chunks to be cut anew, and chunks that were appended to be
    /// stored, of all files.
    gathered_bytes: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all handles of one file share: above all what was written and is not committed.
pub(crate) struct OpenFile {
    goes_by: Mutex<GoesBy>,
    pub(crate) inode: u64,
    pub(super) writes: AsyncMutex<Option<Written>>,
    /// Whether `writes` holds anything, so that readers of clean files do not wait for each other.
    written: AtomicBool,
    /// A transaction of this process took, or was to take, its last name.
    removed: AtomicBool,
}

/// How content is kept that is written to a file from now on.
struct GoesBy {
    shared: Arc<Shared>,
    /// The commit of the state that says so.
    since: u64,
}

/// What was written since the last commit, and what became of it.
pub(super) struct Written {
    pub(super) pending: Box<Pending>,
    pub(super) fate: Arc<Fate>,
}

/// Set where writes were lost: each handle that took part learns of it.
#[derive(Default)]
pub(super) struct Fate(OnceLock<Error>);

impl Fate {
    pub(super) fn lost(&self) -> Option<Error> {
        self.0.get().cloned()
    }

    pub(super) fn lose(&self, error: Error) {
        // The first reason is the one that counts.
        let _ = self.0.set(error);
    }
}

/// What is worked on, out of its slot: dropped half way, it is lost, and that is noted.
pub(super) struct Taken<'s> {
    file: &'s OpenFile,
    slot: &'s mut Option<Written>,
    pub(super) written: Option<Written>,
}

impl<'s> Taken<'s> {
    pub(super) fn new(file: &'s OpenFile, slot: &'s mut Option<Written>) -> Self {
        let written = slot.take();
        Self { file, slot, written }
    }

    pub(super) fn give_back(mut self) {
        *self.slot = self.written.take();
    }

    pub(super) fn lose(mut self, error: &Error) {
        if let Some(written) = self.written.take() {
            written.fate.lose(error.clone());
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(written) = self.written.take() {
            written.fate.lose(Error::Interrupted);
        }
        self.file.written.store(self.slot.is_some(), Ordering::Release);
    }
}

/// Writes that are being committed: dropped half way, nobody knows.
pub(super) struct Undecided(pub(super) Option<Arc<Fate>>);

impl Undecided {
    pub(super) fn settle(mut self, error: Option<&Error>) {
        if let (Some(fate), Some(error)) = (self.0.take(), error) {
            fate.lose(error.clone());
        }
    }
}

impl Drop for Undecided {
    fn drop(&mut self) {
        if let Some(fate) = self.0.take() {
            fate.lose(Error::Interrupted);
        }
    }
}

impl OpenFile {
    /// Says that the last name is to go; once the last handle has gone too, the file is looked after.
    pub(crate) fn set_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        lock(&self.goes_by).shared.clone()
    }

    /// What a state says that is not older than the one looked at last, for all handles from now on.
    pub(super) fn go_by(&self, shared: &Arc<Shared>, since: u64) {
        let mut goes_by = lock(&self.goes_by);
        if since >= goes_by.since {
            *goes_by = GoesBy { shared: shared.clone(), since };
        }
    }

    pub(super) fn set_written(&self) {
        self.written.store(true, Ordering::Release);
    }

    /// Whether something was written and not committed.
    pub(crate) fn is_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let common = self.shared().common.clone();
        common.handles.table.dropped(self.inode, self.removed.load(Ordering::Acquire));
    }
}

impl Handles {
    /// The file, where a handle of it is there.
    pub(crate) fn get(&self, inode: u64) -> Option<Arc<OpenFile>> {
        self.table.get(inode)
    }

    /// All files of which a handle is there.
    pub(crate) fn all(&self) -> Vec<Arc<OpenFile>> {
        self.table.all()
    }

    /// The file, for one more handle. Waits for a removal that is on its way to be settled, and sees to that where nobody else
    /// does; the caller looks after that whether the file is still there.
    pub(crate) async fn open(&self, shared: &Arc<Shared>, inode: u64) -> Result<Arc<OpenFile>> {
        loop {
            let make = || OpenFile {
                goes_by: Mutex::new(GoesBy { shared: shared.clone(), since: 0 }),
                inode,
                writes: AsyncMutex::default(),
                written: AtomicBool::new(false),
                removed: AtomicBool::new(false),
            };
            let going = match self.table.open(inode, make) {
                Ok(file) => return Ok(file),
                Err(going) => going,
            };
            drop(going.lock().await);
            if self.table.is_held_by(inode, &going) {
                // Whoever awaited the commit is gone, or could not be told; it may wait for the next one.
                shared.engine.settle().await?;
            }
        }
    }

    /// For a transaction that is about to be committed, and deletes files, or leaves others without a name to those who have
    /// them open: what must be seen to when it is settled is, whoever learns of that. The answer is to be held as long as
    /// the commit is awaited.
    pub(crate) fn commit_with(
        self: &Arc<Self>,
        transaction: &mut Transaction,
        deleted: &[u64],
        orphaned: impl Iterator<Item = u64>,
    ) -> Result<Option<Awaited>> {
        let orphaned: Vec<u64> = orphaned.collect();
        if !orphaned.is_empty() {
            transaction.keep_until_settled(Orphaning { handles: self.clone(), inodes: orphaned });
        }
        if deleted.is_empty() {
            return Ok(None);
        }
        let going = self.go(deleted)?;
        let awaited = going.gate.try_lock_arc();
        transaction.keep_until_settled(going);
        Ok(awaited)
    }

    /// Holds the door for files that a transaction is about to delete.
    fn go(self: &Arc<Self>, inodes: &[u64]) -> Result<Going> {
        let gate = Gate::default();
        // Opened since the transaction looked: it must look again, and leave an orphan.
        self.table.go(inodes, &gate).map_err(|IsOpen| core::Error::Conflict)?;
        Ok(Going { handles: self.clone(), inodes: inodes.to_vec(), gate })
    }

    /// Removed files whose last handle was dropped; the caller looks after them.
    pub(crate) fn take_abandoned(&self) -> Abandoned<'_> {
        Abandoned { handles: self, inodes: self.table.take_abandoned().into_iter().collect() }
    }

    /// To be looked after another time.
    pub(crate) fn put_back_abandoned(&self, inodes: &[u64]) {
        self.table.put_back_abandoned(inodes);
    }

    /// Bytes of memory that all files gather.
    pub(crate) fn gathered_bytes(&self) -> usize {
        self.gathered_bytes.load(Ordering::Relaxed)
    }

    /// Counts the bytes that a file gathers: `before` it counted last, `now` it has. Answers whether all files together are
    /// over the bound that follows from that of one.
    pub(super) fn gathers(&self, before: usize, now: usize, bound: usize) -> bool {
        let all = if now >= before {
            self.gathered_bytes.fetch_add(now - before, Ordering::Relaxed).saturating_add(now - before)
        } else {
            self.gathered_bytes.fetch_sub(before - now, Ordering::Relaxed).saturating_sub(before - now)
        };
        all > bound.saturating_mul(WRITERS_AT_BOUND_MAX)
    }
}

/// Removed files to look after. Dropped before they are gone, as a future may be, they are for another time.
pub(crate) struct Abandoned<'h> {
    handles: &'h Handles,
    inodes: Vec<u64>,
}

impl Abandoned<'_> {
    /// All but these are.
    pub(crate) fn are_gone_but(mut self, left: Vec<u64>) {
        self.inodes = left;
    }
}

impl std::ops::Deref for Abandoned<'_> {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.inodes
    }
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if !self.inodes.is_empty() {
            self.handles.put_back_abandoned(&self.inodes);
        }
    }
}

/// A commit that somebody awaits, who answers for it.
pub(crate) type Awaited = async_lock::MutexGuardArc<()>;

/// Files that are left without a name to those who have them open. Once that is settled, the last handle looks after each, and
/// where that is gone already, whoever comes next.
struct Orphaning {
    handles: Arc<Handles>,
    inodes: Vec<u64>,
}

impl Drop for Orphaning {
    fn drop(&mut self) {
        for inode in &self.inodes {
            match self.handles.get(*inode) {
                // Maybe one that was opened since.
                Some(open) => open.set_removed(),
                None => self.handles.put_back_abandoned(&[*inode]),
            }
        }
    }
}

/// Files that are being deleted; dropped, the door is open again.
struct Going {
    handles: Arc<Handles>,
    inodes: Vec<u64>,
    gate: Gate,
}

impl Drop for Going {
    fn drop(&mut self) {
        self.handles.table.let_go(&self.inodes, &self.gate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_closed(handles: &Handles, inode: u64) -> bool {
        handles.table.is_closed(inode)
    }

    #[test]
    fn of_two_that_delete_a_file_neither_opens_the_door_for_the_other() {
        let handles = Arc::new(Handles::default());
        let (first, second) = (handles.go(&[7, 8]).unwrap(), handles.go(&[7]).unwrap());
        drop(first);
        assert!(is_closed(&handles, 7) && !is_closed(&handles, 8));
        drop(second);
        assert!(!is_closed(&handles, 7));

        let (first, second) = (handles.go(&[7]).unwrap(), handles.go(&[7]).unwrap());
        drop(second);
        assert!(is_closed(&handles, 7));
        drop(first);
        assert!(!is_closed(&handles, 7));
    }

    #[test]
    fn removed_files_that_were_looked_after_in_vain_are_looked_after_again() {
        let handles = Handles::default();
        handles.put_back_abandoned(&[3, 4]);
        drop(handles.take_abandoned());
        let again = handles.take_abandoned();
        assert_eq!(*again, [3, 4]);
        again.are_gone_but(vec![4]);
        let again = handles.take_abandoned();
        assert_eq!(*again, [4]);
        again.are_gone_but(Vec::new());
        assert!(handles.take_abandoned().is_empty());
    }
}
