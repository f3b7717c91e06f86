//! The program on a bucket of S3.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::acceptance::scaled;
use crate::common::{Numbers, Scratch, compare_trees, generate_tree};
use strongroom_s3_server::{ACCESS_KEY, Bill, Conditional, Fault, Prices, SECRET_KEY, Server, ServerOptions};

/// What things cost in a bucket.
const TABLE: &str = include_str!("../../../docs/backends.md");

pub(crate) struct Bucket {
    scratch: Scratch,
    pub(crate) server: Server,
}

/// The keys of every server here.
pub(crate) fn give_keys(command: &mut Command) {
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
}

impl Bucket {
    pub(crate) fn new(options: ServerOptions) -> Self {
        Self { scratch: Scratch::new(), server: Server::start(options).unwrap() }
    }

    pub(crate) fn uri(&self, rest: &str) -> String {
        format!("s3://{rest}endpoint={}", self.server.endpoint())
    }

    fn run(&self, secret: &str, arguments: &[&str]) -> Output {
        let mut command = self.scratch.command();
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", secret);
        let output = command.env_remove("STRONGROOM_REPO").args(arguments).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains(SECRET_KEY) && !text.contains(ACCESS_KEY), "{text}");
        output
    }

    fn succeeds(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.run(SECRET_KEY, arguments);
        assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// One line on stderr, which is answered.
    fn fails(&self, code: i32, secret: &str, arguments: &[&str]) -> String {
        let output = self.run(secret, arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{text}");
        text
    }
}

#[test]
fn a_tree_goes_into_a_bucket_and_comes_back() {
    let bucket = Bucket::new(ServerOptions::default());
    let (tree, out) = (bucket.scratch.path("tree"), bucket.scratch.path("out"));
    generate_tree(&tree, 1, 3_000_000, 40);
    fs::create_dir(&out).unwrap();
    let uri = bucket.uri("bucket/my/backups?");
    let at = ["--no-input", "-r", &uri];
    let with = |rest: &[&'static str]| [&at[..], rest].concat();
    bucket.succeeds(&with(&["import", "--init", "tree"]));
    bucket.succeeds(&with(&["export", "/tree", "out"]));
    assert_eq!(compare_trees(&tree, &out.join("tree")), Vec::<String>::new());
    bucket.succeeds(&with(&["check", "--data"]));
    assert!(!bucket.succeeds(&with(&["ls", "/tree"])).is_empty());
    let again = bucket.fails(1, SECRET_KEY, &with(&["init", "--no-recovery"]));
    assert!(again.contains("already"), "{again}");
    bucket.succeeds(&with(&["destroy", "--yes"]));
    bucket.fails(10, SECRET_KEY, &with(&["ls"]));
}

#[test]
fn failures_are_one_line_that_says_what_to_do_and_have_their_codes() {
    let bucket = Bucket::new(ServerOptions::default());
    let (there, nowhere) = (bucket.uri("bucket/p?"), bucket.uri("nowhere/p?"));
    let told = bucket.fails(10, SECRET_KEY, &["-r", &there, "ls"]);
    assert!(told.contains("s3://bucket/p"), "{told}");
    let told = bucket.fails(12, "wrong", &["-r", &there, "init", "--no-recovery"]);
    assert!(told.contains("AWS_SECRET_ACCESS_KEY"), "{told}");
    // What `init` does not make is not to be made by it.
    for command in [&["init", "--no-recovery"][..], &["ls"], &["info"], &["check"], &["import", "--init", "."]] {
        let told = bucket.fails(1, SECRET_KEY, &[&["-r", nowhere.as_str()], command].concat());
        assert!(told.contains("no such bucket") && !told.contains("with `init`"), "{command:?}: {told}");
    }
    let told = bucket.fails(1, SECRET_KEY, &["conformance", &nowhere]);
    assert!(told.contains("no such bucket"), "{told}");
    let told = bucket.fails(1, SECRET_KEY, &["-r", "s3://bucket?endpoint=http://127.0.0.1:9", "init", "--no-recovery"]);
    assert!(told.contains("nothing listens"), "{told}");
    let told = bucket.fails(2, SECRET_KEY, &["-r", "s3://bucket?endpoint=http://example.org", "init", "--no-recovery"]);
    assert!(told.contains("allow-http=true"), "{told}");
    let told = bucket.fails(2, SECRET_KEY, &["-r", &format!("{there}&regoin=x"), "ls"]);
    assert!(told.contains("regoin"), "{told}");
    for bad in ["0", "1025", "many"] {
        let told = bucket.fails(2, SECRET_KEY, &["-r", &format!("{there}&requests-max={bad}"), "ls"]);
        assert!(told.contains("`requests-max` is a number from 1 to 1024"), "{told}");
    }

    bucket.succeeds(&["-r", &there, "init", "--no-recovery", "--kdf-time", "1"]);
    for (fault, code, says) in [
        (Fault::Refused(403, "AccessDenied"), 1, "s3:GetObject"),
        (Fault::Refused(403, "RequestTimeTooSkewed"), 1, "the clock of this device"),
        (Fault::Refused(400, "ExpiredToken"), 12, "sign in again"),
        (Fault::Refused(507, "XMinioStorageFull"), 1, "no room left"),
    ] {
        bucket.server.faults().always(&[], fault);
        for command in [&["ls"][..], &["mkdir", "/new"]] {
            let told = bucket.fails(code, SECRET_KEY, &[&["-r", there.as_str()], command].concat());
            assert!(told.contains(says) && told.contains("s3://bucket/p"), "{command:?}: {told}");
        }
        bucket.server.faults().clear();
    }
    bucket.succeeds(&["-r", &there, "mkdir", "/new"]);
}

#[test]
fn a_server_that_keeps_no_conditional_puts_is_refused_at_init() {
    let bucket = Bucket::new(ServerOptions { conditional: Conditional::Ignored, ..ServerOptions::default() });
    let uri = bucket.uri("bucket?");
    let told = bucket.fails(2, SECRET_KEY, &["-r", &uri, "init", "--no-recovery"]);
    assert!(told.contains("conditional-put=none"), "{told}");
    let alone = format!("{uri}&conditional-put=none");
    bucket.succeeds(&["-r", &alone, "init", "--no-recovery", "--kdf-time", "1"]);
    bucket.succeeds(&["-r", &alone, "check"]);
}

#[test]
fn backends_shows_it_and_conformance_runs_beside_data() {
    let bucket = Bucket::new(ServerOptions::default());
    let text = String::from_utf8(bucket.succeeds(&["backends"])).unwrap();
    for part in
        ["s3 ", "feature `s3`", "s3://bucket/prefix", "reach everywhere", "blocks 1MiB (at most 4MiB)", "requests-max"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let uri = bucket.uri("bucket/data?");
    bucket.succeeds(&["-r", &uri, "init", "--no-recovery", "--kdf-time", "1"]);
    let before = bucket.server.keys("bucket");
    let text = String::from_utf8(bucket.succeeds(&["conformance", &uri])).unwrap();
    assert!(text.contains("S14"), "{text}");
    assert_eq!(bucket.server.keys("bucket"), before);
}

#[test]
fn no_command_makes_more_requests_at_once_than_it_may_and_each_makes_so_many() {
    const AT_ONCE: usize = 3;
    let bucket = Bucket::new(ServerOptions::default());
    generate_tree(&bucket.scratch.path("tree"), 2, 24 << 20, 60);
    fs::create_dir(bucket.scratch.path("out")).unwrap();
    let uri = bucket.uri(&format!("bucket/p?requests-max={AT_ONCE}&"));
    let away = bucket.uri(&format!("bucket/clone?requests-max={AT_ONCE}&"));
    let init = ["init", "--no-recovery", "--kdf-time", "1"];
    bucket.succeeds(&[&["-r", &uri][..], &init].concat());
    // They wait for each other, and no more come while they wait: however long it takes a machine to send them.
    let does = |place: &str, arguments: &[&str]| {
        bucket.server.faults().meet(AT_ONCE, 3, Duration::from_millis(500), Duration::from_secs(5));
        bucket.succeeds(&[&["-r", place], arguments].concat());
        assert_eq!(bucket.server.faults().take_met(), [AT_ONCE; 3], "{arguments:?}");
    };
    does(&uri, &["import", "tree"]);
    does(&uri, &["export", "/tree", "out"]);
    assert_eq!(compare_trees(&bucket.scratch.path("tree"), &bucket.scratch.path("out/tree")), Vec::<String>::new());
    does(&uri, &["check", "--data"]);
    does(&uri, &["clone", "file:near"]);
    // Made before it is counted: what it is made by tries the server with as many requests as that takes.
    bucket.succeeds(&["-r", &uri, "clone", &away]);
    bucket.succeeds(&["-r", "file:near", "rm", "-r", "/tree"]);
    generate_tree(&bucket.scratch.path("other"), 3, 12 << 20, 20);
    bucket.succeeds(&["-r", "file:near", "import", "other"]);
    does("file:near", &["clone", &away]);
}

/// At full size 1 GiB; else a sixteenth, within the same bound for each GiB.
#[test]
fn an_import_costs_what_the_table_says() {
    const GIB: u64 = 1 << 30;
    const FILE_BYTES: u64 = 1_500_000;
    let bytes = scaled(GIB / 16, GIB);
    let bucket = Bucket::new(ServerOptions::default());
    let tree = bucket.scratch.path("tree");
    let mut numbers = Numbers::new(4);
    let mut left = bytes;
    while left > 0 {
        let folder = tree.join(format!("{}", left % 7));
        fs::create_dir_all(&folder).unwrap();
        let part = left.min(FILE_BYTES);
        fs::write(folder.join(format!("{left}")), numbers.bytes(usize::try_from(part).unwrap())).unwrap();
        left -= part;
    }
    let uri = bucket.uri("bucket/p?");
    bucket.succeeds(&["-r", &uri, "init", "--no-recovery", "--kdf-time", "1"]);
    bucket.server.take_bill();
    bucket.succeeds(&["-r", &uri, "import", "tree"]);
    let bill = bucket.server.take_bill();
    println!("import {bytes} bytes: {bill:?}");

    let row = |name: &str| Bill::stated(TABLE, name).unwrap_or_else(|| panic!("the table has no such row of {name:?}"));
    let (stated, dollars) = row("import 1 GiB");
    let worth =
        [Prices::AWS.requests(&stated), Prices::AWS.traffic(&stated)].map(|dollars| format!("{:.2}", dollars * 1e6));
    assert_eq!(worth, dollars.map(|dollars| format!("{dollars:.2}")));
    // Whatever the size, it is opened, begun and closed once.
    let fixed = ["open", "the first commit of a process", "close"].map(|name| row(name).0.counts());
    for (place, ((what, stated), (_, counted))) in stated.counts().into_iter().zip(bill.counts()).enumerate() {
        let once = fixed.iter().map(|counts| counts[place].1).sum::<u64>().min(stated);
        let bound = once + (stated - once) * (bytes / 1024) / (GIB / 1024);
        assert!(counted <= bound, "{what}: {counted}, which the table says are at most {bound}");
        let slack = if what.starts_with("bytes") { 20_000 } else { 2 };
        assert!(bound <= counted * 2 + slack, "{what}: {counted}, which the table says are {bound}");
    }
}
