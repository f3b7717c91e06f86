//! `header export|import`: the header kept elsewhere, and put back where its copies are lost or damaged.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;
use strongroom::OpenOptions;
use strongroom::storage::BlockingMode;

use crate::context::{Access, Age, Context};
use crate::exit::{Exit, Failure};
use crate::layers::layered;
use crate::local::own::Own;
use crate::secret_file::Written;

/// No blob is larger: what is taken is the header's content or a copy of its blob.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write the header in force to a new file: it opens with the same credentials as the repository
    Export {
        /// The file
        file: PathBuf,
    },
    /// Put lost or damaged copies of the header back from an export of the one in force
    Import {
        /// The file
        file: PathBuf,
    },
}

#[derive(Serialize)]
struct Export {
    generation: u64,
    bytes: usize,
}

#[derive(Serialize)]
struct Import {
    generation: u64,
    repaired: usize,
}

pub(crate) async fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::Export { file } => export(&file, context).await,
        Command::Import { file } => import(&file, context).await,
    }
}

async fn export(file: &Path, context: &mut Context) -> Result<(), Failure> {
    // Opened, not only read: a header is worth keeping if a commit names it and its slots are authentic.
    let repository = context.open(Access::Read).await?;
    let header = repository.export_header().await?;
    repository.close().await?;
    let written = Written::new(file, "the header", header.content(), context.own())?;
    let report = Export { generation: header.generation(), bytes: header.content().len() };
    if context.output.json() {
        context.output.document("strongroom/header-export/1", &report)?;
    }
    context.output.summary(&format!("wrote the header of generation {} to {}", report.generation, file.display()))?;
    context.output.flush()?;
    written.keep();
    context.output.notice("it is of use until the next change of keys; passwords can be tried on it");
    Ok(())
}

async fn import(file: &Path, context: &mut Context) -> Result<(), Failure> {
    let uri = context.uri()?;
    let content = read(file, context.own())?;
    let credentials = context.credentials(&uri, Age::Existing)?;
    let options = layered!(OpenOptions::new(credentials), context.layers()?)
        .registry(context.registry.clone())
        .storage_calls(BlockingMode::Inline)
        .accept_rollback(context.global.accept_rollback);
    let import = strongroom::import_header(&uri, &content, options);
    let import = import.await.map_err(|error| match Failure::from(error) {
        // Of the place; everything else may be of the file.
        failure if matches!(failure.exit(), Exit::NoRepository | Exit::Failed | Exit::Usage) => failure.on(&uri),
        failure => failure.on(file.display()),
    })?;
    let report = Import { generation: import.generation, repaired: import.repaired_count() };
    if context.output.json() {
        context.output.document("strongroom/header-import/1", &report)?;
    }
    context.output.summary(&match report.repaired {
        0 => format!("both copies of the header, generation {}, are intact: nothing was done", report.generation),
        count => format!("put back {count} of 2 copies of the header, generation {}", report.generation),
    })
}

fn read(path: &Path, own: &Own) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::usage(format!("cannot read the header in {}: {error}", path.display()));
    own.refuse_reading(path).map_err(failed)?;
    let mut content = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(failed)?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{} is larger than 4MiB: that is no header", path.display())));
    }
    Ok(content)
}
