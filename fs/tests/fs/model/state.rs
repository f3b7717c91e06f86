//! A file system of maps.

use std::collections::BTreeMap;

use strongroom_fs::{Error, Follow, XattrMode};

use super::super::support::{Seen, noise};
use super::step::Change;

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
pub(super) struct Inode {
    pub(super) content: Vec<u8>,
    mode: u32,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    nodes: BTreeMap<String, Node>,
    pub(super) inodes: Vec<Inode>,
}

/// What a path shows, and what it has besides.
pub(crate) type Shown = (Seen, u32, BTreeMap<Vec<u8>, Vec<u8>>);

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

    pub(super) fn file(&self, path: &str) -> Result<usize, Refused> {
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

    pub(super) fn together(&mut self, changes: &[Change]) -> Result<(), Refused> {
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

pub(super) fn write_at(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset as usize + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset as usize..end].copy_from_slice(bytes);
}
