//! A large file goes in over many commits, so that neither memory nor what a kill costs grows with it.
//!
//! It is written under a name of its own beside its place, and takes its place when it is whole. That name tells the state
//! of the source: where an import was stopped, the next goes on from what was committed, as long as the source is the
//! same. Attempts at an earlier state are kept until it is done: what they stored is found and not stored again.

use std::path::Path;

use strongroom::core;
use strongroom::fs::{AttributeChange, File, FileSystem, Kind, OpenOptions, Settings};

use super::batch::{self, Stopped, Stored};
use crate::context::Context;
use crate::exit::Failure;
use crate::local::source::SourceFile;
use crate::output::shown;
use crate::progress::Progress;
use crate::transfer::{self, Sink};
use crate::walk::join;

/// Files that take so many commits go this way.
pub(super) const COMMITS_MIN: u64 = 2;
/// So much of a name is kept in the names of unfinished files, to leave room for what they add.
const NAME_BYTES_MAX: usize = 170;
const END: &[u8] = b".unfinished";

/// Stores it. `apart`: it is not to go into the file that is there, which other names lead to as well.
#[expect(clippy::too_many_arguments, reason = "each is of another kind, and there is one caller")]
pub(super) async fn store(
    fs: &FileSystem,
    path: &[u8],
    local: &Path,
    apart: bool,
    buffer: &mut [u8],
    commit_bytes: u64,
    context: &Context,
    progress: &Progress,
) -> Result<Stored, Stopped> {
    let source = SourceFile::open(local, context.own()).map_err(batch::unreadable)?;
    let draft = Draft::of(path, &source.state);
    // It is kept as the file is that it becomes; but what it is on the way is no version of anything.
    let settings = match fs.symlink_metadata(path).await {
        Ok(there) if there.kind == Kind::File => fs.settings(path).await?,
        Ok(_) | Err(strongroom::Error::NotFound { .. } | strongroom::Error::NotADirectory { .. }) => {
            Settings::default()
        }
        Err(error) => return Err(error.into()),
    };
    let mut options = OpenOptions::new().read(false).write(true).create(true).mode(0o600).versions(0);
    if let Some(dedup) = settings.dedup {
        options = options.dedup(dedup);
    }
    if let Some(compression) = settings.compression {
        options = options.compression(compression);
    }
    let file = fs.open_file(&draft.path, options).await?;
    let start = file.len().await?;
    progress.add(start);
    let mut sink = Pieces { file, offset: start, commit_bytes, unflushed: 0, context };
    transfer::store(&source, start, &mut sink, buffer, |bytes| progress.add(bytes)).await?;
    let stored = Stored { bytes: sink.offset, torn: source.has_changed().unwrap_or(true) };
    sink.file.close().await?;
    let change = batch::change(&transfer::to_repository(&source.attributes));
    let keeps_versions = settings.versions.unwrap_or(fs.options().versions) > 0;
    let within = keeps_versions && !apart;
    if !put_in_place(fs, &draft, path, within, settings.versions, change).await? {
        let text = format!("{}: is too large to keep its older versions: they are given up", shown(path));
        progress.aside(|| context.output.notice(&text));
        put_in_place(fs, &draft, path, false, settings.versions, change).await?;
    }
    Ok(stored)
}

/// Gives a draft its place. `within`: what the file there was becomes a version of it. That takes some rows for each stretch
/// of the two, in one commit and in memory, so otherwise a name changes. Answers false where no commit holds so much.
async fn put_in_place(
    fs: &FileSystem,
    draft: &Draft,
    path: &[u8],
    within: bool,
    versions: Option<u32>,
    change: AttributeChange,
) -> Result<bool, Stopped> {
    let mut transaction = fs.begin();
    match batch::kind(&transaction, path).await? {
        Some(Kind::Directory) => {
            return Err(Stopped::LeftOut("a folder of that name is in the repository".to_owned()));
        }
        // Others may have given it another name meanwhile, which is not to change.
        Some(Kind::File) if within && transaction.symlink_metadata(path).await?.nlink == 1 => {
            transaction.copy(&draft.path, path).await?;
            transaction.set_attributes(path, change).await?;
            transaction.remove_file(&draft.path).await?;
        }
        _ => {
            transaction.set_attributes(&draft.path, change).await?;
            transaction.set_version_limit(&draft.path, versions).await?;
            transaction.rename(&draft.path, path).await?;
        }
    }
    for earlier in draft.earlier(fs).await? {
        if batch::kind(&transaction, &earlier).await? == Some(Kind::File) {
            transaction.remove_file(&earlier).await?;
        }
    }
    match transaction.commit().await {
        Ok(_) => Ok(true),
        Err(strongroom::Error::Core(core::Error::LimitExceeded { .. })) if within => Ok(false),
        Err(error @ strongroom::Error::Core(core::Error::LimitExceeded { .. })) => {
            Err(Stopped::LeftOut(format!("cannot take the place of what is there: {error}: remove that first")))
        }
        Err(error) => Err(error.into()),
    }
}

/// An unfinished file, beside its place.
struct Draft {
    folder: Vec<u8>,
    /// What the names of all attempts at this file begin with.
    begin: Vec<u8>,
    path: Vec<u8>,
}

impl Draft {
    fn of(path: &[u8], state: &str) -> Self {
        let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (folder, name) = path.split_at_checked(at).unwrap_or((&[], path));
        let begin = [b".", name.get(..NAME_BYTES_MAX).unwrap_or(name), b"."].concat();
        let name = [&begin, state.as_bytes(), END].concat();
        Self { folder: folder.to_vec(), path: join(folder, &name), begin }
    }

    /// Attempts at other states of the same file.
    async fn earlier(&self, fs: &FileSystem) -> Result<Vec<Vec<u8>>, Stopped> {
        let folder = if self.folder.is_empty() { b"." } else { self.folder.as_slice() };
        let mut names = fs.open_dir(folder).await?;
        let mut earlier = Vec::new();
        while let Some(entry) = names.next().await? {
            if self.is_attempt(&entry.name) {
                let path = join(&self.folder, &entry.name);
                earlier.extend((path != self.path).then_some(path));
            } else if entry.name > self.begin && !entry.name.starts_with(&self.begin) {
                break;
            }
        }
        Ok(earlier)
    }

    fn is_attempt(&self, name: &[u8]) -> bool {
        let state = name.strip_prefix(self.begin.as_slice()).and_then(|rest| rest.strip_suffix(END));
        state.is_some_and(|state| {
            let fields = state.split(|byte| *byte == b'-');
            let hexadecimal = |field: &[u8]| !field.is_empty() && field.iter().all(u8::is_ascii_hexdigit);
            fields.clone().count() == SourceFile::STATE_FIELDS && fields.into_iter().all(hexadecimal)
        })
    }
}

struct Pieces<'a> {
    file: File,
    offset: u64,
    commit_bytes: u64,
    unflushed: u64,
    context: &'a Context,
}

impl Pieces<'_> {
    async fn advance(&mut self, bytes: u64) -> Result<(), Failure> {
        self.offset += bytes;
        self.unflushed += bytes;
        if self.unflushed >= self.commit_bytes {
            self.file.flush().await?;
            self.unflushed = 0;
            if self.context.interrupt.asked() {
                return Err(Failure::failed("interrupted: what was stored so far is kept; run it again for the rest"));
            }
        }
        Ok(())
    }
}

impl Sink for Pieces<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_at(self.offset, bytes).await?;
        self.advance(u64::try_from(bytes.len()).unwrap_or(u64::MAX)).await
    }

    async fn hole(&mut self, length: u64) -> Result<(), Failure> {
        if length == 0 {
            return Ok(());
        }
        self.file.set_len(self.offset + length).await?;
        self.offset += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_files_lie_beside_their_place_and_have_names_that_fit_and_tell_the_state() {
        let draft = Draft::of(b"/a/big.iso", "10-20-30-40");
        assert_eq!(draft.path, b"/a/.big.iso.10-20-30-40.unfinished");
        assert_eq!(Draft::of(b"big", "1-2-3-4").path, b".big.1-2-3-4.unfinished");
        let longest = [&[b'n'; 255][..], &[b'f'; 67]];
        let long = Draft::of(longest[0], std::str::from_utf8(longest[1]).unwrap());
        assert!(long.path.len() <= 255);
        assert!(draft.is_attempt(b".big.iso.10-20-30-41.unfinished"));
        for other in ["big.iso", ".big.iso.unfinished", ".big.iso.1-2-3.unfinished", ".big.iso.1-2-3-x.unfinished"] {
            assert!(!draft.is_attempt(other.as_bytes()), "{other}");
        }
    }
}
