//! Moving what lives in some blocks: copied and made durable without the lead, then committed in steps of a stated size.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::task::Worker;
use crate::engine::checkpoint::Trees;
use crate::engine::commit::{Draft, Extra, Leader, Outcome};
use crate::engine::defragment::Moving;
use crate::engine::reads::ReadSet;
use crate::engine::shared::{Shared, lock};
use crate::engine::transaction::{Op, Transaction, Work};
use crate::format::rows::DataBlock;
use crate::format::{BlockClass, SEAL_BYTES};
use crate::storage::ErrorKind;
use crate::{Error, Result};

/// How often a batch is begun anew because others were in the way.
const ATTEMPTS_MAX: u32 = 4;

impl Shared {
    pub(super) fn block_bytes(&self) -> u64 {
        u64::from(self.context.geometry.block_bytes())
    }

    /// Moves what lives in some data blocks elsewhere. Blocks of tree nodes, and those that open transactions may have
    /// records in, are left alone.
    pub(super) async fn move_batch(self: &Arc<Self>, blocks: &[DataBlock], worker: &mut Worker) -> Result<()> {
        let mut attempts_left = ATTEMPTS_MAX;
        loop {
            let sequence = self.root().sequence;
            let error = match self.try_to_move(blocks, worker).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // What is missing is damage, or others have emptied and deleted it.
            let again = match self.explain(error, sequence).await {
                Error::Conflict if attempts_left > 1 => {
                    attempts_left -= 1;
                    self.catch_up_as_writer().await
                }
                error @ Error::Expired if attempts_left > 1 => {
                    attempts_left -= 1;
                    let _leader = self.leader.lock().await;
                    self.move_on(error, sequence).await
                }
                error => Err(error),
            };
            match (again, worker.reading.take()) {
                (Ok(()), _) => {}
                (Err(error @ Error::Damaged(_)), Some(block)) => {
                    // For `check` to report; the others still move.
                    worker.skipped.insert(block);
                    worker.has_met_damage = true;
                    worker.control.failed(error);
                }
                (Err(error), _) => {
                    if error.storage_kind() == Some(ErrorKind::Full) {
                        // What was copied in vain takes room that others need.
                        let mut leader = self.leader.lock().await;
                        self.settle(&mut leader).await?;
                        self.give_back_aborted().await?;
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn try_to_move(self: &Arc<Self>, blocks: &[DataBlock], worker: &mut Worker) -> Result<()> {
        let mut transaction = Transaction::new(self);
        let mut blocks = self.movable(&transaction, blocks).await?;
        blocks.retain(|block| !worker.skipped.contains(block));
        let mut moving: BTreeMap<u64, Moving> = BTreeMap::new();
        for block in &blocks {
            if !worker.control.is_running() {
                break;
            }
            worker.reading = Some(*block);
            let (reader, name) = (self.blocks.reader.clone(), self.block_name(*block));
            let source = self.env().spawn(async move { reader.read_whole(name).await });
            let source = source.await.ok_or(Error::WorkerLost)??;
            worker.reading = None;
            let mut bytes = self.block_bytes();
            if source.class == BlockClass::Data {
                bytes += self.copy_live(&mut transaction, &mut moving, &source, &blocks).await?;
            } else {
                worker.skipped.insert(*block);
            }
            drop(source);
            worker.pace(self.env(), bytes).await;
        }
        self.finish_moves(&mut transaction, moving).await?;
        let work = transaction.into_work();
        let Some(appending) = work.appending.clone() else { return Ok(()) };
        // Durable before the lead is asked for: who leads waits for nothing but the commit itself.
        if let Err(error) = self.flush_blocks(appending.since).await {
            let _ = self.blocks.writer.take_failure_since(appending.since);
            return Err(error);
        }
        let step_chunks = worker.options.step_chunks as usize;
        let mut ops = work.ops.into_iter();
        loop {
            let step: BTreeMap<_, _> = ops.by_ref().take(step_chunks).collect();
            if step.is_empty() {
                return Ok(());
            }
            let bytes = step.values().map(moved_bytes).sum::<u64>();
            let step = Work {
                base: work.base,
                epoch: work.epoch,
                ops: step,
                reads: ReadSet::default(),
                has_blocks: work.has_blocks,
                urgent: false,
                appending: Some(appending.clone()),
                kept: Vec::new(),
            };
            self.commit_step(step, worker).await?;
            worker.control.update(|status| status.moved_bytes += bytes);
            worker.pace(self.env(), self.block_bytes()).await;
        }
    }

    /// The lead, after a commit for those who wait. A checkpoint that is due then is left for later: who comes meanwhile waits
    /// for one thing only.
    async fn lead_after_others(self: &Arc<Self>) -> async_lock::MutexGuard<'_, Leader> {
        let mut leader = self.leader.lock().await;
        if !lock(&self.queue).is_empty() || !leader.is_idle() {
            self.answer_waiting(&mut leader).await;
        }
        leader
    }

    /// One commit, in which nothing is written but rows.
    async fn commit_step(self: &Arc<Self>, work: Work, worker: &mut Worker) -> Result<()> {
        for _ in 0..self.tuning.attempts_max {
            // Asked for anew each time: others go first.
            let mut leader = self.lead_after_others().await;
            self.settle(&mut leader).await?;
            let base = self.root();
            let sequence = base.sequence;
            let mut draft = Draft::default();
            let deleted: BTreeSet<_> = worker.deleted_rows.iter().take(work.ops.len()).cloned().collect();
            let attempt = async {
                self.check_writable()?;
                self.admit(&base, &work, &mut draft).await?;
                draft.rows.extend(deleted.iter().map(|row| (row.clone(), None)));
                self.publish(&mut leader, base.clone(), draft, Extra::default()).await
            };
            match attempt.await {
                Ok(Outcome::Published(_)) => {
                    drop(leader);
                    drop(work);
                    worker.deleted_rows.retain(|row| !deleted.contains(row));
                    return self.checkpoint_after_others().await;
                }
                Ok(Outcome::Lost) => {}
                Err(error) => self.move_on(error, sequence).await?,
            }
        }
        Err(Error::Conflict)
    }

    async fn checkpoint_after_others(self: &Arc<Self>) -> Result<()> {
        if !self.checkpoint_due() {
            return Ok(());
        }
        let mut leader = self.lead_after_others().await;
        if self.checkpoint_due() {
            self.checkpoint(&mut leader, Trees::Change).await?;
        }
        Ok(())
    }
}

/// Bytes of payload that get another place.
fn moved_bytes(op: &Op) -> u64 {
    let Op::Move { from, to } = op else { return 0 };
    let moved = to.iter().filter(|pointer| !from.contains(pointer));
    moved.map(|pointer| u64::from(pointer.length).saturating_sub(SEAL_BYTES as u64)).sum()
}
