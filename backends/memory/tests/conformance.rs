//! The clauses that every storage keeps.

use std::sync::Arc;

use async_trait::async_trait;
use strongroom_conformance::block_on;
use strongroom_conformance::storage::{Place, Verdict, check_constructor};
use strongroom_core::env::Env;
use strongroom_core::storage::{OpenContext, OpenMode, Registry, Result, Storage, StorageUri};

struct Memory(Registry);

impl Memory {
    fn new() -> Self {
        let mut registry = Registry::new();
        strongroom_memory::register(&mut registry);
        Self(registry)
    }
}

#[async_trait]
impl Place for Memory {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        let context = OpenContext::new(Env::deterministic(1)).with_mode(OpenMode::CreateIfMissing);
        self.0.open(&StorageUri::parse("mem://place")?, &context).await
    }
}

#[test]
fn the_constructor_keeps_what_it_owes() {
    let Memory(registry) = Memory::new();
    for uri in ["mem://new", "mem:new/sub"] {
        let context = OpenContext::new(Env::deterministic(1));
        let verdict = block_on(check_constructor(&registry, &StorageUri::parse(uri).unwrap(), &context));
        assert_eq!(verdict, Ok(Verdict::Passed), "{uri}");
    }
}

// Nothing here is durable, there is no power to cut, and no reply to lose.
strongroom_conformance::storage_conformance!(Memory::new(), limited: [8, 9, 10, 11]);
