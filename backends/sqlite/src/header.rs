//! Whose a file is, by its first bytes: looked at before SQLite opens it, which begins with ending what a process that died left
//! unfinished there, and so may change what belongs to another program.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::lock::beside;

/// "Strg": tells our databases from those of others, where SQLite keeps room for that.
pub(crate) const APPLICATION_ID: i32 = 0x5374_7267;

/// SQLite's file format, §1.3: 16 bytes that are in every database, and at 68 the number of the application, big-endian.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const APPLICATION_ID_AT: usize = 68;
const BYTES: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It is ours, or nobody's yet.
    Ours,
    /// Another program's database.
    Other,
    /// No database.
    None,
    /// An empty file, and a log beside it that is not.
    LogAlone,
}

/// Whether there is something in a log. Asked before the database is looked at: when that is made, its first page is synced before
/// there is a log, so none of ours is ever beside an empty file, and SQLite would remove it.
pub(crate) fn has_log(path: &Path) -> bool {
    std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// Opens the file and closes it again, which ends all locks that this process has on it: so it must have no connection to it.
pub(crate) fn owner(path: &Path) -> io::Result<Owner> {
    let has_log = has_log(path);
    let mut header = Vec::with_capacity(BYTES);
    File::open(path)?.take(BYTES as u64).read_to_end(&mut header)?;
    if header.is_empty() {
        return Ok(if has_log { Owner::LogAlone } else { Owner::Ours });
    }
    if header.iter().all(|byte| *byte == 0) && beside(path, "-journal").exists() {
        // The power went when it was begun, before its first page was whole: the journal takes that back.
        return Ok(Owner::Ours);
    }
    if header.len() < BYTES || !header.starts_with(MAGIC) {
        return Ok(Owner::None);
    }
    let id = header.get(APPLICATION_ID_AT..).and_then(<[u8]>::first_chunk).map(|bytes| i32::from_be_bytes(*bytes));
    Ok(if id == Some(APPLICATION_ID) { Owner::Ours } else { Owner::Other })
}
