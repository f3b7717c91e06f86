use strongroom_core::engine::{Transaction, View as _};

use super::history::evict;
use crate::error::Result;
use crate::extents::Placed;
use crate::filesystem::put_row;
use crate::format::{
    ContentRow, Extent, INODE, InodeRow, PAST, VERSION, VersionRow, Versions, inode_key, past_key, version_key,
};
use crate::ranges::Ranges;
use crate::shared::Shared;

/// What one transaction does to the content of one file, however many operations it takes: where what they replace goes.
pub(crate) struct ContentChange {
    inode: u64,
    /// The number of the content that it makes.
    number: u64,
    fate: Fate,
}

enum Fate {
    /// Nothing is kept: chunks are released. Older versions rest on the content before, so they go too.
    Released,
    /// There is no content before, or not any more: the file is new, or its versions were given up since.
    New,
    /// The content before is a version to keep.
    Saved(Box<Saved>),
}

struct Saved {
    before: ContentRow,
    /// The part of the content before that is among the past extents.
    ranges: Ranges,
    held_bytes: u64,
    /// The content is another one.
    made: bool,
}

impl ContentChange {
    /// Of a file that was there when the transaction began, with this content.
    pub(crate) fn of(shared: &Shared, inode: u64, before: ContentRow) -> Self {
        let (fate, number) = if shared.versions_kept(&before) > 0 {
            let saved = Saved { before, ranges: Ranges::default(), held_bytes: 0, made: false };
            (Fate::Saved(Box::new(saved)), before.versions.current.saturating_add(1))
        } else if before.versions == Versions::default() {
            // Nobody counts.
            (Fate::Released, before.versions.current)
        } else {
            (Fate::Released, before.versions.current.saturating_add(1))
        };
        Self { inode, number, fate }
    }

    /// Of a file that the transaction makes.
    pub(crate) fn of_new(inode: u64) -> Self {
        Self { inode, number: 1, fate: Fate::New }
    }

    /// Goes on after other operations of the transaction, which left this content row. Where they gave up the version that
    /// is being saved, there is nothing more to save.
    pub(crate) fn resumed(mut self, now: &ContentRow) -> Self {
        if let Fate::Saved(saved) = &self.fate
            && saved.before.versions.current < now.versions.oldest
        {
            self.fate = Fate::New;
        }
        self
    }

    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Takes what is no longer in the file. `owned` says that the reference of its extent comes with it; else it is one
    /// part of an extent whose other part stays, with the reference.
    pub(crate) fn replaced(&mut self, transaction: &mut Transaction, placed: &Placed, owned: bool) -> Result<()> {
        let mut spare = owned;
        if let Fate::Saved(saved) = &mut self.fate {
            let range = placed.start..placed.end().min(saved.before.size).max(placed.start);
            for gap in saved.ranges.gaps(range.clone()) {
                let piece = placed.part(&gap);
                transaction.put(PAST, &past_key(self.inode, self.number, piece.start), &piece.extent.encode())?;
                if let Extent::Data { chunk, length, .. } = piece.extent {
                    saved.held_bytes = saved.held_bytes.saturating_add(u64::from(length));
                    if !std::mem::take(&mut spare) {
                        transaction.retain_chunk(chunk)?;
                    }
                }
            }
            saved.ranges.insert(range);
        }
        if let (true, Extent::Data { chunk, .. }) = (spare, placed.extent) {
            transaction.release_chunk(chunk)?;
        }
        Ok(())
    }

    /// When the time of modification was set by hand last; 0 of a new file. It is looked at by another state, so that
    /// whoever changes attributes is no conflict. What this transaction set is earlier than what it does from here on.
    async fn mtime_set(&self, shared: &Shared) -> Result<u64> {
        if let Fate::New = self.fate {
            return Ok(0);
        }
        let row = shared.engine.snapshot().get(INODE, &inode_key(self.inode)).await?;
        Ok(row.map(|row| InodeRow::decode(&row)).transpose()?.map_or(0, |row| row.mtime_set))
    }

    /// An operation of the transaction is done: puts the content row, and that of the version before.
    pub(crate) async fn finish(
        &mut self,
        shared: &Shared,
        transaction: &mut Transaction,
        row: ContentRow,
        size: u64,
        moment: u64,
    ) -> Result<()> {
        // Later than the one before, and than the time that was set by hand, whatever the clocks say.
        let earliest = row.changed.max(self.mtime_set(shared).await?).saturating_add(1);
        let mut row = ContentRow { changed: moment.max(earliest), size, tag: None, ..row };
        match &mut self.fate {
            Fate::New => {}
            Fate::Released => {
                evict(transaction, self.inode, &mut row.versions, 0).await?;
                (row.versions.current, row.versions.oldest) = (self.number, self.number);
            }
            Fate::Saved(saved) => {
                let Saved { before, held_bytes, .. } = **saved;
                saved.made |= !saved.ranges.is_empty() || size != before.size;
                if saved.made {
                    row.versions.current = self.number;
                    let version = VersionRow { changed: before.changed, size: before.size, held_bytes };
                    let key = version_key(self.inode, before.versions.current);
                    transaction.put(VERSION, &key, &version.encode())?;
                    let kept = shared.versions_kept(&row);
                    evict(transaction, self.inode, &mut row.versions, kept).await?;
                }
            }
        }
        put_row(transaction, self.inode, &row)
    }
}
