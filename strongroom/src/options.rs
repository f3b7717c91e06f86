//! How a repository is created and opened.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use strongroom_core::cache::Cache;
use strongroom_core::crypto::{KdfParameters, Suite};
use strongroom_core::engine::keyring::{Credentials, RecoveryKey};
use strongroom_core::engine::{CloneProgress, DefragmentOptions, TrustedState, Tuning};
use strongroom_core::env::Env;
use strongroom_core::layer::{Metrics, RetryPolicy};
use strongroom_core::storage::{BlockingMode, Registry, Storage, StorageUri};
use strongroom_fs::{Compression, Tuning as FileTuning};

use crate::caching::Caching;
use crate::layers::Layers;

/// Where a repository is: a URI (`file:dir`, `mem://name`, a bare path), or a storage that is open already.
#[derive(Clone, Debug)]
pub enum Place {
    /// Text to be read as a URI.
    Text(String),
    /// A URI.
    Uri(StorageUri),
    /// An open storage. It has no location, so that what this device has seen of it is remembered only by a
    /// [`TrustedState`] of the caller's.
    Storage(Arc<dyn Storage>),
}

impl From<&str> for Place {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Place {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<StorageUri> for Place {
    fn from(uri: StorageUri) -> Self {
        Self::Uri(uri)
    }
}

impl From<&StorageUri> for Place {
    fn from(uri: &StorageUri) -> Self {
        Self::Uri(uri.clone())
    }
}

impl From<Arc<dyn Storage>> for Place {
    fn from(storage: Arc<dyn Storage>) -> Self {
        Self::Storage(storage)
    }
}

/// What creating and opening have in common.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) env: Option<Env>,
    pub(crate) registry: Option<Registry>,
    pub(crate) blocking: BlockingMode,
    pub(crate) trust: Trust,
    pub(crate) tuning: Tuning,
    pub(crate) file_tuning: FileTuning,
    pub(crate) layers: Layers,
    pub(crate) defragment: Option<DefragmentOptions>,
}

/// Where it is remembered what this device has seen.
#[derive(Clone)]
pub(crate) enum Trust {
    /// In the user's state folder, where the place has a location that outlives the process.
    User,
    /// Nowhere: a rollback goes unnoticed.
    Nowhere,
    /// As the caller says.
    Given(Arc<dyn TrustedState>),
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            env: None,
            registry: None,
            blocking: BlockingMode::Offload,
            trust: Trust::User,
            tuning: Tuning::default(),
            file_tuning: FileTuning::default(),
            layers: Layers::default(),
            defragment: Some(DefragmentOptions::default()),
        }
    }
}

macro_rules! surroundings {
    () => {
        /// Runs on this environment rather than on one of its own: share one among many repositories.
        #[must_use]
        pub fn env(mut self, env: Env) -> Self {
            self.surroundings.env = Some(env);
            self
        }

        /// Opens the storage through this registry rather than [`crate::registry::default`].
        #[must_use]
        pub fn registry(mut self, registry: Registry) -> Self {
            self.surroundings.registry = Some(registry);
            self
        }

        /// In which thread a storage whose calls block makes them; [`crate::blocking`] asks for its own.
        #[must_use]
        pub fn storage_calls(mut self, mode: BlockingMode) -> Self {
            self.surroundings.blocking = mode;
            self
        }

        /// Remembers here what this device has seen of the repository, rather than in the user's state folder.
        #[must_use]
        pub fn trusted_state(mut self, state: Arc<dyn TrustedState>) -> Self {
            self.surroundings.trust = Trust::Given(state);
            self
        }

        /// Remembers nothing: then nobody notices when the storage goes back to an older state. And in a folder what the last crashes
        /// leave behind takes space for 30 days, or until a compaction ends other writers; what each leaves, where other devices
        /// have written as well, as under a sync client, or the folder was moved, restored or cloned to where it is.
        #[must_use]
        pub fn without_trusted_state(mut self) -> Self {
            self.surroundings.trust = Trust::Nowhere;
            self
        }

        /// Bounds of the engine's work; those of the file system's are [`Self::file_tuning`]'s.
        #[must_use]
        pub fn tuning(mut self, tuning: Tuning) -> Self {
            self.surroundings.tuning = tuning;
            self
        }

        /// How much memory the files take while the repository is open: decoded chunks that are kept, what is read ahead, what
        /// is prepared to be stored, and what is gathered before it is written back. Nothing of it is stored, so that it may be
        /// another each time; 0 is allowed everywhere, and slow. In [`crate::blocking`] too, which takes the same options.
        ///
        /// ```
        /// # fn main() -> strongroom::Result<()> {
        /// use strongroom::{CreateOptions, Credentials, FileTuning, blocking::Repository};
        /// let small = FileTuning { cache_bytes: 1 << 20, write_back_bytes: 256 << 10, ..FileTuning::default() };
        /// let options = CreateOptions::new(Credentials::password("correct horse")).file_tuning(small);
        /// # let options = options.kdf_millis(1);
        /// let repository = Repository::create("mem://file-tuning", options)?;
        /// # repository.close()
        /// # }
        /// ```
        #[must_use]
        pub fn file_tuning(mut self, tuning: FileTuning) -> Self {
            self.surroundings.file_tuning = tuning;
            self
        }

        /// Defragments in the background as this says; by default as [`DefragmentOptions::default`] does, which leaves alone
        /// what is small, or open for a moment. Not where it is opened for reading only, nor in an environment without
        /// workers: there [`strongroom_core::engine::Engine::defragmenter`] is for the caller to run.
        #[must_use]
        pub fn defragment(mut self, options: DefragmentOptions) -> Self {
            self.surroundings.defragment = Some(options);
            self
        }

        /// Defragments nothing in the background.
        #[must_use]
        pub fn without_defragmenting(mut self) -> Self {
            self.surroundings.defragment = None;
            self
        }

        /// Keeps what is read in this cache. Only ciphertext goes there, and nothing that comes from there is believed. By default a remote storage has one in memory, of
        /// [`crate::CACHE_BYTES_MAX_DEFAULT`], and a local one has none.
        #[must_use]
        pub fn cache(mut self, cache: Arc<dyn Cache>) -> Self {
            self.surroundings.layers.cache = Some(Caching::Given(cache));
            self
        }

        /// Keeps what is read in a folder of this machine, in a file of so many bytes, for the next time and for other
        /// processes too: see [`strongroom_file_cache`]. The folder is made where it is not there; repositories may share one. An
        /// address says the same with the parameters `cache=DIR` and `cache-size=BYTES`.
        ///
        /// Opening fails where the folder cannot be used, where a file in it is something else, or where another process has it open
        /// with another size; afterwards whatever fails in it is a miss.
        ///
        /// ```
        /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// use strongroom::blocking::Repository;
        /// use strongroom::{CreateOptions, Credentials};
        /// # let folder = tempfile::tempdir()?;
        /// # let caches = folder.path();
        /// let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
        /// let repository = Repository::create("mem://far-away", options.cache_folder(caches.join("far-away"), 64 << 20))?;
        /// # repository.close()?;
        /// # Ok(())
        /// # }
        /// ```
        #[cfg(feature = "file-cache")]
        #[must_use]
        pub fn cache_folder(mut self, folder: impl Into<std::path::PathBuf>, bytes_max: u64) -> Self {
            self.surroundings.layers.cache = Some(Caching::Folder { folder: folder.into(), bytes_max });
            self
        }

        /// Keeps so many bytes of what is read in memory, or in the folder that the address names; 0 for none.
        #[must_use]
        pub fn cache_bytes_max(mut self, bytes: u64) -> Self {
            self.surroundings.layers.cache = Some(if bytes == 0 { Caching::None } else { Caching::Memory(bytes) });
            self
        }

        /// Tries calls again as this says, and settles those of unknown effect. By default a remote storage is retried
        /// as [`RetryPolicy::default`] says, and a local one is not.
        #[must_use]
        pub fn retry(mut self, policy: RetryPolicy) -> Self {
            self.surroundings.layers.retry = Some(Some(policy));
            self
        }

        /// Tries nothing again.
        #[must_use]
        pub fn without_retry(mut self) -> Self {
            self.surroundings.layers.retry = Some(None);
            self
        }

        /// Gives up a call that takes longer; [`Duration::MAX`] waits for ever. By default a remote storage has
        /// [`crate::TIMEOUT_DEFAULT`], and a local one all the time it wants.
        #[must_use]
        pub fn timeout(mut self, call_max: Duration) -> Self {
            self.surroundings.layers.timeout = Some((call_max != Duration::MAX).then_some(call_max));
            self
        }

        /// Sends at most so many bytes of blobs a second.
        #[must_use]
        pub fn limit_upload(mut self, bytes_per_second: NonZeroU64) -> Self {
            self.surroundings.layers.limits.upload_bytes_per_second = Some(bytes_per_second);
            self
        }

        /// Receives at most so many bytes of blobs a second.
        #[must_use]
        pub fn limit_download(mut self, bytes_per_second: NonZeroU64) -> Self {
            self.surroundings.layers.limits.download_bytes_per_second = Some(bytes_per_second);
            self
        }

        /// Counts what goes to the storage; keep a clone to look.
        #[must_use]
        pub fn metrics(mut self, metrics: Metrics) -> Self {
            self.surroundings.layers.metrics = Some(metrics);
            self
        }
    };
}

/// How to create a repository.
///
/// ```
/// use strongroom::{CreateOptions, Credentials};
/// let options = CreateOptions::new(Credentials::password("correct horse")).block_bytes(64 << 10).dedup(false);
/// ```
pub struct CreateOptions {
    pub(crate) surroundings: Surroundings,
    pub(crate) credentials: Credentials,
    pub(crate) recovery: Option<RecoveryKey>,
    pub(crate) suite: Option<Suite>,
    pub(crate) block_bytes: Option<u32>,
    pub(crate) kdf: Kdf,
    pub(crate) compression: Compression,
    pub(crate) dedup: bool,
    pub(crate) versions: u32,
}

/// What a password costs to try.
#[derive(Clone, Copy)]
pub(crate) enum Kdf {
    Exactly(KdfParameters),
    Millis(u64),
}

/// What one attempt at a password takes, unless said otherwise, in milliseconds on the machine that creates.
pub const KDF_MILLIS_DEFAULT: u64 = 500;

impl CreateOptions {
    /// With these credentials, and defaults that suit the place and this machine.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self {
            surroundings: Surroundings::default(),
            credentials,
            recovery: None,
            suite: None,
            block_bytes: None,
            kdf: Kdf::Millis(KDF_MILLIS_DEFAULT),
            compression: Compression::Lz4,
            dedup: true,
            versions: 0,
        }
    }

    surroundings!();

    /// A second way in, for paper. Without one, lost credentials are lost data.
    #[must_use]
    pub fn recovery_key(mut self, key: RecoveryKey) -> Self {
        self.recovery = Some(key);
        self
    }

    /// The cipher suite, for life; by default the one that this CPU is fast at.
    #[must_use]
    pub fn cipher(mut self, suite: Suite) -> Self {
        self.suite = Some(suite);
        self
    }

    /// The size of every blob in bytes, for life: a power of two, 4 KiB to 4 MiB; by default what suits the storage.
    #[must_use]
    pub fn block_bytes(mut self, bytes: u32) -> Self {
        self.block_bytes = Some(bytes);
        self
    }

    /// Whether file content is compressed where that helps; by default it is, with LZ4.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Whether equal content is stored once; by default it is. Off, its growth tells nobody what was there already.
    #[must_use]
    pub fn dedup(mut self, dedup: bool) -> Self {
        self.dedup = dedup;
        self
    }

    /// How many older versions of each file are kept, at most [`strongroom_fs::VERSIONS_MAX`]; by default none. A file may
    /// have a limit of its own: [`strongroom_fs::FileSystem::set_version_limit`].
    #[must_use]
    pub fn versions(mut self, versions: u32) -> Self {
        self.versions = versions;
        self
    }

    /// Exactly this cost of one attempt at a password.
    #[must_use]
    pub fn kdf(mut self, parameters: KdfParameters) -> Self {
        self.kdf = Kdf::Exactly(parameters);
        self
    }

    /// A cost of one attempt of about this many milliseconds on this machine; never below a floor.
    #[must_use]
    pub fn kdf_millis(mut self, millis: u64) -> Self {
        self.kdf = Kdf::Millis(millis);
        self
    }
}

/// How to open a repository.
pub struct OpenOptions {
    pub(crate) surroundings: Surroundings,
    pub(crate) credentials: Credentials,
    pub(crate) read_only: bool,
    pub(crate) accept_rollback: bool,
}

impl OpenOptions {
    /// For reading and writing, with these credentials.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self { surroundings: Surroundings::default(), credentials, read_only: false, accept_rollback: false }
    }

    surroundings!();

    /// Writes nothing at all to the storage: a [`ReadOnly`](crate::layer::ReadOnly) stands on it.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Opens even where this device has seen a newer state; what is found becomes the newest.
    #[must_use]
    pub fn accept_rollback(mut self, accept: bool) -> Self {
        self.accept_rollback = accept;
        self
    }
}

/// How a repository is cloned.
#[derive(Default)]
pub struct CloneOptions<'a> {
    pub(crate) surroundings: Surroundings,
    pub(crate) prune: bool,
    pub(crate) partial: bool,
    pub(crate) checksum: bool,
    pub(crate) progress: Option<&'a mut (dyn FnMut(CloneProgress) -> bool + Send)>,
}

impl<'a> CloneOptions<'a> {
    surroundings!();

    /// Deletes from the clone what its newest state does not need, so that a mirror does not grow for ever. Who reads an older
    /// state of the clone has to open it again.
    #[must_use]
    pub fn prune(mut self, prune: bool) -> Self {
        self.prune = prune;
        self
    }

    /// Leaves out blocks that the source has lost, and that the clone does not have, rather than to fail for them.
    #[must_use]
    pub fn partial(mut self, partial: bool) -> Self {
        self.partial = partial;
        self
    }

    /// Compares what the clone has already too, and puts it again where it is damaged or lost.
    #[must_use]
    pub fn checksum(mut self, checksum: bool) -> Self {
        self.checksum = checksum;
        self
    }

    /// Hears how far it is, and says whether to go on.
    #[must_use]
    pub fn progress(mut self, hear: &'a mut (dyn FnMut(CloneProgress) -> bool + Send)) -> Self {
        self.progress = Some(hear);
        self
    }
}
