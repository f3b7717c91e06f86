use strongroom_core::engine::Engine;

use crate::chunker::ChunkSizes;
use crate::error::Result;
pub use crate::format::Compression;
use crate::format::OptionsRow;
use crate::versions::check_limit;

/// What is chosen when a file system is created, and stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What is tried on chunks before they are stored.
    pub compression: Compression,
    /// Whether equal chunks are stored once. Off, storage that can also plant files learns nothing from growth.
    pub dedup: bool,
    /// Versions of a file to keep beside the current one, where the file has no limit of its own; at most
    /// [`crate::VERSIONS_MAX`].
    pub versions: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { compression: Compression::Lz4, dedup: true, versions: 0 }
    }
}

impl Options {
    /// Whether a file system can have these.
    ///
    /// # Errors
    /// [`strongroom_core::Error::LimitExceeded`] for more versions than can be kept.
    pub fn check(&self) -> Result<()> {
        check_limit(self.versions)
    }

    pub(crate) fn row(self, engine: &Engine) -> OptionsRow {
        OptionsRow {
            compression: self.compression,
            dedup: self.dedup,
            versions: self.versions,
            sizes: ChunkSizes::for_block(engine.block_bytes(), engine.chunk_bytes_max()),
        }
    }
}

/// How much memory an open file system may use; nothing of it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Decoded chunks kept, for all files together. 0 keeps none.
    pub cache_bytes: u64,
    /// Chunks fetched ahead of a sequential reader, per file.
    pub read_ahead_bytes: u64,
    /// Chunks hashed and compressed ahead of storing, per writer.
    pub in_flight_bytes: usize,
    /// Random writes gathered before their chunks are cut anew, per file.
    pub write_back_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { cache_bytes: 24 << 20, read_ahead_bytes: 2 << 20, in_flight_bytes: 4 << 20, write_back_bytes: 4 << 20 }
    }
}

/// How a file is opened. The default opens for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) truncate: bool,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) mode: u32,
    pub(crate) versions: Option<u32>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            read: true,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            mode: 0o644,
            versions: None,
        }
    }
}

macro_rules! setter {
    ($($(#[$doc:meta])* $name:ident: $kind:ty),* $(,)?) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $kind) -> Self {
            self.$name = $name;
            self
        }
    )*};
}

impl OpenOptions {
    /// For reading only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setter! {
        /// Whether reading is allowed.
        read: bool,
        /// Whether writing is allowed.
        write: bool,
        /// Whether every write goes to the end; implies writing.
        append: bool,
        /// Whether what is there is dropped; needs writing.
        truncate: bool,
        /// Whether the file is made where it is missing; needs writing.
        create: bool,
        /// Whether the file must be made by this call; needs writing.
        create_new: bool,
        /// Permission bits of a file that is made.
        mode: u32,
        /// How many versions a file that is made keeps beside the current one, at most [`crate::VERSIONS_MAX`]; where not
        /// given, as many as the repository says.
        versions: Option<u32>,
    }

    pub(crate) fn writes(&self) -> bool {
        self.write || self.append
    }
}
