use strongroom_core::{Error, Result};

use super::FILE_BYTES_MAX;
use super::fields::Fields;
use super::version::VERSIONS_MAX;

const STRUCTURE: &str = "content row";

/// What changes with every write: `changed u64`, for files `size u64`, for files that have versions, or a limit of
/// their own, `current u64 ‖ oldest u64 ‖ limit u32`, and where the content has a tag, `tag [u8; 16]`.
///
/// It stands apart from the inode so that writers of content and changers of attributes do not conflict. A directory's
/// row is only ever merged to the larger `changed`, so that creating in one directory at the same time does not conflict.
/// A file's `changed` grows with every commit to its content: an unchanged row means unchanged extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ContentRow {
    /// When it last changed, in nanoseconds since the epoch.
    pub changed: u64,
    /// Length in bytes; 0 for a directory.
    pub size: u64,
    /// Which versions of it there are.
    pub versions: Versions,
    /// What an application has given to this very content; another content has none.
    pub tag: Option<ContentTag>,
}

/// Bytes that an application gives to the content of a file, to know it by.
pub type ContentTag = [u8; 16];

/// A row with a tag is as long as one without, and these more: no two of those lengths are the same.
const TAG_BYTES: usize = size_of::<ContentTag>();
const PLAIN_BYTES: usize = 16;
const VERSIONED_BYTES: usize = 36;

/// The versions of a file. Who writes content reads and writes its content row anyhow, so that the limit stands here too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The number of the current content, from 1.
    pub current: u64,
    /// The oldest that is kept; the current one, where no other is.
    pub oldest: u64,
    /// How many to keep beside the current one; as the repository says where not set.
    pub limit: Option<u32>,
}

/// How a limit that is not set is written.
const LIMIT_UNSET: u32 = u32::MAX;

impl Default for Versions {
    fn default() -> Self {
        Self { current: 1, oldest: 1, limit: None }
    }
}

impl Versions {
    /// How many older versions are kept.
    #[must_use]
    pub fn older_count(&self) -> u64 {
        self.current.saturating_sub(self.oldest)
    }
}

impl ContentRow {
    /// The row's value for a file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(VERSIONED_BYTES + TAG_BYTES);
        row.extend(self.changed.to_le_bytes());
        row.extend(self.size.to_le_bytes());
        let Versions { current, oldest, limit } = self.versions;
        if self.versions != Versions::default() {
            row.extend(current.to_le_bytes());
            row.extend(oldest.to_le_bytes());
            row.extend(limit.unwrap_or(LIMIT_UNSET).to_le_bytes());
        }
        row.extend(self.tag.iter().flatten());
        row
    }

    /// Reads a row's value, a file's or a directory's.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn decode(row: &[u8]) -> Result<Self> {
        let tagged = matches!(row.len().checked_sub(TAG_BYTES), Some(PLAIN_BYTES | VERSIONED_BYTES));
        let (row, tag) = match row.split_last_chunk() {
            Some((row, tag)) if tagged => (row, Some(*tag)),
            _ => (row, None),
        };
        let mut fields = Fields::new(STRUCTURE, row);
        let changed = fields.u64()?;
        let size = if row.len() > 8 { fields.u64()? } else { 0 };
        if size > FILE_BYTES_MAX {
            return Err(fields.damaged("impossible size"));
        }
        let mut versions = Versions::default();
        if row.len() > PLAIN_BYTES {
            (versions.current, versions.oldest) = (fields.u64()?, fields.u64()?);
            let limit = fields.u32()?;
            versions.limit = (limit != LIMIT_UNSET).then_some(limit);
            let kept = versions.current.checked_sub(versions.oldest);
            if versions.oldest == 0 || kept.is_none_or(|kept| kept > u64::from(VERSIONS_MAX)) {
                return Err(fields.damaged("impossible versions"));
            }
            if versions.limit.is_some_and(|limit| limit > VERSIONS_MAX) {
                return Err(fields.damaged("impossible limit of versions"));
            }
            if versions == Versions::default() {
                return Err(fields.damaged("versions where none need be"));
            }
        }
        fields.done()?;
        Ok(Self { changed, size, versions, tag })
    }
}

pub(crate) fn decode_count(row: &[u8]) -> Result<u64> {
    let mut fields = Fields::new("subdirectory count", row);
    let count = fields.u64()?;
    fields.done()?;
    Ok(count)
}

pub(crate) fn split_inode_key(structure: &'static str, key: &[u8]) -> Result<u64> {
    key.try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| Error::damaged(structure, None, format!("key of {} bytes", key.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn versions() -> impl Strategy<Value = Versions> {
        (1u64..u64::MAX - 5000, 0..=u64::from(VERSIONS_MAX), proptest::option::of(0..=VERSIONS_MAX))
            .prop_map(|(oldest, kept, limit)| Versions { current: oldest + kept, oldest, limit })
    }

    proptest! {
        #[test]
        fn a_content_row_reads_back_as_written(changed in any::<u64>(), size in 0..=FILE_BYTES_MAX, versions in versions(), tag in any::<Option<ContentTag>>()) {
            let row = ContentRow { changed, size, versions, tag };
            prop_assert_eq!(ContentRow::decode(&row.encode()).unwrap(), row);
            let tagged = ContentRow { versions: Versions::default(), ..row };
            prop_assert_eq!(ContentRow::decode(&tagged.encode()).unwrap(), tagged);
            let plain = ContentRow { changed, size, ..ContentRow::default() };
            prop_assert_eq!(plain.encode().len(), 16);
            prop_assert_eq!(ContentRow::decode(&plain.encode()).unwrap(), plain);
            prop_assert_eq!(ContentRow::decode(&changed.to_le_bytes()).unwrap(), ContentRow { size: 0, ..plain });
        }

        #[test]
        fn any_bytes_decode_to_an_error_or_to_a_row(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let short = bytes.len() == 8 || [16, 32].contains(&bytes.len()) && bytes[15] < 0x80;
            match ContentRow::decode(&bytes) {
                Ok(row) => prop_assert!(short || row.encode() == bytes),
                Err(_) => prop_assert!(!short),
            }
        }
    }

    #[test]
    fn impossible_versions_are_damage() {
        let row = |current, oldest, limit| {
            ContentRow { changed: 1, size: 1, versions: Versions { current, oldest, limit }, tag: None }.encode()
        };
        assert!(ContentRow::decode(&row(3, 1, Some(0))).is_ok());
        for bad in [row(3, 4, None), row(3, 0, None), row(5000, 1, None), row(3, 1, Some(VERSIONS_MAX + 1))] {
            assert!(ContentRow::decode(&bad).is_err());
        }
        let superfluous = [row(1, 1, None).as_slice(), &1u64.to_le_bytes(), &1u64.to_le_bytes(), &[255; 4]].concat();
        assert!(ContentRow::decode(&superfluous).is_err());
    }
}
