//! That changes are refused is tried by the suite (S11); here is what else the layer does.

use std::sync::Arc;

use futures_lite::future::block_on;
use strongroom_core::Error;
use strongroom_core::layer::ReadOnly;
use strongroom_core::storage::{ErrorKind, Operation, Storage as _};
use strongroom_memory::MemoryStorage;

use crate::engine::{create, open};
use crate::support::name;

#[test]
fn a_refusal_says_what_to_do() {
    block_on(async {
        let storage = ReadOnly::new(Arc::new(MemoryStorage::default()));
        let error = storage.put(name(1), "one".into()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "writing 01010101010101010101010101010101: storage is read-only: make it writable, or only read from it \
             (it was opened for reading only: open it for writing to change it)"
        );
        assert_eq!(storage.vacate().await.unwrap_err().kind(), ErrorKind::ReadOnly);
        assert!(storage.apply(Vec::new()).await.unwrap().is_empty(), "a batch of nothing is no change");
    });
}

/// As an application does that gives a part of itself, which is not to change anything, the storage.
#[test]
fn a_repository_on_it_can_be_opened_for_reading_and_changed_by_nobody_who_has_but_this() {
    block_on(async {
        let storage = Arc::new(MemoryStorage::default());
        let (engine, root) = create(storage.clone()).await.unwrap();
        engine.close().await.unwrap();
        let before = storage.list(&[], None).await.unwrap();
        let refused = match open(Arc::new(ReadOnly::new(storage.clone())), &root, 1).await {
            Ok(engine) => engine.checkpoint().await.map(drop),
            Err(error) => Err(error),
        };
        let Err(Error::Storage(refused)) = refused else { panic!("{refused:?}") };
        assert_eq!((refused.kind(), refused.operation()), (ErrorKind::ReadOnly, Operation::PutDurable));
        assert_eq!(storage.list(&[], None).await.unwrap(), before);
        open(storage, &root, 2).await.unwrap().close().await.unwrap();
    });
}
