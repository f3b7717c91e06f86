//! Snapshots of the whole repository: files and keys as they were.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::engine::{self, ChunkNumber, Engine, References, Snapshot, SnapshotInfo, Table};
use strongroom_fs::{FsSnapshot, Result, Timestamp};

use crate::kv;
use crate::repository::Repository;

impl Repository {
    /// Keeps files and keys, those of all tables, as they are now under a name. Costs what has changed since the last checkpoint, whatever the
    /// size of the repository: rows of at most [`Tuning::checkpoint_bytes`](crate::Tuning::checkpoint_bytes),
    /// 16 MiB unless it says otherwise, and of the last transactions beyond that, with the tree nodes that they go into. No
    /// content is read or written anew, save that of small files, which lies in such rows until then.
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
    /// # use strongroom::{CreateOptions, Credentials, Repository};
    /// # let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// # let repository = Repository::create("mem://snapshots", options).await?;
    /// repository.fs().write("/letter", b"Dear Anna").await?;
    /// repository.create_snapshot("before").await?;
    /// repository.fs().write("/letter", b"Dear Berta").await?;
    /// let before = repository.files_at("before").await?;
    /// assert_eq!(before.read("/letter").await?, b"Dear Anna");
    /// repository.restore_snapshot("before").await?;
    /// assert_eq!(repository.fs().read("/letter").await?, b"Dear Anna");
    /// # repository.close().await
    /// # }) }
    /// ```
    ///
    /// # Errors
    /// Of [`strongroom_core::Error`]: `SnapshotExists`; `Invalid` and `LimitExceeded` for a name that no file could have;
    /// those of committing.
    pub async fn create_snapshot(&self, name: &str) -> Result<SnapshotInfo> {
        Ok(self.engine().create_snapshot(name).await?)
    }

    /// The snapshots that are kept, the oldest first.
    ///
    /// # Errors
    /// Damage; those of the storage.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        Ok(self.engine().snapshots().await?)
    }

    /// The newest snapshot that was taken at a moment or before it; `None` where none is as old.
    ///
    /// # Errors
    /// As [`Repository::snapshots`].
    pub async fn snapshot_at_time(&self, moment: Timestamp) -> Result<Option<SnapshotInfo>> {
        let mut snapshots = self.snapshots().await?;
        snapshots.retain(|info| taken(info) <= moment);
        Ok(snapshots.pop())
    }

    /// The files as a snapshot keeps them.
    ///
    /// # Errors
    /// Of [`strongroom_core::Error`]: `NoSnapshot`; damage; those of the storage.
    pub async fn files_at(&self, name: &str) -> Result<FsSnapshot> {
        Ok(self.fs().at(self.engine().open_snapshot(name).await?))
    }

    /// The files as they were at a moment: as the newest snapshot keeps them that was taken then or before, as
    /// [`Repository::snapshot_at_time`] finds it; `None` where none is as old. What changed between it and that moment is not
    /// seen.
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
    /// # use strongroom::fs::Timestamp;
    /// # use strongroom::{CreateOptions, Credentials, Repository};
    /// # let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// # let repository = Repository::create("mem://files-at-time", options).await?;
    /// repository.fs().write("/letter", b"Dear Anna").await?;
    /// let taken = repository.create_snapshot("before").await?;
    /// repository.fs().write("/letter", b"Dear Berta").await?;
    /// let moment = Timestamp::from_nanos(taken.time_millis * 1_000_000);
    /// let then = repository.files_at_time(moment).await?.expect("a snapshot of then");
    /// assert_eq!(then.read("/letter").await?, b"Dear Anna");
    /// assert!(repository.files_at_time(Timestamp::from_nanos(0)).await?.is_none());
    /// # repository.close().await
    /// # }) }
    /// ```
    ///
    /// # Errors
    /// Of [`strongroom_core::Error`]: `NoSnapshot` where the one that was found is removed before it is opened; damage; those
    /// of the storage.
    pub async fn files_at_time(&self, moment: Timestamp) -> Result<Option<FsSnapshot>> {
        match self.snapshot_at_time(moment).await? {
            Some(info) => Ok(Some(self.files_at(&info.name).await?)),
            None => Ok(None),
        }
    }

    /// The keys and values as a snapshot keeps them; those of other tables: [`Repository::table_at`].
    ///
    /// # Errors
    /// As [`Repository::files_at`].
    pub async fn keys_at(&self, name: &str) -> Result<kv::KvSnapshot> {
        Ok(self.kv().at(self.engine().open_snapshot(name).await?))
    }

    /// The keys and values of a table as a snapshot keeps them; see [`Repository::table`].
    ///
    /// # Errors
    /// As [`Repository::files_at`], and as [`Repository::table`].
    pub async fn table_at(&self, name: &str, number: u8) -> Result<kv::KvSnapshot> {
        Ok(self.table(number)?.at(self.engine().open_snapshot(name).await?))
    }

    /// Removes a snapshot; what only it needed can be given back then, by [`Repository::compact`] at once.
    ///
    /// # Errors
    /// Of [`strongroom_core::Error`]: `NoSnapshot`; those of committing.
    pub async fn remove_snapshot(&self, name: &str) -> Result<()> {
        Ok(self.engine().remove_snapshot(name).await?)
    }

    /// Makes all files and keys, those of all tables, what they are in a snapshot, in one transaction that moves no content; what they were before
    /// is gone, unless another snapshot keeps it. Versions of files are those of then, and numbered as they were then. A file
    /// that is open through [`Repository::fs`] and not in the snapshot stays for its handles, as any that is removed; what
    /// handles have written to one that is changed by it, and not flushed, is lost to it. Answers how many rows differed.
    ///
    /// # Errors
    /// Of [`strongroom_core::Error`]: `NoSnapshot`; `LimitExceeded` where more differs than one commit holds; those of
    /// committing.
    pub async fn restore_snapshot(&self, name: &str) -> Result<u64> {
        // Where nothing differed from what this process knows, nothing would be committed, though others changed something.
        self.engine().refresh().await?;
        let state = self.files_at(name).await?;
        self.fs().transact(async |transaction| transaction.restore(&state, &Contents).await).await
    }
}

/// When a snapshot was taken.
fn taken(info: &SnapshotInfo) -> Timestamp {
    let since = Duration::from_millis(info.time_millis);
    Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}

/// Knows the rows of files and keys. Those of the tables above, that an application puts through the engine, own no chunks.
pub(crate) struct Contents;

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl References for Contents {
    async fn chunks_of(
        &self,
        state: &Snapshot,
        table: Table,
        _key: &[u8],
        value: &[u8],
    ) -> strongroom_core::Result<Vec<ChunkNumber>> {
        if kv::is_table(table) { kv::chunks_of(state, value).await } else { strongroom_fs::chunks_of(table, value) }
    }
}

impl engine::Contents for Contents {
    fn plain(&self, payload: &Bytes, plain_bytes_max: usize) -> strongroom_core::Result<Bytes> {
        // Values of keys have no identities: they are stored as often as they are put.
        strongroom_fs::plain(payload, plain_bytes_max)
    }

    fn copied_row(&self, source: &Engine, table: Table, key: &[u8], row: Bytes) -> strongroom_core::Result<Bytes> {
        strongroom_fs::copied_row(source, table, key, row)
    }
}
