//! The storage that becomes a clone, or is one.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::state::State;
use crate::block::{BlockContext, BlockReader, BlockStore, BlockWriter, WriterOptions};
use crate::crypto::RootSecret;
use crate::engine::Engine;
use crate::engine::chain::Chain;
use crate::engine::destroy::delete;
use crate::engine::in_force;
use crate::engine::keyring::{self, CopyState, Header};
use crate::engine::nodes::Nodes;
use crate::engine::root::Root;
use crate::engine::shared::Shared;
use crate::format::BlockId;
use crate::format::limits::HEADER_COPIES_COUNT;
use crate::format::rows::{self, DataBlock};
use crate::format::well_known::HeaderId;
use crate::storage::{Name, Put, Storage, StorageExt as _};
use crate::{Error, Result};

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
    /// Whether a hint to the state was put.
    is_hinted: bool,
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
            unproven: Vec::new(),
            is_hinted: false,
        };
        if target.names.iter().any(|name| HeaderId::from_name(name.as_bytes()).is_some()) {
            let headers = keyring::read_headers_among(&target.storage, &target.names).await?;
            for header in headers.headers() {
                if header.repository() != source.keys.repository() {
                    return Err(Error::AlreadyExists);
                }
                keyring::unlock_with_root(header, secret.duplicate())?;
            }
            target.head = Some(target.chain.find_head().await?);
        } else if target.chain.hints().await?.iter().any(|(_, hint)| hint.is_err()) {
            // Somebody keeps the header of a repository that is here elsewhere.
            return Err(Error::AlreadyExists);
        }
        Ok(target)
    }

    pub(super) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    pub(super) fn head(&self) -> Option<&Root> {
        self.head.as_ref()
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
        self.chain.blocks().reader.name(&block.id())
    }

    /// Whether the state is a later one of what is there, and not what is there itself.
    pub(super) async fn check_follows(&mut self, shared: &Shared, state: &State) -> Result<()> {
        let Some(head) = &self.head else { return Ok(()) };
        if let Some(detail) = shared.contradiction(&state.root, head.sequence, &head.hash).await? {
            return Err(Error::Diverged { detail });
        }
        let name = shared.chain.name(state.base);
        let (ours, theirs) = (shared.chain.salt_of(name).await?, self.chain.salt_of(name).await?);
        if ours.is_none() {
            return Err(Error::Expired);
        }
        if ours == theirs {
            // A hint is in its place wherever the checkpoint is. If it appears here too, there is one place only.
            let hint = self.chain.put_hint(state.base, state.hash(shared, state.base).await?).await?;
            self.is_hinted = true;
            if shared.storage().exists(hint).await? {
                return Err(Error::Invalid("the repository and the clone are in the same place".to_owned()));
            }
        }
        Ok(())
    }

    /// Everything that was sent, and what was there, survives a loss of power from here on.
    pub(super) async fn make_durable(&mut self) -> Result<()> {
        self.storage.sync().await?;
        for names in std::mem::take(&mut self.unproven).chunks(PERSISTED_AT_ONCE) {
            self.storage.persist(names).await?;
        }
        Ok(())
    }

    /// Makes the state the clone's. What the commits refer to is durable there.
    pub(super) async fn publish(&mut self, state: &State, shared: &Shared, secret: &RootSecret) -> Result<()> {
        let header = in_force::newest(shared, secret, Some(&state.root)).await?;
        if !in_force::names(&state.root, &header) {
            return Err(Error::Expired);
        }
        let is_new = self.head.is_none();
        if !is_new {
            self.put_header(&header, secret).await?;
        }
        if self.head.as_ref().is_none_or(|head| head.sequence < state.sequence()) {
            for sequence in state.base..=state.sequence() {
                self.put_commit(state, shared, sequence).await?;
            }
        }
        if !self.is_hinted {
            self.chain.put_hint(state.base, state.hash(shared, state.base).await?).await?;
        }
        if is_new {
            self.put_header(&header, secret).await?;
        }
        let head = self.chain.find_head().await?;
        if head.hash != state.hash(shared, state.sequence()).await? {
            let detail = format!("commit {} is its newest, and not {}", head.sequence, state.sequence());
            return Err(Error::Diverged { detail });
        }
        self.head = Some(head);
        Ok(())
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

    async fn put_commit(&self, state: &State, shared: &Shared, sequence: u64) -> Result<()> {
        // Gone since: then so is the state.
        let commit = shared.chain.read(sequence).await?.ok_or(Error::Expired)?;
        let name = shared.chain.name(sequence);
        if commit.hash != state.hash(shared, sequence).await? {
            return Err(Error::damaged("commit", Some(name), "it is another one than the history says"));
        }
        let block_bytes = u64::from(shared.context.geometry.block_bytes());
        let blob = shared.storage().get_all(name, block_bytes).await?;
        let opened = shared.blocks.reader.open_whole(name, shared.chain.id(sequence).key_epoch(), blob.clone())?;
        if opened.salt != commit.salt {
            return Err(Error::damaged("commit", Some(name), "changed while it was read"));
        }
        if self.storage.put_durable(name, blob.clone()).await? == Put::Created {
            return Ok(());
        }
        if self.storage.get_all(name, block_bytes).await? != blob {
            return Err(Error::Diverged { detail: format!("commit {sequence} is another one there") });
        }
        Ok(self.storage.persist(&[name]).await?)
    }

    /// Deletes what the state does not need, and answers how many blobs that were.
    pub(super) async fn prune(&self, shared: &Shared, state: &State) -> Result<u64> {
        let (mut commits, mut blocks, mut headers) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut pruned = 0;
        for name in &self.names {
            if let Some(id) = HeaderId::from_name(name.as_bytes()) {
                if id.generation < state.root.header_generation {
                    headers.insert(id.generation);
                    pruned += 1;
                }
                continue;
            }
            match shared.blocks.reader.block_id(*name) {
                Some(BlockId::Commit { sequence, .. }) if sequence < state.base => commits.push((sequence, *name)),
                Some(BlockId::Data { key_epoch, writer_epoch, counter }) => {
                    let block = DataBlock { key_epoch, writer_epoch, counter };
                    if !state.needs(shared, block).await? {
                        blocks.push(*name);
                    }
                }
                // Hints were replaced with the new one; what else there is, is not the clone's.
                _ => {}
            }
        }
        for generation in headers {
            keyring::delete_header(&self.storage, generation).await?;
        }
        // Ascending, each after the one before is gone: a reader that stands at one finds by its predecessor that it is over.
        commits.sort_unstable();
        for (_, name) in &commits {
            self.storage.delete(*name).await?;
        }
        delete(&self.storage, &blocks).await?;
        self.storage.sync().await?;
        Ok(pruned + (commits.len() + blocks.len()) as u64)
    }
}
