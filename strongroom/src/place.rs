//! From a place to an open storage, and to what this device remembers of it.

use std::sync::Arc;

use strongroom_core::Result;
use strongroom_core::engine::TrustedState;
use strongroom_core::env::Env;
use strongroom_core::storage::{
    self, Blocking, ErrorKind, OpenContext, OpenMode, Operation, Registry, Storage, StorageUri,
};

use crate::caching::Caching;
use crate::options::{Place, Surroundings, Trust};
use crate::trust::LocalTrust;

/// An open storage with what belongs to it.
pub(crate) struct Opened {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) env: Env,
    pub(crate) trusted: Option<Arc<dyn TrustedState>>,
    pub(crate) uri: Option<StorageUri>,
    /// What opened it by that.
    pub(crate) registry: Option<Registry>,
}

pub(crate) async fn open(place: Place, surroundings: Surroundings, mode: OpenMode) -> Result<Opened> {
    let env = match surroundings.env {
        Some(env) => env,
        None => crate::env::system()
            .map_err(|error| storage::Error::from_io(Operation::Open, "the worker threads", error))?,
    };
    let blocking = Blocking::new(surroundings.blocking, env.clone());
    let uri = match place {
        Place::Text(text) => StorageUri::parse(&text)?,
        Place::Uri(uri) => uri,
        Place::Storage(storage) => {
            let storage = surroundings.layers.over(storage, None, &blocking).await?;
            return Ok(Opened { storage, env, trusted: given(surroundings.trust), uri: None, registry: None });
        }
    };
    let (caching, uri) = Caching::take_from(uri)?;
    let registry = surroundings.registry.unwrap_or_else(crate::registry::default);
    let context = OpenContext::new(env.clone()).with_mode(mode).with_blocking(surroundings.blocking);
    let storage = match registry.open(&uri, &context).await {
        Ok(storage) => storage,
        // Where there is no storage, there is no repository: callers are told one thing. What cannot even be created is
        // another.
        Err(error) if error.kind() == ErrorKind::NotFound && mode == OpenMode::Existing => {
            return Err(strongroom_core::Error::NotARepository);
        }
        Err(error) => return Err(error.into()),
    };
    let storage = surroundings.layers.over(storage, caching, &blocking).await?;
    // Located only now: a folder that was just created has a real path, and had none before.
    let trusted = match surroundings.trust {
        // A user who cannot keep state (in a container, or a service without a home) can still work: see
        // `Repository::remembers`.
        Trust::User => location(&registry, &uri)
            .and_then(LocalTrust::for_user)
            .filter(LocalTrust::is_possible)
            .map(|trust| -> Arc<dyn TrustedState> { Arc::new(trust) }),
        trust => given(trust),
    };
    Ok(Opened { storage, env, trusted, uri: Some(uri), registry: Some(registry) })
}

fn given(trust: Trust) -> Option<Arc<dyn TrustedState>> {
    match trust {
        Trust::Given(state) => Some(state),
        Trust::User | Trust::Nowhere => None,
    }
}

/// One spelling for one place, as far as it can be told. `None` for what ends with the process.
fn location(registry: &Registry, uri: &StorageUri) -> Option<String> {
    // A repository is where it is, also while a test makes its storage fail.
    #[cfg(feature = "faulty")]
    let within = uri.within(strongroom_conformance::flaky::SCHEME_PREFIX, &crate::registry::faulty::PARAMETERS);
    #[cfg(feature = "faulty")]
    let uri = within.as_ref().unwrap_or(uri);
    if uri.scheme() == "mem" {
        return None;
    }
    // A bucket may be called `localhost`.
    let is_here = !registry.local_paths(uri).is_empty();
    let real = uri.local_path().ok().filter(|_| is_here).and_then(|path| std::fs::canonicalize(path).ok());
    match real.map(|path| StorageUri::from_path(&path)) {
        Some(Ok(real)) => Some(format!("{}:{real}", uri.scheme())),
        _ => Some(registry.constructor(uri).map_or_else(|_| uri.clone(), |scheme| scheme.location(uri)).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use strongroom_core::storage::StorageConstructor;

    use super::*;

    /// A storage on another machine, with parameters that only say how it is reached.
    struct Far;

    #[async_trait::async_trait]
    impl StorageConstructor for Far {
        async fn open(&self, _: &StorageUri, _: &OpenContext) -> storage::Result<Arc<dyn Storage>> {
            Err(storage::Error::new(ErrorKind::Unavailable, Operation::Open, "far away"))
        }

        fn local_paths(&self, _: &StorageUri) -> Vec<PathBuf> {
            Vec::new()
        }

        fn location(&self, uri: &StorageUri) -> StorageUri {
            uri.with_parameters_of(&[])
        }
    }

    #[test]
    fn a_place_far_away_is_where_its_scheme_says_and_no_folder_of_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let mut registry = crate::registry::default();
        registry.register("far", Far);
        let of = |text: &str| location(&registry, &StorageUri::parse(text).unwrap());
        assert_eq!(of("far://b/x?region=y&timeout=9"), of("far://b/x"));
        assert_eq!(of(&format!("far://localhost{path}")), Some(format!("far://localhost{path}")));
    }

    #[test]
    fn one_folder_is_one_location_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let registry = crate::registry::default();
        let of = |text: String| location(&registry, &StorageUri::parse(&text).unwrap());
        assert_eq!(of(format!("file://{path}")), of(format!("{path}/.")));
        assert_ne!(of(format!("file://{path}")), of(format!("sqlite://{path}")));
        assert_eq!(of("mem://x".to_owned()), None);
        #[cfg(feature = "faulty")]
        {
            assert_eq!(of(format!("faulty+file://{path}?seed=1")), of(format!("file://{path}")));
            assert_eq!(of("faulty+mem://x?errors=1".to_owned()), None);
        }
    }
}
