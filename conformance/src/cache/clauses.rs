// A clause that is broken must stop the test, with the place in the code: so here, unlike elsewhere, one may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_lite::future::{poll_once, yield_now};
use futures_util::future::join_all;
use strongroom_core::cache::{Cache, Load, Part};
use strongroom_core::storage::{Error, ErrorKind, Name, Operation, Result};

use super::CachePlace;
use crate::Dice;
use crate::storage::{sample_bytes, sample_name};

/// Small enough for any cache that is worth having.
const BLOB_BYTES: u64 = 512;

fn range(start: u64, end: u64) -> Part {
    Part::Range { start, end }
}

fn part_of(blob: &Bytes, part: Part) -> Bytes {
    match part {
        Part::Whole => blob.clone(),
        Part::Range { start, end } => blob.slice(start as usize..end as usize),
    }
}

fn parts() -> [Part; 5] {
    [Part::Whole, range(0, 256), range(256, 512), range(0, 512), range(100, 101)]
}

fn given(bytes: &Bytes) -> Load<'static> {
    let bytes = bytes.clone();
    Box::pin(async move { Ok(bytes) })
}

fn failing() -> Load<'static> {
    Box::pin(async { Err(Error::new(ErrorKind::Full, Operation::Get, "the load of a test")) })
}

async fn fetched(cache: &dyn Cache, name: Name, part: Part, bytes: &Bytes) -> Bytes {
    cache.fetch(name, part, given(bytes)).await.expect("a load that succeeds is a fetch that succeeds")
}

/// **C1** A failure is a miss: a load's failure answers its own caller as it is and leaves nothing behind, a missing entry
/// is loaded, and a cache whose medium breaks down still answers what storage does.
///
/// # Panics
/// Where the cache breaks the clause; so do all functions here.
pub async fn c1_a_failure_is_a_miss(place: &dyn CachePlace) {
    let cache = place.open().await;
    let (name, blob) = (sample_name(1), sample_bytes(1, BLOB_BYTES as usize));
    for part in parts() {
        assert_eq!(cache.fetch(name, part, failing()).await.unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(cache.get(name, part).await, None);
        let bytes = part_of(&blob, part);
        assert_eq!(fetched(&*cache, name, part, &bytes).await, bytes);
        cache.remove(name).await;
    }

    // Those who wait for a load that fails do not fail with it.
    let mut first = Box::pin(cache.fetch(
        name,
        Part::Whole,
        Box::pin(async {
            yield_now().await;
            failing().await
        }),
    ));
    let mut second = Box::pin(cache.fetch(name, Part::Whole, given(&blob)));
    let early = poll_once(&mut first).await;
    let second_early = poll_once(&mut second).await;
    let first = match early {
        Some(answer) => answer,
        None => first.await,
    };
    assert_eq!(first.unwrap_err().kind(), ErrorKind::Full);
    let second = match second_early {
        Some(answer) => answer,
        None => second.await,
    };
    assert_eq!(second.unwrap(), blob);

    if !place.break_down() {
        return;
    }
    for number in 1..4 {
        let (name, blob) = (sample_name(number), sample_bytes(number, BLOB_BYTES as usize));
        cache.insert(name, Part::Whole, blob.clone()).await;
        let found = cache.get(name, Part::Whole).await;
        assert!(found.is_none_or(|found| found == blob));
        assert_eq!(fetched(&*cache, name, Part::Whole, &blob).await, blob);
        cache.remove(name).await;
        assert_eq!(cache.fetch(name, Part::Whole, failing()).await.unwrap_err().kind(), ErrorKind::Full);
    }
}

/// **C2** What is returned was inserted under that name, as that part, and not before the name was last removed.
///
/// # Panics
/// As all here.
pub async fn c2_what_is_returned_was_inserted_under_that_name(place: &dyn CachePlace) {
    let cache = place.open().await;
    let mut dice = Dice::new(2);
    // What may be returned: every content of a name since its last removal.
    let mut contents: BTreeMap<Name, Vec<Bytes>> = BTreeMap::new();
    for step in 0..400 {
        let name = sample_name(dice.below(6));
        let part = parts()[dice.below(5) as usize];
        match dice.below(8) {
            0 => {
                cache.remove(name).await;
                contents.remove(&name);
            }
            1..4 => {
                // Mostly one content a name, as an honest storage has it; sometimes another.
                let salt = if dice.per_mille(50) { step } else { 0 };
                let seed = u64::from(name.as_bytes()[0]) + 1000 * salt;
                let blob = sample_bytes(seed, BLOB_BYTES as usize);
                cache.insert(name, part, part_of(&blob, part)).await;
                contents.entry(name).or_default().push(blob);
            }
            _ => {
                let Some(found) = cache.get(name, part).await else { continue };
                let known = contents.get(&name).into_iter().flatten().any(|blob| part_of(blob, part) == found);
                assert!(known, "step {step}: {part:?} of {name} was never inserted");
            }
        }
    }

    // What cannot be that part is declined, and a part that is not at hand is not made up.
    let (name, blob) = (sample_name(100), sample_bytes(100, BLOB_BYTES as usize));
    cache.insert(name, range(0, 256), blob.slice(0..100)).await;
    assert_eq!(cache.get(name, range(0, 256)).await, None);
    cache.insert(name, range(0, 256), blob.slice(0..256)).await;
    assert_eq!(cache.get(name, Part::Whole).await, None);
    assert_eq!(cache.get(name, range(0, 512)).await, None);
    assert_eq!(cache.get(sample_name(101), range(0, 256)).await, None);

    // A load that began before a removal does not bring back what was removed.
    let name = sample_name(102);
    let mut loading = Box::pin(cache.fetch(
        name,
        Part::Whole,
        Box::pin(async {
            yield_now().await;
            Ok(blob.clone())
        }),
    ));
    if poll_once(&mut loading).await.is_none() {
        cache.remove(name).await;
        assert_eq!(loading.await.unwrap(), blob);
        assert_eq!(cache.get(name, Part::Whole).await, None);
    }
}

/// **C3** Usage never exceeds the bound, whatever is inserted, and counts what is held.
///
/// # Panics
/// As all here.
pub async fn c3_usage_never_exceeds_the_bound(place: &dyn CachePlace) {
    let cache = place.open().await;
    let bytes_max = place.bytes_max();
    assert_eq!(cache.usage().await.bytes_max, bytes_max);
    let mut dice = Dice::new(3);
    let mut inserted = BTreeSet::new();
    let mut total = 0;
    for number in 0..4000 {
        let length = match dice.below(40) {
            // Larger than the cache altogether, where that is not too much for a test.
            0 if bytes_max < 1 << 20 => bytes_max + dice.below(1000),
            1 if bytes_max < 1 << 20 => bytes_max / 2 + dice.below(1000),
            _ => dice.below(4096),
        };
        let name = sample_name(number);
        let bytes = sample_bytes(number, length as usize);
        if number % 2 == 0 {
            cache.insert(name, Part::Whole, bytes).await;
        } else {
            assert_eq!(fetched(&*cache, name, range(7, 7 + length), &bytes).await, bytes);
        }
        inserted.insert((name, number, length));
        let usage = cache.usage().await;
        assert!(usage.bytes <= bytes_max, "{} of {bytes_max} bytes are used", usage.bytes);
        total += length;
        if total > 4 * bytes_max && number > 100 {
            break;
        }
    }
    // What it answers, it holds, and so it is within the bound.
    let mut held = 0;
    for (name, number, length) in &inserted {
        let part = if number % 2 == 0 { Part::Whole } else { range(7, 7 + length) };
        held += cache.get(*name, part).await.map_or(0, |bytes| bytes.len() as u64);
    }
    let usage = cache.usage().await;
    assert!(held <= usage.bytes, "{held} bytes are held, {} are counted", usage.bytes);
    for (name, ..) in inserted {
        cache.remove(name).await;
    }
    assert!(cache.usage().await.bytes <= usage.bytes);
}

/// **C4** One load serves concurrent misses of one part; other parts and names do not wait for it, and where the one who
/// loads gives up, another does.
///
/// # Panics
/// As all here.
pub async fn c4_one_load_serves_concurrent_misses(place: &dyn CachePlace) {
    let cache = place.open().await;
    let (name, blob) = (sample_name(4), sample_bytes(4, BLOB_BYTES as usize));
    let loads = AtomicU64::new(0);
    let load = |part: Part| -> Load<'_> {
        let bytes = part_of(&blob, part);
        let loads = &loads;
        Box::pin(async move {
            loads.fetch_add(1, Ordering::SeqCst);
            for _ in 0..10 {
                yield_now().await;
            }
            Ok(bytes)
        })
    };
    for part in [Part::Whole, range(0, 256)] {
        cache.remove(name).await;
        loads.store(0, Ordering::SeqCst);
        let answers: Vec<Result<Bytes>> = join_all((0..20).map(|_| cache.fetch(name, part, load(part)))).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap() == part_of(&blob, part)));
        assert_eq!(loads.load(Ordering::SeqCst), 1, "loads of {part:?}");
    }

    // One that hangs holds up nobody but those who want the same.
    cache.remove(name).await;
    let mut hanging = Box::pin(cache.fetch(name, Part::Whole, Box::pin(std::future::pending())));
    assert!(poll_once(&mut hanging).await.is_none());
    let other = sample_name(5);
    assert_eq!(fetched(&*cache, other, Part::Whole, &blob).await, blob);
    let mut waiting = Box::pin(cache.fetch(name, Part::Whole, given(&blob)));
    assert!(poll_once(&mut waiting).await.is_none(), "a second load began while the first was under way");
    drop(hanging);
    assert_eq!(waiting.await.unwrap(), blob);
}

/// **C5** It never holds anything but what storage gave: no other byte, no other length, nothing for a name that nobody
/// inserted, and nothing of a load that failed or was given up.
///
/// # Panics
/// As all here.
pub async fn c5_it_holds_only_what_storage_gave(place: &dyn CachePlace) {
    let cache = place.open().await;
    for number in 0..40 {
        let (name, blob) = (sample_name(number), sample_bytes(number, BLOB_BYTES as usize));
        for part in parts() {
            let bytes = part_of(&blob, part);
            cache.insert(name, part, bytes.clone()).await;
            let found = cache.get(name, part).await;
            assert!(found.is_none_or(|found| found == bytes), "{part:?} of {name} changed");
            assert_eq!(fetched(&*cache, name, part, &bytes).await, bytes);
        }
        // Neither a part beyond what came, nor an absent blob, is answered out of nothing.
        for part in [range(512, 513), range(256, 513), range(600, 700)] {
            assert_eq!(cache.get(name, part).await, None);
        }
        let absent = sample_name(1000 + number);
        assert_eq!(cache.get(absent, Part::Whole).await, None);
        assert!(cache.fetch(absent, Part::Whole, failing()).await.is_err());
        let mut dropped = Box::pin(cache.fetch(absent, Part::Whole, Box::pin(std::future::pending())));
        assert!(poll_once(&mut dropped).await.is_none());
        drop(dropped);
        assert_eq!(cache.get(absent, Part::Whole).await, None);
        assert_eq!(cache.get(absent, range(0, 0)).await, None);
    }
}

/// **C6** It may forget at any time: whatever it kept and whatever it forgot, of every fetch the answer is right, and one
/// that was removed is loaded anew.
///
/// # Panics
/// As all here.
pub async fn c6_it_may_forget_at_any_time(place: &dyn CachePlace) {
    let mut dice = Dice::new(6);
    let mut cache = place.open().await;
    for round in 0..300 {
        let number = dice.below(20);
        let (name, blob) = (sample_name(number), sample_bytes(number, BLOB_BYTES as usize));
        match dice.below(6) {
            0 => cache.remove(name).await,
            1 => cache = place.open().await,
            _ => {
                let part = parts()[dice.below(5) as usize];
                let bytes = part_of(&blob, part);
                assert_eq!(fetched(&*cache, name, part, &bytes).await, bytes, "round {round}");
            }
        }
    }
    for number in 0..20 {
        let (name, bytes) = (sample_name(number), sample_bytes(number + 50, BLOB_BYTES as usize));
        cache.remove(name).await;
        assert_eq!(cache.get(name, Part::Whole).await, None);
        assert_eq!(fetched(&*cache, name, Part::Whole, &bytes).await, bytes);
    }
}
