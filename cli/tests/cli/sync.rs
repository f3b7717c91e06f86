//! A folder that a sync client keeps alike on two devices, both of which wrote.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::acceptance::{copy_folder, text};
use crate::common::{Scratch, compare_trees};

fn on(scratch: &Scratch, device: &str, arguments: &[&str]) -> Output {
    scratch.command().env("STRONGROOM_REPO", device).args(arguments).output().unwrap()
}

fn succeeds(scratch: &Scratch, device: &str, arguments: &[&str]) -> Vec<u8> {
    let output = on(scratch, device, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    output.stdout
}

fn json(scratch: &Scratch, device: &str, arguments: &[&str]) -> serde_json::Value {
    serde_json::from_slice(&succeeds(scratch, device, &[arguments, &["--json"]].concat())).unwrap()
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path);
            }
        }
    }
    files.iter().map(|path| path.strip_prefix(folder).unwrap().to_owned()).collect()
}

/// Brings what `from` has to `to`, where what is there already wins.
fn merge(from: &Path, to: &Path) {
    for path in files(from) {
        let (source, mut target) = (from.join(&path), to.join(&path));
        if target.exists() && fs::read(&source).unwrap() != fs::read(&target).unwrap() {
            let name = path.file_name().unwrap().to_str().unwrap();
            target.set_file_name(format!("{name} (laptop's conflicted copy 2026-11-30)"));
        }
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(source, target).unwrap();
    }
}

/// Two devices that both wrote, and what each had.
fn forked(scratch: &Scratch) {
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "4KiB"]);
    for (tree, label) in [("common", "common"), ("desk", "desk"), ("laptop-tree", "laptop")] {
        fs::create_dir(scratch.path(tree)).unwrap();
        for number in 0..5_usize {
            fs::write(scratch.path(tree).join(format!("{number}")), label.repeat(1 + number * 2000)).unwrap();
        }
    }
    scratch.succeeds(["import", "common"]);
    copy_folder(&scratch.path("repo"), &scratch.path("laptop"));
    succeeds(scratch, "laptop", &["ls", "/"]);
    succeeds(scratch, "laptop", &["import", "laptop-tree"]);
    scratch.succeeds(["import", "desk"]);
    // Alike on both from here on: the desk has won.
    merge(&scratch.path("laptop"), &scratch.path("repo"));
    fs::remove_dir_all(scratch.path("laptop")).unwrap();
    copy_folder(&scratch.path("repo"), &scratch.path("laptop"));
}

#[test]
fn both_sides_of_a_fork_are_told_and_come_out_whole() {
    let scratch = Scratch::new();
    forked(&scratch);
    // Who has lost is told; who has won is told by whoever looks, or writes.
    let lost = on(&scratch, "laptop", &["ls", "/"]);
    assert_eq!(lost.status.code(), Some(13), "{}", text(&lost.stderr));
    assert!(text(&lost.stderr).contains("fork list"), "{}", text(&lost.stderr));
    let check = scratch.run(["check", "--data"]);
    assert!(check.status.success() && text(&check.stderr).contains("conflicted copies"), "{}", text(&check.stderr));
    let info = json(&scratch, "repo", &["info"]);
    assert!(info["conflicted_copies"].as_u64() > Some(0) && info["unfinished_files"] == 0, "{info}");
    let before = files(&scratch.path("repo"));
    let compact = scratch.run(["compact", "--end-writers"]);
    assert!(!compact.status.success() && text(&compact.stderr).contains("fork list"), "{}", text(&compact.stderr));
    assert_eq!(files(&scratch.path("repo")), before);

    for (device, own, other) in [("repo", "desk", "laptop-tree"), ("laptop", "laptop-tree", "desk")] {
        let forks = json(&scratch, device, &["fork", "list"]);
        let sides = forks["sides"].as_array().unwrap();
        assert_eq!(sides.len(), 2, "{forks}");
        for side in sides {
            let is_own = side["seen_here"] == true;
            let (has, lacks) = if is_own { (own, other) } else { (other, own) };
            let target = format!("{device}-{has}");
            succeeds(&scratch, device, &["fork", "take", side["side"].as_str().unwrap(), &target]);
            succeeds(&scratch, &target, &["check", "--data"]);
            let out = format!("{target}-out");
            succeeds(&scratch, &target, &["export", "/common", &format!("/{has}"), &out]);
            for tree in ["common", has] {
                let (stored, written) = (scratch.path(tree), scratch.path(&out).join(tree));
                assert_eq!(compare_trees(&stored, &written), Vec::<String>::new());
            }
            assert!(!on(&scratch, &target, &["export", &format!("/{lacks}"), &out]).status.success());
            // It can be gone on with.
            succeeds(&scratch, &target, &["import", lacks]);
        }
    }
    assert_eq!(files(&scratch.path("repo")), before, "nothing was taken from it");

    let warned = scratch.run(["mkdir", "/more"]);
    assert!(warned.status.success() && text(&warned.stderr).contains("conflicted copies"), "{}", text(&warned.stderr));
}

#[test]
fn a_side_is_named_by_what_is_its_alone_and_another_place_helps_where_something_is_missing() {
    let scratch = Scratch::new();
    forked(&scratch);
    let forks = json(&scratch, "repo", &["fork", "list"]);
    for side in ["", "zz", "0x"] {
        let output = scratch.run(["fork", "take", side, "elsewhere"]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    }
    let side = forks["sides"][0]["side"].as_str().unwrap();
    // What a client that keeps deleted files would bring back.
    copy_folder(&scratch.path("repo"), &scratch.path("whole"));
    for path in files(&scratch.path("repo")) {
        if path.file_name().unwrap().len() > 32 {
            fs::remove_file(scratch.path("repo").join(path)).unwrap();
        }
    }
    let alone = json(&scratch, "repo", &["fork", "list"]);
    let whole = |side: &serde_json::Value| side.get("missing").is_none();
    assert_eq!(alone["sides"].as_array().unwrap().iter().filter(|side| whole(side)).count(), 1, "{alone}");
    let helped = json(&scratch, "repo", &["fork", "list", "--with", "whole"]);
    assert_eq!(helped["sides"], forks["sides"]);
    succeeds(&scratch, "repo", &["fork", "take", side, "taken", "--with", "whole"]);
    succeeds(&scratch, "taken", &["check", "--data"]);
}

#[test]
fn an_older_state_that_was_put_back_is_told_and_is_taken_only_where_that_is_said() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "4KiB"]);
    copy_folder(&scratch.path("repo"), &scratch.path("older"));
    scratch.succeeds(["mkdir", "/newer"]);
    let blob = files(&scratch.path("older")).into_iter().find(|path| path.file_name().unwrap().len() == 32).unwrap();
    fs::remove_dir_all(scratch.path("repo")).unwrap();
    copy_folder(&scratch.path("older"), &scratch.path("repo"));
    let copy = format!("{} (laptop's conflicted copy 2026-11-30)", blob.display());
    fs::write(scratch.path("repo").join(copy), b"of no use").unwrap();

    let refused = scratch.run(["ls", "/"]);
    assert!(refused.status.code() == Some(13) && text(&refused.stderr).contains("fork list"));
    let forks = json(&scratch, "repo", &["fork", "list"]);
    assert!(forks["lost"].as_u64() > forks["sides"][0]["commit"].as_u64(), "{forks}");
    assert!(text(&scratch.run(["fork", "list"]).stdout).contains("which is not there"));
    let take = scratch.run(["fork", "take", "newest", "taken"]);
    assert_eq!(take.status.code(), Some(13), "{}", text(&take.stderr));
    assert!(text(&take.stderr).contains("--accept-rollback") && !scratch.path("taken").exists());
    succeeds(&scratch, "repo", &["--accept-rollback", "fork", "take", "newest", "taken"]);
    succeeds(&scratch, "taken", &["check", "--data"]);
}

#[test]
fn sub_folders_that_a_client_has_doubled_are_told_and_what_is_in_them_is_read() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "4KiB"]);
    fs::create_dir(scratch.path("tree")).unwrap();
    for number in 0..5_usize {
        fs::write(scratch.path("tree").join(format!("{number}")), format!("{number}").repeat(1 + number * 9000))
            .unwrap();
    }
    scratch.succeeds(["import", "tree"]);
    // Where the headers are: without one there is no repository.
    let of_headers = Path::new("73");
    let folders: BTreeSet<PathBuf> = files(&scratch.path("repo"))
        .iter()
        .filter_map(|path| path.parent().map(Path::to_owned))
        .filter(|folder| folder.as_os_str().len() == 2 && folder != of_headers)
        .collect();
    for folder in folders.iter().step_by(2) {
        let folder = scratch.path("repo").join(folder);
        fs::rename(&folder, format!("{} 2", folder.display())).unwrap();
    }
    let check = scratch.run(["check", "--data"]);
    assert_eq!(check.status.code(), Some(13), "{}", text(&check.stderr));
    assert!(text(&check.stderr).contains("fork list"), "{}", text(&check.stderr));
    scratch.succeeds(["fork", "take", "newest", "taken"]);
    succeeds(&scratch, "taken", &["check", "--data"]);
    succeeds(&scratch, "taken", &["export", "/tree", "out"]);
    assert_eq!(compare_trees(&scratch.path("tree"), &scratch.path("out").join("tree")), Vec::<String>::new());
}

#[test]
fn what_is_arriving_is_not_taken_for_what_dead_writers_left() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "4KiB"]);
    scratch.succeeds(["mkdir", "/before"]);
    let blob = files(&scratch.path("repo")).into_iter().find(|path| path.file_name().unwrap().len() == 32).unwrap();
    let name = blob.file_name().unwrap().to_str().unwrap();
    for unfinished in [format!(".syncthing.{name}.tmp"), format!("{name}.part")] {
        let path = scratch.path("repo").join(blob.with_file_name(&unfinished));
        fs::write(&path, b"half").unwrap();
        let before = files(&scratch.path("repo"));
        let refused = scratch.run(["compact", "--end-writers"]);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains("wait until it is done"), "{}", text(&refused.stderr));
        assert_eq!(files(&scratch.path("repo")), before);
        scratch.succeeds(["compact"]);
        fs::remove_file(path).unwrap();
    }
    scratch.succeeds(["compact", "--end-writers"]);
}
