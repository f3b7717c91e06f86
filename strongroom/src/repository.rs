//! A repository: one encrypted store at one place, with its file system and its key-value store.

use std::sync::Arc;

use strongroom_core::crypto::{KdfParameters, Suite};
use strongroom_core::engine::keyring;
use strongroom_core::engine::{self, DefragmentOptions, DefragmentStatus, Defragmenter, Engine, Unlock};
use strongroom_core::format::limits::check_block_bytes;
use strongroom_core::storage::{OpenContext, OpenMode, Registry, Storage, StorageUri, StraysSought};
use strongroom_fs::{Error, FileSystem, Result};

use crate::caching::Caching;
use crate::kv::Kv;
use crate::layers::Layers;
use crate::options::{CreateOptions, Kdf, OpenOptions, Place, Surroundings};
use crate::place::{self, Opened};

/// An open repository; cheap to clone, usable from many tasks.
///
/// [`Repository::close`] leaves it tidy. Dropping it loses nothing that was acknowledged.
#[derive(Clone)]
pub struct Repository {
    engine: Engine,
    fs: FileSystem,
    kv: Kv,
    uri: Option<StorageUri>,
    registry: Option<Registry>,
    remembers: bool,
    /// Ends with the last clone of the handle.
    defragmenter: Option<Arc<Defragmenter>>,
}

impl Repository {
    /// Creates a repository, and the folder or store that it lies in; refuses where one is already.
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
    /// use strongroom::{CreateOptions, Credentials, Repository};
    /// let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// let repository = Repository::create("mem://example", options).await?;
    /// repository.fs().write("/hello", b"world").await?;
    /// assert_eq!(repository.fs().read("/hello").await?, b"world");
    /// repository.close().await
    /// # }) }
    /// ```
    ///
    /// # Errors
    /// [`strongroom_core::Error::AlreadyExists`] where one is; [`strongroom_core::Error::Invalid`] for options that make
    /// no sense; what the storage raises.
    pub async fn create(place: impl Into<Place>, options: CreateOptions) -> Result<Self> {
        let files = strongroom_fs::Options {
            compression: options.compression,
            dedup: options.dedup,
            versions: options.versions,
        };
        files.check()?;
        let creation = Creation::begin(place.into(), options).await?;
        let fill =
            async |engine: &Engine, first: &mut engine::Transaction| FileSystem::fill(engine, first, files).await;
        let Opened { storage, env, .. } = &creation.opened;
        let engine = Engine::create_with(storage.clone(), env.clone(), creation.options(), fill).await?;
        creation.finish(engine).await
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// Of [`strongroom_core::Error`]: `NotARepository` where none is, `WrongCredentials`, `RolledBack` where this device
    /// has seen a newer state, `Damaged`, `NewerFormat`; what the storage raises.
    pub async fn open(place: impl Into<Place>, options: OpenOptions) -> Result<Self> {
        let Surroundings { tuning, file_tuning, defragment, .. } = options.surroundings;
        if let Some(defragment) = &defragment {
            defragment.validate()?;
        }
        let opened = place::open(place.into(), options.surroundings, OpenMode::Existing).await?;
        let open = engine::OpenOptions {
            unlock: Unlock::Credentials(&options.credentials),
            read_only: options.read_only,
            accept_rollback: options.accept_rollback,
            trusted: opened.trusted.clone(),
            tuning,
        };
        let engine = Engine::open(opened.storage.clone(), opened.env.clone(), open).await?;
        let mut attempts_left = tuning.attempts_max;
        let fs = loop {
            match FileSystem::open_with(engine.clone(), file_tuning).await {
                // An application made the repository by the engine alone, which knows no files.
                Err(Error::NoFileSystem) if !options.read_only => {
                    FileSystem::create(engine.clone(), strongroom_fs::Options::default()).await?;
                }
                // Others gave up the state between our finding it and our reading it.
                Err(error) if error.is_conflict() && attempts_left > 0 => {
                    attempts_left -= 1;
                    engine.refresh().await?;
                }
                opened => break opened?,
            }
        };
        Self::assemble(engine, fs, opened, defragment)
    }

    fn assemble(engine: Engine, fs: FileSystem, opened: Opened, defragment: Option<DefragmentOptions>) -> Result<Self> {
        let remembers = opened.trusted.is_some();
        // Without workers nobody would run it.
        let defragment = defragment.filter(|_| !engine.is_read_only() && engine.env().has_workers());
        let defragmenter = defragment.map(|options| engine.defragmenter(options)).transpose()?.map(Arc::new);
        let Opened { uri, registry, .. } = opened;
        Ok(Self { kv: Kv::new(engine.clone()), engine, fs, uri, registry, remembers, defragmenter })
    }

    /// Its files.
    #[must_use]
    pub fn fs(&self) -> &FileSystem {
        &self.fs
    }

    /// Its keys and values.
    #[must_use]
    pub fn kv(&self) -> Kv {
        self.kv.clone()
    }

    /// Keys and values of the application's own, apart from those of [`Repository::kv`], which are table 0: for what is to be
    /// ordered, scanned and emptied by itself, such as an index. Numbers go up to [`kv::TABLE_NUMBER_MAX`](crate::kv::TABLE_NUMBER_MAX);
    /// what they mean is the application's to say, and none has to be made before. To change several, or files with them:
    /// [`crate::Transaction::table`].
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
    /// # use strongroom::{CreateOptions, Credentials, Repository};
    /// # let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// # let repository = Repository::create("mem://table", options).await?;
    /// const BY_DATE: u8 = 1;
    /// let by_date = repository.table(BY_DATE)?;
    /// by_date.put(b"2026-11-29", b"/letters/to-anna").await?;
    /// assert!(repository.kv().get(b"2026-11-29").await?.is_none());
    /// # repository.close().await
    /// # }) }
    /// ```
    ///
    /// # Errors
    /// [`strongroom_core::Error::LimitExceeded`] for a number that no table has.
    pub fn table(&self, number: u8) -> Result<Kv> {
        Ok(self.kv.numbered(number)?)
    }

    /// The engine under both. Its tables from 0xc0 on are for rows of any shape of the application's; see
    /// [`strongroom_fs::FsTransaction::engine`] for what they may hold.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where it is, when it was opened by a URI.
    #[must_use]
    pub fn uri(&self) -> Option<&StorageUri> {
        self.uri.as_ref()
    }

    /// Whether this device remembers what it sees here, so that a storage which goes back in time is noticed.
    #[must_use]
    pub fn remembers(&self) -> bool {
        self.remembers
    }

    /// Learns what other processes have committed since.
    ///
    /// # Errors
    /// What the storage raises.
    pub async fn refresh(&self) -> Result<()> {
        Ok(self.engine.refresh().await?)
    }

    /// What it is and holds; costs what [`engine::Engine::info`] says. [`Repository::sizes`] counts content, too.
    ///
    /// # Errors
    /// What the storage raises.
    pub async fn info(&self) -> Result<engine::EngineInfo> {
        Ok(self.engine.info().await?)
    }

    /// Gives back the space of what nothing needs any more, and packs what is left. Others can go on beside it.
    ///
    /// # Errors
    /// As committing; cut short at any point, it has done a part and harmed nothing. Where other writers are to be ended, of
    /// [`strongroom_core::Error`] `Invalid` where [strays](crate::strays) lie among the blobs: what another device has put may
    /// be on its way.
    pub async fn compact(&self, options: engine::CompactOptions<'_>) -> Result<engine::CompactReport> {
        if options.end_other_writers {
            self.refuse_arrivals().await?;
        }
        // What a damaged or full storage keeps of removed files is no reason to leave the rest as it is, and is tried again by
        // the next writer; `check` tells of damage.
        let _ = self.fs.reclaim_orphans().await;
        Ok(self.engine.compact(options).await?)
    }

    /// What has not come yet cannot be asked for; but what a sync client is at work on is seen.
    async fn refuse_arrivals(&self) -> Result<()> {
        let (Some(uri), Some(registry)) = (&self.uri, &self.registry) else { return Ok(()) };
        let context = OpenContext::new(self.engine.env().clone());
        let constructor = registry.constructor(uri).map_err(strongroom_core::Error::from)?;
        let strays =
            constructor.strays(uri, StraysSought::All, &context).await.map_err(strongroom_core::Error::from)?;
        match strays.first() {
            None => Ok(()),
            Some(first) => Err(strongroom_core::Error::Invalid(format!(
                "beside the blobs lie {} files of a sync client ({}): other writers are not ended until all has arrived, and what is left of conflicts is gone",
                strays.len(),
                first.called.escape_debug()
            ))
            .into()),
        }
    }

    /// Forgets what is kept in memory for no other reason than to be fast, such as before the application sleeps, or when
    /// memory is wanted elsewhere: decoded tree nodes and chunks, and keys of blocks, which are erased. Nothing is lost by
    /// it, and nothing has to be opened again: open files keep what was written to them, and everybody reads from the
    /// storage again. The cache of ciphertext before a remote storage stays; where it is not to, give the options a
    /// [`cache`](OpenOptions::cache) of your own.
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
    /// # use strongroom::{CreateOptions, Credentials, Repository, fs::OpenOptions};
    /// # let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// # let repository = Repository::create("mem://drop-caches", options).await?;
    /// repository.fs().write("/letter", b"Dear Anna").await?;
    /// let letter = repository.fs().open_file("/letter", OpenOptions::new().write(true)).await?;
    /// letter.append(b", ...").await?;
    /// repository.drop_caches();
    /// letter.close().await?;
    /// assert_eq!(repository.fs().read("/letter").await?, b"Dear Anna, ...");
    /// # repository.close().await
    /// # }) }
    /// ```
    pub fn drop_caches(&self) {
        self.fs.drop_caches();
    }

    /// How the defragmentation in the background stands; `None` where there is none.
    #[must_use]
    pub fn defragment_status(&self) -> Option<DefragmentStatus> {
        Some(self.defragmenter.as_ref()?.status())
    }

    /// Makes the defragmentation in the background wait. What it has copied already it still commits.
    pub fn pause_defragmenting(&self) {
        if let Some(defragmenter) = &self.defragmenter {
            defragmenter.pause();
        }
    }

    /// Lets the defragmentation in the background go on.
    pub fn resume_defragmenting(&self) {
        if let Some(defragmenter) = &self.defragmenter {
            defragmenter.resume();
        }
    }

    /// Ends what this process has begun, and leaves the repository tidy. Other clones of the handle are closed too.
    ///
    /// # Errors
    /// What the storage raises; what was acknowledged is safe all the same.
    pub async fn close(&self) -> Result<()> {
        if let Some(defragmenter) = &self.defragmenter {
            // What it has in hand keeps the storage in use.
            defragmenter.stop().await;
        }
        Ok(self.engine.close().await?)
    }
}

/// The place of a repository that is to be created, and what it is to be.
pub(crate) struct Creation {
    pub(crate) opened: Opened,
    credentials: keyring::Credentials,
    recovery: Option<keyring::Credentials>,
    suite: Suite,
    block_bytes: u32,
    kdf: KdfParameters,
    tuning: engine::Tuning,
    file_tuning: strongroom_fs::Tuning,
    defragment: Option<DefragmentOptions>,
}

impl Creation {
    /// Opens the place, and makes its folder or store where there is none; nothing else is made.
    pub(crate) async fn begin(place: Place, options: CreateOptions) -> Result<Self> {
        // Before the folder is made: what makes no sense leaves nothing behind.
        options.credentials.check_strength()?;
        if let Some(bytes) = options.block_bytes {
            check_block_bytes(bytes).map_err(|error| strongroom_core::Error::Invalid(error.to_string()))?;
        }
        let Surroundings { tuning, file_tuning, defragment, .. } = options.surroundings;
        if let Some(defragment) = &defragment {
            defragment.validate()?;
        }
        let opened = place::open(place, options.surroundings, OpenMode::CreateIfMissing).await?;
        // Asked before the key derivation is measured, which takes a while.
        match keyring::read_headers(&opened.storage).await {
            Err(strongroom_core::Error::NotARepository) => {}
            Ok(headers) if headers.is_unfinished_copy() => return Err(strongroom_core::Error::UnfinishedCopy.into()),
            Ok(_) => return Err(strongroom_core::Error::AlreadyExists.into()),
            Err(error) => return Err(error.into()),
        }
        let kdf = match options.kdf {
            Kdf::Exactly(parameters) => parameters,
            Kdf::Millis(millis) => keyring::tune(&opened.env, millis).await?,
        };
        Ok(Self {
            credentials: options.credentials,
            recovery: options.recovery.as_ref().map(keyring::Credentials::recovery),
            suite: options.suite.unwrap_or_else(Suite::preferred),
            block_bytes: options.block_bytes.unwrap_or_else(|| opened.storage.capabilities().block_bytes_best),
            opened,
            kdf,
            tuning,
            file_tuning,
            defragment,
        })
    }

    pub(crate) fn options(&self) -> engine::CreateOptions<'_> {
        engine::CreateOptions {
            credentials: &self.credentials,
            recovery: self.recovery.as_ref(),
            suite: self.suite,
            block_bytes: self.block_bytes,
            kdf: self.kdf,
            trusted: self.opened.trusted.clone(),
            tuning: self.tuning,
        }
    }

    /// The handle on what was created.
    pub(crate) async fn finish(self, engine: Engine) -> Result<Repository> {
        let fs = FileSystem::open_with(engine.clone(), self.file_tuning).await?;
        Repository::assemble(engine, fs, self.opened, self.defragment)
    }
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Repository").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// What a repository shows without credentials: the clear fields of its newest header. Nothing vouches for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearHeader {
    /// The random id.
    pub repository: [u8; 16],
    /// How often the header was written anew.
    pub generation: u64,
    /// The cipher suite.
    pub suite: Suite,
    /// The size of every blob in bytes.
    pub block_bytes: u32,
    /// What one attempt at a password costs.
    pub kdf: KdfParameters,
    /// Whether it is a copy that did not come to its end, and no repository: it opens for nobody.
    pub is_unfinished_copy: bool,
    /// Copies of headers that are damaged or missing.
    pub faults_count: usize,
}

/// Reads the clear header of a repository.
///
/// # Errors
/// As [`Repository::open`], credentials aside.
pub async fn clear_header(place: impl Into<Place>, options: &HeaderOptions) -> Result<ClearHeader> {
    let surroundings = Surroundings {
        env: options.env.clone(),
        registry: options.registry.clone(),
        blocking: options.storage_calls,
        // Headers never come from a cache, so none is opened, whatever the address says.
        layers: Layers { cache: Some(Caching::None), ..Layers::default() },
        ..Surroundings::default()
    };
    let opened = place::open(place.into(), surroundings, OpenMode::Existing).await?;
    let storage: Arc<dyn Storage> = opened.storage;
    let headers = keyring::read_headers(&storage).await?;
    let newest = headers.headers().first().ok_or(strongroom_core::Error::NotARepository)?;
    Ok(ClearHeader {
        repository: *newest.repository(),
        generation: newest.generation(),
        suite: newest.suite(),
        block_bytes: newest.block_bytes(),
        kdf: newest.kdf(),
        is_unfinished_copy: headers.is_unfinished_copy(),
        faults_count: headers.faults().len(),
    })
}

/// How [`clear_header`] reaches the storage.
#[derive(Clone, Debug)]
pub struct HeaderOptions {
    /// The environment; by default one of its own.
    pub env: Option<strongroom_core::env::Env>,
    /// The registry; by default [`crate::registry::default`].
    pub registry: Option<strongroom_core::storage::Registry>,
    /// In which thread a storage whose calls block makes them.
    pub storage_calls: strongroom_core::storage::BlockingMode,
}

impl Default for HeaderOptions {
    fn default() -> Self {
        Self { env: None, registry: None, storage_calls: strongroom_core::storage::BlockingMode::Offload }
    }
}
