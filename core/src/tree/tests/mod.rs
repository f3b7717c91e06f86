use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::block_on;
use proptest::prelude::*;

mod changes;
mod damage;
mod diff;
mod model;
mod relocate;

use super::*;
use crate::format::node::{
    HEIGHT_MAX, InnerBuilder, LeafBuilder, NODE_BYTES_MAX, NODE_BYTES_MAX_MIN, key_bytes_max, leaf_entry_bytes_max,
};

type Model = BTreeMap<Bytes, Bytes>;
type Batch = BTreeMap<Bytes, Option<Bytes>>;

/// Nodes in memory; what is read is decoded again, as from storage.
#[derive(Debug)]
struct Memory {
    nodes: Mutex<BTreeMap<Pointer, Bytes>>,
    next: AtomicU64,
    reads: AtomicU64,
    node_bytes_max: usize,
}

impl Memory {
    fn new(node_bytes_max: usize) -> Self {
        Self { nodes: Mutex::default(), next: AtomicU64::new(0), reads: AtomicU64::new(0), node_bytes_max }
    }

    fn put(&self, bytes: Bytes) -> Pointer {
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        let length = u32::try_from(bytes.len()).unwrap();
        let pointer = Pointer { key_epoch: 0, writer_epoch: 1, counter, index: 0, offset: 16, length, salt: [7; 16] };
        self.nodes.lock().unwrap().insert(pointer, bytes);
        pointer
    }

    fn count(&self) -> usize {
        self.nodes.lock().unwrap().len()
    }
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl NodeStore for Memory {
    async fn read(&self, pointer: &Pointer) -> Result<Arc<Node>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = self.nodes.lock().unwrap().get(pointer).cloned();
        decode_node(bytes.ok_or_else(|| Error::damaged("tree node", None, "missing"))?)
    }

    async fn write(&self, node: &[u8], level: u8) -> Result<Pointer> {
        assert!(node.len() <= self.node_bytes_max, "a node of {} bytes", node.len());
        assert_eq!(node[0], level);
        Ok(self.put(Bytes::copy_from_slice(node)))
    }

    fn node_bytes_max(&self) -> usize {
        self.node_bytes_max
    }
}

#[derive(Debug, Default)]
struct Shape {
    pointers: BTreeSet<Pointer>,
    leaf_bytes: Vec<usize>,
    inner_bytes: Vec<usize>,
}

impl Shape {
    fn leaf_fill(&self, node_bytes_max: usize) -> f64 {
        self.leaf_bytes.iter().sum::<usize>() as f64 / (self.leaf_bytes.len() * node_bytes_max) as f64
    }

    fn inner_fill(&self, node_bytes_max: usize) -> f64 {
        self.inner_bytes.iter().sum::<usize>() as f64 / (self.inner_bytes.len() * node_bytes_max) as f64
    }
}

fn shape(store: &Memory, root: Option<&TreeRoot>) -> Shape {
    let mut shape = Shape::default();
    block_on(walk(store, root, |visit| {
        let node = visit.node?;
        assert_eq!(node.level(), visit.level);
        assert!(shape.pointers.insert(*visit.pointer), "a node is met twice");
        if node.is_leaf() { &mut shape.leaf_bytes } else { &mut shape.inner_bytes }.push(node.bytes().len());
        Ok(())
    }))
    .unwrap();
    shape
}

fn scan(store: &Memory, root: Option<TreeRoot>, range: KeyRange, direction: Direction) -> Vec<(Bytes, Bytes)> {
    let mut cursor = Cursor::new(store, root, range, direction);
    let mut rows = Vec::new();
    while let Some(row) = block_on(cursor.next()).unwrap() {
        rows.push(row);
    }
    assert_eq!(block_on(cursor.next()).unwrap(), None);
    rows
}

const ALL: KeyRange = (Bound::Unbounded, Bound::Unbounded);

fn within(model: &Model, range: &KeyRange, direction: Direction) -> Vec<(Bytes, Bytes)> {
    let rows = model.iter().filter(|(key, _)| RangeBounds::<Bytes>::contains(range, *key));
    let mut rows: Vec<_> = rows.map(|(key, value)| (key.clone(), value.clone())).collect();
    if direction == Direction::Descending {
        rows.reverse();
    }
    rows
}

fn change(model: &mut Model, batch: &Batch) {
    for (key, value) in batch {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}

/// Applies a batch to tree and model and checks all that must hold.
fn step(store: &Memory, root: Option<TreeRoot>, model: &mut Model, batch: &Batch) -> Applied {
    let before = shape(store, root.as_ref());
    let known = store.count();
    let applied = block_on(apply(store, root.as_ref(), batch.clone(), 9)).unwrap();
    change(model, batch);
    let after = shape(store, applied.root.as_ref());
    assert_eq!(store.count() - known, applied.written.len(), "every node written is accounted for");
    let dead: BTreeSet<_> = applied.dead.iter().map(|dead| dead.pointer).collect();
    let written: BTreeSet<_> = applied.written.iter().copied().collect();
    assert_eq!((dead.len(), written.len()), (applied.dead.len(), applied.written.len()), "none twice");
    assert!(dead.is_subset(&before.pointers));
    let live: BTreeSet<_> = before.pointers.difference(&dead).chain(&written).copied().collect();
    assert_eq!(live, after.pointers);
    assert_eq!(scan(store, applied.root, ALL, Direction::Ascending), within(model, &ALL, Direction::Ascending));
    assert_eq!(applied.root.is_none(), model.is_empty());
    applied
}

fn keys() -> impl Strategy<Value = Bytes> {
    // Few distinct keys, so that batches meet; some long ones with long common prefixes, some at the limit.
    let prefix = prop::sample::select(vec![0_usize, 1, 9, 100, 240, 258]);
    (prefix, prop::collection::vec(0..5_u8, 0..=6)).prop_map(|(prefix, tail)| {
        let mut key = vec![1; prefix];
        key.extend(tail);
        key.into()
    })
}

fn values() -> impl Strategy<Value = Bytes> {
    let limit = leaf_entry_bytes_max(NODE_BYTES_MAX_MIN) - 264;
    prop_oneof![4 => 0..20_usize, 1 => 0..=limit, 1 => Just(limit)]
        .prop_flat_map(|length| any::<u8>().prop_map(move |byte| vec![byte; length].into()))
}

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let put = prop::option::weighted(0.7, values());
    let batch = prop_oneof![
        3 => prop::collection::btree_map(keys(), put, 0..12),
        1 => prop::collection::btree_map(keys(), prop::option::weighted(0.9, values()), 100..200),
        1 => prop::collection::btree_map(keys(), Just(None), 100..200),
    ];
    prop::collection::vec(batch, 1..8)
}

fn bounds() -> impl Strategy<Value = Bound<Bytes>> {
    prop_oneof![Just(Bound::Unbounded), keys().prop_map(Bound::Included), keys().prop_map(Bound::Excluded)]
}

fn directions() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Ascending), Just(Direction::Descending)]
}

fn build(store: &Memory, batches: &[Batch]) -> (Option<TreeRoot>, Model) {
    let mut model = Model::new();
    let mut root = None;
    for batch in batches {
        root = block_on(apply(store, root.as_ref(), batch.clone(), 9)).unwrap().root;
        change(&mut model, batch);
    }
    (root, model)
}

fn row(number: u32, value_bytes: usize) -> (Bytes, Option<Bytes>) {
    let mut key = b"\x10\x00\x00\x00\x00inode".to_vec();
    key.extend(number.to_be_bytes());
    (key.into(), Some(vec![number as u8; value_bytes].into()))
}
