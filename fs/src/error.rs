use std::io;
use std::sync::Arc;

use strongroom_core as core;

/// The result of a file system operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the file system can answer instead of a result. Paths are shown as given, bytes that are not UTF-8
/// replaced, and the middle of very long ones left out.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine failed.
    #[error(transparent)]
    Core(#[from] core::Error),
    /// Nothing has this name.
    #[error("{path}: no such file or directory")]
    NotFound {
        /// What was looked for.
        path: String,
    },
    /// The name is taken.
    #[error("{path}: already exists")]
    AlreadyExists {
        /// The name.
        path: String,
    },
    /// Something on the way, or at the end of it, is not a directory.
    #[error("{path}: not a directory")]
    NotADirectory {
        /// The path.
        path: String,
    },
    /// A directory where something else is needed.
    #[error("{path}: is a directory")]
    IsADirectory {
        /// The path.
        path: String,
    },
    /// The directory still holds something.
    #[error("{path}: directory not empty")]
    NotEmpty {
        /// The path.
        path: String,
    },
    /// A path that cannot name anything here.
    #[error("{path}: invalid path: {reason}")]
    InvalidPath {
        /// The path.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// A name or path longer than the limit.
    #[error("{path}: name of {bytes} bytes, at most {bytes_max} are possible")]
    NameTooLong {
        /// The name.
        path: String,
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// More symbolic links on the way than are followed; mostly a loop.
    #[error("{path}: too many symbolic links")]
    SymlinkLoop {
        /// The path.
        path: String,
    },
    /// Not a symbolic link, where one is needed.
    #[error("{path}: not a symbolic link")]
    NotASymlink {
        /// The path.
        path: String,
    },
    /// There is no extended attribute of this name.
    #[error("{path}: no extended attribute {name}")]
    NoXattr {
        /// The path.
        path: String,
        /// The attribute.
        name: String,
    },
    /// A directory was to be moved or copied into itself.
    #[error("{path}: cannot be moved or copied into itself")]
    IntoItself {
        /// The directory.
        path: String,
    },
    /// A file would get more names than the limit.
    #[error("{path}: has as many links as are possible")]
    TooManyLinks {
        /// The file.
        path: String,
    },
    /// A file would get longer than the limit.
    #[error("file of {bytes} bytes, at most {bytes_max} are possible")]
    FileTooLarge {
        /// The length it would get.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The whole of a file was asked for, and memory does not hold it.
    #[error("{bytes} bytes of a file are more than memory holds: read it in parts")]
    OutOfMemory {
        /// The length of the file.
        bytes: u64,
    },
    /// The file has no version of this number, or has it no longer.
    #[error("{path}: has no version {number}, only {oldest} to {current}")]
    NoSuchVersion {
        /// The file.
        path: String,
        /// The number.
        number: u64,
        /// The oldest that it has.
        oldest: u64,
        /// The current one.
        current: u64,
    },
    /// The handle's file was removed.
    #[error("the open file was removed")]
    Stale,
    /// The handle was not opened for this.
    #[error("the file was not opened for {access}")]
    WrongAccess {
        /// "reading" or "writing".
        access: &'static str,
    },
    /// An operation of the transaction or on the file did not run to its end; what it left cannot be committed.
    #[error(
        "an earlier operation was interrupted: its changes, and those before it that were not committed, are dropped"
    )]
    Interrupted,
    /// The source of a file's content failed.
    #[error("reading the content failed: {0}")]
    Source(Arc<io::Error>),
    /// A change of a batch was refused, and with it the batch.
    #[error("operation {index}: {error}")]
    InBatch {
        /// The number of the change, from 0.
        index: usize,
        /// Why.
        error: Box<Error>,
    },
    /// There is no file system in this repository.
    #[error("this repository holds no file system")]
    NoFileSystem,
}

impl Error {
    /// Whether another transaction was faster, or the state that this one began on was given up, so that running it again
    /// may succeed.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Core(error) => matches!(error, core::Error::Conflict | core::Error::Expired),
            Self::InBatch { error, .. } => error.is_conflict(),
            _ => false,
        }
    }

    /// The kind that the standard library has for this.
    #[must_use]
    pub fn io_kind(&self) -> io::ErrorKind {
        use core::Error as E;
        use core::storage::ErrorKind as S;
        use io::ErrorKind as K;
        match self {
            Self::NotFound { .. }
            | Self::NoXattr { .. }
            | Self::NoSuchVersion { .. }
            | Self::NoFileSystem
            | Self::Core(E::NotARepository) => K::NotFound,
            Self::AlreadyExists { .. } | Self::Core(E::AlreadyExists) => K::AlreadyExists,
            Self::NotADirectory { .. } => K::NotADirectory,
            Self::IsADirectory { .. } => K::IsADirectory,
            Self::NotEmpty { .. } => K::DirectoryNotEmpty,
            Self::InvalidPath { .. }
            | Self::NotASymlink { .. }
            | Self::IntoItself { .. }
            | Self::Core(E::Invalid(_) | E::BlocksTooSmall { .. }) => K::InvalidInput,
            Self::NameTooLong { .. } => K::InvalidFilename,
            Self::TooManyLinks { .. } => K::TooManyLinks,
            Self::FileTooLarge { .. } | Self::Core(E::LimitExceeded { .. }) => K::FileTooLarge,
            Self::Stale | Self::Core(E::Expired | E::ContentGone) => K::StaleNetworkFileHandle,
            Self::OutOfMemory { .. } => K::OutOfMemory,
            Self::WrongAccess { .. } | Self::Core(E::WrongCredentials) => K::PermissionDenied,
            Self::Source(source) => source.kind(),
            Self::InBatch { error, .. } => error.io_kind(),
            Self::Core(E::InClone(error) | E::InCopy(error)) => Self::Core((**error).clone()).io_kind(),
            Self::Core(E::Damaged(_) | E::RolledBack { .. } | E::UnfinishedCopy) => K::InvalidData,
            Self::Core(E::NewerFormat { .. }) => K::Unsupported,
            Self::Core(E::Conflict) => K::ResourceBusy,
            Self::Core(E::Stopped) => K::Interrupted,
            Self::Core(E::ReadOnly) => K::ReadOnlyFilesystem,
            Self::Core(E::Closed) => K::NotConnected,
            Self::Core(E::Storage(error)) => match error.kind() {
                S::NotFound => K::NotFound,
                S::Full => K::StorageFull,
                S::PermissionDenied | S::Credentials => K::PermissionDenied,
                S::ReadOnly => K::ReadOnlyFilesystem,
                S::Busy => K::ResourceBusy,
                S::Unavailable => K::TimedOut,
                S::Invalid => K::InvalidInput,
                S::Unsupported => K::Unsupported,
                S::Corrupt => K::InvalidData,
                _ => K::Other,
            },
            // A loop has no stable kind of its own yet.
            _ => K::Other,
        }
    }
}

impl core::engine::ConflictTest for Error {
    fn is_conflict(&self) -> bool {
        Self::is_conflict(self)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.io_kind(), error)
    }
}

/// A path for an error message.
pub(crate) fn shown(path: &[u8]) -> String {
    core::storage::brief(&String::from_utf8_lossy(path)).into_owned()
}

/// Damage of the file system's own structures.
pub(crate) fn damaged(structure: &'static str, detail: impl Into<String>) -> Error {
    Error::Core(core::Error::damaged(structure, None, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_carry_over_to_the_standard_library_with_kind_and_message() {
        let error = io::Error::from(Error::NotEmpty { path: "a/b".into() });
        assert_eq!(error.kind(), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(error.to_string(), "a/b: directory not empty");
        assert_eq!(io::Error::from(Error::Core(core::Error::ReadOnly)).kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
}
