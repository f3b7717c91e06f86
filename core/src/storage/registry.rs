use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Blocking, BlockingMode, Error, ErrorKind, MaybeSendSync, Operation, Result, SchemeEntry, SchemeInfo, Storage,
    StorageUri, Stray, StraysSought,
};
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
    /// Opens what the URI names: one more handle, each time. It waits while another handle has exclusive access
    /// ([`Storage::try_exclusive`]), as long as it likes, and opens what a process left that died, at creating it too.
    ///
    /// # Errors
    /// All of [`Operation::Open`], and nothing is created where one is raised, save by the medium:
    ///
    /// * [`ErrorKind::NotFound`] where it must exist and does not. What was only begun to be created may be that, or open as
    ///   empty; with [`OpenMode::CreateIfMissing`] it is finished.
    /// * [`ErrorKind::Invalid`] for a URI that makes no sense, and where something else is in the place: a file for a folder, a
    ///   file of another kind. It is left as it is.
    /// * [`ErrorKind::Unsupported`] for a store of this kind in a format that is not known here, such as of a later version.
    /// * [`ErrorKind::Corrupt`] for a store of this kind that no crash leaves so.
    /// * [`ErrorKind::Busy`] where it waited for another handle long enough; and what the medium raises.
    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>>;

    /// What people are told of this scheme.
    fn info(&self) -> SchemeInfo {
        SchemeInfo::default()
    }

    /// The files and folders of this machine in which what `uri` names lies, there yet or not, with all that is kept beside it,
    /// such as a log. Who reads the files of this machine leaves them out: a repository that is stored into itself grows with
    /// every attempt, and where the medium locks its files by `fcntl`, a process that opens and closes one of them ends its own
    /// locks. So nothing is opened by this, though it may look what is there.
    ///
    /// As it stands it is the path that the URI names, which is right for a medium that is one file or one folder.
    fn local_paths(&self, uri: &StorageUri) -> Vec<PathBuf> {
        uri.local_path().into_iter().collect()
    }

    /// What tells this place from others: the URI without the parameters that only say how it is reached. What a device has
    /// seen of a repository it remembers under this.
    fn location(&self, uri: &StorageUri) -> StorageUri {
        uri.clone()
    }

    /// What lies among the blobs under names that are a blob's and something more ([`Stray`]), where other programs carry what is
    /// stored from one place to another, as sync clients do. Nothing is opened by this, and nothing waited for.
    ///
    /// # Errors
    /// As [`StorageConstructor::open`].
    async fn strays(&self, uri: &StorageUri, sought: StraysSought, context: &OpenContext) -> Result<Vec<Stray>> {
        let _ = (uri, sought, context);
        Ok(Vec::new())
    }

    /// The strays that are copies ([`Stray::is_copy`]), as storages to be read, each with a content a name: as many as the name
    /// with the most copies has. See [`crate::engine::sides`].
    ///
    /// # Errors
    /// As [`StorageConstructor::open`].
    async fn copies(&self, uri: &StorageUri, context: &OpenContext) -> Result<Vec<Arc<dyn Storage>>> {
        let _ = (uri, context);
        Ok(Vec::new())
    }

    /// The URI of a scratch place: on the same medium as what `uri` names, told from others by `name` (at most 64
    /// lower-case letters, digits and `-`), and sharing no blob with anything. Nothing is created by this. `None` where the
    /// scheme has no such notion.
    /// The parameters stay, where they say how the medium is reached: see [`StorageUri::with_path`].
    ///
    /// # Errors
    /// As [`StorageConstructor::open`], where scratch places need what `uri` names to be there.
    async fn scratch(&self, uri: &StorageUri, name: &str, context: &OpenContext) -> Result<Option<StorageUri>> {
        let _ = (uri, name, context);
        Ok(None)
    }

    /// Removes a scratch place that holds no blob any more and that no handle is open on: with the files of the storage's own
    /// that lie in it or beside it, such as those of locks, so that opening it with [`OpenMode::Existing`] is
    /// [`ErrorKind::NotFound`] afterwards. A place that is not there is removed already. Where a blob is in it, or anything
    /// that is not the storage's, that is not removed: this fails then, or does nothing.
    ///
    /// # Errors
    /// What the medium raises, of [`Operation::Open`].
    async fn remove_scratch(&self, uri: &StorageUri, context: &OpenContext) -> Result<()> {
        let _ = (uri, context);
        Ok(())
    }
}

/// Scheme -> constructor. A value: there is no global one, and two of them share nothing but what was put into both.
///
/// A clone shares the constructors, and with them the stores of `mem:`.
#[derive(Clone, Default)]
pub struct Registry {
    constructors: BTreeMap<String, Arc<dyn StorageConstructor>>,
    /// Scheme -> the feature that brings it, or would.
    features: BTreeMap<String, String>,
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
        self.constructors.insert(scheme, Arc::new(constructor));
        self
    }

    /// Notes the feature that brings a scheme, built in or not: so the error for one that is not can name the feature to
    /// turn on.
    pub fn note_feature(&mut self, scheme: &str, feature: &str) -> &mut Self {
        self.features.insert(scheme.to_ascii_lowercase(), feature.to_owned());
        self
    }

    /// The schemes that can be opened, ascending.
    pub fn schemes(&self) -> impl Iterator<Item = &str> {
        self.constructors.keys().map(String::as_str)
    }

    /// Every scheme that is known, those that were not built in too, ascending.
    #[must_use]
    pub fn entries(&self) -> Vec<SchemeEntry> {
        let known: BTreeSet<&String> = self.constructors.keys().chain(self.features.keys()).collect();
        let entry = |scheme: &String| {
            let info = self.constructors.get(scheme).map(|constructor| constructor.info());
            SchemeEntry::new(scheme, self.features.get(scheme), info)
        };
        known.into_iter().map(entry).collect()
    }

    /// What opens the storages of this URI's scheme.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] as in [`Registry::open`].
    pub fn constructor(&self, uri: &StorageUri) -> Result<&Arc<dyn StorageConstructor>> {
        self.constructors.get(uri.scheme()).ok_or_else(|| self.unsupported(uri.scheme()))
    }

    /// Opens what the URI names.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a scheme that is not here, naming those that are and the feature to turn on; and
    /// as [`StorageConstructor::open`].
    pub async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
        self.constructor(uri)?.open(uri, context).await
    }

    /// The files and folders of this machine in which what the URI names lies: [`StorageConstructor::local_paths`]. None where
    /// the scheme is not here.
    #[must_use]
    pub fn local_paths(&self, uri: &StorageUri) -> Vec<PathBuf> {
        self.constructor(uri).map_or_else(|_| Vec::new(), |constructor| constructor.local_paths(uri))
    }

    fn unsupported(&self, scheme: &str) -> Error {
        let available = match self.schemes().collect::<Vec<_>>() {
            schemes if schemes.is_empty() => "no scheme is available".to_owned(),
            schemes => format!("available: {}", schemes.join(", ")),
        };
        let reason = match self.features.get(scheme) {
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
            .field("features", &self.features)
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
        registry.note_feature("TEST", "feature").register("Test", Refusing);
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
        registry.register("aa", Refusing).note_feature("s3", "s3-feature").note_feature("aa", "a-feature");
        let shown = open(&registry, "s3://bucket").to_string();
        assert!(shown.contains("`s3-feature`") && shown.contains("available: aa"), "{shown}");
        assert_eq!(open(&registry, "aa:x").kind(), ErrorKind::Busy);

        let [here, absent] = registry.entries().try_into().unwrap();
        assert_eq!((here.scheme.as_str(), here.feature.as_deref()), ("aa", Some("a-feature")));
        assert_eq!(here.info, Some(SchemeInfo::default()));
        assert_eq!((absent.scheme.as_str(), absent.feature.as_deref(), absent.info), ("s3", Some("s3-feature"), None));
    }
}
