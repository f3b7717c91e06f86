//! Files and keys in one transaction, and lists of changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // a test may

use futures_lite::future::block_on;
use strongroom::check::CheckOptions;
use strongroom::layer::Metrics;
use strongroom::{CreateOptions, Credentials, Error, KdfParameters, Op, Repository, blocking, fs};

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
