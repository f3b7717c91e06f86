//! Judges a transaction: whether it can be in the next commit, and what each of its operations comes to there.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::commit::Draft;
use super::recent::Keys;
use super::root::Root;
use super::shared::{Shared, lock};
use super::transaction::{Op, Work, merge_row};
use crate::format::Pointer;
use crate::format::commit::Delta;
use crate::format::rows::{self, ChunkRow, DataBlock, Place};
use crate::{Error, Result};

impl Shared {
    /// Adds a transaction to the draft, or says why it cannot be in it; then the draft is as before.
    pub(crate) async fn admit(&self, base: &Root, work: &Work, draft: &mut Draft) -> Result<()> {
        self.check_epoch(base, draft).await?;
        if let Some(epoch) = work.epoch {
            // Drawn under an epoch that others have ended, or that closing has begun to end: void.
            let held = lock(&self.epoch);
            if held.number != Some(epoch) || held.is_void {
                return Err(Error::Conflict);
            }
        }
        let since = lock(&self.recent).since(work.base, base.sequence).ok_or(Error::Conflict)?;
        let touches = |key: &[u8]| {
            work.reads.holds(key)
                || matches!(work.ops.get(key), Some(Op::Put(_) | Op::Delete))
                || refers_to_noted(work, key)
        };
        if since.iter().any(|keys| keys.any(touches)) || draft.rows.keys().any(|key| touches(key)) {
            return Err(Error::Conflict);
        }
        if work.has_blocks && shares_condemned(work, &since) {
            return Err(Error::Conflict);
        }
        // A chunk that goes takes its identity along: what grows by doubling would take twice what is in it.
        let counted = work.ops.values().filter(|op| matches!(op, Op::Add(..0) | Op::Free { .. })).count();
        let (rows, usage, freed) = (Vec::with_capacity(work.ops.len() + counted), Vec::new(), Vec::new());
        let mut judge = Judge { shared: self, base, draft, since: &since, rows, usage, freed };
        for (key, op) in &work.ops {
            judge.judge(key, op).await?;
        }
        judge.give_up_freed().await?;
        let Judge { rows, usage, .. } = judge;
        if draft.rows.is_empty() {
            // Made at once, its nodes are full; of one after the other in their order they are half full.
            draft.rows = rows.into_iter().collect();
        } else {
            draft.rows.extend(rows);
        }
        for (block, bytes) in usage {
            *draft.usage.entry(block).or_default() += bytes;
        }
        Ok(())
    }
}

/// What a transaction comes to, on a state and what is drafted on it already.
struct Judge<'a> {
    shared: &'a Shared,
    base: &'a Root,
    draft: &'a Draft,
    /// What was changed since the transaction began.
    since: &'a [Arc<Keys>],
    rows: Vec<Delta>,
    /// Changes of live bytes.
    usage: Vec<(DataBlock, i64)>,
    /// Chunks that nothing refers to any more.
    freed: Vec<(ChunkRow, u64)>,
}

impl Judge<'_> {
    async fn judge(&mut self, key: &Bytes, op: &Op) -> Result<()> {
        match op {
            Op::Put(value) => self.rows.push((key.clone(), Some(value.clone()))),
            Op::Delete => self.rows.push((key.clone(), None)),
            Op::NewChunk(row) => {
                count_place(&row.place, 1, &mut self.usage);
                self.rows.push((key.clone(), Some(Bytes::from(row.encode()))));
            }
            Op::Move { from, to } => self.shift(key, from, to).await?,
            Op::Heal { to, references } => self.heal(key, to, *references).await?,
            Op::Identity(number) => self.identify(key.clone(), *number).await?,
            Op::Note(place) => self.note(key, place).await?,
            Op::Add(0) => {}
            Op::Add(delta) if key.first() == Some(&rows::CHUNK) => self.count(key, *delta).await?,
            Op::Free { death } => self.free(key, *death).await?,
            Op::FreeNode(pointer) => {
                if self.current(key).await?.is_some() {
                    self.rows.push((key.clone(), None));
                    self.usage.push((DataBlock::of(pointer), -rows::live_bytes(pointer).cast_signed()));
                }
            }
            Op::Add(_) | Op::Max(_) => {
                let row = self.current(key).await?;
                self.rows.push((key.clone(), Some(merge_row(row.as_ref(), op)?)));
            }
        }
        Ok(())
    }

    async fn current(&self, key: &Bytes) -> Result<Option<Bytes>> {
        self.shared.current(self.base, self.draft, key).await
    }

    async fn current_chunk(&self, key: &Bytes) -> Result<Option<ChunkRow>> {
        self.shared.current_chunk(self.base, self.draft, key).await
    }

    /// A chunk is elsewhere from now on.
    fn place(&mut self, chunk: &mut ChunkRow, to: &[Pointer]) {
        count_place(&chunk.place, -1, &mut self.usage);
        chunk.place = Place::Records(to.to_vec());
        count_place(&chunk.place, 1, &mut self.usage);
    }

    async fn shift(&mut self, key: &Bytes, from: &[Pointer], to: &[Pointer]) -> Result<()> {
        // Freed or moved since we looked: then what was written in its stead is nobody's.
        let Some(mut chunk) = self.current_chunk(key).await? else { return Ok(()) };
        if matches!(&chunk.place, Place::Records(pointers) if pointers == from) {
            self.place(&mut chunk, to);
            self.rows.push((key.clone(), Some(Bytes::from(chunk.encode()))));
        }
        Ok(())
    }

    async fn heal(&mut self, key: &Bytes, to: &[Pointer], references: i64) -> Result<()> {
        let mut chunk = self.current_chunk(key).await?.ok_or(Error::Conflict)?;
        let number = chunk_number(key)?;
        let note = rows::damaged_key(number);
        // Healed by others since we looked: then what was written in its stead is nobody's.
        if self.current(&note).await?.is_some() {
            self.place(&mut chunk, to);
            self.rows.push((note, None));
        }
        if references == 0 {
            self.rows.push((key.clone(), Some(Bytes::from(chunk.encode()))));
            return Ok(());
        }
        let newest_snapshot = self.shared.newest_snapshot(self.base, self.draft).await?;
        self.refer(number, chunk, references, newest_snapshot)
    }

    /// Of two that came at once, one is found by its identity.
    async fn identify(&mut self, key: Bytes, number: u64) -> Result<()> {
        if self.current(&key).await?.is_none() {
            self.rows.push((key, Some(Bytes::copy_from_slice(&number.to_le_bytes()))));
        }
        Ok(())
    }

    async fn note(&mut self, key: &Bytes, place: &Place) -> Result<()> {
        let number = chunk_number(key)?;
        let Some(chunk) = self.current_chunk(&rows::chunk_key(number)).await? else { return Ok(()) };
        if chunk.place != *place {
            // Healed since we looked, or one of its records was moved: whether it can be read is to be seen anew.
            return Err(Error::Conflict);
        }
        self.rows.push((key.clone(), Some(Bytes::new())));
        match &chunk.identity {
            Some(identity) => self.identify(rows::identity_key(identity), number).await,
            None => Ok(()),
        }
    }

    /// A chunk that is gone is never revived. One that snapshots keep is.
    async fn count(&mut self, key: &Bytes, delta: i64) -> Result<()> {
        let number = chunk_number(key)?;
        let Some(chunk) = self.current_chunk(key).await? else {
            let since_we_looked =
                self.draft.rows.contains_key(key) || self.since.iter().any(|keys| keys.any(|other| other == &**key));
            return Err(match delta {
                _ if since_we_looked => Error::Conflict,
                1.. => Error::ContentGone,
                _ => Error::damaged("chunk", None, format!("chunk {number:#x} has no row")),
            });
        };
        let is_last = chunk.references.checked_add_signed(delta) == Some(0);
        let newest_snapshot = if is_last { self.shared.newest_snapshot(self.base, self.draft).await? } else { 0 };
        self.refer(number, chunk, delta, newest_snapshot)
    }

    /// Gives a chunk more references, or takes some: with its last one it is parked where the newest snapshot that is kept has
    /// it, else freed.
    fn refer(&mut self, number: u64, mut chunk: ChunkRow, delta: i64, newest_snapshot: u64) -> Result<()> {
        let key = rows::chunk_key(number);
        if chunk.references == 0 {
            self.rows.push((rows::parked_chunk_key(chunk.death, number), None));
            chunk.death = 0;
        }
        chunk.references = chunk.references.checked_add_signed(delta).ok_or(Error::Conflict)?;
        if chunk.references == 0 && chunk.birth <= newest_snapshot {
            chunk.death = self.base.sequence + 1;
            self.rows.push((rows::parked_chunk_key(chunk.death, number), Some(Bytes::new())));
            self.rows.push((key, Some(Bytes::from(chunk.encode()))));
        } else if chunk.references == 0 {
            self.rows.push((key, None));
            self.freed.push((chunk, number));
        } else {
            self.rows.push((key, Some(Bytes::from(chunk.encode()))));
        }
        Ok(())
    }

    async fn free(&mut self, key: &Bytes, death: u64) -> Result<()> {
        // Somebody may have taken to it again: then it is not what snapshots alone had.
        match self.current_chunk(key).await? {
            Some(chunk) if chunk.references == 0 && chunk.death == death => {
                self.rows.push((key.clone(), None));
                self.freed.push((chunk, chunk_number(key)?));
            }
            _ => {}
        }
        Ok(())
    }

    /// What goes with the chunks that nothing refers to any more: their records, notes and identities.
    async fn give_up_freed(&mut self) -> Result<()> {
        let freed = std::mem::take(&mut self.freed);
        if freed.is_empty() {
            return Ok(());
        }
        // Healed and given up at once: its identity was put for those who looked for it in between.
        let gone: HashSet<[u8; 8]> = freed.iter().map(|(_, number)| number.to_le_bytes()).collect();
        self.rows.retain(|(key, value)| {
            let named = value.as_deref().and_then(|value| <[u8; 8]>::try_from(value).ok());
            key.first() != Some(&rows::IDENTITY) || named.is_none_or(|named| !gone.contains(&named))
        });
        let notes_damage = self.draft.notes_damage() || self.shared.notes_damage(self.base).await?;
        for (chunk, number) in freed {
            count_place(&chunk.place, -1, &mut self.usage);
            let note = rows::damaged_key(number);
            if notes_damage && self.current(&note).await?.is_some() {
                self.rows.push((note, None));
            }
            let Some(identity) = chunk.identity else { continue };
            let key = rows::identity_key(&identity);
            let named = self.current(&key).await?;
            if named.and_then(|row| rows::decode_count(&row).ok()) == Some(number) {
                self.rows.push((key, None));
            }
        }
        Ok(())
    }
}

/// Whether a key is the note that a chunk is damaged which the work refers to: it may have taken what it stores for that
/// chunk's content before anybody knew.
fn refers_to_noted(work: &Work, key: &[u8]) -> bool {
    match key.split_first() {
        Some((&rows::DAMAGED, number)) => {
            matches!(work.ops.get(&rows::table_key(rows::CHUNK, number)), Some(Op::Add(_)))
        }
        _ => false,
    }
}

/// Whether a block that the work names was condemned after the work began. Open transactions share blocks, so one that is
/// empty for the accounts may hold what this one put; it is not revived.
fn shares_condemned(work: &Work, since: &[Arc<Keys>]) -> bool {
    let mut condemned = HashSet::new();
    for keys in since {
        keys.any(|key| {
            if key.first() == Some(&rows::CONDEMNED) {
                condemned.extend(rows::decode_condemned_key(key).map(|(_, block)| block));
            }
            false
        });
    }
    if condemned.is_empty() {
        return false;
    }
    (work.ops.values())
        .filter_map(|op| match op {
            Op::NewChunk(row) => match &row.place {
                Place::Records(pointers) => Some(pointers),
                Place::Inline(_) => None,
            },
            Op::Move { to: pointers, .. } | Op::Heal { to: pointers, .. } => Some(pointers),
            _ => None,
        })
        .flatten()
        .any(|pointer| condemned.contains(&DataBlock::of(pointer)))
}

fn chunk_number(key: &[u8]) -> Result<u64> {
    rows::decode_number_key(key).map_err(|error| Error::Invalid(error.to_string()))
}

fn count_place(place: &Place, sign: i64, usage: &mut Vec<(DataBlock, i64)>) {
    if let Place::Records(pointers) = place {
        usage.extend(
            pointers.iter().map(|pointer| (DataBlock::of(pointer), sign * rows::live_bytes(pointer).cast_signed())),
        );
    }
}
