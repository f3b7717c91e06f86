use std::sync::Arc;

use bytes::Bytes;

use super::{NodeStore, TreeRoot};
use crate::error::{Error, Result};
use crate::format::Pointer;
use crate::format::node::{HEIGHT_MAX, Key, Node};

/// The value of a key. It shares the memory of its node.
///
/// # Errors
/// [`Error::Damaged`] for a node that breaks an invariant on the way, and what the store raises.
pub async fn get<S: NodeStore + ?Sized>(store: &S, root: Option<&TreeRoot>, key: &[u8]) -> Result<Option<Bytes>> {
    let Some(root) = root else { return Ok(None) };
    let mut here = Place::root(store, root).await?;
    while !here.node.is_leaf() {
        let Some(index) = here.node.child_index(key) else { return Ok(None) };
        here = here.child(store, index).await?;
    }
    Ok(here.node.search(key).ok().and_then(|index| here.node.value(index)))
}

/// One node met by [`walk`].
#[derive(Debug)]
pub struct Visit<'a> {
    /// The node's place.
    pub pointer: &'a Pointer,
    /// The level it has, or must have.
    pub level: u8,
    /// The node, or why it cannot be read or does not belong here; nothing below it is visited then.
    pub node: Result<&'a Node>,
}

/// Visits every node of the tree, each parent before its children, in ascending order of their keys; all invariants are
/// checked. What is wrong comes as a visit too, so that a check can report everything: `visit` decides what stops.
///
/// # Errors
/// What `visit` answers.
pub async fn walk<S: NodeStore + ?Sized>(
    store: &S,
    root: Option<&TreeRoot>,
    visit: impl FnMut(Visit<'_>) -> Result<()>,
) -> Result<()> {
    walk_where(store, root, |_| true, visit).await
}

/// As [`walk`], without the nodes that `enter` is false of, and all that is below them: those are not read either.
///
/// # Errors
/// What `visit` answers.
pub async fn walk_where<S: NodeStore + ?Sized>(
    store: &S,
    root: Option<&TreeRoot>,
    mut enter: impl FnMut(&Pointer) -> bool,
    mut visit: impl FnMut(Visit<'_>) -> Result<()>,
) -> Result<()> {
    let Some(root) = root.filter(|root| enter(&root.pointer)) else { return Ok(()) };
    let mut path: Vec<(Place, usize)> = Vec::new();
    let mut arrived = (root.pointer, root.height.saturating_sub(1), Place::root(store, root).await);
    loop {
        match arrived {
            (pointer, level, Ok(place)) => {
                visit(Visit { pointer: &pointer, level, node: Ok(&place.node) })?;
                if !place.node.is_leaf() {
                    path.push((place, 0));
                }
            }
            (pointer, level, Err(error)) => visit(Visit { pointer: &pointer, level, node: Err(error) })?,
        }
        arrived = loop {
            let Some((place, next)) = path.last_mut() else { return Ok(()) };
            let index = *next;
            *next += 1;
            match place.node.child(index) {
                Some(pointer) if !enter(&pointer) => {}
                Some(pointer) => break (pointer, place.node.level() - 1, place.child(store, index).await),
                None => drop(path.pop()),
            }
        };
    }
}

/// Visits the places of all nodes of the tree, with their levels, and reads none but those above the leaves.
///
/// # Errors
/// [`Error::Damaged`] for a node that breaks an invariant, and what the store raises.
pub async fn walk_pointers<S: NodeStore + ?Sized>(
    store: &S,
    root: Option<&TreeRoot>,
    mut visit: impl FnMut(&Pointer, u8),
) -> Result<()> {
    let Some(root) = root else { return Ok(()) };
    visit(&root.pointer, root.height.saturating_sub(1));
    if root.height == 1 {
        return Ok(());
    }
    let mut path = vec![(Place::root(store, root).await?, 0)];
    while let Some((place, next)) = path.last_mut() {
        let index = *next;
        *next += 1;
        let Some(child) = place.node.child(index) else {
            path.pop();
            continue;
        };
        let level = place.node.level() - 1;
        visit(&child, level);
        if level > 0 {
            let child = place.child(store, index).await?;
            path.push((child, 0));
        }
    }
    Ok(())
}

/// A node that has been found to belong where it was met.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) node: Arc<Node>,
    /// The separator that all keys of the node are below; `None` at the right edge of the tree.
    upper: Option<(Arc<Node>, usize)>,
}

impl Place {
    pub(super) async fn root<S: NodeStore + ?Sized>(store: &S, root: &TreeRoot) -> Result<Self> {
        if root.height == 0 || root.height > HEIGHT_MAX {
            return Err(misplaced(&root.pointer, format_args!("a tree of {} levels", root.height)));
        }
        let node = fetch(store, &root.pointer).await?;
        if node.level() != root.height - 1 {
            return Err(wrong_level(&root.pointer, node.level(), root.height - 1));
        }
        Ok(Self { node, upper: None })
    }

    /// Reads the child of an entry and checks that it belongs there.
    pub(super) async fn child<S: NodeStore + ?Sized>(&self, store: &S, index: usize) -> Result<Self> {
        let (Some(pointer), Some(lower)) = (self.node.child(index), self.node.key(index)) else {
            return Err(Error::Invalid(format!("a node has no child {index}")));
        };
        let node = fetch(store, &pointer).await?;
        // An inner node is at least level 1.
        if node.level() != self.node.level() - 1 {
            return Err(wrong_level(&pointer, node.level(), self.node.level() - 1));
        }
        if node.key(0).is_none_or(|first| first < lower) {
            return Err(misplaced(&pointer, format_args!("its first key is below its fence")));
        }
        if self.child_upper(index).is_some_and(|upper| node.last_key().is_none_or(|last| last >= upper)) {
            return Err(misplaced(&pointer, format_args!("its last key is above its fence")));
        }
        let upper =
            if index + 1 < self.node.count() { Some((Arc::clone(&self.node), index + 1)) } else { self.upper.clone() };
        Ok(Self { node, upper })
    }

    /// The separator that all keys below an entry are below; `None` at the right edge of the tree.
    pub(super) fn child_upper(&self, index: usize) -> Option<Key<'_>> {
        self.node.key(index + 1).or_else(|| self.upper.as_ref().and_then(|(node, index)| node.key(*index)))
    }
}

async fn fetch<S: NodeStore + ?Sized>(store: &S, pointer: &Pointer) -> Result<Arc<Node>> {
    let node = match store.cached(pointer) {
        Some(node) => node,
        None => store.read(pointer).await?,
    };
    if node.bytes().len() > store.node_bytes_max() {
        return Err(misplaced(pointer, format_args!("it is {} bytes long", node.bytes().len())));
    }
    Ok(node)
}

#[cold]
fn wrong_level(pointer: &Pointer, level: u8, expected: u8) -> Error {
    misplaced(pointer, format_args!("its level is {level} where {expected} belongs"))
}

#[cold]
fn misplaced(pointer: &Pointer, detail: std::fmt::Arguments<'_>) -> Error {
    let Pointer { writer_epoch, counter, index, .. } = pointer;
    Error::damaged("tree node", None, format!("{detail} (record {index} of block {counter} of epoch {writer_epoch})"))
}
