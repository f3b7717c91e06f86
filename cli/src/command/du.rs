//! `du [PATH…]`: how many bytes are in files, folder by folder.

use std::collections::HashSet;
use std::ffi::OsString;

use clap::Args;
use serde::Serialize;
use strongroom::fs::{FsSnapshot, Kind, Metadata};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::local::bytes_of;
use crate::named::Named;
use crate::output::{JsonName, complain, shown};
use crate::units;
use crate::walk::{Step, Walk};

/// So many files with several names are remembered, so that each counts once; of further ones each name counts.
const LINKED_MAX: usize = 4 << 20;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Show the folders and files that were named alone
    #[arg(short, long, conflicts_with = "depth")]
    summarize: bool,
    /// Show folders so many levels down
    #[arg(short, long, value_name = "N")]
    depth: Option<usize>,
    /// Show bytes, rather than KiB and MiB
    #[arg(short, long)]
    bytes: bool,
    /// Folders or files
    #[arg(default_value = "/")]
    paths: Vec<OsString>,
}

/// What is in a folder and below it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Total {
    /// Lengths of files, their holes included; a file with several names counts once.
    bytes: u64,
    files: u64,
    /// The folder itself included.
    folders: u64,
    links: u64,
}

impl Total {
    fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.files += other.files;
        self.folders += other.folders;
        self.links += other.links;
    }
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    path: JsonName,
    #[serde(flatten)]
    total: &'a Total,
}

struct Count<'a> {
    arguments: &'a Arguments,
    snapshot: FsSnapshot,
    context: &'a mut Context,
    linked: HashSet<u64>,
    damaged: u64,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let (repository, snapshot) = context.look().await?;
    let mut count = Count { arguments: &arguments, snapshot, context, linked: HashSet::new(), damaged: 0 };
    let mut named = Named::new(arguments.paths.len());
    for path in &arguments.paths {
        let path = bytes_of(path);
        if let Some(metadata) = named.metadata(&count.snapshot, path).await? {
            count.all(path, metadata).await?;
        }
    }
    let damaged = count.damaged;
    repository.close().await?;
    if damaged > 0 {
        return Err(Failure::new(Exit::Damaged, format!("{damaged} could not be read: run `check`")));
    }
    named.end()
}

impl Count<'_> {
    async fn all(&mut self, path: &[u8], metadata: Metadata) -> Result<(), Failure> {
        if metadata.kind != Kind::Directory {
            let total = self.one(&metadata);
            return self.show(path, &total);
        }
        let depth_max = if self.arguments.summarize { 0 } else { self.arguments.depth.unwrap_or(usize::MAX) };
        let snapshot = self.snapshot.clone();
        let mut walk = Walk::new(snapshot.clone(), path, true).await?;
        let mut open = vec![Total { folders: 1, ..Total::default() }];
        while let Some(step) = walk.next().await {
            self.context.interrupt.check()?;
            match step {
                Step::Entry(found) if found.entry.kind == Kind::Directory => {
                    open.push(Total { folders: 1, ..Total::default() });
                }
                Step::Entry(found) => match found.metadata(&snapshot).await {
                    Ok(metadata) => {
                        let one = self.one(&metadata);
                        if let Some(folder) = open.last_mut() {
                            folder.add(one);
                        }
                    }
                    Err(failure) => self.damaged(&found.path, failure)?,
                },
                Step::Leave(found) => {
                    let Some(total) = open.pop() else { continue };
                    if let Some(outer) = open.last_mut() {
                        outer.add(total);
                    }
                    if open.len() <= depth_max {
                        self.show(&found.path, &total)?;
                    }
                }
                Step::Unreadable(path, failure) => self.damaged(&path, failure)?,
            }
        }
        self.show(path, &open.pop().unwrap_or_default())
    }

    fn one(&mut self, metadata: &Metadata) -> Total {
        if metadata.nlink > 1 && self.linked.len() < LINKED_MAX && !self.linked.insert(metadata.inode) {
            return Total::default();
        }
        match metadata.kind {
            Kind::File => Total { bytes: metadata.size, files: 1, ..Total::default() },
            Kind::Symlink => Total { links: 1, ..Total::default() },
            Kind::Directory => Total { folders: 1, ..Total::default() },
        }
    }

    fn damaged(&mut self, path: &[u8], failure: Failure) -> Result<(), Failure> {
        if failure.exit() != Exit::Damaged {
            return Err(failure.on(shown(path)));
        }
        self.damaged += 1;
        complain(&failure.on(shown(path)).to_string());
        Ok(())
    }

    fn show(&mut self, path: &[u8], total: &Total) -> Result<(), Failure> {
        if self.context.output.json() {
            return self.context.output.document("strongroom/du/1", &Row { path: JsonName::new(path), total });
        }
        let size = if self.arguments.bytes { total.bytes.to_string() } else { units::size(total.bytes) };
        self.context.output.bytes(format!("{size:<9} ").as_bytes())?;
        self.context.output.name_line(path)
    }
}
