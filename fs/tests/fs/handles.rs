//! Several handles of one file.

use std::sync::Arc;

use futures_lite::future::block_on;
use strongroom_fs::{AccessTime, Compression, Error, FileSystem, OpenOptions, Options, Settings, Timestamp, Tuning};

use super::support::{Bed, assert_sound, chunks, content, noise, writing};

#[test]
fn what_one_handle_writes_all_handles_see_at_once() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let (a, b) = (fs.open_file("f", writing()).await.unwrap(), fs.clone().open_file("f", writing()).await.unwrap());
        let reader = fs.open_file("f", OpenOptions::new()).await.unwrap();
        a.write_at(0, b"from a").await.unwrap();
        assert_eq!(content(&b).await, b"from a");
        b.append(b", from b").await.unwrap();
        b.write_at(0, b"F").await.unwrap();
        assert_eq!(content(&a).await, b"From a, from b");
        assert_eq!((content(&reader).await, reader.len().await.unwrap()), (b"From a, from b".to_vec(), 14));
        // Paths see what is committed.
        assert_eq!(fs.metadata("f").await.unwrap().size, 0);
        a.flush().await.unwrap();
        assert_eq!(fs.read("f").await.unwrap(), b"From a, from b");
        b.flush().await.unwrap();
        b.set_len(4).await.unwrap();
        assert_eq!(content(&a).await, b"From");
        // A handle that only reads flushes nothing.
        reader.flush().await.unwrap();
        assert_eq!(fs.metadata("f").await.unwrap().size, 14);
        b.close().await.unwrap();
        assert_eq!(fs.read("f").await.unwrap(), b"From");
        assert_sound(&fs).await;
    });
}

#[test]
fn dropping_one_handle_loses_nothing_while_another_is_there() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let (a, b) = (fs.open_file("f", writing()).await.unwrap(), fs.open_file("f", writing()).await.unwrap());
        a.write_at(0, b"written and dropped").await.unwrap();
        drop(a);
        assert_eq!(content(&b).await, b"written and dropped");
        b.close().await.unwrap();
        assert_eq!(fs.read("f").await.unwrap(), b"written and dropped");
    });
}

#[test]
fn caches_that_are_dropped_under_open_files_cost_reads_and_nothing_else() {
    block_on(async {
        let (bed, fs) = Bed::new(4096).await;
        let mut expected = noise(1, 60_000);
        fs.write("f", &expected).await.unwrap();
        fs.engine().checkpoint().await.unwrap();
        let then = fs.snapshot();
        let file = fs.open_file("f", writing()).await.unwrap();
        file.write_at(10_000, &noise(2, 5_000)).await.unwrap();
        expected[10_000..15_000].copy_from_slice(&noise(2, 5_000));
        assert!(content(&file).await == expected && then.read("f").await.unwrap() == noise(1, 60_000));

        let calls = || bed.storage.calls().all();
        let before = calls();
        assert!(content(&file).await == expected && then.read("f").await.unwrap() == noise(1, 60_000));
        assert_eq!(calls(), before, "all of it is in memory");
        fs.drop_caches();
        assert!(content(&file).await == expected);
        assert!(calls() > before, "it comes from the storage again");
        fs.drop_caches();
        assert!(then.read("f").await.unwrap() == noise(1, 60_000));
        file.append(b"end").await.unwrap();
        expected.extend(b"end");
        fs.drop_caches();
        file.flush().await.unwrap();
        assert!(fs.read("f").await.unwrap() == expected);
        assert_sound(&fs).await;
    });
}

#[test]
fn appends_of_several_handles_do_not_overlap() {
    let (_bed, fs) = block_on(Bed::threaded(4096, Options::default()));
    const EACH: usize = 200;
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let fs = fs.clone();
            scope.spawn(move || {
                block_on(async {
                    let file = fs.open_file("f", writing().append(true)).await.unwrap();
                    for number in 0..EACH {
                        file.write_at(0, &[writer; 7]).await.unwrap();
                        if number % 50 == 0 {
                            file.flush().await.unwrap();
                        }
                    }
                    file.close().await.unwrap();
                });
            });
        }
    });
    let content = block_on(fs.read("f")).unwrap();
    assert_eq!(content.len(), 4 * 7 * EACH);
    for writer in 0..4u8 {
        assert_eq!(content.chunks(7).filter(|piece| **piece == [writer; 7]).count(), EACH);
    }
    block_on(assert_sound(&fs));
}

#[test]
fn lost_writes_are_told_to_every_handle_that_took_part_and_to_no_other() {
    block_on(async {
        let (mut bed, fs) = Bed::new(4096).await;
        fs.write("f", b"before").await.unwrap();
        let open = async || fs.open_file("f", writing()).await.unwrap();
        let (a, b, bystander) = (open().await, open().await, open().await);
        a.write_at(0, b"A").await.unwrap();
        b.write_at(1, b"B").await.unwrap();
        let other = bed.open().await.unwrap();
        other.write("f", b"theirs").await.unwrap();
        assert!(a.flush().await.unwrap_err().is_conflict());
        fs.engine().refresh().await.unwrap();
        // Told: it may go on.
        a.write_at(0, b"again").await.unwrap();
        assert!(b.write_at(1, b"B").await.unwrap_err().is_conflict());
        assert!(b.flush().await.unwrap_err().is_conflict());
        b.write_at(5, b"!").await.unwrap();
        bystander.flush().await.unwrap();
        assert_eq!(fs.read("f").await.unwrap(), b"again!");
        assert_sound(&fs).await;
    });
}

#[test]
fn a_flush_that_fails_is_told_and_wedges_nothing() {
    block_on(async {
        let (bed, fs) = Bed::new(4096).await;
        let file = fs.open_file("f", writing()).await.unwrap();
        let other = fs.open_file("f", writing()).await.unwrap();
        file.write_at(0, &noise(1, 500)).await.unwrap();
        bed.storage.fail_at_random(1, 1_000);
        assert!(file.flush().await.is_err());
        bed.storage.clear_faults();
        // What became of the commit is settled by the next.
        fs.create_dir("settled").await.unwrap();
        drop(file);
        other.write_at(0, b"goes on").await.unwrap();
        other.close().await.unwrap();
        assert!(fs.read("f").await.unwrap().starts_with(b"goes on"));
        assert_sound(&fs).await;
    });
}

#[test]
fn what_a_handle_wrote_survives_that_the_file_it_shares_with_is_removed() {
    block_on(async {
        for removed_in in ["this process", "another"] {
            let (mut bed, fs) = Bed::new(4096).await;
            let (long, other) = (noise(1, 60_000), noise(2, 30_000));
            fs.write("original", &long).await.unwrap();
            fs.write("f", &other).await.unwrap();
            let file = fs.open_file("f", writing()).await.unwrap();
            file.set_len(20_000).await.unwrap();
            file.append(&long).await.unwrap();
            file.write_at(500, b"changed").await.unwrap();
            file.write_at(90_000, &long[..9_000]).await.unwrap();
            if removed_in == "this process" {
                fs.remove_file("original").await.unwrap();
            } else {
                bed.open().await.unwrap().remove_file("original").await.unwrap();
            }
            let mut expected = other[..20_000].to_vec();
            expected.extend_from_slice(&long);
            expected.resize(90_000, 0);
            expected.extend_from_slice(&long[..9_000]);
            expected[500..507].copy_from_slice(b"changed");
            assert!(content(&file).await == expected);
            file.flush().await.unwrap();
            assert!(fs.read("f").await.unwrap() == expected, "{removed_in}");
            assert_sound(&fs).await;
            file.close().await.unwrap();
            fs.remove_file("f").await.unwrap();
            assert_eq!(chunks(&fs).await, 0);
        }
    });
}

#[test]
fn opening_to_truncate_empties_what_other_handles_wrote() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let a = fs.open_file("f", writing()).await.unwrap();
        a.write_at(0, b"not flushed").await.unwrap();
        let b = fs.open_file("f", writing().truncate(true)).await.unwrap();
        assert!(a.is_empty().await.unwrap() && b.is_empty().await.unwrap());
        a.append(b"goes on").await.unwrap();
        a.close().await.unwrap();
        assert_eq!(content(&b).await, b"goes on");
        assert_sound(&fs).await;
    });
}

#[test]
fn what_is_gathered_is_bounded_for_all_files_together() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let tuning = Tuning { write_back_bytes: 10_000, ..Tuning::default() };
        let fs = FileSystem::open_with(fs.engine().clone(), tuning).await.unwrap();
        let (mut files, mut highest) = (Vec::new(), 0);
        for number in 0..8 {
            let path = format!("f{number}");
            fs.write(&path, noise(number, 60_000)).await.unwrap();
            files.push((path.clone(), fs.open_file(path, writing()).await.unwrap(), noise(number, 60_000)));
        }
        for round in 0..40_usize {
            for (_, file, expected) in &mut files {
                let (offset, bytes) = (round * 1_400, noise(round as u64, 900));
                file.write_at(offset as u64, &bytes).await.unwrap();
                expected[offset..offset + 900].copy_from_slice(&bytes);
                highest = highest.max(fs.gathered_bytes());
            }
        }
        assert!((30_000..=40_000).contains(&highest), "{highest} bytes were gathered at most");
        for (path, file, expected) in files {
            assert!(content(&file).await == expected);
            file.close().await.unwrap();
            assert!(fs.read(path).await.unwrap() == expected);
        }
        assert_eq!(fs.gathered_bytes(), 0);
        assert_sound(&fs).await;
    });
}

#[test]
fn what_is_appended_to_many_files_and_not_stored_is_bounded_for_all_together() {
    block_on(async {
        let (_bed, fs) = Bed::threaded(4096, Options::default()).await;
        let tuning = Tuning { write_back_bytes: 10_000, ..Tuning::default() };
        let fs = FileSystem::open_with(fs.engine().clone(), tuning).await.unwrap();
        let (mut files, mut highest) = (Vec::new(), 0);
        for number in 0..8 {
            let path = format!("f{number}");
            files.push((path.clone(), fs.open_file(path, writing()).await.unwrap(), Vec::new()));
        }
        for round in 0..40_u64 {
            for (number, (_, file, expected)) in files.iter_mut().enumerate() {
                let bytes = noise(round * 8 + number as u64, 5_000);
                file.append(&bytes).await.unwrap();
                expected.extend_from_slice(&bytes);
                highest = highest.max(fs.gathered_bytes());
            }
        }
        assert!((25_000..=40_000).contains(&highest), "{highest} bytes were gathered at most");
        for (path, file, expected) in files {
            assert!(content(&file).await == expected);
            file.close().await.unwrap();
            assert!(fs.read(path).await.unwrap() == expected);
        }
        assert_eq!(fs.gathered_bytes(), 0);
        assert_sound(&fs).await;
    });
}

#[test]
fn bytes_far_apart_are_gathered_for_what_they_take_in_memory() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let tuning = Tuning { write_back_bytes: 10_000, ..Tuning::default() };
        let fs = FileSystem::open_with(fs.engine().clone(), tuning).await.unwrap();
        let mut expected = noise(1, 60_000);
        fs.write("f", &expected).await.unwrap();
        let file = fs.open_file("f", writing()).await.unwrap();
        let (mut last, mut highest, mut written_back) = (0, 0, 0);
        // By their bytes alone they would all fit.
        for offset in (0..60_000).step_by(10) {
            file.write_at(offset as u64, &[7]).await.unwrap();
            expected[offset] = 7;
            let gathered = fs.gathered_bytes();
            written_back += u32::from(gathered < last);
            (last, highest) = (gathered, highest.max(gathered));
        }
        assert!((9_000..=10_000).contains(&highest), "{highest} bytes were gathered at most");
        assert!(written_back > 50, "written back {written_back} times");
        assert!(content(&file).await == expected);
        // What is cut off is not held.
        file.set_len(0).await.unwrap();
        assert_eq!(fs.gathered_bytes(), 0);
        file.close().await.unwrap();
        assert_sound(&fs).await;
    });
}

#[test]
fn holes_and_data_are_told_apart() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let file = fs.open_file("f", writing()).await.unwrap();
        assert_eq!((file.seek_data(0).await.unwrap(), file.seek_hole(0).await.unwrap()), (None, None));
        file.write_at(100_000, b"island").await.unwrap();
        for flushed in [false, true] {
            assert_eq!(file.seek_data(0).await.unwrap(), Some(100_000));
            assert_eq!(file.seek_data(100_003).await.unwrap(), Some(100_003));
            assert_eq!(file.seek_hole(5).await.unwrap(), Some(5));
            assert_eq!(file.seek_hole(100_000).await.unwrap(), Some(100_006));
            assert_eq!((file.seek_data(100_006).await.unwrap(), file.seek_hole(100_006).await.unwrap()), (None, None));
            if !flushed {
                file.flush().await.unwrap();
            }
        }
        // What is overwritten and what waits to be cut is data, before it is flushed too; and it lies where it was put.
        for flushed in [false, true] {
            if !flushed {
                file.write_at(20_000, b"islet").await.unwrap();
                file.write_at(0, b"shore").await.unwrap();
                file.append(&noise(1, 9_000)).await.unwrap();
            }
            assert_eq!(file.seek_data(0).await.unwrap(), Some(0));
            assert!(file.seek_hole(3).await.unwrap().is_some_and(|hole| (5..20_000).contains(&hole)));
            assert!(file.seek_data(10_000).await.unwrap().is_some_and(|data| (10_000..=20_000).contains(&data)));
            assert!(file.seek_hole(20_002).await.unwrap().is_some_and(|hole| (20_005..100_000).contains(&hole)));
            assert_eq!(file.seek_data(60_000).await.unwrap(), Some(100_000));
            assert_eq!(file.seek_hole(100_003).await.unwrap(), Some(109_006));
            assert_eq!(file.seek_data(105_000).await.unwrap(), Some(105_000));
            assert_eq!((file.seek_data(109_006).await.unwrap(), file.seek_hole(109_006).await.unwrap()), (None, None));
            if !flushed {
                file.flush().await.unwrap();
            }
        }
        file.set_len(200_000).await.unwrap();
        file.close().await.unwrap();
        let past = fs.snapshot();
        fs.write("f", b"").await.unwrap();
        let file = past.open_file("f").await.unwrap();
        assert_eq!(file.seek_hole(100_001).await.unwrap(), Some(109_006));
        assert_eq!((file.seek_data(109_006).await.unwrap(), file.seek_data(u64::MAX).await.unwrap()), (None, None));
    });
}

#[test]
fn reading_notes_when_only_where_that_is_asked_for() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("f", b"content").await.unwrap();
        let read = async |rule| {
            let file = fs.open_file("f", OpenOptions::new().access_time(rule)).await.unwrap();
            content(&file).await;
            let before = fs.metadata("f").await.unwrap();
            file.close().await.unwrap();
            let after = fs.metadata("f").await.unwrap();
            assert_eq!((before.mtime, before.ctime), (after.mtime, after.ctime));
            after.atime > before.atime
        };
        assert!(!read(AccessTime::Never).await);
        assert!(read(AccessTime::Relative).await);
        assert!(!read(AccessTime::Relative).await, "it was read since it changed");
        assert!(read(AccessTime::Strict).await);
        fs.set_mode("f", 0o600).await.unwrap();
        assert!(read(AccessTime::Relative).await);
        fs.set_times("f", Timestamp::new(5, 5), None).await.unwrap();
        assert!(read(AccessTime::Relative).await);
        let file = fs.open_file("f", OpenOptions::new().access_time(AccessTime::Strict)).await.unwrap();
        let before = fs.metadata("f").await.unwrap();
        file.close().await.unwrap();
        assert_eq!(fs.metadata("f").await.unwrap().atime, before.atime, "nothing was read");
    });
}

#[test]
fn a_file_may_be_kept_otherwise_than_the_repository_says() {
    block_on(async {
        let (_bed, fs) = Bed::new(16 << 10).await;
        let text = b"all work and no play makes a dull repository ".repeat(2_000);
        let live = async || fs.engine().info().await.unwrap();
        fs.write("plain", &text).await.unwrap();
        fs.write("twice", &text).await.unwrap();
        let shared = live().await.chunks;
        let options = writing().dedup(false).compression(Compression::None).versions(0);
        let file = fs.open_file("own", options).await.unwrap();
        let expected = Settings { versions: Some(0), dedup: Some(false), compression: Some(Compression::None) };
        assert_eq!(fs.settings("own").await.unwrap(), expected);
        file.write_at(0, &text).await.unwrap();
        file.close().await.unwrap();
        assert!(live().await.chunks > shared, "nothing is shared");
        let before = live().await.chunks;
        // By a path, too, and for a file that is there.
        fs.write("own", &text).await.unwrap();
        assert_eq!(live().await.chunks, before);
        fs.set_settings("own", Settings::default()).await.unwrap();
        fs.write("own", &text).await.unwrap();
        assert_eq!(live().await.chunks, shared);
        assert_eq!(fs.settings("plain").await.unwrap(), Settings::default());
        assert!(matches!(fs.settings("/").await, Err(Error::IsADirectory { .. })));
        let reading = fs.open_file("own", OpenOptions::new().dedup(true)).await;
        assert!(matches!(reading, Err(Error::WrongAccess { .. })));
        assert_sound(&fs).await;
    });
}

#[test]
fn opening_says_how_a_file_is_kept_though_others_have_it_open_and_have_written() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let (known, text) = (noise(1, 60_000), vec![b'a'; 300_000]);
        let chunk_bytes = async || fs.engine().info().await.unwrap().chunk_bytes;
        fs.write("known", &known).await.unwrap();
        let shared = chunks(&fs).await;
        let before = fs.open_file("f", writing()).await.unwrap();
        before.append(&known).await.unwrap();
        let planted = fs.open_file("f", writing().dedup(false)).await.unwrap();
        planted.append(&known).await.unwrap();
        planted.flush().await.unwrap();
        // What was written before is shared, what was written after is not: chunks of 4 KiB.
        let grown = chunks(&fs).await - shared;
        assert!((14..=17).contains(&grown), "{grown} chunks more");
        // Whichever handle writes.
        before.write_at(30_000, &known[..20_000]).await.unwrap();
        before.flush().await.unwrap();
        assert!(chunks(&fs).await >= shared + grown + 4);
        let mut expected = known.repeat(2);
        expected[30_000..50_000].copy_from_slice(&known[..20_000]);
        assert!(content(&before).await == expected);
        assert!(fs.read("f").await.unwrap() == expected);
        // Nothing is told from growth, and compression is as said last.
        let other = fs.open_file("g", writing()).await.unwrap();
        let plain = fs.open_file("g", writing().compression(Compression::None).dedup(false)).await.unwrap();
        let small = chunk_bytes().await;
        other.append(&text).await.unwrap();
        other.close().await.unwrap();
        assert!(chunk_bytes().await >= small + 300_000);
        plain.close().await.unwrap();
        assert_sound(&fs).await;
    });
}

#[test]
fn handles_of_one_file_go_from_thread_to_thread() {
    fn shared<T: Send + Sync>(_: &T) {}
    let (_bed, fs) = block_on(Bed::threaded(4096, Options::default()));
    let file = Arc::new(block_on(fs.open_file("f", writing())).unwrap());
    shared(&file);
    std::thread::scope(|scope| {
        for number in 0..8_u8 {
            let (file, fs) = (file.clone(), fs.clone());
            scope.spawn(move || {
                block_on(async {
                    let own = fs.open_file("f", writing()).await.unwrap();
                    let offset = u64::from(number) * 5_000;
                    for handle in [&*file, &own] {
                        handle.write_at(offset, &[number; 5_000]).await.unwrap();
                        let mut out = vec![0; 5_000];
                        handle.read_exact_at(offset, &mut out).await.unwrap();
                        assert!(out.iter().all(|&byte| byte == number));
                        handle.flush().await.unwrap();
                    }
                });
            });
        }
    });
    let content = block_on(fs.read("f")).unwrap();
    assert!(content.chunks(5_000).enumerate().all(|(at, piece)| piece.iter().all(|&byte| byte == at as u8)));
    block_on(assert_sound(&fs));
}
