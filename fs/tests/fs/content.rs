//! What becomes of bytes: chunks, dedup, compression, holes, space.

use std::io::ErrorKind;

use futures_lite::future::block_on;
use strongroom_fs::{
    Attributes, CheckOptions, Compression, Error, FILE_BYTES_MAX, FileSystem, FsTransaction, OpenOptions, Options,
};

use super::support::{Bed, assert_sound, noise, writing};

async fn chunks(fs: &FileSystem) -> usize {
    fs.check(CheckOptions::default(), |_| {}).await.unwrap().references.len()
}

#[test]
fn a_long_file_reads_back_whole_and_in_parts() {
    block_on(async {
        for dedup in [true, false] {
            let options = Options { dedup, ..Options::default() };
            let (mut bed, fs) = Bed::threaded(16 << 10, options).await;
            let content = noise(5, 1_500_000);
            let file = fs.open_file("f", writing()).await.unwrap();
            for (index, piece) in content.chunks(65_536).enumerate() {
                file.write_at(index as u64 * 65_536, piece).await.unwrap();
            }
            file.close().await.unwrap();
            let fs = {
                drop(fs);
                bed.open().await.unwrap()
            };
            assert_eq!(fs.read("f").await.unwrap(), content);
            let file = fs.open_file("f", OpenOptions::new()).await.unwrap();
            let mut all = Vec::new();
            let mut piece = vec![0; 50_000];
            while let read @ 1.. = file.read_at(all.len() as u64, &mut piece).await.unwrap() {
                all.extend_from_slice(&piece[..read]);
            }
            assert!(all == content);
            let mut part = vec![0; 4096];
            for offset in [1_000_000, 3, 777_777, 1_495_903] {
                file.read_exact_at(offset as u64, &mut part).await.unwrap();
                assert!(part == content[offset..offset + 4096]);
            }
            assert_sound(&fs).await;
        }
    });
}

#[test]
fn equal_content_is_stored_once_where_dedup_is_on() {
    block_on(async {
        for (dedup, factor) in [(true, 1), (false, 2)] {
            let (_bed, fs) = Bed::threaded(16 << 10, Options { dedup, ..Options::default() }).await;
            let content = noise(9, 400_000);
            fs.write("a", &content).await.unwrap();
            let once = chunks(&fs).await;
            fs.write("b", &content).await.unwrap();
            assert_eq!(chunks(&fs).await, factor * once);
            // The same, moved by a few bytes.
            fs.write("c", [b"moved".as_slice(), &content].concat()).await.unwrap();
            assert!(!dedup || chunks(&fs).await < once + once / 4 + 3);
            assert_sound(&fs).await;
            fs.remove_file("a").await.unwrap();
            assert_eq!(fs.read("b").await.unwrap(), content);
            assert_sound(&fs).await;
        }
    });
}

#[test]
fn removing_and_overwriting_gives_every_chunk_back() {
    block_on(async {
        let (_bed, fs) = Bed::new(16 << 10).await;
        fs.write("f", noise(1, 300_000)).await.unwrap();
        fs.write("f", noise(2, 200_000)).await.unwrap();
        let file = fs.open_file("f", writing()).await.unwrap();
        file.write_at(50_000, &noise(3, 60_000)).await.unwrap();
        file.set_len(90_000).await.unwrap();
        file.close().await.unwrap();
        assert_sound(&fs).await;
        fs.remove_file("f").await.unwrap();
        assert_eq!(fs.engine().info().await.unwrap().chunks, 0);
        assert_sound(&fs).await;
    });
}

#[test]
fn holes_are_zeros_that_take_no_chunk() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.transact(async |transaction| {
            let mut writer = transaction.write_file("sparse", Attributes::file()).await?;
            writer.write(b"front").await?;
            writer.hole(1 << 40).await?;
            writer.write(b"back").await?;
            writer.hole(10).await?;
            writer.finish().await
        })
        .await
        .unwrap();
        assert_eq!(chunks(&fs).await, 2);
        let file = fs.open_file("sparse", OpenOptions::new().write(true)).await.unwrap();
        assert_eq!(file.len().await.unwrap(), (1 << 40) + 19);
        let mut out = [9; 12];
        file.read_exact_at((1 << 40) + 2, &mut out).await.unwrap();
        assert_eq!(&out, b"\0\0\0back\0\0\0\0\0");
        file.write_at(1 << 30, b"middle").await.unwrap();
        file.set_len(FILE_BYTES_MAX).await.unwrap();
        assert!(file.set_len(FILE_BYTES_MAX + 1).await.is_err());
        assert!(file.write_at(FILE_BYTES_MAX - 1, b"12").await.is_err());
        file.close().await.unwrap();
        let file = fs.open_file("sparse", OpenOptions::new()).await.unwrap();
        file.read_exact_at((1 << 30) - 3, &mut out).await.unwrap();
        assert_eq!(&out, b"\0\0\0middle\0\0\0");
        assert_eq!(file.len().await.unwrap(), FILE_BYTES_MAX);
        assert_eq!(chunks(&fs).await, 3);
        assert_sound(&fs).await;
    });
}

#[test]
fn the_whole_of_a_file_longer_than_memory_is_refused_and_ends_nobody() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("sparse", b"begins").await.unwrap();
        fs.set_len("sparse", FILE_BYTES_MAX).await.unwrap();
        fs.set_version_limit("sparse", Some(3)).await.unwrap();
        fs.write("other", b"").await.unwrap();
        let refused = |read: Result<Vec<u8>, Error>| match read {
            Err(error @ Error::OutOfMemory { bytes: FILE_BYTES_MAX }) => error.io_kind() == ErrorKind::OutOfMemory,
            other => panic!("{other:?}"),
        };
        assert!(refused(fs.read("sparse").await));
        let current = fs.history("sparse").await.unwrap().last().unwrap().number;
        assert!(refused(fs.read_version("sparse", current).await));
        let within = async |transaction: &mut FsTransaction| transaction.read("sparse").await;
        assert!(refused(fs.transact(within).await));
        assert_sound(&fs).await;
    });
}

#[test]
fn text_takes_less_space_where_compression_is_on() {
    block_on(async {
        let text = b"nothing here is new, and all of it comes again ".repeat(5000);
        let mut stored = Vec::new();
        for compression in [Compression::Lz4, Compression::None] {
            let (_bed, fs) = Bed::threaded(16 << 10, Options { compression, dedup: false, versions: 0 }).await;
            fs.write("text", &text).await.unwrap();
            assert_eq!(fs.read("text").await.unwrap(), text);
            fs.engine().checkpoint().await.unwrap();
            stored.push(fs.engine().info().await.unwrap().live_bytes);
        }
        assert!(stored[0] * 4 < stored[1], "{stored:?}");
    });
}

#[test]
fn many_small_appends_make_few_chunks() {
    block_on(async {
        let (_bed, fs) = Bed::new(16 << 10).await;
        fs.write("log", b"").await.unwrap();
        let mut expected = Vec::new();
        for index in 0..200_u64 {
            let line = noise(index, 100);
            let file = fs.open_file("log", OpenOptions::new().append(true)).await.unwrap();
            file.append(&line).await.unwrap();
            file.close().await.unwrap();
            expected.extend_from_slice(&line);
        }
        assert_eq!(fs.read("log").await.unwrap(), expected);
        assert!(chunks(&fs).await <= 1 + 20_000 / 2048, "{}", chunks(&fs).await);
        assert_sound(&fs).await;
    });
}

#[test]
fn many_small_overwrites_do_not_crumble_a_file() {
    block_on(async {
        let (_bed, fs) = Bed::new(16 << 10).await;
        let mut expected = noise(1, 200_000);
        fs.write("f", &expected).await.unwrap();
        let before = chunks(&fs).await;
        for round in 0..100_u64 {
            let file = fs.open_file("f", writing()).await.unwrap();
            for step in 0..4 {
                let offset = (round * 7919 + step * 50_021) as usize % 199_000;
                let bytes = noise(round * 10 + step, 300);
                file.write_at(offset as u64, &bytes).await.unwrap();
                expected[offset..offset + 300].copy_from_slice(&bytes);
            }
            file.close().await.unwrap();
        }
        assert!(fs.read("f").await.unwrap() == expected);
        assert!(chunks(&fs).await <= before * 2 + 2, "{} from {before}", chunks(&fs).await);
        assert_sound(&fs).await;
    });
}

#[test]
fn an_overwrite_touches_only_the_chunks_it_is_in() {
    block_on(async {
        let (_bed, fs) = Bed::new(16 << 10).await;
        fs.write("f", noise(1, 500_000)).await.unwrap();
        let before = fs.check(CheckOptions::default(), |_| {}).await.unwrap().references;
        let file = fs.open_file("f", writing()).await.unwrap();
        file.write_at(250_000, b"a few bytes").await.unwrap();
        file.close().await.unwrap();
        let after = fs.check(CheckOptions::default(), |_| {}).await.unwrap().references;
        let kept = before.iter().filter(|(chunk, _)| after.get(*chunk) > 0).count();
        assert!(kept + 4 >= before.len(), "{kept} of {}", before.len());
    });
}
