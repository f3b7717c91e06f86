//! A process under watch: what it did, step by step, as the kernel was asked for it; and what of that no barrier has covered yet.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    address: String,
    log: File,
}

impl Task {
    /// What this process is to do, where it is watched.
    pub(crate) fn given() -> Option<Self> {
        let [does, scheme] = [DOES, SCHEME].map(|name| std::env::var(name).ok());
        let [place, log] = [PLACE, LOG].map(std::env::var_os);
        let log = File::options().append(true).open(log?).unwrap();
        let address = format!("{}:{}", scheme?, Path::new(&place?).display());
        Some(Self { does: does?, address, log })
    }

    pub(crate) fn does(&self) -> &str {
        &self.does
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
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
            "unlink" | "unlinkat" => {
                self.content.remove(path);
                self.known.remove(path);
                self.names.insert(path.clone());
            }
            "mkdir" | "mkdirat" => {
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

impl Watched {
    pub(crate) fn new() -> Self {
        let root = TempDir::new_in(memory()).unwrap();
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/barriers/watch.c");
        let built = Command::new(&compiler).arg("-o").args([root.path().join("watch"), source]).output();
        let built = built.unwrap_or_else(|error| panic!("no C compiler {}: {error}", compiler.display()));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        fs::create_dir(root.path().join("folder")).unwrap();
        Self { root }
    }

    pub(crate) fn place(&self) -> PathBuf {
        // As the kernel calls it.
        self.root.path().join("folder").canonicalize().unwrap().join("place")
    }

    /// What another process does that is told this, on this storage.
    pub(crate) fn steps(&self, scheme: &str, does: &str) -> Vec<Step> {
        let log = self.root.path().join(does);
        fs::write(&log, "").unwrap();
        let output = Command::new(self.root.path().join("watch"))
            .args([self.place().parent().unwrap(), &log, &std::env::current_exe().unwrap()])
            .args(["--exact", TEST, "--nocapture"])
            .env(DOES, does)
            .env(SCHEME, scheme)
            .env(PLACE, self.place())
            .env(LOG, &log)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
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
