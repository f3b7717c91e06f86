use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_lock::{RwLock, RwLockWriteGuardArc};

/// Counts who uses one handle of a storage. A lock of the medium tells one handle from another, and nothing of those who
/// share a handle: two engines on one would each take itself for alone there, and delete what the other needs.
///
/// A storage that gives exclusive access makes one for each handle that it opens, by `Arc::default()`, and answers it from
/// [`super::Storage::occupancy`]. It asks it nothing.
///
/// Where blobs may come and go by other ways than through this storage, as files do that a sync client carries from one machine to
/// the next, exclusive access to one such place proves nothing of the others: then it is made by [`Occupancy::at`].
#[derive(Debug, Default)]
pub struct Occupancy {
    place: Option<Vec<u8>>,
    occupants: AtomicUsize,
    /// Coming in reads it, whoever is alone writes it: so newcomers wait meanwhile.
    gate: Arc<RwLock<()>>,
}

/// One who uses the handle, until it is dropped.
#[derive(Debug)]
pub struct Occupant(Arc<Occupancy>);

/// Keeps newcomers waiting on a handle.
#[derive(Debug)]
pub struct OnlyOccupant {
    _gate: RwLockWriteGuardArc<()>,
}

impl Occupancy {
    /// Of a handle at one of several places where the same blobs may be. `place`: any bytes that tell it from the others, the same
    /// each time that it is opened.
    #[must_use]
    pub fn at(place: Vec<u8>) -> Self {
        Self { place: Some(place), ..Self::default() }
    }

    /// The place that exclusive access is a proof for; none where it is one for everybody.
    #[must_use]
    pub fn place(&self) -> Option<&[u8]> {
        self.place.as_deref()
    }

    /// Comes in; waits while the only one who is in has the storage for itself.
    pub async fn enter(self: &Arc<Self>) -> Occupant {
        let _open = self.gate.read().await;
        self.occupants.fetch_add(1, Ordering::SeqCst);
        Occupant(self.clone())
    }

    /// Whether no more than one is in; then nobody comes in while the answer lives.
    #[must_use]
    pub fn try_alone(&self) -> Option<OnlyOccupant> {
        let gate = self.gate.try_write_arc()?;
        (self.occupants.load(Ordering::SeqCst) <= 1).then_some(OnlyOccupant { _gate: gate })
    }
}

impl Drop for Occupant {
    fn drop(&mut self) {
        self.0.occupants.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn of_two_nobody_is_alone_and_a_newcomer_waits_for_the_one_who_is() {
        block_on(async {
            let occupancy = Arc::<Occupancy>::default();
            let first = occupancy.enter().await;
            let second = occupancy.enter().await;
            assert!(occupancy.try_alone().is_none());
            drop(first);
            let alone = occupancy.try_alone().unwrap();
            assert!(occupancy.try_alone().is_none());
            assert!(poll_once(occupancy.enter()).await.is_none());
            drop(alone);
            drop(occupancy.enter().await);
            drop(second);
            assert!(occupancy.try_alone().is_some());
        });
    }
}
