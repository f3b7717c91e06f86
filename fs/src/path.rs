//! Paths are bytes: names of 1 to 255 bytes without NUL, between slashes. They start at the root, with or without a slash.
//!
//! `.` is skipped where it stands. `..` goes up from the directory that was really reached, as in POSIX, and stays at the
//! root there. Text is taken as its UTF-8.

use std::borrow::Cow;

use strongroom_core::engine::View;

use crate::error::{Error, Result, damaged, shown};
use crate::format::{ENTRY, EntryRow, Kind, NAME_BYTES_MAX, PATH_BYTES_MAX, ROOT, SYMLINKS_FOLLOWED_MAX, entry_key};
use crate::inodes;
use crate::shared::Shared;

/// Where a path leads.
pub(crate) struct Located {
    /// The directories from the root to the one that holds, or would hold, the name.
    pub(crate) parents: Vec<u64>,
    /// The name in the last of them; `None` where the path ends in `/`, `.` or `..` and so names a directory by itself.
    pub(crate) name: Option<Vec<u8>>,
    /// What is there.
    pub(crate) entry: Option<EntryRow>,
    /// Whether a trailing slash asks for a directory.
    pub(crate) must_be_directory: bool,
}

impl Located {
    pub(crate) fn parent(&self) -> u64 {
        self.parents.last().copied().unwrap_or(ROOT)
    }

    /// What is there, or `NotFound`.
    pub(crate) fn existing(&self, path: &[u8]) -> Result<EntryRow> {
        let entry = self.entry.ok_or_else(|| Error::NotFound { path: shown(path) })?;
        if self.must_be_directory && entry.kind != Kind::Directory {
            return Err(Error::NotADirectory { path: shown(path) });
        }
        Ok(entry)
    }

    /// The name, for an operation that changes the entry itself.
    pub(crate) fn named(&self, path: &[u8]) -> Result<&[u8]> {
        self.name
            .as_deref()
            .ok_or_else(|| Error::InvalidPath { path: shown(path), reason: "names no entry of a directory" })
    }
}

/// What the last name of a path means when it is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Followed,
    Itself,
}

/// Checks one name.
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::NameTooLong { path: shown(name), bytes: name.len(), bytes_max: NAME_BYTES_MAX });
    }
    if name.contains(&0) {
        return Err(Error::InvalidPath { path: shown(name), reason: "a name cannot hold a zero byte" });
    }
    Ok(())
}

/// Follows a path from the root.
pub(crate) async fn locate(shared: &Shared, view: &dyn View, path: &[u8], last: Last) -> Result<Located> {
    if path.is_empty() {
        return Err(Error::InvalidPath { path: String::new(), reason: "empty" });
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(Error::NameTooLong { path: "path".into(), bytes: path.len(), bytes_max: PATH_BYTES_MAX });
    }
    let must_be_directory = path.ends_with(b"/");
    let mut todo: Vec<Cow<'_, [u8]>> = Vec::new();
    for name in names(path).rev() {
        check_name(name)?;
        todo.push(Cow::Borrowed(name));
    }
    let mut parents = vec![ROOT];
    let mut links_left = SYMLINKS_FOLLOWED_MAX;
    while let Some(name) = todo.pop() {
        if *name == *b".." {
            if parents.len() > 1 {
                parents.pop();
            }
            continue;
        }
        let parent = parents.last().copied().unwrap_or(ROOT);
        let entry = lookup(view, parent, &name).await?;
        let is_last = todo.is_empty();
        let follow = !is_last || last == Last::Followed || must_be_directory;
        match entry {
            Some(EntryRow { kind: Kind::Symlink, inode }) if follow => {
                links_left = links_left.checked_sub(1).ok_or_else(|| Error::SymlinkLoop { path: shown(path) })?;
                let target = inodes::symlink_target(shared, view, inode).await?;
                if target.starts_with(b"/") {
                    parents.truncate(1);
                }
                if todo.len() + target.len() / 2 > PATH_BYTES_MAX {
                    return Err(Error::SymlinkLoop { path: shown(path) });
                }
                for name in names(&target).rev() {
                    check_name(name)?;
                    todo.push(Cow::Owned(name.to_vec()));
                }
            }
            None if !is_last => return Err(Error::NotFound { path: shown(path) }),
            entry if is_last => {
                return Ok(Located { parents, name: Some(name.into_owned()), entry, must_be_directory });
            }
            Some(EntryRow { kind: Kind::Directory, inode }) => parents.push(inode),
            _ => return Err(Error::NotADirectory { path: shown(path) }),
        }
    }
    let inode = parents.last().copied().unwrap_or(ROOT);
    let entry = Some(EntryRow { inode, kind: Kind::Directory });
    Ok(Located { parents, name: None, entry, must_be_directory })
}

/// The names between the slashes, `.` left out.
pub(crate) fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// What a name stands for in a directory.
pub(crate) async fn lookup(view: &dyn View, parent: u64, name: &[u8]) -> Result<Option<EntryRow>> {
    let Some(row) = view.get(ENTRY, entry_key(parent, name).as_slice()).await? else { return Ok(None) };
    let entry = EntryRow::decode(&row)?;
    if entry.inode <= ROOT {
        return Err(damaged("directory entry", "leads to the root or nowhere"));
    }
    Ok(Some(entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(path: &[u8]) -> Vec<&[u8]> {
        names(path).collect()
    }

    #[test]
    fn repeated_slashes_and_dots_name_nothing() {
        assert_eq!(split(b"//a/./b//"), [b"a", b"b"]);
        assert_eq!(split(b"a/b"), split(b"/a/b/."));
        assert!(split(b"/").is_empty() && split(b".").is_empty());
        assert_eq!(split(b"..."), [b"..."]);
    }

    #[test]
    fn a_name_is_any_bytes_up_to_the_limit_save_zero() {
        assert!(check_name(&[0xff; 255]).is_ok());
        assert!(matches!(check_name(&[b'a'; 256]), Err(Error::NameTooLong { bytes: 256, .. })));
        assert!(matches!(check_name(b"a\0b"), Err(Error::InvalidPath { .. })));
    }
}
