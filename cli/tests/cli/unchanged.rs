//! What an import takes as unchanged, and what it looks into: times can be set back, the time of the last change of any kind
//! cannot.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::common::acceptance::{check_is_clean, stored_bytes, text};
use crate::common::{self, Scratch, mounts};

fn import(scratch: &Scratch, more: &[&str]) -> serde_json::Value {
    let arguments = ["import", "tree", "--json"];
    serde_json::from_slice(&scratch.succeeds(arguments.iter().chain(more))).unwrap()
}

fn set_time(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Other content of the same length and time.
fn change_unseen(path: &Path, content: &str) {
    let time = path.metadata().unwrap().modified().unwrap();
    fs::write(path, content).unwrap();
    set_time(path, time);
}

/// Of a file, for which there is a free name outside of the tree.
type Change = fn(&Path, PathBuf);

/// What else may have changed about a file, beside its content.
const OTHER_CHANGES: [(&str, Change); 5] = [
    ("nothing", |_, _| {}),
    ("its mode", |file, _| fs::set_permissions(file, Permissions::from_mode(0o750)).unwrap()),
    ("its extended attributes", |file, _| {
        let set = rustix::fs::setxattr(file, "user.new", b"1", rustix::fs::XattrFlags::empty());
        assert!(set.is_ok() || cfg!(not(target_os = "linux")) || set == Err(rustix::io::Errno::NOTSUP));
    }),
    ("a name in the tree", |file, _| fs::hard_link(file, file.with_file_name("second")).unwrap()),
    ("a name elsewhere", |file, outside| fs::hard_link(file, outside).unwrap()),
];

#[test]
fn a_change_whose_time_was_set_back_is_seen_whatever_else_changed() {
    for (what, change) in OTHER_CHANGES {
        let scratch = Scratch::with_repository();
        fs::create_dir(scratch.path("tree")).unwrap();
        let file = scratch.path("tree/file");
        fs::write(&file, "one").unwrap();
        import(&scratch, &[]);
        change_unseen(&file, "two");
        change(&file, scratch.path("outside"));
        let would = import(&scratch, &["--dry-run"]);
        let did = import(&scratch, &[]);
        assert_eq!(scratch.succeeds(["cat", "/tree/file"]), b"two", "{what}");
        for count in ["files", "hard_links", "unchanged", "folders"] {
            assert_eq!(would[count], did[count], "{count}, {what}");
        }
        assert_eq!((&did["files"], &import(&scratch, &[])["files"]), (&1.into(), &0.into()), "{what}");
        // And once more, now that it is so.
        change_unseen(&file, "six");
        assert_eq!(import(&scratch, &[])["files"], 1, "{what}");
        assert_eq!(scratch.succeeds(["cat", "/tree/file"]), b"six", "{what}");
    }
}

/// The number of the newest commit: another whenever anything was written.
fn commit(scratch: &Scratch) -> u64 {
    let info: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["info", "--json"])).unwrap();
    info["inside"]["commit"].as_u64().unwrap()
}

/// What is done in the repository, to `/tree/file` and so that it is there again.
const CHANGES_THERE: [(&str, &[&[&str]]); 4] = [
    ("it is renamed, and again", &[&["mv", "/tree/file", "/elsewhere"], &["mv", "/elsewhere", "/tree/file"]]),
    ("it gets another name", &[&["ln", "/tree/file", "/second"], &["rm", "/second"]]),
    ("a snapshot is restored", &[&["rm", "/tree/file"], &["snapshot", "restore", "before", "/tree/file"]]),
    ("it is copied", &[&["cp", "/tree/file", "/copy"], &["rm", "/tree/file"], &["mv", "/copy", "/tree/file"]]),
];

#[test]
fn a_change_whose_time_was_set_back_is_seen_whatever_was_done_in_the_repository_since() {
    for (what, commands) in CHANGES_THERE {
        let scratch = Scratch::with_repository();
        fs::create_dir(scratch.path("tree")).unwrap();
        let file = scratch.path("tree/file");
        fs::write(&file, "one").unwrap();
        set_time(&file, SystemTime::UNIX_EPOCH);
        import(&scratch, &[]);
        scratch.succeeds(["snapshot", "create", "before"]);
        change_unseen(&file, "two");
        for command in commands {
            scratch.succeeds(*command);
        }
        assert_eq!(scratch.succeeds(["cat", "/tree/file"]), b"one", "{what}");
        assert_eq!(import(&scratch, &[])["files"], 1, "{what}");
        assert_eq!(scratch.succeeds(["cat", "/tree/file"]), b"two", "{what}");
        check_is_clean(&scratch, what);
    }
}

#[test]
fn a_dry_run_looks_into_files_of_which_something_else_changed() {
    let scratch = Scratch::with_repository();
    fs::create_dir(scratch.path("tree")).unwrap();
    fs::write(scratch.path("tree/file"), "x".repeat(300_000)).unwrap();
    import(&scratch, &[]);
    fs::set_permissions(scratch.path("tree/file"), Permissions::from_mode(0o600)).unwrap();
    fs::write(scratch.path("tree/new"), "new").unwrap();
    let counts = |report: &serde_json::Value| ["files", "unchanged", "attributes"].map(|count| report[count].as_u64());
    let would = import(&scratch, &["--dry-run"]);
    assert_eq!(counts(&would), [Some(1), Some(0), Some(1)], "{would}");
    let did = import(&scratch, &[]);
    assert_eq!(counts(&did), [Some(1), Some(0), Some(1)], "{did}");
}

type ChangeInTree = fn(&Path);

/// What is changed of `file`, `link` and the folder in a tree, beside content, and which counts say so.
const ATTRIBUTES: [(&str, ChangeInTree, [u64; 5]); 5] = [
    ("nothing", |_| {}, [0, 0, 0, 4, 0]),
    ("a mode", |tree| fs::set_permissions(tree.join("file"), Permissions::from_mode(0o751)).unwrap(), [0, 0, 0, 3, 1]),
    ("the time of a link", |tree| set_time_of_link(&tree.join("link")), [0, 0, 0, 3, 1]),
    ("an attribute", |tree| set_attribute(&tree.join("file")), [0, 0, 0, 3, 1]),
    ("an attribute of the folder", |tree| set_attribute(tree), [0, 1, 0, 3, 0]),
];

fn set_time_of_link(path: &Path) {
    let time = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 7 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_attribute(path: &Path) {
    rustix::fs::setxattr(path, "user.new", b"1", rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn what_has_other_attributes_alone_is_counted_apart_and_a_dry_run_says_so_before() {
    for (what, change, expected) in ATTRIBUTES {
        let scratch = Scratch::with_repository();
        let tree = scratch.path("tree");
        fs::create_dir(&tree).unwrap();
        for (name, content) in [("file", "one"), ("other", "two")] {
            fs::write(tree.join(name), content).unwrap();
        }
        std::os::unix::fs::symlink("nowhere", tree.join("link")).unwrap();
        import(&scratch, &[]);
        if what.contains("attribute")
            && rustix::fs::setxattr(&tree, "user.try", b"", rustix::fs::XattrFlags::empty()).is_err()
        {
            eprintln!("no extended attributes here: nothing to try");
            continue;
        }
        import(&scratch, &[]);
        let was = commit(&scratch);
        change(&tree);
        let counts = |report: &serde_json::Value| {
            ["files", "folders", "links", "unchanged", "attributes"].map(|count| report[count].as_u64().unwrap())
        };
        assert_eq!(counts(&import(&scratch, &["--dry-run"])), expected, "{what}, dry run");
        let says = |arguments: &[&str]| text(&scratch.succeeds(["import", "tree"].iter().chain(arguments)));
        let would = says(&["--dry-run"]);
        assert_eq!(would.contains("3 unchanged, 1 would get other attributes"), expected[4] == 1, "{what}: {would}");
        assert_eq!(commit(&scratch), was, "{what}, dry run");
        assert_eq!(counts(&import(&scratch, &[])), expected, "{what}");
        assert_eq!(commit(&scratch) > was, what != "nothing", "{what}");
        let did = says(&[]);
        assert!(did.contains("4 unchanged\n") && did.contains("stored 0 files, 0 folders, 0 links"), "{what}: {did}");
        scratch.succeeds(["export", "/tree", "out"]);
        assert_eq!(common::compare_trees(&tree, &scratch.path("out/tree")), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn files_that_changed_places_with_their_folders_are_seen_though_nothing_about_them_changed() {
    let scratch = Scratch::with_repository();
    for (folder, content) in [("tree/a", "one"), ("tree/b", "two")] {
        fs::create_dir_all(scratch.path(folder)).unwrap();
        fs::write(scratch.path(folder).join("file"), content).unwrap();
        set_time(&scratch.path(folder).join("file"), SystemTime::UNIX_EPOCH);
    }
    import(&scratch, &[]);
    // Once more, should one of them have been read in the moment in which it was written.
    import(&scratch, &[]);
    for (from, to) in [("tree/a", "aside"), ("tree/b", "tree/a"), ("aside", "tree/b")] {
        fs::rename(scratch.path(from), scratch.path(to)).unwrap();
    }
    assert_eq!(import(&scratch, &[])["files"], 2);
    for (path, content) in [("/tree/a/file", b"two"), ("/tree/b/file", b"one")] {
        assert_eq!(scratch.succeeds(["cat", path]), content, "{path}");
    }
}

#[test]
fn a_copy_of_a_disk_is_compared_once_and_what_changes_in_it_is_seen() {
    let scratch = Scratch::with_repository();
    common::generate_tree(&scratch.path("tree"), 5, 4_000_000, 60);
    import(&scratch, &[]);
    let was = stored_bytes(&scratch.path("repo"));
    let copied =
        std::process::Command::new("cp").arg("-a").args(["tree", "copy"]).current_dir(scratch.path("")).status();
    assert!(copied.unwrap().success());
    for (from, to) in [("tree", "old"), ("copy", "tree")] {
        fs::rename(scratch.path(from), scratch.path(to)).unwrap();
    }
    assert_eq!(import(&scratch, &[])["files"], 0);
    let grown = stored_bytes(&scratch.path("repo")).saturating_sub(was);
    assert!(grown < 1 << 20, "{grown} bytes more");
    let noted = commit(&scratch);
    assert_eq!(import(&scratch, &[])["files"], 0);
    assert_eq!(commit(&scratch), noted, "nothing was to be noted again");
    let file = scratch.path("tree/files");
    let file =
        common::list(&file).into_iter().find(|path| path.is_file() && path.metadata().unwrap().len() > 100).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    change_unseen(&file, &"x".repeat(usize::try_from(file.metadata().unwrap().len()).unwrap()));
    assert_eq!(import(&scratch, &[])["files"], 1);
}

#[test]
fn what_is_looked_into_changes_nothing_that_a_comparison_of_snapshots_shows() {
    let scratch = Scratch::with_repository();
    fs::create_dir(scratch.path("tree")).unwrap();
    let file = scratch.path("tree/file");
    fs::write(&file, "one").unwrap();
    import(&scratch, &[]);
    scratch.succeeds(["snapshot", "create", "before"]);
    set_time(&file, file.metadata().unwrap().modified().unwrap());
    import(&scratch, &[]);
    assert_eq!(text(&scratch.succeeds(["snapshot", "diff", "before"])), "");
}

#[test]
fn a_change_whose_time_was_set_back_is_seen_though_a_name_went() {
    let scratch = Scratch::with_repository();
    fs::create_dir(scratch.path("tree")).unwrap();
    let [file, second] = ["tree/file", "tree/second"].map(|name| scratch.path(name));
    fs::write(&file, "one").unwrap();
    fs::hard_link(&file, &second).unwrap();
    import(&scratch, &[]);
    change_unseen(&file, "two");
    fs::remove_file(&second).unwrap();
    import(&scratch, &["--delete"]);
    assert_eq!(scratch.succeeds(["cat", "/tree/file"]), b"two");
    check_is_clean(&scratch, "after both");
}

/// A program that replaces files keeps their times where it is asked to, and need not keep anything else.
#[test]
fn another_file_in_the_place_of_one_is_seen_though_it_has_its_size_and_time() {
    let scratch = Scratch::with_repository();
    fs::create_dir(scratch.path("tree")).unwrap();
    let [program, new] = ["tree/program", "new"].map(|name| scratch.path(name));
    for (path, content, mode) in [(&program, "v1", 0o644), (&new, "v2", 0o755)] {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        set_time(path, SystemTime::UNIX_EPOCH);
        if mode == 0o644 {
            import(&scratch, &[]);
        }
    }
    fs::rename(&new, &program).unwrap();
    assert_eq!(import(&scratch, &[])["files"], 1);
    assert_eq!(scratch.succeeds(["cat", "/tree/program"]), b"v2");
}

#[test]
fn what_is_looked_into_and_is_the_same_makes_no_version_and_is_not_looked_into_again() {
    for dedup in ["on", "off"] {
        let scratch = Scratch::new();
        scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--versions", "3", "--dedup", dedup]);
        fs::create_dir(scratch.path("tree")).unwrap();
        let file = scratch.path("tree/file");
        fs::write(&file, common::Numbers::new(1).bytes(3 << 20)).unwrap();
        import(&scratch, &[]);
        let before = stored_bytes(&scratch.path("repo"));
        let same_time: ChangeInTree = |file| set_time(file, file.metadata().unwrap().modified().unwrap());
        let other_mode: ChangeInTree = |file| fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
        for (change, expected) in [(same_time, [0, 2, 0]), (other_mode, [0, 1, 1])] {
            change(&file);
            let first = commit(&scratch);
            let report = import(&scratch, &[]);
            let counts = ["files", "unchanged", "attributes"].map(|count| report[count].as_u64().unwrap());
            assert_eq!(counts, expected, "dedup {dedup}");
            let second = commit(&scratch);
            assert_ne!(first, second, "it is noted that it was looked into");
            import(&scratch, &[]);
            assert_eq!(commit(&scratch), second, "it was not looked into again");
            let said = text(&scratch.succeeds(["stat", "/tree/file"]));
            assert!(said.contains("versions  0 older"), "dedup {dedup}: {said}");
        }
        let more = stored_bytes(&scratch.path("repo")).saturating_sub(before);
        assert!(more < 1 << 20, "{more} bytes more, dedup {dedup}");
        check_is_clean(&scratch, "after all");
    }
}

/// A database in `tree` with a write-ahead log. Its index, `db-shm`, is written through memory: while the kernel has not
/// written out what was changed there before, no time of it changes.
fn database(scratch: &Scratch) -> rusqlite::Connection {
    fs::create_dir(scratch.path("tree")).unwrap();
    let database = rusqlite::Connection::open(scratch.path("tree/db")).unwrap();
    let mode: String = database.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    database.execute("CREATE TABLE numbers (number)", []).unwrap();
    database
}

/// Imports a database after each change of it, with these flags: what its program writes through memory is stored each time.
#[track_caller]
fn assert_each_change_is_stored(flags: &[&str]) {
    let scratch = Scratch::with_repository();
    let database = database(&scratch);
    for number in 0..3 {
        database.execute("INSERT INTO numbers VALUES (?1)", [number]).unwrap();
        import(&scratch, flags);
        let stored = scratch.succeeds(["cat", "/tree/db-shm"]);
        assert!(stored == fs::read(scratch.path("tree/db-shm")).unwrap(), "after {number}");
    }
}

#[test]
fn what_a_program_writes_through_memory_after_it_was_read_is_seen() {
    assert_each_change_is_stored(&[]);
}

#[test]
fn a_comparison_of_all_contents_sees_what_shows_in_nothing_else() {
    if !mounts::inside("unchanged::a_comparison_of_all_contents_sees_what_shows_in_nothing_else") {
        return;
    }
    // So the program is not told what is mapped.
    mounts::small_disk(Path::new("/proc"), 64);
    assert_each_change_is_stored(&["--checksum"]);
}

#[test]
fn a_comparison_of_all_contents_changes_nothing_where_they_are_the_same() {
    let scratch = Scratch::with_repository();
    common::generate_tree(&scratch.path("tree"), 6, 4_000_000, 30);
    import(&scratch, &[]);
    let first = import(&scratch, &["--checksum"]);
    let noted = commit(&scratch);
    for more in [&["--checksum"][..], &["--checksum", "--dry-run"], &[]] {
        let report = import(&scratch, more);
        assert_eq!((&report["files"], &report["unchanged"]), (&0.into(), &first["unchanged"]), "{more:?}");
        assert_eq!(commit(&scratch), noted, "{more:?}");
    }
}

#[test]
fn an_unchanged_file_is_not_opened_and_one_that_changed_and_cannot_be_is_told() {
    // Who may do everything stores what others may not read.
    if !mounts::inside("unchanged::an_unchanged_file_is_not_opened_and_one_that_changed_and_cannot_be_is_told") {
        return;
    }
    let scratch = Scratch::with_repository();
    fs::create_dir(scratch.path("tree")).unwrap();
    let file = scratch.path("tree/file");
    fs::write(&file, "one").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    import(&scratch, &[]);

    let output = scratch.run_humbly(["import", "tree"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    change_unseen(&file, "two");
    for more in [&["--dry-run"][..], &[], &[]] {
        let output = scratch.run_humbly(["import", "tree"].iter().chain(more));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{more:?}: {said}");
        assert!(said.contains("/tree/file: cannot be read: Permission denied"), "{more:?}: {said}");
    }
    import(&scratch, &[]);
    assert_eq!(scratch.succeeds(["cat", "/tree/file"]), b"two");
}
