//! `rm [-r] PATH…`: removes files and folders, all or none of them.

use std::ffi::OsString;

use clap::Args;
use strongroom::fs::Kind;

use crate::command::mv::refuse_dots;
use crate::context::{Access, Context, transact};
use crate::exit::Failure;
use crate::local::bytes_of;
use crate::output::shown;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Remove folders and all in them, at one stroke: that takes about 3 KiB of memory a file
    #[arg(short, long)]
    recursive: bool,
    /// The repository, as a URI; here `-r` means folders, so the short form stands before the command
    // Of the same id as the flag of every command, which it takes the place of: clap hands the value on to it.
    #[arg(id = "repo", long = "repo", value_name = "URI", env = "STRONGROOM_REPO", hide_env_values = true)]
    _repo: Option<OsString>,
    /// What is not there is no error; with -r, the root folder is emptied too
    #[arg(short, long)]
    force: bool,
    /// What to remove
    #[arg(required = true)]
    paths: Vec<OsString>,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    arguments.paths.iter().try_for_each(|path| refuse_dots(bytes_of(path)))?;
    let repository = context.open(Access::Write).await?;
    let at_once = context.interrupt.stops_at_once()?;
    transact(repository.fs(), async |transaction| {
        let root = transaction.metadata("/").await?.inode;
        for path in &arguments.paths {
            let path = bytes_of(path);
            // A slash at the end asks for a folder. A link to one is none: what it leads to has a name of its own.
            let itself = match path.iter().rposition(|byte| *byte != b'/') {
                Some(last) => path.get(..=last).unwrap_or(path),
                None => path,
            };
            let metadata = match transaction.symlink_metadata(itself).await {
                Err(strongroom::Error::NotFound { .. }) if arguments.force => continue,
                metadata => metadata?,
            };
            if metadata.kind != Kind::Directory && itself != path {
                return Err(strongroom::Error::NotADirectory { path: shown(path) }.into());
            } else if metadata.kind != Kind::Directory {
                transaction.remove_file(path).await?;
            } else if metadata.inode == root && !arguments.force {
                let what = "is all that there is: pass -r and -f to remove everything in it";
                return Err(Failure::failed(format!("{}: {what}", shown(path))));
            } else if arguments.recursive {
                transaction.remove_all(path).await?;
            } else {
                return Err(Failure::failed(format!("{}: is a folder: pass -r to remove it", shown(path))));
            }
        }
        Ok(())
    })
    .await?;
    drop(at_once);
    repository.close().await?;
    context.output.done("rm")
}
