//! The same repository in another place.

use strongroom_core::engine;
pub use strongroom_core::engine::{CloneProgress, Cloned};
use strongroom_core::storage::OpenMode;
use strongroom_fs::Result;

use crate::options::{CloneOptions, Place};
use crate::place;
use crate::repository::Repository;

impl Repository {
    /// Makes another place hold this repository as it is now, or brings a clone that is there up to date. What is sent is
    /// what is stored, sealed as it is, so the clone opens with the same credentials and has the same identity; only blocks
    /// that it lacks are sent. One that is cut short is gone on with by the next call: until the first comes to its end there
    /// is no repository there, and after that always a whole one,
    /// save that a run from a source which can only be read, or is full, can die on the way from commit to commit.
    ///
    /// Others may go on writing to this repository meanwhile. Nobody may write to the clone: one that was written to has gone
    /// its own way, and is refused from then on.
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
    /// use strongroom::{CloneOptions, CreateOptions, Credentials, OpenOptions, Repository};
    /// # let registry = strongroom::registry::default();
    /// # let create = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// # let repository = Repository::create("mem://home", create).await?;
    /// repository.fs().write("/letter", b"Dear Anna").await?;
    /// let mirror = || CloneOptions::default().prune(true).registry(registry.clone());
    /// repository.clone_to("mem://away", mirror()).await?;
    /// repository.fs().write("/letter", b"Dear Berta").await?;
    /// let cloned = repository.clone_to("mem://away", mirror()).await?;
    /// assert!(cloned.sent_blocks > 0 && cloned.left_out.is_empty());
    ///
    /// let open = OpenOptions::new(Credentials::password("correct horse")).read_only(true).registry(registry.clone());
    /// let away = Repository::open("mem://away", open).await?;
    /// assert_eq!(away.fs().read("/letter").await?, b"Dear Berta");
    /// # away.close().await?;
    /// repository.close().await
    /// # }) }
    /// ```
    ///
    /// # Errors
    /// Of [`strongroom_core::Error`]: `AlreadyExists` where another repository is, `Diverged` where the clone was written to or
    /// is newer, `LimitExceeded` where the storage holds no blocks so large, `Damaged` for what this repository has lost, after
    /// all else was sent, and `Stopped`; what both storages raise.
    pub async fn clone_to(&self, place: impl Into<Place>, options: CloneOptions<'_>) -> Result<Cloned> {
        let CloneOptions { surroundings, prune, partial, checksum, progress } = options;
        let opened = place::open(place.into(), surroundings, OpenMode::CreateIfMissing).await?;
        let options = engine::CloneOptions { prune, partial, checksum, trusted: opened.trusted, progress };
        Ok(self.engine().clone_to(opened.storage, options).await?)
    }
}
