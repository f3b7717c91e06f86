//! Looking for damage, from the files down to the blobs, and keeping it from spreading.

use std::collections::HashSet;

use strongroom_core::engine;
pub use strongroom_core::engine::Repaired;
use strongroom_fs::{FsSnapshot, Result};

use crate::repository::Repository;
use crate::snapshots::Contents;

/// How deep a check looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Open every record of every blob, and decode every chunk; without it, every reference and every count is checked, and
    /// of blobs on this host or in this process the length.
    pub data: bool,
}

/// How much of what is stored is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    References,
    /// So many blobs of a hundred.
    Sample(u8),
    Data,
}

impl From<CheckOptions> for Depth {
    fn from(CheckOptions { data }: CheckOptions) -> Self {
        if data { Self::Data } else { Self::References }
    }
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Finding {
    /// The file or folder that it is about, where one is known.
    pub path: Option<Vec<u8>>,
    /// What is amiss.
    pub detail: String,
}

/// What a check met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Folders, the root included.
    pub directories: u64,
    /// Files.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of all files together, holes included.
    pub logical_bytes: u64,
    /// Versions of files beside the current ones.
    pub versions: u64,
    /// Keys of the key-value store, of all its tables.
    pub keys: u64,
    /// Chunks.
    pub chunks: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Blobs in storage.
    pub blobs: u64,
    /// Blobs that were opened whole.
    pub blobs_opened: u64,
    /// How much was found amiss.
    pub findings: u64,
    /// What is odd without being damage.
    pub notices: Vec<String>,
    /// Whether another process gave up the state that was looked at, so that there may be more to find.
    pub is_cut_short: bool,
    /// What was done before: see [`Repository::repair`]. A check does nothing.
    pub repaired: Repaired,
}

/// How often a check begins again because the state that it looked at was given up.
const AGAIN_MAX: u32 = 3;

impl Repository {
    /// Checks the newest state that this process knows. Findings go to `report` as they are met. While it runs, nothing
    /// must be written through this handle: counts would not match. Other processes may write: where they give up the state
    /// that is looked at, the check begins again, a few times, on the newest one; what was found before is not told twice.
    ///
    /// # Errors
    /// What keeps the check from going on; damage is a finding, not an error. [`strongroom_core::Error::Expired`] where states
    /// were given up each time.
    pub async fn check(&self, options: CheckOptions, report: impl FnMut(Finding) + Send) -> Result<CheckReport> {
        self.check_state(None, options.into(), report).await
    }

    /// As [`Repository::check`] without [`CheckOptions::data`], or [`Repository::check_at`] where a snapshot is named; and so
    /// many of a hundred blobs, one at least, are opened whole. Which ones is drawn anew each time, so that a check a day finds
    /// in time what a check of all finds at once: of damage to one blob, a sample of 5 % has missed half after two weeks.
    /// [`CheckReport::blobs_opened`] says how many they were.
    ///
    /// # Errors
    /// Of [`strongroom_core::Error`]: `Invalid` for 0 and for more than 100; as [`Repository::check_at`].
    pub async fn check_sample(
        &self,
        at: Option<&str>,
        percent: u8,
        report: impl FnMut(Finding) + Send,
    ) -> Result<CheckReport> {
        if !(1..=100).contains(&percent) {
            let what = format!("a sample of {percent} of a hundred blobs: it has 1 to 100");
            return Err(strongroom_core::Error::Invalid(what).into());
        }
        self.check_state(at, Depth::Sample(percent), report).await
    }

    /// As [`Repository::check`], of what a snapshot keeps: its files and keys, the nodes and chunks that hold them, and with
    /// [`CheckOptions::data`] every record of their blocks. What is amiss elsewhere is not looked for; nor is whether all is
    /// accounted for, which is a matter of all states together. The counts of the report are those of the snapshot, its blobs
    /// those that hold something of it.
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
    /// # use strongroom::{CreateOptions, Credentials, Repository, check::CheckOptions};
    /// # let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// # let repository = Repository::create("mem://check-at", options).await?;
    /// repository.fs().write("/letter", b"Dear Anna").await?;
    /// repository.create_snapshot("before").await?;
    /// repository.fs().remove_file("/letter").await?;
    /// let report = repository.check_at("before", CheckOptions { data: true }, |finding| panic!("{finding:?}")).await?;
    /// assert_eq!((report.files, report.findings), (1, 0));
    /// # repository.close().await
    /// # }) }
    /// ```
    ///
    /// # Errors
    /// Of [`strongroom_core::Error`]: `NoSnapshot`; as [`Repository::check`].
    pub async fn check_at(
        &self,
        name: &str,
        options: CheckOptions,
        report: impl FnMut(Finding) + Send,
    ) -> Result<CheckReport> {
        self.check_state(Some(name), options.into(), report).await
    }

    /// Checks what a snapshot keeps, or the newest state and all of the storage.
    async fn check_state(
        &self,
        at: Option<&str>,
        depth: Depth,
        mut report: impl FnMut(Finding) + Send,
    ) -> Result<CheckReport> {
        let mut told = HashSet::new();
        let mut again = 0;
        loop {
            let checked = self.check_once(at, depth, |finding| {
                if told.insert(finding.clone()) {
                    report(finding);
                }
            });
            match checked.await {
                Err(error) if error.is_conflict() && again < AGAIN_MAX => again += 1,
                checked => return checked.map(|report| CheckReport { findings: told.len() as u64, ..report }),
            }
            self.refresh().await?;
        }
    }

    /// Sees to it that damage does not spread, and that what is stored again heals it; then checks what has come of it. What
    /// cannot be read is noted: content that is equal to it and is stored from then on, imported or written or copied, is not
    /// taken for it, but written anew in its place, and all files, versions and snapshots that refer to it can be read
    /// again. What can still be read of damaged blocks moves out of them. See [`engine::Engine::repair`] for the whole of it.
    ///
    /// Without [`CheckOptions::data`] only what is missing, or cut short, is found and repaired. It can be cut short, and run
    /// again, and run beside other writers; nothing that could be read before cannot be read after it.
    ///
    /// # Errors
    /// As [`Repository::check`]; [`strongroom_core::Error::ReadOnly`]; what the storage raises: where it does not answer,
    /// nothing is taken for damaged.
    pub async fn repair(&self, options: CheckOptions, report: impl FnMut(Finding) + Send) -> Result<CheckReport> {
        if self.engine().is_read_only() {
            return Err(strongroom_core::Error::ReadOnly.into());
        }
        let repaired = self.repair_chunks(options.data).await?;
        let checked = self.check(options, report).await?;
        Ok(CheckReport { repaired, ..checked })
    }

    async fn repair_chunks(&self, data: bool) -> Result<Repaired> {
        let mut again = 0;
        loop {
            let options = engine::CheckOptions { data, ..engine::CheckOptions::default() };
            match self.engine().check(options).await {
                Ok(found) => return Ok(self.engine().repair(&found).await?),
                Err(strongroom_core::Error::Expired) if again < AGAIN_MAX => again += 1,
                Err(error) => return Err(error.into()),
            }
            self.refresh().await?;
        }
    }

    /// Its count of findings is left to whoever hears of them.
    async fn check_once(
        &self,
        at: Option<&str>,
        depth: Depth,
        mut found: impl FnMut(Finding) + Send,
    ) -> Result<CheckReport> {
        let state = match at {
            Some(name) => self.engine().open_snapshot(name).await?,
            None => self.engine().snapshot(),
        };
        let on = self.fs().at(state.clone());
        let data = depth == Depth::Data;
        let sample_percent = if let Depth::Sample(percent) = depth { percent } else { 0 };
        let files = check_files(&on, data, &mut found).await?;
        let mut references = files.references;
        let mut tell = |detail| found(Finding { path: None, detail: format!("key-value store, {detail}") });
        let keys = self.kv().at(state).check(data, &mut references, &mut tell).await?;
        // Counts are compared only where all that refers was read.
        let whole = files.findings == 0 && keys.is_some();
        let references = whole.then_some(references);
        let check = engine::CheckOptions { data, sample_percent, references, rows: Some(&Contents), at };
        let blobs = self.engine().check(check).await?;
        let mut names_files = false;
        for finding in blobs.findings {
            names_files |= !finding.chunks.is_empty();
            found(Finding { path: None, detail: finding.damage.to_string() });
        }
        if names_files && !data {
            // Chunks are lost: only reading the files tells whose they are.
            check_files(&on, true, &mut found).await?;
        }
        Ok(CheckReport {
            directories: files.directories,
            files: files.files,
            symlinks: files.symlinks,
            logical_bytes: files.logical_bytes,
            versions: files.versions,
            keys: keys.unwrap_or_default(),
            chunks: blobs.chunks,
            snapshots: blobs.snapshots,
            blobs: blobs.blobs,
            blobs_opened: blobs.blobs_opened,
            findings: 0,
            notices: blobs.notices,
            is_cut_short: blobs.is_cut_short,
            repaired: Repaired::default(),
        })
    }
}

async fn check_files(
    files: &FsSnapshot,
    data: bool,
    found: &mut (impl FnMut(Finding) + Send),
) -> Result<strongroom_fs::CheckSummary> {
    let tell = |finding: strongroom_fs::Finding| {
        let detail = match &finding.path {
            Some(_) => finding.detail,
            None => format!("inode {:#x}: {}", finding.inode, finding.detail),
        };
        found(Finding { path: finding.path, detail });
    };
    files.check(strongroom_fs::CheckOptions { data }, tell).await
}

/// Whether an error says that something is not what was put there, or is gone.
pub(crate) fn is_damage(error: &strongroom_core::Error) -> bool {
    matches!(error, strongroom_core::Error::Damaged(_) | strongroom_core::Error::Missing { .. })
}
