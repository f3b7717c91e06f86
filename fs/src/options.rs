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
            seed: None,
        }
    }
}

/// How much memory an open file system may use; nothing of it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Decoded chunks kept, for all files together. 0 keeps none.
    pub cache_bytes: u64,
    /// Chunks fetched ahead of a sequential reader, per file: on their way, or there and not all read. Over a network eight times
    /// as many, since a round trip is worth megabytes there; but no more than four times what was read in order so far, or 1 MiB.
    pub read_ahead_bytes: u64,
    /// Chunks hashed and compressed ahead of storing, per writer.
    pub in_flight_bytes: usize,
    /// Random writes gathered before their chunks are cut anew, per file; all files together gather at most four times
    /// that, and one write each. What they take in memory is counted: the bytes written, and 96 more for each stretch of
    /// them that touches no other. Writing back takes as much again at a time, for what lies between them. What was appended
    /// and is not stored yet ([`Self::in_flight_bytes`]) counts too for all together; of each file that is appended to, less
    /// than the longest chunk is held besides, until it is flushed.
    pub write_back_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { cache_bytes: 24 << 20, read_ahead_bytes: 2 << 20, in_flight_bytes: 4 << 20, write_back_bytes: 4 << 20 }
    }
}

/// Whether reading a file notes when that was. What is noted costs a commit, so it is noted by [`crate::File::flush`] and
/// [`crate::File::close`] of a handle that was read, once for all reads before it: not by the reads themselves, not when a
/// handle is dropped, and not where the repository is open for reading only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessTime {
    /// Reading writes nothing.
    #[default]
    Never,
    /// Where the time that is noted is not later than the last change of content or attributes, or is a day old.
    Relative,
    /// Whenever it was read.
    Strict,
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
    pub(crate) access_time: AccessTime,
    pub(crate) versions: Option<u32>,
    pub(crate) dedup: Option<bool>,
    pub(crate) compression: Option<Compression>,
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
            access_time: AccessTime::Never,
            versions: None,
            dedup: None,
            compression: None,
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
        /// Whether reading notes when that was.
        access_time: AccessTime,
    }

    /// Versions of the file to keep beside the current one, from now on, whatever the repository does; 0 keeps none. At most
    /// [`crate::VERSIONS_MAX`]. Needs writing; as [`crate::FileSystem::set_version_limit`].
    #[must_use]
    pub fn versions(mut self, versions: u32) -> Self {
        self.versions = Some(versions);
        self
    }

    /// Whether equal chunks of the file are stored once, from now on, whatever the repository does: of what is written through
    /// handles that are open already, too. Needs writing.
    #[must_use]
    pub fn dedup(mut self, dedup: bool) -> Self {
        self.dedup = Some(dedup);
        self
    }

    /// What is tried on the file's chunks before they are stored, from now on, whatever the repository does; as
    /// [`Self::dedup`]. Needs writing.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Whether opening changes what is there, if only the settings of the file.
    pub(crate) fn changes(&self) -> bool {
        self.create || self.create_new || self.truncate || self.sets()
    }

    pub(crate) fn sets(&self) -> bool {
        self.versions.is_some() || self.dedup.is_some() || self.compression.is_some()
    }

    pub(crate) fn writes(&self) -> bool {
        self.write || self.append
    }
}
