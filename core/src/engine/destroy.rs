//! Deleting a repository: every blob that is its own, and nothing else.
//!
//! A blob is the repository's own if its name says so: the name cipher turns the names of blocks into what they are, and
//! only the holder of the key can tell. What is not understood is kept. The headers go last, so that a destruction that was
//! cut short can be taken up again with the same credentials; what is left meanwhile opens for nothing else.

use std::sync::Arc;

use super::in_force;
use super::keyring;
use super::{Engine, Unlock};
use crate::crypto::Keys;
use crate::env::Env;
use crate::format::BlockId;
use crate::format::well_known::{HeaderId, is_hint_name};
use crate::storage::{self, Change, ErrorKind, Name, Operation, Storage, StorageExt};
use crate::{Error, Result};

/// Deleted with one call.
const BATCH_NAMES_MAX: usize = 1_000;
/// How often it is looked again for what another writer put meanwhile.
const LOOKS_MAX: u32 = 4;

/// What a destruction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destroyed {
    /// Blobs of the repository that were deleted.
    pub deleted_count: u64,
    /// Blobs that are not the repository's, and were left.
    pub left_count: u64,
}

impl Engine {
    /// Deletes every blob of a repository, and no other, and what the storage made to keep them in. It takes the right to open it, not that it is intact.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::WrongCredentials`]; a storage error of the kind [`ErrorKind::Busy`] where others
    /// use it, as far as the storage can tell; [`Error::Invalid`] where headers of another repository are there too: none
    /// of these deletes anything. What the storage raises: what was deleted before stays so, and the same call goes on.
    pub async fn destroy(storage: Arc<dyn Storage>, env: Env, unlock: Unlock<'_>) -> Result<Destroyed> {
        let headers = keyring::read_headers(&storage).await?;
        let opened = in_force::open_newest(&env, &headers, unlock).await?;
        let repository = *opened.header.repository();
        if headers.headers().iter().any(|header| *header.repository() != repository) {
            return Err(Error::Invalid("headers of another repository are here too: nothing was deleted".to_owned()));
        }
        let guard = storage.try_exclusive().await?;
        if guard.is_none() && !storage.is_remote() {
            let context = "the repository to delete it, which others use: nothing was deleted";
            return Err(storage::Error::new(ErrorKind::Busy, Operation::TryExclusive, context).into());
        }
        let keys = Keys::from_root(opened.header.suite(), repository, &opened.root, &[]);
        let mut destroyed = Destroyed::default();
        for _ in 0..LOOKS_MAX {
            let mut blocks = Vec::new();
            let mut well_known = Vec::new();
            destroyed.left_count = 0;
            for name in storage.list_all(&[]).await? {
                let bytes = name.as_bytes();
                if HeaderId::from_name(bytes).is_some() || is_hint_name(bytes) {
                    well_known.push(name);
                } else if BlockId::decode(&keys.decrypt_name(*bytes)).is_some() {
                    blocks.push(name);
                } else {
                    destroyed.left_count += 1;
                }
            }
            if blocks.is_empty() && well_known.is_empty() {
                break;
            }
            // Hints sort behind headers.
            well_known.reverse();
            for names in [blocks, well_known] {
                delete(&storage, &names).await?;
                // What goes first must not come back after a loss of power, when nothing is there to know it by.
                storage.sync().await?;
                destroyed.deleted_count += names.len() as u64;
            }
        }
        // Others may begin to use what they had found meanwhile, where nothing keeps them out.
        if guard.is_some() {
            storage.vacate().await?;
        }
        Ok(destroyed)
    }
}

pub(super) async fn delete(storage: &Arc<dyn Storage>, names: &[Name]) -> Result<()> {
    for names in names.chunks(BATCH_NAMES_MAX) {
        storage.apply(names.iter().map(|name| Change::Delete(*name)).collect()).await?;
    }
    Ok(())
}
