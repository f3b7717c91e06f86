use std::sync::Arc;

use async_trait::async_trait;

use crate::Result;
use crate::crypto::{KdfParameters, RootSecret, Suite};
use crate::engine::keyring::Credentials;
use crate::storage::MaybeSendSync;

/// What this device remembers of a repository at one place, in storage that it trusts.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait TrustedState: MaybeSendSync {
    /// The newest durable commit seen: sequence and hash.
    ///
    /// # Errors
    /// When the local state cannot be read: then nothing can be said about freshness, and that must not pass silently.
    async fn load(&self, repository: &[u8; 16]) -> Result<Option<(u64, [u8; 32])>>;

    /// Remembers a commit, whatever was remembered before.
    ///
    /// # Errors
    /// When the local state cannot be written.
    async fn store(&self, repository: &[u8; 16], sequence: u64, hash: [u8; 32]) -> Result<()>;

    /// Remembers a commit unless a newer one is remembered. Where several processes share the state, this is one step for
    /// all of them: the later of two answers must not bring back the older commit.
    ///
    /// # Errors
    /// As [`TrustedState::load`] and [`TrustedState::store`].
    async fn advance(&self, repository: &[u8; 16], sequence: u64, hash: [u8; 32]) -> Result<()> {
        match self.load(repository).await? {
            Some((known, _)) if known >= sequence => Ok(()),
            _ => self.store(repository, sequence, hash).await,
        }
    }

    /// Whether what this device has left behind at this place is known to be of the history that is remembered. Then a lock is a
    /// proof that nobody can come to need what its writers left, also where the blobs may be at several places. Where this is not kept,
    /// it is not known: then what the last crashes have left behind there takes space for 30 days ([`Tuning::elsewhere_silence_millis`]), or
    /// until a compaction ends other writers; and what each has, where not all was written from this place, since there was a first commit.
    ///
    /// # Errors
    /// As [`TrustedState::load`].
    async fn is_settled(&self, repository: &[u8; 16]) -> Result<bool> {
        let _ = repository;
        Ok(false)
    }

    /// Remembers that. That it is not so must be durable when this answers.
    ///
    /// # Errors
    /// As [`TrustedState::store`].
    async fn set_settled(&self, repository: &[u8; 16], is_settled: bool) -> Result<()> {
        let _ = (repository, is_settled);
        Ok(())
    }
}

/// What opens a repository.
#[derive(Clone, Copy)]
pub enum Unlock<'a> {
    /// Password, key file, recovery key: costs one key derivation.
    Credentials(&'a Credentials),
    /// The root secret itself, as an agent holds it.
    Root(&'a RootSecret),
}

/// Bounds of the engine's work; the defaults suit a local repository.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// A checkpoint is due after this many bytes of deltas, with what each takes in memory.
    pub checkpoint_bytes: u64,
    /// A checkpoint is due after this many commits.
    pub checkpoint_commits: u64,
    /// Closing makes a checkpoint when the tail has this many commits.
    pub close_commits: u64,
    /// How long a superseded state stays readable for other processes, in milliseconds.
    pub reader_grace_millis: u64,
    /// After how long without a sign of it another process's writer is taken for dead, in milliseconds, where no lock tells.
    pub epoch_silence_millis: u64,
    /// As `epoch_silence_millis`, of a writer at another place that the same blobs are carried to and fro, where they may come late
    /// and in any order: what it put is swept after so long.
    pub elsewhere_silence_millis: u64,
    /// Bytes of blocks that may be under way to storage at once.
    pub in_flight_bytes_max: u64,
    /// Bytes of decoded tree nodes kept.
    pub node_cache_bytes_max: u64,
    /// Bytes of what a check remembers to compare identities with chunks: it goes through all identities once for as much.
    pub check_bytes_max: u64,
    /// How often `transact` runs its closure.
    pub attempts_max: u32,
    /// Tree nodes that one commit of a compaction moves where there are snapshots, unless those of a single block and what is
    /// above them are more; and as many again that were written while it was chosen. It takes up to a kilobyte of memory for
    /// each.
    pub moved_nodes_max: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            checkpoint_bytes: 8 << 20,
            checkpoint_commits: 256,
            close_commits: 64,
            reader_grace_millis: 10 * 60 * 1000,
            epoch_silence_millis: 24 * 60 * 60 * 1000,
            elsewhere_silence_millis: 30 * 24 * 60 * 60 * 1000,
            in_flight_bytes_max: 16 << 20,
            node_cache_bytes_max: 16 << 20,
            check_bytes_max: 8 << 20,
            attempts_max: 64,
            moved_nodes_max: 32 << 10,
        }
    }
}

/// How to open a repository.
#[derive(Clone)]
pub struct OpenOptions<'a> {
    /// The credentials.
    pub unlock: Unlock<'a>,
    /// Write nothing at all.
    pub read_only: bool,
    /// Open even where this device has seen a newer state; what is found becomes the newest.
    pub accept_rollback: bool,
    /// What this device remembers; without it rollback cannot be noticed.
    pub trusted: Option<Arc<dyn TrustedState>>,
    /// Bounds.
    pub tuning: Tuning,
}

impl<'a> OpenOptions<'a> {
    /// Read and write, with these credentials, remembering nothing.
    #[must_use]
    pub fn new(unlock: Unlock<'a>) -> Self {
        Self { unlock, read_only: false, accept_rollback: false, trusted: None, tuning: Tuning::default() }
    }
}

/// How to create a repository.
#[derive(Clone)]
pub struct CreateOptions<'a> {
    /// The credentials of its first slot.
    pub credentials: &'a Credentials,
    /// The credentials of a second slot, kept for the day when the first are lost.
    pub recovery: Option<&'a Credentials>,
    /// The cipher suite.
    pub suite: Suite,
    /// Size of every blob in bytes: a power of two from 4 KiB to 4 MiB.
    pub block_bytes: u32,
    /// Cost of the key derivation.
    pub kdf: KdfParameters,
    /// What this device remembers.
    pub trusted: Option<Arc<dyn TrustedState>>,
    /// Bounds.
    pub tuning: Tuning,
}
