//! An open file.

mod dirty;
mod handles;
mod pending;
mod reader;
mod replay;
mod sync;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_core::engine::{Snapshot, View};

use crate::error::{Error, Result, damaged};
use crate::format::{ContentRow, INODE, InodeRow, inode_key};
use crate::inodes::{self, Metadata};
use crate::options::{AccessTime, OpenOptions};
use crate::reflink;
use crate::shared::Shared;
use crate::time::Timestamp;
use crate::versions;
use handles::{Fate, Taken, Undecided, Written};
pub(crate) use handles::{Handles, OpenFile};
use pending::Pending;
use reader::{Reader, Reading};

/// An open file, read and written at offsets, from many tasks at once.
///
/// # Several handles
/// What is written through a handle is seen at once by all handles of that file that the same
/// [`FileSystem`](crate::FileSystem) (and its clones) opened: they share what was written and is not committed. Paths, snapshots,
/// transactions and other processes see it, all of it at one stroke and durable, after [`Self::flush`] of any handle that
/// writes the file. Memory stays bounded however much is written between two of them: what is appended goes out as it comes,
/// what is overwritten gathers up to [`Tuning::write_back_bytes`](crate::Tuning::write_back_bytes), and beyond that only the map
/// of it is held, a row for each chunk.
///
/// # Losing
/// Dropping a handle drops nothing while another of the file is there. With the last one goes what was not flushed, and
/// nothing else; [`Self::close`] flushes and says whether that worked. Reading takes nothing along, however it ends. When a
/// write fails half way, its future is dropped, or a flush fails, all that was not flushed is lost: every handle that took part
/// in it is told by its writes until its next flush has told it too, and then may be used again. A flush whose future is dropped
/// may have come to its end or not, and takes part itself: the next one of that handle, and of the others that took part,
/// answers [`Error::Interrupted`] rather than that all is well. Who changes the content by a path, or in another process,
/// between a write and its flush, wins: the flush answers [`strongroom_core::Error::Conflict`].
///
/// # Removed files
/// A file whose last name is removed by this file system stays readable and writable through the handles that are there. It
/// goes with the last of them; where the process dies before, with the next writer that opens the repository. Handles in other
/// processes, which may have tried to remove the file too, read and write it as long as a handle is there in the process that
/// did, and answer [`Error::Stale`] from then on.
pub struct File {
    shared: Arc<Shared>,
    inode: u64,
    source: Source,
    options: OpenOptions,
    reader: Reader,
    /// What became of the writes that this handle took part in last.
    fate: Mutex<Option<Arc<Fate>>>,
    /// Something was read since the access time was noted.
    was_read: AtomicBool,
}

/// An older version, and what the content row would be if it were the current one, save for the numbers.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) number: u64,
    pub(crate) content: ContentRow,
}

enum Source {
    Pinned(Snapshot),
    Version(Snapshot, Shown),
    Open(Arc<OpenFile>),
}

impl std::fmt::Debug for File {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("File").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl File {
    /// A file as it was.
    pub(crate) fn pinned(shared: Arc<Shared>, inode: u64, snapshot: Snapshot) -> Self {
        Self::new(shared, inode, Source::Pinned(snapshot), OpenOptions::new())
    }

    /// An older version of a file, at the state that still has it.
    pub(crate) fn at_version(shared: Arc<Shared>, inode: u64, snapshot: Snapshot, shown: Shown) -> Self {
        Self::new(shared, inode, Source::Version(snapshot, shown), OpenOptions::new())
    }

    /// One more handle of a file; `None` where it was removed meanwhile.
    pub(crate) async fn open(shared: &Arc<Shared>, inode: u64, options: OpenOptions) -> Result<Option<Self>> {
        let key = inode_key(inode);
        let Some(row) = shared.engine.snapshot().get(INODE, &key).await? else { return Ok(None) };
        let row = InodeRow::decode(&row)?;
        let open = shared.common.handles.open(&shared.for_file(&row), inode).await?;
        // From here on nobody of us deletes it; somebody may have just before.
        let snapshot = shared.engine.snapshot();
        let Some(row) = snapshot.get(INODE, &key).await? else { return Ok(None) };
        let row = InodeRow::decode(&row)?;
        if row.nlink == 0 {
            // An orphan by now, and this may be its last handle.
            open.set_removed();
            return Ok(None);
        }
        // This opening may have said how the file is kept, while others had it open.
        let shared = shared.for_file(&row);
        open.go_by(&shared, snapshot.sequence());
        Ok(Some(Self::new(shared, inode, Source::Open(open), options)))
    }

    fn new(shared: Arc<Shared>, inode: u64, source: Source, options: OpenOptions) -> Self {
        let (reader, fate, was_read) = (Reader::default(), Mutex::default(), AtomicBool::new(false));
        Self { shared, inode, source, options, reader, fate, was_read }
    }

    /// The number that the file keeps under every name.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether all that is written through this handle goes to the end of the file.
    #[must_use]
    pub fn is_appending(&self) -> bool {
        self.options.append
    }

    /// The file's length in bytes, with what was written through any handle.
    ///
    /// # Errors
    /// [`Error::Stale`] where the file was removed elsewhere.
    pub async fn len(&self) -> Result<u64> {
        if let Some(open) = self.written()
            && let Some(written) = &*open.writes.lock().await
        {
            return Ok(written.pending.size());
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

    /// What is known of the file; its length is with what was written through any handle.
    ///
    /// # Errors
    /// [`Error::Stale`] where the file was removed elsewhere.
    pub async fn metadata(&self) -> Result<Metadata> {
        let (snapshot, _) = self.committed().await?;
        let mut metadata = inodes::metadata(&snapshot, self.inode).await?;
        metadata.size = self.len().await?;
        if let Source::Version(_, Shown { content, .. }) = &self.source {
            metadata.mtime = Timestamp::from_nanos(content.changed);
            metadata.content_changed = metadata.mtime;
            metadata.content_tag = content.tag;
        }
        Ok(metadata)
    }

    /// The shared state, where something was written and not committed.
    fn written(&self) -> Option<&OpenFile> {
        match &self.source {
            Source::Open(open) if open.is_written() => Some(open),
            _ => None,
        }
    }

    /// The number of the version that it shows, where that is not the current one.
    fn version(&self) -> Option<u64> {
        match &self.source {
            Source::Version(_, shown) => Some(shown.number),
            _ => None,
        }
    }

    async fn committed(&self) -> Result<(Snapshot, ContentRow)> {
        let snapshot = match &self.source {
            Source::Pinned(snapshot) => snapshot.clone(),
            Source::Version(snapshot, shown) => return Ok((snapshot.clone(), shown.content)),
            Source::Open(_) => self.shared.engine.snapshot(),
        };
        let content = inodes::content(&snapshot, self.inode).await?;
        content.map(|content| (snapshot, content)).ok_or(Error::Stale)
    }

    /// Reads from an offset: as much as `out` takes and the file has; answers how many bytes, 0 at the end.
    ///
    /// # Errors
    /// [`Error::WrongAccess`]; [`Error::Stale`] where the file was removed elsewhere; damage; those of the storage.
    pub async fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        if !self.options.read {
            return Err(Error::WrongAccess { access: "reading" });
        }
        if self.options.access_time != AccessTime::Never {
            self.was_read.store(true, Ordering::Relaxed);
        }
        let available =
            |size: u64, out: &[u8]| usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        if let Some(open) = self.written() {
            let mut writes = open.writes.lock().await;
            if let Some(Written { pending, .. }) = &mut *writes {
                let length = available(pending.size(), out);
                let out = out.get_mut(..length).unwrap_or_default();
                return pending.read(offset, out).await.map(|()| length);
            }
        }
        let (snapshot, content) = self.committed().await?;
        let length = available(content.size, out);
        let out = out.get_mut(..length).unwrap_or_default();
        if length > 0 {
            let (shared, snapshot) = (&self.shared, &snapshot);
            let reading = Reading { shared, snapshot, inode: self.inode, version: self.version(), content };
            self.reader.read(reading, offset, out).await?;
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

    /// The first offset at or after `offset` that is not in a hole; `None` where only holes follow, and from the end on.
    /// Costs a look at each extent that is passed, and at each stretch that is overwritten and not flushed.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub async fn seek_data(&self, offset: u64) -> Result<Option<u64>> {
        self.seek(offset, true).await
    }

    /// The first offset at or after `offset` that is in a hole, where the end of the file counts as one; `None` from the end
    /// on. What was never written, was lengthened over, or punched is a hole; zeros that were written are not. What is written
    /// into a hole may fill what lies around it, by a chunk, when it is flushed.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub async fn seek_hole(&self, offset: u64) -> Result<Option<u64>> {
        self.seek(offset, false).await
    }

    async fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>> {
        if let Some(open) = self.written() {
            let mut writes = open.writes.lock().await;
            if let Some(Written { pending, .. }) = &mut *writes {
                return pending.seek(offset, data).await;
            }
        }
        let (snapshot, content) = self.committed().await?;
        match self.version() {
            None => reflink::seek(&snapshot, self.inode, content.size, offset, data).await,
            Some(number) => versions::seek(&self.shared, &snapshot, self.inode, (number, &content), offset, data).await,
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

    /// Writes all bytes at the end of the file; answers where that was. What several handles append does not overlap.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub async fn append(&self, bytes: &[u8]) -> Result<u64> {
        self.write(None, bytes).await
    }

    async fn write(&self, offset: Option<u64>, bytes: &[u8]) -> Result<u64> {
        self.work(async |pending| {
            let offset = offset.unwrap_or_else(|| pending.size());
            pending.write(offset, bytes).await.map(|()| offset)
        })
        .await
    }

    /// Sets the length: dropping the end, or adding zeros that take no space.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub async fn set_len(&self, size: u64) -> Result<()> {
        self.work(async |pending| pending.set_len(size).await).await
    }

    /// Changes what was written, which this handle takes part in from here on.
    async fn work<T>(&self, work: impl AsyncFnOnce(&mut Pending) -> Result<T>) -> Result<T> {
        let Source::Open(open) = &self.source else { return Err(Error::WrongAccess { access: "writing" }) };
        if !self.options.writes() {
            return Err(Error::WrongAccess { access: "writing" });
        }
        let mut writes = open.writes.lock().await;
        if let Some(lost) = self.lost() {
            return Err(lost);
        }
        let shared = open.shared();
        let fate = match &*writes {
            Some(written) => written.fate.clone(),
            None => {
                let pending = Box::new(Pending::begin(&shared, self.inode).await?);
                let fate = Arc::new(Fate::default());
                *writes = Some(Written { pending, fate: fate.clone() });
                open.set_written();
                fate
            }
        };
        *self.fate() = Some(fate);
        changing(open, &mut writes, async |pending| {
            pending.go_by(&shared).await?;
            work(pending).await
        })
        .await
    }

    fn fate(&self) -> std::sync::MutexGuard<'_, Option<Arc<Fate>>> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> Option<Error> {
        self.fate().as_ref().and_then(|fate| fate.lost())
    }

    /// Makes all writes to the file, through whatever handle of this file system, visible to others and durable, at one
    /// stroke. Of a handle that does not write, it notes the time of access where the options ask for that, and no more.
    ///
    /// # Errors
    /// [`strongroom_core::Error::Conflict`] where the content was changed by others meanwhile, [`Error::Stale`] where the
    /// file was removed elsewhere, what an earlier write failed with, those of the engine. What was written since the last
    /// flush is lost then, and the handle may be used again. [`Error::Interrupted`] after a flush that was dropped half way:
    /// what was to be flushed is there whole, or lost.
    pub async fn flush(&self) -> Result<()> {
        let result = self.flush_writes().await;
        self.note_access().await;
        result
    }

    async fn flush_writes(&self) -> Result<()> {
        let Source::Open(open) = &self.source else { return Ok(()) };
        if !self.options.writes() {
            return Ok(());
        }
        let took_part = self.fate().is_some();
        if !took_part && !open.is_written() {
            return Ok(());
        }
        let mut writes = open.writes.lock().await;
        if let Some(lost) = self.lost() {
            *self.fate() = None;
            return Err(lost);
        }
        let mut taken = Taken::new(open, &mut writes);
        let Some(Written { pending, fate }) = taken.written.take() else {
            *self.fate() = None;
            return Ok(());
        };
        // From here on it takes part, whether it wrote or not: dropped half way, this call has told nobody, and the next must.
        *self.fate() = Some(fate.clone());
        // What becomes of it is this call's to say, to its caller and to all that took part.
        let undecided = Undecided(Some(fate));
        let result = match pending.commit().await {
            Err(error) if error.is_conflict() => match self.committed().await {
                Err(Error::Stale) => Err(Error::Stale),
                _ => Err(error),
            },
            result => result,
        };
        undecided.settle(result.as_ref().err());
        *self.fate() = None;
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
        let result = self.flush().await;
        let shared = self.shared.clone();
        drop(self);
        shared.reclaim_abandoned().await;
        result
    }

    /// Notes that the file was read, where the options ask for that. It is not worth failing for.
    async fn note_access(&self) {
        if !self.was_read.swap(false, Ordering::Relaxed) || self.shared.engine.is_read_only() {
            return;
        }
        if let Source::Open(_) = self.source {
            let now = Timestamp::from_nanos(self.shared.moment());
            let _ = inodes::note_access(&self.shared, self.inode, self.options.access_time, now).await;
        }
    }
}

/// Works on what is pending. Should that fail, or its future be dropped, what is pending is in pieces and lost.
async fn changing<T>(
    open: &OpenFile,
    writes: &mut Option<Written>,
    work: impl AsyncFnOnce(&mut Pending) -> Result<T>,
) -> Result<T> {
    let mut taken = Taken::new(open, writes);
    let Some(written) = &mut taken.written else { return Err(Error::Interrupted) };
    let result = work(&mut written.pending).await;
    match &result {
        // Refused before anything was changed.
        Ok(_) | Err(Error::FileTooLarge { .. }) => taken.give_back(),
        Err(error) => taken.lose(error),
    }
    result
}
