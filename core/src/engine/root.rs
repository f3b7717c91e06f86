//! A state of the repository: two trees under an overlay of what changed since the last checkpoint. Immutable; a commit
//! makes a new one that shares almost everything.

use bytes::Bytes;

use crate::format::commit::{CommitHead, Delta};
use crate::format::rows::{self, DataBlock};
use crate::storage::Name;
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
            Some(value) => Ok(value),
            None => tree::get(nodes, side.tree.as_ref(), key).await,
        }
    }

    /// The state after a commit on this one.
    pub(crate) fn after(&self, commit: Applied<'_>) -> Result<Self> {
        let head = commit.head;
        if head.sequence != self.sequence + 1 || head.previous != self.hash {
            return Err(Error::damaged(
                "commit",
                Some(commit.name),
                format!("commit {} does not continue commit {}", head.sequence, self.sequence),
            ));
        }
        let mut next = self.clone();
        if head.checkpoint {
            next.restart(head);
        } else if head.base != self.base {
            return Err(Error::damaged(
                "commit",
                Some(commit.name),
                format!("commit {} builds on another checkpoint", head.sequence),
            ));
        }
        next.take(commit);
        if self.sequence > 0 {
            next.space.overlay.insert(&rows::history_key(self.sequence), Some(&self.hash));
        }
        if let Some(forgotten) = head.sequence.checked_sub(rows::HISTORY_COMMITS + 1).filter(|sequence| *sequence > 0) {
            next.space.overlay.insert(&rows::history_key(forgotten), None);
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
            root.space.overlay.insert(&rows::history_key(head.sequence - 1), Some(&head.previous));
        }
        if let Some(forgotten) = head.sequence.checked_sub(rows::HISTORY_COMMITS + 1).filter(|sequence| *sequence > 0) {
            root.space.overlay.insert(&rows::history_key(forgotten), None);
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
        let bytes = |(key, value): &Delta| (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64 + ROW_BYTES;
        self.tail_bytes += commit.deltas.iter().map(bytes).sum::<u64>();
        let is_space = |(key, _): &&Delta| key.first().is_some_and(|table| *table < rows::CONTENT_FIRST);
        let rows = || commit.deltas.iter();
        self.space.overlay.insert_all(rows().filter(is_space).map(|(key, value)| (&**key, value.as_deref())));
        self.content
            .overlay
            .insert_all(rows().filter(|row| !is_space(row)).map(|(key, value)| (&**key, value.as_deref())));
    }
}

/// A commit to apply.
pub(crate) struct Applied<'a> {
    /// Of its blob.
    pub(crate) name: Name,
    pub(crate) head: &'a CommitHead,
    pub(crate) hash: [u8; 32],
    pub(crate) salt: [u8; 16],
    pub(crate) deltas: &'a [Delta],
    pub(crate) spills: &'a [DataBlock],
}
