use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use super::{LockKind, Published};
use crate::layout::INCOMING;

/// What tells an open folder from all others, as long as it is open.
pub(crate) type FolderId = (u64, u64);

/// An open folder. Everything is reached relative to it, so that it may be renamed, and the working directory changed.
#[derive(Debug)]
pub(crate) struct Folder {
    root: File,
    /// Whether one call flushes the whole file system, and says truthfully how that went.
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
    flushes_whole: OnceLock<bool>,
}

const READ_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::openat(CWD, path, READ_DIRECTORY, Mode::empty())?;
        Ok(Self { root: File::from(root), flushes_whole: OnceLock::new() })
    }

    pub(crate) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.root.metadata()
    }

    /// Device and inode.
    pub(crate) fn id(&self) -> io::Result<FolderId> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = self.root.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Whether the folder was removed since it was opened.
    pub(crate) fn is_gone(&self) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        self.root.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// A handle to lock: the folders themselves serve, so that no file of odd size lies among the blobs.
    pub(crate) fn lock_file(&self, kind: LockKind) -> io::Result<File> {
        // Opened anew, because locks belong to the open file.
        match kind {
            LockKind::Presence => self.open_directory("."),
            LockKind::Gate => self.open_directory(INCOMING),
        }
    }

    fn open_directory(&self, path: &str) -> io::Result<File> {
        Ok(File::from(rustix::fs::openat(&self.root, path, READ_DIRECTORY, Mode::empty())?))
    }

    /// Creates a sub-folder where it is absent.
    pub(crate) fn create_directory(&self, path: &str) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.root, path, Mode::from_raw_mode(0o777)) {
            Err(rustix::io::Errno::EXIST) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn create_file(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(File::from(rustix::fs::openat(&self.root, path, flags, Mode::from_raw_mode(0o666))?))
    }

    /// Gives a temporary file its name in one step, replacing nothing. The file is not needed on Unix.
    pub(crate) fn publish(&self, temporary: &str, path: &str) -> io::Result<Published> {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        match rustix::fs::renameat_with(&self.root, temporary, &self.root, path, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(Published::Created),
            Err(rustix::io::Errno::EXIST) => return Ok(Published::Taken),
            // Some file systems cannot; a hard link does not replace either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
        match rustix::fs::linkat(&self.root, temporary, &self.root, path, AtFlags::empty()) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Ok(Published::Taken),
            Err(error) => return Err(error.into()),
        }
        // A temporary name that cannot be removed is a leftover, not a failure.
        let _ = self.remove(temporary);
        Ok(Published::Created)
    }

    /// Opens a blob for reading. A link is refused, and a pipe does not block.
    pub(crate) fn open_blob(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::openat(&self.root, path, flags, Mode::empty())?))
    }

    /// A handle on a blob that can be synced.
    pub(crate) fn open_to_sync(&self, path: &str) -> io::Result<File> {
        self.open_blob(path)
    }

    /// The length of a file; `None` for what is no file.
    pub(crate) fn file_bytes(&self, path: &str) -> io::Result<Option<u64>> {
        let stat = rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(is_file.then_some(u64::try_from(stat.st_size).unwrap_or_default()))
    }

    /// When a file was last written, in milliseconds since the Unix epoch; `None` for what is no file.
    pub(crate) fn file_written(&self, path: &str) -> io::Result<Option<u64>> {
        let metadata = self.open_blob(path)?.metadata()?;
        let since = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(metadata.is_file().then(|| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Moves a file within the folder.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.root, from, &self.root, to)?)
    }

    pub(crate) fn remove(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.root, path, AtFlags::empty())?)
    }

    /// Removes a sub-folder with nothing in it.
    pub(crate) fn remove_directory(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.root, path, AtFlags::REMOVEDIR)?)
    }

    /// Shows every entry of a sub-folder whose name is text; `.` is the folder itself.
    pub(crate) fn each_entry(&self, path: &str, mut visit: impl FnMut(&str)) -> io::Result<()> {
        let directory = rustix::fs::openat(&self.root, path, READ_DIRECTORY, Mode::empty())?;
        for entry in Dir::new(directory)? {
            if let Ok(name) = entry?.file_name().to_str() {
                visit(name);
            }
        }
        Ok(())
    }

    /// Makes the content of a file durable up to [`Folder::barrier`].
    pub(crate) fn sync_file(&self, file: &File) -> io::Result<()> {
        #[cfg(target_vendor = "apple")]
        return Ok(rustix::fs::fsync(file)?);
        #[cfg(not(target_vendor = "apple"))]
        file.sync_data()
    }

    /// Makes the content of a file durable for good.
    pub(crate) fn sync_file_now(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Makes the names in a sub-folder durable up to [`Folder::barrier`].
    pub(crate) fn sync_directory(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.open_directory(path)?)?)
    }

    /// Makes the names in the folder itself durable.
    pub(crate) fn sync_root(&self) -> io::Result<()> {
        rustix::fs::fsync(&self.root)?;
        self.barrier()
    }

    /// Ends a run of syncs: on Apple's systems fsync leaves data in the drive's cache, and one call empties it.
    pub(crate) fn barrier(&self) -> io::Result<()> {
        #[cfg(target_vendor = "apple")]
        rustix::fs::fcntl_fullfsync(&self.root).or_else(|_| rustix::fs::fsync(&self.root))?;
        Ok(())
    }

    /// Makes everything in the file system durable in one call, which costs one journal commit rather than one a file.
    /// `None` where that cannot be relied on.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn sync_filesystem(&self) -> Option<io::Result<()>> {
        let flushes_whole = *self.flushes_whole.get_or_init(|| is_flushed_whole(&self.root));
        flushes_whole.then(|| Ok(rustix::fs::syncfs(&self.root)?))
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn sync_filesystem(&self) -> Option<io::Result<()>> {
        None
    }
}

/// Local file systems only: a network or user-space one may not pass the call on. Linux reports failed write-back from
/// this call since 5.8.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_flushed_whole(root: &File) -> bool {
    const EXT: i128 = 0xef53;
    const XFS: i128 = 0x5846_5342;
    const BTRFS: i128 = 0x9123_683e;
    const F2FS: i128 = 0xf2f5_2010;
    const TMPFS: i128 = 0x0102_1994;
    let is_local = rustix::fs::fstatfs(root).is_ok_and(|filesystem| {
        // The field's type differs between architectures; the number has 32 bits.
        let magic = i128::from(filesystem.f_type) & 0xffff_ffff;
        [EXT, XFS, BTRFS, F2FS, TMPFS].contains(&magic)
    });
    let reports = std::fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|text| is_at_least_5_8(&text));
    is_local && reports
}

#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
fn is_at_least_5_8(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (5, 8),
        _ => false,
    }
}

/// Up to `length` bytes from `offset`; fewer only where the file ends.
pub(crate) fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let missing = length - bytes.len();
        let at = offset + bytes.len() as u64;
        // The spare capacity may be larger than what was asked for.
        let outcome = if bytes.capacity() == length {
            rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at)
        } else {
            let mut part = vec![0; missing];
            let outcome = rustix::io::pread(file, part.as_mut_slice(), at);
            bytes.extend(part.into_iter().take(*outcome.as_ref().unwrap_or(&0)));
            outcome
        };
        match outcome {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::is_at_least_5_8;

    #[test]
    fn kernel_releases_are_compared_as_numbers() {
        assert!(["5.8.0", "5.10.1-arch", "6.1\n", "10.0.0"].iter().all(|release| is_at_least_5_8(release)));
        assert!(["5.7.19", "4.19.0-21", "", "linux", "5"].iter().all(|release| !is_at_least_5_8(release)));
    }
}
