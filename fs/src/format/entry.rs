use std::ops::Bound;

use strongroom_core::{Error, Result};

use super::fields::Fields;
use super::{Kind, NAME_BYTES_MAX};

const STRUCTURE: &str = "directory entry";

/// What a name in a directory stands for: `inode u64 ‖ kind u8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// The inode.
    pub inode: u64,
    /// Its kind, repeated here so that listing reads no inode.
    pub kind: Kind,
}

impl EntryRow {
    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> [u8; 9] {
        let mut row = [self.kind.code(); 9];
        if let Some(inode) = row.first_chunk_mut::<8>() {
            *inode = self.inode.to_le_bytes();
        }
        row
    }

    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(STRUCTURE, row);
        let inode = fields.u64()?;
        let kind = Kind::from_code(fields.u8()?).ok_or_else(|| fields.damaged("unknown kind"))?;
        fields.done()?;
        Ok(Self { inode, kind })
    }
}

/// A key without an allocation: the longest is 8 + 255 bytes.
#[derive(Clone, Copy)]
pub(crate) struct EntryKey {
    bytes: [u8; 8 + NAME_BYTES_MAX],
    length: usize,
}

impl EntryKey {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The key of `name` in `parent`; the name's length was checked when the path was read, and is cut here rather than trusted.
pub(crate) fn entry_key(parent: u64, name: &[u8]) -> EntryKey {
    let mut key = EntryKey { bytes: [0; 8 + NAME_BYTES_MAX], length: 8 };
    let (head, tail) = key.bytes.split_at_mut(8);
    head.copy_from_slice(&parent.to_be_bytes());
    for (to, from) in tail.iter_mut().zip(name) {
        *to = *from;
        key.length += 1;
    }
    key
}

/// All entries of `parent`, or those after the name `after`.
pub(crate) fn entry_range(parent: u64, after: Option<&[u8]>) -> (Bound<EntryKey>, Bound<EntryKey>) {
    let start =
        after.map_or_else(|| Bound::Included(entry_key(parent, &[])), |name| Bound::Excluded(entry_key(parent, name)));
    let end = parent.checked_add(1).map_or(Bound::Unbounded, |next| Bound::Excluded(entry_key(next, &[])));
    (start, end)
}

pub(crate) fn split_entry_key(key: &[u8]) -> Result<(u64, &[u8])> {
    key.split_first_chunk::<8>()
        .filter(|(_, name)| (1..=NAME_BYTES_MAX).contains(&name.len()))
        .map(|(parent, name)| (u64::from_be_bytes(*parent), name))
        .ok_or_else(|| Error::damaged(STRUCTURE, None, format!("key of {} bytes", key.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entry_keys_sort_by_parent_then_name(
            a in (any::<u64>(), proptest::collection::vec(any::<u8>(), 1..=255)),
            b in (any::<u64>(), proptest::collection::vec(any::<u8>(), 1..=255)),
        ) {
            let (left, right) = (entry_key(a.0, &a.1), entry_key(b.0, &b.1));
            prop_assert_eq!(left.as_slice().cmp(right.as_slice()), a.cmp(&b));
            prop_assert_eq!(split_entry_key(left.as_slice()).unwrap(), (a.0, a.1.as_slice()));
        }

        #[test]
        fn any_bytes_decode_to_an_error_or_to_an_entry_that_encodes_to_them(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(row) = EntryRow::decode(&bytes) {
                prop_assert_eq!(row.encode().to_vec(), bytes);
            }
        }
    }

    #[test]
    fn a_directory_entry_reads_back_as_written() {
        let row = EntryRow { inode: u64::MAX - 7, kind: Kind::Directory };
        assert_eq!(EntryRow::decode(&row.encode()).unwrap(), row);
    }
}
