//! The storage seam: the only thing that a backend author sees.
//!
//! A storage is a write-once store of opaque blobs under opaque 16-byte names. It may be run by an enemy: nothing that it
//! answers is believed before the engine has authenticated it. In return it promises the clauses S1 to S14, which stand
//! on the methods of [`Storage`] and which the conformance suite proves one by one.
//!
//! A storage opens what a process left that died in the middle of any call, and repairs by itself what there is to
//! repair: what was being put is absent or whole, no lock and no presence is left, and what is put next is found again. The
//! files of its own that it needs beside the blobs are its affair: no listing shows them, and what it does not know it leaves alone.
//!
//! Whole-trait clauses:
//!
//! * **S10** The process dying at any moment leaves each blob absent or whole; power loss too, save that a plain
//!   [`Storage::put`] not yet synced may be torn where [`Capabilities::torn`] says so.
//! * **S11** An error says its kind, the operation, the context without secrets, whether a retry can help, and whether
//!   the effect is none or unknown.
//! * **S12** Dropping a future in the middle leaves each blob absent or whole.
//! * **S13** Any name and any bytes up to [`Capabilities::block_bytes_max`] work, the empty blob included; over it is
//!   [`ErrorKind::LimitExceeded`].
//! * **S14** Handles are `Send + Sync` (off wasm), cheap to clone behind `Arc`, and usable from many tasks at once; one is
//!   given exclusive access ([`Storage::try_exclusive`]) only while it is alone, and counts who shares it
//!   ([`Storage::occupancy`]).

mod blocking;
mod blocking_store;
pub mod bounds;
mod capabilities;
mod error;
mod ext;
mod name;
mod occupancy;
mod open_stores;
pub mod probe;
mod registry;
mod scheme;
pub mod scratch;
mod strays;
mod uri;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use blocking::{Blocking, BlockingMode};
pub use blocking_store::{BlockingStorage, BlockingStore};
pub use capabilities::{BatchSupport, Capabilities, Durability, ListOrder, RangeReads, Reach, Torn};
pub use error::{Effect, Error, ErrorKind, Operation, Retry, brief};
pub use ext::StorageExt;
pub use name::Name;
pub use occupancy::{Occupancy, Occupant, OnlyOccupant};
pub use open_stores::{Entrance, OnlyHandle, OpenStores, StoreHandle};
pub use registry::{OpenContext, OpenMode, Registry, StorageConstructor};
pub use scheme::{SchemeEntry, SchemeInfo};
pub use strays::{Stray, StraysSought};
pub use uri::StorageUri;

/// The result of a storage operation.
pub type Result<T> = std::result::Result<T, Error>;

/// `Send + Sync` off wasm, nothing on wasm, where there is one thread and futures are not `Send`.
#[cfg(not(target_family = "wasm"))]
pub trait MaybeSendSync: Send + Sync {}
#[cfg(not(target_family = "wasm"))]
impl<T: Send + Sync + ?Sized> MaybeSendSync for T {}
/// `Send + Sync` off wasm, nothing on wasm, where there is one thread and futures are not `Send`.
#[cfg(target_family = "wasm")]
pub trait MaybeSendSync {}
#[cfg(target_family = "wasm")]
impl<T: ?Sized> MaybeSendSync for T {}

/// What a put found: an outcome, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The name was free and now holds exactly the bytes given.
    Created,
    /// The name was taken; its content is untouched.
    Exists,
}

/// One change in a batch.
#[derive(Clone, Debug)]
pub enum Change {
    /// As [`Storage::put`].
    Put(Name, Bytes),
    /// As [`Storage::delete`].
    Delete(Name),
}

/// Proof that no other handle, in any process, uses this storage; the proof lasts until it is dropped. A lock of a file is
/// best let go by unlocking it: one that ends when the file is closed lives on in a child process until its `exec`.
pub trait ExclusiveGuard: MaybeSendSync {}

/// A write-once store of opaque blobs.
///
/// # Examples
///
/// `docs/backends.md` walks through writing one, in under 100 lines.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait Storage: MaybeSendSync + std::fmt::Debug {
    /// What this storage can promise; constant for the life of the handle.
    fn capabilities(&self) -> Capabilities;

    /// Whether its calls cross a network, so that a cache, retries and limits of time pay, and asking for every blob does not.
    /// By default that is so where everyone is reached. A wrapper passes it on.
    fn is_remote(&self) -> bool {
        self.capabilities().reach == Reach::Everywhere
    }

    /// **S1** Stores all of `bytes` or nothing, atomically, and answers [`Put::Created`], or [`Put::Exists`] with the
    /// old content untouched. **S2** Of any number of concurrent puts of one name exactly one answers `Created`, within
    /// [`Capabilities::reach`].
    ///
    /// # Errors
    /// [`ErrorKind::LimitExceeded`] for more than `block_bytes_max` bytes; what the medium raises, with its effect.
    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put>;

    /// **S9** As [`Storage::put`], and the blob is whole before it is visible, and durable when this answers. On
    /// `Exists` nothing is promised about the durability of what is there: see [`Storage::persist`].
    ///
    /// # Errors
    /// As [`Storage::put`].
    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put>;

    /// **S3** Returns exactly the bytes put; with `range` (bytes, end exclusive) that part of them. A range past the end
    /// is [`ErrorKind::RangeInvalid`]; a reply of over `max_bytes` is [`ErrorKind::LimitExceeded`] before it is
    /// buffered. **S4** An absent name is [`ErrorKind::NotFound`].
    ///
    /// # Errors
    /// As said, and what the medium raises.
    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes>;

    /// As [`Storage::get`], for a caller who can tell by the bytes alone whether they are the ones it wants, such as a record
    /// that authenticates under the pointer to it: a cache between here and the medium may answer, as of an earlier time
    /// (so S5 does not hold here) and, being untrusted, wrongly. Whoever is not satisfied asks [`Storage::forget`], then
    /// [`Storage::get`], which no cache ever answers. A backend leaves this as it is; a wrapper passes it on.
    ///
    /// # Errors
    /// As [`Storage::get`].
    async fn get_cached(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.get(name, range, max_bytes).await
    }

    /// Drops what caches between here and the medium hold of this name, and answers whether there are caches at all: if
    /// not, asking again is useless. A backend leaves this as it is; a wrapper passes it on.
    async fn forget(&self, name: Name) -> bool {
        let _ = name;
        false
    }

    /// The length of a blob in bytes. **S4** An absent name is [`ErrorKind::NotFound`]. **S5** After a put or delete
    /// answers, every later `get`, `size` and `list` within the stated reach sees it.
    ///
    /// # Errors
    /// As said, and what the medium raises.
    async fn size(&self, name: Name) -> Result<u64>;

    /// **S6** Removes a blob; an absent name succeeds; afterwards a new put of the name answers `Created`.
    ///
    /// # Errors
    /// What the medium raises.
    async fn delete(&self, name: Name) -> Result<()>;

    /// One page of the names that start with `prefix` (over 16 bytes there are none), beginning after the name `after` where one is
    /// given. **S7** Following the pages, every name that is present throughout comes exactly once; names that come or go
    /// meanwhile may or may not appear. An empty page ends the listing. Pages are ordered where [`Capabilities::list_order`]
    /// says so; otherwise a single page holds everything that is left.
    ///
    /// # Errors
    /// What the medium raises.
    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>>;

    /// As [`Storage::list`], and whether it is known that nothing comes after this page, empty or not: then nobody has to ask for
    /// the empty one that ends the listing. A backend whose medium says so with each page, as a server does, tells it here, which
    /// saves a round trip; a wrapper passes it on. `false` is always right.
    ///
    /// # Errors
    /// As [`Storage::list`].
    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        Ok((self.list(prefix, after).await?, false))
    }

    /// **S8** Applies the changes in order; where [`Capabilities::batch`] is [`BatchSupport::Atomic`], all or nothing,
    /// across a crash too. Answers one outcome for each put, in order.
    ///
    /// A change sees those before it in the batch. [`Put::Exists`] is an outcome, and neither ends a batch nor undoes what it
    /// did, an atomic one's either. A batch is durable as plain puts are: after a barrier.
    ///
    /// # Errors
    /// The first failure; what came before it may have taken effect unless the batch is atomic. It is of
    /// [`Operation::Apply`] where the batch is one call of the medium, as every atomic one is; else it may be of the change
    /// that failed, [`Operation::Put`] or [`Operation::Delete`], as of this default. The effect is that of the whole
    /// batch: with [`Effect::None`] an atomic one changed nothing, and another one at least did not do what failed.
    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for change in batch {
            match change {
                Change::Put(name, bytes) => outcomes.push(self.put(name, bytes).await?),
                Change::Delete(name) => self.delete(name).await?,
            }
        }
        Ok(outcomes)
    }

    /// **S9** After this answers, everything that this process had acknowledged before it survives power loss: on this
    /// handle, and on every other one that it has open on the same store. What was put or deleted by a handle that was
    /// closed since without a barrier need not be covered.
    ///
    /// # Errors
    /// What the medium raises; then nothing is promised about what was not durable before.
    async fn sync(&self) -> Result<()>;

    /// **S9** Makes durable what any process put under these names. An absent name is [`ErrorKind::NotFound`].
    ///
    /// # Errors
    /// As said, and what the medium raises.
    async fn persist(&self, names: &[Name]) -> Result<()>;

    /// Who uses this handle. A storage that ever gives exclusive access answers the [`Occupancy`] of the handle, always the
    /// same, so that of several users of one handle none takes itself for alone; where there is none, nobody does. It is made
    /// with the handle, by `Arc::default()`, and there is no more to do: those who use the handle come in by themselves. A
    /// wrapper passes it on.
    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        None
    }

    /// **S14** Proves, without waiting, that no other handle in any process uses this storage, and keeps newcomers waiting
    /// while the guard lives (so hold it for moments). `None` where someone else is there, or where the medium cannot tell;
    /// it may also be answered where somebody was there a moment ago.
    ///
    /// While the guard lives this handle works as always, and asking it again answers `None`. Opening another one, in whatever
    /// process, does not answer before the guard is dropped (or the handle's first call does not), and counts from then on.
    /// The guard and the presence of a handle end with its process, however it dies.
    ///
    /// # Errors
    /// What the medium raises.
    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        Ok(None)
    }

    /// How many bytes can still be put, as the medium says at once: without counting, and as things stand. `None` where it does
    /// not say, or where nothing bounds it. It is shown to people and nothing rests on it: what fits is for [`Storage::put`] to
    /// say. A backend that cannot tell leaves this as it is; a wrapper passes it on.
    ///
    /// # Errors
    /// What the medium raises.
    async fn available_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Removes what the storage itself has made to keep blobs in, as far as none is left there, nor anything of others: empty
    /// folders. What cannot be removed stays. Only called while nobody else is there, and as the last call: whether blobs can
    /// be put afterwards is the storage's affair. A backend that makes nothing of the kind leaves this as it is; a wrapper
    /// passes it on.
    ///
    /// # Errors
    /// What the medium raises, where it cannot tell what is left.
    async fn vacate(&self) -> Result<()> {
        Ok(())
    }
}
