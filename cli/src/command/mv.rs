//! `mv FROM… TO`: moves or renames, all or nothing.

use std::ffi::OsString;

use clap::Args;
use strongroom::fs::{FsTransaction, Kind};

use crate::context::{Access, Context, transact};
use crate::exit::Failure;
use crate::local::bytes_of;
use crate::output::shown;
use crate::walk::join;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to move, and at the end where to: a new name, or a folder that is there
    #[arg(required = true, num_args = 2..)]
    paths: Vec<OsString>,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let Some((to, from)) = arguments.paths.split_last() else {
        return Err(Failure::usage("mv needs what to move and where to"));
    };
    let to = bytes_of(to);
    let repository = context.open(Access::Write).await?;
    transact(repository.fs(), async |transaction| {
        let into_folder = is_folder(transaction, to).await?;
        if from.len() > 1 && !into_folder {
            return Err(Failure::failed(format!("{}: not a folder, and several things are to be moved", shown(to))));
        }
        for from in from {
            let from = bytes_of(from);
            let to = if into_folder { join(to, last_name(from)?) } else { to.to_vec() };
            transaction.rename(from, to).await?;
        }
        Ok(())
    })
    .await?;
    repository.close().await?;
    context.output.done("mv")
}

/// Whether a folder is at a path.
pub(crate) async fn is_folder(transaction: &FsTransaction, path: &[u8]) -> Result<bool, Failure> {
    match transaction.metadata(path).await {
        Ok(metadata) => Ok(metadata.kind == Kind::Directory),
        Err(strongroom::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The last name of a path in the repository.
pub(crate) fn last_name(path: &[u8]) -> Result<&[u8], Failure> {
    let name = path.split(|byte| *byte == b'/').rfind(|name| !name.is_empty() && *name != b".");
    name.filter(|name| *name != b"..")
        .ok_or_else(|| Failure::usage(format!("{}: this names no entry of a folder", shown(path))))
}
