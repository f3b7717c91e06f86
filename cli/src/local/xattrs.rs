//! Extended attributes of files of this machine, as far as it has such and lets us.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::{name_of, reach};

/// Names and values.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What the program itself gives to unfinished files of the repository. No file of this machine has it: it is neither read from
/// one, should its system allow such a name, nor set.
pub(crate) const UNFINISHED: &[u8] = b"strongroom.unfinished";

/// The longest list of names, and the longest value, that a system gives.
const BYTES_MAX: usize = 64 << 10;

/// All that can be read of what is at a path, a link itself, names ascending; and why something that is there cannot be.
pub(crate) fn read(path: &Path) -> (Xattrs, Option<io::Error>) {
    // No call names what is in a folder by that.
    match reach::by_path(path, read_short) {
        Ok((xattrs, unread)) => (xattrs, unread.map(io::Error::from)),
        Err(error) => (Xattrs::new(), Some(error)),
    }
}

fn read_short(path: &Path) -> (Xattrs, Option<Errno>) {
    let listed = names(rustix::fs::llistxattr_query(path), |buffer| rustix::fs::llistxattr(path, buffer));
    let (mut names, mut unread) = match listed {
        Ok(names) => (names, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    names.retain(|name| name != UNFINISHED);
    let mut buffer = if names.is_empty() { Vec::new() } else { vec![0; BYTES_MAX] };
    let mut xattrs = Xattrs::new();
    for name in names {
        match rustix::fs::lgetxattr(path, name_of(&name), buffer.as_mut_slice()) {
            Ok(bytes) => xattrs.push((name, buffer.get(..bytes).unwrap_or_default().to_vec())),
            // One that went meanwhile.
            Err(error) if means_none(error) => {}
            Err(error) => unread = unread.or(Some(error)),
        }
    }
    xattrs.sort_unstable();
    (xattrs, unread)
}

/// Whether an error says that there is nothing to read, rather than that it cannot be read: what cannot be is no reason to take
/// it for gone.
fn means_none(error: Errno) -> bool {
    matches!(error, Errno::NODATA | Errno::NOENT | Errno::NOSYS | Errno::NOTSUP)
}

/// The names that there are, from how many bytes they take. Most files have none: that takes one call.
fn names(
    bytes: rustix::io::Result<usize>,
    list: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut buffer = match bytes {
        Ok(0) => return Ok(Vec::new()),
        Ok(_) => vec![0; BYTES_MAX],
        Err(error) => return if means_none(error) { Ok(Vec::new()) } else { Err(error) },
    };
    let listed = list(&mut buffer)?;
    let names = buffer.get(..listed).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// Access lists, which a file gets from the folder that it is made in: of itself, and of what is made in it.
const ACCESS_LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Takes away the access lists that an open file has and that are not among these: they would let in others than are known
/// of. Nothing else comes from the folder that it was made in; what else a folder has that was there before is somebody's.
///
/// # Errors
/// One could not be taken away.
pub(crate) fn remove_other_access_lists(descriptor: impl AsFd, xattrs: &Xattrs) -> io::Result<()> {
    let descriptor = descriptor.as_fd();
    let listed = names(rustix::fs::flistxattr_query(descriptor), |buffer| rustix::fs::flistxattr(descriptor, buffer));
    for name in listed.unwrap_or_default() {
        let is_list = ACCESS_LISTS.contains(&name.as_slice());
        if !is_list || xattrs.iter().any(|(known, _)| *known == name) {
            continue;
        }
        match rustix::fs::fremovexattr(descriptor, name_of(&name)) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(error) => {
                return Err(io::Error::other(format!("the access list that its folder gives it stays: {error}")));
            }
        }
    }
    Ok(())
}

/// Makes these the extended attributes of an open file, beside those that it has; answers how many could not be set.
pub(crate) fn set(descriptor: impl AsFd, xattrs: &Xattrs) -> u64 {
    let failed = xattrs.iter().filter(|(name, value)| {
        let set = rustix::fs::fsetxattr(descriptor.as_fd(), name_of(name), value, XattrFlags::empty());
        // What the system has given it already.
        set.is_err_and(|error| error != Errno::EXIST)
    });
    u64::try_from(failed.count()).unwrap_or(u64::MAX)
}

/// Makes these the extended attributes of a link in a folder; answers how many could not be set.
pub(crate) fn set_of_link(folder: impl AsFd, name: &str, xattrs: &Xattrs) -> u64 {
    // No call names what is in a folder by that. The descriptor of the folder is a path where the system shows those.
    let path = format!("/proc/self/fd/{}/{name}", folder.as_fd().as_raw_fd());
    let failed = xattrs.iter().filter(|(name, value)| {
        let set = rustix::fs::lsetxattr(&path, name_of(name), value, XattrFlags::empty());
        set.is_err_and(|error| error != Errno::EXIST)
    });
    u64::try_from(failed.count()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let xattrs = vec![(b"user.a".to_vec(), b"value".to_vec()), (b"user.\xff".to_vec(), vec![0; 1_000])];
        // Where the file system of the temporary folder has none, there is nothing to try.
        if set(file.as_file(), &xattrs) == 0 {
            let (mut read, unread) = read(file.path());
            assert!(unread.is_none());
            read.retain(|(name, _)| name.starts_with(b"user."));
            assert_eq!(read, xattrs);
        }
        assert_eq!(set(file.as_file(), &vec![(b"nowhere.a".to_vec(), Vec::new())]), 1);
        let (read, unread) = read(Path::new("/no/such/file"));
        assert!(read.is_empty() && unread.is_none());
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_gone() {
        let list = |_: &mut [u8]| -> rustix::io::Result<usize> { Err(Errno::IO) };
        assert_eq!(names(Ok(5), list), Err(Errno::IO));
        assert_eq!(names(Err(Errno::ACCESS), list), Err(Errno::ACCESS));
        for none in [Ok(0), Err(Errno::NOTSUP), Err(Errno::NODATA), Err(Errno::NOENT)] {
            assert_eq!(names(none, list), Ok(Vec::new()));
        }
    }
}
