//! The check finds what is planted.

use std::ops::Bound;

use futures_lite::future::block_on;
use strongroom_core::engine::{Direction, Table, View as _};
use strongroom_fs::format::{CONTENT, ContentRow, ENTRY, EXTENT, EntryRow, Extent, INODE, SUBDIRECTORIES};
use strongroom_fs::{CheckOptions, Error, FileSystem, Follow, Kind, OpenOptions, XattrMode};

use super::support::{Bed, noise};

async fn findings(fs: &FileSystem) -> Vec<String> {
    let mut findings = Vec::new();
    fs.check(CheckOptions { data: true }, |finding| findings.push(finding.to_string())).await.unwrap();
    findings
}

/// Plants a row, or removes one, behind the file system's back.
async fn plant(fs: &FileSystem, table: Table, key: &[u8], value: Option<&[u8]>) {
    let mut transaction = fs.engine().begin();
    match value {
        Some(value) => transaction.put(table, key, value).unwrap(),
        None => transaction.delete(table, key).unwrap(),
    }
    transaction.commit().await.unwrap();
}

fn entry_key(parent: u64, name: &[u8]) -> Vec<u8> {
    [&parent.to_be_bytes(), name].concat()
}

#[test]
fn each_broken_row_is_found_and_named() {
    block_on(async {
        let damages: [(&str, &str); 7] = [
            ("dangling", "/ghost: inode damaged: 0x63 is missing"),
            ("orphan", "inode without a name"),
            ("extent", "/d/f: extent damaged"),
            ("size", "/d/f: is 200001 bytes long"),
            ("kind", "its name says Symlink"),
            ("count", "/d: counts 5 directories, holds 0"),
            ("stray", "content of a file that does not exist"),
        ];
        for (damage, expected) in damages {
            let (_bed, fs) = Bed::new(16 << 10).await;
            fs.create_dir("d").await.unwrap();
            fs.write("d/f", noise(1, 200_000)).await.unwrap();
            assert!(findings(&fs).await.is_empty());
            let directory = fs.metadata("d").await.unwrap().inode;
            let file = fs.metadata("d/f").await.unwrap().inode;
            let entry = |inode, kind| EntryRow { inode, kind }.encode();
            match damage {
                "dangling" => plant(&fs, ENTRY, &entry_key(1, b"ghost"), Some(&entry(0x63, Kind::File))).await,
                "orphan" => plant(&fs, ENTRY, &entry_key(directory, b"f"), None).await,
                "extent" => plant(&fs, EXTENT, &[file.to_be_bytes(), [0; 8]].concat(), None).await,
                "size" => {
                    let row = ContentRow { changed: 1, size: 200_001, ..ContentRow::default() };
                    plant(&fs, CONTENT, &file.to_be_bytes(), Some(&row.encode())).await;
                }
                "kind" => plant(&fs, ENTRY, &entry_key(directory, b"f"), Some(&entry(file, Kind::Symlink))).await,
                "count" => plant(&fs, SUBDIRECTORIES, &directory.to_be_bytes(), Some(&5u64.to_le_bytes())).await,
                _ => {
                    let hole = [&[2][..], &9u64.to_le_bytes()].concat();
                    plant(&fs, EXTENT, &[7777u64.to_be_bytes(), [0; 8]].concat(), Some(&hole)).await;
                }
            }
            let found = findings(&fs).await;
            assert!(found.iter().any(|finding| finding.contains(expected)), "{damage}: {found:#?}");
        }
    });
}

/// A hole is a row, too: what has none is no hole, and nobody takes it for zeros.
#[test]
fn where_a_row_of_a_file_is_missing_a_read_fails_and_gives_no_zeros() {
    const HOLE: std::ops::Range<u64> = 100_000..300_000;
    block_on(async {
        for is_hole in [false, true] {
            let (_bed, fs) = Bed::new(16 << 10).await;
            fs.write("f", noise(1, 400_000)).await.unwrap();
            fs.punch_hole("f", HOLE.start, HOLE.end - HOLE.start).await.unwrap();
            let inode = fs.metadata("f").await.unwrap().inode;
            let (mut rows, view) = (Vec::new(), fs.engine().snapshot());
            let mut scan = view.scan(EXTENT, (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
            while let Some((key, row)) = scan.next().await.unwrap() {
                let (whose, start) = (key[..8].to_vec(), u64::from_be_bytes(key[8..16].try_into().unwrap()));
                assert_eq!(whose, inode.to_be_bytes());
                let (there_is_hole, length) = match Extent::decode(&row).unwrap() {
                    Extent::Hole { length } => (true, length),
                    Extent::Data { length, .. } => (false, length.into()),
                };
                rows.push((key.to_vec(), there_is_hole, start..start + length));
            }
            drop(scan);
            // Not the first, so that what is before it is still there to be read.
            let (key, _, missing) = rows.into_iter().rfind(|row| row.1 == is_hole).unwrap();
            plant(&fs, EXTENT, &key, None).await;

            let damaged = |result: Result<(), Error>| match result {
                Err(Error::Core(strongroom_core::Error::Damaged(_))) => {}
                other => panic!("hole: {is_hole}: {other:?}"),
            };
            damaged(fs.read("f").await.map(drop));
            damaged(fs.snapshot().read("f").await.map(drop));
            let file = fs.open_file("f", OpenOptions::new().write(true)).await.unwrap();
            for (offset, length) in [
                (missing.start, 1),
                (missing.end - 1, 1),
                (missing.start - 10, 20),
                (missing.start, (missing.end - missing.start) as usize),
            ] {
                damaged(file.read_exact_at(offset, &mut vec![1; length]).await);
            }
            // Where something waits to be written beside it, too; and what has rows is read as before.
            file.write_at(0, b"pending").await.unwrap();
            damaged(file.read_exact_at(missing.start, &mut [1]).await);
            let (mut out, expected) = ([0; 1_000], &noise(1, 400_000)[50_000..51_000]);
            file.read_exact_at(50_000, &mut out).await.unwrap();
            assert!(out[..] == *expected);
            if missing.start >= HOLE.end {
                file.read_exact_at(HOLE.start, &mut out).await.unwrap();
                assert_eq!(out, [0; 1_000]);
            }
            drop(file);
        }
    });
}

#[test]
fn who_shares_a_chunk_and_wants_more_of_it_than_there_is_is_found() {
    block_on(async {
        let (_bed, fs) = Bed::new(16 << 10).await;
        fs.write("first", noise(1, 3000)).await.unwrap();
        fs.copy("first", "second").await.unwrap();
        let second = fs.metadata("second").await.unwrap().inode;
        let key = [second.to_be_bytes(), [0; 8]].concat();
        let row = fs.engine().snapshot().get(EXTENT, &key).await.unwrap().unwrap();
        let Extent::Data { chunk, length: 3000, skip: 0 } = Extent::decode(&row).unwrap() else { panic!("{row:?}") };
        plant(&fs, EXTENT, &key, Some(&Extent::Data { chunk, length: 4000, skip: 0 }.encode())).await;
        let row = ContentRow { changed: 1, size: 4000, ..ContentRow::default() };
        plant(&fs, CONTENT, &second.to_be_bytes(), Some(&row.encode())).await;
        let found = findings(&fs).await;
        assert!(found.len() == 1 && found[0].contains("names bytes 0..4000 of a chunk of 3000"), "{found:#?}");
    });
}

#[test]
fn a_directory_with_two_names_is_found_and_does_not_trap_the_check() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir_all("a/b").await.unwrap();
        let (a, b) = (fs.metadata("a").await.unwrap().inode, fs.metadata("a/b").await.unwrap().inode);
        let row = EntryRow { inode: a, kind: Kind::Directory }.encode();
        plant(&fs, ENTRY, &entry_key(b, b"loop"), Some(&row)).await;
        assert!(findings(&fs).await.iter().any(|finding| finding.contains("second name of a directory")));
    });
}

#[test]
fn a_missing_root_is_found() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        plant(&fs, INODE, &1u64.to_be_bytes(), None).await;
        assert!(!findings(&fs).await.is_empty());
    });
}

/// Whatever block is damaged, a check goes on to its end: what cannot be read is a finding, the rest is looked at.
#[test]
fn a_damaged_block_ends_no_check() {
    block_on(async {
        let (mut bed, fs) = Bed::new(16 << 10).await;
        let mut transaction = fs.begin();
        for number in 0..200 {
            let path = format!("f{number}");
            transaction.write(&path, noise(number, 40)).await.unwrap();
            transaction.set_xattr(&path, "user.mark", b"here", XattrMode::Set, Follow::No).await.unwrap();
        }
        transaction.commit().await.unwrap();
        fs.engine().checkpoint().await.unwrap();
        fs.engine().close().await.unwrap();
        drop(fs);
        let whole = bed.storage.snapshot_blobs();
        let mut cut_short = 0;
        for name in whole.keys() {
            bed.storage.remove(*name);
            // Some are needed to open it at all.
            if let Ok(fs) = bed.open().await {
                let mut findings = 0;
                let checked = fs.check(CheckOptions { data: true }, |_| findings += 1).await;
                let summary = checked.unwrap_or_else(|error| panic!("without {name:?}: {error}"));
                assert_eq!(summary.findings, findings);
                cut_short += u64::from(summary.files < 200);
            }
            bed.storage.restore(whole.clone());
        }
        assert!(cut_short > 0);
    });
}
