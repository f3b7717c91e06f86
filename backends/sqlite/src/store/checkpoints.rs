//! When the log is written into the database, whether there is room for it, and what it means where that fails: after a barrier or a
//! checkpoint that failed nobody knows what of the log reached the medium, so nothing is written any more.

use std::sync::atomic::Ordering;

use strongroom_core::storage::{Error, ErrorKind, Operation, Result};

use super::writer::{Checkpoint, Writer};
use super::{Size, Store};
use crate::database::PAGE_BYTES;
use crate::error::{failed, in_doubt, is_put_off, leaves_doubt, log_lost};
use crate::log::Log;
use crate::room::{self, Need};

/// After so many pages more the log is written into the database, so that it does not grow without end: 8 MiB.
const CHECKPOINT_PAGES: u64 = 512;

/// Where so many pages are in the log, because somebody was always reading, what is due waits for them: 64 MiB.
const LOG_PAGES_MAX: u64 = 8 * CHECKPOINT_PAGES;

impl Store {
    /// Remembers what an error means for later barriers.
    pub(super) fn noted(&self, error: Error) -> Error {
        if leaves_doubt(&error) {
            self.is_in_doubt.store(true, Ordering::SeqCst);
        }
        error
    }

    /// Remembers what an error means of which nobody hears: of a checkpoint, or where space is given back.
    pub(super) fn note(&self, error: &rusqlite::Error) {
        if !is_put_off(error) {
            self.is_in_doubt.store(true, Ordering::SeqCst);
        }
    }

    /// Before the first barrier, what others left in the log is made durable in another way than theirs.
    pub(super) fn settle(&self, operation: Operation, writer: &mut Writer) -> Result<()> {
        if writer.inherits_log {
            let is_whole = writer.checkpoint(Checkpoint::Full).map_err(|error| {
                self.note(&error);
                failed(operation, "the database", error)
            })?;
            if !is_whole {
                return Err(Error::new(ErrorKind::Busy, operation, "the database")
                    .with_source("another process reads or writes it all the time"));
            }
            writer.inherits_log = false;
        }
        Ok(())
    }

    pub(super) fn checkpoint_if_due(&self, writer: &mut Writer) {
        let pages = writer.log_pages.load(Ordering::Relaxed);
        if pages < writer.checkpointed_pages {
            // It was begun anew.
            writer.checkpointed_pages = 0;
        }
        if pages - writer.checkpointed_pages >= CHECKPOINT_PAGES {
            writer.checkpointed_pages = pages;
            let is_long = pages >= LOG_PAGES_MAX;
            self.checkpoint(writer, if is_long { Checkpoint::Truncate } else { Checkpoint::Passive });
            if self.is_in_doubt() {
                return;
            }
            if let Err(error) = writer.give_back() {
                self.note(&error);
            }
        }
    }

    /// Writes the log into the database; answers whether all of it is there now. What leaves doubt is told by the next change.
    pub(super) fn checkpoint(&self, writer: &mut Writer, how: Checkpoint) -> bool {
        if self.check_log(Operation::Sync).is_err() || self.is_in_doubt() {
            // It would put what is old over what is newer; or let the log be begun anew, which may be all that is left of what
            // an earlier one wrote into the database and failed to sync.
            return false;
        }
        match writer.checkpoint(how) {
            Ok(is_whole) => is_whole,
            Err(error) => {
                self.note(&error);
                false
            }
        }
    }

    /// Whether the disk takes so much, and deletions after it.
    pub(super) fn has_room(&self, operation: Operation, writer: &mut Writer, size: Size) -> Result<bool> {
        let left = || room::left(&self.place.path).unwrap_or(u64::MAX);
        if left() > room::AMPLE_BYTES.saturating_add(size.bytes) {
            return Ok(true);
        }
        let refused = |error| failed(operation, "the database", error);
        if self.need(writer, size).map_err(refused)?.bytes() <= left() {
            return Ok(true);
        }
        self.checkpoint(writer, Checkpoint::Truncate);
        Ok(self.need(writer, size).map_err(refused)?.bytes() <= left())
    }

    fn need(&self, writer: &Writer, size: Size) -> rusqlite::Result<Need> {
        let page_bytes = u64::from(PAGE_BYTES);
        let pages = size.bytes / page_bytes + size.blobs * room::PAGES_BESIDE;
        let log_file = self.log.as_ref().map_or(0, Log::bytes);
        // Before the first commit here, or where another process wrote since, it is not known how much of the file is in use.
        let log_pages = writer.log_pages.load(Ordering::Relaxed).max(log_file / page_bytes);
        let new_pages = pages.saturating_sub(writer.pages("freelist_count")?);
        Ok(Need {
            database: writer.pages("page_count")?.saturating_add(new_pages).saturating_mul(page_bytes),
            database_file: std::fs::metadata(&self.place.path).map_or(0, |metadata| metadata.len()),
            log: log_pages.saturating_add(pages).saturating_mul(page_bytes),
            log_file,
        })
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.is_in_doubt.load(Ordering::SeqCst)
    }

    pub(crate) fn check_doubt(&self, operation: Operation) -> Result<()> {
        if self.is_in_doubt() { Err(in_doubt(operation)) } else { Ok(()) }
    }

    pub(crate) fn check_log(&self, operation: Operation) -> Result<()> {
        match &self.log {
            Some(log) if !log.is_in_place() => Err(self.noted(log_lost(operation))),
            _ => Ok(()),
        }
    }
}
