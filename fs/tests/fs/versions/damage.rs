//! Rows of versions that are not as they must be.

use futures_lite::future::block_on;
use strongroom_core::engine::ChunkNumber;
use strongroom_fs::format::{CONTENT, ContentRow, Extent, PAST, VERSION, VersionRow, Versions};
use strongroom_fs::{CheckOptions, FileSystem};

use super::super::support::{assert_sound, noise};
use super::{bed, kinds_of};

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
