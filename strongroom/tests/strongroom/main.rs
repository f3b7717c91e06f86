//! What an application sees of a repository: both APIs, on storage in memory, in folders, and on doubles that crash.
//!
//! One crate: the bodies of asynchronous functions are compiled in each that awaits them, and the long tests run side by side.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // a test may

mod bad_input;
mod blocking_api;
mod blocking_files;
mod check_beside;
mod copy;
mod defragmenter;
mod full_disk;
mod memory_tree;
mod model;
mod repository;
mod restored;
mod secrets;
mod sizes;
mod statfs;
mod sync_clients;
mod tables;
mod threads;
mod transactions;
mod versions;

/// What the model runs on: here the double. `strongroom/tests/backends` runs it on real storages as well.
mod medium {
    pub(crate) use strongroom_conformance::crash::CrashingStorage as Medium;

    /// How many random cases a test runs here.
    pub(crate) fn cases(all: u32) -> u32 {
        all
    }
}
