//! Reading: what snapshots and transactions have in common.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt as _, stream};

use super::nodes::Nodes;
use super::root::{Overlay, Root, Side};
use super::shared::{Pin, Shared};
use super::{ChunkNumber, Table};
use crate::format::rows::{self, ChunkRow, Place, SnapshotRow};
use crate::format::{Pointer, RecordKind, SEAL_BYTES};
use crate::storage::MaybeSendSync;
use crate::tree::{Direction, MergedCursor, TreeRoot};
use crate::{Error, Result};

/// Of so many lost blocks at once it is found out why.
const EXPLAINED_AT_ONCE: usize = 4;

/// Who reads chunks one after the other over a network wants so many bytes at once ([`View::chunks`]), so that what lies together
/// comes together; elsewhere one chunk.
pub const BATCH_REMOTE_BYTES: u64 = 1 << 20;

/// Reading at one state: what snapshots and transactions have in common.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait View: MaybeSendSync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::Expired`]; what the storage raises.
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>>;

    /// The rows in a range of keys; a transaction sees its own writes. The whole range counts as read.
    fn scan(&self, table: Table, range: (Bound<&[u8]>, Bound<&[u8]>), direction: Direction) -> Scan;

    /// The payload of a chunk, as given to `put_chunk`.
    ///
    /// # Errors
    /// [`Error::Damaged`] where no such chunk is, or its records do not authenticate; [`Error::Expired`].
    async fn chunk(&self, number: ChunkNumber) -> Result<Bytes>;

    /// The payloads of several chunks, in their order, each as [`View::chunk`] answers it: what is wrong with one is said of that
    /// one. All of them are held at once. Where the storage is remote, those that lie together there come by one request.
    async fn chunks(&self, numbers: &[ChunkNumber]) -> Vec<Result<Bytes>> {
        join_all(numbers.iter().map(|number| self.chunk(*number))).await
    }
}

/// A running scan.
pub struct Scan {
    cursor: MergedCursor<Arc<Nodes>>,
    shared: Arc<Shared>,
    pin: Arc<Pin>,
}

impl Scan {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pin: Arc<Pin>,
        tree: Option<TreeRoot>,
        overlay: Overlay,
        range: (Bound<Bytes>, Bound<Bytes>),
        direction: Direction,
    ) -> Self {
        Self { cursor: MergedCursor::new(shared.nodes.clone(), tree, overlay, range, direction), shared, pin }
    }

    /// The next row: key (without the table byte) and value.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::Expired`]; what the storage raises.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        match self.cursor.next().await {
            Ok(row) => Ok(row.map(|(key, value)| (key.slice(1.min(key.len())..), value))),
            Err(error) => Err(self.shared.explain(error, self.pin.sequence).await),
        }
    }
}

/// A table's range as keys with their table byte.
pub(crate) fn table_range(table: u8, range: (Bound<&[u8]>, Bound<&[u8]>)) -> (Bound<Bytes>, Bound<Bytes>) {
    let start = match range.0 {
        Bound::Included(key) => Bound::Included(rows::table_key(table, key)),
        Bound::Excluded(key) => Bound::Excluded(rows::table_key(table, key)),
        Bound::Unbounded => Bound::Included(rows::table_key(table, &[])),
    };
    let end = match range.1 {
        Bound::Included(key) => Bound::Included(rows::table_key(table, key)),
        Bound::Excluded(key) => Bound::Excluded(rows::table_key(table, key)),
        Bound::Unbounded => match table.checked_add(1) {
            Some(next) => Bound::Excluded(rows::table_key(next, &[])),
            None => Bound::Unbounded,
        },
    };
    (start, end)
}

/// A chunk of its pieces.
fn joined(pieces: Vec<Result<Bytes>>) -> Result<Bytes> {
    let pieces = pieces.into_iter().collect::<Result<Vec<Bytes>>>()?;
    match pieces.as_slice() {
        [whole] => Ok(whole.clone()),
        pieces => Ok(pieces.concat().into()),
    }
}

impl Shared {
    pub(crate) fn scan_root(
        self: &Arc<Self>,
        root: &Root,
        pin: &Arc<Pin>,
        table: u8,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
    ) -> Scan {
        let side = root.side(table);
        Scan::new(self.clone(), pin.clone(), side.tree, side.overlay.clone(), table_range(table, range), direction)
    }

    pub(crate) async fn get_at(&self, root: &Root, key: &[u8]) -> Result<Option<Bytes>> {
        match root.get(&self.nodes, key).await {
            Err(error) => Err(self.explain(error, root.sequence).await),
            found => found,
        }
    }

    pub(crate) async fn chunk_row(&self, root: &Root, number: u64) -> Result<ChunkRow> {
        let row = self
            .get_at(root, &rows::chunk_key(number))
            .await?
            .ok_or_else(|| Error::damaged("chunk", None, format!("chunk {number:#x} has no row")))?;
        ChunkRow::decode(&row).map_err(|error| Error::damaged("chunk", None, error.to_string()))
    }

    pub(crate) async fn chunk_payload(&self, row: &ChunkRow) -> Result<Bytes> {
        self.payload_at(&row.place).await
    }

    pub(crate) async fn payload_at(&self, place: &Place) -> Result<Bytes> {
        match place {
            Place::Inline(bytes) => Ok(bytes.clone()),
            Place::Records(pointers) => self.records_payload(pointers).await,
        }
    }

    /// What the records of a chunk hold together.
    pub(crate) async fn records_payload(&self, pointers: &[Pointer]) -> Result<Bytes> {
        if let [pointer] = pointers {
            return self.blocks.read(pointer, RecordKind::ChunkData).await;
        }
        let lengths = pointers.iter().map(|pointer| (pointer.length as usize).saturating_sub(SEAL_BYTES));
        let total = lengths.clone().fold(0, usize::saturating_add);
        self.check_length(total as u64)?;
        let mut payload = vec![0; total];
        let mut rest = payload.as_mut_slice();
        let mut reads = Vec::with_capacity(pointers.len());
        for (pointer, length) in pointers.iter().zip(lengths) {
            let (piece, after) = rest.split_at_mut(length);
            rest = after;
            reads.push(self.blocks.read_into(pointer, RecordKind::ChunkData, piece));
        }
        try_join_all(reads).await?;
        Ok(Bytes::from(payload))
    }

    /// Of what is longer than a chunk can be nothing is read.
    fn check_length(&self, payload_bytes: u64) -> Result<()> {
        if payload_bytes > self.chunk_bytes_max() as u64 {
            return Err(Error::damaged("chunk", None, "longer than any"));
        }
        Ok(())
    }

    /// What several chunks hold, in their order; where the storage is remote, by one request for those that lie together.
    pub(crate) async fn chunk_payloads(&self, rows: Vec<Result<ChunkRow>>) -> Vec<Result<Bytes>> {
        // A request to a storage that is near costs less than opening records elsewhere than where they came.
        if !self.context.storage.is_remote() {
            return join_all(rows.into_iter().map(|row| async move { self.chunk_payload(&row?).await })).await;
        }
        let checked = |row: ChunkRow| self.check_length(row.place.payload_bytes()).map(|()| row.place);
        let places: Vec<Result<Place>> = rows.into_iter().map(|row| row.and_then(checked)).collect();
        let pointers: Vec<Pointer> = places.iter().flatten().flat_map(Place::pointers).copied().collect();
        let mut pieces = self.blocks.read_many(&pointers, RecordKind::ChunkData).await.into_iter();
        let mut payload = |place| match place {
            Place::Inline(bytes) => Ok(bytes),
            Place::Records(pointers) => joined(pieces.by_ref().take(pointers.len()).collect()),
        };
        places.into_iter().map(|place| place.and_then(&mut payload)).collect()
    }

    pub(crate) async fn chunks_at(&self, root: &Root, numbers: &[ChunkNumber]) -> Vec<Result<Bytes>> {
        let mut rows = Vec::with_capacity(numbers.len());
        for number in numbers {
            rows.push(self.chunk_row(root, number.0).await);
        }
        let payloads = self.chunk_payloads(rows).await;
        self.explain_each(payloads, root.sequence).await
    }

    /// As [`Shared::explain`], of each that was not to be had: once for each block, and a few at a time, as each look finds the head
    /// anew and holds the state there.
    pub(crate) async fn explain_each(&self, mut payloads: Vec<Result<Bytes>>, sequence: u64) -> Vec<Result<Bytes>> {
        let mut missing = BTreeMap::new();
        for error in payloads.iter().filter_map(|payload| payload.as_ref().err()) {
            if let Error::Missing { blob, .. } = error {
                missing.entry(*blob).or_insert_with(|| error.clone());
            }
        }
        let looks = missing.into_iter().map(|(blob, error)| async move { (blob, self.explain(error, sequence).await) });
        let explained: BTreeMap<_, _> = stream::iter(looks).buffer_unordered(EXPLAINED_AT_ONCE).collect().await;
        for payload in &mut payloads {
            if let Err(error) = payload
                && let Error::Missing { blob, .. } = error
                && let Some(explained) = explained.get(blob)
            {
                *error = explained.clone();
            }
        }
        payloads
    }

    pub(crate) async fn chunk_at(&self, root: &Root, number: u64) -> Result<Bytes> {
        let row = self.chunk_row(root, number).await?;
        match self.chunk_payload(&row).await {
            Err(error) => Err(self.explain(error, root.sequence).await),
            payload => payload,
        }
    }
}

/// A pinned state, read only; cheap to clone. What it shows never changes.
#[derive(Clone)]
pub struct Snapshot {
    shared: Arc<Shared>,
    /// The content that is shown. Where it is a kept one, places of chunks are those of the state that was the newest when
    /// it was opened, and that is pinned: chunks move.
    root: Arc<Root>,
    pin: Arc<Pin>,
    sequence: u64,
}

impl Snapshot {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let (root, pin) = shared.pin();
        Self { shared: shared.clone(), sequence: root.sequence, root, pin }
    }

    pub(super) fn of(shared: &Arc<Shared>, root: &Arc<Root>, pin: &Arc<Pin>) -> Self {
        Self { shared: shared.clone(), root: root.clone(), pin: pin.clone(), sequence: root.sequence }
    }

    /// The content of a checkpoint that is kept, seen from a pinned state.
    pub(super) fn kept(shared: &Arc<Shared>, root: &Root, pin: Arc<Pin>, row: &SnapshotRow) -> Self {
        let tree = row.content.map(|(height, pointer)| TreeRoot { pointer, height });
        let content = Side { tree, overlay: Overlay::new() };
        let root = Arc::new(Root { content, ..root.clone() });
        Self { shared: shared.clone(), root, pin, sequence: row.sequence }
    }

    pub(super) fn root(&self) -> &Arc<Root> {
        &self.root
    }

    pub(super) fn content(&self) -> &Side {
        &self.root.content
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn pin(&self) -> &Arc<Pin> {
        &self.pin
    }

    /// Whether what it reads comes over a network: see [`Storage::is_remote`](crate::storage::Storage::is_remote).
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.shared.context.storage.is_remote()
    }

    /// The commit whose state this is.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl View for Snapshot {
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.shared.get_at(&self.root, &rows::table_key(table.0, key)).await
    }

    fn scan(&self, table: Table, range: (Bound<&[u8]>, Bound<&[u8]>), direction: Direction) -> Scan {
        self.shared.scan_root(&self.root, &self.pin, table.0, range, direction)
    }

    async fn chunk(&self, number: ChunkNumber) -> Result<Bytes> {
        self.shared.chunk_at(&self.root, number.0).await
    }

    async fn chunks(&self, numbers: &[ChunkNumber]) -> Vec<Result<Bytes>> {
        self.shared.chunks_at(&self.root, numbers).await
    }
}
