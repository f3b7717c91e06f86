//! A folder that a sync client keeps alike on several machines, two of which wrote: the histories that came of it, and how each is
//! read.

use std::sync::Arc;

use strongroom_core::engine::{self, Unlock};
use strongroom_core::storage::{
    self, OpenContext, OpenMode, Operation, Registry, Result as StorageResult, Storage, StorageUri, Stray, StraysSought,
};
use strongroom_fs::Result;

use crate::options::{OpenOptions, Place};
use crate::place;
use crate::repository::{HeaderOptions, Repository};

/// One of the histories that a repository has where two wrote apart.
#[derive(Clone, Debug)]
pub struct Side {
    side: engine::Side,
    is_seen: bool,
    lost: Option<u64>,
}

impl Side {
    /// Its newest commit.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.side.sequence
    }

    /// The hash of that commit, which no other has.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.side.hash
    }

    /// When that was made, in milliseconds since 1970, by the clock of who made it.
    #[must_use]
    pub fn time_millis(&self) -> u64 {
        self.side.time_millis
    }

    /// The last commit that all sides have in common; none where that is longer ago than their histories go back.
    #[must_use]
    pub fn parted_after(&self) -> Option<u64> {
        self.side.parted_after
    }

    /// What of its commits is not there, so that it cannot be opened.
    #[must_use]
    pub fn missing(&self) -> Option<&str> {
        self.side.missing.as_deref()
    }

    /// Whether its header is there. Where it is not, because another side has changed credentials, it opens with what opens that
    /// side's.
    #[must_use]
    pub fn has_header(&self) -> bool {
        self.side.has_header
    }

    /// Whether the header that its commits name is not there, and what is there is older, or was made by no side: it was put back, and
    /// may let in who was let out since.
    #[must_use]
    pub fn is_rolled_back(&self) -> bool {
        self.side.is_rolled_back
    }

    /// How many files have the name of a commit or of a hint, of whichever side, and cannot be read at all; they were passed by.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.side.unread
    }

    /// Whether it is the one that this device has followed here.
    #[must_use]
    pub fn is_seen(&self) -> bool {
        self.is_seen
    }

    /// A commit that this device has seen here, and that none of the sides has: older blobs were put in place of newer ones, or not all
    /// has arrived.
    #[must_use]
    pub fn lost(&self) -> Option<u64> {
        self.lost
    }

    /// Opens it for reading. [`Repository::clone_to`] makes a repository of it that can be written to, in another place.
    ///
    /// # Errors
    /// As [`Repository::open`]; of [`strongroom_core::Error`] `RolledBack` where a commit is [lost](Side::lost), or the header was
    /// [put back](Side::is_rolled_back), unless the options accept that.
    pub async fn open(&self, options: OpenOptions) -> Result<Repository> {
        if let Some(lost) = self.lost
            && !options.accept_rollback
        {
            let detail = format!(
                "commit {lost} was seen here, and no history that is there has it; if you restored an older copy yourself, pass --accept-rollback"
            );
            return Err(strongroom_core::Error::RolledBack { detail }.into());
        }
        if self.side.is_rolled_back && !options.accept_rollback {
            let detail = "the header that the commits name is not there, and one that is may let in who was let out since; if you restored an older copy yourself, pass --accept-rollback";
            return Err(strongroom_core::Error::RolledBack { detail: detail.to_owned() }.into());
        }
        let storage = if options.accept_rollback { self.side.storage_taken_back() } else { self.side.storage() };
        // What this device has seen of the place is of one side.
        Repository::open(storage, options.read_only(true).without_trusted_state()).await
    }
}

/// The histories of a repository, the newest first: one, unless several wrote to copies of it that did not know of each other, as a
/// sync client makes them. What it keeps beside the blobs is looked at too (see [`strays`]), and so is what is in `others`: the
/// same folder as it is on another machine, or what was put back from where the client keeps deleted files. Nothing is written.
///
/// ```
/// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
/// # use strongroom::{CreateOptions, Credentials, OpenOptions, Repository};
/// # let folder = tempfile::tempdir().unwrap();
/// # let place = folder.path().to_str().unwrap();
/// # let create = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
/// # Repository::create(place, create).await?.close().await?;
/// let options = || OpenOptions::new(Credentials::password("correct horse"));
/// for side in strongroom::sides(place, Vec::new(), options()).await? {
///     println!("commit {}", side.sequence());
///     let repository = side.open(options()).await?;
///     for entry in repository.fs().read_dir("/").await? {
///         println!("  {entry:?}");
///     }
/// }
/// # Ok(()) }) }
/// ```
///
/// # Errors
/// As [`Repository::open`].
pub async fn sides(place: impl Into<Place>, others: Vec<Place>, options: OpenOptions) -> Result<Vec<Side>> {
    let registry = options.surroundings.registry.clone().unwrap_or_else(crate::registry::default);
    let (mut storages, mut first) = (Vec::new(), None);
    for place in std::iter::once(place.into()).chain(others) {
        let opened = place::open(place, options.surroundings.clone(), OpenMode::Existing).await?;
        storages.push(opened.storage);
        if let Some(uri) = &opened.uri {
            let context = OpenContext::new(opened.env.clone()).with_blocking(options.surroundings.blocking);
            storages.extend(copies(&registry, uri, &context).await.map_err(strongroom_core::Error::from)?);
        }
        first.get_or_insert((opened.env, opened.trusted));
    }
    let Some((env, trusted)) = first else { return Ok(Vec::new()) };
    let (sides, repository) = engine::sides(storages, env, Unlock::Credentials(&options.credentials)).await?;
    let seen = match trusted {
        Some(trusted) => trusted.load(&repository).await?,
        None => None,
    };
    let seen = seen.filter(|(sequence, _)| *sequence > 0);
    let mut known = Vec::new();
    for side in sides {
        let has = match &seen {
            Some((sequence, hash)) => side.has(*sequence, hash).await?,
            None => None,
        };
        known.push((side, has));
    }
    // What is too long ago to be compared contradicts nothing.
    let is_lost = known.iter().all(|(_, has)| *has == Some(false));
    let lost = seen.map(|(sequence, _)| sequence).filter(|_| is_lost);
    Ok(known.into_iter().map(|(side, has)| Side { side, is_seen: has == Some(true), lost }).collect())
}

async fn copies(registry: &Registry, uri: &StorageUri, context: &OpenContext) -> StorageResult<Vec<Arc<dyn Storage>>> {
    registry.constructor(uri)?.copies(uri, context).await
}

/// What lies among the blobs of a place under names that are a blob's and something more, as a sync client leaves it: contents that
/// have lost where two machines put one name, and what has not come whole. They are never read as blobs, and never deleted.
///
/// # Errors
/// What the medium raises.
pub async fn strays(uri: &StorageUri, sought: StraysSought, options: &HeaderOptions) -> StorageResult<Vec<Stray>> {
    let env = match &options.env {
        Some(env) => env.clone(),
        None => crate::env::system()
            .map_err(|error| storage::Error::from_io(Operation::Open, "the worker threads", error))?,
    };
    let registry: Registry = options.registry.clone().unwrap_or_else(crate::registry::default);
    let context = OpenContext::new(env).with_blocking(options.storage_calls);
    registry.constructor(uri)?.strays(uri, sought, &context).await
}
