//! Changes as values: a list of them is one transaction.

use strongroom_core::engine::CommitInfo;

use super::{AttributeChange, FileSystem, Follow, FsTransaction, Settings, XattrMode};
use crate::error::{Error, Result};

/// One change of the file system. Paths and names are bytes, as everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)] // each field is the argument of the same name
pub enum Op {
    /// As [`FsTransaction::create_dir`].
    CreateDir { path: Vec<u8> },
    /// As [`FsTransaction::create_dir_all`].
    CreateDirAll { path: Vec<u8> },
    /// As [`FsTransaction::write`].
    Write { path: Vec<u8>, content: Vec<u8> },
    /// As [`FsTransaction::write_at`].
    WriteAt { path: Vec<u8>, offset: u64, bytes: Vec<u8> },
    /// As [`FsTransaction::append`].
    Append { path: Vec<u8>, bytes: Vec<u8> },
    /// As [`FsTransaction::set_len`].
    SetLen { path: Vec<u8>, size: u64 },
    /// As [`FsTransaction::punch_hole`].
    PunchHole { path: Vec<u8>, offset: u64, length: u64 },
    /// As [`FsTransaction::rename`], or with `replace: false` [`FsTransaction::rename_new`].
    Rename { from: Vec<u8>, to: Vec<u8>, replace: bool },
    /// As [`FsTransaction::exchange`].
    Exchange { one: Vec<u8>, other: Vec<u8> },
    /// As [`FsTransaction::remove_file`].
    RemoveFile { path: Vec<u8> },
    /// As [`FsTransaction::remove_dir`].
    RemoveDir { path: Vec<u8> },
    /// As [`FsTransaction::remove_all`].
    RemoveAll { path: Vec<u8> },
    /// As [`FsTransaction::symlink`].
    Symlink { target: Vec<u8>, link: Vec<u8> },
    /// As [`FsTransaction::hard_link`].
    HardLink { existing: Vec<u8>, link: Vec<u8> },
    /// As [`FsTransaction::copy`].
    Copy { from: Vec<u8>, to: Vec<u8> },
    /// As [`FsTransaction::copy_range`].
    CopyRange { from: Vec<u8>, from_offset: u64, to: Vec<u8>, to_offset: u64, length: u64 },
    /// As [`FsTransaction::copy_all`].
    CopyAll { from: Vec<u8>, to: Vec<u8> },
    /// As [`FsTransaction::set_attributes`], or of a link itself.
    SetAttributes { path: Vec<u8>, change: AttributeChange, follow: Follow },
    /// As [`FsTransaction::set_settings`].
    SetSettings { path: Vec<u8>, settings: Settings },
    /// As [`FsTransaction::restore_version`].
    RestoreVersion { path: Vec<u8>, number: u64 },
    /// As [`FsTransaction::set_xattr`].
    SetXattr { path: Vec<u8>, name: Vec<u8>, value: Vec<u8>, mode: XattrMode, follow: Follow },
    /// As [`FsTransaction::remove_xattr`].
    RemoveXattr { path: Vec<u8>, name: Vec<u8>, follow: Follow },
}

impl FileSystem {
    /// Applies changes in order as one transaction and one commit: all of them, or none. Run again where another
    /// transaction was faster.
    ///
    /// # Errors
    /// [`Error::InBatch`] with the number of the change that was refused, counted from 0; those of the commit.
    pub async fn apply(&self, ops: &[Op]) -> Result<CommitInfo> {
        let mut attempt = 0;
        loop {
            let mut transaction = self.begin();
            let result = match transaction.apply_all(ops).await {
                Ok(()) => transaction.commit().await,
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_conflict() && attempt < super::ATTEMPTS_MAX => {
                    attempt += 1;
                    self.shared.engine.refresh().await?;
                }
                result => return result,
            }
        }
    }
}

impl FsTransaction {
    /// Applies one change; one that is refused changes nothing.
    ///
    /// # Errors
    /// Those of the method that it stands for.
    pub async fn apply(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::CreateDir { path } => self.create_dir(path).await,
            Op::CreateDirAll { path } => self.create_dir_all(path).await,
            Op::Write { path, content } => self.write(path, content).await,
            Op::WriteAt { path, offset, bytes } => self.write_at(path, *offset, bytes).await,
            Op::Append { path, bytes } => self.append(path, bytes).await.map(|_| ()),
            Op::SetLen { path, size } => self.set_len(path, *size).await,
            Op::PunchHole { path, offset, length } => self.punch_hole(path, *offset, *length).await,
            Op::Rename { from, to, replace: true } => self.rename(from, to).await,
            Op::Rename { from, to, replace: false } => self.rename_new(from, to).await,
            Op::Exchange { one, other } => self.exchange(one, other).await,
            Op::RemoveFile { path } => self.remove_file(path).await,
            Op::RemoveDir { path } => self.remove_dir(path).await,
            Op::RemoveAll { path } => self.remove_all(path).await,
            Op::Symlink { target, link } => self.symlink(target, link).await,
            Op::HardLink { existing, link } => self.hard_link(existing, link).await,
            Op::Copy { from, to } => self.copy(from, to).await.map(|_| ()),
            Op::CopyRange { from, from_offset, to, to_offset, length } => {
                self.copy_range(from, *from_offset, to, *to_offset, *length).await.map(|_| ())
            }
            Op::CopyAll { from, to } => self.copy_all(from, to).await,
            Op::SetAttributes { path, change, follow: Follow::Yes } => self.set_attributes(path, *change).await,
            Op::SetAttributes { path, change, follow: Follow::No } => self.set_symlink_attributes(path, *change).await,
            Op::SetSettings { path, settings } => self.set_settings(path, *settings).await,
            Op::RestoreVersion { path, number } => self.restore_version(path, *number).await,
            Op::SetXattr { path, name, value, mode, follow } => self.set_xattr(path, name, value, *mode, *follow).await,
            Op::RemoveXattr { path, name, follow } => self.remove_xattr(path, name, *follow).await,
        }
    }

    /// Applies changes in order, up to the first that is refused.
    ///
    /// # Errors
    /// [`Error::InBatch`] with the number of the change that was refused.
    pub async fn apply_all(&mut self, ops: &[Op]) -> Result<()> {
        for (index, op) in ops.iter().enumerate() {
            self.apply(op).await.map_err(|error| Error::InBatch { index, error: Box::new(error) })?;
        }
        Ok(())
    }
}
