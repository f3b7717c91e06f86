//! The clauses that every storage keeps, over a server in this process; and, when told to, over one elsewhere.

#![allow(clippy::unwrap_used)] // a test that cannot set up its place fails

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use common::{keys, registry, uri_at};
use strongroom::blocking::Repository;
use strongroom::check::CheckOptions;
use strongroom::{CreateOptions, Credentials, KdfParameters, OpenOptions};
use strongroom_conformance::block_on;
use strongroom_conformance::storage::{
    Place, Verdict, check_constructor, clauses, kill_this_program, sample_bytes, work_if_told_to,
};
use strongroom_core::layer::{Retry, RetryPolicy};
use strongroom_core::storage::{BlockingMode, OpenContext, OpenMode, Reach, Registry, Result, Storage, StorageUri};
use strongroom_s3::{S3Constructor, S3Options, S3Storage};
use strongroom_s3_server::{Fault, SECRET_KEY, Server, ServerOptions, Verb};

/// A server elsewhere: `s3://bucket?endpoint=…`, with the keys of the environment.
const ELSEWHERE: &str = "STRONGROOM_TEST_S3";

fn context(blocking: BlockingMode) -> OpenContext {
    let env = strongroom::env::system().unwrap();
    OpenContext::new(env).with_mode(OpenMode::CreateIfMissing).with_blocking(blocking)
}

/// A prefix of a bucket, whose every handle has connections of its own.
struct Prefix {
    uri: StorageUri,
    context: OpenContext,
    constructor: fn() -> S3Constructor,
    /// Where it is in this process.
    server: Option<Server>,
    /// Whether calls are repeated, as the engine does.
    retries: bool,
    /// This one's S10, in which a child does its work.
    test: String,
}

impl Prefix {
    fn here(module: &str, blocking: BlockingMode, parameters: &str) -> Self {
        work_in_a_child(registry);
        let server = Server::start(ServerOptions { page_keys_max: 50, ..ServerOptions::default() }).unwrap();
        let uri = uri_at(&server, "a/prefix", parameters);
        Self {
            uri,
            context: context(blocking),
            constructor: || S3Constructor::with_credentials(keys()),
            server: Some(server),
            retries: false,
            test: format!("{module}::s10_a_crash_leaves_blobs_absent_or_whole"),
        }
    }
}

fn work_in_a_child(registry: fn() -> Registry) {
    let worked = work_if_told_to(async |uri| {
        let uri = StorageUri::parse(uri.to_str().unwrap())?;
        registry().open(&uri, &context(BlockingMode::Inline)).await
    });
    worked.unwrap();
}

#[async_trait]
impl Place for Prefix {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        use strongroom_core::storage::StorageConstructor as _;
        let storage = (self.constructor)().open(&self.uri, &self.context).await?;
        if !self.retries {
            return Ok(storage);
        }
        Ok(Arc::new(Retry::new(storage, self.context.env.clone(), RetryPolicy::default())))
    }

    fn reach(&self) -> Reach {
        Reach::Everywhere
    }

    fn process_death(&self, rounds: u64) -> Option<u64> {
        Some(kill_this_program(&self.test, self.uri.to_string(), rounds).unwrap())
    }

    fn lose_next_reply(&self) -> bool {
        let Some(server) = &self.server else { return false };
        server.faults().next(&[Verb::Put, Verb::Delete], Fault::LostReply);
        true
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET_KEY.to_owned()]
    }
}

// Power is not cut at a server in memory, and batches are sequential.
mod inline {
    use super::*;
    strongroom_conformance::storage_conformance!(Prefix::here("inline", BlockingMode::Inline, ""), limited: [8, 9, 10, 14]);
}

mod on_workers {
    use super::*;
    strongroom_conformance::storage_conformance!(
        Prefix::here("on_workers", BlockingMode::Offload, "&requests-max=4"),
        limited: [8, 9, 10, 14]
    );
}

// What a single writer needs, on a server that ignores conditions. Another process only reads what this one wrote.
mod single_writer {
    use super::*;

    struct Alone(Prefix);

    #[async_trait]
    impl Place for Alone {
        async fn open(&self) -> Result<Arc<dyn Storage>> {
            self.0.open().await
        }

        fn lose_next_reply(&self) -> bool {
            self.0.lose_next_reply()
        }
    }

    strongroom_conformance::storage_conformance!(
        Alone(Prefix::here("single_writer", BlockingMode::Inline, "&conditional-put=none")),
        limited: [8, 9, 10, 14]
    );
}

#[test]
fn the_constructor_keeps_what_it_owes() {
    let server = Server::start(ServerOptions::default()).unwrap();
    for path in ["", "new", "of/a new one"] {
        for parameters in ["", "&conditional-put=none"] {
            let uri = uri_at(&server, &format!("{path}{}", parameters.len()), parameters);
            let verdict = block_on(check_constructor(&registry(), &uri, &context(BlockingMode::Offload)));
            assert_eq!(verdict, Ok(Verdict::Passed), "{path}");
        }
    }
}

#[test]
fn a_whole_bucket_without_a_prefix_serves_too() {
    let server = Server::start(ServerOptions::default()).unwrap();
    let uri = uri_at(&server, "", "");
    let verdict = block_on(check_constructor(&registry(), &uri, &context(BlockingMode::Offload)));
    assert_eq!(verdict, Ok(Verdict::Passed));
}

#[test]
fn typed_options_open_the_same_place_as_a_uri() {
    let server = Server::start(ServerOptions::default()).unwrap();
    let mut options = S3Options::new("bucket");
    options.endpoint = Some(server.endpoint());
    options.prefix = "p".to_owned();
    options.credentials = Some(keys());
    let context = context(BlockingMode::Inline);
    block_on(async {
        let name = strongroom_conformance::storage::sample_name(1);
        let storage = S3Storage::open(&options, &context).await.unwrap();
        storage.put(name, vec![1].into()).await.unwrap();
        let other = registry().open(&uri_at(&server, "p", ""), &context).await.unwrap();
        assert_eq!(other.size(name).await.unwrap(), 1);
    });
}

/// Run by `.ci/moto.sh`, which says where: a server that is not ours.
#[test]
#[ignore = "needs a server elsewhere: .ci/moto.sh"]
fn elsewhere() {
    work_in_a_child(common::plain_registry);
    let base = std::env::var(ELSEWHERE).expect("STRONGROOM_TEST_S3 says where: s3://bucket?endpoint=http://host:port");
    let base = StorageUri::parse(&base).unwrap();
    let tried = AtomicU64::new(0);
    let unique = u64::from_le_bytes(strongroom::env::system().unwrap().random().unwrap());
    for clause in clauses() {
        let number = tried.fetch_add(1, Ordering::Relaxed);
        let place = Prefix {
            uri: base.with_path(format!("/conformance-{unique:x}/{number}")).unwrap(),
            context: context(BlockingMode::Inline),
            constructor: S3Constructor::default,
            server: None,
            // `moto` answers 500 where it lists what others change meanwhile.
            retries: clause.number() == 14,
            test: "elsewhere".to_owned(),
        };
        match block_on(clause.run(&place)) {
            Ok(verdict) => println!("S{} passed; not tested: {:?}", clause.number(), verdict.limits()),
            Err(breach) => panic!("S{} is broken: {breach}", clause.number()),
        }
    }
    let uri = base.with_path(format!("/conformance-{unique:x}/constructor")).unwrap();
    let verdict = block_on(check_constructor(&common::plain_registry(), &uri, &context(BlockingMode::Inline)));
    assert_eq!(verdict, Ok(Verdict::Passed));
    assert_eq!(tried.into_inner(), 14);
    a_repository_at(&base.with_path(format!("/conformance-{unique:x}/repository")).unwrap());
}

/// Several handles, each with connections of its own, write at once; all of it is there afterwards, and goes when it is destroyed.
fn a_repository_at(uri: &StorageUri) {
    const WRITERS: u64 = 3;
    const ROUNDS: u64 = 4;
    let credentials = || Credentials::password("test");
    let open = || {
        let options = OpenOptions::new(credentials()).without_trusted_state().registry(common::plain_registry());
        Repository::open(uri.clone(), options).unwrap()
    };
    let options = CreateOptions::new(credentials()).kdf(KdfParameters::MINIMUM).without_trusted_state();
    let repository = Repository::create(uri.clone(), options.registry(common::plain_registry())).unwrap();
    let content = sample_bytes(1, 3_000_000);
    repository.fs().write("/file", &content).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                let repository = open();
                for round in 0..ROUNDS {
                    let counted = repository.kv().transact(|transaction| {
                        let old = transaction.get("counter")?;
                        let old = old.map_or(0, |value| u64::from_le_bytes(value[..].try_into().unwrap()));
                        transaction.put("counter", (old + 1).to_le_bytes())?;
                        Ok::<_, strongroom::core::Error>(())
                    });
                    counted.unwrap();
                    repository.fs().write(format!("/{writer} {round}"), sample_bytes(round, 40_000)).unwrap();
                }
                repository.close().unwrap();
            });
        }
    });
    repository.close().unwrap();
    let repository = open();
    assert!(repository.fs().read("/file").unwrap() == content);
    let counter = repository.kv().get("counter").unwrap().unwrap();
    assert_eq!(u64::from_le_bytes(counter[..].try_into().unwrap()), WRITERS * ROUNDS);
    for (writer, round) in (0..WRITERS).flat_map(|writer| (0..ROUNDS).map(move |round| (writer, round))) {
        assert!(repository.fs().read(format!("/{writer} {round}")).unwrap() == sample_bytes(round, 40_000));
    }
    let mut findings = Vec::new();
    repository.check(CheckOptions { data: true }, |finding| findings.push(finding)).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    repository.close().unwrap();
    let options = OpenOptions::new(credentials()).without_trusted_state().registry(common::plain_registry());
    let destroyed = strongroom::blocking::destroy(uri.clone(), options).unwrap();
    println!("a repository passed; {} blobs of it deleted", destroyed.deleted_count);
}
