use std::ops::Bound;

use strongroom_core as core;
use strongroom_core::engine::{Direction, Transaction, View};

use super::past::Past;
use crate::error::{Error, Result, damaged, shown};
use crate::format::{
    ContentRow, Extent, PAST, VERSION, VERSIONS_MAX, VersionRow, Versions, past_key, split_version_key, version_key,
};
use crate::time::Timestamp;

/// A version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its number: one more for each commit that changed the content, never given twice; where everything is brought back to
    /// what it was ([`crate::FsTransaction::restore`]), it is counted on from there.
    pub number: u64,
    /// Its length in bytes.
    pub size: u64,
    /// When its content came about.
    pub time: Timestamp,
    /// Bytes that only this version and older ones hold, dedup and compression aside; 0 for the current version.
    pub held_bytes: u64,
    /// Whether it is the current one.
    pub current: bool,
}

/// A version that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) number: u64,
    pub(crate) size: u64,
    pub(crate) changed: u64,
}

/// A version of a file with this content row.
pub(crate) async fn load(view: &dyn View, inode: u64, path: &[u8], content: &ContentRow, number: u64) -> Result<Found> {
    let Versions { current, oldest, .. } = content.versions;
    if number == current {
        return Ok(Found { number, size: content.size, changed: content.changed });
    }
    if !(oldest..current).contains(&number) {
        return Err(Error::NoSuchVersion { path: shown(path), number, oldest, current });
    }
    let row = view.get(VERSION, &version_key(inode, number)).await?;
    let row = row.ok_or_else(|| damaged("version", format!("{number} of inode {inode:#x} is missing")))?;
    let VersionRow { changed, size, .. } = VersionRow::decode(&row)?;
    Ok(Found { number, size, changed })
}

/// All versions of a file with this content row, the oldest first.
pub(crate) async fn list(view: &dyn View, inode: u64, content: &ContentRow) -> Result<Vec<Version>> {
    let Versions { current, oldest, .. } = content.versions;
    let mut found = Vec::new();
    if oldest < current {
        let (low, high) = (version_key(inode, oldest), version_key(inode, current));
        let range = (Bound::Included(low.as_slice()), Bound::Excluded(high.as_slice()));
        let mut scan = view.scan(VERSION, range, Direction::Ascending);
        while let Some((key, value)) = scan.next().await? {
            let (_, number) = split_version_key(&key)?;
            let VersionRow { changed, size, held_bytes } = VersionRow::decode(&value)?;
            let time = Timestamp::from_nanos(changed);
            found.push(Version { number, size, time, held_bytes, current: false });
        }
    }
    if found.len() as u64 != content.versions.older_count() {
        return Err(damaged("version", format!("of inode {inode:#x} is missing")));
    }
    let time = Timestamp::from_nanos(content.changed);
    found.push(Version { number: current, size: content.size, time, held_bytes: 0, current: true });
    Ok(found)
}

/// Gives up the oldest versions until at most `kept` are left beside the current one.
pub(crate) async fn evict(transaction: &mut Transaction, inode: u64, versions: &mut Versions, kept: u64) -> Result<()> {
    while versions.older_count() > kept {
        let (oldest, next) = (versions.oldest, versions.oldest.saturating_add(1));
        transaction.delete(VERSION, &version_key(inode, oldest))?;
        // The scan is of what was there when it began.
        let mut past = Past::of(transaction, inode, next..=next);
        while let Some((death, placed)) = past.next().await? {
            transaction.delete(PAST, &past_key(inode, death, placed.start))?;
            if let Extent::Data { chunk, .. } = placed.extent {
                transaction.release_chunk(chunk)?;
            }
        }
        versions.oldest = next;
    }
    Ok(())
}

/// Refuses a limit over the limit.
pub(crate) fn check_limit(limit: u32) -> Result<()> {
    if limit > VERSIONS_MAX {
        let (value, limit) = (limit.into(), VERSIONS_MAX.into());
        return Err(core::Error::LimitExceeded { what: "versions", value, limit }.into());
    }
    Ok(())
}
