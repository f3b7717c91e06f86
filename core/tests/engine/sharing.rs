//! Two engines on one handle of a storage: neither takes itself for alone.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Loss};
use strongroom_core::crypto::{RootSecret, Suite};
use strongroom_core::engine::{ChunkNumber, CompactOptions, Engine, OpenOptions, Table, Tuning, Unlock, View};
use strongroom_core::env::Env;
use strongroom_core::storage::{Capabilities, ExclusiveGuard, Name, Occupancy, Put, Result as StorageResult, Storage};
use strongroom_core::{Error, Result};

use crate::support::{Bed, TABLE, assert_clean, get, put};

const CHUNKED: Table = Table(0x81);

fn payload(seed: u64, length: usize) -> Bytes {
    strongroom_conformance::storage::sample_bytes(seed, length)
}

/// What is written is there, one block at a time.
fn eager() -> Tuning {
    Tuning { in_flight_bytes_max: 0, ..Tuning::default() }
}

async fn open(storage: &Arc<dyn Storage>, root: &RootSecret, seed: u64) -> Engine {
    let mut options = OpenOptions::new(Unlock::Root(root));
    options.tuning = eager();
    Engine::open(storage.clone(), Env::deterministic(seed << 32), options).await.unwrap()
}

/// A repository, and the only handle on its storage.
async fn one_handle(seed: u64, locks: bool) -> (Bed, Arc<dyn Storage>) {
    let options = CrashOptions { locks, yields: false, page_names: 2000, ..CrashOptions::default() };
    let (bed, engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, options).await;
    bed.storage.crash_with(Loss::Nothing);
    drop(engine);
    let storage = Arc::new(bed.storage.reopen());
    (bed, storage)
}

async fn set(engine: &Engine, key: u32, length: usize) -> Result<()> {
    let mut transaction = engine.begin();
    let number = transaction.put_chunk(None, payload(key.into(), length)).await?;
    transaction.put(CHUNKED, &key.to_be_bytes(), &number.0.to_le_bytes())?;
    transaction.commit().await.map(drop)
}

async fn unset(engine: &Engine, key: u32) -> Result<()> {
    let mut transaction = engine.begin();
    let row = transaction.get(CHUNKED, &key.to_be_bytes()).await?.unwrap();
    transaction.release_chunk(ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap())))?;
    transaction.delete(CHUNKED, &key.to_be_bytes())?;
    transaction.commit().await.map(drop)
}

async fn assert_there(view: &impl View, key: u32, length: usize) {
    let row = view.get(CHUNKED, &key.to_be_bytes()).await.unwrap().unwrap();
    let number = ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap()));
    assert_eq!(view.chunk(number).await.unwrap(), payload(key.into(), length));
}

#[test]
fn a_reader_on_the_same_handle_is_not_cut_off() {
    block_on(async {
        let (bed, storage) = one_handle(1, true).await;
        let first = open(&storage, &bed.root, 1).await;
        for key in 0..6 {
            set(&first, key, 12_000).await.unwrap();
        }
        first.checkpoint().await.unwrap();
        let second = open(&storage, &bed.root, 2).await;
        let view = second.snapshot();
        for key in 0..6 {
            unset(&first, key).await.unwrap();
        }
        assert!(first.compact(CompactOptions::default()).await.unwrap().waiting > 10);
        first.close().await.unwrap();
        for key in 0..6 {
            assert_there(&view, key, 12_000).await;
        }
        // When it has left, there is nobody.
        drop((view, second, first));
        let third = open(&storage, &bed.root, 3).await;
        assert_eq!(third.compact(CompactOptions::default()).await.unwrap().waiting, 0);
        assert_clean(&third).await;
    });
}

#[test]
fn a_writer_on_the_same_handle_is_not_taken_for_dead() {
    block_on(async {
        let (bed, storage) = one_handle(2, true).await;
        let first = open(&storage, &bed.root, 1).await;
        put(&first, b"a", b"1").await.unwrap();
        let mut transaction = first.begin();
        for key in 0..20_u32 {
            let number = transaction.put_chunk(None, payload(key.into(), 12_000)).await.unwrap();
            transaction.put(CHUNKED, &key.to_be_bytes(), &number.0.to_le_bytes()).unwrap();
        }
        // It comes to a storage that is full, and would sweep what nobody names.
        let second = open(&storage, &bed.root, 2).await;
        let bytes: usize = bed.storage.snapshot_blobs().values().map(Bytes::len).sum();
        bed.storage.set_capacity(Some(bytes as u64));
        let _ = put(&second, b"b", b"1").await;
        let _ = second.compact(CompactOptions::default()).await;
        bed.storage.set_capacity(None);
        put(&second, b"c", b"1").await.unwrap();
        second.compact(CompactOptions::default()).await.unwrap();
        transaction.commit().await.unwrap();
        for key in 0..20 {
            assert_there(&first.snapshot(), key, 12_000).await;
        }
        assert_clean(&first).await;
        second.refresh().await.unwrap();
        assert_clean(&second).await;
        assert_eq!(get(&second, b"a").await.unwrap().unwrap(), "1");
    });
}

/// A storage that gives exclusive access and counts nobody: it may be shared, for all that the engine knows.
#[derive(Debug)]
struct Uncounted(CrashingStorage);

#[async_trait]
impl Storage for Uncounted {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    async fn put(&self, name: Name, bytes: Bytes) -> StorageResult<Put> {
        self.0.put(name, bytes).await
    }
    async fn put_durable(&self, name: Name, bytes: Bytes) -> StorageResult<Put> {
        self.0.put_durable(name, bytes).await
    }
    async fn get(&self, name: Name, range: Option<std::ops::Range<u64>>, max_bytes: u64) -> StorageResult<Bytes> {
        self.0.get(name, range, max_bytes).await
    }
    async fn size(&self, name: Name) -> StorageResult<u64> {
        self.0.size(name).await
    }
    async fn delete(&self, name: Name) -> StorageResult<()> {
        self.0.delete(name).await
    }
    async fn list(&self, prefix: &[u8], after: Option<Name>) -> StorageResult<Vec<Name>> {
        self.0.list(prefix, after).await
    }
    async fn sync(&self) -> StorageResult<()> {
        self.0.sync().await
    }
    async fn persist(&self, names: &[Name]) -> StorageResult<()> {
        self.0.persist(names).await
    }
    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        None
    }
    async fn try_exclusive(&self) -> StorageResult<Option<Box<dyn ExclusiveGuard>>> {
        self.0.try_exclusive().await
    }
}

#[test]
fn on_a_storage_that_counts_nobody_no_engine_takes_itself_for_alone() {
    block_on(async {
        let (bed, handle) = one_handle(3, true).await;
        drop(handle);
        let storage: Arc<dyn Storage> = Arc::new(Uncounted(bed.storage.reopen()));
        let first = open(&storage, &bed.root, 1).await;
        put(&first, b"a", b"1").await.unwrap();
        let mut asleep = first.begin();
        asleep.put(TABLE, b"b", b"1").unwrap();
        let second = open(&storage, &bed.root, 2).await;
        put(&second, b"c", b"1").await.unwrap();
        match asleep.commit().await {
            Ok(_) => {}
            Err(error) => panic!("it was taken for dead: {error}"),
        }
        assert!(!matches!(get(&first, b"b").await, Err(Error::Expired)));
        assert_eq!(first.info().await.unwrap().open_epochs, 2);
    });
}
