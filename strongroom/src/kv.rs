//! An encrypted, transactional, ordered key-value store: the engine itself, for values of up to 16 MiB.
//!
//! Keys are ordered by their bytes. Small values lie beside their key; larger ones are cut into chunks of their own.
//!
//! ```text
//! row = 0 u8 ‖ value                                              while it fits beside the key
//!     | 1 u8 ‖ length u64 ‖ number u64 of each chunk, in order    else
//!     | 2 u8 ‖ length u64 ‖ number u64 of the chunk that holds that list, where the list does not fit either
//! ```

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;
use strongroom_core::engine::{
    self, ChunkNumber, CommitInfo, ConflictTest as _, Counts, Direction, Engine, Snapshot, Table,
    Transaction as EngineTransaction, View,
};
use strongroom_core::{Error, Result};

/// The table that keys lie in.
pub(crate) const TABLE: Table = Table(0x80);

/// The largest value in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

const INLINE: u8 = 0;
const CHUNKS: u8 = 1;
const LISTED: u8 = 2;
/// Kind and length.
const PREFIX_BYTES: usize = 9;
const NUMBER_BYTES: usize = 8;

/// How often [`Kv::transact`] runs its closure before it gives up.
pub(crate) const ATTEMPTS_MAX: u32 = 64;

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

/// The key-value store of a repository; cheap to clone, usable from many tasks.
#[derive(Clone)]
pub struct Kv {
    engine: Engine,
}

impl Kv {
    /// The store on an engine.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine }
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
        get(&self.engine.snapshot(), key).await
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
        Scan::new(self.engine.snapshot(), range, Direction::Ascending)
    }

    /// As [`Kv::scan`], the last key first.
    pub fn scan_reverse(&self, range: impl RangeBounds<[u8]>) -> Scan<Snapshot> {
        Scan::new(self.engine.snapshot(), range, Direction::Descending)
    }

    /// All keys as they are now, kept so for as long as the snapshot is held.
    #[must_use]
    pub fn snapshot(&self) -> KvSnapshot {
        self.at(self.engine.snapshot())
    }

    /// All keys at the state of an engine snapshot.
    #[must_use]
    pub fn at(&self, snapshot: Snapshot) -> KvSnapshot {
        KvSnapshot { snapshot }
    }

    /// Learns what other processes have committed since.
    pub(crate) async fn refresh(&self) -> Result<()> {
        self.engine.refresh().await
    }

    /// Counts the keys and what they refer to, and with `data` reads every value.
    pub(crate) async fn check(&self, data: bool, references: &mut Counts) -> Result<u64> {
        let snapshot = self.engine.snapshot();
        let mut scan = snapshot.scan(TABLE, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
        let mut keys = 0;
        while let Some((_, row)) = scan.next().await? {
            keys += 1;
            let value = Value::read(&row)?;
            for number in value.numbers(&snapshot).await? {
                references.add(number.0);
            }
            if let Value::Listed { list, .. } = value {
                references.add(list.0);
            }
            if data {
                fetch(&snapshot, &row).await?;
            }
        }
        Ok(keys)
    }

    /// Begins a transaction on the newest state that this process knows.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        Transaction { transaction: self.engine.begin(), engine: self.engine.clone() }
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
}

impl KvSnapshot {
    /// The number of the commit whose state this is.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.snapshot.sequence()
    }

    /// The value that a key had; `None` where there was none.
    ///
    /// # Errors
    /// As [`Kv::get`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        get(&self.snapshot, key).await
    }

    /// The rows in a range of keys.
    pub fn scan(&self, range: impl RangeBounds<[u8]>) -> Scan<Snapshot> {
        Scan::new(self.snapshot.clone(), range, Direction::Ascending)
    }

    /// As [`KvSnapshot::scan`], the last key first.
    pub fn scan_reverse(&self, range: impl RangeBounds<[u8]>) -> Scan<Snapshot> {
        Scan::new(self.snapshot.clone(), range, Direction::Descending)
    }
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

impl KvSnapshot {
    /// Looks at every row, and at no value that is not in it.
    pub(crate) async fn value_bytes(&self, chunk_bytes_max: usize) -> Result<ValueBytes> {
        let mut counted = ValueBytes::default();
        let mut scan = self.snapshot.scan(TABLE, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
        while let Some((_, row)) = scan.next().await? {
            let value = Value::read(&row)?;
            let bytes = match value {
                Value::Inline(ref value) => u64::try_from(value.len()).unwrap_or(u64::MAX),
                Value::Chunks { length, .. } | Value::Listed { length, .. } => length,
            };
            counted.value_bytes = counted.value_bytes.saturating_add(bytes);
            match value {
                Value::Inline(_) => counted.inline_bytes = counted.inline_bytes.saturating_add(bytes),
                Value::Listed { .. } => {
                    let chunks = bytes.div_ceil(u64::try_from(chunk_bytes_max).unwrap_or(u64::MAX).max(1));
                    counted.list_bytes = counted.list_bytes.saturating_add(chunks.saturating_mul(NUMBER_BYTES as u64));
                }
                Value::Chunks { .. } => {}
            }
        }
        Ok(counted)
    }
}

/// A read-write transaction on keys. Dropping it aborts it.
pub struct Transaction {
    transaction: EngineTransaction,
    engine: Engine,
}

impl Transaction {
    fn rows(&mut self) -> KvRows<'_> {
        KvRows::new(&mut self.transaction, &self.engine)
    }

    /// The value of a key, as this transaction sees it.
    ///
    /// # Errors
    /// As [`Kv::get`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        get(&self.transaction, key).await
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
        Scan::new(&self.transaction, range, Direction::Ascending)
    }

    /// As [`Transaction::scan`], the last key first.
    pub fn scan_reverse(&self, range: impl RangeBounds<[u8]>) -> Scan<&EngineTransaction> {
        Scan::new(&self.transaction, range, Direction::Descending)
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

/// The keys and values of a transaction that holds more than those: see [`crate::Transaction::kv`].
pub struct KvRows<'t> {
    transaction: &'t mut EngineTransaction,
    engine: &'t Engine,
}

impl<'t> KvRows<'t> {
    pub(crate) fn new(transaction: &'t mut EngineTransaction, engine: &'t Engine) -> Self {
        Self { transaction, engine }
    }

    /// The value of a key, as the transaction sees it.
    ///
    /// # Errors
    /// As [`Kv::get`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        get(&*self.transaction, key).await
    }

    /// Sets a key.
    ///
    /// # Errors
    /// As [`Kv::put`].
    pub async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        check_limit("value_bytes", value.len(), VALUE_BYTES_MAX)?;
        check_limit("key_bytes", key.len(), self.engine.key_bytes_max())?;
        self.free(key).await?;
        let row = self.store(key, value).await?;
        self.transaction.put(TABLE, key, &row)
    }

    /// Removes a key; answers whether it was there.
    ///
    /// # Errors
    /// As [`Kv::delete`].
    pub async fn delete(&mut self, key: &[u8]) -> Result<bool> {
        let was_there = self.free(key).await?;
        if was_there {
            self.transaction.delete(TABLE, key)?;
        }
        Ok(was_there)
    }

    /// The rows in a range of keys, the transaction's own writes included. The whole range counts as read.
    pub fn scan(&self, range: impl RangeBounds<[u8]>) -> Scan<&EngineTransaction> {
        Scan::new(&*self.transaction, range, Direction::Ascending)
    }

    /// As [`KvRows::scan`], the last key first.
    pub fn scan_reverse(&self, range: impl RangeBounds<[u8]>) -> Scan<&EngineTransaction> {
        Scan::new(&*self.transaction, range, Direction::Descending)
    }

    /// Gives up the chunks of the value that a key has now; answers whether it has one.
    async fn free(&mut self, key: &[u8]) -> Result<bool> {
        let Some(row) = self.transaction.get(TABLE, key).await? else { return Ok(false) };
        let value = Value::read(&row)?;
        for number in value.numbers(&*self.transaction).await? {
            self.transaction.release_chunk(number)?;
        }
        if let Value::Listed { list, .. } = value {
            self.transaction.release_chunk(list)?;
        }
        Ok(true)
    }

    /// The row for a value; what does not fit into it is stored in chunks.
    async fn store(&mut self, key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        let room = self.engine.row_bytes_max().saturating_sub(key.len());
        if value.len() < room {
            return Ok([&[INLINE], value].concat());
        }
        let chunk_bytes = self.engine.chunk_bytes_max().max(1);
        let mut list = Vec::with_capacity(value.len().div_ceil(chunk_bytes) * NUMBER_BYTES);
        for piece in value.chunks(chunk_bytes) {
            let number = self.transaction.put_chunk(None, Bytes::copy_from_slice(piece)).await?;
            list.extend_from_slice(&number.0.to_le_bytes());
        }
        let mut kind = CHUNKS;
        if PREFIX_BYTES + list.len() > room {
            kind = LISTED;
            let number = self.transaction.put_chunk(None, Bytes::from(list)).await?;
            list = number.0.to_le_bytes().to_vec();
        }
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        Ok([&[kind], &length.to_le_bytes()[..], &list].concat())
    }
}

/// A running scan; see [`Kv::scan`].
pub struct Scan<V> {
    scan: engine::Scan,
    view: V,
}

impl<V: Borrowed> Scan<V> {
    fn new(view: V, range: impl RangeBounds<[u8]>, direction: Direction) -> Self {
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (range.start_bound(), range.end_bound());
        Self { scan: view.view().scan(TABLE, range, direction), view }
    }

    /// The next key and its value.
    ///
    /// # Errors
    /// As [`Kv::get`].
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let Some((key, row)) = self.scan.next().await? else { return Ok(None) };
        Ok(Some((key, fetch(self.view.view(), &row).await?)))
    }

    /// The next key and the length of its value in bytes; the value is not read.
    ///
    /// # Errors
    /// As [`Kv::get`].
    pub async fn next_key(&mut self) -> Result<Option<(Bytes, u64)>> {
        let Some((key, row)) = self.scan.next().await? else { return Ok(None) };
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

/// A row, taken apart.
enum Value {
    Inline(Bytes),
    Chunks { length: u64, numbers: Bytes },
    Listed { length: u64, list: ChunkNumber },
}

impl Value {
    fn read(row: &Bytes) -> Result<Self> {
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
    async fn numbers(&self, view: &impl View) -> Result<Vec<ChunkNumber>> {
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

async fn get(view: &impl View, key: &[u8]) -> Result<Option<Bytes>> {
    match view.get(TABLE, key).await? {
        Some(row) => fetch(view, &row).await.map(Some),
        None => Ok(None),
    }
}

async fn fetch(view: &impl View, row: &Bytes) -> Result<Bytes> {
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
    for piece in futures_util::future::join_all(numbers.into_iter().map(|number| view.chunk(number))).await {
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

fn check_limit(what: &'static str, value: usize, limit: usize) -> Result<()> {
    if value <= limit {
        return Ok(());
    }
    let wide = |value| u64::try_from(value).unwrap_or(u64::MAX);
    Err(Error::LimitExceeded { what, value: wide(value), limit: wide(limit) })
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn a_prefix_holds_exactly_the_keys_that_start_with_it() {
        let keys: [&[u8]; 8] = [b"", b"a", b"ab", b"ab\0", b"ab\xff\xff", b"ac", b"\xff", b"\xff\xff\x01"];
        for start in [&b""[..], b"a", b"ab", b"ab\xff", b"\xff", b"\xff\xff"] {
            for key in keys {
                assert_eq!(prefix(start).contains(key), key.starts_with(start), "{start:?} {key:?}");
            }
        }
    }

    fn store(block_bytes: u32) -> Kv {
        use std::sync::Arc;
        use strongroom_core::crypto::{KdfParameters, Suite};
        use strongroom_core::engine::keyring::Credentials;
        use strongroom_core::engine::{CreateOptions, Tuning};
        use strongroom_core::env::Env;

        let options = CreateOptions {
            credentials: &Credentials::password("test"),
            recovery: None,
            suite: Suite::preferred(),
            block_bytes,
            kdf: KdfParameters::MINIMUM,
            trusted: None,
            tuning: Tuning::default(),
        };
        let storage = Arc::new(strongroom_memory::MemoryStorage::new());
        Kv::new(block_on(Engine::create(storage, Env::deterministic(1), options)).unwrap())
    }

    async fn rows(kv: &Kv, range: impl RangeBounds<[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut scan = kv.scan(range);
        let mut rows = Vec::new();
        while let Some((key, value)) = scan.next().await.unwrap() {
            rows.push((key.to_vec(), value.to_vec()));
        }
        rows
    }

    #[test]
    fn values_of_every_size_come_back_from_small_and_large_blocks() {
        for block_bytes in [4 << 10, 128 << 10] {
            let kv = store(block_bytes);
            block_on(async {
                for size in [0, 1, 200, 500, 2_000, 5_000, 70_000, 1 << 20, VALUE_BYTES_MAX] {
                    let value: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
                    let key = format!("key {size}");
                    kv.put(key.as_bytes(), &value).await.unwrap();
                    assert!(kv.get(key.as_bytes()).await.unwrap().unwrap() == value, "{size} in {block_bytes}");
                }
                let too_large = vec![0; VALUE_BYTES_MAX + 1];
                assert!(matches!(kv.put(b"k", &too_large).await, Err(Error::LimitExceeded { .. })));
                let long = vec![b'k'; kv.key_bytes_max() + 1];
                assert!(matches!(kv.put(&long, b"v").await, Err(Error::LimitExceeded { .. })));
                let longest = vec![b'k'; kv.key_bytes_max()];
                kv.put(&longest, &[1; 3_000]).await.unwrap();
                assert!(kv.get(&longest).await.unwrap().unwrap() == vec![1; 3_000]);
            });
        }
    }

    #[test]
    fn overwriting_and_deleting_give_chunks_back() {
        let kv = store(4 << 10);
        block_on(async {
            for fill in 0..3 {
                kv.put(b"large", &vec![fill; 900_000]).await.unwrap();
            }
            let held = kv.engine.info().await.unwrap().chunks;
            kv.put(b"large", b"small now").await.unwrap();
            assert!(kv.delete(b"large").await.unwrap());
            assert!(!kv.delete(b"large").await.unwrap());
            assert_eq!(kv.get(b"large").await.unwrap(), None);
            assert!(held > 50 && kv.engine.info().await.unwrap().chunks == 0, "{held}");
        });
    }

    #[test]
    fn a_scan_shows_its_moment_and_a_transaction_its_own_writes() {
        let kv = store(128 << 10);
        block_on(async {
            for key in ["a", "b/1", "b/2", "c"] {
                kv.put(key.as_bytes(), key.as_bytes()).await.unwrap();
            }
            let mut before = kv.scan(..);
            let mut transaction = kv.begin();
            transaction.put(b"b/3", b"new").await.unwrap();
            transaction.delete(b"b/1").await.unwrap();
            let mut seen = Vec::new();
            let mut scan = transaction.scan_reverse(prefix(b"b/"));
            while let Some((key, _)) = scan.next().await.unwrap() {
                seen.push(key);
            }
            assert_eq!(seen, [&b"b/3"[..], b"b/2"]);
            assert_eq!(kv.get(b"b/3").await.unwrap(), None);
            transaction.commit().await.unwrap();
            assert_eq!(rows(&kv, prefix(b"b/")).await.len(), 2);
            assert_eq!(kv.get(b"b/3").await.unwrap().unwrap(), "new");
            let mut count = 0;
            while before.next_key().await.unwrap().is_some() {
                count += 1;
            }
            assert_eq!(count, 4);
        });
    }

    #[test]
    fn of_two_transactions_on_one_key_the_later_conflicts_and_transact_runs_it_again() {
        let kv = store(128 << 10);
        block_on(async {
            kv.put(b"n", b"0").await.unwrap();
            let (mut one, mut other) = (kv.begin(), kv.begin());
            one.put(b"n", b"1").await.unwrap();
            other.put(b"n", b"2").await.unwrap();
            one.commit().await.unwrap();
            assert!(matches!(other.commit().await, Err(Error::Conflict)));

            let mut runs = 0;
            kv.transact(async |transaction| {
                runs += 1;
                let seen = transaction.get(b"n").await?;
                if runs == 1 {
                    kv.put(b"n", b"3").await?;
                }
                transaction.put(b"sum", &seen.unwrap_or_default()).await
            })
            .await
            .unwrap();
            assert_eq!((runs, &kv.get(b"sum").await.unwrap().unwrap()[..]), (2, &b"3"[..]));
        });
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
        #[test]
        fn it_is_an_ordered_map(
            operations in proptest::collection::vec(
                (proptest::collection::vec(0_u8..3, 0..4), proptest::option::of(0_usize..9_000)),
                1..60,
            ),
        ) {
            let kv = store(4 << 10);
            let mut model = std::collections::BTreeMap::new();
            block_on(async {
                for (at, (key, value)) in operations.into_iter().enumerate() {
                    match value {
                        Some(size) => {
                            let value = vec![at as u8; size];
                            kv.put(&key, &value).await.unwrap();
                            model.insert(key, value);
                        }
                        None => assert_eq!(kv.delete(&key).await.unwrap(), model.remove(&key).is_some()),
                    }
                }
                for start in [&[][..], &[1], &[2, 0]] {
                    let expected: Vec<_> =
                        model.iter().filter(|(key, _)| key.starts_with(start)).map(|(k, v)| (k.clone(), v.clone())).collect();
                    assert!(rows(&kv, prefix(start)).await == expected);
                }
            });
        }
    }

    #[test]
    fn rows_that_make_no_sense_are_damage() {
        let long = [&[CHUNKS][..], &u64::MAX.to_le_bytes()].concat();
        let odd = [&[CHUNKS][..], &1_u64.to_le_bytes(), &[0; 7]].concat();
        let listless = [&[LISTED][..], &1_u64.to_le_bytes()].concat();
        for row in [vec![], vec![1], vec![9; 17], long, odd, listless] {
            assert!(matches!(Value::read(&Bytes::from(row)), Err(Error::Damaged(_))));
        }
        assert!(matches!(Value::read(&Bytes::from_static(&[0])), Ok(Value::Inline(value)) if value.is_empty()));
    }
}
