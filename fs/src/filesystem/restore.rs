//! The whole repository brought back to another state, beside files that are open.

use std::collections::BTreeSet;
use std::ops::Bound;

use strongroom_core::engine::{Direction, References, Table, View};

use super::{FsSnapshot, FsTransaction, orphans};
use crate::error::Result;
use crate::format::{
    CONTENT, EXTENT, INODE, InodeRow, Kind, NO_EPOCH, ORPHAN, PAST, VERSION, XATTR, decode_orphan, inode_key,
    split_inode_key,
};
use crate::time::Timestamp;

/// Tables whose keys begin with the inode that they are about, and that hold all of a file but its names.
const FILE_TABLES: [Table; 7] = [INODE, CONTENT, EXTENT, XATTR, ORPHAN, VERSION, PAST];

impl FsTransaction {
    /// Makes all files what they are in another state, and the rows of all other tables too, which `references` knows besides
    /// the file system's. To be called before anything else is done in the transaction. A file that is open and has no name in
    /// that state is as one whose last name was removed: it stays for those who have it open. Answers how many rows differed.
    ///
    /// # Errors
    /// Those of [`strongroom_core::engine::Transaction::restore`].
    pub async fn restore(&mut self, state: &FsSnapshot, references: &dyn References) -> Result<u64> {
        let now = self.shared.engine.snapshot();
        let (mut kept, mut kept_open) = (BTreeSet::new(), Vec::new());
        for open in self.shared.common.handles.all() {
            let key = inode_key(open.inode);
            if !has_name(&state.snapshot, &key).await? && now.get(INODE, &key).await?.is_some() {
                kept.insert(open.inode);
                kept_open.push(open);
            }
        }
        let mut deleted = Vec::new();
        self.begin_change();
        let stays = |table: Table, key: &[u8], is_there: bool| {
            let inode = FILE_TABLES.contains(&table).then(|| key.first_chunk()).flatten();
            let Some(inode) = inode.map(|inode| u64::from_be_bytes(*inode)) else { return false };
            let stays = kept.contains(&inode);
            if table == INODE && !is_there && !stays {
                deleted.push(inode);
            }
            stays
        };
        let count = self.transaction.restore_except(&state.snapshot, references, stays).await?;
        self.deleted.append(&mut deleted);
        for open in kept_open {
            // Gone since, it is not there for anybody.
            let Some(row) = self.transaction.get(INODE, &inode_key(open.inode)).await? else { continue };
            let mut row = InodeRow::decode(&row)?;
            open.set_removed();
            if row.nlink > 0 {
                row.ctime = Timestamp::from_nanos(self.shared.moment());
                orphans::put(&self.shared.engine, &mut self.transaction, open.inode, row).await?;
            }
            self.orphaned.push(open);
        }
        self.abandon_returned(&kept).await?;
        self.end_change();
        Ok(count)
    }

    /// Files that were without a name in that state, and that this process no longer has open, or nobody: they go again.
    async fn abandon_returned(&mut self, kept: &BTreeSet<u64>) -> Result<()> {
        let mut returned = Vec::new();
        let mut scan = self.transaction.scan(ORPHAN, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
        while let Some((key, row)) = scan.next().await? {
            let inode = split_inode_key("orphan", &key)?;
            if !kept.contains(&inode) {
                returned.push((inode, decode_orphan(&row)?));
            }
        }
        drop(scan);
        let own = self.shared.engine.own_epochs();
        let ours = returned.into_iter().filter(|(_, left_under)| *left_under == NO_EPOCH || own.contains(left_under));
        self.shared.common.handles.put_back_abandoned(&ours.map(|(inode, _)| inode).collect::<Vec<_>>());
        Ok(())
    }
}

/// Whether there is a file, and under a name.
async fn has_name(view: &dyn View, key: &[u8]) -> Result<bool> {
    let Some(row) = view.get(INODE, key).await? else { return Ok(false) };
    let row = InodeRow::decode(&row)?;
    Ok(row.kind != Kind::File || row.nlink > 0)
}
