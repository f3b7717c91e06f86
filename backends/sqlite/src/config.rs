//! `sqlite:file` and `sqlite:///abs/file`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use strongroom_core::storage::{
    OpenContext, Registry, Result, SchemeInfo, Storage, StorageConstructor, StorageUri, scratch,
};

use crate::lock::beside;
use crate::storage::{CAPABILITIES, SqliteStorage};

/// What is beside a database for some or all of its life: SQLite's log, its index, and its journal while the database is made;
/// our locks.
const BESIDE: [&str; 5] = ["-wal", "-shm", "-journal", "-here", "-gate"];

/// Adds `sqlite:` to a registry.
pub fn register(registry: &mut Registry) {
    registry.register("sqlite", SqliteConstructor);
}

/// Opens databases.
#[derive(Clone, Copy, Debug)]
pub struct SqliteConstructor;

#[async_trait]
impl StorageConstructor for SqliteConstructor {
    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
        uri.allow_parameters(&[])?;
        Ok(Arc::new(SqliteStorage::open(&uri.local_path()?, context).await?))
    }

    fn info(&self) -> SchemeInfo {
        SchemeInfo::new("an SQLite database, one row a blob")
            .form("sqlite:file")
            .form("sqlite:///abs/file")
            .capabilities(CAPABILITIES)
    }

    /// All that SQLite and the locks make beside the file that a link leads to.
    fn local_paths(&self, uri: &StorageUri) -> Vec<PathBuf> {
        let Ok(path) = uri.local_path() else { return Vec::new() };
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let beside = BESIDE.map(|suffix| beside(&path, suffix));
        [path].into_iter().chain(beside).collect()
    }

    /// A database beside this one.
    async fn scratch(&self, uri: &StorageUri, name: &str, _: &OpenContext) -> Result<Option<StorageUri>> {
        uri.allow_parameters(&[])?;
        scratch::beside(uri, name).map(Some)
    }

    async fn remove_scratch(&self, uri: &StorageUri, context: &OpenContext) -> Result<()> {
        scratch::remove_empty(self, uri, context, remove_files).await
    }
}

/// The database last: as long as it is there, so is the scratch place.
fn remove_files(path: &Path) -> io::Result<()> {
    let beside = BESIDE.map(|suffix| beside(path, suffix)).into_iter();
    for path in beside.chain([path.to_owned()]) {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
