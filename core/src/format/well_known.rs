//! The names that storage may recognise: those of headers and checkpoint hints. All others are encrypted.
//!
//! ```text
//! header  "strongr" 7 ‖ 'H' ‖ copy u8 ‖ generation u56 big-endian     (so that names sort by copy, then generation)
//! hint    "strongr" 7 ‖ 'c' ‖ 8 random bytes
//! ```

use super::limits::{HEADER_COPIES_COUNT, HEADER_GENERATION_MAX};

/// What the names of headers and hints start with: one listing of it finds both.
pub const MAGIC: [u8; 7] = *b"strongr";
/// What the names of headers start with.
pub const HEADER_PREFIX: [u8; 8] = *b"strongrH";
/// What the names of checkpoint hints start with.
pub const HINT_PREFIX: [u8; 8] = *b"strongrc";

/// Which copy of which header a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderId {
    /// The generation, at most [`HEADER_GENERATION_MAX`].
    pub generation: u64,
    /// 0 or 1.
    pub copy: u8,
}

impl HeaderId {
    /// The name; `None` for a generation or a copy that there cannot be.
    #[must_use]
    pub fn name(&self) -> Option<[u8; 16]> {
        if self.generation > HEADER_GENERATION_MAX || self.copy >= HEADER_COPIES_COUNT {
            return None;
        }
        let number = u64::from(self.copy) << 56 | self.generation;
        Some(join(HEADER_PREFIX, number.to_be_bytes()))
    }

    /// Reads a name; `None` for one that is not of a header.
    #[must_use]
    pub fn from_name(name: &[u8; 16]) -> Option<Self> {
        let number = name.strip_prefix(&HEADER_PREFIX)?.first_chunk().copied().map(u64::from_be_bytes)?;
        let copy = u8::try_from(number >> 56).ok()?;
        (copy < HEADER_COPIES_COUNT).then_some(Self { generation: number & HEADER_GENERATION_MAX, copy })
    }
}

/// The name of a checkpoint hint, from eight random bytes.
#[must_use]
pub fn hint_name(random: [u8; 8]) -> [u8; 16] {
    join(HINT_PREFIX, random)
}

/// Whether a name is of a checkpoint hint.
#[must_use]
pub fn is_hint_name(name: &[u8; 16]) -> bool {
    name.starts_with(&HINT_PREFIX)
}

fn join(prefix: [u8; 8], rest: [u8; 8]) -> [u8; 16] {
    (u128::from(u64::from_be_bytes(prefix)) << 64 | u128::from(u64::from_be_bytes(rest))).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_name_is_spelled_as_the_format_says() {
        let id = HeaderId { generation: 0x0001_0203_0405_0607, copy: 1 };
        assert_eq!(&id.name().unwrap(), b"strongrH\x01\x01\x02\x03\x04\x05\x06\x07");
        assert_eq!(HeaderId { generation: 1 << 56, copy: 0 }.name(), None);
        assert_eq!(HeaderId { generation: 0, copy: 2 }.name(), None);
        assert_eq!(HeaderId::from_name(b"strongrH\x02\0\0\0\0\0\0\0"), None);
        assert_eq!(HeaderId::from_name(b"strongrc\0\0\0\0\0\0\0\0"), None);
    }

    #[test]
    fn a_hint_is_no_header() {
        let hint = hint_name([7; 8]);
        assert_eq!(&hint, b"strongrc\x07\x07\x07\x07\x07\x07\x07\x07");
        assert!(is_hint_name(&hint));
        assert_eq!(HeaderId::from_name(&hint), None);
    }

    proptest! {
        #[test]
        fn header_names_round_trip_and_sort_by_generation(
            generation in 0..=HEADER_GENERATION_MAX, later in 0..=HEADER_GENERATION_MAX, copy in 0..2_u8,
        ) {
            let id = HeaderId { generation, copy };
            prop_assert_eq!(HeaderId::from_name(&id.name().unwrap()), Some(id));
            let other = HeaderId { generation: later, copy };
            prop_assert_eq!(id.name().cmp(&other.name()), generation.cmp(&later));
        }
    }
}
