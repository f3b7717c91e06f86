//! `destroy`: deletes a repository, and nothing else that is in the same place, after its name is typed. Of a folder, the empty
//! ones in it go too, and then it itself where it is empty.

use std::io::{IsTerminal as _, Read as _};

use clap::Args;
use serde::Serialize;

use crate::context::{Age, Context};
use crate::exit::Failure;
use crate::output::ask;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Do not ask for the name to be typed
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct Report {
    deleted: u64,
    /// Blobs of others in the same place.
    left: u64,
}

/// Longer than any address.
const ANSWER_BYTES_MAX: usize = 64 << 10;

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let uri = context.uri()?;
    context.refuse_absent(&uri).await?;
    let name = uri.to_string();
    if !arguments.yes {
        if context.global.no_input || !std::io::stdin().is_terminal() {
            return Err(Failure::usage("nobody is there to type the name of what is to be destroyed: pass --yes"));
        }
        ask(&format!("All that is in {name} will be lost. Type this name to destroy it: "));
        if answer()? != name {
            return Err(Failure::failed("that is not its name: nothing was deleted"));
        }
    }
    let credentials = context.credentials(&uri, Age::Existing)?;
    let options = context.open_options(credentials)?;
    let destroyed = strongroom::destroy(&uri, options).await.map_err(|error| Failure::from(error).on(&uri))?;
    let report = Report { deleted: destroyed.deleted_count, left: destroyed.left_count };
    if context.output.json() {
        return context.output.document("strongroom/destroy/1", &report);
    }
    if report.left > 0 {
        context.output.notice(&format!("{} blobs that are not this repository's were left", report.left));
    }
    context.output.summary(&format!("destroyed {name}: {} blobs", report.deleted))
}

/// One line from the terminal, byte by byte: what follows is not ours.
fn answer() -> Result<String, Failure> {
    let mut line = Vec::new();
    let mut byte = [0];
    let mut stdin = std::io::stdin().lock();
    while line.len() < ANSWER_BYTES_MAX {
        match stdin.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.extend_from_slice(&byte),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::failed(format!("cannot read what is typed: {error}"))),
        }
    }
    Ok(String::from_utf8_lossy(&line).trim().to_owned())
}
