//! Strongroom storage in a sled database: a folder, written in Rust, for one process at a time. Blobs outlive the process that
//! put them, and are not promised to outlive the power: see the README.
//!
//! ```text
//! FOLDER/conf, db, blobs/, snap.…   sled's files: tree `blobs` from name to content, tree `strongroom` with the format
//! ```
//!
//! ```
//! use strongroom_core::storage::Registry;
//!
//! let mut registry = Registry::new();
//! strongroom_sled::register(&mut registry); // `sled:dir` and `sled:///abs/dir`
//! ```

mod config;
mod database;
mod error;
mod folder;
mod room;
mod storage;

pub use config::{SledConstructor, register};
pub use storage::SledStorage;
