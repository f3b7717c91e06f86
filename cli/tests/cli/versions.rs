//! Versions of files, from the command line: kept, listed, read, restored, and their space given back.
#![cfg(unix)]

use std::path::Path;

use crate::common::{self, Numbers, Scratch};
use serde_json::Value;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn keeping(versions: &str) -> Scratch {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--versions", versions]);
    scratch
}

fn put(scratch: &Scratch, path: &str, content: &[u8]) {
    assert!(scratch.feeds(["put", "-", path], content).status.success());
}

fn history(scratch: &Scratch, path: &str) -> Vec<Value> {
    let listed = text(scratch.succeeds(["history", "--json", path]));
    listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(scratch: &Scratch, path: &str) -> Vec<u64> {
    history(scratch, path).iter().map(|version| version["number"].as_u64().unwrap()).collect()
}

#[test]
fn older_versions_are_listed_read_and_restored() {
    let scratch = keeping("3");
    for content in ["first", "second!", "third"] {
        put(&scratch, "/file", content.as_bytes());
    }
    let listed = history(&scratch, "/file");
    assert_eq!(listed[0]["schema"], "strongroom/version/1");
    let fields = |field: &str| listed.iter().map(|version| version[field].clone()).collect::<Vec<_>>();
    assert_eq!(fields("number"), [1, 2, 3]);
    assert_eq!(fields("bytes"), [5, 7, 5]);
    assert_eq!(fields("held_bytes"), [5, 7, 0]);
    assert_eq!(fields("current"), [false, false, true]);
    let lines = text(scratch.succeeds(["history", "/file"]));
    assert!(lines.lines().count() == 3 && lines.ends_with("  current\n") && lines.contains("holds 7B"), "{lines}");

    assert_eq!(scratch.succeeds(["cat", "--version", "1", "/file"]), b"first");
    assert_eq!(scratch.succeeds(["cat", "/file", "--version", "3"]), b"third");
    scratch.succeeds(["restore", "/file", "--version", "2"]);
    assert_eq!(scratch.succeeds(["cat", "/file"]), b"second!");
    assert_eq!(numbers(&scratch, "/file"), [1, 2, 3, 4]);
    let stat: Value = serde_json::from_slice(&scratch.succeeds(["stat", "--json", "/file"])).unwrap();
    assert_eq!((&stat["versions"], &stat["bytes"]), (&3.into(), &7.into()));
    assert!(text(scratch.succeeds(["stat", "/file"])).contains("versions  3 older"));
    // The oldest goes for the newest.
    put(&scratch, "/file", b"fifth");
    assert_eq!(numbers(&scratch, "/file"), [2, 3, 4, 5]);
    let refused = scratch.fails(1, ["cat", "--version", "1", "/file"]);
    assert!(refused.contains("/file: has no version 1, only 2 to 5"), "{refused}");
    scratch.fails(1, ["restore", "/file", "--version", "6"]);
    scratch.fails(1, ["history", "/"]);
    let check: Value = serde_json::from_slice(&scratch.succeeds(["check", "--data", "--json"])).unwrap();
    assert_eq!((&check["versions"], &check["damaged"]), (&3.into(), &0.into()));
}

#[test]
fn a_file_may_keep_more_or_less_than_the_repository_says() {
    let scratch = keeping("0");
    put(&scratch, "/file", b"one");
    put(&scratch, "/file", b"two");
    assert_eq!(numbers(&scratch, "/file"), [1]);
    scratch.succeeds(["history", "/file", "--keep", "2"]);
    for content in ["three", "four", "five"] {
        put(&scratch, "/file", content.as_bytes());
    }
    assert_eq!(numbers(&scratch, "/file"), [2, 3, 4]);
    assert_eq!(scratch.succeeds(["cat", "--version", "2", "/file"]), b"three");
    scratch.succeeds(["history", "/file", "--keep", "1"]);
    assert_eq!(numbers(&scratch, "/file").len(), 3);
    assert_eq!(text(scratch.succeeds(["history", "/file", "--prune"])).lines().count(), 2);
    assert_eq!(numbers(&scratch, "/file"), [3, 4]);
    scratch.succeeds(["history", "/file", "--keep", "default", "--prune"]);
    assert_eq!(numbers(&scratch, "/file"), [4]);
    scratch.succeeds(["check", "--data"]);
}

#[test]
fn an_import_of_what_changed_makes_a_version_and_of_what_did_not_makes_none() {
    let scratch = keeping("5");
    std::fs::create_dir(scratch.path("tree")).unwrap();
    std::fs::write(scratch.path("tree/changes"), "before").unwrap();
    std::fs::write(scratch.path("tree/stays"), "as it is").unwrap();
    scratch.succeeds(["import", "tree"]);
    std::fs::write(scratch.path("tree/changes"), "after it").unwrap();
    scratch.succeeds(["import", "tree"]);
    assert_eq!(numbers(&scratch, "/tree/stays").len(), 1);
    let numbers = numbers(&scratch, "/tree/changes");
    assert_eq!(numbers.len(), 2);
    assert_eq!(scratch.succeeds(["cat", "/tree/changes", "--version", &numbers[0].to_string()]), b"before");
}

/// Blocks in the repository.
fn blocks(scratch: &Scratch) -> usize {
    fn count(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| if entry.metadata().unwrap().is_dir() { count(&entry.path()) } else { 1 }).sum()
    }
    count(&scratch.path("repo"))
}

#[test]
fn the_space_of_versions_that_went_comes_back() {
    let scratch = keeping("2");
    let mut numbers = Numbers::new(7);
    let mut kept = Vec::new();
    for _ in 0..10 {
        kept.push(numbers.bytes(4 << 20));
        put(&scratch, "/large", kept.last().unwrap());
    }
    kept.drain(..7);
    let as_small_as = |kept: &[Vec<u8>], versions: &str| {
        scratch.succeeds(["compact"]);
        let fresh = keeping(versions);
        for content in kept {
            put(&fresh, "/large", content);
        }
        fresh.succeeds(["compact"]);
        let (now, ideal) = (blocks(&scratch), blocks(&fresh));
        assert!(now <= ideal + (ideal / 50).max(8), "{ideal} blocks would do, there are {now}");
        scratch.succeeds(["check", "--data"]);
    };
    as_small_as(&kept, "2");
    // Space comes back from versions that are given up, and with the file from all of them.
    scratch.succeeds(["history", "/large", "--keep", "0", "--prune"]);
    as_small_as(&kept[2..], "0");
    assert!(scratch.succeeds(["cat", "/large"]) == kept[2]);
    scratch.succeeds(["history", "/large", "--keep", "default"]);
    put(&scratch, "/large", &kept[0]);
    put(&scratch, "/large", &kept[1]);
    scratch.succeeds(["rm", "/large"]);
    as_small_as(&[], "0");
}

/// Files that take several commits on the way in are no less kept than small ones.
#[test]
fn importing_a_large_file_anew_makes_one_version_of_what_it_was() {
    let scratch = keeping("2");
    std::fs::create_dir(scratch.path("tree")).unwrap();
    let local = scratch.path("tree/large");
    let contents: Vec<Vec<u8>> = (1..=4).map(|seed| Numbers::new(seed).bytes(17 << 20)).collect();
    for (round, content) in contents.iter().enumerate() {
        std::fs::write(&local, content).unwrap();
        scratch.succeeds(["import", "tree"]);
        assert_eq!(numbers(&scratch, "/tree/large").len(), (round + 1).min(3), "after round {round}");
    }
    for (version, content) in numbers(&scratch, "/tree/large").into_iter().zip(&contents[1..]) {
        let read = scratch.succeeds(["cat", "--version", &version.to_string(), "/tree/large"]);
        assert!(read == *content, "version {version}");
    }
    // A limit of its own stays with the file.
    scratch.succeeds(["history", "/tree/large", "--keep", "1"]);
    std::fs::write(&local, &contents[0]).unwrap();
    scratch.succeeds(["import", "tree"]);
    assert_eq!(numbers(&scratch, "/tree/large").len(), 2);
    assert_eq!(text(scratch.succeeds(["ls", "/tree"])).lines().count(), 1);
    scratch.succeeds(["check", "--data"]);
}

/// What was touched and not changed must not cost a version of what was.
#[test]
fn importing_the_same_content_with_another_time_makes_no_version() {
    // A large file takes several commits on the way in. Without dedup nothing is known by its identity.
    for (bytes, dedup) in [(5, "on"), (5, "off"), (4 << 20, "on"), (4 << 20, "off")] {
        let scratch = Scratch::new();
        let init = ["init", "--no-recovery", "--kdf-time", "1", "--block-size", "16KiB", "--versions", "2"];
        scratch.succeeds(init.iter().chain(&["--dedup", dedup]));
        std::fs::create_dir(scratch.path("tree")).unwrap();
        let local = scratch.path("tree/file");
        let contents: Vec<Vec<u8>> = (1..=3).map(|seed| Numbers::new(seed).bytes(bytes)).collect();
        for content in &contents {
            std::fs::write(&local, content).unwrap();
            scratch.succeeds(["import", "tree"]);
        }
        let before = numbers(&scratch, "/tree/file");
        assert_eq!(before.len(), 3);
        for day in 1..4 {
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(day * 86_400);
            std::fs::File::options().write(true).open(&local).unwrap().set_modified(time).unwrap();
            scratch.succeeds(["import", "tree"]);
            assert_eq!(numbers(&scratch, "/tree/file"), before, "{bytes} bytes, dedup {dedup}, day {day}");
            scratch.succeeds(["export", "/tree", "out"]);
            assert_eq!(common::compare_trees(&scratch.path("tree"), &scratch.path("out/tree")), Vec::<String>::new());
            std::fs::remove_dir_all(scratch.path("out")).unwrap();
        }
        for (version, content) in before.iter().zip(&contents) {
            assert!(scratch.succeeds(["cat", "--version", &version.to_string(), "/tree/file"]) == *content);
        }
        // One byte is a change.
        let mut changed = contents[2].clone();
        changed[bytes - 1] ^= 1;
        std::fs::write(&local, &changed).unwrap();
        scratch.succeeds(["import", "tree"]);
        assert_eq!(numbers(&scratch, "/tree/file").last(), Some(&(before[2] + 1)));
        assert!(scratch.succeeds(["cat", "/tree/file"]) == changed);
        scratch.succeeds(["check", "--data"]);
    }
}
