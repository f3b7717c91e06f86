//! Content and attributes on their way between this machine and the repository.

use std::io;
use std::os::unix::fs::FileExt as _;

use strongroom::fs::{
    Attributes as FsAttributes, Comparand, File, FileWriter, Follow, FsSnapshot, Metadata, Timestamp,
};

use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::local::source::SourceFile;
use crate::local::xattrs::{UNFINISHED, Xattrs};
use crate::local::{Attributes, MODE_BITS};

/// Read at once.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// Read at once around damage: what is not wholly intact is lost in pieces of this size.
const RESCUE_BYTES: usize = 4096;

/// What an entry of the repository gets from this machine.
pub(crate) fn to_repository(attributes: &Attributes) -> FsAttributes {
    FsAttributes {
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: Timestamp::new(attributes.seconds, attributes.nanos),
        atime: None,
    }
}

/// What a file of this machine gets from the repository.
pub(crate) fn to_local(metadata: &Metadata) -> Attributes {
    Attributes {
        mode: metadata.mode & MODE_BITS,
        uid: metadata.uid,
        gid: metadata.gid,
        seconds: metadata.mtime.seconds,
        nanos: metadata.mtime.nanos,
    }
}

/// The extended attributes of something in the repository, a link itself, without what the program notes for itself.
pub(crate) async fn xattrs(snapshot: &FsSnapshot, path: &[u8], metadata: &Metadata) -> Result<Xattrs, Failure> {
    let mut xattrs = Xattrs::new();
    if metadata.has_xattrs {
        for name in snapshot.xattrs(path, Follow::No).await? {
            if name != UNFINISHED
                && let Some(value) = snapshot.xattr(path, &name, Follow::No).await?
            {
                xattrs.push((name, value));
            }
        }
    }
    Ok(xattrs)
}

/// Why content did not get into the repository.
pub(crate) enum Broken {
    /// The file of this machine cannot be read.
    Source(io::Error),
    /// The repository does not take it.
    Repository(Failure),
}

/// Where content goes to in the repository.
pub(crate) trait Sink {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure>;
    async fn hole(&mut self, length: u64) -> Result<(), Failure>;
}

impl Sink for FileWriter<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(FileWriter::write(self, bytes).await?)
    }

    async fn hole(&mut self, length: u64) -> Result<(), Failure> {
        Ok(FileWriter::hole(self, length).await?)
    }
}

/// Stores a file's data and holes from an offset on, as long as it was when it was opened, or shorter where it was cut
/// meanwhile.
pub(crate) async fn store(
    source: &SourceFile,
    from: u64,
    sink: &mut impl Sink,
    buffer: &mut [u8],
    mut progress: impl FnMut(u64),
) -> Result<(), Broken> {
    let mut offset = from;
    while let Some((start, end)) = source.next_data(offset).map_err(Broken::Source)? {
        sink.hole(start - offset).await.map_err(Broken::Repository)?;
        progress(start - offset);
        offset = start;
        while offset < end {
            let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let piece = buffer.get_mut(..wanted).unwrap_or_default();
            let read = source.file.read_at(piece, offset).map_err(Broken::Source)?;
            if read == 0 {
                return Ok(());
            }
            sink.write(piece.get(..read).unwrap_or_default()).await.map_err(Broken::Repository)?;
            let read = u64::try_from(read).unwrap_or(u64::MAX);
            offset = offset.saturating_add(read);
            progress(read);
        }
    }
    let rest = source.size.saturating_sub(offset);
    progress(rest);
    sink.hole(rest).await.map_err(Broken::Repository)
}

/// A file of this machine that the content of one in the repository is compared with.
pub(crate) struct Comparison<'a> {
    pub(crate) source: &'a SourceFile,
    /// Ends the comparison with an error when someone asks to stop.
    pub(crate) interrupt: Option<&'a Interrupt>,
}

impl Comparand for Comparison<'_> {
    fn read_exact_at(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.interrupt.is_some_and(Interrupt::asked) {
            return Err(io::Error::other("interrupted"));
        }
        self.source.file.read_exact_at(out, offset)
    }

    fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>> {
        Ok(self.source.next_data(offset)?.map(|(start, _)| start))
    }
}

/// A stretch of a file that cannot be read.
pub(crate) type Lost = std::ops::Range<u64>;

/// Where content of the repository goes to, in order.
pub(crate) trait Place {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure>;
    /// Zeros.
    fn skip(&mut self, length: u64) -> Result<(), Failure>;
}

impl Place for crate::local::destination::Draft {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Self::write(self, bytes).map_err(local_failed)
    }

    fn skip(&mut self, length: u64) -> Result<(), Failure> {
        Self::skip(self, length);
        Ok(())
    }
}

/// What a file is fetched with.
pub(crate) struct Fetch<'a> {
    pub(crate) buffer: &'a mut [u8],
    pub(crate) interrupt: &'a Interrupt,
    /// Go on behind damage, and leave holes in its place.
    pub(crate) partial: bool,
}

impl Fetch<'_> {
    /// Fetches a whole file; answers what of it is lost.
    pub(crate) async fn file(
        &mut self,
        file: &File,
        size: u64,
        place: &mut impl Place,
        mut progress: impl FnMut(u64),
    ) -> Result<Vec<Lost>, Failure> {
        let mut lost: Vec<Lost> = Vec::new();
        let (mut offset, mut rescue_until) = (0, 0);
        while offset < size {
            self.interrupt.check()?;
            // Where that cannot be told, reading says why.
            let data = match file.seek_data(offset).await {
                Ok(data) => data.unwrap_or(size).min(size),
                Err(_) => offset,
            };
            if data > offset {
                place.skip(data - offset)?;
                progress(data - offset);
                offset = data;
                continue;
            }
            let at_once = if offset < rescue_until { RESCUE_BYTES } else { self.buffer.len() };
            let wanted = usize::try_from(size - offset).unwrap_or(usize::MAX).min(at_once);
            let piece = self.buffer.get_mut(..wanted).unwrap_or_default();
            let length = u64::try_from(wanted).unwrap_or(u64::MAX);
            match file.read_exact_at(offset, piece).await.map_err(Failure::from) {
                Ok(()) => place.write(piece)?,
                Err(failure) if failure.exit() != Exit::Damaged || !self.partial => return Err(failure),
                Err(_) if wanted > RESCUE_BYTES => {
                    rescue_until = offset + length;
                    continue;
                }
                Err(_) => {
                    place.skip(length)?;
                    match lost.last_mut() {
                        Some(last) if last.end == offset => last.end += length,
                        _ => lost.push(offset..offset + length),
                    }
                }
            }
            offset += length;
            progress(length);
        }
        Ok(lost)
    }
}

/// A failure of the file that is written on this machine.
pub(crate) fn local_failed(error: io::Error) -> Failure {
    let failure = Failure::failed(format!("cannot write: {error}"));
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    if is_full { failure.for_want_of_room() } else { failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::own::Own;

    /// Takes what comes; with the first piece it does something to the file that is read.
    struct Meddler<F: FnMut()> {
        bytes: Vec<u8>,
        meddle: F,
    }

    impl<F: FnMut()> Sink for Meddler<F> {
        async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
            self.bytes.extend_from_slice(bytes);
            (self.meddle)();
            Ok(())
        }

        async fn hole(&mut self, length: u64) -> Result<(), Failure> {
            self.bytes.resize(self.bytes.len() + usize::try_from(length).unwrap(), 0);
            Ok(())
        }
    }

    fn stored(meddle: impl FnMut(&std::path::Path)) -> (Vec<u8>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [7; 10_000]).unwrap();
        let source = SourceFile::open(&path, &Own::default()).unwrap();
        let mut meddle = meddle;
        let mut sink = Meddler { bytes: Vec::new(), meddle: || meddle(&path) };
        let done = strongroom::blocking::block_on(store(&source, 0, &mut sink, &mut [0; 4_000], |_| {}));
        assert!(done.is_ok());
        (sink.bytes, source.has_changed().unwrap())
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_ends_where_it_did_or_does_and_is_known_to_have_changed() {
        let open = |path: &std::path::Path| std::fs::File::options().write(true).open(path).unwrap();
        assert_eq!(stored(|_| {}), (vec![7; 10_000], false));
        assert_eq!(stored(|path| open(path).set_len(20_000).unwrap()), (vec![7; 10_000], true));
        assert_eq!(stored(|path| open(path).set_len(5_000).unwrap()), (vec![7; 5_000], true));
        assert_eq!(stored(|path| open(path).set_len(0).unwrap()), (vec![7; 4_000], true));
        // What is open is still there when its name has gone.
        assert_eq!(stored(|path| std::fs::remove_file(path).unwrap_or_default()).0, vec![7; 10_000]);
    }

    #[test]
    fn a_file_that_vanished_or_was_replaced_before_it_is_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &std::path::Path| SourceFile::open(path, &Own::default());
        assert_eq!(open(&folder.path().join("absent")).err().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(open(folder.path()).is_err());
        std::os::unix::fs::symlink("absent", folder.path().join("link")).unwrap();
        assert!(open(&folder.path().join("link")).is_err());
    }
}
