//! What the repository has in a folder already, asked for name by name in ascending order: one scan, held open, answers
//! for a folder of any size.

use strongroom::fs::{DirEntry, FsSnapshot, ReadDir};

use crate::exit::Failure;

/// The names of one folder, as they were when the import began.
pub(super) struct Known {
    names: Option<ReadDir>,
    peeked: Option<DirEntry>,
    is_broken: bool,
}

impl Known {
    /// A folder that is not there.
    pub(super) fn nothing() -> Self {
        Self { names: None, peeked: None, is_broken: false }
    }

    /// A folder that is there, or nothing where it is not.
    pub(super) async fn folder(snapshot: &FsSnapshot, path: &[u8]) -> Result<Self, Failure> {
        let mut known = match snapshot.open_dir(path).await {
            Ok(names) => Self { names: Some(names), ..Self::nothing() },
            Err(strongroom::Error::NotFound { .. } | strongroom::Error::NotADirectory { .. }) => Self::nothing(),
            Err(error) => return Err(error.into()),
        };
        known.advance().await?;
        Ok(known)
    }

    /// Only what is at this path.
    pub(super) async fn one(snapshot: &FsSnapshot, path: &[u8]) -> Result<Self, Failure> {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let there = match snapshot.symlink_metadata(path).await {
            Ok(metadata) => Some(DirEntry { name: name.to_vec(), inode: metadata.inode, kind: metadata.kind }),
            Err(strongroom::Error::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { peeked: there, ..Self::nothing() })
    }

    /// Whether names in it could not be read: what they are, and whether there are more, nobody knows.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// The inode of a name. Names are asked for in ascending order, each once.
    pub(super) async fn find(&mut self, name: &[u8]) -> Result<Option<u64>, Failure> {
        while let Some(entry) = &self.peeked {
            match entry.name.as_slice().cmp(name) {
                std::cmp::Ordering::Less => self.advance().await?,
                std::cmp::Ordering::Equal => {
                    let inode = entry.inode;
                    self.advance().await?;
                    return Ok(Some(inode));
                }
                std::cmp::Ordering::Greater => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The next name that is there and was not asked for: before `limit`, or any where there is none.
    pub(super) async fn passed(&mut self, limit: Option<&[u8]>) -> Result<Option<Vec<u8>>, Failure> {
        match self.peeked.take() {
            Some(entry) if limit.is_none_or(|limit| entry.name.as_slice() < limit) => {
                self.advance().await?;
                Ok(Some(entry.name))
            }
            peeked => {
                self.peeked = peeked;
                Ok(None)
            }
        }
    }

    async fn advance(&mut self) -> Result<(), Failure> {
        let next = match &mut self.names {
            Some(names) => names.next().await,
            None => Ok(None),
        };
        match next {
            Ok(next) => {
                self.peeked = next;
                Ok(())
            }
            Err(error) => {
                *self = Self { is_broken: true, ..Self::nothing() };
                Err(error.into())
            }
        }
    }
}
