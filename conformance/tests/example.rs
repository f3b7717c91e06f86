//! The storage of `docs/backends.md` is as short as it says, and keeps every clause.

#[path = "../examples/shelf/storage.rs"]
#[allow(unreachable_pub)] // a crate of its own in real life
mod shelf;

use std::sync::Arc;

use async_trait::async_trait;
use strongroom_conformance::storage::Place;
use strongroom_core::env::Env;
use strongroom_core::storage::{OpenContext, OpenMode, Registry, Result, Storage, StorageUri};

struct MyPlace(Registry);

impl MyPlace {
    fn new() -> Self {
        let mut registry = Registry::new();
        shelf::register(&mut registry);
        Self(registry)
    }
}

#[async_trait]
impl Place for MyPlace {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        let context = OpenContext::new(Env::deterministic(1)).with_mode(OpenMode::CreateIfMissing);
        self.0.open(&StorageUri::parse("shelf://place")?, &context).await
    }
}

strongroom_conformance::storage_conformance!(MyPlace::new(), limited: [8, 9, 10, 11, 14]);

#[test]
fn it_is_under_100_lines() {
    let lines = include_str!("../examples/shelf/storage.rs").lines().count();
    assert!(lines < 100, "{lines} lines");
}
