//! `find [PATH…]`: what is in folders and all below them, by name, kind, size and time.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, ValueEnum};
use globset::{GlobBuilder, GlobMatcher};
use strongroom::fs::{FsSnapshot, Kind, Metadata, Timestamp};

use crate::context::Context;
use crate::entry::{self, JsonEntry};
use crate::exit::{Exit, Failure};
use crate::local::{bytes_of, name_of};
use crate::named::Named;
use crate::output::{complain, shown};
use crate::units;
use crate::walk::{Step, Walk};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Folders or files
    #[arg(default_value = "/")]
    paths: Vec<OsString>,
    /// The name matches: `*.o`
    #[arg(long, value_name = "GLOB")]
    name: Option<String>,
    /// As --name, upper and lower case the same
    #[arg(long, value_name = "GLOB", conflicts_with = "name")]
    iname: Option<String>,
    /// The whole path matches; `*` stops at a slash, `**` does not
    #[arg(long, value_name = "GLOB")]
    path: Option<String>,
    /// It is a file, a folder or a link
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<Wanted>,
    /// It is of that size, larger (+64KiB) or smaller (-64KiB); of several all hold, so that two are a range
    #[arg(long, value_name = "[+|-]N", allow_hyphen_values = true, value_parser = parse_sizes)]
    size: Vec<Sizes>,
    /// It changed after a moment (2026-01-31, 2026-01-31T23:59:59Z) or within a time (8h)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    newer: Option<Moment>,
    /// It changed last before a moment, or longer ago than a time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    older: Option<Moment>,
    /// It has more than one name
    #[arg(long)]
    linked: bool,
    /// Go so many levels down
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Show mode, owner, size and time
    #[arg(short)]
    long: bool,
    /// End each path with a zero byte rather than a line end
    #[arg(short = '0', long, conflicts_with = "long")]
    print0: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wanted {
    #[value(alias = "f")]
    File,
    #[value(alias = "d")]
    Folder,
    #[value(alias = "l")]
    Link,
}

#[derive(Clone, Copy, Debug)]
enum Sizes {
    Exactly(u64),
    Over(u64),
    Under(u64),
}

fn parse_sizes(text: &str) -> Result<Sizes, String> {
    if let Some(size) = text.strip_prefix('+') {
        return units::parse_size(size).map(Sizes::Over);
    }
    match text.strip_prefix('-') {
        Some(size) => units::parse_size(size).map(Sizes::Under),
        None => units::parse_size(text).map(Sizes::Exactly),
    }
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    At(i64),
    Ago(Duration),
}

fn parse_time(text: &str) -> Result<Moment, String> {
    if let Ok(ago) = units::parse_duration(text) {
        return Ok(Moment::Ago(ago));
    }
    units::parse_moment(text).map(Moment::At)
}

/// What was asked for, ready to be held against what is there.
struct Wish<'a> {
    arguments: &'a Arguments,
    name: Option<GlobMatcher>,
    path: Option<GlobMatcher>,
    newer: Option<Timestamp>,
    older: Option<Timestamp>,
}

impl<'a> Wish<'a> {
    fn new(arguments: &'a Arguments, now: Timestamp) -> Result<Self, Failure> {
        let moment = |moment: Option<Moment>| {
            moment.and_then(|moment| match moment {
                Moment::At(seconds) => Timestamp::new(seconds, 0),
                Moment::Ago(ago) => {
                    let seconds = i64::try_from(ago.as_secs()).unwrap_or(i64::MAX);
                    Timestamp::new(now.seconds.saturating_sub(seconds), now.nanos)
                }
            })
        };
        let name = arguments.name.as_ref().or(arguments.iname.as_ref());
        Ok(Self {
            arguments,
            name: name.map(|text| glob(text, arguments.iname.is_some())).transpose()?,
            path: arguments.path.as_ref().map(|text| glob(text, false)).transpose()?,
            newer: moment(arguments.newer),
            older: moment(arguments.older),
        })
    }

    /// What the names and the kind say, before anything else is looked up.
    fn takes_name(&self, path: &[u8], name: &[u8], kind: Kind) -> bool {
        let kind_fits = self.arguments.kind.is_none_or(|wanted| {
            matches!(
                (wanted, kind),
                (Wanted::File, Kind::File) | (Wanted::Folder, Kind::Directory) | (Wanted::Link, Kind::Symlink)
            )
        });
        kind_fits
            && self.name.as_ref().is_none_or(|glob| glob.is_match(name_of(name)))
            && self.path.as_ref().is_none_or(|glob| glob.is_match(name_of(path)))
    }

    fn takes(&self, metadata: &Metadata) -> bool {
        let size_fits = self.arguments.size.iter().all(|size| {
            metadata.kind == Kind::File
                && match size {
                    Sizes::Exactly(bytes) => metadata.size == *bytes,
                    Sizes::Over(bytes) => metadata.size > *bytes,
                    Sizes::Under(bytes) => metadata.size < *bytes,
                }
        });
        size_fits
            && self.newer.is_none_or(|moment| metadata.mtime > moment)
            && self.older.is_none_or(|moment| metadata.mtime < moment)
            && !(self.arguments.linked && (metadata.kind == Kind::Directory || metadata.nlink < 2))
    }

    /// Whether more than the name is needed.
    fn looks(&self, json: bool) -> bool {
        let arguments = self.arguments;
        json || arguments.long
            || arguments.linked
            || !arguments.size.is_empty()
            || self.newer.is_some()
            || self.older.is_some()
    }
}

fn glob(text: &str, any_case: bool) -> Result<GlobMatcher, Failure> {
    let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).case_insensitive(any_case).build();
    let glob = glob.map_err(|error| Failure::usage(format!("the pattern `{text}` makes no sense: {error}")))?;
    Ok(glob.compile_matcher())
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    // Before anyone is asked for a password.
    Wish::new(&arguments, Timestamp::from_nanos(0))?;
    let (repository, snapshot) = context.look().await?;
    let now = Timestamp::from_nanos(repository.engine().env().now().saturating_mul(1_000_000));
    let wish = Wish::new(&arguments, now)?;
    let mut damaged = 0_u64;
    let mut named = Named::new(arguments.paths.len());
    for path in &arguments.paths {
        let path = bytes_of(path);
        if let Some(metadata) = named.metadata(&snapshot, path).await? {
            below((path, &metadata), &wish, &snapshot, &mut damaged, context).await?;
        }
    }
    repository.close().await?;
    if damaged > 0 {
        return Err(Failure::new(Exit::Damaged, format!("{damaged} could not be read: run `check`")));
    }
    named.end()
}

async fn below(
    (path, metadata): (&[u8], &Metadata),
    wish: &Wish<'_>,
    snapshot: &FsSnapshot,
    damaged: &mut u64,
    context: &mut Context,
) -> Result<(), Failure> {
    let name = path.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty()).unwrap_or(path);
    if wish.takes_name(path, name, metadata.kind) && wish.takes(metadata) {
        show(path, Some(metadata), wish, snapshot, context).await?;
    }
    if metadata.kind != Kind::Directory || wish.arguments.depth == Some(0) {
        return Ok(());
    }
    let mut walk = Walk::new(snapshot.clone(), path, true).await?;
    while let Some(step) = walk.next().await {
        context.interrupt.check()?;
        let failed = match step {
            Step::Leave(_) => continue,
            Step::Unreadable(path, failure) => Some((path, failure)),
            Step::Entry(found) => {
                if wish.arguments.depth.is_some_and(|depth| found.last.len() >= depth) {
                    walk.skip();
                }
                if !wish.takes_name(&found.path, &found.entry.name, found.entry.kind) {
                    continue;
                }
                if !wish.looks(context.output.json()) {
                    show(&found.path, None, wish, snapshot, context).await?;
                    continue;
                }
                match found.metadata(snapshot).await {
                    Ok(metadata) if wish.takes(&metadata) => {
                        show(&found.path, Some(&metadata), wish, snapshot, context).await?;
                        None
                    }
                    Ok(_) => None,
                    Err(failure) => Some((found.path, failure)),
                }
            }
        };
        match failed {
            Some((path, failure)) if failure.exit() == Exit::Damaged => {
                *damaged += 1;
                complain(&failure.on(shown(&path)).to_string());
            }
            Some((_, failure)) => return Err(failure),
            None => {}
        }
    }
    Ok(())
}

async fn show(
    path: &[u8],
    metadata: Option<&Metadata>,
    wish: &Wish<'_>,
    snapshot: &FsSnapshot,
    context: &mut Context,
) -> Result<(), Failure> {
    if let Some(metadata) = metadata.filter(|_| context.output.json() || wish.arguments.long) {
        let target = match metadata.kind {
            Kind::Symlink => Some(snapshot.read_link(path).await?),
            _ => None,
        };
        if context.output.json() {
            let entry = JsonEntry::new(path, metadata, target.as_deref());
            return context.output.document("strongroom/entry/1", &entry);
        }
        return context.output.line(&entry::long(path, metadata, target.as_deref()));
    }
    if wish.arguments.print0 {
        context.output.bytes(path)?;
        return context.output.bytes(&[0]);
    }
    context.output.name_line(path)
}
