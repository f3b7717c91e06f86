//! Defragmentation: the live records of sparse blocks move into full ones, so that the sparse ones die.
//!
//! Crash-safe at every step: copies belong to nobody until a commit makes them the chunks' own, and that commit condemns the
//! block they came from; which is deleted when no reader needs it any more.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::commit::{Draft, Extra, Floor, Outcome};
use super::gather::{NodeBlocks, TreeBlocks};
use super::room::is_full;
use super::root::Root;
use super::shared::Shared;
use super::transaction::{Transaction, Work};
use super::view::table_range;
use crate::block::{Geometry, WholeBlock};
use crate::format::rows::{self, ChunkRow, DataBlock, Place};
use crate::format::{Pointer, RecordKind};
use crate::tree::{Direction, MergedCursor};
use crate::{Error, Result};

/// Live bytes that one commit moves, at most, unless a single block has more.
const MOVED_BYTES_MAX: u64 = 16 << 20;
/// Blocks that one commit empties, at most.
const MOVED_BLOCKS_MAX: usize = 1024;
/// Pieces of a chunk beyond which it is written anew as a whole rather than moved piece by piece.
const PIECES_MAX: usize = 12;
/// By how much the fill of blocks is told apart.
const STEPS: usize = 256;

/// How the blocks of one kind are filled.
#[derive(Clone, Debug)]
pub(crate) struct Fill {
    capacity_bytes: u64,
    blocks: [u64; STEPS],
    live_bytes: [u64; STEPS],
}

impl Fill {
    pub(super) fn new(geometry: Geometry) -> Self {
        let capacity_bytes = u64::from(geometry.block_bytes()) - Geometry::BLOCK_OVERHEAD_BYTES as u64;
        Self { capacity_bytes, blocks: [0; STEPS], live_bytes: [0; STEPS] }
    }

    /// Live bytes that a block has room for.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    pub(super) fn step(&self, live_bytes: u64) -> usize {
        let step = u128::from(live_bytes) * STEPS as u128 / u128::from(self.capacity_bytes);
        usize::try_from(step).unwrap_or(STEPS).min(STEPS - 1)
    }

    pub(super) fn add(&mut self, live_bytes: u64) {
        let step = self.step(live_bytes);
        if let (Some(blocks), Some(bytes)) = (self.blocks.get_mut(step), self.live_bytes.get_mut(step)) {
            *blocks += 1;
            *bytes += live_bytes;
        }
    }

    /// How many blocks would hold so much, when packed as tightly as `loss` allows, in thousandths of a block.
    pub(super) fn packed(&self, live_bytes: u64, loss: u64) -> u64 {
        let usable = self.capacity_bytes - self.capacity_bytes * loss / 1000;
        live_bytes.div_ceil(usable.max(1))
    }

    /// The loss of packing nodes, in thousandths of a block: one that does not fit leaves room for most of one.
    pub(super) fn node_loss(&self, geometry: Geometry) -> u64 {
        500 * geometry.node_bytes_max() as u64 / self.capacity_bytes + 1
    }

    /// How many blocks fewer packing would make of them.
    pub(super) fn saved(&self, loss: u64) -> u64 {
        self.blocks().saturating_sub(self.packed(self.live(), loss))
    }

    fn blocks(&self) -> u64 {
        self.blocks.iter().sum()
    }

    fn live(&self) -> u64 {
        self.live_bytes.iter().sum()
    }

    /// The step below which blocks are to be emptied, so that no more than `slack` thousandths too many are left; 0 where
    /// that is so already.
    pub(super) fn threshold(&self, slack: u64, loss: u64) -> usize {
        let ideal = self.packed(self.live(), loss);
        let allowed = ideal + ideal * slack / 1000 + 1;
        let (mut emptied, mut moved) = (0, 0);
        for step in 0..STEPS {
            if self.blocks() - emptied + self.packed(moved, loss) <= allowed {
                return step;
            }
            emptied += self.blocks.get(step).copied().unwrap_or(0);
            moved += self.live_bytes.get(step).copied().unwrap_or(0);
        }
        // Only all of them together would do: worth it where it saves a block.
        if self.packed(self.live(), loss) + 1 < self.blocks() { STEPS } else { 0 }
    }
}

/// What there is to gain.
pub(crate) struct Plan {
    /// Data blocks filled below this step are emptied.
    threshold: usize,
    fill: Fill,
    nodes: NodeBlocks,
    /// Whether the trees are written anew.
    pub(crate) rebuild: bool,
}

/// Thousandths of a block that packing loses: pieces of less than two hundredths are not cut.
pub(super) const DATA_LOSS: u64 = 20;

/// What emptying blocks came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Emptied {
    /// Bytes of live payloads that were moved.
    pub(crate) bytes: u64,
    /// Blocks that could not be read.
    pub(crate) damaged: u64,
}

impl Emptied {
    fn add(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.damaged += more.damaged;
    }
}

impl Shared {
    /// Looks at how all blocks are filled.
    pub(crate) async fn plan(self: &Arc<Self>, thorough: bool) -> Result<Plan> {
        let (root, _pin) = self.pin();
        let geometry = self.context.geometry;
        let nodes = self.node_blocks(&root).await?;
        // Beside snapshots the content tree is not written anew, and nodes leave sparse blocks otherwise.
        let is_kept = self.newest_snapshot(&root, &Draft::default()).await? > 0;
        let written: &[&TreeBlocks] = if is_kept { &[&nodes.space] } else { &[&nodes.content, &nodes.space] };
        let mut live_bytes: HashMap<DataBlock, u64> = HashMap::new();
        for (block, live) in written.iter().flat_map(|tree| &tree.live_bytes) {
            // Blocks with nodes that a removed snapshot has still are none that writing the trees anew would empty.
            if !nodes.parked.contains(block) {
                *live_bytes.entry(*block).or_default() += live;
            }
        }
        let mut metadata = Fill::new(geometry);
        live_bytes.values().for_each(|live| metadata.add(*live));
        let mut fill = Fill::new(geometry);
        let mut after = None;
        loop {
            let page = self.usage_page(&root, after).await?;
            after = page.last().map(|(block, _)| *block);
            if page.is_empty() {
                break;
            }
            page.into_iter().filter(|(block, _)| !nodes.hold(block)).for_each(|(_, live)| fill.add(live));
        }
        let slack = if thorough { 0 } else { 10 };
        let node_bytes_max = geometry.node_bytes_max() as u64;
        let count: u64 = written.iter().map(|tree| tree.nodes).sum();
        let node_bytes: u64 = written.iter().map(|tree| tree.node_bytes).sum();
        let is_loose = count > 8 && node_bytes * 100 < count * node_bytes_max * 80;
        let is_sparse = metadata.threshold(slack * 5, metadata.node_loss(geometry)) > 0;
        Ok(Plan {
            threshold: fill.threshold(slack, DATA_LOSS),
            rebuild: is_loose || (is_sparse && !is_kept),
            fill,
            nodes,
        })
    }

    /// Some usage rows after a block: block and live bytes.
    pub(super) async fn usage_page(&self, root: &Root, after: Option<DataBlock>) -> Result<Vec<(DataBlock, u64)>> {
        const PAGE: usize = 4096;
        let (mut start, end) = table_range(rows::USAGE, (Bound::Unbounded, Bound::Unbounded));
        if let Some(after) = after {
            start = Bound::Excluded(rows::usage_key(after));
        }
        let overlay = root.space.overlay.clone();
        let mut cursor =
            MergedCursor::new(self.nodes.clone(), root.space.tree, overlay, (start, end), Direction::Ascending);
        let mut page = Vec::new();
        while page.len() < PAGE {
            let Some((key, value)) = cursor.next().await? else { break };
            let damaged = |error: crate::format::FormatError| Error::damaged("usage row", None, error.to_string());
            page.push((rows::decode_block_key(&key).map_err(damaged)?, rows::decode_count(&value).map_err(damaged)?));
        }
        Ok(page)
    }

    /// Empties the blocks that the plan says, batch by batch, as long as `progress` says so, which hears how many bytes were
    /// moved.
    pub(crate) async fn defragment(
        self: &Arc<Self>,
        plan: &Plan,
        mut progress: impl FnMut(u64) -> bool + Send,
    ) -> Result<Emptied> {
        let (mut moved, mut after) = (Emptied::default(), None);
        if plan.threshold == 0 {
            return Ok(moved);
        }
        // What is put from here on is not followed: others may put more all the time.
        let own = self.hold_epoch().await?;
        let end = self.blocks.writer.oldest_open().unwrap_or_default();
        let is_new = |block: &DataBlock| block.writer_epoch > own || (block.writer_epoch, block.counter) >= end;
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        loop {
            let page = {
                let (root, _pin) = self.pin();
                self.usage_page(&root, after).await?
            };
            let is_last = page.is_empty();
            after = page.last().map(|(block, _)| *block);
            for (block, live) in page {
                if plan.fill.step(live) >= plan.threshold || plan.nodes.hold(&block) || is_new(&block) {
                    continue;
                }
                batch.push(block);
                batch_bytes += live;
                if batch_bytes >= MOVED_BYTES_MAX || batch.len() >= MOVED_BLOCKS_MAX {
                    moved.add(self.empty_as_room_allows(&std::mem::take(&mut batch)).await?);
                    batch_bytes = 0;
                    if !progress(moved.bytes) {
                        return Ok(moved);
                    }
                }
            }
            if is_last {
                moved.add(self.empty_as_room_allows(&batch).await?);
                progress(moved.bytes);
                return Ok(moved);
            }
        }
    }

    /// As [`Shared::empty`]; where storage is too full for all of them at once, one after the other, as far as that goes.
    async fn empty_as_room_allows(self: &Arc<Self>, blocks: &[DataBlock]) -> Result<Emptied> {
        match self.empty(blocks).await {
            Err(error) if is_full(&error) => {}
            done => return done,
        }
        let mut moved = Emptied::default();
        for block in blocks {
            let mut leader = self.leader.lock().await;
            self.settle(&mut leader).await?;
            self.give_back_aborted().await?;
            drop(leader);
            match self.empty(&[*block]).await {
                Err(error) if is_full(&error) => break,
                done => moved.add(done?),
            }
        }
        Ok(moved)
    }

    /// Moves what lives in some data blocks elsewhere, in one commit. Blocks of tree nodes, and those that open
    /// transactions may have records in, are left alone, and so is what cannot be read: `check` tells of it.
    async fn empty(self: &Arc<Self>, blocks: &[DataBlock]) -> Result<Emptied> {
        for _ in 0..self.tuning.attempts_max {
            let sequence = self.root().sequence;
            match self.try_to_empty(blocks).await {
                Err(Error::Conflict) => self.catch_up_as_writer().await?,
                // Others may have emptied and deleted them.
                Err(error @ (Error::Missing { .. } | Error::Expired)) => {
                    let _leader = self.leader.lock().await;
                    self.move_on(error, sequence).await?;
                }
                done => return done,
            }
        }
        Err(Error::Conflict)
    }

    pub(super) async fn catch_up_as_writer(&self) -> Result<()> {
        let _leader = self.leader.lock().await;
        self.catch_up(true).await
    }

    async fn try_to_empty(self: &Arc<Self>, blocks: &[DataBlock]) -> Result<Emptied> {
        let mut transaction = Transaction::new(self);
        let blocks = self.movable(&transaction, blocks).await?;
        let mut moved = Emptied::default();
        if blocks.is_empty() {
            return Ok(moved);
        }
        let at_once = self.env().parallelism().max(1) * 2;
        let reader = self.blocks.reader.clone();
        let mut sources = stream::iter(blocks.iter().copied())
            .map(|block| {
                let (reader, name) = (reader.clone(), self.block_name(block));
                self.env().spawn(async move { reader.read_whole(name).await })
            })
            .buffered(at_once);
        let mut moving: BTreeMap<u64, Moving> = BTreeMap::new();
        while let Some(source) = sources.next().await {
            let source = match source.ok_or(Error::WorkerLost)? {
                Ok(source) => source,
                Err(error) => match self.explain(error, transaction.began_at()).await {
                    error @ Error::Damaged(_) => {
                        tracing::warn!(%error, "a damaged block is not emptied");
                        moved.damaged += 1;
                        continue;
                    }
                    error => return Err(error),
                },
            };
            moved.bytes += self.copy_live(&mut transaction, &mut moving, &source, &blocks).await?;
        }
        drop(sources);
        if moving.is_empty() {
            return Ok(moved);
        }
        self.finish_moves(&mut transaction, moving).await?;
        self.commit_moves(transaction.into_work()).await?;
        Ok(moved)
    }

    /// Those of some data blocks that nobody can still come to write or name records in.
    pub(super) async fn movable(
        self: &Arc<Self>,
        transaction: &Transaction,
        blocks: &[DataBlock],
    ) -> Result<BTreeSet<DataBlock>> {
        let epoch = self.hold_epoch().await?;
        // Not what the moves are judged by: of an epoch that has ended nothing is committed any more, and others come and are
        // refreshed all the time.
        let open = self.open_epochs(&Transaction::new(self)).await?;
        let may_move = |block: &DataBlock| match block.writer_epoch {
            own if own == epoch => self.is_settled(*block),
            other => !open.contains_key(&other),
        };
        let mut candidates: BTreeSet<DataBlock> = blocks.iter().copied().filter(may_move).collect();
        let mut blocks = BTreeSet::new();
        while let Some(block) = candidates.pop_first() {
            if transaction.has_row(&rows::usage_key(block)).await? {
                blocks.insert(block);
            }
        }
        Ok(blocks)
    }

    /// Gives the chunks their new places; one that would be in too many pieces is written once more as a whole, or stays where it
    /// is, if it cannot be read.
    pub(super) async fn finish_moves(
        &self,
        transaction: &mut Transaction,
        moving: BTreeMap<u64, Moving>,
    ) -> Result<()> {
        let pieces_max = self.pieces_max();
        for (number, chunk) in moving {
            let (from, to) = chunk.finish();
            let to = if to.len() <= pieces_max {
                to
            } else {
                let payload = match self.records_payload(&from).await {
                    Ok(payload) => payload,
                    Err(error) => match self.explain(error, transaction.began_at()).await {
                        Error::Damaged(_) => continue,
                        error => return Err(error),
                    },
                };
                transaction.copy_record(number, &payload).await?
            };
            transaction.move_chunk(number, from, to);
        }
        Ok(())
    }

    /// Copies the live records of a block; answers how many bytes.
    pub(super) async fn copy_live(
        &self,
        transaction: &mut Transaction,
        moving: &mut BTreeMap<u64, Moving>,
        source: &WholeBlock,
        blocks: &BTreeSet<DataBlock>,
    ) -> Result<u64> {
        let mut copied = 0;
        for (entry, payload) in &source.records {
            if entry.kind != RecordKind::ChunkData {
                continue;
            }
            let number = entry.id;
            let chunk = match moving.entry(number) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => match transaction.chunk_row(number).await? {
                    Some(ChunkRow { place: Place::Records(from), .. }) => {
                        unknown.insert(Moving { to: vec![None; from.len()], from })
                    }
                    _ => continue,
                },
            };
            let is_here = |pointer: &Pointer| {
                pointer.index == entry.index
                    && pointer.salt == source.salt
                    && source.id == Some(pointer.block_id())
                    && blocks.contains(&DataBlock::of(pointer))
            };
            let Some(piece) = chunk.from.iter().position(is_here) else {
                if chunk.to.iter().all(Option::is_none) {
                    moving.remove(&number);
                }
                continue;
            };
            let pointers = transaction.copy_record(number, payload).await?;
            if let Some(place) = chunk.to.get_mut(piece) {
                *place = Some(pointers);
            }
            copied += payload.len() as u64;
        }
        Ok(copied)
    }

    /// As many pieces as a chunk's row has room for.
    fn pieces_max(&self) -> usize {
        let geometry = self.context.geometry;
        // In small blocks the longest chunk is in more by itself; each piece that moves may be cut once.
        let whole = geometry.chunk_bytes_max().div_ceil(geometry.record_capacity());
        PIECES_MAX.max(2 * whole).min(geometry.pieces_max())
    }

    async fn commit_moves(self: &Arc<Self>, work: Work) -> Result<()> {
        let mut leader = self.leader.lock().await;
        self.settle(&mut leader).await?;
        if let Some(appending) = &work.appending {
            self.flush_blocks(appending.since).await?;
        }
        loop {
            let guard = self.try_alone().await?;
            let base = self.root();
            let sequence = base.sequence;
            let mut draft = Draft::default();
            let floor = if guard.is_some() { Floor::Alone } else { Floor::Grace };
            let attempt = async {
                self.admit(&base, &work, &mut draft).await?;
                for key in self.delete_condemned(&base, guard.is_some()).await? {
                    draft.rows.insert(key, None);
                }
                self.publish(&mut leader, base.clone(), draft, Extra { floor, ..Extra::default() }).await
            };
            match attempt.await {
                Ok(Outcome::Published(_)) => break,
                Ok(Outcome::Lost) => {}
                Err(error) => self.move_on(error, sequence).await?,
            }
        }
        drop(work);
        if self.checkpoint_due() {
            self.checkpoint(&mut leader, super::checkpoint::Trees::Change).await?;
        }
        Ok(())
    }
}

/// A chunk on its way: where its pieces are, and where those go that move.
pub(super) struct Moving {
    from: Vec<Pointer>,
    to: Vec<Option<Vec<Pointer>>>,
}

impl Moving {
    fn finish(self) -> (Vec<Pointer>, Vec<Pointer>) {
        let to = self.from.iter().zip(self.to).flat_map(|(from, to)| to.unwrap_or_else(|| vec![*from])).collect();
        (self.from, to)
    }
}
