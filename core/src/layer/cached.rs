use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::cache::{Cache, Part};
use crate::storage::{Capabilities, Change, ErrorKind, ExclusiveGuard, Name, Put, Result, Storage};

/// What is asked for is aligned to this: of a part that is cached from its beginning on, the rest is loaded from such a place.
const PIECE_BYTES: u64 = 16 << 10;

/// For who goes on where what is cached ends, so much is loaded at once: to the next multiple of it.
const STEPS_BYTES: [u64; 2] = [256 << 10, 64 << 10];

/// That is done where such a part of it was read before: no more is brought in vain than a few times what was wanted.
const STEP_PARTS: u64 = 4;

/// Answers [`Storage::get_cached`] from a cache, and nothing else; see [`crate::cache`] for what is cached and why.
///
/// The cache is believed in nothing: what has the wrong length is dropped and asked for again here, what has the wrong
/// content by the reader, which finds out ([`Storage::forget`]). What is put is not cached (only what storage gave is), and
/// a name that is created or deleted through this layer is dropped from the cache.
///
/// **Reading on.** Over a network a round trip costs more than a few more bytes. Who asks for what follows on what is cached, as one
/// does who reads rows or small files in their order, gets more of the blob loaded: 64 KiB, later 256 KiB.
#[derive(Clone, Debug)]
pub struct Cached {
    inner: Arc<dyn Storage>,
    cache: Arc<dyn Cache>,
    /// Blobs are at least so long, as far as is known: no more is loaded ahead at once.
    step_max: Arc<AtomicU64>,
}

impl Cached {
    /// The storage, with the cache in front of it. Storages may share a cache where no two of them
    /// hold different blobs under one name, as those of the engine do not.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, cache: Arc<dyn Cache>) -> Self {
        let step_max = Arc::new(AtomicU64::new(u64::MAX));
        Self { inner, cache, step_max }
    }

    /// What is wanted, where it goes on from what is cached. `None` where it does not, or that did not help: then it is to be
    /// asked for as it is.
    async fn read_on(&self, name: Name, wanted: Range<u64>) -> Option<Result<Bytes>> {
        let part = |start: u64, end: u64| Part::Range { start, end };
        let (mut from, mut pieces) = (wanted.start, Vec::new());
        while from < wanted.end {
            let end = from.saturating_add(PIECE_BYTES).min(wanted.end);
            let Some(piece) = self.cache.get(name, part(from, end)).await else { break };
            pieces.push(piece);
            from = end;
        }
        if from >= wanted.end && !pieces.is_empty() {
            // All of it came in parts, since it was looked for as a whole.
            return Some(Ok(pieces.concat().into()));
        }
        let mut end = wanted.end;
        for step in STEPS_BYTES {
            let Some(before) = from.checked_sub(step / STEP_PARTS) else { continue };
            if step <= self.step_max.load(Ordering::Relaxed) && self.cache.get(name, part(before, from)).await.is_some()
            {
                end = end.max((from / step).saturating_add(1).saturating_mul(step));
                break;
            }
        }
        if pieces.is_empty() && end == wanted.end {
            return None;
        }
        match self.through_cache(name, Some(from..end), end.saturating_sub(from)).await? {
            Ok(bytes) => {
                let rest = usize::try_from(wanted.end.saturating_sub(from)).ok()?;
                pieces.push(bytes.slice(..rest.min(bytes.len())));
                Some(Ok(pieces.concat().into()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Some(Err(error)),
            // It may be of what lies behind alone: what was asked for is tried by itself.
            Err(error) => {
                if error.kind() == ErrorKind::RangeInvalid && end > wanted.end {
                    // Blobs are shorter, or this one is.
                    self.step_max.fetch_min(end.saturating_sub(wanted.start) / 2, Ordering::Relaxed);
                }
                None
            }
        }
    }

    /// From the cache, or from storage by way of it; `None` where the cache answers what is not the part.
    async fn through_cache(&self, name: Name, range: Option<Range<u64>>, bytes_max: u64) -> Option<Result<Bytes>> {
        let part = Part::from(range.clone());
        let refused = AtomicBool::new(false);
        let load = async {
            let answer = self.inner.get_cached(name, range, bytes_max).await;
            refused.store(answer.is_err(), Ordering::Relaxed);
            answer
        };
        match self.cache.fetch(name, part, Box::pin(load)).await {
            Ok(bytes) if part.fits(bytes.len()) && bytes.len() as u64 <= bytes_max => Some(Ok(bytes)),
            Ok(_) => {
                self.forget(name).await;
                None
            }
            Err(error) if refused.load(Ordering::Relaxed) => Some(Err(error)),
            // Not storage's error: a cache has none to report.
            Err(_) => None,
        }
    }

    /// A name that was free holds nothing that anyone knows of.
    async fn created(&self, name: Name, put: Put) -> Put {
        if put == Put::Created {
            self.cache.remove(name).await;
        }
        put
    }
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Storage for Cached {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let put = self.inner.put(name, bytes).await?;
        Ok(self.created(name, put).await)
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let put = self.inner.put_durable(name, bytes).await?;
        Ok(self.created(name, put).await)
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.inner.get(name, range, max_bytes).await
    }

    async fn get_cached(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let fits = |bytes: &Bytes| Part::from(range.clone()).fits(bytes.len()) && bytes.len() as u64 <= max_bytes;
        if let Some(wanted) = range.clone().filter(|wanted| !wanted.is_empty() && self.inner.is_remote()) {
            let answer = match self.cache.get(name, Part::from(range.clone())).await {
                Some(bytes) => Some(Ok(bytes)),
                None => self.read_on(name, wanted).await,
            };
            match answer {
                Some(Ok(bytes)) if fits(&bytes) => return Ok(bytes),
                Some(Err(error)) => return Err(error),
                _ => {}
            }
        }
        match self.through_cache(name, range.clone(), max_bytes).await {
            Some(answer) => answer,
            None => self.inner.get(name, range, max_bytes).await,
        }
    }

    async fn forget(&self, name: Name) -> bool {
        self.cache.remove(name).await;
        self.inner.forget(name).await;
        true
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.inner.size(name).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        // Before, in case that this is dropped in the middle; after, because a read may have come between.
        self.cache.remove(name).await;
        let deleted = self.inner.delete(name).await;
        self.cache.remove(name).await;
        deleted
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.inner.list(prefix, after).await
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        self.inner.list_page(prefix, after).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        let names: Vec<Name> = batch
            .iter()
            .map(|change| match change {
                Change::Put(name, _) | Change::Delete(name) => *name,
            })
            .collect();
        for name in &names {
            self.cache.remove(*name).await;
        }
        let applied = self.inner.apply(batch).await;
        for name in &names {
            self.cache.remove(*name).await;
        }
        applied
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.inner.persist(names).await
    }
    fn occupancy(&self) -> Option<std::sync::Arc<crate::storage::Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.inner.try_exclusive().await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.inner.available_bytes().await
    }

    async fn vacate(&self) -> Result<()> {
        self.inner.vacate().await
    }
}
