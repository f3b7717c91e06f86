//! The task of a defragmenter: when it looks, what it chooses, how it keeps to its budget.

use std::collections::{BTreeSet, HashSet};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};

use super::control::Control;
use super::{DefragmentOptions, DefragmentState};
use crate::engine::defragment::{DATA_LOSS, Fill};
use crate::engine::shared::Shared;
use crate::env::{BoxTask, Env};
use crate::format::rows::DataBlock;
use crate::{Error, Result};

/// How long it rests after an error, at first; each time in a row it is four times as long.
const REST_MIN: Duration = Duration::from_secs(1);
/// How long it rests after an error, at most.
const REST_MAX: Duration = Duration::from_secs(60 * 60);
/// Blocks that are emptied together, at least as far as their bytes go: what is written fills as many, less one.
const BATCH_BLOCKS_MIN: u64 = 8;
/// Blocks that are emptied together, at most.
const BATCH_BLOCKS_MAX: usize = 256;
/// Bytes of blocks that are read for one batch, unless it is [`BATCH_BLOCKS_MIN`] of them: a state is pinned meanwhile.
const BATCH_READ_MAX: u64 = 64 << 20;
/// Condemned blocks that are deleted at once, by proof that nobody else is there.
const DELETED_AT_ONCE_MAX: usize = 64;
/// About what a usage row takes in a node, in bytes.
const USAGE_ROW_BYTES: u64 = 32;

/// How all blocks are filled that something lives in.
pub(super) struct Look {
    /// Those that may be emptied.
    fill: Fill,
    stored_bytes: u64,
    garbage_bytes: u64,
}

/// What the task knows from one time to the next.
pub(super) struct Worker {
    pub(super) control: Arc<Control>,
    pub(super) options: DefragmentOptions,
    /// Blocks that it cannot empty: they hold nodes of trees, or are damaged.
    pub(super) skipped: HashSet<DataBlock>,
    /// Whether one of them was damaged, since it last began to look.
    pub(super) has_met_damage: bool,
    /// The block that is being read, so that it is known which one was damaged.
    pub(super) reading: Option<DataBlock>,
    /// Rows of blocks that are deleted already: the next commit takes them out.
    pub(super) deleted_rows: BTreeSet<Bytes>,
    /// Whether there may be blocks that wait until readers of older states have had their time.
    is_waiting: bool,
    /// Since when it has worked without a rest.
    since_nanos: u64,
}

pub(super) async fn run(control: Arc<Control>, engine: Weak<Shared>, options: DefragmentOptions, delay: BoxTask) {
    control.sleep(delay).await;
    let mut worker = Worker {
        control: control.clone(),
        options,
        skipped: HashSet::new(),
        has_met_damage: false,
        reading: None,
        deleted_rows: BTreeSet::new(),
        is_waiting: false,
        since_nanos: 0,
    };
    let mut rest = REST_MIN;
    let mut grace: Option<BoxTask> = None;
    loop {
        let is_due = match grace.take() {
            None => {
                control.until_due().await;
                true
            }
            Some(sleep) => match select(pin!(control.until_due()), sleep).await {
                Either::Left(_) => true,
                Either::Right(_) => {
                    control.until_running().await;
                    false
                }
            },
        };
        if control.is_stopped() {
            break;
        }
        // Nothing of the engine is kept while it waits.
        let Some(shared) = engine.upgrade() else { break };
        // Waiting was no work.
        worker.since_nanos = shared.env().monotonic_nanos();
        let done = if is_due { worker.attend(&shared).await } else { worker.give_back(&shared).await };
        control.update(|status| status.state = DefragmentState::Watching);
        match done {
            Ok(()) => {
                rest = REST_MIN;
                let millis = shared.tuning.reader_grace_millis;
                grace = worker.is_waiting.then(|| shared.env().sleep(Duration::from_millis(millis)));
            }
            Err(Error::Closed | Error::ReadOnly) => break,
            Err(error) => {
                let sleep = shared.env().sleep(rest);
                drop(shared);
                control.rest(error, sleep).await;
                rest = REST_MAX.min(rest.saturating_mul(4));
            }
        }
    }
    control.update(|status| status.state = DefragmentState::Ended);
}

impl Worker {
    /// Looks, and works until the goal is reached or no closer.
    async fn attend(&mut self, shared: &Arc<Shared>) -> Result<()> {
        self.control.update(|status| status.state = DefragmentState::Working);
        self.has_met_damage = false;
        shared.check_writable()?;
        // Others commit, too.
        shared.catch_up_as_writer().await?;
        let mut before: Option<u64> = None;
        loop {
            let loosened = shared.loosened.load(Ordering::Acquire);
            let Some(look) = self.look(shared).await? else { return Ok(()) };
            let Look { stored_bytes, garbage_bytes, .. } = look;
            self.control.update(|status| {
                status.stored_bytes = stored_bytes;
                status.garbage_bytes = garbage_bytes;
            });
            let percent_of_stored = |percent: u8| stored_bytes / 100 * u64::from(percent);
            let (is_worth, has_stalled) = match before {
                None => {
                    let least = self.options.garbage_bytes_min.max(1);
                    (garbage_bytes >= percent_of_stored(self.options.start_percent).max(least), false)
                }
                Some(before) => (
                    garbage_bytes > percent_of_stored(self.options.stop_percent),
                    // What is left is in blocks that others hold, or of tree nodes.
                    garbage_bytes > before - before / 8,
                ),
            };
            if !is_worth || has_stalled {
                let enough = percent_of_stored(self.options.start_percent).max(self.options.garbage_bytes_min);
                let least = if before.is_some() { self.options.garbage_bytes_min } else { 0 };
                let missing = enough.saturating_sub(garbage_bytes).max(least).max(shared.block_bytes());
                self.control.rest_until(loosened.saturating_add(missing));
                if !self.has_met_damage {
                    self.control.update(|status| status.last_error = None);
                }
                return Ok(());
            }
            before = Some(garbage_bytes);
            self.give_back(shared).await?;
            self.round(shared, &look).await?;
            if !self.control.is_running() {
                return Ok(());
            }
        }
    }

    /// Looks at all usage rows, page by page; `None` where it is not to go on.
    async fn look(&mut self, shared: &Arc<Shared>) -> Result<Option<Look>> {
        let geometry = shared.context.geometry;
        let (mut fill, mut after) = (Fill::new(geometry), None);
        let (mut blocks, mut live_bytes) = (0_u64, 0_u64);
        loop {
            let page = {
                let (root, _pin) = shared.pin();
                shared.usage_page(&root, after).await?
            };
            after = page.last().map(|(block, _)| *block);
            let rows = page.len() as u64;
            for (block, live) in page {
                blocks += 1;
                live_bytes = live_bytes.saturating_add(live);
                if !self.skipped.contains(&block) {
                    fill.add(live);
                }
            }
            if rows == 0 {
                break;
            }
            self.pace(shared.env(), rows * USAGE_ROW_BYTES).await;
            if !self.control.is_running() {
                return Ok(None);
            }
        }
        let stored_bytes = blocks.saturating_mul(fill.capacity_bytes());
        Ok(Some(Look { fill, stored_bytes, garbage_bytes: stored_bytes.saturating_sub(live_bytes) }))
    }

    /// Empties the sparsest blocks, batch by batch, as many as it takes to come down to the goal.
    async fn round(&mut self, shared: &Arc<Shared>, look: &Look) -> Result<()> {
        // Half of what may be left: what is written has a block that is not full in each batch.
        let garbage = u64::from(self.options.stop_percent) * 5;
        let threshold = look.fill.threshold(garbage * 1000 / (1000 - garbage), DATA_LOSS);
        if threshold == 0 {
            return Ok(());
        }
        // What is put from here on is not followed.
        let own = shared.hold_epoch().await?;
        let end = shared.blocks.writer.oldest_open().unwrap_or_default();
        let is_new = |block: &DataBlock| block.writer_epoch > own || (block.writer_epoch, block.counter) >= end;
        let block_bytes = shared.block_bytes();
        let live_max = self.options.batch_bytes.max(BATCH_BLOCKS_MIN * block_bytes);
        let blocks_max = usize::try_from(BATCH_READ_MAX / block_bytes).unwrap_or(usize::MAX);
        let blocks_max = blocks_max.clamp(2 * BATCH_BLOCKS_MIN as usize, BATCH_BLOCKS_MAX);
        let (mut batch, mut batch_bytes, mut after) = (Vec::new(), 0, None);
        loop {
            let page = {
                let (root, _pin) = shared.pin();
                shared.usage_page(&root, after).await?
            };
            let is_last = page.is_empty();
            after = page.last().map(|(block, _)| *block);
            for (block, live) in page {
                if look.fill.step(live) >= threshold || self.skipped.contains(&block) || is_new(&block) {
                    continue;
                }
                batch.push(block);
                batch_bytes += live;
                if batch_bytes >= live_max || batch.len() >= blocks_max {
                    shared.move_batch(&std::mem::take(&mut batch), self).await?;
                    batch_bytes = 0;
                    self.give_back(shared).await?;
                }
                if !self.control.is_running() {
                    return Ok(());
                }
            }
            if is_last {
                shared.move_batch(&batch, self).await?;
                return self.give_back(shared).await;
            }
        }
    }

    /// Deletes some of what is condemned and nobody needs any more. That takes no commit, and not the lead.
    async fn give_back(&mut self, shared: &Arc<Shared>) -> Result<()> {
        loop {
            let guard = shared.try_alone().await?;
            let root = shared.root();
            let rows =
                shared.delete_condemned_some(&root, guard.is_some(), &self.deleted_rows, DELETED_AT_ONCE_MAX).await?;
            drop(guard);
            let deleted = rows.len();
            self.deleted_rows.extend(rows);
            // Who has taken them out meanwhile, we or others, has them in no later state.
            let root = shared.root();
            let mut kept = BTreeSet::new();
            for row in std::mem::take(&mut self.deleted_rows) {
                if root.get(&shared.nodes, &row).await?.is_some() {
                    kept.insert(row);
                }
            }
            self.deleted_rows = kept;
            self.control.update(|status| status.given_back_blocks += deleted as u64);
            self.is_waiting = shared.has_condemned_beside(&root, &self.deleted_rows).await?;
            if deleted < DELETED_AT_ONCE_MAX {
                return Ok(());
            }
            self.pace(shared.env(), 0).await;
            if !self.control.is_running() {
                return Ok(());
            }
        }
    }

    /// Rests as long as the budget says after so many bytes.
    pub(super) async fn pace(&mut self, env: &Env, bytes: u64) {
        let worked = env.monotonic_nanos().saturating_sub(self.since_nanos);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.options.bytes_per_second.max(1));
        let for_io = u64::try_from(nanos).unwrap_or(u64::MAX).saturating_sub(worked);
        let busy = u64::from(self.options.busy_percent.clamp(1, 100));
        let for_time = worked.saturating_mul(100 - busy) / busy;
        let rest = Duration::from_nanos(for_io.max(for_time));
        self.control.update(|status| status.transferred_bytes += bytes);
        if !rest.is_zero() {
            self.control.nap(env.sleep(rest)).await;
        }
        self.since_nanos = env.monotonic_nanos();
    }
}
