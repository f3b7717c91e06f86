//! What is in the way of what is to be written: looked at before anything is written, and by itself where it is only to be
//! shown what would be.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::name_of;
use super::own::Own;
use super::source::Identity;

pub(super) const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A folder that would be written into. Nothing in it is touched.
#[derive(Clone)]
pub(crate) struct Way {
    /// `None` where it is not there yet: nothing is in the way.
    descriptor: Option<Arc<OwnedFd>>,
    /// What nothing in it may lead to.
    own: Own,
}

impl Way {
    /// To the folder that the user named.
    pub(crate) fn at(path: &Path, own: Own) -> io::Result<Self> {
        refuse_file(path)?;
        for ancestor in path.ancestors() {
            let there = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
            match rustix::fs::openat(CWD, there, FOLDER, Mode::empty()) {
                Ok(descriptor) if ancestor == path => {
                    return Ok(Self { descriptor: Some(Arc::new(descriptor)), own });
                }
                Ok(descriptor) => {
                    refuse_unwritable(&descriptor)?;
                    break;
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { descriptor: None, own })
    }

    /// To the folder of that name in this one.
    pub(crate) fn enter(&self, name: &[u8]) -> io::Result<Self> {
        checked(name)?;
        let Some(around) = &self.descriptor else { return Ok(self.clone()) };
        let name = name_of(to_be(&**around, name, &self.own)?);
        match folder(&**around, &name, &self.own)? {
            Some((descriptor, _)) => Ok(Self { descriptor: Some(Arc::new(descriptor)), own: self.own.clone() }),
            None => {
                refuse_unwritable(&**around)?;
                Ok(Self { descriptor: None, own: self.own.clone() })
            }
        }
    }

    /// To a file or a link of that name in this folder.
    pub(crate) fn refuse(&self, name: &[u8]) -> io::Result<()> {
        checked(name)?;
        let Some(folder) = &self.descriptor else { return Ok(()) };
        replaceable(&**folder, name, &self.own)?;
        refuse_unwritable(&**folder)
    }
}

/// Refuses a path of which something that is no folder has the place, a link that leads nowhere too.
pub(super) fn refuse_file(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok() && !path.is_dir() {
        return Err(something_is_in_the_way());
    }
    Ok(())
}

/// Refuses what is not the name of something in this very folder.
pub(super) fn checked(name: &[u8]) -> io::Result<&[u8]> {
    let fit = !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0);
    if fit { Ok(name) } else { Err(io::Error::other("this name would leave its folder")) }
}

/// Refuses a name that the repository may look for in a folder, whether anything has it or not.
pub(super) fn to_be<'a>(folder: impl AsFd, name: &'a [u8], own: &Own) -> io::Result<&'a [u8]> {
    let name = checked(name)?;
    let here = Identity::of_stat(&rustix::fs::fstat(folder)?);
    if own.is_named(here, name) { Err(own_is_in_the_way()) } else { Ok(name) }
}

/// Opens the folder of that name; `None` where nothing has it.
pub(super) fn folder(around: impl AsFd, name: &std::ffi::OsStr, own: &Own) -> io::Result<Option<(OwnedFd, Stat)>> {
    let descriptor = match rustix::fs::openat(around, name, FOLDER.union(OFlags::NOFOLLOW), Mode::empty()) {
        Ok(descriptor) => descriptor,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(something_is_in_the_way()),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&descriptor)?;
    if own.is(Identity::of_stat(&stat)) {
        return Err(own_is_in_the_way());
    }
    Ok(Some((descriptor, stat)))
}

/// Refuses a name whose place no file and no link is to take.
pub(super) fn replaceable<'a>(folder: impl AsFd, name: &'a [u8], own: &Own) -> io::Result<&'a [u8]> {
    let name = to_be(folder.as_fd(), name, own)?;
    match rustix::fs::statat(folder, name_of(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) if own.is(Identity::of_stat(&there)) => Err(own_is_in_the_way()),
        Ok(there) if FileType::from_raw_mode(there.st_mode) == FileType::Directory => Err(folder_is_in_the_way()),
        _ => Ok(name),
    }
}

/// Refuses a folder that cannot be written into, and would not be made so.
fn refuse_unwritable(folder: impl AsFd) -> io::Result<()> {
    let folder = folder.as_fd();
    let all = Access::WRITE_OK.union(Access::EXEC_OK);
    match rustix::fs::accessat(folder, ".", all, AtFlags::EACCESS) {
        // Its owner, who may be us, lacks a bit, and gets it when it is entered.
        Err(Errno::ACCESS) if rustix::fs::fstat(folder)?.st_mode & 0o700 != 0o700 => Ok(()),
        Err(error @ (Errno::ACCESS | Errno::ROFS)) => Err(error.into()),
        _ => Ok(()),
    }
}

pub(super) fn folder_is_in_the_way() -> io::Error {
    io::Error::other("a folder is in the way")
}

fn something_is_in_the_way() -> io::Error {
    io::Error::other("something that is not a folder is in the way")
}

fn own_is_in_the_way() -> io::Error {
    io::Error::other("the repository itself is in the way")
}
