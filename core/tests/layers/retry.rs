use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::block_on;
use proptest::prelude::*;
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Fault};
use strongroom_core::env::{Env, ManualClock};
use strongroom_core::layer::{Retry, RetryPolicy};
use strongroom_core::storage::{Change, Effect, ErrorKind, Name, Operation, Put, Storage as _, StorageExt as _};

use crate::support::{Fate, Flaky, name};

const POLICY: RetryPolicy = RetryPolicy {
    attempts_max: 4,
    delay_first: Duration::from_millis(100),
    delay_max: Duration::from_secs(1),
    total_max: Duration::from_secs(60),
};

fn over(flaky: Flaky, policy: RetryPolicy) -> (Arc<Flaky>, Retry, Arc<ManualClock>) {
    let (env, clock) = Env::manual(1);
    let flaky = Arc::new(flaky);
    let retry = Retry::new(flaky.clone(), env, policy);
    (flaky, retry, clock)
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn what_was_refused_is_tried_again_further_and_further_apart() {
    let down = Fate::Refused(ErrorKind::Unavailable);
    let (flaky, retry, clock) = over(Flaky::planned([down, down, down]), POLICY);
    assert_eq!(clock.run(retry.put(name(1), bytes("x"))).unwrap().unwrap(), Put::Created);
    assert_eq!(flaky.take_calls().len(), 4);
    // 100, 200 and 400 ms, each up to a quarter more or less.
    let waited = clock.elapsed().as_millis();
    assert!((525..=875).contains(&waited), "{waited} ms");

    flaky.plan([down; 4]);
    let error = clock.run(retry.get(name(1), None, 9)).unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None));
    assert_eq!(flaky.take_calls().len(), 4);
}

#[test]
fn no_try_begins_after_the_time_is_up() {
    let policy = RetryPolicy { attempts_max: 1000, total_max: Duration::from_secs(5), ..POLICY };
    let (flaky, retry, clock) = over(Flaky::planned([Fate::Refused(ErrorKind::Busy); 1000]), policy);
    assert!(clock.run(retry.list(&[], None)).unwrap().is_err());
    assert!(clock.elapsed() <= Duration::from_secs(5), "{:?}", clock.elapsed());
    assert!(flaky.take_calls().len() > 5);
}

#[test]
fn a_policy_may_state_any_duration() {
    for delay_first in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let policy = RetryPolicy { attempts_max: 40, delay_first, delay_max: Duration::MAX, total_max: Duration::MAX };
        let (flaky, retry, clock) = over(Flaky::planned([Fate::Refused(ErrorKind::Busy); 39]), policy);
        assert_eq!(clock.run(retry.put(name(1), bytes("x"))).unwrap().unwrap(), Put::Created);
        assert_eq!(flaky.take_calls().len(), 40);
    }
}

#[test]
fn what_no_retry_can_help_is_answered_at_once() {
    let (flaky, retry, clock) = over(Flaky::planned([Fate::Refused(ErrorKind::Full)]), POLICY);
    assert_eq!(clock.run(retry.put(name(1), bytes("x"))).unwrap().unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(clock.run(retry.size(name(1))).unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(flaky.take_calls(), [Operation::Put, Operation::Size]);
    assert_eq!(clock.elapsed(), Duration::ZERO);
}

#[test]
fn a_put_of_unknown_effect_is_created_where_what_is_there_is_ours() {
    for fates in [vec![Fate::LostReply], vec![Fate::LostRequest], vec![Fate::LostReply, Fate::LostRequest]] {
        let (flaky, retry, clock) = over(Flaky::planned(fates), POLICY);
        assert_eq!(clock.run(retry.put(name(1), bytes("ours"))).unwrap().unwrap(), Put::Created);
        assert_eq!(flaky.created(name(1)), 1);
    }
    for there in ["theirs", "their longer one", ""] {
        let (flaky, retry, clock) = over(Flaky::default(), POLICY);
        block_on(flaky.inner.put(name(1), bytes(there))).unwrap();
        flaky.plan([Fate::LostRequest, Fate::Fine, Fate::Refused(ErrorKind::Unavailable)]);
        assert_eq!(clock.run(retry.put(name(1), bytes("ours"))).unwrap().unwrap(), Put::Exists);
        assert_eq!(block_on(flaky.inner.get_all(name(1), 99)).unwrap(), there);
    }
}

#[test]
fn a_put_that_met_its_own_bytes_unasked_still_says_that_they_were_there() {
    let (_, retry, clock) = over(Flaky::default(), POLICY);
    assert_eq!(clock.run(retry.put(name(1), bytes("x"))).unwrap().unwrap(), Put::Created);
    assert_eq!(clock.run(retry.put(name(1), bytes("x"))).unwrap().unwrap(), Put::Exists);
    assert_eq!(clock.run(retry.put_durable(name(1), bytes("x"))).unwrap().unwrap(), Put::Exists);
}

#[test]
fn a_durable_put_whose_reply_was_lost_is_settled_and_made_durable() {
    for fate in [Fate::LostReply, Fate::LostReplyForGood] {
        let (flaky, retry, clock) = over(Flaky::planned([fate, Fate::Refused(ErrorKind::Unavailable)]), POLICY);
        let put = clock.run(retry.put_durable(name(1), bytes("ours"))).unwrap();
        if fate == Fate::LostReplyForGood {
            // Its own error forbids nothing but sending: reading back is no retry of it.
            assert_eq!(put.unwrap(), Put::Created);
        } else {
            assert_eq!(put.unwrap(), Put::Created);
        }
        assert_eq!(flaky.take_calls(), [Operation::PutDurable, Operation::Get, Operation::Get, Operation::Persist]);
    }
    // The double really loses what no barrier covered.
    block_on(async {
        let storage = CrashingStorage::new(CrashOptions::default());
        let retry = Retry::new(Arc::new(storage.another()), Env::deterministic(1), POLICY);
        storage.fail_operation(Operation::PutDurable, 1, Fault::NotDurable);
        assert_eq!(retry.put_durable(name(1), bytes("ours")).await.unwrap(), Put::Created);
        storage.crash(1);
        assert_eq!(storage.reopen().get_all(name(1), 99).await.unwrap(), "ours");
    });
}

#[test]
fn a_durable_put_that_left_nothing_behind_is_not_sent_again() {
    let (flaky, retry, clock) = over(Flaky::planned([Fate::LostRequest]), POLICY);
    let error = clock.run(retry.put_durable(name(1), bytes("ours"))).unwrap().unwrap_err();
    assert_eq!((error.operation(), error.effect()), (Operation::PutDurable, Effect::Unknown));
    assert_eq!(flaky.take_calls(), [Operation::PutDurable, Operation::Get]);

    block_on(flaky.inner.put(name(2), bytes("theirs"))).unwrap();
    flaky.plan([Fate::LostRequest]);
    assert_eq!(clock.run(retry.put_durable(name(2), bytes("ours"))).unwrap().unwrap(), Put::Exists);
}

#[test]
fn a_barrier_of_unknown_effect_is_not_repeated_and_a_refused_one_is() {
    let (flaky, retry, clock) = over(Flaky::planned([Fate::LostReply, Fate::LostRequest]), POLICY);
    for operation in [Operation::Sync, Operation::Persist] {
        let error = match operation {
            Operation::Sync => clock.run(retry.sync()).unwrap().unwrap_err(),
            _ => clock.run(retry.persist(&[])).unwrap().unwrap_err(),
        };
        assert_eq!(error.effect(), Effect::Unknown);
        assert_eq!(flaky.take_calls(), [operation]);
    }
    flaky.plan([Fate::Refused(ErrorKind::Busy)]);
    clock.run(retry.sync()).unwrap().unwrap();
    assert_eq!(flaky.take_calls(), [Operation::Sync; 2]);
}

#[test]
fn a_batch_that_names_a_blob_twice_is_not_repeated_blindly() {
    let (flaky, retry, clock) = over(Flaky::planned([Fate::LostReply]), POLICY);
    let batch = vec![Change::Put(name(1), bytes("x")), Change::Delete(name(1))];
    let error = clock.run(retry.apply(batch)).unwrap().unwrap_err();
    assert_eq!((error.operation(), error.effect()), (Operation::Apply, Effect::Unknown));
    assert_eq!(flaky.take_calls(), [Operation::Apply]);
}

#[test]
fn a_sequential_batch_that_broke_off_is_finished_change_by_change() {
    block_on(async {
        let storage = CrashingStorage::new(CrashOptions::default());
        storage.put(name(2), bytes("theirs")).await.unwrap();
        storage.put(name(9), bytes("gone soon")).await.unwrap();
        let retry = Retry::new(Arc::new(storage.another()), Env::deterministic(1), POLICY);
        for fault in [Fault::LostReply, Fault::LostRequest, Fault::Refused(ErrorKind::Unavailable)] {
            storage.fail_operation(Operation::Apply, 1, fault);
            let batch = vec![
                Change::Put(name(1), bytes("ours")),
                Change::Put(name(2), bytes("ours")),
                Change::Delete(name(9)),
                Change::Put(name(3), bytes("ours")),
            ];
            let outcomes = retry.apply(batch).await.unwrap();
            assert_eq!(outcomes, [Put::Created, Put::Exists, Put::Created], "{fault:?}");
            assert_eq!(storage.get_all(name(2), 99).await.unwrap(), "theirs");
            assert!(!storage.exists(name(9)).await.unwrap());
            for ours in [1, 3] {
                storage.delete(name(ours)).await.unwrap();
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn on_a_flaky_storage_every_answer_is_that_of_a_sound_one(seed in any::<u64>()) {
        let policy = RetryPolicy { attempts_max: 100, total_max: Duration::from_secs(100_000), ..POLICY };
        let (flaky, retry, clock) = over(Flaky::random(seed, 400), policy);
        let mut dice = Dice::new(!seed);
        let mut model: BTreeMap<Name, Bytes> = BTreeMap::new();
        let mut created: BTreeMap<Name, u64> = BTreeMap::new();
        clock.run(async {
            for step in 0..60_u64 {
                let name = name(dice.below(5) as u8);
                // As sealed blocks are: no two alike.
                let bytes = Bytes::from(format!("{step}"));
                let put = |model: &mut BTreeMap<Name, Bytes>, created: &mut BTreeMap<Name, u64>, name, bytes: &Bytes| {
                    if model.contains_key(&name) {
                        return Put::Exists;
                    }
                    model.insert(name, bytes.clone());
                    *created.entry(name).or_default() += 1;
                    Put::Created
                };
                match dice.below(7) {
                    0 | 1 => {
                        let answer = retry.put(name, bytes.clone()).await.unwrap();
                        prop_assert_eq!(answer, put(&mut model, &mut created, name, &bytes));
                    }
                    2 => match retry.put_durable(name, bytes.clone()).await {
                        Ok(answer) => prop_assert_eq!(answer, put(&mut model, &mut created, name, &bytes)),
                        Err(error) => {
                            // Either nothing is there, or it is ours and its barrier failed: it was not hidden.
                            prop_assert_eq!(error.effect(), Effect::Unknown);
                            match flaky.inner.get_all(name, 99).await {
                                Ok(found) if !model.contains_key(&name) => {
                                    prop_assert_eq!(&found, &bytes);
                                    put(&mut model, &mut created, name, &bytes);
                                }
                                Ok(_) => prop_assert!(false, "another's blob was in the way, and it was not said"),
                                Err(_) => prop_assert!(!model.contains_key(&name)),
                            }
                        }
                    },
                    3 => {
                        retry.delete(name).await.unwrap();
                        model.remove(&name);
                    }
                    4 => {
                        let answer = retry.get_all(name, 99).await.ok();
                        prop_assert_eq!(answer.as_ref(), model.get(&name));
                        prop_assert_eq!(retry.exists(name).await.unwrap(), model.contains_key(&name));
                    }
                    5 => {
                        let names: Vec<Name> = retry.list_all(&[]).await.unwrap().into_iter().collect();
                        prop_assert_eq!(names, model.keys().copied().collect::<Vec<_>>());
                    }
                    _ => {
                        let (second, third) = (Name::new([100; 16]), Name::new([101; 16]));
                        let batch = vec![
                            Change::Put(name, bytes.clone()),
                            Change::Delete(second),
                            Change::Put(third, bytes.clone()),
                        ];
                        let answer = retry.apply(batch).await.unwrap();
                        let expected = vec![
                            put(&mut model, &mut created, name, &bytes),
                            put(&mut model, &mut created, third, &bytes),
                        ];
                        prop_assert_eq!(answer, expected);
                    }
                }
            }
            for (name, times) in created {
                prop_assert_eq!(flaky.created(name), times, "{} was created too often", name);
            }
            Ok(())
        }).unwrap()?;
    }
}
