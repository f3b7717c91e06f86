//! What an application sees: create, open, both APIs, trusted state, standard I/O.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use futures_lite::future::block_on;
use proptest::prelude::*;
use strongroom::cache::{Cache as _, MemoryCache};
use strongroom::check::CheckOptions;
use strongroom::core::Error as CoreError;
use strongroom::layer::{Metrics, RetryPolicy};
use strongroom::storage::ErrorKind;
use strongroom::trust::LocalTrust;
use strongroom::{
    CreateOptions, Credentials, Error, FileTuning, KdfParameters, OpenOptions, Repository, Suite, blocking, registry,
};
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Fault};
use strongroom_conformance::storage::sample_bytes;

fn password() -> Credentials {
    Credentials::password("test")
}

fn create() -> CreateOptions {
    CreateOptions::new(password()).kdf(KdfParameters::MINIMUM).without_trusted_state()
}

fn open() -> OpenOptions {
    OpenOptions::new(password()).without_trusted_state()
}

fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("repo").display().to_string();
    (folder, place)
}

#[test]
fn the_layers_are_the_callers_choice() {
    let (_folder, place) = folder();
    let (metrics, cache) = (Metrics::new(), Arc::new(MemoryCache::new(1 << 20)));
    let rate = std::num::NonZeroU64::new(1 << 40).unwrap();
    let options = create()
        .metrics(metrics.clone())
        .retry(RetryPolicy::default())
        .timeout(std::time::Duration::from_secs(3600))
        .limit_upload(rate)
        .limit_download(rate);
    let mut dice = Dice::new(1);
    let content: Vec<u8> = (0..200_000).map(|_| dice.roll() as u8).collect();
    block_on(async {
        let repository = Repository::create(&*place, options).await.unwrap();
        repository.fs().write("/file", &content).await.unwrap();
        repository.close().await.unwrap();
        assert!(metrics.snapshot().uploaded_bytes() > 200_000, "{}", metrics.snapshot());

        let mut read = Vec::new();
        for _ in 0..2 {
            let before = metrics.snapshot();
            let options = open().metrics(metrics.clone()).cache(cache.clone()).read_only(true);
            let repository = Repository::open(&*place, options).await.unwrap();
            assert_eq!(repository.fs().read("/file").await.unwrap(), content);
            read.push(metrics.snapshot().since(&before).downloaded_bytes());
        }
        // Commits and headers are read again; the content is not.
        assert!(read[0] > 200_000 && read[1] < read[0] - 200_000, "{read:?}");
        assert!(cache.usage().await.bytes > 200_000);
    });
}

#[test]
fn how_much_memory_files_take_is_the_callers_choice() {
    let nothing = FileTuning { cache_bytes: 0, read_ahead_bytes: 0, in_flight_bytes: 0, write_back_bytes: 0 };
    for (tuning, keeps) in [(FileTuning::default(), true), (nothing, false)] {
        let (_folder, place) = folder();
        let mut content = sample_bytes(1, 2 << 20).to_vec();
        let overwrite = |repository: &blocking::Repository, content: &mut Vec<u8>, seed: u8| {
            let fs = repository.fs();
            let file = fs.open_file_with("/file", strongroom::fs::OpenOptions::new().write(true)).unwrap();
            for offset in (0..content.len()).step_by(64 << 10) {
                file.write_at(offset as u64, &[seed; 1_000]).unwrap();
                content[offset..offset + 1_000].fill(seed);
            }
            let gathered = fs.gathered_bytes();
            assert!(if keeps { gathered >= 32_000 } else { gathered == 0 }, "{gathered} bytes are gathered");
            file.close().unwrap();
        };
        let repository = blocking::Repository::create(&*place, create().file_tuning(tuning)).unwrap();
        repository.fs().write("/file", &content).unwrap();
        overwrite(&repository, &mut content, 1);
        repository.close().unwrap();
        drop(repository);

        let metrics = Metrics::new();
        let options = open().file_tuning(tuning).metrics(metrics.clone());
        let repository = blocking::Repository::open(&*place, options).unwrap();
        overwrite(&repository, &mut content, 2);
        let read = [(); 2].map(|()| {
            let before = metrics.snapshot();
            assert!(repository.fs().read("/file").unwrap() == content);
            metrics.snapshot().since(&before).downloaded_bytes()
        });
        assert!(if keeps { read[1] == 0 } else { read[1] > 1 << 20 }, "{read:?}");
        assert_eq!(repository.check(CheckOptions { data: true }, |_| {}).unwrap().findings, 0);
    }
}

#[test]
fn a_remote_storage_gets_its_layers_by_itself_and_a_local_one_none() {
    block_on(async {
        let options = CrashOptions { yields: false, ..CrashOptions::object_store() };
        let medium = CrashingStorage::new(options);
        let storage: Arc<dyn strongroom::storage::Storage> = Arc::new(medium.another());
        let repository = Repository::create(storage.clone(), create()).await.unwrap();
        // One refusal in passing is retried, and nobody notices.
        medium.fail_call(1, Fault::Refused(ErrorKind::Unavailable));
        repository.kv().put(b"key", b"value").await.unwrap();
        repository.close().await.unwrap();
        drop(repository);
        medium.fail_call(1, Fault::Refused(ErrorKind::Unavailable));
        let error = Repository::open(storage, open().without_retry()).await.unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error}");

        let medium = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::default() });
        medium.fail_call(1, Fault::Refused(ErrorKind::Unavailable));
        let storage: Arc<dyn strongroom::storage::Storage> = Arc::new(medium.another());
        let error = Repository::create(storage, create()).await.unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error}");
    });
}

#[test]
fn a_repository_is_found_again_by_either_api_with_all_that_is_in_it() {
    let (_folder, place) = folder();
    block_on(async {
        let options = create().cipher(Suite::XChaCha20Poly1305).block_bytes(16 << 10).dedup(false);
        let repository = Repository::create(&*place, options).await.unwrap();
        repository.fs().write("/file", b"content").await.unwrap();
        repository.kv().put(b"key", b"value").await.unwrap();
        repository.close().await.unwrap();
    });
    let repository = blocking::Repository::open(&*place, open()).unwrap();
    assert_eq!(repository.fs().read("/file").unwrap(), b"content");
    assert_eq!(repository.kv().get("key").unwrap().unwrap(), "value");
    let info = repository.info().unwrap();
    assert_eq!((info.suite, info.block_bytes), (Suite::XChaCha20Poly1305, 16 << 10));
    assert!(!repository.fs().options().dedup);
    let clear = block_on(strongroom::clear_header(&*place, &strongroom::HeaderOptions::default())).unwrap();
    assert_eq!((clear.repository, clear.block_bytes), (info.repository, info.block_bytes));
    assert_eq!(repository.check(CheckOptions { data: true }, |_| {}).unwrap().findings, 0);
}

#[test]
fn what_goes_wrong_is_told_apart() {
    let (_folder, place) = folder();
    let core = |error: Error| match error {
        Error::Core(error) => error,
        other => panic!("{other}"),
    };
    let opened = |options| core(blocking::Repository::open(&*place, options).map(|_| ()).unwrap_err());
    assert!(matches!(opened(open()), CoreError::NotARepository));
    blocking::Repository::create(&*place, create()).unwrap().close().unwrap();
    let again = blocking::Repository::create(&*place, create()).map(|_| ()).unwrap_err();
    assert!(matches!(core(again), CoreError::AlreadyExists));
    let wrong = OpenOptions::new(Credentials::password("wrong")).without_trusted_state();
    assert!(matches!(opened(wrong), CoreError::WrongCredentials));
    let unknown = core(blocking::Repository::open("nowhere://x", open()).map(|_| ()).unwrap_err());
    assert_eq!(unknown.storage_kind(), Some(ErrorKind::Unsupported));

    let reader = blocking::Repository::open(&*place, open().read_only(true)).unwrap();
    assert!(matches!(reader.fs().write("/x", "y").map_err(core), Err(CoreError::ReadOnly)));
    assert!(matches!(reader.kv().put("x", "y"), Err(CoreError::ReadOnly)));
}

#[test]
fn stores_in_memory_belong_to_their_registry() {
    let shared = registry::default();
    blocking::Repository::create("mem://one", create().registry(shared.clone())).unwrap().close().unwrap();
    assert!(blocking::Repository::open("mem://one", open().registry(shared)).is_ok());
    assert!(blocking::Repository::open("mem://one", open()).is_err());
}

#[test]
fn a_storage_that_goes_back_is_noticed_by_who_has_seen_more() {
    let (folder, place) = folder();
    let trust = || Arc::new(LocalTrust::in_folder(folder.path().join("state"), "here"));
    let snapshot = |from: &str, to: &str| {
        let _ = std::fs::remove_dir_all(folder.path().join(to));
        let mut copy = std::process::Command::new("cp");
        assert!(copy.args(["-a", from, to]).current_dir(folder.path()).status().unwrap().success());
    };
    let repository = blocking::Repository::create(&*place, create().trusted_state(trust())).unwrap();
    repository.close().unwrap();
    snapshot("repo", "older");
    let repository = blocking::Repository::open(&*place, open().trusted_state(trust())).unwrap();
    repository.fs().write("/new", "new").unwrap();
    repository.close().unwrap();
    drop(repository);
    snapshot("older", "repo");
    let refused = blocking::Repository::open(&*place, open().trusted_state(trust())).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Error::Core(CoreError::RolledBack { .. })));
    assert!(blocking::Repository::open(&*place, open()).is_ok());
    let accepted = open().trusted_state(trust()).accept_rollback(true);
    blocking::Repository::open(&*place, accepted).unwrap().close().unwrap();
    assert!(blocking::Repository::open(&*place, open().trusted_state(trust())).is_ok());
}

#[test]
fn a_file_that_is_dropped_loses_what_was_not_flushed_and_nothing_else() {
    let repository = blocking::Repository::create("mem://x", create()).unwrap();
    let fs = repository.fs();
    let mut file = fs.create_file("/file").unwrap();
    file.write_all(b"kept").unwrap();
    file.flush().unwrap();
    file.write_all(b" and lost").unwrap();
    drop(file);
    assert_eq!(fs.read("/file").unwrap(), b"kept");
    fs.write("/other", "works").unwrap();
    assert!(fs.create_file("/file/below").is_err());
    let error = std::io::Error::from(fs.open_file("/absent").unwrap_err());
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[derive(Clone, Debug)]
enum Operation {
    Write(Vec<u8>),
    Read(usize),
    Seek(i64, u8),
    SetLen(u64),
    Flush,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..3000).prop_map(Operation::Write),
        (0_usize..4000).prop_map(Operation::Read),
        (-3000_i64..3000, 0_u8..3).prop_map(|(offset, whence)| Operation::Seek(offset, whence)),
        (0_u64..8000).prop_map(Operation::SetLen),
        Just(Operation::Flush),
    ];
    proptest::collection::vec(operation, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_file_reads_writes_and_seeks_like_one_of_the_system(operations in operations()) {
        let repository = blocking::Repository::create("mem://x", create().block_bytes(4 << 10)).unwrap();
        let options = strongroom::fs::OpenOptions::new().write(true).create(true);
        let mut ours = repository.fs().open_file_with("/file", options).unwrap();
        let mut theirs = tempfile::tempfile().unwrap();
        for operation in operations {
            match operation {
                Operation::Write(bytes) => {
                    ours.write_all(&bytes).unwrap();
                    theirs.write_all(&bytes).unwrap();
                }
                Operation::Read(count) => {
                    let (mut a, mut b) = (Vec::new(), Vec::new());
                    (&mut ours).take(count as u64).read_to_end(&mut a).unwrap();
                    (&mut theirs).take(count as u64).read_to_end(&mut b).unwrap();
                    prop_assert_eq!(a, b);
                }
                Operation::Seek(offset, whence) => {
                    let to = match whence {
                        0 => SeekFrom::Start(offset.unsigned_abs()),
                        1 => SeekFrom::Current(offset),
                        _ => SeekFrom::End(offset),
                    };
                    prop_assert_eq!(ours.seek(to).ok(), theirs.seek(to).ok());
                }
                Operation::SetLen(length) => {
                    ours.set_len(length).unwrap();
                    theirs.set_len(length).unwrap();
                }
                Operation::Flush => ours.flush().unwrap(),
            }
        }
        ours.close().unwrap();
        let mut expected = Vec::new();
        theirs.seek(SeekFrom::Start(0)).unwrap();
        theirs.read_to_end(&mut expected).unwrap();
        prop_assert!(repository.fs().read("/file").unwrap() == expected);
    }
}

/// Executors with many threads take only futures that can move between them.
#[test]
fn futures_can_move_between_threads() {
    fn movable<T: Send>(_: T) {}
    fn check(repository: &Repository) {
        let (fs, kv) = (repository.fs(), repository.kv());
        movable(fs.write("/x", b"x"));
        movable(fs.read("/x"));
        movable(kv.get(b"x"));
        movable(kv.delete(b"x"));
        movable(kv.put(b"x", b"x"));
        movable(repository.info());
        movable(repository.check(CheckOptions::default(), |_| {}));
        movable(repository.close());
    }
    movable(Repository::create("mem://x", create()));
    movable(Repository::open("mem://x", open()));
    let _ = check;
}
