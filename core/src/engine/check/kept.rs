//! What snapshots keep: that it is all there, that it is accounted for, and that nothing is kept for nobody.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::super::snapshots::{collect, needs};
use super::super::view::Snapshot;
use super::super::{ChunkNumber, Direction, References, Table};
use super::{ALL, Check, CheckReport, Finding};
use crate::format::Pointer;
use crate::format::node::Node;
use crate::format::rows::{self, ChunkRow, SnapshotRow};
use crate::tree::{NodeStore as _, TreeRoot};
use crate::{Damage, Error, Result};

/// What is known of snapshots while the rest is looked at.
#[derive(Default)]
pub(super) struct Kept {
    /// Nodes of content trees that were met, with their births.
    pub(super) nodes: HashMap<Pointer, u64>,
    /// What they lead to, each with the birth of what leads to it.
    pub(super) edges: Vec<(Pointer, u64)>,
    /// The snapshots that are kept, ascending.
    sequences: Vec<u64>,
    /// Their names.
    names: Vec<String>,
    /// Whether some snapshot's removal is not finished: then there may be what nobody needs.
    is_removing: bool,
    /// Chunks that snapshots refer to, with the place of the oldest that does.
    needed: HashMap<ChunkNumber, usize>,
    /// Those of them that the newest content does not refer to.
    only: HashMap<ChunkNumber, usize>,
    /// Chunks that are parked, by number, with their death.
    parked: HashMap<ChunkNumber, u64>,
}

impl Kept {
    fn is_needed(&self, birth: u64, death: u64) -> bool {
        needs(&self.sequences, birth, death)
    }

    /// Says of damage to chunks that only snapshots have which snapshot is hurt: no file that is there now tells.
    pub(super) fn name_hurt(&self, report: &mut CheckReport) {
        for finding in &mut report.findings {
            let hurt: BTreeSet<usize> =
                finding.chunks.iter().filter_map(|chunk| self.only.get(chunk)).copied().collect();
            for name in hurt.into_iter().filter_map(|place| self.names.get(place)) {
                say_hurt(finding, name);
            }
        }
    }

    /// Compares a chunk's row with what is parked.
    pub(super) fn meet(&mut self, number: ChunkNumber, row: &ChunkRow, report: &mut CheckReport) {
        let is_needed = self.is_needed(row.birth, row.death);
        if let Some(place) = self.needed.remove(&number) {
            if row.references == 0 {
                self.only.insert(number, place);
            }
            // Whether it is kept for all others that have it follows.
            let is_late = self.sequences.get(place).is_none_or(|oldest| row.birth > *oldest);
            if is_late || (row.references == 0 && !is_needed) {
                find(report, format!("chunk {:#x} is in a snapshot, and not kept for it", number.0), Some(number));
            }
        }
        match (row.references, self.parked.remove(&number)) {
            (0, Some(death)) if death == row.death => {
                if !is_needed && !self.is_removing {
                    find(report, format!("chunk {:#x} is kept for no snapshot", number.0), None);
                }
            }
            (0, _) => find(report, format!("chunk {:#x} has no references, and is not parked", number.0), None),
            (_, Some(_)) => find(report, format!("chunk {:#x} is parked, and has references", number.0), None),
            (_, None) => {}
        }
    }

    /// After all chunks were met.
    pub(super) fn finish(&mut self, report: &mut CheckReport) {
        let mut missing: Vec<(ChunkNumber, usize)> = self.needed.drain().collect();
        missing.sort_unstable();
        for (number, place) in missing {
            self.only.insert(number, place);
            find(report, format!("chunk {:#x} has no row, and a snapshot refers to it", number.0), Some(number));
        }
        let mut parked: Vec<ChunkNumber> = self.parked.drain().map(|(number, _)| number).collect();
        parked.sort_unstable();
        for number in parked {
            find(report, format!("chunk {:#x} is parked, and has no row", number.0), None);
        }
    }
}

fn say_hurt(finding: &mut Finding, name: &str) {
    finding.damage.detail.push_str(&format!("; snapshot {name:?} needs it"));
}

fn find(report: &mut CheckReport, detail: String, chunk: Option<ChunkNumber>) {
    let damage = Damage { structure: "chunk", blob: None, detail };
    report.findings.push(Finding { damage, chunks: chunk.into_iter().collect() });
}

impl Check<'_> {
    /// The trees of all snapshots, each node once.
    pub(super) async fn snapshots(&mut self, references: Option<&dyn References>) -> Result<()> {
        let (shared, root) = (self.shared, self.root.clone());
        let scan = shared.scan_root(&root, &self.pin, rows::SNAPSHOT, ALL, Direction::Ascending);
        let snapshots = match collect(scan).await {
            Ok(snapshots) => snapshots,
            Err(error) => return self.note(error),
        };
        self.kept.is_removing = snapshots.values().any(|row| row.is_removed);
        let mut kept: Vec<_> = snapshots.into_iter().filter(|(_, row)| !row.is_removed).collect();
        kept.sort_by_key(|(_, row)| row.sequence);
        self.kept.sequences = kept.iter().map(|(_, row)| row.sequence).collect();
        self.kept.names = kept.iter().map(|(name, _)| name.clone()).collect();
        self.report.snapshots = kept.len() as u64;
        let newest = shared.get_at(&root, &rows::counter_key(rows::NEWEST_SNAPSHOT)).await?;
        let newest = newest.and_then(|row| rows::decode_count(&row).ok()).unwrap_or(0);
        if newest != self.kept.sequences.last().copied().unwrap_or(0) {
            self.find("snapshot counter", None, format!("it says {newest}, the newest snapshot is another"));
        }
        let (mut only, mut is_whole) = (HashSet::new(), true);
        for (place, (name, row)) in kept.iter().enumerate() {
            is_whole &= self.snapshot(place, name, row, references, &mut only).await?;
        }
        self.births();
        self.parked_nodes(only, is_whole).await?;
        self.parked_chunks().await
    }

    /// The tree of a snapshot, without the nodes that were met before; those that were not are `only` in snapshots. Answers
    /// whether all of it could be read.
    async fn snapshot(
        &mut self,
        place: usize,
        name: &str,
        row: &SnapshotRow,
        references: Option<&dyn References>,
        only: &mut HashSet<Pointer>,
    ) -> Result<bool> {
        let (shared, root) = (self.shared, self.root.clone());
        let before = self.report.findings.len();
        let tree = row.content.map(|(height, pointer)| TreeRoot { pointer, height });
        let mut leaves = Vec::new();
        let is_whole = self
            .tree(tree.as_ref(), true, |pointer, node| {
                only.insert(*pointer);
                leaves.extend(node.is_leaf().then_some(*pointer));
            })
            .await?;
        if let Some(references) = references {
            let state = Snapshot::kept(shared, &root, self.pin.clone(), row);
            for leaf in leaves {
                let node = match shared.nodes.read(&leaf).await {
                    Ok(node) => node,
                    Err(error) => return Err(shared.explain(error, root.sequence).await),
                };
                if let Err(error) = self.need(&state, place, &node, references).await {
                    self.note(error)?;
                }
            }
        }
        let birth = tree.and_then(|tree| self.kept.nodes.get(&tree.pointer)).copied().unwrap_or(0);
        if birth > row.sequence {
            self.find("tree node", None, "a snapshot has it that is older, and it would not be kept for it");
        }
        self.report.findings.iter_mut().skip(before).for_each(|finding| say_hurt(finding, name));
        Ok(is_whole)
    }

    /// One snapshot by itself: its tree, and what its rows refer to.
    pub(super) async fn only_snapshot(
        &mut self,
        name: &str,
        row: &SnapshotRow,
        references: Option<&dyn References>,
    ) -> Result<()> {
        self.kept.sequences = vec![row.sequence];
        self.kept.names = vec![name.to_owned()];
        self.report.snapshots = 1;
        self.snapshot(0, name, row, references, &mut HashSet::new()).await?;
        self.births();
        let mut needed: Vec<ChunkNumber> = self.kept.needed.keys().copied().collect();
        needed.sort_unstable();
        for number in needed {
            self.needed_chunk(number, row.sequence).await?;
        }
        // What has no row is left.
        self.kept.finish(&mut self.report);
        Ok(())
    }

    /// The row of a chunk that a snapshot refers to.
    async fn needed_chunk(&mut self, number: ChunkNumber, sequence: u64) -> Result<()> {
        let row = match self.shared.get_at(&self.root, &rows::chunk_key(number.0)).await {
            Ok(None) => return Ok(()),
            Ok(Some(row)) => ChunkRow::decode(&row),
            Err(error) => {
                self.kept.needed.remove(&number);
                // One node has the rows of many chunks.
                return if self.is_told(&error) { Ok(()) } else { self.note(error) };
            }
        };
        self.kept.needed.remove(&number);
        self.kept.only.insert(number, 0);
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                find(&mut self.report, format!("chunk {:#x}: {error}", number.0), Some(number));
                return Ok(());
            }
        };
        self.report.chunks += 1;
        let is_kept = row.birth <= sequence && (row.references > 0 || sequence < row.death);
        if !is_kept {
            let detail = format!("chunk {:#x} is in a snapshot, and not kept for it", number.0);
            find(&mut self.report, detail, Some(number));
        }
        self.count_chunk(number, &row);
        Ok(())
    }

    /// Whether the last finding is of the same.
    fn is_told(&self, error: &Error) -> bool {
        let Some(last) = self.report.findings.last() else { return false };
        match error {
            Error::Damaged(damage) => last.damage == *damage,
            Error::Missing { blob, .. } => last.damage.blob == Some(*blob),
            _ => false,
        }
    }

    /// A node is no younger than what leads to it: so all of a snapshot's tree is as old as its root.
    fn births(&mut self) {
        let nodes = &self.kept.nodes;
        let born_after = |(child, parent): &&(Pointer, u64)| nodes.get(child).is_some_and(|child| child > parent);
        let young = self.kept.edges.iter().filter(born_after).count();
        if young > 0 {
            self.find("tree node", None, format!("{young} nodes say that they are younger than what leads to them"));
        }
        self.kept.edges = Vec::new();
    }

    /// What the rows of a leaf refer to must be there.
    async fn need(&mut self, state: &Snapshot, place: usize, leaf: &Node, references: &dyn References) -> Result<()> {
        for index in 0..leaf.count() {
            let (Some(key), Some(value)) = (leaf.key_bytes(index), leaf.value(index)) else { continue };
            if let Some((table, key)) = key.split_first() {
                let chunks = references.chunks_of(state, Table(*table), key, &value).await?;
                for chunk in chunks {
                    // They come the oldest first.
                    self.kept.needed.entry(chunk).or_insert(place);
                }
            }
        }
        Ok(())
    }

    /// `only`: nodes that snapshots have and the newest content has not; `is_whole`: whether those are all.
    async fn parked_nodes(&mut self, mut only: HashSet<Pointer>, is_whole: bool) -> Result<()> {
        let (shared, root) = (Arc::clone(self.shared), self.root.clone());
        let mut scan = shared.scan_root(&root, &self.pin, rows::PARKED_NODE, ALL, Direction::Ascending);
        loop {
            let (key, value) = match scan.next().await {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(error) => return self.note(error),
            };
            let key = rows::table_key(rows::PARKED_NODE, &key);
            let (Ok((death, pointer)), Ok(birth)) = (rows::decode_parked_node_key(&key), rows::decode_count(&value))
            else {
                self.find("parked node", None, "a row of another shape");
                continue;
            };
            if only.remove(&pointer) {
                continue;
            }
            if self.kept.nodes.contains_key(&pointer) {
                self.find("parked node", None, "the newest content has it");
                continue;
            }
            if let Some(error) = self.count_node(&pointer) {
                self.note(error)?;
            }
            let is_needed = self.kept.is_needed(birth, death);
            if is_whole && (is_needed || !self.kept.is_removing) {
                let name = shared.block_name(rows::DataBlock::of(&pointer));
                self.find("parked node", Some(name), "it is kept, and no snapshot has it");
            }
        }
        for pointer in only {
            let name = shared.block_name(rows::DataBlock::of(&pointer));
            self.note(Error::damaged("tree node", Some(name), "a snapshot has it, and it is not kept for it"))?;
        }
        Ok(())
    }

    async fn parked_chunks(&mut self) -> Result<()> {
        let (shared, root) = (Arc::clone(self.shared), self.root.clone());
        let mut scan = shared.scan_root(&root, &self.pin, rows::PARKED_CHUNK, ALL, Direction::Ascending);
        loop {
            match scan.next().await {
                Ok(Some((key, _))) => match rows::decode_parked_chunk_key(&rows::table_key(rows::PARKED_CHUNK, &key)) {
                    Ok((death, number)) => {
                        if self.kept.parked.insert(ChunkNumber(number), death).is_some() {
                            self.find("chunk", None, format!("chunk {number:#x} is parked twice"));
                        }
                    }
                    Err(error) => self.find("parked chunk", None, error.to_string()),
                },
                Ok(None) => return Ok(()),
                Err(error) => return self.note(error),
            }
        }
    }
}
