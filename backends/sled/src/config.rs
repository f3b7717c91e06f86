//! `sled:dir` and `sled:///abs/dir`.

use std::sync::Arc;

use async_trait::async_trait;
use strongroom_core::storage::{
    OpenContext, Registry, Result, SchemeInfo, Storage, StorageConstructor, StorageUri, scratch,
};

use crate::folder::remove;
use crate::storage::{CAPABILITIES, SledStorage};

/// Adds `sled:` to a registry.
pub fn register(registry: &mut Registry) {
    registry.register("sled", SledConstructor);
}

/// Opens databases.
#[derive(Clone, Copy, Debug)]
pub struct SledConstructor;

#[async_trait]
impl StorageConstructor for SledConstructor {
    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
        uri.allow_parameters(&[])?;
        Ok(Arc::new(SledStorage::open(&uri.local_path()?, context).await?))
    }

    fn info(&self) -> SchemeInfo {
        SchemeInfo::new("a sled database, for one process at a time")
            .form("sled:dir")
            .form("sled:///abs/dir")
            .capabilities(CAPABILITIES)
    }

    /// A database beside this one.
    async fn scratch(&self, uri: &StorageUri, name: &str, _: &OpenContext) -> Result<Option<StorageUri>> {
        uri.allow_parameters(&[])?;
        scratch::beside(uri, name).map(Some)
    }

    async fn remove_scratch(&self, uri: &StorageUri, context: &OpenContext) -> Result<()> {
        scratch::remove_empty(self, uri, context, remove).await
    }
}
