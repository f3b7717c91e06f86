//! The handle: what the clauses ask for, as frames of the log.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::bounds::{check_range, name_range, not_found};
use strongroom_core::storage::{
    BatchSupport, BlockingStorage, BlockingStore, Capabilities, Change, Durability, Effect, ListOrder, Name,
    OpenContext, OpenStores, Operation, Put, RangeReads, Reach, Result, StoreHandle, Torn,
};

use crate::error::{broken, failed, gone};
use crate::format::{BLOB_BYTES_MAX, Extent, Index, frame, note, write_mark};
use crate::opening::{Locked, Opened, Place, open};

pub(crate) const CAPABILITIES: Capabilities = Capabilities {
    reach: Reach::Process, // and a lock keeps other processes out
    durability: Durability::Power,
    torn: Torn::Never,
    batch: BatchSupport::Atomic, // a batch is one frame, with one checksum
    list_order: ListOrder::Ascending,
    range_reads: RangeReads::Native,
    block_bytes_best: 128 * 1024,
    block_bytes_max: BLOB_BYTES_MAX,
};

/// So many names come with one page of a listing.
const PAGE_NAMES: usize = 4096;

/// The logs that this process has open, by their real paths: all handles on one share it.
static OPEN: OpenStores<PathBuf, Log> = OpenStores::new();

/// A handle on a log. To open it, another process that has it open is waited for, a second.
pub type LogStorage = BlockingStorage<Log>;

/// An open log.
#[derive(Debug)]
pub struct Log {
    place: Place,
    file: Locked,
    /// Held over each change and each barrier, so that they come one after the other.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    index: Index,
    end: u64,
    /// Whether there is something that no barrier covered.
    is_dirty: bool,
    is_broken: bool,
    /// The sector of the next mark.
    sector: usize,
}

impl Log {
    fn new(place: Place, opened: Opened) -> Self {
        let Opened { file, index, end, sector } = opened;
        Self { place, file, state: Mutex::new(State { index, end, is_dirty: false, is_broken: false, sector }) }
    }

    /// No call panics while it holds this; if one did, the log on the medium is whole up to `end` all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For changes and barriers.
    fn begin(&self, operation: Operation) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.is_broken {
            return Err(broken(operation));
        }
        // A file without a name goes on taking writes, and they are lost.
        if self.place.names(&self.file) { Ok(state) } else { Err(gone(operation)) }
    }

    /// Writes a frame behind the others; answers its place. Its changes are not visible yet.
    fn append(&self, state: &mut State, operation: Operation, context: &str, changes: &[&Change]) -> Result<u64> {
        let place = state.end;
        let frame = frame(place, changes.iter().copied());
        if let Err(error) = self.file.write_all_at(&frame, place) {
            let error = failed(operation, context, error);
            // What is written next must not stand behind half a frame.
            return Err(match self.file.set_len(place) {
                Ok(()) => error.with_effect(Effect::None),
                Err(_) => {
                    state.is_broken = true;
                    error
                }
            });
        }
        state.end += frame.len() as u64;
        state.is_dirty = true;
        Ok(place)
    }

    fn barrier(&self, state: &mut State, operation: Operation) -> Result<()> {
        if !state.is_dirty {
            return Ok(());
        }
        if let Err(error) = self.file.sync_data() {
            state.is_broken = true;
            return Err(failed(operation, "the log", error));
        }
        state.is_dirty = false;
        // It comes onto the medium with the next barrier, or when the system likes. Until then a damaged tail is taken for one
        // that a crash tore, as without it.
        if let Ok(sector) = write_mark(&self.file, state.end, state.sector) {
            state.sector = sector;
        }
        Ok(())
    }

    fn put_as(&self, operation: Operation, name: Name, bytes: &Bytes) -> Result<Put> {
        let mut state = self.begin(operation)?;
        if state.index.contains_key(&name) {
            return Ok(Put::Exists);
        }
        let change = Change::Put(name, bytes.clone());
        let place = self.append(&mut state, operation, &name.to_hex(), &[&change])?;
        if operation == Operation::PutDurable {
            self.barrier(&mut state, operation)?;
        }
        note(place, [&change], &mut state.index);
        Ok(Put::Created)
    }

    fn extent(&self, operation: Operation, name: Name) -> Result<Extent> {
        let extent = self.lock().index.get(&name).copied();
        extent.ok_or_else(|| if self.place.names(&self.file) { not_found(operation, name) } else { gone(operation) })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // There is nobody to tell, and what no barrier covered was not promised.
        if let Ok(mut state) = self.begin(Operation::Sync) {
            let _ = self.barrier(&mut state, Operation::Sync);
        }
    }
}

#[async_trait]
impl BlockingStore for Log {
    const CAPABILITIES: Capabilities = CAPABILITIES;
    const BUSY_LOOKS: u32 = 200;

    async fn open(path: &Path, context: &OpenContext) -> Result<StoreHandle<Self>> {
        let (blocking, mode, path) = (context.blocking(), context.mode, path.to_owned());
        let place = blocking.run(Operation::Open, move || Place::find(&path)).await?;
        let entrance = OPEN.enter(place.path.clone()).await;
        let open = move || open(&place, mode).map(|opened| Self::new(place, opened));
        blocking.run(Operation::Open, move || entrance.open(open)).await
    }

    fn put(&self, name: Name, bytes: &Bytes) -> Result<Put> {
        self.put_as(Operation::Put, name, bytes)
    }

    fn put_durable(&self, name: Name, bytes: &Bytes) -> Result<Put> {
        self.put_as(Operation::PutDurable, name, bytes)
    }

    fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let extent = self.extent(Operation::Get, name)?;
        let range = check_range(name, range, extent.bytes.into(), max_bytes)?;
        // Within the blob, so within usize.
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let read = self.file.read_exact_at(&mut bytes, extent.at + range.start);
        read.map_err(|error| failed(Operation::Get, &name.to_hex(), error))?;
        Ok(bytes.into())
    }

    fn size(&self, name: Name) -> Result<u64> {
        self.extent(Operation::Size, name).map(|extent| extent.bytes.into())
    }

    fn delete(&self, name: Name) -> Result<()> {
        let mut state = self.begin(Operation::Delete)?;
        if state.index.contains_key(&name) {
            let change = Change::Delete(name);
            self.append(&mut state, Operation::Delete, &name.to_hex(), &[&change])?;
            state.index.remove(&name);
        }
        Ok(())
    }

    fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let Some((first, last)) = name_range(prefix, after) else { return Ok(Vec::new()) };
        let page: Vec<Name> = self.lock().index.range(first..=last).take(PAGE_NAMES).map(|(name, _)| *name).collect();
        if page.is_empty() && !self.place.names(&self.file) {
            return Err(gone(Operation::List));
        }
        Ok(page)
    }

    fn apply(&self, batch: &[Change]) -> Result<Vec<Put>> {
        let mut state = self.begin(Operation::Apply)?;
        // A change sees those before it, and what would change nothing is not written.
        let (mut is_there, mut outcomes, mut changes) = (BTreeMap::new(), Vec::new(), Vec::new());
        for change in batch {
            let (Change::Put(name, _) | Change::Delete(name)) = change;
            let is_there = is_there.entry(*name).or_insert_with(|| state.index.contains_key(name));
            let is_put = matches!(change, Change::Put(..));
            if is_put {
                outcomes.push(if *is_there { Put::Exists } else { Put::Created });
            }
            if is_put != *is_there {
                changes.push(change);
            }
            *is_there = is_put;
        }
        if !changes.is_empty() {
            let place = self.append(&mut state, Operation::Apply, "a batch", &changes)?;
            note(place, changes, &mut state.index);
        }
        Ok(outcomes)
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.begin(Operation::Sync)?;
        self.barrier(&mut state, Operation::Sync)
    }

    fn persist(&self, names: &[Name]) -> Result<()> {
        let mut state = self.begin(Operation::Persist)?;
        if let Some(absent) = names.iter().find(|name| !state.index.contains_key(name)) {
            return Err(not_found(Operation::Persist, *absent));
        }
        self.barrier(&mut state, Operation::Persist)
    }

    /// The lock does, as long as the log is open.
    fn try_keep_others_out(&self) -> Result<bool> {
        Ok(true)
    }
}
