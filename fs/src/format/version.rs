use strongroom_core::{Error, Result};

use super::FILE_BYTES_MAX;
use super::fields::Fields;

/// Most versions of a file beside the current one.
pub const VERSIONS_MAX: u32 = 1_000;

/// A version of a file that is not the current one: `changed u64 ‖ size u64 ‖ held u64`.
///
/// Its content is what the extents of later versions leave of the current one; see [`super::PAST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRow {
    /// When its content came about, in nanoseconds since the epoch.
    pub changed: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes of data in the extents that the next version replaced: what nothing but this version and older ones holds.
    pub held_bytes: u64,
}

impl VersionRow {
    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [self.changed, self.size, self.held_bytes].iter().flat_map(|field| field.to_le_bytes()).collect()
    }

    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut fields = Fields::new("version", row);
        let (changed, size, held_bytes) = (fields.u64()?, fields.u64()?, fields.u64()?);
        if size > FILE_BYTES_MAX || held_bytes > size {
            return Err(fields.damaged("impossible size"));
        }
        fields.done()?;
        Ok(Self { changed, size, held_bytes })
    }
}

pub(crate) fn version_key(inode: u64, number: u64) -> [u8; 16] {
    ((u128::from(inode) << 64) | u128::from(number)).to_be_bytes()
}

pub(crate) fn split_version_key(key: &[u8]) -> Result<(u64, u64)> {
    let key: [u8; 16] =
        key.try_into().map_err(|_| Error::damaged("version", None, format!("key of {} bytes", key.len())))?;
    let [inode, number] = halves(key);
    Ok((inode, number))
}

fn halves(key: [u8; 16]) -> [u64; 2] {
    let both = u128::from_be_bytes(key);
    // Each half is a u64 by construction.
    [u64::try_from(both >> 64).unwrap_or_default(), u64::try_from(both & u128::from(u64::MAX)).unwrap_or_default()]
}

/// The key of an extent of the version before `death`, which that version replaced.
pub(crate) fn past_key(inode: u64, death: u64, offset: u64) -> [u8; 24] {
    let mut key = [0; 24];
    for (to, from) in key.chunks_exact_mut(8).zip([inode, death, offset]) {
        to.copy_from_slice(&from.to_be_bytes());
    }
    key
}

pub(crate) fn split_past_key(key: &[u8]) -> Result<(u64, u64, u64)> {
    let split = key.split_first_chunk::<16>().and_then(|(head, offset)| Some((*head, offset.try_into().ok()?)));
    let (head, offset) =
        split.ok_or_else(|| Error::damaged("past extent", None, format!("key of {} bytes", key.len())))?;
    let [inode, death] = halves(head);
    Ok((inode, death, u64::from_be_bytes(offset)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_version_reads_back_as_written(changed in any::<u64>(), size in 0..=FILE_BYTES_MAX, part in any::<u64>()) {
            let row = VersionRow { changed, size, held_bytes: part % (size + 1) };
            prop_assert_eq!(VersionRow::decode(&row.encode()).unwrap(), row);
        }

        #[test]
        fn any_bytes_decode_to_an_error_or_to_a_version_that_encodes_to_them(bytes in proptest::collection::vec(0u8..3, 0..30)) {
            if let Ok(row) = VersionRow::decode(&bytes) {
                prop_assert_eq!(row.encode(), bytes);
            }
        }

        #[test]
        fn keys_sort_by_inode_then_version_then_offset(a in any::<(u64, u64, u64)>(), b in any::<(u64, u64, u64)>()) {
            let (left, right) = (past_key(a.0, a.1, a.2), past_key(b.0, b.1, b.2));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            prop_assert_eq!(split_past_key(&left).unwrap(), a);
            prop_assert_eq!(version_key(a.0, a.1).cmp(&version_key(b.0, b.1)), (a.0, a.1).cmp(&(b.0, b.1)));
            prop_assert_eq!(split_version_key(&version_key(a.0, a.1)).unwrap(), (a.0, a.1));
        }
    }

    #[test]
    fn keys_of_another_length_are_damage() {
        assert!(split_past_key(&[0; 23]).is_err() && split_past_key(&[0; 25]).is_err());
        assert!(split_version_key(&[0; 15]).is_err() && split_version_key(&[0; 17]).is_err());
    }
}
