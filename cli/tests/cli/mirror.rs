//! `import --delete`: the repository follows its sources, and loses nothing because it could not be looked at.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::common::acceptance::{check_is_clean, text};
use crate::common::{Scratch, compare_trees, generate_tree, mounts};

fn make(root: &Path, files: &[&str]) {
    for file in files {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
}

fn listed(scratch: &Scratch) -> Vec<String> {
    text(&scratch.succeeds(["ls", "-R"])).lines().map(str::to_owned).collect()
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn what_is_gone_from_a_source_goes_and_everything_else_stays() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    make(&tree, &["a", "b/c", "b/d/e", "b/d/f", "x/y/z", "zz"]);
    symlink("a", tree.join("link")).unwrap();
    make(&scratch.path("other"), &["file"]);
    scratch.succeeds(["import", "tree", "other"]);
    for gone in ["a", "link", "b/d/e"] {
        fs::remove_file(tree.join(gone)).unwrap();
    }
    fs::remove_dir_all(tree.join("x")).unwrap();
    fs::remove_file(scratch.path("other/file")).unwrap();
    make(&tree, &["b/new"]);

    let before = listed(&scratch);
    let shown = scratch.run(["import", "tree", "--delete", "--dry-run"]);
    let said = text(&shown.stderr);
    for path in ["a", "link", "b/d/e", "x/y/z", "x/y", "x"] {
        assert!(said.contains(&format!("would remove /tree/{path}\n")), "{said}");
    }
    assert!(!said.contains("zz") && text(&shown.stdout).contains("would remove 6"), "{said}");
    assert_eq!(listed(&scratch), before);

    // Without the flag nothing goes.
    scratch.succeeds(["import", "tree"]);
    assert!(listed(&scratch).contains(&"tree/x/y/z".to_owned()));
    let report = json(&scratch.succeeds(["import", "tree", "--delete", "--json"]));
    assert_eq!(report["removed"], 6);
    scratch.succeeds(["export", "/tree", "out"]);
    assert_eq!(compare_trees(&tree, &scratch.path("out/tree")), Vec::<String>::new());
    assert!(listed(&scratch).contains(&"other/file".to_owned()), "only what is imported is followed");
    assert_eq!(json(&scratch.succeeds(["import", "tree", "--delete", "--json"]))["removed"], 0);
    check_is_clean(&scratch, "after removals");
}

#[test]
fn what_is_excluded_is_not_removed_nor_what_leads_to_it() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    make(&tree, &["keep.o", "build/a.o", "build/b.c", "build/deep/c.c", "cache/CACHEDIR.TAG", "cache/big", "src/x"]);
    fs::write(tree.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55").unwrap();
    scratch.succeeds(["import", "tree"]);
    fs::remove_file(tree.join("keep.o")).unwrap();
    fs::remove_file(tree.join("cache/big")).unwrap();
    fs::remove_dir_all(tree.join("build")).unwrap();
    let arguments = ["import", "tree", "--delete", "--exclude", "*.o", "--exclude-caches", "--json"];
    assert_eq!(json(&scratch.succeeds(arguments))["removed"], 3);
    let expected = ["tree", "tree/build", "tree/build/a.o", "tree/cache", "tree/cache/CACHEDIR.TAG", "tree/cache/big"];
    assert_eq!(listed(&scratch), [&expected[..], &["tree/keep.o", "tree/src", "tree/src/x"]].concat());
    scratch.succeeds(["import", "tree", "--delete"]);
    assert_eq!(listed(&scratch), ["tree", "tree/cache", "tree/cache/CACHEDIR.TAG", "tree/src", "tree/src/x"]);
}

#[test]
fn where_something_cannot_be_read_nothing_is_removed() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    make(&tree, &["a", "shut/b", "c"]);
    scratch.succeeds(["import", "tree"]);
    let before = listed(&scratch);
    fs::remove_file(tree.join("a")).unwrap();
    fs::set_permissions(tree.join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
    let output = scratch.run_humbly(["import", "tree", "--delete"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("shut: cannot be read") && said.contains("nothing was removed"), "{said}");
    assert_eq!(listed(&scratch), before);

    // A source that is not there at all says nothing about what was in it, nor about its neighbours.
    fs::set_permissions(tree.join("shut"), fs::Permissions::from_mode(0o700)).unwrap();
    let said = scratch.fails(3, ["import", "tree", "absent", "--delete"]);
    assert!(said.contains("nothing was removed"), "{said}");
    assert_eq!(listed(&scratch), before);
    scratch.succeeds(["import", "tree", "--delete"]);
    assert_eq!(listed(&scratch), ["tree", "tree/c", "tree/shut", "tree/shut/b"]);
}

#[test]
fn a_source_that_cannot_be_opened_is_told_and_the_others_are_stored() {
    let scratch = Scratch::with_repository();
    let shut = scratch.path("shut");
    make(&scratch.path("tree"), &["a", "in/shut/b", "in/c"]);
    make(&shut, &["d"]);
    scratch.succeeds(["import", "tree", "shut"]);
    let mut expected = listed(&scratch);
    fs::remove_file(scratch.path("tree/a")).unwrap();
    make(&scratch.path("tree"), &["new"]);
    expected.insert(expected.iter().position(|path| path == "tree/in/shut/b").unwrap() + 1, "tree/new".to_owned());
    for folder in [&shut, &scratch.path("tree/in/shut")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o000)).unwrap();
    }
    let output = scratch.run_humbly(["import", "shut", "tree", "--delete", "--json"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for says in ["strongroom: shut: cannot be read", "tree/in/shut: cannot be read", "nothing was removed"] {
        assert!(said.contains(says), "{said}");
    }
    let report = json(&output.stdout);
    let left_out: Vec<_> = report["left_out"].as_array().unwrap().iter().map(|path| path["name"].clone()).collect();
    assert_eq!((left_out, &report["files"]), (vec!["shut".into(), "tree/in/shut".into()], &1.into()));
    assert_eq!(listed(&scratch), expected);

    for folder in [&shut, &scratch.path("tree/in/shut")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
    scratch.succeeds(["import", "shut", "tree", "--delete"]);
    expected.retain(|path| path != "tree/a");
    assert_eq!(listed(&scratch), expected);
}

#[test]
fn a_folder_gives_way_to_a_file_and_a_file_to_a_folder() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    make(&tree, &["one/a", "one/b.o", "two/c", "three", "four/d"]);
    scratch.succeeds(["import", "tree"]);
    for folder in ["one", "two", "four"] {
        fs::remove_dir_all(tree.join(folder)).unwrap();
    }
    fs::remove_file(tree.join("three")).unwrap();
    make(&tree, &["one", "two", "three/e"]);
    symlink("two", tree.join("four")).unwrap();
    let said = scratch.fails(3, ["import", "tree", "--delete", "--exclude", "*.o"]);
    assert!(said.contains("/tree/one: ") && said.contains("something that stays"), "{said}");
    let expected = ["tree", "tree/four", "tree/one", "tree/one/b.o", "tree/three", "tree/three/e", "tree/two"];
    assert_eq!(listed(&scratch), expected);
    scratch.succeeds(["import", "tree", "--delete"]);
    scratch.succeeds(["export", "/tree", "out"]);
    assert_eq!(compare_trees(&tree, &scratch.path("out/tree")), Vec::<String>::new());
}

#[test]
fn everything_is_never_taken_for_what_arrives_as_the_root() {
    let scratch = Scratch::with_repository();
    let said = scratch.fails(2, ["import", "/", "--delete", "--exclude", "*"]);
    assert!(said.contains("--to"), "{said}");
    assert!(scratch.fails(2, ["import", "/", "--delete", "--to", "//"]).contains("--to"));
}

/// What another file system holds is left alone where it is not gone into, and so is the place that it is mounted on.
#[test]
fn what_lies_on_another_file_system_is_not_gone_with_one_file_system() {
    if !mounts::inside("mirror::what_lies_on_another_file_system_is_not_gone_with_one_file_system") {
        return;
    }
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    make(&tree, &["a", "b"]);
    mounts::small_disk(&tree.join("disk"), 64);
    make(&tree, &["disk/inside"]);
    scratch.succeeds(["import", "tree"]);
    fs::remove_file(tree.join("a")).unwrap();
    fs::remove_file(tree.join("disk/inside")).unwrap();
    scratch.succeeds(["import", "tree", "--delete", "--one-file-system"]);
    assert_eq!(listed(&scratch), ["tree", "tree/b", "tree/disk", "tree/disk/inside"]);
    scratch.succeeds(["import", "tree", "--delete"]);
    assert_eq!(listed(&scratch), ["tree", "tree/b", "tree/disk"]);
}

/// Devices, FIFOs and sockets are not stored. What they took the place of is gone all the same, and must not come back.
#[test]
fn what_something_that_is_not_stored_took_the_place_of_is_removed() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    make(&tree, &["a", "b", "c/d", "c/e.o", "f"]);
    scratch.succeeds(["import", "tree"]);
    let all = listed(&scratch);
    fs::remove_file(tree.join("a")).unwrap();
    fs::remove_file(tree.join("b")).unwrap();
    fs::remove_dir_all(tree.join("c")).unwrap();
    let made = std::process::Command::new("mkfifo").args([tree.join("a"), tree.join("c")]).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("b")).unwrap();

    scratch.succeeds(["import", "tree"]);
    assert_eq!(listed(&scratch), all);
    let shown = scratch.run(["import", "tree", "--delete", "--dry-run"]);
    assert!(text(&shown.stdout).contains("would remove 5"), "{}", text(&shown.stdout));
    // What is excluded stays, and what leads to it.
    let report =
        json(&scratch.succeeds(["import", "tree", "--delete", "--exclude", "*.o", "--exclude", "b", "--json"]));
    assert_eq!((&report["removed"], &report["special"][1]["reason"]), (&2.into(), &"FIFO".into()), "{report}");
    assert_eq!(listed(&scratch), ["tree", "tree/b", "tree/c", "tree/c/e.o", "tree/f"]);
    let report = json(&scratch.succeeds(["import", "tree", "--delete", "--json"]));
    assert_eq!((&report["removed"], report["special"].as_array().unwrap().len()), (&3.into(), 3));
    assert_eq!(listed(&scratch), ["tree", "tree/f"]);
    check_is_clean(&scratch, "after removals");
}

/// Another tree under the name of the one before: nothing of the old one stays, and what both have is not stored again.
#[test]
fn a_tree_that_was_replaced_is_followed() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    for seed in [5, 6] {
        if tree.exists() {
            fs::remove_dir_all(&tree).unwrap();
        }
        generate_tree(&tree, seed, 1 << 20, 60);
        scratch.succeeds(["import", "tree", "--delete"]);
        scratch.succeeds(["export", "/", "out"]);
        assert_eq!(compare_trees(&tree, &scratch.path("out/tree")), Vec::<String>::new());
        fs::remove_dir_all(scratch.path("out")).unwrap();
    }
}
