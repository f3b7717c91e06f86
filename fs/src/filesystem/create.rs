use std::io::Read;
use std::sync::Arc;

use super::attributes::put_inode;
use super::transaction::file_only;
use super::{Attributes, FsTransaction};
use crate::error::{Error, Result, shown};
use crate::extents;
use crate::format::{ContentRow, EntryRow, FILE_BYTES_MAX, Kind, LINKS_MAX, SYMLINK_BYTES_MAX};
use crate::inodes;
use crate::options::OpenOptions;
use crate::path::{Last, Located, names};
use crate::shared::Shared;
use crate::time::Timestamp;
use crate::versions::ContentChange;
use crate::writer::Ingest;

impl FsTransaction {
    /// Makes a directory.
    ///
    /// # Errors
    /// As [`super::FileSystem::create_dir`].
    pub async fn create_dir(&mut self, path: impl AsRef<[u8]>) -> Result<()> {
        self.create_dir_with(path, Attributes::directory()).await
    }

    /// As [`Self::create_dir`], with attributes.
    ///
    /// # Errors
    /// As [`super::FileSystem::create_dir`].
    pub async fn create_dir_with(&mut self, path: impl AsRef<[u8]>, attributes: Attributes) -> Result<()> {
        let path = path.as_ref();
        // A trailing slash is fine here, but must not make a symbolic link be followed.
        let located = self.locate(trimmed(path), Last::Itself).await?;
        self.make(&located, path, Kind::Directory, attributes, None).await?;
        Ok(())
    }

    /// Makes a directory and those that lead to it, as far as they are missing.
    ///
    /// # Errors
    /// As [`super::FileSystem::create_dir_all`].
    pub async fn create_dir_all(&mut self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        let mut whole = if path.starts_with(b"/") { b"/".to_vec() } else { b"./".to_vec() };
        let mut ends = Vec::new();
        for name in names(path) {
            whole.extend_from_slice(name);
            ends.push(whole.len());
            whole.push(b'/');
        }
        // From the end on: mostly all but the last is there, and each look goes through what is before it.
        let mut there = ends.len();
        while let Some(end) = there.checked_sub(1).and_then(|last| ends.get(last)) {
            let prefix = whole.get(..*end).unwrap_or_default();
            match self.locate(prefix, Last::Followed).await {
                Ok(located) if located.entry.is_some_and(|entry| entry.kind == Kind::Directory) => break,
                Ok(located) if located.entry.is_some() => return Err(Error::NotADirectory { path: shown(prefix) }),
                Ok(_) | Err(Error::NotFound { .. } | Error::NotADirectory { .. }) => there -= 1,
                Err(error) => return Err(error),
            }
        }
        for end in ends.into_iter().skip(there) {
            let prefix = whole.get(..end).unwrap_or_default();
            let located = self.locate(prefix, Last::Followed).await?;
            match located.entry {
                None => {
                    self.make(&located, prefix, Kind::Directory, Attributes::directory(), None).await?;
                }
                Some(EntryRow { kind: Kind::Directory, .. }) => {}
                Some(_) => return Err(Error::NotADirectory { path: shown(prefix) }),
            }
        }
        Ok(())
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As [`super::FileSystem::symlink`].
    pub async fn symlink(&mut self, target: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Result<()> {
        self.symlink_with(target, link, Attributes::symlink()).await
    }

    /// As [`Self::symlink`], with attributes.
    ///
    /// # Errors
    /// As [`super::FileSystem::symlink`].
    pub async fn symlink_with(
        &mut self,
        target: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
        attributes: Attributes,
    ) -> Result<()> {
        let (target, link) = (target.as_ref(), link.as_ref());
        if target.is_empty() || target.contains(&0) {
            let reason = "the target of a link is not empty and holds no zero byte";
            return Err(Error::InvalidPath { path: shown(target), reason });
        }
        if target.len() > SYMLINK_BYTES_MAX {
            return Err(Error::NameTooLong { path: shown(target), bytes: target.len(), bytes_max: SYMLINK_BYTES_MAX });
        }
        let located = self.locate(link, Last::Itself).await?;
        self.make(&located, link, Kind::Symlink, attributes, Some(target)).await?;
        Ok(())
    }

    /// Gives a file or symbolic link one more name.
    ///
    /// # Errors
    /// As [`super::FileSystem::hard_link`].
    pub async fn hard_link(&mut self, existing: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Result<()> {
        let (existing, link) = (existing.as_ref(), link.as_ref());
        let entry = self.locate(existing, Last::Itself).await?.existing(existing)?;
        if entry.kind == Kind::Directory {
            return Err(Error::IsADirectory { path: shown(existing) });
        }
        let located = self.locate(link, Last::Itself).await?;
        let name = free_name(&located, link, Kind::File)?.to_vec();
        let mut row = inodes::load(&self.transaction, entry.inode).await?;
        if row.nlink >= LINKS_MAX {
            return Err(Error::TooManyLinks { path: shown(existing) });
        }
        let moment = self.shared.moment();
        row.nlink += 1;
        row.ctime = Timestamp::from_nanos(moment);
        self.unfinished = true;
        put_inode(&mut self.transaction, entry.inode, &row)?;
        self.put_entry(located.parent(), &name, entry, moment).await?;
        self.unfinished = false;
        Ok(())
    }

    /// Makes a file, or empties the one that is there, which gets these attributes then, and answers a writer for its
    /// content. The writer must be finished; a transaction in which one was dropped before cannot be committed.
    ///
    /// # Errors
    /// [`Error::IsADirectory`], and as [`super::FileSystem::metadata`].
    pub async fn write_file(&mut self, path: impl AsRef<[u8]>, attributes: Attributes) -> Result<FileWriter<'_>> {
        let path = path.as_ref();
        attributes.check()?;
        let located = self.locate(path, Last::Followed).await?;
        let mut shared = self.shared.clone();
        let (inode, origin) = match located.entry {
            Some(_) => {
                let inode = file_only(located.existing(path)?, path)?;
                shared = self.shared_for(inode).await?;
                let (mut change, before) = self.take_change(inode).await?;
                self.unfinished = true;
                extents::truncate(&mut self.transaction, &mut change, before.size, 0).await?;
                (inode, Origin::Emptied { before, change })
            }
            None => {
                let (inode, moment) = self.make(&located, path, Kind::File, attributes, None).await?;
                self.unfinished = true;
                (inode, Origin::Made { moment })
            }
        };
        let attributes = located.entry.is_some().then_some(attributes);
        let ingest = Ingest::new(shared, inode, 0);
        Ok(FileWriter { transaction: self, inode, origin, attributes, ingest })
    }

    /// Makes a file of all that a reader gives, or makes that the content of the file that is there, and its attributes
    /// these. The reader is read where this is awaited. Answers the file's length.
    ///
    /// Where a transaction runs again, as in [`super::FileSystem::transact`], open the reader within it: one from outside
    /// would give the second run nothing, and the file would be empty.
    ///
    /// # Errors
    /// [`Error::Source`], and as [`Self::write_file`].
    pub async fn create_file_from(
        &mut self,
        path: impl AsRef<[u8]>,
        attributes: Attributes,
        reader: &mut impl Read,
    ) -> Result<u64> {
        let mut writer = self.write_file(path, attributes).await?;
        writer.write_from(reader).await?;
        writer.finish().await
    }

    /// Makes `content` the whole content of a file, which is made where it is missing. Attributes of one that is there stay.
    ///
    /// # Errors
    /// As [`Self::write_file`].
    pub async fn write(&mut self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Result<()> {
        let mut writer = self.write_file(path, Attributes::file()).await?;
        writer.attributes = None;
        writer.write(content.as_ref()).await?;
        writer.finish().await?;
        Ok(())
    }

    /// Writes at an offset of a file; a gap before it becomes zeros that take no space.
    ///
    /// # Errors
    /// [`Error::FileTooLarge`], and as [`super::FileSystem::open_file`].
    pub async fn write_at(&mut self, path: impl AsRef<[u8]>, offset: u64, bytes: impl AsRef<[u8]>) -> Result<()> {
        let (path, bytes) = (path.as_ref(), bytes.as_ref());
        let inode = self.file_inode(path).await?;
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= FILE_BYTES_MAX);
        let end = end.ok_or(Error::FileTooLarge { bytes: u64::MAX, bytes_max: FILE_BYTES_MAX })?;
        if bytes.is_empty() {
            return Ok(());
        }
        let (mut change, before) = self.take_change(inode).await?;
        let within = usize::try_from(before.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let (inside, beyond) = bytes.split_at(within);
        let shared = self.shared_for(inode).await?;
        let moment = self.shared.moment();
        self.unfinished = true;
        extents::replace(&shared, &mut self.transaction, &mut change, offset, inside).await?;
        if !beyond.is_empty() {
            let mut ingest = extents::append(&shared, &mut self.transaction, &mut change, before.size).await?;
            ingest.hole(&mut self.transaction, offset.saturating_sub(before.size)).await?;
            ingest.write(&mut self.transaction, beyond).await?;
            ingest.finish(&mut self.transaction).await?;
        }
        self.finish_change(change, before, before.size.max(end), moment).await?;
        self.unfinished = false;
        Ok(())
    }

    /// Writes at the end of a file; answers where that was.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub async fn append(&mut self, path: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Result<u64> {
        let path = path.as_ref();
        let inode = self.file_inode(path).await?;
        let size = inodes::file_content(&self.transaction, inode).await?.size;
        self.write_at(path, size, bytes).await?;
        Ok(size)
    }

    /// Sets a file's length: dropping its end, or adding zeros that take no space.
    ///
    /// # Errors
    /// As [`super::FileSystem::set_len`].
    pub async fn set_len(&mut self, path: impl AsRef<[u8]>, size: u64) -> Result<()> {
        let inode = self.file_inode(path.as_ref()).await?;
        self.set_inode_len(inode, size).await
    }

    async fn set_inode_len(&mut self, inode: u64, size: u64) -> Result<()> {
        if size > FILE_BYTES_MAX {
            return Err(Error::FileTooLarge { bytes: size, bytes_max: FILE_BYTES_MAX });
        }
        let (mut change, before) = self.take_change(inode).await?;
        let moment = self.shared.moment();
        self.unfinished = true;
        extents::truncate(&mut self.transaction, &mut change, before.size, size).await?;
        extents::extend(&mut self.transaction, inode, before.size, size).await?;
        self.finish_change(change, before, size, moment).await?;
        self.unfinished = false;
        Ok(())
    }

    /// Finds, makes and empties a file as opening it asks.
    pub(super) async fn prepare(&mut self, path: &[u8], options: &OpenOptions) -> Result<u64> {
        let last = if options.create_new { Last::Itself } else { Last::Followed };
        let located = self.locate(path, last).await?;
        if options.create_new && located.entry.is_some() {
            return Err(Error::AlreadyExists { path: shown(path) });
        }
        if located.entry.is_some() || !(options.create || options.create_new) {
            let inode = file_only(located.existing(path)?, path)?;
            self.set_options(inode, options).await?;
            if options.truncate && inodes::file_content(&self.transaction, inode).await?.size > 0 {
                self.set_inode_len(inode, 0).await?;
            }
            return Ok(inode);
        }
        let attributes = Attributes { mode: options.mode, ..Attributes::file() };
        let inode = self.make(&located, path, Kind::File, attributes, None).await?.0;
        self.set_options(inode, options).await?;
        Ok(inode)
    }

    /// What the content of a file that is there goes by.
    pub(super) async fn shared_for(&self, inode: u64) -> Result<Arc<Shared>> {
        Ok(self.shared.for_file(&inodes::load(&self.transaction, inode).await?))
    }

    /// Makes an inode and its entry; answers its number and the moment of making.
    pub(super) async fn make(
        &mut self,
        located: &Located,
        path: &[u8],
        kind: Kind,
        attributes: Attributes,
        target: Option<&[u8]>,
    ) -> Result<(u64, u64)> {
        let name = free_name(located, path, kind)?;
        attributes.check()?;
        let inode = self.transaction.number().await?;
        let moment = self.shared.moment();
        let inline = target.filter(|target| target.len() <= self.shared.inline_bytes_max());
        self.unfinished = true;
        let row = attributes.row(kind, moment, inline.map(<[u8]>::to_vec));
        put_inode(&mut self.transaction, inode, &row)?;
        self.put_entry(located.parent(), name, EntryRow { inode, kind }, moment).await?;
        if kind == Kind::File {
            self.put_first_content(inode, 0, moment)?;
            self.put_change(ContentChange::of_new(inode));
        }
        if let (Some(target), None) = (target, inline) {
            let mut ingest = Ingest::new(self.shared.clone(), inode, 0);
            ingest.write(&mut self.transaction, target).await?;
            ingest.finish(&mut self.transaction).await?;
            self.put_first_content(inode, target.len() as u64, moment)?;
        }
        self.unfinished = false;
        Ok((inode, moment))
    }
}

/// The name that a new entry gets, where it is free.
pub(super) fn free_name<'l>(located: &'l Located, path: &[u8], kind: Kind) -> Result<&'l [u8]> {
    if located.entry.is_some() {
        return Err(Error::AlreadyExists { path: shown(path) });
    }
    if located.must_be_directory && kind != Kind::Directory {
        return Err(Error::IsADirectory { path: shown(path) });
    }
    located.named(path)
}

pub(super) fn trimmed(path: &[u8]) -> &[u8] {
    let kept = path.iter().rposition(|&byte| byte != b'/').map_or(1, |last| last + 1);
    path.get(..kept).unwrap_or(path)
}

/// What a writer found.
enum Origin {
    Made { moment: u64 },
    Emptied { before: ContentRow, change: ContentChange },
}

/// Writes the content of a file from its start, in order, inside a transaction.
pub struct FileWriter<'t> {
    transaction: &'t mut FsTransaction,
    inode: u64,
    origin: Origin,
    attributes: Option<Attributes>,
    ingest: Ingest,
}

impl FileWriter<'_> {
    /// The file's inode.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Error::FileTooLarge`], and those of the engine; the transaction can only be dropped then.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.ingest.write(&mut self.transaction.transaction, bytes).await
    }

    /// Appends all that a reader gives; answers how much that was. The reader is to be opened within the transaction, as for
    /// [`FsTransaction::create_file_from`].
    ///
    /// # Errors
    /// [`Error::Source`], and as [`Self::write`].
    pub async fn write_from(&mut self, reader: &mut impl Read) -> Result<u64> {
        self.ingest.write_from(&mut self.transaction.transaction, reader).await
    }

    /// Appends zeros that take no space.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn hole(&mut self, length: u64) -> Result<()> {
        self.ingest.hole(&mut self.transaction.transaction, length).await
    }

    /// The file is complete. Answers its length.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn finish(mut self) -> Result<u64> {
        let transaction = &mut *self.transaction;
        self.ingest.finish(&mut transaction.transaction).await?;
        let size = self.ingest.end();
        match self.origin {
            // Not later than the inode, whose time of modification it would overrule.
            Origin::Made { moment } => {
                transaction.put_first_content(self.inode, size, moment)?;
            }
            Origin::Emptied { before, change } => {
                let moment = transaction.shared.moment();
                transaction.finish_change(change, before, size, moment).await?;
                if let Some(attributes) = self.attributes {
                    transaction.change_inode(self.inode, attributes.change()).await?;
                }
            }
        }
        transaction.unfinished = false;
        Ok(size)
    }
}
