//! Caches of ciphertext: what storage answered, kept nearer.
//!
//! A cache is as untrusted as storage is: what comes out of it is authenticated as if storage had sent it, and where that
//! fails it is dropped and storage asked ([`crate::storage::Storage::forget`]). So a cache can cost time, and never more:
//! not data, and, as it sees nothing but what storage sees, no secret.
//!
//! Only that is cached whose bytes alone prove that they are the ones wanted: records of numbered blocks, read by a pointer
//! that binds one sealing. Commits, hints and headers are looked at to learn what there is *now*; their names can be put
//! again after a deletion, by someone else, with other content. They always come from storage, and so does whatever `check`
//! reads. That a name is absent is never remembered.
//!
//! The clauses of [`Cache`], which the conformance suite proves one by one:
//!
//! * **C1** A failure is a miss: whatever goes wrong inside a cache, the caller sees a miss or what storage answers.
//! * **C2** What is returned was inserted under that name, as exactly that part of the blob, as a larger one that holds it,
//!   or as several that make it up; and not before the last [`Cache::remove`] of the name that had ended.
//! * **C3** Usage never exceeds the bound.
//! * **C4** One load serves concurrent misses.
//! * **C5** It never holds anything but what storage gave: what was inserted, and what a load answered.
//! * **C6** It may forget at any time.

mod flight;
mod memory;
mod none;

use std::fmt;
use std::ops::Range;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;

use crate::storage::{MaybeSendSync, Name, Result};

pub use flight::{SingleFlight, Turn};
pub use memory::MemoryCache;
pub use none::NoCache;

/// How a cache gets from storage what it does not hold.
#[cfg(not(target_family = "wasm"))]
pub type Load<'a> = Pin<Box<dyn Future<Output = Result<Bytes>> + Send + 'a>>;
/// How a cache gets from storage what it does not hold.
#[cfg(target_family = "wasm")]
pub type Load<'a> = Pin<Box<dyn Future<Output = Result<Bytes>> + 'a>>;

/// Which part of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// All of it, however long.
    Whole,
    /// From one byte to another, the end exclusive.
    Range {
        /// The first byte.
        start: u64,
        /// The byte after the last.
        end: u64,
    },
}

impl Part {
    /// Whether that many bytes can be this part.
    #[must_use]
    pub fn fits(self, bytes: usize) -> bool {
        match self {
            Self::Whole => true,
            Self::Range { start, end } => end.checked_sub(start) == Some(bytes as u64),
        }
    }
}

impl From<Option<Range<u64>>> for Part {
    fn from(range: Option<Range<u64>>) -> Self {
        range.map_or(Self::Whole, |Range { start, end }| Self::Range { start, end })
    }
}

/// How full a cache is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What it holds, its own bookkeeping included.
    pub bytes: u64,
    /// The most that it may hold.
    pub bytes_max: u64,
}

/// A bounded store of parts of blobs. Its clauses are numbered on [the module](self).
///
/// It suits memory as well as a folder that several processes share and that outlives them: every call may wait, and none
/// fails. Two handles on one folder are one cache, save that single flight holds within each process.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait Cache: MaybeSendSync + fmt::Debug {
    /// The part, where it is at hand (C1, C2, C6).
    async fn get(&self, name: Name, part: Part) -> Option<Bytes>;

    /// Offers what storage gave (C3, C5); the cache may decline (C6). Bytes that cannot be that part are declined.
    async fn insert(&self, name: Name, part: Part, bytes: Bytes);

    /// Drops every part of the blob: once this answers, nothing that was inserted before is returned, nor is what a load
    /// brings that began before (C2).
    async fn remove(&self, name: Name);

    /// The part, from the cache or else by `load`, which is run at most once. Of those that miss the same part at the same
    /// time one loads, and the others get what it got (C4). A load that fails answers its own caller alone, nothing is kept
    /// of it, and the next one in line loads.
    ///
    /// # Errors
    /// What `load` answers, and nothing else (C1).
    async fn fetch(&self, name: Name, part: Part, load: Load<'_>) -> Result<Bytes>;

    /// How full it is (C3).
    async fn usage(&self) -> Usage;
}
