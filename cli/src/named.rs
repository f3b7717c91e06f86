//! Several paths on one command line, each looked at by itself: one that leads nowhere does not keep the others from being
//! shown.

use strongroom::Error;
use strongroom::fs::{FsSnapshot, Metadata};

use crate::exit::Failure;
use crate::output::complain;

/// What was named, and how much of it is not there.
pub(crate) struct Named {
    count: usize,
    missing: usize,
}

impl Named {
    pub(crate) fn new(count: usize) -> Self {
        Self { count, missing: 0 }
    }

    /// What is at a path, a link itself. `None` where nothing is, and others were named beside it: that is told.
    pub(crate) async fn metadata(&mut self, snapshot: &FsSnapshot, path: &[u8]) -> Result<Option<Metadata>, Failure> {
        match snapshot.symlink_metadata(path).await {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error @ (Error::NotFound { .. } | Error::NotADirectory { .. })) if self.count > 1 => {
                complain(&Failure::from(error).to_string());
                self.missing += 1;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether all of it was there.
    pub(crate) fn end(self) -> Result<(), Failure> {
        match self.missing {
            0 => Ok(()),
            missing => Err(Failure::failed(format!("{missing} of {} paths lead nowhere, see above", self.count))),
        }
    }
}
