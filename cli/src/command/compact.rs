//! `compact [--all]`: gives space back.

use clap::Args;
use serde::Serialize;
use strongroom::CompactOptions;
use strongroom::storage::StraysSought;

use crate::context::{Access, Context};
use crate::exit::Failure;
use crate::progress::Progress;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Save every block that can be saved, rather than leave one in a hundred
    #[arg(long)]
    all: bool,
    /// Take all other writers that have not ended for dead: what they have not committed is lost to them. In a folder that a
    /// sync client keeps, only once all has arrived that other devices wrote
    #[arg(long)]
    end_writers: bool,
}

#[derive(Serialize)]
struct Report {
    blocks_before: u64,
    blocks_after: u64,
    bytes_before: u64,
    bytes_after: u64,
    moved_bytes: u64,
    /// Blocks that cannot be read, and stay as they are.
    damaged: u64,
    /// Blocks that readers of older states may still need.
    waiting: u64,
    other_writers: u64,
    /// Whether someone asked to stop before it was done.
    stopped: bool,
}

/// What another device has put, and whose commit is on its way, looks like what a dead writer left.
async fn refuse_arrivals(context: &Context) -> Result<(), Failure> {
    let uri = context.uri()?;
    let why =
        "with --end-writers nothing is done, since what another device has put may look like what a dead writer left";
    let strays = match context.look_for_strays(&uri, StraysSought::All).await {
        Ok(strays) => strays,
        Err(error) => return Err(Failure::from(error).on(&uri).with(Some(why))),
    };
    match strays.copies().or_else(|| strays.unfinished()) {
        Some(what) => Err(Failure::failed(what).with(Some(why))),
        None => Ok(()),
    }
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    if arguments.end_writers {
        refuse_arrivals(context).await?;
    }
    let repository = context.open(Access::Write).await?;
    let progress = Progress::new(&context.global);
    let interrupt = context.interrupt.clone();
    let mut shown = 0;
    let mut hear = |moved: u64| {
        progress.add(moved.saturating_sub(shown));
        shown = moved;
        !interrupt.asked()
    };
    let options =
        CompactOptions { thorough: arguments.all, end_other_writers: arguments.end_writers, progress: Some(&mut hear) };
    let done = repository.compact(options).await?;
    let block_bytes = u64::from(repository.info().await?.block_bytes);
    repository.close().await?;
    progress.finish();
    let report = Report {
        blocks_before: done.blobs_before,
        blocks_after: done.blobs_after,
        bytes_before: done.blobs_before * block_bytes,
        bytes_after: done.blobs_after * block_bytes,
        moved_bytes: done.moved_bytes,
        damaged: done.damaged,
        waiting: done.waiting,
        other_writers: done.other_writers,
        stopped: context.interrupt.asked(),
    };
    if context.output.json() {
        context.output.document("strongroom/compact/1", &report)?;
    } else {
        context.output.summary(&format!(
            "{} before, {} after ({} and {} blocks); {} moved",
            units::size(report.bytes_before),
            units::size(report.bytes_after),
            report.blocks_before,
            report.blocks_after,
            units::size(report.moved_bytes),
        ))?;
    }
    if report.damaged > 0 {
        let damaged = report.damaged;
        context
            .output
            .notice(&format!("{damaged} blocks cannot be read, and stay as they are: `check` says what is lost"));
    }
    if report.waiting > 0 {
        let waiting = report.waiting;
        context
            .output
            .notice(&format!("{waiting} blocks wait for readers of older states: run it again in ten minutes"));
    }
    if report.other_writers > 0 {
        let others = report.other_writers;
        let what = "writers have not ended, and what they left behind stays: where they are dead, pass --end-writers";
        context.output.notice(&format!("{others} other {what}"));
    }
    if report.stopped {
        return Err(Failure::failed("interrupted: a part was given back, run it again for the rest"));
    }
    Ok(())
}
