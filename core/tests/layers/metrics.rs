use std::sync::Arc;

use futures_lite::future::{block_on, poll_once};
use strongroom_core::layer::{Metrics, OperationCounts};
use strongroom_core::storage::{Change, ErrorKind, Operation, Storage as _};

use crate::support::{Fate, Flaky, name};

#[test]
fn calls_bytes_and_errors_are_counted() {
    block_on(async {
        let metrics = Metrics::new();
        let flaky = Arc::new(Flaky::default());
        let storage = metrics.over(flaky.clone());
        storage.put(name(1), vec![0; 100].into()).await.unwrap();
        storage.put_durable(name(2), vec![0; 10].into()).await.unwrap();
        storage.get(name(1), Some(0..30), 100).await.unwrap();
        storage.get_cached(name(2), None, 100).await.unwrap();
        storage.get(name(9), None, 100).await.unwrap_err();
        let before = metrics.snapshot();
        storage.apply(vec![Change::Put(name(3), vec![0; 7].into()), Change::Delete(name(1))]).await.unwrap();
        storage.sync().await.unwrap();
        storage.persist(&[name(2)]).await.unwrap();
        storage.list(&[], None).await.unwrap();
        storage.size(name(2)).await.unwrap();
        storage.delete(name(2)).await.unwrap();
        drop(storage.try_exclusive().await.unwrap());
        flaky.plan([Fate::Refused(ErrorKind::Full)]);
        storage.put(name(4), vec![0; 1000].into()).await.unwrap_err();

        let counted = metrics.snapshot();
        assert_eq!(counted.of(Operation::Get), OperationCounts { calls: 3, errors: 1, bytes: 40 });
        assert_eq!(counted.of(Operation::Put), OperationCounts { calls: 2, errors: 1, bytes: 100 });
        assert_eq!((counted.calls(), counted.barriers()), (13, 3));
        assert_eq!((counted.uploaded_bytes(), counted.downloaded_bytes()), (117, 40));
        assert_eq!((counted.errors(ErrorKind::NotFound), counted.errors(ErrorKind::Full)), (1, 1));
        let since = counted.since(&before);
        assert_eq!((since.calls(), since.barriers(), since.uploaded_bytes()), (8, 2, 7));
        assert_eq!(since.errors(ErrorKind::NotFound), 0);
        assert_eq!(
            before.to_string(),
            "5 requests (Put 1, PutDurable 1, Get 3), 110 bytes up, 40 bytes down; errors: NotFound 1"
        );
    });
}

#[test]
fn a_call_that_was_given_up_was_a_call() {
    let metrics = Metrics::new();
    let storage = metrics.over(Arc::new(Flaky::planned([Fate::Stuck])));
    assert!(block_on(poll_once(storage.sync())).is_none());
    assert_eq!(metrics.snapshot().of(Operation::Sync), OperationCounts { calls: 1, errors: 0, bytes: 0 });
}
