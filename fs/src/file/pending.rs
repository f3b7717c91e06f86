use std::sync::Arc;

use strongroom_core::engine::Transaction;

use super::dirty::DirtyRanges;
use super::replay;
use crate::error::{Error, Result};
use crate::extents;
use crate::format::{ContentRow, FILE_BYTES_MAX};
use crate::inodes;
use crate::reflink;
use crate::shared::{Common, Shared};
use crate::versions::ContentChange;
use crate::writer::Ingest;

/// What was written through a handle and is not committed.
///
/// Appending streams into chunks as it goes. Overwriting gathers in memory, up to a bound, so that many small writes to
/// one chunk cut it anew once. Of a file, the rows hold `0..rows_size`, the appender all beyond, and the dirty ranges lie
/// over what the rows hold.
pub(super) struct Pending {
    /// How what is written is kept.
    shared: Arc<Shared>,
    transaction: Transaction,
    before: ContentRow,
    change: ContentChange,
    rows_size: u64,
    appender: Option<Ingest>,
    dirty: DirtyRanges,
    gathered: Gathered,
}

/// What is counted with what all files gather: what the dirty ranges take in memory, and the chunks that the appender has not
/// stored.
struct Gathered {
    bytes: usize,
    common: Arc<Common>,
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.common.handles.gathers(self.bytes, 0, usize::MAX);
    }
}

impl Gathered {
    /// Counts what there is now; answers whether all files together gather too much.
    fn now(&mut self, bytes: usize, bound: usize) -> bool {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.common.handles.gathers(before, bytes, bound)
    }
}

impl Pending {
    pub(super) async fn begin(shared: &Arc<Shared>, inode: u64) -> Result<Self> {
        let transaction = shared.engine.begin();
        let before = inodes::content(&transaction, inode).await?.ok_or(Error::Stale)?;
        Ok(Self {
            shared: shared.clone(),
            transaction,
            before,
            change: ContentChange::of(shared, inode, before),
            rows_size: before.size,
            appender: None,
            dirty: DirtyRanges::default(),
            gathered: Gathered { bytes: 0, common: shared.common.clone() },
        })
    }

    pub(super) fn size(&self) -> u64 {
        self.appender.as_ref().map_or(self.rows_size, Ingest::end)
    }

    /// What is written from here on is kept as this says; what was written before, as was said then.
    pub(super) async fn go_by(&mut self, shared: &Arc<Shared>) -> Result<()> {
        if self.shared.options != shared.options {
            self.write_back().await?;
            self.finish_appender().await?;
            self.shared = shared.clone();
        }
        Ok(())
    }

    pub(super) async fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(Error::FileTooLarge { bytes: end.unwrap_or(u64::MAX), bytes_max: FILE_BYTES_MAX });
        }
        let within = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let (inside, beyond) = bytes.split_at(within);
        if !inside.is_empty() {
            if self.appender.as_ref().is_some_and(|_| offset.saturating_add(within as u64) > self.rows_size) {
                self.finish_appender().await?;
            }
            self.dirty.insert(offset, inside);
            let bound = self.shared.tuning.write_back_bytes;
            if self.is_too_much(bound) || self.dirty.bytes() > bound {
                self.write_back().await?;
            }
        }
        if !beyond.is_empty() {
            let gap = offset.saturating_sub(self.size());
            let appender = self.appender().await?;
            // Borrowed apart: the appender writes through the transaction beside it.
            let (mut appender, transaction) = (appender, &mut self.transaction);
            appender.hole(transaction, gap).await?;
            appender.write(transaction, beyond).await?;
            self.appender = Some(appender);
            if self.is_too_much(self.shared.tuning.write_back_bytes)
                && let Some(appender) = &mut self.appender
            {
                appender.let_go(&mut self.transaction).await?;
                self.count();
            }
        }
        Ok(())
    }

    /// Counts what is gathered here; answers whether all files together gather too much, by the bound for one.
    fn is_too_much(&mut self, bound: usize) -> bool {
        let queued = self.appender.as_ref().map_or(0, Ingest::queued_bytes);
        self.gathered.now(self.dirty.bytes().saturating_add(queued), bound)
    }

    fn count(&mut self) {
        self.is_too_much(usize::MAX);
    }

    /// Takes the appender, or makes one.
    async fn appender(&mut self) -> Result<Ingest> {
        if let Some(appender) = self.appender.take() {
            return Ok(appender);
        }
        // It may take the last chunk back, and then nothing may lie over that.
        self.write_back().await?;
        let appender = extents::append(&self.shared, &mut self.transaction, &mut self.change, self.rows_size).await?;
        self.rows_size = appender.start();
        Ok(appender)
    }

    async fn finish_appender(&mut self) -> Result<()> {
        if let Some(mut appender) = self.appender.take() {
            appender.finish(&mut self.transaction).await?;
            self.rows_size = appender.end();
            self.count();
        }
        Ok(())
    }

    async fn write_back(&mut self) -> Result<()> {
        let shared = &self.shared;
        let (gap, span_max) = (shared.boundaries().average_bytes() as u64, shared.tuning.write_back_bytes as u64);
        while !self.dirty.is_empty() {
            let group = self.dirty.take_group(gap, span_max);
            let end = group.last().map_or(0, |(start, bytes)| start.saturating_add(bytes.len() as u64));
            let mut group = group.into_iter();
            let Some((start, mut bytes)) = group.next() else { break };
            let span = usize::try_from(end - start).unwrap_or(usize::MAX);
            bytes.reserve_exact(span.saturating_sub(bytes.len()));
            for (next, more) in group {
                let gap = bytes.len();
                let at = start.saturating_add(gap as u64);
                bytes.resize(gap.saturating_add(usize::try_from(next - at).unwrap_or(usize::MAX)), 0);
                let out = bytes.get_mut(gap..).unwrap_or_default();
                extents::read(shared, &self.transaction, self.change.inode(), at, out).await?;
                bytes.extend_from_slice(&more);
            }
            extents::replace(shared, &mut self.transaction, &mut self.change, start, &bytes).await?;
        }
        self.count();
        Ok(())
    }

    /// The first offset at or after `offset` that lies in data, or in a hole. Changes nothing: one who only reads must not
    /// take with it, by failing or being dropped, what others have written.
    pub(super) async fn seek(&mut self, offset: u64, data: bool) -> Result<Option<u64>> {
        let (inode, size, stored) = (self.change.inode(), self.size(), self.stored_end());
        if offset >= size {
            return Ok(None);
        }
        if data {
            let in_rows = reflink::seek(&self.transaction, inode, stored, offset, true).await?;
            let waiting = (stored < size).then(|| stored.max(offset));
            return Ok([in_rows, self.dirty.next(offset), waiting].into_iter().flatten().min());
        }
        let mut at = offset;
        while at < stored {
            let hole = reflink::seek(&self.transaction, inode, stored, at, false).await?.unwrap_or(stored);
            match self.dirty.end_of(hole) {
                Some(end) => at = end,
                None if hole < stored => return Ok(Some(hole)),
                None => break,
            }
        }
        // What waits beyond the rows is all data.
        Ok(Some(size))
    }

    pub(super) async fn set_len(&mut self, size: u64) -> Result<()> {
        if size > FILE_BYTES_MAX {
            return Err(Error::FileTooLarge { bytes: size, bytes_max: FILE_BYTES_MAX });
        }
        self.finish_appender().await?;
        if self.dirty.reaches(size) {
            self.dirty.truncate(size);
            self.count();
        }
        extents::truncate(&mut self.transaction, &mut self.change, self.rows_size, size).await?;
        extents::extend(&mut self.transaction, self.change.inode(), self.rows_size, size).await?;
        self.rows_size = size;
        Ok(())
    }

    /// The offset up to which all is in rows, or lies over them.
    fn stored_end(&self) -> u64 {
        self.appender.as_ref().map_or(self.rows_size, Ingest::stored_end)
    }

    /// Fills `out` with bytes from `offset` on, all of them before [`Self::size`]. Changes nothing, as [`Self::seek`].
    pub(super) async fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<()> {
        let stored = self.stored_end();
        if offset < stored {
            let length = usize::try_from(stored - offset).unwrap_or(usize::MAX).min(out.len());
            let head = out.get_mut(..length).unwrap_or_default();
            extents::read(&self.shared, &self.transaction, self.change.inode(), offset, head).await?;
        }
        if let Some(appender) = &self.appender {
            appender.lay_over(out, offset);
        }
        self.dirty.overlay(offset, out);
        Ok(())
    }

    /// Commits everything.
    pub(super) async fn commit(mut self) -> Result<()> {
        self.write_back().await?;
        self.finish_appender().await?;
        let Self { shared, mut transaction, before, mut change, rows_size, .. } = self;
        change.finish(&shared, &mut transaction, before, rows_size, shared.moment()).await?;
        let inode = change.inode();
        let written = transaction.remember();
        match transaction.commit().await.map_err(Error::from) {
            Err(error) if error.is_conflict() => replay::run(&shared, &written, inode, before, rows_size, error).await,
            result => result.map(|_| ()),
        }
    }
}
