use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::crash::{CrashOptions, Fault};
use strongroom_core::Error;
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{CheckOptions, CheckReport, ChunkNumber, Repaired, View};
use strongroom_core::format::well_known::is_hint_name;
use strongroom_core::storage::{Name, Operation, Storage as _};

use super::support::{Bed, TABLE, assert_clean, contents, get, put};

#[test]
fn what_was_committed_is_there_after_reopening() {
    block_on(async {
        for (suite, block_bytes) in
            [(Suite::Aes256Gcm, 4096), (Suite::XChaCha20Poly1305, 16384), (Suite::Aes256Gcm, 1 << 20)]
        {
            let (mut bed, engine) = Bed::new(1, block_bytes, suite, CrashOptions::default()).await;
            for number in 0..40_u32 {
                put(&engine, &number.to_be_bytes(), &vec![number as u8; number as usize]).await.unwrap();
            }
            assert_clean(&engine).await;
            engine.close().await.unwrap();
            assert!(matches!(put(&engine, b"late", b"").await, Err(Error::Closed)));
            drop(engine);
            let engine = bed.open().await.unwrap();
            assert_clean(&engine).await;
            assert_eq!(contents(&engine.snapshot()).await.unwrap().len(), 40);
            assert_eq!(get(&engine, &7_u32.to_be_bytes()).await.unwrap().unwrap(), vec![7; 7]);
            for blob in bed.storage.snapshot_blobs().values() {
                assert_eq!(blob.len(), block_bytes as usize);
            }
        }
    });
}

/// Blocks that the engine keeps for a full disk.
const BALLAST: usize = 4;
/// How many blocks of ballast a closed repository of the smallest blocks has.
const BALLAST_WHOLE: usize = 7;

#[test]
fn a_dropped_transaction_leaves_nothing_behind() {
    block_on(async {
        let (mut bed, engine) = Bed::new(2, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        put(&engine, b"a", b"1").await.unwrap();
        let before = bed.storage.snapshot_blobs().len();
        {
            let mut transaction = engine.begin();
            transaction.put(TABLE, b"a", b"2").unwrap();
            for _ in 0..20 {
                transaction.put_chunk(None, Bytes::from(vec![1; 10_000])).await.unwrap();
            }
        }
        assert_eq!(get(&engine, b"a").await.unwrap().unwrap(), "1");
        engine.close().await.unwrap();
        let engine = bed.open().await.unwrap();
        assert_clean(&engine).await;
        let after = bed.storage.snapshot_blobs().len();
        assert!(after <= before + 2 + BALLAST, "{before} blobs became {after}");
    });
}

#[test]
fn chunks_are_shared_by_identity_and_freed_with_their_last_reference() {
    block_on(async {
        let (mut bed, engine) = Bed::new(3, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        let payload = |byte: u8| Bytes::from(vec![byte; 9000]);
        let identity = engine.identity(&payload(1));
        let mut first = engine.begin();
        let number = first.put_chunk(Some(identity), payload(1)).await.unwrap();
        assert_eq!(first.put_chunk(Some(identity), payload(1)).await.unwrap(), number);
        assert_eq!(first.chunk(number).await.unwrap(), payload(1));
        first.commit().await.unwrap();
        let mut second = engine.begin();
        assert_eq!(second.find_chunk(&identity).await.unwrap(), Some(number));
        second.commit().await.unwrap();
        assert_eq!(engine.snapshot().chunk(number).await.unwrap(), payload(1));
        let old = engine.snapshot();
        for _ in 0..3 {
            let mut release = engine.begin();
            release.release_chunk(number).unwrap();
            release.commit().await.unwrap();
        }
        let mut again = engine.begin();
        assert_eq!(again.find_chunk(&identity).await.unwrap(), None);
        assert_eq!(old.chunk(number).await.unwrap(), payload(1), "an older state keeps what it shows");
        drop((again, old));
        let mut release = engine.begin();
        release.release_chunk(number).unwrap();
        // It was gone before this began: no other run of it would find it.
        assert!(matches!(release.commit().await, Err(Error::Damaged(_))), "what is condemned is never revived");
        let mut retain = engine.begin();
        retain.retain_chunk(number).unwrap();
        assert!(matches!(retain.commit().await, Err(Error::ContentGone)), "nor is it shared");
        engine.close().await.unwrap();
        let engine = bed.open().await.unwrap();
        assert!(engine.snapshot().chunk(number).await.is_err());
        assert!(engine.snapshot().chunk(ChunkNumber(77)).await.is_err());
        assert_clean(&engine).await;
    });
}

#[test]
fn overlapping_transactions_conflict_and_disjoint_ones_do_not() {
    block_on(async {
        let (_bed, engine) = Bed::new(4, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        put(&engine, b"a", b"1").await.unwrap();
        let (mut one, mut two, mut three, mut four) = (engine.begin(), engine.begin(), engine.begin(), engine.begin());
        one.get(TABLE, b"a").await.unwrap();
        one.put(TABLE, b"b", b"from one").unwrap();
        two.put(TABLE, b"a", b"2").unwrap();
        three.put(TABLE, b"c", b"3").unwrap();
        three.add(TABLE, b"n", 5).await.unwrap();
        four.add(TABLE, b"n", 7).await.unwrap();
        two.commit().await.unwrap();
        assert!(matches!(one.commit().await, Err(Error::Conflict)));
        three.commit().await.unwrap();
        four.commit().await.unwrap();
        assert_eq!(get(&engine, b"n").await.unwrap().unwrap().as_ref(), 12_u64.to_le_bytes());
        assert_eq!(get(&engine, b"b").await.unwrap(), None);
    });
}

#[test]
fn concurrent_transactions_share_a_commit() {
    block_on(async {
        let (_bed, engine) = Bed::new(5, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        put(&engine, b"first", b"").await.unwrap();
        let before = engine.snapshot().sequence();
        let commits = (0..32_u32).map(|number| {
            let engine = engine.clone();
            async move { put(&engine, &number.to_be_bytes(), b"x").await }
        });
        for result in futures_util::future::join_all(commits).await {
            result.unwrap();
        }
        let used = engine.snapshot().sequence() - before;
        assert!(used <= 3, "{used} commits for 32 transactions at once");
    });
}

#[test]
fn a_commit_larger_than_a_block_spills_and_reads_back() {
    block_on(async {
        let (mut bed, engine) = Bed::new(6, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        let mut transaction = engine.begin();
        for number in 0..5000_u32 {
            transaction.put(TABLE, &number.to_be_bytes(), &[7; 100]).unwrap();
        }
        transaction.commit().await.unwrap();
        drop(engine);
        bed.storage.process_kill();
        let engine = bed.open().await.unwrap();
        assert_eq!(contents(&engine.snapshot()).await.unwrap().len(), 5000);
        assert_clean(&engine).await;
        put(&engine, b"more", b"").await.unwrap();
        engine.checkpoint().await.unwrap();
        assert_clean(&engine).await;
        engine.close().await.unwrap();
        let engine = bed.open().await.unwrap();
        assert_eq!(contents(&engine.snapshot()).await.unwrap().len(), 5001);
        assert_clean(&engine).await;
    });
}

#[test]
fn after_a_failed_barrier_nothing_that_it_should_have_covered_is_committed() {
    block_on(async {
        let (mut bed, engine) = Bed::new(7, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        put(&engine, b"first", b"").await.unwrap();
        let (mut one, mut other) = (engine.begin(), engine.begin());
        for transaction in [&mut one, &mut other] {
            let number = transaction.put_chunk(None, Bytes::from(vec![1; 9_000])).await.unwrap();
            transaction.put(TABLE, &number.0.to_le_bytes(), b"").unwrap();
        }
        bed.storage.fail_operation(Operation::Sync, 1, Fault::NotDurable);
        assert!(matches!(one.commit().await, Err(Error::Storage(_))));
        assert!(matches!(other.commit().await, Err(Error::Conflict)), "a later sync proves nothing");
        let mut again = engine.begin();
        let number = again.put_chunk(None, Bytes::from(vec![2; 9_000])).await.unwrap();
        again.put(TABLE, b"again", &number.0.to_le_bytes()).unwrap();
        again.commit().await.unwrap();
        engine.close().await.unwrap();
        let engine = bed.open().await.unwrap();
        assert_eq!(contents(&engine.snapshot()).await.unwrap().len(), 2);
        assert_eq!(engine.info().await.unwrap().open_epochs, 0);
        assert_clean(&engine).await;
    });
}

#[test]
fn a_blob_that_is_nobodys_is_kept_and_told_and_is_no_damage() {
    block_on(async {
        let (mut bed, engine) = Bed::new(8, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        engine.close().await.unwrap();
        let planted = Name::new([0xa5; 16]);
        bed.storage.overwrite(planted, Bytes::from_static(b"of another program"));
        let engine = bed.open().await.unwrap();
        put(&engine, b"a", b"1").await.unwrap();
        engine.checkpoint().await.unwrap();
        let report =
            engine.check(CheckOptions { data: true, references: None, ..CheckOptions::default() }).await.unwrap();
        assert!(report.findings.is_empty(), "{report:#?}");
        assert!(report.notices.iter().any(|notice| notice.contains("none of this")), "{report:#?}");
        engine.close().await.unwrap();
        assert!(bed.storage.snapshot_blobs().contains_key(&planted));
    });
}

#[test]
fn closing_after_a_full_disk_gives_back_what_the_failed_transaction_took() {
    block_on(async {
        let (mut bed, engine) = Bed::new(9, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        put(&engine, b"small", b"1").await.unwrap();
        let before = bed.storage.snapshot_blobs().len();
        bed.storage.set_capacity(Some(4096 * (before as u64 + 20)));
        let mut large = engine.begin();
        let mut failed = false;
        for byte in 0..60 {
            failed |= large.put_chunk(None, Bytes::from(vec![byte; 9_000])).await.is_err();
        }
        assert!(failed || large.commit().await.is_err());
        engine.close().await.unwrap();
        let after = bed.storage.snapshot_blobs().len();
        assert!(after <= before + 3 + BALLAST, "{before} blobs became {after}");
        let engine = bed.open().await.unwrap();
        let mut transaction = engine.begin();
        transaction.delete(TABLE, b"small").unwrap();
        transaction.commit().await.unwrap();
        assert_clean(&engine).await;
    });
}

#[test]
fn a_writer_makes_up_for_a_hint_that_a_cut_short_creation_did_not_put() {
    block_on(async {
        let (mut bed, engine) = Bed::new(10, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        drop(engine);
        for name in bed.storage.snapshot_blobs().keys().filter(|name| is_hint_name(name.as_bytes())) {
            bed.storage.remove(*name);
        }
        let engine = bed.open().await.unwrap();
        put(&engine, b"a", b"1").await.unwrap();
        assert_clean(&engine).await;
    });
}

#[test]
fn missing_ballast_is_told_and_no_damage_and_ballast_that_was_changed_is() {
    block_on(async {
        let (mut bed, engine) = Bed::new(20, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        put(&engine, b"a", b"1").await.unwrap();
        engine.close().await.unwrap();
        let whole = bed.storage.snapshot_blobs();
        let mut ballast = Vec::new();
        for name in whole.keys() {
            bed.storage.remove(*name);
            let Ok(engine) = bed.open_with(|options| options.read_only = true).await else {
                bed.storage.restore(whole.clone());
                continue;
            };
            for data in [false, true] {
                let report =
                    engine.check(CheckOptions { data, references: None, ..CheckOptions::default() }).await.unwrap();
                if report.notices.iter().any(|notice| notice.contains("ballast: 1 ") && notice.contains(&name.to_hex()))
                {
                    assert!(report.findings.is_empty(), "{report:#?}");
                    ballast.push(*name);
                }
            }
            bed.storage.restore(whole.clone());
        }
        ballast.dedup();
        assert_eq!(ballast.len(), BALLAST_WHOLE);

        let mut changed = whole[&ballast[0]].to_vec();
        changed[100] ^= 1;
        for wrong in [Bytes::from(changed), whole[&ballast[1]].clone()] {
            bed.storage.overwrite(ballast[0], wrong);
            let engine = bed.open_with(|options| options.read_only = true).await.unwrap();
            let report =
                engine.check(CheckOptions { data: true, references: None, ..CheckOptions::default() }).await.unwrap();
            assert!(report.findings.iter().any(|finding| finding.damage.blob == Some(ballast[0])), "{report:#?}");

            // It held nothing: a repair puts another, at once, and no more than that.
            let engine = bed.open().await.unwrap();
            assert_eq!(engine.repair(&report).await.unwrap(), Repaired { ballast: 1, ..Repaired::default() });
            assert_clean(&engine).await;
            let after = bed.storage.snapshot_blobs();
            assert!(!after.contains_key(&ballast[0]) && after.len() >= whole.len(), "one was deleted, and one put");
            assert_eq!(engine.repair(&report).await.unwrap(), Repaired::default());
            drop(engine);
            bed.storage.restore(whole.clone());
        }
        bed.storage.remove(ballast[0]);
        // The next writer puts another.
        let engine = bed.open().await.unwrap();
        put(&engine, b"b", b"2").await.unwrap();
        engine.close().await.unwrap();
        let engine = bed.open().await.unwrap();
        let report =
            engine.check(CheckOptions { data: true, references: None, ..CheckOptions::default() }).await.unwrap();
        assert!(report.findings.is_empty() && report.notices.is_empty(), "{report:#?}");
    });
}

#[test]
fn a_blob_of_another_length_is_found_without_its_data_where_it_costs_little_to_ask() {
    block_on(async {
        for options in [CrashOptions::default(), CrashOptions::object_store()] {
            let (mut bed, engine) = Bed::new(21, 4096, Suite::Aes256Gcm, options).await;
            let finds = !bed.storage.is_remote();
            let mut transaction = engine.begin();
            let number = transaction.put_chunk(None, Bytes::from(vec![7; 2_000])).await.unwrap();
            transaction.put(TABLE, b"uses", &number.0.to_le_bytes()).unwrap();
            transaction.commit().await.unwrap();
            engine.checkpoint().await.unwrap();
            engine.close().await.unwrap();
            let whole = bed.storage.snapshot_blobs();
            let (mut readable, mut noticed) = (0, 0);
            for (name, blob) in &whole {
                let longer = [blob.as_ref(), &[0]].concat();
                for changed in [Bytes::from(longer), blob.slice(..blob.len() - 1)] {
                    bed.storage.overwrite(*name, changed);
                    if let Ok(engine) = bed.open_with(|options| options.read_only = true).await {
                        let sizes = bed.storage.calls().of(Operation::Size);
                        let report = engine.check(CheckOptions::default()).await.unwrap();
                        assert_eq!(bed.storage.calls().of(Operation::Size) > sizes, finds);
                        let is_named = |report: &CheckReport| {
                            report.findings.iter().any(|finding| finding.damage.blob == Some(*name))
                        };
                        // What waits to be deleted is nobody's concern, however long it is.
                        let whole = engine
                            .check(CheckOptions { data: true, references: None, ..CheckOptions::default() })
                            .await
                            .unwrap();
                        assert!(is_named(&report) || !finds || !is_named(&whole), "{name:?}: {report:#?}");
                        noticed += u32::from(is_named(&report));
                        readable += 1;
                    }
                    bed.storage.restore(whole.clone());
                }
            }
            assert!(readable > 4 && (noticed > readable / 2 || !finds), "{noticed} of {readable}");
            let engine = bed.open_with(|options| options.read_only = true).await.unwrap();
            let report = engine.check(CheckOptions::default()).await.unwrap();
            assert!(report.findings.is_empty() && report.notices.is_empty(), "{report:#?}");
        }
    });
}

/// Says when it is gone.
struct Held(Arc<AtomicBool>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_a_transaction_keeps_goes_when_it_is_known_what_became_of_it() {
    block_on(async {
        let options = CrashOptions { yields: true, ..CrashOptions::default() };
        let (bed, engine) = Bed::new(15, 4096, Suite::Aes256Gcm, options).await;
        let keeping = |key: &[u8]| {
            let gone = Arc::new(AtomicBool::new(false));
            let mut transaction = engine.begin();
            transaction.put(TABLE, key, b"1").unwrap();
            transaction.keep_until_settled(Held(gone.clone()));
            (transaction, move || gone.load(Ordering::Relaxed))
        };
        let (given_up, is_gone) = keeping(b"a");
        drop(given_up);
        assert!(is_gone());
        let (answered, is_gone) = keeping(b"b");
        answered.commit().await.unwrap();
        assert!(is_gone());
        let ((first, first_is_gone), (refused, refused_is_gone)) = (keeping(b"c"), keeping(b"c"));
        first.commit().await.unwrap();
        assert!(matches!(refused.commit().await, Err(Error::Conflict)) && first_is_gone() && refused_is_gone());

        // Dropped wherever it waits: it is settled by the next, and until then is there.
        let mut was_left = 0;
        for polls in 1.. {
            let key = format!("dropped {polls}");
            let (dropped, is_gone) = keeping(key.as_bytes());
            let mut commit = Box::pin(dropped.commit());
            let mut ended = None;
            for _ in 0..polls {
                ended = futures_lite::future::poll_once(commit.as_mut()).await;
                if ended.is_some() {
                    break;
                }
            }
            drop(commit);
            was_left += u32::from(!is_gone());
            engine.settle().await.unwrap();
            assert!(is_gone(), "dropped at {polls}");
            if let Some(ended) = ended {
                ended.unwrap();
                break;
            }
        }
        assert!(was_left > 0, "none was left in the air");

        // Nobody knows.
        let mut unknown = 0;
        for seed in 0..60 {
            let key = format!("unknown {seed}");
            let (lost, is_gone) = keeping(key.as_bytes());
            bed.storage.fail_at_random(seed, 1_000);
            let answer = lost.commit().await;
            if matches!(answer, Err(Error::CommitUnknown { .. })) {
                unknown += 1;
                assert!(!is_gone(), "seed {seed}");
                assert!(engine.settle().await.is_err() || is_gone());
            }
            bed.storage.clear_faults();
            engine.settle().await.unwrap();
            assert!(is_gone(), "seed {seed}");
        }
        assert!(unknown > 5, "of {unknown} nobody knew");
        assert_clean(&engine).await;
    });
}
