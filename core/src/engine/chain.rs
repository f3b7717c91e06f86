//! The commit chain in storage: reading commits, sealing them, finding the head.
//!
//! Commit *n* is a blob named from *n*. Names can be put again after deletion, so a successor counts only if its
//! predecessor is afterwards still there with the expected salt ([`Chain::predecessor_is_there`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join, join_all};

use super::nodes::Nodes;
use super::root::{Applied, Root};
use crate::block::{BlockBuilder, BlockContext, BlockStore, Geometry, Place, READ_ALIGNMENT_BYTES};
use crate::format::commit::{CommitHead, Delta, Hint, SPILL_DEPTH_MAX, SpilledBody, decode_deltas};
use crate::format::rows::{self, DataBlock};
use crate::format::{BlockClass, BlockId, CloneMark, RecordKind, SALT_BYTES, SEAL_BYTES, well_known};
use crate::layer::put_own_durable;
use crate::storage::{self, Name, Storage, StorageExt};
use crate::{Error, Result};

/// How many commits are asked for at once when the tail is read; four times as many once all of those are there.
const PROBE_WINDOW: u64 = 8;
const PROBE_WINDOW_MAX: u64 = 32;
/// How far beyond what is missing commits are looked for that came before it, where they come in any order.
const AHEAD_COMMITS: u64 = 16;
/// For one look into the history of a state.
const HISTORY_CACHE_BYTES: u64 = 1 << 20;
/// Storage sees reads of parts as multiples of this many bytes.
const READ_UNIT_BYTES: u64 = READ_ALIGNMENT_BYTES as u64;

/// A commit as storage has it, authenticated.
pub(crate) struct LoadedCommit {
    pub(crate) name: Name,
    pub(crate) head: CommitHead,
    pub(crate) hash: [u8; 32],
    pub(crate) salt: [u8; 16],
    pub(crate) deltas: Vec<Delta>,
    pub(crate) spills: Vec<DataBlock>,
}

impl LoadedCommit {
    pub(crate) fn as_applied(&self) -> Applied<'_> {
        let Self { name, head, hash, salt, deltas, spills } = self;
        Applied { name: *name, head, hash: *hash, salt: *salt, deltas, spills }
    }
}

/// A sealed commit, ready to be put.
pub(crate) struct SealedCommit {
    pub(crate) name: Name,
    pub(crate) blob: Bytes,
    pub(crate) hash: [u8; 32],
    pub(crate) salt: [u8; 16],
}

/// A commit as storage has it, before what its body points to is read.
struct SealedBody {
    head: CommitHead,
    hash: [u8; 32],
    salt: [u8; 16],
    body: Bytes,
}

/// A commit that is missing before another one that is there.
struct Gap {
    missing: u64,
    asked: u64,
}

impl Gap {
    fn error(&self, chain: &Chain) -> Error {
        let Self { missing, asked } = self;
        let blob = chain.name(*missing);
        if chain.is_one_of_many() {
            return Error::Missing { structure: "a commit before others that are there", blob };
        }
        let detail = format!("commit {missing} is missing while commit {asked} is there");
        Error::damaged("commit chain", Some(blob), detail)
    }
}

/// The commits after another one, as far as they go, and the gap that ended that.
type Tail = Result<(Vec<LoadedCommit>, Option<Gap>)>;

/// Access to the chain.
#[derive(Clone)]
pub(crate) struct Chain {
    blocks: Arc<BlockStore>,
}

impl Chain {
    pub(crate) fn new(blocks: Arc<BlockStore>) -> Self {
        Self { blocks }
    }

    pub(crate) fn blocks(&self) -> &Arc<BlockStore> {
        &self.blocks
    }

    fn context(&self) -> &Arc<BlockContext> {
        self.blocks.reader.context()
    }

    fn storage(&self) -> &Arc<dyn Storage> {
        &self.context().storage
    }

    fn key_epoch(&self) -> u16 {
        self.context().keys.newest_epoch()
    }

    pub(crate) fn id(&self, sequence: u64) -> BlockId {
        BlockId::Commit { key_epoch: self.key_epoch(), sequence }
    }

    pub(crate) fn name(&self, sequence: u64) -> Name {
        self.blocks.reader.name(&self.id(sequence))
    }

    /// How many bytes of body fit into the blob of a commit.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.context().geometry.record_capacity().saturating_sub(CommitHead::BYTES + Geometry::RECORD_OVERHEAD_BYTES)
    }

    /// Seals a commit; `body` must fit.
    pub(crate) fn seal(&self, head: &CommitHead, body: &[u8]) -> Result<SealedCommit> {
        self.seal_in(BlockBuilder::new(self.context(), BlockClass::Commit, &self.id(head.sequence))?, head, body)
    }

    /// A commit without a body, which is the same each time: its salt comes of what it says.
    pub(super) fn seal_alike(&self, head: &CommitHead) -> Result<SealedCommit> {
        let builder = BlockBuilder::new(self.context(), BlockClass::Commit, &self.id(head.sequence))?;
        let drawn = self.context().keys.commit_hash(&[b"salt of a commit that is sealed alike", &head.encode()]);
        let salt = drawn.first_chunk().copied().unwrap_or(*builder.salt());
        self.seal_in(builder.with_salt(salt), head, &[])
    }

    fn seal_in(&self, mut builder: BlockBuilder, head: &CommitHead, body: &[u8]) -> Result<SealedCommit> {
        let context = self.context();
        let salt = *builder.salt();
        let head_bytes = head.encode();
        let too_large = || Error::Invalid("a commit that no block holds".into());
        builder.append(RecordKind::CommitHead, head.sequence, &head_bytes).ok_or_else(too_large)?;
        if !body.is_empty() {
            builder.append(RecordKind::CommitBody, head.sequence, body).ok_or_else(too_large)?;
        }
        let hash = context.keys.commit_hash(&[&salt, &head_bytes, body]);
        let sealed = builder.seal(&context.keys)?;
        Ok(SealedCommit { name: sealed.name, blob: sealed.bytes, hash, salt })
    }

    /// Reads commit `sequence`; `None` where there is none.
    pub(crate) async fn read(&self, sequence: u64) -> Result<Option<LoadedCommit>> {
        let Some(SealedBody { head, hash, salt, body }) = self.read_body(sequence).await? else { return Ok(None) };
        let name = self.name(sequence);
        let mut spills = Vec::new();
        let deltas = if head.spilled {
            self.unspill(name, &body, &mut spills).await?
        } else if body.is_empty() {
            Vec::new()
        } else {
            decode_deltas(&body).map_err(|error| Error::damaged("commit", Some(name), error.to_string()))?
        };
        Ok(Some(LoadedCommit { name, head, hash, salt, deltas, spills }))
    }

    /// The head and hash of commit `sequence`, without the blocks that it may have spilled into; `None` where there is none.
    pub(crate) async fn read_head(&self, sequence: u64) -> Result<Option<(CommitHead, [u8; 32])>> {
        Ok(self.read_body(sequence).await?.map(|sealed| (sealed.head, sealed.hash)))
    }

    async fn read_body(&self, sequence: u64) -> Result<Option<SealedBody>> {
        let context = self.context();
        let name = self.name(sequence);
        let block_bytes = u64::from(context.geometry.block_bytes());
        let first = READ_UNIT_BYTES.min(block_bytes);
        let prefix = match context.storage.get(name, Some(0..first), first).await {
            Ok(prefix) => prefix,
            Err(error) => return absent_or_damaged(error, name),
        };
        let open = |blob: &Bytes, index, kind, offset: usize, bytes: usize| {
            self.open_record(name, blob, index, kind, offset, bytes)
        };
        let head_bytes = open(&prefix, 0, RecordKind::CommitHead, SALT_BYTES, CommitHead::BYTES)?;
        let malformed = |error: crate::format::FormatError| Error::damaged("commit", Some(name), error.to_string());
        let head = CommitHead::decode(&head_bytes).map_err(malformed)?;
        if head.sequence != sequence {
            return Err(Error::damaged("commit", Some(name), "holds another sequence"));
        }
        let body_offset = SALT_BYTES + CommitHead::BYTES + SEAL_BYTES;
        let body_bytes = head.body_bytes as usize;
        if body_bytes > self.body_bytes_max() {
            return Err(Error::damaged("commit", Some(name), "body longer than a block"));
        }
        let body = if body_bytes == 0 {
            Bytes::new()
        } else {
            let end = (body_offset + body_bytes + SEAL_BYTES) as u64;
            let blob = if end <= first {
                prefix.clone()
            } else {
                let end = end.div_ceil(READ_UNIT_BYTES).saturating_mul(READ_UNIT_BYTES).min(block_bytes);
                match context.storage.get(name, Some(0..end), end).await {
                    Ok(blob) => blob,
                    Err(error) => return absent_or_damaged(error, name),
                }
            };
            if blob.get(..SALT_BYTES) != prefix.get(..SALT_BYTES) {
                return Err(Error::damaged("commit", Some(name), "changed while it was read"));
            }
            open(&blob, 1, RecordKind::CommitBody, body_offset, body_bytes)?
        };
        let salt: [u8; SALT_BYTES] = prefix
            .first_chunk()
            .copied()
            .ok_or_else(|| Error::damaged("commit", Some(name), "shorter than its salt"))?;
        let hash = context.keys.commit_hash(&[&salt, &head_bytes, &body]);
        Ok(Some(SealedBody { head, hash, salt, body }))
    }

    fn open_record(
        &self,
        name: Name,
        blob: &Bytes,
        index: u16,
        kind: RecordKind,
        offset: usize,
        bytes: usize,
    ) -> Result<Bytes> {
        let narrow =
            |number: usize| u32::try_from(number).map_err(|_| Error::damaged("commit", Some(name), "over 4 GiB"));
        let place = Place { index, offset: narrow(offset)?, length: narrow(bytes + SEAL_BYTES)? };
        self.blocks.reader.open_record(name, self.key_epoch(), blob, &place, kind)
    }

    async fn unspill(&self, name: Name, body: &Bytes, spills: &mut Vec<DataBlock>) -> Result<Vec<Delta>> {
        let malformed = |error: crate::format::FormatError| Error::damaged("commit", Some(name), error.to_string());
        let mut spilled = SpilledBody::decode(body).map_err(malformed)?;
        for _ in 0..=SPILL_DEPTH_MAX {
            let total = spilled.total_bytes as usize;
            let mut joined = Vec::with_capacity(total.min(1 << 20));
            for pointer in &spilled.pointers {
                let block = DataBlock::of(pointer);
                if spills.last() != Some(&block) {
                    spills.push(block);
                }
                joined.extend_from_slice(&self.blocks.read(pointer, RecordKind::Spill).await?);
                if joined.len() > total {
                    break;
                }
            }
            if joined.len() != total {
                return Err(Error::damaged("commit", Some(name), "its spilled deltas have another length"));
            }
            let joined = Bytes::from(joined);
            if spilled.depth == 0 {
                return decode_deltas(&joined).map_err(malformed);
            }
            let deeper = SpilledBody::decode(&joined).map_err(malformed)?;
            if deeper.depth + 1 != spilled.depth {
                break;
            }
            spilled = deeper;
        }
        Err(Error::damaged("commit", Some(name), "spilled bodies nest wrongly"))
    }

    /// Whether the commit of this state is still in storage, by its salt.
    pub(crate) async fn predecessor_is_there(&self, sequence: u64, salt: &[u8; 16]) -> Result<bool> {
        if sequence == 0 {
            return Ok(true);
        }
        Ok(self.salt_of(self.name(sequence)).await?.as_ref() == Some(salt))
    }

    /// The salt of a blob, `None` where there is none.
    pub(crate) async fn salt_of(&self, name: Name) -> Result<Option<[u8; 16]>> {
        let bytes = READ_UNIT_BYTES.min(u64::from(self.context().geometry.block_bytes()));
        match self.storage().get(name, Some(0..bytes), bytes).await {
            Ok(prefix) => Ok(prefix.first_chunk().copied()),
            Err(error) if error.kind() == storage::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == storage::ErrorKind::RangeInvalid => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The commits after `sequence`, in order, as far as they go; several are asked for at once.
    pub(crate) async fn successors(&self, sequence: u64, window: u64) -> Result<Vec<LoadedCommit>> {
        match self.tail(sequence, window, 0).await? {
            (found, None) => Ok(found),
            (_, Some(gap)) => Err(gap.error(self)),
        }
    }

    /// As [`Chain::successors`], with the gap where a commit is missing before another that is there, so far `ahead` at least.
    async fn tail(&self, sequence: u64, window: u64, ahead: u64) -> Tail {
        let mut found = Vec::new();
        let (mut next, mut window) = (sequence + 1, window);
        loop {
            let answers = join_all((next..next + window).map(|sequence| self.read(sequence))).await;
            let (mut gap, mut appeared) = (None, false);
            for (asked, answer) in (next..).zip(answers) {
                match (answer?, gap) {
                    (Some(commit), None) => found.push(commit),
                    (Some(_), Some(missing)) => {
                        // It may have come between the two looks; if not, somebody took it away.
                        let Some(commit) = self.read(missing).await? else {
                            return Ok((found, Some(Gap { missing, asked })));
                        };
                        // Each look that goes on has found something: answers that flap keep nobody busy for ever.
                        found.push(commit);
                        appeared = true;
                        break;
                    }
                    (None, None) => gap = Some(asked),
                    (None, Some(_)) => {}
                }
            }
            if let Some(missing) = gap
                && !appeared
            {
                let Some(asked) = self.first_there(next + window..missing.saturating_add(ahead)).await? else {
                    return Ok((found, None));
                };
                let Some(commit) = self.read(missing).await? else {
                    return Ok((found, Some(Gap { missing, asked })));
                };
                found.push(commit);
            }
            next = sequence + found.len() as u64 + 1;
            window = (4 * window).min(PROBE_WINDOW_MAX.max(window));
        }
    }

    /// How far commits are looked for beyond one that is missing.
    fn ahead(&self) -> u64 {
        if self.is_one_of_many() { AHEAD_COMMITS } else { 0 }
    }

    /// Whether the same blobs may be at several places, and come to this one in any order.
    fn is_one_of_many(&self) -> bool {
        self.storage().occupancy().is_some_and(|occupancy| occupancy.place().is_some())
    }

    async fn first_there(&self, sequences: std::ops::Range<u64>) -> Result<Option<u64>> {
        let looks = join_all(sequences.clone().map(|sequence| self.storage().exists(self.name(sequence)))).await;
        let is_there = looks.into_iter().collect::<std::result::Result<Vec<bool>, _>>()?;
        Ok(sequences.zip(is_there).find(|(_, is_there)| *is_there).map(|(sequence, _)| sequence))
    }

    /// Finds the newest state: the last checkpoint by its hint (or, failing that, by looking at every name), then forward.
    pub(crate) async fn find_head(&self) -> Result<Root> {
        // Apart: it is a part of whatever may have to look for the head anew, and would make the future of each of those large.
        Box::pin(self.find_head_from(&BTreeMap::new())).await
    }

    /// As [`Chain::find_head`], for one who has read hints already (what [`Chain::hint_in`] reads). They may be of a while ago: a
    /// state that they lead to is looked at as any other, and where they lead nowhere hints are looked for.
    pub(crate) async fn find_head_from(&self, hints: &BTreeMap<Name, Bytes>) -> Result<Root> {
        let (mut failed_at, mut withheld) = (None, None);
        let mut known: Vec<Hint> = hints.iter().filter_map(|(name, blob)| self.hint_in(*name, blob).ok()).collect();
        // The head can move on and its predecessors vanish while we look; then we look anew.
        for _ in 0..16 {
            let was_known = !known.is_empty();
            let hints = match std::mem::take(&mut known) {
                hints if was_known => hints,
                _ => self.hints().await?.into_iter().filter_map(|(_, hint)| hint.ok()).collect(),
            };
            let (found, hinted) = self.last_checkpoint(hints).await?;
            let (checkpoint, tail) = match found {
                Some(found) => found,
                None if was_known => continue,
                None => (self.search_checkpoint().await?, None),
            };
            let found = match self.head_after(&checkpoint, tail).await {
                Ok((head, anchor, None)) => Ok((head, anchor)),
                // The second time it is no race.
                Ok((head, _, Some(gap))) if failed_at == Some(checkpoint.head.sequence) => {
                    Box::pin(self.head_beyond(&head, &gap)).await
                }
                Ok((_, _, Some(gap))) => Err(gap.error(self)),
                Err(error) => Err(error),
            };
            match found {
                // Damage, or a race with deletion: the latter shows in a new checkpoint.
                Err(error) if failed_at == Some(checkpoint.head.sequence) => return Err(error),
                Err(_) => failed_at = Some(checkpoint.head.sequence),
                Ok((head, anchor)) => {
                    if !self.predecessor_is_there(anchor.0, &anchor.1).await? {
                        continue;
                    }
                    if head.sequence >= hinted {
                        return Ok(head);
                    }
                    // A hint comes after its checkpoint: that was there, and so was everything up to it.
                    withheld = Some(hinted);
                }
            }
        }
        Err(match withheld {
            Some(sequence) => Error::Missing { structure: "commit", blob: self.name(sequence) },
            None => Error::damaged("commit chain", None, "no checkpoint leads to a head that stays"),
        })
    }

    /// The state that a checkpoint leads to, with what comes after it where that is known; the commit that must stay there for it
    /// to count; and the gap that ended it.
    async fn head_after(
        &self,
        checkpoint: &LoadedCommit,
        tail: Option<Tail>,
    ) -> Result<(Root, (u64, [u8; SALT_BYTES]), Option<Gap>)> {
        let base = Root::from_checkpoint(checkpoint.as_applied());
        let (tail, gap) = match tail {
            Some(tail) => tail?,
            None => self.tail(base.sequence, PROBE_WINDOW, self.ahead()).await?,
        };
        let anchor = match tail.as_slice() {
            [] | [_] => (base.sequence, base.salt),
            [.., before, _] => (before.head.sequence, before.salt),
        };
        Ok((extend(base, &tail)?, anchor, gap))
    }

    /// The state of a later checkpoint than what a gap ends, if that one's history says that it comes of it: what a clone that was
    /// brought up to date stands at before there is a hint. Of any other line it is not.
    async fn head_beyond(&self, before: &Root, gap: &Gap) -> Result<(Root, (u64, [u8; SALT_BYTES]))> {
        let later = match self.search_checkpoint().await {
            Ok(later) if later.head.sequence > before.sequence => later,
            Err(error @ Error::Storage(_)) => return Err(error),
            _ => return Err(gap.error(self)),
        };
        let nodes = Nodes::new(self.blocks.clone(), HISTORY_CACHE_BYTES);
        let state = Root::from_checkpoint(later.as_applied());
        match state.get(&nodes, &rows::history_key(before.sequence)).await {
            Ok(Some(row)) if row.as_ref() == before.hash.as_slice() => {}
            Err(error @ Error::Storage(_)) => return Err(error),
            _ => return Err(gap.error(self)),
        }
        match self.head_after(&later, None).await? {
            (head, anchor, None) => Ok((head, anchor)),
            (_, _, Some(gap)) => Err(gap.error(self)),
        }
    }

    /// The newest checkpoint that a hint names and that is there, with what comes after it where that was asked for, too; and
    /// the newest that any hint names.
    async fn last_checkpoint(&self, mut hints: Vec<Hint>) -> Result<(Option<(LoadedCommit, Option<Tail>)>, u64)> {
        hints.sort_by_key(|hint| std::cmp::Reverse(hint.sequence));
        let newest = hints.first().map_or(0, |hint| hint.sequence);
        for (number, hint) in hints.into_iter().enumerate() {
            // With the newest its successors are asked for at once: it is nearly always the right one.
            let (commit, tail) = if number == 0 {
                let (commit, tail) =
                    join(self.read(hint.sequence), self.tail(hint.sequence, PROBE_WINDOW, self.ahead())).await;
                (commit?, Some(tail))
            } else {
                (self.read(hint.sequence).await?, None)
            };
            if let Some(commit) = commit
                && commit.hash == hint.hash
                && commit.head.checkpoint
            {
                return Ok((Some((commit, tail)), newest));
            }
        }
        Ok((None, newest))
    }

    /// Every hint in storage with its name; one that does not authenticate is an error of its own.
    pub(crate) async fn hints(&self) -> Result<Vec<(Name, Result<Hint>)>> {
        let names = self.storage().list_all(&well_known::HINT_PREFIX).await?;
        let mut hints = Vec::new();
        for name in names {
            match self.read_hint(name).await {
                Err(Error::Missing { .. }) => {}
                Err(Error::Storage(error)) if error.kind() != storage::ErrorKind::RangeInvalid => {
                    return Err(Error::Storage(error));
                }
                other => hints.push((name, other)),
            }
        }
        Ok(hints)
    }

    pub(super) async fn read_hint(&self, name: Name) -> Result<Hint> {
        let context = self.context();
        let bytes = READ_UNIT_BYTES.min(u64::from(context.geometry.block_bytes()));
        let prefix = match context.storage.get(name, Some(0..bytes), bytes).await {
            Ok(prefix) => prefix,
            Err(error) if error.kind() == storage::ErrorKind::NotFound => {
                return Err(Error::Missing { structure: "hint", blob: name });
            }
            Err(error) if error.kind() == storage::ErrorKind::RangeInvalid => {
                return Err(Error::damaged("hint", Some(name), "shorter than a block"));
            }
            Err(error) => return Err(error.into()),
        };
        self.hint_in(name, &prefix)
    }

    /// The hint in the beginning of a blob of this name.
    fn hint_in(&self, name: Name, prefix: &Bytes) -> Result<Hint> {
        let plain = self.open_record(name, prefix, 0, RecordKind::Hint, SALT_BYTES, Hint::BYTES)?;
        Hint::decode(&plain).map_err(|error| Error::damaged("hint", Some(name), error.to_string()))
    }

    /// What a clone says of itself in the beginning of a hint.
    pub(crate) fn mark_in(&self, name: Name, prefix: &Bytes) -> Result<CloneMark> {
        let offset = SALT_BYTES + Hint::BYTES + SEAL_BYTES;
        let plain = self.open_record(name, prefix, 1, RecordKind::Hint, offset, CloneMark::BYTES)?;
        CloneMark::decode(&plain).map_err(|error| Error::damaged("hint", Some(name), error.to_string()))
    }

    /// Puts a hint for a checkpoint, then deletes the others; answers its name.
    pub(crate) async fn put_hint(&self, sequence: u64, hash: [u8; 32]) -> Result<Name> {
        let others = self.storage().list_all(&well_known::HINT_PREFIX).await?;
        self.replace_hints(sequence, hash, None, &others).await
    }

    /// Puts a hint for a checkpoint, with what a clone says of itself, then deletes these others; answers its name.
    pub(crate) async fn replace_hints(
        &self,
        sequence: u64,
        hash: [u8; 32],
        mark: Option<&CloneMark>,
        others: &BTreeSet<Name>,
    ) -> Result<Name> {
        let context = self.context();
        let name = Name::new(well_known::hint_name(context.env.random()?));
        let mut builder = BlockBuilder::named(context, BlockClass::Hint, name, self.key_epoch())?;
        let hint = Hint { sequence, hash, key_epoch: self.key_epoch() };
        for record in [Some(hint.encode()), mark.map(CloneMark::encode)].into_iter().flatten() {
            builder
                .append(RecordKind::Hint, sequence, &record)
                .ok_or_else(|| Error::Invalid("a hint that no block holds".into()))?;
        }
        let sealed = builder.seal(&context.keys)?;
        match put_own_durable(&**self.storage(), &context.env, sealed.name, sealed.bytes).await {
            // It was there, and one who put the hint of a newer checkpoint was done with it before it could be made durable. A clone
            // needs its own to be there.
            Err(error)
                if mark.is_none()
                    && error.kind() == storage::ErrorKind::NotFound
                    && error.operation() == storage::Operation::Persist => {}
            put => drop(put?),
        }
        for other in others {
            // A hint of a still newer checkpoint, by another writer, stays.
            let newer = matches!(self.read_hint(*other).await, Ok(hint) if hint.sequence > sequence);
            if !newer {
                self.storage().delete(*other).await?;
            }
        }
        Ok(sealed.name)
    }

    /// Without hints: looks at every name for commits, and takes the newest checkpoint of the newest unbroken run.
    async fn search_checkpoint(&self) -> Result<LoadedCommit> {
        let names = self.storage().list_all(&[]).await?;
        let sequences: BTreeMap<u64, Name> = names
            .into_iter()
            .filter_map(|name| match self.blocks.reader.block_id(name) {
                Some(BlockId::Commit { sequence, .. }) => Some((sequence, name)),
                _ => None,
            })
            .collect();
        let mut expected = None;
        for &sequence in sequences.keys().rev() {
            if expected.is_some_and(|expected| expected != sequence) {
                break;
            }
            expected = sequence.checked_sub(1);
            if let Some(commit) = self.read(sequence).await?
                && commit.head.checkpoint
            {
                return Ok(commit);
            }
        }
        match sequences.last_key_value() {
            Some((sequence, name)) => {
                Err(Error::damaged("commit chain", Some(*name), format!("no checkpoint below commit {sequence}")))
            }
            None => Err(Error::damaged("commit chain", None, "no commit is left")),
        }
    }
}

fn extend(root: Root, tail: &[LoadedCommit]) -> Result<Root> {
    tail.iter().try_fold(root, |root, commit| root.after(commit.as_applied()))
}

fn absent_or_damaged<T>(error: storage::Error, name: Name) -> Result<Option<T>> {
    match error.kind() {
        storage::ErrorKind::NotFound => Ok(None),
        storage::ErrorKind::RangeInvalid => Err(Error::damaged("commit", Some(name), "shorter than a block")),
        _ => Err(error.into()),
    }
}
