//! The engine on the layers: whatever a flaky storage or a hostile cache does, the data is right, or the error is typed.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_core::cache::{Cache, Load, MemoryCache, Part, Usage};
use strongroom_core::crypto::{KdfParameters, RootSecret, Suite};
use strongroom_core::engine::keyring::Credentials;
use strongroom_core::engine::{
    CheckOptions, ChunkNumber, CreateOptions, Direction, Engine, OpenOptions, Table, Tuning, Unlock, View,
};
use strongroom_core::env::{Env, ManualClock};
use strongroom_core::format::BlockId;
use strongroom_core::layer::{Cached, Limit, Limits, Metrics, Retry, RetryPolicy, Timeout};
use strongroom_core::storage::{
    Capabilities, Effect, Error as StorageError, ErrorKind, Name, Operation, Put, Result as StorageResult, Storage,
};
use strongroom_core::{Error, Result};
use strongroom_memory::MemoryStorage;

use crate::support::Flaky;

const TABLE: Table = Table(0x80);
/// Small blocks, so that there are many, and larger than the parts that are read, so that parts are.
const BLOCK_BYTES: u32 = 32 << 10;

fn tuning() -> Tuning {
    // No node stays in memory, so that reading reads.
    Tuning { checkpoint_commits: 6, close_commits: 4, node_cache_bytes_max: 1, ..Tuning::default() }
}

pub(crate) async fn create(storage: Arc<dyn Storage>) -> Result<(Engine, RootSecret)> {
    let credentials = Credentials::password("correct horse");
    let options = CreateOptions {
        credentials: &credentials,
        recovery: None,
        suite: Suite::Aes256Gcm,
        block_bytes: BLOCK_BYTES,
        kdf: KdfParameters::MINIMUM,
        trusted: None,
        tuning: tuning(),
    };
    let engine = Engine::create(storage, Env::deterministic(1), options).await?;
    let root = engine.root_secret();
    Ok((engine, root))
}

pub(crate) async fn open(storage: Arc<dyn Storage>, root: &RootSecret, seed: u64) -> Result<Engine> {
    let mut options = OpenOptions::new(Unlock::Root(root));
    options.tuning = tuning();
    Engine::open(storage, Env::deterministic(1000 + seed), options).await
}

/// What a repository holds, or may hold where an answer was lost.
#[derive(Clone, Debug, Default)]
struct Content {
    rows: BTreeMap<Vec<u8>, Vec<Bytes>>,
    chunks: BTreeMap<ChunkNumber, Bytes>,
}

fn payload(number: u64, bytes: usize) -> Bytes {
    let mut dice = Dice::new(number);
    (0..bytes).map(|_| dice.roll() as u8).collect()
}

async fn write(engine: &Engine, number: u64, content: &mut Content) -> Result<()> {
    let key = (number % 40).to_be_bytes().to_vec();
    let value = payload(number, 300);
    let mut transaction = engine.begin();
    transaction.put(TABLE, &key, &value)?;
    let chunk = payload(number << 20, 9000);
    let place = transaction.put_chunk(Some(engine.identity(&chunk)), chunk.clone()).await?;
    let done = transaction.commit().await.map(|_| ());
    let values = content.rows.entry(key).or_default();
    match &done {
        Ok(()) => {
            *values = vec![value];
            content.chunks.insert(place, chunk);
        }
        Err(Error::CommitUnknown { .. }) => values.push(value),
        Err(_) => {}
    }
    done
}

async fn assert_right(engine: &Engine, content: &Content) {
    let snapshot = engine.snapshot();
    let mut scan = snapshot.scan(TABLE, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
    let mut seen = 0;
    while let Some((key, value)) = scan.next().await.unwrap() {
        assert!(content.rows[key.as_ref()].contains(&value), "another value");
        seen += 1;
    }
    let certain = content.rows.values().filter(|values| values.len() == 1).count();
    assert!(seen >= certain, "{seen} of {certain} rows");
    for (number, chunk) in &content.chunks {
        assert!(snapshot.chunk(*number).await.unwrap() == *chunk, "another chunk");
    }
}

type Wrap = fn(Arc<dyn Storage>, &Env, &Metrics) -> Arc<dyn Storage>;

fn policy() -> RetryPolicy {
    RetryPolicy { attempts_max: 30, total_max: Duration::from_secs(1 << 20), ..RetryPolicy::default() }
}

fn limits() -> Limits {
    let rate = NonZeroU64::new(10 << 20);
    Limits { calls_max: NonZeroUsize::new(3), upload_bytes_per_second: rate, download_bytes_per_second: rate }
}

fn in_the_usual_order(storage: Arc<dyn Storage>, env: &Env, metrics: &Metrics) -> Arc<dyn Storage> {
    let timeout = Arc::new(Timeout::new(Arc::new(metrics.over(storage)), env.clone(), Duration::from_secs(600)));
    Arc::new(Retry::new(Arc::new(Limit::new(timeout, env.clone(), limits())), env.clone(), policy()))
}

fn in_another_order(storage: Arc<dyn Storage>, env: &Env, metrics: &Metrics) -> Arc<dyn Storage> {
    let limit = Arc::new(Limit::new(Arc::new(metrics.over(storage)), env.clone(), limits()));
    Arc::new(Retry::new(Arc::new(Timeout::new(limit, env.clone(), Duration::from_secs(600))), env.clone(), policy()))
}

#[test]
fn on_a_flaky_storage_nothing_acknowledged_is_lost_and_nothing_read_is_wrong() {
    for seed in 0..6 {
        let wrap: Wrap = if seed % 2 == 0 { in_the_usual_order } else { in_another_order };
        let metrics = Metrics::new();
        // Sound until there is a repository.
        let flaky = Arc::new(Flaky::default());
        let (env, clock) = Env::manual(seed);
        let storage = wrap(flaky.clone(), &env, &metrics);
        clock
            .run(async {
                let (engine, root) = create(storage.clone()).await.unwrap();
                engine.close().await.unwrap();
                drop(engine);
                flaky.fail_at_random(seed, 150);
                let mut content = Content::default();
                let mut acknowledged = 0;
                for round in 0..4 {
                    // Opening claims an epoch by a commit, of which the fate may stay open.
                    let engine = loop {
                        match open(storage.clone(), &root, seed << 8 | round).await {
                            Ok(engine) => break engine,
                            Err(error) => assert!(is_open(&error), "{error}"),
                        }
                    };
                    for number in round * 12..round * 12 + 12 {
                        match write(&engine, number, &mut content).await {
                            Ok(()) => acknowledged += 1,
                            Err(error) => assert!(is_open(&error), "{error}"),
                        }
                    }
                    assert_right(&engine, &content).await;
                    let _ = engine.close().await;
                }
                assert!(acknowledged > 30, "{acknowledged} of 48");
                flaky.fail_at_random(seed, 0);
                let engine = open(storage.clone(), &root, seed << 8 | 99).await.unwrap();
                assert_right(&engine, &content).await;
                let report = engine
                    .check(CheckOptions { data: true, references: None, ..CheckOptions::default() })
                    .await
                    .unwrap();
                assert!(report.findings.is_empty(), "{:#?}", report.findings);
            })
            .expect("it waits for nothing but time");
        let counted = metrics.snapshot();
        assert!(counted.errors(ErrorKind::Unavailable) > 20, "{counted}");
        assert!(counted.barriers() > 0);
    }
}

/// What may be answered where calls are lost: the fate of something is open, or a barrier failed.
fn is_open(error: &Error) -> bool {
    matches!(error, Error::CommitUnknown { .. } | Error::Storage(_) | Error::Conflict)
}

/// Refuses durable puts until a time, as a server that throttles does: nobody can tell whether it did them.
#[derive(Debug)]
struct Throttled {
    inner: MemoryStorage,
    clock: Arc<ManualClock>,
    until: Mutex<Duration>,
    refused: AtomicU64,
}

#[async_trait]
impl Storage for Throttled {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        true
    }

    async fn put(&self, name: Name, bytes: Bytes) -> StorageResult<Put> {
        self.inner.put(name, bytes).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> StorageResult<Put> {
        if self.clock.elapsed() < *self.until.lock().unwrap() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let error = StorageError::new(ErrorKind::Unavailable, Operation::PutDurable, "throttled");
            return Err(error.with_effect(Effect::Unknown));
        }
        self.inner.put_durable(name, bytes).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> StorageResult<Bytes> {
        self.inner.get(name, range, max_bytes).await
    }

    async fn size(&self, name: Name) -> StorageResult<u64> {
        self.inner.size(name).await
    }

    async fn delete(&self, name: Name) -> StorageResult<()> {
        self.inner.delete(name).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> StorageResult<Vec<Name>> {
        self.inner.list(prefix, after).await
    }

    async fn sync(&self) -> StorageResult<()> {
        self.inner.sync().await
    }

    async fn persist(&self, names: &[Name]) -> StorageResult<()> {
        self.inner.persist(names).await
    }
}

#[test]
fn a_commit_outlasts_a_server_that_throttles_for_seconds_and_is_given_up_after_half_a_minute() {
    let (env, clock) = Env::manual(3);
    let throttled = Arc::new(Throttled {
        inner: MemoryStorage::default(),
        clock: clock.clone(),
        until: Mutex::default(),
        refused: AtomicU64::default(),
    });
    let storage: Arc<dyn Storage> = Arc::new(Retry::new(throttled.clone(), env.clone(), RetryPolicy::default()));
    let put = async |engine: &Engine, key: &[u8]| {
        let mut transaction = engine.begin();
        transaction.put(TABLE, key, b"value")?;
        transaction.commit().await.map(|_| ())
    };
    let throttle = |duration: Duration| {
        *throttled.until.lock().unwrap() = clock.elapsed().saturating_add(duration);
        throttled.refused.store(0, Ordering::Relaxed);
        clock.elapsed()
    };
    clock
        .run(async {
            let (engine, root) = create(storage.clone()).await.unwrap();
            engine.close().await.unwrap();
            let mut options = OpenOptions::new(Unlock::Root(&root));
            options.tuning = tuning();
            let engine = Engine::open(storage.clone(), env.clone(), options).await.unwrap();
            put(&engine, b"epoch").await.unwrap();

            let begun = throttle(Duration::from_secs(8));
            put(&engine, b"throttled").await.unwrap();
            let took = (clock.elapsed() - begun).as_secs();
            let refused = throttled.refused.load(Ordering::Relaxed);
            assert!((8..=14).contains(&took) && (4..=9).contains(&refused), "{took} s, {refused} tries");

            let begun = throttle(Duration::MAX);
            let unknown = put(&engine, b"given up").await.unwrap_err();
            assert!(matches!(unknown, Error::CommitUnknown { .. }), "{unknown}");
            let took = (clock.elapsed() - begun).as_secs();
            let refused = throttled.refused.load(Ordering::Relaxed);
            assert!((20..=30).contains(&took) && (8..=16).contains(&refused), "{took} s, {refused} tries");

            // The next one brings it in.
            throttle(Duration::ZERO);
            put(&engine, b"after").await.unwrap();
            for key in [&b"throttled"[..], b"given up", b"after"] {
                assert!(engine.snapshot().get(TABLE, key).await.unwrap().is_some());
            }
        })
        .expect("it waits for nothing but time");
}

/// Lies as often as not: other blobs, cut ones, flipped bits, what a name held before, and errors of its own.
#[derive(Debug)]
struct Hostile {
    honest: MemoryCache,
    state: Mutex<(Dice, Vec<Bytes>, u64)>,
}

impl Hostile {
    fn new(seed: u64) -> Self {
        Self { honest: MemoryCache::new(64 << 20), state: Mutex::new((Dice::new(seed), Vec::new(), 0)) }
    }

    fn lies(&self) -> u64 {
        self.state.lock().unwrap().2
    }

    fn lie(&self, truth: &Bytes) -> Option<StorageResult<Bytes>> {
        let mut state = self.state.lock().unwrap();
        let (dice, seen, lies) = &mut *state;
        seen.push(truth.clone());
        if dice.per_mille(500) {
            return None;
        }
        *lies += 1;
        let other = seen[dice.below(seen.len() as u64) as usize].clone();
        Some(Ok(match dice.below(7) {
            0 => return Some(Err(StorageError::new(ErrorKind::Corrupt, Operation::Get, "a hostile cache"))),
            1 => return Some(Err(StorageError::new(ErrorKind::NotFound, Operation::Get, "a hostile cache"))),
            2 => other,
            3 => other.iter().copied().chain(truth.iter().copied()).take(truth.len()).collect(),
            4 => truth.slice(..dice.below(truth.len() as u64) as usize),
            5 => truth.iter().chain(&other).copied().collect(),
            _ => {
                let mut bytes = truth.to_vec();
                for _ in 0..8 {
                    let place = dice.below(bytes.len() as u64) as usize;
                    bytes[place] ^= 1 << dice.below(8);
                }
                // Surely at the beginning and everywhere else, so that no record is spared.
                bytes.iter_mut().step_by(64).for_each(|byte| *byte ^= 1);
                bytes.into()
            }
        }))
    }
}

#[async_trait]
impl Cache for Hostile {
    async fn get(&self, name: Name, part: Part) -> Option<Bytes> {
        self.honest.get(name, part).await
    }

    async fn insert(&self, name: Name, part: Part, bytes: Bytes) {
        self.honest.insert(name, part, bytes).await;
    }

    /// It does not even forget.
    async fn remove(&self, _: Name) {}

    async fn fetch(&self, name: Name, part: Part, load: Load<'_>) -> StorageResult<Bytes> {
        let truth = self.honest.fetch(name, part, load).await?;
        self.lie(&truth).unwrap_or(Ok(truth))
    }

    async fn usage(&self) -> Usage {
        self.honest.usage().await
    }
}

#[test]
fn a_hostile_cache_costs_time_and_nothing_else() {
    block_on(async {
        for seed in 0..6 {
            let medium = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::default() });
            let hostile = Arc::new(Hostile::new(seed));
            let metrics = Metrics::new();
            let storage: Arc<dyn Storage> =
                Arc::new(Cached::new(Arc::new(metrics.over(Arc::new(medium.another()))), hostile.clone()));
            let (engine, root) = create(storage.clone()).await.unwrap();
            let mut content = Content::default();
            for number in 0..30 {
                write(&engine, number, &mut content).await.unwrap();
            }
            engine.close().await.unwrap();
            drop(engine);
            for round in 0..3 {
                let engine = open(storage.clone(), &root, round).await.unwrap();
                assert_right(&engine, &content).await;
                write(&engine, 30 + round, &mut content).await.unwrap();
                let report = engine
                    .check(CheckOptions { data: true, references: None, ..CheckOptions::default() })
                    .await
                    .unwrap();
                assert!(report.findings.is_empty(), "{:#?}", report.findings);
                engine.close().await.unwrap();
            }
            assert!(hostile.lies() > 50, "{} lies", hostile.lies());

            // Where storage lies too, it is damage, and never wrong data.
            let engine = open(storage.clone(), &root, 50).await.unwrap();
            for (name, blob) in medium.snapshot_blobs() {
                if matches!(BlockId::decode(&engine.keys().decrypt_name(*name.as_bytes())), Some(BlockId::Data { .. }))
                {
                    medium.overwrite(name, blob.iter().map(|byte| byte ^ 1).collect());
                }
            }
            let (mut right, mut damaged) = (0, 0);
            for (number, chunk) in &content.chunks {
                match engine.snapshot().chunk(*number).await {
                    Ok(read) => {
                        assert!(read == *chunk, "another chunk");
                        right += 1;
                    }
                    Err(Error::Damaged(_)) => damaged += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(damaged > 0, "{right} right, none damaged");
        }
    });
}

/// Writes down what it is given.
#[derive(Debug)]
struct Recording {
    cache: MemoryCache,
    held: Mutex<Vec<(Name, Part, Bytes)>>,
}

#[async_trait]
impl Cache for Recording {
    async fn get(&self, name: Name, part: Part) -> Option<Bytes> {
        self.cache.get(name, part).await
    }

    async fn insert(&self, name: Name, part: Part, bytes: Bytes) {
        self.held.lock().unwrap().push((name, part, bytes.clone()));
        self.cache.insert(name, part, bytes).await;
    }

    async fn remove(&self, name: Name) {
        self.cache.remove(name).await;
    }

    async fn fetch(&self, name: Name, part: Part, load: Load<'_>) -> StorageResult<Bytes> {
        let bytes = self.cache.fetch(name, part, load).await?;
        self.held.lock().unwrap().push((name, part, bytes.clone()));
        Ok(bytes)
    }

    async fn usage(&self) -> Usage {
        self.cache.usage().await
    }
}

#[test]
fn a_cache_saves_requests_and_holds_ciphertext_of_data_blocks_alone() {
    block_on(async {
        let planted = b"a sentence that nobody may find in a cache";
        let medium = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::default() });
        let cache = Arc::new(Recording { cache: MemoryCache::new(64 << 20), held: Mutex::default() });
        let metrics = Metrics::new();
        let storage: Arc<dyn Storage> =
            Arc::new(Cached::new(Arc::new(metrics.over(Arc::new(medium.another()))), cache.clone()));
        let (engine, root) = create(storage.clone()).await.unwrap();
        let mut numbers = Vec::new();
        for number in 0..20_u8 {
            let mut transaction = engine.begin();
            transaction.put(TABLE, &[&planted[..], &[number]].concat(), planted).unwrap();
            let chunk: Bytes = planted.iter().copied().chain([number]).cycle().take(9000).collect();
            numbers.push((transaction.put_chunk(None, chunk.clone()).await.unwrap(), chunk));
            transaction.commit().await.unwrap();
        }
        engine.checkpoint().await.unwrap();
        engine.close().await.unwrap();
        drop(engine);
        let mut requests = Vec::new();
        for round in 0..2 {
            let engine = open(storage.clone(), &root, round).await.unwrap();
            let before = metrics.snapshot();
            for (number, chunk) in &numbers {
                assert!(engine.snapshot().chunk(*number).await.unwrap() == *chunk);
            }
            requests.push(metrics.snapshot().since(&before).calls());
        }
        assert!(requests[0] > 10 && requests[1] == 0, "{requests:?}");

        let keys = open(storage, &root, 9).await.unwrap();
        let blobs = medium.snapshot_blobs();
        let held = cache.held.lock().unwrap();
        assert!(held.len() > 20);
        for (name, part, bytes) in held.iter() {
            assert!(bytes.windows(planted.len()).all(|window| window != planted), "plaintext in the cache");
            let id = BlockId::decode(&keys.keys().decrypt_name(*name.as_bytes()));
            assert!(matches!(id, Some(BlockId::Data { .. })), "{name} is no data block");
            let Some(blob) = blobs.get(name) else { continue };
            match part {
                Part::Whole => assert_eq!(bytes, blob),
                Part::Range { start, end } => {
                    assert!(start % 16384 == 0 && end % 16384 == 0, "{part:?} shows where a record is");
                    assert_eq!(*bytes, blob.slice(*start as usize..*end as usize));
                }
            }
        }
    });
}

#[test]
fn what_became_of_a_lost_block_is_found_out_once_however_many_chunks_were_in_it() {
    block_on(async {
        let medium = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::object_store() });
        let metrics = Metrics::new();
        let (engine, _) = create(Arc::new(metrics.over(Arc::new(medium.another())))).await.unwrap();
        let before = medium.snapshot_blobs();
        let mut transaction = engine.begin();
        let mut chunks = Vec::new();
        for number in 0..40 {
            let chunk = payload(number << 20, 9000);
            chunks.push(transaction.put_chunk(Some(engine.identity(&chunk)), chunk).await.unwrap());
        }
        transaction.commit().await.unwrap();
        let mut most = 0;
        for (name, blob) in medium.snapshot_blobs().iter().filter(|(name, _)| !before.contains_key(*name)) {
            medium.remove(*name);
            let read = async |chunks: &[ChunkNumber]| {
                let counts = metrics.snapshot();
                let read = engine.snapshot().chunks(chunks).await;
                (read, metrics.snapshot().since(&counts).of(Operation::List).calls)
            };
            let (all, lists) = read(&chunks).await;
            let mut lost = Vec::new();
            for (chunk, error) in chunks.iter().zip(all).filter_map(|(chunk, read)| Some((*chunk, read.err()?))) {
                assert!(matches!(&error, Error::Damaged(damage) if damage.blob == Some(*name)), "{error}");
                lost.push(chunk);
            }
            // The head is found by listing.
            let (_, lists_of_one) = read(lost.get(..1).unwrap_or_default()).await;
            assert_eq!(lists, lists_of_one, "{} chunks are lost", lost.len());
            assert!(lost.is_empty() || lists > 0, "nobody asked what became of it");
            medium.overwrite(*name, blob.clone());
            most = most.max(lost.len());
        }
        assert!(most >= 3, "{most} chunks of a block are lost");
    });
}
