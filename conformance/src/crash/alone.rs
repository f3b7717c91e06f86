//! The guard of who is alone on the double.

use std::sync::Arc;

use async_lock::{RwLock, RwLockWriteGuardArc};
use strongroom_core::storage::ExclusiveGuard;

use super::World;
use super::image::Process;

pub(super) struct Alone {
    world: Arc<World>,
    process: Process,
    gate: Arc<RwLock<()>>,
    _held: RwLockWriteGuardArc<()>,
}

impl Alone {
    pub(super) fn new(
        world: Arc<World>,
        process: Process,
        gate: Arc<RwLock<()>>,
        held: RwLockWriteGuardArc<()>,
    ) -> Self {
        Self { world, process, gate, _held: held }
    }
}

impl ExclusiveGuard for Alone {}

impl Drop for Alone {
    fn drop(&mut self) {
        let mut state = self.world.lock();
        if state.gate_held_by == Some(self.process) && Arc::ptr_eq(&state.gate, &self.gate) {
            state.gate_held_by = None;
        }
    }
}
