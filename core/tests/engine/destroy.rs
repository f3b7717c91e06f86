//! The end of a repository: all of it goes, whatever else is there stays, and what was cut short can be taken up again.

use std::sync::Arc;

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::crash::{CrashOptions, Fault};
use strongroom_core::Error;
use strongroom_core::crypto::Suite;
use strongroom_core::engine::keyring::Credentials;
use strongroom_core::engine::{Engine, Unlock};
use strongroom_core::env::Env;
use strongroom_core::storage::{ErrorKind, Name, Storage};

use super::support::{Bed, put};

async fn destroy(bed: &Bed, password: &str) -> strongroom_core::Result<strongroom_core::engine::Destroyed> {
    let credentials = Credentials::password(password);
    let storage = Arc::new(bed.storage.reopen());
    Engine::destroy(storage, Env::deterministic(9), Unlock::Credentials(&credentials)).await
}

/// A repository with some history, and blobs beside it that look like anything.
async fn prepare(seed: u64) -> (Bed, Vec<Name>) {
    let (bed, engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
    for number in 0..200_u32 {
        put(&engine, &number.to_be_bytes(), &[7; 300]).await.unwrap();
    }
    engine.checkpoint().await.unwrap();
    put(&engine, b"after", b"the checkpoint").await.unwrap();
    engine.close().await.unwrap();
    drop(engine);
    let mut foreign = Vec::new();
    for number in 0..300_u32 {
        let hash = blake3_like(number);
        bed.storage.put(Name::new(hash), Bytes::from(vec![1; 4096])).await.unwrap();
        foreign.push(Name::new(hash));
    }
    bed.storage.sync().await.unwrap();
    bed.storage.crash(seed);
    (bed, foreign)
}

/// Sixteen bytes that are spread like a name's.
fn blake3_like(number: u32) -> [u8; 16] {
    let mut state = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = (state >> 32) as u8;
    }
    bytes
}

fn names(bed: &Bed) -> Vec<Name> {
    bed.storage.snapshot_blobs().keys().copied().collect()
}

#[test]
fn every_blob_of_the_repository_goes_and_no_other() {
    block_on(async {
        let (bed, mut foreign) = prepare(1).await;
        foreign.sort();
        let before = names(&bed).len();
        let destroyed = destroy(&bed, "correct horse").await.unwrap();
        assert_eq!(destroyed.left_count, 300);
        assert_eq!(destroyed.deleted_count, before as u64 - 300);
        assert_eq!(names(&bed), foreign);
        assert!(matches!(destroy(&bed, "correct horse").await, Err(Error::NotARepository)));
    });
}

#[test]
fn without_the_right_to_open_it_or_beside_others_nothing_goes() {
    block_on(async {
        let (bed, _) = prepare(2).await;
        let before = names(&bed);
        assert!(matches!(destroy(&bed, "wrong").await, Err(Error::WrongCredentials)));
        let other = bed.storage.reopen();
        match destroy(&bed, "correct horse").await {
            Err(Error::Storage(error)) => assert_eq!(error.kind(), ErrorKind::Busy),
            done => panic!("beside {other:?}: {done:?}"),
        }
        assert_eq!(names(&bed), before);
    });
}

#[test]
fn one_that_was_cut_short_anywhere_is_taken_up_again() {
    block_on(async {
        let mut calls = 0;
        loop {
            let (bed, mut foreign) = prepare(3).await;
            foreign.sort();
            let dying = bed.storage.reopen();
            dying.cut_off_after(calls, Fault::LostRequest);
            let credentials = Credentials::password("correct horse");
            let storage: Arc<dyn Storage> = Arc::new(dying);
            let done = Engine::destroy(storage, Env::deterministic(9), Unlock::Credentials(&credentials)).await;
            if done.is_ok() {
                break;
            }
            bed.storage.crash(calls);
            match destroy(&bed, "correct horse").await {
                Ok(_) | Err(Error::NotARepository) => {}
                Err(Error::Storage(error)) if error.kind() == ErrorKind::Busy => panic!("nobody is there"),
                Err(error) => panic!("cut off after {calls} calls: {error}"),
            }
            assert_eq!(names(&bed), foreign, "cut off after {calls} calls");
            calls += 1;
        }
        assert!(calls > 2, "{calls}");
    });
}
