//! A repository on the crashing double, or on what stands in its place, and the processes that open it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use strongroom::cache::{Cache, Load, MemoryCache, Part, Usage};
use strongroom::core::env::{Env, Random, RandomUnavailable};
use strongroom::core::storage::{Name, Result as StorageResult, Storage};
use strongroom::{CreateOptions, Credentials, KdfParameters, OpenOptions, Repository, Result, Suite, Tuning};
use strongroom_conformance::crash::CrashOptions;

use crate::medium::Medium;
use crate::model::times::Time;

const BLOCK_BYTES: u32 = 4096;

/// What storage it is on, and how it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Files of one host, whose last writes a power cut tears; content is shared, and no version kept where a file does not
    /// say.
    Files,
    /// A store that everyone sees, without locks; content is not shared, and two versions kept.
    Objects,
}

impl Arbitrary for Profile {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        prop_oneof![Just(Self::Files), Just(Self::Objects)].boxed()
    }
}

impl Profile {
    pub(crate) fn versions(self) -> u32 {
        match self {
            Self::Files => 0,
            Self::Objects => 2,
        }
    }
}

/// How a process looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Memory {
    /// It keeps decoded nodes.
    #[default]
    Warm,
    /// It keeps next to none, so that everything comes from storage again and again.
    Cold,
}

/// Ciphertext of a storage that is far away, in memory, all of which can be forgotten.
#[derive(Debug, Default)]
struct Forgetful(Mutex<Option<Arc<MemoryCache>>>);

impl Forgetful {
    fn now(&self) -> Arc<MemoryCache> {
        self.0.lock().unwrap().get_or_insert_with(|| Arc::new(MemoryCache::new(64 << 20))).clone()
    }

    fn forget(&self) {
        *self.0.lock().unwrap() = None;
    }
}

#[async_trait]
impl Cache for Forgetful {
    async fn get(&self, name: Name, part: Part) -> Option<Bytes> {
        self.now().get(name, part).await
    }

    async fn insert(&self, name: Name, part: Part, bytes: Bytes) {
        self.now().insert(name, part, bytes).await;
    }

    async fn remove(&self, name: Name) {
        self.now().remove(name).await;
    }

    async fn fetch(&self, name: Name, part: Part, load: Load<'_>) -> StorageResult<Bytes> {
        self.now().fetch(name, part, load).await
    }

    async fn usage(&self) -> Usage {
        self.now().usage().await
    }
}

/// Randomness that a seed gives.
struct Seeded(Env);

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> std::result::Result<(), RandomUnavailable> {
        self.0.fill_random(bytes)
    }
}

/// A process of its own, in the time of all.
fn env(seed: u64, time: &Arc<Time>) -> Env {
    Env::new(time.clone(), Arc::new(Seeded(Env::deterministic(seed))), None)
}

pub(crate) struct Bed {
    pub(crate) storage: Medium,
    pub(crate) time: Arc<Time>,
    profile: Profile,
    /// Of the process that has it open.
    cache: Arc<Forgetful>,
    seed: u64,
}

fn tuning(memory: Memory) -> Tuning {
    let node_cache_bytes_max = if memory == Memory::Cold { 1 } else { 16 << 20 };
    Tuning { checkpoint_commits: 12, close_commits: 8, node_cache_bytes_max, ..Tuning::default() }
}

fn credentials() -> Credentials {
    Credentials::password("correct horse")
}

impl Bed {
    pub(crate) async fn create(seed: u64, profile: Profile) -> (Self, Repository) {
        let crash = match profile {
            Profile::Files => CrashOptions { yields: false, ..CrashOptions::default() },
            Profile::Objects => CrashOptions { yields: false, ..CrashOptions::object_store() },
        };
        let storage = Medium::new(crash);
        let time = Arc::<Time>::default();
        let options = CreateOptions::new(credentials())
            .cipher(Suite::Aes256Gcm)
            .kdf(KdfParameters::MINIMUM)
            .block_bytes(BLOCK_BYTES)
            .dedup(profile == Profile::Files)
            .versions(profile.versions())
            .env(env(seed, &time))
            .without_retry()
            .timeout(std::time::Duration::MAX)
            .tuning(tuning(Memory::Warm));
        let cache = Arc::<Forgetful>::default();
        let options = if profile == Profile::Objects { options.cache(cache.clone()) } else { options };
        let repository = Repository::create(place(storage.another()), options).await.unwrap();
        (Self { storage, time, profile, cache, seed }, repository)
    }

    /// What the process keeps of a storage that is far away is gone.
    pub(crate) fn drop_cache(&self) {
        self.cache.forget();
    }

    /// Another process opens it, in place of the one before.
    pub(crate) async fn open(&mut self, memory: Memory) -> Repository {
        let cache = Arc::<Forgetful>::default();
        let (storage, opened) = self.open_as(memory, false, cache.clone()).await;
        (self.storage, self.cache) = (storage, cache);
        opened.unwrap()
    }

    /// Another process opens it beside the one that is there, with nothing in memory.
    pub(crate) async fn open_beside(&mut self, read_only: bool) -> Repository {
        self.open_as(Memory::Cold, read_only, Arc::default()).await.1.unwrap()
    }

    async fn open_as(
        &mut self,
        memory: Memory,
        read_only: bool,
        cache: Arc<Forgetful>,
    ) -> (Medium, Result<Repository>) {
        self.seed = self.seed.wrapping_add(1);
        let storage = self.storage.reopen();
        let options = OpenOptions::new(credentials())
            .env(env(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), &self.time))
            .without_retry()
            .timeout(std::time::Duration::MAX)
            .tuning(tuning(memory))
            .read_only(read_only);
        let options = if self.profile == Profile::Objects { options.cache(cache) } else { options };
        let process = storage.another();
        (process, Repository::open(place(storage), options).await)
    }
}

fn place(storage: Medium) -> Arc<dyn Storage> {
    Arc::new(storage)
}
