//! What a change rewrites, keeps, fills and refuses.

use super::*;

#[test]
fn a_large_batch_is_one_well_filled_tree() {
    for node_bytes_max in [NODE_BYTES_MAX_MIN, NODE_BYTES_MAX] {
        let store = Memory::new(node_bytes_max);
        let mut model = Model::new();
        let batch: Batch = (0..58_000).map(|number| row(number, 24)).collect();
        let root = step(&store, None, &mut model, &batch).root;
        let filled = shape(&store, root.as_ref());
        assert!(filled.leaf_fill(node_bytes_max) > 0.95, "{}", filled.leaf_fill(node_bytes_max));
        assert!(filled.inner_fill(node_bytes_max) > 0.7, "{}", filled.inner_fill(node_bytes_max));
        let half: Batch = (0..58_000).filter(|number| number % 2 == 0).map(|number| (row(number, 0).0, None)).collect();
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
        root = block_on(apply(&store, root.as_ref(), batch, 9)).unwrap().root;
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
        root = block_on(apply(&store, root.as_ref(), batch.clone(), 9)).unwrap().root;
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
    block_on(apply(&store, root.as_ref(), batch.clone(), 9)).unwrap();
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
    let run = |changes: Vec<(Bytes, Option<Bytes>)>| block_on(apply(&store, None, changes, 9));
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

#[test]
fn a_tree_grows_no_higher_than_its_limit() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let value = Bytes::from(vec![0; 470]);
    let mut builder = LeafBuilder::leaf();
    assert!([b"za", b"zb"].iter().all(|key| builder.push(&key[..], &value, NODE_BYTES_MAX_MIN)));
    let mut pointer = store.put(builder.build().unwrap().into());
    // Each node above is full, and its last entry is the way to the leaf; the others are never read.
    for level in 1..HEIGHT_MAX {
        let mut separators: Vec<_> =
            (0..3).map(|number| [&[HEIGHT_MAX - level, number][..], &[0; 273]].concat()).collect();
        separators.push(vec![HEIGHT_MAX - level, 3]);
        let mut builder = InnerBuilder::inner(level);
        assert!(separators.iter().all(|separator| builder.push(separator, &pointer, NODE_BYTES_MAX_MIN)));
        pointer = store.put(builder.build().unwrap().into());
    }
    let root = TreeRoot { pointer, height: HEIGHT_MAX };
    assert_eq!(block_on(get(&store, Some(&root), b"zb")).unwrap(), Some(value.clone()));
    let answer = block_on(apply(&store, Some(&root), [(Bytes::from_static(b"zc"), Some(value))], 9));
    assert!(matches!(answer, Err(Error::LimitExceeded { what: "tree_levels", value: 17, limit: 16 })), "{answer:?}");
}

#[test]
fn futures_can_be_moved_between_threads() {
    fn movable<T: Send>(value: T) -> T {
        value
    }
    let store: Arc<dyn NodeStore> = Arc::new(Memory::new(NODE_BYTES_MAX_MIN));
    let batch: Batch = (0..100).map(|number| row(number, 10)).collect();
    let root = block_on(movable(apply(&*store, None, batch, 9))).unwrap().root;
    assert!(block_on(movable(get(&*store, root.as_ref(), &row(50, 0).0))).unwrap().is_some());
    let mut count = 0;
    block_on(movable(walk(&*store, root.as_ref(), |_| {
        count += 1;
        Ok(())
    })))
    .unwrap();
    assert!(count > 1);
    let mut cursor = MergedCursor::new(store, root, Overlay::new(), ALL, Direction::Ascending);
    assert_eq!(block_on(movable(cursor.next())).unwrap(), Some((row(0, 10).0, row(0, 10).1.unwrap())));
}
