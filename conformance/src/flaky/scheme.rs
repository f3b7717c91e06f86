//! `faulty+SCHEME:…`: any storage of a registry, made flaky, so that an application can test itself.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use strongroom_core::storage::{
    Error, ErrorKind, OpenContext, Operation, Registry, Result, SchemeInfo, Storage, StorageConstructor, StorageUri,
};

use super::{FlakyOptions, FlakyStorage, Rates};

/// What stands before the scheme of the storage that is made flaky.
pub const SCHEME_PREFIX: &str = "faulty+";

/// The parameters of a `faulty+` URI; all others are for the storage within.
pub const PARAMETERS: [&str; 11] = [
    "seed",
    "calls-max",
    "errors",
    "refusals",
    "timeouts",
    "ambiguous",
    "late",
    "duplicates",
    "stale-lists",
    "slow",
    "stuck",
];

/// Adds `faulty+SCHEME` for every scheme that the registry has now: `faulty+mem://name?seed=7&errors=0.01`.
///
/// A storage opened under both schemes of one registry is the same: write through the one, look through the other. Each
/// opening has a fate of its own, which its seed decides.
pub fn register(registry: &mut Registry) {
    let within = registry.clone();
    for scheme in within.schemes().filter(|scheme| !scheme.starts_with(SCHEME_PREFIX)) {
        registry.register(&format!("{SCHEME_PREFIX}{scheme}"), FaultyConstructor { within: within.clone() });
    }
}

/// Opens the storage that a `faulty+` URI names through `within`, and answers its flaky wrapper, with which a test can do
/// more than the URI says.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a URI that is none of `faulty+`, for a parameter that nobody knows, and for a value that is
/// none; and as [`Registry::open`].
pub async fn open_as_uri_says(within: &Registry, uri: &StorageUri, context: &OpenContext) -> Result<FlakyStorage> {
    let mut options = FlakyOptions::default();
    for (name, value) in uri.parameters() {
        match name.as_str() {
            "seed" => options.seed = number(name, value)?,
            "calls-max" => options.calls_max = number(name, value)?,
            _ => {
                if let Some(rate) = options.rates.parameter(name) {
                    *rate = value.parse().map_err(|error| invalid(format!("`{name}`: {error}")))?;
                }
            }
        }
    }
    let inner = inner_of(uri)?;
    let others = !inner.parameters().is_empty();
    let storage = within.open(&inner, context).await.map_err(|error| match error.kind() {
        // The storage within says what it knows; this says what was known here.
        ErrorKind::Invalid if others => {
            invalid(format!("{error}; `{SCHEME_PREFIX}` itself has {}", PARAMETERS.join(", ")))
        }
        _ => error,
    })?;
    Ok(FlakyStorage::new(storage, options))
}

/// The URI of the storage within.
fn inner_of(uri: &StorageUri) -> Result<StorageUri> {
    uri.within(SCHEME_PREFIX, &PARAMETERS)
        .ok_or_else(|| invalid(format!("it does not begin with `{SCHEME_PREFIX}` and a scheme")))
}

fn number(name: &str, value: &str) -> Result<u64> {
    value.parse().map_err(|_| invalid(format!("`{name}` is a whole number")))
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorKind::Invalid, Operation::Open, "the storage URI").with_source(reason)
}

struct FaultyConstructor {
    within: Registry,
}

#[async_trait]
impl StorageConstructor for FaultyConstructor {
    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(open_as_uri_says(&self.within, uri, context).await?))
    }

    fn local_paths(&self, uri: &StorageUri) -> Vec<PathBuf> {
        inner_of(uri).map_or_else(|_| Vec::new(), |inner| self.within.local_paths(&inner))
    }

    /// Where the storage within has one, as flaky as what `uri` names.
    async fn scratch(&self, uri: &StorageUri, name: &str, context: &OpenContext) -> Result<Option<StorageUri>> {
        let inner = inner_of(uri)?;
        let scratch = self.within.constructor(&inner)?.scratch(&inner, name, context).await?;
        scratch.map(|scratch| scratch.wrapped(SCHEME_PREFIX, &PARAMETERS, uri)).transpose()
    }

    async fn remove_scratch(&self, uri: &StorageUri, context: &OpenContext) -> Result<()> {
        let inner = inner_of(uri)?;
        self.within.constructor(&inner)?.remove_scratch(&inner, context).await
    }

    fn info(&self) -> SchemeInfo {
        let about = SchemeInfo::new("another storage, made to fail by a seed: for tests, never for data");
        PARAMETERS.into_iter().fold(about, |about, name| about.parameter(name, "see the `flaky` module"))
    }
}

// The two lists are one.
const _: () = assert!(PARAMETERS.len() == Rates::PARAMETERS.len() + 2);
