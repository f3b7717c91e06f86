//! Versions of files: what is kept, read, compared, restored and given up.

use std::collections::BTreeMap;
use std::ops::Range;

use futures_lite::future::block_on;
use proptest::prelude::*;
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::engine::{ChunkNumber, Table};
use strongroom_core::env::Env;
use strongroom_fs::format::{CONTENT, ContentRow, Extent, PAST, VERSION, VersionRow, Versions};
use strongroom_fs::{
    Attributes, CheckOptions, Error, FileSystem, FsTransaction, OpenOptions, Options, VERSIONS_MAX, Version,
};

use crate::support::{Bed, assert_sound, noise};

fn keeping(versions: u32) -> Options {
    Options { versions, ..Options::default() }
}

async fn bed(versions: u32) -> (Bed, FileSystem) {
    let crash = CrashOptions { yields: false, ..CrashOptions::default() };
    Bed::with(1, 16 << 10, keeping(versions), crash, Env::deterministic).await
}

async fn numbers(fs: &FileSystem, path: &str) -> Vec<u64> {
    fs.history(path).await.unwrap().iter().map(|version| version.number).collect()
}

async fn rows(fs: &FileSystem, table: Table) -> usize {
    use std::ops::Bound::Unbounded;
    use strongroom_core::engine::{Direction, View as _};
    let snapshot = fs.engine().snapshot();
    let mut scan = snapshot.scan(table, (Unbounded, Unbounded), Direction::Ascending);
    let mut count = 0;
    while scan.next().await.unwrap().is_some() {
        count += 1;
    }
    count
}

fn only(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

fn kinds_of(error: &Error) -> &'static str {
    match error {
        Error::NoSuchVersion { .. } => "no such version",
        Error::IsADirectory { .. } => "is a directory",
        Error::NotFound { .. } => "not found",
        Error::Core(strongroom_core::Error::LimitExceeded { .. }) => "limit",
        _ => "other",
    }
}

#[test]
fn every_commit_of_content_is_a_version_that_can_be_read() {
    block_on(async {
        let (mut bed, fs) = bed(10).await;
        let mut contents = vec![noise(1, 100_000)];
        fs.write("f", &contents[0]).await.unwrap();
        // A handle that overwrites, appends and leaves a hole, at one stroke.
        let mut next = contents[0].clone();
        next[40_000..40_500].copy_from_slice(&noise(2, 500));
        next.resize(120_000, 0);
        next.extend_from_slice(&noise(3, 30_000));
        let file = fs.open_file("f", OpenOptions::new().write(true)).await.unwrap();
        file.write_at(40_000, &noise(2, 500)).await.unwrap();
        file.write_at(120_000, &noise(3, 30_000)).await.unwrap();
        file.close().await.unwrap();
        contents.push(next.clone());
        // Shortened, lengthened with zeros, written anew, emptied.
        next.truncate(30_001);
        fs.set_len("f", 30_001).await.unwrap();
        contents.push(next.clone());
        next.resize(200_000, 0);
        fs.set_len("f", 200_000).await.unwrap();
        contents.push(next);
        fs.write("f", noise(4, 70_000)).await.unwrap();
        contents.push(noise(4, 70_000));
        fs.set_len("f", 0).await.unwrap();
        contents.push(Vec::new());
        drop(fs);
        let fs = bed.open().await.unwrap();

        let history = fs.history("f").await.unwrap();
        assert_eq!(history.len(), contents.len());
        for (index, (version, content)) in history.iter().zip(&contents).enumerate() {
            assert_eq!((version.number, version.size), (index as u64 + 1, content.len() as u64));
            assert_eq!(version.current, index + 1 == contents.len());
            assert!(&fs.read_version("f", version.number).await.unwrap() == content, "version {}", version.number);
            let file = fs.open_version("f", version.number).await.unwrap();
            assert_eq!(file.metadata().await.unwrap().size, version.size);
            for offset in [0, 29_999, 39_999, 119_000, 149_999] {
                let mut out = vec![0; 2_000];
                let read = file.read_at(offset as u64, &mut out).await.unwrap();
                let expected = content.get(offset..).unwrap_or_default();
                assert!(out[..read] == expected[..expected.len().min(2_000)], "version {index} at {offset}");
            }
            assert!(matches!(file.write_at(0, b"x").await, Err(Error::WrongAccess { .. })));
        }
        assert!(history.windows(2).all(|pair| pair[0].time < pair[1].time));
        assert_eq!(fs.metadata("f").await.unwrap().versions, 5);
        assert_sound(&fs).await;
    });
}

#[test]
fn without_a_limit_nothing_is_kept_and_no_row_is_written() {
    block_on(async {
        let (_bed, fs) = bed(0).await;
        for seed in 0..4 {
            fs.write("f", noise(seed, 50_000)).await.unwrap();
            fs.set_len("f", 20_000).await.unwrap();
        }
        assert_eq!(numbers(&fs, "f").await, [1]);
        assert_eq!((rows(&fs, VERSION).await, rows(&fs, PAST).await), (0, 0));
        let inode = fs.metadata("f").await.unwrap().inode;
        use strongroom_core::engine::View as _;
        let row = fs.engine().snapshot().get(CONTENT, &inode.to_be_bytes()).await.unwrap().unwrap();
        assert_eq!(row.len(), 16);
        assert_eq!(kinds_of(&fs.read_version("f", 2).await.unwrap_err()), "no such version");
    });
}

#[test]
fn the_oldest_versions_over_the_limit_go_and_their_chunks_with_them() {
    block_on(async {
        let (_bed, fs) = bed(2).await;
        for seed in 1..=6 {
            fs.write("f", noise(seed, 60_000)).await.unwrap();
        }
        assert_eq!(numbers(&fs, "f").await, [4, 5, 6]);
        for seed in 4..=6 {
            assert!(fs.read_version("f", seed).await.unwrap() == noise(seed, 60_000));
        }
        let error = fs.read_version("f", 3).await.unwrap_err();
        assert_eq!(error.to_string(), "f: has no version 3, only 4 to 6");
        assert_sound(&fs).await;
        // As many chunks as a repository that never held the older ones.
        let (_other, fresh) = bed(2).await;
        for seed in 4..=6 {
            fresh.write("f", noise(seed, 60_000)).await.unwrap();
        }
        let chunks = async |fs: &FileSystem| fs.engine().info().await.unwrap().chunks;
        assert_eq!(chunks(&fs).await, chunks(&fresh).await);
        fs.remove_file("f").await.unwrap();
        assert_eq!(chunks(&fs).await, 0);
        assert_eq!((rows(&fs, VERSION).await, rows(&fs, PAST).await), (0, 0));
        assert_sound(&fs).await;
    });
}

#[test]
fn a_file_may_have_a_limit_of_its_own_or_none() {
    block_on(async {
        let (_bed, fs) = bed(2).await;
        let options = OpenOptions::new().write(true).create(true);
        fs.open_file("many", options.versions(5)).await.unwrap();
        fs.open_file("none", options.versions(0)).await.unwrap();
        fs.open_file("default", options).await.unwrap();
        for seed in 0..8 {
            for path in ["many", "none", "default"] {
                fs.write(path, noise(seed, 5_000)).await.unwrap();
            }
        }
        assert_eq!(numbers(&fs, "many").await, [4, 5, 6, 7, 8, 9]);
        assert_eq!(numbers(&fs, "none").await, [9]);
        assert_eq!(numbers(&fs, "default").await, [7, 8, 9]);
        assert_eq!(fs.version_limit("many").await.unwrap(), Some(5));
        assert_eq!(fs.version_limit("default").await.unwrap(), None);
        // A lower limit takes effect with the next change, or when asked for.
        fs.set_version_limit("many", Some(3)).await.unwrap();
        assert_eq!(numbers(&fs, "many").await.len(), 6);
        fs.prune_versions("many").await.unwrap();
        assert_eq!(numbers(&fs, "many").await, [6, 7, 8, 9]);
        fs.set_version_limit("many", Some(1)).await.unwrap();
        fs.set_len("many", 3).await.unwrap();
        assert_eq!(numbers(&fs, "many").await, [9, 10]);
        fs.set_version_limit("many", Some(0)).await.unwrap();
        fs.set_len("many", 2).await.unwrap();
        assert_eq!(numbers(&fs, "many").await, [11]);
        fs.set_version_limit("none", None).await.unwrap();
        fs.set_len("none", 2).await.unwrap();
        assert_eq!(numbers(&fs, "none").await, [9, 10]);
        assert_eq!(kinds_of(&fs.set_version_limit("none", Some(VERSIONS_MAX + 1)).await.unwrap_err()), "limit");
        assert_sound(&fs).await;
    });
}

#[test]
fn a_limit_that_is_set_meanwhile_loses_nothing_that_handles_wrote() {
    block_on(async {
        let (_bed, fs) = bed(3).await;
        for seed in 1..=3 {
            fs.write("f", noise(seed, 30_000)).await.unwrap();
        }
        let file = fs.open_file("f", OpenOptions::new().write(true)).await.unwrap();
        file.write_at(0, &noise(4, 20_000)).await.unwrap();
        fs.set_version_limit("f", Some(1)).await.unwrap();
        fs.prune_versions("f").await.unwrap();
        let other = fs.open_file("f", OpenOptions::new().write(true).versions(2)).await.unwrap();
        other.append(&noise(5, 10)).await.unwrap();
        file.flush().await.unwrap();
        let mut expected = noise(3, 30_000);
        expected[..20_000].copy_from_slice(&noise(4, 20_000));
        expected.extend(noise(5, 10));
        assert!(fs.read("f").await.unwrap() == expected);
        assert_eq!(numbers(&fs, "f").await, [2, 3, 4]);
        for seed in [2, 3] {
            assert!(fs.read_version("f", seed).await.unwrap() == noise(seed, 30_000));
        }
        assert_sound(&fs).await;
        // To none, and emptied by one more handle.
        file.append(b"more").await.unwrap();
        fs.set_version_limit("f", Some(0)).await.unwrap();
        fs.open_file("f", OpenOptions::new().write(true).truncate(true)).await.unwrap();
        assert_eq!(fs.read("f").await.unwrap(), b"");
        assert_eq!(numbers(&fs, "f").await, [5]);
        assert_sound(&fs).await;
    });
}

#[test]
fn a_repository_can_keep_none_and_one_file_some() {
    block_on(async {
        let (_bed, fs) = bed(0).await;
        fs.write("f", noise(1, 30_000)).await.unwrap();
        fs.write("f", noise(2, 30_000)).await.unwrap();
        fs.set_version_limit("f", Some(3)).await.unwrap();
        fs.write("f", noise(3, 30_000)).await.unwrap();
        assert_eq!(numbers(&fs, "f").await, [1, 2]);
        assert!(fs.read_version("f", 1).await.unwrap() == noise(2, 30_000));
        fs.set_version_limit("f", None).await.unwrap();
        fs.prune_versions("f").await.unwrap();
        assert_eq!(numbers(&fs, "f").await, [2]);
        assert_sound(&fs).await;
    });
}

#[test]
fn a_repository_that_keeps_too_many_is_not_made() {
    block_on(async {
        let (_bed, fs) = bed(0).await;
        let mut transaction = fs.engine().begin();
        let refused = FileSystem::fill(fs.engine(), &mut transaction, keeping(VERSIONS_MAX + 1)).await;
        assert_eq!(kinds_of(&refused.unwrap_err()), "limit");
    });
}

#[test]
fn all_writes_of_one_transaction_are_one_version() {
    block_on(async {
        let (_bed, fs) = bed(5).await;
        fs.transact(async |transaction| {
            transaction.write("f", noise(1, 50_000)).await?;
            transaction.write_at("f", 10_000, noise(2, 10)).await?;
            transaction.set_len("f", 60_000).await
        })
        .await
        .unwrap();
        assert_eq!(numbers(&fs, "f").await, [1]);
        let first = fs.read("f").await.unwrap();
        fs.transact(async |transaction| {
            transaction.set_len("f", 20_000).await?;
            transaction.write_at("f", 15_000, noise(3, 20_000)).await?;
            transaction.write_at("f", 16_000, noise(4, 20)).await?;
            let mut writer = transaction.write_file("f", Attributes::file()).await?;
            writer.write(&noise(5, 10_000)).await?;
            writer.hole(5_000).await?;
            writer.finish().await?;
            transaction.write_at("f", 100, noise(6, 50)).await
        })
        .await
        .unwrap();
        assert_eq!(numbers(&fs, "f").await, [1, 2]);
        assert!(fs.read_version("f", 1).await.unwrap() == first);
        assert_eq!(fs.read_version("f", 2).await.unwrap(), fs.read("f").await.unwrap());
        assert_sound(&fs).await;
    });
}

#[test]
fn limits_may_change_between_the_writes_of_a_transaction() {
    block_on(async {
        for (before, within, kept) in [(3, Some(0), 0), (3, None, 2), (0, Some(3), 0), (0, None, 0)] {
            for prune in [false, true] {
                let (_bed, fs) = bed(2).await;
                fs.write("f", noise(1, 30_000)).await.unwrap();
                fs.set_version_limit("f", Some(before)).await.unwrap();
                for seed in [2, 3] {
                    fs.write("f", noise(seed, 30_000)).await.unwrap();
                }
                fs.transact(async |transaction| {
                    transaction.write_at("f", 10_000, noise(4, 30)).await?;
                    transaction.set_version_limit("f", within).await?;
                    if prune {
                        transaction.prune_versions("f").await?;
                    }
                    transaction.write_at("f", 15_000, noise(5, 30)).await?;
                    transaction.set_len("f", 29_000).await?;
                    transaction.write("f", noise(6, 100)).await
                })
                .await
                .unwrap();
                let numbers = numbers(&fs, "f").await;
                assert_eq!(numbers.len(), kept + 1, "{before} {within:?} {prune}");
                for (number, seed) in numbers.iter().rev().zip([6, 3, 2, 1]) {
                    let length = if seed == 6 { 100 } else { 30_000 };
                    assert!(fs.read_version("f", *number).await.unwrap() == noise(seed, length));
                }
                assert_sound(&fs).await;
            }
        }
    });
}

#[test]
fn every_one_of_many_writers_makes_one_version() {
    let (_bed, fs) = block_on(Bed::threaded(16 << 10, keeping(100)));
    block_on(fs.write("f", b"")).unwrap();
    let barrier = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let (fs, barrier) = (fs.clone(), &barrier);
            scope.spawn(move || {
                barrier.wait();
                for _ in 0..10 {
                    let append = fs.transact(async |transaction| {
                        let size = transaction.metadata("f").await?.size;
                        transaction.write_at("f", size, [writer; 300]).await
                    });
                    block_on(append).unwrap();
                }
            });
        }
    });
    block_on(async {
        let last = fs.read("f").await.unwrap();
        assert_eq!(last.len(), 40 * 300);
        assert_eq!(numbers(&fs, "f").await, (1..=41).collect::<Vec<_>>());
        for number in 1..=41 {
            assert!(fs.read_version("f", number).await.unwrap() == last[..(number as usize - 1) * 300]);
        }
        assert_sound(&fs).await;
    });
}

#[test]
fn what_changes_no_content_makes_no_version() {
    block_on(async {
        let (_bed, fs) = bed(5).await;
        fs.write("f", noise(1, 5_000)).await.unwrap();
        fs.set_mode("f", 0o600).await.unwrap();
        fs.set_len("f", 5_000).await.unwrap();
        fs.rename("f", "g").await.unwrap();
        fs.hard_link("g", "h").await.unwrap();
        let file = fs.open_file("g", OpenOptions::new().write(true)).await.unwrap();
        file.write_at(100, b"").await.unwrap();
        file.close().await.unwrap();
        fs.restore_version("g", 1).await.unwrap();
        assert_eq!(numbers(&fs, "h").await, [1]);
    });
}

#[test]
fn versions_belong_to_the_file_and_not_to_a_name() {
    block_on(async {
        let (_bed, fs) = bed(5).await;
        fs.write("f", noise(1, 5_000)).await.unwrap();
        fs.write("f", noise(2, 5_000)).await.unwrap();
        fs.hard_link("f", "link").await.unwrap();
        fs.create_dir("d").await.unwrap();
        fs.rename("f", "d/moved").await.unwrap();
        fs.write("link", noise(3, 5_000)).await.unwrap();
        assert_eq!(numbers(&fs, "d/moved").await, [1, 2, 3]);
        fs.remove_file("link").await.unwrap();
        assert!(fs.read_version("d/moved", 1).await.unwrap() == noise(1, 5_000));
        // In its place a file with no past.
        fs.write("other", b"other").await.unwrap();
        fs.rename("other", "d/moved").await.unwrap();
        assert_eq!(numbers(&fs, "d/moved").await, [1]);
        assert_eq!(rows(&fs, VERSION).await, 0);
        assert_sound(&fs).await;
    });
}

#[test]
fn restoring_is_a_new_version_that_stores_nothing() {
    block_on(async {
        let (_bed, fs) = bed(10).await;
        let mut contents = vec![noise(1, 300_000)];
        fs.write("f", &contents[0]).await.unwrap();
        let file = fs.open_file("f", OpenOptions::new().write(true)).await.unwrap();
        file.write_at(150_000, &noise(2, 3_000)).await.unwrap();
        file.set_len(250_000).await.unwrap();
        file.close().await.unwrap();
        contents.push(fs.read("f").await.unwrap());
        fs.write("f", noise(3, 90_000)).await.unwrap();
        contents.push(noise(3, 90_000));
        let chunks = fs.engine().info().await.unwrap().chunks;
        for number in [1, 2, 3, 1] {
            fs.restore_version("f", number).await.unwrap();
            assert!(fs.read("f").await.unwrap() == contents[number as usize - 1], "version {number}");
            assert_eq!(fs.engine().info().await.unwrap().chunks, chunks);
            contents.push(contents[number as usize - 1].clone());
            assert_sound(&fs).await;
        }
        for (index, content) in contents.iter().enumerate() {
            assert!(&fs.read_version("f", index as u64 + 1).await.unwrap() == content, "version {}", index + 1);
        }
        assert_eq!(kinds_of(&fs.restore_version("f", 99).await.unwrap_err()), "no such version");
        assert_eq!(kinds_of(&fs.restore_version("/", 1).await.unwrap_err()), "is a directory");
        assert_eq!(kinds_of(&fs.restore_version("absent", 1).await.unwrap_err()), "not found");
        // Within a transaction it sees what the transaction did.
        fs.transact(async |transaction| {
            transaction.write("f", b"for a moment").await?;
            transaction.restore_version("f", 2).await?;
            transaction.write_at("f", 0, b"and more").await
        })
        .await
        .unwrap();
        let mut expected = contents[1].clone();
        expected[..8].copy_from_slice(b"and more");
        assert!(fs.read("f").await.unwrap() == expected);
        assert!(fs.read_version("f", 7).await.unwrap() == contents[6]);
        assert_sound(&fs).await;
    });
}

#[test]
fn two_versions_differ_where_their_extents_do() {
    block_on(async {
        let (_bed, fs) = bed(10).await;
        fs.write("f", noise(1, 2_000_000)).await.unwrap();
        let file = fs.open_file("f", OpenOptions::new().write(true)).await.unwrap();
        file.write_at(1_000_000, &noise(2, 10)).await.unwrap();
        file.flush().await.unwrap();
        file.set_len(2_100_000).await.unwrap();
        file.close().await.unwrap();
        assert_eq!(fs.diff_versions("f", 1, 1).await.unwrap(), []);
        let one = fs.diff_versions("f", 1, 2).await.unwrap();
        let length = |ranges: &[Range<u64>]| ranges.iter().map(|range| range.end - range.start).sum::<u64>();
        assert!(one.len() == 1 && one[0].contains(&1_000_000) && one[0].contains(&1_000_009), "{one:?}");
        assert!(length(&one) < 100_000, "{one:?}");
        assert_eq!(fs.diff_versions("f", 2, 3).await.unwrap(), only(2_000_000..2_100_000));
        assert_eq!(fs.diff_versions("f", 3, 1).await.unwrap(), [one[0].clone(), 2_000_000..2_100_000]);
        // What was restored differs in nothing, though all of it was written in between.
        fs.write("f", noise(7, 2_000_000)).await.unwrap();
        fs.restore_version("f", 1).await.unwrap();
        assert_eq!(fs.diff_versions("f", 1, 5).await.unwrap(), []);
        assert!(length(&fs.diff_versions("f", 4, 5).await.unwrap()) == 2_000_000);
        assert_eq!(kinds_of(&fs.diff_versions("f", 1, 9).await.unwrap_err()), "no such version");
    });
}

#[test]
fn a_version_costs_what_it_changes() {
    block_on(async {
        let (_bed, fs) = bed(100).await;
        fs.write("f", noise(1, 3_000_000)).await.unwrap();
        let chunks = fs.engine().info().await.unwrap().chunks;
        for index in 0..20 {
            let file = fs.open_file("f", OpenOptions::new().write(true)).await.unwrap();
            file.write_at(index * 140_000, &noise(index + 2, 100)).await.unwrap();
            file.close().await.unwrap();
        }
        let info = fs.engine().info().await.unwrap();
        assert!(info.chunks <= chunks + 20 * 4, "{} from {chunks}", info.chunks);
        assert!(rows(&fs, PAST).await <= 20 * 4);
        // Appending replaces a short end at most.
        let before = rows(&fs, PAST).await;
        for index in 0..20 {
            let file = fs.open_file("f", OpenOptions::new().append(true)).await.unwrap();
            file.append(&noise(index, 100)).await.unwrap();
            file.close().await.unwrap();
        }
        assert!(rows(&fs, PAST).await <= before + 20);
        assert_eq!(fs.history("f").await.unwrap().len(), 41);
        assert_sound(&fs).await;
    });
}

#[test]
fn a_handle_on_a_version_outlives_its_eviction() {
    block_on(async {
        let (_bed, fs) = bed(1).await;
        fs.write("f", noise(1, 100_000)).await.unwrap();
        fs.write("f", noise(2, 100_000)).await.unwrap();
        let file = fs.open_version("f", 1).await.unwrap();
        fs.write("f", noise(3, 100_000)).await.unwrap();
        fs.remove_file("f").await.unwrap();
        fs.engine().checkpoint().await.unwrap();
        let mut out = vec![0; 100_000];
        file.read_exact_at(0, &mut out).await.unwrap();
        assert!(out == noise(1, 100_000));
    });
}

#[test]
fn of_two_writers_of_one_file_the_second_gets_a_conflict_and_no_version() {
    block_on(async {
        let (_bed, fs) = bed(5).await;
        fs.write("f", noise(1, 10_000)).await.unwrap();
        let other = fs.open_file("f", OpenOptions::new().append(true)).await.unwrap();
        other.append(b"other").await.unwrap();
        fs.transact(async |transaction| transaction.write_at("f", 0, b"one").await).await.unwrap();
        assert!(other.flush().await.unwrap_err().is_conflict());
        assert_eq!(numbers(&fs, "f").await, [1, 2]);
        // What one gave up costs nobody a number.
        other.append(b"other").await.unwrap();
        other.flush().await.unwrap();
        assert_eq!(numbers(&fs, "f").await, [1, 2, 3]);
        assert!(fs.read("f").await.unwrap().ends_with(b"other"));
        assert_sound(&fs).await;
    });
}

#[test]
fn a_sparse_file_keeps_its_holes_in_every_version() {
    block_on(async {
        let (_bed, fs) = bed(5).await;
        let file = fs.open_file("f", OpenOptions::new().write(true).create(true)).await.unwrap();
        file.set_len(1 << 40).await.unwrap();
        file.flush().await.unwrap();
        file.write_at(1 << 39, b"island").await.unwrap();
        file.flush().await.unwrap();
        file.set_len(1 << 30).await.unwrap();
        file.flush().await.unwrap();
        for (number, size, byte) in [(2, 1 << 40, 0), (3, 1 << 40, b'i'), (4, 1 << 30, 0)] {
            let version = fs.open_version("f", number).await.unwrap();
            assert_eq!(version.len().await.unwrap(), size);
            let mut out = [9];
            version.read_exact_at(size / 2, &mut out).await.unwrap();
            assert_eq!(out[0], byte, "version {number}");
        }
        assert_eq!(fs.diff_versions("f", 2, 3).await.unwrap(), only(1 << 39..(1 << 39) + 6));
        let held: Vec<u64> = fs.history("f").await.unwrap().iter().map(|version| version.held_bytes).collect();
        assert_eq!(held, [0, 0, 6, 0]);
        assert_eq!(fs.engine().info().await.unwrap().chunks, 1);
        assert_sound(&fs).await;
    });
}

#[test]
fn each_broken_row_of_versions_is_found_and_named() {
    block_on(async {
        let damages: [(&str, &str); 7] = [
            ("missing version", "version damaged: of inode"),
            ("stray version", "version 17 of what does not have it"),
            ("stray extent", "version 17 of what does not have it"),
            ("of nobody", "version 4 of what does not have it"),
            ("missing extent", "the end of version 1 is missing"),
            ("held", "version 1 holds 60000 bytes, not 59999"),
            ("too long", "version 1 is shorter than what was replaced of it"),
        ];
        for (damage, expected) in damages {
            let (_bed, fs) = bed(5).await;
            fs.write("f", noise(1, 60_000)).await.unwrap();
            fs.write("f", noise(2, 10_000)).await.unwrap();
            let inode = fs.metadata("f").await.unwrap().inode;
            let version = VersionRow { changed: 1, size: 60_000, held_bytes: 59_999 };
            let key = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
            let hole = Extent::Hole { length: 5 }.encode();
            let mut transaction = fs.engine().begin();
            match damage {
                "missing version" => transaction.delete(VERSION, &key(&[inode, 1])),
                "stray version" => transaction.put(VERSION, &key(&[inode, 17]), &version.encode()),
                "stray extent" => transaction.put(PAST, &key(&[inode, 18, 0]), &hole),
                "of nobody" => transaction.put(PAST, &key(&[777, 5, 0]), &hole),
                "missing extent" => {
                    let last = 60_000 - last_extent(&fs, inode).await;
                    transaction.delete(PAST, &key(&[inode, 2, last]))
                }
                "held" => transaction.put(VERSION, &key(&[inode, 1]), &version.encode()),
                _ => transaction.put(PAST, &key(&[inode, 2, 60_000]), &hole),
            }
            .unwrap();
            transaction.commit().await.unwrap();
            let mut found = Vec::new();
            fs.check(CheckOptions { data: true }, |finding| found.push(finding.to_string())).await.unwrap();
            assert!(found.iter().any(|finding| finding.contains(expected)), "{damage}: {found:#?}");
        }
    });
}

/// The length of the last extent that version 2 replaced.
async fn last_extent(fs: &FileSystem, inode: u64) -> u64 {
    use std::ops::Bound::Unbounded;
    use strongroom_core::engine::{Direction, View as _};
    let snapshot = fs.engine().snapshot();
    let mut scan = snapshot.scan(PAST, (Unbounded, Unbounded), Direction::Descending);
    let (key, value) = scan.next().await.unwrap().unwrap();
    assert_eq!(key[..8], inode.to_be_bytes());
    Extent::decode(&value).unwrap().length()
}

#[test]
fn damaged_chunks_of_old_versions_are_found_by_a_check_of_data() {
    block_on(async {
        let (_bed, fs) = bed(5).await;
        fs.write("f", noise(1, 5_000)).await.unwrap();
        fs.write("f", noise(2, 5_000)).await.unwrap();
        let inode = fs.metadata("f").await.unwrap().inode;
        let lost = Extent::Data { chunk: ChunkNumber(9999), length: 5_000, skip: 0 };
        let mut transaction = fs.engine().begin();
        let key: Vec<u8> = [inode, 2, 0].iter().flat_map(|number| number.to_be_bytes()).collect();
        transaction.put(PAST, &key, &lost.encode()).unwrap();
        transaction.commit().await.unwrap();
        let mut found = Vec::new();
        fs.check(CheckOptions { data: true }, |finding| found.push(finding.to_string())).await.unwrap();
        assert!(found.iter().any(|finding| finding.starts_with("//f") || finding.starts_with("/f")), "{found:#?}");
    });
}

#[test]
fn a_content_row_whose_versions_are_not_there_is_an_error_and_no_panic() {
    block_on(async {
        let (_bed, fs) = bed(5).await;
        fs.write("f", noise(1, 5_000)).await.unwrap();
        let inode = fs.metadata("f").await.unwrap().inode;
        let versions = Versions { current: 9, oldest: 3, limit: None };
        let row = ContentRow { changed: 1, size: 5_000, versions, tag: None };
        let mut transaction = fs.engine().begin();
        transaction.put(CONTENT, &inode.to_be_bytes(), &row.encode()).unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(kinds_of(&fs.history("f").await.unwrap_err()), "other");
        assert_eq!(kinds_of(&fs.read_version("f", 4).await.unwrap_err()), "other");
        // And the file can be written and removed.
        fs.write("f", noise(2, 5_000)).await.unwrap();
        fs.remove_file("f").await.unwrap();
        assert_sound(&fs).await;
    });
}

/// What one step of a history does to one of two files, each of which may go by the other's name.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Edit>),
    /// Through a handle.
    Handle(Vec<Edit>),
    Restore(u64),
    Limit(Option<u32>),
    Prune,
    Rename,
    Link,
    Remove,
    Reopen,
    Crash(u64),
    /// The machine loses power in the middle of a change.
    CutOff(Vec<Edit>, u64, u64),
    Checkpoint,
}

#[derive(Clone, Debug)]
enum Edit {
    Whole(u64, usize),
    At(u64, u64, usize),
    Append(u64, usize),
    Length(u64),
}

fn edit() -> impl Strategy<Value = Edit> {
    let offset = || prop_oneof![2 => 0..600_u64, 2 => 0..9_000_u64, 1 => 0..60_000_u64];
    let length = || prop_oneof![2 => 0..600_usize, 2 => 0..9_000_usize, 1 => 0..40_000_usize];
    let seed = || 0..4_u64;
    prop_oneof![
        2 => (seed(), length()).prop_map(|(seed, length)| Edit::Whole(seed, length)),
        4 => (offset(), seed(), length()).prop_map(|(offset, seed, length)| Edit::At(offset, seed, length)),
        3 => (seed(), length()).prop_map(|(seed, length)| Edit::Append(seed, length)),
        3 => offset().prop_map(Edit::Length),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let edits = || proptest::collection::vec(edit(), 1..4);
    prop_oneof![
        8 => edits().prop_map(Step::Write),
        8 => edits().prop_map(Step::Handle),
        4 => (0..8_u64).prop_map(Step::Restore),
        2 => proptest::option::of(0..5_u32).prop_map(Step::Limit),
        1 => Just(Step::Prune),
        1 => Just(Step::Rename),
        1 => Just(Step::Link),
        1 => Just(Step::Remove),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(Step::Crash),
        2 => (edits(), 0..8_u64, any::<u64>()).prop_map(|(edits, calls, seed)| Step::CutOff(edits, calls, seed)),
        1 => Just(Step::Checkpoint),
    ]
}

/// A file as it should be: every content that it had, from a number on, and how many of them are kept.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    contents: BTreeMap<u64, Vec<u8>>,
    limit: Option<u32>,
    names: Vec<&'static str>,
}

const KEPT: u32 = 3;

impl Model {
    fn new(content: Vec<u8>) -> Self {
        Self { contents: BTreeMap::from([(1, content)]), limit: None, names: vec!["f"] }
    }

    fn current(&self) -> &Vec<u8> {
        self.contents.last_key_value().unwrap().1
    }

    fn evict(&mut self) {
        while self.contents.len() > self.limit.unwrap_or(KEPT) as usize + 1 {
            self.contents.pop_first();
        }
    }

    fn push(&mut self, content: Vec<u8>) {
        let number = *self.contents.last_key_value().unwrap().0 + 1;
        self.contents.insert(number, content);
        self.evict();
    }

    /// Edits may come to nothing, and then there may be a version or not: answers whether there certainly is one.
    fn edited(&self, edits: &[Edit]) -> (Vec<u8>, bool) {
        let mut content = self.current().clone();
        for edit in edits {
            match edit {
                Edit::Whole(seed, length) => content = noise(*seed, *length),
                Edit::At(offset, seed, length) if *length > 0 => {
                    let end = *offset as usize + length;
                    content.resize(content.len().max(end), 0);
                    content[*offset as usize..end].copy_from_slice(&noise(*seed, *length));
                }
                Edit::At(..) => {}
                Edit::Append(seed, length) => content.extend_from_slice(&noise(*seed, *length)),
                Edit::Length(size) => content.resize(*size as usize, 0),
            }
        }
        let certain = content != *self.current();
        (content, certain)
    }
}

async fn through(transaction: &mut FsTransaction, path: &str, edits: &[Edit]) -> Result<(), Error> {
    for edit in edits {
        match edit {
            Edit::Whole(seed, length) => transaction.write(path, noise(*seed, *length)).await?,
            Edit::At(offset, seed, length) => transaction.write_at(path, *offset, noise(*seed, *length)).await?,
            Edit::Append(seed, length) => {
                let size = transaction.metadata(path).await?.size;
                transaction.write_at(path, size, noise(*seed, *length)).await?;
            }
            Edit::Length(size) => transaction.set_len(path, *size).await?,
        }
    }
    Ok(())
}

async fn edit_together(fs: &FileSystem, path: &str, edits: &[Edit]) -> Result<(), Error> {
    fs.transact(async |transaction| through(transaction, path, edits).await).await
}

async fn edit_by_handle(fs: &FileSystem, path: &str, edits: &[Edit]) {
    let file = fs.open_file(path, OpenOptions::new().write(true)).await.unwrap();
    for edit in edits {
        match edit {
            Edit::Whole(seed, length) => {
                file.set_len(0).await.unwrap();
                file.write_at(0, &noise(*seed, *length)).await.unwrap();
            }
            Edit::At(offset, seed, length) => file.write_at(*offset, &noise(*seed, *length)).await.unwrap(),
            Edit::Append(seed, length) => {
                file.append(&noise(*seed, *length)).await.unwrap();
            }
            Edit::Length(size) => file.set_len(*size).await.unwrap(),
        }
    }
    file.close().await.unwrap();
}

/// Whether the file is as the model says: every version, and what differs between neighbours.
async fn matches(fs: &FileSystem, model: &Model) -> bool {
    let path = model.names[0];
    let history = fs.history(path).await.unwrap();
    if !history.iter().map(|version| version.number).eq(model.contents.keys().copied()) {
        return false;
    }
    for Version { number, size, .. } in &history {
        let expected = &model.contents[number];
        if *size != expected.len() as u64 || fs.read_version(path, *number).await.unwrap() != *expected {
            return false;
        }
    }
    fs.read(path).await.unwrap() == *model.current()
}

async fn assert_matches(fs: &FileSystem, model: &Model) {
    assert!(matches(fs, model).await, "{:?}", fs.history(model.names[0]).await.unwrap());
    let (first, last) = (*model.contents.first_key_value().unwrap().0, *model.contents.last_key_value().unwrap().0);
    let (one, other) = (&model.contents[&first], &model.contents[&last]);
    let differing = fs.diff_versions(model.names[0], first, last).await.unwrap();
    assert!(differing.windows(2).all(|pair| pair[0].end < pair[1].start), "{differing:?}");
    let (mut at, longest) = (0, one.len().max(other.len()));
    for range in differing.iter().cloned().chain(only(longest as u64..longest as u64)) {
        let (start, end) = (range.start as usize, range.end as usize);
        assert!(
            end <= longest && part(one, at..start) == part(other, at..start),
            "{at}..{start} differs: {differing:?}"
        );
        at = end;
    }
}

fn part(content: &[u8], range: Range<usize>) -> &[u8] {
    &content[range.start.min(content.len())..range.end.min(content.len())]
}

async fn run(seed: u64, options: Options, steps: Vec<Step>) {
    let (mut bed, mut fs) = Bed::with(seed, 4096, options, CrashOptions::default(), Env::deterministic).await;
    fs.write("f", b"").await.unwrap();
    let mut model = Model::new(Vec::new());
    for step in steps {
        let path = model.names[0];
        match step {
            Step::Write(edits) | Step::Handle(edits) if edits.is_empty() => {}
            Step::Write(edits) => {
                edit_together(&fs, path, &edits).await.unwrap();
                settle(&fs, &mut model, &edits).await;
            }
            Step::Handle(edits) => {
                edit_by_handle(&fs, path, &edits).await;
                settle(&fs, &mut model, &edits).await;
            }
            Step::Restore(back) => {
                let last = *model.contents.last_key_value().unwrap().0;
                let number = last.saturating_sub(back);
                let result = fs.restore_version(path, number).await;
                match model.contents.get(&number).cloned() {
                    None => assert_eq!(kinds_of(&result.unwrap_err()), "no such version"),
                    Some(content) => {
                        result.unwrap();
                        // That of a version which is the same in all may be none.
                        if number != last && numbers(&fs, path).await.last() != Some(&last) {
                            model.push(content);
                        } else {
                            assert!(content == *model.current());
                        }
                    }
                }
            }
            Step::Limit(limit) => {
                fs.set_version_limit(path, limit).await.unwrap();
                model.limit = limit;
            }
            Step::Prune => {
                fs.prune_versions(path).await.unwrap();
                model.evict();
            }
            Step::Rename => {
                let other = if path == "f" { "g" } else { "f" };
                if model.names.len() == 1 {
                    fs.rename(path, other).await.unwrap();
                    model.names = vec![other];
                }
            }
            Step::Link => {
                let other = if path == "f" { "g" } else { "f" };
                if model.names.len() == 1 {
                    fs.hard_link(path, other).await.unwrap();
                    model.names.push(other);
                }
            }
            Step::Remove => {
                fs.remove_file(path).await.unwrap();
                model.names.remove(0);
                if model.names.is_empty() {
                    assert_eq!((rows(&fs, VERSION).await, rows(&fs, PAST).await), (0, 0));
                    assert_eq!(fs.engine().info().await.unwrap().chunks, 0);
                    fs.write("f", b"new").await.unwrap();
                    model = Model::new(b"new".to_vec());
                }
            }
            Step::Reopen => {
                fs.engine().close().await.unwrap();
                fs = bed.open().await.unwrap();
            }
            Step::Crash(seed) => {
                bed.storage.crash(seed);
                fs = bed.open().await.unwrap();
            }
            Step::CutOff(edits, calls, seed) => {
                bed.storage.cut_off_after(calls, strongroom_conformance::crash::Fault::LostRequest);
                let result = edit_together(&fs, path, &edits).await;
                bed.storage.crash(seed);
                bed.storage.clear_faults();
                fs = bed.open().await.unwrap();
                let untouched = matches(&fs, &model).await;
                if !untouched {
                    settle(&fs, &mut model, &edits).await;
                } else if result.is_ok() {
                    assert!(!model.edited(&edits).1, "what was answered is lost");
                }
            }
            Step::Checkpoint => fs.engine().checkpoint().await.unwrap(),
        }
        assert_matches(&fs, &model).await;
    }
    assert_sound(&fs).await;
    for name in model.names {
        fs.remove_file(name).await.unwrap();
    }
    assert_eq!(fs.engine().info().await.unwrap().chunks, 0);
    assert_sound(&fs).await;
}

/// The model after edits that were committed: a version more, unless they came to nothing.
async fn settle(fs: &FileSystem, model: &mut Model, edits: &[Edit]) {
    let (content, certain) = model.edited(edits);
    let last = *model.contents.last_key_value().unwrap().0;
    if certain || numbers(fs, model.names[0]).await.last() != Some(&last) {
        model.push(content);
    }
}

fn cases() -> u32 {
    std::env::var("STRONGROOM_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_versions_of_a_file_equal_the_model(seed: u64, dedup: bool, steps in proptest::collection::vec(step(), 1..40)) {
        block_on(run(seed, Options { dedup, ..keeping(KEPT) }, steps));
    }
}
