//! The engine on a storage that crashes, against in-memory models.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod basics;
mod check_beside;
mod clocks;
mod clone_differences;
mod clones;
mod defragmenter;
mod destroy;
mod freshness;
mod gathering;
mod headers;
mod hints;
mod hostile;
mod model;
mod processes;
mod races;
mod repair;
mod repair_beside;
mod room;
mod sharing;
mod simulated;
mod slots;
mod snapshot_attacks;
mod snapshot_turns;
mod snapshots;
mod space;
mod space_attacks;
mod support;
mod told_once;
mod turmoil;

/// What they run on: here the double. `strongroom/tests/backends` runs most of them on real storages as well.
mod medium {
    pub(crate) use strongroom_conformance::crash::CrashingStorage as Medium;

    /// How many random cases a test runs here.
    pub(crate) fn cases(all: u32) -> u32 {
        all
    }

    /// What a device remembers that opens it. Of the one place of the double nothing needs to be known.
    pub(crate) fn memory() -> Option<std::sync::Arc<dyn strongroom_core::engine::TrustedState>> {
        None
    }
}
