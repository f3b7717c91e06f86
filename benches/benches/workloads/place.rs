//! Where a workload's repository is, around a storage that counts.

use std::path::Path;
use std::sync::Arc;

use strongroom::blocking::{Repository, block_on};
use strongroom::core::env::Env;
use strongroom::storage::{BlockingMode, OpenContext, OpenMode, Storage, StorageExt as _, StorageUri};
use strongroom::{CreateOptions, Credentials, KdfParameters, OpenOptions};
use strongroom_benches::counting::{Counting, Counts};
use strongroom_benches::figures::Trace;
use strongroom_benches::settings::Settings;

use crate::Outcome;

/// A kind of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    File,
}

/// What a workload makes repositories in.
pub(crate) struct Place {
    kind: Kind,
    block_bytes: Option<u32>,
    folder: Option<std::path::PathBuf>,
    /// Whether only to be shown that it runs.
    pub(crate) smoke: bool,
}

impl Place {
    pub(crate) fn new(kind: Kind, block_bytes: Option<u32>, settings: &Settings) -> Self {
        Self { kind, block_bytes, folder: settings.dir.clone(), smoke: settings.smoke }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Memory => "mem",
            Kind::File => "file",
        }
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    /// The block size of the repositories made here.
    pub(crate) fn block_bytes(&self) -> Outcome<u32> {
        match self.block_bytes {
            Some(bytes) => Ok(bytes),
            None => Ok(self.store()?.storage.capabilities().block_bytes_best),
        }
    }

    /// A new place for one repository.
    pub(crate) fn store(&self) -> Outcome<Store> {
        let env = strongroom::env::system()?;
        let folder = self.folder()?;
        let uri = match self.kind {
            Kind::Memory => StorageUri::parse("mem://bench")?,
            Kind::File => StorageUri::from_path(&folder.path().join("repository"))?,
        };
        let context =
            OpenContext::new(env.clone()).with_mode(OpenMode::CreateIfMissing).with_blocking(BlockingMode::Inline);
        // A registry of its own each time: `mem:` stores belong to it.
        let storage = block_on(strongroom::registry::default().open(&uri, &context))?;
        Ok(Store { env, storage: Arc::new(Counting::new(storage)), folder, block_bytes: self.block_bytes })
    }

    /// A new repository.
    pub(crate) fn repository(&self, dedup: bool) -> Outcome<(Repository, Store)> {
        let store = self.store()?;
        Ok((Repository::create(store.shared(), store.options(dedup))?, store))
    }

    /// The same without dedup, and without a defragmenter of its own: for who starts one.
    pub(crate) fn undisturbed_repository(&self) -> Outcome<(Repository, Store)> {
        let store = self.store()?;
        Ok((Repository::create(store.shared(), store.options(false).without_defragmenting())?, store))
    }

    pub(crate) fn folder(&self) -> Outcome<tempfile::TempDir> {
        Ok(match &self.folder {
            Some(parent) => tempfile::tempdir_in(parent)?,
            None => tempfile::tempdir()?,
        })
    }
}

/// A storage, gone with this value.
pub(crate) struct Store {
    pub(crate) env: Env,
    pub(crate) storage: Arc<Counting>,
    folder: tempfile::TempDir,
    block_bytes: Option<u32>,
}

impl Store {
    fn options(&self, dedup: bool) -> CreateOptions {
        let mut options = CreateOptions::new(credentials())
            .kdf(KdfParameters::MINIMUM)
            .dedup(dedup)
            .without_trusted_state()
            .env(self.env.clone());
        if let Some(bytes) = self.block_bytes {
            options = options.block_bytes(bytes);
        }
        options
    }

    pub(crate) fn open(&self) -> Outcome<Repository> {
        let options = OpenOptions::new(credentials()).without_trusted_state().env(self.env.clone());
        Ok(Repository::open(self.shared(), options)?)
    }

    pub(crate) fn shared(&self) -> Arc<dyn Storage> {
        self.storage.clone()
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Bytes of all blobs.
    pub(crate) fn stored_bytes(&self) -> Outcome<u64> {
        block_on(async {
            let mut total = 0;
            for name in self.storage.list_all(&[]).await? {
                total += self.storage.size(name).await?;
            }
            Ok(total)
        })
    }

    /// Begins to trace operations that claim to be durable.
    pub(crate) fn trace(&self, repository: &Repository) -> Outcome<Tracing<'_>> {
        Ok(Tracing { store: self, before: self.storage.counts(), sequence: repository.info()?.sequence })
    }
}

/// See [`Store::trace`].
pub(crate) struct Tracing<'a> {
    store: &'a Store,
    before: Counts,
    sequence: u64,
}

impl Tracing<'_> {
    /// Ends the trace of `operations` by `at_once` callers at once; an error where they cannot all have been durable.
    pub(crate) fn end(self, repository: &Repository, operations: u64, at_once: u64) -> Outcome<Trace> {
        let after = self.store.storage.counts();
        let trace = Trace {
            operations,
            commits: repository.info()?.sequence - self.sequence,
            barriers: after.barriers - self.before.barriers,
            puts: after.puts - self.before.puts,
        };
        trace.covers(at_once)?;
        Ok(trace)
    }
}

pub(crate) fn credentials() -> Credentials {
    Credentials::password("bench")
}

/// Lets the operating system forget the cached pages of all files in a folder, as far as it does on request.
pub(crate) fn forget_pages(folder: &Path) -> Outcome {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget_pages(&entry.path())?;
        } else if entry.file_type()?.is_file() {
            let file = std::fs::File::open(entry.path())?;
            file.sync_all()?; // what is dirty cannot be forgotten
            #[cfg(target_os = "linux")]
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}
