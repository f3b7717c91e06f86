//! What a folder of files has beyond the clauses: leftovers, foreign files, locks, and processes that are killed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test that cannot set up its place fails

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use strongroom_conformance::block_on;
use strongroom_conformance::storage::{sample_bytes, sample_name};
use strongroom_core::env::{BoxTask, Env, Spawn};
use strongroom_core::storage::{
    BlockingMode, ErrorKind, Name, OpenContext, OpenMode, Operation, Put, Result, Storage, StorageExt as _,
};
use strongroom_file::FileStorage;
use tempfile::TempDir;

fn context(seed: u64) -> OpenContext {
    OpenContext::new(Env::deterministic(seed)).with_blocking(BlockingMode::Inline)
}

fn open(path: &Path, mode: OpenMode) -> Result<FileStorage> {
    block_on(FileStorage::open(path, &context(1).with_mode(mode)))
}

fn create(path: &Path) -> FileStorage {
    open(path, OpenMode::CreateIfMissing).unwrap()
}

fn incoming(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("incoming")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_missing_folder_is_created_only_where_that_was_asked_for() {
    let place = TempDir::new().unwrap();
    let nested = place.path().join("a/b/c");
    let error = open(&nested, OpenMode::Existing).unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::NotFound, Operation::Open));
    assert!(!place.path().join("a").exists());
    create(&nested);
    assert!(nested.join("incoming").is_dir());
    open(&nested, OpenMode::Existing).unwrap();
}

#[test]
fn a_folder_that_is_vacated_loses_what_is_empty_and_itself_where_it_holds_nothing_of_others() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("folder");
    let storage = create(&path);
    for n in 0..40 {
        block_on(storage.put_durable(sample_name(n), sample_bytes(n, 100))).unwrap();
    }
    let kept = sample_name(7);
    for n in (0..40).filter(|n| *n != 7) {
        block_on(storage.delete(sample_name(n))).unwrap();
    }
    fs::create_dir(path.join("letters")).unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    block_on(storage.vacate()).unwrap();
    // A blob that is still there, and a folder of somebody, though it is empty.
    let hex = kept.to_hex();
    assert_eq!(names(), [&hex[..2], "letters"]);
    block_on(storage.delete(kept)).unwrap();
    fs::remove_dir(path.join("letters")).unwrap();
    drop(storage);
    // The way there is through a link of somebody, which stays; and so does what is around it.
    #[cfg(unix)]
    {
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        block_on(create(&link).vacate()).unwrap();
        assert!(link.is_symlink());
        assert_eq!(names(), [""; 0]);
    }
    let storage = create(&path);
    block_on(storage.vacate()).unwrap();
    assert!(!path.exists() && place.path().exists());
    drop(storage);
    create(&path);
}

#[test]
fn a_path_that_is_no_folder_is_invalid() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("file");
    File::create(&file).unwrap();
    for path in [file.clone(), file.join("below")] {
        for mode in [OpenMode::Existing, OpenMode::CreateIfMissing] {
            assert_eq!(open(&path, mode).unwrap_err().kind(), ErrorKind::Invalid, "{path:?} {mode:?}");
        }
    }
}

#[test]
fn reading_writes_nothing() {
    let place = TempDir::new().unwrap();
    let storage = open(place.path(), OpenMode::Existing).unwrap();
    block_on(async {
        assert!(storage.list_all(&[]).await.unwrap().is_empty());
        assert!(storage.get_all(sample_name(1), 10).await.is_err());
        storage.sync().await.unwrap();
    });
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    // The first put brings what it needs.
    block_on(storage.put(sample_name(1), sample_bytes(1, 10))).unwrap();
    assert!(incoming(place.path()).is_empty());
}

#[test]
fn files_that_are_not_ours_are_neither_listed_nor_touched() {
    let place = TempDir::new().unwrap();
    let storage = create(place.path());
    let name = Name::new([0xab; 16]);
    block_on(storage.put(name, sample_bytes(1, 10))).unwrap();
    let foreign = [
        "README".to_owned(),
        format!("ab/{}", "cd".repeat(16)),
        format!("ab/{}", "AB".repeat(16)),
        format!("ab/{}.tmp", "ab".repeat(16)),
        "ab/.sync-conflict".to_owned(),
        "incoming/notes.part".to_owned(),
    ];
    for path in &foreign {
        fs::write(place.path().join(path), b"x").unwrap();
    }
    fs::create_dir(place.path().join("zz")).unwrap();
    fs::write(place.path().join("cd"), b"a file where a shard would be").unwrap();
    assert_eq!(block_on(storage.list_all(&[])).unwrap().into_iter().collect::<Vec<_>>(), [name]);
    assert!(block_on(storage.try_exclusive()).unwrap().is_some());
    assert!(foreign.iter().all(|path| place.path().join(path).exists()));
}

#[test]
fn leftovers_go_when_they_are_old_or_nobody_else_is_there() {
    let place = TempDir::new().unwrap();
    drop(create(place.path()));
    let (old, fresh) = ("00000000deadbeef-1.part", "00000000deadbeef-2.part");
    let now = Env::deterministic(1).now();
    for (file, age_hours) in [(old, 25), (fresh, 23)] {
        let written = UNIX_EPOCH + Duration::from_millis(now) - Duration::from_hours(age_hours);
        let file = File::create(place.path().join("incoming").join(file)).unwrap();
        file.set_modified(written).unwrap();
    }
    let storage = create(place.path());
    assert_eq!(incoming(place.path()), [fresh]);
    let other = create(place.path());
    assert!(block_on(storage.try_exclusive()).unwrap().is_none());
    assert_eq!(incoming(place.path()), [fresh]);
    drop(other);
    assert!(block_on(storage.try_exclusive()).unwrap().is_some());
    assert!(incoming(place.path()).is_empty());
}

#[test]
fn what_stands_in_the_place_of_a_blob_is_told_and_does_not_hang() {
    let place = TempDir::new().unwrap();
    let storage = create(place.path());
    let name = Name::new([0xab; 16]);
    let path = place.path().join("ab").join("ab".repeat(16));
    fs::create_dir_all(&path).unwrap();
    let kind = |outcome: Result<()>| outcome.unwrap_err().kind();
    block_on(async {
        assert_eq!(kind(storage.get_all(name, 10).await.map(drop)), ErrorKind::Corrupt);
        assert_eq!(kind(storage.get(name, Some(0..1), 10).await.map(drop)), ErrorKind::Corrupt);
        assert_eq!(kind(storage.size(name).await.map(drop)), ErrorKind::Corrupt);
        assert_eq!(storage.put(name, sample_bytes(1, 1)).await.unwrap(), Put::Exists);
    });
    #[cfg(unix)]
    {
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        block_on(storage.get_all(name, 1000)).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(kind(block_on(storage.get_all(name, 10)).map(drop)), ErrorKind::Corrupt);
        assert_eq!(kind(block_on(storage.get(name, Some(0..1), 10)).map(drop)), ErrorKind::Corrupt);
    }
    assert!(incoming(place.path()).is_empty());
}

#[test]
fn a_put_that_lost_leaves_nothing_behind() {
    let place = TempDir::new().unwrap();
    let storage = create(place.path());
    let too_long = vec![0; storage.capabilities().block_bytes_max as usize + 1];
    block_on(async {
        storage.put(sample_name(1), sample_bytes(1, 10)).await.unwrap();
        storage.put(sample_name(1), sample_bytes(2, 10)).await.unwrap();
        storage.put_durable(sample_name(1), sample_bytes(2, 10)).await.unwrap();
        storage.put(sample_name(2), too_long.into()).await.unwrap_err();
    });
    assert!(incoming(place.path()).is_empty());
}

#[cfg(unix)]
#[cfg(unix)]
#[test]
fn a_folder_that_is_gone_is_not_taken_for_one_without_blobs() {
    let root = TempDir::new().unwrap();
    let storage = create(&root.path().join("folder"));
    let (name, bytes) = (Name::new([1; 16]), bytes::Bytes::from_static(b"bytes"));
    block_on(storage.put(name, bytes.clone())).unwrap();
    fs::remove_dir_all(root.path().join("folder")).unwrap();
    let errors = [
        block_on(storage.get(name, None, 10)).unwrap_err(),
        block_on(storage.size(name)).unwrap_err(),
        block_on(storage.list(&[], None)).unwrap_err(),
        block_on(storage.put(name, bytes.clone())).unwrap_err(),
        block_on(storage.put_durable(name, bytes)).unwrap_err(),
        block_on(storage.delete(name)).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Other, "{error}");
        assert!(error.to_string().contains("gone"), "{error}");
    }
}

#[test]
fn an_open_folder_may_be_renamed() {
    let place = TempDir::new().unwrap();
    let (before, after) = (place.path().join("before"), place.path().join("after"));
    let storage = create(&before);
    block_on(storage.put(sample_name(1), sample_bytes(1, 10))).unwrap();
    fs::rename(&before, &after).unwrap();
    block_on(async {
        storage.put_durable(sample_name(2), sample_bytes(1, 10)).await.unwrap();
        storage.sync().await.unwrap();
        assert_eq!(storage.list_all(&[]).await.unwrap().len(), 2);
    });
    assert!(!before.exists());
}

#[test]
fn a_newcomer_enters_after_the_exclusive_guard_is_dropped() {
    let place = TempDir::new().unwrap();
    let storage = create(place.path());
    let guard = block_on(storage.try_exclusive()).unwrap().unwrap();
    thread::scope(|scope| {
        let newcomers: Vec<_> = [BlockingMode::Inline, BlockingMode::Offload]
            .map(|blocking| {
                let context = context(2).with_blocking(blocking);
                let path = place.path();
                scope.spawn(move || {
                    let storage = block_on(FileStorage::open(path, &context)).unwrap();
                    block_on(storage.exists(sample_name(1))).unwrap()
                })
            })
            .into();
        block_on(storage.put(sample_name(1), sample_bytes(1, 10))).unwrap();
        drop(guard);
        assert!(newcomers.into_iter().all(|newcomer| newcomer.join().unwrap()));
    });
}

struct Threads;

impl Spawn for Threads {
    fn spawn(&self, task: BoxTask) {
        thread::spawn(|| block_on(task));
    }

    fn parallelism(&self) -> usize {
        2
    }
}

struct Fixed(Env);

impl strongroom_core::env::Clock for Fixed {
    fn now(&self) -> u64 {
        self.0.now()
    }

    fn monotonic_nanos(&self) -> u64 {
        self.0.monotonic_nanos()
    }
}

impl strongroom_core::env::Random for Fixed {
    fn fill(&self, bytes: &mut [u8]) -> std::result::Result<(), strongroom_core::env::RandomUnavailable> {
        self.0.fill_random(bytes)
    }
}

#[test]
fn a_long_run_of_puts_is_written_back_early_and_the_folder_is_free_after_the_handle() {
    let place = TempDir::new().unwrap();
    let fixed = Arc::new(Fixed(Env::deterministic(3)));
    let env = Env::new(fixed.clone(), fixed, Some(Arc::new(Threads)));
    let other = create(place.path());
    let context = OpenContext::new(env).with_blocking(BlockingMode::Inline);
    for round in 0..3 {
        let storage = block_on(FileStorage::open(place.path(), &context)).unwrap();
        block_on(async {
            for number in 0..700 {
                storage.put(sample_name(1000 * round + number), sample_bytes(number, 100)).await.unwrap();
                if number % 7 == 0 {
                    storage.delete(sample_name(1000 * round + number)).await.unwrap();
                }
            }
            if round > 0 {
                storage.sync().await.unwrap();
            }
        });
        drop(storage);
        assert!(block_on(other.try_exclusive()).unwrap().is_some());
        assert_eq!(block_on(other.list_all(&[])).unwrap().len() as u64, 600 * (round + 1));
    }
}

/// In the child: puts for ever, and says what was acknowledged. In the parent this does nothing.
#[test]
fn child_that_puts_until_it_is_killed() {
    let Some(root) = std::env::var_os("STRONGROOM_TEST_CHILD") else { return };
    let round: u64 = std::env::var("STRONGROOM_TEST_ROUND").unwrap().parse().unwrap();
    // Another seed than the parent's: by what is drawn from it a handle knows its own unfinished files.
    let storage = block_on(FileStorage::open(Path::new(&root), &context(1000 + round))).unwrap();
    block_on(async {
        for number in 1_000_000 * round.. {
            let (name, bytes) = (sample_name(number), sample_bytes(number, 20_000));
            let outcome = if number % 5 == 0 { storage.put_durable(name, bytes) } else { storage.put(name, bytes) };
            assert_eq!(outcome.await.unwrap(), Put::Created);
            println!("acknowledged {number}");
        }
    });
}

#[test]
fn a_process_that_is_killed_leaves_blobs_absent_or_whole_and_no_lock() {
    let place = TempDir::new().unwrap();
    drop(create(place.path()));
    let mut acknowledged = Vec::new();
    for round in 1..=10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_puts_until_it_is_killed", "--nocapture", "--test-threads=1"])
            .env("STRONGROOM_TEST_CHILD", place.path())
            .env("STRONGROOM_TEST_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let number = |line: std::io::Result<String>| -> Option<u64> {
            line.ok()?.split_once("acknowledged ")?.1.trim().parse().ok()
        };
        let wanted = acknowledged.len() + 5 * round;
        while acknowledged.len() < wanted {
            acknowledged.extend(number(lines.next().unwrap()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(lines.filter_map(number));

        let storage = create(place.path());
        assert!(block_on(storage.try_exclusive()).unwrap().is_some(), "a lock outlived its process");
        assert!(incoming(place.path()).is_empty());
    }
    let storage = create(place.path());
    let present = block_on(storage.list_all(&[])).unwrap();
    let mut known = 0;
    for round in 1..=10u64 {
        for number in (1_000_000 * round..).take_while(|number| present.contains(&sample_name(*number))) {
            let bytes = block_on(storage.get_all(sample_name(number), 1 << 20)).unwrap();
            assert_eq!(bytes, sample_bytes(number, 20_000));
            known += 1;
        }
    }
    assert_eq!(known, present.len());
    assert!(acknowledged.iter().all(|number| present.contains(&sample_name(*number))));
}

#[test]
fn deleted_blobs_are_kept_where_that_is_wanted_and_are_no_blobs_any_more() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("folder");
    let storage = create(&path);
    let (unwanted, wanted) = (sample_name(1), sample_name(2));
    for (name, n) in [(unwanted, 1), (wanted, 2)] {
        block_on(storage.put_durable(name, sample_bytes(n, 100))).unwrap();
    }
    block_on(storage.delete(unwanted)).unwrap();
    fs::create_dir(path.join("deleted")).unwrap();
    block_on(storage.delete(wanted)).unwrap();
    let kept = || fs::read_dir(path.join("deleted")).map_or(0, Iterator::count);
    assert_eq!(kept(), 1);
    assert!(block_on(storage.list_all(&[])).unwrap().is_empty());
    assert_eq!(block_on(storage.get(wanted, None, 100)).unwrap_err().kind(), ErrorKind::NotFound);
    block_on(storage.delete(wanted)).unwrap();
    assert_eq!(block_on(storage.put(wanted, sample_bytes(3, 100))).unwrap(), Put::Created);
    block_on(storage.delete(wanted)).unwrap();
    assert_eq!(kept(), 2);
    // For whoever deletes something a month later, they are of the past.
    let (env, clock) = Env::manual(5);
    clock.advance(Duration::from_millis(1_700_000_000_000) + Duration::from_secs(31 * 24 * 60 * 60));
    let later = OpenContext::new(env).with_blocking(BlockingMode::Inline);
    let opened = block_on(FileStorage::open(&path, &later)).unwrap();
    assert_eq!(kept(), 2, "whoever only looks takes nothing from it");
    block_on(opened.put(unwanted, sample_bytes(4, 100))).unwrap();
    block_on(opened.delete(unwanted)).unwrap();
    assert_eq!(kept(), 1, "what was deleted just now");
    drop(opened);
    block_on(storage.put(wanted, sample_bytes(2, 100))).unwrap();
    block_on(storage.delete(wanted)).unwrap();
    block_on(storage.vacate()).unwrap();
    assert!(!path.exists(), "who destroys a repository keeps nothing of it");
}

#[test]
fn a_deleted_blob_that_cannot_be_kept_goes_all_the_same() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("folder");
    let (env, clock) = Env::manual(5);
    clock.advance(Duration::from_millis(77));
    let context =
        OpenContext::new(env.clone()).with_blocking(BlockingMode::Inline).with_mode(OpenMode::CreateIfMissing);
    let storage = block_on(FileStorage::open(&path, &context)).unwrap();
    let name = sample_name(1);
    block_on(storage.put_durable(name, sample_bytes(1, 100))).unwrap();
    // Where it would go, something is in the way.
    let kept = path.join("deleted").join(format!("{:016}-{}", env.now(), name.to_hex()));
    fs::create_dir_all(kept.join("of others")).unwrap();
    block_on(storage.delete(name)).unwrap();
    assert_eq!(block_on(storage.size(name)).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(kept.join("of others").exists());
}
