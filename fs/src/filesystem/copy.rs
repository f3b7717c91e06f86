//! Copies that share what they copy, and whole trees of them.

use std::collections::{HashMap, VecDeque};

use strongroom_core::engine::View;

use super::attributes::put_inode;
use super::create::{free_name, trimmed};
use super::directory::entries;
use super::rename::check_no_cycle;
use super::transaction::put_row;
use super::{Attributes, DirEntry, FileSystem, FsSnapshot, FsTransaction, PENDING_AT_ONCE_BYTES_MAX, transact};
use crate::error::{Error, Result, shown};
use crate::extents;
use crate::format::{
    ContentRow, EntryRow, FILE_BYTES_MAX, INODE, InodeRow, Kind, LINKS_MAX, ROOT, Versions, inode_key,
};
use crate::inodes;
use crate::path::{Last, check_name, locate, lookup, names};
use crate::reflink::{self, Stretch};
use crate::time::Timestamp;
use crate::versions::ContentChange;
use crate::xattrs;

/// How many names one transaction of [`FileSystem::copy_all`] makes.
const COPIED_AT_ONCE_MAX: usize = 10_000;
/// How many names of a directory are held at once while a tree is copied.
const PAGE_ENTRIES: usize = 512;

/// How far the copy of a tree has come.
#[derive(Clone, Default)]
struct Progress {
    /// The state that is copied from, where it is not the one that is copied to.
    state: Option<FsSnapshot>,
    has_begun: bool,
    levels: Vec<Level>,
    /// Copies of what has several names.
    linked: HashMap<u64, u64>,
}

/// A directory on the way down a tree that is copied.
#[derive(Clone)]
struct Level {
    from: u64,
    to: u64,
    /// The copy gets it when it is complete: putting names into it would change it.
    mtime: Timestamp,
    page: VecDeque<DirEntry>,
    /// The last name that was copied.
    after: Option<Vec<u8>>,
    complete: bool,
}

impl FileSystem {
    /// Makes the content of a file that of another, which is made where it is missing: the two share what they hold until
    /// one is changed. Costs O(extents); nothing of the content is read or moved. A file that is made gets the permission
    /// bits of the source; one that is there keeps its attributes. Symbolic links are followed. Answers the length.
    ///
    /// # Errors
    /// [`Error::IsADirectory`], and as [`Self::metadata`].
    pub async fn copy(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<u64> {
        let (from, to) = (from.as_ref(), to.as_ref());
        transact!(self, transaction => transaction.copy(from, to).await)
    }

    /// Makes a stretch of a file a stretch of another, or of the same where the two do not overlap, which grows as need be.
    /// They share what they hold: this costs O(extents of the stretch), and reads nothing. Answers how many bytes that was:
    /// fewer than `length` where the source ends before.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] for stretches of one file that overlap; [`Error::FileTooLarge`]; [`Error::IsADirectory`]; and
    /// as [`Self::metadata`].
    pub async fn copy_range(
        &self,
        from: impl AsRef<[u8]>,
        from_offset: u64,
        to: impl AsRef<[u8]>,
        to_offset: u64,
        length: u64,
    ) -> Result<u64> {
        let (from, to) = (from.as_ref(), to.as_ref());
        transact!(self, transaction => transaction.copy_range(from, from_offset, to, to_offset, length).await)
    }

    /// Makes a stretch of a file read as zeros that take no space; its length stays.
    ///
    /// # Errors
    /// [`Error::IsADirectory`], and as [`Self::metadata`].
    pub async fn punch_hole(&self, path: impl AsRef<[u8]>, offset: u64, length: u64) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.punch_hole(path, offset, length).await)
    }

    /// Copies whatever is at a path and all that is in it to a name that is free: content is shared, and attributes, times,
    /// holes, extended attributes, symbolic links as they are, and names that share a file within the tree are kept. Of
    /// some thousand names this is one transaction; of more it is several, and one that fails leaves what was copied before
    /// it.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::IntoItself`]; and as [`Self::metadata`].
    pub async fn copy_all(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let mut progress = Progress::default();
        loop {
            let (done, next) = transact!(self, transaction => {
                let mut next = progress.clone();
                let copied = transaction.copy_some(from, to, &mut next, COPIED_AT_ONCE_MAX).await;
                copied.map(|done| (done, next))
            })?;
            if done {
                return Ok(());
            }
            progress = next;
        }
    }
}

impl FileSystem {
    /// Puts what is at a path in another state of the repository, and all that is in it, in place of what is there now, in one
    /// transaction. Content is shared with that state; what comes back gets inodes of its own.
    ///
    /// # Errors
    /// As [`FsTransaction::restore_from`]; [`strongroom_core::Error::ContentGone`] where that state has no name, and content of
    /// it has been given up; those of the engine, where there is more than one commit holds.
    pub async fn restore_from(&self, state: &FsSnapshot, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        transact!(self, transaction => transaction.restore_from(state, path).await)
    }
}

impl FsTransaction {
    /// Makes the content of a file that of another, sharing it.
    ///
    /// # Errors
    /// As [`FileSystem::copy`].
    pub async fn copy(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<u64> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let source = self.file_inode(from).await?;
        let size = inodes::file_content(&self.transaction, source).await?.size;
        let located = self.locate(to, Last::Followed).await?;
        let target = match located.entry {
            Some(_) => super::transaction::file_only(located.existing(to)?, to)?,
            None => {
                let mode = inodes::load(&self.transaction, source).await?.mode;
                let attributes = Attributes { mode, ..Attributes::file() };
                self.make(&located, to, Kind::File, attributes, None).await?.0
            }
        };
        if target == source {
            return Ok(size);
        }
        let (mut change, before) = self.take_change(target).await?;
        let moment = self.shared.moment();
        self.begin_change();
        extents::truncate(&mut self.transaction, &mut change, before.size, 0).await?;
        let extents = extents::walk(&self.transaction, source, 0);
        reflink::share_all(&mut self.transaction, extents, target).await?;
        self.finish_change(change, before, size, moment).await?;
        self.end_change();
        Ok(size)
    }

    /// Makes a stretch of a file a stretch of another, sharing it.
    ///
    /// # Errors
    /// As [`FileSystem::copy_range`].
    pub async fn copy_range(
        &mut self,
        from: impl AsRef<[u8]>,
        from_offset: u64,
        to: impl AsRef<[u8]>,
        to_offset: u64,
        length: u64,
    ) -> Result<u64> {
        let (source, target) = (self.file_inode(from.as_ref()).await?, self.file_inode(to.as_ref()).await?);
        let size = inodes::file_content(&self.transaction, source).await?.size;
        let length = length.min(size.saturating_sub(from_offset));
        if length == 0 {
            return Ok(0);
        }
        let end = to_offset.checked_add(length).filter(|&end| end <= FILE_BYTES_MAX);
        let end = end.ok_or(Error::FileTooLarge { bytes: u64::MAX, bytes_max: FILE_BYTES_MAX })?;
        if source == target && from_offset < end && to_offset < from_offset.saturating_add(length) {
            let reason = "a stretch cannot be copied onto itself";
            return Err(Error::InvalidPath { path: shown(to.as_ref()), reason });
        }
        let (mut change, before) = self.take_change(target).await?;
        let moment = self.shared.moment();
        self.begin_change();
        let stretch = Stretch { from: source, from_offset, to_offset, length, to_size: before.size };
        let size = reflink::share(&mut self.transaction, &mut change, stretch).await?;
        self.finish_change(change, before, size, moment).await?;
        self.end_change();
        Ok(length)
    }

    /// Makes a stretch of a file read as zeros that take no space; its length stays.
    ///
    /// # Errors
    /// As [`FileSystem::punch_hole`].
    pub async fn punch_hole(&mut self, path: impl AsRef<[u8]>, offset: u64, length: u64) -> Result<()> {
        let inode = self.file_inode(path.as_ref()).await?;
        let size = inodes::file_content(&self.transaction, inode).await?.size;
        let end = offset.saturating_add(length).min(size);
        if offset >= end {
            return Ok(());
        }
        let (mut change, before) = self.take_change(inode).await?;
        let moment = self.shared.moment();
        self.begin_change();
        reflink::punch(&mut self.transaction, &mut change, offset, end).await?;
        self.finish_change(change, before, size, moment).await?;
        self.end_change();
        Ok(())
    }

    /// Copies whatever is at a path and all that is in it, in this transaction.
    ///
    /// # Errors
    /// As [`FileSystem::copy_all`].
    pub async fn copy_all(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let mut progress = Progress::default();
        while !self.copy_some(from.as_ref(), to.as_ref(), &mut progress, usize::MAX).await? {}
        Ok(())
    }

    /// Copies whatever is at a path in another state of the repository, and all that is in it, to a name that is free, in this
    /// transaction; otherwise as [`FileSystem::copy_all`]: what is copied is shared with that state, and nothing is read. A state
    /// without a name ([`FileSystem::snapshot`]) does not keep content: what has been given up since cannot be shared again.
    ///
    /// # Errors
    /// [`strongroom_core::Error::Invalid`] for a state of another repository, or of this one opened once more; as
    /// [`FileSystem::copy_all`]. The commit answers [`strongroom_core::Error::ContentGone`] where content of that state has been
    /// given up.
    pub async fn copy_from(&mut self, state: &FsSnapshot, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        self.transaction.check_opened_here(&state.snapshot)?;
        let mut progress = Progress { state: Some(state.clone()), ..Progress::default() };
        while !self.copy_some(from.as_ref(), to.as_ref(), &mut progress, usize::MAX).await? {}
        Ok(())
    }

    /// Puts what is at a path in another state of the repository, and all that is in it, in place of what is there now.
    /// Directories that lead to it are made where they are missing, with the attributes that they had in that state. No
    /// symbolic link leads there, neither then nor now: what is put in place of something is at this very path.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] for the root, and where a symbolic link is on the way; as [`Self::copy_from`].
    pub async fn restore_from(&mut self, state: &FsSnapshot, path: impl AsRef<[u8]>) -> Result<()> {
        self.transaction.check_opened_here(&state.snapshot)?;
        let given = path.as_ref();
        let mut way: Vec<&[u8]> = Vec::new();
        for name in names(given) {
            // Without links, this is what going up means.
            check_name(name)?;
            if name == b".." {
                way.pop();
            } else {
                way.push(name);
            }
        }
        let Some((last, above)) = way.split_last() else {
            let reason = "the root is brought back with the whole repository, or name by name";
            return Err(Error::InvalidPath { path: shown(given), reason });
        };
        let path = whole(&way);
        let then = self.way_then(state, above).await?;
        // Nothing is removed for what was not there.
        let around = then.last().map_or(ROOT, |entry| entry.inode);
        lookup(&state.snapshot, around, last).await?.ok_or_else(|| Error::NotFound { path: shown(&path) })?;
        let made = self.make_way(state, above, then).await?;
        self.begin_change();
        if self.locate(&path, Last::Itself).await?.entry.is_some() {
            while !self.remove_some(&path, usize::MAX).await? {}
        }
        self.copy_from(state, &path, &path).await?;
        for (directory, mtime) in made {
            self.put_mtime(directory, mtime).await?;
        }
        self.end_change();
        Ok(())
    }

    /// The directories that lead to something in a state, by the names of the way.
    async fn way_then(&self, state: &FsSnapshot, above: &[&[u8]]) -> Result<Vec<EntryRow>> {
        let mut then = Vec::with_capacity(above.len());
        let mut parent = ROOT;
        for (depth, name) in above.iter().enumerate() {
            let path = || shown(&whole(above.get(..=depth).unwrap_or(above)));
            let entry = lookup(&state.snapshot, parent, name).await?;
            let entry = entry.ok_or_else(|| Error::NotFound { path: path() })?;
            match entry.kind {
                Kind::Directory => parent = entry.inode,
                Kind::Symlink => {
                    let reason = "it was a symbolic link: name what is to be restored by a path without links";
                    return Err(Error::InvalidPath { path: path(), reason });
                }
                _ => return Err(Error::NotADirectory { path: path() }),
            }
            then.push(entry);
        }
        Ok(then)
    }

    /// Makes what is missing of the directories that lead to something; answers those, with the times that they get when all
    /// is in them.
    async fn make_way(
        &mut self,
        state: &FsSnapshot,
        above: &[&[u8]],
        then: Vec<EntryRow>,
    ) -> Result<Vec<(u64, Timestamp)>> {
        let mut progress = Progress { state: Some(state.clone()), ..Progress::default() };
        let mut parent = ROOT;
        for (depth, (name, then)) in above.iter().zip(then).enumerate() {
            let path = || shown(&whole(above.get(..=depth).unwrap_or(above)));
            parent = match lookup(&self.transaction, parent, name).await? {
                Some(EntryRow { kind: Kind::Directory, inode }) => inode,
                Some(EntryRow { kind: Kind::Symlink, .. }) => {
                    let reason = "it is a symbolic link now, and was a directory then: move the link away first";
                    return Err(Error::InvalidPath { path: path(), reason });
                }
                Some(_) => return Err(Error::NotADirectory { path: path() }),
                None => {
                    if progress.levels.is_empty() {
                        self.begin_change();
                    }
                    self.copy_entry(then, parent, name, &mut progress).await?;
                    progress.levels.last().map_or(parent, |level| level.to)
                }
            };
        }
        if !progress.levels.is_empty() {
            self.end_change();
        }
        Ok(progress.levels.into_iter().map(|level| (level.to, level.mtime)).collect())
    }

    /// Goes on with the copy of a tree, from its root down, at most `names_max` names; answers whether all is copied.
    async fn copy_some(&mut self, from: &[u8], to: &[u8], progress: &mut Progress, names_max: usize) -> Result<bool> {
        let mut names_left = names_max.max(1);
        if progress.has_begun {
            // What others changed since is seen by looking again.
            for level in &mut progress.levels {
                level.page.clear();
                level.complete = false;
            }
            // Each gets names still, or a time: others may have moved the deepest out, and removed what it was in.
            for level in &progress.levels {
                if self.row(level.to).await?.is_none() {
                    return Err(Error::NotFound { path: shown(to) });
                }
            }
        } else {
            let source = locate(&self.shared, self.source(&progress.state), trimmed(from), Last::Itself).await?;
            let source = source.existing(from)?;
            let target = self.locate(trimmed(to), Last::Itself).await?;
            let name = free_name(&target, to, source.kind)?.to_vec();
            if to.ends_with(b"/") && source.kind != Kind::Directory {
                return Err(Error::NotADirectory { path: shown(from) });
            }
            if progress.state.is_none() {
                check_no_cycle(source, &target, from)?;
            }
            self.begin_change();
            self.copy_entry(source, target.parent(), &name, progress).await?;
            progress.has_begun = true;
            self.end_change();
        }
        self.begin_change();
        while let Some(level) = progress.levels.last_mut() {
            let Some(DirEntry { name, inode, kind }) = level.page.pop_front() else {
                if !level.complete {
                    level.fill(self.source(&progress.state)).await?;
                    continue;
                }
                let (to, mtime) = (level.to, level.mtime);
                progress.levels.pop();
                self.put_mtime(to, mtime).await?;
                continue;
            };
            if names_left == 0 || (names_max < usize::MAX && self.pending_bytes() > PENDING_AT_ONCE_BYTES_MAX) {
                level.page.push_front(DirEntry { name, inode, kind });
                self.end_change();
                return Ok(false);
            }
            names_left -= 1;
            let to = level.to;
            level.after = Some(name.clone());
            if progress.state.is_none() && progress.levels.first().is_some_and(|top| top.to == inode) {
                // Others moved the copy into what is copied, between two transactions.
                return Err(Error::IntoItself { path: shown(from) });
            }
            self.copy_entry(EntryRow { inode, kind }, to, &name, progress).await?;
        }
        self.end_change();
        Ok(true)
    }

    /// Copies what a name stands for, and puts it under a name; of a directory, what is in it comes next.
    async fn copy_entry(&mut self, source: EntryRow, parent: u64, name: &[u8], progress: &mut Progress) -> Result<()> {
        let EntryRow { inode, kind } = source;
        let metadata = inodes::metadata(self.source(&progress.state), inode).await?;
        let moment = self.shared.moment();
        let has_more_names = kind != Kind::Directory && metadata.nlink > 1;
        if has_more_names
            && let Some(&copy) = progress.linked.get(&inode)
            && let Some(mut row) = self.row(copy).await?
            // Between two transactions others can remove the copy, which may be open still, or give it more names.
            && (1..LINKS_MAX).contains(&row.nlink)
        {
            row.nlink = row.nlink.saturating_add(1);
            put_inode(&mut self.transaction, copy, &row)?;
            return self.put_entry(parent, name, EntryRow { inode: copy, kind }, moment).await;
        }
        let row = inodes::load(self.source(&progress.state), inode).await?;
        let copy = self.transaction.number().await?;
        let now = Timestamp::from_nanos(moment);
        let has_content = kind == Kind::File || (kind == Kind::Symlink && row.inline.is_none());
        let has_xattrs = row.xattrs;
        let row = InodeRow { nlink: 1, btime: now, ctime: now, mtime: metadata.mtime, mtime_set: moment, ..row };
        put_inode(&mut self.transaction, copy, &row)?;
        if has_content {
            let extents = extents::walk(self.source(&progress.state), inode, 0);
            reflink::share_all(&mut self.transaction, extents, copy).await?;
            let content = inodes::file_content(self.source(&progress.state), inode).await?;
            let versions = Versions { limit: content.versions.limit, ..Versions::default() };
            let content = ContentRow { changed: moment, size: metadata.size, versions, tag: content.tag };
            put_row(&mut self.transaction, copy, &content)?;
            self.put_change(ContentChange::of_new(copy));
        }
        if has_xattrs {
            let rows = xattrs::rows(self.source(&progress.state), inode);
            xattrs::copy_all(&mut self.transaction, rows, copy).await?;
        }
        self.put_entry(parent, name, EntryRow { inode: copy, kind }, moment).await?;
        if has_more_names {
            progress.linked.insert(inode, copy);
        }
        if kind == Kind::Directory {
            progress.levels.push(Level {
                from: inode,
                to: copy,
                mtime: metadata.mtime,
                page: VecDeque::new(),
                after: None,
                complete: false,
            });
        }
        Ok(())
    }

    /// What was put into a directory changed its time.
    async fn put_mtime(&mut self, directory: u64, mtime: Timestamp) -> Result<()> {
        let mut row = inodes::load(&self.transaction, directory).await?;
        row.mtime = mtime;
        row.mtime_set = self.shared.moment();
        put_inode(&mut self.transaction, directory, &row)
    }

    /// What is copied from.
    fn source<'s>(&'s self, state: &'s Option<FsSnapshot>) -> &'s dyn View {
        match state {
            Some(state) => &state.snapshot,
            None => &self.transaction,
        }
    }

    async fn row(&self, inode: u64) -> Result<Option<InodeRow>> {
        Ok(match self.transaction.get(INODE, &inode_key(inode)).await? {
            Some(row) => Some(InodeRow::decode(&row)?),
            None => None,
        })
    }
}

/// The path of names.
fn whole(names: &[&[u8]]) -> Vec<u8> {
    names.iter().flat_map(|name| [b"/", *name]).flatten().copied().collect()
}

impl Level {
    async fn fill(&mut self, view: &dyn View) -> Result<()> {
        let mut listing = entries(view, self.from, self.after.as_deref());
        while self.page.len() < PAGE_ENTRIES {
            match listing.next().await? {
                Some(entry) => self.page.push_back(entry),
                None => {
                    self.complete = true;
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_lite::future::block_on;
    use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
    use strongroom_core::crypto::{KdfParameters, Suite};
    use strongroom_core::engine::keyring::Credentials;
    use strongroom_core::engine::{CreateOptions, Engine, Tuning};
    use strongroom_core::env::Env;

    use super::*;
    use crate::Options;

    async fn file_system() -> FileSystem {
        let storage = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::default() });
        let create = CreateOptions {
            credentials: &Credentials::password("correct horse"),
            recovery: None,
            suite: Suite::Aes256Gcm,
            block_bytes: 4096,
            kdf: KdfParameters::MINIMUM,
            trusted: None,
            tuning: Tuning::default(),
        };
        let engine = Engine::create(Arc::new(storage), Env::deterministic(1), create).await.unwrap();
        FileSystem::create(engine, Options::default()).await.unwrap()
    }

    /// What goes on between the transactions of a large copy, with a small one.
    #[test]
    fn a_copy_whose_target_was_removed_between_two_transactions_ends_though_the_deepest_part_was_moved_out() {
        block_on(async {
            let fs = file_system().await;
            fs.create_dir_all("t/a/b").await.unwrap();
            for name in ["t/a/b/1", "t/a/b/2", "t/a/b/3", "t/a/z"] {
                fs.write(name, name).await.unwrap();
            }
            let mut progress = Progress::default();
            let mut transaction = fs.begin();
            assert!(!transaction.copy_some(b"t", b"u", &mut progress, 3).await.unwrap());
            transaction.commit().await.unwrap();
            fs.rename("u/a/b", "moved").await.unwrap();
            fs.remove_all("u/a").await.unwrap();
            let mut transaction = fs.begin();
            let copied = transaction.copy_some(b"t", b"u", &mut progress, 1).await;
            assert!(matches!(copied, Err(Error::NotFound { .. })), "{copied:?}");
        });
    }
}
