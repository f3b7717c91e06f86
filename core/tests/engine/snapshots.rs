//! Snapshots keep what was there, whatever happens to it afterwards, and give it back when they are removed.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::crash::{CrashOptions, Fault, Loss};
use strongroom_conformance::{Dice, simulate};
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{
    CheckOptions, ChunkNumber, CompactOptions, Counts, Direction, Engine, References, Snapshot, Table, Transaction,
    Tuning, View,
};
use strongroom_core::storage::{Effect, ErrorKind, Operation};
use strongroom_core::{Error, Result};

use super::support::{Bed, TABLE, get, put};

/// Rows whose value is the number of a chunk.
const CHUNKED: Table = Table(0x81);

/// What is there: plain rows, and rows that own a chunk, with the seed of its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    plain: BTreeMap<u8, u8>,
    chunked: BTreeMap<u8, u8>,
}

/// Few payloads, so that chunks that only a snapshot has are met again.
fn payload(seed: u8) -> Bytes {
    strongroom_conformance::storage::sample_bytes(u64::from(seed), 40 + usize::from(seed) * 60)
}

async fn set_chunk(engine: &Engine, transaction: &mut Transaction, key: u8, seed: Option<u8>) -> Result<()> {
    if let Some(row) = transaction.get(CHUNKED, &[key]).await? {
        transaction.release_chunk(number(&row))?;
    }
    let Some(seed) = seed else { return transaction.delete(CHUNKED, &[key]) };
    let payload = payload(seed);
    // Every other payload takes part in dedup.
    let identity = (seed % 2 == 0).then(|| engine.identity(&payload));
    let number = transaction.put_chunk(identity, payload).await?;
    transaction.put(CHUNKED, &[key], &number.0.to_le_bytes())
}

fn number(row: &[u8]) -> ChunkNumber {
    ChunkNumber(u64::from_le_bytes(row.try_into().unwrap()))
}

pub(crate) async fn observe(view: &impl View) -> Result<Content> {
    let mut content = Content::default();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let mut scan = view.scan(TABLE, all, Direction::Ascending);
    while let Some((key, value)) = scan.next().await? {
        content.plain.insert(key[0], value[0]);
    }
    let mut scan = view.scan(CHUNKED, all, Direction::Ascending);
    while let Some((key, row)) = scan.next().await? {
        let found = view.chunk(number(&row)).await?;
        // Its length says which one it must be.
        let seed = u8::try_from((found.len() - 40) / 60).unwrap();
        assert_eq!(found, payload(seed));
        content.chunked.insert(key[0], seed);
    }
    Ok(content)
}

/// Knows the rows of these tests.
pub(crate) struct Rows;

#[async_trait::async_trait]
impl References for Rows {
    async fn chunks_of(&self, _: &Snapshot, table: Table, _: &[u8], value: &[u8]) -> Result<Vec<ChunkNumber>> {
        Ok(if table == CHUNKED { vec![number(value)] } else { Vec::new() })
    }
}

/// All rows of a state.
async fn rows(view: &impl View) -> BTreeMap<(Table, Bytes), Bytes> {
    let mut rows = BTreeMap::new();
    for table in [TABLE, CHUNKED] {
        let mut scan = view.scan(table, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
        while let Some((key, value)) = scan.next().await.unwrap() {
            rows.insert((table, key), value);
        }
    }
    rows
}

#[test]
fn a_state_of_another_repository_is_not_brought_back_here() {
    block_on(async {
        let options = || CrashOptions { yields: false, ..CrashOptions::default() };
        let (_bed, engine) = Bed::new(1, 4096, Suite::Aes256Gcm, options()).await;
        let (_other_bed, other) = Bed::new(2, 4096, Suite::Aes256Gcm, options()).await;
        put(&engine, b"k", b"here").await.unwrap();
        put(&other, b"k", b"there").await.unwrap();
        let refused = engine.begin().restore(&other.snapshot(), &Rows).await;
        assert!(matches!(&refused, Err(Error::Invalid(what)) if what.contains("another repository")), "{refused:?}");
        assert_eq!(get(&engine, b"k").await.unwrap().unwrap(), &b"here"[..]);
    });
}

/// What a comparison of two states says is what a look at all their rows says.
async fn assert_changes(before: &Snapshot, after: &Snapshot) {
    let (old, new) = (rows(before).await, rows(after).await);
    let mut expected: BTreeMap<_, _> = old.iter().map(|(key, row)| (key.clone(), (Some(row.clone()), None))).collect();
    for (key, row) in &new {
        expected.entry(key.clone()).or_insert((None, None)).1 = Some(row.clone());
    }
    expected.retain(|_, (before, after)| before != after);
    let mut changes = after.changes_since(before);
    let mut seen = BTreeMap::new();
    while let Some(change) = changes.next().await.unwrap() {
        seen.insert((change.table, change.key), (change.before, change.after));
    }
    assert_eq!(seen, expected);
}

pub(crate) async fn restore(engine: &Engine, name: &str) -> Result<()> {
    let kept = engine.open_snapshot(name).await?;
    let mut transaction = engine.begin();
    transaction.restore(&kept, &Rows).await?;
    transaction.commit().await.map(|_| ())
}

/// Every reference and every count is right, in the newest state and in every snapshot.
pub(crate) async fn assert_sound(engine: &Engine) {
    let mut references = Counts::default();
    let view = engine.snapshot();
    let mut scan = view.scan(CHUNKED, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
    while let Some((_, row)) = scan.next().await.unwrap() {
        references.add(number(&row).0);
    }
    let options =
        CheckOptions { data: true, references: Some(references), rows: Some(&Rows), ..CheckOptions::default() };
    let report = engine.check(options).await.unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

async fn commit(engine: &Engine, changes: &[(bool, u8, Option<u8>)]) -> Result<()> {
    let mut transaction = engine.begin();
    fill(engine, &mut transaction, changes).await?;
    transaction.commit().await.map(|_| ())
}

pub(crate) async fn fill(
    engine: &Engine,
    transaction: &mut Transaction,
    changes: &[(bool, u8, Option<u8>)],
) -> Result<()> {
    for (is_chunk, key, value) in changes {
        match value {
            _ if *is_chunk => set_chunk(engine, transaction, *key, *value).await?,
            Some(value) => transaction.put(TABLE, &[*key], &[*value])?,
            None => transaction.delete(TABLE, &[*key])?,
        }
    }
    Ok(())
}

pub(crate) fn change(content: &mut Content, changes: &[(bool, u8, Option<u8>)]) {
    for (is_chunk, key, value) in changes {
        let rows = if *is_chunk { &mut content.chunked } else { &mut content.plain };
        match value {
            Some(value) => rows.insert(*key, *value),
            None => rows.remove(key),
        };
    }
}

async fn bed(seed: u64, block_bytes: u32) -> (Bed, Engine) {
    let options = CrashOptions { page_names: 1000, yields: false, ..CrashOptions::default() };
    let (mut bed, engine) = Bed::new(seed, block_bytes, Suite::Aes256Gcm, options).await;
    // From here on it is alone, and deletes at once.
    bed.storage.crash_with(Loss::Nothing);
    drop(engine);
    let engine = bed.open().await.unwrap();
    (bed, engine)
}

async fn compact(engine: &Engine) -> u64 {
    engine.compact(CompactOptions { thorough: true, ..CompactOptions::default() }).await.unwrap().blobs_after
}

fn all_keys(seed: u8) -> Vec<(bool, u8, Option<u8>)> {
    (0..=u8::MAX).flat_map(|key| [(false, key, Some(seed)), (true, key, Some(key.wrapping_add(seed)))]).collect()
}

pub(crate) fn some_keys(seed: u8) -> Vec<(bool, u8, Option<u8>)> {
    (0..40).flat_map(|key| [(false, key, Some(seed)), (true, key, Some(key + seed))]).collect()
}

pub(crate) fn no_keys() -> Vec<(bool, u8, Option<u8>)> {
    (0..=u8::MAX).flat_map(|key| [(false, key, None), (true, key, None)]).collect()
}

#[test]
fn a_snapshot_shows_what_was_there_after_all_of_it_was_overwritten_deleted_and_compacted() {
    block_on(async {
        let (mut bed, engine) = bed(1, 4096).await;
        let mut content = Content::default();
        commit(&engine, &all_keys(1)).await.unwrap();
        change(&mut content, &all_keys(1));
        let info = engine.create_snapshot("first").await.unwrap();
        assert_eq!(engine.snapshots().await.unwrap(), std::slice::from_ref(&info));
        commit(&engine, &all_keys(2)).await.unwrap();
        engine.checkpoint().await.unwrap();
        commit(&engine, &no_keys()).await.unwrap();
        engine.checkpoint().await.unwrap();
        compact(&engine).await;
        let kept = engine.open_snapshot("first").await.unwrap();
        assert_eq!(kept.sequence(), info.sequence);
        assert_eq!(observe(&kept).await.unwrap(), content);
        assert_sound(&engine).await;
        engine.close().await.unwrap();
        drop(engine);
        let engine = bed.open().await.unwrap();
        assert_eq!(engine.snapshots().await.unwrap(), [info]);
        assert_eq!(observe(&engine.open_snapshot("first").await.unwrap()).await.unwrap(), content);
        assert_eq!(observe(&engine.snapshot()).await.unwrap(), Content::default());
        assert_sound(&engine).await;
    });
}

#[test]
fn removing_a_snapshot_gives_back_what_only_it_needed_and_leaves_the_others_whole() {
    block_on(async {
        let (_bed, engine) = bed(2, 4096).await;
        let empty = compact(&engine).await;
        let mut states = Vec::new();
        for round in 1..=3 {
            commit(&engine, &all_keys(round * 60)).await.unwrap();
            let name = format!("round {round}");
            engine.create_snapshot(&name).await.unwrap();
            states.push((name, observe(&engine.snapshot()).await.unwrap()));
        }
        commit(&engine, &no_keys()).await.unwrap();
        let all = compact(&engine).await;
        // From the middle, from the end, from the front.
        let mut before = all;
        for index in [1, 1, 0] {
            let (name, _) = states.remove(index);
            engine.remove_snapshot(&name).await.unwrap();
            assert!(matches!(engine.open_snapshot(&name).await, Err(Error::NoSnapshot { .. })));
            let after = compact(&engine).await;
            assert!(after < before, "{name}: {before} blobs before, {after} after");
            before = after;
            for (name, content) in &states {
                assert_eq!(observe(&engine.open_snapshot(name).await.unwrap()).await.unwrap(), *content, "{name}");
            }
            assert_sound(&engine).await;
        }
        assert!(before <= empty + 8, "{empty} blobs when empty, {before} after all was removed");
    });
}

#[test]
fn a_compaction_beside_snapshots_leaves_the_next_one_nothing_to_write() {
    block_on(async {
        let (bed, engine) = bed(41, 4096).await;
        // Rows come to the trees out of order and go again, so that nodes are half empty and blocks of them sparse.
        let mut dice = Dice::new(41);
        for round in 0..30 {
            let mut transaction = engine.begin();
            for _ in 0..60 {
                let key = dice.below(2000).to_be_bytes();
                match dice.below(3) {
                    0 => transaction.delete(TABLE, &key).unwrap(),
                    _ => {
                        let number = transaction.put_chunk(None, payload(dice.below(40) as u8)).await.unwrap();
                        transaction.put(TABLE, &key, &number.0.to_le_bytes()).unwrap();
                    }
                }
            }
            transaction.commit().await.unwrap();
            engine.checkpoint().await.unwrap();
            if round % 10 == 9 {
                engine.create_snapshot(&format!("kept {round}")).await.unwrap();
            }
        }
        engine.compact(CompactOptions::default()).await.unwrap();
        let puts = || bed.storage.calls().of(Operation::Put);
        for _ in 0..3 {
            let before = puts();
            let report = engine.compact(CompactOptions::default()).await.unwrap();
            // The nodes on the way to the few rows that a checkpoint changes.
            assert!(puts() - before <= 12, "{} blocks were put: {report:?}", puts() - before);
        }
    });
}

#[test]
fn a_chunk_that_only_a_snapshot_has_is_found_by_dedup_and_outlives_the_snapshot_then() {
    block_on(async {
        let (_bed, engine) = bed(3, 16 << 10).await;
        commit(&engine, &[(true, 1, Some(200))]).await.unwrap();
        let first = number(&engine.snapshot().get(CHUNKED, &[1]).await.unwrap().unwrap());
        engine.create_snapshot("kept").await.unwrap();
        commit(&engine, &[(true, 1, None)]).await.unwrap();
        assert_sound(&engine).await;
        commit(&engine, &[(true, 2, Some(200))]).await.unwrap();
        let again = number(&engine.snapshot().get(CHUNKED, &[2]).await.unwrap().unwrap());
        assert_eq!(first, again, "stored once");
        engine.remove_snapshot("kept").await.unwrap();
        compact(&engine).await;
        assert_eq!(engine.snapshot().chunk(again).await.unwrap(), payload(200));
        assert_sound(&engine).await;
    });
}

#[test]
fn a_state_is_brought_back_whole_and_what_came_between_can_be_brought_back_too() {
    block_on(async {
        let (_bed, engine) = bed(9, 4096).await;
        commit(&engine, &some_keys(1)).await.unwrap();
        let old = observe(&engine.snapshot()).await.unwrap();
        engine.create_snapshot("old").await.unwrap();
        commit(&engine, &some_keys(90)).await.unwrap();
        commit(&engine, &[(true, 7, None), (false, 200, Some(1)), (true, 201, Some(5))]).await.unwrap();
        let new = observe(&engine.snapshot()).await.unwrap();
        engine.create_snapshot("new").await.unwrap();
        restore(&engine, "old").await.unwrap();
        assert_eq!(observe(&engine.snapshot()).await.unwrap(), old);
        assert_sound(&engine).await;
        restore(&engine, "new").await.unwrap();
        assert_eq!(observe(&engine.snapshot()).await.unwrap(), new);
        let blobs = compact(&engine).await;
        engine.remove_snapshot("old").await.unwrap();
        engine.remove_snapshot("new").await.unwrap();
        assert_eq!(observe(&engine.snapshot()).await.unwrap(), new);
        assert!(compact(&engine).await < blobs);
        assert_sound(&engine).await;
    });
}

#[test]
fn a_state_that_is_brought_back_conflicts_with_whatever_is_committed_meanwhile() {
    block_on(async {
        let (_bed, engine) = bed(10, 4096).await;
        commit(&engine, &some_keys(1)).await.unwrap();
        engine.create_snapshot("kept").await.unwrap();
        commit(&engine, &some_keys(2)).await.unwrap();
        let kept = engine.open_snapshot("kept").await.unwrap();
        let mut transaction = engine.begin();
        assert!(transaction.restore(&kept, &Rows).await.unwrap() > 0);
        put(&engine, b"unrelated", b"row").await.unwrap();
        assert!(matches!(transaction.commit().await, Err(Error::Conflict)));
        let mut late = engine.begin();
        late.put(TABLE, b"a", b"b").unwrap();
        assert!(matches!(late.restore(&kept, &Rows).await, Err(Error::Invalid(_))));
        assert_sound(&engine).await;
    });
}

#[test]
fn names_are_those_of_files_and_each_is_there_once() {
    block_on(async {
        let (mut bed, engine) = bed(4, 4096).await;
        for name in ["", ".", "..", "a/b", "a\0b", "line\nbreak"] {
            assert!(matches!(engine.create_snapshot(name).await, Err(Error::Invalid(_))), "{name:?}");
        }
        let long = "x".repeat(256);
        assert!(matches!(engine.create_snapshot(&long).await, Err(Error::LimitExceeded { .. })));
        engine.create_snapshot(&long[..255]).await.unwrap();
        engine.create_snapshot("Größe 3").await.unwrap();
        assert!(matches!(engine.create_snapshot("Größe 3").await, Err(Error::SnapshotExists { .. })));
        assert!(matches!(engine.open_snapshot("other").await, Err(Error::NoSnapshot { .. })));
        assert!(matches!(engine.remove_snapshot("other").await, Err(Error::NoSnapshot { .. })));
        assert_eq!(engine.info().await.unwrap().snapshots, 2);
        let reader = bed.open_with(|options| options.read_only = true).await.unwrap();
        assert_eq!(reader.snapshots().await.unwrap().len(), 2);
        assert!(matches!(reader.create_snapshot("another").await, Err(Error::ReadOnly)));
        assert!(matches!(reader.remove_snapshot("Größe 3").await, Err(Error::ReadOnly)));
    });
}

#[test]
fn a_snapshot_and_its_removal_write_no_more_than_the_change_is_large() {
    block_on(async {
        let (_bed, engine) = bed(5, 4096).await;
        for round in 0..40 {
            commit(&engine, &all_keys(round)).await.unwrap();
        }
        engine.checkpoint().await.unwrap();
        let puts = |bed: &Bed| {
            bed.storage.calls().of(strongroom_core::storage::Operation::PutDurable)
                + bed.storage.calls().of(strongroom_core::storage::Operation::Put)
        };
        let before = puts(&_bed);
        engine.create_snapshot("unchanged").await.unwrap();
        put(&engine, b"k", b"v").await.unwrap();
        engine.create_snapshot("one row").await.unwrap();
        engine.remove_snapshot("unchanged").await.unwrap();
        let cost = puts(&_bed) - before;
        assert!(cost < 24, "{cost} puts");
        assert_sound(&engine).await;
    });
}

#[test]
fn a_reader_of_a_snapshot_reads_on_while_another_handle_removes_it_and_expires_across_processes() {
    block_on(async {
        let (mut bed, engine) = bed(6, 4096).await;
        engine.close().await.unwrap();
        bed.tuning = Tuning { reader_grace_millis: 0, checkpoint_commits: 4, ..Tuning::default() };
        let engine = bed.open().await.unwrap();
        commit(&engine, &all_keys(7)).await.unwrap();
        let content = observe(&engine.snapshot()).await.unwrap();
        engine.create_snapshot("kept").await.unwrap();
        commit(&engine, &no_keys()).await.unwrap();
        let other = bed.open_with(|options| options.read_only = true).await.unwrap();
        let elsewhere = other.open_snapshot("kept").await.unwrap();
        let here = engine.open_snapshot("kept").await.unwrap();
        engine.remove_snapshot("kept").await.unwrap();
        compact(&engine).await;
        assert_eq!(observe(&here).await.unwrap(), content);
        drop(here);
        for round in 0..20 {
            put(&engine, b"x", &[round]).await.unwrap();
        }
        compact(&engine).await;
        match observe(&elsewhere).await {
            Err(Error::Expired) => {}
            Ok(seen) => assert_eq!(seen, content),
            Err(error) => panic!("{error}"),
        }
        assert_sound(&engine).await;
    });
}

#[test]
fn a_snapshot_can_be_removed_on_a_full_storage_and_its_space_is_there_then() {
    block_on(async {
        let (mut bed, engine) = bed(7, 4096).await;
        engine.close().await.unwrap();
        drop(engine);
        bed.tuning = Tuning::default();
        let engine = bed.open().await.unwrap();
        commit(&engine, &all_keys(100)).await.unwrap();
        engine.create_snapshot("kept").await.unwrap();
        commit(&engine, &no_keys()).await.unwrap();
        engine.checkpoint().await.unwrap();
        let blobs = bed.storage.snapshot_blobs().len() as u64;
        bed.storage.set_capacity(Some(blobs * 4096));
        let more = &all_keys(3)[..400];
        let full = commit(&engine, more).await.unwrap_err();
        assert_eq!(full.storage_kind(), Some(ErrorKind::Full));
        engine.remove_snapshot("kept").await.unwrap();
        compact(&engine).await;
        commit(&engine, more).await.unwrap();
        assert_sound(&engine).await;
    });
}

/// A removal that is cut off after each of its calls is finished later, and nothing else is lost by it.
#[test]
fn a_removal_that_was_cut_off_is_finished_by_the_next_compaction() {
    block_on(async {
        for calls in 0..12 {
            let (mut bed, engine) = bed(8, 4096).await;
            commit(&engine, &some_keys(9)).await.unwrap();
            let first = observe(&engine.snapshot()).await.unwrap();
            engine.create_snapshot("first").await.unwrap();
            commit(&engine, &some_keys(10)).await.unwrap();
            engine.create_snapshot("second").await.unwrap();
            commit(&engine, &no_keys()).await.unwrap();
            engine.close().await.unwrap();
            drop(engine);
            let engine = bed.open().await.unwrap();
            bed.storage.cut_off_all_after(calls, Fault::LostRequest);
            let _ = engine.remove_snapshot("second").await;
            bed.storage.crash_with(Loss::Everything);
            drop(engine);
            let engine = bed.open().await.unwrap();
            assert_sound(&engine).await;
            if engine.snapshots().await.unwrap().len() == 2 {
                engine.remove_snapshot("second").await.unwrap();
            }
            let blobs = compact(&engine).await;
            assert_eq!(observe(&engine.open_snapshot("first").await.unwrap()).await.unwrap(), first);
            assert_sound(&engine).await;
            engine.create_snapshot("second").await.unwrap();
            engine.remove_snapshot("second").await.unwrap();
            assert!(compact(&engine).await <= blobs + 1, "something of it had been left over");
        }
    });
}

fn is_of_the_medium(error: &Error) -> bool {
    matches!(error, Error::Storage(_) | Error::CommitUnknown { .. } | Error::Conflict | Error::Expired | Error::Closed)
}

fn may_have_happened(error: &Error) -> bool {
    match error {
        Error::CommitUnknown { .. } => true,
        Error::Storage(error) => error.effect() == Effect::Unknown,
        _ => false,
    }
}

/// What there may be: of each snapshot, and of the newest state, since some calls ended in the unknown.
struct Expected {
    newest: Vec<Content>,
    /// `None`: it may not be there.
    kept: BTreeMap<String, Vec<Option<Content>>>,
}

impl Expected {
    async fn assert_seen(&mut self, engine: &Engine) {
        let seen = observe(&engine.snapshot()).await.unwrap();
        assert!(self.newest.contains(&seen), "{seen:?}, expected one of {:?}", self.newest);
        self.newest = vec![seen];
        let names: Vec<String> = engine.snapshots().await.unwrap().into_iter().map(|info| info.name).collect();
        for name in &names {
            assert!(self.kept.contains_key(name), "{name} was never taken");
        }
        let mut kept = BTreeMap::new();
        for (name, candidates) in std::mem::take(&mut self.kept) {
            let seen = match names.contains(&name) {
                true => Some(observe(&engine.open_snapshot(&name).await.unwrap()).await.unwrap()),
                false => None,
            };
            assert!(candidates.contains(&seen), "{name}: {seen:?}, expected one of {candidates:?}");
            if seen.is_some() {
                let (then, now) = (engine.open_snapshot(&name).await.unwrap(), engine.snapshot());
                assert_changes(&then, &now).await;
                assert_changes(&now, &then).await;
                kept.insert(name, vec![seen]);
            }
        }
        self.kept = kept;
    }
}

pub(crate) fn changes(dice: &mut Dice) -> Vec<(bool, u8, Option<u8>)> {
    let change = |dice: &mut Dice| {
        let value = (dice.below(4) > 0).then(|| dice.below(20) as u8);
        (dice.below(2) == 0, dice.below(40) as u8, value)
    };
    (0..1 + dice.below(12)).map(|_| change(dice)).collect()
}

async fn run(seed: u64) {
    let mut dice = Dice::new(seed);
    let options = match dice.below(3) {
        0 => CrashOptions::atomic(),
        1 => CrashOptions::object_store(),
        _ => CrashOptions::default(),
    };
    let (mut bed, mut engine) =
        Bed::new(dice.roll() >> 33, 4096, Suite::Aes256Gcm, CrashOptions { yields: false, ..options }).await;
    if dice.below(2) == 0 {
        bed.tuning.reader_grace_millis = 0;
    }
    let mut expected = Expected { newest: vec![Content::default()], kept: BTreeMap::new() };
    let mut taken = 0;
    for _ in 0..6 + dice.below(30) {
        let mut reopen = false;
        match dice.below(20) {
            0..3 => {
                taken += 1;
                let name = format!("{taken}");
                let candidates: Vec<_> = expected.newest.iter().cloned().map(Some).collect();
                match engine.create_snapshot(&name).await {
                    Ok(_) => drop(expected.kept.insert(name, candidates)),
                    Err(error) => {
                        assert!(is_of_the_medium(&error), "{error}");
                        // It may come to be in the chain later, if its commit reached storage.
                        expected.kept.insert(name, candidates.into_iter().chain([None]).collect());
                        reopen = true;
                    }
                }
            }
            3..5 => {
                let names: Vec<_> = expected.kept.keys().cloned().collect();
                if let Some(name) = names.get(dice.below(names.len().max(1) as u64) as usize) {
                    match engine.remove_snapshot(name).await {
                        Ok(()) => drop(expected.kept.remove(name)),
                        Err(Error::NoSnapshot { .. }) => {
                            assert!(expected.kept.remove(name).unwrap().contains(&None), "{name} is lost");
                        }
                        Err(error) => {
                            assert!(is_of_the_medium(&error), "{error}");
                            expected.kept.entry(name.clone()).or_default().push(None);
                            reopen = true;
                        }
                    }
                }
            }
            5 => {
                let thorough = dice.below(2) == 0;
                if let Err(error) = engine.compact(CompactOptions { thorough, ..CompactOptions::default() }).await {
                    assert!(is_of_the_medium(&error), "{error}");
                }
            }
            6 => {
                if let Err(error) = engine.checkpoint().await {
                    assert!(is_of_the_medium(&error), "{error}");
                }
            }
            7 => {
                let _ = engine.close().await;
                reopen = true;
            }
            8 => {
                bed.storage.crash(dice.roll());
                reopen = true;
            }
            10 | 11 => {
                let certain: Vec<_> = expected.kept.iter().filter(|(_, seen)| seen.len() == 1).collect();
                if let Some((name, seen)) = certain.get(dice.below(certain.len().max(1) as u64) as usize)
                    && let Some(Some(content)) = seen.first()
                {
                    let after = content.clone();
                    match restore(&engine, name).await {
                        Ok(()) => expected.newest = vec![after],
                        Err(error) => {
                            assert!(is_of_the_medium(&error), "{error}");
                            if may_have_happened(&error) {
                                expected.newest.push(after);
                            }
                            reopen = true;
                        }
                    }
                }
            }
            9 => {
                bed.storage.cut_off_all_after(
                    dice.below(9),
                    if dice.below(2) == 0 { Fault::LostRequest } else { Fault::LostReply },
                );
            }
            _ => {
                let changes = changes(&mut dice);
                let mut after = expected.newest.clone();
                after.iter_mut().for_each(|content| change(content, &changes));
                match commit(&engine, &changes).await {
                    Ok(()) => expected.newest = after,
                    Err(error) => {
                        assert!(is_of_the_medium(&error), "{error}");
                        if may_have_happened(&error) {
                            expected.newest.extend(after);
                        }
                        reopen = true;
                    }
                }
            }
        }
        if reopen || bed.storage.is_dead() {
            if dice.below(2) == 0 {
                bed.storage.process_kill();
            } else {
                bed.storage.crash(dice.roll());
            }
            drop(engine);
            engine = bed.open().await.unwrap();
            expected.assert_seen(&engine).await;
        }
    }
    bed.storage.crash(dice.roll());
    drop(engine);
    let engine = bed.open().await.unwrap();
    expected.assert_seen(&engine).await;
    assert_sound(&engine).await;
    for name in expected.kept.keys() {
        engine.remove_snapshot(name).await.unwrap();
    }
    commit(&engine, &no_keys()).await.unwrap();
    compact(&engine).await;
    assert_sound(&engine).await;
    let info = engine.info().await.unwrap();
    assert_eq!((info.chunks, info.snapshots), (0, 0), "all is given back");
    assert_eq!(get(&engine, b"none").await.unwrap(), None);
}

#[test]
fn whatever_happens_snapshots_keep_what_they_had() {
    simulate(super::medium::cases(150).into(), |seed| block_on(run(seed)));
}
