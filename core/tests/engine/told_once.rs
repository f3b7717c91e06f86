//! What a storage does to one transaction: told to it, once, and to nobody else; and races that are lost for ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::between::{Before, Between};
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_core::Result;
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{
    ChunkNumber, CompactOptions, Engine, OpenOptions, Table, Transaction, Tuning, Unlock, View,
};
use strongroom_core::env::Env;
use strongroom_core::storage::{Error as StorageError, ErrorKind, Name, Operation, Result as StorageResult};

use crate::support::{Bed, TABLE, assert_clean, contents, get, put};

const CHUNKED: Table = Table(0x81);

fn payload(seed: u64, length: usize) -> Bytes {
    strongroom_conformance::storage::sample_bytes(seed, length)
}

async fn set(transaction: &mut Transaction, key: u32, length: usize) -> Result<()> {
    let number = transaction.put_chunk(None, payload(key.into(), length)).await?;
    transaction.put(CHUNKED, &key.to_be_bytes(), &number.0.to_le_bytes())
}

async fn assert_there(engine: &Engine, key: u32, length: usize) {
    let view = engine.snapshot();
    let row = view.get(CHUNKED, &key.to_be_bytes()).await.unwrap().unwrap();
    let number = ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap()));
    assert_eq!(view.chunk(number).await.unwrap(), payload(key.into(), length));
}

/// What comes between an engine and its storage.
#[derive(Debug, Default)]
struct Trouble {
    /// So many more names are refused from now on, whenever they come.
    to_refuse: AtomicU64,
    refused: Mutex<Vec<Name>>,
    /// So many more times another process commits before a durable put does its work.
    interruptions: AtomicU64,
    other: Mutex<Option<Engine>>,
}

fn take_one(counter: &AtomicU64) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl Before for Trouble {
    async fn before(&self, operation: Operation, name: Option<Name>) -> StorageResult<()> {
        match (operation, name) {
            (Operation::Put, Some(name)) => {
                let mut refused = self.refused.lock().unwrap();
                if take_one(&self.to_refuse) {
                    refused.push(name);
                }
                if refused.contains(&name) {
                    return Err(StorageError::new(ErrorKind::ReadOnly, Operation::Put, "a block that is not taken"));
                }
            }
            (Operation::PutDurable, _) => {
                let other = self.other.lock().unwrap().clone();
                if let Some(other) = other
                    && take_one(&self.interruptions)
                {
                    let left = self.interruptions.load(Ordering::SeqCst);
                    put(&other, b"steady", &left.to_le_bytes()).await.unwrap();
                }
            }
            _ => {}
        }
        Ok(())
    }
}

type Troubled = Between<CrashingStorage, Trouble>;

async fn between(seed: u64) -> (Bed, Arc<Troubled>, Engine) {
    let options = CrashOptions { yields: false, page_names: 2000, ..CrashOptions::object_store() };
    let (mut bed, engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, options).await;
    engine.close().await.unwrap();
    bed.tuning = Tuning { checkpoint_commits: 100_000, close_commits: 100_000, ..Tuning::default() };
    let storage = Arc::new(Between::new(bed.storage.reopen(), Trouble::default()));
    let mut options = OpenOptions::new(Unlock::Root(&bed.root));
    options.tuning = bed.tuning;
    let engine = Engine::open(storage.clone(), Env::deterministic(seed << 33), options).await.unwrap();
    put(&engine, b"a", b"1").await.unwrap();
    (bed, storage, engine)
}

fn is_refused<T: std::fmt::Debug>(result: Result<T>) {
    match result {
        Err(error) if error.storage_kind() == Some(ErrorKind::ReadOnly) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_block_that_fails_for_ever_is_told_to_its_transaction_and_not_to_the_next() {
    block_on(async {
        let (mut bed, storage, engine) = between(1).await;
        for round in 0..3_u32 {
            let mut transaction = engine.begin();
            set(&mut transaction, round, 12_000).await.unwrap();
            storage.hook().to_refuse.store(1, Ordering::SeqCst);
            is_refused(transaction.commit().await);
            let mut transaction = engine.begin();
            set(&mut transaction, 100 + round, 12_000).await.unwrap();
            transaction.commit().await.unwrap();
            engine.checkpoint().await.unwrap();
            assert_there(&engine, 100 + round, 12_000).await;
        }
        assert_eq!(storage.hook().refused.lock().unwrap().len(), 3);
        engine.close().await.unwrap();
        let engine = bed.open().await.unwrap();
        for round in 0..3 {
            assert_there(&engine, 100 + round, 12_000).await;
        }
        assert_clean(&engine).await;
    });
}

#[test]
fn every_transaction_that_shares_a_block_that_failed_is_told_and_no_other() {
    block_on(async {
        let (_bed, storage, engine) = between(2).await;
        let (mut first, mut second) = (engine.begin(), engine.begin());
        // Its first payload stays in rows, so what comes next goes into blocks, and they share one.
        set(&mut first, 1, 3_000).await.unwrap();
        set(&mut second, 2, 3_000).await.unwrap();
        storage.hook().to_refuse.store(1, Ordering::SeqCst);
        set(&mut first, 3, 9_000).await.unwrap();
        let mut third = engine.begin();
        set(&mut third, 4, 9_000).await.unwrap();
        // It began when the block was closed.
        third.commit().await.unwrap();
        is_refused(first.commit().await);
        is_refused(second.commit().await);
        let mut fourth = engine.begin();
        set(&mut fourth, 5, 9_000).await.unwrap();
        fourth.commit().await.unwrap();
        for key in [4, 5] {
            assert_there(&engine, key, 9_000).await;
        }
        engine.checkpoint().await.unwrap();
        assert_clean(&engine).await;
    });
}

#[test]
fn a_transaction_whose_block_arrives_at_the_second_try_is_not_told_of_another_s_failure() {
    block_on(async {
        let (_bed, storage, engine) = between(3).await;
        let (mut first, mut second) = (engine.begin(), engine.begin());
        set(&mut first, 1, 3_000).await.unwrap();
        set(&mut second, 2, 3_000).await.unwrap();
        storage.hook().to_refuse.store(1, Ordering::SeqCst);
        is_refused(first.commit().await);
        storage.hook().refused.lock().unwrap().clear();
        second.commit().await.unwrap();
        assert_there(&engine, 2, 3_000).await;
        engine.checkpoint().await.unwrap();
        assert_clean(&engine).await;
    });
}

/// Each race that the compaction loses leaves behind what it wrote for it.
#[test]
fn a_compaction_that_loses_every_race_writes_the_trees_anew_twice_at_most() {
    block_on(async {
        let (mut bed, storage, engine) = between(4).await;
        for part in 0..10_u32 {
            let mut transaction = engine.begin();
            for key in 0..300 {
                transaction.put(TABLE, &(part * 1000 + key).to_be_bytes(), &[7; 60]).unwrap();
            }
            transaction.commit().await.unwrap();
        }
        engine.checkpoint().await.unwrap();
        let mut transaction = engine.begin();
        for key in (0..10_000_u32).filter(|key| key % 5 != 0) {
            transaction.delete(TABLE, &key.to_be_bytes()).unwrap();
        }
        transaction.commit().await.unwrap();
        engine.checkpoint().await.unwrap();
        let before = bed.storage.calls().of(Operation::Put);
        engine.checkpoint().await.unwrap();
        let change = bed.storage.calls().of(Operation::Put) - before;
        let steady = bed.open().await.unwrap();
        put(&steady, b"steady", b"").await.unwrap();
        *storage.hook().other.lock().unwrap() = Some(steady);
        engine.refresh().await.unwrap();
        let rows = contents(&engine.snapshot()).await.unwrap();
        storage.hook().interruptions.store(30, Ordering::SeqCst);
        let before = bed.storage.calls().of(Operation::Put);
        engine.compact(CompactOptions::default()).await.unwrap();
        let written = bed.storage.calls().of(Operation::Put) - before;
        assert_eq!(storage.hook().interruptions.load(Ordering::SeqCst), 0);
        // As many blocks as a rebuilding takes: a repository at rest shows.
        let before = bed.storage.calls().of(Operation::Put);
        engine.compact(CompactOptions { thorough: true, ..CompactOptions::default() }).await.unwrap();
        let rebuild = bed.storage.calls().of(Operation::Put) - before;
        assert!(rebuild > 3 * change.max(1), "{rebuild} blocks for all nodes, {change} for a change");
        assert!(written <= 2 * rebuild + 34 * (change + 2), "{written} blocks; {rebuild} anew, {change} for a change");
        *storage.hook().other.lock().unwrap() = None;
        let after = contents(&engine.snapshot()).await.unwrap();
        assert_eq!(after.len(), rows.len());
        assert_eq!(get(&engine, b"a").await.unwrap().unwrap(), "1");
        assert_clean(&engine).await;
    });
}
