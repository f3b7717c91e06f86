//! A commit: one blob that moves the repository from one state to the next.
//!
//! Record 0 of the blob is the head, of fixed size; record 1 the body. The body is the deltas, or, where they do not fit,
//! the pointers of the spill records that hold them.
//!
//! Head (little-endian):
//!
//! | bytes | field |
//! |---|---|
//! | 8 | sequence |
//! | 32 | hash of the previous commit (zeros for sequence 1) |
//! | 4 | flags: 1 checkpoint, 2 spilled |
//! | 4 | writer epoch under which it was made (0: none) |
//! | 8 | time, ms since 1970 |
//! | 8 + 32 | generation and hash of the header in force |
//! | 8 | floor: the oldest sequence that may still be read |
//! | 8 | oldest: commits below this were deleted |
//! | 8 | sequence of the checkpoint that this commit builds on (itself, if it is one) |
//! | 4 | length of the body |
//! | 39 + 39 | content root, space root: height u8 (0: empty) and pointer; zeros unless a checkpoint |
//!
//! Deltas: `count u32`, then for each, ascending by key: `key length u16 ‖ value length u32 (2^32 - 1: deleted) ‖ key ‖ value`.
//! Spilled body: `depth u8 ‖ total length u32 ‖ count u16 ‖ pointers`: the records' contents one after the other are the
//! deltas (depth 0), or another spilled body of one depth less.

use bytes::Bytes;

use super::rows::read_pointer;
use super::{FormatError, Pointer, Reader, Writer};

const CHECKPOINT: u32 = 1;
const SPILLED: u32 = 2;
const DELETED: u32 = u32::MAX;

/// The most that the deltas of one commit may take, decoded: bounds memory when a commit is read.
pub const DELTA_BYTES_MAX: u32 = 1 << 30;

/// How deep spilled bodies may nest.
pub const SPILL_DEPTH_MAX: u8 = 3;

/// A tree's root as a commit names it.
pub type RootPointer = Option<(u8, Pointer)>;

/// The fixed part of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitHead {
    /// Its number in the chain, from 1.
    pub sequence: u64,
    /// The previous commit's hash.
    pub previous: [u8; 32],
    /// Whether it carries new roots.
    pub checkpoint: bool,
    /// Whether its deltas are in spill records.
    pub spilled: bool,
    /// The writer epoch, 0 for none.
    pub writer_epoch: u32,
    /// Milliseconds since 1970.
    pub time: u64,
    /// Generation of the header in force.
    pub header_generation: u64,
    /// Hash of the header in force.
    pub header_hash: [u8; 32],
    /// The oldest sequence that may still be read.
    pub floor: u64,
    /// Commits below this were deleted.
    pub oldest: u64,
    /// The checkpoint that this builds on.
    pub base: u64,
    /// Length of the body in bytes.
    pub body_bytes: u32,
    /// Root of the content tree, where this is a checkpoint.
    pub content: RootPointer,
    /// Root of the space tree, where this is a checkpoint.
    pub space: RootPointer,
}

impl CommitHead {
    /// Length of every head.
    pub const BYTES: usize = 8 + 32 + 4 + 4 + 8 + 8 + 32 + 8 + 8 + 8 + 4 + 2 * (1 + Pointer::BYTES);

    /// The head's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(256);
        writer.u64(self.sequence);
        writer.bytes(&self.previous);
        writer.u32(if self.checkpoint { CHECKPOINT } else { 0 } | if self.spilled { SPILLED } else { 0 });
        writer.u32(self.writer_epoch);
        writer.u64(self.time);
        writer.u64(self.header_generation);
        writer.bytes(&self.header_hash);
        writer.u64(self.floor);
        writer.u64(self.oldest);
        writer.u64(self.base);
        writer.u32(self.body_bytes);
        for root in [&self.content, &self.space] {
            match root {
                Some((height, pointer)) => writer.u8(*height).bytes(&pointer.encode()),
                None => writer.zeros(1 + Pointer::BYTES),
            };
        }
        writer.into_vec()
    }

    /// Reads a head.
    ///
    /// # Errors
    /// [`FormatError`] for anything that `encode` does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("commit", bytes);
        let sequence = reader.u64()?;
        let previous = reader.array()?;
        let flags = reader.u32()?;
        if flags & !(CHECKPOINT | SPILLED) != 0 {
            return Err(reader.error(format!("flags {flags:#x}")));
        }
        let writer_epoch = reader.u32()?;
        let time = reader.u64()?;
        let header_generation = reader.u64()?;
        let header_hash = reader.array()?;
        let (floor, oldest, base) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let body_bytes = reader.u32()?;
        let mut root = || -> Result<RootPointer, FormatError> {
            let height = reader.u8()?;
            let pointer: [u8; Pointer::BYTES] = reader.array()?;
            if height == 0 {
                return if pointer == [0; Pointer::BYTES] {
                    Ok(None)
                } else {
                    Err(reader.error("pointer of an empty tree"))
                };
            }
            let pointer = Pointer::decode(&pointer).ok_or_else(|| reader.error("root pointer"))?;
            Ok(Some((height, pointer)))
        };
        let (content, space) = (root()?, root()?);
        reader.finish()?;
        let checkpoint = flags & CHECKPOINT != 0;
        if sequence == 0 || floor > sequence || oldest > sequence || base > sequence {
            return Err(FormatError::new("commit", "sequence, floor, oldest and base contradict"));
        }
        if !checkpoint && (content.is_some() || space.is_some()) || checkpoint && base != sequence {
            return Err(FormatError::new("commit", "roots and the checkpoint flag contradict"));
        }
        Ok(Self {
            sequence,
            previous,
            checkpoint,
            spilled: flags & SPILLED != 0,
            writer_epoch,
            time,
            header_generation,
            header_hash,
            floor,
            oldest,
            base,
            body_bytes,
            content,
            space,
        })
    }
}

/// One changed row: its key (table byte first) and its value, `None` for a deleted one.
pub type Delta = (Bytes, Option<Bytes>);

/// The deltas' bytes.
///
/// # Errors
/// [`FormatError`] where a key or the whole is over its limit.
pub fn encode_deltas<'a>(
    deltas: impl ExactSizeIterator<Item = (&'a Bytes, &'a Option<Bytes>)>,
) -> Result<Vec<u8>, FormatError> {
    let too_large = || FormatError::new("deltas", "over the limit of a commit");
    let mut writer = Writer::with_capacity(256);
    writer.u32(u32::try_from(deltas.len()).map_err(|_| too_large())?);
    for (key, value) in deltas {
        writer.bytes(&u16::try_from(key.len()).map_err(|_| too_large())?.to_le_bytes());
        match value {
            Some(value) => {
                writer.u32(u32::try_from(value.len()).ok().filter(|length| *length != DELETED).ok_or_else(too_large)?)
            }
            None => writer.u32(DELETED),
        };
        writer.bytes(key);
        writer.bytes(value.as_deref().unwrap_or_default());
    }
    let bytes = writer.into_vec();
    if bytes.len() > DELTA_BYTES_MAX as usize {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Reads deltas; keys and values are slices of `bytes`.
///
/// # Errors
/// [`FormatError`] for anything that `encode_deltas` does not write, unsorted keys included.
pub fn decode_deltas(bytes: &Bytes) -> Result<Vec<Delta>, FormatError> {
    let mut reader = Reader::new("deltas", bytes);
    let count = reader.u32()? as usize;
    // Each delta takes at least 7 bytes: a lying count cannot reserve more than the input justifies.
    let mut deltas: Vec<Delta> = Vec::with_capacity(count.min(bytes.len() / 7));
    for _ in 0..count {
        let key_bytes = usize::from(u16::from_le_bytes(reader.array()?));
        let value_bytes = reader.u32()?;
        let key = bytes.slice_ref(reader.bytes(key_bytes)?);
        let value = match value_bytes {
            DELETED => None,
            length => Some(bytes.slice_ref(reader.bytes(length as usize)?)),
        };
        if key.is_empty() || deltas.last().is_some_and(|(last, _)| *last >= key) {
            return Err(reader.error("keys out of order"));
        }
        deltas.push((key, value));
    }
    reader.finish()?;
    Ok(deltas)
}

/// So many pointers, or more: then there are as many as there is room for.
const MANY_POINTERS: u16 = u16::MAX;

/// The body of a spilled commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpilledBody {
    /// How many spilled bodies lie between this one and the deltas.
    pub depth: u8,
    /// Length of what the records hold in bytes.
    pub total_bytes: u32,
    /// The records that hold them, in order.
    pub pointers: Vec<Pointer>,
}

impl SpilledBody {
    /// The body's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(256);
        writer.u8(self.depth);
        writer.u32(self.total_bytes);
        writer.u16(u16::try_from(self.pointers.len()).unwrap_or(MANY_POINTERS));
        for pointer in &self.pointers {
            writer.bytes(&pointer.encode());
        }
        writer.into_vec()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`FormatError`] for anything that `encode` does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("spilled commit", bytes);
        let depth = reader.u8()?;
        if depth > SPILL_DEPTH_MAX {
            return Err(reader.error("spilled too deep"));
        }
        let total_bytes = reader.u32()?;
        if total_bytes > DELTA_BYTES_MAX {
            return Err(reader.error("deltas over the limit of a commit"));
        }
        let stated = reader.u16()?;
        let there = reader.remaining() / Pointer::BYTES;
        let count = match stated {
            MANY_POINTERS if there < usize::from(MANY_POINTERS) => {
                return Err(reader.error("fewer pointers than stated"));
            }
            MANY_POINTERS => there,
            stated => usize::from(stated),
        };
        let mut pointers = Vec::with_capacity(count.min(there));
        for _ in 0..count {
            pointers.push(read_pointer(&mut reader)?);
        }
        reader.finish()?;
        Ok(Self { depth, total_bytes, pointers })
    }
}

/// A checkpoint hint: `sequence u64 ‖ commit hash 32 ‖ key epoch u16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The checkpoint's sequence.
    pub sequence: u64,
    /// The checkpoint's hash.
    pub hash: [u8; 32],
    /// The key epoch of the checkpoint's name.
    pub key_epoch: u16,
}

impl Hint {
    /// Length of every hint.
    pub const BYTES: usize = 42;

    /// The hint's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(256);
        writer.u64(self.sequence);
        writer.bytes(&self.hash);
        writer.u16(self.key_epoch);
        writer.into_vec()
    }

    /// Reads a hint.
    ///
    /// # Errors
    /// [`FormatError`] for another length.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("hint", bytes);
        let hint = Self { sequence: reader.u64()?, hash: reader.array()?, key_epoch: reader.u16()? };
        reader.finish()?;
        Ok(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spilled(count: usize) -> SpilledBody {
        let pointer = |counter: usize| Pointer {
            key_epoch: 0,
            writer_epoch: 1,
            counter: counter as u64,
            index: 3,
            offset: 16,
            length: 4112,
            salt: [9; 16],
        };
        SpilledBody { depth: 0, total_bytes: DELTA_BYTES_MAX, pointers: (0..count).map(pointer).collect() }
    }

    #[test]
    fn a_spilled_body_has_as_many_pointers_as_a_commit_may_need() {
        for count in [0, 1, 65_534, 65_535, 65_536, 300_000] {
            let body = spilled(count);
            assert_eq!(SpilledBody::decode(&body.encode()).as_ref(), Ok(&body), "{count}");
        }
    }

    #[test]
    fn a_spilled_body_that_says_it_has_many_pointers_has_them() {
        let mut bytes = spilled(65_535).encode();
        assert!(SpilledBody::decode(&bytes[..bytes.len() - 1]).is_err(), "cut off");
        assert!(SpilledBody::decode(&bytes[..bytes.len() - Pointer::BYTES]).is_err(), "one less");
        bytes.push(0);
        assert!(SpilledBody::decode(&bytes).is_err(), "a byte more");
        let mut few = spilled(2).encode();
        few[5..7].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(SpilledBody::decode(&few).is_err());
    }
}
