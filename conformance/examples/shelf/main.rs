//! A storage of one's own, in under 100 lines (`storage.rs`), opened by its URI.

#[allow(unreachable_pub)] // a crate of its own in real life
mod storage;

use strongroom_core::env::Env;
use strongroom_core::storage::{Name, OpenContext, OpenMode, Registry, StorageExt as _, StorageUri};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut registry = Registry::new();
    storage::register(&mut registry);
    let uri = StorageUri::parse("shelf://example")?;
    let context = OpenContext::new(Env::deterministic(1)).with_mode(OpenMode::CreateIfMissing);
    strongroom_conformance::block_on(async {
        let shelf = registry.open(&uri, &context).await?;
        println!("{:?}", shelf.put(Name::new([7; 16]), "seven".into()).await?);
        println!("{:?}", shelf.get_all(Name::new([7; 16]), 100).await?);
        Ok(())
    })
}
