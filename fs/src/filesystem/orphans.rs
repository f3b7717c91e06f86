//! Files that were removed while open: they have no name, and stay for as long as their process has them open. And what is
//! left of large files that are deleted ([`super::remains`]).
//!
//! The row of an orphan says under which writer epoch it was left. While that has not ended, the file is its process's to
//! delete, with the last handle; after that, anybody's. Remains are left under none, and anybody's at once.

use std::ops::Bound;

use strongroom_core::engine::{Direction, Transaction, View};

use super::attributes::put_inode;
use super::remove::free_inode;
use super::{FileSystem, PENDING_AT_ONCE_BYTES_MAX, remains};
use crate::error::Result;
use crate::format::{INODE, InodeRow, ORPHAN, decode_orphan, encode_orphan, inode_key, split_inode_key};
use crate::shared::Shared;

/// How often a reclaim is tried again because another transaction was faster.
const ATTEMPTS_MAX: usize = 8;
/// Orphans that one transaction deletes.
const RECLAIMED_AT_ONCE_MAX: usize = 1_000;

/// Leaves a file without a name to those who have it open.
pub(super) async fn put(transaction: &mut Transaction, inode: u64, mut row: InodeRow) -> Result<()> {
    let epoch = epoch(transaction).await?;
    row.nlink = 0;
    put_inode(transaction, inode, &row)?;
    Ok(transaction.put(ORPHAN, &inode_key(inode), &encode_orphan(epoch))?)
}

/// The epoch that this process writes under.
pub(super) async fn epoch(transaction: &mut Transaction) -> Result<u32> {
    // A number of its own is of no use here; the epoch in it is.
    Ok(u32::try_from(transaction.number().await? >> 32).unwrap_or(u32::MAX))
}

impl Shared {
    /// Deletes the removed files whose last handle was dropped. It answers nobody: what it fails to do waits for the next
    /// transaction of this process, or for the next writer.
    pub(crate) async fn reclaim_abandoned(&self) {
        let abandoned = self.common.handles.take_abandoned();
        if !abandoned.is_empty() && self.reclaim(&abandoned).await.is_ok() {
            abandoned.are_gone();
        }
    }

    /// Deletes those of these files that are orphans and not open here, and what is left of those that are deleted, in
    /// transactions of bounded size.
    async fn reclaim(&self, inodes: &[u64]) -> Result<()> {
        let (mut left, mut attempt) = (inodes, 0);
        while !left.is_empty() {
            match self.reclaim_some(left).await {
                Ok(done) => {
                    left = left.get(done..).unwrap_or_default();
                    attempt = 0;
                }
                Err(error) if error.is_conflict() && attempt < ATTEMPTS_MAX => {
                    attempt += 1;
                    self.engine.refresh().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One transaction of that. Answers of how many of them, from the first on, nothing is left to be done.
    async fn reclaim_some(&self, inodes: &[u64]) -> Result<usize> {
        let mut transaction = self.engine.begin();
        let (mut deleted, mut done) = (Vec::new(), 0);
        for &inode in inodes.iter().take(RECLAIMED_AT_ONCE_MAX) {
            if transaction.pending_bytes() > PENDING_AT_ONCE_BYTES_MAX {
                break;
            }
            let key = inode_key(inode);
            if self.common.handles.get(inode).is_none() && transaction.get(ORPHAN, &key).await?.is_some() {
                let is_gone = match transaction.get(INODE, &key).await? {
                    Some(row) => {
                        transaction.delete(ORPHAN, &key)?;
                        deleted.push(inode);
                        free_inode(&mut transaction, inode, &InodeRow::decode(&row)?).await?
                    }
                    None => remains::free_some(&mut transaction, inode).await?,
                };
                if !is_gone {
                    break;
                }
            }
            done += 1;
        }
        // One who saw it when it had a name may be about to open it.
        let going = self.common.handles.go(&deleted)?;
        let result = transaction.commit().await;
        drop(going);
        result?;
        Ok(done)
    }

    /// Orphans, and the epochs under which they were left.
    async fn orphans(&self) -> Result<Vec<(u64, u32)>> {
        let snapshot = self.engine.snapshot();
        let mut scan = snapshot.scan(ORPHAN, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
        let mut orphans = Vec::new();
        while let Some((key, value)) = scan.next().await? {
            orphans.push((split_inode_key("orphan", &key)?, decode_orphan(&value)?));
        }
        Ok(orphans)
    }
}

impl FileSystem {
    /// Deletes files that were removed while open, by processes that have ended since, and frees what is left of large files
    /// that were deleted: opening for writing does it. Answers how many there were. Costs one look-up where there are none;
    /// memory stays bounded however large they are.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn reclaim_orphans(&self) -> Result<u64> {
        self.shared.reclaim_abandoned().await;
        if self.shared.orphans().await?.is_empty() {
            return Ok(0);
        }
        // Claiming an epoch ends those of writers that are known to be gone.
        self.shared.engine.begin().number().await?;
        let open = self.shared.engine.open_epochs().await?;
        let orphans = self.shared.orphans().await?;
        let ended = orphans.into_iter().filter(|(_, epoch)| !open.contains(epoch)).map(|(inode, _)| inode);
        let ended: Vec<_> = ended.collect();
        self.shared.reclaim(&ended).await?;
        Ok(ended.len() as u64)
    }
}
