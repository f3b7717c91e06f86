//! File systems for tests of what is not to be seen from outside.

use std::sync::Arc;

use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_core::crypto::{KdfParameters, Suite};
use strongroom_core::engine::keyring::Credentials;
use strongroom_core::engine::{CreateOptions, Engine, Tuning};
use strongroom_core::env::Env;

use crate::{FileSystem, Options};

/// One in memory, whose tasks all run on the thread that awaits them.
pub(crate) async fn create(options: Options) -> FileSystem {
    let storage = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::default() });
    let credentials = Credentials::password("correct horse");
    let create = CreateOptions {
        credentials: &credentials,
        recovery: None,
        suite: Suite::Aes256Gcm,
        block_bytes: 32 << 10,
        kdf: KdfParameters::MINIMUM,
        trusted: None,
        tuning: Tuning::default(),
    };
    let engine = Engine::create(Arc::new(storage), Env::deterministic(1), create).await.unwrap();
    FileSystem::create(engine, options).await.unwrap()
}
