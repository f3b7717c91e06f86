//! Writes the seed corpus: one well-formed input of each shape, for the fuzzer to start from.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`

use std::fs;
use std::io::Result;
use std::path::Path;

use bytes::Bytes;
use strongroom_core::format::commit::{CommitHead, Hint, SpilledBody, encode_deltas};
use strongroom_core::format::header::{Features, Header, KdfCost};
use strongroom_core::format::limits::SLOTS_COUNT;
use strongroom_core::format::node::{InnerBuilder, LeafBuilder, NODE_BYTES_MAX};
use strongroom_core::format::rows::{self, ChunkRow, DataBlock, Place, SnapshotRow};
use strongroom_core::format::slot::{Factors, SLOT_DIRECTORY_BYTES, Slot, SlotDirectory, SlotEntry, SlotPayload};
use strongroom_core::format::well_known::{HeaderId, hint_name};
use strongroom_core::format::{BlockClass, CloneMark, DirectoryEntry, Pointer, RecordKind, Trailer, Writer};
use strongroom_core::{engine::ChunkNumber, engine::keyring::RecoveryKey, env::Env};
use strongroom_fs::format::{
    Compression, ContentRow, EntryRow, Extent, InodeRow, Kind, OptionsRow, ROOT, VersionRow, Versions, XattrRow,
};
use strongroom_fs::{ChunkSizes, Timestamp};

const POINTER: Pointer =
    Pointer { key_epoch: 0, writer_epoch: 1, counter: 2, index: 3, offset: 16, length: 4112, salt: [9; 16] };

fn main() -> Result<()> {
    header()?;
    slot()?;
    block()?;
    node()?;
    commit()?;
    rows_and_keys()?;
    files()?;
    pointer()?;
    uri()?;
    engine()
}

// Git ignores names that start like a hash: those are the fuzzer's own finds.
fn seed(target: &str, name: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("seed-{name}")), bytes)
}

fn header() -> Result<()> {
    let slot = |byte| Slot { salt: [byte; 32], commitment: [byte; 32], sealed: [byte; 128], tag: [byte; 16] };
    let header = Header {
        suite: 1,
        block_bytes: 128 << 10,
        features: Features::default(),
        kdf: KdfCost { memory_kib: 8 << 10, passes: 1, lanes: 1 },
        salt: [1; 32],
        repository: [2; 16],
        generation: 1,
        previous: [0; 32],
        directory_salt: [3; 32],
        directory: [4; SLOT_DIRECTORY_BYTES],
        directory_tag: [5; 16],
        slots: [slot(6), slot(7), slot(8), slot(9), slot(10), slot(11), slot(12), slot(13)],
    };
    seed("header", "whole", Header::complete(header.encode(), &[7; 32]))?;
    seed("header", "without-checksum", header.encode())
}

fn slot() -> Result<()> {
    let (epoch, lifetime) = ([1; 32].into(), [2; 32].into());
    let payload = SlotPayload { factors: Factors::PASSWORD.and(Factors::KEY_FILE), key_epoch: 3, epoch, lifetime };
    seed("slot", "payload", *payload.encode())?;
    let entry = |label: &str| Some(SlotEntry { factors: Factors::PASSWORD, created: 4, label: label.to_owned() });
    let mut directory: [Option<SlotEntry>; SLOTS_COUNT] = Default::default();
    directory[0] = entry("");
    directory[7] = entry("the one on paper");
    seed("slot", "table", SlotDirectory(directory).encode().expect("short labels"))?;
    let key = RecoveryKey::generate(&Env::deterministic(5)).expect("deterministic randomness");
    seed("slot", "recovery-key", key.to_text().as_bytes())?;
    seed("slot", "recovery-key-as-typed", key.to_text().to_lowercase().replace('-', " ").replace('0', "o"))?;
    seed("slot", "key-file", [7; 64])?;
    seed("slot", "key-file-too-short", [7; 31])
}

fn block() -> Result<()> {
    let records = [(RecordKind::ChunkData, 100), (RecordKind::Node, 16), (RecordKind::Spill, 1000)];
    let (mut writer, mut offset) = (Writer::default(), 16);
    for (index, (kind, length)) in (0..).zip(records) {
        DirectoryEntry { kind, index, offset, length, id: 7 }.encode(&mut writer);
        offset += length;
    }
    let trailer = Trailer { class: BlockClass::Data, records: 3, directory_offset: offset };
    seed("block", "three-records", [trailer.encode(), writer.into_vec()].concat())?;
    let trailer = Trailer { class: BlockClass::Metadata, records: 0, directory_offset: 16 };
    seed("block", "no-records", trailer.encode())
}

fn node() -> Result<()> {
    let mut leaf = LeafBuilder::leaf();
    let (one, two) = (Bytes::from_static(b"one"), Bytes::new());
    assert!(leaf.push(b"shared-a", &one, NODE_BYTES_MAX) && leaf.push(b"shared-b", &two, NODE_BYTES_MAX));
    seed("node", "leaf", leaf.born(3).build().expect("a leaf"))?;
    let mut inner = InnerBuilder::inner(1);
    assert!(inner.push(b"", &POINTER, NODE_BYTES_MAX) && inner.push(b"separator", &POINTER, NODE_BYTES_MAX));
    seed("node", "inner", inner.build().expect("an inner node"))
}

fn commit() -> Result<()> {
    let head = CommitHead {
        sequence: 3,
        previous: [1; 32],
        checkpoint: true,
        spilled: false,
        writer_epoch: 1,
        time: 1_700_000_000_000,
        header_generation: 1,
        header_hash: [2; 32],
        floor: 2,
        oldest: 1,
        base: 3,
        body_bytes: 100,
        content: Some((1, POINTER)),
        space: None,
    };
    seed("commit", "head-of-checkpoint", head.encode())?;
    let plain = CommitHead { checkpoint: false, base: 2, content: None, spilled: true, ..head };
    seed("commit", "head-spilled", plain.encode())?;
    let rows = [(Bytes::from_static(b"\x10a"), Some(Bytes::from_static(b"put"))), (Bytes::from_static(b"\x10b"), None)];
    let deltas = encode_deltas(rows.iter().map(|(key, value)| (key, value))).expect("two rows");
    seed("commit", "put-and-delete", deltas)?;
    seed("commit", "spilled-body", SpilledBody { depth: 1, total_bytes: 8192, pointers: vec![POINTER; 2] }.encode())?;
    seed("commit", "hint", Hint { sequence: 3, hash: [4; 32], key_epoch: 0 }.encode())?;
    seed("commit", "clone-mark", CloneMark { head: [5; 32], blocks: 6, spare: 7 }.encode())
}

fn rows_and_keys() -> Result<()> {
    let place = Place::Records(vec![POINTER; 2]);
    let row = ChunkRow { references: 1, birth: 2, death: 0, identity: Some([3; 32]), place };
    seed("rows", "chunk-in-records", row.encode())?;
    seed("rows", "chunk-parked", ChunkRow { references: 0, death: 9, ..row.clone() }.encode())?;
    let inline = ChunkRow { identity: None, place: Place::Inline(Bytes::from_static(b"\0small")), ..row };
    seed("rows", "chunk-inline", inline.encode())?;
    let block = DataBlock::of(&POINTER);
    seed("rows", "key-of-condemned", rows::condemned_key(5, block))?;
    seed("rows", "key-of-usage", rows::usage_key(block))?;
    seed("rows", "key-of-chunk", rows::chunk_key(6))?;
    seed("rows", "key-of-epoch", rows::epoch_key(7))?;
    seed("rows", "key-of-parked-chunk", rows::parked_chunk_key(8, 6))?;
    seed("rows", "key-of-parked-node", rows::parked_node_key(8, &POINTER))?;
    let snapshot = SnapshotRow { is_removed: false, sequence: 5, time: 6, content: Some((2, POINTER)) };
    seed("rows", "snapshot", snapshot.encode())?;
    seed("rows", "snapshot-of-nothing", SnapshotRow { is_removed: true, content: None, ..snapshot }.encode())
}

fn files() -> Result<()> {
    let sizes = ChunkSizes::for_block(128 << 10, 256 << 10);
    let options = OptionsRow { compression: Compression::Lz4, dedup: true, versions: 0, sizes, seed: None };
    seed("files", "options", options.encode())?;
    let time = Timestamp::new(-1, 999_999_999).expect("before 1970");
    let link = InodeRow {
        kind: Kind::Symlink,
        mode: 0o777,
        uid: 1000,
        gid: 1000,
        nlink: 1,
        xattrs: false,
        dedup: None,
        compression: None,
        btime: time,
        ctime: time,
        mtime: time,
        atime: time,
        mtime_set: 0,
        inline: Some(b"../target".to_vec()),
    };
    seed("files", "link", link.encode())?;
    seed("files", "regular", InodeRow { kind: Kind::File, inline: None, ..link.clone() }.encode())?;
    let set = InodeRow { xattrs: true, dedup: Some(false), compression: Some(Compression::Lz4), inline: None, ..link };
    seed("files", "set-apart", InodeRow { kind: Kind::File, nlink: 0, ..set }.encode())?;
    seed("files", "attribute", XattrRow::Inline(b"value".to_vec()).encode())?;
    seed("files", "attribute-in-chunks", XattrRow::Chunks { length: 9, chunks: vec![ChunkNumber(7)] }.encode())?;
    seed("files", "named", EntryRow { inode: ROOT, kind: Kind::Directory }.encode())?;
    seed("files", "extent", Extent::Data { chunk: ChunkNumber(1 << 32), length: 100, skip: 5 }.encode())?;
    seed("files", "hole", Extent::Hole { length: 1 << 40 }.encode())?;
    seed("files", "content", ContentRow { changed: 1, size: 2, ..ContentRow::default() }.encode())?;
    let versions = Versions { current: 5, oldest: 3, limit: Some(2) };
    let versioned = ContentRow { changed: 1, size: 2, versions, tag: None };
    seed("files", "content-with-versions", versioned.encode())?;
    seed("files", "content-with-tag", ContentRow { tag: Some([7; 16]), ..versioned }.encode())?;
    seed("files", "version", VersionRow { changed: 1, size: 2, held_bytes: 1 }.encode())
}

fn pointer() -> Result<()> {
    seed("pointer", "pointer", POINTER.encode())?;
    seed("pointer", "name-of-block", POINTER.block_id().encode())?;
    seed("pointer", "name-of-header", HeaderId { generation: 1, copy: 0 }.name().expect("there can be one"))?;
    seed("pointer", "name-of-hint", hint_name([8; 8]))
}

fn uri() -> Result<()> {
    seed("uri", "memory", "mem://name")?;
    seed("uri", "folder", "file:///abs/a%20b")?;
    seed("uri", "bare-path", "dir/sub?x")?;
    seed("uri", "parameters", "s3://bucket/prefix?region=x&endpoint=https%3A%2F%2Fhost:9000")?;
    seed("uri", "with-secret", "s3://user:pass@bucket")
}

/// Histories: the low half of a byte is the step, the high half its key.
fn engine() -> Result<()> {
    let rows = |keys: std::ops::Range<u8>| keys.flat_map(|key| [key << 4, 50, 7]);
    let chunks = |keys: std::ops::Range<u8>| keys.flat_map(|key| [key << 4 | 4, 200, 7]);
    let crashes: Vec<u8> = rows(0..5).chain([14, 1]).chain(chunks(0..5)).chain([14, 2, 11, 14, 3, 15]).collect();
    seed("engine", "commits-and-crashes", crashes)?;
    let closes: Vec<u8> = chunks(0..9).chain([12, 11]).chain([0x06, 0x16, 0x26, 7, 11, 11, 12, 13, 15]).collect();
    seed("engine", "chunks-freed-and-closed", closes)?;
    let faults: Vec<u8> = (0..12).flat_map(|call| [call << 4, 9, call << 4 | 9, call, 15, 7, 11]).collect();
    seed("engine", "a-fault-at-each-call", faults)?;
    seed("engine", "aborted", [4, 255, 10, 4, 255, 7, 12, 15])
}
