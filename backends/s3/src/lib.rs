//! Strongroom storage in a bucket of S3, or of anything that speaks it, through `object_store`.
//!
//! ```text
//! PREFIX/3f9c…                 (32 hexadecimal digits)   a blob, one object each
//! PREFIX/strongroom-storage    what was found out about the server, and which one that was
//! ```
//!
//! A put is one request with `If-None-Match: *`: the server keeps it atomic, for everyone who can reach it. Other objects
//! under the prefix are left alone. The requests are made by a few threads that all storages of the process share; nobody
//! who calls needs a runtime.
//!
//! ```no_run
//! use strongroom_core::storage::Registry;
//!
//! let mut registry = Registry::new();
//! strongroom_s3::register(&mut registry); // `s3://bucket/prefix?region=eu-central-1`
//! ```

mod client;
mod config;
mod connect;
mod credentials;
mod error;
mod listing;
mod marker;
mod network;
mod refusal;
mod single;
mod storage;
mod threads;

pub use config::{ConditionalPut, S3Constructor, S3Options, register};
pub use credentials::S3Credentials;
pub use storage::S3Storage;
