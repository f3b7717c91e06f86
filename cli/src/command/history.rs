//! `history PATH`: the versions of a file, and how many of them are kept.

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;
use strongroom::fs::{Timestamp, Version};

use crate::context::{Access, Context, transact};
use crate::exit::{Failure, of_folder};
use crate::local::bytes_of;
use crate::units;

/// What a folder is told.
pub(crate) const NO_VERSIONS: &str =
    ", which has no versions: name a file in it, or take snapshots, which keep folders too";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The file
    path: OsString,
    /// Older versions of it to keep from its next change on; `default` for what the repository says
    #[arg(long, value_name = "N|default", value_parser = keep, allow_negative_numbers = true)]
    keep: Option<Keep>,
    /// Give up now what is over the limit
    #[arg(long)]
    prune: bool,
}

#[derive(Clone, Copy, Debug)]
struct Keep(Option<u32>);

fn keep(text: &str) -> Result<Keep, String> {
    if text == "default" {
        return Ok(Keep(None));
    }
    let limit = units::parse_versions(text).map_err(|error| format!("{error}, or `default`"))?;
    Ok(Keep(Some(limit)))
}

#[derive(Serialize)]
struct Row {
    number: u64,
    current: bool,
    bytes: u64,
    held_bytes: u64,
    time: String,
    time_nanos: u32,
}

impl Arguments {
    /// Whether it changes nothing, so that it can be shown an earlier state.
    pub(crate) fn looks(&self) -> bool {
        self.keep.is_none() && !self.prune
    }
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let path = bytes_of(&arguments.path);
    let (repository, snapshot) = if !arguments.looks() {
        let repository = context.open(Access::Write).await?;
        transact(repository.fs(), async |transaction| {
            if let Some(Keep(limit)) = arguments.keep {
                transaction.set_version_limit(path, limit).await.map_err(of_folder(NO_VERSIONS))?;
            }
            if arguments.prune {
                transaction.prune_versions(path).await.map_err(of_folder(NO_VERSIONS))?;
            }
            Ok(())
        })
        .await?;
        let snapshot = repository.fs().snapshot();
        (repository, snapshot)
    } else {
        context.look().await?
    };
    for version in snapshot.history(path).await.map_err(of_folder(NO_VERSIONS))? {
        show(&version, context)?;
    }
    Ok(repository.close().await?)
}

fn show(version: &Version, context: &mut Context) -> Result<(), Failure> {
    let Version { number, size: bytes, time: Timestamp { seconds, nanos }, held_bytes, current } = *version;
    let time = units::moment(seconds);
    if context.output.json() {
        let row = Row { number, current, bytes, held_bytes, time, time_nanos: nanos };
        return context.output.document("strongroom/version/1", &row);
    }
    let what = if current { "current".to_owned() } else { format!("holds {}", units::size(held_bytes)) };
    context.output.line(&format!("{number:>6}  {time}  {bytes:>12}  {what}"))
}
