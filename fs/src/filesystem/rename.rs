use super::FsTransaction;
use super::attributes::put_inode;
use super::create::trimmed;
use crate::error::{Error, Result, shown};
use crate::format::{EntryRow, Kind};
use crate::inodes;
use crate::path::{Last, Located};
use crate::time::Timestamp;

impl FsTransaction {
    /// Gives something another name, in place of what has that name.
    ///
    /// # Errors
    /// As [`super::FileSystem::rename`].
    pub async fn rename(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        self.move_entry(from.as_ref(), to.as_ref(), true).await
    }

    /// As [`Self::rename`], where nothing has that name.
    ///
    /// # Errors
    /// As [`super::FileSystem::rename_new`].
    pub async fn rename_new(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        self.move_entry(from.as_ref(), to.as_ref(), false).await
    }

    async fn move_entry(&mut self, from: &[u8], to: &[u8], replaces: bool) -> Result<()> {
        let source = self.locate(trimmed(from), Last::Itself).await?;
        let moved = source.existing(from)?;
        let target = self.locate(trimmed(to), Last::Itself).await?;
        if (from.ends_with(b"/") || to.ends_with(b"/")) && moved.kind != Kind::Directory {
            return Err(Error::NotADirectory { path: shown(from) });
        }
        let (old_name, new_name) = (source.named(from)?, target.named(to)?);
        check_no_cycle(moved, &target, from)?;
        if let Some(replaced) = target.entry {
            if !replaces {
                return Err(Error::AlreadyExists { path: shown(to) });
            }
            if replaced.inode == moved.inode {
                return Ok(());
            }
            match (moved.kind == Kind::Directory, replaced.kind == Kind::Directory) {
                (true, false) => return Err(Error::NotADirectory { path: shown(to) }),
                (false, true) => return Err(Error::IsADirectory { path: shown(to) }),
                (true, true) => self.check_empty(replaced.inode, to).await?,
                (false, false) => {}
            }
        }
        let moment = self.shared.moment();
        self.begin_change();
        self.delete_entry(source.parent(), old_name, moved.kind, moment).await?;
        if let Some(replaced) = target.entry {
            self.delete_entry(target.parent(), new_name, replaced.kind, moment).await?;
            self.unlink(replaced, moment).await?;
        }
        self.put_entry(target.parent(), new_name, moved, moment).await?;
        self.note_move(moved.inode, moment).await?;
        self.end_change();
        Ok(())
    }

    /// Lets two names change places.
    ///
    /// # Errors
    /// As [`super::FileSystem::exchange`].
    pub async fn exchange(&mut self, one: impl AsRef<[u8]>, other: impl AsRef<[u8]>) -> Result<()> {
        let (one, other) = (one.as_ref(), other.as_ref());
        let left = self.locate(trimmed(one), Last::Itself).await?;
        let right = self.locate(trimmed(other), Last::Itself).await?;
        let (left_entry, right_entry) = (left.existing(one)?, right.existing(other)?);
        for (path, entry) in [(one, left_entry), (other, right_entry)] {
            if path.ends_with(b"/") && entry.kind != Kind::Directory {
                return Err(Error::NotADirectory { path: shown(path) });
            }
        }
        let (left_name, right_name) = (left.named(one)?, right.named(other)?);
        if left_entry.inode == right_entry.inode {
            return Ok(());
        }
        check_no_cycle(left_entry, &right, one)?;
        check_no_cycle(right_entry, &left, other)?;
        let moment = self.shared.moment();
        self.begin_change();
        self.delete_entry(left.parent(), left_name, left_entry.kind, moment).await?;
        self.delete_entry(right.parent(), right_name, right_entry.kind, moment).await?;
        self.put_entry(left.parent(), left_name, right_entry, moment).await?;
        self.put_entry(right.parent(), right_name, left_entry, moment).await?;
        self.note_move(left_entry.inode, moment).await?;
        self.note_move(right_entry.inode, moment).await?;
        self.end_change();
        Ok(())
    }

    async fn note_move(&mut self, inode: u64, moment: u64) -> Result<()> {
        let mut row = inodes::load(&self.transaction, inode).await?;
        row.ctime = Timestamp::from_nanos(moment);
        put_inode(&mut self.transaction, inode, &row)
    }
}

/// The ancestors of the target were just read, so a concurrent move of one of them is a conflict: no cycle can arise.
pub(super) fn check_no_cycle(moved: EntryRow, target: &Located, from: &[u8]) -> Result<()> {
    if moved.kind == Kind::Directory && target.parents.contains(&moved.inode) {
        return Err(Error::IntoItself { path: shown(from) });
    }
    Ok(())
}
