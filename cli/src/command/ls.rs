//! `ls [-l] [-R] [PATH]`: the names in a folder.

use std::ffi::OsString;

use clap::Args;
use strongroom::fs::{FsSnapshot, Kind, Metadata};

use crate::context::Context;
use crate::entry::{self, JsonEntry};
use crate::exit::{Exit, Failure};
use crate::local::bytes_of;
use crate::output::shown;
use crate::walk::{Step, Walk};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Show mode, owner, size and time
    #[arg(short)]
    long: bool,
    /// Show what is in folders, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// The folder or file
    #[arg(default_value = "/")]
    path: OsString,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let (repository, snapshot) = context.look().await?;
    let path = bytes_of(&arguments.path);
    let metadata = snapshot.symlink_metadata(path).await?;
    // A link is shown itself, unless a slash at its end asks for what it leads to.
    if metadata.kind == Kind::Directory || path.ends_with(b"/") {
        list(&arguments, &snapshot, context).await?;
    } else {
        show(&arguments, &snapshot, path, path, &metadata, context).await?;
    }
    Ok(repository.close().await?)
}

async fn list(arguments: &Arguments, snapshot: &FsSnapshot, context: &mut Context) -> Result<(), Failure> {
    let mut walk = Walk::new(snapshot.clone(), bytes_of(&arguments.path), arguments.recursive).await?;
    let mut damaged = 0_u64;
    while let Some(step) = walk.next().await {
        context.interrupt.check()?;
        match step {
            Step::Entry(found) => {
                if !arguments.long && !context.output.json() {
                    context.output.name_line(&found.relative)?;
                    continue;
                }
                let shown = match found.metadata(snapshot).await {
                    Ok(metadata) => show(arguments, snapshot, &found.relative, &found.path, &metadata, context).await,
                    Err(failure) => Err(failure),
                };
                match shown {
                    Err(failure) if failure.exit() == Exit::Damaged => {
                        damaged += 1;
                        crate::output::complain(&failure.to_string());
                    }
                    shown => shown?,
                }
            }
            Step::Leave(_) => {}
            Step::Unreadable(path, failure) => {
                damaged += 1;
                crate::output::complain(&failure.on(shown(&path)).to_string());
            }
        }
    }
    if damaged > 0 {
        return Err(Failure::new(Exit::Damaged, format!("{damaged} could not be read: run `check`")));
    }
    Ok(())
}

async fn show(
    arguments: &Arguments,
    snapshot: &FsSnapshot,
    name: &[u8],
    path: &[u8],
    metadata: &Metadata,
    context: &mut Context,
) -> Result<(), Failure> {
    let target = match metadata.kind {
        Kind::Symlink => Some(snapshot.read_link(path).await?),
        _ => None,
    };
    if context.output.json() {
        return context.output.document("strongroom/entry/1", &JsonEntry::new(name, metadata, target.as_deref()));
    }
    if arguments.long {
        return context.output.line(&entry::long(name, metadata, target.as_deref()));
    }
    context.output.name_line(name)
}
