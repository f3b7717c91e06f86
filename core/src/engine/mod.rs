//! The transactional, ordered key-value core: interface first.

pub mod keyring;

use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::env::Env;
use crate::storage::{MaybeSendSync, Storage};
use crate::{Error, Result};

/// Which table a key lies in: fs uses 0x10..=0x7f, applications 0x80..=0xef.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

/// The number of a chunk: writer epoch and counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkNumber(pub u64);

/// The direction of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By ascending key.
    Ascending,
    /// By descending key.
    Descending,
}

/// What a snapshot and a transaction have in common: reading.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait View: MaybeSendSync {
    /// The value of a key.
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>>;
    /// The rows in a range of keys; a transaction sees its own writes. The whole range counts as read.
    fn scan(&self, table: Table, range: (Bound<&[u8]>, Bound<&[u8]>), direction: Direction) -> Scan;
    /// The payload of a chunk, as given to `put_chunk`.
    async fn chunk(&self, number: ChunkNumber) -> Result<Bytes>;
}

/// A running scan.
pub struct Scan;
impl Scan {
    /// The next row: key (without the table byte) and value.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        Err(Error::Closed)
    }
}

/// A pinned state, read only.
#[derive(Clone)]
pub struct Snapshot;
impl Snapshot {
    /// The commit whose state this is.
    pub fn sequence(&self) -> u64 {
        0
    }
}
/// A read-write transaction; dropping it aborts it.
pub struct Transaction;

macro_rules! view {
    ($t:ty) => {
        #[cfg_attr(not(target_family = "wasm"), async_trait)]
        #[cfg_attr(target_family = "wasm", async_trait(?Send))]
        impl View for $t {
            async fn get(&self, _: Table, _: &[u8]) -> Result<Option<Bytes>> {
                Err(Error::Closed)
            }
            fn scan(&self, _: Table, _: (Bound<&[u8]>, Bound<&[u8]>), _: Direction) -> Scan {
                Scan
            }
            async fn chunk(&self, _: ChunkNumber) -> Result<Bytes> {
                Err(Error::Closed)
            }
        }
    };
}
view!(Snapshot);
view!(Transaction);

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// The commit's number in the chain.
    pub sequence: u64,
}

#[allow(unused_variables)]
impl Transaction {
    /// Sets a key.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        Err(Error::Closed)
    }
    /// Removes a key.
    pub fn delete(&mut self, table: Table, key: &[u8]) -> Result<()> {
        Err(Error::Closed)
    }
    /// Merge: the first 8 bytes, a little-endian u64, become the larger of old and new; merges never conflict with merges.
    pub async fn max(&mut self, table: Table, key: &[u8], value: u64) -> Result<()> {
        Err(Error::Closed)
    }
    /// Merge: adds to the first 8 bytes, a little-endian u64.
    pub async fn add(&mut self, table: Table, key: &[u8], delta: i64) -> Result<()> {
        Err(Error::Closed)
    }
    /// A fresh number (inode) under the writer's epoch, never handed out before nor again.
    pub async fn number(&mut self) -> Result<u64> {
        Err(Error::Closed)
    }
    /// Stores a payload under its identity, or adds a reference to the chunk that has it. The caller owns one reference.
    pub async fn put_chunk(&mut self, identity: Option<[u8; 32]>, payload: Bytes) -> Result<ChunkNumber> {
        Err(Error::Closed)
    }
    /// The chunk with this identity, one reference added.
    pub async fn find_chunk(&mut self, identity: &[u8; 32]) -> Result<Option<ChunkNumber>> {
        Err(Error::Closed)
    }
    /// One reference more.
    pub fn retain_chunk(&mut self, number: ChunkNumber) -> Result<()> {
        Err(Error::Closed)
    }
    /// One reference less; at none the chunk is freed.
    pub fn release_chunk(&mut self, number: ChunkNumber) -> Result<()> {
        Err(Error::Closed)
    }
    /// Bytes of rows and inline payloads held in memory by this transaction.
    pub fn pending_bytes(&self) -> u64 {
        0
    }
    /// Makes it durable, all or nothing.
    pub async fn commit(self) -> Result<CommitInfo> {
        Err(Error::Closed)
    }
}

/// An open repository's engine; cheap to clone, usable from many tasks.
#[derive(Clone)]
pub struct Engine;

#[allow(unused_variables)]
impl Engine {
    /// Opens (see `OpenOptions`).
    pub async fn open(storage: Arc<dyn Storage>, env: Env, options: OpenOptions) -> Result<Engine> {
        Err(Error::Closed)
    }
    /// Creates a repository, refusing where one is.
    pub async fn create(storage: Arc<dyn Storage>, env: Env, options: CreateOptions) -> Result<Engine> {
        Err(Error::Closed)
    }
    /// A read-write transaction on the newest state this process knows.
    pub async fn begin(&self) -> Result<Transaction> {
        Err(Error::Closed)
    }
    /// The newest state this process knows, pinned.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot
    }
    /// Learns what other processes committed.
    pub async fn refresh(&self) -> Result<()> {
        Err(Error::Closed)
    }
    /// Identity (keyed hash) of a chunk's plaintext, for dedup.
    pub fn identity(&self, plaintext: &[u8]) -> [u8; 32] {
        [0; 32]
    }
    /// The repository's secret seed for chunk boundaries.
    pub fn boundary_seed(&self) -> u64 {
        0
    }
    /// The largest payload of a chunk in bytes: min(256 KiB, 4 blocks), a few bytes of framing included.
    pub fn chunk_bytes_max(&self) -> usize {
        0
    }
    /// Largest key in bytes (without the table byte), and largest value in a table row.
    pub fn key_bytes_max(&self) -> usize {
        0
    }
    /// Largest key and value together in bytes.
    pub fn row_bytes_max(&self) -> usize {
        0
    }
    /// The environment.
    pub fn env(&self) -> &Env {
        panic!()
    }
    /// Block size in bytes.
    pub fn block_bytes(&self) -> u32 {
        0
    }
    /// Ends the writer's epoch and leaves the repository tidy.
    pub async fn close(&self) -> Result<()> {
        Err(Error::Closed)
    }
}

/// How to open. (Fields come.)
#[derive(Default)]
#[non_exhaustive]
pub struct OpenOptions {}
/// How to create. (Fields come.)
#[derive(Default)]
#[non_exhaustive]
pub struct CreateOptions {}
