//! The end of a repository.

use strongroom_core::engine::{Destroyed, Engine, Unlock};
use strongroom_core::storage::OpenMode;
use strongroom_fs::Result;

use crate::options::{OpenOptions, Place};
use crate::place;

/// Deletes every blob of a repository, and nothing else that is in the same place. It takes the right to open it, not that
/// it is intact; one that was cut short is taken up by the same call.
///
/// ```
/// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
/// use strongroom::storage::Registry;
/// use strongroom::{CreateOptions, Credentials, OpenOptions, Repository};
/// let registry = strongroom::registry::default();
/// let create = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1).registry(registry.clone());
/// drop(Repository::create("mem://example", create).await?);
/// let open = || OpenOptions::new(Credentials::password("correct horse")).registry(registry.clone());
/// assert!(strongroom::destroy("mem://example", open()).await?.deleted_count > 0);
/// assert!(Repository::open("mem://example", open()).await.is_err());
/// # Ok(()) }) }
/// ```
///
/// # Errors
/// As [`Engine::destroy`].
pub async fn destroy(place: impl Into<Place>, options: OpenOptions) -> Result<Destroyed> {
    let opened = place::open(place.into(), options.surroundings.clone(), OpenMode::Existing).await?;
    Ok(Engine::destroy(opened.storage, opened.env, Unlock::Credentials(&options.credentials)).await?)
}
