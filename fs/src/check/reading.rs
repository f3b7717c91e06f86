//! The chunks of a file, read to see whether they can be: by the workers, several at once.

use std::collections::VecDeque;

use strongroom_core::engine::{BATCH_REMOTE_BYTES, ChunkNumber};
use strongroom_core::env::TaskHandle;

use super::{Check, Finding};
use crate::error::Result;
use crate::extents;

/// So many chunks of a batch at most, of which an extent may name a byte each.
const BATCH_CHUNKS_MAX: usize = 16;
/// Tasks on their way, for each that runs at once.
const DEPTH: usize = 4;
/// Over a network, where more would only wait for each other.
const DEPTH_REMOTE: usize = 8;

/// Chunks that are to be read, and that are being read.
#[derive(Default)]
pub(super) struct ChunkReads {
    gathered: Vec<Wanted>,
    gathered_bytes: u64,
    under_way: VecDeque<TaskHandle<Looked>>,
}

/// What became of each chunk of a batch.
type Looked = Vec<(ChunkNumber, Result<()>)>;

/// A chunk, and how much of it an extent names.
struct Wanted {
    chunk: ChunkNumber,
    length: u32,
    skip: u32,
}

impl ChunkReads {
    /// A chunk is to be read.
    pub(super) fn gather(&mut self, chunk: ChunkNumber, length: u32, skip: u32) {
        self.gathered_bytes = self.gathered_bytes.saturating_add(skip.saturating_add(length).into());
        self.gathered.push(Wanted { chunk, length, skip });
    }
}

impl<R: FnMut(Finding) + Send> Check<'_, R> {
    /// Begins to read what was gathered, where that is enough, and waits while too much is on its way.
    pub(super) async fn begin_reading(&mut self, path: Option<&[u8]>, inode: u64) -> Result<()> {
        let is_remote = self.on.snapshot.is_remote();
        let reading = &self.reading;
        if is_remote && reading.gathered_bytes < BATCH_REMOTE_BYTES && reading.gathered.len() < BATCH_CHUNKS_MAX {
            return Ok(());
        }
        self.start_reading();
        let depth = match is_remote {
            true => DEPTH_REMOTE,
            false => self.on.shared.engine.env().parallelism().saturating_mul(DEPTH),
        };
        while self.reading.under_way.len() > depth {
            self.await_one(path, inode).await?;
        }
        Ok(())
    }

    /// Reads all that was gathered, and waits for it.
    pub(super) async fn end_reading(&mut self, path: Option<&[u8]>, inode: u64) -> Result<()> {
        self.start_reading();
        while !self.reading.under_way.is_empty() {
            self.await_one(path, inode).await?;
        }
        Ok(())
    }

    fn start_reading(&mut self) {
        let wanted = std::mem::take(&mut self.reading.gathered);
        self.reading.gathered_bytes = 0;
        if wanted.is_empty() {
            return;
        }
        let (shared, snapshot) = (self.on.shared.clone(), self.on.snapshot.clone());
        let task = self.on.shared.engine.env().spawn_wanted(async move {
            let chunks: Vec<ChunkNumber> = wanted.iter().map(|wanted| wanted.chunk).collect();
            let plain = shared.chunks(&snapshot, &chunks).await;
            let looked_at = wanted.iter().zip(plain).map(|(wanted, plain)| {
                let whole = plain.and_then(|plain| extents::slice(&plain, wanted.length, wanted.skip).map(|_| ()));
                (wanted.chunk, whole)
            });
            looked_at.collect()
        });
        self.reading.under_way.push_back(task);
    }

    async fn await_one(&mut self, path: Option<&[u8]>, inode: u64) -> Result<()> {
        let Some(task) = self.reading.under_way.pop_front() else { return Ok(()) };
        for (chunk, read) in task.await.ok_or(strongroom_core::Error::WorkerLost)? {
            if let Err(error) = read {
                self.broken.insert(chunk);
                if error.is_conflict() {
                    return Err(error);
                }
                self.found(path, inode, format!("chunk {:#x}: {error}", chunk.0));
            }
        }
        Ok(())
    }
}
