//! Hints that others are done with while they are put; and looks for the head where much is lost at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::{block_on, yield_now};
use strongroom_conformance::between::{Before, Between};
use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Fault};
use strongroom_conformance::storage::sample_bytes;
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{Engine, OpenOptions, Unlock, View};
use strongroom_core::env::Env;
use strongroom_core::format::well_known::is_hint_name;
use strongroom_core::storage::{Name, Operation, Result as StorageResult};
use strongroom_core::{Error, Result};

use crate::support::{Bed, assert_clean, contents, put};

fn over_a_network() -> CrashOptions {
    CrashOptions { yields: false, ..CrashOptions::object_store() }
}

async fn open_on<B: Before + 'static>(bed: &Bed, before: B) -> (Arc<Between<CrashingStorage, B>>, Engine) {
    let storage = Arc::new(Between::new(bed.storage.reopen(), before));
    let mut options = OpenOptions::new(Unlock::Root(&bed.root));
    options.tuning = bed.tuning;
    let engine = Engine::open(storage.clone(), Env::deterministic(7 << 33), options).await.unwrap();
    (storage, engine)
}

/// The answer to the put of a hint is lost; and before what is there is made durable, another process puts a newer checkpoint.
#[derive(Debug)]
struct Overtaken {
    medium: CrashingStorage,
    other: Mutex<Option<Engine>>,
    is_lost: AtomicBool,
    is_overtaken: AtomicBool,
}

#[async_trait]
impl Before for Overtaken {
    async fn before(&self, operation: Operation, name: Option<Name>) -> StorageResult<()> {
        let is_hint = name.is_some_and(|name| is_hint_name(name.as_bytes()));
        if operation == Operation::PutDurable && is_hint && self.is_lost.swap(false, Ordering::Relaxed) {
            self.medium.fail_operation(Operation::PutDurable, 1, Fault::LostReply);
        }
        let other = if operation == Operation::Persist { self.other.lock().unwrap().take() } else { None };
        if let Some(other) = other {
            put(&other, b"newer", b"").await.unwrap();
            other.checkpoint().await.unwrap();
            self.is_overtaken.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[test]
fn a_hint_that_a_newer_one_has_replaced_by_the_time_it_is_made_durable_fails_no_checkpoint() {
    block_on(async {
        let (mut bed, engine) = Bed::new(1, 4096, Suite::Aes256Gcm, over_a_network()).await;
        engine.close().await.unwrap();
        let overtaken = Overtaken {
            medium: bed.storage.another(),
            other: Mutex::default(),
            is_lost: AtomicBool::new(false),
            is_overtaken: AtomicBool::new(false),
        };
        let (storage, engine) = open_on(&bed, overtaken).await;
        put(&engine, b"older", b"").await.unwrap();
        let other = bed.open().await.unwrap();
        put(&other, b"other", b"").await.unwrap();
        engine.refresh().await.unwrap();
        *storage.hook().other.lock().unwrap() = Some(other);
        storage.hook().is_lost.store(true, Ordering::Relaxed);
        engine.checkpoint().await.unwrap();
        assert!(storage.hook().is_overtaken.load(Ordering::Relaxed), "the other one did not come in between");
        // The newer one is there, and nothing else.
        let hints = bed.storage.snapshot_blobs().into_keys().filter(|name| is_hint_name(name.as_bytes())).count();
        assert_eq!(hints, 1);
        let fresh = bed.open().await.unwrap();
        assert_eq!(contents(&fresh.snapshot()).await.unwrap().len(), 3);
        assert_clean(&fresh).await;
    });
}

/// Notes what is put, and how many listings there are, and at once: with one each head is found.
#[derive(Debug, Default)]
struct Looks {
    put: Mutex<Vec<Name>>,
    are_slow: AtomicBool,
    begun: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Before for Looks {
    async fn before(&self, operation: Operation, name: Option<Name>) -> StorageResult<()> {
        if operation == Operation::Put {
            self.put.lock().unwrap().extend(name);
        }
        if operation == Operation::List && self.are_slow.load(Ordering::Relaxed) {
            self.begun.fetch_add(1, Ordering::Relaxed);
            self.most.fetch_max(self.under_way.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            for _ in 0..10 {
                yield_now().await;
            }
            self.under_way.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[test]
fn where_many_blocks_are_lost_a_few_are_looked_into_at_once_and_each_of_them_once() {
    block_on(async {
        let (bed, engine) = Bed::new(2, 4096, Suite::Aes256Gcm, over_a_network()).await;
        engine.close().await.unwrap();
        let (storage, engine) = open_on(&bed, Looks::default()).await;
        let mut transaction = engine.begin();
        let mut numbers = Vec::new();
        for seed in 0..12 {
            numbers.push(transaction.put_chunk(None, sample_bytes(seed, 3_500)).await.unwrap());
        }
        transaction.commit().await.unwrap();
        // Of nodes there are none yet.
        let blocks = std::mem::take(&mut *storage.hook().put.lock().unwrap());
        engine.checkpoint().await.unwrap();
        let view = engine.snapshot();
        assert!(view.chunks(&numbers).await.iter().all(Result::is_ok));
        for &name in &blocks {
            bed.storage.remove(name);
        }
        storage.hook().are_slow.store(true, Ordering::Relaxed);
        let looks = || [&storage.hook().begun, &storage.hook().most].map(|count| count.swap(0, Ordering::Relaxed));
        assert!(matches!(view.chunk(numbers[0]).await, Err(Error::Damaged(_))));
        let [one, _] = looks();
        // Each twice: one look tells of both, and of others in the same block.
        let answers = view.chunks(&[numbers.clone(), numbers].concat()).await;
        let blob = |chunk: &Result<Bytes>| match chunk {
            Err(Error::Damaged(damage)) => damage.blob,
            other => panic!("{other:?}"),
        };
        let lost: BTreeSet<_> = answers.iter().map(blob).collect();
        assert!(lost.len() >= 8 && one > 0, "{lost:?}");
        assert_eq!(looks(), [one * lost.len(), 4]);
    });
}
