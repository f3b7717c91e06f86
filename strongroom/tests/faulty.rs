//! An application tests itself on a storage that fails by a seed.
//!
//! It stands alone because it takes the feature `faulty`, with which nothing else is tested.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

use std::collections::BTreeMap;
use std::sync::Arc;

use strongroom::blocking::Repository;
use strongroom::check::CheckOptions;
use strongroom::registry::faulty::{FlakyOptions, FlakyStorage, Rate, Rates};
use strongroom::storage::{ErrorKind, Name, OpenContext, OpenMode, Storage, StorageUri};
use strongroom::{CompactOptions, CreateOptions, Credentials, Error, OpenOptions, registry};
use strongroom_conformance::storage::{Verdict, check_constructor};

fn password() -> Credentials {
    Credentials::password("correct horse")
}

fn create() -> CreateOptions {
    CreateOptions::new(password()).kdf_millis(1).without_trusted_state()
}

fn open() -> OpenOptions {
    OpenOptions::new(password()).without_trusted_state()
}

#[test]
fn what_is_answered_on_a_faulty_storage_is_there_without_the_faults() {
    let registry = registry::default();
    Repository::create("mem://tested", create().registry(registry.clone())).unwrap().close().unwrap();
    let mut expected: BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>> = BTreeMap::new();
    let mut failed = 0;
    for seed in 0..20_u8 {
        // Without what an earlier round left to be read: opening comes to its end now and then, then.
        let repository = Repository::open("mem://tested", open().registry(registry.clone())).unwrap();
        repository.compact(CompactOptions::default()).unwrap();
        repository.close().unwrap();
        let uri = format!("faulty+mem://tested?seed={seed}&errors=0.02&ambiguous=2%25&timeouts=0.02&late=1%25");
        // Opening may fail too; that is part of the test.
        let Ok(repository) = Repository::open(uri, open().registry(registry.clone())) else { continue };
        for key in 0..20_u8 {
            let value = Some(vec![seed, key]);
            match repository.kv().put([key], [seed, key]) {
                Ok(()) => drop(expected.insert(vec![key], vec![value])),
                Err(_) => {
                    failed += 1;
                    expected.entry(vec![key]).or_insert_with(|| vec![None]).push(value);
                }
            }
        }
    }
    assert!(failed > 5, "{failed}");
    let repository = Repository::open("mem://tested", open().registry(registry)).unwrap();
    for (key, possible) in expected {
        let found = repository.kv().get(&key).unwrap().map(|value| value.to_vec());
        assert!(possible.contains(&found), "{key:?} is {found:?}, and should be one of {possible:?}");
    }
}

#[test]
fn a_folder_can_be_made_to_fail_too_and_parameters_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("file://{}/repo", folder.path().display());
    Repository::create(place.as_str(), create()).unwrap().close().unwrap();
    let faulty = |parameters: &str| Repository::open(format!("faulty+{place}?{parameters}"), open());
    faulty("seed=1&errors=0").unwrap().kv().put(b"key", b"value").unwrap();
    assert!(matches!(faulty("seed=1&errors=100%25"), Err(Error::Core(strongroom::core::Error::Storage(_)))));
    for (parameters, said) in [("sed=1", "stale-lists"), ("errors=2", "at most 100%"), ("seed=-1", "whole number")] {
        let error = faulty(parameters).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    let repository = Repository::open(place, open()).unwrap();
    assert_eq!(repository.kv().get(b"key").unwrap().unwrap(), b"value".as_slice());
}

#[test]
fn a_scratch_place_is_as_faulty_as_what_it_is_beside_and_lies_within() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry::default();
    let context = OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing);
    futures_lite::future::block_on(async {
        for place in ["mem://fresh".to_owned(), format!("file://{}/fresh", folder.path().display())] {
            let uri = StorageUri::parse(&format!("faulty+{place}?seed=1")).unwrap();
            assert_eq!(check_constructor(&registry, &uri, &context).await.unwrap(), Verdict::Passed, "{uri}");
        }
        for place in ["mem://x".to_owned(), format!("file://{}", folder.path().display())] {
            let uri = StorageUri::parse(&format!("faulty+{place}?seed=1&refusals=100%25")).unwrap();
            let constructor = registry.constructor(&uri).unwrap();
            let scratch = constructor.scratch(&uri, "apart", &context).await.unwrap().unwrap();
            assert_eq!(scratch.parameters(), uri.parameters());
            let name = Name::new([1; 16]);
            let faulty = registry.open(&scratch, &context).await.unwrap();
            assert!(faulty.put(name, "x".into()).await.is_err());
            let text = scratch.to_string();
            let within = StorageUri::parse(text.strip_prefix("faulty+").unwrap().split_once('?').unwrap().0).unwrap();
            assert_ne!(within, StorageUri::parse(&place).unwrap());
            let sound = registry.open(&within, &context).await.unwrap();
            sound.put(name, "x".into()).await.unwrap();
            sound.delete(name).await.unwrap();
            drop((faulty, sound));
            constructor.remove_scratch(&scratch, &context).await.unwrap();
            let gone = registry.open(&within, &OpenContext::new(context.env.clone())).await;
            assert!(gone.is_err_and(|error| error.kind() == ErrorKind::NotFound), "{place}");
        }
    });
}

#[test]
fn typed_options_stand_beside_the_uri() {
    let registry = registry::default();
    let context = OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing);
    let inner = futures_lite::future::block_on(registry.open(&StorageUri::parse("mem://typed").unwrap(), &context));
    let flaky = Arc::new(FlakyStorage::new(inner.unwrap(), FlakyOptions { seed: 1, ..FlakyOptions::default() }));
    let storage: Arc<dyn Storage> = flaky.clone();
    let repository = Repository::create(storage, create()).unwrap();
    repository.kv().put(b"key", b"before").unwrap();
    flaky.set_rates(Rates { refusals: Rate::ALWAYS, ..Rates::default() });
    assert!(repository.kv().put(b"key", b"after").is_err());
    flaky.clear_faults();
    assert_eq!(repository.kv().get(b"key").unwrap().unwrap(), b"before".as_slice());
}

#[test]
fn a_put_that_fails_leaves_the_value_that_was_there_and_the_transaction_goes_on() {
    let registry = registry::default();
    let context = OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing);
    let inner = futures_lite::future::block_on(registry.open(&StorageUri::parse("mem://put").unwrap(), &context));
    let flaky = Arc::new(FlakyStorage::new(inner.unwrap(), FlakyOptions { seed: 1, ..FlakyOptions::default() }));
    let storage: Arc<dyn Storage> = flaky.clone();
    let repository = Repository::create(storage.clone(), create()).unwrap();
    repository.kv().put(b"key", vec![1; 600_000]).unwrap();
    repository.close().unwrap();
    // Opened anew, it claims an epoch with the first chunk.
    let repository = Repository::open(storage, open()).unwrap();
    let mut transaction = repository.begin();
    flaky.set_rates(Rates { refusals: Rate::ALWAYS, ..Rates::default() });
    assert!(transaction.kv().put(b"key", vec![2; 700_000]).is_err());
    flaky.clear_faults();
    transaction.kv().put(b"other", b"small").unwrap();
    transaction.commit().unwrap();
    assert_eq!(repository.kv().get(b"other").unwrap().unwrap(), b"small".as_slice());
    assert!(repository.kv().get(b"key").unwrap().unwrap() == vec![1; 600_000]);
    repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).unwrap();
}

#[test]
fn a_scan_whose_value_could_not_be_read_goes_on_with_that_row() {
    let registry = registry::default();
    let context = OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing);
    let inner = futures_lite::future::block_on(registry.open(&StorageUri::parse("mem://scan").unwrap(), &context));
    let flaky = Arc::new(FlakyStorage::new(inner.unwrap(), FlakyOptions { seed: 1, ..FlakyOptions::default() }));
    let storage: Arc<dyn Storage> = flaky.clone();
    let repository = Repository::create(storage.clone(), create()).unwrap();
    for (fill, key) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
        repository.kv().put(key, vec![fill as u8; 600_000]).unwrap();
    }
    repository.close().unwrap();
    let repository = Repository::open(storage, open()).unwrap();
    let mut scan = repository.kv().scan(..);
    assert_eq!(scan.next().unwrap().unwrap().0, "a");
    flaky.set_rates(Rates { refusals: Rate::ALWAYS, ..Rates::default() });
    assert!(scan.next().unwrap().is_err());
    assert!(scan.next().unwrap().is_err());
    flaky.clear_faults();
    let (key, value) = scan.next().unwrap().unwrap();
    assert!(key == "b" && value == vec![1; 600_000], "{key:?}");
    // Who does not want the value passes it.
    flaky.set_rates(Rates { refusals: Rate::ALWAYS, ..Rates::default() });
    assert!(scan.next().unwrap().is_err());
    assert_eq!(scan.next_key().unwrap().unwrap(), ("c".into(), 600_000));
    flaky.clear_faults();
    let (key, value) = scan.next().unwrap().unwrap();
    assert!(key == "d" && value == vec![3; 600_000], "{key:?}");
    assert!(scan.next().is_none());
}
