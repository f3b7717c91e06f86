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
use strongroom_core::layer::{Cached, Limit, Limits, Metrics, Retry, RetryPolicy, Timeout};
use strongroom_core::storage::{
    Capabilities, Change, ExclusiveGuard, Name, OpenContext, OpenMode, Put, Registry, Result, Storage, StorageUri,
};

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
}

#[async_trait]
impl Place for Layered {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        let context = OpenContext::new(Env::deterministic(1)).with_mode(OpenMode::CreateIfMissing);
        let storage = self.registry.open(&StorageUri::parse("mem://place")?, &context).await?;
        Ok((self.wrap)(storage, &self.cache))
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

fn all(storage: Arc<dyn Storage>, cache: &Arc<dyn Cache>) -> Arc<dyn Storage> {
    cached(retried(limited(timed(measured(storage, cache), cache), cache), cache), cache)
}

fn every_read_cached(storage: Arc<dyn Storage>, cache: &Arc<dyn Cache>) -> Arc<dyn Storage> {
    Arc::new(EveryRead(all(storage, cache)))
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

mod all_together {
    strongroom_conformance::storage_conformance!(super::Layered::new(super::all));
}

/// Harder than what is promised: as long as all who write share the cache, even what may come from it is up to date.
mod all_together_with_every_read_from_the_cache {
    strongroom_conformance::storage_conformance!(super::Layered::new(super::every_read_cached));
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
        let wraps: [Wrap; 6] = [limited, retried, timed, measured, cached, all];
        for wrap in wraps {
            assert_eq!(Layered::new(wrap).open().await.unwrap().capabilities(), bare);
        }
    });
}
