//! A state of the repository: two trees under an overlay of what changed since the last checkpoint. Immutable; a commit
//! makes a new one that shares almost everything.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::format::commit::{CommitHead, Delta};
use crate::format::rows::{self, DataBlock};
use crate::tree::{self, NodeStore, TreeRoot};

pub(crate) use crate::tree::Overlay;
use crate::{Error, Result};

/// What a row of the overlay takes beside its key and value. Deletions are little else.
const ROW_BYTES: u64 = 64;

/// One of the two key spaces.
#[derive(Clone, Default)]
pub(crate) struct Side {
    pub(crate) tree: Option<TreeRoot>,
    pub(crate) overlay: Overlay,
}

/// A state.
#[derive(Clone)]
pub(crate) struct Root {
    pub(crate) sequence: u64,
    pub(crate) hash: [u8; 32],
    /// The salt of the commit's blob: by it the commit is known to be still there.
    pub(crate) salt: [u8; 16],
    pub(crate) time: u64,
    pub(crate) floor: u64,
    pub(crate) oldest: u64,
    /// Sequence of the last checkpoint.
    pub(crate) base: u64,
    pub(crate) header_generation: u64,
    pub(crate) header_hash: [u8; 32],
    pub(crate) content: Side,
    pub(crate) space: Side,
    /// Bytes that the deltas since the last checkpoint take in memory, about.
    pub(crate) tail_bytes: u64,
    /// Blocks that hold spilled deltas of commits since the last checkpoint.
    pub(crate) spills: Vec<DataBlock>,
}

impl Root {
    /// The state before the first commit.
    pub(crate) fn genesis(header_generation: u64, header_hash: [u8; 32]) -> Self {
        Self {
            sequence: 0,
            hash: [0; 32],
            salt: [0; 16],
            time: 0,
            floor: 0,
            oldest: 0,
            base: 0,
            header_generation,
            header_hash,
            content: Side::default(),
            space: Side::default(),
            tail_bytes: 0,
            spills: Vec::new(),
        }
    }

    /// The side that a table belongs to.
    pub(crate) fn side(&self, table: u8) -> &Side {
        if table < rows::CONTENT_FIRST { &self.space } else { &self.content }
    }

    /// A row; `key` starts with the table byte.
    pub(crate) async fn get(&self, nodes: &impl NodeStore, key: &[u8]) -> Result<Option<Bytes>> {
        let side = self.side(key.first().copied().unwrap_or_default());
        match side.overlay.get(key) {
            Some(value) => Ok(value.clone()),
            None => tree::get(nodes, side.tree.as_ref(), key).await,
        }
    }

    /// The state after a commit on this one.
    pub(crate) fn after(&self, commit: Applied<'_>) -> Result<Self> {
        let head = commit.head;
        if head.sequence != self.sequence + 1 || head.previous != self.hash {
            return Err(Error::damaged(
                "commit",
                None,
                format!("commit {} does not continue commit {}", head.sequence, self.sequence),
            ));
        }
        let mut next = self.clone();
        if head.checkpoint {
            next.restart(head);
        } else if head.base != self.base {
            return Err(Error::damaged(
                "commit",
                None,
                format!("commit {} builds on another checkpoint", head.sequence),
            ));
        }
        next.take(commit);
        if self.sequence > 0 {
            next.space.overlay.insert(rows::history_key(self.sequence), Some(Bytes::copy_from_slice(&self.hash)));
        }
        if let Some(forgotten) = head.sequence.checked_sub(rows::HISTORY_COMMITS + 1).filter(|sequence| *sequence > 0) {
            next.space.overlay.insert(rows::history_key(forgotten), None);
        }
        Ok(next)
    }

    /// The state of a checkpoint that is read without the commits before it.
    pub(crate) fn from_checkpoint(commit: Applied<'_>) -> Self {
        let mut root = Self::genesis(commit.head.header_generation, commit.head.header_hash);
        let head = commit.head;
        root.restart(head);
        root.take(commit);
        if head.sequence > 1 {
            root.space
                .overlay
                .insert(rows::history_key(head.sequence - 1), Some(Bytes::copy_from_slice(&head.previous)));
        }
        if let Some(forgotten) = head.sequence.checked_sub(rows::HISTORY_COMMITS + 1).filter(|sequence| *sequence > 0) {
            root.space.overlay.insert(rows::history_key(forgotten), None);
        }
        root
    }

    fn restart(&mut self, head: &CommitHead) {
        let side = |root: &crate::format::commit::RootPointer| Side {
            tree: root.as_ref().map(|(height, pointer)| TreeRoot { pointer: *pointer, height: *height }),
            overlay: Overlay::new(),
        };
        self.content = side(&head.content);
        self.space = side(&head.space);
        self.base = head.sequence;
        self.tail_bytes = 0;
        self.spills.clear();
    }

    fn take(&mut self, commit: Applied<'_>) {
        let head = commit.head;
        self.sequence = head.sequence;
        self.hash = commit.hash;
        self.salt = commit.salt;
        self.time = head.time;
        self.floor = self.floor.max(head.floor);
        self.oldest = self.oldest.max(head.oldest);
        self.header_generation = head.header_generation;
        self.header_hash = head.header_hash;
        self.spills.extend_from_slice(commit.spills);
        for (key, value) in commit.deltas {
            self.tail_bytes += (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64 + ROW_BYTES;
            let side = if key.first().is_some_and(|table| *table < rows::CONTENT_FIRST) {
                &mut self.space
            } else {
                &mut self.content
            };
            side.overlay.insert(key.clone(), value.clone());
        }
    }
}

/// How large the pieces are that [`pack`] makes. One that is kept for the sake of a single row costs no more than a tree node.
const PIECE_BYTES_MAX: usize = 4 << 10;

/// The same rows in few pieces of memory rather than two for each row, as they stay until the next checkpoint.
pub(crate) fn pack(rows: BTreeMap<Bytes, Option<Bytes>>) -> Vec<Delta> {
    let mut packed: Vec<Delta> = Vec::with_capacity(rows.len());
    let mut waiting: Vec<Delta> = Vec::new();
    let mut waiting_bytes = 0;
    for (key, value) in rows {
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
        if waiting_bytes + bytes > PIECE_BYTES_MAX {
            pack_piece(&mut waiting, waiting_bytes, &mut packed);
            waiting_bytes = 0;
        }
        waiting_bytes += bytes;
        waiting.push((key, value));
    }
    pack_piece(&mut waiting, waiting_bytes, &mut packed);
    packed
}

fn pack_piece(rows: &mut Vec<Delta>, bytes: usize, packed: &mut Vec<Delta>) {
    if rows.len() < 2 {
        packed.append(rows);
        return;
    }
    let mut piece = Vec::with_capacity(bytes);
    for (key, value) in &*rows {
        piece.extend_from_slice(key);
        piece.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    let mut piece = Bytes::from(piece);
    for (key, value) in rows.drain(..) {
        let key = piece.split_to(key.len());
        packed.push((key, value.map(|value| piece.split_to(value.len()))));
    }
}

/// A commit to apply.
pub(crate) struct Applied<'a> {
    pub(crate) head: &'a CommitHead,
    pub(crate) hash: [u8; 32],
    pub(crate) salt: [u8; 16],
    pub(crate) deltas: &'a [Delta],
    pub(crate) spills: &'a [DataBlock],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_rows_are_the_same_rows() {
        let mut rows = BTreeMap::new();
        for number in 0..3_000_u32 {
            let value = match number % 5 {
                0 => None,
                1 => Some(Bytes::new()),
                2 => Some(Bytes::from(vec![7; (number % 700) as usize * 9])),
                _ => Some(Bytes::copy_from_slice(&number.to_le_bytes())),
            };
            rows.insert(Bytes::copy_from_slice(&number.to_be_bytes()), value);
        }
        let expected: Vec<Delta> = rows.clone().into_iter().collect();
        assert_eq!(pack(rows), expected);
        assert_eq!(pack(BTreeMap::new()), []);
    }
}
