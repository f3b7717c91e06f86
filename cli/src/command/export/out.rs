//! Where an export goes: a folder of this machine, or only a look at it; a tar stream; or nowhere at all.

use strongroom::fs::{File, Metadata};

use super::tar::Tar;
use crate::exit::Failure;
use crate::local::Attributes;
use crate::local::destination::Folder;
use crate::local::source::Identity;
use crate::local::way::Way;
use crate::local::xattrs::Xattrs;
use crate::output::Output;
use crate::transfer::{self, Fetch, Lost, local_failed};

/// Where it goes, and how deep inside of it we are.
pub(super) struct Out {
    place: Place,
    /// The folders that lead to where we are.
    names: Vec<Vec<u8>>,
    /// Extended attributes that this machine did not take.
    xattrs_unset: u64,
}

enum Place {
    Nowhere,
    /// The folder that the user named, and those that are open below it.
    Folders {
        top: Folder,
        open: Vec<Open>,
    },
    /// The same, where it is only to be shown what would be written.
    Way {
        top: Way,
        open: Vec<Way>,
    },
    Tar(Tar),
}

/// A folder that is written into, and what it gets when that is done: until then only its owner can look into it.
struct Open {
    folder: Folder,
    attributes: Attributes,
    xattrs: Xattrs,
}

/// The folder that is written into now.
fn innermost<'a>(top: &'a Folder, open: &'a [Open]) -> &'a Folder {
    open.last().map_or(top, |open| &open.folder)
}

impl Out {
    /// Only shows what would be in a stream.
    pub(super) fn nowhere() -> Self {
        Self { place: Place::Nowhere, names: Vec::new(), xattrs_unset: 0 }
    }

    pub(super) fn folder(top: Folder) -> Self {
        Self { place: Place::Folders { top, open: Vec::new() }, names: Vec::new(), xattrs_unset: 0 }
    }

    /// Only shows what would be written to a folder.
    pub(super) fn way(top: Way) -> Self {
        Self { place: Place::Way { top, open: Vec::new() }, names: Vec::new(), xattrs_unset: 0 }
    }

    pub(super) fn tar() -> Self {
        Self { place: Place::Tar(Tar::new()), names: Vec::new(), xattrs_unset: 0 }
    }

    /// Whether nothing can follow what was begun: half a file of a stream.
    pub(super) fn is_cut_off(&self) -> bool {
        matches!(&self.place, Place::Tar(tar) if tar.is_within_a_file())
    }

    /// Whether nobody takes what would follow.
    pub(super) fn is_refused(&self) -> bool {
        matches!(&self.place, Place::Tar(tar) if tar.is_refused())
    }

    /// How many extended attributes did not arrive as they are.
    pub(super) fn xattrs_left_out(&self) -> u64 {
        match &self.place {
            Place::Tar(tar) => tar.xattrs_unnamed(),
            Place::Nowhere | Place::Folders { .. } | Place::Way { .. } => self.xattrs_unset,
        }
    }

    /// What is to be said of them.
    pub(super) fn xattrs_notice(&self) -> Option<String> {
        let what = match &self.place {
            Place::Tar(_) => "were left out: a tar stream has no place for names with `=` or that are no text",
            Place::Nowhere | Place::Folders { .. } | Place::Way { .. } => {
                "could not be set: the folder or this user has no such"
            }
        };
        let count = self.xattrs_left_out();
        (count > 0).then(|| format!("{count} extended attributes {what}"))
    }

    /// Where something of that name goes, from where the export goes to.
    pub(super) fn path(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.names.join(&b'/');
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    pub(super) fn enter(
        &mut self,
        name: &[u8],
        metadata: &Metadata,
        xattrs: &Xattrs,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let path = self.path(name);
        match &mut self.place {
            Place::Nowhere => {}
            Place::Folders { top, open } => {
                let folder = innermost(top, open).enter(name).map_err(local_failed)?;
                open.push(Open { folder, attributes: transfer::to_local(metadata), xattrs: xattrs.clone() });
            }
            Place::Way { top, open } => {
                let inner = open.last().unwrap_or(top).enter(name).map_err(local_failed)?;
                open.push(inner);
            }
            Place::Tar(tar) => tar.folder(&path, metadata, xattrs, output)?,
        }
        self.names.push(name.to_vec());
        Ok(())
    }

    pub(super) fn leave(&mut self, metadata: &Metadata, xattrs: &Xattrs) -> Result<(), Failure> {
        self.names.pop();
        match &mut self.place {
            Place::Folders { open, .. } => {
                if let Some(Open { folder, .. }) = open.pop() {
                    self.xattrs_unset += folder.finish(&transfer::to_local(metadata), xattrs).map_err(local_failed)?;
                }
            }
            Place::Way { open, .. } => {
                open.pop();
            }
            Place::Nowhere | Place::Tar(_) => {}
        }
        Ok(())
    }

    /// Gives the folders that are still open what they get, though not all that is to be in them is: for an export that
    /// ends early. Answers those of which that failed, and why.
    pub(super) fn abandon(&mut self) -> Vec<(Vec<u8>, Failure)> {
        let mut failed = Vec::new();
        while let Place::Folders { open, .. } = &mut self.place
            && let Some(Open { folder, attributes, xattrs }) = open.pop()
        {
            match folder.finish(&attributes, &xattrs) {
                Ok(unset) => self.xattrs_unset += unset,
                Err(error) => failed.push((self.names.join(&b'/'), local_failed(error))),
            }
            self.names.pop();
        }
        failed
    }

    /// Writes a link; answers which it is here.
    pub(super) fn symlink(
        &mut self,
        name: &[u8],
        target: &[u8],
        (metadata, xattrs): (&Metadata, &Xattrs),
        output: &mut Output,
    ) -> Result<Option<Identity>, Failure> {
        let path = self.path(name);
        match &mut self.place {
            Place::Nowhere => Ok(None),
            Place::Folders { top, open } => {
                let (identity, unset) = innermost(top, open)
                    .symlink(name, target, &transfer::to_local(metadata), xattrs)
                    .map_err(local_failed)?;
                self.xattrs_unset += unset;
                Ok(Some(identity))
            }
            Place::Way { top, open } => {
                open.last().unwrap_or(top).refuse(name).map_err(local_failed)?;
                Ok(None)
            }
            Place::Tar(tar) => tar.symlink(&path, target, (metadata, xattrs), output).map(|()| None),
        }
    }

    /// Gives a file or link that was written one more name; answers whether that could be done.
    pub(super) fn link(
        &mut self,
        name: &[u8],
        first: &[u8],
        identity: Option<Identity>,
        metadata: &Metadata,
        output: &mut Output,
    ) -> Result<bool, Failure> {
        let path = self.path(name);
        match &mut self.place {
            Place::Nowhere => Ok(true),
            Place::Folders { top, open } => {
                let first: Vec<Vec<u8>> = first.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
                let folder = innermost(top, open);
                // Some file systems have no links, or not so many; and what we wrote may be gone by now.
                Ok(identity.is_some_and(|identity| folder.link(name, top, &first, identity).is_ok()))
            }
            Place::Way { top, open } => Ok(open.last().unwrap_or(top).refuse(name).is_ok()),
            Place::Tar(tar) => tar.link(&path, first, metadata, output).map(|()| true),
        }
    }

    /// Writes a file; answers what of it is lost, and which file it is here.
    pub(super) async fn file(
        &mut self,
        name: &[u8],
        file: &File,
        (metadata, xattrs): (&Metadata, &Xattrs),
        fetch: &mut Fetch<'_>,
        output: &mut Output,
        progress: impl FnMut(u64),
    ) -> Result<(Vec<Lost>, Option<Identity>), Failure> {
        let path = self.path(name);
        match &mut self.place {
            Place::Nowhere => Ok((Vec::new(), None)),
            Place::Folders { top, open } => {
                let mut draft = innermost(top, open).create(name).map_err(local_failed)?;
                let lost = fetch.file(file, metadata.size, &mut draft, progress).await?;
                let (identity, unset) = draft.finish(&transfer::to_local(metadata), xattrs).map_err(local_failed)?;
                self.xattrs_unset += unset;
                Ok((lost, Some(identity)))
            }
            Place::Way { top, open } => {
                open.last().unwrap_or(top).refuse(name).map_err(local_failed)?;
                Ok((Vec::new(), None))
            }
            Place::Tar(tar) => {
                let mut member = tar.file(&path, metadata, xattrs, output)?;
                let lost = fetch.file(file, metadata.size, &mut member, progress).await?;
                member.finish()?;
                Ok((lost, None))
            }
        }
    }

    /// What follows the last entry.
    pub(super) fn finish(&mut self, output: &mut Output) -> Result<(), Failure> {
        match &mut self.place {
            Place::Tar(tar) => tar.finish(output),
            Place::Nowhere | Place::Folders { .. } | Place::Way { .. } => Ok(()),
        }
    }
}
