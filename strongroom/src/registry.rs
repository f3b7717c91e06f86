//! Which storages this build can open.

use strongroom_core::storage::Registry;

/// Every scheme of the features that this was built with; the others are noted, so that the error for one of them names
/// the feature to turn on. Stores of `mem:` belong to the registry: the same name in it is the same store.
///
/// An application adds its own with [`Registry::register`].
#[must_use]
pub fn default() -> Registry {
    let mut registry = Registry::new();
    registry.note_feature("mem", "memory").note_feature("file", "file");
    #[cfg(feature = "memory")]
    strongroom_memory::register(&mut registry);
    #[cfg(feature = "file")]
    strongroom_file::register(&mut registry);
    registry
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;
    use strongroom_core::env::Env;
    use strongroom_core::storage::{ErrorKind, OpenContext, StorageUri};

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
