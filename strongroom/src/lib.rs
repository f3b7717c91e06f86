//! Encrypted, transactional, versioned, deduplicated storage for files and key-value data, on any storage that can hold
//! named blobs.
//!
//! A [`Repository`] is one encrypted store at one place. It holds files ([`Repository::fs`]) and keys with values
//! ([`Repository::kv`]); whoever runs the storage learns how many equal blobs there are, and nothing of what is in them.
//!
//! ```
//! use std::io::{Read, Write};
//! use strongroom::blocking::Repository;
//! use strongroom::{CreateOptions, Credentials, OpenOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let place = folder.path().join("my-repo").display().to_string();
//! // `place` is a URI or a path; creating takes a moment, because trying a password is made to cost.
//! let password = || Credentials::password("correct horse battery staple");
//! let repository = Repository::create(place.as_str(), CreateOptions::new(password()).kdf_millis(1))?;
//!
//! repository.fs().create_dir_all("/letters/2026")?;
//! let mut file = repository.fs().create_file("/letters/2026/to-anna.txt")?;
//! file.write_all(b"Dear Anna, ...")?;
//! file.close()?; // durable from here on, all of it or, after a crash before, nothing
//!
//! repository.kv().put(b"theme", b"dark")?;
//! repository.close()?;
//!
//! let repository = Repository::open(place.as_str(), OpenOptions::new(password()).read_only(true))?;
//! let mut letter = String::new();
//! repository.fs().open_file("/letters/2026/to-anna.txt")?.read_to_string(&mut letter)?;
//! assert_eq!(letter, "Dear Anna, ...");
//! # Ok(()) }
//! ```
//!
//! The API is async and asks for no runtime; [`blocking`] is the same for threads. The crates below are public too:
//! [`core`] is the engine and what a new storage implements, [`fs`] the file system.
//!
//! # Features
//!
//! `memory` (`mem:`) and `file` (`file:`), both on by default, are the storages that [`registry::default`] knows.
//! `faulty`, off by default, adds `faulty+…:`, any of them made to fail by a seed: for tests of applications.
//! `fast-aead`, off by default, seals AES-256-GCM by AWS-LC: several times as fast, and needs a C compiler to build.

/// The README's example, compiled and run with the other documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The guide's, likewise.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide.md")]
pub struct Guide;

/// The programs in `examples/`, likewise.
#[cfg(doctest)]
#[doc = concat!("```\n", include_str!("../examples/files.rs"), "\n```")]
#[doc = concat!("```\n", include_str!("../examples/kv.rs"), "\n```")]
#[doc = concat!("```\n", include_str!("../examples/transaction.rs"), "\n```")]
pub struct Examples;

pub mod blocking;
mod caching;
pub mod check;
mod clone;
mod copy;
mod destroy;
pub mod env;
mod keys;
pub mod kv;
mod layers;
mod options;
mod place;
pub mod registry;
mod repository;
mod sides;
mod sizes;
mod snapshots;
mod transaction;
pub mod trust;

pub use caching::{CACHE_BYTES_MAX_DEFAULT, CACHE_FOLDER_BYTES_MAX_DEFAULT};
pub use layers::TIMEOUT_DEFAULT;
pub use strongroom_core as core;
pub use strongroom_core::cache;
pub use strongroom_core::crypto::{KdfParameters, SecretBytes, Suite};
pub use strongroom_core::engine::keyring::{
    CREDENTIAL_BYTES_MAX, Credentials, KEY_FILE_BYTES_MIN, NewSlot, RecoveryKey, SlotInfo,
};
pub use strongroom_core::engine::{
    CompactOptions, CompactReport, DefragmentOptions, DefragmentState, DefragmentStatus, Destroyed, EngineInfo,
    HeaderImport, SnapshotInfo, TrustedState, Tuning,
};
pub use strongroom_core::format::slot::Factors;
pub use strongroom_core::layer;
pub use strongroom_core::storage;
pub use strongroom_fs as fs;
pub use strongroom_fs::{Compression, Error, Result, Tuning as FileTuning};

pub use clone::{CloneProgress, Cloned};
pub use copy::{Copied, CopyOptions};
pub use destroy::destroy;
pub use keys::import_header;
pub use options::{CloneOptions, CreateOptions, KDF_MILLIS_DEFAULT, OpenOptions, Place};
pub use repository::{ClearHeader, HeaderOptions, Repository, clear_header};
pub use sides::{Side, sides, strays};
pub use sizes::{Sizes, SizesAt};
pub use transaction::{Op, Transaction};
