//! Every command on everything that is no good: it says what is wrong in one line, with the exit code of the contract,
//! and leaves what it was pointed at as it was.

#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
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

#[test]
fn addresses_that_make_no_sense_are_usage_errors() {
    let scratch = prepare();
    let repository = scratch.restore();
    let before = contents(&repository);
    let (long, deep) = ("n".repeat(300), "n/".repeat(4_000));
    let too_long = "n".repeat(17 << 10);
    for (address, code, says) in [
        ("nowhere://x", 2, "unknown scheme"),
        ("s3://bucket/prefix", 2, "available"),
        ("faulty+mem://x", 2, "`faulty`"),
        ("s3://user:hunter2@bucket/x", 2, "secrets do not belong in a URI"),
        ("s3://bucket/x?secret_key=hunter2", 2, "secrets do not belong in a URI"),
        ("file:repo?token=hunter2", 2, "secrets do not belong in a URI"),
        ("file:repo?speed=1", 2, "takes no parameters"),
        ("file:%zz", 2, "hexadecimal"),
        ("file:%", 2, "hexadecimal"),
        ("file:a%00b", 2, "zero byte"),
        ("file:repo#part", 2, "%23"),
        ("file://host/repo", 2, "another machine"),
        ("file:", 2, "empty"),
        ("file:/dev/null", 2, "it is no folder: name the folder of a repository"),
        ("mem:", 2, "mem:"),
        ("mem://absent", 10, "no repository here"),
        (":::", 10, "no repository here"),
        ("../../../../../../../../../../no/such/../folder", 10, "no repository here"),
        ("repo/../../absent", 10, "no repository here"),
        ("", 2, "no repository named"),
        (&long, 2, "name too long"),
        (&deep, 2, "name too long"),
        (&too_long, 2, "16 KiB"),
    ] {
        for command in [&["ls"][..], &["init", "--no-recovery", "--kdf-time", "1"], &["put", "local", "/x"]] {
            if command[0] == "init" && code == 10 {
                continue; // a good place for a new one
            }
            if address.starts_with("faulty+") && cfg!(feature = "faulty") {
                continue; // not off
            }
            let what = format!("{command:?} at {:.40}", address);
            let mut line = vec!["--repo", address];
            line.extend(command);
            let said = reads_well(&scratch.runs(&line), code, &what);
            assert!(said.to_lowercase().contains(&says.to_lowercase()), "{what}: {said}");
        }
    }
    // Bytes that are no text are a name like any other.
    let output = scratch.command().arg("--repo").arg(os(b"\xff\xfe")).arg("ls").output().unwrap();
    assert!(reads_well(&output, 10, "a name that is no text").contains("no repository here"));
    for place in ["/proc/self/no/such", "/dev/null/x"] {
        let said = reads_well(
            &scratch.runs(&["-r", place, "init", "--no-recovery"]),
            if place.starts_with("/dev") { 2 } else { 1 },
            place,
        );
        assert!(said.contains(place), "{said}");
    }
    for address in ["nowhere://x", "absent", "s3://user:hunter2@bucket/x", "local"] {
        let output = scratch.runs(&["conformance", address]);
        let code = output.status.code().unwrap();
        assert!(matches!(code, 1 | 2 | 10), "{address}: {code}");
        reads_well(&output, code, address);
    }
    assert!(contents(&repository) == before && !scratch.path("host").exists());
}

#[test]
fn sizes_rates_numbers_and_flags_that_make_no_sense_are_usage_errors_of_one_line() {
    let scratch = prepare();
    let (repository, name) = (scratch.restore(), "n".repeat(300));
    let before = contents(&repository);
    let new =
        |size: &'static str| vec!["-r", "absent", "init", "--no-recovery", "--kdf-time", "1", "--block-size", size];
    let mut lines: Vec<(Vec<&str>, &str)> = [
        ("5000", "of two"),
        ("0", "of two"),
        ("1KiB", "of two"),
        ("8MiB", "of two"),
        ("5GiB", "4MiB"),
        ("64XiB", "64KiB"),
        ("-1", "'-1'"),
        ("99999999999999999999", "64KiB"),
        ("16EiB", "64KiB"),
        ("", "--block-size"),
        ("1e3", "64KiB"),
    ]
    .map(|(size, says)| (new(size), says))
    .to_vec();
    lines.extend([
        (vec!["no-such-command"], "strongroom --help"),
        (vec!["lss"], "strongroom --help"),
        (vec!["ls", "--no-such"], "strongroom ls --help"),
        (vec!["-q", "-v", "ls"], "cannot be used with"),
        (vec!["-q"], "strongroom --help"),
        (vec!["kv"], "strongroom kv --help"),
        (vec!["key"], "strongroom key --help"),
        (vec!["key", "no-such"], "strongroom key --help"),
        (vec!["cat"], "strongroom cat --help"),
        (vec!["export", "/"], "strongroom export --help"),
        (vec!["export", "/", "--partial"], "strongroom export --help"),
        (vec!["cp", "/tree"], "strongroom cp --help"),
        (vec!["mv", "/tree", "-v"], "strongroom mv --help"),
        (vec!["ls", "--cache-size", "much"], "64KiB"),
        (vec!["ls", "--limit-upload", "10"], "10MiB/s"),
        (vec!["ls", "--limit-upload", "0/s"], "--limit-upload"),
        (vec!["ls", "--limit-download", "-5KiB/s"], "'-5'"),
        (vec!["ls", "--password-fd", "-1"], "'-1'"),
        (vec!["ls", "--password-fd", "99999999999"], "--password-fd"),
        (vec!["ls", "--password-fd", "x"], "--password-fd"),
        (vec!["-r", "absent", "init", "--kdf-time", "soon"], "90s"),
        (vec!["-r", "absent", "init", "--kdf-time", "-3"], "'-3'"),
        (vec!["-r", "absent", "init", "--cipher", "rot13"], "aes-256-gcm"),
        (vec!["-r", "absent", "init", "--dedup", "maybe"], "on, off"),
        (vec!["-r", "absent", "init", "--versions", "1001"], "at most 1000"),
        (vec!["-r", "absent", "init", "--versions", "-1"], "'-1'"),
        (vec!["history", "/tree/small", "--keep", "some"], "default"),
        (vec!["restore", "/tree/small"], "--version"),
        (vec!["restore", "/tree/small", "--version", "first"], "first"),
        (vec!["kv", "scan", "--limit", "few"], "--limit"),
        (vec!["completions", "tcsh"], "bash"),
        (vec!["rm", "--at", "yesterday", "/tree"], "--at"),
        (vec!["check", "--sample", "0"], "--sample"),
        (vec!["check", "--sample", "101"], "--sample"),
        (vec!["check", "--sample", "5", "--data"], "--sample"),
        (vec!["check", "--sample", "5", "--repair"], "--sample"),
        (vec!["import", "tree", "--exclude", "a["], "a["),
        (vec!["import", "tree", "--exclude-file", "absent"], "absent"),
        (vec!["import", "tree", "tree/../tree"], "both arrive"),
        (vec!["key", "rm", "no such slot"], "key list"),
        (vec!["key", "rm", "99"], "key list"),
        (vec!["recovery", "new"], "--output"),
        (vec!["snapshot", "create", &name], "300 bytes long"),
    ]);
    for (line, says) in lines {
        let said = reads_well(&scratch.runs(&line), 2, &format!("{line:?}"));
        assert!(said.contains(says), "{line:?}: {said}");
    }
    let label = ["key", "add", "--new-password-file", "third password", "--label", &name];
    reads_well(&scratch.runs(&label), 1, "a label that is too long");
    let output = scratch.command().args([os(b"--no\xff"), os(b"ls")]).output().unwrap();
    reads_well(&output, 2, "a flag that is no text");
    assert!(contents(&repository) == before && !scratch.path("absent").exists());

    // Help and version stay as they are.
    for (line, code) in [(&["--help"][..], 0), (&["ls", "--help"], 0), (&["--version"], 0), (&[], 2)] {
        let output = bare_command().args(line).output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.starts_with("strongroom: ") && (said.contains("Usage:") || line == ["--version"]), "{said}");
    }
}

#[test]
fn passwords_and_key_files_that_cannot_be_read_are_usage_errors() {
    let scratch = prepare();
    let repository = scratch.restore();
    let before = contents(&repository);
    fs::write(scratch.path("empty"), "").unwrap();
    fs::write(scratch.path("first line empty"), "\nhunter2\n").unwrap();
    fs::write(scratch.path("endless"), vec![b'x'; 2 << 20]).unwrap();
    fs::write(scratch.path("no recovery key"), "hunter2").unwrap();
    fs::write(scratch.path("no text"), b"\xff\xfe").unwrap();
    for (flag, value, says) in [
        ("--password-file", "absent", "absent"),
        ("--password-file", "empty", "empty"),
        ("--password-file", "first line empty", "empty"),
        ("--password-file", "tree", "tree"),
        ("--password-file", "endless", "64KiB"),
        ("--password-file", "/dev/null", "/dev/null"),
        ("--password-fd", "77", "descriptor 77"),
        ("--password-fd", "0", "empty"),
        ("--password-command", "exit 3", "password command"),
        ("--password-command", "echo hunter2; exit 3", "password command"),
        ("--password-command", "true", "empty"),
        ("--password-command", "kill -9 $$", "password command"),
        ("--key-file", "absent", "absent"),
        ("--key-file", "empty", "empty"),
        ("--key-file", "tree", "tree"),
        ("--key-file", "endless", "1MiB"),
        ("--recovery-key", "absent", "absent"),
        ("--recovery-key", "empty", "empty"),
        ("--recovery-key", "tree", "tree"),
        ("--recovery-key", "no recovery key", "recovery key"),
        ("--recovery-key", "no text", "recovery key"),
    ] {
        for command in [&["ls"][..], &["put", "local", "/new"]] {
            let line = [&[flag, value], command].concat();
            let said = reads_well(&scratch.runs(&line), 2, &format!("{line:?}"));
            assert!(said.contains(says), "{line:?}: {said}");
        }
    }
    for (variable, says) in [
        ("STRONGROOM_PASSWORD_FILE", "absent"),
        ("STRONGROOM_KEY_FILE", "absent"),
        ("STRONGROOM_PASSWORD_COMMAND", "password command"),
    ] {
        let mut command = scratch.command();
        // Its own complaint about a command that is not there would be a second line.
        command.env_remove("STRONGROOM_PASSWORD").env(variable, if says == "absent" { "absent" } else { "exit 1" });
        assert!(reads_well(&command.arg("ls").output().unwrap(), 2, variable).contains(says));
    }
    for (line, says) in [
        (&["key", "add", "--new-password-file", "empty"][..], "empty"),
        (&["key", "add", "--new-password-file", "absent"], "absent"),
        (&["key", "add", "--new-key-file", "local"], "kept"),
        (&["key", "passwd", "--new-password-file", "new password", "--with-key-file", "tree"], "tree"),
        (&["recovery", "new", "--output", "local"], "kept"),
        (&["recovery", "new", "--output", "no/such/folder"], "no/such/folder"),
        (&["header", "export", "local"], "kept"),
        (&["header", "import", "absent"], "absent"),
        (&["header", "import", "tree"], "tree"),
    ] {
        let said = reads_well(&scratch.runs(line), 2, &format!("{line:?}"));
        assert!(said.contains(says), "{line:?}: {said}");
    }
    for content in ["empty", "local", "endless", "new password"] {
        let said = reads_well(&scratch.runs(&["header", "import", content]), 13, content);
        assert!(said.contains(content), "{said}");
    }
    assert_eq!(fs::read(scratch.path("local")).unwrap(), b"local");
    assert!(contents(&repository) == before);
}

/// A command that was to change something may leave, beside what was there, what a writer leaves that comes and goes; then
/// the check must be clean, and every file and key as it was.
struct Inside {
    scratch: Scratch,
    repository: PathBuf,
    before: BTreeMap<PathBuf, (u64, u32, Vec<u8>)>,
    holds: Vec<Vec<u8>>,
}

impl Inside {
    fn new() -> Self {
        let scratch = prepare();
        let repository = scratch.restore();
        let (before, holds) = (contents(&repository), holds(&scratch));
        Self { scratch, repository, before, holds }
    }

    #[track_caller]
    fn refuses(&mut self, code: i32, line: &[impl AsRef<OsStr>], says: &str) {
        let what = format!("{:.200}", format!("{:?}", line.iter().map(AsRef::as_ref).collect::<Vec<_>>()));
        let said = reads_well(&self.scratch.runs(line), code, &what);
        assert!(said.contains(says), "{what}: {said}");
        self.is_as_before(&what);
    }

    #[track_caller]
    fn is_as_before(&mut self, what: &str) {
        let now = contents(&self.repository);
        if now != self.before {
            common::acceptance::check_is_clean(&self.scratch, what);
            assert!(holds(&self.scratch) == self.holds, "{what}");
            self.before = now;
        }
    }
}

/// All that is in a repository, as the program tells it.
fn holds(scratch: &Scratch) -> Vec<Vec<u8>> {
    let lines: [&[&str]; 3] =
        [&["ls", "-lR", "--json"], &["cat", "/tree/small", "/tree/large"], &["kv", "scan", "--values"]];
    lines.iter().map(|line| scratch.succeeds(*line)).collect()
}

#[test]
fn paths_in_the_repository_that_lead_nowhere_are_told_and_nothing_is_changed() {
    let mut inside = Inside::new();
    let (long, path) = (format!("/{}", "n".repeat(256)), "/n".repeat(4_000));
    for (code, line, says) in [
        (1, &["ls", "/absent"][..], "/absent: no such file"),
        (1, &["tree", "/absent"], "/absent: no such file"),
        (1, &["tree", "/tree/small"], "/tree/small: not a directory"),
        (1, &["stat", "/absent"], "/absent: no such file"),
        (1, &["stat", "/tree/small/x"], "/tree/small/x: not a directory"),
        (1, &["ls", "/tree/small/"], "not a directory"),
        (1, &["ls", "/tree/loop/"], "too many symbolic links"),
        (1, &["cat", "/tree"], "/tree: is a folder"),
        (1, &["cat", "/tree/loop"], "too many symbolic links"),
        (1, &["cat", "/../../absent"], "no such file"),
        (2, &["ls", ""], "empty"),
        (2, &["cat", ""], "empty"),
        (1, &["cat", &long], "at most 255"),
        (1, &["stat", &path], "no such file"),
        (1, &["get", "/absent", "-"], "/absent: no such file"),
        (1, &["get", "/tree", "-"], "/tree: is a folder"),
        (1, &["export", "/absent", "out"], "/absent: no such file"),
        (2, &["export", "", "out"], "empty"),
        (1, &["put", "local", "/absent/new"], "/absent/new: no such file"),
        (1, &["put", "local", "/tree/small/new"], "not a directory"),
        (1, &["put", "local", &long], "at most 255"),
        (2, &["put", "local", ""], "empty"),
        (2, &["put", "-", "/tree"], "is a folder"),
        (1, &["put", "absent", "/new"], "absent: cannot read"),
        (1, &["put", "tree", "/new"], "import"),
        (1, &["put", "/dev/null", "/new"], "/dev/null"),
        (1, &["mkdir", "/tree"], "already exists"),
        (1, &["mkdir", "/"], "already exists"),
        (1, &["mkdir", "/absent/x"], "no such file"),
        (1, &["mkdir", "/tree/small/x"], "not a directory"),
        (1, &["mkdir", "-p", "/tree/small/x"], "not a directory"),
        (1, &["mkdir", "/good", &long], "at most 255"),
        (2, &["mkdir", ""], "empty"),
        (1, &["rm", "/absent"], "no such file"),
        (1, &["rm", "/tree/small", "/absent"], "no such file"),
        (1, &["rm", "/tree"], "-r"),
        (1, &["rm", "-r", "/"], "-f"),
        (1, &["rm", "/tree/small/"], "not a directory"),
        (1, &["rm", "-r", "/tree/loop/"], "/tree/loop/: not a directory"),
        (2, &["rm", ""], "empty"),
        (1, &["mv", "/absent", "/x"], "no such file"),
        (1, &["mv", "/tree", "/tree/folder/x"], "into itself"),
        (2, &["mv", "/", "/x"], "/: "),
        (1, &["mv", "/tree/small", "/absent/x"], "no such file"),
        (1, &["mv", "/tree/small", &long], "at most 255"),
        (2, &["mv", "/tree/small", ""], "empty"),
        (1, &["mv", "/tree/small", "/tree/large", "/new"], "not a folder"),
        (1, &["import", "absent"], "absent: cannot be read"),
        (1, &["import", "tree", "--to", "/tree/small"], "is not a folder"),
        (1, &["import", "tree", "--to", &long], "at most 255"),
        (2, &["import", "tree", "--to", ""], "empty"),
        (1, &["kv", "get", "absent"], "absent: no such key"),
        (1, &["kv", "del", "key", "absent"], "absent: no such key"),
    ] {
        inside.refuses(code, line, says);
    }
    // Longer than any path.
    let deep = "/n".repeat(40_000);
    inside.refuses(1, &["ls", &deep], "at most");
    inside.refuses(1, &["kv", "put", &"k".repeat(60_000), "v"], "over the limit");
    inside.refuses(1, &[os(b"cat"), os(b"/tree/\xff")], "/tree/");
    // Bytes that are no text are allowed, and `..` ends at the root.
    let scratch = &inside.scratch;
    let output = scratch.command().arg("cat").arg(os(b"/../../tree/folder/\xff\xfe")).output().unwrap();
    assert_eq!(output.stdout, b"no text");
    scratch.restore();
    let new = scratch.command().args([os(b"put"), os(b"local"), os(b"/\xc3\x28")]).output().unwrap();
    assert_eq!(new.status.code(), Some(0));
    assert!(scratch.succeeds(["ls"]).starts_with(b"tree\n") || scratch.succeeds(["ls"]).contains(&0xc3));
}

#[test]
fn what_a_source_does_not_let_us_read_is_listed_and_the_rest_is_stored() {
    let scratch = prepare();
    scratch.restore();
    let source = scratch.path("source");
    fs::create_dir_all(source.join("shut")).unwrap();
    fs::create_dir_all(source.join("open")).unwrap();
    for name in ["shut/inner", "open/secret", "open/plain"] {
        fs::write(source.join(name), name).unwrap();
    }
    let import = || {
        let mut run = mounts::humble(Path::new(env!("CARGO_BIN_EXE_strongroom")));
        run.current_dir(scratch.root.path()).env("XDG_STATE_HOME", scratch.path("state"));
        run.env("STRONGROOM_REPO", scratch.path("repo")).env("STRONGROOM_PASSWORD", PASSWORD);
        run.args(["import", "source"]).stdin(Stdio::null()).output().unwrap()
    };
    fs::set_permissions(source.join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(source.join("open/secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let output = import();
    fs::set_permissions(source.join("shut"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(source.join("open/secret"), fs::Permissions::from_mode(0o644)).unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    speaks_plainly(&said, "import");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    for name in ["source/shut", "source/open/secret"] {
        assert!(lines[..2].iter().any(|line| line.contains(name) && line.contains("cannot be read")), "{said}");
    }
    assert!(lines[2].contains("done in part: 2 "), "{said}");
    assert_eq!(scratch.succeeds(["cat", "/source/open/plain"]), b"open/plain");
    scratch.fails(1, ["stat", "/source/open/secret"]);
    common::acceptance::check_is_clean(&scratch, "after an import in part");

    // Special files alone are left out with a notice.
    fs::create_dir(scratch.path("special")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(scratch.path("special/socket")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(scratch.path("special/fifo")).status().unwrap();
    assert!(made.success() && scratch.path("special/fifo").metadata().unwrap().file_type().is_fifo());
    let output = scratch.runs(&["import", "special"]);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(0), 2), "{said}");
    assert!(said.contains("special/fifo: a FIFO is not stored") && said.contains("a socket is not stored"), "{said}");
    drop(socket);
    // Named by itself, too: and it is not waited for.
    let output = scratch.runs(&["put", "special/fifo", "/fifo"]);
    assert!(reads_well(&output, 1, "put of a FIFO").contains("special/fifo"));
    assert_eq!(scratch.runs(&["import", "special/fifo"]).status.code(), Some(0));
}

#[test]
fn an_import_that_has_no_repository_yet_says_what_it_would_do() {
    let scratch = prepare();
    let output = scratch.runs(&["import", "--init", "--dry-run", "tree"]);
    let (said, out) = (text(&output.stderr), text(&output.stdout));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("would be created") && said.contains("would store /tree/small"), "{said}");
    assert!(out.contains("would store 3 files"), "{out}");
    assert!(!scratch.path("repo").exists());
    reads_well(&scratch.runs(&["import", "--dry-run", "tree"]), 10, "without --init");
    fs::write(scratch.path("repo"), "a file").unwrap();
    reads_well(&scratch.runs(&["import", "--init", "--dry-run", "tree"]), 2, "on a file");
    fs::remove_file(scratch.path("repo")).unwrap();
    // And where one is, it is left alone.
    let repository = scratch.restore();
    let before = contents(&repository);
    let said = reads_well(&scratch.runs(&["init", "--no-recovery"]), 1, "init again");
    assert!(said.contains("already"), "{said}");
    assert!(contents(&repository) == before);
}

#[test]
fn what_cannot_be_written_out_is_told_and_what_is_there_is_kept() {
    let mut inside = Inside::new();
    let path = |name: &str| inside.scratch.path(name);
    fs::create_dir_all(path("shut")).unwrap();
    fs::create_dir_all(path("dest/tree/small/inner")).unwrap();
    fs::write(path("plain"), "kept").unwrap();
    let blocked = path("shut");
    for (code, line, says) in [
        (1, &["export", "/tree", "plain"][..], "plain"),
        (1, &["export", "/tree", "plain/x"], "plain/x"),
        (1, &["export", "/tree", "/proc/no/such"], "/proc/no/such"),
        (2, &["export", "/tree", "-", "--json"], "--json"),
        (1, &["get", "/tree/small", "absent/x"], "absent/x"),
        (1, &["get", "/tree/small", "plain/x"], "plain/x"),
        (2, &["get", "/tree/small", ""], ""),
        (1, &["get", "/tree/small", "absent/"], "absent/: no such folder"),
        (1, &["get", "/tree/small", "/dev/full"], "No space left"),
    ] {
        inside.refuses(code, line, says);
    }
    assert_eq!(fs::read(inside.scratch.path("plain")).unwrap(), b"kept");
    // A folder where a file is to go: the others are written, and the rest is listed.
    let output = inside.scratch.runs(&["export", "/tree", "dest"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("/tree/small: ") && said.contains("a folder is in the way"), "{said}");
    assert!(inside.scratch.path("dest/tree/small/inner").is_dir() && inside.scratch.path("dest/tree/large").is_file());
    // Not writable.
    fs::set_permissions(&blocked, fs::Permissions::from_mode(0o555)).unwrap();
    for line in
        [&["export", "/tree/small", "shut"][..], &["get", "/tree/small", "shut/x"], &["export", "/tree", "shut/new"]]
    {
        let mut run = mounts::humble(Path::new(env!("CARGO_BIN_EXE_strongroom")));
        run.current_dir(inside.scratch.root.path()).env("XDG_STATE_HOME", inside.scratch.path("state"));
        run.env("STRONGROOM_REPO", &inside.repository).env("STRONGROOM_PASSWORD", PASSWORD);
        let output = run.args(line).stdin(Stdio::null()).output().unwrap();
        let said = text(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 3)), "{line:?}: {said}");
        assert!(said.contains("Permission denied"), "{line:?}: {said}");
        speaks_plainly(&said, "not writable");
    }
    assert_eq!(fs::read_dir(&blocked).unwrap().count(), 0);
    inside.is_as_before("after exports");
}

#[test]
fn a_stdout_that_is_full_or_closed_is_told_or_ends_it_quietly() {
    let mut inside = Inside::new();
    for (command, line, does) in commands(&[Does::Looks, Does::Nothing]) {
        let mut lines = vec![line.clone()];
        if command == "export" || command == "info" || command == "ls" {
            lines.push([line.as_slice(), &["--json".into()]].concat());
        }
        for line in lines {
            let run = |stdout: Stdio| {
                inside.scratch.clear();
                inside.scratch.command().args(&line).stdout(stdout).stderr(Stdio::piped()).output().unwrap()
            };
            let what = format!("{line:?}");
            let full = run(File::options().write(true).open("/dev/full").unwrap().into());
            let said = reads_well(&full, 1, &what);
            assert!(said.contains("stdout") && said.contains("No space left"), "{what}: {said}");
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let gone = run(writer.into());
            assert_eq!((gone.status.code(), text(&gone.stderr).as_str()), (Some(1), ""), "{what}");
        }
        if does == Does::Looks {
            inside.is_as_before(command);
        }
    }
    for line in ["--help", "--version"] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = bare_command().arg(line).stdout(full).stderr(Stdio::piped()).output().unwrap();
        reads_well(&output, 1, line);
    }
}
