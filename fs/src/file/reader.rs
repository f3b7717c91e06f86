use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use strongroom_core as core;
use strongroom_core::engine::{ChunkNumber, Snapshot};
use strongroom_core::env::TaskHandle;

use crate::error::{Result, damaged};
use crate::extents::{self, Placed};
use crate::format::{ContentRow, Extent};
use crate::shared::Shared;
use crate::versions;

/// Extents remembered per handle; beyond, they are forgotten and looked up again.
const EXTENTS_MAX: usize = 4096;
/// Extents looked up at once by a sequential reader, and by one that jumps.
const PAGE_SEQUENTIAL: usize = 128;
const PAGE_RANDOM: usize = 4;
/// Reads in sequence before chunks are fetched ahead.
const STREAK_MIN: u32 = 2;

/// Chunks are fetched ahead in batches of about so many bytes: to wake a worker, and be woken, for each costs too much.
const BATCH_BYTES: u64 = 256 << 10;

/// A single read of more than this is worth fetching ahead within; over a network, of more than a short chunk.
const LONG_BYTES_MIN: u64 = 128 << 10;
const LONG_REMOTE_BYTES_MIN: u64 = 32 << 10;

/// As many times as far is fetched ahead over a network: 16 MiB by default. While an answer is on its way, 3 MB pass a line of
/// 100 MB/s that takes 30 ms. But batches share the line and are read in order, so that they tend to come all at once, and the next
/// ones are asked for all at once: then the line is idle for a round trip in each window, which is to be five times as long.
const REMOTE_WINDOWS: u64 = 8;
/// In so many batches. More would cut more blocks in two, and so take more requests.
const REMOTE_BATCHES: u64 = 8;
const BATCH_REMOTE_BYTES_MIN: u64 = 512 << 10;
/// But for each byte that was read in order no more than so many: who reads the beginning of a file and no more pays for that.
const AHEAD_PER_BYTE: u64 = 4;
/// And so much at least.
const AHEAD_REMOTE_BYTES_MIN: u64 = 1 << 20;

/// Reads committed content: remembers where things are as long as the content row stays the same, and fetches ahead of a
/// sequential reader on the workers.
#[derive(Default)]
pub(super) struct Reader {
    state: Mutex<State>,
}

/// What is read: a file's content, or an older version of it, as a state shows it.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) inode: u64,
    pub(super) version: Option<u64>,
    /// The length, and what says whether it is still the same.
    pub(super) content: ContentRow,
}

#[derive(Default)]
struct State {
    /// The content that the rest is about.
    content: ContentRow,
    extents: BTreeMap<u64, Extent>,
    next: u64,
    streak: u32,
    /// How much was read in order.
    in_order: u64,
    ahead: VecDeque<Ahead>,
    ahead_bytes: u64,
    /// The rest of the batch that was read from last, and what all of it took.
    ready: VecDeque<(ChunkNumber, Result<Bytes>)>,
    ready_bytes: u64,
    /// Everything before this offset has been fetched, or passed by.
    ahead_end: u64,
    /// The chunk that the last read ended in: the next wants the rest of it, and the cache may be off or full.
    held: Option<(ChunkNumber, Bytes)>,
}

enum Fetched {
    Held(Bytes),
    Ready(Result<Bytes>),
    Coming(Ahead),
    Not,
}

/// How far is fetched ahead, and in batches of which size.
#[derive(Clone, Copy)]
struct Reach {
    bytes: u64,
    batch_bytes: u64,
    /// With so much at hand nothing more is begun.
    enough_bytes: u64,
}

/// Chunks to be fetched together.
#[derive(Default)]
struct Gathered {
    chunks: Vec<ChunkNumber>,
    bytes: u64,
}

/// A batch on its way.
struct Ahead {
    gathered: Gathered,
    task: TaskHandle<Vec<Result<Bytes>>>,
}

impl Reader {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `out` with bytes from `offset` on, all of them before the end that `content` states.
    pub(super) async fn read(&self, reading: Reading<'_>, offset: u64, out: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(out.len() as u64);
        let long_min = if reading.snapshot.is_remote() { LONG_REMOTE_BYTES_MIN } else { LONG_BYTES_MIN };
        let until = self.lock().begin(reading.content, offset, end, long_min);
        let mut begun = Begun { reader: self, offset, end, has_ended: false };
        let filled = self.fill(reading, offset, out, until).await;
        // One that failed has ended as well: tried again it goes on nowhere, and what failed with it is fetched anew.
        begun.has_ended = true;
        filled
    }

    /// As [`Reader::read`], where what lies up to `until` is fetched ahead.
    async fn fill(&self, reading: Reading<'_>, offset: u64, out: &mut [u8], until: Option<u64>) -> Result<()> {
        let Reading { shared, snapshot, content, .. } = reading;
        let (is_remote, sequential) = (snapshot.is_remote(), until.is_some());
        let (mut at, mut out) = (offset, out);
        while !out.is_empty() {
            let placed = self.find(reading, at, sequential).await?;
            if let Some(until) = until {
                let is_at_hand = self.lock().has(&placed.extent);
                // Over a network what is wanted now comes with what follows: one request less.
                let from = if is_remote && !is_at_hand { placed.start } else { placed.end() };
                // Before anything is taken: a read that is dropped meanwhile leaves all that came where it is.
                self.fetch_ahead(reading, from..until).await;
            }
            let within = usize::try_from(at - placed.start).unwrap_or(usize::MAX);
            let here = usize::try_from(placed.end() - at).unwrap_or(usize::MAX).min(out.len());
            let (head, rest) = out.split_at_mut(here);
            match placed.extent {
                Extent::Hole { .. } => head.fill(0),
                Extent::Data { chunk, length, skip } => {
                    let fetched = self.lock().take(chunk);
                    let ahead = match fetched {
                        Fetched::Held(plain) => Some(plain),
                        Fetched::Ready(plain) => plain.ok(),
                        Fetched::Coming(ahead) => self.receive(content, ahead, chunk).await.ok(),
                        Fetched::Not => None,
                    };
                    // What failed ahead may have done so long ago.
                    let plain = match ahead {
                        Some(plain) => plain,
                        None => shared.chunk(snapshot, chunk).await?,
                    };
                    if sequential && (here as u64).saturating_add(within as u64) < u64::from(length) {
                        self.lock().held = Some((chunk, plain.clone()));
                    }
                    let bytes = extents::slice(&plain, length, skip)?;
                    extents::copy(head, bytes.get(within..).unwrap_or_default())?;
                }
            }
            out = rest;
            at += here as u64;
        }
        Ok(())
    }

    /// The extent at an offset, remembered or looked up with those that follow.
    async fn find(&self, reading: Reading<'_>, offset: u64, sequential: bool) -> Result<Placed> {
        let Reading { shared, snapshot, inode, version, content } = reading;
        if let Some(placed) = self.lock().remembered(content, offset) {
            return Ok(placed);
        }
        let page = if sequential { PAGE_SEQUENTIAL } else { PAGE_RANDOM };
        let found = match version {
            None => current(snapshot, inode, offset, page).await?,
            Some(number) => {
                let length = (shared.boundaries().average_bytes() as u64).saturating_mul(page as u64);
                let range = offset..offset.saturating_add(length).min(content.size);
                let mut found =
                    versions::pieces(snapshot, inode, number, content.versions.current, range.clone()).await?;
                // It may be cut off where the range ends, and a chunk is best looked up once.
                if found.len() > 1 && range.end < content.size {
                    found.pop();
                }
                found
            }
        };
        self.lock().remember(content, &found);
        let first = found.first().copied().filter(|placed| (placed.start..placed.end()).contains(&offset));
        first.ok_or_else(|| damaged("extent", format!("inode {inode:#x} has none at offset {offset}")))
    }

    /// Starts fetching what follows, as far as the bound allows. Where it is dropped, what it had gathered is gathered again. What
    /// cannot be found is told of to who reads there.
    async fn fetch_ahead(&self, reading: Reading<'_>, range: Range<u64>) {
        let Reading { shared, snapshot, content, .. } = reading;
        if shared.engine.env().parallelism() < 2 {
            return;
        }
        let reach = self.lock().reach(shared.tuning.read_ahead_bytes, snapshot.is_remote());
        if self.lock().held_bytes() > reach.enough_bytes {
            return;
        }
        let mut gathered = Gathered::default();
        // All before this is on its way, and all before that is gathered.
        let mut begun = self.lock().pass_by(range.start);
        let mut at = begun;
        loop {
            {
                let mut state = self.lock();
                if state.content != content || state.ahead_end != begun {
                    return;
                }
                let is_enough = state.held_bytes() + gathered.bytes >= reach.bytes || at >= range.end;
                // Of what is cached, and of holes, nothing is gathered.
                if is_enough || gathered.bytes >= reach.batch_bytes || gathered.chunks.is_empty() {
                    state.fetch(shared, snapshot, std::mem::take(&mut gathered));
                    (state.ahead_end, begun) = (at, at);
                }
                if is_enough {
                    return;
                }
            }
            let Ok(placed) = self.find(reading, at, true).await else {
                let mut state = self.lock();
                if state.content == content && state.ahead_end == begun {
                    state.fetch(shared, snapshot, gathered);
                    state.ahead_end = at;
                }
                return;
            };
            at = placed.end();
            if let Extent::Data { chunk, length, skip } = placed.extent
                && shared.cached(chunk).is_none()
            {
                gathered.chunks.push(chunk);
                // It comes whole, however little of it the file has left; how long it is shows when it is there.
                let up_to = u64::from(skip.saturating_add(length));
                gathered.bytes += up_to.max(shared.boundaries().average_bytes() as u64);
            }
        }
    }

    /// Waits for a batch, gives one of its chunks, and keeps those after it for the next reads.
    async fn receive(&self, content: ContentRow, ahead: Ahead, chunk: ChunkNumber) -> Result<Bytes> {
        let mut awaited = Awaited { reader: self, content, ahead: Some(ahead) };
        let Some(ahead) = &mut awaited.ahead else { return Err(core::Error::WorkerLost.into()) };
        let plain = (&mut ahead.task).await;
        let Some(ahead) = awaited.ahead.take() else { return Err(core::Error::WorkerLost.into()) };
        let plain = plain.ok_or(core::Error::WorkerLost)?;
        let mut fetched = ahead.gathered.chunks.into_iter().zip(plain).skip_while(|(number, _)| *number != chunk);
        let (_, plain) = fetched.next().ok_or(core::Error::WorkerLost)?;
        let mut state = self.lock();
        if state.content == content {
            state.ready = fetched.collect();
            state.settle();
        }
        plain
    }
}

/// A read that is under way: one that does not come to its end, as where its caller waits no longer, is taken for none, so that the
/// same one goes on in order when it is tried again.
struct Begun<'a> {
    reader: &'a Reader,
    offset: u64,
    end: u64,
    has_ended: bool,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut state = self.reader.lock();
        if !self.has_ended && state.next == self.end {
            state.next = self.offset;
            state.in_order = state.in_order.saturating_sub(self.end - self.offset);
        }
    }
}

/// A batch that somebody waits for: who waits no longer gives it back. Else whoever is less patient than the line is slow would have it
/// fetched anew each time, and never get it.
struct Awaited<'a> {
    reader: &'a Reader,
    content: ContentRow,
    ahead: Option<Ahead>,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let Some(ahead) = self.ahead.take() else { return };
        let mut state = self.reader.lock();
        if state.content == self.content {
            state.give_back(ahead);
        }
    }
}

/// Extents of the current content, from an offset on.
async fn current(snapshot: &Snapshot, inode: u64, offset: u64, page: usize) -> Result<Vec<Placed>> {
    let first = extents::find(snapshot, inode, offset).await?;
    let mut found = vec![first];
    let mut walk = extents::walk(snapshot, inode, first.end());
    // What cannot be read of those that follow is told of where it is wanted.
    while found.len() < page
        && let Ok(Some(placed)) = walk.next().await
    {
        found.push(placed);
    }
    Ok(found)
}

impl State {
    /// Notes a read; answers up to where fetching ahead makes sense: anywhere for a reader in sequence, to the end of this
    /// read where it is a long one.
    fn begin(&mut self, content: ContentRow, offset: u64, end: u64, long_bytes_min: u64) -> Option<u64> {
        if self.content != content {
            let Self { next, streak, in_order, .. } = *self;
            *self = Self { content, next, streak, in_order, ..Self::default() };
        }
        if offset == self.next {
            self.streak = self.streak.saturating_add(1);
        } else {
            self.streak = u32::from(offset == 0);
            self.in_order = 0;
            self.ahead.clear();
            self.ready.clear();
            self.ahead_bytes = 0;
            self.ready_bytes = 0;
            self.ahead_end = offset;
        }
        self.next = end;
        self.in_order = self.in_order.saturating_add(end - offset);
        if self.streak >= STREAK_MIN {
            return Some(content.size);
        }
        (end - offset > long_bytes_min).then_some(end)
    }

    /// How far to fetch ahead, where `window` is how far that goes in a storage that is near.
    fn reach(&self, window: u64, is_remote: bool) -> Reach {
        if !is_remote {
            return Reach { bytes: window, batch_bytes: BATCH_BYTES, enough_bytes: window / 2 };
        }
        let earned = self.in_order.saturating_mul(AHEAD_PER_BYTE).max(AHEAD_REMOTE_BYTES_MIN);
        let bytes = window.saturating_mul(REMOTE_WINDOWS).min(earned);
        let batch_bytes = (bytes / REMOTE_BATCHES).max(BATCH_REMOTE_BYTES_MIN);
        // Once there is room for a batch: they are about as long as that.
        Reach { bytes, batch_bytes, enough_bytes: bytes.saturating_sub(batch_bytes / 2) }
    }

    /// What is on its way or there, and not all read.
    fn held_bytes(&self) -> u64 {
        self.ahead_bytes.saturating_add(self.ready_bytes)
    }

    /// Of a batch that was read to its end nothing is held.
    fn settle(&mut self) {
        if self.ready.is_empty() {
            self.ready_bytes = 0;
        }
    }

    fn remembered(&self, content: ContentRow, offset: u64) -> Option<Placed> {
        let (&start, &extent) = self.extents.range(..=offset).next_back()?;
        let placed = Placed { start, extent };
        (self.content == content && offset < placed.end()).then_some(placed)
    }

    fn remember(&mut self, content: ContentRow, found: &[Placed]) {
        if self.content != content {
            return;
        }
        if self.extents.len() + found.len() > EXTENTS_MAX {
            self.extents.clear();
        }
        self.extents.extend(found.iter().map(|placed| (placed.start, placed.extent)));
    }

    /// What is before this offset is not fetched ahead any more; answers up to where it is.
    fn pass_by(&mut self, offset: u64) -> u64 {
        self.ahead_end = self.ahead_end.max(offset);
        self.ahead_end
    }

    /// Whether an extent's chunk is held or on its way; a hole has none.
    fn has(&self, extent: &Extent) -> bool {
        let Extent::Data { chunk, .. } = *extent else { return true };
        self.held.as_ref().is_some_and(|(held, _)| *held == chunk)
            || self.ready.iter().any(|(ready, _)| *ready == chunk)
            || self.ahead.iter().any(|ahead| ahead.gathered.chunks.contains(&chunk))
    }

    /// A chunk, where it is held or on its way; what was fetched before it and not read is forgotten.
    fn take(&mut self, chunk: ChunkNumber) -> Fetched {
        if let Some((held, plain)) = &self.held
            && *held == chunk
        {
            return Fetched::Held(plain.clone());
        }
        if let Some(position) = self.ready.iter().position(|(ready, _)| *ready == chunk) {
            self.ready.drain(..position);
            if let Some((_, plain)) = self.ready.pop_front() {
                self.settle();
                return Fetched::Ready(plain);
            }
        }
        let Some(position) = self.ahead.iter().position(|ahead| ahead.gathered.chunks.contains(&chunk)) else {
            return Fetched::Not;
        };
        let mut taken = Fetched::Not;
        for ahead in self.ahead.drain(..=position) {
            self.ahead_bytes = self.ahead_bytes.saturating_sub(ahead.gathered.bytes);
            self.ready.clear();
            self.ready_bytes = ahead.gathered.bytes;
            taken = Fetched::Coming(ahead);
        }
        taken
    }

    /// A batch that was taken and not received.
    fn give_back(&mut self, ahead: Ahead) {
        if self.ready.is_empty() {
            self.ready_bytes = 0;
        }
        self.ahead_bytes = self.ahead_bytes.saturating_add(ahead.gathered.bytes);
        self.ahead.push_front(ahead);
    }

    /// Has a batch fetched.
    fn fetch(&mut self, shared: &Arc<Shared>, snapshot: &Snapshot, gathered: Gathered) {
        if gathered.chunks.is_empty() {
            return;
        }
        let (chunks, inner, snapshot) = (gathered.chunks.clone(), shared.clone(), snapshot.clone());
        let task = shared.engine.env().spawn_wanted(async move { inner.chunks(&snapshot, &chunks).await });
        self.ahead_bytes += gathered.bytes;
        self.ahead.push_back(Ahead { gathered, task });
    }
}
