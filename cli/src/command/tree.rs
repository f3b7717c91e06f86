//! `tree [PATH]`: a folder and all below it, drawn.

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;
use strongroom::fs::Kind;

use crate::context::Context;
use crate::entry;
use crate::exit::{Exit, Failure};
use crate::local::bytes_of;
use crate::output::{JsonName, complain, shown};
use crate::walk::{Found, Step, Walk};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The folder
    #[arg(default_value = "/")]
    path: OsString,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    path: JsonName,
    kind: &'static str,
    depth: usize,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let (repository, snapshot) = context.look().await?;
    let path = bytes_of(&arguments.path);
    let mut walk = Walk::new(snapshot.clone(), path, true).await?;
    if !context.output.json() {
        context.output.line(&shown(path))?;
    }
    let mut damaged = 0_u64;
    while let Some(step) = walk.next().await {
        context.interrupt.check()?;
        match step {
            Step::Entry(found) => {
                if context.output.json() {
                    let (path, kind) = (JsonName::new(&found.relative), entry::kind(found.entry.kind));
                    let row = Row { path, kind, depth: found.last.len() };
                    context.output.document("strongroom/tree-entry/1", &row)?;
                    continue;
                }
                let target = match found.entry.kind {
                    Kind::Symlink => match snapshot.read_link(&found.path).await {
                        Ok(target) => format!(" -> {}", shown(&target)),
                        Err(_) => " -> (cannot be read)".to_owned(),
                    },
                    Kind::Directory => "/".to_owned(),
                    Kind::File => String::new(),
                };
                context.output.line(&format!("{}{}{target}", branches(&found), shown(&found.entry.name)))?;
            }
            Step::Leave(_) => {}
            Step::Unreadable(path, failure) => {
                damaged += 1;
                complain(&failure.on(shown(&path)).to_string());
            }
        }
    }
    repository.close().await?;
    if damaged > 0 {
        return Err(Failure::new(Exit::Damaged, format!("{damaged} could not be read: run `check`")));
    }
    Ok(())
}

/// The lines that lead to a name.
fn branches(found: &Found) -> String {
    let mut text = String::new();
    if let Some((own, above)) = found.last.split_last() {
        for last in above {
            text.push_str(if *last { "    " } else { "│   " });
        }
        text.push_str(if *own { "└── " } else { "├── " });
    }
    text
}
