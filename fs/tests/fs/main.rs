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
mod versions;
mod xattrs;
