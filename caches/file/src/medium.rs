//! The file: opened, locked, read and written at places. Here nothing is judged; what is read may be anything.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use strongroom_core::storage::{Error, Result};

use crate::error::{failed, foreign, other_size};
use crate::layout::{Layout, is_header};

/// The file of pages.
const BLOCKS: &str = "blocks";
/// Held shared by who has the cache open, and alone by who lays it out anew.
const LOCK: &str = "lock";

/// How often opening tries again while another makes the file.
const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// The file of a cache.
#[derive(Debug)]
pub(crate) struct Medium {
    folder: PathBuf,
    layout: Layout,
    opened: Mutex<Arc<Opened>>,
    /// A lock of the file holds between handles; this one between the threads of one.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Opened {
    blocks: File,
    /// Locked for as long as it is open.
    _lock: File,
}

/// The right to write; nobody else does meanwhile, in no process.
pub(crate) struct Writing<'m> {
    opened: Arc<Opened>,
    layout: Layout,
    _alone: MutexGuard<'m, ()>,
}

impl Medium {
    /// Opens the cache of a folder; makes both where they are not there, or are of another size and nobody uses them.
    pub(crate) fn open(folder: &Path, bytes_max: u64) -> Result<Self> {
        let layout = Layout::within(bytes_max);
        let opened = Opened::open(folder, layout)?;
        Ok(Self { folder: folder.to_owned(), layout, opened: Mutex::new(Arc::new(opened)), writing: Mutex::new(()) })
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
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

    /// Waits until nobody else writes. A file that was removed meanwhile is made anew.
    pub(crate) fn write(&self) -> io::Result<Writing<'_>> {
        let alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut opened = self.opened();
        if !opened.is_at(&self.folder) {
            opened = Arc::new(Opened::open(&self.folder, self.layout).map_err(|error: Error| io::Error::other(error))?);
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = opened.clone();
        }
        opened.blocks.lock()?;
        let writing = Writing { opened, layout: self.layout, _alone: alone };
        writing.keep_header()?;
        Ok(writing)
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
    fn keep_header(&self) -> io::Result<()> {
        let header = self.layout.header();
        if self.read(0, header.len() as u64)? != header {
            self.put(0, &header)?;
        }
        Ok(())
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // Else it is given up when the file is closed.
        let _ = self.opened.blocks.unlock();
    }
}

impl Opened {
    fn open(folder: &Path, layout: Layout) -> Result<Self> {
        let failed = |source| failed(folder, source);
        make_folder(folder).map_err(failed)?;
        for _ in 0..ATTEMPTS {
            let lock = own_file(&folder.join(LOCK)).map_err(failed)?;
            lock.lock_shared().map_err(failed)?;
            let path = folder.join(BLOCKS);
            let blocks = own_file(&path).map_err(failed)?;
            let header = read_at(&blocks, 0, layout.header().len() as u64).map_err(failed)?;
            if header == layout.header() {
                return Ok(Self { blocks, _lock: lock });
            }
            let is_cache = is_header(&header);
            if !is_cache && header.iter().any(|byte| *byte != 0) {
                return Err(foreign(&path));
            }
            lock.unlock().map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => lay_out(&blocks, layout).map_err(failed)?,
                Err(TryLockError::WouldBlock) if is_cache => {
                    return Err(other_size(folder));
                }
                // Another makes it just now.
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Err(failed(io::Error::new(io::ErrorKind::TimedOut, "others are at it all the time")))
    }

    /// Whether it is still what the folder has.
    fn is_at(&self, folder: &Path) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            match (self.blocks.metadata(), fs::metadata(folder.join(BLOCKS))) {
                (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
                _ => false,
            }
        }
        // Elsewhere what is open cannot be removed.
        #[cfg(not(unix))]
        folder.join(BLOCKS).exists()
    }
}

/// Nothing of what was there is of use.
fn lay_out(blocks: &File, layout: Layout) -> io::Result<()> {
    blocks.set_len(0)?;
    blocks.set_len(layout.file_bytes())?;
    write_at(blocks, 0, &layout.header())
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn own_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
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
