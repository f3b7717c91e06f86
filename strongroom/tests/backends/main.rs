//! Every backend under the same tests of the engine, of files and of whole repositories, which stand with those on the crashing double
//! (`core/tests/engine`, `fs/tests/fs`, `strongroom/tests/strongroom/model`) and are compiled here once more, over real storages.
//!
//! `places::on_each` runs them on each backend in turn. `STRONGROOM_BACKEND=sqlite cargo test --workspace --test backends NAME` runs some of
//! them on one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may

mod medium;
mod places;

#[path = "../../../core/tests/engine"]
mod engine {
    use crate::medium;

    mod basics;
    mod clones;
    mod destroy;
    mod model;
    mod snapshots;
    mod space;
    #[allow(dead_code)] // some is for the other modules there
    mod support;
}

#[path = "../../../fs/tests/fs"]
mod files {
    use crate::medium;

    mod batch;
    mod check;
    mod compare;
    mod concurrency;
    mod content;
    mod content_tags;
    mod copies;
    mod diff;
    mod dropped;
    #[allow(clippy::module_inception)]
    mod files;
    mod fsx;
    mod handles;
    mod listing;
    mod mend;
    mod model;
    mod names;
    mod remains;
    #[allow(dead_code)] // some is for the other modules there
    mod support;
    mod unlinked;
    mod versions;
    mod xattrs;
}

#[path = "../strongroom/model/mod.rs"]
mod model;
