//! The doubles are storages themselves: they pass what they help to test, power loss included.

use std::sync::Arc;

use async_trait::async_trait;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::storage::Place;
use strongroom_core::storage::{Result, Storage};

struct Medium(CrashingStorage);

impl Medium {
    fn new(options: CrashOptions) -> Self {
        let storage = CrashingStorage::new(options);
        // Its own handle must not count as one that is open.
        storage.process_kill();
        Self(storage)
    }
}

#[async_trait]
impl Place for Medium {
    async fn open(&self) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.0.reopen()))
    }

    fn power_loss(&self, seed: u64) -> bool {
        self.0.crash(seed);
        true
    }
}

mod like_a_folder {
    use super::*;
    strongroom_conformance::storage_conformance!(Medium::new(CrashOptions::default()));
}

mod like_a_database {
    use super::*;
    strongroom_conformance::storage_conformance!(Medium::new(CrashOptions::atomic()));
}

mod like_an_object_store {
    use super::*;
    strongroom_conformance::storage_conformance!(Medium::new(CrashOptions::object_store()));
}

#[test]
#[should_panic(expected = "left == right")]
fn barriers_that_lie_are_found_out() {
    let medium = Medium::new(CrashOptions::default());
    medium.0.lying_sync(true);
    strongroom_conformance::block_on(strongroom_conformance::storage::s9_barriers_protect_what_was_acknowledged(
        &medium,
    ));
}
