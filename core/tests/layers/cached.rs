use std::sync::Arc;

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::Dice;
use strongroom_conformance::storage::sample_bytes;
use strongroom_core::cache::{Cache as _, MemoryCache, Part};
use strongroom_core::layer::Cached;
use strongroom_core::storage::{Change, ErrorKind, Operation, Storage as _};

use crate::support::{Fate, Flaky, Remote, name};

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

const PART: u64 = 16 << 10;

/// Over a network, with one blob.
fn far(blob_bytes: usize) -> (Arc<Flaky>, Arc<Remote>, Arc<MemoryCache>, Cached, Bytes) {
    let (flaky, cache) = (Arc::new(Flaky::default()), Arc::new(MemoryCache::new(8 << 20)));
    let remote = Arc::new(Remote::new(flaky.clone()));
    let cached = Cached::new(remote.clone(), cache.clone());
    let blob = sample_bytes(1, blob_bytes);
    block_on(cached.put(name(1), blob.clone())).unwrap();
    (flaky, remote, cache, cached, blob)
}

async fn read(cached: &Cached, blob: &Bytes, start: u64, end: u64) {
    let bytes = cached.get_cached(name(1), Some(start..end), end - start).await.unwrap();
    assert!(bytes == blob.slice(start as usize..end as usize), "{start}..{end}");
}

#[test]
fn over_a_network_who_reads_in_order_gets_more_with_each_request() {
    block_on(async {
        let (_, remote, _, cached, blob) = far(1 << 20);
        for start in (0..1 << 20).step_by(PART as usize) {
            read(&cached, &blob, start, start + PART).await;
        }
        let kib =
            |range: &Option<std::ops::Range<u64>>| range.as_ref().map(|range| (range.start >> 10, range.end >> 10));
        let asked: Vec<_> = remote.take_ranges().iter().filter_map(kib).collect();
        assert_eq!(asked, [(0, 16), (16, 64), (64, 256), (256, 512), (512, 768), (768, 1024)]);
        // What lies across parts is loaded as far as it is not there.
        let (_, remote, _, cached, blob) = far(1 << 20);
        for start in (0..1 << 20).step_by(PART as usize) {
            read(&cached, &blob, start, (start + 2 * PART).min(1 << 20)).await;
        }
        let loaded: u64 = remote.take_ranges().into_iter().flatten().map(|range| range.end - range.start).sum();
        assert_eq!(loaded, 1 << 20, "nothing is loaded twice");
    });
}

#[test]
fn who_jumps_or_reads_backwards_or_is_near_gets_what_was_asked_for() {
    block_on(async {
        let (_, remote, _, cached, blob) = far(1 << 20);
        for start in (0..1 << 20).step_by(2 * PART as usize) {
            read(&cached, &blob, start, start + PART).await;
        }
        let exactly = remote.take_ranges().into_iter().flatten().all(|range| range.end - range.start == PART);
        assert!(exactly);
        let (_, remote, _, cached, blob) = far(1 << 20);
        for start in (0..64).rev().map(|part| part * PART) {
            read(&cached, &blob, start, start + PART).await;
        }
        assert_eq!(remote.take_ranges().len(), 64);
        let (flaky, _, cached) = over(Flaky::default());
        cached.put(name(1), blob.clone()).await.unwrap();
        flaky.take_calls();
        for start in (0..1 << 20).step_by(PART as usize) {
            read(&cached, &blob, start, start + PART).await;
        }
        assert_eq!(flaky.take_calls().len(), 64);
    });
}

#[test]
fn that_blobs_are_short_is_found_out_once() {
    block_on(async {
        for blob_bytes in [32 << 10, 128 << 10, 192 << 10] {
            let (_, remote, _, cached, blob) = far(blob_bytes);
            cached.put(name(2), blob.clone()).await.unwrap();
            let mut asked = Vec::new();
            for number in [1, 2] {
                for start in (0..blob_bytes as u64).step_by(PART as usize) {
                    let bytes = cached.get_cached(name(number), Some(start..start + PART), PART).await.unwrap();
                    assert!(bytes == blob.slice(start as usize..(start + PART) as usize));
                }
                asked.push(remote.take_ranges());
            }
            let too_far = |asked: &[Option<std::ops::Range<u64>>]| {
                asked.iter().flatten().filter(|range| range.end > blob_bytes as u64).count()
            };
            assert!(too_far(&asked[0]) <= 1 && too_far(&asked[1]) == 0, "{blob_bytes}: {asked:?}");
            assert!(asked[1].len() <= blob_bytes.div_ceil(64 << 10) + 1, "{blob_bytes}: {asked:?}");
        }
    });
}

#[test]
fn where_more_cannot_be_had_what_was_asked_for_is() {
    block_on(async {
        // A part of what was asked for beside it is not to be read; a server may fail at such a place each time.
        for kind in [ErrorKind::Unavailable, ErrorKind::Other] {
            let (flaky, _, _, cached, blob) = far(1 << 20);
            read(&cached, &blob, 0, PART).await;
            flaky.plan([Fate::Refused(kind)]);
            read(&cached, &blob, PART, 2 * PART).await;
        }
        let (flaky, _, _, cached, blob) = far(1 << 20);
        read(&cached, &blob, 0, PART).await;
        flaky.take_calls();
        flaky.plan([Fate::Refused(ErrorKind::Unavailable), Fate::Refused(ErrorKind::Unavailable)]);
        let error = cached.get_cached(name(1), Some(PART..2 * PART), PART).await.unwrap_err();
        assert_eq!((error.kind(), flaky.take_calls().len()), (ErrorKind::Unavailable, 2));
        // What would meet the exact request, too, is told at once.
        flaky.inner.delete(name(1)).await.unwrap();
        let error = cached.get_cached(name(1), Some(PART..2 * PART), PART).await.unwrap_err();
        assert_eq!((error.kind(), flaky.take_calls().len()), (ErrorKind::NotFound, 1));
    });
}

#[test]
fn parts_that_came_meanwhile_are_the_whole_and_nothing_is_asked_for() {
    block_on(async {
        let (_, remote, cache, cached, blob) = far(1 << 20);
        let part = |number: u64| Part::Range { start: number * PART, end: (number + 1) * PART };
        for number in [62, 63] {
            let bytes = blob.slice((number * PART) as usize..((number + 1) * PART) as usize);
            cache.insert(name(1), part(number), bytes).await;
        }
        read(&cached, &blob, 62 * PART, 64 * PART).await;
        assert_eq!(remote.take_ranges().len(), 0);
    });
}

#[test]
fn whatever_is_read_over_a_network_in_whatever_order_is_what_was_put() {
    block_on(async {
        for seed in 0..40 {
            let mut dice = Dice::new(seed);
            let blob_bytes =
                (1_usize << (12 + dice.below(9))) + usize::from(seed % 2 == 0) * dice.below(5_000) as usize;
            let (_, _, cache, cached, blob) = far(blob_bytes);
            let mut at = 0;
            for _ in 0..60 {
                match dice.below(8) {
                    0 => at = dice.below(blob_bytes as u64),
                    1 => at = at / PART * PART,
                    2 => cache.remove(name(1)).await,
                    _ => {}
                }
                let end = (at + 1 + dice.below(3 * PART)).min(blob_bytes as u64);
                read(&cached, &blob, at, end).await;
                let is_at_end = end == blob_bytes as u64;
                at = if is_at_end { 0 } else { end };
            }
        }
    });
}
