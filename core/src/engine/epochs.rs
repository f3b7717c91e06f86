//! Which writers have not ended: what a writer of its own noted in a row stays its own for as long.

use std::collections::BTreeSet;

use super::Engine;
use super::transaction::Transaction;
use crate::Result;

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
}
