//! Strongroom storage in a folder: one file a blob, durable where it says so.
//!
//! ```text
//! folder/3f/3f9c…  (32 hexadecimal digits)   a blob, in the sub-folder of its first byte
//! folder/incoming/                           blobs that are being written; what is left there by a crash is removed
//! folder/deleted/                            where somebody has made it: deleted blobs, for 30 days
//! ```
//!
//! A blob is written in `incoming` and becomes visible under its name in one step that never replaces anything, so
//! it is absent or whole whenever the process dies. Files that are none of these are left alone; those that a sync client has
//! named after a blob, because it had two of that name or has not received all of it, are told, and can be read out.
//!
//! ```
//! use strongroom_core::storage::Registry;
//!
//! let mut registry = Registry::new();
//! strongroom_file::register(&mut registry); // `file:dir`, `file:///abs/dir`, and bare paths
//! ```

mod config;
mod deleted;
mod durability;
mod error;
mod folder;
mod layout;
mod lock;
mod place;
mod storage;
mod strays;

pub use config::{FileConstructor, register};
pub use storage::FileStorage;
