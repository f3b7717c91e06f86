//! The credentials of a repository: its slots, and its header kept elsewhere.

use strongroom_core::engine::keyring::{Header, NewSlot, SlotInfo};
use strongroom_core::engine::{self, Engine, HeaderImport, Unlock};
use strongroom_core::format::header::HeaderError;
use strongroom_core::format::limits::HEADER_BYTES;
use strongroom_core::storage::OpenMode;
use strongroom_fs::Result;

use crate::options::{OpenOptions, Place};
use crate::place;
use crate::repository::Repository;

impl Repository {
    /// The slots in use, as storage has them now.
    ///
    /// # Errors
    /// As [`Engine::slots`].
    pub async fn slots(&self) -> Result<Vec<SlotInfo>> {
        Ok(self.engine().slots().await?)
    }

    /// The slot that this repository was opened with, unless it was replaced or removed since.
    ///
    /// # Errors
    /// As [`Engine::slots`].
    pub async fn slot_in_use(&self) -> Result<Option<SlotInfo>> {
        Ok(self.engine().slot_in_use().await?)
    }

    /// Gives other credentials a way in, and answers the slots then. Of two processes that change slots at once, neither
    /// loses its change.
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
    /// use strongroom::{CreateOptions, Credentials, NewSlot, RecoveryKey, Repository};
    /// let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// let repository = Repository::create("mem://example", options).await?;
    /// let key = RecoveryKey::generate(repository.engine().env())?;
    /// let credentials = Credentials::recovery(&key);
    /// let slots = repository.add_slot(&NewSlot { credentials: &credentials, label: "in the safe" }).await?;
    /// assert_eq!(slots.len(), 2);
    /// # Ok(()) }) }
    /// ```
    ///
    /// # Errors
    /// As [`Engine::add_slot`].
    pub async fn add_slot(&self, new: &NewSlot<'_>) -> Result<Vec<SlotInfo>> {
        Ok(self.engine().add_slot(new).await?)
    }

    /// Gives a slot other credentials in one step: a change of password. Answers the slots then.
    ///
    /// # Errors
    /// As [`Engine::replace_slot`].
    pub async fn replace_slot(&self, old: &SlotInfo, new: &NewSlot<'_>) -> Result<Vec<SlotInfo>> {
        Ok(self.engine().replace_slot(old, new).await?)
    }

    /// Takes a slot away, and answers the slots then. Who kept a copy of the older header can still open the repository
    /// with it.
    ///
    /// # Errors
    /// As [`Engine::remove_slot`].
    pub async fn remove_slot(&self, old: &SlotInfo) -> Result<Vec<SlotInfo>> {
        Ok(self.engine().remove_slot(old).await?)
    }

    /// The header in force, to be kept elsewhere: its content ([`Header::content`]) is what [`import_header`] takes. It
    /// opens with the same credentials as the repository, and is of use until the next change of slots.
    ///
    /// # Errors
    /// What the storage raises; [`strongroom_core::Error::Damaged`] where the header in force is not there.
    pub async fn export_header(&self) -> Result<Header> {
        self.engine().refresh().await?;
        Ok(self.engine().header().await?)
    }
}

/// Puts copies of the header in force again, where they are lost or damaged, from the content that
/// [`Repository::export_header`] gave (or from what starts with it: a copy of a header's blob). What is intact is left
/// alone, and a header that is not in force is refused.
///
/// # Errors
/// As [`Engine::import_header`]; [`strongroom_core::Error::Damaged`] for a content that is no header.
pub async fn import_header(place: impl Into<Place>, content: &[u8], options: OpenOptions) -> Result<HeaderImport> {
    let header = Header::from_content(content.get(..HEADER_BYTES).unwrap_or(content)).map_err(refused)?;
    let opened = place::open(place.into(), options.surroundings.clone(), OpenMode::Existing).await?;
    let open = engine::OpenOptions {
        unlock: Unlock::Credentials(&options.credentials),
        read_only: false,
        accept_rollback: options.accept_rollback,
        trusted: opened.trusted.clone(),
        tuning: options.surroundings.tuning,
    };
    Ok(Engine::import_header(opened.storage, opened.env, &header, open).await?)
}

fn refused(error: HeaderError) -> strongroom_core::Error {
    match error {
        HeaderError::Damaged(error) => strongroom_core::Error::damaged("header to import", None, error.reason),
        HeaderError::Newer { detail } => strongroom_core::Error::NewerFormat { detail },
    }
}
