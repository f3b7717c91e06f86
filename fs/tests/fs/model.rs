//! Random histories with crashes, against a file system of maps in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_lite::future::block_on;
use proptest::prelude::*;
use strongroom_conformance::crash::{CrashOptions, Fault};
use strongroom_core::engine::Table;
use strongroom_core::env::Env;
use strongroom_core::storage::ErrorKind;
use strongroom_fs::{
    AttributeChange, Compression, Error, File, FileSystem, Follow, FsTransaction, OpenOptions, Options, Settings,
    XattrMode,
};

use crate::support::{Bed, Seen, assert_sound, noise, shown};

const BLOCK_BYTES: u32 = 4096;

/// One operation. Paths are few, so that they meet.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write(String, u64, usize),
    WriteAt(String, u64, u64, usize),
    SetLen(String, u64),
    CreateDir(String),
    RemoveFile(String),
    RemoveDir(String),
    RemoveAll(String),
    Rename(String, String),
    Symlink(String, String),
    HardLink(String, String),
    Append(String, u64, usize),
    PunchHole(String, u64, u64),
    RenameNew(String, String),
    Exchange(String, String),
    Copy(String, String),
    CopyRange(String, u64, String, u64, u64),
    CopyAll(String, String),
    SetMode(String, u32),
    SetXattr(String, u8, u64, usize, XattrMode, Follow),
    RemoveXattr(String, u8, Follow),
    SetSettings(String, Settings),
}

#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    /// Several, all or nothing.
    Together(Vec<Change>),
    /// Through two open handles of a file in turn, with a flush at the end.
    Handle(String, Vec<(u64, u64, usize)>, Option<u64>),
    /// Through the handle of a file that is removed meanwhile; then it is closed, dropped, or the power fails.
    Removed(String, Vec<(u64, u64, usize)>, End),
    Faulty(Change, u64, Fault),
    /// Everything fails from the n-th call on, then the machine loses power.
    CutOff(Vec<Change>, u64, u64),
    Checkpoint,
    Close,
    Kill,
    Crash(u64),
}

#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Drop,
    Crash(u64),
}

/// An inode by number, so that names can share one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(usize),
    Directory(usize),
    Symlink(usize, String),
}

impl Node {
    fn number(&self) -> usize {
        match self {
            Self::File(number) | Self::Directory(number) | Self::Symlink(number, _) => *number,
        }
    }

    fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    fn numbered(&self, number: usize) -> Self {
        match self {
            Self::File(_) => Self::File(number),
            Self::Directory(_) => Self::Directory(number),
            Self::Symlink(_, target) => Self::Symlink(number, target.clone()),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    content: Vec<u8>,
    mode: u32,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    nodes: BTreeMap<String, Node>,
    inodes: Vec<Inode>,
}

/// What a path shows, and what it has besides.
pub(crate) type Shown = (Seen, u32, BTreeMap<Vec<u8>, Vec<u8>>);

fn path() -> impl Strategy<Value = String> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("c")];
    prop_oneof![
        3 => name().prop_map(|name| format!("/{name}")),
        3 => (name(), name()).prop_map(|(one, two)| format!("/{one}/{two}")),
        1 => (name(), name(), name()).prop_map(|(one, two, three)| format!("/{one}/{two}/{three}")),
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..600_usize, 2 => 0..9_000_usize, 1 => 0..70_000_usize]
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..600_u64, 2 => 0..9_000_u64, 1 => 0..100_000_u64]
}

/// Few seeds, so that content repeats.
fn seed() -> impl Strategy<Value = u64> {
    0..3_u64
}

/// What every history begins with.
const DIRECTORIES: [&str; 3] = ["/a", "/a/b", "/c"];
const FILES: [&str; 4] = ["/b", "/a/a", "/a/c", "/c/b"];

fn one_of(paths: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(paths).prop_map(String::from)
}

/// Where probably a file is.
fn file() -> impl Strategy<Value = String> {
    prop_oneof![4 => one_of(&FILES), 1 => path()]
}

/// Where probably something is.
fn there() -> impl Strategy<Value = String> {
    prop_oneof![3 => one_of(&FILES), 2 => one_of(&DIRECTORIES), 2 => path(), 1 => free()]
}

/// Where probably nothing is, and something can be.
fn free() -> impl Strategy<Value = String> {
    prop_oneof![3 => one_of(&["/d", "/e", "/f", "/a/d", "/a/e", "/c/d", "/c/e"]), 1 => path()]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => (path(), seed(), length()).prop_map(|(path, seed, length)| Change::Write(path, seed, length)),
        4 => (file(), offset(), seed(), length()).prop_map(|(p, offset, seed, length)| Change::WriteAt(p, offset, seed, length)),
        2 => (file(), offset()).prop_map(|(path, size)| Change::SetLen(path, size)),
        3 => path().prop_map(Change::CreateDir),
        2 => there().prop_map(Change::RemoveFile),
        2 => path().prop_map(Change::RemoveDir),
        1 => path().prop_map(Change::RemoveAll),
        3 => (there(), path()).prop_map(|(from, to)| Change::Rename(from, to)),
        1 => (there(), free()).prop_map(|(from, to)| Change::Rename(from, to)),
        2 => (there(), free()).prop_map(|(target, link)| Change::Symlink(target, link)),
        2 => (there(), free()).prop_map(|(existing, link)| Change::HardLink(existing, link)),
        2 => (file(), seed(), length()).prop_map(|(path, seed, length)| Change::Append(path, seed, length)),
        2 => (file(), offset(), offset()).prop_map(|(path, offset, length)| Change::PunchHole(path, offset, length)),
        2 => (there(), free()).prop_map(|(from, to)| Change::RenameNew(from, to)),
        2 => (there(), there()).prop_map(|(one, other)| Change::Exchange(one, other)),
        2 => (file(), there()).prop_map(|(from, to)| Change::Copy(from, to)),
        3 => (file(), offset(), file(), offset(), offset())
            .prop_map(|(from, at, to, offset, length)| Change::CopyRange(from, at, to, offset, length)),
        2 => (there(), free()).prop_map(|(from, to)| Change::CopyAll(from, to)),
        1 => (there(), 0..0o1000_u32).prop_map(|(path, mode)| Change::SetMode(path, mode)),
        3 => (there(), 0..2_u8, seed(), prop_oneof![3 => 0..100_usize, 1 => 0..30_000_usize], mode(), follow())
            .prop_map(|(path, name, seed, length, mode, follow)| Change::SetXattr(path, name, seed, length, mode, follow)),
        3 => (there(), 0..2_u8, follow()).prop_map(|(path, name, follow)| Change::RemoveXattr(path, name, follow)),
        2 => (file(), any::<Option<bool>>(), any::<bool>()).prop_map(|(path, dedup, plain)| {
            let compression = plain.then_some(Compression::None);
            Change::SetSettings(path, Settings { dedup, compression, ..Settings::default() })
        }),
    ]
}

fn mode() -> impl Strategy<Value = XattrMode> {
    prop_oneof![2 => Just(XattrMode::Set), 1 => Just(XattrMode::Create), 1 => Just(XattrMode::Replace)]
}

fn follow() -> impl Strategy<Value = Follow> {
    prop_oneof![Just(Follow::Yes), Just(Follow::No)]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Refused(ErrorKind::Full)),
        Just(Fault::Refused(ErrorKind::Unavailable)),
        Just(Fault::LostRequest),
        Just(Fault::LostReply),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let writes = || proptest::collection::vec((offset(), seed(), length()), 1..5);
    prop_oneof![
        20 => change().prop_map(Step::Change),
        4 => proptest::collection::vec(change(), 1..5).prop_map(Step::Together),
        4 => (file(), writes(), proptest::option::of(offset())).prop_map(|(path, writes, size)| Step::Handle(path, writes, size)),
        2 => (file(), writes(), prop_oneof![Just(End::Close), Just(End::Drop), any::<u64>().prop_map(End::Crash)])
            .prop_map(|(path, writes, end)| Step::Removed(path, writes, end)),
        2 => (change(), 1..10_u64, fault()).prop_map(|(change, call, fault)| Step::Faulty(change, call, fault)),
        2 => (proptest::collection::vec(change(), 1..4), 0..8_u64, any::<u64>())
            .prop_map(|(changes, calls, seed)| Step::CutOff(changes, calls, seed)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::Crash),
    ]
}

fn parent(path: &str) -> &str {
    &path[..path.rfind('/').unwrap()]
}

/// Refusals by name alone.
pub(crate) type Refused = &'static str;

pub(crate) fn kind(error: &Error) -> Option<Refused> {
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
        _ => return None,
    })
}

impl Model {
    /// Where a path leads: the place of its last name, links on the way followed, and at the end where asked.
    fn resolve(&self, path: &str, follow: bool) -> Result<String, Refused> {
        let mut todo: Vec<String> = path[1..].rsplit('/').map(String::from).collect();
        let (mut at, mut links) = (String::new(), 0);
        while let Some(name) = todo.pop() {
            let next = format!("{at}/{name}");
            match self.nodes.get(&next) {
                Some(Node::Symlink(_, target)) if follow || !todo.is_empty() => {
                    links += 1;
                    if links > 40 {
                        return Err("loop");
                    }
                    at.clear();
                    todo.extend(target[1..].rsplit('/').map(String::from));
                }
                _ if todo.is_empty() => return Ok(next),
                None => return Err("not found"),
                Some(Node::Directory(_)) => at = next,
                Some(_) => return Err("not a directory"),
            }
        }
        unreachable!("targets are never the root")
    }

    fn file(&self, path: &str) -> Result<usize, Refused> {
        match self.nodes.get(&self.resolve(path, true)?) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Directory(_)) => Err("is a directory"),
            _ => Err("not found"),
        }
    }

    fn inode(&self, path: &str, follow: bool) -> Result<usize, Refused> {
        self.nodes.get(&self.resolve(path, follow)?).map(Node::number).ok_or("not found")
    }

    fn make(&mut self, inode: Inode) -> usize {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    fn content(&mut self, path: &str) -> Result<&mut Vec<u8>, Refused> {
        let file = self.file(path)?;
        Ok(&mut self.inodes[file].content)
    }

    fn inside<'m>(&'m self, path: &str) -> impl Iterator<Item = String> + use<'m> {
        let prefix = format!("{path}/");
        self.nodes.keys().filter(move |other| other.starts_with(&prefix)).cloned()
    }

    fn free(&self, path: &str) -> Result<String, Refused> {
        let place = self.resolve(path, false)?;
        if self.nodes.contains_key(&place) { Err("already exists") } else { Ok(place) }
    }

    fn apply(&mut self, change: &Change) -> Result<(), Refused> {
        match change {
            Change::Write(path, seed, length) => {
                let place = self.resolve(path, true)?;
                let file = match self.nodes.get(&place) {
                    Some(Node::File(file)) => *file,
                    Some(_) => return Err("is a directory"),
                    None => {
                        let file = self.make(Inode { mode: 0o644, ..Inode::default() });
                        self.nodes.insert(place, Node::File(file));
                        file
                    }
                };
                self.inodes[file].content = noise(*seed, *length);
            }
            Change::WriteAt(path, offset, seed, length) => {
                write_at(self.content(path)?, *offset, &noise(*seed, *length));
            }
            Change::Append(path, seed, length) => self.content(path)?.extend(noise(*seed, *length)),
            Change::SetLen(path, size) => self.content(path)?.resize(*size as usize, 0),
            Change::PunchHole(path, offset, length) => {
                let content = self.content(path)?;
                let range = (*offset as usize).min(content.len())..((offset + length) as usize).min(content.len());
                content[range].fill(0);
            }
            Change::CreateDir(path) => {
                let place = self.free(path)?;
                let directory = self.make(Inode { mode: 0o755, ..Inode::default() });
                self.nodes.insert(place, Node::Directory(directory));
            }
            Change::Symlink(target, link) => {
                let place = self.free(link)?;
                let number = self.make(Inode { mode: 0o777, ..Inode::default() });
                self.nodes.insert(place, Node::Symlink(number, target.clone()));
            }
            Change::Copy(from, to) => {
                let source = self.file(from)?;
                let place = self.resolve(to, true)?;
                let target = match self.nodes.get(&place) {
                    Some(Node::File(file)) => *file,
                    Some(_) => return Err("is a directory"),
                    None => {
                        let file = self.make(Inode { mode: self.inodes[source].mode, ..Inode::default() });
                        self.nodes.insert(place, Node::File(file));
                        file
                    }
                };
                self.inodes[target].content = self.inodes[source].content.clone();
            }
            Change::CopyRange(from, from_offset, to, to_offset, length) => {
                let (source, target) = (self.file(from)?, self.file(to)?);
                let content = &self.inodes[source].content;
                let start = (*from_offset as usize).min(content.len());
                let bytes = content[start..((from_offset + length) as usize).min(content.len())].to_vec();
                let length = bytes.len() as u64;
                if length > 0 && source == target && from_offset.abs_diff(*to_offset) < length {
                    return Err("invalid");
                }
                write_at(&mut self.inodes[target].content, *to_offset, &bytes);
            }
            Change::CopyAll(from, to) => return self.copy_all(from, to),
            Change::SetMode(path, mode) => {
                let number = self.inode(path, true)?;
                self.inodes[number].mode = *mode;
            }
            Change::SetXattr(path, name, seed, length, mode, follow) => {
                let number = self.inode(path, *follow == Follow::Yes)?;
                let xattrs = &mut self.inodes[number].xattrs;
                match (mode, xattrs.contains_key(&[*name + 1][..])) {
                    (XattrMode::Create, true) => return Err("already exists"),
                    (XattrMode::Replace, false) => return Err("no attribute"),
                    _ => xattrs.insert(vec![*name + 1], noise(*seed, *length)),
                };
            }
            Change::RemoveXattr(path, name, follow) => {
                let number = self.inode(path, *follow == Follow::Yes)?;
                self.inodes[number].xattrs.remove(&[*name + 1][..]).ok_or("no attribute")?;
            }
            Change::SetSettings(path, _) => {
                self.file(path)?;
            }
            Change::HardLink(existing, link) => {
                let node = self.nodes.get(&self.resolve(existing, false)?).ok_or("not found")?.clone();
                if node.is_directory() {
                    return Err("is a directory");
                }
                let place = self.free(link)?;
                self.nodes.insert(place, node);
            }
            Change::RemoveFile(path) => {
                let place = self.resolve(path, false)?;
                if self.nodes.get(&place).ok_or("not found")?.is_directory() {
                    return Err("is a directory");
                }
                self.nodes.remove(&place);
            }
            Change::RemoveDir(path) => {
                let place = self.resolve(path, false)?;
                if !self.nodes.get(&place).ok_or("not found")?.is_directory() {
                    return Err("not a directory");
                }
                if self.inside(&place).next().is_some() {
                    return Err("not empty");
                }
                self.nodes.remove(&place);
            }
            Change::RemoveAll(path) => {
                let place = self.resolve(path, false)?;
                self.nodes.remove(&place).ok_or("not found")?;
                for inside in self.inside(&place).collect::<Vec<_>>() {
                    self.nodes.remove(&inside);
                }
            }
            Change::Rename(from, to) => return self.rename(from, to, true),
            Change::RenameNew(from, to) => return self.rename(from, to, false),
            Change::Exchange(one, other) => return self.exchange(one, other),
        }
        Ok(())
    }

    fn copy_all(&mut self, from: &str, to: &str) -> Result<(), Refused> {
        let from = self.resolve(from, false)?;
        let top = self.nodes.get(&from).ok_or("not found")?.clone();
        let to = self.free(to)?;
        if top.is_directory() && to.starts_with(&format!("{from}/")) {
            return Err("into itself");
        }
        let mut copies = BTreeMap::new();
        for path in [from.clone()].into_iter().chain(self.inside(&from).collect::<Vec<_>>()) {
            let node = self.nodes[&path].clone();
            let number = *copies.entry(node.number()).or_insert_with(|| {
                self.inodes.push(self.inodes[node.number()].clone());
                self.inodes.len() - 1
            });
            self.nodes.insert(format!("{to}{}", &path[from.len()..]), node.numbered(number));
        }
        Ok(())
    }

    fn exchange(&mut self, one: &str, other: &str) -> Result<(), Refused> {
        let (one, other) = (self.resolve(one, false)?, self.resolve(other, false)?);
        let left = self.nodes.get(&one).ok_or("not found")?.clone();
        let right = self.nodes.get(&other).ok_or("not found")?.clone();
        if left.number() == right.number() {
            return Ok(());
        }
        if other.starts_with(&format!("{one}/")) || one.starts_with(&format!("{other}/")) {
            return Err("into itself");
        }
        let mut moved = Vec::new();
        for (from, to) in [(&one, &other), (&other, &one)] {
            for old in [from.clone()].into_iter().chain(self.inside(from).collect::<Vec<_>>()) {
                moved.push((format!("{to}{}", &old[from.len()..]), self.nodes.remove(&old).unwrap()));
            }
        }
        self.nodes.extend(moved);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str, replaces: bool) -> Result<(), Refused> {
        let from = self.resolve(from, false)?;
        let moved = self.nodes.get(&from).ok_or("not found")?.clone();
        let to = self.resolve(to, false)?;
        let directory = moved.is_directory();
        if directory && (parent(&to) == from || parent(&to).starts_with(&format!("{from}/"))) {
            return Err("into itself");
        }
        if let Some(replaced) = self.nodes.get(&to) {
            if !replaces {
                return Err("already exists");
            }
            if from == to || (!directory && *replaced == moved) {
                return Ok(());
            }
            match (directory, replaced.is_directory()) {
                (true, false) => return Err("not a directory"),
                (false, true) => return Err("is a directory"),
                (true, true) if self.inside(&to).next().is_some() => return Err("not empty"),
                _ => {}
            }
        }
        let inside: Vec<String> = self.inside(&from).collect();
        self.nodes.remove(&from);
        self.nodes.insert(to.clone(), moved);
        for old in inside {
            let node = self.nodes.remove(&old).unwrap();
            self.nodes.insert(format!("{to}{}", &old[from.len()..]), node);
        }
        Ok(())
    }

    fn together(&mut self, changes: &[Change]) -> Result<(), Refused> {
        let mut next = self.clone();
        for change in changes {
            next.apply(change)?;
        }
        *self = next;
        Ok(())
    }

    pub(crate) fn seen(&self) -> BTreeMap<String, Shown> {
        let seen = |node: &Node| {
            let Inode { content, mode, xattrs } = &self.inodes[node.number()];
            let seen = match node {
                Node::File(_) => Seen::File(content.clone()),
                Node::Directory(_) => Seen::Directory,
                Node::Symlink(_, target) => Seen::Symlink(target.clone().into_bytes()),
            };
            (seen, *mode, xattrs.clone())
        };
        self.nodes.iter().map(|(path, node)| (path.clone(), seen(node))).collect()
    }
}

fn write_at(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset as usize + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset as usize..end].copy_from_slice(bytes);
}

async fn apply(transaction: &mut FsTransaction, change: &Change) -> Result<(), Error> {
    match change {
        Change::Write(path, seed, length) => transaction.write(path, noise(*seed, *length)).await,
        Change::WriteAt(path, offset, seed, length) => transaction.write_at(path, *offset, noise(*seed, *length)).await,
        Change::SetLen(path, size) => transaction.set_len(path, *size).await,
        Change::CreateDir(path) => transaction.create_dir(path).await,
        Change::RemoveFile(path) => transaction.remove_file(path).await,
        Change::RemoveDir(path) => transaction.remove_dir(path).await,
        Change::RemoveAll(path) => transaction.remove_all(path).await,
        Change::Rename(from, to) => transaction.rename(from, to).await,
        Change::Symlink(target, link) => transaction.symlink(target, link).await,
        Change::HardLink(existing, link) => transaction.hard_link(existing, link).await,
        Change::Append(path, seed, length) => transaction.append(path, noise(*seed, *length)).await.map(|_| ()),
        Change::PunchHole(path, offset, length) => transaction.punch_hole(path, *offset, *length).await,
        Change::RenameNew(from, to) => transaction.rename_new(from, to).await,
        Change::Exchange(one, other) => transaction.exchange(one, other).await,
        Change::Copy(from, to) => transaction.copy(from, to).await.map(|_| ()),
        Change::CopyRange(from, from_offset, to, to_offset, length) => {
            transaction.copy_range(from, *from_offset, to, *to_offset, *length).await.map(|_| ())
        }
        Change::CopyAll(from, to) => transaction.copy_all(from, to).await,
        Change::SetMode(path, mode) => {
            let change = AttributeChange { mode: Some(*mode), ..AttributeChange::default() };
            transaction.set_attributes(path, change).await
        }
        Change::SetXattr(path, name, seed, length, mode, follow) => {
            transaction.set_xattr(path, [*name + 1], noise(*seed, *length), *mode, *follow).await
        }
        Change::RemoveXattr(path, name, follow) => transaction.remove_xattr(path, [*name + 1], *follow).await,
        Change::SetSettings(path, settings) => transaction.set_settings(path, *settings).await,
    }
}

async fn apply_all(transaction: &mut FsTransaction, changes: &[Change]) -> Result<(), Error> {
    for change in changes {
        apply(transaction, change).await?;
    }
    Ok(())
}

pub(crate) async fn together(fs: &FileSystem, changes: &[Change]) -> Result<(), Error> {
    fs.transact(async |transaction| {
        for change in changes {
            let result = apply(transaction, change).await;
            count(change, result.is_ok());
            result?;
        }
        // What changes nothing would not be committed, and would settle nothing that is in the air.
        transaction.engine().put(Table(0x90), b"commit", b"").map_err(Error::from)
    })
    .await
}

/// How often each kind of operation was accepted, and refused.
static KINDS: Mutex<BTreeMap<String, (u64, u64)>> = Mutex::new(BTreeMap::new());
static CASES_DONE: AtomicU32 = AtomicU32::new(0);

fn count(operation: &impl std::fmt::Debug, accepted: bool) {
    let name = format!("{operation:?}");
    let name = name.split(|next: char| !next.is_alphanumeric()).next().unwrap_or_default().to_owned();
    let mut kinds = KINDS.lock().unwrap();
    let (yes, no) = kinds.entry(name).or_default();
    *(if accepted { yes } else { no }) += 1;
}

/// Printed once all cases have run (`--nocapture` shows it): no kind may be rare among what was accepted.
fn report() {
    let done = CASES_DONE.fetch_add(1, Ordering::Relaxed) + 1;
    if done != 2 * cases() || done < 400 {
        return;
    }
    let kinds = KINDS.lock().unwrap().clone();
    let all: u64 = kinds.values().map(|(accepted, _)| accepted).sum();
    let mut rare = Vec::new();
    for (name, (accepted, refused)) in &kinds {
        let share = 100.0 * *accepted as f64 / all as f64;
        println!("{name:14} {share:5.2} % ({accepted} accepted, {refused} refused)");
        if share < 0.5 {
            rare.push(name);
        }
    }
    assert!(rare.is_empty(), "rare: {rare:?}");
}

/// The states that may be: one, unless a commit's fate is open.
pub(crate) struct Expected(pub(crate) Vec<Model>);

impl Expected {
    pub(crate) fn maybe(&mut self, changes: &[Change]) {
        let mut more = self.0.clone();
        more.retain_mut(|model| model.together(changes).is_ok());
        self.0.extend(more);
    }

    /// What was answered must be what some state answers. A commit leaves only those that allow it. A refusal leaves all:
    /// it committed nothing, so it was told by the state that this process knows, and what is in the air may yet come.
    pub(crate) fn answered(&mut self, changes: &[Change], result: Result<(), Error>) {
        let result = result.map_err(|error| kind(&error).unwrap_or_else(|| panic!("{changes:?} fails: {error}")));
        let before: Vec<_> = self.0.iter().map(Model::seen).collect();
        let mut after = self.0.clone();
        after.retain_mut(|model| model.together(changes) == result);
        assert!(!after.is_empty(), "{changes:?} answers {result:?} in {before:?}");
        if result.is_ok() {
            self.0 = after;
        }
    }

    /// What is in the air is settled by the next commit.
    pub(crate) async fn settled(&mut self, fs: &FileSystem) {
        for change in [Change::CreateDir("/settled".into()), Change::RemoveDir("/settled".into())] {
            let result = together(fs, std::slice::from_ref(&change)).await;
            self.answered(&[change], result);
        }
        self.observed(fs).await;
    }

    pub(crate) async fn observed(&mut self, fs: &FileSystem) {
        let seen = shown(fs).await.unwrap();
        self.0.retain(|model| model.seen() == seen);
        assert!(!self.0.is_empty(), "saw what was not expected");
        self.0.truncate(1);
    }
}

/// Writes through two handles in turn, and reads through both before and after the flush.
async fn through_handles(files: [&File; 2], expected: &mut Vec<u8>, writes: &[(u64, u64, usize)], size: Option<u64>) {
    for (turn, (offset, seed, length)) in writes.iter().enumerate() {
        let bytes = noise(*seed, *length);
        files[turn % 2].write_at(*offset, &bytes).await.unwrap();
        write_at(expected, *offset, &bytes);
        assert_content(files[0], expected).await;
        assert_content(files[1], expected).await;
    }
    let [file, other] = files;
    if let Some(size) = size {
        file.set_len(size).await.unwrap();
        expected.resize(size as usize, 0);
        file.append(b"end").await.unwrap();
        expected.extend_from_slice(b"end");
        assert_content(file, expected).await;
    }
    other.flush().await.unwrap();
    assert_content(file, expected).await;
    file.flush().await.unwrap();
}

async fn assert_content(file: &File, expected: &[u8]) {
    let mut out = vec![0; expected.len() + 100];
    assert_eq!(file.read_at(0, &mut out).await.unwrap(), expected.len());
    assert!(out[..expected.len()] == *expected);
    let middle = expected.len() / 2;
    let read = file.read_at(middle as u64, &mut out[..100]).await.unwrap();
    assert!(out[..read] == expected[middle..(middle + 100).min(expected.len())]);
}

async fn run(seed: u64, crash: CrashOptions, options: Options, steps: Vec<Step>) {
    let (mut bed, mut fs) = Bed::with(seed, BLOCK_BYTES, options, crash, Env::deterministic).await;
    let mut expected = Expected(vec![Model::default()]);
    // Something to work on.
    let mut begin = Vec::from(DIRECTORIES.map(|path| Change::CreateDir(path.into())));
    begin.extend(FILES.map(|path| Change::Write(path.into(), 1, 3_000)));
    begin.extend(FILES.map(|path| Change::SetXattr(path.into(), 0, 1, 50, XattrMode::Create, Follow::No)));
    let result = fs.transact(async |transaction| apply_all(transaction, &begin).await).await;
    expected.answered(&begin, result);
    for step in steps {
        let mut reopen = false;
        if !matches!(step, Step::Change(_) | Step::Together(_) | Step::Faulty(..) | Step::CutOff(..)) {
            count(&step, true);
        }
        match step {
            Step::Change(change) => {
                let changes = [change];
                let result = together(&fs, &changes).await;
                expected.answered(&changes, result);
            }
            Step::Together(changes) => {
                let result = together(&fs, &changes).await;
                expected.answered(&changes, result);
            }
            Step::Handle(path, writes, size) => {
                if expected.0.len() > 1 {
                    expected.settled(&fs).await;
                }
                let model = &mut expected.0[0];
                match fs.open_file(&path, OpenOptions::new().write(true)).await {
                    Ok(file) => {
                        let other = fs.open_file(&path, OpenOptions::new().write(true)).await.unwrap();
                        let number = model.file(&path).unwrap();
                        through_handles([&file, &other], &mut model.inodes[number].content, &writes, size).await;
                    }
                    Err(error) => assert_eq!(model.file(&path).err(), kind(&error), "{error}"),
                }
            }
            Step::Removed(path, writes, end) => {
                if expected.0.len() > 1 {
                    expected.settled(&fs).await;
                }
                match fs.open_file(&path, OpenOptions::new().write(true)).await {
                    Ok(file) => {
                        let number = expected.0[0].file(&path).unwrap();
                        let changes = [Change::RemoveFile(path)];
                        let result = together(&fs, &changes).await;
                        expected.answered(&changes, result);
                        let content = &mut expected.0[0].inodes[number].content;
                        through_handles([&file, &file], content, &writes, None).await;
                        assert_sound(&fs).await;
                        match end {
                            End::Close => file.close().await.unwrap(),
                            End::Drop => drop(file),
                            End::Crash(seed) => {
                                bed.storage.crash(seed);
                                reopen = true;
                            }
                        }
                    }
                    Err(error) => assert_eq!(expected.0[0].file(&path).err(), kind(&error), "{error}"),
                }
            }
            Step::Faulty(change, call, fault) => {
                bed.storage.fail_call(call, fault);
                let changes = [change];
                match together(&fs, &changes).await {
                    Err(Error::Core(strongroom_core::Error::Damaged(damage))) => panic!("a fault looks like {damage}"),
                    Err(error) if kind(&error).is_none() => expected.maybe(&changes),
                    result => expected.answered(&changes, result),
                }
                bed.storage.clear_faults();
            }
            Step::CutOff(changes, calls, seed) => {
                bed.storage.cut_off_after(calls, Fault::LostRequest);
                match together(&fs, &changes).await {
                    Err(error) if kind(&error).is_none() => expected.maybe(&changes),
                    result => expected.answered(&changes, result),
                }
                bed.storage.crash(seed);
                reopen = true;
            }
            Step::Checkpoint => fs.engine().checkpoint().await.unwrap(),
            Step::Close => {
                fs.engine().close().await.unwrap();
                reopen = true;
            }
            Step::Kill => {
                bed.storage.process_kill();
                reopen = true;
            }
            Step::Crash(seed) => {
                bed.storage.crash(seed);
                reopen = true;
            }
        }
        if reopen {
            bed.storage.clear_faults();
            fs = bed.open().await.unwrap();
            expected.observed(&fs).await;
            assert_sound(&fs).await;
        }
    }
    expected.settled(&fs).await;
    fs.engine().close().await.unwrap();
    let fs = bed.open().await.unwrap();
    expected.observed(&fs).await;
    assert_sound(&fs).await;
    report();
}

fn cases() -> u32 {
    std::env::var("STRONGROOM_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_history_with_crashes_on_files_equals_the_model(seed: u64, steps in proptest::collection::vec(step(), 1..50)) {
        block_on(run(seed, CrashOptions::default(), Options::default(), steps));
    }

    #[test]
    fn a_history_with_crashes_on_an_object_store_equals_the_model(seed: u64, steps in proptest::collection::vec(step(), 1..50)) {
        let options = Options { dedup: false, versions: 2, ..Options::default() };
        block_on(run(seed, CrashOptions::object_store(), options, steps));
    }
}
