//! `restore PATH --version N`: makes an older version of a file the current one.

use std::ffi::OsString;

use clap::Args;

use crate::command::history::NO_VERSIONS;
use crate::context::{Access, Context, transact};
use crate::exit::{Failure, of_folder};
use crate::local::bytes_of;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The file
    path: OsString,
    /// The version to go back to; what is current stays as a version, where versions are kept
    #[arg(long, value_name = "N", required = true, allow_negative_numbers = true)]
    version: u64,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let repository = context.open(Access::Write).await?;
    let (path, number) = (bytes_of(&arguments.path), arguments.version);
    transact(repository.fs(), async |transaction| {
        transaction.restore_version(path, number).await.map_err(of_folder(NO_VERSIONS))
    })
    .await?;
    repository.close().await?;
    context.output.done("restore")
}
