//! The crashing double as a place, with every hook.

use std::sync::Arc;

use async_trait::async_trait;
use strongroom_conformance::block_on;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Fault};
use strongroom_conformance::storage::{Place, work_until_killed};
use strongroom_core::storage::{Reach, Result, Storage};

/// A medium, seen through `wrap`.
pub(crate) struct Medium {
    double: CrashingStorage,
    wrap: Box<dyn Fn(CrashingStorage) -> Arc<dyn Storage> + Send + Sync>,
}

impl Medium {
    /// The double as it is.
    #[allow(dead_code)] // not every suite needs it
    pub(crate) fn new(options: CrashOptions) -> Self {
        Self::wrapped(options, |double| Arc::new(double))
    }

    /// The double through something else.
    pub(crate) fn wrapped(
        options: CrashOptions,
        wrap: impl Fn(CrashingStorage) -> Arc<dyn Storage> + Send + Sync + 'static,
    ) -> Self {
        let double = CrashingStorage::new(options);
        // Its own handle must not count as one that is open.
        double.process_kill();
        Self { double, wrap: Box::new(wrap) }
    }

    #[allow(dead_code)] // not every suite needs it
    pub(crate) fn double(&self) -> &CrashingStorage {
        &self.double
    }
}

#[async_trait]
impl Place for Medium {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        Ok((self.wrap)(self.double.reopen()))
    }

    fn reach(&self) -> Reach {
        Reach::Everywhere
    }

    fn power_loss(&self, seed: u64) -> bool {
        self.double.crash(seed);
        true
    }

    fn process_death(&self, rounds: u64) -> Option<u64> {
        let doomed = self.double.reopen();
        let killer = doomed.another();
        let mut acknowledged = 0;
        // A call further for each, so that each of a round is the last one once.
        let kill_in_time = |acknowledged| {
            if acknowledged == rounds {
                killer.cut_off_after(rounds, Fault::LostRequest);
            }
        };
        kill_in_time(0);
        let storage = (self.wrap)(doomed);
        let death = block_on(work_until_killed(&*storage, || {
            acknowledged += 1;
            kill_in_time(acknowledged);
        }));
        assert!(death.is_err() && acknowledged >= rounds, "{acknowledged} rounds, then {death:?}");
        Some(acknowledged)
    }

    fn lose_next_reply(&self) -> bool {
        self.double.fail_call(1, Fault::LostReply);
        true
    }
}
