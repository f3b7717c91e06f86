//! A storage that is full to the last byte, in which nobody has it for oneself: whoever deletes can delete again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::crash::{CrashOptions, Fault, Loss};
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{
    CheckOptions, ChunkNumber, CompactOptions, Engine, OpenOptions, Table, Transaction, Tuning, Unlock, View,
};
use strongroom_core::env::{Env, ManualClock};
use strongroom_core::storage::{ErrorKind, Name, Operation};
use strongroom_core::{Damage, Error, Result};

use crate::support::{Bed, assert_clean, put};

/// Rows whose value is the number of a chunk.
const CHUNKED: Table = Table(0x81);
const MINUTE: Duration = Duration::from_secs(60);

fn payload(seed: u64, length: usize) -> Bytes {
    strongroom_conformance::storage::sample_bytes(seed, length)
}

async fn set(transaction: &mut Transaction, key: u32, length: usize) -> Result<()> {
    let number = transaction.put_chunk(None, payload(key.into(), length)).await?;
    transaction.put(CHUNKED, &key.to_be_bytes(), &number.0.to_le_bytes())
}

async fn unset(engine: &Engine, key: u32) -> Result<()> {
    let mut transaction = engine.begin();
    let row = transaction.get(CHUNKED, &key.to_be_bytes()).await?.unwrap();
    transaction.release_chunk(ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap())))?;
    transaction.delete(CHUNKED, &key.to_be_bytes())?;
    transaction.commit().await.map(drop)
}

async fn assert_there(view: &impl View, key: u32, length: usize) {
    let row = view.get(CHUNKED, &key.to_be_bytes()).await.unwrap().unwrap();
    let number = ChunkNumber(u64::from_le_bytes(row.as_ref().try_into().unwrap()));
    assert_eq!(view.chunk(number).await.unwrap(), payload(key.into(), length));
}

/// A process that comes so long after the first.
async fn open_at(bed: &Bed, seed: u64, time: Duration, read_only: bool) -> (Engine, Arc<ManualClock>) {
    try_open_at(bed, seed, time, read_only).await.unwrap()
}

async fn try_open_at(bed: &Bed, seed: u64, time: Duration, read_only: bool) -> Result<(Engine, Arc<ManualClock>)> {
    let (env, clock) = Env::manual(seed);
    clock.advance(time);
    let mut options = OpenOptions::new(Unlock::Root(&bed.root));
    options.tuning = bed.tuning;
    options.read_only = read_only;
    Ok((Engine::open(Arc::new(bed.storage.reopen()), env, options).await?, clock))
}

/// Somebody else takes whatever is free.
fn fill_up(bed: &Bed) {
    let bytes: usize = bed.storage.snapshot_blobs().values().map(Bytes::len).sum();
    bed.storage.set_capacity(Some(bytes as u64));
}

/// A repository that holds so many chunks and is closed.
async fn filled(seed: u64, block_bytes: u32, locks: bool, files: u32, length: usize) -> Bed {
    let options = CrashOptions { locks, yields: false, page_names: 2000, ..CrashOptions::default() };
    let (mut bed, engine) = Bed::new(seed, block_bytes, Suite::Aes256Gcm, options).await;
    bed.storage.crash_with(Loss::Nothing);
    drop(engine);
    bed.tuning = Tuning::default();
    let (engine, _) = open_at(&bed, seed, Duration::ZERO, false).await;
    for key in 0..files {
        let mut transaction = engine.begin();
        set(&mut transaction, key, length).await.unwrap();
        transaction.commit().await.unwrap();
    }
    engine.checkpoint().await.unwrap();
    engine.close().await.unwrap();
    drop(engine);
    // The next one finds all that this one condemned.
    let (engine, _) = open_at(&bed, seed + 1, 20 * MINUTE, false).await;
    put(&engine, b"a", b"1").await.unwrap();
    engine.close().await.unwrap();
    bed
}

/// Who keeps a deleting process from having the storage for itself.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Company {
    Nobody,
    Reader,
    NoLocks,
}

const COMPANY: [Company; 3] = [Company::Nobody, Company::Reader, Company::NoLocks];

/// Each deletion is a process of its own, and between two of them somebody else takes all that was freed.
#[test]
fn processes_delete_from_a_storage_that_is_full_to_the_last_byte_as_often_as_they_like() {
    block_on(async {
        for (company, (block_bytes, files, length)) in COMPANY
            .into_iter()
            .flat_map(|company| [(4096, 40, 12_000), (128 << 10, 60, 90)].map(|kind| (company, kind)))
        {
            let bed = filled(1, block_bytes, company != Company::NoLocks, files, length).await;
            let mut time = 40 * MINUTE;
            let reader = match company {
                Company::Reader => Some(open_at(&bed, 2, time, true).await),
                _ => None,
            };
            // Small things give back no block of their own: in company, where others take all, that has an end (docs/format.md).
            let files = if company == Company::Nobody || length > 1000 { files } else { 9 };
            for key in 0..files - 1 {
                fill_up(&bed);
                time += 11 * MINUTE;
                let (engine, _) = open_at(&bed, 10 + u64::from(key), time, false).await;
                let stored = put(&engine, b"b", &[7; 200]).await;
                if let Err(error) = stored {
                    assert_eq!(error.storage_kind(), Some(ErrorKind::Full), "{error}");
                }
                if let Err(error) = unset(&engine, key).await {
                    panic!("{company:?}, blocks of {block_bytes}, file {key}: {error}");
                }
                engine.close().await.unwrap();
                drop(engine);
            }
            drop(reader);
            let (engine, clock) = open_at(&bed, 1000, time + 11 * MINUTE, false).await;
            assert_there(&engine.snapshot(), files - 1, length).await;
            clock.advance(11 * MINUTE);
            bed.storage.set_capacity(None);
            put(&engine, b"c", b"1").await.unwrap();
            assert_clean(&engine).await;
        }
    });
}

/// Whoever tries to store again and again does not use up what deleting needs.
#[test]
fn however_many_processes_fail_to_store_on_a_full_storage_the_next_one_can_delete() {
    block_on(async {
        for (company, block_bytes) in COMPANY.into_iter().flat_map(|company| [(company, 4096), (company, 128 << 10)]) {
            let bed = filled(5, block_bytes, company != Company::NoLocks, 6, 12_000).await;
            let mut time = 40 * MINUTE;
            let reader = match company {
                Company::Reader => Some(open_at(&bed, 2, time, true).await),
                _ => None,
            };
            // Room for the claim of an epoch, which the first one leaves open then.
            let bytes: usize = bed.storage.snapshot_blobs().values().map(Bytes::len).sum();
            bed.storage.set_capacity(Some(bytes as u64 + u64::from(block_bytes)));
            for attempt in 0..20 {
                time += MINUTE;
                let (engine, _) = open_at(&bed, 10 + attempt, time, false).await;
                let mut transaction = engine.begin();
                let stored = async {
                    set(&mut transaction, 100, 12_000).await?;
                    transaction.commit().await.map(drop)
                };
                let error = stored.await.unwrap_err();
                assert_eq!(error.storage_kind(), Some(ErrorKind::Full), "{error}");
                engine.close().await.unwrap();
            }
            for key in 0..3 {
                time += 11 * MINUTE;
                let (engine, _) = open_at(&bed, 100 + u64::from(key), time, false).await;
                if let Err(error) = unset(&engine, key).await {
                    panic!("{company:?}, blocks of {block_bytes}, file {key}: {error}");
                }
                engine.close().await.unwrap();
            }
            drop(reader);
            let (engine, _) = open_at(&bed, 1000, time + 11 * MINUTE, false).await;
            assert_there(&engine.snapshot(), 5, 12_000).await;
            bed.storage.set_capacity(None);
            put(&engine, b"c", b"1").await.unwrap();
            assert_clean(&engine).await;
        }
    });
}

/// Within the time that readers have, nothing can be given back: what is kept for deletions lasts for some of them.
#[test]
fn deletions_in_a_row_beside_a_reader_take_nothing_from_it_and_space_comes_back_when_its_time_is_over() {
    block_on(async {
        for company in [Company::Reader, Company::NoLocks] {
            let bed = filled(3, 128 << 10, company != Company::NoLocks, 8, 200_000).await;
            let time = 40 * MINUTE;
            let (reader, _) = open_at(&bed, 4, time, true).await;
            let view = reader.snapshot();
            fill_up(&bed);
            let full = bed.storage.snapshot_blobs().len();
            for key in 0..3 {
                let (engine, _) = open_at(&bed, 10 + u64::from(key), time, false).await;
                unset(&engine, key).await.unwrap_or_else(|error| panic!("{company:?}, file {key}: {error}"));
                engine.close().await.unwrap();
            }
            for key in 0..8 {
                assert_there(&view, key, 200_000).await;
            }
            // Eleven minutes later a failing attempt to store is enough.
            let (engine, _) = open_at(&bed, 20, time + 11 * MINUTE, false).await;
            let _ = put(&engine, b"b", b"1").await;
            engine.close().await.unwrap();
            let after = bed.storage.snapshot_blobs().len();
            assert!(after + 3 <= full, "{company:?}: {full} blobs became {after}");
            let row = view.get(CHUNKED, &0_u32.to_be_bytes()).await;
            let expired = match row {
                Ok(row) => {
                    let number = u64::from_le_bytes(row.unwrap().as_ref().try_into().unwrap());
                    view.chunk(ChunkNumber(number)).await.map(drop)
                }
                Err(error) => Err(error),
            };
            assert!(matches!(expired, Err(Error::Expired)), "{company:?}: {expired:?}");
            reader.refresh().await.unwrap();
            assert_there(&reader.snapshot(), 7, 200_000).await;
            assert_clean(&reader).await;
        }
    });
}

/// One process that lives long, in company.
#[test]
fn one_process_deletes_small_things_from_a_full_storage_one_by_one() {
    block_on(async {
        for company in COMPANY {
            let bed = filled(5, 128 << 10, company != Company::NoLocks, 60, 90).await;
            let reader = match company {
                Company::Reader => Some(open_at(&bed, 6, 40 * MINUTE, true).await),
                _ => None,
            };
            let (engine, clock) = open_at(&bed, 7, 40 * MINUTE, false).await;
            let files = if company == Company::Nobody { 60 } else { 9 };
            for key in 0..files - 1 {
                fill_up(&bed);
                unset(&engine, key).await.unwrap_or_else(|error| panic!("{company:?}, file {key}: {error}"));
                clock.advance(11 * MINUTE);
            }
            drop(reader);
            engine.close().await.unwrap();
            bed.storage.set_capacity(None);
            let (engine, _) = open_at(&bed, 8, 2000 * MINUTE, false).await;
            assert_there(&engine.snapshot(), 59, 90).await;
            put(&engine, b"c", b"1").await.unwrap();
            assert_clean(&engine).await;
        }
    });
}

/// The lock is gone when the commit arrives that was made under it, and somebody reads by then.
#[test]
fn a_commit_that_was_made_alone_and_lands_in_company_cuts_no_reader_off() {
    block_on(async {
        let bed = filled(9, 4096, true, 10, 12_000).await;
        let time = 40 * MINUTE;
        let (engine, _) = open_at(&bed, 10, time, false).await;
        unset(&engine, 0).await.unwrap();
        for nth in 1..4 {
            bed.storage.fail_operation(Operation::PutDurable, nth, Fault::LostRequest);
        }
        // Its fate is open, and the lock is given back.
        let unknown = engine.checkpoint().await.unwrap_err();
        assert!(matches!(unknown, Error::CommitUnknown { .. }), "{unknown}");
        let (reader, _) = open_at(&bed, 11, time, true).await;
        let view = reader.snapshot();
        // The same bytes once more; then what they allow is deleted.
        put(&engine, b"b", b"1").await.unwrap();
        assert!(engine.snapshot().sequence() > view.sequence() + 1);
        engine.compact(CompactOptions::default()).await.unwrap();
        for key in 1..10 {
            assert_there(&view, key, 12_000).await;
        }
    });
}

/// Those blobs of which a check says that they are ballast.
async fn ballast(bed: &Bed, time: Duration) -> Vec<Name> {
    let whole = bed.storage.snapshot_blobs();
    let mut ballast = Vec::new();
    for (name, blob) in &whole {
        bed.storage.overwrite(*name, flipped(blob));
        if let Ok((engine, _)) = try_open_at(bed, 7, time, true).await {
            let report = engine.check(CheckOptions { data: true, ..CheckOptions::default() }).await.unwrap();
            let is_it = |damage: &Damage| damage.structure == "ballast" && damage.blob == Some(*name);
            if report.findings.iter().any(|finding| is_it(&finding.damage)) {
                ballast.push(*name);
            }
        }
        bed.storage.restore(whole.clone());
    }
    ballast
}

fn flipped(blob: &Bytes) -> Bytes {
    let mut blob = blob.to_vec();
    blob[100] ^= 1;
    blob.into()
}

/// Damaged ballast gives its room to a deletion as well as any other: a repair that finds none for others leaves it.
#[test]
fn a_repair_of_ballast_leaves_room_for_deleting_however_full_the_storage_is() {
    block_on(async {
        for (at_once, cut, room) in
            [(1, false, 0), (7, false, 0), (7, true, 0), (1, false, 1), (3, false, 2), (7, false, 3), (7, false, 30)]
        {
            let what = format!("{at_once} at once, cut {cut}, room for {room}");
            let bed = filled(5, 4096, true, 12, 12_000).await;
            let mut time = 40 * MINUTE;
            let names = ballast(&bed, time).await;
            assert_eq!(names.len(), 7, "{what}");
            let full: usize = bed.storage.snapshot_blobs().values().map(Bytes::len).sum();
            bed.storage.set_capacity(Some((full + room * 4096) as u64));
            let mut renewed = 0;
            for names in names.chunks(at_once) {
                let blobs = bed.storage.snapshot_blobs();
                for name in names {
                    let Some(blob) = blobs.get(name) else { continue };
                    bed.storage.overwrite(*name, if cut { Bytes::new() } else { flipped(blob) });
                }
                time += 11 * MINUTE;
                let (engine, _) = open_at(&bed, time.as_secs(), time, false).await;
                let report = engine.check(CheckOptions { data: true, ..CheckOptions::default() }).await.unwrap();
                renewed += engine.repair(&report).await.unwrap_or_else(|error| panic!("{what}: {error}")).ballast;
                let _ = engine.close().await;
            }
            assert!(room < 30 || renewed == 7, "{what}: {renewed} were put anew");
            fill_up(&bed);
            for key in 0..6 {
                time += 11 * MINUTE;
                let (engine, _) = open_at(&bed, time.as_secs(), time, false).await;
                unset(&engine, key).await.unwrap_or_else(|error| panic!("{what}, file {key}: {error}"));
                let _ = engine.close().await;
            }
            bed.storage.set_capacity(None);
            time += 11 * MINUTE;
            let (engine, _) = open_at(&bed, time.as_secs(), time, false).await;
            let report = engine.check(CheckOptions { data: true, ..CheckOptions::default() }).await.unwrap();
            engine.repair(&report).await.unwrap();
            assert_clean(&engine).await;
            assert_there(&engine.snapshot(), 11, 12_000).await;
            drop(engine);
            assert!(ballast(&bed, time).await.len() >= 7, "{what}");
        }
    });
}
