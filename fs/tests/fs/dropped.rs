//! What is left where the future of an operation is dropped half way: wherever that is, it is whole, and whoever asks again is
//! told the truth.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use async_trait::async_trait;
use futures_lite::future::{block_on, poll_once, yield_now};
use strongroom_conformance::between::{Before, Between};
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::cut;
use strongroom_core::crypto::{KdfParameters, RootSecret, Suite};
use strongroom_core::engine::keyring::Credentials;
use strongroom_core::engine::{self, CreateOptions, Engine, Unlock};
use strongroom_core::env::{BoxTask, Env, Spawn};
use strongroom_core::storage::{Error as StorageError, ErrorKind, Name, Operation, Result as StorageResult};
use strongroom_fs::{CheckOptions, Error, File, FileSystem, OpenOptions, Options, Tuning};

use super::support::{Bed, assert_sound, at_once, noise, tuning, with_workers, writing};

/// On storage that takes its time.
async fn slow() -> (Bed, FileSystem) {
    Bed::with(1, 4096, Options::default(), CrashOptions::default(), Env::deterministic).await
}

/// Does something with a longer and longer patience, until it comes to its end: so it is dropped wherever it waits.
fn with_every_patience(mut work: impl AsyncFnMut(u64) -> bool) {
    for polls in 0.. {
        if block_on(work(polls)) {
            assert!(polls > 2, "it never waited");
            return;
        }
    }
}

/// As [`slow`], and it keeps nothing in memory: each look at a row or a chunk of `f` is one at storage.
async fn forgetful() -> (Bed, FileSystem) {
    let (mut bed, fs) = slow().await;
    fs.write("f", noise(1, 40_000)).await.unwrap();
    fs.engine().checkpoint().await.unwrap();
    drop(fs);
    let fs = bed.open_tuned(engine::Tuning { node_cache_bytes_max: 0, ..tuning() }).await.unwrap();
    let fs = FileSystem::open_with(fs.engine().clone(), Tuning { cache_bytes: 0, ..Tuning::default() }).await.unwrap();
    (bed, fs)
}

/// A handle that has appended to `f` and overwritten some of it, and what it shows.
async fn written(fs: &FileSystem) -> (File, Vec<u8>) {
    let (mut expected, more) = (noise(1, 40_000), noise(2, 30_000));
    let writer = fs.open_file("f", writing()).await.unwrap();
    for piece in more.chunks(1_000) {
        writer.append(piece).await.unwrap();
    }
    writer.write_at(7_000, b"overwritten").await.unwrap();
    expected[7_000..7_011].copy_from_slice(b"overwritten");
    expected.extend_from_slice(&more);
    (writer, expected)
}

#[test]
fn reading_that_is_dropped_half_way_loses_nothing_that_others_wrote() {
    for is_seek in [false, true] {
        with_every_patience(async |polls| {
            let (_bed, fs) = forgetful().await;
            let (writer, expected) = written(&fs).await;
            let reader = fs.open_file("f", OpenOptions::new()).await.unwrap();
            let mut out = vec![0; expected.len()];
            let has_ended = if is_seek {
                let hole = cut(polls, reader.seek_hole(0)).await.map(Result::unwrap);
                assert!(hole.is_none_or(|hole| hole == Some(expected.len() as u64)));
                hole.is_some()
            } else {
                let read = cut(polls, reader.read_exact_at(0, &mut out)).await.map(Result::unwrap);
                assert!(read.is_none() || out == expected);
                read.is_some()
            };
            writer.append(b"!").await.unwrap();
            writer.close().await.unwrap();
            let content = fs.read("f").await.unwrap();
            assert!(content.len() == expected.len() + 1 && content.starts_with(&expected), "dropped at {polls}");
            assert_sound(&fs).await;
            has_ended
        });
    }
}

#[test]
fn a_read_that_fails_loses_nothing_that_others_wrote() {
    block_on(async {
        let (bed, fs) = forgetful().await;
        let (writer, expected) = written(&fs).await;
        let reader = fs.open_file("f", OpenOptions::new()).await.unwrap();
        let mut out = vec![0; 1_000];
        bed.storage.fail_at_random(1, 1_000);
        assert!(matches!(reader.read_at(20_000, &mut out).await, Err(Error::Core(_))));
        assert!(matches!(reader.seek_hole(0).await, Err(Error::Core(_))));
        bed.storage.clear_faults();
        writer.append(b"!").await.unwrap();
        reader.read_exact_at(20_000, &mut out).await.unwrap();
        assert!(out == expected[20_000..21_000]);
        writer.close().await.unwrap();
        let content = fs.read("f").await.unwrap();
        assert!(content.len() == expected.len() + 1 && content.starts_with(&expected));
        assert_sound(&fs).await;
    });
}

#[test]
fn a_file_that_can_be_opened_after_its_removal_was_dropped_half_way_stays() {
    with_every_patience(async |polls| {
        let (_bed, fs) = slow().await;
        fs.write("f", b"content").await.unwrap();
        let has_ended = cut(polls, fs.remove_file("f")).await.map(Result::unwrap).is_some();
        assert_stays_or_is_gone(&fs, !has_ended, &format!("dropped at {polls}")).await;
        has_ended
    });
}

#[test]
fn a_file_that_can_be_opened_after_nobody_knew_of_its_removal_stays() {
    let mut unknown = 0;
    for seed in 0..60 {
        block_on(async {
            let (bed, fs) = slow().await;
            fs.write("f", b"content").await.unwrap();
            bed.storage.fail_at_random(seed, 1_000);
            let removed = fs.remove_file("f").await;
            bed.storage.clear_faults();
            unknown += u32::from(matches!(removed, Err(Error::Core(strongroom_core::Error::CommitUnknown { .. }))));
            assert_stays_or_is_gone(&fs, removed.is_err(), &format!("seed {seed}")).await;
        });
    }
    assert!(unknown > 5, "of {unknown} nobody knew");
}

/// The file is gone, or what is opened of it is there for good.
async fn assert_stays_or_is_gone(fs: &FileSystem, may_stay: bool, when: &str) {
    match fs.open_file("f", OpenOptions::new().write(true)).await {
        Ok(file) => {
            assert!(may_stay, "{when}");
            file.append(b", and more").await.unwrap();
            // The next commit settles what was left in the air.
            fs.create_dir("settled").await.unwrap();
            file.close().await.unwrap_or_else(|error| panic!("{when}: {error}"));
            assert_eq!(fs.read("f").await.unwrap(), b"content, and more", "{when}");
        }
        Err(error) => assert!(matches!(error, Error::NotFound { .. }), "{when}: {error}"),
    }
    assert_sound(fs).await;
}

#[test]
fn a_removed_file_goes_though_its_removal_was_dropped_half_way_and_its_handles_are_gone() {
    for opens_again in [false, true] {
        with_every_patience(async |polls| {
            let (_bed, fs) = slow().await;
            fs.write("f", b"content").await.unwrap();
            let file = fs.open_file("f", OpenOptions::new()).await.unwrap();
            let has_ended = cut(polls, fs.remove_file("f")).await.map(Result::unwrap).is_some();
            file.close().await.unwrap();
            let again = if opens_again { fs.open_file("f", OpenOptions::new()).await.ok() } else { None };
            fs.write("next", b"n").await.unwrap();
            if let Some(again) = again {
                let mut out = [0; 7];
                again.read_exact_at(0, &mut out).await.unwrap();
                assert_eq!(&out, b"content");
                again.close().await.unwrap();
            }
            let summary = fs.check(CheckOptions::default(), |finding| panic!("{finding}")).await.unwrap();
            assert_eq!(summary.orphans, 0, "dropped at {polls}");
            assert_sound(&fs).await;
            has_ended
        });
    }
}

#[test]
fn a_flush_that_was_dropped_half_way_does_not_say_when_tried_again_that_all_is_well() {
    for is_writer in [true, false] {
        with_every_patience(async |polls| {
            let (_bed, fs) = slow().await;
            fs.write("f", b"before").await.unwrap();
            let open = async || fs.open_file("f", writing()).await.unwrap();
            let (writer, other, bystander) = (open().await, open().await, open().await);
            let content = noise(1, 9_000);
            writer.write_at(0, &content[..4_500]).await.unwrap();
            other.append(&content[4_500..]).await.unwrap();
            let flushing = if is_writer { &writer } else { &bystander };
            let has_ended = cut(polls, flushing.flush()).await.map(Result::unwrap).is_some();
            let again = flushing.flush().await;
            let told = other.flush().await;
            if polls == 0 {
                again.as_ref().unwrap();
            }
            match again {
                Ok(()) => assert!(fs.read("f").await.unwrap() == content, "dropped at {polls}: flushed, and not there"),
                Err(error) => {
                    assert!(matches!(error, Error::Interrupted) && !has_ended, "dropped at {polls}: {error}");
                    assert!(matches!(told, Err(Error::Interrupted)), "dropped at {polls}: {told:?}");
                }
            }
            // The next commit settles what was left in the air, and all handles go on.
            fs.create_dir("settled").await.unwrap();
            let left = fs.read("f").await.unwrap();
            assert!(left == content || left == b"before", "dropped at {polls}: {} bytes", left.len());
            let _ = (writer.flush().await, bystander.flush().await);
            for file in [writer, other, bystander] {
                file.write_at(0, b"again").await.unwrap();
                file.close().await.unwrap();
            }
            assert!(fs.read("f").await.unwrap().starts_with(b"again"));
            assert_sound(&fs).await;
            has_ended
        });
    }
}

/// Workers that do everything at once, until they are told to do a step of each task when asked.
#[derive(Default)]
struct InSteps {
    are_slow: AtomicBool,
    tasks: Mutex<Vec<BoxTask>>,
}

impl Spawn for InSteps {
    fn spawn(&self, task: BoxTask) {
        match self.are_slow.load(Ordering::Relaxed) {
            true => self.tasks.lock().unwrap().push(task),
            false => block_on(task),
        }
    }

    fn parallelism(&self) -> usize {
        2
    }
}

impl InSteps {
    /// Whether anything is left to be done.
    fn step(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let mut tasks = self.tasks.lock().unwrap();
        tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
        !tasks.is_empty()
    }

    /// Does something while they go on; `None` where it takes more polls than that, and is dropped.
    async fn beside<T>(&self, polls: u64, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        for _ in 0..polls {
            if let Some(done) = poll_once(&mut work).await {
                return Some(done);
            }
            self.step();
        }
        None
    }
}

/// Each answer is so many polls away, and some do not come.
#[derive(Debug, Default)]
struct Line {
    polls: usize,
    gets: AtomicU64,
    is_down: AtomicBool,
    refused: AtomicU64,
}

#[derive(Debug)]
struct FarAway(Arc<Line>);

#[async_trait]
impl Before for FarAway {
    async fn before(&self, operation: Operation, _: Option<Name>) -> StorageResult<()> {
        self.0.gets.fetch_add(u64::from(operation == Operation::Get), Ordering::Relaxed);
        for _ in 0..self.0.polls {
            yield_now().await;
        }
        if self.0.is_down.load(Ordering::Relaxed) {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return Err(StorageError::new(ErrorKind::Unavailable, operation, "the line"));
        }
        Ok(())
    }
}

/// A file `f`, and how to get there.
struct Far {
    medium: CrashingStorage,
    root: RootSecret,
}

impl Far {
    async fn new(content: &[u8], block_bytes: u32) -> Self {
        let credentials = Credentials::password("correct horse");
        let create = CreateOptions {
            credentials: &credentials,
            recovery: None,
            suite: Suite::Aes256Gcm,
            block_bytes,
            kdf: KdfParameters::MINIMUM,
            trusted: None,
            tuning: tuning(),
        };
        let medium = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::default() });
        let engine = Engine::create(Arc::new(medium.another()), Env::deterministic(1), create).await.unwrap();
        let root = engine.root_secret();
        let fs = FileSystem::create(engine, Options::default()).await.unwrap();
        fs.write("f", content).await.unwrap();
        fs.engine().checkpoint().await.unwrap();
        fs.engine().close().await.unwrap();
        Self { medium, root }
    }

    /// To be read from far away, with workers that go on when they are told to.
    async fn open(&mut self, polls: usize, seed: u64) -> (Arc<InSteps>, Arc<Line>, FileSystem) {
        let (workers, line) = (Arc::new(InSteps::default()), Arc::new(Line { polls, ..Line::default() }));
        let storage = Arc::new(Between::new(self.medium.reopen(), FarAway(line.clone())));
        let open = engine::OpenOptions::new(Unlock::Root(&self.root));
        let engine = Engine::open(storage, with_workers(seed, workers.clone()), open).await.unwrap();
        // What was fetched is held for who reads the file, and nowhere else.
        let tuning = Tuning { cache_bytes: 0, read_ahead_bytes: 512 << 10, ..Tuning::default() };
        let fs = FileSystem::open_with(engine, tuning).await.unwrap();
        (workers, line, fs)
    }
}

#[test]
fn who_reads_in_order_with_less_patience_than_an_answer_takes_gets_there_by_asking_again() {
    const ANSWER_POLLS: usize = 200;
    const PATIENCE_POLLS: usize = 20;
    const PIECE: usize = 4096;
    block_on(async {
        let content = noise(3, 600_000);
        let (workers, _, fs) = Far::new(&content, 32 << 10).await.open(ANSWER_POLLS, 2).await;
        let file = fs.open_file("f", OpenOptions::new()).await.unwrap();
        let mut piece = [0; PIECE];
        // Who reads in order has what follows fetched ahead.
        workers.are_slow.store(true, Ordering::Relaxed);
        for offset in [0, PIECE] {
            file.read_exact_at(offset as u64, &mut piece).await.unwrap();
            assert!(piece == content[offset..][..PIECE]);
        }
        let mut asked = 0;
        // As far as one batch goes.
        for offset in (2 * PIECE..200_000).step_by(PIECE) {
            let reads = asked;
            while {
                let mut read = pin!(file.read_exact_at(offset as u64, &mut piece));
                let mut is_there = false;
                for _ in 0..PATIENCE_POLLS {
                    if let Some(read) = poll_once(&mut read).await {
                        read.unwrap();
                        is_there = true;
                        break;
                    }
                }
                !is_there
            } {
                workers.step();
                asked += 1;
                assert!(asked - reads < 20 * ANSWER_POLLS, "at {offset} it is not there after {asked} times");
            }
            assert!(piece == content[offset..][..PIECE], "at {offset}");
        }
        assert!(asked > 0, "it never waited");
    });
}

const FOR_EVER: u64 = 1_000_000;
/// In more chunks than are looked for at once.
const CHUNKS_MANY: usize = 3 * 128;

#[test]
fn what_came_for_a_read_that_is_dropped_while_it_looks_for_what_follows_is_not_fetched_again() {
    const PIECE: usize = 4096;
    let content = noise(5, CHUNKS_MANY * PIECE);
    let mut far = block_on(Far::new(&content, 8 << 10));
    let (mut seed, mut least) = (1, None);
    with_every_patience(async |patience| {
        seed += 1;
        let (workers, line, fs) = far.open(1, seed << 32).await;
        let file = fs.open_file("f", OpenOptions::new()).await.unwrap();
        workers.are_slow.store(true, Ordering::Relaxed);
        let before = line.gets.load(Ordering::Relaxed);
        let (mut piece, mut dropped) = ([0; PIECE], 0);
        // The most patient one comes first.
        let patience = if least.is_none() { FOR_EVER } else { patience };
        for (number, expected) in content.chunks(PIECE).enumerate() {
            let offset = (number * PIECE) as u64;
            // Whatever was begun has come: the read itself waits for what it looks for.
            while workers.step() {}
            let mut read = workers.beside(patience, file.read_exact_at(offset, &mut piece)).await;
            if read.is_none() {
                dropped += 1;
                read = workers.beside(FOR_EVER, file.read_exact_at(offset, &mut piece)).await;
            }
            read.unwrap().unwrap();
            assert!(piece == expected, "at {offset}");
        }
        let gets = line.gets.load(Ordering::Relaxed) - before;
        let least = *least.get_or_insert(gets);
        // What it waited for is asked for once more, and nothing else.
        assert!(gets <= least + dropped, "{gets}, of {dropped} reads that were dropped after {patience}; else {least}");
        patience < FOR_EVER && dropped == 0
    });
}

#[test]
fn who_reads_what_is_there_hears_nothing_of_what_follows() {
    const PIECE: usize = 4096;
    block_on(async {
        let content = noise(6, CHUNKS_MANY * PIECE);
        let (workers, line, fs) = Far::new(&content, 8 << 10).await.open(3, 2).await;
        let file = fs.open_file("f", OpenOptions::new()).await.unwrap();
        workers.are_slow.store(true, Ordering::Relaxed);
        let (mut piece, mut was_there, mut failed) = ([0; PIECE], 0, 0);
        for (number, expected) in content.chunks(PIECE).enumerate() {
            let offset = (number * PIECE) as u64;
            while workers.step() {}
            // It has two batches of a quarter of a megabyte, and knows for no third one where things are.
            if number == 40 {
                line.is_down.store(true, Ordering::Relaxed);
            }
            let mut read = workers.beside(FOR_EVER, file.read_exact_at(offset, &mut piece)).await.unwrap();
            if read.is_err() && line.is_down.swap(false, Ordering::Relaxed) {
                failed += 1;
                read = workers.beside(FOR_EVER, file.read_exact_at(offset, &mut piece)).await.unwrap();
            }
            read.unwrap_or_else(|error| panic!("at {offset}: {error}"));
            was_there += u32::from(line.is_down.load(Ordering::Relaxed) && line.refused.load(Ordering::Relaxed) > 0);
            assert!(piece == expected, "at {offset}");
        }
        assert_eq!(failed, 1);
        assert!(was_there > 16, "{was_there} reads came to their end when what follows could not be found");
    });
}

#[test]
fn what_failed_with_a_read_is_fetched_anew_once_the_storage_answers_again() {
    const PIECE: usize = 4096;
    block_on(async {
        let content = noise(4, 2 << 20);
        let (mut bed, fs) = Bed::with(1, 32 << 10, Options::default(), CrashOptions::default(), at_once).await;
        fs.write("f", &content).await.unwrap();
        fs.engine().checkpoint().await.unwrap();
        drop(fs);
        let fs = bed.open_tuned(tuning()).await.unwrap();
        let fs = FileSystem::open_with(
            fs.engine().clone(),
            Tuning { cache_bytes: 0, read_ahead_bytes: 256 << 10, ..Tuning::default() },
        )
        .await
        .unwrap();
        let file = fs.open_file("f", OpenOptions::new()).await.unwrap();
        let mut piece = [0; PIECE];
        let (mut failed, mut is_down) = (0, false);
        for (number, expected) in content.chunks(PIECE).enumerate() {
            // From time to time it answers nothing, for as long as what was fetched ahead lasts.
            if number % 64 == 5 {
                bed.storage.fail_at_random(1, 1_000);
                is_down = true;
            }
            let offset = (number * PIECE) as u64;
            let mut read = file.read_exact_at(offset, &mut piece).await;
            if read.is_err() && std::mem::take(&mut is_down) {
                failed += 1;
                bed.storage.clear_faults();
                read = file.read_exact_at(offset, &mut piece).await;
            }
            read.unwrap_or_else(|error| panic!("at {offset}, after {failed}: {error}"));
            assert!(piece == expected, "at {offset}");
        }
        assert!(failed > 2, "{failed} reads failed");
    });
}
