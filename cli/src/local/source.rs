//! Walking and reading a tree of this machine, in one order whatever order the system lists it in.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, OFlags, SeekFrom};
use rustix::io::Errno;

use strongroom::fs::{ContentTag, PATH_BYTES_MAX};

use super::exclude::{self, Exclude};
use super::mapped::Mapped;
use super::own::Own;
use super::{Attributes, MODE_BITS, bytes_of, name_of, reach};

/// What an entry is.
#[derive(Debug)]
pub(crate) enum Kind {
    Directory,
    File {
        size: u64,
    },
    Symlink {
        target: Vec<u8>,
    },
    /// A device, FIFO or socket: named, not stored.
    Special(&'static str),
}

/// A file, folder or link of the source.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where it is on this machine.
    pub(crate) path: PathBuf,
    /// Its path from the name of the SRC on, as bytes.
    pub(crate) relative: Vec<u8>,
    pub(crate) attributes: Attributes,
    pub(crate) kind: Kind,
    pub(crate) identity: Identity,
    /// What the content of a file is known by.
    pub(crate) tag: ContentTag,
    /// How many names the file or link has.
    pub(crate) names: u64,
    /// Of a folder: what is in it is left out, whatever it is.
    pub(crate) bare: bool,
}

/// What the walk meets. Folders are entered and left; everything below lies between the two.
#[derive(Debug)]
pub(crate) enum Event {
    Enter(Entry),
    /// The folder with this path from the name of the SRC on is done.
    Leave(Entry),
    Leaf(Entry),
    /// A file or folder of the repository's own storage: neither read nor gone into.
    Storage(PathBuf),
    /// It cannot be read; the walk goes on without it.
    Unreadable(PathBuf, io::Error),
}

/// What a walk leaves out.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) exclude: Exclude,
    pub(crate) exclude_caches: bool,
    pub(crate) one_file_system: bool,
    pub(crate) own: Own,
}

/// What a file is on this machine, whatever its path: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity(u64, u64);

impl Identity {
    /// Of what is at a path; `None` where nothing is.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::of)
    }

    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }

    /// The same, as the calls answer it that take an open folder.
    pub(crate) fn of_stat(stat: &rustix::fs::Stat) -> Self {
        Self(stat.st_dev, stat.st_ino)
    }
}

/// A folder of the source, held open to look at what is no longer in it: should it be unmounted or replaced meanwhile,
/// this still is the folder that was gone through, or answers errors.
pub(crate) struct Emptied {
    descriptor: OwnedFd,
}

impl Emptied {
    /// Opens the folder, where it is still the one that was met there.
    pub(crate) fn open(path: &Path, identity: Identity) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let file = File::from(reach::open(path, flags)?);
        if Identity::of(&file.metadata()?) != identity {
            return Err(io::Error::other("another folder has taken its place"));
        }
        Ok(Self { descriptor: file.into() })
    }

    /// Whether nothing of that name is in it that could be stored, for certain: nothing at all, or a device, FIFO or socket.
    pub(crate) fn lacks(&self, name: &[u8]) -> bool {
        match rustix::fs::statat(&self.descriptor, name_of(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => matches!(
                FileType::from_raw_mode(stat.st_mode),
                FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice
            ),
            Err(error) => error == Errno::NOENT,
        }
    }
}

/// Whether nothing is at a path, for certain.
pub(crate) fn is_gone(path: &Path) -> bool {
    reach::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A walk over one SRC, names ascending by bytes.
pub(crate) struct Walk<'a> {
    limits: &'a Limits,
    root: Option<(PathBuf, Vec<u8>)>,
    open: Vec<Folder>,
    /// Of the innermost open folder: one of each, since those of all of them would take the square of the depth.
    path: PathBuf,
    relative: Vec<u8>,
    device: Option<u64>,
    /// As of after the names of the folder were read that was entered last: so none of them is missed.
    own: Vec<Identity>,
}

/// What is known of an open folder, beside its paths.
struct Folder {
    /// How long the paths of the folder around it are.
    outer: (usize, usize),
    attributes: Attributes,
    identity: Identity,
    tag: ContentTag,
    bare: bool,
    /// Descending, so that the next one is popped.
    names: Vec<std::ffi::OsString>,
}

impl<'a> Walk<'a> {
    /// Begins at a path, whose place in the repository will be `relative`.
    pub(crate) fn new(path: PathBuf, relative: Vec<u8>, limits: &'a Limits) -> Self {
        let root = Some((path, relative));
        Self {
            limits,
            root,
            open: Vec::new(),
            path: PathBuf::new(),
            relative: Vec::new(),
            device: None,
            own: limits.own.now(),
        }
    }

    /// Leaves out what is in the folder that was entered last: it is left next.
    pub(crate) fn pass_by(&mut self) {
        if let Some(folder) = self.open.last_mut() {
            folder.names.clear();
        }
    }

    fn look(&mut self, path: PathBuf, relative: Vec<u8>) -> Event {
        // Nor could anything in it be named.
        if relative.len() > PATH_BYTES_MAX {
            let what = format!("its path is longer than the {PATH_BYTES_MAX} bytes that are possible");
            return Event::Unreadable(path, io::Error::other(what));
        }
        let entry = match read_entry(&path, relative) {
            Ok((entry, metadata)) => {
                let device = *self.device.get_or_insert(metadata.dev());
                if self.own.contains(&entry.identity) {
                    return Event::Storage(path);
                }
                // The mount point itself is kept, empty.
                if matches!(entry.kind, Kind::Directory) {
                    let other = self.limits.one_file_system && device != metadata.dev();
                    return self.enter(entry, other);
                }
                entry
            }
            Err(error) => return Event::Unreadable(path, error),
        };
        Event::Leaf(entry)
    }

    fn enter(&mut self, mut entry: Entry, bare: bool) -> Event {
        entry.bare = bare || self.limits.exclude_caches && exclude::is_cache(&entry.path, &self.limits.own);
        let names = if entry.bare { Ok(Vec::new()) } else { sorted_names(&entry.path) };
        self.own = self.limits.own.now();
        match names {
            Ok(names) => {
                let outer = (self.path.as_os_str().len(), self.relative.len());
                self.path.clone_from(&entry.path);
                self.relative.clone_from(&entry.relative);
                let Entry { attributes, identity, tag, bare, .. } = entry;
                self.open.push(Folder { outer, attributes, identity, tag, bare, names });
                Event::Enter(entry)
            }
            Err(error) => Event::Unreadable(entry.path, error),
        }
    }

    /// The folder once more, now that it is left.
    fn leave(&mut self, folder: Folder) -> Event {
        let Folder { outer: (path_bytes, relative_bytes), attributes, identity, tag, bare, .. } = folder;
        let path = std::mem::take(&mut self.path);
        let relative = self.relative.clone();
        self.relative.truncate(relative_bytes);
        self.path = name_of(bytes_of(path.as_os_str()).get(..path_bytes).unwrap_or_default()).into();
        Event::Leave(Entry { path, relative, attributes, kind: Kind::Directory, identity, tag, names: 1, bare })
    }
}

impl Iterator for Walk<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if let Some((path, relative)) = self.root.take() {
            return Some(self.look(path, relative));
        }
        loop {
            let folder = self.open.last_mut()?;
            let Some(name) = folder.names.pop() else {
                let folder = self.open.pop()?;
                return Some(self.leave(folder));
            };
            let (path, relative) = (self.path.join(&name), exclude::join(&self.relative, &name));
            if !self.limits.exclude.matches(&relative) {
                return Some(self.look(path, relative));
            }
        }
    }
}

fn sorted_names(folder: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = reach::names(folder)?;
    names.sort_unstable_by(|one, other| bytes_of(other).cmp(bytes_of(one)));
    Ok(names)
}

/// What is at a path, by itself.
pub(crate) fn entry_at(path: &Path, relative: Vec<u8>) -> io::Result<Entry> {
    read_entry(path, relative).map(|(entry, _)| entry)
}

fn read_entry(path: &Path, relative: Vec<u8>) -> io::Result<(Entry, Metadata)> {
    let metadata = reach::metadata(path)?;
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_file() => Kind::File { size: metadata.size() },
        kind if kind.is_symlink() => Kind::Symlink { target: reach::read_link(path)? },
        kind if kind.is_fifo() => Kind::Special("FIFO"),
        kind if kind.is_socket() => Kind::Special("socket"),
        kind if kind.is_block_device() || kind.is_char_device() => Kind::Special("device"),
        _ => Kind::Special("special file"),
    };
    let names = if matches!(kind, Kind::File { .. } | Kind::Symlink { .. }) { metadata.nlink() } else { 1 };
    let (attributes, identity) = (attributes(&metadata), Identity::of(&metadata));
    let (path, tag) = (path.to_owned(), tag(&metadata));
    Ok((Entry { path, relative, attributes, kind, identity, tag, names, bare: false }, metadata))
}

/// What the content of a file of this machine is known by, once it was read: which file it is, and when anything about it
/// changed last, which nobody can set as they can the time of its content. It does not say on which device: that has another
/// number whenever it is mounted anew, and what has its inodes and their times is a copy of it.
fn tag(metadata: &Metadata) -> ContentTag {
    let mut tag = ContentTag::default();
    let (inode, changed) = tag.split_at_mut(8);
    inode.copy_from_slice(&metadata.ino().to_le_bytes());
    changed.copy_from_slice(&nanos(metadata.ctime(), metadata.ctime_nsec()).to_le_bytes());
    tag
}

/// A moment in nanoseconds since the epoch. Those of the years that file systems know fit in 64 bits.
fn nanos(seconds: i64, nanos: i64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let moment = (i128::from(seconds) * 1_000_000_000 + i128::from(nanos)) as u64;
    moment
}

/// From when on, in milliseconds since the epoch, no change of a file can be of the moment of its last one. What file systems
/// take for now stands still between ticks, and where they know no parts of seconds, for up to two.
fn settled(metadata: &Metadata) -> u64 {
    let tick = if metadata.ctime_nsec() == 0 { 2_000 } else { 10 };
    let settled = metadata.ctime().saturating_mul(1_000).saturating_add(metadata.ctime_nsec() / 1_000_000 + tick);
    u64::try_from(settled).unwrap_or(0)
}

fn attributes(metadata: &Metadata) -> Attributes {
    Attributes {
        mode: metadata.mode() & MODE_BITS,
        uid: metadata.uid(),
        gid: metadata.gid(),
        seconds: metadata.mtime(),
        nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
    }
}

/// What [`SourceFile::state`] is of a file.
fn state(metadata: &Metadata) -> String {
    let modified = nanos(metadata.mtime(), metadata.mtime_nsec());
    let changed = nanos(metadata.ctime(), metadata.ctime_nsec());
    format!("{:x}-{modified:x}-{changed:x}-{:x}", metadata.size(), metadata.ino() ^ metadata.dev())
}

/// A file of the source, open: its data, its holes, and what it was when it was opened.
pub(crate) struct SourceFile {
    pub(crate) file: File,
    pub(crate) size: u64,
    pub(crate) attributes: Attributes,
    /// Another whenever the content may be: hexadecimal numbers of 16 digits at most, with dashes between them.
    pub(crate) state: String,
    tag: ContentTag,
    inode: u64,
    settled: u64,
    sparse: bool,
}

impl SourceFile {
    /// How many numbers are in [`Self::state`].
    pub(crate) const STATE_FIELDS: usize = 4;

    /// Opens a plain file; anything that took its place meanwhile is refused, and waits for nobody. So is what belongs to the
    /// repository itself, before it is opened.
    pub(crate) fn open(path: &Path, own: &Own) -> io::Result<Self> {
        own.refuse_reading(path)?;
        let file = File::from(reach::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no longer a plain file"));
        }
        let size = metadata.size();
        let sparse = metadata.blocks().saturating_mul(512) < size;
        let state = state(&metadata);
        let (attributes, tag, settled) = (attributes(&metadata), tag(&metadata), settled(&metadata));
        let inode = metadata.ino();
        Ok(Self { attributes, file, size, state, tag, inode, settled, sparse })
    }

    /// The next part with data at or after `offset`: its beginning and its end. `None` where only a hole is left.
    pub(crate) fn next_data(&self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        if offset >= self.size {
            return Ok(None);
        }
        if !self.sparse {
            return Ok(Some((offset, self.size)));
        }
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // A file system that knows of no holes has data everywhere.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((offset, self.size))),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start))?;
        Ok((start < self.size).then_some((start, end.min(self.size))))
    }

    /// Whether nothing about it changed since it was opened, whatever its times were set to. A file that was given another
    /// name counts as changed: nobody can tell.
    pub(crate) fn is_untouched(&self) -> io::Result<bool> {
        Ok(state(&self.file.metadata()?) == self.state)
    }

    /// What the content that was read is known by: nothing else that the file ever has is known by the same. `None` where
    /// another change may leave no trace, by what was mapped at a moment before it was opened, or where it is torn.
    pub(crate) fn tag(&self, mapped: &Mapped, is_torn: bool) -> Option<ContentTag> {
        (mapped.shows_changes(self.inode, self.settled) && !is_torn).then_some(self.tag)
    }

    /// Whether it may have been changed since it was opened.
    pub(crate) fn is_torn(&self) -> bool {
        !self.is_untouched().unwrap_or(false)
    }
}

/// Bytes of a tree, as far as they can be counted; for the progress display alone.
pub(crate) fn measure(path: &Path, relative: &[u8], limits: &Limits, stop: impl Fn() -> bool) -> u64 {
    let mut bytes = 0;
    for event in Walk::new(path.to_owned(), relative.to_vec(), limits) {
        if stop() {
            break;
        }
        if let Event::Leaf(Entry { kind: Kind::File { size }, .. }) = event {
            bytes += size;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn limits() -> Limits {
        let exclude = Exclude::new(&["*.skip".to_owned()], &[]).unwrap();
        Limits { exclude, exclude_caches: true, one_file_system: false, own: Own::default() }
    }

    #[test]
    fn a_walk_is_sorted_and_leaves_what_it_enters() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("src");
        std::fs::create_dir_all(path.join("b/inner")).unwrap();
        std::fs::create_dir_all(path.join("cache")).unwrap();
        std::fs::write(path.join("cache/CACHEDIR.TAG"), CACHE).unwrap();
        for name in ["z", "a", "b/x.skip", "b.c", "b/f"] {
            std::fs::write(path.join(name), name).unwrap();
        }
        symlink("no such target", path.join("link")).unwrap();
        let limits = limits();
        let seen: Vec<String> = Walk::new(path, b"src".to_vec(), &limits)
            .map(|event| match event {
                Event::Enter(entry) => format!("+{}", String::from_utf8(entry.relative).unwrap()),
                Event::Leave(entry) => format!("-{}", String::from_utf8(entry.relative).unwrap()),
                Event::Leaf(entry) => String::from_utf8(entry.relative).unwrap(),
                Event::Unreadable(..) | Event::Storage(_) => panic!(),
            })
            .collect();
        let expected = [
            "+src",
            "src/a",
            "+src/b",
            "src/b/f",
            "+src/b/inner",
            "-src/b/inner",
            "-src/b",
            "src/b.c",
            "+src/cache",
            "-src/cache",
            "src/link",
            "src/z",
            "-src",
        ];
        assert_eq!(seen, expected);
    }

    const CACHE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n";

    #[test]
    fn the_parts_of_a_sparse_file_hold_all_its_data() {
        use std::os::unix::fs::FileExt as _;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("sparse");
        let file = File::create(&path).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.write_all_at(b"middle", 1 << 20).unwrap();
        file.set_len(4 << 20).unwrap();
        let source = SourceFile::open(&path, &Own::default()).unwrap();
        let mut rebuilt = vec![0; 4 << 20];
        let mut offset = 0;
        while let Some((start, end)) = source.next_data(offset).unwrap() {
            let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
            source.file.read_exact_at(&mut rebuilt[range], start).unwrap();
            offset = end;
        }
        assert!(rebuilt == std::fs::read(&path).unwrap());
        assert!(source.is_untouched().unwrap());
    }

    #[test]
    fn a_content_is_known_by_what_any_change_of_its_file_changes_and_only_once_that_is_certain() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || SourceFile::open(file.path(), &Own::default()).unwrap();
        let source = open();
        let changed = file.path().metadata().unwrap();
        let changed = u64::try_from(changed.ctime() * 1_000 + changed.ctime_nsec() / 1_000_000).unwrap();
        let entry = entry_at(file.path(), Vec::new()).unwrap();
        // In the same tick it could change again.
        assert_eq!(source.tag(&Mapped::of(changed + 1, []), false), None);
        assert_eq!(source.tag(&Mapped::of(changed + 2_001, []), false), Some(entry.tag));
        assert_eq!(source.tag(&Mapped::of(changed + 2_001, []), true), None);
        // Through memory it can at any time.
        assert_eq!(source.tag(&Mapped::of(changed + 2_001, [source.inode]), false), None);
        // Nor can anything be told by a time ahead of the clock.
        assert_eq!(source.tag(&Mapped::of(changed - 1_000, []), false), None);
        // Its content's time can be set, that cannot: it is later now.
        let time = file.path().metadata().unwrap().modified().unwrap();
        loop {
            file.as_file().set_modified(time).unwrap();
            if open().tag != entry.tag {
                break;
            }
        }
        let other = tempfile::NamedTempFile::new().unwrap();
        assert_ne!(entry_at(other.path(), Vec::new()).unwrap().tag[..8], entry.tag[..8]);
    }

    #[test]
    fn a_missing_source_is_unreadable() {
        let limits = limits();
        let mut walk = Walk::new("/no/such/path".into(), b"path".to_vec(), &limits);
        assert!(matches!(walk.next(), Some(Event::Unreadable(..))));
        assert!(walk.next().is_none());
    }
}
