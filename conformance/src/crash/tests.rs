use std::pin::pin;

use futures_lite::future::{block_on, poll_once, zip};
use strongroom_core::storage::StorageExt as _;

use super::*;

const A: Name = Name::new([0xaa; 16]);
const B: Name = Name::new([0xbb; 16]);

fn fresh() -> CrashingStorage {
    CrashingStorage::new(CrashOptions::default())
}

fn bytes(length: usize) -> Bytes {
    (1..=length).map(|place| (place % 250 + 1) as u8).collect()
}

#[test]
fn what_no_barrier_covered_may_be_whole_torn_or_absent_and_each_happens() {
    let (mut whole, mut torn, mut absent) = (0, 0, 0);
    for seed in 0..200 {
        let storage = fresh();
        block_on(storage.put(A, bytes(3000))).unwrap();
        storage.crash(seed);
        match storage.snapshot_blobs().get(&A) {
            None => absent += 1,
            Some(blob) if *blob == bytes(3000) => whole += 1,
            Some(blob) => {
                assert!(blob.len() <= 3000);
                torn += 1;
            }
        }
    }
    assert!(whole > 10 && torn > 10 && absent > 10, "{whole} {torn} {absent}");
}

#[test]
fn the_same_seed_leaves_the_same_image() {
    let run = |seed| {
        let storage = fresh();
        block_on(async {
            for number in 0..20 {
                storage.put(Name::new([number; 16]), bytes(600)).await.unwrap();
            }
            storage.delete(A).await.unwrap();
        });
        storage.crash(seed);
        storage.snapshot_blobs()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn every_barrier_holds_against_every_seed() {
    for seed in 0..100 {
        let storage = fresh();
        block_on(async {
            storage.put(A, bytes(10)).await.unwrap();
            storage.sync().await.unwrap();
            storage.put_durable(B, bytes(20)).await.unwrap();
            storage.delete(A).await.unwrap();
        });
        storage.crash(seed);
        let left = storage.snapshot_blobs();
        assert_eq!(left.get(&B), Some(&bytes(20)));
        assert!(left.get(&A).is_none_or(|blob| *blob == bytes(10)));
    }
}

#[test]
fn a_name_only_goes_back_to_a_state_that_it_had() {
    for seed in 0..200 {
        let storage = fresh();
        block_on(async {
            storage.put_durable(A, bytes(10)).await.unwrap();
            storage.delete(A).await.unwrap();
            storage.put_durable(A, bytes(11)).await.unwrap();
            storage.delete(A).await.unwrap();
        });
        storage.crash(seed);
        let left = storage.snapshot_blobs();
        assert!(left.get(&A).is_none_or(|blob| blob.len() == 11));
    }
}

#[test]
fn sync_covers_its_own_process_and_persist_what_others_put() {
    let ours = fresh();
    let theirs = ours.reopen();
    block_on(async {
        theirs.put(A, bytes(10)).await.unwrap();
        ours.put(B, bytes(10)).await.unwrap();
        ours.sync().await.unwrap();
        assert_eq!(ours.durable_blobs().keys().copied().collect::<Vec<_>>(), [B]);
        ours.persist(&[A]).await.unwrap();
        assert_eq!(ours.durable_blobs().len(), 2);
        let absent = ours.persist(&[Name::new([1; 16])]).await.unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_later_change_of_another_process_is_not_synced_with_ours() {
    let ours = fresh();
    let theirs = ours.reopen();
    block_on(async {
        ours.put(A, bytes(10)).await.unwrap();
        theirs.delete(A).await.unwrap();
        ours.sync().await.unwrap();
    });
    assert!(ours.durable_blobs().contains_key(&A));
    assert!(!ours.snapshot_blobs().contains_key(&A));
    ours.crash_with(Loss::Nothing);
    assert!(!ours.snapshot_blobs().contains_key(&A));
}

#[test]
fn a_lying_barrier_protects_nothing() {
    let storage = fresh();
    storage.lying_sync(true);
    block_on(async {
        storage.put(A, bytes(10)).await.unwrap();
        storage.sync().await.unwrap();
        storage.put_durable(B, bytes(10)).await.unwrap();
    });
    assert_eq!(storage.barriers(), 2);
    storage.crash_with(Loss::Everything);
    assert!(storage.snapshot_blobs().is_empty());

    let storage = storage.reopen();
    storage.lying_sync(false);
    storage.drop_barrier(2);
    block_on(async {
        storage.put_durable(A, bytes(10)).await.unwrap();
        storage.put_durable(B, bytes(10)).await.unwrap();
    });
    assert_eq!(storage.durable_blobs().keys().copied().collect::<Vec<_>>(), [A]);
}

#[test]
fn handles_of_the_dead_do_not_answer_and_what_is_visible_outlives_a_process() {
    let storage = fresh();
    let (same, other) = (storage.another(), storage.reopen());
    block_on(async {
        storage.put(A, bytes(10)).await.unwrap();
        storage.process_kill();
        assert!(storage.size(A).await.is_err());
        assert!(same.size(A).await.is_err());
        assert_eq!(other.size(A).await.unwrap(), 10);
        other.sync().await.unwrap();
        assert_eq!(other.durable_blobs().len(), 0, "the sync of one process is not that of another");
        other.crash(1);
        assert!(other.size(A).await.is_err() && other.is_dead());
    });
}

#[test]
fn faults_hit_the_call_that_was_named_and_have_the_effect_that_was_named() {
    let storage = fresh();
    let visible = || storage.snapshot_blobs().len();
    block_on(async {
        storage.fail_call(2, Fault::Refused(ErrorKind::Full));
        storage.fail_operation(Operation::PutDurable, 2, Fault::NotDurable);
        assert_eq!(storage.put(A, bytes(1)).await.unwrap(), Put::Created);
        let error = storage.delete(A).await.unwrap_err();
        assert_eq!((error.kind(), error.effect(), visible()), (ErrorKind::Full, Effect::None, 1));
        storage.delete(A).await.unwrap();

        storage.put_durable(A, bytes(1)).await.unwrap();
        let error = storage.put_durable(B, bytes(1)).await.unwrap_err();
        assert_eq!((error.effect(), error.retry(), visible()), (Effect::Unknown, Retry::CanHelp, 2));
        assert_eq!(storage.durable_blobs().len(), 1);

        for (fault, after) in [(Fault::LostRequest, 2), (Fault::LostReply, 1)] {
            storage.fail_call(1, fault);
            assert_eq!(storage.delete(A).await.unwrap_err().effect(), Effect::Unknown);
            assert_eq!(visible(), after);
        }
        storage.fail_call(1, Fault::LostReply);
        assert_eq!(storage.get_all(B, 10).await.unwrap_err().effect(), Effect::None);
        assert_eq!(storage.calls().of(Operation::Delete), 4);
        assert_eq!(storage.calls().mutating(), 7);
    });
}

#[test]
fn a_late_put_comes_when_it_is_due() {
    let storage = fresh();
    block_on(async {
        storage.fail_call(1, Fault::Late { calls: 2 });
        assert_eq!(storage.put(A, bytes(1)).await.unwrap_err().effect(), Effect::Unknown);
        assert!(!storage.exists(A).await.unwrap());
        assert!(storage.exists(A).await.unwrap());
    });
}

#[test]
fn a_cut_off_process_ends_at_the_call_that_was_named() {
    for (last, visible) in [(Fault::LostRequest, 2), (Fault::LostReply, 3)] {
        let storage = fresh();
        let other = storage.reopen();
        storage.cut_off_after(2, last);
        block_on(async {
            for number in 0..4 {
                let outcome = storage.put(Name::new([number; 16]), bytes(1)).await;
                assert_eq!(outcome.is_ok(), number < 2);
            }
            assert!(storage.is_dead() && storage.list(&[], None).await.is_err());
            assert_eq!(other.list_all(&[]).await.unwrap().len(), visible);
        });
    }
}

#[test]
fn random_faults_follow_their_seed() {
    let run = |seed| {
        let storage = fresh();
        storage.fail_at_random(seed, 300);
        (0..50u8).map(|number| block_on(storage.put(Name::new([number; 16]), bytes(1))).is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert!(run(1).contains(&true) && run(1).contains(&false));
}

#[test]
fn a_full_medium_refuses_puts_until_something_is_deleted() {
    let storage = fresh();
    storage.set_capacity(Some(15));
    block_on(async {
        storage.put(A, bytes(10)).await.unwrap();
        assert_eq!(storage.put(B, bytes(10)).await.unwrap_err().kind(), ErrorKind::Full);
        storage.delete(A).await.unwrap();
        storage.put(B, bytes(10)).await.unwrap();
    });
}

#[test]
fn an_atomic_batch_is_kept_or_lost_as_one() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let storage = CrashingStorage::new(CrashOptions::atomic());
        block_on(async {
            storage.put_durable(A, bytes(10)).await.unwrap();
            storage.apply(vec![Change::Delete(A), Change::Put(B, bytes(10))]).await.unwrap();
        });
        storage.crash(seed);
        let left = storage.snapshot_blobs().into_keys().collect::<Vec<_>>();
        assert!(left == [A] || left == [B], "{left:?}");
        seen.insert(left);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn an_object_store_loses_nothing_that_it_answered() {
    let storage = CrashingStorage::new(CrashOptions::object_store());
    block_on(storage.put(A, bytes(10))).unwrap();
    storage.crash_with(Loss::Everything);
    assert!(storage.snapshot_blobs().contains_key(&A));
}

#[test]
fn a_hostile_hand_changes_what_is_visible_and_what_is_durable() {
    let storage = fresh();
    block_on(storage.put(A, bytes(10))).unwrap();
    let before = storage.snapshot_blobs();
    storage.overwrite(A, bytes(3));
    storage.overwrite(B, bytes(3));
    storage.remove(A);
    assert_eq!(storage.durable_blobs().keys().copied().collect::<Vec<_>>(), [B]);
    storage.restore(before.clone());
    storage.crash_with(Loss::Everything);
    assert_eq!(storage.snapshot_blobs(), before);
}

#[test]
fn exclusive_means_one_handle_and_newcomers_wait() {
    let storage = fresh();
    block_on(async {
        let other = storage.reopen();
        assert!(storage.try_exclusive().await.unwrap().is_none());
        drop(other);
        let guard = storage.try_exclusive().await.unwrap().unwrap();
        let newcomer = storage.reopen();
        {
            let mut waiting = pin!(newcomer.list(&[], None));
            for _ in 0..5 {
                assert!(poll_once(waiting.as_mut()).await.is_none());
            }
            let ((), page) = zip(async { drop(guard) }, waiting).await;
            assert!(page.unwrap().is_empty());
        }
        assert!(storage.try_exclusive().await.unwrap().is_none());

        // A guard dies with its process.
        drop(newcomer);
        let _guard = storage.try_exclusive().await.unwrap().unwrap();
        storage.process_kill();
        storage.reopen().list(&[], None).await.unwrap();
    });
}
