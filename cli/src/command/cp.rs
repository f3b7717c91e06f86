//! `cp [-r] FROM… TO`: copies that share what they copy, all or nothing.

use std::ffi::OsString;

use clap::Args;
use strongroom::fs::{FsTransaction, Kind, Metadata};

use crate::command::mv::{is_folder, last_name, refuse_same_names, split_paths};
use crate::context::{Access, Context, transact};
use crate::exit::Failure;
use crate::local::bytes_of;
use crate::output::shown;
use crate::walk::join;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Copy folders and all in them, and links as links, at one stroke: that takes about 3 KiB of memory a file
    #[arg(short, long)]
    recursive: bool,
    /// The repository, as a URI; here `-r` means folders, so the short form stands before the command
    // Of the same id as the flag of every command, which it takes the place of: clap hands the value on to it.
    #[arg(id = "repo", long = "repo", value_name = "URI", env = "STRONGROOM_REPO", hide_env_values = true)]
    _repo: Option<OsString>,
    /// What to copy, and at the end where to: a new name, a file to replace, or a folder that is there
    #[arg(required = true)]
    paths: Vec<OsString>,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let (to, from) = split_paths(&arguments.paths, "cp", "what to copy")?;
    let to = bytes_of(to);
    refuse_same_names(from.iter().map(|from| bytes_of(from)))?;
    let repository = context.open(Access::Write).await?;
    let at_once = context.interrupt.stops_at_once()?;
    transact(repository.fs(), async |transaction| {
        let into_folder = is_folder(transaction, to).await?;
        if from.len() > 1 && !into_folder {
            return Err(Failure::failed(format!("{}: not a folder, and several things are to be copied", shown(to))));
        }
        for from in from {
            let from = bytes_of(from);
            let to = if into_folder { join(to, last_name(from)?) } else { to.to_vec() };
            let what = match arguments.recursive {
                true => transaction.symlink_metadata(from).await?,
                false => transaction.metadata(from).await?,
            };
            refuse_itself(transaction, from, &to, &what).await?;
            match what.kind {
                Kind::Directory if !arguments.recursive => {
                    return Err(Failure::failed(format!("{}: is a folder: pass -r to copy it", shown(from))));
                }
                Kind::File => {
                    refuse_itself_by_a_link(transaction, from, &to, &what).await?;
                    transaction.copy(from, &to).await?;
                }
                Kind::Directory | Kind::Symlink => transaction.copy_all(from, &to).await?,
            }
        }
        Ok(())
    })
    .await?;
    drop(at_once);
    repository.close().await?;
    context.output.done("cp")
}

/// Refuses to copy or move a file or link onto itself, under this name or another of it: it is not what was meant, and nothing
/// would be done. A folder that is to go into itself is refused by what copies or moves it.
pub(crate) async fn refuse_itself(
    transaction: &FsTransaction,
    from: &[u8],
    to: &[u8],
    what: &Metadata,
) -> Result<(), Failure> {
    match transaction.symlink_metadata(to).await {
        Ok(there) => refuse_one_file(from, to, what, &there),
        // Whether it can be there is told by what copies.
        Err(_) => Ok(()),
    }
}

/// A file is copied into what a link leads to, too.
async fn refuse_itself_by_a_link(
    transaction: &FsTransaction,
    from: &[u8],
    to: &[u8],
    what: &Metadata,
) -> Result<(), Failure> {
    match transaction.metadata(to).await {
        Ok(there) => refuse_one_file(from, to, what, &there),
        Err(_) => Ok(()),
    }
}

fn refuse_one_file(from: &[u8], to: &[u8], what: &Metadata, there: &Metadata) -> Result<(), Failure> {
    if there.inode == what.inode && what.kind != Kind::Directory {
        return Err(Failure::failed(format!("{} and {} are the same file", shown(from), shown(to))));
    }
    Ok(())
}
