//! An open file.

mod dirty;
mod pending;
mod reader;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_lock::Mutex;
use strongroom_core::engine::Snapshot;

use crate::error::{Error, Result, damaged};
use crate::format::ContentRow;
use crate::inodes::{self, Metadata};
use crate::options::OpenOptions;
use crate::shared::Shared;
use crate::time::Timestamp;
use pending::Pending;
use reader::{Reader, Source};

/// An open file, read and written at offsets, from many tasks at once.
///
/// What is written is seen through this handle at once. It becomes visible to others, and durable, with [`Self::flush`]:
/// all writes since the last one, or none. Memory stays bounded however much is written between two of them: content
/// goes out as it comes, and only the map of it is held.
///
/// Dropping a handle drops what was not flushed, and nothing else; [`Self::close`] flushes and says whether that worked.
/// When a write fails half way, or its future is dropped, all that was not flushed is lost: every write answers so until
/// a flush has, and then the handle may be used again. Two handles that write the same file are two transactions: the
/// second to flush gets [`strongroom_core::Error::Conflict`].
pub struct File {
    shared: Arc<Shared>,
    inode: u64,
    pinned: Option<Snapshot>,
    /// The version that it shows, where that is not the current one.
    version: Option<Shown>,
    options: OpenOptions,
    reader: Reader,
    writes: Mutex<Writes>,
    /// Whether `writes` is anything but `None`, so that readers of clean handles do not wait for each other.
    written: AtomicBool,
}

/// An older version, and what the content row would be if it were the current one, save for the numbers.
#[derive(Clone, Copy)]
struct Shown {
    number: u64,
    content: ContentRow,
}

#[derive(Default)]
enum Writes {
    #[default]
    None,
    Pending(Box<Pending>),
    Lost(Error),
}

impl std::fmt::Debug for File {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("File").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl File {
    pub(crate) fn new(shared: Arc<Shared>, inode: u64, pinned: Option<Snapshot>, options: OpenOptions) -> Self {
        Self {
            shared,
            inode,
            pinned,
            version: None,
            options,
            reader: Reader::default(),
            writes: Mutex::default(),
            written: AtomicBool::new(false),
        }
    }

    /// An older version of the file, at the state that is pinned; `content` is as long as the version.
    pub(crate) fn at_version(self, number: u64, content: ContentRow) -> Self {
        Self { version: Some(Shown { number, content }), ..self }
    }

    /// The number that the file keeps under every name.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The file's length in bytes, with what was written through this handle.
    ///
    /// # Errors
    /// [`Error::Stale`] where the file was removed.
    pub async fn len(&self) -> Result<u64> {
        if self.written.load(Ordering::Acquire)
            && let Writes::Pending(pending) = &*self.writes.lock().await
        {
            return Ok(pending.size());
        }
        Ok(self.committed().await?.1.size)
    }

    /// Whether the file holds no bytes.
    ///
    /// # Errors
    /// As [`Self::len`].
    pub async fn is_empty(&self) -> Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// What is known of the file; its length is with what was written through this handle.
    ///
    /// # Errors
    /// [`Error::Stale`] where the file was removed.
    pub async fn metadata(&self) -> Result<Metadata> {
        let (snapshot, _) = self.committed().await?;
        let mut metadata = inodes::metadata(&snapshot, self.inode).await?;
        metadata.size = self.len().await?;
        if let Some(Shown { content, .. }) = self.version {
            metadata.mtime = Timestamp::from_nanos(content.changed);
        }
        Ok(metadata)
    }

    async fn committed(&self) -> Result<(Snapshot, ContentRow)> {
        let snapshot = self.pinned.clone().unwrap_or_else(|| self.shared.engine.snapshot());
        if let Some(Shown { content, .. }) = self.version {
            return Ok((snapshot, content));
        }
        let content = inodes::content(&snapshot, self.inode).await?;
        content.map(|content| (snapshot, content)).ok_or(Error::Stale)
    }

    /// Reads from an offset: as much as `out` takes and the file has; answers how many bytes, 0 at the end.
    ///
    /// # Errors
    /// [`Error::WrongAccess`]; [`Error::Stale`] where the file was removed; damage; those of the storage.
    pub async fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        if !self.options.read {
            return Err(Error::WrongAccess { access: "reading" });
        }
        let available =
            |size: u64, out: &[u8]| usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        if self.written.load(Ordering::Acquire) {
            let mut writes = self.writes.lock().await;
            if let Writes::Pending(pending) = &*writes {
                let length = available(pending.size(), out);
                let out = out.get_mut(..length).unwrap_or_default();
                let shared = &self.shared;
                return self
                    .changing(&mut writes, async |pending| pending.read(shared, offset, out).await)
                    .await
                    .map(|()| length);
            }
        }
        let (snapshot, content) = self.committed().await?;
        let length = available(content.size, out);
        let out = out.get_mut(..length).unwrap_or_default();
        if length > 0 {
            let source = Source { inode: self.inode, version: self.version.map(|shown| shown.number), content };
            self.reader.read(&self.shared, &snapshot, source, offset, out).await?;
        }
        Ok(length)
    }

    /// Fills `out` from an offset.
    ///
    /// # Errors
    /// Damage where the file ends before that, and as [`Self::read_at`].
    pub async fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let length = out.len();
        match self.read_at(offset, out).await? {
            read if read == length => Ok(()),
            read => Err(damaged("file", format!("{length} bytes wanted, {read} there"))),
        }
    }

    /// Writes all bytes at an offset; a gap before it becomes zeros that take no space. Of a handle that appends, the
    /// offset is the end of the file.
    ///
    /// # Errors
    /// [`Error::WrongAccess`], [`Error::FileTooLarge`], [`Error::Stale`], those of the engine; see [`File`] for what
    /// becomes of earlier writes.
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let offset = (!self.options.append).then_some(offset);
        self.write(offset, bytes).await.map(|_| ())
    }

    /// Writes all bytes at the end of the file; answers where that was.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub async fn append(&self, bytes: &[u8]) -> Result<u64> {
        self.write(None, bytes).await
    }

    async fn write(&self, offset: Option<u64>, bytes: &[u8]) -> Result<u64> {
        let shared = &self.shared;
        let mut writes = self.begin_write().await?;
        self.changing(&mut writes, async |pending| {
            let offset = offset.unwrap_or_else(|| pending.size());
            pending.write(shared, offset, bytes).await.map(|()| offset)
        })
        .await
    }

    /// Sets the length: dropping the end, or adding zeros that take no space.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub async fn set_len(&self, size: u64) -> Result<()> {
        let mut writes = self.begin_write().await?;
        self.changing(&mut writes, async |pending| pending.set_len(size).await).await
    }

    async fn begin_write(&self) -> Result<async_lock::MutexGuard<'_, Writes>> {
        if !self.options.writes() || self.pinned.is_some() {
            return Err(Error::WrongAccess { access: "writing" });
        }
        let mut writes = self.writes.lock().await;
        if let Writes::None = &*writes {
            let pending = Pending::begin(&self.shared, self.inode).await?;
            *writes = Writes::Pending(Box::new(pending));
            self.written.store(true, Ordering::Release);
        }
        Ok(writes)
    }

    /// Works on what is pending. Should that fail, or its future be dropped, what is pending is in pieces and lost.
    async fn changing<T>(&self, writes: &mut Writes, work: impl AsyncFnOnce(&mut Pending) -> Result<T>) -> Result<T> {
        let mut pending = match std::mem::replace(writes, Writes::Lost(Error::Interrupted)) {
            Writes::Pending(pending) => pending,
            Writes::Lost(error) => {
                *writes = Writes::Lost(error.clone());
                return Err(error);
            }
            Writes::None => {
                *writes = Writes::None;
                return Err(Error::Interrupted);
            }
        };
        let result = work(&mut pending).await;
        *writes = match &result {
            // Refused before anything was changed.
            Ok(_) | Err(Error::FileTooLarge { .. }) => Writes::Pending(pending),
            Err(error) => Writes::Lost(error.clone()),
        };
        result
    }

    /// Makes all writes through this handle visible to others and durable, at one stroke.
    ///
    /// # Errors
    /// [`strongroom_core::Error::Conflict`] where the content was changed by others meanwhile, [`Error::Stale`] where the
    /// file was removed, what an earlier write failed with, those of the engine. What was written since the last flush
    /// is lost then, and the handle is as if it had just been opened.
    pub async fn flush(&self) -> Result<()> {
        if !self.written.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut writes = self.writes.lock().await;
        let result = match std::mem::replace(&mut *writes, Writes::Lost(Error::Interrupted)) {
            Writes::None => Ok(()),
            Writes::Lost(error) => Err(error),
            Writes::Pending(pending) => match pending.commit(&self.shared).await {
                Err(error) if error.is_conflict() => match self.committed().await {
                    Err(Error::Stale) => Err(Error::Stale),
                    _ => Err(error),
                },
                result => result,
            },
        };
        *writes = Writes::None;
        self.written.store(false, Ordering::Release);
        result
    }

    /// As [`Self::flush`]: what is visible to others is durable.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn sync(&self) -> Result<()> {
        self.flush().await
    }

    /// Flushes, and ends the handle.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn close(self) -> Result<()> {
        self.flush().await
    }
}
