//! Snapshots: content roots that are kept under a name.
//!
//! A snapshot is a checkpoint's content tree. Taking one is making a checkpoint whose commit has one row more. From then on
//! what the content loses is *parked* where a snapshot has it, instead of being freed: a chunk that loses its last
//! reference, a node that a checkpoint replaces. Both are known by birth and death, in commit numbers: snapshot *s* needs
//! them where birth ≤ *s* < death. Chunks stay under their number, so that they move for all snapshots at once; nodes move in
//! all trees at once, and keep their births.
//!
//! Removing a snapshot first takes its name away, in one commit, and then frees what was parked and no other snapshot
//! needs: only what died between it and the next one can be that. Cut short, it is finished by whoever takes, removes or
//! compacts next.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::Engine;
use super::checkpoint::{Beside, Trees};
use super::commit::Draft;
use super::copy::holder;
use super::root::Root;
use super::shared::Shared;
use super::transaction::{Transaction, Work};
use super::view::{Scan, Snapshot, table_range};
use crate::format::rows::{self, ChunkRow, SnapshotRow};
use crate::tree::{Direction, TreeRoot};
use crate::{Error, Result};

/// The longest name of a snapshot, in bytes of UTF-8.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 255;
/// How much that was parked one commit frees, at most.
const FREED_AT_ONCE_MAX: usize = 2048;

/// A snapshot that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name.
    pub name: String,
    /// The commit whose content it is.
    pub sequence: u64,
    /// When it was taken, in milliseconds since 1970.
    pub time_millis: u64,
}

impl SnapshotInfo {
    /// Whether it is there for a copy that is being made of this repository, or was when its process died. It goes with the copy,
    /// or with the next one, and stands for nothing that anybody wanted to keep.
    #[must_use]
    pub fn is_hold(&self) -> bool {
        holder(&self.name).is_some()
    }
}

impl Engine {
    /// Keeps the newest content under a name. What others commit meanwhile is in it or not; nothing is in part.
    ///
    /// It writes what a checkpoint writes, whatever the content's size: one commit, and the rows that were committed since the
    /// last checkpoint with the tree nodes that they go into. Of such rows there are no more than
    /// [`Tuning::checkpoint_bytes`](super::Tuning::checkpoint_bytes), 8 MiB unless it says otherwise, and those of the last
    /// group of transactions: with more, a checkpoint is made without a snapshot. A row changes one leaf of its tree and what
    /// is above that, each node at most 4 KiB.
    ///
    /// # Errors
    /// [`Error::SnapshotExists`]; [`Error::Invalid`] and [`Error::LimitExceeded`] for an impossible name; as
    /// [`Transaction::commit`].
    pub async fn create_snapshot(&self, name: &str) -> Result<SnapshotInfo> {
        if holder(name).is_some() {
            let what = "cannot be the name of a snapshot: those are of copies under way, and go with them";
            return Err(Error::Invalid(format!("{name:?} {what}")));
        }
        self.create_snapshot_of(name, None).await
    }

    /// As [`Engine::create_snapshot`], as if it had been taken at this time.
    pub(super) async fn create_snapshot_of(&self, name: &str, time_millis: Option<u64>) -> Result<SnapshotInfo> {
        let shared = &self.shared;
        shared.check_writable()?;
        check_name(name)?;
        let _turn = shared.snapshots.lock().await;
        // Which names are there is for the newest state to say.
        shared.catch_up_as_writer().await?;
        shared.finish_removals().await?;
        for _ in 0..shared.tuning.attempts_max {
            shared.hold_epoch().await?;
            let mut leader = shared.leader.lock().await;
            if shared.checkpoint_beside(&mut leader, Trees::Change, Beside::Keep(name, time_millis)).await? {
                // Nobody but the leader changes the newest state.
                let row = shared.snapshot_row(&shared.root(), name).await?;
                drop(leader);
                shared.remember().await?;
                return match row {
                    Some(row) if !row.is_removed => Ok(info(name, &row)),
                    _ => Err(Error::NoSnapshot { name: name.to_owned() }),
                };
            }
        }
        Err(Error::Conflict)
    }

    /// The snapshots that are kept, the oldest first.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::Expired`]; what the storage raises.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let (root, pin) = self.shared.pin();
        let all = (Bound::Unbounded, Bound::Unbounded);
        let scan = self.shared.scan_root(&root, &pin, rows::SNAPSHOT, all, Direction::Ascending);
        let mut kept: Vec<_> =
            collect(scan).await?.iter().filter(|(_, row)| !row.is_removed).map(|(name, row)| info(name, row)).collect();
        kept.sort_by_key(|info| info.sequence);
        Ok(kept)
    }

    /// The content that is kept under a name, pinned: removing the snapshot does not disturb who looks at it in this process.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`]; as [`Engine::snapshots`].
    pub async fn open_snapshot(&self, name: &str) -> Result<Snapshot> {
        let (root, pin) = self.shared.pin();
        match self.shared.snapshot_row(&root, name).await? {
            Some(row) if !row.is_removed => Ok(Snapshot::kept(&self.shared, &root, pin, &row)),
            _ => Err(Error::NoSnapshot { name: name.to_owned() }),
        }
    }

    /// Removes a snapshot and frees what only it needed. It is gone when the first commit of that is; what is left to free
    /// after a crash is freed by the next snapshot that is taken or removed, and by [`Engine::compact`].
    ///
    /// # Errors
    /// [`Error::NoSnapshot`]; as [`Transaction::commit`].
    pub async fn remove_snapshot(&self, name: &str) -> Result<()> {
        let shared = &self.shared;
        shared.check_writable()?;
        let _turn = shared.snapshots.lock().await;
        shared.catch_up_as_writer().await?;
        shared.hold_epoch_for(true).await?;
        for _ in 0..shared.tuning.attempts_max {
            let mut transaction = Transaction::new(shared);
            let mut snapshots = transaction.snapshots().await?;
            let Some(row) = snapshots.remove(name).filter(|row| !row.is_removed) else {
                return Err(Error::NoSnapshot { name: name.to_owned() });
            };
            transaction
                .put_own(rows::snapshot_key(name), Some(SnapshotRow { is_removed: true, ..row }.encode().into()));
            let newest = snapshots.values().filter(|row| !row.is_removed).map(|row| row.sequence).max();
            let newest = newest.map(|sequence| Bytes::copy_from_slice(&sequence.to_le_bytes()));
            transaction.put_own(rows::counter_key(rows::NEWEST_SNAPSHOT), newest);
            match shared.submit(Work { urgent: true, ..transaction.into_work() }).await {
                Err(Error::Conflict) => shared.catch_up_as_writer().await?,
                done => {
                    done?;
                    return shared.finish_removals().await;
                }
            }
        }
        Err(Error::Conflict)
    }
}

impl Shared {
    /// Refuses a name that has a snapshot at this state.
    pub(super) async fn check_free(&self, base: &Root, name: &str) -> Result<()> {
        match self.snapshot_row(base, name).await? {
            Some(_) => Err(Error::SnapshotExists { name: name.to_owned() }),
            None => Ok(()),
        }
    }

    pub(super) async fn snapshot_row(&self, root: &Root, name: &str) -> Result<Option<SnapshotRow>> {
        let row = self.get_at(root, &rows::snapshot_key(name)).await?;
        row.map(|row| SnapshotRow::decode(&row).map_err(damaged)).transpose()
    }

    /// Frees what removed snapshots needed, batch by batch. For who holds [`Shared::snapshots`].
    pub(super) async fn finish_removals(self: &Arc<Self>) -> Result<()> {
        loop {
            let (root, pin) = self.pin();
            let all = (Bound::Unbounded, Bound::Unbounded);
            let rows = collect(self.scan_root(&root, &pin, rows::SNAPSHOT, all, Direction::Ascending)).await?;
            drop(pin);
            let Some((name, row)) = rows.into_iter().find(|(_, row)| row.is_removed) else { return Ok(()) };
            self.hold_epoch_for(true).await?;
            for table in [rows::PARKED_CHUNK, rows::PARKED_NODE] {
                let mut after = None;
                while let Some(last) = self.free_some(&name, &row, table, after.take()).await? {
                    after = Some(last);
                }
            }
            self.forget_removed(&name, &row).await?;
        }
    }

    /// Frees some of what was parked and is needed by nobody; answers how far it has come, `None` at the end.
    async fn free_some(
        self: &Arc<Self>,
        name: &str,
        row: &SnapshotRow,
        table: u8,
        after: Option<Bytes>,
    ) -> Result<Option<Bytes>> {
        for _ in 0..self.tuning.attempts_max {
            let mut transaction = Transaction::new(self);
            let snapshots = transaction.snapshots().await?;
            if snapshots.get(name) != Some(row) {
                return Ok(None);
            }
            let kept: Vec<u64> = {
                let mut kept: Vec<_> =
                    snapshots.values().filter(|row| !row.is_removed).map(|row| row.sequence).collect();
                kept.sort_unstable();
                kept
            };
            let is_needed = |birth: u64, death: u64| needs(&kept, birth, death);
            // What died later was there at the next snapshot, if it was there at this one.
            let next = kept.iter().find(|kept| **kept > row.sequence).map_or(u64::MAX, |next| next.saturating_add(1));
            let lowest = rows::table_key(table, &row.sequence.saturating_add(1).to_be_bytes());
            let start = after.clone().map_or(Bound::Included(lowest), Bound::Excluded);
            let end = match next {
                u64::MAX => table_range(table, (Bound::Unbounded, Bound::Unbounded)).1,
                next => Bound::Excluded(rows::table_key(table, &next.to_be_bytes())),
            };
            let mut scan = transaction.scan_unread((start, end));
            let mut parked = Vec::new();
            while parked.len() < FREED_AT_ONCE_MAX
                && let Some((key, value)) = scan.next().await?
            {
                parked.push((rows::table_key(table, &key), value));
            }
            drop(scan);
            let last = parked.last().map(|(key, _)| key.clone()).filter(|_| parked.len() == FREED_AT_ONCE_MAX);
            for (key, value) in parked {
                if table == rows::PARKED_CHUNK {
                    let (death, number) = rows::decode_parked_chunk_key(&key).map_err(damaged)?;
                    let chunk = transaction.chunk_row(number).await?;
                    if chunk.is_none_or(|ChunkRow { birth, .. }| !is_needed(birth, death)) {
                        transaction.free_parked_chunk(death, number);
                    }
                } else {
                    let (death, pointer) = rows::decode_parked_node_key(&key).map_err(damaged)?;
                    if !is_needed(rows::decode_count(&value).map_err(damaged)?, death) {
                        transaction.free_parked_node(death, &pointer);
                    }
                }
            }
            if transaction.is_empty() {
                return Ok(last);
            }
            match self.submit(Work { urgent: true, ..transaction.into_work() }).await {
                Err(Error::Conflict) => self.catch_up_as_writer().await?,
                done => return done.map(|_| last),
            }
        }
        Err(Error::Conflict)
    }

    /// Nothing is parked for it any more.
    async fn forget_removed(self: &Arc<Self>, name: &str, row: &SnapshotRow) -> Result<()> {
        for _ in 0..self.tuning.attempts_max {
            let mut transaction = Transaction::new(self);
            if transaction.snapshots().await?.get(name) != Some(row) {
                return Ok(());
            }
            transaction.put_own(rows::snapshot_key(name), None);
            match self.submit(Work { urgent: true, ..transaction.into_work() }).await {
                Err(Error::Conflict) => self.catch_up_as_writer().await?,
                done => return done.map(|_| ()),
            }
        }
        Err(Error::Conflict)
    }
}

impl Transaction {
    /// All rows of snapshots; counted as read, so that whoever changes one meanwhile is noticed.
    async fn snapshots(&self) -> Result<BTreeMap<String, SnapshotRow>> {
        collect(self.scan_own(rows::SNAPSHOT)).await
    }
}

/// The rows of a commit that keeps its content under a name.
pub(super) fn keep(name: &str, sequence: u64, time: u64, content: Option<TreeRoot>, draft: &mut Draft) {
    let content = content.map(|root| (root.height, root.pointer));
    let row = SnapshotRow { is_removed: false, sequence, time, content };
    draft.rows.insert(rows::snapshot_key(name), Some(row.encode().into()));
    let newest = Bytes::copy_from_slice(&sequence.to_le_bytes());
    draft.rows.insert(rows::counter_key(rows::NEWEST_SNAPSHOT), Some(newest));
}

pub(super) async fn collect(mut scan: Scan) -> Result<BTreeMap<String, SnapshotRow>> {
    let mut snapshots = BTreeMap::new();
    while let Some((key, value)) = scan.next().await? {
        let name =
            std::str::from_utf8(&key).map_err(|_| Error::damaged("snapshot row", None, "a name not in UTF-8"))?;
        snapshots.insert(name.to_owned(), SnapshotRow::decode(&value).map_err(damaged)?);
    }
    Ok(snapshots)
}

/// Whether one of these snapshots, ascending, has what was there from a birth to a death. There may be thousands of
/// snapshots, and it is asked for each chunk.
pub(super) fn needs(kept: &[u64], birth: u64, death: u64) -> bool {
    let earlier = kept.partition_point(|kept| *kept < death);
    earlier.checked_sub(1).and_then(|last| kept.get(last)).is_some_and(|last| *last >= birth)
}

fn info(name: &str, row: &SnapshotRow) -> SnapshotInfo {
    SnapshotInfo { name: name.to_owned(), sequence: row.sequence, time_millis: row.time }
}

/// A name is what a file could be called: it becomes one where snapshots are shown as folders.
fn check_name(name: &str) -> Result<()> {
    if name.len() > SNAPSHOT_NAME_BYTES_MAX {
        let (value, limit) = (name.len() as u64, SNAPSHOT_NAME_BYTES_MAX as u64);
        return Err(Error::LimitExceeded { what: "snapshot_name_bytes", value, limit });
    }
    if name.is_empty() || name == "." || name == ".." || name.contains(|char: char| char == '/' || char.is_control()) {
        return Err(Error::Invalid(format!("{name:?} cannot be the name of a snapshot: it must be that of a file")));
    }
    Ok(())
}

pub(super) fn damaged(error: crate::format::FormatError) -> Error {
    Error::damaged(error.structure, None, error.reason)
}
