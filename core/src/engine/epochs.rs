//! Which writers have not ended: what a writer of its own noted in a row stays its own for as long.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::Engine;
use super::shared::lock;
use super::space::epochs;
use super::transaction::Transaction;
use super::view::table_range;
use crate::Result;
use crate::format::rows;

impl Engine {
    /// The writer epochs that have not ended, at the newest state that this process knows. One that has ended never comes
    /// back; numbers of [`Transaction::number`] tell in their upper half under which epoch they were drawn.
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
        let mut own = lock(&self.shared.abandoned).clone();
        own.extend(lock(&self.shared.epoch).number);
        own
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
        Ok(epochs(self.scan_unread(all)).await?.into_keys().collect())
    }
}
