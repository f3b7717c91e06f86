//! Which calls reach the kernel: the reading of SQLite's documentation that the README gives, tried.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)] // a test may

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use strongroom_conformance::block_on;
use strongroom_conformance::storage::{sample_bytes, sample_name};
use strongroom_core::storage::{BlockingMode, OpenContext, OpenMode, Storage};
use strongroom_sqlite::SqliteStorage;

/// What a traced process does, and on which database.
const DOES: &str = "STRONGROOM_TEST_DOES";
const DATABASE: &str = "STRONGROOM_TEST_DATABASE";
const TEST: &str = "barriers_sync_the_log_and_plain_puts_do_not";

const PUTS: u64 = 20;

fn does(what: &str, path: &Path) {
    let env = strongroom::env::system().unwrap();
    let context = OpenContext::new(env).with_mode(OpenMode::CreateIfMissing).with_blocking(BlockingMode::Inline);
    block_on(async {
        let storage: Arc<dyn Storage> = Arc::new(SqliteStorage::open(path, &context).await.unwrap());
        for number in 0..PUTS {
            let (name, bytes) = (sample_name(number), sample_bytes(number, 9000));
            match what {
                "plain" => drop(storage.put(name, bytes).await.unwrap()),
                "durable" => drop(storage.put_durable(name, bytes).await.unwrap()),
                "sync" => {
                    storage.put(name, bytes).await.unwrap();
                    storage.sync().await.unwrap();
                }
                _ => {
                    storage.put(name, bytes).await.unwrap();
                    storage.persist(&[name]).await.unwrap();
                }
            }
        }
        // Closing syncs, too.
        std::process::exit(0);
    });
}

/// How often the log is synced.
fn syncs_of_the_log(what: &str) -> usize {
    let root = tempfile::tempdir().unwrap();
    let (path, calls) = (root.path().join("database"), root.path().join("calls"));
    // The log of a database that is new is synced when it is begun, too.
    let output = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=fsync,fdatasync", "-o"])
        .arg(&calls)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--ignored"])
        .env(DOES, what)
        .env(DATABASE, &path)
        .output()
        .unwrap_or_else(|error| panic!("this test needs strace: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = std::fs::read_to_string(calls).unwrap();
    calls.lines().filter(|call| call.contains("database-wal>")).count()
}

#[test]
#[ignore = "needs strace, and the right to trace"]
fn barriers_sync_the_log_and_plain_puts_do_not() {
    if let (Ok(what), Some(path)) = (std::env::var(DOES), std::env::var_os(DATABASE)) {
        return does(&what, Path::new(&path));
    }
    let plain = syncs_of_the_log("plain");
    for what in ["durable", "sync", "persist"] {
        let more = syncs_of_the_log(what) - plain;
        assert!(more >= PUTS as usize, "{what}: the log is synced {more} times more than for plain puts");
    }
    assert!(plain < 5, "the log is synced {plain} times for {PUTS} plain puts");
}
