use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use strongroom_core::engine::{ChunkNumber, Engine, View};

use crate::chunker::Boundaries;
use crate::codec;
use crate::error::Result;
use crate::file::Handles;
use crate::format::{ContentRow, INODE_ROW_BYTES, InodeRow, OptionsRow, SYMLINK_BYTES_MAX};
use crate::options::Tuning;

/// What the handles of a file system go by.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    /// The repository's, or with what a file has of its own: see [`Shared::for_file`].
    pub(crate) options: OptionsRow,
    pub(crate) tuning: Tuning,
    pub(crate) common: Arc<Common>,
}

/// What all of them have in common.
pub(crate) struct Common {
    searched: Boundaries,
    unsearched: Boundaries,
    pub(crate) handles: Arc<Handles>,
    /// Decoded chunks by number. Numbers are never used again, so an entry is never out of date.
    chunks: Option<Cache<ChunkNumber, Bytes, ByBytes>>,
    last_moment: AtomicU64,
    /// Whether the chunk that was last looked up was there already: a guess at the next one, of whatever file.
    after_duplicate: AtomicBool,
}

#[derive(Clone)]
struct ByBytes;

/// What a chunk in the cache takes beside its bytes; of very small ones it is most.
const CACHED_CHUNK_BYTES: u64 = 192;

impl Weighter<ChunkNumber, Bytes> for ByBytes {
    fn weight(&self, _: &ChunkNumber, plain: &Bytes) -> u64 {
        plain.len() as u64 + CACHED_CHUNK_BYTES
    }
}

impl Common {
    pub(crate) fn is_after_duplicate(&self) -> bool {
        self.after_duplicate.load(Ordering::Relaxed)
    }

    pub(crate) fn set_after_duplicate(&self, yes: bool) {
        self.after_duplicate.store(yes, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(engine: Engine, options: OptionsRow, tuning: Tuning) -> Self {
        let average = u64::from(options.sizes.average_bytes);
        let items = usize::try_from(tuning.cache_bytes / average).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let chunks = (tuning.cache_bytes > 0).then(|| Cache::with_weighter(items, tuning.cache_bytes, ByBytes));
        let seed = options.seed.unwrap_or_else(|| engine.boundary_seed());
        let common = Common {
            searched: Boundaries::new(seed, options.sizes),
            unsearched: Boundaries::new(seed, options.sizes.fixed()),
            handles: Arc::default(),
            chunks,
            last_moment: AtomicU64::new(0),
            after_duplicate: AtomicBool::new(false),
        };
        Self { engine, options, tuning, common: Arc::new(common) }
    }

    /// What a file goes by that has settings of its own.
    pub(crate) fn for_file(self: &Arc<Self>, row: &InodeRow) -> Arc<Self> {
        let (dedup, compression) = (row.dedup.unwrap_or(self.options.dedup), row.compression);
        let compression = compression.unwrap_or(self.options.compression);
        if (dedup, compression) == (self.options.dedup, self.options.compression) {
            return self.clone();
        }
        let options = OptionsRow { dedup, compression, ..self.options };
        Arc::new(Self { engine: self.engine.clone(), options, tuning: self.tuning, common: self.common.clone() })
    }

    /// Where files are cut that go by this.
    pub(crate) fn boundaries(&self) -> &Boundaries {
        if self.options.dedup { &self.common.searched } else { &self.common.unsearched }
    }

    /// Nanoseconds since the epoch, larger at every call: two changes never have the same moment, however coarse the clock.
    pub(crate) fn moment(&self) -> u64 {
        let now = self.engine.env().now().saturating_mul(1_000_000);
        let next = |last: u64| now.max(last.saturating_add(1));
        match self.common.last_moment.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))) {
            Ok(last) | Err(last) => next(last),
        }
    }

    /// Longest plaintext of a chunk.
    pub(crate) fn plain_bytes_max(&self) -> usize {
        self.options.sizes.max_bytes as usize
    }

    /// How many versions of a file are kept beside the current one.
    pub(crate) fn versions_kept(&self, content: &ContentRow) -> u64 {
        content.versions.limit.unwrap_or(self.options.versions).into()
    }

    /// Longest target of a symbolic link that fits in its inode's row.
    pub(crate) fn inline_bytes_max(&self) -> usize {
        const KEY_BYTES: usize = 9;
        self.engine.row_bytes_max().saturating_sub(KEY_BYTES + INODE_ROW_BYTES).min(SYMLINK_BYTES_MAX)
    }

    /// A chunk's plaintext, from the cache or through the view.
    pub(crate) async fn chunk(&self, view: &dyn View, number: ChunkNumber) -> Result<Bytes> {
        if let Some(plain) = self.cached(number) {
            return Ok(plain);
        }
        self.decoded(number, &view.chunk(number).await?)
    }

    /// The plaintexts of several chunks, in their order, each as [`Self::chunk`] answers it; fetched together, as far as that pays.
    pub(crate) async fn chunks(&self, view: &dyn View, numbers: &[ChunkNumber]) -> Vec<Result<Bytes>> {
        let held: Vec<Option<Bytes>> = numbers.iter().map(|number| self.cached(*number)).collect();
        let missing = numbers.iter().zip(&held).filter(|(_, held)| held.is_none());
        let missing: Vec<ChunkNumber> = missing.map(|(number, _)| *number).collect();
        let mut payloads = view.chunks(&missing).await.into_iter();
        let mut plain = Vec::with_capacity(numbers.len());
        for (number, held) in numbers.iter().zip(held) {
            plain.extend(match held {
                Some(held) => Some(Ok(held)),
                // There are as many as are missing.
                None => payloads.next().map(|payload| self.decoded(*number, &payload?)),
            });
        }
        plain
    }

    fn decoded(&self, number: ChunkNumber, payload: &Bytes) -> Result<Bytes> {
        let plain = codec::decode(payload, self.plain_bytes_max())?;
        self.keep(number, &plain);
        Ok(plain)
    }

    pub(crate) fn cached(&self, number: ChunkNumber) -> Option<Bytes> {
        self.common.chunks.as_ref()?.get(&number)
    }

    pub(crate) fn forget_chunks(&self) {
        if let Some(chunks) = &self.common.chunks {
            chunks.clear();
        }
    }

    pub(crate) fn keep(&self, number: ChunkNumber, plain: &Bytes) {
        if let Some(chunks) = &self.common.chunks {
            chunks.insert(number, plain.clone());
        }
    }
}
