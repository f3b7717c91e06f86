//! `file:dir`, `file:///abs/dir`, and bare paths.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use strongroom_core::storage::{
    Error, ErrorKind, OpenContext, Operation, Registry, Result, SchemeInfo, Storage, StorageConstructor, StorageUri,
    Stray, StraysSought,
};

use crate::layout::{INCOMING, Shard, shard_path, temporary_tag};
use crate::storage::{CAPABILITIES, FileStorage};
use crate::strays;

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

    fn info(&self) -> SchemeInfo {
        SchemeInfo::new("a folder, one file a blob")
            .form("file:dir")
            .form("file:///abs/dir")
            .form("a bare path")
            .capabilities(CAPABILITIES)
    }

    async fn strays(&self, uri: &StorageUri, sought: StraysSought, context: &OpenContext) -> Result<Vec<Stray>> {
        let (folder, shown) = (uri.local_path()?, uri.redacted());
        let draws = context.env.random().unwrap_or_default();
        let look = move || strays::strays(&folder, &sought, draws);
        let failed = |error| Error::from_io(Operation::List, shown, error);
        context.blocking().run(Operation::List, move || look().map_err(failed)).await
    }

    async fn copies(&self, uri: &StorageUri, context: &OpenContext) -> Result<Vec<Arc<dyn Storage>>> {
        let (folder, shown, blocking) = (uri.local_path()?, uri.redacted(), context.blocking());
        let look = {
            let blocking = blocking.clone();
            move || strays::copies(&folder, &blocking).map_err(|error| Error::from_io(Operation::List, shown, error))
        };
        let copies = blocking.run(Operation::List, look).await?;
        Ok(copies.into_iter().map(|place| Arc::new(place) as Arc<dyn Storage>).collect())
    }

    /// A sub-folder, which no handle on the folder itself takes for one of its own.
    async fn scratch(&self, uri: &StorageUri, name: &str, _: &OpenContext) -> Result<Option<StorageUri>> {
        uri.allow_parameters(&[])?;
        let folder = uri.local_path()?;
        if !folder.is_dir() {
            return Err(Error::new(ErrorKind::NotFound, Operation::Open, uri.redacted())
                .with_source("there is no such folder: create it first"));
        }
        StorageUri::from_path(&folder.join(name)).map(Some)
    }

    async fn remove_scratch(&self, uri: &StorageUri, context: &OpenContext) -> Result<()> {
        let (folder, shown) = (uri.local_path()?, uri.redacted());
        let remove = move || remove_empty(&folder).map_err(|error| Error::from_io(Operation::Open, shown, error));
        context.blocking().run(Operation::Open, remove).await
    }
}

/// Removes a folder without blobs, step by step: the first thing in it that is not ours stops this.
fn remove_empty(folder: &Path) -> io::Result<()> {
    let gone = |outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    };
    // First, because a folder that has blobs may have someone at work in it too.
    for shard in Shard::MIN..=Shard::MAX {
        gone(std::fs::remove_dir(folder.join(shard_path(shard))))?;
    }
    let incoming = folder.join(INCOMING);
    if incoming.is_dir() {
        for entry in std::fs::read_dir(&incoming)? {
            let entry = entry?;
            // Where folders cannot be locked, two empty files serve.
            let is_lock = |name: &str| cfg!(not(unix)) && matches!(name, "presence.lock" | "gate.lock");
            let is_ours = |name: &str| temporary_tag(name).is_some() || is_lock(name);
            if entry.file_name().to_str().is_some_and(is_ours) {
                gone(std::fs::remove_file(entry.path()))?;
            }
        }
        gone(std::fs::remove_dir(&incoming))?;
    }
    gone(std::fs::remove_dir(folder))
}
