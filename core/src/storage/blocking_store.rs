use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::bounds::check_blob_bytes;
use super::{
    BatchSupport, Blocking, Capabilities, Change, ErrorKind, ExclusiveGuard, MaybeSendSync, Name, Occupancy,
    OnlyHandle, OpenContext, Operation, Put, Result, Storage, StoreHandle,
};
use crate::env::MaybeSend;

/// Between two looks whether a store can be opened.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// A store on this machine whose calls block, such as a folder or an embedded database: what the clauses ask for, as plain calls.
/// [`BlockingStorage`] makes a [`Storage`] of it.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait BlockingStore: MaybeSendSync + fmt::Debug + Sized + 'static {
    /// What it can promise, whatever it is opened on.
    const CAPABILITIES: Capabilities;

    /// How often [`BlockingStorage::open`] opens it anew, 5 milliseconds apart, as long as another has it open
    /// ([`ErrorKind::Busy`]).
    const BUSY_LOOKS: u32 = 0;

    /// One more handle on the store that is at `path`. What blocks in it goes through [`OpenContext::blocking`], save the
    /// waiting for others, which is done by the sleep of the environment.
    ///
    /// # Errors
    /// As [`StorageConstructor::open`](super::StorageConstructor::open).
    async fn open(path: &Path, context: &OpenContext) -> Result<StoreHandle<Self>>;

    /// [`Storage::put`] or [`Storage::put_durable`], as the operation says, of a blob within the limit.
    ///
    /// # Errors
    /// As those.
    fn put(&self, operation: Operation, name: Name, bytes: &Bytes) -> Result<Put>;

    /// [`Storage::get`].
    ///
    /// # Errors
    /// As that.
    fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes>;

    /// [`Storage::size`].
    ///
    /// # Errors
    /// As that.
    fn size(&self, name: Name) -> Result<u64>;

    /// [`Storage::delete`].
    ///
    /// # Errors
    /// As that.
    fn delete(&self, name: Name) -> Result<()>;

    /// [`Storage::list`].
    ///
    /// # Errors
    /// As that.
    fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>>;

    /// [`Storage::apply`]. As it stands, one change after the other: right for [`BatchSupport::Sequential`] alone. Where the
    /// capabilities say [`BatchSupport::Atomic`], the blobs are known to be within the limit.
    ///
    /// # Errors
    /// As that.
    fn apply(&self, batch: &[Change]) -> Result<Vec<Put>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for change in batch {
            match change {
                Change::Put(name, bytes) => {
                    check_blob_bytes(Operation::Put, *name, bytes.len(), Self::CAPABILITIES.block_bytes_max)?;
                    outcomes.push(self.put(Operation::Put, *name, bytes)?);
                }
                Change::Delete(name) => self.delete(*name)?,
            }
        }
        Ok(outcomes)
    }

    /// [`Storage::sync`].
    ///
    /// # Errors
    /// As that.
    fn sync(&self) -> Result<()>;

    /// [`Storage::persist`].
    ///
    /// # Errors
    /// As that.
    fn persist(&self, names: &[Name]) -> Result<()>;

    /// Keeps out all whom the handles of this process do not know of, without waiting; false where such are there, or where the
    /// medium cannot tell. No other handle of this process is open then. It lasts until [`BlockingStore::let_others_in`]: where
    /// an open store keeps others out anyway, there is nothing to do.
    ///
    /// # Errors
    /// As [`Storage::try_exclusive`].
    fn try_keep_others_out(&self) -> Result<bool>;

    /// Ends what [`BlockingStore::try_keep_others_out`] began.
    fn let_others_in(&self) {}

    /// [`Storage::vacate`].
    ///
    /// # Errors
    /// As that.
    fn vacate(&self) -> Result<()> {
        Ok(())
    }
}

/// A [`Storage`] of a [`BlockingStore`]: its calls run in the thread that the caller wants
/// ([`BlockingMode`](super::BlockingMode)), and one that has begun goes on when its future is dropped.
#[derive(Debug)]
pub struct BlockingStorage<S> {
    handle: Arc<StoreHandle<S>>,
    blocking: Blocking,
}

impl<S: BlockingStore> BlockingStorage<S> {
    /// One more handle on the store that is at `path`.
    ///
    /// # Errors
    /// As [`BlockingStore::open`].
    pub async fn open(path: &Path, context: &OpenContext) -> Result<Self> {
        let mut looks_left = S::BUSY_LOOKS;
        loop {
            match S::open(path, context).await {
                Err(error) if error.kind() == ErrorKind::Busy && looks_left > 0 => looks_left -= 1,
                opened => return Ok(Self { handle: Arc::new(opened?), blocking: context.blocking() }),
            }
            context.env.sleep(BUSY_PAUSE).await;
        }
    }

    async fn run<T: MaybeSend + 'static>(
        &self,
        operation: Operation,
        call: impl FnOnce(&S) -> Result<T> + MaybeSend + 'static,
    ) -> Result<T> {
        let handle = self.handle.clone();
        self.blocking.run(operation, move || call(&handle)).await
    }

    async fn put_as(&self, operation: Operation, name: Name, bytes: Bytes) -> Result<Put> {
        check_blob_bytes(operation, name, bytes.len(), S::CAPABILITIES.block_bytes_max)?;
        self.run(operation, move |store| store.put(operation, name, &bytes)).await
    }
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl<S: BlockingStore> Storage for BlockingStorage<S> {
    fn capabilities(&self) -> Capabilities {
        S::CAPABILITIES
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.put_as(Operation::Put, name, bytes).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.put_as(Operation::PutDurable, name, bytes).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.run(Operation::Get, move |store| store.get(name, range, max_bytes)).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.run(Operation::Size, move |store| store.size(name)).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.run(Operation::Delete, move |store| store.delete(name)).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let prefix = prefix.to_vec();
        self.run(Operation::List, move |store| store.list(&prefix, after)).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        if S::CAPABILITIES.batch == BatchSupport::Atomic {
            for change in &batch {
                if let Change::Put(name, bytes) = change {
                    check_blob_bytes(Operation::Apply, *name, bytes.len(), S::CAPABILITIES.block_bytes_max)?;
                }
            }
        }
        self.run(Operation::Apply, move |store| store.apply(&batch)).await
    }

    async fn sync(&self) -> Result<()> {
        self.run(Operation::Sync, S::sync).await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        let names = names.to_vec();
        self.run(Operation::Persist, move |store| store.persist(&names)).await
    }

    fn occupancy(&self) -> Option<Arc<Occupancy>> {
        Some(self.handle.occupancy().clone())
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        let handle = self.handle.clone();
        let try_alone = move || {
            let Some(here) = handle.try_alone() else { return Ok(None) };
            match handle.try_keep_others_out()? {
                true => Ok(Some(Box::new(Alone { handle, _here: here }) as Box<dyn ExclusiveGuard>)),
                false => Ok(None),
            }
        };
        self.blocking.run(Operation::TryExclusive, try_alone).await
    }

    async fn vacate(&self) -> Result<()> {
        self.run(Operation::Delete, S::vacate).await
    }
}

/// No other handle is there, in this process or another.
struct Alone<S: BlockingStore> {
    handle: Arc<StoreHandle<S>>,
    _here: OnlyHandle,
}

impl<S: BlockingStore> ExclusiveGuard for Alone<S> {}

impl<S: BlockingStore> Drop for Alone<S> {
    fn drop(&mut self) {
        self.handle.let_others_in();
    }
}
