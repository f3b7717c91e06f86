//! The rows of the file system, byte by byte: encode and decode, nothing else.
//!
//! Values are little-endian. Keys are big-endian, so that rows sort by number. What is decoded comes from the engine
//! authenticated, and is checked all the same: a bug elsewhere must surface as damage with a name, not as a panic.
//!
//! | table | key | value |
//! |---|---|---|
//! | `0x10` options | `"fs"` | [`OptionsRow`] |
//! | `0x11` inode | inode `u64` | [`InodeRow`] |
//! | `0x12` entry | parent `u64` ‖ name | [`EntryRow`] |
//! | `0x13` extent | inode `u64` ‖ offset `u64` | [`Extent`] |
//! | `0x14` content | inode `u64` | [`ContentRow`] |
//! | `0x15` subdirectories | inode `u64` | count `u64`, merged by addition |
//! | `0x16` extended attribute | inode `u64` ‖ name | [`XattrRow`] |
//! | `0x17` orphan | inode `u64` | writer epoch `u32`, 0 of what is deleted and not yet freed |
//! | `0x18` version | inode `u64` ‖ number `u64` | [`VersionRow`] |
//! | `0x19` past extent | inode `u64` ‖ number of the version that replaced it `u64` ‖ offset `u64` | [`Extent`] |

mod content;
mod entry;
mod extent;
mod fields;
mod inode;
mod options;
mod orphan;
mod version;
mod xattr;

use strongroom_core::engine::Table;

pub use content::{ContentRow, ContentTag, Versions};
pub use entry::EntryRow;
pub use extent::Extent;
pub use inode::{INODE_ROW_BYTES, InodeRow, Kind};
pub use options::{Compression, OptionsRow};
pub use version::{VERSIONS_MAX, VersionRow};
pub use xattr::XattrRow;

pub(crate) use content::{decode_count, split_inode_key};
pub(crate) use entry::{EntryKey, entry_key, entry_range, split_entry_key};
pub(crate) use extent::{extent_key, split_extent_key};
pub(crate) use inode::inode_key;
pub(crate) use options::OPTIONS_KEY;
pub(crate) use orphan::{NO_EPOCH, decode_orphan, encode_orphan};
pub(crate) use version::{past_key, split_past_key, split_version_key, version_key};
pub(crate) use xattr::{split_xattr_key, xattr_key};

/// The file system's settings.
pub const OPTIONS: Table = Table(0x10);
/// What a file, directory or link is.
pub const INODE: Table = Table(0x11);
/// What a directory holds.
pub const ENTRY: Table = Table(0x12);
/// Where the bytes of a file are.
pub const EXTENT: Table = Table(0x13);
/// When the content changed, and how long it is.
pub const CONTENT: Table = Table(0x14);
/// How many directories a directory holds.
pub const SUBDIRECTORIES: Table = Table(0x15);
/// Extended attributes.
pub const XATTR: Table = Table(0x16);
/// Files without a name: a process still has them open, or they are deleted and not all that they held is freed.
pub const ORPHAN: Table = Table(0x17);
/// The versions of a file beside the current one.
pub const VERSION: Table = Table(0x18);
/// What the current content of a file no longer has, and older versions do: by the version that replaced it. It owns its
/// reference to the chunk, like an extent.
pub const PAST: Table = Table(0x19);

/// The inode of `/`.
pub const ROOT: u64 = 1;

/// Longest name of an entry in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest path in bytes.
pub const PATH_BYTES_MAX: usize = 65_536;
/// Longest target of a symbolic link in bytes.
pub const SYMLINK_BYTES_MAX: usize = 4_095;
/// Symbolic links followed in one resolution.
pub const SYMLINKS_FOLLOWED_MAX: usize = 40;
/// Longest file in bytes, holes included.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Most names of one file.
pub const LINKS_MAX: u32 = 65_000;
/// Longest name of an extended attribute in bytes.
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Longest value of an extended attribute in bytes.
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;
/// Names of all extended attributes of one inode together, in bytes, with one more for each.
pub const XATTR_LIST_BYTES_MAX: usize = 65_536;
