//! The state that is cloned.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};

use crate::crypto::RootSecret;
use crate::engine::checkpoint::Trees;
use crate::engine::in_force;
use crate::engine::keyring::Header;
use crate::engine::root::Root;
use crate::engine::shared::{Pin, Shared};
use crate::engine::{Direction, Engine};
use crate::format::rows::{self, DataBlock};
use crate::storage::{ErrorKind, StorageExt as _};
use crate::{Error, Result};

/// So many commits after a checkpoint are looked at for whether they change anything.
const IDLE_COMMITS_MAX: u64 = 4;

/// A state, and the commits that lead to it.
pub(super) struct State {
    pub(super) root: Arc<Root>,
    pub(super) pin: Arc<Pin>,
    /// The last commit to be published: that of the root, unless those after it change nothing.
    sequence: u64,
    /// The last checkpoint up to it.
    pub(super) base: u64,
}

impl State {
    /// Takes the newest state: a checkpoint, where the engine can make one.
    pub(super) async fn take(engine: &Engine) -> Result<Self> {
        let shared = &engine.shared;
        engine.refresh().await?;
        for _ in 0..shared.tuning.attempts_max {
            let (root, pin) = shared.pin();
            if root.sequence == root.base {
                return Ok(Self::at(root, pin));
            }
            if is_idle(shared, &root).await? {
                let base = root.base;
                return Ok(Self { root, pin, sequence: base, base });
            }
            if shared.read_only {
                return Ok(Self::at(root, pin));
            }
            drop(pin);
            match checkpoint(shared).await {
                Ok(Some(state)) => return Ok(state),
                Ok(None) => {}
                // What cannot be written to can be cloned as it is: now more than ever.
                Err(error) if takes_nothing(&error) => break,
                Err(error) => return Err(error),
            }
        }
        // Others are faster, time and again.
        let (root, pin) = shared.pin();
        Ok(Self::at(root, pin))
    }

    fn at(root: Arc<Root>, pin: Arc<Pin>) -> Self {
        let (sequence, base) = (root.sequence, root.base);
        Self { root, pin, sequence, base }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The hash of one of its commits.
    pub(super) async fn hash(&self, shared: &Shared, sequence: u64) -> Result<[u8; 32]> {
        let hash = self.known_hash(shared, sequence).await?;
        hash.ok_or_else(|| Error::damaged("history", None, format!("commit {sequence} is not in it")))
    }

    /// The hash of a commit up to it, as far as its history goes back.
    pub(super) async fn known_hash(&self, shared: &Shared, sequence: u64) -> Result<Option<[u8; 32]>> {
        if sequence == self.root.sequence {
            return Ok(Some(self.root.hash));
        }
        let row = self.root.get(&shared.nodes, &rows::history_key(sequence)).await?;
        Ok(row.and_then(|row| <[u8; 32]>::try_from(row.as_ref()).ok()))
    }

    /// The blob of one of its commits.
    pub(super) async fn commit(&self, shared: &Shared, sequence: u64) -> Result<Bytes> {
        // Gone since: then so is the state.
        let commit = shared.chain.read(sequence).await?.ok_or(Error::Expired)?;
        let name = shared.chain.name(sequence);
        if commit.hash != self.hash(shared, sequence).await? {
            return Err(Error::damaged("commit", Some(name), "it is another one than the history says"));
        }
        let block_bytes = u64::from(shared.context.geometry.block_bytes());
        let blob = shared.storage().get_all(name, block_bytes).await?;
        let opened = shared.blocks.reader.open_whole(name, shared.chain.id(sequence).key_epoch(), blob.clone())?;
        if opened.salt != commit.salt {
            return Err(Error::damaged("commit", Some(name), "changed while it was read"));
        }
        Ok(blob)
    }

    /// The header that it names.
    pub(super) async fn header(&self, shared: &Shared, secret: &RootSecret) -> Result<Header> {
        let header = in_force::newest(shared, secret, Some(&self.root)).await?;
        if in_force::names(&self.root, &header) { Ok(header) } else { Err(Error::Expired) }
    }

    /// The blocks that hold what the state reaches, each once.
    pub(super) fn blocks(&self, shared: &Arc<Shared>) -> impl Stream<Item = Result<DataBlock>> + use<> {
        let range = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let scan = shared.scan_root(&self.root, &self.pin, rows::USAGE, range, Direction::Ascending);
        let used = stream::unfold(Some(scan), |scan| async {
            let mut scan = scan?;
            match scan.next().await {
                Ok(None) => None,
                Ok(Some((key, _))) => {
                    let block = rows::decode_block_key(&rows::table_key(rows::USAGE, &key))
                        .map_err(|error| Error::damaged("usage row", None, error.to_string()));
                    Some((block, Some(scan)))
                }
                Err(error) => Some((Err(error), None)),
            }
        });
        // Each once: several commits may have spilled into one.
        let spills: BTreeSet<_> = self.root.spills.iter().copied().collect();
        used.chain(stream::iter(spills.into_iter().map(Ok)))
    }

    pub(super) async fn count_blocks(&self, shared: &Arc<Shared>) -> Result<u64> {
        let mut blocks = std::pin::pin!(self.blocks(shared));
        let mut count = 0;
        while let Some(block) = blocks.next().await {
            block?;
            count += 1;
        }
        Ok(count)
    }
}

/// The newest state as a checkpoint; `None` where others committed meanwhile.
async fn checkpoint(shared: &Arc<Shared>) -> Result<Option<State>> {
    shared.hold_epoch().await?;
    let mut leader = shared.leader.lock().await;
    shared.checkpoint(&mut leader, Trees::Change).await?;
    // Nobody here goes on from it before it is pinned.
    let (root, pin) = shared.pin();
    Ok((root.sequence == root.base).then(|| State::at(root, pin)))
}

/// Whether the source takes nothing more, and can still be read.
fn takes_nothing(error: &Error) -> bool {
    let kinds = [ErrorKind::Full, ErrorKind::ReadOnly, ErrorKind::PermissionDenied];
    matches!(error, Error::Closed) || error.storage_kind().is_some_and(|kind| kinds.contains(&kind))
}

/// Whether what was committed since the last checkpoint is of no matter to a clone: that writers came and went.
async fn is_idle(shared: &Shared, root: &Root) -> Result<bool> {
    if root.sequence - root.base > IDLE_COMMITS_MAX {
        return Ok(false);
    }
    for sequence in root.base..=root.sequence {
        // Gone since: then so is the state.
        let commit = shared.chain.read(sequence).await?.ok_or(Error::Expired)?;
        if (commit.head.header_generation, commit.head.header_hash) != (root.header_generation, root.header_hash) {
            return Ok(false);
        }
        let is_upkeep = |key: &[u8]| {
            let table = key.first().copied().unwrap_or_default();
            matches!(table, rows::EPOCH | rows::HISTORY | rows::CONDEMNED | rows::COUNTER | rows::BALLAST)
        };
        if sequence > root.base && !commit.deltas.iter().all(|(key, _)| is_upkeep(key)) {
            return Ok(false);
        }
    }
    Ok(true)
}
