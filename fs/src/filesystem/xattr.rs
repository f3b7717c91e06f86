//! Extended attributes by path.

use super::attributes::put_inode;
use super::{FileSystem, FsSnapshot, FsTransaction, transact};
use crate::error::{Error, Result, shown};
use crate::inodes;
use crate::path::{Last, locate};
use crate::time::Timestamp;
use crate::xattrs;

/// Whether a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Follow {
    /// The operation is about what the link leads to.
    #[default]
    Yes,
    /// The operation is about the link itself.
    No,
}

impl From<Follow> for Last {
    fn from(follow: Follow) -> Self {
        match follow {
            Follow::Yes => Self::Followed,
            Follow::No => Self::Itself,
        }
    }
}

/// What setting an extended attribute asks of the one that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum XattrMode {
    /// Nothing: it is made or replaced.
    #[default]
    Set,
    /// There must be none yet.
    Create,
    /// There must be one.
    Replace,
}

impl FsSnapshot {
    /// The value of an extended attribute; `None` where there is none of that name.
    ///
    /// # Errors
    /// As [`FileSystem::xattr`].
    pub async fn xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        follow: Follow,
    ) -> Result<Option<Vec<u8>>> {
        let (path, name) = (path.as_ref(), name.as_ref());
        xattrs::check_name(name)?;
        let inode = locate(&self.shared, &self.snapshot, path, follow.into()).await?.existing(path)?.inode;
        xattrs::get(&self.snapshot, inode, name).await
    }

    /// The names of all extended attributes, in the order of their bytes.
    ///
    /// # Errors
    /// As [`FileSystem::metadata`].
    pub async fn xattrs(&self, path: impl AsRef<[u8]>, follow: Follow) -> Result<Vec<Vec<u8>>> {
        let path = path.as_ref();
        let inode = locate(&self.shared, &self.snapshot, path, follow.into()).await?.existing(path)?.inode;
        names(&self.snapshot, inode).await
    }
}

async fn names(view: &dyn strongroom_core::engine::View, inode: u64) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let mut rows = xattrs::rows(view, inode);
    while let Some((name, _)) = rows.next().await? {
        names.push(name);
    }
    Ok(names)
}

impl FileSystem {
    /// The value of an extended attribute; `None` where there is none of that name.
    ///
    /// Names are bytes without zero, up to [`crate::XATTR_NAME_BYTES_MAX`]; no prefix has a meaning here, and what is not
    /// allowed to whom is the caller's. Values are any bytes up to [`crate::XATTR_VALUE_BYTES_MAX`].
    ///
    /// # Errors
    /// [`Error::InvalidPath`] and [`Error::NameTooLong`] for the name, and as [`Self::metadata`].
    pub async fn xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        follow: Follow,
    ) -> Result<Option<Vec<u8>>> {
        self.snapshot().xattr(path, name, follow).await
    }

    /// The names of all extended attributes, in the order of their bytes.
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub async fn xattrs(&self, path: impl AsRef<[u8]>, follow: Follow) -> Result<Vec<Vec<u8>>> {
        self.snapshot().xattrs(path, follow).await
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] with [`XattrMode::Create`], [`Error::NoXattr`] with [`XattrMode::Replace`];
    /// [`strongroom_core::Error::LimitExceeded`] for a value over [`crate::XATTR_VALUE_BYTES_MAX`] and for names over
    /// [`crate::XATTR_LIST_BYTES_MAX`] together; and as [`Self::xattr`].
    pub async fn set_xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        mode: XattrMode,
        follow: Follow,
    ) -> Result<()> {
        let (path, name, value) = (path.as_ref(), name.as_ref(), value.as_ref());
        transact!(self, transaction => transaction.set_xattr(path, name, value, mode, follow).await)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// [`Error::NoXattr`] where there is none of that name, and as [`Self::xattr`].
    pub async fn remove_xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>, follow: Follow) -> Result<()> {
        let (path, name) = (path.as_ref(), name.as_ref());
        transact!(self, transaction => transaction.remove_xattr(path, name, follow).await)
    }
}

impl FsTransaction {
    /// The value of an extended attribute; `None` where there is none of that name.
    ///
    /// # Errors
    /// As [`FileSystem::xattr`].
    pub async fn xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        follow: Follow,
    ) -> Result<Option<Vec<u8>>> {
        let (path, name) = (path.as_ref(), name.as_ref());
        xattrs::check_name(name)?;
        let inode = self.locate(path, follow.into()).await?.existing(path)?.inode;
        xattrs::get(&self.transaction, inode, name).await
    }

    /// The names of all extended attributes, in the order of their bytes.
    ///
    /// # Errors
    /// As [`FileSystem::metadata`].
    pub async fn xattrs(&self, path: impl AsRef<[u8]>, follow: Follow) -> Result<Vec<Vec<u8>>> {
        let path = path.as_ref();
        let inode = self.locate(path, follow.into()).await?.existing(path)?.inode;
        names(&self.transaction, inode).await
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// As [`FileSystem::set_xattr`].
    pub async fn set_xattr(
        &mut self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        mode: XattrMode,
        follow: Follow,
    ) -> Result<()> {
        let (path, name, value) = (path.as_ref(), name.as_ref(), value.as_ref());
        xattrs::check_name(name)?;
        let inode = self.locate(path, follow.into()).await?.existing(path)?.inode;
        match (mode, xattrs::exists(&self.transaction, inode, name).await?) {
            (XattrMode::Create, true) => return Err(Error::AlreadyExists { path: shown(name) }),
            (XattrMode::Replace, false) => return Err(Error::NoXattr { path: shown(path), name: shown(name) }),
            _ => {}
        }
        xattrs::check_room(&self.transaction, inode, name, value.len()).await?;
        let mut row = inodes::load(&self.transaction, inode).await?;
        self.begin_change();
        xattrs::put(&self.shared, &mut self.transaction, inode, name, value).await?;
        row.xattrs = true;
        row.ctime = Timestamp::from_nanos(self.shared.moment());
        put_inode(&mut self.transaction, inode, &row)?;
        self.end_change();
        Ok(())
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As [`FileSystem::remove_xattr`].
    pub async fn remove_xattr(&mut self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>, follow: Follow) -> Result<()> {
        let (path, name) = (path.as_ref(), name.as_ref());
        xattrs::check_name(name)?;
        let inode = self.locate(path, follow.into()).await?.existing(path)?.inode;
        if !xattrs::exists(&self.transaction, inode, name).await? {
            return Err(Error::NoXattr { path: shown(path), name: shown(name) });
        }
        let mut row = inodes::load(&self.transaction, inode).await?;
        self.begin_change();
        row.xattrs = xattrs::remove(&mut self.transaction, inode, name).await?;
        row.ctime = Timestamp::from_nanos(self.shared.moment());
        put_inode(&mut self.transaction, inode, &row)?;
        self.end_change();
        Ok(())
    }
}
