//! The bytes of a log: its first page, and frames. All numbers are little-endian.
//!
//! ```text
//! page     0  magic (8) · version (4) · 1 while it is being made anew (1)
//!          512, 1024  mark (8) · the first 16 bytes of its BLAKE3
//! frame    length of the changes (8) · BLAKE3 of place, length and changes (32) · changes
//! change   1 · name (16) · length (4) · bytes, or 0 · name (16)
//! ```
//!
//! The place of a frame is in its checksum, so that none is taken for whole that was written for another place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use strongroom_core::storage::{Change, Name};

/// No blob is longer.
pub(crate) const BLOB_BYTES_MAX: u32 = 4 << 20;
/// Where frames begin.
pub(crate) const PAGE_BYTES: u64 = 4096;
const MAGIC: &[u8; 8] = b"ownlog\r\n";
const VERSION: u32 = 1;
const MAKING_AT: usize = 12;
/// In sectors of their own, of which a crash tears one at most.
const MARKS_AT: [usize; 2] = [512, 1024];
const MARK_BYTES: usize = 24;

const HEAD_BYTES: usize = 40;
const DELETED: u8 = 0;
const PUT: u8 = 1;

/// What is left to say of a first page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// Of a log that was durable up to `mark` at least; the next mark goes to the other sector. While it is `in_the_making` it is
    /// nothing by itself: what it has, another log has.
    Ours { mark: u64, next: usize, in_the_making: bool },
    /// Of one that was never finished.
    Unfinished,
    /// Of another version.
    Version(u32),
    /// Of a log, and damaged.
    Damaged,
    /// Of something else.
    Foreign,
}

/// The page of a log without frames.
pub(crate) fn first_page(in_the_making: bool) -> Vec<u8> {
    let mut page = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &[in_the_making.into()]].concat();
    page.resize(MARKS_AT[0], 0);
    page.extend(mark(PAGE_BYTES));
    page.resize(PAGE_BYTES as usize, 0);
    page
}

fn mark(durable: u64) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    let (number, check) = bytes.split_at_mut(8);
    number.copy_from_slice(&durable.to_le_bytes());
    for (to, from) in check.iter_mut().zip(blake3::hash(number).as_bytes()) {
        *to = *from;
    }
    bytes
}

pub(crate) fn read_page(file: &File) -> io::Result<Page> {
    let length = file.metadata()?.len();
    let mut page = vec![0; length.min(PAGE_BYTES) as usize];
    file.read_exact_at(&mut page, 0)?;
    let marks = MARKS_AT.map(|at| {
        let found = page.get(at..at + MARK_BYTES)?;
        let number = found.first_chunk().copied().map(u64::from_le_bytes)?;
        (found == mark(number) && number >= PAGE_BYTES).then_some(number)
    });
    let is_ours = page.starts_with(MAGIC);
    let version = page.get(MAGIC.len()..).and_then(|rest| rest.first_chunk().copied()).map(u32::from_le_bytes);
    Ok(match (is_ours, version, marks) {
        (true, Some(VERSION), [one, other]) if one.max(other).is_some() => {
            let in_the_making = page.get(MAKING_AT) == Some(&1);
            Page::Ours { mark: one.max(other).unwrap_or(PAGE_BYTES), next: usize::from(one > other), in_the_making }
        }
        // What of it reached the medium before a crash, and zeros.
        _ if length <= PAGE_BYTES
            && first_page(true).iter().zip(&page).all(|(new, found)| [*new, 0].contains(found)) =>
        {
            Page::Unfinished
        }
        (true, Some(version), _) if version != VERSION => Page::Version(version),
        (true, ..) => Page::Damaged,
        (false, ..) => Page::Foreign,
    })
}

/// Says that the log is durable up to here, in that sector; answers the next one.
pub(crate) fn write_mark(file: &File, durable: u64, sector: usize) -> io::Result<usize> {
    let [first, second] = MARKS_AT;
    let at = if sector == 0 { first } else { second };
    file.write_all_at(&mark(durable), at as u64)?;
    Ok(1 - sector.min(1))
}

/// Says that it is a log by itself.
pub(crate) fn end_the_making(file: &File) -> io::Result<()> {
    file.write_all_at(&[0], MAKING_AT as u64)?;
    // Before anything is promised about it: a log that says that it is in the making may be removed.
    file.sync_data()
}

/// Where the bytes of a blob lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) at: u64,
    pub(crate) bytes: u32,
}

impl Extent {
    /// What the log needs for it, in a frame of its own.
    pub(crate) fn frame_bytes(&self) -> u64 {
        (HEAD_BYTES + 1 + Name::BYTES + 4) as u64 + u64::from(self.bytes)
    }
}

/// Which name lies where.
pub(crate) type Index = BTreeMap<Name, Extent>;

/// A frame of these changes at that place.
pub(crate) fn frame<'c>(place: u64, changes: impl IntoIterator<Item = &'c Change>) -> Vec<u8> {
    let mut frame = vec![0; HEAD_BYTES];
    for change in changes {
        match change {
            Change::Put(name, bytes) => {
                frame.push(PUT);
                frame.extend_from_slice(name.as_bytes());
                // Blobs are at most 4 MiB long.
                frame.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                frame.extend_from_slice(bytes);
            }
            Change::Delete(name) => {
                frame.push(DELETED);
                frame.extend_from_slice(name.as_bytes());
            }
        }
    }
    let (head, changes) = frame.split_at_mut(HEAD_BYTES);
    let length = changes.len() as u64;
    let (number, check) = head.split_at_mut(8);
    number.copy_from_slice(&length.to_le_bytes());
    check.copy_from_slice(begun(place, length).update(changes).finalize().as_bytes());
    frame
}

/// The checksum of a frame, before its changes.
fn begun(place: u64, length: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&place.to_le_bytes()).update(&length.to_le_bytes());
    hasher
}

/// Notes what the whole frame at `at` changes, and answers where the next one begins; `None` where there is no whole one before `end`.
pub(crate) fn read_frame(file: &File, at: u64, end: u64, index: &mut Index) -> io::Result<Option<u64>> {
    let start = at + HEAD_BYTES as u64;
    if start > end {
        return Ok(None);
    }
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(&mut head, at)?;
    let (number, check) = head.split_at(8);
    let length = number.first_chunk().copied().map(u64::from_le_bytes).unwrap_or_default();
    if length > end - start {
        return Ok(None);
    }
    let mut hasher = begun(at, length);
    let mut buffer = vec![0; 64 << 10];
    let mut left = length;
    while left > 0 {
        let part = buffer.get_mut(..left.min(64 << 10) as usize).unwrap_or_default();
        file.read_exact_at(part, start + length - left)?;
        hasher.update(part);
        left -= part.len() as u64;
    }
    if hasher.finalize().as_bytes() != check {
        return Ok(None);
    }
    replay(file, start, start + length, index)?;
    Ok(Some(start + length))
}

/// Notes the changes that lie between `at` and `end`.
fn replay(file: &File, mut at: u64, end: u64, index: &mut Index) -> io::Result<()> {
    while at < end {
        let mut change = [0; 1 + Name::BYTES];
        file.read_exact_at(&mut change, at)?;
        at += change.len() as u64;
        let [kind, name @ ..] = change;
        match kind {
            DELETED => {
                index.remove(&Name::new(name));
            }
            PUT => {
                let mut length = [0; 4];
                file.read_exact_at(&mut length, at)?;
                let extent = Extent { at: at + 4, bytes: u32::from_le_bytes(length) };
                if extent.bytes > BLOB_BYTES_MAX {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                at = extent.at + u64::from(extent.bytes);
                index.insert(Name::new(name), extent);
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    if at == end { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Notes the changes of a frame that was written to that place.
pub(crate) fn note<'c>(place: u64, changes: impl IntoIterator<Item = &'c Change>, index: &mut Index) {
    let mut at = place + HEAD_BYTES as u64;
    for change in changes {
        at += (1 + Name::BYTES) as u64;
        match change {
            Change::Put(name, bytes) => {
                index.insert(*name, Extent { at: at + 4, bytes: bytes.len() as u32 });
                at += 4 + bytes.len() as u64;
            }
            Change::Delete(name) => {
                index.remove(name);
            }
        }
    }
}
