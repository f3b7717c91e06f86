//! The clauses that every storage keeps, in the caller's thread and on workers; what the constructor owes; and what is left when
//! the power is cut.

#![allow(clippy::unwrap_used)] // a test that cannot set up its place fails

use strongroom_conformance::local::{CutPlace, LocalPlace, LocalScheme, check_power, memory};
use strongroom_core::storage::BlockingMode;
use tempfile::TempDir;

fn scheme(blocking: BlockingMode) -> LocalScheme {
    LocalScheme::new("log", own_storage::register, strongroom::env::system().unwrap(), blocking)
}

#[test]
fn the_constructor_keeps_what_it_owes() {
    for blocking in [BlockingMode::Inline, BlockingMode::Offload] {
        scheme(blocking).check_constructor(TempDir::new().unwrap().path());
    }
}

#[test]
fn barriers_and_batches_outlive_the_power() {
    let in_memory = || TempDir::new_in(memory());
    check_power(|| CutPlace::new("inline", scheme(BlockingMode::Inline), in_memory));
}

// Power is not cut here, and replies are not lost.
mod inline {
    use super::*;
    strongroom_conformance::storage_conformance!(
        LocalPlace::new("inline", scheme(BlockingMode::Inline), TempDir::new),
        limited: [8, 9, 10, 11]
    );
}

mod on_workers {
    use super::*;
    strongroom_conformance::storage_conformance!(
        LocalPlace::new("on_workers", scheme(BlockingMode::Offload), TempDir::new),
        limited: [8, 9, 10, 11]
    );
}
