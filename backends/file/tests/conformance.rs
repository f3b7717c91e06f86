//! The clauses that every storage keeps, in the caller's thread and on workers.

#![allow(clippy::unwrap_used)] // a test that cannot set up its place fails

use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use strongroom_conformance::storage::Place;
use strongroom_core::env::{BoxTask, Env, Spawn};
use strongroom_core::storage::{BlockingMode, OpenContext, OpenMode, Registry, Result, Storage, StorageUri};
use tempfile::TempDir;

struct Folder {
    root: TempDir,
    registry: Registry,
    context: OpenContext,
}

impl Folder {
    fn new(env: Env, blocking: BlockingMode) -> Self {
        let mut registry = Registry::new();
        strongroom_file::register(&mut registry);
        let context = OpenContext::new(env).with_mode(OpenMode::CreateIfMissing).with_blocking(blocking);
        Self { root: TempDir::new().unwrap(), registry, context }
    }
}

#[async_trait]
impl Place for Folder {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        self.registry.open(&StorageUri::from_path(self.root.path())?, &self.context).await
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

mod inline {
    use super::*;
    strongroom_conformance::storage_conformance!(Folder::new(Env::deterministic(1), BlockingMode::Inline));
}

mod on_workers {
    use super::*;
    strongroom_conformance::storage_conformance!(Folder::new(threads(), BlockingMode::Offload));
}
