//! Strongroom storage in a redb database: one file, written in Rust, for one process at a time.
//!
//! ```text
//! FILE             table `names`: from name to length
//!                  table `pieces`: from name and number to a piece of the content
//!                  table `strongroom`: the format
//! ```
//!
//! Content is cut, because redb keeps a row in a page of a power of two, and gives a row of 128 KiB twice that; and so a part of a
//! blob costs a part. Names are apart, so that a listing reads no content.
//!
//! ```
//! use strongroom_core::storage::Registry;
//!
//! let mut registry = Registry::new();
//! strongroom_redb::register(&mut registry); // `redb:file` and `redb:///abs/file`
//! ```

mod config;
mod creation;
mod database;
mod error;
mod storage;

pub use config::{RedbConstructor, register};
pub use storage::RedbStorage;
