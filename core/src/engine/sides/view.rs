//! Several places as one storage, as one side of a fork sees them. It changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::is_header;
use crate::storage::bounds::{check_range, not_found};
use crate::storage::{
    Capabilities, Error, ErrorKind, ListOrder, Name, Operation, Put, Result, Storage, StorageExt as _,
};

/// Which names each place has, as they were when they were listed.
#[derive(Debug)]
pub(super) struct Contents {
    places: Vec<Arc<dyn Storage>>,
    names: BTreeMap<Name, BTreeSet<usize>>,
}

impl Contents {
    pub(super) async fn list(places: Vec<Arc<dyn Storage>>) -> Result<Self> {
        let mut names: BTreeMap<Name, BTreeSet<usize>> = BTreeMap::new();
        for (number, place) in places.iter().enumerate() {
            for name in place.list_all(&[]).await? {
                names.entry(name).or_default().insert(number);
            }
        }
        Ok(Self { places, names })
    }

    pub(super) fn places(&self) -> &[Arc<dyn Storage>] {
        &self.places
    }

    pub(super) fn names(&self) -> impl Iterator<Item = Name> {
        self.names.keys().copied()
    }

    pub(super) fn names_in(&self, place: usize) -> impl Iterator<Item = Name> {
        self.names.iter().filter(move |(_, places)| places.contains(&place)).map(|(name, _)| *name)
    }
}

/// Where names are not to be looked for in the first place that has them: in which instead.
pub(super) type Choice = BTreeMap<Name, usize>;

#[derive(Clone, Debug)]
pub(super) struct SideView {
    contents: Arc<Contents>,
    /// Names that are looked for nowhere unless they were chosen; the same for all sides.
    unless_chosen: Arc<BTreeSet<Name>>,
    choice: Arc<Choice>,
    /// What is there besides, in memory.
    own: Arc<BTreeMap<Name, Bytes>>,
    /// How long a blob is that is whole: what is shorter in one place may be whole in another.
    block_bytes: Option<u64>,
}

impl SideView {
    pub(super) fn new(contents: Arc<Contents>, unless_chosen: Arc<BTreeSet<Name>>, choice: Choice) -> Self {
        Self { contents, unless_chosen, choice: Arc::new(choice), own: Arc::default(), block_bytes: None }
    }

    /// Of blobs of this length.
    pub(super) fn of_length(self, block_bytes: u64) -> Self {
        Self { block_bytes: Some(block_bytes), ..self }
    }

    /// With the headers of one place, as far as it has any; none where it has not.
    pub(super) fn with_headers_of(&self, place: usize) -> Option<Self> {
        let headers: Vec<Name> = self.contents.names_in(place).filter(|name| is_header(*name)).collect();
        if headers.is_empty() {
            return None;
        }
        let mut choice = (*self.choice).clone();
        choice.extend(headers.into_iter().map(|name| (name, place)));
        Some(Self { choice: Arc::new(choice), ..self.clone() })
    }

    /// With a blob that is in none of the places.
    pub(super) fn with_blob(&self, name: Name, bytes: Bytes) -> Self {
        let mut own = (*self.own).clone();
        own.insert(name, bytes);
        Self { own: Arc::new(own), ..self.clone() }
    }

    async fn find(&self, operation: Operation, name: Name) -> Result<&Arc<dyn Storage>> {
        let place = match (self.choice.get(&name), self.contents.names.get(&name)) {
            (Some(chosen), _) => Some(*chosen),
            (None, Some(places)) if !self.unless_chosen.contains(&name) => self.first_whole(name, places).await,
            (None, _) => None,
        };
        place.and_then(|place| self.contents.places.get(place)).ok_or_else(|| not_found(operation, name))
    }
}

impl SideView {
    async fn first_whole(&self, name: Name, places: &BTreeSet<usize>) -> Option<usize> {
        if places.len() > 1 {
            for place in places {
                let storage = self.contents.places.get(*place)?;
                if self.block_bytes.is_some() && storage.size(name).await.ok() == self.block_bytes {
                    return Some(*place);
                }
            }
        }
        places.first().copied()
    }
}

fn refused<T>(operation: Operation) -> Result<T> {
    Err(Error::new(ErrorKind::ReadOnly, operation, "one side of a fork")
        .with_source("it is for reading alone: clone it to another place, and write there"))
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Storage for SideView {
    fn capabilities(&self) -> Capabilities {
        let first = self.contents.places.first().map(|place| place.capabilities());
        Capabilities { list_order: ListOrder::Ascending, ..first.unwrap_or(EMPTY) }
    }

    async fn put(&self, _: Name, _: Bytes) -> Result<Put> {
        refused(Operation::Put)
    }

    async fn put_durable(&self, _: Name, _: Bytes) -> Result<Put> {
        refused(Operation::PutDurable)
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        if let Some(bytes) = self.own.get(&name) {
            let range = check_range(name, range, bytes.len() as u64, max_bytes)?;
            let part = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
            return part
                .and_then(|(start, end)| (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end)))
                .ok_or_else(|| not_found(Operation::Get, name));
        }
        self.find(Operation::Get, name).await?.get(name, range, max_bytes).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        match self.own.get(&name) {
            Some(bytes) => Ok(bytes.len() as u64),
            None => self.find(Operation::Size, name).await?.size(name).await,
        }
    }

    async fn delete(&self, _: Name) -> Result<()> {
        refused(Operation::Delete)
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let is_asked = |name: &Name| name.as_bytes().starts_with(prefix) && after.is_none_or(|after| *name > after);
        let is_there = |name: &Name| self.choice.contains_key(name) || !self.unless_chosen.contains(name);
        let mut names: BTreeSet<Name> = self.contents.names().filter(is_there).collect();
        names.extend(self.own.keys());
        Ok(names.into_iter().filter(is_asked).collect())
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// What is there was put by others, long ago.
    async fn persist(&self, _: &[Name]) -> Result<()> {
        Ok(())
    }
}

/// Of no place at all.
const EMPTY: Capabilities = Capabilities {
    reach: crate::storage::Reach::Host,
    durability: crate::storage::Durability::None,
    torn: crate::storage::Torn::Never,
    batch: crate::storage::BatchSupport::Sequential,
    list_order: ListOrder::Ascending,
    range_reads: crate::storage::RangeReads::Native,
    block_bytes_best: 4096,
    block_bytes_max: 4 << 20,
};
