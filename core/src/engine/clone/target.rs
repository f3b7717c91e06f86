//! The storage that becomes a clone, or is one.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::state::State;
use crate::block::{BlockContext, BlockReader, BlockStore, BlockWriter, WriterOptions};
use crate::crypto::RootSecret;
use crate::engine::Engine;
use crate::engine::chain::Chain;
use crate::engine::destroy::delete;
use crate::engine::keyring::{self, CopyState, Header};
use crate::engine::nodes::Nodes;
use crate::engine::root::Root;
use crate::engine::shared::Shared;
use crate::format::BlockId;
use crate::format::limits::HEADER_COPIES_COUNT;
use crate::format::rows::{self, DataBlock};
use crate::format::well_known::HeaderId;
use crate::storage::{Name, Put, Storage, StorageExt as _};
use crate::{Damage, Error, Result};

/// Made durable with one call.
const PERSISTED_AT_ONCE: usize = 1_000;

pub(super) struct Target {
    storage: Arc<dyn Storage>,
    chain: Chain,
    nodes: Nodes,
    /// What was there at the beginning.
    names: BTreeSet<Name>,
    /// The state that it is at; `None` where it is no repository yet.
    head: Option<Root>,
    /// Blocks that were there, of which nobody knows whether they are durable.
    unproven: Vec<Name>,
    /// Whether there is a header: else it opens for nobody yet.
    has_header: bool,
}

impl Target {
    /// Looks at what is there: nothing, a clone that was cut short, or a clone.
    pub(super) async fn look(engine: &Engine, storage: Arc<dyn Storage>, secret: &RootSecret) -> Result<Self> {
        let source = &engine.shared.context;
        let (env, keys) = (source.env.clone(), source.keys.clone());
        let context = Arc::new(BlockContext { storage: storage.clone(), env, keys, geometry: source.geometry });
        let writer = BlockWriter::new(context.clone(), WriterOptions { in_flight_bytes_max: 0 });
        let blocks = Arc::new(BlockStore { reader: BlockReader::new(context), writer: Arc::new(writer) });
        let mut target = Self {
            names: storage.list_all(&[]).await?,
            storage,
            chain: Chain::new(blocks.clone()),
            nodes: Nodes::new(blocks, engine.shared.tuning.node_cache_bytes_max),
            head: None,
            has_header: false,
            unproven: Vec::new(),
        };
        target.has_header = target.names.iter().any(|name| HeaderId::from_name(name.as_bytes()).is_some());
        if target.has_header {
            let headers = keyring::read_headers_among(&target.storage, &target.names).await?;
            for header in headers.headers() {
                if header.repository() != source.keys.repository() {
                    return Err(Error::AlreadyExists);
                }
                keyring::unlock_with_root(header, secret.duplicate())?;
            }
        }
        let hints = target.chain.hints().await?;
        if !target.has_header && hints.iter().any(|(_, hint)| hint.is_err()) {
            // Somebody keeps the header of another repository that is here elsewhere.
            return Err(Error::AlreadyExists);
        }
        // Without a header it is a clone that was cut short, or one whose header is kept elsewhere: that has a history as well.
        let is_commit = |name: &Name| matches!(target.reader().block_id(*name), Some(BlockId::Commit { .. }));
        if target.has_header || !hints.is_empty() || target.names.iter().any(is_commit) {
            target.head = Some(target.chain.find_head().await?);
        }
        Ok(target)
    }

    fn reader(&self) -> &BlockReader {
        &self.chain.blocks().reader
    }

    pub(super) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    pub(super) fn is_listed(&self, name: Name) -> bool {
        self.names.contains(&name)
    }

    pub(super) fn note_unproven(&mut self, names: Vec<Name>) {
        self.unproven.extend(names);
    }

    /// Whether a block is there, and the state that the clone is at needs it: then it was made durable.
    pub(super) async fn has_durable(&self, block: DataBlock) -> Result<bool> {
        let Some(head) = &self.head else { return Ok(false) };
        if !self.is_listed(self.name(block)) {
            return Ok(false);
        }
        if head.spills.contains(&block) {
            return Ok(true);
        }
        match head.get(&self.nodes, &rows::usage_key(block)).await {
            Ok(row) => Ok(row.is_some()),
            // What the clone has lost is put again.
            Err(Error::Damaged(_) | Error::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn name(&self, block: DataBlock) -> Name {
        self.reader().name(&block.id())
    }

    /// Whether the state is a later one of what is there, or the same.
    pub(super) async fn check_follows(&self, shared: &Shared, state: &State) -> Result<()> {
        let Some(head) = &self.head else { return Ok(()) };
        let sequence = head.sequence;
        if sequence > state.root.sequence {
            let detail = format!(
                "it is at commit {sequence}, and the repository at {}: one was written to, or the other put back to an older state",
                state.root.sequence
            );
            return Err(Error::Diverged { detail });
        }
        match state.known_hash(shared, sequence).await? {
            Some(hash) if hash == head.hash => Ok(()),
            Some(_) => Err(Error::Diverged { detail: format!("its commit {sequence} is another one") }),
            None => Err(Error::Diverged { detail: format!("its commit {sequence} is older than the history here") }),
        }
    }

    /// Whether it stands where it was found.
    async fn check_stands(&self) -> Result<()> {
        let Some(head) = &self.head else { return Ok(()) };
        // Looked at anew, it is told what became of it.
        if self.chain.find_head().await?.hash == head.hash { Ok(()) } else { Err(Error::Conflict) }
    }

    /// Everything that was sent, and what was there, survives a loss of power from here on.
    pub(super) async fn make_durable(&mut self) -> Result<()> {
        self.storage.sync().await?;
        for names in std::mem::take(&mut self.unproven).chunks(PERSISTED_AT_ONCE) {
            self.storage.persist(names).await?;
        }
        Ok(())
    }

    /// Makes the state the clone's, and answers how many commits it ended. What the commits refer to is durable there.
    pub(super) async fn publish(&mut self, state: &State, shared: &Shared, secret: &RootSecret) -> Result<u64> {
        let (header, base_hash) = (state.header(shared, secret).await?, state.hash(shared, state.base).await?);
        self.check_stands().await.map_err(in_clone)?;
        if self.has_header {
            self.put_header(&header, secret).await.map_err(in_clone)?;
        }
        for sequence in state.base..=state.sequence() {
            let blob = state.commit(shared, sequence).await?;
            self.put_commit(sequence, blob).await.map_err(in_clone)?;
        }
        let hint = self.chain.put_hint(state.base, base_hash).await.map_err(in_clone)?;
        // A hint is in its place wherever its checkpoint is. If it appears in the source too, there is one place only.
        if shared.storage().exists(hint).await? {
            return Err(Error::Invalid("the repository and the clone are in the same place".to_owned()));
        }
        let ended = self.end_commits_before(state.base).await.map_err(in_clone)?;
        if !self.has_header {
            self.put_header(&header, secret).await.map_err(in_clone)?;
        }
        let head = self.chain.find_head().await.map_err(in_clone)?;
        // Another clone of the same source may have been faster, and is further then.
        if head.hash == state.hash(shared, state.sequence()).await? { Ok(ended) } else { Err(Error::Conflict) }
    }

    /// Copies of the header are put where they are missing, and anew where they are damaged.
    async fn put_header(&self, header: &Header, secret: &RootSecret) -> Result<()> {
        for copy in 0..HEADER_COPIES_COUNT {
            match keyring::verify_copy(&self.storage, header, secret, copy).await? {
                (name, CopyState::Intact) => self.storage.persist(&[name]).await?,
                (_, CopyState::Missing) => keyring::put_copy(&self.storage, header, secret, copy).await?,
                (_, CopyState::Damaged { .. }) => keyring::repair_copy(&self.storage, header, secret, copy).await?,
            }
        }
        Ok(())
    }

    /// Where it is there already, whoever put it may have died before it was durable.
    async fn put_commit(&self, sequence: u64, blob: Bytes) -> Result<()> {
        let (name, block_bytes) = (self.chain.name(sequence), blob.len() as u64);
        if self.storage.put_durable(name, blob.clone()).await? == Put::Created {
            return Ok(());
        }
        if self.storage.get_all(name, block_bytes).await? != blob {
            return Err(Error::Diverged { detail: format!("its commit {sequence} is another one") });
        }
        Ok(self.storage.persist(&[name]).await?)
    }

    /// Ends the commits before a checkpoint, ascending: whoever still stands at one of them, to read or to write, finds by its
    /// absence that it is over.
    async fn end_commits_before(&self, base: u64) -> Result<u64> {
        let listed = self.names.iter().filter_map(|name| match self.reader().block_id(*name) {
            Some(BlockId::Commit { sequence, .. }) => Some(sequence),
            _ => None,
        });
        let mut sequences: Vec<u64> = listed.chain(self.head.as_ref().map(|head| head.sequence)).collect();
        sequences.retain(|sequence| (1..base).contains(sequence));
        sequences.sort_unstable();
        sequences.dedup();
        for sequence in &sequences {
            self.storage.delete(self.chain.name(*sequence)).await?;
        }
        Ok(sequences.len() as u64)
    }

    /// Whether all that the state needs is there still, save what was left out: a writer that was at work here could have taken
    /// what had just arrived for left over.
    pub(super) async fn is_whole(&self, shared: &Arc<Shared>, state: &State, left_out: &[Damage]) -> Result<bool> {
        let names = self.storage.list_all(&[]).await.map_err(|error| in_clone(error.into()))?;
        let left_out: BTreeSet<_> = left_out.iter().filter_map(|damage| damage.blob).collect();
        let mut blocks = std::pin::pin!(state.blocks(shared));
        while let Some(block) = blocks.next().await {
            let name = self.name(block?);
            if !names.contains(&name) && !left_out.contains(&name) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes what the state does not need, and answers how many blobs that were.
    pub(super) async fn prune(&self, shared: &Shared, state: &State) -> Result<u64> {
        let (mut blocks, mut headers) = (Vec::new(), BTreeSet::new());
        let mut pruned = 0;
        for name in &self.names {
            if let Some(id) = HeaderId::from_name(name.as_bytes()) {
                if id.generation < state.root.header_generation {
                    headers.insert(id.generation);
                    pruned += 1;
                }
            } else if let Some(BlockId::Data { key_epoch, writer_epoch, counter }) = self.reader().block_id(*name)
                && !state.needs(shared, DataBlock { key_epoch, writer_epoch, counter }).await?
            {
                blocks.push(*name);
            }
            // Hints were replaced with the new one; what else there is, is not the clone's.
        }
        self.delete(&headers, &blocks).await.map_err(in_clone)?;
        Ok(pruned + blocks.len() as u64)
    }

    async fn delete(&self, headers: &BTreeSet<u64>, blocks: &[Name]) -> Result<()> {
        for generation in headers {
            keyring::delete_header(&self.storage, *generation).await?;
        }
        delete(&self.storage, blocks).await?;
        Ok(self.storage.sync().await?)
    }
}

/// Says of an error that it was in the clone, unless that speaks for itself.
pub(super) fn in_clone(error: Error) -> Error {
    match error {
        Error::AlreadyExists
        | Error::Conflict
        | Error::Diverged { .. }
        | Error::Expired
        | Error::InClone(_)
        | Error::UnfinishedCopy => error,
        error => Error::InClone(Arc::new(error)),
    }
}
