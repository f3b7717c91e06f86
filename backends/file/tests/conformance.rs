//! The clauses that every storage keeps, in the caller's thread and on workers.

#![allow(clippy::unwrap_used)] // a test that cannot set up its place fails

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use strongroom_conformance::storage::{
    Place, Verdict, acknowledge_to_parent, check_constructor, kill_after, work_until_killed,
};
use strongroom_core::env::{BoxTask, Env, Spawn};
use strongroom_core::storage::{BlockingMode, OpenContext, OpenMode, Registry, Result, Storage, StorageUri};
use tempfile::TempDir;

/// The folder that a process works in until it is killed.
const WORK_IN: &str = "STRONGROOM_CONFORMANCE_WORK_IN";

struct Folder {
    root: TempDir,
    registry: Registry,
    context: OpenContext,
    /// This one's S10, in which a child does its work.
    test: &'static str,
}

impl Folder {
    fn new(test: &'static str, env: Env, blocking: BlockingMode) -> Self {
        let mut registry = Registry::new();
        strongroom_file::register(&mut registry);
        let context = OpenContext::new(env).with_mode(OpenMode::CreateIfMissing).with_blocking(blocking);
        let folder = Self { root: TempDir::new().unwrap(), registry, context, test };
        if let Some(work_in) = std::env::var_os(WORK_IN) {
            strongroom_conformance::block_on(async {
                let storage = folder.open_at(Path::new(&work_in)).await.unwrap();
                work_until_killed(&*storage, acknowledge_to_parent).await.unwrap();
            });
        }
        folder
    }

    async fn open_at(&self, path: &Path) -> Result<Arc<dyn Storage>> {
        self.registry.open(&StorageUri::from_path(path)?, &self.context).await
    }
}

#[async_trait]
impl Place for Folder {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        self.open_at(self.root.path()).await
    }

    fn process_death(&self, rounds: u64) -> Option<u64> {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", self.test]).env(WORK_IN, self.root.path());
        Some(kill_after(&mut child, rounds).unwrap())
    }
}

#[test]
fn the_constructor_keeps_what_it_owes() {
    let (root, mut registry) = (TempDir::new().unwrap(), Registry::new());
    strongroom_file::register(&mut registry);
    for (folder, blocking) in [("new", BlockingMode::Inline), ("of/a new one", BlockingMode::Offload)] {
        std::fs::create_dir_all(root.path().join("of")).unwrap();
        let context = OpenContext::new(threads()).with_blocking(blocking);
        let uri = StorageUri::from_path(&root.path().join(folder)).unwrap();
        let verdict = strongroom_conformance::block_on(check_constructor(&registry, &uri, &context));
        assert_eq!(verdict, Ok(Verdict::Passed), "{folder}");
    }
}

/// A thread a task: enough for tests.
struct Threads(Env);

impl Spawn for Threads {
    fn spawn(&self, task: BoxTask) {
        thread::spawn(|| strongroom_conformance::block_on(task));
    }

    fn parallelism(&self) -> usize {
        2
    }
}

impl strongroom_core::env::Clock for Threads {
    fn now(&self) -> u64 {
        self.0.now()
    }

    fn monotonic_nanos(&self) -> u64 {
        self.0.monotonic_nanos()
    }
}

impl strongroom_core::env::Random for Threads {
    fn fill(&self, bytes: &mut [u8]) -> std::result::Result<(), strongroom_core::env::RandomUnavailable> {
        self.0.fill_random(bytes)
    }
}

fn threads() -> Env {
    let env = Arc::new(Threads(Env::deterministic(2)));
    Env::new(env.clone(), env.clone(), Some(env))
}

// Power is not cut, replies are not lost, batches are sequential, and what another process put is not looked at in every way.
mod inline {
    use super::*;
    const TEST: &str = "inline::s10_a_crash_leaves_blobs_absent_or_whole";
    strongroom_conformance::storage_conformance!(
        Folder::new(TEST, Env::deterministic(1), BlockingMode::Inline),
        limited: [5, 8, 9, 10, 11]
    );
}

mod on_workers {
    use super::*;
    const TEST: &str = "on_workers::s10_a_crash_leaves_blobs_absent_or_whole";
    strongroom_conformance::storage_conformance!(
        Folder::new(TEST, threads(), BlockingMode::Offload),
        limited: [5, 8, 9, 10, 11]
    );
}
