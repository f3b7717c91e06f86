//! The same API for threads: every call waits until it is done.
//!
//! Storage is called in the thread that asks, without a hop to another; sealing, hashing and compressing still use all
//! cores. Call it from ordinary threads: inside an async executor it would block one of its threads.

mod file;
mod fs;
mod kv;

pub use futures_lite::future::block_on;

use strongroom_core::engine::EngineInfo;
use strongroom_core::storage::BlockingMode;
use strongroom_fs::Result;

use crate::check::{CheckOptions, CheckReport, Finding};
use crate::options::{CreateOptions, OpenOptions, Place};

pub use file::File;
pub use fs::{FileSystem, Transaction as FsTransaction};
pub use kv::{Kv, Scan, Transaction as KvTransaction};

/// An open repository; cheap to clone, usable from many threads. See [`crate::Repository`].
#[derive(Clone, Debug)]
pub struct Repository {
    inner: crate::Repository,
}

impl Repository {
    /// Creates a repository.
    ///
    /// # Errors
    /// As [`crate::Repository::create`].
    pub fn create(place: impl Into<Place>, options: CreateOptions) -> Result<Self> {
        let options = options.storage_calls(BlockingMode::Inline);
        Ok(Self { inner: block_on(crate::Repository::create(place, options))? })
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// As [`crate::Repository::open`].
    pub fn open(place: impl Into<Place>, options: OpenOptions) -> Result<Self> {
        let options = options.storage_calls(BlockingMode::Inline);
        Ok(Self { inner: block_on(crate::Repository::open(place, options))? })
    }

    /// Its files.
    #[must_use]
    pub fn fs(&self) -> FileSystem {
        FileSystem::new(self.inner.fs().clone())
    }

    /// Its keys and values.
    #[must_use]
    pub fn kv(&self) -> Kv {
        Kv::new(self.inner.kv())
    }

    /// The async handle on the same repository. Its storage is called in the thread that awaits.
    #[must_use]
    pub fn asynchronous(&self) -> &crate::Repository {
        &self.inner
    }

    /// Learns what other processes have committed since.
    ///
    /// # Errors
    /// As [`crate::Repository::refresh`].
    pub fn refresh(&self) -> Result<()> {
        block_on(self.inner.refresh())
    }

    /// What it is and holds.
    ///
    /// # Errors
    /// As [`crate::Repository::info`].
    pub fn info(&self) -> Result<EngineInfo> {
        block_on(self.inner.info())
    }

    /// Checks it; see [`crate::Repository::check`].
    ///
    /// # Errors
    /// As there.
    pub fn check(&self, options: CheckOptions, report: impl FnMut(Finding) + Send) -> Result<CheckReport> {
        block_on(self.inner.check(options, report))
    }

    /// Ends what this process has begun, and leaves the repository tidy.
    ///
    /// # Errors
    /// As [`crate::Repository::close`].
    pub fn close(&self) -> Result<()> {
        block_on(self.inner.close())
    }
}
