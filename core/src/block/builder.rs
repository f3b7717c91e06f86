use std::sync::Arc;

use bytes::Bytes;

use super::sealing::{Sealing, impossible};
use super::{BlockContext, Geometry};
use crate::crypto::{BlockKey, Keys};
use crate::format::{
    BlockClass, BlockId, DIRECTORY_INDEX, DirectoryEntry, Pointer, RECORDS_COUNT_MAX, RecordKind, SALT_BYTES,
    SEAL_BYTES, TRAILER_INDEX, Trailer, Writer,
};
use crate::storage::Name;
use crate::{Error, Result};

/// Where a record lies in its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its index: its nonce.
    pub index: u16,
    /// Where the sealed record begins, in bytes.
    pub offset: u32,
    /// The length of the sealed record in bytes, its tag included.
    pub length: u32,
}

impl From<&Pointer> for Place {
    fn from(pointer: &Pointer) -> Self {
        Self { index: pointer.index, offset: pointer.offset, length: pointer.length }
    }
}

impl From<&DirectoryEntry> for Place {
    fn from(entry: &DirectoryEntry) -> Self {
        Self { index: entry.index, offset: entry.offset, length: entry.length }
    }
}

/// One open block: it holds payloads and says where their records will lie; sealing encrypts each from where it is to there,
/// so that no payload is copied on the way.
pub struct BlockBuilder {
    name: Name,
    key_epoch: u16,
    class: BlockClass,
    salt: [u8; SALT_BYTES],
    geometry: Geometry,
    entries: Vec<DirectoryEntry>,
    // One for each entry.
    payloads: Vec<Bytes>,
    // Where the next record begins, in bytes.
    end: usize,
}

impl BlockBuilder {
    /// Opens a numbered block; its salt is drawn here and nowhere else.
    ///
    /// # Errors
    /// [`Error::Random`] where there is no randomness.
    pub fn new(context: &BlockContext, class: BlockClass, id: &BlockId) -> Result<Self> {
        let name = Name::new(context.keys.encrypt_name(id.encode()));
        Self::named(context, class, name, id.key_epoch())
    }

    /// Opens a block with a name that is not a number, such as a checkpoint hint.
    ///
    /// # Errors
    /// As [`BlockBuilder::new`].
    pub fn named(context: &BlockContext, class: BlockClass, name: Name, key_epoch: u16) -> Result<Self> {
        let salt = context.env.random()?;
        let (entries, payloads) = (Vec::new(), Vec::new());
        Ok(Self { name, key_epoch, class, salt, geometry: context.geometry, entries, payloads, end: SALT_BYTES })
    }

    /// With a salt that is not drawn: nothing else may be sealed under the name with the same one.
    #[must_use]
    pub(crate) fn with_salt(self, salt: [u8; SALT_BYTES]) -> Self {
        Self { salt, ..self }
    }

    /// The name that the block will be put under.
    #[must_use]
    pub const fn name(&self) -> Name {
        self.name
    }

    /// The salt of the block.
    #[must_use]
    pub const fn salt(&self) -> &[u8; SALT_BYTES] {
        &self.salt
    }

    /// Whether nothing was appended yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The largest payload in bytes that still fits, 0 where none does.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.room().unwrap_or(0)
    }

    // Apart from `remaining`, because an empty payload needs room too.
    fn room(&self) -> Option<usize> {
        if self.entries.len() >= RECORDS_COUNT_MAX {
            return None;
        }
        let fixed = SEAL_BYTES + Trailer::SEALED_BYTES + Geometry::RECORD_OVERHEAD_BYTES;
        let used = self.end + self.entries.len() * DirectoryEntry::BYTES + fixed;
        (self.geometry.block_bytes() as usize).checked_sub(used)
    }

    /// Adds a record; `None` where it does not fit. `id` says whose it is: see [`DirectoryEntry::id`].
    pub fn append(&mut self, kind: RecordKind, id: u64, payload: &[u8]) -> Option<Place> {
        if payload.len() > self.room()? {
            return None;
        }
        self.append_shared(kind, id, Bytes::copy_from_slice(payload))
    }

    /// As [`BlockBuilder::append`], and the payload is not copied but held until the block is sealed.
    pub fn append_shared(&mut self, kind: RecordKind, id: u64, payload: Bytes) -> Option<Place> {
        if !kind.is_listed() || payload.len() > self.room()? {
            return None;
        }
        let index = u16::try_from(self.entries.len()).ok()?;
        let offset = u32::try_from(self.end).ok()?;
        let length = u32::try_from(payload.len() + SEAL_BYTES).ok()?;
        self.end += length as usize;
        self.entries.push(DirectoryEntry { kind, index, offset, length, id });
        self.payloads.push(payload);
        Some(Place { index, offset, length })
    }

    /// The payload of a record; `None` where none of that kind lies exactly there.
    #[must_use]
    pub fn record(&self, place: &Place, kind: RecordKind) -> Option<&Bytes> {
        let index = usize::from(place.index);
        let entry = self.entries.get(index)?;
        if Place::from(entry) != *place || entry.kind != kind {
            return None;
        }
        self.payloads.get(index)
    }

    /// Seals every record, the directory and the trailer. The block takes itself: there is no second sealing.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the key epoch is not at hand.
    pub fn seal(self, keys: &Keys) -> Result<SealedBlock> {
        let key = (keys.block_key(self.key_epoch, self.name.as_bytes(), &self.salt))
            .ok_or_else(|| Error::Invalid(format!("key epoch {} is not at hand", self.key_epoch)))?;
        let sealing = Sealing { key: &key, repository: keys.repository(), name: self.name };
        let overrun = || impossible("records over the end of their block");
        let mut bytes = vec![0; self.geometry.block_bytes() as usize];
        let (salt, mut rest) = bytes.split_first_chunk_mut().ok_or_else(overrun)?;
        *salt = self.salt;
        for (entry, payload) in self.entries.iter().zip(&self.payloads) {
            let (record, tail) = rest.split_at_mut_checked(entry.length as usize).ok_or_else(overrun)?;
            sealing.seal_into(entry.index.into(), entry.kind, payload, record)?;
            rest = tail;
        }
        let (directory, trailer) = rest.split_last_chunk_mut::<{ Trailer::SEALED_BYTES }>().ok_or_else(overrun)?;
        let mut listed = Writer::with_capacity(self.entries.len() * DirectoryEntry::BYTES);
        self.entries.iter().for_each(|entry| entry.encode(&mut listed));
        let listed = listed.as_slice();
        directory.get_mut(..listed.len()).ok_or_else(overrun)?.copy_from_slice(listed);
        sealing.seal(DIRECTORY_INDEX, RecordKind::Directory, directory)?;
        sealing.seal_into(TRAILER_INDEX, RecordKind::Trailer, &self.trailer()?, trailer)?;
        Ok(SealedBlock {
            name: self.name,
            salt: self.salt,
            bytes: Bytes::from(bytes),
            key: Arc::new(key),
            repository: *keys.repository(),
        })
    }

    fn trailer(&self) -> Result<Vec<u8>> {
        let too_many = |_| impossible("too many records");
        let trailer = Trailer {
            class: self.class,
            records: u16::try_from(self.entries.len()).map_err(too_many)?,
            directory_offset: u32::try_from(self.end).map_err(too_many)?,
        };
        Ok(trailer.encode())
    }
}

/// A block as it is put: the same bytes however often.
#[derive(Clone)]
pub struct SealedBlock {
    /// The name to put it under.
    pub name: Name,
    /// Its salt.
    pub salt: [u8; SALT_BYTES],
    /// Its bytes.
    pub bytes: Bytes,
    key: Arc<BlockKey>,
    repository: [u8; 16],
}

impl SealedBlock {
    /// Opens one of its records.
    ///
    /// # Errors
    /// [`Error::Damaged`] where no record of that kind lies exactly there.
    pub fn record(&self, place: &Place, kind: RecordKind) -> Result<Bytes> {
        let start = place.offset as usize;
        let record = (self.bytes.get(start..start.saturating_add(place.length as usize)))
            .ok_or_else(|| Error::damaged(kind.name(), Some(self.name), "a pointer past the end of a block"))?;
        let sealing = Sealing { key: &self.key, repository: &self.repository, name: self.name };
        sealing.open_copy(place.index.into(), kind, record)
    }
}
