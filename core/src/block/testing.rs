//! A storage that does as it is told, and workers, for unit tests.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use async_trait::async_trait;
use bytes::Bytes;

use super::{BlockContext, Geometry};
use crate::crypto::{Keys, Secret, Suite};
use crate::env::{BoxTask, Env, Spawn};
use crate::storage::bounds::name_range;
use crate::storage::{
    BatchSupport, Capabilities, Durability, Effect, Error, ErrorKind, ListOrder, Name, Operation, Put, RangeReads,
    Reach, Result, Retry, Storage, Torn,
};

/// What happens to a put, in the order of the puts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Good,
    /// It fails and says that it is useless to try again.
    Refused,
    /// It fails, nothing changed, trying again can help.
    Busy,
    /// It takes effect, and the reply is lost.
    ReplyLost,
    /// It is answered after so many polls.
    Slow(usize),
    /// It panics.
    Panics,
    /// It is answered after `release`.
    Held,
    /// It fails after `release`, and says that it is useless to try again.
    HeldAndRefused,
}

/// What becomes of an answer to a get.
pub(super) type Twist = fn(&Option<Range<u64>>, Bytes) -> Result<Bytes>;

#[derive(Debug, Default)]
pub(crate) struct TestStorage {
    pub(crate) blobs: Mutex<BTreeMap<Name, Bytes>>,
    pub(super) fates: Mutex<VecDeque<Fate>>,
    /// The fate of puts when `fates` is empty.
    pub(super) usual: Mutex<Option<Fate>>,
    pub(super) ranges: Mutex<Vec<Option<Range<u64>>>>,
    pub(super) twist: Mutex<Option<Twist>>,
    pub(super) sent: Mutex<Vec<(Name, Bytes)>>,
    pub(super) release: AtomicBool,
    running: AtomicUsize,
    pub(super) running_most: AtomicUsize,
    /// Reads wait a turn.
    pub(super) reads_wait: AtomicBool,
    reading: AtomicUsize,
    pub(super) reading_most: AtomicUsize,
}

impl TestStorage {
    pub(super) fn set(&self, name: Name, bytes: impl Into<Bytes>) {
        self.blobs.lock().unwrap().insert(name, bytes.into());
    }

    pub(super) fn only(&self) -> (Name, Bytes) {
        let blobs = self.blobs.lock().unwrap();
        assert_eq!(blobs.len(), 1);
        blobs.iter().next().map(|(name, bytes)| (*name, bytes.clone())).unwrap()
    }

    pub(super) fn plan(&self, fates: &[Fate]) {
        self.fates.lock().unwrap().extend(fates);
    }
}

async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if yielded {
            return std::task::Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[async_trait]
impl Storage for TestStorage {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reach: Reach::Process,
            durability: Durability::None,
            torn: Torn::Never,
            batch: BatchSupport::Sequential,
            list_order: ListOrder::Ascending,
            range_reads: RangeReads::Native,
            block_bytes_best: 4096,
            block_bytes_max: 4 << 20,
        }
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let usual = *self.usual.lock().unwrap();
        let fate = self.fates.lock().unwrap().pop_front().or(usual).unwrap_or(Fate::Good);
        self.sent.lock().unwrap().push((name, bytes.clone()));
        self.running_most.fetch_max(self.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let insert = || match self.blobs.lock().unwrap().entry(name) {
            std::collections::btree_map::Entry::Occupied(_) => Put::Exists,
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(bytes.clone());
                Put::Created
            }
        };
        let failure = |kind| Error::new(kind, Operation::Put, name.to_hex());
        let answer = match fate {
            Fate::Good => Ok(insert()),
            Fate::Refused => Err(failure(ErrorKind::Full)),
            Fate::Busy => Err(failure(ErrorKind::Busy)),
            Fate::ReplyLost => {
                insert();
                Err(failure(ErrorKind::Other).with_retry(Retry::Useless).with_effect(Effect::Unknown))
            }
            Fate::Slow(polls) => {
                for _ in 0..polls {
                    yield_once().await;
                }
                Ok(insert())
            }
            Fate::Held | Fate::HeldAndRefused => {
                while !self.release.load(Ordering::SeqCst) {
                    yield_once().await;
                }
                if matches!(fate, Fate::Held) { Ok(insert()) } else { Err(failure(ErrorKind::Full)) }
            }
            Fate::Panics => panic!("planned"),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.put(name, bytes).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.ranges.lock().unwrap().push(range.clone());
        if self.reads_wait.load(Ordering::SeqCst) {
            self.reading_most.fetch_max(self.reading.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            yield_once().await;
            self.reading.fetch_sub(1, Ordering::SeqCst);
        }
        let failure = |kind| Error::new(kind, Operation::Get, name.to_hex());
        let blob = self.blobs.lock().unwrap().get(&name).cloned().ok_or_else(|| failure(ErrorKind::NotFound))?;
        let range = range.unwrap_or(0..blob.len() as u64);
        if range.end > blob.len() as u64 {
            return Err(failure(ErrorKind::RangeInvalid));
        }
        if range.end - range.start > max_bytes {
            return Err(failure(ErrorKind::LimitExceeded));
        }
        let answer = blob.slice(range.start as usize..range.end as usize);
        let twist = *self.twist.lock().unwrap();
        twist.map_or(Ok(answer.clone()), |twist| twist(&Some(range), answer))
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.get(name, None, u64::MAX).await.map(|bytes| bytes.len() as u64)
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.blobs.lock().unwrap().remove(&name);
        Ok(())
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let Some((first, last)) = name_range(prefix, after) else { return Ok(Vec::new()) };
        Ok(self.blobs.lock().unwrap().range(first..=last).map(|(name, _)| *name).collect())
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    async fn persist(&self, _: &[Name]) -> Result<()> {
        Ok(())
    }
}

/// Threads that each run one task at a time, and outlive its panic.
pub(super) struct Threads(Mutex<mpsc::Sender<BoxTask>>, usize);

impl Threads {
    pub(super) fn new(count: usize) -> Arc<Self> {
        let (sender, receiver) = mpsc::channel::<BoxTask>();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..count {
            let receiver = receiver.clone();
            std::thread::spawn(move || {
                loop {
                    let Ok(task) = receiver.lock().unwrap().recv() else { return };
                    let run = std::panic::AssertUnwindSafe(|| futures_lite::future::block_on(task));
                    let _ = std::panic::catch_unwind(run);
                }
            });
        }
        Arc::new(Self(Mutex::new(sender), count))
    }
}

impl Spawn for Threads {
    fn spawn(&self, task: BoxTask) {
        self.0.lock().unwrap().send(task).unwrap();
    }

    fn parallelism(&self) -> usize {
        self.1
    }
}

/// The deterministic environment's clock and randomness, and real threads.
struct Seeded(Env);

impl crate::env::Clock for Seeded {
    fn now(&self) -> u64 {
        self.0.now()
    }

    fn monotonic_nanos(&self) -> u64 {
        self.0.monotonic_nanos()
    }
}

impl crate::env::Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> std::result::Result<(), crate::env::RandomUnavailable> {
        self.0.fill_random(bytes)
    }
}

pub(super) struct World {
    pub(super) storage: Arc<TestStorage>,
    pub(super) context: Arc<BlockContext>,
}

pub(super) fn keys(suite: Suite, repository: u8) -> Arc<Keys> {
    let epochs = [(3, Secret::from_bytes([3; 32])), (4, Secret::from_bytes([4; 32]))];
    Arc::new(Keys::new(suite, [repository; 16], &Secret::from_bytes([1; 32]), &epochs))
}

impl World {
    pub(super) fn new(suite: Suite, block_bytes: u32) -> Self {
        Self::with(keys(suite, 7), block_bytes, Env::deterministic(1))
    }

    pub(super) fn with_threads(block_bytes: u32, threads: usize) -> Self {
        let seeded = Arc::new(Seeded(Env::deterministic(1)));
        let env = Env::new(seeded.clone(), seeded, Some(Threads::new(threads)));
        Self::with(keys(Suite::Aes256Gcm, 7), block_bytes, env)
    }

    pub(super) fn with(keys: Arc<Keys>, block_bytes: u32, env: Env) -> Self {
        let storage = Arc::new(TestStorage::default());
        let geometry = Geometry::new(block_bytes).unwrap();
        let context = Arc::new(BlockContext { storage: storage.clone(), env, keys, geometry });
        Self { storage, context }
    }

    /// The same storage under other keys.
    pub(super) fn rekeyed(&self, keys: Arc<Keys>) -> Arc<BlockContext> {
        Arc::new(BlockContext { keys, ..(*self.context).clone() })
    }
}
