//! `clone`: the same repository in another place, which opens with the same password and is brought up to date by each run.

#![allow(clippy::disallowed_methods)] // how long a command takes bounds when it is stopped

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::acceptance::{blobs, check_is_clean, scaled, seed, text};
use crate::common::{Numbers, Scratch, compare_trees, generate_tree};

/// The same scratch folder, with the clone as the repository.
fn on_clone(scratch: &Scratch, arguments: &[&str]) -> Vec<u8> {
    let output = scratch.command().env("STRONGROOM_REPO", "file:clone").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    output.stdout
}

fn clone(scratch: &Scratch, arguments: &[&str]) -> serde_json::Value {
    let report = scratch.succeeds([&["clone", "clone", "--json"], arguments].concat());
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["schema"], "strongroom/cloned/1");
    report
}

/// That all of a tree is in the clone, and that the clone is sound.
fn is_whole(scratch: &Scratch, name: &str) {
    on_clone(scratch, &["check", "--data"]);
    on_clone(scratch, &["export", name, "out"]);
    assert_eq!(compare_trees(&scratch.path(name), &scratch.path("out").join(name)), Vec::<String>::new());
    fs::remove_dir_all(scratch.path("out")).unwrap();
}

#[test]
fn a_mirror_has_files_versions_snapshots_and_keys_and_stays_as_small_as_its_source() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--versions", "3"]);
    let (bytes, files) = scaled((3 << 20, 40), (64 << 20, 1_000));
    generate_tree(&scratch.path("tree"), seed(), bytes, files);
    scratch.succeeds(["import", "tree"]);
    scratch.feeds(["put", "-", "/letter"], b"Dear Anna");
    scratch.succeeds(["snapshot", "create", "monday"]);
    scratch.feeds(["put", "-", "/letter"], b"Dear Berta");
    scratch.succeeds(["kv", "put", "theme", "dark"]);
    let first = clone(&scratch, &[]);
    assert_eq!(first["sent_blocks"], first["blocks"]);
    assert_eq!((&first["pruned"], &first["left_out"]), (&0.into(), &serde_json::json!([])));
    is_whole(&scratch, "tree");
    for round in 0..scaled(3, 20) {
        let tree = format!("tree {round}");
        generate_tree(&scratch.path(&tree), seed() ^ (round + 1) << 9, bytes / 4, 10);
        scratch.succeeds(["import", &tree]);
        let report = clone(&scratch, &["--prune"]);
        assert!(report["sent_blocks"].as_u64() < report["blocks"].as_u64(), "{report}");
        is_whole(&scratch, &tree);
        scratch.succeeds(["rm", "-r", &format!("/{tree}")]);
        scratch.succeeds(["compact"]);
    }
    clone(&scratch, &["--prune"]);
    let (source, mirror) = (blobs(&scratch.path("repo")).len(), blobs(&scratch.path("clone")).len());
    assert!(mirror <= source, "{mirror} blobs mirror {source}");
    is_whole(&scratch, "tree");
    assert_eq!(on_clone(&scratch, &["cat", "/letter"]), b"Dear Berta");
    assert_eq!(on_clone(&scratch, &["cat", "--version", "1", "/letter"]), b"Dear Anna");
    assert_eq!(on_clone(&scratch, &["--at", "monday", "cat", "/letter"]), b"Dear Anna");
    assert_eq!(on_clone(&scratch, &["kv", "get", "theme"]), b"dark");
    let id = |output: Vec<u8>| serde_json::from_slice::<serde_json::Value>(&output).unwrap()["repository"].clone();
    assert_eq!(id(on_clone(&scratch, &["info", "--json"])), id(scratch.succeeds(["info", "--json"])));
    // Nothing has changed: nothing is sent.
    let report = clone(&scratch, &["--prune"]);
    assert_eq!((&report["sent_blocks"], &report["pruned"]), (&0.into(), &0.into()));
    // Without a terminal nobody is told more than the line.
    let output = scratch.run(["clone", "clone"]);
    assert_eq!(text(&output.stderr), "");
    assert!(text(&output.stdout).starts_with("cloned to file:clone at commit "), "{}", text(&output.stdout));
}

#[test]
fn a_clone_that_is_killed_is_gone_on_with_and_a_mirror_is_whole_all_the_time() {
    let seed = seed();
    let scratch = Scratch::with_repository();
    let mut numbers = Numbers::new(seed);
    let (bytes, files) = scaled((8 << 20, 60), (256 << 20, 2_000));
    generate_tree(&scratch.path("tree"), seed, bytes, files);
    scratch.succeeds(["import", "tree"]);
    let start = Instant::now();
    clone(&scratch, &[]);
    let whole = start.elapsed();
    for round in 0..scaled(4, 50) {
        let is_fresh = round % 2 == 0;
        if is_fresh {
            fs::remove_dir_all(scratch.path("clone")).unwrap();
        } else {
            generate_tree(&scratch.path("more"), seed ^ (round + 1) << 8, bytes / 2, 20);
            scratch.succeeds(["import", "more", "--delete"]);
        }
        let delay = Duration::from_micros(numbers.below(u64::try_from(whole.as_micros()).unwrap() + 1));
        let mut command = scratch.command();
        command.args(["clone", "clone", "--prune"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(delay);
        let _ = child.kill();
        let is_done = child.wait().unwrap().success();
        let when = format!("seed {seed}, round {round}, killed after {delay:?} of {whole:?}");
        check_is_clean(&scratch, &when);
        let looked = scratch.command().env("STRONGROOM_REPO", "file:clone").args(["check"]).output().unwrap();
        match looked.status.code() {
            Some(0) => {}
            // No header yet, or one copy of it.
            Some(10 | 13) if is_fresh && !is_done => {}
            // The hint that would lead to what has arrived is not there yet.
            Some(13) if text(&looked.stderr).contains("bring it up to date again") && !is_done => {}
            code => panic!("{when}: check of the clone ends with {code:?}: {}", text(&looked.stderr)),
        }
        if looked.status.success() {
            is_whole(&scratch, "tree");
        }
        clone(&scratch, &["--prune"]);
        is_whole(&scratch, "tree");
        if !is_fresh {
            is_whole(&scratch, "more");
            fs::remove_dir_all(scratch.path("more")).unwrap();
        }
    }
}

#[test]
fn a_clone_that_is_taken_while_an_import_runs_is_whole() {
    let scratch = Scratch::with_repository();
    generate_tree(&scratch.path("tree"), seed(), 2 << 20, 30);
    scratch.succeeds(["import", "tree"]);
    let (bytes, files) = scaled((10 << 20, 120), (512 << 20, 5_000));
    generate_tree(&scratch.path("more"), seed() ^ 77, bytes, files);
    let mut child = scratch.command().args(["import", "more", "-q"]).spawn().unwrap();
    let mut taken = 0;
    while child.try_wait().unwrap().is_none() || taken < 2 {
        clone(&scratch, if taken % 2 == 0 { &["--prune"] } else { &[] });
        is_whole(&scratch, "tree");
        taken += 1;
    }
    assert!(child.wait().unwrap().success());
    clone(&scratch, &["--prune"]);
    is_whole(&scratch, "more");
}

#[test]
fn what_cannot_be_cloned_is_one_line_that_says_what_to_do() {
    let scratch = Scratch::with_repository();
    scratch.feeds(["put", "-", "/letter"], b"Dear Anna");
    assert!(scratch.fails(2, ["clone"]).contains("URI2"));
    for own in ["repo", "./repo", "repo/", "repo/within"] {
        let said = scratch.fails(2, ["clone", own]);
        assert!(said.contains("the repository itself"), "{own}: {said}");
    }
    std::os::unix::fs::symlink("repo", scratch.path("link")).unwrap();
    scratch.fails(2, ["clone", "link", "--prune"]);
    assert!(scratch.fails(2, ["--at", "now", "clone", "clone"]).contains("--at"));
    assert!(scratch.fails(2, ["clone", "nosuch://place"]).contains("nosuch"));

    scratch.succeeds(["-r", "file:other", "init", "--no-recovery", "--kdf-time", "1"]);
    let before = blobs(&scratch.path("other"));
    assert!(scratch.fails(1, ["clone", "other", "--prune"]).contains("a repository is here already"));
    assert_eq!(blobs(&scratch.path("other")), before);

    clone(&scratch, &[]);
    on_clone(&scratch, &["mkdir", "/theirs"]);
    let before = blobs(&scratch.path("clone"));
    let said = scratch.fails(1, ["clone", "clone", "--prune"]);
    assert!(said.contains("gone its own way") && said.contains("look into both"), "{said}");
    assert_eq!(blobs(&scratch.path("clone")), before);
    on_clone(&scratch, &["ls", "/theirs"]);
}

#[test]
fn what_is_damaged_fails_the_clone_unless_it_may_be_left_out() {
    let scratch = Scratch::with_repository();
    generate_tree(&scratch.path("tree"), seed(), 6 << 20, 30);
    scratch.succeeds(["import", "tree"]);
    clone(&scratch, &[]);
    let (mut failed, mut partial) = (0, 0);
    // One after the other, put back after: not every block holds content.
    for blob in blobs(&scratch.path("repo")) {
        let whole = fs::read(&blob).unwrap();
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let writable = |is: bool| {
            let mut permissions = fs::metadata(&blob).unwrap().permissions();
            #[allow(clippy::permissions_set_readonly_false)]
            permissions.set_readonly(!is);
            fs::set_permissions(&blob, permissions).unwrap();
        };
        writable(true);
        fs::write(&blob, &bytes).unwrap();
        let output = scratch.run(["clone", "fresh"]);
        if output.status.code() == Some(13) && text(&output.stderr).contains("--partial") {
            failed += 1;
            assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
            let output = scratch.run(["clone", "fresh", "--partial", "--json"]);
            assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["left_out"].as_array().unwrap().len(), 1);
            partial += 1;
            // The clone that has it needs it no more.
            clone(&scratch, &["--prune"]);
            is_whole(&scratch, "tree");
        }
        fs::write(&blob, &whole).unwrap();
        let _ = fs::remove_dir_all(scratch.path("fresh"));
        if partial == 3 {
            break;
        }
    }
    assert_eq!((failed, partial), (3, 3));
}
