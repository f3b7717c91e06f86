use super::FsTransaction;
use super::attributes::put_inode;
use super::create::trimmed;
use crate::error::{Error, Result, shown};
use crate::format::{EntryRow, Kind};
use crate::inodes;
use crate::path::Last;
use crate::time::Timestamp;

impl FsTransaction {
    /// Gives something another name, in place of what has that name.
    ///
    /// # Errors
    /// As [`super::FileSystem::rename`].
    pub async fn rename(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let source = self.locate(trimmed(from), Last::Itself).await?;
        let moved = source.existing(from)?;
        let target = self.locate(trimmed(to), Last::Itself).await?;
        if (from.ends_with(b"/") || to.ends_with(b"/")) && moved.kind != Kind::Directory {
            return Err(Error::NotADirectory { path: shown(from) });
        }
        let (old_name, new_name) = (source.named(from)?, target.named(to)?);
        // The ancestors of the target were just read, so a concurrent move of one of them is a conflict: no cycle can arise.
        if moved.kind == Kind::Directory && target.parents.contains(&moved.inode) {
            return Err(Error::IntoItself { path: shown(from) });
        }
        if let Some(replaced) = target.entry {
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
        self.unfinished = true;
        self.delete_entry(source.parent(), old_name, moved.kind, moment).await?;
        if let Some(replaced) = target.entry {
            self.delete_entry(target.parent(), new_name, replaced.kind, moment).await?;
            self.unlink(replaced, moment).await?;
        }
        let EntryRow { inode, .. } = moved;
        self.put_entry(target.parent(), new_name, moved, moment).await?;
        let mut row = inodes::load(&self.transaction, inode).await?;
        row.ctime = Timestamp::from_nanos(moment);
        put_inode(&mut self.transaction, inode, &row)?;
        self.unfinished = false;
        Ok(())
    }
}
