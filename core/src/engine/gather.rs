//! Gathering: tree nodes out of sparse blocks into full ones, those that snapshots have included.
//!
//! Nodes move as chunks do, as they are: only who leads to one names another place. So a node is copied with its birth, every
//! node above it is copied too, in the newest content and in each snapshot's, and the roots, the rows of snapshots and the rows
//! of parked nodes name the copies from one commit on. What trees share they share afterwards, since all of them are gone
//! through at once. The commit is a checkpoint, as the newest roots change, and it condemns the blocks that it empties: who
//! reads an older state finds them as long as that is readable.
//!
//! One commit moves a bounded number of nodes; each leaves the repository whole, and with fewer blocks of nodes than before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::checkpoint::{Beside, Trees, count};
use super::commit::Draft;
use super::defragment::Fill;
use super::root::Root;
use super::shared::Shared;
use super::snapshots::damaged;
use super::view::table_range;
use crate::format::rows::{self, DataBlock, SnapshotRow};
use crate::format::{Pointer, SEAL_BYTES};
use crate::storage::ErrorKind;
use crate::tree::{self, Direction, MergedCursor, Relocation, TreeRoot};
use crate::{Error, Result};

/// What there has to be to save, in blocks, before a compaction begins: each leaves one or two with room in them.
const SAVED_TO_BEGIN_MIN: u64 = 8;
/// What each further commit has to save, in blocks.
const SAVED_TO_GO_ON_MIN: u64 = 2;
/// How often in a row it is tried again where others commit meanwhile.
const LOST_MAX: u32 = 2;

/// The nodes of one tree, by the blocks that they are in.
#[derive(Default)]
pub(super) struct TreeBlocks {
    pub(super) live_bytes: HashMap<DataBlock, u64>,
    pub(super) nodes: u64,
    /// How long the nodes are together.
    pub(super) node_bytes: u64,
}

impl TreeBlocks {
    fn add(&mut self, pointer: &Pointer) {
        self.nodes += 1;
        self.node_bytes += u64::from(pointer.length).saturating_sub(SEAL_BYTES as u64);
        *self.live_bytes.entry(DataBlock::of(pointer)).or_default() += rows::live_bytes(pointer);
    }
}

/// Where all nodes are.
#[derive(Default)]
pub(super) struct NodeBlocks {
    pub(super) content: TreeBlocks,
    pub(super) space: TreeBlocks,
    /// The blocks with nodes that only snapshots have.
    pub(super) parked: HashSet<DataBlock>,
}

impl NodeBlocks {
    /// Whether some node is in a block.
    pub(super) fn hold(&self, block: &DataBlock) -> bool {
        let trees = [&self.content, &self.space];
        self.parked.contains(block) || trees.iter().any(|tree| tree.live_bytes.contains_key(block))
    }
}

/// Blocks that nodes are to leave.
pub(super) struct Gathering {
    blocks: BTreeSet<DataBlock>,
    /// Whether those of the space tree move too; it may be about to be written anew.
    with_space: bool,
}

impl Gathering {
    fn relocation(&self, nodes_max: usize) -> Relocation<impl Fn(&Pointer) -> bool> {
        Relocation::new(nodes_max, |pointer| self.blocks.contains(&DataBlock::of(pointer)))
    }
}

/// The sparse blocks of nodes.
struct Sparse {
    fill: Fill,
    /// Live bytes of all blocks of nodes.
    live_bytes: HashMap<DataBlock, u64>,
    /// Those to be emptied, in the order in which they were written: what was written together is in the same trees.
    victims: Vec<DataBlock>,
}

/// The roots of the trees that may share nodes, and of the space tree.
struct Roots {
    content: Option<TreeRoot>,
    snapshots: Vec<TreeRoot>,
    space: Option<TreeRoot>,
}

impl Roots {
    fn new(
        content: Option<TreeRoot>,
        space: Option<TreeRoot>,
        snapshots: &BTreeMap<String, SnapshotRow>,
        with_space: bool,
    ) -> Self {
        let snapshots = snapshots.values().filter_map(root_of).collect();
        Self { content, snapshots, space: space.filter(|_| with_space) }
    }

    /// Those of the newest state first.
    fn all(&self) -> impl Iterator<Item = &TreeRoot> {
        self.newest().chain(&self.snapshots)
    }

    fn newest(&self) -> impl Iterator<Item = &TreeRoot> {
        self.content.iter().chain(&self.space)
    }
}

fn root_of(row: &SnapshotRow) -> Option<TreeRoot> {
    row.content.map(|(height, pointer)| TreeRoot { pointer, height })
}

impl Shared {
    /// Looks at where the nodes are; reads none of the leaves.
    pub(super) async fn node_blocks(&self, root: &Root) -> Result<NodeBlocks> {
        let mut blocks = NodeBlocks::default();
        for (side, tree) in [(&root.content, &mut blocks.content), (&root.space, &mut blocks.space)] {
            tree::walk_pointers(&self.nodes, side.tree.as_ref(), |pointer, _| tree.add(pointer)).await?;
        }
        let mut parked = self.parked_nodes(root);
        while let Some((key, _)) = parked.next().await? {
            let (_, pointer) = rows::decode_parked_node_key(&key).map_err(damaged)?;
            blocks.parked.insert(DataBlock::of(&pointer));
        }
        Ok(blocks)
    }

    /// The rows of the nodes that only snapshots have.
    fn parked_nodes(&self, root: &Root) -> MergedCursor<Arc<super::nodes::Nodes>> {
        let range = table_range(rows::PARKED_NODE, (Bound::Unbounded, Bound::Unbounded));
        let overlay = root.space.overlay.clone();
        MergedCursor::new(self.nodes.clone(), root.space.tree, overlay, range, Direction::Ascending)
    }

    /// Moves nodes out of sparse blocks, where there are snapshots: without any, the trees are written anew instead. Goes on
    /// as long as `goes_on` says so.
    ///
    /// Nodes that cannot be read stay, and with them all others: `check` tells of them.
    pub(super) async fn gather_nodes(
        self: &Arc<Self>,
        thorough: bool,
        with_space: bool,
        mut goes_on: impl FnMut() -> bool + Send,
    ) -> Result<()> {
        let (mut before, mut lost) = (usize::MAX, 0);
        loop {
            let least = if before == usize::MAX { SAVED_TO_BEGIN_MIN } else { SAVED_TO_GO_ON_MIN };
            let (gathering, blocks) = match self.choose(thorough, with_space, least, &mut goes_on).await {
                Ok(Some(chosen)) => chosen,
                Ok(None) => return Ok(()),
                Err(error) => return leave_damage(error),
            };
            // Others may write more, and sparsely, all the time.
            if blocks >= before || !goes_on() {
                return Ok(());
            }
            let _turn = self.snapshots.lock().await;
            let mut leader = self.leader.lock().await;
            let moved = self.checkpoint_beside(&mut leader, Trees::Change, Beside::Gather(&gathering)).await;
            match moved {
                Ok(true) => (before, lost) = (blocks, 0),
                Ok(false) => {
                    lost += 1;
                    if lost > LOST_MAX {
                        return Ok(());
                    }
                    drop(leader);
                    self.hold_epoch_for(true).await?;
                }
                Err(error) if error.storage_kind() == Some(ErrorKind::Full) => {
                    // What was copied in vain takes room that others need.
                    self.settle(&mut leader).await?;
                    return self.give_back_aborted().await.map(|_| ());
                }
                Err(error) => return leave_damage(error),
            }
        }
    }

    /// What one commit is to move, and in how many blocks there are nodes; `None` where it is not worth it, or not to go on.
    async fn choose(
        self: &Arc<Self>,
        thorough: bool,
        with_space: bool,
        least: u64,
        mut goes_on: impl FnMut() -> bool + Send,
    ) -> Result<Option<(Gathering, usize)>> {
        let (root, _pin) = self.pin();
        if self.newest_snapshot(&root, &Draft::default()).await? == 0 {
            return Ok(None);
        }
        let Sparse { fill, live_bytes, victims } = self.sparse(&root, thorough, with_space).await?;
        if fill.saved(fill.node_loss(self.context.geometry)) < least {
            return Ok(None);
        }
        let roots = Roots::new(root.content.tree, root.space.tree, &self.kept_at(&root).await?, with_space);
        let mut rest = victims.as_slice();
        let mut count = rest.len();
        // Each look goes through the inner nodes of all trees.
        while !rest.is_empty() && goes_on() {
            count = count.min(rest.len());
            let (some, others) = rest.split_at(count);
            let gathering = Gathering { blocks: some.iter().copied().collect(), with_space };
            match self.saved_blocks(&gathering, &roots, &live_bytes, &fill).await? {
                // Of many commits, each saves its part.
                Some(saved) if saved >= if count < victims.len() { SAVED_TO_GO_ON_MIN } else { least } => {
                    return Ok(Some((gathering, live_bytes.len())));
                }
                None if count > 1 => count /= 2,
                _ => {
                    rest = others;
                    count = count.saturating_mul(2);
                }
            }
        }
        Ok(None)
    }

    async fn sparse(&self, root: &Root, thorough: bool, with_space: bool) -> Result<Sparse> {
        let nodes = self.node_blocks(root).await?;
        let mut fill = Fill::new(self.context.geometry);
        let mut live_bytes = HashMap::new();
        let mut after = None;
        loop {
            let page = self.usage_page(root, after).await?;
            after = page.last().map(|(block, _)| *block);
            if page.is_empty() {
                break;
            }
            for (block, live) in page.into_iter().filter(|(block, _)| nodes.hold(block)) {
                let dying = nodes.space.live_bytes.get(&block).copied().filter(|_| !with_space).unwrap_or(0);
                let live = live.saturating_sub(dying);
                if live > 0 {
                    fill.add(live);
                    live_bytes.insert(block, live);
                }
            }
        }
        let loss = fill.node_loss(self.context.geometry);
        let threshold = fill.threshold(if thorough { 0 } else { 10 }, loss);
        let mut victims: Vec<DataBlock> =
            live_bytes.iter().filter(|(_, live)| fill.step(**live) < threshold).map(|(block, _)| *block).collect();
        victims.sort_by_key(|block| (block.writer_epoch, block.counter));
        Ok(Sparse { fill, live_bytes, victims })
    }

    /// How many blocks fewer there would be; `None` where more nodes would move than one commit may.
    async fn saved_blocks(
        &self,
        gathering: &Gathering,
        roots: &Roots,
        live_bytes: &HashMap<DataBlock, u64>,
        fill: &Fill,
    ) -> Result<Option<u64>> {
        let mut relocation = gathering.relocation(self.moved_nodes_max(gathering));
        for tree in roots.all() {
            if !relocation.mark(&self.nodes, Some(tree)).await? {
                return Ok(None);
            }
        }
        let (mut leaving, mut moved_bytes) = (HashMap::<DataBlock, u64>::new(), 0);
        for pointer in relocation.moving() {
            let bytes = rows::live_bytes(pointer);
            moved_bytes += bytes;
            *leaving.entry(DataBlock::of(pointer)).or_default() += bytes;
        }
        let emptied = leaving.iter().filter(|(block, bytes)| live_bytes.get(*block) == Some(*bytes)).count() as u64;
        let loss = fill.node_loss(self.context.geometry);
        Ok(Some(emptied.saturating_sub(fill.packed(moved_bytes, loss))))
    }

    /// How many nodes one commit may move. What the trees have above those of a single block has to change at once.
    fn moved_nodes_max(&self, gathering: &Gathering) -> usize {
        let nodes_max = usize::try_from(self.tuning.moved_nodes_max).unwrap_or(usize::MAX);
        if gathering.blocks.len() > 1 { nodes_max } else { usize::MAX }
    }

    /// The snapshots that are kept at a state.
    async fn kept_at(&self, root: &Root) -> Result<BTreeMap<String, SnapshotRow>> {
        let range = table_range(rows::SNAPSHOT, (Bound::Unbounded, Bound::Unbounded));
        let overlay = root.space.overlay.clone();
        let mut cursor = MergedCursor::new(self.nodes.clone(), root.space.tree, overlay, range, Direction::Ascending);
        let mut kept = BTreeMap::new();
        while let Some((key, value)) = cursor.next().await? {
            let row = SnapshotRow::decode(&value).map_err(damaged)?;
            let name = key.get(1..).and_then(|name| std::str::from_utf8(name).ok());
            let name = name.ok_or_else(|| Error::damaged("snapshot row", None, "a name not in UTF-8"))?;
            if !row.is_removed {
                kept.insert(name.to_owned(), row);
            }
        }
        Ok(kept)
    }

    /// Copies nodes elsewhere, and everything above them, for a checkpoint on `base` with these roots of content and space;
    /// they and the draft name the copies then.
    pub(super) async fn move_nodes(
        &self,
        base: &Root,
        [content, space]: [&mut Option<TreeRoot>; 2],
        gathering: &Gathering,
        draft: &mut Draft,
    ) -> Result<()> {
        let store = self.nodes.as_ref();
        let snapshots = self.kept_at(base).await?;
        let roots = Roots::new(*content, *space, &snapshots, gathering.with_space);
        // As much as was chosen, and what has been committed since.
        let mut relocation = gathering.relocation(self.moved_nodes_max(gathering).saturating_mul(2));
        for tree in roots.newest() {
            if !relocation.mark(store, Some(tree)).await? {
                return Ok(());
            }
        }
        let of_newest = relocation.moving().count();
        for tree in &roots.snapshots {
            if !relocation.mark(store, Some(tree)).await? {
                return Ok(());
            }
        }
        let parked = self.parked_among(base, draft, &relocation).await?;
        if of_newest + parked.len() != relocation.moving().count() {
            return Err(Error::damaged("parked node", None, "what snapshots alone have is not what is kept for them"));
        }
        for tree in roots.all() {
            relocation.copy_leaves(store, Some(tree)).await?;
        }
        let space = Some(space).filter(|_| gathering.with_space);
        for tree in [Some(content), space].into_iter().flatten().flatten() {
            *tree = relocation.copy_inner(store, *tree).await?;
        }
        for (name, row) in snapshots {
            let Some(root) = root_of(&row) else { continue };
            let moved = relocation.copy_inner(store, root).await?;
            if moved != root {
                let row = SnapshotRow { content: Some((moved.height, moved.pointer)), ..row };
                draft.rows.insert(rows::snapshot_key(&name), Some(row.encode().into()));
            }
        }
        for (key, death, pointer, birth) in parked {
            let Some(to) = relocation.place_of(&pointer) else { continue };
            if death > base.sequence {
                draft.rows.remove(&key);
            } else {
                draft.rows.insert(key, None);
            }
            draft.rows.insert(rows::parked_node_key(death, &to), Some(birth));
        }
        count(relocation.moved().map(|(from, _)| from), -1, draft);
        count(relocation.moved().map(|(_, to)| to), 1, draft);
        Ok(())
    }

    /// The rows of parked nodes that move, those of the draft included: key, death, place and birth.
    async fn parked_among<F: Fn(&Pointer) -> bool>(
        &self,
        base: &Root,
        draft: &Draft,
        relocation: &Relocation<F>,
    ) -> Result<Vec<(Bytes, u64, Pointer, Bytes)>> {
        let mut among = Vec::new();
        let mut take = |key: Bytes, birth: Bytes| -> Result<()> {
            let (death, pointer) = rows::decode_parked_node_key(&key).map_err(damaged)?;
            if relocation.moves(&pointer) {
                among.push((key, death, pointer, birth));
            }
            Ok(())
        };
        let mut parked = self.parked_nodes(base);
        while let Some((key, birth)) = parked.next().await? {
            take(key, birth)?;
        }
        let range = table_range(rows::PARKED_NODE, (Bound::Unbounded, Bound::Unbounded));
        for (key, birth) in draft.rows.range(range) {
            if let Some(birth) = birth {
                take(key.clone(), birth.clone())?;
            }
        }
        Ok(among)
    }
}

/// Space that cannot be saved because something is damaged is no reason not to save any.
fn leave_damage(error: Error) -> Result<()> {
    match error {
        Error::Damaged(_) | Error::Missing { .. } | Error::Expired => {
            tracing::warn!(%error, "tree nodes stay in sparse blocks; a check tells what is damaged");
            Ok(())
        }
        error => Err(error),
    }
}
