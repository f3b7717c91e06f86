//! Clones that are brought up to date by what differs between two states: what that costs, and that it misses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::between::{Before, Between};
use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Fault};
use strongroom_conformance::{Dice, simulate};
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{
    CheckOptions, ChunkNumber, CloneOptions, CloneProgress, Cloned, CompactOptions, Engine, OpenOptions, Unlock, View,
};
use strongroom_core::env::Env;
use strongroom_core::format::BlockId;
use strongroom_core::storage::{Name, Operation, Storage as _};
use strongroom_core::{Error, Result};

use crate::support::{Bed, TABLE, assert_clean, contents, tuning};

const BLOCK_BYTES: u32 = 4096;

/// Each seed its own bytes.
fn payload(seed: u64, length: usize) -> Bytes {
    strongroom_conformance::storage::sample_bytes(seed, length)
}

/// Chunks under keys, in place of those that were there; `None` takes one away.
async fn store(engine: &Engine, chunks: impl IntoIterator<Item = (u32, Option<(u64, usize)>)>) {
    let mut transaction = engine.begin();
    for (key, chunk) in chunks {
        let key = key.to_be_bytes();
        if let Some(row) = transaction.get(TABLE, &key).await.unwrap() {
            transaction.release_chunk(number(&row)).unwrap();
            transaction.delete(TABLE, &key).unwrap();
        }
        if let Some((seed, length)) = chunk {
            let number = transaction.put_chunk(None, payload(seed, length)).await.unwrap();
            transaction.put(TABLE, &key, &number.0.to_le_bytes()).unwrap();
        }
    }
    transaction.commit().await.unwrap();
}

fn number(row: &[u8]) -> ChunkNumber {
    ChunkNumber(u64::from_le_bytes(row.try_into().unwrap()))
}

/// Every row, and what the chunks hold that rows name.
async fn all(engine: &Engine) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let view = engine.snapshot();
    let mut rows = contents(&view).await.unwrap();
    for row in rows.values_mut() {
        *row = view.chunk(number(row)).await.unwrap().to_vec();
    }
    rows
}

async fn open(storage: &CrashingStorage, bed: &Bed, read_only: bool) -> Result<Engine> {
    static SEED: AtomicU64 = AtomicU64::new(1 << 42);
    let mut options = OpenOptions::new(Unlock::Root(&bed.root));
    (options.tuning, options.read_only) = (tuning(), read_only);
    let env = Env::deterministic(SEED.fetch_add(1, Ordering::Relaxed));
    Engine::open(Arc::new(storage.reopen()), env, options).await
}

async fn clone(engine: &Engine, target: &CrashingStorage, prune: bool) -> Result<Cloned> {
    engine.clone_to(Arc::new(target.reopen()), CloneOptions { prune, ..CloneOptions::default() }).await
}

/// What a clone holds, which is in order.
async fn look(storage: &CrashingStorage, bed: &Bed) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let engine = open(storage, bed, true).await.unwrap();
    assert_clean(&engine).await;
    all(&engine).await
}

/// The data blocks in a storage.
fn data_blocks(engine: &Engine, storage: &CrashingStorage) -> BTreeSet<Name> {
    let id = |name: &Name| BlockId::decode(&engine.keys().decrypt_name(*name.as_bytes()));
    let names = storage.snapshot_blobs().into_keys();
    names.filter(|name| matches!(id(name), Some(BlockId::Data { .. }))).collect()
}

/// A repository of so many chunks, each about a block, with a checkpoint at its head.
async fn large(seed: u64, chunks: u32) -> Bed {
    let (bed, engine) = Bed::new(seed, BLOCK_BYTES, Suite::Aes256Gcm, CrashOptions::object_store()).await;
    for first in (0..chunks).step_by(200) {
        store(&engine, (first..first + 200).map(|key| (key, Some((u64::from(key), 3_500))))).await;
    }
    engine.close().await.unwrap();
    bed
}

/// Calls on the source and on the target of a run after ten changes in a repository of so many chunks.
async fn cost_of_ten_changes(chunks: u32, prune: bool) -> (u64, u64) {
    let mut bed = large(1, chunks).await;
    let target = CrashingStorage::new(CrashOptions::object_store());
    let engine = bed.open().await.unwrap();
    clone(&engine, &target, prune).await.unwrap();
    store(&engine, (0..10).map(|change| (change * (chunks / 10), Some((1 << 40 | u64::from(change), 3_500))))).await;
    engine.close().await.unwrap();
    drop(engine);

    // Whoever comes knows nothing yet.
    let engine = bed.open().await.unwrap();
    let before = (bed.storage.calls(), target.calls());
    let cloned = clone(&engine, &target, prune).await.unwrap();
    let after = (bed.storage.calls(), target.calls());
    assert!(cloned.sent_blocks >= 10 && cloned.blocks > u64::from(chunks) * 3 / 4, "{cloned:?}");
    // Headers and hints are listed, and never everything.
    let lists = after.1.of(Operation::List) - before.1.of(Operation::List);
    assert!(lists <= 12, "{lists} listings");
    assert_eq!(look(&target, &bed).await, all(&engine).await);
    if prune {
        assert_eq!(target.snapshot_blobs().len() as u64, cloned.blocks + 4);
    }
    (after.0.all() - before.0.all(), after.1.all() - before.1.all())
}

#[test]
fn an_incremental_clone_costs_what_changed_and_not_what_is_there() {
    block_on(async {
        for prune in [false, true] {
            let (source, there) = cost_of_ten_changes(8_000, prune).await;
            assert!(source <= 250 && there <= 180, "{source} calls on the source, {there} on the clone");
            // One level more, in both trees and for each of the ten.
            let (source_of_two, there_of_two) = cost_of_ten_changes(16_000, prune).await;
            assert!(source_of_two <= source + 60, "{source_of_two} calls on the source, and {source} of half as many");
            assert!(there_of_two <= there + 30, "{there_of_two} calls on the clone, and {there} of half as many");
        }
    });
}

/// One repository and one clone of it, by one number: what is stored, taken away, moved, kept and let go in the source, and runs
/// that come to their end or die anywhere, with loss of power or without.
async fn life(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut place = || match dice.below(3) {
        0 => CrashOptions::default(),
        1 => CrashOptions::atomic(),
        _ => CrashOptions::object_store(),
    };
    let (here, there) = (place(), place());
    let (mut bed, mut engine) = Bed::new(seed, BLOCK_BYTES, Suite::Aes256Gcm, here).await;
    let target = CrashingStorage::new(there);
    // After a loss of power what a dead run deleted can be there again. Names tell that, where they are looked at each time.
    let loses_power = dice.per_mille(500);
    let is_exact = !loses_power || !target.is_remote();
    let mut stood = None;
    for step in 0..40_u64 {
        match dice.below(14) {
            0..=4 => {
                let chunk = |dice: &mut Dice| (!dice.per_mille(300)).then(|| (dice.roll(), dice.below(9_000) as usize));
                let chunks: Vec<_> = (0..=dice.below(12)).map(|_| (dice.below(60) as u32, chunk(&mut dice))).collect();
                store(&engine, chunks).await;
            }
            5 => engine.checkpoint().await.map(drop).unwrap(),
            6 => {
                let options = CompactOptions { thorough: dice.per_mille(500), ..CompactOptions::default() };
                engine.compact(options).await.map(drop).unwrap();
            }
            7 => match engine.snapshots().await.unwrap().first() {
                Some(kept) if dice.per_mille(500) => engine.remove_snapshot(&kept.name).await.unwrap(),
                _ => engine.create_snapshot(&step.to_string()).await.map(drop).unwrap(),
            },
            8 => {
                if dice.per_mille(500) {
                    engine.close().await.unwrap();
                }
                drop(engine);
                engine = bed.open().await.unwrap();
            }
            _ => {
                let (calls, prune) = (1 + dice.below(60), dice.per_mille(600));
                let fault = [Fault::LostReply, Fault::LostRequest, Fault::NotDurable][dice.below(3) as usize];
                let handle = target.reopen();
                if dice.per_mille(600) {
                    handle.cut_off_after(calls, fault);
                }
                let options = CloneOptions { prune, ..CloneOptions::default() };
                let ended = engine.clone_to(Arc::new(handle.another()), options).await;
                if let (Ok(cloned), true, true) = (&ended, prune, is_exact) {
                    assert_tidy(&engine, &bed, &target, cloned);
                }
                if loses_power && dice.per_mille(700) {
                    target.crash(dice.roll());
                } else {
                    handle.process_kill();
                }
                stood = follow(&engine, &bed, &target, stood, ended.is_ok()).await;
            }
        }
    }
    let cloned = clone(&engine, &target, true).await.unwrap();
    if is_exact {
        assert_tidy(&engine, &bed, &target, &cloned);
    }
    follow(&engine, &bed, &target, stood, true).await;
}

/// Blocks, the commit, the hint and two copies of the header are there, and nothing that a run before has left.
fn assert_tidy(engine: &Engine, bed: &Bed, target: &CrashingStorage, cloned: &Cloned) {
    let blocks = data_blocks(engine, target);
    assert_eq!(blocks.len() as u64, cloned.blocks);
    assert!(blocks.is_subset(&data_blocks(engine, &bed.storage)));
    assert_eq!(target.snapshot_blobs().len() as u64, cloned.blocks + 4);
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a clone stands at after a run: where that came to its end what is in the source, else that or what was there.
async fn follow(
    engine: &Engine,
    bed: &Bed,
    target: &CrashingStorage,
    stood: Option<Rows>,
    has_ended: bool,
) -> Option<Rows> {
    let opened = match open(target, bed, true).await {
        Err(Error::NotARepository | Error::Damaged(_)) if stood.is_none() && !has_ended => return None,
        opened => opened.unwrap(),
    };
    let mut report = opened.check(CheckOptions { data: true, ..CheckOptions::default() }).await.unwrap();
    if !has_ended {
        // It may lack the hint to where it stands, or before it first stood the second copy of the header.
        report.findings.retain(|finding| {
            let is_header = stood.is_none() && finding.damage.structure == "header";
            !is_header && !finding.damage.detail.contains("bring it up to date again")
        });
    }
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let (now, rows) = (all(engine).await, all(&opened).await);
    assert!(
        rows == now || !has_ended && Some(&rows) == stood.as_ref(),
        "it holds neither what it did nor what it is to"
    );
    Some(rows)
}

#[test]
fn a_mirror_is_whole_at_every_moment_and_misses_nothing() {
    simulate(if crate::support::is_full() { 3_000 } else { 60 }, |seed| block_on(life(seed)));
}

#[test]
fn what_a_clone_at_hand_has_lost_is_put_again_and_of_one_far_away_a_comparison_tells() {
    block_on(async {
        for (options, is_near) in [(CrashOptions::default(), true), (CrashOptions::object_store(), false)] {
            for prune in [false, true] {
                let (bed, engine) = Bed::new(2, BLOCK_BYTES, Suite::Aes256Gcm, options.clone()).await;
                store(&engine, (0..40).map(|key| (key, Some((u64::from(key), 6_000))))).await;
                let target = CrashingStorage::new(options.clone());
                clone(&engine, &target, prune).await.unwrap();
                store(&engine, [(3, Some((99, 6_000)))]).await;
                clone(&engine, &target, prune).await.unwrap();
                let lost = *data_blocks(&engine, &target).first().unwrap();
                target.remove(lost);
                store(&engine, [(60, Some((60, 6_000)))]).await;
                clone(&engine, &target, prune).await.unwrap();
                assert_eq!(target.snapshot_blobs().contains_key(&lost), is_near);
                let options = CloneOptions { checksum: true, prune, ..CloneOptions::default() };
                engine.clone_to(Arc::new(target.reopen()), options).await.unwrap();
                assert_eq!(look(&target, &bed).await, all(&engine).await);
            }
        }
    });
}

#[test]
fn what_runs_without_pruning_left_there_goes_with_the_first_that_prunes() {
    block_on(async {
        let (bed, engine) = Bed::new(3, BLOCK_BYTES, Suite::Aes256Gcm, CrashOptions::object_store()).await;
        let target = CrashingStorage::new(CrashOptions::object_store());
        for round in 0..6 {
            store(&engine, (0..20).map(|key| (key, Some((u64::from(round * 20 + key), 6_000))))).await;
            let cloned = clone(&engine, &target, round == 5).await.unwrap();
            let spare = data_blocks(&engine, &target).len() as u64 - cloned.blocks;
            assert_eq!(spare > 0, (1..5).contains(&round), "{round}: {spare}");
        }
        assert_eq!(look(&target, &bed).await, all(&engine).await);
    });
}

/// The one is at work when the other comes; of two that end there is one whose mark counts, or none.
#[test]
fn two_runs_at_once_leave_a_clone_that_is_whole_and_says_nothing_wrong_of_itself() {
    block_on(async {
        let deaths = (0..60).map(Some).chain([None]);
        for (calls, at_the_end) in deaths.flat_map(|calls| [(calls, false), (calls, true)]) {
            let (mut bed, engine) = Bed::new(4, BLOCK_BYTES, Suite::Aes256Gcm, CrashOptions::object_store()).await;
            store(&engine, (0..30).map(|key| (key, Some((u64::from(key), 6_000))))).await;
            let target = CrashingStorage::new(CrashOptions::object_store());
            clone(&engine, &target, true).await.unwrap();
            store(&engine, (0..6).map(|key| (key, Some((100 + u64::from(key), 6_000))))).await;
            let other = bed.open().await.unwrap();
            let mut has_come = false;
            let mut hear = |progress: CloneProgress| {
                let is_time = !at_the_end || progress.done_blocks == progress.total_blocks;
                if is_time && !std::mem::replace(&mut has_come, true) {
                    block_on(async {
                        store(&other, (4..9).map(|key| (key, Some((200 + u64::from(key), 6_000))))).await;
                        let handle = target.reopen();
                        if let Some(calls) = calls {
                            handle.cut_off_after(calls, Fault::LostReply);
                        }
                        let options = CloneOptions { prune: true, ..CloneOptions::default() };
                        let _ = other.clone_to(Arc::new(handle.another()), options).await;
                        handle.process_kill();
                        // What that run has sent is needed by no state that comes.
                        store(&other, (0..9).map(|key| (key, Some((300 + u64::from(key), 6_000))))).await;
                        other.compact(CompactOptions::default()).await.unwrap();
                    });
                }
                true
            };
            let options = CloneOptions { prune: true, progress: Some(&mut hear), ..CloneOptions::default() };
            engine.clone_to(Arc::new(target.reopen()), options).await.unwrap();
            engine.refresh().await.unwrap();
            let cloned = clone(&engine, &target, true).await.unwrap();
            assert_eq!(look(&target, &bed).await, all(&engine).await);
            assert_eq!(target.snapshot_blobs().len() as u64, cloned.blocks + 4, "{calls:?}, {at_the_end}");
        }
    });
}

#[test]
fn what_was_sent_of_a_state_that_others_give_up_is_not_read_again() {
    block_on(async {
        let (mut bed, engine) = Bed::new(5, BLOCK_BYTES, Suite::Aes256Gcm, CrashOptions::object_store()).await;
        let keys = 200_u32;
        for first in (0..keys).step_by(50) {
            store(&engine, (first..first + 50).map(|key| (key, Some((u64::from(key), 3_500))))).await;
        }
        engine.checkpoint().await.unwrap();
        bed.tuning.reader_grace_millis = 0;
        let other = bed.open().await.unwrap();
        let target = CrashingStorage::new(CrashOptions::object_store());
        let mut told = 0;
        let mut hear = |progress: CloneProgress| {
            told += 1;
            if told == 150 {
                assert!(progress.done_blocks > 100);
                // What is sent last goes, from under the state that is being sent.
                block_on(async {
                    store(&other, (150..keys).map(|key| (key, None))).await;
                    for _ in 0..3 {
                        other.compact(CompactOptions::default()).await.unwrap();
                    }
                });
            }
            true
        };
        let options = CloneOptions { progress: Some(&mut hear), ..CloneOptions::default() };
        let cloned = engine.clone_to(Arc::new(target.reopen()), options).await.unwrap();
        // The second state is told of from the beginning.
        assert!(told as u64 > cloned.blocks + 100, "{told} of {cloned:?}");
        let (put, read) = (target.calls().of(Operation::Put), target.calls().of(Operation::Get));
        assert_eq!(put, cloned.sent_blocks);
        assert!(read < 30, "{read} reads from the clone, and {put} blocks sent");
        engine.refresh().await.unwrap();
        assert_eq!(look(&target, &bed).await, all(&engine).await);
    });
}

/// A second run beside the first: it is cut short when that one makes its call of this number, and is run again before that one
/// deletes the first block.
#[derive(Debug)]
struct Second {
    engine: Engine,
    target: CrashingStorage,
    calls: AtomicU64,
    cut_short_at: u64,
    has_ended: AtomicBool,
}

impl Second {
    fn cut_short(&self) {
        block_on(async {
            store(&self.engine, (40..44).map(|key| (key, Some((u64::from(key), 6_000))))).await;
            let handle = self.target.reopen();
            handle.cut_off_after(7, Fault::LostReply);
            self.engine.clone_to(Arc::new(handle.another()), CloneOptions::default()).await.unwrap_err();
            handle.process_kill();
        });
    }

    fn end(&self) {
        block_on(clone(&self.engine, &self.target, false)).unwrap();
    }
}

#[async_trait]
impl Before for Second {
    async fn before(&self, operation: Operation, name: Option<Name>) -> strongroom_core::storage::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if call == self.cut_short_at {
            self.cut_short();
        }
        let id = name.and_then(|name| BlockId::decode(&self.engine.keys().decrypt_name(*name.as_bytes())));
        let deletes = operation == Operation::Delete && matches!(id, Some(BlockId::Data { .. }));
        if deletes && call >= self.cut_short_at && !self.has_ended.swap(true, Ordering::Relaxed) {
            self.end();
        }
        Ok(())
    }
}

#[test]
fn a_slow_run_deletes_nothing_that_a_later_state_needs() {
    block_on(async {
        let mut cases = 0;
        for cut_short_at in 0.. {
            let (mut bed, engine) = Bed::new(6, BLOCK_BYTES, Suite::Aes256Gcm, CrashOptions::object_store()).await;
            let target = CrashingStorage::new(CrashOptions::object_store());
            // Without pruning, so that the run which prunes goes by the names.
            for round in 0..2 {
                store(&engine, (0..12).map(|key| (key, Some((u64::from(round * 12 + key), 6_000))))).await;
                clone(&engine, &target, false).await.unwrap();
            }
            let (calls, has_ended) = (AtomicU64::new(0), AtomicBool::new(false));
            let second =
                Second { engine: bed.open().await.unwrap(), target: target.reopen(), calls, cut_short_at, has_ended };
            let storage = Arc::new(Between::new(target.reopen(), second));
            let options = CloneOptions { prune: true, ..CloneOptions::default() };
            let ended = engine.clone_to(storage.clone(), options).await;
            assert!(ended.is_ok(), "{cut_short_at}: {ended:?}");
            cases += u64::from(storage.hook().has_ended.load(Ordering::Relaxed));
            let there = look(&target, &bed).await;
            if storage.hook().has_ended.load(Ordering::Relaxed) {
                assert_eq!(there, all(&storage.hook().engine).await, "{cut_short_at}");
            }
            if storage.hook().calls.load(Ordering::Relaxed) <= cut_short_at {
                break;
            }
        }
        assert!(cases > 20, "{cases}");
    });
}
