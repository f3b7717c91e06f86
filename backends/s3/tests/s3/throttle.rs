//! A server that asks for fewer requests does so for some seconds: what is written outlasts them, and is told of no open fate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{registry, uri_at};
use strongroom::blocking::Repository;
use strongroom::{CreateOptions, Credentials, KdfParameters};
use strongroom_conformance::storage::sample_bytes;
use strongroom_core::env::{BoxTask, Clock, Env, Random, RandomUnavailable, Timer, UnixMillis};
use strongroom_s3_server::{Fault, Server, ServerOptions, Verb};

/// Time passes here by being waited for, and in no other way: however slow a machine is, nothing is late.
struct Waited {
    system: Env,
    state: Arc<State>,
}

struct State {
    server: Server,
    nanos: AtomicU64,
    /// When the server has enough again.
    throttled_until: AtomicU64,
}

impl Clock for Waited {
    fn now(&self) -> UnixMillis {
        1_700_000_000_000 + self.monotonic_nanos() / 1_000_000
    }

    fn monotonic_nanos(&self) -> u64 {
        self.state.nanos.load(Ordering::SeqCst)
    }
}

impl Timer for Waited {
    fn sleep(&self, duration: Duration) -> BoxTask {
        let state = self.state.clone();
        Box::pin(async move {
            if duration > Duration::from_secs(60) {
                // It is for what does not come at all, and all comes here.
                std::future::pending::<()>().await;
            }
            let nanos = u64::try_from(duration.as_nanos()).unwrap();
            if state.nanos.fetch_add(nanos, Ordering::SeqCst) + nanos >= state.throttled_until.load(Ordering::SeqCst) {
                state.server.faults().clear();
            }
        })
    }
}

impl Random for Waited {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomUnavailable> {
        self.system.fill_random(bytes)
    }
}

#[test]
fn what_is_written_outlasts_a_server_that_throttles_for_seconds() {
    const THROTTLED: Duration = Duration::from_secs(6);
    let server = Server::start(ServerOptions::default()).unwrap();
    let state = Arc::new(State { server, nanos: AtomicU64::new(0), throttled_until: AtomicU64::new(0) });
    let waited = Arc::new(Waited { system: strongroom::env::system().unwrap(), state: state.clone() });
    let server = &state.server;
    let env = Env::new(waited.clone(), waited.clone(), None).with_timer(waited.clone());
    let options = CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM).without_trusted_state();
    let repository = Repository::create(uri_at(server, "p", ""), options.env(env).registry(registry())).unwrap();
    repository.kv().put("epoch", "begun").unwrap();
    let content = sample_bytes(1, 3_000_000);
    let writes: [(&str, &dyn Fn()); 2] = [
        // A commit alone, which no layer may put again.
        ("a commit", &|| repository.kv().put("key", "value").unwrap()),
        ("a file", &|| repository.fs().write("/file", &content).unwrap()),
    ];
    for (what, write) in writes {
        server.take_seen();
        let begun = waited.monotonic_nanos();
        state.throttled_until.store(begun + u64::try_from(THROTTLED.as_nanos()).unwrap(), Ordering::SeqCst);
        server.faults().always(&[Verb::Put], Fault::SlowDown);
        write();
        let took = Duration::from_nanos(waited.monotonic_nanos() - begun);
        let puts = server.take_seen().iter().filter(|seen| seen.verb == Verb::Put).count();
        // Further and further apart: seven tries of each of few blobs fit into these seconds.
        println!("{what}: {puts} puts in {took:?}");
        assert!(took >= THROTTLED, "{what} took {took:?}");
        assert!((3..=50).contains(&puts), "{what} took {puts} puts");
    }
    assert_eq!(repository.kv().get("key").unwrap().as_deref(), Some(&b"value"[..]));
    assert!(repository.fs().read("/file").unwrap() == content);
    repository.close().unwrap();
}
