//! Which header counts: the one that a commit names.

use std::sync::Arc;

use futures_lite::future::block_on;
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::crypto::Suite;
use strongroom_core::engine::keyring::{self, Credentials, Header, HeaderEdit, NewSlot};
use strongroom_core::engine::{Engine, OpenOptions, Unlock};
use strongroom_core::env::Env;
use strongroom_core::format::well_known::HeaderId;
use strongroom_core::storage::{Name, Storage};
use strongroom_core::{Error, Result};

use crate::support::{Bed, assert_clean, get, put};

async fn open(bed: &Bed, password: &str) -> Result<Engine> {
    let credentials = Credentials::password(password);
    let options = OpenOptions::new(Unlock::Credentials(&credentials));
    Engine::open(Arc::new(bed.storage.reopen()), Env::deterministic(99), options).await
}

/// The header in force, with another password in its first slot.
async fn with_password(bed: &Bed, engine: &Engine, password: &str) -> Header {
    let storage: Arc<dyn Storage> = Arc::new(bed.storage.reopen());
    let generation = keyring::read_headers(&storage).await.unwrap().next_generation();
    let (header, env) = (engine.header().await.unwrap(), Env::deterministic(generation));
    let edit = HeaderEdit { env: &env, header: &header, root: &bed.root, generation };
    edit.replace(0, &NewSlot { credentials: &Credentials::password(password), label: "" }).await.unwrap()
}

#[test]
fn a_password_is_changed_by_the_commit_that_names_the_new_header() {
    block_on(async {
        let (bed, engine) = Bed::new(1, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        put(&engine, b"a", b"1").await.unwrap();
        let header = with_password(&bed, &engine, "battery staple").await;
        engine.change_header(&header).await.unwrap();
        assert_clean(&engine).await;
        engine.close().await.unwrap();
        assert!(matches!(open(&bed, "correct horse").await, Err(Error::WrongCredentials)));
        let engine = open(&bed, "battery staple").await.unwrap();
        assert_eq!(get(&engine, b"a").await.unwrap().unwrap(), "1");
        assert_clean(&engine).await;
    });
}

#[test]
fn a_header_that_was_put_back_is_rolled_back_and_revives_no_password() {
    block_on(async {
        let (bed, engine) = Bed::new(2, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        let old = bed.storage.snapshot_blobs();
        let header = with_password(&bed, &engine, "battery staple").await;
        engine.change_header(&header).await.unwrap();
        engine.close().await.unwrap();
        for (name, blob) in old {
            if HeaderId::from_name(name.as_bytes()).is_some() {
                bed.storage.overwrite(name, blob);
            }
        }
        assert!(matches!(open(&bed, "correct horse").await, Err(Error::RolledBack { .. })));
        for copy in 0..2 {
            let id = HeaderId { generation: header.generation(), copy };
            bed.storage.remove(Name::new(id.name().unwrap()));
        }
        assert!(matches!(open(&bed, "correct horse").await, Err(Error::RolledBack { .. })));
    });
}

#[test]
fn a_header_that_no_commit_names_is_not_in_force() {
    block_on(async {
        let (bed, engine) = Bed::new(3, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        let header = with_password(&bed, &engine, "battery staple").await;
        // As if the process had died before its commit.
        let storage: Arc<dyn Storage> = Arc::new(bed.storage.reopen());
        keyring::write_header(&storage, &header, &bed.root).await.unwrap();
        drop(engine);
        assert!(matches!(open(&bed, "battery staple").await, Err(Error::WrongCredentials)));
        let engine = open(&bed, "correct horse").await.unwrap();
        assert_eq!(engine.header().await.unwrap().generation(), 1);
        put(&engine, b"a", b"1").await.unwrap();
    });
}

#[test]
fn of_two_changes_at_once_one_wins_and_the_other_is_told() {
    block_on(async {
        let (mut bed, one) = Bed::new(4, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        let two = bed.open().await.unwrap();
        let (first, second) = (with_password(&bed, &one, "first").await, with_password(&bed, &two, "second").await);
        one.change_header(&first).await.unwrap();
        assert!(matches!(two.change_header(&second).await, Err(Error::Conflict)));
        // It goes on from what is in force now.
        let second = with_password(&bed, &two, "second").await;
        two.change_header(&second).await.unwrap();
        assert_clean(&two).await;
        drop((one, two));
        assert!(open(&bed, "second").await.is_ok());
        assert!(matches!(open(&bed, "first").await, Err(Error::WrongCredentials)));
    });
}

#[test]
fn a_lost_copy_is_put_back_where_there_is_room_and_keeps_no_writer_out_where_there_is_none() {
    block_on(async {
        let (bed, engine) = Bed::new(5, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        put(&engine, b"a", b"1").await.unwrap();
        engine.close().await.unwrap();
        let lost = Name::new(HeaderId { generation: 1, copy: 1 }.name().unwrap());
        bed.storage.remove(lost);
        bed.storage.set_capacity(Some(4096 * bed.storage.snapshot_blobs().len() as u64));
        let engine = open(&bed, "correct horse").await.unwrap();
        assert_eq!(get(&engine, b"a").await.unwrap().unwrap(), "1");
        assert!(!bed.storage.snapshot_blobs().contains_key(&lost));
        drop(engine);
        bed.storage.set_capacity(None);
        let engine = open(&bed, "correct horse").await.unwrap();
        assert!(bed.storage.snapshot_blobs().contains_key(&lost));
        assert_clean(&engine).await;
    });
}
