//! The row of a value: what lies beside a key.
//!
//! ```text
//! row = 0 u8 ‖ value                                              while it fits beside the key
//!     | 1 u8 ‖ length u64 ‖ number u64 of each chunk, in order    else
//!     | 2 u8 ‖ length u64 ‖ number u64 of the chunk that holds that list, where the list does not fit either
//! ```

use std::ops::Bound;

use bytes::Bytes;
use strongroom_core::engine::{ChunkNumber, Direction, Table, View};
use strongroom_core::{Error, Result};

use super::{KvSnapshot, VALUE_BYTES_MAX, tables};

pub(super) const INLINE: u8 = 0;
pub(super) const CHUNKS: u8 = 1;
pub(super) const LISTED: u8 = 2;
/// Kind and length.
pub(super) const PREFIX_BYTES: usize = 9;
pub(super) const NUMBER_BYTES: usize = 8;

/// A row, taken apart.
pub(super) enum Value {
    Inline(Bytes),
    Chunks { length: u64, numbers: Bytes },
    Listed { length: u64, list: ChunkNumber },
}

impl Value {
    pub(super) fn read(row: &Bytes) -> Result<Self> {
        let damaged = |detail: &str| Error::damaged("key-value row", None, detail);
        let kind = *row.first().ok_or_else(|| damaged("it is empty"))?;
        if kind == INLINE {
            return Ok(Self::Inline(row.slice(1..)));
        }
        let length = row.get(1..PREFIX_BYTES).and_then(number_of).ok_or_else(|| damaged("it is cut short"))?;
        if usize::try_from(length).map_or(true, |length| length > VALUE_BYTES_MAX) {
            return Err(damaged("its value is longer than any value"));
        }
        let rest = row.slice(PREFIX_BYTES..);
        match kind {
            CHUNKS if rest.len().is_multiple_of(NUMBER_BYTES) => Ok(Self::Chunks { length, numbers: rest }),
            LISTED => {
                let list = number_of(&rest).map(ChunkNumber).ok_or_else(|| damaged("it names no list"))?;
                Ok(Self::Listed { length, list })
            }
            _ => Err(damaged("it is of no known kind")),
        }
    }

    /// The chunks of the value itself, in order.
    pub(super) async fn numbers(&self, view: &impl View) -> Result<Vec<ChunkNumber>> {
        let list = match self {
            Self::Inline(_) => Bytes::new(),
            Self::Chunks { numbers, .. } => numbers.clone(),
            Self::Listed { list, .. } => view.chunk(*list).await?,
        };
        if !list.len().is_multiple_of(NUMBER_BYTES) {
            return Err(Error::damaged("key-value row", None, "its list of chunks is cut short"));
        }
        Ok(list.chunks_exact(NUMBER_BYTES).filter_map(number_of).map(ChunkNumber).collect())
    }
}

/// The chunks that a row owns a reference to: those of the value, and the one that lists them.
pub(crate) async fn chunks_of(view: &impl View, row: &[u8]) -> Result<Vec<ChunkNumber>> {
    let value = Value::read(&Bytes::copy_from_slice(row))?;
    let mut chunks = value.numbers(view).await?;
    if let Value::Listed { list, .. } = value {
        chunks.push(list);
    }
    Ok(chunks)
}

fn number_of(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

pub(super) async fn get(view: &impl View, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
    match view.get(table, key).await? {
        Some(row) => fetch(view, &row).await.map(Some),
        None => Ok(None),
    }
}

pub(super) async fn fetch(view: &impl View, row: &Bytes) -> Result<Bytes> {
    let value = Value::read(row)?;
    let length = match &value {
        Value::Inline(bytes) => return Ok(bytes.clone()),
        Value::Chunks { length, .. } | Value::Listed { length, .. } => usize::try_from(*length).unwrap_or(usize::MAX),
    };
    let numbers = value.numbers(view).await?;
    if let [number] = *numbers {
        let bytes = view.chunk(number).await?;
        return if bytes.len() == length { Ok(bytes) } else { Err(other_length()) };
    }
    // Each chunk adds a byte at least, so that a list cannot make this longer than the value it is checked against.
    let mut bytes = Vec::with_capacity(length.min(VALUE_BYTES_MAX));
    for piece in view.chunks(&numbers).await {
        bytes.extend_from_slice(&piece?);
        if bytes.len() > length {
            break;
        }
    }
    if bytes.len() == length { Ok(Bytes::from(bytes)) } else { Err(other_length()) }
}

fn other_length() -> Error {
    Error::damaged("key-value row", None, "its chunks are not as long as its value")
}

/// What values take, all in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ValueBytes {
    /// All values.
    pub(crate) value_bytes: u64,
    /// Those of them that lie beside their keys.
    pub(crate) inline_bytes: u64,
    /// Chunks that list the chunks of others.
    pub(crate) list_bytes: u64,
}

impl ValueBytes {
    fn add(&mut self, value: &Value, chunk_bytes_max: usize) {
        let bytes = match value {
            Value::Inline(value) => u64::try_from(value.len()).unwrap_or(u64::MAX),
            Value::Chunks { length, .. } | Value::Listed { length, .. } => *length,
        };
        self.value_bytes = self.value_bytes.saturating_add(bytes);
        match value {
            Value::Inline(_) => self.inline_bytes = self.inline_bytes.saturating_add(bytes),
            Value::Listed { .. } => {
                let chunks = bytes.div_ceil(u64::try_from(chunk_bytes_max).unwrap_or(u64::MAX).max(1));
                self.list_bytes = self.list_bytes.saturating_add(chunks.saturating_mul(NUMBER_BYTES as u64));
            }
            Value::Chunks { .. } => {}
        }
    }
}

impl KvSnapshot {
    /// Looks at every row of all tables, and at no value that is not in it.
    pub(crate) async fn value_bytes(&self, chunk_bytes_max: usize) -> Result<ValueBytes> {
        let mut counted = ValueBytes::default();
        for table in tables() {
            let mut scan = self.snapshot.scan(table, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
            while let Some((_, row)) = scan.next().await? {
                counted.add(&Value::read(&row)?, chunk_bytes_max);
            }
        }
        Ok(counted)
    }
}
