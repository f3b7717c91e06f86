//! What a single writer needs where the server decides nothing: those of this process who put one name come one after the
//! other; and of a put of unknown effect it is remembered what it put.
//!
//! For such a put may still arrive, from somewhere on the way, and it would write over whatever was put under the name since. So
//! whoever puts something else there finds that the earlier put has taken effect: it is sent again first. A server that keeps
//! conditions would have let one of the two win as well.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard as Guard, OnceLock, PoisonError};

use bytes::Bytes;
use strongroom_core::storage::Name;
use tokio::sync::MutexGuard;

/// Among how many locks the names are spread.
const TURNS: usize = 64;

/// So much is remembered of puts that nobody knows the effect of. Most are settled at once, by the retry layer.
const LATE_BYTES_MAX: usize = 64 << 20;

/// Of all storages of this process that are for a single writer.
#[derive(Clone, Debug)]
pub(crate) struct Alone {
    turns: Arc<[tokio::sync::Mutex<()>]>,
    late: Arc<Mutex<VecDeque<Late>>>,
}

#[derive(Debug)]
struct Late {
    /// The whole address of the object.
    address: String,
    bytes: Bytes,
}

impl Alone {
    /// That of this process, for as long as it lives: whoever closes a storage after an error and opens it again is still threatened
    /// by what it had sent.
    pub(crate) fn shared() -> Self {
        static SHARED: OnceLock<Alone> = OnceLock::new();
        SHARED.get_or_init(Self::new).clone()
    }

    fn new() -> Self {
        Self { turns: (0..TURNS).map(|_| tokio::sync::Mutex::new(())).collect(), late: Arc::default() }
    }

    /// Waits for those who put this name.
    pub(crate) async fn turn(&self, name: Name) -> Option<MutexGuard<'_, ()>> {
        let place = usize::from(name.as_bytes()[0]) % TURNS;
        match self.turns.get(place) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        }
    }

    /// What may still arrive at an address.
    pub(crate) fn late(&self, address: &str) -> Option<Bytes> {
        self.lock().iter().find(|late| late.address == address).map(|late| late.bytes.clone())
    }

    /// Nobody knows whether this arrived.
    pub(crate) fn note(&self, address: String, bytes: Bytes) {
        let mut all = self.lock();
        all.retain(|late| late.address != address);
        all.push_back(Late { address, bytes });
        let mut sum: usize = all.iter().map(|late| late.bytes.len()).sum();
        while sum > LATE_BYTES_MAX {
            let Some(oldest) = all.pop_front() else { break };
            sum -= oldest.bytes.len();
        }
    }

    /// It has arrived.
    pub(crate) fn settle(&self, address: &str) {
        self.lock().retain(|late| late.address != address);
    }

    fn lock(&self) -> Guard<'_, VecDeque<Late>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_arrive_late_is_remembered_until_it_has_within_a_bound() {
        let alone = Alone::new();
        let bytes = Bytes::from(vec![0; 4 << 20]);
        alone.note("a".to_owned(), Bytes::from_static(b"1"));
        assert_eq!(alone.late("a").unwrap(), "1");
        assert_eq!(alone.late("b"), None);
        alone.settle("a");
        assert_eq!(alone.late("a"), None);
        for number in 0..17 {
            alone.note(number.to_string(), bytes.clone());
            alone.note(number.to_string(), bytes.clone());
        }
        assert_eq!(alone.lock().len(), 16);
        assert!(alone.late("0").is_none() && alone.late("16").is_some());
    }
}
