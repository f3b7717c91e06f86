//! Unfinished large files in the repository: each beside its place, under a name that tells the state of its source.
//!
//! A name proves nothing, since sources may hold files of the very same: from an export of a repository with unfinished
//! files, for instance. So a draft carries a mark, an extended attribute that is never stored from a source, and the mark
//! says of which inode it is, so that no copy has it. What lacks the mark is somebody's file: it is never written to, nor
//! removed.

use strongroom::fs::{Attributes, FileSystem, Follow, FsSnapshot, FsTransaction, Kind, Metadata, Settings, XattrMode};

use super::batch::Stopped;
use crate::local::source::SourceFile;
use crate::local::xattrs::UNFINISHED;
use crate::walk::join;

/// So much of a name is kept in the names of drafts, to leave room for what they add.
const NAME_BYTES_MAX: usize = 170;
const END: &[u8] = b".unfinished";
/// How many names are tried where somebody else's files have them.
const NAMES_MAX: u16 = 256;

/// The value of the mark of a file.
fn value(inode: u64) -> Vec<u8> {
    inode.to_string().into_bytes()
}

/// Whether a file is a draft, as it was in a state of the repository.
pub(super) async fn is_one_in(snapshot: &FsSnapshot, path: &[u8], there: &Metadata) -> strongroom::Result<bool> {
    if there.kind != Kind::File || !there.has_xattrs {
        return Ok(false);
    }
    Ok(snapshot.xattr(path, UNFINISHED, Follow::No).await? == Some(value(there.inode)))
}

/// Whether what is at a path is a draft.
pub(super) async fn is_one(transaction: &FsTransaction, path: &[u8]) -> strongroom::Result<bool> {
    match transaction.symlink_metadata(path).await {
        Ok(there) if there.kind == Kind::File && there.has_xattrs => {
            Ok(transaction.xattr(path, UNFINISHED, Follow::No).await? == Some(value(there.inode)))
        }
        Ok(_) | Err(strongroom::Error::NotFound { .. } | strongroom::Error::NotADirectory { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a draft a file like others.
pub(super) async fn unmark(transaction: &mut FsTransaction, path: &[u8]) -> strongroom::Result<()> {
    transaction.remove_xattr(path, UNFINISHED, Follow::No).await
}

/// The names of the drafts of one file.
pub(super) struct Drafts {
    folder: Vec<u8>,
    /// What all of them begin with.
    begin: Vec<u8>,
}

impl Drafts {
    pub(super) fn of(path: &[u8]) -> Self {
        let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (folder, name) = path.split_at_checked(at).unwrap_or((&[], path));
        let begin = [b".", name.get(..NAME_BYTES_MAX).unwrap_or(name), b"."].concat();
        Self { folder: folder.to_vec(), begin }
    }

    fn path(&self, state: &str, number: u16) -> Vec<u8> {
        let number = if number == 0 { String::new() } else { format!("-{number:x}") };
        join(&self.folder, &[&self.begin, state.as_bytes(), number.as_bytes(), END].concat())
    }

    /// The path of the draft of a state: the one that is there, which an earlier import left, or one that is made now.
    /// `anew`: one that is there is left alone, since another import is at it.
    pub(super) async fn begin(
        &self,
        fs: &FileSystem,
        state: &str,
        settings: Settings,
        anew: bool,
    ) -> Result<Vec<u8>, Stopped> {
        let made = fs.transact(async |transaction| self.find_or_make(transaction, state, settings, anew).await).await?;
        made.ok_or_else(|| {
            Stopped::LeftOut("files of the names that it would have until it is whole are there".to_owned())
        })
    }

    async fn find_or_make(
        &self,
        transaction: &mut FsTransaction,
        state: &str,
        settings: Settings,
        anew: bool,
    ) -> strongroom::Result<Option<Vec<u8>>> {
        for number in 0..NAMES_MAX {
            let path = self.path(state, number);
            match transaction.symlink_metadata(&path).await {
                Ok(_) if anew || !is_one(transaction, &path).await? => continue,
                Ok(_) => {}
                Err(strongroom::Error::NotFound { .. }) => {
                    let writer =
                        transaction.write_file(&path, Attributes { mode: 0o600, ..Attributes::file() }).await?;
                    let inode = writer.inode();
                    writer.finish().await?;
                    transaction.set_xattr(&path, UNFINISHED, value(inode), XattrMode::Create, Follow::No).await?;
                }
                Err(error) => return Err(error),
            }
            transaction.set_settings(&path, settings).await?;
            return Ok(Some(path));
        }
        Ok(None)
    }

    /// All that are there, of whatever state.
    pub(super) async fn all(&self, fs: &FileSystem, transaction: &FsTransaction) -> Result<Vec<Vec<u8>>, Stopped> {
        let folder = if self.folder.is_empty() { b"." } else { self.folder.as_slice() };
        let mut names = fs.open_dir(folder).await?;
        let mut found = Vec::new();
        while let Some(entry) = names.next().await? {
            if self.is_name(&entry.name) {
                let path = join(&self.folder, &entry.name);
                if is_one(transaction, &path).await? {
                    found.push(path);
                }
            } else if entry.name > self.begin && !entry.name.starts_with(&self.begin) {
                break;
            }
        }
        Ok(found)
    }

    fn is_name(&self, name: &[u8]) -> bool {
        let state = name.strip_prefix(self.begin.as_slice()).and_then(|rest| rest.strip_suffix(END));
        state.is_some_and(|state| {
            let fields = state.split(|byte| *byte == b'-');
            let hexadecimal = |field: &[u8]| !field.is_empty() && field.iter().all(u8::is_ascii_hexdigit);
            // A number may follow.
            let count = fields.clone().count();
            (SourceFile::STATE_FIELDS..=SourceFile::STATE_FIELDS + 1).contains(&count)
                && fields.into_iter().all(hexadecimal)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_files_lie_beside_their_place_and_have_names_that_fit_and_tell_the_state() {
        let drafts = Drafts::of(b"/a/big.iso");
        assert_eq!(drafts.path("10-20-30-40", 0), b"/a/.big.iso.10-20-30-40.unfinished");
        assert_eq!(drafts.path("10-20-30-40", 10), b"/a/.big.iso.10-20-30-40-a.unfinished");
        assert_eq!(Drafts::of(b"big").path("1-2-3-4", 0), b".big.1-2-3-4.unfinished");
        let long = Drafts::of(&[b'n'; 255]).path(std::str::from_utf8(&[b'f'; 67]).unwrap(), NAMES_MAX - 1);
        assert!(long.len() <= 255);
        for name in [".big.iso.10-20-30-41.unfinished", ".big.iso.10-20-30-41-1f.unfinished"] {
            assert!(drafts.is_name(name.as_bytes()), "{name}");
        }
        for other in ["big.iso", ".big.iso.unfinished", ".big.iso.1-2-3.unfinished", ".big.iso.1-2-3-x.unfinished"] {
            assert!(!drafts.is_name(other.as_bytes()), "{other}");
        }
    }
}
