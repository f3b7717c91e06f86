use std::collections::HashSet;
use std::ops::Range;

use futures_lite::future::block_on;
use strongroom_core::engine::ChunkNumber;
use strongroom_fs::{
    CheckOptions, CheckSummary, ContentBytes, DirCursor, DirEntry, Finding, Follow, Metadata, PathChange, Result,
    Settings, Usage, Version,
};

use super::File;

/// The files as they were at one moment, for reading; see [`strongroom_fs::FsSnapshot`].
#[derive(Clone)]
pub struct FsSnapshot {
    inner: strongroom_fs::FsSnapshot,
}

impl FsSnapshot {
    pub(super) fn new(inner: strongroom_fs::FsSnapshot) -> Self {
        Self { inner }
    }

    /// The async handle on the same state.
    #[must_use]
    pub fn asynchronous(&self) -> &strongroom_fs::FsSnapshot {
        &self.inner
    }

    /// The number of the commit whose state this is.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.inner.sequence()
    }

    /// Opens a file for reading, as it was.
    ///
    /// # Errors
    /// As [`strongroom_fs::FsSnapshot::open_file`].
    pub fn open_file(&self, path: impl AsRef<[u8]>) -> Result<File> {
        Ok(File::new(block_on(self.inner.open_file(path))?))
    }

    /// Opens a version of a file for reading.
    ///
    /// # Errors
    /// As [`strongroom_fs::FsSnapshot::open_version`].
    pub fn open_version(&self, path: impl AsRef<[u8]>, number: u64) -> Result<File> {
        Ok(File::new(block_on(self.inner.open_version(path, number))?))
    }

    /// The names in a directory, one by one in the order of their bytes.
    ///
    /// # Errors
    /// As [`strongroom_fs::FsSnapshot::open_dir`].
    pub fn open_dir(&self, path: impl AsRef<[u8]>) -> Result<ReadDir> {
        Ok(ReadDir::new(block_on(self.inner.open_dir(path))?))
    }

    /// As [`Self::open_dir`], the names after a cursor.
    ///
    /// # Errors
    /// As [`strongroom_fs::FsSnapshot::open_dir_at`].
    pub fn open_dir_at(&self, path: impl AsRef<[u8]>, cursor: &DirCursor) -> Result<ReadDir> {
        Ok(ReadDir::new(block_on(self.inner.open_dir_at(path, cursor))?))
    }

    /// What became of files and directories from another state of the same repository to this one.
    ///
    /// # Errors
    /// As [`strongroom_fs::FsSnapshot::changes_since`].
    pub fn changes_since(&self, before: &Self) -> Result<Vec<PathChange>> {
        block_on(self.inner.changes_since(&before.inner))
    }

    waits! { "FsSnapshot";
        /// Whether the content of a file is in any of these chunks.
        refers_to(inode: u64, chunks: &HashSet<ChunkNumber>) -> bool;
        /// What was at a path; symbolic links are followed.
        metadata(path: impl AsRef<[u8]>) -> Metadata;
        /// What was at a path, a symbolic link at its end not followed.
        symlink_metadata(path: impl AsRef<[u8]>) -> Metadata;
        /// What an inode was.
        inode_metadata(inode: u64) -> Metadata;
        /// Whether something was at a path.
        exists(path: impl AsRef<[u8]>) -> bool;
        /// All names in a directory, in the order of their bytes.
        read_dir(path: impl AsRef<[u8]>) -> Vec<DirEntry>;
        /// Where a symbolic link led.
        read_link(path: impl AsRef<[u8]>) -> Vec<u8>;
        /// The whole content of a file.
        read(path: impl AsRef<[u8]>) -> Vec<u8>;
        /// Counts what lay at a path and below it.
        usage(path: impl AsRef<[u8]>) -> Usage;
        /// Counts the content of all files.
        content_bytes() -> ContentBytes;
        /// What a file had of its own, of how it is kept.
        settings(path: impl AsRef<[u8]>) -> Settings;
        /// The value of an extended attribute.
        xattr(path: impl AsRef<[u8]>, name: impl AsRef<[u8]>, follow: Follow) -> Option<Vec<u8>>;
        /// The names of all extended attributes.
        xattrs(path: impl AsRef<[u8]>, follow: Follow) -> Vec<Vec<u8>>;
        /// The versions of a file, the oldest first, the one that was current last.
        history(path: impl AsRef<[u8]>) -> Vec<Version>;
        /// How many versions a file kept beside the current one, where it had a limit of its own.
        version_limit(path: impl AsRef<[u8]>) -> Option<u32>;
        /// The whole content of a version.
        read_version(path: impl AsRef<[u8]>, number: u64) -> Vec<u8>;
        /// Where two versions of a file differ.
        diff_versions(path: impl AsRef<[u8]>, from: u64, to: u64) -> Vec<Range<u64>>;
        /// Checks this state.
        check(options: CheckOptions, report: impl FnMut(Finding) + Send) -> CheckSummary;
    }
}

/// The names of a directory as it was at one moment; see [`strongroom_fs::ReadDir`].
pub struct ReadDir {
    inner: strongroom_fs::ReadDir,
}

impl ReadDir {
    pub(super) fn new(inner: strongroom_fs::ReadDir) -> Self {
        Self { inner }
    }
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        block_on(self.inner.next()).transpose()
    }
}
