//! What is not as it must be is damage: never a wrong answer, a panic, or a walk without end.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn damaged_nodes_never_cause_a_panic_or_an_endless_walk(
        batches in batches(), node in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8,
        batch in batches(),
    ) {
        let store = Memory::new(NODE_BYTES_MAX_MIN);
        let (root, _) = build(&store, &batches);
        let live: Vec<_> = shape(&store, root.as_ref()).pointers.into_iter().collect();
        prop_assume!(!live.is_empty());
        {
            let mut nodes = store.nodes.lock().unwrap();
            let bytes = nodes.get_mut(&live[node.index(live.len())]).unwrap();
            let mut changed = bytes.to_vec();
            changed[at.index(bytes.len())] = byte;
            *bytes = changed.into();
        }
        let sound = |result: Result<()>| matches!(result, Ok(()) | Err(Error::Damaged(_)));
        prop_assert!(sound(block_on(walk(&store, root.as_ref(), |visit| visit.node.map(|_| ())))));
        for direction in [Direction::Ascending, Direction::Descending] {
            let mut cursor = Cursor::new(&store, root, ALL, direction);
            let end = loop {
                match block_on(cursor.next()) {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            prop_assert!(sound(end));
        }
        let mut relocation = Relocation::new(usize::MAX, |_: &Pointer| true);
        let moved = block_on(async {
            relocation.mark(&store, root.as_ref()).await?;
            relocation.copy_leaves(&store, root.as_ref()).await?;
            if let Some(root) = root {
                relocation.copy_inner(&store, root).await?;
            }
            walk_pointers(&store, root.as_ref(), |_, _| {}).await
        });
        prop_assert!(sound(moved));
        for batch in batch {
            prop_assert!(sound(block_on(apply(&store, root.as_ref(), batch, 9)).map(|_| ())));
        }
    }
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
    found(block_on(apply(store, Some(&root), [(key.into(), Some(Bytes::from_static(b"new")))], 9)).unwrap_err());
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
fn a_node_over_the_limits_is_damage() {
    let long: &str = &"k".repeat(NODE_BYTES_MAX_MIN);
    let store = Memory::new(NODE_BYTES_MAX_MIN);
    let mut builder = LeafBuilder::leaf();
    let value = Bytes::new();
    assert!(builder.push(long.as_bytes(), &value, NODE_BYTES_MAX));
    let root = TreeRoot { pointer: store.put(builder.build().unwrap().into()), height: 1 };
    assert_damaged(&store, root, "k", "bytes long");
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
