//! The way in: bytes are cut into chunks where they arrive, hashed and compressed on the workers, and stored in order.
//!
//! Memory is bounded by [`crate::Tuning::in_flight_bytes`] and a window, whatever the length of the file. What the
//! transaction holds of it is one row a chunk.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use strongroom_core::engine::{ChunkNumber, Transaction};
use strongroom_core::env::TaskHandle;

use crate::chunker::Chunker;
use crate::codec;
use crate::error::{Error, Result};
use crate::extents;
use crate::format::{Extent, FILE_BYTES_MAX};
use crate::shared::Shared;

/// Handing fewer bytes to a worker costs more than the work.
const HANDED_OVER_BYTES_MIN: usize = 16 << 10;
/// Chunks are handed over in batches of about so many bytes: to wake a worker, and be woken, for each costs too much.
const BATCH_BYTES: usize = 256 << 10;
/// After a chunk that was there already, so many are copied out of the window that they were cut from: a window that is
/// held for what is new in it may hold little of that.
const COPIED_AFTER_DUPLICATE: u32 = 16;

/// Writes a stretch of one file, from a given offset on, where no extents are.
pub(crate) struct Ingest {
    shared: Arc<Shared>,
    inode: u64,
    start: u64,
    chunker: Chunker,
    /// The file's offset of the first byte that is not cut.
    cut: u64,
    /// Chunks that were handed over, oldest first, and those that wait for more to be handed over with them.
    queue: VecDeque<Batch>,
    waiting: Chunks,
    /// Bytes in both.
    queue_bytes: usize,
    /// New chunks since the last that was stored already; the next one probably is where that was the last, and
    /// compressing it would be in vain.
    since_duplicate: Option<u32>,
}

/// Chunks that follow each other.
#[derive(Default)]
struct Chunks {
    offset: u64,
    plain: Vec<Bytes>,
    bytes: usize,
}

impl Chunks {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes as u64)
    }
}

struct Batch {
    chunks: Chunks,
    prepared: Work,
}

enum Work {
    Here(Vec<Prepared>),
    There(TaskHandle<Vec<Prepared>>),
}

struct Prepared {
    identity: Option<[u8; 32]>,
    payload: Option<Bytes>,
}

fn prepare(shared: &Shared, plain: &[Bytes], compress: bool) -> Vec<Prepared> {
    let prepare = |plain: &Bytes| Prepared {
        identity: shared.options.dedup.then(|| shared.engine.identity(plain)),
        payload: compress.then(|| codec::encode(plain, shared.options.compression)),
    };
    plain.iter().map(prepare).collect()
}

impl Ingest {
    pub(crate) fn new(shared: Arc<Shared>, inode: u64, offset: u64) -> Self {
        Self {
            shared,
            inode,
            start: offset,
            chunker: Chunker::default(),
            cut: offset,
            queue: VecDeque::new(),
            waiting: Chunks::default(),
            queue_bytes: 0,
            since_duplicate: None,
        }
    }

    /// The file's offset of the first byte written here.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The file's offset after everything that was written.
    pub(crate) fn end(&self) -> u64 {
        self.cut.saturating_add(self.chunker.uncut().len() as u64)
    }

    /// The file's offset of the first byte that is in no row yet.
    pub(crate) fn stored_end(&self) -> u64 {
        let waiting = if self.waiting.plain.is_empty() { self.cut } else { self.waiting.offset };
        self.queue.front().map_or(waiting, |batch| batch.chunks.offset)
    }

    /// Bytes of chunks that are cut and not stored.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// The last bytes written, not yet cut into a chunk.
    pub(crate) fn uncut(&self) -> &[u8] {
        self.chunker.uncut()
    }

    fn check_length(&self, more: u64) -> Result<()> {
        match self.end().checked_add(more) {
            Some(bytes) if bytes <= FILE_BYTES_MAX => Ok(()),
            other => Err(Error::FileTooLarge { bytes: other.unwrap_or(u64::MAX), bytes_max: FILE_BYTES_MAX }),
        }
    }

    pub(crate) async fn write(&mut self, transaction: &mut Transaction, bytes: &[u8]) -> Result<()> {
        self.check_length(bytes.len() as u64)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.chunker.feed(self.shared.boundaries(), rest);
            rest = rest.get(taken..).unwrap_or_default();
            self.cut_ready(transaction).await?;
        }
        Ok(())
    }

    /// Writes all that a reader gives; answers how much that was.
    pub(crate) async fn write_from(&mut self, transaction: &mut Transaction, reader: &mut impl Read) -> Result<u64> {
        let start = self.end();
        loop {
            let read = self.chunker.feed_from(self.shared.boundaries(), reader);
            if read.map_err(|error| Error::Source(Arc::new(error)))? == 0 {
                return Ok(self.end() - start);
            }
            self.check_length(0)?;
            self.cut_ready(transaction).await?;
        }
    }

    /// Writes zeros that take no space.
    pub(crate) async fn hole(&mut self, transaction: &mut Transaction, length: u64) -> Result<()> {
        if length == 0 {
            return Ok(());
        }
        self.check_length(length)?;
        self.finish(transaction).await?;
        extents::extend(transaction, self.inode, self.cut, self.cut + length).await?;
        self.cut += length;
        Ok(())
    }

    /// Everything written is in rows after this; more may be written then.
    pub(crate) async fn finish(&mut self, transaction: &mut Transaction) -> Result<()> {
        while let Some(chunk) = self.chunker.rest(self.shared.boundaries()) {
            self.begin(transaction, chunk).await?;
        }
        self.settle(transaction, 0).await
    }

    /// Puts what is written and in no row yet over what `out` holds of the file from `offset` on.
    pub(crate) fn lay_over(&self, out: &mut [u8], offset: u64) {
        let end = offset.saturating_add(out.len() as u64);
        let cut = self.queue.iter().map(|batch| &batch.chunks).chain([&self.waiting]);
        for chunks in cut.filter(|chunks| chunks.offset < end && offset < chunks.end()) {
            let mut start = chunks.offset;
            for plain in &chunks.plain {
                extents::lay_over(out, offset, plain, start);
                start = start.saturating_add(plain.len() as u64);
            }
        }
        extents::lay_over(out, offset, self.chunker.uncut(), self.cut);
    }

    /// Everything that is cut is in rows after this, and no more memory is held than for what is not.
    pub(crate) async fn let_go(&mut self, transaction: &mut Transaction) -> Result<()> {
        self.settle(transaction, 0).await?;
        self.chunker.let_go();
        Ok(())
    }

    async fn cut_ready(&mut self, transaction: &mut Transaction) -> Result<()> {
        while let Some(chunk) = self.chunker.ready(self.shared.boundaries()) {
            self.begin(transaction, chunk).await?;
        }
        Ok(())
    }

    async fn begin(&mut self, transaction: &mut Transaction, plain: Bytes) -> Result<()> {
        if self.waiting.plain.is_empty() {
            self.waiting.offset = self.cut;
        }
        let length = plain.len();
        self.waiting.plain.push(plain);
        self.waiting.bytes += length;
        self.queue_bytes += length;
        self.cut += length as u64;
        if self.waiting.bytes >= BATCH_BYTES {
            self.hand_over();
        }
        let bound = self.shared.tuning.in_flight_bytes;
        // Down to half of the bound: so the one who writes wakes now and then, and not for every batch.
        if self.queue_bytes > bound { self.settle(transaction, bound / 2).await } else { Ok(()) }
    }

    /// Has the chunks that wait prepared.
    fn hand_over(&mut self) {
        let chunks = std::mem::take(&mut self.waiting);
        if chunks.plain.is_empty() {
            return;
        }
        let compress = !(self.shared.options.dedup && self.since_duplicate == Some(0));
        let prepared = if chunks.bytes < HANDED_OVER_BYTES_MIN {
            Work::Here(prepare(&self.shared, &chunks.plain, compress))
        } else {
            let (shared, plain) = (self.shared.clone(), chunks.plain.clone());
            let env = self.shared.engine.env();
            Work::There(env.spawn(async move { prepare(&shared, &plain, compress) }))
        };
        self.queue.push_back(Batch { chunks, prepared });
    }

    /// Stores the oldest chunks until at most `bytes` are in flight.
    async fn settle(&mut self, transaction: &mut Transaction, bytes: usize) -> Result<()> {
        if self.waiting.bytes > bytes {
            self.hand_over();
        }
        // The last one first: by then the others are ready, most likely, and this task was woken once.
        let mut left = self.queue_bytes;
        let due = self.queue.iter_mut().take_while(|batch| {
            let is_due = left > bytes;
            left = left.saturating_sub(batch.chunks.bytes);
            is_due
        });
        if let Some(last) = due.last() {
            last.ready().await?;
        }
        while self.queue_bytes > bytes
            && let Some(mut batch) = self.queue.pop_front()
        {
            self.queue_bytes -= batch.chunks.bytes;
            let mut offset = batch.chunks.offset;
            let prepared = std::mem::take(batch.ready().await?);
            for (plain, prepared) in batch.chunks.plain.into_iter().zip(prepared) {
                let chunk = self.store(transaction, &plain, prepared).await?;
                // A short chunk at the end of a file is what the next append starts from.
                if plain.len() < self.shared.boundaries().short_bytes() {
                    // Copied, so that it does not hold on to the window it was cut from.
                    self.shared.keep(chunk, &Bytes::copy_from_slice(&plain));
                }
                let length = u32::try_from(plain.len()).unwrap_or(u32::MAX);
                extents::put(transaction, self.inode, offset, &Extent::Data { chunk, length, skip: 0 })?;
                offset += u64::from(length);
            }
        }
        Ok(())
    }

    async fn store(&mut self, transaction: &mut Transaction, plain: &Bytes, prepared: Prepared) -> Result<ChunkNumber> {
        if let Some(identity) = &prepared.identity {
            if let Some(chunk) = transaction.find_chunk(identity).await? {
                self.since_duplicate = Some(0);
                return Ok(chunk);
            }
            self.since_duplicate = self.since_duplicate.map(|chunks| chunks.saturating_add(1));
        }
        let mut payload = prepared.payload.unwrap_or_else(|| codec::encode(plain, self.shared.options.compression));
        let is_alone = self.since_duplicate.is_some_and(|chunks| chunks <= COPIED_AFTER_DUPLICATE);
        if self.chunker.is_long() && (payload.len() < HANDED_OVER_BYTES_MIN || is_alone) {
            // The engine may keep a short one in a row, and holds a long one until its block is sealed: neither must hold on
            // to a window for little.
            payload = Bytes::copy_from_slice(&payload);
        }
        Ok(transaction.put_new_chunk(prepared.identity, payload).await?)
    }
}

impl Batch {
    /// What was prepared, when it is.
    async fn ready(&mut self) -> Result<&mut Vec<Prepared>> {
        if let Work::There(task) = &mut self.prepared {
            let prepared = task.await.ok_or(strongroom_core::Error::WorkerLost)?;
            self.prepared = Work::Here(prepared);
        }
        match &mut self.prepared {
            Work::Here(prepared) => Ok(prepared),
            Work::There(_) => Err(strongroom_core::Error::WorkerLost.into()),
        }
    }
}
