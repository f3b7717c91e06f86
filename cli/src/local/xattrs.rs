//! Extended attributes of files of this machine, as far as it has such and lets us.

use std::os::fd::AsFd;
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
    // Most files have none: that takes one call.
    if !rustix::fs::llistxattr_query(path).is_ok_and(|bytes| bytes > 0) {
        return Vec::new();
    }
    let mut buffer = vec![0; BYTES_MAX];
    let Ok(listed) = rustix::fs::llistxattr(path, buffer.as_mut_slice()) else { return Vec::new() };
    let names = buffer
        .get(..listed)
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && *name != UNFINISHED);
    let names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
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

/// Makes these the extended attributes of an open file, beside those that it has; answers how many could not be set.
pub(crate) fn set(descriptor: impl AsFd, xattrs: &Xattrs) -> u64 {
    let failed = xattrs.iter().filter(|(name, value)| {
        let set = rustix::fs::fsetxattr(descriptor.as_fd(), name_of(name), value, XattrFlags::empty());
        // What the system has given it already.
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
