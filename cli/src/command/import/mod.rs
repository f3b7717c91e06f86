//! `import SRC…`: stores trees of this machine with their metadata.
//!
//! What differs from the repository is put into transactions of bounded size, each committed before the next begins: an
//! import that is stopped has kept what it committed, and finds it unchanged when it is run again. Files whose size and
//! time are the same are taken as unchanged and not read, unless something about them changed since they were stored that
//! the rest does not explain. A transaction that loses a race against another writer, or
//! that a failing source file has spoilt, is dropped and its steps are taken again. What is gone is removed last.

mod batch;
mod gone;
mod known;
mod large;
mod links;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use strongroom::fs::{Kind as FsKind, Metadata};
use strongroom::storage::BlockingMode;
use strongroom::{CreateOptions, Credentials, Repository};

use crate::command::init;
use crate::context::{Access, Age, Context};
use crate::exit::{Exit, Failure};
use crate::local::exclude::Exclude;
use crate::local::source::{self, Emptied, Entry, Event, Identity, Kind, Limits, SourceFile, Walk};
use crate::local::{Attributes, bytes_of, name_of, xattrs};
use crate::output::{JsonName, complain, shown};
use crate::progress::Progress;
use crate::transfer;
use crate::units;
use crate::walk::join;

use batch::{Batch, Step};
use gone::{Doom, Doomed, Gone, Lacking};
use known::Known;
use links::Links;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Files and folders to store; each arrives under its own last name
    #[arg(required = true, value_name = "SRC")]
    sources: Vec<PathBuf>,
    /// The folder of the repository that they go into; it is made where it is missing
    #[arg(long, value_name = "DIR", default_value = "/")]
    to: OsString,
    /// Create the repository where there is none
    #[arg(long)]
    init: bool,
    /// Remove from the repository what is no longer in SRC, once all that is there is stored; what is excluded stays
    #[arg(long)]
    delete: bool,
    /// Leave out what matches: `*.o` any name, `docs/draft/*` a path from SRC on
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Leave out what matches a line of a file
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Leave out what is in folders with a CACHEDIR.TAG
    #[arg(long)]
    exclude_caches: bool,
    /// Do not go into other file systems
    #[arg(long)]
    one_file_system: bool,
    /// Show what would be stored
    #[arg(long)]
    dry_run: bool,
}

#[derive(Default, Serialize)]
pub(super) struct Report {
    /// New or changed.
    files: u64,
    folders: u64,
    links: u64,
    /// Further names of files that have several.
    hard_links: u64,
    /// Of what is no longer in the sources, with `--delete`.
    removed: u64,
    /// Files, folders and links that are in the repository as they are here.
    unchanged: u64,
    /// Of the new and changed files.
    bytes: u64,
    seconds: f64,
    special: Vec<LeftOut>,
    left_out: Vec<LeftOut>,
}

#[derive(Serialize)]
struct LeftOut {
    #[serde(flatten)]
    path: JsonName,
    reason: String,
}

/// A SRC and the name under which it arrives.
struct Source {
    path: PathBuf,
    /// Empty for the root of this machine, whose children arrive.
    name: Vec<u8>,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let exclude = Exclude::new(&arguments.exclude, &arguments.exclude_file)?;
    let sources = name_sources(&arguments.sources)?;
    if arguments.delete && is_root(bytes_of(&arguments.to)) && sources.iter().any(|source| source.name.is_empty()) {
        let what = "with --delete, `/` would arrive in the place of all that is in the repository: pass --to DIR";
        return Err(Failure::usage(what));
    }
    let repository = open_or_create(&arguments, context).await?;
    // Only now is it there for certain.
    let storage = context.uri()?.local_path().ok().filter(|path| path.is_dir());
    let limits = Arc::new(Limits {
        exclude,
        exclude_caches: arguments.exclude_caches,
        one_file_system: arguments.one_file_system,
        storage: storage.as_deref().and_then(Identity::at),
    });
    let progress = Progress::new(&context.global);
    let measuring = Measuring::start(&progress, &sources, &limits);
    let mut import = Import {
        batch: Batch::new(repository.fs().clone()),
        folders: Vec::new(),
        links: Links::default(),
        gone: Gone::default(),
        limits: &limits,
        report: Report::default(),
        to: bytes_of(&arguments.to).to_vec(),
        repository: &repository,
        context,
        progress: &progress,
        arguments: &arguments,
    };
    let done = import.all(&sources).await;
    let Import { mut report, links, .. } = import;
    measuring.stop();
    let elapsed = progress.elapsed();
    report.seconds = elapsed.as_secs_f64();
    progress.finish();
    // What was committed is kept and the repository left tidy, whatever it ended with.
    let closed = repository.close().await;
    done?;
    closed?;
    if links.forgotten() > 0 {
        let count = links.forgotten();
        context
            .output
            .notice(&format!("{count} files with several names were too many: names became files of their own"));
    }
    summarise(&report, &arguments, elapsed, context)?;
    match u64::try_from(report.left_out.len()).unwrap_or(u64::MAX) {
        0 => Ok(()),
        left_out => Err(Context::partial(left_out, "files or folders")),
    }
}

/// The name under which each SRC arrives; two of the same name would overwrite each other.
fn name_sources(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources: Vec<Source> = Vec::new();
    for path in paths {
        let name = match path.components().next_back() {
            Some(std::path::Component::Normal(name)) => bytes_of(name).to_vec(),
            // `.`, `..` and `/` have no name of their own.
            _ => {
                let real = std::fs::canonicalize(path)
                    .map_err(|error| Failure::failed(format!("{}: cannot read: {error}", path.display())))?;
                real.file_name().map(|name| bytes_of(name).to_vec()).unwrap_or_default()
            }
        };
        if let Some(other) = sources.iter().find(|other| other.name == name) {
            let (one, other) = (path.display(), other.path.display());
            return Err(Failure::usage(format!("{other} and {one} would both arrive as {}", shown(&name))));
        }
        sources.push(Source { path: path.clone(), name });
    }
    refuse_nothing(paths)?;
    Ok(sources)
}

/// Where nothing that was named is there, nothing is asked for, and above all nothing created.
fn refuse_nothing(paths: &[PathBuf]) -> Result<(), Failure> {
    let mut missing = None;
    for path in paths {
        match std::fs::symlink_metadata(path) {
            Ok(_) => return Ok(()),
            Err(error) => missing = missing.or(Some((path, error))),
        }
    }
    missing.map_or(Ok(()), |(path, error)| Err(Failure::failed(format!("{}: cannot be read: {error}", path.display()))))
}

async fn open_or_create(arguments: &Arguments, context: &mut Context) -> Result<Repository, Failure> {
    let uri = context.uri()?;
    let access = if arguments.dry_run { Access::Read } else { Access::Write };
    if arguments.init {
        match init::refuse_existing(&uri, context).await {
            Ok(()) if arguments.dry_run => {
                context.output.notice(&format!("{uri}: no repository is there yet: it would be created"));
                return nothing_yet(context).await;
            }
            Ok(()) => {
                let credentials = context.credentials(&uri, Age::New)?;
                let (repository, report) =
                    init::create(&init::Arguments::defaults(), &uri, credentials, Vec::new(), context).await?;
                context.output.detail(&report.line());
                context.begin(&repository)?;
                return Ok(repository);
            }
            Err(failure) if failure.exit() == Exit::Failed => {}
            Err(failure) => return Err(failure),
        }
    }
    match context.open(access).await {
        Err(failure) if failure.exit() == Exit::NoRepository && !arguments.init => {
            Err(Failure::new(Exit::NoRepository, format!("{uri}: no repository here: pass --init to create it")))
        }
        opened => opened,
    }
}

/// A repository of this process alone, to compare the sources with before there is one.
async fn nothing_yet(context: &mut Context) -> Result<Repository, Failure> {
    let options = CreateOptions::new(Credentials::password("nothing is stored here"))
        .kdf_millis(1)
        .storage_calls(BlockingMode::Inline);
    let repository = Repository::create("mem://nothing-yet", options).await?;
    context.begin(&repository)?;
    Ok(repository)
}

struct Import<'a> {
    batch: Batch,
    folders: Vec<Folder>,
    links: Links,
    gone: Gone,
    limits: &'a Limits,
    report: Report,
    /// In the repository.
    to: Vec<u8>,
    repository: &'a Repository,
    context: &'a mut Context,
    progress: &'a Progress,
    arguments: &'a Arguments,
}

/// A folder of the source that is being gone through.
struct Folder {
    known: Known,
    /// Where it is here, where what is gone from it is looked for.
    here: Option<(PathBuf, Identity)>,
    /// Whether its attributes are to be set when it is left.
    touched: bool,
}

impl Import<'_> {
    async fn all(&mut self, sources: &[Source]) -> Result<(), Failure> {
        let snapshot = self.repository.fs().snapshot();
        if !is_root(&self.to) {
            match snapshot.metadata(&self.to).await {
                Ok(metadata) if metadata.kind == FsKind::Directory => {}
                Ok(_) => return Err(Failure::failed(format!("{}: is not a folder", shown(&self.to)))),
                Err(strongroom::Error::NotFound { .. }) => self.take(Step::Way { path: self.to.clone() }).await?,
                Err(error) => return Err(error.into()),
            }
        }
        for source in sources {
            let known = Known::one(&snapshot, &join(&self.to, &source.name)).await?;
            self.folders = vec![Folder { known, here: None, touched: true }];
            for event in Walk::new(source.path.clone(), source.name.clone(), self.limits) {
                self.stop_if_asked().await?;
                self.event(event, &snapshot).await?;
            }
        }
        self.commit().await?;
        self.remove_gone().await?;
        self.commit().await
    }

    async fn stop_if_asked(&mut self) -> Result<(), Failure> {
        if self.context.interrupt.asked() {
            self.commit().await?;
            let what = "interrupted: what was stored so far is kept; run it again for the rest";
            return Err(Failure::failed(what));
        }
        Ok(())
    }

    async fn event(&mut self, event: Event, snapshot: &strongroom::fs::FsSnapshot) -> Result<(), Failure> {
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
                self.note_gone(&entry.relative, None).await?;
                let Some(folder) = self.folders.pop() else { return Ok(()) };
                // The root of this machine arrives as no folder of its own.
                if folder.touched && !entry.relative.is_empty() {
                    let path = self.path(&entry);
                    self.take(Step::Attributes { path, attributes: entry.attributes }).await?;
                }
                Ok(())
            }
            Event::Leaf(entry) => self.leaf(entry, snapshot).await,
        }
    }

    async fn enter(&mut self, entry: Entry, snapshot: &strongroom::fs::FsSnapshot) -> Result<(), Failure> {
        let path = self.path(&entry);
        let here = (self.arguments.delete && !entry.bare).then(|| (entry.path.clone(), entry.identity));
        if entry.relative.is_empty() {
            let known = Known::folder(snapshot, &path).await?;
            self.folders.push(Folder { known, here, touched: false });
            return Ok(());
        }
        let there = self.find(&entry, snapshot).await?;
        let folder = match there {
            Some(metadata) if metadata.kind == FsKind::Directory => {
                self.xattrs(&path, &entry.path, Some(&metadata), snapshot).await?;
                let touched = !same_attributes(&entry.attributes, &metadata);
                if touched {
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

    async fn leaf(&mut self, entry: Entry, snapshot: &strongroom::fs::FsSnapshot) -> Result<(), Failure> {
        let there = self.find(&entry, snapshot).await?;
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

    async fn store_leaf(
        &mut self,
        entry: Entry,
        there: Option<Metadata>,
        snapshot: &strongroom::fs::FsSnapshot,
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
            Kind::Symlink { target } => {
                if let Some(metadata) = &there
                    && metadata.kind == FsKind::Symlink
                    && same_attributes(&entry.attributes, metadata)
                    && snapshot.read_link(&path).await? == target
                {
                    self.report.unchanged += 1;
                    return self.xattrs(&path, &entry.path, Some(metadata), snapshot).await;
                }
                self.touch_parent();
                self.report.links += 1;
                self.detail(&path);
                self.take(Step::Link { path: path.clone(), target, attributes: entry.attributes }).await?;
                self.xattrs(&path, &entry.path, None, snapshot).await
            }
            Kind::File { size } => self.file(entry, size, path, there, snapshot).await,
        }
    }

    async fn file(
        &mut self,
        entry: Entry,
        size: u64,
        path: Vec<u8>,
        there: Option<Metadata>,
        snapshot: &strongroom::fs::FsSnapshot,
    ) -> Result<(), Failure> {
        let there = there.filter(|metadata| metadata.kind == FsKind::File);
        if let Some(first) = self.links.first(&entry) {
            self.progress.add(size);
            if first.note.is_some() && first.note == there.map(|metadata| metadata.inode) {
                self.report.unchanged += 1;
                return Ok(());
            }
            self.touch_parent();
            self.report.hard_links += 1;
            self.detail(&path);
            return self.take(Step::Name { path, existing: first.path }).await;
        }
        let attributes = entry.attributes;
        // Other names of the file there may stand for another file here, or for nothing that is imported now.
        let shared = there.is_some_and(|metadata| metadata.nlink > 1);
        if let Some(metadata) = &there
            && metadata.size == size
            && same_time(&attributes, metadata)
            && !self.is_suspect(&entry, &path, metadata, snapshot).await?
            && (!shared || self.links.is_original(metadata.inode, entry.identity))
        {
            self.report.unchanged += 1;
            self.progress.add(size);
            self.links.met(&entry, &path, Some(metadata.inode));
            self.xattrs(&path, &entry.path, Some(metadata), snapshot).await?;
            if same_attributes(&attributes, metadata) {
                return Ok(());
            }
            return self.take(Step::Attributes { path, attributes }).await;
        }
        // A large file is written under another name first.
        if self.batch.is_large(size) || shared || there.is_none() {
            self.touch_parent();
        }
        self.progress.on(|| shown(&path));
        self.detail(&path);
        let left_out = self.report.left_out.len();
        self.take(Step::File { path: path.clone(), source: entry.path.clone(), size, apart: shared }).await?;
        if self.report.left_out.len() == left_out {
            self.links.met(&entry, &path, None);
            let there = there.filter(|_| !shared && !self.batch.is_large(size));
            self.xattrs(&path, &entry.path, there.as_ref(), snapshot).await?;
        }
        Ok(())
    }

    /// Whether something about a file changed since it was stored that nothing else explains: somebody may have written to
    /// it and set its time back.
    async fn is_suspect(
        &self,
        entry: &Entry,
        path: &[u8],
        there: &Metadata,
        snapshot: &strongroom::fs::FsSnapshot,
    ) -> Result<bool, Failure> {
        let stored = there.ctime.seconds.saturating_mul(1_000).saturating_add((there.ctime.nanos / 1_000_000).into());
        let explained = !same_attributes(&entry.attributes, there) || entry.names != there.nlink;
        if entry.changed <= stored || explained {
            return Ok(false);
        }
        Ok(xattrs::read(&entry.path) == transfer::xattrs(snapshot, path, there).await?)
    }

    /// Extended attributes, where they are not the same: they change without a change of the content's time.
    async fn xattrs(
        &mut self,
        path: &[u8],
        source: &Path,
        there: Option<&Metadata>,
        snapshot: &strongroom::fs::FsSnapshot,
    ) -> Result<(), Failure> {
        let here = xattrs::read(source);
        let same = match there {
            Some(metadata) => here == transfer::xattrs(snapshot, path, metadata).await?,
            None => here.is_empty(),
        };
        if same { Ok(()) } else { self.take(Step::Xattrs { path: path.to_vec(), source: source.to_owned() }).await }
    }

    /// What the repository had under this name when the import began.
    async fn find(
        &mut self,
        entry: &Entry,
        snapshot: &strongroom::fs::FsSnapshot,
    ) -> Result<Option<Metadata>, Failure> {
        let at = entry.relative.iter().rposition(|byte| *byte == b'/');
        let (folder, name) = entry.relative.split_at(at.map_or(0, |slash| slash + 1));
        self.note_gone(folder.strip_suffix(b"/").unwrap_or(folder), Some(name)).await?;
        let Some(folder) = self.folders.last_mut() else { return Ok(None) };
        match folder.known.find(name).await? {
            Some(inode) => Ok(Some(snapshot.inode_metadata(inode).await?)),
            None => Ok(None),
        }
    }

    /// A name comes or goes: that changes the time of the folder.
    fn touch_parent(&mut self) {
        if let Some(folder) = self.folders.last_mut() {
            folder.touched = true;
        }
    }

    fn path(&self, entry: &Entry) -> Vec<u8> {
        if entry.relative.is_empty() { self.to.clone() } else { join(&self.to, &entry.relative) }
    }

    /// Notes what the folder that is gone through has no longer, among what the repository has in it before a name.
    async fn note_gone(&mut self, relative: &[u8], before: Option<&[u8]>) -> Result<(), Failure> {
        let Some(folder) = self.folders.last_mut() else { return Ok(()) };
        let Some((here, identity)) = &folder.here else { return Ok(()) };
        while let Some(name) = folder.known.passed(before).await? {
            let excluded = self.limits.exclude.matches(&join(relative, &name));
            if !excluded && source::is_gone(&here.join(name_of(&name))) {
                self.gone.lacks(here, *identity, relative, name);
            }
        }
        Ok(())
    }

    /// Removes what is gone, and then stores what it was in the way of.
    async fn remove_gone(&mut self) -> Result<(), Failure> {
        if self.gone.is_empty() {
            return Ok(());
        }
        if !self.report.left_out.is_empty() {
            let what = "nothing was removed, as not everything could be stored: see above";
            self.progress.aside(|| self.context.output.notice(what));
            return Ok(());
        }
        let snapshot = self.repository.fs().snapshot();
        let (folders, blocked) = self.gone.take();
        for Lacking { folder, identity, relative, names } in folders {
            self.stop_if_asked().await?;
            let emptied = match Emptied::open(&folder, identity) {
                Ok(emptied) => emptied,
                Err(error) => {
                    let reason = format!("cannot be read any more: nothing in it was removed: {error}");
                    self.left_out(bytes_of(folder.as_os_str()), reason);
                    continue;
                }
            };
            for name in names.iter().filter(|name| emptied.lacks(name)) {
                self.remove(&join(&relative, name), &snapshot).await?;
            }
            self.renew_folder(&folder, relative).await?;
        }
        for entry in blocked {
            self.stop_if_asked().await?;
            let path = self.path(&entry);
            let readable = match entry.kind {
                Kind::File { .. } => SourceFile::open(&entry.path).map(drop),
                _ => source::entry_at(&entry.path, Vec::new()).map(drop),
            };
            if let Err(error) = readable {
                self.left_out(bytes_of(entry.path.as_os_str()), format!("cannot be read: {error}"));
            } else if self.remove(&entry.relative, &snapshot).await? {
                let (folder, relative) = (entry.path.parent().map(Path::to_owned), parent(&entry.relative).to_vec());
                self.store_leaf(entry, None, &snapshot).await?;
                if let Some(folder) = folder {
                    self.renew_folder(&folder, relative).await?;
                }
            } else {
                self.left_out(
                    &path,
                    "a folder of that name is in the repository, with something that stays".to_owned(),
                );
            }
        }
        if self.gone.forgotten() > 0 {
            let what = format!("{} more are to be removed: run it again for the rest", self.gone.forgotten());
            self.progress.aside(|| self.context.output.notice(&what));
        }
        Ok(())
    }

    /// Removes what is at a path, save for what is excluded; answers whether all is gone.
    async fn remove(&mut self, relative: &[u8], snapshot: &strongroom::fs::FsSnapshot) -> Result<bool, Failure> {
        let path = join(&self.to, relative);
        let mut doom = Doom::at(snapshot, &path, relative).await?;
        while let Some(doomed) = doom.next(&self.limits.exclude).await {
            self.stop_if_asked().await?;
            match doomed {
                Doomed::Leaf(path) | Doomed::Folder(path) => {
                    self.report.removed += 1;
                    self.tell("would remove", "removed", &path);
                    self.take(Step::Remove { path }).await?;
                }
                Doomed::Unreadable(path, failure) => self.left_out(&path, failure.to_string()),
            }
        }
        Ok(!doom.kept_any())
    }

    /// The time of a folder of the repository changed with what is in it.
    async fn renew_folder(&mut self, folder: &Path, relative: Vec<u8>) -> Result<(), Failure> {
        if relative.is_empty() {
            return Ok(());
        }
        match source::entry_at(folder, relative) {
            Ok(Entry { attributes, relative, .. }) => {
                self.take(Step::Attributes { path: join(&self.to, &relative), attributes }).await
            }
            Err(_) => Ok(()),
        }
    }

    async fn take(&mut self, step: Step) -> Result<(), Failure> {
        let is_file = matches!(step, Step::File { .. });
        if self.arguments.dry_run {
            if let Step::File { size, .. } = &step {
                self.report.files += 1;
                self.report.bytes += size;
            }
            return Ok(());
        }
        let stored = self.batch.take(step, self.context, self.progress).await?;
        if is_file && let Some(bytes) = stored {
            self.report.files += 1;
            self.report.bytes += bytes;
        }
        self.note_left_out();
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        let done = self.batch.commit(self.context, self.progress).await;
        self.note_left_out();
        done
    }

    fn note_left_out(&mut self) {
        for (path, reason) in self.batch.take_left_out() {
            self.left_out(&path, reason);
        }
    }

    fn left_out(&mut self, path: &[u8], reason: String) {
        self.progress.aside(|| complain(&format!("{}: {reason}", shown(path))));
        self.report.left_out.push(LeftOut { path: JsonName::new(path), reason });
    }

    fn detail(&self, path: &[u8]) {
        self.tell("would store", "", path);
    }

    fn tell(&self, would: &str, did: &str, path: &[u8]) {
        if self.arguments.dry_run && !self.context.output.json() {
            self.context.output.notice(&format!("{would} {}", shown(path)));
        } else {
            self.progress.aside(|| self.context.output.detail(format!("{did} {}", shown(path)).trim_start()));
        }
    }
}

fn is_root(path: &[u8]) -> bool {
    !path.is_empty() && path.iter().all(|byte| *byte == b'/')
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').and_then(|slash| path.get(..slash)).unwrap_or_default()
}

fn same_time(here: &Attributes, there: &Metadata) -> bool {
    (here.seconds, here.nanos) == (there.mtime.seconds, there.mtime.nanos)
}

fn same_attributes(here: &Attributes, there: &Metadata) -> bool {
    *here == transfer::to_local(there)
}

fn summarise(report: &Report, arguments: &Arguments, elapsed: Duration, context: &mut Context) -> Result<(), Failure> {
    if context.output.json() {
        return context.output.document("strongroom/import/1", report);
    }
    let done = if arguments.dry_run { "would store" } else { "stored" };
    let removed = match (report.removed, arguments.dry_run) {
        (0, _) => String::new(),
        (count, true) => format!(", would remove {count}"),
        (count, false) => format!(", removed {count}"),
    };
    context.output.summary(&format!(
        "{done} {} files, {} folders, {} links: {} in {} ({}); {} unchanged{removed}",
        report.files,
        report.folders,
        report.links + report.hard_links,
        units::size(report.bytes),
        units::duration(elapsed),
        units::rate(report.bytes, elapsed),
        report.unchanged,
    ))
}

/// Counts what there is to do, beside doing it, where someone looks at the progress.
struct Measuring {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Measuring {
    fn start(progress: &Progress, sources: &[Source], limits: &Arc<Limits>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        if !progress.is_shown() {
            return Self { stop, thread: None };
        }
        let (stopped, bar, limits) = (stop.clone(), progress.clone(), limits.clone());
        let paths: Vec<PathBuf> = sources.iter().map(|source| source.path.clone()).collect();
        let thread = std::thread::spawn(move || {
            let count = |path: &Path| source::measure(path, &limits, || stopped.load(Ordering::Relaxed));
            bar.set_total(paths.iter().map(|path| count(path)).sum());
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }
}
