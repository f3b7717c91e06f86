//! Killed at any moment, nothing acknowledged is lost, and the next command goes on by itself.

use std::fs;

use crate::common::acceptance::{check_is_clean, scaled, seed};
use crate::common::kill::{
    duration_of, imports_are_resumed, is_there, killed_after, leftovers_vanish, moment, old_or_new,
};
use crate::common::{Numbers, Scratch, compare_trees, generate_tree};

#[test]
fn an_import_that_is_killed_is_resumed_by_running_it_again() {
    imports_are_resumed(&Scratch::with_repository(), scaled(8, 200), scaled((6 << 20, 120), (96 << 20, 2_000)));
}

#[test]
fn a_put_that_is_killed_leaves_the_old_file_or_the_new_one() {
    old_or_new(&Scratch::with_repository(), scaled(8, 200));
}

#[test]
fn a_removal_that_is_killed_removes_all_or_nothing() {
    let seed = seed();
    let scratch = Scratch::with_repository();
    let mut numbers = Numbers::new(seed);
    generate_tree(&scratch.path("tree"), seed, 4 << 20, 60);
    scratch.succeeds(["import", "tree", "--to", "/kept"]);
    scratch.succeeds(["import", "tree"]);
    let whole = duration_of(&scratch, &["rm", "-r", "/tree"]);
    scratch.succeeds(["import", "tree"]);
    let mut done_in_time = 0;
    for round in 0..scaled(8, 40) {
        let delay = moment(&mut numbers, whole);
        let when = format!("seed {seed}, round {round}, killed after {delay:?} of {whole:?}");
        let acknowledged = killed_after(&scratch, &["rm", "-r", "/tree"], delay);
        done_in_time += u32::from(acknowledged);
        check_is_clean(&scratch, &when);
        let gone = scratch.run(["stat", "/tree"]).status.code() == Some(1);
        assert!(gone || !acknowledged, "{when}: it was acknowledged");
        if gone {
            scratch.succeeds(["import", "tree"]);
        } else {
            is_there(&scratch, "tree", &scratch.path("tree"), &when);
            // The next writing command is a removal, too.
            assert!(scratch.feeds(["put", "-", "/one"], b"1").status.success());
            killed_after(&scratch, &["rm", "-r", "/tree"], delay);
            scratch.succeeds(["rm", "/one"]);
            scratch.succeeds(["import", "tree"]);
        }
        leftovers_vanish(&scratch, &when);
        scratch.succeeds(["export", "/kept/tree", "out"]);
        assert_eq!(compare_trees(&scratch.path("tree"), &scratch.path("out/tree")), Vec::<String>::new(), "{when}");
        fs::remove_dir_all(scratch.path("out")).unwrap();
    }
    eprintln!("{done_in_time} removals were done before the kill");
}
