//! `copy URI2`: everything into a new repository with other keys, another cipher or another block size.

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;
use strongroom::core::Error as E;
use strongroom::storage::{ErrorKind, StorageUri};
use strongroom::{Copied, CopyOptions, Credentials, Repository, SecretBytes};

use super::init::{Opened, Shape, prepare, refuse_existing};
use super::key::NewSecret;
use crate::context::{Access, Age, Context, parse_uri, snapshot_at};
use crate::exit::Failure;
use crate::output;
use crate::progress::Progress;
use crate::units;

// A paragraph is a line: the help is broken to the width of where it is shown.
const HELP: &str = "\
All files with their metadata and versions, keys, settings and snapshots are copied, and what is shared stays shared. With \
--at, what that snapshot keeps, and the snapshots before it. What is read is verified; `check --data` on the copy proves it.

The copy opens only once it is whole. One that is interrupted is deleted again; of one that was killed, `destroy` deletes \
what is left. Meanwhile a snapshot named being-copied-NUMBER keeps the repository as it is; where a killed copy has left one, the \
next copy removes it.";

#[derive(Debug, Args)]
#[command(after_help = HELP, after_long_help = HELP)]
pub(crate) struct Arguments {
    /// Where the copy is to be: a place where no repository is
    #[arg(value_name = "URI2")]
    target: OsString,

    #[command(flatten)]
    shape: Shape,

    #[command(flatten)]
    new: NewSecret,
}

#[derive(Serialize)]
struct Report {
    repository: String,
    uri: String,
    cipher: &'static str,
    block_bytes: u32,
    /// What opens it, together.
    needs: Vec<&'static str>,
    recovery_key: bool,
    files: u64,
    folders: u64,
    links: u64,
    keys: u64,
    snapshots: u64,
    chunks: u64,
    /// Of content, as it is stored.
    bytes: u64,
    /// The snapshot that keeps the source still.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_behind: Option<String>,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let (uri, target) = (context.uri()?, parse_uri(&arguments.target)?);
    context.refuse_absent(&uri).await?;
    refuse_existing(&target, context).await?;
    // What one process holds in memory has a name like a path, and no place.
    if target.scheme() != "mem"
        && let Ok(path) = target.local_path()
    {
        context.own().refuse(&path)?;
    }
    context.own_also(&target);
    let source = open_source(&uri, context).await?;
    let at = match context.global.at.clone() {
        Some(at) => Some(snapshot_at(&source, &at).await?),
        None => None,
    };
    let (credentials, made) = arguments.new.credentials(context, &target.to_string(), None)?;
    let (create, ways_in) = prepare(&arguments.shape, credentials, made.into_iter().collect(), context)?;
    let progress = Progress::new(&context.global);
    if progress.is_shown() {
        progress.set_total(source.info().await?.chunk_bytes);
        progress.on(|| format!("into {target}"));
    }
    let interrupt = context.interrupt.clone();
    let mut shown = 0;
    let mut hear = |copied: u64| {
        progress.add(copied.saturating_sub(shown));
        shown = copied;
        !interrupt.asked()
    };
    let mut left_behind = None;
    let options = CopyOptions { at: at.as_deref(), progress: Some(&mut hear), left_behind: Some(&mut left_behind) };
    let done = source.copy(&target, create.without_defragmenting(), options).await;
    progress.finish();
    let still_kept = left_behind.as_ref().map(|name| {
        let what = "which kept the source as it was, could not be removed: `snapshot rm` does it, or the next copy";
        format!("the snapshot {name}, {what}")
    });
    if let Some(still_kept) = still_kept.as_ref().filter(|_| done.is_ok()) {
        context.output.notice(still_kept);
    }
    let opened = ways_in.settle(&done, &target, context).await?;
    let (copy, copied) = done.map_err(|error| failed(error, &uri, &target).with(still_kept.as_deref()))?;
    if !copy.remembers() && source.remembers() && target.scheme() != "mem" {
        context.output.notice("no folder to remember the copy's state in: a rollback would go unnoticed");
    }
    let of_copy = |error| Failure::from(error).at(&target);
    let report = report(&copy, &copied, &target, opened).await.map_err(of_copy)?;
    copy.close().await.map_err(of_copy)?;
    // The copy is whole, whatever becomes of the source.
    if let Err(error) = source.close().await {
        context.output.notice(&format!("{uri}: was copied, and could not be closed in order: {error}"));
    }
    if context.output.json() {
        return context.output.document("strongroom/copied/1", &report);
    }
    context.output.summary(&report.line())?;
    context.output.summary("`check --data` on the copy proves that it is whole")
}

/// Opens the source for writing, so that it can be kept as it is meanwhile; where nothing can be written, for reading.
pub(super) async fn open_source(uri: &StorageUri, context: &mut Context) -> Result<Repository, Failure> {
    let credentials = context.credentials(uri, Age::Existing)?;
    if context.global.at.is_some() {
        return context.open_with(uri, credentials, Access::Read).await;
    }
    let again = duplicate(&credentials);
    let options = context.open_options(credentials)?.without_defragmenting();
    match Repository::open(uri, options).await {
        Ok(repository) => {
            context.begin(&repository)?;
            Ok(repository)
        }
        Err(strongroom::Error::Core(error))
            if matches!(error.storage_kind(), Some(ErrorKind::ReadOnly | ErrorKind::PermissionDenied)) =>
        {
            context.open_with(uri, again, Access::Read).await
        }
        Err(error) => Err(context.refused(uri, error).await),
    }
}

pub(super) fn duplicate(credentials: &Credentials) -> Credentials {
    let copy = |secret: &SecretBytes| SecretBytes::new(secret.expose().to_vec());
    Credentials {
        password: credentials.password.as_ref().map(copy),
        key_file: credentials.key_file.as_ref().map(copy),
        recovery: credentials.recovery.as_ref().map(copy),
    }
}

/// Why no copy was made, of the one of both places in which it failed.
fn failed(error: strongroom::Error, source: &StorageUri, target: &StorageUri) -> Failure {
    match &error {
        strongroom::Error::Core(E::Stopped) => Failure::failed("interrupted: nothing of the copy was kept"),
        strongroom::Error::Core(E::Expired) => {
            let exit = Failure::from(error).exit();
            let what = "others have changed the repository, and what was being copied is gone: copy it where it can be \
                written to, so that it is kept meanwhile, or copy a snapshot with --at";
            Failure::new(exit, what)
        }
        strongroom::Error::Core(E::BlocksTooSmall { block_bytes, block_bytes_min }) => Failure::usage(format!(
            "blocks of {} cannot hold what this repository has in larger ones: --block-size is at least {} for a copy of it",
            units::size((*block_bytes).into()),
            units::size((*block_bytes_min).into()),
        )),
        strongroom::Error::Core(E::InCopy(error)) => Failure::from((**error).clone()).at(target),
        strongroom::Error::Core(E::AlreadyExists | E::UnfinishedCopy | E::Invalid(_)) => {
            Failure::from(error).at(target)
        }
        strongroom::Error::Core(E::NoSnapshot { .. }) => Failure::from(error),
        strongroom::Error::Core(_) => Failure::from(error).at(source),
        // It is the engine that is copied: a file system is opened in the copy alone.
        _ => Failure::from(error).at(target),
    }
}

async fn report(
    copy: &Repository,
    copied: &Copied,
    target: &StorageUri,
    Opened { needs, recovery_key }: Opened,
) -> strongroom::Result<Report> {
    let (usage, info) = (copy.fs().usage("/").await?, copy.info().await?);
    let mut keys = 0;
    let mut scan = copy.kv().scan(..);
    while scan.next_key().await?.is_some() {
        keys += 1;
    }
    Ok(Report {
        repository: output::hex(&info.repository),
        uri: target.to_string(),
        cipher: info.suite.name(),
        block_bytes: info.block_bytes,
        needs,
        recovery_key,
        files: usage.files,
        folders: usage.directories,
        links: usage.symlinks,
        keys,
        snapshots: copied.snapshots,
        chunks: copied.chunks,
        bytes: copied.chunk_bytes,
        left_behind: copied.left_behind.clone(),
    })
}

impl Report {
    /// For a person.
    fn line(&self) -> String {
        format!(
            "copied {} files, {} folders, {} links, {} keys and {} snapshots to {}: {} in {} chunks; {}, blocks of {}",
            self.files,
            self.folders,
            self.links,
            self.keys,
            self.snapshots,
            self.uri,
            units::size(self.bytes),
            self.chunks,
            self.cipher,
            units::size(self.block_bytes.into()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_told_of_the_place_it_failed_in() {
        let place = |uri| StorageUri::parse(uri).unwrap();
        let (source, target) = (place("mem://old"), place("mem://new"));
        let told = |error| failed(error, &source, &target).to_string();
        let damage = || E::damaged("chunk", None, "shorter than it was");
        for (error, is_of, is_not_of) in [
            (damage().into(), "mem://old", "mem://new"),
            (damage().in_copy().into(), "mem://new", "mem://old"),
            (E::AlreadyExists.into(), "mem://new", "mem://old"),
            (strongroom::Error::NoFileSystem, "mem://new", "mem://old"),
        ] {
            let told = told(error);
            assert!(told.contains(is_of) && !told.contains(is_not_of), "{told}");
        }
    }
}
