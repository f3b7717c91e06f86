//! What the flags say about the way to the storage: cache, bandwidth, and counting for `-v`.

use std::num::NonZeroU64;

use strongroom::layer::Metrics;

use crate::arguments::Global;
use crate::exit::Failure;

/// What the flags ask for, checked.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    pub(crate) cache_bytes_max: Option<u64>,
    pub(crate) upload: Option<NonZeroU64>,
    pub(crate) download: Option<NonZeroU64>,
    pub(crate) metrics: Option<Metrics>,
}

impl Layers {
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let none = match global.cache.as_deref().filter(|cache| !cache.is_empty()) {
            None => false,
            Some(cache) if cache == "none" => true,
            Some(_) => {
                return Err(Failure::usage(
                    "--cache DIR (or STRONGROOM_CACHE) is not supported yet: pass --cache none, or --cache-size N for a cache in memory",
                ));
            }
        };
        let cache_bytes_max = match (none, global.cache_size) {
            (true, Some(_)) => return Err(Failure::usage("--cache none has no size: leave --cache-size out")),
            (true, None) => Some(0),
            (false, size) => size,
        };
        let rate = |rate: Option<u64>, flag: &str| match rate {
            None => Ok(None),
            Some(rate) => NonZeroU64::new(rate).map(Some).ok_or_else(|| {
                Failure::usage(format!("{flag} 0 would let nothing through: write a rate like 1MiB/s, or leave it out"))
            }),
        };
        Ok(Self {
            cache_bytes_max,
            upload: rate(global.limit_upload, "--limit-upload")?,
            download: rate(global.limit_download, "--limit-download")?,
            metrics: (global.verbose > 0).then(Metrics::new),
        })
    }
}

/// The options of creating or opening, with these layers: the two have the same methods and no common trait.
macro_rules! layered {
    ($options:expr, $layers:expr) => {{
        let (mut options, layers) = ($options, $layers);
        if let Some(bytes) = layers.cache_bytes_max {
            options = options.cache_bytes_max(bytes);
        }
        if let Some(rate) = layers.upload {
            options = options.limit_upload(rate);
        }
        if let Some(rate) = layers.download {
            options = options.limit_download(rate);
        }
        if let Some(metrics) = &layers.metrics {
            options = options.metrics(metrics.clone());
        }
        options
    }};
}

pub(crate) use layered;
