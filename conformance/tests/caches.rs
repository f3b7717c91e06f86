//! The caches of the core pass their clauses, and for each clause a cache that breaks it fails that clause's test alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_conformance::block_on;
use strongroom_conformance::cache::CachePlace;
use strongroom_core::cache::{Cache, Load, MemoryCache, NoCache, Part, SingleFlight, Usage};
use strongroom_core::storage::{Error, ErrorKind, Name, Operation, Result};

const BYTES_MAX: u64 = 64 << 10;

/// Gone with the process: each handle is a clone of the one.
struct Shared(Arc<dyn Cache>, u64);

#[async_trait]
impl CachePlace for Shared {
    async fn open(&self) -> Arc<dyn Cache> {
        self.0.clone()
    }

    fn bytes_max(&self) -> u64 {
        self.1
    }
}

mod in_memory {
    use super::*;
    strongroom_conformance::cache_conformance!(Shared(Arc::new(MemoryCache::new(BYTES_MAX)), BYTES_MAX));
}

mod in_memory_and_large {
    use super::*;
    strongroom_conformance::cache_conformance!(Shared(Arc::new(MemoryCache::new(64 << 20)), 64 << 20));
}

mod in_too_little_memory {
    use super::*;
    strongroom_conformance::cache_conformance!(Shared(Arc::new(MemoryCache::new(1000)), 1000));
}

mod none {
    use super::*;
    strongroom_conformance::cache_conformance!(Shared(Arc::new(NoCache::default()), 0));
}

/// What is wrong with a cache, by the clause that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Its medium's failures are the caller's.
    C1,
    /// A load that began before a removal is kept after it.
    C2,
    /// It grows.
    C3,
    /// Everyone loads for himself.
    C4,
    /// Of what it does not have, it has the empty parts.
    C5,
    /// A handle that has forgotten answers all the same.
    C6,
}

struct Place {
    fault: Fault,
    cache: Arc<MemoryCache>,
    broken_down: Arc<AtomicBool>,
    opened: AtomicU64,
}

impl Place {
    fn new(fault: Fault) -> Self {
        let bytes_max = if fault == Fault::C3 { u64::MAX / 4 } else { BYTES_MAX };
        Self {
            fault,
            cache: Arc::new(MemoryCache::new(bytes_max)),
            broken_down: Arc::default(),
            opened: AtomicU64::new(0),
        }
    }
}

#[async_trait]
impl CachePlace for Place {
    async fn open(&self) -> Arc<dyn Cache> {
        let is_first = self.opened.fetch_add(1, Ordering::SeqCst) == 0;
        Arc::new(Faulty {
            fault: self.fault,
            cache: self.cache.clone(),
            flights: SingleFlight::default(),
            broken_down: self.broken_down.clone(),
            is_first,
        })
    }

    fn bytes_max(&self) -> u64 {
        BYTES_MAX
    }

    fn break_down(&self) -> bool {
        self.broken_down.store(true, Ordering::SeqCst);
        true
    }
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    cache: Arc<MemoryCache>,
    flights: SingleFlight,
    broken_down: Arc<AtomicBool>,
    is_first: bool,
}

impl Faulty {
    fn is_broken_down(&self) -> bool {
        self.broken_down.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Cache for Faulty {
    async fn get(&self, name: Name, part: Part) -> Option<Bytes> {
        match (self.fault, part) {
            (Fault::C5, Part::Range { start, end }) if start == end => Some(Bytes::new()),
            _ if self.is_broken_down() => None,
            _ => self.cache.get(name, part).await,
        }
    }

    async fn insert(&self, name: Name, part: Part, bytes: Bytes) {
        if !self.is_broken_down() {
            self.cache.insert(name, part, bytes).await;
        }
    }

    async fn remove(&self, name: Name) {
        self.cache.remove(name).await;
    }

    async fn fetch(&self, name: Name, part: Part, load: Load<'_>) -> Result<Bytes> {
        match self.fault {
            Fault::C1 if self.is_broken_down() => {
                Err(Error::new(ErrorKind::Unavailable, Operation::Get, "the medium of a cache"))
            }
            Fault::C4 => load.await,
            Fault::C2 => {
                let turn = self.flights.enter(name, part).await;
                if let Some(bytes) = turn.landed() {
                    return Ok(bytes);
                }
                if let Some(bytes) = self.get(name, part).await {
                    return Ok(bytes);
                }
                let bytes = load.await?;
                self.insert(name, part, bytes.clone()).await;
                turn.land(bytes.clone(), || {});
                Ok(bytes)
            }
            Fault::C6 if !self.is_first => Ok(self.get(name, part).await.unwrap_or_default()),
            _ if self.is_broken_down() => load.await,
            _ => self.cache.fetch(name, part, load).await,
        }
    }

    async fn usage(&self) -> Usage {
        Usage { bytes_max: BYTES_MAX, ..self.cache.usage().await }
    }
}

/// The clauses that a cache with this fault fails.
fn failed(fault: Fault) -> Vec<&'static str> {
    let mut failed = Vec::new();
    macro_rules! run {
        ({} $($clause:ident)*) => {$(
            let place = Place::new(fault);
            let passes = catch_unwind(AssertUnwindSafe(|| block_on(strongroom_conformance::cache::$clause(&place))));
            if passes.is_err() {
                failed.push(&stringify!($clause)[..2]);
            }
        )*};
    }
    strongroom_conformance::each_cache_clause!({ run } {});
    failed
}

#[test]
fn a_cache_that_breaks_a_clause_fails_its_test_and_no_other() {
    assert_eq!(failed(Fault::None), Vec::<&str>::new());
    for (fault, clause) in [
        (Fault::C1, "c1"),
        (Fault::C2, "c2"),
        (Fault::C3, "c3"),
        (Fault::C4, "c4"),
        (Fault::C5, "c5"),
        (Fault::C6, "c6"),
    ] {
        assert_eq!(failed(fault), [clause], "{fault:?}");
    }
}

#[test]
fn the_whole_suite_runs_by_one_call_too() {
    let mut clauses = Vec::new();
    let fresh = || Shared(Arc::new(MemoryCache::new(BYTES_MAX)), BYTES_MAX);
    block_on(strongroom_conformance::cache::run_all(fresh, |clause| clauses.push(clause)));
    assert_eq!(clauses.len(), 6);
}
