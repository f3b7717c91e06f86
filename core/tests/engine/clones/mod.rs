//! Clones: the same repository in another place, brought up to date from one whole state to the next.

mod lines;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_lite::future::{block_on, zip};
use strongroom_conformance::crash::{CrashOptions, Fault};
use strongroom_core::crypto::Suite;
use strongroom_core::engine::keyring::{self, Credentials, HeaderEdit, NewSlot};
use strongroom_core::engine::{
    CheckOptions, ChunkNumber, CloneOptions, CloneProgress, Cloned, Engine, OpenOptions, Unlock, View,
};
use strongroom_core::env::Env;
use strongroom_core::format::BlockId;
use strongroom_core::format::well_known::{HeaderId, is_hint_name};
use strongroom_core::storage::{ErrorKind, Name, Operation, Storage};
use strongroom_core::{Error, Result};

use super::medium::Medium;
use super::support::{Bed, TABLE, assert_clean, contents, get, put, tuning};

const BLOCK_BYTES: u32 = 4096;

fn payload(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(step).collect::<Vec<u8>>().into()
}

/// A chunk under a key, in place of the one that was there.
async fn store(engine: &Engine, key: u32, seed: u64) {
    let mut transaction = engine.begin();
    if let Some(row) = transaction.get(TABLE, &key.to_be_bytes()).await.unwrap() {
        transaction.release_chunk(ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap()))).unwrap();
    }
    let number = transaction.put_chunk(None, payload(seed, 6_000)).await.unwrap();
    transaction.put(TABLE, &key.to_be_bytes(), &number.0.to_le_bytes()).unwrap();
    transaction.commit().await.unwrap();
}

/// Every row, and what the chunks hold that rows name.
async fn all(engine: &Engine) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let view = engine.snapshot();
    let mut rows = contents(&view).await.unwrap();
    for (key, row) in &mut rows {
        if key.len() == 4 {
            let number = ChunkNumber(u64::from_le_bytes(row.as_slice().try_into().unwrap()));
            *row = view.chunk(number).await.unwrap().to_vec();
        }
    }
    rows
}

async fn source(seed: u64, options: CrashOptions) -> (Bed, Engine) {
    let (bed, engine) = Bed::new(seed, BLOCK_BYTES, Suite::Aes256Gcm, options).await;
    for key in 0..40 {
        store(&engine, key, u64::from(key)).await;
    }
    put(&engine, b"a row", &[7; 300]).await.unwrap();
    (bed, engine)
}

async fn clone_with(engine: &Engine, target: &Medium, options: CloneOptions<'_>) -> Result<Cloned> {
    engine.clone_to(Arc::new(target.reopen()), options).await
}

async fn clone(engine: &Engine, target: &Medium) -> Result<Cloned> {
    clone_with(engine, target, CloneOptions::default()).await
}

async fn mirror(engine: &Engine, target: &Medium) -> Result<Cloned> {
    clone_with(engine, target, CloneOptions { prune: true, ..CloneOptions::default() }).await
}

async fn open(storage: &Medium, bed: &Bed, read_only: bool) -> Result<Engine> {
    // Hints have random names: no two runs have the same.
    static SEED: AtomicU64 = AtomicU64::new(1 << 40);
    let env = Env::deterministic(SEED.fetch_add(1, Ordering::Relaxed));
    let mut options = OpenOptions::new(Unlock::Root(&bed.root));
    (options.tuning, options.read_only) = (tuning(), read_only);
    Engine::open(Arc::new(storage.reopen()), env, options).await
}

/// What a clone holds, without writing to it.
async fn look(storage: &Medium, bed: &Bed) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let engine = open(storage, bed, true).await?;
    assert_clean(&engine).await;
    Ok(all(&engine).await)
}

/// What a clone holds that may have died on the way from one state to the next, and lacks no more than the hint to that.
async fn look_after_death(storage: &Medium, bed: &Bed) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let engine = open(storage, bed, true).await?;
    let mut report = engine.check(CheckOptions { data: true, ..CheckOptions::default() }).await?;
    report.findings.retain(|finding| !finding.damage.detail.contains("bring it up to date again"));
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    Ok(all(&engine).await)
}

fn count(storage: &Medium) -> usize {
    storage.snapshot_blobs().len()
}

#[test]
fn a_clone_is_the_same_repository_in_another_place_and_lives_on() {
    block_on(async {
        let (bed, engine) = source(1, CrashOptions::default()).await;
        let target = Medium::new(CrashOptions::default());
        let mut told = Vec::new();
        let mut hear = |progress: CloneProgress| {
            told.push(progress);
            true
        };
        let options = CloneOptions { progress: Some(&mut hear), ..CloneOptions::default() };
        let cloned = clone_with(&engine, &target, options).await.unwrap();
        assert_eq!((cloned.sent_blocks, cloned.left_out.len()), (cloned.blocks, 0));
        assert_eq!(cloned.sent_bytes, cloned.blocks * u64::from(BLOCK_BYTES));
        let last = told.last().unwrap();
        assert_eq!((last.done_blocks, last.total_blocks), (cloned.blocks, cloned.blocks));
        // Blocks, the checkpoint, its hint and two copies of the header: nothing else, and all durable.
        assert_eq!(count(&target) as u64, cloned.blocks + 4);
        assert_eq!(target.durable_blobs(), target.snapshot_blobs());
        assert_eq!(look(&target, &bed).await.unwrap(), all(&engine).await);
        // By its password, and for writing.
        let credentials = Credentials::password("correct horse");
        let options = OpenOptions::new(Unlock::Credentials(&credentials));
        let second = Engine::open(Arc::new(target.reopen()), Env::deterministic(8), options).await.unwrap();
        assert_eq!(second.info().await.unwrap().repository, engine.info().await.unwrap().repository);
        store(&second, 3, 99).await;
        second.checkpoint().await.unwrap();
        second.close().await.unwrap();
        let lives = look(&target, &bed).await.unwrap();
        assert_eq!(lives.get(3_u32.to_be_bytes().as_slice()).unwrap(), &payload(99, 6_000));
        assert_clean(&engine).await;
    });
}

#[test]
fn a_mirror_gets_what_changed_and_is_never_larger_than_its_source() {
    block_on(async {
        for options in [CrashOptions::default(), CrashOptions::atomic(), CrashOptions::object_store()] {
            let (bed, engine) = source(2, options.clone()).await;
            let target = Medium::new(options);
            mirror(&engine, &target).await.unwrap();
            for round in 0..20 {
                for key in 0..3 {
                    store(&engine, (round * 3 + key) % 40, u64::from(1_000 + round * 3 + key)).await;
                }
                let cloned = mirror(&engine, &target).await.unwrap();
                assert!(cloned.sent_blocks < cloned.blocks / 2, "{cloned:?}");
                assert!(cloned.pruned_blobs > 0, "{cloned:?}");
                assert_eq!(count(&target) as u64, cloned.blocks + 4);
                assert!(count(&target) <= count(&bed.storage), "{round}");
                assert_eq!(look(&target, &bed).await.unwrap(), all(&engine).await);
            }
            assert_eq!(target.durable_blobs(), target.snapshot_blobs());
        }
    });
}

#[test]
fn where_nothing_changed_nothing_is_sent_and_nothing_is_written_to_the_source() {
    block_on(async {
        let (mut bed, engine) = source(3, CrashOptions::default()).await;
        let target = Medium::new(CrashOptions::default());
        clone(&engine, &target).await.unwrap();
        engine.close().await.unwrap();
        for _ in 0..3 {
            let engine = bed.open().await.unwrap();
            let before = (bed.storage.snapshot_blobs(), target.snapshot_blobs());
            let cloned = mirror(&engine, &target).await.unwrap();
            assert_eq!((cloned.sent_blocks, cloned.pruned_blobs), (0, 0));
            engine.close().await.unwrap();
            assert_eq!(bed.storage.snapshot_blobs(), before.0);
            // All but the hint, which is put anew.
            let rest = |blobs: BTreeMap<Name, Bytes>| -> BTreeSet<Name> {
                blobs.into_keys().filter(|name| !is_hint_name(name.as_bytes())).collect()
            };
            assert_eq!(rest(target.snapshot_blobs()), rest(before.1));
        }
        assert_eq!(look(&target, &bed).await.unwrap().len(), 41);
    });
}

#[test]
fn a_clone_that_is_taken_while_others_write_is_one_of_their_states() {
    block_on(async {
        for seed in 10..16 {
            let options = if seed % 2 == 0 { CrashOptions::default() } else { CrashOptions::object_store() };
            let (mut bed, engine) = source(seed, options.clone()).await;
            let other = bed.open().await.unwrap();
            let target = Medium::new(options);
            // Both keys are changed together, by this handle and by another process in turn.
            let write = async {
                for round in 0..60_u64 {
                    let writer = if round % 2 == 0 { &engine } else { &other };
                    writer.refresh().await.unwrap();
                    let stored = writer
                        .transact(async |transaction| {
                            for key in [b"left side".as_slice(), b"right side"] {
                                transaction.put(TABLE, key, &round.to_le_bytes())?;
                            }
                            Ok::<(), Error>(())
                        })
                        .await;
                    stored.unwrap();
                    store(&engine, (round % 40) as u32, 5_000 + round).await;
                    if round % 9 == 0 {
                        engine.compact(strongroom_core::engine::CompactOptions::default()).await.unwrap();
                    }
                }
            };
            let take = async {
                let mut seen = 0;
                for _ in 0..5 {
                    let cloned = mirror(&engine, &target).await.unwrap();
                    assert!(cloned.left_out.is_empty());
                    let rows = look(&target, &bed).await.unwrap();
                    assert_eq!(rows.get(b"left side".as_slice()), rows.get(b"right side".as_slice()));
                    assert!(cloned.sequence >= seen);
                    seen = cloned.sequence;
                }
            };
            zip(write, take).await;
            mirror(&engine, &target).await.unwrap();
            engine.refresh().await.unwrap();
            assert_eq!(look(&target, &bed).await.unwrap(), all(&engine).await);
        }
    });
}

#[test]
fn a_clone_that_dies_anywhere_is_none_yet_or_a_whole_state_and_the_next_run_ends_it() {
    block_on(async {
        let faults = [Fault::LostReply, Fault::LostRequest, Fault::NotDurable];
        for (number, fault) in (0_u64..).zip(faults) {
            let (bed, engine) = source(20 + number, CrashOptions::default()).await;
            let before = all(&engine).await;
            let first = Medium::new(CrashOptions::default());
            mirror(&engine, &first).await.unwrap();
            let (first_blobs, fresh) = (first.snapshot_blobs(), BTreeMap::new());
            // Once so few commits that the head is looked for across them, and once more.
            for key in 0..[1, 8, 2][number as usize] {
                store(&engine, key * 5, 800 + u64::from(key)).await;
            }
            let after = all(&engine).await;
            engine.checkpoint().await.unwrap();
            for (is_fresh, blobs) in [(true, &fresh), (false, &first_blobs)] {
                let mut calls = 1;
                loop {
                    let target = Medium::new(CrashOptions::default());
                    target.restore(blobs.clone());
                    let handle = target.reopen();
                    handle.cut_off_after(calls, fault);
                    let prune = CloneOptions { prune: calls % 2 == 0, ..CloneOptions::default() };
                    let died = engine.clone_to(Arc::new(handle.another()), prune).await;
                    target.crash(calls);
                    let case = format!("{fault:?} after {calls} calls, fresh: {is_fresh}");
                    match look_after_death(&target, &bed).await {
                        Ok(rows) if !is_fresh && rows == before => assert!(died.is_err(), "{case}"),
                        Ok(rows) => assert_eq!(rows, after, "{case}"),
                        Err(Error::NotARepository | Error::Damaged(_)) if is_fresh && died.is_err() => {}
                        Err(error) => panic!("{case}: {error}"),
                    }
                    mirror(&engine, &target).await.unwrap_or_else(|error| panic!("{case}: {error}"));
                    target.crash(calls + 1);
                    assert_eq!(look(&target, &bed).await.unwrap(), after, "{case}");
                    if died.is_ok() {
                        break;
                    }
                    calls += if is_fresh && calls > 12 { 7 } else { 1 };
                }
                assert!(calls > 10);
            }
        }
    });
}

#[test]
fn its_own_place_and_that_of_another_repository_are_refused() {
    block_on(async {
        for options in [CrashOptions::default(), CrashOptions::object_store()] {
            let (mut bed, engine) = source(32, options.clone()).await;
            // Another process is in the middle of something, which no state names yet.
            let busy = bed.open().await.unwrap();
            let mut open_work = busy.begin();
            let number = open_work.put_chunk(None, payload(1, 9_000)).await.unwrap();
            open_work.put(TABLE, &900_u32.to_be_bytes(), &number.0.to_le_bytes()).unwrap();
            for _ in 0..2 {
                let refused = mirror(&engine, &target_of(&bed)).await;
                assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
            }
            open_work.commit().await.unwrap();
            engine.refresh().await.unwrap();
            assert_clean(&engine).await;
            assert_eq!(all(&engine).await.get(900_u32.to_be_bytes().as_slice()).unwrap(), &payload(1, 9_000));

            let (other, second) = source(33, options).await;
            let before = other.storage.snapshot_blobs();
            assert!(matches!(mirror(&engine, &other.storage).await, Err(Error::AlreadyExists)));
            // Also while its header is kept elsewhere.
            for name in before.keys().filter(|name| HeaderId::from_name(name.as_bytes()).is_some()) {
                other.storage.remove(*name);
            }
            let before = other.storage.snapshot_blobs();
            assert!(matches!(mirror(&engine, &other.storage).await, Err(Error::AlreadyExists)));
            assert_eq!(other.storage.snapshot_blobs(), before);
            drop(second);
        }
    });
}

fn target_of(bed: &Bed) -> Medium {
    bed.storage.reopen()
}

/// The names of blocks of records.
fn data_blocks(engine: &Engine, storage: &Medium) -> Vec<Name> {
    let id = |name: &Name| BlockId::decode(&engine.keys().decrypt_name(*name.as_bytes()));
    let names = storage.snapshot_blobs().into_keys();
    names.filter(|name| matches!(id(name), Some(BlockId::Data { .. }))).collect()
}

#[test]
fn what_the_source_has_lost_is_told_and_left_out_only_where_that_is_asked_for() {
    block_on(async {
        let (bed, engine) = source(34, CrashOptions::default()).await;
        let target = Medium::new(CrashOptions::default());
        let kept = Medium::new(CrashOptions::default());
        engine.checkpoint().await.unwrap();
        let before = data_blocks(&engine, &bed.storage);
        store(&engine, 60, 1).await;
        let hurt = data_blocks(&engine, &bed.storage).into_iter().filter(|name| !before.contains(name));
        let whole = all(&engine).await;
        clone(&engine, &kept).await.unwrap();
        let mut blobs = bed.storage.snapshot_blobs();
        for (number, name) in hurt.enumerate() {
            if number % 2 == 0 {
                bed.storage.remove(name);
            } else {
                let mut bytes = blobs.remove(&name).unwrap().to_vec();
                bytes[2_000] ^= 1;
                bed.storage.overwrite(name, bytes.into());
            }
        }
        engine.drop_caches();
        let failed = clone(&engine, &target).await;
        assert!(matches!(failed, Err(Error::Damaged(_))), "{failed:?}");
        assert!(matches!(look(&target, &bed).await, Err(Error::NotARepository)));
        let partial = CloneOptions { partial: true, ..CloneOptions::default() };
        let cloned = clone_with(&engine, &target, partial).await.unwrap();
        assert!(cloned.left_out.len() > 1, "{cloned:?}");
        let engine_there = open(&target, &bed, true).await.unwrap();
        assert_eq!(get(&engine_there, b"a row").await.unwrap().unwrap(), vec![7; 300]);
        // A clone that has them already needs none of the source, and keeps them.
        put(&engine, b"one more", b"1").await.unwrap();
        let cloned = mirror(&engine, &kept).await.unwrap();
        assert!(cloned.left_out.is_empty());
        let mut now = look(&kept, &bed).await.unwrap();
        assert_eq!(now.remove(b"one more".as_slice()).unwrap(), b"1");
        assert_eq!(now, whole);
    });
}

#[test]
fn a_commit_that_a_dead_run_left_is_durable_before_anything_counts_on_it() {
    block_on(async {
        let (bed, engine) = source(43, CrashOptions::default()).await;
        let first = Medium::new(CrashOptions::default());
        clone(&engine, &first).await.unwrap();
        store(&engine, 500, 1).await;
        engine.checkpoint().await.unwrap();
        for calls in 1..200 {
            let target = Medium::new(CrashOptions::default());
            target.restore(first.snapshot_blobs());
            let handle = target.reopen();
            handle.cut_off_after(calls, Fault::NotDurable);
            let died = engine.clone_to(Arc::new(handle.another()), CloneOptions::default()).await;
            // The machine lives on, and the next run comes to its end; only then the power fails.
            handle.process_kill();
            mirror(&engine, &target.reopen()).await.unwrap();
            target.crash(calls);
            assert_eq!(look(&target, &bed).await.unwrap(), all(&engine).await, "after {calls} calls");
            if died.is_ok() {
                return;
            }
        }
        panic!("it never came to its end");
    });
}

#[test]
fn two_mirrors_of_a_source_that_rests_are_sent_nothing_and_cost_it_nothing() {
    block_on(async {
        let (mut bed, engine) = source(44, CrashOptions::default()).await;
        let mirrors = [(); 2].map(|()| Medium::new(CrashOptions::default()));
        engine.close().await.unwrap();
        drop(engine);
        for round in 0..4 {
            for target in &mirrors {
                let engine = bed.open().await.unwrap();
                let before = bed.storage.snapshot_blobs();
                let cloned = mirror(&engine, target).await.unwrap();
                engine.close().await.unwrap();
                if round > 0 {
                    assert_eq!(cloned.sent_blocks, 0);
                    assert_eq!(bed.storage.snapshot_blobs(), before);
                }
            }
        }
    });
}

#[test]
fn a_source_that_takes_nothing_more_is_cloned_as_it_is() {
    block_on(async {
        for kind in [ErrorKind::Full, ErrorKind::ReadOnly, ErrorKind::PermissionDenied] {
            let (mut bed, engine) = source(45, CrashOptions::default()).await;
            put(&engine, b"behind the checkpoint", b"1").await.unwrap();
            drop(engine);
            let engine = bed.open().await.unwrap();
            let handle = bed.storage.reopen();
            drop(handle);
            for operation in [Operation::Put, Operation::PutDurable, Operation::Apply] {
                for call in 1..40 {
                    bed.storage.fail_operation(operation, call, Fault::Refused(kind));
                }
            }
            let target = Medium::new(CrashOptions::default());
            clone(&engine, &target).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            bed.storage.clear_faults();
            assert_eq!(look(&target, &bed).await.unwrap(), all(&engine).await, "{kind:?}");
        }
    });
}

#[test]
fn a_password_that_was_changed_is_changed_in_the_clone() {
    block_on(async {
        let (bed, engine) = source(36, CrashOptions::default()).await;
        let target = Medium::new(CrashOptions::default());
        clone(&engine, &target).await.unwrap();
        let storage: Arc<dyn Storage> = Arc::new(bed.storage.another());
        let generation = keyring::read_headers(&storage).await.unwrap().next_generation();
        let (header, env) = (engine.header().await.unwrap(), Env::deterministic(generation));
        let edit = HeaderEdit { env: &env, header: &header, root: &bed.root, generation };
        let slot = NewSlot { credentials: &Credentials::password("battery staple"), label: "" };
        let header = edit.replace(0, &slot).await.unwrap();
        engine.change_header(&header).await.unwrap();
        mirror(&engine, &target).await.unwrap();
        for (password, is_right) in [("correct horse", false), ("battery staple", true)] {
            let credentials = Credentials::password(password);
            let mut options = OpenOptions::new(Unlock::Credentials(&credentials));
            options.read_only = true;
            let opened = Engine::open(Arc::new(target.reopen()), Env::deterministic(8), options).await;
            assert_eq!(opened.is_ok(), is_right, "{password}");
        }
        assert_eq!(look(&target, &bed).await.unwrap(), all(&engine).await);
    });
}

#[test]
fn a_source_that_is_only_read_is_cloned_without_being_written_to() {
    block_on(async {
        let (bed, engine) = source(37, CrashOptions::default()).await;
        let target = Medium::new(CrashOptions::default());
        for round in 0..4 {
            // A tail behind the checkpoint.
            put(&engine, b"round", &[round]).await.unwrap();
            store(&engine, 50 + u32::from(round), 1).await;
            let reader = open(&bed.storage, &bed, true).await.unwrap();
            let before = bed.storage.snapshot_blobs();
            let cloned = mirror(&reader, &target).await.unwrap();
            assert_eq!(bed.storage.snapshot_blobs(), before);
            assert_eq!(cloned.sequence, engine.info().await.unwrap().sequence);
            assert_eq!(look(&target, &bed).await.unwrap(), all(&engine).await);
        }
    });
}

#[test]
fn a_clone_can_be_asked_to_stop_and_a_full_storage_is_told() {
    block_on(async {
        let (bed, engine) = source(38, CrashOptions::default()).await;
        let target = Medium::new(CrashOptions::default());
        let mut hear = |progress: CloneProgress| progress.done_blocks < 10;
        let options = CloneOptions { progress: Some(&mut hear), ..CloneOptions::default() };
        assert!(matches!(clone_with(&engine, &target, options).await, Err(Error::Stopped)));
        let sent = count(&target) as u64;
        assert!(sent >= 10);
        target.set_capacity(Some(40 * u64::from(BLOCK_BYTES)));
        let full = clone(&engine, &target).await.unwrap_err();
        assert_eq!(full.storage_kind(), Some(ErrorKind::Full));
        target.set_capacity(None);
        let cloned = clone(&engine, &target).await.unwrap();
        assert!(cloned.sent_blocks < cloned.blocks - 9, "{cloned:?}, {sent}");
        assert_eq!(look(&target, &bed).await.unwrap(), all(&engine).await);
    });
}
