//! Several paths on one command line, each looked at by itself: one that leads nowhere, or cannot be read, does not keep the
//! others from being shown.

use strongroom::Error;
use strongroom::fs::{FsSnapshot, Metadata};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{complain, shown};

/// What was named, and how much of it could not be shown.
pub(crate) struct Named {
    count: usize,
    left_out: usize,
    damaged: usize,
}

impl Named {
    pub(crate) fn new(count: usize) -> Self {
        Self { count, left_out: 0, damaged: 0 }
    }

    /// What is at a path, a link itself. `None` where that cannot be told, and others were named beside it: that is told.
    pub(crate) async fn metadata(&mut self, snapshot: &FsSnapshot, path: &[u8]) -> Result<Option<Metadata>, Failure> {
        let error = match snapshot.symlink_metadata(path).await {
            Ok(metadata) => return Ok(Some(metadata)),
            Err(error) => error,
        };
        let is_of_path = matches!(
            error,
            Error::NotFound { .. }
                | Error::NotADirectory { .. }
                | Error::SymlinkLoop { .. }
                | Error::NameTooLong { .. }
                | Error::InvalidPath { .. }
        );
        let failure = Failure::from(error);
        let is_damaged = failure.exit() == Exit::Damaged;
        if self.count < 2 || !(is_of_path || is_damaged) {
            return Err(failure);
        }
        complain(&failure.on(shown(path)).to_string());
        self.left_out += 1;
        self.damaged += usize::from(is_damaged);
        Ok(None)
    }

    /// Whether all of it could be shown.
    pub(crate) fn end(self) -> Result<(), Failure> {
        if self.damaged > 0 {
            return Err(Failure::new(Exit::Damaged, format!("{} could not be read: run `check`", self.damaged)));
        }
        match self.left_out {
            0 => Ok(()),
            all if all == self.count => Err(Failure::failed("none of these paths leads anywhere, see above")),
            some => Err(Context::partial(u64::try_from(some).unwrap_or(u64::MAX), "paths")),
        }
    }
}
