use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::sealing::impossible;
use super::{BlockBuilder, Place, SealedBlock, lock};
use crate::crypto::Keys;
use crate::format::{BlockId, Pointer, RecordKind};
use crate::storage::Name;
use crate::{Error, Result};

/// A block on its way into storage. At each moment its records are held once: as payloads while it is open, sealed until
/// storage has acknowledged it, and then not at all.
pub(super) struct Slot {
    pub(super) key_epoch: u16,
    pub(super) writer_epoch: u32,
    pub(super) counter: u64,
    name: Name,
    salt: [u8; 16],
    content: Mutex<Content>,
    given_up: AtomicBool,
}

enum Content {
    Open(BlockBuilder),
    Sealed(SealedBlock),
    Stored,
    // Sealing failed or panicked; there is nothing left to put.
    Lost,
}

impl Slot {
    pub(super) fn new(builder: BlockBuilder, key_epoch: u16, writer_epoch: u32, counter: u64) -> Self {
        let (name, salt) = (builder.name(), *builder.salt());
        let content = Mutex::new(Content::Open(builder));
        Self { key_epoch, writer_epoch, counter, name, salt, content, given_up: AtomicBool::new(false) }
    }

    pub(super) fn id(&self) -> BlockId {
        BlockId::Data { key_epoch: self.key_epoch, writer_epoch: self.writer_epoch, counter: self.counter }
    }

    /// In the order in which blocks were opened.
    pub(super) fn place(&self) -> (u32, u64) {
        (self.writer_epoch, self.counter)
    }

    /// Nobody needs the block any more: that it fails is nobody's business.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    pub(super) fn pointer(&self, place: Place) -> Pointer {
        Pointer {
            key_epoch: self.key_epoch,
            writer_epoch: self.writer_epoch,
            counter: self.counter,
            index: place.index,
            offset: place.offset,
            length: place.length,
            salt: self.salt,
        }
    }

    /// Runs on the open block.
    pub(super) fn with_builder<T>(&self, run: impl FnOnce(&mut BlockBuilder) -> T) -> Result<T> {
        match &mut *lock(&self.content) {
            Content::Open(builder) => Ok(run(builder)),
            _ => Err(impossible("a closed block was written to")),
        }
    }

    /// Seals the block, where it is not sealed yet. Whoever wants to read it meanwhile waits for this lock: milliseconds
    /// for the largest block, and cheaper than a second copy of the plaintext.
    pub(super) fn seal(&self, keys: &Keys) -> Result<(Name, Bytes)> {
        let mut content = lock(&self.content);
        *content = match std::mem::replace(&mut *content, Content::Lost) {
            Content::Open(builder) => Content::Sealed(builder.seal(keys)?),
            other => other,
        };
        match &*content {
            Content::Sealed(block) => Ok((block.name, block.bytes.clone())),
            _ => Err(Error::damaged("block", Some(self.name), "lost before it was put")),
        }
    }

    /// Storage has acknowledged the block: what it held is let go.
    pub(super) fn stored(&self) {
        *lock(&self.content) = Content::Stored;
    }

    /// The payload of a record; `None` where storage has it, or where the pointer is to another sealing.
    pub(super) fn read(&self, pointer: &Pointer, kind: RecordKind) -> Result<Option<Bytes>> {
        if pointer.salt != self.salt || pointer.key_epoch != self.key_epoch {
            return Ok(None);
        }
        let place = Place::from(pointer);
        let damaged = |detail: &str| Error::damaged(kind.name(), Some(self.name), detail);
        let block = match &*lock(&self.content) {
            Content::Open(builder) => {
                let payload = builder.record(&place, kind).ok_or_else(|| damaged("a pointer to where no record is"))?;
                return Ok(Some(payload.clone()));
            }
            Content::Sealed(block) => block.clone(),
            Content::Stored => return Ok(None),
            Content::Lost => return Err(damaged("lost before it was put")),
        };
        block.record(&place, kind).map(Some)
    }
}
