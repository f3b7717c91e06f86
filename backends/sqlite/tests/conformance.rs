//! The clauses that every storage keeps, in the caller's thread and on workers.

#![allow(clippy::unwrap_used)] // a test that cannot set up its place fails

use strongroom_conformance::block_on;
use strongroom_conformance::local::{CutPlace, LocalPlace, LocalScheme, check_power, memory};
use strongroom_conformance::storage::{Place as _, sample_bytes, sample_name};
use strongroom_core::storage::BlockingMode;
use tempfile::TempDir;

fn scheme(blocking: BlockingMode) -> LocalScheme {
    LocalScheme::new("sqlite", strongroom_sqlite::register, strongroom::env::system().unwrap(), blocking)
}

#[test]
fn the_constructor_keeps_what_it_owes() {
    for blocking in [BlockingMode::Inline, BlockingMode::Offload] {
        scheme(blocking).check_constructor(TempDir::new().unwrap().path());
    }
}

#[test]
fn a_database_of_which_much_is_free_becomes_shorter_when_it_is_closed() {
    let place = LocalPlace::new("", scheme(BlockingMode::Inline), TempDir::new);
    let bytes = || std::fs::metadata(place.path()).unwrap().len();
    block_on(async {
        let storage = place.open().await.unwrap();
        for number in 0..100 {
            storage.put(sample_name(number), sample_bytes(number, 100_000)).await.unwrap();
        }
        storage.sync().await.unwrap();
        drop(storage);
        assert!(bytes() > 10_000_000, "{}", bytes());
        let storage = place.open().await.unwrap();
        for number in 1..100 {
            storage.delete(sample_name(number)).await.unwrap();
        }
        storage.sync().await.unwrap();
        drop(storage);
        assert!(bytes() < 1_000_000, "{}", bytes());
        let storage = place.open().await.unwrap();
        assert_eq!(storage.size(sample_name(0)).await.unwrap(), 100_000);
    });
}

#[test]
fn barriers_and_batches_outlive_the_power() {
    let in_memory = || TempDir::new_in(memory());
    check_power(|| CutPlace::new("inline", scheme(BlockingMode::Inline), in_memory));
}

// Power is not cut here, replies are not lost, and what another process put is not looked at in every way.
mod inline {
    use super::*;
    strongroom_conformance::storage_conformance!(
        LocalPlace::new("inline", scheme(BlockingMode::Inline), TempDir::new),
        limited: [5, 8, 9, 10, 11]
    );
}

mod on_workers {
    use super::*;
    strongroom_conformance::storage_conformance!(
        LocalPlace::new("on_workers", scheme(BlockingMode::Offload), TempDir::new),
        limited: [5, 8, 9, 10, 11]
    );
}
