//! One file under random reads, writes, truncations, holes, copies within it, flushes and reopening, beside a real file.
//!
//! `STRONGROOM_FSX=1000000` runs so many operations, and a fiftieth of them on the larger file; `STRONGROOM_SEED=N` takes this seed.

use std::io::{Read, Seek, SeekFrom, Write};

use futures_lite::future::block_on;
use strongroom_conformance::Dice;
use strongroom_fs::{File, FileSystem, OpenOptions};

use super::support::{Bed, assert_sound, noise};

/// What file is tried.
#[derive(Clone, Copy)]
struct Shape {
    block_bytes: u32,
    /// It is never longer.
    bytes_max: u64,
    /// What an operation is about is at most so long, in turn.
    lengths: [u64; 3],
    /// Unless it is said how many.
    operations: u32,
    /// Of the operations that are asked for, one in so many.
    share: u64,
}

/// Chunks of 4 KiB at the middle: some tens of them, in blocks of a chunk each.
const SMALL: Shape =
    Shape { block_bytes: 4096, bytes_max: 200_000, lengths: [50, 3_000, 30_000], operations: 50_000, share: 1 };
/// Chunks and blocks as they are by default: a hundred chunks, several blocks at once, and holes over many of both.
const LARGE: Shape = Shape {
    block_bytes: 128 << 10,
    bytes_max: 6 << 20,
    lengths: [3_000, 100_000, 2_500_000],
    operations: 1_000,
    share: 50,
};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

struct Pair {
    real: std::fs::File,
    file: File,
    size: u64,
}

impl Pair {
    fn real_bytes(&mut self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.real.seek(SeekFrom::Start(offset)).unwrap();
        let mut read = 0;
        while read < length {
            match self.real.read(&mut bytes[read..]).unwrap() {
                0 => break,
                more => read += more,
            }
        }
        bytes.truncate(read);
        bytes
    }

    fn real_write(&mut self, offset: u64, bytes: &[u8]) {
        self.real.seek(SeekFrom::Start(offset)).unwrap();
        self.real.write_all(bytes).unwrap();
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    async fn read(&mut self, offset: u64, length: usize, what: &str) {
        let mut bytes = vec![0xaa; length];
        let read = self.file.read_at(offset, &mut bytes).await.unwrap();
        assert!(
            bytes[..read] == self.real_bytes(offset, length),
            "{what}: bytes {offset} to {}",
            offset + length as u64
        );
        assert_eq!(self.file.len().await.unwrap(), self.size, "{what}");
    }

    /// Holes read as zeros, and data and holes cover the file in turn.
    async fn map(&mut self, what: &str) {
        let mut at = 0;
        while at < self.size {
            let data = self.file.seek_data(at).await.unwrap().unwrap_or(self.size);
            let hole = self.real_bytes(at, (data - at) as usize);
            assert!(hole.iter().all(|&byte| byte == 0), "{what}: data in a hole at {at}");
            if data == self.size {
                break;
            }
            at = self.file.seek_hole(data).await.unwrap().unwrap();
            assert!(at > data && at <= self.size, "{what}");
        }
    }
}

async fn open(fs: &FileSystem) -> File {
    fs.open_file("f", OpenOptions::new().write(true).create(true)).await.unwrap()
}

#[test]
fn a_file_under_random_operations_equals_a_real_one() {
    block_on(run(SMALL));
}

#[test]
fn a_large_file_under_random_operations_equals_a_real_one() {
    block_on(run(LARGE));
}

async fn run(shape: Shape) {
    let Shape { block_bytes, bytes_max, lengths, .. } = shape;
    let seed = number("STRONGROOM_SEED").unwrap_or(1);
    let operations =
        number("STRONGROOM_FSX").map_or_else(|| super::medium::cases(shape.operations).into(), |all| all / shape.share);
    let mut dice = Dice::new(seed);
    let (mut bed, mut fs) = Bed::new(block_bytes).await;
    let mut pair = Pair { real: tempfile::tempfile().unwrap(), file: open(&fs).await, size: 0 };
    for operation in 0..operations {
        let offset = dice.below(bytes_max);
        let longest = lengths[dice.below(3) as usize];
        let length = dice.below(longest).min(bytes_max - offset) as usize;
        let kind = dice.below(1_000);
        let what = format!("seed {seed}, operation {operation}, kind {kind}");
        match kind {
            0..400 => pair.read(offset, length, &what).await,
            400..600 => {
                let bytes = noise(dice.roll(), length);
                pair.file.write_at(offset, &bytes).await.unwrap();
                if length > 0 {
                    pair.real_write(offset, &bytes);
                }
            }
            600..700 => {
                let bytes = noise(dice.roll(), length.min((bytes_max - pair.size.min(bytes_max)) as usize));
                assert_eq!(pair.file.append(&bytes).await.unwrap(), pair.size, "{what}");
                let end = pair.size;
                pair.real_write(end, &bytes);
            }
            700..780 => {
                pair.file.set_len(offset).await.unwrap();
                pair.real.set_len(offset).unwrap();
                let before = std::mem::replace(&mut pair.size, offset);
                if before < offset {
                    // Lengthened over: a hole from the old end on, or from before it.
                    assert_eq!(pair.file.seek_hole(before).await.unwrap(), Some(before), "{what}");
                    assert_eq!(pair.file.seek_data(before).await.unwrap(), None, "{what}");
                }
            }
            780..850 => pair.map(&what).await,
            850..960 => pair.file.flush().await.unwrap(),
            960..970 => {
                pair.file.flush().await.unwrap();
                fs.punch_hole("f", offset, length as u64).await.unwrap();
                let end = (offset + length as u64).min(pair.size);
                if offset < end {
                    pair.real_write(offset, &vec![0; (end - offset) as usize]);
                    // A hole to the byte, wherever chunks are cut.
                    assert_eq!(pair.file.seek_hole(offset).await.unwrap(), Some(offset), "{what}");
                    let data = pair.file.seek_data(offset).await.unwrap();
                    assert!(data.is_none_or(|data| data >= end), "{what}: data at {data:?} in {offset}..{end}");
                }
            }
            970..980 => {
                pair.file.flush().await.unwrap();
                let from = dice.below(bytes_max);
                let wanted = (length as u64).min(from.abs_diff(offset));
                let copied = fs.copy_range("f", from, "f", offset, wanted).await.unwrap();
                let bytes = pair.real_bytes(from, wanted as usize);
                assert_eq!(bytes.len() as u64, copied, "{what}");
                if copied > 0 {
                    pair.real_write(offset, &bytes);
                }
            }
            980..995 => {
                let other = open(&fs).await;
                std::mem::replace(&mut pair.file, other).close().await.unwrap();
            }
            995..998 => {
                pair.file.flush().await.unwrap();
                fs.engine().checkpoint().await.unwrap();
            }
            _ => {
                pair.file.flush().await.unwrap();
                bed.storage.crash(dice.roll());
                fs = bed.open().await.unwrap();
                pair.file = open(&fs).await;
            }
        }
    }
    pair.read(0, bytes_max as usize, "at the end").await;
    pair.map("at the end").await;
    pair.file.close().await.unwrap();
    assert_sound(&fs).await;
}
