//! Space comes back: compaction, leftovers of the dead, and a storage that is full.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, Fault, Loss};
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{
    ChunkNumber, CompactOptions, CompactReport, Direction, Engine, Table, Transaction, Tuning, View,
};
use strongroom_core::storage::{ErrorKind, Operation};
use strongroom_core::{Error, Result};

use super::support::{Bed, TABLE, assert_clean, get, put};

/// Rows whose value is the number of a chunk.
const CHUNKED: Table = Table(0x81);

/// The process dies, with nothing of what it did lost, and another one has the storage for itself.
async fn die(bed: &mut Bed, engine: Engine) -> Engine {
    bed.storage.crash_with(Loss::Nothing);
    drop(engine);
    bed.open().await.unwrap()
}

/// What is live: key -> seed and length of a chunk's payload.
type Live = BTreeMap<u32, (u64, usize)>;

fn payload(seed: u64, length: usize) -> Bytes {
    strongroom_conformance::storage::sample_bytes(seed, length)
}

/// One block at a time is under way, so that what is written is there.
fn eager() -> Tuning {
    Tuning { in_flight_bytes_max: 0, ..Tuning::default() }
}

async fn set(transaction: &mut Transaction, key: u32, value: Option<(u64, usize)>) -> Result<()> {
    let key = key.to_be_bytes();
    if let Some(row) = transaction.get(CHUNKED, &key).await? {
        transaction.release_chunk(ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap())))?;
    }
    match value {
        Some((seed, length)) => {
            let number = transaction.put_chunk(None, payload(seed, length)).await?;
            transaction.put(CHUNKED, &key, &number.0.to_le_bytes())
        }
        None => transaction.delete(CHUNKED, &key),
    }
}

async fn assert_holds(engine: &Engine, live: &Live) {
    let view = engine.snapshot();
    let mut scan = view.scan(CHUNKED, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
    let mut seen = 0;
    while let Some((key, row)) = scan.next().await.unwrap() {
        let (seed, length) = live[&u32::from_be_bytes(key.as_ref().try_into().unwrap())];
        let number = ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap()));
        assert_eq!(view.chunk(number).await.unwrap(), payload(seed, length));
        seen += 1;
    }
    assert_eq!(seen, live.len());
}

/// A repository that holds these and has never held anything else.
async fn fresh_blobs(block_bytes: u32, live: &Live) -> usize {
    let (mut bed, engine) = Bed::new(99, block_bytes, Suite::Aes256Gcm, CrashOptions::default()).await;
    bed.tuning = Tuning::default();
    let engine = die(&mut bed, engine).await;
    put(&engine, b"a", b"1").await.unwrap();
    let rows: Vec<_> = live.iter().collect();
    for part in rows.chunks(200) {
        let mut transaction = engine.begin();
        for (key, value) in part {
            set(&mut transaction, **key, Some(**value)).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
    engine.close().await.unwrap();
    bed.storage.snapshot_blobs().len()
}

async fn compact(engine: &Engine) -> CompactReport {
    engine.compact(CompactOptions::default()).await.unwrap()
}

/// Stores, overwrites, deletes, gives up, and dies in the middle; answers what is live.
async fn churn(bed: &mut Bed, mut engine: Engine, dice: &mut Dice, rounds: u32, length: u64) -> (Engine, Live) {
    let mut live = Live::new();
    engine = die(bed, engine).await;
    for round in 0..rounds {
        let mut transaction = engine.begin();
        let mut next = live.clone();
        for _ in 0..1 + dice.below(30) {
            let key = dice.below(200) as u32;
            let value = (dice.below(4) > 0).then(|| (dice.roll(), 1 + dice.below(length) as usize));
            set(&mut transaction, key, value).await.unwrap();
            match value {
                Some(value) => next.insert(key, value),
                None => next.remove(&key),
            };
        }
        match dice.below(8) {
            0 => drop(transaction),
            1 => {
                // With its blocks in storage, and no commit.
                engine = die(bed, engine).await;
            }
            _ => {
                transaction.commit().await.unwrap();
                live = next;
            }
        }
        if round % 16 == 15 {
            engine.close().await.unwrap();
            drop(engine);
            engine = bed.open().await.unwrap();
        }
    }
    (engine, live)
}

#[test]
fn compaction_leaves_what_a_fresh_repository_of_the_same_data_has() {
    block_on(async {
        for (seed, block_bytes, length) in
            [(1, 4096, 12_000), (2, 16 << 10, 40_000), (3, 128 << 10, 200_000), (4, 64 << 10, 900)]
        {
            let options = CrashOptions { page_names: 1000, yields: false, ..CrashOptions::default() };
            let (mut bed, engine) = Bed::new(seed, block_bytes, Suite::Aes256Gcm, options).await;
            bed.tuning = Tuning::default();
            let mut dice = Dice::new(seed);
            let (engine, live) = churn(&mut bed, engine, &mut dice, 60, length).await;
            let report = compact(&engine).await;
            assert_eq!((report.waiting, report.other_writers), (0, 0));
            assert_holds(&engine, &live).await;
            engine.close().await.unwrap();
            let (after, fresh) = (bed.storage.snapshot_blobs().len(), fresh_blobs(block_bytes, &live).await);
            assert!(
                after <= fresh + (fresh / 50).max(8),
                "{block_bytes}: {fresh} blocks would do, {after} are there; {report:?}"
            );
            drop(engine);
            let engine = bed.open().await.unwrap();
            assert_clean(&engine).await;
            assert_holds(&engine, &live).await;
            // Done again it finds nothing to do.
            let again = compact(&engine).await;
            assert_eq!(again.moved_bytes, 0, "{again:?}");
            engine.close().await.unwrap();
            assert!(bed.storage.snapshot_blobs().len() <= after + 2, "{again:?}");
        }
    });
}

#[test]
fn what_is_deleted_leaves_nothing_but_the_frame() {
    block_on(async {
        let (mut bed, engine) = Bed::new(5, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        let empty = fresh_blobs(4096, &Live::new()).await;
        let (engine, live) = churn(&mut bed, engine, &mut Dice::new(5), 40, 9_000).await;
        let mut transaction = engine.begin();
        for key in live.keys() {
            set(&mut transaction, *key, None).await.unwrap();
        }
        transaction.commit().await.unwrap();
        compact(&engine).await;
        engine.close().await.unwrap();
        let after = bed.storage.snapshot_blobs().len();
        assert!(after <= empty + 8, "{empty} blobs became {after}");
    });
}

#[test]
fn a_compaction_that_is_cut_off_anywhere_loses_nothing_and_can_be_done_again() {
    block_on(async {
        let mut calls = 0;
        loop {
            let options = CrashOptions { yields: false, ..CrashOptions::default() };
            let (mut bed, engine) = Bed::new(6, 4096, Suite::Aes256Gcm, options).await;
            bed.tuning = Tuning::default();
            let (engine, live) = churn(&mut bed, engine, &mut Dice::new(6), 12, 9_000).await;
            bed.storage.cut_off_all_after(calls, if calls % 2 == 0 { Fault::LostReply } else { Fault::LostRequest });
            let done = engine.compact(CompactOptions::default()).await.is_ok();
            bed.storage.crash(calls);
            let engine = bed.open().await.unwrap();
            assert_holds(&engine, &live).await;
            assert_clean(&engine).await;
            compact(&engine).await;
            assert_holds(&engine, &live).await;
            engine.close().await.unwrap();
            let (after, fresh) = (bed.storage.snapshot_blobs().len(), fresh_blobs(4096, &live).await);
            assert!(after <= fresh + (fresh / 50).max(8), "cut off after {calls}: {fresh} would do, {after} are there");
            if done {
                assert!(calls > 40, "{calls}");
                break;
            }
            calls += 7;
        }
    });
}

#[test]
fn transactions_that_are_open_during_a_compaction_commit_after_it() {
    block_on(async {
        let (mut bed, engine) = Bed::new(7, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        let (engine, mut live) = churn(&mut bed, engine, &mut Dice::new(7), 15, 9_000).await;
        let mut open = engine.begin();
        for key in 1000..1030 {
            set(&mut open, key, Some((u64::from(key), 5_000))).await.unwrap();
            live.insert(key, (u64::from(key), 5_000));
        }
        // Another one shares its blocks, and is gone before the compaction.
        let mut given_up = engine.begin();
        set(&mut given_up, 2000, Some((1, 7_000))).await.unwrap();
        drop(given_up);
        compact(&engine).await;
        open.commit().await.unwrap();
        assert_holds(&engine, &live).await;
        compact(&engine).await;
        assert_holds(&engine, &live).await;
        assert_clean(&engine).await;
    });
}

#[test]
fn a_reader_elsewhere_keeps_its_state_until_its_time_is_over() {
    block_on(async {
        for grace in [u64::MAX / 2, 0] {
            let (mut bed, engine) = Bed::new(8, 4096, Suite::Aes256Gcm, CrashOptions::object_store()).await;
            bed.tuning = Tuning { reader_grace_millis: grace, ..bed.tuning };
            drop(engine);
            let engine = bed.open().await.unwrap();
            let (engine, live) = churn(&mut bed, engine, &mut Dice::new(8), 15, 9_000).await;
            let reader = bed.open_with(|options| options.read_only = true).await.unwrap();
            let view = reader.snapshot();
            let mut transaction = engine.begin();
            for key in live.keys() {
                set(&mut transaction, *key, None).await.unwrap();
            }
            transaction.commit().await.unwrap();
            let report =
                engine.compact(CompactOptions { end_other_writers: true, ..CompactOptions::default() }).await.unwrap();
            // The state before the newest expires when the one after it is old enough.
            put(&engine, b"a", b"1").await.unwrap();
            let report = if grace == 0 { compact(&engine).await } else { report };
            let mut expired = 0;
            for (key, (seed, length)) in &live {
                let row = match view.get(CHUNKED, &key.to_be_bytes()).await {
                    Err(Error::Expired) => {
                        expired += 1;
                        continue;
                    }
                    row => row.unwrap().unwrap(),
                };
                match view.chunk(ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap()))).await {
                    Err(Error::Expired) => expired += 1,
                    bytes => assert_eq!(bytes.unwrap(), payload(*seed, *length)),
                }
            }
            assert_eq!(expired > 0, grace == 0, "{expired} of {} expired; {report:?}", live.len());
            assert_eq!(report.waiting > 20, grace > 0, "{report:?}");
        }
    });
}

#[test]
fn a_full_storage_fails_the_commit_and_the_same_process_goes_on_after_a_deletion() {
    block_on(async {
        let (mut bed, engine) = Bed::new(9, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        bed.tuning = Tuning::default();
        let engine = die(&mut bed, engine).await;
        let mut live = Live::new();
        for key in 0..10 {
            let mut transaction = engine.begin();
            set(&mut transaction, key, Some((u64::from(key), 12_000))).await.unwrap();
            transaction.commit().await.unwrap();
            live.insert(key, (u64::from(key), 12_000));
        }
        // The next writer finds the ballast that this one leaves.
        engine.close().await.unwrap();
        drop(engine);
        let engine = bed.open().await.unwrap();
        put(&engine, b"a", b"1").await.unwrap();
        bed.storage.set_capacity(Some(4096 * bed.storage.snapshot_blobs().len() as u64));
        for key in 100..105 {
            let mut transaction = engine.begin();
            let written = async {
                set(&mut transaction, key, Some((1, 12_000))).await?;
                transaction.commit().await
            };
            assert_eq!(written.await.unwrap_err().storage_kind(), Some(ErrorKind::Full));
            assert_eq!(put(&engine, b"b", b"1").await.unwrap_err().storage_kind(), Some(ErrorKind::Full));
        }
        assert_holds(&engine, &live).await;
        let mut transaction = engine.begin();
        for key in 0..3 {
            set(&mut transaction, key, None).await.unwrap();
            live.remove(&key);
        }
        transaction.commit().await.unwrap();
        let mut transaction = engine.begin();
        set(&mut transaction, 50, Some((50, 12_000))).await.unwrap();
        transaction.commit().await.unwrap();
        live.insert(50, (50, 12_000));
        assert_holds(&engine, &live).await;
        engine.close().await.unwrap();
        let engine = bed.open().await.unwrap();
        assert_clean(&engine).await;
        assert_holds(&engine, &live).await;
        assert_eq!(get(&engine, b"a").await.unwrap().unwrap(), "1");
    });
}

#[test]
fn a_process_that_comes_to_a_full_storage_can_delete() {
    block_on(async {
        let (mut bed, engine) = Bed::new(10, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        bed.tuning = Tuning::default();
        let engine = die(&mut bed, engine).await;
        let mut transaction = engine.begin();
        for key in 0..10 {
            set(&mut transaction, key, Some((u64::from(key), 12_000))).await.unwrap();
        }
        transaction.commit().await.unwrap();
        engine.close().await.unwrap();
        drop(engine);
        for round in 0..5 {
            // Full to the last byte, each time.
            bed.storage.set_capacity(Some(4096 * bed.storage.snapshot_blobs().len() as u64));
            let engine = bed.open().await.unwrap();
            assert_eq!(put(&engine, b"b", b"1").await.unwrap_err().storage_kind(), Some(ErrorKind::Full));
            let mut transaction = engine.begin();
            set(&mut transaction, round, None).await.unwrap();
            transaction.commit().await.unwrap();
            engine.close().await.unwrap();
            drop(engine);
        }
        let engine = bed.open().await.unwrap();
        assert_clean(&engine).await;
        let live: Live = (5..10).map(|key| (key, (u64::from(key), 12_000))).collect();
        assert_holds(&engine, &live).await;
    });
}

#[test]
fn a_writer_that_comes_after_one_that_died_sweeps_before_it_writes() {
    block_on(async {
        let (mut bed, engine) = Bed::new(11, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        bed.tuning = eager();
        let engine = die(&mut bed, engine).await;
        put(&engine, b"a", b"1").await.unwrap();
        let before = bed.storage.snapshot_blobs().len();
        let mut transaction = engine.begin();
        for byte in 0..40 {
            transaction.put_chunk(None, payload(byte, 12_000)).await.unwrap();
        }
        bed.storage.crash_with(Loss::Nothing);
        assert!(bed.storage.snapshot_blobs().len() > before + 50);
        drop((transaction, engine));
        let engine = bed.open().await.unwrap();
        assert!(bed.storage.snapshot_blobs().len() <= before + 4);
        assert_clean(&engine).await;
    });
}

#[test]
fn where_no_lock_tells_a_writer_is_dead_after_a_long_silence_or_when_someone_says_so() {
    block_on(async {
        for by_silence in [true, false] {
            let (mut bed, engine) = Bed::new(12, 4096, Suite::Aes256Gcm, CrashOptions::object_store()).await;
            bed.tuning = eager();
            let engine = die(&mut bed, engine).await;
            let mut asleep = engine.begin();
            for byte in 0..40 {
                asleep.put_chunk(None, payload(byte, 12_000)).await.unwrap();
            }
            engine.flush().await.unwrap();
            let full = bed.storage.snapshot_blobs().len();
            if by_silence {
                bed.tuning = Tuning { epoch_silence_millis: 0, ..bed.tuning };
            }
            let other = bed.open().await.unwrap();
            // The clocks of processes have nothing to do with each other here: this one is ahead from now on.
            for _ in 0..100_000 {
                let _ = other.env().now();
            }
            put(&other, b"b", b"1").await.unwrap();
            if !by_silence {
                assert_eq!(compact(&other).await.other_writers, 1);
                assert!(bed.storage.snapshot_blobs().len() + 10 > full);
                let options = CompactOptions { end_other_writers: true, ..CompactOptions::default() };
                assert_eq!(other.compact(options).await.unwrap().other_writers, 0);
            }
            let swept = bed.storage.snapshot_blobs().len();
            assert!(swept + 50 < full, "{full} blobs became {swept}");
            // It wakes up: what it had not committed is void, and nothing else.
            asleep.put(TABLE, b"c", b"1").unwrap();
            assert!(matches!(asleep.commit().await, Err(Error::Conflict)));
            put(&engine, b"d", b"1").await.unwrap();
            engine.checkpoint().await.unwrap();
            assert_clean(&engine).await;
        }
    });
}

/// Its nodes would be swept with the epoch that they were written under.
#[test]
fn no_checkpoint_is_made_under_an_epoch_that_others_have_ended() {
    block_on(async {
        let (mut bed, engine) = Bed::new(13, 4096, Suite::Aes256Gcm, CrashOptions::object_store()).await;
        put(&engine, b"a", b"1").await.unwrap();
        bed.tuning = Tuning { epoch_silence_millis: 0, ..bed.tuning };
        let other = bed.open().await.unwrap();
        for _ in 0..100_000 {
            let _ = other.env().now();
        }
        put(&other, b"b", b"1").await.unwrap();
        assert_eq!(other.info().await.unwrap().open_epochs, 1);
        engine.refresh().await.unwrap();
        engine.checkpoint().await.unwrap();
        other.refresh().await.unwrap();
        other.close().await.unwrap();
        let third = bed.open().await.unwrap();
        put(&third, b"c", b"1").await.unwrap();
        for engine in [engine, third] {
            engine.refresh().await.unwrap();
            assert_eq!(get(&engine, b"a").await.unwrap().unwrap(), "1");
            assert_clean(&engine).await;
        }
    });
}

#[test]
fn two_compact_at_once_and_a_third_writes() {
    block_on(async {
        let options = CrashOptions { yields: true, ..CrashOptions::object_store() };
        let (mut bed, engine) = Bed::new(14, 4096, Suite::Aes256Gcm, options).await;
        bed.tuning = Tuning { reader_grace_millis: 0, ..bed.tuning };
        let (engine, mut live) = churn(&mut bed, engine, &mut Dice::new(14), 20, 9_000).await;
        let (first, second) = (bed.open().await.unwrap(), bed.open().await.unwrap());
        let writes = async {
            for key in 500..530 {
                engine
                    .transact(async |transaction| -> Result<()> {
                        set(transaction, key, Some((u64::from(key), 3_000))).await
                    })
                    .await
                    .unwrap();
            }
        };
        let twice = async |engine: &Engine| {
            for _ in 0..3 {
                match engine.compact(CompactOptions::default()).await {
                    Ok(_) | Err(Error::Conflict | Error::Expired) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        futures_util::future::join3(writes, twice(&first), twice(&second)).await;
        live.extend((500..530).map(|key| (key, (u64::from(key), 3_000))));
        for engine in [&engine, &first, &second] {
            engine.refresh().await.unwrap();
            assert_holds(engine, &live).await;
        }
        assert_clean(&first).await;
    });
}

#[test]
fn a_compaction_of_a_full_storage_does_what_there_is_room_for() {
    block_on(async {
        for room in [0, 2, 8] {
            let (mut bed, engine) = Bed::new(15, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
            bed.tuning = Tuning::default();
            let (engine, live) = churn(&mut bed, engine, &mut Dice::new(15), 40, 9_000).await;
            let before = bed.storage.snapshot_blobs().len();
            bed.storage.set_capacity(Some(4096 * (before as u64 + room)));
            let done = engine.compact(CompactOptions::default()).await;
            if let Err(error) = &done {
                assert_eq!(error.storage_kind(), Some(ErrorKind::Full));
            }
            assert_holds(&engine, &live).await;
            let _ = engine.close().await;
            assert!(bed.storage.snapshot_blobs().len() <= before, "room for {room}: {done:?}");
            bed.storage.set_capacity(None);
            drop(engine);
            let engine = bed.open().await.unwrap();
            compact(&engine).await;
            assert_holds(&engine, &live).await;
            assert_clean(&engine).await;
            engine.close().await.unwrap();
            let (after, fresh) = (bed.storage.snapshot_blobs().len(), fresh_blobs(4096, &live).await);
            assert!(after <= fresh + (fresh / 50).max(8), "room for {room}: {fresh} would do, {after} are there");
        }
    });
}

#[test]
fn an_epoch_that_is_kept_outlives_a_failed_barrier_and_ends_when_its_engine_is_closed() {
    block_on(async {
        for is_kept in [false, true] {
            let (mut bed, engine) = Bed::new(14, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
            let epoch = |number: u64| u32::try_from(number >> 32).unwrap();
            let first = epoch(engine.begin().number().await.unwrap());
            if is_kept {
                engine.keep_epoch(first);
            }
            let mut lost = engine.begin();
            lost.put_chunk(None, payload(1, 12_000)).await.unwrap();
            bed.storage.fail_operation(Operation::Sync, 1, Fault::Refused(ErrorKind::Unavailable));
            assert!(lost.commit().await.is_err());
            let second = epoch(engine.begin().number().await.unwrap());
            assert_ne!(first, second);
            let expected = if is_kept { BTreeSet::from([first, second]) } else { BTreeSet::from([second]) };
            assert_eq!(
                (engine.open_epochs().await.unwrap(), engine.own_epochs()),
                (expected.clone(), expected.clone())
            );
            assert_eq!(engine.begin().open_epochs().await.unwrap(), expected);
            // What was put for nothing goes, and its engine is heard of for both.
            engine.checkpoint().await.unwrap();
            assert_eq!(engine.compact(CompactOptions::default()).await.unwrap().other_writers, 0);
            let options = CompactOptions { end_other_writers: true, ..CompactOptions::default() };
            engine.compact(options).await.unwrap();
            assert_eq!(engine.open_epochs().await.unwrap(), expected);
            put(&engine, b"a", b"1").await.unwrap();
            // One that it does not hold any more is not to be kept.
            engine.keep_epoch(77);
            assert_eq!(engine.own_epochs(), expected);
            engine.close().await.unwrap();
            let other = bed.open().await.unwrap();
            assert_eq!(other.open_epochs().await.unwrap(), BTreeSet::new());
            assert_clean(&other).await;
        }
    });
}
