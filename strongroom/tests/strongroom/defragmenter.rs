//! Defragmentation in the background, on real threads.

use std::time::Duration;

use futures_lite::future::block_on;
use strongroom::check::CheckOptions;
use strongroom::core::Error as CoreError;
use strongroom::core::env::Env;
use strongroom::{
    CreateOptions, Credentials, DefragmentOptions, DefragmentState, Error, KdfParameters, OpenOptions, Repository,
    blocking, registry,
};

fn create() -> CreateOptions {
    CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM).without_trusted_state()
}

fn open() -> OpenOptions {
    OpenOptions::new(Credentials::password("test")).without_trusted_state()
}

/// At once, as fast as it can.
fn eager() -> DefragmentOptions {
    DefragmentOptions {
        start_percent: 30,
        stop_percent: 20,
        garbage_bytes_min: 0,
        bytes_per_second: u64::MAX,
        busy_percent: 100,
        delay: Duration::ZERO,
        ..DefragmentOptions::default()
    }
}

fn content(file: u32, version: u32) -> Vec<u8> {
    strongroom_conformance::storage::sample_bytes(u64::from(file * 10 + version), 2500).to_vec()
}

#[test]
fn after_most_files_are_deleted_the_background_alone_brings_the_space_back() {
    let place = "mem://defragmenter";
    let options = create().versions(2).block_bytes(16 << 10).dedup(false).without_defragmenting();
    let repository = blocking::Repository::create(place, options).unwrap();
    let fs = repository.fs();
    for version in 0..3 {
        fs.transact(|transaction| {
            (0..400).try_for_each(|file| transaction.write(format!("/{file}"), content(file, version)))
        })
        .unwrap();
    }
    repository.create_snapshot("all").unwrap();
    fs.transact(|transaction| {
        (0..400).filter(|file| file % 5 != 0).try_for_each(|file| transaction.remove_file(format!("/{file}")))
    })
    .unwrap();
    repository.create_snapshot("few").unwrap();
    repository.remove_snapshot("all").unwrap();
    let blobs = repository.info().unwrap().blobs;

    let defragmenter = repository.asynchronous().engine().defragmenter(eager()).unwrap();
    // One who writes beside it is not disturbed.
    fs.remove_file("/0").unwrap();
    block_on(defragmenter.idle());
    let status = block_on(defragmenter.stop());
    assert!(status.last_error.is_none() && status.garbage_percent() <= 20.0, "{status:?}");
    assert!(status.moved_bytes > 0 && status.state == DefragmentState::Ended, "{status:?}");
    let after = repository.info().unwrap().blobs;
    assert!(after * 2 < blobs, "{blobs} blobs, then {after}; {status:?}");

    for file in (5..400).step_by(5) {
        let path = format!("/{file}");
        assert_eq!(fs.read(&path).unwrap(), content(file, 2));
        assert_eq!(fs.read_version(&path, 1).unwrap(), content(file, 0));
    }
    let few = repository.files_at("few").unwrap();
    assert_eq!(few.read("/0").unwrap(), content(0, 2));
    assert_eq!(few.read_version("/395", 2).unwrap(), content(395, 1));
    repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).unwrap();
    repository.close().unwrap();
}

#[test]
fn a_repository_opened_for_writing_has_one_unless_told_otherwise() {
    let registry = registry::default();
    let place = "mem://defragmented";
    block_on(async {
        let repository = Repository::create(place, create().registry(registry.clone())).await.unwrap();
        let status = repository.defragment_status().unwrap();
        // It waits before its first look.
        assert_eq!((status.state, status.moved_bytes, status.stored_bytes), (DefragmentState::Watching, 0, 0));
        repository.pause_defragmenting();
        assert_eq!(repository.defragment_status().unwrap().state, DefragmentState::Paused);
        repository.resume_defragmenting();
        assert_eq!(repository.defragment_status().unwrap().state, DefragmentState::Watching);
        let clone = repository.clone();
        repository.close().await.unwrap();
        assert_eq!(clone.defragment_status().unwrap().state, DefragmentState::Ended);
        clone.close().await.unwrap();

        let open = || open().registry(registry.clone());
        let has_one = async |options| Repository::open(place, options).await.unwrap().defragment_status().is_some();
        assert!(has_one(open()).await);
        assert!(has_one(open().defragment(eager())).await);
        assert!(!has_one(open().without_defragmenting()).await);
        assert!(!has_one(open().read_only(true)).await);
        assert!(!has_one(open().env(Env::deterministic(1))).await, "nobody would run it");
        let wrong = DefragmentOptions { stop_percent: 90, ..DefragmentOptions::default() };
        let refused = Repository::open(place, open().defragment(wrong)).await.unwrap_err();
        assert!(matches!(refused, Error::Core(CoreError::Invalid(_))), "{refused}");
    });
}
