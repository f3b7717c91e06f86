//! The layers: storages on storages, with time and faults made by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod cached;
mod conformance;
mod engine;
mod limit;
mod metrics;
mod read_only;
mod retry;
mod support;
mod timeout;
