//! What one state takes by itself: the chunks that its rows refer to, each counted once, whatever else refers to them.

use std::collections::HashSet;

use super::difference::{Change, References};
use super::view::Snapshot;
use crate::Result;
use crate::format::rows::{self, Place};

/// What a state takes; what several states share is in the figures of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Chunks, each counted once.
    pub chunks: u64,
    /// Bytes of their payloads, as they were given: compressed, where who gave them did that.
    pub chunk_bytes: u64,
    /// Bytes that their records take, sealed. What blocks hold beside them, and nodes of trees, is not counted.
    pub live_bytes: u64,
}

impl Snapshot {
    /// Counts the chunks that the rows of this state refer to. Costs a look at all rows of it and at those of the chunks, and
    /// a few dozen bytes of memory for each; no content is read.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`] and [`crate::Error::Expired`]; what the storage and `references` raise.
    pub async fn footprint(&self, references: &dyn References) -> Result<Footprint> {
        let mut chunks = HashSet::new();
        let mut content = self.rows();
        while let Some(Change { table, key, after, .. }) = content.next().await? {
            if let Some(value) = after {
                chunks.extend(references.chunks_of(self, table, &key, &value).await?);
            }
        }
        let mut chunks: Vec<_> = chunks.into_iter().collect();
        // In the order of their rows.
        chunks.sort_unstable();
        let mut footprint = Footprint::default();
        for number in chunks {
            let place = self.shared().chunk_row(self.root(), number.0).await?.place;
            footprint.chunks += 1;
            footprint.chunk_bytes = footprint.chunk_bytes.saturating_add(place.payload_bytes());
            if let Place::Records(pointers) = &place {
                let taken = pointers.iter().map(rows::live_bytes).fold(0, u64::saturating_add);
                footprint.live_bytes = footprint.live_bytes.saturating_add(taken);
            }
        }
        Ok(footprint)
    }
}
