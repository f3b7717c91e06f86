use std::sync::Arc;

use futures_lite::future::block_on;
use strongroom_core::cache::{Cache as _, MemoryCache, Part};
use strongroom_core::layer::Cached;
use strongroom_core::storage::{Change, ErrorKind, Operation, Storage as _};

use crate::support::{Fate, Flaky, name};

fn over(flaky: Flaky) -> (Arc<Flaky>, Arc<MemoryCache>, Cached) {
    let (flaky, cache) = (Arc::new(flaky), Arc::new(MemoryCache::new(1 << 20)));
    let cached = Cached::new(flaky.clone(), cache.clone());
    (flaky, cache, cached)
}

#[test]
fn only_reads_that_allow_it_come_from_the_cache_and_only_what_was_read_is_in_it() {
    block_on(async {
        let (flaky, cache, cached) = over(Flaky::default());
        cached.put(name(1), vec![1; 500].into()).await.unwrap();
        assert_eq!(cache.usage().await.bytes, 0, "what is put is not cached");
        assert_eq!(cached.get(name(1), None, 500).await.unwrap().len(), 500);
        assert_eq!(cache.usage().await.bytes, 0, "nor is what must be up to date");
        flaky.take_calls();
        for _ in 0..3 {
            assert_eq!(cached.get_cached(name(1), Some(0..100), 100).await.unwrap(), vec![1; 100]);
            assert_eq!(cached.get_cached(name(1), None, 500).await.unwrap(), vec![1; 500]);
        }
        assert_eq!(flaky.take_calls(), [Operation::Get; 2]);
        cached.get(name(1), Some(0..100), 100).await.unwrap();
        cached.size(name(1)).await.unwrap();
        cached.list(&[], None).await.unwrap();
        assert_eq!(flaky.take_calls(), [Operation::Get, Operation::Size, Operation::List]);
    });
}

#[test]
fn absence_and_failure_are_not_remembered() {
    block_on(async {
        let (flaky, cache, cached) = over(Flaky::default());
        for _ in 0..2 {
            assert_eq!(cached.get_cached(name(1), None, 9).await.unwrap_err().kind(), ErrorKind::NotFound);
        }
        assert_eq!(flaky.take_calls().len(), 2);
        cached.put(name(1), "x".into()).await.unwrap();
        flaky.plan([Fate::Refused(ErrorKind::Unavailable)]);
        assert_eq!(cached.get_cached(name(1), None, 9).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(cached.get_cached(name(1), None, 9).await.unwrap(), "x");
        assert_eq!(cached.get_cached(name(1), Some(0..2), 9).await.unwrap_err().kind(), ErrorKind::RangeInvalid);
        // The limit is the caller's, whoever answers.
        assert_eq!(cached.get_cached(name(1), None, 0).await.unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert!(cache.usage().await.bytes < 1000);
    });
}

#[test]
fn a_name_that_is_deleted_or_put_anew_is_forgotten() {
    block_on(async {
        let (flaky, cache, cached) = over(Flaky::default());
        let read = async || cached.get_cached(name(1), None, 99).await.unwrap();
        cached.put(name(1), "first".into()).await.unwrap();
        assert_eq!(read().await, "first");
        cached.delete(name(1)).await.unwrap();
        cached.put(name(1), "second".into()).await.unwrap();
        assert_eq!(read().await, "second");
        cached.apply(vec![Change::Delete(name(1)), Change::Put(name(1), "third".into())]).await.unwrap();
        assert_eq!(read().await, "third");
        // Another process deletes it, which nobody here hears of; then this one puts it.
        flaky.inner.delete(name(1)).await.unwrap();
        cached.put_durable(name(1), "fourth".into()).await.unwrap();
        assert_eq!(read().await, "fourth");
        // A delete whose fate is unknown forgets too.
        flaky.plan([Fate::LostReply]);
        cached.delete(name(1)).await.unwrap_err();
        assert_eq!(cache.get(name(1), Part::Whole).await, None);
    });
}

#[test]
fn what_was_found_wrong_is_forgotten_and_read_from_storage() {
    block_on(async {
        let (_, cache, cached) = over(Flaky::default());
        cached.put(name(1), "right".into()).await.unwrap();
        cache.insert(name(1), Part::Whole, "wrong".into()).await;
        assert_eq!(cached.get_cached(name(1), None, 99).await.unwrap(), "wrong");
        assert_eq!(cached.get(name(1), None, 99).await.unwrap(), "right");
        assert!(cached.forget(name(1)).await);
        assert_eq!(cached.get_cached(name(1), None, 99).await.unwrap(), "right");
        // Over the limit shows by itself.
        cache.remove(name(1)).await;
        cache.insert(name(1), Part::Whole, "much too long".into()).await;
        assert_eq!(cached.get_cached(name(1), None, 5).await.unwrap(), "right");
    });
}
