//! `mem://name`: the same name in one registry is the same store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use strongroom_core::storage::{
    Error, ErrorKind, OpenContext, OpenMode, Operation, Registry, Result, SchemeInfo, Storage, StorageConstructor,
    StorageUri,
};

use crate::storage::{CAPABILITIES, MemoryStorage, Store};

/// The scheme of this storage.
const SCHEME: &str = "mem";

/// Adds `mem:` to a registry, with stores of its own.
pub fn register(registry: &mut Registry) {
    registry.register(SCHEME, MemoryConstructor::default());
}

/// Opens stores by name, and keeps them as long as it lives itself.
#[derive(Debug, Default)]
pub struct MemoryConstructor {
    stores: Mutex<BTreeMap<String, Arc<Store>>>,
}

impl MemoryConstructor {
    fn store(&self, name: &str, mode: OpenMode) -> Result<Arc<Store>> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        match (stores.get(name), mode) {
            (Some(store), _) => Ok(store.clone()),
            (None, OpenMode::CreateIfMissing) => Ok(stores.entry(name.to_owned()).or_default().clone()),
            (None, OpenMode::Existing) => {
                Err(Error::new(ErrorKind::NotFound, Operation::Open, format!("{SCHEME}://{name}")))
            }
        }
    }
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl StorageConstructor for MemoryConstructor {
    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
        uri.allow_parameters(&[])?;
        // `mem://a/b` and `mem:a` are names too.
        let name = name_of(uri)?;
        if name.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, Operation::Open, "the storage URI")
                .with_source(format!("the store needs a name: `{SCHEME}://name`")));
        }
        let store = self.store(&name, context.mode)?;
        Ok(Arc::new(MemoryStorage::on(store).await))
    }

    /// What looks like a path is a name.
    fn local_paths(&self, _: &StorageUri) -> Vec<PathBuf> {
        Vec::new()
    }

    fn info(&self) -> SchemeInfo {
        SchemeInfo::new("memory, gone with the process").form("mem://name").capabilities(CAPABILITIES)
    }

    async fn scratch(&self, _: &StorageUri, name: &str, _: &OpenContext) -> Result<Option<StorageUri>> {
        StorageUri::parse(&format!("{SCHEME}://{name}")).map(Some)
    }

    async fn remove_scratch(&self, uri: &StorageUri, _: &OpenContext) -> Result<()> {
        let name = name_of(uri)?;
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if stores.get(&name).is_some_and(|store| store.is_empty()) {
            stores.remove(&name);
        }
        Ok(())
    }
}

fn name_of(uri: &StorageUri) -> Result<String> {
    Ok(format!("{}{}", uri.authority().unwrap_or_default(), uri.path_text()?))
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;
    use strongroom_core::env::Env;
    use strongroom_core::storage::{Name, StorageExt as _};

    use super::*;

    fn open(registry: &Registry, uri: &str, mode: OpenMode) -> Result<Arc<dyn Storage>> {
        let context = OpenContext::new(Env::deterministic(1)).with_mode(mode);
        block_on(registry.open(&StorageUri::parse(uri).unwrap(), &context))
    }

    #[test]
    fn the_same_name_in_one_registry_is_the_same_store() {
        let (mut one, mut other) = (Registry::new(), Registry::new());
        register(&mut one);
        register(&mut other);
        let (here, there) = (Name::new([1; 16]), Name::new([2; 16]));

        let first = open(&one, "mem://a", OpenMode::CreateIfMissing).unwrap();
        block_on(first.put(here, vec![1].into())).unwrap();
        drop(first);
        let again = open(&one, "mem:a", OpenMode::Existing).unwrap();
        assert!(block_on(again.exists(here)).unwrap());
        assert!(!block_on(again.exists(there)).unwrap());

        for (registry, uri) in [(&one, "mem://b"), (&other, "mem://a")] {
            let another = open(registry, uri, OpenMode::CreateIfMissing).unwrap();
            assert!(!block_on(another.exists(here)).unwrap());
        }
    }

    #[test]
    fn a_store_that_is_not_there_is_not_found_and_a_nameless_one_invalid() {
        let mut registry = Registry::new();
        register(&mut registry);
        assert_eq!(open(&registry, "mem://a", OpenMode::Existing).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(open(&registry, "mem:", OpenMode::CreateIfMissing).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(open(&registry, "mem://a?x=1", OpenMode::CreateIfMissing).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
