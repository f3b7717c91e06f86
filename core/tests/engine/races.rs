//! What happens between two awaits: futures dropped in the middle, writers that sleep, blocks that several share.

use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::{block_on, poll_once};
use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Fault};
use strongroom_core::crypto::{RootSecret, Suite};
use strongroom_core::engine::{CheckOptions, Engine, OpenOptions, Table, Tuning, Unlock, View as _};
use strongroom_core::env::Env;
use strongroom_core::format::BlockId;
use strongroom_core::storage::{
    Capabilities, Change, ExclusiveGuard, Name, Operation, Put, Result as StorageResult, Storage,
};
use strongroom_core::{Error, Result};

use crate::support::{Bed, TABLE, assert_clean, contents, get, put};

/// Rows whose value is the number of a chunk.
pub(crate) const CHUNKED: Table = Table(0x81);

/// Superseded states expire at once, and nothing but a call makes a checkpoint.
pub(crate) fn hasty() -> Tuning {
    Tuning { checkpoint_commits: 1000, close_commits: 1000, reader_grace_millis: 0, ..Tuning::default() }
}

pub(crate) async fn bed(seed: u64, options: CrashOptions) -> (Bed, Engine) {
    let (mut bed, engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, options).await;
    drop(engine);
    bed.tuning = hasty();
    let engine = bed.open().await.unwrap();
    (bed, engine)
}

/// A handle that has the medium for itself, whoever else looks at it for the test.
#[derive(Debug)]
pub(crate) struct Alone(pub(crate) CrashingStorage);

struct Guard;

impl ExclusiveGuard for Guard {}

#[async_trait]
impl Storage for Alone {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    async fn put(&self, name: Name, bytes: Bytes) -> StorageResult<Put> {
        self.0.put(name, bytes).await
    }
    async fn put_durable(&self, name: Name, bytes: Bytes) -> StorageResult<Put> {
        self.0.put_durable(name, bytes).await
    }
    async fn get(&self, name: Name, range: Option<std::ops::Range<u64>>, max_bytes: u64) -> StorageResult<Bytes> {
        self.0.get(name, range, max_bytes).await
    }
    async fn size(&self, name: Name) -> StorageResult<u64> {
        self.0.size(name).await
    }
    async fn delete(&self, name: Name) -> StorageResult<()> {
        self.0.delete(name).await
    }
    async fn list(&self, prefix: &[u8], after: Option<Name>) -> StorageResult<Vec<Name>> {
        self.0.list(prefix, after).await
    }
    async fn apply(&self, batch: Vec<Change>) -> StorageResult<Vec<Put>> {
        self.0.apply(batch).await
    }
    async fn sync(&self) -> StorageResult<()> {
        self.0.sync().await
    }
    async fn persist(&self, names: &[Name]) -> StorageResult<()> {
        self.0.persist(names).await
    }
    fn occupancy(&self) -> Option<std::sync::Arc<strongroom_core::storage::Occupancy>> {
        self.0.occupancy()
    }

    async fn try_exclusive(&self) -> StorageResult<Option<Box<dyn ExclusiveGuard>>> {
        Ok(Some(Box::new(Guard)))
    }
}

pub(crate) async fn open_on(storage: Arc<dyn Storage>, root: &RootSecret, seed: u64) -> Result<Engine> {
    let mut options = OpenOptions::new(Unlock::Root(root));
    // Without a cache of nodes, so that what was deleted cannot be read.
    options.tuning = Tuning { node_cache_bytes_max: 0, ..hasty() };
    Engine::open(storage, Env::deterministic(seed << 40), options).await
}

async fn open_alone(bed: &Bed, seed: u64) -> Engine {
    open_on(Arc::new(Alone(bed.storage.reopen())), &bed.root, seed).await.unwrap()
}

/// Polls so often, then drops the future; its output where it was done by then.
pub(crate) async fn cancel_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Some(done) = poll_once(future.as_mut()).await {
            return Some(done);
        }
    }
    None
}

fn commit_name(engine: &Engine, sequence: u64) -> Name {
    let id = BlockId::Commit { key_epoch: engine.keys().newest_epoch(), sequence };
    Name::new(engine.keys().encrypt_name(id.encode()))
}

pub(crate) async fn counter(engine: &Engine) -> u64 {
    get(engine, b"n").await.unwrap().map_or(0, |row| u64::from_le_bytes(row.as_ref().try_into().unwrap()))
}

async fn add(engine: &Engine) -> Result<()> {
    let mut transaction = engine.begin();
    transaction.add(TABLE, b"n", 1).await?;
    transaction.commit().await.map(|_| ())
}

#[test]
fn a_leader_dropped_in_the_middle_neither_loses_nor_doubles_the_commit_of_another() {
    block_on(async {
        for polls in 0.. {
            let (mut bed, engine) = bed(polls, CrashOptions::default()).await;
            put(&engine, b"epoch", b"").await.unwrap();
            let mut follower = Box::pin(add(&engine));
            let done = {
                let mut leader = Box::pin(add(&engine));
                // The leader first, so that it leads; then the other is in its group or in the next.
                assert!(poll_once(&mut leader).await.is_none());
                let mut done = poll_once(&mut follower).await.is_some();
                for _ in 0..polls {
                    done = poll_once(&mut leader).await.is_some();
                    if done {
                        break;
                    }
                }
                done
            };
            follower.await.unwrap();
            let mine = counter(&engine).await;
            assert!((1..=2).contains(&mine), "{mine} after {polls} polls");
            let mut fresh = engine.begin();
            fresh.put(TABLE, b"next", b"").unwrap();
            fresh.commit().await.unwrap();
            let settled = counter(&engine).await;
            assert!(settled <= 2, "{settled} after {polls} polls");
            drop(engine);
            let engine = bed.open().await.unwrap();
            assert_eq!(counter(&engine).await, settled);
            assert_clean(&engine).await;
            if done {
                break;
            }
        }
    });
}

#[test]
fn a_follower_whose_leader_was_dropped_is_told_the_truth() {
    block_on(async {
        for polls in 0..200 {
            let (_bed, engine) = bed(polls, CrashOptions::default()).await;
            put(&engine, b"epoch", b"").await.unwrap();
            let (mut first, mut second) = (engine.begin(), engine.begin());
            first.put(TABLE, b"first", b"").unwrap();
            second.put(TABLE, b"second", b"").unwrap();
            let mut follower = Box::pin(second.commit());
            {
                let mut leader = Box::pin(first.commit());
                // Both are in the queue before one leads: the lock is taken by who comes first.
                assert!(poll_once(&mut leader).await.is_none());
                let _ = poll_once(&mut follower).await;
                for _ in 0..polls {
                    if poll_once(&mut leader).await.is_some() {
                        break;
                    }
                }
            }
            let answer = follower.await;
            let there = get(&engine, b"second").await.unwrap().is_some();
            assert_eq!(answer.is_ok(), there, "{answer:?} after {polls} polls");
        }
    });
}

#[test]
fn a_group_is_settled_once_though_its_leader_was_dropped() {
    block_on(async {
        for polls in 0..120 {
            let (_bed, engine) = bed(polls, CrashOptions::default()).await;
            put(&engine, b"epoch", b"").await.unwrap();
            // One holds the lead with a commit under way, two wait; the second leads the third, and is dropped.
            let mut one = Box::pin(add(&engine));
            let _ = poll_once(&mut one).await;
            let _ = poll_once(&mut one).await;
            let mut two = Box::pin(add(&engine));
            let mut three = Box::pin(add(&engine));
            let _ = poll_once(&mut two).await;
            let _ = poll_once(&mut three).await;
            let _ = poll_once(&mut two).await;
            let _ = poll_once(&mut three).await;
            one.await.unwrap();
            for _ in 0..polls {
                if poll_once(&mut two).await.is_some() {
                    break;
                }
            }
            drop(two);
            three.await.unwrap();
            add(&engine).await.unwrap();
            let seen = counter(&engine).await;
            assert!((3..=4).contains(&seen), "{seen} after {polls} polls");
        }
    });
}

#[test]
fn a_block_condemned_while_an_open_transaction_has_records_in_it_takes_nothing_along() {
    block_on(async {
        let (mut bed, engine) = bed(7, CrashOptions::default()).await;
        put(&engine, b"epoch", b"").await.unwrap();
        let small = |byte: u8| Bytes::from(vec![byte; 700]);
        let big = Bytes::from(vec![9; 5000]);
        let (mut one, mut two) = (engine.begin(), engine.begin());
        // Large ones first, so that the small ones go into blocks too, and share one.
        one.put_chunk(None, big.clone()).await.unwrap();
        two.put_chunk(None, big.clone()).await.unwrap();
        let first = one.put_chunk(None, small(1)).await.unwrap();
        let second = two.put_chunk(None, small(2)).await.unwrap();
        one.commit().await.unwrap();
        let mut release = engine.begin();
        release.release_chunk(first).unwrap();
        release.commit().await.unwrap();
        let committed = two.commit().await;
        for _ in 0..4 {
            put(&engine, b"x", b"").await.unwrap();
            engine.checkpoint().await.unwrap();
        }
        match committed {
            Ok(_) => assert_eq!(engine.snapshot().chunk(second).await.unwrap(), small(2)),
            Err(Error::Conflict) => {}
            Err(error) => panic!("{error}"),
        }
        assert_clean(&engine).await;
        drop(engine);
        assert_clean(&bed.open().await.unwrap()).await;
    });
}

#[test]
fn shared_blocks_condemned_by_another_process_and_deleted_void_the_transaction() {
    block_on(async {
        let (mut bed, engine) = bed(8, CrashOptions::default()).await;
        put(&engine, b"epoch", b"").await.unwrap();
        let other = bed.open().await.unwrap();
        for rounds in [0, 1, 4] {
            let (mut one, mut two) = (engine.begin(), engine.begin());
            one.put_chunk(None, Bytes::from(vec![9; 5000])).await.unwrap();
            two.put_chunk(None, Bytes::from(vec![8; 5000])).await.unwrap();
            let mut firsts = Vec::new();
            for _ in 0..3 {
                firsts.push(one.put_chunk(None, Bytes::from(vec![1; 700])).await.unwrap());
            }
            let second = two.put_chunk(None, Bytes::from(vec![2; 700])).await.unwrap();
            one.commit().await.unwrap();
            other.refresh().await.unwrap();
            let mut release = other.begin();
            for first in firsts {
                release.release_chunk(first).unwrap();
            }
            release.commit().await.unwrap();
            for _ in 0..rounds {
                put(&other, b"x", b"").await.unwrap();
                other.checkpoint().await.unwrap();
                engine.refresh().await.unwrap();
            }
            match two.commit().await {
                Ok(_) => assert_eq!(engine.snapshot().chunk(second).await.unwrap(), vec![2; 700]),
                Err(Error::Conflict) => {}
                Err(error) => panic!("{error}"),
            }
            engine.refresh().await.unwrap();
            assert_clean(&engine).await;
        }
    });
}

#[test]
fn what_was_put_under_an_ended_epoch_is_not_committed_under_the_next() {
    block_on(async {
        let (bed, engine) = bed(9, CrashOptions::default()).await;
        drop(engine);
        // Two engines on one handle: each believes to be alone, and ends the epoch of the other.
        let storage: Arc<dyn Storage> = Arc::new(Alone(bed.storage.reopen()));
        let one = open_on(storage.clone(), &bed.root, 1).await.unwrap();
        let mut long = one.begin();
        let first = long.put_chunk(None, Bytes::from(vec![1; 9000])).await.unwrap();
        // Its blocks are in storage, and nothing names them yet.
        let mut flusher = one.begin();
        flusher.put_chunk(None, Bytes::from(vec![2; 9000])).await.unwrap();
        flusher.commit().await.unwrap();
        let two = open_on(storage, &bed.root, 2).await.unwrap();
        put(&two, b"two", b"").await.unwrap();
        one.refresh().await.unwrap();
        for _ in 0..3 {
            let _ = put(&one, b"one", b"").await;
        }
        let result = match long.put_chunk(None, Bytes::from(vec![3; 9000])).await {
            Ok(_) => long.commit().await.map(|_| ()),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => assert_eq!(one.snapshot().chunk(first).await.unwrap(), vec![1; 9000]),
            Err(error) => assert!(matches!(error, Error::Conflict), "{error}"),
        }
        assert_clean(&one).await;
    });
}

#[test]
fn a_stray_beside_a_half_done_deletion_misleads_nobody() {
    block_on(async {
        let (mut bed, sleeper) = bed(10, CrashOptions::default()).await;
        put(&sleeper, b"epoch", b"").await.unwrap();
        let reader = bed.open_with(|options| options.read_only = true).await.unwrap();
        let asleep_at = sleeper.snapshot().sequence();
        // Another sleeper at the same place, in a process of its own.
        let second = bed.open().await.unwrap();
        let at = second.snapshot().sequence();
        assert_eq!(at, asleep_at);
        // It claims its epoch on a copy of the medium: what it puts there is the stray of later.
        let before = bed.storage.snapshot_blobs();
        put(&second, b"stray", b"").await.unwrap();
        let stray_name = commit_name(&second, at + 1);
        let stray = bed.storage.snapshot_blobs()[&stray_name].clone();
        drop(second);
        bed.storage.restore(before);
        let other = bed.open().await.unwrap();
        for number in 0..6_u8 {
            put(&other, &[number], b"real").await.unwrap();
        }
        other.checkpoint().await.unwrap();
        let real = contents(&other.snapshot()).await.unwrap();
        // Deletion has come as far as the commit after the one where all slept, and the stray lands there.
        for sequence in 1..=at + 1 {
            bed.storage.remove(commit_name(&other, sequence));
        }
        bed.storage.overwrite(stray_name, stray);
        for engine in [&reader, &sleeper] {
            let refreshed = engine.refresh().await;
            assert!(refreshed.is_ok(), "{refreshed:?}");
            assert_eq!(contents(&engine.snapshot()).await.unwrap(), real);
        }
        put(&sleeper, b"on", b"").await.unwrap();
        assert_eq!(contents(&bed.open().await.unwrap().snapshot()).await.unwrap().len(), real.len() + 1);
    });
}

#[test]
fn spilled_deltas_stay_as_long_as_the_only_hint_leads_through_them() {
    block_on(async {
        for calls in 0..40 {
            let (mut bed, engine) = bed(100 + calls, CrashOptions::default()).await;
            drop(engine);
            let engine = open_alone(&bed, calls).await;
            // The ballast is there from now on.
            engine.checkpoint().await.unwrap();
            let mut large = engine.begin();
            for number in 0..100_u32 {
                large.put(TABLE, &number.to_be_bytes(), &[7; 100]).unwrap();
            }
            large.commit().await.unwrap();
            // The checkpoint stands, its hint does not come into being.
            bed.storage.fail_operation(
                Operation::PutDurable,
                2,
                Fault::Refused(strongroom_core::storage::ErrorKind::Full),
            );
            assert!(engine.checkpoint().await.is_err());
            bed.storage.clear_faults();
            drop(engine);
            // The next process dies at some call of the next checkpoint.
            let storage = bed.storage.reopen();
            let control = storage.another();
            let engine = open_on(Arc::new(Alone(storage)), &bed.root, 1000 + calls).await.unwrap();
            put(&engine, b"more", b"").await.unwrap();
            control.cut_off_after(calls, Fault::LostRequest);
            let done = engine.checkpoint().await.is_ok();
            drop(engine);
            bed.storage.crash(calls);
            let engine = bed.open().await.unwrap_or_else(|error| panic!("after {calls} calls: {error}"));
            assert_eq!(contents(&engine.snapshot()).await.unwrap().len(), 101);
            assert_clean(&engine).await;
            put(&engine, b"next", b"").await.unwrap();
            if done {
                break;
            }
        }
    });
}

#[test]
fn a_commit_put_anew_after_its_deletion_does_not_fool_a_writer_asleep_on_it() {
    block_on(async {
        let (mut bed, one) = bed(11, CrashOptions::object_store()).await;
        put(&one, b"epoch", b"").await.unwrap();
        let sleeper = bed.open().await.unwrap();
        put(&sleeper, b"epoch of the sleeper", b"").await.unwrap();
        let other = bed.open().await.unwrap();
        put(&other, b"epoch of the other", b"").await.unwrap();
        one.refresh().await.unwrap();
        // The reply is lost, and so is every look afterwards: the fate of this commit stays open.
        for call in 1..=3 {
            bed.storage.fail_operation(Operation::PutDurable, call, Fault::LostReply);
            bed.storage.fail_operation(Operation::Get, call, Fault::LostRequest);
        }
        assert!(matches!(put(&one, b"open", b"").await, Err(Error::CommitUnknown { .. })));
        bed.storage.clear_faults();
        sleeper.refresh().await.unwrap();
        other.refresh().await.unwrap();
        assert!(get(&sleeper, b"open").await.unwrap().is_some());
        for number in 0..6_u8 {
            put(&other, &[number], b"").await.unwrap();
        }
        for _ in 0..3 {
            other.checkpoint().await.unwrap();
            put(&other, b"x", b"").await.unwrap();
        }
        // The first settles what is open, and must not leave the deleted commit in storage again.
        while !matches!(put(&one, b"after", b"").await, Ok(())) {
            one.refresh().await.unwrap();
        }
        let slept = put(&sleeper, b"slept", b"").await;
        let fresh = bed.open().await.unwrap();
        assert_eq!(slept.is_ok(), get(&fresh, b"slept").await.unwrap().is_some(), "{slept:?}");
        assert!(get(&fresh, b"after").await.unwrap().is_some());
        assert_clean(&fresh).await;
    });
}

#[test]
fn a_snapshot_taken_while_a_commit_is_under_way_outlives_the_deletion() {
    block_on(async {
        for polls in 0..60 {
            let (bed, engine) = bed(200 + polls, CrashOptions::default()).await;
            drop(engine);
            let engine = open_alone(&bed, polls).await;
            let payload = Bytes::from(vec![5; 9000]);
            let mut transaction = engine.begin();
            let number = transaction.put_chunk(None, payload.clone()).await.unwrap();
            transaction.commit().await.unwrap();
            engine.checkpoint().await.unwrap();
            put(&engine, b"changed", b"").await.unwrap();
            // The checkpoint raises the floor to itself, as far as it sees readers; one comes while it is being put.
            let mut checkpoint = Box::pin(engine.checkpoint());
            let mut finished = false;
            for _ in 0..polls {
                finished = poll_once(&mut checkpoint).await.is_some();
                if finished {
                    break;
                }
            }
            let snapshot = engine.snapshot();
            let before = contents(&snapshot).await.unwrap();
            if !finished {
                checkpoint.await.unwrap();
            }
            let mut release = engine.begin();
            release.release_chunk(number).unwrap();
            release.commit().await.unwrap();
            for round in 0..4_u8 {
                put(&engine, &[round], b"x").await.unwrap();
                engine.checkpoint().await.unwrap();
            }
            assert_eq!(contents(&snapshot).await.unwrap(), before, "{polls} polls");
            assert_eq!(snapshot.chunk(number).await.unwrap(), payload, "{polls} polls");
        }
    });
}

#[test]
fn two_chunks_of_one_identity_are_no_damage() {
    block_on(async {
        let (_bed, engine) = bed(12, CrashOptions::default()).await;
        let payload = Bytes::from(vec![5; 100]);
        let identity = engine.identity(&payload);
        let (mut one, mut two) = (engine.begin(), engine.begin());
        let first = one.put_chunk(Some(identity), payload.clone()).await.unwrap();
        let second = two.put_chunk(Some(identity), payload.clone()).await.unwrap();
        one.commit().await.unwrap();
        two.commit().await.unwrap();
        assert_clean(&engine).await;
        let mut release = engine.begin();
        release.release_chunk(first).unwrap();
        release.commit().await.unwrap();
        assert_eq!(engine.snapshot().chunk(second).await.unwrap(), payload);
        assert_clean(&engine).await;
        let mut again = engine.begin();
        let third = again.put_chunk(Some(identity), payload.clone()).await.unwrap();
        again.commit().await.unwrap();
        assert_eq!(engine.snapshot().chunk(third).await.unwrap(), payload);
        assert_clean(&engine).await;
    });
}

#[test]
fn a_creation_that_was_cut_short_can_be_repeated() {
    use strongroom_core::crypto::KdfParameters;
    use strongroom_core::engine::CreateOptions;
    use strongroom_core::engine::keyring::Credentials;
    block_on(async {
        for calls in 0..20 {
            let storage = CrashingStorage::new(CrashOptions::default());
            let credentials = Credentials::password("x");
            let create = CreateOptions {
                credentials: &credentials,
                recovery: None,
                suite: Suite::Aes256Gcm,
                block_bytes: 4096,
                kdf: KdfParameters::MINIMUM,
                trusted: None,
                tuning: Tuning::default(),
            };
            storage.cut_off_after(calls, Fault::LostRequest);
            let done =
                Engine::create(Arc::new(storage.another()), Env::deterministic(calls), create.clone()).await.is_ok();
            storage.crash(calls);
            let opened = Engine::open(
                Arc::new(storage.reopen()),
                Env::deterministic(1 << 20),
                OpenOptions::new(Unlock::Credentials(&credentials)),
            )
            .await;
            let engine = match opened {
                Ok(engine) => engine,
                Err(Error::NotARepository) => {
                    assert!(!done);
                    Engine::create(Arc::new(storage.reopen()), Env::deterministic(2 << 20), create)
                        .await
                        .unwrap_or_else(|error| panic!("{calls} calls: {error}"))
                }
                Err(error) => panic!("after {calls} calls: {error}"),
            };
            put(&engine, b"a", b"1").await.unwrap();
            engine.checkpoint().await.unwrap();
            let report =
                engine.check(CheckOptions { data: true, references: None, ..CheckOptions::default() }).await.unwrap();
            // Of an earlier attempt a commit may be left, and a copy of the header may be missing: nothing else.
            for finding in report.findings {
                assert!(matches!(finding.damage.structure, "blob" | "header"), "after {calls} calls: {finding:?}");
            }
            if done {
                break;
            }
        }
    });
}

#[test]
fn a_close_that_was_dropped_can_be_repeated() {
    block_on(async {
        for polls in 0.. {
            let (mut bed, engine) = bed(300 + polls as u64, CrashOptions::default()).await;
            put(&engine, b"a", b"1").await.unwrap();
            let mut aborted = engine.begin();
            aborted.put_chunk(None, Bytes::from(vec![1; 9000])).await.unwrap();
            drop(aborted);
            let done = cancel_after(polls, engine.close()).await.is_some();
            engine.close().await.unwrap();
            let engine = bed.open_with(|options| options.read_only = true).await.unwrap();
            assert_eq!(get(&engine, b"a").await.unwrap().unwrap(), "1");
            // The claim at which an engine is created was dropped with that engine, before it made one.
            assert_eq!(engine.info().await.unwrap().open_epochs, 0, "after {polls} polls");
            assert_clean(&engine).await;
            if done {
                break;
            }
        }
    });
}

#[test]
fn blocks_of_a_dead_writer_are_swept_though_the_sweep_was_cut_short() {
    block_on(async {
        for calls in 0..12 {
            let (bed, engine) = bed(400 + calls, CrashOptions::default()).await;
            drop(engine);
            let dead = open_alone(&bed, 1).await;
            let mut open = dead.begin();
            open.put_chunk(None, Bytes::from(vec![1; 16_000])).await.unwrap();
            // Another one's commit takes its blocks to storage.
            let mut other = dead.begin();
            other.put_chunk(None, Bytes::from(vec![2; 16_000])).await.unwrap();
            other.put_chunk(None, Bytes::from(vec![3; 16_000])).await.unwrap();
            other.commit().await.unwrap();
            drop((open, dead));
            let storage = bed.storage.reopen();
            let control = storage.another();
            let engine = open_on(Arc::new(Alone(storage)), &bed.root, 2).await.unwrap();
            control.cut_off_after(calls, Fault::LostRequest);
            let _ = put(&engine, b"b", b"").await;
            drop(engine);
            control.process_kill();
            let engine = open_alone(&bed, 3).await;
            put(&engine, b"c", b"").await.unwrap();
            let report =
                engine.check(CheckOptions { data: true, references: None, ..CheckOptions::default() }).await.unwrap();
            assert!(report.findings.is_empty(), "{:?}", report.findings);
            assert!(report.notices.is_empty(), "after {calls} calls: {:?}", report.notices);
        }
    });
}

#[test]
fn many_dead_writers_do_not_keep_the_next_from_claiming() {
    block_on(async {
        let (mut bed, engine) = bed(13, CrashOptions::object_store()).await;
        drop(engine);
        for number in 0..400_u32 {
            let engine = bed.open().await.unwrap();
            put(&engine, b"last", &number.to_be_bytes()).await.unwrap();
            if number % 100 == 0 {
                engine.checkpoint().await.unwrap();
            }
        }
        let engine = open_alone(&bed, 1).await;
        put(&engine, b"alive", b"").await.unwrap();
        assert_clean(&engine).await;
    });
}
