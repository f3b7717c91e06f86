use std::io;
use std::path::PathBuf;

/// Why a cache cannot be opened. Once it is open, it has no errors: whatever fails is a miss.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder, or a file in it, cannot be opened or written.
    #[error("the cache in {folder} cannot be used: {source}; name another folder, or leave the cache out")]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another process has it open with another size.
    #[error("the cache in {folder} is open with another size: name the same size, or another folder")]
    OtherSize {
        /// The folder.
        folder: PathBuf,
    },
    /// There is a file of another kind.
    #[error("{path} is no cache of ciphertext, and is left alone: name another folder")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}
