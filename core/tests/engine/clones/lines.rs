//! Clones and their source when each went its own way, and what somebody put where a clone is.

use std::sync::Arc;

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::Error;
use strongroom_core::engine::{CloneOptions, CloneProgress, Engine, OpenOptions, Unlock};
use strongroom_core::env::Env;
use strongroom_core::format::well_known::{HeaderId, is_hint_name};
use strongroom_core::storage::{Name, Storage};

use super::super::medium::Medium;
use super::super::support::{Bed, TABLE, assert_clean, get, put, tuning};
use super::{BLOCK_BYTES, all, clone, clone_with, data_blocks, look, mirror, open, payload, source, store, target_of};

#[test]
fn a_clone_that_went_its_own_way_is_left_as_it_is() {
    block_on(async {
        let (bed, engine) = source(30, CrashOptions::default()).await;
        let target = Medium::new(CrashOptions::default());
        clone(&engine, &target).await.unwrap();
        let second = open(&target, &bed, false).await.unwrap();
        put(&second, b"theirs", b"1").await.unwrap();
        second.close().await.unwrap();
        for rounds in [0, 1, 30] {
            for round in 0..rounds {
                put(&engine, b"ours", &[round]).await.unwrap();
            }
            let before = target.snapshot_blobs();
            let refused = mirror(&engine, &target).await;
            assert!(matches!(refused, Err(Error::Diverged { .. })), "{refused:?}");
            assert_eq!(target.snapshot_blobs(), before);
        }
        // Nor is a newer one taken back.
        let (bed, engine) = source(31, CrashOptions::default()).await;
        clone(&engine, &target_of(&bed)).await.map(drop).unwrap_err();
        let target = Medium::new(CrashOptions::default());
        let old = bed.storage.snapshot_blobs();
        put(&engine, b"newer", b"1").await.unwrap();
        clone(&engine, &target).await.unwrap();
        let replayed = Medium::new(CrashOptions::default());
        replayed.restore(old);
        let behind = open(&replayed, &bed, true).await.unwrap();
        let before = target.snapshot_blobs();
        assert!(matches!(mirror(&behind, &target).await, Err(Error::Diverged { .. })));
        assert_eq!(target.snapshot_blobs(), before);
    });
}

#[test]
fn what_storage_put_in_the_way_of_a_clone_does_not_become_part_of_it() {
    block_on(async {
        let (bed, engine) = source(35, CrashOptions::default()).await;
        let pattern = Medium::new(CrashOptions::default());
        clone(&engine, &pattern).await.unwrap();
        let target = Medium::new(CrashOptions::default());
        for (number, name) in data_blocks(&engine, &pattern).into_iter().enumerate() {
            let planted = match number % 4 {
                0 => Bytes::from(vec![7; BLOCK_BYTES as usize]),
                1 => Bytes::from(vec![7; BLOCK_BYTES as usize + 1]),
                2 => Bytes::new(),
                _ => pattern.snapshot_blobs()[&name].clone(),
            };
            target.put(name, planted).await.unwrap();
        }
        let foreign = Name::new([9; 16]);
        target.put(foreign, Bytes::from_static(b"somebody else's")).await.unwrap();
        let cloned = mirror(&engine, &target).await.unwrap();
        assert!(cloned.sent_blocks < cloned.blocks);
        assert_eq!(look(&target, &bed).await.unwrap(), all(&engine).await);
        assert!(target.size(foreign).await.is_ok());
        assert!(target.durable_blobs().len() >= cloned.blocks as usize + 4);
        // What rots there later is found by comparing, and put again.
        let names = data_blocks(&engine, &target);
        target.overwrite(names[1], Bytes::from(vec![8; BLOCK_BYTES as usize]));
        target.remove(names[2]);
        let options = CloneOptions { checksum: true, ..CloneOptions::default() };
        let cloned = clone_with(&engine, &target, options).await.unwrap();
        assert_eq!(cloned.sent_blocks, 2);
        assert_eq!(look(&target, &bed).await.unwrap(), all(&engine).await);
    });
}

/// A clone that was written to, and a source that went on: two lines of one repository.
async fn two_lines(seed: u64) -> (Bed, Engine, Medium) {
    let (bed, engine) = source(seed, CrashOptions::default()).await;
    let fork = Medium::new(CrashOptions::default());
    clone(&engine, &fork).await.unwrap();
    engine.close().await.unwrap();
    drop(engine);
    let mut options = OpenOptions::new(Unlock::Root(&bed.root));
    options.tuning = tuning();
    let engine = Engine::open(Arc::new(bed.storage.reopen()), Env::deterministic(1 << 50), options).await.unwrap();
    let second = open(&fork, &bed, false).await.unwrap();
    for key in 0..6 {
        store(&engine, 100 + key, u64::from(key)).await;
        store(&second, 200 + key, u64::from(key)).await;
    }
    second.checkpoint().await.unwrap();
    second.close().await.unwrap();
    (bed, engine, fork)
}

#[test]
fn of_two_sealings_of_one_block_none_takes_the_place_of_the_other() {
    block_on(async {
        let (bed, engine, fork) = two_lines(40).await;
        let good = Medium::new(CrashOptions::default());
        clone(&engine, &good).await.unwrap();
        let whole = look(&good, &bed).await.unwrap();
        let (ours, theirs) = (bed.storage.snapshot_blobs(), fork.snapshot_blobs());
        let swapped = data_blocks(&engine, &fork).into_iter().find(|name| {
            good.snapshot_blobs().contains_key(name) && ours.get(name).is_some_and(|blob| *blob != theirs[name])
        });
        if bed.storage.reopen().occupancy().is_some_and(|occupancy| occupancy.place().is_some()) {
            // Each claim numbers its blocks apart, so that no two lines give one name to two blocks.
            assert_eq!(swapped, None);
            return;
        }
        let swapped = swapped.expect("blocks of both lines have the same names");
        bed.storage.overwrite(swapped, theirs[&swapped].clone());
        engine.drop_caches();
        let options = CloneOptions { checksum: true, ..CloneOptions::default() };
        let told = clone_with(&engine, &good, options).await;
        assert!(matches!(&told, Err(Error::Damaged(damage)) if damage.blob == Some(swapped)), "{told:?}");
        assert_eq!(look(&good, &bed).await.unwrap(), whole);
    });
}

#[test]
fn a_repository_whose_header_is_kept_elsewhere_is_no_clone_that_was_cut_short() {
    block_on(async {
        let (bed, engine, fork) = two_lines(41).await;
        let whole = fork.snapshot_blobs();
        let is_header = |name: &Name| HeaderId::from_name(name.as_bytes()).is_some();
        for also_hints in [false, true] {
            fork.restore(whole.clone());
            for name in whole.keys().filter(|name| is_header(name) || also_hints && is_hint_name(name.as_bytes())) {
                fork.remove(*name);
            }
            let before = fork.snapshot_blobs();
            let refused = mirror(&engine, &fork).await;
            assert!(matches!(refused, Err(Error::Diverged { .. })), "{refused:?}");
            assert_eq!(fork.snapshot_blobs(), before);
        }
        // One that is such a clone gets its header.
        let target = Medium::new(CrashOptions::default());
        clone(&engine, &target).await.unwrap();
        let names = target.snapshot_blobs();
        names.keys().filter(|name| is_header(name)).for_each(|name| target.remove(*name));
        assert_eq!(clone(&engine, &target).await.unwrap().sent_blocks, 0);
        assert_eq!(look(&target, &bed).await.unwrap(), all(&engine).await);
    });
}

#[test]
fn a_clone_that_is_written_to_while_it_is_brought_up_to_date_keeps_what_was_acknowledged() {
    block_on(async {
        for options in [CrashOptions::default(), CrashOptions::object_store()] {
            let (bed, engine) = source(42, options.clone()).await;
            let target = Medium::new(options);
            clone(&engine, &target).await.unwrap();
            for key in 0..5 {
                store(&engine, 300 + key, 1).await;
            }
            let writer = open(&target, &bed, false).await.unwrap();
            // In the middle of the run, by a writer that was there before.
            let mut written = false;
            let mut hear = |_: CloneProgress| {
                if !std::mem::replace(&mut written, true) {
                    block_on(put(&writer, b"written", b"here")).unwrap();
                }
                true
            };
            let options = CloneOptions { progress: Some(&mut hear), ..CloneOptions::default() };
            let refused = clone_with(&engine, &target, options).await;
            assert!(matches!(refused, Err(Error::Diverged { .. })), "{refused:?}");
            writer.close().await.unwrap();
            let there = open(&target, &bed, true).await.unwrap();
            assert_clean(&there).await;
            assert_eq!(get(&there, b"written").await.unwrap().unwrap(), "here");
            drop(there);

            // One that writes only when it is over does so on what it has become.
            let target = Medium::new(CrashOptions::object_store());
            clone(&engine, &target).await.unwrap();
            let writer = open(&target, &bed, false).await.unwrap();
            store(&engine, 400, 1).await;
            clone(&engine, &target).await.unwrap();
            let written = writer.transact(async |t| t.put(TABLE, b"written later", b"here")).await;
            written.unwrap();
            writer.close().await.unwrap();
            let rows = look(&target, &bed).await.unwrap();
            assert_eq!(rows.get(400_u32.to_be_bytes().as_slice()).unwrap(), &payload(1, 6_000));
            assert_eq!(rows.get(b"written later".as_slice()).unwrap(), b"here");
        }
    });
}

#[test]
fn blocks_of_another_line_of_the_repository_revive_nothing() {
    block_on(async {
        for seed in 50..54 {
            let (bed, engine) = source(seed, CrashOptions::default()).await;
            engine.checkpoint().await.unwrap();
            let old = Medium::new(CrashOptions::default());
            old.restore(bed.storage.snapshot_blobs());
            engine.close().await.unwrap();
            drop(engine);
            // Here a few commits behind the checkpoint; there a few more, and a checkpoint that nothing hints at.
            let here = open(&bed.storage, &bed, false).await.unwrap();
            put(&here, b"new work", b"1").await.unwrap();
            let number = here.info().await.unwrap().sequence;
            drop(here);
            let there = open(&old, &bed, false).await.unwrap();
            while there.info().await.unwrap().sequence < number + seed - 49 {
                put(&there, b"old work", b"1").await.unwrap();
            }
            there.checkpoint().await.unwrap();
            drop(there);
            let ours = bed.storage.snapshot_blobs();
            for (name, blob) in old.snapshot_blobs() {
                if !ours.contains_key(&name) && !is_hint_name(name.as_bytes()) {
                    bed.storage.overwrite(name, blob);
                }
            }
            match open(&bed.storage, &bed, true).await {
                Ok(opened) => {
                    assert_eq!(get(&opened, b"new work").await.unwrap().unwrap(), "1", "{seed}");
                    assert!(get(&opened, b"old work").await.unwrap().is_none(), "{seed}");
                }
                Err(Error::Damaged(damage)) => assert!(damage.structure.starts_with("commit"), "{damage}"),
                Err(error) => panic!("{seed}: {error}"),
            }
        }
    });
}
