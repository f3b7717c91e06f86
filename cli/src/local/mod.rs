//! The files of this machine: what import reads and export writes. Only here are they touched.

pub(crate) mod destination;
pub(crate) mod exclude;
pub(crate) mod mapped;
pub(crate) mod own;
pub(crate) mod reach;
pub(crate) mod source;
pub(crate) mod way;
pub(crate) mod xattrs;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// What this machine and a repository both know of a file, a folder or a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits, set-id and sticky bits included, file type not.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Last change of the content: seconds since the epoch.
    pub(crate) seconds: i64,
    /// And nanoseconds, below a thousand million.
    pub(crate) nanos: u32,
}

/// The bits of a mode that are kept.
pub(crate) const MODE_BITS: u32 = 0o7777;

/// A name of this machine as bytes.
pub(crate) fn bytes_of(name: &OsStr) -> &[u8] {
    name.as_bytes()
}

/// Bytes as a name of this machine.
pub(crate) fn name_of(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}
