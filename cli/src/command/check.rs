//! `check [--data]`: looks for damage, and says by path what it takes along.

use clap::Args;
use serde::Serialize;
use strongroom::check::{CheckOptions, CheckReport, Finding};

use crate::context::{Access, Context};
use crate::exit::{Exit, Failure};
use crate::output::{JsonName, complain, shown};
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Open every record of every block. Without it every reference and count is looked at, and of what lies in blocks only
    /// their length, where the storage is on this machine
    #[arg(long)]
    data: bool,
    /// Look at a part only
    #[arg(long, value_name = "PERCENT", hide = true)]
    sample: Option<u8>,
    /// Repair what can be repaired
    #[arg(long, hide = true)]
    repair: bool,
}

#[derive(Serialize)]
struct Report {
    files: u64,
    folders: u64,
    links: u64,
    keys: u64,
    bytes: u64,
    versions: u64,
    chunks: u64,
    blocks: u64,
    blocks_opened: u64,
    damaged: u64,
    cut_short: bool,
    notices: Vec<String>,
    findings: Vec<JsonFinding>,
}

#[derive(Serialize)]
struct JsonFinding {
    #[serde(flatten)]
    path: Option<JsonName>,
    detail: String,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    for (given, flag) in [(arguments.sample.is_some(), "--sample"), (arguments.repair, "--repair")] {
        if given {
            return Err(Failure::usage(format!("{flag} is not supported yet: leave it out")));
        }
    }
    let repository = context.open(Access::Read).await?;
    let json = context.output.json();
    let mut findings = Vec::new();
    let options = CheckOptions { data: arguments.data };
    let report = repository
        .check(options, |finding| {
            if json {
                let Finding { path, detail } = finding;
                findings.push(JsonFinding { path: path.as_deref().map(JsonName::new), detail });
            } else {
                match finding.path {
                    Some(path) => complain(&format!("{}: {}", shown(&path), finding.detail)),
                    None => complain(&finding.detail),
                }
            }
        })
        .await?;
    repository.close().await?;
    let damaged = report.findings;
    if report.is_cut_short {
        context.output.notice("another process gave up the state that was looked at: there may be more, check again");
    }
    for notice in &report.notices {
        // A writer may have given it up on a full storage; or the storage loses blobs, and that should be seen.
        if notice.starts_with("ballast") {
            context.output.notice(notice);
        } else {
            context.output.detail(notice);
        }
    }
    if json {
        context.output.document("strongroom/check/1", &as_json(report, findings))?;
    } else {
        let opened = if arguments.data { format!(", {} opened whole", report.blobs_opened) } else { String::new() };
        context.output.summary(&format!(
            "{} files, {} folders, {} links, {} keys: {} in {} chunks; {} blocks{opened}",
            report.files,
            report.directories,
            report.symlinks,
            report.keys,
            units::size(report.logical_bytes),
            report.chunks,
            report.blobs,
        ))?;
    }
    if damaged > 0 {
        // What is stored again is found as there, and not stored: the damage would be its own, too.
        let what = format!(
            "{damaged} findings, listed above: restore the repository from a copy, or rescue with export --partial into a new one; \
             what is stored here again shares the damage"
        );
        return Err(Failure::new(Exit::Damaged, what));
    }
    context.output.summary("no damage found")
}

fn as_json(report: CheckReport, findings: Vec<JsonFinding>) -> Report {
    Report {
        files: report.files,
        folders: report.directories,
        links: report.symlinks,
        keys: report.keys,
        bytes: report.logical_bytes,
        versions: report.versions,
        chunks: report.chunks,
        blocks: report.blobs,
        blocks_opened: report.blobs_opened,
        damaged: report.findings,
        cut_short: report.is_cut_short,
        notices: report.notices,
        findings,
    }
}
