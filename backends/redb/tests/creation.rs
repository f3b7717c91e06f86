//! A database that is new is there whole or not at all, whoever is stopped, or comes at the same moment.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot set up its place fails

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use strongroom_conformance::block_on;
use strongroom_conformance::storage::{acknowledge_to_parent, kill_after, sample_bytes, sample_name};
use strongroom_core::env::Env;
use strongroom_core::storage::{BlockingMode, Error, ErrorKind, OpenContext, OpenMode, Put, Result, Storage};
use strongroom_redb::RedbStorage;

/// Where a child makes databases.
const CREATE_IN: &str = "STRONGROOM_TEST_CREATE_IN";
/// The blob that a child puts.
const NUMBER: &str = "STRONGROOM_TEST_NUMBER";

fn context(mode: OpenMode) -> OpenContext {
    OpenContext::new(strongroom::env::system().unwrap()).with_mode(mode).with_blocking(BlockingMode::Inline)
}

fn open(path: &Path, mode: OpenMode) -> Result<RedbStorage> {
    block_on(RedbStorage::open(path, &context(mode)))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn said(outcome: Result<RedbStorage>) -> (ErrorKind, String) {
    let error: Error = outcome.unwrap_err();
    (error.kind(), error.to_string())
}

/// It can be made or found, and holds what is put into it.
fn serves(path: &Path, when: &str) {
    for expected in [Put::Created, Put::Exists] {
        let storage = open(path, OpenMode::CreateIfMissing).unwrap_or_else(|error| panic!("{when}: {error}"));
        let put = block_on(storage.put_durable(sample_name(1), sample_bytes(1, 9000)));
        assert_eq!(put.unwrap(), expected, "{when}");
    }
}

/// A child that does this test, and in it what its environment says.
fn child(test: &str, path: &Path) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(CREATE_IN, path);
    child
}

#[test]
fn a_creation_that_is_killed_is_begun_anew() {
    const TEST: &str = "a_creation_that_is_killed_is_begun_anew";
    if let Some(folder) = std::env::var_os(CREATE_IN).map(PathBuf::from) {
        let make_for_ever = |who: &str, acknowledge: fn()| {
            for number in 0.. {
                drop(open(&folder.join(format!("{who}{number}")), OpenMode::CreateIfMissing).unwrap());
                acknowledge();
            }
        };
        // The end of one thread's creation is any moment of the other's.
        std::thread::scope(|scope| {
            scope.spawn(|| make_for_ever("one", acknowledge_to_parent));
            scope.spawn(|| make_for_ever("other", || {}));
        });
    }
    for round in 1..=16 {
        let root = tempfile::tempdir().unwrap();
        kill_after(&mut child(TEST, root.path()), round).unwrap();
        for name in names(root.path()) {
            let whose = name.split('.').next().unwrap();
            serves(&root.path().join(whose), &format!("round {round}, {name}"));
        }
        let left: Vec<_> = names(root.path()).into_iter().filter(|name| name.contains('.')).collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
}

#[test]
fn of_processes_that_make_it_at_once_all_have_the_same_database() {
    const TEST: &str = "of_processes_that_make_it_at_once_all_have_the_same_database";
    const CHILDREN: u64 = 6;
    if let Some(path) = std::env::var_os(CREATE_IN).map(PathBuf::from) {
        let number = std::env::var(NUMBER).unwrap().parse().unwrap();
        // Until the parent has started all.
        std::io::stdin().read_line(&mut String::new()).unwrap();
        let storage = loop {
            match open(&path, OpenMode::CreateIfMissing) {
                Err(error) if error.kind() == ErrorKind::Busy => {}
                opened => break opened.unwrap(),
            }
        };
        let put = block_on(storage.put_durable(sample_name(number), sample_bytes(number, 9000)));
        assert_eq!(put.unwrap(), Put::Created);
        return;
    }
    for round in 0..6 {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("db");
        if round % 2 == 1 {
            fs::write(&path, "").unwrap();
        }
        let start = |number: u64| {
            let mut child = child(TEST, &path);
            child.env(NUMBER, number.to_string()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
        };
        let children: Vec<_> = (0..CHILDREN).map(start).collect();
        for mut child in children.into_iter().map(|mut child| {
            drop(child.stdin.take());
            child
        }) {
            assert!(child.wait().unwrap().success(), "round {round}");
        }
        let storage = open(&path, OpenMode::Existing).unwrap();
        for number in 0..CHILDREN {
            let bytes = block_on(storage.get(sample_name(number), None, 1 << 20)).unwrap();
            assert_eq!(bytes, sample_bytes(number, 9000), "round {round}");
        }
        assert_eq!(names(root.path()), ["db"], "round {round}");
    }
}

#[test]
fn of_threads_that_make_it_at_once_all_have_the_same_database() {
    for round in 0..10 {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("db");
        if round % 2 == 1 {
            fs::write(&path, "").unwrap();
        }
        let context = context(OpenMode::CreateIfMissing);
        let open = || loop {
            match block_on(RedbStorage::open(&path, &context)) {
                Err(error) if error.kind() == ErrorKind::Busy => {}
                opened => break opened.unwrap(),
            }
        };
        let storages = std::thread::scope(|scope| {
            let threads = [(); 8].map(|()| scope.spawn(open));
            threads.map(|thread| thread.join().unwrap())
        });
        let puts = storages.each_ref().map(|storage| block_on(storage.put(sample_name(1), sample_bytes(1, 9000))));
        let created = puts.into_iter().filter(|put| *put.as_ref().unwrap() == Put::Created);
        assert_eq!((created.count(), names(root.path())), (1, vec!["db".to_owned()]), "round {round}");
    }
}

#[test]
fn an_empty_file_becomes_a_database_with_the_rights_it_had() {
    let root = tempfile::tempdir().unwrap();
    let (path, link) = (root.path().join("db"), root.path().join("link"));
    fs::write(&path, "").unwrap();
    let (kind, _) = said(open(&path, OpenMode::Existing));
    assert_eq!((kind, fs::read(&path).unwrap()), (ErrorKind::NotFound, vec![]));
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&path, &link).unwrap();
        serves(&link, "by a link");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(link.is_symlink());
    }
    serves_again(&path);
    assert!(names(root.path()).iter().all(|name| !name.contains('.')));
}

fn serves_again(path: &Path) {
    let storage = open(path, OpenMode::Existing).unwrap();
    assert_eq!(block_on(storage.size(sample_name(1))).unwrap(), 9000);
}

#[test]
fn an_empty_file_that_another_process_is_at_is_left_to_it() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    fs::write(&path, "").unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.lock().unwrap();
    // A second passes at once here.
    let patient = OpenContext::new(Env::deterministic(1)).with_mode(OpenMode::CreateIfMissing);
    let (kind, says) = said(block_on(RedbStorage::open(&path, &patient)));
    assert!(kind == ErrorKind::Busy && says.contains("making it"), "{kind:?} {says}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    drop(file);
    serves(&path, "when it has left");
}

#[test]
fn what_dead_creations_left_goes_and_what_only_has_such_a_name_stays() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::write(at("db.new-0123456789abcdef"), "").unwrap();
    fs::write(at("db.new-0123456789abcde0"), [0; 5000]).unwrap();
    let kept = [
        "db.new-0123456789abcde1",  // with a letter in it
        "db.new-0123456789abcde2",  // held by somebody
        "db.new-0123456789abcde",   // a digit less
        "db.new-0123456789abcdef0", // a digit more
        "db.new-0123456789ABCDEF",
        "other.new-0123456789abcdef",
    ];
    for name in kept {
        fs::write(at(name), "").unwrap();
    }
    fs::write(at(kept[0]), "Dear Anna").unwrap();
    fs::create_dir(at("db.new-0123456789abcde3")).unwrap();
    let held = fs::File::open(at(kept[1])).unwrap();
    held.lock().unwrap();
    serves(&at("db"), "beside them");
    let mut expected: Vec<_> = kept.iter().map(|name| (*name).to_owned()).collect();
    expected.extend(["db.new-0123456789abcde3", "db"].map(str::to_owned));
    expected.sort();
    assert_eq!(names(root.path()), expected);
    assert_eq!(fs::read(at(kept[0])).unwrap(), b"Dear Anna");
}

#[test]
fn where_no_file_can_be_made_it_says_so_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (kind, says) = said(open(&root.path().join("absent/db"), OpenMode::CreateIfMissing));
    assert!(kind == ErrorKind::NotFound && says.contains("create that first"), "{kind:?} {says}");
    let (kind, says) = said(open(&root.path().join("db/"), OpenMode::CreateIfMissing));
    assert!(kind == ErrorKind::Invalid && says.contains("name a file"), "{kind:?} {says}");
    #[cfg(unix)]
    {
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path().join("absent"), &link).unwrap();
        let (kind, says) = said(open(&link, OpenMode::CreateIfMissing));
        assert!(kind == ErrorKind::NotFound && says.contains("a link"), "{kind:?} {says}");
        fs::remove_file(link).unwrap();
    }
    assert_eq!(names(root.path()), Vec::<String>::new());
}

/// By way of strace, which needs the right to trace.
#[cfg(target_os = "linux")]
mod traced {
    use super::*;

    fn strace(arguments: &[&str], test: &str, path: &Path) -> std::process::Output {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y"]).args(arguments).arg(std::env::current_exe().unwrap());
        strace.args(["--exact", test, "--ignored"]).env(CREATE_IN, path).stdout(Stdio::piped());
        strace.output().unwrap_or_else(|error| panic!("this test needs strace: {error}"))
    }

    fn make_if_told() -> bool {
        let path = std::env::var_os(CREATE_IN).map(PathBuf::from);
        path.map(|path| drop(open(&path, OpenMode::CreateIfMissing).unwrap())).is_some()
    }

    #[test]
    #[ignore = "needs strace, and the right to trace"]
    fn killed_at_any_call_it_is_begun_anew() {
        if make_if_told() {
            return;
        }
        const CALLS: [&str; 12] = [
            "openat",
            "write",
            "pwrite64",
            "ftruncate",
            "fallocate",
            "fsync",
            "fdatasync",
            "flock",
            "fcntl",
            "renameat2",
            "rename",
            "unlink",
        ];
        for was_empty in [false, true] {
            for call in CALLS {
                let mut kills = 0;
                for when in 1.. {
                    let root = tempfile::tempdir().unwrap();
                    let path = root.path().join("db");
                    if was_empty {
                        fs::write(&path, "").unwrap();
                    }
                    let inject = format!("inject={call}:signal=SIGKILL:when={when}");
                    let test = "traced::killed_at_any_call_it_is_begun_anew";
                    let output =
                        strace(&["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject], test, &path);
                    serves(&path, &format!("{inject}, was empty: {was_empty}"));
                    assert_eq!(names(root.path()), ["db"], "{inject}");
                    if output.status.success() {
                        break;
                    }
                    kills += 1;
                }
                eprintln!("{call}: killed {kills} times");
            }
        }
    }

    /// What is synced, and when names are given, as `call name`.
    fn calls(path: &Path) -> Vec<String> {
        let log = tempfile::NamedTempFile::new().unwrap();
        let calls = "trace=fsync,fdatasync,renameat2,rename,link,linkat";
        let test = "traced::the_file_is_durable_before_it_has_its_name_and_the_name_before_it_is_used";
        let output = strace(&["-o", log.path().to_str().unwrap(), "-e", calls], test, path);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let folder = fs::canonicalize(path.parent().unwrap()).unwrap();
        let folder = folder.to_str().unwrap();
        let mut calls = Vec::new();
        for line in fs::read_to_string(log.path()).unwrap().lines().filter(|line| line.contains(folder)) {
            let call = line.split(['(', ' ']).find(|word| word.starts_with(char::is_alphabetic)).unwrap();
            let what = if line.contains(".new-") {
                "draft"
            } else if line.contains("/db>") {
                "database"
            } else {
                "folder"
            };
            let call = if call.starts_with("f") { "sync" } else { "name" };
            calls.push(format!("{call} {what}"));
        }
        calls.dedup();
        calls
    }

    #[test]
    #[ignore = "needs strace, and the right to trace"]
    fn the_file_is_durable_before_it_has_its_name_and_the_name_before_it_is_used() {
        if make_if_told() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let (path, empty) = (root.path().join("db"), root.path().join("empty/db"));
        fs::create_dir(root.path().join("empty")).unwrap();
        fs::write(&empty, "").unwrap();
        for path in [&path, &empty] {
            let calls = calls(path);
            assert_eq!(calls.get(..3).unwrap(), ["sync draft", "name draft", "sync folder"], "{calls:?}");
        }
        // One who gave it its name may have died before the folder was synced.
        let calls = calls(&path);
        assert!(calls.contains(&"sync folder".to_owned()), "{calls:?}");
        assert!(!calls.iter().any(|call| call.starts_with("name")), "{calls:?}");
    }
}
