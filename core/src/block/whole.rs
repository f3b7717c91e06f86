use bytes::{Bytes, BytesMut};

use super::Geometry;
use super::sealing::Sealing;
use crate::format::{
    BlockClass, BlockId, DIRECTORY_INDEX, DirectoryEntry, FormatError, RecordKind, SALT_BYTES, SEAL_BYTES,
    TRAILER_INDEX, Trailer, decode_directory,
};
use crate::storage::Name;
use crate::{Error, Result};

/// A block, opened altogether: for commits, check, reclaim and salvage.
#[derive(Clone, Debug)]
pub struct WholeBlock {
    /// Its name.
    pub name: Name,
    /// What the name says; `None` for a block that has no number, such as a hint.
    pub id: Option<BlockId>,
    /// The salt of this sealing.
    pub salt: [u8; SALT_BYTES],
    /// What the block is for.
    pub class: BlockClass,
    /// Its records with their payloads, in order.
    pub records: Vec<(DirectoryEntry, Bytes)>,
    /// The records that do not open; empty unless this is a salvage.
    pub damaged: Vec<DirectoryEntry>,
}

impl WholeBlock {
    pub(super) fn open(
        sealing: &Sealing<'_>,
        geometry: Geometry,
        id: Option<BlockId>,
        salt: [u8; SALT_BYTES],
        bytes: Bytes,
    ) -> Result<Self> {
        let name = sealing.name;
        let malformed = |error: FormatError| Error::damaged(error.structure, Some(name), error.reason);
        let damaged = |detail: String| Error::damaged("block", Some(name), detail);
        if bytes.len() != geometry.block_bytes() as usize {
            return Err(damaged(format!("has {} bytes, not {}", bytes.len(), geometry.block_bytes())));
        }
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        let short = || damaged("too short".into());
        let (rest, sealed) = bytes.split_last_chunk_mut::<{ Trailer::SEALED_BYTES }>().ok_or_else(short)?;
        let trailer =
            Trailer::decode(opened(sealing, TRAILER_INDEX, RecordKind::Trailer, sealed)?).map_err(malformed)?;
        check_class(id, trailer.class).map_err(malformed)?;
        let (records, sealed) = rest
            .split_at_mut_checked(trailer.directory_offset as usize)
            .ok_or_else(|| damaged("its directory begins past its end".into()))?;
        let directory = opened(sealing, DIRECTORY_INDEX, RecordKind::Directory, sealed)?;
        let entries = decode_directory(directory, trailer.records, trailer.directory_offset).map_err(malformed)?;

        let mut rest = records.get_mut(SALT_BYTES..).ok_or_else(short)?;
        let mut opens = Vec::with_capacity(entries.len());
        for entry in &entries {
            let (record, tail) = rest.split_at_mut_checked(entry.length as usize).ok_or_else(short)?;
            opens.push(sealing.open(entry.index.into(), entry.kind, record).is_ok());
            rest = tail;
        }
        let bytes = bytes.freeze();
        let mut records = Vec::with_capacity(entries.len());
        let mut failed = Vec::new();
        for (entry, opens) in entries.into_iter().zip(opens) {
            if opens {
                let start = entry.offset as usize;
                records.push((entry, bytes.slice(start..start + entry.length as usize - SEAL_BYTES)));
            } else {
                failed.push(entry);
            }
        }
        Ok(Self { name, id, salt, class: trailer.class, records, damaged: failed })
    }

    /// Itself where every record opened, else the first that did not.
    pub(super) fn intact(self) -> Result<Self> {
        match self.damaged.first() {
            None => Ok(self),
            Some(entry) => Err(Error::damaged(
                entry.kind.name(),
                Some(self.name),
                format!("record {} is not what was sealed here", entry.index),
            )),
        }
    }
}

fn opened<'a>(sealing: &Sealing<'_>, index: u64, kind: RecordKind, record: &'a mut [u8]) -> Result<&'a [u8]> {
    sealing.open(index, kind, record)?;
    Ok(record.split_last_chunk::<SEAL_BYTES>().map_or(&[], |(plaintext, _)| plaintext))
}

fn check_class(id: Option<BlockId>, class: BlockClass) -> std::result::Result<(), FormatError> {
    let fits = match id {
        Some(BlockId::Data { .. }) => matches!(class, BlockClass::Data | BlockClass::Metadata | BlockClass::Spill),
        Some(BlockId::Commit { .. }) => class == BlockClass::Commit,
        None => class == BlockClass::Hint,
    };
    if fits {
        Ok(())
    } else {
        Err(FormatError::new("block trailer", format!("class {class:?} under a name of another")))
    }
}
