//! What the storage holds, told without listing it: the blocks that the accounts of the newest state name.
//!
//! The accounts are rows, one a block. They are counted once; after that, only what the tree has in other nodes than at the
//! last count is looked at. That is little where it is asked often, and nothing is kept but two numbers and a pointer.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::Engine;
use super::root::{Overlay, Root};
use super::shared::{Pin, Shared, lock};
use super::view::{Scan, table_range};
use crate::format::limits::HEADER_COPIES_COUNT;
use crate::format::rows;
use crate::tree::{self, Diff, Difference, Direction, TreeRoot};
use crate::{Error, Result};

/// What the storage holds of a repository, and how much more it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Blobs: those that hold something which is needed, ballast, header and hint, and the commits that the newest state counts
    /// as kept, of which it may be behind by those since the last checkpoint. What waits to be deleted, or was left by writers
    /// that died, is not counted: [`Engine::info`] counts all that is there.
    pub blobs: u64,
    /// Bytes that live records take in them.
    pub live_bytes: u64,
    /// How many bytes can still be put, where the storage says so.
    pub available_bytes: Option<u64>,
}

/// The accounts of a space tree, added up.
#[derive(Clone, Copy, Default)]
pub(super) struct Counted {
    tree: Option<TreeRoot>,
    blocks: u64,
    live_bytes: u64,
}

impl Counted {
    fn change(&mut self, before: Option<&Bytes>, after: Option<&Bytes>) {
        let bytes = |row: &Bytes| rows::decode_count(row).unwrap_or_default();
        if let Some(row) = before {
            self.blocks = self.blocks.saturating_sub(1);
            self.live_bytes = self.live_bytes.saturating_sub(bytes(row));
        }
        if let Some(row) = after {
            self.blocks = self.blocks.saturating_add(1);
            self.live_bytes = self.live_bytes.saturating_add(bytes(row));
        }
    }
}

/// Beside one for each block, how many rows may differ from those at the last count before all are counted anew.
const DIFFERENCES_MIN: u64 = 1024;

impl Engine {
    /// What the storage holds, at the newest state that this process knows, for whoever asks often: `statfs`. It costs no
    /// listing, and from the second call on a look at what has changed in the rows of chunks and blocks since the call before;
    /// the first one, or one after very much has changed, looks at the rows of all blocks, a few dozen bytes each.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::Expired`]; what the storage raises.
    pub async fn held(&self) -> Result<Held> {
        let shared = &self.shared;
        let (root, pin) = shared.pin();
        let counted = match shared.count_accounts(&root, &pin).await {
            Err(error) => return Err(shared.explain(error, root.sequence).await),
            counted => counted?,
        };
        let commits = root.sequence.saturating_sub(root.oldest.max(1)).saturating_add(1);
        let ballast = shared.ballast(&root).await?.len() + root.spills.len();
        // The hint is one.
        let others = commits.saturating_add(ballast as u64).saturating_add(u64::from(HEADER_COPIES_COUNT) + 1);
        Ok(Held {
            blobs: counted.blocks.saturating_add(others),
            live_bytes: counted.live_bytes,
            available_bytes: shared.storage().available_bytes().await?,
        })
    }
}

impl Shared {
    async fn count_accounts(self: &Arc<Self>, root: &Root, pin: &Arc<Pin>) -> Result<Counted> {
        let tree = root.space.tree;
        let last = *lock(&self.counted);
        let mut counted = match last {
            Some(last) if last.tree == tree => last,
            Some(last) => match self.count_on(last, tree).await? {
                Some(counted) => counted,
                None => self.count_all(tree, pin).await?,
            },
            None => self.count_all(tree, pin).await?,
        };
        *lock(&self.counted) = Some(counted);
        let range = table_range(rows::USAGE, (Bound::Unbounded, Bound::Unbounded));
        for (key, after) in root.space.overlay.range(&range) {
            let before = tree::get(&self.nodes, tree.as_ref(), &key).await?;
            counted.change(before.as_ref(), after.as_ref());
        }
        Ok(counted)
    }

    async fn count_all(self: &Arc<Self>, tree: Option<TreeRoot>, pin: &Arc<Pin>) -> Result<Counted> {
        let range = table_range(rows::USAGE, (Bound::Unbounded, Bound::Unbounded));
        let mut scan = Scan::new(self.clone(), pin.clone(), tree, Overlay::new(), range, Direction::Ascending);
        let mut counted = Counted { tree, ..Counted::default() };
        while let Some((_, row)) = scan.next().await? {
            counted.change(None, Some(&row));
        }
        Ok(counted)
    }

    /// Goes on from the last count; `None` where counting anew is better.
    async fn count_on(&self, mut counted: Counted, tree: Option<TreeRoot>) -> Result<Option<Counted>> {
        let mut left = counted.blocks.saturating_add(DIFFERENCES_MIN);
        let mut diff = Diff::new(self.nodes.clone(), counted.tree, tree);
        loop {
            match diff.next().await {
                Ok(Some(Difference { key, before, after })) => {
                    left = left.saturating_sub(1);
                    if left == 0 {
                        return Ok(None);
                    }
                    if key.first() == Some(&rows::USAGE) {
                        counted.change(before.as_ref(), after.as_ref());
                    }
                }
                Ok(None) => return Ok(Some(Counted { tree, ..counted })),
                // That tree is not pinned: its nodes may be gone.
                Err(Error::Missing { .. } | Error::Damaged(_) | Error::Expired) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}
