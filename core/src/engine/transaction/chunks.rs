//! The chunks of a transaction: found by what they hold, put, healed, referred to, moved and freed.

use std::sync::Arc;

use bytes::Bytes;

use super::{Op, Transaction};
use crate::engine::ChunkNumber;
use crate::format::rows::{self, ChunkRow, Place};
use crate::format::{BlockClass, Pointer, RecordKind};
use crate::{Error, Result};

impl Transaction {
    /// The chunk with this identity, one reference added; `None` where there is none, or one that is noted as damaged, see
    /// [`crate::engine::Engine::repair`]: what is put under its identity then heals it.
    ///
    /// # Errors
    /// What reading the identity raises.
    pub async fn find_chunk(&mut self, identity: &[u8; 32]) -> Result<Option<ChunkNumber>> {
        let Some(number) = self.known_chunk(identity).await? else { return Ok(None) };
        self.retain_chunk(number)?;
        Ok(Some(number))
    }

    /// The chunk with this identity, to which nothing is added: for reading only, too. `None` where there is none, or where it is
    /// noted as damaged.
    ///
    /// # Errors
    /// What reading the identity raises.
    pub async fn known_chunk(&mut self, identity: &[u8; 32]) -> Result<Option<ChunkNumber>> {
        let key = rows::identity_key(identity);
        let number = match self.ops.get(&key) {
            Some(Op::Identity(number)) => Some(*number),
            _ => match self.shared.get_at(&self.root, &key).await? {
                Some(row) => Some(
                    rows::decode_count(&row).map_err(|error| Error::damaged("identity", None, error.to_string()))?,
                ),
                None => None,
            },
        };
        let Some(number) = number.map(ChunkNumber) else { return Ok(None) };
        if self.is_damaged(number).await? {
            self.damaged.insert(*identity, number);
            return Ok(None);
        }
        Ok(Some(number))
    }

    /// Whether a chunk is noted as damaged, and this transaction does not heal it. Not counted as read: who refers to a chunk
    /// that was noted meanwhile has a conflict anyhow.
    async fn is_damaged(&mut self, number: ChunkNumber) -> Result<bool> {
        let any = match self.notes_damage {
            Some(any) => any,
            None => match self.shared.notes_damage(&self.root).await {
                Ok(any) => *self.notes_damage.insert(any),
                Err(error) => return Err(self.shared.explain(error, self.root.sequence).await),
            },
        };
        if !any || matches!(self.ops.get(&rows::chunk_key(number.0)), Some(Op::Heal { .. })) {
            return Ok(false);
        }
        self.has_row(&rows::damaged_key(number.0)).await
    }

    /// Writes the payload of a chunk anew that is noted as damaged, where `identity` is what it has: then whatever refers to
    /// the chunk, versions and snapshots too, can be read again. Answers `false` where the chunk is of other content, and
    /// stays damaged; `true` too where it is not, or no longer, noted as damaged.
    ///
    /// # Errors
    /// As [`Transaction::put_chunk`].
    pub async fn heal_chunk(&mut self, number: ChunkNumber, identity: &[u8; 32], payload: Bytes) -> Result<bool> {
        self.shared.check_writable()?;
        self.check_chunk(&payload)?;
        if matches!(self.ops.get(&rows::chunk_key(number.0)), Some(Op::Heal { .. })) {
            return Ok(self.identity_of(number).await?.as_ref() == Some(identity));
        }
        Ok(!self.is_damaged(number).await? || self.heal(number, identity, &payload, 0).await?)
    }

    /// Heals a chunk that is noted as damaged, with so many references more.
    async fn heal(
        &mut self,
        number: ChunkNumber,
        identity: &[u8; 32],
        payload: &Bytes,
        references: i64,
    ) -> Result<bool> {
        let key = rows::chunk_key(number.0);
        if let Some(Op::Heal { references: before, .. }) = self.ops.get_mut(&key) {
            *before = before.saturating_add(references);
            return Ok(true);
        }
        let before = match self.ops.get(&key) {
            None => 0,
            Some(Op::Add(before)) => *before,
            Some(_) => return Ok(false),
        };
        // Gone, or another: then there is nothing to heal with this.
        if self.identity_of(number).await?.as_ref() != Some(identity) {
            return Ok(false);
        }
        self.hold_epoch().await?;
        let to = self.append(number.0, payload).await?;
        self.pending_bytes += 256;
        self.ops.insert(key, Op::Heal { to, references: before.saturating_add(references) });
        // For who looks for it in this transaction: the row stays as it is.
        self.ops.insert(rows::identity_key(identity), Op::Identity(number.0));
        Ok(true)
    }

    async fn identity_of(&self, number: ChunkNumber) -> Result<Option<[u8; 32]>> {
        Ok(self.chunk_row(number.0).await?.and_then(|row| row.identity))
    }

    /// Stores a payload under its identity, or adds a reference to the chunk that has it. The caller owns one reference.
    /// The payload, and whatever it is a slice of, may be held until it is on its way into storage.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] for a payload over [`crate::engine::Engine::chunk_bytes_max`]; what the storage raises.
    pub async fn put_chunk(&mut self, identity: Option<[u8; 32]>, payload: Bytes) -> Result<ChunkNumber> {
        if let Some(identity) = &identity
            && let Some(number) = self.find_chunk(identity).await?
        {
            return Ok(number);
        }
        self.put_new_chunk(identity, payload).await
    }

    /// As [`Transaction::put_chunk`], of an identity that [`Transaction::find_chunk`] does not find: it is not looked up again.
    /// Were there one after all, its content would be stored twice. One that was found damaged is healed.
    ///
    /// # Errors
    /// As [`Transaction::put_chunk`].
    pub async fn put_new_chunk(&mut self, identity: Option<[u8; 32]>, payload: Bytes) -> Result<ChunkNumber> {
        self.shared.check_writable()?;
        self.check_chunk(&payload)?;
        if let Some(identity) = &identity
            && let Some(number) = self.damaged.get(identity).copied()
            && self.heal(number, identity, &payload, 1).await?
        {
            return Ok(number);
        }
        let number = self.number().await?;
        self.put_numbered(number, identity, payload).await?;
        Ok(ChunkNumber(number))
    }

    /// As [`Transaction::put_new_chunk`], under a number that was drawn in another repository: under an epoch before ours, so
    /// that it is never drawn here.
    pub(in crate::engine) async fn put_foreign_chunk(
        &mut self,
        number: ChunkNumber,
        identity: Option<[u8; 32]>,
        payload: Bytes,
    ) -> Result<()> {
        self.shared.check_writable()?;
        self.check_chunk(&payload)?;
        self.hold_epoch().await?;
        let key = rows::chunk_key(number.0);
        if number.0 >> 32 >= self.epoch.unwrap_or_default().into()
            || self.ops.contains_key(&key)
            || self.has_row(&key).await?
        {
            return Err(Error::Invalid(format!("the number {:#x} of a chunk is taken, or not from before", number.0)));
        }
        self.put_numbered(number.0, identity, payload).await
    }

    fn check_chunk(&self, payload: &Bytes) -> Result<()> {
        let limit = self.shared.chunk_bytes_max();
        if payload.len() > limit {
            return Err(Error::LimitExceeded { what: "chunk_bytes", value: payload.len() as u64, limit: limit as u64 });
        }
        Ok(())
    }

    async fn put_numbered(&mut self, number: u64, identity: Option<[u8; 32]>, payload: Bytes) -> Result<()> {
        let place = if !self.has_blocks && self.inline_bytes + payload.len() <= self.shared.inline_bytes_max() {
            self.inline.push(number);
            self.inline_bytes += payload.len();
            self.pending_bytes += payload.len() as u64;
            Place::Inline(payload)
        } else {
            self.move_inline_to_blocks().await?;
            self.place(number, &payload).await?
        };
        let row = ChunkRow { references: 1, birth: self.root.sequence + 1, death: 0, identity, place };
        self.ops.insert(rows::chunk_key(number), Op::NewChunk(Box::new(row)));
        self.pending_bytes += 256;
        if let Some(identity) = identity {
            self.ops.insert(rows::identity_key(&identity), Op::Identity(number));
        }
        Ok(())
    }

    async fn place(&mut self, number: u64, payload: &Bytes) -> Result<Place> {
        Ok(Place::Records(self.append(number, payload).await?))
    }

    async fn append(&mut self, number: u64, payload: &Bytes) -> Result<Vec<Pointer>> {
        self.has_blocks = true;
        let since = self.appending.get_or_insert_with(|| Arc::new(self.shared.start_appending())).since;
        let writer = &self.shared.blocks.writer;
        let mut appended = writer.append_since(since, BlockClass::Data, RecordKind::ChunkData, number, payload).await;
        if let Err(error) = &appended
            && self.shared.makes_room(error).await
        {
            let _ = writer.take_failure_since(since);
            appended = writer.append_since(since, BlockClass::Data, RecordKind::ChunkData, number, payload).await;
        }
        if appended.is_err() {
            // Told here, and this transaction ends with it; those who share the blocks may have more luck.
            let _ = writer.take_failure_since(since);
        }
        appended
    }

    /// A transaction that grows large packs what it had kept in rows.
    async fn move_inline_to_blocks(&mut self) -> Result<()> {
        self.has_blocks = true;
        while let Some(number) = self.inline.last().copied() {
            let key = rows::chunk_key(number);
            let payload = match self.ops.get(&key) {
                Some(Op::NewChunk(row)) if let Place::Inline(payload) = &row.place => payload.clone(),
                _ => Bytes::new(),
            };
            if !payload.is_empty() {
                let moved = self.place(number, &payload).await?;
                if let Some(Op::NewChunk(row)) = self.ops.get_mut(&key) {
                    row.place = moved;
                }
                self.pending_bytes = self.pending_bytes.saturating_sub(payload.len() as u64);
            }
            self.inline.pop();
        }
        self.inline_bytes = 0;
        Ok(())
    }

    /// One reference more.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] and [`Error::Closed`].
    pub fn retain_chunk(&mut self, number: ChunkNumber) -> Result<()> {
        self.count_chunk(number, 1)
    }

    /// One reference less; at none the chunk is freed.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] and [`Error::Closed`].
    pub fn release_chunk(&mut self, number: ChunkNumber) -> Result<()> {
        self.count_chunk(number, -1)
    }

    fn count_chunk(&mut self, number: ChunkNumber, delta: i64) -> Result<()> {
        self.shared.check_writable()?;
        let key = rows::chunk_key(number.0);
        let mut forgotten = None;
        match self.ops.get_mut(&key) {
            Some(Op::NewChunk(row)) => {
                row.references = row.references.saturating_add_signed(delta);
                if row.references == 0 {
                    forgotten = Some(row.identity);
                }
            }
            Some(Op::Add(before) | Op::Heal { references: before, .. }) => *before = before.saturating_add(delta),
            _ => {
                self.ops.insert(key.clone(), Op::Add(delta));
                self.pending_bytes += 80;
            }
        }
        if let Some(identity) = forgotten {
            self.ops.remove(&key);
            if let Some(identity) = identity {
                let identity = rows::identity_key(&identity);
                if matches!(self.ops.get(&identity), Some(Op::Identity(named)) if *named == number.0) {
                    self.ops.remove(&identity);
                }
            }
        }
        Ok(())
    }

    /// Writes a payload once more, under the epoch that we hold; [`Transaction::move_chunk`] makes it the chunk's.
    pub(crate) async fn copy_record(&mut self, number: u64, payload: &[u8]) -> Result<Vec<Pointer>> {
        self.hold_epoch().await?;
        // Copied: it is a slice of a block that nothing else may hold on to.
        self.append(number, &Bytes::copy_from_slice(payload)).await
    }

    /// Gives a chunk another place, unless it has left `from` by then.
    pub(crate) fn move_chunk(&mut self, number: u64, from: Vec<Pointer>, to: Vec<Pointer>) {
        self.ops.insert(rows::chunk_key(number), Op::Move { from, to });
    }

    /// Gives a chunk that is noted as damaged its content at another place, and takes the note away; a conflict where the chunk
    /// is gone by then. Nothing changes where it was healed, wherever it is now.
    pub(crate) fn give_content(&mut self, number: u64, to: Vec<Pointer>) {
        self.ops.insert(rows::chunk_key(number), Op::Heal { to, references: 0 });
    }

    /// Notes that a chunk cannot be read, which is at `place`: elsewhere it is a conflict.
    pub(crate) fn note_damaged(&mut self, number: u64, place: Place) {
        self.ops.insert(rows::damaged_key(number), Op::Note(place));
    }

    /// The chunk's row at this state, not counted as read.
    pub(crate) async fn chunk_row(&self, number: u64) -> Result<Option<ChunkRow>> {
        match self.shared.get_at(&self.root, &rows::chunk_key(number)).await? {
            Some(row) => ChunkRow::decode(&row)
                .map(Some)
                .map_err(|error| Error::damaged("chunk", None, format!("chunk {number:#x}: {error}"))),
            None => Ok(None),
        }
    }

    /// Frees a chunk that no snapshot needs any more, with its parked row.
    pub(crate) fn free_parked_chunk(&mut self, death: u64, number: u64) {
        self.ops.insert(rows::chunk_key(number), Op::Free { death });
        self.ops.insert(rows::parked_chunk_key(death, number), Op::Delete);
    }
}
