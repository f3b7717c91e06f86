use std::ops::RangeBounds;

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_core::engine::{CommitInfo, Snapshot, Transaction as EngineTransaction};
use strongroom_core::{Error, Result};

use crate::kv;

/// The key-value store of a repository; see [`crate::kv::Kv`].
#[derive(Clone)]
pub struct Kv {
    inner: kv::Kv,
}

impl Kv {
    pub(super) fn new(inner: kv::Kv) -> Self {
        Self { inner }
    }

    /// The value of a key; `None` where there is none.
    ///
    /// # Errors
    /// As [`kv::Kv::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        block_on(self.inner.get(key.as_ref()))
    }

    /// Sets a key, in one durable transaction.
    ///
    /// # Errors
    /// As [`kv::Kv::put`].
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        block_on(self.inner.put(key.as_ref(), value.as_ref()))
    }

    /// Removes a key, in one durable transaction; answers whether it was there.
    ///
    /// # Errors
    /// As [`kv::Kv::delete`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        block_on(self.inner.delete(key.as_ref()))
    }

    /// The rows in a range of keys, as they are now.
    pub fn scan(&self, range: impl RangeBounds<[u8]>) -> Scan {
        Scan { inner: self.inner.scan(range) }
    }

    /// As [`Kv::scan`], the last key first.
    pub fn scan_reverse(&self, range: impl RangeBounds<[u8]>) -> Scan {
        Scan { inner: self.inner.scan_reverse(range) }
    }

    /// The largest key in bytes.
    #[must_use]
    pub fn key_bytes_max(&self) -> usize {
        self.inner.key_bytes_max()
    }

    /// All keys as they are now, kept so for as long as the snapshot is held.
    #[must_use]
    pub fn snapshot(&self) -> KvSnapshot {
        KvSnapshot::new(self.inner.snapshot())
    }

    /// Begins a transaction; dropping it aborts it.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        Transaction { inner: self.inner.begin() }
    }

    /// Runs the closure in a transaction and commits it; again where another transaction was faster.
    ///
    /// # Errors
    /// As [`kv::Kv::transact`].
    pub fn transact<T, E: From<Error>>(
        &self,
        mut closure: impl FnMut(&mut Transaction) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let mut attempts_left = kv::ATTEMPTS_MAX;
        loop {
            attempts_left -= 1;
            let mut transaction = self.begin();
            let answer = match closure(&mut transaction) {
                Ok(answer) => answer,
                Err(error) => {
                    // Where its state was given up by others, whatever comes next begins on the newest.
                    let _ = block_on(self.inner.refresh());
                    return Err(error);
                }
            };
            match transaction.commit() {
                Err(Error::Conflict | Error::Expired) if attempts_left > 0 => block_on(self.inner.refresh())?,
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(answer),
            }
        }
    }
}

/// Keys and values as they were at one moment; see [`crate::kv::KvSnapshot`].
#[derive(Clone)]
pub struct KvSnapshot {
    inner: kv::KvSnapshot,
}

impl KvSnapshot {
    pub(super) fn new(inner: kv::KvSnapshot) -> Self {
        Self { inner }
    }

    /// The number of the commit whose state this is.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.inner.sequence()
    }

    /// The value that a key had; `None` where there was none.
    ///
    /// # Errors
    /// As [`kv::Kv::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        block_on(self.inner.get(key.as_ref()))
    }

    /// The rows in a range of keys.
    pub fn scan(&self, range: impl RangeBounds<[u8]>) -> Scan {
        Scan { inner: self.inner.scan(range) }
    }

    /// As [`KvSnapshot::scan`], the last key first.
    pub fn scan_reverse(&self, range: impl RangeBounds<[u8]>) -> Scan {
        Scan { inner: self.inner.scan_reverse(range) }
    }
}

/// A read-write transaction on keys; see [`crate::kv::Transaction`].
pub struct Transaction {
    inner: kv::Transaction,
}

impl Transaction {
    /// The value of a key, as this transaction sees it.
    ///
    /// # Errors
    /// As [`kv::Kv::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        block_on(self.inner.get(key.as_ref()))
    }

    /// Sets a key.
    ///
    /// # Errors
    /// As [`kv::Kv::put`].
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        block_on(self.inner.put(key.as_ref(), value.as_ref()))
    }

    /// Removes a key; answers whether it was there.
    ///
    /// # Errors
    /// As [`kv::Kv::delete`].
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        block_on(self.inner.delete(key.as_ref()))
    }

    /// All rows in a range of keys, this transaction's own writes included.
    ///
    /// # Errors
    /// As [`kv::Kv::get`].
    pub fn scan(&self, range: impl RangeBounds<[u8]>) -> Result<Vec<(Bytes, Bytes)>> {
        collect(self.inner.scan(range))
    }

    /// As [`Transaction::scan`], the last key first.
    ///
    /// # Errors
    /// As [`kv::Kv::get`].
    pub fn scan_reverse(&self, range: impl RangeBounds<[u8]>) -> Result<Vec<(Bytes, Bytes)>> {
        collect(self.inner.scan_reverse(range))
    }

    /// Bytes of memory that it holds until it is committed.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.inner.pending_bytes()
    }

    /// Makes it durable, all or nothing.
    ///
    /// # Errors
    /// As [`kv::Transaction::commit`].
    pub fn commit(self) -> Result<CommitInfo> {
        block_on(self.inner.commit())
    }
}

/// The keys and values of a transaction that holds more than those; see [`super::RepositoryTransaction::kv`].
pub struct TransactionKeys<'t> {
    inner: kv::KvRows<'t>,
}

impl<'t> TransactionKeys<'t> {
    pub(super) fn new(inner: kv::KvRows<'t>) -> Self {
        Self { inner }
    }

    /// The value of a key, as the transaction sees it.
    ///
    /// # Errors
    /// As [`kv::Kv::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        block_on(self.inner.get(key.as_ref()))
    }

    /// Sets a key.
    ///
    /// # Errors
    /// As [`kv::Kv::put`].
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        block_on(self.inner.put(key.as_ref(), value.as_ref()))
    }

    /// Removes a key; answers whether it was there.
    ///
    /// # Errors
    /// As [`kv::Kv::delete`].
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        block_on(self.inner.delete(key.as_ref()))
    }

    /// All rows in a range of keys, the transaction's own writes included.
    ///
    /// # Errors
    /// As [`kv::Kv::get`].
    pub fn scan(&self, range: impl RangeBounds<[u8]>) -> Result<Vec<(Bytes, Bytes)>> {
        collect(self.inner.scan(range))
    }

    /// As [`TransactionKeys::scan`], the last key first.
    ///
    /// # Errors
    /// As [`kv::Kv::get`].
    pub fn scan_reverse(&self, range: impl RangeBounds<[u8]>) -> Result<Vec<(Bytes, Bytes)>> {
        collect(self.inner.scan_reverse(range))
    }
}

fn collect(mut scan: kv::Scan<&EngineTransaction>) -> Result<Vec<(Bytes, Bytes)>> {
    block_on(async {
        let mut rows = Vec::new();
        while let Some(row) = scan.next().await? {
            rows.push(row);
        }
        Ok(rows)
    })
}

/// The rows of a range, one by one. After an error it begins with the same row again, save for one that is damaged: see
/// [`kv::Scan::next`].
pub struct Scan {
    inner: kv::Scan<Snapshot>,
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        block_on(self.inner.next()).transpose()
    }
}

impl Scan {
    /// The next key and the length of its value in bytes; the value is not read.
    ///
    /// # Errors
    /// As [`kv::Kv::get`].
    pub fn next_key(&mut self) -> Result<Option<(Bytes, u64)>> {
        block_on(self.inner.next_key())
    }
}
