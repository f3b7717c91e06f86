use strongroom_core::{Error, Result};

use super::Compression;
use super::fields::Fields;
use crate::time::Timestamp;

const STRUCTURE: &str = "inode";
const LAYOUT: u8 = 1;
const FLAG_INLINE: u16 = 1 << 0;
const FLAG_XATTRS: u16 = 1 << 1;
const FLAG_DEDUP: u16 = 1 << 2;
const FLAG_NO_DEDUP: u16 = 1 << 3;
const FLAG_LZ4: u16 = 1 << 4;
const FLAG_NO_COMPRESSION: u16 = 1 << 5;
const FLAGS_KNOWN: u16 = FLAG_INLINE | FLAG_XATTRS | FLAG_DEDUP | FLAG_NO_DEDUP | FLAG_LZ4 | FLAG_NO_COMPRESSION;

/// Bytes of an inode row without what it holds inline.
pub const INODE_ROW_BYTES: usize = 80;

/// What an inode is; it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

impl Kind {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::Symlink => 3,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::File),
            2 => Some(Self::Directory),
            3 => Some(Self::Symlink),
            _ => None,
        }
    }
}

/// What is known of a file, directory or link, save what changes with every write (see [`super::ContentRow`]).
///
/// `layout u8 ‖ kind u8 ‖ flags u16 ‖ mode u32 ‖ uid u32 ‖ gid u32 ‖ nlink u32 ‖ reserved u32 ‖ 4 × time ‖ mtime_set u64`
/// and, with flag 0, the target of a symbolic link. A time is `seconds i64 ‖ nanos u32`; the four are birth, status
/// change, modification, access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InodeRow {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of it; always 1 for a directory, whose count is 2 + its subdirectories. 0 for a file that was removed and is
    /// still open.
    pub nlink: u32,
    /// Whether it has extended attributes; without it, their table holds none of this inode.
    pub xattrs: bool,
    /// Whether equal chunks of it are stored once; `None` takes the repository's setting.
    pub dedup: Option<bool>,
    /// What is tried on its chunks; `None` takes the repository's setting.
    pub compression: Option<Compression>,
    /// When it was made.
    pub btime: Timestamp,
    /// When its attributes changed.
    pub ctime: Timestamp,
    /// The modification time last set by hand.
    pub mtime: Timestamp,
    /// The access time last set by hand.
    pub atime: Timestamp,
    /// Nanoseconds since the epoch at which `mtime` was set by hand: content that changed later overrules it. So setting
    /// times never touches the content row, and never conflicts with a writer.
    pub mtime_set: u64,
    /// The target of a symbolic link that is short enough; else it is in extents.
    pub inline: Option<Vec<u8>>,
}

impl InodeRow {
    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let inline = self.inline.as_deref();
        let mut row = Vec::with_capacity(INODE_ROW_BYTES + inline.map_or(0, <[u8]>::len));
        row.push(LAYOUT);
        row.push(self.kind.code());
        row.extend(self.flags().to_le_bytes());
        for field in [self.mode, self.uid, self.gid, self.nlink, 0] {
            row.extend(field.to_le_bytes());
        }
        for time in [self.btime, self.ctime, self.mtime, self.atime] {
            row.extend(time.seconds.to_le_bytes());
            row.extend(time.nanos.to_le_bytes());
        }
        row.extend(self.mtime_set.to_le_bytes());
        row.extend(inline.unwrap_or_default());
        row
    }

    fn flags(&self) -> u16 {
        let dedup = match self.dedup {
            Some(true) => FLAG_DEDUP,
            Some(false) => FLAG_NO_DEDUP,
            None => 0,
        };
        let compression = match self.compression {
            Some(Compression::Lz4) => FLAG_LZ4,
            Some(Compression::None) => FLAG_NO_COMPRESSION,
            None => 0,
        };
        let inline = if self.inline.is_some() { FLAG_INLINE } else { 0 };
        let xattrs = if self.xattrs { FLAG_XATTRS } else { 0 };
        inline | xattrs | dedup | compression
    }

    /// Reads a row's value.
    ///
    /// # Errors
    /// [`Error::NewerFormat`] for a layout or flag of a later version, [`Error::Damaged`] for anything else amiss.
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(STRUCTURE, row);
        let layout = fields.u8()?;
        if layout != LAYOUT {
            return Err(Error::NewerFormat { detail: format!("inode layout {layout}") });
        }
        let kind = Kind::from_code(fields.u8()?).ok_or_else(|| fields.damaged("unknown kind"))?;
        let flags = fields.u16()?;
        if flags & !FLAGS_KNOWN != 0 {
            return Err(Error::NewerFormat { detail: format!("inode flags {flags:#x}") });
        }
        let (mode, uid, gid) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (nlink, reserved) = (fields.u32()?, fields.u32()?);
        let (btime, ctime) = (time(&mut fields)?, time(&mut fields)?);
        let (mtime, atime) = (time(&mut fields)?, time(&mut fields)?);
        let mtime_set = fields.u64()?;
        if nlink == 0 && kind != Kind::File {
            return Err(fields.damaged("no links"));
        }
        if reserved != 0 {
            return Err(fields.damaged("reserved bytes"));
        }
        let dedup =
            choice(flags, FLAG_DEDUP, FLAG_NO_DEDUP).ok_or_else(|| fields.damaged("both with and without dedup"))?;
        let compression = choice(flags, FLAG_LZ4, FLAG_NO_COMPRESSION)
            .ok_or_else(|| fields.damaged("both with and without compression"))?
            .map(|lz4| if lz4 { Compression::Lz4 } else { Compression::None });
        let xattrs = flags & FLAG_XATTRS != 0;
        let inline = if flags & FLAG_INLINE == 0 {
            fields.done()?;
            None
        } else if kind == Kind::Symlink {
            Some(fields.rest().to_vec())
        } else {
            return Err(fields.damaged("inline content where none belongs"));
        };
        Ok(Self {
            kind,
            mode,
            uid,
            gid,
            nlink,
            xattrs,
            dedup,
            compression,
            btime,
            ctime,
            mtime,
            atime,
            mtime_set,
            inline,
        })
    }
}

/// What two flags say together; `None` where they contradict each other.
fn choice(flags: u16, yes: u16, no: u16) -> Option<Option<bool>> {
    match (flags & yes != 0, flags & no != 0) {
        (true, true) => None,
        (true, false) => Some(Some(true)),
        (false, true) => Some(Some(false)),
        (false, false) => Some(None),
    }
}

fn time(fields: &mut Fields<'_>) -> Result<Timestamp> {
    let (seconds, nanos) = (fields.i64()?, fields.u32()?);
    Timestamp::new(seconds, nanos).ok_or_else(|| fields.damaged("nanoseconds over a second"))
}

pub(crate) fn inode_key(inode: u64) -> [u8; 8] {
    inode.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = InodeRow> {
        let time = || (any::<i64>(), 0u32..1_000_000_000).prop_map(|(s, n)| Timestamp::new(s, n).unwrap());
        let kind = prop_oneof![Just(Kind::File), Just(Kind::Directory), Just(Kind::Symlink)];
        (
            (kind, any::<u32>(), any::<u32>(), any::<u32>(), 1u32..),
            (any::<bool>(), any::<Option<bool>>(), any::<Option<bool>>()),
            (time(), time(), time(), time()),
            any::<u64>(),
            proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64)),
        )
            .prop_map(|(fixed, (xattrs, dedup, lz4), (btime, ctime, mtime, atime), mtime_set, inline)| {
                let (kind, mode, uid, gid, nlink) = fixed;
                InodeRow {
                    kind,
                    mode,
                    uid,
                    gid,
                    nlink,
                    xattrs,
                    dedup,
                    compression: lz4.map(|lz4| if lz4 { Compression::Lz4 } else { Compression::None }),
                    btime,
                    ctime,
                    mtime,
                    atime,
                    mtime_set,
                    inline: inline.filter(|_| kind == Kind::Symlink),
                }
            })
    }

    proptest! {
        #[test]
        fn an_inode_row_reads_back_as_written(row in row()) {
            prop_assert_eq!(InodeRow::decode(&row.encode()).unwrap(), row);
        }

        #[test]
        fn any_bytes_decode_to_an_error_or_to_a_row_that_encodes_to_them(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            if let Ok(row) = InodeRow::decode(&bytes) {
                prop_assert_eq!(row.encode(), bytes);
            }
        }
    }

    #[test]
    fn every_truncation_of_an_inode_row_is_refused() {
        let time = Timestamp::from_nanos(5);
        let row = InodeRow {
            kind: Kind::File,
            mode: 0o644,
            uid: 1,
            gid: 2,
            nlink: 1,
            xattrs: false,
            dedup: None,
            compression: None,
            btime: time,
            ctime: time,
            mtime: time,
            atime: time,
            mtime_set: 0,
            inline: None,
        }
        .encode();
        assert_eq!(row.len(), INODE_ROW_BYTES);
        for length in 0..row.len() {
            assert!(InodeRow::decode(&row[..length]).is_err());
        }
    }

    #[test]
    fn only_a_file_may_be_without_a_name_and_settings_do_not_contradict_each_other() {
        let time = Timestamp::from_nanos(5);
        let row = InodeRow {
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 0,
            xattrs: true,
            dedup: Some(false),
            compression: Some(Compression::None),
            btime: time,
            ctime: time,
            mtime: time,
            atime: time,
            mtime_set: 0,
            inline: None,
        };
        assert_eq!(InodeRow::decode(&row.encode()).unwrap(), row);
        assert!(InodeRow::decode(&InodeRow { kind: Kind::Directory, ..row.clone() }.encode()).is_err());
        for flags in [FLAG_DEDUP | FLAG_NO_DEDUP, FLAG_LZ4 | FLAG_NO_COMPRESSION] {
            let mut bytes = row.encode();
            bytes[2..4].copy_from_slice(&flags.to_le_bytes());
            assert!(matches!(InodeRow::decode(&bytes), Err(Error::Damaged(_))));
        }
    }

    #[test]
    fn an_unknown_flag_is_a_newer_format_and_not_damage() {
        let time = Timestamp::from_nanos(5);
        let row = InodeRow {
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            xattrs: false,
            dedup: None,
            compression: None,
            btime: time,
            ctime: time,
            mtime: time,
            atime: time,
            mtime_set: 0,
            inline: None,
        };
        let mut bytes = row.encode();
        bytes[3] = 0x80;
        assert!(matches!(InodeRow::decode(&bytes), Err(Error::NewerFormat { .. })));
    }
}
