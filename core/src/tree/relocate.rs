use std::collections::{HashMap, HashSet};

use futures_util::future::try_join_all;

use super::read::Place;
use super::{NodeStore, TreeRoot};
use crate::error::{Error, Result};
use crate::format::Pointer;

/// Leaves that are read at once.
const READ_AT_ONCE: usize = 16;
/// Inner nodes that are known to stay, for each node that may move: forgetting one costs another look at it.
const STAYING_FOR_EACH: usize = 4;

/// Nodes of several trees on their way to other places, each once, however many of the trees have it.
///
/// Nodes change only in where their children are, so that whatever else was true of them stays true. A node moves where it
/// is to leave its place, and where one below it moves. First all trees are to be [marked](Relocation::mark), then the
/// leaves of all [copied](Relocation::copy_leaves), then [what is above them](Relocation::copy_inner): who moves a leaf of
/// one tree later moves what is above it once more, and that lies together then.
///
/// Takes memory for the places of the nodes that move, and of some inner nodes that stay.
pub struct Relocation<F> {
    leaves_its_place: F,
    nodes_max: usize,
    moving: HashMap<Pointer, Move>,
    /// Inner nodes under which nothing moves.
    staying: HashSet<Pointer>,
}

#[derive(Default)]
struct Move {
    to: Option<Pointer>,
    /// Whether all leaves below it that move have been copied.
    has_leaves_copied: bool,
}

/// An inner node that is open.
struct Frame {
    pointer: Pointer,
    place: Place,
    next: usize,
    moves: bool,
}

impl Frame {
    fn new(pointer: Pointer, place: Place) -> Self {
        Self { pointer, place, next: 0, moves: false }
    }
}

impl<F: Fn(&Pointer) -> bool> Relocation<F> {
    /// Of nodes that are to leave their places, and those above them; of so many at most.
    pub fn new(nodes_max: usize, leaves_its_place: F) -> Self {
        Self { leaves_its_place, nodes_max, moving: HashMap::new(), staying: HashSet::new() }
    }

    /// Finds what moves in a tree. `false` where that is more than was allowed: then nothing of this can be used.
    ///
    /// # Errors
    /// [`Error::Damaged`] for a node that breaks an invariant, and what the store raises.
    pub async fn mark<S: NodeStore + ?Sized>(&mut self, store: &S, root: Option<&TreeRoot>) -> Result<bool> {
        let Some(root) = root else { return Ok(true) };
        if root.height == 1 {
            if (self.leaves_its_place)(&root.pointer) {
                self.moving.entry(root.pointer).or_default();
            }
            return Ok(self.is_within());
        }
        if self.moving.contains_key(&root.pointer) || self.staying.contains(&root.pointer) {
            return Ok(true);
        }
        let mut path = vec![Frame::new(root.pointer, Place::root(store, root).await?)];
        while let Some(frame) = path.last_mut() {
            let index = frame.next;
            frame.next += 1;
            let Some(child) = frame.place.node.child(index) else {
                let (pointer, moves) = (frame.pointer, frame.moves || (self.leaves_its_place)(&frame.pointer));
                path.pop();
                if moves {
                    self.moving.entry(pointer).or_default();
                    path.iter_mut().rev().take(1).for_each(|parent| parent.moves = true);
                } else {
                    if self.staying.len() / STAYING_FOR_EACH >= self.nodes_max {
                        self.staying.clear();
                    }
                    self.staying.insert(pointer);
                }
                if !self.is_within() {
                    return Ok(false);
                }
                continue;
            };
            if self.moving.contains_key(&child) {
                frame.moves = true;
            } else if frame.place.node.level() == 1 {
                if (self.leaves_its_place)(&child) {
                    self.moving.entry(child).or_default();
                    frame.moves = true;
                }
            } else if !self.staying.contains(&child) {
                let place = frame.place.child(store, index).await?;
                path.push(Frame::new(child, place));
            }
        }
        Ok(self.is_within())
    }

    fn is_within(&self) -> bool {
        self.moving.len() <= self.nodes_max
    }

    /// The nodes that move.
    pub fn moving(&self) -> impl Iterator<Item = &Pointer> {
        self.moving.keys()
    }

    /// Whether a node moves.
    pub fn moves(&self, pointer: &Pointer) -> bool {
        self.moving.contains_key(pointer)
    }

    /// Where nodes came from and where they went, as far as they were copied.
    pub fn moved(&self) -> impl Iterator<Item = (&Pointer, &Pointer)> {
        self.moving.iter().filter_map(|(from, Move { to, .. })| Some((from, to.as_ref()?)))
    }

    /// Where a node went; `None` for one that stays, or was not copied yet.
    pub fn place_of(&self, pointer: &Pointer) -> Option<Pointer> {
        self.moving.get(pointer)?.to
    }

    /// Copies the leaves of a tree that move.
    ///
    /// # Errors
    /// As [`Relocation::mark`]; then nothing refers to what was copied.
    pub async fn copy_leaves<S: NodeStore + ?Sized>(&mut self, store: &S, root: Option<&TreeRoot>) -> Result<()> {
        let Some(root) = root.filter(|root| self.has_leaves_to_copy(&root.pointer)) else { return Ok(()) };
        let place = Place::root(store, root).await?;
        if place.node.is_leaf() {
            return self.copy(store, root.pointer, &place, 0).await;
        }
        let mut path = vec![Frame::new(root.pointer, place)];
        while let Some(frame) = path.last_mut() {
            if frame.place.node.level() == 1 {
                self.copy_leaves_of(store, &frame.place).await?;
                frame.next = frame.place.node.count();
            }
            let index = frame.next;
            frame.next += 1;
            let Some(child) = frame.place.node.child(index) else {
                if let Some(done) = self.moving.get_mut(&frame.pointer) {
                    done.has_leaves_copied = true;
                }
                path.pop();
                continue;
            };
            if self.has_leaves_to_copy(&child) {
                let place = frame.place.child(store, index).await?;
                path.push(Frame::new(child, place));
            }
        }
        Ok(())
    }

    fn has_leaves_to_copy(&self, pointer: &Pointer) -> bool {
        self.moving.get(pointer).is_some_and(|known| known.to.is_none() && !known.has_leaves_copied)
    }

    async fn copy_leaves_of<S: NodeStore + ?Sized>(&mut self, store: &S, parent: &Place) -> Result<()> {
        let leaves: Vec<(usize, Pointer)> = (0..parent.node.count())
            .filter_map(|index| Some((index, parent.node.child(index)?)))
            .filter(|(_, leaf)| self.has_leaves_to_copy(leaf))
            .collect();
        for leaves in leaves.chunks(READ_AT_ONCE) {
            let places = try_join_all(leaves.iter().map(|(index, _)| parent.child(store, *index))).await?;
            for ((_, leaf), place) in leaves.iter().zip(&places) {
                self.copy(store, *leaf, place, 0).await?;
            }
        }
        Ok(())
    }

    /// Copies the nodes of a tree that are above its leaves and move, and answers the root of the tree as it is then. To be
    /// called when the leaves of all trees have been copied.
    ///
    /// # Errors
    /// As [`Relocation::copy_leaves`].
    pub async fn copy_inner<S: NodeStore + ?Sized>(&mut self, store: &S, root: TreeRoot) -> Result<TreeRoot> {
        let is_due =
            |known: &Self, pointer: &Pointer| known.moving.get(pointer).is_some_and(|known| known.to.is_none());
        if is_due(self, &root.pointer) {
            let mut path = vec![Frame::new(root.pointer, Place::root(store, &root).await?)];
            while let Some(frame) = path.last_mut() {
                let index = frame.next;
                frame.next += 1;
                let level = frame.place.node.level();
                match frame.place.node.child(index) {
                    None => {
                        if let Some(frame) = path.pop() {
                            self.copy(store, frame.pointer, &frame.place, level).await?;
                        }
                    }
                    Some(child) if is_due(self, &child) => {
                        if level == 1 {
                            return Err(Error::Invalid("what is above a leaf is copied after it".to_owned()));
                        }
                        let place = frame.place.child(store, index).await?;
                        path.push(Frame::new(child, place));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(TreeRoot { pointer: self.place_of(&root.pointer).unwrap_or(root.pointer), ..root })
    }

    async fn copy<S: NodeStore + ?Sized>(&mut self, store: &S, from: Pointer, place: &Place, level: u8) -> Result<()> {
        let to = if level == 0 {
            store.write(place.node.bytes(), level).await?
        } else {
            store.write(&place.node.with_children_at(|child| self.place_of(child)), level).await?
        };
        self.moving.entry(from).or_default().to = Some(to);
        Ok(())
    }
}
