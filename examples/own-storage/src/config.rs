//! `log:file` and `log:///abs/file`.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use strongroom_core::storage::{
    OpenContext, Registry, Result, SchemeInfo, Storage, StorageConstructor, StorageUri, scratch,
};

use crate::opening::beside;
use crate::storage::{CAPABILITIES, LogStorage};

/// Adds `log:` to a registry.
pub fn register(registry: &mut Registry) {
    registry.register("log", LogConstructor);
}

/// Opens logs.
#[derive(Clone, Copy, Debug)]
pub struct LogConstructor;

#[async_trait]
impl StorageConstructor for LogConstructor {
    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
        uri.allow_parameters(&[])?;
        Ok(Arc::new(LogStorage::open(&uri.local_path()?, context).await?))
    }

    fn info(&self) -> SchemeInfo {
        SchemeInfo::new("one append-only log, for one process at a time")
            .form("log:file")
            .form("log:///abs/file")
            .capabilities(CAPABILITIES)
    }

    fn local_paths(&self, uri: &StorageUri) -> Vec<PathBuf> {
        let log = uri.local_path().into_iter();
        log.flat_map(|path| [beside(&path), path]).collect()
    }

    /// A log beside this one.
    async fn scratch(&self, uri: &StorageUri, name: &str, _: &OpenContext) -> Result<Option<StorageUri>> {
        uri.allow_parameters(&[])?;
        scratch::beside(uri, name).map(Some)
    }

    async fn remove_scratch(&self, uri: &StorageUri, context: &OpenContext) -> Result<()> {
        // Opening it has removed what a crash may have left beside it.
        scratch::remove_empty(self, uri, context, |path| std::fs::remove_file(path)).await
    }
}
