//! The file system's operations: each one a transaction of its own, run again where another was faster.

mod apply;
mod attributes;
mod compare;
mod content_tag;
mod copy;
mod create;
mod diff;
mod directory;
mod mend;
mod orphans;
mod remains;
mod remove;
mod rename;
mod restore;
mod settings;
mod snapshot;
mod statfs;
mod stream;
mod transaction;
mod usage;
mod versions;
mod xattr;

use std::sync::Arc;

use strongroom_core as core;
use strongroom_core::engine::{ConflictTest, Engine, Transaction, View};

use crate::error::{Error, Result, damaged};
use crate::file::File;
use crate::format::{INODE, Kind, OPTIONS, OPTIONS_KEY, OptionsRow, ROOT, inode_key};
use crate::inodes::Metadata;
use crate::options::{OpenOptions, Options, Tuning};
use crate::shared::Shared;

pub use apply::Op;
pub use attributes::{AttributeChange, Attributes};
pub use compare::Comparand;
pub use create::FileWriter;
pub use diff::{Fate, PathChange};
pub(crate) use directory::entries;
pub use directory::{DirEntry, ReadDir};
pub(crate) use remains::rows_of;
pub use settings::Settings;
pub use snapshot::FsSnapshot;
pub use statfs::Statfs;
pub use stream::{DirCursor, DirStream};
pub use transaction::FsTransaction;
pub(crate) use transaction::put_row;
pub use usage::{ContentBytes, Summary, Usage};
pub use xattr::{Follow, XattrMode};

/// How often an operation is run again because another transaction was faster.
const ATTEMPTS_MAX: usize = 64;
/// How many names one transaction of [`FileSystem::remove_all`] removes.
const REMOVED_AT_ONCE_MAX: usize = 10_000;
/// How much one transaction of many that remove or copy a tree may hold in rows before it is committed. In memory it is some
/// times that, by what a commit makes of it.
const PENDING_AT_ONCE_BYTES_MAX: u64 = 2 << 20;

/// A file system in an open repository. Cheap to clone, usable from many tasks at once.
#[derive(Clone)]
pub struct FileSystem {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for FileSystem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FileSystem").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// One operation as one transaction, run again on a conflict. A macro, so that futures stay `Send` where theirs are.
macro_rules! transact {
    ($self:expr, $transaction:ident => $operation:expr) => {{
        let mut attempt = 0;
        loop {
            let mut $transaction = $self.begin();
            let result = match $operation {
                Ok(value) => $transaction.commit().await.map(|_| value),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_conflict() && attempt < $crate::filesystem::ATTEMPTS_MAX => {
                    attempt += 1;
                    $self.shared.engine.refresh().await?;
                }
                result => break result,
            }
        }
    }};
}
use transact;

impl FileSystem {
    /// Puts an empty file system into a repository.
    ///
    /// # Errors
    /// [`core::Error::AlreadyExists`] where there is one.
    pub async fn create(engine: Engine, options: Options) -> Result<Self> {
        let mut transaction = engine.begin();
        Self::fill(&engine, &mut transaction, options).await?;
        transaction.commit().await?;
        Self::open(engine).await
    }

    /// Puts an empty file system into a transaction: with [`Engine::create_with`], into the first commit of a repository.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn fill(engine: &Engine, transaction: &mut Transaction, options: Options) -> Result<()> {
        options.check()?;
        let row = options.row(engine);
        if !row.sizes.valid() {
            return Err(core::Error::Invalid("block size too small for a file system".into()).into());
        }
        if transaction.get(OPTIONS, OPTIONS_KEY).await?.is_some() {
            return Err(core::Error::AlreadyExists.into());
        }
        transaction.put(OPTIONS, OPTIONS_KEY, &row.encode())?;
        let moment = Shared::new(engine.clone(), row, Tuning::default()).moment();
        let root = Attributes::directory().row(Kind::Directory, moment, None);
        Ok(transaction.put(INODE, &inode_key(ROOT), &root.encode())?)
    }

    /// Opens the file system of a repository.
    ///
    /// # Errors
    /// [`Error::NoFileSystem`] where there is none.
    pub async fn open(engine: Engine) -> Result<Self> {
        Self::open_with(engine, Tuning::default()).await
    }

    /// As [`Self::open`], with bounds on memory.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(engine: Engine, tuning: Tuning) -> Result<Self> {
        let row = engine.snapshot().get(OPTIONS, OPTIONS_KEY).await?.ok_or(Error::NoFileSystem)?;
        let options = OptionsRow::decode(&row)?;
        if options.sizes.max_bytes as usize + crate::codec::FRAMING_BYTES as usize > engine.chunk_bytes_max() {
            return Err(damaged("file system options", "chunks larger than the engine stores"));
        }
        let fs = Self { shared: Arc::new(Shared::new(engine, options, tuning)) };
        if !fs.shared.engine.is_read_only() {
            // Not worth failing for: whoever opens next does it.
            let _ = fs.reclaim_orphans().await;
        }
        Ok(fs)
    }

    /// The engine below.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// Bytes of memory that what was overwritten or appended through handles takes until it is written back or stored, of all
    /// files, counted as for [`Tuning::write_back_bytes`]: to hold that bound against it.
    #[doc(hidden)]
    #[must_use]
    pub fn gathered_bytes(&self) -> usize {
        self.shared.common.handles.gathered_bytes()
    }

    /// Forgets what is kept in memory for no other reason than to be fast: decoded chunks, and what
    /// [`Engine::drop_caches`] says. Open files go on: what was written to them and not flushed stays, and what they read
    /// comes from the storage again.
    pub fn drop_caches(&self) {
        self.shared.forget_chunks();
        self.shared.engine.drop_caches();
    }

    /// What was chosen at creation.
    #[must_use]
    pub fn options(&self) -> Options {
        let OptionsRow { compression, dedup, versions, .. } = self.shared.options;
        Options { compression, dedup, versions }
    }

    /// A transaction over many files, on the newest state that this process knows. Dropping it aborts it.
    #[must_use]
    pub fn begin(&self) -> FsTransaction {
        FsTransaction::new(self.shared.clone(), self.shared.engine.begin())
    }

    /// The file system over a transaction that the caller began, to change files and application tables together; see
    /// [`FsTransaction::engine`] for what those may hold.
    #[must_use]
    pub fn within(&self, transaction: Transaction) -> FsTransaction {
        FsTransaction::new(self.shared.clone(), transaction)
    }

    /// Runs `operations` in a transaction and commits it: all or nothing. Run again, a bounded number of times, where
    /// another transaction was faster: so they must not use up anything from outside, such as a reader.
    ///
    /// # Errors
    /// What `operations` answers, then nothing was changed; those of the engine.
    pub async fn transact<T, E: From<Error> + ConflictTest>(
        &self,
        mut operations: impl AsyncFnMut(&mut FsTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempt = 0;
        loop {
            let mut transaction = self.begin();
            let result = match operations(&mut transaction).await {
                Ok(value) => transaction.commit().await.map(|_| value).map_err(E::from),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_conflict() && attempt < ATTEMPTS_MAX => {
                    attempt += 1;
                    self.shared.engine.refresh().await.map_err(Error::from)?;
                }
                result => return result,
            }
        }
    }

    /// The newest state that this process knows, kept as it is for as long as the snapshot is held.
    #[must_use]
    pub fn snapshot(&self) -> FsSnapshot {
        self.at(self.shared.engine.snapshot())
    }

    /// The state of an engine snapshot.
    #[must_use]
    pub fn at(&self, snapshot: core::engine::Snapshot) -> FsSnapshot {
        FsSnapshot::new(self.shared.clone(), snapshot)
    }

    /// What is at a path; symbolic links are followed.
    ///
    /// # Errors
    /// [`Error::NotFound`], and those of walking a path: [`Error::NotADirectory`], [`Error::SymlinkLoop`],
    /// [`Error::NameTooLong`], [`Error::InvalidPath`].
    pub async fn metadata(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        self.snapshot().metadata(path).await
    }

    /// What is at a path, a symbolic link at its end not followed.
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub async fn symlink_metadata(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        self.snapshot().symlink_metadata(path).await
    }

    /// Whether something is at a path.
    ///
    /// # Errors
    /// Those of walking a path, save that nothing is there.
    pub async fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        self.snapshot().exists(path).await
    }

    /// All names in a directory, in the order of their bytes. [`Self::open_dir`] gives them one by one.
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub async fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<Vec<DirEntry>> {
        self.snapshot().read_dir(path).await
    }

    /// The names in a directory, one by one in the order of their bytes, as they are now.
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub async fn open_dir(&self, path: impl AsRef<[u8]>) -> Result<ReadDir> {
        self.snapshot().open_dir(path).await
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// [`Error::NotASymlink`], and as [`Self::metadata`].
    pub async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        self.snapshot().read_link(path).await
    }

    /// The whole content of a file.
    ///
    /// # Errors
    /// As [`Self::open`](Self::open_file) and [`File::read_at`].
    pub async fn read(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        self.snapshot().read(path).await
    }

    /// Makes `content` the whole content of a file, which is made where it is missing.
    ///
    /// # Errors
    /// [`Error::IsADirectory`], and as [`Self::metadata`].
    pub async fn write(&self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Result<()> {
        let (path, content) = (path.as_ref(), content.as_ref());
        transact!(self, transaction => transaction.write(path, content).await)
    }

    /// Opens a file. Making and truncating it is a transaction of its own. Waits for a removal of the file through this file system
    /// that is being committed; should nobody await that any more, it is brought to its end first.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::AlreadyExists`] with [`OpenOptions::create_new`]; [`Error::IsADirectory`];
    /// [`Error::WrongAccess`] for options that contradict each other; and as [`Self::metadata`].
    pub async fn open_file(&self, path: impl AsRef<[u8]>, options: OpenOptions) -> Result<File> {
        let path = path.as_ref();
        if !options.writes() && options.changes() {
            return Err(Error::WrongAccess { access: "writing" });
        }
        let mut prepare = options;
        let mut attempt = 0;
        loop {
            // What handles of ours have written and not committed is emptied through them.
            let empties = options.truncate && !options.create_new && self.is_written(path).await?;
            prepare.truncate = options.truncate && !empties;
            let inode = if prepare.changes() {
                transact!(self, transaction => transaction.prepare(path, &prepare).await)?
            } else {
                self.snapshot().file_inode(path).await?
            };
            let Some(file) = File::open(&self.shared, inode, options).await? else {
                // Removed between the two: look again what the path says now.
                attempt += 1;
                if attempt == ATTEMPTS_MAX {
                    return Err(core::Error::Conflict.into());
                }
                continue;
            };
            if empties {
                file.set_len(0).await?;
                file.flush().await?;
            }
            return Ok(file);
        }
    }

    /// Whether handles of this file system have written to what is at a path, and not committed it.
    async fn is_written(&self, path: &[u8]) -> Result<bool> {
        match self.snapshot().file_inode(path).await {
            Ok(inode) => Ok(self.shared.common.handles.get(inode).is_some_and(|open| open.is_written())),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], and as [`Self::metadata`] for the directory it is made in.
    pub async fn create_dir(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.create_dir(path).await)
    }

    /// Makes a directory and those that lead to it, as far as they are missing.
    ///
    /// # Errors
    /// [`Error::NotADirectory`] where something else has one of the names.
    pub async fn create_dir_all(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.create_dir_all(path).await)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NameTooLong`], [`Error::InvalidPath`] for an empty target, and as
    /// [`Self::metadata`] for the directory it is made in.
    pub async fn symlink(&self, target: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Result<()> {
        let (target, link) = (target.as_ref(), link.as_ref());
        transact!(self, transaction => transaction.symlink(target, link).await)
    }

    /// Gives a file one more name.
    ///
    /// # Errors
    /// [`Error::IsADirectory`], [`Error::AlreadyExists`], [`Error::TooManyLinks`], and as [`Self::metadata`].
    pub async fn hard_link(&self, existing: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Result<()> {
        let (existing, link) = (existing.as_ref(), link.as_ref());
        transact!(self, transaction => transaction.hard_link(existing, link).await)
    }

    /// Removes the name of a file or symbolic link, and with its last name the file.
    ///
    /// # Errors
    /// [`Error::IsADirectory`], and as [`Self::metadata`].
    pub async fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.remove_file(path).await)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::NotADirectory`], [`Error::InvalidPath`] for the root, and as [`Self::metadata`].
    pub async fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.remove_dir(path).await)
    }

    /// Removes whatever is at a path and all that is in it; of the root, all that is in it. Of some thousand names this
    /// is one transaction, of more it is several, each leaving a smaller tree that is whole, so that memory stays bounded
    /// ([`FsTransaction::remove_all`] is always one).
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub async fn remove_all(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        while !transact!(self, transaction => transaction.remove_some(path, REMOVED_AT_ONCE_MAX).await)? {}
        Ok(())
    }

    /// Gives something another name, in place of what has that name, at one stroke. A directory takes the place of an empty
    /// directory only. Names of the same file stay as they are.
    ///
    /// # Errors
    /// [`Error::IntoItself`], [`Error::NotEmpty`], [`Error::IsADirectory`], [`Error::NotADirectory`],
    /// [`Error::InvalidPath`] for the root, and as [`Self::metadata`].
    pub async fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        transact!(self, transaction => transaction.rename(from, to).await)
    }

    /// As [`Self::rename`], where nothing has the new name yet.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], of the same file too, and as [`Self::rename`].
    pub async fn rename_new(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        transact!(self, transaction => transaction.rename_new(from, to).await)
    }

    /// Lets two names change places at one stroke, whatever they stand for: there is no moment at which either is missing.
    ///
    /// # Errors
    /// [`Error::NotFound`] where one is missing; [`Error::IntoItself`] where one lies in the other;
    /// [`Error::InvalidPath`] for the root, and as [`Self::metadata`].
    pub async fn exchange(&self, one: impl AsRef<[u8]>, other: impl AsRef<[u8]>) -> Result<()> {
        let (one, other) = (one.as_ref(), other.as_ref());
        transact!(self, transaction => transaction.exchange(one, other).await)
    }

    /// Changes attributes; symbolic links are followed.
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub async fn set_attributes(&self, path: impl AsRef<[u8]>, change: AttributeChange) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.set_attributes(path, change).await)
    }

    /// As [`Self::set_attributes`], of a symbolic link itself where one is at the path.
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub async fn set_symlink_attributes(&self, path: impl AsRef<[u8]>, change: AttributeChange) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.set_symlink_attributes(path, change).await)
    }

    /// Sets the permission bits.
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub async fn set_mode(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        self.set_attributes(path, AttributeChange { mode: Some(mode), ..Default::default() }).await
    }

    /// Sets owner and group.
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub async fn set_owner(&self, path: impl AsRef<[u8]>, uid: u32, gid: u32) -> Result<()> {
        self.set_attributes(path, AttributeChange { uid: Some(uid), gid: Some(gid), ..Default::default() }).await
    }

    /// Sets the times of access and modification.
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub async fn set_times(
        &self,
        path: impl AsRef<[u8]>,
        atime: Option<crate::Timestamp>,
        mtime: Option<crate::Timestamp>,
    ) -> Result<()> {
        self.set_attributes(path, AttributeChange { atime, mtime, ..Default::default() }).await
    }

    /// Sets a file's length: dropping its end, or adding zeros that take no space.
    ///
    /// # Errors
    /// [`Error::IsADirectory`], [`Error::FileTooLarge`], and as [`Self::metadata`].
    pub async fn set_len(&self, path: impl AsRef<[u8]>, size: u64) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.set_len(path, size).await)
    }
}
