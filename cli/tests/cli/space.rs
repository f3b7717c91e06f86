//! Space comes back in the default configuration: after everything that leaves garbage, `compact` leaves what a fresh
//! repository of the same data takes.
#![cfg(unix)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::acceptance::{check_is_clean, seed};
use crate::common::{Numbers, Scratch, compare_trees, generate_tree, list};

/// Blocks in the repository, where a writer may be at work.
fn blocks(scratch: &Scratch) -> usize {
    fn count(folder: &Path) -> usize {
        let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
        let count = |entry: std::fs::DirEntry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => count(&entry.path()),
            Ok(metadata) => usize::from(metadata.len() == 128 << 10),
            Err(_) => 0,
        };
        entries.flatten().map(count).sum()
    }
    count(&scratch.path("repo"))
}

/// Compacts, and compares with a repository that has never held anything but what this one holds now.
fn is_as_small_as_a_fresh_one(scratch: &Scratch) {
    let before = blocks(scratch);
    let report: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["compact", "--json"])).unwrap();
    assert_eq!(report["schema"], "strongroom/compact/1");
    assert_eq!(report["waiting"], 0);
    assert_eq!(report["other_writers"], 0);
    let after = blocks(scratch);
    let fresh = Scratch::with_repository();
    std::fs::create_dir(fresh.path("out")).unwrap();
    let mut export = scratch.command();
    export.args(["export", "/"]).arg(fresh.path("out"));
    assert!(export.status().unwrap().success());
    // One that nobody has ever written to has no ballast yet: its first writer puts it.
    fresh.succeeds(["kv", "put", "key", "value"]);
    fresh.succeeds(["kv", "del", "key"]);
    fresh.succeeds(["compact"]);
    for entry in std::fs::read_dir(fresh.path("out")).unwrap() {
        fresh.succeeds(["import".as_ref(), entry.unwrap().path().as_os_str()]);
    }
    fresh.succeeds(["compact"]);
    let ideal = blocks(&fresh);
    assert!(after <= ideal + (ideal / 50).max(8), "{ideal} blocks would do, {before} became {after}: {report}");
    check_is_clean(scratch, "after compact");
    // Twice is as good as once.
    scratch.succeeds(["compact"]);
    assert!(blocks(scratch) <= after + 2, "{after} blocks became {}", blocks(scratch));
}

fn with_tree(bytes: u64, files: u64) -> Scratch {
    let scratch = Scratch::with_repository();
    generate_tree(&scratch.path("tree"), seed(), bytes, files);
    scratch.succeeds(["import", "tree"]);
    scratch
}

#[test]
fn after_overwriting() {
    let scratch = with_tree(12 << 20, 600);
    let mut numbers = Numbers::new(seed());
    for round in 0..3 {
        for path in list(&scratch.path("tree")) {
            if path.symlink_metadata().unwrap().is_file() && numbers.below(3) == 0 {
                let length = numbers.below(60_000) as usize;
                // What is not writable, or gone by another name, stays as it was.
                let _ = std::fs::write(&path, numbers.bytes(length));
            }
        }
        scratch.succeeds(["import", "tree"]);
        let random = numbers.bytes(3 << 20);
        assert!(scratch.feeds(["put", "-", &format!("/large-{}", round % 2)], &random).status.success());
    }
    is_as_small_as_a_fresh_one(&scratch);
}

#[test]
fn after_deleting() {
    let scratch = with_tree(16 << 20, 800);
    let listing = String::from_utf8_lossy(&scratch.succeeds(["ls", "/tree"])).into_owned();
    let names: Vec<_> = listing.lines().filter(|name| name.is_ascii() && !name.contains('\\')).collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names.iter().step_by(2) {
        scratch.succeeds(["rm", "-r", "-f", &format!("/tree/{name}")]);
    }
    is_as_small_as_a_fresh_one(&scratch);
    scratch.succeeds(["rm", "-r", "-f", "/tree"]);
    is_as_small_as_a_fresh_one(&scratch);
}

#[test]
fn after_truncating() {
    let scratch = with_tree(2 << 20, 100);
    let mut numbers = Numbers::new(seed());
    // Within a chunk, at the ends of some, to nothing, and longer again.
    let sizes = [5 << 20, 1_234_567, 64 << 10, 1, 0];
    for (number, _) in sizes.iter().enumerate() {
        let random = numbers.bytes(6 << 20);
        assert!(scratch.feeds(["put", "-", &format!("/large-{number}")], &random).status.success());
    }
    for rounds in 1..=2 {
        let truncate = |(number, size): (usize, &usize)| {
            format!("{{\"op\":\"truncate\",\"path\":\"/large-{number}\",\"size\":{}}}\n", size / rounds)
        };
        let ops: String = sizes.iter().enumerate().map(truncate).collect();
        assert!(scratch.feeds(["batch"], ops.as_bytes()).status.success());
        is_as_small_as_a_fresh_one(&scratch);
    }
    let longer = "{\"op\":\"truncate\",\"path\":\"/large-4\",\"size\":60000000}\n";
    assert!(scratch.feeds(["batch"], longer.as_bytes()).status.success());
    is_as_small_as_a_fresh_one(&scratch);
}

#[test]
fn after_a_transaction_that_was_given_up() {
    let scratch = with_tree(4 << 20, 200);
    let mut numbers = Numbers::new(seed());
    let mut child =
        scratch.command().args(["put", "-", "/never"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than is on its way at once: the rest is in storage by then.
    stdin.write_all(&numbers.bytes(40 << 20)).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    drop(stdin);
    is_as_small_as_a_fresh_one(&scratch);
}

#[test]
fn after_an_import_that_was_killed() {
    let scratch = with_tree(4 << 20, 200);
    let before = blocks(&scratch);
    generate_tree(&scratch.path("other"), seed() + 1, 40 << 20, 1000);
    // Slowly: who counts the blocks may have to wait for a core.
    let mut import = scratch.command();
    import.args(["import", "other", "--limit-upload", "16MiB/s"]);
    let mut child = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while blocks(&scratch) < before + 60 {
        assert!(child.try_wait().unwrap().is_none(), "it was done before it was killed");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    is_as_small_as_a_fresh_one(&scratch);
    // What arrived of it is there, or all of it when it is run again.
    scratch.succeeds(["import", "other"]);
    std::fs::create_dir(scratch.path("out")).unwrap();
    scratch.succeeds(["export", "/other", "out"]);
    assert_eq!(compare_trees(&scratch.path("other"), &scratch.path("out/other")), Vec::<String>::new());
}

/// A reader in another process keeps what it looks at, and what is kept for it is told.
#[test]
fn what_readers_may_need_waits_and_is_told() {
    let scratch = with_tree(4 << 20, 50);
    std::fs::write(scratch.path("large"), vec![7; 4 << 20]).unwrap();
    scratch.succeeds(["put", "large", "/large"]);
    let mut reader = scratch.command().args(["cat", "/large"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0];
    std::io::Read::read_exact(reader.stdout.as_mut().unwrap(), &mut first).unwrap();
    scratch.succeeds(["rm", "-r", "/tree"]);
    let output = scratch.run(["compact", "--json"]);
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["waiting"].as_u64().unwrap() > 0, "{report}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("readers"));
    let rest = reader.wait_with_output().unwrap();
    assert!(rest.status.success());
    assert_eq!(rest.stdout.len(), (4 << 20) - 1);
    is_as_small_as_a_fresh_one(&scratch);
}
