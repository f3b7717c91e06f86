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

/// The list of who may do what with a file itself.
const ACCESS_LIST: &[u8] = ACCESS_LISTS[0];
/// Of the entries of such a list (linux/posix_acl_xattr.h: a version of 4 bytes, then tag, rights and id in 2, 2 and 4), those of
/// the group itself, and of what anybody but the owner and others has at most.
const GROUP_TAG: u16 = 0x04;
const MASK_TAG: u16 = 0x10;

/// The mode that a file with these extended attributes has without its access list, where it has one: with it, the bits of
/// the group are what anybody in the list may have at most, and without they would be what the group has. The list, when it is
/// set, puts them back.
pub(crate) fn mode_without_list(mode: u32, xattrs: &Xattrs) -> u32 {
    let Some((_, list)) = xattrs.iter().find(|(name, _)| name == ACCESS_LIST) else { return mode };
    let entries = list.get(4..).unwrap_or_default().chunks_exact(8);
    let rights_of = |wanted: u16| {
        entries.clone().find_map(|entry| match entry {
            [tag, tag_high, rights, ..] if u16::from_le_bytes([*tag, *tag_high]) == wanted => {
                Some(u32::from(*rights) & 0o7)
            }
            _ => None,
        })
    };
    let group = rights_of(GROUP_TAG).unwrap_or(0) & rights_of(MASK_TAG).unwrap_or(0o7);
    mode & !0o070 | group << 3
}

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
pub(crate) mod tests {
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

    /// An access list of these tags and rights.
    pub(crate) fn access_list(entries: &[(u16, u8)]) -> Vec<u8> {
        let entry = |(tag, rights): &(u16, u8)| [&tag.to_le_bytes()[..], &[*rights, 0], &[0xff; 4]].concat();
        [vec![2, 0, 0, 0], entries.iter().flat_map(entry).collect()].concat()
    }

    #[test]
    fn without_its_list_a_file_gives_nobody_more_than_with_it() {
        let mode = |mode, list: Vec<u8>| mode_without_list(mode, &vec![(ACCESS_LIST.to_vec(), list)]);
        let (owner, user, group, mask, other) = ((1, 6), (2, 6), (4, 0), (16, 6), (32, 4));
        assert_eq!(mode(0o664, access_list(&[owner, user, group, mask, other])), 0o604);
        assert_eq!(mode(0o6664, access_list(&[owner, user, (4, 7), (16, 4), other])), 0o6644);
        assert_eq!(mode(0o664, access_list(&[owner, (4, 6), other])), 0o664);
        // What is no list says nothing for the group.
        assert_eq!((mode(0o664, Vec::new()), mode(0o664, vec![1; 7])), (0o604, 0o604));
        assert_eq!(mode_without_list(0o664, &vec![(b"user.a".to_vec(), vec![1])]), 0o664);
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
