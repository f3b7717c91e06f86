//! Going back is noticed by a device that has seen more, and accepted where its owner says so.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_lite::future::block_on;
use strongroom_conformance::crash::{CrashOptions, Fault, Loss};
use strongroom_core::engine::{Engine, TrustedState};
use strongroom_core::storage::Operation;
use strongroom_core::{Error, Result};

use crate::races::bed;
use crate::support::{Bed, get, put};

/// What a device remembers.
#[derive(Default)]
struct Device(Mutex<Option<(u64, [u8; 32])>>);

#[async_trait]
impl TrustedState for Device {
    async fn load(&self, _: &[u8; 16]) -> Result<Option<(u64, [u8; 32])>> {
        Ok(*self.0.lock().unwrap())
    }

    async fn store(&self, _: &[u8; 16], sequence: u64, hash: [u8; 32]) -> Result<()> {
        *self.0.lock().unwrap() = Some((sequence, hash));
        Ok(())
    }
}

impl Device {
    fn sequence(&self) -> u64 {
        self.0.lock().unwrap().unwrap().0
    }
}

async fn open(bed: &mut Bed, device: &Arc<Device>, read_only: bool) -> Result<Engine> {
    bed.open_with(|options| {
        options.trusted = Some(device.clone());
        options.read_only = read_only;
    })
    .await
}

async fn commits(engine: &Engine, count: u8, value: &[u8]) {
    for number in 0..count {
        put(engine, &[number], value).await.unwrap();
    }
}

#[test]
fn an_older_copy_of_the_whole_storage_is_noticed_until_it_is_accepted() {
    block_on(async {
        for checkpoints in [false, true] {
            let (mut bed, engine) = bed(1, CrashOptions::default()).await;
            drop(engine);
            let device = Arc::new(Device::default());
            let engine = open(&mut bed, &device, false).await.unwrap();
            commits(&engine, 3, b"old").await;
            let old = bed.storage.snapshot_blobs();
            commits(&engine, 5, b"new").await;
            if checkpoints {
                engine.checkpoint().await.unwrap();
            }
            engine.close().await.unwrap();
            drop(engine);
            let new = bed.storage.snapshot_blobs();
            bed.storage.restore(old.clone());
            for read_only in [true, false] {
                assert!(matches!(open(&mut bed, &device, read_only).await, Err(Error::RolledBack { .. })));
            }
            let unknowing = Arc::new(Device::default());
            open(&mut bed, &unknowing, true).await.unwrap();
            bed.storage.restore(new.clone());
            let engine = open(&mut bed, &device, false).await.unwrap();
            assert_eq!(get(&engine, &[4]).await.unwrap().unwrap(), "new");
            drop(engine);

            bed.storage.restore(old);
            let engine = bed
                .open_with(|options| {
                    options.trusted = Some(device.clone());
                    options.accept_rollback = true;
                })
                .await
                .unwrap();
            assert_eq!(get(&engine, &[2]).await.unwrap().unwrap(), "old");
            commits(&engine, 30, b"fork").await;
            engine.close().await.unwrap();
            drop(engine);
            open(&mut bed, &device, false).await.unwrap();
            // From now on the history given up is the contradiction, though another device has seen no other.
            bed.storage.restore(new);
            assert!(matches!(open(&mut bed, &device, false).await, Err(Error::RolledBack { .. })));
        }
    });
}

/// What several processes of a device remember: one of them commits while another one is opening the repository.
struct Neighbour {
    device: Arc<Device>,
    engine: Engine,
}

#[async_trait]
impl TrustedState for Neighbour {
    async fn load(&self, repository: &[u8; 16]) -> Result<Option<(u64, [u8; 32])>> {
        commits(&self.engine, 2, b"meanwhile").await;
        self.engine.flush().await?;
        self.device.load(repository).await
    }

    async fn store(&self, repository: &[u8; 16], sequence: u64, hash: [u8; 32]) -> Result<()> {
        self.device.store(repository, sequence, hash).await
    }
}

#[test]
fn what_another_process_of_this_device_commits_meanwhile_is_no_rollback() {
    block_on(async {
        let (mut bed, engine) = bed(4, CrashOptions::default()).await;
        drop(engine);
        let device = Arc::new(Device::default());
        let engine = open(&mut bed, &device, false).await.unwrap();
        commits(&engine, 3, b"old").await;
        for read_only in [true, false] {
            let neighbour = Arc::new(Neighbour { device: device.clone(), engine: engine.clone() });
            let opened = bed
                .open_with(|options| {
                    options.trusted = Some(neighbour);
                    options.read_only = read_only;
                })
                .await
                .unwrap();
            assert_eq!(get(&opened, &[1]).await.unwrap().unwrap(), "meanwhile");
        }
    });
}

#[test]
fn a_history_that_forked_before_what_was_seen_is_noticed_though_it_is_longer() {
    block_on(async {
        let (mut bed, engine) = bed(2, CrashOptions::default()).await;
        commits(&engine, 2, b"common").await;
        drop(engine);
        let common = bed.storage.snapshot_blobs();
        let device = Arc::new(Device::default());
        let engine = open(&mut bed, &device, false).await.unwrap();
        commits(&engine, 3, b"one").await;
        engine.flush().await.unwrap();
        let seen = device.sequence();
        bed.storage.restore(common);
        let other = bed.open().await.unwrap();
        commits(&other, 20, b"another").await;
        other.checkpoint().await.unwrap();
        other.close().await.unwrap();
        drop(other);
        assert!(matches!(open(&mut bed, &device, true).await, Err(Error::RolledBack { .. })));
        // One that is open learns nothing of it either, writes nothing into it, and remembers what it has seen.
        let before = bed.storage.snapshot_blobs();
        let refreshed = engine.refresh().await;
        assert!(matches!(refreshed, Err(Error::RolledBack { .. } | Error::Damaged(_))), "{refreshed:?}");
        assert!(put(&engine, b"more", b"").await.is_err());
        let _ = engine.close().await;
        assert_eq!(device.sequence(), seen);
        drop(engine);
        // What its last attempt left does not take the other branch away.
        let after = bed.storage.snapshot_blobs();
        assert_eq!(before.keys().filter(|name| !after.contains_key(*name)).count(), 0);
        bed.open().await.unwrap();
    });
}

#[test]
fn a_longer_history_is_no_alarm_and_an_engine_that_lags_does_not_forget() {
    block_on(async {
        let (mut bed, engine) = bed(3, CrashOptions::object_store()).await;
        drop(engine);
        let device = Arc::new(Device::default());
        let ahead = open(&mut bed, &device, false).await.unwrap();
        commits(&ahead, 2, b"first").await;
        ahead.flush().await.unwrap();
        let behind = open(&mut bed, &device, true).await.unwrap();
        commits(&ahead, 9, b"second").await;
        ahead.checkpoint().await.unwrap();
        let seen = device.sequence();
        behind.close().await.unwrap();
        assert_eq!(device.sequence(), seen, "a reader that lags made the device forget");
        let elsewhere = bed.open().await.unwrap();
        commits(&elsewhere, 9, b"third").await;
        elsewhere.close().await.unwrap();
        open(&mut bed, &device, true).await.unwrap();
        assert!(device.sequence() > seen);
    });
}

#[test]
fn a_reader_remembers_nothing_that_power_loss_can_take() {
    block_on(async {
        let (mut bed, writer) = bed(4, CrashOptions::default()).await;
        commits(&writer, 2, b"durable").await;
        bed.storage.fail_operation(Operation::PutDurable, 1, Fault::NotDurable);
        bed.storage.fail_operation(Operation::Persist, 1, Fault::LostRequest);
        assert!(matches!(put(&writer, b"shaky", b"").await, Err(Error::CommitUnknown { .. })));
        drop(writer);
        let device = Arc::new(Device::default());
        let reader = open(&mut bed, &device, true).await.unwrap();
        assert!(get(&reader, b"shaky").await.unwrap().is_some());
        drop(reader);
        bed.storage.crash_with(Loss::Everything);
        let engine = open(&mut bed, &device, false).await.unwrap();
        assert!(get(&engine, b"shaky").await.unwrap().is_none());
    });
}
