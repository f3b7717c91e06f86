use std::sync::Arc;
use std::time::Duration;

use strongroom_core::env::Env;
use strongroom_core::layer::{Retry, RetryPolicy, Timeout};
use strongroom_core::storage::{Effect, ErrorKind, Operation, Put, Storage as _};

use crate::support::{Fate, Flaky, name};

const CALL_MAX: Duration = Duration::from_secs(30);

#[test]
fn a_call_that_hangs_is_given_up_and_its_effect_unknown_if_it_writes() {
    let (env, clock) = Env::manual(1);
    let timeout = Timeout::new(Arc::new(Flaky::planned([Fate::Stuck; 7])), env, CALL_MAX);
    let errors = [
        clock.run(timeout.put(name(1), "x".into())).unwrap().unwrap_err(),
        clock.run(timeout.put_durable(name(1), "x".into())).unwrap().unwrap_err(),
        clock.run(timeout.delete(name(1))).unwrap().unwrap_err(),
        clock.run(timeout.sync()).unwrap().unwrap_err(),
        clock.run(timeout.get(name(1), None, 9)).unwrap().unwrap_err(),
        clock.run(timeout.list(&[], None)).unwrap().unwrap_err(),
        clock.run(timeout.try_exclusive()).unwrap().err().unwrap(),
    ];
    for (error, writes) in errors.iter().zip([true, true, true, true, false, false, false]) {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.effect() == Effect::Unknown, writes, "{error}");
        assert!(error.to_string().contains("30s"), "{error}");
    }
    assert_eq!(clock.elapsed(), 7 * CALL_MAX);
    assert_eq!(clock.sleepers_count(), 0);
    assert_eq!(clock.run(timeout.put(name(1), "x".into())).unwrap().unwrap(), Put::Created);
}

#[test]
fn a_retry_above_settles_what_was_given_up() {
    let (env, clock) = Env::manual(1);
    let flaky = Arc::new(Flaky::planned([Fate::Stuck, Fate::Fine]));
    let timeout = Arc::new(Timeout::new(flaky.clone(), env.clone(), CALL_MAX));
    let retry = Retry::new(timeout, env, RetryPolicy::default());
    assert_eq!(clock.run(retry.put(name(1), "x".into())).unwrap().unwrap(), Put::Created);
    assert_eq!(flaky.take_calls(), [Operation::Put, Operation::Put]);
}

#[test]
fn what_is_large_may_take_longer() {
    let (env, clock) = Env::manual(1);
    let timeout = Timeout::new(Arc::new(Flaky::planned([Fate::Stuck; 3])), env, CALL_MAX);
    // A mebibyte at 4 KiB a second.
    let longer = Duration::from_secs(256);
    let put = clock.run(timeout.put(name(1), vec![0; 1 << 20].into())).unwrap();
    assert!(put.unwrap_err().to_string().contains("286s"));
    assert_eq!(clock.elapsed(), CALL_MAX + longer);
    let get = clock.run(timeout.get(name(1), Some(0..1 << 20), 1 << 30)).unwrap();
    assert_eq!(get.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(clock.elapsed(), 2 * (CALL_MAX + longer));
    // Whoever takes any length waits for none that no blob has.
    let get = clock.run(timeout.get(name(1), None, u64::MAX)).unwrap();
    assert_eq!(get.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(clock.elapsed(), 3 * CALL_MAX + 6 * longer);
}

#[test]
fn what_was_given_up_after_the_time_of_remote_storage_is_tried_again_by_default() {
    let (env, clock) = Env::manual(1);
    let flaky = Arc::new(Flaky::planned([Fate::Stuck, Fate::Fine]));
    let timeout = Arc::new(Timeout::new(flaky.clone(), env.clone(), Duration::from_secs(300)));
    let retry = Retry::new(timeout, env, RetryPolicy::default());
    assert_eq!(clock.run(retry.put(name(1), "x".into())).unwrap().unwrap(), Put::Created);
    assert_eq!(flaky.take_calls(), [Operation::Put, Operation::Put]);
}
