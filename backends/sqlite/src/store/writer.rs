//! The connection that writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use crate::database::BUSY_WAIT;

/// The space of so many pages is given back at once at most, where they are more than a quarter of the file: when the log is
/// written into the database, and when the last handle is closed, which may be in a thread that must not wait for long.
const GIVEN_BACK_PAGES_MAX: u64 = 1024;

/// How long it is waited between two attempts at a checkpoint while another process makes one.
pub(super) const CHECKPOINT_PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    /// Whether the next commit is synced.
    syncs: Syncs,
    /// Whether something was changed that no synced commit followed.
    pub(crate) is_dirty: bool,
    /// Whether the log may hold what a process failed to sync that is dead now: the operating system may take that for written,
    /// so that to sync it again proves nothing. Then the first barrier writes it into the database, which is synced.
    pub(super) inherits_log: bool,
    /// In the log as of the last commit here, from its beginning on.
    pub(super) log_pages: Arc<AtomicU64>,
    /// Of these, so many were there when the log was last written into the database.
    pub(super) checkpointed_pages: u64,
    pub(crate) has_deleted: bool,
    /// How long others are waited for.
    pub(super) patience: Duration,
}

/// SQLite's `synchronous`: whether a commit waits until the log is on the medium. What comes before it in the log is there then,
/// too, whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syncs {
    Normal,
    Full,
}

/// How hard a checkpoint tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checkpoint {
    /// As far as others allow.
    Passive,
    /// Waits for those who write or read an earlier state.
    Full,
    /// The same, and cuts the log to nothing.
    Truncate,
}

impl Writer {
    pub(super) fn new(mut connection: Connection, inherits_log: bool) -> rusqlite::Result<Self> {
        let log_pages = Arc::new(AtomicU64::new(0));
        let counted = log_pages.clone();
        connection.wal_hook(Some(move |_: &mut Wal, pages: std::ffi::c_int| {
            counted.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            connection,
            syncs: Syncs::Full,
            is_dirty: false,
            inherits_log,
            log_pages,
            checkpointed_pages: 0,
            has_deleted: false,
            patience: BUSY_WAIT,
        })
    }

    /// Does a change, all or nothing.
    pub(super) fn attempt<T>(
        &mut self,
        syncs: Syncs,
        change: impl Fn(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let outcome = self.set(syncs).and_then(|()| change(self));
        if !self.connection.is_autocommit() {
            // What fails at its end may leave its transaction open.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        outcome
    }

    fn set(&mut self, syncs: Syncs) -> rusqlite::Result<()> {
        if self.syncs == syncs {
            return Ok(());
        }
        let sql = match syncs {
            Syncs::Normal => "PRAGMA synchronous = NORMAL",
            Syncs::Full => "PRAGMA synchronous = FULL",
        };
        self.connection.execute_batch(sql)?;
        self.syncs = syncs;
        Ok(())
    }

    /// Syncs the log, writes it into the database, and syncs that; false where others did not allow all of it.
    pub(super) fn checkpoint(&mut self, how: Checkpoint) -> rusqlite::Result<bool> {
        let sql = match how {
            Checkpoint::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            Checkpoint::Full => "PRAGMA wal_checkpoint(FULL)",
            Checkpoint::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
        };
        let numbers =
            |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (mut busy, mut in_log, mut done) = self.connection.query_row(sql, [], numbers)?;
        if how != Checkpoint::Passive {
            // For whoever makes a checkpoint at this moment SQLite does not wait, as it does for all others.
            for _ in 0..self.patience.as_millis() / CHECKPOINT_PAUSE.as_millis() {
                if busy == 0 || in_log >= 0 {
                    break;
                }
                std::thread::sleep(CHECKPOINT_PAUSE);
                (busy, in_log, done) = self.connection.query_row(sql, [], numbers)?;
            }
        }
        let is_whole = busy == 0 && in_log == done;
        if is_whole && how == Checkpoint::Truncate {
            self.log_pages.store(0, Ordering::Relaxed);
        }
        Ok(is_whole)
    }

    pub(super) fn pages(&self, pragma: &str) -> rusqlite::Result<u64> {
        let pages = self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))?;
        Ok(u64::try_from(pages).unwrap_or(0))
    }

    /// Shortens a file of which much is free, where that came of deletions here. What is not given back is there for the next blobs.
    pub(super) fn give_back(&self) -> rusqlite::Result<()> {
        let free = if self.has_deleted { self.pages("freelist_count")? } else { 0 };
        if free > self.pages("page_count")? / 4 {
            let sql = format!("PRAGMA incremental_vacuum({})", free.min(GIVEN_BACK_PAGES_MAX));
            let mut statement = self.connection.prepare(&sql)?;
            let mut steps = statement.query([])?;
            // Each gives back a page.
            while steps.next()?.is_some() {}
        }
        Ok(())
    }
}
