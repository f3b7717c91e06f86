//! Writing a tree to this machine, so that nothing in a repository can reach outside of it.
//!
//! Names come from a repository and are not trusted: every step is taken from an open folder, by one name, without
//! following a link. A file is written without a name, or under another one where the file system has no files without, and
//! gets its own when it is whole: what stood there before is replaced at once or not at all, and nothing half written stays
//! behind a process that is killed. The files of the repository itself are never written over.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(target_os = "linux")]
use rustix::fs::Access;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::own::Own;
use super::source::Identity;
use super::way::{self, FOLDER};
use super::xattrs::{self, Xattrs};
use super::{Attributes, name_of};

/// Pieces of this size that are all zero become holes.
const HOLE_BYTES: usize = 4096;
/// Bits that mean something else when the owner is another.
const SET_ID_BITS: u32 = 0o6000;

/// Of what is not whole yet: for nobody else.
const DRAFT_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Where an open file can be come at by a path (proc(5)).
fn by_descriptor(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// An open folder that is written into.
#[derive(Clone)]
pub(crate) struct Folder {
    descriptor: Arc<OwnedFd>,
    /// What nothing in it may lead to.
    own: Own,
}

impl Folder {
    /// The folder that the user named; it is created where it is missing.
    pub(crate) fn at(path: &Path, own: Own) -> io::Result<Self> {
        way::refuse_file(path)?;
        std::fs::create_dir_all(path)?;
        Self::existing(path, own)
    }

    /// The folder that the user named, which is there.
    pub(crate) fn existing(path: &Path, own: Own) -> io::Result<Self> {
        Ok(Self { descriptor: Arc::new(rustix::fs::openat(CWD, path, FOLDER, Mode::empty())?), own })
    }

    /// The folder of that name in this one; it is created where it is missing.
    pub(crate) fn enter(&self, name: &[u8]) -> io::Result<Self> {
        let name = name_of(way::to_be(&*self.descriptor, name, &self.own)?);
        match rustix::fs::mkdirat(&*self.descriptor, &name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let Some((descriptor, stat)) = way::folder(&*self.descriptor, &name, &self.own)? else {
            return Err(Errno::NOENT.into());
        };
        // An earlier export may have left it read-only; its final mode is set when it is finished.
        if stat.st_mode & 0o700 != 0o700 {
            let _ = rustix::fs::fchmod(&descriptor, Mode::from_raw_mode(stat.st_mode | 0o700));
        }
        Ok(Self { descriptor: Arc::new(descriptor), own: self.own.clone() })
    }

    /// A folder further down, by the names that lead there; none of them may be a link.
    fn below(&self, names: &[Vec<u8>]) -> io::Result<Self> {
        names.iter().try_fold(self.clone(), |folder, name| {
            let flags = FOLDER.union(OFlags::NOFOLLOW);
            let inner = rustix::fs::openat(&*folder.descriptor, name_of(way::checked(name)?), flags, Mode::empty())?;
            Ok(Self { descriptor: Arc::new(inner), own: self.own.clone() })
        })
    }

    /// Gives a file that was written below `top` one more name, in this folder. Refused where another is there now.
    pub(crate) fn link(&self, name: &[u8], top: &Self, first: &[Vec<u8>], identity: Identity) -> io::Result<()> {
        let name = self.replaceable(name)?;
        let (first, folders) = first.split_last().ok_or_else(|| io::Error::other("no name to link to"))?;
        let from = top.below(folders)?;
        let first = name_of(way::checked(first)?);
        let (draft, ()) = self
            .fresh(|draft| rustix::fs::linkat(&*from.descriptor, &first, &*self.descriptor, draft, AtFlags::empty()))?;
        let done = rustix::fs::statat(&*self.descriptor, &draft, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from);
        let done = done.and_then(|there| {
            if Identity::of_stat(&there) != identity {
                return Err(io::Error::other("another file has taken its place"));
            }
            self.put_in_place(&draft, name)
        });
        // Renaming one name of a file over another of the same file does nothing, and leaves it.
        let _ = rustix::fs::unlinkat(&*self.descriptor, &draft, AtFlags::empty());
        done
    }

    /// Begins a file that will have that name.
    pub(crate) fn create(&self, name: &[u8]) -> io::Result<Draft> {
        let name = self.replaceable(name)?.to_vec();
        match self.nameless() {
            Some(descriptor) => Ok(self.draft(name, None, descriptor)),
            None => self.create_named(name),
        }
    }

    /// Begins a file under a name of its own for the time being.
    fn create_named(&self, name: Vec<u8>) -> io::Result<Draft> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (draft, descriptor) =
            self.fresh(|draft| rustix::fs::openat(&*self.descriptor, draft, flags, DRAFT_MODE))?;
        Ok(self.draft(name, Some(draft), descriptor))
    }

    fn draft(&self, name: Vec<u8>, draft: Option<String>, descriptor: OwnedFd) -> Draft {
        Draft { folder: self.clone(), name, draft, file: File::from(descriptor), length: 0 }
    }

    /// A file in this folder that has no name, and is gone with the process. `None` where the file system has no such
    /// files, or nothing could give it a name later: whatever else is wrong shows where one with a name is made.
    #[cfg(target_os = "linux")]
    fn nameless(&self) -> Option<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(&*self.descriptor, ".", flags, DRAFT_MODE).ok()?;
        rustix::fs::access(by_descriptor(&descriptor), Access::EXISTS).ok()?;
        Some(descriptor)
    }

    #[cfg(not(target_os = "linux"))]
    fn nameless(&self) -> Option<OwnedFd> {
        None
    }

    /// Gives a file that has no name yet that one.
    fn name(&self, file: &File, name: &[u8]) -> io::Result<()> {
        let from = by_descriptor(file);
        let link = |to: &OsStr| rustix::fs::linkat(CWD, &from, &*self.descriptor, to, AtFlags::SYMLINK_FOLLOW);
        match link(name_of(name).as_ref()) {
            Err(Errno::EXIST) => {}
            done => return Ok(done?),
        }
        // A link replaces nothing, and renaming wants a name.
        let (draft, ()) = self.fresh(|draft| link(draft.as_ref()))?;
        let done = self.put_in_place(&draft, name);
        if done.is_err() {
            let _ = rustix::fs::unlinkat(&*self.descriptor, &draft, AtFlags::empty());
        }
        done
    }

    /// Writes a link; its target is data and is never followed. Answers which link it is, and how many extended attributes
    /// could not be set.
    pub(crate) fn symlink(
        &self,
        name: &[u8],
        target: &[u8],
        attributes: &Attributes,
        xattrs: &Xattrs,
    ) -> io::Result<(Identity, u64)> {
        let name = self.replaceable(name)?;
        let (draft, ()) = self.fresh(|draft| rustix::fs::symlinkat(name_of(target), &*self.descriptor, draft))?;
        let (owner, group) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        // Only root can give files away; the owner of a link means little otherwise.
        let _ = rustix::fs::chownat(&*self.descriptor, &draft, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW);
        let unset = xattrs::set_of_link(&*self.descriptor, &draft, xattrs);
        let done = rustix::fs::utimensat(&*self.descriptor, &draft, &times(attributes), AtFlags::SYMLINK_NOFOLLOW)
            .and_then(|()| rustix::fs::statat(&*self.descriptor, &draft, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(io::Error::from)
            .and_then(|stat| self.put_in_place(&draft, name).map(|()| (Identity::of_stat(&stat), unset)));
        if done.is_err() {
            let _ = rustix::fs::unlinkat(&*self.descriptor, &draft, AtFlags::empty());
        }
        done
    }

    /// Gives the folder its attributes, after everything in it was written.
    /// Answers how many extended attributes could not be set.
    pub(crate) fn finish(&self, attributes: &Attributes, xattrs: &Xattrs) -> io::Result<u64> {
        apply(&*self.descriptor, attributes, xattrs)
    }

    /// Refuses a name whose place is not to be taken.
    fn replaceable<'a>(&self, name: &'a [u8]) -> io::Result<&'a [u8]> {
        way::replaceable(&*self.descriptor, name, &self.own)
    }

    /// Gives what is whole its name.
    fn put_in_place(&self, draft: &str, name: &[u8]) -> io::Result<()> {
        let folder = &*self.descriptor;
        rustix::fs::renameat(folder, draft, folder, name_of(name)).map_err(|error| match error {
            Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => way::folder_is_in_the_way(),
            error => error.into(),
        })
    }

    /// Makes something under a name that nothing has.
    fn fresh<T>(&self, mut make: impl FnMut(&str) -> rustix::io::Result<T>) -> io::Result<(String, T)> {
        static DRAFTS: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
            let draft = format!(".strongroom-{}-{number}.part", std::process::id());
            match make(&draft) {
                Ok(made) => return Ok((draft, made)),
                // Left behind by a process of the same number that was killed.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A file that is being written; it gets its name when it is finished, and vanishes when it is dropped before.
pub(crate) struct Draft {
    folder: Folder,
    name: Vec<u8>,
    /// The name that it has until then, if it has one.
    draft: Option<String>,
    file: File,
    length: u64,
}

impl Draft {
    /// Writes at the end; long runs of zeros become holes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Runs of pieces with data go out in one call.
        let mut pending = (self.length, 0, 0);
        let mut position = 0_usize;
        for piece in bytes.chunks(HOLE_BYTES) {
            let zero = piece.iter().all(|byte| *byte == 0);
            if zero {
                self.write_run(bytes, pending)?;
                pending = (0, 0, 0);
            } else if pending.1 == pending.2 {
                pending = (self.length, position, position + piece.len());
            } else {
                pending.2 += piece.len();
            }
            position += piece.len();
            self.length += u64::try_from(piece.len()).unwrap_or_default();
        }
        self.write_run(bytes, pending)
    }

    /// Leaves a hole at the end.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.length += bytes;
    }

    fn write_run(&self, bytes: &[u8], (offset, start, end): (u64, usize, usize)) -> io::Result<()> {
        match bytes.get(start..end) {
            Some(run) if !run.is_empty() => self.file.write_all_at(run, offset),
            _ => Ok(()),
        }
    }

    /// Sets length and attributes, and gives the file its name; answers which file it is, and how many extended attributes
    /// could not be set.
    pub(crate) fn finish(mut self, attributes: &Attributes, xattrs: &Xattrs) -> io::Result<(Identity, u64)> {
        self.file.set_len(self.length)?;
        let unset = apply(&self.file, attributes, xattrs)?;
        match &self.draft {
            Some(draft) => self.folder.put_in_place(draft, &self.name)?,
            None => self.folder.name(&self.file, &self.name)?,
        }
        self.draft = None;
        Ok((Identity::of_stat(&rustix::fs::fstat(&self.file)?), unset))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(draft) = &self.draft {
            let _ = rustix::fs::unlinkat(&*self.folder.descriptor, draft, AtFlags::empty());
        }
    }
}

/// Answers how many extended attributes could not be set.
fn apply(descriptor: impl AsFd, attributes: &Attributes, xattrs: &Xattrs) -> io::Result<u64> {
    let descriptor = descriptor.as_fd();
    let stat = rustix::fs::fstat(descriptor)?;
    let mut mode = attributes.mode;
    if (stat.st_uid, stat.st_gid) != (attributes.uid, attributes.gid) {
        let (owner, group) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        let given = rustix::fs::fchown(descriptor, Some(owner), Some(group));
        // Only root can give files away. A file that stays ours must not run as us for others.
        if given.is_err() {
            mode &= !SET_ID_BITS;
        }
    }
    // Before the mode: in an access list that the folder around it has given, the bits of the group would be what all of
    // the list may have.
    xattrs::remove_other_access_lists(descriptor, xattrs)?;
    // Where its own list cannot be set, nobody is to have more than with it.
    rustix::fs::fchmod(descriptor, Mode::from_raw_mode(xattrs::mode_without_list(mode, xattrs)))?;
    // After the owner, whose change takes capabilities away.
    let unset = xattrs::set(descriptor, xattrs);
    rustix::fs::futimens(descriptor, &times(attributes))?;
    Ok(unset)
}

fn times(attributes: &Attributes) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: attributes.seconds, tv_nsec: attributes.nanos.into() },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    const ATTRIBUTES: Attributes = Attributes { mode: 0o640, uid: 0, gid: 0, seconds: 1_000_000, nanos: 123 };

    #[test]
    fn a_finished_file_has_its_content_and_attributes_and_no_draft_stays() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(&root.path().join("new/dest"), Own::default()).unwrap();
        let mut content = vec![7; 10_000];
        content.extend(vec![0; 100_000]);
        content.extend(b"end");
        let mut draft = folder.create(b"file\xff").unwrap();
        for piece in content.chunks(33_333) {
            draft.write(piece).unwrap();
        }
        draft.finish(&ATTRIBUTES, &Xattrs::new()).unwrap();
        drop(folder.create(b"aborted").unwrap());
        let dest = root.path().join("new/dest");
        let path = dest.join(name_of(b"file\xff"));
        assert!(std::fs::read(&path).unwrap() == content);
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.mtime(), metadata.mtime_nsec()), (0o640, 1_000_000, 123));
        assert_eq!(std::fs::read_dir(dest).unwrap().count(), 1);
    }

    #[test]
    fn no_name_and_no_link_leads_out_of_the_destination() {
        let root = tempfile::tempdir().unwrap();
        let (dest, outside) = (root.path().join("dest"), root.path().join("outside"));
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("victim"), "kept").unwrap();
        let folder = Folder::at(&dest, Own::default()).unwrap();
        symlink(&outside, dest.join("folder")).unwrap();
        symlink(outside.join("victim"), dest.join("file")).unwrap();

        assert!(folder.enter(b"folder").is_err());
        let mut draft = folder.create(b"file").unwrap();
        draft.write(b"new").unwrap();
        draft.finish(&ATTRIBUTES, &Xattrs::new()).unwrap();
        assert_eq!(std::fs::read(outside.join("victim")).unwrap(), b"kept");
        assert!(dest.join("file").symlink_metadata().unwrap().is_file());
        for name in [&b".."[..], b".", b"", b"a/b", b"../outside/x", b"/etc/x", b"a\0b"] {
            assert!(folder.enter(name).is_err());
            assert!(folder.create(name).is_err());
            assert!(folder.symlink(name, b"target", &ATTRIBUTES, &Xattrs::new()).is_err());
        }
    }

    #[test]
    fn a_name_that_the_repository_may_look_for_is_not_given_to_anything() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("folder")).unwrap();
        let own = Own::new(vec![root.path().join("folder/db-journal")]);
        let top = Folder::at(root.path(), own).unwrap();
        let folder = top.enter(b"folder").unwrap();
        let name = b"db-journal";
        assert!(folder.create(name).is_err() && folder.enter(name).is_err());
        assert!(folder.symlink(name, b"target", &ATTRIBUTES, &Xattrs::new()).is_err());
        let (identity, _) = top.create(name).unwrap().finish(&ATTRIBUTES, &Xattrs::new()).unwrap();
        assert!(folder.link(name, &top, &[name.to_vec()], identity).is_err());
        folder.link(b"other", &top, &[name.to_vec()], identity).unwrap();
        assert_eq!(std::fs::read_dir(root.path().join("folder")).unwrap().count(), 1);
    }

    #[test]
    fn what_is_half_written_has_no_name_and_what_stood_there_is_replaced_at_once() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(root.path(), Own::default()).unwrap();
        let names = || -> Vec<_> {
            let entries = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        // Where this folder is on a file system that has no files without a name, both are with one.
        let can_be_nameless = folder.nameless().is_some();
        for (turn, named) in [(0, false), (1, true), (2, false)] {
            let mut draft = if named { folder.create_named(b"file".to_vec()) } else { folder.create(b"file") }.unwrap();
            draft.write(format!("turn {turn}").as_bytes()).unwrap();
            let others = names().into_iter().filter(|name| name != "file").count();
            assert_eq!(others, usize::from(named || !can_be_nameless));
            let (identity, _) = draft.finish(&ATTRIBUTES, &Xattrs::new()).unwrap();
            assert_eq!(names(), ["file"]);
            let path = root.path().join("file");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("turn {turn}"));
            let metadata = path.metadata().unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.nlink(), metadata.mtime()), (0o640, 1, 1_000_000));
            folder.link(b"other", &folder, &[b"file".to_vec()], identity).unwrap();
            std::fs::remove_file(root.path().join("other")).unwrap();
            drop(if named { folder.create_named(b"gone".to_vec()) } else { folder.create(b"gone") }.unwrap());
            assert_eq!(names(), ["file"]);
        }
    }

    #[test]
    fn a_file_whose_access_list_cannot_be_set_lets_nobody_in_that_it_did_not() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(root.path(), Own::default()).unwrap();
        let attributes = Attributes { mode: 0o664, ..ATTRIBUTES };
        // One without an entry for others, which no system takes.
        let list = xattrs::tests::access_list(&[(1, 6), (2, 6), (4, 0), (16, 6)]);
        let xattrs = vec![(b"system.posix_acl_access".to_vec(), list)];
        let (_, unset) = folder.create(b"file").unwrap().finish(&attributes, &xattrs).unwrap();
        let mode = |name: &str| root.path().join(name).metadata().unwrap().mode() & 0o7777;
        assert_eq!((unset, mode("file")), (1, 0o604));
        let inner = folder.enter(b"folder").unwrap();
        assert_eq!((inner.finish(&attributes, &xattrs).unwrap(), mode("folder")), (1, 0o604));
    }

    #[test]
    fn links_replace_links_and_a_folder_in_the_way_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(root.path(), Own::default()).unwrap();
        for target in [&b"one"[..], b"/two"] {
            folder.symlink(b"link", target, &ATTRIBUTES, &Xattrs::new()).unwrap();
            assert_eq!(std::fs::read_link(root.path().join("link")).unwrap(), Path::new(&name_of(target)));
        }
        std::fs::create_dir(root.path().join("taken")).unwrap();
        let draft = folder.create(b"late").unwrap();
        let named = folder.create_named(b"late".to_vec()).unwrap();
        for name in ["taken", "late"] {
            let _ = std::fs::create_dir(root.path().join(name));
        }
        // Nothing is written for what has no place, and a folder that comes later is in the way as well.
        let refusals = [
            folder.create(b"taken").err().unwrap(),
            folder.symlink(b"taken", b"target", &ATTRIBUTES, &Xattrs::new()).err().unwrap(),
            draft.finish(&ATTRIBUTES, &Xattrs::new()).err().unwrap(),
            named.finish(&ATTRIBUTES, &Xattrs::new()).err().unwrap(),
        ];
        assert!(refusals.iter().all(|refusal| refusal.to_string() == "a folder is in the way"), "{refusals:?}");
        std::fs::remove_dir(root.path().join("late")).unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 2);
    }
}
