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
mod tables;
mod threads;
mod transactions;
mod versions;
