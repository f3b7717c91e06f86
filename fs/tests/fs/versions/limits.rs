//! How many versions are kept, of a repository and of a file.

use futures_lite::future::block_on;
use strongroom_core::engine::View as _;
use strongroom_fs::format::{CONTENT, PAST, VERSION};
use strongroom_fs::{FileSystem, OpenOptions, VERSIONS_MAX};

use super::super::support::{assert_sound, noise};
use super::{bed, keeping, kinds_of, numbers, rows};

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
