use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::{block_on, poll_once};
use futures_util::future::join_all;
use strongroom_core::env::Env;
use strongroom_core::layer::{Limit, Limits};
use strongroom_core::storage::{ErrorKind, Storage as _};

use crate::support::{Fate, Flaky, name};

fn blob() -> Bytes {
    vec![7; 1000].into()
}

#[test]
fn bytes_go_at_the_rate_and_in_the_order_in_which_they_came() {
    let (env, clock) = Env::manual(1);
    let limits = Limits { upload_bytes_per_second: NonZeroU64::new(1000), ..Limits::default() };
    let limit = Limit::new(Arc::new(Flaky::default()), env, limits);
    let done = std::sync::Mutex::new(Vec::new());
    let put = async |number| {
        limit.put(name(number), blob()).await.unwrap();
        done.lock().unwrap().push((number, clock.elapsed().as_secs()));
    };
    clock.run(join_all((0..5).map(put))).unwrap();
    // The first at once, and each further one when the one before it is through.
    assert_eq!(*done.lock().unwrap(), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]);
    clock.run(limit.get(name(0), None, 1000)).unwrap().unwrap();
    assert_eq!(clock.elapsed().as_secs(), 4, "what comes down is not limited by what goes up");
    // Idle time is not saved up.
    clock.advance(Duration::from_secs(100));
    clock.run(join_all((10..13).map(put))).unwrap();
    assert_eq!(clock.elapsed().as_secs(), 106);
}

#[test]
fn what_was_not_received_is_not_charged() {
    let (env, clock) = Env::manual(1);
    let limits = Limits { download_bytes_per_second: NonZeroU64::new(1000), ..Limits::default() };
    let flaky = Arc::new(Flaky::default());
    let limit = Limit::new(flaky.clone(), env, limits);
    clock.run(limit.put(name(1), blob())).unwrap().unwrap();
    for _ in 0..10 {
        let error = clock.run(limit.get(name(2), None, 1 << 20)).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(clock.elapsed(), Duration::ZERO);
    for _ in 0..3 {
        clock.run(limit.get(name(1), Some(0..500), 1 << 20)).unwrap().unwrap();
        clock.run(limit.get_cached(name(1), None, u64::MAX)).unwrap().unwrap();
    }
    assert_eq!(clock.elapsed().as_millis(), 3500);
}

#[test]
fn who_gives_up_waiting_gives_the_time_back() {
    let (env, clock) = Env::manual(1);
    let limits = Limits { upload_bytes_per_second: NonZeroU64::new(1000), ..Limits::default() };
    let limit = Limit::new(Arc::new(Flaky::default()), env, limits);
    clock.run(limit.put(name(1), blob())).unwrap().unwrap();
    for number in 2..50 {
        let mut given_up = Box::pin(limit.put(name(number), blob()));
        assert!(block_on(poll_once(&mut given_up)).is_none());
    }
    clock.run(limit.put(name(99), blob())).unwrap().unwrap();
    assert_eq!(clock.elapsed(), Duration::from_secs(1));
}

#[test]
fn time_that_has_passed_is_not_given_back() {
    let (env, clock) = Env::manual(1);
    let limits = Limits { download_bytes_per_second: NonZeroU64::new(1000), ..Limits::default() };
    let flaky = Arc::new(Flaky::default());
    let limit = Limit::new(flaky.clone(), env, limits);
    clock.run(limit.put(name(1), blob())).unwrap().unwrap();
    flaky.plan([Fate::Stuck; 3]);
    let mut stuck: Vec<_> = (0..3).map(|_| Box::pin(limit.get(name(1), None, 1000))).collect();
    for seconds in [3, 100] {
        for call in &mut stuck {
            assert!(block_on(poll_once(call)).is_none());
        }
        clock.advance(Duration::from_secs(seconds));
    }
    clock.run(limit.get(name(1), None, 1000)).unwrap().unwrap();
    drop(stuck);
    clock.run(limit.get(name(1), None, 1000)).unwrap().unwrap();
    assert_eq!(clock.elapsed(), Duration::from_secs(104), "nobody goes beside the one before");
}

#[test]
fn so_many_calls_at_once_and_the_next_in_line_goes_when_one_ends() {
    block_on(async {
        let (env, _clock) = Env::manual(1);
        let limits = Limits { calls_max: NonZeroUsize::new(2), ..Limits::default() };
        let flaky = Arc::new(Flaky::planned([Fate::Stuck, Fate::Stuck]));
        let limit = Limit::new(flaky.clone(), env, limits);
        let mut stuck: Vec<_> = (0..2).map(|number| Box::pin(limit.put(name(number), blob()))).collect();
        for call in &mut stuck {
            assert!(poll_once(call).await.is_none());
        }
        let mut waiting: Vec<_> = (2..6).map(|number| Box::pin(limit.size(name(number)))).collect();
        for call in &mut waiting {
            assert!(poll_once(call).await.is_none());
        }
        assert_eq!(flaky.take_calls().len(), 2);
        assert!(limit.try_exclusive().await.unwrap().is_some(), "what does not wait, takes no place");
        flaky.take_calls();
        // One in the middle of the line leaves it.
        drop(waiting.remove(1));
        drop(stuck.pop());
        for call in waiting {
            assert_eq!(call.await.unwrap_err().kind(), ErrorKind::NotFound);
        }
        assert_eq!(flaky.take_calls().len(), 3);
    });
}
