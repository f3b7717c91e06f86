//! The same API for threads: every call waits until it is done.
//!
//! Storage is called in the thread that asks, without a hop to another; sealing, hashing and compressing still use all
//! cores. Call it from ordinary threads: inside an async executor it would block one of its threads.

/// Calls that only wait for the one of the same name, of the type that is named.
macro_rules! waits {
    ($of:literal; $($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        #[doc = concat!("As [`strongroom_fs::", $of, "::", stringify!($name), "`].")]
        pub fn $name(&self, $($argument: $kind),*) -> Result<$answer> {
            block_on(self.inner.$name($($argument),*))
        }
    )*};
}

mod file;
mod fs;
mod fs_snapshot;
mod fs_transaction;
mod kv;
mod transaction;

pub use futures_lite::future::block_on;

use strongroom_core::engine::keyring::{Header, NewSlot, SlotInfo};
use strongroom_core::engine::{
    CompactOptions, CompactReport, DefragmentStatus, Destroyed, EngineInfo, HeaderImport, SnapshotInfo,
};
use strongroom_core::storage::{BlockingMode, StorageUri};
use strongroom_fs::{Result, Timestamp};

use crate::check::{CheckOptions, CheckReport, Finding};
use crate::clone::Cloned;
use crate::copy::{Copied, CopyOptions};
use crate::options::{CloneOptions, CreateOptions, OpenOptions, Place};
use crate::repository::{ClearHeader, HeaderOptions};
use crate::sizes::{Sizes, SizesAt};

pub use file::File;
pub use fs::{DirStream, FileSystem};
pub use fs_snapshot::{FsSnapshot, ReadDir};
pub use fs_transaction::{FileWriter, FsTransaction, TransactionFiles};
pub use kv::{Kv, KvSnapshot, Scan, Transaction as KvTransaction, TransactionKeys};
pub use transaction::RepositoryTransaction;

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

    /// Keys and values of the application's own; see [`crate::Repository::table`].
    ///
    /// # Errors
    /// As there.
    pub fn table(&self, number: u8) -> Result<Kv> {
        Ok(Kv::new(self.inner.table(number)?))
    }

    /// The async handle on the same repository. Its storage is called in the thread that awaits.
    #[must_use]
    pub fn asynchronous(&self) -> &crate::Repository {
        &self.inner
    }

    /// Where it is, when it was opened by a URI.
    #[must_use]
    pub fn uri(&self) -> Option<&StorageUri> {
        self.inner.uri()
    }

    /// Whether this device remembers what it sees here; see [`crate::Repository::remembers`].
    #[must_use]
    pub fn remembers(&self) -> bool {
        self.inner.remembers()
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

    /// Counts bytes, from what applications see to what the storage holds; see [`crate::Repository::sizes`].
    ///
    /// # Errors
    /// As there.
    pub fn sizes(&self) -> Result<Sizes> {
        block_on(self.inner.sizes())
    }

    /// Counts what a snapshot keeps; see [`crate::Repository::sizes_at`].
    ///
    /// # Errors
    /// As there.
    pub fn sizes_at(&self, name: &str) -> Result<SizesAt> {
        block_on(self.inner.sizes_at(name))
    }

    /// Checks it; see [`crate::Repository::check`].
    ///
    /// # Errors
    /// As there.
    pub fn check(&self, options: CheckOptions, report: impl FnMut(Finding) + Send) -> Result<CheckReport> {
        block_on(self.inner.check(options, report))
    }

    /// Checks what a snapshot keeps; see [`crate::Repository::check_at`].
    ///
    /// # Errors
    /// As there.
    pub fn check_at(
        &self,
        name: &str,
        options: CheckOptions,
        report: impl FnMut(Finding) + Send,
    ) -> Result<CheckReport> {
        block_on(self.inner.check_at(name, options, report))
    }

    /// Checks it, and opens a sample of the blobs; see [`crate::Repository::check_sample`].
    ///
    /// # Errors
    /// As there.
    pub fn check_sample(
        &self,
        at: Option<&str>,
        percent: u8,
        report: impl FnMut(Finding) + Send,
    ) -> Result<CheckReport> {
        block_on(self.inner.check_sample(at, percent, report))
    }

    /// Sees to it that damage does not spread, and that what is stored again heals it; then checks it: see
    /// [`crate::Repository::repair`].
    ///
    /// # Errors
    /// As there.
    pub fn repair(&self, options: CheckOptions, report: impl FnMut(Finding) + Send) -> Result<CheckReport> {
        block_on(self.inner.repair(options, report))
    }

    /// Gives back the space of what nothing needs any more; see [`crate::Repository::compact`].
    ///
    /// # Errors
    /// As there.
    pub fn compact(&self, options: CompactOptions<'_>) -> Result<CompactReport> {
        block_on(self.inner.compact(options))
    }

    /// Forgets what is kept in memory for no other reason than to be fast; see [`crate::Repository::drop_caches`].
    pub fn drop_caches(&self) {
        self.inner.drop_caches();
    }

    /// How the defragmentation in the background stands; see [`crate::Repository::defragment_status`].
    #[must_use]
    pub fn defragment_status(&self) -> Option<DefragmentStatus> {
        self.inner.defragment_status()
    }

    /// Makes the defragmentation in the background wait; see [`crate::Repository::pause_defragmenting`].
    pub fn pause_defragmenting(&self) {
        self.inner.pause_defragmenting();
    }

    /// Lets the defragmentation in the background go on.
    pub fn resume_defragmenting(&self) {
        self.inner.resume_defragmenting();
    }

    /// Creates a repository that has all that this one has; see [`crate::Repository::copy`].
    ///
    /// # Errors
    /// As there.
    pub fn copy(
        &self,
        place: impl Into<Place>,
        create: CreateOptions,
        options: CopyOptions<'_>,
    ) -> Result<(Self, Copied)> {
        let create = create.storage_calls(BlockingMode::Inline);
        let (inner, copied) = block_on(self.inner.copy(place, create, options))?;
        Ok((Self { inner }, copied))
    }

    /// Makes another place hold this repository as it is now; see [`crate::Repository::clone_to`].
    ///
    /// # Errors
    /// As there.
    pub fn clone_to(&self, place: impl Into<Place>, options: CloneOptions<'_>) -> Result<Cloned> {
        block_on(self.inner.clone_to(place, options.storage_calls(BlockingMode::Inline)))
    }

    /// Keeps files and keys as they are now under a name; see [`crate::Repository::create_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn create_snapshot(&self, name: &str) -> Result<SnapshotInfo> {
        block_on(self.inner.create_snapshot(name))
    }

    /// The snapshots that are kept, the oldest first.
    ///
    /// # Errors
    /// As [`crate::Repository::snapshots`].
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        block_on(self.inner.snapshots())
    }

    /// The newest snapshot that was taken at a moment or before it; `None` where none is as old.
    ///
    /// # Errors
    /// As [`crate::Repository::snapshot_at_time`].
    pub fn snapshot_at_time(&self, moment: Timestamp) -> Result<Option<SnapshotInfo>> {
        block_on(self.inner.snapshot_at_time(moment))
    }

    /// The files as a snapshot keeps them.
    ///
    /// # Errors
    /// As [`crate::Repository::files_at`].
    pub fn files_at(&self, name: &str) -> Result<FsSnapshot> {
        Ok(FsSnapshot::new(block_on(self.inner.files_at(name))?))
    }

    /// The files as they were at a moment; see [`crate::Repository::files_at_time`].
    ///
    /// # Errors
    /// As there.
    pub fn files_at_time(&self, moment: Timestamp) -> Result<Option<FsSnapshot>> {
        Ok(block_on(self.inner.files_at_time(moment))?.map(FsSnapshot::new))
    }

    /// The keys and values as a snapshot keeps them.
    ///
    /// # Errors
    /// As [`crate::Repository::keys_at`].
    pub fn keys_at(&self, name: &str) -> Result<KvSnapshot> {
        Ok(KvSnapshot::new(block_on(self.inner.keys_at(name))?))
    }

    /// The keys and values of a table as a snapshot keeps them; see [`crate::Repository::table_at`].
    ///
    /// # Errors
    /// As there.
    pub fn table_at(&self, name: &str, number: u8) -> Result<KvSnapshot> {
        Ok(KvSnapshot::new(block_on(self.inner.table_at(name, number))?))
    }

    /// Removes a snapshot; see [`crate::Repository::remove_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn remove_snapshot(&self, name: &str) -> Result<()> {
        block_on(self.inner.remove_snapshot(name))
    }

    /// Makes all files and keys what they are in a snapshot; see [`crate::Repository::restore_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn restore_snapshot(&self, name: &str) -> Result<u64> {
        block_on(self.inner.restore_snapshot(name))
    }

    /// The slots in use, as storage has them now.
    ///
    /// # Errors
    /// As [`crate::Repository::slots`].
    pub fn slots(&self) -> Result<Vec<SlotInfo>> {
        block_on(self.inner.slots())
    }

    /// The slot that this repository was opened with; see [`crate::Repository::slot_in_use`].
    ///
    /// # Errors
    /// As there.
    pub fn slot_in_use(&self) -> Result<Option<SlotInfo>> {
        block_on(self.inner.slot_in_use())
    }

    /// Gives other credentials a way in; see [`crate::Repository::add_slot`].
    ///
    /// # Errors
    /// As there.
    pub fn add_slot(&self, new: &NewSlot<'_>) -> Result<Vec<SlotInfo>> {
        block_on(self.inner.add_slot(new))
    }

    /// Gives a slot other credentials; see [`crate::Repository::replace_slot`].
    ///
    /// # Errors
    /// As there.
    pub fn replace_slot(&self, old: &SlotInfo, new: &NewSlot<'_>) -> Result<Vec<SlotInfo>> {
        block_on(self.inner.replace_slot(old, new))
    }

    /// Takes a slot away; see [`crate::Repository::remove_slot`].
    ///
    /// # Errors
    /// As there.
    pub fn remove_slot(&self, old: &SlotInfo) -> Result<Vec<SlotInfo>> {
        block_on(self.inner.remove_slot(old))
    }

    /// The header in force, to be kept elsewhere; see [`crate::Repository::export_header`].
    ///
    /// # Errors
    /// As there.
    pub fn export_header(&self) -> Result<Header> {
        block_on(self.inner.export_header())
    }

    /// Ends what this process has begun, and leaves the repository tidy.
    ///
    /// # Errors
    /// As [`crate::Repository::close`].
    pub fn close(&self) -> Result<()> {
        block_on(self.inner.close())
    }
}

/// Puts copies of the header in force again from one that was kept elsewhere; see [`crate::import_header`].
///
/// # Errors
/// As there.
pub fn import_header(place: impl Into<Place>, content: &[u8], options: OpenOptions) -> Result<HeaderImport> {
    block_on(crate::import_header(place, content, options.storage_calls(BlockingMode::Inline)))
}

/// Deletes every blob of a repository, and nothing else; see [`crate::destroy`].
///
/// # Errors
/// As there.
pub fn destroy(place: impl Into<Place>, options: OpenOptions) -> Result<Destroyed> {
    block_on(crate::destroy(place, options.storage_calls(BlockingMode::Inline)))
}

/// Reads the clear header of a repository; see [`crate::clear_header`].
///
/// # Errors
/// As there.
pub fn clear_header(place: impl Into<Place>, options: &HeaderOptions) -> Result<ClearHeader> {
    let options = HeaderOptions { storage_calls: BlockingMode::Inline, ..options.clone() };
    block_on(crate::clear_header(place, &options))
}
