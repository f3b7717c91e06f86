//! The wrappers break no clause by themselves: idle ones pass the suite, and so does one that is only slow.

#![allow(clippy::unwrap_used)] // a test may

mod medium;

use std::sync::Arc;

use async_trait::async_trait;
use medium::{Medium, Whose, Wrap};
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::discarding::{DiscardingStorage, Keep};
use strongroom_conformance::flaky::{FlakyOptions, FlakyStorage, Rate, Rates};
use strongroom_conformance::hostile::{HostileOptions, HostileStorage};
use strongroom_core::storage::{Result, Storage};

struct Over<F>(F);

#[async_trait]
impl<F: Fn(Arc<dyn Storage>) -> Arc<dyn Storage> + Send + Sync> Wrap for Over<F> {
    async fn open(&self, double: CrashingStorage, _: Whose) -> Result<Arc<dyn Storage>> {
        Ok((self.0)(Arc::new(double.admitted().await?)))
    }

    /// Some look before they change something.
    fn is_call_for_call(&self) -> bool {
        false
    }
}

fn wrapped(wrap: impl Fn(Arc<dyn Storage>) -> Arc<dyn Storage> + Send + Sync + 'static) -> Medium {
    Medium::wrapped(CrashOptions::default(), Over(wrap))
}

fn slow() -> Medium {
    let rates = Rates { slow: Rate::per_mille(100), ..Rates::default() };
    let options = FlakyOptions { seed: 1, rates, ..FlakyOptions::default() };
    let flaky = FlakyStorage::new(Arc::new(CrashingStorage::new(CrashOptions::default())), options);
    wrapped(move |inner| Arc::new(flaky.over(inner)))
}

// All that the double itself is tried for: its batches are sequential. No reply is lost.
mod flaky_but_idle {
    use super::*;
    strongroom_conformance::storage_conformance!(wrapped(|inner| Arc::new(FlakyStorage::new(
        inner,
        FlakyOptions::default()
    ))), limited: [8, 11]);
}

mod slow {
    use super::*;
    strongroom_conformance::storage_conformance!(slow(), limited: [8, 11]);
}

mod hostile_but_idle {
    use super::*;
    strongroom_conformance::storage_conformance!(wrapped(|inner| Arc::new(HostileStorage::new(
        inner,
        HostileOptions::default()
    ))), limited: [8, 11]);
}

mod discarding_nothing {
    use super::*;
    strongroom_conformance::storage_conformance!(wrapped(|inner| Arc::new(DiscardingStorage::new(
        inner,
        Arc::new(|_, _| Keep::Content)
    ))), limited: [8, 11]);
}
