//! What stands between the engine and the storage: which layers, and in which order.

use std::sync::Arc;
use std::time::Duration;

use strongroom_core::cache::{Cache, MemoryCache};
use strongroom_core::layer::{Cached, Limit, Limits, Metrics, Retry, RetryPolicy, Timeout};
use strongroom_core::storage::{Blocking, Result, Storage};

use crate::caching::{CACHE_BYTES_MAX_DEFAULT, Caching};

/// How long one call of a remote storage may take, unless said otherwise: the largest block over a slow line.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);

/// What the caller said; `None` is what suits the storage.
#[derive(Clone, Default)]
pub(crate) struct Layers {
    pub(crate) cache: Option<Caching>,
    pub(crate) retry: Option<Option<RetryPolicy>>,
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Option<Metrics>,
}

impl Layers {
    /// The storage under these layers: from the engine down, cache, retry, limit, timeout, metrics.
    ///
    /// A remote storage gets a cache, retries and a timeout by itself.
    ///
    /// `in_uri` is the cache that the address names, for who said nothing else; `blocking` is where a cache of files makes its
    /// calls.
    pub(crate) async fn over(
        self,
        storage: Arc<dyn Storage>,
        in_uri: Option<Caching>,
        blocking: &Blocking,
    ) -> Result<Arc<dyn Storage>> {
        let env = blocking.env();
        let is_remote = storage.is_remote();
        let mut storage = storage;
        if let Some(metrics) = &self.metrics {
            storage = Arc::new(metrics.over(storage));
        }
        if let Some(timeout) = self.timeout.unwrap_or(is_remote.then_some(TIMEOUT_DEFAULT)) {
            storage = Arc::new(Timeout::new(storage, env.clone(), timeout));
        }
        if self.limits != Limits::default() {
            storage = Arc::new(Limit::new(storage, env.clone(), self.limits));
        }
        if let Some(policy) = self.retry.unwrap_or(is_remote.then(RetryPolicy::default)) {
            storage = Arc::new(Retry::new(storage, env.clone(), policy));
        }
        let default = if is_remote { Caching::Memory(CACHE_BYTES_MAX_DEFAULT) } else { Caching::None };
        let cache: Arc<dyn Cache> = match Caching::choose(self.cache, in_uri).unwrap_or(default) {
            Caching::None | Caching::Memory(0) => return Ok(storage),
            Caching::Memory(bytes_max) => Arc::new(MemoryCache::new(bytes_max)),
            #[cfg(feature = "file-cache")]
            Caching::Folder { folder, bytes_max } => {
                Arc::new(strongroom_file_cache::FileCache::open(&folder, bytes_max, blocking.clone()).await?)
            }
            Caching::Given(cache) => cache,
        };
        Ok(Arc::new(Cached::new(storage, cache)))
    }
}
