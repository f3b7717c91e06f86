use async_trait::async_trait;
use bytes::Bytes;

use super::{Cache, Load, Part, SingleFlight, Usage};
use crate::storage::{Name, Result};

/// Holds nothing; even so, one load serves concurrent misses.
#[derive(Debug, Default)]
pub struct NoCache {
    flights: SingleFlight,
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Cache for NoCache {
    async fn get(&self, _: Name, _: Part) -> Option<Bytes> {
        None
    }

    async fn insert(&self, _: Name, _: Part, _: Bytes) {}

    async fn remove(&self, name: Name) {
        self.flights.revoke(name);
    }

    async fn fetch(&self, name: Name, part: Part, load: Load<'_>) -> Result<Bytes> {
        let turn = self.flights.enter(name, part).await;
        if let Some(bytes) = turn.landed() {
            return Ok(bytes);
        }
        let bytes = load.await?;
        turn.land(bytes.clone(), || {});
        Ok(bytes)
    }

    async fn usage(&self) -> Usage {
        Usage::default()
    }
}
