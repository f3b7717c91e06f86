//! A header that was exported comes back: into the place of copies that are lost or damaged, and only if it is the one in
//! force.

use std::sync::Arc;

use super::in_force::{self, names};
use super::keyring::{self, CopyState, Header};
use super::{Engine, OpenOptions};
use crate::env::Env;
use crate::format::header::Features;
use crate::format::limits::HEADER_COPIES_COUNT;
use crate::storage::Storage;
use crate::{Error, Result};

/// What an import of a header met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderImport {
    /// The generation of the header.
    pub generation: u64,
    /// What each of the copies was found to be; those that were not intact were put again.
    pub found: Vec<CopyState>,
}

impl HeaderImport {
    /// How many copies were put again.
    #[must_use]
    pub fn repaired_count(&self) -> usize {
        self.found.iter().filter(|state| **state != CopyState::Intact).count()
    }
}

impl Engine {
    /// Puts copies of the header in force again where they are lost or damaged, from one that was kept elsewhere
    /// ([`Header::content`]). It must open with the credentials, and the newest commit must name it; what is intact is
    /// left alone. Works where storage has no header at all. Nothing else is written.
    ///
    /// # Errors
    /// [`Error::WrongCredentials`] or [`Error::Damaged`] where the header does not open; [`Error::RolledBack`] where the
    /// commits name another one, or where this device has seen a newer state of the repository; [`Error::Invalid`] where
    /// another repository is here; [`Error::NotARepository`] where none is; [`Error::Conflict`] where slots were changed
    /// meanwhile; what the storage raises.
    pub async fn import_header(
        storage: Arc<dyn Storage>,
        env: Env,
        header: &Header,
        options: OpenOptions<'_>,
    ) -> Result<HeaderImport> {
        let occupant = super::opening::enter(&storage).await;
        refuse_foreign(&storage, header).await?;
        if header.features().unknown() != Features::default() {
            return Err(Error::NewerFormat { detail: "it has features that only reading tolerates".into() });
        }
        let opened = in_force::open_one(&env, header, options.unlock).await?;
        // Read-only: until the header is known to be in force, there is nothing to write.
        let engine = Self::assemble_opened(storage, env, &opened, &options, true, occupant)?;
        let shared = &engine.shared;
        let (head, freshness) = engine.find_fresh_head(None, options.accept_rollback).await?;
        if !names(&head, header) {
            let (is, named) = (header.generation(), head.header_generation);
            return Err(Error::RolledBack {
                detail: format!(
                    "the header to import is of generation {is}, and the commits name another, of {named}: only an export of that one is of use"
                ),
            });
        }
        freshness?;
        // The head must not be lost after we relied on it.
        shared.persist_commit(head.sequence).await?;
        let mut import = HeaderImport { generation: header.generation(), found: Vec::new() };
        for copy in 0..HEADER_COPIES_COUNT {
            let (_, state) = keyring::verify_copy(shared.storage(), header, &opened.root, copy).await?;
            if state != CopyState::Intact {
                keyring::repair_copy(shared.storage(), header, &opened.root, copy).await?;
            }
            import.found.push(state);
        }
        // Slots may have been changed in between: what was put out of force is not to be put back.
        let head = shared.chain.find_head().await?;
        if !names(&head, header) {
            if head.header_generation > header.generation() {
                // Only once no power loss can take that change back: what went before it names this header.
                shared.persist_commit(head.sequence).await?;
                keyring::delete_header(shared.storage(), header.generation()).await?;
            }
            return Err(Error::Conflict);
        }
        Ok(import)
    }
}

/// Before anything costly is done: a header of another repository, or a place where none is.
async fn refuse_foreign(storage: &Arc<dyn Storage>, header: &Header) -> Result<()> {
    match keyring::read_headers(storage).await {
        Ok(there) if there.headers().iter().all(|known| known.repository() != header.repository()) => {
            Err(Error::Invalid("this is the header of another repository than the one here".to_owned()))
        }
        Err(Error::NotARepository) if storage.list(&[], None).await?.is_empty() => Err(Error::NotARepository),
        // There may be nothing but blobs without a name that tells: the commits decide.
        Ok(_) | Err(Error::NotARepository | Error::Damaged(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
