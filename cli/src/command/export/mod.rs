//! `export PATH… DEST`: writes files and folders out with their metadata, to a folder or as a tar stream.

mod out;
mod tar;

use std::ffi::OsString;
use std::path::Path;

use clap::Args;
use serde::Serialize;
use strongroom::fs::{FsSnapshot, Kind, Metadata};

use crate::arguments::once;
use crate::command::mv::{last_name, refuse_same_names, split_paths};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::first_name::FirstNames;
use crate::interrupt::Interrupt;
use crate::local::bytes_of;
use crate::local::destination::Folder;
use crate::local::source::Identity;
use crate::local::way::Way;
use crate::local::xattrs::Xattrs;
use crate::output::{JsonName, complain, shown};
use crate::progress::Progress;
use crate::transfer::{self, Fetch, PIECE_BYTES, local_failed};
use crate::units;
use crate::walk::{Step, Walk, join};

use out::Out;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to write out, and at the end the folder of this machine that it goes into: files of the same name are
    /// replaced, links there are never followed; or `-` for a tar stream to stdout, in which holes are zeros, and access lists are
    /// extended attributes (SCHILY.xattr.system.posix_acl_*). Extended attributes that cannot be written are counted on
    /// stderr, and are no failure
    #[arg(required = true)]
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
    /// Further names of files that have several.
    hard_links: u64,
    bytes: u64,
    seconds: f64,
    left_out: Vec<LeftOut>,
    /// Extended attributes that did not arrive, where there are such: a dry run cannot tell. They are told, and alone are no failure: a plain user can set few of those that
    /// a system gives its files, and what the files hold is whole without them.
    #[serde(skip_serializing_if = "Option::is_none")]
    xattrs_left_out: Option<u64>,
    /// Where it ended early for want of room: what there was still to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_written: Option<Amount>,
}

/// Files, by their names, and the bytes in them.
#[derive(Clone, Copy, Default, Serialize)]
struct Amount {
    files: u64,
    bytes: u64,
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
    out: Out,
    links: FirstNames<u64, Written>,
    report: Report,
    /// What was written or left out.
    met: Amount,
    damaged: bool,
}

/// A file that was written, and has further names.
#[derive(Clone)]
struct Written {
    /// Which it is on this machine.
    identity: Option<Identity>,
    lost: Vec<transfer::Lost>,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let (dest, paths) = split_paths(&arguments.paths, "export", "what to write out")?;
    let is_stream = dest == "-";
    if is_stream && !arguments.dry_run {
        if context.output.json() {
            return Err(Failure::usage("a tar stream and --json both want stdout: leave one out"));
        }
        if context.output.is_terminal() {
            return Err(Failure::usage("a tar stream is not for a terminal: send stdout to a file or a program"));
        }
    }
    let paths = &once(paths);
    refuse_same_names(paths.iter().map(|path| bytes_of(path)))?;
    let own = context.own().clone();
    if !is_stream {
        own.refuse(Path::new(dest))?;
    }
    let (repository, snapshot) = context.look().await?;
    refuse_beside_root(&snapshot, paths).await?;
    let progress = Progress::new(&context.global);
    if progress.is_shown() {
        progress.set_total(measure(&snapshot, paths, &context.interrupt).await.bytes);
    }
    let out = match (arguments.dry_run, is_stream) {
        (true, true) => Out::nowhere(),
        (false, true) => Out::tar(),
        (is_dry_run, false) => {
            let dest = Path::new(dest);
            let out =
                if is_dry_run { Way::at(dest, own).map(Out::way) } else { Folder::at(dest, own).map(Out::folder) };
            out.map_err(|error| local_failed(error).on(dest.display()))?
        }
    };
    let mut export = Export {
        snapshot,
        arguments: &arguments,
        context,
        progress,
        buffer: vec![0; PIECE_BYTES],
        out,
        links: FirstNames::default(),
        report: Report::default(),
        met: Amount::default(),
        damaged: false,
    };
    let done = export.all(paths).await;
    if let Err(failure) = &done {
        export.end_early(failure, paths).await;
    }
    let Export { mut report, damaged, progress, links, out, .. } = export;
    report.seconds = progress.elapsed().as_secs_f64();
    report.xattrs_left_out = Some(out.xattrs_left_out()).filter(|count| *count > 0);
    let elapsed = progress.elapsed();
    progress.finish();
    let tells = match &done {
        Ok(()) => true,
        // Of a stream that ends early nothing is of use.
        Err(failure) => !is_stream && !failure.is_quiet(),
    };
    if !tells {
        return done;
    }
    let closed = repository.close().await;
    if links.forgotten() > 0 {
        let count = links.forgotten();
        context
            .output
            .notice(&format!("{count} files with several names were too many: names became files of their own"));
    }
    if let Some(notice) = out.xattrs_notice() {
        context.output.notice(&notice);
    }
    let told = summarise(&report, &arguments, is_stream, elapsed, context);
    // Why it ended early is what counts.
    done?;
    closed?;
    told?;
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

/// The root has no name: what is in it goes into DEST, where nothing else may have one of those names.
async fn refuse_beside_root(snapshot: &FsSnapshot, paths: &[OsString]) -> Result<(), Failure> {
    let (roots, others): (Vec<&[u8]>, Vec<&[u8]>) =
        paths.iter().map(|path| bytes_of(path)).partition(|path| is_root(path));
    let Some((root, again)) = roots.split_first() else { return Ok(()) };
    if let Some(again) = again.first() {
        return Err(Failure::usage(format!("{} and {} are the same: name it once", shown(root), shown(again))));
    }
    for path in others {
        let name = last_name(path)?;
        match snapshot.symlink_metadata(join(b"/", name)).await {
            Err(strongroom::Error::NotFound { .. }) => {}
            Err(error) => match Failure::from(error) {
                // What cannot be read does not arrive.
                failure if failure.exit() == Exit::Damaged => {}
                failure => return Err(failure),
            },
            Ok(_) => {
                let what =
                    format!("what is in {} and {} would both arrive as {}", shown(root), shown(path), shown(name));
                return Err(Failure::usage(format!("{what}: nothing was done")));
            }
        }
    }
    Ok(())
}

fn is_root(path: &[u8]) -> bool {
    !path.is_empty() && path.split(|byte| *byte == b'/').all(|name| name.is_empty() || name == b".")
}

impl Export<'_> {
    /// Leaves things in order where it cannot go on.
    async fn end_early(&mut self, failure: &Failure, paths: &[OsString]) {
        for (path, failure) in self.out.abandon() {
            self.tell(&path, &failure.to_string());
        }
        if failure.is_for_want_of_room() {
            let all = measure(&self.snapshot, paths, &self.context.interrupt).await;
            let files = all.files.saturating_sub(self.met.files);
            self.report.not_written = Some(Amount { files, bytes: all.bytes.saturating_sub(self.met.bytes) });
        }
    }

    async fn all(&mut self, paths: &[OsString]) -> Result<(), Failure> {
        for path in paths {
            let path = bytes_of(path);
            let metadata = match self.snapshot.symlink_metadata(path).await.map_err(Failure::from) {
                Ok(metadata) => metadata,
                // The others may be whole.
                Err(failure) if failure.exit() == Exit::Damaged => {
                    self.left_out(path, failure)?;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            if is_root(path) {
                // The root has no name: what is in it goes into DEST.
                self.tree(path).await?;
            } else {
                let name = last_name(path)?.to_vec();
                self.one(path, &name, &metadata).await?;
            }
        }
        self.out.finish(&mut self.context.output)
    }

    /// A path that the user named.
    async fn one(&mut self, path: &[u8], name: &[u8], metadata: &Metadata) -> Result<(), Failure> {
        if metadata.kind != Kind::Directory {
            return self.leaf(path, name, metadata).await;
        }
        if let Err(failure) = self.enter(path, name, metadata).await {
            return self.left_out(path, failure);
        }
        self.detail(path);
        let is_whole = self.tree(path).await?;
        self.finish_folder(path, metadata, is_whole).await
    }

    /// All that is in a folder; answers whether all names in it could be read.
    async fn tree(&mut self, path: &[u8]) -> Result<bool, Failure> {
        let snapshot = self.snapshot.clone();
        let mut walk = match Walk::new(snapshot.clone(), path, true).await {
            Ok(walk) => walk,
            Err(failure) => {
                self.left_out(path, failure)?;
                return Ok(false);
            }
        };
        let mut folders = Vec::new();
        let mut is_whole = true;
        while let Some(step) = walk.next().await {
            self.stop_if_asked()?;
            match step {
                Step::Entry(found) => {
                    let metadata = match snapshot.inode_metadata(found.entry.inode).await {
                        Ok(metadata) => metadata,
                        Err(error) => {
                            walk.skip();
                            self.left_out(&found.path, error.into())?;
                            self.met.files += u64::from(found.entry.kind == Kind::File);
                            continue;
                        }
                    };
                    if metadata.kind != Kind::Directory {
                        self.leaf(&found.path, &found.entry.name, &metadata).await?;
                        continue;
                    }
                    match self.enter(&found.path, &found.entry.name, &metadata).await {
                        Ok(()) => {
                            self.detail(&found.path);
                            folders.push(metadata);
                        }
                        Err(failure) => {
                            walk.skip();
                            self.left_out(&found.path, failure)?;
                        }
                    }
                }
                Step::Leave(found) => {
                    if let Some(metadata) = folders.pop() {
                        self.finish_folder(&found.path, &metadata, is_whole).await?;
                    }
                    is_whole = true;
                }
                // It is left next.
                Step::Unreadable(path, failure) => {
                    is_whole = false;
                    self.left_out(&path, failure)?;
                }
            }
        }
        Ok(is_whole)
    }

    async fn enter(&mut self, path: &[u8], name: &[u8], metadata: &Metadata) -> Result<(), Failure> {
        let xattrs = transfer::xattrs(&self.snapshot, path, metadata).await?;
        self.out.enter(name, metadata, &xattrs, &mut self.context.output)
    }

    /// A folder counts when it has its attributes, and if all names in it could be read: no folder is left out and counted.
    async fn finish_folder(&mut self, path: &[u8], metadata: &Metadata, is_whole: bool) -> Result<(), Failure> {
        let xattrs = transfer::xattrs(&self.snapshot, path, metadata).await;
        let left = self.out.leave(metadata, xattrs.as_ref().unwrap_or(&Xattrs::new()));
        match xattrs.and(left) {
            Err(failure) => self.left_out(path, failure),
            Ok(()) => {
                self.report.folders += u64::from(is_whole);
                Ok(())
            }
        }
    }

    async fn leaf(&mut self, path: &[u8], name: &[u8], metadata: &Metadata) -> Result<(), Failure> {
        self.progress.on(|| shown(path));
        self.detail(path);
        let done = match metadata.kind {
            Kind::Symlink => self.link(path, name, metadata).await.map(|()| Vec::new()),
            _ => self.file(path, name, metadata).await,
        };
        match done {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) => {
                let ranges: Vec<String> = lost.iter().map(|lost| format!("{}..{}", lost.start, lost.end)).collect();
                let reason = format!("damaged: bytes {} are lost, zeros in their place", ranges.join(", "));
                self.tell(path, &reason);
                let lost = lost.iter().map(|lost| [lost.start, lost.end]).collect();
                self.report.left_out.push(LeftOut { path: JsonName::new(path), reason, lost });
                self.damaged = true;
            }
            Err(failure) => self.left_out(path, failure)?,
        }
        if metadata.kind == Kind::File {
            self.met.files += 1;
            self.met.bytes += metadata.size;
        }
        Ok(())
    }

    async fn link(&mut self, path: &[u8], name: &[u8], metadata: &Metadata) -> Result<(), Failure> {
        if self.one_more_name(name, metadata)?.is_some() {
            return Ok(());
        }
        let target = self.snapshot.read_link(path).await?;
        let xattrs = transfer::xattrs(&self.snapshot, path, metadata).await?;
        let identity = self.out.symlink(name, &target, (metadata, &xattrs), &mut self.context.output)?;
        let written = Written { identity, lost: Vec::new() };
        self.links.met(metadata.inode, metadata.nlink, &self.out.path(name), written);
        self.report.links += 1;
        Ok(())
    }

    /// Gives what was written under another name of it this one, too, where there is such and it can be done; answers what
    /// was lost of it.
    fn one_more_name(&mut self, name: &[u8], metadata: &Metadata) -> Result<Option<Vec<transfer::Lost>>, Failure> {
        if metadata.nlink > 1
            && let Some(first) = self.links.of(&metadata.inode)
            && self.out.link(name, &first.path, first.note.identity, metadata, &mut self.context.output)?
        {
            self.report.hard_links += 1;
            return Ok(Some(first.note.lost));
        }
        Ok(None)
    }

    async fn file(&mut self, path: &[u8], name: &[u8], metadata: &Metadata) -> Result<Vec<transfer::Lost>, Failure> {
        if let Some(lost) = self.one_more_name(name, metadata)? {
            self.progress.add(metadata.size);
            return Ok(lost);
        }
        let file = self.snapshot.open_file(path).await?;
        let xattrs = transfer::xattrs(&self.snapshot, path, metadata).await?;
        let interrupt = self.context.interrupt.clone();
        let mut fetch = Fetch { buffer: &mut self.buffer, interrupt: &interrupt, partial: self.arguments.partial };
        let progress = |bytes| self.progress.add(bytes);
        let of = (metadata, &xattrs);
        let (lost, identity) = self.out.file(name, &file, of, &mut fetch, &mut self.context.output, progress).await?;
        let written = Written { identity, lost: lost.clone() };
        self.links.met(metadata.inode, metadata.nlink, &self.out.path(name), written);
        self.report.files += 1;
        self.report.bytes += metadata.size;
        Ok(lost)
    }

    /// Notes what was left out, and goes on; ends where going on is no use.
    fn left_out(&mut self, path: &[u8], failure: Failure) -> Result<(), Failure> {
        self.stop_if_asked()?;
        if self.out.is_refused() {
            return Err(failure);
        }
        if self.out.is_cut_off() {
            let what = "the stream ends within this file";
            let what = if failure.exit() == Exit::Damaged { format!("{what}: --partial goes on") } else { what.into() };
            return Err(Failure::new(failure.exit(), format!("{failure}: {what}")).on(shown(path)));
        }
        // Nor is there for what follows.
        if failure.is_for_want_of_room() {
            let what = "what was written so far is whole; make room, and run it again for the rest";
            return Err(Failure::failed(format!("{failure}: {what}")).on(shown(path)).for_want_of_room());
        }
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
    is_stream: bool,
    elapsed: std::time::Duration,
    context: &mut Context,
) -> Result<(), Failure> {
    if context.output.json() {
        return context.output.document("strongroom/export/1", report);
    }
    let done = if arguments.dry_run { "would write" } else { "wrote" };
    let not_written = report.not_written.map_or_else(String::new, |Amount { files, bytes }| {
        format!("; {files} files of {} were not written", units::size(bytes))
    });
    let summary = format!(
        "{done} {} files, {} folders, {} links: {} in {} ({}){not_written}",
        report.files,
        report.folders,
        report.links + report.hard_links,
        units::size(report.bytes),
        units::duration(elapsed),
        units::rate(report.bytes, elapsed),
    );
    if is_stream && !arguments.dry_run {
        context.output.notice(&summary);
        return Ok(());
    }
    context.output.summary(&summary)
}

/// All there is to write, as far as it can be counted.
async fn measure(snapshot: &FsSnapshot, paths: &[OsString], interrupt: &Interrupt) -> Amount {
    let mut amount = Amount::default();
    for path in paths {
        let path = bytes_of(path);
        match snapshot.symlink_metadata(path).await {
            Ok(metadata) if metadata.kind != Kind::Directory => {
                amount.files += u64::from(metadata.kind == Kind::File);
                amount.bytes += metadata.size;
            }
            _ => {
                let Ok(mut walk) = Walk::new(snapshot.clone(), path, true).await else { continue };
                while let Some(step) = walk.next().await {
                    if interrupt.asked() {
                        return amount;
                    }
                    if let Step::Entry(found) = step
                        && found.entry.kind == Kind::File
                    {
                        amount.files += 1;
                        amount.bytes += found.metadata(snapshot).await.map_or(0, |metadata| metadata.size);
                    }
                }
            }
        }
    }
    amount
}
