//! How a file, folder or link of the repository is shown.

use serde::Serialize;
use strongroom::fs::{Kind, Metadata};

use crate::output::{JsonName, shown};
use crate::units;

/// An entry in JSON.
#[derive(Serialize)]
pub(crate) struct JsonEntry {
    #[serde(flatten)]
    path: JsonName,
    kind: &'static str,
    bytes: u64,
    mode: String,
    uid: u32,
    gid: u32,
    links: u64,
    inode: u64,
    mtime: String,
    mtime_nanos: u32,
    versions: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<JsonName>,
    #[serde(flatten)]
    times: Option<JsonTimes>,
}

/// The other times, for who asks for all that is known.
#[derive(Serialize)]
struct JsonTimes {
    ctime: String,
    ctime_nanos: u32,
    btime: String,
    btime_nanos: u32,
    atime: String,
    atime_nanos: u32,
}

impl JsonEntry {
    /// With all that is known.
    pub(crate) fn whole(path: &[u8], metadata: &Metadata, target: Option<&[u8]>) -> Self {
        let Metadata { ctime, btime, atime, .. } = metadata;
        let times = JsonTimes {
            ctime: units::moment(ctime.seconds),
            ctime_nanos: ctime.nanos,
            btime: units::moment(btime.seconds),
            btime_nanos: btime.nanos,
            atime: units::moment(atime.seconds),
            atime_nanos: atime.nanos,
        };
        Self { times: Some(times), ..Self::new(path, metadata, target) }
    }

    pub(crate) fn new(path: &[u8], metadata: &Metadata, target: Option<&[u8]>) -> Self {
        Self {
            path: JsonName::new(path),
            kind: kind(metadata.kind),
            bytes: metadata.size,
            mode: format!("{:04o}", metadata.mode),
            uid: metadata.uid,
            gid: metadata.gid,
            links: metadata.nlink,
            inode: metadata.inode,
            mtime: units::moment(metadata.mtime.seconds),
            mtime_nanos: metadata.mtime.nanos,
            versions: metadata.versions,
            target: target.map(JsonName::new),
            times: None,
        }
    }
}

/// What it is, in a word.
pub(crate) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "folder",
        Kind::Symlink => "link",
    }
}

/// One line, like `ls -l` with numbers for owners and UTC for times.
pub(crate) fn long(path: &[u8], metadata: &Metadata, target: Option<&[u8]>) -> String {
    let target = target.map(|target| format!(" -> {}", shown(target))).unwrap_or_default();
    format!(
        "{} {:>5}:{:<5} {:>12} {} {}{target}",
        permissions(metadata.kind, metadata.mode),
        metadata.uid,
        metadata.gid,
        metadata.size,
        units::moment(metadata.mtime.seconds),
        shown(path),
    )
}

/// `drwxr-xr-x`.
pub(crate) fn permissions(kind: Kind, mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(match kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
    });
    for (shift, special, with_x, without_x) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => with_x,
            (false, true) => without_x,
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_read_as_ls_writes_them() {
        for (kind, mode, text) in [
            (Kind::Directory, 0o755, "drwxr-xr-x"),
            (Kind::File, 0o4640, "-rwSr-----"),
            (Kind::File, 0o2755, "-rwxr-sr-x"),
            (Kind::Directory, 0o1777, "drwxrwxrwt"),
            (Kind::Symlink, 0, "l---------"),
        ] {
            assert_eq!(permissions(kind, mode), text);
        }
    }
}
