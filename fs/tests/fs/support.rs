//! File systems, on the crashing double or on what stands in its place.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use strongroom_conformance::crash::CrashOptions;
use strongroom_core::crypto::{KdfParameters, RootSecret, Suite};
use strongroom_core::engine::keyring::Credentials;
use strongroom_core::engine::{self, CreateOptions, Engine, Unlock};
use strongroom_core::env::{BoxTask, Clock, Env, Random, RandomUnavailable, Spawn};
use strongroom_fs::{CheckOptions, File, FileSystem, Follow, Kind, OpenOptions, Options, Result};

use super::medium::{self, Medium};
use super::model::Shown;

/// A repository on a medium; opened again by its root secret, so that key derivation is not the cost.
pub(crate) struct Bed {
    pub(crate) storage: Medium,
    root: RootSecret,
    env: fn(u64) -> Env,
    seed: u64,
}

pub(crate) fn tuning() -> engine::Tuning {
    engine::Tuning { checkpoint_commits: 12, close_commits: 8, check_bytes_max: 400, ..engine::Tuning::default() }
}

impl Bed {
    pub(crate) async fn with(
        seed: u64,
        block_bytes: u32,
        options: Options,
        crash: CrashOptions,
        env: fn(u64) -> Env,
    ) -> (Self, FileSystem) {
        let storage = Medium::new(crash);
        let credentials = Credentials::password("correct horse");
        let create = CreateOptions {
            credentials: &credentials,
            recovery: None,
            suite: Suite::Aes256Gcm,
            block_bytes,
            kdf: KdfParameters::MINIMUM,
            trusted: medium::memory(),
            tuning: tuning(),
        };
        let engine = Engine::create(Arc::new(storage.another()), env(seed), create).await.unwrap();
        let root = engine.root_secret();
        let fs = FileSystem::create(engine, options).await.unwrap();
        (Self { storage, root, env, seed }, fs)
    }

    pub(crate) async fn new(block_bytes: u32) -> (Self, FileSystem) {
        let crash = CrashOptions { yields: false, ..CrashOptions::default() };
        Self::with(1, block_bytes, Options::default(), crash, Env::deterministic).await
    }

    /// On worker threads.
    pub(crate) async fn threaded(block_bytes: u32, options: Options) -> (Self, FileSystem) {
        let crash = CrashOptions { yields: false, ..CrashOptions::default() };
        Self::with(1, block_bytes, options, crash, threaded).await
    }

    /// Another process opens it.
    pub(crate) async fn open(&mut self) -> Result<FileSystem> {
        self.open_with(tuning(), false).await
    }

    /// Another process opens it, and changes nothing.
    pub(crate) async fn open_to_read(&mut self) -> Result<FileSystem> {
        self.open_with(tuning(), true).await
    }

    pub(crate) async fn open_tuned(&mut self, tuning: engine::Tuning) -> Result<FileSystem> {
        self.open_with(tuning, false).await
    }

    async fn open_with(&mut self, tuning: engine::Tuning, read_only: bool) -> Result<FileSystem> {
        self.seed += 1;
        let mut options = engine::OpenOptions::new(Unlock::Root(&self.root));
        options.tuning = tuning;
        (options.read_only, options.trusted) = (read_only, medium::memory());
        let engine = Engine::open(Arc::new(self.storage.reopen()), (self.env)(self.seed << 32), options).await?;
        FileSystem::open(engine).await
    }
}

/// A file is made where there is none.
pub(crate) fn writing() -> OpenOptions {
    OpenOptions::new().write(true).create(true)
}

pub(crate) async fn content(file: &File) -> Vec<u8> {
    let mut out = vec![0; file.len().await.unwrap() as usize];
    file.read_exact_at(0, &mut out).await.unwrap();
    out
}

/// How many chunks are kept.
pub(crate) async fn chunks(fs: &FileSystem) -> u64 {
    fs.engine().info().await.unwrap().chunks
}

/// Everything that either check can find is in order, and the chunks are referred to as often as they count.
pub(crate) async fn assert_sound(fs: &FileSystem) {
    let mut findings = Vec::new();
    let summary = fs.check(CheckOptions { data: true }, |finding| findings.push(finding.to_string())).await.unwrap();
    assert!(findings.is_empty() && summary.findings == 0, "{findings:#?}");
    let options = engine::CheckOptions {
        data: true,
        references: Some(summary.references.clone()),
        ..engine::CheckOptions::default()
    };
    let report = fs.engine().check(options).await.unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

/// What a path shows: content, target, or that it is a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    File(Vec<u8>),
    Directory,
    Symlink(Vec<u8>),
}

/// The whole tree, path by path.
pub(crate) async fn tree(fs: &FileSystem) -> BTreeMap<String, Seen> {
    try_tree(fs).await.unwrap()
}

pub(crate) async fn try_tree(fs: &FileSystem) -> Result<BTreeMap<String, Seen>> {
    let snapshot = fs.snapshot();
    let mut seen = BTreeMap::new();
    let mut todo = vec![String::new()];
    while let Some(directory) = todo.pop() {
        for entry in snapshot.read_dir(format!("{directory}/")).await? {
            let path = format!("{directory}/{}", entry.name_str().unwrap());
            let what = match entry.kind {
                Kind::File => Seen::File(snapshot.read(&path).await?),
                Kind::Symlink => Seen::Symlink(snapshot.read_link(&path).await?),
                Kind::Directory => {
                    todo.push(path.clone());
                    Seen::Directory
                }
            };
            seen.insert(path, what);
        }
    }
    Ok(seen)
}

/// The whole tree, with what each path has besides.
pub(crate) async fn shown(fs: &FileSystem) -> Result<BTreeMap<String, Shown>> {
    let snapshot = fs.snapshot();
    let mut shown = BTreeMap::new();
    for (path, seen) in try_tree(fs).await? {
        let mut xattrs = BTreeMap::new();
        for name in snapshot.xattrs(&path, Follow::No).await? {
            let value = snapshot.xattr(&path, &name, Follow::No).await?;
            xattrs.insert(name, value.unwrap_or_default());
        }
        let metadata = snapshot.symlink_metadata(&path).await?;
        assert_eq!(metadata.has_xattrs, !xattrs.is_empty(), "{path}");
        shown.insert(path, (seen, metadata.mode, xattrs));
    }
    Ok(shown)
}

/// Bytes that do not compress and do not repeat.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
}

/// An environment with two worker threads, otherwise as deterministic as can be.
pub(crate) fn threaded(seed: u64) -> Env {
    let inner = Arc::new(Inner(Env::deterministic(seed)));
    Env::new(inner.clone(), inner, Some(Arc::new(Workers::new())))
}

/// An environment whose workers are done with what they are given before whoever gave it goes on: deterministic, and as if
/// there were several.
pub(crate) fn at_once(seed: u64) -> Env {
    let inner = Arc::new(Inner(Env::deterministic(seed)));
    Env::new(inner.clone(), inner, Some(Arc::new(AtOnce)))
}

/// An environment with these workers, otherwise as deterministic as can be.
pub(crate) fn with_workers(seed: u64, workers: Arc<dyn Spawn>) -> Env {
    let inner = Arc::new(Inner(Env::deterministic(seed)));
    Env::new(inner.clone(), inner, Some(workers))
}

struct AtOnce;

impl Spawn for AtOnce {
    fn spawn(&self, task: BoxTask) {
        futures_lite::future::block_on(task);
    }

    fn parallelism(&self) -> usize {
        2
    }
}

struct Inner(Env);

impl Clock for Inner {
    fn now(&self) -> u64 {
        self.0.now()
    }

    fn monotonic_nanos(&self) -> u64 {
        self.0.monotonic_nanos()
    }
}

impl Random for Inner {
    fn fill(&self, bytes: &mut [u8]) -> std::result::Result<(), RandomUnavailable> {
        self.0.fill_random(bytes)
    }
}

struct Workers {
    tasks: Mutex<Sender<BoxTask>>,
}

impl Workers {
    fn new() -> Self {
        let (sender, receiver) = channel::<BoxTask>();
        let receiver: Arc<Mutex<Receiver<BoxTask>>> = Arc::new(Mutex::new(receiver));
        for _ in 0..2 {
            let receiver = receiver.clone();
            std::thread::spawn(move || {
                loop {
                    let task = receiver.lock().unwrap().recv();
                    let Ok(task) = task else { break };
                    futures_lite::future::block_on(task);
                }
            });
        }
        Self { tasks: Mutex::new(sender) }
    }
}

impl Spawn for Workers {
    fn spawn(&self, task: BoxTask) {
        self.tasks.lock().unwrap().send(task).unwrap();
    }

    fn parallelism(&self) -> usize {
        2
    }
}
