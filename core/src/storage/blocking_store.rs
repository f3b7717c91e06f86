use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::bounds::check_blob_bytes;
use super::{
    BatchSupport, Blocking, Capabilities, Change, Error, ErrorKind, ExclusiveGuard, MaybeSendSync, Name, Occupancy,
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
    /// ([`ErrorKind::Busy`]). None where [`BlockingStore::open`] waits by itself.
    const BUSY_LOOKS: u32 = 0;

    /// One more handle on the store that is at `path`. What blocks in it goes through [`OpenContext::blocking`]; waiting for
    /// others is best left to [`BlockingStore::BUSY_LOOKS`], or to the sleep of the environment, which hold no worker.
    ///
    /// # Errors
    /// As [`StorageConstructor::open`](super::StorageConstructor::open).
    async fn open(path: &Path, context: &OpenContext) -> Result<StoreHandle<Self>>;

    /// [`Storage::put`], of a blob within the limit.
    ///
    /// # Errors
    /// As that.
    fn put(&self, name: Name, bytes: &Bytes) -> Result<Put>;

    /// [`Storage::put_durable`], of a blob within the limit.
    ///
    /// # Errors
    /// As that.
    fn put_durable(&self, name: Name, bytes: &Bytes) -> Result<Put>;

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

    /// [`Storage::apply`], all or nothing, of blobs within the limit. To be written where the capabilities say
    /// [`BatchSupport::Atomic`]; elsewhere nobody calls it: a batch is its changes there, each a call of its own.
    ///
    /// # Errors
    /// As that.
    fn apply(&self, batch: &[Change]) -> Result<Vec<Put>> {
        Err(Error::new(ErrorKind::Unsupported, Operation::Apply, format!("a batch of {} changes", batch.len()))
            .with_source("this storage says that batches are atomic, and has none: a fault of its implementation"))
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

    /// [`Storage::available_bytes`].
    ///
    /// # Errors
    /// As that.
    fn available_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Keeps out all whom the handles of this process do not know of, without waiting; false where such are there, or where the
    /// medium cannot tell. No other handle of one entry of [`OpenStores`](super::OpenStores) is open then; to the store of a
    /// [`StoreHandle::single`], every other handle is one that it does not know of, those of this process too. It lasts until
    /// [`BlockingStore::let_others_in`]: where an open store keeps others out anyway, there is nothing to do.
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
}

fn check_bytes<S: BlockingStore>(operation: Operation, name: Name, bytes: &Bytes) -> Result<()> {
    check_blob_bytes(operation, name, bytes.len(), S::CAPABILITIES.block_bytes_max)
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl<S: BlockingStore> Storage for BlockingStorage<S> {
    fn capabilities(&self) -> Capabilities {
        S::CAPABILITIES
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        check_bytes::<S>(Operation::Put, name, &bytes)?;
        self.run(Operation::Put, move |store| store.put(name, &bytes)).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        check_bytes::<S>(Operation::PutDurable, name, &bytes)?;
        self.run(Operation::PutDurable, move |store| store.put_durable(name, &bytes)).await
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
        if S::CAPABILITIES.batch != BatchSupport::Atomic {
            // A call each: whoever drops this is sure of no change that has not begun, and other calls come in between.
            let mut outcomes = Vec::with_capacity(batch.len());
            for change in batch {
                match change {
                    Change::Put(name, bytes) => outcomes.push(self.put(name, bytes).await?),
                    Change::Delete(name) => self.delete(name).await?,
                }
            }
            return Ok(outcomes);
        }
        for change in &batch {
            if let Change::Put(name, bytes) = change {
                check_bytes::<S>(Operation::Apply, *name, bytes)?;
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

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.run(Operation::Size, S::available_bytes).await
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use futures_lite::future::{block_on, poll_once};

    use super::super::bounds::{check_range, not_found};
    use super::super::{BlockingMode, Durability, ListOrder, OpenMode, RangeReads, Reach, Torn};
    use super::*;
    use crate::env::{BoxTask, Env, ManualClock, Random, RandomUnavailable, Spawn};

    /// A map, whose batches are said to be atomic or not, and of which none was written.
    #[derive(Debug, Default)]
    struct Map<const ATOMIC: bool> {
        blobs: Mutex<BTreeMap<Name, Bytes>>,
        others_are_there: AtomicBool,
    }

    /// How often [`Map::open`] was called, by one test alone.
    static OPENED: AtomicU32 = AtomicU32::new(0);

    #[async_trait]
    impl<const ATOMIC: bool> BlockingStore for Map<ATOMIC> {
        const CAPABILITIES: Capabilities = Capabilities {
            reach: Reach::Process,
            durability: Durability::None,
            torn: Torn::Never,
            batch: if ATOMIC { BatchSupport::Atomic } else { BatchSupport::Sequential },
            list_order: ListOrder::Ascending,
            range_reads: RangeReads::Native,
            block_bytes_best: 4096,
            block_bytes_max: 4096,
        };
        const BUSY_LOOKS: u32 = if ATOMIC { 0 } else { 3 };

        async fn open(_: &Path, _: &OpenContext) -> Result<StoreHandle<Self>> {
            OPENED.fetch_add(1, Ordering::Relaxed);
            Err(Error::new(ErrorKind::Busy, Operation::Open, "the map"))
        }

        fn put(&self, name: Name, bytes: &Bytes) -> Result<Put> {
            let mut blobs = self.blobs.lock().unwrap();
            if blobs.contains_key(&name) {
                return Ok(Put::Exists);
            }
            blobs.insert(name, bytes.clone());
            Ok(Put::Created)
        }

        fn put_durable(&self, name: Name, bytes: &Bytes) -> Result<Put> {
            self.put(name, bytes)
        }

        fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
            let blobs = self.blobs.lock().unwrap();
            let blob = blobs.get(&name).ok_or_else(|| not_found(Operation::Get, name))?;
            let range = check_range(name, range, blob.len() as u64, max_bytes)?;
            Ok(blob.slice(range.start as usize..range.end as usize))
        }

        fn size(&self, name: Name) -> Result<u64> {
            let blobs = self.blobs.lock().unwrap();
            blobs.get(&name).map(|blob| blob.len() as u64).ok_or_else(|| not_found(Operation::Size, name))
        }

        fn delete(&self, name: Name) -> Result<()> {
            self.blobs.lock().unwrap().remove(&name);
            Ok(())
        }

        fn list(&self, prefix: &[u8], _: Option<Name>) -> Result<Vec<Name>> {
            Ok(self.blobs.lock().unwrap().keys().filter(|name| name.as_bytes().starts_with(prefix)).copied().collect())
        }

        fn sync(&self) -> Result<()> {
            Ok(())
        }

        fn persist(&self, _: &[Name]) -> Result<()> {
            Ok(())
        }

        fn try_keep_others_out(&self) -> Result<bool> {
            Ok(!self.others_are_there.load(Ordering::Relaxed))
        }
    }

    /// A worker that does nothing until it is told to; then the caller is the worker.
    #[derive(Default)]
    struct Late(Mutex<Option<Vec<BoxTask>>>);

    impl Late {
        /// From now on tasks wait.
        fn hold(&self) {
            *self.0.lock().unwrap() = Some(Vec::new());
        }

        /// What waits, which stays where it is; others are done at once.
        fn leave_behind(&self) -> Vec<BoxTask> {
            self.0.lock().unwrap().take().unwrap_or_default()
        }
    }

    impl Spawn for Late {
        fn spawn(&self, task: BoxTask) {
            let mut held = self.0.lock().unwrap();
            match &mut *held {
                Some(tasks) => tasks.push(task),
                None => {
                    drop(held);
                    block_on(task);
                }
            }
        }

        fn parallelism(&self) -> usize {
            1
        }
    }

    impl Random for Late {
        fn fill(&self, _: &mut [u8]) -> std::result::Result<(), RandomUnavailable> {
            Err(RandomUnavailable)
        }
    }

    fn name(number: u8) -> Name {
        Name::new([number; Name::BYTES])
    }

    fn on_workers<const ATOMIC: bool>() -> (BlockingStorage<Map<ATOMIC>>, Arc<Late>) {
        let late = Arc::new(Late::default());
        let env = Env::new(Arc::new(ManualClock::default()), late.clone(), Some(late.clone()));
        let handle = Arc::new(StoreHandle::single(Map::default()));
        (BlockingStorage { handle, blocking: Blocking::new(BlockingMode::Offload, env) }, late)
    }

    #[test]
    fn of_a_sequential_batch_that_is_dropped_no_change_comes_later_than_the_one_in_hand() {
        let (storage, workers) = on_workers::<false>();
        workers.hold();
        let batch = vec![Change::Put(name(1), vec![1].into()), Change::Delete(name(2))];
        let mut apply = Box::pin(storage.apply(batch));
        assert!(block_on(poll_once(&mut apply)).is_none());
        drop(apply);
        let left = workers.leave_behind();
        assert_eq!(block_on(storage.put(name(2), vec![2].into())).unwrap(), Put::Created);
        left.into_iter().for_each(block_on);
        assert_eq!(block_on(storage.size(name(2))).unwrap(), 1, "deleted by a batch that nobody waited for");
    }

    #[test]
    fn batches_that_are_called_atomic_and_are_not_written_are_refused() {
        let (storage, _) = on_workers::<true>();
        let error = block_on(storage.apply(vec![Change::Put(name(1), vec![1].into())])).unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Unsupported, Operation::Apply));
        assert_eq!(block_on(storage.list(&[], None)).unwrap(), []);
    }

    #[test]
    fn a_blob_over_the_limit_never_reaches_the_store() {
        let blob = Bytes::from(vec![0; 4097]);
        let (storage, _) = on_workers::<false>();
        let (atomic, _) = on_workers::<true>();
        let errors = [
            block_on(storage.put(name(1), blob.clone())).unwrap_err(),
            block_on(storage.put_durable(name(1), blob.clone())).unwrap_err(),
            block_on(storage.apply(vec![Change::Put(name(1), blob.clone())])).unwrap_err(),
            block_on(atomic.apply(vec![Change::Put(name(1), blob)])).unwrap_err(),
        ];
        let operations = errors.each_ref().map(|error| (error.kind(), error.operation()));
        let expected = [Operation::Put, Operation::PutDurable, Operation::Put, Operation::Apply];
        assert_eq!(operations, expected.map(|operation| (ErrorKind::LimitExceeded, operation)));
        assert_eq!(block_on(storage.list(&[], None)).unwrap(), []);
    }

    #[test]
    fn who_cannot_keep_others_out_stays_open_to_newcomers() {
        let (storage, _) = on_workers::<false>();
        storage.handle.others_are_there.store(true, Ordering::Relaxed);
        assert!(block_on(storage.try_exclusive()).unwrap().is_none());
        storage.handle.others_are_there.store(false, Ordering::Relaxed);
        let guard = block_on(storage.try_exclusive()).unwrap();
        assert!(guard.is_some());
        assert!(block_on(storage.try_exclusive()).unwrap().is_none(), "it was given twice");
        drop(guard);
        assert!(block_on(storage.try_exclusive()).unwrap().is_some());
    }

    #[test]
    fn a_store_that_others_have_open_is_opened_anew_so_often_as_it_says_and_no_more() {
        let context = OpenContext::new(Env::deterministic(1)).with_mode(OpenMode::Existing);
        let opened = |before: u32| OPENED.load(Ordering::Relaxed) - before;
        let error = block_on(BlockingStorage::<Map<true>>::open(Path::new("x"), &context)).unwrap_err();
        assert_eq!((error.kind(), opened(0)), (ErrorKind::Busy, 1));
        let error = block_on(BlockingStorage::<Map<false>>::open(Path::new("x"), &context)).unwrap_err();
        assert_eq!((error.kind(), opened(1)), (ErrorKind::Busy, 4));
    }
}
