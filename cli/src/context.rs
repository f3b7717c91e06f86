//! What every command needs: the flags, where results go, and the way to an open repository.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use strongroom::core::{self, engine::CommitInfo};
use strongroom::fs::{FileSystem, FsSnapshot, FsTransaction, Timestamp};
use strongroom::kv::KvSnapshot;
use strongroom::storage::{self, BlockingMode, Durability, Registry, StorageUri, StraysSought};
use strongroom::{Credentials, HeaderOptions, OpenOptions, RecoveryKey, Repository, SecretBytes, Transaction};

use crate::arguments::Global;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::layers::{Layers, layered};
use crate::local::mapped::Mapped;
use crate::local::own::Own;
use crate::output::Output;
use crate::password::{self, Password};
use crate::secret_file;
use crate::strays::{COMMITS_LOOKED_AT, Strays};
use crate::units;

/// The flags, the output, and whether someone asked to stop.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) output: Output,
    pub(crate) interrupt: Interrupt,
    /// The storages that URIs can name.
    pub(crate) registry: Registry,
    /// What is open, so that it is left tidy however the command ends.
    opened: Option<Repository>,
    /// The same for all that is opened, so that what `-v` counts is counted once.
    layers: Option<Layers>,
    own: OnceLock<Own>,
    mapped: OnceLock<Mapped>,
}

/// What a command does to the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Whether the repository is there already, for questions to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Existing,
    New,
}

impl Context {
    pub(crate) fn new(global: Global, registry: Registry) -> Self {
        let interrupt = Interrupt::default();
        Self {
            output: Output::new(&global, interrupt.clone()),
            global,
            interrupt,
            registry,
            opened: None,
            layers: None,
            own: OnceLock::new(),
            mapped: OnceLock::new(),
        }
    }

    /// What the flags say about the way to the storage.
    pub(crate) fn layers(&mut self) -> Result<Layers, Failure> {
        match &self.layers {
            Some(layers) => Ok(layers.clone()),
            None => Ok(self.layers.insert(Layers::new(&self.global)?).clone()),
        }
    }

    /// What could be written to through memory when this was asked first: before the first file is read, so that whoever has
    /// written to it so and ends meanwhile is counted.
    pub(crate) fn mapped(&self, fs: &FileSystem) -> &Mapped {
        self.mapped.get_or_init(|| Mapped::look(fs.engine().env().now()))
    }

    /// Says, with `-v`, what went to the storage.
    pub(crate) fn tell_requests(&self) {
        let metrics = self.layers.as_ref().and_then(|layers| layers.metrics.as_ref());
        if let Some(counted) = metrics.map(|metrics| metrics.snapshot()).filter(|counted| counted.calls() > 0) {
            self.output.detail(&format!("storage: {counted}"));
        }
    }

    /// The address of the repository.
    pub(crate) fn uri(&self) -> Result<StorageUri, Failure> {
        let given = self.global.repo.as_ref().filter(|given| !given.is_empty()).ok_or_else(|| {
            Failure::usage(
                "no repository named: pass -r URI or set STRONGROOM_REPO (a path, or for example file:my-repo)",
            )
        })?;
        parse_uri(given)
    }

    /// Where the repository itself lies on this machine: never read as a source, and never written to.
    pub(crate) fn own(&self) -> &Own {
        self.own.get_or_init(|| Own::new(self.uri().map_or_else(|_| Vec::new(), |uri| self.registry.local_paths(&uri))))
    }

    /// What this command makes is the repository's own, too.
    pub(crate) fn own_also(&mut self, target: &StorageUri) {
        let source = self.uri().map_or_else(|_| Vec::new(), |uri| self.registry.local_paths(&uri));
        let paths = source.into_iter().chain(self.registry.local_paths(target)).collect();
        self.own = OnceLock::from(Own::new(paths));
    }

    /// Says of a new repository where its storage keeps less than the power may take.
    pub(crate) fn tell_durability(&self, uri: &StorageUri) {
        let durability = self.registry.constructor(uri).ok().and_then(|constructor| constructor.info().capabilities);
        let what = match durability.map(|capabilities| capabilities.durability) {
            Some(Durability::None) if uri.scheme() != "mem" => "keeps nothing beyond the end of this program",
            Some(Durability::Process) => "may lose what was committed when the power goes, or the system crashes",
            _ => return,
        };
        self.output.notice(&format!("`{}:` {what}: `backends` shows storages of durability `power`", uri.scheme()));
    }

    /// How the clear header is read.
    pub(crate) fn header_options(&self) -> HeaderOptions {
        let registry = Some(self.registry.clone());
        HeaderOptions { registry, storage_calls: BlockingMode::Inline, ..HeaderOptions::default() }
    }

    /// A wrong address is told before anyone is asked for a secret.
    pub(crate) async fn refuse_absent(&self, uri: &StorageUri) -> Result<(), Failure> {
        strongroom::clear_header(uri, &self.header_options()).await.map_err(|error| Failure::from(error).on(uri))?;
        Ok(())
    }

    /// Opens the repository.
    pub(crate) async fn open(&mut self, access: Access) -> Result<Repository, Failure> {
        let uri = self.uri()?;
        self.refuse_absent(&uri).await?;
        let credentials = self.credentials(&uri, Age::Existing)?;
        self.open_with(&uri, credentials, access).await
    }

    /// Opens the repository to look at its files as they are now, or as `--at` says.
    pub(crate) async fn look(&mut self) -> Result<(Repository, FsSnapshot), Failure> {
        let repository = self.open(Access::Read).await?;
        let files = match snapshot_meant(&repository, self.global.at.as_deref()).await? {
            Some(name) => repository.files_at(&name).await?,
            None => repository.fs().snapshot(),
        };
        Ok((repository, files))
    }

    /// Opens the repository to look at its keys as they are now, or as `--at` says.
    pub(crate) async fn look_at_keys(&mut self) -> Result<(Repository, KvSnapshot), Failure> {
        let repository = self.open(Access::Read).await?;
        let keys = match snapshot_meant(&repository, self.global.at.as_deref()).await? {
            Some(name) => repository.keys_at(&name).await?,
            None => repository.kv().snapshot(),
        };
        Ok((repository, keys))
    }

    /// What the flags say of opening a repository.
    pub(crate) fn open_options(&mut self, credentials: Credentials) -> Result<OpenOptions, Failure> {
        Ok(layered!(OpenOptions::new(credentials), self.layers()?)
            .registry(self.registry.clone())
            .storage_calls(BlockingMode::Inline)
            .accept_rollback(self.global.accept_rollback))
    }

    /// Opens it with credentials that are at hand.
    pub(crate) async fn open_with(
        &mut self,
        uri: &StorageUri,
        credentials: Credentials,
        access: Access,
    ) -> Result<Repository, Failure> {
        let options = self.open_options(credentials)?.read_only(access == Access::Read);
        let repository = match Repository::open(uri, options).await {
            Ok(repository) => repository,
            Err(error) => return Err(self.refused(uri, error).await),
        };
        self.begin(&repository)?;
        if access == Access::Write {
            let sought = StraysSought::Near(repository.engine().newest_commits(COMMITS_LOOKED_AT));
            if let Some(copies) = self.strays(uri, sought).await.copies() {
                self.output.notice(&copies);
            }
        }
        Ok(repository)
    }

    /// Why it could not be opened; with what lies beside the blobs where that may be the reason.
    pub(crate) async fn refused(&self, uri: &StorageUri, error: strongroom::Error) -> Failure {
        use core::Error as E;
        let about = match &error {
            strongroom::Error::Core(E::Damaged(_) | E::Missing { .. } | E::RolledBack { .. }) => {
                self.strays(uri, StraysSought::All).await
            }
            _ => Strays::default(),
        };
        Failure::from(error).on(uri).with(about.copies().or_else(|| about.unfinished()).as_deref())
    }

    /// What a sync client has left among the blobs. That it cannot be looked for is no reason to fail.
    pub(crate) async fn strays(&self, uri: &StorageUri, sought: StraysSought) -> Strays {
        self.look_for_strays(uri, sought).await.unwrap_or_default()
    }

    /// The same, for who has to know.
    pub(crate) async fn look_for_strays(&self, uri: &StorageUri, sought: StraysSought) -> storage::Result<Strays> {
        Ok(Strays(strongroom::strays(uri, sought, &self.header_options()).await?))
    }

    /// From here on the first signal asks to stop, and the repository is closed at the end.
    pub(crate) fn begin(&mut self, repository: &Repository) -> Result<(), Failure> {
        self.opened = Some(repository.clone());
        if !repository.remembers() && repository.uri().is_some_and(|uri| uri.scheme() != "mem") {
            self.output.notice("no folder to remember this repository's state in: a rollback would go unnoticed");
        }
        self.interrupt.listen()
    }

    /// Closes what a command that failed has left open, and answers where that is. Why it failed is what counts: this adds
    /// nothing to it.
    pub(crate) async fn tidy(&mut self) -> Option<StorageUri> {
        let repository = self.opened.take()?;
        let uri = repository.uri().cloned();
        let _ = repository.close().await;
        uri
    }

    /// The credentials that the flags, the environment or the user give.
    pub(crate) fn credentials(&self, uri: &StorageUri, age: Age) -> Result<Credentials, Failure> {
        if let Some(path) = &self.global.recovery_key {
            if age == Age::New {
                return Err(Failure::usage(
                    "a repository is not created with a recovery key: leave --recovery-key out",
                ));
            }
            let text = secret_file::read(path, "the recovery key", self.own())?;
            let key = recovery_key(&text).map_err(|failure| failure.on(path.display()))?;
            return Ok(Credentials::recovery(&key));
        }
        let Some(path) = self.key_file() else {
            let password = match age {
                Age::Existing => password::existing(&self.global, &uri.to_string()),
                Age::New => password::new(&self.global, &uri.to_string()),
            }?;
            return Ok(Credentials::password(secret(password)));
        };
        let content = secret(secret_file::read(&path, "the key file", self.own())?);
        let credentials = match password::beside_key_file(&self.global, &uri.to_string(), age)? {
            Some(password) => Credentials::password(secret(password)).and_key_file(content),
            None => Credentials::key_file(content),
        };
        if age == Age::New {
            // Before anything is made.
            credentials.check_strength().map_err(|error| Failure::from(error).on(path.display()))?;
        }
        Ok(credentials)
    }

    /// The key file that the flags or the environment name.
    pub(crate) fn key_file(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os("STRONGROOM_KEY_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
        self.global.key_file.clone().or_else(variable)
    }

    /// Ends with what was left out: exit 3.
    pub(crate) fn partial(left_out: u64, what: &str) -> Failure {
        Failure::new(Exit::Partial, format!("done in part: {left_out} {what} left out, listed above"))
    }
}

/// The name of the snapshot that `--at` means, where it is given.
pub(crate) async fn snapshot_meant(repository: &Repository, at: Option<&str>) -> Result<Option<String>, Failure> {
    match at {
        Some(at) => Ok(Some(snapshot_at(repository, at).await?)),
        None => Ok(None),
    }
}

/// The snapshot of this name; where none has it, the newest one that is not younger than the time it says.
pub(crate) async fn snapshot_at(repository: &Repository, at: &str) -> Result<String, Failure> {
    if repository.snapshots().await?.iter().any(|info| info.name == at) {
        return Ok(at.to_owned());
    }
    let seconds = match (units::parse_duration(at), units::parse_moment_whole(at)) {
        (Ok(ago), _) => {
            let now = i64::try_from(repository.engine().env().now() / 1_000).unwrap_or(i64::MAX);
            now.saturating_sub(i64::try_from(ago.as_secs()).unwrap_or(i64::MAX))
        }
        (_, Ok(seconds)) => seconds,
        (_, Err(no_time)) if at.starts_with(|first: char| first.is_ascii_digit()) => {
            return Err(Failure::failed(format!(
                "there is no snapshot `{at}`, and {no_time}, or as 8h for 8 hours ago"
            )));
        }
        _ => return Err(strongroom::core::Error::NoSnapshot { name: at.to_owned() }.into()),
    };
    // Who names a second means all of it.
    let moment = Timestamp { seconds, nanos: 999_999_999 };
    match repository.snapshot_at_time(moment).await? {
        Some(info) => Ok(info.name),
        None => Err(Failure::failed(format!("no snapshot is as old as {at}: `snapshot list` shows those that are"))),
    }
}

/// An address as it was given; a bare path is one too.
pub(crate) fn parse_uri(given: &OsStr) -> Result<StorageUri, Failure> {
    match given.to_str() {
        Some(text) => Ok(StorageUri::parse(text)?),
        // A name that is no text can only be a path.
        None => Ok(StorageUri::from_path(Path::new(given))?),
    }
}

/// Reads a recovery key. A slip in it is told here, before anything is tried with it.
pub(crate) fn recovery_key(text: &[u8]) -> Result<RecoveryKey, Failure> {
    let text = std::str::from_utf8(text).map_err(|_| Failure::usage("not a recovery key: it is no text"))?;
    Ok(RecoveryKey::from_text(text)?)
}

pub(crate) fn secret(mut bytes: Password) -> SecretBytes {
    // Moved, not copied: what takes it erases it.
    SecretBytes::new(std::mem::take(&mut *bytes))
}

/// How often a transaction is run because another process was faster: of so many that all want the same, each has its turn.
const ATTEMPTS_MAX: u32 = 64;

/// Runs operations on files in one transaction, again where another writer was faster.
pub(crate) async fn transact<T>(
    fs: &FileSystem,
    mut operations: impl AsyncFnMut(&mut FsTransaction) -> Result<T, Failure>,
) -> Result<T, Failure> {
    for attempt in 1.. {
        let mut transaction = fs.begin();
        let done = match operations(&mut transaction).await {
            Ok(answer) => transaction.commit().await.map(|_| answer).map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        if !is_to_be_tried_again(&done, attempt, fs).await? {
            return done;
        }
    }
    Err(core::Error::Conflict.into())
}

/// The same on files and keys; answers in which commit they are.
pub(crate) async fn transact_all(
    repository: &Repository,
    mut operations: impl AsyncFnMut(&mut Transaction) -> Result<(), Failure>,
) -> Result<CommitInfo, Failure> {
    for attempt in 1.. {
        let mut transaction = repository.begin();
        let done = match operations(&mut transaction).await {
            Ok(()) => transaction.commit().await.map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        if !is_to_be_tried_again(&done, attempt, repository.fs()).await? {
            return done;
        }
    }
    Err(core::Error::Conflict.into())
}

/// Whether another writer was faster, this time; what is begun then is begun on what that has left.
async fn is_to_be_tried_again<T>(done: &Result<T, Failure>, attempt: u32, fs: &FileSystem) -> Result<bool, Failure> {
    // The state that it began on may have been given up while it ran, too.
    let again = done.as_ref().is_err_and(|failure| failure.exit() == Exit::Busy) && attempt < ATTEMPTS_MAX;
    if again {
        fs.engine().refresh().await?;
    }
    Ok(again)
}
