//! Chunks on their way from the source: by the workers, and together where they lie together.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::Contents;
use crate::crypto::Keys;
use crate::engine::view::Snapshot;
use crate::engine::{BATCH_REMOTE_BYTES, ChunkNumber, Engine};
use crate::env::TaskHandle;
use crate::format::rows::ChunkRow;
use crate::{Error, Result};

/// A chunk for the target.
pub(super) struct Fetched {
    pub(super) identity: Option<[u8; 32]>,
    pub(super) payload: Bytes,
}

/// Fetches chunks, and gives them out in about the order in which they were asked for.
pub(super) struct Fetching {
    target: Engine,
    contents: Arc<dyn Contents>,
    gathered: Option<Gathered>,
    under_way: VecDeque<Batch>,
    arrived: HashMap<ChunkNumber, Result<Fetched>>,
}

/// Chunks to be fetched together, as of the state in which they were looked for.
struct Gathered {
    snapshot: Snapshot,
    numbers: Vec<ChunkNumber>,
    rows: Vec<ChunkRow>,
    bytes: u64,
}

struct Batch {
    numbers: Vec<ChunkNumber>,
    task: TaskHandle<Vec<Result<Fetched>>>,
}

impl Fetching {
    pub(super) fn new(target: &Engine, contents: Arc<dyn Contents>) -> Self {
        let (gathered, under_way, arrived) = (None, VecDeque::new(), HashMap::new());
        Self { target: target.clone(), contents, gathered, under_way, arrived }
    }

    /// Has a chunk fetched, once there is enough beside it.
    pub(super) fn ask(&mut self, snapshot: &Snapshot, number: ChunkNumber, row: ChunkRow) {
        let is_of = |gathered: &Gathered| Arc::ptr_eq(gathered.snapshot.root(), snapshot.root());
        if !self.gathered.as_ref().is_some_and(is_of) {
            self.start();
        }
        let gathered = self.gathered.get_or_insert_with(|| Gathered {
            snapshot: snapshot.clone(),
            numbers: Vec::new(),
            rows: Vec::new(),
            bytes: 0,
        });
        gathered.bytes = gathered.bytes.saturating_add(row.place.payload_bytes());
        gathered.numbers.push(number);
        gathered.rows.push(row);
        if !snapshot.is_remote() || gathered.bytes >= BATCH_REMOTE_BYTES {
            self.start();
        }
    }

    /// A chunk that was asked for, once.
    pub(super) async fn take(&mut self, number: ChunkNumber) -> Result<Fetched> {
        loop {
            if let Some(fetched) = self.arrived.remove(&number) {
                return fetched;
            }
            if self.under_way.is_empty() {
                self.start();
            }
            let Batch { numbers, task } = self.under_way.pop_front().ok_or(Error::WorkerLost)?;
            self.arrived.extend(numbers.into_iter().zip(task.await.ok_or(Error::WorkerLost)?));
        }
    }

    /// A chunk that moved since it was looked for.
    pub(super) async fn again(&self, snapshot: &Snapshot, row: ChunkRow) -> Result<Fetched> {
        let fetched = fetch(snapshot.clone(), self.target.keys().clone(), self.contents.clone(), vec![row]).await;
        fetched.into_iter().next().unwrap_or(Err(Error::WorkerLost))
    }

    fn start(&mut self) {
        let Some(Gathered { snapshot, numbers, rows, .. }) = self.gathered.take() else { return };
        let fetch = fetch(snapshot, self.target.keys().clone(), self.contents.clone(), rows);
        self.under_way.push_back(Batch { numbers, task: self.target.env().spawn_wanted(fetch) });
    }
}

/// Reads chunks, and finds what their identities are in the target.
async fn fetch(
    snapshot: Snapshot,
    target: Arc<Keys>,
    contents: Arc<dyn Contents>,
    rows: Vec<ChunkRow>,
) -> Vec<Result<Fetched>> {
    let shared = snapshot.shared();
    let payloads = shared.chunk_payloads(rows.iter().cloned().map(Ok).collect()).await;
    let payloads = shared.explain_each(payloads, snapshot.root().sequence).await;
    let for_target = |(row, payload): (_, Result<Bytes>)| {
        payload.and_then(|payload| for_target(&snapshot, &target, contents.as_ref(), row, &payload))
    };
    rows.iter().zip(payloads).map(for_target).collect()
}

fn for_target(
    snapshot: &Snapshot,
    target: &Keys,
    contents: &dyn Contents,
    row: &ChunkRow,
    payload: &Bytes,
) -> Result<Fetched> {
    let shared = snapshot.shared();
    let mut identity = None;
    if let Some(known) = &row.identity {
        let plain = contents.plain(payload, shared.chunk_bytes_max())?;
        if shared.context.keys.identity(&plain) != *known {
            return Err(Error::damaged("chunk", None, "its content has another identity than its row says"));
        }
        identity = Some(target.identity(&plain));
    }
    // Copied: it may be a slice of more than it is, and is held until its block is sealed.
    Ok(Fetched { identity, payload: Bytes::copy_from_slice(payload) })
}
