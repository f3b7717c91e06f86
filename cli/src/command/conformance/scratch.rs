//! Scratch data that cannot meet anyone's: in a place of its own where the scheme has such, else in a store that is empty;
//! and nothing is deleted but what the suite itself put.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use strongroom::storage::{
    self, Capabilities, Change, ErrorKind, ExclusiveGuard, Name, OpenContext, OpenMode, Put, Registry, Storage,
    StorageUri,
};
use strongroom_conformance::storage::Place;

use crate::exit::Failure;
use crate::output::hex;

/// Where scratch places come from.
pub(super) struct Scratch {
    registry: Registry,
    uri: StorageUri,
    open: OpenContext,
    /// Tells this run's places from those of others.
    run: String,
}

impl Scratch {
    pub(super) async fn new(registry: Registry, uri: StorageUri, open: OpenContext) -> Result<Self, Failure> {
        let run: [u8; 8] = open.env.random().map_err(|error| Failure::failed(error.to_string()))?;
        registry.constructor(&uri)?;
        Ok(Self { registry, uri, open, run: format!("strongroom-conformance-{}", hex(&run)) })
    }

    /// An empty place for one clause.
    pub(super) async fn place(&self, clause: u32) -> Result<ScratchPlace, Failure> {
        let name = format!("{}-{clause}", self.run);
        let scratch = self.registry.constructor(&self.uri)?.scratch(&self.uri, &name, &self.open).await?;
        let is_apart = scratch.is_some();
        let uri = scratch.unwrap_or_else(|| self.uri.clone());
        let existing = self.open.clone().with_mode(OpenMode::Existing);
        let was_there = match self.registry.open(&uri, &existing).await {
            Ok(storage) => {
                let is_empty = storage.list(&[], None).await?.is_empty();
                if is_apart || !is_empty {
                    return Err(Failure::failed("blobs are there already: name an empty place for the suite to use"));
                }
                true
            }
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error.into()),
        };
        let open = self.open.clone().with_mode(OpenMode::CreateIfMissing);
        Ok(ScratchPlace { registry: self.registry.clone(), uri, open, was_there, put: Arc::default() })
    }
}

/// A place for one clause.
pub(super) struct ScratchPlace {
    registry: Registry,
    uri: StorageUri,
    open: OpenContext,
    was_there: bool,
    put: Arc<PutNames>,
}

impl ScratchPlace {
    pub(super) fn uri(&self) -> &StorageUri {
        &self.uri
    }

    /// Removes what the suite put, and the place where it was made for it.
    pub(super) async fn remove(&self) -> storage::Result<()> {
        let storage = self.registry.open(&self.uri, &self.open).await?;
        for name in self.put.all() {
            storage.delete(name).await?;
        }
        storage.sync().await?;
        drop(storage);
        if self.was_there {
            return Ok(());
        }
        self.registry.constructor(&self.uri)?.remove_scratch(&self.uri, &self.open).await
    }
}

#[async_trait]
impl Place for ScratchPlace {
    async fn open(&self) -> storage::Result<Arc<dyn Storage>> {
        let inner = self.registry.open(&self.uri, &self.open).await?;
        Ok(Arc::new(Recording { inner, put: self.put.clone() }))
    }
}

/// The names that the suite put.
#[derive(Debug, Default)]
struct PutNames {
    created: Mutex<BTreeSet<Name>>,
    /// Those whose put did not answer, and may have taken effect.
    maybe: Mutex<BTreeSet<Name>>,
}

impl PutNames {
    fn lock(names: &Mutex<BTreeSet<Name>>) -> MutexGuard<'_, BTreeSet<Name>> {
        names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, name: Name) {
        Self::lock(&self.maybe).insert(name);
    }

    fn end(&self, name: Name, outcome: Put) {
        Self::lock(&self.maybe).remove(&name);
        // What exists without our doing is someone else's.
        if outcome == Put::Created {
            Self::lock(&self.created).insert(name);
        }
    }

    fn all(&self) -> BTreeSet<Name> {
        Self::lock(&self.created).union(&Self::lock(&self.maybe)).copied().collect()
    }
}

/// A storage that notes what is put.
#[derive(Debug)]
struct Recording {
    inner: Arc<dyn Storage>,
    put: Arc<PutNames>,
}

#[async_trait]
impl Storage for Recording {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, name: Name, bytes: bytes::Bytes) -> storage::Result<Put> {
        self.put.begin(name);
        let outcome = self.inner.put(name, bytes).await?;
        self.put.end(name, outcome);
        Ok(outcome)
    }

    async fn put_durable(&self, name: Name, bytes: bytes::Bytes) -> storage::Result<Put> {
        self.put.begin(name);
        let outcome = self.inner.put_durable(name, bytes).await?;
        self.put.end(name, outcome);
        Ok(outcome)
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> storage::Result<bytes::Bytes> {
        self.inner.get(name, range, max_bytes).await
    }

    async fn size(&self, name: Name) -> storage::Result<u64> {
        self.inner.size(name).await
    }

    async fn delete(&self, name: Name) -> storage::Result<()> {
        self.inner.delete(name).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> storage::Result<Vec<Name>> {
        self.inner.list(prefix, after).await
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> storage::Result<(Vec<Name>, bool)> {
        self.inner.list_page(prefix, after).await
    }

    async fn apply(&self, batch: Vec<Change>) -> storage::Result<Vec<Put>> {
        let puts: Vec<Name> = batch
            .iter()
            .filter_map(|change| match change {
                Change::Put(name, _) => Some(*name),
                Change::Delete(_) => None,
            })
            .collect();
        puts.iter().for_each(|name| self.put.begin(*name));
        let outcomes = self.inner.apply(batch).await?;
        puts.iter().zip(&outcomes).for_each(|(name, outcome)| self.put.end(*name, *outcome));
        Ok(outcomes)
    }

    async fn sync(&self) -> storage::Result<()> {
        self.inner.sync().await
    }

    async fn persist(&self, names: &[Name]) -> storage::Result<()> {
        self.inner.persist(names).await
    }

    fn occupancy(&self) -> Option<std::sync::Arc<strongroom::storage::Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> storage::Result<Option<Box<dyn ExclusiveGuard>>> {
        self.inner.try_exclusive().await
    }

    async fn available_bytes(&self) -> storage::Result<Option<u64>> {
        self.inner.available_bytes().await
    }

    async fn vacate(&self) -> storage::Result<()> {
        self.inner.vacate().await
    }
}
