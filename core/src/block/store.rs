use std::sync::Arc;

use bytes::Bytes;

use super::{BlockReader, BlockWriter};
use crate::Result;
use crate::format::{Pointer, RecordKind};

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
}
