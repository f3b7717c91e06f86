//! Whose a file is, by its first bytes: looked at before SQLite opens it, which begins with ending what a process that died left
//! unfinished there, and so may change what belongs to another program; or end what is not there to be ended.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::lock::beside;

/// "Strg": tells our databases from those of others, where SQLite keeps room for that.
pub(crate) const APPLICATION_ID: i32 = 0x5374_7267;

/// SQLite's file format, §1.3: 16 bytes that are in every database; at 60 the version of what is in it, and at 68 the number of the
/// application, big-endian.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const USER_VERSION_AT: usize = 60;
const APPLICATION_ID_AT: usize = 68;
const BYTES: usize = 100;

/// §4.1: what a log begins with, before the first commit.
const LOG_HEAD_BYTES: u64 = 32;

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
    /// It is ours, and what is called like its journal is not.
    OtherJournal,
}

/// Whether there is something in a log. Asked before the database is looked at: when that is made, its first page is synced before
/// there is a log, so none of ours is ever beside an empty file, and SQLite would remove it.
pub(crate) fn has_log(path: &Path) -> bool {
    log_bytes(path) > 0
}

fn log_bytes(path: &Path) -> u64 {
    std::fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len())
}

/// Whether there is something in what is called like a journal.
pub(crate) fn has_journal(path: &Path) -> bool {
    std::fs::metadata(beside(path, "-journal")).is_ok_and(|journal| journal.len() > 0)
}

/// Opens the file and closes it again, which ends all locks that this process has on it: so it must have no connection to it.
pub(crate) fn owner(path: &Path) -> io::Result<Owner> {
    let (log_bytes, has_journal) = (log_bytes(path), has_journal(path));
    let (has_log, has_commits) = (log_bytes > 0, log_bytes > LOG_HEAD_BYTES);
    let mut header = Vec::with_capacity(BYTES);
    File::open(path)?.take(BYTES as u64).read_to_end(&mut header)?;
    if header.is_empty() {
        return Ok(if has_log { Owner::LogAlone } else { Owner::Ours });
    }
    if header.iter().all(|byte| *byte == 0) && !has_log && beside(path, "-journal").exists() {
        // The power went when it was begun, before its first page was whole: the journal takes that back.
        return Ok(Owner::Ours);
    }
    if header.len() < BYTES || !header.starts_with(MAGIC) {
        return Ok(Owner::None);
    }
    let number = |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| i32::from_be_bytes(*bytes));
    if number(APPLICATION_ID_AT) != Some(APPLICATION_ID) {
        return Ok(Owner::Other);
    }
    // While a database is made, SQLite keeps two journals, one after the other. The last is removed before the log is made, and the
    // folder is synced before anything follows the head of the log; the version comes through the log, with the tables. What
    // has the name of a journal after that is none of ours, and SQLite would take all back to what is in it.
    let is_made = has_commits || number(USER_VERSION_AT) != Some(0);
    Ok(if is_made && has_journal { Owner::OtherJournal } else { Owner::Ours })
}
