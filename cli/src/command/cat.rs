//! `cat PATH…`: the content of files, one after the other.

use std::ffi::OsString;

use clap::Args;

use crate::context::Context;
use crate::exit::{Failure, of_folder};
use crate::local::bytes_of;
use crate::output::shown;
use crate::transfer::PIECE_BYTES;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The files
    #[arg(required = true)]
    paths: Vec<OsString>,
    /// The version of this number instead of the current content; `history` lists them
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    version: Option<u64>,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let (repository, snapshot) = context.look().await?;
    let mut piece = vec![0; PIECE_BYTES];
    for path in &arguments.paths {
        let path = bytes_of(path);
        let file = match arguments.version {
            Some(number) => snapshot.open_version(path, number).await,
            None => snapshot.open_file(path).await,
        };
        let file = file.map_err(of_folder(": `ls` shows what is in it"))?;
        let mut offset = 0;
        loop {
            context.interrupt.check()?;
            let read = file.read_at(offset, &mut piece).await.map_err(|error| Failure::from(error).on(shown(path)))?;
            if read == 0 {
                break;
            }
            context.output.bytes(piece.get(..read).unwrap_or_default())?;
            offset += u64::try_from(read).unwrap_or(u64::MAX);
        }
    }
    context.output.flush()?;
    Ok(repository.close().await?)
}
