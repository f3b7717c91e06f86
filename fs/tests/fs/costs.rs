//! What work costs where files and repositories are small, and where they are sixteen times larger: counted in what goes to
//! the storage, on content that neither compresses nor repeats.

use std::sync::Arc;

use futures_lite::future::block_on;
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_core::crypto::{KdfParameters, RootSecret, Suite};
use strongroom_core::engine::keyring::Credentials;
use strongroom_core::engine::{self, CreateOptions, Engine, Tuning, Unlock};
use strongroom_core::env::Env;
use strongroom_core::layer::{Metrics, MetricsSnapshot};
use strongroom_core::storage::Operation;
use strongroom_fs::{Attributes, Error, FileSystem, OpenOptions, Options};

use crate::support::at_once;

/// Every blob has so many bytes, commits too; chunks are half as long on average.
const BLOCK_BYTES: u64 = 32 << 10;
const MIB: usize = 1 << 20;

/// A repository whose requests are counted.
struct Counted {
    medium: CrashingStorage,
    metrics: Metrics,
    root: RootSecret,
    fs: FileSystem,
}

impl Counted {
    async fn new() -> Self {
        Self::over(CrashOptions::default()).await
    }

    async fn over(options: CrashOptions) -> Self {
        let medium = CrashingStorage::new(CrashOptions { yields: false, ..options });
        let metrics = Metrics::new();
        let credentials = Credentials::password("correct horse");
        let create = CreateOptions {
            credentials: &credentials,
            recovery: None,
            suite: Suite::Aes256Gcm,
            block_bytes: u32::try_from(BLOCK_BYTES).unwrap(),
            kdf: KdfParameters::MINIMUM,
            trusted: None,
            tuning: Tuning::default(),
        };
        let storage = Arc::new(metrics.over(Arc::new(medium.another())));
        let engine = Engine::create(storage, Env::deterministic(1), create).await.unwrap();
        let root = engine.root_secret();
        let fs = FileSystem::create(engine, Options::default()).await.unwrap();
        Self { medium, metrics, root, fs }
    }

    /// With one file `f`, in the trees and in no cache.
    async fn with_file(bytes: usize) -> Self {
        let counted = Self::new().await;
        counted.fs.write("f", random(1, bytes)).await.unwrap();
        counted.cold().await
    }

    /// Opened again, and ready to commit.
    async fn cold(self) -> Self {
        self.cold_with(Env::deterministic(2), strongroom_fs::Tuning::default()).await
    }

    async fn cold_with(self, env: Env, tuning: strongroom_fs::Tuning) -> Self {
        let Self { medium, metrics, root, fs } = self;
        fs.engine().checkpoint().await.unwrap();
        fs.engine().close().await.unwrap();
        drop(fs);
        let storage = Arc::new(metrics.over(Arc::new(medium.reopen())));
        let open = engine::OpenOptions::new(Unlock::Root(&root));
        let fs = FileSystem::open_with(Engine::open(storage, env, open).await.unwrap(), tuning).await.unwrap();
        // The first commit claims an epoch, whatever it is of.
        fs.create_dir("warm").await.unwrap();
        Self { medium, metrics, root, fs }
    }

    async fn cost<T>(&self, work: impl Future<Output = Result<T, Error>>) -> MetricsSnapshot {
        let before = self.metrics.snapshot();
        work.await.unwrap();
        self.metrics.snapshot().since(&before)
    }

    /// Chunks, and the bytes in them.
    async fn stored(&self) -> (u64, u64) {
        let info = self.fs.engine().info().await.unwrap();
        (info.chunks, info.chunk_bytes)
    }
}

fn random(seed: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    Env::deterministic(seed).fill_random(&mut content).unwrap();
    content
}

/// What the rows of so many extents and chunks may take in a commit, in bytes of whole blocks.
fn rows_bytes_max(chunks: u64) -> u64 {
    (chunks * 256).next_multiple_of(BLOCK_BYTES) + 3 * BLOCK_BYTES
}

#[test]
fn a_copy_sends_and_reads_rows_and_none_of_the_content() {
    block_on(async {
        for mib in [1, 16] {
            let counted = Counted::with_file(mib * MIB).await;
            let stored = counted.stored().await;
            let cost = counted.cost(counted.fs.copy("f", "g")).await;
            let (sent, read) = (cost.uploaded_bytes(), cost.downloaded_bytes());
            println!("copy of {mib} MiB in {} chunks: {sent} bytes sent, {read} read", stored.0);
            let rows_bytes = rows_bytes_max(stored.0);
            assert!(rows_bytes * 4 < (mib * MIB) as u64, "{rows_bytes} bytes would be no small part of the content");
            assert!(sent <= rows_bytes && read <= rows_bytes, "{mib} MiB: {cost}");
            assert_eq!(counted.stored().await, stored);
        }
    });
}

#[test]
fn a_copy_of_as_many_extents_costs_the_same_however_long_they_are() {
    block_on(async {
        let mut costs = Vec::new();
        for spacing in [16 << 10, 256 << 10] {
            let counted = Counted::new().await;
            let file = counted.fs.open_file("f", OpenOptions::new().write(true).create(true)).await.unwrap();
            for island in 0..64 {
                file.write_at(island * spacing, &random(island, 4096)).await.unwrap();
            }
            file.close().await.unwrap();
            let counted = counted.cold().await;
            costs.push(counted.cost(counted.fs.copy("f", "g")).await);
        }
        println!("copy of 64 islands: {}", costs[0]);
        assert_eq!(costs[0], costs[1]);
    });
}

#[test]
fn what_is_fetched_ahead_is_bounded_though_the_file_has_little_left_of_each_chunk() {
    const LEFT: u64 = 1 << 10;
    const SPACING: u64 = 64 << 10;
    block_on(async {
        let counted = Counted::new().await;
        counted
            .fs
            .transact(async |transaction| {
                transaction.write("f", random(1, 16 * MIB)).await?;
                for at in (0..16 * MIB as u64).step_by(SPACING as usize) {
                    transaction.punch_hole("f", at + LEFT, SPACING - LEFT).await?;
                }
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
        let tuning = strongroom_fs::Tuning { read_ahead_bytes: 128 << 10, ..strongroom_fs::Tuning::default() };
        let counted = counted.cold_with(at_once(2), tuning).await;
        let file = counted.fs.open_file("f", OpenOptions::new()).await.unwrap();
        let cost = counted.cost(async {
            let mut piece = [0; 512];
            file.read_exact_at(0, &mut piece).await?;
            file.read_exact_at(512, &mut piece).await
        });
        let cost = cost.await;
        println!("1 KiB of every 64 KiB, two reads: {cost}");
        // Eight chunks of average length, and what is read; of the longest, four times that.
        assert!(cost.downloaded_bytes() <= 9 * 4 * (BLOCK_BYTES / 2) + 8 * BLOCK_BYTES, "{cost}");
        assert!(cost.downloaded_bytes() >= 4 * (BLOCK_BYTES / 2), "nothing is fetched ahead: {cost}");
    });
}

/// A file of 4 MiB over a network, opened again, with the workers that reading ahead takes.
async fn remote() -> (Counted, Vec<u8>) {
    remote_with(strongroom_fs::Tuning::default()).await
}

async fn remote_with(tuning: strongroom_fs::Tuning) -> (Counted, Vec<u8>) {
    let counted = Counted::over(CrashOptions::object_store()).await;
    let content = random(1, 4 * MIB);
    counted.fs.write("f", &content).await.unwrap();
    (counted.cold_with(at_once(2), tuning).await, content)
}

#[test]
fn over_a_network_a_file_is_read_in_order_by_little_more_than_a_request_a_block() {
    block_on(async {
        for piece_bytes in [512, 64 << 10, 4 * MIB] {
            let (counted, content) = remote().await;
            let file = counted.fs.open_file("f", OpenOptions::new()).await.unwrap();
            let cost = counted.cost(async {
                let (mut piece, mut rest) = (vec![0; piece_bytes], content.as_slice());
                while !rest.is_empty() {
                    let read = file.read_at((content.len() - rest.len()) as u64, &mut piece).await?;
                    assert!(piece[..read] == rest[..read]);
                    rest = &rest[read..];
                }
                Ok(())
            });
            let cost = cost.await;
            let requests = cost.of(Operation::Get).calls;
            println!("4 MiB in pieces of {piece_bytes} bytes: {requests} requests, {cost}");
            let blocks = content.len() as u64 / BLOCK_BYTES;
            // A part of a block where a batch ends in it; and the rows.
            assert!(requests <= blocks * 5 / 4 + 16, "{requests} requests for {blocks} blocks");
            assert!(cost.downloaded_bytes() <= content.len() as u64 * 5 / 4, "{cost}");
        }
    });
}

#[test]
fn over_a_network_who_reads_only_the_beginning_has_little_fetched_ahead() {
    block_on(async {
        let (counted, _) = remote().await;
        let file = counted.fs.open_file("f", OpenOptions::new()).await.unwrap();
        let cost = counted.cost(async {
            let mut piece = [0; 512];
            file.read_exact_at(0, &mut piece).await?;
            file.read_exact_at(512, &mut piece).await
        });
        let cost = cost.await;
        println!("the first KiB over a network: {cost}");
        // 1 MiB, the chunk across its end, and the rows.
        assert!(cost.downloaded_bytes() <= MIB as u64 + 6 * BLOCK_BYTES, "{cost}");
        assert!(cost.downloaded_bytes() >= MIB as u64 / 2, "nothing is fetched ahead: {cost}");
        let cost = counted.cost(async { file.read_exact_at(3 << 20, &mut [0; 512]).await });
        assert!(cost.await.downloaded_bytes() <= 5 * BLOCK_BYTES, "a jump has nothing fetched ahead");
    });
}

#[test]
fn over_a_network_no_more_is_held_ahead_than_is_stated() {
    const WINDOW: u64 = 8 * (64 << 10);
    block_on(async {
        let tuning = strongroom_fs::Tuning { read_ahead_bytes: WINDOW / 8, ..strongroom_fs::Tuning::default() };
        let (counted, content) = remote_with(tuning).await;
        let file = counted.fs.open_file("f", OpenOptions::new()).await.unwrap();
        let before = counted.metrics.snapshot();
        let (mut piece, mut most) = ([0; 4096], 0);
        for offset in (0..content.len() as u64).step_by(piece.len()) {
            file.read_exact_at(offset, &mut piece).await.unwrap();
            assert!(piece == content[offset as usize..][..4096]);
            // What is asked for is there at once here. Rows, seals, and parts of blocks that were asked for twice are an eighth.
            let fetched = counted.metrics.snapshot().since(&before).downloaded_bytes();
            let ahead = fetched.saturating_sub(offset * 9 / 8);
            assert!(ahead <= WINDOW + 4 * BLOCK_BYTES, "{ahead} bytes ahead of {offset}");
            most = most.max(ahead);
        }
        assert!(most >= WINDOW / 2, "nothing is fetched ahead: {most}");
    });
}

#[test]
fn over_a_network_damage_loses_what_is_damaged_and_nothing_that_is_fetched_with_it() {
    block_on(async {
        let (counted, content) = remote().await;
        let before = counted.medium.snapshot_blobs();
        let mut lost = 0;
        // Whichever block it is in, a flipped bit costs the chunks of that record.
        for (number, (name, blob)) in before.iter().enumerate().filter(|(number, _)| number % 16 == 0) {
            let mut flipped = blob.to_vec();
            flipped[1_000 + 777 * (number % 32)] ^= 1;
            counted.medium.overwrite(*name, flipped.into());
            counted.fs.drop_caches();
            let file = counted.fs.open_file("f", OpenOptions::new()).await.unwrap();
            let mut damaged_bytes = 0;
            for (index, right) in content.chunks(4096).enumerate() {
                let mut piece = vec![0; right.len()];
                match file.read_exact_at(index as u64 * 4096, &mut piece).await {
                    Ok(()) => assert!(piece == right),
                    Err(Error::Core(strongroom_core::Error::Damaged(_))) => damaged_bytes += right.len(),
                    Err(error) => panic!("{error}"),
                }
            }
            // One chunk of at most two blocks.
            assert!(damaged_bytes <= 2 * BLOCK_BYTES as usize + 4096, "{damaged_bytes} bytes are lost");
            lost += usize::from(damaged_bytes > 0);
            counted.medium.overwrite(*name, blob.clone());
        }
        assert!(lost > 0, "no block of the file was damaged");
    });
}

#[test]
fn writing_into_a_file_costs_the_same_whatever_its_length() {
    const WRITES: u64 = 16;
    block_on(async {
        let mut sent = Vec::new();
        for mib in [4, 64] {
            let counted = Counted::with_file(mib * MIB).await;
            let mut dice = Dice::new(1);
            let cost = counted.cost(async {
                let file = counted.fs.open_file("f", OpenOptions::new().write(true)).await?;
                for write in 0..WRITES {
                    file.write_at(dice.below((mib * MIB) as u64 - 4096), &random(100 + write, 4096)).await?;
                }
                file.close().await
            });
            let cost = cost.await;
            println!("{WRITES} writes of 4 KiB into {mib} MiB: {cost}");
            sent.push(cost.uploaded_bytes());
        }
        // The chunk that is written into, of half a block on average, and sometimes the one after it.
        assert!(sent[1] <= WRITES * 2 * BLOCK_BYTES, "{sent:?}");
        assert!(sent[0].abs_diff(sent[1]) <= sent[1] / 4, "{sent:?}");
    });
}

#[test]
fn appending_costs_the_same_whatever_is_there() {
    block_on(async {
        let mut sent = Vec::new();
        for mib in [1, 16] {
            let counted = Counted::with_file(mib * MIB).await;
            let cost = counted.cost(async {
                let file = counted.fs.open_file("f", OpenOptions::new().write(true)).await?;
                file.append(&random(2, 1024)).await?;
                file.close().await
            });
            let cost = cost.await;
            println!("1 KiB after {mib} MiB: {cost}");
            sent.push(cost.uploaded_bytes());
        }
        // The commit, and what is cut anew with it: the last chunk, of two blocks at most.
        assert!(sent.iter().all(|&sent| sent <= 4 * BLOCK_BYTES), "{sent:?}");
        assert!(sent[0].abs_diff(sent[1]) <= 2 * BLOCK_BYTES, "{sent:?}");
    });
}

#[test]
fn a_snapshot_costs_what_changed_whatever_is_there() {
    block_on(async {
        let mut sent = Vec::new();
        for files in [64, 1024] {
            let counted = Counted::new().await;
            counted
                .fs
                .transact(async |transaction| {
                    for file in 0..files {
                        transaction.write(format!("{file}"), random(file, 12 << 10)).await?;
                    }
                    Ok::<_, Error>(())
                })
                .await
                .unwrap();
            let counted = counted.cold().await;
            counted.fs.write("changed", b"a little").await.unwrap();
            let cost = counted.cost(async { Ok(counted.fs.engine().create_snapshot("kept").await?) }).await;
            println!("a snapshot beside {files} files: {cost}");
            sent.push(cost.uploaded_bytes());
        }
        // The commit, the hint to it, and a path of each tree.
        assert!(sent.iter().all(|&sent| sent <= 8 * BLOCK_BYTES), "{sent:?}");
        assert!(sent[0].abs_diff(sent[1]) <= 2 * BLOCK_BYTES, "{sent:?}");
    });
}

#[test]
fn what_is_there_already_is_stored_again_by_its_rows_alone() {
    block_on(async {
        let counted = Counted::with_file(16 * MIB).await;
        let stored = counted.stored().await;
        let cost = counted.cost(counted.fs.write("again", random(1, 16 * MIB))).await;
        println!("16 MiB in {} chunks that are there: {cost}", stored.0);
        // No chunk is sealed and none is sent: they are as many as before, and what is sent has no place for them.
        assert_eq!(counted.stored().await, stored);
        assert!(cost.uploaded_bytes() <= rows_bytes_max(stored.0), "{cost}");
        assert!(cost.uploaded_bytes() * 25 <= stored.1 && cost.downloaded_bytes() * 8 <= stored.1, "{cost}");
        assert!(counted.fs.read("again").await.unwrap() == random(1, 16 * MIB));
    });
}

#[test]
fn a_second_identical_file_costs_rows_whatever_its_length_and_however_it_comes() {
    block_on(async {
        for kib in [4, 64, 1 << 10, 16 << 10] {
            let content = random(1, kib << 10);
            let counted = Counted::with_file(content.len()).await;
            let stored = counted.stored().await;
            // In pieces that no chunk ends with, so that nothing can know that it is the same file before it is read.
            let cost = counted.cost(counted.fs.transact(async |transaction| {
                let mut writer = transaction.write_file("again", Attributes::file()).await?;
                for piece in content.chunks(1_000) {
                    writer.write(piece).await?;
                }
                writer.finish().await
            }));
            let cost = cost.await;
            let sent = cost.uploaded_bytes();
            println!(
                "{kib} KiB in {} chunks that are there: {sent} bytes sent, {} read",
                stored.0,
                cost.downloaded_bytes()
            );
            assert_eq!(counted.stored().await, stored);
            assert!(sent <= rows_bytes_max(stored.0), "{kib} KiB: {cost}");
            assert!(counted.fs.read("again").await.unwrap() == content);
        }
    });
}
