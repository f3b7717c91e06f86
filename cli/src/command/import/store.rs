//! Goes through the sources and stores what differs.

use std::collections::HashSet;
use std::path::Path;

use strongroom::Repository;
use strongroom::core::engine::ChunkNumber;
use strongroom::fs::{FsSnapshot, Kind as FsKind, Metadata};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::first_name::First;
use crate::local::source::{Entry, Event, Identity, Kind, Limits, SourceFile, Walk};
use crate::local::{Attributes, bytes_of, xattrs};
use crate::output::{JsonName, complain, shown};
use crate::progress::Progress;
use crate::transfer::{self, Comparison};
use crate::walk::join;

use super::batch::{self, Batch, News, Step};
use super::draft;
use super::gone::Gone;
use super::known::Known;
use super::likeness::Likeness;
use super::links::Links;
use super::{Arguments, LeftOut, Report, Source, is_root};

pub(super) struct Import<'a> {
    pub(super) batch: Batch,
    pub(super) folders: Vec<Folder>,
    pub(super) links: Links,
    pub(super) gone: Gone,
    pub(super) limits: &'a Limits,
    pub(super) report: Report,
    /// Chunks of the repository that cannot be read, as a repair has noted.
    pub(super) damaged: HashSet<ChunkNumber>,
    /// In the repository.
    pub(super) to: Vec<u8>,
    pub(super) repository: &'a Repository,
    pub(super) context: &'a mut Context,
    pub(super) progress: &'a Progress,
    pub(super) arguments: &'a Arguments,
    /// Whether damage of the repository was met.
    pub(super) met_damage: bool,
}

/// A folder of the source that is being gone through.
pub(super) struct Folder {
    pub(super) known: Known,
    /// What it is here, where what is gone from it is looked for.
    pub(super) here: Option<Identity>,
    /// Whether its attributes are to be set when it is left.
    touched: bool,
}

/// What is to be done about what an event told of.
enum Next {
    GoOn,
    /// What is in the folder that was entered is left out.
    Skip,
}

impl Import<'_> {
    pub(super) async fn all(&mut self, sources: &[Source]) -> Result<(), Failure> {
        let snapshot = self.repository.fs().snapshot();
        self.damaged = self.repository.fs().engine().damaged_chunks().await?;
        if !is_root(&self.to) {
            match snapshot.metadata(&self.to).await {
                Ok(metadata) if metadata.kind == FsKind::Directory => {}
                Ok(_) => return Err(Failure::failed(format!("{}: is not a folder", shown(&self.to)))),
                Err(strongroom::Error::NotFound { .. }) => self.take(Step::Way { path: self.to.clone() }).await?,
                Err(error) => return Err(error.into()),
            }
        }
        for source in sources {
            let path = join(&self.to, &source.name);
            let known = match Known::one(&snapshot, &path).await {
                Ok(known) => known,
                Err(failure) => {
                    self.left_out_for_damage(&path, failure)?;
                    continue;
                }
            };
            self.folders = vec![Folder { known, here: None, touched: true }];
            let mut walk = Walk::new(source.path.clone(), source.name.clone(), self.limits);
            // Whether what is left next was not entered here.
            let mut is_skipped = false;
            while let Some(event) = walk.next() {
                self.stop_if_asked().await?;
                if matches!(event, Event::Leave(_)) && std::mem::take(&mut is_skipped) {
                    continue;
                }
                if let Next::Skip = self.event_or_damage(event, &snapshot).await? {
                    walk.pass_by();
                    is_skipped = true;
                }
            }
        }
        self.commit().await?;
        self.remove_gone().await?;
        self.commit().await
    }

    pub(super) async fn stop_if_asked(&mut self) -> Result<(), Failure> {
        if self.context.interrupt.asked() {
            self.commit().await?;
            let what = "interrupted: what was stored so far is kept; run it again for the rest";
            return Err(Failure::failed(what));
        }
        Ok(())
    }

    /// Where the repository is damaged, that of it is left out which cannot be looked at: a file, or a folder with all that
    /// is in it, or the rest of a folder.
    async fn event_or_damage(&mut self, event: Event, snapshot: &FsSnapshot) -> Result<Next, Failure> {
        let (path, enters) = match &event {
            Event::Enter(entry) => (self.path(entry), true),
            Event::Leaf(entry) | Event::Leave(entry) => (self.path(entry), false),
            Event::Unreadable(..) | Event::Storage(_) => (Vec::new(), false),
        };
        let next = if enters { Next::Skip } else { Next::GoOn };
        let is_told = self.folders.last().is_some_and(|folder| folder.known.is_broken());
        if is_told && matches!(event, Event::Enter(_) | Event::Leaf(_)) {
            return Ok(next);
        }
        let Err(failure) = self.event(event, snapshot).await else { return Ok(Next::GoOn) };
        match self.folders.last() {
            Some(folder) if folder.known.is_broken() => {
                let folder = split(&path).0.to_vec();
                let folder = if folder.is_empty() { &b"/"[..] } else { &folder };
                let what = format!("{failure}: nothing more of this folder was stored");
                self.left_out_for_damage(folder, Failure::new(failure.exit(), what))?;
            }
            _ => self.left_out_for_damage(&path, failure)?,
        }
        Ok(next)
    }

    /// Notes what was left out for damage, and goes on; any other failure ends it.
    fn left_out_for_damage(&mut self, path: &[u8], failure: Failure) -> Result<(), Failure> {
        // Where steps went with their transaction, they are not to be taken for stored.
        if failure.exit() != Exit::Damaged || self.batch.is_lost() {
            return Err(failure);
        }
        self.met_damage = true;
        self.left_out(path, failure.to_string());
        Ok(())
    }

    async fn event(&mut self, event: Event, snapshot: &FsSnapshot) -> Result<(), Failure> {
        match event {
            Event::Unreadable(path, error) => {
                self.left_out(bytes_of(path.as_os_str()), format!("cannot be read: {error}"));
                Ok(())
            }
            Event::Storage(path) => {
                let text = format!("{}: the repository itself is not stored", path.display());
                self.progress.aside(|| self.context.output.notice(&text));
                Ok(())
            }
            Event::Enter(entry) => self.enter(entry, snapshot).await,
            Event::Leave(entry) => {
                let gone = self.note_gone(&entry.path, &entry.relative, None).await;
                let Some(folder) = self.folders.pop() else { return gone };
                // The root of this machine arrives as no folder of its own.
                if folder.touched && !entry.relative.is_empty() {
                    let path = self.path(&entry);
                    self.take(Step::Attributes { path, attributes: entry.attributes, inode: None }).await?;
                }
                gone
            }
            Event::Leaf(entry) => self.leaf(entry, snapshot).await,
        }
    }

    async fn enter(&mut self, entry: Entry, snapshot: &FsSnapshot) -> Result<(), Failure> {
        let path = self.path(&entry);
        let here = (self.arguments.delete && !entry.bare).then_some(entry.identity);
        if entry.relative.is_empty() {
            let known = Known::folder(snapshot, &path).await?;
            self.folders.push(Folder { known, here, touched: false });
            return Ok(());
        }
        let there = self.find(&entry, snapshot).await?;
        let folder = match there {
            Some(metadata) if metadata.kind == FsKind::Directory => {
                let is_set = self.xattrs(&path, &entry.path, Some(&metadata), snapshot).await?;
                let touched = !same_attributes(&entry.attributes, &metadata);
                if touched || is_set {
                    self.report.folders += 1
                } else {
                    self.report.unchanged += 1
                }
                Folder { known: Known::folder(snapshot, &path).await?, here, touched }
            }
            _ => {
                self.touch_parent();
                self.report.folders += 1;
                self.detail(&path);
                self.take(Step::Folder { path: path.clone(), attributes: entry.attributes }).await?;
                self.xattrs(&path, &entry.path, None, snapshot).await?;
                Folder { known: Known::nothing(), here: None, touched: true }
            }
        };
        self.folders.push(folder);
        Ok(())
    }

    async fn leaf(&mut self, entry: Entry, snapshot: &FsSnapshot) -> Result<(), Failure> {
        let there = self.find(&entry, snapshot).await?;
        if there.is_some() && matches!(entry.kind, Kind::Special(_)) {
            self.note_replaced(&entry);
        }
        if let Some(metadata) = &there
            && metadata.kind == FsKind::Directory
            && !matches!(entry.kind, Kind::Special(_))
        {
            if self.arguments.delete {
                self.gone.blocks(entry);
                return Ok(());
            }
            let what = "a folder of that name is in the repository: remove it first, or pass --delete";
            let path = self.path(&entry);
            self.left_out(&path, what.to_owned());
            return Ok(());
        }
        self.store_leaf(entry, there, snapshot).await
    }

    pub(super) async fn store_leaf(
        &mut self,
        entry: Entry,
        there: Option<Metadata>,
        snapshot: &FsSnapshot,
    ) -> Result<(), Failure> {
        let path = self.path(&entry);
        match entry.kind {
            Kind::Directory => Ok(()),
            Kind::Special(what) => {
                self.progress.aside(|| {
                    self.context.output.notice(&format!("{}: a {what} is not stored", entry.path.display()));
                });
                let path = JsonName::new(bytes_of(entry.path.as_os_str()));
                self.report.special.push(LeftOut { path, reason: what.to_owned() });
                Ok(())
            }
            Kind::Symlink { .. } => self.link(entry, path, there, snapshot).await,
            Kind::File { size } => self.file(entry, size, path, there, snapshot).await,
        }
    }

    async fn link(
        &mut self,
        entry: Entry,
        path: Vec<u8>,
        there: Option<Metadata>,
        snapshot: &FsSnapshot,
    ) -> Result<(), Failure> {
        let Kind::Symlink { target } = &entry.kind else { return Ok(()) };
        let there = there.filter(|metadata| metadata.kind == FsKind::Symlink);
        if let Some(first) = self.links.first(&entry) {
            return self.one_more_name(first, path, there).await;
        }
        if let Some(metadata) = &there
            && snapshot.read_link(&path).await? == *target
            && (metadata.nlink < 2 || self.links.is_original(metadata.inode, entry.identity))
        {
            self.links.met(&entry, &path, Some(metadata.inode));
            let is_set = self.xattrs(&path, &entry.path, Some(metadata), snapshot).await?;
            let is_same = same_attributes(&entry.attributes, metadata);
            self.note_found(&path, is_same && !is_set);
            if is_same {
                return Ok(());
            }
            let inode = Some(metadata.inode);
            return self.take(Step::Attributes { path, attributes: entry.attributes, inode }).await;
        }
        self.touch_parent();
        self.report.links += 1;
        self.detail(&path);
        self.links.met(&entry, &path, None);
        let (link, target) = (path.clone(), target.clone());
        self.take(Step::Link { path: link, target, attributes: entry.attributes }).await?;
        self.xattrs(&path, &entry.path, None, snapshot).await?;
        Ok(())
    }

    /// A file or link that is in the repository: as it is here, or but for its attributes.
    fn note_found(&mut self, path: &[u8], is_same: bool) {
        if is_same {
            self.report.unchanged += 1;
        } else {
            self.report.attributes += 1;
            self.tell("would set the attributes of", "attributes of", path);
        }
    }

    /// Of a file or link that was met under another name before.
    async fn one_more_name(
        &mut self,
        first: First<Option<u64>>,
        path: Vec<u8>,
        there: Option<Metadata>,
    ) -> Result<(), Failure> {
        if self.links.is_left_out(&first.path) {
            self.left_out(&path, batch::left_out_with(&first.path));
            return Ok(());
        }
        if first.note.is_some() && first.note == there.map(|metadata| metadata.inode) {
            self.report.unchanged += 1;
            return Ok(());
        }
        self.touch_parent();
        self.report.hard_links += 1;
        self.detail(&path);
        self.take(Step::Name { path, existing: first.path }).await
    }

    async fn file(
        &mut self,
        entry: Entry,
        size: u64,
        path: Vec<u8>,
        there: Option<Metadata>,
        snapshot: &FsSnapshot,
    ) -> Result<(), Failure> {
        let there = there.filter(|metadata| metadata.kind == FsKind::File);
        if let Some(first) = self.links.first(&entry) {
            self.progress.add(size);
            return self.one_more_name(first, path, there).await;
        }
        let attributes = entry.attributes;
        // Other names of the file there may stand for another file here, or for nothing that is imported now.
        let shared = there.is_some_and(|metadata| metadata.nlink > 1);
        let is_lost = match &there {
            Some(there) if there.size == size => !self.mend(&entry.path, &path, there.inode, snapshot).await?,
            _ => false,
        };
        if let Some(metadata) = there.filter(|there| there.size == size && same_time(&attributes, there) && !is_lost) {
            self.progress.on(|| shown(&path));
            let fs = self.repository.fs();
            let compares_all = self.arguments.checksum;
            let tag = match Likeness::of(&entry, &path, &metadata, fs, self.context, compares_all).await? {
                Likeness::Untouched => Some(None),
                Likeness::Same(tag) => Some(tag),
                Likeness::Different => None,
                Likeness::Unknown(reason) => {
                    self.left_out(&path, reason);
                    return Ok(());
                }
            };
            self.stop_if_asked().await?;
            if let Some(tag) = tag
                && (!shared || self.links.is_original(metadata.inode, entry.identity))
            {
                self.progress.add(size);
                self.links.met(&entry, &path, Some(metadata.inode));
                let is_set = self.xattrs(&path, &entry.path, Some(&metadata), snapshot).await?;
                let is_same = same_attributes(&attributes, &metadata);
                self.note_found(&path, is_same && !is_set);
                if tag.is_none() && is_same {
                    return Ok(());
                }
                return self.take(Step::Found { path, attributes, there: metadata, tag }).await;
            }
        }
        // A large file is written under another name first.
        if self.batch.is_large(size) || shared || there.is_none() {
            self.touch_parent();
        }
        self.progress.on(|| shown(&path));
        self.detail(&path);
        if self.take_whole(Step::File { path: path.clone(), source: entry.path.clone(), size, apart: shared }).await? {
            self.links.met(&entry, &path, None);
            let there = there.filter(|_| !shared);
            // Whether a large file went into the one that is there is its own affair.
            if self.batch.is_large(size) && there.is_some_and(|metadata| metadata.has_xattrs) {
                return self.take(Step::Xattrs { path, source: entry.path }).await;
            }
            let there = there.filter(|_| !self.batch.is_large(size));
            self.xattrs(&path, &entry.path, there.as_ref(), snapshot).await?;
        }
        Ok(())
    }

    /// Gives a file of the repository back what it has lost, as far as a repair noted that and its source still has it;
    /// answers `false` where that is not enough, and it must be stored anew. Else it would be taken as unchanged for ever.
    async fn mend(&mut self, source: &Path, path: &[u8], inode: u64, snapshot: &FsSnapshot) -> Result<bool, Failure> {
        if self.damaged.is_empty() || !snapshot.refers_to(inode, &self.damaged).await? {
            return Ok(true);
        }
        // Whether it cannot be read is told by whoever stores it.
        let Ok(source) = SourceFile::open(source, self.context.own()) else { return Ok(false) };
        if self.arguments.dry_run {
            return Ok(false);
        }
        // What waits may share the damaged chunks, and would have to be taken again.
        self.commit().await?;
        let mut source = Comparison { source: &source, interrupt: Some(&self.context.interrupt) };
        match self.repository.fs().mend(path, &self.damaged, &mut source).await {
            Ok(is_mended) => {
                self.report.mended += u64::from(is_mended);
                Ok(is_mended)
            }
            // Gone meanwhile, or another, or not to be read.
            Err(error @ strongroom::Error::Core(_)) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }

    /// Extended attributes, where they are not the same: they change without a change of the content's time. Answers whether
    /// any of those that can be read is another.
    async fn xattrs(
        &mut self,
        path: &[u8],
        source: &Path,
        there: Option<&Metadata>,
        snapshot: &FsSnapshot,
    ) -> Result<bool, Failure> {
        let (here, unread) = xattrs::read(source);
        let there = match there {
            Some(metadata) => transfer::xattrs(snapshot, path, metadata).await?,
            None => Vec::new(),
        };
        let is_set = match unread {
            None => here != there,
            // What cannot be read stays as it is.
            Some(_) => here.iter().any(|attribute| !there.contains(attribute)),
        };
        if is_set || unread.is_some() {
            self.take(Step::Xattrs { path: path.to_vec(), source: source.to_owned() }).await?;
        }
        Ok(is_set)
    }

    /// What the repository had under this name when the import began.
    async fn find(&mut self, entry: &Entry, snapshot: &FsSnapshot) -> Result<Option<Metadata>, Failure> {
        let (folder, name) = split(&entry.relative);
        // At the top there is none.
        self.note_gone(entry.path.parent().unwrap_or(&entry.path), folder, Some(name)).await?;
        let Some(folder) = self.folders.last_mut() else { return Ok(None) };
        let Some(inode) = folder.known.find(name).await? else { return Ok(None) };
        let metadata = snapshot.inode_metadata(inode).await?;
        // What an import that was stopped has left under this name is no copy of it.
        let is_draft = draft::is_one_in(snapshot, &self.path(entry), &metadata).await?;
        Ok((!is_draft).then_some(metadata))
    }

    /// A name comes or goes: that changes the time of the folder.
    fn touch_parent(&mut self) {
        if let Some(folder) = self.folders.last_mut() {
            folder.touched = true;
        }
    }

    pub(super) fn path(&self, entry: &Entry) -> Vec<u8> {
        if entry.relative.is_empty() { self.to.clone() } else { join(&self.to, &entry.relative) }
    }

    pub(super) async fn take(&mut self, step: Step) -> Result<(), Failure> {
        self.take_whole(step).await.map(|_| ())
    }

    /// Takes a step; answers whether it was not left out.
    async fn take_whole(&mut self, step: Step) -> Result<bool, Failure> {
        let is_file = matches!(step, Step::File { .. });
        if self.arguments.dry_run {
            if let Step::File { path, source, size, .. } = &step {
                if let Err(error) = SourceFile::open(source, self.context.own()) {
                    self.left_out(path, format!("cannot be read: {error}"));
                    return Ok(false);
                }
                self.report.files += 1;
                self.report.bytes += size;
            }
            return Ok(true);
        }
        let stored = self.batch.take(step, self.context, self.progress).await?;
        if is_file && let Some(bytes) = stored {
            self.report.files += 1;
            self.report.bytes += bytes;
        }
        self.note_left_out();
        Ok(stored.is_some())
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        let done = self.batch.commit(self.context, self.progress).await;
        self.note_left_out();
        done
    }

    fn note_left_out(&mut self) {
        for News { path, reason, is_stored, is_damage } in self.batch.take_news() {
            self.report.stored_even_so += u64::from(is_stored);
            self.met_damage |= is_damage;
            if !is_stored {
                self.links.left_out(&path);
            }
            self.left_out(&path, reason);
        }
    }

    pub(super) fn left_out(&mut self, path: &[u8], reason: String) {
        self.progress.aside(|| complain(&format!("{}: {reason}", shown(path))));
        self.report.left_out.push(LeftOut { path: JsonName::new(path), reason });
    }

    fn detail(&self, path: &[u8]) {
        self.tell("would store", "", path);
    }

    pub(super) fn tell(&self, would: &str, did: &str, path: &[u8]) {
        if self.arguments.dry_run && !self.context.output.json() {
            self.context.output.notice(&format!("{would} {}", shown(path)));
        } else {
            self.progress.aside(|| self.context.output.detail(format!("{did} {}", shown(path)).trim_start()));
        }
    }
}

/// The folder of a path, and the name in it.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|byte| *byte == b'/');
    let (folder, name) = path.split_at(at.map_or(0, |slash| slash + 1));
    (folder.strip_suffix(b"/").unwrap_or(folder), name)
}

fn same_time(here: &Attributes, there: &Metadata) -> bool {
    (here.seconds, here.nanos) == (there.mtime.seconds, there.mtime.nanos)
}

pub(super) fn same_attributes(here: &Attributes, there: &Metadata) -> bool {
    *here == transfer::to_local(there)
}
