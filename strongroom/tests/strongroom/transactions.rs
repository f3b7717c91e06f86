//! Files and keys in one transaction, and lists of changes.

use std::fs::File;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use futures_lite::future::block_on;
use strongroom::check::CheckOptions;
use strongroom::core::env::Env;
use strongroom::fs::Attributes;
use strongroom::layer::Metrics;
use strongroom::storage::{Name, Operation, Result as StorageResult, Storage};
use strongroom::{CreateOptions, Credentials, Error, KdfParameters, Op, OpenOptions, Repository, blocking, fs};
use strongroom_conformance::between::{Before, Between};
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::cut;
use strongroom_conformance::storage::sample_bytes;

fn options() -> CreateOptions {
    CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM).without_trusted_state()
}

fn write(path: String, content: String) -> Op {
    Op::File(fs::Op::Write { path: path.into_bytes(), content: content.into_bytes() })
}

#[test]
fn files_and_keys_change_together_or_not_at_all() {
    let repository = blocking::Repository::create("mem://together", options()).unwrap();
    repository
        .transact(|transaction| {
            transaction.fs().create_dir("/d")?;
            transaction.fs().write("/d/f", b"content")?;
            transaction.kv().put(b"files", b"1")?;
            assert_eq!(transaction.kv().get(b"files")?.as_deref(), Some(&b"1"[..]));
            Ok::<_, Error>(())
        })
        .unwrap();
    let refused: Result<(), Error> = repository.transact(|transaction| {
        transaction.kv().put(b"files", b"2")?;
        transaction.fs().set_xattr("/d/f", "a", b"v", fs::XattrMode::Set, fs::Follow::Yes)?;
        transaction.fs().create_dir("/d")
    });
    assert!(matches!(refused, Err(Error::AlreadyExists { .. })));
    assert_eq!(repository.kv().get(b"files").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(repository.fs().xattr("/d/f", "a", fs::Follow::Yes).unwrap(), None);
    let mut transaction = repository.begin();
    assert!(transaction.kv().delete(b"files").unwrap());
    transaction.fs().remove_all("/d").unwrap();
    transaction.commit().unwrap();
    assert_eq!(repository.kv().get(b"files").unwrap(), None);
    repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).unwrap();
}

#[test]
fn a_transaction_that_another_overtakes_runs_again() {
    block_on(async {
        let repository = Repository::create("mem://overtaken", options()).await.unwrap();
        repository.kv().put(b"count", b"1").await.unwrap();
        let mut runs = 0;
        repository
            .transact(async |transaction| {
                runs += 1;
                let seen = transaction.kv().get(b"count").await?.unwrap_or_default();
                if runs == 1 {
                    repository.kv().put(b"count", b"2").await?;
                }
                transaction.fs().write("/count", &seen).await
            })
            .await
            .unwrap();
        assert_eq!((runs, repository.fs().read("/count").await.unwrap()), (2, b"2".to_vec()));
    });
}

/// Another transaction is faster the first time, and that shows when all of the reader has been read.
#[test]
fn a_reader_that_is_opened_within_a_transaction_gives_all_of_it_to_each_run() {
    let content = sample_bytes(1, 700_000);
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::write(&source, &content).unwrap();
    let open = || File::open(&source).unwrap();
    let length = content.len() as u64;

    block_on(async {
        let repository = Repository::create("mem://streamed", options()).await.unwrap();
        let mut runs = 0;
        let stored = repository.transact(async |transaction| {
            runs += 1;
            transaction.kv().get(b"faster").await?;
            let stored = transaction.fs().create_file_from("/file", Attributes::file(), &mut open()).await?;
            if runs == 1 {
                repository.kv().put(b"faster", b"1").await?;
            }
            Ok::<_, Error>(stored)
        });
        assert_eq!((stored.await.unwrap(), runs), (length, 2));
        assert!(repository.fs().read("/file").await.unwrap() == content);

        // Over a file that the other makes, and without keys.
        let (fs, mut runs) = (repository.fs(), 0);
        let stored = fs.transact(async |transaction| {
            runs += 1;
            let mut writer = transaction.write_file("/other", Attributes::file()).await?;
            writer.write(b"head").await?;
            let stored = writer.write_from(&mut open()).await?;
            writer.finish().await?;
            if runs == 1 {
                fs.write("/other", b"faster").await?;
            }
            Ok::<_, Error>(stored)
        });
        assert_eq!((stored.await.unwrap(), runs), (length, 2));
        assert!(fs.read("/other").await.unwrap() == [&b"head"[..], &content[..]].concat());
        repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).await.unwrap();
    });

    let repository = blocking::Repository::create("mem://streamed-blocking", options()).unwrap();
    let (fs, mut runs) = (repository.fs(), 0);
    let stored = repository.transact(|transaction| {
        runs += 1;
        let stored = transaction.fs().create_file_from("/file", Attributes::file(), &mut open())?;
        if runs == 1 {
            fs.write("/file", b"faster")?;
        }
        Ok::<_, Error>(stored)
    });
    assert_eq!((stored.unwrap(), runs), (length, 2));
    assert!(fs.read("/file").unwrap() == content);
    repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).unwrap();
}

#[test]
fn a_thousand_changes_of_files_and_keys_cost_one_commit() {
    let metrics = Metrics::new();
    let repository = blocking::Repository::create("mem://thousand", options().metrics(metrics.clone())).unwrap();
    repository.fs().create_dir("/d").unwrap();
    let mut ops = Vec::new();
    for number in 0..500 {
        ops.push(write(format!("/d/{number}"), format!("content {number}")));
        ops.push(Op::Put { key: format!("key {number}").into_bytes(), value: b"value".to_vec() });
    }
    let before = metrics.snapshot();
    repository.apply(&ops).unwrap();
    let cost = metrics.snapshot().since(&before);
    println!("1,000 operations: {} requests, {} barriers", cost.calls(), cost.barriers());
    assert!(cost.calls() <= 12 && cost.barriers() <= 4, "{} requests, {} barriers", cost.calls(), cost.barriers());
    assert_eq!(repository.fs().read_dir("/d").unwrap().len(), 500);

    let ops = [
        Op::Delete { key: b"key 1".to_vec() },
        Op::Delete { key: b"absent".to_vec() },
        write("/nowhere/f".into(), String::new()),
    ];
    match repository.apply(&ops) {
        Err(Error::InBatch { index: 2, error }) => assert!(matches!(*error, Error::NotFound { .. })),
        other => panic!("{other:?}"),
    }
    assert!(repository.kv().get(b"key 1").unwrap().is_some());
    repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).unwrap();
}

#[test]
fn a_put_that_is_dropped_leaves_the_value_that_was_there_and_the_transaction_goes_on() {
    block_on(async {
        let medium = CrashingStorage::new(CrashOptions::default());
        let place = || -> Arc<dyn Storage> { Arc::new(medium.another()) };
        let (before, after) = (vec![1; 600_000], vec![2; 700_000]);
        let repository = Repository::create(place(), options().env(Env::deterministic(1))).await.unwrap();
        repository.kv().put(b"key", &before).await.unwrap();
        repository.close().await.unwrap();
        let mut polls = 0;
        loop {
            // Opened anew, it claims an epoch with the first chunk, and waits for that.
            let open = OpenOptions::new(Credentials::password("test")).without_trusted_state();
            let open = open.env(Env::deterministic(2 + polls));
            let repository = Repository::open(place(), open).await.unwrap();
            let mut transaction = repository.begin();
            let put = cut(polls, transaction.kv().put(b"key", &after)).await;
            transaction.kv().put(b"other", &polls.to_le_bytes()).await.unwrap();
            transaction.commit().await.unwrap();
            let expected = if put.is_some() { &after } else { &before };
            assert!(repository.kv().get(b"key").await.unwrap().unwrap() == expected, "after {polls} polls");
            repository.check(CheckOptions { data: true }, |finding| panic!("{polls}: {finding:?}")).await.unwrap();
            repository.close().await.unwrap();
            if put.is_some() {
                break;
            }
            polls += 1;
        }
        assert!(polls > 5, "{polls}");
    });
}

const THREADS: usize = 32;

/// Threads that each run a future, and how many of them have nothing to do until another goes on.
#[derive(Debug, Default)]
struct Crowd {
    parked: Mutex<usize>,
    changed: Condvar,
}

/// One thread of them. What it is in changes only under the lock of the crowd.
struct Member {
    crowd: Arc<Crowd>,
    is_parked: AtomicBool,
    is_woken: AtomicBool,
}

impl Wake for Member {
    fn wake(self: Arc<Self>) {
        let mut parked = self.crowd.parked.lock().unwrap();
        self.is_woken.store(true, Ordering::SeqCst);
        if self.is_parked.swap(false, Ordering::SeqCst) {
            *parked -= 1;
        }
        self.crowd.changed.notify_all();
    }
}

impl Crowd {
    fn run<T>(self: &Arc<Self>, future: impl Future<Output = T>) -> T {
        let member = Arc::new(Member {
            crowd: self.clone(),
            is_parked: AtomicBool::new(false),
            is_woken: AtomicBool::new(false),
        });
        let waker = Waker::from(member.clone());
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return answer;
            }
            let mut parked = self.parked.lock().unwrap();
            if !member.is_woken.load(Ordering::SeqCst) {
                *parked += 1;
                member.is_parked.store(true, Ordering::SeqCst);
                self.changed.notify_all();
                parked = self.changed.wait_while(parked, |_| member.is_parked.load(Ordering::SeqCst)).unwrap();
            }
            member.is_woken.store(false, Ordering::SeqCst);
            drop(parked);
        }
    }
}

/// Holds a commit on its way until all others of the crowd wait for it.
#[derive(Debug)]
struct Gate {
    crowd: Arc<Crowd>,
    is_armed: AtomicBool,
    has_given_up: AtomicBool,
}

#[async_trait]
impl Before for Gate {
    async fn before(&self, operation: Operation, _: Option<Name>) -> StorageResult<()> {
        if operation == Operation::PutDurable && self.is_armed.swap(false, Ordering::SeqCst) {
            let parked = self.crowd.parked.lock().unwrap();
            // So that a fault ends as one: where all is well, they come.
            let longest = Duration::from_secs(60);
            let others_go_on = |parked: &mut usize| *parked < THREADS - 1;
            let waited = self.crowd.changed.wait_timeout_while(parked, longest, others_go_on).unwrap().1;
            self.has_given_up.fetch_or(waited.timed_out(), Ordering::SeqCst);
        }
        Ok(())
    }
}

#[test]
fn batches_of_many_threads_share_commits() {
    const ROUNDS: usize = 4;
    let crowd = Arc::new(Crowd::default());
    let gate = Gate { crowd: crowd.clone(), is_armed: AtomicBool::new(false), has_given_up: AtomicBool::new(false) };
    let medium = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::default() });
    let storage = Arc::new(Between::new(medium, gate));
    let place: Arc<dyn Storage> = storage.clone();
    let repository = block_on(async {
        let repository = Repository::create(place, options().env(Env::deterministic(1))).await.unwrap();
        // The first commit claims an epoch.
        repository.kv().put(b"warm", b"").await.unwrap();
        repository
    });
    let sequence = || block_on(repository.info()).unwrap().sequence;
    let before = sequence();
    let (round, answers) = (Barrier::new(THREADS), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (crowd, round, answers, storage, repository) = (&crowd, &round, &answers, &storage, &repository);
            scope.spawn(move || {
                for number in 0..ROUNDS {
                    if round.wait().is_leader() {
                        storage.hook().is_armed.store(true, Ordering::SeqCst);
                    }
                    round.wait();
                    let name = format!("{thread}-{number}");
                    let key = Op::Put { key: name.clone().into_bytes(), value: b"value".to_vec() };
                    let batch = [write(format!("/{name}"), format!("content {name}")), key];
                    let answer = crowd.run(repository.apply(&batch));
                    answers.lock().unwrap().push(answer.map(|_| ()));
                }
            });
        }
    });
    assert!(answers.into_inner().unwrap().into_iter().all(|answer| answer.is_ok()));
    assert!(!storage.hook().has_given_up.load(Ordering::SeqCst), "somebody did not wait for the commit before theirs");
    let (batches, commits) = ((THREADS * ROUNDS) as u64, sequence() - before);
    println!("{batches} batches of {THREADS} threads: {commits} commits");
    assert!(commits < batches / 4, "{commits} commits for {batches} batches");
    block_on(async {
        for name in (0..THREADS).flat_map(|thread| (0..ROUNDS).map(move |number| format!("{thread}-{number}"))) {
            assert_eq!(repository.fs().read(format!("/{name}")).await.unwrap(), format!("content {name}").into_bytes());
            assert_eq!(repository.kv().get(name.as_bytes()).await.unwrap().as_deref(), Some(&b"value"[..]));
        }
        repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).await.unwrap();
    });
}
