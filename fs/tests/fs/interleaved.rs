//! Handles of shared files, transactions that conflict, and group commits, interleaved by seed: one thread, and at each turn
//! a die says which of the tasks that can go on does. Storage lets others run before each effect and before each answer.
//! What they did is compared with what the model allows; tasks of which none can go on have lost a wake-up, or wait for each
//! other.
//!
//! `STRONGROOM_CASES=N` runs so many, `STRONGROOM_SEED=N` this one alone: a failure prints it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_lite::future::block_on;
use strongroom_conformance::crash::CrashOptions;
use strongroom_conformance::cut;
use strongroom_conformance::{Dice, simulate};
use strongroom_core::env::Env;
use strongroom_fs::{CheckOptions, Error, File, FileSystem, OpenOptions, Options, Result};

use crate::support::{Bed, assert_sound};

const TASKS: u64 = 18;
const STEPS: u64 = 10;
/// Far more than any run takes: what is still at work then goes round in circles.
const POLLS_MAX: u64 = 2_000_000;

/// Whether a task was woken since it was polled last.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task<'t> {
    future: Option<std::pin::Pin<Box<dyn Future<Output = ()> + 't>>>,
    woken: Arc<Woken>,
    /// Where turns go by rank, the highest that can go on has the next one.
    rank: u64,
}

/// Polls the tasks in an order of the dice's until all have ended.
fn run(dice: &mut Dice, futures: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + '_>>>) {
    // Some runs are fair; in others a few have all the turns, until ranks change.
    let by_rank = dice.below(3) > 0;
    let mut tasks: Vec<Task<'_>> = futures
        .into_iter()
        .map(|future| {
            let woken = Arc::new(Woken(AtomicBool::new(true)));
            Task { future: Some(future), woken, rank: dice.roll() }
        })
        .collect();
    for _ in 0..POLLS_MAX {
        let unfinished = || tasks.iter().enumerate().filter(|(_, task)| task.future.is_some());
        let ready: Vec<usize> =
            unfinished().filter(|(_, task)| task.woken.0.load(Ordering::Relaxed)).map(|(number, _)| number).collect();
        let Some(&first) = ready.first() else {
            let stuck: Vec<usize> = unfinished().map(|(number, _)| number).collect();
            assert!(stuck.is_empty(), "nobody wakes tasks {stuck:?}");
            return;
        };
        let next = if by_rank && !dice.per_mille(20) {
            ready.iter().copied().max_by_key(|&number| tasks[number].rank).unwrap_or(first)
        } else {
            ready[dice.below(ready.len() as u64) as usize]
        };
        if dice.per_mille(30) {
            tasks[next].rank = dice.roll();
        }
        let task = &mut tasks[next];
        task.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(task.woken.clone());
        let polled = task.future.as_mut().map(|future| future.as_mut().poll(&mut Context::from_waker(&waker)));
        if polled == Some(Poll::Ready(())) {
            task.future = None;
        }
    }
    panic!("no end after {POLLS_MAX} polls");
}

/// What the tasks know together.
#[derive(Default)]
struct World {
    /// The engine is being closed: anything may fail from now on, and nothing may be half done.
    closing: Cell<bool>,
    /// By inode of a shared file: what was appended, and what of it was flushed.
    appended: RefCell<BTreeMap<u64, BTreeSet<[u8; 16]>>>,
    flushed: RefCell<BTreeMap<u64, BTreeSet<[u8; 16]>>>,
    /// By inode of a shared file: how often what was not flushed may have been lost.
    losses: RefCell<BTreeMap<u64, u64>>,
    /// How often each file of a number was raised for certain, and perhaps.
    raised: RefCell<BTreeMap<String, (u64, u64)>>,
    /// What each task may have left in the files that are its own; `None` is no file.
    own: RefCell<BTreeMap<String, BTreeSet<Option<Vec<u8>>>>>,
}

/// A task: most of its steps are on what it shares with others.
struct Actor<'w> {
    id: u64,
    dice: Dice,
    fs: FileSystem,
    world: &'w World,
    open: Vec<Opened>,
    appends: u64,
}

/// A handle of a shared file.
struct Opened {
    file: File,
    /// What was appended through it since its last flush.
    records: Vec<[u8; 16]>,
    /// How often writes to the file had been lost when it was opened, or flushed last.
    losses: u64,
}

/// A record that says who wrote it where, as the how-manieth.
fn record(inode: u64, id: u64, number: u64) -> [u8; 16] {
    let mut record = [0; 16];
    record[..8].copy_from_slice(&inode.to_le_bytes());
    record[8..].copy_from_slice(&(id << 32 | number).to_le_bytes());
    record
}

/// The records of a file, each of which is whole and there once, those of one task in their order.
fn records(inode: u64, content: &[u8]) -> BTreeSet<[u8; 16]> {
    let (records, rest) = content.as_chunks::<16>();
    assert!(rest.is_empty(), "a record was torn");
    let mut last = BTreeMap::new();
    for record in records {
        let (of, word) = record.split_at(8);
        assert_eq!(of, inode.to_le_bytes(), "a record of another file");
        let word = u64::from_le_bytes(word.try_into().unwrap());
        let (id, number) = (word >> 32, word & u64::from(u32::MAX));
        assert!(last.insert(id, number).is_none_or(|before| before < number), "records of task {id} changed places");
    }
    records.iter().copied().collect()
}

impl Actor<'_> {
    async fn run(mut self) {
        for _ in 0..STEPS {
            match self.dice.below(20) {
                0..9 => self.handle().await,
                9..12 => self.remove_shared().await,
                12..15 => self.raise().await,
                15 => self.pair().await,
                16 => self.look_at_pair().await,
                _ => self.own().await,
            }
        }
        // Half are closed, the others dropped with what was not flushed.
        while let Some(opened) = self.open.pop() {
            if self.dice.below(2) == 0 {
                self.close(opened).await;
            }
        }
    }

    /// What only the closing of the engine may make fail.
    fn fine<T>(&self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(_) if self.world.closing.get() => None,
            Err(error) => panic!("task {}: {error}", self.id),
        }
    }

    fn shared_path(&mut self) -> String {
        format!("/shared {}", self.dice.below(3))
    }

    fn flushed(&self, inode: u64, records: Vec<[u8; 16]>) {
        self.world.flushed.borrow_mut().entry(inode).or_default().extend(records);
    }

    fn losses(&self, inode: u64) -> u64 {
        self.world.losses.borrow().get(&inode).copied().unwrap_or_default()
    }

    fn lose(&self, inode: u64) {
        *self.world.losses.borrow_mut().entry(inode).or_default() += 1;
    }

    /// As [`Self::fine`], of what writes to a shared file: it tells what was lost since the handle was flushed last, and one
    /// that was dropped half way may still be committed, and be in the way.
    fn told<T>(&self, inode: u64, losses_before: u64, result: Result<T>) -> Option<T> {
        let losses = self.losses(inode);
        match result {
            Err(Error::Interrupted) if losses > losses_before => None,
            Err(error) if losses > 0 && error.is_conflict() => {
                self.lose(inode);
                None
            }
            result => self.fine(result),
        }
    }

    /// How often something is polled before it is dropped; mostly it is not.
    fn patience(&mut self) -> u64 {
        if self.dice.below(4) == 0 { self.dice.below(40) } else { u64::MAX }
    }

    /// Opens, appends, reads, flushes, closes or drops. An open file never goes away under its handle.
    async fn handle(&mut self) {
        if self.open.is_empty() || (self.open.len() < 3 && self.dice.below(3) == 0) {
            let path = self.shared_path();
            let options = OpenOptions::new().read(true).write(true).create(true);
            if let Some(file) = self.fine(self.fs.open_file(&path, options).await) {
                let losses = self.losses(file.inode());
                self.open.push(Opened { file, records: Vec::new(), losses });
            }
            return;
        }
        let place = self.dice.below(self.open.len() as u64) as usize;
        match self.dice.below(8) {
            0..4 => self.append(place).await,
            4 => self.read_back(place).await,
            5 => self.flush(place).await,
            6 => {
                let opened = self.open.swap_remove(place);
                self.close(opened).await;
            }
            _ => drop(self.open.swap_remove(place)),
        }
    }

    async fn append(&mut self, place: usize) {
        self.appends += 1;
        let (inode, losses) = (self.open[place].file.inode(), self.open[place].losses);
        let record = record(inode, self.id, self.appends);
        self.world.appended.borrow_mut().entry(inode).or_default().insert(record);
        let appended = self.open[place].file.append(&record).await;
        if self.told(inode, losses, appended).is_some() {
            self.open[place].records.push(record);
            self.read_back(place).await;
        }
    }

    /// One that is dropped half way is told by the next, whatever became of it.
    async fn flush(&mut self, place: usize) {
        let patience = self.patience();
        let Opened { file, losses, .. } = &self.open[place];
        let (inode, losses) = (file.inode(), *losses);
        let Some(flushed) = cut(patience, file.flush()).await else {
            return self.lose(inode);
        };
        let records = std::mem::take(&mut self.open[place].records);
        if self.told(inode, losses, flushed).is_some() {
            self.flushed(inode, records);
        }
        self.open[place].losses = self.losses(inode);
    }

    async fn close(&mut self, opened: Opened) {
        let Opened { file, records, losses } = opened;
        let inode = file.inode();
        let closed = file.close().await;
        if self.told(inode, losses, closed).is_some() {
            self.flushed(inode, records);
        }
    }

    /// What is flushed is there, and what it appended itself; nothing is that nobody appended.
    async fn read_back(&mut self, place: usize) {
        let patience = self.patience();
        let Opened { file, records: mine, losses } = &self.open[place];
        let inode = file.inode();
        let expected: BTreeSet<_> = self.world.flushed.borrow().get(&inode).cloned().unwrap_or_default();
        let mut content = Vec::new();
        let mut piece = [0; 64];
        loop {
            // Dropping it takes nothing along.
            let Some(read) = cut(patience, file.read_at(content.len() as u64, &mut piece)).await else { return };
            match self.fine(read) {
                None => return,
                Some(0) => break,
                Some(count) => content.extend_from_slice(&piece[..count]),
            }
        }
        let found = records(inode, &content);
        assert!(found.is_superset(&expected), "task {}: what was flushed is not there", self.id);
        // A flush of another handle that fails, or is dropped, takes along what this one appended.
        let may_miss = self.world.closing.get() || self.losses(inode) > *losses;
        assert!(may_miss || mine.iter().all(|record| found.contains(record)), "task {}: its own is missing", self.id);
        let appended = self.world.appended.borrow();
        assert!(found.is_subset(appended.get(&inode).unwrap_or(&BTreeSet::new())), "nobody appended that");
    }

    /// Removes a shared file, or lets one take the place of another; some are dropped half way. What is open stays.
    async fn remove_shared(&mut self) {
        let (path, to, patience) = (self.shared_path(), self.shared_path(), self.patience());
        let result = match self.dice.below(3) {
            0 => cut(patience, self.fs.rename(&path, &to)).await,
            1 => cut(patience, self.fs.remove_all(&path)).await,
            _ => cut(patience, self.fs.remove_file(&path)).await,
        };
        let Some(result) = result else { return };
        match result {
            Err(Error::NotFound { .. }) => {}
            result => drop(self.fine(result)),
        }
    }

    /// One more in a file that others raise too; some are dropped half way.
    async fn raise(&mut self) {
        let path = format!("/number {}", self.dice.below(2));
        // Before it begins: another may look while it is undecided.
        self.world.raised.borrow_mut().entry(path.clone()).or_default().1 += 1;
        let fs = self.fs.clone();
        let raising = fs.transact(async |transaction| {
            let before = transaction.read(&path).await?;
            let next = String::from_utf8(before).unwrap().parse::<u64>().unwrap() + 1;
            transaction.write(&path, next.to_string()).await
        });
        let polls = self.patience();
        match cut(polls, raising).await {
            None => {}
            Some(Err(error)) if self.world.closing.get() || is_busy(&error) => {}
            Some(result) => {
                result.unwrap();
                self.world.raised.borrow_mut().entry(path).or_default().0 += 1;
            }
        }
    }

    /// Two files that are always alike, large enough to need blocks of their own.
    async fn pair(&mut self) {
        let content = vec![self.dice.roll() as u8; [20, 9_000][self.dice.below(2) as usize]];
        let written = self.fs.transact(async |transaction| {
            transaction.write("/one", &content).await?;
            transaction.write("/other", &content).await
        });
        match written.await {
            Err(error) if is_busy(&error) => {}
            result => drop(self.fine(result)),
        }
    }

    async fn look_at_pair(&mut self) {
        let snapshot = self.fs.snapshot();
        let pair = (snapshot.read("/one").await, snapshot.read("/other").await);
        if let (Some(one), Some(other)) = (self.fine(pair.0), self.fine(pair.1)) {
            assert!(one == other, "one of two was written without the other");
        }
    }

    /// A file that nobody else touches: it is what this task left there.
    async fn own(&mut self) {
        let path = format!("/own {} {}", self.id, self.dice.below(2));
        let possible = || self.world.own.borrow().get(&path).cloned().unwrap_or_else(|| BTreeSet::from([None]));
        if self.dice.below(3) == 0 {
            let found = match self.fs.read(&path).await {
                Err(Error::NotFound { .. }) => Some(None),
                result => self.fine(result).map(Some),
            };
            assert!(found.is_none_or(|found| possible().contains(&found)), "{path} is what nobody wrote");
            return;
        }
        let content =
            (self.dice.below(3) > 0).then(|| vec![self.dice.roll() as u8; [30, 6_000][self.dice.below(2) as usize]]);
        let mut either = possible();
        either.insert(content.clone());
        self.world.own.borrow_mut().insert(path.clone(), either);
        let fs = self.fs.clone();
        let change = async {
            match &content {
                Some(content) => fs.write(&path, content).await.map(|()| true),
                None => match fs.remove_file(&path).await {
                    // Nothing was committed: what was dropped half way before may still come.
                    Err(Error::NotFound { .. }) => Ok(false),
                    result => result.map(|()| true),
                },
            }
        };
        let polls = self.patience();
        let is_certain = match cut(polls, change).await {
            Some(Err(error)) if is_busy(&error) => false,
            Some(result) => self.fine(result) == Some(true),
            None => false,
        };
        if is_certain {
            self.world.own.borrow_mut().insert(path, BTreeSet::from([content]));
        }
    }
}

/// It was tried as often as an operation is, and others were always faster.
fn is_busy(error: &Error) -> bool {
    error.is_conflict()
}

impl World {
    /// What is there is what the tasks left there.
    async fn assert_holds(&self, fs: &FileSystem) {
        let (raised, own) = (self.raised.borrow().clone(), self.own.borrow().clone());
        for (path, (surely, perhaps)) in raised {
            let found: u64 = String::from_utf8(fs.read(&path).await.unwrap()).unwrap().parse().unwrap();
            assert!((surely..=perhaps).contains(&found), "{path}: {found} of {surely} to {perhaps}");
        }
        for (path, possible) in own {
            let found = match fs.read(&path).await {
                Err(Error::NotFound { .. }) => None,
                result => Some(result.unwrap()),
            };
            assert!(possible.contains(&found), "{path} is what nobody wrote");
        }
        for number in 0..3 {
            let path = format!("/shared {number}");
            let Ok(metadata) = fs.metadata(&path).await else { continue };
            let found = records(metadata.inode, &fs.read(&path).await.unwrap());
            let (appended, flushed) = (self.appended.borrow(), self.flushed.borrow());
            let none = BTreeSet::new();
            assert!(found.is_superset(flushed.get(&metadata.inode).unwrap_or(&none)), "what was flushed is lost");
            assert!(found.is_subset(appended.get(&metadata.inode).unwrap_or(&none)), "nobody appended that");
        }
        assert_eq!(fs.read("/one").await.unwrap(), fs.read("/other").await.unwrap());
    }
}

/// Closes the engine while the others are at work.
async fn close(fs: FileSystem, world: &World, turns: u64) {
    for _ in 0..turns {
        futures_lite::future::yield_now().await;
    }
    world.closing.set(true);
    fs.engine().close().await.unwrap();
}

fn history(seed: u64) {
    let mut dice = Dice::new(seed);
    let (mut bed, fs) = block_on(async {
        let (bed, fs) = Bed::with(seed, 4096, Options::default(), CrashOptions::default(), Env::deterministic).await;
        for path in ["/number 0", "/number 1"] {
            fs.write(path, "0").await.unwrap();
        }
        fs.write("/one", "").await.unwrap();
        fs.write("/other", "").await.unwrap();
        (bed, fs)
    });
    let world = Rc::new(World::default());
    let closes = dice.below(4) == 0;
    let mut futures: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for id in 0..TASKS {
        let dice = Dice::new(dice.roll());
        let actor = Actor { id, dice, fs: fs.clone(), world: &world, open: Vec::new(), appends: 0 };
        futures.push(Box::pin(actor.run()));
    }
    if closes {
        futures.push(Box::pin(close(fs.clone(), &world, dice.below(2_000))));
    }
    run(&mut dice, futures);
    block_on(async {
        let fs = if closes {
            drop(fs);
            bed.open().await.unwrap()
        } else {
            fs
        };
        world.assert_holds(&fs).await;
        // Handles that were dropped could not wait: the next change looks after what they left.
        fs.write("/last", "").await.unwrap();
        fs.reclaim_orphans().await.unwrap();
        let summary = fs.check(CheckOptions::default(), |finding| panic!("{finding}")).await.unwrap();
        assert_eq!(summary.orphans, 0);
        assert_sound(&fs).await;
        world.assert_holds(&fs).await;
    });
}

#[test]
fn whatever_the_order_of_turns_shared_handles_and_group_commits_keep_what_they_promise() {
    simulate(200, history);
}

#[test]
#[should_panic(expected = "nobody wakes tasks [1]")]
fn tasks_that_nobody_wakes_are_found() {
    let lock = async_lock::Mutex::new(());
    let guard = lock.try_lock();
    run(&mut Dice::new(1), vec![Box::pin(async {}), Box::pin(async { drop(lock.lock().await) })]);
    drop(guard);
}
