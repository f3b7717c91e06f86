use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::block_on;
use proptest::prelude::*;

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
    let applied = block_on(apply(store, root.as_ref(), batch.clone())).unwrap();
    change(model, batch);
    let after = shape(store, applied.root.as_ref());
    assert_eq!(store.count() - known, applied.written.len(), "every node written is accounted for");
    let dead: BTreeSet<_> = applied.dead.iter().copied().collect();
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
        root = block_on(apply(store, root.as_ref(), batch.clone())).unwrap().root;
        change(&mut model, batch);
    }
    (root, model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_tree_is_the_map_that_its_batches_make(batches in batches(), probes in prop::collection::vec(keys(), 20)) {
        let store = Memory::new(NODE_BYTES_MAX_MIN);
        let (mut root, mut model) = (None, Model::new());
        for batch in &batches {
            root = step(&store, root, &mut model, batch).root;
            let again = step(&store, root, &mut model, batch);
            prop_assert_eq!(again.root, root, "what changes nothing keeps the tree");
            prop_assert!(again.dead.is_empty() && again.written.is_empty());
        }
        for key in probes.iter().chain(model.keys()) {
            prop_assert_eq!(block_on(get(&store, root.as_ref(), key)).unwrap(), model.get(key).cloned());
        }
        let emptying: Batch = model.keys().map(|key| (key.clone(), None)).collect();
        prop_assert_eq!(step(&store, root, &mut model, &emptying).root, None);
    }

    #[test]
    fn a_cursor_gives_the_range_in_both_directions(
        batches in batches(), ranges in prop::collection::vec((bounds(), bounds(), directions()), 10),
    ) {
        let store = Memory::new(NODE_BYTES_MAX_MIN);
        let (root, model) = build(&store, &batches);
        for (lower, upper, direction) in ranges {
            let range = (lower, upper);
            prop_assert_eq!(scan(&store, root, range.clone(), direction), within(&model, &range, direction));
        }
    }

    #[test]
    fn a_merged_cursor_gives_the_range_as_if_the_overlay_had_been_applied(
        batches in batches(), overlay in batches(), ranges in prop::collection::vec((bounds(), bounds(), directions()), 10),
    ) {
        let store = Memory::new(NODE_BYTES_MAX_MIN);
        let (root, mut model) = build(&store, &batches);
        let overlay: Batch = overlay.into_iter().flatten().collect();
        change(&mut model, &overlay);
        let overlay: Overlay = overlay.into_iter().collect();
        for (lower, upper, direction) in ranges {
            let range = (lower, upper);
            let mut cursor = MergedCursor::new(&store, root, overlay.clone(), range.clone(), direction);
            let mut rows = Vec::new();
            while let Some(row) = block_on(cursor.next()).unwrap() {
                rows.push(row);
            }
            prop_assert_eq!(block_on(cursor.next()).unwrap(), None);
            prop_assert_eq!(rows, within(&model, &range, direction));
        }
    }
}

fn row(number: u32, value_bytes: usize) -> (Bytes, Option<Bytes>) {
    let mut key = b"\x10\x00\x00\x00\x00inode".to_vec();
    key.extend(number.to_be_bytes());
    (key.into(), Some(vec![number as u8; value_bytes].into()))
}

#[test]
fn a_large_batch_is_one_well_filled_tree() {
    for node_bytes_max in [NODE_BYTES_MAX_MIN, NODE_BYTES_MAX] {
        let store = Memory::new(node_bytes_max);
        let mut model = Model::new();
        let batch: Batch = (0..50_000).map(|number| row(number, 24)).collect();
        let root = step(&store, None, &mut model, &batch).root;
        let filled = shape(&store, root.as_ref());
        assert!(filled.leaf_fill(node_bytes_max) > 0.95, "{}", filled.leaf_fill(node_bytes_max));
        assert!(filled.inner_fill(node_bytes_max) > 0.7, "{}", filled.inner_fill(node_bytes_max));
        let half: Batch = (0..50_000).filter(|number| number % 2 == 0).map(|number| (row(number, 0).0, None)).collect();
        let root = step(&store, root, &mut model, &half).root;
        assert!(shape(&store, root.as_ref()).leaf_fill(node_bytes_max) > 0.9);
    }
}

/// Applies batches of `step` rows in the order of `numbers`; the fill of the leaves that they end with.
fn fill_after(numbers: &[u32], rows_per_batch: usize, before: &[Batch]) -> f64 {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let (mut root, _) = build(&store, before);
    for batch in numbers.chunks(rows_per_batch) {
        let batch: Batch = batch.iter().map(|number| row(*number, 16)).collect();
        root = block_on(apply(&store, root.as_ref(), batch)).unwrap().root;
    }
    shape(&store, root.as_ref()).leaf_fill(NODE_BYTES_MAX_MIN)
}

#[test]
fn appending_fills_the_leaves() {
    let numbers: Vec<u32> = (0..3000).collect();
    for rows_per_batch in [1, 7, 500] {
        let fill = fill_after(&numbers, rows_per_batch, &[]);
        assert!(fill > 0.9, "{rows_per_batch} rows a batch fill {fill}");
    }
}

#[test]
fn appending_in_the_middle_of_the_keys_fills_the_leaves() {
    let numbers: Vec<u32> = (0..3000).collect();
    // Rows of the same table on both sides.
    let around: Batch = (0..40)
        .map(|number| (vec![if number < 20 { 0x0f } else { 0x11 }, number].into(), Some(vec![0; 20].into())))
        .collect();
    for rows_per_batch in [1, 7, 500] {
        let fill = fill_after(&numbers, rows_per_batch, std::slice::from_ref(&around));
        assert!(fill > 0.9, "{rows_per_batch} rows a batch fill {fill}");
    }
}

#[test]
fn random_insertion_leaves_the_leaves_over_half_full() {
    let mut numbers: Vec<u32> = (0..3000).collect();
    numbers.sort_by_key(|number| number.wrapping_mul(2_654_435_761));
    for rows_per_batch in [1, 7, 500] {
        let fill = fill_after(&numbers, rows_per_batch, &[]);
        assert!(fill > 0.6, "{rows_per_batch} rows a batch fill {fill}");
    }
}

#[test]
fn thinning_out_row_by_row_merges_leaves() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let (mut root, mut model) = build(&store, &[(0..2000).map(|number| row(number, 16)).collect()]);
    for number in (0..2000).filter(|number| number % 10 != 0) {
        let batch = Batch::from([(row(number, 0).0, None)]);
        root = block_on(apply(&store, root.as_ref(), batch.clone())).unwrap().root;
        change(&mut model, &batch);
    }
    assert_eq!(scan(&store, root, ALL, Direction::Descending), within(&model, &ALL, Direction::Descending));
    assert!(shape(&store, root.as_ref()).leaf_fill(NODE_BYTES_MAX_MIN) > 0.33);
}

#[test]
fn a_change_of_one_row_rewrites_one_path_and_keeps_the_rest() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let (root, mut model) = build(&store, &[(0..5000).map(|number| row(number, 16)).collect()]);
    let height = usize::from(root.unwrap().height);
    assert!(height >= 3);
    let nodes = shape(&store, root.as_ref()).pointers.len();
    store.reads.store(0, Ordering::Relaxed);
    let batch = Batch::from([(row(2500, 0).0, Some(Bytes::from_static(b"0123456789abcdef")))]);
    block_on(apply(&store, root.as_ref(), batch.clone())).unwrap();
    assert_eq!(store.reads.load(Ordering::Relaxed), height as u64);
    let applied = step(&store, root, &mut model, &batch);
    assert_eq!((applied.dead.len(), applied.written.len()), (height, height));
    assert_eq!(shape(&store, applied.root.as_ref()).pointers.len(), nodes);
}

#[test]
fn deleting_what_is_not_there_writes_nothing() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let (root, mut model) = build(&store, &[(0..2000).map(|number| row(2 * number, 16)).collect()]);
    let absent: Batch = (0..4000).filter(|number| number % 2 == 1).map(|number| (row(number, 0).0, None)).collect();
    let applied = step(&store, root, &mut model, &absent);
    assert_eq!(applied, Applied { root, dead: vec![], written: vec![] });
    assert_eq!(step(&store, None, &mut Model::new(), &absent), Applied::default());
}

#[test]
fn a_tree_that_shrinks_loses_levels() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let (root, mut model) = build(&store, &[(0..5000).map(|number| row(number, 16)).collect()]);
    assert!(root.unwrap().height > 2);
    for kept in [0, 2500, 4999] {
        let mut model = model.clone();
        let batch: Batch = (0..5000).filter(|number| *number != kept).map(|number| (row(number, 0).0, None)).collect();
        assert_eq!(step(&store, root, &mut model, &batch).root.unwrap().height, 1);
    }
    // Only the last leaves stay, untouched.
    let last = shape_of_last_leaf(&store, root);
    let batch: Batch = model.keys().filter(|key| **key < last).map(|key| (key.clone(), None)).collect();
    let applied = step(&store, root, &mut model, &batch);
    assert_eq!(applied.root.unwrap().height, 1);
    assert!(applied.written.is_empty());
}

/// The first key of the last leaf.
fn shape_of_last_leaf(store: &Memory, root: Option<TreeRoot>) -> Bytes {
    let mut first = Bytes::new();
    block_on(walk(store, root.as_ref(), |visit| {
        if let Some(key) = visit.node?.key_bytes(0).filter(|_| visit.level == 0) {
            first = key;
        }
        Ok(())
    }))
    .unwrap();
    first
}

#[test]
fn what_is_over_a_limit_or_out_of_order_is_refused_before_anything_is_written() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let key_bytes = key_bytes_max(NODE_BYTES_MAX_MIN);
    let entry_bytes = leaf_entry_bytes_max(NODE_BYTES_MAX_MIN);
    let small = (Bytes::from_static(b"\0"), Some(Bytes::new()));
    let entry = |key_bytes: usize, value_bytes: usize| {
        (Bytes::from(vec![9; key_bytes]), Some(Bytes::from(vec![0; value_bytes])))
    };
    let run = |changes: Vec<(Bytes, Option<Bytes>)>| block_on(apply(&store, None, changes));
    let refused = |changes| match run(changes) {
        Err(Error::LimitExceeded { what, value, limit }) => (what, value - limit),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(vec![small.clone(), entry(key_bytes + 1, 0)]), ("key_bytes", 1));
    assert_eq!(refused(vec![small.clone(), entry(10, entry_bytes - 9)]), ("entry_bytes", 1));
    assert!(matches!(run(vec![small.clone(), small.clone()]), Err(Error::Invalid(_))));
    assert!(matches!(run(vec![entry(1, 0), small.clone()]), Err(Error::Invalid(_))));
    assert_eq!(store.count(), 0);
    assert!(run(vec![small, entry(key_bytes, entry_bytes - key_bytes)]).is_ok());
}

#[test]
fn a_cursor_reads_on_in_the_old_tree() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let (root, mut model) = build(&store, &[(0..1000).map(|number| row(number, 16)).collect()]);
    let expected = within(&model, &ALL, Direction::Ascending);
    let mut cursor = Cursor::new(&store, root, ALL, Direction::Ascending);
    let first = block_on(cursor.next()).unwrap().unwrap();
    let emptying = model.keys().map(|key| (key.clone(), None)).collect();
    step(&store, root, &mut model, &emptying);
    let mut rows = vec![first];
    while let Some(row) = block_on(cursor.next()).unwrap() {
        rows.push(row);
    }
    assert_eq!(rows, expected);
}

fn leaf_of(store: &Memory, keys: &[&'static str]) -> Pointer {
    let (keys, value): (Vec<_>, _) = (keys.iter().map(|key| key.as_bytes()).collect(), Bytes::new());
    let mut builder = LeafBuilder::leaf();
    assert!(keys.iter().all(|key| builder.push(key, &value, NODE_BYTES_MAX)));
    store.put(builder.build().unwrap().into())
}

fn inner_of(store: &Memory, level: u8, children: &[(&'static str, Pointer)]) -> Pointer {
    let mut builder = InnerBuilder::inner(level);
    assert!(children.iter().all(|(key, child)| builder.push(key.as_bytes(), child, NODE_BYTES_MAX)));
    store.put(builder.build().unwrap().into())
}

/// Every way of reading must find the damage, and none may panic or run on.
fn assert_damaged(store: &Memory, root: TreeRoot, key: &'static str, what: &str) {
    let found = |error: Error| match error {
        Error::Damaged(damage) => assert!(damage.detail.contains(what), "{}", damage.detail),
        other => panic!("{other}"),
    };
    found(block_on(get(store, Some(&root), key.as_bytes())).unwrap_err());
    found(block_on(walk(store, Some(&root), |visit| visit.node.map(|_| ()))).unwrap_err());
    found(block_on(apply(store, Some(&root), [(key.into(), Some(Bytes::from_static(b"new")))])).unwrap_err());
    for direction in [Direction::Ascending, Direction::Descending] {
        let range = (Bound::Included(key.into()), Bound::Included(key.into()));
        found(block_on(Cursor::new(store, Some(root), range, direction).next()).unwrap_err());
    }
}

#[test]
fn a_node_in_the_wrong_place_is_damage() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let root = |pointer, height| TreeRoot { pointer, height };
    let (left, right) = (leaf_of(&store, &["a", "b"]), leaf_of(&store, &["m", "n"]));
    let good = inner_of(&store, 1, &[("", left), ("m", right)]);
    assert_eq!(block_on(get(&store, Some(&root(good, 2)), b"n")).unwrap(), Some(Bytes::new()));

    assert_damaged(&store, root(good, 3), "a", "level is 1 where 2 belongs");
    assert_damaged(&store, root(good, 0), "a", "a tree of 0 levels");
    assert_damaged(&store, root(good, HEIGHT_MAX + 1), "a", "a tree of 17 levels");
    let swapped = inner_of(&store, 1, &[("", right), ("m", left)]);
    assert_damaged(&store, root(swapped, 2), "a", "last key is above its fence");
    assert_damaged(&store, root(swapped, 2), "o", "");
    let high = inner_of(&store, 1, &[("", left), ("n", right)]);
    assert_damaged(&store, root(high, 2), "o", "first key is below its fence");
    let skipped = inner_of(&store, 2, &[("", left)]);
    assert_damaged(&store, root(skipped, 3), "a", "level is 0 where 1 belongs");
    // The fence of an inner node binds its last child too.
    let low = inner_of(&store, 1, &[("", right)]);
    let nested = inner_of(&store, 2, &[("", low), ("n", good)]);
    assert_damaged(&store, root(nested, 3), "b", "last key is above its fence");
}

#[test]
fn a_walk_reports_every_damage_and_goes_on() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let leaves = [leaf_of(&store, &["a"]), leaf_of(&store, &["z"]), leaf_of(&store, &["c"])];
    let pointer = inner_of(&store, 1, &[("a", leaves[0]), ("b", leaves[1]), ("c", leaves[2])]);
    let mut seen = Vec::new();
    block_on(walk(&store, Some(&TreeRoot { pointer, height: 2 }), |visit| {
        seen.push((*visit.pointer, visit.level, visit.node.is_ok()));
        Ok(())
    }))
    .unwrap();
    assert_eq!(seen, [(pointer, 1, true), (leaves[0], 0, true), (leaves[1], 0, false), (leaves[2], 0, true)]);
}

#[test]
fn a_cursor_goes_on_after_an_error_where_it_stood() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let (root, model) = build(&store, &[(0..200).map(|number| row(number, 16)).collect()]);
    for direction in [Direction::Ascending, Direction::Descending] {
        let mut cursor = Cursor::new(&store, root, ALL, direction);
        let mut rows = Vec::new();
        loop {
            // Everything is unreadable every other time.
            let nodes = std::mem::take(&mut *store.nodes.lock().unwrap());
            let answer = block_on(cursor.next());
            *store.nodes.lock().unwrap() = nodes;
            match answer.or_else(|_| block_on(cursor.next())).unwrap() {
                Some(row) => rows.push(row),
                None => break,
            }
        }
        assert_eq!(rows, within(&model, &ALL, direction));
    }
}
