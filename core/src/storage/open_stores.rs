use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use async_lock::{RwLock, RwLockReadGuardArc, RwLockWriteGuardArc};

use super::{ExclusiveGuard, MaybeSendSync, Occupancy, Result};

/// The stores that a process has open: each once, however many handles there are on it. For media that a process can or should open
/// only once, such as an embedded database behind a lock of its file.
///
/// A storage keeps one of these in a `static`, and tells its stores apart by what the operating system knows them by, such as
/// device and inode; a path can come to mean another file. As long as a store is open its key must be that of no other.
///
/// The last handle closes its store, in whichever thread drops it, and has done so when the drop returns: then another process
/// may open it, and this one may end. That blocks as long as the medium takes to flush what no barrier covered, also where the
/// storage makes its calls on workers; so a storage bounds how much that may be. It is not left to a worker, because whoever opens
/// the store anew waits on a worker for its end, and all of them could. The drop of `S` must not panic.
///
/// ```
/// use strongroom_core::storage::OpenStores;
/// # futures_lite::future::block_on(async {
/// static OPEN: OpenStores<&str, Vec<u8>> = OpenStores::new();
/// let one = OPEN.enter("a").await.open(|| Ok(vec![7]))?;
/// let other = OPEN.enter("a").await.open(|| unreachable!("it is open"))?;
/// assert_eq!(*other, [7]);
/// assert!(one.try_alone().is_none());
/// drop(other);
/// assert!(one.try_alone().is_some());
/// # Ok::<(), strongroom_core::storage::Error>(()) }).unwrap();
/// ```
pub struct OpenStores<K, S> {
    slots: Mutex<BTreeMap<K, Arc<Slot<S>>>>,
}

/// Invariant: `state.is_open` from before a store is opened until after it was dropped, so that no two ever overlap.
struct Slot<S> {
    /// Entering reads it, whoever is alone writes it: so newcomers wait meanwhile.
    gate: Arc<RwLock<()>>,
    state: Mutex<State<S>>,
    closed: Condvar,
}

struct State<S> {
    store: Weak<Kept<S>>,
    is_open: bool,
}

/// A store, and after it (fields are dropped in this order) the word that it is closed.
struct Kept<S> {
    store: S,
    closing: Closing<S>,
}

struct Closing<S>(Arc<Slot<S>>);

impl<S> Drop for Closing<S> {
    fn drop(&mut self) {
        self.0.lock().is_open = false;
        self.0.closed.notify_all();
    }
}

impl<S> Slot<S> {
    fn new(is_open: bool) -> Arc<Self> {
        let state = Mutex::new(State { store: Weak::new(), is_open });
        Arc::new(Self { gate: Arc::default(), state, closed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord, S> OpenStores<K, S> {
    /// None is open.
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: Mutex::new(BTreeMap::new()) }
    }

    /// Goes in to where the store of this key is, or will be; waits while a handle has it for itself.
    pub async fn enter(&self, key: K) -> Entrance<S> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            slots.entry(key).or_insert_with(|| Slot::new(false)).clone()
        };
        let gate = slot.gate.read_arc().await;
        Entrance { slot, _gate: gate }
    }
}

impl<K: Ord, S> Default for OpenStores<K, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, S> fmt::Debug for OpenStores<K, S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OpenStores").finish_non_exhaustive()
    }
}

/// Where a store is opened; as long as this is there, nobody gets it for itself.
pub struct Entrance<S> {
    slot: Arc<Slot<S>>,
    _gate: RwLockReadGuardArc<()>,
}

impl<S> Entrance<S> {
    /// One more handle on the store, which is opened by `open` where it is not open yet. It blocks while the store is being
    /// closed, so it belongs into a blocking call; after an error it may be called again.
    ///
    /// # Errors
    /// What `open` answers.
    pub fn open(&self, open: impl FnOnce() -> Result<S>) -> Result<StoreHandle<S>> {
        let mut state = self.slot.lock();
        while state.is_open {
            if let Some(kept) = state.store.upgrade() {
                return Ok(StoreHandle { kept, occupancy: Arc::default() });
            }
            state = self.slot.closed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let store = open()?;
        let kept = Arc::new(Kept { store, closing: Closing(self.slot.clone()) });
        state.is_open = true;
        state.store = Arc::downgrade(&kept);
        Ok(StoreHandle { kept, occupancy: Arc::default() })
    }
}

impl<S> fmt::Debug for Entrance<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Entrance").finish_non_exhaustive()
    }
}

/// One handle on a store; the last one closes it, in the thread that drops it ([`OpenStores`]).
pub struct StoreHandle<S> {
    kept: Arc<Kept<S>>,
    occupancy: Arc<Occupancy>,
}

impl<S> StoreHandle<S> {
    /// The one handle on a store that no other handle shares: for media of which each handle stands for itself. Its
    /// [`StoreHandle::try_alone`] says nothing of other handles then: the store itself must keep out those of this process too.
    #[must_use]
    pub fn single(store: S) -> Self {
        let closing = Closing(Slot::new(true));
        Self { kept: Arc::new(Kept { store, closing }), occupancy: Arc::default() }
    }

    /// As [`StoreHandle::single`], of a store at one of several places ([`Occupancy::at`]).
    #[must_use]
    pub fn single_at(store: S, place: Vec<u8>) -> Self {
        Self { occupancy: Arc::new(Occupancy::at(place)), ..Self::single(store) }
    }

    /// Who uses this handle ([`super::Storage::occupancy`]).
    #[must_use]
    pub fn occupancy(&self) -> &Arc<Occupancy> {
        &self.occupancy
    }
}

impl<S: MaybeSendSync + 'static> StoreHandle<S> {
    /// Proof that this process has no other handle on the store that [`OpenStores`] knows of, and no newcomer while it lives, even
    /// where it outlives the handle; `None` where it has.
    #[must_use]
    pub fn try_alone(&self) -> Option<OnlyHandle> {
        let gate = self.kept.closing.0.gate.try_write_arc()?;
        (Arc::strong_count(&self.kept) == 1).then(|| OnlyHandle { _gate: gate, _kept: self.kept.clone() })
    }
}

impl<S> Deref for StoreHandle<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.kept.store
    }
}

impl<S: fmt::Debug> fmt::Debug for StoreHandle<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kept.store.fmt(formatter)
    }
}

/// No other handle that [`OpenStores`] knows of is there. Where the medium keeps other processes out, that is all that
/// [`super::Storage::try_exclusive`] asks for.
pub struct OnlyHandle {
    _gate: RwLockWriteGuardArc<()>,
    /// So that a newcomer finds this gate, and is not given another; and so that the store stays open, and what it keeps other
    /// processes out with in place.
    _kept: Arc<dyn MaybeSendSync>,
}

impl fmt::Debug for OnlyHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OnlyHandle").finish_non_exhaustive()
    }
}

impl ExclusiveGuard for OnlyHandle {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use futures_lite::future::{block_on, poll_once};

    use super::super::{Error, ErrorKind, Operation};
    use super::*;

    /// How many are open at once, which counts itself out only after a while.
    struct Counted<'a>(&'a AtomicU32);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            thread::yield_now();
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_store_is_opened_once_and_closed_before_it_is_opened_again() {
        let (stores, open_count, opened_count) = (OpenStores::new(), AtomicU32::new(0), AtomicU32::new(0));
        let come_and_go = || {
            for _ in 0..500 {
                let entrance = block_on(stores.enter(1));
                let handle = entrance.open(|| {
                    assert_eq!(open_count.fetch_add(1, Ordering::SeqCst), 0, "two are open at once");
                    opened_count.fetch_add(1, Ordering::SeqCst);
                    Ok(Counted(&open_count))
                });
                drop((entrance, handle.unwrap()));
            }
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(come_and_go);
            }
        });
        assert_eq!(open_count.load(Ordering::SeqCst), 0);
        assert!(opened_count.load(Ordering::SeqCst) >= 1);
    }

    #[test]
    fn who_is_alone_keeps_newcomers_waiting() {
        block_on(async {
            let stores = OpenStores::new();
            let one = stores.enter(1).await.open(|| Ok(())).unwrap();
            let elsewhere = stores.enter(2).await.open(|| Ok(())).unwrap();
            assert!(elsewhere.try_alone().is_some());
            let entrance = stores.enter(1).await;
            assert!(one.try_alone().is_none(), "somebody is coming in");
            drop(entrance);
            let alone = one.try_alone().unwrap();
            assert!(one.try_alone().is_none(), "it was given already");
            assert!(poll_once(stores.enter(1)).await.is_none());
            drop(alone);
            let other = stores.enter(1).await.open(|| Ok(())).unwrap();
            assert!(one.try_alone().is_none() && other.try_alone().is_none());
        });
    }

    #[test]
    fn who_is_alone_keeps_newcomers_waiting_after_its_handle_is_gone() {
        block_on(async {
            let stores = OpenStores::new();
            let one = stores.enter(1).await.open(|| Ok(())).unwrap();
            let alone = one.try_alone().unwrap();
            drop(one);
            assert!(poll_once(stores.enter(1)).await.is_none());
            drop(stores.enter(2).await);
            assert!(poll_once(stores.enter(1)).await.is_none());
            drop(alone);
            assert!(poll_once(stores.enter(1)).await.is_some());
        });
    }

    #[test]
    fn a_handle_that_shares_its_store_with_none_is_alone_once() {
        let handle = StoreHandle::single(7);
        assert_eq!(*handle, 7);
        let alone = handle.try_alone().unwrap();
        assert!(handle.try_alone().is_none(), "it was given already");
        drop(alone);
        assert!(handle.try_alone().is_some());
    }

    #[test]
    fn what_could_not_be_opened_can_be_tried_again() {
        let stores = OpenStores::new();
        let entrance = block_on(stores.enter(1));
        let busy = || Err(Error::new(ErrorKind::Busy, Operation::Open, "a test"));
        assert!(entrance.open(busy).is_err());
        assert_eq!(*entrance.open(|| Ok(7)).unwrap(), 7);
    }
}
