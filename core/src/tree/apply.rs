use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use bytes::Bytes;

use super::packer::{Entry, Packer};
use super::read::{Place, walk};
use super::{Change, Direction, MergedCursor, NodeStore, Overlay, TreeRoot};
use crate::error::{Error, Result};
use crate::format::node::{
    HEIGHT_MAX, InnerBuilder, Key, LeafBuilder, NODE_BYTES_MAX, NODE_BYTES_MAX_MIN, Node, key_bytes_max,
    leaf_entry_bytes_max, shortest_separator,
};
use crate::format::{FormatError, Pointer};

/// A node that a tree has no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Where it is.
    pub pointer: Pointer,
    /// The checkpoint that wrote it.
    pub birth: u64,
}

/// What [`apply`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The new tree; `None` where it is empty.
    pub root: Option<TreeRoot>,
    /// The nodes of the old tree that the new one has no more.
    pub dead: Vec<Dead>,
    /// The nodes of the new tree that the old one did not have.
    pub written: Vec<Pointer>,
}

/// Makes a new tree of an old one and a batch of changes, sorted by key, each key once: `Some` puts a value, `None`
/// deletes the key. Changes that change nothing write nothing. `birth` is the checkpoint that the nodes are written for.
///
/// Goes through the batch twice, and takes memory for a few nodes of each level.
///
/// # Errors
/// Before anything is written: [`Error::LimitExceeded`] for a key over [`key_bytes_max`] or a key and value over
/// [`leaf_entry_bytes_max`], and [`Error::Invalid`] for a batch out of order. Later [`Error::Damaged`] for a node of the
/// old tree that breaks an invariant, [`Error::LimitExceeded`] for a tree that would be over [`HEIGHT_MAX`], and what
/// the store raises; then the old tree is untouched, and nothing refers to the nodes that were written.
pub async fn apply<S: NodeStore + ?Sized>(
    store: &S,
    root: Option<&TreeRoot>,
    changes: impl IntoIterator<Item = Change> + Clone,
    birth: u64,
) -> Result<Applied> {
    let node_bytes_max = store.node_bytes_max();
    check(changes.clone(), node_bytes_max)?;
    let work = Rebuild {
        store,
        node_bytes_max,
        birth,
        changes: changes.into_iter().peekable(),
        leaf: Packer::default(),
        edge: None,
        inner: BTreeMap::new(),
        done: Applied::default(),
    };
    work.run(root).await
}

/// Makes a tree anew of an old one under an overlay of changes: every node is written, each as full as its rows allow.
/// All nodes of the old tree are dead then.
///
/// Takes memory for a few nodes of each level, and for the pointers to all nodes.
///
/// # Errors
/// As [`apply`]; nothing of the old tree is touched.
pub async fn rebuild<S: NodeStore + Clone>(
    store: &S,
    root: Option<&TreeRoot>,
    overlay: Overlay,
    birth: u64,
) -> Result<Applied> {
    let mut dead = Vec::new();
    walk(store, root, |visit| {
        dead.push(Dead { pointer: *visit.pointer, birth: visit.node?.birth() });
        Ok(())
    })
    .await?;
    let all = (Bound::Unbounded, Bound::Unbounded);
    let mut cursor = MergedCursor::new(store.clone(), root.copied(), overlay, all, Direction::Ascending);
    let mut work = Rebuild {
        store,
        node_bytes_max: store.node_bytes_max(),
        birth,
        changes: std::iter::empty().peekable(),
        leaf: Packer::default(),
        edge: Some(Edge::Separator(Bytes::new())),
        inner: BTreeMap::new(),
        done: Applied { dead, ..Applied::default() },
    };
    while let Some((key, payload)) = cursor.next().await? {
        work.row(Entry { key, payload, new: true }).await?;
    }
    work.finish().await
}

fn check(changes: impl IntoIterator<Item = Change>, node_bytes_max: usize) -> Result<()> {
    if !(NODE_BYTES_MAX_MIN..=NODE_BYTES_MAX).contains(&node_bytes_max) {
        return Err(Error::Invalid(format!("nodes of at most {node_bytes_max} bytes")));
    }
    let mut last: Option<Bytes> = None;
    for (key, value) in changes {
        if last.is_some_and(|last| last >= key) {
            return Err(Error::Invalid("the changes are not in ascending order of their keys".to_owned()));
        }
        at_most("key_bytes", key.len(), key_bytes_max(node_bytes_max))?;
        let entry_bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
        at_most("entry_bytes", entry_bytes, leaf_entry_bytes_max(node_bytes_max))?;
        last = Some(key);
    }
    Ok(())
}

fn at_most(what: &'static str, value: usize, limit: usize) -> Result<()> {
    if value > limit {
        return Err(Error::LimitExceeded { what, value: value as u64, limit: limit as u64 });
    }
    Ok(())
}

/// One pass over the old tree, from left to right, that goes down only where something changes.
///
/// Each level has a packer. What the pass meets goes to the packer of its level: the rows of a changed leaf to the
/// leaves', and a subtree in which nothing changes, as one entry, to that of the level above. When a packer has a node's
/// worth, the node is written and becomes an entry of the level above. Before a subtree is kept, everything on its left
/// must be in nodes: so the packers below are emptied first. If what is left in one is too little for a node, the
/// subtree is opened instead of kept, so that the two are joined.
struct Rebuild<'a, S: ?Sized, I: Iterator<Item = Change>> {
    store: &'a S,
    node_bytes_max: usize,
    birth: u64,
    changes: Peekable<I>,
    leaf: Packer<Bytes>,
    /// What lies left of the rows in `leaf`; `None` where that is empty and what comes is not known yet.
    edge: Option<Edge>,
    /// The packers of the levels from 1 up.
    inner: BTreeMap<u8, Packer<Pointer>>,
    done: Applied,
}

/// What the separator of the next leaf has to be above.
enum Edge {
    /// Whatever is below this separator, which led to the first of the leaves being rebuilt.
    Separator(Bytes),
    /// A leaf just written, with this last key.
    LastKey(Bytes),
}

/// An inner node that is open.
struct Frame {
    separator: Bytes,
    pointer: Pointer,
    place: Place,
    next: usize,
    /// All children up to `next` have been kept.
    is_kept: bool,
}

impl<S: NodeStore + ?Sized, I: Iterator<Item = Change>> Rebuild<'_, S, I> {
    async fn run(mut self, root: Option<&TreeRoot>) -> Result<Applied> {
        if let Some(root) = root {
            let place = Place::root(self.store, root).await?;
            self.tree(root.pointer, place).await?;
        } else {
            self.edge = Some(Edge::Separator(Bytes::new()));
            while let Some((key, value)) = self.changes.next() {
                if let Some(value) = value {
                    self.row(Entry { key, payload: value, new: true }).await?;
                }
            }
        }
        self.finish().await
    }

    async fn finish(mut self) -> Result<Applied> {
        let root = self.top().await?;
        self.done.root = self.lowered(root).await?;
        Ok(self.done)
    }

    async fn tree(&mut self, pointer: Pointer, place: Place) -> Result<()> {
        let mut path = Vec::new();
        self.open(&mut path, Bytes::new(), pointer, place, None).await?;
        while let Some(frame) = path.last_mut() {
            let index = frame.next;
            let Some((separator, pointer)) = frame.place.node.key_bytes(index).zip(frame.place.node.child(index))
            else {
                self.close(&mut path).await?;
                continue;
            };
            frame.next += 1;
            let level = frame.place.node.level();
            let upper = frame.place.child_upper(index);
            let is_changed =
                self.changes.peek().is_some_and(|(key, _)| upper.is_none_or(|upper| Key::whole(key) < upper));
            if !is_changed && self.empty_below(level).await? {
                self.entry(level, Entry { key: separator, payload: pointer, new: false }).await?;
                continue;
            }
            let place = frame.place.child(self.store, index).await?;
            let upper = upper.map(Key::to_bytes);
            self.open(&mut path, separator, pointer, place, upper).await?;
        }
        Ok(())
    }

    /// Goes into a node of the old tree, which is changed or to be joined with what is on its left.
    async fn open(
        &mut self,
        path: &mut Vec<Frame>,
        separator: Bytes,
        pointer: Pointer,
        place: Place,
        upper: Option<Bytes>,
    ) -> Result<()> {
        if !place.node.is_leaf() {
            path.push(Frame { separator, pointer, place, next: 0, is_kept: true });
            return Ok(());
        }
        let changes = self.effective_changes(&place.node, upper.as_deref());
        if changes.is_empty() {
            if self.empty_below(1).await? {
                return self.entry(1, Entry { key: separator, payload: pointer, new: false }).await;
            }
            self.leaf.joined = true;
        }
        if let Some(parent) = path.last_mut() {
            parent.is_kept = false;
        }
        self.done.dead.push(Dead { pointer, birth: place.node.birth() });
        self.edge.get_or_insert(Edge::Separator(separator));
        self.rows(&place.node, changes).await
    }

    /// Leaves an inner node, all of whose children have been handed on.
    async fn close(&mut self, path: &mut Vec<Frame>) -> Result<()> {
        let Some(frame) = path.pop() else { return Ok(()) };
        let level = frame.place.node.level();
        let packer = self.packer(level);
        // Its entries are the last that came, so if there are as many, they are all there is, and it can stay.
        if frame.is_kept && packer.entries.len() == frame.place.node.count() {
            *packer = Packer::default();
            return self.entry(level + 1, Entry { key: frame.separator, payload: frame.pointer, new: false }).await;
        }
        packer.joined |= frame.is_kept;
        if let Some(parent) = path.last_mut() {
            parent.is_kept = false;
        }
        self.done.dead.push(Dead { pointer: frame.pointer, birth: frame.place.node.birth() });
        Ok(())
    }

    /// Takes the changes below `upper`, and returns those that make a difference to the leaf.
    fn effective_changes(&mut self, leaf: &Node, upper: Option<&[u8]>) -> Vec<(Bytes, Option<Bytes>)> {
        let mut effective = Vec::new();
        while let Some((key, value)) = self.changes.next_if(|(key, _)| upper.is_none_or(|upper| key[..] < *upper)) {
            let old = leaf.search(&key).ok().and_then(|index| leaf.value(index));
            if old != value {
                effective.push((key, value));
            }
        }
        effective
    }

    /// Hands on the rows of a leaf as they are after the changes.
    async fn rows(&mut self, leaf: &Node, changes: Vec<(Bytes, Option<Bytes>)>) -> Result<()> {
        let mut changes = changes.into_iter().peekable();
        for index in 0..leaf.count() {
            let Some((key, value)) = leaf.key_bytes(index).zip(leaf.value(index)) else { continue };
            let mut is_replaced = false;
            while let Some((changed, value)) = changes.next_if(|(changed, _)| *changed <= key) {
                is_replaced = changed == key;
                if let Some(value) = value {
                    self.row(Entry { key: changed, payload: value, new: true }).await?;
                }
            }
            if !is_replaced {
                self.row(Entry { key, payload: value, new: false }).await?;
            }
        }
        for (key, value) in changes {
            if let Some(value) = value {
                self.row(Entry { key, payload: value, new: true }).await?;
            }
        }
        Ok(())
    }

    /// Takes in a row.
    async fn row(&mut self, row: Entry<Bytes>) -> Result<()> {
        self.leaf.push(row);
        while self.leaf.is_overflowing(self.node_bytes_max) {
            self.write_leaf(self.leaf.filling_count(self.node_bytes_max)).await?;
            self.relieve(1).await?;
        }
        Ok(())
    }

    /// Takes in an entry of an inner node.
    async fn entry(&mut self, level: u8, entry: Entry<Pointer>) -> Result<()> {
        self.packer(level).push(entry);
        self.relieve(level).await
    }

    /// Writes what is more than two nodes' worth, from a level up.
    async fn relieve(&mut self, from: u8) -> Result<()> {
        for level in from..=HEIGHT_MAX {
            let node_bytes_max = self.node_bytes_max;
            if !self.packer(level).is_overflowing(node_bytes_max) {
                break;
            }
            while self.packer(level).is_overflowing(node_bytes_max) {
                let count = self.packer(level).filling_count(node_bytes_max);
                self.write_inner(level, count).await?;
            }
        }
        Ok(())
    }

    /// Puts all that waits below a level into nodes. `false` where something is too little for one and wants to be
    /// joined with what comes next.
    async fn empty_below(&mut self, level: u8) -> Result<bool> {
        if !self.empty_leaf(false).await? {
            return Ok(false);
        }
        for level in 1..level {
            if !self.empty_inner(level, false).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn empty_leaf(&mut self, is_last: bool) -> Result<bool> {
        while !self.leaf.fits(self.node_bytes_max) {
            self.write_leaf(self.leaf.splitting_count(self.node_bytes_max, is_last)).await?;
        }
        if !is_last && !self.leaf.joined && self.leaf.is_underfull(self.node_bytes_max) {
            return Ok(false);
        }
        if !self.leaf.entries.is_empty() {
            self.write_leaf(self.leaf.entries.len()).await?;
        }
        self.leaf.joined = false;
        self.edge = None;
        Ok(true)
    }

    async fn empty_inner(&mut self, level: u8, is_last: bool) -> Result<bool> {
        let node_bytes_max = self.node_bytes_max;
        while !self.packer(level).fits(node_bytes_max) {
            let count = self.packer(level).splitting_count(node_bytes_max, is_last);
            self.write_inner(level, count).await?;
        }
        let packer = self.packer(level);
        if !is_last && !packer.joined && packer.is_underfull(node_bytes_max) {
            return Ok(false);
        }
        packer.joined = false;
        let count = packer.entries.len();
        if count > 0 {
            self.write_inner(level, count).await?;
        }
        Ok(true)
    }

    async fn write_leaf(&mut self, count: usize) -> Result<()> {
        let rows = self.leaf.take(count);
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        let separator = match self.edge.take() {
            Some(Edge::LastKey(left)) => shortest_separator(&left, &first.key),
            Some(Edge::Separator(separator)) => separator.min(first.key.clone()),
            None => first.key.clone(),
        };
        self.edge = Some(Edge::LastKey(last.key.clone()));
        let mut builder = LeafBuilder::leaf().born(self.birth);
        for row in &rows {
            builder.push(&row.key, &row.payload, usize::MAX);
        }
        let node = builder.build().map_err(unbuildable)?;
        self.write(&node, 0, separator).await
    }

    async fn write_inner(&mut self, level: u8, count: usize) -> Result<()> {
        if level >= HEIGHT_MAX {
            return Err(Error::LimitExceeded {
                what: "tree_levels",
                value: u64::from(level) + 1,
                limit: HEIGHT_MAX.into(),
            });
        }
        let entries = self.packer(level).take(count);
        let Some(first) = entries.first() else { return Ok(()) };
        let mut builder = InnerBuilder::inner(level).born(self.birth);
        for entry in &entries {
            builder.push(&entry.key, &entry.payload, usize::MAX);
        }
        let node = builder.build().map_err(unbuildable)?;
        self.write(&node, level, first.key.clone()).await
    }

    async fn write(&mut self, node: &[u8], level: u8, separator: Bytes) -> Result<()> {
        if node.len() > self.node_bytes_max {
            // What is within the limits fits: the old tree has a key that is not.
            return Err(Error::damaged("tree node", None, format!("a node cannot be under {} bytes", node.len())));
        }
        let pointer = self.store.write(node, level).await?;
        self.done.written.push(pointer);
        self.packer(level + 1).push(Entry { key: separator, payload: pointer, new: true });
        Ok(())
    }

    /// The packer of an inner level.
    fn packer(&mut self, level: u8) -> &mut Packer<Pointer> {
        self.inner.entry(level).or_default()
    }

    /// Puts everything into nodes, up to the one that is the root.
    async fn top(&mut self) -> Result<Option<TreeRoot>> {
        self.empty_leaf(true).await?;
        for level in 1..=HEIGHT_MAX {
            let is_highest = self.inner.range(level + 1..).all(|(_, packer)| packer.entries.is_empty());
            match &self.packer(level).entries[..] {
                [] if is_highest => return Ok(None),
                [root] if is_highest => return Ok(Some(TreeRoot { pointer: root.payload, height: level })),
                _ => self.empty_inner(level, true).await?,
            };
        }
        Ok(None)
    }

    /// Takes away roots of the old tree that have a single child left.
    async fn lowered(&mut self, mut root: Option<TreeRoot>) -> Result<Option<TreeRoot>> {
        while let Some(TreeRoot { pointer, height }) = root {
            if height == 1 || self.done.written.last() == Some(&pointer) {
                break;
            }
            let place = Place::root(self.store, &TreeRoot { pointer, height }).await?;
            let Some(child) = place.node.child(0).filter(|_| place.node.count() == 1) else { break };
            self.done.dead.push(Dead { pointer, birth: place.node.birth() });
            root = Some(TreeRoot { pointer: child, height: height - 1 });
        }
        Ok(root)
    }
}

/// What is within the limits can be built: the old tree has a key that is not.
fn unbuildable(error: FormatError) -> Error {
    Error::damaged(error.structure, None, error.reason)
}
