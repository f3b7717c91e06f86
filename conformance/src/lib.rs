//! What any Strongroom storage must pass, and the doubles that tests of the engine run on.
//!
//! * [`storage`]: the clauses S1 to S14, which a backend proves in one line, [`storage_conformance!`].
//! * [`cache`]: the clauses C1 to C6, which a cache proves with [`cache_conformance!`].
//! * [`crash`]: a storage that loses power, dies, fails and lies on request, deterministically.

pub mod cache;
pub mod crash;
mod dice;
pub mod storage;

pub use dice::Dice;
#[doc(hidden)]
pub use futures_lite::future::block_on;

/// The examples of `docs/backends.md` that stand for themselves, compiled with the other documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/backends.md")]
pub struct Backends;
