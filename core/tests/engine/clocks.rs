//! Clocks that are days apart: nobody's committed data is lost, a reader is told that its state expired, a writer that
//! what it had not committed is void.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{
    ChunkNumber, CompactOptions, ConflictTest, Engine, OpenOptions, Table, Transaction, Tuning, Unlock, View,
};
use strongroom_core::env::{Env, ManualClock};
use strongroom_core::{Error, Result};

use crate::support::{Bed, assert_clean};

const CHUNKED: Table = Table(0x81);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
/// When the right clock starts, so that another can be behind it.
const TODAY: Duration = Duration::from_secs(100 * 24 * 60 * 60);

fn payload(seed: u64, length: usize) -> Bytes {
    strongroom_conformance::storage::sample_bytes(seed, length)
}

async fn open(bed: &Bed, seed: u64, time: Duration, read_only: bool) -> (Engine, Arc<ManualClock>) {
    let (env, clock) = Env::manual(seed);
    clock.advance(time);
    let mut options = OpenOptions::new(Unlock::Root(&bed.root));
    options.tuning = Tuning { checkpoint_commits: 4, close_commits: 2, in_flight_bytes_max: 0, ..Tuning::default() };
    options.read_only = read_only;
    (Engine::open(Arc::new(bed.storage.reopen()), env, options).await.unwrap(), clock)
}

async fn bed(seed: u64) -> Bed {
    let options = CrashOptions { yields: false, ..CrashOptions::object_store() };
    let (bed, engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, options).await;
    engine.close().await.unwrap();
    bed
}

async fn set(engine: &Engine, key: u32) -> Result<()> {
    engine
        .transact(async |transaction: &mut Transaction| -> Result<()> {
            let row = transaction.get(CHUNKED, &key.to_be_bytes()).await?;
            if let Some(row) = row {
                transaction.release_chunk(ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap())))?;
            }
            let number = transaction.put_chunk(None, payload(key.into(), 9_000)).await?;
            transaction.put(CHUNKED, &key.to_be_bytes(), &number.0.to_le_bytes())
        })
        .await
}

async fn read(view: &impl View, key: u32) -> Result<()> {
    let row = view.get(CHUNKED, &key.to_be_bytes()).await?.expect("a committed row");
    let number = ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap()));
    assert_eq!(view.chunk(number).await?, payload(key.into(), 9_000));
    Ok(())
}

/// A reader is served or told that its time is over, whoever is right.
#[test]
fn a_reader_is_served_or_told_so_however_far_the_clocks_of_writers_are_off() {
    block_on(async {
        for (seed, off) in [(1, TODAY + 5 * DAY), (2, TODAY - 5 * DAY), (3, TODAY + 400 * DAY), (4, Duration::ZERO)] {
            let bed = bed(seed).await;
            let (right, _) = open(&bed, seed, TODAY, false).await;
            for key in 0..8 {
                set(&right, key).await.unwrap();
            }
            let (reader, _) = open(&bed, 10 + seed, TODAY, true).await;
            let view = reader.snapshot();
            let (wrong, wrong_clock) = open(&bed, 20 + seed, off, false).await;
            for round in 0..12 {
                set(&wrong, round % 8).await.unwrap();
                set(&right, (round + 3) % 8).await.unwrap();
                wrong_clock.advance(MINUTE);
                for engine in [&wrong, &right] {
                    engine.compact(CompactOptions::default()).await.unwrap();
                }
                for key in 0..8 {
                    match read(&view, key).await {
                        Ok(()) | Err(Error::Expired) => {}
                        Err(error) => panic!("off by {off:?}: {error}"),
                    }
                }
            }
            wrong.close().await.unwrap();
            right.close().await.unwrap();
            reader.refresh().await.unwrap();
            for key in 0..8 {
                read(&reader.snapshot(), key).await.unwrap();
            }
            let (last, _) = open(&bed, 30 + seed, TODAY, false).await;
            for key in 0..8 {
                read(&last.snapshot(), key).await.unwrap();
            }
            assert_clean(&last).await;
        }
    });
}

/// To one whose clock is days ahead every other writer has been silent for long.
#[test]
fn a_writer_that_is_taken_for_dead_by_a_clock_ahead_loses_what_it_had_not_committed_alone() {
    block_on(async {
        for (seed, off) in [(5, TODAY + 5 * DAY), (6, TODAY - 5 * DAY)] {
            let bed = bed(seed).await;
            let (right, clock) = open(&bed, seed, TODAY, false).await;
            let mut committed = 0_u32;
            let mut void = 0;
            for round in 0..10_u32 {
                let mut transaction = right.begin();
                let number = transaction.put_chunk(None, payload((100 + round).into(), 9_000)).await.unwrap();
                transaction.put(CHUNKED, &(100 + round).to_be_bytes(), &number.0.to_le_bytes()).unwrap();
                let (wrong, _) = open(&bed, 20 + u64::from(round), off, false).await;
                set(&wrong, 0).await.unwrap();
                wrong.compact(CompactOptions::default()).await.unwrap();
                if round % 2 == 0 {
                    wrong.close().await.unwrap();
                }
                match transaction.commit().await {
                    Ok(_) => {
                        committed += 1;
                        read(&right.snapshot(), 100 + round).await.unwrap();
                    }
                    Err(error) if error.is_conflict() => {
                        void += 1;
                        // Done again it goes through.
                        right.refresh().await.unwrap();
                        set(&right, 100 + round).await.unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
                clock.advance(MINUTE);
            }
            assert_eq!(void > 0, off > TODAY, "{committed} went through, {void} were void");
            right.checkpoint().await.unwrap();
            let (last, _) = open(&bed, 50, TODAY, false).await;
            for round in 0..10 {
                read(&last.snapshot(), 100 + round).await.unwrap();
            }
            read(&last.snapshot(), 0).await.unwrap();
            assert_clean(&last).await;
        }
    });
}

/// One whose clock was ahead has left; the others give space back all the same, once they have seen its commits age.
#[test]
fn a_commit_dated_far_ahead_does_not_keep_space_for_so_long_in_a_process_that_saw_it_age() {
    block_on(async {
        let bed = bed(7).await;
        let (right, clock) = open(&bed, 7, TODAY, false).await;
        for key in 0..8 {
            set(&right, key).await.unwrap();
        }
        let (wrong, _) = open(&bed, 8, TODAY + 400 * DAY, false).await;
        for key in 0..8 {
            set(&wrong, key).await.unwrap();
        }
        wrong.close().await.unwrap();
        right.refresh().await.unwrap();
        set(&right, 0).await.unwrap();
        clock.advance(11 * MINUTE);
        set(&right, 1).await.unwrap();
        right.compact(CompactOptions::default()).await.unwrap();
        clock.advance(11 * MINUTE);
        set(&right, 2).await.unwrap();
        let report = right.compact(CompactOptions::default()).await.unwrap();
        assert!(report.waiting < 24, "{report:?}");
        for key in 0..8 {
            read(&right.snapshot(), key).await.unwrap();
        }
        assert_clean(&right).await;
    });
}
