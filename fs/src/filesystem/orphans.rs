//! Files that were removed while open: they have no name, and stay for as long as their process has them open. And what is
//! left of large files that are deleted ([`super::remains`]).
//!
//! The row of an orphan says under which writer epoch it was left. While that has not ended, the file is its process's to
//! delete, with the last handle; after that, anybody's. A handle here is no reason to think that it was left here: another
//! process may have been faster to take the name. Remains are left under none, and anybody's at once.

use std::collections::BTreeSet;
use std::ops::Bound;

use strongroom_core as core;
use strongroom_core::engine::{Direction, Engine, Transaction, View};

use super::attributes::put_inode;
use super::remove::free_inode;
use super::{FileSystem, PENDING_AT_ONCE_BYTES_MAX, remains};
use crate::error::{Error, Result};
use crate::format::{INODE, InodeRow, ORPHAN, decode_orphan, encode_orphan, inode_key, split_inode_key};
use crate::shared::Shared;

/// How often a reclaim is tried again because another transaction was faster.
const ATTEMPTS_MAX: usize = 8;
/// Orphans that one transaction deletes.
const RECLAIMED_AT_ONCE_MAX: usize = 1_000;

/// Whose orphans are to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// This process's, and nobody's.
    Ours,
    /// Those of processes that have ended.
    Nobodys,
}

/// Leaves a file without a name to those who have it open.
pub(super) async fn put(engine: &Engine, transaction: &mut Transaction, inode: u64, mut row: InodeRow) -> Result<()> {
    // A number of its own is of no use here; the epoch in it is.
    let epoch = u32::try_from(transaction.number().await? >> 32).unwrap_or(u32::MAX);
    // Should this process come to write under another, the file is not to pass for one that is nobody's.
    engine.keep_epoch(epoch);
    row.nlink = 0;
    put_inode(transaction, inode, &row)?;
    Ok(transaction.put(ORPHAN, &inode_key(inode), &encode_orphan(epoch))?)
}

impl Shared {
    /// Deletes the removed files whose last handle was dropped. It answers nobody: what it fails to do waits for the next
    /// transaction of this process, or for the next writer.
    pub(crate) async fn reclaim_abandoned(&self) {
        let abandoned = self.common.handles.take_abandoned();
        if abandoned.is_empty() {
            return;
        }
        let mut left = Vec::new();
        // Said by nobody: it comes up again where it is met.
        let _ = self.reclaim(&abandoned, Whose::Ours, &mut left).await;
        abandoned.are_gone_but(left);
    }

    /// Deletes those of these files that are orphans, of whom it is said, and not open here, and what is left of those that are
    /// deleted, in transactions of bounded size. `unreclaimed` gets those that it fails to delete, and those that it does not
    /// come to.
    async fn reclaim(&self, inodes: &[u64], whose: Whose, unreclaimed: &mut Vec<u64>) -> Result<()> {
        let (mut left, mut attempt, mut at_once) = (inodes, 0, RECLAIMED_AT_ONCE_MAX);
        let mut first = None;
        while let Some((&next, after)) = left.split_first() {
            let together = left.get(..at_once).unwrap_or(left);
            let mut sound = 0;
            match self.reclaim_some(together, whose, &mut sound).await {
                Ok(done) => {
                    left = left.get(done..).unwrap_or_default();
                    // Where something is damaged there may be more of that.
                    (attempt, at_once) = (0, at_once.saturating_mul(2).min(RECLAIMED_AT_ONCE_MAX));
                }
                Err(error) if error.is_conflict() && attempt < ATTEMPTS_MAX => {
                    attempt += 1;
                    if let Err(error) = self.engine.refresh().await {
                        unreclaimed.extend(left);
                        return Err(error.into());
                    }
                }
                // One that is damaged does not keep the others: those before it go together, and those after it.
                Err(error) if is_of_one(&error) && sound > 0 => at_once = sound,
                Err(error) if is_of_one(&error) => {
                    first.get_or_insert(error);
                    unreclaimed.push(next);
                    left = after;
                }
                Err(error) => {
                    unreclaimed.extend(left);
                    return Err(error);
                }
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// One transaction of that. Answers of how many of them, from the first on, nothing is left to be done. Where it fails,
    /// `sound` is how many to try without the others, from the first on: none where that is the one that is damaged.
    async fn reclaim_some(&self, inodes: &[u64], whose: Whose, sound: &mut usize) -> Result<usize> {
        let mut transaction = self.engine.begin();
        let (mut deleted, mut done) = (Vec::new(), 0);
        let mut spared = None;
        let mut looked_at = 0_usize;
        for &inode in inodes {
            if transaction.pending_bytes() > PENDING_AT_ONCE_BYTES_MAX {
                break;
            }
            *sound = looked_at;
            looked_at += 1;
            if !self.reclaim_one(&mut transaction, inode, whose, &mut spared, &mut deleted).await? {
                break;
            }
            done += 1;
        }
        // What only the commit meets is found by halves.
        *sound = looked_at / 2;
        // One who saw it when it had a name may be about to open it.
        let awaited = self.common.handles.commit_with(&mut transaction, &deleted, std::iter::empty())?;
        let result = transaction.commit().await;
        drop(awaited);
        result?;
        Ok(done)
    }

    /// Answers whether nothing is left to be done of this one. `spared`: the epochs under which it may be open still, looked up
    /// where there is an orphan at all; `deleted`: files that are there for others as yet.
    async fn reclaim_one(
        &self,
        transaction: &mut Transaction,
        inode: u64,
        whose: Whose,
        spared: &mut Option<BTreeSet<u32>>,
        deleted: &mut Vec<u64>,
    ) -> Result<bool> {
        let key = inode_key(inode);
        if self.common.handles.get(inode).is_some() {
            return Ok(true);
        }
        let Some(row) = transaction.get(ORPHAN, &key).await? else { return Ok(true) };
        let spared = match spared {
            Some(spared) => spared,
            none => none.insert(self.spared(transaction, whose).await?),
        };
        if spared.contains(&decode_orphan(&row)?) {
            return Ok(true);
        }
        match transaction.get(INODE, &key).await? {
            Some(row) => {
                transaction.delete(ORPHAN, &key)?;
                deleted.push(inode);
                free_inode(transaction, inode, &InodeRow::decode(&row)?).await
            }
            None => remains::free_some(transaction, inode, self.engine.block_bytes()).await,
        }
    }

    /// The epochs whose orphans are to stay, at the state that a transaction reads.
    async fn spared(&self, transaction: &Transaction, whose: Whose) -> Result<BTreeSet<u32>> {
        let mut spared = transaction.open_epochs().await?;
        if whose == Whose::Ours {
            for epoch in self.engine.own_epochs() {
                spared.remove(&epoch);
            }
        }
        Ok(spared)
    }
}

/// Whether it is about one file, and says nothing of others.
fn is_of_one(error: &Error) -> bool {
    use core::Error as E;
    matches!(error, Error::Core(E::Damaged(_) | E::Missing { .. } | E::NewerFormat { .. }))
}

/// Orphans, and the epochs under which they were left.
async fn orphans(view: &dyn View) -> Result<Vec<(u64, u32)>> {
    let mut scan = view.scan(ORPHAN, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
    let mut orphans = Vec::new();
    while let Some((key, value)) = scan.next().await? {
        orphans.push((split_inode_key("orphan", &key)?, decode_orphan(&value)?));
    }
    Ok(orphans)
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
        if orphans(&self.shared.engine.snapshot()).await?.is_empty() {
            return Ok(0);
        }
        // Claiming an epoch ends those of writers that are known to be gone.
        self.shared.engine.begin().number().await?;
        // Both of one state: an orphan of a writer that came between the two would pass for one that is nobody's.
        let view = self.shared.engine.begin();
        let (open, orphans) = (view.open_epochs().await?, orphans(&view).await?);
        drop(view);
        let ended = orphans.into_iter().filter(|(_, epoch)| !open.contains(epoch)).map(|(inode, _)| inode);
        let ended: Vec<_> = ended.collect();
        self.shared.reclaim(&ended, Whose::Nobodys, &mut Vec::new()).await?;
        Ok(ended.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;
    use crate::{OpenOptions, Options, bed};

    /// Removes a file while it is open, and lets go of it.
    async fn abandon(fs: &FileSystem, path: &str) -> u64 {
        let file = fs.open_file(path, OpenOptions::new().write(true).create(true)).await.unwrap();
        let inode = file.metadata().await.unwrap().inode;
        fs.remove_file(path).await.unwrap();
        drop(file);
        inode
    }

    /// Puts a row in place of the inode's that nobody reads.
    async fn damage(fs: &FileSystem, inode: u64, row: &[u8]) {
        let mut transaction = fs.engine().begin();
        transaction.put(INODE, &inode_key(inode), row).unwrap();
        transaction.commit().await.unwrap();
    }

    #[test]
    fn files_removed_while_open_that_are_damaged_are_all_that_is_left_to_look_after() {
        block_on(async {
            let fs = bed::create(Options::default()).await;
            let broken = abandon(&fs, "broken").await;
            damage(&fs, broken, b"").await;
            let newer = abandon(&fs, "newer").await;
            damage(&fs, newer, &[255; 80]).await;
            let mut whole = Vec::new();
            for number in 0..20 {
                whole.push(abandon(&fs, &number.to_string()).await);
                fs.create_dir(format!("d{number}")).await.unwrap();
            }
            fs.shared.reclaim_abandoned().await;
            let left = fs.shared.common.handles.take_abandoned();
            assert_eq!(*left, [broken, newer]);
            for inode in whole {
                assert!(fs.engine().snapshot().get(ORPHAN, &inode_key(inode)).await.unwrap().is_none());
            }
        });
    }
}
