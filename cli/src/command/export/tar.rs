//! A tar stream, written to stdout as it comes: ustar headers, and pax records for all that does not fit into them.

use strongroom::fs::{Metadata, Timestamp};
use tar::{Builder, EntryType, Header};

use crate::exit::Failure;
use crate::local::MODE_BITS;
use crate::local::xattrs::Xattrs;
use crate::output::Output;
use crate::transfer;

/// Members begin at multiples of this.
const RECORD_BYTES: u64 = 512;
/// The longest path and target that a header holds.
const HEADER_PATH_BYTES_MAX: usize = 100;
/// The largest size that a header holds: eleven octal digits.
const HEADER_SIZE_MAX: u64 = (1 << 33) - 1;
/// The largest owner or group that a header holds: seven octal digits.
const HEADER_OWNER_MAX: u32 = (1 << 21) - 1;
/// What the tars of Linux and BSD begin the records of extended attributes with.
const XATTR_PREFIX: &str = "SCHILY.xattr.";
const ZEROS: [u8; 4096] = [0; 4096];

/// Makes headers; content goes past it.
pub(super) struct Tar {
    builder: Builder<Vec<u8>>,
    within_a_file: bool,
    /// The reader takes no more.
    refused: bool,
    /// Extended attributes that no record can name.
    xattrs_unnamed: u64,
}

impl Tar {
    pub(super) fn new() -> Self {
        Self { builder: Builder::new(Vec::new()), within_a_file: false, refused: false, xattrs_unnamed: 0 }
    }

    /// Whether a file was begun and has not come to its end.
    pub(super) fn is_within_a_file(&self) -> bool {
        self.within_a_file
    }

    /// Whether the reader takes no more.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// How many extended attributes were left out, as no record can name them.
    pub(super) fn xattrs_unnamed(&self) -> u64 {
        self.xattrs_unnamed
    }

    fn give(&mut self, bytes: &[u8], output: &mut Output) -> Result<(), Failure> {
        let given = output.bytes(bytes);
        self.refused |= given.is_err();
        given
    }

    pub(super) fn folder(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        xattrs: &Xattrs,
        output: &mut Output,
    ) -> Result<(), Failure> {
        self.header(&[path, b"/"].concat(), (EntryType::Directory, 0), None, (metadata, xattrs), output)
    }

    pub(super) fn symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        of: (&Metadata, &Xattrs),
        output: &mut Output,
    ) -> Result<(), Failure> {
        self.header(path, (EntryType::Symlink, 0), Some(target), of, output)
    }

    /// One more name for a member that came before.
    pub(super) fn link(
        &mut self,
        path: &[u8],
        first: &[u8],
        metadata: &Metadata,
        output: &mut Output,
    ) -> Result<(), Failure> {
        self.header(path, (EntryType::Link, 0), Some(first), (metadata, &Xattrs::new()), output)
    }

    /// Begins a file, whose whole content must follow.
    pub(super) fn file<'a>(
        &'a mut self,
        path: &[u8],
        metadata: &Metadata,
        xattrs: &Xattrs,
        output: &'a mut Output,
    ) -> Result<Member<'a>, Failure> {
        self.header(path, (EntryType::Regular, metadata.size), None, (metadata, xattrs), output)?;
        self.within_a_file = true;
        Ok(Member { tar: self, output, written: 0 })
    }

    /// What marks the end of a stream.
    pub(super) fn finish(&mut self, output: &mut Output) -> Result<(), Failure> {
        self.builder.finish().map_err(refused)?;
        let bytes = std::mem::take(self.builder.get_mut());
        self.give(&bytes, output)
    }

    fn header(
        &mut self,
        path: &[u8],
        (kind, size): (EntryType, u64),
        target: Option<&[u8]>,
        (metadata, xattrs): (&Metadata, &Xattrs),
        output: &mut Output,
    ) -> Result<(), Failure> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(metadata.mode & MODE_BITS);
        header.set_uid(metadata.uid.into());
        header.set_gid(metadata.gid.into());
        header.set_mtime(u64::try_from(metadata.mtime.seconds).unwrap_or(0));
        let mut records: Vec<(&str, Vec<u8>)> = Vec::new();
        let mut keys = Vec::new();
        if let Some(fields) = header.as_ustar_mut() {
            for (field, bytes, name) in
                [(&mut fields.name, path, "path"), (&mut fields.linkname, target.unwrap_or_default(), "linkpath")]
            {
                let kept = bytes.get(..HEADER_PATH_BYTES_MAX).unwrap_or(bytes);
                field.iter_mut().zip(kept).for_each(|(to, from)| *to = *from);
                if kept.len() < bytes.len() {
                    records.push((name, bytes.to_vec()));
                }
            }
        }
        if metadata.mtime.nanos > 0 || metadata.mtime.seconds < 0 {
            records.push(("mtime", time(metadata.mtime).into_bytes()));
        }
        if size > HEADER_SIZE_MAX {
            records.push(("size", size.to_string().into_bytes()));
        }
        for (name, id) in [("uid", metadata.uid), ("gid", metadata.gid)] {
            if id > HEADER_OWNER_MAX {
                records.push((name, id.to_string().into_bytes()));
            }
        }
        header.set_cksum();
        for (name, value) in xattrs {
            // A key of a record is text without an equals sign.
            match std::str::from_utf8(name).ok().filter(|name| !name.contains('=')) {
                Some(name) => keys.push((format!("{XATTR_PREFIX}{name}"), value)),
                None => self.xattrs_unnamed += 1,
            }
        }
        let records = records.iter().map(|(name, value)| (*name, value.as_slice()));
        let records = records.chain(keys.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
        self.builder.append_pax_extensions(records).map_err(refused)?;
        // The content is written past the builder, which knows nothing of it.
        self.builder.append(&header, std::io::empty()).map_err(refused)?;
        let bytes = std::mem::take(self.builder.get_mut());
        self.give(&bytes, output)
    }
}

/// Decimal seconds, exact, before the epoch too.
fn time(time: Timestamp) -> String {
    let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    format!("{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

fn refused(error: std::io::Error) -> Failure {
    Failure::failed(format!("cannot be put into a tar stream: {error}"))
}

/// The content of a file on its way.
pub(super) struct Member<'a> {
    tar: &'a mut Tar,
    output: &'a mut Output,
    written: u64,
}

impl Member<'_> {
    /// The content was written in full.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let padding = self.written.next_multiple_of(RECORD_BYTES) - self.written;
        transfer::Place::skip(&mut self, padding)?;
        self.tar.within_a_file = false;
        Ok(())
    }
}

impl transfer::Place for Member<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.written += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.tar.give(bytes, self.output)
    }

    fn skip(&mut self, mut length: u64) -> Result<(), Failure> {
        while length > 0 {
            let piece = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write(ZEROS.get(..piece).unwrap_or_default())?;
            length -= u64::try_from(piece).unwrap_or(length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_are_exact() {
        for (seconds, nanos, text) in
            [(0, 0, "0.000000000"), (12, 5, "12.000000005"), (-2, 500_000_000, "-1.500000000"), (-1, 0, "-1.000000000")]
        {
            assert_eq!(time(Timestamp::new(seconds, nanos).unwrap()), text);
        }
    }
}
