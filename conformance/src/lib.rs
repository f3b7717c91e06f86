//! What any Strongroom storage must pass, and the doubles that tests of the engine run on.
//!
//! * [`storage`]: the clauses S1 to S14, which a backend proves in one line, [`storage_conformance!`];
//!   and what a constructor owes, [`storage::check_constructor`].
//! * [`cache`]: the clauses C1 to C6, which a cache proves with [`cache_conformance!`].
//! * [`crash`]: a storage that loses power, dies, fails and lies on request, deterministically.
//! * [`flaky`]: a wrapper that fails like a network: errors, lost answers, late and double effects, stale listings.
//! * [`hostile`]: a wrapper that plays an operator who changes, withholds, swaps, invents and replays.
//! * [`local`]: a place in files of this machine, in which processes die, and one whose power is cut.
//! * [`power`]: the files of a store that is tried as it is, and what is left of them when the power is cut.
//! * [`between`]: a wrapper that lets a test do something before each call.
//! * [`discarding`]: a wrapper that forgets file data, so that a test can be larger than memory.

pub mod between;
pub mod cache;
pub mod crash;
mod cut;
mod dice;
pub mod discarding;
pub mod flaky;
pub mod hostile;
pub mod local;
pub mod power;
mod simulate;
pub mod storage;

pub use cut::cut;
pub use dice::Dice;
/// Runs a future to its end in this thread, for tests; may be called within another one.
pub use futures_lite::future::block_on;
pub use simulate::simulate;

/// The examples of `docs/backends.md` that stand for themselves, compiled with the other documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/backends.md")]
pub struct Backends;
