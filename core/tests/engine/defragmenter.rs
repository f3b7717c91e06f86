//! Defragmentation in the background: when it begins and ends, that it stays out of the way, and that nothing is lost.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::block_on;
use futures_lite::future::or;
use strongroom_conformance::between::{Before, Between};
use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Fault, Loss};
use strongroom_conformance::{Dice, simulate};
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{
    CheckOptions, ChunkNumber, CompactOptions, DefragmentOptions, DefragmentState, Defragmenter, Direction, Engine,
    OpenOptions, Snapshot, Table, Transaction, Tuning, Unlock, View,
};
use strongroom_core::env::{Env, ManualClock};
use strongroom_core::storage::{ErrorKind, Name, Operation, Result as StorageResult};
use strongroom_core::{Error, Result};

use crate::support::{Bed, assert_clean, is_full};

/// Rows whose value is the number of a chunk.
const CHUNKED: Table = Table(0x81);
const BLOCK_BYTES: u32 = 4096;
const MINUTE: Duration = Duration::from_secs(60);

/// What is there: key -> seed of its payload.
type Live = BTreeMap<u32, u64>;

/// Four to a block.
fn payload(seed: u64) -> Bytes {
    strongroom_conformance::storage::sample_bytes(seed, 800 + (seed % 100) as usize)
}

/// As fast as it can, in small steps.
pub(crate) fn options() -> DefragmentOptions {
    DefragmentOptions {
        start_percent: 40,
        stop_percent: 20,
        garbage_bytes_min: 0,
        bytes_per_second: u64::MAX,
        busy_percent: 100,
        step_chunks: 8,
        batch_bytes: 1,
        delay: Duration::ZERO,
    }
}

async fn bed(seed: u64, options: CrashOptions) -> Bed {
    let options = CrashOptions { page_names: 1000, ..options };
    let (bed, engine) = Bed::new(seed, BLOCK_BYTES, Suite::Aes256Gcm, options).await;
    engine.close().await.unwrap();
    drop(engine);
    // From here on whoever opens it is alone, and deletes at once.
    bed.storage.crash_with(Loss::Nothing);
    bed
}

async fn open(bed: &Bed, env: &Env) -> Engine {
    open_with(bed, env, false).await
}

async fn open_with(bed: &Bed, env: &Env, read_only: bool) -> Engine {
    try_open(bed, env, read_only).await.unwrap()
}

async fn try_open(bed: &Bed, env: &Env, read_only: bool) -> Result<Engine> {
    let mut options = OpenOptions::new(Unlock::Root(&bed.root));
    options.tuning = Tuning { checkpoint_commits: 40, ..Tuning::default() };
    options.read_only = read_only;
    Engine::open(Arc::new(bed.storage.reopen()), env.clone(), options).await
}

async fn set(transaction: &mut Transaction, key: u32, seed: Option<u64>) -> Result<()> {
    let key = key.to_be_bytes();
    if let Some(row) = transaction.get(CHUNKED, &key).await? {
        transaction.release_chunk(ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap())))?;
    }
    match seed {
        Some(seed) => {
            let number = transaction.put_chunk(None, payload(seed)).await?;
            transaction.put(CHUNKED, &key, &number.0.to_le_bytes())
        }
        None => transaction.delete(CHUNKED, &key),
    }
}

/// Keys from 0, many to a transaction, so that their payloads fill blocks.
async fn fill(engine: &Engine, keys: u32) -> Live {
    for first in (0..keys).step_by(60) {
        let mut transaction = engine.begin();
        for key in first..keys.min(first + 60) {
            set(&mut transaction, key, Some(key.into())).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
    (0..keys).map(|key| (key, key.into())).collect()
}

/// Removes every key that the test is not true of.
async fn thin(engine: &Engine, live: &mut Live, keeps: impl Fn(u32) -> bool) {
    let gone: Vec<u32> = live.keys().copied().filter(|key| !keeps(*key)).collect();
    for part in gone.chunks(60) {
        let mut transaction = engine.begin();
        for key in part {
            set(&mut transaction, *key, None).await.unwrap();
            live.remove(key);
        }
        transaction.commit().await.unwrap();
    }
}

async fn assert_holds(view: &Snapshot, live: &Live) {
    let mut scan = view.scan(CHUNKED, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
    let mut seen = 0;
    while let Some((key, row)) = scan.next().await.unwrap() {
        let seed = live[&u32::from_be_bytes(key.as_ref().try_into().unwrap())];
        let number = ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap()));
        assert_eq!(view.chunk(number).await.unwrap(), payload(seed));
        seen += 1;
    }
    assert_eq!(seen, live.len());
}

fn live_bytes(live: &Live) -> u64 {
    live.values().map(|seed| payload(*seed).len() as u64).sum()
}

/// Runs a script beside a defragmenter; for as long as the clock has something to do.
fn beside<T>(clock: &ManualClock, defragmenter: &Defragmenter, script: impl Future<Output = T>) -> T {
    let running = async {
        defragmenter.run().await;
        std::future::pending().await
    };
    // The task first: it goes on whenever it can.
    clock.run(or(pin!(running), pin!(script))).expect("neither waits for what does not come")
}

#[test]
fn it_begins_at_its_ratio_and_not_below_and_goes_on_to_its_goal_by_itself() {
    let (env, clock) = Env::manual(1);
    let (bed, engine, mut live) = block_on(async {
        let bed = bed(1, CrashOptions { yields: false, ..CrashOptions::default() }).await;
        let engine = open(&bed, &env).await;
        let mut live = fill(&engine, 400).await;
        // One of five is gone: two of five blocks' bytes are not.
        thin(&engine, &mut live, |key| key % 5 != 0).await;
        (bed, engine, live)
    });
    let defragmenter = engine.defragmenter(options()).unwrap();
    clock.run(defragmenter.idle()).unwrap();
    let status = defragmenter.status();
    assert_eq!((status.state, status.moved_bytes, status.given_back_blocks), (DefragmentState::Watching, 0, 0));
    assert!((10.0..40.0).contains(&status.garbage_percent()), "{status:?}");
    let before = bed.storage.snapshot_blobs().len();
    // Nobody tells it.
    beside(&clock, &defragmenter, async {
        thin(&engine, &mut live, |key| key % 4 == 1).await;
        env.sleep(MINUTE).await;
    });
    let status = defragmenter.status();
    assert!(status.garbage_percent() <= 20.0 && status.moved_bytes > 0, "{status:?}");
    assert!(status.moved_bytes <= live_bytes(&live) * 5 / 4, "{status:?}");
    assert!(status.last_error.is_none());
    let after = bed.storage.snapshot_blobs().len();
    assert!(after + 40 < before && status.given_back_blocks > 0, "{before} blobs, then {after}; {status:?}");
    block_on(async {
        assert_holds(&engine.snapshot(), &live).await;
        assert_clean(&engine).await;
        // There is nothing left that compaction would move.
        drop(defragmenter);
        let report = engine.compact(CompactOptions::default()).await.unwrap();
        assert!(report.moved_bytes < live_bytes(&live) / 4, "{report:?}");
    });
}

#[test]
fn a_repository_with_little_to_gain_is_left_alone() {
    let (env, clock) = Env::manual(2);
    let (engine, bed) = block_on(async {
        let bed = bed(2, CrashOptions { yields: false, ..CrashOptions::default() }).await;
        let engine = open(&bed, &env).await;
        let mut live = fill(&engine, 400).await;
        thin(&engine, &mut live, |key| key % 8 == 0).await;
        (engine, bed)
    });
    let calls = bed.storage.calls().mutating();
    let defragmenter = engine.defragmenter(DefragmentOptions::default()).unwrap();
    clock.run(defragmenter.idle()).unwrap();
    let delay = DefragmentOptions::default().delay;
    assert!((delay..2 * delay).contains(&clock.elapsed()), "it looks after a while, and no earlier");
    let status = defragmenter.status();
    assert!(status.garbage_percent() > 50.0 && status.moved_bytes == 0, "{status:?}");
    assert_eq!(bed.storage.calls().mutating(), calls);
}

/// A repository of which an eighth is left, all of it in sparse blocks.
async fn sparse(seed: u64, env: &Env, options: CrashOptions) -> (Bed, Engine, Live) {
    sparse_of(480, seed, env, options).await
}

async fn sparse_of(keys: u32, seed: u64, env: &Env, options: CrashOptions) -> (Bed, Engine, Live) {
    let bed = bed(seed, options).await;
    let engine = open(&bed, env).await;
    let mut live = fill(&engine, keys).await;
    thin(&engine, &mut live, |key| key % 8 == 3).await;
    (bed, engine, live)
}

#[test]
fn paused_it_moves_nothing_and_resumed_it_goes_on() {
    let (env, clock) = Env::manual(3);
    let (_bed, engine, live) =
        block_on(sparse_of(1280, 3, &env, CrashOptions { yields: false, ..CrashOptions::default() }));
    let defragmenter = engine.defragmenter(DefragmentOptions { bytes_per_second: 64 << 10, ..options() }).unwrap();
    beside(&clock, &defragmenter, async {
        while defragmenter.status().moved_bytes == 0 {
            env.sleep(Duration::from_millis(20)).await;
        }
        defragmenter.pause();
        env.sleep(MINUTE).await;
        let paused = defragmenter.status();
        assert_eq!(paused.state, DefragmentState::Paused);
        let calls = _bed.storage.calls().all();
        env.sleep(100 * MINUTE).await;
        assert_eq!(defragmenter.status().transferred_bytes, paused.transferred_bytes);
        assert_eq!(_bed.storage.calls().all(), calls);
        assert!(paused.moved_bytes < live_bytes(&live) / 2, "{paused:?}");
        defragmenter.resume();
        env.sleep(MINUTE).await;
        assert!(defragmenter.status().garbage_percent() <= 20.0, "{:?}", defragmenter.status());
        assert!(defragmenter.status().moved_bytes > paused.moved_bytes);
    });
    block_on(assert_holds(&engine.snapshot(), &live));
}

#[test]
fn it_keeps_to_its_budget_of_bytes() {
    let (env, clock) = Env::manual(4);
    let (_bed, engine, _) = block_on(sparse(4, &env, CrashOptions { yields: false, ..CrashOptions::default() }));
    let defragmenter = engine.defragmenter(DefragmentOptions { bytes_per_second: 64 << 10, ..options() }).unwrap();
    beside(&clock, &defragmenter, async {
        for second in 1..20_u64 {
            env.sleep(Duration::from_secs(1)).await;
            let done = defragmenter.status().transferred_bytes;
            // What is under way is on top: one block that is read, and what is copied of it.
            assert!(done <= second * (64 << 10) + 2 * u64::from(BLOCK_BYTES), "{done} bytes after {second} s");
        }
    });
    assert!(defragmenter.status().transferred_bytes > 256 << 10);
}

/// Each call takes its time, and notes when it began.
#[derive(Debug)]
struct Slow {
    clock: Arc<ManualClock>,
    began: Mutex<Vec<Duration>>,
}

const CALL: Duration = Duration::from_millis(5);

#[async_trait]
impl Before for Slow {
    async fn before(&self, _: Operation, _: Option<Name>) -> StorageResult<()> {
        self.began.lock().unwrap().push(self.clock.elapsed());
        self.clock.advance(CALL);
        Ok(())
    }
}

/// Opens it on such a storage, and notes nothing of that.
async fn open_slow(bed: &Bed, env: &Env, clock: &Arc<ManualClock>) -> (Arc<Between<CrashingStorage, Slow>>, Engine) {
    let slow = Slow { clock: clock.clone(), began: Mutex::default() };
    let storage = Arc::new(Between::new(bed.storage.reopen(), slow));
    let mut options = OpenOptions::new(Unlock::Root(&bed.root));
    options.tuning = Tuning { checkpoint_commits: 40, ..Tuning::default() };
    let engine = Engine::open(storage.clone(), env.clone(), options).await.unwrap();
    storage.hook().began.lock().unwrap().clear();
    (storage, engine)
}

#[test]
fn it_keeps_to_its_share_of_the_time() {
    for percent in [10, 25, 50] {
        let (env, clock) = Env::manual(11);
        let (bed, engine, live) =
            block_on(sparse_of(960, 11, &env, CrashOptions { yields: false, ..CrashOptions::default() }));
        block_on(engine.close()).unwrap();
        drop(engine);
        let (storage, engine) = block_on(open_slow(&bed, &env, &clock));
        let defragmenter = engine.defragmenter(DefragmentOptions { busy_percent: percent, ..options() }).unwrap();
        clock.run(defragmenter.idle()).expect("it comes to rest");
        let status = defragmenter.status();
        assert!(status.last_error.is_none() && status.garbage_percent() <= 20.0, "{status:?}");
        assert!(status.moved_bytes > live_bytes(&live) / 2 && status.given_back_blocks > 0, "{status:?}");

        let began = storage.hook().began.lock().unwrap().clone();
        let (mut worked, mut longest, mut rests) = (Duration::ZERO, Duration::ZERO, 0);
        // Since when it has not rested, and what it had worked by then.
        let mut since = (began[0], Duration::ZERO);
        for (call, next) in began.iter().zip(&began[1..]) {
            worked += CALL;
            if *next == *call + CALL {
                continue;
            }
            // It rested before the next one: for what it had just done, and so for all that it ever did.
            let (share, stretch) = (u32::from(percent), worked - since.1);
            assert!(stretch * 100 <= (*next - since.0) * share, "{stretch:?} of {:?}", *next - since.0);
            assert!(worked * 100 <= (*next - began[0]) * share, "{worked:?} of {:?}", *next - began[0]);
            longest = longest.max(stretch);
            since = (*next, worked);
            rests += 1;
        }
        let all = CALL * began.len() as u32;
        // It rests often, not once for much: at the latest after 64 deletions and what led to them; and so at the end.
        longest = longest.max(all - since.1);
        assert!(rests > 100 && longest <= CALL * 80, "{rests} rests, up to {longest:?} of {all:?}");
        // What it may take it takes.
        let elapsed = clock.elapsed() - began[0];
        assert!(worked * 110 >= elapsed * u32::from(percent), "{worked:?} of {elapsed:?}");
    }
}

#[test]
fn for_what_it_waited_for_readers_it_does_not_rest() {
    let (env, clock) = Env::manual(12);
    let (bed, engine, _) =
        block_on(sparse_of(960, 12, &env, CrashOptions { yields: false, ..CrashOptions::default() }));
    // It may look at what was.
    let _reader = block_on(open_with(&bed, &env, true));
    let defragmenter = engine.defragmenter(DefragmentOptions { busy_percent: 1, ..options() }).unwrap();
    clock.run(defragmenter.idle()).expect("it comes to rest");
    let before = defragmenter.status();
    assert!(before.last_error.is_none() && before.moved_bytes > 0, "{before:?}");
    let grace = Duration::from_millis(Tuning::default().reader_grace_millis);
    beside(&clock, &defragmenter, env.sleep(grace + MINUTE));
    // More than it deletes at once.
    let given_back = defragmenter.status().given_back_blocks - before.given_back_blocks;
    assert!(given_back > 100, "{given_back} blocks");
}

#[test]
fn one_is_at_work_at_a_time_for_those_who_may_write_and_ends_with_the_engine() {
    let (env, clock) = Env::manual(5);
    block_on(async {
        let bed = bed(5, CrashOptions { yields: false, ..CrashOptions::default() }).await;
        let engine = open(&bed, &env).await;
        let first = engine.defragmenter(options()).unwrap();
        assert!(matches!(engine.defragmenter(options()), Err(Error::Invalid(_))));
        drop(first);
        let second = engine.defragmenter(options()).unwrap();
        let reader = open_with(&bed, &env, true).await;
        assert!(matches!(reader.defragmenter(options()), Err(Error::ReadOnly)));
        for wrong in [
            DefragmentOptions { start_percent: 20, ..options() },
            DefragmentOptions { stop_percent: 0, ..options() },
            DefragmentOptions { start_percent: 100, ..options() },
            DefragmentOptions { busy_percent: 0, ..options() },
            DefragmentOptions { busy_percent: 101, ..options() },
            DefragmentOptions { step_chunks: 0, ..options() },
            DefragmentOptions { step_chunks: 4097, ..options() },
            DefragmentOptions { batch_bytes: 0, ..options() },
            DefragmentOptions { bytes_per_second: 1000, ..options() },
        ] {
            assert!(matches!(engine.defragmenter(wrong), Err(Error::Invalid(_))), "{wrong:?}");
        }
        engine.close().await.unwrap();
        clock.run(second.run()).expect("it ends with the engine");
        assert_eq!(second.status().state, DefragmentState::Ended);
        assert!(matches!(engine.defragmenter(options()), Err(Error::Closed)));
        // Stopped before it came to anything.
        let engine = open(&bed, &env).await;
        let third = engine.defragmenter(options()).unwrap();
        assert_eq!(third.stop().await.state, DefragmentState::Ended);
        third.resume();
        assert_eq!(third.status().state, DefragmentState::Ended);
    });
}

/// Every mutating call of a defragmentation is the last of its process once: nothing is lost, and what was moved is not moved
/// again by whoever comes next.
#[test]
fn cut_off_at_any_call_nothing_is_lost_and_nothing_is_moved_again() {
    let run = |seed: u64, cut: Option<u64>| -> (u64, bool) {
        let (env, clock) = Env::manual(seed);
        let options_of_medium = CrashOptions { yields: false, ..CrashOptions::default() };
        let (bed, engine, live) = block_on(async {
            let (bed, engine, live) = sparse(seed, &env, options_of_medium).await;
            engine.close().await.unwrap();
            let storage = bed.storage.reopen();
            let same = storage.another();
            let mut open = OpenOptions::new(Unlock::Root(&bed.root));
            open.tuning = Tuning { checkpoint_commits: 10, ..Tuning::default() };
            let engine = Engine::open(Arc::new(storage), env.clone(), open).await.unwrap();
            if let Some(cut) = cut {
                same.cut_off_after(cut, if cut % 2 == 0 { Fault::LostRequest } else { Fault::LostReply });
            }
            (bed, engine, live)
        });
        let defragmenter = engine.defragmenter(options()).unwrap();
        clock.run(defragmenter.idle()).expect("it comes to rest");
        let first = defragmenter.status();
        let was_cut = first.last_error.is_some();
        assert!(was_cut || first.garbage_percent() <= 20.0, "{first:?}");
        bed.storage.crash(seed + cut.unwrap_or_default());
        drop((defragmenter, engine));
        let engine = block_on(open(&bed, &env));
        block_on(assert_holds(&engine.snapshot(), &live));
        let defragmenter = engine.defragmenter(options()).unwrap();
        clock.run(defragmenter.idle()).expect("it comes to rest");
        let second = defragmenter.status();
        assert!(second.last_error.is_none(), "{second:?}");
        block_on(async {
            assert_holds(&engine.snapshot(), &live).await;
            assert_clean(&engine).await;
        });
        (first.moved_bytes + second.moved_bytes, was_cut)
    };
    let (whole, _) = run(6, None);
    let mut cut = 0;
    loop {
        let (moved, was_cut) = run(6, Some(cut));
        if !was_cut {
            break;
        }
        // What was copied and not committed, and what it left in blocks that are not full.
        let again = 8 * u64::from(BLOCK_BYTES);
        assert!(moved <= whole + again, "cut off after {cut} calls: {moved} bytes moved, {whole} would do");
        // Requests and replies in turn, either way.
        cut += if is_full() { 1 } else { 3 };
    }
    assert!(cut > 50, "a defragmentation has more calls than {cut}");
}

/// One who commits beside it waits for one of its commits at most, and everyone sees what the model says.
#[test]
fn a_commit_beside_it_comes_next_or_next_but_one() {
    let mut has_waited = 0;
    simulate(12, |seed| {
        let (env, clock) = Env::manual(seed);
        let (bed, engine, mut live) = block_on(sparse_of(960, seed, &env, CrashOptions::default()));
        let mut dice = Dice::new(seed);
        // Without rests they meet at every turn; with rests, when the clock says so.
        let rests = seed % 3 == 0;
        let bytes_per_second = if rests { 1 << 20 } else { u64::MAX };
        let pace = DefragmentOptions { bytes_per_second, step_chunks: 2, ..options() };
        let defragmenter = engine.defragmenter(pace).unwrap();
        let old = engine.snapshot();
        let was = live.clone();
        beside(&clock, &defragmenter, async {
            while defragmenter.status().moved_bytes == 0 {
                match rests {
                    true => env.sleep(Duration::from_millis(1)).await,
                    false => futures_lite::future::yield_now().await,
                }
            }
            for _ in 0..60 {
                let mut transaction = engine.begin();
                let mut next = live.clone();
                for _ in 0..1 + dice.below(4) {
                    let (key, seed) = (dice.below(500) as u32, dice.below(1000));
                    let seed = (dice.below(3) > 0).then_some(seed);
                    set(&mut transaction, key, seed).await.unwrap();
                    match seed {
                        Some(seed) => next.insert(key, seed),
                        None => next.remove(&key),
                    };
                }
                // Whatever it moves, it conflicts with nobody.
                let before = engine.snapshot().sequence();
                let committed = transaction.commit().await.unwrap().sequence;
                assert!(committed <= before + 2, "{} commits went before", committed - before - 1);
                has_waited += u64::from(committed == before + 2);
                live = next;
                for _ in 0..dice.below(20) {
                    futures_lite::future::yield_now().await;
                }
                if rests && dice.below(4) == 0 {
                    env.sleep(Duration::from_millis(dice.below(30))).await;
                }
            }
            assert_holds(&engine.snapshot(), &live).await;
            // An old view is not disturbed.
            assert_holds(&old, &was).await;
            drop(old);
            env.sleep(10 * MINUTE).await;
        });
        assert!(defragmenter.status().last_error.is_none(), "{:?}", defragmenter.status());
        block_on(async {
            assert_holds(&engine.snapshot(), &live).await;
            assert_clean(&engine).await;
            engine.close().await.unwrap();
            let engine = open(&bed, &env).await;
            assert_holds(&engine.snapshot(), &live).await;
        });
    });
    assert!(has_waited > 0, "nobody ever met it");
}

/// Snapshots, a reader of another process and a second writer, each with a defragmenter of its own.
#[test]
fn what_snapshots_and_others_look_at_moves_too_and_stays_whole() {
    simulate(6, |seed| {
        let (env, clock) = Env::manual(seed);
        let (bed, engine, mut live) = block_on(sparse(seed, &env, CrashOptions::default()));
        let kept = live.clone();
        let (other, reader, seen) = block_on(async {
            engine.create_snapshot("kept").await.unwrap();
            // Only the snapshot has these.
            thin(&engine, &mut live, |key| key % 16 == 3).await;
            (open(&bed, &env).await, open_with(&bed, &env, true).await, live.clone())
        });
        let view = reader.snapshot();
        let defragmenter = engine.defragmenter(options()).unwrap();
        let second = other.defragmenter(options()).unwrap();
        let mut dice = Dice::new(seed);
        let script = async {
            for round in 0..40 {
                let engine = if round % 2 == 0 { &engine } else { &other };
                let (key, seed) = (dice.below(500) as u32, dice.below(3).checked_sub(1).map(|_| dice.below(1000)));
                engine.transact(async |transaction: &mut Transaction| set(transaction, key, seed).await).await.unwrap();
                match seed {
                    Some(seed) => live.insert(key, seed),
                    None => live.remove(&key),
                };
                env.sleep(Duration::from_millis(dice.below(20))).await;
                assert_holds(&engine.open_snapshot("kept").await.unwrap(), &kept).await;
                // Its time is not over.
                assert_holds(&view, &seen).await;
            }
            // The reader's time, and a little more.
            env.sleep(30 * MINUTE).await;
        };
        let running = async {
            second.run().await;
            std::future::pending().await
        };
        beside(&clock, &defragmenter, or(pin!(running), pin!(script)));
        for defragmenter in [&defragmenter, &second] {
            let error = defragmenter.status().last_error;
            assert!(error.is_none(), "{error:?}");
        }
        let status = defragmenter.status();
        assert!(status.moved_bytes > 0 && status.given_back_blocks > 0, "{status:?}");
        block_on(async {
            for engine in [&engine, &other] {
                engine.refresh().await.unwrap();
                assert_holds(&engine.snapshot(), &live).await;
                assert_holds(&engine.open_snapshot("kept").await.unwrap(), &kept).await;
            }
            let report = engine.check(CheckOptions { data: true, ..CheckOptions::default() }).await.unwrap();
            assert!(report.findings.is_empty(), "{:#?}", report.findings);
        });
    });
}

#[test]
fn a_damaged_block_is_passed_by_and_told_and_the_others_are_emptied() {
    let (env, clock) = Env::manual(10);
    let (bed, engine, live) = block_on(sparse(10, &env, CrashOptions { yields: false, ..CrashOptions::default() }));
    block_on(engine.close()).unwrap();
    drop(engine);
    // Blobs of which an eighth is live are read by nobody who opens it; those of nodes and commits are.
    let engine = block_on(open(&bed, &env));
    let names: Vec<_> = bed.storage.snapshot_blobs().into_keys().collect();
    let mut damaged = 0;
    for name in names {
        let sound = bed.storage.snapshot_blobs()[&name].clone();
        bed.storage.overwrite(name, Bytes::from(vec![0; sound.len()]));
        // One that holds a payload, and nothing else.
        let opens = block_on(async {
            let view = try_open(&bed, &env, true).await?.snapshot();
            let mut scan = view.scan(CHUNKED, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
            let mut failures = 0;
            while let Some((_, row)) = scan.next().await? {
                let number = ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap()));
                failures += u32::from(view.chunk(number).await.is_err());
            }
            Ok::<_, Error>(failures)
        });
        if matches!(opens, Ok(1)) {
            damaged += 1;
            break;
        }
        bed.storage.overwrite(name, sound);
    }
    assert_eq!(damaged, 1, "some block holds one payload that is live");
    let defragmenter = engine.defragmenter(options()).unwrap();
    clock.run(defragmenter.idle()).unwrap();
    let status = defragmenter.status();
    assert!(matches!(status.last_error, Some(Error::Damaged(_))), "{status:?}");
    assert!(status.garbage_percent() <= 25.0 && status.moved_bytes > live_bytes(&live) / 2, "{status:?}");
}

#[test]
fn on_a_full_storage_it_rests_harms_nothing_and_goes_on_when_there_is_room() {
    let (env, clock) = Env::manual(9);
    let (bed, engine, live) = block_on(sparse(9, &env, CrashOptions { yields: false, ..CrashOptions::default() }));
    let held: u64 = bed.storage.snapshot_blobs().values().map(|blob| blob.len() as u64).sum();
    bed.storage.set_capacity(Some(0));
    let defragmenter = engine.defragmenter(options()).unwrap();
    clock.run(defragmenter.idle()).unwrap();
    let status = defragmenter.status();
    let error = status.last_error.clone().unwrap();
    assert_eq!(error.storage_kind(), Some(ErrorKind::Full), "{status:?}");
    let after: u64 = bed.storage.snapshot_blobs().values().map(|blob| blob.len() as u64).sum();
    assert!(after <= held, "what it could not commit it takes back");
    beside(&clock, &defragmenter, async {
        assert_holds(&engine.snapshot(), &live).await;
        bed.storage.set_capacity(Some(held));
        env.sleep(120 * MINUTE).await;
    });
    let status = defragmenter.status();
    assert!(status.last_error.is_none() && status.garbage_percent() <= 20.0, "{status:?}");
    block_on(async {
        assert_holds(&engine.snapshot(), &live).await;
        assert_clean(&engine).await;
    });
}
