use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::{LockKind, Published};
use crate::layout::INCOMING;

/// What tells a folder from all others.
pub(crate) type FolderId = PathBuf;

/// A folder, by its absolute path.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if !std::fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { root: std::path::absolute(path)? })
    }

    pub(crate) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        std::fs::metadata(&self.root)
    }

    pub(crate) fn id(&self) -> io::Result<FolderId> {
        std::fs::canonicalize(&self.root)
    }

    /// Whether the folder was removed since it was opened.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.root.try_exists(), Ok(false))
    }

    fn at(&self, path: &str) -> PathBuf {
        path.split('/').filter(|part| *part != ".").fold(self.root.clone(), |whole, part| whole.join(part))
    }

    /// A handle to lock: folders cannot be locked here, so two empty files serve.
    pub(crate) fn lock_file(&self, kind: LockKind) -> io::Result<File> {
        let name = match kind {
            LockKind::Presence => "presence.lock",
            LockKind::Gate => "gate.lock",
        };
        let path = self.at(INCOMING).join(name);
        match OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(&path),
            outcome => outcome,
        }
    }

    /// Creates a sub-folder where it is absent.
    pub(crate) fn create_directory(&self, path: &str) -> io::Result<()> {
        match std::fs::create_dir(self.at(path)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn create_file(&self, path: &str) -> io::Result<File> {
        File::create_new(self.at(path))
    }

    /// Gives a temporary file its name in one step, replacing nothing: a rename would replace.
    pub(crate) fn publish(&self, temporary: &str, path: &str) -> io::Result<Published> {
        match std::fs::hard_link(self.at(temporary), self.at(path)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Published::Taken),
            Err(error) => return Err(error),
        }
        // A temporary name that cannot be removed is a leftover, not a failure.
        let _ = self.remove(temporary);
        Ok(Published::Created)
    }

    /// Opens a blob for reading.
    pub(crate) fn open_blob(&self, path: &str) -> io::Result<File> {
        File::open(self.at(path))
    }

    /// A handle on a blob that can be synced, which needs the right to write here.
    pub(crate) fn open_to_sync(&self, path: &str) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.at(path))
    }

    /// The length of a file; `None` for what is no file.
    pub(crate) fn file_bytes(&self, path: &str) -> io::Result<Option<u64>> {
        let metadata = std::fs::symlink_metadata(self.at(path))?;
        Ok(metadata.is_file().then(|| metadata.len()))
    }

    /// When a file was last written, in milliseconds since the Unix epoch; `None` for what is no file.
    pub(crate) fn file_written(&self, path: &str) -> io::Result<Option<u64>> {
        let metadata = std::fs::symlink_metadata(self.at(path))?;
        let since = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(metadata.is_file().then(|| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Moves a file within the folder.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.at(from), self.at(to))
    }

    pub(crate) fn remove(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.at(path))
    }

    /// Removes a sub-folder with nothing in it.
    pub(crate) fn remove_directory(&self, path: &str) -> io::Result<()> {
        std::fs::remove_dir(self.at(path))
    }

    /// Shows every entry of a sub-folder whose name is text; `.` is the folder itself.
    pub(crate) fn each_entry(&self, path: &str, mut visit: impl FnMut(&str)) -> io::Result<()> {
        for entry in std::fs::read_dir(self.at(path))? {
            if let Some(name) = entry?.file_name().to_str() {
                visit(name);
            }
        }
        Ok(())
    }

    /// Makes the content of a file durable up to [`Folder::barrier`].
    pub(crate) fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Makes the content of a file durable for good.
    pub(crate) fn sync_file_now(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Makes the names in a sub-folder durable up to [`Folder::barrier`]: the barrier does it here.
    pub(crate) fn sync_directory(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    /// Makes the names in the folder itself durable.
    pub(crate) fn sync_root(&self) -> io::Result<()> {
        self.barrier()
    }

    /// Folders cannot be synced here. A file that is created and synced forces the file system's log out, and with it
    /// whatever stands in the log before: names made and names removed.
    pub(crate) fn barrier(&self) -> io::Result<()> {
        let path = self.root.join(".barrier");
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        file.set_len(1)?;
        file.sync_all()?;
        drop(file);
        // Another handle may be at it: one of the two removes the file.
        let _ = std::fs::remove_file(&path);
        Ok(())
    }

    /// There is no such call.
    pub(crate) fn sync_filesystem(&self) -> Option<io::Result<()>> {
        None
    }
}

/// Up to `length` bytes from `offset`; fewer only where the file ends.
pub(crate) fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read_some(file, rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(windows)]
fn read_some(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, offset)
}

#[cfg(not(windows))]
fn read_some(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::Start(offset))?;
    file.read(bytes)
}
