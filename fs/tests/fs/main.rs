//! The file system on the engine, on storage that crashes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod batch;
mod check;
mod compare;
mod concurrency;
mod content;
mod content_tags;
mod copies;
mod costs;
mod diff;
mod dropped;
mod files;
mod fsx;
mod handles;
mod interleaved;
mod listing;
mod mend;
mod model;
mod names;
mod remains;
mod scale;
mod simulated;
mod support;
mod unlinked;
mod versions;
mod xattrs;

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
