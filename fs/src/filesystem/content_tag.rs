//! Tags: what an application knows a content by.

use super::FsTransaction;
use super::transaction::put_row;
use crate::error::Result;
use crate::format::ContentTag;
use crate::inodes;

impl FsTransaction {
    /// Gives the content of a file a tag, or takes it away; symbolic links are followed. [`crate::Metadata::content_tag`] answers
    /// it for as long as the content is this one: any other that is written, restored or copied into the file has none. Renaming,
    /// other names, other attributes and snapshots leave it; a copy of the whole file has it, too.
    ///
    /// It is no part of the file: no time changes, and it makes no version. It is for noting what the content was made from, for
    /// instance.
    ///
    /// # Errors
    /// [`crate::Error::IsADirectory`], and as [`super::FileSystem::metadata`].
    pub async fn set_content_tag(&mut self, path: impl AsRef<[u8]>, tag: Option<ContentTag>) -> Result<()> {
        let inode = self.file_inode(path.as_ref()).await?;
        let mut row = inodes::file_content(&self.transaction, inode).await?;
        if row.tag == tag {
            return Ok(());
        }
        row.tag = tag;
        put_row(&mut self.transaction, inode, &row)
    }
}
