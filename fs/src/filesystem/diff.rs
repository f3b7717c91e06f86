//! What became of files and directories between two states.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use strongroom_core::engine::{Change, Direction, View};

use super::FsSnapshot;
use crate::error::Result;
use crate::format::{
    CONTENT, ContentRow, ENTRY, EXTENT, EntryRow, INODE, Kind, ROOT, XATTR, split_entry_key, split_extent_key,
    split_inode_key, split_xattr_key,
};

/// What became of one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is there now, and was not.
    Added,
    /// It was there, and is not.
    Removed,
    /// What it names has another content.
    Changed,
    /// What it names has other attributes: mode, owner, times set by hand, extended attributes, number of names.
    Attributes,
    /// What it names had another name.
    Renamed {
        /// The path before.
        from: Vec<u8>,
        /// Whether the content is another one, too.
        is_changed: bool,
    },
}

/// A difference between two states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// The path; of what was removed, the one it had.
    pub path: Vec<u8>,
    /// What it is, or was.
    pub kind: Kind,
    /// What became of it.
    pub fate: Fate,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    parent: u64,
    name: Vec<u8>,
}

#[derive(Default)]
struct Collected {
    /// By inode, so that a rename is the same inode on both sides.
    removed: BTreeMap<u64, Vec<(Name, Kind)>>,
    added: BTreeMap<u64, Vec<(Name, Kind)>>,
    content: BTreeSet<u64>,
    attributes: BTreeSet<u64>,
}

impl FsSnapshot {
    /// What became of files and directories from another state of the same repository to this one, in the order of the paths.
    /// Of a directory that has another name, what is in it is not listed: it has not moved there.
    ///
    /// Costs as much as differs, and one look at all names where something does: names lead down, not up.
    ///
    /// # Errors
    /// Damage; those of the storage.
    pub async fn changes_since(&self, before: &Self) -> Result<Vec<PathChange>> {
        let collected = self.collect(before).await?;
        let inodes: HashSet<u64> = collected.content.union(&collected.attributes).copied().collect();
        let gone = !collected.removed.is_empty();
        if inodes.is_empty() && collected.added.is_empty() && !gone {
            return Ok(Vec::new());
        }
        let now = Names::of(self, &inodes).await?;
        let then = if gone { Names::of(before, &HashSet::new()).await? } else { Names::default() };
        let mut changes = Vec::new();
        let mut removed = collected.removed;
        // Other names of the same file tell of it apart.
        let mut told: HashSet<(u64, Name)> = HashSet::new();
        for (inode, names) in collected.added {
            let earlier = removed.remove(&inode).unwrap_or_default().into_iter();
            let mut earlier: BTreeMap<Vec<u8>, Kind> = earlier.map(|(name, kind)| (then.path(&name), kind)).collect();
            let is_changed = collected.content.contains(&inode);
            let mut moved = Vec::new();
            for (name, kind) in names {
                let path = now.path(&name);
                told.insert((inode, name));
                if earlier.remove(&path).is_none() {
                    moved.push((path, kind));
                } else if is_changed && kind != Kind::Directory {
                    // In another directory, which has the path of the one before: that is told of the directories.
                    changes.push(PathChange { path, kind, fate: Fate::Changed });
                } else if collected.attributes.contains(&inode) {
                    changes.push(PathChange { path, kind, fate: Fate::Attributes });
                }
            }
            for (path, kind) in moved {
                let fate = match earlier.pop_first() {
                    Some((from, _)) => Fate::Renamed { from, is_changed },
                    None => Fate::Added,
                };
                changes.push(PathChange { path, kind, fate });
            }
            let gone = earlier.into_iter().map(|(path, kind)| PathChange { path, kind, fate: Fate::Removed });
            changes.extend(gone);
        }
        for (name, kind) in removed.into_values().flatten() {
            changes.push(PathChange { path: then.path(&name), kind, fate: Fate::Removed });
        }
        for inode in inodes {
            let fate = if collected.content.contains(&inode) { Fate::Changed } else { Fate::Attributes };
            for (name, kind) in now.names.get(&inode).into_iter().flatten() {
                if told.contains(&(inode, name.clone())) {
                    continue;
                }
                // That names were put into a directory, or taken out, is told by those.
                if *kind != Kind::Directory || collected.attributes.contains(&inode) {
                    let fate = if *kind == Kind::Directory { Fate::Attributes } else { fate.clone() };
                    changes.push(PathChange { path: now.path(name), kind: *kind, fate });
                }
            }
            if inode == ROOT && collected.attributes.contains(&ROOT) {
                changes.push(PathChange { path: b"/".to_vec(), kind: Kind::Directory, fate: Fate::Attributes });
            }
        }
        changes.sort_by(|a, b| (&a.path, &a.fate).cmp(&(&b.path, &b.fate)));
        Ok(changes)
    }

    async fn collect(&self, before: &Self) -> Result<Collected> {
        let mut collected = Collected::default();
        let mut changes = self.snapshot.changes_since(&before.snapshot);
        while let Some(Change { table, key, before, after }) = changes.next().await? {
            match table {
                ENTRY => {
                    let (parent, name) = split_entry_key(&key)?;
                    for (row, side) in [(before, &mut collected.removed), (after, &mut collected.added)] {
                        let Some(row) = row else { continue };
                        let EntryRow { inode, kind } = EntryRow::decode(&row)?;
                        side.entry(inode).or_default().push((Name { parent, name: name.to_vec() }, kind));
                    }
                }
                INODE if before.is_some() && after.is_some() => {
                    collected.attributes.insert(split_inode_key("inode", &key)?);
                }
                XATTR => {
                    collected.attributes.insert(split_xattr_key(&key)?.0);
                }
                CONTENT => {
                    let (Some(before), Some(after)) = (before, after) else { continue };
                    let (before, after) = (ContentRow::decode(&before)?, ContentRow::decode(&after)?);
                    // What an application knows of it besides is nothing about the file.
                    if (ContentRow { tag: None, ..before }) == (ContentRow { tag: None, ..after }) {
                        continue;
                    }
                    // Which versions are kept is no change of content.
                    let changed = (before.changed, before.size) != (after.changed, after.size);
                    let changes = if changed { &mut collected.content } else { &mut collected.attributes };
                    changes.insert(split_inode_key("content row", &key)?);
                }
                EXTENT => {
                    collected.content.insert(split_extent_key(&key)?.0);
                }
                _ => {}
            }
        }
        Ok(collected)
    }
}

/// The way up from names to the root.
#[derive(Default)]
struct Names {
    directories: HashMap<u64, Name>,
    /// The names of the inodes that were asked for.
    names: HashMap<u64, Vec<(Name, Kind)>>,
}

impl Names {
    async fn of(state: &FsSnapshot, inodes: &HashSet<u64>) -> Result<Self> {
        let mut names = Self::default();
        let mut scan = state.snapshot.scan(ENTRY, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
        while let Some((key, row)) = scan.next().await? {
            let EntryRow { inode, kind } = EntryRow::decode(&row)?;
            let is_asked_for = inodes.contains(&inode);
            if kind != Kind::Directory && !is_asked_for {
                continue;
            }
            let (parent, name) = split_entry_key(&key)?;
            let name = Name { parent, name: name.to_vec() };
            if is_asked_for {
                names.names.entry(inode).or_default().push((name.clone(), kind));
            }
            if kind == Kind::Directory {
                names.directories.insert(inode, name);
            }
        }
        Ok(names)
    }

    /// Ends at the root, or where a directory has no name or stands below itself: damage that `check` tells.
    fn path(&self, name: &Name) -> Vec<u8> {
        let mut parts = vec![&name.name];
        let mut parent = name.parent;
        while parent != ROOT && parts.len() <= self.directories.len() + 1 {
            let Some(above) = self.directories.get(&parent) else { break };
            parts.push(&above.name);
            parent = above.parent;
        }
        let mut path = Vec::new();
        for part in parts.into_iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        path
    }
}
