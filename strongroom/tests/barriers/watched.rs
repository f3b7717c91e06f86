//! A process under watch: what it did, step by step, as the kernel was asked for it; and what of that no barrier has covered yet.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use strongroom_conformance::local::memory;
use tempfile::TempDir;

/// What a watched process does, on which storage, where it is, and what it writes its steps to.
const DOES: &str = "STRONGROOM_TEST_DOES";
const SCHEME: &str = "STRONGROOM_TEST_SCHEME";
const PLACE: &str = "STRONGROOM_TEST_PLACE";
const LOG: &str = "STRONGROOM_TEST_LOG";

/// The test that a watched process runs.
const TEST: &str = "watched_process";

/// The last step.
const END: &str = "end";

/// What a watched process was told.
pub(crate) struct Task {
    does: String,
    scheme: String,
    place: PathBuf,
    log: File,
}

impl Task {
    /// What this process is to do, where it is watched.
    pub(crate) fn given() -> Option<Self> {
        let [does, scheme] = [DOES, SCHEME].map(|name| std::env::var(name).ok());
        let [place, log] = [PLACE, LOG].map(std::env::var_os);
        let log = File::options().append(true).open(log?).unwrap();
        Some(Self { does: does?, scheme: scheme?, place: place?.into(), log })
    }

    pub(crate) fn does(&self) -> &str {
        &self.does
    }

    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.scheme, self.place.display())
    }

    pub(crate) fn place(&self) -> PathBuf {
        self.place.clone()
    }

    /// From here on it does this.
    pub(crate) fn step(&mut self, name: &str) {
        // In one call, so that no other line comes between.
        self.log.write_all(format!("step\t{name}\n").as_bytes()).unwrap();
    }

    /// Done, and this process with it: what is open is not closed, which could sync it.
    pub(crate) fn ends(&mut self) -> ! {
        self.step(END);
        std::process::exit(0);
    }
}

/// What was done until the next step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) calls: Vec<Call>,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// What it is called from then on.
    to: PathBuf,
}

impl Call {
    /// Whether it makes the process wait for the medium.
    pub(crate) fn is_barrier(&self) -> bool {
        matches!(&*self.name, "fsync" | "fdatasync" | "syncfs" | "sync" | "msync") || self.is_request()
    }

    /// Whether it asks the medium to begin to write, which is no promise.
    pub(crate) fn is_request(&self) -> bool {
        self.name.starts_with("sync_file_range")
    }

    pub(crate) fn gives_a_name(&self) -> bool {
        matches!(&*self.name, "rename" | "renameat" | "renameat2" | "link" | "linkat")
    }
}

impl Step {
    pub(crate) fn barriers(&self) -> usize {
        self.calls.iter().filter(|call| call.is_barrier()).count()
    }
}

/// What is in the memory of the operating system, and on the medium perhaps.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    content: BTreeSet<PathBuf>,
    names: BTreeSet<PathBuf>,
    known: BTreeSet<PathBuf>,
}

impl Unsynced {
    /// What a call changes or makes durable.
    pub(crate) fn follow(&mut self, call: &Call) {
        let path = &call.path;
        match &*call.name {
            "fsync" | "fdatasync" => {
                self.content.remove(path);
                // Of a folder: the names in it.
                self.names.retain(|name| name.parent() != Some(path));
            }
            "syncfs" | "sync" => {
                self.content.clear();
                self.names.clear();
            }
            _ if call.gives_a_name() => {
                self.names.remove(path);
                self.names.insert(call.to.clone());
                self.known.insert(call.to.clone());
                if self.content.remove(path) {
                    self.content.insert(call.to.clone());
                }
            }
            "unlink" | "unlinkat" | "rmdir" => {
                self.content.remove(path);
                self.known.remove(path);
                self.names.insert(path.clone());
            }
            // What opens a file stands here only where it makes one: that is empty.
            "mkdir" | "mkdirat" | "symlink" | "symlinkat" | "open" | "openat" | "openat2" | "creat" => {
                if self.known.insert(path.clone()) {
                    self.names.insert(path.clone());
                }
            }
            _ if call.is_request() || call.name == "msync" => {}
            _ => {
                self.content.insert(path.clone());
                // The folder was empty in the beginning: so it is new.
                if self.known.insert(path.clone()) {
                    self.names.insert(path.clone());
                }
            }
        }
    }

    pub(crate) fn has_content_of(&self, path: &Path) -> bool {
        self.content.contains(path)
    }

    /// All of it but what need not be durable.
    pub(crate) fn left(&self, needless: impl Fn(&Path) -> bool) -> Vec<&PathBuf> {
        self.content.iter().chain(&self.names).filter(|path| !needless(path)).collect()
    }
}

/// A folder, empty in the beginning, and what watches who works in it.
pub(crate) struct Watched {
    root: TempDir,
}

/// The program that watches others, built once.
pub(crate) fn watch() -> &'static Path {
    static WATCH: OnceLock<PathBuf> = OnceLock::new();
    WATCH.get_or_init(|| {
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/barriers/watch.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Two runs of these tests may do so at once.
        let (new, built) = (folder.join(format!("watch-{}", std::process::id())), folder.join("watch"));
        let output = Command::new(&compiler).arg("-o").args([&new, &source]).output();
        let output = output.unwrap_or_else(|error| panic!("no C compiler {}: {error}", compiler.display()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(new, &built).unwrap();
        built
    })
}

/// What watching ends with where it could not see what there is to see.
pub(crate) const NOT_SEEN: i32 = 125;

/// How long a watched process may take.
const SECONDS_MAX: u32 = 300;

impl Watched {
    pub(crate) fn new() -> Self {
        let root = TempDir::new_in(memory()).unwrap();
        fs::create_dir(root.path().join("folder")).unwrap();
        Self { root }
    }

    pub(crate) fn place(&self) -> PathBuf {
        // As the kernel calls it.
        self.root.path().join("folder").canonicalize().unwrap().join("place")
    }

    /// A program under watch, by which what it does here is written to a log.
    pub(crate) fn program(&self, log: &str, seconds: u32, program: &Path) -> Command {
        let mut command = Command::new(watch());
        command.args([self.place().parent().unwrap(), &self.root.path().join(log)]);
        command.arg(seconds.to_string()).arg(program);
        command
    }

    /// What another process does that is told this, on this storage.
    pub(crate) fn steps(&self, scheme: &str, does: &str) -> Vec<Step> {
        let log = self.root.path().join(does);
        fs::write(&log, "").unwrap();
        let output = self
            .program(does, SECONDS_MAX, &std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(DOES, does)
            .env(SCHEME, scheme)
            .env(PLACE, self.place())
            .env(LOG, &log)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        if output.status.code() == Some(NOT_SEEN) {
            panic!("{}", said[1].lines().last().unwrap_or_default());
        }
        assert!(output.status.success(), "{scheme}, {does}: {said:?}");
        let mut steps = Vec::<Step>::new();
        for line in fs::read_to_string(log).unwrap().lines() {
            let mut parts = line.split('\t');
            let mut part = || parts.next().unwrap_or_default().to_owned();
            let (name, path, to) = (part(), part(), part());
            match steps.last_mut() {
                _ if name == "step" => steps.push(Step { name: path, calls: Vec::new() }),
                Some(step) => step.calls.push(Call { name, path: path.into(), to: to.into() }),
                None => panic!("a call before the first step: {line}"),
            }
        }
        assert!(steps.last().is_some_and(|step| step.name == END), "{scheme}, {does}: {said:?}");
        steps
    }
}

/// What each process did that worked on one storage.
pub(crate) struct Seen {
    /// Where it was.
    pub(crate) place: PathBuf,
    pub(crate) calls: Vec<Step>,
    /// By another process after that, in the same place.
    pub(crate) persisted: Vec<Step>,
    /// In a place of its own.
    pub(crate) commits: Vec<Step>,
}

impl Seen {
    pub(crate) fn of(scheme: &str) -> Self {
        let watched = Watched::new();
        let (calls, persisted) = (watched.steps(scheme, "calls"), watched.steps(scheme, "persist what is there"));
        Self { place: watched.place(), calls, persisted, commits: Watched::new().steps(scheme, "commits") }
    }
}

#[test]
fn a_file_that_is_made_or_emptied_and_not_written_to_is_left_unsynced_too() {
    let mut unsynced = Unsynced::default();
    let mut left_after = |name: &str, path: &str| {
        unsynced.follow(&Call { name: name.to_owned(), path: path.into(), to: PathBuf::new() });
        unsynced.left(|_| false).len()
    };
    for makes in ["open", "openat", "openat2", "creat", "symlink", "symlinkat", "mkdir", "mkdirat"] {
        let path = format!("/folder/{makes}");
        assert_eq!([left_after(makes, &path), left_after("fsync", "/folder")], [1, 0], "{makes}");
        assert_eq!([left_after("rmdir", &path), left_after("fsync", "/folder")], [1, 0], "{makes}");
    }
    for changes in ["truncate", "copy_file_range", "sendfile", "splice"] {
        left_after("openat", "/folder/file");
        left_after("fsync", "/folder");
        assert_eq!([left_after(changes, "/folder/file"), left_after("fdatasync", "/folder/file")], [1, 0], "{changes}");
    }
}
