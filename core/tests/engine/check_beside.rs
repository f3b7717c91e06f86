//! A check while another process goes on: what it finds it tells.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::storage::sample_bytes;
use strongroom_core::Error;
use strongroom_core::engine::{CheckOptions, CheckReport, CompactOptions, Engine, OpenOptions, Tuning, Unlock};
use strongroom_core::env::Env;
use strongroom_core::storage::{Capabilities, Name, Put, Result as StorageResult, Storage};

use crate::races::{bed, hasty};
use crate::support::{Bed, TABLE, put};

/// Another process does something when a blob is read for the first time.
#[derive(Debug)]
struct Meddled {
    inner: CrashingStorage,
    when: Mutex<Option<(Name, Engine)>>,
}

#[async_trait]
impl Storage for Meddled {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn put(&self, name: Name, bytes: Bytes) -> StorageResult<Put> {
        self.inner.put(name, bytes).await
    }
    async fn put_durable(&self, name: Name, bytes: Bytes) -> StorageResult<Put> {
        self.inner.put_durable(name, bytes).await
    }
    async fn get(&self, name: Name, range: Option<std::ops::Range<u64>>, max_bytes: u64) -> StorageResult<Bytes> {
        let other = self.when.lock().unwrap().take_if(|(when, _)| *when == name);
        if let Some((_, other)) = other {
            write_anew(&other).await;
        }
        self.inner.get(name, range, max_bytes).await
    }
    async fn size(&self, name: Name) -> StorageResult<u64> {
        self.inner.size(name).await
    }
    async fn delete(&self, name: Name) -> StorageResult<()> {
        self.inner.delete(name).await
    }
    async fn list(&self, prefix: &[u8], after: Option<Name>) -> StorageResult<Vec<Name>> {
        self.inner.list(prefix, after).await
    }
    async fn sync(&self) -> StorageResult<()> {
        self.inner.sync().await
    }
    async fn persist(&self, names: &[Name]) -> StorageResult<()> {
        self.inner.persist(names).await
    }
}

/// Every node goes elsewhere, and nobody waits for readers.
async fn write_anew(engine: &Engine) {
    for round in 0..3_u8 {
        for number in 0..8_u8 {
            put(engine, &[number], &[round; 200]).await.unwrap();
        }
        engine.compact(CompactOptions { thorough: true, ..CompactOptions::default() }).await.unwrap();
    }
}

async fn check(engine: &Engine) -> Result<CheckReport, Error> {
    engine.check(CheckOptions { data: true, ..CheckOptions::default() }).await
}

/// An engine without a cache of nodes, beside another process that goes on when this blob is read.
async fn open_meddled(bed: &Bed, when: Name, other: Engine) -> Engine {
    let storage = Arc::new(Meddled { inner: bed.storage.reopen(), when: Mutex::new(Some((when, other))) });
    let mut options = OpenOptions::new(Unlock::Root(&bed.root));
    options.tuning = Tuning { node_cache_bytes_max: 0, ..hasty() };
    options.read_only = true;
    Engine::open(storage, Env::deterministic(1 << 50), options).await.unwrap()
}

#[test]
fn damage_is_told_though_the_state_is_given_up_while_it_is_looked_for() {
    block_on(async {
        let (mut bed, engine) = bed(7, CrashOptions { yields: false, ..CrashOptions::object_store() }).await;
        let mut transaction = engine.begin();
        for key in 0..24_u8 {
            let number = transaction.put_chunk(None, sample_bytes(key.into(), 3_000)).await.unwrap();
            transaction.put(TABLE, &[0xff, key], &number.0.to_le_bytes()).unwrap();
        }
        transaction.commit().await.unwrap();
        // Into the tree: rows of the tail are in memory.
        engine.checkpoint().await.unwrap();
        engine.close().await.unwrap();
        // A block whose loss is told with the chunks that it takes along.
        let whole = bed.storage.snapshot_blobs();
        let mut hurt = None;
        for (name, bytes) in &whole {
            let mut bytes = bytes.to_vec();
            bytes[100] ^= 1;
            bed.storage.overwrite(*name, bytes.into());
            let found = match bed.open().await {
                Ok(engine) => check(&engine).await.ok(),
                Err(_) => None,
            };
            let is_chunks = |report: &CheckReport| report.findings.iter().any(|finding| !finding.chunks.is_empty());
            if found.is_some_and(|report| is_chunks(&report)) {
                hurt = Some(*name);
                break;
            }
            bed.storage.restore(whole.clone());
        }
        let hurt = hurt.expect("some block holds chunks");
        let other = bed.open().await.unwrap();
        let engine = open_meddled(&bed, hurt, other).await;
        let report = check(&engine).await.unwrap();
        let told = report.findings.iter().filter(|finding| finding.damage.blob == Some(hurt)).count();
        assert!(told > 0, "{:#?}", report.findings);
        // The state was given up in between, or this shows nothing.
        assert!(report.notices.iter().any(|notice| notice.contains("looked up")), "{:#?}", report.notices);
    });
}
