//! What every handle of one open repository shares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::chain::Chain;
use super::commit::{Leader, Request};
use super::defragmenter::Control;
use super::held::Counted;
use super::nodes::Nodes;
use super::options::{TrustedState, Tuning};
use super::place::Claimant;
use super::recent::Recent;
use super::room::GivenBack;
use super::root::Root;
use crate::block::{BlockContext, BlockStore, BlockWriter};
use crate::env::Env;
use crate::format::BlockClass;
use crate::format::rows::DataBlock;
use crate::storage::{ExclusiveGuard, Occupant, OnlyOccupant, Storage};
use crate::{Error, Result};

/// A lock whose holder died is still a lock: nothing in the guarded values can be half-changed, because each change is a
/// single assignment or insertion.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writer epoch that this handle holds.
#[derive(Default)]
pub(crate) struct EpochState {
    pub(crate) number: Option<u32>,
    pub(crate) next_number: u32,
    /// Whether what was made under it may be deleted already, because closing began: nothing of it may be committed.
    pub(crate) is_void: bool,
}

/// The transactions that have records in blocks and are neither committed nor given up.
#[derive(Default)]
pub(crate) struct AppendingSet {
    next_ticket: u64,
    /// Writer epoch and counter of the first block that each may have records in.
    since: BTreeMap<u64, (u32, u64)>,
}

/// Nobody else is there: neither on the storage nor on our handle of it.
pub(super) struct Alone {
    _storage: Box<dyn ExclusiveGuard>,
    _handle: OnlyOccupant,
}

/// The engine behind its handles.
pub(crate) struct Shared {
    pub(crate) context: Arc<BlockContext>,
    /// Others may share our handle of the storage.
    pub(crate) _occupant: Option<Occupant>,
    pub(crate) blocks: Arc<BlockStore>,
    pub(crate) chain: Chain,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) tuning: Tuning,
    pub(crate) read_only: bool,
    pub(crate) trusted: Option<Arc<dyn TrustedState>>,
    /// Whether what was written from this place may be of another history than the one that is open: see [`super::settled`].
    pub(super) is_strange: AtomicBool,
    /// When a commit of ours last said that its writer is there, in milliseconds of the clock.
    pub(super) signed_at: AtomicU64,
    /// A commit of ours that says all of where it was made that there was to be said.
    pub(super) told_at: AtomicU64,
    pub(crate) root: Mutex<Arc<Root>>,
    pub(crate) recent: Mutex<Recent>,
    pub(crate) queue: Mutex<Vec<Request>>,
    pub(crate) leader: async_lock::Mutex<Leader>,
    /// Who takes or removes snapshots here: they would only make each other begin anew. Locked before the lead.
    pub(crate) snapshots: async_lock::Mutex<()>,
    pub(crate) epoch: Mutex<EpochState>,
    /// Who claimed the epochs that were claimed through this handle.
    pub(crate) claims: Mutex<BTreeMap<u32, Claimant>>,
    /// Epochs of ours that a failed barrier made worthless, and that are still open.
    pub(crate) abandoned: Mutex<BTreeSet<u32>>,
    /// Epochs of ours that stay open until we close, though we may go on under another: see [`super::Engine::keep_epoch`].
    pub(crate) lasting: Mutex<BTreeSet<u32>>,
    /// Open epochs of ours that may have blocks in storage which nobody noted.
    pub(crate) unlisted: Mutex<BTreeSet<u32>>,
    /// What was deleted through this handle on a full storage.
    pub(crate) given_back: Mutex<GivenBack>,
    /// Whether ballast was given up through this handle.
    pub(crate) spent: AtomicBool,
    /// Serialises claims, so that a handle claims one epoch at a time.
    pub(crate) claim: async_lock::Mutex<()>,
    /// Where open transactions began to write, by ticket: writer epoch and counter.
    pub(crate) appending: Mutex<AppendingSet>,
    /// Blocks put under our epoch that no usage row may name yet.
    pub(crate) unreferenced: Mutex<BTreeSet<DataBlock>>,
    /// Sequences that handles of this process look at, with how many.
    pub(crate) pins: Mutex<BTreeMap<u64, usize>>,
    /// The newest checkpoint that a durable hint is known to name.
    pub(crate) hinted: AtomicU64,
    pub(crate) closed: AtomicBool,
    /// Bytes that died in blocks in which something else lives on, since it was opened; what a commit that was lost would
    /// have done counts, too.
    pub(crate) loosened: AtomicU64,
    /// The defragmenter at work.
    pub(crate) defragmenter: Mutex<Weak<Control>>,
    /// The accounts of blocks, as they were added up last.
    pub(super) counted: Mutex<Option<Counted>>,
}

impl Shared {
    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.context.storage
    }

    /// Proof that nobody else is there: no other handle on the storage, and no other engine on our handle. Newcomers wait
    /// while it lives.
    pub(super) async fn try_alone(&self) -> Result<Option<Alone>> {
        let Some(occupancy) = self.storage().occupancy() else { return Ok(None) };
        let Some(handle) = occupancy.try_alone() else { return Ok(None) };
        let guard = self.storage().try_exclusive().await?;
        Ok(guard.map(|storage| Alone { _storage: storage, _handle: handle }))
    }

    pub(crate) fn env(&self) -> &Env {
        &self.context.env
    }

    pub(crate) fn root(&self) -> Arc<Root> {
        lock(&self.root).clone()
    }

    pub(super) fn note_loosened(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let total = self.loosened.fetch_add(bytes, Ordering::AcqRel).saturating_add(bytes);
        let defragmenter = lock(&self.defragmenter).upgrade();
        if let Some(control) = defragmenter {
            control.loosened(total);
        }
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if self.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Notes that a transaction begins to write into blocks of data.
    pub(crate) fn start_appending(self: &Arc<Self>) -> Appending {
        self.start_appending_at(|writer| writer.place(BlockClass::Data))
    }

    /// Notes that something begins to write into blocks of any class.
    pub(super) fn start_appending_any(self: &Arc<Self>) -> Appending {
        self.start_appending_at(BlockWriter::oldest_open)
    }

    fn start_appending_at(self: &Arc<Self>, place: impl FnOnce(&BlockWriter) -> Option<(u32, u64)>) -> Appending {
        // Under the lock, so that nothing is discarded between the note and the first record.
        let mut appending = lock(&self.appending);
        let ticket = appending.next_ticket;
        appending.next_ticket += 1;
        let since = place(&self.blocks.writer).unwrap_or_default();
        appending.since.insert(ticket, since);
        Appending { shared: self.clone(), ticket, since }
    }

    /// Whether no transaction can still come to name records of this block: no one writes into it, and no one who has
    /// written into it is undecided. For blocks of the epoch that we hold.
    pub(crate) fn is_settled(&self, block: DataBlock) -> bool {
        let appending = lock(&self.appending);
        let open = self.blocks.writer.oldest_open();
        let place = (block.writer_epoch, block.counter);
        open.is_some_and(|open| place < open) && appending.since.values().all(|since| place < *since)
    }

    /// Gives up what the writer has not brought into storage, unless a transaction needs it.
    pub(crate) fn discard_if_idle(&self) -> bool {
        let appending = lock(&self.appending);
        let idle = appending.since.is_empty();
        if idle {
            self.blocks.writer.discard();
        }
        idle
    }

    /// The newest root, pinned: nothing that it reaches is deleted by this process while the pin lives.
    pub(crate) fn pin(self: &Arc<Self>) -> (Arc<Root>, Arc<Pin>) {
        // Under the root's lock, so that no floor can pass between the look and the pin.
        let root = lock(&self.root);
        *lock(&self.pins).entry(root.sequence).or_default() += 1;
        (root.clone(), Arc::new(Pin { shared: self.clone(), sequence: root.sequence }))
    }

    /// The oldest sequence that a handle of this process looks at.
    pub(crate) fn oldest_pin(&self) -> Option<u64> {
        lock(&self.pins).first_key_value().map(|(sequence, _)| *sequence)
    }

    /// Makes of "a block is missing" what it means for a reader at `sequence`: expired, or damage.
    pub(crate) async fn explain(&self, error: Error, sequence: u64) -> Error {
        let Error::Missing { structure, blob } = error else { return error };
        match self.has_expired(blob, sequence).await {
            Ok(true) => Error::Expired,
            Ok(false) if self.place().is_some() => {
                Error::damaged(structure, Some(blob), "missing from storage, or not brought there yet")
            }
            Ok(false) => Error::damaged(structure, Some(blob), "missing from storage"),
            Err(error) => error,
        }
    }
}

/// Keeps the blocks that a transaction writes into from being taken for settled.
pub(crate) struct Appending {
    shared: Arc<Shared>,
    ticket: u64,
    /// Writer epoch and counter of the first block that may have records of it.
    pub(super) since: (u32, u64),
}

impl Drop for Appending {
    fn drop(&mut self) {
        let mut appending = lock(&self.shared.appending);
        appending.since.remove(&self.ticket);
        // What is not in storage by now, and of which nobody else needs anything, need not get there: that it fails is
        // nothing to tell whoever writes next.
        let needed = appending.since.values().min().copied().unwrap_or((u32::MAX, u64::MAX));
        self.shared.blocks.writer.give_up_before(needed);
    }
}

/// Keeps a sequence readable within this process.
pub(crate) struct Pin {
    shared: Arc<Shared>,
    pub(crate) sequence: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = lock(&self.shared.pins);
        if let Some(count) = pins.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.sequence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_lite::future::block_on;

    use super::*;
    use crate::block::testing::TestStorage;
    use crate::crypto::{KdfParameters, Suite};
    use crate::engine::keyring::Credentials;
    use crate::engine::{CreateOptions, Engine, OpenOptions, Tuning, Unlock};
    use crate::env::Env;
    use crate::storage::{Change, ErrorKind, Name};

    /// Not by what the engine does not do alone: a call that was forgotten would be refused.
    #[test]
    fn what_is_opened_for_reading_only_stands_on_a_storage_that_refuses_every_change() {
        block_on(async {
            let bare = Arc::new(TestStorage::default());
            let credentials = Credentials::password("correct horse");
            let options = CreateOptions {
                credentials: &credentials,
                recovery: None,
                suite: Suite::Aes256Gcm,
                block_bytes: 4096,
                kdf: KdfParameters::MINIMUM,
                trusted: None,
                tuning: Tuning::default(),
            };
            let writer = Engine::create(bare.clone(), Env::deterministic(1), options).await.unwrap();
            let root = writer.root_secret();
            let mut options = OpenOptions::new(Unlock::Root(&root));
            options.read_only = true;
            let reader = Engine::open(bare.clone(), Env::deterministic(2), options).await.unwrap();
            let before = bare.blobs.lock().unwrap().clone();
            let taken = *before.keys().next().unwrap();
            let (free, blob) = (Name::new([9; 16]), Bytes::from(vec![0; 4096]));
            let storage = reader.shared.storage();
            let refusals = [
                storage.put(free, blob.clone()).await.map(drop),
                storage.put_durable(free, blob.clone()).await.map(drop),
                storage.delete(taken).await,
                storage.apply(vec![Change::Delete(taken)]).await.map(drop),
                storage.vacate().await,
            ];
            for refusal in refusals {
                assert_eq!(refusal.unwrap_err().kind(), ErrorKind::ReadOnly);
            }
            assert_eq!(*bare.blobs.lock().unwrap(), before);
            writer.shared.storage().put(free, blob).await.unwrap();
        });
    }
}
