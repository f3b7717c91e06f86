//! The program as people and scripts run it.
//!
//! One crate, so that it is compiled and linked once, and so that a test that waits leaves the machine to the others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // a test may

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod clone;
mod commands;
mod contract;
mod copy;
mod damage;
mod destroy;
mod export;
mod files;
mod full_disk;
mod keys;
mod kill;
mod links;
mod man;
mod mirror;
mod processes;
mod raw;
mod repair;
mod resume;
mod round_trip;
mod signals;
mod snapshots;
mod space;
mod storages;
mod sync;
mod tar;
mod terminal;
mod trees;
mod unchanged;
mod versions;
mod xattrs;
