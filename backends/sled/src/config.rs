//! `sled:dir` and `sled:///abs/dir`.

use std::sync::Arc;

use async_trait::async_trait;
use strongroom_core::storage::{
    Error, ErrorKind, OpenContext, OpenMode, Operation, Registry, Result, SchemeInfo, Storage, StorageConstructor,
    StorageUri,
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
        let mut path = uri.path().to_vec();
        path.extend_from_slice(format!(".{name}").as_bytes());
        uri.with_path(path).map(Some)
    }

    async fn remove_scratch(&self, uri: &StorageUri, context: &OpenContext) -> Result<()> {
        let path = uri.local_path()?;
        let existing = context.clone().with_mode(OpenMode::Existing);
        match SledStorage::open(&path, &existing).await {
            Ok(storage) if storage.list(&[], None).await?.is_empty() => drop(storage),
            Ok(_) => {
                return Err(Error::new(ErrorKind::Invalid, Operation::Open, uri.redacted())
                    .with_source("it still holds blobs, so it is not removed"));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let shown = uri.redacted();
        let remove = move || remove(&path).map_err(|error| Error::from_io(Operation::Open, shown, error));
        context.blocking().run(Operation::Open, remove).await
    }
}
