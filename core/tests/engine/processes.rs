//! Several processes on one storage: nobody loses what was acknowledged to them, however they interleave.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_lite::future::{block_on, poll_once, yield_now};
use futures_util::future::join_all;
use proptest::prelude::*;
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, Fault, Loss};
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{CompactOptions, Engine, OpenOptions, Transaction, Tuning, Unlock, View};
use strongroom_core::env::Env;
use strongroom_core::storage::Operation;
use strongroom_core::{Error, Result};

use crate::support::{Bed, TABLE, assert_clean, contents, get, put};

/// Superseded states expire at once, and checkpoints come often: deletion is always close behind.
fn hasty() -> Tuning {
    Tuning { checkpoint_commits: 4, close_commits: 2, reader_grace_millis: 0, ..Tuning::default() }
}

async fn bed(seed: u64, options: CrashOptions) -> (Bed, Engine) {
    let (mut bed, engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, options).await;
    engine.close().await.unwrap();
    bed.tuning = hasty();
    let engine = bed.open().await.unwrap();
    (bed, engine)
}

/// Reads a counter and writes it one higher: a lost update would show.
async fn increment(engine: &Engine, key: &[u8]) -> Result<()> {
    engine
        .transact(async |transaction: &mut Transaction| {
            let before = transaction.get(TABLE, key).await?;
            let before = before.map_or(0, |row| u64::from_le_bytes(row.as_ref().try_into().unwrap()));
            transaction.put(TABLE, key, &(before + 1).to_le_bytes())
        })
        .await
}

async fn count(engine: &Engine, key: &[u8]) -> u64 {
    get(engine, key).await.unwrap().map_or(0, |row| u64::from_le_bytes(row.as_ref().try_into().unwrap()))
}

#[test]
fn a_writer_that_slept_across_checkpoints_and_deletions_loses_nothing_for_others() {
    block_on(async {
        for options in [CrashOptions::default(), CrashOptions::object_store()] {
            let (mut bed, sleeper) = bed(1, options).await;
            increment(&sleeper, b"both").await.unwrap();
            let mut half_done = sleeper.begin();
            half_done.put(TABLE, b"sleeper", b"woke").unwrap();
            let other = bed.open().await.unwrap();
            for _ in 0..40 {
                increment(&other, b"both").await.unwrap();
            }
            other.close().await.unwrap();
            // Its successor's name is free again, because the commits that had it are deleted.
            match half_done.commit().await {
                Ok(_) | Err(Error::Conflict) => {}
                Err(error) => panic!("{error}"),
            }
            increment(&sleeper, b"both").await.unwrap();
            sleeper.close().await.unwrap();
            let reader = bed.open().await.unwrap();
            assert_eq!(count(&reader, b"both").await, 42);
            assert_clean(&reader).await;
        }
    });
}

#[test]
fn a_writer_that_was_stopped_anywhere_while_it_opened_opens_on_what_others_made_of_it() {
    block_on(async {
        let mut steps = 0;
        loop {
            let (mut bed, dead) = bed(7, CrashOptions::object_store()).await;
            for number in 0..60_u32 {
                put(&dead, &number.to_be_bytes(), &[1; 400]).await.unwrap();
            }
            // What it leaves is to be cleared up by who opens.
            drop(dead);
            let other = bed.open().await.unwrap();
            let mut options = OpenOptions::new(Unlock::Root(&bed.root));
            options.tuning = hasty();
            let mut opening = pin!(Engine::open(Arc::new(bed.storage.reopen()), Env::deterministic(77), options));
            let mut opened = None;
            for _ in 0..steps {
                opened = poll_once(opening.as_mut()).await;
                if opened.is_some() {
                    break;
                }
            }
            let is_last = opened.is_some();
            for number in 0..60_u32 {
                put(&other, &number.to_be_bytes(), &[2; 400]).await.unwrap();
            }
            other.compact(CompactOptions { thorough: true, ..CompactOptions::default() }).await.unwrap();
            other.close().await.unwrap();
            let opened = match opened {
                Some(opened) => opened,
                None => opening.await,
            };
            let engine = opened.unwrap_or_else(|error| panic!("stopped after {steps} steps: {error}"));
            increment(&engine, b"mine").await.unwrap();
            assert_eq!(get(&engine, &7_u32.to_be_bytes()).await.unwrap().unwrap(), vec![2; 400], "{steps}");
            engine.close().await.unwrap();
            if is_last {
                break;
            }
            steps += 1;
        }
        assert!(steps > 10);
    });
}

#[test]
fn a_reader_whose_state_was_given_up_is_told_so() {
    block_on(async {
        let (mut bed, writer) = bed(2, CrashOptions::object_store()).await;
        let payload = Bytes::from(vec![9; 12_000]);
        let mut transaction = writer.begin();
        let number = transaction.put_chunk(None, payload.clone()).await.unwrap();
        transaction.commit().await.unwrap();
        let reader = bed.open_with(|options| options.read_only = true).await.unwrap();
        let view = reader.snapshot();
        assert_eq!(view.chunk(number).await.unwrap(), payload);
        let mut release = writer.begin();
        release.release_chunk(number).unwrap();
        release.commit().await.unwrap();
        for number in 0..20_u8 {
            put(&writer, &[number], b"x").await.unwrap();
        }
        assert!(matches!(view.chunk(number).await, Err(Error::Expired)));
        reader.refresh().await.unwrap();
        assert!(matches!(reader.snapshot().chunk(number).await, Err(Error::Damaged(_))), "the chunk is gone");
        assert_eq!(contents(&reader.snapshot()).await.unwrap().len(), 20);
    });
}

#[test]
fn a_read_only_opening_writes_nothing() {
    block_on(async {
        let (mut bed, writer) = bed(3, CrashOptions::default()).await;
        put(&writer, b"a", b"1").await.unwrap();
        let before = bed.storage.snapshot_blobs();
        let mutating = bed.storage.calls().mutating();
        let reader = bed.open_with(|options| options.read_only = true).await.unwrap();
        assert_eq!(get(&reader, b"a").await.unwrap().unwrap(), "1");
        assert!(matches!(put(&reader, b"a", b"2").await, Err(Error::ReadOnly)));
        reader.close().await.unwrap();
        assert_eq!(bed.storage.calls().mutating(), mutating);
        assert_eq!(bed.storage.snapshot_blobs(), before);
    });
}

#[test]
fn a_dedup_hit_does_not_revive_what_another_process_condemned() {
    block_on(async {
        let (mut bed, one) = bed(4, CrashOptions::default()).await;
        let payload = Bytes::from(vec![3; 9_000]);
        let identity = one.identity(&payload);
        let mut transaction = one.begin();
        let number = transaction.put_chunk(Some(identity), payload.clone()).await.unwrap();
        transaction.commit().await.unwrap();
        let two = bed.open().await.unwrap();
        let mut hit = one.begin();
        assert_eq!(hit.find_chunk(&identity).await.unwrap(), Some(number));
        hit.put(TABLE, b"uses", &number.0.to_le_bytes()).unwrap();
        let mut release = two.begin();
        release.release_chunk(number).unwrap();
        release.commit().await.unwrap();
        assert!(matches!(hit.commit().await, Err(Error::Conflict)));
        one.refresh().await.unwrap();
        let mut again = one.begin();
        let fresh = again.put_chunk(Some(identity), payload.clone()).await.unwrap();
        assert_ne!(fresh, number);
        again.commit().await.unwrap();
        assert_eq!(one.snapshot().chunk(fresh).await.unwrap(), payload);
        assert_clean(&one).await;
    });
}

#[test]
fn building_on_a_commit_that_was_visible_and_not_durable_makes_it_durable() {
    block_on(async {
        let (mut bed, one) = bed(5, CrashOptions::default()).await;
        put(&one, b"first", b"").await.unwrap();
        let two = bed.open().await.unwrap();
        put(&two, b"second", b"").await.unwrap();
        one.refresh().await.unwrap();
        // What the first process puts becomes visible; its fsync fails and it dies.
        bed.storage.fail_operation(Operation::PutDurable, 1, Fault::NotDurable);
        bed.storage.fail_operation(Operation::Persist, 1, Fault::LostRequest);
        assert!(matches!(put(&one, b"shaky", b"").await, Err(Error::CommitUnknown { .. })));
        drop(one);
        bed.storage.clear_faults();
        put(&two, b"third", b"").await.unwrap();
        assert!(get(&two, b"shaky").await.unwrap().is_some());
        bed.storage.crash_with(Loss::Everything);
        let after = bed.open().await.unwrap();
        for key in [&b"first"[..], b"second", b"shaky", b"third"] {
            assert!(get(&after, key).await.unwrap().is_some(), "{}", String::from_utf8_lossy(key));
        }
        assert_clean(&after).await;
    });
}

#[test]
fn without_barriers_acknowledged_commits_are_lost() {
    // What the other tests prove rests on barriers: with a medium that lies about them, they would fail.
    block_on(async {
        let mut lost = 0;
        for seed in 0..20 {
            let (mut bed, engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
            put(&engine, b"honest", b"").await.unwrap();
            bed.storage.lying_sync(true);
            put(&engine, b"lied about", b"").await.unwrap();
            bed.storage.crash(seed);
            bed.storage.lying_sync(false);
            let kept = match bed.open().await {
                Ok(engine) => get(&engine, b"lied about").await.unwrap().is_some(),
                Err(_) => false,
            };
            lost += u32::from(!kept);
        }
        assert!(lost > 0);
    });
}

#[test]
fn dropping_any_one_barrier_of_a_larger_commit_is_noticed() {
    // A commit with blocks has two barriers: sync, then the durable put. Without either, some crash loses it.
    block_on(async {
        let mut noticed = [false; 2];
        for seed in 0..60 {
            for (dropped, noticed) in noticed.iter_mut().enumerate() {
                let (mut bed, engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
                put(&engine, b"epoch", b"").await.unwrap();
                let payload = Bytes::from(vec![1; 12_000]);
                let mut transaction = engine.begin();
                let number = transaction.put_chunk(None, payload.clone()).await.unwrap();
                transaction.put(TABLE, b"uses", &number.0.to_le_bytes()).unwrap();
                let before = bed.storage.barriers();
                bed.storage.drop_barrier(1 + dropped as u64);
                transaction.commit().await.unwrap();
                assert_eq!(bed.storage.barriers() - before, 2);
                bed.storage.crash(seed);
                let whole = match bed.open().await {
                    Ok(engine) => engine.snapshot().chunk(number).await.is_ok_and(|read| read == payload),
                    Err(_) => false,
                };
                *noticed |= !whole;
            }
        }
        assert_eq!(noticed, [true; 2]);
    });
}

fn cases() -> u32 {
    std::env::var("STRONGROOM_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}

async fn work(engine: Engine, seed: u64, done: Rc<Cell<u64>>, distinct: Rc<Cell<u64>>) {
    let mut dice = Dice::new(seed);
    for round in 0..10_u64 {
        for _ in 0..dice.below(6) {
            yield_now().await;
        }
        if dice.per_mille(500) {
            increment(&engine, b"shared").await.unwrap();
            done.set(done.get() + 1);
        } else {
            let key = [b"own".as_slice(), &seed.to_be_bytes(), &round.to_be_bytes()].concat();
            let payload = Bytes::from(vec![round as u8; dice.below(9000) as usize]);
            let identity = engine.identity(&payload);
            let stored = engine
                .transact(async |transaction: &mut Transaction| {
                    let number = transaction.put_chunk(Some(identity), payload.clone()).await?;
                    transaction.put(TABLE, &key, &number.0.to_le_bytes())?;
                    Ok::<_, Error>(number)
                })
                .await
                .unwrap();
            match engine.snapshot().chunk(stored).await {
                Ok(read) => assert_eq!(read, payload),
                Err(Error::Expired) => {}
                Err(error) => panic!("{error}"),
            }
            distinct.set(distinct.get() + 1);
        }
        if dice.per_mille(100) {
            engine
                .checkpoint()
                .await
                .or_else(|error| if matches!(error, Error::Conflict) { Ok(()) } else { Err(error) })
                .unwrap();
        }
    }
    if dice.per_mille(700) {
        engine.close().await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn interleaved_writers_lose_no_update(seed: u64, writers in 2..5_u64, object_store: bool) {
        let options = if object_store { CrashOptions::object_store() } else { CrashOptions::default() };
        block_on(async {
            let (mut bed, first) = bed(seed, options).await;
            let (done, distinct) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let mut engines = vec![first];
            for _ in 1..writers {
                engines.push(bed.open().await.unwrap());
            }
            let tasks = engines.into_iter().zip(seed..).map(|(engine, seed)| work(engine, seed, done.clone(), distinct.clone()));
            join_all(tasks).await;
            let engine = bed.open().await.unwrap();
            assert_eq!(count(&engine, b"shared").await, done.get());
            let rows = contents(&engine.snapshot()).await.unwrap();
            assert_eq!(rows.keys().filter(|key| key.starts_with(b"own")).count() as u64, distinct.get());
            assert_clean(&engine).await;
        });
    }
}
