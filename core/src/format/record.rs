use super::limits::FORMAT_VERSION;

/// The length of the salt that every block begins with.
pub const SALT_BYTES: usize = 16;

/// What sealing adds to a record: its tag.
pub const SEAL_BYTES: usize = 16;

/// How many records a block can list: indices are `u16`, and two stay reserved.
pub const RECORDS_COUNT_MAX: usize = u16::MAX as usize - 1;

/// The nonce index of a block's directory.
pub const DIRECTORY_INDEX: u64 = u64::MAX - 1;

/// The nonce index of a block's trailer.
pub const TRAILER_INDEX: u64 = u64::MAX;

/// What a record holds; part of its associated data, so that none passes for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// A chunk of file content, or a piece of one.
    ChunkData = 1,
    /// A node of a tree.
    Node = 2,
    /// The first record of a commit.
    CommitHead = 3,
    /// The deltas of a commit.
    CommitBody = 4,
    /// Deltas that did not fit their commit.
    Spill = 5,
    /// Where the last checkpoint is.
    Hint = 6,
    /// The directory of a block.
    Directory = 254,
    /// The trailer of a block.
    Trailer = 255,
}

impl RecordKind {
    /// The kinds that a directory lists: all but directory and trailer.
    pub const LISTED: [Self; 6] =
        [Self::ChunkData, Self::Node, Self::CommitHead, Self::CommitBody, Self::Spill, Self::Hint];

    /// The byte that stands for it.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind of a byte, `None` where there is none.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::ChunkData,
            2 => Self::Node,
            3 => Self::CommitHead,
            4 => Self::CommitBody,
            5 => Self::Spill,
            6 => Self::Hint,
            254 => Self::Directory,
            255 => Self::Trailer,
            _ => return None,
        })
    }

    /// Whether a directory lists it.
    #[must_use]
    pub const fn is_listed(self) -> bool {
        !matches!(self, Self::Directory | Self::Trailer)
    }

    /// Its name in errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChunkData => "chunk",
            Self::Node => "tree node",
            Self::CommitHead => "commit head",
            Self::CommitBody => "commit body",
            Self::Spill => "commit spill",
            Self::Hint => "checkpoint hint",
            Self::Directory => "block directory",
            Self::Trailer => "block trailer",
        }
    }
}

/// What the records of a block are for. Classes die at different rates, so they share no block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum BlockClass {
    /// File content.
    Data = 1,
    /// Tree nodes.
    Metadata = 2,
    /// One commit.
    Commit = 3,
    /// One checkpoint hint.
    Hint = 4,
    /// Spilled deltas of one commit.
    Spill = 5,
}

impl BlockClass {
    /// The byte that stands for it.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The class of a byte, `None` where there is none.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Data,
            2 => Self::Metadata,
            3 => Self::Commit,
            4 => Self::Hint,
            5 => Self::Spill,
            _ => return None,
        })
    }
}

/// The length of the associated data of every record.
pub const AAD_BYTES: usize = 43;

/// The associated data of a record, directory or trailer:
///
/// ```text
/// format version u16 ‖ repository 16 ‖ name of the block 16 ‖ nonce index u64 ‖ record kind u8
/// ```
#[must_use]
pub fn aad(repository: &[u8; 16], name: &[u8; 16], index: u64, kind: RecordKind) -> [u8; AAD_BYTES] {
    let mut aad = [0; AAD_BYTES];
    aad[0..2].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    aad[2..18].copy_from_slice(repository);
    aad[18..34].copy_from_slice(name);
    aad[34..42].copy_from_slice(&index.to_le_bytes());
    aad[42] = kind.code();
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_for_one_kind_and_back() {
        for code in 0..=u8::MAX {
            if let Some(kind) = RecordKind::from_code(code) {
                assert_eq!(kind.code(), code);
                assert_eq!(RecordKind::LISTED.contains(&kind), kind.is_listed());
            }
            if let Some(class) = BlockClass::from_code(code) {
                assert_eq!(class.code(), code);
            }
        }
        let kinds = (0..=u8::MAX).filter_map(RecordKind::from_code).count();
        assert_eq!(kinds, RecordKind::LISTED.len() + 2);
    }

    #[test]
    fn the_associated_data_has_every_field_in_its_place() {
        let aad = aad(&[0xaa; 16], &[0xbb; 16], 0x0807_0605_0403_0201, RecordKind::Node);
        assert_eq!(aad[..2], FORMAT_VERSION.to_le_bytes());
        assert_eq!(aad[2..18], [0xaa; 16]);
        assert_eq!(aad[18..34], [0xbb; 16]);
        assert_eq!(aad[34..42], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(aad[42], 2);
    }
}
