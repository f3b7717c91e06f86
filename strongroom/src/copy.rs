//! A copy of a repository, with other keys, another cipher or another size of blocks.

use std::sync::Arc;

pub use strongroom_core::engine::Copied;
use strongroom_core::engine::{self, Engine};
use strongroom_fs::{Error, Result};

use crate::options::{CreateOptions, Place};
use crate::repository::{Creation, Repository};
use crate::snapshots::Contents;

/// How a repository is copied.
#[derive(Default)]
pub struct CopyOptions<'a> {
    /// Copies what this snapshot keeps as the newest state, and of the snapshots this one and those before it, rather than
    /// everything.
    pub at: Option<&'a str>,
    /// Hears how many bytes of content are in the copy, as they are stored, and says whether to go on.
    /// [`strongroom_core::engine::EngineInfo::chunk_bytes`] tells how many that will be.
    pub progress: Option<&'a mut (dyn FnMut(u64) -> bool + Send)>,
    /// Gets what [`Copied::left_behind`] says, where the copy fails too.
    pub left_behind: Option<&'a mut Option<String>>,
}

impl Repository {
    /// Creates a repository that has all that this one has: files with their metadata, links, attributes, holes and versions,
    /// keys and values of all tables, settings, and every snapshot with its name and time. What is stored once here is stored once there.
    /// New are the keys, the identity, and what `create` says of credentials, cipher, size of blocks and key derivation; what
    /// it says of compression, dedup and versions does not count.
    ///
    /// Until it answers, the copy opens for nobody. Where it fails, what was made is deleted; what is left of one that was
    /// killed or dropped answers `UnfinishedCopy`, and [`crate::destroy`] deletes it. While it lasts, a snapshot keeps the
    /// state that is copied, unless this repository is open for reading only: then what others do meanwhile can end it with
    /// `Expired`. A copy that was killed leaves that snapshot to the next one, which removes it; so does one that cannot remove
    /// it, and says so in `left_behind`.
    ///
    /// What is read is authenticated; [`Repository::check`] proves of the copy what it proves of any repository.
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
    /// use strongroom::{CopyOptions, CreateOptions, Credentials, Repository, Suite};
    /// # let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// # let repository = Repository::create("mem://old", options).await?;
    /// repository.fs().write("/letter", b"Dear Anna").await?;
    /// repository.create_snapshot("before").await?;
    /// let create = CreateOptions::new(Credentials::password("battery staple")).cipher(Suite::XChaCha20Poly1305);
    /// # let create = create.kdf_millis(1);
    /// let (copy, copied) = repository.copy("mem://new", create, CopyOptions::default()).await?;
    /// assert_eq!(copied.snapshots, 1);
    /// assert_eq!(copy.files_at("before").await?.read("/letter").await?, b"Dear Anna");
    /// # repository.close().await?;
    /// copy.close().await
    /// # }) }
    /// ```
    ///
    /// # Errors
    /// Of [`strongroom_core::Error`]: `BlocksTooSmall` before anything is made, where this repository may have what blocks
    /// of that size cannot hold; `NoSnapshot`, `Stopped`, `Expired`; as reading here; and of the copy as [`Repository::create`],
    /// within `InCopy` but for `AlreadyExists`, `UnfinishedCopy` and `Invalid`.
    pub async fn copy(
        &self,
        place: impl Into<Place>,
        create: CreateOptions,
        options: CopyOptions<'_>,
    ) -> Result<(Self, Copied)> {
        if let Some(block_bytes) = create.block_bytes {
            self.engine().check_copy_fits(block_bytes)?;
        }
        let creation = Creation::begin(place.into(), create).await.map_err(in_copy)?;
        let CopyOptions { at, progress, left_behind } = options;
        let options = engine::CopyOptions { contents: Arc::new(Contents), at, progress, left_behind };
        let (storage, env) = (creation.opened.storage.clone(), creation.opened.env.clone());
        let (engine, copied) = Engine::copy(self.engine(), storage, env, creation.options(), options).await?;
        Ok((creation.finish(engine).await.map_err(in_copy)?, copied))
    }
}

fn in_copy(error: Error) -> Error {
    match error {
        Error::Core(error) => Error::Core(error.in_copy()),
        error => error,
    }
}
