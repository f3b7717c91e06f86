use super::*;

fn differences(store: &Memory, before: Option<TreeRoot>, after: Option<TreeRoot>) -> Vec<Difference> {
    let mut diff = Diff::new(store, before, after);
    let mut all = Vec::new();
    while let Some(difference) = block_on(diff.next()).unwrap() {
        all.push(difference);
    }
    all
}

fn expected(before: &Model, after: &Model) -> Vec<Difference> {
    let keys: BTreeSet<&Bytes> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| Difference { key: key.clone(), before: before.get(key).cloned(), after: after.get(key).cloned() })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_diff_tells_what_differs_and_nothing_else(first in batches(), then in batches(), other in batches()) {
        let store = Memory::new(NODE_BYTES_MAX_MIN);
        let (before, mut model) = build(&store, &first);
        let old = model.clone();
        let mut after = before;
        for batch in &then {
            after = block_on(apply(&store, after.as_ref(), batch.clone(), 9)).unwrap().root;
            change(&mut model, batch);
        }
        prop_assert_eq!(differences(&store, before, after), expected(&old, &model));
        prop_assert_eq!(differences(&store, after, before), expected(&model, &old));
        // Trees that share nothing.
        let (unrelated, another) = build(&store, &other);
        prop_assert_eq!(differences(&store, before, unrelated), expected(&old, &another));
        prop_assert_eq!(differences(&store, before, None), expected(&old, &Model::new()));
        prop_assert!(differences(&store, after, after).is_empty());
    }

    #[test]
    fn a_diff_of_layered_trees_in_two_stores_tells_what_differs_in_a_range(
        first in batches(), then in batches(), same_tree in any::<bool>(), overlays in (batches(), batches()),
        ranges in prop::collection::vec((bounds(), bounds()), 6),
    ) {
        let here = Memory::new(NODE_BYTES_MAX_MIN);
        let (before, mut old) = build(&here, &first);
        // What comes after is in another store alone.
        let there = Memory::new(NODE_BYTES_MAX_MIN);
        *there.nodes.lock().unwrap() = here.nodes.lock().unwrap().clone();
        there.next.store(1 << 32, Ordering::Relaxed);
        let (mut after, mut new) = (before, old.clone());
        for batch in then.iter().filter(|_| !same_tree) {
            after = block_on(apply(&there, after.as_ref(), batch.clone(), 9)).unwrap().root;
            change(&mut new, batch);
        }
        let overlay = |model: &mut Model, batches: Vec<Batch>| -> Overlay {
            let batch: Batch = batches.into_iter().flatten().collect();
            change(model, &batch);
            batch.into_iter().collect()
        };
        let before = Layered { store: &here, tree: before, overlay: overlay(&mut old, overlays.0) };
        let after = Layered { store: &there, tree: after, overlay: overlay(&mut new, overlays.1) };
        for range in ranges.into_iter().chain([(Bound::Unbounded, Bound::Unbounded)]) {
            let mut diff = MergedDiff::new(before.clone(), after.clone(), range.clone());
            let mut all = Vec::new();
            while let Some(difference) = block_on(diff.next()).unwrap() {
                all.push(difference);
            }
            let inside = expected(&old, &new).into_iter().filter(|difference| range.contains(&difference.key));
            prop_assert_eq!(all, inside.collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_diff_reads_what_is_not_shared_and_little_more() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let rows: Batch = (0..20_000).map(|number| row(number, 20)).collect();
    let before = block_on(apply(&store, None, rows, 9)).unwrap().root;
    let nodes = store.count();
    let batch: Batch = [(row(700, 0).0, None), row(12_345, 21), row(20_001, 5)].into();
    let applied = block_on(apply(&store, before.as_ref(), batch, 10)).unwrap();
    let reads = store.reads.load(Ordering::Relaxed);
    assert_eq!(differences(&store, before, applied.root).len(), 3);
    let read = store.reads.load(Ordering::Relaxed) - reads;
    let own = (applied.written.len() + applied.dead.len()) as u64;
    assert!(read <= own + 2, "{read} reads for {own} nodes that differ, of {nodes}");
}

#[test]
fn a_diff_of_a_range_reads_nothing_of_what_differs_elsewhere() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let rows: Batch = (0..20_000).map(|number| row(number, 20)).collect();
    let before = block_on(apply(&store, None, rows, 9)).unwrap().root;
    let batch: Batch = (0..20_000).step_by(7).map(|number| row(number, 21)).collect();
    let after = block_on(apply(&store, before.as_ref(), batch, 10)).unwrap().root;
    let range = (Bound::Included(row(7_000, 0).0), Bound::Excluded(row(7_014, 0).0));
    let reads = store.reads.load(Ordering::Relaxed);
    let mut diff = Diff::between((&store, before), (&store, after), range);
    for expected in [7_000, 7_007] {
        assert_eq!(block_on(diff.next()).unwrap().unwrap().key, row(expected, 0).0);
    }
    assert_eq!(block_on(diff.next()).unwrap(), None);
    let read = store.reads.load(Ordering::Relaxed) - reads;
    let levels = u64::from(before.unwrap().height);
    assert!(read <= 2 * 2 * levels, "{read} reads in trees of {levels} levels");
}
