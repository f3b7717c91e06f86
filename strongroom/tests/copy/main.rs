//! A copy of a repository has all that the repository has, under other keys; and is one only when it is whole.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // a test may

mod arrival;
mod contents;
mod cut_short;
mod hostile;
mod states;
mod stores;
