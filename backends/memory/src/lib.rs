//! Strongroom storage in memory: for tests, caches and scratch data. Gone with the process.
//!
//! ```
//! use strongroom_core::storage::{Registry, StorageUri};
//!
//! let mut registry = Registry::new();
//! strongroom_memory::register(&mut registry); // `mem://name`
//! ```

mod config;
mod storage;

pub use config::{MemoryConstructor, register};
pub use storage::MemoryStorage;
