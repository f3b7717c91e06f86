//! `import SRC…`: stores trees of this machine with their metadata.
//!
//! What differs from the repository is put into transactions of bounded size, each committed before the next begins: an
//! import that is stopped has kept what it committed, and finds it unchanged when it is run again. Files whose size and
//! time are the same, and that are the very files that were read, with nothing about them changed since, are taken as
//! unchanged and not read; where only size and time are the same, they are compared. Where a repair has noted damage to what
//! was stored of them, they are read for what was lost. A transaction that loses a race
//! against another writer, or that a failing source file has spoilt, is dropped and its steps are taken again. What is gone
//! is removed last.

mod batch;
mod draft;
mod gone;
mod known;
mod large;
mod likeness;
mod links;
mod measuring;
mod removal;
mod store;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use strongroom::storage::BlockingMode;
use strongroom::{CreateOptions, Credentials, Repository};

use crate::arguments::once;
use crate::command::init;
use crate::context::{Access, Age, Context};
use crate::exit::{Exit, Failure};
use crate::local::bytes_of;
use crate::local::exclude::Exclude;
use crate::local::source::Limits;
use crate::output::{JsonName, shown};
use crate::progress::Progress;
use crate::units;

use batch::Batch;
use gone::Gone;
use links::Links;
use measuring::Measuring;
use store::Import;

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
    /// Remove from the repository what is no longer in SRC, or is a device, FIFO or socket there, once all else is stored; what
    /// is excluded stays
    #[arg(long)]
    delete: bool,
    /// Leave out what matches: `*.o` any name; with a slash a path, whose first part is the name of SRC itself: `docs/draft/*`
    /// of `docs`
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Leave out what matches a line of a file. Lines that match nothing are counted with -v, and otherwise not told
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Leave out what is in folders with a CACHEDIR.TAG
    #[arg(long)]
    exclude_caches: bool,
    /// Do not go into other file systems
    #[arg(long)]
    one_file_system: bool,
    /// Compare the content of every file, also of those of which nothing seems to have changed. Without it, changes are missed
    /// that leave size and times as they are: of disks that were tampered with, or of files that other users or machines write
    /// to through memory (mmap)
    #[arg(long)]
    checksum: bool,
    /// Show what would be stored
    #[arg(long)]
    dry_run: bool,
}

#[derive(Default, Serialize)]
pub(super) struct Report {
    /// New, or of other content.
    files: u64,
    /// New, or of other attributes: they have nothing else of their own.
    folders: u64,
    /// New, or leading elsewhere.
    links: u64,
    /// Further names of files that have several.
    hard_links: u64,
    /// Of what is no longer in the sources, with `--delete`.
    removed: u64,
    /// Files, folders and links that are in the repository as they are here.
    unchanged: u64,
    /// Files and links that are there but for their mode, owner, time or extended attributes, which were set.
    attributes: u64,
    /// Files that were damaged in the repository, as a repair had found, and got back what they had lost.
    mended: u64,
    /// Of the new and changed files.
    bytes: u64,
    seconds: f64,
    special: Vec<LeftOut>,
    left_out: Vec<LeftOut>,
    /// Of what to leave out, as given by `--exclude`.
    unmatched_patterns: Vec<String>,
    /// How many of those in files matched nothing: such a file may serve for many trees.
    unmatched_in_files: u64,
    /// How many of those were stored, though not as they are here.
    #[serde(skip)]
    stored_even_so: u64,
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
    let sources = name_sources(&once(&arguments.sources))?;
    let named: Vec<_> = sources.iter().map(|source| (source.path.as_path(), source.name.as_slice())).collect();
    exclude.refuse_unnamed(&named)?;
    if arguments.delete && is_root(bytes_of(&arguments.to)) && sources.iter().any(|source| source.name.is_empty()) {
        let what = "with --delete, `/` would arrive in the place of all that is in the repository: pass --to DIR";
        return Err(Failure::usage(what));
    }
    let repository = open_or_create(&arguments, context).await?;
    let limits = Arc::new(Limits {
        exclude,
        exclude_caches: arguments.exclude_caches,
        one_file_system: arguments.one_file_system,
        own: context.own().clone(),
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
        damaged: HashSet::new(),
        to: bytes_of(&arguments.to).to_vec(),
        repository: &repository,
        context,
        progress: &progress,
        arguments: &arguments,
        met_damage: false,
    };
    let done = import.all(&sources).await;
    let Import { mut report, links, met_damage, .. } = import;
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
    (report.unmatched_patterns, report.unmatched_in_files) = limits.exclude.unmatched();
    if report.unmatched_in_files > 0 {
        let count = report.unmatched_in_files;
        context.output.detail(&format!("nothing was left out for {count} of the patterns in files"));
    }
    if !report.unmatched_patterns.is_empty() {
        let patterns: Vec<String> = report.unmatched_patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
        context.output.notice(&format!("nothing was left out for {}", patterns.join(", ")));
    }
    summarise(&report, &arguments, elapsed, context)?;
    match u64::try_from(report.left_out.len()).unwrap_or(u64::MAX) {
        0 => Ok(()),
        left_out if met_damage => {
            let what = "left out, listed above, as the repository is damaged: `check` tells where";
            Err(Failure::new(Exit::Damaged, format!("{left_out} {what}")))
        }
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

fn is_root(path: &[u8]) -> bool {
    !path.is_empty() && path.iter().all(|byte| *byte == b'/')
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
    let attributes = match (report.attributes, arguments.dry_run) {
        (0, _) => String::new(),
        (count, true) => format!(", {count} would get other attributes"),
        (count, false) => format!(", {count} got other attributes"),
    };
    let mended = if report.mended > 0 { format!(", {} mended", report.mended) } else { String::new() };
    context.output.summary(&format!(
        "{done} {} files, {} folders, {} links: {} in {} ({}); {} unchanged{attributes}{mended}{removed}",
        report.files,
        report.folders,
        report.links + report.hard_links,
        units::size(report.bytes),
        units::duration(elapsed),
        units::rate(report.bytes, elapsed),
        report.unchanged,
    ))
}
