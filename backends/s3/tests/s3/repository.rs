//! A repository in a bucket: several processes at once, a server that restarts, clients that are killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::common::{registry, uri_at};
use crate::requests::Seen;
use strongroom::blocking::Repository;
use strongroom::check::CheckOptions;
use strongroom::{CreateOptions, Credentials, Error, KdfParameters, OpenOptions};
use strongroom_conformance::storage::sample_bytes;
use strongroom_core::storage::StorageUri;
use strongroom_s3_server::{Fault, Server, ServerOptions, Verb};

/// What a child of these tests does, and where.
const WORK: &str = "STRONGROOM_TEST_WORK";

/// How many write at once, how often each, and how many read meanwhile.
const WRITERS: u64 = 4;
const WRITES: u64 = 8;
const READERS: u64 = 4;

/// How many increments each of two processes makes.
const INCREMENTS: u64 = 15;

fn create(uri: &StorageUri) -> Repository {
    let options = CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM).without_trusted_state();
    Repository::create(uri.clone(), options.registry(registry())).unwrap()
}

fn open(uri: &StorageUri) -> Repository {
    let options = OpenOptions::new(Credentials::password("test")).without_trusted_state();
    Repository::open(uri.clone(), options.registry(registry())).unwrap()
}

fn is_clean(repository: &Repository) {
    let mut findings = Vec::new();
    let report = repository.check(CheckOptions { data: true }, |finding| findings.push(finding)).unwrap();
    assert_eq!((report.findings, findings), (0, Vec::new()));
}

/// One of two sizes: quick, or full where `STRONGROOM_ACCEPTANCE=full` asks for that.
fn scaled<T>(quick: T, full: T) -> T {
    if std::env::var_os("STRONGROOM_ACCEPTANCE").is_some_and(|size| size == "full") { full } else { quick }
}

fn server() -> Server {
    Server::start(ServerOptions { page_keys_max: 40, ..ServerOptions::default() }).unwrap()
}

fn child(work: &str, uri: &StorageUri) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "repository::works_for_its_parent", "--include-ignored", "--nocapture"])
        .env(WORK, format!("{work} {uri}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a child printed, after the mark.
fn told(line: &str) -> Option<&str> {
    line.split_once("told ").map(|(_, told)| told)
}

#[test]
#[ignore = "a child of other tests"]
fn works_for_its_parent() {
    let work = std::env::var(WORK).unwrap();
    let (work, uri) = work.split_once(' ').unwrap();
    let repository = open(&StorageUri::parse(uri).unwrap());
    match work {
        "increments" => {
            for _ in 0..INCREMENTS {
                increment(&repository);
            }
            repository.close().unwrap();
        }
        "reads" => read_pairs(uri),
        work if work.starts_with("writes") => {
            for number in 0..WRITES {
                write_pair(&repository, &format!("{work}-{number}"));
            }
            repository.close().unwrap();
        }
        round => {
            for number in 0.. {
                let key = format!("{round}-{number}");
                repository.kv().put(&key, sample_bytes(number, 300)).unwrap();
                // Some with blocks of their own.
                if number % 4 == 0 {
                    repository.fs().write(format!("/{key}"), sample_bytes(number, 50_000)).unwrap();
                }
                let mut out = std::io::stdout().lock();
                writeln!(out, "told {number}").and_then(|()| out.flush()).unwrap();
            }
        }
    }
}

fn increment(repository: &Repository) {
    let counted = repository.kv().transact(|transaction| {
        let old = transaction.get("counter")?.map_or(0, |value| u64::from_le_bytes(value[..].try_into().unwrap()));
        transaction.put("counter", (old + 1).to_le_bytes())?;
        Ok::<_, strongroom::core::Error>(())
    });
    counted.unwrap();
}

#[test]
fn what_was_written_is_there_when_it_is_opened_again() {
    let server = server();
    let uri = uri_at(&server, "my/repository", "");
    let content = sample_bytes(1, 5_000_000);
    let repository = create(&uri);
    repository.fs().write("/file", &content).unwrap();
    repository.kv().put("key", "value").unwrap();
    is_clean(&repository);
    repository.close().unwrap();

    let repository = open(&uri);
    assert_eq!(repository.fs().read("/file").unwrap(), content);
    assert_eq!(repository.kv().get("key").unwrap().unwrap(), "value");
    is_clean(&repository);
    repository.close().unwrap();
    // Blobs all of one size, and what says that here is a storage.
    assert!(server.keys("bucket").contains(&"my/repository/strongroom-storage".to_owned()));
    let options = OpenOptions::new(Credentials::password("test")).without_trusted_state().registry(registry());
    assert!(strongroom::blocking::destroy(uri, options).unwrap().deleted_count > 5);
    assert_eq!(server.keys("bucket"), ["my/repository/strongroom-storage"]);
}

#[test]
fn two_processes_that_contend_lose_no_increment() {
    let server = server();
    let uri = uri_at(&server, "p", "");
    let repository = create(&uri);
    let mut other = child("increments", &uri);
    for _ in 0..INCREMENTS {
        increment(&repository);
    }
    assert!(other.wait().unwrap().success());
    repository.refresh().unwrap();
    let counter = repository.kv().get("counter").unwrap().unwrap();
    assert_eq!(u64::from_le_bytes(counter[..].try_into().unwrap()), 2 * INCREMENTS);
    is_clean(&repository);
}

/// Counts up in two files, and writes one that is this writer's own, in one transaction.
fn write_pair(repository: &Repository, own: &str) {
    let written = repository.transact(|transaction| {
        let old = number(&transaction.fs().read("/pair")?);
        transaction.fs().write("/pair", (old + 1).to_le_bytes())?;
        transaction.fs().write("/twin", (old + 1).to_le_bytes())?;
        transaction.fs().write(format!("/{own}"), sample_bytes(old, 20_000))?;
        Ok::<_, strongroom::Error>(())
    });
    written.unwrap();
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// Until all that is to be written is there: each state that is seen is one that a commit made, and none is older than the one before.
fn read_pairs(uri: &str) {
    let options = OpenOptions::new(Credentials::password("test")).without_trusted_state().read_only(true);
    let repository = Repository::open(StorageUri::parse(uri).unwrap(), options.registry(registry())).unwrap();
    let mut last = 0;
    while last < WRITERS * WRITES {
        repository.refresh().unwrap();
        let state = repository.fs().snapshot();
        let (pair, twin) = (number(&state.read("/pair").unwrap()), number(&state.read("/twin").unwrap()));
        assert!(pair == twin && pair >= last, "{pair} and {twin} after {last}");
        last = pair;
    }
}

#[test]
fn of_many_processes_writers_lose_nothing_and_readers_see_whole_states() {
    let server = server();
    let uri = uri_at(&server, "p", "");
    let repository = create(&uri);
    for file in ["/pair", "/twin"] {
        repository.fs().write(file, 0_u64.to_le_bytes()).unwrap();
    }
    let readers: Vec<_> = (0..READERS).map(|_| child("reads", &uri)).collect();
    let writers: Vec<_> = (0..WRITERS).map(|writer| child(&format!("writes{writer}"), &uri)).collect();
    for process in writers.into_iter().chain(readers) {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    repository.refresh().unwrap();
    assert_eq!(number(&repository.fs().read("/pair").unwrap()), WRITERS * WRITES);
    for writer in 0..WRITERS {
        for number in 0..WRITES {
            assert_eq!(repository.fs().read(format!("/writes{writer}-{number}")).unwrap().len(), 20_000);
        }
    }
    is_clean(&repository);
}

#[test]
fn a_server_that_restarts_in_the_middle_costs_no_acknowledged_commit() {
    let mut server = server();
    let uri = uri_at(&server, "p", "");
    let repository = create(&uri);
    let (acknowledged, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut keys = Vec::new();
            for number in 0_u64.. {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let key = format!("key-{number}");
                if repository.kv().put(&key, sample_bytes(number, 2000)).is_ok() {
                    keys.push((key, number));
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            }
            keys
        });
        for restart in 1..=3 {
            while acknowledged.load(Ordering::SeqCst) < restart * 10 && !writer.is_finished() {
                thread::yield_now();
            }
            server.restart().unwrap();
        }
        while acknowledged.load(Ordering::SeqCst) < 40 && !writer.is_finished() {
            thread::yield_now();
        }
        ended.store(true, Ordering::SeqCst);
        let keys = writer.join().unwrap();
        assert!(keys.len() >= 40);
        let again = open(&uri);
        for (key, number) in keys {
            assert_eq!(again.kv().get(&key).unwrap().unwrap(), sample_bytes(number, 2000), "{key}");
        }
        is_clean(&again);
    });
}

#[test]
fn clients_that_are_killed_leave_every_acknowledged_commit() {
    let server = server();
    let uri = uri_at(&server, "p", "");
    create(&uri).close().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..scaled(5, 200_u64) {
        let mut child = child(&format!("round{round}"), &uri);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut is_killed = false;
        // What was told before it died counts, however late it is read.
        for line in &mut lines {
            let line = line.unwrap();
            let Some(number) = told(&line) else { continue };
            let number: u64 = number.parse().unwrap();
            acknowledged.push((format!("round{round}-{number}"), number));
            if number >= 5 + 4 * (round % 5) && !is_killed {
                child.kill().unwrap();
                is_killed = true;
            }
        }
        assert!(!child.wait().unwrap().success() && is_killed);
    }
    let repository = open(&uri);
    for (key, number) in acknowledged {
        assert_eq!(repository.kv().get(&key).unwrap().unwrap(), sample_bytes(number, 300), "{key}");
        if number % 4 == 0 {
            assert_eq!(repository.fs().read(format!("/{key}")).unwrap(), sample_bytes(number, 50_000), "{key}");
        }
    }
    is_clean(&repository);
    repository.close().unwrap();
}

#[test]
fn a_server_that_fails_now_and_then_costs_nothing_but_time() {
    let server = server();
    let uri = uri_at(&server, "p", "");
    let repository = create(&uri);
    let rates = [
        (Fault::InternalError, 0.02),
        (Fault::InternalErrorAfter, 0.02),
        (Fault::SlowDown, 0.02),
        (Fault::LostReply, 0.02),
        (Fault::TruncatedBody, 0.02),
        (Fault::StaleList, 0.1),
    ];
    server.faults().at_rates(11, &rates);
    let mut present = Vec::new();
    for number in 0..40_u64 {
        let (path, content) = (format!("/{number}"), sample_bytes(number, 20_000));
        if repository.fs().write(&path, &content).is_ok() {
            present.push((path, content));
        }
    }
    let _ = repository.close();
    server.faults().clear();
    assert!(present.len() >= 30, "{}", present.len());
    let repository = open(&uri);
    for (path, content) in present {
        assert_eq!(repository.fs().read(&path).unwrap(), content, "{path}");
    }
    is_clean(&repository);
}

#[test]
fn a_single_writer_keeps_a_repository_where_nothing_is_conditional() {
    let conditional = strongroom_s3_server::Conditional::Ignored;
    let server = Server::start(ServerOptions { conditional, ..ServerOptions::default() }).unwrap();
    let uri = uri_at(&server, "p", "&conditional-put=none");
    let repository = create(&uri);
    for number in 0..5_u64 {
        repository.kv().put(number.to_le_bytes(), sample_bytes(number, 1000)).unwrap();
    }
    repository.close().unwrap();
    let repository = open(&uri);
    assert_eq!(repository.kv().get(3_u64.to_le_bytes()).unwrap().unwrap(), sample_bytes(3, 1000));
    is_clean(&repository);
    repository.close().unwrap();
    let options = OpenOptions::new(Credentials::password("test")).without_trusted_state().registry(registry());
    strongroom::blocking::destroy(uri, options).unwrap();
}

#[test]
fn a_single_writer_that_another_process_came_after_is_refused_its_next_commit() {
    let conditional = strongroom_s3_server::Conditional::Ignored;
    let server = Server::start(ServerOptions { conditional, ..ServerOptions::default() }).unwrap();
    let repository = create(&uri_at(&server, "p", "&conditional-put=none"));
    repository.kv().put("key", "value").unwrap();
    let marker = "p/strongroom-storage";
    let text = String::from_utf8(server.object("bucket", marker).unwrap().to_vec()).unwrap();
    let writer = text.lines().find_map(|line| line.strip_prefix("writer ")).unwrap();
    server.put_object("bucket", marker, text.replace(writer, "0123456789abcdef"));
    let before = server.keys("bucket");
    let error = repository.kv().put("key", "other").unwrap_err();
    assert_eq!(error.storage_kind(), Some(strongroom::storage::ErrorKind::Busy), "{error}");
    assert!(error.to_string().contains("another process has begun to write here"), "{error}");
    assert_eq!(server.keys("bucket"), before);
}

/// What remains where two write: a commit of the earlier one that comes when the later one has put its own.
#[test]
fn a_commit_that_arrives_late_in_the_place_of_a_single_writers_is_damage_that_names_what_to_do_without() {
    let conditional = strongroom_s3_server::Conditional::Ignored;
    let server = Server::start(ServerOptions { conditional, ..ServerOptions::default() }).unwrap();
    let uri = uri_at(&server, "p", "&conditional-put=none");
    create(&uri).close().unwrap();
    // The later one remembers what it has seen, as devices do.
    let device = Arc::new(Seen::default());
    let open_there = |accept: bool| {
        let options = OpenOptions::new(Credentials::password("test")).trusted_state(device.clone());
        Repository::open(uri.clone(), options.accept_rollback(accept).registry(registry()))
    };
    let (early, late) = (open(&uri), open_there(false).unwrap());
    for (number, repository) in [&early, &late].into_iter().enumerate() {
        repository.kv().put(format!("epoch {number}"), "begun").unwrap();
    }
    early.refresh().unwrap();
    let last_put = || {
        let seen = server.take_seen();
        let put = seen.iter().rfind(|seen| seen.verb == Verb::Put).unwrap();
        put.path.strip_prefix("/bucket/").unwrap().to_owned()
    };
    let content = |seed| sample_bytes(seed, 3_000_000);
    early.fs().write("/early", content(1)).unwrap();
    let commit = last_put();
    let blob = server.object("bucket", &commit).unwrap();
    server.remove_object("bucket", &commit);
    late.fs().write("/late", content(2)).unwrap();
    assert_eq!(last_put(), commit, "both are of the same number");
    drop(open_there(false).unwrap());
    server.put_object("bucket", &commit, blob);
    let error = late.fs().write("/next", content(3)).unwrap_err();
    let next = last_put();
    let names_it = |error: &Error| {
        assert!(matches!(error, Error::Core(strongroom::core::Error::Damaged(_))), "{error}");
        let (told, name) = (error.to_string(), next.strip_prefix("p/").unwrap());
        assert!(told.contains("does not continue") && told.contains(name), "{told} does not name {name}");
    };
    names_it(&error);
    names_it(&open_there(false).map(drop).unwrap_err());
    // Without what the error names it opens, as the earlier one left it: which is none of the states that the later one has seen.
    server.remove_object("bucket", &next);
    let error = open_there(false).map(drop).unwrap_err();
    assert!(matches!(error, Error::Core(strongroom::core::Error::RolledBack { .. })), "{error}");
    let repository = open_there(true).unwrap();
    assert!(repository.fs().read("/early").unwrap() == content(1));
    assert!(repository.fs().read("/late").is_err() && repository.fs().read("/next").is_err());
    is_clean(&repository);
}
