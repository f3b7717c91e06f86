//! Which files are synced when: the reading of SQLite's documentation that the README gives, tried. The calls of a process are
//! seen by a small library that is loaded before the C library, and built here by the C compiler that SQLite takes anyway.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, clippy::panic)] // a test may

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use strongroom_conformance::block_on;
use strongroom_conformance::storage::{sample_bytes, sample_name};
use strongroom_core::storage::{BlockingMode, Effect, ErrorKind, OpenContext, OpenMode, Put, Storage};
use strongroom_sqlite::SqliteStorage;

/// What a watched process does, and on which database.
const DOES: &str = "STRONGROOM_TEST_DOES";
const DATABASE: &str = "STRONGROOM_TEST_DATABASE";

const PUTS: u64 = 20;

/// Files that tell when a sync had failed, and when all was closed after it.
const FAILED: &str = "failed";
const CLOSED: &str = "closed";

async fn open(path: &Path) -> Arc<dyn Storage> {
    let env = strongroom::env::system().unwrap();
    let context = OpenContext::new(env).with_mode(OpenMode::CreateIfMissing).with_blocking(BlockingMode::Inline);
    Arc::new(SqliteStorage::open(path, &context).await.unwrap())
}

async fn does(what: &str, path: &Path) {
    let storage = open(path).await;
    if what == "quota" {
        return has_a_quota(storage, path).await;
    }
    for number in 0..PUTS {
        let (name, bytes) = (sample_name(number), sample_bytes(number, 9000));
        match what {
            "plain" => drop(storage.put(name, bytes).await.unwrap()),
            "durable" => drop(storage.put_durable(name, bytes).await.unwrap()),
            "sync" => {
                storage.put(name, bytes).await.unwrap();
                storage.sync().await.unwrap();
            }
            "persist" => {
                storage.put(name, bytes).await.unwrap();
                storage.persist(&[name]).await.unwrap();
            }
            "once while another is at it" => {
                let busy = path.with_file_name("database-shm.busy");
                std::fs::write(&busy, "...").unwrap();
                storage.put_durable(sample_name(PUTS), bytes).await.unwrap();
                assert_eq!(std::fs::metadata(&busy).unwrap().len(), 0, "the lock of a checkpoint is another one");
                return;
            }
            "once" => {
                storage.put_durable(sample_name(PUTS), bytes).await.unwrap();
                return;
            }
            _ => return fails(storage, path).await,
        }
    }
}

/// Syncs of the log fail for a while.
async fn fails(storage: Arc<dyn Storage>, path: &Path) {
    let [one, other] = [0, 1].map(|number| (sample_name(number), sample_bytes(number, 9000)));
    storage.put(one.0, one.1.clone()).await.unwrap();
    let second = open(path).await;
    let switch = path.with_file_name("database-wal.fails");
    std::fs::write(&switch, "").unwrap();
    let error = storage.sync().await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Other, Effect::Unknown), "{error}");
    std::fs::remove_file(&switch).unwrap();
    for handle in [&storage, &second] {
        assert!(handle.sync().await.is_err() && handle.put_durable(other.0, other.1.clone()).await.is_err());
        assert!(handle.persist(&[one.0]).await.is_err());
    }
    // What was written into the database, and not synced, may be whole in the log alone: nothing may begin that anew.
    std::fs::write(path.with_file_name(FAILED), ".").unwrap();
    for number in 2..700 {
        let error = storage.put(sample_name(number), sample_bytes(number, 9000)).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Other, Effect::Unknown), "{error}");
    }
    assert!(storage.delete(one.0).await.is_err());
    drop((storage, second));
    std::fs::write(path.with_file_name(CLOSED), ".").unwrap();
    let storage = open(path).await;
    assert_eq!(storage.put_durable(one.0, one.1).await.unwrap(), Put::Exists);
    storage.sync().await.unwrap();
}

/// The log may not become longer than 1 MiB.
async fn has_a_quota(storage: Arc<dyn Storage>, path: &Path) {
    std::fs::write(path.with_file_name("database-wal.quota"), "").unwrap();
    for number in 0..5 * PUTS {
        storage.put(sample_name(number), sample_bytes(number, 9000)).await.unwrap();
        assert!(std::fs::metadata(path.with_file_name("database-wal")).unwrap().len() <= 1 << 20);
    }
    storage.sync().await.unwrap();
    for number in 0..5 * PUTS {
        assert_eq!(storage.size(sample_name(number)).await.unwrap(), 9000);
    }
}

/// A folder with the library and a database in it.
struct Watched(tempfile::TempDir);

impl Watched {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/syncs/calls.c");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let built = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-o"])
            .args([root.path().join("calls.so"), source])
            .arg("-ldl")
            .output()
            .unwrap_or_else(|error| panic!("no C compiler {}: {error}", compiler.display()));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Self(root)
    }

    fn database(&self) -> PathBuf {
        self.0.path().join("database")
    }

    /// The names of the files that another process synced, as it did this, and with `.written` those that it wrote to. It ends
    /// without closing, which syncs, too.
    fn synced(&self, test: &str, what: &str) -> Vec<String> {
        let calls = self.0.path().join(what);
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env("LD_PRELOAD", self.0.path().join("calls.so"))
            .env("STRONGROOM_TEST_CALLS", &calls)
            .env("STRONGROOM_TEST_FAILS", self.0.path().join("database-wal"))
            .env(DOES, what)
            .env(DATABASE, self.database())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        assert!(output.status.success(), "{said:?}");
        let calls = std::fs::read_to_string(calls).unwrap();
        calls.lines().filter_map(|path| Some(Path::new(path).file_name()?.to_str()?.to_owned())).collect()
    }
}

/// What a watched process does; it ends here.
fn do_as_told() {
    if let (Ok(what), Some(path)) = (std::env::var(DOES), std::env::var_os(DATABASE)) {
        let path = PathBuf::from(path);
        block_on(async {
            // Closing the last handle syncs all there is.
            let kept = if what == "fails" { None } else { Some(open(&path).await) };
            does(&what, &path).await;
            std::mem::forget(kept);
        });
        std::process::exit(0);
    }
}

fn count(calls: &[String], name: &str) -> usize {
    calls.iter().filter(|call| *call == name).count()
}

#[test]
fn barriers_sync_the_log_and_plain_puts_do_not() {
    do_as_told();
    let log = |what| count(&Watched::new().synced("barriers_sync_the_log_and_plain_puts_do_not", what), "database-wal");
    // The log of a database that is new is synced when it is begun, too.
    let plain = log("plain");
    for what in ["durable", "sync", "persist"] {
        let more = log(what) - plain;
        assert!(more >= PUTS as usize, "{what}: the log is synced {more} times more than for plain puts");
    }
    assert!(plain < 5, "the log is synced {plain} times for {PUTS} plain puts");
}

#[test]
fn what_a_process_that_died_left_in_the_log_is_written_elsewhere_before_the_first_barrier() {
    do_as_told();
    let test = "what_a_process_that_died_left_in_the_log_is_written_elsewhere_before_the_first_barrier";
    let watched = Watched::new();
    let left = watched.synced(test, "plain");
    // Of a database that is new: by what made it.
    assert!(count(&left, "database") < 3, "{left:?}");
    let synced = watched.synced(test, "once");
    assert!(count(&synced, "database") >= 1, "{synced:?}");
}

#[test]
fn the_first_barrier_waits_for_another_process_that_makes_a_checkpoint() {
    do_as_told();
    let test = "the_first_barrier_waits_for_another_process_that_makes_a_checkpoint";
    let watched = Watched::new();
    watched.synced(test, "plain");
    let synced = watched.synced(test, "once while another is at it");
    assert!(count(&synced, "database") >= 1, "{synced:?}");
}

#[test]
fn after_a_failed_sync_no_barrier_of_the_process_succeeds_until_it_has_closed_the_database() {
    do_as_told();
    let test = "after_a_failed_sync_no_barrier_of_the_process_succeeds_until_it_has_closed_the_database";
    let synced = Watched::new().synced(test, "fails");
    assert!(count(&synced, "database-wal") >= 2, "{synced:?}");
    let [failed, closed] = [FAILED, CLOSED].map(|file| {
        let file = format!("{file}.written");
        synced.iter().position(|call| *call == file).unwrap()
    });
    let meanwhile = synced.get(failed + 1..closed).unwrap();
    assert!(meanwhile.is_empty(), "after a failed sync: {meanwhile:?}");
    let later = synced.get(closed..).unwrap();
    assert!(count(later, "database.written") >= 1, "the next one settles nothing: {later:?}");
}

#[test]
fn where_a_quota_lets_the_log_grow_no_more_it_is_written_into_the_database() {
    do_as_told();
    let test = "where_a_quota_lets_the_log_grow_no_more_it_is_written_into_the_database";
    let calls = Watched::new().synced(test, "quota");
    assert!(count(&calls, "database") > 3, "the log never was at its end");
}
