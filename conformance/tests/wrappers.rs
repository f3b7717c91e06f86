//! The wrappers break no clause by themselves: idle ones pass the suite, and so does one that is only slow.

use std::sync::Arc;

use async_trait::async_trait;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::discarding::{DiscardingStorage, Keep};
use strongroom_conformance::flaky::{FlakyOptions, FlakyStorage, Rate, Rates};
use strongroom_conformance::hostile::{HostileOptions, HostileStorage};
use strongroom_conformance::storage::Place;
use strongroom_core::storage::{Result, Storage};

type Wrap = Box<dyn Fn(Arc<dyn Storage>) -> Arc<dyn Storage> + Send + Sync>;

struct Wrapped {
    medium: CrashingStorage,
    wrap: Wrap,
}

impl Wrapped {
    fn new(wrap: impl Fn(Arc<dyn Storage>) -> Arc<dyn Storage> + Send + Sync + 'static) -> Self {
        let medium = CrashingStorage::new(CrashOptions::default());
        // Its own handle must not count as one that is open.
        medium.process_kill();
        Self { medium, wrap: Box::new(wrap) }
    }

    fn slow() -> Self {
        let rates = Rates { slow: Rate::per_mille(100), ..Rates::default() };
        let options = FlakyOptions { seed: 1, rates, ..FlakyOptions::default() };
        let flaky = FlakyStorage::new(Arc::new(CrashingStorage::new(CrashOptions::default())), options);
        Self::new(move |inner| Arc::new(flaky.over(inner)))
    }
}

#[async_trait]
impl Place for Wrapped {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        Ok((self.wrap)(Arc::new(self.medium.reopen())))
    }

    fn power_loss(&self, seed: u64) -> bool {
        self.medium.crash(seed);
        true
    }
}

mod flaky_but_idle {
    use super::*;
    strongroom_conformance::storage_conformance!(Wrapped::new(|inner| Arc::new(FlakyStorage::new(
        inner,
        FlakyOptions::default()
    ))));
}

mod slow {
    use super::*;
    strongroom_conformance::storage_conformance!(Wrapped::slow());
}

mod hostile_but_idle {
    use super::*;
    strongroom_conformance::storage_conformance!(Wrapped::new(|inner| Arc::new(HostileStorage::new(
        inner,
        HostileOptions::default()
    ))));
}

mod discarding_nothing {
    use super::*;
    strongroom_conformance::storage_conformance!(Wrapped::new(|inner| Arc::new(DiscardingStorage::new(
        inner,
        Arc::new(|_, _| Keep::Content)
    ))));
}
