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
