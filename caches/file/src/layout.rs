//! How the file is laid out, and nothing else: places, entries, and what a page is known by.
//!
//! ```text
//! file  = header, 4 KiB ‖ set ‖ set ‖ …
//! set   = directory: removals u64, 56 bytes of nothing, then an entry for each slot; filled up to 4 KiB
//!         ‖ slot, 16 KiB ‖ slot ‖ …
//! entry = name 16 ‖ page u32 ‖ length u32 ‖ is last u32 ‖ stamp u32 ‖ check 32
//! check = BLAKE3 of name ‖ page ‖ length ‖ is last ‖ bytes
//! ```
//!
//! All numbers are little-endian. A blob is cut into pages of 16 KiB, which is what its readers ask for, and all pages of one lie
//! in one set: so whoever removes it looks at one directory. An entry of length 0 is free.

use strongroom_core::storage::Name;

/// What a slot holds.
pub(crate) const PAGE_BYTES: u64 = 16 << 10;
/// The header, and what directories are filled up to.
pub(crate) const UNIT_BYTES: u64 = 4 << 10;
/// One entry, and what comes before the first.
const ENTRY_BYTES: u64 = 64;
/// Slots of a set, at most: its directory is read for each look.
const SLOTS_MAX: u64 = 319;

const MAGIC: [u8; 16] = *b"strongroom cache";
const VERSION: u32 = 1;

/// How many sets of how many slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    sets: u64,
    slots: u64,
}

/// What is known of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: [u8; 16],
    pub(crate) page: u32,
    pub(crate) length: u32,
    /// Whether the blob ends with this page.
    pub(crate) is_last: bool,
    /// The larger, the later it was wanted.
    pub(crate) stamp: u32,
    pub(crate) check: [u8; 32],
}

impl Layout {
    /// The largest that takes so many bytes at most.
    pub(crate) fn within(bytes_max: u64) -> Self {
        let room = bytes_max.saturating_sub(UNIT_BYTES);
        let sets = room.div_ceil(Self { sets: 1, slots: SLOTS_MAX }.set_bytes());
        let each = room.checked_div(sets).unwrap_or(0);
        let mut slots = (each / PAGE_BYTES).min(SLOTS_MAX);
        while slots > 0 && (Self { sets, slots }).set_bytes() > each {
            slots -= 1;
        }
        if slots == 0 { Self { sets: 0, slots: 0 } } else { Self { sets, slots } }
    }

    /// Slots of a set.
    pub(crate) fn slots(self) -> u64 {
        self.slots
    }

    /// The numbers of all sets.
    pub(crate) fn sets(self) -> std::ops::Range<u64> {
        0..self.sets
    }

    pub(crate) fn directory_bytes(self) -> u64 {
        (ENTRY_BYTES * (self.slots + 1)).next_multiple_of(UNIT_BYTES)
    }

    fn set_bytes(self) -> u64 {
        self.directory_bytes() + self.slots * PAGE_BYTES
    }

    /// The length of the file.
    pub(crate) fn file_bytes(self) -> u64 {
        UNIT_BYTES + self.sets * self.set_bytes()
    }

    /// The set of a blob; `None` where there is no room for anything. Names are noise already.
    pub(crate) fn set_of(self, name: Name) -> Option<u64> {
        let mut start = [0; 8];
        start.iter_mut().zip(name.as_bytes()).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(start).checked_rem(self.sets)
    }

    /// Where a set begins, which is with its count of removals.
    pub(crate) fn directory_at(self, set: u64) -> u64 {
        UNIT_BYTES + set * self.set_bytes()
    }

    pub(crate) fn entry_at(self, set: u64, slot: u64) -> u64 {
        self.directory_at(set) + ENTRY_BYTES * (slot + 1)
    }

    pub(crate) fn stamp_at(self, set: u64, slot: u64) -> u64 {
        self.entry_at(set, slot) + 28
    }

    pub(crate) fn page_at(self, set: u64, slot: u64) -> u64 {
        self.directory_at(set) + self.directory_bytes() + slot * PAGE_BYTES
    }

    /// The layout that a header says, where it says one to the byte.
    pub(crate) fn of_header(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let layout = Self { sets: number(24)?, slots: number(32)? };
        (bytes == layout.header()).then_some(layout)
    }

    /// What the file begins with.
    pub(crate) fn header(self) -> [u8; 64] {
        let mut header = [0; 64];
        let fields = [
            &MAGIC[..],
            &VERSION.to_le_bytes(),
            &u32::try_from(PAGE_BYTES).unwrap_or(0).to_le_bytes(),
            &self.sets.to_le_bytes(),
            &self.slots.to_le_bytes(),
        ];
        header.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        header
    }
}

/// Whether it is the header of some cache of this kind, of whatever size; one that rotted a little is.
pub(crate) fn is_header(bytes: &[u8]) -> bool {
    bytes.iter().zip(&MAGIC).filter(|(there, ours)| there == ours).count() > MAGIC.len() / 2
}

/// How often something was removed from a set, as its directory says.
pub(crate) fn removals(directory: &[u8]) -> u64 {
    directory.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The slots of a directory that hold something.
pub(crate) fn entries(directory: &[u8], slots: u64) -> impl Iterator<Item = (u64, Entry)> {
    let rows = directory.chunks_exact(ENTRY_BYTES as usize).skip(1);
    (0..slots).zip(rows).map(|(slot, row)| (slot, Entry::decode(row))).filter(|(_, entry)| entry.length > 0)
}

impl Entry {
    /// The entry of a page; its stamp is given when it is written.
    pub(crate) fn of(name: Name, page: u32, is_last: bool, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = Self { name: *name.as_bytes(), page, length, is_last, stamp: 0, check: [0; 32] };
        Self { check: entry.check_of(bytes), ..entry }
    }

    /// Whether these bytes are what it is of.
    pub(crate) fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == u64::from(self.length) && self.check == self.check_of(bytes)
    }

    fn check_of(&self, bytes: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.name);
        hasher.update(&self.page.to_le_bytes());
        hasher.update(&self.length.to_le_bytes());
        hasher.update(&u32::from(self.is_last).to_le_bytes());
        hasher.update(bytes);
        *hasher.finalize().as_bytes()
    }

    pub(crate) fn encode(&self) -> [u8; ENTRY_BYTES as usize] {
        let mut row = [0; ENTRY_BYTES as usize];
        let (page, length) = (self.page.to_le_bytes(), self.length.to_le_bytes());
        let (is_last, stamp) = (u32::from(self.is_last).to_le_bytes(), self.stamp.to_le_bytes());
        let fields = [&self.name[..], &page, &length, &is_last, &stamp, &self.check];
        row.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        row
    }

    fn decode(row: &[u8]) -> Self {
        fn field<const N: usize>(row: &[u8], at: usize) -> [u8; N] {
            row.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
        }
        let number = |at| u32::from_le_bytes(field(row, at));
        let (page, length, is_last, stamp) = (number(16), number(20), number(24), number(28));
        // What no page is as long as is no entry.
        let length = if u64::from(length) > PAGE_BYTES { 0 } else { length };
        Self { name: field(row, 0), page, length, is_last: is_last == 1, stamp, check: field(row, 32) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_bound_the_file_is_within_it_and_nearly_as_large() {
        for bytes_max in (0..200).map(|step| step * 7_919).chain((20..40).map(|shift| (1 << shift) + 12_345)) {
            let layout = Layout::within(bytes_max);
            if layout.sets().is_empty() {
                assert!(bytes_max < UNIT_BYTES * 2 + PAGE_BYTES, "{bytes_max}");
                continue;
            }
            assert!(layout.file_bytes() <= bytes_max, "{bytes_max}: {layout:?}");
            let lost = bytes_max - layout.file_bytes();
            let per_set = lost.checked_div(layout.sets).unwrap();
            assert!(per_set < PAGE_BYTES + UNIT_BYTES * 2, "{bytes_max}: {layout:?} leaves {lost}");
            let last = layout.sets - 1;
            assert_eq!(layout.page_at(last, layout.slots), layout.file_bytes());
            assert!(layout.entry_at(last, layout.slots) <= layout.page_at(last, 0));
        }
    }

    #[test]
    fn an_entry_comes_back_and_is_of_its_bytes_alone() {
        let name = Name::new([7; 16]);
        let entry = Entry { stamp: 9, ..Entry::of(name, 3, true, b"bytes") };
        let directory = [&[0; 64][..], &[0; 64], &entry.encode()].concat();
        assert_eq!(entries(&directory, 2).collect::<Vec<_>>(), [(1, entry)]);
        assert!(entry.is_of(b"bytes") && !entry.is_of(b"byteS") && !entry.is_of(b"byte"));
        for other in [Entry { name: [8; 16], ..entry }, Entry { page: 4, ..entry }, Entry { is_last: false, ..entry }] {
            assert!(!other.is_of(b"bytes"), "{other:?}");
        }
    }
}
