//! `copy`: all of a repository under another password; and what is cut short passes for no repository.

#![allow(clippy::disallowed_methods)] // how long a command takes bounds when it is stopped

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::acceptance::{copy_folder, stored_bytes, text};
use crate::common::{self, Numbers, Scratch, compare_trees, generate_tree, list, mounts};

const NEW: &str = "tr0ub4dor and three";

/// A repository with a tree, keys, versions and snapshots; the file with the new password.
fn prepare() -> Scratch {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--versions", "3"]);
    generate_tree(&scratch.path("tree"), 1, 6 << 20, 60);
    scratch.succeeds(["import", "tree"]);
    scratch.feeds(["put", "-", "/letter"], b"Dear Anna");
    scratch.succeeds(["kv", "put", "theme", "dark"]);
    scratch.succeeds(["snapshot", "create", "monday"]);
    scratch.feeds(["put", "-", "/letter"], b"Dear Berta");
    scratch.succeeds(["kv", "put", "theme", "light"]);
    fs::write(scratch.path("new"), format!("{NEW}\n")).unwrap();
    scratch
}

const COPY: [&str; 6] = ["copy", "copied", "--no-recovery", "--kdf-time", "1", "--new-password-file=new"];

/// Runs on the copy, with this password.
fn on_copy(scratch: &Scratch, password: &str, arguments: &[&str]) -> Output {
    let mut command = scratch.command();
    command.env("STRONGROOM_REPO", "copied").env("STRONGROOM_PASSWORD", password);
    command.args(arguments).output().unwrap()
}

fn copied(scratch: &Scratch, arguments: &[&str]) -> Vec<u8> {
    let output = on_copy(scratch, NEW, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    output.stdout
}

fn lines(output: &[u8]) -> Vec<serde_json::Value> {
    text(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Those of the source.
fn snapshots(scratch: &Scratch) -> Vec<serde_json::Value> {
    lines(&scratch.succeeds(["snapshot", "list", "--json"]))
}

fn is_whole(scratch: &Scratch) {
    copied(scratch, &["check", "--data"]);
    copied(scratch, &["export", "/tree", "out"]);
    assert_eq!(compare_trees(&scratch.path("tree"), &scratch.path("out/tree")), Vec::<String>::new());
    fs::remove_dir_all(scratch.path("out")).unwrap();
    assert_eq!(copied(scratch, &["cat", "/letter"]), b"Dear Berta");
    assert_eq!(copied(scratch, &["cat", "--version", "1", "/letter"]), b"Dear Anna");
    assert_eq!(copied(scratch, &["--at", "monday", "cat", "/letter"]), b"Dear Anna");
    assert_eq!(copied(scratch, &["kv", "get", "theme"]), b"light");
    assert_eq!(copied(scratch, &["--at", "monday", "kv", "get", "theme"]), b"dark");
}

#[test]
fn everything_opens_with_the_new_password_and_nothing_with_the_old_one() {
    let scratch = prepare();
    let arguments = [&COPY[..], &["--cipher", "xchacha20-poly1305", "--block-size", "64KiB", "--json"]].concat();
    let report: serde_json::Value = serde_json::from_slice(&scratch.succeeds(arguments)).unwrap();
    assert_eq!(report["schema"], "strongroom/copied/1");
    assert_eq!((&report["cipher"], &report["block_bytes"]), (&"xchacha20-poly1305".into(), &(64 << 10).into()));
    assert_eq!((&report["snapshots"], &report["keys"], &report["recovery_key"]), (&1.into(), &1.into(), &false.into()));
    assert!(report["files"].as_u64().unwrap() > 60 && report["bytes"].as_u64().unwrap() > 1 << 20, "{report}");
    is_whole(&scratch);
    assert_eq!(on_copy(&scratch, &scratch.password, &["ls"]).status.code(), Some(12));
    let theirs = lines(&copied(&scratch, &["snapshot", "list", "--json"]));
    for field in ["name", "time"] {
        assert_eq!(snapshots(&scratch)[0][field], theirs[0][field]);
    }
    let (before, after) = (stored_bytes(&scratch.path("repo")), stored_bytes(&scratch.path("copied")));
    assert!(after <= before + before / 4, "{before} {after}");
    // The source is as it was.
    scratch.succeeds(["check", "--data"]);
    let info: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["info", "--json"])).unwrap();
    assert_eq!((&info["inside"]["snapshots"], &info["inside"]["open_writers"]), (&1.into(), &0.into()));
    // It says where it is, and what to do next.
    let said =
        text(&scratch.succeeds(["copy", "another", "--no-recovery", "--kdf-time=1", "--new-password-file", "new"]));
    assert!(said.contains("another") && said.contains("check --data"), "{said}");
}

#[test]
fn large_blocks_are_copied_into_small_ones() {
    let scratch = prepare();
    let large = ["copy", "large", "--no-recovery", "--kdf-time=1", "--block-size=1MiB", "--new-password-file=new"];
    scratch.succeeds(large);
    let small = [&["-r", "large"], &COPY[..], &["--block-size", "16KiB"]].concat();
    let output = scratch.command().env("STRONGROOM_PASSWORD", NEW).args(small).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    is_whole(&scratch);
}

#[test]
fn the_new_credentials_come_from_where_those_of_a_new_slot_do() {
    let scratch = prepare();
    let run = |arguments: &[&str], password: Option<&str>| {
        let mut command = scratch.command();
        command.args(["copy", "--kdf-time", "1"]).args(arguments);
        if let Some(password) = password {
            command.env("STRONGROOM_NEW_PASSWORD", password);
        }
        command.output().unwrap()
    };
    let opens = |place: &str, arguments: &[&str]| {
        let mut command = scratch.command();
        command.env_remove("STRONGROOM_PASSWORD").env("STRONGROOM_REPO", place).arg("ls").args(arguments);
        command.output().unwrap().status.code()
    };
    // Nobody there to ask: the old password is not taken for the new one.
    let refused = run(&["copied"], None);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("STRONGROOM_NEW_PASSWORD"), "{}", text(&refused.stderr));
    assert!(!scratch.path("copied").exists());
    assert!(run(&["by-variable", "--no-recovery"], Some(NEW)).status.success());
    assert_eq!(opens("by-variable", &["--password-file", "new"]), Some(0));
    assert!(
        run(&["by-command", "--new-password-command", "cat new", "--new-recovery-key", "paper"], None).status.success()
    );
    assert_eq!(opens("by-command", &["--password-file", "new"]), Some(0));
    assert_eq!(opens("by-command", &["--recovery-key", "paper"]), Some(0));
    assert!(run(&["by-file", "--new-key-file", "key"], None).status.success());
    assert_eq!(opens("by-file", &["--key-file", "key"]), Some(0));
    // What was made for a copy that failed goes with it.
    let refused = run(&["by-file", "--new-key-file", "key 2", "--new-recovery-key", "paper 2"], None);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!scratch.path("key 2").exists() && !scratch.path("paper 2").exists());
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_made() {
    let scratch = prepare();
    for (code, arguments, says) in [
        (2, &["--block-size", "8KiB"][..], "at least 16KiB"),
        (2, &["--block-size", "5000"], "powers of two"),
        (2, &["--block-size", "8MiB"], "4MiB"),
        (2, &["--cipher", "rot13"], "aes-256-gcm"),
        (2, &["--new-recovery-key", "x"], "cannot be used with"),
        (2, &["--new-password-fd", "3"], "cannot be used with"),
        (2, &["--versions", "3"], "--versions"),
        (1, &["--at", "tuesday"], "no snapshot"),
    ] {
        let said = scratch.fails(code, [&COPY[..], arguments].concat());
        assert!(said.contains(says) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    assert!(scratch.fails(2, ["copy"]).contains("URI2"));
    assert!(scratch.fails(2, ["copy", "nowhere://x", "--new-password-file", "new"]).contains("nowhere"));
    assert!(scratch.fails(10, ["-r", "absent", "copy", "copied", "--new-password-file", "new"]).contains("absent"));
    assert!(!scratch.path("copied").exists());
    // Over itself, and over another one.
    for place in ["repo", "other"] {
        let other = scratch.run(["-r", "other", "init", "--no-recovery", "--kdf-time", "1"]);
        assert!(matches!(other.status.code(), Some(0 | 1)));
        assert!(scratch.fails(1, ["copy", place, "--new-password-file", "new"]).contains("already"));
    }
    scratch.succeeds(["check", "--data"]);
    scratch.succeeds(["-r", "other", "check", "--data"]);
}

#[test]
fn what_a_snapshot_keeps_is_copied_with_those_before_it() {
    let scratch = prepare();
    scratch.succeeds(["snapshot", "create", "tuesday"]);
    scratch.succeeds([&["--at", "monday"], &COPY[..]].concat());
    assert_eq!(copied(&scratch, &["cat", "/letter"]), b"Dear Anna");
    assert_eq!(lines(&copied(&scratch, &["snapshot", "list", "--json"])).len(), 1);
    copied(&scratch, &["check", "--data"]);
}

#[test]
fn no_copy_is_made_within_its_source() {
    let scratch = prepare();
    let before = list(&scratch.path("repo"));
    symlink("repo", scratch.path("link")).unwrap();
    for target in ["repo/sub", "file:repo/new/deep", "link/sub", "absent/../repo/sub", "tree/../link/new"] {
        let said = scratch.fails(2, ["copy", target, "--no-recovery", "--kdf-time=1", "--new-password-file", "new"]);
        assert!(said.contains("here lies the repository itself") && said.contains("somewhere else"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(list(&scratch.path("repo")), before);
    // Beside it, and under a name that begins likewise.
    scratch.succeeds(["copy", "repo 2", "--no-recovery", "--kdf-time=1", "--new-password-file", "new"]);
    scratch.succeeds(["check", "--data"]);
}

/// Starts a copy and sends it this signal after so long; answers how it ended.
fn stopped_after(scratch: &Scratch, signal: &str, delay: Duration) -> Output {
    let mut command = scratch.command();
    let child = command.args(COPY).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(delay);
    // It may have ended.
    let _ = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
    child.wait_with_output().unwrap()
}

#[test]
fn one_that_is_stopped_at_any_moment_is_whole_or_passes_for_no_repository() {
    let scratch = prepare();
    let mut numbers = Numbers::new(common::acceptance::seed());
    let start = Instant::now();
    scratch.succeeds(COPY);
    let whole = u64::try_from(start.elapsed().as_micros()).unwrap();
    is_whole(&scratch);
    fs::remove_dir_all(scratch.path("copied")).unwrap();
    for round in 0..common::acceptance::scaled(12, 60) {
        let signal = ["-KILL", "-INT", "-TERM"][round % 3];
        let delay = Duration::from_micros(numbers.below(whole * 11 / 10));
        let when = format!("round {round}, {signal} after {delay:?} of {whole} µs");
        let output = stopped_after(&scratch, signal, delay);
        let looked = on_copy(&scratch, NEW, &["ls"]);
        let said = text(&looked.stderr);
        match (looked.status.code(), output.status.code()) {
            // Where it was killed just before it could say so.
            (Some(0), Some(0) | None) => is_whole(&scratch),
            // While it said so.
            (Some(0), Some(1)) if text(&output.stderr).contains("strongroom: interrupted\n") => is_whole(&scratch),
            (Some(10), code) => assert_ne!(code, Some(0), "{when}"),
            (Some(13), None) => {
                assert!(said.contains("unfinished copy") && said.contains("destroy"), "{when}: {said}");
                assert_eq!(on_copy(&scratch, NEW, &["check"]).status.code(), Some(13), "{when}");
                // Without credentials it cannot be told from a repository between its last two steps.
                let again = scratch.run(COPY);
                let told = text(&again.stderr);
                assert!(matches!(again.status.code(), Some(1 | 13)), "{when}: {told}");
                assert!(told.contains("destroy") || told.contains("already"), "{when}: {told}");
                assert!(on_copy(&scratch, NEW, &["info", "--clear"]).status.success(), "{when}");
                copied(&scratch, &["destroy", "--yes"]);
                assert_eq!(on_copy(&scratch, NEW, &["ls"]).status.code(), Some(10), "{when}");
            }
            other => panic!("{when}: {other:?} {said} {}", text(&output.stderr)),
        }
        if looked.status.code() != Some(0) {
            scratch.succeeds(COPY);
            is_whole(&scratch);
        }
        let _ = fs::remove_dir_all(scratch.path("copied"));
        // What one that was killed kept in the source goes with the next copy; of others nothing stays.
        if signal == "-KILL" && snapshots(&scratch).len() > 1 {
            // Nor is it one of those that are counted meanwhile.
            scratch.succeeds(["snapshot", "prune", "--keep-last", "1"]);
            assert_eq!(snapshots(&scratch).len(), 2, "{when}");
            scratch.succeeds(COPY);
            fs::remove_dir_all(scratch.path("copied")).unwrap();
        }
        let left: Vec<_> = snapshots(&scratch).iter().map(|snapshot| snapshot["name"].clone()).collect();
        assert_eq!(left, ["monday"], "{when}");
    }
    scratch.succeeds(["check", "--data"]);
}

/// Nothing can be put into a folder, or removed from it, below this one.
fn shut(folder: &std::path::Path, mode: u32) {
    for path in list(folder).into_iter().filter(|path| path.is_dir()) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn that_the_source_stays_kept_is_told_whether_the_copy_fails_or_not() {
    let scratch = prepare();
    let (source, target) = (scratch.path("repo"), scratch.path("copied"));
    for fails in [true, false] {
        let mut command = mounts::humble(std::path::Path::new(env!("CARGO_BIN_EXE_strongroom")));
        command.current_dir(scratch.root.path()).env("XDG_STATE_HOME", scratch.path("state"));
        command.env("STRONGROOM_REPO", &source).env("STRONGROOM_PASSWORD", &scratch.password);
        command
            .args(COPY)
            .args(["--json", "--limit-upload", "2MiB/s"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let id = child.id().to_string();
        let send = |signal: &str| {
            assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        };
        // The source is kept before the first blob of the copy is there, and most is still to be copied.
        let holds_some =
            |folder: fs::DirEntry| fs::read_dir(folder.path()).is_ok_and(|mut blobs| blobs.next().is_some());
        while !fs::read_dir(&target).is_ok_and(|mut folders| folders.any(|folder| folder.is_ok_and(holds_some))) {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it copied anything");
            std::thread::yield_now();
        }
        send("-STOP");
        shut(&source, 0o555);
        if fails {
            shut(&target, 0o555);
        }
        send("-CONT");
        let output = child.wait_with_output().unwrap();
        shut(&source, 0o755);
        shut(&target, 0o755);
        let said = text(&output.stderr);
        let kept = snapshots(&scratch).into_iter().map(|snapshot| snapshot["name"].as_str().unwrap().to_owned());
        let kept: Vec<_> = kept.filter(|name| name != "monday").collect();
        assert_eq!(kept.len(), 1, "{said}");
        assert!(said.contains(&format!("the snapshot {}, which kept the source", kept[0])), "{said}");
        assert!(said.contains("or the next copy"), "{said}");
        assert_eq!(output.status.code(), Some(i32::from(fails)), "{said}");
        if fails {
            assert_eq!(said.lines().count(), 1 + usize::from(said.contains("no recovery key")), "{said}");
        } else {
            assert_eq!(lines(&output.stdout)[0]["left_behind"], kept[0].as_str());
            is_whole(&scratch);
        }
        fs::remove_dir_all(&target).unwrap();
    }
    let report = lines(&scratch.succeeds([&COPY[..], &["--json"]].concat()));
    assert_eq!(report[0].get("left_behind"), None);
    assert_eq!(snapshots(&scratch).len(), 1);
}

#[test]
fn a_source_on_a_disk_that_cannot_be_written_is_copied() {
    if !mounts::inside("copy::a_source_on_a_disk_that_cannot_be_written_is_copied") {
        return;
    }
    let scratch = prepare();
    fs::rename(scratch.path("repo"), scratch.path("good")).unwrap();
    mounts::small_disk(&scratch.path("repo"), 64 << 10);
    copy_folder(&scratch.path("good"), &scratch.path("repo"));
    mounts::remount(&scratch.path("repo"), "ro");
    scratch.succeeds(COPY);
    is_whole(&scratch);
    fs::remove_dir_all(scratch.path("copied")).unwrap();
    // Nor does a disk that is full keep anybody from saving what is on it.
    mounts::remount(&scratch.path("repo"), "rw");
    mounts::fill(&scratch.path("repo"));
    scratch.succeeds(COPY);
    is_whole(&scratch);
}

#[test]
fn a_disk_that_the_copy_fills_is_told_and_left_as_it_was() {
    if !mounts::inside("copy::a_disk_that_the_copy_fills_is_told_and_left_as_it_was") {
        return;
    }
    let scratch = prepare();
    mounts::small_disk(&scratch.path("copied"), 2 << 10);
    let said = scratch.fails(1, COPY);
    assert!(said.contains("copied: ") && said.to_lowercase().contains("no space"), "{said}");
    assert!(!said.contains(&format!("file://{}", scratch.path("repo").display())), "{said}");
    assert_eq!(on_copy(&scratch, NEW, &["ls"]).status.code(), Some(10));
    assert_eq!(stored_bytes(&scratch.path("copied")), 0);
    assert_eq!(snapshots(&scratch).len(), 1);
}
