//! `redb:file` and `redb:///abs/file`.

use std::sync::Arc;

use async_trait::async_trait;
use strongroom_core::storage::{
    OpenContext, Registry, Result, SchemeInfo, Storage, StorageConstructor, StorageUri, scratch,
};

use crate::storage::{CAPABILITIES, RedbStorage};

/// Adds `redb:` to a registry.
pub fn register(registry: &mut Registry) {
    registry.register("redb", RedbConstructor);
}

/// Opens databases.
#[derive(Clone, Copy, Debug)]
pub struct RedbConstructor;

#[async_trait]
impl StorageConstructor for RedbConstructor {
    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
        uri.allow_parameters(&[])?;
        Ok(Arc::new(RedbStorage::open(&uri.local_path()?, context).await?))
    }

    fn info(&self) -> SchemeInfo {
        SchemeInfo::new("a redb database, for one process at a time")
            .form("redb:file")
            .form("redb:///abs/file")
            .capabilities(CAPABILITIES)
    }

    /// A database beside this one.
    async fn scratch(&self, uri: &StorageUri, name: &str, _: &OpenContext) -> Result<Option<StorageUri>> {
        uri.allow_parameters(&[])?;
        scratch::beside(uri, name).map(Some)
    }

    async fn remove_scratch(&self, uri: &StorageUri, context: &OpenContext) -> Result<()> {
        scratch::remove_empty(self, uri, context, |path| std::fs::remove_file(path)).await
    }
}
