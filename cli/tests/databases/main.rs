//! Repositories in databases and buckets: what holds of a folder holds of each of them, and each says what it refuses.
//!
//! It stands alone because it is built a second time, with the features `sled` and `s3`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // a test may

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "s3")]
mod buckets;
mod kill;
mod mirrors;
mod raw;
mod refusals;

use std::fs;
use std::io::Read as _;
use std::process::{Child, Stdio};

use common::acceptance::{check_is_clean, did_not_panic, scaled, text};
use common::{DATABASES, Numbers, Scratch, compare_trees, generate_tree, list};
use strongroom::storage::{Effect, ErrorKind, OpenContext, OpenMode, StorageExt as _, StorageUri};
use strongroom_conformance::storage::{sample_bytes, sample_name};

/// A database, and the scratch folder that it is (to be) in.
fn on(scheme: &'static str) -> Scratch {
    Scratch { scheme, ..Scratch::new() }
}

fn init(scratch: &Scratch) {
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1"]);
}

#[test]
fn a_repository_goes_from_place_to_place_and_is_the_same_in_each() {
    let scratch = Scratch::with_repository();
    generate_tree(&scratch.path("tree"), 5, scaled(60 << 20, 500 << 20), scaled(500, 4_000));
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["snapshot", "create", "one"]);
    scratch.feeds(["kv", "put", "key", "-"], b"value");
    #[cfg(feature = "s3")]
    let bucket = buckets::Bucket::new(strongroom_s3_server::ServerOptions::default());
    let run = |arguments: &[&str]| {
        let mut command = scratch.command();
        #[cfg(feature = "s3")]
        buckets::give_keys(&mut command);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        output.stdout
    };
    let id = |place: &str| {
        let info = run(&["-r", place, "info", "--json"]);
        serde_json::from_slice::<serde_json::Value>(&info).unwrap()["repository"].clone()
    };
    let mut places: Vec<String> = DATABASES.map(|scheme| format!("{scheme}:{scheme}-clone")).into();
    #[cfg(feature = "s3")]
    places.push(bucket.uri("bucket/clone?"));
    places.push("file:last".to_owned());
    let (mut here, first) = ("file:repo".to_owned(), id("file:repo"));
    for there in places {
        run(&["-r", &here, "clone", &there]);
        run(&["-r", &there, "check", "--data"]);
        assert_eq!(id(&there), first, "{there}");
        here = there;
    }
    scratch.succeeds(["-r", &here, "export", "tree", "out"]);
    assert_eq!(compare_trees(&scratch.path("tree"), &scratch.path("out/tree")), Vec::<String>::new());
    assert_eq!(scratch.succeeds(["-r", &here, "kv", "get", "key"]), b"value");
    scratch.succeeds(["-r", &here, "--at", "one", "ls", "/tree"]);
}

#[test]
fn a_tree_comes_back_and_what_is_removed_gives_its_space_back() {
    for scheme in DATABASES {
        let scratch = on(scheme);
        init(&scratch);
        generate_tree(&scratch.path("tree"), 1, 4 << 20, 60);
        scratch.succeeds(["import", "tree"]);
        scratch.succeeds(["snapshot", "create", "one"]);
        scratch.succeeds(["import", "tree", "--to", "/again"]);
        scratch.succeeds(["export", "/", "out"]);
        for copy in ["out/tree", "out/again/tree"] {
            assert_eq!(compare_trees(&scratch.path("tree"), &scratch.path(copy)), Vec::<String>::new(), "{scheme}");
        }
        scratch.succeeds(["rm", "-r", "/tree", "/again"]);
        scratch.succeeds(["export", "--at", "one", "/tree", "back"]);
        assert_eq!(compare_trees(&scratch.path("tree"), &scratch.path("back/tree")), Vec::<String>::new(), "{scheme}");
        check_is_clean(&scratch, scheme);

        // Nobody else is there, so nothing waits for readers that could be.
        let blocks = || {
            let info: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["info", "--json"])).unwrap();
            info["inside"]["blocks"].as_u64().unwrap()
        };
        let before = blocks();
        scratch.succeeds(["snapshot", "rm", "one"]);
        scratch.succeeds(["compact"]);
        let after = blocks();
        assert!(after * 2 < before, "{scheme}: {before} blocks before, {after} after");
        check_is_clean(&scratch, scheme);
    }
}

#[cfg(feature = "sled")]
#[test]
fn who_creates_a_repository_that_a_power_cut_may_take_back_is_told() {
    let scratch = on("sled");
    fs::write(scratch.path("letter"), "Dear Anna").unwrap();
    for (place, command) in
        [("one", &["init", "--no-recovery", "--kdf-time", "1"][..]), ("two", &["import", "--init", "letter"])]
    {
        let address = format!("sled:{place}");
        let output = scratch.run([&["-r", &address], command].concat());
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.lines().filter(|line| line.contains("when the power goes")).count(), 1, "{said}");
    }
}

#[test]
fn nothing_is_written_where_an_sqlite_database_may_look_for_a_file_of_its_own() {
    let scratch = on("sqlite");
    init(&scratch);
    fs::create_dir(scratch.path("source")).unwrap();
    let suffixes = ["-journal", "-wal", "-shm", "-here", "-gate"];
    for suffix in suffixes {
        fs::write(scratch.path(format!("source/repo{suffix}")), "Dear Anna").unwrap();
    }
    fs::create_dir(scratch.path("other")).unwrap();
    fs::create_dir(scratch.path("other/repo-journal")).unwrap();
    scratch.succeeds(["import", "source", "other"]);
    for suffix in suffixes {
        let path = format!("/source/repo{suffix}");
        let said = scratch.fails(3, ["export", &path, "."]);
        assert!(said.contains("the repository itself is in the way"), "{said}");
        for place in [".".to_owned(), format!("repo{suffix}"), format!("other/../repo{suffix}")] {
            let said = scratch.fails(1, ["get", &path, &place]);
            assert!(said.contains("the repository itself is in the way"), "{said}");
        }
    }
    scratch.fails(3, ["export", "/other/repo-journal", "."]);
    for arguments in [
        &["get", "/source/repo-journal", "REPO-Journal"][..],
        &["export", "/source", "repo-journal"],
        &["header", "export", "repo-journal"],
        &["key", "add", "--new-key-file", "repo-journal"],
        &["recovery", "new", "--output", "repo-journal"],
        &["copy", "sqlite:second", "--no-recovery", "--new-key-file", "second-journal"],
        &["-r", "sqlite:second", "init", "--kdf-time", "1", "--new-recovery-key", "second-journal"],
        &["-r", "sqlite:second", "init", "--kdf-time", "1", "--no-recovery", "--new-key-file", "second-wal"],
        // Nor is its own read, which would end its locks.
        &["--key-file", "repo", "ls"],
        &["header", "import", "repo"],
        &["batch", "repo"],
    ] {
        let output = scratch.run(arguments);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.lines().count() == 1, "{arguments:?}: {said}");
        assert!(said.contains("the repository itself"), "{arguments:?}: {said}");
    }
    // Redirected by a shell, which makes the file.
    let stdout = fs::File::create(scratch.path("repo-journal")).unwrap();
    let output = scratch.command().args(["get", "/source/repo-wal", "-"]).stdout(stdout).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert_eq!(fs::metadata(scratch.path("repo-journal")).unwrap().len(), 0);
    for place in ["repo-wal", "REPO-Journal", "second", "second-journal", "second-wal"] {
        assert!(!scratch.path(place).exists(), "{place}");
    }
    // Elsewhere such a name is one like any other.
    scratch.succeeds(["get", "/source/repo-journal", "other/repo-wal"]);
    scratch.succeeds(["export", "/source", "out"]);
    check_is_clean(&scratch, "after all that was refused");
}

#[test]
fn the_clauses_hold_beside_a_repository_and_nothing_is_left() {
    // The one with the most files; each is proved in its own crate.
    let scratch = on("sqlite");
    init(&scratch);
    let names = || list(scratch.root.path()).into_iter().filter(|path| path.parent() == Some(scratch.root.path()));
    let before: Vec<_> = names().collect();
    let report = scratch.succeeds(["conformance", "--json", &scratch.repository()]);
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["passed"], true, "{report}");
    assert_eq!(names().collect::<Vec<_>>(), before);
}

/// A program that has the repository open until it is let go.
struct Holding(Child);

impl Holding {
    fn new(scratch: &Scratch) -> Self {
        let mut child = scratch
            .command()
            .args(["export", "/held", "-"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // More than a pipe holds is on its way, so it stays until that is read.
        let mut first = [0; 512];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        Self(child)
    }

    fn let_go(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_second_process_is_served_or_told_who_holds_it() {
    for scheme in DATABASES {
        let scratch = on(scheme);
        init(&scratch);
        fs::write(scratch.path("held"), Numbers::new(1).bytes(4 << 20)).unwrap();
        scratch.succeeds(["import", "held"]);
        let holding = Holding::new(&scratch);
        if scheme == "sqlite" {
            scratch.succeeds(["mkdir", "/beside"]);
        } else {
            for arguments in [&["ls"][..], &["mkdir", "/beside"], &["check"]] {
                let said = scratch.fails(11, arguments);
                assert!(said.contains("one process at a time") && said.lines().count() == 1, "{scheme}: {said}");
            }
        }
        holding.let_go();
        scratch.succeeds(["mkdir", "/after"]);
        check_is_clean(&scratch, scheme);
    }
}

#[test]
fn what_is_in_the_place_of_a_database_is_told_and_left_alone() {
    for scheme in DATABASES {
        let scratch = on(scheme);
        let is_folder = scheme == "sled";
        fs::create_dir_all(scratch.path("folder/within")).unwrap();
        fs::write(scratch.path("folder/letter"), "Dear Anna").unwrap();
        fs::write(scratch.path("letter"), Numbers::new(1).bytes(100_000)).unwrap();
        fs::write(scratch.path("short"), "Dear Anna").unwrap();
        let before: Vec<_> = list(scratch.root.path()).into_iter().map(|path| (fs::read(&path).ok(), path)).collect();
        let folder = if is_folder { "something else" } else { "it is a folder" };
        let file = if is_folder { "it is no folder" } else { "it is no " };
        for (place, code, says) in [
            ("folder", 2, folder),
            ("letter", 2, file),
            ("short", 2, file),
            ("letter/within", 2, "invalid"),
            ("new?speed=1", 2, "takes no parameters"),
            ("new?token=hunter2", 2, "secrets do not belong in a URI"),
            ("//host/new", 2, "another machine"),
            ("", 2, "empty"),
        ] {
            let address = format!("{scheme}:{place}");
            for command in [&["ls"][..], &["init", "--no-recovery", "--kdf-time", "1"]] {
                let mut line = vec!["-r", &address];
                line.extend(command);
                let output = scratch.run(&line);
                did_not_panic(&output, &address);
                let said = text(&output.stderr);
                assert_eq!(output.status.code(), Some(code), "{address}: {said}");
                assert!(said.contains(says) && said.lines().count() == 1, "{address}: {said}");
                // It is known by the name that it was called by.
                assert!(!said.contains("file:"), "{address}: {said}");
            }
        }
        let absent = format!("{scheme}:no/such/place");
        let said = scratch.fails(10, ["-r", &absent, "ls"]);
        assert!(said.contains("no repository here"), "{said}");
        if !is_folder {
            let said = scratch.fails(1, ["-r", &absent, "init", "--no-recovery", "--kdf-time", "1"]);
            assert!(said.contains("create that first"), "{said}");
        }
        let mut after: Vec<_> =
            list(scratch.root.path()).into_iter().map(|path| (fs::read(&path).ok(), path)).collect();
        after.retain(|(_, path)| !path.starts_with(scratch.path("state")));
        assert!(after == before, "{scheme}: something was changed, or left: {after:?}");
    }
}

#[test]
fn a_database_that_was_changed_or_cut_short_is_damage_and_no_panic_ends_the_program() {
    // Damage, also of what tells what the file is, or of parts that hold nothing. Not 10: that there is no repository may be taken
    // for leave to make one.
    const CODES: [i32; 3] = [0, 2, 13];
    for scheme in ["sqlite", "redb"] {
        let scratch = on(scheme);
        init(&scratch);
        fs::write(scratch.path("file"), Numbers::new(1).bytes(1 << 20)).unwrap();
        scratch.succeeds(["import", "file"]);
        let good = fs::read(scratch.path("repo")).unwrap();
        let mut numbers = Numbers::new(7);
        for round in 0..12 {
            let mut bad = good.clone();
            match round % 3 {
                0 => bad.truncate(good.len() / 8 * (1 + round / 3)),
                1 => {
                    let at = usize::try_from(numbers.below(good.len() as u64 - 8192)).unwrap();
                    bad[at..at + 8192].copy_from_slice(&numbers.bytes(8192));
                }
                _ => {
                    for _ in 0..200 {
                        let at = usize::try_from(numbers.below(good.len() as u64)).unwrap();
                        bad[at] ^= 1 << numbers.below(8);
                    }
                }
            }
            fs::write(scratch.path("repo"), &bad).unwrap();
            for arguments in [&["cat", "/file"][..], &["check", "--data"], &["ls"]] {
                let output = scratch.run(arguments);
                let code = output.status.code();
                assert!(
                    code.is_some_and(|code| CODES.contains(&code)),
                    "{scheme}, {round}, {arguments:?}: {code:?}, {}",
                    text(&output.stderr)
                );
                if arguments[0] == "cat" && code == Some(0) {
                    assert!(output.stdout == fs::read(scratch.path("file")).unwrap(), "{scheme}, {round}: other bytes");
                }
            }
        }
        fs::write(scratch.path("repo"), &good).unwrap();
        check_is_clean(&scratch, scheme);
    }
}

#[test]
fn a_database_that_is_removed_while_it_is_open_is_gone_and_not_empty() {
    for scheme in DATABASES {
        let scratch = on(scheme);
        let context = OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing);
        strongroom_conformance::block_on(async {
            let registry = strongroom::registry::default();
            let uri = StorageUri::parse(&scratch.repository()).unwrap();
            let storage = registry.open(&uri, &context).await.unwrap();
            let [here, absent] = [1, 2].map(sample_name);
            storage.put(here, sample_bytes(1, 1000)).await.unwrap();
            fs::rename(scratch.path("repo"), scratch.path("moved")).unwrap();
            for refusal in [
                storage.size(absent).await.map(drop),
                storage.put(absent, sample_bytes(2, 10)).await.map(drop),
                storage.delete(here).await,
                storage.put_durable(absent, sample_bytes(2, 10)).await.map(drop),
                storage.persist(&[here]).await,
            ] {
                let error = refusal.unwrap_err();
                assert_eq!((error.kind(), error.effect()), (ErrorKind::Other, Effect::None), "{scheme}: {error}");
                assert!(error.to_string().contains("removed"), "{scheme}: {error}");
            }
            let other = registry.open(&uri, &context).await;
            if scheme == "sqlite" {
                // Its log is left, which another one in its place would take away.
                let error = other.err().unwrap();
                assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
                assert!(error.to_string().contains("a log is left here"), "{error}");
                drop(storage);
                fs::rename(scratch.path("moved"), scratch.path("repo")).unwrap();
                let storage = registry.open(&uri, &context).await.unwrap();
                assert!(storage.exists(here).await.unwrap());
            } else {
                // What is made in its place is another one.
                assert!(!other.unwrap().exists(here).await.unwrap(), "{scheme}");
            }
        });
    }
}

#[test]
fn a_database_of_another_program_is_told_and_left_alone() {
    let scratch = on("sqlite");
    // The empty header of a database with another application's number.
    let path = scratch.path("repo");
    init(&scratch);
    let mut bytes = fs::read(&path).unwrap();
    bytes[68..72].copy_from_slice(&7_u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    let said = scratch.fails(2, ["ls"]);
    assert!(said.contains("another program"), "{said}");
    bytes[68..72].copy_from_slice(&0x5374_7267_u32.to_be_bytes());
    bytes[60..64].copy_from_slice(&9_u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    let said = scratch.fails(2, ["ls"]);
    assert!(said.contains("its format is 9"), "{said}");
    assert!(fs::read(&path).unwrap() == bytes);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_and_a_read_only_one_are_told_and_nothing_is_lost() {
    use common::mounts;
    if !mounts::inside("a_full_disk_and_a_read_only_one_are_told_and_nothing_is_lost") {
        return;
    }
    for scheme in ["sqlite", "redb"] {
        let scratch = Scratch::new();
        let disk = scratch.path("disk");
        mounts::small_disk(&disk, 16 << 10);
        let run = |arguments: &[&str]| {
            let repository = format!("{scheme}:{}", disk.join("repo").display());
            scratch.command().env("STRONGROOM_REPO", repository).args(arguments).output().unwrap()
        };
        let succeeds = |arguments: &[&str]| {
            let output = run(arguments);
            assert!(output.status.success(), "{scheme} {arguments:?}: {}", text(&output.stderr));
            output.stdout
        };
        succeeds(&["init", "--no-recovery", "--kdf-time", "1", "--block-size", "64KiB"]);
        let kept = Numbers::new(1).bytes(1 << 20);
        fs::write(scratch.path("kept"), &kept).unwrap();
        fs::write(scratch.path("junk"), Numbers::new(3).bytes(100_000)).unwrap();
        succeeds(&["import", "kept", "junk"]);
        fs::write(scratch.path("large"), Numbers::new(2).bytes(24 << 20)).unwrap();
        let output = run(&["import", "large"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{scheme}: {said}");
        assert!(said.contains("full") && said.lines().count() == 1, "{scheme}: {said}");
        if scheme == "sqlite" {
            succeeds(&["rm", "/junk"]);
        }
        mounts::remount(&disk, "size=64m");
        assert!(succeeds(&["cat", "/kept"]) == kept, "{scheme}");
        succeeds(&["import", "large"]);
        succeeds(&["check", "--data"]);

        mounts::remount(&disk, "ro");
        assert!(succeeds(&["cat", "/kept"]) == kept, "{scheme}");
        let output = run(&["mkdir", "/new"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{scheme}: {said}");
        assert!(said.contains("read-only") && said.lines().count() == 1, "{scheme}: {said}");
    }
}

#[test]
fn an_import_of_the_folder_that_the_database_is_in_leaves_it_out_and_loses_nothing_to_others() {
    for scheme in DATABASES {
        let scratch = on(scheme);
        init(&scratch);
        fs::create_dir(scratch.path("more")).unwrap();
        fs::write(scratch.path("more/letter"), "Dear Anna").unwrap();
        let real = fs::canonicalize(scratch.path("repo")).unwrap();
        let said = |arguments: &[&str]| {
            let output = scratch.run(arguments);
            assert!(output.status.success(), "{scheme} {arguments:?}: {}", text(&output.stderr));
            text(&output.stderr)
        };
        let root = scratch.root.path().to_str().unwrap();
        let notices = said(&["import", root, "--to", "/all"]);
        assert!(notices.contains(&format!("{}: the repository itself is not stored", real.display())), "{notices}");
        let listed = text(&scratch.succeeds(["find", "/all"]));
        assert!(listed.contains("/letter"), "{listed}");
        assert!(!listed.lines().any(|path| path.contains("/repo")), "{scheme}: {listed}");
        // Named by itself, and by a link.
        let link = scratch.path("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let notices = said(&["import", real.to_str().unwrap()]);
        assert!(notices.contains("is not stored"), "{scheme}: {notices}");
        if scheme != "sled" {
            for name in [&real, &link] {
                let said = scratch.fails(1, ["put", name.to_str().unwrap(), "/itself"]);
                assert!(said.contains("belongs to the repository itself"), "{scheme}: {said}");
            }
        }
        check_is_clean(&scratch, scheme);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_import_leaves_out_all_that_is_kept_beside_an_sqlite_database() {
    let scratch = on("sqlite");
    init(&scratch);
    fs::write(scratch.path("letter"), "Dear Anna").unwrap();
    fs::write(scratch.path("held"), Numbers::new(1).bytes(4 << 20)).unwrap();
    scratch.succeeds(["import", "held"]);
    // So that the log is there when the folder is read.
    let holding = Holding::new(&scratch);
    let output = scratch.run(["import", scratch.root.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let listed = text(&scratch.succeeds(["find", "/"]));
    holding.let_go();
    for suffix in ["repo", "repo-wal", "repo-shm", "repo-here", "repo-gate"] {
        assert!(!listed.lines().any(|path| path.ends_with(suffix)), "{listed}");
        assert!(text(&output.stderr).contains(&format!("{suffix}: the repository itself")), "{}", text(&output.stderr));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_sqlite_database_on_a_full_disk_can_delete_and_then_put_again() {
    use common::mounts;
    if !mounts::inside("an_sqlite_database_on_a_full_disk_can_delete_and_then_put_again") {
        return;
    }
    let scratch = Scratch::new();
    let disk = scratch.path("disk");
    mounts::small_disk(&disk, 24 << 10);
    let context = OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing);
    let uri = StorageUri::parse(&format!("sqlite:{}", disk.join("blobs").display())).unwrap();
    let registry = strongroom::registry::default();
    strongroom_conformance::block_on(async {
        for round in 0..2 {
            let storage = registry.open(&uri, &context).await.unwrap();
            let mut count = 0;
            let error = loop {
                match storage.put(sample_name(count), sample_bytes(count, 60_000)).await {
                    Ok(_) => count += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Full, Effect::None), "{error}");
            assert!(count > 100, "{round}: it was full after {count} blobs");
            storage.sync().await.unwrap();
            for number in 0..count {
                storage.delete(sample_name(number)).await.unwrap_or_else(|error| panic!("{round}, {number}: {error}"));
            }
            storage.sync().await.unwrap();
            storage.put_durable(sample_name(0), sample_bytes(0, 60_000)).await.unwrap();
            storage.delete(sample_name(0)).await.unwrap();
        }
    });
}

#[cfg(not(feature = "s3"))]
#[test]
fn a_bucket_of_s3_is_refused_with_the_feature_that_has_it() {
    let scratch = Scratch::new();
    let output = scratch.run(["-r", "s3://bucket/x", "init", "--no-recovery"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("feature `s3`"), "{told}");
}
