//! Where a writer is. That nobody else is there, a lock proves of one place: of a folder that is kept alike on several machines,
//! each has its own, and what was written at another may have arrived in part.
//!
//! So who claims an epoch there draws a tag, and numbers its blocks from that on: writers that were apart give different names to
//! their blocks though they claimed the same epoch, and nobody takes for left over what has come from elsewhere, before the commit
//! that names it.

use bytes::Bytes;

use super::Engine;
use super::root::Root;
use super::shared::{Shared, lock};
use crate::format::rows::{self, Claim, EpochRow, PLACE_BYTES};
use crate::storage::Name;
use crate::{Error, Result};

/// The counter is a tag of 20 bits, and the how-manieth block. Should there be more, they are taken for those of another claim.
const TAG_SHIFT: u32 = 28;
const TAGS_COUNT: u32 = 1 << 20;

/// Who claimed an epoch; none where there is one place, and a number is claimed once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claimant(Option<Claim>);

impl Claimant {
    pub(super) fn of(row: &EpochRow) -> Self {
        Self(row.claim)
    }

    pub(super) fn row(self, time: u64) -> EpochRow {
        EpochRow { time, claim: self.0 }
    }

    pub(super) fn place(self) -> Option<[u8; PLACE_BYTES]> {
        self.0.map(|claim| claim.place)
    }

    /// The counter of the first block.
    pub(super) fn first_counter(self) -> u64 {
        u64::from(self.tag()) << TAG_SHIFT
    }

    /// Whether a block of this number, and of the epoch, was made under this claim.
    pub(super) fn made(self, counter: u64) -> bool {
        counter >> TAG_SHIFT == u64::from(self.tag())
    }

    fn tag(self) -> u32 {
        self.0.map_or(0, |claim| claim.tag % TAGS_COUNT)
    }
}

/// Whether what an epoch's row says, if there is one, is that it has not ended.
pub(super) fn is_open(row: Option<Bytes>) -> Result<bool> {
    Ok(match row {
        Some(row) => !decode(&row)?.has_ended(),
        None => false,
    })
}

pub(super) fn decode(row: &[u8]) -> Result<EpochRow> {
    EpochRow::decode(row).map_err(|error| Error::damaged("epoch row", None, error.to_string()))
}

/// The epoch that a row is of.
pub(super) fn decode_key(key: &[u8]) -> Result<u32> {
    let number = rows::decode_number_key(key).ok().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| Error::damaged("epoch row", None, "key of another length"))
}

impl Engine {
    /// What the newest commits are called in storage, at most so many: two that wrote apart have both put those.
    #[must_use]
    pub fn newest_commits(&self, count_max: u64) -> Vec<Name> {
        let newest = self.shared.root().sequence;
        let first = newest.saturating_sub(count_max).saturating_add(1).max(1);
        (first..=newest).map(|sequence| self.shared.chain.name(sequence)).collect()
    }
}

impl Shared {
    /// Where this writer is; none where there is one place.
    pub(super) fn place(&self) -> Option<[u8; PLACE_BYTES]> {
        let occupancy = self.storage().occupancy()?;
        // Keyed, and cut short: it is for comparing, and says nothing of the machine to whoever reads it.
        self.context.keys.identity(occupancy.place()?).first_chunk().copied()
    }

    /// Who is about to claim an epoch.
    pub(super) fn new_claimant(&self) -> Result<Claimant> {
        let Some(place) = self.place() else { return Ok(Claimant::default()) };
        // 0 is for those who need none; and behind the last one no numbers are left to run into.
        let tag = u32::from_le_bytes(self.env().random()?) % (TAGS_COUNT - 2) + 1;
        Ok(Claimant(Some(Claim { place, tag, has_ended: false })))
    }

    /// Who claimed an epoch of this handle's.
    pub(super) fn own_claimant(&self, epoch: u32) -> Claimant {
        lock(&self.claims).get(&epoch).copied().unwrap_or_default()
    }

    /// Whether the commit in storage under a number is the one of this history, or gone. Another, of a line that was written to at
    /// another place meanwhile, is that line's to delete. What cannot be read is not known to be ours: it stays, and nobody who
    /// writes fails over it.
    pub(super) async fn is_ours(&self, root: &Root, sequence: u64) -> bool {
        // The history goes back no further, and neither does another line that somebody could still want.
        if self.place().is_none() || root.sequence.saturating_sub(sequence) > rows::HISTORY_COMMITS {
            return true;
        }
        let found = match self.chain.read_head(sequence).await {
            Ok(None) => return true,
            Ok(Some((_, hash))) => hash,
            Err(_) => return false,
        };
        let known = root.get(&self.nodes, &rows::history_key(sequence)).await;
        matches!(known, Ok(Some(known)) if known.as_ref() == found.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::COUNTER_MAX;

    /// The last block of a claim.
    const LAST: u32 = (1 << TAG_SHIFT) - 1;

    fn claimant(tag: u32) -> Claimant {
        Claimant(Some(Claim { place: [7; PLACE_BYTES], tag, has_ended: false }))
    }

    #[test]
    fn an_epoch_row_has_a_claim_or_none_and_nothing_else() {
        for claimant in [Claimant::default(), claimant(9)] {
            let row = claimant.row(0x0102_0304_0506_0708);
            let bytes = row.encode();
            assert_eq!(EpochRow::decode(&bytes).unwrap(), row);
            assert_eq!(bytes.get(..8), Some([8, 7, 6, 5, 4, 3, 2, 1].as_slice()));
            for length in (0..bytes.len()).filter(|length| *length != 8) {
                assert!(EpochRow::decode(bytes.get(..length).unwrap()).is_err(), "{length} bytes");
            }
            assert!(EpochRow::decode(&[&*bytes, &[0]].concat()).is_err());
        }
    }

    #[test]
    fn an_ended_epoch_keeps_its_claim_and_is_open_no_more() {
        let row = claimant(9).row(3);
        let ended = row.ended().unwrap();
        assert_eq!((ended.time, Claimant::of(&ended).place()), (3, claimant(9).place()));
        assert!(Claimant::of(&ended).made(9 << TAG_SHIFT) && ended.has_ended() && !row.has_ended());
        let bytes = ended.encode();
        assert_eq!(EpochRow::decode(&bytes).unwrap(), ended);
        assert_eq!(Claimant::default().row(3).ended(), None);
        assert!(is_open(Some(row.encode())).unwrap());
        assert!(!is_open(Some(bytes.clone())).unwrap() && !is_open(None).unwrap());
        let (state, before) = bytes.split_last().unwrap();
        assert_eq!(*state, 1);
        assert!(EpochRow::decode(&[before, &[2]].concat()).is_err());
        assert!(is_open(Some(Bytes::from_static(b"another length"))).is_err());
    }

    #[test]
    fn each_claim_numbers_its_blocks_apart() {
        let claimants = [Claimant::default(), claimant(1), claimant(TAGS_COUNT - 1)];
        let counters = claimants.map(Claimant::first_counter);
        assert_eq!((counters[0], counters[1]), (0, 1 << 28));
        assert_eq!(counters[2] + u64::from(LAST), COUNTER_MAX);
        for (one, claimant) in claimants.iter().enumerate() {
            for (other, first) in counters.iter().enumerate() {
                assert_eq!(claimant.made(*first), one == other);
                assert_eq!(claimant.made(first + u64::from(LAST)), one == other);
            }
        }
    }
}
