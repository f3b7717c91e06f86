use std::io::{self, Read, Seek, SeekFrom, Write};

use futures_lite::future::block_on;
use strongroom_fs::{Metadata, Result};

/// An open file with a position, for [`std::io`]; see [`strongroom_fs::File`].
///
/// Writes are kept until [`Write::flush`] or [`File::close`], which make them visible and durable all at once; other handles
/// of the file see them before. Dropping the last handle of a file drops what was not flushed.
#[derive(Debug)]
pub struct File {
    inner: strongroom_fs::File,
    position: u64,
}

impl File {
    pub(super) fn new(inner: strongroom_fs::File) -> Self {
        Self { inner, position: 0 }
    }

    /// The number that the file keeps under every name.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inner.inode()
    }

    /// The file's length in bytes.
    ///
    /// # Errors
    /// As [`strongroom_fs::File::len`].
    pub fn len(&self) -> Result<u64> {
        block_on(self.inner.len())
    }

    /// Whether the file holds no bytes.
    ///
    /// # Errors
    /// As [`strongroom_fs::File::len`].
    pub fn is_empty(&self) -> Result<bool> {
        block_on(self.inner.is_empty())
    }

    /// What is known of the file.
    ///
    /// # Errors
    /// As [`strongroom_fs::File::metadata`].
    pub fn metadata(&self) -> Result<Metadata> {
        block_on(self.inner.metadata())
    }

    /// Reads at an offset, the position aside; answers how many bytes.
    ///
    /// # Errors
    /// As [`strongroom_fs::File::read_at`].
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        block_on(self.inner.read_at(offset, out))
    }

    /// Fills `out` from an offset, the position aside.
    ///
    /// # Errors
    /// As [`strongroom_fs::File::read_exact_at`].
    pub fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        block_on(self.inner.read_exact_at(offset, out))
    }

    /// Writes all bytes at an offset, the position aside.
    ///
    /// # Errors
    /// As [`strongroom_fs::File::write_at`].
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        block_on(self.inner.write_at(offset, bytes))
    }

    /// Writes all bytes at the end, the position aside; answers where that was.
    ///
    /// # Errors
    /// As [`strongroom_fs::File::append`].
    pub fn append(&self, bytes: &[u8]) -> Result<u64> {
        block_on(self.inner.append(bytes))
    }

    /// The first offset at or after `offset` that is not in a hole.
    ///
    /// # Errors
    /// As [`strongroom_fs::File::seek_data`].
    pub fn seek_data(&self, offset: u64) -> Result<Option<u64>> {
        block_on(self.inner.seek_data(offset))
    }

    /// The first offset at or after `offset` that is in a hole, the end of the file counting as one.
    ///
    /// # Errors
    /// As [`strongroom_fs::File::seek_hole`].
    pub fn seek_hole(&self, offset: u64) -> Result<Option<u64>> {
        block_on(self.inner.seek_hole(offset))
    }

    /// Sets the length.
    ///
    /// # Errors
    /// As [`strongroom_fs::File::set_len`].
    pub fn set_len(&self, size: u64) -> Result<()> {
        block_on(self.inner.set_len(size))
    }

    /// Makes all writes visible and durable, at one stroke.
    ///
    /// # Errors
    /// As [`strongroom_fs::File::sync`].
    pub fn sync(&self) -> Result<()> {
        block_on(self.inner.sync())
    }

    /// As [`File::sync`], and ends the handle.
    ///
    /// # Errors
    /// As [`strongroom_fs::File::close`].
    pub fn close(self) -> Result<()> {
        block_on(self.inner.close())
    }
}

impl Read for File {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(self.position, out)?;
        self.position = self.position.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(read)
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at = if self.inner.is_appending() {
            self.append(bytes)?
        } else {
            self.write_at(self.position, bytes)?;
            self.position
        };
        self.position = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.sync()?)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
            SeekFrom::End(delta) => self.len()?.checked_add_signed(delta),
        };
        self.position = position
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the position would be before the start"))?;
        Ok(self.position)
    }
}
