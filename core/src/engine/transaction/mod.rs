//! A read-write transaction: reads at its root, keeps its writes to itself, and is judged when it commits.

mod chunks;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use super::reads::ReadSet;
use super::remembered::Remembered;
use super::root::{Overlay, Root};
use super::shared::{Appending, Pin, Shared, lock};
use super::view::{Scan, Snapshot, View, table_range};
use super::{ChunkNumber, Table};
use crate::format::Pointer;
use crate::format::rows::{self, ChunkRow, Place};
use crate::storage::MaybeSendSync;
use crate::tree::Direction;
use crate::{Error, Result};

/// What a transaction does to one key.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put(Bytes),
    Delete,
    /// Adds to the leading counter of a row.
    Add(i64),
    /// Raises the leading counter of a row.
    Max(u64),
    /// A chunk that did not exist: nobody else can name it yet.
    NewChunk(Box<ChunkRow>),
    /// The payload of a chunk, which stays as it is, from one place to another.
    Move {
        from: Vec<Pointer>,
        to: Vec<Pointer>,
    },
    /// The payload of a chunk that is noted as damaged, written anew, and so many references more.
    Heal {
        to: Vec<Pointer>,
        references: i64,
    },
    /// The row and payload of a chunk that only snapshots needed which are gone, unless somebody has taken to it again.
    Free {
        death: u64,
    },
    /// A parked node that no snapshot has any more.
    FreeNode(Pointer),
    /// Identity -> chunk, unless the identity has one by then.
    Identity(u64),
    /// The note that a chunk cannot be read which is at this place, unless it is gone by then; a conflict where it has another
    /// place. Where its identity leads to no chunk, it leads to this one from then on: what is stored under it is to find what it heals.
    Note(Place),
}

/// What is held until a transaction is settled.
pub(crate) type Kept = Box<dyn MaybeSendSync>;

/// What the commit needs of a transaction.
pub(crate) struct Work {
    pub(crate) base: u64,
    pub(crate) epoch: Option<u32>,
    pub(crate) ops: BTreeMap<Bytes, Op>,
    pub(crate) reads: ReadSet,
    /// Whether payloads went into blocks, which must be durable first.
    pub(crate) has_blocks: bool,
    /// Whether it may use the ballast up, though it removes nothing itself.
    pub(crate) urgent: bool,
    /// Until it is answered, what it wrote may be named.
    pub(crate) appending: Option<Arc<Appending>>,
    /// Dropped when it is known what became of it.
    pub(crate) kept: Vec<Kept>,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// The commit's number in the chain; for a transaction without writes, of the state that it read.
    pub sequence: u64,
}

/// A read-write transaction. Dropping it aborts it.
///
/// Its reads see the state at which it began and its own writes. On commit, what it read and wrote is checked against every
/// commit since: disjoint ones are no conflict, and nothing is run or sent again.
pub struct Transaction {
    shared: Arc<Shared>,
    root: Arc<Root>,
    pin: Arc<Pin>,
    /// The content overlay with our own writes in it.
    content: Overlay,
    ops: BTreeMap<Bytes, Op>,
    reads: Mutex<ReadSet>,
    epoch: Option<u32>,
    /// Payloads kept in rows, as long as they are few.
    inline: Vec<u64>,
    inline_bytes: usize,
    has_blocks: bool,
    appending: Option<Arc<Appending>>,
    pending_bytes: u64,
    kept: Vec<Kept>,
    /// Whether any chunk is noted as damaged at the root, once that was looked up.
    notes_damage: Option<bool>,
    /// Damaged chunks that were met, by what they would hold.
    damaged: HashMap<[u8; 32], ChunkNumber>,
}

impl Transaction {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let (root, pin) = shared.pin();
        Self {
            content: root.content.overlay.clone(),
            shared: shared.clone(),
            root,
            pin,
            ops: BTreeMap::new(),
            reads: Mutex::default(),
            epoch: None,
            inline: Vec::new(),
            inline_bytes: 0,
            has_blocks: false,
            appending: None,
            pending_bytes: 0,
            kept: Vec::new(),
            notes_damage: None,
            damaged: HashMap::new(),
        }
    }

    /// The commit whose state the transaction reads.
    #[must_use]
    pub fn began_at(&self) -> u64 {
        self.root.sequence
    }

    /// The state that it began on.
    pub(super) fn began_on(&self) -> &Root {
        &self.root
    }

    /// Bytes of rows and of payloads kept in rows that this transaction holds in memory.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] for a row that no tree node holds; [`Error::Invalid`] for a table that is not the caller's.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        check_table(table)?;
        self.shared.check_row(key.len(), value.len())?;
        let key = rows::table_key(table.0, key);
        self.pending_bytes += (key.len() + value.len() + 64) as u64;
        self.change(&key, Some(value));
        Ok(())
    }

    /// Removes a key; an absent one is no error.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete(&mut self, table: Table, key: &[u8]) -> Result<()> {
        check_table(table)?;
        self.shared.check_row(key.len(), 0)?;
        let key = rows::table_key(table.0, key);
        self.pending_bytes += (key.len() + 64) as u64;
        self.change(&key, None);
        Ok(())
    }

    /// For commit and for our own reads, which share the row's memory.
    fn change(&mut self, key: &[u8], value: Option<&[u8]>) {
        let (key, value) = self.content.insert(key, value);
        self.set(key, value.map_or(Op::Delete, Op::Put));
    }

    /// A key here is a part of its row's memory: the map's own would keep that of the row before.
    fn set(&mut self, key: Bytes, op: Op) {
        if self.ops.insert(key.clone(), op).is_some()
            && let Some(op) = self.ops.remove(&key)
        {
            self.ops.insert(key, op);
        }
    }

    /// Raises the little-endian u64 that starts the row to `value`, making the row where there is none. Merges do not
    /// conflict with merges.
    ///
    /// # Errors
    /// As [`Transaction::put`]; what reading the row raises.
    pub async fn max(&mut self, table: Table, key: &[u8], value: u64) -> Result<()> {
        self.merge(table, key, Op::Max(value)).await
    }

    /// Adds to the little-endian u64 that starts the row, making the row where there is none. Merges do not conflict with
    /// merges; below zero is [`Error::Conflict`] when it commits.
    ///
    /// # Errors
    /// As [`Transaction::put`]; what reading the row raises.
    pub async fn add(&mut self, table: Table, key: &[u8], delta: i64) -> Result<()> {
        self.merge(table, key, Op::Add(delta)).await
    }

    async fn merge(&mut self, table: Table, key: &[u8], op: Op) -> Result<()> {
        check_table(table)?;
        self.shared.check_row(key.len(), 8)?;
        let key = rows::table_key(table.0, key);
        let seen = self.look(&key).await?;
        let merged = merge_row(seen.as_ref(), &op)?;
        let (key, merged) = self.content.insert(&key, Some(&merged));
        self.pending_bytes += (key.len() + 80) as u64;
        let op = match (self.ops.get(&key), op) {
            (None, op) => op,
            (Some(Op::Add(before)), Op::Add(delta)) => Op::Add(before.saturating_add(delta)),
            (Some(Op::Max(before)), Op::Max(value)) => Op::Max(value.max(*before)),
            // A merge on top of another kind of write: what we see is what we write.
            _ => {
                lock(&self.reads).points.insert(&key);
                merged.map_or(Op::Delete, Op::Put)
            }
        };
        self.set(key, op);
        Ok(())
    }

    /// A fresh number under the writer's epoch (epoch in the upper 32 bits), never handed out before nor again.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the epoch of earlier numbers was ended meanwhile; what claiming an epoch raises.
    pub async fn number(&mut self) -> Result<u64> {
        let (epoch, number) = self.shared.fresh_number().await?;
        if self.epoch.is_some_and(|before| before != epoch) {
            // What it made before is under an epoch that ended, and may be swept.
            return Err(Error::Conflict);
        }
        self.epoch = Some(epoch);
        Ok(number)
    }

    /// What is put from here on is under the epoch that we hold.
    async fn hold_epoch(&mut self) -> Result<()> {
        let epoch = self.shared.hold_epoch().await?;
        if self.epoch.is_some_and(|before| before != epoch) {
            return Err(Error::Conflict);
        }
        self.epoch = Some(epoch);
        Ok(())
    }

    /// What it sees and has written so far, to be read after it has been committed or has failed: who wrote more than fits in
    /// memory, and lost to another, can write it again from there. Costs a copy of what it holds in rows.
    #[must_use]
    pub fn remember(&self) -> Remembered {
        let made = self.ops.iter().filter_map(|(key, op)| match op {
            Op::NewChunk(row) => Some((key.clone(), row.place.clone())),
            Op::Heal { to, .. } => Some((key.clone(), Place::Records(to.clone()))),
            _ => None,
        });
        Remembered {
            shared: self.shared.clone(),
            root: self.root.clone(),
            pin: self.pin.clone(),
            content: self.content.clone(),
            made: made.collect(),
            epoch: self.epoch,
            _appending: self.appending.clone(),
        }
    }

    /// Keeps something until it is settled: dropped when the transaction is given up or refused, or when it is known whether its
    /// commit is part of the chain, and before [`Self::commit`] answers. A commit whose future was dropped, or that answered
    /// [`Error::CommitUnknown`], is settled by the next one, or by [`super::Engine::settle`]. What is kept should not hold the
    /// engine itself.
    pub fn keep_until_settled(&mut self, kept: impl MaybeSendSync + 'static) {
        self.kept.push(Box::new(kept));
    }

    /// Makes it durable, all or nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] where a commit since its beginning overlaps with it: run it again ([`super::Engine::transact`]
    /// does); [`Error::CommitUnknown`]; what the storage raises.
    pub async fn commit(self) -> Result<CommitInfo> {
        if self.ops.is_empty() {
            return Ok(CommitInfo { sequence: self.root.sequence });
        }
        self.shared.check_writable()?;
        let shared = self.shared.clone();
        let work = self.into_work();
        let frees = work.frees();
        shared.hold_epoch_to_commit(&work).await?;
        let committed = shared.submit(work).await?;
        if frees {
            shared.keep_room().await;
        }
        Ok(committed)
    }

    pub(crate) fn into_work(self) -> Work {
        let reads = self.reads.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Work {
            base: self.root.sequence,
            epoch: self.epoch,
            ops: self.ops,
            reads,
            has_blocks: self.has_blocks,
            urgent: false,
            appending: self.appending,
            kept: self.kept,
        }
    }

    /// Whether a row is there at this state, not counted as read.
    pub(crate) async fn has_row(&self, key: &Bytes) -> Result<bool> {
        Ok(self.shared.get_at(&self.root, key).await?.is_some())
    }

    /// Frees a node that no snapshot has any more, with its parked row.
    pub(crate) fn free_parked_node(&mut self, death: u64, pointer: &Pointer) {
        self.ops.insert(rows::parked_node_key(death, pointer), Op::FreeNode(*pointer));
    }

    /// The state that it reads, without its own writes.
    pub(super) fn state(&self) -> Snapshot {
        Snapshot::of(&self.shared, &self.root, &self.pin)
    }

    pub(super) fn reads(&self) -> &Mutex<ReadSet> {
        &self.reads
    }

    /// Whether it would change nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// For the engine's own tables, which callers cannot name.
    pub(crate) fn put_own(&mut self, key: Bytes, value: Option<Bytes>) {
        self.ops.insert(key, value.map_or(Op::Delete, Op::Put));
    }

    /// As [`View::get`], for the engine's own tables.
    pub(crate) async fn get_own(&self, key: &Bytes) -> Result<Option<Bytes>> {
        lock(&self.reads).points.insert(key);
        self.shared.get_at(&self.root, key).await
    }

    pub(crate) fn scan_own(&self, table: u8) -> Scan {
        let all = (Bound::Unbounded, Bound::Unbounded);
        lock(&self.reads).ranges.insert(table_range(table, all));
        self.shared.scan_root(&self.root, &self.pin, table, all, Direction::Ascending)
    }

    /// A range of one of the engine's own tables, not counted as read.
    pub(crate) fn scan_unread(&self, range: (Bound<Bytes>, Bound<Bytes>)) -> Scan {
        let space = &self.root.space;
        Scan::new(self.shared.clone(), self.pin.clone(), space.tree, space.overlay.clone(), range, Direction::Ascending)
    }

    /// A content row with our own writes, not counted as read.
    async fn look(&self, key: &Bytes) -> Result<Option<Bytes>> {
        match self.content.get(key) {
            Some(value) => Ok(value),
            None => match crate::tree::get(&self.shared.nodes, self.root.content.tree.as_ref(), key).await {
                Err(error) => Err(self.shared.explain(error, self.root.sequence).await),
                found => found,
            },
        }
    }
}

/// A row after a merge.
pub(crate) fn merge_row(row: Option<&Bytes>, op: &Op) -> Result<Bytes> {
    let before = match row {
        Some(row) => {
            rows::decode_count(row).map_err(|_| Error::Invalid("merge into a row without a counter".into()))?
        }
        None => 0,
    };
    let after = match op {
        Op::Add(delta) => before.checked_add_signed(*delta).ok_or(Error::Conflict)?,
        Op::Max(value) => before.max(*value),
        _ => before,
    };
    let mut merged = after.to_le_bytes().to_vec();
    if let Some(rest) = row.and_then(|row| row.get(8..)) {
        merged.extend_from_slice(rest);
    }
    Ok(Bytes::from(merged))
}

fn check_table(table: Table) -> Result<()> {
    if table.0 < rows::CONTENT_FIRST || table.0 > Table::LAST {
        return Err(Error::Invalid(format!("table {:#04x} is not one for callers", table.0)));
    }
    Ok(())
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl View for Transaction {
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        check_table(table)?;
        let key = rows::table_key(table.0, key);
        let found = self.look(&key).await;
        lock(&self.reads).points.insert(&key);
        found
    }

    fn scan(&self, table: Table, range: (Bound<&[u8]>, Bound<&[u8]>), direction: Direction) -> Scan {
        let range = table_range(table.0, range);
        lock(&self.reads).ranges.insert(range.clone());
        Scan::new(self.shared.clone(), self.pin.clone(), self.root.content.tree, self.content.clone(), range, direction)
    }

    async fn chunk(&self, number: ChunkNumber) -> Result<Bytes> {
        match self.ops.get(&rows::chunk_key(number.0)) {
            Some(Op::NewChunk(row)) => self.shared.own_payload(self.epoch, &row.place).await,
            Some(Op::Heal { to, .. }) => self.shared.own_payload(self.epoch, &Place::Records(to.clone())).await,
            _ => self.shared.chunk_at(&self.root, number.0).await,
        }
    }
}
