//! Versions are read, compared and restored, at the cost of what differs.

use std::ops::Range;

use futures_lite::future::block_on;
use strongroom_fs::OpenOptions;
use strongroom_fs::format::PAST;

use super::super::support::{assert_sound, noise};
use super::{bed, kinds_of, only, rows};

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
