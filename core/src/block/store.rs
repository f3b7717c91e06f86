use std::sync::Arc;

use bytes::Bytes;

use super::{BlockReader, BlockWriter};
use crate::format::{Pointer, RecordKind};
use crate::{Error, Result};

/// Reader and writer together: a record is found wherever it is on its way.
#[derive(Clone)]
pub struct BlockStore {
    /// Reads what storage has.
    pub reader: BlockReader,
    /// Knows what storage has not yet.
    pub writer: Arc<BlockWriter>,
}

impl BlockStore {
    /// The payload of a record: pending, or from storage.
    ///
    /// # Errors
    /// As [`BlockReader::read`].
    pub async fn read(&self, pointer: &Pointer, kind: RecordKind) -> Result<Bytes> {
        match self.writer.pending(pointer, kind)? {
            Some(payload) => Ok(payload),
            None => self.reader.read(pointer, kind).await,
        }
    }

    /// The payloads of several records, in the order of the pointers: see [`BlockReader::read_many`].
    pub async fn read_many(&self, pointers: &[Pointer], kind: RecordKind) -> Vec<Result<Bytes>> {
        let pending: Vec<_> = pointers.iter().map(|pointer| self.writer.pending(pointer, kind).transpose()).collect();
        let stored: Vec<Pointer> = (pointers.iter().zip(&pending))
            .filter(|(_, pending)| pending.is_none())
            .map(|(pointer, _)| *pointer)
            .collect();
        let mut stored = self.reader.read_many(&stored, kind).await.into_iter();
        // As many are read as are not pending.
        pending.into_iter().filter_map(|pending| pending.or_else(|| stored.next())).collect()
    }

    /// As [`BlockStore::read`], into a buffer that is as long as the payload. After an error it holds nothing of use.
    ///
    /// # Errors
    /// As [`BlockReader::read`].
    pub async fn read_into(&self, pointer: &Pointer, kind: RecordKind, payload: &mut [u8]) -> Result<()> {
        let Some(pending) = self.writer.pending(pointer, kind)? else {
            return self.reader.read_into(pointer, kind, payload).await;
        };
        if pending.len() != payload.len() {
            return Err(Error::damaged(kind.name(), None, "of another length than its pointer says"));
        }
        payload.copy_from_slice(&pending);
        Ok(())
    }
}
