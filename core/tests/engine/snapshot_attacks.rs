//! Snapshots between two processes that know nothing of each other, and under a storage that loses what only a snapshot has.

use std::collections::{BTreeMap, BTreeSet};

use futures_lite::future::block_on;
use strongroom_conformance::crash::CrashOptions;
use strongroom_conformance::{Dice, simulate};
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{CheckOptions, CompactOptions, Engine, Transaction, Tuning};
use strongroom_core::{Error, Result};

use crate::snapshots::{Content, Rows, assert_sound, change, changes, fill, no_keys, observe, restore, some_keys};
use crate::support::Bed;

type Changes = Vec<(bool, u8, Option<u8>)>;

/// A process, with a transaction that it began some time ago.
struct Process {
    engine: Engine,
    held: Option<(Transaction, Changes)>,
}

/// May come of another process having been faster.
fn is_of_a_race(error: &Error) -> bool {
    matches!(error, Error::Conflict | Error::Expired)
}

async fn assert_all(engine: &Engine, newest: &Content, kept: &BTreeMap<String, Content>) {
    engine.refresh().await.unwrap();
    assert_eq!(observe(&engine.snapshot()).await.unwrap(), *newest);
    let names: BTreeSet<String> = engine.snapshots().await.unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(names, kept.keys().cloned().collect());
    for (name, content) in kept {
        assert_eq!(observe(&engine.open_snapshot(name).await.unwrap()).await.unwrap(), *content, "{name}");
    }
    assert_sound(engine).await;
}

/// Does it, and once more after a look at what others did, where it met that.
async fn twice(engine: &Engine, mut run: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    match run().await {
        Err(Error::Conflict | Error::Expired | Error::NoSnapshot { .. }) => {
            engine.refresh().await.unwrap();
            run().await
        }
        done => done,
    }
}

async fn step(dice: &mut Dice, process: &mut Process, newest: &mut Content, kept: &mut BTreeMap<String, Content>) {
    let engine = &process.engine;
    let pick = |dice: &mut Dice, kept: &BTreeMap<String, Content>| {
        let names: Vec<_> = kept.keys().cloned().collect();
        names.get(dice.below(names.len().max(1) as u64) as usize).cloned()
    };
    match dice.below(16) {
        0..3 => {
            let name = format!("{:x}", dice.roll());
            engine.create_snapshot(&name).await.unwrap();
            kept.insert(name, newest.clone());
        }
        3..5 => {
            let Some(name) = pick(dice, kept) else { return };
            engine.remove_snapshot(&name).await.unwrap();
            kept.remove(&name);
        }
        5 => {
            let Some(name) = pick(dice, kept) else { return };
            // Where nothing differs from what it knows, nothing would be committed, and what others did not be noticed.
            engine.refresh().await.unwrap();
            match twice(engine, async || restore(engine, &name).await).await {
                Ok(()) => *newest = kept[&name].clone(),
                Err(error) => assert!(is_of_a_race(&error), "{error}"),
            }
        }
        6 => {
            let options = CompactOptions { thorough: dice.below(2) == 0, ..CompactOptions::default() };
            if let Err(error) = engine.compact(options).await {
                assert!(is_of_a_race(&error), "{error}");
            }
        }
        7 => {
            engine.checkpoint().await.unwrap();
        }
        8..10 => {
            let changes = changes(dice);
            let mut transaction = engine.begin();
            match fill(engine, &mut transaction, &changes).await {
                Ok(()) => process.held = Some((transaction, changes)),
                Err(error) => assert!(is_of_a_race(&error), "{error}"),
            }
        }
        10..12 => {
            let Some((transaction, changes)) = process.held.take() else { return };
            match transaction.commit().await {
                Ok(_) => change(newest, &changes),
                Err(error) => assert!(is_of_a_race(&error), "{error}"),
            }
        }
        _ => {
            let changes = changes(dice);
            let run = async || {
                let mut transaction = engine.begin();
                fill(engine, &mut transaction, &changes).await?;
                transaction.commit().await.map(drop)
            };
            match twice(engine, run).await {
                Ok(()) => change(newest, &changes),
                Err(error) => assert!(is_of_a_race(&error), "{error}"),
            }
        }
    }
}

async fn run(seed: u64) {
    let mut dice = Dice::new(seed);
    let options = if dice.below(2) == 0 { CrashOptions::default() } else { CrashOptions::object_store() };
    let options = CrashOptions { yields: false, ..options };
    let (mut bed, engine) = Bed::new(dice.roll() >> 33, 4096, Suite::Aes256Gcm, options).await;
    engine.close().await.unwrap();
    drop(engine);
    let reader_grace_millis = if dice.below(2) == 0 { 0 } else { Tuning::default().reader_grace_millis };
    bed.tuning = Tuning { checkpoint_commits: 5, close_commits: 2, reader_grace_millis, ..Tuning::default() };
    let mut processes = Vec::new();
    for _ in 0..2 {
        processes.push(Process { engine: bed.open().await.unwrap(), held: None });
    }
    let (mut newest, mut kept) = (Content::default(), BTreeMap::new());
    for _ in 0..20 + dice.below(30) {
        let acting = dice.below(2) as usize;
        if dice.below(24) == 0 {
            // It dies, and leaves what it has not committed.
            processes[acting] = Process { engine: bed.open().await.unwrap(), held: None };
        }
        step(&mut dice, &mut processes[acting], &mut newest, &mut kept).await;
        let watching = dice.below(2) as usize;
        if dice.below(2) == 0 {
            assert_all(&processes[watching].engine, &newest, &kept).await;
        }
    }
    drop(processes);
    let engine = bed.open().await.unwrap();
    assert_all(&engine, &newest, &kept).await;
    for name in kept.keys() {
        engine.remove_snapshot(name).await.unwrap();
    }
    let mut transaction = engine.begin();
    fill(&engine, &mut transaction, &no_keys()).await.unwrap();
    transaction.commit().await.unwrap();
    let options = CompactOptions { thorough: true, end_other_writers: true, ..CompactOptions::default() };
    engine.compact(options).await.unwrap();
    assert_all(&engine, &Content::default(), &BTreeMap::new()).await;
    assert_eq!(engine.info().await.unwrap().chunks, 0, "all is given back");
}

#[test]
fn two_processes_keep_and_remove_snapshots_while_both_commit_and_check_finds_nothing_wrong() {
    simulate(40, |seed| block_on(run(seed)));
}

#[test]
fn a_blob_that_only_a_snapshot_needs_is_missed_by_check_under_the_name_of_the_snapshot() {
    block_on(async {
        let options = CrashOptions { yields: false, ..CrashOptions::default() };
        let (mut bed, engine) = Bed::new(77, 4096, Suite::Aes256Gcm, options).await;
        let run = async |changes: &[(bool, u8, Option<u8>)]| {
            let mut transaction = engine.begin();
            fill(&engine, &mut transaction, changes).await.unwrap();
            transaction.commit().await.unwrap();
        };
        run(&some_keys(1)).await;
        engine.create_snapshot("hurt").await.unwrap();
        let content = observe(&engine.snapshot()).await.unwrap();
        let needed: BTreeSet<_> = bed.storage.snapshot_blobs().into_keys().collect();
        run(&no_keys()).await;
        engine.create_snapshot("whole").await.unwrap();
        engine.compact(CompactOptions::default()).await.unwrap();
        engine.close().await.unwrap();
        let blobs = bed.storage.snapshot_blobs();
        let (mut hurt, mut broken) = (0, 0);
        for name in blobs.keys().filter(|name| needed.contains(*name)) {
            let mut without = blobs.clone();
            without.remove(name);
            bed.storage.restore(without);
            let Ok(engine) = bed.open_with(|options| options.read_only = true).await else { continue };
            let report = CheckOptions { rows: Some(&Rows), ..CheckOptions::default() };
            let report = engine.check(report).await.unwrap();
            assert!(observe(&engine.open_snapshot("whole").await.unwrap()).await.is_ok());
            let is_hurt = match observe(&engine.open_snapshot("hurt").await.unwrap()).await {
                Ok(seen) => {
                    assert_eq!(seen, content);
                    false
                }
                Err(error) => {
                    assert!(matches!(error, Error::Missing { .. } | Error::Damaged(_)), "{error}");
                    true
                }
            };
            broken += usize::from(is_hurt);
            let tells =
                report.findings.iter().any(|finding| finding.damage.detail.contains("snapshot \"hurt\" needs it"));
            assert_eq!(tells, is_hurt, "{:#?}", report.findings);
            hurt += usize::from(tells);
            assert!(!report.findings.iter().any(|finding| finding.damage.detail.contains("\"whole\"")));
        }
        bed.storage.restore(blobs);
        assert!(hurt > 2 && hurt == broken, "{hurt} told, {broken} broken");
    });
}
