//! What a barrier is, after opening.

#![allow(clippy::unwrap_used)] // a test that cannot set up its place fails

use std::fs;
use std::path::Path;
use std::sync::Arc;

use strongroom_conformance::block_on;
use strongroom_conformance::storage::{sample_bytes, sample_name};
use strongroom_core::storage::{BlockingMode, OpenContext, OpenMode, Storage};
use strongroom_redb::RedbStorage;

async fn open(path: &Path) -> Arc<dyn Storage> {
    let env = strongroom::env::system().unwrap();
    let context = OpenContext::new(env).with_mode(OpenMode::CreateIfMissing).with_blocking(BlockingMode::Inline);
    Arc::new(RedbStorage::open(path, &context).await.unwrap())
}

#[test]
fn the_first_persist_is_a_commit_and_those_after_it_only_where_something_was_put() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    block_on(async {
        open(&path).await.put(sample_name(1), sample_bytes(1, 1000)).await.unwrap();
        let storage = open(&path).await;
        let state = || fs::read(&path).unwrap();
        let before = state();
        storage.persist(&[]).await.unwrap();
        storage.sync().await.unwrap();
        assert!(state() == before, "what nobody asks for is not written");
        storage.persist(&[sample_name(1)]).await.unwrap();
        let after = state();
        assert!(after != before, "nothing was committed");
        storage.persist(&[sample_name(1)]).await.unwrap();
        assert!(state() == after, "nothing was put since");
        storage.put(sample_name(2), sample_bytes(2, 10)).await.unwrap();
        let before = state();
        storage.persist(&[sample_name(1)]).await.unwrap();
        assert!(state() != before, "what was put is not committed");
    });
}
