//! The file: opened, locked, read and written at places. Here nothing is judged; what is read may be anything.
//!
//! No call waits for another process for longer than is said here: one that is stopped holds its locks for ever.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use strongroom_core::storage::{Error, Result};

use crate::error::{failed, foreign, other_size};
use crate::layout::{Layout, UNIT_BYTES, is_header};

/// The file of pages.
const BLOCKS: &str = "blocks";
/// Held shared by who has the cache open, and alone by who lays it out anew.
const LOCK: &str = "lock";
/// What that file says.
const MARK: [u8; 16] = *b"strongroom cache";
/// Held by who writes. Not the file of pages: where locks keep readers out, too, they would.
const WRITING: &str = "writing";

/// How often opening tries again while others open it: for a second.
const OPENINGS: u32 = 200;
/// How often a removal asks for the right to write: for a second.
const ASKINGS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// The file of a cache.
#[derive(Debug)]
pub(crate) struct Medium {
    folder: PathBuf,
    layout: Layout,
    opened: Mutex<Arc<Opened>>,
    /// How often the file was made anew while it was open.
    generation: AtomicU64,
    /// A lock of a file holds between handles; this one between the threads of one.
    writing: Mutex<()>,
    /// Somebody held the right to write for longer than anybody does: until that ends, nobody waits again.
    is_stuck: AtomicBool,
}

#[derive(Debug)]
struct Opened {
    blocks: File,
    writing: File,
    /// Locked for as long as it is open.
    _lock: File,
}

/// The right to write; nobody else does meanwhile, in no process.
pub(crate) struct Writing<'m> {
    opened: Arc<Opened>,
    _alone: MutexGuard<'m, ()>,
}

impl Medium {
    /// Opens the cache of a folder; makes both where they are not there, or are of another size and nobody uses them.
    pub(crate) fn open(folder: &Path, bytes_max: u64) -> Result<Self> {
        // The folder stays the same one, wherever the process goes.
        let folder = std::path::absolute(folder).map_err(|source| failed(folder, source))?;
        let layout = Layout::within(bytes_max);
        let opened = Opened::open(&folder, layout)?;
        Ok(Self {
            folder,
            layout,
            opened: Mutex::new(Arc::new(opened)),
            generation: AtomicU64::new(0),
            writing: Mutex::new(()),
            is_stuck: AtomicBool::new(false),
        })
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Another number after the file was made anew.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn opened(&self) -> Arc<Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes from a place, as many as were asked for: what is not there is zeros.
    pub(crate) fn read(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        read_at(&self.opened().blocks, at, length)
    }

    /// Writes without the right to: what may be lost, or meet a change of another.
    pub(crate) fn write_loosely(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        write_at(&self.opened().blocks, at, bytes)
    }

    /// The right to write; `None` where another process has it. A file that was removed meanwhile is made anew.
    pub(crate) fn try_write(&self) -> io::Result<Option<Writing<'_>>> {
        let alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut opened = self.opened();
        if !opened.is_at(&self.folder) {
            opened = Arc::new(Opened::open(&self.folder, self.layout).map_err(|error: Error| io::Error::other(error))?);
            self.generation.fetch_add(1, Ordering::AcqRel);
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = opened.clone();
        }
        match opened.writing.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let writing = Writing { opened, _alone: alone };
        writing.keep_header(self.layout)?;
        self.is_stuck.store(false, Ordering::Release);
        Ok(Some(writing))
    }

    /// As [`Self::try_write`], after waiting for others as long as is reasonable.
    pub(crate) fn write(&self) -> io::Result<Writing<'_>> {
        for _ in 0..ASKINGS {
            match self.try_write()? {
                Some(writing) => return Ok(writing),
                None if self.is_stuck.load(Ordering::Acquire) => break,
                None => thread::sleep(PAUSE),
            }
        }
        self.is_stuck.store(true, Ordering::Release);
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

impl Writing<'_> {
    /// As [`Medium::read`].
    pub(crate) fn read(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        read_at(&self.opened.blocks, at, length)
    }

    pub(crate) fn put(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        write_at(&self.opened.blocks, at, bytes)
    }

    /// Others are to find what they look for when they open it, whatever befell the file.
    fn keep_header(&self, layout: Layout) -> io::Result<()> {
        let header = layout.header();
        let there = self.read(0, header.len() as u64)?;
        if there == header {
            return Ok(());
        }
        if Layout::of_header(&there).is_some_and(|other| other != layout) {
            // The file by which others see that we are here was removed: it is theirs now.
            return Err(io::Error::other("the cache was laid out anew"));
        }
        self.put(0, &header)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // Else it is given up when the file is closed.
        let _ = self.opened.writing.unlock();
    }
}

impl Opened {
    fn open(folder: &Path, layout: Layout) -> Result<Self> {
        let failed = |source| failed(folder, source);
        make_folder(folder).map_err(failed)?;
        let mut is_other_size = false;
        for _ in 0..OPENINGS {
            let lock = own_file(&folder.join(LOCK))?;
            match lock.try_lock_shared() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            let path = folder.join(BLOCKS);
            let blocks = own_file(&path)?;
            let header = read_at(&blocks, 0, layout.header().len() as u64).map_err(failed)?;
            if header == layout.header() {
                // One of before the mark; where there is no room for it, it does without.
                let _ = mark(folder, &lock);
                return Ok(Self { blocks, writing: own_file(&folder.join(WRITING))?, _lock: lock });
            }
            let bytes = blocks.metadata().map_err(failed)?.len();
            // What somebody has put in its place since has another length.
            let is_ours =
                is_header(&header) || (bytes.is_multiple_of(UNIT_BYTES) && is_marked(&lock).map_err(failed)?);
            if !is_ours && bytes > 0 {
                return Err(foreign(&path));
            }
            is_other_size = is_header(&header);
            lock.unlock().map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => {
                    mark(folder, &lock).map_err(failed)?;
                    lay_out(&blocks, layout).map_err(failed)?;
                }
                // Another makes it just now, or has it open.
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        match is_other_size {
            true => Err(other_size(folder)),
            false => Err(failed(io::ErrorKind::ResourceBusy.into())),
        }
    }

    /// Whether it is still what the folder has.
    fn is_at(&self, folder: &Path) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            match (self.blocks.metadata(), fs::symlink_metadata(folder.join(BLOCKS))) {
                (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
                _ => false,
            }
        }
        #[cfg(not(unix))]
        folder.join(BLOCKS).exists()
    }
}

/// Whether the folder is a cache's, whatever befell the header of its pages: a power cut may leave zeros of it.
fn is_marked(lock: &File) -> io::Result<bool> {
    Ok(read_at(lock, 0, MARK.len() as u64)? == MARK)
}

/// Marks the folder as a cache's, before anything else is there. All that is synced of a cache, and once.
fn mark(folder: &Path, lock: &File) -> io::Result<()> {
    // What is longer was never written here.
    if is_marked(lock)? || lock.metadata()?.len() > MARK.len() as u64 {
        return Ok(());
    }
    write_at(lock, 0, &MARK)?;
    lock.sync_all()?;
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Nothing of what was there is of use. The header comes first: a file without it that is not empty is somebody else's, unless
/// the folder is marked.
fn lay_out(blocks: &File, layout: Layout) -> io::Result<()> {
    blocks.set_len(0)?;
    write_at(blocks, 0, &layout.header())?;
    blocks.set_len(layout.file_bytes())
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// A file of the cache, made where it is not there: one that has this name alone, and leads nowhere else.
fn own_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
    }
    let is_link = || fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file());
    let file = match options.open(path) {
        Err(_) if is_link() => return Err(foreign(path)),
        opened => opened.map_err(|source| failed(path, source))?,
    };
    let metadata = file.metadata().map_err(|source| failed(path, source))?;
    #[cfg(unix)]
    let is_alone = std::os::unix::fs::MetadataExt::nlink(&metadata) <= 1;
    #[cfg(not(unix))]
    let is_alone = true;
    if metadata.is_file() && is_alone { Ok(file) } else { Err(foreign(path)) }
}

/// What is not there is zeros.
fn read_at(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read_some(file, rest, at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn write_at(file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match write_some(file, rest, at + written as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(unix)]
use std::os::unix::fs::FileExt;
#[cfg(windows)]
use std::os::windows::fs::FileExt;

#[cfg(unix)]
fn read_some(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    file.read_at(bytes, at)
}

#[cfg(windows)]
fn read_some(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    file.seek_read(bytes, at)
}

#[cfg(unix)]
fn write_some(file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
    file.write_at(bytes, at)
}

#[cfg(windows)]
fn write_some(file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
    file.seek_write(bytes, at)
}
