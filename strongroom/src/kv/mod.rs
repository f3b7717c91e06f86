//! An encrypted, transactional, ordered key-value store: the engine itself, for values of up to 16 MiB.
//!
//! Keys are ordered by their bytes. Small values lie beside their key; larger ones are cut into chunks of their own.
//!
//! A repository has [`TABLE_NUMBER_MAX`] + 1 such stores beside its files, of which none sees the keys of another: table 0 is
//! [`crate::Repository::kv`], the others are [`crate::Repository::table`]'s. All of them are the application's, change in one
//! transaction with files ([`crate::Transaction::table`]), and are part of every snapshot and every copy.

mod scan;
mod value;

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;
use strongroom_core::engine::{
    ChunkNumber, CommitInfo, ConflictTest as _, Counts, Direction, Engine, Snapshot, Table,
    Transaction as EngineTransaction, View,
};
use strongroom_core::{Error, Result};

pub use scan::{Prefix, Scan, prefix};
pub(crate) use value::chunks_of;

use crate::check::is_damage;

use value::{CHUNKS, INLINE, LISTED, NUMBER_BYTES, PREFIX_BYTES, fetch, get};

/// The engine's table that the keys of table 0 lie in; those of the others follow it.
pub(crate) const FIRST: Table = Table(0x80);

/// The last table of keys and values that a repository has; the first is 0.
pub const TABLE_NUMBER_MAX: u8 = 63;

/// The largest value in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// How often [`Kv::transact`] runs its closure before it gives up.
pub(crate) const ATTEMPTS_MAX: u32 = 64;

/// The engine's table of a number.
pub(crate) fn table(number: u8) -> Result<Table> {
    check_limit("table_number", number.into(), TABLE_NUMBER_MAX.into())?;
    Ok(Table(FIRST.0 + number))
}

/// The last of them.
const LAST: Table = Table(FIRST.0 + TABLE_NUMBER_MAX);

/// All of them.
fn tables() -> impl Iterator<Item = Table> {
    (FIRST.0..=LAST.0).map(Table)
}

/// Whether it is one of them.
pub(crate) fn is_table(table: Table) -> bool {
    (FIRST..=LAST).contains(&table)
}

/// Operations as one transaction, run again on a conflict. A macro, so that futures stay `Send` where theirs are.
macro_rules! transact {
    ($self:expr, $transaction:ident => $operations:expr, again on $again:expr) => {{
        let mut attempts_left = ATTEMPTS_MAX;
        loop {
            attempts_left -= 1;
            let mut $transaction = $self.begin();
            let answer = match $operations {
                Ok(answer) => answer,
                Err(error) if $again(&error) && attempts_left > 0 => {
                    $self.engine.refresh().await?;
                    continue;
                }
                Err(error) => {
                    // Where its state was given up by others, whatever comes next begins on the newest.
                    let _ = $self.engine.refresh().await;
                    return Err(error);
                }
            };
            match $transaction.commit().await {
                Err(error) if error.is_conflict() && attempts_left > 0 => $self.engine.refresh().await?,
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(answer),
            }
        }
    }};
}

/// A key-value store of a repository; cheap to clone, usable from many tasks.
#[derive(Clone)]
pub struct Kv {
    engine: Engine,
    table: Table,
}

impl Kv {
    /// The store on an engine: table 0.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine, table: FIRST }
    }

    /// The one of another number.
    pub(crate) fn numbered(&self, number: u8) -> Result<Self> {
        Ok(Self { engine: self.engine.clone(), table: table(number)? })
    }

    /// The largest key in bytes.
    #[must_use]
    pub fn key_bytes_max(&self) -> usize {
        self.engine.key_bytes_max()
    }

    /// The value of a key; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Damaged`]; what the storage raises.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        get(&self.engine.snapshot(), self.table, key).await
    }

    /// Sets a key, in one durable transaction.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] for a key or value that is too large; what the storage raises.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        transact!(self, transaction => transaction.put(key, value).await, again on Error::is_conflict)
    }

    /// Removes a key, in one durable transaction; answers whether it was there.
    ///
    /// # Errors
    /// What the storage raises.
    pub async fn delete(&self, key: &[u8]) -> Result<bool> {
        transact!(self, transaction => transaction.delete(key).await, again on Error::is_conflict)
    }

    /// The rows in a range of keys, as they are now; later changes do not show.
    ///
    /// ```no_run
    /// # async fn example(kv: strongroom::kv::Kv) -> strongroom::Result<()> {
    /// use strongroom::kv::prefix;
    /// let mut scan = kv.scan(prefix(b"user/"));
    /// while let Some((key, value)) = scan.next().await? {
    ///     println!("{key:?}: {} bytes", value.len());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn scan(&self, range: impl RangeBounds<[u8]>) -> Scan<Snapshot> {
        Scan::new(self.engine.snapshot(), self.table, range, Direction::Ascending)
    }

    /// As [`Kv::scan`], the last key first.
    pub fn scan_reverse(&self, range: impl RangeBounds<[u8]>) -> Scan<Snapshot> {
        Scan::new(self.engine.snapshot(), self.table, range, Direction::Descending)
    }

    /// All keys as they are now, kept so for as long as the snapshot is held.
    #[must_use]
    pub fn snapshot(&self) -> KvSnapshot {
        self.at(self.engine.snapshot())
    }

    /// All keys at the state of an engine snapshot.
    #[must_use]
    pub fn at(&self, snapshot: Snapshot) -> KvSnapshot {
        KvSnapshot { snapshot, table: self.table }
    }

    /// Learns what other processes have committed since.
    pub(crate) async fn refresh(&self) -> Result<()> {
        self.engine.refresh().await
    }

    /// Begins a transaction on the newest state that this process knows.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        Transaction { transaction: self.engine.begin(), engine: self.engine.clone(), table: self.table }
    }

    /// Runs the closure in a transaction and commits it; runs it again where another transaction changed what it had read.
    /// The future stays on its thread; for one that can move, loop over [`Kv::begin`] and [`Transaction::commit`].
    ///
    /// # Errors
    /// What the closure answers; [`Error::Conflict`] where it lost every time; what the commit raises.
    pub async fn transact<T, E: From<Error>>(
        &self,
        mut closure: impl AsyncFnMut(&mut Transaction) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        transact!(self, transaction => closure(&mut transaction).await, again on |_: &E| false)
    }
}

/// Keys and values as they were at one moment, for reading; cheap to clone.
#[derive(Clone)]
pub struct KvSnapshot {
    snapshot: Snapshot,
    table: Table,
}

impl KvSnapshot {
    /// The number of the commit whose state this is.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.snapshot.sequence()
    }

    /// Counts the keys of all tables and what they refer to, and with `data` reads every value. Damage is told, and what comes
    /// after it is looked at all the same; answers `None` where not all could be counted.
    pub(crate) async fn check(
        &self,
        data: bool,
        references: &mut Counts,
        found: &mut (impl FnMut(String) + Send),
    ) -> Result<Option<u64>> {
        let snapshot = &self.snapshot;
        let (mut keys, mut is_whole) = (0, true);
        for (number, table) in tables().enumerate() {
            let mut scan = snapshot.scan(table, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
            loop {
                let (key, row) = match scan.next().await {
                    Ok(Some(row)) => row,
                    Ok(None) => break,
                    Err(error) if is_damage(&error) => {
                        // A node of the tree: what it leads to is not known.
                        is_whole = false;
                        found(format!("table {number}: {error}"));
                        break;
                    }
                    Err(error) => return Err(error),
                };
                keys += 1;
                let mut tell = |error: Error| match is_damage(&error) {
                    true => {
                        found(format!("table {number}, key \"{}\": {error}", key.escape_ascii()));
                        Ok(())
                    }
                    false => Err(error),
                };
                match chunks_of(snapshot, &row).await {
                    Ok(numbers) => {
                        for number in numbers {
                            references.add(number.0);
                        }
                    }
                    Err(error) => {
                        is_whole = false;
                        tell(error)?;
                        continue;
                    }
                }
                if data && let Err(error) = fetch(snapshot, &row).await {
                    tell(error)?;
                }
            }
        }
        Ok(is_whole.then_some(keys))
    }

    /// The value that a key had; `None` where there was none.
    ///
    /// # Errors
    /// As [`Kv::get`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        get(&self.snapshot, self.table, key).await
    }

    /// The rows in a range of keys.
    pub fn scan(&self, range: impl RangeBounds<[u8]>) -> Scan<Snapshot> {
        Scan::new(self.snapshot.clone(), self.table, range, Direction::Ascending)
    }

    /// As [`KvSnapshot::scan`], the last key first.
    pub fn scan_reverse(&self, range: impl RangeBounds<[u8]>) -> Scan<Snapshot> {
        Scan::new(self.snapshot.clone(), self.table, range, Direction::Descending)
    }
}

/// A read-write transaction on keys. Dropping it aborts it. An operation that fails, or whose future is dropped, changes nothing,
/// and the transaction goes on.
pub struct Transaction {
    transaction: EngineTransaction,
    engine: Engine,
    table: Table,
}

impl Transaction {
    fn rows(&mut self) -> KvRows<'_> {
        KvRows::new(&mut self.transaction, &self.engine, self.table)
    }

    /// The value of a key, as this transaction sees it.
    ///
    /// # Errors
    /// As [`Kv::get`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        get(&self.transaction, self.table, key).await
    }

    /// Sets a key.
    ///
    /// # Errors
    /// As [`Kv::put`].
    pub async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.rows().put(key, value).await
    }

    /// Removes a key; answers whether it was there.
    ///
    /// # Errors
    /// As [`Kv::delete`].
    pub async fn delete(&mut self, key: &[u8]) -> Result<bool> {
        self.rows().delete(key).await
    }

    /// The rows in a range of keys, this transaction's own writes included. The whole range counts as read.
    pub fn scan(&self, range: impl RangeBounds<[u8]>) -> Scan<&EngineTransaction> {
        Scan::new(&self.transaction, self.table, range, Direction::Ascending)
    }

    /// As [`Transaction::scan`], the last key first.
    pub fn scan_reverse(&self, range: impl RangeBounds<[u8]>) -> Scan<&EngineTransaction> {
        Scan::new(&self.transaction, self.table, range, Direction::Descending)
    }

    /// Bytes that this transaction holds in memory until it commits.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.transaction.pending_bytes()
    }

    /// Makes it durable, all or nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] where another transaction changed what this one had read; what the storage raises.
    pub async fn commit(self) -> Result<CommitInfo> {
        self.transaction.commit().await
    }
}

/// The keys and values of a transaction that holds more than those: see [`crate::Transaction::kv`] and
/// [`crate::Transaction::table`]. An operation that fails, or whose future is dropped, changes nothing.
pub struct KvRows<'t> {
    transaction: &'t mut EngineTransaction,
    engine: &'t Engine,
    table: Table,
}

impl<'t> KvRows<'t> {
    pub(crate) fn new(transaction: &'t mut EngineTransaction, engine: &'t Engine, table: Table) -> Self {
        Self { transaction, engine, table }
    }

    /// The value of a key, as the transaction sees it.
    ///
    /// # Errors
    /// As [`Kv::get`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        get(&*self.transaction, self.table, key).await
    }

    /// Sets a key.
    ///
    /// # Errors
    /// As [`Kv::put`].
    pub async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        check_limit("value_bytes", value.len(), VALUE_BYTES_MAX)?;
        check_limit("key_bytes", key.len(), self.engine.key_bytes_max())?;
        let before = self.held(key).await?.unwrap_or_default();
        let room = self.engine.row_bytes_max().saturating_sub(key.len());
        let mut stored = Stored { transaction: &mut *self.transaction, numbers: Vec::new() };
        let row = stored.value(value, room, self.engine.chunk_bytes_max().max(1)).await?;
        // From here on nothing waits: what the key had goes, and what it has now stays, at one stroke.
        stored.transaction.put(self.table, key, &row)?;
        stored.numbers.clear();
        drop(stored);
        self.release(before)
    }

    /// Removes a key; answers whether it was there.
    ///
    /// # Errors
    /// As [`Kv::delete`].
    pub async fn delete(&mut self, key: &[u8]) -> Result<bool> {
        let Some(before) = self.held(key).await? else { return Ok(false) };
        self.transaction.delete(self.table, key)?;
        self.release(before)?;
        Ok(true)
    }

    /// The rows in a range of keys, the transaction's own writes included. The whole range counts as read.
    pub fn scan(&self, range: impl RangeBounds<[u8]>) -> Scan<&EngineTransaction> {
        Scan::new(&*self.transaction, self.table, range, Direction::Ascending)
    }

    /// As [`KvRows::scan`], the last key first.
    pub fn scan_reverse(&self, range: impl RangeBounds<[u8]>) -> Scan<&EngineTransaction> {
        Scan::new(&*self.transaction, self.table, range, Direction::Descending)
    }

    /// The chunks of the value that a key has now; `None` where it has none.
    async fn held(&self, key: &[u8]) -> Result<Option<Vec<ChunkNumber>>> {
        match self.transaction.get(self.table, key).await? {
            Some(row) => chunks_of(&*self.transaction, &row).await.map(Some),
            None => Ok(None),
        }
    }

    fn release(&mut self, numbers: Vec<ChunkNumber>) -> Result<()> {
        numbers.into_iter().try_for_each(|number| self.transaction.release_chunk(number))
    }
}

/// Chunks of a value that no row names yet. Dropped before one does, as where storage fails or nobody waits any more, they are
/// given up again: nothing would ever release them.
struct Stored<'t> {
    transaction: &'t mut EngineTransaction,
    numbers: Vec<ChunkNumber>,
}

impl Drop for Stored<'_> {
    fn drop(&mut self) {
        for number in std::mem::take(&mut self.numbers) {
            // Refused only where nothing can be committed any more.
            let _ = self.transaction.release_chunk(number);
        }
    }
}

impl Stored<'_> {
    /// The row for a value, at most `room` bytes long; what does not fit into it is stored in chunks.
    async fn value(&mut self, value: &[u8], room: usize, chunk_bytes: usize) -> Result<Vec<u8>> {
        if value.len() < room {
            return Ok([&[INLINE], value].concat());
        }
        let mut list = Vec::with_capacity(value.len().div_ceil(chunk_bytes) * NUMBER_BYTES);
        for piece in value.chunks(chunk_bytes) {
            let number = self.chunk(Bytes::copy_from_slice(piece)).await?;
            list.extend_from_slice(&number.0.to_le_bytes());
        }
        let mut kind = CHUNKS;
        if PREFIX_BYTES + list.len() > room {
            kind = LISTED;
            let number = self.chunk(Bytes::from(list)).await?;
            list = number.0.to_le_bytes().to_vec();
        }
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        Ok([&[kind], &length.to_le_bytes()[..], &list].concat())
    }

    async fn chunk(&mut self, payload: Bytes) -> Result<ChunkNumber> {
        let number = self.transaction.put_chunk(None, payload).await?;
        self.numbers.push(number);
        Ok(number)
    }
}

fn check_limit(what: &'static str, value: usize, limit: usize) -> Result<()> {
    if value <= limit {
        return Ok(());
    }
    let wide = |value| u64::try_from(value).unwrap_or(u64::MAX);
    Err(Error::LimitExceeded { what, value: wide(value), limit: wide(limit) })
}

#[cfg(test)]
mod tests;
