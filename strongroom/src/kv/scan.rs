//! The rows of a range of keys, in order.

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;
use strongroom_core::engine::{self, Direction, Table, View};
use strongroom_core::{Error, Result};

use super::value::{Value, fetch};

/// A running scan; see [`Kv::scan`](super::Kv::scan).
pub struct Scan<V> {
    scan: engine::Scan,
    view: V,
    /// The row that is next, where it was looked up and its value not given yet.
    row: Option<(Bytes, Bytes)>,
}

impl<V: Borrowed> Scan<V> {
    pub(super) fn new(view: V, table: Table, range: impl RangeBounds<[u8]>, direction: Direction) -> Self {
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (range.start_bound(), range.end_bound());
        Self { scan: view.view().scan(table, range, direction), view, row: None }
    }

    /// The next key and its value. Where reading the value fails, or the future is dropped, the next call begins with the same
    /// key; [`Self::next_key`] passes it. What is damaged is told once, and passed.
    ///
    /// # Errors
    /// As [`Kv::get`](super::Kv::get).
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        if self.row.is_none() {
            self.row = self.scan.next().await?;
        }
        let Some((key, row)) = self.row.clone() else { return Ok(None) };
        let value = fetch(self.view.view(), &row).await;
        if matches!(value, Ok(_) | Err(Error::Damaged(_))) {
            // Damage shows again at each look: whoever goes on wants what comes after it.
            self.row = None;
        }
        value.map(|value| Some((key, value)))
    }

    /// The next key and the length of its value in bytes; the value is not read.
    ///
    /// # Errors
    /// As [`Kv::get`](super::Kv::get).
    pub async fn next_key(&mut self) -> Result<Option<(Bytes, u64)>> {
        let next = match self.row.take() {
            Some(row) => Some(row),
            None => self.scan.next().await?,
        };
        let Some((key, row)) = next else { return Ok(None) };
        let length = match Value::read(&row)? {
            Value::Inline(value) => u64::try_from(value.len()).unwrap_or(u64::MAX),
            Value::Chunks { length, .. } | Value::Listed { length, .. } => length,
        };
        Ok(Some((key, length)))
    }
}

mod sealed {
    use strongroom_core::engine::{Snapshot, Transaction, View};

    /// What a scan reads from: a snapshot of its own, or a transaction of the caller's.
    pub trait Borrowed {
        type View: View;
        fn view(&self) -> &Self::View;
    }

    impl Borrowed for Snapshot {
        type View = Snapshot;
        fn view(&self) -> &Snapshot {
            self
        }
    }

    impl Borrowed for &Transaction {
        type View = Transaction;
        fn view(&self) -> &Transaction {
            self
        }
    }
}

use sealed::Borrowed;

/// The range of all keys that start with these bytes.
#[must_use]
pub fn prefix(bytes: &[u8]) -> Prefix {
    let mut end = bytes.to_vec();
    // The first key that no longer starts so: the last byte that can be counted up is, and what follows it goes.
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    Prefix { start: bytes.to_vec(), end: (!end.is_empty()).then_some(end) }
}

/// The range of all keys that start with the same bytes: see [`prefix`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl RangeBounds<[u8]> for Prefix {
    fn start_bound(&self) -> Bound<&[u8]> {
        Bound::Included(&self.start)
    }

    fn end_bound(&self) -> Bound<&[u8]> {
        self.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded)
    }
}
