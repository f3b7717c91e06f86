//! Commands that are killed at any moment.

#![allow(clippy::disallowed_methods)] // how long a command takes bounds when it is stopped

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::acceptance::{check_is_clean, seed};
use super::{Numbers, Scratch, compare_trees, generate_tree, list};

/// Starts a command, kills it after this long, and answers whether it was done before.
pub fn killed_after(scratch: &Scratch, arguments: &[&str], delay: Duration) -> bool {
    let mut command = scratch.command();
    let mut child: Child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(delay);
    let _ = child.kill();
    child.wait().unwrap().success()
}

pub fn duration_of(scratch: &Scratch, arguments: &[&str]) -> Duration {
    let start = Instant::now();
    scratch.succeeds(arguments);
    start.elapsed()
}

/// A moment up to a little after the end, drawn by seed.
pub fn moment(numbers: &mut Numbers, whole: Duration) -> Duration {
    Duration::from_micros(numbers.below(u64::try_from(whole.as_micros()).unwrap() * 11 / 10 + 1))
}

fn content(scratch: &Scratch, path: &str) -> Option<Vec<u8>> {
    let output = scratch.run(["cat", path]);
    match output.status.code() {
        Some(0) => Some(output.stdout),
        Some(1) => None,
        code => panic!("cat {path}: {code:?} {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// What a dead writer left is gone once the next one has written. In a bucket nobody can tell so soon that it is dead: what it left is
/// told, and nothing else.
pub fn leftovers_vanish(scratch: &Scratch, when: &str) {
    let report = check_is_clean(scratch, when);
    let mut notices = report["notices"].as_array().unwrap().clone();
    if scratch.bucket.is_some() {
        notices.retain(|notice| !notice.as_str().unwrap().contains(" blobs belong to unfinished work"));
    }
    assert_eq!(notices, [serde_json::Value::Null; 0], "{when}");
    let incoming = scratch.path("repo/incoming");
    if incoming.exists() {
        let parts: Vec<_> = list(&incoming).into_iter().filter(|path| path.extension().is_some()).collect();
        assert_eq!(parts, Vec::<std::path::PathBuf>::new(), "{when}");
    }
}

/// Imports that are killed, each then run again: nothing acknowledged is lost, and the second one ends what the first began.
pub fn imports_are_resumed(scratch: &Scratch, rounds: u64, (bytes, files): (u64, u64)) {
    let seed = seed();
    let mut numbers = Numbers::new(seed);
    generate_tree(&scratch.path("first"), seed, bytes, files);
    let mut whole = duration_of(scratch, &["import", "first"]);
    fs::rename(scratch.path("first"), scratch.path("second")).unwrap();
    scratch.succeeds(["rm", "-r", "/first"]);
    whole = whole.min(duration_of(scratch, &["import", "second"]));
    let mut done_in_time = 0;
    for round in 0..rounds {
        let name = format!("tree {round}");
        let tree = scratch.path(&name);
        generate_tree(&tree, seed ^ (round + 1) << 8, bytes, files);
        let delay = moment(&mut numbers, whole);
        let when = format!("{}, seed {seed}, round {round}, killed after {delay:?} of {whole:?}", scratch.scheme);
        let acknowledged = killed_after(scratch, &["import", &name], delay);
        done_in_time += u32::from(acknowledged);
        check_is_clean(scratch, &when);
        if acknowledged {
            is_there(scratch, &name, &tree, &when);
        }
        scratch.succeeds(["import", &name]);
        // Where all had been stored before the kill, that wrote nothing; this does.
        scratch.succeeds(["mkdir", &format!("/after {round}")]);
        leftovers_vanish(scratch, &when);
        is_there(scratch, &name, &tree, &when);
        is_there(scratch, "second", &scratch.path("second"), &when);
        // Space and time of the test stay bounded.
        scratch.succeeds(["rm", "-r", &name]);
        fs::remove_dir_all(tree).unwrap();
    }
    eprintln!("{}: {done_in_time} imports were done before the kill", scratch.scheme);
}

pub fn is_there(scratch: &Scratch, name: &str, tree: &Path, when: &str) {
    scratch.succeeds(["export", name, "out"]);
    assert_eq!(compare_trees(tree, &scratch.path("out").join(name)), Vec::<String>::new(), "{when}");
    fs::remove_dir_all(scratch.path("out")).unwrap();
}

/// Puts that are killed leave the old file or the new one, and all others as they were.
pub fn old_or_new(scratch: &Scratch, rounds: u64) {
    let (seed, scheme) = (seed(), scratch.scheme);
    let mut numbers = Numbers::new(seed);
    let size = |numbers: &mut Numbers| usize::try_from(1 + numbers.below(4 << 20)).unwrap();
    fs::write(scratch.path("local"), numbers.bytes(4 << 20)).unwrap();
    let whole = duration_of(scratch, &["put", "local", "/first"]);
    let mut known: Vec<Option<Vec<u8>>> = vec![None; 3];
    let mut done_in_time = 0;
    for round in 0..rounds {
        let at = usize::try_from(numbers.below(3)).unwrap();
        let path = format!("/file {at}");
        let length = size(&mut numbers);
        let new = numbers.bytes(length);
        fs::write(scratch.path("local"), &new).unwrap();
        let delay = moment(&mut numbers, whole);
        let when = format!("{scheme}, seed {seed}, round {round}, killed after {delay:?} of {whole:?}");
        let acknowledged = killed_after(scratch, &["put", "local", &path], delay);
        done_in_time += u32::from(acknowledged);
        check_is_clean(scratch, &when);
        let there = content(scratch, &path);
        assert!(there.as_ref() == Some(&new) || !acknowledged && there == known[at], "{when}: neither old nor new");
        known[at] = there;
        for (at, known) in known.iter().enumerate() {
            assert!(content(scratch, &format!("/file {at}")) == *known, "{when}: file {at} has changed");
        }
        scratch.succeeds(["mkdir", &format!("/after {round}")]);
        leftovers_vanish(scratch, &when);
    }
    eprintln!("{scheme}: {done_in_time} of {rounds} puts were done before the kill");
}
