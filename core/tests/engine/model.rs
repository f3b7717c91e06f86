//! Random histories with crashes and faults, against an in-memory model.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use futures_lite::future::block_on;
use proptest::prelude::*;
use strongroom_conformance::crash::{CrashOptions, Fault};
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{
    CheckOptions, ChunkNumber, CompactOptions, Counts, Direction, Engine, Snapshot, Table, Transaction, View,
};
use strongroom_core::storage::ErrorKind;
use strongroom_core::{Error, Result};

use super::support::{Bed, TABLE, contents};

/// Rows whose value is in a chunk: key -> chunk number, length.
const CHUNKED: Table = Table(0x81);

/// What the repository holds: small rows, and rows in chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    chunked: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put(u8, Vec<u8>),
    Delete(u8),
    PutChunk(u8, u8, usize),
    DeleteChunk(u8),
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Change>),
    /// The commit runs into trouble at its n-th call.
    Faulty(Vec<Change>, u64, Fault),
    /// Everything fails from the n-th call on, then the machine loses power.
    CutOff(Vec<Change>, u64, u64),
    Checkpoint,
    Compact(bool),
    /// A compaction runs into trouble at its n-th call.
    FaultyCompact(u64, Fault),
    /// A compaction is cut off at its n-th change, and the machine loses power.
    CutOffCompact(u64, u64),
    Hold,
    Close,
    Kill,
    Crash(u64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..24_u8, proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(key, value)| Change::Put(key, value)),
        2 => (0..24_u8).prop_map(Change::Delete),
        2 => (0..12_u8, 0..4_u8, 0..14_000_usize).prop_map(|(key, byte, bytes)| Change::PutChunk(key, byte, bytes)),
        1 => (0..12_u8).prop_map(Change::DeleteChunk),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Refused(ErrorKind::Full)),
        Just(Fault::Refused(ErrorKind::Unavailable)),
        Just(Fault::LostRequest),
        Just(Fault::LostReply),
        Just(Fault::NotDurable),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let changes = || proptest::collection::vec(change(), 1..6);
    prop_oneof![
        8 => changes().prop_map(Step::Commit),
        2 => (changes(), 1..12_u64, fault()).prop_map(|(changes, call, fault)| Step::Faulty(changes, call, fault)),
        2 => (changes(), 0..10_u64, any::<u64>()).prop_map(|(changes, calls, seed)| Step::CutOff(changes, calls, seed)),
        1 => Just(Step::Checkpoint),
        1 => any::<bool>().prop_map(Step::Compact),
        1 => (1..60_u64, fault()).prop_map(|(call, fault)| Step::FaultyCompact(call, fault)),
        1 => (0..40_u64, any::<u64>()).prop_map(|(calls, seed)| Step::CutOffCompact(calls, seed)),
        1 => Just(Step::Hold),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::Crash),
    ]
}

impl Model {
    pub(crate) fn after(&self, changes: &[Change]) -> Self {
        let mut next = self.clone();
        for change in changes {
            match change {
                Change::Put(key, value) => {
                    next.rows.insert(vec![*key], value.clone());
                }
                Change::Delete(key) => {
                    next.rows.remove([*key].as_slice());
                }
                Change::PutChunk(key, byte, bytes) => {
                    next.chunked.insert(vec![*key], vec![*byte; *bytes]);
                }
                Change::DeleteChunk(key) => {
                    next.chunked.remove([*key].as_slice());
                }
            }
        }
        next
    }
}

/// Runs again on a conflict: a commit whose fate was open may settle between.
pub(crate) async fn apply(engine: &Engine, changes: &[Change]) -> Result<()> {
    for _ in 0..3 {
        match attempt(engine, changes).await {
            Err(Error::Conflict) => {}
            result => return result,
        }
    }
    Err(Error::Conflict)
}

async fn attempt(engine: &Engine, changes: &[Change]) -> Result<()> {
    let mut transaction = engine.begin();
    for change in changes {
        match change {
            Change::Put(key, value) => transaction.put(TABLE, &[*key], value)?,
            Change::Delete(key) => transaction.delete(TABLE, &[*key])?,
            Change::PutChunk(key, byte, bytes) => {
                release(&mut transaction, *key).await?;
                let payload = Bytes::from(vec![*byte; *bytes]);
                let number = transaction.put_chunk(Some(engine.identity(&payload)), payload).await?;
                transaction.put(CHUNKED, &[*key], &number.0.to_le_bytes())?;
            }
            Change::DeleteChunk(key) => {
                release(&mut transaction, *key).await?;
                transaction.delete(CHUNKED, &[*key])?;
            }
        }
    }
    transaction.commit().await.map(|_| ())
}

async fn release(transaction: &mut Transaction, key: u8) -> Result<()> {
    if let Some(row) = transaction.get(CHUNKED, &[key]).await? {
        transaction.release_chunk(number(&row))?;
    }
    Ok(())
}

fn number(row: &[u8]) -> ChunkNumber {
    ChunkNumber(u64::from_le_bytes(row.try_into().unwrap()))
}

pub(crate) async fn observe(view: &Snapshot) -> Model {
    try_observe(view).await.unwrap()
}

pub(crate) async fn try_observe(view: &Snapshot) -> Result<Model> {
    let rows = contents(view).await?;
    let mut chunked = BTreeMap::new();
    let mut scan = view.scan(CHUNKED, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
    while let Some((key, row)) = scan.next().await? {
        chunked.insert(key.to_vec(), view.chunk(number(&row)).await?.to_vec());
    }
    Ok(Model { rows, chunked })
}

pub(crate) async fn assert_sound(engine: &Engine) {
    let mut references = Counts::default();
    let view = engine.snapshot();
    let mut scan = view.scan(CHUNKED, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
    while let Some((_, row)) = scan.next().await.unwrap() {
        references.add(number(&row).0);
    }
    let report = engine
        .check(CheckOptions { data: true, references: Some(references), ..CheckOptions::default() })
        .await
        .unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

/// The states that may be: one, unless a commit's fate is open.
pub(crate) struct Expected(pub(crate) Vec<Model>);

impl Expected {
    pub(crate) fn maybe(&mut self, changes: &[Change]) {
        let more: Vec<Model> = self.0.iter().map(|model| model.after(changes)).collect();
        self.0.extend(more);
    }

    pub(crate) fn certainly(&mut self, changes: &[Change]) {
        for model in &mut self.0 {
            *model = model.after(changes);
        }
    }

    pub(crate) fn observed(&mut self, seen: Model) {
        assert!(self.0.contains(&seen), "saw {seen:?}, expected one of {:?}", self.0);
        self.0 = vec![seen];
    }
}

async fn run(seed: u64, options: CrashOptions, steps: Vec<Step>) {
    let (mut bed, mut engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, options).await;
    let mut expected = Expected(vec![Model::default()]);
    let mut held: Vec<(Snapshot, Model)> = Vec::new();
    for step in steps {
        let mut reopen = false;
        match step {
            Step::Commit(changes) => match apply(&engine, &changes).await {
                Ok(()) => expected.certainly(&changes),
                Err(error) => panic!("a commit without a fault fails: {error}"),
            },
            Step::Faulty(changes, call, fault) => {
                bed.storage.fail_call(call, fault);
                match apply(&engine, &changes).await {
                    Ok(()) => expected.certainly(&changes),
                    Err(Error::CommitUnknown { .. }) => expected.maybe(&changes),
                    Err(Error::Damaged(damage)) => panic!("a fault looks like damage: {damage}"),
                    Err(_) => expected.maybe(&changes),
                }
                bed.storage.clear_faults();
            }
            Step::CutOff(changes, calls, seed) => {
                bed.storage.cut_off_after(calls, Fault::LostRequest);
                match apply(&engine, &changes).await {
                    Ok(()) => expected.certainly(&changes),
                    Err(_) => expected.maybe(&changes),
                }
                bed.storage.crash(seed);
                reopen = true;
            }
            Step::Checkpoint => engine.checkpoint().await.unwrap(),
            Step::Compact(thorough) => {
                engine.compact(CompactOptions { thorough, ..CompactOptions::default() }).await.unwrap();
                assert_sound(&engine).await;
            }
            Step::FaultyCompact(call, fault) => {
                bed.storage.fail_call(call, fault);
                if let Err(Error::Damaged(damage)) = engine.compact(CompactOptions::default()).await {
                    panic!("a fault looks like damage: {damage}");
                }
                bed.storage.clear_faults();
            }
            Step::CutOffCompact(calls, seed) => {
                bed.storage.cut_off_after(calls, Fault::LostRequest);
                let _ = engine.compact(CompactOptions::default()).await;
                bed.storage.crash(seed);
                reopen = true;
            }
            Step::Hold => {
                let snapshot = engine.snapshot();
                let seen = observe(&snapshot).await;
                held.push((snapshot, seen));
            }
            Step::Close => {
                held.clear();
                engine.close().await.unwrap();
                reopen = true;
            }
            Step::Kill => {
                bed.storage.process_kill();
                reopen = true;
            }
            Step::Crash(seed) => {
                bed.storage.crash(seed);
                reopen = true;
            }
        }
        if reopen {
            held.clear();
            bed.storage.clear_faults();
            engine = bed.open().await.unwrap();
            expected.observed(observe(&engine.snapshot()).await);
            assert_sound(&engine).await;
        }
        for (snapshot, seen) in &held {
            assert_eq!(observe(snapshot).await, *seen, "a snapshot changed");
        }
    }
    // What is in the air is settled by the next commit.
    apply(&engine, &[Change::Put(200, vec![1])]).await.unwrap();
    expected.certainly(&[Change::Put(200, vec![1])]);
    expected.observed(observe(&engine.snapshot()).await);
    drop(held);
    engine.close().await.unwrap();
    let engine = bed.open().await.unwrap();
    expected.observed(observe(&engine.snapshot()).await);
    assert_sound(&engine).await;
}

fn cases() -> u32 {
    std::env::var("STRONGROOM_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or_else(|| super::medium::cases(256))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_history_with_crashes_on_files_equals_the_model(seed: u64, steps in proptest::collection::vec(step(), 1..40)) {
        block_on(run(seed, CrashOptions::default(), steps));
    }

    #[test]
    fn a_history_with_crashes_on_an_object_store_equals_the_model(seed: u64, steps in proptest::collection::vec(step(), 1..40)) {
        block_on(run(seed, CrashOptions::object_store(), steps));
    }
}

/// A claim of an epoch, after one that was given up, must not make a checkpoint whose nodes its own sweep takes away.
#[test]
fn a_checkpoint_of_unknown_fate_keeps_its_nodes_while_an_epoch_is_claimed() {
    let put = || vec![Change::Put(0, vec![])];
    let steps = vec![
        Step::Commit(put()),
        Step::Commit(put()),
        Step::Commit(put()),
        Step::CutOff(put(), 1, 0),
        Step::Commit(put()),
        Step::Commit(put()),
        Step::CutOff(put(), 0, 0),
        Step::Commit(put()),
        Step::Faulty(put(), 5, Fault::Refused(ErrorKind::Full)),
        Step::Faulty(put(), 8, Fault::Refused(ErrorKind::Full)),
    ];
    block_on(run(0, CrashOptions::default(), steps));
}
