//! The storage seam and the encrypted engine of Strongroom.
//!
//! This crate does no I/O of its own: it reaches the untrusted place through [`storage::Storage`], and time, randomness
//! and threads through [`env::Env`]. Modules depend one way only:
//!
//! ```text
//! engine -> tree -> block -> { crypto, format }
//!     \________________________-> storage, env
//!                      layer, cache -> storage, env
//! ```
//!
//! `crypto` and `format` import no sibling; a test enforces it.

pub mod block;
pub mod cache;
pub mod crypto;
pub mod engine;
pub mod env;
mod error;
pub mod format;
pub mod layer;
pub mod storage;
pub mod tree;

pub use error::{Damage, Error, Result};
