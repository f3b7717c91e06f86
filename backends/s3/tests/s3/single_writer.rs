//! A single writer on a server that keeps no conditions: puts of unknown effect, which may still arrive, and turns.

use std::sync::Arc;

use crate::common::{registry, uri_at};
use futures_util::future::join_all;
use strongroom_conformance::block_on;
use strongroom_conformance::storage::{sample_bytes, sample_name};
use strongroom_core::storage::{Effect, ErrorKind, OpenContext, OpenMode, Put, Reach, Storage, StorageExt as _};
use strongroom_s3_server::{Conditional, Fault, Server, ServerOptions, Verb};

fn context() -> OpenContext {
    OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing)
}

fn open(server: &Server, parameters: &str) -> Arc<dyn Storage> {
    block_on(registry().open(&uri_at(server, "p", parameters), &context())).unwrap()
}

#[test]
fn a_put_of_a_single_writer_that_arrives_late_replaces_nothing_that_was_acknowledged() {
    let server =
        Server::start(ServerOptions { conditional: Conditional::Ignored, ..ServerOptions::default() }).unwrap();
    let storage = open(&server, "&conditional-put=none");
    let other = open(&server, "&conditional-put=none");
    block_on(async {
        let (name, early, late) = (sample_name(1), sample_bytes(1, 100), sample_bytes(2, 100));
        server.faults().next(&[Verb::Put], Fault::Late);
        let error = storage.put_durable(name, early.clone()).await.unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown);
        // Either of the two may have won; the other one must not take its place afterwards.
        let put = other.put_durable(name, late.clone()).await.unwrap();
        let stands = if put == Put::Created { late } else { early.clone() };
        assert_eq!(other.get_all(name, 100).await.unwrap(), stands);
        server.deliver_late();
        assert_eq!(storage.get_all(name, 100).await.unwrap(), stands);
        // What is sent again as it was may arrive as often as it likes.
        let name = sample_name(2);
        server.faults().next(&[Verb::Put], Fault::Late);
        storage.put(name, early.clone()).await.unwrap_err();
        assert_eq!(storage.put(name, early.clone()).await.unwrap(), Put::Created);
        server.deliver_late();
        assert_eq!(storage.get_all(name, 100).await.unwrap(), early);
    });
}

#[test]
fn what_a_single_writer_had_sent_is_remembered_though_it_closed_and_opened_again() {
    let server =
        Server::start(ServerOptions { conditional: Conditional::Ignored, ..ServerOptions::default() }).unwrap();
    let storage = open(&server, "&conditional-put=none");
    block_on(async {
        let (name, early, late) = (sample_name(1), sample_bytes(1, 100), sample_bytes(2, 100));
        server.faults().next(&[Verb::Put], Fault::Late);
        storage.put_durable(name, early.clone()).await.unwrap_err();
        drop(storage);
        let storage = open(&server, "&conditional-put=none");
        let put = storage.put_durable(name, late.clone()).await.unwrap();
        let stands = if put == Put::Created { late } else { early };
        server.deliver_late();
        assert_eq!(storage.get_all(name, 100).await.unwrap(), stands);
    });
}

/// Blocks that an outage leaves of unknown effect are many and large; a commit among them is small.
#[test]
fn what_a_commit_had_sent_is_remembered_however_many_blocks_fail_after_it() {
    let server =
        Server::start(ServerOptions { conditional: Conditional::Ignored, ..ServerOptions::default() }).unwrap();
    let storage = open(&server, "&conditional-put=none");
    block_on(async {
        let (name, early) = (sample_name(1), sample_bytes(1, 100));
        storage.put_durable(sample_name(0), early.clone()).await.unwrap();
        server.faults().always(&[Verb::Put], Fault::Late);
        assert_eq!(storage.put_durable(name, early.clone()).await.unwrap_err().effect(), Effect::Unknown);
        for number in 0..70 {
            let error = storage.put(sample_name(100 + number), sample_bytes(number, 1 << 20)).await.unwrap_err();
            assert_eq!(error.effect(), Effect::Unknown, "{error}");
        }
        server.faults().clear();
        drop(storage);
        let again = open(&server, "&conditional-put=none");
        assert_eq!(again.put_durable(name, sample_bytes(2, 100)).await.unwrap(), Put::Exists);
        server.deliver_late();
        assert_eq!(again.get_all(name, 100).await.unwrap(), early);
    });
}

#[test]
fn a_single_writer_who_says_so_needs_no_conditional_puts() {
    let server =
        Server::start(ServerOptions { conditional: Conditional::Ignored, ..ServerOptions::default() }).unwrap();
    let storage = open(&server, "&conditional-put=none");
    assert_eq!(storage.capabilities().reach, Reach::Process);
    assert!(storage.is_remote());
    let other = open(&server, "&conditional-put=none");
    block_on(async {
        // Handles of one process take turns.
        for number in 0..10 {
            let put = |storage: &Arc<dyn Storage>, seed| {
                let storage = storage.clone();
                async move { storage.put(sample_name(number), sample_bytes(seed, 100)).await.unwrap() }
            };
            let outcomes = join_all((0..8).map(|seed| put(if seed % 2 == 0 { &storage } else { &other }, seed))).await;
            assert_eq!(outcomes.iter().filter(|outcome| **outcome == Put::Created).count(), 1);
        }
    });
    // Whoever does not say so again is told.
    let error = block_on(registry().open(&uri_at(&server, "p", ""), &context())).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("single writer"), "{error}");
}

#[test]
fn the_choice_of_several_writers_is_not_undone_by_one() {
    let server = Server::start(ServerOptions::default()).unwrap();
    drop(open(&server, ""));
    let uri = uri_at(&server, "p", "&conditional-put=none");
    let error = block_on(registry().open(&uri, &context())).map(drop).unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("leave it out"), "{error}");
}
