//! Who else is here.
//!
//! Locks belong to open files and end with them, so a process that dies leaves none behind. Every handle holds
//! *presence* shared. Entering passes through the *gate*. Whoever wants to be alone closes the gate first: then, between
//! giving up presence and taking it exclusively, nobody can slip in, and taking it back always succeeds.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::folder::{Folder, LockKind};
use crate::layout::INCOMING;

/// The locks of one handle.
#[derive(Debug)]
pub(crate) struct Locks {
    /// `None` where the file system knows no locks.
    presence: Option<File>,
    /// `None` as long as nobody needed it: in a folder that cannot be written to, it may not exist.
    gate: Mutex<Option<File>>,
    /// Whether this handle holds the folder exclusively: locks do not protect a handle from itself.
    alone: AtomicBool,
}

/// Whether to wait for whoever holds the folder exclusively.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// So many looks, a [`PAUSE`] apart: whoever is inside may have been stopped, and nobody is to hang on that for ever.
    Looks(u32),
    Leave,
}

/// Between two looks at a lock that another holds.
const PAUSE: Duration = Duration::from_millis(5);

impl Locks {
    /// Enters a folder. `None` where someone holds it exclusively and we would have to wait.
    pub(crate) fn enter(folder: &Folder, patience: Patience) -> io::Result<Option<Self>> {
        let gate = folder.lock_file(LockKind::Gate).ok();
        let presence = match folder.lock_file(LockKind::Presence) {
            Ok(file) => file,
            // On some systems the lock is a file of its own, which a folder that is for reading only may lack.
            Err(_) => return Ok(Some(Self::without(gate))),
        };
        if let Some(gate) = &gate {
            match lock_shared(gate, patience) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Some(Self::without(None))),
                Err(error) => return Err(error),
            }
        }
        match lock_shared(&presence, patience) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Some(Self::without(None))),
            Err(error) => return Err(error),
        }
        if let Some(gate) = &gate {
            gate.unlock()?;
        }
        Ok(Some(Self { presence: Some(presence), gate: Mutex::new(gate), alone: AtomicBool::new(false) }))
    }

    fn without(gate: Option<File>) -> Self {
        Self { presence: None, gate: Mutex::new(gate), alone: AtomicBool::new(false) }
    }

    /// Takes the folder exclusively, without waiting; false where somebody else is there, or where nobody can tell.
    pub(crate) fn try_alone(&self, folder: &Folder) -> io::Result<bool> {
        let Some(presence) = &self.presence else { return Ok(false) };
        if self.alone.swap(true, Ordering::SeqCst) {
            return Ok(false);
        }
        let outcome = self.close_gate(folder).and_then(|closed| match closed {
            false => Ok(false),
            true => {
                let alone = take_exclusively(presence);
                if !matches!(alone, Ok(true)) {
                    self.open_gate();
                }
                alone
            }
        });
        if !matches!(outcome, Ok(true)) {
            self.alone.store(false, Ordering::SeqCst);
        }
        outcome
    }

    /// Gives up what [`Locks::try_alone`] took.
    pub(crate) fn no_longer_alone(&self) {
        if let Some(presence) = &self.presence {
            // Nobody can hold it exclusively while the gate is ours, so this does not wait.
            let _ = presence.unlock();
            let _ = presence.lock_shared();
        }
        self.open_gate();
        self.alone.store(false, Ordering::SeqCst);
    }

    fn close_gate(&self, folder: &Folder) -> io::Result<bool> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if gate.is_none() {
            // Without the right to write, nobody can be proved away.
            let file = folder.create_directory(INCOMING).and_then(|()| folder.lock_file(LockKind::Gate));
            *gate = file.ok();
        }
        match gate.as_ref().map(File::try_lock) {
            None | Some(Err(TryLockError::WouldBlock)) => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(TryLockError::Error(error))) => Err(error),
        }
    }

    fn open_gate(&self) {
        if let Some(gate) = self.gate.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let _ = gate.unlock();
        }
    }
}

impl Drop for Locks {
    /// To close the files is not enough: a child of this process shares them, and the locks with them, until it begins its
    /// program. What is unlocked is so for both.
    fn drop(&mut self) {
        if let Some(presence) = &self.presence {
            let _ = presence.unlock();
        }
        self.open_gate();
    }
}

/// From shared to exclusive and, where that fails, back to shared. The gate must be held.
fn take_exclusively(presence: &File) -> io::Result<bool> {
    presence.unlock()?;
    match presence.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => presence.lock_shared().map(|()| false),
        Err(TryLockError::Error(error)) => presence.lock_shared().and(Err(error)),
    }
}

fn lock_shared(file: &File, patience: Patience) -> io::Result<bool> {
    let mut looks_left = match patience {
        Patience::Looks(looks) => looks,
        Patience::Leave => 0,
    };
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if looks_left == 0 => return Ok(false),
            Err(TryLockError::WouldBlock) => {
                looks_left -= 1;
                thread::sleep(PAUSE);
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_one_that_never_leaves_is_told_so_in_the_end() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path()).unwrap();
        folder.create_directory(INCOMING).unwrap();
        let inside = Locks::enter(&folder, Patience::Leave).unwrap().unwrap();
        assert!(inside.try_alone(&folder).unwrap());
        assert!(Locks::enter(&folder, Patience::Looks(2)).unwrap().is_none());
        inside.no_longer_alone();
        assert!(Locks::enter(&folder, Patience::Looks(2)).unwrap().is_some());
    }

    #[test]
    fn what_is_let_go_is_free_at_once_though_a_child_shares_the_file() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path()).unwrap();
        folder.create_directory(INCOMING).unwrap();
        let (inside, other) = [(); 2].map(|()| Locks::enter(&folder, Patience::Leave).unwrap().unwrap()).into();
        // As it is between fork and exec.
        let shared = inside.presence.as_ref().unwrap().try_clone().unwrap();
        assert!(!other.try_alone(&folder).unwrap());
        drop(inside);
        assert!(other.try_alone(&folder).unwrap());
        drop(shared);
    }
}
