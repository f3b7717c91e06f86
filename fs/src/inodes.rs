//! Reading inodes through any view.

use strongroom_core::engine::View;

use crate::error::{Result, damaged};
use crate::extents;
use crate::format::{
    CONTENT, ContentRow, ContentTag, INODE, InodeRow, Kind, SUBDIRECTORIES, SYMLINK_BYTES_MAX, decode_count, inode_key,
};
use crate::options::AccessTime;
use crate::shared::Shared;
use crate::time::Timestamp;

/// What is known of a file, directory or link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The number that it keeps under every name.
    pub inode: u64,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes: of a file its content, of a symbolic link its target, of a directory 0.
    pub size: u64,
    /// Versions of a file that are kept beside the current one.
    pub versions: u64,
    /// Names of it; of a directory, 2 and one more for every directory in it.
    pub nlink: u64,
    /// When the content changed.
    pub mtime: Timestamp,
    /// When content or attributes changed.
    pub ctime: Timestamp,
    /// When it was made.
    pub btime: Timestamp,
    /// When it was last read: as set by hand, or noted by handles whose options ask for that.
    pub atime: Timestamp,
    /// Whether it has extended attributes.
    pub has_xattrs: bool,
    /// Of a file, when its content changed last, whatever time of modification was set by hand: while this is the same under an
    /// inode, so is the content.
    pub content_changed: Timestamp,
    /// What [`crate::FsTransaction::set_content_tag`] has given to the content that is there.
    pub content_tag: Option<ContentTag>,
}

/// The inode's row; it must be there, because something refers to it.
pub(crate) async fn load(view: &dyn View, inode: u64) -> Result<InodeRow> {
    let row = view.get(INODE, &inode_key(inode)).await?;
    let row = row.ok_or_else(|| damaged("inode", format!("{inode:#x} is missing")))?;
    Ok(InodeRow::decode(&row)?)
}

/// The content row; of a directory nothing was ever put in, there is none.
pub(crate) async fn content(view: &dyn View, inode: u64) -> Result<Option<ContentRow>> {
    Ok(match view.get(CONTENT, &inode_key(inode)).await? {
        Some(row) => Some(ContentRow::decode(&row)?),
        None => None,
    })
}

/// The content row of a file, which has one as long as it exists.
pub(crate) async fn file_content(view: &dyn View, inode: u64) -> Result<ContentRow> {
    content(view, inode).await?.ok_or_else(|| damaged("content row", format!("of inode {inode:#x} is missing")))
}

/// Directories in a directory.
pub(crate) async fn subdirectories(view: &dyn View, inode: u64) -> Result<u64> {
    Ok(match view.get(SUBDIRECTORIES, &inode_key(inode)).await? {
        Some(row) => decode_count(&row)?,
        None => 0,
    })
}

/// Everything known of an inode.
pub(crate) async fn metadata(view: &dyn View, inode: u64) -> Result<Metadata> {
    let row = load(view, inode).await?;
    let (content, size, nlink) = match row.kind {
        Kind::File => {
            let content = file_content(view, inode).await?;
            (content, content.size, u64::from(row.nlink))
        }
        Kind::Directory => {
            let subdirectories = subdirectories(view, inode).await?;
            (content(view, inode).await?.unwrap_or_default(), 0, subdirectories.saturating_add(2))
        }
        Kind::Symlink => match &row.inline {
            Some(target) => (ContentRow::default(), target.len() as u64, u64::from(row.nlink)),
            None => {
                let content = file_content(view, inode).await?;
                (ContentRow { changed: 0, ..content }, content.size, u64::from(row.nlink))
            }
        },
    };
    let changed = Timestamp::from_nanos(content.changed);
    Ok(Metadata {
        inode,
        kind: row.kind,
        mode: row.mode,
        uid: row.uid,
        gid: row.gid,
        size,
        versions: content.versions.older_count(),
        nlink,
        mtime: if content.changed > row.mtime_set { changed } else { row.mtime },
        ctime: if content.changed > 0 { row.ctime.max(changed) } else { row.ctime },
        btime: row.btime,
        atime: row.atime,
        has_xattrs: row.xattrs,
        content_changed: changed,
        content_tag: content.tag,
    })
}

/// Notes that a file was read, where the rule says so. Of nobody's changes in between anything is lost: a conflict only
/// means that the note is not made.
pub(crate) async fn note_access(shared: &Shared, inode: u64, rule: AccessTime, now: Timestamp) -> Result<()> {
    const STALE_SECONDS: i64 = 24 * 60 * 60;
    let mut transaction = shared.engine.begin();
    let Some(row) = transaction.get(INODE, &inode_key(inode)).await? else { return Ok(()) };
    let mut row = InodeRow::decode(&row)?;
    // The content is looked at by another state, so that a writer of it is no conflict.
    let metadata = metadata(&shared.engine.snapshot(), inode).await?;
    let is_due = match rule {
        AccessTime::Never => false,
        AccessTime::Relative => {
            row.atime <= metadata.mtime
                || row.atime <= metadata.ctime
                || now.seconds.saturating_sub(row.atime.seconds) >= STALE_SECONDS
        }
        AccessTime::Strict => true,
    };
    if is_due {
        row.atime = now;
        transaction.put(INODE, &inode_key(inode), &row.encode())?;
        transaction.commit().await?;
    }
    Ok(())
}

/// Where a symbolic link leads.
pub(crate) async fn symlink_target(shared: &Shared, view: &dyn View, inode: u64) -> Result<Vec<u8>> {
    let row = load(view, inode).await?;
    if row.kind != Kind::Symlink {
        return Err(damaged("directory entry", format!("says that inode {inode:#x} is a symbolic link")));
    }
    if let Some(target) = row.inline {
        return Ok(target);
    }
    let size = file_content(view, inode).await?.size;
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    if length > SYMLINK_BYTES_MAX {
        return Err(damaged("inode", format!("symbolic link with a target of {size} bytes")));
    }
    let mut target = vec![0; length];
    extents::read(shared, view, inode, 0, &mut target).await?;
    Ok(target)
}
