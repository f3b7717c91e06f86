//! The crashing double as a place, with every hook.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use strongroom_conformance::block_on;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Fault};
use strongroom_conformance::storage::{Place, work_until_killed};
use strongroom_core::storage::{Reach, Result, Storage};

/// How a handle on the double is opened, and what is done to it meanwhile.
#[async_trait]
pub(crate) trait Wrap: Send + Sync {
    /// Opens a handle: of the process that runs the suite, or of another one.
    async fn open(&self, double: CrashingStorage, whose: Whose) -> Result<Arc<dyn Storage>>;

    /// The power is about to be cut, or another process died.
    fn crashes(&self, _: &CrashingStorage, _: Crash) {}

    /// Whether each call is one call of the double, so that the next one to fail is known.
    fn is_call_for_call(&self) -> bool {
        true
    }

    /// How long the suite waits for what must come.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Whose a handle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Ours,
    AnotherProcess,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    OfThePower,
    OfAProcess,
}

/// Through something that knows nothing of all this.
#[async_trait]
impl<F: Fn(CrashingStorage) -> Arc<dyn Storage> + Send + Sync> Wrap for F {
    async fn open(&self, double: CrashingStorage, _: Whose) -> Result<Arc<dyn Storage>> {
        Ok(self(double.admitted().await?))
    }
}

/// A medium, seen through `wrap`.
pub(crate) struct Medium {
    /// Of the process that opens the handles, and none of them itself.
    double: Mutex<CrashingStorage>,
    wrap: Box<dyn Wrap>,
}

impl Medium {
    /// The double as it is.
    #[allow(dead_code)] // not every suite needs it
    pub(crate) fn new(options: CrashOptions) -> Self {
        Self::wrapped(options, |double| Arc::new(double) as Arc<dyn Storage>)
    }

    /// The double through something else.
    pub(crate) fn wrapped(options: CrashOptions, wrap: impl Wrap + 'static) -> Self {
        let double = CrashingStorage::new(options);
        double.close();
        Self { double: Mutex::new(double), wrap: Box::new(wrap) }
    }

    pub(crate) fn double(&self) -> MutexGuard<'_, CrashingStorage> {
        let mut double = self.double.lock().unwrap();
        if double.is_dead() {
            let reborn = double.reopen();
            reborn.close();
            *double = reborn;
        }
        double
    }
}

#[async_trait]
impl Place for Medium {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        let double = self.double().another();
        self.wrap.open(double, Whose::Ours).await
    }

    fn reach(&self) -> Reach {
        Reach::Everywhere
    }

    fn patience(&self) -> Duration {
        self.wrap.patience()
    }

    fn power_loss(&self, seed: u64) -> bool {
        let double = self.double();
        self.wrap.crashes(&double, Crash::OfThePower);
        double.crash(seed);
        true
    }

    fn process_death(&self, rounds: u64) -> Option<u64> {
        let doomed = self.double().reopen();
        let killer = doomed.another();
        killer.close();
        let mut acknowledged = 0;
        // A call further for each, so that each of a round is the last one once.
        let kill_in_time = |acknowledged| {
            if acknowledged == rounds {
                killer.cut_off_after(rounds, Fault::LostRequest);
            }
        };
        kill_in_time(0);
        let death = block_on(async {
            let storage = self.wrap.open(doomed, Whose::AnotherProcess).await?;
            work_until_killed(&*storage, || {
                acknowledged += 1;
                kill_in_time(acknowledged);
            })
            .await
        });
        assert!(death.is_err() && acknowledged >= rounds, "{acknowledged} rounds, then {death:?}");
        self.wrap.crashes(&killer, Crash::OfAProcess);
        Some(acknowledged)
    }

    fn lose_next_reply(&self) -> bool {
        if !self.wrap.is_call_for_call() {
            return false;
        }
        self.double().fail_call(1, Fault::LostReply);
        true
    }
}
