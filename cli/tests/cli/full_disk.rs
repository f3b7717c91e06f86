//! Storage that fills up to the last byte, becomes read-only, or takes no more from this process: what was acknowledged
//! stays, the program says what to do, and removing something works.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::acceptance::{check_is_clean, copy_folder, stored_bytes, text};
use crate::common::{self, Numbers, PASSWORD, Scratch, mounts};

/// A scratch folder with a small disk, and a repository on it.
struct Small {
    scratch: Scratch,
    disk: PathBuf,
}

impl Small {
    fn new(kib: u64) -> Self {
        let scratch = Scratch::new();
        let disk = scratch.path("disk");
        mounts::small_disk(&disk, kib);
        let small = Self { scratch, disk };
        assert_eq!(
            small.run(&["init", "--no-recovery", "--kdf-time", "1", "--block-size", "64KiB"]).status.code(),
            Some(0)
        );
        small
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let repository = self.disk.join("repo");
        self.scratch.command().env("STRONGROOM_REPO", repository).args(arguments).output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        output.stdout
    }

    fn fails(&self, arguments: &[&str], says: &[&str]) {
        tells(&self.run(arguments), says);
    }

    /// `check --data` finds nothing, on a copy of what is stored so that nothing here is changed by looking.
    fn is_sound(&self) {
        let copy = Scratch::new();
        copy_folder(&self.disk.join("repo"), &copy.path("repo"));
        check_is_clean(&copy, "of the copy");
    }
}

/// It failed with one line that says this.
fn tells(output: &Output, says: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("strongroom: ") && stderr.lines().count() == 1, "{stderr}");
    for says in says {
        assert!(stderr.contains(says), "{says}: {stderr}");
    }
}

fn files(folder: &Path, count: u64, bytes: usize, seed: u64) {
    fs::create_dir_all(folder).unwrap();
    let mut numbers = Numbers::new(seed);
    for number in 0..count {
        fs::write(folder.join(format!("file {number}")), numbers.bytes(bytes)).unwrap();
    }
}

const FULL: &[&str] = &["full", "free some space"];

#[test]
fn an_import_that_fills_the_disk_loses_nothing_and_goes_on_when_there_is_space() {
    if !mounts::inside("full_disk::an_import_that_fills_the_disk_loses_nothing_and_goes_on_when_there_is_space") {
        return;
    }
    let small = Small::new(8 << 10);
    let (first, large) = (small.scratch.path("first"), small.scratch.path("large"));
    files(&first, 4, 300_000, 1);
    files(&large, 12, 1 << 20, 2);
    small.succeeds(&["import", "first"]);
    for _ in 0..2 {
        small.fails(&["import", "large"], FULL);
        assert!(small.succeeds(&["cat", "/first/file 3"]) == fs::read(first.join("file 3")).unwrap());
        small.is_sound();
    }
    mounts::remount(&small.disk, "size=32m");
    small.succeeds(&["import", "large"]);
    small.is_sound();
    small.succeeds(&["export", "/", "out"]);
    for name in ["first", "large"] {
        let (one, other) = (small.scratch.path(name), small.scratch.path("out").join(name));
        assert_eq!(common::compare_trees(&one, &other), Vec::<String>::new());
    }
}

#[test]
fn removing_gives_space_back_on_a_disk_that_is_full_to_the_last_byte() {
    if !mounts::inside("full_disk::removing_gives_space_back_on_a_disk_that_is_full_to_the_last_byte") {
        return;
    }
    let small = Small::new(8 << 10);
    files(&small.scratch.path("tree"), 10, 200_000, 3);
    files(&small.scratch.path("new"), 1, 100_000, 4);
    small.succeeds(&["import", "tree"]);
    for number in 0..4 {
        mounts::fill(&small.disk);
        let before = stored_bytes(&small.disk.join("repo"));
        for arguments in [&["put", "new/file 0", "/new"][..], &["mkdir", "/folder"], &["kv", "put", "k", "v"]] {
            small.fails(arguments, FULL);
        }
        small.is_sound();
        let name = format!("/tree/file {number}");
        small.succeeds(&["rm", &name]);
        let after = stored_bytes(&small.disk.join("repo"));
        assert!(after + 65_536 <= before, "{before} bytes before, {after} after");
        small.is_sound();
    }
    small.succeeds(&["mkdir", "/folder"]);
    small.succeeds(&["rm", "-r", "/tree"]);
    small.succeeds(&["put", "new/file 0", "/new"]);
    assert!(small.succeeds(&["cat", "/new"]) == fs::read(small.scratch.path("new/file 0")).unwrap());
    small.is_sound();
}

#[test]
fn a_full_disk_on_the_other_side_is_told_and_leaves_no_half_written_file() {
    if !mounts::inside("full_disk::a_full_disk_on_the_other_side_is_told_and_leaves_no_half_written_file") {
        return;
    }
    let scratch = Scratch::with_repository();
    files(&scratch.path("tree"), 3, 400_000, 5);
    scratch.succeeds(["import", "tree"]);
    let disk = scratch.path("disk");
    mounts::small_disk(&disk, 512);
    // It ends there: the rest has no room either.
    let output = scratch.run(["export", "/tree", "disk"]);
    tells(&output, &["/tree/file 1: cannot write: No space left", "make room"]);
    let names: Vec<_> = common::list(&disk).into_iter().filter(|path| path.is_file()).collect();
    assert_eq!(names, [disk.join("tree/file 0")]);
    tells(&scratch.run(["get", "/tree/file 1", "disk/one"]), &["/tree/file 1", "No space left"]);
    let filler = mounts::fill(&disk);
    tells(&scratch.run(["header", "export", "disk/header"]), &["disk/header", "No space left"]);
    fs::remove_file(filler).unwrap();
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 1);
}

#[test]
fn an_export_that_runs_out_of_room_tells_what_it_wrote_and_leaves_folders_as_they_are_to_be() {
    if !mounts::inside(
        "full_disk::an_export_that_runs_out_of_room_tells_what_it_wrote_and_leaves_folders_as_they_are_to_be",
    ) {
        return;
    }
    let scratch = Scratch::with_repository();
    let inner = scratch.path("tree/shared/inner");
    files(&inner, 3, 400_000, 5);
    fs::write(scratch.path("tree/a file"), "small").unwrap();
    let modes = [("tree", 0o755), ("tree/shared", 0o750), ("tree/shared/inner", 0o555)];
    for (folder, mode) in modes.into_iter().rev() {
        fs::set_permissions(scratch.path(folder), fs::Permissions::from_mode(mode)).unwrap();
    }
    scratch.succeeds(["import", "tree"]);
    let disk = scratch.path("disk");
    mounts::small_disk(&disk, 512);
    let has_modes = || {
        for (folder, mode) in modes {
            assert_eq!(disk.join(folder).metadata().unwrap().permissions().mode() & 0o7777, mode, "{folder}");
        }
    };
    let output = scratch.run(["export", "/tree", "disk"]);
    tells(&output, &["/tree/shared/inner/file 1: cannot write: No space left", "make room"]);
    let said = text(&output.stdout);
    assert!(said.starts_with("wrote 2 files, 0 folders, 0 links: 390.6KiB in "), "{said}");
    assert!(said.ends_with("; 2 files of 781.2KiB were not written\n"), "{said}");
    has_modes();
    let output = scratch.run(["export", "/tree", "disk", "--json"]);
    tells(&output, &["No space left"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["files"], &report["folders"]), (&1.into(), &0.into()), "{report}");
    assert_eq!(report["not_written"]["files"], 3, "{report}");
    has_modes();
    mounts::remount(&disk, "size=4m");
    let said = text(&scratch.succeeds(["export", "/tree", "disk"]));
    assert!(said.starts_with("wrote 4 files, 3 folders, ") && !said.contains("not written"), "{said}");
    assert_eq!(common::compare_trees(&scratch.path("tree"), &disk.join("tree")), Vec::<String>::new());
}

#[test]
fn a_disk_that_becomes_read_only_is_told_can_be_read_and_is_as_it_was() {
    if !mounts::inside("full_disk::a_disk_that_becomes_read_only_is_told_can_be_read_and_is_as_it_was") {
        return;
    }
    let small = Small::new(8 << 10);
    files(&small.scratch.path("tree"), 2, 100_000, 6);
    small.succeeds(&["import", "tree"]);
    mounts::remount(&small.disk, "ro");
    small.fails(&["put", "tree/file 0", "/new"], &["read-only"]);
    small.fails(&["rm", "/tree/file 0"], &["read-only"]);
    assert!(small.succeeds(&["cat", "/tree/file 0"]) == fs::read(small.scratch.path("tree/file 0")).unwrap());
    small.succeeds(&["check", "--data"]);
    mounts::remount(&small.disk, "rw");
    small.succeeds(&["put", "tree/file 0", "/new"]);
    small.succeeds(&["check", "--data"]);
}

/// As a quota would: files of this process may not grow beyond a limit.
#[test]
fn a_limit_on_what_this_process_may_write_is_a_full_storage() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("large"), Numbers::new(7).bytes(300_000)).unwrap();
    let program = env!("CARGO_BIN_EXE_strongroom");
    let limited = |arguments: &[&str]| {
        let mut command = std::process::Command::new("prlimit");
        command.arg("--fsize=40000").arg(program).args(arguments).current_dir(scratch.root.path());
        command.env("STRONGROOM_REPO", scratch.path("repo")).env("STRONGROOM_PASSWORD", PASSWORD);
        command.env("XDG_STATE_HOME", scratch.path("state")).output().unwrap()
    };
    tells(&limited(&["put", "large", "/large"]), FULL);
    assert_eq!(scratch.succeeds(["ls"]), b"");
    check_is_clean(&scratch, "after a refused write");
    scratch.succeeds(["put", "large", "/large"]);
    tells(&limited(&["get", "/large", "out"]), &["/large"]);
    assert!(!scratch.path("out").exists());
}
