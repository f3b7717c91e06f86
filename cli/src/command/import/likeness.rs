//! Whether a file that has the size and the time of what was stored of it has its content, too.
//!
//! The time of a file's content is what anybody sets it to; when anything about a file changed last, its name, its mode or
//! its content, nobody can set. Where that is no later than what was stored, nothing is opened. Where it is, the content is
//! compared, whatever else may explain it, and it is noted in the repository that it was: by a change of no attribute, whose
//! moment is later. Until a clock has come past a time that lies ahead, nothing can be told by it, and files are compared.

use strongroom::fs::{FileSystem, Metadata};

use super::batch::{self, Stopped};
use crate::context::Context;
use crate::exit::Failure;
use crate::local::source::{Entry, SourceFile};

/// What a file is to the one in the repository that has its size and time.
pub(super) enum Likeness {
    /// Nothing about it changed since it was stored. It was not opened.
    Untouched,
    /// Its content is the same.
    Same {
        /// Whether noting it spares the next import the comparison.
        is_worth_noting: bool,
    },
    Different,
    /// Whether it is the same cannot be told, for this reason.
    Unknown(String),
}

impl Likeness {
    /// Of a file to what was stored of it at a path.
    pub(super) async fn of(
        entry: &Entry,
        path: &[u8],
        there: &Metadata,
        fs: &FileSystem,
        context: &Context,
    ) -> Result<Self, Failure> {
        let stored = there.ctime.seconds.saturating_mul(1_000).saturating_add((there.ctime.nanos / 1_000_000).into());
        let now = i64::try_from(fs.engine().env().now()).unwrap_or(i64::MAX);
        if entry.changed < stored && stored <= now {
            return Ok(Self::Untouched);
        }
        match compare(entry, path, fs, context).await {
            Ok(true) => Ok(Self::Same { is_worth_noting: stored <= now && entry.changed < now }),
            Ok(false) | Err(Stopped::Conflict) => Ok(Self::Different),
            Err(Stopped::LeftOut(reason) | Stopped::Spoilt(reason)) => Ok(Self::Unknown(reason)),
            Err(Stopped::Failed(failure)) => Err(failure),
        }
    }
}

async fn compare(entry: &Entry, path: &[u8], fs: &FileSystem, context: &Context) -> Result<bool, Stopped> {
    let source = SourceFile::open(&entry.path, context.own()).map_err(batch::unreadable)?;
    let transaction = fs.begin();
    // It may have been given up since the import began.
    if batch::kind(&transaction, path).await? != Some(strongroom::fs::Kind::File) {
        return Ok(false);
    }
    let is_same = batch::is_same(&transaction, path, &source, Some(&context.interrupt)).await?;
    // What was written meanwhile would be noted as compared.
    Ok(is_same && source.is_untouched().unwrap_or(false))
}
