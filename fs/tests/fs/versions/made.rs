//! What makes a version, and what makes none.

use std::sync::Arc;

use futures_lite::future::block_on;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::cut;
use strongroom_core::crypto::{KdfParameters, Suite};
use strongroom_core::engine::keyring::Credentials;
use strongroom_core::engine::{CreateOptions, Engine, Tuning};
use strongroom_core::env::Env;
use strongroom_fs::format::VERSION;
use strongroom_fs::{Attributes, Error, FileSystem, OpenOptions};

use super::super::support::{Bed, assert_sound, noise};
use super::{bed, keeping, numbers, rows};

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

/// Every look at a row is a request, so that a write can be dropped at each of them.
#[test]
fn a_write_that_is_dropped_before_it_changes_anything_makes_no_version_of_its_own() {
    block_on(async {
        let credentials = Credentials::password("correct horse");
        let create = CreateOptions {
            credentials: &credentials,
            recovery: None,
            suite: Suite::Aes256Gcm,
            block_bytes: 16 << 10,
            kdf: KdfParameters::MINIMUM,
            trusted: None,
            tuning: Tuning { node_cache_bytes_max: 0, ..Tuning::default() },
        };
        let storage = Arc::new(CrashingStorage::new(CrashOptions::default()));
        let engine = Engine::create(storage, Env::deterministic(1), create).await.unwrap();
        let fs = FileSystem::create(engine, keeping(9)).await.unwrap();
        fs.write("f", noise(1, 3000)).await.unwrap();
        let (mut polls, mut refused, mut went_on) = (0, 0, 0);
        loop {
            fs.engine().checkpoint().await.unwrap();
            let before = *numbers(&fs, "f").await.last().unwrap();
            let mut transaction = fs.begin();
            transaction.set_len("f", 2000 + polls).await.unwrap();
            let written = cut(polls, transaction.write_at("f", 5, b"written")).await;
            let expected = if transaction.set_len("f", 1000 + polls).await.is_err() {
                before
            } else {
                match transaction.commit().await {
                    Ok(_) => before + 1,
                    Err(error) => {
                        assert!(matches!(error, Error::Interrupted), "{error}");
                        before
                    }
                }
            };
            let now = *numbers(&fs, "f").await.last().unwrap();
            assert_eq!(now, expected, "after {polls} polls");
            *(if now > before { &mut went_on } else { &mut refused }) += 1;
            if written.is_some() {
                break;
            }
            polls += 1;
        }
        assert!(refused > 3 && went_on > 3, "{refused} refused, {went_on} went on");
        assert_sound(&fs).await;
    });
}
