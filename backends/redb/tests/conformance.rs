//! The clauses that every storage keeps, in the caller's thread and on workers.

#![allow(clippy::unwrap_used)] // a test that cannot set up its place fails

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use strongroom_conformance::block_on;
use strongroom_conformance::power::Files;
use strongroom_conformance::storage::{
    Place, Verdict, acknowledge_to_parent, check_constructor, clauses, kill_after, work_until_killed,
};
use strongroom_core::storage::{BlockingMode, OpenContext, OpenMode, Registry, Result, Storage, StorageUri};
use tempfile::TempDir;

/// The database that a process works in until it is killed.
const WORK_IN: &str = "STRONGROOM_CONFORMANCE_WORK_IN";

fn uri(path: &Path) -> StorageUri {
    StorageUri::parse(&format!("redb:{}", path.display())).unwrap()
}

struct Database {
    _root: TempDir,
    path: PathBuf,
    registry: Registry,
    context: OpenContext,
    /// This one's S10, in which a child does its work.
    test: &'static str,
}

impl Database {
    fn new(test: &'static str, blocking: BlockingMode) -> Self {
        let mut registry = Registry::new();
        strongroom_redb::register(&mut registry);
        let context = OpenContext::new(strongroom::env::system().unwrap())
            .with_mode(OpenMode::CreateIfMissing)
            .with_blocking(blocking);
        if let Some(work_in) = std::env::var_os(WORK_IN) {
            // Before anything is created, which nobody would remove when this is killed.
            block_on(async {
                let storage = registry.open(&uri(Path::new(&work_in)), &context).await.unwrap();
                work_until_killed(&*storage, acknowledge_to_parent).await.unwrap();
            });
        }
        let root = TempDir::new().unwrap();
        Self { path: root.path().join("blobs"), _root: root, registry, context, test }
    }
}

#[async_trait]
impl Place for Database {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        self.registry.open(&uri(&self.path), &self.context).await
    }

    fn process_death(&self, rounds: u64) -> Option<u64> {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", self.test]).env(WORK_IN, &self.path);
        Some(kill_after(&mut child, rounds).unwrap())
    }
}

#[test]
fn the_constructor_keeps_what_it_owes() {
    let (root, mut registry) = (TempDir::new().unwrap(), Registry::new());
    strongroom_redb::register(&mut registry);
    for (file, blocking) in [("new", BlockingMode::Inline), ("of/a%20new one?", BlockingMode::Offload)] {
        std::fs::create_dir_all(root.path().join("of")).unwrap();
        let context = OpenContext::new(strongroom::env::system().unwrap()).with_blocking(blocking);
        let uri = uri(&root.path().join("x")).with_path(root.path().join(file).into_os_string().into_encoded_bytes());
        let verdict = block_on(check_constructor(&registry, &uri.unwrap(), &context));
        assert_eq!(verdict, Ok(Verdict::Passed), "{file}");
    }
    let left: Vec<_> = list(root.path());
    assert!(left.iter().all(|name| !name.contains("conformance")), "scratch places left {left:?}");
}

fn list(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The same with its power cut. A handle stays open, because closing the last one makes all durable.
struct Cut {
    _root: TempDir,
    files: Arc<Files>,
    registry: Registry,
    context: OpenContext,
    keeper: Mutex<Option<Arc<dyn Storage>>>,
}

impl Cut {
    fn new() -> Self {
        let mut registry = Registry::new();
        strongroom_redb::register(&mut registry);
        let env = strongroom::env::system().unwrap();
        let context = OpenContext::new(env).with_mode(OpenMode::CreateIfMissing).with_blocking(BlockingMode::Inline);
        // What the real medium does plays no part, so it may be memory.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        Self { files: Files::new(root.path()).unwrap(), _root: root, registry, context, keeper: Mutex::default() }
    }

    fn path(&self) -> PathBuf {
        self.files.folder().join("blobs")
    }
}

#[async_trait]
impl Place for Cut {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        let open = async || self.registry.open(&uri(&self.path()), &self.context).await;
        if self.keeper.lock().unwrap().is_none() {
            // Closed once after it was made or died, which makes durable what is found.
            drop(open().await?);
            *self.keeper.lock().unwrap() = Some(open().await?);
            self.files.note_barrier().unwrap();
        }
        Ok(self.files.watch(open().await?))
    }

    fn power_loss(&self, seed: u64) -> bool {
        self.files.cut(seed).unwrap();
        *self.keeper.lock().unwrap() = None;
        true
    }

    fn process_death(&self, rounds: u64) -> Option<u64> {
        *self.keeper.lock().unwrap() = None;
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", inline::TEST]).env(WORK_IN, self.path());
        Some(kill_after(&mut child, rounds).unwrap())
    }
}

#[test]
fn barriers_and_batches_outlive_the_power() {
    for clause in clauses().into_iter().filter(|clause| matches!(clause.number(), 8..=10)) {
        assert_eq!(block_on(clause.run(&Cut::new())), Ok(Verdict::Passed), "S{}", clause.number());
    }
}

// Power is not cut here, and replies are not lost.
mod inline {
    use super::*;
    pub(super) const TEST: &str = "inline::s10_a_crash_leaves_blobs_absent_or_whole";
    strongroom_conformance::storage_conformance!(
        Database::new(TEST, BlockingMode::Inline),
        limited: [8, 9, 10, 11]
    );
}

mod on_workers {
    use super::*;
    const TEST: &str = "on_workers::s10_a_crash_leaves_blobs_absent_or_whole";
    strongroom_conformance::storage_conformance!(
        Database::new(TEST, BlockingMode::Offload),
        limited: [8, 9, 10, 11]
    );
}
