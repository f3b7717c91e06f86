//! Opening engines, on the crashing double or on what stands in its place.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::Result;
use strongroom_core::crypto::{KdfParameters, RootSecret, Suite};
use strongroom_core::engine::keyring::Credentials;
use strongroom_core::engine::{
    CheckOptions, CreateOptions, Direction, Engine, OpenOptions, Table, Tuning, Unlock, View,
};
use strongroom_core::env::Env;

use super::medium::{self, Medium};

pub(crate) const TABLE: Table = Table(0x80);

/// A repository on a medium, created once; opened by its root secret, so that key derivation is not the cost.
pub(crate) struct Bed {
    pub(crate) storage: Medium,
    pub(crate) root: RootSecret,
    pub(crate) tuning: Tuning,
    seed: u64,
}

/// Whether `STRONGROOM_ACCEPTANCE=full` asks for every case of a sweep, which takes minutes.
pub(crate) fn is_full() -> bool {
    std::env::var_os("STRONGROOM_ACCEPTANCE").is_some_and(|size| size == "full")
}

pub(crate) fn tuning() -> Tuning {
    // A check compares a few identities at a time.
    Tuning { checkpoint_commits: 12, close_commits: 8, check_bytes_max: 40, ..Tuning::default() }
}

impl Bed {
    pub(crate) async fn new(seed: u64, block_bytes: u32, suite: Suite, options: CrashOptions) -> (Self, Engine) {
        let storage = Medium::new(options);
        let credentials = Credentials::password("correct horse");
        let create = CreateOptions {
            credentials: &credentials,
            recovery: None,
            suite,
            block_bytes,
            kdf: KdfParameters::MINIMUM,
            trusted: medium::memory(),
            tuning: tuning(),
        };
        let engine = Engine::create(Arc::new(storage.another()), Env::deterministic(seed), create).await.unwrap();
        let root = engine.root_secret();
        (Self { storage, root, tuning: tuning(), seed }, engine)
    }

    /// Another process opens it.
    pub(crate) async fn open(&mut self) -> Result<Engine> {
        self.open_with(|_| {}).await
    }

    pub(crate) async fn open_with(&mut self, change: impl FnOnce(&mut OpenOptions<'_>)) -> Result<Engine> {
        self.seed += 1;
        let mut options = OpenOptions::new(Unlock::Root(&self.root));
        (options.tuning, options.trusted) = (self.tuning, medium::memory());
        change(&mut options);
        Engine::open(Arc::new(self.storage.reopen()), Env::deterministic(self.seed << 32), options).await
    }
}

pub(crate) async fn contents(view: &impl View) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut scan = view.scan(TABLE, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
    let mut rows = BTreeMap::new();
    while let Some((key, value)) = scan.next().await? {
        rows.insert(key.to_vec(), value.to_vec());
    }
    Ok(rows)
}

pub(crate) async fn put(engine: &Engine, key: &[u8], value: &[u8]) -> Result<()> {
    let mut transaction = engine.begin();
    transaction.put(TABLE, key, value)?;
    transaction.commit().await.map(|_| ())
}

pub(crate) async fn get(engine: &Engine, key: &[u8]) -> Result<Option<Bytes>> {
    engine.snapshot().get(TABLE, key).await
}

/// Everything that check can find is in order.
pub(crate) async fn assert_clean(engine: &Engine) {
    let report = engine.check(CheckOptions { data: true, references: None, ..CheckOptions::default() }).await.unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}
