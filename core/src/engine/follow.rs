//! Following the chain: learning what others committed, and moving on where they gave up the state that we stood on.

use std::sync::Arc;

use bytes::Bytes;

use super::chain::LoadedCommit;
use super::commit::Floor;
use super::recent::Keys;
use super::root::Root;
use super::shared::{Shared, lock};
use crate::format::rows;
use crate::{Error, Result};

/// How often the chain is looked at anew while commits vanish under the look.
const CATCH_UP_ATTEMPTS: usize = 16;

impl Shared {
    /// Something of the state that we build on is missing: others may have given that state up. Then there is a newer one
    /// to build on, and this answers `Ok`; otherwise it is damage.
    pub(crate) async fn move_on(&self, error: Error, sequence: u64) -> Result<()> {
        if !matches!(error, Error::Missing { .. } | Error::Expired) {
            return Err(error);
        }
        self.catch_up(true).await?;
        if self.root().sequence > sequence { Ok(()) } else { Err(self.explain(error, sequence).await) }
    }

    /// Makes a state the newest, unless somebody has seen to that: the leader and one who learns may meet.
    pub(super) fn adopt(&self, next: Arc<Root>, keys: Keys) {
        let mut root = lock(&self.root);
        if root.sequence + 1 == next.sequence {
            lock(&self.recent).push(next.sequence, next.time, keys);
            *root = next;
        }
    }

    /// Jumps to a state; what was written between is not known, so nothing that began before can be validated.
    pub(super) fn replace_root(&self, head: Root) {
        let mut root = lock(&self.root);
        if head.sequence > root.sequence {
            lock(&self.recent).clear();
            *root = Arc::new(head);
        }
    }

    /// Learns what others committed. A writer makes it durable before it builds on it.
    pub(crate) async fn catch_up(&self, persist: bool) -> Result<()> {
        for _ in 0..CATCH_UP_ATTEMPTS {
            let base = self.root();
            let found = self.chain.successors(base.sequence, 1).await;
            let linked = found.and_then(|found| Ok((link(&base, &found)?, found)));
            let anchor = match &linked {
                Ok((states, _)) => states.iter().rev().nth(1).unwrap_or(&base),
                Err(_) => &base,
            };
            if !self.chain.predecessor_is_there(anchor.sequence, &anchor.salt).await? {
                // Deletion has passed us, and what we saw may be strays: find the head anew.
                return self.jump(&base, persist).await;
            }
            let (states, found) = linked?;
            if persist && !found.is_empty() {
                let names: Vec<_> = found.iter().map(|commit| self.chain.name(commit.head.sequence)).collect();
                match self.storage().persist(&names).await {
                    Err(error) if error.kind() == crate::storage::ErrorKind::NotFound => continue,
                    done => done?,
                }
            }
            for (state, commit) in states.into_iter().zip(found) {
                self.adopt(state, Keys::new(commit.deltas.iter().map(|(key, _)| &**key)));
            }
            return Ok(());
        }
        Err(Error::damaged("commit chain", None, "its commits come and go"))
    }

    /// Goes on to the head, however far it is; it must continue what we know.
    pub(super) async fn jump(&self, base: &Root, persist: bool) -> Result<()> {
        let head = self.chain.find_head().await?;
        if let Some(detail) = self.contradiction(&head, base.sequence, &base.hash).await? {
            return Err(Error::RolledBack { detail });
        }
        if persist {
            self.persist_commit(head.sequence).await?;
        }
        self.replace_root(head);
        Ok(())
    }

    /// What in a state contradicts a commit that is known to have been. History too old to compare is no contradiction.
    pub(crate) async fn contradiction(&self, head: &Root, sequence: u64, hash: &[u8; 32]) -> Result<Option<String>> {
        if head.sequence < sequence {
            return Ok(Some(format!("commit {sequence} was seen here, and the newest one now is {}", head.sequence)));
        }
        let known = if head.sequence == sequence {
            Some(Bytes::copy_from_slice(&head.hash))
        } else {
            head.get(&self.nodes, &rows::history_key(sequence)).await?
        };
        let differs = sequence > 0 && known.is_some_and(|known| known.as_ref() != hash.as_slice());
        let why = match self.place() {
            Some(_) => ": another device has written apart, or other blobs were put in place",
            None => "",
        };
        Ok(differs.then(|| format!("commit {sequence} is another one than was seen here{why}")))
    }

    pub(crate) async fn persist_commit(&self, sequence: u64) -> Result<()> {
        if sequence == 0 {
            return Ok(());
        }
        match self.storage().persist(&[self.chain.name(sequence)]).await {
            Err(error) if error.kind() == crate::storage::ErrorKind::NotFound => Ok(()),
            done => Ok(done?),
        }
    }

    /// The floor that a commit at `sequence` may state.
    pub(super) fn floor(&self, base: &Root, sequence: u64, now: u64, floor: Floor) -> u64 {
        let allowed = match floor {
            // Not the commit itself: its put may end only when others have come, who then see what it builds on.
            Floor::Alone => base.sequence,
            Floor::Grace => now
                .checked_sub(self.tuning.reader_grace_millis)
                .and_then(|time| {
                    // A process that has just come has seen no commit being made; but what it found has a time too.
                    let is_old = base.time <= time;
                    if is_old { Some(base.sequence) } else { lock(&self.recent).newest_at(time) }
                })
                .unwrap_or(0),
        };
        // The base counts as looked at: we build on it.
        let pinned = self.oldest_pin().unwrap_or(sequence);
        base.floor.max(allowed.min(pinned).min(sequence))
    }
}

/// The states after each of the commits.
fn link(base: &Root, commits: &[LoadedCommit]) -> Result<Vec<Arc<Root>>> {
    let mut states: Vec<Arc<Root>> = Vec::with_capacity(commits.len());
    for commit in commits {
        let next = states.last().map_or(base, Arc::as_ref).after(commit.as_applied())?;
        states.push(Arc::new(next));
    }
    Ok(states)
}
