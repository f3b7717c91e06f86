//! Each layer on memory, and all of them together, keep every clause of a storage.

use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_conformance::storage::Place;
use strongroom_core::cache::{Cache, MemoryCache};
use strongroom_core::env::Env;
use strongroom_core::layer::{Cached, Limit, Limits, Metrics, ReadOnly, Retry, RetryPolicy, Timeout};
use strongroom_core::storage::{
    Capabilities, Change, ErrorKind, ExclusiveGuard, Name, Occupancy, OpenContext, OpenMode, Put, Registry, Result,
    Storage, StorageUri,
};
use strongroom_memory::MemoryStorage;

type Wrap = fn(Arc<dyn Storage>, &Arc<dyn Cache>) -> Arc<dyn Storage>;

/// A store in memory under a layer; its handles share one cache.
struct Layered {
    registry: Registry,
    cache: Arc<dyn Cache>,
    wrap: Wrap,
}

impl Layered {
    fn new(wrap: Wrap) -> Self {
        let mut registry = Registry::new();
        strongroom_memory::register(&mut registry);
        Self { registry, cache: Arc::new(MemoryCache::new(1 << 20)), wrap }
    }

    async fn bare(&self) -> Result<Arc<dyn Storage>> {
        let context = OpenContext::new(Env::deterministic(1)).with_mode(OpenMode::CreateIfMissing);
        self.registry.open(&StorageUri::parse("mem://place")?, &context).await
    }
}

#[async_trait]
impl Place for Layered {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        Ok((self.wrap)(self.bare().await?, &self.cache))
    }
}

/// The same, where the layer only reads.
struct Looked(Layered);

#[async_trait]
impl Place for Looked {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        self.0.open().await
    }

    async fn open_writer(&self) -> Result<Option<Arc<dyn Storage>>> {
        Ok(Some(self.0.bare().await?))
    }
}

fn env() -> Env {
    Env::deterministic(2)
}

fn limits() -> Limits {
    let rate = NonZeroU64::new(1 << 40);
    Limits { calls_max: NonZeroUsize::new(2), upload_bytes_per_second: rate, download_bytes_per_second: rate }
}

fn limited(storage: Arc<dyn Storage>, _: &Arc<dyn Cache>) -> Arc<dyn Storage> {
    Arc::new(Limit::new(storage, env(), limits()))
}

fn retried(storage: Arc<dyn Storage>, _: &Arc<dyn Cache>) -> Arc<dyn Storage> {
    Arc::new(Retry::new(storage, env(), RetryPolicy::default()))
}

fn timed(storage: Arc<dyn Storage>, _: &Arc<dyn Cache>) -> Arc<dyn Storage> {
    Arc::new(Timeout::new(storage, env(), Duration::from_secs(600)))
}

fn measured(storage: Arc<dyn Storage>, _: &Arc<dyn Cache>) -> Arc<dyn Storage> {
    Arc::new(Metrics::new().over(storage))
}

fn cached(storage: Arc<dyn Storage>, cache: &Arc<dyn Cache>) -> Arc<dyn Storage> {
    Arc::new(Cached::new(storage, cache.clone()))
}

fn read_only(storage: Arc<dyn Storage>, _: &Arc<dyn Cache>) -> Arc<dyn Storage> {
    Arc::new(ReadOnly::new(storage))
}

fn all(storage: Arc<dyn Storage>, cache: &Arc<dyn Cache>) -> Arc<dyn Storage> {
    cached(retried(limited(timed(measured(storage, cache), cache), cache), cache), cache)
}

fn every_read_cached(storage: Arc<dyn Storage>, cache: &Arc<dyn Cache>) -> Arc<dyn Storage> {
    Arc::new(EveryRead(all(storage, cache)))
}

fn every_read_cached_over_a_network(storage: Arc<dyn Storage>, cache: &Arc<dyn Cache>) -> Arc<dyn Storage> {
    every_read_cached(Arc::new(crate::support::Remote::new(storage)), cache)
}

mod limit {
    strongroom_conformance::storage_conformance!(super::Layered::new(super::limited));
}

mod retry {
    strongroom_conformance::storage_conformance!(super::Layered::new(super::retried));
}

mod timeout {
    strongroom_conformance::storage_conformance!(super::Layered::new(super::timed));
}

mod metrics {
    strongroom_conformance::storage_conformance!(super::Layered::new(super::measured));
}

mod cache {
    strongroom_conformance::storage_conformance!(super::Layered::new(super::cached));
}

mod read_only {
    use super::{Layered, Looked};
    // As of memory; and with somebody beside it who writes, nobody is alone.
    strongroom_conformance::storage_conformance!(Looked(Layered::new(super::read_only)), limited: [8, 9, 10, 11, 14]);
}

mod all_together {
    strongroom_conformance::storage_conformance!(super::Layered::new(super::all));
}

/// Harder than what is promised: as long as all who write share the cache, even what may come from it is up to date.
mod all_together_with_every_read_from_the_cache {
    strongroom_conformance::storage_conformance!(super::Layered::new(super::every_read_cached));
}

/// Where more is loaded than is asked for.
mod all_together_with_every_read_from_the_cache_over_a_network {
    strongroom_conformance::storage_conformance!(super::Layered::new(super::every_read_cached_over_a_network));
}

/// Asks the cache first for whatever is read.
#[derive(Debug)]
struct EveryRead(Arc<dyn Storage>);

#[async_trait]
impl Storage for EveryRead {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.0.put(name, bytes).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.0.put_durable(name, bytes).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.0.get_cached(name, range, max_bytes).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.0.size(name).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.0.delete(name).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.0.list(prefix, after).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        self.0.apply(batch).await
    }

    async fn sync(&self) -> Result<()> {
        self.0.sync().await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.0.persist(names).await
    }
    fn occupancy(&self) -> Option<std::sync::Arc<strongroom_core::storage::Occupancy>> {
        self.0.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.0.try_exclusive().await
    }
}

#[test]
fn capabilities_are_those_of_what_is_wrapped() {
    strongroom_conformance::block_on(async {
        let bare = Layered::new(|storage, _| storage).open().await.unwrap().capabilities();
        for wrap in WRAPS {
            assert_eq!(Layered::new(wrap).open().await.unwrap().capabilities(), bare);
        }
    });
}

const WRAPS: [Wrap; 7] = [limited, retried, timed, measured, cached, read_only, all];

/// Answers all that a backend may leave out.
#[derive(Debug, Default)]
struct Telling {
    inner: MemoryStorage,
    occupancy: Arc<Occupancy>,
}

#[derive(Debug)]
struct Alone;

impl ExclusiveGuard for Alone {}

#[async_trait]
impl Storage for Telling {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        true
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.inner.put(name, bytes).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.inner.put_durable(name, bytes).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.inner.get(name, range, max_bytes).await
    }

    async fn get_cached(&self, _: Name, _: Option<Range<u64>>, _: u64) -> Result<Bytes> {
        Ok("from a cache".into())
    }

    async fn forget(&self, _: Name) -> bool {
        true
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.inner.size(name).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.inner.delete(name).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.inner.list(prefix, after).await
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        Ok((self.inner.list(prefix, after).await?, true))
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.inner.persist(names).await
    }

    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        Some(self.occupancy.clone())
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        Ok(Some(Box::new(Alone)))
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        Ok(Some(77))
    }

    async fn vacate(&self) -> Result<()> {
        self.inner.put(Name::new([0; 16]), Bytes::new()).await.map(drop)
    }
}

#[test]
fn what_a_backend_may_leave_out_is_passed_on() {
    strongroom_conformance::block_on(async {
        let cache: Arc<dyn Cache> = Arc::new(MemoryCache::new(1 << 20));
        for wrap in WRAPS {
            let bare = Arc::new(Telling::default());
            let storage = wrap(bare.clone(), &cache);
            let name = Name::new([1; 16]);
            assert!(storage.is_remote());
            assert!(Arc::ptr_eq(&storage.occupancy().unwrap(), &bare.occupancy));
            assert!(storage.try_exclusive().await.unwrap().is_some());
            assert_eq!(storage.available_bytes().await.unwrap(), Some(77));
            assert_eq!(storage.list_page(&[], None).await.unwrap(), (Vec::new(), true));
            assert!(storage.forget(name).await);
            assert_eq!(storage.get_cached(name, None, 100).await.unwrap(), "from a cache");
            match storage.vacate().await {
                Ok(()) => assert_eq!(bare.inner.list(&[], None).await.unwrap().len(), 1),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ReadOnly);
                    assert!(bare.inner.list(&[], None).await.unwrap().is_empty());
                }
            }
        }
    });
}
