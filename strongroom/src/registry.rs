//! Which storages this build can open.

use strongroom_core::storage::Registry;

/// Every scheme of the features that this was built with; the others are noted, so that the error for one of them names
/// the feature to turn on. Stores of `mem:` belong to the registry: the same name in it is the same store.
///
/// An application adds its own with [`Registry::register`].
#[must_use]
pub fn default() -> Registry {
    let mut registry = Registry::new();
    registry.note_feature("mem", "memory").note_feature("file", "file").note_feature("s3", "s3");
    #[cfg(feature = "memory")]
    strongroom_memory::register(&mut registry);
    #[cfg(feature = "file")]
    strongroom_file::register(&mut registry);
    registry.note_feature("redb", "redb").note_feature("sled", "sled").note_feature("sqlite", "sqlite");
    #[cfg(feature = "redb")]
    strongroom_redb::register(&mut registry);
    #[cfg(feature = "sled")]
    strongroom_sled::register(&mut registry);
    #[cfg(feature = "sqlite")]
    strongroom_sqlite::register(&mut registry);
    #[cfg(feature = "s3")]
    strongroom_s3::register(&mut registry);
    // Last: it wraps what is there.
    #[cfg(feature = "faulty")]
    faulty::register(&mut registry);
    for scheme in registry.schemes().map(str::to_owned).collect::<Vec<_>>() {
        if !scheme.contains('+') {
            registry.note_feature(&format!("faulty+{scheme}"), "faulty");
        }
    }
    registry
}

/// `faulty+SCHEME:…`: any storage, made to fail by a seed, so that an application can test what it does then. Feature
/// `faulty`, off by default; no program that keeps data should turn it on.
///
/// `faulty+mem://name?seed=7&errors=0.01&ambiguous=0.005` is `mem://name` where one call in a hundred fails and of the
/// others one change in two hundred takes effect and says that it does not know. The parameters are [`faulty::PARAMETERS`]:
/// `seed`, `calls-max` (by how many calls a thing is late, at most), and the rates of [`faulty::Rates`], each a fraction or
/// a percentage, whose sign is `%25` in a URI. All other parameters are for the storage within.
///
/// Beside the URI there are typed options: [`faulty::FlakyStorage::new`] wraps an open storage with
/// [`faulty::FlakyOptions`], and is a [`crate::Place`] once it is in an `Arc`.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use strongroom::blocking::Repository;
/// use strongroom::{CreateOptions, Credentials, OpenOptions, registry};
///
/// let registry = registry::default(); // one registry, so that `mem:` stores are shared
/// let password = || Credentials::password("correct horse");
/// let create = CreateOptions::new(password()).kdf_millis(1).registry(registry.clone());
/// Repository::create("mem://tested", create)?.close()?;
///
/// let (mut acknowledged, mut failed) = (Vec::new(), 0);
/// for seed in 0..3 {
///     let open = OpenOptions::new(password()).registry(registry.clone());
///     // Opening is made of calls too, so it can fail.
///     let Ok(repository) = Repository::open(format!("faulty+mem://tested?seed={seed}&errors=0.01&ambiguous=0.1"), open)
///     else {
///         failed += 1;
///         continue;
///     };
///     for number in 0..20 {
///         let key = [seed, number];
///         match repository.kv().put(&key, b"value") {
///             Ok(_) => acknowledged.push(key),
///             Err(_) => failed += 1,
///         }
///     }
/// }
/// # let _ = failed;
///
/// // Whatever failed, what was acknowledged is there.
/// let repository = Repository::open("mem://tested", OpenOptions::new(password()).registry(registry))?;
/// for key in acknowledged {
///     assert!(repository.kv().get(&key)?.is_some());
/// }
/// # Ok(()) }
/// ```
#[cfg(feature = "faulty")]
pub mod faulty {
    pub use strongroom_conformance::flaky::{
        FlakyOptions, FlakyStorage, PARAMETERS, Rate, RateError, Rates, open_as_uri_says, register,
    };
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;
    use strongroom_core::env::Env;
    use strongroom_core::storage::{ErrorKind, OpenContext, StorageUri};

    #[cfg(all(not(feature = "faulty"), feature = "memory"))]
    #[test]
    fn the_scheme_for_tests_is_off_and_names_its_feature() {
        let uri = StorageUri::parse("faulty+mem://x").unwrap();
        let context = OpenContext::new(Env::deterministic(1));
        let error = block_on(super::default().open(&uri, &context)).unwrap_err();
        assert!(error.to_string().contains("`faulty`"), "{error}");
    }

    #[test]
    fn an_unknown_scheme_names_those_that_are_there() {
        let uri = StorageUri::parse("nowhere://x").unwrap();
        let context = OpenContext::new(Env::deterministic(1));
        let error = block_on(super::default().open(&uri, &context)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        #[cfg(feature = "file")]
        assert!(error.to_string().contains("file"), "{error}");
    }
}
