//! The clauses that every storage keeps, in the caller's thread and on workers.

#![allow(clippy::unwrap_used)] // a test that cannot set up its place fails

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use strongroom_conformance::block_on;
use strongroom_conformance::storage::{
    Place, Verdict, acknowledge_to_parent, check_constructor, kill_after, work_until_killed,
};
use strongroom_core::storage::{BlockingMode, OpenContext, OpenMode, Registry, Result, Storage, StorageUri};
use tempfile::TempDir;

/// The database that a process works in until it is killed.
const WORK_IN: &str = "STRONGROOM_CONFORMANCE_WORK_IN";

fn uri(path: &Path) -> StorageUri {
    StorageUri::parse(&format!("sled:{}", path.display())).unwrap()
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
        strongroom_sled::register(&mut registry);
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
    strongroom_sled::register(&mut registry);
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

// Batches are sequential, power is not what is promised against, and replies are not lost.
mod inline {
    use super::*;
    const TEST: &str = "inline::s10_a_crash_leaves_blobs_absent_or_whole";
    strongroom_conformance::storage_conformance!(
        Database::new(TEST, BlockingMode::Inline),
        limited: [8, 10, 11]
    );
}

mod on_workers {
    use super::*;
    const TEST: &str = "on_workers::s10_a_crash_leaves_blobs_absent_or_whole";
    strongroom_conformance::storage_conformance!(
        Database::new(TEST, BlockingMode::Offload),
        limited: [8, 10, 11]
    );
}
