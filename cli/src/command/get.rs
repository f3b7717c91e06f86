//! `get PATH LOCAL|-`: writes one file out.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use strongroom::fs::{File, FsSnapshot};

use crate::command::mv::last_name;
use crate::context::Context;
use crate::exit::{Failure, of_folder};
use crate::local::destination::Folder;
use crate::local::{bytes_of, name_of};
use crate::output::shown;
use crate::progress::Progress;
use crate::transfer::{self, Fetch, PIECE_BYTES, local_failed};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The file in the repository
    path: OsString,
    /// Where it goes: a name, a folder that is there, or `-` for stdout
    local: OsString,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let (repository, snapshot) = context.look().await?;
    let path = bytes_of(&arguments.path);
    get(&snapshot, path, &arguments.local, context).await.map_err(|failure| failure.on(shown(path)))?;
    repository.close().await?;
    if arguments.local == "-" { Ok(()) } else { context.output.done("get") }
}

async fn get(snapshot: &FsSnapshot, path: &[u8], local: &OsStr, context: &mut Context) -> Result<(), Failure> {
    let metadata = snapshot.metadata(path).await?;
    let file = snapshot.open_file(path).await.map_err(of_folder(": write it out with `export`"))?;
    if local == "-" {
        return stream(&file, context, None).await;
    }
    let mut local = PathBuf::from(local);
    match std::fs::metadata(&local) {
        Ok(there) if there.is_dir() => local.push(name_of(last_name(path)?)),
        // A device or a pipe is written into; it is not replaced.
        Ok(there) if !there.is_file() => {
            let open = || std::fs::OpenOptions::new().write(true).open(&local);
            let device = context.interrupt.while_asked_for(open, local_failed)?;
            return stream(&file, context, Some(device)).await;
        }
        Ok(_) => {}
        Err(_) if bytes_of(local.as_os_str()).ends_with(b"/") => {
            return Err(Failure::failed(format!("{}: no such folder", local.display())));
        }
        Err(_) => {}
    }
    let (folder, name) = (local.parent().filter(|folder| !folder.as_os_str().is_empty()), local.file_name());
    let name = name.ok_or_else(|| Failure::usage(format!("{}: this names no file", local.display())))?;
    let folder = folder.unwrap_or(Path::new("."));
    let own = context.own().clone();
    own.refuse(folder)?;
    let progress = Progress::new(&context.global);
    progress.set_total(metadata.size);
    let mut draft = Folder::existing(folder, own)
        .and_then(|folder| folder.create(bytes_of(name)))
        .map_err(|error| local_failed(error).on(local.display()))?;
    let mut fetch = Fetch { buffer: &mut vec![0; PIECE_BYTES], interrupt: &context.interrupt, partial: false };
    fetch.file(&file, metadata.size, &mut draft, |bytes| progress.add(bytes)).await?;
    let done = draft.finish(&transfer::to_local(&metadata), &transfer::xattrs(snapshot, path, &metadata).await?);
    done.map(drop).map_err(|error| local_failed(error).on(local.display()))
}

async fn stream(file: &File, context: &mut Context, mut device: Option<std::fs::File>) -> Result<(), Failure> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut offset = 0;
    loop {
        context.interrupt.check()?;
        let read = file.read_at(offset, &mut buffer).await?;
        if read == 0 {
            return context.output.flush();
        }
        let piece = buffer.get(..read).unwrap_or_default();
        match &mut device {
            Some(device) => context.interrupt.while_asked_for(|| device.write_all(piece), local_failed)?,
            None => context.output.bytes(piece)?,
        }
        offset += u64::try_from(read).unwrap_or(u64::MAX);
    }
}
