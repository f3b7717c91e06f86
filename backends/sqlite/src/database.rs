//! One database file: what it is, what is made of one that is new, and the connections to it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use strongroom_core::storage::{Error, ErrorKind, OpenMode, Operation, Result};

use crate::disk;
use crate::error::failed;
use crate::header::{self, APPLICATION_ID, Owner};

/// The library may be the system's, where whoever builds this says so. Before this version, two processes that wrote the log into
/// the database and began it anew at one moment could damage it (<https://www.sqlite.org/wal.html#walresetbug>).
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Of the tables below.
const FORMAT_VERSION: i32 = 1;

/// Bytes a page: a blob is a row's head and a chain of such pages. Larger ones make shorter chains and larger small changes.
pub(crate) const PAGE_BYTES: u32 = 16 * 1024;

/// So long may the path of a database be: SQLite has room for 512 bytes, with `-journal`, which is also how a name may be too long
/// that is not by itself.
const PATH_BYTES_MAX: usize = 504;
const NAME_BYTES_MAX: usize = 247;

/// So much of the file each connection keeps in memory, in KiB. SQLite's default is what the file says.
const CACHE_KIB: i32 = 2000;

/// How long one call waits for another process in the middle of a change.
pub(crate) const BUSY_WAIT: Duration = Duration::from_secs(10);

/// No row is longer, and no statement: a blob of the largest size with its name, and what is made below.
const ROW_BYTES_MAX: i32 = 8 << 20;
const STATEMENT_BYTES_MAX: i32 = 4096;

/// With a number, so that a part of the content can be read (SQLite's incremental I/O goes by that); a listing and a look-up
/// need the index alone. A barrier is a commit that is synced, and needs something to change.
const TABLES: [(&str, &str); 2] = [
    ("barriers", "CREATE TABLE barriers (number INTEGER PRIMARY KEY, count INTEGER NOT NULL) STRICT"),
    (
        "blobs",
        "CREATE TABLE blobs (number INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, content BLOB NOT NULL) STRICT",
    ),
];
/// What SQLite makes of `UNIQUE`, in the table `blobs`.
const INDEX: &str = "sqlite_autoindex_blobs_1";

/// What tells one file from all others, as long as it is open.
#[cfg(unix)]
pub(crate) type Identity = (u64, u64);
#[cfg(not(unix))]
pub(crate) type Identity = PathBuf;

#[cfg(unix)]
pub(crate) fn identity(_: &Path, metadata: &std::fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

#[cfg(unix)]
fn names(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

#[cfg(not(unix))]
fn names(_: &std::fs::Metadata) -> u64 {
    1
}

#[cfg(not(unix))]
pub(crate) fn identity(path: &Path, _: &std::fs::Metadata) -> Identity {
    path.to_owned()
}

/// A file that is there, by its real path.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) shown: String,
}

/// Held while a file is made and closed again: to close one on which SQLite has locks in this process would end them.
static MAKING: Mutex<()> = Mutex::new(());

impl Place {
    /// Finds the file, or makes it, empty, where it may be made.
    pub(crate) fn find(path: &Path, mode: OpenMode, shown: &str) -> Result<Self> {
        let refused = |error| Error::from_io(Operation::Open, shown, error);
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let (has_log, has_journal) = (header::has_log(path), header::has_journal(path));
        let metadata = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && mode == OpenMode::CreateIfMissing => {
                if has_log {
                    return Err(log_alone(shown));
                }
                if has_journal {
                    return Err(other_journal(shown));
                }
                if path.is_symlink() {
                    return Err(Error::new(ErrorKind::NotFound, Operation::Open, shown)
                        .with_source("it is a link to a file that is not there: name that file"));
                }
                // Before there is an empty file on it.
                let absolute = std::path::absolute(path).map_err(refused)?;
                if let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name()) {
                    refuse_shared(folder, shown)?;
                    // Where the folder cannot be found, to make the file says so.
                    let real = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
                    refuse_long(&real.join(name), shown)?;
                }
                make(path).map_err(|error| without_folder(path, shown, error))?;
                std::fs::metadata(path).map_err(refused)?
            }
            metadata => metadata.map_err(refused)?,
        };
        if !metadata.is_file() {
            let what = if metadata.is_dir() { "it is a folder" } else { "it is no file" };
            return Err(invalid(shown, &format!("{what}: name the file of a database, or a new one")));
        }
        if names(&metadata) > 1 {
            // The log is beside the name that it was opened by: what is written by the one would be missing by the other.
            let what =
                format!("it has {} names (hard links): remove the others, or use a copy of it", names(&metadata));
            return Err(invalid(shown, &what));
        }
        let path = std::fs::canonicalize(path).map_err(refused)?;
        refuse_long(&path, shown)?;
        let identity = identity(&path, &metadata);
        Ok(Self { path, identity, shown: shown.to_owned() })
    }

    /// Whether the file was removed, or replaced, since it was found.
    pub(crate) fn is_gone(&self) -> bool {
        !std::fs::metadata(&self.path).is_ok_and(|metadata| identity(&self.path, &metadata) == self.identity)
    }
}

/// Makes an empty file, durable in its folder.
fn make(path: &Path) -> io::Result<()> {
    match std::fs::File::options().write(true).create_new(true).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    #[cfg(unix)]
    if let Some(folder) = std::path::absolute(path)?.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn without_folder(path: &Path, shown: &str, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() {
        return Error::new(ErrorKind::NotFound, Operation::Open, shown)
            .with_source("its folder is not there: create that first");
    }
    Error::from_io(Operation::Open, shown, error)
}

fn invalid(shown: &str, what: &str) -> Error {
    Error::new(ErrorKind::Invalid, Operation::Open, shown).with_source(what.to_owned())
}

/// What was not yet written into a database that was moved away without its log, or lost: SQLite would remove it for a new one.
fn log_alone(shown: &str) -> Error {
    invalid(
        shown,
        "a log is left here (`-wal`) that belongs to a database that is elsewhere: bring that back, or move the log away",
    )
}

/// What is called like a journal, and is none that belongs to what is there: SQLite would take the database back to what is in it,
/// or remove it.
pub(crate) fn other_journal(shown: &str) -> Error {
    invalid(
        shown,
        "a file is beside it (`-journal`) that is none of this database, which SQLite would damage by it: move that file away",
    )
}

/// SQLite says of such only that they cannot be opened.
fn refuse_long(path: &Path, shown: &str) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    if cfg!(unix) && (path.as_os_str().len() > PATH_BYTES_MAX || name.len() > NAME_BYTES_MAX) {
        let what = format!(
            "its path is longer than SQLite can take ({PATH_BYTES_MAX} bytes, and {NAME_BYTES_MAX} of its name): use a shorter path"
        );
        return Err(invalid(shown, &what));
    }
    Ok(())
}

/// To write where other hosts may do so, too, with a log of which they see nothing, would damage the database.
fn refuse_shared(path: &Path, shown: &str) -> Result<()> {
    match disk::shared(path) {
        Some(name) => Err(Error::new(ErrorKind::Unsupported, Operation::Open, shown).with_source(format!(
            "it is on {name}, where SQLite's processes may not see each other: use a local file system, or `file:`"
        ))),
        None => Ok(()),
    }
}

/// How a database can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    Read,
    /// In a place where SQLite cannot even keep the index of its log: for as long as nobody changes the file.
    Frozen(Stamp),
}

/// What changes when somebody writes to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    /// `None` while there is a log that would have to be read, too.
    pub(crate) fn of(place: &Place) -> Option<Self> {
        if header::has_log(&place.path) {
            return None;
        }
        let metadata = std::fs::metadata(&place.path).ok()?;
        Some(Self { bytes: metadata.len(), modified: metadata.modified().ok() })
    }
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing, or what was begun and not ended.
    Nothing,
    Blobs,
}

/// Opens a database that this process has no connection to, in the ways that this process may. Nothing of what it holds is
/// read yet.
pub(crate) fn open(place: &Place) -> Result<(Connection, Access)> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(Error::new(ErrorKind::Unsupported, Operation::Open, place.shown.as_str()).with_source(format!(
            "SQLite {} can damage a database that several processes use: build with 3.51.3 or later, or the one that comes along",
            rusqlite::version()
        )));
    }
    let owner = {
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        header::owner(&place.path)
    };
    match owner.map_err(|error| Error::from_io(Operation::Open, place.shown.as_str(), error))? {
        Owner::Ours => {}
        Owner::Other => return named(Err(NotOurs::Foreign), place),
        Owner::None => return named(Err(NotOurs::NoDatabase), place),
        Owner::LogAlone => return Err(log_alone(&place.shown)),
        Owner::OtherJournal => return Err(other_journal(&place.shown)),
    }
    let refused = |error: rusqlite::Error| failed(Operation::Open, place.shown.as_str(), error);
    let connection = connect(place, Access::Write)?;
    let is_read_only = connection.is_readonly(rusqlite::MAIN_DB).map_err(refused)?;
    if !is_read_only {
        // Nothing was read or written yet.
        refuse_shared(&place.path, &place.shown)?;
    }
    Ok((connection, if is_read_only { Access::Read } else { Access::Write }))
}

/// Looks what a database is, without changing it.
pub(crate) fn look(place: &Place, connection: Connection, access: Access) -> Result<(Connection, Access, Content)> {
    let found = match content(&connection) {
        Err(error) if access == Access::Read && is_without_log(&error) => {
            let Some(stamp) = Stamp::of(place) else {
                return Err(Error::new(ErrorKind::ReadOnly, Operation::Open, place.shown.as_str())
                    .with_source("a process that died left it with a log, which cannot be read in without writing"));
            };
            let connection = connect(place, Access::Frozen(stamp))?;
            let found = content(&connection);
            return Ok((connection, Access::Frozen(stamp), named(found, place)?));
        }
        found => named(found, place)?,
    };
    Ok((connection, access, found))
}

/// One more connection.
pub(crate) fn connect(place: &Place, access: Access) -> Result<Connection> {
    let common = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let opened = match access {
        // SQLite itself opens for reading what cannot be written.
        Access::Write => Connection::open_with_flags(&place.path, common | OpenFlags::SQLITE_OPEN_READ_WRITE),
        Access::Read => Connection::open_with_flags(&place.path, common | OpenFlags::SQLITE_OPEN_READ_ONLY),
        Access::Frozen(_) => {
            let uri = frozen_uri(&place.path);
            Connection::open_with_flags(uri, common | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)
        }
    };
    let refused = |error: rusqlite::Error| failed(Operation::Open, place.shown.as_str(), error);
    let connection = opened.map_err(|error| cannot_open(place, error))?;
    set_up(&connection).map_err(refused)?;
    Ok(connection)
}

/// The file may come from an enemy: nothing that its schema says is run, and pages are checked before they are believed.
fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, ROW_BYTES_MAX)?;
    connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, STATEMENT_BYTES_MAX)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    for config in [
        DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA,
        DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER,
        DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW,
    ] {
        connection.set_db_config(config, false)?;
    }
    // Checkpoints are ours, so that one that fails is known: SQLite's own keep silent. On Apple's systems a plain fsync
    // leaves data in the drive's cache.
    connection.execute_batch(
        "PRAGMA cell_size_check = ON; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON; PRAGMA wal_autocheckpoint = 0;",
    )
}

/// Percent-encoded whatever it holds: a `?` of the name is none of the URI.
fn frozen_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri + "?immutable=1"
}

/// SQLite says only that it cannot; the operating system says why.
fn cannot_open(place: &Place, error: rusqlite::Error) -> Error {
    match std::fs::metadata(&place.path) {
        Err(error) => Error::from_io(Operation::Open, place.shown.as_str(), error),
        Ok(_) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && may_not_be_read(&place.path) => {
            Error::new(ErrorKind::PermissionDenied, Operation::Open, place.shown.as_str()).with_source(error)
        }
        Ok(_) => failed(Operation::Open, place.shown.as_str(), error),
    }
}

/// Asked without opening it, which may have locks in this process.
#[cfg(unix)]
fn may_not_be_read(path: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let answer = accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS);
    matches!(answer, Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM))
}

#[cfg(not(unix))]
fn may_not_be_read(_: &Path) -> bool {
    true
}

/// Whether a database that cannot be written to lacks what is needed to read the log beside it.
fn is_without_log(error: &NotOurs) -> bool {
    let code = match error {
        NotOurs::Refused(error) => error.sqlite_error_code(),
        _ => None,
    };
    matches!(code, Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::SystemIoFailure))
}

/// Why a database is not one of ours.
enum NotOurs {
    Refused(rusqlite::Error),
    NoDatabase,
    Foreign,
    Version(i32),
    OtherTables,
}

fn named<T>(found: std::result::Result<T, NotOurs>, place: &Place) -> Result<T> {
    let none = || invalid(&place.shown, "it is no SQLite database: name another file, or a new one");
    found.map_err(|error| match error {
        NotOurs::NoDatabase => none(),
        NotOurs::Refused(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => none(),
        NotOurs::Refused(error) => failed(Operation::Open, place.shown.as_str(), error),
        NotOurs::Foreign => {
            invalid(&place.shown, "it is a database of another program: name another file, or a new one")
        }
        NotOurs::Version(version) => Error::new(ErrorKind::Unsupported, Operation::Open, place.shown.as_str())
            .with_source(format!("its format is {version}, and only {FORMAT_VERSION} is known: use a newer version")),
        NotOurs::OtherTables => Error::new(ErrorKind::Corrupt, Operation::Open, place.shown.as_str())
            .with_source("its tables are not those that were made in it"),
    })
}

fn content(connection: &Connection) -> std::result::Result<Content, NotOurs> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let read = || -> rusqlite::Result<_> {
        let (id, version) = (number("application_id")?, number("user_version")?);
        limit_cache(connection)?;
        Ok((id, version, schema(connection)?))
    };
    let (id, version, schema) = read().map_err(NotOurs::Refused)?;
    match (id, version) {
        (0 | APPLICATION_ID, 0) if schema.is_empty() => return Ok(Content::Nothing),
        (APPLICATION_ID, 0 | FORMAT_VERSION) => {}
        (APPLICATION_ID, version) => return Err(NotOurs::Version(version)),
        _ => return Err(NotOurs::Foreign),
    }
    let table = |(name, sql): (&str, &str)| ["table", name, name, sql].map(str::to_owned);
    let [barriers, blobs] = TABLES.map(table);
    let index = ["index", INDEX, "blobs", ""].map(str::to_owned);
    if version == FORMAT_VERSION && schema == [barriers, blobs, index] {
        Ok(Content::Blobs)
    } else {
        Err(NotOurs::OtherTables)
    }
}

/// How much of a file is kept in memory is not for the file to say. Reads it, as far as its schema.
pub(crate) fn limit_cache(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -CACHE_KIB)
}

/// All that is in the schema by type, name, table and definition, up to one more than belongs there; what is too long is cut.
fn schema(connection: &Connection) -> rusqlite::Result<Vec<[String; 4]>> {
    let columns = ["type", "name", "tbl_name", "sql"].map(|column| format!("substr(ifnull({column}, ''), 1, 200)"));
    let sql = format!("SELECT {} FROM sqlite_schema ORDER BY name LIMIT {}", columns.join(", "), TABLES.len() + 2);
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?;
    rows.collect()
}

/// Makes sure that the log is in use, and the tables there. Where nothing was found, no other process does this meanwhile.
pub(crate) fn initialise(connection: &mut Connection, place: &Place, found: Content) -> Result<()> {
    let refused = |error: rusqlite::Error| failed(Operation::Open, place.shown.as_str(), error);
    // The default is whoever's who builds the library.
    connection.execute_batch("PRAGMA synchronous = FULL").map_err(refused)?;
    if found == Content::Nothing {
        // Before anything is in it. With pointer maps, the way to a part of a row need not be read page by page, and what is
        // free at the end can be given back. The number goes into the file itself, at once: a log may never
        // get there.
        let first = format!(
            "PRAGMA page_size = {PAGE_BYTES};
            BEGIN; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
        );
        connection.execute_batch(&first).map_err(refused)?;
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(refused)?;
    if mode != "wal" {
        return Err(Error::new(ErrorKind::Unsupported, Operation::Open, place.shown.as_str()).with_source(
            "SQLite cannot keep a log on this file system, which lacks shared memory: use a local one, or `file:`",
        ));
    }
    if found == Content::Blobs {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(refused)?;
    make_tables(&transaction).map_err(refused)?;
    transaction.commit().map_err(refused)
}

fn make_tables(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    for (_, sql) in TABLES {
        transaction.execute_batch(sql)?;
    }
    transaction.execute("INSERT INTO barriers (number, count) VALUES (0, 0)", [])?;
    transaction.pragma_update(None, "user_version", FORMAT_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_does_not_say_how_much_of_it_is_kept_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("database");
        let forged = Connection::open(&path).unwrap();
        forged.execute_batch("PRAGMA default_cache_size = 1000000; CREATE TABLE t (x);").unwrap();
        drop(forged);
        let place = Place::find(&path, OpenMode::Existing, "the database").unwrap();
        let pages = |connection: &Connection| {
            connection.pragma_query_value(None, "cache_size", |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(pages(&connect(&place, Access::Write).unwrap()), 1_000_000);
        let connection = connect(&place, Access::Write).unwrap();
        let _ = content(&connection);
        assert_eq!(pages(&connection), -i64::from(CACHE_KIB));
    }
}
