//! More data than a test would hold: a storage that forgets what files hold, and keeps what the engine needs.

use std::sync::Arc;

use futures_lite::future::block_on;
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::discarding::{DiscardingStorage, Keep, file_data_of};
use strongroom_core::crypto::{KdfParameters, Suite};
use strongroom_core::engine::keyring::Credentials;
use strongroom_core::engine::{self, CreateOptions, Engine, Tuning, Unlock};
use strongroom_core::env::Env;
use strongroom_core::storage::Name;
use strongroom_fs::{CheckOptions, Compression, Error, FileSystem, Options};

const DIRECTORIES: usize = 100;
const FILE_BYTES: u64 = 16 << 10;
const BLOCK_BYTES: u32 = 64 << 10;

/// Ten thousand files of 16 KiB, none like another, and a hundred thousand at full size: of 160 MB, or 1.6 GB, the medium
/// holds less than a tenth.
#[test]
fn many_files_fit_where_their_data_is_forgotten() {
    let is_full = std::env::var("STRONGROOM_ACCEPTANCE").is_ok_and(|size| size == "full");
    let files_each = if is_full { 1000 } else { 100 };
    block_on(async {
        let medium = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::object_store() });
        let credentials = Credentials::password("correct horse");
        let create = CreateOptions {
            credentials: &credentials,
            recovery: None,
            suite: Suite::Aes256Gcm,
            block_bytes: BLOCK_BYTES,
            kdf: KdfParameters::MINIMUM,
            trusted: None,
            tuning: Tuning::default(),
        };
        let engine = Engine::create(Arc::new(medium.another()), Env::deterministic(1), create).await.unwrap();
        let (root, keys) = (engine.root_secret(), engine.keys().clone());
        let options = Options { compression: Compression::None, ..Options::default() };
        FileSystem::create(engine.clone(), options).await.unwrap();
        engine.close().await.unwrap();

        let storage = Arc::new(DiscardingStorage::new(Arc::new(medium.another()), file_data_of(keys)));
        let open = engine::OpenOptions::new(Unlock::Root(&root));
        let engine = Engine::open(storage.clone(), Env::deterministic(2), open.clone()).await.unwrap();
        let fs = FileSystem::open(engine).await.unwrap();
        let mut dice = Dice::new(1);
        for directory in 0..DIRECTORIES {
            fs.transact(async |transaction| {
                transaction.create_dir(format!("/{directory}")).await?;
                for file in 0..files_each {
                    let content: Vec<u8> = (0..FILE_BYTES / 8).flat_map(|_| dice.roll().to_le_bytes()).collect();
                    transaction.write(format!("/{directory}/{file}"), content).await?;
                }
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
        }
        fs.engine().close().await.unwrap();
        drop(fs);

        let discarded = storage.discarded().await.unwrap();
        let held: u64 = medium.snapshot_blobs().values().map(|blob| blob.len() as u64).sum();
        assert!(discarded.bytes > (DIRECTORIES * files_each) as u64 * FILE_BYTES, "{discarded:?}");
        assert!(held * 10 < discarded.bytes, "{held} bytes are held beside {discarded:?}");

        let engine = Engine::open(storage.clone(), Env::deterministic(3), open).await.unwrap();
        let fs = FileSystem::open(engine).await.unwrap();
        let mut listed = 0;
        for directory in fs.snapshot().read_dir("/").await.unwrap() {
            listed += fs.snapshot().read_dir(format!("/{}", directory.name_str().unwrap())).await.unwrap().len();
        }
        assert_eq!(listed, DIRECTORIES * files_each);
        let summary = fs.check(CheckOptions { data: false }, |finding| panic!("{finding}")).await.unwrap();
        let options = engine::CheckOptions {
            data: false,
            references: Some(summary.references.clone()),
            ..engine::CheckOptions::default()
        };
        let report = fs.engine().check(options).await.unwrap();
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        // What was forgotten is missed, and never taken for content.
        let read = fs.snapshot().read("/7/7").await;
        assert!(matches!(read, Err(Error::Core(strongroom_core::Error::Damaged(_)))), "{read:?}");
    });
}

#[test]
fn blobs_that_no_key_opens_are_kept() {
    block_on(async {
        let medium = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::default() });
        let credentials = Credentials::password("correct horse");
        let create = CreateOptions {
            credentials: &credentials,
            recovery: None,
            suite: Suite::XChaCha20Poly1305,
            block_bytes: 4096,
            kdf: KdfParameters::MINIMUM,
            trusted: None,
            tuning: Tuning::default(),
        };
        let engine = Engine::create(Arc::new(medium.another()), Env::deterministic(1), create).await.unwrap();
        let decide = file_data_of(engine.keys().clone());
        for length in [0, 15, 100, 4096] {
            assert_eq!(decide(&Name::new([7; 16]), &vec![7; length].into()), Keep::Content);
        }
        for (name, blob) in medium.snapshot_blobs() {
            assert_eq!(decide(&name, &blob), Keep::Content, "headers, hint and first commit hold no file data");
        }
    });
}
