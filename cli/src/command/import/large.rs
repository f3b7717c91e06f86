//! A large file goes in over many commits, so that neither memory nor what a kill costs grows with it.
//!
//! It is written under a name of its own beside its place, and takes its place when it is whole. A first attempt that
//! was interrupted is kept until a later one is done: what it stored is found by its identity and not stored again.

use std::path::Path;

use strongroom::fs::{File, FileSystem, Kind, OpenOptions};

use super::batch::{self, Stopped};
use crate::context::Context;
use crate::exit::Failure;
use crate::local::source::SourceFile;
use crate::progress::Progress;
use crate::transfer::{self, Sink};
use crate::walk::join;

/// Files of this size and more go this way.
pub(super) const BYTES_MIN: u64 = 256 << 20;
/// Committed each time so many bytes are written.
const COMMIT_BYTES: u64 = 64 << 20;
/// So much of a name is kept in the names of unfinished files, to leave room for what they add.
const NAME_BYTES_MAX: usize = 200;

/// Stores it; answers its length.
pub(super) async fn store(
    fs: &FileSystem,
    path: &[u8],
    local: &Path,
    buffer: &mut [u8],
    context: &Context,
    progress: &Progress,
) -> Result<u64, Stopped> {
    let source = SourceFile::open(local).map_err(batch::unreadable)?;
    let [one, other] = unfinished_names(path);
    let (draft, earlier) = match (length(fs, &one).await?, length(fs, &other).await?) {
        (Some(a), Some(b)) if a < b => (&one, &other),
        (Some(_), _) => (&other, &one),
        (None, _) => (&one, &other),
    };
    let options = OpenOptions::new().read(false).write(true).create(true).truncate(true);
    let file = fs.open_file(draft, options).await?;
    let mut sink = Pieces { file, offset: 0, unflushed: 0, context };
    transfer::store(&source, &mut sink, buffer, |bytes| progress.add(bytes)).await?;
    let length = sink.offset;
    sink.file.close().await?;
    batch::tell_if_changed(&source, local, context, progress);
    let change = batch::change(&transfer::to_repository(&source.attributes));
    let mut transaction = fs.begin();
    if batch::kind(&transaction, path).await? == Some(Kind::Directory) {
        return Err(Stopped::LeftOut("a folder of that name is in the repository".to_owned()));
    }
    transaction.set_attributes(draft, change).await?;
    transaction.rename(draft, path).await?;
    if batch::kind(&transaction, earlier).await? == Some(Kind::File) {
        transaction.remove_file(earlier).await?;
    }
    transaction.commit().await?;
    Ok(length)
}

/// The names of two attempts, beside the place of the file.
fn unfinished_names(path: &[u8]) -> [Vec<u8>; 2] {
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (folder, name) = path.split_at_checked(at).unwrap_or((&[], path));
    let name = name.get(..NAME_BYTES_MAX).unwrap_or(name);
    [&b".0.unfinished"[..], b".1.unfinished"].map(|end| join(folder, &[b".", name, end].concat()))
}

async fn length(fs: &FileSystem, path: &[u8]) -> Result<Option<u64>, Stopped> {
    match fs.symlink_metadata(path).await {
        Ok(metadata) => Ok(Some(metadata.size)),
        Err(strongroom::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

struct Pieces<'a> {
    file: File,
    offset: u64,
    unflushed: u64,
    context: &'a Context,
}

impl Pieces<'_> {
    async fn advance(&mut self, bytes: u64) -> Result<(), Failure> {
        self.offset += bytes;
        self.unflushed += bytes;
        if self.unflushed >= COMMIT_BYTES {
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
    fn unfinished_files_lie_beside_their_place_and_have_names_that_fit() {
        let [one, other] = unfinished_names(b"/a/big.iso");
        assert_eq!(
            (one.as_slice(), other.as_slice()),
            (&b"/a/.big.iso.0.unfinished"[..], &b"/a/.big.iso.1.unfinished"[..])
        );
        assert_eq!(unfinished_names(b"big")[0], b".big.0.unfinished");
        let [long, _] = unfinished_names(&[b'n'; 255]);
        assert!(long.len() <= 255);
    }
}
