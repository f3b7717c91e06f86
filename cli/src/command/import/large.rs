//! A large file goes in over many commits, so that neither memory nor what a kill costs grows with it.
//!
//! It is written under a name of its own beside its place ([`super::draft`]), and takes its place when it is whole. That
//! name tells the state of the source: where an import was stopped, the next goes on from what was committed, as long as
//! the source is the same. Attempts at an earlier state are kept until it is done: what they stored is found and not
//! stored again. Of two imports at once the one that loses a race begins a draft that is its alone.

use std::path::Path;

use strongroom::core;
use strongroom::fs::{AttributeChange, ContentTag, File, FileSystem, Kind, OpenOptions, Settings};

use super::batch::{self, ATTEMPTS_MAX, Stopped, Stored};
use super::draft::{self, Drafts};
use crate::context::Context;
use crate::exit::Failure;
use crate::local::mapped::Mapped;
use crate::local::source::SourceFile;
use crate::output::shown;
use crate::progress::Progress;
use crate::transfer::{self, Broken, Sink};

/// Files that take so many commits go this way.
pub(super) const COMMITS_MIN: u64 = 2;

/// A large file that is to be stored.
pub(super) struct Large<'a> {
    pub(super) fs: &'a FileSystem,
    /// In the repository.
    pub(super) path: &'a [u8],
    pub(super) local: &'a Path,
    /// It is not to go into the file that is there, which other names lead to as well.
    pub(super) apart: bool,
    /// Content that is committed at once, about.
    pub(super) commit_bytes: u64,
    pub(super) context: &'a Context,
    pub(super) progress: &'a Progress,
}

/// A draft that is whole, and what it becomes.
struct Whole<'a> {
    /// In the repository.
    path: &'a [u8],
    /// It, and others of the same file.
    drafts: &'a Drafts,
    /// What the file in its place was becomes a version of it. That takes some rows for each stretch of the two, in one commit
    /// and in memory, so otherwise a name changes.
    within: bool,
    /// How many versions the file keeps, where that is its own.
    versions: Option<u32>,
    change: AttributeChange,
    /// What the content is known by.
    tag: Option<ContentTag>,
}

/// What putting a draft in its place came to.
enum Placed {
    Done,
    /// No commit holds what keeping the older versions takes.
    TooLarge,
    /// Another writer was faster.
    Raced,
}

impl Large<'_> {
    /// Stores it.
    pub(super) async fn store(&self, buffer: &mut [u8]) -> Result<Stored, Stopped> {
        for attempt in 0..ATTEMPTS_MAX {
            match self.attempt(attempt > 0, buffer).await {
                Err(Stopped::Conflict) => self.refresh().await?,
                done => return done,
            }
        }
        Err(Stopped::Conflict)
    }

    async fn refresh(&self) -> Result<(), Stopped> {
        self.fs.engine().refresh().await.map_err(|error| Stopped::Failed(error.into()))
    }

    /// `raced`: another writer was in the way, most likely an import of the same file.
    async fn attempt(&self, raced: bool, buffer: &mut [u8]) -> Result<Stored, Stopped> {
        let (fs, path) = (self.fs, self.path);
        let mapped = self.context.mapped(fs);
        let source = SourceFile::open(self.local, self.context.own()).map_err(batch::unreadable)?;
        let drafts = Drafts::of(path);
        if let Some(stored) = self.found_there(&source, mapped, &drafts, raced).await? {
            self.progress.add(source.size);
            return Ok(stored);
        }
        // It is kept as the file is that it becomes; but what it is on the way is no version of anything.
        let settings = match fs.symlink_metadata(path).await {
            Ok(there) if there.kind == Kind::File => fs.settings(path).await?,
            Ok(_) | Err(strongroom::Error::NotFound { .. } | strongroom::Error::NotADirectory { .. }) => {
                Settings::default()
            }
            Err(error) => return Err(error.into()),
        };
        let draft = drafts.begin(fs, &source.state, Settings { versions: Some(0), ..settings }, raced).await?;
        let file = match fs.open_file(&draft, OpenOptions::new().read(false).write(true)).await {
            Err(strongroom::Error::NotFound { .. }) => return Err(Stopped::Conflict),
            opened => opened?,
        };
        let start = file.len().await?;
        self.progress.add(start);
        let mut sink =
            Pieces { file, offset: start, commit_bytes: self.commit_bytes, unflushed: 0, context: self.context };
        transfer::store(&source, start, &mut sink, buffer, |bytes| self.progress.add(bytes)).await?;
        let stored = Stored { bytes: sink.offset, torn: source.is_torn() };
        sink.flush().await.map_err(Broken::Repository)?;
        sink.file.close().await?;
        let change = batch::change_of_file(&source, stored.torn);
        let keeps_versions = settings.versions.unwrap_or(fs.options().versions) > 0;
        let within = keeps_versions && !self.apart;
        // What an earlier attempt read, it read at a time that this one does not know.
        let tag = source.tag(mapped, stored.torn).filter(|_| start == 0);
        let whole = Whole { path: &draft, drafts: &drafts, within, versions: settings.versions, change, tag };
        self.give_place(whole).await?;
        Ok(stored)
    }

    /// Whether the file there has this content already, which then gets the attributes alone: a version of what did not
    /// change would cost one of what did. It is not looked at where nothing hangs on it.
    async fn found_there(
        &self,
        source: &SourceFile,
        mapped: &Mapped,
        drafts: &Drafts,
        raced: bool,
    ) -> Result<Option<Stored>, Stopped> {
        let (fs, path) = (self.fs, self.path);
        let mut transaction = fs.begin();
        if self.apart
            || batch::kind(&transaction, path).await? != Some(Kind::File)
            || transaction.symlink_metadata(path).await?.nlink > 1
            || draft::is_one(&transaction, path).await?
            || !(raced || batch::has_history(fs, &transaction, path).await?)
        {
            return Ok(None);
        }
        if !batch::is_same(&transaction, path, source, Some(&self.context.interrupt)).await? {
            return if self.context.interrupt.asked() { Err(Stopped::Failed(interrupted())) } else { Ok(None) };
        }
        let torn = source.is_torn();
        transaction.set_attributes(path, batch::change_of_file(source, torn)).await?;
        if let Some(tag) = source.tag(mapped, torn) {
            transaction.set_content_tag(path, Some(tag)).await?;
        }
        for draft in drafts.all(fs, &transaction).await? {
            transaction.remove_file(&draft).await?;
        }
        transaction.commit().await?;
        Ok(Some(Stored { bytes: source.size, torn }))
    }

    /// Gives a draft its place, and removes all others.
    async fn give_place(&self, mut draft: Whole<'_>) -> Result<(), Stopped> {
        for _ in 0..ATTEMPTS_MAX {
            match self.put_in_place(&draft).await? {
                Placed::Done => return Ok(()),
                Placed::Raced => self.refresh().await?,
                Placed::TooLarge => {
                    draft.within = false;
                    let path = shown(self.path);
                    let text = format!("{path}: is too large to keep its older versions: they are given up");
                    self.progress.aside(|| self.context.output.notice(&text));
                }
            }
        }
        Err(Stopped::Conflict)
    }

    async fn put_in_place(&self, whole: &Whole<'_>) -> Result<Placed, Stopped> {
        let Whole { path: draft, drafts, within, versions, change, tag } = *whole;
        let path = self.path;
        let mut transaction = self.fs.begin();
        if !draft::is_one(&transaction, draft).await? {
            // Another import was done first, and has removed it.
            return Err(Stopped::Conflict);
        }
        match batch::kind(&transaction, path).await? {
            Some(Kind::Directory) => {
                return Err(Stopped::LeftOut("a folder of that name is in the repository".to_owned()));
            }
            // Others may have given it another name meanwhile, which is not to change.
            Some(Kind::File)
                if within
                    && transaction.symlink_metadata(path).await?.nlink == 1
                    && !draft::is_one(&transaction, path).await? =>
            {
                transaction.copy(draft, path).await?;
                transaction.set_attributes(path, change).await?;
            }
            _ => {
                draft::unmark(&mut transaction, draft).await?;
                transaction.set_attributes(draft, change).await?;
                transaction.set_version_limit(draft, versions).await?;
                transaction.rename(draft, path).await?;
            }
        }
        if tag.is_some() {
            transaction.set_content_tag(path, tag).await?;
        }
        for left in drafts.all(self.fs, &transaction).await? {
            transaction.remove_file(&left).await?;
        }
        match transaction.commit().await {
            Ok(_) => Ok(Placed::Done),
            Err(error) if error.is_conflict() => Ok(Placed::Raced),
            Err(strongroom::Error::Core(core::Error::LimitExceeded { .. })) if within => Ok(Placed::TooLarge),
            Err(error @ strongroom::Error::Core(core::Error::LimitExceeded { .. })) => {
                Err(Stopped::LeftOut(format!("cannot take the place of what is there: {error}: remove that first")))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn interrupted() -> Failure {
    Failure::failed("interrupted: what was stored so far is kept; run it again for the rest")
}

struct Pieces<'a> {
    file: File,
    offset: u64,
    commit_bytes: u64,
    unflushed: u64,
    context: &'a Context,
}

impl Pieces<'_> {
    /// Makes what was written durable. Where the draft ends elsewhere than here, another import is at it, and what lies between
    /// is not to be relied on.
    async fn flush(&self) -> Result<(), Failure> {
        self.file.flush().await.map_err(lost)?;
        match self.file.len().await.map_err(lost)? == self.offset {
            true => Ok(()),
            false => Err(core::Error::Conflict.into()),
        }
    }

    async fn advance(&mut self, bytes: u64) -> Result<(), Failure> {
        self.offset += bytes;
        self.unflushed += bytes;
        if self.unflushed >= self.commit_bytes {
            self.flush().await?;
            self.unflushed = 0;
            if self.context.interrupt.asked() {
                return Err(interrupted());
            }
        }
        Ok(())
    }
}

/// A draft that is gone was another import's too, which was done first.
fn lost(error: strongroom::Error) -> Failure {
    match error {
        strongroom::Error::Stale => core::Error::Conflict.into(),
        error => error.into(),
    }
}

impl Sink for Pieces<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_at(self.offset, bytes).await.map_err(lost)?;
        self.advance(u64::try_from(bytes.len()).unwrap_or(u64::MAX)).await
    }

    async fn hole(&mut self, length: u64) -> Result<(), Failure> {
        if length == 0 {
            return Ok(());
        }
        self.offset += length;
        // Never less: another import that takes this draft for its own may be further.
        if self.file.len().await.map_err(lost)? < self.offset {
            self.file.set_len(self.offset).await.map_err(lost)?;
        }
        Ok(())
    }
}
