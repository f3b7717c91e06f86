//! `info`: without credentials the clear header; with them what is inside, and what becomes of it on the way to the storage.
//! That looks at the rows of all files and keys, and at no content. With `--at`, at those that a snapshot keeps.

use clap::Args;
use serde::Serialize;
use strongroom::core::engine::EngineInfo;
use strongroom::fs::Options;
use strongroom::storage::StraysSought;
use strongroom::{Sizes, SizesAt, SnapshotInfo};

use crate::context::{Access, Context, snapshot_meant};
use crate::exit::Failure;
use crate::output::{hex, shown};
use crate::password;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Show only what is readable without credentials, and ask for none
    #[arg(long)]
    clear: bool,
}

#[derive(Serialize)]
struct Report {
    uri: String,
    repository: String,
    cipher: &'static str,
    block_bytes: u32,
    header_generation: u64,
    header_faults: usize,
    kdf_memory_kib: u32,
    kdf_passes: u32,
    kdf_lanes: u32,
    /// What a sync client has left beside the blobs.
    conflicted_copies: usize,
    unfinished_files: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    inside: Option<Inside>,
}

/// A snapshot whose content is counted.
#[derive(Serialize)]
struct At {
    snapshot: String,
    commit: u64,
    time: String,
    files: u64,
    folders: u64,
    links: u64,
    /// Figures beside it that are not of the snapshot: of the repository as it is now, with all that it keeps.
    of_now: [&'static str; 10],
}

/// What no single state has to itself.
const OF_NOW: [&str; 10] = [
    "commit",
    "checkpoint",
    "floor",
    "blocks",
    "stored_bytes",
    "snapshots",
    "snapshot_bytes",
    "open_writers",
    "compression",
    "dedup",
];

#[derive(Serialize)]
struct Inside {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<At>,
    commit: u64,
    checkpoint: u64,
    floor: u64,
    blocks: u64,
    /// Files with their holes, and values of keys.
    logical_bytes: u64,
    file_bytes: u64,
    hole_bytes: u64,
    value_bytes: u64,
    /// What older versions of files have beside the current ones.
    version_bytes: u64,
    /// Of files, versions and values, what is left where what is stored once counts once.
    unique_bytes: u64,
    compressed_bytes: u64,
    stored_bytes: u64,
    snapshots: u64,
    /// What only snapshots need, compressed, beside all that.
    snapshot_bytes: u64,
    chunks: u64,
    live_bytes: u64,
    open_writers: u64,
    compression: &'static str,
    dedup: bool,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let uri = context.uri()?;
    let header = strongroom::clear_header(&uri, &context.header_options())
        .await
        .map_err(|error| Failure::from(error).on(&uri))?;
    if arguments.clear && context.global.at.is_some() {
        return Err(Failure::usage("--clear shows the header, which no snapshot keeps: leave --at out, or --clear"));
    }
    // Nobody to ask and nothing given is a wish for the clear part, not an error; unless it is asked what is inside.
    let look_inside = !arguments.clear && (password::is_given(&context.global) || context.global.at.is_some());
    let inside = if look_inside { Some(inside(context).await?) } else { None };
    let strays = context.strays(&uri, StraysSought::All).await;
    let report = Report {
        uri: uri.to_string(),
        repository: hex(&header.repository),
        cipher: header.suite.name(),
        block_bytes: header.block_bytes,
        header_generation: header.generation,
        header_faults: header.faults_count,
        kdf_memory_kib: header.kdf.memory_kib,
        kdf_passes: header.kdf.passes,
        kdf_lanes: header.kdf.lanes,
        conflicted_copies: strays.count(true),
        unfinished_files: strays.count(false),
        inside,
    };
    if context.output.json() {
        return context.output.document("strongroom/info/1", &report);
    }
    for (name, value) in rows(&report) {
        context.output.line(&format!("{name:<12} {value}"))?;
    }
    if report.header_faults > 0 {
        context.output.notice(&format!("{} copies of the header are damaged or missing", report.header_faults));
    }
    for notice in [strays.copies(), strays.unfinished()].into_iter().flatten() {
        context.output.notice(&notice);
    }
    if report.inside.is_none() {
        context.output.notice("shown is only what is readable without credentials");
    }
    Ok(())
}

async fn inside(context: &mut Context) -> Result<Inside, Failure> {
    let repository = context.open(Access::Read).await?;
    let options = repository.fs().options();
    let inside = match snapshot_meant(&repository, context.global.at.as_deref()).await? {
        Some(name) => {
            let taken = repository.snapshots().await?.into_iter().find(|info| info.name == name);
            let taken = taken.ok_or(strongroom::core::Error::NoSnapshot { name })?;
            Inside::of_snapshot(&taken, &repository.sizes_at(&taken.name).await?, &repository.info().await?, options)
        }
        None => Inside::of_newest(&repository.sizes().await?, options),
    };
    repository.close().await?;
    Ok(inside)
}

impl Inside {
    fn of_newest(sizes: &Sizes, options: Options) -> Self {
        Self {
            logical_bytes: sizes.logical_bytes(),
            file_bytes: sizes.file_bytes,
            hole_bytes: sizes.hole_bytes,
            value_bytes: sizes.value_bytes,
            version_bytes: sizes.version_bytes,
            unique_bytes: sizes.unique_bytes,
            compressed_bytes: sizes.compressed_bytes,
            ..Self::of_engine(&sizes.engine, options)
        }
    }

    fn of_snapshot(taken: &SnapshotInfo, sizes: &SizesAt, now: &EngineInfo, options: Options) -> Self {
        let at = At {
            snapshot: taken.name.clone(),
            commit: taken.sequence,
            time: units::moment(i64::try_from(taken.time_millis / 1000).unwrap_or(i64::MAX)),
            files: sizes.usage.files,
            folders: sizes.usage.directories,
            links: sizes.usage.symlinks,
            of_now: OF_NOW,
        };
        Self {
            at: Some(at),
            logical_bytes: sizes.logical_bytes(),
            file_bytes: sizes.file_bytes,
            hole_bytes: sizes.hole_bytes,
            value_bytes: sizes.value_bytes,
            version_bytes: sizes.version_bytes,
            unique_bytes: sizes.unique_bytes,
            compressed_bytes: sizes.compressed_bytes,
            chunks: sizes.chunks,
            live_bytes: sizes.live_bytes,
            ..Self::of_engine(now, options)
        }
    }

    /// What the engine counts; the content is not counted yet.
    fn of_engine(info: &EngineInfo, options: Options) -> Self {
        Self {
            at: None,
            commit: info.sequence,
            checkpoint: info.checkpoint,
            floor: info.floor,
            blocks: info.blobs,
            logical_bytes: 0,
            file_bytes: 0,
            hole_bytes: 0,
            value_bytes: 0,
            version_bytes: 0,
            unique_bytes: 0,
            compressed_bytes: 0,
            stored_bytes: info.blobs.saturating_mul(u64::from(info.block_bytes)),
            snapshots: info.snapshots,
            snapshot_bytes: info.snapshot_chunk_bytes,
            chunks: info.chunks,
            live_bytes: info.live_bytes,
            open_writers: info.open_epochs,
            compression: match options.compression {
                strongroom::Compression::Lz4 => "lz4",
                strongroom::Compression::None => "none",
            },
            dedup: options.dedup,
        }
    }
}

fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let kdf = format!(
        "Argon2id, {}, {} passes, {} lanes",
        units::size(u64::from(report.kdf_memory_kib) * 1024),
        report.kdf_passes,
        report.kdf_lanes
    );
    let mut rows = vec![
        ("address", report.uri.clone()),
        ("id", report.repository.clone()),
        ("cipher", report.cipher.to_owned()),
        ("block size", units::size(report.block_bytes.into())),
        ("password", kdf),
        ("header", format!("generation {}", report.header_generation)),
    ];
    if let Some(inside) = &report.inside {
        let logical = format!(
            "{}: files {}, of it holes {}; values of keys {}",
            units::size(inside.logical_bytes),
            units::size(inside.file_bytes),
            units::size(inside.hole_bytes),
            units::size(inside.value_bytes)
        );
        let unique = format!(
            "{}, each content once, with {} of older versions",
            units::size(inside.unique_bytes),
            units::size(inside.version_bytes)
        );
        let snapshots = match inside.snapshots {
            0 => "none".to_owned(),
            count => format!("{count}, which alone need {}, compressed", units::size(inside.snapshot_bytes)),
        };
        // Of one state, the rest is not told apart.
        let of_all = if inside.at.is_some() { " (now, of all states)" } else { "" };
        if let Some(at) = &inside.at {
            let counts = format!("{} files, {} folders, {} links", at.files, at.folders, at.links);
            let shown = shown(at.snapshot.as_bytes());
            rows.push(("snapshot", format!("{shown}, commit {}, {}: {counts}", at.commit, at.time)));
        }
        rows.extend([
            ("compression", inside.compression.to_owned()),
            ("dedup", if inside.dedup { "on" } else { "off" }.to_owned()),
            (
                "commit",
                format!("{} (checkpoint {}, readable from {}){of_all}", inside.commit, inside.checkpoint, inside.floor),
            ),
            ("logical", logical),
            ("unique", unique),
            ("compressed", units::size(inside.compressed_bytes)),
            ("snapshots", format!("{snapshots}{of_all}")),
            ("stored", format!("{} in {} blocks{of_all}", units::size(inside.stored_bytes), inside.blocks)),
            ("live", format!("{} in {} chunks", units::size(inside.live_bytes), inside.chunks)),
            ("writers", format!("{}{of_all}", inside.open_writers)),
        ]);
    }
    rows
}
