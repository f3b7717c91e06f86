//! `put LOCAL|- PATH`: stores one file, in one transaction.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;

use clap::Args;
use strongroom::fs::{Attributes, FileSystem, FsTransaction, Kind};

use crate::command::mv::last_name;
use crate::context::{Access, Context, transact};
use crate::exit::Failure;
use crate::local::bytes_of;
use crate::local::source::{Kind as SourceKind, SourceFile, entry_at};
use crate::output::shown;
use crate::progress::Progress;
use crate::transfer::{self, Broken, PIECE_BYTES};
use crate::walk::join;

/// Of stdin.
const KEPT_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A file of this machine; `-` reads stdin
    local: OsString,
    /// Where it goes in the repository: a new name, a file to replace, or a folder that is there
    path: OsString,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let local = Path::new(&arguments.local);
    let from_stdin = arguments.local == "-";
    // Told before anyone is asked for a password.
    let source = if from_stdin { None } else { Some(open(local, context)?) };
    let repository = context.open(Access::Write).await?;
    let path = target(&repository.fs().snapshot(), bytes_of(&arguments.path), local, from_stdin).await?;
    match source {
        None => put_stdin(repository.fs(), &path, context).await?,
        Some(source) => {
            let progress = Progress::new(&context.global);
            progress.set_total(source.size);
            transact(repository.fs(), async |transaction| {
                put_file(transaction, &path, &source, &progress).await.map_err(|failure| failure.on(local.display()))
            })
            .await?;
            if source.is_torn() {
                context.output.notice(&format!("{}: changed while it was read", local.display()));
            }
        }
    }
    repository.close().await?;
    context.output.done("put")
}

fn open(local: &Path, context: &Context) -> Result<SourceFile, Failure> {
    // A link that the user names is followed, as with every other program.
    let real = std::fs::canonicalize(local);
    if real.as_ref().is_ok_and(|real| real.is_dir()) {
        return Err(Failure::failed(format!("{}: is a folder: store it with `import`", local.display())));
    }
    let what = real.as_ref().ok().and_then(|real| entry_at(real, Vec::new()).ok()).map(|entry| entry.kind);
    if let Some(SourceKind::Special(what)) = what {
        // Of a socket nothing can be read so.
        let instead = if what == "socket" { "" } else { ": `put - PATH` stores what comes out of one" };
        return Err(Failure::failed(format!("{}: is a {what}, not a file{instead}", local.display())));
    }
    real.and_then(|real| SourceFile::open(&real, context.own()))
        .map_err(|error| Failure::failed(format!("{}: cannot read: {error}", local.display())))
}

async fn target(
    snapshot: &strongroom::fs::FsSnapshot,
    path: &[u8],
    local: &Path,
    from_stdin: bool,
) -> Result<Vec<u8>, Failure> {
    let is_folder = match snapshot.metadata(path).await {
        Ok(metadata) => metadata.kind == Kind::Directory,
        Err(strongroom::Error::NotFound { .. }) => path.ends_with(b"/"),
        Err(error) => return Err(error.into()),
    };
    match local.file_name() {
        Some(name) if is_folder && !from_stdin => Ok(join(path, bytes_of(name))),
        _ if is_folder => Err(Failure::usage(format!("{}: is a folder: name the file", shown(path)))),
        _ => {
            last_name(path)?;
            Ok(path.to_vec())
        }
    }
}

async fn put_file(
    transaction: &mut FsTransaction,
    path: &[u8],
    source: &SourceFile,
    progress: &Progress,
) -> Result<(), Failure> {
    let attributes = transfer::to_repository(&source.attributes);
    let mut writer = transaction.write_file(path, attributes).await?;
    let mut buffer = vec![0; PIECE_BYTES];
    match transfer::store(source, 0, &mut writer, &mut buffer, |bytes| progress.add(bytes)).await {
        Ok(()) => {}
        Err(Broken::Source(error)) => return Err(Failure::failed(format!("cannot read: {error}"))),
        Err(Broken::Repository(failure)) => return Err(failure),
    }
    writer.finish().await?;
    Ok(())
}

/// What comes from stdin comes once. So much of it is kept that most contents can be stored again where another writer of
/// the same path was faster; of more, a transaction that loses a race is not run again.
async fn put_stdin(fs: &FileSystem, path: &[u8], context: &Context) -> Result<(), Failure> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; PIECE_BYTES]);
    while kept.len() < KEPT_BYTES_MAX {
        match read_stdin(&mut buffer, context)? {
            [] => {
                context.interrupt.check()?;
                return transact(fs, async |transaction| {
                    let mut writer = transaction.write_file(path, Attributes::file()).await?;
                    writer.write(&kept).await?;
                    writer.finish().await?;
                    Ok(())
                })
                .await;
            }
            piece => kept.extend_from_slice(piece),
        }
    }
    let mut transaction = fs.begin();
    let mut writer = transaction.write_file(path, Attributes::file()).await?;
    writer.write(&kept).await?;
    drop(kept);
    loop {
        match read_stdin(&mut buffer, context)? {
            [] => break,
            piece => writer.write(piece).await?,
        }
    }
    context.interrupt.check()?;
    writer.finish().await?;
    transaction.commit().await?;
    Ok(())
}

/// What comes next from stdin; nothing at its end.
fn read_stdin<'a>(buffer: &'a mut [u8], context: &Context) -> Result<&'a [u8], Failure> {
    loop {
        context.interrupt.wait_for_stdin()?;
        match std::io::stdin().lock().read(buffer) {
            Ok(read) => return Ok(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::failed(format!("cannot read stdin: {error}"))),
        }
    }
}
