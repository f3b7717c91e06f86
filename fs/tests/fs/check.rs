//! The check finds what is planted.

use futures_lite::future::block_on;
use strongroom_core::engine::{Table, View as _};
use strongroom_fs::format::{CONTENT, ContentRow, ENTRY, EXTENT, EntryRow, Extent, INODE, SUBDIRECTORIES};
use strongroom_fs::{CheckOptions, FileSystem, Follow, Kind, XattrMode};

use crate::support::{Bed, noise};

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
