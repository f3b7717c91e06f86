//! A check while another process goes on: what it finds it tells.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_lite::future::block_on;
use strongroom_conformance::between::{Before, Between};
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::storage::sample_bytes;
use strongroom_core::Error;
use strongroom_core::engine::{CheckOptions, CheckReport, CompactOptions, Engine, OpenOptions, Tuning, Unlock};
use strongroom_core::env::Env;
use strongroom_core::storage::{Name, Operation, Result as StorageResult};

use crate::races::{bed, hasty};
use crate::support::{Bed, TABLE, put};

/// Another process does something before a call.
#[derive(Debug, Default)]
struct Meddle {
    calls: AtomicU64,
    at: Mutex<Option<(When, What, Engine)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// The first time that this blob is read.
    Read(Name),
    /// After so many calls.
    After(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Every node goes elsewhere.
    WritesAnew,
    /// The state of before is given up, and what it names stays where it is.
    GoesOn,
}

#[async_trait]
impl Before for Meddle {
    async fn before(&self, operation: Operation, name: Option<Name>) -> StorageResult<()> {
        let calls = self.calls.fetch_add(1, Ordering::SeqCst);
        let is_now = |when: When| match when {
            When::Read(blob) => operation == Operation::Get && name == Some(blob),
            When::After(count) => count == calls,
        };
        let other = self.at.lock().unwrap().take_if(|(when, ..)| is_now(*when));
        match other {
            Some((_, What::WritesAnew, other)) => write_anew(&other).await,
            Some((_, What::GoesOn, other)) => {
                for round in 0..4_u8 {
                    put(&other, b"round", &[round]).await.unwrap();
                    other.checkpoint().await.unwrap();
                }
            }
            None => {}
        }
        Ok(())
    }
}

type Meddled = Between<CrashingStorage, Meddle>;

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

/// An engine without a cache of nodes, beside another process that goes on when it is time.
async fn open_meddled(bed: &Bed) -> (Arc<Meddled>, Engine) {
    let storage = Arc::new(Between::new(bed.storage.reopen(), Meddle::default()));
    let mut options = OpenOptions::new(Unlock::Root(&bed.root));
    options.tuning = Tuning { node_cache_bytes_max: 0, ..hasty() };
    options.read_only = true;
    let engine = Engine::open(storage.clone(), Env::deterministic(1 << 50), options).await.unwrap();
    (storage, engine)
}

/// Whatever is given up while a check looks, and whenever: of a sound repository it tells no damage.
async fn nothing_is_found_whenever_another_goes_on(data: bool, with_snapshot: bool) {
    let (mut given_up, mut whole) = (0, 0);
    for calls in 0.. {
        let (mut bed, engine) = bed(8, CrashOptions { yields: false, ..CrashOptions::object_store() }).await;
        for key in 0..60_u8 {
            put(&engine, &[key], &[key; 300]).await.unwrap();
            if with_snapshot && key == 40 {
                engine.create_snapshot("monday").await.unwrap();
            }
        }
        engine.checkpoint().await.unwrap();
        put(&engine, b"after", b"it").await.unwrap();
        engine.close().await.unwrap();
        let other = bed.open().await.unwrap();
        let (storage, engine) = open_meddled(&bed).await;
        let before = storage.hook().calls.load(Ordering::SeqCst);
        *storage.hook().at.lock().unwrap() = Some((When::After(before + calls), What::WritesAnew, other));
        match engine.check(CheckOptions { data, ..CheckOptions::default() }).await {
            Ok(report) => {
                whole += 1;
                assert_eq!(report.findings, [], "before call {calls}");
            }
            Err(Error::Expired) => given_up += 1,
            Err(error) => panic!("before call {calls}: {error:?}"),
        }
        if storage.hook().at.lock().unwrap().is_some() {
            break;
        }
    }
    // The last time, all was looked at before.
    assert!(given_up > 0 && whole > 0, "{given_up} times given up, {whole} times not");
}

#[test]
fn of_a_sound_repository_no_damage_is_told_whenever_another_process_goes_on() {
    for data in [false, true] {
        for with_snapshot in [false, true] {
            block_on(nothing_is_found_whenever_another_goes_on(data, with_snapshot));
        }
    }
}

/// A repository with a block that chunks are lost with, which is damaged.
async fn hurt_bed() -> (Bed, Name) {
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
    (bed, hurt)
}

#[test]
fn damage_is_told_though_the_state_is_given_up_while_it_is_looked_for() {
    block_on(async {
        let (mut bed, hurt) = hurt_bed().await;
        let other = bed.open().await.unwrap();
        let (storage, engine) = open_meddled(&bed).await;
        *storage.hook().at.lock().unwrap() = Some((When::Read(hurt), What::WritesAnew, other));
        let report = check(&engine).await.unwrap();
        let told = report.findings.iter().filter(|finding| finding.damage.blob == Some(hurt)).count();
        assert!(told > 0, "{:#?}", report.findings);
        // The state was given up in between, or this shows nothing.
        assert!(report.notices.iter().any(|notice| notice.contains("looked up")), "{:#?}", report.notices);
    });
}

/// However long a check takes: what the newest state needs, too, is lost.
#[test]
fn a_lost_block_is_told_though_others_commit_all_the_while() {
    block_on(async {
        for data in [false, true] {
            let (mut bed, lost) = hurt_bed().await;
            bed.storage.remove(lost);
            let other = bed.open().await.unwrap();
            let (storage, engine) = open_meddled(&bed).await;
            let calls = storage.hook().calls.load(Ordering::SeqCst);
            *storage.hook().at.lock().unwrap() = Some((When::After(calls), What::GoesOn, other));
            let report = engine.check(CheckOptions { data, ..CheckOptions::default() }).await.unwrap();
            let told: Vec<_> = report.findings.iter().filter_map(|finding| finding.damage.blob).collect();
            assert!(told.contains(&lost), "{told:?}");
            assert!(storage.hook().at.lock().unwrap().is_none());
        }
    });
}

/// Where no state stands until it was looked at, too: what the newest one needs is looked for then.
#[test]
fn a_lost_block_is_told_whenever_the_state_is_given_up() {
    block_on(async {
        let mut cut_short = 0;
        for calls in 0.. {
            let (mut bed, lost) = hurt_bed().await;
            bed.storage.remove(lost);
            let other = bed.open().await.unwrap();
            let (storage, engine) = open_meddled(&bed).await;
            let before = storage.hook().calls.load(Ordering::SeqCst);
            *storage.hook().at.lock().unwrap() = Some((When::After(before + calls), What::WritesAnew, other));
            let report = engine.check(CheckOptions::default()).await.unwrap();
            let told = report.findings.iter().filter(|finding| finding.damage.blob == Some(lost)).count();
            assert_eq!(told, 1, "before call {calls}: {:#?}", report.findings);
            cut_short += u64::from(report.is_cut_short);
            if storage.hook().at.lock().unwrap().is_some() {
                break;
            }
        }
        assert!(cut_short > 0);
    });
}
