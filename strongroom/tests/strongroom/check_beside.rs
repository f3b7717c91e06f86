//! A check of a repository in which another process works.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_lite::future::block_on;
use strongroom::check::CheckOptions;
use strongroom::storage::{Name, Operation, Result as StorageResult, Storage};
use strongroom::{CreateOptions, Credentials, KdfParameters, OpenOptions, Repository, Tuning};
use strongroom_conformance::between::{Before, Between};
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};

/// Another process writes everything anew before the call of this number.
#[derive(Debug, Default)]
struct Meddle {
    calls: AtomicU64,
    at: Mutex<Option<(u64, Other)>>,
}

struct Other(Repository);

impl std::fmt::Debug for Other {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("another process")
    }
}

#[async_trait]
impl Before for Meddle {
    async fn before(&self, _: Operation, _: Option<Name>) -> StorageResult<()> {
        let calls = self.calls.fetch_add(1, Ordering::SeqCst);
        let other = self.at.lock().unwrap().take_if(|(count, _)| *count == calls);
        if let Some((_, Other(other))) = other {
            for round in 0..3_u8 {
                for file in 0..8_u8 {
                    other.fs().write(format!("/d/{file}"), vec![round; 9_000]).await.unwrap();
                }
                other.compact(strongroom::CompactOptions { thorough: true, ..Default::default() }).await.unwrap();
            }
        }
        Ok(())
    }
}

fn open_options() -> OpenOptions {
    let tuning = Tuning { reader_grace_millis: 0, node_cache_bytes_max: 0, ..Tuning::default() };
    OpenOptions::new(Credentials::password("test")).without_trusted_state().without_defragmenting().tuning(tuning)
}

#[test]
fn it_begins_again_where_its_state_is_given_up_and_finds_nothing() {
    block_on(async {
        let mut begun_again = 0;
        for calls in (0..).step_by(3) {
            let storage = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::object_store() });
            let place: Arc<dyn Storage> = Arc::new(storage.another());
            let options = CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM);
            let repository =
                Repository::create(place, options.block_bytes(4096).without_trusted_state()).await.unwrap();
            repository.fs().create_dir("/d").await.unwrap();
            for file in 0..20_u8 {
                repository.fs().write(format!("/d/{file}"), vec![file; 9_000]).await.unwrap();
            }
            repository.kv().put(b"key", b"value").await.unwrap();
            repository.close().await.unwrap();

            let place: Arc<dyn Storage> = Arc::new(storage.reopen());
            let other = Repository::open(place, open_options()).await.unwrap();
            let meddled = Arc::new(Between::new(storage.reopen(), Meddle::default()));
            let place: Arc<dyn Storage> = meddled.clone();
            let repository = Repository::open(place, open_options().read_only(true)).await.unwrap();
            let before = meddled.hook().calls.load(Ordering::SeqCst);
            *meddled.hook().at.lock().unwrap() = Some((before + calls, Other(other)));
            let options = CheckOptions { data: true };
            let report = repository.check(options, |finding| panic!("before call {calls}: {finding:?}")).await.unwrap();
            assert_eq!((report.files, report.keys, report.findings), (20, 1, 0), "before call {calls}");
            if meddled.hook().at.lock().unwrap().is_some() {
                break;
            }
            let looked = repository.fs().read("/d/3").await.unwrap();
            begun_again += u32::from(looked == [2; 9_000]);
        }
        assert!(begun_again > 0);
    });
}

#[test]
fn a_sample_is_of_one_to_a_hundred_blobs_of_a_hundred() {
    let options = strongroom::CreateOptions::new(strongroom::Credentials::password("correct horse")).kdf_millis(1);
    let repository = strongroom::blocking::Repository::create("mem://sample", options).unwrap();
    for percent in [0, 101, 255] {
        let refused = repository.check_sample(None, percent, |_| {});
        let invalid = matches!(refused, Err(strongroom::Error::Core(strongroom::core::Error::Invalid(_))));
        assert!(invalid, "{percent}: {refused:?}");
    }
    for percent in [1, 100] {
        assert!(repository.check_sample(None, percent, |_| {}).unwrap().blobs_opened > 0, "{percent}");
    }
}
