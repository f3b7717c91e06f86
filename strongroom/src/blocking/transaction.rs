use futures_lite::future::block_on;
use strongroom_core::engine::{CommitInfo, ConflictTest};
use strongroom_fs::{Error, Result};

use super::Repository;
use super::fs_transaction::TransactionFiles;
use super::kv::TransactionKeys;
use crate::Op;

/// Changes of files and keys, all or nothing; see [`crate::Transaction`].
pub struct RepositoryTransaction {
    inner: crate::Transaction,
}

impl RepositoryTransaction {
    /// The files.
    pub fn fs(&mut self) -> TransactionFiles<'_> {
        TransactionFiles::new(self.inner.fs())
    }

    /// The keys and values.
    pub fn kv(&mut self) -> TransactionKeys<'_> {
        TransactionKeys::new(self.inner.kv())
    }

    /// The keys and values of a table of the application's own; see [`crate::Repository::table`].
    ///
    /// # Errors
    /// As there.
    pub fn table(&mut self, number: u8) -> Result<TransactionKeys<'_>> {
        Ok(TransactionKeys::new(self.inner.table(number)?))
    }

    /// Applies one change.
    ///
    /// # Errors
    /// As [`crate::Transaction::apply`].
    pub fn apply(&mut self, op: &Op) -> Result<()> {
        block_on(self.inner.apply(op))
    }

    /// Applies changes in order, up to the first that is refused.
    ///
    /// # Errors
    /// As [`crate::Transaction::apply_all`].
    pub fn apply_all(&mut self, ops: &[Op]) -> Result<()> {
        block_on(self.inner.apply_all(ops))
    }

    /// Bytes of memory that it holds until it is committed.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.inner.pending_bytes()
    }

    /// Makes it durable, all or nothing.
    ///
    /// # Errors
    /// As [`crate::Transaction::commit`].
    pub fn commit(self) -> Result<CommitInfo> {
        block_on(self.inner.commit())
    }
}

impl Repository {
    /// Begins a transaction over files and keys; dropping it aborts it.
    #[must_use]
    pub fn begin(&self) -> RepositoryTransaction {
        RepositoryTransaction { inner: self.inner.begin() }
    }

    /// Runs the closure in a transaction over files and keys, and commits it; see [`crate::Repository::transact`].
    ///
    /// ```
    /// # fn main() -> strongroom::Result<()> {
    /// # use strongroom::{CreateOptions, Credentials, blocking::Repository};
    /// # let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1);
    /// # let repository = Repository::create("mem://transaction", options)?;
    /// repository.transact(|transaction| {
    ///     transaction.fs().write("/letter", b"Dear Anna")?;
    ///     transaction.kv().put(b"letters", b"1")?;
    ///     Ok::<_, strongroom::Error>(())
    /// })?;
    /// # repository.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the closure answers, then nothing was changed; those of the commit.
    pub fn transact<T, E: From<Error> + ConflictTest>(
        &self,
        mut operations: impl FnMut(&mut RepositoryTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempts_left = crate::kv::ATTEMPTS_MAX;
        loop {
            attempts_left -= 1;
            let mut transaction = self.begin();
            let result = match operations(&mut transaction) {
                Ok(answer) => transaction.commit().map(|_| answer).map_err(E::from),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_conflict() && attempts_left > 0 => self.refresh()?,
                result => return result,
            }
        }
    }

    /// Applies changes in order as one transaction and one commit; see [`crate::Repository::apply`].
    ///
    /// # Errors
    /// As there.
    pub fn apply(&self, ops: &[Op]) -> Result<CommitInfo> {
        block_on(self.inner.apply(ops))
    }
}
