//! Whether what was written from this place is of the history that is open here.
//!
//! A lock proves that no writer of this place is there. That nobody can come to need what such a writer has put is proven by it
//! only if nothing that was committed under its epoch has gone: where the blobs may be at several places, the history that is here
//! may be another one's, made apart since that epoch was claimed, and what was committed here is a fork's other side; or it has
//! come back, and the last commits of it are still to come.
//!
//! So whoever opens without having followed the history here to its newest commit *disowns* what was claimed from here: the rows
//! name no place from then on, whose writers no lock tells of. And every commit does that to rows of other places: who comes back to
//! one of those may have committed meanwhile what this history knows nothing of.
//!
//! What is disowned waits for long. A program that has no memory of a folder disowns with each opening, and what its crashes leave
//! would fill the disk. So a history says whether all of it was made at one place: while that is this one, no more than the newest of
//! what was disowned waits. It says so from its first commit on; of one that does not, nobody knows.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::commit::Draft;
use super::place::{self, Claimant};
use super::root::Root;
use super::shared::{Shared, lock};
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

/// A writer that commits is heard of so often at least, in milliseconds: much more often than others wait for it.
const SIGN_MILLIS: u64 = 6 * 60 * 60 * 1000;

/// The row of an epoch that no lock is a proof for, and that is open, and was heard of now.
pub(super) fn disowned(row: &EpochRow, now: u64) -> EpochRow {
    let claim = row.claim.map(|claim| Claim { place: NOWHERE, has_ended: false, ..claim });
    heard_of(&EpochRow { claim, ..*row }, now)
}

/// The row of an epoch that was heard of now. A clock that is behind takes nothing back.
pub(super) fn heard_of(row: &EpochRow, now: u64) -> EpochRow {
    EpochRow { time: row.time.max(now), ..*row }
}

/// What a commit says of where it is made.
pub(super) struct Told {
    /// All that there was to be said.
    pub(super) all: bool,
    /// That its writer is there, at this time.
    pub(super) signed_at: Option<u64>,
}

/// Where a history says that it was made, if it was at one of several places.
fn written_at(row: Option<Bytes>) -> Result<Option<Place>> {
    let place = |row: Bytes| Place::try_from(row.as_ref());
    row.map(place).transpose().map_err(|_| Error::damaged("place of a history", None, "of another length"))
}

/// What it has to say once a commit is made here; none where it says that. `is_first`: it is the first of all. Of a history that says
/// nothing, some may have been made elsewhere.
fn written_here_too(at: Option<Place>, here: Place, is_first: bool) -> Option<Place> {
    match at {
        None => Some(if is_first { here } else { NOWHERE }),
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

    /// Whether it is known that what was written so far, at any of several places, was all written from here; or there is one place.
    pub(super) async fn is_written_here_alone(&self, view: &Transaction) -> Result<bool> {
        if self.place().is_none() {
            return Ok(true);
        }
        let at = written_at(view.get_own(&rows::counter_key(rows::WRITTEN_AT)).await?)?;
        Ok(at == self.place())
    }

    /// What a commit is to say, which somebody makes who knows that nothing is on its way from other places.
    pub(super) fn only_here(&self) -> Option<(Bytes, Bytes)> {
        self.place().map(|here| (rows::counter_key(rows::WRITTEN_AT), Bytes::copy_from_slice(&here)))
    }

    /// Has a commit say where it is made, that its writer is there, and disown what is open of other places. What is said makes no
    /// commit spill that has no epoch for it.
    pub(super) async fn tell_place(&self, base: &Root, draft: &mut Draft) -> Result<Told> {
        let nothing = Told { all: true, signed_at: None };
        let Some(here) = self.place() else { return Ok(nothing) };
        let now = self.env().now();
        // A state that we have made ourselves says all of it, but for what time does.
        let signed_at = self.signed_at.load(Ordering::Acquire);
        let is_heard = (signed_at..signed_at.saturating_add(SIGN_MILLIS)).contains(&now);
        if is_heard && self.told_at.load(Ordering::Acquire) == base.sequence {
            return Ok(nothing);
        }
        let has_epoch = lock(&self.epoch).number.is_some();
        let key = rows::counter_key(rows::WRITTEN_AT);
        let mut told = Vec::new();
        if !draft.rows.contains_key(&key)
            && let Some(at) =
                written_here_too(written_at(base.get(&self.nodes, &key).await?)?, here, base.sequence == 0)
        {
            let at = Bytes::copy_from_slice(&at);
            if has_epoch {
                draft.rows.insert(key, Some(at));
            } else {
                told.push((key, at));
            }
        }
        let epochs = self.epochs_in(base).await?;
        if !is_heard {
            let own = self.own_epochs();
            let own = epochs.iter().filter(|(epoch, row)| own.contains(epoch) && !row.has_ended());
            told.extend(own.map(|(epoch, row)| (rows::epoch_key(*epoch), heard_of(row, now).encode())));
        }
        // The newest first: they are the most likely to be gone on with.
        let apart: Vec<_> = epochs.iter().rev().filter(|(_, row)| is_apart(row, here)).collect();
        let heard = apart.iter().map(|(_, row)| row.time).fold(now, u64::max);
        told.extend(apart.iter().map(|(epoch, row)| (rows::epoch_key(**epoch), disowned(row, heard).encode())));
        // What this commit decides of an epoch stands.
        told.retain(|(key, _)| !draft.rows.contains_key(key));
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
        Ok(Told { all: said == all, signed_at: (!is_heard && said == all).then_some(now) })
    }

    /// What a commit that we have made says.
    pub(super) fn has_told_place(&self, told: &Told, sequence: u64) {
        if told.all {
            self.told_at.store(sequence, Ordering::Release);
        }
        if let Some(time) = told.signed_at {
            self.signed_at.store(time, Ordering::Release);
        }
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
        assert_eq!(written_here_too(None, HERE, true), Some(HERE));
        assert_eq!(written_here_too(None, HERE, false), Some(NOWHERE));
        for is_first in [true, false] {
            assert_eq!(written_here_too(Some(HERE), HERE, is_first), None);
            assert_eq!(written_here_too(Some(THERE), HERE, is_first), Some(NOWHERE));
            assert_eq!(written_here_too(Some(NOWHERE), HERE, is_first), None);
        }
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
            let disowned = disowned(&row(THERE, has_ended), 5);
            assert_eq!(disowned, EpochRow { time: 5, ..row(NOWHERE, false) });
            assert_eq!(super::disowned(&row(THERE, has_ended), 1), row(NOWHERE, false), "a clock that is behind");
            assert!(!is_apart(&disowned, HERE));
        }
    }
}
