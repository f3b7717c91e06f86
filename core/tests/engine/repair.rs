//! Repair: damage does not spread, what is stored again heals it, and nothing gets worse by it.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use futures_lite::future::block_on;
use futures_util::future::join3;
use strongroom_conformance::crash::{CrashOptions, Fault};
use strongroom_conformance::simulate;
use strongroom_conformance::storage::sample_bytes;
use strongroom_core::engine::{
    CheckOptions, CheckReport, ChunkNumber, CompactOptions, Direction, Engine, Repaired, Table, Transaction, View,
};
use strongroom_core::storage::{ErrorKind, Name};
use strongroom_core::{Error, Result};

use crate::races;
use crate::repair_beside::sparse_bed;
use crate::snapshots::Rows;
use crate::support::{Bed, is_full};

/// Rows whose value is the number of a chunk.
pub(crate) const CHUNKED: Table = Table(0x81);
pub(crate) const CHUNKS: u8 = 24;

/// Some have a block for themselves, some share one, some lie in two.
pub(crate) fn payload(seed: u8) -> Bytes {
    sample_bytes(seed.into(), 200 + usize::from(seed % 8) * 450)
}

pub(crate) fn number(row: &[u8]) -> ChunkNumber {
    ChunkNumber(u64::from_le_bytes(row.try_into().unwrap()))
}

pub(crate) async fn put_chunk(
    engine: &Engine,
    transaction: &mut Transaction,
    key: u8,
    seed: u8,
) -> Result<ChunkNumber> {
    if let Some(row) = transaction.get(CHUNKED, &[key]).await? {
        transaction.release_chunk(number(&row))?;
    }
    let payload = payload(seed);
    let number = transaction.put_chunk(Some(engine.identity(&payload)), payload).await?;
    transaction.put(CHUNKED, &[key], &number.0.to_le_bytes())?;
    Ok(number)
}

/// Puts a payload under a key.
pub(crate) async fn store(engine: &Engine, key: u8, seed: u8) -> Result<ChunkNumber> {
    engine.transact(async |transaction: &mut Transaction| put_chunk(engine, transaction, key, seed).await).await
}

/// What each key holds; `None` where that cannot be read.
pub(crate) async fn readable(view: &impl View) -> BTreeMap<u8, Option<Bytes>> {
    let mut scan = view.scan(CHUNKED, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
    let mut readable = BTreeMap::new();
    while let Some((key, row)) = scan.next().await.unwrap() {
        let payload = match view.chunk(number(&row)).await {
            Ok(payload) => Some(payload),
            Err(Error::Damaged(_)) => None,
            Err(error) => panic!("{error}"),
        };
        readable.insert(key[0], payload);
    }
    readable
}

pub(crate) async fn check(engine: &Engine, data: bool) -> CheckReport {
    engine.check(CheckOptions { data, rows: Some(&Rows), ..CheckOptions::default() }).await.unwrap()
}

pub(crate) async fn repair(engine: &Engine) -> Repaired {
    let report = check(engine, true).await;
    engine.repair(&report).await.unwrap()
}

pub(crate) async fn assert_sound(engine: &Engine) {
    let report = check(engine, true).await;
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

/// A repository of some chunks, of which those of the keys 2 and 3 are in a snapshot alone, closed.
pub(crate) async fn bed(options: CrashOptions) -> Bed {
    let (bed, engine) = races::bed(31, options).await;
    let mut transaction = engine.begin();
    for key in 0..CHUNKS {
        put_chunk(&engine, &mut transaction, key, key).await.unwrap();
    }
    transaction.commit().await.unwrap();
    engine.create_snapshot("monday").await.unwrap();
    let mut transaction = engine.begin();
    for key in [2, 3] {
        put_chunk(&engine, &mut transaction, key, key + 200).await.unwrap();
    }
    transaction.commit().await.unwrap();
    engine.checkpoint().await.unwrap();
    engine.close().await.unwrap();
    bed
}

/// The blocks that hold chunks, each with how many.
pub(crate) async fn blocks_of_chunks(bed: &mut Bed) -> Vec<(Name, usize)> {
    let whole = bed.storage.snapshot_blobs();
    let mut found = Vec::new();
    for name in whole.keys() {
        bed.storage.remove(*name);
        if let Ok(engine) = bed.open_with(|options| options.read_only = true).await {
            let report = check(&engine, false).await;
            let of_it = report.findings.iter().find(|finding| finding.damage.blob == Some(*name));
            found.extend(of_it.map(|finding| (*name, finding.chunks.len())).filter(|(_, chunks)| *chunks > 0));
        }
        bed.storage.restore(whole.clone());
    }
    assert!(found.len() > 4, "{found:?}");
    found
}

pub(crate) fn steady() -> CrashOptions {
    CrashOptions { yields: false, ..CrashOptions::default() }
}

/// Everything is stored again, under other keys: so nothing is released.
pub(crate) async fn store_all_again(engine: &Engine) {
    for seed in (0..CHUNKS).chain([202, 203]) {
        let key = if seed < CHUNKS { 100 + seed } else { seed };
        store(engine, key, seed).await.unwrap();
    }
}

pub(crate) async fn assert_all_reads(engine: &Engine) {
    let now = readable(&engine.snapshot()).await;
    for (key, payload_there) in &now {
        let seed = match key {
            2 | 3 => key + 200,
            100..200 => key - 100,
            key => *key,
        };
        assert_eq!(payload_there.as_ref(), Some(&payload(seed)), "key {key}");
    }
    let monday = readable(&engine.open_snapshot("monday").await.unwrap()).await;
    assert_eq!(monday.len(), CHUNKS.into());
    for (key, payload_there) in monday {
        assert_eq!(payload_there, Some(payload(key)), "key {key} of the snapshot");
    }
}

/// What may become of a block.
type Harm = fn(&Bed, Name);

const HARMS: [(&str, Harm); 6] = [
    ("gone", |bed, name| bed.storage.remove(name)),
    ("empty", |bed, name| bed.storage.overwrite(name, Bytes::new())),
    ("cut", |bed, name| bed.storage.overwrite(name, bed.storage.snapshot_blobs()[&name].slice(..700))),
    ("zeros", |bed, name| bed.storage.overwrite(name, vec![0; 4096].into())),
    ("a bit flipped", |bed, name| {
        let mut bytes = bed.storage.snapshot_blobs()[&name].to_vec();
        bytes[60] ^= 1;
        bed.storage.overwrite(name, bytes.into());
    }),
    ("longer", |bed, name| {
        let bytes = bed.storage.snapshot_blobs()[&name].clone();
        bed.storage.overwrite(name, [&bytes[..], b"x"].concat().into());
    }),
];

#[test]
fn content_that_is_stored_again_heals_all_that_shares_it() {
    block_on(async {
        let mut bed = bed(steady()).await;
        let whole = bed.storage.snapshot_blobs();
        for (name, chunks) in blocks_of_chunks(&mut bed).await {
            for (harm, hurt) in HARMS {
                bed.storage.restore(whole.clone());
                hurt(&bed, name);
                let engine = bed.open().await.unwrap();
                let before = readable(&engine.snapshot()).await;
                assert!(!check(&engine, true).await.findings.is_empty(), "{harm}");
                let repaired = repair(&engine).await;
                assert_eq!(repaired.damaged + repaired.moved, chunks as u64, "{harm}: {repaired:?}");
                for (key, payload) in readable(&engine.snapshot()).await {
                    assert!(payload.is_some() || before[&key].is_none(), "{harm}: key {key} was readable");
                }
                let noted = engine.damaged_chunks().await.unwrap();
                assert_eq!(noted.len() as u64, repaired.damaged, "{harm}");
                // What is left to do is left to those who have the content: another repair does nothing.
                let sequence = engine.snapshot().sequence();
                let again = repair(&engine).await;
                assert_eq!((again.damaged, again.moved, engine.snapshot().sequence()), (repaired.damaged, 0, sequence));
                store_all_again(&engine).await;
                assert_all_reads(&engine).await;
                assert!(engine.damaged_chunks().await.unwrap().is_empty(), "{harm}");
                assert_sound(&engine).await;
                engine.close().await.unwrap();
                let engine = bed.open().await.unwrap();
                assert_all_reads(&engine).await;
                assert_sound(&engine).await;
            }
        }
    });
}

#[test]
fn a_look_at_the_structure_repairs_what_is_missing() {
    block_on(async {
        let mut bed = bed(steady()).await;
        let (name, chunks) = blocks_of_chunks(&mut bed).await[0];
        bed.storage.remove(name);
        let engine = bed.open().await.unwrap();
        let report = check(&engine, false).await;
        assert_eq!(engine.repair(&report).await.unwrap().damaged, chunks as u64);
        store_all_again(&engine).await;
        assert_all_reads(&engine).await;
        assert_sound(&engine).await;
    });
}

#[test]
fn repairing_a_sound_repository_writes_nothing() {
    block_on(async {
        let mut bed = bed(steady()).await;
        let engine = bed.open().await.unwrap();
        let before = bed.storage.snapshot_blobs();
        assert_eq!(repair(&engine).await, Repaired::default());
        assert!(bed.storage.snapshot_blobs() == before);
    });
}

#[test]
fn who_may_only_read_repairs_nothing() {
    block_on(async {
        let mut bed = bed(steady()).await;
        let (name, _) = blocks_of_chunks(&mut bed).await[0];
        bed.storage.remove(name);
        let before = bed.storage.snapshot_blobs();
        let engine = bed.open_with(|options| options.read_only = true).await.unwrap();
        let report = check(&engine, true).await;
        assert!(matches!(engine.repair(&report).await, Err(Error::ReadOnly)));
        assert!(bed.storage.snapshot_blobs() == before);
    });
}

/// Healing the chunk by its number neither adds a reference nor takes it from the snapshot.
#[test]
fn a_chunk_that_only_a_snapshot_has_is_healed_and_stays_with_it() {
    block_on(async {
        let mut bed = bed(steady()).await;
        for (name, _) in blocks_of_chunks(&mut bed).await {
            bed.storage.remove(name);
        }
        let engine = bed.open().await.unwrap();
        assert_eq!(repair(&engine).await.damaged, u64::from(CHUNKS) + 2);
        let snapshot = engine.open_snapshot("monday").await.unwrap();
        let row = snapshot.get(CHUNKED, &[2]).await.unwrap().unwrap();
        let mut transaction = engine.begin();
        let (payload, other) = (payload(2), payload(1));
        let heal = (engine.identity(&payload), engine.identity(&other));
        assert!(!transaction.heal_chunk(number(&row), &heal.1, other).await.unwrap());
        assert!(transaction.heal_chunk(number(&row), &heal.0, payload.clone()).await.unwrap());
        assert_eq!(transaction.chunk(number(&row)).await.unwrap(), payload);
        let remembered = transaction.remember();
        transaction.commit().await.unwrap();
        assert_eq!(remembered.chunk(number(&row)).await.unwrap(), payload);
        let monday = readable(&engine.open_snapshot("monday").await.unwrap()).await;
        assert_eq!((monday[&2].as_ref(), &monday[&3]), (Some(&payload), &None));
        store_all_again(&engine).await;
        assert_all_reads(&engine).await;
        engine.remove_snapshot("monday").await.unwrap();
        let report = check(&engine, true).await;
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    });
}

#[test]
fn in_one_transaction_content_heals_once_and_is_found_then() {
    block_on(async {
        let mut bed = bed(steady()).await;
        for (name, _) in blocks_of_chunks(&mut bed).await {
            bed.storage.remove(name);
        }
        let engine = bed.open().await.unwrap();
        repair(&engine).await;
        let old = number(&engine.snapshot().get(CHUNKED, &[7]).await.unwrap().unwrap());
        let (payload, identity) = (payload(7), engine.identity(&payload(7)));
        let mut transaction = engine.begin();
        // Found twice before it is put, as who prepares many at once does.
        assert_eq!(transaction.find_chunk(&identity).await.unwrap(), None);
        assert_eq!(transaction.find_chunk(&identity).await.unwrap(), None);
        assert_eq!(transaction.put_new_chunk(Some(identity), payload.clone()).await.unwrap(), old);
        assert_eq!(transaction.put_new_chunk(Some(identity), payload.clone()).await.unwrap(), old);
        assert_eq!(transaction.find_chunk(&identity).await.unwrap(), Some(old));
        for key in [150, 151, 152] {
            transaction.put(CHUNKED, &[key], &old.0.to_le_bytes()).unwrap();
        }
        // The row that had it goes in the same transaction.
        transaction.release_chunk(old).unwrap();
        transaction.delete(CHUNKED, &[7]).unwrap();
        transaction.commit().await.unwrap();
        let mut transaction = engine.begin();
        for key in [150, 151, 152] {
            assert_eq!(transaction.chunk(old).await.unwrap(), payload);
            transaction.release_chunk(old).unwrap();
            transaction.delete(CHUNKED, &[key]).unwrap();
        }
        transaction.commit().await.unwrap();
        // As many references as were given were there: now the snapshot alone has it.
        assert_eq!(engine.open_snapshot("monday").await.unwrap().chunk(old).await.unwrap(), payload);
        store_all_again(&engine).await;
        assert_sound(&engine).await;
    });
}

#[test]
fn who_took_damage_for_content_before_it_was_noted_has_a_conflict() {
    block_on(async {
        let mut bed = bed(steady()).await;
        for (name, _) in blocks_of_chunks(&mut bed).await {
            bed.storage.remove(name);
        }
        let writer = bed.open().await.unwrap();
        let mut transaction = writer.begin();
        put_chunk(&writer, &mut transaction, 180, 9).await.unwrap();
        let other = bed.open().await.unwrap();
        repair(&other).await;
        assert!(matches!(transaction.commit().await, Err(Error::Conflict)));
        store(&writer, 180, 9).await.unwrap();
        assert_eq!(readable(&writer.snapshot()).await[&180], Some(payload(9)));
        assert_eq!(readable(&writer.snapshot()).await[&9], Some(payload(9)));
        // Others who only refer to other chunks have none.
        let mut transaction = other.begin();
        other.refresh().await.unwrap();
        put_chunk(&other, &mut transaction, 181, 181).await.unwrap();
        transaction.commit().await.unwrap();
    });
}

#[test]
fn a_block_that_comes_back_needs_no_healing() {
    block_on(async {
        let mut bed = bed(steady()).await;
        let (name, chunks) = blocks_of_chunks(&mut bed).await[0];
        let block = bed.storage.snapshot_blobs()[&name].clone();
        bed.storage.remove(name);
        let engine = bed.open().await.unwrap();
        assert_eq!(repair(&engine).await.damaged, chunks as u64);
        bed.storage.overwrite(name, block);
        assert_sound(&engine).await;
        let repaired = repair(&engine).await;
        assert_eq!((repaired.readable, repaired.damaged), (chunks as u64, 0));
        assert!(engine.damaged_chunks().await.unwrap().is_empty());
        assert_sound(&engine).await;
    });
}

#[test]
fn what_is_removed_takes_its_note_along() {
    block_on(async {
        let mut bed = bed(steady()).await;
        for (name, _) in blocks_of_chunks(&mut bed).await {
            bed.storage.remove(name);
        }
        let engine = bed.open().await.unwrap();
        repair(&engine).await;
        let mut transaction = engine.begin();
        for key in 0..CHUNKS {
            let row = transaction.get(CHUNKED, &[key]).await.unwrap().unwrap();
            transaction.release_chunk(number(&row)).unwrap();
            transaction.delete(CHUNKED, &[key]).unwrap();
        }
        transaction.commit().await.unwrap();
        // Those that the snapshot has are left.
        assert_eq!(engine.damaged_chunks().await.unwrap().len(), CHUNKS.into());
        engine.remove_snapshot("monday").await.unwrap();
        assert!(engine.damaged_chunks().await.unwrap().is_empty());
        assert_sound(&engine).await;
    });
}

#[test]
fn chunks_without_an_identity_are_noted_and_nothing_is_taken_for_them() {
    block_on(async {
        let (mut bed, engine) = races::bed(33, steady()).await;
        let mut transaction = engine.begin();
        for key in 0..CHUNKS {
            let number = transaction.put_chunk(None, payload(key)).await.unwrap();
            transaction.put(CHUNKED, &[key], &number.0.to_le_bytes()).unwrap();
        }
        transaction.commit().await.unwrap();
        engine.checkpoint().await.unwrap();
        engine.close().await.unwrap();
        let (name, chunks) = blocks_of_chunks(&mut bed).await[0];
        bed.storage.remove(name);
        let engine = bed.open().await.unwrap();
        let repaired = repair(&engine).await;
        assert_eq!((repaired.damaged, repaired.unidentified), (chunks as u64, chunks as u64));
        assert_eq!(engine.damaged_chunks().await.unwrap().len(), chunks);
    });
}

/// Of two that come at once, each stores its own: one of them heals the other.
#[test]
fn a_damaged_chunk_gets_the_content_of_an_equal_one() {
    block_on(async {
        let mut bed = bed(steady()).await;
        let engine = bed.open().await.unwrap();
        let mut transactions = Vec::new();
        for key in [60, 61] {
            let mut transaction = engine.begin();
            // Not within rows.
            transaction.put_chunk(None, sample_bytes(key.into(), 3_000)).await.unwrap();
            put_chunk(&engine, &mut transaction, key, 60).await.unwrap();
            transactions.push(transaction);
        }
        for transaction in transactions {
            transaction.commit().await.unwrap();
            engine.checkpoint().await.unwrap();
        }
        let mut numbers = Vec::new();
        for key in [60, 61] {
            numbers.push(number(&engine.snapshot().get(CHUNKED, &[key]).await.unwrap().unwrap()));
        }
        assert_ne!(numbers[0], numbers[1]);
        engine.close().await.unwrap();
        let whole = bed.storage.snapshot_blobs();
        let mut restored = 0;
        for (name, _) in blocks_of_chunks(&mut bed).await {
            bed.storage.restore(whole.clone());
            bed.storage.remove(name);
            let engine = bed.open().await.unwrap();
            let before = readable(&engine.snapshot()).await;
            let repaired = repair(&engine).await;
            if before[&60].is_some() == before[&61].is_some() {
                continue;
            }
            restored += repaired.restored;
            let after = readable(&engine.snapshot()).await;
            assert_eq!((after[&60].as_ref(), after[&61].as_ref()), (Some(&payload(60)), Some(&payload(60))));
            assert!(!engine.damaged_chunks().await.unwrap().contains(&numbers[0]));
            assert!(!engine.damaged_chunks().await.unwrap().contains(&numbers[1]));
        }
        assert!(restored >= 2, "{restored}");
    });
}

/// A medium that does not answer is no damage: whichever call fails, and however.
#[test]
fn an_error_of_the_storage_is_never_taken_for_damage() {
    block_on(async {
        let kinds = [ErrorKind::Unavailable, ErrorKind::PermissionDenied, ErrorKind::Busy, ErrorKind::Full];
        // Each call fails in one of these ways; all of them take four times as long.
        for turn in 0..if is_full() { kinds.len() } else { 1 } {
            let mut bed = bed(steady()).await;
            let (name, chunks) = blocks_of_chunks(&mut bed).await[1];
            HARMS[4].1(&bed, name);
            let whole = bed.storage.snapshot_blobs();
            let mut failed = 0;
            for (call, kind) in (1..).zip(kinds.into_iter().cycle().skip(turn)) {
                bed.storage.restore(whole.clone());
                let engine = bed.open().await.unwrap();
                let before = readable(&engine.snapshot()).await;
                let calls = bed.storage.calls().all();
                bed.storage.fail_call(call, Fault::Refused(kind));
                let done = match engine.check(CheckOptions { data: true, ..CheckOptions::default() }).await {
                    Ok(report) => engine.repair(&report).await,
                    Err(error) => Err(error),
                };
                let is_over = bed.storage.calls().all() - calls < call;
                bed.storage.clear_faults();
                if let Err(error) = &done {
                    assert!(!matches!(error, Error::Damaged(_) | Error::Missing { .. }), "{kind:?} at {call}: {error}");
                    failed += 1;
                }
                engine.refresh().await.unwrap();
                let noted = engine.damaged_chunks().await.unwrap();
                let lost = before.values().filter(|payload| payload.is_none()).count();
                assert!(noted.len() <= chunks && lost <= chunks, "{kind:?} at {call}: {noted:?}");
                for (key, payload) in readable(&engine.snapshot()).await {
                    assert!(payload.is_some() || before[&key].is_none(), "{kind:?} at {call}: key {key}");
                }
                for number in &noted {
                    assert!(engine.snapshot().chunk(*number).await.is_err(), "{kind:?} at {call}: {number:?}");
                }
                repair(&engine).await;
                store_all_again(&engine).await;
                assert_all_reads(&engine).await;
                engine.close().await.unwrap();
                assert_sound(&bed.open().await.unwrap()).await;
                if is_over {
                    break;
                }
            }
            assert!(failed > 10, "{failed}");
        }
    });
}

/// Cut off after any call, a repair has done a part, and the next does the rest.
#[test]
fn a_repair_that_is_cut_off_at_any_call_has_made_nothing_worse_and_is_done_again() {
    block_on(async {
        for fault in [Fault::LostRequest, Fault::LostReply, Fault::NotDurable] {
            for harm in [0, 4] {
                let mut bed = bed(steady()).await;
                let (name, _) = blocks_of_chunks(&mut bed).await[1];
                HARMS[harm].1(&bed, name);
                let whole = bed.storage.snapshot_blobs();
                for calls in 0.. {
                    bed.storage.restore(whole.clone());
                    let engine = bed.open().await.unwrap();
                    let before = readable(&engine.snapshot()).await;
                    let report = check(&engine, true).await;
                    bed.storage.cut_off_all_after(calls, fault);
                    let is_over = engine.repair(&report).await.is_ok();
                    bed.storage.crash(calls);
                    drop(engine);
                    let engine = bed.open().await.unwrap();
                    for (key, payload) in readable(&engine.snapshot()).await {
                        assert!(payload.is_some() || before[&key].is_none(), "{fault:?} after {calls}: key {key}");
                    }
                    repair(&engine).await;
                    store_all_again(&engine).await;
                    assert_all_reads(&engine).await;
                    assert_sound(&engine).await;
                    if is_over {
                        assert!(calls > 1);
                        break;
                    }
                }
            }
        }
    });
}

/// Two that repair, and one that stores all the while: whatever comes first, all is well afterwards.
#[test]
fn processes_that_repair_and_store_at_once_come_to_a_sound_repository() {
    simulate(24, |seed| {
        block_on(async {
            let options = if seed % 2 == 0 { CrashOptions::default() } else { CrashOptions::object_store() };
            let mut bed = bed(CrashOptions { yields: true, ..options }).await;
            let blocks = blocks_of_chunks(&mut bed).await;
            for (place, (name, _)) in blocks.into_iter().enumerate() {
                if (seed >> (place % 4)) % 2 == 0 {
                    HARMS[(seed as usize + place) % HARMS.len()].1(&bed, name);
                }
            }
            let (one, two, three) = (bed.open().await.unwrap(), bed.open().await.unwrap(), bed.open().await.unwrap());
            let repairing = async |engine: Engine| {
                for _ in 0..3 {
                    let checked = engine.check(CheckOptions { data: true, ..CheckOptions::default() }).await;
                    match checked {
                        Ok(report) => match engine.repair(&report).await {
                            Ok(_) | Err(Error::Conflict | Error::Expired) => {}
                            Err(error) => panic!("{error}"),
                        },
                        Err(Error::Expired) => {}
                        Err(error) => panic!("{error}"),
                    }
                    engine.refresh().await.unwrap();
                }
                engine
            };
            let storing = async {
                for key in 0..CHUNKS {
                    match store(&three, 100 + key, key).await {
                        Ok(_) | Err(Error::Conflict) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                three.checkpoint().await.unwrap();
            };
            let (one, two, ()) = join3(repairing(one), repairing(two), storing).await;
            one.close().await.unwrap();
            two.refresh().await.unwrap();
            repair(&two).await;
            store_all_again(&two).await;
            assert_all_reads(&two).await;
            two.close().await.unwrap();
            three.close().await.unwrap();
            let engine = bed.open().await.unwrap();
            assert_all_reads(&engine).await;
            assert_sound(&engine).await;
        });
    });
}

#[test]
fn compaction_goes_on_around_blocks_that_cannot_be_read() {
    block_on(async {
        let mut damaged = 0;
        for (harm, apply) in HARMS {
            let mut bed = sparse_bed().await;
            let (name, _) = *blocks_of_chunks(&mut bed).await.iter().min_by_key(|(_, chunks)| *chunks).unwrap();
            apply(&bed, name);
            let engine = bed.open().await.unwrap();
            repair(&engine).await;
            let before = readable(&engine.snapshot()).await;
            let compacted = engine.compact(CompactOptions { thorough: true, ..CompactOptions::default() }).await;
            let compacted = compacted.unwrap_or_else(|error| panic!("{harm}: {error}"));
            // The others are packed, as if it were not there: so there is little left to do.
            let again = engine.compact(CompactOptions { thorough: true, ..CompactOptions::default() }).await.unwrap();
            assert!(compacted.blobs_after + 8 < compacted.blobs_before, "{harm}: {compacted:?}");
            assert!(again.moved_bytes * 4 < compacted.moved_bytes, "{harm}: {compacted:?}, then {again:?}");
            damaged += compacted.damaged;
            assert_eq!(readable(&engine.snapshot()).await, before, "{harm}");
            store_all_again(&engine).await;
            for key in (30..90).step_by(3) {
                store(&engine, key, key).await.unwrap();
            }
            engine.compact(CompactOptions::default()).await.unwrap();
            assert_sound(&engine).await;
            assert_all_reads(&engine).await;
        }
        assert!(damaged > 0);
    });
}
