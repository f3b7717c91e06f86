//! From dice to operations, by what is there.

use strongroom::Compression;
use strongroom::fs::{AttributeChange, Follow, Op, Settings, Timestamp, XattrMode};

use crate::model::kinds::Kind;
use crate::model::world::{self, World};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Copying whole trees grows them: beyond so many names, files alone are copied.
const NAMES_MAX: usize = 40;
const DEPTH_MAX: usize = 3;

/// Numbers of a step, one after the other, and from the first again.
pub(crate) struct Dice {
    numbers: [u16; 6],
    rolled: u64,
}

impl Dice {
    pub(crate) fn new(numbers: [u16; 6]) -> Self {
        Self { numbers, rolled: 0 }
    }

    pub(crate) fn roll(&mut self) -> u64 {
        let (turn, at) = (self.rolled / 6, self.rolled % 6);
        self.rolled += 1;
        // The same number means something else each time round, and 0 stays 0.
        u64::from(self.numbers[at as usize]).wrapping_mul(2 * turn + 1).wrapping_add(turn) & 0xffff
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == one_in - 1
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let roll = self.roll();
        (!from.is_empty()).then(|| from[roll as usize % from.len()].clone())
    }

    pub(crate) fn length(&mut self) -> usize {
        let longest = [600, 600, 600, 9_000, 9_000, 40_000][self.below(6) as usize];
        self.below(longest) as usize
    }

    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        // Few seeds, so that content repeats.
        let seed = self.below(3);
        noise(seed, self.length())
    }

    /// A place within a content, or a little beyond its end.
    pub(crate) fn offset(&mut self, length: usize) -> u64 {
        let beyond = if self.chance(4) { 5_000 } else { 1 };
        self.below(length as u64 + beyond)
    }
}

/// Bytes that do not compress and do not repeat; of one seed, those of a shorter length are the beginning of a longer one.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
}

fn chosen(dice: &mut Dice, from: &[&String]) -> String {
    dice.pick(from).map_or_else(|| "/missing".to_owned(), String::clone)
}

/// A path at which there may be something, or not, or a way that leads nowhere.
fn anywhere(dice: &mut Dice) -> String {
    (0..=dice.below(3)).map(|_| format!("/{}", NAMES[dice.below(4) as usize])).collect()
}

pub(crate) fn file(dice: &mut Dice, world: &World) -> String {
    if dice.chance(16) {
        return anywhere(dice);
    }
    chosen(dice, &world.paths(|inode| inode.kind == world::Kind::File))
}

pub(crate) fn symlink(dice: &mut Dice, world: &World) -> String {
    if dice.chance(16) {
        return anywhere(dice);
    }
    chosen(dice, &world.paths(|inode| matches!(inode.kind, world::Kind::Symlink(_))))
}

/// A directory, seldom the root.
pub(crate) fn directory(dice: &mut Dice, world: &World) -> String {
    match dice.below(12) {
        0 => "/".to_owned(),
        1 => anywhere(dice),
        _ => chosen(dice, &world.paths(world::Inode::is_directory)),
    }
}

pub(crate) fn there(dice: &mut Dice, world: &World) -> String {
    if dice.chance(16) {
        return anywhere(dice);
    }
    chosen(dice, &world.paths(|_| true))
}

/// A name in a directory that is there: probably none is taken.
pub(crate) fn free(dice: &mut Dice, world: &World) -> String {
    let mut directories = world.paths(|inode| inode.is_directory());
    directories.retain(|path| path.matches('/').count() < DEPTH_MAX);
    let root = String::new();
    directories.push(&root);
    let directory = chosen(dice, &directories);
    let taken = world.listed(&directory);
    let free: Vec<_> = NAMES.iter().filter(|name| !taken.iter().any(|taken| taken == *name)).collect();
    let name = if dice.chance(16) { Some(&NAMES[0]) } else { dice.pick(&free) };
    format!("{directory}/{}", name.unwrap_or(&NAMES[0]))
}

fn length_of(world: &World, path: &str) -> usize {
    world.file(path).map_or(0, |number| world.inodes[&number].content().len())
}

/// An attribute that something has, where anything has one.
pub(crate) fn attribute(dice: &mut Dice, world: &World) -> (String, Vec<u8>) {
    let with = world.paths(|inode| !inode.xattrs.is_empty());
    let path = if with.is_empty() { there(dice, world) } else { chosen(dice, &with) };
    let names: Vec<_> = world.at(&path).into_iter().flat_map(|inode| inode.xattrs.keys().cloned()).collect();
    let name = dice.pick(&names).filter(|_| !dice.chance(8));
    (path, name.unwrap_or_else(|| attribute_name(dice)))
}

fn attribute_name(dice: &mut Dice) -> Vec<u8> {
    format!("user.{}", dice.below(3)).into_bytes()
}

pub(crate) fn key(dice: &mut Dice) -> Vec<u8> {
    format!("key{}", dice.below(8)).into_bytes()
}

pub(crate) fn settings(dice: &mut Dice) -> Settings {
    Settings {
        versions: [None, Some(0), Some(1), Some(3)][dice.below(4) as usize],
        dedup: [None, Some(false), Some(true)][dice.below(3) as usize],
        compression: [None, Some(Compression::None), Some(Compression::Lz4)][dice.below(3) as usize],
    }
}

fn moment(dice: &mut Dice) -> Option<Timestamp> {
    Timestamp::new(dice.below(60_000) as i64 * 100_000, dice.below(1_000) as u32)
}

/// Kinds of changes that can be part of a transaction.
const CHANGES: [Kind; 29] = [
    Kind::Write,
    Kind::WriteAt,
    Kind::Append,
    Kind::Shorten,
    Kind::Lengthen,
    Kind::PunchHole,
    Kind::CreateDir,
    Kind::CreateDirAll,
    Kind::Symlink,
    Kind::HardLink,
    Kind::RemoveFile,
    Kind::RemoveDir,
    Kind::Rename,
    Kind::RenameOver,
    Kind::RenameNew,
    Kind::Exchange,
    Kind::Copy,
    Kind::CopyRange,
    Kind::CopyAll,
    Kind::SetMode,
    Kind::SetTimes,
    Kind::SetSymlinkAttributes,
    Kind::SetXattr,
    Kind::ReplaceXattr,
    Kind::RemoveXattr,
    Kind::PutKey,
    Kind::DeleteKey,
    Kind::PutInTable,
    Kind::DeleteInTable,
];

/// Some changes, each chosen by what those before it make. Those that would be refused are left out, where that is asked.
pub(crate) fn changes(dice: &mut Dice, world: &World, only_accepted: bool) -> Vec<strongroom::Op> {
    let (mut after, mut ops) = (world.clone(), Vec::new());
    for _ in 0..2 + dice.below(3) {
        let kind = dice.pick(&CHANGES).unwrap();
        let op = change(kind, dice, &after);
        if after.apply(&op).is_ok() || !only_accepted {
            ops.push(op);
        }
    }
    ops
}

/// A change of this kind.
pub(crate) fn change(kind: Kind, dice: &mut Dice, world: &World) -> strongroom::Op {
    match kind {
        Kind::PutKey => return strongroom::Op::Put { key: key(dice), value: dice.bytes() },
        Kind::DeleteKey => return strongroom::Op::Delete { key: key(dice) },
        Kind::PutInTable => return strongroom::Op::PutIn { table: world::TABLE, key: key(dice), value: dice.bytes() },
        Kind::DeleteInTable => return strongroom::Op::DeleteIn { table: world::TABLE, key: key(dice) },
        _ => {}
    }
    strongroom::Op::File(file_change(kind, dice, world))
}

fn file_change(kind: Kind, dice: &mut Dice, world: &World) -> Op {
    let bytes = |path: String| path.into_bytes();
    match kind {
        Kind::Write => {
            let path = if dice.chance(2) { free(dice, world) } else { file(dice, world) };
            Op::Write { path: bytes(path), content: dice.bytes() }
        }
        Kind::WriteAt => {
            let path = file(dice, world);
            let offset = dice.offset(length_of(world, &path));
            Op::WriteAt { path: bytes(path), offset, bytes: dice.bytes() }
        }
        Kind::Append => Op::Append { path: bytes(file(dice, world)), bytes: dice.bytes() },
        Kind::Shorten => {
            let path = file(dice, world);
            let size = dice.below(length_of(world, &path) as u64 + 1);
            Op::SetLen { path: bytes(path), size }
        }
        Kind::Lengthen => {
            let path = file(dice, world);
            let size = length_of(world, &path) as u64 + 1 + dice.length() as u64;
            Op::SetLen { path: bytes(path), size }
        }
        Kind::PunchHole => {
            let path = file(dice, world);
            let offset = dice.offset(length_of(world, &path));
            Op::PunchHole { path: bytes(path), offset, length: dice.length() as u64 }
        }
        Kind::CreateDir => Op::CreateDir { path: bytes(free(dice, world)) },
        Kind::CreateDirAll => Op::CreateDirAll { path: bytes(anywhere(dice)) },
        Kind::Symlink => Op::Symlink { target: bytes(there(dice, world)), link: bytes(free(dice, world)) },
        Kind::HardLink => {
            let existing = if dice.chance(4) { symlink(dice, world) } else { file(dice, world) };
            Op::HardLink { existing: bytes(existing), link: bytes(free(dice, world)) }
        }
        Kind::RemoveFile => {
            let path = if dice.chance(3) { symlink(dice, world) } else { file(dice, world) };
            Op::RemoveFile { path: bytes(path) }
        }
        Kind::RemoveDir => {
            let empty =
                world.paths(world::Inode::is_directory).into_iter().filter(|path| world.inside(path).next().is_none());
            let empty: Vec<_> = empty.collect();
            let path = if dice.chance(6) { directory(dice, world) } else { chosen(dice, &empty) };
            let path = if path == "/" { "/missing".to_owned() } else { path };
            Op::RemoveDir { path: bytes(path) }
        }
        Kind::RemoveAll => Op::RemoveAll { path: bytes(there(dice, world)) },
        Kind::Rename => Op::Rename { from: bytes(there(dice, world)), to: bytes(free(dice, world)), replace: true },
        Kind::RenameOver => {
            let (from, to) = (file(dice, world), file(dice, world));
            let to = if dice.chance(4) { there(dice, world) } else { to };
            Op::Rename { from: bytes(from), to: bytes(to), replace: true }
        }
        Kind::RenameNew => {
            let to = if dice.chance(4) { there(dice, world) } else { free(dice, world) };
            Op::Rename { from: bytes(there(dice, world)), to: bytes(to), replace: false }
        }
        Kind::Exchange => Op::Exchange { one: bytes(there(dice, world)), other: bytes(there(dice, world)) },
        Kind::Copy => {
            let from = file(dice, world);
            let to = if dice.chance(2) { file(dice, world) } else { free(dice, world) };
            Op::Copy { from: bytes(from), to: bytes(to) }
        }
        Kind::CopyRange => {
            let (from, to) = (file(dice, world), file(dice, world));
            let from_offset = dice.offset(length_of(world, &from));
            let to_offset = dice.offset(length_of(world, &to));
            let length = dice.length() as u64;
            Op::CopyRange { from: bytes(from), from_offset, to: bytes(to), to_offset, length }
        }
        Kind::CopyAll => {
            let from = if world.names.len() > NAMES_MAX { file(dice, world) } else { there(dice, world) };
            Op::CopyAll { from: bytes(from), to: bytes(free(dice, world)) }
        }
        Kind::SetMode => {
            let change = AttributeChange { mode: Some(dice.below(0o1000) as u32), ..AttributeChange::default() };
            Op::SetAttributes { path: bytes(there(dice, world)), change, follow: Follow::Yes }
        }
        Kind::SetOwner => {
            let (uid, gid) = (Some(dice.below(3) as u32), Some(dice.below(3) as u32));
            let change = AttributeChange { uid, gid, ..AttributeChange::default() };
            Op::SetAttributes { path: bytes(there(dice, world)), change, follow: Follow::Yes }
        }
        Kind::SetTimes => {
            let (atime, mtime) = (moment(dice).filter(|_| dice.chance(2)), moment(dice));
            let change = AttributeChange { atime, mtime, ..AttributeChange::default() };
            Op::SetAttributes { path: bytes(there(dice, world)), change, follow: Follow::Yes }
        }
        Kind::SetSymlinkAttributes => {
            let change = AttributeChange {
                mode: Some(dice.below(0o1000) as u32),
                mtime: moment(dice),
                ..AttributeChange::default()
            };
            Op::SetAttributes { path: bytes(symlink(dice, world)), change, follow: Follow::No }
        }
        Kind::SetXattr | Kind::CreateXattr => {
            let path = there(dice, world);
            let follow = if dice.chance(2) { Follow::No } else { Follow::Yes };
            let mode = if kind == Kind::SetXattr { XattrMode::Set } else { XattrMode::Create };
            Op::SetXattr { path: bytes(path), name: attribute_name(dice), value: dice.bytes(), mode, follow }
        }
        Kind::ReplaceXattr => {
            let (path, name) = attribute(dice, world);
            let (mode, follow) = (XattrMode::Replace, Follow::No);
            Op::SetXattr { path: bytes(path), name, value: dice.bytes(), mode, follow }
        }
        Kind::RemoveXattr => {
            let (path, name) = attribute(dice, world);
            Op::RemoveXattr { path: bytes(path), name, follow: Follow::No }
        }
        Kind::SetSettings => Op::SetSettings { path: bytes(file(dice, world)), settings: settings(dice) },
        Kind::RestoreVersion => {
            let path = file(dice, world);
            let number = version(dice, world, &path);
            Op::RestoreVersion { path: bytes(path), number }
        }
        other => unreachable!("{other:?} is no change"),
    }
}

/// The number of a version of a file; seldom of one that it has not.
pub(crate) fn version(dice: &mut Dice, world: &World, path: &str) -> u64 {
    let Ok(number) = world.file(path) else { return 1 };
    let inode = &world.inodes[&number];
    let kept: Vec<_> = inode.versions.keys().copied().collect();
    if dice.chance(8) { inode.current() + 1 } else { dice.pick(&kept).unwrap() }
}
