//! The clauses of a cache, for one that is large enough and for one that is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may

use std::fs;
use std::sync::Arc;

use async_trait::async_trait;
use strongroom_conformance::cache::CachePlace;
use strongroom_core::cache::Cache;
use strongroom_core::env::Env;
use strongroom_core::storage::{Blocking, BlockingMode};
use strongroom_file_cache::FileCache;

struct Folder {
    folder: tempfile::TempDir,
    bytes_max: u64,
    mode: BlockingMode,
}

impl Folder {
    fn new(bytes_max: u64) -> Self {
        Self::with(bytes_max, BlockingMode::Inline)
    }

    fn with(bytes_max: u64, mode: BlockingMode) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), bytes_max, mode }
    }
}

#[async_trait]
impl CachePlace for Folder {
    async fn open(&self) -> Arc<dyn Cache> {
        let blocking = Blocking::new(self.mode, Env::deterministic(1));
        Arc::new(FileCache::open(self.folder.path(), self.bytes_max, blocking).await.unwrap())
    }

    fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    fn break_down(&self) -> bool {
        // A file where the folder was: neither what is open is in place any more, nor can it be made anew.
        fs::remove_dir_all(self.folder.path()).unwrap();
        fs::write(self.folder.path(), "").unwrap();
        true
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Broken down, it is a file.
        let _ = fs::remove_file(self.folder.path());
    }
}

mod of_eight_megabytes {
    use super::*;
    strongroom_conformance::cache_conformance!(Folder::new(8 << 20));
}

mod of_one_set {
    use super::*;
    strongroom_conformance::cache_conformance!(Folder::new(300_000));
}

mod without_room {
    use super::*;
    strongroom_conformance::cache_conformance!(Folder::new(1000));
}

mod on_workers {
    use super::*;
    strongroom_conformance::cache_conformance!(Folder::with(1 << 20, BlockingMode::Offload));
}
