//! Extended attributes of an inode: a row each, beside the inode's own.
//!
//! Invariant: an inode whose row does not say that it has some has none, so that what has none costs no look-up.

use std::ops::Bound;

use bytes::Bytes;
use strongroom_core as core;
use strongroom_core::engine::{Direction, Scan, Transaction, View};

use crate::error::{Error, Result, damaged, shown};
use crate::format::{
    XATTR, XATTR_LIST_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XattrRow, split_xattr_key, xattr_key,
};
use crate::shared::Shared;

/// Checks the name of an attribute.
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.contains(&0) {
        let reason = "the name of an attribute is not empty and holds no zero byte";
        return Err(Error::InvalidPath { path: shown(name), reason });
    }
    if name.len() > XATTR_NAME_BYTES_MAX {
        return Err(Error::NameTooLong { path: shown(name), bytes: name.len(), bytes_max: XATTR_NAME_BYTES_MAX });
    }
    Ok(())
}

fn check_limit(what: &'static str, value: usize, limit: usize) -> Result<()> {
    if value > limit {
        return Err(core::Error::LimitExceeded { what, value: value as u64, limit: limit as u64 }.into());
    }
    Ok(())
}

/// The rows of one inode, in the order of their names.
pub(crate) struct Rows {
    scan: Scan,
    inode: u64,
}

pub(crate) fn rows(view: &dyn View, inode: u64) -> Rows {
    let low = xattr_key(inode, &[]);
    let high = inode.checked_add(1).map(|next| xattr_key(next, &[]));
    let high = high.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    Rows { scan: view.scan(XATTR, (Bound::Included(&low), high), Direction::Ascending), inode }
}

impl Rows {
    pub(crate) async fn next(&mut self) -> Result<Option<(Vec<u8>, XattrRow)>> {
        let Some((key, row)) = self.scan.next().await? else { return Ok(None) };
        let (inode, name) = split_xattr_key(&key)?;
        if inode != self.inode {
            return Err(damaged("extended attribute", "out of its inode's range"));
        }
        Ok(Some((name.to_vec(), XattrRow::decode(&row)?)))
    }
}

async fn row(view: &dyn View, inode: u64, name: &[u8]) -> Result<Option<XattrRow>> {
    Ok(match view.get(XATTR, &xattr_key(inode, name)).await? {
        Some(row) => Some(XattrRow::decode(&row)?),
        None => None,
    })
}

pub(crate) async fn get(view: &dyn View, inode: u64, name: &[u8]) -> Result<Option<Vec<u8>>> {
    match row(view, inode, name).await? {
        Some(row) => value(view, row).await.map(Some),
        None => Ok(None),
    }
}

/// The value that a row stands for.
pub(crate) async fn value(view: &dyn View, row: XattrRow) -> Result<Vec<u8>> {
    let (length, chunks) = match row {
        XattrRow::Inline(value) => return Ok(value),
        XattrRow::Chunks { length, chunks } => (length as usize, chunks),
    };
    let mut value = Vec::with_capacity(length);
    for chunk in chunks {
        value.extend_from_slice(&view.chunk(chunk).await?);
        if value.len() > length {
            break;
        }
    }
    if value.len() != length {
        return Err(damaged("extended attribute", "its chunks are not as long as its value"));
    }
    Ok(value)
}

/// Whether the inode has an attribute of this name.
pub(crate) async fn exists(view: &dyn View, inode: u64, name: &[u8]) -> Result<bool> {
    Ok(row(view, inode, name).await?.is_some())
}

/// What [`put`] would refuse, before anything is changed.
pub(crate) async fn check_room(view: &dyn View, inode: u64, name: &[u8], value_bytes: usize) -> Result<()> {
    check_limit("xattr_value_bytes", value_bytes, XATTR_VALUE_BYTES_MAX)?;
    let mut listed = name.len() + 1;
    let mut rows = rows(view, inode);
    while let Some((other, _)) = rows.next().await? {
        if other != name {
            listed += other.len() + 1;
        }
    }
    check_limit("xattr_list_bytes", listed, XATTR_LIST_BYTES_MAX)
}

/// Sets an attribute; the inode's row is the caller's.
pub(crate) async fn put(
    shared: &Shared,
    transaction: &mut Transaction,
    inode: u64,
    name: &[u8],
    value: &[u8],
) -> Result<()> {
    release(transaction, inode, name).await?;
    let key = xattr_key(inode, name);
    let row = if value.len() < shared.engine.row_bytes_max().saturating_sub(key.len()) {
        XattrRow::Inline(value.to_vec())
    } else {
        let mut chunks = Vec::new();
        for piece in value.chunks(shared.engine.chunk_bytes_max().max(1)) {
            chunks.push(transaction.put_chunk(None, Bytes::copy_from_slice(piece)).await?);
        }
        XattrRow::Chunks { length: u32::try_from(value.len()).unwrap_or(u32::MAX), chunks }
    };
    Ok(transaction.put(XATTR, &key, &row.encode())?)
}

/// Removes an attribute that is there; the inode's row is the caller's. Answers whether others are left.
pub(crate) async fn remove(transaction: &mut Transaction, inode: u64, name: &[u8]) -> Result<bool> {
    release(transaction, inode, name).await?;
    transaction.delete(XATTR, &xattr_key(inode, name))?;
    Ok(rows(transaction, inode).next().await?.is_some())
}

/// Gives a new inode the attributes of another; values in chunks are shared.
pub(crate) async fn copy_all(transaction: &mut Transaction, mut rows: Rows, to: u64) -> Result<()> {
    while let Some((name, row)) = rows.next().await? {
        for chunk in row.chunks() {
            transaction.retain_chunk(*chunk)?;
        }
        transaction.put(XATTR, &xattr_key(to, &name), &row.encode())?;
    }
    Ok(())
}

async fn release(transaction: &mut Transaction, inode: u64, name: &[u8]) -> Result<()> {
    if let Some(row) = row(transaction, inode, name).await? {
        for chunk in row.chunks() {
            transaction.release_chunk(*chunk)?;
        }
    }
    Ok(())
}
