use std::sync::Arc;

use crate::env::RandomUnavailable;
use crate::storage;
use crate::storage::Name;

/// The result of an engine operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What of the repository is damaged: what, where, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The structure, in the words of `docs/format.md`: "commit", "tree node", "chunk", "header".
    pub structure: &'static str,
    /// The blob it was read from, where one is known.
    pub blob: Option<Name>,
    /// What was seen.
    pub detail: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} damaged: {}", self.structure, self.detail)?;
        if let Some(blob) = self.blob {
            write!(formatter, " (blob {blob})")?;
        }
        Ok(())
    }
}

/// What the engine can answer instead of a result. Cheap to clone, because one failed commit answers a whole group.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The storage failed.
    #[error("{0}")]
    Storage(Arc<storage::Error>),
    /// There is no repository here.
    #[error("no repository here: create one with `init`, or check the address")]
    NotARepository,
    /// There is a repository here already.
    #[error("a repository is here already: open it, or choose another place")]
    AlreadyExists,
    /// There is a copy here that was cut short: it lacks something, and nobody can tell what.
    #[error("an unfinished copy is here, which is no repository: delete it with `destroy`, and run `copy` again")]
    UnfinishedCopy,
    /// No slot opens with these credentials.
    #[error(
        "wrong credentials: no slot opens with them, and nobody can tell from outside which part is wrong, or whether a key file is missing"
    )]
    WrongCredentials,
    /// Made by a newer version of the format, or with a feature that this version lacks.
    #[error("made by a newer version ({detail}): update this program")]
    NewerFormat {
        /// What was met.
        detail: String,
    },
    /// Something in storage is not what was put there.
    #[error("{0}; restore it from a copy, or run `check --data`")]
    Damaged(Damage),
    /// A blob that must be there is not: it was deleted, or has not arrived.
    #[error(
        "a block is missing: {structure} was to be read from blob {blob}; wait until everything has arrived, or restore it from a copy"
    )]
    Missing {
        /// What was to be read from it.
        structure: &'static str,
        /// Its name.
        blob: Name,
    },
    /// The repository is older than what this device has seen.
    #[error("rolled back: {detail}")]
    RolledBack {
        /// What contradicts.
        detail: String,
    },
    /// A clone is no earlier state of the repository: it was written to, or is newer than that, which may have been put back.
    #[error(
        "the clone has gone its own way ({detail}), and was left as it is: look into both before you delete either, and clone to another place"
    )]
    Diverged {
        /// What differs.
        detail: String,
    },
    /// It was the clone, and not the repository that is cloned, in which it failed.
    #[error("in the clone: {0}")]
    InClone(Arc<Error>),
    /// It was the copy that is being made, and not the repository that is copied, in which it failed.
    #[error("in the copy: {0}")]
    InCopy(Arc<Error>),
    /// The state that a reader looks at has been given up by the writers.
    #[error("the state being read has expired: open the repository again")]
    Expired,
    /// Content that was to be shared is gone: it was in a state that nobody had kept, and was given up before this transaction
    /// began. To run it again helps nothing.
    #[error(
        "the content to be shared is gone: the state that it was in was not kept; take a snapshot to copy from first"
    )]
    ContentGone,
    /// Another transaction changed what this one had read or written.
    #[error("conflict with another transaction: run it again")]
    Conflict,
    /// A commit may or may not have taken effect.
    #[error("it is unknown whether commit {sequence} took effect ({detail}): look before trying again")]
    CommitUnknown {
        /// The sequence number of the commit.
        sequence: u64,
        /// What the storage answered.
        detail: String,
    },
    /// Over a stated limit.
    #[error("over the limit: {what} is {value}, at most {limit} is allowed")]
    LimitExceeded {
        /// What is limited, its unit last.
        what: &'static str,
        /// What was asked for.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Blocks so small cannot hold the rows and chunks of the repository that is to be copied.
    #[error(
        "blocks of {block_bytes} bytes cannot hold what the repository has in larger ones: choose at least {block_bytes_min}"
    )]
    BlocksTooSmall {
        /// The size that was asked for.
        block_bytes: u32,
        /// The smallest that would do.
        block_bytes_min: u32,
    },
    /// There is a snapshot of this name already.
    #[error("there is a snapshot {name:?} already: choose another name, or remove it first")]
    SnapshotExists {
        /// Its name.
        name: String,
    },
    /// There is no snapshot of this name.
    #[error("there is no snapshot {name:?}: `snapshot list` shows those that are")]
    NoSnapshot {
        /// The name that was asked for.
        name: String,
    },
    /// A call that makes no sense.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The repository was opened for reading only.
    #[error("opened for reading only")]
    ReadOnly,
    /// Whoever was told how far it is asked it to stop.
    #[error("stopped as asked")]
    Stopped,
    /// The handle was closed.
    #[error("the repository was closed")]
    Closed,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// The workers are gone: the process is shutting down, or a worker died.
    #[error("a worker thread died; open the repository again")]
    WorkerLost,
}

impl Error {
    /// Damage, described.
    pub fn damaged(structure: &'static str, blob: Option<Name>, detail: impl Into<String>) -> Self {
        Self::Damaged(Damage { structure, blob, detail: detail.into() })
    }

    /// Says of an error that it was in a copy that is being made, unless that speaks for itself.
    #[must_use]
    pub fn in_copy(self) -> Self {
        match self {
            Self::AlreadyExists
            | Self::Expired
            | Self::InCopy(_)
            | Self::Invalid(_)
            | Self::Stopped
            | Self::UnfinishedCopy => self,
            error => Self::InCopy(Arc::new(error)),
        }
    }

    /// The kind of the storage error behind this, where there is one.
    #[must_use]
    pub fn storage_kind(&self) -> Option<storage::ErrorKind> {
        match self {
            Self::Storage(error) => Some(error.kind()),
            Self::InClone(error) | Self::InCopy(error) => error.storage_kind(),
            _ => None,
        }
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Self::Storage(Arc::new(error))
    }
}
