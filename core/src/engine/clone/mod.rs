//! Cloning: the blobs of a repository, as they are sealed, in another storage. What is there then is the same repository in
//! another place, and opens with the same credentials.
//!
//! A state is pinned, what it reaches is copied and made durable, then the commits that lead to it, then the hint; the header
//! is last where there was none. A clone that is brought up to date goes from one whole state to the next: where the source
//! can be written to, the state is a checkpoint, so one commit, and every block that the state before needs is there until
//! the hint to the new one is. Only then does a mirror delete.
//!
//! What is read from the source is authenticated before it is put. Blocks that the clone's own head names are durable there,
//! and are not read again; any other that is there already is compared.
//!
//! A run that comes to its end leaves in the hint how many blocks are there. The next one takes that back before it puts anything,
//! and goes by what differs between the two states, at the cost of that; without it, a run goes by all that is there.

mod state;
mod target;
mod transfer;
mod usage;
mod way;

use std::sync::Arc;

use super::{Engine, TrustedState};
use crate::crypto::RootSecret;
use crate::format::CloneMark;
use crate::storage::Storage;
use crate::{Damage, Error, Result};

use state::State;
use target::{Target, in_clone};
use transfer::{Sent, Transfer};
use way::{Spare, Way};

/// How often a state is pinned anew because others gave the one before up.
const STATES_MAX: usize = 16;

/// How far a clone is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneProgress {
    /// Blocks that are there.
    pub done_blocks: u64,
    /// Blocks that the state needs.
    pub total_blocks: u64,
    /// Bytes of each.
    pub block_bytes: u32,
    /// Bytes that were sent.
    pub sent_bytes: u64,
}

/// How a repository is cloned.
#[derive(Default)]
pub struct CloneOptions<'a> {
    /// Deletes from the clone what its newest state does not need: old blocks, commits and headers. Readers of the clone that
    /// look at an older state have to open it again.
    pub prune: bool,
    /// Brings the clone up to date though blocks of the source are damaged and not in the clone: those are left out, and
    /// listed.
    pub partial: bool,
    /// Compares blocks that the clone's newest state needs too, which takes as long as sending them, and puts those again
    /// that are damaged there, or lost.
    pub checksum: bool,
    /// Where it is remembered what this device has seen of the clone.
    pub trusted: Option<Arc<dyn TrustedState>>,
    /// Hears how far it is, and says whether to go on.
    pub progress: Option<&'a mut (dyn FnMut(CloneProgress) -> bool + Send)>,
}

/// What a clone is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cloned {
    /// The number of the commit that it stands at.
    pub sequence: u64,
    /// Blocks that this state needs.
    pub blocks: u64,
    /// Blocks that were sent.
    pub sent_blocks: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Blobs that were deleted from it.
    pub pruned_blobs: u64,
    /// Blocks of the source that are damaged or missing, and not in the clone either.
    pub left_out: Vec<Damage>,
}

impl Engine {
    /// Makes another storage hold this repository as it is now, or brings a clone that is there up to date: only blocks that
    /// it lacks are sent. After a run that came to its end the next costs what has changed since, in requests and in memory. One that is cut short is gone on with by the next call; until the first comes to its end there is no
    /// repository there, and after that always a whole one,
    /// save that a run from a source which can only be read, or is full, can die on the way from commit to commit.
    ///
    /// Others may go on writing meanwhile. Where this engine can write, it makes a checkpoint first, and nothing that it pins
    /// is deleted by this process; where other processes give the state up, a newer one is taken.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] where another repository is; [`Error::Diverged`] where the clone was written to, or is newer;
    /// [`Error::LimitExceeded`] where the storage holds no blocks so large; [`Error::Damaged`] and [`Error::Missing`] for what
    /// the source has lost, after all else was sent; [`Error::Stopped`]; what both storages raise, as [`Error::InClone`]
    /// what the clone's does.
    pub async fn clone_to(&self, storage: Arc<dyn Storage>, mut options: CloneOptions<'_>) -> Result<Cloned> {
        let limit = storage.capabilities().block_bytes_max;
        if self.block_bytes() > limit {
            let (value, limit) = (u64::from(self.block_bytes()), u64::from(limit));
            return Err(Error::LimitExceeded { what: "block_bytes", value, limit });
        }
        let secret = self.root_secret();
        let mut sent = Sent::default();
        let mut states_left = STATES_MAX;
        loop {
            match self.bring(&storage, &secret, &mut sent, &mut options).await {
                Err(Error::Expired | Error::Conflict) if states_left > 0 => states_left -= 1,
                done => return done,
            }
        }
    }

    async fn bring(
        &self,
        storage: &Arc<dyn Storage>,
        secret: &RootSecret,
        sent: &mut Sent,
        options: &mut CloneOptions<'_>,
    ) -> Result<Cloned> {
        let shared = &self.shared;
        let mut target = Target::look(self, storage.clone(), secret).await.map_err(in_clone)?;
        let names = Way::names(&target, sent, options).await.map_err(in_clone)?;
        let state = State::take(self).await?;
        target.check_follows(shared, &state).await?;
        let way = Way::choose(shared, &target, &state, names, sent).await?;
        let head = state.hash(shared, state.sequence()).await?;
        let is_there = target.head().is_some_and(|there| there.hash == head);
        if !is_there || matches!(way, Way::All { .. }) {
            target.begin().await.map_err(in_clone)?;
        }
        let (left_out, found_blocks) = self.send(&way, &target, &state, sent, options).await?;
        let blocks = way.blocks().0;
        let as_it_is = match &way {
            Way::Changes { mark, added: 0, removed: 0, .. } if is_there => Some(*mark),
            _ => None,
        };
        let commits = way.commits(&target);
        let ended = target.publish(&state, shared, secret, as_it_is.as_ref(), commits).await?;
        let spare = match as_it_is {
            Some(_) => Spare::default(),
            None => {
                // What an earlier attempt put, or a run that died, may be taken for left over as well.
                let puts_nothing = sent.names.is_empty() && found_blocks == 0;
                way.look_again(shared, &target, &state, puts_nothing, &left_out, options.prune).await?
            }
        };
        if let Some(trusted) = &options.trusted {
            trusted.advance(self.keys().repository(), state.sequence(), head).await?;
        }
        let mut pruned_blobs = 0;
        if options.prune {
            pruned_blobs = ended + target.prune(&state, &spare.names).await.map_err(in_clone)?;
        }
        // Blocks that nobody counted were there, or some that are counted are not.
        let is_sure = left_out.is_empty() && (found_blocks == 0 || matches!(way, Way::All { .. }));
        if as_it_is.is_none() && is_sure {
            let mark = CloneMark { head, blocks, spare: spare.blocks.saturating_sub(spare.names.len() as u64) };
            let base_hash = state.hash(shared, state.base).await?;
            target.put_mark(state.base, base_hash, &mark).await.map_err(in_clone)?;
        }
        Ok(Cloned {
            sequence: state.sequence(),
            blocks,
            sent_blocks: sent.blocks,
            sent_bytes: sent.bytes,
            pruned_blobs,
            left_out,
        })
    }

    /// Sends what the clone lacks and makes it durable. Answers what the source lacks, and how many blocks were there that nobody
    /// knew of.
    async fn send(
        &self,
        way: &Way,
        target: &Target,
        state: &State,
        sent: &mut Sent,
        options: &mut CloneOptions<'_>,
    ) -> Result<(Vec<Damage>, u64)> {
        let (total_blocks, done_blocks) = way.blocks();
        let progress =
            CloneProgress { done_blocks, total_blocks, block_bytes: self.block_bytes(), sent_bytes: sent.bytes };
        let (checksum, partial) = (options.checksum, options.partial);
        let mut transfer = Transfer::new(self, target.storage().clone(), state.root.sequence, progress, options);
        let blocks = way.to_send(&self.shared, target, state, sent, checksum);
        let ended = match transfer.run(blocks).await {
            Ok(()) => transfer.make_durable().await,
            error => error,
        };
        let found_blocks = transfer.found_blocks;
        let left_out = transfer.end(sent);
        ended?;
        match left_out.first() {
            Some(first) if !partial => {
                let mut damage = first.clone();
                if let further @ 1.. = left_out.len() - 1 {
                    damage.detail = format!("{}; and {further} other blocks of the source", damage.detail);
                }
                Err(Error::Damaged(damage))
            }
            _ => Ok((left_out, found_blocks)),
        }
    }
}
