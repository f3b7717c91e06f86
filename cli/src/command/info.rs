//! `info`: without credentials the clear header; with them what is inside, and what becomes of it on the way to the storage.
//! That looks at the rows of all files and keys, and at no content.

use clap::Args;
use serde::Serialize;

use crate::context::{Access, Context};
use crate::exit::Failure;
use crate::output::hex;
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
    #[serde(skip_serializing_if = "Option::is_none")]
    inside: Option<Inside>,
}

#[derive(Serialize)]
struct Inside {
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
    // Nobody to ask and nothing given is a wish for the clear part, not an error.
    let look_inside = !arguments.clear && password::is_given(&context.global);
    let inside = if look_inside { Some(inside(context).await?) } else { None };
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
    if report.inside.is_none() {
        context.output.notice("shown is only what is readable without credentials");
    }
    Ok(())
}

async fn inside(context: &mut Context) -> Result<Inside, Failure> {
    let repository = context.open(Access::Read).await?;
    let sizes = repository.sizes().await?;
    let info = &sizes.engine;
    let options = repository.fs().options();
    repository.close().await?;
    Ok(Inside {
        commit: info.sequence,
        checkpoint: info.checkpoint,
        floor: info.floor,
        blocks: info.blobs,
        logical_bytes: sizes.logical_bytes(),
        file_bytes: sizes.file_bytes,
        hole_bytes: sizes.hole_bytes,
        value_bytes: sizes.value_bytes,
        version_bytes: sizes.version_bytes,
        unique_bytes: sizes.unique_bytes,
        compressed_bytes: sizes.compressed_bytes,
        stored_bytes: sizes.stored_bytes,
        snapshots: info.snapshots,
        snapshot_bytes: sizes.snapshot_bytes,
        chunks: info.chunks,
        live_bytes: info.live_bytes,
        open_writers: info.open_epochs,
        compression: match options.compression {
            strongroom::Compression::Lz4 => "lz4",
            strongroom::Compression::None => "none",
        },
        dedup: options.dedup,
    })
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
        rows.extend([
            ("compression", inside.compression.to_owned()),
            ("dedup", if inside.dedup { "on" } else { "off" }.to_owned()),
            ("commit", format!("{} (checkpoint {}, readable from {})", inside.commit, inside.checkpoint, inside.floor)),
            ("logical", logical),
            ("unique", unique),
            ("compressed", units::size(inside.compressed_bytes)),
            ("snapshots", snapshots),
            ("stored", format!("{} in {} blocks", units::size(inside.stored_bytes), inside.blocks)),
            ("live", format!("{} in {} chunks", units::size(inside.live_bytes), inside.chunks)),
            ("writers", inside.open_writers.to_string()),
        ]);
    }
    rows
}
