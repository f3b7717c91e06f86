use strongroom_core::engine::{Transaction, View};

use super::FsTransaction;
use crate::error::Result;
use crate::format::{INODE, InodeRow, Kind, inode_key};
use crate::inodes;
use crate::path::Last;
use crate::time::Timestamp;

/// What a new file, directory or link gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When its content changed last; the moment of making where not given.
    pub mtime: Option<Timestamp>,
    /// When it was read last; the moment of making where not given.
    pub atime: Option<Timestamp>,
}

impl Attributes {
    /// `rw-r--r--`.
    #[must_use]
    pub fn file() -> Self {
        Self { mode: 0o644, uid: 0, gid: 0, mtime: None, atime: None }
    }

    /// `rwxr-xr-x`.
    #[must_use]
    pub fn directory() -> Self {
        Self { mode: 0o755, ..Self::file() }
    }

    /// `rwxrwxrwx`.
    #[must_use]
    pub fn symlink() -> Self {
        Self { mode: 0o777, ..Self::file() }
    }

    pub(crate) fn row(self, kind: Kind, moment: u64, inline: Option<Vec<u8>>) -> InodeRow {
        let now = Timestamp::from_nanos(moment);
        InodeRow {
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: 1,
            xattrs: false,
            dedup: None,
            compression: None,
            btime: now,
            ctime: now,
            mtime: self.mtime.unwrap_or(now),
            atime: self.atime.unwrap_or(now),
            mtime_set: moment,
            inline,
        }
    }

    /// That all of them can be kept.
    pub(super) fn check(&self) -> Result<()> {
        check_times([self.mtime, self.atime])
    }

    pub(crate) fn change(self) -> AttributeChange {
        AttributeChange {
            mode: Some(self.mode),
            uid: Some(self.uid),
            gid: Some(self.gid),
            mtime: self.mtime,
            atime: self.atime,
        }
    }
}

/// What of the attributes is to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeChange {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Time of modification.
    pub mtime: Option<Timestamp>,
    /// Time of access.
    pub atime: Option<Timestamp>,
}

impl FsTransaction {
    /// Changes attributes; symbolic links are followed.
    ///
    /// # Errors
    /// [`strongroom_core::Error::Invalid`] for a time of a second or more in nanoseconds; as [`super::FileSystem::metadata`].
    pub async fn set_attributes(&mut self, path: impl AsRef<[u8]>, change: AttributeChange) -> Result<()> {
        self.change_attributes(path.as_ref(), Last::Followed, change).await
    }

    /// As [`Self::set_attributes`], of a symbolic link itself where one is at the path.
    ///
    /// # Errors
    /// As [`Self::set_attributes`].
    pub async fn set_symlink_attributes(&mut self, path: impl AsRef<[u8]>, change: AttributeChange) -> Result<()> {
        self.change_attributes(path.as_ref(), Last::Itself, change).await
    }

    async fn change_attributes(&mut self, path: &[u8], last: Last, change: AttributeChange) -> Result<()> {
        let inode = self.locate(path, last).await?.existing(path)?.inode;
        self.change_inode(inode, change).await
    }

    /// One row, put at the end: nothing to leave half done.
    pub(super) async fn change_inode(&mut self, inode: u64, change: AttributeChange) -> Result<()> {
        check_times([change.mtime, change.atime])?;
        let moment = self.shared.moment();
        let mut row = inodes::load(&self.transaction, inode).await?;
        row.mode = change.mode.unwrap_or(row.mode);
        row.uid = change.uid.unwrap_or(row.uid);
        row.gid = change.gid.unwrap_or(row.gid);
        row.atime = change.atime.unwrap_or(row.atime);
        if let Some(mtime) = change.mtime {
            row.mtime = mtime;
            // It overrules the content that is there, though the clock was set back since that was written.
            row.mtime_set = moment.max(row.mtime_set).max(self.content_changed(inode).await?);
        }
        row.ctime = Timestamp::from_nanos(moment);
        put_inode(&mut self.transaction, inode, &row)
    }

    /// When the content changed last, in nanoseconds since the epoch.
    async fn content_changed(&self, inode: u64) -> Result<u64> {
        // Content that this transaction leaves alone is looked at by another state, so that a writer of it is no conflict.
        let newest = self.shared.engine.snapshot();
        let view: &dyn View = if self.changes.contains_key(&inode) { &self.transaction } else { &newest };
        Ok(inodes::content(view, inode).await?.map_or(0, |content| content.changed))
    }
}

/// The fields of a time are open to anybody; a row with more than a second in its nanoseconds would be damage.
fn check_times(times: [Option<Timestamp>; 2]) -> Result<()> {
    match times.into_iter().flatten().find(|time| Timestamp::new(time.seconds, time.nanos).is_none()) {
        Some(time) => {
            let what = format!("a time of {} nanoseconds beyond its second: 999,999,999 is the most", time.nanos);
            Err(strongroom_core::Error::Invalid(what).into())
        }
        None => Ok(()),
    }
}

pub(super) fn put_inode(transaction: &mut Transaction, inode: u64, row: &InodeRow) -> Result<()> {
    Ok(transaction.put(INODE, &inode_key(inode), &row.encode())?)
}
