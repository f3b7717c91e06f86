//! Every command on everything that is no good: it says what is wrong in one line, with the exit code of the contract,
//! and leaves what it was pointed at as it was.

#![cfg(target_os = "linux")]

mod files;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::common::acceptance::{blobs, copy_folder, did_not_panic, text};
use crate::common::{self, Numbers, PASSWORD, Scratch, bare_command, mounts, os};

/// What a command is to the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Only looks at it.
    Looks,
    /// Changes it.
    Changes,
    /// Deletes it.
    Destroys,
    /// Makes a new one.
    Creates,
    /// Is refused, whatever is there.
    Refuses,
    /// Has nothing to do with it.
    Nothing,
}

/// Every command, in a form that works on the repository of [`prepare`].
const COMMANDS: &[(&str, &[&str], Does)] = &[
    ("init", &["--no-recovery", "--kdf-time", "1"], Does::Creates),
    ("import", &["tree", "--to", "/in"], Does::Changes),
    ("export", &["/tree", "out"], Does::Looks),
    ("ls", &["-lR"], Does::Looks),
    ("tree", &[], Does::Looks),
    ("find", &["--size", "+1"], Does::Looks),
    ("du", &[], Does::Looks),
    ("stat", &["/tree"], Does::Looks),
    ("cat", &["/tree/small"], Does::Looks),
    ("put", &["local", "/new"], Does::Changes),
    ("get", &["/tree/large", "-"], Does::Looks),
    ("mkdir", &["/made"], Does::Changes),
    ("rm", &["/tree/small"], Does::Changes),
    ("mv", &["/tree/small", "/moved"], Does::Changes),
    ("cp", &["-r", "/tree", "/copied"], Does::Changes),
    ("ln", &["/tree/small", "/linked"], Does::Changes),
    ("batch", &["operations"], Does::Changes),
    ("history", &["/kept"], Does::Looks),
    ("restore", &["/kept", "--version", "1"], Does::Changes),
    ("info", &[], Does::Looks),
    ("check", &["--data"], Does::Looks),
    ("compact", &[], Does::Changes),
    ("snapshot create", &["another"], Does::Changes),
    ("snapshot list", &[], Does::Looks),
    ("snapshot rm", &["spare"], Does::Changes),
    ("snapshot diff", &["kept"], Does::Looks),
    ("snapshot restore", &["kept"], Does::Changes),
    ("snapshot prune", &["--keep-last", "1"], Does::Changes),
    ("key list", &[], Does::Looks),
    ("key add", &["--new-password-file", "third password"], Does::Changes),
    ("key rm", &["second"], Does::Changes),
    ("key passwd", &["--new-password-file", "third password"], Does::Changes),
    ("key rotate", &[], Does::Refuses),
    ("recovery new", &["--output", "new recovery key"], Does::Changes),
    ("recovery verify", &["--recovery-key", "recovery key"], Does::Looks),
    ("header export", &["new header"], Does::Looks),
    ("header import", &["header"], Does::Changes),
    ("copy", &["copied", "--no-recovery", "--kdf-time", "1", "--new-password-file", "third password"], Does::Changes),
    ("clone", &["cloned"], Does::Changes),
    ("fork list", &[], Does::Looks),
    ("fork take", &["newest", "taken"], Does::Looks),
    ("destroy", &["--yes"], Does::Destroys),
    ("kv get", &["key"], Does::Looks),
    ("kv put", &["other", "value"], Does::Changes),
    ("kv del", &["key"], Does::Changes),
    ("kv scan", &[], Does::Looks),
    ("backends", &[], Does::Nothing),
    ("conformance", &["mem://scratch"], Does::Nothing),
    ("completions", &["bash"], Does::Nothing),
    ("man", &[], Does::Nothing),
];

/// Files that commands of the table make on this machine.
const MADE: [&str; 4] = ["out", "new recovery key", "new header", "copied"];

fn line(command: &str, arguments: &[&str]) -> Vec<OsString> {
    command.split(' ').chain(arguments.iter().copied()).map(OsString::from).collect()
}

/// What commands of the table are for this kind of use.
fn commands(does: &[Does]) -> impl Iterator<Item = (&'static str, Vec<OsString>, Does)> {
    let wanted = COMMANDS.iter().filter(move |(_, _, is)| does.contains(is));
    wanted.map(|(command, arguments, is)| (*command, line(command, arguments), *is)).collect::<Vec<_>>().into_iter()
}

/// A repository of small blocks with a bit of everything in it, and the files that the table names.
fn prepare() -> Scratch {
    let scratch = Scratch::new();
    let mut numbers = Numbers::new(1);
    fs::create_dir_all(scratch.path("tree/folder")).unwrap();
    fs::write(scratch.path("tree/small"), "small").unwrap();
    fs::write(scratch.path("tree/large"), numbers.bytes(150_000)).unwrap();
    fs::write(scratch.path("tree/folder").join(os(b"\xff\xfe")), "no text").unwrap();
    symlink("loop", scratch.path("tree/loop")).unwrap();
    fs::write(scratch.path("local"), "local").unwrap();
    fs::write(scratch.path("operations"), "{\"op\":\"mkdir\",\"path\":\"/made\"}\n").unwrap();
    fs::write(scratch.path("new password"), "another password\n").unwrap();
    fs::write(scratch.path("third password"), "a third password\n").unwrap();
    let init = ["init", "--kdf-time", "1", "--block-size", "16KiB", "--new-recovery-key", "recovery key"];
    scratch.succeeds(init);
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["snapshot", "create", "spare"]);
    scratch.succeeds(["put", "local", "/kept"]);
    scratch.succeeds(["history", "/kept", "--keep", "1"]);
    scratch.succeeds(["put", "tree/small", "/kept"]);
    scratch.succeeds(["kv", "put", "key", "value"]);
    scratch.succeeds(["snapshot", "create", "kept"]);
    scratch.succeeds(["mkdir", "/since"]);
    scratch.succeeds(["key", "add", "--label", "second", "--new-password-file", "new password"]);
    scratch.succeeds(["header", "export", "header"]);
    // What this device remembers of the original would speak against its copies.
    fs::remove_dir_all(scratch.path("state")).unwrap();
    fs::rename(scratch.path("repo"), scratch.path("good")).unwrap();
    scratch
}

impl Scratch {
    /// A fresh copy of the good repository, which is the one that commands work on.
    fn restore(&self) -> PathBuf {
        let repository = self.path("repo");
        for path in [repository.clone(), self.path("state")] {
            if path.symlink_metadata().is_ok_and(|there| there.is_dir()) {
                fs::remove_dir_all(&path).unwrap();
            }
        }
        copy_folder(&self.path("good"), &repository);
        repository
    }

    fn clear(&self) {
        for made in MADE {
            let path = self.path(made);
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
    }

    fn runs(&self, arguments: &[impl AsRef<OsStr>]) -> Output {
        self.clear();
        self.command().args(arguments).stdin(Stdio::null()).output().unwrap()
    }
}

/// Everything in a folder: names, lengths, modes and content.
fn contents(place: &Path) -> BTreeMap<PathBuf, (u64, u32, Vec<u8>)> {
    if place.symlink_metadata().is_err() {
        return BTreeMap::new();
    }
    let of = |path: PathBuf| {
        let metadata = path.symlink_metadata().unwrap();
        let bytes = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        (path, (if metadata.is_file() { metadata.len() } else { 0 }, metadata.permissions().mode(), bytes))
    };
    common::list(place).into_iter().map(of).collect()
}

/// How a failure must read: one line that begins with the name of the program, speaks to people, and gives no secret away.
#[track_caller]
fn reads_well(output: &Output, code: i32, what: &str) -> String {
    did_not_panic(output, what);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{what}: {stderr}");
    assert!(stderr.starts_with("strongroom: ") && stderr.len() > "strongroom: ".len() + 8, "{what}: {stderr}");
    assert!(stderr.len() < 1_000, "{what}: {stderr}");
    speaks_plainly(&stderr, what);
    stderr
}

/// No secret, and nothing of how a value looks inside the program.
#[track_caller]
fn speaks_plainly(stderr: &str, what: &str) {
    for secret in [PASSWORD, "another password", "a third password", "hunter2"] {
        assert!(!stderr.contains(secret), "{what} gives a secret away: {stderr}");
    }
    for debug in ["Some(", "None", "Err(", "Ok(", " { ", "kind:", "Error(", "PutDurable", "Open of", "\\\""] {
        assert!(!stderr.contains(debug), "{what} shows `{debug}`: {stderr}");
    }
    assert!(stderr.chars().all(|character| character == '\n' || !character.is_control()), "{what}: {stderr:?}");
}

#[test]
fn every_command_has_a_row() {
    fn collect(path: &str, all: &mut BTreeSet<String>) {
        let output = bare_command().args(path.split_whitespace()).arg("--help").output().unwrap();
        let help = text(&output.stdout);
        let inner = common::listed_commands(&help);
        if inner.is_empty() {
            all.insert(path.to_owned());
        }
        for name in inner {
            collect(format!("{path} {name}").trim(), all);
        }
    }
    let mut all = BTreeSet::new();
    collect("", &mut all);
    // What is always refused is not in the help.
    let shown = COMMANDS.iter().filter(|(.., does)| *does != Does::Refuses);
    assert_eq!(all, shown.map(|(command, ..)| (*command).to_owned()).collect());
}

/// So that a row fails below for its target, and not for itself.
#[test]
fn every_row_works_on_a_good_repository() {
    let scratch = prepare();
    for (command, line, does) in commands(&[Does::Looks, Does::Changes, Does::Destroys, Does::Refuses]) {
        let repository = scratch.restore();
        let before = contents(&repository);
        let output = scratch.runs(&line);
        if does == Does::Refuses {
            reads_well(&output, 2, command);
        } else {
            assert_eq!(output.status.code(), Some(0), "{command}: {}", text(&output.stderr));
        }
        let changes = matches!(does, Does::Changes | Does::Destroys) && command != "header import";
        assert_eq!(contents(&repository) != before, changes, "{command}");
    }
    for (command, line, _) in commands(&[Does::Creates, Does::Nothing]) {
        fs::remove_dir_all(scratch.path("repo")).unwrap_or_default();
        assert_eq!(scratch.runs(&line).status.code(), Some(0), "{command}");
    }
}

#[test]
fn where_no_repository_is_every_command_says_so_and_makes_none() {
    let scratch = prepare();
    let all = &[Does::Looks, Does::Changes, Does::Destroys];
    let repository = scratch.path("repo");

    for (command, line, _) in commands(all) {
        let said = reads_well(&scratch.runs(&line), 10, command);
        assert!(said.contains("repo: no repository here"), "{said}");
        assert!(!repository.exists(), "{command} on nothing");
    }

    fs::create_dir(&repository).unwrap();
    for (command, line, _) in commands(all) {
        let said = reads_well(&scratch.runs(&line), 10, command);
        assert!(said.contains("repo: no repository here"), "{said}");
        assert_eq!(fs::read_dir(&repository).unwrap().count(), 0, "{command} in an empty folder");
    }

    fs::write(repository.join("letter.txt"), "dear reader").unwrap();
    fs::create_dir_all(repository.join("ab/cd")).unwrap();
    fs::write(repository.join("ab/cd/file"), "another").unwrap();
    let before = contents(&repository);
    for (command, line, _) in commands(all) {
        let said = reads_well(&scratch.runs(&line), 10, command);
        assert!(said.contains("repo: no repository here"), "{said}");
        assert_eq!(contents(&repository), before, "{command} in a foreign folder");
    }

    fs::remove_dir_all(&repository).unwrap();
    fs::write(&repository, "a file").unwrap();
    for (command, line, _) in commands(&[Does::Looks, Does::Changes, Does::Destroys, Does::Creates]) {
        let said = reads_well(&scratch.runs(&line), 2, command);
        assert!(said.contains("repo: ") && said.contains("it is no folder: name the folder of a repository"), "{said}");
        assert_eq!(fs::read(&repository).unwrap(), b"a file", "{command} on a file");
    }
}

/// The two copies of a header bear names that begin like this.
fn is_header(blob: &Path) -> bool {
    blob.file_name().unwrap().to_str().unwrap().starts_with("7374726f6e677248")
}

fn set_lengths(repository: &Path, which: impl Fn(&Path) -> bool, length: impl Fn(u64) -> u64) {
    for blob in blobs(repository).into_iter().filter(|blob| which(blob)) {
        let file = File::options().write(true).open(blob).unwrap();
        file.set_len(length(file.metadata().unwrap().len())).unwrap();
    }
}

#[test]
fn blobs_that_were_cut_short_are_damage_to_every_command() {
    let scratch = prepare();
    for headers in [true, false] {
        let repository = scratch.restore();
        set_lengths(&repository, |blob| is_header(blob) == headers, |_| 1_000);
        let before = contents(&repository);
        for (command, line, does) in commands(&[Does::Looks, Does::Changes, Does::Creates]) {
            if headers && command == "header import" {
                continue; // puts them back: see the end
            }
            let what = format!("{command}, {}", if headers { "headers" } else { "other blobs" });
            // Where a header can still be read, a repository is there already.
            let code = if does == Does::Creates && !headers { 1 } else { 13 };
            let said = reads_well(&scratch.runs(&line), code, &what);
            assert!(said.contains("repo: ") || command == "header import", "{what}: {said}");
            assert!(contents(&repository) == before, "{what}: the repository was changed");
        }
        if headers {
            scratch.succeeds(["header", "import", "header"]);
            scratch.succeeds(["check", "--data"]);
        }
    }
}

/// What is read of a blob is a part that proves itself: what follows it does no harm, so that only the check looks for it.
#[test]
fn blobs_that_were_made_longer_are_found_by_the_check_and_do_no_harm() {
    let scratch = prepare();
    for (by, headers) in [(1, true), (1, false), (4 << 20, true), (4 << 20, false)] {
        let repository = scratch.restore();
        let good = scratch.succeeds(["cat", "/tree/large"]);
        set_lengths(&repository, |blob| is_header(blob) == headers, |length| length + by);
        let before = contents(&repository);
        let said = scratch.fails(13, ["check", "--data"]);
        assert!(said.contains("longer than"), "{said}");
        speaks_plainly(&said, "check");
        for line in [&["cat", "/tree/large"][..], &["ls", "-R"], &["info"], &["init", "--no-recovery"]] {
            let what = format!("{line:?}, by {by}, headers: {headers}");
            let output = scratch.runs(line);
            match output.status.code() {
                Some(0) => assert!(line[0] != "cat" || output.stdout == good, "{what}"),
                Some(1) if line[0] == "init" => assert!(reads_well(&output, 1, &what).contains("already")),
                _ => assert!(reads_well(&output, 13, &what).contains("longer"), "{what}"),
            }
            assert!(contents(&repository) == before, "{what}");
        }
        let output = scratch.runs(&["put", "local", "/new"]);
        assert!(matches!(output.status.code(), Some(0 | 13)), "{}", text(&output.stderr));
    }
}

#[test]
fn wrong_credentials_are_told_from_damage_and_change_nothing() {
    let mut scratch = prepare();
    let repository = scratch.restore();
    let before = contents(&repository);
    scratch.password = "hunter2".to_owned();
    for (command, line, _) in commands(&[Does::Looks, Does::Changes, Does::Destroys]) {
        if command == "recovery verify" {
            continue; // opens with the recovery key
        }
        reads_well(&scratch.runs(&line), 12, command);
        assert!(contents(&repository) == before, "{command}");
    }
    fs::write(scratch.path("key file"), [7; 64]).unwrap();
    reads_well(&scratch.runs(&["--key-file", "key file", "ls"]), 12, "a key file that opens nothing");
    let other = Scratch::new();
    other.succeeds(["init", "--kdf-time", "1", "--new-recovery-key", "key"]);
    fs::copy(other.path("key"), scratch.path("other key")).unwrap();
    reads_well(&scratch.runs(&["--recovery-key", "other key", "ls"]), 12, "the recovery key of another");
    assert!(contents(&repository) == before);
}

/// Mounted read-only, which binds root too; and without the permission to write, as anyone else meets it.
#[test]
fn a_repository_that_cannot_be_written_can_be_read_and_refuses_changes() {
    if !mounts::inside("bad_input::a_repository_that_cannot_be_written_can_be_read_and_refuses_changes") {
        return;
    }
    let scratch = prepare();
    let program = Path::new(env!("CARGO_BIN_EXE_strongroom"));
    let repository = scratch.restore();
    let try_all = |says: &str, humble: bool| {
        let before = contents(&repository);
        for (command, line, does) in commands(&[Does::Looks, Does::Changes, Does::Creates]) {
            if ["copy", "clone", "fork take"].contains(&command) {
                continue; // where it writes is elsewhere: see `copy.rs` and `clone.rs`
            }
            scratch.clear();
            let mut run = scratch.command();
            if humble {
                run = mounts::humble(program);
                run.current_dir(scratch.root.path()).stdin(Stdio::null()).env("XDG_STATE_HOME", scratch.path("state"));
                run.env("STRONGROOM_REPO", &repository).env("STRONGROOM_PASSWORD", PASSWORD);
            }
            let output = run.args(&line).output().unwrap();
            // With both copies of the header intact, there is nothing that putting it back would write.
            if does == Does::Looks || command == "header import" {
                assert_eq!(output.status.code(), Some(0), "{command}: {}", text(&output.stderr));
            } else {
                // The key is kept where it may be of use, and that is told before.
                let told = text(&output.stderr);
                let said = if told.lines().count() == 2 && told.contains("new recovery key is kept") {
                    assert_eq!(output.status.code(), Some(1), "{command}: {told}");
                    told
                } else {
                    reads_well(&output, 1, command)
                };
                let says = if does == Does::Creates { "already" } else { says };
                assert!(said.contains(says), "{command}: {said}");
            }
            assert!(contents(&repository) == before, "{command}");
        }
    };
    let folders = || common::list(&repository).into_iter().filter(|path| path.is_dir());
    folders().for_each(|folder| fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap());
    try_all("permission denied", true);
    folders().for_each(|folder| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap());
    fs::remove_dir_all(&repository).unwrap();
    mounts::small_disk(&repository, 16 << 10);
    copy_folder(&scratch.path("good"), &repository);
    mounts::remount(&repository, "ro");
    try_all("read-only", false);
    let inner = repository.join("new");
    let output = scratch.command().env("STRONGROOM_REPO", inner).args(["init", "--no-recovery"]).output().unwrap();
    assert!(reads_well(&output, 1, "init on a read-only disk").contains("read-only"));
}
