//! Single flight: who misses what another is loading waits for that load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_lock::{Mutex as AsyncMutex, MutexGuardArc};
use bytes::Bytes;

use super::Part;
use crate::storage::Name;

/// The loads that are under way: for the makers of caches.
///
/// ```text
/// let turn = flights.enter(name, part).await;
/// if let Some(bytes) = turn.landed() { return Ok(bytes) }       // another loaded it while we waited
/// if let Some(bytes) = look into the cache { return Ok(bytes) } // or before we came
/// let bytes = load.await?;
/// turn.land(bytes.clone(), || insert into the cache);
/// ```
#[derive(Debug, Default)]
pub struct SingleFlight {
    flying: Arc<Mutex<Flying>>,
}

type Flying = HashMap<(Name, Part), Flight>;

/// What those share who want one part.
#[derive(Clone, Debug)]
struct Flight {
    /// Held by who loads, filled when it has landed.
    answer: Arc<AsyncMutex<Option<Bytes>>>,
    revoked: Arc<AtomicBool>,
    users: usize,
}

// Each change of the map is a single assignment or insertion: no panic leaves it half done.
fn lock(flying: &Mutex<Flying>) -> MutexGuard<'_, Flying> {
    flying.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SingleFlight {
    /// Waits until nobody else loads this part. Dropping the turn, or this future, lets the next one load.
    pub async fn enter(&self, name: Name, part: Part) -> Turn {
        let key = (name, part);
        let (answer, revoked) = {
            let mut flying = lock(&self.flying);
            let flight = flying.entry(key).or_insert_with(|| Flight {
                answer: Arc::default(),
                revoked: Arc::default(),
                users: 0,
            });
            flight.users = flight.users.saturating_add(1);
            (flight.answer.clone(), flight.revoked.clone())
        };
        let ticket = Ticket { flying: self.flying.clone(), key, revoked };
        Turn { answer: answer.lock_arc().await, ticket }
    }

    /// What is being loaded of this name is not to be kept, and whoever comes from now on loads anew.
    pub fn revoke(&self, name: Name) {
        self.revoke_and(name, || {});
    }

    /// As [`SingleFlight::revoke`], and runs `also` before anyone can land or enter.
    pub fn revoke_and(&self, name: Name, also: impl FnOnce()) {
        let mut flying = lock(&self.flying);
        flying.retain(|(of, _), flight| {
            if *of == name {
                flight.revoked.store(true, Ordering::SeqCst);
            }
            *of != name
        });
        also();
    }

    /// Runs something while nobody enters, lands or revokes.
    pub fn alone(&self, what: impl FnOnce()) {
        let _flying = lock(&self.flying);
        what();
    }
}

/// The right to load a part.
#[derive(Debug)]
pub struct Turn {
    answer: MutexGuardArc<Option<Bytes>>,
    ticket: Ticket,
}

impl Turn {
    /// What another has loaded while this one waited.
    #[must_use]
    pub fn landed(&self) -> Option<Bytes> {
        self.answer.clone()
    }

    /// Hands the bytes to those who wait, and runs `keep` unless the name was revoked since this turn was entered. No
    /// revocation passes between the look and the end of `keep`.
    pub fn land(mut self, bytes: Bytes, keep: impl FnOnce()) {
        {
            let _flying = lock(&self.ticket.flying);
            if !self.is_revoked() {
                keep();
            }
        }
        *self.answer = Some(bytes);
    }

    /// Whether the name was revoked since this turn was entered: for caches that cannot insert within
    /// [`Turn::land`], and take out again what they should not have inserted.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.ticket.revoked.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct Ticket {
    flying: Arc<Mutex<Flying>>,
    key: (Name, Part),
    revoked: Arc<AtomicBool>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut flying = lock(&self.flying);
        let Some(flight) = flying.get_mut(&self.key) else { return };
        // After a revocation another flight may be there in its place.
        if !Arc::ptr_eq(&flight.revoked, &self.revoked) {
            return;
        }
        flight.users = flight.users.saturating_sub(1);
        if flight.users == 0 {
            flying.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    const NAME: Name = Name::new([1; 16]);

    #[test]
    fn those_who_wait_get_what_landed_and_nothing_stays_behind() {
        block_on(async {
            let flights = SingleFlight::default();
            let turn = flights.enter(NAME, Part::Whole).await;
            let mut waiting = Box::pin(flights.enter(NAME, Part::Whole));
            assert!(poll_once(&mut waiting).await.is_none());
            turn.land("x".into(), || {});
            assert_eq!(waiting.await.landed().unwrap(), "x");
            assert!(lock(&flights.flying).is_empty());
            assert_eq!(flights.enter(NAME, Part::Whole).await.landed(), None);
        });
    }

    #[test]
    fn who_gives_up_lets_the_next_one_load() {
        block_on(async {
            let flights = SingleFlight::default();
            let turn = flights.enter(NAME, Part::Whole).await;
            let mut second = Box::pin(flights.enter(NAME, Part::Whole));
            let mut third = Box::pin(flights.enter(NAME, Part::Whole));
            assert!(poll_once(&mut second).await.is_none());
            assert!(poll_once(&mut third).await.is_none());
            drop(turn);
            drop(second);
            let turn = third.await;
            assert_eq!(turn.landed(), None);
            drop(turn);
            assert!(lock(&flights.flying).is_empty());
        });
    }

    #[test]
    fn what_was_revoked_is_not_kept_and_who_comes_later_does_not_get_it() {
        block_on(async {
            let flights = SingleFlight::default();
            let turn = flights.enter(NAME, Part::Whole).await;
            flights.revoke(NAME);
            let later = flights.enter(NAME, Part::Whole).await;
            assert!(turn.is_revoked() && !later.is_revoked());
            let mut kept = false;
            turn.land("old".into(), || kept = true);
            assert!(!kept);
            assert_eq!(later.landed(), None);
            later.land("new".into(), || kept = true);
            assert!(kept && lock(&flights.flying).is_empty());
        });
    }
}
