use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Blocking, BlockingMode, Error, ErrorKind, MaybeSendSync, Operation, Result, Storage, StorageUri};
use crate::env::Env;

/// Whether `open` may create the place itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must be there already.
    Existing,
    /// It is created where it is absent (the folder, file or bucket prefix; not a repository in it).
    CreateIfMissing,
}

/// What a constructor needs beside the URI.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenContext {
    /// Clock, randomness and workers.
    pub env: Env,
    /// Whether the place may be created.
    pub mode: OpenMode,
    /// In which thread a storage whose calls block makes them.
    pub blocking: BlockingMode,
}

impl OpenContext {
    /// The context of an async caller: the place must be there, and blocking calls go to the workers.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self { env, mode: OpenMode::Existing, blocking: BlockingMode::Offload }
    }

    /// Says whether the place may be created.
    #[must_use]
    pub fn with_mode(mut self, mode: OpenMode) -> Self {
        self.mode = mode;
        self
    }

    /// Says in which thread blocking calls are made.
    #[must_use]
    pub fn with_blocking(mut self, blocking: BlockingMode) -> Self {
        self.blocking = blocking;
        self
    }

    /// What runs the blocking calls of a storage.
    #[must_use]
    pub fn blocking(&self) -> Blocking {
        Blocking::new(self.blocking, self.env.clone())
    }
}

/// Opens the storages of one scheme.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait StorageConstructor: MaybeSendSync {
    /// Opens what the URI names.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it must exist and does not, [`ErrorKind::Invalid`] for a URI that makes no sense,
    /// and what the medium raises.
    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>>;
}

/// Scheme -> constructor. A value: there is no global one, and two of them share nothing but what was put into both.
///
/// A clone shares the constructors, and with them the stores of `mem:`.
#[derive(Clone, Default)]
pub struct Registry {
    constructors: BTreeMap<String, Arc<dyn StorageConstructor>>,
    /// Scheme -> the feature that would bring it.
    absent: BTreeMap<String, String>,
}

impl Registry {
    /// A registry that knows no scheme.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a scheme, or replaces its constructor.
    pub fn register(&mut self, scheme: &str, constructor: impl StorageConstructor + 'static) -> &mut Self {
        let scheme = scheme.to_ascii_lowercase();
        self.absent.remove(&scheme);
        self.constructors.insert(scheme, Arc::new(constructor));
        self
    }

    /// Notes a scheme that was not built in, so that the error can name the feature to turn on.
    pub fn register_absent(&mut self, scheme: &str, feature: &str) -> &mut Self {
        let scheme = scheme.to_ascii_lowercase();
        if !self.constructors.contains_key(&scheme) {
            self.absent.insert(scheme, feature.to_owned());
        }
        self
    }

    /// The schemes that can be opened, ascending.
    pub fn schemes(&self) -> impl Iterator<Item = &str> {
        self.constructors.keys().map(String::as_str)
    }

    /// Opens what the URI names.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a scheme that is not here, naming those that are and the feature to turn on; and
    /// as [`StorageConstructor::open`].
    pub async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
        match self.constructors.get(uri.scheme()) {
            Some(constructor) => constructor.open(uri, context).await,
            None => Err(self.unsupported(uri.scheme())),
        }
    }

    fn unsupported(&self, scheme: &str) -> Error {
        let available = match self.schemes().collect::<Vec<_>>() {
            schemes if schemes.is_empty() => "no scheme is available".to_owned(),
            schemes => format!("available: {}", schemes.join(", ")),
        };
        let reason = match self.absent.get(scheme) {
            Some(feature) => format!("turn on the feature `{feature}` when building; {available}"),
            None => format!("unknown scheme; {available}"),
        };
        Error::new(ErrorKind::Unsupported, Operation::Open, format!("a `{scheme}:` storage")).with_source(reason)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Registry")
            .field("schemes", &self.constructors.keys())
            .field("absent", &self.absent)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;

    struct Refusing;

    #[async_trait]
    impl StorageConstructor for Refusing {
        async fn open(&self, _: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
            assert_eq!(context.mode, OpenMode::CreateIfMissing);
            Err(Error::new(ErrorKind::Busy, Operation::Open, "the test"))
        }
    }

    fn open(registry: &Registry, uri: &str) -> Error {
        let context = OpenContext::new(Env::deterministic(1)).with_mode(OpenMode::CreateIfMissing);
        block_on(registry.open(&StorageUri::parse(uri).unwrap(), &context)).map(|_| ()).unwrap_err()
    }

    #[test]
    fn a_registered_scheme_reaches_its_constructor() {
        let mut registry = Registry::new();
        registry.register_absent("TEST", "feature").register("Test", Refusing);
        assert_eq!(registry.schemes().collect::<Vec<_>>(), ["test"]);
        assert_eq!(open(&registry, "tESt:x").kind(), ErrorKind::Busy);
    }

    #[test]
    fn an_unknown_scheme_names_the_available_ones() {
        let mut registry = Registry::new();
        assert!(open(&registry, "x1://y").to_string().contains("no scheme is available"));
        registry.register("aa", Refusing).register("bb", Refusing);
        let error = open(&registry, "cc:hidden");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let shown = error.to_string();
        assert!(shown.contains("aa, bb") && shown.contains("`cc:`") && !shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn a_scheme_whose_feature_is_off_names_the_feature() {
        let mut registry = Registry::new();
        registry.register("aa", Refusing).register_absent("s3", "s3-feature").register_absent("aa", "never");
        let shown = open(&registry, "s3://bucket").to_string();
        assert!(shown.contains("`s3-feature`") && shown.contains("available: aa"), "{shown}");
        assert_eq!(open(&registry, "aa:x").kind(), ErrorKind::Busy);
    }
}
