//! The storage that becomes a clone, or is one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

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
use crate::format::limits::HEADER_COPIES_COUNT;
use crate::format::rows::{self, DataBlock};
use crate::format::well_known::{HINT_PREFIX, HeaderId, MAGIC, is_hint_name};
use crate::format::{BlockId, CloneMark};
use crate::storage::{ListOrder, Name, Put, Storage, StorageExt as _};
use crate::{Error, Result};

pub(super) struct Target {
    storage: Arc<dyn Storage>,
    chain: Chain,
    nodes: Arc<Nodes>,
    /// The state that it is at; `None` where it is no repository yet.
    head: Option<Root>,
    /// Whether there is a header: else it opens for nobody yet.
    has_header: bool,
    /// Copies of headers that were there.
    headers: Vec<HeaderId>,
    /// The hints that are there: those that were, then the one that was put in their place.
    hints: BTreeSet<Name>,
    /// What it says of itself as it is, where nothing is against it.
    mark: Option<CloneMark>,
    /// Whether hints of somebody else have been met since it was looked at.
    is_disturbed: bool,
}

impl Target {
    /// Looks at what is there: nothing, a clone that was cut short, or a clone.
    pub(super) async fn look(engine: &Engine, storage: Arc<dyn Storage>, secret: &RootSecret) -> Result<Self> {
        let source = &engine.shared.context;
        let (env, keys) = (source.env.clone(), source.keys.clone());
        let context = Arc::new(BlockContext { storage: storage.clone(), env, keys, geometry: source.geometry });
        let writer = BlockWriter::new(context.clone(), WriterOptions { in_flight_bytes_max: 0 });
        let blocks = Arc::new(BlockStore { reader: BlockReader::new(context), writer: Arc::new(writer) });
        let well_known = storage.list_all(&MAGIC).await?;
        let headers: Vec<_> = well_known.iter().filter_map(|name| HeaderId::from_name(name.as_bytes())).collect();
        let mut target = Self {
            storage,
            chain: Chain::new(blocks.clone()),
            nodes: Arc::new(Nodes::new(blocks, engine.shared.tuning.node_cache_bytes_max)),
            head: None,
            has_header: !headers.is_empty(),
            headers,
            hints: well_known.iter().filter(|name| is_hint_name(name.as_bytes())).copied().collect(),
            mark: None,
            is_disturbed: false,
        };
        if target.has_header {
            let headers = keyring::read_headers_among(&target.storage, &well_known).await?;
            for header in headers.headers() {
                if header.repository() != source.keys.repository() {
                    return Err(Error::AlreadyExists);
                }
                keyring::unlock_with_root(header, secret.duplicate())?;
            }
            target.take_head(headers.hints()).await?;
        } else if target.has_history().await? {
            target.take_head(&BTreeMap::new()).await?;
        }
        Ok(target)
    }

    /// Without a header it is a clone that was cut short, or one whose header is kept elsewhere: that has a history as well.
    async fn has_history(&self) -> Result<bool> {
        let hints = self.chain.hints().await?;
        if hints.iter().any(|(_, hint)| hint.is_err()) {
            // Somebody keeps the header of another repository that is here elsewhere.
            return Err(Error::AlreadyExists);
        }
        let is_commit = |name: &Name| matches!(self.reader().block_id(*name), Some(BlockId::Commit { .. }));
        Ok(!hints.is_empty() || self.list().await?.iter().any(is_commit))
    }

    /// Finds the state that it is at; `hints` are the beginnings of those hints that were read.
    async fn take_head(&mut self, hints: &BTreeMap<Name, Bytes>) -> Result<()> {
        let head = self.chain.find_head_from(hints).await?;
        let marks: Vec<CloneMark> =
            hints.iter().filter_map(|(name, beginning)| self.chain.mark_in(*name, beginning).ok()).collect();
        let were_read = self.hints.iter().all(|name| hints.contains_key(name));
        // Where there is a second hint, another run was or is at work, or a writer.
        if let [mark] = marks.as_slice()
            && self.hints.len() == 1
            && were_read
            && self.has_header
            && mark.head == head.hash
        {
            self.mark = Some(*mark);
        }
        self.head = Some(head);
        Ok(())
    }

    fn reader(&self) -> &BlockReader {
        &self.chain.blocks().reader
    }

    pub(super) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    pub(super) fn head(&self) -> Option<&Root> {
        self.head.as_ref()
    }

    pub(super) fn nodes(&self) -> &Arc<Nodes> {
        &self.nodes
    }

    pub(super) fn mark(&self) -> Option<&CloneMark> {
        self.mark.as_ref()
    }

    pub(super) fn name(&self, block: DataBlock) -> Name {
        self.reader().name(&block.id())
    }

    pub(super) fn is_data(&self, name: Name) -> bool {
        matches!(self.reader().block_id(name), Some(BlockId::Data { .. }))
    }

    /// The number of the commit that a name is of.
    pub(super) fn commit_number(&self, name: Name) -> Option<u64> {
        match self.reader().block_id(name) {
            Some(BlockId::Commit { sequence, .. }) => Some(sequence),
            _ => None,
        }
    }

    /// Every name that is there.
    pub(super) async fn list(&self) -> Result<BTreeSet<Name>> {
        Ok(self.storage.list_all(&[]).await?)
    }

    /// How many data blocks are there. Names are counted as they come, and not kept.
    pub(super) async fn count_data(&self) -> Result<u64> {
        let is_ordered = self.storage.capabilities().list_order != ListOrder::Unordered;
        let (mut count, mut after) = (0, None);
        loop {
            let (page, is_last) = self.storage.list_page(&[], after).await?;
            count += page.iter().filter(|name| self.is_data(**name)).count() as u64;
            let last = page.iter().max().copied();
            if is_last || !is_ordered || last <= after {
                return Ok(count);
            }
            after = last;
        }
    }

    /// Whether the state that the clone is at needs a block: where that is there, it was made durable.
    pub(super) async fn needs(&self, block: DataBlock) -> Result<bool> {
        let Some(head) = &self.head else { return Ok(false) };
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

    /// From here on it says nothing of itself: what comes may be left over where it is cut short. The hint that says nothing is
    /// also how other runs learn of this one.
    pub(super) async fn begin(&mut self) -> Result<()> {
        let Some(head) = &self.head else { return Ok(()) };
        let hash = if head.base == head.sequence {
            head.hash
        } else {
            let row = head.get(&self.nodes, &rows::history_key(head.base)).await?;
            (row.and_then(|row| row.as_ref().try_into().ok()))
                .ok_or_else(|| Error::damaged("history", None, format!("commit {} is not in it", head.base)))?
        };
        let hint = self.chain.replace_hints(head.base, hash, None, &self.hints).await?;
        self.hints = BTreeSet::from([hint]);
        Ok(())
    }

    /// Puts the hint to a state, with what the clone says of itself in it, in place of those that are there. Where they are not
    /// those that were, another run is at work, or a writer, and nobody knows what it puts or has put: then it says nothing.
    async fn put_hint(&mut self, base: u64, base_hash: [u8; 32], mark: Option<&CloneMark>) -> Result<Name> {
        let there = self.storage.list_all(&HINT_PREFIX).await?;
        self.is_disturbed |= there != self.hints;
        let mark = mark.filter(|_| !self.is_disturbed);
        let hint = self.chain.replace_hints(base, base_hash, mark, &there).await?;
        self.hints = BTreeSet::from([hint]);
        Ok(hint)
    }

    /// Lets the clone say of itself what is there, now that it stands at a state.
    pub(super) async fn put_mark(&mut self, base: u64, base_hash: [u8; 32], mark: &CloneMark) -> Result<()> {
        // What was deleted stays so wherever the mark does.
        self.storage.sync().await?;
        let there = self.storage.list_all(&HINT_PREFIX).await?;
        if there == self.hints && !self.is_disturbed {
            let hint = self.chain.replace_hints(base, base_hash, Some(mark), &there).await?;
            self.hints = BTreeSet::from([hint]);
            // Or the hint that says nothing is there again after a loss of power.
            self.storage.sync().await?;
        }
        Ok(())
    }

    /// Makes the state the clone's, and answers how many commits it ended, of these that are there. What the commits refer to is
    /// durable there.
    pub(super) async fn publish(
        &mut self,
        state: &State,
        shared: &Shared,
        secret: &RootSecret,
        mark: Option<&CloneMark>,
        commits: BTreeSet<u64>,
    ) -> Result<u64> {
        let (header, base_hash) = (state.header(shared, secret).await?, state.hash(shared, state.base).await?);
        self.check_stands().await.map_err(in_clone)?;
        if self.has_header {
            self.put_header(&header, secret).await.map_err(in_clone)?;
        }
        for sequence in state.base..=state.sequence() {
            let blob = state.commit(shared, sequence).await?;
            self.put_commit(sequence, blob).await.map_err(in_clone)?;
        }
        let hint = self.put_hint(state.base, base_hash, mark).await.map_err(in_clone)?;
        // A hint is in its place wherever its checkpoint is. If it appears in the source too, there is one place only.
        if shared.storage().exists(hint).await? {
            return Err(Error::Invalid("the repository and the clone are in the same place".to_owned()));
        }
        let ended = self.end_commits_before(state.base, commits).await.map_err(in_clone)?;
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
    async fn end_commits_before(&self, base: u64, mut commits: BTreeSet<u64>) -> Result<u64> {
        commits.extend(self.head.as_ref().map(|head| head.sequence));
        commits.retain(|sequence| (1..base).contains(sequence));
        for sequence in &commits {
            self.storage.delete(self.chain.name(*sequence)).await?;
        }
        Ok(commits.len() as u64)
    }

    /// Deletes blocks that the state does not need, and headers that are older than its own; answers how many blobs that were.
    pub(super) async fn prune(&self, state: &State, blocks: &[Name]) -> Result<u64> {
        let older: Vec<_> = self.headers.iter().filter(|id| id.generation < state.root.header_generation).collect();
        for generation in older.iter().map(|id| id.generation).collect::<BTreeSet<_>>() {
            keyring::delete_header(&self.storage, generation).await?;
        }
        delete(&self.storage, blocks).await?;
        self.storage.sync().await?;
        Ok((older.len() + blocks.len()) as u64)
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
