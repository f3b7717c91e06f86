//! Snapshots, as a person uses them: taken, listed, looked into, compared, brought back, thinned out.

use std::fs;

use strongroom::blocking::Repository;
use strongroom::{Credentials, OpenOptions};

use crate::common::{self, Numbers, Scratch, compare_trees};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn names(scratch: &Scratch) -> Vec<String> {
    let listed = text(scratch.succeeds(["snapshot", "list"]));
    listed.lines().map(|line| line.split_whitespace().last().unwrap().to_owned()).collect()
}

#[test]
fn a_tree_is_written_out_as_it_was_whatever_became_of_it() {
    let scratch = Scratch::with_repository();
    common::generate_tree(&scratch.path("tree"), 3, 3_000_000, 120);
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["kv", "put", "theme", "dark"]);
    scratch.succeeds(["snapshot", "create", "monday"]);
    assert_eq!(names(&scratch), ["monday"]);
    scratch.succeeds(["kv", "put", "theme", "light"]);
    scratch.succeeds(["rm", "-r", "/tree"]);
    scratch.feeds(["put", "-", "/new"], b"new");
    scratch.succeeds(["compact"]);
    scratch.succeeds(["check", "--data"]);
    fs::create_dir(scratch.path("out")).unwrap();
    scratch.succeeds(["--at", "monday", "export", "/tree", "out"]);
    assert_eq!(compare_trees(&scratch.path("tree"), &scratch.path("out/tree")), [""; 0]);
    assert_eq!(text(scratch.succeeds(["ls", "--at", "monday"])), "tree\n");
    assert_eq!(text(scratch.succeeds(["ls"])), "new\n");
    scratch.succeeds(["snapshot", "restore", "monday"]);
    assert_eq!(text(scratch.succeeds(["ls"])), "tree\n");
    assert_eq!(scratch.succeeds(["kv", "get", "theme"]), b"dark");
    scratch.succeeds(["check", "--data"]);
    fs::create_dir(scratch.path("again")).unwrap();
    scratch.succeeds(["export", "/tree", "again"]);
    assert_eq!(compare_trees(&scratch.path("tree"), &scratch.path("again/tree")), [""; 0]);
}

#[test]
fn a_diff_names_what_was_added_removed_changed_and_renamed() {
    let scratch = Scratch::with_repository();
    scratch.succeeds(["mkdir", "-p", "/stays/deep", "/moves/inner", "/goes"]);
    for path in ["/stays/deep/edited", "/stays/mode", "/moves/inner/file", "/goes/away", "/renamed"] {
        scratch.feeds(["put", "-", path], path.as_bytes());
    }
    scratch.succeeds(["snapshot", "create", "a"]);
    assert_eq!(text(scratch.succeeds(["snapshot", "diff", "a"])), "");
    scratch.feeds(["put", "-", "/stays/deep/edited"], b"edited");
    scratch.succeeds(["mv", "/moves", "/moved"]);
    scratch.succeeds(["mv", "/renamed", "/stays/other name"]);
    scratch.feeds(["put", "-", "/stays/other name"], b"and edited");
    scratch.succeeds(["rm", "-r", "/goes"]);
    scratch.succeeds(["mkdir", "/fresh"]);
    scratch.feeds(["put", "-", "/fresh/file"], b"x");
    scratch.succeeds(["snapshot", "create", "b"]);
    scratch.succeeds(["rm", "-r", "/fresh"]);
    let shown = text(scratch.succeeds(["snapshot", "diff", "a", "b"]));
    let expected = "+ /fresh\n+ /fresh/file\n- /goes\n- /goes/away\nR /moves -> /moved\nM /stays/deep/edited\n\
                    R /renamed -> /stays/other name (changed)\n";
    assert_eq!(shown, expected);
    let back = text(scratch.succeeds(["snapshot", "diff", "b", "a"]));
    assert!(back.contains("- /fresh/file\n") && back.contains("+ /goes/away\n"), "{back}");
    assert!(back.contains("R /moved -> /moves\n"), "{back}");
    let now = text(scratch.succeeds(["snapshot", "diff", "b"]));
    assert_eq!(now, "- /fresh\n- /fresh/file\n");
    let json = text(scratch.succeeds(["--json", "snapshot", "diff", "a", "b"]));
    let rows: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 7);
    assert!(rows.iter().any(|row| row["change"] == "renamed" && row["from"]["name"] == "/moves"), "{json}");
}

#[test]
fn a_folder_is_brought_back_alone_with_its_links_and_attributes() {
    use std::os::unix::fs::{MetadataExt as _, symlink};
    let scratch = Scratch::with_repository();
    fs::create_dir_all(scratch.path("tree/inner")).unwrap();
    fs::write(scratch.path("tree/inner/one"), Numbers::new(8).bytes(300_000)).unwrap();
    fs::hard_link(scratch.path("tree/inner/one"), scratch.path("tree/inner/two")).unwrap();
    symlink("inner/one", scratch.path("tree/link")).unwrap();
    fs::write(scratch.path("tree/other"), "other").unwrap();
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["snapshot", "create", "then"]);
    scratch.succeeds(["rm", "-r", "/tree/inner"]);
    scratch.feeds(["put", "-", "/tree/other"], b"newer");
    scratch.feeds(["put", "-", "/tree/inner"], b"a file where a folder was");
    scratch.fails(1, ["snapshot", "restore", "then", "/tree/absent"]);
    scratch.fails(2, ["snapshot", "restore", "then", "/"]);
    assert_eq!(scratch.succeeds(["cat", "/tree/inner"]), b"a file where a folder was");
    scratch.succeeds(["snapshot", "restore", "then", "/tree/inner"]);
    assert_eq!(scratch.succeeds(["cat", "/tree/other"]), b"newer");
    scratch.succeeds(["check", "--data"]);
    // What had all gone, folders above it too, comes back as well.
    scratch.succeeds(["rm", "-r", "/tree"]);
    scratch.succeeds(["snapshot", "restore", "then", "tree/inner"]);
    fs::create_dir(scratch.path("out")).unwrap();
    scratch.succeeds(["export", "/tree/inner", "out"]);
    assert_eq!(compare_trees(&scratch.path("tree/inner"), &scratch.path("out/inner")), [""; 0]);
    let inode = |name: &str| fs::metadata(scratch.path(name)).unwrap().ino();
    assert_eq!(inode("out/inner/one"), inode("out/inner/two"));
    scratch.succeeds(["snapshot", "rm", "then"]);
    scratch.succeeds(["compact"]);
    scratch.succeeds(["check", "--data"]);
}

/// A library tells names from times by what it is asked, and so did this program once: such names are in repositories.
#[test]
fn a_name_that_reads_like_a_duration_is_refused_and_one_that_is_there_comes_before_the_time() {
    let scratch = Scratch::with_repository();
    scratch.feeds(["put", "-", "/file"], b"1");
    for name in ["8h", "90s", "1h30m", "500ms", " 2d"] {
        let said = scratch.fails(2, ["snapshot", "create", name]);
        assert!(said.contains("how long ago") && said.contains("call it otherwise"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(names(&scratch), [""; 0]);
    let place = scratch.path("repo");
    let options = OpenOptions::new(Credentials::password(common::PASSWORD));
    let library = Repository::open(place.to_str().unwrap(), options).unwrap();
    library.create_snapshot("8h").unwrap();
    library.close().unwrap();
    // A day is what many call what they take each day, whenever that was.
    for (name, content) in [("2001-01-01", b"2"), ("8hours", b"3"), ("before-8h", b"4")] {
        scratch.feeds(["put", "-", "/file"], content);
        scratch.succeeds(["snapshot", "create", name]);
    }
    for (at, content) in [("8h", b"1"), ("2001-01-01", b"2"), ("8hours", b"3"), ("before-8h", b"4"), ("0s", b"4")] {
        assert_eq!(scratch.succeeds(["--at", at, "cat", "/file"]), content, "{at}");
    }
    // The time is there all the same, in other words.
    for at in ["480m", "2001-01-01T23:59:59Z"] {
        assert!(scratch.fails(1, ["--at", at, "cat", "/file"]).contains("as old as"), "{at}");
    }
    scratch.succeeds(["snapshot", "restore", "8h"]);
    assert_eq!(scratch.succeeds(["cat", "/file"]), b"1");
    scratch.succeeds(["snapshot", "rm", "8h"]);
    assert!(scratch.fails(1, ["--at", "8h", "cat", "/file"]).contains("as old as"));
}

#[test]
fn snapshots_are_named_once_found_by_time_and_removed_by_name_or_policy() {
    let scratch = Scratch::with_repository();
    for (name, content) in [("one", "1"), ("two", "2"), ("three", "3")] {
        scratch.feeds(["put", "-", "/file"], content.as_bytes());
        scratch.succeeds(["snapshot", "create", name]);
    }
    let said = scratch.fails(1, ["snapshot", "create", "two"]);
    assert!(said.contains("already"), "{said}");
    scratch.fails(2, ["snapshot", "create", "a/b"]);
    scratch.fails(1, ["snapshot", "rm", "one", "absent"]);
    assert_eq!(names(&scratch), ["one", "two", "three"]);
    assert_eq!(scratch.succeeds(["--at", "two", "cat", "/file"]), b"2");
    // All are of this moment, and none of long ago.
    assert_eq!(scratch.succeeds(["--at", "9999-01-01", "cat", "/file"]), b"3");
    let said = scratch.fails(1, ["--at", "2001-01-01T00:00:00Z", "cat", "/file"]);
    assert!(said.contains("as old as"), "{said}");
    // A day is all of it; and so long ago there was none.
    assert_eq!(scratch.succeeds(["--at", "0s", "cat", "/file"]), b"3");
    let said = scratch.fails(1, ["--at", "90d", "cat", "/file"]);
    assert!(said.contains("as old as 90d"), "{said}");
    let said = scratch.fails(1, ["--at", "2026-02-30", "ls"]);
    assert!(said.contains("no snapshot `2026-02-30`") && said.contains("is not a time"), "{said}");
    let said = scratch.fails(1, ["--at", "absent", "ls"]);
    assert!(said.contains("there is no snapshot \"absent\""), "{said}");
    let said = scratch.fails(2, ["--at", "one", "rm", "/file"]);
    assert!(said.contains("--at"), "{said}");
    scratch.fails(2, ["snapshot", "prune"]);
    let plan = text(scratch.succeeds(["snapshot", "prune", "--keep-last", "2", "--dry-run"]));
    assert!(plan.starts_with("remove") && plan.matches("keep").count() == 2, "{plan}");
    assert_eq!(names(&scratch).len(), 3);
    scratch.succeeds(["snapshot", "prune", "--keep-last", "2"]);
    assert_eq!(names(&scratch), ["two", "three"]);
    scratch.succeeds(["snapshot", "rm", "two", "three", "two"]);
    assert_eq!(names(&scratch), [""; 0]);
    scratch.succeeds(["check", "--data"]);
}

#[test]
fn several_that_thin_out_at_once_all_succeed() {
    let scratch = Scratch::with_repository();
    let all: Vec<String> = (10..30).map(|number| format!("s{number}")).collect();
    for name in &all {
        scratch.succeeds(["snapshot", "create", name]);
    }
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| scratch.succeeds(["snapshot", "prune", "--keep-last", "2"]));
        }
    });
    assert_eq!(names(&scratch), all[18..]);
    scratch.succeeds(["check"]);
}

#[test]
fn the_space_of_a_removed_snapshot_comes_back() {
    let scratch = Scratch::with_repository();
    let fresh = Scratch::with_repository();
    fs::write(scratch.path("kept"), Numbers::new(5).bytes(2_000_000)).unwrap();
    fs::write(scratch.path("gone"), Numbers::new(6).bytes(9_000_000)).unwrap();
    fs::copy(scratch.path("kept"), fresh.path("kept")).unwrap();
    scratch.succeeds(["import", "kept", "gone"]);
    scratch.succeeds(["snapshot", "create", "both"]);
    scratch.succeeds(["rm", "/gone"]);
    scratch.succeeds(["compact"]);
    let blobs = |scratch: &Scratch| common::acceptance::blobs(&scratch.path("repo")).len();
    let with = blobs(&scratch);
    scratch.succeeds(["snapshot", "rm", "both"]);
    scratch.succeeds(["compact"]);
    fresh.succeeds(["import", "kept"]);
    fresh.succeeds(["compact"]);
    let (without, ideal) = (blobs(&scratch), blobs(&fresh));
    assert!(with > without + 60, "{with} with the snapshot, {without} without");
    assert!(without <= ideal + (ideal / 50).max(8), "{without} blobs, {ideal} in a fresh repository");
    scratch.succeeds(["check", "--data"]);
}

#[test]
fn keys_and_histories_are_shown_as_they_were() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--versions", "5"]);
    let large = "x".repeat(300_000);
    scratch.succeeds(["kv", "put", "theme", "dark"]);
    scratch.succeeds(["kv", "put", "user/1", "anna"]);
    scratch.feeds(["kv", "put", "large", "-"], large.as_bytes());
    scratch.feeds(["put", "-", "/file"], b"1");
    scratch.succeeds(["snapshot", "create", "monday"]);
    scratch.succeeds(["kv", "put", "theme", "light"]);
    scratch.succeeds(["kv", "put", "user/2", "ben"]);
    scratch.succeeds(["kv", "del", "large", "user/1"]);
    scratch.feeds(["put", "-", "/file"], b"22");
    scratch.succeeds(["compact"]);

    assert_eq!(scratch.succeeds(["kv", "get", "theme", "--at", "monday"]), b"dark");
    assert_eq!(scratch.succeeds(["--at", "9999-01-01", "kv", "get", "theme"]), b"dark");
    assert_eq!(scratch.succeeds(["kv", "get", "theme"]), b"light");
    assert_eq!(scratch.succeeds(["--at", "monday", "kv", "get", "large"]), large.as_bytes());
    assert_eq!(text(scratch.succeeds(["--at", "monday", "kv", "scan"])), "large\ntheme\nuser/1\n");
    assert_eq!(text(scratch.succeeds(["kv", "scan", "--reverse", "--at", "monday", "user/"])), "user/1\n");
    assert_eq!(text(scratch.succeeds(["kv", "scan", "--values", "user/"])), "user/2\tben\n");
    let row: serde_json::Value =
        serde_json::from_slice(&scratch.succeeds(["--json", "--at", "monday", "kv", "get", "user/1"])).unwrap();
    assert_eq!(row["value"], "anna");
    assert!(scratch.fails(1, ["--at", "monday", "kv", "get", "user/2"]).contains("no such key"));
    assert!(scratch.fails(1, ["--at", "absent", "kv", "scan"]).contains("absent"));
    assert!(scratch.fails(1, ["--at", "2001-01-01", "kv", "scan"]).contains("snapshot list"));
    for line in [&["kv", "put", "theme", "x"][..], &["kv", "del", "theme"], &["history", "/file", "--prune"]] {
        let said = scratch.fails(2, [&["--at", "monday"], line].concat());
        assert!(said.contains("--at"), "{said}");
    }
    assert_eq!(text(scratch.succeeds(["--at", "monday", "history", "/file"])).lines().count(), 1);
    assert_eq!(text(scratch.succeeds(["history", "/file"])).lines().count(), 2);
}

#[test]
fn info_tells_what_becomes_of_bytes_on_the_way_to_the_storage() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1"]);
    let inside = || {
        let info: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["info", "--json"])).unwrap();
        move |name: &str| info["inside"][name].as_u64().unwrap_or_else(|| panic!("{name}: {info}"))
    };
    let mut numbers = Numbers::new(9);
    let noise = numbers.bytes(400_000);
    scratch.feeds(["put", "-", "/one"], &noise);
    scratch.feeds(["put", "-", "/equal"], &noise);
    scratch.feeds(["put", "-", "/text"], "line of text\n".repeat(10_000).as_bytes());
    scratch.succeeds(["kv", "put", "theme", "dark"]);
    let now = inside();
    assert_eq!((now("file_bytes"), now("value_bytes"), now("logical_bytes")), (930_000, 4, 930_004));
    assert!((400_000..=530_004).contains(&now("unique_bytes")), "{}", now("unique_bytes"));
    assert!((400_000..410_000).contains(&now("compressed_bytes")), "{}", now("compressed_bytes"));
    assert_eq!(now("stored_bytes") % now("blocks"), 0);
    assert!(now("stored_bytes") > now("compressed_bytes"));
    scratch.succeeds(["snapshot", "create", "monday"]);
    scratch.succeeds(["rm", "/one", "/equal"]);
    let now = inside();
    assert_eq!((now("snapshots"), now("snapshot_bytes"), now("file_bytes")), (1, 400_000, 130_000));
    let shown = text(scratch.succeeds(["info"]));
    for (name, says) in
        [("logical", "values of keys 4"), ("unique", "older versions"), ("compressed", ""), ("stored", "")]
    {
        assert!(shown.lines().any(|line| line.starts_with(name) && line.contains(says)), "{name}: {shown}");
    }
    assert!(shown.lines().any(|line| line.starts_with("snapshots    1, which alone need 390.6KiB")), "{shown}");
}

#[test]
fn every_command_that_only_looks_can_be_shown_an_earlier_state() {
    let scratch = Scratch::with_repository();
    scratch.feeds(["put", "-", "/then"], b"as it was");
    scratch.succeeds(["kv", "put", "key", "then"]);
    scratch.succeeds(["snapshot", "create", "zero"]);
    scratch.feeds(["put", "-", "/also"], b"and more");
    scratch.succeeds(["snapshot", "create", "monday"]);
    scratch.succeeds(["rm", "/then", "/also"]);
    scratch.succeeds(["kv", "del", "key"]);
    scratch.feeds(["put", "-", "/now"], b"as it is");

    for (line, of_then, of_now) in [
        (&["ls"][..], "then", "now"),
        (&["tree"], "then", "now"),
        (&["find", "--name", "*"], "/then", "/now"),
        (&["du", "--bytes"], "17", "8"),
        (&["stat", "/then"], "/then", ""),
        (&["cat", "/then"], "as it was", ""),
        (&["get", "/then", "-"], "as it was", ""),
        (&["export", "/then", "-"], "as it was", ""),
        (&["history", "/then"], "current", ""),
        (&["kv", "get", "key"], "then", ""),
        (&["kv", "scan"], "key", ""),
        (&["snapshot", "diff", "zero"], "+ /also", "- /then"),
        (&["info"], "snapshot     monday", "logical      8B"),
        (&["check", "--data"], "snapshot monday: 2 files", "1 files"),
    ] {
        let shown = |at: &[&'static str]| {
            let output = scratch.run([at, line].concat());
            (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (is_done, then) = shown(&["--at", "monday"]);
        assert!(is_done && then.contains(of_then), "{line:?}: {then}");
        assert!(of_now.is_empty() || !then.contains(of_now), "{line:?}: {then}");
        let (_, now) = shown(&[]);
        assert!(now.contains(of_now) && !now.contains(of_then), "{line:?}: {now}");
    }
    for line in [&["ls"][..], &["info"], &["check"], &["snapshot", "diff", "zero"]] {
        assert_eq!(
            scratch.succeeds([&["--at", "9999-01-01"], line].concat()),
            scratch.succeeds([&["--at", "monday"], line].concat()),
            "{line:?}"
        );
        let said = scratch.fails(1, [&["--at", "absent"], line].concat());
        assert!(said.contains("absent"), "{line:?}: {said}");
    }

    for (line, why) in [
        (&["check", "--repair"][..], "all states together"),
        (&["info", "--clear"], "no snapshot keeps"),
        (&["snapshot", "diff", "zero", "monday"], "named twice"),
        (&["snapshot", "list"], "leave it out"),
        (&["compact"], "leave it out"),
        (&["mkdir", "/folder"], "leave it out"),
    ] {
        let said = scratch.fails(2, [&["--at", "monday"], line].concat());
        assert!(said.contains("--at") && said.contains(why), "{line:?}: {said}");
    }
}

#[test]
fn info_counts_what_a_snapshot_keeps_and_says_what_is_of_now() {
    let scratch = Scratch::with_repository();
    let noise = Numbers::new(9).bytes(400_000);
    scratch.feeds(["put", "-", "/one"], &noise);
    scratch.feeds(["put", "-", "/equal"], &noise);
    scratch.feeds(["put", "-", "/text"], "line of text\n".repeat(10_000).as_bytes());
    scratch.succeeds(["kv", "put", "theme", "dark"]);
    let inside = |line: &[&str]| {
        let info: serde_json::Value =
            serde_json::from_slice(&scratch.succeeds([&["info", "--json"], line].concat())).unwrap();
        info["inside"].clone()
    };
    let before = inside(&[]);
    assert!(before.get("at").is_none());
    scratch.succeeds(["snapshot", "create", "monday"]);
    scratch.succeeds(["rm", "/one", "/equal"]);
    scratch.succeeds(["kv", "del", "theme"]);
    scratch.feeds(["put", "-", "/new"], &Numbers::new(10).bytes(100_000));
    let (then, now) = (inside(&["--at", "monday"]), inside(&[]));
    for name in
        ["logical_bytes", "file_bytes", "value_bytes", "hole_bytes", "unique_bytes", "compressed_bytes", "chunks"]
    {
        assert_eq!(then[name], before[name], "{name}");
    }
    assert_eq!((then["at"]["snapshot"].as_str(), then["at"]["files"].as_u64()), (Some("monday"), Some(3)));
    assert!(then["live_bytes"].as_u64() > Some(400_000), "{then}");
    for name in then["at"]["of_now"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        assert!(name == "commit" || name == "open_writers" || then[name] == now[name], "{name}: {then} {now}");
    }
    let shown = text(scratch.succeeds(["info", "--at", "monday"]));
    for name in ["commit", "stored", "snapshots", "writers"] {
        assert!(shown.lines().any(|line| line.starts_with(name) && line.ends_with("(now, of all states)")), "{shown}");
    }
    // What is in it is no matter of the clear header: without credentials it is asked for, and not left out.
    let mut command = scratch.command();
    command.env_remove("STRONGROOM_PASSWORD").args(["info", "--at", "monday", "--no-input"]);
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}

#[test]
fn damage_to_what_only_one_state_needs_is_found_by_checking_that_state() {
    let scratch = Scratch::with_repository();
    // Each in blocks of its own, by the size.
    scratch.feeds(["put", "-", "/old"], &Numbers::new(21).bytes(1 << 20));
    scratch.succeeds(["snapshot", "create", "old"]);
    let blocks = || common::list(&scratch.path("repo")).into_iter().filter(|path| path.is_file()).collect::<Vec<_>>();
    let of_old = blocks();
    scratch.succeeds(["rm", "/old"]);
    scratch.feeds(["put", "-", "/new"], &Numbers::new(22).bytes(1 << 20));
    scratch.succeeds(["snapshot", "create", "new"]);
    scratch.succeeds(["compact"]);
    let check = |at: &str, data: &[&str]| scratch.run([&["--at", at, "check"], data].concat()).status.code();
    for at in ["old", "new"] {
        assert_eq!((check(at, &[]), check(at, &["--data"])), (Some(0), Some(0)), "{at}");
    }
    // Of the blocks that were there with the first file, one after the other is spoilt, until it is one of its content.
    let is_found = of_old.into_iter().filter(|path| path.exists()).any(|path| {
        let whole = fs::read(&path).unwrap();
        let spoilt: Vec<u8> = whole.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at % 500 == 0)).collect();
        fs::write(&path, spoilt).unwrap();
        let old = scratch.run(["--at", "old", "check", "--data"]);
        let said = String::from_utf8(old.stderr).unwrap();
        if old.status.code() != Some(13) || !said.contains("/old: ") || check("new", &["--data"]) != Some(0) {
            fs::write(&path, whole).unwrap();
            return false;
        }
        assert!(said.contains("snapshot \"old\" needs it"), "{said}");
        assert_eq!(check("old", &[]), Some(0), "nothing is amiss but content");
        // Gone, it is missed without a look at the data.
        fs::remove_file(&path).unwrap();
        assert_eq!((check("old", &[]), check("new", &[])), (Some(13), Some(0)));
        true
    });
    assert!(is_found);
}
