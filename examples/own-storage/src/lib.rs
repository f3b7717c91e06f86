//! Strongroom storage in one append-only log: an example of a storage of one's own, to be copied. It is durable, is whole after
//! a crash, has atomic batches, and keeps two processes apart.
//!
//! ```text
//! FILE             one page: magic and version; where the log is known to be durable up to, in two sectors in turns
//!                  frames, one after the other: length, checksum, changes (a name put, with its blob, or deleted)
//! FILE.new         while what is dead is left behind, at opening
//! ```
//!
//! Which name lies where is in memory, and read from the log at opening.
//!
//! ```
//! use strongroom_core::storage::Registry;
//!
//! let mut registry = Registry::new();
//! own_storage::register(&mut registry); // `log:file` and `log:///abs/file`
//! ```

#[cfg(not(unix))]
compile_error!("this example reads and writes at positions of a file as Unix does it");

mod config;
mod error;
mod format;
mod opening;
mod storage;

pub use config::{LogConstructor, register};
pub use storage::{Log, LogStorage};
