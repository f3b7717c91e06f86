//! What a folder may be before sled has it: a database is made where nothing is, whatever cut that short; all else is left alone.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot set up its place fails

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use strongroom_conformance::block_on;
use strongroom_conformance::storage::{acknowledge_to_parent, kill_after, sample_bytes, sample_name};
use strongroom_core::storage::{
    BlockingMode, ErrorKind, OpenContext, OpenMode, Put, Result, Storage, StorageConstructor as _, StorageUri,
};
use strongroom_sled::{SledConstructor, SledStorage};

/// Where a child makes databases.
const CREATE_IN: &str = "STRONGROOM_TEST_CREATE_IN";
/// The blob that a child puts.
const NUMBER: &str = "STRONGROOM_TEST_NUMBER";

const CONFIG: &[u8] = b"segment_size: 524288\nuse_compression: false\nversion: 0.34\nv\x19Q\xc1";

/// What sled keeps in `blobs`.
const LARGE_BYTES: usize = 700_000;

fn context(mode: OpenMode) -> OpenContext {
    OpenContext::new(strongroom::env::system().unwrap()).with_mode(mode).with_blocking(BlockingMode::Inline)
}

fn open(path: &Path, mode: OpenMode) -> Result<SledStorage> {
    block_on(SledStorage::open(path, &context(mode)))
}

/// The files in a folder and those below, and the folders, which have no content.
fn content(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
            found.insert(path, None);
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, Some(bytes));
        }
    }
    found
}

fn write(folder: &Path, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match name.ends_with('/') {
            true => fs::create_dir_all(&path).unwrap(),
            false => fs::write(&path, bytes).unwrap(),
        }
    }
}

/// It can be made or found, and holds what is put into it, in `blobs` too.
fn serves(path: &Path, when: &str) {
    for expected in [Put::Created, Put::Exists] {
        let storage = open(path, OpenMode::CreateIfMissing).unwrap_or_else(|error| panic!("{when}: {error}"));
        let put = block_on(storage.put_durable(sample_name(1), sample_bytes(1, LARGE_BYTES)));
        assert_eq!(put.unwrap(), expected, "{when}");
    }
}

#[test]
fn a_folder_of_something_else_is_refused_and_left_as_it_is() {
    let long = [b'x'; 62].as_slice();
    let damaged = [CONFIG.get(..61).unwrap(), b"\0"].concat();
    for (files, kind, says) in [
        (&[("conf", b"a=1".as_slice())][..], ErrorKind::Invalid, "something else"),
        (&[("conf", long)], ErrorKind::Invalid, "something else"),
        (&[("conf/a", b"1")], ErrorKind::Invalid, "something else"),
        (&[("db", b"")], ErrorKind::Invalid, "something else"),
        (&[("blobs/1", b"Dear Anna")], ErrorKind::Invalid, "something else"),
        (&[("blobs/letter", b"Dear Anna")], ErrorKind::Invalid, "something else"),
        (&[("blobs", b"Dear Anna")], ErrorKind::Invalid, "something else"),
        (&[("snap.1", b"Dear Anna")], ErrorKind::Invalid, "something else"),
        (&[("conf", b"a=1"), ("db", b"1"), ("blobs/7", b"Dear Anna")], ErrorKind::Invalid, "`conf` is not one of sled"),
        (&[("conf", b""), ("db", b"1"), ("blobs/7", b"Dear Anna")], ErrorKind::Invalid, "`conf` is not one of sled"),
        (&[("conf", &damaged), ("db", b"1"), ("blobs/", b"")], ErrorKind::Invalid, "`conf` is not one of sled"),
        (&[("conf", CONFIG), ("blobs/7", b"Dear Anna")], ErrorKind::Corrupt, "`db` is missing"),
        (&[("conf", CONFIG), (".db.x7Yz", b"1")], ErrorKind::Corrupt, "`db` is missing"),
        (&[("conf", CONFIG), ("db", b""), ("blobs/7", b"Dear Anna")], ErrorKind::Corrupt, "no `snap"),
    ] {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), files);
        let before = content(root.path());
        for mode in [OpenMode::Existing, OpenMode::CreateIfMissing] {
            let error = open(root.path(), mode).unwrap_err();
            let said = error.to_string();
            assert!(error.kind() == kind && said.contains(says) && said.lines().count() == 1, "{files:?}: {said}");
            assert!(content(root.path()) == before, "{files:?} {mode:?}");
        }
    }
}

#[test]
fn a_creation_that_was_cut_short_anywhere_is_begun_anew() {
    let root = tempfile::tempdir().unwrap();
    for length in 0..=CONFIG.len() {
        let path = root.path().join(format!("conf{length}"));
        write(&path, &[("conf", CONFIG.get(..length).unwrap())]);
        // sled makes it first, and it is made after `conf` here.
        if length % 2 == 0 {
            fs::create_dir(path.join("blobs")).unwrap();
        }
        let before = content(&path);
        assert_eq!(open(&path, OpenMode::Existing).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(content(&path) == before, "{length}");
        serves(&path, &format!("{length} bytes of `conf`"));
    }
    let whole = root.path().join("whole");
    drop(open(&whole, OpenMode::CreateIfMissing).unwrap());
    assert_eq!(fs::read(whole.join("conf")).unwrap(), CONFIG);
    let log = fs::read(whole.join("db")).unwrap();
    for length in (0..512).step_by(16) {
        let path = root.path().join(length.to_string());
        write(&path, &[("conf", CONFIG), ("db", log.get(..length).unwrap()), ("blobs/", b"")]);
        serves(&path, &format!("{length} bytes of `db`"));
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
    for round in 1..=10 {
        let root = tempfile::tempdir().unwrap();
        kill_after(&mut child(TEST, root.path()), round).unwrap();
        for entry in fs::read_dir(root.path()).unwrap() {
            let path = entry.unwrap().path();
            serves(&path, &format!("round {round}, {}", path.display()));
        }
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
        let put = block_on(storage.put_durable(sample_name(number), sample_bytes(number, LARGE_BYTES)));
        assert_eq!(put.unwrap(), Put::Created);
        return;
    }
    for round in 0..4 {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("db");
        let start = |number: u64| {
            let mut child = child(TEST, &path);
            child.env(NUMBER, number.to_string()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
        };
        let mut children: Vec<_> = (0..CHILDREN).map(start).collect();
        for child in &mut children {
            drop(child.stdin.take());
        }
        for mut child in children {
            assert!(child.wait().unwrap().success(), "round {round}");
        }
        let storage = open(&path, OpenMode::Existing).unwrap();
        for number in 0..CHILDREN {
            let bytes = block_on(storage.get(sample_name(number), None, 1 << 20)).unwrap();
            assert_eq!(bytes, sample_bytes(number, LARGE_BYTES), "round {round}");
        }
    }
}

/// A database with blobs, closed.
fn with_blobs(path: &Path) {
    let storage = open(path, OpenMode::CreateIfMissing).unwrap();
    for number in 0..4 {
        block_on(storage.put(sample_name(number), sample_bytes(number, LARGE_BYTES))).unwrap();
    }
    block_on(storage.sync()).unwrap();
}

fn has_blobs(path: &Path) {
    let storage = open(path, OpenMode::Existing).unwrap();
    for number in 0..4 {
        let bytes = block_on(storage.get(sample_name(number), None, 1 << 20)).unwrap();
        assert_eq!(bytes, sample_bytes(number, LARGE_BYTES));
    }
}

#[test]
fn a_snapshot_that_a_process_died_writing_is_no_damage() {
    let root = tempfile::tempdir().unwrap();
    with_blobs(root.path());
    for part in ["", "ab", "a part that is longer than what sled takes for too short"] {
        fs::write(root.path().join("snap.00000000FFFFFFFF.generating"), part).unwrap();
        has_blobs(root.path());
    }
    // It may be alive.
    let held = fs::File::open(root.path().join("db")).unwrap();
    held.lock().unwrap();
    let living = root.path().join("snap.00000000FFFFFFFF.generating");
    fs::write(&living, "").unwrap();
    assert_eq!(open(root.path(), OpenMode::Existing).unwrap_err().kind(), ErrorKind::Busy);
    assert!(living.exists());
}

#[test]
fn a_copy_that_lacks_what_its_blobs_belong_to_is_refused_and_keeps_them() {
    let root = tempfile::tempdir().unwrap();
    let (whole, copy) = (root.path().join("whole"), root.path().join("copy"));
    with_blobs(&whole);
    fs::create_dir(&copy).unwrap();
    let (from, to) = (whole.join("blobs"), copy.join("blobs"));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    // In the order that it is mostly copied in.
    let refused = || {
        let before = content(&copy);
        for mode in [OpenMode::Existing, OpenMode::CreateIfMissing] {
            let error = open(&copy, mode).unwrap_err();
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::Invalid | ErrorKind::Corrupt), "{error}");
            assert!(content(&copy) == before, "{mode:?}");
        }
    };
    refused();
    fs::copy(whole.join("conf"), copy.join("conf")).unwrap();
    refused();
    let log = fs::read(whole.join("db")).unwrap();
    for part in 0..=4 {
        fs::write(copy.join("db"), log.get(..log.len() * part / 4).unwrap()).unwrap();
        refused();
    }
    for entry in fs::read_dir(&whole).unwrap().map(|entry| entry.unwrap()) {
        if entry.path().is_file() {
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    has_blobs(&copy);
}

#[test]
fn what_is_not_sleds_stops_the_removal_of_a_scratch_database() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("scratch");
    drop(open(&path, OpenMode::CreateIfMissing).unwrap());
    write(&path, &[("blobs/letter", b"Dear Anna")]);
    let uri = StorageUri::from_path(&path).unwrap().to_string().replacen("file:", "sled:", 1);
    let uri = StorageUri::parse(&uri).unwrap();
    let remove = || block_on(SledConstructor.remove_scratch(&uri, &context(OpenMode::Existing)));
    assert!(remove().is_err());
    assert_eq!(fs::read(path.join("blobs/letter")).unwrap(), b"Dear Anna");
    fs::remove_file(path.join("blobs/letter")).unwrap();
    remove().unwrap();
    assert!(!path.exists());
}
