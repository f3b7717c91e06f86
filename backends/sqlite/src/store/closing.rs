//! How a database is closed: nothing stays in its log alone, as far as others allow.

use std::slice;
use std::sync::PoisonError;
use std::time::Duration;

use rusqlite::config::DbConfig;
use strongroom_core::storage::Operation;

use super::Store;
use super::writer::{CHECKPOINT_PAUSE, Checkpoint};
use crate::database::Access;

/// How long closing waits for other processes, at each attempt; and how many it makes, where they leave something in the log.
const CLOSING_WAIT: Duration = Duration::from_millis(20);
const CLOSING_LOOKS: u32 = 5;

impl Drop for Store {
    /// Writes the log into the database, whoever else is there, so that nothing stays in the log alone; who is the last gives space
    /// back, and SQLite removes the log. That is 8 MiB and what is given back here, and no process is waited for for long. It is
    /// dropped in the thread of the last handle: on a worker, it would go on when the caller takes the database for closed, and
    /// moves it.
    fn drop(&mut self) {
        if self.access != Access::Write {
            return;
        }
        if self.empty_log_and_be_alone() {
            if let Err(error) = self.writer().give_back() {
                self.note(&error);
            }
            if self.is_whole() {
                return;
            }
        }
        // What is in doubt, whoever opens it next takes from the log by its checksums. SQLite takes itself for the last one, too, where
        // the locks of another process are lost, and would take away the log that it writes to. Ours are not lost so. While alone,
        // nobody comes in before all is closed.
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = self.writer();
        for connection in readers.iter().chain(slice::from_ref(&writer.connection)) {
            let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

impl Store {
    /// Where the file is gone, what is called like its log may be another's.
    fn is_whole(&self) -> bool {
        !self.place.is_gone() && self.check_log(Operation::Sync).is_ok() && !self.is_in_doubt()
    }

    /// Writes the log into the database and cuts it to nothing, as far as others allow; answers whether this process is alone then,
    /// and nothing is in doubt. Of two that close at once each may find the other still there, and neither be alone: so each has
    /// written what there is before it goes.
    fn empty_log_and_be_alone(&self) -> bool {
        let mut writer = self.writer();
        writer.patience = CLOSING_WAIT;
        // Of readers none is at work: whoever reads has a handle.
        if writer.connection.busy_timeout(CLOSING_WAIT).is_err() {
            return false;
        }
        for _ in 0..CLOSING_LOOKS {
            if !self.is_whole() {
                return false;
            }
            let is_empty = self.checkpoint(&mut writer, Checkpoint::Truncate);
            if !self.is_whole() {
                return false;
            }
            if matches!(self.presence.try_alone(), Ok(true)) {
                return true;
            }
            if is_empty {
                return false;
            }
            std::thread::sleep(CHECKPOINT_PAUSE);
        }
        false
    }
}
