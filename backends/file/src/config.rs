//! `file:dir`, `file:///abs/dir`, and bare paths.

use std::sync::Arc;

use async_trait::async_trait;
use strongroom_core::storage::{OpenContext, Registry, Result, Storage, StorageConstructor, StorageUri};

use crate::storage::FileStorage;

/// Adds `file:` to a registry.
pub fn register(registry: &mut Registry) {
    registry.register("file", FileConstructor);
}

/// Opens folders.
#[derive(Clone, Copy, Debug)]
pub struct FileConstructor;

#[async_trait]
impl StorageConstructor for FileConstructor {
    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
        uri.allow_parameters(&[])?;
        Ok(Arc::new(FileStorage::open(&uri.local_path()?, context).await?))
    }
}
