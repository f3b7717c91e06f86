//! Whether what was written from this place is of the history that is open here.
//!
//! A lock proves that no writer of this place is there. That nobody can come to need what such a writer has put is proven by it
//! only if nothing that was committed under its epoch has gone: where the blobs may be at several places, the history that is here
//! may be another one's, made apart since that epoch was claimed, and what was committed here is a fork's other side; or it has
//! come back, and the last commits of it are still to come.
//!
//! So whoever opens without having followed the history here to its newest commit *disowns* what was claimed from here: the rows
//! name another place from then on, whose writers no lock tells of. And whoever claims an epoch does that to rows of other places:
//! who comes back to one of those may have committed meanwhile what the claim knows nothing of.

use std::sync::atomic::Ordering;

use super::shared::Shared;
use crate::Result;
use crate::format::rows::{Claim, EpochRow, PLACE_BYTES};

/// A place that nobody is at.
pub(super) const NOWHERE: [u8; PLACE_BYTES] = [0; PLACE_BYTES];

/// The row of an epoch that no lock is a proof for, and that is open.
pub(super) fn disowned(row: &EpochRow) -> EpochRow {
    let claim = row.claim.map(|claim| Claim { place: NOWHERE, has_ended: false, ..claim });
    EpochRow { claim, ..*row }
}

impl Shared {
    /// On opening: whether this device has followed here what it finds.
    pub(super) async fn meet(&self, accept_rollback: bool) -> Result<()> {
        if self.place().is_none() {
            return Ok(());
        }
        let repository = self.context.keys.repository();
        let is_settled = match &self.trusted {
            None => false,
            Some(trusted) if accept_rollback || trusted.load(repository).await?.is_none() => {
                // Whoever comes next finds this history remembered.
                trusted.set_settled(repository, false).await?;
                false
            }
            Some(trusted) => trusted.is_settled(repository).await?,
        };
        self.is_strange.store(!is_settled, Ordering::Release);
        Ok(())
    }

    pub(super) fn is_strange(&self) -> bool {
        self.is_strange.load(Ordering::Acquire)
    }

    /// Nothing is left that was claimed from here by a history that may be another.
    pub(super) async fn settled(&self) -> Result<()> {
        self.is_strange.store(false, Ordering::Release);
        match &self.trusted {
            Some(trusted) if self.place().is_some() => trusted.set_settled(self.context.keys.repository(), true).await,
            _ => Ok(()),
        }
    }
}
