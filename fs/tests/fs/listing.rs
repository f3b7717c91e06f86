//! Directories read while they change, and what a tree takes.

use std::collections::BTreeSet;

use futures_lite::future::block_on;
use strongroom_fs::{DirCursor, Error, OpenOptions, Usage};

use super::support::{Bed, noise};

#[test]
fn what_is_there_throughout_comes_exactly_once_whatever_else_comes_and_goes() {
    block_on(async {
        let (_bed, fs) = Bed::new(16 << 10).await;
        fs.transact(async |transaction| {
            transaction.create_dir("d").await?;
            for number in 0..700 {
                transaction.write(format!("d/{number:04}"), b"").await?;
            }
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
        let mut stream = fs.stream_dir("d").await.unwrap();
        let mut seen = Vec::new();
        while let Some(entry) = stream.next().await.unwrap() {
            let number: usize = entry.name_str().unwrap().trim_end_matches("-new").parse().unwrap();
            seen.push(entry.name);
            if number % 100 == 50 {
                // Before and behind the cursor: some go, some come.
                fs.transact(async |transaction| {
                    transaction.remove_file(format!("d/{:04}", number - 1)).await?;
                    transaction.remove_file(format!("d/{:04}", number + 41)).await?;
                    transaction.write(format!("d/{:04}-new", number - 40), b"").await?;
                    transaction.write(format!("d/{:04}-new", number + 40), b"").await
                })
                .await
                .unwrap();
            }
        }
        let unique: BTreeSet<_> = seen.iter().collect();
        assert_eq!(unique.len(), seen.len());
        assert!(seen.is_sorted());
        for number in (0..700).filter(|number| number % 100 != 49 && number % 100 != 91) {
            assert!(unique.contains(&format!("{number:04}").into_bytes()), "{number}");
        }
    });
}

#[test]
fn a_cursor_means_the_same_after_opening_again_and_after_its_name_is_gone() {
    block_on(async {
        let (mut bed, fs) = Bed::new(4096).await;
        for name in ["a", "b", "c", "d"] {
            fs.write(name, b"").await.unwrap();
        }
        let mut stream = fs.stream_dir("/").await.unwrap();
        assert_eq!(stream.cursor(), &DirCursor::default());
        stream.next().await.unwrap();
        stream.next().await.unwrap();
        let cursor = stream.cursor().clone();
        assert_eq!(cursor.name(), Some(&b"b"[..]));
        fs.remove_file("b").await.unwrap();
        fs.write("bb", b"").await.unwrap();
        fs.engine().close().await.unwrap();
        let fs = bed.open().await.unwrap();
        let mut stream = fs.stream_dir("/").await.unwrap();
        stream.seek(cursor.clone());
        assert_eq!(stream.next().await.unwrap().unwrap().name, b"bb");
        stream.seek(DirCursor::default());
        assert_eq!(stream.next().await.unwrap().unwrap().name, b"a");
        let rest = fs.snapshot().open_dir_at("/", &cursor).await.unwrap().collect().await.unwrap();
        assert_eq!(rest.into_iter().map(|entry| entry.name).collect::<Vec<_>>(), [&b"bb"[..], b"c", b"d"]);
        assert!(matches!(fs.stream_dir("a").await, Err(Error::NotADirectory { .. })));
    });
}

#[test]
fn a_directory_that_is_removed_has_no_more_names() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir("d").await.unwrap();
        let mut stream = fs.stream_dir("d").await.unwrap();
        fs.remove_dir("d").await.unwrap();
        assert_eq!(stream.next().await.unwrap(), None);
    });
}

#[test]
fn usage_counts_files_once_and_holes_apart() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir_all("t/d").await.unwrap();
        fs.write("t/d/f", noise(1, 10_000)).await.unwrap();
        fs.hard_link("t/d/f", "t/again").await.unwrap();
        fs.symlink("d", "t/l").await.unwrap();
        fs.write("t/sparse", noise(2, 500)).await.unwrap();
        fs.set_len("t/sparse", 1 << 40).await.unwrap();
        fs.write("outside", b"x").await.unwrap();
        let logical_bytes = 10_000 + (1 << 40);
        let expected = Usage { files: 2, directories: 2, symlinks: 1, logical_bytes, data_bytes: 10_500 };
        assert_eq!(fs.usage("t").await.unwrap(), expected);
        assert_eq!(fs.usage("/").await.unwrap().files, 3);
        assert_eq!(fs.usage("t/l").await.unwrap(), Usage { symlinks: 1, ..Usage::default() });
        assert!(matches!(fs.usage("x").await, Err(Error::NotFound { .. })));
        // Targets that lie in extents are no content of files, and a file that is open and has no name is not there.
        fs.symlink("x/".repeat(1_500), "long").await.unwrap();
        fs.write("gone", noise(3, 5_000)).await.unwrap();
        let _open = fs.open_file("gone", OpenOptions::new()).await.unwrap();
        fs.remove_file("gone").await.unwrap();
        let summary = fs.summary().await.unwrap();
        assert_eq!((summary.usage, summary.block_bytes), (fs.usage("/").await.unwrap(), 4096));
        assert!(summary.stored_bytes == summary.blobs * 4096 && summary.chunks > 0);
    });
}
