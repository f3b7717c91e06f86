//! The table of open files under orders of threads that real threads meet once in a lifetime: the file of the crate itself, on
//! primitives of shuttle, which let another thread go on at each lock and each atomic.
//!
//! A failure prints the schedule that led there; `shuttle::replay` runs it again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod sync {
    pub(super) use shuttle::sync::{Arc, Mutex, MutexGuard, Weak};
    pub(super) use std::sync::PoisonError;
}

#[allow(dead_code)] // what the crate needs, and these tests do not
#[path = "../../src/file/table.rs"]
mod table;

use std::collections::BTreeSet;

use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use shuttle::thread;

use crate::sync::Arc;
use crate::table::{Gate, IsOpen, Table};

const INODE: u64 = 7;
const SCHEDULES: usize = 3_000;

/// What handles share, as the crate has it: it tells the table when it goes.
struct OpenFile {
    world: Arc<World>,
    removed: AtomicBool,
}

#[derive(Default)]
struct World {
    table: Table<OpenFile>,
    /// Handles that are there.
    handles: AtomicUsize,
    /// A commit that deletes the file is under way.
    is_going: AtomicBool,
    /// It has no name any more.
    is_removed: AtomicBool,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.world.table.dropped(INODE, self.removed.load(Ordering::Acquire));
    }
}

struct Handle {
    file: Arc<OpenFile>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.file.world.handles.fetch_sub(1, Ordering::SeqCst);
    }
}

impl World {
    fn open(self: &Arc<Self>) -> Result<Handle, Gate> {
        let make = || OpenFile { world: self.clone(), removed: AtomicBool::new(false) };
        let file = self.table.open(INODE, make)?;
        self.handles.fetch_add(1, Ordering::SeqCst);
        assert!(!self.is_going.load(Ordering::SeqCst), "opened while it was deleted");
        Ok(Handle { file })
    }

    /// What a removal does when it is settled that left the file to those who have it open.
    fn orphan(&self) {
        self.is_removed.store(true, Ordering::SeqCst);
        match self.table.get(INODE) {
            Some(open) => open.removed.store(true, Ordering::Release),
            None => self.table.put_back_abandoned(&[INODE]),
        }
    }

    /// A transaction that deletes the file, unless somebody has it open.
    fn delete(&self) -> Result<(), IsOpen> {
        let gate = Gate::default();
        self.table.go(&[INODE], &gate)?;
        let others = self.is_going.swap(true, Ordering::SeqCst);
        assert_eq!(self.handles.load(Ordering::SeqCst), 0, "deleted while a handle was there");
        assert!(self.table.is_held_by(INODE, &gate));
        if !others {
            self.is_going.store(false, Ordering::SeqCst);
        }
        self.table.let_go(&[INODE], &gate);
        Ok(())
    }
}

/// In random orders, and in those with few turns, which find what takes one turn at the wrong moment.
fn in_many_orders(test: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(test.clone(), SCHEDULES);
    shuttle::check_pct(test, SCHEDULES, 3);
}

#[test]
fn no_file_is_deleted_while_a_handle_is_there_nor_opened_while_it_is_deleted() {
    in_many_orders(|| {
        let world = Arc::new(World::default());
        let opening: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || {
                    for _ in 0..2 {
                        drop(world.open());
                    }
                })
            })
            .collect();
        let deleting = {
            let world = world.clone();
            thread::spawn(move || {
                for _ in 0..3 {
                    let _ = world.delete();
                }
            })
        };
        opening.into_iter().chain([deleting]).for_each(|thread| thread.join().unwrap());
        // Nobody is there: the door is open, and nothing stays behind.
        assert!(world.table.get(INODE).is_none() && world.table.all().is_empty());
        world.delete().unwrap();
        drop(world.open().unwrap_or_else(|_| panic!("the door stays closed")));
        assert!(world.table.take_abandoned().is_empty());
    });
}

#[test]
fn a_file_that_is_removed_while_it_is_open_is_looked_after_once_the_last_handle_goes_and_not_before() {
    in_many_orders(|| {
        let world = Arc::new(World::default());
        let first = world.open().unwrap_or_else(|_| panic!("nothing holds the door"));
        let closing = thread::spawn(move || drop(first));
        let second = {
            let world = world.clone();
            thread::spawn(move || drop(world.open()))
        };
        let removing = {
            let world = world.clone();
            thread::spawn(move || world.orphan())
        };
        let looking = {
            let world = world.clone();
            thread::spawn(move || {
                let found = world.table.take_abandoned();
                assert!(found.is_empty() || world.is_removed.load(Ordering::SeqCst), "nobody had removed it");
                // Looked after in vain: a future that is dropped, or a handle that was opened since.
                world.table.put_back_abandoned(&found.into_iter().collect::<Vec<_>>());
            })
        };
        [closing, second, removing, looking].into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(world.table.take_abandoned(), BTreeSet::from([INODE]));
    });
}

#[test]
fn all_handles_of_a_file_share_what_is_written_to_it() {
    in_many_orders(|| {
        let world = Arc::new(World::default());
        let open = || {
            let world = world.clone();
            thread::spawn(move || world.open().unwrap_or_else(|_| panic!("nothing holds the door")))
        };
        // One that is given up at the same time is not what the others get.
        drop(open().join().unwrap());
        let given_up = open();
        let (one, two) = (open(), open());
        let (one, two) = (one.join().unwrap(), two.join().unwrap());
        drop(given_up.join().unwrap());
        assert!(Arc::ptr_eq(&one.file, &two.file));
        assert!(world.table.get(INODE).is_some_and(|open| Arc::ptr_eq(&open, &one.file)));
        drop((one, two));
        assert!(world.table.get(INODE).is_none());
    });
}

#[test]
fn of_two_that_delete_a_file_neither_opens_the_door_for_the_other() {
    in_many_orders(|| {
        let world = Arc::new(World::default());
        let gates: Vec<_> = (0..2).map(|_| Gate::default()).collect();
        let deleting: Vec<_> = gates
            .iter()
            .map(|gate| {
                let (world, gate) = (world.clone(), gate.clone());
                thread::spawn(move || {
                    world.table.go(&[INODE, INODE + 1], &gate).unwrap();
                    thread::yield_now();
                    assert!(world.open().is_err(), "the other has opened the door");
                    world.table.let_go(&[INODE, INODE + 1], &gate);
                })
            })
            .collect();
        deleting.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(world.open().is_ok());
    });
}
