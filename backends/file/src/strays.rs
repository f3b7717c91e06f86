//! What sync clients leave among the blobs. A client carries files in any order; where two machines have put one name it keeps both
//! contents, the one that lost under a name of its own making; and what it has not received whole it keeps under another.
//!
//! All of these are told from blobs by their names alone: a blob's is 32 hexadecimal digits, and theirs has something around that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::bounds::{check_range, not_found};
use strongroom_core::storage::{
    Blocking, Capabilities, Error, ErrorKind, Name, Operation, Put, Result, Storage, Stray, StraysSought,
};

use crate::deleted::kept;
use crate::error::reading;
use crate::folder::{Folder, read_at};
use crate::layout::{Shard, shard_from, shard_of};
use crate::storage::CAPABILITIES;

/// Digits in the name of a blob.
const DIGITS: usize = 32;

/// How names of unfinished files begin and end: those of Syncthing, Nextcloud, Dropbox, rsync, browsers, and of what iCloud has put
/// away.
const UNFINISHED_BEGINNINGS: [&str; 2] = [".", "~"];
const UNFINISHED_ENDINGS: [&str; 6] = [".tmp", ".part", ".partial", ".crdownload", ".icloud", ".download"];

/// What a file is, that stands beside the blobs in the sub-folder of a shard; `None` for a blob, and for what has nothing to do with
/// one. In a sub-folder that is doubled (`3f 2`) a blob's own name is a copy's, too: it is not looked for there.
pub(crate) fn stray_of(file_name: &str, shard: Shard, folder: &str) -> Option<Stray> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut runs = file_name.as_bytes().split(|byte| !is_digit(byte)).filter(|run| run.len() >= DIGITS);
    // What stands behind may begin with such a digit, as in `… conflict`: not without something between.
    let name = std::str::from_utf8(runs.next()?).ok().and_then(Name::from_hex)?;
    let is_blob = file_name.len() == DIGITS && shard_from(folder).is_some();
    if is_blob || shard_of(name) != shard {
        return None;
    }
    let is_unfinished = UNFINISHED_BEGINNINGS.iter().any(|beginning| file_name.starts_with(beginning))
        || UNFINISHED_ENDINGS.iter().any(|ending| file_name.ends_with(ending));
    Some(Stray { name, called: format!("{folder}/{file_name}"), is_copy: !is_unfinished })
}

/// The shard that a sub-folder is of which two devices made at one time: `3f 2`, `3f (1)`, `3f-LAPTOP`.
fn doubled(folder: &str) -> Option<Shard> {
    let (shard, more) = folder.split_at_checked(2)?;
    let is_apart = more.starts_with(|next: char| !next.is_ascii_alphanumeric());
    shard_from(shard).filter(|_| is_apart)
}

/// The strays of a folder, ascending; `draws`: which sub-folders a search looks at that is not for all.
pub(crate) fn strays(path: &Path, sought: &StraysSought, draws: [u8; LOOKS]) -> io::Result<Vec<Stray>> {
    let folder = Folder::open(path)?;
    let mut folders = Vec::new();
    folder.each_entry(".", |entry| {
        folders.extend(shard_from(entry).or_else(|| doubled(entry)).map(|shard| (shard, entry.to_owned())));
    })?;
    if let StraysSought::Near(names) = sought {
        folders = near(folders, names, draws);
    }
    let mut strays = Vec::new();
    for (shard, path) in folders {
        match folder.each_entry(&path, |entry| strays.extend(stray_of(entry, shard, &path))) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    strays.sort();
    Ok(strays)
}

/// Sub-folders that are looked at where not all are: to list one takes a few calls, each of which may go over a network.
const LOOKS: usize = 8;

/// Of these sub-folders those of the names, half of the looks at most, and others as they are drawn.
fn near(mut folders: Vec<(Shard, String)>, names: &[Name], draws: [u8; LOOKS]) -> Vec<(Shard, String)> {
    let wanted: BTreeSet<Shard> = names.iter().rev().take(LOOKS / 2).map(|name| shard_of(*name)).collect();
    // What the system answers in some order is drawn from in the same one each time.
    folders.sort();
    let (mut looks, mut others): (Vec<_>, Vec<_>) =
        folders.into_iter().partition(|(shard, folder)| wanted.contains(shard) || shard_from(folder).is_none());
    looks.truncate(LOOKS);
    for draw in draws {
        if looks.len() < LOOKS && !others.is_empty() {
            looks.push(others.swap_remove(usize::from(draw) % others.len()));
        }
    }
    looks
}

/// The copies that lie beside the blobs of a folder, deleted ones that are kept too, each as a storage of its own that has a content a name: the first ones, the
/// second ones of names that have several, and so on. To be read, and no more.
pub(crate) fn copies(path: &Path, blocking: &Blocking) -> io::Result<Vec<Copies>> {
    let folder = Arc::new(Folder::open(path)?);
    let mut places: Vec<Copies> = Vec::new();
    let mut counts: BTreeMap<Name, usize> = BTreeMap::new();
    let strays = strays(path, &StraysSought::All, [0; LOOKS])?.into_iter().filter(|stray| stray.is_copy);
    let deleted = kept(&folder)?.into_iter();
    let files = strays.map(|stray| (stray.name, stray.called)).chain(deleted.map(|(called, _, name)| (name, called)));
    for (name, file) in files {
        let count = counts.entry(name).or_default();
        match places.get_mut(*count) {
            Some(place) => {
                place.files.insert(name, file);
            }
            None => {
                let files = BTreeMap::from([(name, file)]);
                places.push(Copies { folder: folder.clone(), files, blocking: blocking.clone() });
            }
        }
        *count += 1;
    }
    Ok(places)
}

#[derive(Debug)]
pub(crate) struct Copies {
    folder: Arc<Folder>,
    files: BTreeMap<Name, String>,
    blocking: Blocking,
}

impl Copies {
    fn path(&self, operation: Operation, name: Name) -> Result<String> {
        self.files.get(&name).cloned().ok_or_else(|| not_found(operation, name))
    }
}

/// As a blob is opened: what only has the name of a file keeps nobody waiting.
fn open(folder: &Folder, path: &str) -> io::Result<(File, u64)> {
    let file = folder.open_blob(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata.len())) } else { Err(io::ErrorKind::IsADirectory.into()) }
}

fn failed(operation: Operation, name: Name, path: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => not_found(operation, name),
        _ => reading(operation, path, error),
    }
}

fn refused<T>(operation: Operation) -> Result<T> {
    Err(Error::new(ErrorKind::ReadOnly, operation, "copies beside the blobs")
        .with_source("they are a sync client's, and only read"))
}

#[async_trait]
impl Storage for Copies {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn put(&self, _: Name, _: Bytes) -> Result<Put> {
        refused(Operation::Put)
    }

    async fn put_durable(&self, _: Name, _: Bytes) -> Result<Put> {
        refused(Operation::PutDurable)
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let (folder, path) = (self.folder.clone(), self.path(Operation::Get, name)?);
        let read = move || {
            let failed = |error| failed(Operation::Get, name, &path, error);
            let (file, bytes) = open(&folder, &path).map_err(failed)?;
            let range = check_range(name, range, bytes, max_bytes)?;
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let found = read_at(&file, range.start, length).map_err(failed)?;
            if found.len() == length { Ok(Bytes::from(found)) } else { Err(not_found(Operation::Get, name)) }
        };
        self.blocking.run(Operation::Get, read).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        let (folder, path) = (self.folder.clone(), self.path(Operation::Size, name)?);
        let look = move || {
            let opened = open(&folder, &path).map_err(|error| failed(Operation::Size, name, &path, error))?;
            Ok(opened.1)
        };
        self.blocking.run(Operation::Size, look).await
    }

    async fn delete(&self, _: Name) -> Result<()> {
        refused(Operation::Delete)
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let is_asked = |name: &&Name| name.as_bytes().starts_with(prefix) && after.is_none_or(|after| **name > after);
        Ok(self.files.keys().filter(is_asked).copied().collect())
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    async fn persist(&self, _: &[Name]) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::shard_path;

    #[test]
    fn what_sync_clients_leave_is_told_from_blobs_and_from_what_is_foreign() {
        let name = Name::new([0xab; 16]);
        let hex = name.to_hex();
        let kind = |file_name: &str| stray_of(file_name, 0xab, "ab").map(|stray| (stray.name, stray.is_copy));
        for copy in [
            format!("{hex} (conflicted copy 2026-11-30)"),
            format!("{hex} (laptop's conflicted copy 2026-11-30)"),
            format!("{hex}.sync-conflict-20261130-101500-ABCDEFG"),
            format!("{hex} (1)"),
            format!("{hex} 2"),
            format!("{hex}-DESKTOP"),
            format!("{hex}_conflict-20261130-101500"),
            format!("Copy of {hex}"),
        ] {
            assert_eq!(kind(&copy), Some((name, true)), "{copy}");
        }
        for unfinished in [
            format!(".~{hex}"),
            format!(".syncthing.{hex}.tmp"),
            format!("~syncthing~{hex}.tmp"),
            format!("{hex}.part"),
            format!(".{hex}.Xy12Zq"),
            format!(".{hex}.icloud"),
        ] {
            assert_eq!(kind(&unfinished), Some((name, false)), "{unfinished}");
        }
        for foreign in [hex.clone(), format!("{hex}00"), hex.to_uppercase(), "notes.txt".into(), String::new()] {
            assert_eq!(kind(&foreign), None, "{foreign}");
        }
        assert_eq!(stray_of(&format!("{hex} (1)"), 0xac, "ac"), None);
        // What was put into a sub-folder that is doubled has its own name there.
        for folder in ["ab 2", "ab (1)", "ab-LAPTOP", "ab.sync-conflict-20261130-101500-ABCDEFG"] {
            assert_eq!(doubled(folder), Some(0xab), "{folder}");
            let stray = stray_of(&hex, 0xab, folder).unwrap();
            assert_eq!((stray.name, stray.is_copy, stray.called), (name, true, format!("{folder}/{hex}")));
        }
        for folder in ["ab", "abc", "a", "ab2", "xy 2", "incoming", "ä", ""] {
            assert_eq!(doubled(folder), None, "{folder}");
        }
    }

    #[test]
    fn a_search_that_is_bounded_looks_at_few_sub_folders_and_at_others_each_time() {
        let root = tempfile::tempdir().unwrap();
        for shard in 0..=255_u8 {
            let folder = root.path().join(shard_path(shard));
            std::fs::create_dir(&folder).unwrap();
            let name = Name::new([shard; 16]).to_hex();
            std::fs::write(folder.join(&name), b"won").unwrap();
            std::fs::write(folder.join(format!("{name} (1)")), b"lost").unwrap();
        }
        let found = |sought: &StraysSought, draws| strays(root.path(), sought, draws).unwrap();
        assert_eq!(found(&StraysSought::All, [9; LOOKS]).len(), 256);
        // One lies in each sub-folder: so many were looked at.
        let near = StraysSought::Near(vec![Name::new([7; 16]), Name::new([9; 16]), Name::new([9; 16])]);
        let (some, others) =
            (found(&near, [200, 190, 180, 170, 160, 150, 140, 130]), found(&near, [20, 30, 40, 50, 60, 70, 80, 90]));
        assert_eq!((some.len(), others.len()), (LOOKS, LOOKS));
        for near in [7, 9] {
            assert!([&some, &others].iter().all(|found| found.iter().any(|stray| stray.name == Name::new([near; 16]))));
        }
        assert_eq!(some.iter().filter(|stray| others.contains(stray)).count(), 2);
        let many: Vec<Name> = (0..100).map(|byte| Name::new([byte; 16])).collect();
        assert_eq!(found(&StraysSought::Near(many), [0; LOOKS]).len(), LOOKS);
        // What is doubled is looked at first: there is little of it, and it is always of interest.
        let doubled = root.path().join("3f 2");
        std::fs::create_dir(&doubled).unwrap();
        std::fs::write(doubled.join(Name::new([0x3f; 16]).to_hex()), b"lost").unwrap();
        assert!(found(&near, [1; LOOKS]).iter().any(|stray| stray.called.starts_with("3f 2/")));
    }
}
