//! The wrappers break no clause by themselves: idle ones pass the suite, and so does one that is only slow.

#![allow(clippy::unwrap_used)] // a test may

mod medium;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use medium::{Medium, Whose, Wrap};
use strongroom_conformance::between::{Before, Between};
use strongroom_conformance::block_on;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::discarding::{DiscardingStorage, Keep};
use strongroom_conformance::flaky::{FlakyOptions, FlakyStorage, Rate, Rates};
use strongroom_conformance::hostile::{HostileOptions, HostileStorage};
use strongroom_conformance::power::Files;
use strongroom_conformance::storage::{Place, s11_errors_say_what_happened, sample_bytes, sample_name};
use strongroom_core::layer::ReadOnly;
use strongroom_core::storage::{Name, Operation, Reach, Result, Storage};

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

/// A medium that is read through a wrapper, such as the layer of core, and changed beside it.
struct Looked(Medium, fn(Arc<dyn Storage>) -> Arc<dyn Storage>);

impl Looked {
    fn through(wrap: fn(Arc<dyn Storage>) -> Arc<dyn Storage>) -> Self {
        Self(Medium::new(CrashOptions::atomic()), wrap)
    }
}

#[async_trait]
impl Place for Looked {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        Ok((self.1)(self.0.open().await?))
    }

    async fn open_writer(&self) -> Result<Option<Arc<dyn Storage>>> {
        Ok(Some(self.0.open().await?))
    }

    fn reach(&self) -> Reach {
        self.0.reach()
    }

    fn patience(&self) -> Duration {
        self.0.patience()
    }

    fn power_loss(&self, seed: u64) -> bool {
        self.0.power_loss(seed)
    }

    fn process_death(&self, rounds: u64) -> Option<u64> {
        self.0.process_death(rounds)
    }

    fn lose_next_reply(&self) -> bool {
        self.0.lose_next_reply()
    }
}

// Barriers through it are worth what they are without it. Beside somebody who writes nobody is alone.
mod read_only {
    use super::*;
    strongroom_conformance::storage_conformance!(
        Looked::through(|storage| Arc::new(ReadOnly::new(storage))),
        limited: [14]
    );
}

#[test]
fn a_handle_that_changes_what_it_is_only_to_read_breaks_a_clause() {
    let breach = block_on(s11_errors_say_what_happened(&Looked::through(|storage| storage))).unwrap_err();
    assert_eq!(breach.to_string(), "Put through a handle that can only read succeeded");
}

#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Before for Nothing {
    async fn before(&self, _: Operation, _: Option<Name>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn how_much_room_is_left_is_passed_on() {
    block_on(async {
        let double = CrashingStorage::new(CrashOptions::default());
        assert_eq!(double.available_bytes().await.unwrap(), None, "nothing bounds it");
        double.set_capacity(Some(10_000));
        double.put(sample_name(1), sample_bytes(1, 1000)).await.unwrap();
        let inner: Arc<dyn Storage> = Arc::new(double.another());
        let files = Files::new(tempfile::tempdir().unwrap().path()).unwrap();
        let wrapped: [Arc<dyn Storage>; 6] = [
            inner.clone(),
            Arc::new(Between::new(double, Nothing)),
            Arc::new(FlakyStorage::new(inner.clone(), FlakyOptions::default())),
            Arc::new(HostileStorage::new(inner.clone(), HostileOptions::default())),
            Arc::new(DiscardingStorage::new(inner.clone(), Arc::new(|_, _| Keep::Content))),
            files.watch(inner.clone()),
        ];
        for storage in wrapped {
            assert_eq!(storage.available_bytes().await.unwrap(), Some(9_000), "{storage:?}");
        }
        inner.delete(sample_name(1)).await.unwrap();
        assert_eq!(inner.available_bytes().await.unwrap(), Some(10_000));
    });
}
