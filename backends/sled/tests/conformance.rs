//! The clauses that every storage keeps, in the caller's thread and on workers.

#![allow(clippy::unwrap_used)] // a test that cannot set up its place fails

use strongroom_conformance::local::{LocalPlace, LocalScheme};
use strongroom_core::storage::BlockingMode;
use tempfile::TempDir;

fn scheme(blocking: BlockingMode) -> LocalScheme {
    LocalScheme::new("sled", strongroom_sled::register, strongroom::env::system().unwrap(), blocking)
}

#[test]
fn the_constructor_keeps_what_it_owes() {
    for blocking in [BlockingMode::Inline, BlockingMode::Offload] {
        scheme(blocking).check_constructor(TempDir::new().unwrap().path());
    }
}

// Batches are sequential, power is not what is promised against, and replies are not lost.
mod inline {
    use super::*;
    strongroom_conformance::storage_conformance!(
        LocalPlace::new("inline", scheme(BlockingMode::Inline), TempDir::new),
        limited: [8, 10, 11]
    );
}

mod on_workers {
    use super::*;
    strongroom_conformance::storage_conformance!(
        LocalPlace::new("on_workers", scheme(BlockingMode::Offload), TempDir::new),
        limited: [8, 10, 11]
    );
}
