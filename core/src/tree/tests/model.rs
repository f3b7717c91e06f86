//! Whatever batches come, a tree is the ordered map that they make.

use super::*;

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
