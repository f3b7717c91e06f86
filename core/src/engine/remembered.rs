//! What a transaction saw and wrote, kept beyond its commit.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::root::{Overlay, Root};
use super::shared::{Appending, Pin, Shared};
use super::view::{Scan, View, table_range};
use super::{ChunkNumber, Table};
use crate::Result;
use crate::format::rows::{self, Place};
use crate::tree::Direction;

/// A transaction as it was at one moment, for reading, whatever has become of it: see
/// [`super::Transaction::remember`]. What it had written into blocks stays readable while this is held.
pub struct Remembered {
    pub(super) shared: Arc<Shared>,
    pub(super) root: Arc<Root>,
    pub(super) pin: Arc<Pin>,
    pub(super) content: Overlay,
    /// Where the chunks are that it had made, or healed, and under which epoch.
    pub(super) made: BTreeMap<Bytes, Place>,
    pub(super) epoch: Option<u32>,
    pub(super) _appending: Option<Arc<Appending>>,
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl View for Remembered {
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let key = rows::table_key(table.0, key);
        match self.content.get(&key) {
            Some(value) => Ok(value),
            None => self.shared.get_at(&self.root, &key).await,
        }
    }

    fn scan(&self, table: Table, range: (Bound<&[u8]>, Bound<&[u8]>), direction: Direction) -> Scan {
        let range = table_range(table.0, range);
        Scan::new(self.shared.clone(), self.pin.clone(), self.root.content.tree, self.content.clone(), range, direction)
    }

    async fn chunk(&self, number: ChunkNumber) -> Result<Bytes> {
        match self.made.get(&rows::chunk_key(number.0)) {
            Some(place) => self.shared.own_payload(self.epoch, place).await,
            None => self.shared.chunk_at(&self.root, number.0).await,
        }
    }
}
