//! Strongroom storage in an SQLite database: one file, a row a blob, transactions, and as many processes of one host as there are.
//!
//! ```text
//! FILE                     the database: table `blobs`, from name to content
//! FILE-wal, FILE-shm       SQLite's log and its index; emptied by each process that closes the database, removed by the last
//! FILE-here, FILE-gate     empty, for locks: who is there, and who may come in
//! ```
//!
//! A blob is a row, put in a transaction of its own or of its batch. SQLite's log holds it whole or not at all, and a later
//! commit that is synced makes it durable: see the README.
//!
//! ```
//! use strongroom_core::storage::Registry;
//!
//! let mut registry = Registry::new();
//! strongroom_sqlite::register(&mut registry); // `sqlite:file` and `sqlite:///abs/file`
//! ```

mod config;
mod database;
mod disk;
mod error;
mod header;
mod lock;
mod log;
mod room;
mod storage;
mod store;

pub use config::{SqliteConstructor, register};
pub use storage::SqliteStorage;
