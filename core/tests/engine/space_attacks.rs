//! Attempts to lose somebody's data, or somebody's space, by way of giving space back.

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::crash::{CrashOptions, Fault, Loss};
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{ChunkNumber, CompactOptions, Engine, Table, Transaction, Tuning, View};
use strongroom_core::storage::{ErrorKind, Operation};
use strongroom_core::{Error, Result};

use crate::support::{Bed, TABLE, assert_clean, get, put};

/// Rows whose value is the number of a chunk.
const CHUNKED: Table = Table(0x81);

fn payload(seed: u64, length: usize) -> Bytes {
    strongroom_conformance::storage::sample_bytes(seed, length)
}

/// One block at a time is under way, so that what is written is there.
fn eager() -> Tuning {
    Tuning { in_flight_bytes_max: 0, ..Tuning::default() }
}

async fn set(transaction: &mut Transaction, key: u32, length: usize) -> Result<()> {
    let number = transaction.put_chunk(None, payload(key.into(), length)).await?;
    transaction.put(CHUNKED, &key.to_be_bytes(), &number.0.to_le_bytes())
}

async fn unset(transaction: &mut Transaction, key: u32) -> Result<()> {
    let row = transaction.get(CHUNKED, &key.to_be_bytes()).await?.unwrap();
    transaction.release_chunk(ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap())))?;
    transaction.delete(CHUNKED, &key.to_be_bytes())
}

async fn assert_there(engine: &Engine, key: u32, length: usize) {
    let view = engine.snapshot();
    let row = view.get(CHUNKED, &key.to_be_bytes()).await.unwrap().unwrap();
    let number = ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap()));
    assert_eq!(view.chunk(number).await.unwrap(), payload(key.into(), length));
}

/// Lets time pass for one process.
fn pass(engine: &Engine, millis: u64) {
    for _ in 0..millis {
        let _ = engine.env().now();
    }
}

/// Its blocks are nobody's for one who closes, and closing failed: then they must not become somebody's.
#[test]
fn a_commit_that_waits_while_closing_fails_names_nothing_that_closing_deleted() {
    block_on(async {
        for nth in 1..4 {
            let options = CrashOptions { yields: true, ..CrashOptions::object_store() };
            let (mut bed, engine) = Bed::new(nth, 4096, Suite::Aes256Gcm, options).await;
            put(&engine, b"a", b"1").await.unwrap();
            let mut transaction = engine.begin();
            set(&mut transaction, 7, 10_000).await.unwrap();
            bed.storage.fail_operation(Operation::PutDurable, nth, Fault::Refused(ErrorKind::Unavailable));
            // The commit waits in the queue, and closing comes first.
            let is_free = std::cell::Cell::new(false);
            let refreshed = async {
                engine.refresh().await.unwrap();
                is_free.set(true);
            };
            let closed = async {
                while !is_free.get() {
                    futures_lite::future::yield_now().await;
                }
                engine.close().await
            };
            let ((), closed, committed) = futures_util::future::join3(refreshed, closed, transaction.commit()).await;
            assert!(closed.is_err() || nth > 1);
            assert!(!matches!(committed, Err(Error::Closed)));
            bed.storage.clear_faults();
            drop(engine);
            let engine = bed.open().await.unwrap();
            if committed.is_ok() {
                assert_there(&engine, 7, 10_000).await;
            }
            assert_clean(&engine).await;
        }
    });
}

#[test]
fn what_a_younger_writer_left_is_swept_by_an_older_one() {
    block_on(async {
        let (mut bed, first) = Bed::new(20, 4096, Suite::Aes256Gcm, CrashOptions::object_store()).await;
        bed.tuning = eager();
        put(&first, b"a", b"1").await.unwrap();
        let second = bed.open().await.unwrap();
        let before = bed.storage.snapshot_blobs().len();
        let mut transaction = second.begin();
        for key in 0..20 {
            set(&mut transaction, key, 12_000).await.unwrap();
        }
        assert!(bed.storage.snapshot_blobs().len() > before + 40);
        std::mem::forget((transaction, second)); // it hangs
        let options = CompactOptions { end_other_writers: true, ..CompactOptions::default() };
        first.refresh().await.unwrap();
        first.compact(options).await.unwrap();
        let after = bed.storage.snapshot_blobs().len();
        assert!(after < before + 12, "{before} blobs became {after}");
        assert_clean(&first).await;
    });
}

/// It hung, and was taken for dead; what it wrote is swept. That is no damage.
#[test]
fn a_writer_that_others_ended_is_told_to_run_its_transaction_again() {
    block_on(async {
        let (mut bed, first) = Bed::new(23, 4096, Suite::Aes256Gcm, CrashOptions::object_store()).await;
        bed.tuning = eager();
        put(&first, b"a", b"1").await.unwrap();
        let second = bed.open().await.unwrap();
        let mut transaction = second.begin();
        let mut chunks = Vec::new();
        for seed in 0..20 {
            chunks.push(transaction.put_chunk(None, payload(seed, 12_000)).await.unwrap());
        }
        let options = CompactOptions { end_other_writers: true, ..CompactOptions::default() };
        first.refresh().await.unwrap();
        first.compact(options).await.unwrap();
        let mut swept = 0;
        for (seed, chunk) in (0..).zip(chunks) {
            match transaction.chunk(chunk).await {
                Ok(read) => assert_eq!(read, payload(seed, 12_000)),
                Err(Error::Conflict) => swept += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(swept > 0);
        transaction.put(TABLE, b"b", b"2").unwrap();
        assert!(matches!(transaction.commit().await, Err(Error::Conflict)));
        put(&second, b"b", b"2").await.unwrap();
        assert_clean(&first).await;
    });
}

/// What this one is about to move, another has moved and deleted.
#[test]
fn a_compaction_goes_on_where_another_was_faster() {
    block_on(async {
        let options = CrashOptions { page_names: 2000, yields: false, ..CrashOptions::object_store() };
        let (mut bed, first) = Bed::new(21, 4096, Suite::Aes256Gcm, options).await;
        drop(first);
        bed.tuning = Tuning { reader_grace_millis: 0, ..Tuning::default() };
        let first = bed.open().await.unwrap();
        for part in 0..5_u32 {
            let mut transaction = first.begin();
            for key in 0..600 {
                set(&mut transaction, part * 1000 + key, 1_700).await.unwrap();
            }
            transaction.commit().await.unwrap();
        }
        for part in 0..5_u32 {
            let mut transaction = first.begin();
            for key in (0..600).filter(|key| key % 2 == 1) {
                unset(&mut transaction, part * 1000 + key).await.unwrap();
            }
            transaction.commit().await.unwrap();
        }
        let second = bed.open().await.unwrap();
        let mut batches = 0;
        let mut progress = |_| {
            batches += 1;
            if batches == 1 {
                block_on(async {
                    let options = CompactOptions { end_other_writers: true, ..CompactOptions::default() };
                    second.compact(options).await.unwrap();
                    put(&second, b"b", b"1").await.unwrap();
                    second.compact(CompactOptions::default()).await.unwrap();
                });
            }
            true
        };
        let options = CompactOptions { progress: Some(&mut progress), ..CompactOptions::default() };
        first.compact(options).await.unwrap();
        assert!(batches > 1, "{batches}");
        for part in 0..5_u32 {
            for key in (0..600).step_by(50) {
                assert_there(&first, part * 1000 + key, 1_700).await;
            }
        }
        assert_clean(&first).await;
    });
}

/// The ballast that a deletion spent is whole again before anything else fills the storage.
#[test]
fn a_process_deletes_from_a_full_storage_as_often_as_it_fills_up() {
    block_on(async {
        let (mut bed, engine) = Bed::new(22, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        bed.storage.crash_with(Loss::Nothing);
        drop(engine);
        let engine = bed.open().await.unwrap();
        engine.close().await.unwrap();
        drop(engine);
        bed.tuning = Tuning { checkpoint_commits: 1000, close_commits: 1000, ..Tuning::default() };
        let engine = bed.open().await.unwrap();
        put(&engine, b"a", b"1").await.unwrap();
        engine.checkpoint().await.unwrap();
        bed.storage.set_capacity(Some(4096 * (bed.storage.snapshot_blobs().len() as u64 + 60)));
        let mut next = 0_u32;
        let mut kept = Vec::new();
        for round in 0..6 {
            let error = loop {
                let mut transaction = engine.begin();
                let length = if next.is_multiple_of(3) { 9_000 } else { 100 };
                let written = async {
                    set(&mut transaction, next, length).await?;
                    transaction.commit().await
                };
                match written.await {
                    Ok(_) => kept.push((next, length)),
                    Err(error) if length == 100 => break error,
                    Err(error) => assert_eq!(error.storage_kind(), Some(ErrorKind::Full), "{error}"),
                }
                next += 1;
            };
            assert_eq!(error.storage_kind(), Some(ErrorKind::Full), "{error}");
            let mut transaction = engine.begin();
            for (key, _) in kept.drain(..kept.len() * 2 / 3) {
                unset(&mut transaction, key).await.unwrap();
            }
            transaction.commit().await.unwrap_or_else(|error| panic!("round {round}: {error}"));
            let _ = engine.checkpoint().await;
            for (key, length) in &kept {
                assert_there(&engine, *key, *length).await;
            }
        }
        engine.close().await.unwrap();
        drop(engine);
        let engine = bed.open().await.unwrap();
        assert_clean(&engine).await;
        assert_eq!(get(&engine, b"a").await.unwrap().unwrap(), "1");
    });
}

/// Closing on a storage that is almost full must not fill it with ballast that no commit comes to name.
#[test]
fn however_little_room_a_closing_writer_has_the_next_one_can_delete() {
    block_on(async {
        for room in 0..16_u64 {
            let (mut bed, engine) = Bed::new(23, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
            bed.storage.crash_with(Loss::Nothing);
            drop(engine);
            let engine = bed.open().await.unwrap();
            let mut transaction = engine.begin();
            set(&mut transaction, 1, 12_000).await.unwrap();
            transaction.commit().await.unwrap();
            engine.close().await.unwrap();
            drop(engine);
            let engine = bed.open().await.unwrap();
            put(&engine, b"a", b"1").await.unwrap();
            put(&engine, b"b", b"1").await.unwrap();
            bed.storage.set_capacity(Some(4096 * (bed.storage.snapshot_blobs().len() as u64 + room)));
            while put(&engine, b"c", b"1").await.is_ok() {}
            let mut transaction = engine.begin();
            transaction.delete(TABLE, b"a").unwrap();
            transaction.commit().await.unwrap();
            let _ = engine.close().await;
            drop(engine);
            let engine = bed.open().await.unwrap();
            let mut transaction = engine.begin();
            unset(&mut transaction, 1).await.unwrap();
            transaction.commit().await.unwrap_or_else(|error| panic!("room {room}: {error}"));
            assert_clean(&engine).await;
        }
    });
}

/// Power fails at any moment of a deletion on a full storage, which has spent its ballast by then.
#[test]
fn whoever_comes_after_a_writer_that_died_on_a_full_storage_can_delete() {
    block_on(async {
        for calls in 0..24 {
            let options = CrashOptions { yields: false, ..CrashOptions::default() };
            let (mut bed, engine) = Bed::new(24, 4096, Suite::Aes256Gcm, options).await;
            bed.storage.crash_with(Loss::Nothing);
            drop(engine);
            let engine = bed.open().await.unwrap();
            let mut transaction = engine.begin();
            set(&mut transaction, 1, 12_000).await.unwrap();
            transaction.commit().await.unwrap();
            engine.close().await.unwrap();
            drop(engine);
            bed.tuning = eager();
            let engine = bed.open().await.unwrap();
            put(&engine, b"a", b"1").await.unwrap();
            bed.storage.set_capacity(Some(4096 * (bed.storage.snapshot_blobs().len() as u64 + 8)));
            let mut transaction = engine.begin();
            for key in 10..14 {
                let _ = set(&mut transaction, key, 12_000).await;
            }
            bed.storage.cut_off_after(calls, Fault::LostReply);
            let mut deletion = engine.begin();
            deletion.delete(TABLE, b"a").unwrap();
            let _ = deletion.commit().await;
            // It goes on, and fills what the ballast was.
            for key in 20..24 {
                let _ = set(&mut transaction, key, 12_000).await;
            }
            bed.storage.crash_with(Loss::Nothing);
            drop((transaction, engine));
            let engine = bed.open().await.unwrap();
            let mut transaction = engine.begin();
            unset(&mut transaction, 1).await.unwrap();
            transaction.commit().await.unwrap_or_else(|error| panic!("cut off after {calls}: {error}"));
            assert_clean(&engine).await;
        }
    });
}

/// Each command is a process of its own there, and none lives as long as readers have their time.
#[test]
fn processes_that_live_shortly_give_space_back_where_no_lock_tells() {
    block_on(async {
        let (mut bed, engine) = Bed::new(25, 4096, Suite::Aes256Gcm, CrashOptions::object_store()).await;
        let grace = bed.tuning.reader_grace_millis;
        let empty = bed.storage.snapshot_blobs().len();
        let mut transaction = engine.begin();
        for key in 0..20 {
            set(&mut transaction, key, 12_000).await.unwrap();
        }
        transaction.commit().await.unwrap();
        engine.close().await.unwrap();
        let engine = bed.open().await.unwrap();
        let mut transaction = engine.begin();
        for key in 0..20 {
            unset(&mut transaction, key).await.unwrap();
        }
        transaction.commit().await.unwrap();
        engine.close().await.unwrap();
        for hour in 1..3 {
            let full = bed.storage.snapshot_blobs().len();
            let engine = bed.open().await.unwrap();
            pass(&engine, hour * 2 * grace);
            engine.compact(CompactOptions::default()).await.unwrap();
            engine.close().await.unwrap();
            let after = bed.storage.snapshot_blobs().len();
            assert!(hour > 1 || full > 60);
            assert!(after < empty + 24, "{full} blobs became {after}");
        }
    });
}
