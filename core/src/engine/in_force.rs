//! Which header counts, and how the next one comes to count.
//!
//! A header is in force once a commit names its generation and hash; the generation before is deleted after that. One that
//! is newer than what the head names is the work of somebody who died, or is not done; one that is older was put back.

use std::sync::Arc;

use super::commit::{Draft, Extra, Leader, Outcome};
use super::keyring::{self, CopyState, Header, HeaderSet, SlotId};
use super::root::Root;
use super::shared::{Shared, lock};
use super::{Engine, Secrets, Unlock};
use crate::crypto::RootSecret;
use crate::env::Env;
use crate::storage::Storage;
use crate::{Error, Result};

/// A header that was unlocked.
pub(super) struct Opened {
    pub(super) header: Header,
    pub(super) root: RootSecret,
    /// The slot that opened; none where the root secret was at hand.
    pub(super) slot: Option<SlotId>,
}

/// Opens one header.
pub(super) async fn open_one(env: &Env, header: &Header, unlock: Unlock<'_>) -> Result<Opened> {
    let (root, slot) = match unlock {
        Unlock::Credentials(credentials) => {
            let (root, slot) = keyring::unlock_slot(env, header, credentials).await?;
            (root, Some(slot))
        }
        Unlock::Root(root) => (keyring::unlock_with_root(header, root.duplicate())?, None),
    };
    Ok(Opened { header: header.clone(), root, slot })
}

/// Opens the newest header that this unlocks.
pub(super) async fn open_newest(env: &Env, headers: &HeaderSet, unlock: Unlock<'_>) -> Result<Opened> {
    match unlock {
        Unlock::Credentials(credentials) => {
            let (header, root, slot) = headers.unlock_slot(env, credentials).await?;
            Ok(Opened { header: header.clone(), root, slot: Some(slot) })
        }
        Unlock::Root(_) => {
            let mut opened = Err(Error::WrongCredentials);
            for header in headers.headers() {
                opened = open_one(env, header, unlock).await;
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
    opened: Opened,
    head: &Root,
    unlock: Unlock<'_>,
) -> Result<Opened> {
    if names(head, &opened.header) {
        return Ok(opened);
    }
    if head.header_generation > opened.header.generation() {
        let (is, named) = (opened.header.generation(), head.header_generation);
        return Err(Error::RolledBack {
            detail: format!("the header is of generation {is}, the commits name {named}"),
        });
    }
    let named =
        headers.find(head.header_generation, &head.header_hash).ok_or_else(|| not_there(head.header_generation))?;
    open_one(env, named, unlock).await
}

/// Whether this is the header that a state names.
pub(super) fn names(root: &Root, header: &Header) -> bool {
    *header.hash() == root.header_hash && header.generation() == root.header_generation
}

fn not_there(generation: u64) -> Error {
    Error::damaged("header", None, format!("generation {generation}, which the commits name, is not there"))
}

/// Makes up for what a change that died has left: a creation between the two copies of the header, a change of slots
/// before it deleted what it put out of force. The commit that names the header is durable. Damage stays for `check` to
/// report.
pub(super) async fn heal(storage: &Arc<dyn Storage>, headers: &HeaderSet, secrets: &Secrets) {
    let header = lock(&secrets.header).clone();
    for fault in headers.faults() {
        if fault.id.generation == header.generation() && fault.state == CopyState::Missing {
            // One copy serves: that there is no room for the other must not keep out who comes to make room. And it may
            // have come since the look.
            let _ = keyring::put_copy(storage, &header, &secrets.root, fault.id.copy).await;
        }
    }
    forget_older(storage, headers, header.generation()).await;
}

/// Deletes the headers that are older than the one in force. Generations only rise, so nobody needs them again.
async fn forget_older(storage: &Arc<dyn Storage>, headers: &HeaderSet, generation: u64) {
    for older in headers.older_than(generation) {
        // What cannot be deleted now opens nothing, and the next writer tries again: no reason to fail.
        if keyring::delete_header(storage, older).await.is_err() {
            break;
        }
    }
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
        if names(&root, &known) {
            return Ok(known);
        }
        let named = newest(&self.shared, &self.secrets.root, Some(&root)).await?;
        *lock(&self.secrets.header) = named.clone();
        Ok(named)
    }

    /// Puts another header in force: both copies are written, a commit names them, then older generations are deleted.
    /// The header comes of a [`keyring::HeaderEdit`] of [`Engine::header`].
    ///
    /// # Errors
    /// [`Error::Conflict`] where another process was faster: edit what is in force now; what the storage raises. It
    /// is in force, or may be, only after [`Error::CommitUnknown`] and where this device cannot remember it.
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
        if let Err(error) = self.put_in_force(&mut leader, header, &before).await {
            // One that is in flight may yet come to count; any other never will.
            if leader.in_flight.is_none() && !names(&shared.root(), header) {
                let _ = keyring::take_back(shared.storage(), header, &self.secrets.root).await;
            }
            return Err(error);
        }
        *lock(&self.secrets.header) = header.clone();
        // From here on it is done, whatever becomes of the older ones: the next writer makes up for it.
        if let Ok(headers) = keyring::read_headers(shared.storage()).await {
            forget_older(shared.storage(), &headers, header.generation()).await;
        }
        drop(leader);
        shared.remember().await
    }

    async fn put_in_force(&self, leader: &mut Leader, header: &Header, before: &Root) -> Result<()> {
        let shared: &Arc<_> = &self.shared;
        keyring::write_header(shared.storage(), header, &self.secrets.root).await?;
        loop {
            let base = shared.root();
            if base.header_hash != before.header_hash {
                return Err(Error::Conflict);
            }
            let named = Some((header.generation(), *header.hash()));
            let extra = Extra { header: named, ..Extra::default() };
            let sequence = base.sequence;
            match shared.publish(leader, base, Draft::default(), extra).await {
                Ok(Outcome::Published(_)) => return Ok(()),
                Ok(Outcome::Lost) => {}
                Err(error) => shared.move_on(error, sequence).await?,
            }
        }
    }
}

/// How often the header in force is looked for anew because it changes while it is looked for.
const LOOKS_MAX: usize = 8;

/// The header that `root` names, or, where it is gone, the one that the newest state in storage names: another process may
/// have put one in force that this handle has not learnt of. Nothing is learnt here.
pub(super) async fn newest(shared: &Shared, secret: &RootSecret, root: Option<&Root>) -> Result<Header> {
    let mut named = root.map(|root| (root.header_generation, root.header_hash));
    let mut generation = 0;
    for _ in 0..LOOKS_MAX {
        let (number, hash) = match named.take() {
            Some(named) => named,
            None => {
                let head = shared.chain.find_head().await?;
                (head.header_generation, head.header_hash)
            }
        };
        let headers = keyring::read_headers(shared.storage()).await?;
        if let Some(found) = headers.find(number, &hash) {
            keyring::unlock_with_root(found, secret.duplicate())?;
            return Ok(found.clone());
        }
        if generation == number {
            break;
        }
        generation = number;
    }
    Err(not_there(generation))
}
