use std::io::Read;

use futures_lite::future::block_on;
use strongroom_core::engine::{CommitInfo, References};
use strongroom_fs::{
    AttributeChange, Attributes, Comparand, ContentTag, DirEntry, Follow, Metadata, Op, Result, Settings, XattrMode,
};

use super::FsSnapshot;

/// Many operations, all or nothing; see [`strongroom_fs::FsTransaction`].
pub struct FsTransaction {
    inner: strongroom_fs::FsTransaction,
}

/// The files of a transaction that holds more than those: see [`super::RepositoryTransaction::fs`].
pub struct TransactionFiles<'t> {
    inner: &'t mut strongroom_fs::FsTransaction,
}

impl<'t> TransactionFiles<'t> {
    pub(super) fn new(inner: &'t mut strongroom_fs::FsTransaction) -> Self {
        Self { inner }
    }
}

/// Operations of both, which only wait for the one of the same name.
macro_rules! changes {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        impl FsTransaction {$(
            $(#[$doc])*
            ///
            /// # Errors
            #[doc = concat!("As [`strongroom_fs::FsTransaction::", stringify!($name), "`].")]
            pub fn $name(&mut self, $($argument: $kind),*) -> Result<$answer> {
                block_on(self.inner.$name($($argument),*))
            }
        )*}

        impl TransactionFiles<'_> {$(
            $(#[$doc])*
            ///
            /// # Errors
            #[doc = concat!("As [`strongroom_fs::FsTransaction::", stringify!($name), "`].")]
            pub fn $name(&mut self, $($argument: $kind),*) -> Result<$answer> {
                block_on(self.inner.$name($($argument),*))
            }
        )*}
    };
}

changes! {
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
    /// Writes at an offset of a file.
    write_at(path: impl AsRef<[u8]>, offset: u64, bytes: impl AsRef<[u8]>) -> ();
    /// Writes at the end of a file; answers where that was.
    append(path: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> u64;
    /// Sets a file's length.
    set_len(path: impl AsRef<[u8]>, size: u64) -> ();
    /// Makes a stretch of a file read as zeros that take no space.
    punch_hole(path: impl AsRef<[u8]>, offset: u64, length: u64) -> ();
    /// Makes a file of all that a reader gives; answers its length.
    create_file_from(path: impl AsRef<[u8]>, attributes: Attributes, reader: &mut impl Read) -> u64;
    /// Makes a directory.
    create_dir(path: impl AsRef<[u8]>) -> ();
    /// Makes a directory with attributes.
    create_dir_with(path: impl AsRef<[u8]>, attributes: Attributes) -> ();
    /// Makes a directory and those that lead to it, as far as they are missing.
    create_dir_all(path: impl AsRef<[u8]>) -> ();
    /// Makes a symbolic link.
    symlink(target: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> ();
    /// Makes a symbolic link with attributes.
    symlink_with(target: impl AsRef<[u8]>, link: impl AsRef<[u8]>, attributes: Attributes) -> ();
    /// Gives a file one more name.
    hard_link(existing: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> ();
    /// Removes the name of a file or symbolic link.
    remove_file(path: impl AsRef<[u8]>) -> ();
    /// Removes an empty directory.
    remove_dir(path: impl AsRef<[u8]>) -> ();
    /// Removes whatever is at a path and all that is in it.
    remove_all(path: impl AsRef<[u8]>) -> ();
    /// Gives something another name.
    rename(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> ();
    /// Gives something another name that nothing has yet.
    rename_new(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> ();
    /// Lets two names change places.
    exchange(one: impl AsRef<[u8]>, other: impl AsRef<[u8]>) -> ();
    /// Makes the content of a file that of another, sharing it; answers its length.
    copy(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> u64;
    /// Makes a stretch of a file a stretch of another, sharing it; answers how many bytes.
    copy_range(from: impl AsRef<[u8]>, from_offset: u64, to: impl AsRef<[u8]>, to_offset: u64, length: u64) -> u64;
    /// Copies whatever is at a path and all that is in it, sharing content.
    copy_all(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> ();
    /// Changes attributes; symbolic links are followed.
    set_attributes(path: impl AsRef<[u8]>, change: AttributeChange) -> ();
    /// Changes the attributes of a symbolic link itself where one is at the path.
    set_symlink_attributes(path: impl AsRef<[u8]>, change: AttributeChange) -> ();
    /// Makes the content of an older version that of the file, which is a new version.
    restore_version(path: impl AsRef<[u8]>, number: u64) -> ();
    /// Sets how many versions a file keeps beside the current one; `None` for what the repository says.
    set_version_limit(path: impl AsRef<[u8]>, limit: Option<u32>) -> ();
    /// Gives up the versions of a file that are over its limit.
    prune_versions(path: impl AsRef<[u8]>) -> ();
    /// Gives the content of a file a tag, or takes it away.
    set_content_tag(path: impl AsRef<[u8]>, tag: Option<ContentTag>) -> ();
    /// Sets what a file has of its own, of how it is kept.
    set_settings(path: impl AsRef<[u8]>, settings: Settings) -> ();
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
    /// Applies one change.
    apply(op: &Op) -> ();
    /// Applies changes in order, up to the first that is refused.
    apply_all(ops: &[Op]) -> ();
}

/// Methods of both.
macro_rules! on_both {
    ($($body:tt)*) => {
        impl FsTransaction {
            $($body)*
        }

        impl TransactionFiles<'_> {
            $($body)*
        }
    };
}

on_both! {
    /// Makes a file, or empties the one that is there, and answers a writer for its content, which must be finished.
    ///
    /// # Errors
    /// As [`strongroom_fs::FsTransaction::write_file`].
    pub fn write_file(&mut self, path: impl AsRef<[u8]>, attributes: Attributes) -> Result<FileWriter<'_>> {
        Ok(FileWriter { inner: block_on(self.inner.write_file(path, attributes))? })
    }

    /// Copies whatever is at a path in another state of the repository, and all that is in it, to a name that is free.
    ///
    /// # Errors
    /// As [`strongroom_fs::FsTransaction::copy_from`].
    pub fn copy_from(&mut self, state: &FsSnapshot, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        block_on(self.inner.copy_from(state.asynchronous(), from, to))
    }

    /// Puts what is at a path in another state of the repository, and all that is in it, in place of what is there now.
    ///
    /// # Errors
    /// As [`strongroom_fs::FsTransaction::restore_from`].
    pub fn restore_from(&mut self, state: &FsSnapshot, path: impl AsRef<[u8]>) -> Result<()> {
        block_on(self.inner.restore_from(state.asynchronous(), path))
    }

    /// Whether the content of a file is `size` bytes that are the same as those of elsewhere.
    ///
    /// # Errors
    /// As [`strongroom_fs::FsTransaction::has_content`].
    pub fn has_content(&self, path: impl AsRef<[u8]>, size: u64, other: &mut impl Comparand) -> Result<bool> {
        block_on(self.inner.has_content(path, size, other))
    }

    /// Makes all files, and the rows of other tables that `references` knows, what they are in another state; before anything
    /// else is done in the transaction. Answers how many rows differed. Of a repository as a whole
    /// [`super::Repository::restore_snapshot`] does it.
    ///
    /// # Errors
    /// As [`strongroom_fs::FsTransaction::restore`].
    pub fn restore(&mut self, state: &FsSnapshot, references: &dyn References) -> Result<u64> {
        block_on(self.inner.restore(state.asynchronous(), references))
    }

    /// Bytes of memory that the transaction holds until it is committed.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.inner.pending_bytes()
    }
}

impl FsTransaction {
    pub(super) fn new(inner: strongroom_fs::FsTransaction) -> Self {
        Self { inner }
    }

    /// Makes it durable, all or nothing.
    ///
    /// # Errors
    /// As [`strongroom_fs::FsTransaction::commit`].
    pub fn commit(self) -> Result<CommitInfo> {
        block_on(self.inner.commit())
    }
}

/// Writes the content of a file from its start, in order, inside a transaction; see [`strongroom_fs::FileWriter`].
pub struct FileWriter<'t> {
    inner: strongroom_fs::FileWriter<'t>,
}

impl FileWriter<'_> {
    /// The file's inode.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inner.inode()
    }

    /// Appends all bytes.
    ///
    /// # Errors
    /// As [`strongroom_fs::FileWriter::write`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        block_on(self.inner.write(bytes))
    }

    /// Appends all that a reader gives; answers how much that was.
    ///
    /// # Errors
    /// As [`strongroom_fs::FileWriter::write_from`].
    pub fn write_from(&mut self, reader: &mut impl Read) -> Result<u64> {
        block_on(self.inner.write_from(reader))
    }

    /// Appends zeros that take no space.
    ///
    /// # Errors
    /// As [`strongroom_fs::FileWriter::hole`].
    pub fn hole(&mut self, length: u64) -> Result<()> {
        block_on(self.inner.hole(length))
    }

    /// The file is complete. Answers its length.
    ///
    /// # Errors
    /// As [`strongroom_fs::FileWriter::finish`].
    pub fn finish(self) -> Result<u64> {
        block_on(self.inner.finish())
    }
}
