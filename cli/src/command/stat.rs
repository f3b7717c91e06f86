//! `stat PATH…`: what is known of files, folders and links.

use std::ffi::OsString;

use clap::Args;
use strongroom::fs::{Kind, Timestamp};

use crate::context::Context;
use crate::entry::{self, JsonEntry};
use crate::exit::Failure;
use crate::local::bytes_of;
use crate::named::Named;
use crate::output::shown;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Files, folders or links
    #[arg(required = true)]
    paths: Vec<OsString>,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let (repository, snapshot) = context.look().await?;
    let mut named = Named::new(arguments.paths.len());
    for path in &arguments.paths {
        let path = bytes_of(path);
        let Some(metadata) = named.metadata(&snapshot, path).await? else { continue };
        let target = match metadata.kind {
            Kind::Symlink => Some(snapshot.read_link(path).await?),
            _ => None,
        };
        if context.output.json() {
            let entry = JsonEntry::whole(path, &metadata, target.as_deref());
            context.output.document("strongroom/entry/1", &entry)?;
            continue;
        }
        let mut rows = vec![
            ("path", shown(path)),
            ("kind", entry::kind(metadata.kind).to_owned()),
            ("size", format!("{} ({})", metadata.size, units::size(metadata.size))),
            ("mode", format!("{:04o} {}", metadata.mode, entry::permissions(metadata.kind, metadata.mode))),
            ("owner", format!("{}:{}", metadata.uid, metadata.gid)),
            ("links", metadata.nlink.to_string()),
            ("inode", metadata.inode.to_string()),
            ("modified", time(metadata.mtime)),
            ("changed", time(metadata.ctime)),
            ("created", time(metadata.btime)),
            ("accessed", time(metadata.atime)),
        ];
        if metadata.kind == Kind::File {
            rows.push(("versions", format!("{} older", metadata.versions)));
        }
        if let Some(target) = target {
            rows.push(("target", shown(&target)));
        }
        for (name, value) in rows {
            context.output.line(&format!("{name:<9} {value}"))?;
        }
    }
    repository.close().await?;
    named.end()
}

fn time(time: Timestamp) -> String {
    format!("{} +{}ns", units::moment(time.seconds), time.nanos)
}
