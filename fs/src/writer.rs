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

/// Handing a chunk below this length to a worker costs more than the work.
const HANDED_OVER_BYTES_MIN: usize = 16 << 10;

/// Writes a stretch of one file, from a given offset on, where no extents are.
pub(crate) struct Ingest {
    shared: Arc<Shared>,
    inode: u64,
    start: u64,
    chunker: Chunker,
    /// The file's offset of the first byte that is not cut.
    cut: u64,
    queue: VecDeque<Job>,
    queue_bytes: usize,
    /// The last chunk was stored already: then the next probably is too, and compressing it would be in vain.
    duplicates_expected: bool,
}

struct Job {
    offset: u64,
    plain: Bytes,
    prepared: Work,
}

enum Work {
    Here(Prepared),
    There(TaskHandle<Prepared>),
}

struct Prepared {
    identity: Option<[u8; 32]>,
    payload: Option<Bytes>,
}

fn prepare(shared: &Shared, plain: &Bytes, compress: bool) -> Prepared {
    Prepared {
        identity: shared.options.dedup.then(|| shared.engine.identity(plain)),
        payload: compress.then(|| codec::encode(plain, shared.options.compression)),
    }
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
            queue_bytes: 0,
            duplicates_expected: false,
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
        self.queue.front().map_or(self.cut, |job| job.offset)
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

    /// Everything that is cut is in rows after this.
    pub(crate) async fn settle_cut(&mut self, transaction: &mut Transaction) -> Result<()> {
        self.settle(transaction, 0).await
    }

    async fn cut_ready(&mut self, transaction: &mut Transaction) -> Result<()> {
        while let Some(chunk) = self.chunker.ready(self.shared.boundaries()) {
            self.begin(transaction, chunk).await?;
        }
        Ok(())
    }

    async fn begin(&mut self, transaction: &mut Transaction, plain: Bytes) -> Result<()> {
        let compress = !(self.duplicates_expected && self.shared.options.dedup);
        let length = plain.len();
        let prepared = if length < HANDED_OVER_BYTES_MIN {
            Work::Here(prepare(&self.shared, &plain, compress))
        } else {
            let (shared, plain) = (self.shared.clone(), plain.clone());
            let env = self.shared.engine.env();
            Work::There(env.spawn(async move { prepare(&shared, &plain, compress) }))
        };
        self.queue.push_back(Job { offset: self.cut, plain, prepared });
        self.queue_bytes += length;
        self.cut += length as u64;
        let bound = self.shared.tuning.in_flight_bytes;
        if self.queue_bytes > bound { self.settle(transaction, bound).await } else { Ok(()) }
    }

    /// Stores the oldest chunks until at most `bytes` are in flight.
    async fn settle(&mut self, transaction: &mut Transaction, bytes: usize) -> Result<()> {
        while self.queue_bytes > bytes
            && let Some(job) = self.queue.pop_front()
        {
            self.queue_bytes -= job.plain.len();
            let prepared = match job.prepared {
                Work::Here(prepared) => prepared,
                Work::There(task) => task.await.ok_or(strongroom_core::Error::WorkerLost)?,
            };
            let chunk = self.store(transaction, &job.plain, prepared).await?;
            // A short chunk at the end of a file is what the next append starts from.
            if job.plain.len() < self.shared.boundaries().short_bytes() {
                // Copied, so that it does not hold on to the window it was cut from.
                self.shared.keep(chunk, &Bytes::copy_from_slice(&job.plain));
            }
            let length = u32::try_from(job.plain.len()).unwrap_or(u32::MAX);
            extents::put(transaction, self.inode, job.offset, &Extent::Data { chunk, length, skip: 0 })?;
        }
        Ok(())
    }

    async fn store(&mut self, transaction: &mut Transaction, plain: &Bytes, prepared: Prepared) -> Result<ChunkNumber> {
        if let Some(identity) = &prepared.identity {
            let known = transaction.find_chunk(identity).await?;
            self.duplicates_expected = known.is_some();
            if let Some(chunk) = known {
                return Ok(chunk);
            }
        }
        let mut payload = prepared.payload.unwrap_or_else(|| codec::encode(plain, self.shared.options.compression));
        if payload.len() < HANDED_OVER_BYTES_MIN && self.chunker.is_long() {
            // The engine may keep a short one in a row; it must not hold on to the window it was cut from.
            payload = Bytes::copy_from_slice(&payload);
        }
        Ok(transaction.put_chunk(prepared.identity, payload).await?)
    }
}
