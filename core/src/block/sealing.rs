use bytes::{Bytes, BytesMut};

use crate::crypto::{BlockKey, CryptoError};
use crate::format::{RecordKind, SEAL_BYTES, aad};
use crate::storage::Name;
use crate::{Error, Result};

/// The key of one sealing of one block, with what its records are bound to.
pub(super) struct Sealing<'a> {
    pub(super) key: &'a BlockKey,
    pub(super) repository: &'a [u8; 16],
    pub(super) name: Name,
}

impl Sealing<'_> {
    /// Seals a record in place; its last 16 bytes are room for the tag.
    pub(super) fn seal(&self, index: u64, kind: RecordKind, record: &mut [u8]) -> Result<()> {
        let (plaintext, tag) = record.split_last_chunk_mut().ok_or_else(|| impossible("a record without room"))?;
        let aad = aad(self.repository, self.name.as_bytes(), index, kind);
        *tag = self.key.seal(index, &aad, plaintext).map_err(|_| impossible("a record over the limit of the suite"))?;
        Ok(())
    }

    /// Seals a payload into where its record lies, which is longer by the tag.
    pub(super) fn seal_into(&self, index: u64, kind: RecordKind, payload: &[u8], record: &mut [u8]) -> Result<()> {
        let aad = aad(self.repository, self.name.as_bytes(), index, kind);
        self.key.seal_into(index, &aad, payload, record).map_err(|error| match error {
            CryptoError::BufferLength => impossible("a record of another length than its payload asks for"),
            _ => impossible("a record over the limit of the suite"),
        })
    }

    /// Opens a record in place, where it authenticates, and gives the plaintext: all but the last 16 bytes.
    pub(super) fn open(&self, index: u64, kind: RecordKind, record: &mut [u8]) -> Result<()> {
        let damaged = |what: &str| Error::damaged(kind.name(), Some(self.name), what);
        let (text, tag) = record.split_last_chunk_mut::<SEAL_BYTES>().ok_or_else(|| damaged("too short"))?;
        let aad = aad(self.repository, self.name.as_bytes(), index, kind);
        self.key.open(index, &aad, text, tag).map_err(|_| damaged("it is not what was sealed here"))
    }

    /// Opens a record that is to stay as it is into a buffer, which is shorter by the tag.
    pub(super) fn open_into(&self, index: u64, kind: RecordKind, record: &[u8], payload: &mut [u8]) -> Result<()> {
        let aad = aad(self.repository, self.name.as_bytes(), index, kind);
        self.key.open_into(index, &aad, record, payload).map_err(|error| {
            let what = match error {
                CryptoError::BufferLength => "of another length than it should have",
                _ => "it is not what was sealed here",
            };
            Error::damaged(kind.name(), Some(self.name), what)
        })
    }

    /// As [`Self::open_into`], into a buffer of its own.
    pub(super) fn open_copy(&self, index: u64, kind: RecordKind, record: &[u8]) -> Result<Bytes> {
        let mut payload = vec![0; record.len().saturating_sub(SEAL_BYTES)];
        self.open_into(index, kind, record, &mut payload)?;
        Ok(payload.into())
    }

    /// Opens a record that owns its bytes and cuts the tag off; nothing is copied.
    pub(super) fn open_owned(&self, index: u64, kind: RecordKind, mut record: BytesMut) -> Result<Bytes> {
        self.open(index, kind, &mut record)?;
        record.truncate(record.len().saturating_sub(SEAL_BYTES));
        Ok(record.freeze())
    }
}

/// What only a bug of this module can bring about; an error all the same, because nothing here may panic.
pub(super) fn impossible(what: &str) -> Error {
    Error::Invalid(format!("{what} (a bug: please report it)"))
}
