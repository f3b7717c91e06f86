//! `ln [-s] TARGET LINK`: one more name for a file, or a symbolic link, all or nothing.

use std::ffi::OsString;

use clap::Args;

use crate::command::mv::{is_folder, last_name};
use crate::context::{Access, Context, transact};
use crate::exit::{Failure, of_folder};
use crate::local::bytes_of;
use crate::walk::join;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Make a symbolic link: TARGET is kept as it is written, whether anything is there or not
    #[arg(short, long)]
    symbolic: bool,
    /// The file; with -s, any text
    target: OsString,
    /// The new name, or a folder that is there
    link: OsString,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let (target, link) = (bytes_of(&arguments.target), bytes_of(&arguments.link));
    let repository = context.open(Access::Write).await?;
    transact(repository.fs(), async |transaction| {
        let link = if is_folder(transaction, link).await? { join(link, last_name(target)?) } else { link.to_vec() };
        if arguments.symbolic {
            transaction.symlink(target, &link).await?;
        } else {
            let linked = transaction.hard_link(target, &link).await;
            linked.map_err(of_folder(", and has one name only: pass -s to make a symbolic link"))?;
        }
        Ok(())
    })
    .await?;
    repository.close().await?;
    context.output.done("ln")
}
