use bytes::Bytes;

use crate::format::node::{NodeLength, Payload};

/// An entry on its way into a node.
#[derive(Clone, Debug)]
pub(super) struct Entry<P> {
    pub(super) key: Bytes,
    pub(super) payload: P,
    /// Whether it comes from the batch, not from the old tree.
    pub(super) new: bool,
}

/// The entries of one level, in ascending order, that are not in a written node yet: at most a little over two nodes.
/// It decides where one node ends and the next begins.
#[derive(Clone, Debug)]
pub(super) struct Packer<P> {
    pub(super) entries: Vec<Entry<P>>,
    /// The length of one node that would hold all entries.
    length: NodeLength,
    /// The entries have been joined with those of an untouched neighbour, which is done once before they are written.
    pub(super) joined: bool,
}

impl<P> Default for Packer<P> {
    fn default() -> Self {
        Self { entries: Vec::new(), length: NodeLength::default(), joined: false }
    }
}

impl<P: Payload> Packer<P> {
    pub(super) fn push(&mut self, entry: Entry<P>) {
        self.length = grown(self.entries.first(), self.length, &entry);
        self.entries.push(entry);
    }

    /// Takes the first entries out, to be written as a node.
    pub(super) fn take(&mut self, count: usize) -> Vec<Entry<P>> {
        let taken = self.entries.drain(..count.min(self.entries.len())).collect();
        self.length = length_of(&self.entries);
        taken
    }

    /// There are more than two nodes' worth of entries: the first of them can be written without looking at the rest.
    pub(super) fn is_overflowing(&self, node_bytes_max: usize) -> bool {
        self.length.bytes() > 2 * node_bytes_max
    }

    /// All entries fit one node.
    pub(super) fn fits(&self, node_bytes_max: usize) -> bool {
        self.length.bytes() <= node_bytes_max
    }

    /// The entries are too few for a node of their own.
    pub(super) fn is_underfull(&self, node_bytes_max: usize) -> bool {
        !self.entries.is_empty() && is_underfull(self.length, node_bytes_max)
    }

    /// How many entries, from the first, fill one node: at least 1.
    pub(super) fn filling_count(&self, node_bytes_max: usize) -> usize {
        self.count_while(|length| length.bytes() <= node_bytes_max)
    }

    /// How many entries the first node takes where they do not all fit one. `is_last`: nothing follows in this level.
    ///
    /// Where keys are appended the node is filled, for nothing will come before its end again. Where they are inserted
    /// the cut is after the insertion, as more of the same is likely to follow, and then fills the node on its left.
    /// Elsewhere it is in the middle.
    pub(super) fn splitting_count(&self, node_bytes_max: usize, is_last: bool) -> usize {
        let filling = self.filling_count(node_bytes_max);
        let inserted = self.entries.iter().rposition(|entry| entry.new).map_or(0, |last| last + 1);
        if is_last || inserted == self.entries.len() {
            return filling;
        }
        let (left, right) = self.entries.split_at(inserted);
        let right = length_of(right);
        if inserted > 0
            && inserted <= filling
            && right.bytes() <= node_bytes_max
            && !is_underfull(right, node_bytes_max)
            && !is_underfull(length_of(left), node_bytes_max)
        {
            return inserted;
        }
        let half = self.length.bytes() / 2;
        (self.count_while(|length| length.bytes() < half) + 1).min(filling)
    }

    fn count_while(&self, holds: impl Fn(NodeLength) -> bool) -> usize {
        let mut length = NodeLength::default();
        let count = self.entries.iter().take_while(|entry| {
            length = grown(self.entries.first(), length, entry);
            holds(length)
        });
        count.count().max(1)
    }
}

/// Below this share of a node it is joined with a neighbour. Half would join what has just been split.
fn is_underfull(length: NodeLength, node_bytes_max: usize) -> bool {
    length.bytes() < node_bytes_max / 3
}

fn length_of<P: Payload>(entries: &[Entry<P>]) -> NodeLength {
    entries.iter().fold(NodeLength::default(), |length, entry| grown(entries.first(), length, entry))
}

fn grown<P: Payload>(first: Option<&Entry<P>>, length: NodeLength, entry: &Entry<P>) -> NodeLength {
    length.with(first.map_or(&entry.key, |first| &first.key), &entry.key, &entry.payload)
}
