//! The bytes of a tree node: a sorted run of entries with their common prefix stored once.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 1 | level: 0 is a leaf, a node of level *n* points to nodes of level *n* − 1; at most 15 |
//! | 1 | 1 | flags: 0 |
//! | 2 | 2 | count of entries, at least 1 |
//! | 4 | 2 | length *p* of the prefix |
//! | 6 | 8 | birth: the checkpoint that wrote the node, or what it is a copy of; 0 where nobody asks |
//! | 14 | *p* | prefix: every key of the node starts with it |
//! | 14 + *p* | 2 × count | for each entry, where it starts, counted from the start of the node |
//! | … | … | the entries, in ascending order of their keys, back to back, up to the end of the node |
//!
//! | entry of a leaf | bytes | | entry of an inner node | bytes |
//! |---|---|---|---|---|
//! | length *s* of the suffix | 2 | | pointer to the child | 38 |
//! | suffix | *s* | | suffix of the separator | up to the end |
//! | value | up to the end | | | |
//!
//! A key is prefix ‖ suffix. The first entry starts where the offset table ends and each entry ends where the next one
//! starts, so no byte of a node is without meaning. Keys ascend strictly, compared as bytes. Writers store the longest
//! common prefix; readers accept any. Integers are little-endian. A node is at most [`NODE_BYTES_MAX`] long.
//!
//! [`Node::decode`] checks all of this once; afterwards a node is searched in place.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;

use super::{FormatError, Pointer, limits};

/// The longest node, in bytes.
pub const NODE_BYTES_MAX: usize = limits::node_bytes_max(limits::BLOCK_BYTES_MAX) as usize;
/// The limit for the length of a node in a repository of the smallest blocks, in bytes.
pub const NODE_BYTES_MAX_MIN: usize = limits::node_bytes_max(limits::BLOCK_BYTES_MIN) as usize;
/// The most levels that a tree has. It bounds what a walk over hostile pointers costs.
pub const HEIGHT_MAX: u8 = 16;

const HEADER_BYTES: usize = 14;
const BIRTH_AT: usize = 6;
const OFFSET_BYTES: usize = 2;
const SUFFIX_LENGTH_BYTES: usize = 2;

/// The longest key plus value, in bytes: two such entries always fit a leaf.
#[must_use]
pub const fn leaf_entry_bytes_max(node_bytes_max: usize) -> usize {
    node_bytes_max.saturating_sub(64) / 2
}

/// The longest key, in bytes: three such separators always fit an inner node, so that a tree grows by splitting.
#[must_use]
pub const fn key_bytes_max(node_bytes_max: usize) -> usize {
    (node_bytes_max.saturating_sub(HEADER_BYTES) / 3).saturating_sub(OFFSET_BYTES + Pointer::BYTES)
}

// A file system key (table, inode, name of 255 bytes) fits the smallest node.
const _: () = assert!(key_bytes_max(NODE_BYTES_MAX_MIN) > 1 + 8 + 255);
const _: () = assert!(key_bytes_max(NODE_BYTES_MAX_MIN) <= leaf_entry_bytes_max(NODE_BYTES_MAX_MIN));
const _: () = assert!(key_bytes_max(NODE_BYTES_MAX) <= leaf_entry_bytes_max(NODE_BYTES_MAX));

/// A key as it lies in a node: prefix ‖ suffix. Ordered as the bytes of the whole.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The part shared by the whole node.
    pub prefix: &'a [u8],
    /// The rest.
    pub suffix: &'a [u8],
}

impl<'a> Key<'a> {
    /// A key in one piece.
    #[must_use]
    pub fn whole(key: &'a [u8]) -> Self {
        Self { prefix: &[], suffix: key }
    }

    /// A copy in one piece.
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        [self.prefix, self.suffix].concat().into()
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key<'_> {}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let shared = self.prefix.len().min(other.prefix.len());
        let (mine, mine_rest) = self.prefix.split_at(shared);
        let (theirs, theirs_rest) = other.prefix.split_at(shared);
        mine.cmp(theirs).then_with(|| {
            if mine_rest.is_empty() {
                compare_split(self.suffix, theirs_rest, other.suffix)
            } else {
                compare_split(other.suffix, mine_rest, self.suffix).reverse()
            }
        })
    }
}

/// Compares `whole` with head ‖ tail.
fn compare_split(whole: &[u8], head: &[u8], tail: &[u8]) -> Ordering {
    let (start, rest) = whole.split_at(whole.len().min(head.len()));
    start.cmp(head).then_with(|| rest.cmp(tail))
}

/// A node whose bytes have been checked: its offsets lie within it and its keys ascend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    bytes: Bytes,
    level: u8,
    count: usize,
    prefix_bytes: usize,
}

impl Node {
    /// Checks `bytes` against the rules of the module.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn decode(bytes: Bytes) -> Result<Self, FormatError> {
        let malformed = |reason: &str| FormatError::new("tree node", reason);
        if bytes.len() > NODE_BYTES_MAX {
            return Err(malformed("too long"));
        }
        let &[level, flags, count_low, count_high, prefix_low, prefix_high, ..] = &bytes[..] else {
            return Err(malformed("too short"));
        };
        if level >= HEIGHT_MAX {
            return Err(malformed("level too high"));
        }
        if flags != 0 {
            return Err(malformed("unknown flags"));
        }
        let count = usize::from(u16::from_le_bytes([count_low, count_high]));
        if count == 0 {
            return Err(malformed("no entry"));
        }
        let prefix_bytes = usize::from(u16::from_le_bytes([prefix_low, prefix_high]));
        let entries_start = HEADER_BYTES + prefix_bytes + OFFSET_BYTES * count;
        if bytes.len() < HEADER_BYTES {
            return Err(malformed("too short"));
        }
        if entries_start > bytes.len() {
            return Err(malformed("prefix or offset table past the end"));
        }
        let node = Self { bytes, level, count, prefix_bytes };
        if node.offset(0) != Some(entries_start) {
            return Err(malformed("the first entry does not follow the offset table"));
        }
        let mut previous: Option<&[u8]> = None;
        for index in 0..count {
            let (suffix, _) = node.split_entry(index).ok_or_else(|| malformed("entry out of bounds"))?;
            if previous.is_some_and(|previous| previous >= suffix) {
                return Err(malformed("keys do not ascend"));
            }
            previous = Some(suffix);
        }
        Ok(node)
    }

    /// The encoded form.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The checkpoint that wrote it: it is in the trees of that one and of those after, up to the one that replaced it.
    #[must_use]
    pub fn birth(&self) -> u64 {
        self.bytes.get(BIRTH_AT..).and_then(<[u8]>::first_chunk).map_or(0, |birth| u64::from_le_bytes(*birth))
    }

    /// How far above the leaves: 0 is a leaf.
    #[must_use]
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Whether the entries are keys and values, not separators and pointers.
    #[must_use]
    pub fn is_leaf(&self) -> bool {
        self.level == 0
    }

    /// The number of entries, at least 1.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The key, or separator, of an entry.
    #[must_use]
    pub fn key(&self, index: usize) -> Option<Key<'_>> {
        let (suffix, _) = self.split_entry(index)?;
        Some(Key { prefix: self.prefix(), suffix })
    }

    /// The key, or separator, of an entry in one piece; shares the node's memory where it lies there in one piece.
    #[must_use]
    pub fn key_bytes(&self, index: usize) -> Option<Bytes> {
        let key = self.key(index)?;
        Some(if key.prefix.is_empty() { self.bytes.slice_ref(key.suffix) } else { key.to_bytes() })
    }

    /// The key of the last entry.
    #[must_use]
    pub fn last_key(&self) -> Option<Key<'_>> {
        self.key(self.count.saturating_sub(1))
    }

    /// The value of an entry of a leaf; it shares the node's memory. `None` for an inner node.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<Bytes> {
        if !self.is_leaf() {
            return None;
        }
        let (_, value) = self.split_entry(index)?;
        Some(self.bytes.slice_ref(value))
    }

    /// The child that an entry of an inner node points to. `None` for a leaf.
    #[must_use]
    pub fn child(&self, index: usize) -> Option<Pointer> {
        if self.is_leaf() {
            return None;
        }
        let (_, pointer) = self.split_entry(index)?;
        Pointer::decode(pointer)
    }

    /// The bytes of the same node with those children elsewhere that `place` knows another place of. Its length, its birth
    /// and all else stay as they are.
    #[must_use]
    pub fn with_children_at(&self, place: impl Fn(&Pointer) -> Option<Pointer>) -> Bytes {
        let mut bytes = self.bytes.to_vec();
        for index in 0..self.count {
            let Some(to) = self.child(index).and_then(|child| place(&child)) else { continue };
            let at = self.offset(index).and_then(|offset| bytes.get_mut(offset..)?.first_chunk_mut());
            if let Some(at) = at {
                *at = to.encode();
            }
        }
        bytes.into()
    }

    /// `Ok`: the entry that holds exactly `key`; `Err`: the number of entries before `key`.
    ///
    /// # Errors
    /// As said: the place where the key would be.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let (start, wanted) = key.split_at(key.len().min(prefix.len()));
        match start.cmp(prefix) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.count),
            Ordering::Equal => {}
        }
        let mut range: Range<usize> = 0..self.count;
        while !range.is_empty() {
            let middle = range.start + range.len() / 2;
            // Decoding has checked every entry, so there is always a suffix.
            let suffix = self.split_entry(middle).map_or(&[][..], |(suffix, _)| suffix);
            match suffix.cmp(wanted) {
                Ordering::Equal => return Ok(middle),
                Ordering::Less => range.start = middle + 1,
                Ordering::Greater => range.end = middle,
            }
        }
        Err(range.start)
    }

    /// The entry of an inner node whose subtree may hold `key`: the last separator that is not above it. `None` where
    /// every separator is above it, so that no subtree holds it.
    #[must_use]
    pub fn child_index(&self, key: &[u8]) -> Option<usize> {
        match self.search(key) {
            Ok(index) => Some(index),
            Err(before) => before.checked_sub(1),
        }
    }

    fn prefix(&self) -> &[u8] {
        self.bytes.get(HEADER_BYTES..HEADER_BYTES + self.prefix_bytes).unwrap_or_default()
    }

    fn offset(&self, index: usize) -> Option<usize> {
        let at = HEADER_BYTES + self.prefix_bytes + OFFSET_BYTES * index;
        let offset = self.bytes.get(at..)?.first_chunk()?;
        Some(usize::from(u16::from_le_bytes(*offset)))
    }

    /// The suffix, and the value or the encoded pointer.
    fn split_entry(&self, index: usize) -> Option<(&[u8], &[u8])> {
        if index >= self.count {
            return None;
        }
        let end = if index + 1 == self.count { self.bytes.len() } else { self.offset(index + 1)? };
        let entry = self.bytes.get(self.offset(index)?..end)?;
        if self.is_leaf() {
            let (suffix_bytes, rest) = entry.split_first_chunk()?;
            rest.split_at_checked(usize::from(u16::from_le_bytes(*suffix_bytes)))
        } else {
            let (pointer, suffix) = entry.split_at_checked(Pointer::BYTES)?;
            Some((suffix, pointer))
        }
    }
}

/// The length of a node while entries are added to it in ascending order.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeLength {
    count: usize,
    prefix_bytes: usize,
    /// The entries and their offsets, with whole keys.
    unshared_bytes: usize,
}

impl NodeLength {
    /// The length with one more entry at the end. `first` is the first key of the node, `key` itself where it is empty.
    #[must_use]
    pub fn with<P: Payload>(&self, first: &[u8], key: &[u8], payload: &P) -> Self {
        let shared = common_prefix(first, key);
        Self {
            count: self.count + 1,
            prefix_bytes: if self.count == 0 { key.len() } else { self.prefix_bytes.min(shared) },
            unshared_bytes: self.unshared_bytes + OFFSET_BYTES + key.len() + payload.entry_bytes(),
        }
    }

    /// The length of the encoded node, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (HEADER_BYTES + self.prefix_bytes + self.unshared_bytes).saturating_sub(self.count * self.prefix_bytes)
    }
}

/// The number of bytes at the start that two keys share.
#[must_use]
pub fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The shortest key that is above `left` and not above `right`, for `left` < `right`.
#[must_use]
pub fn shortest_separator(left: &[u8], right: &Bytes) -> Bytes {
    right.slice(..right.len().min(common_prefix(left, right) + 1))
}

/// What an entry carries beside its key: a value in a leaf, a pointer in an inner node.
pub trait Payload: Clone {
    /// What an entry takes beside its offset and its suffix, in bytes.
    fn entry_bytes(&self) -> usize;
    /// Appends the entry.
    fn encode_entry(&self, suffix: &[u8], node: &mut Vec<u8>);
}

impl Payload for Bytes {
    fn entry_bytes(&self) -> usize {
        SUFFIX_LENGTH_BYTES + self.len()
    }

    fn encode_entry(&self, suffix: &[u8], node: &mut Vec<u8>) {
        // Whoever builds checks that the whole node fits 16 bits.
        node.extend_from_slice(&u16::try_from(suffix.len()).unwrap_or(u16::MAX).to_le_bytes());
        node.extend_from_slice(suffix);
        node.extend_from_slice(self);
    }
}

impl Payload for Pointer {
    fn entry_bytes(&self) -> usize {
        Self::BYTES
    }

    fn encode_entry(&self, suffix: &[u8], node: &mut Vec<u8>) {
        node.extend_from_slice(&self.encode());
        node.extend_from_slice(suffix);
    }
}

/// Builds a node from entries in ascending order.
#[derive(Clone, Debug)]
pub struct NodeBuilder<'a, P> {
    level: u8,
    birth: u64,
    length: NodeLength,
    entries: Vec<(&'a [u8], &'a P)>,
}

/// Builds a leaf from keys and values.
pub type LeafBuilder<'a> = NodeBuilder<'a, Bytes>;
/// Builds an inner node from separators and pointers.
pub type InnerBuilder<'a> = NodeBuilder<'a, Pointer>;

impl LeafBuilder<'_> {
    /// An empty leaf.
    #[must_use]
    pub fn leaf() -> Self {
        Self { level: 0, birth: 0, length: NodeLength::default(), entries: Vec::new() }
    }
}

impl InnerBuilder<'_> {
    /// An empty inner node of a level, which is at least 1.
    #[must_use]
    pub fn inner(level: u8) -> Self {
        Self { level, birth: 0, length: NodeLength::default(), entries: Vec::new() }
    }
}

impl<'a, P: Payload> NodeBuilder<'a, P> {
    /// The same for a node that a checkpoint writes; see [`Node::birth`].
    #[must_use]
    pub fn born(self, birth: u64) -> Self {
        Self { birth, ..self }
    }

    /// The number of entries.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The length of the node so far, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.length.bytes()
    }

    /// Adds an entry, whose key is above the one before, if the node then still is at most `node_bytes_max` long.
    pub fn push(&mut self, key: &'a [u8], payload: &'a P, node_bytes_max: usize) -> bool {
        let first = self.entries.first().map_or(key, |(first, _)| *first);
        let length = self.length.with(first, key, payload);
        let fits = length.bytes() <= node_bytes_max;
        if fits {
            self.length = length;
            self.entries.push((key, payload));
        }
        fits
    }

    /// The bytes of the node.
    ///
    /// # Errors
    /// When there is no entry, or when the node is over [`NODE_BYTES_MAX`] or [`HEIGHT_MAX`].
    pub fn build(&self) -> Result<Vec<u8>, FormatError> {
        let malformed = |reason: &str| FormatError::new("tree node", reason);
        let &(first, _) = self.entries.first().ok_or_else(|| malformed("no entry"))?;
        if self.length.bytes() > NODE_BYTES_MAX {
            return Err(malformed("too long"));
        }
        if self.level >= HEIGHT_MAX {
            return Err(malformed("level too high"));
        }
        let narrow = |number: usize| u16::try_from(number).map_err(|_| malformed("too long"));
        let prefix = first.get(..self.length.prefix_bytes).unwrap_or_default();
        let mut node = Vec::with_capacity(self.length.bytes());
        node.extend_from_slice(&[self.level, 0]);
        node.extend_from_slice(&narrow(self.entries.len())?.to_le_bytes());
        node.extend_from_slice(&narrow(prefix.len())?.to_le_bytes());
        node.extend_from_slice(&self.birth.to_le_bytes());
        node.extend_from_slice(prefix);
        let mut offset = node.len() + OFFSET_BYTES * self.entries.len();
        for (key, payload) in &self.entries {
            node.extend_from_slice(&narrow(offset)?.to_le_bytes());
            offset += key.len().saturating_sub(prefix.len()) + payload.entry_bytes();
        }
        for (key, payload) in &self.entries {
            payload.encode_entry(key.get(prefix.len()..).unwrap_or_default(), &mut node);
        }
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointer(number: u64) -> Pointer {
        Pointer { key_epoch: 1, writer_epoch: 2, counter: number, index: 3, offset: 4, length: 5, salt: [6; 16] }
    }

    fn leaf(rows: &[(Vec<u8>, Bytes)]) -> Vec<u8> {
        let mut builder = LeafBuilder::leaf();
        for (key, value) in rows {
            assert!(builder.push(key, value, NODE_BYTES_MAX));
        }
        let bytes = builder.build().unwrap();
        assert_eq!(bytes.len(), builder.bytes());
        bytes
    }

    fn rows() -> impl Strategy<Value = Vec<(Vec<u8>, Bytes)>> {
        let key = (0..3_usize, prop::collection::vec(0..4_u8, 0..6)).prop_map(|(prefix, tail)| {
            let mut key = vec![b'p'; prefix * 20];
            key.extend(tail);
            key
        });
        let value = prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        prop::collection::btree_map(key, value, 1..30).prop_map(|rows| rows.into_iter().collect())
    }

    /// Looks at everything that a node offers: nothing may panic.
    fn exercise(node: &Node) {
        for index in 0..=node.count() {
            let key = node.key_bytes(index);
            assert_eq!(key.is_some(), index < node.count());
            if let Some(key) = key {
                assert_eq!(node.search(&key), Ok(index));
                assert_eq!(node.child_index(&key), Some(index));
            }
            assert_eq!(node.value(index).is_some(), node.is_leaf() && index < node.count());
            assert_eq!(node.child(index).is_some(), !node.is_leaf() && index < node.count());
        }
        let _ = node.search(b"");
        let _ = node.search(&[255; 300]);
    }

    proptest! {
        #[test]
        fn a_leaf_gives_back_its_rows_and_finds_every_key(rows in rows(), probe in prop::collection::vec(0..4_u8, 0..6)) {
            let node = Node::decode(leaf(&rows).into()).unwrap();
            prop_assert!(node.is_leaf());
            prop_assert_eq!(node.count(), rows.len());
            for (index, (key, value)) in rows.iter().enumerate() {
                prop_assert_eq!(node.key_bytes(index).unwrap(), key);
                prop_assert_eq!(&node.value(index).unwrap(), value);
            }
            exercise(&node);
            prop_assert_eq!(node.search(&probe), rows.binary_search_by(|(key, _)| key.cmp(&probe)));
        }

        #[test]
        fn an_inner_node_gives_back_its_children(rows in rows(), level in 1..HEIGHT_MAX) {
            let rows: Vec<_> = rows.into_iter().zip(0..).map(|((key, _), number)| (key, pointer(number))).collect();
            let mut builder = InnerBuilder::inner(level);
            for (key, pointer) in &rows {
                prop_assert!(builder.push(key, pointer, NODE_BYTES_MAX));
            }
            let node = Node::decode(builder.build().unwrap().into()).unwrap();
            prop_assert_eq!(node.level(), level);
            for (index, (key, pointer)) in rows.iter().enumerate() {
                prop_assert_eq!(node.key_bytes(index).unwrap(), key);
                prop_assert_eq!(node.child(index).unwrap(), *pointer);
            }
            exercise(&node);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), level in 0..2_u8, count in 0..8_u8) {
            let mut bytes = bytes;
            let _ = Node::decode(bytes.clone().into()).map(|node| exercise(&node));
            // The same with a header that gets past the first checks.
            for (place, byte) in bytes.iter_mut().zip([level, 0, count, 0]) {
                *place = byte;
            }
            let _ = Node::decode(bytes.into()).map(|node| exercise(&node));
        }

        #[test]
        fn mutated_nodes_never_panic(rows in rows(), at in any::<prop::sample::Index>(), byte: u8, cut in 0..4_usize) {
            let mut bytes = leaf(&rows);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Ok(node) = Node::decode(bytes.into()) {
                for index in 1..node.count() {
                    prop_assert!(node.key(index - 1).unwrap() < node.key(index).unwrap());
                }
                exercise(&node);
            }
        }

        #[test]
        fn keys_in_two_pieces_compare_as_their_bytes(
            a in prop::collection::vec(0..2_u8, 0..8), b in prop::collection::vec(0..2_u8, 0..8),
            at in any::<prop::sample::Index>(), bt in any::<prop::sample::Index>(),
        ) {
            let (a_prefix, a_suffix) = a.split_at(at.index(a.len() + 1));
            let (b_prefix, b_suffix) = b.split_at(bt.index(b.len() + 1));
            let order = Key { prefix: a_prefix, suffix: a_suffix }.cmp(&Key { prefix: b_prefix, suffix: b_suffix });
            prop_assert_eq!(order, a.cmp(&b));
        }

        #[test]
        fn a_separator_parts_its_neighbours(
            a in prop::collection::vec(0..3_u8, 0..8), b in prop::collection::vec(0..3_u8, 0..8),
        ) {
            prop_assume!(a != b);
            let (left, right) = if a < b { (a, b) } else { (b, a) };
            let right = Bytes::from(right);
            let separator = shortest_separator(&left, &right);
            prop_assert!(left < separator && separator <= right);
        }
    }

    #[test]
    fn a_node_with_slack_or_disorder_is_refused() {
        let rows = [(b"aa".to_vec(), Bytes::from_static(b"1")), (b"ab".to_vec(), Bytes::from_static(b"2"))];
        let good = leaf(&rows);
        let refused = |change: fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            Node::decode(bytes.into()).unwrap_err().reason
        };
        assert_eq!(refused(|bytes| bytes[0] = HEIGHT_MAX), "level too high");
        assert_eq!(refused(|bytes| bytes[1] = 1), "unknown flags");
        assert_eq!(refused(|bytes| bytes[2] = 0), "no entry");
        assert_eq!(refused(|bytes| bytes[3] = 255), "prefix or offset table past the end");
        assert_eq!(refused(|bytes| bytes[15] += 1), "the first entry does not follow the offset table");
        assert_eq!(refused(|bytes| bytes[17] = 255), "entry out of bounds");
        assert_eq!(refused(|bytes| bytes[21] = b'b'), "keys do not ascend");
        assert_eq!(refused(|bytes| bytes.truncate(5)), "too short");
        assert_eq!(refused(|bytes| bytes.truncate(13)), "too short");
        assert_eq!(refused(|bytes| bytes.resize(NODE_BYTES_MAX + 1, 0)), "too long");
    }

    #[test]
    fn the_bytes_of_a_node_are_as_documented() {
        let rows = [(b"aa".to_vec(), Bytes::from_static(b"1")), (b"ab".to_vec(), Bytes::from_static(b"23"))];
        let expected: &[u8] = &[
            0, 0, 2, 0, 1, 0, // level, flags, count, length of the prefix
            7, 1, 0, 0, 0, 0, 0, 0, b'a', // birth, prefix
            19, 0, 23, 0, // offsets
            1, 0, b'a', b'1', // first row
            1, 0, b'b', b'2', b'3', // second row
        ];
        let mut builder = LeafBuilder::leaf().born(0x107);
        assert!(rows.iter().all(|(key, value)| builder.push(key, value, NODE_BYTES_MAX)));
        let bytes = builder.build().unwrap();
        assert_eq!(bytes, expected);
        assert_eq!(Node::decode(bytes.into()).unwrap().birth(), 0x107);
    }

    #[test]
    fn the_limits_leave_room_for_two_rows_and_for_three_separators() {
        for node_bytes_max in [NODE_BYTES_MAX_MIN, 2048, NODE_BYTES_MAX] {
            let key_bytes = key_bytes_max(node_bytes_max);
            let keys: Vec<Vec<u8>> = (0..3).map(|number| vec![number; key_bytes]).collect();
            let value = Bytes::from(vec![0; leaf_entry_bytes_max(node_bytes_max) - key_bytes]);
            let mut leaf = LeafBuilder::leaf();
            assert!(keys.iter().take(2).all(|key| leaf.push(key, &value, node_bytes_max)));
            let child = pointer(0);
            let mut inner = InnerBuilder::inner(1);
            assert!(keys.iter().all(|key| inner.push(key, &child, node_bytes_max)));
        }
    }
}
