//! A server that asks for fewer requests does so for some seconds: what is written outlasts them, and is told of no open fate.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::common::{registry, uri_at};
use strongroom::blocking::Repository;
use strongroom::{CreateOptions, Credentials, KdfParameters};
use strongroom_conformance::storage::sample_bytes;
use strongroom_core::env::{BoxTask, Clock, Env, Random, RandomUnavailable, Timer, UnixMillis};
use strongroom_s3_server::{Fault, Server, ServerOptions, Verb};

/// So many times as fast as elsewhere time passes here.
const HASTE: u32 = 20;

struct Hasty {
    system: Env,
}

impl Clock for Hasty {
    fn now(&self) -> UnixMillis {
        1_700_000_000_000 + self.monotonic_nanos() / 1_000_000
    }

    fn monotonic_nanos(&self) -> u64 {
        self.system.monotonic_nanos() * u64::from(HASTE)
    }
}

impl Timer for Hasty {
    fn sleep(&self, duration: Duration) -> BoxTask {
        self.system.sleep(duration / HASTE)
    }
}

impl Random for Hasty {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomUnavailable> {
        self.system.fill_random(bytes)
    }
}

#[test]
fn what_is_written_outlasts_a_server_that_throttles_for_seconds() {
    const THROTTLED: Duration = Duration::from_secs(6);
    let server = Server::start(ServerOptions::default()).unwrap();
    let hasty = Arc::new(Hasty { system: strongroom::env::system().unwrap() });
    let env = Env::new(hasty.clone(), hasty.clone(), None).with_timer(hasty.clone());
    let options = CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM).without_trusted_state();
    let repository = Repository::create(uri_at(&server, "p", ""), options.env(env).registry(registry())).unwrap();
    repository.kv().put("epoch", "begun").unwrap();
    let content = sample_bytes(1, 3_000_000);
    let writes: [(&str, &dyn Fn()); 2] = [
        // A commit alone, which no layer may put again.
        ("a commit", &|| repository.kv().put("key", "value").unwrap()),
        ("a file", &|| repository.fs().write("/file", &content).unwrap()),
    ];
    for (what, write) in writes {
        server.take_seen();
        server.faults().always(&[Verb::Put], Fault::SlowDown);
        let begun = hasty.monotonic_nanos();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(THROTTLED / HASTE);
                server.faults().clear();
            });
            write();
        });
        let took = Duration::from_nanos(hasty.monotonic_nanos() - begun);
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
