use super::*;

/// Moves the nodes that leave, in all trees, and checks that everything else is as before.
fn relocate(store: &Memory, roots: &[Option<TreeRoot>], leaves: impl Fn(&Pointer) -> bool) -> Vec<Option<TreeRoot>> {
    let pointers: BTreeSet<Pointer> = roots.iter().flat_map(|root| shape(store, root.as_ref()).pointers).collect();
    let leaving: Vec<Pointer> = pointers.iter().copied().filter(&leaves).collect();
    let written_before = store.count();
    let mut relocation = Relocation::new(usize::MAX, leaves);
    for root in roots {
        assert!(block_on(relocation.mark(store, root.as_ref())).unwrap());
    }
    for root in roots {
        block_on(relocation.copy_leaves(store, root.as_ref())).unwrap();
    }
    let moved: Vec<Option<TreeRoot>> = roots
        .iter()
        .map(|root| root.as_ref().map(|root| block_on(relocation.copy_inner(store, *root)).unwrap()))
        .collect();
    let now: BTreeSet<Pointer> = moved.iter().flat_map(|root| shape(store, root.as_ref()).pointers).collect();
    assert!(leaving.iter().all(|pointer| relocation.moves(pointer) && !now.contains(pointer)));
    assert_eq!(now.len(), pointers.len(), "what was shared is shared");
    assert_eq!(store.count() - written_before, relocation.moving().count(), "each is copied once");
    assert_eq!(relocation.moved().count(), relocation.moving().count());
    let places: BTreeMap<Pointer, Pointer> = relocation.moved().map(|(from, to)| (*from, *to)).collect();
    let expected = pointers.iter().map(|pointer| places.get(pointer).unwrap_or(pointer)).copied();
    assert_eq!(expected.collect::<BTreeSet<_>>(), now, "nothing else has moved");
    for (from, to) in &places {
        let (before, after) = (block_on(store.read(from)).unwrap(), block_on(store.read(to)).unwrap());
        assert_eq!((before.birth(), before.level(), before.count()), (after.birth(), after.level(), after.count()));
        assert_eq!(before.bytes().len(), after.bytes().len());
        for index in 0..before.count() {
            assert_eq!(before.key_bytes(index), after.key_bytes(index));
            assert_eq!(before.value(index), after.value(index));
        }
    }
    moved
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn trees_show_what_they_showed_and_share_what_they_shared_wherever_their_nodes_go(
        first in batches(),
        then in batches(),
        share in 1..9_u64,
    ) {
        let store = Memory::new(NODE_BYTES_MAX_MIN);
        let (mut root, mut model) = build(&store, &first);
        let mut states = vec![(root, model.clone())];
        for batch in &then {
            root = block_on(apply(&store, root.as_ref(), batch.clone(), 10)).unwrap().root;
            change(&mut model, batch);
            states.push((root, model.clone()));
        }
        states.push((None, Model::new()));
        let roots: Vec<_> = states.iter().map(|(root, _)| *root).collect();
        let moved = relocate(&store, &roots, |pointer| pointer.counter % share == 0);
        for (root, (_, model)) in moved.iter().zip(&states) {
            let rows = within(model, &ALL, Direction::Ascending);
            prop_assert_eq!(scan(&store, *root, ALL, Direction::Ascending), rows);
        }
    }
}

#[test]
fn what_a_thousand_trees_share_is_looked_at_once_and_its_leaves_not_at_all() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let rows: Batch = (0..20_000).map(|number| row(number, 20)).collect();
    let mut root = block_on(apply(&store, None, rows, 9)).unwrap().root;
    let mut roots = vec![root];
    for number in 0..300 {
        let batch: Batch = [row(number * 60, 21)].into();
        root = block_on(apply(&store, root.as_ref(), batch, 10)).unwrap().root;
        roots.push(root);
    }
    let inner: BTreeSet<Pointer> = roots
        .iter()
        .flat_map(|root| {
            let mut inner = Vec::new();
            block_on(walk_pointers(&store, root.as_ref(), |pointer, level| {
                if level > 0 {
                    inner.push(*pointer);
                }
            }))
            .unwrap();
            inner
        })
        .collect();
    let before = store.reads.load(Ordering::Relaxed);
    let mut relocation = Relocation::new(10, |_: &Pointer| false);
    for root in &roots {
        assert!(block_on(relocation.mark(&store, root.as_ref())).unwrap());
    }
    let reads = store.reads.load(Ordering::Relaxed) - before;
    // Some of those that stay are forgotten, as there are more than so few nodes to move make room for.
    assert!(reads >= inner.len() as u64);
    assert_eq!(relocation.moving().count(), 0);
    let before = store.reads.load(Ordering::Relaxed);
    let mut relocation = Relocation::new(inner.len(), |_: &Pointer| false);
    for root in &roots {
        assert!(block_on(relocation.mark(&store, root.as_ref())).unwrap());
    }
    assert_eq!(store.reads.load(Ordering::Relaxed) - before, inner.len() as u64);
}

#[test]
fn more_nodes_than_allowed_are_refused() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let rows: Batch = (0..5000).map(|number| row(number, 20)).collect();
    let root = block_on(apply(&store, None, rows, 9)).unwrap().root;
    let nodes = shape(&store, root.as_ref()).pointers.len();
    for (allowed, is_refused) in [(nodes, false), (nodes - 1, true), (0, true)] {
        let mut relocation = Relocation::new(allowed, |_: &Pointer| true);
        assert_eq!(block_on(relocation.mark(&store, root.as_ref())).unwrap(), !is_refused);
    }
}

#[test]
fn a_walk_over_pointers_meets_what_a_walk_over_nodes_does() {
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    for count in [0, 1, 5000] {
        let rows: Batch = (0..count).map(|number| row(number, 20)).collect();
        let root = block_on(apply(&store, None, rows, 9)).unwrap().root;
        let (before, mut met) = (store.reads.load(Ordering::Relaxed), BTreeMap::new());
        block_on(walk_pointers(&store, root.as_ref(), |pointer, level| {
            met.insert(*pointer, level);
        }))
        .unwrap();
        let reads = store.reads.load(Ordering::Relaxed) - before;
        assert_eq!(reads, met.values().filter(|level| **level > 0).count() as u64, "no leaf is read");
        assert_eq!(met.into_keys().collect::<BTreeSet<_>>(), shape(&store, root.as_ref()).pointers);
    }
}
