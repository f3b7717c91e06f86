//! Blocks on their way into a clone: authenticated, several at once, and durable there at the end.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use super::target::in_clone;
use super::{CloneOptions, CloneProgress};
use crate::engine::Engine;
use crate::format::rows::DataBlock;
use crate::storage::{ErrorKind, Name, Put, Storage, StorageExt as _};
use crate::{Damage, Error, Result};

/// Bytes of blocks that are under way at once, and how many blocks at least and at most.
const IN_FLIGHT_BYTES: usize = 16 << 20;
const AT_ONCE_MIN: usize = 4;
const AT_ONCE_MAX: usize = 32;

/// How often one block is put where something else appears under its name.
const PUTS_MAX: usize = 4;

/// Made durable with one call.
const PERSISTED_AT_ONCE: usize = 1_000;

/// How many blocks are asked for, or sent, at once.
pub(super) fn at_once(block_bytes: u32) -> usize {
    (IN_FLIGHT_BYTES / (block_bytes as usize).max(1)).clamp(AT_ONCE_MIN, AT_ONCE_MAX)
}

/// What is known of a block before anything is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is there, and durable, or put by this run.
    There,
    /// Something is there under its name.
    Listed,
    /// Nothing is there, as far as anybody knows.
    Absent,
}

/// What was sent by one call, over all the states that it tried.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    /// The blocks themselves: a newer state does not have them read and compared again.
    pub(super) names: BTreeSet<Name>,
    /// Whether what differs has been found not to tell what there is to do.
    pub(super) goes_by_all: bool,
    /// Blocks of the clone that were found damaged on the way: what is there is not taken for them unread.
    pub(super) suspects: BTreeSet<Name>,
}

/// The blocks of one state on their way.
pub(super) struct Transfer<'t, 'o> {
    engine: &'t Engine,
    storage: Arc<dyn Storage>,
    /// Of the state that they are of.
    sequence: u64,
    progress: CloneProgress,
    hear: Option<&'t mut (dyn FnMut(CloneProgress) -> bool + Send + 'o)>,
    /// Blobs that were put.
    put: Vec<Name>,
    /// Blocks that were there, of which nobody knows whether they are durable.
    unproven: Vec<Name>,
    /// How many of those there were.
    pub(super) found_blocks: u64,
    /// What the source lacks.
    left_out: Vec<Damage>,
}

impl<'t, 'o> Transfer<'t, 'o> {
    pub(super) fn new(
        engine: &'t Engine,
        storage: Arc<dyn Storage>,
        sequence: u64,
        progress: CloneProgress,
        options: &'t mut CloneOptions<'o>,
    ) -> Self {
        let hear = options.progress.as_deref_mut();
        let (put, unproven, left_out) = (Vec::new(), Vec::new(), Vec::new());
        Self { engine, storage, sequence, progress, hear, put, unproven, found_blocks: 0, left_out }
    }

    /// Sends what the clone lacks of these blocks.
    pub(super) async fn run(&mut self, blocks: impl Stream<Item = Result<(DataBlock, Known)>>) -> Result<()> {
        self.tell()?;
        let engine = self.engine;
        let sender = Sender { source: engine.shared.blocks.clone(), target: self.storage.clone() };
        let fates = blocks.map(|block| {
            let sender = sender.clone();
            async move {
                let (block, known) = block?;
                let name = engine.shared.block_name(block);
                if known == Known::There {
                    return Ok((name, Fate::There));
                }
                let sending = engine.env().spawn(async move { sender.send(block, name, known).await });
                sending.await.ok_or(Error::WorkerLost)?.map(|fate| (name, fate))
            }
        });
        let mut fates = std::pin::pin!(fates.buffer_unordered(at_once(engine.block_bytes())));
        while let Some(fate) = fates.next().await {
            let (name, fate) = fate?;
            self.note(name, fate).await?;
            self.tell()?;
        }
        Ok(())
    }

    async fn note(&mut self, name: Name, fate: Fate) -> Result<()> {
        self.progress.done_blocks += 1;
        match fate {
            Fate::There => {}
            Fate::Equal => {
                self.found_blocks += 1;
                self.unproven.push(name);
                if self.unproven.len() >= PERSISTED_AT_ONCE {
                    self.persist().await?;
                }
            }
            Fate::Sent => {
                self.put.push(name);
                self.progress.sent_bytes += u64::from(self.progress.block_bytes);
            }
            Fate::LeftOut(error) => match self.engine.shared.explain(error, self.sequence).await {
                Error::Damaged(damage) => self.left_out.push(damage),
                error => return Err(error),
            },
        }
        Ok(())
    }

    fn tell(&mut self) -> Result<()> {
        if let Some(hear) = &mut self.hear
            && !hear(self.progress)
        {
            return Err(Error::Stopped);
        }
        Ok(())
    }

    async fn persist(&mut self) -> Result<()> {
        if self.unproven.is_empty() {
            return Ok(());
        }
        self.storage.persist(&self.unproven).await.map_err(|error| in_clone(error.into()))?;
        self.unproven.clear();
        Ok(())
    }

    /// Everything that was sent, and what was there, survives a loss of power from here on.
    pub(super) async fn make_durable(&mut self) -> Result<()> {
        self.storage.sync().await.map_err(|error| in_clone(error.into()))?;
        self.persist().await
    }

    /// Adds what was put to what was sent before, whether or not all of it was; answers what the source lacks.
    pub(super) fn end(self, sent: &mut Sent) -> Vec<Damage> {
        sent.blocks += self.put.len() as u64;
        sent.bytes = self.progress.sent_bytes;
        sent.names.extend(self.put);
        self.left_out
    }
}

/// What became of a block.
enum Fate {
    There,
    /// It was there already, and is the same; nobody knows whether it is durable.
    Equal,
    Sent,
    /// The source does not have it whole.
    LeftOut(Error),
}

/// What it takes to send a block, on any thread.
#[derive(Clone)]
struct Sender {
    source: Arc<crate::block::BlockStore>,
    target: Arc<dyn Storage>,
}

impl Sender {
    async fn send(&self, block: DataBlock, name: Name, known: Known) -> Result<Fate> {
        let context = self.source.reader.context();
        let block_bytes = u64::from(context.geometry.block_bytes());
        let bytes = match context.storage.get_all(name, block_bytes).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Fate::LeftOut(Error::Missing { structure: "block", blob: name }));
            }
            // One that cannot be read, though others can, is lost as one that is damaged.
            Err(error) if matches!(error.kind(), ErrorKind::LimitExceeded | ErrorKind::Corrupt | ErrorKind::Other) => {
                return Ok(Fate::LeftOut(Error::damaged("block", Some(name), error.to_string())));
            }
            Err(error) => return Err(error.into()),
        };
        if let Err(error) = self.source.reader.open_whole(name, block.key_epoch, bytes.clone()) {
            return match error {
                Error::Damaged(_) => Ok(Fate::LeftOut(error)),
                error => Err(error),
            };
        }
        self.put(block, name, bytes, known).await.map_err(in_clone)
    }

    /// Puts what is proven to be a block. What is there already under its name is replaced only where it is no block: which of
    /// two that authenticate is the right one, only those know who lead to it.
    async fn put(&self, block: DataBlock, name: Name, bytes: Bytes, known: Known) -> Result<Fate> {
        if known == Known::Absent && self.target.put(name, bytes.clone()).await? == Put::Created {
            return Ok(Fate::Sent);
        }
        for _ in 0..PUTS_MAX {
            // Of an earlier run: whole where that came so far.
            match self.target.get_all(name, bytes.len() as u64).await {
                Ok(there) if there == bytes => return Ok(Fate::Equal),
                Ok(there) if self.source.reader.open_whole(name, block.key_epoch, there.clone()).is_ok() => {
                    let detail =
                        "here and in the clone it is sealed differently: `check --data` of each tells which is right";
                    return Ok(Fate::LeftOut(Error::damaged("block", Some(name), detail)));
                }
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::LimitExceeded | ErrorKind::Corrupt) => {}
                Err(error) => return Err(error.into()),
            }
            self.target.delete(name).await?;
            if self.target.put(name, bytes.clone()).await? == Put::Created {
                return Ok(Fate::Sent);
            }
        }
        Err(Error::Conflict)
    }
}
