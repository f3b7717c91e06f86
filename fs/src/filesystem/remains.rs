//! What a deleted file held, where that is more than one transaction frees.
//!
//! The transaction that deletes such a file takes its inode and its content row, so that nobody has it any more, and leaves the
//! rest under an orphan row of no epoch. From then on these rows are nobody's, and whoever comes by frees them, in transactions
//! of bounded size: the process that deleted the file as soon as that is committed, or the next writer that opens.

use std::ops::Bound;

use strongroom_core::engine::{ChunkNumber, Direction, Scan, Table, Transaction, View};

use crate::error::Result;
use crate::format::{EXTENT, NO_EPOCH, ORPHAN, PAST, VERSION, XATTR, encode_orphan, inode_key};
use crate::references::chunks_of;

/// Rows of one file that the transaction frees which deletes it; of one that holds more, they are left.
const FREED_AT_ONCE_MAX: usize = 8_192;
/// What a commit takes for a row that is freed: its deltas, with those of its chunk, and of the blocks that become empty.
const ROW_BYTES: u32 = 128;
/// Rows that are freed at once, however small blocks are.
const ROWS_MIN: u32 = 16;

/// Where rows are that an inode leads to, beside those of which it has one.
const TABLES: [Table; 4] = [EXTENT, VERSION, PAST, XATTR];

/// Rows to be freed, and the chunks that they own a reference to.
#[derive(Default)]
struct Page {
    rows: Vec<(Table, Vec<u8>)>,
    chunks: Vec<ChunkNumber>,
    /// There are no more.
    is_last: bool,
}

/// The rows of a table that belong to an inode.
pub(crate) fn rows_of(view: &dyn View, table: Table, inode: u64) -> Scan {
    let (low, high) = (inode_key(inode), inode.checked_add(1).map(inode_key));
    let high = high.as_ref().map_or(Bound::Unbounded, |high| Bound::Excluded(high.as_slice()));
    view.scan(table, (Bound::Included(low.as_slice()), high), Direction::Ascending)
}

impl Page {
    async fn read(view: &dyn View, inode: u64, tables: &[Table], rows_max: usize) -> Result<Self> {
        let mut page = Self::default();
        for &table in tables {
            let mut scan = rows_of(view, table, inode);
            while let Some((key, row)) = scan.next().await? {
                if page.rows.len() == rows_max {
                    return Ok(page);
                }
                page.chunks.extend(chunks_of(table, &row)?);
                // Copied: it is a slice of a tree node.
                page.rows.push((table, key.to_vec()));
            }
        }
        page.is_last = true;
        Ok(page)
    }

    fn free(self, transaction: &mut Transaction) -> Result<()> {
        for (table, key) in self.rows {
            transaction.delete(table, &key)?;
        }
        for chunk in self.chunks {
            transaction.release_chunk(chunk)?;
        }
        Ok(())
    }
}

/// Frees what an inode that is being deleted holds in these tables, or leaves all of it for later, where it is too much.
/// Answers whether it is gone.
pub(super) async fn free_or_leave(transaction: &mut Transaction, inode: u64, tables: &[Table]) -> Result<bool> {
    let page = Page::read(transaction, inode, tables, FREED_AT_ONCE_MAX).await?;
    if page.is_last {
        page.free(transaction)?;
        return Ok(true);
    }
    transaction.put(ORPHAN, &inode_key(inode), &encode_orphan(NO_EPOCH))?;
    Ok(false)
}

/// Frees some of what was left of a file: as much as fits a commit of one block, since storage may be full, and then there is
/// little more room than that. Answers whether it is gone, its orphan row too.
pub(super) async fn free_some(transaction: &mut Transaction, inode: u64, block_bytes: u32) -> Result<bool> {
    let rows_max = usize::try_from((block_bytes / ROW_BYTES).max(ROWS_MIN)).unwrap_or(FREED_AT_ONCE_MAX);
    let page = Page::read(transaction, inode, &TABLES, rows_max.min(FREED_AT_ONCE_MAX)).await?;
    let is_last = page.is_last;
    page.free(transaction)?;
    if is_last {
        transaction.delete(ORPHAN, &inode_key(inode))?;
    }
    Ok(is_last)
}
