use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use strongroom_conformance::block_on;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Fault};
use strongroom_core::crypto::{KdfParameters, RootSecret, Suite};
use strongroom_core::engine::keyring::Credentials;
use strongroom_core::engine::{
    CheckOptions, ChunkNumber, CreateOptions, Direction, Engine, OpenOptions, Table, Transaction, Tuning, Unlock, View,
};
use strongroom_core::env::Env;
use strongroom_core::storage::{ErrorKind, Name};
use strongroom_core::{Error, Result};

/// A row or, where true, a chunk under a key; and its value, or that it goes.
type Change = ((bool, u8), Option<Vec<u8>>);

const ROWS: Table = Table(0x80);
const CHUNKS: Table = Table(0x81);
/// More states than this that may be: then it is opened anew, which tells.
const STATES_COUNT_MAX: usize = 8;
/// Bytes of a history that are read: longer ones show nothing new.
const HISTORY_BYTES_MAX: usize = 400;

/// Rows by key, and the content of chunks by the key of the row that names them.
type Model = BTreeMap<(bool, u8), Vec<u8>>;

/// A fresh repository, made once: the key derivation is not what is tested.
struct Fresh {
    root: RootSecret,
    blobs: BTreeMap<Name, Bytes>,
}

fn tuning() -> Tuning {
    Tuning { checkpoint_commits: 6, close_commits: 3, reader_grace_millis: 5, ..Tuning::default() }
}

fn fresh() -> &'static Fresh {
    static FRESH: OnceLock<Fresh> = OnceLock::new();
    FRESH.get_or_init(|| {
        let medium = medium();
        let credentials = Credentials::password("password");
        let create = CreateOptions {
            credentials: &credentials,
            recovery: None,
            suite: Suite::Aes256Gcm,
            block_bytes: 4096,
            kdf: KdfParameters::MINIMUM,
            trusted: None,
            tuning: tuning(),
        };
        let created = Engine::create(Arc::new(medium.another()), Env::deterministic(0), create);
        let engine = block_on(created).expect("a place without faults");
        Fresh { root: engine.root_secret(), blobs: medium.snapshot_blobs() }
    })
}

fn medium() -> CrashingStorage {
    CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::default() })
}

/// A history of transactions, checkpoints, faults, crashes and openings, each byte or two of the input a step, against a
/// map: what was answered is there, what failed is there as a whole or not at all, and nothing else is.
pub fn engine(bytes: &[u8]) {
    block_on(run(&bytes[..bytes.len().min(HISTORY_BYTES_MAX)]));
}

enum Step {
    Row { key: u8, length: usize },
    NoRow { key: u8 },
    Chunk { key: u8, length: usize },
    NoChunk { key: u8 },
    Commit,
    FaultyCommit { call: u64, fault: Fault },
    Abort,
    Checkpoint,
    Close,
    Kill,
    Crash { seed: u64 },
    Look,
}

fn step(bytes: &mut impl Iterator<Item = u8>) -> Option<Step> {
    let first = bytes.next()?;
    let key = first >> 4;
    let mut next = || bytes.next().unwrap_or_default();
    Some(match first & 15 {
        0..3 => Step::Row { key, length: usize::from(next()) },
        3 => Step::NoRow { key },
        4 | 5 => Step::Chunk { key, length: usize::from(next()) * 40 },
        6 => Step::NoChunk { key },
        7 | 8 => Step::Commit,
        9 => {
            let fault = match key % 4 {
                0 => Fault::Refused(ErrorKind::Full),
                1 => Fault::LostRequest,
                2 => Fault::LostReply,
                _ => Fault::NotDurable,
            };
            Step::FaultyCommit { call: 1 + u64::from(next() % 16), fault }
        }
        10 => Step::Abort,
        11 => Step::Checkpoint,
        12 => Step::Close,
        13 => Step::Kill,
        14 => Step::Crash { seed: u64::from(next()) },
        _ => Step::Look,
    })
}

/// Content that says where it came from.
fn content(key: u8, number: u8, length: usize) -> Vec<u8> {
    (0..length).map(|place| key ^ number.wrapping_add((place / 7) as u8)).collect()
}

async fn run(bytes: &[u8]) {
    let Fresh { root, blobs } = fresh();
    let medium = medium();
    medium.restore(blobs.clone());
    let mut opened = 0;
    let mut open = async || {
        opened += 1;
        let mut options = OpenOptions::new(Unlock::Root(root));
        options.tuning = tuning();
        Engine::open(Arc::new(medium.reopen()), Env::deterministic(opened), options).await.expect("no fault is planned")
    };
    let mut engine = open().await;
    let mut states = vec![Model::default()];
    let mut pending: Vec<Change> = Vec::new();
    let mut bytes = bytes.iter().copied();
    let mut number = 0_u8;
    while let Some(step) = step(&mut bytes) {
        number = number.wrapping_add(1);
        let mut reopen = false;
        match step {
            Step::Row { key, length } => pending.push(((false, key), Some(content(key, number, length)))),
            Step::NoRow { key } => pending.push(((false, key), None)),
            // Few contents, so that they meet.
            Step::Chunk { key, length } => pending.push(((true, key), Some(content(key % 3, 0, length)))),
            Step::NoChunk { key } => pending.push(((true, key), None)),
            Step::Abort => {
                let mut transaction = engine.begin();
                let _ = fill(&engine, &mut transaction, &pending).await;
                pending.clear();
            }
            Step::Commit => {
                commit(&engine, &pending).await.expect("no fault is planned");
                states.iter_mut().for_each(|state| apply(state, &pending));
                pending.clear();
            }
            Step::FaultyCommit { call, fault } => {
                medium.fail_call(call, fault);
                match commit(&engine, &pending).await {
                    Ok(()) => states.iter_mut().for_each(|state| apply(state, &pending)),
                    Err(Error::Damaged(damage)) => panic!("a fault looks like damage: {damage}"),
                    Err(_) => {
                        let mut maybe = states.clone();
                        maybe.iter_mut().for_each(|state| apply(state, &pending));
                        states.append(&mut maybe);
                    }
                }
                medium.clear_faults();
                pending.clear();
                reopen = states.len() > STATES_COUNT_MAX;
            }
            Step::Checkpoint => engine.checkpoint().await.expect("no fault is planned"),
            Step::Close => {
                engine.close().await.expect("no fault is planned");
                reopen = true;
            }
            Step::Kill => {
                medium.process_kill();
                reopen = true;
            }
            Step::Crash { seed } => {
                medium.crash(seed);
                reopen = true;
            }
            Step::Look => assert!(states.contains(&observe(&engine).await), "what is seen was never committed"),
        }
        if reopen {
            engine = open().await;
            let seen = observe(&engine).await;
            assert!(states.contains(&seen), "what is found was never committed");
            states = vec![seen];
        }
    }
    commit(&engine, &[]).await.expect("no fault is planned");
    drop(engine);
    let engine = open().await;
    assert!(states.contains(&observe(&engine).await), "what is found at last was never committed");
    let mut report = engine
        .check(CheckOptions { data: true, references: None, ..CheckOptions::default() })
        .await
        .expect("no fault is planned");
    // A writer may have died between giving up ballast and its commit, on a full storage.
    report.findings.retain(|finding| finding.damage.structure != "ballast");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

fn apply(state: &mut Model, changes: &[Change]) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(state.insert(*key, value.clone())),
            None => drop(state.remove(key)),
        }
    }
}

/// A commit whose fate was open may settle between, and conflict.
async fn commit(engine: &Engine, changes: &[Change]) -> Result<()> {
    for _ in 0..3 {
        let mut transaction = engine.begin();
        let filled = fill(engine, &mut transaction, changes).await;
        match async { filled.map(|()| transaction)?.commit().await }.await {
            Err(Error::Conflict) => {}
            done => return done.map(drop),
        }
    }
    Err(Error::Conflict)
}

async fn fill(engine: &Engine, transaction: &mut Transaction, changes: &[Change]) -> Result<()> {
    for ((is_chunk, key), value) in changes {
        match (is_chunk, value) {
            (false, Some(value)) => transaction.put(ROWS, &[*key], value)?,
            (false, None) => transaction.delete(ROWS, &[*key])?,
            (true, value) => {
                if let Some(row) = transaction.get(CHUNKS, &[*key]).await? {
                    transaction.release_chunk(chunk_number(&row))?;
                }
                match value {
                    None => transaction.delete(CHUNKS, &[*key])?,
                    Some(value) => {
                        let payload = Bytes::from(value.clone());
                        let chunk = transaction.put_chunk(Some(engine.identity(&payload)), payload).await?;
                        transaction.put(CHUNKS, &[*key], &chunk.0.to_le_bytes())?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn chunk_number(row: &[u8]) -> ChunkNumber {
    ChunkNumber(u64::from_le_bytes(row.try_into().expect("we wrote eight bytes")))
}

async fn observe(engine: &Engine) -> Model {
    let view = engine.snapshot();
    let mut seen = Model::default();
    for (is_chunk, table) in [(false, ROWS), (true, CHUNKS)] {
        let mut scan = view.scan(table, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
        while let Some((key, value)) = scan.next().await.expect("no fault is planned") {
            let value = match is_chunk {
                true => view.chunk(chunk_number(&value)).await.expect("no fault is planned"),
                false => value,
            };
            seen.insert((is_chunk, key[0]), value.to_vec());
        }
    }
    seen
}
