//! `fork list|take`: the histories of a repository that several wrote to apart, as two devices do whose folder a sync client keeps
//! alike; and each of them in a place of its own.

use std::ffi::OsString;

use clap::{Args, Subcommand};
use serde::Serialize;
use strongroom::Side;
use strongroom::storage::StorageUri;

use super::clone;
use super::copy::duplicate;
use crate::context::{Age, Context, parse_uri};
use crate::exit::Failure;
use crate::output::hex;
use crate::units;

/// So many digits of a commit's hash name its side.
const SIDE_DIGITS: usize = 12;

// A paragraph is a line: the help is broken to the width of where it is shown.
const HELP: &str = "\
Where two devices wrote to the same folder before a sync client had brought each what the other did, there are two histories from \
then on, and no way to make one of them: the client renames what loses, file by file. All of it is looked at, by what is in it. \
`fork take SIDE URI2` makes a repository of one side in another place; do it for both, and compare them there. Then put the one \
to go on with in the place of the folder on every device, and import what only the other has.

What one side has deleted is gone from the other too, where that needed it. Look for it where the client keeps deleted files, put \
it into a folder as it was, sub-folders and all, and name that with --with.";

#[derive(Debug, Subcommand)]
#[command(after_help = HELP, after_long_help = HELP)]
pub(crate) enum Command {
    /// Show the histories that are there: one, where nobody wrote apart
    List(Places),
    /// Make a repository of one of them, in another place
    Take(Take),
}

#[derive(Debug, Args)]
pub(crate) struct Places {
    /// Look here, too: the same folder as it is on another device, or what was put back into a folder of its own
    #[arg(long, value_name = "URI")]
    with: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Take {
    /// Which one: the beginning of what `fork list` calls it, or `newest` for the first there
    side: String,
    /// Where it is to be: a place where no repository is
    #[arg(value_name = "URI2")]
    target: OsString,
    #[command(flatten)]
    places: Places,
    /// Leave out, and list, blocks that are missing or damaged, rather than to fail; `export --partial` writes out what is left
    #[arg(long)]
    partial: bool,
}

#[derive(Serialize)]
struct Row {
    side: String,
    commit: u64,
    time: String,
    /// The last commit that all sides have in common.
    #[serde(skip_serializing_if = "Option::is_none")]
    parted_after: Option<u64>,
    /// Whether this device has followed it.
    seen_here: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    /// Whether its own header is there; else it opens with the credentials of another side.
    has_header: bool,
    /// Whether that would be one that was put back in place of a newer one: it is taken only where a rollback is accepted.
    rolled_back: bool,
}

#[derive(Serialize)]
struct Report {
    uri: String,
    /// A commit that this device has seen, and that is in none of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    sides: Vec<Row>,
}

pub(crate) async fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::List(places) => list(places, context).await,
        Command::Take(take) => self::take(take, context).await,
    }
}

fn called(side: &Side) -> String {
    hex(&side.hash()).chars().take(SIDE_DIGITS).collect()
}

/// The sides, and the options to open one of them with.
async fn find(
    uri: &StorageUri,
    places: &Places,
    context: &mut Context,
) -> Result<(Vec<Side>, strongroom::OpenOptions), Failure> {
    context.refuse_absent(uri).await?;
    let others = places.with.iter().map(|place| Ok(parse_uri(place)?.into())).collect::<Result<Vec<_>, Failure>>()?;
    let credentials = context.credentials(uri, Age::Existing)?;
    let again = context.open_options(duplicate(&credentials))?;
    let options = context.open_options(credentials)?;
    let sides = strongroom::sides(uri, others, options).await.map_err(|error| Failure::from(error).on(uri))?;
    Ok((sides, again))
}

async fn list(places: Places, context: &mut Context) -> Result<(), Failure> {
    let uri = context.uri()?;
    let (sides, _) = find(&uri, &places, context).await?;
    let row = |side: &Side| Row {
        side: called(side),
        commit: side.sequence(),
        time: units::moment(i64::try_from(side.time_millis() / 1000).unwrap_or(i64::MAX)),
        parted_after: side.parted_after().filter(|_| sides.len() > 1),
        seen_here: side.is_seen(),
        missing: side.missing().map(str::to_owned),
        has_header: side.has_header(),
        rolled_back: side.is_rolled_back(),
    };
    let rows: Vec<Row> = sides.iter().map(row).collect();
    let lost = sides.first().and_then(Side::lost);
    if context.output.json() {
        return context.output.document("strongroom/fork/1", &Report { uri: uri.to_string(), lost, sides: rows });
    }
    for row in &rows {
        context.output.line(&line(row))?;
    }
    if let Some(unread) = sides.first().map(Side::unread).filter(|unread| *unread > 0) {
        context.output.notice(&format!("{unread} files that may be of one of them cannot be read, and were passed by"));
    }
    if let Some(lost) = lost {
        return context.output.summary(&format!(
            "this device has seen commit {lost}, which is not there: older files were put in the place of newer ones, or not all has arrived"
        ));
    }
    if rows.len() < 2 {
        context.output.summary("there is one history: nobody wrote apart, or what they wrote is not here yet")?;
    }
    Ok(())
}

/// For a person.
fn line(row: &Row) -> String {
    let parted = row.parted_after.map_or_else(String::new, |commit| format!(", parted after commit {commit}"));
    let seen = if row.seen_here { ", the one that this device has followed" } else { "" };
    let missing =
        row.missing.as_ref().map_or_else(String::new, |missing| format!("; cannot be opened: {missing} missing"));
    let header = match (row.has_header, row.rolled_back) {
        (true, _) => "",
        (false, false) => "; its header is missing, and it opens with another side's credentials",
        (false, true) => "; its header is missing, and an older one is there: it is taken only with --accept-rollback",
    };
    format!("{}  commit {}, {}{parted}{seen}{missing}{header}", row.side, row.commit, row.time)
}

async fn take(take: Take, context: &mut Context) -> Result<(), Failure> {
    let (uri, target) = (context.uri()?, parse_uri(&take.target)?);
    clone::prepare(&target, context)?;
    let (sides, options) = find(&uri, &take.places, context).await?;
    let asked = take.side.to_ascii_lowercase();
    let newest = sides.first().filter(|_| asked == "newest").into_iter();
    let mut meant =
        newest.chain(sides.iter().filter(|side| !asked.is_empty() && hex(&side.hash()).starts_with(&asked)));
    let (Some(side), None) = (meant.next(), meant.next()) else {
        let names: Vec<String> = sides.iter().map(called).collect();
        return Err(Failure::usage(format!("no one side is called {:?}: there are {}", take.side, names.join(", "))));
    };
    let source = side.open(options).await.map_err(|error| {
        let missing =
            side.missing().map(|missing| format!("{missing} of it are missing: put them back, and name them --with"));
        Failure::from(error).on(&uri).with(missing.as_deref())
    })?;
    context.interrupt.listen()?;
    let arguments = clone::Arguments { target: take.target, prune: false, checksum: false, partial: take.partial };
    clone::send(source, &uri, &target, &arguments, context).await
}
