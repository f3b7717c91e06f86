//! What goes wrong between a client and a bucket, what requests things cost, and repositories in buckets.
//!
//! One crate: the bodies of asynchronous functions are compiled in each that awaits them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test may

#[path = "../common/mod.rs"]
mod common;

mod costs;
mod faults;
mod machine;
mod repository;
mod requests;
mod single_writer;
mod throttle;
mod tls;
