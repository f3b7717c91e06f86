//! The steps of an import, in transactions of bounded size that can be taken again.

use std::collections::BTreeSet;
use std::path::PathBuf;

use strongroom::core;
use strongroom::fs::{AttributeChange, ContentTag, FileSystem, Follow, FsTransaction, Kind, Metadata, XattrMode};

use super::draft;
use super::large::{self, Large};
use super::store::same_attributes;
use crate::context::Context;
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::local::Attributes;
use crate::local::source::SourceFile;
use crate::local::xattrs;
use crate::progress::Progress;
use crate::transfer::{self, Broken, Comparison, PIECE_BYTES};

/// A transaction is committed after so many blocks of content, which is all that a kill can cost, and of which what a
/// commit takes by itself (a block and parts of others) is two in a hundred …
const COMMIT_BLOCKS: u64 = 80;
/// … but not after less than this …
const COMMIT_BYTES_MIN: u64 = 512 << 10;
/// … or after so many steps …
const STEPS_MAX: usize = 2_000;
/// … or when it holds so many bytes in memory.
const PENDING_BYTES_MAX: u64 = 4 << 20;
/// How often the same steps are taken before it gives up against other writers.
pub(super) const ATTEMPTS_MAX: u32 = 8;

/// Something to do in the repository.
#[derive(Debug)]
pub(super) enum Step {
    /// A folder and those that lead to it.
    Way {
        path: Vec<u8>,
    },
    Folder {
        path: Vec<u8>,
        attributes: Attributes,
    },
    File {
        path: Vec<u8>,
        source: PathBuf,
        size: u64,
        /// It is not to go into the file that is there, which other names lead to as well.
        apart: bool,
    },
    /// One more name for a file.
    Name {
        path: Vec<u8>,
        existing: Vec<u8>,
    },
    Link {
        path: Vec<u8>,
        target: Vec<u8>,
        attributes: Attributes,
    },
    Attributes {
        path: Vec<u8>,
        attributes: Attributes,
        /// Of a link: which one was met.
        inode: Option<u64>,
    },
    /// A file whose content is in the repository gets its attributes, and what the content is known by.
    Found {
        path: Vec<u8>,
        attributes: Attributes,
        /// What it was in the repository: where the path leads to another file or content by now, that stays as it is.
        there: Metadata,
        tag: Option<ContentTag>,
    },
    /// Makes the extended attributes those of the source.
    Xattrs {
        path: Vec<u8>,
        source: PathBuf,
    },
    /// Removes a file, a link, or a folder with nothing in it.
    Remove {
        path: Vec<u8>,
    },
}

impl Step {
    fn path(&self) -> &[u8] {
        match self {
            Self::Way { path }
            | Self::Folder { path, .. }
            | Self::File { path, .. }
            | Self::Name { path, .. }
            | Self::Link { path, .. }
            | Self::Attributes { path, .. }
            | Self::Found { path, .. }
            | Self::Xattrs { path, .. }
            | Self::Remove { path } => path,
        }
    }
}

/// How a step ended that was not taken to its end.
pub(super) enum Stopped {
    /// It changed nothing; the others go on.
    LeftOut(String),
    /// The transaction is of no more use: the others are taken again without this one.
    Spoilt(String),
    /// The same, as what it had to look at in the repository is damaged.
    Damaged(String),
    /// Nothing goes on.
    Failed(Failure),
    /// Another writer was faster: all are taken again.
    Conflict,
}

impl From<strongroom::Error> for Stopped {
    fn from(error: strongroom::Error) -> Self {
        use strongroom::Error as E;
        match error {
            // Of what is removed while it is written, another writer was done before.
            E::Core(core::Error::Conflict | core::Error::Expired) | E::Stale => Self::Conflict,
            E::Source(error) => Self::LeftOut(format!("cannot be read: {error}")),
            E::FileTooLarge { .. } => Self::Spoilt(error.to_string()),
            E::Core(core::Error::Damaged(_) | core::Error::Missing { .. }) => Self::Damaged(error.to_string()),
            E::Core(_) | E::Interrupted | E::NoFileSystem => Self::Failed(error.into()),
            // Refused for what it is: a name that is too long, a folder that could not be made before.
            _ => Self::LeftOut(error.to_string()),
        }
    }
}

impl From<Broken> for Stopped {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Source(error) => Self::Spoilt(format!("cannot be read: {error}")),
            Broken::Repository(failure) if failure.exit() == crate::exit::Exit::Busy => Self::Conflict,
            Broken::Repository(failure) if failure.exit() == crate::exit::Exit::Damaged => {
                Self::Damaged(failure.to_string())
            }
            Broken::Repository(failure) => Self::Failed(failure),
        }
    }
}

/// The steps since the last commit, and the transaction that holds them.
pub(super) struct Batch {
    fs: FileSystem,
    transaction: Option<FsTransaction>,
    steps: Vec<Step>,
    bytes: u64,
    /// Content that is committed at once, about.
    commit_bytes: u64,
    /// Paths whose steps are not taken again.
    left_out: BTreeSet<Vec<u8>>,
    news: Vec<News>,
    buffer: Vec<u8>,
    /// Steps went with a transaction that failed, and were not taken again.
    is_lost: bool,
}

impl Batch {
    pub(super) fn new(fs: FileSystem) -> Self {
        let commit_bytes = (u64::from(fs.engine().block_bytes()) * COMMIT_BLOCKS).max(COMMIT_BYTES_MIN);
        Self {
            fs,
            commit_bytes,
            transaction: None,
            steps: Vec::new(),
            bytes: 0,
            left_out: BTreeSet::new(),
            news: Vec::new(),
            buffer: vec![0; PIECE_BYTES],
            is_lost: false,
        }
    }

    /// Whether steps that were taken may be neither committed nor taken again: nothing goes on then, whatever the reason was.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether a file of this size goes in over many commits.
    pub(super) fn is_large(&self, size: u64) -> bool {
        size >= self.commit_bytes.saturating_mul(large::COMMITS_MIN)
    }

    /// What was left out, or is not as it is here, since this was asked last.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Takes a step; answers the bytes of content that it stored, `None` where it was left out.
    pub(super) async fn take(
        &mut self,
        step: Step,
        context: &Context,
        progress: &Progress,
    ) -> Result<Option<u64>, Failure> {
        let taken = self.try_to_take(step, context, progress).await;
        self.is_lost |= taken.is_err();
        taken
    }

    async fn try_to_take(
        &mut self,
        step: Step,
        context: &Context,
        progress: &Progress,
    ) -> Result<Option<u64>, Failure> {
        if let Step::File { path, source, size, apart } = &step
            && self.is_large(*size)
        {
            self.commit(context, progress).await?;
            let (fs, commit_bytes) = (&self.fs, self.commit_bytes);
            let large = Large { fs, path, local: source, apart: *apart, commit_bytes, context, progress };
            return match large.store(&mut self.buffer).await {
                Ok(stored) => {
                    self.note_torn(path, &stored);
                    Ok(Some(stored.bytes))
                }
                Err(Stopped::LeftOut(reason) | Stopped::Spoilt(reason)) => {
                    self.news.push(News { path: path.clone(), reason, is_stored: false, is_damage: false });
                    Ok(None)
                }
                Err(Stopped::Damaged(reason)) => {
                    self.news.push(News { path: path.clone(), reason, is_stored: false, is_damage: true });
                    Ok(None)
                }
                Err(Stopped::Conflict) => Err(core::Error::Conflict.into()),
                Err(Stopped::Failed(failure)) => Err(failure),
            };
        }
        let taken = self.apply(&step, context, progress).await;
        self.steps.push(step);
        let bytes = match taken {
            Ok(bytes) => Some(bytes),
            Err(stopped) => {
                if self.stopped(self.steps.len() - 1, stopped)? {
                    self.replay(context, progress).await?;
                }
                // A replay took this step too, unless it was left out.
                match self.steps.last() {
                    Some(step) if self.left_out.contains(step.path()) => None,
                    Some(Step::File { size, .. }) => Some(*size),
                    _ => Some(0),
                }
            }
        };
        let pending = self.transaction.as_ref().map_or(0, FsTransaction::pending_bytes);
        if self.bytes >= self.commit_bytes || self.steps.len() >= STEPS_MAX || pending >= PENDING_BYTES_MAX {
            self.commit(context, progress).await?;
        }
        Ok(bytes)
    }

    /// Makes all steps durable.
    pub(super) async fn commit(&mut self, context: &Context, progress: &Progress) -> Result<(), Failure> {
        let committed = self.try_to_commit(context, progress).await;
        self.is_lost |= committed.is_err();
        committed
    }

    async fn try_to_commit(&mut self, context: &Context, progress: &Progress) -> Result<(), Failure> {
        let mut attempts_left = ATTEMPTS_MAX;
        while let Some(transaction) = self.transaction.take() {
            match transaction.commit().await {
                Ok(_) => {}
                Err(error) if error.is_conflict() && attempts_left > 0 => {
                    attempts_left -= 1;
                    self.fs.engine().refresh().await?;
                    self.replay(context, progress).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.steps.clear();
        self.left_out.clear();
        self.bytes = 0;
        Ok(())
    }

    /// Takes all steps again, in a new transaction.
    async fn replay(&mut self, context: &Context, progress: &Progress) -> Result<(), Failure> {
        let steps = std::mem::take(&mut self.steps);
        let mut attempts_left = ATTEMPTS_MAX;
        'again: loop {
            self.transaction = None;
            self.bytes = 0;
            for step in &steps {
                if self.left_out.contains(step.path()) {
                    continue;
                }
                match self.apply(step, context, progress).await {
                    Ok(_) => {}
                    Err(Stopped::LeftOut(reason)) => self.leave_out(step.path(), reason, false),
                    // Each path spoils one round at most, so this ends.
                    Err(Stopped::Spoilt(reason)) => {
                        self.leave_out(step.path(), reason, false);
                        continue 'again;
                    }
                    Err(Stopped::Damaged(reason)) => {
                        self.leave_out(step.path(), reason, true);
                        continue 'again;
                    }
                    Err(Stopped::Conflict) if attempts_left > 0 => {
                        attempts_left -= 1;
                        self.fs.engine().refresh().await?;
                        continue 'again;
                    }
                    Err(Stopped::Conflict) => return Err(core::Error::Conflict.into()),
                    Err(Stopped::Failed(failure)) => return Err(failure),
                }
            }
            self.steps = steps;
            return Ok(());
        }
    }

    /// Notes why a step was not taken; answers whether all must be taken again.
    fn stopped(&mut self, step: usize, stopped: Stopped) -> Result<bool, Failure> {
        let path = self.steps.get(step).map_or_else(Vec::new, |step| step.path().to_vec());
        match stopped {
            Stopped::LeftOut(reason) => {
                self.leave_out(&path, reason, false);
                Ok(false)
            }
            Stopped::Spoilt(reason) => {
                self.leave_out(&path, reason, false);
                Ok(true)
            }
            Stopped::Damaged(reason) => {
                self.leave_out(&path, reason, true);
                Ok(true)
            }
            Stopped::Conflict => Ok(true),
            Stopped::Failed(failure) => Err(failure),
        }
    }

    fn leave_out(&mut self, path: &[u8], reason: String, is_damage: bool) {
        if self.left_out.insert(path.to_vec()) {
            self.news.push(News { path: path.to_vec(), reason, is_stored: false, is_damage });
        }
    }

    /// What changed while it was read is stored, and may be a mixture that never was.
    fn note_torn(&mut self, path: &[u8], stored: &Stored) {
        if stored.torn {
            self.note_flaw(path, "changed while it was read, and is stored as it was read: import it again".to_owned());
        }
    }

    /// Something that is stored, and not as it is here; told once, however often the step is taken.
    fn note_flaw(&mut self, path: &[u8], reason: String) {
        let news = News { path: path.to_vec(), reason, is_stored: true, is_damage: false };
        if !self.news.contains(&news) {
            self.news.push(news);
        }
    }

    async fn apply(&mut self, step: &Step, context: &Context, progress: &Progress) -> Result<u64, Stopped> {
        let transaction = match &mut self.transaction {
            Some(transaction) => transaction,
            None => self.transaction.insert(self.fs.begin()),
        };
        match step {
            Step::Way { path } => transaction.create_dir_all(path).await?,
            Step::Folder { path, attributes } => {
                let attributes = transfer::to_repository(attributes);
                match kind(transaction, path).await? {
                    Some(Kind::Directory) => {
                        transaction.set_attributes(path, change(&attributes)).await?;
                        return Ok(0);
                    }
                    Some(_) => transaction.remove_file(path).await?,
                    None => {}
                }
                transaction.create_dir_with(path, attributes).await?;
            }
            Step::Link { path, target, attributes } => {
                make_way(transaction, path).await?;
                let made = transaction.symlink_with(target, path, transfer::to_repository(attributes)).await;
                made.map_err(spoils)?;
            }
            Step::Attributes { path, attributes, inode } => {
                if inode.is_some() && transaction.symlink_metadata(path).await.ok().map(|now| now.inode) != *inode {
                    // Another writer was here: the next import looks at it.
                    return Ok(0);
                }
                let attributes = transfer::to_repository(attributes);
                transaction.set_symlink_attributes(path, change(&attributes)).await?;
            }
            Step::Found { path, attributes, there, tag } => {
                let now = match transaction.symlink_metadata(path).await {
                    Ok(now) => now,
                    Err(strongroom::Error::NotFound { .. }) => return Ok(0),
                    Err(error) => return Err(error.into()),
                };
                let content = |of: &Metadata| (of.inode, of.mtime, of.content_changed);
                if content(&now) != content(there) {
                    // Another writer was here: the next import looks at it.
                    return Ok(0);
                }
                if !same_attributes(attributes, &now) {
                    transaction.set_attributes(path, change(&transfer::to_repository(attributes))).await?;
                }
                if tag.is_some() {
                    transaction.set_content_tag(path, *tag).await?;
                }
            }
            Step::File { path, source, apart, .. } => {
                let mapped = context.mapped(&self.fs);
                let source = SourceFile::open(source, context.own()).map_err(unreadable)?;
                let stored = store(&self.fs, transaction, path, &source, *apart, &mut self.buffer, progress).await?;
                if let Some(tag) = source.tag(mapped, stored.torn) {
                    transaction.set_content_tag(path, Some(tag)).await?;
                }
                self.bytes += stored.bytes;
                self.note_torn(path, &stored);
                return Ok(stored.bytes);
            }
            Step::Name { path, existing } => {
                if self.left_out.contains(existing) {
                    return Err(Stopped::LeftOut(left_out_with(existing)));
                }
                let inode = transaction.symlink_metadata(existing).await?.inode;
                match transaction.symlink_metadata(path).await {
                    Ok(there) if there.inode == inode => return Ok(0),
                    _ => make_way(transaction, path).await?,
                }
                transaction.hard_link(existing, path).await.map_err(spoils)?;
            }
            Step::Xattrs { path, source } => {
                let (wanted, unread) = xattrs::read(source);
                let mut flaws = Vec::new();
                if let Some(error) = &unread {
                    flaws.push(format!(
                        "its extended attributes cannot all be read, and those that were stored stay: {error}"
                    ));
                }
                for name in transaction.xattrs(path, Follow::No).await? {
                    if unread.is_none() && !wanted.iter().any(|(wanted, _)| *wanted == name) {
                        transaction.remove_xattr(path, &name, Follow::No).await?;
                    }
                }
                for (name, value) in wanted {
                    match transaction.set_xattr(path, &name, value, XattrMode::Set, Follow::No).await {
                        Ok(()) => {}
                        // The file is there all the same.
                        Err(strongroom::Error::Core(error @ core::Error::LimitExceeded { .. })) => {
                            let name = crate::output::shown(&name);
                            flaws.push(format!("its extended attribute {name}: {error}"));
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                flaws.into_iter().for_each(|flaw| self.note_flaw(path, flaw));
            }
            Step::Remove { path } => match kind(transaction, path).await? {
                Some(Kind::Directory) => transaction.remove_dir(path).await?,
                Some(_) => transaction.remove_file(path).await?,
                None => {}
            },
        }
        Ok(0)
    }
}

/// Something that was left out, or is not as it is here, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) path: Vec<u8>,
    pub(super) reason: String,
    pub(super) is_stored: bool,
    /// Whether it is for damage of the repository.
    pub(super) is_damage: bool,
}

/// A file that was stored.
pub(super) struct Stored {
    pub(super) bytes: u64,
    /// Whether it changed while it was read.
    pub(super) torn: bool,
}

async fn store(
    fs: &FileSystem,
    transaction: &mut FsTransaction,
    path: &[u8],
    source: &SourceFile,
    apart: bool,
    buffer: &mut [u8],
    progress: &Progress,
) -> Result<Stored, Stopped> {
    let attributes = transfer::to_repository(&source.attributes);
    if apart || kind(transaction, path).await? != Some(Kind::File) || draft::is_one(transaction, path).await? {
        make_way(transaction, path).await?;
    } else if has_history(fs, transaction, path).await? && is_same(transaction, path, source, None).await? {
        let torn = source.is_torn();
        transaction.set_attributes(path, change_of_file(source, torn)).await?;
        progress.add(source.size);
        return Ok(Stored { bytes: source.size, torn });
    }
    let mut writer = transaction.write_file(path, attributes).await?;
    transfer::store(source, 0, &mut writer, buffer, |bytes| progress.add(bytes)).await?;
    let bytes = writer.finish().await?;
    let torn = source.is_torn();
    if torn {
        transaction.set_attributes(path, change_of_file(source, torn)).await?;
    }
    Ok(Stored { bytes, torn })
}

/// What a file that was read has besides its content. One that changed meanwhile gets a time that is not that of the source:
/// so the next import reads it again, though its time be set back.
pub(super) fn change_of_file(source: &SourceFile, torn: bool) -> AttributeChange {
    let mut change = change(&transfer::to_repository(&source.attributes));
    if torn && let Some(mtime) = &mut change.mtime {
        mtime.nanos ^= 1;
    }
    change
}

/// Whether another content of the file at a path makes a version, or costs one.
pub(super) async fn has_history(fs: &FileSystem, transaction: &FsTransaction, path: &[u8]) -> Result<bool, Stopped> {
    if transaction.symlink_metadata(path).await?.versions > 0 {
        return Ok(true);
    }
    let limit = match fs.snapshot().version_limit(path).await {
        Ok(limit) => limit,
        // What the transaction itself has made has none of its own.
        Err(
            strongroom::Error::NotFound { .. }
            | strongroom::Error::NotADirectory { .. }
            | strongroom::Error::IsADirectory { .. },
        ) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(limit.unwrap_or(fs.options().versions) > 0)
}

/// Whether the file at a path has the content of the source.
pub(super) async fn is_same(
    transaction: &FsTransaction,
    path: &[u8],
    source: &SourceFile,
    interrupt: Option<&Interrupt>,
) -> Result<bool, Stopped> {
    let mut comparison = Comparison { source, interrupt };
    match transaction.has_content(path, source.size, &mut comparison).await {
        Ok(same) => Ok(same),
        // Only what has no identity is read, and is stored anew.
        Err(strongroom::Error::Core(core::Error::Damaged(_) | core::Error::Missing { .. })) => Ok(false),
        Err(strongroom::Error::Source(_)) if interrupt.is_some_and(Interrupt::asked) => Ok(false),
        // It was cut short meanwhile.
        Err(strongroom::Error::Source(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Why a further name of a file is left out with the first.
pub(super) fn left_out_with(first: &[u8]) -> String {
    format!("it is one file with {}, which was left out", crate::output::shown(first))
}

pub(super) fn unreadable(error: std::io::Error) -> Stopped {
    Stopped::LeftOut(format!("cannot be read: {error}"))
}

/// What had the name is removed already: that is not to stay so.
fn spoils(error: strongroom::Error) -> Stopped {
    match Stopped::from(error) {
        Stopped::LeftOut(reason) => Stopped::Spoilt(reason),
        stopped => stopped,
    }
}

/// Removes a file or link that has the name; a folder stays, and is in the way.
async fn make_way(transaction: &mut FsTransaction, path: &[u8]) -> Result<(), Stopped> {
    match kind(transaction, path).await? {
        None => Ok(()),
        Some(Kind::Directory) => Err(Stopped::LeftOut("a folder of that name is in the repository".to_owned())),
        Some(_) => Ok(transaction.remove_file(path).await?),
    }
}

pub(super) async fn kind(transaction: &FsTransaction, path: &[u8]) -> Result<Option<Kind>, Stopped> {
    match transaction.symlink_metadata(path).await {
        Ok(metadata) => Ok(Some(metadata.kind)),
        Err(strongroom::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn change(attributes: &strongroom::fs::Attributes) -> AttributeChange {
    AttributeChange {
        mode: Some(attributes.mode),
        uid: Some(attributes.uid),
        gid: Some(attributes.gid),
        mtime: attributes.mtime,
        atime: None,
    }
}
