use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;

use super::{ErrorKind, ListOrder, Name, Result, Storage};

/// What users of a storage want on top of the small trait; every storage has it.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait StorageExt: Storage {
    /// The whole blob, at most `max_bytes` long.
    ///
    /// # Errors
    /// As [`Storage::get`].
    async fn get_all(&self, name: Name, max_bytes: u64) -> Result<Bytes> {
        self.get(name, None, max_bytes).await
    }

    /// Whether a blob of that name is there.
    ///
    /// # Errors
    /// What the medium raises.
    async fn exists(&self, name: Name) -> Result<bool> {
        match self.size(name).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every name with the prefix, all pages together, each once.
    ///
    /// # Errors
    /// As [`Storage::list`].
    async fn list_all(&self, prefix: &[u8]) -> Result<BTreeSet<Name>> {
        let mut names = BTreeSet::new();
        let mut after = None;
        loop {
            let (page, is_last) = self.list_page(prefix, after).await?;
            let last = page.iter().max().copied();
            names.extend(page);
            // A hostile storage could page for ever: going on needs a larger last name.
            if is_last || self.capabilities().list_order == ListOrder::Unordered || last.is_none() || last <= after {
                return Ok(names);
            }
            after = last;
        }
    }
}

impl<T: Storage + ?Sized> StorageExt for T {}
