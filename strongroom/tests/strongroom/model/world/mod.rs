//! The model: what a repository holds, in maps.

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strongroom::core::env::UnixMillis;
use strongroom::fs::{AttributeChange, Follow, Op, Settings, Timestamp, XattrMode};
use strongroom::{Error, core};

use crate::model::times::{Known, Time, Times};

/// Contents are shared, so that a world is cheap to clone.
pub(crate) type Content = Arc<Vec<u8>>;

/// The names of an inode: the directory that each is in and the name there, with the path that these make.
pub(crate) type Entries = BTreeMap<(usize, String), String>;

/// A refusal, by name alone.
pub(crate) type Refused = &'static str;

pub(crate) type Answer<T = ()> = Result<T, Refused>;

/// The refusal that an error stands for; `None` where it is none: the storage failed, or something is damaged.
pub(crate) fn refusal(error: &Error) -> Option<Refused> {
    Some(match error {
        Error::NotFound { .. } => "not found",
        Error::AlreadyExists { .. } => "already exists",
        Error::NotADirectory { .. } => "not a directory",
        Error::IsADirectory { .. } => "is a directory",
        Error::NotEmpty { .. } => "not empty",
        Error::IntoItself { .. } => "into itself",
        Error::SymlinkLoop { .. } => "loop",
        Error::InvalidPath { .. } => "invalid",
        Error::NoXattr { .. } => "no attribute",
        Error::NotASymlink { .. } => "not a link",
        Error::NoSuchVersion { .. } => "no version",
        Error::WrongAccess { .. } => "access",
        Error::InBatch { error, .. } => refusal(error)?,
        Error::Core(core::Error::Conflict) => "conflict",
        Error::Core(core::Error::SnapshotExists { .. }) => "snapshot exists",
        Error::Core(core::Error::NoSnapshot { .. }) => "no snapshot",
        _ => return None,
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink(String),
}

/// A file, directory or link, whatever its names.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) times: Times,
    pub(crate) atime: Option<Timestamp>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Content>,
    pub(crate) settings: Settings,
    /// By number; the last is the current one.
    pub(crate) versions: BTreeMap<u64, Content>,
    /// Another number with every change of the content, and with what may pass for one.
    pub(crate) edited: usize,
    /// What the transaction that is running makes the content.
    draft: Option<Content>,
    /// Made by the transaction that is running.
    is_new: bool,
}

impl Inode {
    fn new(kind: Kind, mode: u32, now: UnixMillis) -> Self {
        Self {
            kind,
            mode,
            owner: (0, 0),
            times: Times::new(now),
            atime: None,
            xattrs: BTreeMap::new(),
            settings: Settings::default(),
            versions: BTreeMap::from([(1, Content::default())]),
            edited: 0,
            draft: None,
            is_new: true,
        }
    }

    fn copied(&self, now: UnixMillis) -> Self {
        let versions = BTreeMap::from([(1, self.content().clone())]);
        Self { versions, times: Times::new(now), draft: None, is_new: true, ..self.clone() }
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    pub(crate) fn content(&self) -> &Content {
        self.draft.as_ref().unwrap_or_else(|| self.versions.last_key_value().unwrap().1)
    }

    pub(crate) fn current(&self) -> u64 {
        *self.versions.last_key_value().unwrap().0
    }

    /// A version more, and those gone that are too many then.
    pub(crate) fn push(&mut self, content: Content, kept: u64) {
        let number = self.current() + 1;
        self.versions.insert(number, content);
        self.evict(kept);
    }

    fn evict(&mut self, kept: u64) {
        while self.versions.len() as u64 > kept + 1 {
            self.versions.pop_first();
        }
    }
}

/// What became of the content of a file in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// It is another one.
    Changed,
    /// It is the same again, which may or may not count as a change.
    Perhaps,
}

/// All that one state of the repository holds.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// By path; that of the root is empty.
    pub(crate) names: BTreeMap<String, usize>,
    pub(crate) inodes: BTreeMap<usize, Inode>,
    pub(crate) keys: BTreeMap<Vec<u8>, Content>,
    /// Those of [`TABLE`].
    pub(crate) rows: BTreeMap<Vec<u8>, Content>,
    /// Files whose number is one more, or not: see [`Touched::Perhaps`].
    pub(crate) perhaps: BTreeSet<usize>,
    /// How many versions are kept where a file does not say.
    versions: u32,
    next: usize,
    pub(crate) time: Arc<Time>,
    /// When the step began that is under way.
    pub(crate) now: UnixMillis,
}

/// The one table beside that of `keys` that has any.
pub(crate) const TABLE: u8 = strongroom::kv::TABLE_NUMBER_MAX;

pub(crate) fn parent(path: &str) -> &str {
    &path[..path.rfind('/').unwrap()]
}

pub(crate) fn write_at(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset as usize + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset as usize..end].copy_from_slice(bytes);
}

fn text(path: &[u8]) -> &str {
    std::str::from_utf8(path).unwrap()
}

impl World {
    pub(crate) fn new(versions: u32, time: Arc<Time>) -> Self {
        // Made when the repository was, which was not noted.
        let root = Inode { is_new: false, ..Inode::new(Kind::Directory, 0o755, 0) };
        Self {
            names: BTreeMap::from([(String::new(), 0)]),
            inodes: BTreeMap::from([(0, root)]),
            keys: BTreeMap::new(),
            rows: BTreeMap::new(),
            perhaps: BTreeSet::new(),
            versions,
            next: 1,
            now: time.now(),
            time,
        }
    }

    /// A step begins.
    pub(crate) fn go_on(&mut self) {
        self.now = self.time.now();
    }

    pub(crate) fn at(&self, place: &str) -> Option<&Inode> {
        self.names.get(place).map(|number| &self.inodes[number])
    }

    pub(crate) fn kept(&self, inode: &Inode) -> u64 {
        inode.settings.versions.unwrap_or(self.versions).into()
    }

    /// Paths of what is of a kind, the root aside.
    pub(crate) fn paths(&self, is_wanted: impl Fn(&Inode) -> bool) -> Vec<&String> {
        self.names
            .iter()
            .filter(|(path, inode)| !path.is_empty() && is_wanted(&self.inodes[inode]))
            .map(|(path, _)| path)
            .collect()
    }

    /// Where a path leads: the place of its last name, links on the way followed, and at the end where asked.
    pub(crate) fn resolve(&self, path: &str, follow: bool) -> Answer<String> {
        if path == "/" {
            return Ok(String::new());
        }
        let mut todo: Vec<String> = path[1..].rsplit('/').map(String::from).collect();
        let (mut at, mut links) = (String::new(), 0);
        while let Some(name) = todo.pop() {
            let next = format!("{at}/{name}");
            match self.at(&next).map(|inode| &inode.kind) {
                Some(Kind::Symlink(target)) if follow || !todo.is_empty() => {
                    links += 1;
                    if links > 40 {
                        return Err("loop");
                    }
                    at.clear();
                    todo.extend(target[1..].rsplit('/').map(String::from));
                }
                _ if todo.is_empty() => return Ok(next),
                None => return Err("not found"),
                Some(Kind::Directory) => at = next,
                Some(_) => return Err("not a directory"),
            }
        }
        unreachable!("targets are never the root")
    }

    pub(crate) fn number(&self, path: &str, follow: bool) -> Answer<usize> {
        self.names.get(&self.resolve(path, follow)?).copied().ok_or("not found")
    }

    pub(crate) fn inode(&self, path: &str, follow: bool) -> Answer<&Inode> {
        Ok(&self.inodes[&self.number(path, follow)?])
    }

    fn inode_mut(&mut self, path: &str, follow: bool) -> Answer<&mut Inode> {
        let number = self.number(path, follow)?;
        Ok(self.inodes.get_mut(&number).unwrap())
    }

    pub(crate) fn file(&self, path: &str) -> Answer<usize> {
        let number = self.number(path, true)?;
        if self.inodes[&number].is_directory() { Err("is a directory") } else { Ok(number) }
    }

    pub(crate) fn directory(&self, path: &str) -> Answer<String> {
        let place = self.resolve(path, true)?;
        match self.at(&place) {
            None => Err("not found"),
            Some(inode) if inode.is_directory() => Ok(place),
            Some(_) => Err("not a directory"),
        }
    }

    pub(crate) fn inside<'w>(&'w self, place: &str) -> impl Iterator<Item = String> + use<'w> {
        let prefix = format!("{place}/");
        self.names.keys().filter(move |other| other.starts_with(&prefix)).cloned()
    }

    /// Names in a directory.
    pub(crate) fn listed(&self, place: &str) -> Vec<String> {
        let direct = |path: &String| parent(path) == place;
        self.inside(place).filter(direct).map(|path| path[place.len() + 1..].to_owned()).collect()
    }

    /// The names of each inode.
    pub(crate) fn entries(&self) -> BTreeMap<usize, Entries> {
        let mut entries: BTreeMap<_, Entries> = BTreeMap::new();
        for (path, number) in self.names.iter().filter(|(path, _)| !path.is_empty()) {
            let directory = parent(path);
            let name = path[directory.len() + 1..].to_owned();
            entries.entry(*number).or_default().insert((self.names[directory], name), path.clone());
        }
        entries
    }

    pub(crate) fn nlink(&self, number: usize) -> u64 {
        self.names.values().filter(|other| **other == number).count() as u64
    }

    fn free(&self, path: &str) -> Answer<String> {
        let place = self.resolve(path, false)?;
        if self.names.contains_key(&place) { Err("already exists") } else { Ok(place) }
    }

    fn make(&mut self, place: String, inode: Inode) -> usize {
        let number = self.next;
        self.next += 1;
        self.inodes.insert(number, inode);
        self.put_name(place, number);
        number
    }

    fn times(&mut self, number: usize) -> &mut Times {
        &mut self.inodes.get_mut(&number).unwrap().times
    }

    pub(crate) fn touch(&mut self, number: usize, content: Vec<u8>) {
        self.touch_since(number, content, self.now);
    }

    pub(crate) fn touch_since(&mut self, number: usize, content: Vec<u8>, since: UnixMillis) {
        let inode = self.inodes.get_mut(&number).unwrap();
        // What leaves the content as it is may leave the times, too.
        if **inode.content() == content {
            inode.times.status.may_change(since);
            inode.times.content.may_change(since);
        } else {
            inode.times.changes(since);
        }
        inode.draft = Some(Arc::new(content));
        inode.edited = self.next;
        self.next += 1;
    }

    fn edit(&mut self, path: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Answer {
        let number = self.file(path)?;
        let mut content = self.inodes[&number].content().to_vec();
        edit(&mut content);
        self.touch(number, content);
        Ok(())
    }

    /// The file at a path, made where it is missing.
    fn file_or_new(&mut self, path: &str, mode: u32) -> Answer<usize> {
        let place = self.resolve(path, true)?;
        match self.at(&place) {
            Some(inode) if inode.is_directory() => Err("is a directory"),
            Some(_) => Ok(self.names[&place]),
            None => Ok(self.make(place, Inode::new(Kind::File, mode, self.now))),
        }
    }

    /// Begins an open for writing as [`strongroom::fs::OpenOptions`] ask.
    pub(crate) fn prepare(&mut self, path: &str, create: bool, create_new: bool, settings: Settings) -> Answer<usize> {
        let number = if create_new {
            let place = self.free(path)?;
            self.make(place, Inode::new(Kind::File, 0o644, self.now))
        } else if create {
            self.file_or_new(path, 0o644)?
        } else {
            self.file(path)?
        };
        let had = self.inodes[&number].settings;
        let settings = Settings {
            versions: settings.versions.or(had.versions),
            dedup: settings.dedup.or(had.dedup),
            compression: settings.compression.or(had.compression),
        };
        self.set_settings(number, settings);
        Ok(number)
    }

    /// How many versions are kept is no matter of the inode's.
    fn set_settings(&mut self, number: usize, settings: Settings) {
        let inode = self.inodes.get_mut(&number).unwrap();
        let had = std::mem::replace(&mut inode.settings, settings);
        if (had.dedup, had.compression) != (settings.dedup, settings.compression) {
            inode.times.status.changes(self.now);
        }
    }

    /// Ends a transaction: answers the files whose content it touched.
    pub(crate) fn settle(&mut self) -> Vec<(usize, Touched)> {
        let mut touched = Vec::new();
        let numbers: Vec<_> = self.inodes.keys().copied().collect();
        for number in numbers {
            let kept = self.kept(&self.inodes[&number]);
            let inode = self.inodes.get_mut(&number).unwrap();
            let is_new = std::mem::take(&mut inode.is_new);
            let Some(content) = inode.draft.take() else { continue };
            if is_new {
                inode.versions = BTreeMap::from([(1, content)]);
            } else if content == *inode.versions.last_key_value().unwrap().1 {
                touched.push((number, Touched::Perhaps));
                self.perhaps.insert(number);
            } else {
                touched.push((number, Touched::Changed));
                let nobody_counts = inode.settings.versions.is_none() && inode.versions.keys().eq(&[1]);
                if kept == 0 && nobody_counts {
                    inode.versions = BTreeMap::from([(1, content)]);
                } else {
                    inode.push(content, kept);
                }
            }
        }
        touched
    }

    /// The file's number is known to be one more, though the content is the same.
    pub(crate) fn counted(&mut self, number: usize) {
        let kept = self.kept(&self.inodes[&number]);
        let inode = self.inodes.get_mut(&number).unwrap();
        let content = inode.content().clone();
        inode.push(content, kept);
    }

    pub(crate) fn prune(&mut self, path: &str) -> Answer {
        let number = self.file(path)?;
        let kept = self.kept(&self.inodes[&number]);
        self.inodes.get_mut(&number).unwrap().evict(kept);
        Ok(())
    }

    /// Forgets what has no name, save what is open.
    pub(crate) fn collect(&mut self, is_open: impl Fn(usize) -> bool) {
        let named: BTreeSet<_> = self.names.values().copied().collect();
        self.inodes.retain(|number, _| named.contains(number) || is_open(*number));
        self.perhaps.retain(|number| named.contains(number));
    }

    /// Becomes another state. What is open and has no name in it stays as it is, without one.
    pub(crate) fn become_again(&mut self, state: &Self, is_open: impl Fn(usize) -> bool) {
        let open: Vec<_> =
            self.inodes.iter().filter(|(number, _)| is_open(**number)).map(|(n, i)| (*n, i.clone())).collect();
        let (next, now) = (self.next, self.now);
        *self = state.clone();
        (self.next, self.now) = (next, now);
        for (number, inode) in open {
            if self.nlink(number) == 0 {
                self.inodes.insert(number, inode);
            }
        }
    }

    /// Several changes, all or none of them.
    pub(crate) fn together(&mut self, ops: &[strongroom::Op]) -> Answer {
        let mut next = self.clone();
        for op in ops {
            next.apply(op)?;
        }
        *self = next;
        Ok(())
    }

    pub(crate) fn apply(&mut self, op: &strongroom::Op) -> Answer {
        match op {
            strongroom::Op::File(op) => self.apply_file(op),
            strongroom::Op::Put { key, value } => {
                self.keys.insert(key.clone(), Arc::new(value.clone()));
                Ok(())
            }
            strongroom::Op::Delete { key } => {
                self.keys.remove(key);
                Ok(())
            }
            strongroom::Op::PutIn { table: TABLE, key, value } => {
                self.rows.insert(key.clone(), Arc::new(value.clone()));
                Ok(())
            }
            strongroom::Op::DeleteIn { table: TABLE, key } => {
                self.rows.remove(key);
                Ok(())
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn apply_file(&mut self, op: &Op) -> Answer {
        let now = self.now;
        match op {
            Op::Write { path, content } => {
                let number = self.file_or_new(text(path), 0o644)?;
                self.touch(number, content.clone());
            }
            Op::WriteAt { path, offset, bytes } => {
                return self.edit(text(path), |content| write_at(content, *offset, bytes));
            }
            Op::Append { path, bytes } => return self.edit(text(path), |content| content.extend(bytes)),
            Op::SetLen { path, size } => return self.edit(text(path), |content| content.resize(*size as usize, 0)),
            Op::PunchHole { path, offset, length } => {
                return self.edit(text(path), |content| {
                    let end = ((offset + length) as usize).min(content.len());
                    content[(*offset as usize).min(end)..end].fill(0);
                });
            }
            Op::CreateDir { path } => {
                let place = self.free(text(path))?;
                self.make(place, Inode::new(Kind::Directory, 0o755, self.now));
            }
            Op::CreateDirAll { path } => {
                let mut prefix = String::new();
                for name in text(path)[1..].split('/') {
                    prefix = format!("{prefix}/{name}");
                    let place = self.resolve(&prefix, true)?;
                    match self.at(&place) {
                        Some(inode) if inode.is_directory() => {}
                        Some(_) => return Err("not a directory"),
                        None => {
                            self.make(place, Inode::new(Kind::Directory, 0o755, self.now));
                        }
                    }
                }
            }
            Op::Symlink { target, link } => {
                let place = self.free(text(link))?;
                self.make(place, Inode::new(Kind::Symlink(text(target).to_owned()), 0o777, self.now));
            }
            Op::HardLink { existing, link } => {
                let number = self.number(text(existing), false)?;
                if self.inodes[&number].is_directory() {
                    return Err("is a directory");
                }
                let place = self.free(text(link))?;
                self.put_name(place, number);
                self.times(number).status.changes(now);
            }
            Op::Copy { from, to } => {
                let source = self.file(text(from))?;
                let mode = self.inodes[&source].mode;
                let target = self.file_or_new(text(to), mode)?;
                if target != source {
                    let content = self.inodes[&source].content().to_vec();
                    self.touch(target, content);
                }
            }
            Op::CopyRange { from, from_offset, to, to_offset, length } => {
                let (source, target) = (self.file(text(from))?, self.file(text(to))?);
                let content = self.inodes[&source].content();
                let start = (*from_offset as usize).min(content.len());
                let bytes = content[start..((from_offset + length) as usize).min(content.len())].to_vec();
                let length = bytes.len() as u64;
                if length > 0 && source == target && from_offset.abs_diff(*to_offset) < length {
                    return Err("invalid");
                }
                return self.edit(text(to), |content| write_at(content, *to_offset, &bytes));
            }
            Op::CopyAll { from, to } => return self.copy_from(None, text(from), text(to)),
            Op::SetAttributes { path, change, follow } => {
                let AttributeChange { mode, uid, gid, mtime, atime } = *change;
                let inode = self.inode_mut(text(path), *follow == Follow::Yes)?;
                inode.mode = mode.unwrap_or(inode.mode);
                inode.owner = (uid.unwrap_or(inode.owner.0), gid.unwrap_or(inode.owner.1));
                inode.times.status.changes(now);
                inode.times.content = mtime.map_or(inode.times.content, Known::set);
                inode.atime = atime.or(inode.atime);
            }
            Op::SetSettings { path, settings } => {
                let number = self.file(text(path))?;
                self.set_settings(number, *settings);
            }
            Op::RestoreVersion { path, number } => {
                let inode = &self.inodes[&self.file(text(path))?];
                let content = inode.versions.get(number).ok_or("no version")?.clone();
                if *number != inode.current() {
                    return self.edit(text(path), |now| *now = content.to_vec());
                }
            }
            Op::SetXattr { path, name, value, mode, follow } => {
                let inode = self.inode_mut(text(path), *follow == Follow::Yes)?;
                match (mode, inode.xattrs.contains_key(name)) {
                    (XattrMode::Create, true) => return Err("already exists"),
                    (XattrMode::Replace, false) => return Err("no attribute"),
                    _ => inode.xattrs.insert(name.clone(), Arc::new(value.clone())),
                };
                inode.times.status.changes(now);
            }
            Op::RemoveXattr { path, name, follow } => {
                let inode = self.inode_mut(text(path), *follow == Follow::Yes)?;
                inode.xattrs.remove(name).ok_or("no attribute")?;
                inode.times.status.changes(now);
            }
            Op::RemoveFile { path } => {
                let place = self.resolve(text(path), false)?;
                if self.at(&place).ok_or("not found")?.is_directory() {
                    return Err("is a directory");
                }
                self.remove_name(&place);
            }
            Op::RemoveDir { path } => {
                let place = self.resolve(text(path), false)?;
                if !self.at(&place).ok_or("not found")?.is_directory() {
                    return Err("not a directory");
                }
                if self.inside(&place).next().is_some() {
                    return Err("not empty");
                }
                self.remove_name(&place);
            }
            Op::RemoveAll { path } => {
                let place = self.resolve(text(path), false)?;
                self.remove_name(&place).ok_or("not found")?;
            }
            Op::Rename { from, to, replace } => return self.rename(text(from), text(to), *replace),
            Op::Exchange { one, other } => return self.exchange(text(one), text(other)),
            other => unreachable!("{other:?}"),
        }
        Ok(())
    }
}
