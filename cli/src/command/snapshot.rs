//! `snapshot create|list|rm|diff|restore|prune`: files and keys as they were, kept under names.

use std::ffi::OsString;

use clap::{Args, Subcommand};
use serde::Serialize;
use strongroom::core::engine::SNAPSHOT_NAME_BYTES_MAX;
use strongroom::fs::{Fate, PathChange};
use strongroom::{Repository, SnapshotInfo};

use crate::context::{Access, Context, transact};
use crate::entry;
use crate::exit::Failure;
use crate::local::bytes_of;
use crate::output::{JsonName, shown};
use crate::retention::Policy;
use crate::units;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep everything as it is now
    Create(Create),
    /// List the snapshots, the oldest first
    List,
    /// Remove snapshots
    Rm(Rm),
    /// Show what became of files from one snapshot to another, or to now
    Diff(Diff),
    /// Make everything, or a file or folder, what it is in a snapshot; what is there now goes, its older versions too
    Restore(Restore),
    /// Remove the snapshots that a policy does not keep
    Prune(Prune),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What to call it: what a file could be called. Not a duration such as 8h, which --at takes for so long ago; a date may be
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The snapshots
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The earlier one
    #[arg(value_name = "A")]
    before: String,
    /// The later one; without it, what is there now, or what --at says
    #[arg(value_name = "B")]
    after: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The snapshot
    name: String,
    /// Only this file or folder and what is in it, at this very path: not through links; without it, all files and keys
    path: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    #[command(flatten)]
    policy: Policy,
    /// Show what would be removed
    #[arg(long)]
    dry_run: bool,
}

impl Command {
    /// Whether it can be shown an earlier state.
    pub(crate) fn looks(&self) -> bool {
        matches!(self, Self::Diff(_))
    }
}

/// A snapshot in JSON.
#[derive(Serialize)]
struct JsonSnapshot<'a> {
    name: &'a str,
    commit: u64,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<bool>,
}

impl<'a> JsonSnapshot<'a> {
    fn new(info: &'a SnapshotInfo, kept: Option<bool>) -> Self {
        Self { name: &info.name, commit: info.sequence, time: time(info), kept }
    }
}

fn time(info: &SnapshotInfo) -> String {
    units::moment(i64::try_from(info.time_millis / 1000).unwrap_or(i64::MAX))
}

pub(crate) async fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::Create(arguments) => create(arguments, context).await,
        Command::List => list(context).await,
        Command::Rm(arguments) => rm(arguments, context).await,
        Command::Diff(arguments) => diff(arguments, context).await,
        Command::Restore(arguments) => restore(arguments, context).await,
        Command::Prune(arguments) => prune(arguments, context).await,
    }
}

async fn create(arguments: Create, context: &mut Context) -> Result<(), Failure> {
    if arguments.name.len() > SNAPSHOT_NAME_BYTES_MAX {
        let (name, bytes) = (shown(arguments.name.as_bytes()), arguments.name.len());
        let what = format!("is {bytes} bytes long, and a snapshot's name has at most {SNAPSHOT_NAME_BYTES_MAX}");
        return Err(Failure::usage(format!("{name}: {what}")));
    }
    // A name comes before a time: `--at 8h` would be another state from now on. Who names a day means that of the day.
    if units::parse_duration(&arguments.name).is_ok() {
        let name = shown(arguments.name.as_bytes());
        let what = "is how --at says how long ago, and would no longer mean that: call it otherwise, as in before-";
        return Err(Failure::usage(format!("{name}: {what}{name}")));
    }
    let repository = context.open(Access::Write).await?;
    let info = repository.create_snapshot(&arguments.name).await?;
    repository.close().await?;
    if context.output.json() {
        return context.output.document("strongroom/snapshot/1", &JsonSnapshot::new(&info, None));
    }
    context.output.summary(&format!("snapshot {}: commit {}", shown(info.name.as_bytes()), info.sequence))
}

async fn list(context: &mut Context) -> Result<(), Failure> {
    let repository = context.open(Access::Read).await?;
    for info in repository.snapshots().await? {
        show(&info, None, context)?;
    }
    Ok(repository.close().await?)
}

fn show(info: &SnapshotInfo, kept: Option<bool>, context: &mut Context) -> Result<(), Failure> {
    if context.output.json() {
        return context.output.document("strongroom/snapshot/1", &JsonSnapshot::new(info, kept));
    }
    let what = match kept {
        Some(true) => "keep    ",
        Some(false) => "remove  ",
        None => "",
    };
    context.output.line(&format!("{what}{}  {:>10}  {}", time(info), info.sequence, shown(info.name.as_bytes())))
}

async fn rm(arguments: Rm, context: &mut Context) -> Result<(), Failure> {
    let repository = context.open(Access::Write).await?;
    // All names are looked at before the first is removed: a slip removes nothing.
    let there = repository.snapshots().await?;
    for name in &arguments.names {
        if !there.iter().any(|info| info.name == *name) {
            return Err(strongroom::core::Error::NoSnapshot { name: name.clone() }.into());
        }
    }
    for name in &arguments.names {
        context.interrupt.check()?;
        remove(&repository, name).await?;
    }
    repository.close().await?;
    context.output.done("snapshot rm")
}

/// Removes a snapshot that was there. Named twice, or removed by another process meanwhile, it is gone, as was asked.
async fn remove(repository: &Repository, name: &str) -> Result<(), Failure> {
    match repository.remove_snapshot(name).await {
        Err(strongroom::Error::Core(strongroom::core::Error::NoSnapshot { .. })) => Ok(()),
        done => Ok(done?),
    }
}

async fn diff(arguments: Diff, context: &mut Context) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Row {
        change: &'static str,
        #[serde(flatten)]
        path: JsonName,
        kind: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<JsonName>,
        #[serde(skip_serializing_if = "Option::is_none")]
        content_changed: Option<bool>,
    }
    if arguments.after.is_some() && context.global.at.is_some() {
        return Err(Failure::usage("the later state is named twice: leave --at out, or B"));
    }
    let (repository, now) = context.look().await?;
    let before = repository.files_at(&arguments.before).await?;
    let after = match &arguments.after {
        Some(name) => repository.files_at(name).await?,
        None => now,
    };
    for PathChange { path, kind, fate } in after.changes_since(&before).await? {
        context.interrupt.check()?;
        let (mark, word) = match &fate {
            Fate::Added => ('+', "added"),
            Fate::Removed => ('-', "removed"),
            Fate::Changed => ('M', "changed"),
            Fate::Attributes => ('A', "attributes"),
            Fate::Renamed { .. } => ('R', "renamed"),
        };
        let renamed = match fate {
            Fate::Renamed { from, is_changed } => Some((from, is_changed)),
            _ => None,
        };
        if context.output.json() {
            let (from, content_changed) = renamed.map(|(from, changed)| (JsonName::new(&from), changed)).unzip();
            let row = Row { change: word, path: JsonName::new(&path), kind: entry::kind(kind), from, content_changed };
            context.output.document("strongroom/snapshot-diff/1", &row)?;
        } else if let Some((from, is_changed)) = renamed {
            let also = if is_changed { " (changed)" } else { "" };
            context.output.line(&format!("{mark} {} -> {}{also}", shown(&from), shown(&path)))?;
        } else {
            context.output.line(&format!("{mark} {}", shown(&path)))?;
        }
    }
    Ok(repository.close().await?)
}

async fn restore(arguments: Restore, context: &mut Context) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Restored<'a> {
        snapshot: &'a str,
        rows: u64,
    }
    let repository = context.open(Access::Write).await?;
    let at_once = context.interrupt.stops_at_once()?;
    if let Some(path) = &arguments.path {
        let path = bytes_of(path);
        let state = repository.files_at(&arguments.name).await?;
        transact(repository.fs(), async |transaction| Ok(transaction.restore_from(&state, path).await?)).await?;
        drop(at_once);
        repository.close().await?;
        return context.output.done("snapshot restore");
    }
    let rows = repository.restore_snapshot(&arguments.name).await?;
    drop(at_once);
    repository.close().await?;
    if context.output.json() {
        return context.output.document("strongroom/restored/1", &Restored { snapshot: &arguments.name, rows });
    }
    context.output.summary(&format!("everything is as in {}; {rows} rows differed", shown(arguments.name.as_bytes())))
}

async fn prune(arguments: Prune, context: &mut Context) -> Result<(), Failure> {
    if arguments.policy.is_empty() {
        return Err(Failure::usage(
            "nothing says what to keep: pass --keep-last, --keep-daily or another --keep-… flag",
        ));
    }
    let access = if arguments.dry_run { Access::Read } else { Access::Write };
    let repository = context.open(access).await?;
    let mut snapshots = repository.snapshots().await?;
    // What a copy under way keeps goes with it: it is none of those that are counted, nor of those that go.
    snapshots.retain(|info| !info.is_hold());
    let taken: Vec<u64> = snapshots.iter().map(|info| info.time_millis).collect();
    for (info, kept) in snapshots.iter().zip(arguments.policy.kept(&taken)) {
        context.interrupt.check()?;
        if !kept && !arguments.dry_run {
            remove(&repository, &info.name).await?;
        }
        show(info, Some(kept), context)?;
    }
    Ok(repository.close().await?)
}
