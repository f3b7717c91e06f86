//! The clauses that every storage keeps, in the caller's thread and on workers.

#![allow(clippy::unwrap_used)] // a test that cannot set up its place fails

use std::sync::Arc;
use std::thread;

use strongroom_conformance::block_on;
use strongroom_conformance::local::{LocalPlace, LocalScheme};
use strongroom_core::env::{BoxTask, Clock, Env, Random, RandomUnavailable, Spawn};
use strongroom_core::storage::BlockingMode;
use tempfile::TempDir;

fn scheme(env: Env, blocking: BlockingMode) -> LocalScheme {
    LocalScheme::new("file", strongroom_file::register, env, blocking)
}

#[test]
fn the_constructor_keeps_what_it_owes() {
    for blocking in [BlockingMode::Inline, BlockingMode::Offload] {
        scheme(threads(), blocking).check_constructor(TempDir::new().unwrap().path());
    }
}

/// A thread a task: enough for tests.
struct Threads(Env);

impl Spawn for Threads {
    fn spawn(&self, task: BoxTask) {
        thread::spawn(|| block_on(task));
    }

    fn parallelism(&self) -> usize {
        2
    }
}

impl Clock for Threads {
    fn now(&self) -> u64 {
        self.0.now()
    }

    fn monotonic_nanos(&self) -> u64 {
        self.0.monotonic_nanos()
    }
}

impl Random for Threads {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomUnavailable> {
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
    strongroom_conformance::storage_conformance!(
        LocalPlace::new("inline", scheme(Env::deterministic(1), BlockingMode::Inline), TempDir::new),
        limited: [5, 8, 9, 10, 11]
    );
}

mod on_workers {
    use super::*;
    strongroom_conformance::storage_conformance!(
        LocalPlace::new("on_workers", scheme(threads(), BlockingMode::Offload), TempDir::new),
        limited: [5, 8, 9, 10, 11]
    );
}
