//! Files with several names have several names in the repository too, through every kind of change, and on the way out.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::common::acceptance::check_is_clean;
use crate::common::{self, Numbers, Scratch, compare_trees};

fn stat(scratch: &Scratch, path: &str) -> serde_json::Value {
    serde_json::from_slice(&scratch.succeeds(["stat", "--json", path])).unwrap()
}

/// Which of these are one file in the repository: equal numbers are.
fn files(scratch: &Scratch, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| stat(scratch, name)["inode"].as_u64().unwrap()).collect()
}

fn import(scratch: &Scratch) -> serde_json::Value {
    let report = serde_json::from_slice(&scratch.succeeds(["import", "tree", "--json"])).unwrap();
    check_is_clean(scratch, "after an import");
    report
}

fn comes_back(scratch: &Scratch, tree: &Path) {
    scratch.succeeds(["export", "/tree", "out"]);
    assert_eq!(compare_trees(tree, &scratch.path("out/tree")), Vec::<String>::new());
    fs::remove_dir_all(scratch.path("out")).unwrap();
}

#[test]
fn the_names_of_a_file_stay_names_of_one_file_through_every_change() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    let [a, b, c] = ["a", "sub/b", "sub/c"].map(|name| tree.join(name));
    let names = ["/tree/a", "/tree/sub/b", "/tree/sub/c"];
    fs::write(&a, "content").unwrap();
    fs::hard_link(&a, &b).unwrap();
    fs::hard_link(&a, &c).unwrap();
    let report = import(&scratch);
    assert_eq!((&report["files"], &report["hard_links"], &report["bytes"]), (&1.into(), &2.into(), &7.into()));
    let one = files(&scratch, &names);
    assert_eq!((one[0], one[0], &stat(&scratch, names[0])["links"]), (one[1], one[2], &3.into()));

    // Nothing changed: nothing is done, and nothing read.
    let report = import(&scratch);
    assert_eq!((&report["files"], &report["hard_links"]), (&0.into(), &0.into()));
    assert_eq!(files(&scratch, &names), one);

    // The content changed, through whichever name.
    fs::write(&b, "other content").unwrap();
    let report = import(&scratch);
    assert_eq!(report["files"], 1);
    let two = files(&scratch, &names);
    assert!(two[0] == two[1] && two[1] == two[2]);
    comes_back(&scratch, &tree);

    // One name becomes a file of its own: what is written to it is not written to the others.
    fs::remove_file(&a).unwrap();
    fs::write(&a, "a file of its own").unwrap();
    import(&scratch);
    let apart = files(&scratch, &names);
    assert!(apart[0] != apart[1] && apart[1] == apart[2]);
    comes_back(&scratch, &tree);

    // All are files of their own, of the same length and time: the repository must not take one for the other.
    fs::remove_file(&c).unwrap();
    fs::write(&c, "OTHER CONTENT").unwrap();
    let time = b.metadata().unwrap().modified().unwrap();
    fs::File::options().write(true).open(&c).unwrap().set_modified(time).unwrap();
    import(&scratch);
    let all = files(&scratch, &names);
    assert!(all[0] != all[1] && all[1] != all[2]);
    comes_back(&scratch, &tree);

    // And one file again.
    for name in [&a, &c] {
        fs::remove_file(name).unwrap();
        fs::hard_link(&b, name).unwrap();
    }
    import(&scratch);
    let again = files(&scratch, &names);
    assert!(again[0] == again[1] && again[1] == again[2]);
    comes_back(&scratch, &tree);
}

#[test]
fn the_names_of_a_symbolic_link_stay_names_of_one_link() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    let [a, b] = ["a", "sub/b"].map(|name| tree.join(name));
    std::os::unix::fs::symlink("nowhere", &a).unwrap();
    fs::hard_link(&a, &b).unwrap();
    let counts = |report: &serde_json::Value| ["links", "hard_links", "unchanged"].map(|count| report[count].clone());
    assert_eq!(counts(&import(&scratch)), [1, 1, 0].map(serde_json::Value::from));
    let one = files(&scratch, &["/tree/a", "/tree/sub/b"]);
    assert_eq!((one[0], &stat(&scratch, "/tree/a")["links"]), (one[1], &2.into()));
    assert_eq!(counts(&import(&scratch)), [0, 0, 4].map(serde_json::Value::from));
    for _ in 0..2 {
        let report = serde_json::from_slice(&scratch.succeeds(["export", "/tree", "out", "--json"])).unwrap();
        assert_eq!(counts(&report)[..2], [1, 1].map(serde_json::Value::from));
        let inode = |name: &str| scratch.path("out/tree").join(name).symlink_metadata().unwrap().ino();
        assert_eq!(inode("a"), inode("sub/b"));
    }
    let stream = scratch.succeeds(["export", "/tree", "-", "-q"]);
    fs::create_dir(scratch.path("untarred")).unwrap();
    fs::write(scratch.path("tar"), stream).unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.arg("--extract").arg("--file").arg(scratch.path("tar")).arg("--directory").arg(scratch.path("untarred"));
    assert!(tar.status().expect("tar is installed").success());
    assert_eq!(scratch.path("untarred/tree/a").symlink_metadata().unwrap().nlink(), 2);
    comes_back(&scratch, &tree);

    // One becomes another link: the other is what it was.
    fs::remove_file(&a).unwrap();
    std::os::unix::fs::symlink("elsewhere", &a).unwrap();
    import(&scratch);
    let apart = files(&scratch, &["/tree/a", "/tree/sub/b"]);
    assert_ne!(apart[0], apart[1]);
    comes_back(&scratch, &tree);
    // And a file of two names.
    for name in [&a, &b] {
        fs::remove_file(name).unwrap();
    }
    fs::write(&a, "a file").unwrap();
    fs::hard_link(&a, &b).unwrap();
    import(&scratch);
    comes_back(&scratch, &tree);
}

#[test]
fn a_name_outside_of_what_is_imported_keeps_its_content() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), "first").unwrap();
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["ln", "/tree/a", "/kept"]);
    // Unchanged, it stays the same file …
    import(&scratch);
    assert_eq!(stat(&scratch, "/tree/a")["links"], 2);
    // … and changed, it is another.
    fs::write(tree.join("a"), "second").unwrap();
    import(&scratch);
    assert_eq!(scratch.succeeds(["cat", "/tree/a", "/kept"]), b"secondfirst");
}

#[test]
fn large_files_have_several_names_too() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "16KiB"]);
    let tree = scratch.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("large"), Numbers::new(8).bytes(4 << 20)).unwrap();
    fs::hard_link(tree.join("large"), tree.join("linked")).unwrap();
    assert_eq!(import(&scratch)["files"], 1);
    fs::write(tree.join("large"), Numbers::new(9).bytes(4 << 20)).unwrap();
    let report = import(&scratch);
    assert_eq!((&report["files"], &report["hard_links"]), (&1.into(), &1.into()));
    comes_back(&scratch, &tree);
}

#[test]
fn a_name_that_an_earlier_import_left_behind_joins_its_file_again() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), "content").unwrap();
    fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
    import(&scratch);
    // Names stay, content changes, and nothing but the first name is stored: its file is gone from under the second.
    fs::write(tree.join("a"), "changed").unwrap();
    scratch.succeeds(["import", "tree", "--exclude", "b"]);
    assert_eq!(scratch.succeeds(["cat", "/tree/a", "/tree/b"]), b"changedcontent");
    let report = import(&scratch);
    assert_eq!((&report["files"], &report["hard_links"], &report["unchanged"]), (&0.into(), &1.into(), &2.into()));
    assert_eq!(scratch.succeeds(["cat", "/tree/b"]), b"changed");
}

#[test]
fn export_makes_them_links_again() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("a"), "one file").unwrap();
    fs::hard_link(tree.join("a"), tree.join("sub/b")).unwrap();
    fs::write(tree.join("sub/c"), "one file").unwrap();
    scratch.succeeds(["import", "tree"]);
    for _ in 0..2 {
        let report: serde_json::Value =
            serde_json::from_slice(&scratch.succeeds(["export", "/tree", "out", "--json"])).unwrap();
        assert_eq!((&report["files"], &report["hard_links"], &report["bytes"]), (&2.into(), &1.into(), &16.into()));
        let inode = |name: &str| scratch.path("out/tree").join(name).metadata().unwrap().ino();
        assert!(inode("a") == inode("sub/b") && inode("a") != inode("sub/c"));
        assert_eq!(compare_trees(&tree, &scratch.path("out/tree")), Vec::<String>::new());
        assert_eq!(common::list(&scratch.path("out")).len(), 6, "no drafts are left");
    }
    // Written out on its own, a name is a file.
    scratch.succeeds(["export", "/tree/sub/b", "alone"]);
    assert_eq!(fs::read(scratch.path("alone/b")).unwrap(), b"one file");
    fs::write(scratch.path("out/tree/a"), "another file").unwrap();
}
