//! Records packed into blocks that storage cannot tell apart, and read back.
//!
//! ```text
//! salt 16 ‖ sealed records, back to back ‖ sealed directory (zero-padded, fills what is left) ‖ sealed trailer 48
//! ```
//!
//! Invariants kept here:
//!
//! * Each block is sealed once, under a key of its own: name and a salt drawn when the block was opened enter the key. A
//!   retried put sends the same bytes.
//! * Every byte of a block but the salt is authenticated, and the salt enters the key.
//! * Nothing that storage answers is indexed before its length was checked, nor handed out before it authenticated.
//! * Reads ask for aligned 16 KiB parts, so that they show no record boundary; for several at once where several records of a
//!   block are wanted.

mod builder;
mod geometry;
mod reader;
mod run;
mod sealing;
mod slot;
mod store;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod upload;
mod whole;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::crypto::Keys;
use crate::env::Env;
use crate::storage::Storage;

pub use builder::{BlockBuilder, Place, SealedBlock};
pub use geometry::Geometry;
pub use reader::{BlockReader, READ_ALIGNMENT_BYTES};
pub use store::BlockStore;
pub use whole::WholeBlock;
pub use writer::{BlockWriter, SHARED_BYTES_MIN, WriterOptions};

/// What reading and writing blocks need.
#[derive(Clone)]
pub struct BlockContext {
    /// Where the blocks are.
    pub storage: Arc<dyn Storage>,
    /// Randomness and workers.
    pub env: Env,
    /// The keys of the repository.
    pub keys: Arc<Keys>,
    /// The size of every block.
    pub geometry: Geometry,
}

/// A lock on state that no panic leaves half-changed: poison says nothing about it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
