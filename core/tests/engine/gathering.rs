//! Compaction beside snapshots: the tree nodes that they have leave sparse blocks, and nothing else about them changes.

use std::collections::BTreeMap;

use futures_lite::future::{block_on, yield_now};
use futures_util::future::join;
use strongroom_conformance::crash::{CrashOptions, Fault, Loss};
use strongroom_conformance::{Dice, simulate};
use strongroom_core::Error;
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{CompactOptions, CompactReport, Engine, Tuning};
use strongroom_core::storage::Operation;

use crate::support::{Bed, TABLE, assert_clean, contents};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Room for fifteen nodes.
const BLOCK_BYTES: u32 = 64 << 10;

/// What there must be, now and under each name.
#[derive(Clone, Default)]
struct States {
    now: Rows,
    kept: BTreeMap<String, Rows>,
}

impl States {
    async fn change(&mut self, engine: &Engine, changes: &[(u32, Option<u64>)]) {
        let mut transaction = engine.begin();
        for (key, seed) in changes {
            let key = key.to_be_bytes();
            match seed {
                Some(seed) => {
                    let value = strongroom_conformance::storage::sample_bytes(*seed, 60 + (*seed % 80) as usize);
                    transaction.put(TABLE, &key, &value).unwrap();
                    self.now.insert(key.to_vec(), value.to_vec());
                }
                None => {
                    transaction.delete(TABLE, &key).unwrap();
                    self.now.remove(key.as_slice());
                }
            }
        }
        transaction.commit().await.unwrap();
    }

    async fn keep(&mut self, engine: &Engine, name: &str) {
        engine.create_snapshot(name).await.unwrap();
        self.kept.insert(name.to_owned(), self.now.clone());
    }

    async fn forget(&mut self, engine: &Engine, name: &str) {
        engine.remove_snapshot(name).await.unwrap();
        self.kept.remove(name);
    }

    async fn assert_there(&self, engine: &Engine) {
        assert_eq!(contents(&engine.snapshot()).await.unwrap(), self.now);
        let names: Vec<String> = engine.snapshots().await.unwrap().into_iter().map(|info| info.name).collect();
        assert_eq!(names.len(), self.kept.len(), "{names:?}");
        for (name, rows) in &self.kept {
            let kept = engine.open_snapshot(name).await.unwrap();
            assert_eq!(contents(&kept).await.unwrap(), *rows, "{name}");
        }
        assert_clean(engine).await;
    }
}

async fn bed(seed: u64, block_bytes: u32, options: CrashOptions) -> (Bed, Engine) {
    let options = CrashOptions { page_names: 2000, ..options };
    let (mut bed, engine) = Bed::new(seed, block_bytes, Suite::Aes256Gcm, options).await;
    // From here on it is alone, and deletes at once.
    bed.storage.crash_with(Loss::Nothing);
    drop(engine);
    let engine = bed.open().await.unwrap();
    (bed, engine)
}

fn quiet() -> CrashOptions {
    CrashOptions { yields: false, ..CrashOptions::default() }
}

/// So many rows; then rounds of a few changes here and there, each kept under a name: each leaves a block with a few nodes
/// that somebody still has.
async fn scatter(engine: &Engine, dice: &mut Dice, rows: u32, rounds: u32) -> States {
    let mut states = States::default();
    for first in (0..rows).step_by(500) {
        let some: Vec<_> = (first..rows.min(first + 500)).map(|key| (key, Some(dice.roll()))).collect();
        states.change(engine, &some).await;
    }
    for round in 0..rounds {
        scatter_once(engine, dice, rows, &mut states).await;
        states.keep(engine, &format!("{round:03}")).await;
    }
    states
}

async fn scatter_once(engine: &Engine, dice: &mut Dice, rows: u32, states: &mut States) {
    let some: Vec<_> =
        (0..2).map(|_| (dice.below(rows.into()) as u32, (dice.below(8) > 0).then(|| dice.roll()))).collect();
    states.change(engine, &some).await;
}

async fn compact(engine: &Engine, thorough: bool) -> CompactReport {
    engine.compact(CompactOptions { thorough, ..CompactOptions::default() }).await.unwrap()
}

/// How many blobs there would be, were all that lives packed: at the end of a block of nodes there is room for half of one.
async fn packed(engine: &Engine) -> u64 {
    let info = engine.info().await.unwrap();
    let block_bytes = u64::from(info.block_bytes);
    let node_bytes = 4096.min(block_bytes / 4);
    // Two headers, a hint, a commit, and what is kept for a full storage.
    info.live_bytes.div_ceil(block_bytes - 96 - node_bytes / 2) + 4 + 7
}

#[test]
fn what_many_snapshots_left_in_sparse_blocks_is_gathered_and_all_that_they_show_stays() {
    block_on(async {
        for (block_bytes, rounds, thorough) in
            [(32 << 10, 100, false), (BLOCK_BYTES, 60, true), (128 << 10, 120, false)]
        {
            let (mut bed, engine) = bed(1, block_bytes, quiet()).await;
            let states = scatter(&engine, &mut Dice::new(1), 3000, rounds).await;
            let report = compact(&engine, thorough).await;
            let packed = packed(&engine).await;
            assert!(
                report.blobs_after <= packed + (packed / 50).max(8),
                "blocks of {block_bytes}: {packed} blobs would do; {report:?}"
            );
            assert!(report.blobs_before > report.blobs_after * 3 / 2, "{report:?}");
            states.assert_there(&engine).await;
            engine.close().await.unwrap();
            drop(engine);
            let engine = bed.open().await.unwrap();
            states.assert_there(&engine).await;
            // There is nothing left to do.
            for _ in 0..3 {
                let puts = bed.storage.calls().of(Operation::Put);
                compact(&engine, thorough).await;
                let puts = bed.storage.calls().of(Operation::Put) - puts;
                assert!(puts <= 16, "blocks of {block_bytes}: {puts} blocks were put");
            }
        }
    });
}

#[test]
fn removing_snapshots_whose_nodes_were_gathered_gives_all_of_them_back() {
    block_on(async {
        let (_bed, engine) = bed(2, BLOCK_BYTES, quiet()).await;
        let empty = compact(&engine, true).await.blobs_after;
        let mut dice = Dice::new(2);
        let mut states = scatter(&engine, &mut dice, 2000, 40).await;
        let mut before = compact(&engine, false).await.blobs_after;
        while !states.kept.is_empty() {
            for _ in 0..10 {
                let names: Vec<String> = states.kept.keys().cloned().collect();
                states.forget(&engine, &names[dice.below(names.len() as u64) as usize]).await;
            }
            assert_clean(&engine).await;
            let after = compact(&engine, true).await.blobs_after;
            assert!(after <= before + 4, "{before} blobs, then {after}, with {} snapshots left", states.kept.len());
            before = before.min(after);
            states.assert_there(&engine).await;
        }
        let all: Vec<_> = (0..2000).map(|key| (key, None)).collect();
        states.change(&engine, &all).await;
        let after = compact(&engine, true).await.blobs_after;
        assert!(after <= empty + 8, "{empty} blobs when empty, {after} after all was removed");
        states.assert_there(&engine).await;
    });
}

#[test]
fn a_snapshot_that_is_taken_of_gathered_nodes_and_older_ones_are_removed_in_any_order() {
    simulate(12, |seed| {
        block_on(async {
            let (mut bed, engine) = bed(seed, 16 << 10, quiet()).await;
            engine.close().await.unwrap();
            drop(engine);
            let mut dice = Dice::new(seed);
            bed.tuning.moved_nodes_max = [8, 40, 100_000][dice.below(3) as usize];
            let engine = bed.open().await.unwrap();
            let mut states = scatter(&engine, &mut dice, 1000, 12).await;
            for round in 0..30 {
                match dice.below(8) {
                    0 | 1 => drop(compact(&engine, dice.below(2) == 0).await),
                    2 | 3 if !states.kept.is_empty() => {
                        let names: Vec<String> = states.kept.keys().cloned().collect();
                        states.forget(&engine, &names[dice.below(names.len() as u64) as usize]).await;
                    }
                    4 => states.keep(&engine, &format!("again {round}")).await,
                    _ => scatter_once(&engine, &mut dice, 1000, &mut states).await,
                }
                if round % 6 == 5 {
                    states.assert_there(&engine).await;
                }
            }
            states.assert_there(&engine).await;
        });
    });
}

#[test]
fn one_commit_moves_no_more_nodes_than_it_may() {
    block_on(async {
        let (mut bed, engine) = bed(4, BLOCK_BYTES, quiet()).await;
        let states = scatter(&engine, &mut Dice::new(4), 2000, 60).await;
        engine.close().await.unwrap();
        drop(engine);
        let image = bed.storage.snapshot_blobs();
        let mut outcome = Vec::new();
        for moved_nodes_max in [u32::MAX, 120] {
            bed.storage.restore(image.clone());
            bed.tuning.moved_nodes_max = moved_nodes_max;
            let engine = bed.open().await.unwrap();
            let before = engine.info().await.unwrap().sequence;
            let report = compact(&engine, false).await;
            outcome.push((engine.info().await.unwrap().sequence - before, report.blobs_after));
            states.assert_there(&engine).await;
            engine.close().await.unwrap();
        }
        let [(few, at_once), (many, bit_by_bit)] = outcome[..] else { panic!() };
        assert!(many > few, "{outcome:?}");
        assert!(bit_by_bit <= at_once * 3 / 2, "{outcome:?}");
    });
}

/// After each of its calls the power fails, or the process dies, and whatever it had done is whole.
#[test]
fn a_gathering_that_was_cut_off_at_any_call_has_lost_nothing() {
    block_on(async {
        let (mut bed, engine) = bed(5, BLOCK_BYTES, quiet()).await;
        let states = scatter(&engine, &mut Dice::new(5), 400, 24).await;
        engine.close().await.unwrap();
        drop(engine);
        bed.tuning.moved_nodes_max = 60;
        let image = bed.storage.snapshot_blobs();
        let mut whole = 0;
        for calls in 0.. {
            bed.storage.restore(image.clone());
            let engine = bed.open().await.unwrap();
            let fault = if calls % 2 == 0 { Fault::LostRequest } else { Fault::LostReply };
            bed.storage.cut_off_all_after(calls, fault);
            let done = engine.compact(CompactOptions::default()).await;
            match calls % 3 {
                0 => bed.storage.crash_with(Loss::Everything),
                1 => bed.storage.crash(calls),
                _ => bed.storage.process_kill(),
            }
            drop(engine);
            let engine = bed.open().await.unwrap();
            states.assert_there(&engine).await;
            if let Ok(report) = done {
                assert!(calls > 20, "it puts and deletes more");
                whole = report.blobs_after;
                break;
            }
            if calls % 8 == 0 {
                // The next one makes up for it.
                let report = compact(&engine, false).await;
                assert!(report.blobs_after <= image.len() as u64 * 2 / 3, "cut off after {calls}: {report:?}");
                states.assert_there(&engine).await;
            }
        }
        assert!(whole < image.len() as u64 * 2 / 3);
    });
}

#[test]
fn a_call_that_fails_once_in_a_gathering_costs_nothing_but_the_attempt() {
    block_on(async {
        let (mut bed, engine) = bed(6, BLOCK_BYTES, quiet()).await;
        let states = scatter(&engine, &mut Dice::new(6), 400, 24).await;
        engine.close().await.unwrap();
        drop(engine);
        let image = bed.storage.snapshot_blobs();
        for operation in [Operation::Put, Operation::PutDurable, Operation::Sync, Operation::Delete, Operation::Get] {
            for nth in 1.. {
                bed.storage.restore(image.clone());
                let engine = bed.open().await.unwrap();
                bed.storage.fail_operation(operation, nth, Fault::LostReply);
                let failed = engine.compact(CompactOptions::default()).await.is_err();
                let was_met = bed.storage.calls().of(operation);
                bed.storage.clear_faults();
                states.assert_there(&engine).await;
                let report = compact(&engine, false).await;
                assert!(report.blobs_after <= image.len() as u64 * 2 / 3, "{operation:?} {nth}: {report:?}");
                states.assert_there(&engine).await;
                engine.close().await.unwrap();
                assert!(was_met > 0);
                // Reads are many; each third will do.
                let is_far = nth > if operation == Operation::Get { 40 } else { 12 };
                if is_far && !failed {
                    break;
                }
                if nth > 90 {
                    break;
                }
            }
        }
    });
}

#[test]
fn who_looks_at_an_older_state_or_at_a_snapshot_goes_on_looking_while_its_nodes_move() {
    block_on(async {
        let (mut bed, engine) = bed(7, BLOCK_BYTES, quiet()).await;
        engine.close().await.unwrap();
        bed.tuning = Tuning { reader_grace_millis: 0, node_cache_bytes_max: 0, ..bed.tuning };
        let engine = bed.open().await.unwrap();
        let mut dice = Dice::new(7);
        let mut states = scatter(&engine, &mut dice, 1000, 30).await;
        let other = bed.open_with(|options| options.read_only = true).await.unwrap();
        let (now, then) = (engine.snapshot(), engine.open_snapshot("007").await.unwrap());
        let (now_elsewhere, then_elsewhere) = (other.snapshot(), other.open_snapshot("007").await.unwrap());
        let before = states.clone();
        let report = compact(&engine, true).await;
        // Those in this process are waited for.
        assert_eq!(contents(&now).await.unwrap(), before.now);
        assert_eq!(contents(&then).await.unwrap(), before.kept["007"]);
        drop((now, then));
        for _ in 0..20 {
            scatter_once(&engine, &mut dice, 1000, &mut states).await;
        }
        let after = compact(&engine, true).await;
        assert!(after.blobs_after < report.blobs_after, "{report:?}, then {after:?}");
        for (view, rows) in [(now_elsewhere, &before.now), (then_elsewhere, &before.kept["007"])] {
            match contents(&view).await {
                Err(Error::Expired) => {}
                Ok(seen) => assert_eq!(seen, *rows),
                Err(error) => panic!("{error}"),
            }
        }
        other.refresh().await.unwrap();
        states.assert_there(&other).await;
        states.assert_there(&engine).await;
    });
}

/// What it has chosen is another's by the time it has the lead.
#[test]
fn another_process_takes_and_removes_snapshots_between_its_commits() {
    block_on(async {
        let (mut bed, engine) =
            bed(8, BLOCK_BYTES, CrashOptions { yields: false, ..CrashOptions::object_store() }).await;
        engine.close().await.unwrap();
        bed.tuning = Tuning { reader_grace_millis: 0, moved_nodes_max: 60, ..bed.tuning };
        let engine = bed.open().await.unwrap();
        let mut dice = Dice::new(8);
        let mut states = scatter(&engine, &mut dice, 1000, 40).await;
        let other = bed.open().await.unwrap();
        let mut heard = 0;
        let mut progress = |_| {
            heard += 1;
            block_on(async {
                other.refresh().await.unwrap();
                match heard % 4 {
                    1 => {
                        let name = states.kept.keys().nth(heard).unwrap().clone();
                        states.forget(&other, &name).await;
                    }
                    3 => {
                        scatter_once(&other, &mut dice, 1000, &mut states).await;
                        states.keep(&other, &format!("of another {heard}")).await;
                    }
                    // Then what it has chosen is what it moves.
                    _ => {}
                }
            });
            heard < 30
        };
        let options = CompactOptions { progress: Some(&mut progress), ..CompactOptions::default() };
        engine.compact(options).await.unwrap();
        assert!(heard >= 4, "{heard}");
        engine.refresh().await.unwrap();
        states.assert_there(&engine).await;
        other.refresh().await.unwrap();
        states.assert_there(&other).await;
        compact(&engine, false).await;
        states.assert_there(&engine).await;
    });
}

async fn take_and_remove(engine: Engine, seed: u64, mut states: States) -> States {
    let mut dice = Dice::new(seed);
    for round in 0..16 {
        for _ in 0..dice.below(60) {
            yield_now().await;
        }
        engine.refresh().await.unwrap();
        match dice.below(4) {
            0 => states.keep(&engine, &format!("later {round}")).await,
            1 | 2 if !states.kept.is_empty() => {
                let names: Vec<String> = states.kept.keys().cloned().collect();
                states.forget(&engine, &names[dice.below(names.len() as u64) as usize]).await;
            }
            _ => scatter_once(&engine, &mut dice, 600, &mut states).await,
        }
    }
    states
}

async fn compact_often(engine: Engine) {
    for _ in 0..4 {
        match engine.compact(CompactOptions::default()).await {
            Ok(_) | Err(Error::Conflict | Error::Expired) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn snapshots_are_taken_and_removed_while_their_nodes_move() {
    simulate(24, |seed| {
        block_on(async {
            let options = if seed % 2 == 0 { CrashOptions::default() } else { CrashOptions::object_store() };
            let (mut bed, engine) = bed(seed, 16 << 10, CrashOptions { yields: true, ..options }).await;
            engine.close().await.unwrap();
            let moved_nodes_max = if seed % 3 == 0 { 40 } else { 100_000 };
            bed.tuning = Tuning { reader_grace_millis: 0, moved_nodes_max, ..bed.tuning };
            let engine = bed.open().await.unwrap();
            let states = scatter(&engine, &mut Dice::new(seed), 600, 20).await;
            // In the same process, or in another.
            let other = if seed % 4 < 2 { engine.clone() } else { bed.open().await.unwrap() };
            let (states, ()) = join(take_and_remove(other, seed, states), compact_often(engine.clone())).await;
            engine.refresh().await.unwrap();
            states.assert_there(&engine).await;
            drop(engine);
            bed.storage.crash(seed);
            let engine = bed.open().await.unwrap();
            states.assert_there(&engine).await;
        });
    });
}

#[test]
fn a_snapshot_that_cannot_be_read_keeps_no_compaction_from_its_work() {
    block_on(async {
        let (mut bed, engine) = bed(10, BLOCK_BYTES, quiet()).await;
        let states = scatter(&engine, &mut Dice::new(10), 1000, 30).await;
        let pristine: Vec<_> = bed.storage.snapshot_blobs().into_keys().collect();
        engine.close().await.unwrap();
        drop(engine);
        let image = bed.storage.snapshot_blobs();
        let mut hurt = 0;
        for name in &pristine {
            if hurt == 6 {
                break;
            }
            let mut without = image.clone();
            if without.remove(name).is_none() {
                continue;
            }
            bed.storage.restore(without);
            let Ok(engine) = bed.open().await else { continue };
            if contents(&engine.snapshot()).await.is_err() {
                continue;
            }
            let unreadable = unreadable(&engine, &states).await;
            if unreadable.is_empty() {
                continue;
            }
            hurt += 1;
            engine.compact(CompactOptions::default()).await.unwrap();
            assert_eq!(contents(&engine.snapshot()).await.unwrap(), states.now);
            assert_eq!(self::unreadable(&engine, &states).await, unreadable, "no other is hurt");
            engine.close().await.unwrap();
            drop(engine);
            // What was missing is there again, and so is all of it.
            let mut blobs = bed.storage.snapshot_blobs();
            blobs.insert(*name, image[name].clone());
            bed.storage.restore(blobs);
            let engine = bed.open().await.unwrap();
            states.assert_there(&engine).await;
        }
        assert_eq!(hurt, 6);
    });
}

/// The snapshots that do not show what they should.
async fn unreadable(engine: &Engine, states: &States) -> Vec<String> {
    let mut names = Vec::new();
    for (name, rows) in &states.kept {
        match contents(&engine.open_snapshot(name).await.unwrap()).await {
            Ok(seen) => assert_eq!(seen, *rows),
            Err(Error::Missing { .. } | Error::Damaged(_)) => names.push(name.clone()),
            Err(error) => panic!("{error}"),
        }
    }
    names
}

#[test]
fn however_little_room_there_is_a_compaction_beside_snapshots_loses_nothing() {
    block_on(async {
        for room in [0, 1, 2, 5, 9, 16, 30, 60] {
            let (mut bed, engine) = bed(11, BLOCK_BYTES, quiet()).await;
            let states = scatter(&engine, &mut Dice::new(11), 600, 24).await;
            bed.storage.set_capacity(Some(u64::from(BLOCK_BYTES) * (bed.storage.snapshot_blobs().len() as u64 + room)));
            let _ = engine.compact(CompactOptions::default()).await;
            states.assert_there(&engine).await;
            bed.storage.crash_with(Loss::Everything);
            drop(engine);
            bed.storage.set_capacity(None);
            let engine = bed.open().await.unwrap();
            states.assert_there(&engine).await;
            compact(&engine, false).await;
            states.assert_there(&engine).await;
        }
    });
}
