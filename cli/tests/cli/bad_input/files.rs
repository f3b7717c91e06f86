//! Files and folders that are no good: where something is taken from, and where it is to go.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::{Does, commands, contents, prepare, reads_well, speaks_plainly};
use crate::common::acceptance::text;
use crate::common::{self, PASSWORD, Scratch, bare_command, mounts, os};

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
