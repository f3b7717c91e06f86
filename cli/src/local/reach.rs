//! Paths of this machine that may be longer than its system takes at once.
//!
//! Trees can be deeper than any one call can name: folders are made in folders, by relative paths. A path that is too long is
//! taken in steps, each from the folder that the step before opened, and only the last of them is held open. Shorter ones
//! are given to the system as they are. Links on the way are followed, as the system does by itself.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dir, Mode, OFlags};

use super::{bytes_of, name_of};

/// The longest path that a call takes: `PATH_MAX` without the byte at its end, and where that is not 4096 it is not less than
/// 1024.
const STEP_BYTES_MAX: usize = if cfg!(target_os = "linux") { 4095 } else { 1023 };

/// What is opened only to be looked at or gone through needs not be readable, where the system knows the difference.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const LOOK: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A path as calls take it: from a folder on.
pub(crate) struct Reached {
    /// `None` where the path is short enough to be taken from where the program is.
    folder: Option<OwnedFd>,
    rest: OsString,
}

impl Reached {
    /// Takes all steps to a path but the last.
    fn at(path: &Path) -> io::Result<Self> {
        let mut folder: Option<OwnedFd> = None;
        let mut rest = bytes_of(path.as_os_str());
        while rest.len() > STEP_BYTES_MAX {
            let within = rest.get(..=STEP_BYTES_MAX).unwrap_or(rest);
            // A single name of that length is no system's, and it says so.
            let Some(slash) = within.iter().rposition(|byte| *byte == b'/').filter(|slash| *slash > 0) else { break };
            let (step, next) = rest.split_at(slash);
            let from = folder.as_ref().map_or(CWD, |folder| folder.as_fd());
            folder = Some(rustix::fs::openat(from, name_of(step), LOOK.union(OFlags::DIRECTORY), Mode::empty())?);
            // Behind the slashes; with them it would begin at the root again.
            let start = next.iter().position(|byte| *byte != b'/').unwrap_or(next.len());
            rest = next.get(start..).unwrap_or_default();
        }
        Ok(Self { folder, rest: name_of(rest) })
    }

    fn from(&self) -> BorrowedFd<'_> {
        self.folder.as_ref().map_or(CWD, |folder| folder.as_fd())
    }
}

/// Opens what is at a path.
pub(crate) fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let reached = Reached::at(path)?;
    Ok(rustix::fs::openat(reached.from(), &reached.rest, flags.union(OFlags::CLOEXEC), Mode::empty())?)
}

/// What is known of what is at a path, of a link itself.
pub(crate) fn metadata(path: &Path) -> io::Result<Metadata> {
    if path.as_os_str().len() <= STEP_BYTES_MAX {
        return std::fs::symlink_metadata(path);
    }
    File::from(open(path, LOOK.union(OFlags::NOFOLLOW))?).metadata()
}

/// Where a link leads.
pub(crate) fn read_link(path: &Path) -> io::Result<Vec<u8>> {
    let reached = Reached::at(path)?;
    Ok(rustix::fs::readlinkat(reached.from(), &reached.rest, Vec::new())?.into_bytes())
}

/// The names in a folder, in whatever order.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::new(open(folder, OFlags::RDONLY | OFlags::DIRECTORY)?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name_of(name));
        }
    }
    Ok(names)
}

/// Does something by a path that no call does from a folder on. A long one leads there by way of the descriptor of the folder,
/// where the system shows those as paths.
pub(crate) fn by_path<T>(path: &Path, work: impl FnOnce(&Path) -> T) -> io::Result<T> {
    if path.as_os_str().len() <= STEP_BYTES_MAX {
        return Ok(work(path));
    }
    let parent = path.parent().unwrap_or(path);
    let folder = open(parent, LOOK.union(OFlags::DIRECTORY))?;
    let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder));
    Ok(work(&Path::new(&through).join(path.file_name().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder below `root` whose path is much longer than a call takes, and its path.
    fn deep(root: &Path) -> (OwnedFd, std::path::PathBuf) {
        let (name, mut path) = ("n".repeat(200), root.to_owned());
        let mut folder = open(root, OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        while path.as_os_str().len() < 3 * STEP_BYTES_MAX {
            rustix::fs::mkdirat(&folder, &name, Mode::RWXU).unwrap();
            folder = rustix::fs::openat(&folder, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
            path.push(&name);
        }
        (folder, path)
    }

    #[test]
    fn what_is_deeper_than_a_call_can_name_is_looked_at_like_anything_else() {
        use std::io::{Read as _, Write as _};
        let root = tempfile::tempdir().unwrap();
        let (folder, path) = deep(root.path());
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let file = rustix::fs::openat(&folder, "file", flags, Mode::RUSR | Mode::WUSR).unwrap();
        File::from(file).write_all(b"deep").unwrap();
        rustix::fs::symlinkat("nowhere", &folder, "link").unwrap();

        assert_eq!(std::fs::metadata(&path).unwrap_err().kind(), io::ErrorKind::InvalidFilename);
        let mut found = names(&path).unwrap();
        found.sort();
        assert_eq!(found, ["file", "link"]);
        let mut content = String::new();
        File::from(open(&path.join("file"), OFlags::RDONLY).unwrap()).read_to_string(&mut content).unwrap();
        assert_eq!(content, "deep");
        assert_eq!(metadata(&path.join("file")).unwrap().len(), 4);
        assert!(metadata(&path.join("link")).unwrap().is_symlink() && metadata(&path).unwrap().is_dir());
        assert_eq!(read_link(&path.join("link")).unwrap(), b"nowhere");
        assert_eq!(
            by_path(&path.join("link"), |path| std::fs::read_link(path).unwrap()).unwrap(),
            Path::new("nowhere")
        );
        for absent in [path.join("absent"), path.join("absent/file")] {
            assert_eq!(metadata(&absent).unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(open(&absent, OFlags::RDONLY).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        // Slashes that stand together are one, wherever the steps end.
        let doubled = path.to_str().unwrap().replace('/', "///");
        assert_eq!(names(Path::new(&doubled)).unwrap().len(), 2);
        let name = Path::new("/").join("n".repeat(2 * STEP_BYTES_MAX));
        assert_eq!(metadata(&name).unwrap_err().kind(), io::ErrorKind::InvalidFilename);
    }
}
