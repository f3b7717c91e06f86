//! Rows of the space tables: what the engine itself keeps in its key space.
//!
//! A key is one table byte and the key proper; tables below [`CONTENT_FIRST`] belong to the *space* root, the others to
//! the *content* root. Numbers inside keys are big-endian, so that they sort; in values little-endian.
//!
//! | table | key | value |
//! |---|---|---|
//! | [`CHUNK`] | chunk number u64 | [`ChunkRow`] |
//! | [`IDENTITY`] | keyed hash of the plaintext, 32 bytes | chunk number u64 |
//! | [`USAGE`] | block: key epoch u16, writer epoch u32, counter u64 | live bytes u64, see [`live_bytes`] |
//! | [`HISTORY`] | commit sequence u64 | commit hash, 32 bytes |
//! | [`EPOCH`] | writer epoch u32 | [`EpochRow`] |
//! | [`CONDEMNED`] | commit sequence u64, block as above | empty |
//! | [`COUNTER`] | name byte | u64, of [`WRITTEN_AT`] a place |
//! | [`BALLAST`] | block as above | salt of its sealing, 16 bytes |
//! | [`SNAPSHOT`] | name, UTF-8 | [`SnapshotRow`] |
//! | [`PARKED_CHUNK`] | commit that took the last reference u64, chunk number u64 | empty |
//! | [`PARKED_NODE`] | checkpoint that replaced it u64, pointer 38 | the checkpoint that wrote it, u64 |
//! | [`DAMAGED`] | chunk number u64 | empty |

use bytes::Bytes;

use super::{BlockId, DirectoryEntry, FormatError, Pointer, Reader, SEAL_BYTES, Writer};

/// Chunk number -> references, birth, identity, place.
pub const CHUNK: u8 = 0x01;
/// Identity -> chunk number.
pub const IDENTITY: u8 = 0x02;
/// Block -> live bytes.
pub const USAGE: u8 = 0x03;
/// Sequence -> commit hash, for the last [`HISTORY_COMMITS`].
pub const HISTORY: u8 = 0x04;
/// Writer epochs that have not ended.
pub const EPOCH: u8 = 0x05;
/// Blocks to delete once `floor` has reached their sequence.
pub const CONDEMNED: u8 = 0x06;
/// Counters of the engine.
pub const COUNTER: u8 = 0x07;
/// Blocks that hold nothing: given up when storage is full, so that there is room to delete.
pub const BALLAST: u8 = 0x08;
/// Named states of the content that are kept.
pub const SNAPSHOT: u8 = 0x09;
/// Chunks that only snapshots need, by the commit that took their last reference.
pub const PARKED_CHUNK: u8 = 0x0a;
/// Nodes of the content tree that only snapshots have, by the checkpoint that replaced them.
pub const PARKED_NODE: u8 = 0x0b;
/// Chunks that a repair could not read: nothing that is stored is taken for one of them, but heals it.
pub const DAMAGED: u8 = 0x0c;
/// The first table of the content root.
pub const CONTENT_FIRST: u8 = 0x10;

/// [`COUNTER`] key: the next writer epoch to claim.
pub const NEXT_EPOCH: u8 = 0x01;
/// [`COUNTER`] key: the sequence of the newest snapshot that is kept; no row: 0, there is none.
pub const NEWEST_SNAPSHOT: u8 = 0x02;
/// [`COUNTER`] key: the place, [`PLACE_BYTES`] long, that all commits were made at which were made at any of several; zeros: there
/// was more than one, or that is not known; no row: there was none.
pub const WRITTEN_AT: u8 = 0x03;
/// How many commits the history remembers.
pub const HISTORY_COMMITS: u64 = 65_536;

/// Where the payload of a chunk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the row itself, until a checkpoint packs it into a block.
    Inline(Bytes),
    /// In records, in order.
    Records(Vec<Pointer>),
}

impl Place {
    /// Where its records are: none, where it is in the row.
    #[must_use]
    pub fn pointers(&self) -> &[Pointer] {
        match self {
            Self::Inline(_) => &[],
            Self::Records(pointers) => pointers,
        }
    }

    /// How long the payload is, in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        let of_record = |pointer: &Pointer| u64::from(pointer.length).saturating_sub(SEAL_BYTES as u64);
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Records(pointers) => pointers.iter().map(of_record).fold(0, u64::saturating_add),
        }
    }
}

/// Bytes of what an epoch row says of its writer's place.
pub const PLACE_BYTES: usize = 8;

/// Who claimed a writer epoch, where what is stored may be kept alike at several places: there may be another of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The place: the beginning of a keyed hash.
    pub place: [u8; PLACE_BYTES],
    /// What the numbers of its blocks begin with.
    pub tag: u32,
    /// Whether it has ended, and it is not sure yet that nothing is left of what was put under it.
    pub has_ended: bool,
}

/// The row of a writer epoch that has not ended, or that is not swept after.
///
/// `time u64 ‖ [place 8 ‖ tag u32 ‖ has ended u8]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochRow {
    /// When it was claimed, or its writer last made a checkpoint, in ms since 1970.
    pub time: u64,
    /// Who claimed it, where there are several places.
    pub claim: Option<Claim>,
}

impl EpochRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(8 + PLACE_BYTES + 4 + 1);
        writer.u64(self.time);
        if let Some(claim) = &self.claim {
            writer.bytes(&claim.place).u32(claim.tag).u8(claim.has_ended.into());
        }
        writer.into_vec().into()
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`FormatError`] for anything that `encode` does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("epoch row", bytes);
        let time = reader.u64()?;
        let claim = match bytes.len() {
            8 => None,
            _ => {
                let (place, tag) = (reader.array()?, reader.u32()?);
                let has_ended = match reader.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(FormatError::new("epoch row", "state")),
                };
                Some(Claim { place, tag, has_ended })
            }
        };
        reader.finish()?;
        Ok(Self { time, claim })
    }

    /// Whether the epoch has ended, and is not swept after.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.claim.is_some_and(|claim| claim.has_ended)
    }

    /// The row once the epoch has ended; none where then there is none, because no claim is to be told from others.
    #[must_use]
    pub fn ended(self) -> Option<Self> {
        let claim = Claim { has_ended: true, ..self.claim? };
        Some(Self { claim: Some(claim), ..self })
    }
}

/// A chunk's row. The reference count comes first, so that a merge finds it.
///
/// `references u64 ‖ birth u64 ‖ [death u64, where there are no references] ‖ has identity u8 ‖ [identity 32] ‖
/// place u8 (0 inline, 1 records) ‖ bytes | count u8 ‖ pointers`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// How many extents name it. 0: only snapshots do.
    pub references: u64,
    /// A commit before which it was in no state.
    pub birth: u64,
    /// The commit that took its last reference; 0 while it has any.
    pub death: u64,
    /// The keyed hash of its plaintext, where it takes part in dedup.
    pub identity: Option<[u8; 32]>,
    /// Where it is.
    pub place: Place,
}

/// The most bytes that a chunk's key and its row take in a leaf beside pointers: table and number; references, birth, death,
/// whether there is an identity, that, the kind of place, and how many pointers.
pub const CHUNK_ROW_BYTES_MAX_BUT_POINTERS: usize = (1 + 8) + 8 + 8 + 8 + 1 + 32 + 1 + 1;

impl ChunkRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(64);
        writer.u64(self.references);
        writer.u64(self.birth);
        if self.references == 0 {
            writer.u64(self.death);
        }
        match &self.identity {
            Some(identity) => {
                writer.u8(1).bytes(identity);
            }
            None => {
                writer.u8(0);
            }
        }
        match &self.place {
            Place::Inline(bytes) => {
                writer.u8(0);
                writer.bytes(bytes);
            }
            Place::Records(pointers) => {
                writer.u8(1);
                writer.u8(u8::try_from(pointers.len()).unwrap_or(u8::MAX));
                for pointer in pointers {
                    writer.bytes(&pointer.encode());
                }
            }
        }
        writer.into_vec()
    }

    /// Reads a row; inline bytes are a slice of `row`.
    ///
    /// # Errors
    /// [`FormatError`] for anything that `encode` does not write.
    pub fn decode(row: &Bytes) -> Result<Self, FormatError> {
        let mut reader = Reader::new("chunk row", row);
        let references = reader.u64()?;
        let birth = reader.u64()?;
        let death = if references == 0 { reader.u64()? } else { 0 };
        let identity = match reader.u8()? {
            0 => None,
            1 => Some(reader.array()?),
            other => return Err(reader.error(format!("identity flag {other}"))),
        };
        let place = match reader.u8()? {
            0 => {
                let rest = reader.take_rest();
                Place::Inline(row.slice_ref(rest))
            }
            1 => {
                let count = usize::from(reader.u8()?);
                let mut pointers = Vec::with_capacity(count);
                for _ in 0..count {
                    pointers.push(read_pointer(&mut reader)?);
                }
                reader.finish()?;
                Place::Records(pointers)
            }
            other => return Err(FormatError::new("chunk row", format!("place {other}"))),
        };
        Ok(Self { references, birth, death, identity, place })
    }
}

/// A snapshot's row: what is kept under its name.
///
/// `state u8 (0 kept, 1 being removed) ‖ sequence u64 ‖ time u64 ‖ height u8 ‖ pointer 38` (zeros where the tree is empty)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Whether it is being removed: it keeps nothing any more, and what it kept is being given back.
    pub is_removed: bool,
    /// The checkpoint whose content it is.
    pub sequence: u64,
    /// When it was taken, in milliseconds since 1970.
    pub time: u64,
    /// Height and root node of its content tree; `None` where that is empty.
    pub content: Option<(u8, Pointer)>,
}

impl SnapshotRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(64);
        writer.u8(u8::from(self.is_removed));
        writer.u64(self.sequence);
        writer.u64(self.time);
        match &self.content {
            Some((height, pointer)) => writer.u8(*height).bytes(&pointer.encode()),
            None => writer.u8(0).bytes(&[0; Pointer::BYTES]),
        };
        writer.into_vec()
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`FormatError`] for anything that `encode` does not write.
    pub fn decode(row: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("snapshot row", row);
        let is_removed = match reader.u8()? {
            0 => false,
            1 => true,
            other => return Err(reader.error(format!("state {other}"))),
        };
        let (sequence, time) = (reader.u64()?, reader.u64()?);
        let content = match reader.u8()? {
            0 if reader.bytes(Pointer::BYTES)?.iter().all(|byte| *byte == 0) => None,
            0 => return Err(reader.error("an empty tree with a root")),
            height if height > super::node::HEIGHT_MAX => return Err(reader.error(format!("{height} levels"))),
            height => Some((height, read_pointer(&mut reader)?)),
        };
        reader.finish()?;
        Ok(Self { is_removed, sequence, time, content })
    }
}

/// A pointer.
pub(super) fn read_pointer(reader: &mut Reader<'_>) -> Result<Pointer, FormatError> {
    let bytes = reader.bytes(Pointer::BYTES)?;
    Pointer::decode(bytes).ok_or_else(|| reader.error("a pointer of another shape"))
}

/// What a record takes of its block, in bytes: sealed, with its line in the directory.
#[must_use]
pub const fn live_bytes(pointer: &Pointer) -> u64 {
    pointer.length as u64 + DirectoryEntry::BYTES as u64
}

/// A block in keys: key epoch u16, writer epoch u32, counter u64, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataBlock {
    /// The key epoch it is sealed under.
    pub key_epoch: u16,
    /// The writer epoch that made it.
    pub writer_epoch: u32,
    /// Its number within the writer epoch.
    pub counter: u64,
}

impl DataBlock {
    /// Bytes of the encoding.
    pub const BYTES: usize = 14;

    /// The block that a pointer points into.
    #[must_use]
    pub fn of(pointer: &Pointer) -> Self {
        Self { key_epoch: pointer.key_epoch, writer_epoch: pointer.writer_epoch, counter: pointer.counter }
    }

    /// The identifier that its name encrypts.
    #[must_use]
    pub const fn id(&self) -> BlockId {
        BlockId::Data { key_epoch: self.key_epoch, writer_epoch: self.writer_epoch, counter: self.counter }
    }

    fn write(self, writer: &mut Writer) {
        writer.bytes(&self.key_epoch.to_be_bytes());
        writer.bytes(&self.writer_epoch.to_be_bytes());
        writer.bytes(&self.counter.to_be_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            key_epoch: u16::from_be_bytes(reader.array()?),
            writer_epoch: u32::from_be_bytes(reader.array()?),
            counter: u64::from_be_bytes(reader.array()?),
        })
    }
}

fn key(table: u8, parts: &[&[u8]]) -> Bytes {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(table);
    for part in parts {
        key.extend_from_slice(part);
    }
    Bytes::from(key)
}

/// A key of any table.
#[must_use]
pub fn table_key(table: u8, rest: &[u8]) -> Bytes {
    key(table, &[rest])
}

/// Key of a chunk's row.
#[must_use]
pub fn chunk_key(number: u64) -> Bytes {
    key(CHUNK, &[&number.to_be_bytes()])
}

/// Key of the note that a chunk is damaged.
#[must_use]
pub fn damaged_key(number: u64) -> Bytes {
    key(DAMAGED, &[&number.to_be_bytes()])
}

/// Key of an identity row.
#[must_use]
pub fn identity_key(identity: &[u8; 32]) -> Bytes {
    key(IDENTITY, &[identity])
}

/// Key of a block's usage row.
#[must_use]
pub fn usage_key(block: DataBlock) -> Bytes {
    block_key(USAGE, block)
}

/// Key of a ballast row.
#[must_use]
pub fn ballast_key(block: DataBlock) -> Bytes {
    block_key(BALLAST, block)
}

fn block_key(table: u8, block: DataBlock) -> Bytes {
    let mut writer = Writer::with_capacity(1 + DataBlock::BYTES);
    writer.u8(table);
    block.write(&mut writer);
    Bytes::from(writer.into_vec())
}

/// Key of a history row.
#[must_use]
pub fn history_key(sequence: u64) -> Bytes {
    key(HISTORY, &[&sequence.to_be_bytes()])
}

/// Key of an epoch row.
#[must_use]
pub fn epoch_key(epoch: u32) -> Bytes {
    key(EPOCH, &[&epoch.to_be_bytes()])
}

/// Key of a counter.
#[must_use]
pub fn counter_key(name: u8) -> Bytes {
    key(COUNTER, &[&[name]])
}

/// Key of a condemned block.
#[must_use]
pub fn condemned_key(sequence: u64, block: DataBlock) -> Bytes {
    let mut writer = Writer::with_capacity(64);
    writer.u8(CONDEMNED);
    writer.bytes(&sequence.to_be_bytes());
    block.write(&mut writer);
    Bytes::from(writer.into_vec())
}

/// Key of a snapshot.
#[must_use]
pub fn snapshot_key(name: &str) -> Bytes {
    key(SNAPSHOT, &[name.as_bytes()])
}

/// Key of a chunk that a commit took the last reference of.
#[must_use]
pub fn parked_chunk_key(death: u64, number: u64) -> Bytes {
    key(PARKED_CHUNK, &[&death.to_be_bytes(), &number.to_be_bytes()])
}

/// What the key of a parked chunk says: its death and its number.
///
/// # Errors
/// [`FormatError`] for a key of another shape.
pub fn decode_parked_chunk_key(key: &[u8]) -> Result<(u64, u64), FormatError> {
    let mut reader = Reader::new("parked chunk key", key);
    reader.u8()?;
    let death = u64::from_be_bytes(reader.array()?);
    let number = u64::from_be_bytes(reader.array()?);
    reader.finish()?;
    Ok((death, number))
}

/// Key of a node that a checkpoint replaced.
#[must_use]
pub fn parked_node_key(death: u64, pointer: &Pointer) -> Bytes {
    key(PARKED_NODE, &[&death.to_be_bytes(), &pointer.encode()])
}

/// What the key of a parked node says: its death and its place.
///
/// # Errors
/// [`FormatError`] for a key of another shape.
pub fn decode_parked_node_key(key: &[u8]) -> Result<(u64, Pointer), FormatError> {
    let mut reader = Reader::new("parked node key", key);
    reader.u8()?;
    let death = u64::from_be_bytes(reader.array()?);
    let pointer = read_pointer(&mut reader)?;
    reader.finish()?;
    Ok((death, pointer))
}

/// What a condemned key says.
///
/// # Errors
/// [`FormatError`] for a key of another shape.
pub fn decode_condemned_key(key: &[u8]) -> Result<(u64, DataBlock), FormatError> {
    let mut reader = Reader::new("condemned key", key);
    reader.u8()?;
    let sequence = u64::from_be_bytes(reader.array()?);
    let block = DataBlock::read(&mut reader)?;
    reader.finish()?;
    Ok((sequence, block))
}

/// The block that a usage or ballast key names.
///
/// # Errors
/// [`FormatError`] for a key of another shape.
pub fn decode_block_key(key: &[u8]) -> Result<DataBlock, FormatError> {
    let mut reader = Reader::new("block key", key);
    reader.u8()?;
    let block = DataBlock::read(&mut reader)?;
    reader.finish()?;
    Ok(block)
}

/// The number in a chunk key, an epoch key (as u64) or a history key.
///
/// # Errors
/// [`FormatError`] for a key of another shape.
pub fn decode_number_key(key: &[u8]) -> Result<u64, FormatError> {
    match key.split_first() {
        Some((&EPOCH, rest)) => rest
            .try_into()
            .map(|bytes| u64::from(u32::from_be_bytes(bytes)))
            .map_err(|_| FormatError::new("epoch key", "length")),
        Some((_, rest)) => {
            rest.try_into().map(u64::from_be_bytes).map_err(|_| FormatError::new("number key", "length"))
        }
        None => Err(FormatError::new("number key", "empty")),
    }
}

/// A value that is one little-endian u64, or starts with one.
///
/// # Errors
/// [`FormatError`] for a shorter value.
pub fn decode_count(value: &[u8]) -> Result<u64, FormatError> {
    value
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .ok_or_else(|| FormatError::new("counter", "shorter than 8 bytes"))
}
