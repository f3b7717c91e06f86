//! Files, directories and links on the Strongroom engine.
//!
//! A [`FileSystem`] is a cheap handle on the rows that it keeps in the engine's tables (`src/format`). Every operation is
//! one transaction; [`FileSystem::begin`] and [`FileSystem::transact`] put many into one. A [`File`] is read and written
//! at offsets; what was written becomes visible and durable, all at once, with [`File::flush`].
//!
//! Paths are bytes, or text in UTF-8, from the root, with or without a leading slash; see [`NAME_BYTES_MAX`] and its
//! neighbours for the limits. `.` names nothing and `..` goes up from the directory that was really reached, as in POSIX.
//! Names are compared byte by byte and never normalised: whether two spellings of one letter are one name is the caller's.

#[cfg(test)]
mod bed;
mod check;
mod chunker;
mod codec;
mod error;
mod extents;
mod file;
mod filesystem;
pub mod format;
mod inodes;
mod options;
mod path;
mod prepare;
mod ranges;
mod references;
mod reflink;
mod shared;
mod time;
mod versions;
mod writer;
mod xattrs;

pub use check::{CheckOptions, CheckSummary, Finding};
pub use chunker::ChunkSizes;
pub use error::{Error, Result};
pub use file::File;
pub use filesystem::{
    AttributeChange, Attributes, Comparand, ContentBytes, DirCursor, DirEntry, DirStream, Fate, FileSystem, FileWriter,
    Follow, FsSnapshot, FsTransaction, Op, PathChange, ReadDir, Settings, Statfs, Summary, Usage, XattrMode,
};
pub use format::{
    ContentTag, FILE_BYTES_MAX, Kind, LINKS_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, ROOT, SYMLINK_BYTES_MAX,
    SYMLINKS_FOLLOWED_MAX, VERSIONS_MAX, XATTR_LIST_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX,
};
pub use inodes::Metadata;
pub use options::{AccessTime, Compression, OpenOptions, Options, Tuning};
pub use references::{chunks_of, copied_row, plain};
pub use time::Timestamp;
pub use versions::Version;
