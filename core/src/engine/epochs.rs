//! Which writers have not ended: what a writer of its own noted in a row stays its own for as long.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::Engine;
use super::place::is_open;
use super::root::Root;
use super::shared::{Shared, lock};
use super::space::epoch_rows;
use super::transaction::Transaction;
use super::view::table_range;
use crate::Result;
use crate::format::rows;

impl Engine {
    /// The writer epochs that have not ended, at the newest state that this process knows. One that has ended does not come
    /// back, but where what was written from this place may be of another history: then its blocks are kept as those of an open
    /// one. Numbers of [`Transaction::number`] tell in their upper half under which epoch they were drawn.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`]; what the storage raises.
    pub async fn open_epochs(&self) -> Result<BTreeSet<u32>> {
        let view = Transaction::new(&self.shared);
        Ok(self.shared.open_epochs(&view).await?.into_keys().collect())
    }

    /// The writer epochs that this engine has claimed and not ended. What was noted under any other that is open is another
    /// writer's. Empty before this one first writes.
    #[must_use]
    pub fn own_epochs(&self) -> BTreeSet<u32> {
        self.shared.own_epochs()
    }

    /// Keeps an epoch of this engine open until that is closed. Otherwise it ends where a barrier fails: then nothing that was
    /// put under it and not committed can be relied on, and the engine goes on under another; but what was noted under it in
    /// rows would pass for a dead writer's. Does nothing for an epoch that is not this engine's any more.
    pub fn keep_epoch(&self, epoch: u32) {
        if self.shared.own_epochs().contains(&epoch) {
            lock(&self.shared.lasting).insert(epoch);
        }
    }
}

impl Shared {
    pub(super) fn own_epochs(&self) -> BTreeSet<u32> {
        let mut own = lock(&self.abandoned).clone();
        own.extend(lock(&self.lasting).iter());
        own.extend(lock(&self.epoch).number);
        own
    }

    /// The epochs besides the one that we hold which stay open as long as we do, and that are open on a state.
    pub(super) async fn lasting_epochs(&self, root: &Root, held: u32) -> Result<Vec<u32>> {
        let lasting = lock(&self.lasting).clone();
        let mut open = Vec::new();
        for epoch in lasting.into_iter().filter(|epoch| *epoch != held) {
            if is_open(root.get(&self.nodes, &rows::epoch_key(epoch)).await?)? {
                open.push(epoch);
            }
        }
        Ok(open)
    }
}

impl Transaction {
    /// As [`Engine::open_epochs`], at the state that this transaction reads: one that a row of that state names, and that is
    /// not open there, has ended. That writers come and go meanwhile is no conflict.
    ///
    /// # Errors
    /// As [`Engine::open_epochs`].
    pub async fn open_epochs(&self) -> Result<BTreeSet<u32>> {
        let all = table_range(rows::EPOCH, (Bound::Unbounded, Bound::Unbounded));
        let rows = epoch_rows(self.scan_unread(all)).await?;
        Ok(rows.into_iter().filter(|(_, row)| !row.has_ended()).map(|(epoch, _)| epoch).collect())
    }
}
