//! `check [--data] [--sample PERCENT] [--repair]`: looks for damage, says by path what it takes along, and keeps it from spreading. With `--at`, of
//! what a snapshot keeps.

use clap::Args;
use serde::Serialize;
use strongroom::check::{CheckOptions, CheckReport, Finding, Repaired};
use strongroom::storage::StraysSought;

use crate::context::{Access, Context, snapshot_meant};
use crate::exit::{Exit, Failure};
use crate::output::{JsonName, complain, shown};
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Open every record of every block. Without it every reference and count is looked at, and of what lies in blocks only
    /// their length, where the storage is on this machine
    #[arg(long)]
    data: bool,
    /// Open every record of so many of a hundred blocks, one at least, and look at the rest as without --data. Which blocks is
    /// drawn anew each time: run every day, it finds in time whatever is damaged in them
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100), conflicts_with_all = ["data", "repair"])]
    sample: Option<u8>,
    /// See to it that what is stored again heals what is damaged: lost content is noted, so that nothing new is taken for it,
    /// and what can still be read is moved out of damaged blocks. Then import the originals once more
    #[arg(long)]
    repair: bool,
}

#[derive(Serialize)]
struct Report {
    /// With `--at`: the snapshot; then the counts are those of what it keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    files: u64,
    folders: u64,
    links: u64,
    keys: u64,
    bytes: u64,
    versions: u64,
    chunks: u64,
    blocks: u64,
    blocks_opened: u64,
    /// With `--sample`: so many of a hundred were to be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    sample_percent: Option<u8>,
    damaged: u64,
    cut_short: bool,
    notices: Vec<String>,
    findings: Vec<JsonFinding>,
    /// With `--repair`.
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<JsonRepaired>,
}

/// Counts of chunks; of ballast, of blocks.
#[derive(Serialize)]
struct JsonRepaired {
    damaged: u64,
    unidentified: u64,
    moved: u64,
    restored: u64,
    readable: u64,
    ballast: u64,
}

#[derive(Serialize)]
struct JsonFinding {
    #[serde(flatten)]
    path: Option<JsonName>,
    detail: String,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    if arguments.repair && context.global.at.is_some() {
        let why = "--repair mends what is stored, which is of all states together: leave --at out";
        return Err(Failure::usage(why));
    }
    let access = if arguments.repair { Access::Write } else { Access::Read };
    let repository = context.open(access).await?;
    // Nothing waits for its end: what it repairs, it repairs in transactions.
    let _at_once = context.interrupt.stops_at_once()?;
    let at = snapshot_meant(&repository, context.global.at.as_deref()).await?;
    let json = context.output.json();
    let mut findings = Vec::new();
    let mut ballast = 0;
    let options = CheckOptions { data: arguments.data };
    let hear = |finding: Finding| {
        ballast += u64::from(finding.path.is_none() && finding.detail.starts_with("ballast damaged: "));
        if json {
            let Finding { path, detail } = finding;
            findings.push(JsonFinding { path: path.as_deref().map(JsonName::new), detail });
        } else {
            match finding.path {
                Some(path) => complain(&format!("{}: {}", shown(&path), finding.detail)),
                None => complain(&finding.detail),
            }
        }
    };
    let mut report = match (&at, arguments.sample) {
        (at, Some(percent)) => repository.check_sample(at.as_deref(), percent, hear).await?,
        (Some(name), None) => repository.check_at(name, options, hear).await?,
        (None, None) if arguments.repair => repository.repair(options, hear).await?,
        (None, None) => repository.check(options, hear).await?,
    };
    repository.close().await?;
    let strays = context.strays(&context.uri()?, StraysSought::All).await;
    report.notices.extend([strays.copies(), strays.unfinished()].into_iter().flatten());
    let damaged = report.findings;
    let repaired = arguments.repair.then_some(report.repaired);
    if report.is_cut_short {
        context.output.notice("another process gave up the state that was looked at: there may be more, check again");
    }
    for notice in &report.notices {
        // A writer may have given it up on a full storage; or the storage loses blobs, and that should be seen.
        if notice.starts_with("ballast") || notice.starts_with("beside") {
            context.output.notice(notice);
        } else {
            context.output.detail(notice);
        }
    }
    if json {
        context.output.document("strongroom/check/1", &as_json(at, report, arguments.sample, findings, repaired))?;
    } else {
        let opened = match arguments.sample {
            Some(percent) => format!(", {} opened whole, a sample of {percent} %", report.blobs_opened),
            None if arguments.data => format!(", {} opened whole", report.blobs_opened),
            None => String::new(),
        };
        let of = at.map_or_else(String::new, |name| format!("snapshot {}: ", shown(name.as_bytes())));
        context.output.summary(&format!(
            "{of}{} files, {} folders, {} links, {} keys: {} in {} chunks; {} blocks{opened}",
            report.files,
            report.directories,
            report.symlinks,
            report.keys,
            units::size(report.logical_bytes),
            report.chunks,
            report.blobs,
        ))?;
        if let Some(repaired) = repaired {
            context.output.summary(&line(repaired))?;
        }
    }
    if damaged > 0 {
        return Err(Failure::new(
            Exit::Damaged,
            next_step(damaged, ballast == damaged, arguments.data || arguments.sample.is_some(), repaired),
        ));
    }
    context.output.summary(match arguments.sample {
        Some(1..=99) => "no damage found in the sample",
        _ => "no damage found",
    })
}

/// What is to be done about what was found.
///
/// `spare`: it is of blocks alone that hold nothing. `opened`: blocks were, and what was found in them is found by a repair
/// that opens them, too.
fn next_step(damaged: u64, spare: bool, opened: bool, repaired: Option<Repaired>) -> String {
    let repair = if opened { "check --data --repair" } else { "check --repair" };
    if spare {
        let nothing = "nothing that was stored is in it";
        return match repaired {
            None => format!(
                "{damaged} findings, listed above, of ballast: {nothing}; run {repair}, which puts other in its place"
            ),
            Some(_) => format!(
                "{damaged} findings are left, listed above, of ballast: {nothing}; free some space, then run {repair} again"
            ),
        };
    }
    let others = "restore the repository from a copy, or rescue with export --partial into a new one";
    match repaired {
        // What is stored again is found as there, and not stored: the damage would be its own, too.
        None => format!(
            "{damaged} findings, listed above: run {repair} before anything else is stored, which shares the damage \
             otherwise, then import the originals again; or {others}"
        ),
        Some(repaired) if repaired.damaged > repaired.unidentified => format!(
            "{damaged} findings are left, listed above: import the originals again, which heals what they have in common with \
             what is damaged; or {others}"
        ),
        // Content that was stored without dedup is not known by what it was: it is stored as a new one.
        Some(repaired) if repaired.damaged > 0 => format!(
            "{damaged} findings are left, listed above: import the originals again, which stores the files anew; or {others}"
        ),
        Some(_) if !opened => {
            format!("{damaged} findings are left, listed above: repair with --data, too; or {others}")
        }
        Some(_) => format!("{damaged} findings are left, listed above: {others}"),
    }
}

/// What a repair did, as one line.
fn line(repaired: Repaired) -> String {
    let Repaired { damaged, unidentified: _, moved, restored, readable, ballast } = repaired;
    let parts = [
        (damaged, "cannot be read, and wait for their content to be stored again"),
        (moved, "were moved out of damaged blocks"),
        (restored, "were written anew from others like them"),
        (readable, "can be read again"),
    ];
    let mut parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} chunks {what}")).collect();
    if ballast > 0 {
        parts.push(format!("{ballast} damaged blocks of ballast, which held nothing, were taken out of use"));
    }
    if parts.is_empty() { "nothing to repair".to_owned() } else { format!("repair: {}", parts.join(", ")) }
}

fn as_json(
    at: Option<String>,
    report: CheckReport,
    sample_percent: Option<u8>,
    findings: Vec<JsonFinding>,
    repaired: Option<Repaired>,
) -> Report {
    Report {
        at,
        files: report.files,
        folders: report.directories,
        links: report.symlinks,
        keys: report.keys,
        bytes: report.logical_bytes,
        versions: report.versions,
        chunks: report.chunks,
        blocks: report.blobs,
        blocks_opened: report.blobs_opened,
        sample_percent,
        damaged: report.findings,
        cut_short: report.is_cut_short,
        notices: report.notices,
        findings,
        repaired: repaired.map(|repaired| {
            let Repaired { damaged, unidentified, moved, restored, readable, ballast } = repaired;
            JsonRepaired { damaged, unidentified, moved, restored, readable, ballast }
        }),
    }
}
