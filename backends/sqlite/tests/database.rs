//! What is a matter of SQLite's: its log, its locks, its schema, and databases that are not ours.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test may

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rusqlite::Connection;
use strongroom_conformance::block_on;
use strongroom_conformance::storage::{sample_bytes, sample_name};
use strongroom_core::storage::{
    BlockingMode, Effect, Error, ErrorKind, OpenContext, OpenMode, Put, Result, Storage, StorageExt as _,
};
use strongroom_sqlite::SqliteStorage;
use tempfile::TempDir;

/// What another process does, and in which database.
const DOES: &str = "STRONGROOM_TEST_DOES";
const DATABASE: &str = "STRONGROOM_TEST_DATABASE";

async fn try_open(path: &Path, mode: OpenMode) -> Result<Arc<dyn Storage>> {
    let env = strongroom::env::system().unwrap();
    let context = OpenContext::new(env).with_mode(mode).with_blocking(BlockingMode::Inline);
    Ok(Arc::new(SqliteStorage::open(path, &context).await?))
}

async fn open(path: &Path) -> Arc<dyn Storage> {
    try_open(path, OpenMode::CreateIfMissing).await.unwrap()
}

async fn refused(path: &Path) -> Error {
    try_open(path, OpenMode::CreateIfMissing).await.err().unwrap()
}

fn place() -> (TempDir, PathBuf) {
    let root = TempDir::new().unwrap();
    let path = root.path().join("database");
    (root, path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

/// Reads the files of a database, as a program would that copies a folder: with that all `fcntl` locks of this process on them end.
fn lose_locks(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        drop(fs::read(beside(path, suffix)).unwrap());
    }
}

/// What is in the folder, to the byte.
fn all(root: &TempDir) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    all.sort();
    all
}

/// Runs a test of this file as another process, which only does this.
fn in_another_process(test: &str, what: &str, path: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test]).env(DOES, what).env(DATABASE, path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// In another process: does as it is told, and ends.
fn do_as_told() {
    let (Ok(what), Some(path)) = (std::env::var(DOES), std::env::var_os(DATABASE)) else { return };
    let path = PathBuf::from(path);
    block_on(async {
        match what.as_str() {
            "come and go" => {
                let other = open(&path).await;
                other.put_durable(sample_name(100), sample_bytes(100, 10)).await.unwrap();
                drop(other);
            }
            "look and find" => {
                let storage = open(&path).await;
                for number in [1, 2, 100] {
                    assert!(storage.exists(sample_name(number)).await.unwrap(), "{number}");
                }
            }
            "close when told" => {
                let storage = open(&path).await;
                let number = u64::from(std::process::id());
                storage.put_durable(sample_name(number), sample_bytes(number, 1000)).await.unwrap();
                std::io::stderr().write_all(b".").unwrap();
                std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
                drop(storage);
            }
            _ => {
                let connection = Connection::open(&path).unwrap();
                connection.query_row("SELECT count(*) FROM blobs", [], |row| row.get::<_, i64>(0)).unwrap();
            }
        }
    });
    std::process::exit(0);
}

#[test]
fn a_process_that_lost_its_locks_loses_nothing_to_others_of_ours() {
    do_as_told();
    let test = "a_process_that_lost_its_locks_loses_nothing_to_others_of_ours";
    let (_root, path) = place();
    block_on(async {
        let storage = open(&path).await;
        storage.put_durable(sample_name(1), sample_bytes(1, 1000)).await.unwrap();
        lose_locks(&path);
        in_another_process(test, "come and go", &path);
        storage.put_durable(sample_name(2), sample_bytes(2, 1000)).await.unwrap();
        in_another_process(test, "look and find", &path);
    });
}

#[test]
fn when_the_log_was_taken_away_no_barrier_succeeds_until_all_handles_are_closed() {
    do_as_told();
    let test = "when_the_log_was_taken_away_no_barrier_succeeds_until_all_handles_are_closed";
    let (_root, path) = place();
    block_on(async {
        let [storage, second] = [open(&path).await, open(&path).await];
        storage.put_durable(sample_name(1), sample_bytes(1, 1000)).await.unwrap();
        storage.put(sample_name(2), sample_bytes(2, 1000)).await.unwrap();
        lose_locks(&path);
        in_another_process(test, "as any program", &path);
        assert!(!beside(&path, "-wal").exists(), "SQLite keeps the log: the test shows nothing");
        for outcome in [
            storage.put_durable(sample_name(3), sample_bytes(3, 10)).await.map(drop),
            storage.sync().await,
            second.sync().await,
            second.put(sample_name(4), sample_bytes(4, 10)).await.map(drop),
            second.persist(&[sample_name(1)]).await,
        ] {
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Other, Effect::Unknown), "{error}");
        }
        let error = storage.sync().await.unwrap_err().to_string();
        assert!(error.contains("close all handles"), "{error}");
        // Meanwhile another process has written, which closing these must not undo.
        in_another_process(test, "come and go", &path);
        drop((storage, second));
        let storage = open(&path).await;
        storage.put_durable(sample_name(2), sample_bytes(2, 1000)).await.unwrap();
        drop(storage);
        in_another_process(test, "look and find", &path);
    });
}

#[cfg(unix)]
#[test]
fn when_the_index_of_the_log_was_taken_away_no_barrier_succeeds() {
    let (_root, path) = place();
    block_on(async {
        let storage = open(&path).await;
        storage.put_durable(sample_name(1), sample_bytes(1, 1000)).await.unwrap();
        fs::remove_file(beside(&path, "-shm")).unwrap();
        for outcome in [storage.put_durable(sample_name(2), sample_bytes(2, 10)).await.map(drop), storage.sync().await]
        {
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Other, Effect::Unknown), "{error}");
        }
        drop(storage);
        assert!(open(&path).await.exists(sample_name(1)).await.unwrap());
    });
}

#[cfg(unix)]
#[test]
fn a_database_that_was_replaced_is_neither_read_nor_is_its_log_touched() {
    let (_root, path) = place();
    let (_elsewhere, other) = place();
    block_on(async {
        let storage = open(&path).await;
        storage.put(sample_name(1), sample_bytes(1, 1000)).await.unwrap();
        // Another one comes in its place with a log that is not written into it yet.
        let second = open(&other).await;
        second.put_durable(sample_name(2), sample_bytes(2, 1000)).await.unwrap();
        for suffix in ["", "-wal"] {
            let copy = beside(&other, &format!("-copy{suffix}"));
            fs::copy(beside(&other, suffix), &copy).unwrap();
            fs::rename(&copy, beside(&path, suffix)).unwrap();
        }
        drop(second);
        fs::remove_file(beside(&path, "-shm")).unwrap();
        let error = storage.exists(sample_name(2)).await.unwrap_err();
        assert!(error.to_string().contains("replaced"), "{error}");
        let before = [fs::read(&path).unwrap(), fs::read(beside(&path, "-wal")).unwrap()];
        drop(storage);
        assert!(before == [fs::read(&path).unwrap(), fs::read(beside(&path, "-wal")).unwrap()]);
        let storage = open(&path).await;
        assert!(storage.exists(sample_name(2)).await.unwrap() && !storage.exists(sample_name(1)).await.unwrap());
    });
}

#[test]
fn the_log_of_deletions_does_not_grow_without_end() {
    let (_root, path) = place();
    block_on(async {
        let storage = open(&path).await;
        let count = 600;
        for number in 0..count {
            storage.put(sample_name(number), sample_bytes(number, 20_000)).await.unwrap();
        }
        for number in 0..count {
            storage.delete(sample_name(number)).await.unwrap();
        }
        let bytes = fs::metadata(beside(&path, "-wal")).unwrap().len();
        assert!(bytes < 12 << 20, "{bytes}");
    });
}

#[test]
fn nothing_is_given_back_by_who_deleted_nothing() {
    let (_root, path) = place();
    block_on(async {
        let storage = open(&path).await;
        for number in 0..50 {
            storage.put(sample_name(number), sample_bytes(number, 100_000)).await.unwrap();
        }
        drop(storage);
        let connection = Connection::open(&path).unwrap();
        connection.execute("DELETE FROM blobs WHERE number > 1", []).unwrap();
        drop(connection);
        let before = fs::metadata(&path).unwrap().len();
        drop(open(&path).await);
        assert_eq!(fs::metadata(&path).unwrap().len(), before);
    });
}

#[cfg(unix)]
#[test]
fn a_database_of_two_names_is_refused_and_one_that_a_link_leads_to_is_not() {
    let (root, path) = place();
    block_on(async {
        drop(open(&path).await);
        let (second, link) = (root.path().join("second"), root.path().join("link"));
        fs::hard_link(&path, &second).unwrap();
        let before = all(&root);
        for name in [&path, &second] {
            let error = refused(name).await;
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("2 names"), "{error}");
        }
        assert!(all(&root) == before);
        fs::remove_file(&second).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let [storage, same] = [open(&path).await, open(&link).await];
        storage.put(sample_name(1), sample_bytes(1, 10)).await.unwrap();
        assert!(same.exists(sample_name(1)).await.unwrap());
    });
}

#[test]
fn who_writes_and_could_not_be_seen_is_refused() {
    for suffix in ["-here", "-gate"] {
        let (_root, path) = place();
        block_on(async {
            drop(open(&path).await);
            fs::remove_file(beside(&path, suffix)).unwrap();
            fs::create_dir(beside(&path, suffix)).unwrap();
            let error = refused(&path).await;
            assert!(error.to_string().contains(suffix), "{error}");
            fs::remove_dir(beside(&path, suffix)).unwrap();
            drop(open(&path).await);
        });
    }
}

#[test]
fn a_database_of_another_program_is_not_even_recovered() {
    let (root, path) = place();
    let (_elsewhere, other) = place();
    // What a program that died left: a commit that is in the log alone.
    let connection = Connection::open(&other).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = wal; CREATE TABLE letters (text); INSERT INTO letters VALUES ('Dear Anna');",
        )
        .unwrap();
    for suffix in ["", "-wal"] {
        fs::copy(beside(&other, suffix), beside(&path, suffix)).unwrap();
    }
    let before = all(&root);
    block_on(async {
        for _ in 0..2 {
            let error = refused(&path).await;
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("another program"), "{error}");
        }
    });
    assert!(all(&root) == before, "something was changed, or left");
}

#[test]
fn a_log_that_is_left_alone_is_not_taken_away_by_a_new_database() {
    for is_empty in [false, true] {
        let (root, path) = place();
        block_on(async {
            let storage = open(&path).await;
            storage.put_durable(sample_name(1), sample_bytes(1, 1000)).await.unwrap();
            // As in a process that dies, whose database is moved away then without its log.
            let (_elsewhere, other) = place();
            for suffix in ["", "-wal"] {
                fs::copy(beside(&path, suffix), beside(&other, suffix)).unwrap();
            }
            drop(storage);
            assert!(!beside(&path, "-wal").exists());
            let moved = root.path().join("moved");
            fs::rename(&path, &moved).unwrap();
            fs::rename(beside(&other, "-wal"), beside(&path, "-wal")).unwrap();
            if is_empty {
                fs::write(&path, "").unwrap();
            }
            let before = all(&root);
            let error = refused(&path).await;
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("a log is left here"), "{error}");
            assert!(all(&root) == before, "something was changed, or left");
            // With its database it is whole again.
            fs::rename(&other, &path).unwrap();
            assert!(open(&path).await.exists(sample_name(1)).await.unwrap());
        });
    }
}

/// A journal by which SQLite cuts a database to nothing, where it finds it beside one: of no page, to a file of no page.
fn journal() -> Vec<u8> {
    let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    // Records, nonce, pages that there were, bytes of a sector and of a page.
    for number in [0_u32, 7, 0, 512, 16 * 1024] {
        journal.extend(number.to_be_bytes());
    }
    journal.resize(512, 0);
    journal
}

#[test]
fn what_is_called_like_a_journal_does_not_undo_a_database() {
    for has_log in [false, true] {
        let (root, path) = place();
        block_on(async {
            let storage = open(&path).await;
            storage.put_durable(sample_name(1), sample_bytes(1, 1000)).await.unwrap();
            let (_elsewhere, other) = place();
            for suffix in ["", "-wal"] {
                fs::copy(beside(&path, suffix), beside(&other, suffix)).unwrap();
            }
            drop(storage);
            if has_log {
                // As a process leaves it that dies: the version of what is in it is in the log alone.
                for suffix in ["", "-wal"] {
                    fs::rename(beside(&other, suffix), beside(&path, suffix)).unwrap();
                }
            }
            fs::write(beside(&path, "-journal"), journal()).unwrap();
            let before = all(&root);
            for mode in [OpenMode::CreateIfMissing, OpenMode::Existing] {
                let error = try_open(&path, mode).await.err().unwrap();
                assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
                assert!(error.to_string().contains("-journal"), "{error}");
            }
            assert!(all(&root) == before, "something was changed, or left");
            fs::remove_file(beside(&path, "-journal")).unwrap();
            assert!(open(&path).await.exists(sample_name(1)).await.unwrap());
        });
    }
}

#[test]
fn what_is_called_like_a_journal_is_not_taken_away_by_a_new_database() {
    let (root, path) = place();
    fs::write(beside(&path, "-journal"), "Dear diary").unwrap();
    let before = all(&root);
    block_on(async {
        let error = refused(&path).await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("-journal"), "{error}");
    });
    assert!(all(&root) == before, "something was changed, or left");
}

#[test]
fn nothing_is_read_beside_a_journal_that_came_while_it_was_open() {
    let (_root, path) = place();
    block_on(async {
        let storage = open(&path).await;
        storage.put_durable(sample_name(1), sample_bytes(1, 1000)).await.unwrap();
        fs::write(beside(&path, "-journal"), journal()).unwrap();
        let error = storage.exists(sample_name(1)).await.unwrap_err();
        assert!(error.to_string().contains("-journal"), "{error}");
        fs::remove_file(beside(&path, "-journal")).unwrap();
        assert!(storage.exists(sample_name(1)).await.unwrap());
    });
}

#[test]
fn of_processes_that_close_at_once_none_leaves_anything_in_the_log_alone() {
    do_as_told();
    let test = "of_processes_that_close_at_once_none_leaves_anything_in_the_log_alone";
    let (_root, path) = place();
    let begin = || -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(DOES, "close when told")
            .env(DATABASE, &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    block_on(async { drop(open(&path).await) });
    for round in 0..25 {
        let mut children = [begin(), begin()];
        for child in &mut children {
            child.stderr.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        }
        for child in &mut children {
            drop(child.stdin.take());
        }
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let left = fs::metadata(beside(&path, "-wal")).map_or(0, |log| log.len());
        assert_eq!(left, 0, "bytes left in the log, in round {round}");
    }
    let (_elsewhere, alone) = place();
    fs::copy(&path, &alone).unwrap();
    block_on(async { assert_eq!(open(&alone).await.list(&[], None).await.unwrap().len(), 50) });
}

#[cfg(unix)]
#[test]
fn a_path_that_is_too_long_for_sqlite_is_told_before_anything_is_made() {
    let (root, _) = place();
    let real = fs::canonicalize(root.path()).unwrap();
    let of_length = |bytes: usize| {
        let mut folder = real.clone();
        while folder.as_os_str().len() + 210 < bytes {
            folder.push("f".repeat(100));
        }
        fs::create_dir_all(&folder).unwrap();
        let name = "n".repeat(bytes - folder.as_os_str().len() - 1);
        folder.join(name)
    };
    block_on(async {
        let longest = of_length(504);
        open(&longest).await.put(sample_name(1), sample_bytes(1, 10)).await.unwrap();
        for path in [of_length(505), of_length(900), real.join("n".repeat(248))] {
            let error = refused(&path).await;
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains("use a shorter path"), "{error}");
            assert!(!path.exists());
        }
        drop(open(&real.join("n".repeat(247))).await);
        // Found by a short way, too, its log would be beside the long name.
        let link = real.join("link");
        std::os::unix::fs::symlink(of_length(505).parent().unwrap(), &link).unwrap();
        let error = refused(&link.join(of_length(505).file_name().unwrap())).await;
        assert!(error.to_string().contains("use a shorter path"), "{error}");
    });
}

#[cfg(unix)]
#[test]
fn a_link_to_a_file_that_is_not_there_is_told() {
    let (root, path) = place();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    block_on(async {
        let error = refused(&path).await;
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("link to a file that is not there"), "{error}");
    });
    assert!(!root.path().join("nowhere").exists());
}

#[test]
fn tables_that_are_not_those_that_were_made_are_corrupt() {
    let forged = "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema
        VALUES ('view', 'sqlite_autoindex_x', 'sqlite_autoindex_x', 0, 'CREATE VIEW sqlite_autoindex_x AS SELECT 1')";
    for change in [
        "CREATE TABLE more (x)",
        "CREATE TRIGGER t AFTER INSERT ON blobs BEGIN DELETE FROM blobs; END",
        "CREATE INDEX i ON blobs (content)",
        "ALTER TABLE blobs ADD COLUMN x ANY",
        "DROP TABLE barriers",
        "DROP TABLE barriers; DROP TABLE blobs; PRAGMA user_version = 0; CREATE TABLE other (x)",
        forged,
    ] {
        let (_root, path) = place();
        block_on(async {
            drop(open(&path).await);
            Connection::open(&path).unwrap().execute_batch(change).unwrap();
            let error = refused(&path).await;
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{change}: {error}");
        });
    }
}

#[test]
fn a_barrier_that_has_nothing_to_change_is_no_barrier() {
    for rows in ["DELETE FROM barriers", "INSERT INTO barriers VALUES (7, 7)"] {
        let (_root, path) = place();
        block_on(async {
            drop(open(&path).await);
            Connection::open(&path).unwrap().execute(rows, []).unwrap();
            let storage = open(&path).await;
            assert_eq!(storage.put(sample_name(1), sample_bytes(1, 10)).await.unwrap(), Put::Created);
            let error = storage.sync().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{rows}: {error}");
            assert!(storage.sync().await.is_err(), "{rows}: it is taken for synced");
        });
    }
}
