//! Places in files of this machine, for the schemes whose URIs name a folder or a file: a fresh one for each test, which a process
//! of its own can open and die in, and one whose power is cut.
//!
//! ```text
//! fn scheme(blocking: BlockingMode) -> LocalScheme {
//!     LocalScheme::new("mine", my_storage::register, strongroom::env::system().unwrap(), blocking)
//! }
//!
//! mod inline {
//!     use super::*;
//!     strongroom_conformance::storage_conformance!(
//!         LocalPlace::new("inline", scheme(BlockingMode::Inline), tempfile::TempDir::new),
//!         limited: [8, 9, 10, 11]
//!     );
//! }
//! ```

#![allow(clippy::unwrap_used)] // a test that cannot set up its place fails

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use strongroom_core::env::Env;
use strongroom_core::storage::{BlockingMode, OpenContext, OpenMode, Registry, Result, Storage, StorageUri};

use crate::block_on;
use crate::power::Files;
use crate::storage::{Place, Verdict, check_constructor, clauses, kill_this_program, work_if_told_to};

/// A scheme whose URIs name files or folders, and how it is opened.
#[derive(Clone, Debug)]
pub struct LocalScheme {
    scheme: &'static str,
    registry: Registry,
    context: OpenContext,
}

impl LocalScheme {
    /// The scheme that `register` adds to a registry. Calls that block are made as `blocking` says, on the workers of `env`.
    #[must_use]
    pub fn new(scheme: &'static str, register: fn(&mut Registry), env: Env, blocking: BlockingMode) -> Self {
        let mut registry = Registry::new();
        register(&mut registry);
        let context = OpenContext::new(env).with_mode(OpenMode::CreateIfMissing).with_blocking(blocking);
        Self { scheme, registry, context }
    }

    fn uri(&self, path: &Path) -> StorageUri {
        let uri = StorageUri::parse(&format!("{}:place", self.scheme)).unwrap();
        uri.with_path(path.as_os_str().as_encoded_bytes()).unwrap()
    }

    async fn open(&self, path: &Path) -> Result<Arc<dyn Storage>> {
        self.registry.open(&self.uri(path), &self.context).await
    }

    /// Tries the constructor ([`check_constructor`]) at a path in `folder` where nothing is, and at one that a URI must escape.
    ///
    /// # Panics
    /// Where the constructor does not keep what it owes, or there are no scratch places, or one is left beside the place.
    pub fn check_constructor(&self, folder: &Path) {
        std::fs::create_dir_all(folder.join("of")).unwrap();
        for path in ["new", "of/a new%20one#"] {
            let uri = self.uri(&folder.join(path));
            let verdict = block_on(check_constructor(&self.registry, &uri, &self.context));
            assert_eq!(verdict, Ok(Verdict::Passed), "{path}");
        }
        let entries = std::fs::read_dir(folder).unwrap().chain(std::fs::read_dir(folder.join("of")).unwrap());
        let left: BTreeSet<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        let is_scratch =
            |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("conformance"));
        assert!(!left.iter().any(|path| is_scratch(path)), "scratch places left {left:?}");
    }
}

/// The test of S10 of the suite in a module of the test program: the process that is going to be killed runs it alone. In that process
/// this works until then.
fn mortal(module: &str, scheme: &LocalScheme) -> String {
    work_if_told_to(async |path| scheme.open(Path::new(&path)).await).unwrap();
    let clauses = clauses();
    let crashes = clauses.iter().find(|clause| clause.number() == 10).unwrap();
    if module.is_empty() { crashes.name().to_owned() } else { format!("{module}::{}", crashes.name()) }
}

/// A store in a folder of its own, in which processes die.
#[derive(Debug)]
pub struct LocalPlace<R> {
    _root: R,
    path: PathBuf,
    scheme: LocalScheme,
    /// The test that a process runs which dies.
    test: String,
}

impl<R: AsRef<Path>> LocalPlace<R> {
    /// In the folder that `root` makes, such as `TempDir::new`, for the suite in that module of the test program: its whole path,
    /// `a::b`, or none for a suite that is in no module.
    ///
    /// # Panics
    /// Where the folder cannot be made.
    #[must_use]
    pub fn new(module: &str, scheme: LocalScheme, root: impl FnOnce() -> io::Result<R>) -> Self {
        // Before anything is made, which nobody would remove where this is the process that is killed.
        let test = mortal(module, &scheme);
        let root = root().unwrap();
        Self { path: root.as_ref().join("blobs"), _root: root, scheme, test }
    }

    /// Where the store is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[async_trait]
impl<R: Send + Sync> Place for LocalPlace<R> {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        self.scheme.open(&self.path).await
    }

    fn process_death(&self, rounds: u64) -> Option<u64> {
        Some(kill_this_program(&self.test, &self.path, rounds).unwrap())
    }
}

/// The same whose power is cut, for a store in files of one folder: see [`power`](crate::power), and for which it is not.
pub struct CutPlace<R> {
    _root: R,
    files: Arc<Files>,
    scheme: LocalScheme,
    /// The test that a process runs which dies.
    test: String,
    /// A handle that stays open, because closing the last one makes all durable.
    keeper: Mutex<Option<Arc<dyn Storage>>>,
}

impl<R: AsRef<Path>> CutPlace<R> {
    /// As [`LocalPlace::new`]. What the real medium does plays no part, so the folder is best in memory ([`memory`]).
    ///
    /// # Panics
    /// Where the folder cannot be made.
    #[must_use]
    pub fn new(module: &str, scheme: LocalScheme, root: impl FnOnce() -> io::Result<R>) -> Self {
        let test = mortal(module, &scheme);
        let root = root().unwrap();
        Self { files: Files::new(root.as_ref()).unwrap(), _root: root, scheme, test, keeper: Mutex::default() }
    }
}

impl<R> CutPlace<R> {
    fn path(&self) -> PathBuf {
        self.files.folder().join("blobs")
    }
}

#[async_trait]
impl<R: Send + Sync> Place for CutPlace<R> {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        let path = self.path();
        if self.keeper.lock().unwrap().is_none() {
            // Closed once after it was made or died, which makes durable what is found.
            drop(self.scheme.open(&path).await?);
            let keeper = self.scheme.open(&path).await?;
            *self.keeper.lock().unwrap() = Some(keeper);
            self.files.note_barrier().unwrap();
        }
        Ok(self.files.watch(self.scheme.open(&path).await?))
    }

    fn power_loss(&self, seed: u64) -> bool {
        self.files.cut(seed).unwrap();
        *self.keeper.lock().unwrap() = None;
        true
    }

    fn process_death(&self, rounds: u64) -> Option<u64> {
        *self.keeper.lock().unwrap() = None;
        Some(kill_this_program(&self.test, self.path(), rounds).unwrap())
    }
}

/// Tries what the power has to do with: batches, barriers, crashes (S8 to S10).
///
/// # Panics
/// Where one of these clauses is broken, or not tried in full.
pub fn check_power<P: Place>(place: impl Fn() -> P) {
    for clause in clauses().into_iter().filter(|clause| matches!(clause.number(), 8..=10)) {
        assert_eq!(block_on(clause.run(&place())), Ok(Verdict::Passed), "S{}", clause.number());
    }
}

/// A folder in memory, where there is such; else that for what is temporary.
#[must_use]
pub fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}
