use bytes::Bytes;

use super::BlockContext;
use super::slot::Slot;
use crate::storage::{Effect, ErrorKind, Name, Put, Result as StorageResult, Retry, Storage};
use crate::{Error, Result};

/// How often a put is tried. Waiting between tries is the business of the layer that retries; this settles what it left
/// unknown.
const ATTEMPTS_COUNT: usize = 3;

/// Seals a block and puts it, until storage has acknowledged it.
pub(super) async fn upload(context: &BlockContext, slot: &Slot) -> Result<()> {
    let (name, bytes) = slot.seal(&context.keys)?;
    put(context, name, bytes).await?;
    slot.stored();
    Ok(())
}

async fn put(context: &BlockContext, name: Name, bytes: Bytes) -> Result<()> {
    let mut attempt = 1;
    loop {
        let error = match context.storage.put(name, bytes.clone()).await {
            Ok(Put::Created) => return Ok(()),
            // An earlier try may have taken effect after all; the same bytes can only be ours.
            Ok(Put::Exists) => match is_there(&*context.storage, name, &bytes).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(taken(name)),
                Err(error) => error,
            },
            Err(error) => error,
        };
        // Not found: what was in the way has been deleted since.
        let again =
            error.retry() == Retry::CanHelp || error.effect() == Effect::Unknown || error.kind() == ErrorKind::NotFound;
        if attempt >= ATTEMPTS_COUNT || !again {
            return Err(error.into());
        }
        attempt += 1;
    }
}

/// Whether what is under a name are these bytes.
pub(super) async fn is_there(storage: &dyn Storage, name: Name, bytes: &Bytes) -> StorageResult<bool> {
    match storage.get(name, None, bytes.len() as u64).await {
        Ok(found) => Ok(found == *bytes),
        Err(error) if error.kind() == ErrorKind::LimitExceeded => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn taken(name: Name) -> Error {
    Error::damaged(
        "block",
        Some(name),
        "other content is under the name of a new block: another writer uses this epoch",
    )
}
