//! Committing once more what lost to another transaction, though nobody else had changed the file.
//!
//! A chunk that was there already, and that the file was to share, may have gone by the time of the commit, with the last of
//! the other files that held it. Whoever writes by a path runs again. What a handle wrote is in nobody's hands any more, but it
//! is still to be read from where the lost transaction put it.

use std::sync::Arc;

use strongroom_core::engine::{Remembered, Transaction};

use crate::codec;
use crate::error::{Error, Result};
use crate::extents::{self, Placed};
use crate::format::{ContentRow, Extent};
use crate::inodes;
use crate::shared::Shared;
use crate::versions::ContentChange;

/// How often it is tried.
const ATTEMPTS_MAX: usize = 8;

/// Makes what was written the content of the file, unless somebody has changed that since: then it answers `lost`.
pub(super) async fn run(
    shared: &Arc<Shared>,
    written: &Remembered,
    inode: u64,
    before: ContentRow,
    size: u64,
    lost: Error,
) -> Result<()> {
    for _ in 0..ATTEMPTS_MAX {
        shared.engine.refresh().await?;
        let mut transaction = shared.engine.begin();
        // An unchanged content means unchanged extents; how many versions are to be kept may have changed meanwhile.
        let now = inodes::content(&transaction, inode).await?.filter(|now| is_same_content(now, &before));
        let Some(now) = now else { return Err(lost) };
        let mut change = ContentChange::of(shared, inode, now);
        rewrite(shared, written, &mut transaction, &mut change).await?;
        change.finish(shared, &mut transaction, now, size, shared.moment()).await?;
        match transaction.commit().await.map_err(Error::from) {
            Err(error) if error.is_conflict() => {}
            result => return result.map(|_| ()),
        }
    }
    Err(lost)
}

fn is_same_content(one: &ContentRow, other: &ContentRow) -> bool {
    let content = |row: &ContentRow| (row.changed, row.size, row.versions.current);
    content(one) == content(other)
}

/// Makes the extents of the file those that were written. Both lists go by their offsets.
async fn rewrite(
    shared: &Shared,
    written: &Remembered,
    transaction: &mut Transaction,
    change: &mut ContentChange,
) -> Result<()> {
    let inode = change.inode();
    let (mut olds, mut news) = (extents::walk(transaction, inode, 0), extents::walk(written, inode, 0));
    let (mut old, mut new) = (olds.next().await?, news.next().await?);
    loop {
        match (old, new) {
            (None, None) => return Ok(()),
            (Some(there), wanted) if wanted.is_none_or(|wanted| there.start < wanted.start) => {
                extents::remove(transaction, change, &there)?;
                old = olds.next().await?;
            }
            (there, Some(wanted)) if there.is_none_or(|there| wanted.start < there.start) => {
                let extent = store(shared, written, transaction, &wanted).await?;
                extents::put(transaction, inode, wanted.start, &extent)?;
                new = news.next().await?;
            }
            (Some(there), Some(wanted)) => {
                if there.extent != wanted.extent {
                    replace(shared, written, transaction, change, (there, wanted)).await?;
                }
                (old, new) = (olds.next().await?, news.next().await?);
            }
            // Covered by the arms above.
            (Some(_), None) | (None, Some(_)) => return Ok(()),
        }
    }
}

/// Puts one extent in the place of another.
async fn replace(
    shared: &Shared,
    written: &Remembered,
    transaction: &mut Transaction,
    change: &mut ContentChange,
    (there, wanted): (Placed, Placed),
) -> Result<()> {
    let inode = change.inode();
    match (there.extent, wanted.extent) {
        // The end of it was cut off: the reference stays.
        (Extent::Data { chunk, skip, .. }, Extent::Data { chunk: same, skip: from, .. })
            if (chunk, skip) == (same, from) && wanted.end() < there.end() =>
        {
            extents::carve(transaction, change, &there, &(wanted.end()..there.end()))
        }
        // More of it than there was, or another part: it is known to be there, since it is the file's.
        (Extent::Data { chunk, .. }, Extent::Data { chunk: same, .. }) if chunk == same => {
            transaction.retain_chunk(chunk)?;
            extents::remove(transaction, change, &there)?;
            extents::put(transaction, inode, wanted.start, &wanted.extent)
        }
        _ => {
            let extent = store(shared, written, transaction, &wanted).await?;
            extents::remove(transaction, change, &there)?;
            extents::put(transaction, inode, wanted.start, &extent)
        }
    }
}

/// Stores the bytes of an extent anew.
async fn store(
    shared: &Shared,
    written: &Remembered,
    transaction: &mut Transaction,
    wanted: &Placed,
) -> Result<Extent> {
    let Extent::Data { length, .. } = wanted.extent else { return Ok(wanted.extent) };
    let plain = extents::data(shared, written, &wanted.extent).await?;
    let identity = shared.options.dedup.then(|| shared.engine.identity(&plain));
    let known = match &identity {
        Some(identity) => transaction.find_chunk(identity).await?,
        None => None,
    };
    let chunk = match known {
        Some(chunk) => chunk,
        None => transaction.put_chunk(identity, codec::encode(&plain, shared.options.compression)).await?,
    };
    Ok(Extent::Data { chunk, length, skip: 0 })
}
