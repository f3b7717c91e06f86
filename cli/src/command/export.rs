//! `export PATH… DEST`: writes files and folders out with their metadata.

use std::ffi::OsString;
use std::path::Path;

use clap::Args;
use serde::Serialize;
use strongroom::fs::{FsSnapshot, Kind, Metadata};

use crate::command::mv::last_name;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::local::bytes_of;
use crate::local::destination::Folder;
use crate::output::{JsonName, complain, shown};
use crate::progress::Progress;
use crate::transfer::{self, Fetch, PIECE_BYTES, local_failed};
use crate::units;
use crate::walk::{Step, Walk};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to write out, and at the end the folder of this machine that it goes into. Files of the same name are
    /// replaced; links there are never followed
    #[arg(required = true, num_args = 2..)]
    paths: Vec<OsString>,
    /// Write every intact part of damaged files, and zeros in place of the rest
    #[arg(long)]
    partial: bool,
    /// Show what would be written
    #[arg(long)]
    dry_run: bool,
}

#[derive(Default, Serialize)]
struct Report {
    files: u64,
    folders: u64,
    links: u64,
    bytes: u64,
    seconds: f64,
    left_out: Vec<LeftOut>,
}

#[derive(Serialize)]
struct LeftOut {
    #[serde(flatten)]
    path: JsonName,
    reason: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<[u64; 2]>,
}

struct Export<'a> {
    snapshot: FsSnapshot,
    arguments: &'a Arguments,
    context: &'a mut Context,
    progress: Progress,
    buffer: Vec<u8>,
    report: Report,
    damaged: bool,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let Some((dest, paths)) = arguments.paths.split_last() else {
        return Err(Failure::usage("export needs what to write out and where to"));
    };
    if dest == "-" {
        return Err(Failure::usage("export to a tar stream is not supported yet: name a folder"));
    }
    let (repository, snapshot) = context.look().await?;
    let progress = Progress::new(&context.global);
    if progress.is_shown() {
        progress.set_total(measure(&snapshot, paths).await);
    }
    let mut export = Export {
        snapshot,
        arguments: &arguments,
        context,
        progress,
        buffer: vec![0; PIECE_BYTES],
        report: Report::default(),
        damaged: false,
    };
    export.all(paths, Path::new(dest)).await?;
    let Export { mut report, damaged, progress, .. } = export;
    report.seconds = progress.elapsed().as_secs_f64();
    let elapsed = progress.elapsed();
    progress.finish();
    repository.close().await?;
    summarise(&report, &arguments, elapsed, context)?;
    let left_out = u64::try_from(report.left_out.len()).unwrap_or(u64::MAX);
    match (left_out, damaged && !arguments.partial) {
        (0, _) => Ok(()),
        (_, true) => {
            let what = format!("{left_out} left out, listed above, damage among it: --partial rescues what is intact");
            Err(Failure::new(Exit::Damaged, what))
        }
        _ => Err(Context::partial(left_out, "files or folders")),
    }
}

impl Export<'_> {
    async fn all(&mut self, paths: &[OsString], dest: &Path) -> Result<(), Failure> {
        let folder = if self.arguments.dry_run {
            None
        } else {
            Some(Folder::at(dest).map_err(|error| local_failed(error).on(dest.display()))?)
        };
        for path in paths {
            let path = bytes_of(path);
            let metadata = self.snapshot.symlink_metadata(path).await?;
            let is_root = path.iter().all(|byte| matches!(byte, b'/' | b'.'));
            if metadata.kind == Kind::Directory && is_root {
                // The root has no name: what is in it goes into DEST.
                self.tree(path, folder.clone()).await?;
            } else {
                let name = last_name(path)?.to_vec();
                self.one(path, &name, &metadata, folder.as_ref()).await?;
            }
        }
        Ok(())
    }

    /// A path that the user named.
    async fn one(
        &mut self,
        path: &[u8],
        name: &[u8],
        metadata: &Metadata,
        folder: Option<&Folder>,
    ) -> Result<(), Failure> {
        if metadata.kind != Kind::Directory {
            return self.leaf(path, name, metadata, folder).await;
        }
        let inner = match folder.map(|folder| folder.enter(name)).transpose() {
            Ok(inner) => inner,
            Err(error) => return self.left_out(path, local_failed(error)),
        };
        self.report.folders += 1;
        self.detail(path);
        self.tree(path, inner.clone()).await?;
        self.finish_folder(path, metadata, inner.as_ref())
    }

    /// All that is in a folder.
    async fn tree(&mut self, path: &[u8], folder: Option<Folder>) -> Result<(), Failure> {
        let snapshot = self.snapshot.clone();
        let mut walk = Walk::new(snapshot.clone(), path, true).await?;
        let mut folders = vec![(folder, None)];
        while let Some(step) = walk.next().await {
            self.stop_if_asked()?;
            match step {
                Step::Entry(found) => {
                    let metadata = match found.metadata(&snapshot).await {
                        Ok(metadata) => metadata,
                        Err(failure) => {
                            walk.skip();
                            self.left_out(&found.path, failure)?;
                            continue;
                        }
                    };
                    let outer = folders.last().and_then(|(folder, _)| folder.clone());
                    if metadata.kind != Kind::Directory {
                        self.leaf(&found.path, &found.entry.name, &metadata, outer.as_ref()).await?;
                        continue;
                    }
                    match outer.map(|outer| outer.enter(&found.entry.name)).transpose() {
                        Ok(inner) => {
                            self.report.folders += 1;
                            self.detail(&found.path);
                            folders.push((inner, Some(metadata)));
                        }
                        Err(error) => {
                            walk.skip();
                            self.left_out(&found.path, local_failed(error))?;
                        }
                    }
                }
                Step::Leave(found) => {
                    if let Some((folder, Some(metadata))) = folders.pop() {
                        self.finish_folder(&found.path, &metadata, folder.as_ref())?;
                    }
                }
                Step::Unreadable(path, failure) => self.left_out(&path, failure)?,
            }
        }
        Ok(())
    }

    fn finish_folder(&mut self, path: &[u8], metadata: &Metadata, folder: Option<&Folder>) -> Result<(), Failure> {
        match folder.map(|folder| folder.finish(&transfer::to_local(metadata))) {
            Some(Err(error)) => self.left_out(path, local_failed(error)),
            _ => Ok(()),
        }
    }

    async fn leaf(
        &mut self,
        path: &[u8],
        name: &[u8],
        metadata: &Metadata,
        folder: Option<&Folder>,
    ) -> Result<(), Failure> {
        self.progress.on(|| shown(path));
        self.detail(path);
        let done = match metadata.kind {
            Kind::Symlink => self.link(path, name, metadata, folder).await.map(|()| Vec::new()),
            _ => self.file(path, name, metadata, folder).await,
        };
        match done {
            Ok(lost) if lost.is_empty() => Ok(()),
            Ok(lost) => {
                let ranges: Vec<String> = lost.iter().map(|lost| format!("{}..{}", lost.start, lost.end)).collect();
                let reason = format!("damaged: bytes {} are lost, zeros in their place", ranges.join(", "));
                self.tell(path, &reason);
                let lost = lost.iter().map(|lost| [lost.start, lost.end]).collect();
                self.report.left_out.push(LeftOut { path: JsonName::new(path), reason, lost });
                self.damaged = true;
                Ok(())
            }
            Err(failure) => self.left_out(path, failure),
        }
    }

    async fn link(
        &mut self,
        path: &[u8],
        name: &[u8],
        metadata: &Metadata,
        folder: Option<&Folder>,
    ) -> Result<(), Failure> {
        let target = self.snapshot.read_link(path).await?;
        if let Some(folder) = folder {
            folder.symlink(name, &target, &transfer::to_local(metadata)).map_err(local_failed)?;
        }
        self.report.links += 1;
        Ok(())
    }

    async fn file(
        &mut self,
        path: &[u8],
        name: &[u8],
        metadata: &Metadata,
        folder: Option<&Folder>,
    ) -> Result<Vec<transfer::Lost>, Failure> {
        let mut lost = Vec::new();
        if let Some(folder) = folder {
            let file = self.snapshot.open_file(path).await?;
            let mut draft = folder.create(name).map_err(local_failed)?;
            let interrupt = &self.context.interrupt;
            let mut fetch = Fetch { buffer: &mut self.buffer, interrupt, partial: self.arguments.partial };
            let progress = &self.progress;
            lost = fetch.file(&file, metadata.size, &mut draft, |bytes| progress.add(bytes)).await?;
            draft.finish(&transfer::to_local(metadata)).map_err(local_failed)?;
        }
        self.report.files += 1;
        self.report.bytes += metadata.size;
        Ok(lost)
    }

    /// Notes what was left out, and goes on; ends where going on is no use.
    fn left_out(&mut self, path: &[u8], failure: Failure) -> Result<(), Failure> {
        self.stop_if_asked()?;
        match failure.exit() {
            Exit::Damaged => self.damaged = true,
            // Of this one file, or of this machine: the others may fare better.
            Exit::Failed => {}
            _ => return Err(failure.on(shown(path))),
        }
        let reason = failure.to_string();
        self.tell(path, &reason);
        self.report.left_out.push(LeftOut { path: JsonName::new(path), reason, lost: Vec::new() });
        Ok(())
    }

    fn tell(&self, path: &[u8], reason: &str) {
        self.progress.aside(|| complain(&format!("{}: {reason}", shown(path))));
    }

    fn detail(&self, path: &[u8]) {
        if self.arguments.dry_run && !self.context.output.json() {
            self.context.output.notice(&format!("would write {}", shown(path)));
        } else {
            self.progress.aside(|| self.context.output.detail(&shown(path)));
        }
    }

    fn stop_if_asked(&self) -> Result<(), Failure> {
        if self.context.interrupt.asked() {
            return Err(Failure::failed("interrupted: what was written so far is whole; run it again for the rest"));
        }
        Ok(())
    }
}

fn summarise(
    report: &Report,
    arguments: &Arguments,
    elapsed: std::time::Duration,
    context: &mut Context,
) -> Result<(), Failure> {
    if context.output.json() {
        return context.output.document("strongroom/export/1", report);
    }
    let done = if arguments.dry_run { "would write" } else { "wrote" };
    context.output.summary(&format!(
        "{done} {} files, {} folders, {} links: {} in {} ({})",
        report.files,
        report.folders,
        report.links,
        units::size(report.bytes),
        units::duration(elapsed),
        units::rate(report.bytes, elapsed),
    ))
}

/// All bytes there are to write, as far as they can be counted.
async fn measure(snapshot: &FsSnapshot, paths: &[OsString]) -> u64 {
    let mut bytes = 0;
    for path in paths {
        let path = bytes_of(path);
        match snapshot.symlink_metadata(path).await {
            Ok(metadata) if metadata.kind != Kind::Directory => bytes += metadata.size,
            _ => {
                let Ok(mut walk) = Walk::new(snapshot.clone(), path, true).await else { continue };
                while let Some(step) = walk.next().await {
                    if let Step::Entry(found) = step
                        && found.entry.kind == Kind::File
                    {
                        bytes += found.metadata(snapshot).await.map_or(0, |metadata| metadata.size);
                    }
                }
            }
        }
    }
    bytes
}
