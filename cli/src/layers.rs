//! What the flags say about the way to the storage: cache, bandwidth, and counting for `-v`.

use std::num::NonZeroU64;
use std::path::PathBuf;

use strongroom::CACHE_FOLDER_BYTES_MAX_DEFAULT;
use strongroom::layer::Metrics;

use crate::arguments::Global;
use crate::exit::Failure;

/// Where ciphertext is kept nearer, and how much of it.
#[derive(Clone, Debug)]
pub(crate) enum Cache {
    /// Nowhere, where it is of no size.
    Memory(u64),
    Folder(PathBuf, u64),
}

/// What the flags ask for, checked.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    pub(crate) cache: Option<Cache>,
    pub(crate) upload: Option<NonZeroU64>,
    pub(crate) download: Option<NonZeroU64>,
    pub(crate) metrics: Option<Metrics>,
}

impl Layers {
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let cache = match global.cache.as_deref().filter(|cache| !cache.is_empty()) {
            None => global.cache_size.map(Cache::Memory),
            Some(cache) if cache == "none" && global.cache_size.is_some() => {
                return Err(Failure::usage("--cache none has no size: leave --cache-size out"));
            }
            Some(cache) if cache == "none" => Some(Cache::Memory(0)),
            Some(folder) => {
                Some(Cache::Folder(folder.into(), global.cache_size.unwrap_or(CACHE_FOLDER_BYTES_MAX_DEFAULT)))
            }
        };
        let rate = |rate: Option<u64>, flag: &str| match rate {
            None => Ok(None),
            Some(rate) => NonZeroU64::new(rate).map(Some).ok_or_else(|| {
                Failure::usage(format!("{flag} 0 would let nothing through: write a rate like 1MiB/s, or leave it out"))
            }),
        };
        Ok(Self {
            cache,
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
        match layers.cache {
            Some($crate::layers::Cache::Memory(bytes_max)) => options = options.cache_bytes_max(bytes_max),
            Some($crate::layers::Cache::Folder(folder, bytes_max)) => options = options.cache_folder(folder, bytes_max),
            None => {}
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
