//! Whether a file that has the size and the time of what was stored of it has its content, too.
//!
//! The time of a file's content is what anybody sets it to; when anything about a file changed last, its name, its mode or
//! its content, nobody can set. So what is stored of a file is tagged with that, and with which file it is: whatever has the
//! tag, the size and the time of a content has that content, and is not opened. The tag is the content's: it goes with it
//! through renames, copies and snapshots of the repository, and is gone from whatever else is written there.
//!
//! Else the content is compared, whatever may explain it (another mode, another name, a copy of the disk, a restored backup),
//! and once it is the same, the tag is noted. Of a file that changed just before it was read, or later than the import began,
//! another change could leave no trace, and so it is where a program can write to it through memory: it is not tagged, and
//! compared by the next import. Which programs can, this machine may not tell of all: `--checksum` compares every file.

use strongroom::fs::{ContentTag, FileSystem, Metadata};

use super::batch::{self, Stopped};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::local::source::{Entry, SourceFile};

/// What a file is to the one in the repository that has its size and time.
pub(super) enum Likeness {
    /// Nothing about it changed since it was read. It was not opened, unless all are compared.
    Untouched,
    /// Its content is the same, and known by this from now on, so that the next import is spared the comparison.
    Same(Option<ContentTag>),
    Different,
    /// Whether it is the same cannot be told, for this reason.
    Unknown(String),
}

impl Likeness {
    /// Of a file to what was stored of it at a path; `compares_all`: whatever it is known by, its content is compared.
    pub(super) async fn of(
        entry: &Entry,
        path: &[u8],
        there: &Metadata,
        fs: &FileSystem,
        context: &Context,
        compares_all: bool,
    ) -> Result<Self, Failure> {
        let is_known = there.content_tag == Some(entry.tag);
        if is_known && !compares_all {
            return Ok(Self::Untouched);
        }
        match compare(entry, path, there, fs, context).await {
            // There is nothing to note.
            Ok(Self::Same(_)) if is_known => Ok(Self::Untouched),
            Ok(likeness) => Ok(likeness),
            Err(Stopped::Conflict) => Ok(Self::Different),
            Err(Stopped::LeftOut(reason) | Stopped::Spoilt(reason)) => Ok(Self::Unknown(reason)),
            Err(Stopped::Damaged(reason)) => Err(Failure::new(Exit::Damaged, reason)),
            Err(Stopped::Failed(failure)) => Err(failure),
        }
    }
}

async fn compare(
    entry: &Entry,
    path: &[u8],
    there: &Metadata,
    fs: &FileSystem,
    context: &Context,
) -> Result<Likeness, Stopped> {
    let mapped = context.mapped(fs);
    let source = SourceFile::open(&entry.path, context.own()).map_err(batch::unreadable)?;
    let transaction = fs.begin();
    // It may have been given up since the import began, or be another by now.
    match transaction.symlink_metadata(path).await {
        Ok(now) if (now.inode, now.content_changed) == (there.inode, there.content_changed) => {}
        Ok(_) | Err(strongroom::Error::NotFound { .. }) => return Ok(Likeness::Different),
        Err(error) => return Err(error.into()),
    }
    if !batch::is_same(&transaction, path, &source, Some(&context.interrupt)).await? {
        return Ok(Likeness::Different);
    }
    // What was written meanwhile would be taken for compared.
    if source.is_torn() {
        return Ok(Likeness::Different);
    }
    Ok(Likeness::Same(source.tag(mapped, false)))
}
