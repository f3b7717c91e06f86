//! The engine: a transactional, ordered key space on blocks, with snapshots, chunks and a commit chain.
//!
//! * `opening` creates and opens one. `root` is a state: two copy-on-write trees under an overlay of recent changes.
//! * `chain` reads and seals commits and finds the head; `admit` judges transactions, `commit` in
//!   groups, `publish` brings them into it, `follow` learns what others committed.
//! * `checkpoint` folds the overlay into the trees; `space` claims and ends writer epochs and gives space back; `compact`
//!   and `defragment` pack what is left, `defragmenter` does so in the background; `ballast` keeps room for deleting on a full storage, `room` makes do with it.
//! * `place` says where a writer is, of several that are kept alike, `settled` what a lock there proves, `sweep` deletes what crashes left;
//!   `sides` reads what two places wrote apart.
//! * `destroy` deletes all of it.
//! * `snapshots` keeps states under names; `difference` compares states, and brings one back; `footprint` counts what one takes,
//!   `held` what the storage holds; `copy` brings all of them into another repository; `clone` brings the repository itself to
//!   another place.
//! * [`keyring`] opens the header's slots; `check` verifies every reference and count, `repair` keeps what it found damaged
//!   from spreading.
//!
//! Invariants kept here: a commit that is present refers only to what is durable; a state changes by its successor alone;
//! what a reader may still look at (`floor`) is not deleted; nothing is revived once it is condemned.

mod admit;
mod ballast;
mod chain;
mod check;
mod checkpoint;
mod clone;
mod commit;
mod compact;
mod copy;
mod defragment;
mod defragmenter;
mod destroy;
mod difference;
mod epochs;
mod follow;
mod footprint;
mod gather;
mod held;
mod import_header;
mod in_force;
pub mod keyring;
mod nodes;
mod opening;
mod options;
mod place;
mod publish;
mod reads;
mod recent;
mod remembered;
mod repair;
mod room;
mod root;
mod settled;
mod shared;
mod sides;
mod slots;
mod snapshots;
mod space;
mod sweep;
mod transaction;
mod view;

use std::sync::{Arc, Mutex};

use crate::crypto::{Keys, RootSecret, Suite};
use crate::env::Env;
use crate::format::node;
use crate::format::rows::{self, ChunkRow};
use crate::storage::StorageExt;
use crate::{Error, Result};

pub use crate::tree::Direction;
pub use check::{CheckOptions, CheckReport, Counts, Finding};
pub use clone::{CloneOptions, CloneProgress, Cloned};
pub use compact::{CompactOptions, CompactReport};
pub use copy::{Contents, Copied, CopyOptions};
pub use defragmenter::{
    BATCH_BYTES_MAX, BYTES_PER_SECOND_MIN, DefragmentOptions, DefragmentState, DefragmentStatus, Defragmenter,
    STEP_CHUNKS_MAX,
};
pub use destroy::Destroyed;
pub use difference::{Change, Changes, References};
pub use footprint::Footprint;
pub use held::Held;
pub use import_header::HeaderImport;
pub use options::{CreateOptions, OpenOptions, TrustedState, Tuning, Unlock};
pub use remembered::Remembered;
pub use repair::Repaired;
pub use sides::{Side, sides};
pub use snapshots::{SNAPSHOT_NAME_BYTES_MAX, SnapshotInfo};
pub use transaction::{CommitInfo, Transaction};
pub use view::{BATCH_REMOTE_BYTES, Scan, Snapshot, View};

use checkpoint::Trees;
use keyring::{Header, SlotId};
use shared::{Shared, lock};

/// Which table a key lies in: the file system uses 0x10 to 0x7f, applications 0x80 to 0xef.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

impl Table {
    /// The last table that callers may use.
    pub const LAST: u8 = 0xef;
}

/// The number of a chunk: writer epoch in the upper, counter in the lower 32 bits; ascending in the order of ingest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkNumber(pub u64);

/// Errors that may mean "run the transaction again".
pub trait ConflictTest {
    /// Whether this is [`Error::Conflict`], or [`Error::Expired`]: the state that the transaction began on is out of date.
    fn is_conflict(&self) -> bool;
}

impl ConflictTest for Error {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict | Self::Expired)
    }
}

/// What `info` tells of an open repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// The random id of the repository.
    pub repository: [u8; 16],
    /// The cipher suite.
    pub suite: Suite,
    /// Size of every blob in bytes.
    pub block_bytes: u32,
    /// Number of the newest commit.
    pub sequence: u64,
    /// Number of the last checkpoint.
    pub checkpoint: u64,
    /// The oldest commit that may still be read.
    pub floor: u64,
    /// Blobs in storage.
    pub blobs: u64,
    /// Chunks.
    pub chunks: u64,
    /// Bytes of the payloads of all chunks, as they were given: compressed, where who gave them did that.
    pub chunk_bytes: u64,
    /// Those of the chunks that only snapshots need.
    pub snapshot_chunk_bytes: u64,
    /// Bytes that live records take.
    pub live_bytes: u64,
    /// Writer epochs that are open.
    pub open_epochs: u64,
    /// Snapshots that are kept.
    pub snapshots: u64,
}

/// An open repository; cheap to clone, usable from many tasks and threads. [`Engine::close`] leaves it tidy; dropping it
/// loses nothing that was committed.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    secrets: Arc<Secrets>,
}

/// What `check` needs to judge header copies.
struct Secrets {
    header: Mutex<Header>,
    root: RootSecret,
    /// The slot that it was opened with.
    slot: Mutex<Option<SlotId>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("sequence", &self.shared.root().sequence).finish_non_exhaustive()
    }
}

impl Engine {
    /// A read-write transaction on the newest state that this process knows.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        Transaction::new(&self.shared)
    }

    /// The newest state that this process knows, pinned.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(&self.shared)
    }

    /// Runs a closure in a transaction and commits it; on a conflict, again, on the newest state.
    ///
    /// # Errors
    /// What the closure answers; [`Error::Conflict`] after [`Tuning::attempts_max`] attempts; as [`Transaction::commit`].
    pub async fn transact<T, E>(
        &self,
        mut closure: impl AsyncFnMut(&mut Transaction) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        E: From<Error> + ConflictTest,
    {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut transaction = self.begin();
            let result = match closure(&mut transaction).await {
                Ok(value) => transaction.commit().await.map(|_| value).map_err(E::from),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_conflict() && attempt < self.shared.tuning.attempts_max => {
                    self.refresh().await?
                }
                result => return result,
            }
        }
    }

    /// Learns what other processes have committed.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::RolledBack`]; what the storage raises.
    pub async fn refresh(&self) -> Result<()> {
        if self.shared.read_only {
            return self.shared.catch_up(false).await;
        }
        let _leader = self.shared.leader.lock().await;
        self.shared.catch_up(true).await
    }

    /// Brings to its end what waits to be committed though whoever began it may be gone, and what of nobody knows whether it
    /// was committed.
    ///
    /// # Errors
    /// [`Error::CommitUnknown`] where that cannot be found out yet; [`Error::Closed`]; what the storage raises.
    pub async fn settle(&self) -> Result<()> {
        self.shared.check_writable()?;
        let mut leader = self.shared.leader.lock().await;
        self.shared.settle(&mut leader).await?;
        // What fails of it is told to those who wait.
        self.shared.answer_waiting(&mut leader).await;
        self.shared.settle(&mut leader).await
    }

    /// Waits until every commit under way is answered, and makes a checkpoint when one is due.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub async fn flush(&self) -> Result<()> {
        self.shared.check_writable()?;
        let mut leader = self.shared.leader.lock().await;
        self.shared.settle(&mut leader).await?;
        if self.shared.checkpoint_due() {
            self.shared.checkpoint(&mut leader, Trees::Change).await?;
        }
        drop(leader);
        self.shared.remember().await
    }

    /// Folds everything committed so far into the trees, and deletes what that makes superfluous.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub async fn checkpoint(&self) -> Result<()> {
        self.shared.check_writable()?;
        for _ in 0..self.shared.tuning.attempts_max {
            self.shared.hold_epoch().await?;
            let mut leader = self.shared.leader.lock().await;
            if self.shared.checkpoint(&mut leader, Trees::Change).await? {
                break;
            }
        }
        self.shared.remember().await
    }

    /// Gives back the space of what nothing needs, and packs what is left; see [`CompactOptions`]. Other transactions go on
    /// beside it. What readers of older states may need stays: see [`CompactReport::waiting`].
    ///
    /// # Errors
    /// As [`Transaction::commit`]. Cut short at any point, it has done a part and harmed nothing.
    pub async fn compact(&self, options: CompactOptions<'_>) -> Result<CompactReport> {
        compact::run(&self.shared, options).await
    }

    /// Ends the writer's epoch and gives back what nothing needs. Later writes answer [`Error::Closed`].
    ///
    /// # Errors
    /// What the storage raises; what was committed stays committed.
    pub async fn close(&self) -> Result<()> {
        let defragmenter = lock(&self.shared.defragmenter).upgrade();
        if let Some(control) = defragmenter {
            control.stop();
        }
        self.shared.close().await
    }

    /// Forgets what is kept in memory for no other reason than to be fast: decoded tree nodes, and the keys of blocks, which
    /// are erased. What is committed and not in the trees yet stays, and so does what readers and transactions hold. What a
    /// [`crate::layer::Cached`] below keeps is that cache's.
    pub fn drop_caches(&self) {
        self.shared.nodes.forget();
        self.shared.blocks.reader.forget_keys();
    }

    /// The identity of a chunk's plaintext, for dedup: a keyed hash.
    #[must_use]
    pub fn identity(&self, plaintext: &[u8]) -> [u8; 32] {
        self.shared.context.keys.identity(plaintext)
    }

    /// The keys, for those who hash on other threads.
    #[must_use]
    pub fn keys(&self) -> &Arc<Keys> {
        &self.shared.context.keys
    }

    /// The repository's secret seed for chunk boundaries.
    #[must_use]
    pub fn boundary_seed(&self) -> u64 {
        self.shared.context.keys.boundary_seed()
    }

    /// The largest payload of a chunk in bytes: 256 KiB, and in blocks of less than 16 KiB four blocks.
    #[must_use]
    pub fn chunk_bytes_max(&self) -> usize {
        self.shared.chunk_bytes_max()
    }

    /// The largest key in bytes, without its table.
    #[must_use]
    pub fn key_bytes_max(&self) -> usize {
        node::key_bytes_max(self.shared.context.geometry.node_bytes_max()).saturating_sub(1)
    }

    /// The largest key and value in bytes together, without the table.
    #[must_use]
    pub fn row_bytes_max(&self) -> usize {
        node::leaf_entry_bytes_max(self.shared.context.geometry.node_bytes_max()).saturating_sub(1)
    }

    /// The size of every blob in bytes.
    #[must_use]
    pub fn block_bytes(&self) -> u32 {
        self.shared.context.geometry.block_bytes()
    }

    /// Clock, randomness and workers.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.shared.context.env
    }

    /// Whether it was opened for reading only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.shared.read_only
    }

    /// A copy of the root secret: for an agent that opens the repository again without its credentials.
    #[must_use]
    pub fn root_secret(&self) -> RootSecret {
        self.secrets.root.duplicate()
    }

    /// Counts, at the newest state that this process knows. Costs one listing of the storage and a look at the rows of all
    /// chunks and blocks; no content is read.
    ///
    /// # Errors
    /// [`Error::Damaged`]; what the storage raises.
    pub async fn info(&self) -> Result<EngineInfo> {
        let shared = &self.shared;
        let (root, pin) = shared.pin();
        let mut info = EngineInfo {
            repository: *shared.context.keys.repository(),
            suite: shared.context.keys.suite(),
            block_bytes: self.block_bytes(),
            sequence: root.sequence,
            checkpoint: root.base,
            floor: root.floor,
            blobs: shared.storage().list_all(&[]).await?.len() as u64,
            chunks: 0,
            chunk_bytes: 0,
            snapshot_chunk_bytes: 0,
            live_bytes: 0,
            open_epochs: 0,
            snapshots: self.snapshots().await?.len() as u64,
        };
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        for table in [rows::CHUNK, rows::USAGE, rows::EPOCH] {
            let mut scan = shared.scan_root(&root, &pin, table, all, Direction::Ascending);
            while let Some((_, value)) = scan.next().await? {
                match table {
                    rows::CHUNK => {
                        let row = ChunkRow::decode(&value)
                            .map_err(|error| Error::damaged("chunk", None, error.to_string()))?;
                        let bytes = row.place.payload_bytes();
                        info.chunks += 1;
                        info.chunk_bytes = info.chunk_bytes.saturating_add(bytes);
                        if row.references == 0 {
                            info.snapshot_chunk_bytes = info.snapshot_chunk_bytes.saturating_add(bytes);
                        }
                    }
                    rows::USAGE => info.live_bytes += rows::decode_count(&value).unwrap_or_default(),
                    _ => info.open_epochs += u64::from(place::is_open(Some(value))?),
                }
            }
        }
        Ok(info)
    }

    /// Verifies every reference and every count; see [`CheckOptions`].
    ///
    /// # Errors
    /// What the storage raises. Damage is no error here: it is what the report lists.
    pub async fn check(&self, options: CheckOptions<'_>) -> Result<CheckReport> {
        check::run(&self.shared, &self.header().await?, &self.secrets.root, options).await
    }
}

impl Shared {
    pub(crate) fn chunk_bytes_max(&self) -> usize {
        self.context.geometry.chunk_bytes_max()
    }

    /// How many bytes of payloads a transaction may keep in its rows.
    pub(crate) fn inline_bytes_max(&self) -> usize {
        (64 << 10).min(self.context.geometry.block_bytes() as usize / 2)
    }

    pub(crate) fn check_row(&self, key_bytes: usize, value_bytes: usize) -> Result<()> {
        self.check_writable()?;
        let node_bytes_max = self.context.geometry.node_bytes_max();
        let limits = [
            ("key_bytes", key_bytes + 1, node::key_bytes_max(node_bytes_max)),
            ("row_bytes", key_bytes + 1 + value_bytes, node::leaf_entry_bytes_max(node_bytes_max)),
        ];
        for (what, value, limit) in limits {
            if value > limit {
                return Err(Error::LimitExceeded { what, value: value as u64, limit: limit as u64 });
            }
        }
        Ok(())
    }
}
