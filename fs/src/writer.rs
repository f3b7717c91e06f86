//! The way in: bytes are cut into chunks where they arrive, hashed, looked up, compressed where they are new ([`crate::prepare`]),
//! and stored in order.
//!
//! Memory is bounded by [`crate::Tuning::in_flight_bytes`] and a window, whatever the length of the file. What the
//! transaction holds of it is one row a chunk.

use std::collections::{BTreeSet, VecDeque};
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use strongroom_core::engine::{ChunkNumber, Transaction};

use crate::chunker::Chunker;
use crate::codec;
use crate::error::{Error, Result};
use crate::extents;
use crate::format::{Extent, FILE_BYTES_MAX};
use crate::prepare::{Batch, Chunks, Found, HANDED_OVER_BYTES_MIN, Identity};
use crate::shared::Shared;

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
    /// Batches that were looked up, and bytes that were not.
    looked_up: usize,
    unknown_bytes: usize,
    /// Those that were looked up, are new, and not stored.
    unstored: BTreeSet<Identity>,
    /// New chunks since the last that was stored already.
    since_duplicate: Option<u32>,
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
            looked_up: 0,
            unknown_bytes: 0,
            unstored: BTreeSet::new(),
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
        self.settle(transaction).await
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
        self.settle(transaction).await?;
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
        self.unknown_bytes += length;
        self.cut += length as u64;
        if self.waiting.bytes >= BATCH_BYTES {
            self.hand_over();
        }
        // In large steps: so the one who writes wakes now and then, and not for every batch. What is left in each keeps the
        // workers busy meanwhile.
        let bound = self.shared.tuning.in_flight_bytes;
        if self.unknown_bytes > bound / 2 {
            self.look_up(transaction, bound / 4).await?;
        }
        if self.queue_bytes > bound { self.store_all(transaction, bound / 2).await } else { Ok(()) }
    }

    /// Has the chunks that wait prepared.
    fn hand_over(&mut self) {
        let chunks = std::mem::take(&mut self.waiting);
        if !chunks.plain.is_empty() {
            self.queue.push_back(Batch::begin(&self.shared, chunks));
        }
    }

    /// Stores everything that is cut.
    async fn settle(&mut self, transaction: &mut Transaction) -> Result<()> {
        self.look_up(transaction, 0).await?;
        self.store_all(transaction, 0).await
    }

    /// Looks up the oldest chunks, until of at most `bytes` it is unknown whether they are there.
    async fn look_up(&mut self, transaction: &mut Transaction, bytes: usize) -> Result<()> {
        if self.waiting.bytes > bytes {
            self.hand_over();
        }
        // The last one first: by then the others are ready, most likely, and this task was woken once.
        if let Some(last) = due(self.queue.iter_mut().skip(self.looked_up), self.unknown_bytes, bytes) {
            last.hashed().await?;
        }
        while self.unknown_bytes > bytes
            && let Some(batch) = self.queue.get_mut(self.looked_up)
        {
            batch.look_up(&self.shared, transaction, &mut self.unstored).await?;
            self.unknown_bytes -= batch.chunks.bytes;
            self.looked_up += 1;
        }
        Ok(())
    }

    /// Stores the oldest of the chunks that were looked up, until at most `bytes` are in flight.
    async fn store_all(&mut self, transaction: &mut Transaction, bytes: usize) -> Result<()> {
        if let Some(last) = due(self.queue.iter_mut().take(self.looked_up), self.queue_bytes, bytes) {
            last.ready().await?;
        }
        while self.queue_bytes > bytes
            && self.looked_up > 0
            && let Some(mut batch) = self.queue.pop_front()
        {
            self.looked_up -= 1;
            self.queue_bytes -= batch.chunks.bytes;
            let mut offset = batch.chunks.offset;
            let found = std::mem::take(batch.ready().await?);
            for (plain, found) in batch.chunks.plain.into_iter().zip(found) {
                let chunk = self.store(transaction, &plain, found).await?;
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

    async fn store(&mut self, transaction: &mut Transaction, plain: &Bytes, found: Found) -> Result<ChunkNumber> {
        let (identity, mut payload) = match found {
            Found::There(chunk) => {
                self.since_duplicate = Some(0);
                return Ok(chunk);
            }
            Found::Repeated(identity) => {
                if let Some(chunk) = transaction.find_chunk(&identity).await? {
                    self.since_duplicate = Some(0);
                    return Ok(chunk);
                }
                (Some(identity), codec::encode(plain, self.shared.options.compression))
            }
            Found::New(mut new) => (new.identity, new.payload(&self.shared, plain)),
        };
        if let Some(identity) = &identity {
            self.unstored.remove(identity);
            self.since_duplicate = self.since_duplicate.map(|chunks| chunks.saturating_add(1));
        }
        let is_alone = self.since_duplicate.is_some_and(|chunks| chunks <= COPIED_AFTER_DUPLICATE);
        if self.chunker.is_long() && (payload.len() < HANDED_OVER_BYTES_MIN || is_alone) {
            // The engine may keep a short one in a row, and holds a long one until its block is sealed: neither must hold on
            // to a window for little.
            payload = Bytes::copy_from_slice(&payload);
        }
        Ok(transaction.put_new_chunk(identity, payload).await?)
    }
}

/// The last batch that is due where of so many bytes, the oldest first, `kept` are to stay.
fn due<'b>(batches: impl Iterator<Item = &'b mut Batch>, mut bytes: usize, kept: usize) -> Option<&'b mut Batch> {
    let is_due = |batch: &&mut Batch| {
        let is_due = bytes > kept;
        bytes = bytes.saturating_sub(batch.chunks.bytes);
        is_due
    };
    batches.take_while(is_due).last()
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;
    use strongroom_core::env::Env;

    use super::*;
    use crate::codec::COMPRESSED_BYTES;
    use crate::{Options, bed};

    /// Content that compresses, to about a half, and does not repeat.
    fn text(seed: u64, bytes: usize) -> Vec<u8> {
        let mut random = vec![0; bytes / 2];
        Env::deterministic(seed).fill_random(&mut random).unwrap();
        random.chunks(16).flat_map(|piece| [piece, piece].concat()).collect()
    }

    /// How many bytes LZ4 is given by this.
    async fn compressed(work: impl Future<Output = Result<()>>) -> u64 {
        let before = COMPRESSED_BYTES.get();
        work.await.unwrap();
        COMPRESSED_BYTES.get() - before
    }

    #[test]
    fn what_is_there_already_is_hashed_and_not_compressed_however_small_files_are() {
        const BYTES: usize = 1 << 20;
        block_on(async {
            let fs = bed::create(Options::default()).await;
            let first = compressed(fs.write("first", text(1, BYTES))).await;
            assert!(first >= BYTES as u64, "{first} bytes: the content is not such that it is compressed");
            // After something new one tries samples, until one knows better.
            let second = compressed(fs.write("second", text(1, BYTES))).await;
            assert!(second <= BYTES as u64 / 4, "{second} bytes compressed in vain");
            let third = compressed(fs.write("third", text(1, BYTES))).await;
            assert_eq!(third, 0, "bytes compressed in vain");
            for path in ["first", "second", "third"] {
                assert!(fs.read(path).await.unwrap() == text(1, BYTES));
            }
        });
    }

    #[test]
    fn of_a_file_that_is_there_in_part_only_the_rest_is_compressed() {
        const BYTES: usize = 8 << 20;
        block_on(async {
            let fs = bed::create(Options::default()).await;
            fs.write("first", text(1, BYTES)).await.unwrap();
            fs.write("again", text(1, BYTES)).await.unwrap();
            let mut content = text(1, BYTES);
            content[BYTES / 2..BYTES / 2 + 100_000].copy_from_slice(&text(2, 100_000));
            let changed = compressed(fs.write("changed", &content)).await;
            assert!((100_000..400_000).contains(&changed), "{changed} bytes");
            assert!(fs.read("changed").await.unwrap() == content);
        });
    }

    #[test]
    fn what_repeats_within_a_file_is_stored_and_compressed_once() {
        block_on(async {
            let fs = bed::create(Options::default()).await;
            // All of it is on its way at once.
            let content = vec![b'a'; 1 << 20];
            let compressed = compressed(fs.write("f", &content)).await;
            assert!(compressed <= 1 << 19, "{compressed} bytes");
            assert!(fs.engine().info().await.unwrap().chunks <= 3);
            assert!(fs.read("f").await.unwrap() == content);
        });
    }

    #[test]
    fn where_equal_content_is_not_looked_for_it_is_compressed_each_time() {
        const BYTES: usize = 1 << 20;
        block_on(async {
            let fs = bed::create(Options { dedup: false, ..Options::default() }).await;
            for path in ["first", "second"] {
                assert!(compressed(fs.write(path, text(1, BYTES))).await >= BYTES as u64);
                assert!(fs.read(path).await.unwrap() == text(1, BYTES));
            }
        });
    }
}
