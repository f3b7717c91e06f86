use strongroom_core::engine::Transaction;

use super::attributes::put_inode;
use super::directory::entries;
use super::{DirEntry, FsTransaction, PENDING_AT_ONCE_BYTES_MAX, orphans, remains};
use crate::error::{Error, Result, shown};
use crate::format::{
    CONTENT, EXTENT, EntryRow, INODE, InodeRow, Kind, PAST, ROOT, SUBDIRECTORIES, VERSION, XATTR, inode_key,
};
use crate::inodes;
use crate::path::Last;
use crate::time::Timestamp;

/// How many names of a directory are held at once while a tree is removed.
const PAGE_ENTRIES: usize = 512;

/// A directory on the way down a tree that is removed.
struct Level {
    inode: u64,
    /// Its name in the directory above; `None` where it is to stay.
    name: Option<Vec<u8>>,
    page: std::vec::IntoIter<DirEntry>,
    /// Where the next page starts.
    after: Option<Vec<u8>>,
    complete: bool,
}

impl FsTransaction {
    /// Removes the name of a file or symbolic link, and with its last name the file.
    ///
    /// # Errors
    /// As [`super::FileSystem::remove_file`].
    pub async fn remove_file(&mut self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        let located = self.locate(path, Last::Itself).await?;
        let entry = located.existing(path)?;
        if entry.kind == Kind::Directory {
            return Err(Error::IsADirectory { path: shown(path) });
        }
        let name = located.named(path)?;
        let moment = self.shared.moment();
        self.begin_change();
        self.delete_entry(located.parent(), name, entry.kind, moment).await?;
        self.unlink(entry, moment).await?;
        self.end_change();
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As [`super::FileSystem::remove_dir`].
    pub async fn remove_dir(&mut self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        // A trailing slash must not make a symbolic link be followed: it is no directory.
        let located = self.locate(super::create::trimmed(path), Last::Itself).await?;
        let entry = located.existing(path)?;
        if entry.kind != Kind::Directory {
            return Err(Error::NotADirectory { path: shown(path) });
        }
        let name = located.named(path)?;
        self.check_empty(entry.inode, path).await?;
        let moment = self.shared.moment();
        self.begin_change();
        self.delete_entry(located.parent(), name, entry.kind, moment).await?;
        self.unlink(entry, moment).await?;
        self.end_change();
        Ok(())
    }

    /// Removes whatever is at a path and all that is in it, in this transaction; of the root, all that is in it.
    ///
    /// # Errors
    /// As [`super::FileSystem::remove_all`].
    pub async fn remove_all(&mut self, path: impl AsRef<[u8]>) -> Result<()> {
        self.remove_some(path.as_ref(), usize::MAX).await?;
        Ok(())
    }

    /// Removes a tree from its leaves up, at most `names_max` names; answers whether all is gone. What stays is a tree.
    pub(super) async fn remove_some(&mut self, path: &[u8], names_max: usize) -> Result<bool> {
        let located = self.locate(super::create::trimmed(path), Last::Itself).await?;
        let entry = located.existing(path)?;
        if entry.inode != ROOT {
            located.named(path)?;
        }
        let mut names_left = names_max.max(1);
        let is_bounded = names_max < usize::MAX;
        let moment = self.shared.moment();
        self.begin_change();
        if entry.kind != Kind::Directory {
            self.delete_entry(located.parent(), located.named(path)?, entry.kind, moment).await?;
            self.unlink(entry, moment).await?;
            self.end_change();
            return Ok(true);
        }
        let top = Level::new(entry.inode, located.name.clone());
        let mut levels = vec![top];
        while let Some(level) = levels.last_mut() {
            let next = match level.page.next() {
                Some(next) => Some(next),
                None if level.complete => None,
                None => {
                    level.fill(self).await?;
                    continue;
                }
            };
            let directory = level.inode;
            if is_bounded && self.pending_bytes() > PENDING_AT_ONCE_BYTES_MAX {
                names_left = 0;
            }
            match next {
                Some(DirEntry { name, inode, kind: Kind::Directory }) => levels.push(Level::new(inode, Some(name))),
                Some(DirEntry { name, inode, kind }) => {
                    if names_left == 0 {
                        self.end_change();
                        return Ok(false);
                    }
                    names_left -= 1;
                    self.delete_entry(directory, &name, kind, moment).await?;
                    self.unlink(EntryRow { inode, kind }, moment).await?;
                }
                None => {
                    let name = level.name.take();
                    levels.pop();
                    let parent = levels.last().map_or(located.parent(), |level| level.inode);
                    if let Some(name) = name {
                        if names_left == 0 {
                            self.end_change();
                            return Ok(false);
                        }
                        names_left -= 1;
                        self.delete_entry(parent, &name, Kind::Directory, moment).await?;
                        self.unlink(EntryRow { inode: directory, kind: Kind::Directory }, moment).await?;
                    }
                }
            }
        }
        self.end_change();
        Ok(true)
    }

    pub(super) async fn check_empty(&self, inode: u64, path: &[u8]) -> Result<()> {
        match entries(&self.transaction, inode, None).next().await? {
            None => Ok(()),
            Some(_) => Err(Error::NotEmpty { path: shown(path) }),
        }
    }

    /// One name less for an inode; without names it goes, and what it holds, unless it is open here. Where it holds much, its
    /// space comes back after the commit.
    pub(super) async fn unlink(&mut self, entry: EntryRow, moment: u64) -> Result<()> {
        let EntryRow { inode, kind } = entry;
        let mut row = inodes::load(&self.transaction, inode).await?;
        if row.nlink > 1 {
            row.nlink -= 1;
            row.ctime = Timestamp::from_nanos(moment);
            return put_inode(&mut self.transaction, inode, &row);
        }
        if kind == Kind::File {
            if let Some(open) = self.shared.common.handles.get(inode) {
                open.set_removed();
                self.orphaned.push(open);
                row.ctime = Timestamp::from_nanos(moment);
                return orphans::put(&self.shared.engine, &mut self.transaction, inode, row).await;
            }
            self.deleted.push(inode);
        }
        if !free_inode(&mut self.transaction, inode, &row).await? {
            self.remains.push(inode);
        }
        Ok(())
    }
}

/// Deletes an inode and all that it holds; of more than one transaction frees, the rest is an orphan of nobody's. Answers
/// whether nothing is left.
pub(super) async fn free_inode(transaction: &mut Transaction, inode: u64, row: &InodeRow) -> Result<bool> {
    let key = inode_key(inode);
    transaction.delete(INODE, &key)?;
    // What it does not have is not looked for.
    let mut tables = Vec::new();
    if row.xattrs {
        tables.push(XATTR);
    }
    let has_content = match row.kind {
        Kind::File => true,
        Kind::Symlink => row.inline.is_none(),
        Kind::Directory => false,
    };
    if has_content {
        let content = inodes::file_content(transaction, inode).await?;
        tables.push(EXTENT);
        if content.versions.older_count() > 0 {
            tables.extend([VERSION, PAST]);
        }
        transaction.delete(CONTENT, &key)?;
    }
    if row.kind == Kind::Directory {
        transaction.delete(CONTENT, &key)?;
        transaction.delete(SUBDIRECTORIES, &key)?;
    }
    remains::free_or_leave(transaction, inode, &tables).await
}

impl Level {
    fn new(inode: u64, name: Option<Vec<u8>>) -> Self {
        Self { inode, name, page: Vec::new().into_iter(), after: None, complete: false }
    }

    /// The next names. A page is held rather than a scan, as what is scanned changes meanwhile.
    async fn fill(&mut self, transaction: &FsTransaction) -> Result<()> {
        let mut listing = entries(&transaction.transaction, self.inode, self.after.as_deref());
        let mut page = Vec::new();
        while page.len() < PAGE_ENTRIES {
            match listing.next().await? {
                Some(entry) => page.push(entry),
                None => {
                    self.complete = true;
                    break;
                }
            }
        }
        self.after = page.last().map(|entry| entry.name.clone());
        self.page = page.into_iter();
        Ok(())
    }
}
