//! Cloning: the blobs of a repository, as they are sealed, in another storage. What is there then is the same repository in
//! another place, and opens with the same credentials.
//!
//! A state is pinned, what it reaches is copied and made durable, then the commits that lead to it, then the hint; the header
//! is last where there was none. A clone that is brought up to date goes from one whole state to the next: where the source
//! can be written to, the state is a checkpoint, so one commit, and every block that the state before needs is there until
//! the hint to the new one is. Only then does a mirror delete.
//!
//! What is read from the source is authenticated before it is put. Blocks that the clone's own head names are durable there,
//! and are not read again; any other that is there already is compared.

mod state;
mod target;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::{Engine, TrustedState};
use crate::crypto::RootSecret;
use crate::format::rows::DataBlock;
use crate::storage::{ErrorKind, Name, Put, Storage, StorageExt as _};
use crate::{Damage, Error, Result};

use state::State;
use target::{Target, in_clone};

/// Bytes of blocks that are under way at once, and how many blocks at least and at most.
const IN_FLIGHT_BYTES: usize = 16 << 20;
const AT_ONCE_MIN: usize = 4;
const AT_ONCE_MAX: usize = 32;

/// How often one block is put where something else appears under its name.
const PUTS_MAX: usize = 4;

/// How often a state is pinned anew because others gave the one before up.
const STATES_MAX: usize = 16;

/// How far a clone is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneProgress {
    /// Blocks that are there.
    pub done_blocks: u64,
    /// Blocks that the state needs.
    pub total_blocks: u64,
    /// Bytes of each.
    pub block_bytes: u32,
    /// Bytes that were sent.
    pub sent_bytes: u64,
}

/// How a repository is cloned.
#[derive(Default)]
pub struct CloneOptions<'a> {
    /// Deletes from the clone what its newest state does not need: old blocks, commits and headers. Readers of the clone that
    /// look at an older state have to open it again.
    pub prune: bool,
    /// Brings the clone up to date though blocks of the source are damaged and not in the clone: those are left out, and
    /// listed.
    pub partial: bool,
    /// Compares blocks that the clone's newest state needs too, which takes as long as sending them, and puts those again
    /// that are damaged there.
    pub checksum: bool,
    /// Where it is remembered what this device has seen of the clone.
    pub trusted: Option<Arc<dyn TrustedState>>,
    /// Hears how far it is, and says whether to go on.
    pub progress: Option<&'a mut (dyn FnMut(CloneProgress) -> bool + Send)>,
}

/// What a clone is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cloned {
    /// The number of the commit that it stands at.
    pub sequence: u64,
    /// Blocks that this state needs.
    pub blocks: u64,
    /// Blocks that were sent.
    pub sent_blocks: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Blobs that were deleted from it.
    pub pruned_blobs: u64,
    /// Blocks of the source that are damaged or missing, and not in the clone either.
    pub left_out: Vec<Damage>,
}

impl Engine {
    /// Makes another storage hold this repository as it is now, or brings a clone that is there up to date: only blocks that
    /// it lacks are sent. One that is cut short is gone on with by the next call; until the first comes to its end there is no
    /// repository there, and after that always a whole one,
    /// save that a run from a source which can only be read, or is full, can die on the way from commit to commit.
    ///
    /// Others may go on writing meanwhile. Where this engine can write, it makes a checkpoint first, and nothing that it pins
    /// is deleted by this process; where other processes give the state up, a newer one is taken.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] where another repository is; [`Error::Diverged`] where the clone was written to, or is newer;
    /// [`Error::LimitExceeded`] where the storage holds no blocks so large; [`Error::Damaged`] and [`Error::Missing`] for what
    /// the source has lost, after all else was sent; [`Error::Stopped`]; what both storages raise, as [`Error::InClone`]
    /// what the clone's does.
    pub async fn clone_to(&self, storage: Arc<dyn Storage>, mut options: CloneOptions<'_>) -> Result<Cloned> {
        let limit = storage.capabilities().block_bytes_max;
        if self.block_bytes() > limit {
            let (value, limit) = (u64::from(self.block_bytes()), u64::from(limit));
            return Err(Error::LimitExceeded { what: "block_bytes", value, limit });
        }
        let secret = self.root_secret();
        let mut sent = Sent::default();
        let mut states_left = STATES_MAX;
        loop {
            match self.bring(&storage, &secret, &mut sent, &mut options).await {
                Err(Error::Expired | Error::Conflict) if states_left > 0 => states_left -= 1,
                done => return done,
            }
        }
    }

    async fn bring(
        &self,
        storage: &Arc<dyn Storage>,
        secret: &RootSecret,
        sent: &mut Sent,
        options: &mut CloneOptions<'_>,
    ) -> Result<Cloned> {
        let mut target = Target::look(self, storage.clone(), secret).await.map_err(in_clone)?;
        let state = State::take(self).await?;
        target.check_follows(&self.shared, &state).await?;
        let sent_before = sent.blocks;
        let blocks = state.count_blocks(&self.shared).await?;
        let left_out = self.send_blocks(&state, &mut target, blocks, sent, options).await?;
        if let Some(first) = left_out.first().filter(|_| !options.partial) {
            let mut damage = first.clone();
            if let further @ 1.. = left_out.len() - 1 {
                damage.detail = format!("{}; and {further} other blocks of the source", damage.detail);
            }
            return Err(Error::Damaged(damage));
        }
        target.make_durable().await.map_err(in_clone)?;
        let ended = target.publish(&state, &self.shared, secret).await?;
        if sent.blocks > sent_before && !target.is_whole(&self.shared, &state, &left_out).await? {
            return Err(Error::Conflict);
        }
        if let Some(trusted) = &options.trusted {
            let hash = state.hash(&self.shared, state.sequence()).await?;
            trusted.advance(self.keys().repository(), state.sequence(), hash).await?;
        }
        let pruned_blobs = if options.prune { ended + target.prune(&self.shared, &state).await? } else { 0 };
        Ok(Cloned {
            sequence: state.sequence(),
            blocks,
            sent_blocks: sent.blocks,
            sent_bytes: sent.bytes,
            pruned_blobs,
            left_out,
        })
    }

    /// Sends what the target lacks, and answers what the source lacks.
    async fn send_blocks(
        &self,
        state: &State,
        target: &mut Target,
        total_blocks: u64,
        sent: &mut Sent,
        options: &mut CloneOptions<'_>,
    ) -> Result<Vec<Damage>> {
        let shared = &self.shared;
        let (block_bytes, checksum) = (self.block_bytes() as usize, options.checksum);
        let at_once = (IN_FLIGHT_BYTES / block_bytes.max(1)).clamp(AT_ONCE_MIN, AT_ONCE_MAX);
        let mut left_out = Vec::new();
        let mut unproven = Vec::new();
        let mut done_blocks = 0;
        {
            let target = &*target;
            let fates = state.blocks(shared).map(|block| async move {
                let block = block?;
                if !checksum && target.has_durable(block).await.map_err(in_clone)? {
                    return Ok((block, Fate::Durable));
                }
                let name = shared.block_name(block);
                let (sender, is_listed) = (Sender::new(self, target), target.is_listed(name));
                let sending = self.env().spawn(async move { sender.send(block, name, is_listed).await });
                sending.await.ok_or(Error::WorkerLost)?.map(|fate| (block, fate))
            });
            let mut fates = std::pin::pin!(fates.buffer_unordered(at_once));
            while let Some(fate) = fates.next().await {
                let (block, fate) = fate?;
                done_blocks += 1;
                match fate {
                    Fate::Durable => {}
                    Fate::Equal => unproven.push(shared.block_name(block)),
                    Fate::Sent => {
                        sent.blocks += 1;
                        sent.bytes += block_bytes as u64;
                    }
                    Fate::LeftOut(error) => match shared.explain(error, state.root.sequence).await {
                        Error::Damaged(damage) => left_out.push(damage),
                        error => return Err(error),
                    },
                }
                if let Some(hear) = &mut options.progress
                    && !hear(CloneProgress {
                        done_blocks,
                        total_blocks,
                        block_bytes: self.block_bytes(),
                        sent_bytes: sent.bytes,
                    })
                {
                    return Err(Error::Stopped);
                }
            }
        }
        target.note_unproven(unproven);
        Ok(left_out)
    }
}

#[derive(Default)]
struct Sent {
    blocks: u64,
    bytes: u64,
}

/// What became of a block.
enum Fate {
    /// The target's head names it, and it is there.
    Durable,
    /// It was there already, and is the same; nobody knows whether it is durable.
    Equal,
    Sent,
    /// The source does not have it whole.
    LeftOut(Error),
}

/// What it takes to send a block, on any thread.
struct Sender {
    source: Arc<crate::block::BlockStore>,
    target: Arc<dyn Storage>,
}

impl Sender {
    fn new(engine: &Engine, target: &Target) -> Self {
        Self { source: engine.shared.blocks.clone(), target: target.storage().clone() }
    }

    async fn send(&self, block: DataBlock, name: Name, is_listed: bool) -> Result<Fate> {
        let context = self.source.reader.context();
        let block_bytes = u64::from(context.geometry.block_bytes());
        let bytes = match context.storage.get_all(name, block_bytes).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Fate::LeftOut(Error::Missing { structure: "block", blob: name }));
            }
            // One that cannot be read, though others can, is lost as one that is damaged.
            Err(error) if matches!(error.kind(), ErrorKind::LimitExceeded | ErrorKind::Corrupt | ErrorKind::Other) => {
                return Ok(Fate::LeftOut(Error::damaged("block", Some(name), error.to_string())));
            }
            Err(error) => return Err(error.into()),
        };
        if let Err(error) = self.source.reader.open_whole(name, block.key_epoch, bytes.clone()) {
            return match error {
                Error::Damaged(_) => Ok(Fate::LeftOut(error)),
                error => Err(error),
            };
        }
        self.put(block, name, bytes, is_listed).await.map_err(in_clone)
    }

    /// Puts what is proven to be a block. What is there already under its name is replaced only where it is no block: which of
    /// two that authenticate is the right one, only those know who lead to it.
    async fn put(&self, block: DataBlock, name: Name, bytes: Bytes, is_listed: bool) -> Result<Fate> {
        if !is_listed && self.target.put(name, bytes.clone()).await? == Put::Created {
            return Ok(Fate::Sent);
        }
        for _ in 0..PUTS_MAX {
            // Of an earlier run: whole where that came so far.
            match self.target.get_all(name, bytes.len() as u64).await {
                Ok(there) if there == bytes => return Ok(Fate::Equal),
                Ok(there) if self.source.reader.open_whole(name, block.key_epoch, there.clone()).is_ok() => {
                    let detail =
                        "here and in the clone it is sealed differently: `check --data` of each tells which is right";
                    return Ok(Fate::LeftOut(Error::damaged("block", Some(name), detail)));
                }
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::LimitExceeded | ErrorKind::Corrupt) => {}
                Err(error) => return Err(error.into()),
            }
            self.target.delete(name).await?;
            if self.target.put(name, bytes.clone()).await? == Put::Created {
                return Ok(Fate::Sent);
            }
        }
        Err(Error::Conflict)
    }
}
