//! What several suites of the program share: odd trees made from a seed, their comparison, and runs of the real binary.
#![allow(dead_code, unreachable_pub)] // each suite uses a part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // a test may

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use strongroom_s3_server::{ACCESS_KEY, SECRET_KEY};

pub mod acceptance;
pub mod kill;
pub mod mounts;
pub mod raw;

/// The password of every test repository.
pub const PASSWORD: &str = "correct horse battery staple";

/// The storages that are databases of this machine, in this build.
#[cfg(feature = "sled")]
pub const DATABASES: [&str; 3] = ["sqlite", "redb", "sled"];
#[cfg(not(feature = "sled"))]
pub const DATABASES: [&str; 2] = ["sqlite", "redb"];

/// A generator of numbers that is the same everywhere for one seed (splitmix64).
#[derive(Clone)]
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Makes a tree at `root` (which must not exist): about `files` files with about `bytes` bytes in all, beside the odd ones
/// that are always there: strange names, links, empty and sparse files, bare folders, old times, few permissions.
pub fn generate_tree(root: &Path, seed: u64, bytes: u64, files: u64) {
    let mut numbers = Numbers::new(seed);
    fs::create_dir_all(root).unwrap();
    let odd = root.join("odd");
    fs::create_dir(&odd).unwrap();
    let longest = vec![b'n'; 255];
    let names: [&[u8]; 14] = [
        b" leading and trailing ",
        b"-rf",
        b"new\nline",
        b"tab\tand\x1b[31mescape",
        b"\xff\xfe not utf-8",
        &longest,
        b"back\\slash",
        "\u{e4}\u{6f22}\u{1f510}".as_bytes(),
        b"quote'\"",
        b"*?[glob]",
        b"...",
        b"..name",
        b"%41",
        b".hidden",
    ];
    for name in names {
        fs::write(odd.join(os(name)), numbers.bytes(name.len())).unwrap();
    }
    fs::write(root.join("empty"), b"").unwrap();
    fs::create_dir_all(root.join("bare/inner")).unwrap();
    sparse_file(&root.join("sparse"), &mut numbers);
    fs::write(root.join("zeros"), vec![0; 100_000]).unwrap();
    let links = root.join("links");
    fs::create_dir(&links).unwrap();
    symlink("../odd", links.join("folder")).unwrap();
    symlink("../empty", links.join("file")).unwrap();
    symlink("no/such/target", links.join("dangling")).unwrap();
    symlink("/etc/hostname", links.join("absolute")).unwrap();
    symlink(os(b"\xff\xfe"), links.join(os(b"\xfe name"))).unwrap();
    fs::write(root.join("hard 1"), "two names").unwrap();
    fs::hard_link(root.join("hard 1"), root.join("hard 2")).unwrap();

    let each = bytes / files.max(1);
    let mut folder = root.to_owned();
    for number in 0..files {
        if number % 50 == 0 {
            let depth = numbers.below(4);
            folder = (0..depth).fold(root.join("files"), |path, _| path.join(format!("d{}", numbers.below(5))));
            fs::create_dir_all(&folder).unwrap();
        }
        // Most are small, some are many times the mean; half of them compress.
        let scale = if number % 8 == 7 { each * 4 } else { each / 2 };
        let size = usize::try_from(scale / 2 + numbers.below(scale + 1)).unwrap();
        let mut file = File::create(folder.join(format!("file {number}"))).unwrap();
        write_content(&mut file, &mut numbers, size, number % 2 == 0);
    }
    // Deepest first: what is set on a folder must not be changed by what is done in it.
    let mut paths = list(root);
    paths.reverse();
    for (number, path) in (0_u64..).zip(paths) {
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_symlink() {
            continue;
        }
        let mode = match (metadata.is_dir(), number % 6) {
            (true, 0) => 0o755,
            (true, 1) => 0o700,
            (true, _) => 0o750,
            (false, 0) => 0o400,
            (false, 1) => 0o755,
            (false, 2) => 0o640,
            (false, _) => 0o644,
        };
        let time = if number % 40 == 3 {
            SystemTime::UNIX_EPOCH - Duration::new(numbers.below(1 << 30), 0)
        } else {
            let nanos = u32::try_from(numbers.below(1_000_000_000)).unwrap();
            SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000 + numbers.below(700_000_000), nanos)
        };
        File::open(&path).unwrap().set_modified(time).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// The ways in which two trees differ; empty where they are the same in names, kinds, content, links, modes, owners and
/// times of last change.
pub fn compare_trees(one: &Path, other: &Path) -> Vec<String> {
    let mut differences = Vec::new();
    compare(one, other, &mut differences);
    differences
}

fn compare(one: &Path, other: &Path, differences: &mut Vec<String>) {
    let mut differ = |what: String| differences.push(format!("{}: {what}", one.display()));
    let (Ok(a), Ok(b)) = (one.symlink_metadata(), other.symlink_metadata()) else {
        differ(format!("is it there: {} and {}", one.symlink_metadata().is_ok(), other.symlink_metadata().is_ok()));
        return;
    };
    if a.mode() & 0o170_000 != b.mode() & 0o170_000 {
        differ(format!("kind {:?} and {:?}", a.file_type(), b.file_type()));
        return;
    }
    if (a.uid(), a.gid()) != (b.uid(), b.gid()) {
        differ(format!("owner {}:{} and {}:{}", a.uid(), a.gid(), b.uid(), b.gid()));
    }
    if (a.mtime(), a.mtime_nsec()) != (b.mtime(), b.mtime_nsec()) {
        differ(format!("time {}.{:09} and {}.{:09}", a.mtime(), a.mtime_nsec(), b.mtime(), b.mtime_nsec()));
    }
    if a.is_symlink() {
        let (a, b) = (fs::read_link(one).unwrap(), fs::read_link(other).unwrap());
        if a != b {
            differ(format!("target {a:?} and {b:?}"));
        }
        return;
    }
    if a.mode() != b.mode() {
        differ(format!("mode {:o} and {:o}", a.mode(), b.mode()));
    }
    if a.is_file() {
        if a.len() != b.len() {
            differ(format!("size {} and {}", a.len(), b.len()));
        } else if let Some(offset) = first_difference(one, other) {
            differ(format!("content at {offset}"));
        }
        return;
    }
    for name in names(one).union(&names(other)) {
        compare(&one.join(name), &other.join(name), differences);
    }
}

fn first_difference(one: &Path, other: &Path) -> Option<u64> {
    let (mut one, mut other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut offset = 0;
    loop {
        let count = one.read(&mut a).unwrap();
        if count == 0 {
            return None;
        }
        other.read_exact(&mut b[..count]).unwrap();
        if let Some(at) = a[..count].iter().zip(&b[..count]).position(|(a, b)| a != b) {
            return Some(offset + at as u64);
        }
        offset += count as u64;
    }
}

fn names(folder: &Path) -> BTreeSet<OsString> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// Every path below a folder, the folder first.
pub fn list(root: &Path) -> Vec<PathBuf> {
    let mut paths = vec![root.to_owned()];
    let mut next = 0;
    while next < paths.len() {
        let path = paths[next].clone();
        if path.symlink_metadata().unwrap().is_dir() {
            paths.extend(names(&path).into_iter().map(|name| path.join(name)));
        }
        next += 1;
    }
    paths
}

fn sparse_file(path: &Path, numbers: &mut Numbers) {
    let file = File::create(path).unwrap();
    file.write_all_at(&numbers.bytes(5_000), 1 << 20).unwrap();
    file.write_all_at(&numbers.bytes(70_000), (3 << 20) + 4096).unwrap();
    file.set_len((9 << 20) + 17).unwrap();
}

fn write_content(file: &mut File, numbers: &mut Numbers, size: usize, compressible: bool) {
    let mut left = size;
    while left > 0 {
        let count = left.min(1 << 16);
        let mut bytes = numbers.bytes(if compressible { count.div_ceil(16) } else { count });
        if compressible {
            bytes = bytes.iter().flat_map(|byte| [*byte; 16]).take(count).collect();
        }
        file.write_all(&bytes).unwrap();
        left -= count;
    }
}

pub fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// A scratch folder with a repository (to be) in it, and runs of the program on it.
pub struct Scratch {
    pub root: tempfile::TempDir,
    pub scheme: &'static str,
    /// Its address where it is in no file or folder here.
    pub bucket: Option<String>,
    pub password: String,
}

impl Scratch {
    pub fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), scheme: "file", bucket: None, password: PASSWORD.to_owned() }
    }

    /// A new repository, cheap to open.
    pub fn with_repository() -> Self {
        Self::with_repository_on("file")
    }

    /// The same on another storage.
    pub fn with_repository_on(scheme: &'static str) -> Self {
        Self { scheme, ..Self::new() }.initialized()
    }

    /// The same in a bucket of a test's server.
    pub fn with_repository_in(bucket: String) -> Self {
        Self { scheme: "s3", bucket: Some(bucket), ..Self::new() }.initialized()
    }

    fn initialized(self) -> Self {
        self.succeeds(["init", "--no-recovery", "--kdf-time", "1"]);
        self
    }

    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.root.path().join(name.as_ref())
    }

    /// Its address.
    pub fn repository(&self) -> String {
        let local = || format!("{}:{}", self.scheme, self.root.path().join("repo").display());
        self.bucket.clone().unwrap_or_else(local)
    }

    /// The program, ready for its arguments: on `repo`, with the password, never asking.
    pub fn command(&self) -> Command {
        let mut command = bare_command();
        command
            .current_dir(self.root.path())
            .env("XDG_STATE_HOME", self.root.path().join("state"))
            .env("STRONGROOM_REPO", self.repository())
            .env("STRONGROOM_PASSWORD", &self.password);
        if self.bucket.is_some() {
            command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        }
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// Runs, and answers stdout; anything but exit 0 fails the test.
    pub fn succeeds<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Vec<u8> {
        let output = self.run(arguments);
        assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Runs, expects this exit code and one line on stderr, and answers that line.
    pub fn fails<S: AsRef<OsStr>>(&self, code: i32, arguments: impl IntoIterator<Item = S>) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        stderr
    }

    /// Runs as a program that obeys the permissions of files, whoever runs the tests; it is let into the repository.
    pub fn run_humbly<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        for path in list(&self.path("repo")).into_iter().chain([self.path("")]) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mut command = mounts::humble(Path::new(env!("CARGO_BIN_EXE_strongroom")));
        command.current_dir(self.root.path()).env("XDG_STATE_HOME", self.path("not there"));
        command.env("STRONGROOM_REPO", self.path("repo")).env("STRONGROOM_PASSWORD", &self.password);
        command.args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs with something on stdin.
    pub fn feeds<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>, input: &[u8]) -> Output {
        let mut child = self
            .command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        match child.stdin.take().unwrap().write_all(input) {
            // It ended before it had read all: what it says then is for the caller.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            fed => fed.unwrap(),
        }
        child.wait_with_output().unwrap()
    }
}

/// The commands that a help text lists.
pub fn listed_commands(help: &str) -> Vec<&str> {
    let Some((_, listed)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    // What is indented further goes on from the line before.
    let lines = listed.lines().map_while(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    lines.filter_map(|line| line.split_whitespace().next()).collect()
}

/// The program without anything of this process's environment that it listens to.
pub fn bare_command() -> Command {
    mounts::bare(Command::new(env!("CARGO_BIN_EXE_strongroom")))
}
