use std::collections::HashSet;
use std::ops::Range;

use futures_lite::future::block_on;
use strongroom_core::engine::{ChunkNumber, CommitInfo, ConflictTest, Snapshot};
use strongroom_fs::{
    AttributeChange, CheckOptions, CheckSummary, Comparand, ContentBytes, DirCursor, DirEntry, Finding, Follow,
    Metadata, Op, OpenOptions, Options, Result, Settings, Statfs, Summary, Timestamp, Usage, Version, XattrMode,
};

use super::{File, FsSnapshot, FsTransaction, ReadDir};

/// The files of a repository; see [`strongroom_fs::FileSystem`].
#[derive(Clone, Debug)]
pub struct FileSystem {
    inner: strongroom_fs::FileSystem,
}

impl FileSystem {
    pub(super) fn new(inner: strongroom_fs::FileSystem) -> Self {
        Self { inner }
    }

    /// As [`strongroom_fs::FileSystem::gathered_bytes`].
    #[doc(hidden)]
    #[must_use]
    pub fn gathered_bytes(&self) -> usize {
        self.inner.gathered_bytes()
    }

    /// Forgets what is kept in memory for no other reason than to be fast; see
    /// [`strongroom_fs::FileSystem::drop_caches`].
    pub fn drop_caches(&self) {
        self.inner.drop_caches();
    }

    /// What was chosen at creation.
    #[must_use]
    pub fn options(&self) -> Options {
        self.inner.options()
    }

    /// The async handle on the same files.
    #[must_use]
    pub fn asynchronous(&self) -> &strongroom_fs::FileSystem {
        &self.inner
    }

    /// The newest state that this process knows, kept as it is for as long as the snapshot is held.
    #[must_use]
    pub fn snapshot(&self) -> FsSnapshot {
        FsSnapshot::new(self.inner.snapshot())
    }

    /// The state of an engine snapshot.
    #[must_use]
    pub fn at(&self, snapshot: Snapshot) -> FsSnapshot {
        FsSnapshot::new(self.inner.at(snapshot))
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As [`strongroom_fs::FileSystem::open_file`].
    pub fn open_file(&self, path: impl AsRef<[u8]>) -> Result<File> {
        self.open_file_with(path, OpenOptions::new())
    }

    /// Makes a file, or empties the one that is there, and opens it for writing.
    ///
    /// # Errors
    /// As [`strongroom_fs::FileSystem::open_file`].
    pub fn create_file(&self, path: impl AsRef<[u8]>) -> Result<File> {
        self.open_file_with(path, OpenOptions::new().read(false).write(true).create(true).truncate(true))
    }

    /// Opens a file as the options say.
    ///
    /// # Errors
    /// As [`strongroom_fs::FileSystem::open_file`].
    pub fn open_file_with(&self, path: impl AsRef<[u8]>, options: OpenOptions) -> Result<File> {
        Ok(File::new(block_on(self.inner.open_file(path, options))?))
    }

    /// Opens a version of a file for reading.
    ///
    /// # Errors
    /// As [`strongroom_fs::FileSystem::open_version`].
    pub fn open_version(&self, path: impl AsRef<[u8]>, number: u64) -> Result<File> {
        Ok(File::new(block_on(self.inner.open_version(path, number))?))
    }

    waits! { "FileSystem";
        /// What is at a path; symbolic links are followed.
        metadata(path: impl AsRef<[u8]>) -> Metadata;
        /// What is at a path, a symbolic link at its end not followed.
        symlink_metadata(path: impl AsRef<[u8]>) -> Metadata;
        /// Whether something is at a path.
        exists(path: impl AsRef<[u8]>) -> bool;
        /// All names in a directory, in the order of their bytes.
        read_dir(path: impl AsRef<[u8]>) -> Vec<DirEntry>;
        /// Where a symbolic link leads.
        read_link(path: impl AsRef<[u8]>) -> Vec<u8>;
        /// The whole content of a file.
        read(path: impl AsRef<[u8]>) -> Vec<u8>;
        /// Makes `content` the whole content of a file, which is made where it is missing.
        write(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> ();
        /// Makes a directory.
        create_dir(path: impl AsRef<[u8]>) -> ();
        /// Makes a directory and those that lead to it, as far as they are missing.
        create_dir_all(path: impl AsRef<[u8]>) -> ();
        /// Makes a symbolic link.
        symlink(target: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> ();
        /// Gives a file one more name.
        hard_link(existing: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> ();
        /// Removes the name of a file or symbolic link.
        remove_file(path: impl AsRef<[u8]>) -> ();
        /// Removes an empty directory.
        remove_dir(path: impl AsRef<[u8]>) -> ();
        /// Removes whatever is at a path and all that is in it.
        remove_all(path: impl AsRef<[u8]>) -> ();
        /// Gives something another name, in place of what has that name, at one stroke.
        rename(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> ();
        /// Gives something another name that nothing has yet.
        rename_new(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> ();
        /// Lets two names change places at one stroke.
        exchange(one: impl AsRef<[u8]>, other: impl AsRef<[u8]>) -> ();
        /// Makes the content of a file that of another, sharing it; answers its length.
        copy(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> u64;
        /// Makes a stretch of a file a stretch of another, sharing it; answers how many bytes.
        copy_range(
            from: impl AsRef<[u8]>, from_offset: u64, to: impl AsRef<[u8]>, to_offset: u64, length: u64
        ) -> u64;
        /// Copies whatever is at a path and all that is in it, sharing content.
        copy_all(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> ();
        /// Stores what the damaged chunks of a file's content held once more, where elsewhere has it; answers whether none is
        /// left.
        mend(path: impl AsRef<[u8]>, damaged: &HashSet<ChunkNumber>, other: &mut impl Comparand) -> bool;
        /// Makes a stretch of a file read as zeros that take no space.
        punch_hole(path: impl AsRef<[u8]>, offset: u64, length: u64) -> ();
        /// Applies changes in order as one transaction and one commit.
        apply(ops: &[Op]) -> CommitInfo;
        /// The value of an extended attribute.
        xattr(path: impl AsRef<[u8]>, name: impl AsRef<[u8]>, follow: Follow) -> Option<Vec<u8>>;
        /// The names of all extended attributes.
        xattrs(path: impl AsRef<[u8]>, follow: Follow) -> Vec<Vec<u8>>;
        /// Sets an extended attribute.
        set_xattr(
            path: impl AsRef<[u8]>, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>, mode: XattrMode, follow: Follow
        ) -> ();
        /// Removes an extended attribute.
        remove_xattr(path: impl AsRef<[u8]>, name: impl AsRef<[u8]>, follow: Follow) -> ();
        /// What a file has of its own, of how it is kept.
        settings(path: impl AsRef<[u8]>) -> Settings;
        /// Sets what a file has of its own, of how it is kept.
        set_settings(path: impl AsRef<[u8]>, settings: Settings) -> ();
        /// Counts what lies at a path and below it.
        usage(path: impl AsRef<[u8]>) -> Usage;
        /// Counts the content of all files.
        content_bytes() -> ContentBytes;
        /// How full the storage is.
        statfs() -> Statfs;
        /// What the file system holds, and what its repository takes.
        summary() -> Summary;
        /// Changes attributes; symbolic links are followed.
        set_attributes(path: impl AsRef<[u8]>, change: AttributeChange) -> ();
        /// Sets the permission bits.
        set_mode(path: impl AsRef<[u8]>, mode: u32) -> ();
        /// Sets the owner and group.
        set_owner(path: impl AsRef<[u8]>, uid: u32, gid: u32) -> ();
        /// Sets the times of access and modification, where given.
        set_times(path: impl AsRef<[u8]>, atime: Option<Timestamp>, mtime: Option<Timestamp>) -> ();
        /// Changes the attributes of a symbolic link itself where one is at the path.
        set_symlink_attributes(path: impl AsRef<[u8]>, change: AttributeChange) -> ();
        /// Sets a file's length.
        set_len(path: impl AsRef<[u8]>, size: u64) -> ();
        /// The versions of a file, the oldest first, the current one last.
        history(path: impl AsRef<[u8]>) -> Vec<Version>;
        /// The whole content of a version.
        read_version(path: impl AsRef<[u8]>, number: u64) -> Vec<u8>;
        /// Where two versions of a file differ.
        diff_versions(path: impl AsRef<[u8]>, from: u64, to: u64) -> Vec<Range<u64>>;
        /// Makes the content of an older version that of the file, which is a new version.
        restore_version(path: impl AsRef<[u8]>, number: u64) -> ();
        /// How many versions a file keeps beside the current one, where it has a limit of its own.
        version_limit(path: impl AsRef<[u8]>) -> Option<u32>;
        /// Sets how many versions a file keeps beside the current one; `None` for what the repository says.
        set_version_limit(path: impl AsRef<[u8]>, limit: Option<u32>) -> ();
        /// Gives up the versions of a file that are over its limit.
        prune_versions(path: impl AsRef<[u8]>) -> ();
        /// Deletes files that were removed while open, by processes that have ended since; answers how many there were.
        reclaim_orphans() -> u64;
        /// Checks the newest state; [`super::Repository::check`] looks below it, too.
        check(options: CheckOptions, report: impl FnMut(Finding) + Send) -> CheckSummary;
    }

    /// Puts what is at a path in another state of the repository, and all that is in it, in place of what is there now.
    ///
    /// # Errors
    /// As [`strongroom_fs::FileSystem::restore_from`].
    pub fn restore_from(&self, state: &FsSnapshot, path: impl AsRef<[u8]>) -> Result<()> {
        block_on(self.inner.restore_from(state.asynchronous(), path))
    }

    /// The names in a directory as it is now, one by one.
    ///
    /// # Errors
    /// As [`strongroom_fs::FileSystem::open_dir`].
    pub fn open_dir(&self, path: impl AsRef<[u8]>) -> Result<ReadDir> {
        Ok(ReadDir::new(block_on(self.inner.open_dir(path))?))
    }

    /// Opens a directory to be read while it changes.
    ///
    /// # Errors
    /// As [`strongroom_fs::FileSystem::stream_dir`].
    pub fn stream_dir(&self, path: impl AsRef<[u8]>) -> Result<DirStream> {
        Ok(DirStream { inner: block_on(self.inner.stream_dir(path))? })
    }

    /// Begins a transaction over many files; dropping it aborts it.
    #[must_use]
    pub fn begin(&self) -> FsTransaction {
        FsTransaction::new(self.inner.begin())
    }

    /// Runs the closure in a transaction and commits it, all or nothing; again where another transaction was faster.
    ///
    /// # Errors
    /// What the closure answers, then nothing was changed; those of the commit.
    pub fn transact<T, E: From<strongroom_fs::Error> + ConflictTest>(
        &self,
        mut closure: impl FnMut(&mut FsTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempts_left = crate::kv::ATTEMPTS_MAX;
        loop {
            attempts_left -= 1;
            let mut transaction = self.begin();
            let result = match closure(&mut transaction) {
                Ok(answer) => transaction.commit().map(|_| answer).map_err(E::from),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_conflict() && attempts_left > 0 => {
                    block_on(self.inner.engine().refresh()).map_err(strongroom_fs::Error::from)?;
                }
                result => return result,
            }
        }
    }
}

/// The names of a directory, read while it changes; see [`strongroom_fs::DirStream`].
pub struct DirStream {
    inner: strongroom_fs::DirStream,
}

impl DirStream {
    /// Where the stream is: after the name that came last.
    #[must_use]
    pub fn cursor(&self) -> &DirCursor {
        self.inner.cursor()
    }

    /// Goes on from a cursor.
    pub fn seek(&mut self, cursor: DirCursor) {
        self.inner.seek(cursor);
    }
}

impl Iterator for DirStream {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        block_on(self.inner.next()).transpose()
    }
}
