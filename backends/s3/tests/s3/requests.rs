//! How many requests things cost, and how many of them come one after the other.
//!
//! Time is not measured: calls of the engine wait until nothing else can go on, and are let through all at once then. Each such
//! step is a round trip.

use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::common::{registry, uri_at};
use async_trait::async_trait;
use bytes::Bytes;
use strongroom::{CreateOptions, Credentials, KdfParameters, OpenOptions, Repository};
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::storage::sample_bytes;
use strongroom_core::engine::TrustedState;
use strongroom_core::env::{BoxTask, Env, Timer};
use strongroom_core::storage::{Capabilities, Name, Put, Result, Storage};
use strongroom_s3_server::{Fault, Server, ServerOptions, Verb};

/// Lets calls through in rounds.
#[derive(Debug, Default)]
struct Gate {
    waiting: Mutex<Vec<(Arc<AtomicBool>, Waker)>>,
    calls: Mutex<Vec<String>>,
}

impl Gate {
    async fn pass(&self, call: String) {
        self.calls.lock().unwrap().push(call);
        let open = Arc::new(AtomicBool::new(false));
        std::future::poll_fn(|context| {
            if open.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            self.waiting.lock().unwrap().push((open.clone(), context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Runs to the end; answers how many rounds it took, and the calls.
    fn count<T>(&self, future: impl Future<Output = T>) -> (T, usize, Vec<String>) {
        struct Woken(AtomicBool);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(woken.clone());
        let (mut future, mut rounds) = (pin!(future), 0);
        self.calls.lock().unwrap().clear();
        loop {
            if woken.0.swap(false, Ordering::SeqCst) {
                if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return (answer, rounds, self.calls.lock().unwrap().clone());
                }
                continue;
            }
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap());
            assert!(!waiting.is_empty(), "nothing goes on");
            rounds += 1;
            for (open, waker) in waiting {
                open.store(true, Ordering::SeqCst);
                waker.wake();
            }
        }
    }
}

/// A storage whose every call takes a round.
#[derive(Debug)]
struct Far {
    inner: CrashingStorage,
    gate: Arc<Gate>,
}

#[async_trait]
impl Storage for Far {
    fn capabilities(&self) -> Capabilities {
        Capabilities { block_bytes_best: 1 << 20, ..self.inner.capabilities() }
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.gate.pass(format!("put {name}")).await;
        self.inner.put(name, bytes).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.gate.pass(format!("put durable {name}")).await;
        self.inner.put_durable(name, bytes).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.gate.pass(format!("get {name} {range:?}")).await;
        self.inner.get(name, range, max_bytes).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.gate.pass(format!("size {name}")).await;
        self.inner.size(name).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.gate.pass(format!("delete {name}")).await;
        self.inner.delete(name).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.gate.pass(format!("list {}", prefix.len())).await;
        self.inner.list(prefix, after).await
    }

    /// A server says with each page whether more comes.
    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        let page = self.list(prefix, after).await?;
        let last = page.iter().max().copied().or(after);
        let is_last = self.inner.list(prefix, last).await?.is_empty();
        Ok((page, is_last))
    }

    async fn sync(&self) -> Result<()> {
        // A bucket has none: what was acknowledged is durable.
        self.inner.sync().await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.gate.pass(format!("persist {}", names.len())).await;
        self.inner.persist(names).await
    }
}

/// Nobody waits for time here.
struct Never;

impl Timer for Never {
    fn sleep(&self, _: Duration) -> BoxTask {
        Box::pin(std::future::pending())
    }
}

/// What a device has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<Option<(u64, [u8; 32])>>);

#[async_trait]
impl TrustedState for Seen {
    async fn load(&self, _: &[u8; 16]) -> strongroom_core::Result<Option<(u64, [u8; 32])>> {
        Ok(*self.0.lock().unwrap())
    }

    async fn store(&self, _: &[u8; 16], sequence: u64, hash: [u8; 32]) -> strongroom_core::Result<()> {
        *self.0.lock().unwrap() = Some((sequence, hash));
        Ok(())
    }
}

/// The constructor's own look at the marker, which the double has not.
const CONSTRUCTOR_ROUNDS: usize = 1;

#[test]
fn what_waits_for_the_network_is_bounded() {
    let gate = Arc::<Gate>::default();
    let medium = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::object_store() });
    let far = || -> Arc<dyn Storage> { Arc::new(Far { inner: medium.reopen(), gate: gate.clone() }) };
    let env = || Env::deterministic(1).with_timer(Arc::new(Never));
    let seen = Arc::<Seen>::default();
    let password = || Credentials::password("test");

    let create = CreateOptions::new(password()).kdf(KdfParameters::MINIMUM).env(env()).trusted_state(seen.clone());
    let (repository, ..) = gate.count(Repository::create(far(), create));
    let repository = repository.unwrap();
    let content = sample_bytes(1, 3_000_000);
    gate.count(repository.fs().write("/file", &content)).0.unwrap();
    for number in 0..20_u64 {
        gate.count(repository.kv().put(&number.to_le_bytes(), b"value")).0.unwrap();
    }
    let (_, commit_rounds, commit_calls) = gate.count(repository.kv().put(b"small", b"commit"));
    gate.count(repository.close()).0.unwrap();

    let open = || OpenOptions::new(password()).env(env());
    let hinted = || open().trusted_state(seen.clone());
    let (opened, hinted_rounds, hinted_calls) = gate.count(Repository::open(far(), hinted().read_only(true)));
    let repository = opened.unwrap();
    let (read, read_rounds, read_calls) = gate.count(async {
        let file = repository.fs().open_file("/file", strongroom::fs::OpenOptions::new()).await?;
        let mut out = [0; 4096];
        file.read_exact_at(1_000_000, &mut out).await?;
        Ok::<_, strongroom::Error>(out)
    });
    assert_eq!(read.unwrap()[..], content[1_000_000..1_004_096]);
    let (_, again_rounds, _) = gate.count(async {
        let file = repository.fs().open_file("/file", strongroom::fs::OpenOptions::new()).await.unwrap();
        file.read_exact_at(2_000_000, &mut [0; 4096]).await.unwrap();
    });
    drop(repository);
    let (cold, cold_rounds, cold_calls) =
        gate.count(Repository::open(far(), open().without_trusted_state().read_only(true)));
    drop(cold.unwrap());
    let (writer, writer_rounds, writer_calls) = gate.count(Repository::open(far(), hinted()));
    let writer = writer.unwrap();
    let (_, first_rounds, first_calls) = gate.count(writer.kv().put(b"first", b"commit"));

    for (what, rounds, calls) in [
        ("open, with what the device has seen", hinted_rounds, &hinted_calls),
        ("open, cold", cold_rounds, &cold_calls),
        ("open for writing", writer_rounds, &writer_calls),
        ("first commit", first_rounds, &first_calls),
        ("a small commit", commit_rounds, &commit_calls),
        ("open a file and read 4 KiB", read_rounds, &read_calls),
    ] {
        println!("{what}: {rounds} round trips, {} requests\n  {}", calls.len(), calls.join("\n  "));
    }
    println!("read 4 KiB elsewhere in it: {again_rounds} round trips");
    // With a tail of some twenty commits since the last checkpoint: names, headers and hints, checkpoint and tail, more of the tail,
    // and the last but one commit again. The constructor's look at its marker comes first, so that what is absent is told by it.
    assert!(hinted_rounds + CONSTRUCTOR_ROUNDS <= 6, "{hinted_rounds}");
    assert!(cold_rounds + CONSTRUCTOR_ROUNDS <= 6, "{cold_rounds}");
    assert!(writer_rounds + CONSTRUCTOR_ROUNDS <= 7, "{writer_rounds}");
    assert!(first_rounds <= 7 && first_calls.len() <= 7, "{first_rounds}");
    assert!(commit_rounds <= 2 && commit_calls.len() <= 2, "{commit_rounds}");
    assert!(read_rounds <= 1 && again_rounds <= 1 && read_calls.len() == 1, "{read_rounds}");
}

#[test]
fn requests_are_few() {
    let server = Server::start(ServerOptions::default()).unwrap();
    let uri = uri_at(&server, "p", "");
    let password = || Credentials::password("test");
    let open = || OpenOptions::new(password()).without_trusted_state().registry(registry());
    let create =
        CreateOptions::new(password()).kdf(KdfParameters::MINIMUM).without_trusted_state().registry(registry());
    futures_lite::future::block_on(async {
        let repository = Repository::create(uri.clone(), create).await.unwrap();
        let content = sample_bytes(1, 3_000_000);
        repository.fs().write("/file", &content).await.unwrap();
        server.take_seen();
        repository.kv().put(b"small", b"commit").await.unwrap();
        let commit = server.take_seen();
        assert!(commit.len() <= 2, "{commit:?}");
        repository.close().await.unwrap();
        server.take_seen();

        let repository = Repository::open(uri.clone(), open().read_only(true)).await.unwrap();
        let opening = server.take_seen();
        println!("opening: {} requests", opening.len());
        assert!(opening.len() <= 20, "{opening:?}");
        assert!(opening.iter().all(|seen| !matches!(seen.verb, Verb::Put | Verb::Delete)), "{opening:?}");
        let file = repository.fs().open_file("/file", strongroom::fs::OpenOptions::new()).await.unwrap();
        let mut out = [0; 4096];
        file.read_exact_at(1_000_000, &mut out).await.unwrap();
        assert_eq!(out[..], content[1_000_000..1_004_096]);
        let reading = server.take_seen();
        println!("open a file and read 4 KiB: {} requests", reading.len());
        assert!(reading.len() <= 6, "{reading:?}");
        // Again costs nothing: records are kept.
        file.read_exact_at(1_000_000, &mut out).await.unwrap();
        assert!(server.take_seen().is_empty());
    });

    // A page of names each thousand.
    let context = strongroom_core::storage::OpenContext::new(strongroom::env::system().unwrap());
    futures_lite::future::block_on(async {
        use strongroom_core::storage::StorageExt as _;
        let storage = registry().open(&uri, &context).await.unwrap();
        server.take_seen();
        storage.list_all(&[]).await.unwrap();
        let listing = server.take_seen();
        assert_eq!(listing.len(), 1, "a page says that it is the last: {listing:?}");
    });
}

#[test]
fn a_reader_that_is_dropped_leaves_no_request_under_way() {
    const STEP_BYTES: usize = 256 << 10;
    let server = Server::start(ServerOptions::default()).unwrap();
    let uri = uri_at(&server, "p", "");
    let env = strongroom::env::system().unwrap();
    let create = CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM).without_trusted_state();
    let open = OpenOptions::new(Credentials::password("test")).without_trusted_state();
    futures_lite::future::block_on(async {
        let repository = Repository::create(uri.clone(), create.registry(registry())).await.unwrap();
        repository.fs().write("/file", &sample_bytes(1, 24 << 20)).await.unwrap();
        repository.close().await.unwrap();
        let repository = Repository::open(uri, open.registry(registry()).read_only(true)).await.unwrap();
        let under_way = || {
            server.take_most_under_way();
            server.take_most_under_way()
        };
        let is_silent = AtomicBool::new(false);
        let file = repository.fs().open_file("/file", strongroom::fs::OpenOptions::new()).await.unwrap();
        let reading = async {
            let mut out = vec![0; STEP_BYTES];
            for step in 0_u64.. {
                // So far that much is read ahead; from now on nothing is answered.
                if step == 16 {
                    server.faults().always(&[Verb::Get], Fault::Hang);
                    is_silent.store(true, Ordering::SeqCst);
                }
                file.read_exact_at(step * STEP_BYTES as u64, &mut out).await.unwrap();
            }
        };
        let is_stuck = async {
            while !is_silent.load(Ordering::SeqCst) || under_way() < 2 {
                env.sleep(Duration::from_millis(10)).await;
            }
        };
        futures_lite::future::or(reading, is_stuck).await;
        drop(file);
        // A request is given up after a minute; this is sooner.
        for _ in 0..2_000 {
            if under_way() == 0 {
                return;
            }
            env.sleep(Duration::from_millis(10)).await;
        }
        panic!("{} are under way", under_way());
    });
}
