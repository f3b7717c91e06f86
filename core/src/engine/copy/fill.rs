//! What goes into the copy: the rows that differ, and the chunks that they are the first to need.
//!
//! Chunks are fetched ahead of the rows that need them, by the workers, several at once. Memory is bounded by that, and by
//! what one transaction holds.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::fetching::{Fetched, Fetching};
use super::source::State;
use super::{Contents, Copied};
use crate::engine::difference::Change;
use crate::engine::snapshots::SnapshotInfo;
use crate::engine::transaction::Transaction;
use crate::engine::{ChunkNumber, Engine, Table};
use crate::{Error, Result};

/// Payloads fetched ahead, and rows that wait for them. A row that needs more than that gets it.
const AHEAD_BYTES_MAX: u64 = 8 << 20;
/// What one transaction holds in memory before it is committed.
const PENDING_BYTES_MAX: u64 = 2 << 20;
/// What a row that waits takes beside its bytes.
const ROW_BYTES: u64 = 256;
/// How often in a row the places of chunks and nodes are looked for anew.
const REOPENED_MAX: u32 = 8;

/// A copy on its way.
pub(super) struct Filling<'a> {
    target: Engine,
    contents: Arc<dyn Contents>,
    progress: Option<&'a mut (dyn FnMut(u64) -> bool + Send)>,
    copied: Copied,
    transaction: Transaction,
    /// Chunks that the transaction has put, and with those that are fetched for it: neither are in the target's state.
    put: Vec<u64>,
    under_way: HashSet<u64>,
    fetching: Fetching,
    waiting: VecDeque<Step>,
    waiting_bytes: u64,
}

/// A row that differs, and what it takes to bring it.
struct Step {
    change: Change,
    released: Vec<ChunkNumber>,
    retained: Vec<ChunkNumber>,
    fetched: Vec<ChunkNumber>,
    bytes: u64,
}

impl<'a> Filling<'a> {
    pub(super) fn new(
        target: &Engine,
        contents: Arc<dyn Contents>,
        progress: Option<&'a mut (dyn FnMut(u64) -> bool + Send)>,
    ) -> Self {
        Self {
            target: target.clone(),
            fetching: Fetching::new(target, contents.clone()),
            contents,
            progress,
            copied: Copied::default(),
            transaction: target.begin(),
            put: Vec::new(),
            under_way: HashSet::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Makes the target's state, which is `before` (nothing, where there is none), that of `after`.
    pub(super) async fn bring(&mut self, mut before: Option<&mut State>, after: &mut State) -> Result<()> {
        let mut last: Option<(Table, Bytes)> = None;
        let mut reopened = 0;
        'states: loop {
            let mut changes = match &before {
                Some(before) => after.snapshot.changes_since(&before.snapshot),
                None => after.snapshot.rows(),
            };
            loop {
                let planned = match changes.next().await {
                    Ok(None) => break 'states,
                    // From before it was opened again.
                    Ok(Some(change))
                        if last.as_ref().is_some_and(|(table, key)| (change.table, &change.key) <= (*table, key)) =>
                    {
                        continue;
                    }
                    Ok(Some(change)) => self.plan(before.as_deref(), after, change).await,
                    Err(error) => Err(error),
                };
                match planned {
                    Ok(step) => {
                        reopened = 0;
                        last = Some((step.change.table, step.change.key.clone()));
                        self.wait(step);
                        self.settle(AHEAD_BYTES_MAX, after).await?;
                    }
                    Err(Error::Expired) if reopened < REOPENED_MAX => {
                        reopened += 1;
                        if let Some(before) = &mut before {
                            before.reopen().await?;
                        }
                        after.reopen().await?;
                        continue 'states;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        self.settle(0, after).await?;
        self.commit().await
    }

    /// Keeps what is there under a snapshot's name, as of its time.
    pub(super) async fn keep(&mut self, info: &SnapshotInfo) -> Result<()> {
        self.target.create_snapshot_of(&info.name, Some(info.time_millis)).await.map_err(Error::in_copy)?;
        self.copied.snapshots += 1;
        // On the state that has it.
        self.transaction = self.target.begin();
        Ok(())
    }

    pub(super) fn done(self) -> Copied {
        self.copied
    }

    /// Finds out what a row needs, and begins to fetch what of it is not there.
    async fn plan(&mut self, before: Option<&State>, after: &State, change: Change) -> Result<Step> {
        let Change { table, key, .. } = &change;
        let released = match (&change.before, before) {
            (Some(row), Some(before)) => self.contents.chunks_of(&before.snapshot, *table, key, row).await?,
            _ => Vec::new(),
        };
        let retained = match &change.after {
            Some(row) => self.contents.chunks_of(&after.snapshot, *table, key, row).await?,
            None => Vec::new(),
        };
        let rows = change.before.iter().chain(&change.after).map(Bytes::len).fold(key.len(), usize::saturating_add);
        let mut bytes = ROW_BYTES + rows as u64;
        let (mut fetched, mut looked_at) = (Vec::new(), HashSet::new());
        for &number in &retained {
            if !looked_at.insert(number)
                || self.under_way.contains(&number.0)
                || self.transaction.chunk_row(number.0).await.map_err(Error::in_copy)?.is_some()
            {
                continue;
            }
            let row = after.snapshot.shared().chunk_row(after.snapshot.root(), number.0).await?;
            bytes = bytes.saturating_add(row.place.payload_bytes());
            fetched.push((number, row));
        }
        // Nothing fails from here on: what is asked for is taken.
        let fetched = fetched.into_iter().map(|(number, row)| {
            self.fetching.ask(&after.snapshot, number, row);
            number
        });
        let fetched = fetched.collect();
        Ok(Step { change, released, retained, fetched, bytes })
    }

    fn wait(&mut self, step: Step) {
        self.under_way.extend(step.fetched.iter().map(|number| number.0));
        self.waiting_bytes = self.waiting_bytes.saturating_add(step.bytes);
        self.waiting.push_back(step);
    }

    /// Brings the rows that wait for longest, until no more than so many bytes wait.
    async fn settle(&mut self, bytes_max: u64, after: &mut State) -> Result<()> {
        while self.waiting_bytes > bytes_max
            && let Some(step) = self.waiting.pop_front()
        {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(step.bytes);
            self.apply(step, after).await?;
            if self.transaction.pending_bytes() > PENDING_BYTES_MAX {
                self.commit().await?;
            }
        }
        Ok(())
    }

    async fn apply(&mut self, step: Step, after: &mut State) -> Result<()> {
        let Step { change: Change { table, key, after: row, .. }, released, retained, fetched, .. } = step;
        let mut owned = HashSet::new();
        for number in fetched {
            let Fetched { identity, payload } = match self.fetching.take(number).await {
                Err(Error::Expired) => self.fetch_again(number, after).await?,
                fetched => fetched?,
            };
            let bytes = payload.len() as u64;
            self.transaction.put_foreign_chunk(number, identity, payload).await.map_err(Error::in_copy)?;
            self.put.push(number.0);
            owned.insert(number);
            self.copied.chunks += 1;
            self.copied.chunk_bytes = self.copied.chunk_bytes.saturating_add(bytes);
            self.hear()?;
        }
        for number in released {
            self.transaction.release_chunk(number).map_err(Error::in_copy)?;
        }
        for number in retained {
            // What was put has its first reference.
            if !owned.remove(&number) {
                self.transaction.retain_chunk(number).map_err(Error::in_copy)?;
            }
        }
        self.copied.rows += 1;
        let brought = match row {
            Some(row) => {
                let row = self.contents.copied_row(&after.engine, table, &key, row)?;
                self.transaction.put(table, &key, &row)
            }
            None => self.transaction.delete(table, &key),
        };
        brought.map_err(Error::in_copy)
    }

    /// The chunk has moved since it was looked for.
    async fn fetch_again(&self, number: ChunkNumber, after: &mut State) -> Result<Fetched> {
        let mut reopened = 0;
        loop {
            reopened += 1;
            after.reopen().await?;
            let snapshot = after.snapshot.clone();
            let row = snapshot.shared().chunk_row(snapshot.root(), number.0).await;
            let fetched = match row {
                Ok(row) => self.fetching.again(&snapshot, row).await,
                Err(error) => Err(error),
            };
            match fetched {
                Err(Error::Expired) if reopened < REOPENED_MAX => {}
                fetched => return fetched,
            }
        }
    }

    async fn commit(&mut self) -> Result<()> {
        let filled = std::mem::replace(&mut self.transaction, self.target.begin());
        filled.commit().await.map_err(Error::in_copy)?;
        // On the state that has it.
        self.transaction = self.target.begin();
        for number in self.put.drain(..) {
            self.under_way.remove(&number);
        }
        self.hear()
    }

    fn hear(&mut self) -> Result<()> {
        let goes_on = self.progress.as_mut().is_none_or(|progress| progress(self.copied.chunk_bytes));
        if goes_on { Ok(()) } else { Err(Error::Stopped) }
    }
}
