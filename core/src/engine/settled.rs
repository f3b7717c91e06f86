//! Whether what was written from this place is of the history that is open here.
//!
//! A lock proves that no writer of this place is there. That nobody can come to need what such a writer has put is proven by it
//! only if nothing that was committed under its epoch has gone: where the blobs may be at several places, the history that is here
//! may be another one's, made apart since that epoch was claimed, and what was committed here is a fork's other side; or it has
//! come back, and the last commits of it are still to come.
//!
//! So a history says whether all of it was made at one place. While that is this one, it is nobody else's, and a lock proves all.
//! From the first commit of another place on, whoever opens without having followed the history here to its newest commit
//! *disowns* what was claimed from here: the rows name another place from then on, whose writers no lock tells of. And every commit
//! does that to rows of other places: who comes back to one of those may have committed meanwhile what this history knows nothing of.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::commit::Draft;
use super::place::{self, Claimant};
use super::root::Root;
use super::shared::Shared;
use super::transaction::Transaction;
use super::view::table_range;
use crate::format::rows::{self, Claim, EpochRow, PLACE_BYTES};
use crate::tree::{Direction, MergedCursor};
use crate::{Error, Result};

type Place = [u8; PLACE_BYTES];

/// A place that nobody is at.
pub(super) const NOWHERE: Place = [0; PLACE_BYTES];

/// How many epochs of other places one commit disowns, at most.
const APART_EPOCHS_MAX: usize = 60;

/// The row of an epoch that no lock is a proof for, and that is open.
pub(super) fn disowned(row: &EpochRow) -> EpochRow {
    let claim = row.claim.map(|claim| Claim { place: NOWHERE, has_ended: false, ..claim });
    EpochRow { claim, ..*row }
}

/// Where a history says that it was made, if it was at one of several places.
fn written_at(row: Option<Bytes>) -> Result<Option<Place>> {
    let place = |row: Bytes| Place::try_from(row.as_ref());
    row.map(place).transpose().map_err(|_| Error::damaged("place of a history", None, "of another length"))
}

/// What it has to say once a commit is made here; none where it says that.
fn written_here_too(at: Option<Place>, here: Place) -> Option<Place> {
    match at {
        None => Some(here),
        Some(at) if at == here || at == NOWHERE => None,
        Some(_) => Some(NOWHERE),
    }
}

/// Whether an epoch is open that was claimed elsewhere, and a lock there would still be a proof for it.
fn is_apart(row: &EpochRow, here: Place) -> bool {
    !row.has_ended() && Claimant::of(row).place().is_some_and(|place| place != here && place != NOWHERE)
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

    /// Whether this device has not followed the history that it has found here.
    pub(super) fn is_strange(&self) -> bool {
        self.is_strange.load(Ordering::Acquire)
    }

    /// Whether what was written so far, at any of several places, was all written from here, or there is one place.
    pub(super) async fn is_written_here_alone(&self, view: &Transaction) -> Result<bool> {
        if self.place().is_none() {
            return Ok(true);
        }
        let at = written_at(view.get_own(&rows::counter_key(rows::WRITTEN_AT)).await?)?;
        Ok(at.is_none() || at == self.place())
    }

    /// Whether a lock proves nothing, in a state, of what was written from here.
    pub(super) async fn is_strange_in(&self, view: &Transaction) -> Result<bool> {
        Ok(self.is_strange() && !self.is_written_here_alone(view).await?)
    }

    /// What a commit is to say, which somebody makes who knows that nothing is on its way from other places.
    pub(super) fn only_here(&self) -> Option<(Bytes, Bytes)> {
        self.place().map(|here| (rows::counter_key(rows::WRITTEN_AT), Bytes::copy_from_slice(&here)))
    }

    /// Has a commit say where it is made, and disown what is open of other places; whether it says all that there is to be said.
    /// What is said makes no commit spill: that takes an epoch, which is not there for each.
    pub(super) async fn tell_place(&self, base: &Root, draft: &mut Draft) -> Result<bool> {
        let Some(here) = self.place() else { return Ok(true) };
        // A state that we have made ourselves says all of it.
        if self.told_at.load(Ordering::Acquire) == base.sequence {
            return Ok(true);
        }
        let mut told = Vec::new();
        let key = rows::counter_key(rows::WRITTEN_AT);
        if !draft.rows.contains_key(&key)
            && let Some(at) = written_here_too(written_at(base.get(&self.nodes, &key).await?)?, here)
        {
            told.push((key, Bytes::copy_from_slice(&at)));
        }
        // The newest first: they are the most likely to be gone on with.
        let apart = self.epochs_in(base).await?.into_iter().rev().filter(|(_, row)| is_apart(row, here));
        let apart = apart.map(|(epoch, row)| (rows::epoch_key(epoch), disowned(&row).encode()));
        // What this commit decides of an epoch stands.
        told.extend(apart.filter(|(key, _)| !draft.rows.contains_key(key)));
        let all = told.len();
        told.truncate(APART_EPOCHS_MAX);
        let (max, mut bytes, mut said) = (self.chain.body_bytes_max(), draft.body_bytes(), 0);
        for (key, value) in told {
            let more = Draft::row_bytes(&key, Some(&value));
            if bytes > max || bytes + more <= max {
                bytes += more;
                draft.rows.insert(key, Some(value));
                said += 1;
            }
        }
        Ok(said == all)
    }

    /// Whether a commit that we have made says all that [`Shared::tell_place`] had to say.
    pub(super) fn has_told_place(&self, sequence: u64) {
        self.told_at.store(sequence, Ordering::Release);
    }

    async fn epochs_in(&self, root: &Root) -> Result<BTreeMap<u32, EpochRow>> {
        let range = table_range(rows::EPOCH, (Bound::Unbounded, Bound::Unbounded));
        let (tree, overlay) = (root.space.tree, root.space.overlay.clone());
        let mut cursor = MergedCursor::new(self.nodes.clone(), tree, overlay, range, Direction::Ascending);
        let mut epochs = BTreeMap::new();
        while let Some((key, value)) = cursor.next().await? {
            epochs.insert(place::decode_key(&key)?, place::decode(&value)?);
        }
        Ok(epochs)
    }

    /// Nothing is left that was claimed from here by a history that may be another.
    pub(super) async fn settled(&self) -> Result<()> {
        self.is_strange.store(false, Ordering::Release);
        match &self.trusted {
            Some(trusted) if self.place().is_some() => {
                // Of this history it is so, and of none before it.
                self.remember().await?;
                trusted.set_settled(self.context.keys.repository(), true).await
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = [1; PLACE_BYTES];
    const THERE: Place = [2; PLACE_BYTES];

    #[test]
    fn a_history_says_where_it_was_made_until_that_was_at_two_places() {
        assert_eq!(written_here_too(None, HERE), Some(HERE));
        assert_eq!(written_here_too(Some(HERE), HERE), None);
        assert_eq!(written_here_too(Some(THERE), HERE), Some(NOWHERE));
        assert_eq!(written_here_too(Some(NOWHERE), HERE), None);
        assert_eq!(written_at(None).unwrap(), None);
        assert_eq!(written_at(Some(Bytes::copy_from_slice(&HERE))).unwrap(), Some(HERE));
        assert!(written_at(Some(Bytes::from_static(b"short"))).is_err());
    }

    #[test]
    fn what_is_disowned_is_open_keeps_its_tag_and_is_apart_no_more() {
        let row = |place, has_ended| EpochRow { time: 3, claim: Some(Claim { place, tag: 9, has_ended }) };
        assert!(is_apart(&row(THERE, false), HERE));
        assert!(!is_apart(&row(THERE, true), HERE) && !is_apart(&row(HERE, false), HERE));
        assert!(!is_apart(&EpochRow { time: 3, claim: None }, HERE));
        for has_ended in [true, false] {
            let disowned = disowned(&row(THERE, has_ended));
            assert_eq!(disowned, row(NOWHERE, false));
            assert!(!is_apart(&disowned, HERE));
        }
    }
}
