//! Bounded, in memory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use quick_cache::sync::{Cache as Clock, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::{Cache, Load, Part, SingleFlight, Usage};
use crate::storage::{Name, Result};

/// What an entry costs beside its content, rounded up.
const NAME_OVERHEAD_BYTES: u64 = 256;
/// What one more part of it costs.
const PART_OVERHEAD_BYTES: u64 = 128;
/// How large an entry is taken to be when the index is laid out.
const ENTRY_BYTES_TYPICAL: u64 = 64 << 10;

/// Ciphertext in memory, at most so many bytes of it; gone with the process.
///
/// It forgets by blob: the parts of one come and go together.
pub struct MemoryCache {
    blobs: Clock<Name, Arc<Blob>, Weight>,
    flights: SingleFlight,
    bytes_max: u64,
}

/// Parts of one blob, none within another.
#[derive(Clone, Debug, Default)]
struct Blob {
    parts: Vec<(Part, Bytes)>,
}

impl Blob {
    fn find(&self, wanted: Part) -> Option<Bytes> {
        let within = self.parts.iter().find_map(|(part, bytes)| cut(*part, bytes, wanted));
        within.or_else(|| self.put_together(wanted))
    }

    /// The wanted part out of several that touch or overlap.
    fn put_together(&self, wanted: Part) -> Option<Bytes> {
        let Part::Range { start, end } = wanted else { return None };
        let (mut at, mut pieces) = (start, Vec::new());
        while at < end {
            let piece = self.parts.iter().filter_map(|(part, bytes)| {
                let Part::Range { start: from, end: to } = *part else { return None };
                (from <= at && at < to).then(|| cut(*part, bytes, Part::Range { start: at, end: to.min(end) }))?
            });
            let piece = piece.max_by_key(Bytes::len).filter(|piece| !piece.is_empty())?;
            at = at.saturating_add(piece.len() as u64);
            pieces.push(piece);
        }
        // Of nothing there is no telling where it may be.
        (start < end).then(|| pieces.concat().into())
    }

    fn weight(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes.len() as u64 + PART_OVERHEAD_BYTES).sum::<u64>() + NAME_OVERHEAD_BYTES
    }
}

/// The wanted part out of another, where it lies within.
fn cut(part: Part, bytes: &Bytes, wanted: Part) -> Option<Bytes> {
    let start = match (part, wanted) {
        (Part::Whole, Part::Whole) => return Some(bytes.clone()),
        (Part::Range { .. }, Part::Whole) => return None,
        (Part::Whole, Part::Range { .. }) => 0,
        (Part::Range { start, .. }, Part::Range { .. }) => start,
    };
    let Part::Range { start: from, end: to } = wanted else { return None };
    let from = usize::try_from(from.checked_sub(start)?).ok()?;
    let to = usize::try_from(to.checked_sub(start)?).ok()?;
    (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
}

#[derive(Clone)]
struct Weight;

impl Weighter<Name, Arc<Blob>> for Weight {
    fn weight(&self, _: &Name, blob: &Arc<Blob>) -> u64 {
        blob.weight()
    }
}

impl MemoryCache {
    /// An empty cache that holds at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let items = usize::try_from(bytes_max / ENTRY_BYTES_TYPICAL).unwrap_or(usize::MAX).clamp(64, 1 << 20);
        // One shard: several would each round the bound up, and refuse what is larger than their share of it.
        let options =
            OptionsBuilder::new().estimated_items_capacity(items).weight_capacity(bytes_max).shards(1).build();
        let blobs = match options {
            Ok(options) => {
                Clock::with_options(options, Weight, DefaultHashBuilder::default(), DefaultLifecycle::default())
            }
            // Only where items or capacity were left out.
            Err(_) => Clock::with_weighter(items, bytes_max, Weight),
        };
        Self { blobs, flights: SingleFlight::default(), bytes_max }
    }

    /// Adds a part. One at a time (the caller holds the lock of the flights), so that no part is lost.
    fn keep(&self, name: Name, part: Part, bytes: &Bytes) {
        if !part.fits(bytes.len()) || (bytes.len() as u64).saturating_add(NAME_OVERHEAD_BYTES) > self.bytes_max {
            return;
        }
        let mut blob = self.blobs.get(&name).map(|blob| Blob::clone(&blob)).unwrap_or_default();
        match blob.find(part) {
            Some(found) if found == bytes => return,
            _ => {}
        }
        // What is within the new part is superfluous, and what the new part is within is another sealing of the name.
        blob.parts
            .retain(|(held, held_bytes)| cut(part, bytes, *held).is_none() && cut(*held, held_bytes, part).is_none());
        // A copy: a slice would keep all of the buffer that it was cut from, and the bound would be a lie.
        blob.parts.push((part, Bytes::copy_from_slice(bytes)));
        if blob.weight() > self.bytes_max {
            self.blobs.remove(&name);
        } else {
            self.blobs.insert(name, Arc::new(blob));
        }
    }
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Cache for MemoryCache {
    async fn get(&self, name: Name, part: Part) -> Option<Bytes> {
        self.blobs.get(&name)?.find(part)
    }

    async fn insert(&self, name: Name, part: Part, bytes: Bytes) {
        self.flights.alone(|| self.keep(name, part, &bytes));
    }

    async fn remove(&self, name: Name) {
        self.flights.revoke_and(name, || {
            self.blobs.remove(&name);
        });
    }

    async fn fetch(&self, name: Name, part: Part, load: Load<'_>) -> Result<Bytes> {
        if let Some(bytes) = self.get(name, part).await {
            return Ok(bytes);
        }
        let turn = self.flights.enter(name, part).await;
        if let Some(bytes) = turn.landed() {
            return Ok(bytes);
        }
        // It may have landed between the look and the turn.
        if let Some(bytes) = self.get(name, part).await {
            return Ok(bytes);
        }
        let bytes = load.await?;
        turn.land(bytes.clone(), || self.keep(name, part, &bytes));
        Ok(bytes)
    }

    async fn usage(&self) -> Usage {
        Usage { bytes: self.blobs.weight(), bytes_max: self.bytes_max }
    }
}

impl std::fmt::Debug for MemoryCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("MemoryCache")
            .field("bytes", &self.blobs.weight())
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;
    use proptest::prelude::*;

    use super::*;

    const NAME: Name = Name::new([1; 16]);

    fn range(start: u64, end: u64) -> Part {
        Part::Range { start, end }
    }

    fn blob(bytes: usize) -> Bytes {
        (0..bytes).map(|place| (place * 7 % 251) as u8).collect()
    }

    #[test]
    fn a_part_is_answered_from_a_larger_one_and_takes_no_more_room() {
        block_on(async {
            let (cache, blob) = (MemoryCache::new(1 << 20), blob(1000));
            cache.insert(NAME, range(0, 100), blob.slice(0..100)).await;
            cache.insert(NAME, range(50, 300), blob.slice(50..300)).await;
            assert_eq!(cache.get(NAME, range(60, 300)).await, Some(blob.slice(60..300)));
            assert_eq!(cache.get(NAME, range(0, 300)).await, Some(blob.slice(0..300)));
            assert_eq!(cache.get(NAME, range(0, 301)).await, None);
            assert_eq!(cache.get(NAME, Part::Whole).await, None);
            cache.insert(NAME, Part::Whole, blob.clone()).await;
            let used = cache.usage().await.bytes;
            cache.insert(NAME, range(0, 100), blob.slice(0..100)).await;
            assert_eq!(cache.usage().await.bytes, used);
            assert_eq!(cache.get(NAME, range(900, 1000)).await, Some(blob.slice(900..1000)));
            assert_eq!(cache.get(NAME, range(900, 1001)).await, None);
            assert!(used < 1000 + NAME_OVERHEAD_BYTES + 2 * PART_OVERHEAD_BYTES);
        });
    }

    #[test]
    fn of_two_contents_the_later_counts() {
        block_on(async {
            let (cache, blob) = (MemoryCache::new(1 << 20), blob(100));
            cache.insert(NAME, Part::Whole, vec![0; 100].into()).await;
            cache.insert(NAME, range(10, 20), blob.slice(10..20)).await;
            assert_eq!(cache.get(NAME, range(12, 20)).await, Some(blob.slice(12..20)));
            assert_eq!(cache.get(NAME, Part::Whole).await, None);
        });
    }

    #[test]
    fn nothing_of_the_buffer_that_was_given_is_held() {
        block_on(async {
            let (cache, blob) = (MemoryCache::new(1 << 20), blob(4096));
            cache.insert(NAME, range(0, 16), blob.slice(0..16)).await;
            assert!(blob.is_unique());
        });
    }

    #[test]
    fn a_cache_without_room_holds_nothing() {
        block_on(async {
            for bytes_max in [0, 1, 300] {
                let cache = MemoryCache::new(bytes_max);
                cache.insert(NAME, Part::Whole, blob(1000)).await;
                assert_eq!(cache.get(NAME, Part::Whole).await, None);
                assert_eq!(cache.usage().await.bytes, 0);
            }
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_is_inserted_the_bound_holds_and_hits_are_right(
            steps in proptest::collection::vec((0..6_u8, 0..3000_u64, 0..3000_u64, 0..8_u8), 1..80),
            bytes_max in 500..12_000_u64,
        ) {
            block_on(async {
                let cache = MemoryCache::new(bytes_max);
                let blob_of = |name: u8| -> Bytes { blob(3000).iter().map(|byte| byte ^ name).collect() };
                for (number, start, end, what) in steps {
                    let (name, blob) = (Name::new([number; 16]), blob_of(number));
                    let (start, end) = (start.min(end), start.max(end));
                    match what {
                        0 => cache.remove(name).await,
                        1 => cache.insert(name, Part::Whole, blob.clone()).await,
                        _ => cache.insert(name, range(start, end), blob.slice(start as usize..end as usize)).await,
                    }
                    prop_assert!(cache.usage().await.bytes <= bytes_max);
                    for part in [range(start, end), range(start, start + (end - start) / 2), Part::Whole] {
                        let right = match part {
                            Part::Whole => blob.clone(),
                            Part::Range { start, end } => blob.slice(start as usize..end as usize),
                        };
                        let found = cache.get(name, part).await;
                        prop_assert!(found.is_none_or(|found| found == right));
                    }
                }
                Ok(())
            })?;
        }
    }
}
