//! What is done to chunks before they are stored, in batches: they are hashed, looked up, and those that are new compressed.
//!
//! In this order, so that what is there already costs no compression. Hashing and compressing is the workers'; looking up is
//! for the one who has the transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use strongroom_core::engine::{ChunkNumber, Transaction};
use strongroom_core::env::{Env, MaybeSend, TaskHandle};

use crate::codec;
use crate::error::Result;
use crate::shared::Shared;

/// Handing fewer bytes to a worker costs more than the work.
pub(crate) const HANDED_OVER_BYTES_MIN: usize = 16 << 10;
/// The same of compressing, for which a writer of a small file waits a second time.
const COMPRESSED_HERE_BYTES_MAX: usize = 64 << 10;

pub(crate) type Identity = [u8; 32];

/// Chunks that follow each other.
#[derive(Default)]
pub(crate) struct Chunks {
    pub(crate) offset: u64,
    pub(crate) plain: Vec<Bytes>,
    pub(crate) bytes: usize,
}

impl Chunks {
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes as u64)
    }
}

/// Work that was done where it came up, or that a worker has.
enum Work<T> {
    Here(T),
    There(TaskHandle<T>),
}

impl<T: MaybeSend + 'static> Work<T> {
    /// Does work on so many bytes: where they are fewer than `there_bytes_min`, at once.
    fn begin(env: &Env, bytes: usize, there_bytes_min: usize, work: impl FnOnce() -> T + MaybeSend + 'static) -> Self {
        if bytes < there_bytes_min { Self::Here(work()) } else { Self::There(env.spawn(async move { work() })) }
    }

    /// What came of it, when it is done.
    async fn ready(&mut self) -> Result<&mut T> {
        if let Self::There(task) = self {
            let done = task.await.ok_or(strongroom_core::Error::WorkerLost)?;
            *self = Self::Here(done);
        }
        match self {
            Self::Here(done) => Ok(done),
            Self::There(_) => Err(strongroom_core::Error::WorkerLost.into()),
        }
    }
}

struct Hashed {
    identity: Identity,
    /// Whether it is worth compressing, as far as one knows.
    promising: Option<bool>,
}

/// What a look-up says of a chunk.
pub(crate) enum Found {
    /// It is stored already; one reference was added.
    There(ChunkNumber),
    New(New),
    /// It is the same as a new one before it that was not stored when it was looked up.
    Repeated(Identity),
}

pub(crate) struct New {
    pub(crate) identity: Option<Identity>,
    promising: Option<bool>,
    payload: Option<Bytes>,
}

impl New {
    /// What is to be stored for its plaintext.
    pub(crate) fn payload(&mut self, shared: &Shared, plain: &Bytes) -> Bytes {
        let make = || match self.promising {
            Some(true) => codec::pack(plain),
            Some(false) => codec::frame(plain),
            None => codec::encode(plain, shared.options.compression),
        };
        self.payload.take().unwrap_or_else(make)
    }
}

enum Step {
    Hashing(Work<Vec<Hashed>>),
    Compressing(Work<Vec<Found>>),
}

pub(crate) struct Batch {
    pub(crate) chunks: Chunks,
    step: Step,
}

impl Batch {
    /// Has chunks hashed; or compressed at once, where equal ones are not looked for.
    pub(crate) fn begin(shared: &Arc<Shared>, chunks: Chunks) -> Self {
        let (plain, bytes) = (chunks.plain.clone(), chunks.bytes);
        if !shared.options.dedup {
            let new = |_: &Bytes| Found::New(New { identity: None, promising: None, payload: None });
            let found = plain.iter().map(new).collect();
            return Self {
                chunks,
                step: Step::Compressing(compress(shared, plain, found, bytes, HANDED_OVER_BYTES_MIN)),
            };
        }
        // Trying costs little, and mostly saves handing over what does not compress. But after one that is there already, the
        // next one most likely is there, too.
        let try_it = !shared.common.is_after_duplicate();
        let by = shared.clone();
        let hash = move || {
            let hash = |plain: &Bytes| Hashed {
                identity: by.engine.identity(plain),
                promising: codec::promising(plain, by.options.compression, try_it),
            };
            plain.iter().map(hash).collect()
        };
        Self { chunks, step: Step::Hashing(Work::begin(shared.engine.env(), bytes, HANDED_OVER_BYTES_MIN, hash)) }
    }

    /// Waits until the chunks can be looked up without waiting for a worker.
    pub(crate) async fn hashed(&mut self) -> Result<()> {
        if let Step::Hashing(work) = &mut self.step {
            work.ready().await?;
        }
        Ok(())
    }

    /// Looks the chunks up, and has those compressed that are new; `unstored` are those before them.
    pub(crate) async fn look_up(
        &mut self,
        shared: &Arc<Shared>,
        transaction: &mut Transaction,
        unstored: &mut BTreeSet<Identity>,
    ) -> Result<()> {
        let Step::Hashing(work) = &mut self.step else { return Ok(()) };
        let hashed = std::mem::take(work.ready().await?);
        let (mut found, mut bytes) = (Vec::with_capacity(hashed.len()), 0);
        for (Hashed { identity, promising }, plain) in hashed.into_iter().zip(&self.chunks.plain) {
            let chunk = if unstored.contains(&identity) {
                Found::Repeated(identity)
            } else if let Some(chunk) = transaction.find_chunk(&identity).await? {
                Found::There(chunk)
            } else {
                unstored.insert(identity);
                let payload = (promising == Some(false)).then(|| codec::frame(plain));
                bytes += if payload.is_none() { plain.len() } else { 0 };
                Found::New(New { identity: Some(identity), promising, payload })
            };
            found.push(chunk);
        }
        if let Some(last) = found.last() {
            shared.common.set_after_duplicate(!matches!(last, Found::New(_)));
        }
        let plain = if bytes > 0 { self.chunks.plain.clone() } else { Vec::new() };
        self.step = Step::Compressing(compress(shared, plain, found, bytes, COMPRESSED_HERE_BYTES_MAX));
        Ok(())
    }

    /// What is to be stored of chunks that were looked up, when it is ready.
    pub(crate) async fn ready(&mut self) -> Result<&mut Vec<Found>> {
        match &mut self.step {
            Step::Compressing(work) => work.ready().await,
            // Not looked up: nothing to store as yet.
            Step::Hashing(_) => Err(strongroom_core::Error::WorkerLost.into()),
        }
    }
}

/// Makes the payloads of those that are new, so many bytes of `plain`.
fn compress(
    shared: &Arc<Shared>,
    plain: Vec<Bytes>,
    mut found: Vec<Found>,
    bytes: usize,
    there_bytes_min: usize,
) -> Work<Vec<Found>> {
    let by = shared.clone();
    Work::begin(shared.engine.env(), bytes, there_bytes_min, move || {
        for (plain, found) in plain.iter().zip(&mut found) {
            if let Found::New(new) = found {
                new.payload = Some(new.payload(&by, plain));
            }
        }
        found
    })
}
