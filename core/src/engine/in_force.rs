//! Which header counts, and how the next one comes to count.
//!
//! A header is in force once a commit names its generation and hash; the generation before is deleted after that. One that
//! is newer than what the head names is the work of somebody who died, or is not done; one that is older was put back.

use std::sync::Arc;

use super::commit::{Draft, Extra, Outcome};
use super::keyring::{self, Header, HeaderSet};
use super::root::Root;
use super::shared::lock;
use super::{Engine, Unlock};
use crate::crypto::RootSecret;
use crate::env::Env;
use crate::{Error, Result};

/// Opens the newest header that this unlocks.
pub(super) async fn open_newest(env: &Env, headers: &HeaderSet, unlock: Unlock<'_>) -> Result<(Header, RootSecret)> {
    match unlock {
        Unlock::Credentials(credentials) => {
            let (header, root) = headers.unlock(env, credentials).await?;
            Ok((header.clone(), root))
        }
        Unlock::Root(root) => {
            let mut opened = Err(Error::WrongCredentials);
            for header in headers.headers() {
                opened = keyring::unlock_with_root(header, root.duplicate()).map(|root| (header.clone(), root));
                if opened.is_ok() {
                    break;
                }
            }
            opened
        }
    }
}

/// The header that the head names, where `opened` is another one: it must open with the same credentials.
///
/// # Errors
/// [`Error::RolledBack`] where the head names a newer one: a header that was put back revives no password.
pub(super) async fn choose(
    env: &Env,
    headers: &HeaderSet,
    opened: Header,
    head: &Root,
    unlock: Unlock<'_>,
) -> Result<Header> {
    if *opened.hash() == head.header_hash && opened.generation() == head.header_generation {
        return Ok(opened);
    }
    if head.header_generation > opened.generation() {
        let (is, named) = (opened.generation(), head.header_generation);
        return Err(Error::RolledBack {
            detail: format!("the header is of generation {is}, the commits name {named}"),
        });
    }
    let named = headers.find(head.header_generation, &head.header_hash).ok_or_else(|| {
        Error::damaged(
            "header",
            None,
            format!("generation {}, which the commits name, is not there", head.header_generation),
        )
    })?;
    match unlock {
        Unlock::Credentials(credentials) => drop(keyring::unlock(env, named, credentials).await?),
        Unlock::Root(root) => drop(keyring::unlock_with_root(named, root.duplicate())?),
    }
    Ok(named.clone())
}

impl Engine {
    /// The header in force, as this process knows it.
    ///
    /// # Errors
    /// What reading the headers raises, where another process has changed it; [`Error::Damaged`] where the one that the
    /// commits name is not there.
    pub async fn header(&self) -> Result<Header> {
        let root = self.shared.root();
        let known = lock(&self.secrets.header).clone();
        if *known.hash() == root.header_hash {
            return Ok(known);
        }
        let headers = keyring::read_headers(self.shared.storage()).await?;
        let named = headers.find(root.header_generation, &root.header_hash).ok_or_else(|| {
            Error::damaged(
                "header",
                None,
                format!("generation {}, which the commits name, is not there", root.header_generation),
            )
        })?;
        keyring::unlock_with_root(named, self.secrets.root.duplicate())?;
        *lock(&self.secrets.header) = named.clone();
        Ok(named.clone())
    }

    /// Puts another header in force: both copies are written, a commit names them, then the generation before is deleted.
    /// The header comes of a [`keyring::HeaderEdit`] of [`Engine::header`].
    ///
    /// # Errors
    /// [`Error::Conflict`] where another process was faster: edit what is in force now; what the storage raises.
    pub async fn change_header(&self, header: &Header) -> Result<()> {
        let shared: &Arc<_> = &self.shared;
        shared.check_writable()?;
        let mut leader = shared.leader.lock().await;
        shared.settle(&mut leader).await?;
        shared.catch_up(true).await?;
        let before = shared.root();
        if *header.previous() != before.header_hash || header.generation() <= before.header_generation {
            return Err(Error::Conflict);
        }
        keyring::write_header(shared.storage(), header, &self.secrets.root).await?;
        loop {
            let base = shared.root();
            if base.header_hash != before.header_hash {
                // Ours was never in force, and never will be.
                keyring::delete_header(shared.storage(), header.generation()).await?;
                return Err(Error::Conflict);
            }
            let named = Some((header.generation(), *header.hash()));
            let extra = Extra { header: named, ..Extra::default() };
            if let Outcome::Published(_) = shared.publish(&mut leader, base, Draft::default(), extra).await? {
                break;
            }
        }
        *lock(&self.secrets.header) = header.clone();
        keyring::delete_header(shared.storage(), before.header_generation).await?;
        drop(leader);
        shared.remember().await
    }
}
