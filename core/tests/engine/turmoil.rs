//! Several processes, faults, dropped futures, deaths and power loss at once, replayable by a number.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures_lite::future::block_on;
use futures_util::future::join_all;
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, Fault};
use strongroom_core::engine::{CheckOptions, ChunkNumber, ConflictTest as _, Counts, Direction, Engine, View as _};
use strongroom_core::storage::Storage;
use strongroom_core::{Error, Result};

use crate::races::{Alone, CHUNKED, bed, cancel_after, counter, open_on};
use crate::support::{TABLE, assert_clean, contents, put};

/// One step of what a process does; whether it certainly took effect, certainly not, or may have.
async fn step(engine: &Engine, dice: &mut Dice, key: &[u8]) -> Option<bool> {
    let mut transaction = engine.begin();
    let result: Result<()> = async {
        if dice.per_mille(500) {
            let payload = Bytes::from(vec![key[0]; dice.below(6000) as usize]);
            let identity = dice.per_mille(500).then(|| engine.identity(&payload));
            let number = transaction.put_chunk(identity, payload).await?;
            transaction.put(CHUNKED, key, &number.0.to_le_bytes())?;
        }
        transaction.put(TABLE, key, b"x")?;
        transaction.add(TABLE, b"n", 1).await?;
        transaction.commit().await.map(|_| ())
    }
    .await;
    match result {
        Ok(()) => Some(true),
        Err(Error::Conflict | Error::Expired) => Some(false),
        Err(Error::Damaged(damage)) => panic!("a fault looks like damage: {damage}"),
        Err(_) => None,
    }
}

/// Every chunk that a row names is there, and everything is in order.
async fn assert_whole(engine: &Engine) {
    let view = engine.snapshot();
    let mut references = Counts::default();
    let mut scan = view.scan(CHUNKED, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
    while let Some((key, row)) = scan.next().await.unwrap() {
        let number = ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap()));
        assert!(view.chunk(number).await.unwrap().iter().all(|byte| *byte == key[0]));
        references.add(number.0);
    }
    let report = engine
        .check(CheckOptions { data: true, references: Some(references), ..CheckOptions::default() })
        .await
        .unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

/// Several processes, faults, dropped futures, deaths and power loss, all by one seed.
async fn turmoil(seed: u64, options: CrashOptions) {
    let mut dice = Dice::new(seed);
    let (mut bed, first) = bed(seed, options).await;
    let mut engines = vec![first, bed.open().await.unwrap()];
    let mut certain: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut possible: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut number = 0_u32;
    for _ in 0..5 {
        bed.storage.fail_at_random(dice.roll(), dice.below(60));
        for _ in 0..12 {
            let engine = engines[dice.below(engines.len() as u64) as usize].clone();
            match dice.below(10) {
                0 => drop(cancel_after(dice.below(60) as usize, engine.checkpoint()).await),
                1 => drop(engine.checkpoint().await),
                2 => drop(cancel_after(dice.below(12) as usize, engine.refresh()).await),
                3 => drop(engine.refresh().await),
                kind => {
                    // Up to three at once; with the lower kinds all of them are dropped in the middle.
                    let keys: Vec<Vec<u8>> = (0..=dice.below(3))
                        .map(|_| {
                            number += 1;
                            [&[number as u8], &number.to_be_bytes()[..]].concat()
                        })
                        .collect();
                    possible.extend(keys.iter().cloned());
                    let mut dices: Vec<Dice> = keys.iter().map(|_| Dice::new(dice.roll())).collect();
                    let steps = join_all(keys.iter().zip(&mut dices).map(|(key, dice)| step(&engine, dice, key)));
                    let polls = if kind < 6 { dice.below(50) as usize } else { usize::MAX };
                    for (key, outcome) in keys.iter().zip(cancel_after(polls, steps).await.unwrap_or_default()) {
                        match outcome {
                            Some(true) => drop(certain.insert(key.clone())),
                            Some(false) => drop(possible.remove(key)),
                            None => {}
                        }
                    }
                }
            }
        }
        bed.storage.clear_faults();
        match dice.below(4) {
            0 => {
                let storage = bed.storage.reopen();
                storage.crash(dice.roll());
                engines.clear();
            }
            1 => drop(engines.pop()),
            2 => {
                if let Some(engine) = engines.pop() {
                    engine
                        .close()
                        .await
                        .or_else(|error| if error.is_conflict() { Ok(()) } else { Err(error) })
                        .unwrap();
                }
            }
            _ => {}
        }
        while engines.len() < 2 {
            engines.push(bed.open().await.unwrap());
        }
        for engine in &engines {
            // Whatever is in the air is settled by the next commit.
            for attempt in 0.. {
                match put(engine, b"settled", b"").await {
                    Ok(()) => break,
                    Err(Error::Conflict | Error::Expired) if attempt < 20 => engine.refresh().await.unwrap(),
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
        }
        for engine in &engines {
            engine.refresh().await.unwrap();
            let rows = contents(&engine.snapshot()).await.unwrap();
            let seen: BTreeSet<Vec<u8>> = rows.keys().filter(|key| key.len() == 5).cloned().collect();
            assert!(certain.is_subset(&seen), "seed {seed}: lost {:?}", certain.difference(&seen).collect::<Vec<_>>());
            assert!(
                seen.is_subset(&possible),
                "seed {seed}: {:?} came back",
                seen.difference(&possible).collect::<Vec<_>>()
            );
            assert_eq!(counter(engine).await, seen.len() as u64, "seed {seed}: doubled or halved");
            assert_whole(engine).await;
        }
    }
}

fn cases() -> u64 {
    std::env::var("STRONGROOM_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60)
}

#[test]
fn faults_dropped_futures_deaths_and_power_loss_lose_and_double_nothing() {
    for seed in 0..cases() {
        for options in [CrashOptions::default(), CrashOptions::object_store(), CrashOptions::atomic()] {
            block_on(turmoil(seed, options));
        }
    }
}

#[test]
fn death_between_any_two_calls_of_checkpoint_and_deletion_leaves_a_repository() {
    block_on(async {
        for alone in [false, true] {
            for calls in 0.. {
                let (mut bed, engine) = bed(500 + calls, CrashOptions::default()).await;
                drop(engine);
                let storage = bed.storage.reopen();
                let control = storage.another();
                let storage: Arc<dyn Storage> = if alone { Arc::new(Alone(storage)) } else { Arc::new(storage) };
                let engine = open_on(storage, &bed.root, calls).await.unwrap();
                let mut expected = 0;
                for round in 0..3_u32 {
                    for number in 0..40_u32 {
                        let mut transaction = engine.begin();
                        transaction
                            .put(TABLE, &[round.to_be_bytes(), number.to_be_bytes()].concat(), &[7; 120])
                            .unwrap();
                        if number % 20 == 0 {
                            transaction.put_chunk(None, Bytes::from(vec![1; 5000])).await.unwrap();
                        }
                        transaction.commit().await.unwrap();
                        expected += 1;
                    }
                    let mut large = engine.begin();
                    for number in 100..140_u32 {
                        large.put(TABLE, &[round.to_be_bytes(), number.to_be_bytes()].concat(), &[7; 120]).unwrap();
                        expected += 1;
                    }
                    large.commit().await.unwrap();
                    if round < 2 {
                        engine.checkpoint().await.unwrap();
                    }
                }
                control.cut_off_after(
                    calls,
                    [Fault::LostRequest, Fault::LostReply, Fault::NotDurable][(calls % 3) as usize],
                );
                let done = engine.checkpoint().await.is_ok() && engine.checkpoint().await.is_ok();
                drop(engine);
                bed.storage.crash(calls);
                let engine = bed.open().await.unwrap_or_else(|error| panic!("after {calls} calls: {error}"));
                assert_eq!(contents(&engine.snapshot()).await.unwrap().len(), expected, "after {calls} calls");
                assert_clean(&engine).await;
                put(&engine, b"next", b"").await.unwrap();
                engine.checkpoint().await.unwrap();
                assert_clean(&engine).await;
                if done {
                    break;
                }
            }
        }
    });
}
