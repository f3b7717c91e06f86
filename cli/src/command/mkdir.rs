//! `mkdir [-p] PATH…`: makes folders, all or none.

use std::ffi::OsString;

use clap::Args;

use crate::context::{Access, Context, transact};
use crate::exit::Failure;
use crate::local::bytes_of;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Make what leads to it too, and take it where it is there already
    #[arg(short, long)]
    parents: bool,
    /// The folders
    #[arg(required = true)]
    paths: Vec<OsString>,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let repository = context.open(Access::Write).await?;
    transact(repository.fs(), async |transaction| {
        for path in &arguments.paths {
            if arguments.parents {
                transaction.create_dir_all(bytes_of(path)).await?;
            } else {
                transaction.create_dir(bytes_of(path)).await?;
            }
        }
        Ok(())
    })
    .await?;
    repository.close().await?;
    context.output.done("mkdir")
}
