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

/// All that can be read of what is at a path, a link itself; names ascending.
pub(crate) fn read(path: &Path) -> Xattrs {
    // No call names what is in a folder by that.
    reach::by_path(path, read_short).unwrap_or_default()
}

fn read_short(path: &Path) -> Xattrs {
    let mut names = names(rustix::fs::llistxattr_query(path), |buffer| rustix::fs::llistxattr(path, buffer));
    names.retain(|name| name != UNFINISHED);
    let mut buffer = if names.is_empty() { Vec::new() } else { vec![0; BYTES_MAX] };
    let mut xattrs = Xattrs::new();
    for name in names {
        // One that went meanwhile, or that is kept from us, is not there for us.
        if let Ok(bytes) = rustix::fs::lgetxattr(path, name_of(&name), buffer.as_mut_slice()) {
            xattrs.push((name, buffer.get(..bytes).unwrap_or_default().to_vec()));
        }
    }
    xattrs.sort_unstable();
    xattrs
}

/// The names that there are, from how many bytes they take. Most files have none: that takes one call.
fn names(bytes: rustix::io::Result<usize>, list: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>) -> Vec<Vec<u8>> {
    if !bytes.is_ok_and(|bytes| bytes > 0) {
        return Vec::new();
    }
    let mut buffer = vec![0; BYTES_MAX];
    let Ok(listed) = list(&mut buffer) else { return Vec::new() };
    let names = buffer.get(..listed).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(<[u8]>::to_vec).collect()
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
    for name in names(rustix::fs::flistxattr_query(descriptor), |buffer| rustix::fs::flistxattr(descriptor, buffer)) {
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
            let mut read = read(file.path());
            read.retain(|(name, _)| name.starts_with(b"user."));
            assert_eq!(read, xattrs);
        }
        assert_eq!(set(file.as_file(), &vec![(b"nowhere.a".to_vec(), Vec::new())]), 1);
        assert_eq!(read(Path::new("/no/such/file")), Xattrs::new());
    }
}
