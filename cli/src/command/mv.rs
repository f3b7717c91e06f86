//! `mv FROM… TO`: moves or renames, all or nothing.

use std::collections::HashMap;
use std::ffi::OsString;

use clap::Args;
use strongroom::fs::{FsTransaction, Kind};

use crate::command::cp::refuse_itself;
use crate::context::{Access, Context, transact};
use crate::exit::Failure;
use crate::local::bytes_of;
use crate::output::shown;
use crate::walk::join;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to move, and at the end where to: a new name, or a folder that is there
    #[arg(required = true)]
    paths: Vec<OsString>,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let (to, from) = split_paths(&arguments.paths, "mv", "what to move")?;
    let to = bytes_of(to);
    refuse_same_names(from.iter().map(|from| bytes_of(from)))?;
    from.iter().try_for_each(|from| refuse_dots(bytes_of(from)))?;
    let repository = context.open(Access::Write).await?;
    transact(repository.fs(), async |transaction| {
        let into_folder = is_folder(transaction, to).await?;
        if from.len() > 1 && !into_folder {
            return Err(Failure::failed(format!("{}: not a folder, and several things are to be moved", shown(to))));
        }
        for from in from {
            let from = bytes_of(from);
            let to = if into_folder { join(to, last_name(from)?) } else { to.to_vec() };
            let what = transaction.symlink_metadata(from).await?;
            refuse_itself(transaction, from, &to, &what).await?;
            transaction.rename(from, to).await?;
        }
        Ok(())
    })
    .await?;
    repository.close().await?;
    context.output.done("mv")
}

/// Where to, which is the last path, and what stands before it. That there are two is not asked of the parser of the command
/// line: it would ask it of those between two flags.
pub(crate) fn split_paths<'a>(
    paths: &'a [OsString],
    command: &str,
    what: &str,
) -> Result<(&'a OsString, &'a [OsString]), Failure> {
    let split = paths.split_last().filter(|(_, from)| !from.is_empty());
    split.ok_or_else(|| {
        let help = format!("see 'strongroom {command} --help'");
        Failure::usage(format!("{command} needs {what} and where to, and one path alone was given; {help}"))
    })
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

/// Refuses paths of which two have the same last name: in one folder, the later would take the place of the earlier. A path
/// without a name is left to those that want one.
pub(crate) fn refuse_same_names<'a>(paths: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Failure> {
    let mut named: HashMap<&[u8], &[u8]> = HashMap::new();
    for path in paths {
        let Ok(name) = last_name(path) else { continue };
        if let Some(other) = named.insert(name, path) {
            let what = format!("{} and {} would both arrive as {}", shown(other), shown(path), shown(name));
            return Err(Failure::usage(format!("{what}: nothing was done")));
        }
    }
    Ok(())
}

/// Refuses a path that ends with `.` or `..`: what is moved or removed is an entry of a folder, and these are none.
pub(crate) fn refuse_dots(path: &[u8]) -> Result<(), Failure> {
    match path.split(|byte| *byte == b'/').rfind(|name| !name.is_empty()) {
        Some(name @ (b"." | b"..")) => {
            let what = format!("ends with `{}`: name the file or folder itself", shown(name));
            Err(Failure::usage(format!("{}: {what}", shown(path))))
        }
        _ => Ok(()),
    }
}
