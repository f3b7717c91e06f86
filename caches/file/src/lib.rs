#![doc = include_str!("../README.md")]

mod error;
mod layout;
mod medium;
mod pages;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::cache::{Cache, Load, Part, SingleFlight, Usage};
use strongroom_core::env::MaybeSend;
use strongroom_core::storage::{Blocking, Name, Operation, Result};

use pages::{Look, Pages, Since};

/// A cache of ciphertext in a folder, of at most so many bytes; see [the crate](crate).
#[derive(Debug)]
pub struct FileCache {
    pages: Arc<Pages>,
    flights: SingleFlight,
    blocking: Blocking,
}

impl FileCache {
    /// Opens the cache in a folder, or makes both: for the user alone, where the system can tell users apart. One of another
    /// size that nobody has open is begun anew. Others are waited for a second at most. `blocking` says where calls of the system are made that take a while.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`](strongroom_core::storage::ErrorKind::Busy) where another process has it open with another size;
    /// [`ErrorKind::Invalid`](strongroom_core::storage::ErrorKind::Invalid) where a file is in its place that is no cache; what
    /// the system raises.
    pub async fn open(folder: &Path, bytes_max: u64, blocking: Blocking) -> Result<Self> {
        let folder = folder.to_owned();
        let pages = blocking.run(Operation::Open, move || Pages::open(&folder, bytes_max)).await?;
        Ok(Self { pages: Arc::new(pages), flights: SingleFlight::default(), blocking })
    }

    /// `None` where the worker died: a miss.
    async fn run<T: MaybeSend + 'static>(&self, call: impl FnOnce(&Pages) -> T + MaybeSend + 'static) -> Option<T> {
        let pages = self.pages.clone();
        self.blocking.run(Operation::Get, move || Ok(call(&pages))).await.ok()
    }

    async fn look(&self, name: Name, part: Part) -> Look {
        self.run(move |pages| pages.look(name, part)).await.unwrap_or(Look::Miss(Since::default()))
    }
}

#[async_trait]
impl Cache for FileCache {
    async fn get(&self, name: Name, part: Part) -> Option<Bytes> {
        match self.look(name, part).await {
            Look::Hit(bytes) => Some(bytes),
            Look::Miss(_) => None,
        }
    }

    async fn insert(&self, name: Name, part: Part, bytes: Bytes) {
        self.run(move |pages| pages.keep(name, part, &bytes, None)).await;
    }

    async fn remove(&self, name: Name) {
        self.flights.revoke(name);
        self.run(move |pages| pages.remove(name)).await;
        // Who entered before the removal had ended may share what it loaded until here, and no longer.
        self.flights.revoke(name);
    }

    async fn fetch(&self, name: Name, part: Part, load: Load<'_>) -> Result<Bytes> {
        if let Look::Hit(bytes) = self.look(name, part).await {
            return Ok(bytes);
        }
        let turn = self.flights.enter(name, part).await;
        if let Some(bytes) = turn.landed() {
            return Ok(bytes);
        }
        // It may have come between the look and the turn; if not, this is what the load is judged by.
        let since = match self.look(name, part).await {
            Look::Hit(bytes) => return Ok(bytes),
            Look::Miss(since) => since,
        };
        let bytes = load.await?;
        if !turn.is_revoked() {
            let kept = bytes.clone();
            self.run(move |pages| pages.keep(name, part, &kept, Some(since))).await;
        }
        turn.land(bytes.clone(), || {});
        Ok(bytes)
    }

    async fn usage(&self) -> Usage {
        self.run(Pages::usage).await.unwrap_or_default()
    }
}
