//! Looks at every row of the file system, and on request at every byte.
//!
//! Memory: a few bytes for each inode and each chunk; names and content are looked at one by one.

mod reached;
mod reading;

use std::collections::{HashMap, HashSet};
use std::ops::Bound;

use bytes::Bytes;
use strongroom_core::engine::{ChunkNumber, Counts, Direction, Scan, Table, View};

use crate::error::{Error, Result};
use crate::extents::{self, Placed};
use crate::filesystem::{FileSystem, FsSnapshot, ReadDir, entries, rows_of};
use crate::format::{
    CONTENT, ContentRow, ENTRY, EXTENT, EntryRow, Extent, INODE, Kind, NO_EPOCH, ORPHAN, PAST, ROOT, SUBDIRECTORIES,
    VERSION, Versions, XATTR, XattrRow, decode_orphan, inode_key, split_entry_key, split_extent_key, split_inode_key,
    split_past_key, split_version_key, split_xattr_key,
};
use crate::inodes;
use crate::path::check_name;
use crate::versions::{self, Past};
use crate::xattrs;
use reached::Reached;
use reading::ChunkReads;

/// What a check looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Whether every chunk is read, authenticated and decoded.
    pub data: bool,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it was met, if by walking a path.
    pub path: Option<Vec<u8>>,
    /// The inode it is about.
    pub inode: u64,
    /// What is amiss.
    pub detail: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.path {
            Some(path) => write!(formatter, "{}: {}", String::from_utf8_lossy(path), self.detail),
            None => write!(formatter, "inode {:#x}: {}", self.inode, self.detail),
        }
    }
}

/// What a check met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckSummary {
    /// Directories, the root included.
    pub directories: u64,
    /// Regular files.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Files without a name: somebody has, or had, them open, or they are large and being deleted. With the last handle, or the
    /// next writer, they go.
    pub orphans: u64,
    /// Extended attributes of all of them.
    pub xattrs: u64,
    /// Bytes of all files together, holes included.
    pub logical_bytes: u64,
    /// Versions of files beside the current ones.
    pub versions: u64,
    /// What was found amiss.
    pub findings: u64,
    /// How many extents, those of older versions included, refer to each chunk, for the engine to compare with its counts.
    pub references: Counts,
}

impl FileSystem {
    /// Checks the newest state. Findings go to `report` as they are met.
    ///
    /// # Errors
    /// Those that keep the check from going on; what is damaged is a finding, not an error.
    pub async fn check(&self, options: CheckOptions, report: impl FnMut(Finding) + Send) -> Result<CheckSummary> {
        self.snapshot().check(options, report).await
    }
}

impl FsSnapshot {
    /// As [`FileSystem::check`], of a snapshot.
    ///
    /// # Errors
    /// As [`FileSystem::check`].
    pub async fn check(&self, options: CheckOptions, report: impl FnMut(Finding) + Send) -> Result<CheckSummary> {
        let mut check = Check {
            on: self,
            options,
            report,
            summary: CheckSummary::default(),
            seen: Seen::default(),
            versioned: HashMap::new(),
            with_xattrs: HashSet::new(),
            remains: HashSet::new(),
            broken: HashSet::new(),
            reached: Reached::default(),
            reading: ChunkReads::default(),
            is_cut_short: false,
        };
        check.walk().await?;
        check.orphans().await?;
        check.strays().await?;
        check.xattrs().await?;
        Ok(check.summary)
    }
}

struct Check<'s, R> {
    on: &'s FsSnapshot,
    options: CheckOptions,
    report: R,
    summary: CheckSummary,
    seen: Seen,
    /// Files that have older versions.
    versioned: HashMap<u64, Versions>,
    /// Those of them that say that they have extended attributes.
    with_xattrs: HashSet<u64>,
    /// Files that are deleted, and of which rows are left.
    remains: HashSet<u64>,
    broken: HashSet<ChunkNumber>,
    /// Up to where each chunk was read for the extents that were met.
    reached: Reached,
    reading: ChunkReads,
    /// Whether rows could not be read, which was told.
    is_cut_short: bool,
}

/// Inodes met on the way down, and how many of their names are still to be met: that, and one.
#[derive(Default)]
struct Seen(Counts);

impl Seen {
    fn get(&self, inode: u64) -> Option<u64> {
        self.0.get(inode).checked_sub(1)
    }

    fn has(&self, inode: u64) -> bool {
        self.0.get(inode) > 0
    }

    fn insert(&mut self, inode: u64, names_left: u64) {
        self.0.set(inode, names_left.saturating_add(1));
    }

    /// Those of which names are missing.
    fn left(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().filter(|(_, count)| *count > 1).map(|(inode, count)| (inode, count - 1))
    }
}

struct Level {
    inode: u64,
    listing: ReadDir,
    path_length: usize,
    subdirectories: u64,
}

impl<R: FnMut(Finding) + Send> Check<'_, R> {
    fn found(&mut self, path: Option<&[u8]>, inode: u64, detail: impl Into<String>) {
        self.summary.findings += 1;
        (self.report)(Finding { path: path.map(<[u8]>::to_vec), inode, detail: detail.into() });
    }

    /// What cannot be read is a finding; but a state that another process gave up says nothing of the repository.
    fn failed(&mut self, path: Option<&[u8]>, inode: u64, error: impl Into<Error>) -> Result<()> {
        let error = error.into();
        if error.is_conflict() {
            return Err(error);
        }
        self.found(path, inode, error.to_string());
        Ok(())
    }

    /// The next row; `None` after the last, and where the rest cannot be read, which is told.
    async fn next_row(&mut self, scan: &mut Scan) -> Result<Option<(Bytes, Bytes)>> {
        match scan.next().await {
            Ok(row) => Ok(row),
            Err(error) => {
                self.is_cut_short = true;
                self.failed(None, 0, error).map(|()| None)
            }
        }
    }

    /// From the root down: every name leads to an inode of its kind, every inode is whole.
    async fn walk(&mut self) -> Result<()> {
        let view = &self.on.snapshot;
        let mut path = b"/".to_vec();
        self.inode(&path, EntryRow { inode: ROOT, kind: Kind::Directory }).await?;
        let mut levels =
            vec![Level { inode: ROOT, listing: entries(view, ROOT, None), path_length: 0, subdirectories: 0 }];
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path_length);
            let next = match level.listing.next().await {
                Ok(next) => next,
                Err(error) => {
                    let inode = level.inode;
                    levels.pop();
                    self.failed(Some(&path), inode, error)?;
                    continue;
                }
            };
            let Some(entry) = next else {
                let (inode, subdirectories) = (level.inode, level.subdirectories);
                levels.pop();
                match inodes::subdirectories(view, inode).await {
                    Ok(count) if count == subdirectories => {}
                    Ok(count) => {
                        let detail = format!("counts {count} directories, holds {subdirectories}");
                        self.found(Some(&path), inode, detail);
                    }
                    Err(error) => self.failed(Some(&path), inode, error)?,
                }
                continue;
            };
            level.subdirectories += u64::from(entry.kind == Kind::Directory);
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            if check_name(&entry.name).is_err()
                || entry.name.contains(&b'/')
                || entry.name == b"."
                || entry.name == b".."
            {
                self.found(Some(&path), entry.inode, "impossible name");
            }
            let row = EntryRow { inode: entry.inode, kind: entry.kind };
            if self.inode(&path, row).await? && entry.kind == Kind::Directory {
                levels.push(Level {
                    inode: entry.inode,
                    listing: entries(view, entry.inode, None),
                    path_length: path.len(),
                    subdirectories: 0,
                });
            }
        }
        self.end_reading(None, ROOT).await?;
        let missing: Vec<_> = self.seen.left().collect();
        for (inode, names) in missing {
            self.found(None, inode, format!("counts {names} names more than there are"));
        }
        Ok(())
    }

    /// Checks what a name leads to; answers whether it was met for the first time and can be gone into.
    async fn inode(&mut self, path: &[u8], entry: EntryRow) -> Result<bool> {
        let view = &self.on.snapshot;
        let EntryRow { inode, kind } = entry;
        if let Some(names) = self.seen.get(inode) {
            if kind == Kind::Directory {
                self.found(Some(path), inode, "a second name of a directory");
            } else if let Some(left) = names.checked_sub(1) {
                self.seen.insert(inode, left);
            } else {
                self.found(Some(path), inode, "has more names than it counts");
            }
            return Ok(false);
        }
        let row = match inodes::load(view, inode).await {
            Ok(row) => row,
            Err(error) => {
                self.seen.insert(inode, 0);
                self.failed(Some(path), inode, error)?;
                return Ok(false);
            }
        };
        self.seen.insert(inode, row.nlink.saturating_sub(1).into());
        if row.xattrs {
            self.with_xattrs.insert(inode);
        }
        if row.nlink == 0 {
            self.found(Some(path), inode, "has a name and counts none");
        }
        if row.kind != kind {
            self.found(Some(path), inode, format!("is a {:?}, its name says {kind:?}", row.kind));
            return Ok(false);
        }
        match kind {
            Kind::Directory => {
                self.summary.directories += 1;
                if let Err(error) = inodes::content(view, inode).await {
                    self.failed(Some(path), inode, error)?;
                }
            }
            Kind::File => {
                self.summary.files += 1;
                let size = self.content(Some(path), inode).await?;
                self.summary.logical_bytes = self.summary.logical_bytes.saturating_add(size);
            }
            Kind::Symlink => {
                self.summary.symlinks += 1;
                if row.inline.is_none() {
                    self.content(Some(path), inode).await?;
                }
            }
        }
        Ok(true)
    }

    /// The extents of a file lie end to end from 0 to its size.
    async fn content(&mut self, path: Option<&[u8]>, inode: u64) -> Result<u64> {
        let view = &self.on.snapshot;
        let content = match inodes::file_content(view, inode).await {
            Ok(content) => content,
            Err(error) => {
                self.failed(path, inode, error)?;
                return Ok(0);
            }
        };
        let size = content.size;
        let mut walk = extents::walk(view, inode, 0);
        let (mut end, mut is_whole) = (0, true);
        loop {
            match walk.next().await {
                Ok(Some(placed)) => {
                    end = placed.end();
                    self.extent(path, inode, &placed).await?;
                }
                Ok(None) => break,
                Err(error) => {
                    self.failed(path, inode, error)?;
                    is_whole = false;
                    break;
                }
            }
        }
        if is_whole && end != size {
            self.found(path, inode, format!("is {size} bytes long, its extents cover {end}"));
        }
        if content.versions.older_count() > 0 {
            self.versioned.insert(inode, content.versions);
            if let Err(error) = self.versions(path, inode, &content).await {
                self.failed(path, inode, error)?;
            }
        }
        // What is being read belongs to this path: say so before going on.
        self.end_reading(path, inode).await?;
        Ok(size)
    }

    /// What each version replaced lies within the version before, without overlap, and covers the end that was cut off. So
    /// every version is covered, because the one after it is.
    async fn versions(&mut self, path: Option<&[u8]>, inode: u64, content: &ContentRow) -> Result<()> {
        let view = &self.on.snapshot;
        let list = versions::list(view, inode, content).await?;
        self.summary.versions += content.versions.older_count();
        let mut replaced = vec![Replaced::default(); list.len()];
        let Versions { oldest, current, .. } = content.versions;
        let mut past = Past::of(view, inode, oldest.saturating_add(1)..=current);
        while let Some((death, placed)) = past.next().await? {
            self.extent(path, inode, &placed).await?;
            let before = usize::try_from(death.saturating_sub(oldest).saturating_sub(1)).unwrap_or(usize::MAX);
            let Some(replaced) = replaced.get_mut(before) else { continue };
            if placed.start < replaced.end {
                self.found(path, inode, format!("what version {death} replaced overlaps at {}", placed.start));
            }
            replaced.add(&placed);
        }
        let pairs = list.iter().zip(list.iter().skip(1)).zip(&replaced);
        for ((before, after), replaced) in pairs {
            let number = before.number;
            if replaced.end > before.size {
                self.found(path, inode, format!("version {number} is shorter than what was replaced of it"));
            }
            if after.size < before.size && (replaced.end < before.size || replaced.run_start > after.size) {
                self.found(path, inode, format!("the end of version {number} is missing"));
            }
            if replaced.held_bytes != before.held_bytes {
                let detail = format!("version {number} holds {} bytes, not {}", replaced.held_bytes, before.held_bytes);
                self.found(path, inode, detail);
            }
        }
        Ok(())
    }

    async fn extent(&mut self, path: Option<&[u8]>, inode: u64, placed: &Placed) -> Result<()> {
        let Extent::Data { chunk, length, skip } = placed.extent else { return Ok(()) };
        self.summary.references.add(chunk.0);
        if !self.options.data {
            return Ok(());
        }
        if self.broken.contains(&chunk) {
            self.found(path, inode, format!("chunk {:#x} is damaged, at offset {}", chunk.0, placed.start));
            return Ok(());
        }
        // Read again for whoever wants more of it than those before: its length was checked for what they want.
        if !self.reached.is_further(chunk, skip.saturating_add(length)) {
            return Ok(());
        }
        self.reading.gather(chunk, length, skip);
        self.begin_reading(path, inode).await
    }

    /// Files without a name: each is an inode that counts none, and whole; or no inode, and some of the rows of a file.
    async fn orphans(&mut self) -> Result<()> {
        let view = &self.on.snapshot;
        let mut scan = view.scan(ORPHAN, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
        while let Some((key, value)) = self.next_row(&mut scan).await? {
            let decoded = split_inode_key("orphan", &key).and_then(|inode| Ok((inode, decode_orphan(&value)?)));
            let (inode, epoch) = match decoded {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.failed(None, 0, error)?;
                    continue;
                }
            };
            if self.seen.has(inode) {
                self.found(None, inode, "has a name and is said to have none");
                continue;
            }
            self.summary.orphans += 1;
            self.seen.insert(inode, 0);
            if epoch == NO_EPOCH {
                self.remains(inode).await?;
                continue;
            }
            match inodes::load(view, inode).await {
                Ok(row) if row.kind == Kind::File && row.nlink == 0 => {
                    if row.xattrs {
                        self.with_xattrs.insert(inode);
                    }
                    self.content(None, inode).await?;
                }
                Ok(_) => self.found(None, inode, "is said to be a file without a name"),
                Err(error) => self.failed(None, inode, error)?,
            }
        }
        Ok(())
    }

    /// What is left of a file that is deleted: extents of any part of it, and what else is looked at with the others.
    async fn remains(&mut self, inode: u64) -> Result<()> {
        let view = &self.on.snapshot;
        for table in [INODE, CONTENT] {
            match view.get(table, &inode_key(inode)).await {
                Ok(None) => {}
                Ok(Some(_)) => self.found(None, inode, "is said to be deleted and is there"),
                Err(error) => self.failed(None, inode, error)?,
            }
        }
        self.remains.insert(inode);
        let mut scan = rows_of(view, EXTENT, inode);
        while let Some((key, value)) = self.next_row(&mut scan).await? {
            let decoded = split_extent_key(&key).and_then(|(_, start)| Ok((start, Extent::decode(&value)?)));
            match decoded {
                Ok((start, extent)) => self.extent(None, inode, &Placed { start, extent }).await?,
                Err(error) => self.failed(None, inode, error)?,
            }
        }
        self.end_reading(None, inode).await?;
        Ok(())
    }

    /// Rows that no name leads to.
    async fn strays(&mut self) -> Result<()> {
        self.strays_in(INODE, "inode without a name", |key| split_inode_key("inode", key)).await?;
        self.strays_in(ENTRY, "names in a directory that does not exist", |key| Ok(split_entry_key(key)?.0)).await?;
        self.strays_in(EXTENT, "content of a file that does not exist", |key| Ok(split_extent_key(key)?.0)).await?;
        self.stray_versions().await?;
        self.strays_in(CONTENT, "change time of what does not exist", |key| split_inode_key("content row", key))
            .await?;
        self.strays_in(SUBDIRECTORIES, "count of a directory that does not exist", |key| {
            split_inode_key("subdirectory count", key)
        })
        .await
    }

    async fn strays_in(
        &mut self,
        table: Table,
        detail: &'static str,
        owner: impl Fn(&[u8]) -> strongroom_core::Result<u64> + Send,
    ) -> Result<()> {
        let range = (Bound::Unbounded, Bound::Unbounded);
        let mut scan = self.on.snapshot.scan(table, range, Direction::Ascending);
        let mut last = None;
        while let Some((key, value)) = self.next_row(&mut scan).await? {
            match owner(&key) {
                Ok(inode) => {
                    if !self.seen.has(inode) && last != Some(inode) {
                        self.found(None, inode, detail);
                    }
                    if table == EXTENT
                        && !self.seen.has(inode)
                        && let Ok(Extent::Data { chunk, .. }) = Extent::decode(&value)
                    {
                        // It holds its reference all the same.
                        self.summary.references.add(chunk.0);
                    }
                    last = Some(inode);
                }
                Err(error) => self.failed(None, 0, error)?,
            }
        }
        Ok(())
    }

    /// Versions that no content row knows of, and what was replaced for them.
    async fn stray_versions(&mut self) -> Result<()> {
        let range = || (Bound::Unbounded, Bound::Unbounded);
        let mut last = None;
        let mut scan = self.on.snapshot.scan(VERSION, range(), Direction::Ascending);
        while let Some((key, _)) = self.next_row(&mut scan).await? {
            match split_version_key(&key) {
                Ok((inode, number)) => self.known_version(inode, number, &mut last),
                Err(error) => self.failed(None, 0, error)?,
            }
        }
        let mut scan = self.on.snapshot.scan(PAST, range(), Direction::Ascending);
        while let Some((key, value)) = self.next_row(&mut scan).await? {
            match split_past_key(&key) {
                Ok((inode, death, _)) => {
                    let before = death.saturating_sub(1);
                    self.known_version(inode, before, &mut last);
                    if !self.is_known(inode, before)
                        && let Ok(Extent::Data { chunk, .. }) = Extent::decode(&value)
                    {
                        self.summary.references.add(chunk.0);
                    }
                }
                Err(error) => self.failed(None, 0, error)?,
            }
        }
        Ok(())
    }

    fn is_known(&self, inode: u64, number: u64) -> bool {
        self.versioned.get(&inode).is_some_and(|versions| (versions.oldest..versions.current).contains(&number))
    }

    fn known_version(&mut self, inode: u64, number: u64, last: &mut Option<(u64, u64)>) {
        if self.remains.contains(&inode) {
            return;
        }
        if !self.is_known(inode, number) && *last != Some((inode, number)) {
            *last = Some((inode, number));
            self.found(None, inode, format!("version {number} of what does not have it"));
        }
    }

    /// Every extended attribute belongs to an inode that says so.
    async fn xattrs(&mut self) -> Result<()> {
        let view = &self.on.snapshot;
        let mut scan = view.scan(XATTR, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
        let mut last = None;
        while let Some((key, value)) = self.next_row(&mut scan).await? {
            let inode = match split_xattr_key(&key) {
                Ok((inode, _)) => inode,
                Err(error) => {
                    self.failed(None, 0, error)?;
                    continue;
                }
            };
            self.summary.xattrs += 1;
            let is_first = last.replace(inode) != Some(inode);
            if is_first && !self.seen.has(inode) {
                self.found(None, inode, "extended attributes of what does not exist");
            } else if is_first && !self.with_xattrs.remove(&inode) && !self.remains.contains(&inode) {
                self.found(None, inode, "has extended attributes and does not say so");
            }
            let row = match XattrRow::decode(&value) {
                Ok(row) => row,
                Err(error) => {
                    self.failed(None, inode, error)?;
                    continue;
                }
            };
            for chunk in row.chunks() {
                self.summary.references.add(chunk.0);
            }
            if self.options.data
                && let Err(error) = xattrs::value(view, row).await
            {
                self.failed(None, inode, error)?;
            }
        }
        if self.is_cut_short {
            // What is missing may be among the rows that cannot be read.
            return Ok(());
        }
        for inode in std::mem::take(&mut self.with_xattrs) {
            self.found(None, inode, "says that it has extended attributes and has none");
        }
        Ok(())
    }
}

/// What a version replaced, as it is added up.
#[derive(Clone, Copy, Default)]
struct Replaced {
    /// Where the last stretch without a gap starts, and where it ends.
    run_start: u64,
    end: u64,
    held_bytes: u64,
}

impl Replaced {
    fn add(&mut self, placed: &Placed) {
        if placed.start > self.end {
            self.run_start = placed.start;
        }
        self.end = placed.end();
        if let Extent::Data { length, .. } = placed.extent {
            self.held_bytes = self.held_bytes.saturating_add(length.into());
        }
    }
}
