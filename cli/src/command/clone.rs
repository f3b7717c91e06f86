//! `clone URI2`: the same repository in another place, brought up to date by each run.

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;
use strongroom::core::Error as E;
use strongroom::storage::StorageUri;
use strongroom::{CloneOptions, CloneProgress, Cloned, Repository};

use super::copy::open_source;
use crate::context::{Context, parse_uri};
use crate::exit::{Exit, Failure};
use crate::layers::layered;
use crate::output;
use crate::progress::Progress;
use crate::units;

// A paragraph is a line: the help is broken to the width of where it is shown.
const HELP: &str = "\
What is stored is sent as it is, sealed: the clone opens with the same password and key file, and has the same snapshots and \
versions. Each run sends only what the clone lacks; one that was cut short is gone on with. What is read is verified; `check \
--data` on the clone proves that it is whole.

After a run that came to its end the next looks only at what has changed since. What a place far away has lost meanwhile it does not \
see: `check` on the clone does, and --checksum sends it again. Of a source that can only be read, or is full, a run that dies leaves \
the clone at a commit on the way, which may lack content until the next run.

With --prune a clone is a mirror that does not grow for ever. Nobody may write to a clone: one that was written to has gone its \
own way, and is left as it is.";

#[derive(Debug, Args)]
#[command(after_help = HELP, after_long_help = HELP)]
pub(crate) struct Arguments {
    /// Where the clone is, or is to be: a place where no other repository is
    #[arg(value_name = "URI2")]
    pub(super) target: OsString,

    /// Delete from the clone what its newest state does not need
    #[arg(long)]
    pub(super) prune: bool,

    /// Compare what the clone has already too, and send it again where it is damaged or lost
    #[arg(long)]
    pub(super) checksum: bool,

    /// Leave out, and list, blocks that are damaged here and not in the clone, rather than to fail
    #[arg(long)]
    pub(super) partial: bool,
}

#[derive(Serialize)]
struct Report {
    repository: String,
    uri: String,
    /// The commit that the clone stands at.
    commit: u64,
    blocks: u64,
    sent_blocks: u64,
    sent_bytes: u64,
    /// Blobs that were deleted from the clone.
    pruned: u64,
    /// What could not be sent, and is not in the clone.
    left_out: Vec<String>,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let (uri, target) = (context.uri()?, parse_uri(&arguments.target)?);
    context.refuse_absent(&uri).await?;
    prepare(&target, context)?;
    let source = open_source(&uri, context).await?;
    send(source, &uri, &target, &arguments, context).await
}

/// Refuses a place in what is read, or that nothing can be sent to.
pub(super) fn prepare(target: &StorageUri, context: &mut Context) -> Result<(), Failure> {
    // What one process holds in memory has a name like a path, and no place.
    if target.scheme() != "mem"
        && let Ok(path) = target.local_path()
    {
        context.own().refuse(&path)?;
    }
    context.own_also(target);
    Ok(())
}

/// Sends what is open to its place, and says how that went.
pub(super) async fn send(
    source: Repository,
    uri: &StorageUri,
    target: &StorageUri,
    arguments: &Arguments,
    context: &mut Context,
) -> Result<(), Failure> {
    let progress = Progress::new(&context.global);
    progress.on(|| format!("into {target}"));
    let interrupt = context.interrupt.clone();
    let mut shown = 0;
    let mut hear = |now: CloneProgress| {
        let bytes = |blocks: u64| blocks.saturating_mul(now.block_bytes.into());
        progress.set_total(bytes(now.total_blocks));
        // From the beginning again, where the state that was sent is out of date.
        progress.add(bytes(now.done_blocks.saturating_sub(shown)));
        shown = shown.max(now.done_blocks);
        !interrupt.asked()
    };
    let mut layers = context.layers()?;
    // What is written once, and read by nobody.
    layers.cache = None;
    let options = layered!(CloneOptions::default(), layers)
        .registry(context.registry.clone())
        .prune(arguments.prune)
        .partial(arguments.partial)
        .checksum(arguments.checksum)
        .progress(&mut hear);
    let cloned = source.clone_to(target, options).await;
    progress.finish();
    let cloned = cloned.map_err(|error| match &error {
        strongroom::Error::Core(E::Stopped) => Failure::failed(format!(
            "interrupted: run it again to go on; {target} is as it was, and has some of what is new"
        )),
        strongroom::Error::Core(E::Damaged(_) | E::Missing { .. }) => {
            let what = "all else was sent; --partial makes a clone of that";
            Failure::from(error).at(uri).with(Some(what).filter(|_| !arguments.partial))
        }
        strongroom::Error::Core(E::InClone(_) | E::Diverged { .. } | E::RolledBack { .. } | E::AlreadyExists) => {
            Failure::from(error).at(target)
        }
        _ => Failure::from(error).at(uri),
    })?;
    let report = Report::new(output::hex(&source.info().await?.repository), target.to_string(), &cloned);
    // The clone stands, whatever becomes of the source.
    if let Err(error) = source.close().await {
        context.output.notice(&format!("{uri}: was cloned, and could not be closed in order: {error}"));
    }
    if context.output.json() {
        context.output.document("strongroom/cloned/1", &report)?;
    } else {
        context.output.summary(&report.line())?;
    }
    for left_out in &report.left_out {
        context.output.notice(&format!("left out: {left_out}"));
    }
    match report.left_out.len() {
        0 => Ok(()),
        count => {
            Err(Failure::new(Exit::Partial, format!("{target}: {count} blocks were left out: {uri} has lost them")))
        }
    }
}

impl Report {
    fn new(repository: String, uri: String, cloned: &Cloned) -> Self {
        Self {
            repository,
            uri,
            commit: cloned.sequence,
            blocks: cloned.blocks,
            sent_blocks: cloned.sent_blocks,
            sent_bytes: cloned.sent_bytes,
            pruned: cloned.pruned_blobs,
            left_out: cloned.left_out.iter().map(ToString::to_string).collect(),
        }
    }

    /// For a person.
    fn line(&self) -> String {
        let (sent, bytes, blocks) = (self.sent_blocks, units::size(self.sent_bytes), self.blocks);
        let pruned = match self.pruned {
            0 => String::new(),
            pruned => format!(", {pruned} blobs deleted"),
        };
        format!("cloned to {} at commit {}: {sent} of {blocks} blocks sent, {bytes}{pruned}", self.uri, self.commit)
    }
}
