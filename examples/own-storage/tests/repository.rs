//! A repository on it, by its URI: all that an application does is to register the scheme.

#![allow(clippy::unwrap_used)] // a test fails by it

use strongroom::blocking::Repository;
use strongroom::storage::Registry;
use strongroom::{CompactOptions, CreateOptions, Credentials, OpenOptions};

fn registry() -> Registry {
    let mut registry = strongroom::registry::default();
    own_storage::register(&mut registry);
    registry
}

fn credentials() -> Credentials {
    Credentials::password("correct horse")
}

#[test]
fn what_is_stored_is_there_when_it_is_opened_again_and_its_space_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("repository");
    let uri = format!("log:{}", file.display());
    let create = CreateOptions::new(credentials()).kdf_millis(1).registry(registry()).without_trusted_state();
    let repository = Repository::create(uri.as_str(), create).unwrap();
    // What does not compress.
    let content: Vec<u8> =
        (0_u32..600_000).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    repository.fs().write("/large", &content).unwrap();
    repository.fs().write("/small", b"stays").unwrap();
    repository.kv().put(b"key", b"value").unwrap();
    repository.close().unwrap();
    // Nothing is given back while others have it open, and the log is not opened anew.
    drop(repository);

    let open = || OpenOptions::new(credentials()).registry(registry()).without_trusted_state();
    let reader = Repository::open(uri.as_str(), open().read_only(true)).unwrap();
    assert_eq!(reader.fs().read("/large").unwrap(), content);
    assert_eq!(reader.kv().get(b"key").unwrap().unwrap(), "value");
    drop(reader);
    let full_bytes = file.metadata().unwrap().len();

    let repository = Repository::open(uri.as_str(), open()).unwrap();
    repository.fs().remove_file("/large").unwrap();
    repository.compact(CompactOptions::default()).unwrap();
    repository.close().unwrap();
    drop(repository);
    let repository = Repository::open(uri.as_str(), open()).unwrap();
    assert_eq!(repository.fs().read("/small").unwrap(), b"stays");
    let left_bytes = file.metadata().unwrap().len();
    assert!(left_bytes < full_bytes / 2, "{left_bytes} of {full_bytes} bytes are left");
}
