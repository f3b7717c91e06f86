//! What goes wrong at a server and on the way: nothing that was acknowledged is lost, and errors say what to do.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{keys, plain_registry, registry, uri_at};
use futures_util::future::join_all;
use strongroom_conformance::block_on;
use strongroom_conformance::storage::{sample_bytes, sample_name};
use strongroom_core::layer::{Retry, RetryPolicy};
use strongroom_core::storage::{
    Effect, Error, ErrorKind, OpenContext, OpenMode, Operation, Put, Retry as Advice, Storage, StorageConstructor as _,
    StorageExt as _, StorageUri,
};
use strongroom_s3::{S3Constructor, S3Credentials, S3Options, S3Storage};
use strongroom_s3_server::{ACCESS_KEY, Conditional, Fault, SECRET_KEY, Server, ServerOptions, Verb};

fn context() -> OpenContext {
    OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing)
}

fn server() -> Server {
    Server::start(ServerOptions::default()).unwrap()
}

fn open(server: &Server, parameters: &str) -> Arc<dyn Storage> {
    block_on(registry().open(&uri_at(server, "p", parameters), &context())).unwrap()
}

/// With a limit of time so short that what creating one tries would not keep it on a machine that has much to do.
fn open_made(server: &Server, parameters: &str) -> Arc<dyn Storage> {
    drop(open(server, ""));
    open(server, parameters)
}

fn refused(uri: &StorageUri, credentials: S3Credentials) -> Error {
    let mut registry = strongroom_core::storage::Registry::new();
    registry.register("s3", S3Constructor::with_credentials(credentials));
    let error = block_on(registry.open(uri, &context())).map(drop).unwrap_err();
    assert_eq!(error.operation(), Operation::Open);
    shows_nothing(&error);
    error
}

/// One line without a secret, the whole chain of causes too.
fn shows_nothing(error: &Error) {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let text = format!("{error} {error:?}");
        assert!(!error.to_string().contains('\n'), "{error}");
        for secret in [SECRET_KEY, "WRONG", "Signature=", "AKIAWRONG", ACCESS_KEY] {
            assert!(!text.contains(secret), "{text}");
        }
        cause = error.source();
    }
}

fn patient(storage: Arc<dyn Storage>) -> Retry {
    let policy = RetryPolicy {
        attempts_max: 30,
        delay_first: Duration::from_millis(1),
        delay_max: Duration::from_millis(20),
        total_max: Duration::from_secs(100),
    };
    Retry::new(storage, strongroom::env::system().unwrap(), policy)
}

#[test]
fn with_retries_no_fault_loses_what_was_acknowledged_or_gives_wrong_bytes() {
    for (seed, rates, parameters) in [
        (1, &[(Fault::InternalError, 0.2)][..], ""),
        (2, &[(Fault::InternalErrorAfter, 0.2)][..], ""),
        (3, &[(Fault::SlowDown, 0.3)][..], ""),
        (4, &[(Fault::LostReply, 0.2)][..], ""),
        (5, &[(Fault::TruncatedBody, 0.3)][..], ""),
        (6, &[(Fault::Hang, 0.02)][..], "&timeout=1"),
        (7, &[(Fault::Refused(409, "ConditionalRequestConflict"), 0.2)][..], ""),
        (
            8,
            &[
                (Fault::InternalError, 0.05),
                (Fault::InternalErrorAfter, 0.05),
                (Fault::SlowDown, 0.05),
                (Fault::LostReply, 0.05),
                (Fault::TruncatedBody, 0.05),
            ][..],
            "",
        ),
    ] {
        let server = server();
        let storage = patient(open_made(&server, parameters));
        server.faults().at_rates(seed, rates);
        block_on(async {
            let blob = |number: u64| (sample_name(number), sample_bytes(number, 3000 * (number as usize % 7)));
            let puts = (0..60).map(|number| {
                let ((name, bytes), storage) = (blob(number), &storage);
                async move {
                    match number % 2 {
                        0 => storage.put(name, bytes).await,
                        _ => storage.put_durable(name, bytes).await,
                    }
                }
            });
            let mut present = Vec::new();
            for (number, outcome) in (0..).zip(join_all(puts).await) {
                match outcome {
                    Ok(outcome) => {
                        assert_eq!(outcome, Put::Created, "{rates:?}: nobody else puts");
                        present.push(number);
                    }
                    // A durable put is not sent again once its effect is unknown: the engine knows what to do.
                    Err(error) => assert_eq!((error.effect(), number % 2), (Effect::Unknown, 1), "{rates:?}: {error}"),
                }
            }
            for number in &present {
                let (name, bytes) = blob(*number);
                assert_eq!(storage.get_all(name, 1 << 20).await.unwrap(), bytes, "{rates:?}");
                if bytes.len() > 100 {
                    let part = storage.get(name, Some(50..100), 50).await.unwrap();
                    assert_eq!(part, bytes.slice(50..100), "{rates:?}");
                }
            }
            let gone = present.split_off(present.len() / 2);
            for number in &gone {
                storage.delete(sample_name(*number)).await.unwrap();
            }
            let listed = storage.list_all(&[]).await.unwrap();
            for (numbers, is_there) in [(&present, true), (&gone, false)] {
                for number in numbers {
                    assert_eq!(listed.contains(&sample_name(*number)), is_there, "{rates:?}");
                }
            }
        });
    }
}

#[test]
fn a_lost_reply_is_told_as_unknown_and_the_own_blob_is_not_taken_for_anothers() {
    let server = server();
    let storage = open(&server, "");
    block_on(async {
        for (number, fault) in [(1, Fault::LostReply), (2, Fault::InternalErrorAfter)] {
            let (name, bytes) = (sample_name(number), sample_bytes(1, 100));
            let _before = server.take_seen();
            server.faults().next(&[Verb::Put], fault);
            let error = storage.put(name, bytes.clone()).await.unwrap_err();
            assert_eq!((error.effect(), error.retry()), (Effect::Unknown, Advice::CanHelp));
            shows_nothing(&error);
            assert_eq!(server.take_seen().len(), 1, "it is not sent again by itself");
            assert_eq!(storage.get_all(name, 100).await.unwrap(), bytes);
        }
    });
}

#[test]
fn puts_that_met_are_not_taken_for_a_name_that_is_taken() {
    let server = server();
    let storage = open(&server, "");
    server.faults().next(&[Verb::Put], Fault::Refused(409, "ConditionalRequestConflict"));
    block_on(async {
        let error = storage.put_durable(sample_name(1), sample_bytes(1, 100)).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None));
        assert_eq!(storage.put_durable(sample_name(1), sample_bytes(1, 100)).await.unwrap(), Put::Created);
    });
}

#[test]
fn an_answer_is_bounded_whatever_the_server_sends() {
    let server = server();
    let storage = open(&server, "");
    block_on(async {
        let name = sample_name(1);
        storage.put(name, sample_bytes(1, 100_000)).await.unwrap();
        let before = server.take_seen().len();
        assert!(before > 0);
        assert_eq!(storage.get(name, None, 99_999).await.unwrap_err().kind(), ErrorKind::LimitExceeded);
        for verb in [Verb::Get, Verb::List] {
            server.faults().next(&[verb], Fault::Endless);
            let error = match verb {
                Verb::Get => storage.get(name, None, 200_000).await.map(drop).unwrap_err(),
                _ => storage.list(&[], None).await.map(drop).unwrap_err(),
            };
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::LimitExceeded), "{error}");
        }
        server.faults().next(&[Verb::Get], Fault::TruncatedBody);
        let error = storage.get(name, None, 200_000).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Advice::CanHelp), "{error}");
    });
}

#[test]
fn what_is_said_of_an_absent_blob_and_cut_off_is_asked_again() {
    let server = server();
    let storage = open(&server, "");
    block_on(async {
        server.faults().next(&[Verb::Get], Fault::TruncatedBody);
        let error = storage.get_all(sample_name(1), 9).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Advice::CanHelp), "{error}");
        assert_eq!(storage.get_all(sample_name(1), 9).await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn puts_that_met_are_asked_again_whatever_the_server_calls_it() {
    let server = server();
    let storage = open_made(&server, "");
    block_on(async {
        storage.put(sample_name(1), sample_bytes(1, 9)).await.unwrap();
        server.faults().next(&[Verb::Put], Fault::Refused(409, "Met"));
        let error = storage.put(sample_name(2), sample_bytes(1, 9)).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error}");
        assert_eq!(error.retry(), Advice::CanHelp);
    });
}

/// An address that lives as long as the tests.
fn address(server: &Server) -> &'static str {
    Box::leak(format!("{}/bucket/elsewhere", server.endpoint()).into_boxed_str())
}

#[test]
fn a_redirect_is_not_followed_and_no_put_counts_as_stored() {
    let (server, elsewhere) = (server(), server());
    let storage = open(&server, "");
    block_on(async {
        for (number, status) in (0..).zip([301, 302, 303, 307, 308]) {
            server.faults().always(&[], Fault::Redirect(status, address(&elsewhere)));
            let name = sample_name(number);
            for error in [
                storage.put(name, sample_bytes(1, 9)).await.map(drop).unwrap_err(),
                storage.put_durable(name, sample_bytes(1, 9)).await.map(drop).unwrap_err(),
                storage.get_all(name, 9).await.map(drop).unwrap_err(),
                storage.size(name).await.map(drop).unwrap_err(),
                storage.list(&[], None).await.map(drop).unwrap_err(),
                storage.delete(name).await.unwrap_err(),
            ] {
                assert_eq!((error.kind(), error.effect()), (ErrorKind::Invalid, Effect::None), "{status}: {error}");
                assert!(error.to_string().contains("`region` and `endpoint`"), "{error}");
                shows_nothing(&error);
            }
            server.faults().clear();
        }
        // That nothing has changed since is no answer to a put.
        server.faults().next(&[Verb::Put], Fault::Refused(304, ""));
        let error = storage.put(sample_name(0), sample_bytes(1, 9)).await.map(drop).unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown, "{error}");
        assert!(storage.list_all(&[]).await.unwrap().is_empty());
    });
    assert_eq!(elsewhere.take_seen(), []);
}

#[test]
#[ignore = "takes ten seconds, and a machine that has time: run by its name"]
fn a_slow_line_takes_longer_than_the_time_in_which_nothing_may_move() {
    let server = server();
    let storage = open_made(&server, "&timeout=3");
    // Four seconds each way: a body that comes bit by bit, and an answer to a large one that takes its time.
    server.faults().bandwidth(256 << 10);
    block_on(async {
        let (name, bytes) = (sample_name(1), sample_bytes(1, 1 << 20));
        assert_eq!(storage.put_durable(name, bytes.clone()).await.unwrap(), Put::Created);
        assert_eq!(storage.get_all(name, 1 << 20).await.unwrap(), bytes);
    });
}

#[test]
fn what_stands_still_is_given_up() {
    let server = server();
    let storage = open_made(&server, "&timeout=1");
    block_on(async {
        let name = sample_name(1);
        // Before a handle's first put the server is looked at, with a request of its own.
        storage.put(sample_name(2), sample_bytes(1, 9)).await.unwrap();
        for verb in [Verb::Put, Verb::Get, Verb::List, Verb::Delete] {
            server.faults().next(&[verb], Fault::Hang);
            let error = match verb {
                Verb::Put => storage.put(name, sample_bytes(1, 9)).await.map(drop),
                Verb::Get => storage.get_all(name, 9).await.map(drop),
                Verb::List => storage.list(&[], None).await.map(drop),
                _ => storage.delete(name).await,
            }
            .unwrap_err();
            assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Advice::CanHelp), "{error}");
            assert_eq!(error.effect(), error.operation().effect_if_lost());
        }
    });
}

#[test]
fn wrong_credentials_are_told_as_such() {
    let server = server();
    let uri = uri_at(&server, "p", "");
    for credentials in [S3Credentials::new("AKIAWRONG", SECRET_KEY), S3Credentials::new(ACCESS_KEY, "WRONG")] {
        let error = refused(&uri, credentials);
        assert_eq!(error.kind(), ErrorKind::Credentials, "{error}");
        assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
    }
    assert!(server.keys("bucket").is_empty());
}

#[test]
fn a_bucket_that_is_not_there_is_told_and_one_that_is_gone_is_no_absent_blob() {
    let server = server();
    let uri = StorageUri::parse(&format!("s3://nowhere/p?endpoint={}", server.endpoint())).unwrap();
    let error = refused(&uri, keys());
    // Not as where nothing was created yet, which opening would change.
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(error.to_string().contains("no such bucket: create it"), "{error}");

    let storage = open(&server, "");
    server.remove_bucket("bucket");
    block_on(async {
        let name = sample_name(1);
        for error in [
            storage.get_all(name, 9).await.map(drop).unwrap_err(),
            storage.size(name).await.map(drop).unwrap_err(),
            storage.put(name, sample_bytes(1, 9)).await.map(drop).unwrap_err(),
            storage.delete(name).await.unwrap_err(),
            storage.list(&[], None).await.map(drop).unwrap_err(),
            storage.persist(&[name]).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Other, "{error}");
            assert!(error.to_string().contains("the bucket is gone"), "{error}");
        }
    });
}

#[test]
fn what_cannot_be_reached_is_told_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // No host is called so: a part of a name has at most 63 letters. So this is known without a network, and nobody is asked.
    let nobody = format!("https://{}.invalid", "x".repeat(64));
    for (endpoint, told) in [(format!("http://127.0.0.1:{port}"), "nothing listens"), (nobody, "not known")] {
        let uri = StorageUri::parse(&format!("s3://bucket/p?endpoint={endpoint}&timeout=5")).unwrap();
        let error = refused(&uri, keys());
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None), "{error}");
        assert!(error.to_string().contains(told), "{error}");
    }
    // A server that speaks no TLS.
    let server = server();
    let uri =
        StorageUri::parse(&format!("s3://bucket/p?endpoint={}", server.endpoint().replace("http:", "https:"))).unwrap();
    assert_eq!(refused(&uri, keys()).kind(), ErrorKind::Unavailable);
}

#[test]
fn a_server_that_fails_for_a_while_is_asked_again_at_opening() {
    let server = server();
    server.faults().next(&[], Fault::SlowDown);
    server.faults().next(&[], Fault::InternalError);
    server.faults().next(&[], Fault::LostReply);
    let storage = open(&server, "");
    assert!(block_on(storage.list_all(&[])).unwrap().is_empty());
}

#[test]
fn refusals_are_told_with_what_to_do() {
    let server = server();
    for (status, code, kind, told) in [
        (403, "AccessDenied", ErrorKind::PermissionDenied, "s3:ListBucket"),
        (403, "RequestTimeTooSkewed", ErrorKind::Other, "clock"),
        (400, "ExpiredToken", ErrorKind::Credentials, "sign in again"),
        (301, "PermanentRedirect", ErrorKind::Invalid, "region"),
        (503, "SlowDown", ErrorKind::Unavailable, "requests-max"),
        (500, "InternalError", ErrorKind::Unavailable, "server failed"),
    ] {
        server.faults().always(&[], Fault::Refused(status, code));
        let error = refused(&uri_at(&server, "p", ""), keys());
        server.faults().clear();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(told), "{error}");
    }
    server.faults().always(&[], Fault::Hang);
    let error = refused(&uri_at(&server, "p", "&timeout=1"), keys());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no answer within 2 seconds"), "{error}");
}

#[test]
fn looking_for_a_blob_tells_what_is_wrong_too() {
    let server = server();
    let storage = open(&server, "");
    for (status, code, kind) in [
        (400, "ExpiredToken", ErrorKind::Credentials),
        (403, "RequestTimeTooSkewed", ErrorKind::Other),
        (403, "AccessDenied", ErrorKind::PermissionDenied),
    ] {
        server.faults().next(&[Verb::Get], Fault::Refused(status, code));
        let error = block_on(storage.size(sample_name(1))).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    block_on(async {
        for (number, bytes) in [(1, 0), (2, 1), (3, 5000)] {
            storage.put(sample_name(number), sample_bytes(1, bytes)).await.unwrap();
            server.take_seen();
            assert_eq!(storage.size(sample_name(number)).await.unwrap(), bytes as u64);
            assert_eq!(server.take_seen().len(), 1);
        }
    });
}

#[test]
fn without_any_credentials_it_says_how_to_give_them() {
    // The service of a machine that gives keys is looked for at an address where nothing listens.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::opens_with_the_environment", "--include-ignored", "--nocapture"])
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
        .env("OPEN", "s3://bucket/p?endpoint=http://127.0.0.1:9")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Credentials") && text.contains("set AWS_ACCESS_KEY_ID"), "{text}");
}

#[test]
fn keys_of_the_environment_and_of_profiles_are_used() {
    let server = server();
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let profile = format!("[mine]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n");
    std::fs::write(home.path().join(".aws/credentials"), profile).unwrap();
    let endpoint = server.endpoint();
    for (uri, variables) in [
        ("s3://bucket/a", &[("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)][..]),
        ("s3://bucket/b", &[("AWS_PROFILE", "mine")][..]),
        ("s3://bucket/c?profile=mine", &[("AWS_ACCESS_KEY_ID", "AKIAWRONG"), ("AWS_SECRET_ACCESS_KEY", "x")][..]),
    ] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::opens_with_the_environment", "--include-ignored", "--nocapture"])
            .env_clear()
            .env("HOME", home.path())
            .env("AWS_ENDPOINT_URL_S3", &endpoint)
            .env("OPEN", uri)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("it is open"), "{uri}: {text}");
    }
}

#[test]
fn a_proxy_of_the_environment_is_used() {
    let server = server();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::opens_with_the_environment", "--include-ignored", "--nocapture"])
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("http_proxy", server.endpoint())
        .env("OPEN", "s3://bucket/p?endpoint=http://no-such-host.invalid&allow-http=true")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("it is open"), "{text}");
}

#[test]
fn a_bucket_is_at_the_endpoint_that_the_environment_says() {
    for (variables, location) in [
        (&[][..], "s3://bucket/p"),
        (&[("AWS_ENDPOINT_URL", "https://Host:9000/")][..], "s3://bucket/p?endpoint=https://host:9000"),
        (
            &[("AWS_ENDPOINT_URL", "https://host:9000"), ("AWS_ENDPOINT_URL_S3", "https://s3")][..],
            "s3://bucket/p?endpoint=https://s3",
        ),
    ] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::opens_with_the_environment", "--include-ignored", "--nocapture"])
            .env_clear()
            .env("HOME", "/nonexistent")
            .env("LOCATION", "s3://bucket/p?region=x&timeout=9")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let told = text.lines().find_map(|line| line.split_once("location ")).map(|(_, told)| told);
        let told = told.map(|told| StorageUri::parse(told).unwrap());
        assert_eq!(told, Some(StorageUri::parse(location).unwrap()), "{text}");
    }
}

/// A child of the tests above: the environment is its own.
#[test]
#[ignore = "a child of other tests"]
fn opens_with_the_environment() {
    if let Ok(uri) = std::env::var("LOCATION") {
        let uri = StorageUri::parse(&uri).unwrap();
        println!("location {}", S3Constructor::default().location(&uri));
        return;
    }
    let uri = StorageUri::parse(&std::env::var("OPEN").unwrap()).unwrap();
    match block_on(plain_registry().open(&uri, &context())) {
        Ok(_) => println!("it is open"),
        Err(error) => println!("{:?}: {error}", error.kind()),
    }
}

#[test]
fn a_server_without_conditional_puts_is_refused_and_nothing_stays_there() {
    for (conditional, told) in [
        (Conditional::Ignored, "16 were told"),
        (Conditional::Racy, "were told"),
        (Conditional::Refused, "conditional-put=none"),
    ] {
        let server = Server::start(ServerOptions { conditional, ..ServerOptions::default() }).unwrap();
        let error = refused(&uri_at(&server, "p", ""), keys());
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(told) && error.to_string().contains("conditional-put=none"), "{error}");
        assert!(server.keys("bucket").is_empty(), "{:?}", server.keys("bucket"));
    }
}

#[test]
fn puts_race_each_other_however_few_requests_there_may_be_at_once() {
    let server = Server::start(ServerOptions { conditional: Conditional::Racy, ..ServerOptions::default() }).unwrap();
    let error = refused(&uri_at(&server, "p", "&requests-max=1"), keys());
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn a_server_that_lists_as_the_first_version_did_is_refused_and_nothing_stays_there() {
    let server = Server::start(ServerOptions { lists_first_version: true, ..ServerOptions::default() }).unwrap();
    for parameters in ["", "&conditional-put=none"] {
        let error = refused(&uri_at(&server, "p", parameters), keys());
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("list-type=2"), "{error}");
        assert!(server.keys("bucket").is_empty());
    }
}

#[test]
fn a_server_that_a_storage_was_copied_to_is_tried_before_anything_is_put_there() {
    let first = server();
    let storage = open(&first, "");
    let (name, bytes) = (sample_name(1), sample_bytes(1, 100));
    block_on(storage.put(name, bytes.clone())).unwrap();
    for with_marker in [true, false] {
        for conditional in [Conditional::Exact, Conditional::Ignored, Conditional::Racy] {
            let second = Server::start(ServerOptions { conditional, ..ServerOptions::default() }).unwrap();
            for key in first.keys("bucket") {
                if with_marker || !key.ends_with("strongroom-storage") {
                    second.put_object("bucket", &key, first.object("bucket", &key).unwrap());
                }
            }
            let before = second.keys("bucket");
            let existing = context().with_mode(OpenMode::Existing);
            let copy = block_on(registry().open(&uri_at(&second, "p", ""), &existing)).unwrap();
            block_on(async {
                // Reading asks for nothing.
                assert_eq!(copy.get_all(name, 100).await.unwrap(), bytes);
                assert!(second.take_seen().iter().all(|seen| seen.verb != Verb::Put));
                for put in
                    [copy.put_durable(name, sample_bytes(2, 100)).await, copy.put(name, sample_bytes(2, 9)).await]
                {
                    match conditional {
                        Conditional::Exact => assert_eq!(put.unwrap(), Put::Exists),
                        _ => {
                            let error = put.unwrap_err();
                            assert_eq!(
                                (error.kind(), error.effect()),
                                (ErrorKind::Unsupported, Effect::None),
                                "{error}"
                            );
                            assert!(error.to_string().contains("conditional-put=none"), "{error}");
                        }
                    }
                }
                assert_eq!(copy.get_all(name, 100).await.unwrap(), bytes);
            });
            if conditional != Conditional::Exact {
                assert_eq!(second.keys("bucket"), before);
                continue;
            }
            // Once is enough, for each of the two.
            for server in [&second, &first] {
                let again = block_on(registry().open(&uri_at(server, "p", ""), &existing)).unwrap();
                server.take_seen();
                block_on(again.put(sample_name(2), bytes.clone())).unwrap();
                assert_eq!(server.take_seen().len(), 2);
            }
        }
    }
}

#[test]
fn a_server_that_ceases_to_keep_conditions_is_found_out_before_the_first_put() {
    let mut server = server();
    let storage = open(&server, "");
    let (name, bytes) = (sample_name(1), sample_bytes(1, 100));
    block_on(storage.put(name, bytes.clone())).unwrap();
    drop(storage);
    server.restart_with(Conditional::Ignored).unwrap();
    let storage = open(&server, "");
    block_on(async {
        let error = storage.put_durable(name, sample_bytes(2, 100)).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unsupported, Effect::None), "{error}");
        assert_eq!(storage.get_all(name, 100).await.unwrap(), bytes);
    });
}

#[test]
fn creating_looks_once_and_opening_asks_once() {
    let server = server();
    drop(open(&server, ""));
    let probed = server.take_seen();
    assert!(probed.len() > 100, "it was tried: {}", probed.len());
    assert_eq!(server.keys("bucket"), ["p/strongroom-storage"]);
    let existing = context().with_mode(OpenMode::Existing);
    for context in [context(), existing] {
        drop(block_on(registry().open(&uri_at(&server, "p", ""), &context)).unwrap());
        assert_eq!(server.take_seen().len(), 1);
    }
}

#[test]
fn blobs_that_were_copied_without_the_marker_are_found() {
    let server = server();
    let mut options = S3Options::new("bucket");
    options.endpoint = Some(server.endpoint());
    options.prefix = "p".to_owned();
    options.credentials = Some(keys());
    block_on(async {
        let storage = S3Storage::open(&options, &context()).await.unwrap();
        storage.put(sample_name(1), sample_bytes(1, 9)).await.unwrap();
        server.remove_object("bucket", "p/strongroom-storage");
        let again = S3Storage::open(&options, &context().with_mode(OpenMode::Existing)).await.unwrap();
        assert_eq!(again.size(sample_name(1)).await.unwrap(), 9);
    });
}

#[test]
fn objects_of_others_are_neither_listed_nor_touched() {
    let server = server();
    let storage = open(&server, "");
    let foreign = [
        "p/README",
        "p/sub/0123",
        "p/ABCDEF",
        "q",
        "p/00000000000000000000000000000000x",
        "p//x",
        "p//",
        "p/./x",
        "p/..",
        "p/",
        "p/00000000000000000000000000000000/",
        "p/\u{1}",
        "p/<&>",
    ];
    for key in foreign {
        server.put_object("bucket", key, "x");
    }
    block_on(async {
        assert!(storage.list_all(&[]).await.unwrap().is_empty());
        storage.put(sample_name(1), sample_bytes(1, 9)).await.unwrap();
        assert_eq!(storage.list_all(&[]).await.unwrap(), [sample_name(1)].into());
    });
    let keys = server.keys("bucket");
    assert!(foreign.iter().all(|key| keys.iter().any(|there| there == key)));
}
