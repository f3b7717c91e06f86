//! Scratch places of media that are one file or folder: beside it, by a name of their own.

use std::io;
use std::path::Path;

use super::{Error, ErrorKind, OpenContext, OpenMode, Operation, Result, StorageConstructor, StorageUri};
use crate::env::MaybeSend;

/// The scratch place of that name, for [`StorageConstructor::scratch`].
///
/// # Errors
/// [`ErrorKind::Invalid`] where its path would be too long for a URI.
pub fn beside(uri: &StorageUri, name: &str) -> Result<StorageUri> {
    let mut path = uri.path().to_vec();
    path.extend_from_slice(format!(".{name}").as_bytes());
    uri.with_path(path)
}

/// Removes a scratch place where it holds no blob, for [`StorageConstructor::remove_scratch`]: by `remove`, when it is closed.
///
/// # Errors
/// [`ErrorKind::Invalid`] where it holds a blob; what the medium raises.
pub async fn remove_empty(
    constructor: &dyn StorageConstructor,
    uri: &StorageUri,
    context: &OpenContext,
    remove: impl FnOnce(&Path) -> io::Result<()> + MaybeSend + 'static,
) -> Result<()> {
    let path = uri.local_path()?;
    let existing = context.clone().with_mode(OpenMode::Existing);
    match constructor.open(uri, &existing).await {
        Ok(storage) if storage.list(&[], None).await?.is_empty() => drop(storage),
        Ok(_) => {
            return Err(Error::new(ErrorKind::Invalid, Operation::Open, uri.redacted())
                .with_source("it still holds blobs, so it is not removed"));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let shown = uri.redacted();
    let remove = move || match remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::from_io(Operation::Open, shown, error)),
        _ => Ok(()),
    };
    context.blocking().run(Operation::Open, remove).await
}
