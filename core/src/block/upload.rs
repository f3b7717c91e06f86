use bytes::Bytes;

use super::BlockContext;
use super::slot::Slot;
use crate::storage::{Effect, ErrorKind, Name, Put, Retry};
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
            Ok(Put::Exists) => match context.storage.get(name, None, bytes.len() as u64).await {
                Ok(found) if found == bytes => return Ok(()),
                Ok(_) => return Err(taken(name)),
                Err(error) if error.kind() == ErrorKind::LimitExceeded => return Err(taken(name)),
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

fn taken(name: Name) -> Error {
    Error::damaged(
        "block",
        Some(name),
        "other content is under the name of a new block: another writer uses this epoch",
    )
}
