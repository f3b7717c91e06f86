//! Bytes that are not what was put.

use std::ops::Range;

use bytes::Bytes;

use super::Attack;
use crate::Dice;

/// The bytes with one bit turned; bits past the end turn nothing.
#[must_use]
pub fn flipped(bytes: &[u8], bit: u64) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|place| bytes.get_mut(place)) {
        *byte ^= 1 << (bit % 8);
    }
    bytes.into()
}

/// What an enemy makes of a blob, with a word for each: cut, lengthened, emptied, zeroed, and `flips` random bits turned,
/// one at a time, those where structures begin and the last among them.
#[must_use]
pub fn distortions(blob: &Bytes, flips: u64, dice: &mut Dice) -> Vec<(&'static str, Bytes)> {
    let bits = 8 * blob.len() as u64;
    let cut = |end: usize| blob.slice(..end.min(blob.len()));
    let mut distorted = vec![
        ("empty", Bytes::new()),
        ("cut in the salt", cut(9)),
        ("one byte short", cut(blob.len().saturating_sub(1))),
        ("one byte longer", [blob, &b"x"[..]].concat().into()),
        ("twice as long", [&blob[..], &blob[..]].concat().into()),
        ("zeros", vec![0; blob.len()].into()),
    ];
    distorted.extend((0..flips).map(|_| ("a bit", flipped(blob, dice.below(bits)))));
    for byte in [0, 16, 200, 300] {
        distorted.push(("a bit in the beginning", flipped(blob, 8 * byte + dice.below(8))));
    }
    distorted.push(("a bit at the end", flipped(blob, bits.saturating_sub(1))));
    distorted.retain(|(_, bytes)| bytes != blob);
    distorted
}

/// A part of a blob, as far as it goes.
pub(super) fn part(blob: &Bytes, range: Option<Range<u64>>) -> Bytes {
    let Some(range) = range else { return blob.clone() };
    let place = |at: u64| usize::try_from(at).map_or(blob.len(), |at| at.min(blob.len()));
    let (start, end) = (place(range.start), place(range.end));
    blob.slice(start..end.max(start))
}

/// A reply that is not what was read.
pub(super) fn reply(honest: &Bytes, attack: Attack, dice: &mut Dice) -> Bytes {
    match attack {
        Attack::UnderReply => {
            let end = dice.below(honest.len() as u64);
            part(honest, Some(0..end))
        }
        Attack::OverReply => {
            let more = 1 + usize::try_from(dice.below(4096)).unwrap_or_default();
            [&honest[..], &vec![dice.roll().to_le_bytes()[0]; more]].concat().into()
        }
        _ => flipped(honest, dice.below(8 * honest.len() as u64)),
    }
}
