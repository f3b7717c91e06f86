//! What differs between two states of the content, and bringing an earlier one back.
//!
//! Both cost as much as differs, and what was changed since the last checkpoint: subtrees that the two states share are not
//! looked at.

use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::nodes::Nodes;
use super::root::Side;
use super::shared::{Pin, Shared, lock};
use super::transaction::Transaction;
use super::view::{Snapshot, table_range};
use super::{ChunkNumber, Table};
use crate::format::rows;
use crate::storage::MaybeSendSync;
use crate::tree::{Difference, Layered, MergedDiff};
use crate::{Error, Result};

/// Whoever knows the rows of the content, and with them what they refer to.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait References: MaybeSendSync {
    /// The chunks that a row owns a reference to, each as often as it does. The row is one of `state`.
    ///
    /// # Errors
    /// What reading raises, where the row alone does not tell.
    async fn chunks_of(&self, state: &Snapshot, table: Table, key: &[u8], value: &[u8]) -> Result<Vec<ChunkNumber>>;
}

/// A row that is not the same in two states; `None` where it is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table it is in.
    pub table: Table,
    /// Its key.
    pub key: Bytes,
    /// Its value in the first state.
    pub before: Option<Bytes>,
    /// Its value in the second.
    pub after: Option<Bytes>,
}

/// The rows that differ between two states, in the order of tables and keys.
pub struct Changes {
    shared: Arc<Shared>,
    pins: [Arc<Pin>; 2],
    diff: MergedDiff<Arc<Nodes>>,
}

impl Snapshot {
    /// What changed from another state of the same repository to this one.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Changes {
        let pins = [before.pin().clone(), self.pin().clone()];
        Changes::new(self.shared(), pins, before.content(), self.content())
    }

    /// All rows: what changed since nothing was there.
    pub(super) fn rows(&self) -> Changes {
        let pins = [self.pin().clone(), self.pin().clone()];
        Changes::new(self.shared(), pins, &Side::default(), self.content())
    }
}

impl Changes {
    fn new(shared: &Arc<Shared>, pins: [Arc<Pin>; 2], before: &Side, after: &Side) -> Self {
        let layered =
            |side: &Side| Layered { store: shared.nodes.clone(), tree: side.tree, overlay: side.overlay.clone() };
        let everything = (Bound::Unbounded, Bound::Unbounded);
        let diff = MergedDiff::new(layered(before), layered(after), everything);
        Self { shared: shared.clone(), pins, diff }
    }

    /// The next row that differs, or `None` after the last.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::Expired`]; what the storage raises.
    pub async fn next(&mut self) -> Result<Option<Change>> {
        match self.diff.next().await {
            Ok(difference) => Ok(difference.and_then(|Difference { key, before, after }| {
                let table = Table(*key.first()?);
                Some(Change { table, key: key.slice(1..), before, after })
            })),
            Err(error) => {
                let oldest = self.pins.iter().map(|pin| pin.sequence).min().unwrap_or_default();
                Err(self.shared.explain(error, oldest).await)
            }
        }
    }
}

impl Transaction {
    /// Makes the whole content what it is in another state, chunks included; answers how many rows differed. To be called
    /// before anything else is done in the transaction. Whatever is committed by others meanwhile is a conflict.
    ///
    /// # Errors
    /// [`Error::Invalid`] where something was done in it already; as [`Transaction::check_opened_here`], [`Changes::next`] and
    /// [`Transaction::put`].
    pub async fn restore(&mut self, state: &Snapshot, references: &dyn References) -> Result<u64> {
        self.restore_except(state, references, |_, _, _| false).await
    }

    /// That a state was taken of what this transaction changes: elsewhere the same number is that of another chunk.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a state of another repository, or of this one opened once more.
    pub fn check_opened_here(&self, state: &Snapshot) -> Result<()> {
        if Arc::ptr_eq(self.state().shared(), state.shared()) {
            return Ok(());
        }
        let what = "this state is one of another repository, or of this one opened once more: take it where it is used";
        Err(Error::Invalid(what.into()))
    }

    /// As [`Transaction::restore`], save for rows that are to stay as they are: `stays` is asked about each that differs, by
    /// its table, its key, and whether the other state has it.
    ///
    /// # Errors
    /// As [`Transaction::restore`].
    pub async fn restore_except(
        &mut self,
        state: &Snapshot,
        references: &dyn References,
        mut stays: impl FnMut(Table, &[u8], bool) -> bool,
    ) -> Result<u64> {
        if !self.is_empty() {
            return Err(Error::Invalid("a transaction that brings a state back does nothing before that".into()));
        }
        self.check_opened_here(state)?;
        let first = rows::table_key(rows::CONTENT_FIRST, &[]);
        let (_, end) = table_range(Table::LAST, (Bound::Unbounded, Bound::Unbounded));
        lock(self.reads()).ranges.insert((Bound::Included(first), end));
        let newest = self.state();
        let mut changes = state.changes_since(&newest);
        let mut count = 0;
        while let Some(Change { table, key, before, after }) = changes.next().await? {
            if stays(table, &key, after.is_some()) {
                continue;
            }
            count += 1;
            if let Some(row) = &before {
                for chunk in references.chunks_of(&newest, table, &key, row).await? {
                    self.release_chunk(chunk)?;
                }
            }
            if let Some(row) = &after {
                for chunk in references.chunks_of(state, table, &key, row).await? {
                    self.retain_chunk(chunk)?;
                }
            }
            match after {
                Some(row) => self.put(table, &key, &row)?,
                None => self.delete(table, &key)?,
            }
        }
        Ok(count)
    }
}
