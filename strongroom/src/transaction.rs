//! Files and keys in one transaction, and lists of changes.

use strongroom_core::engine::{CommitInfo, ConflictTest, Engine};
use strongroom_fs::{Error, FsTransaction, Result};

use crate::kv::{self, KvRows};
use crate::repository::Repository;

/// One change of a repository, for [`Repository::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// A change of the file system.
    File(strongroom_fs::Op),
    /// Sets a key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Removes a key; an absent one is no error.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Sets a key in a table of the application's own; see [`Repository::table`].
    PutIn {
        /// The number of the table.
        table: u8,
        /// The key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Removes a key from a table of the application's own; an absent one is no error.
    DeleteIn {
        /// The number of the table.
        table: u8,
        /// The key.
        key: Vec<u8>,
    },
}

impl From<strongroom_fs::Op> for Op {
    fn from(op: strongroom_fs::Op) -> Self {
        Self::File(op)
    }
}

/// Changes of files and keys, all or nothing. It sees its own changes; others see them when it is committed. Dropping it
/// aborts it. What becomes of one in which an operation on files failed: see [`FsTransaction`]; one on keys that fails, or whose
/// future is dropped, changes nothing, and the transaction goes on.
pub struct Transaction {
    files: FsTransaction,
    engine: Engine,
}

impl Transaction {
    /// The files.
    pub fn fs(&mut self) -> &mut FsTransaction {
        &mut self.files
    }

    /// The keys and values; those of other tables: [`Self::table`].
    pub fn kv(&mut self) -> KvRows<'_> {
        KvRows::new(self.files.engine(), &self.engine, kv::FIRST)
    }

    /// The keys and values of a table of the application's own; see [`Repository::table`].
    ///
    /// # Errors
    /// As there.
    pub fn table(&mut self, number: u8) -> Result<KvRows<'_>> {
        let table = kv::table(number)?;
        Ok(KvRows::new(self.files.engine(), &self.engine, table))
    }

    /// Applies one change.
    ///
    /// # Errors
    /// Those of the method that it stands for. A change that is refused has changed nothing; one of files that failed half way
    /// keeps the transaction from being committed.
    pub async fn apply(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::File(op) => self.files.apply(op).await,
            Op::Put { key, value } => Ok(self.kv().put(key, value).await?),
            Op::Delete { key } => Ok(self.kv().delete(key).await.map(|_| ())?),
            Op::PutIn { table, key, value } => Ok(self.table(*table)?.put(key, value).await?),
            Op::DeleteIn { table, key } => Ok(self.table(*table)?.delete(key).await.map(|_| ())?),
        }
    }

    /// Applies changes in order, up to the first that is refused.
    ///
    /// # Errors
    /// [`Error::InBatch`] with the number of the change that was refused, counted from 0.
    pub async fn apply_all(&mut self, ops: &[Op]) -> Result<()> {
        for (index, op) in ops.iter().enumerate() {
            self.apply(op).await.map_err(|error| Error::InBatch { index, error: Box::new(error) })?;
        }
        Ok(())
    }

    /// Bytes of memory that it holds until it is committed.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.files.pending_bytes()
    }

    /// Makes it durable, all or nothing.
    ///
    /// # Errors
    /// As [`FsTransaction::commit`].
    pub async fn commit(self) -> Result<CommitInfo> {
        self.files.commit().await
    }
}

impl Repository {
    /// Begins a transaction over files and keys, on the newest state that this process knows. Dropping it aborts it.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        Transaction { files: self.fs().begin(), engine: self.engine().clone() }
    }

    /// Runs the closure in a transaction over files and keys, and commits it: all or nothing; again, a bounded number of
    /// times, where another transaction was faster: so it must not use up anything from outside, such as a reader.
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
    /// # use strongroom::{CreateOptions, Credentials, Repository};
    /// # let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// # let repository = Repository::create("mem://transaction", options).await?;
    /// repository
    ///     .transact(async |transaction| {
    ///         transaction.fs().write("/letter", b"Dear Anna").await?;
    ///         transaction.kv().put(b"letters", b"1").await?;
    ///         Ok::<_, strongroom::Error>(())
    ///     })
    ///     .await?;
    /// # repository.close().await
    /// # }) }
    /// ```
    ///
    /// # Errors
    /// What the closure answers, then nothing was changed; those of the commit.
    pub async fn transact<T, E: From<Error> + ConflictTest>(
        &self,
        mut operations: impl AsyncFnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempts_left = kv::ATTEMPTS_MAX;
        loop {
            attempts_left -= 1;
            let mut transaction = self.begin();
            let result = match operations(&mut transaction).await {
                Ok(answer) => transaction.commit().await.map(|_| answer).map_err(E::from),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_conflict() && attempts_left > 0 => self.refresh().await?,
                result => return result,
            }
        }
    }

    /// Applies changes in order as one transaction and one commit: all of them, or none. Run again where another
    /// transaction was faster.
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> { futures_lite::future::block_on(async {
    /// # use strongroom::{CreateOptions, Credentials, Op, Repository, fs};
    /// # let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// # let repository = Repository::create("mem://batch", options).await?;
    /// let ops = [
    ///     Op::File(fs::Op::CreateDir { path: "/letters".into() }),
    ///     Op::File(fs::Op::Write { path: "/letters/1".into(), content: "Dear Anna".into() }),
    ///     Op::Put { key: "letters".into(), value: "1".into() },
    /// ];
    /// repository.apply(&ops).await?;
    /// # repository.close().await
    /// # }) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InBatch`] with the number of the change that was refused, counted from 0; those of the commit.
    pub async fn apply(&self, ops: &[Op]) -> Result<CommitInfo> {
        let mut attempts_left = kv::ATTEMPTS_MAX;
        loop {
            attempts_left -= 1;
            let mut transaction = self.begin();
            let result = match transaction.apply_all(ops).await {
                Ok(()) => transaction.commit().await,
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_conflict() && attempts_left > 0 => self.refresh().await?,
                result => return result,
            }
        }
    }
}
