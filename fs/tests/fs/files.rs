//! Open files.

use futures_lite::future::block_on;
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::env::Env;
use strongroom_fs::{Attributes, Error, FsTransaction, OpenOptions, Options, Timestamp};

use super::support::{Bed, assert_sound, content, noise, writing};

#[test]
fn what_is_written_is_seen_by_the_handle_at_once_and_by_others_after_a_flush() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let file = fs.open_file("f", writing()).await.unwrap();
        let long = noise(1, 40_000);
        file.write_at(0, &long).await.unwrap();
        file.write_at(10, b"over").await.unwrap();
        file.append(b"end").await.unwrap();
        let mut expected = long.clone();
        expected[10..14].copy_from_slice(b"over");
        expected.extend_from_slice(b"end");
        assert!(content(&file).await == expected);
        assert_eq!(fs.metadata("f").await.unwrap().size, 0);
        file.flush().await.unwrap();
        assert!(fs.read("f").await.unwrap() == expected);
        assert!(content(&file).await == expected);
        file.set_len(5).await.unwrap();
        assert_eq!((content(&file).await, file.metadata().await.unwrap().size), (expected[..5].to_vec(), 5));
        file.sync().await.unwrap();
        assert_eq!(fs.read("f").await.unwrap(), &expected[..5]);
        assert_sound(&fs).await;
    });
}

#[test]
fn dropping_a_handle_drops_what_was_not_flushed_and_nothing_else() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let file = fs.open_file("f", writing()).await.unwrap();
        file.write_at(0, b"kept").await.unwrap();
        file.flush().await.unwrap();
        file.write_at(0, &noise(1, 100_000)).await.unwrap();
        drop(file);
        assert_eq!(fs.read("f").await.unwrap(), b"kept");
        fs.write("f", b"goes on").await.unwrap();
        assert_eq!(fs.read("f").await.unwrap(), b"goes on");
        assert_sound(&fs).await;
    });
}

#[test]
fn a_write_that_is_dropped_half_way_is_told_and_leaves_the_handle_usable() {
    block_on(async {
        let crash = CrashOptions::default();
        let (mut bed, fs) = Bed::with(1, 4096, Options::default(), crash, Env::deterministic).await;
        fs.write("f", b"before").await.unwrap();
        fs.engine().checkpoint().await.unwrap();
        drop(fs);
        let fs = bed.open().await.unwrap();
        let file = fs.open_file("f", writing()).await.unwrap();
        file.write_at(0, b"B").await.unwrap();
        {
            // Appending reads the last chunk, and storage takes its time.
            let mut write = std::pin::pin!(file.append(b"more"));
            assert!(futures_lite::future::poll_once(write.as_mut()).await.is_none());
        }
        assert!(matches!(file.write_at(0, b"x").await, Err(Error::Interrupted)));
        assert!(matches!(file.flush().await, Err(Error::Interrupted)));
        assert_eq!(content(&file).await, b"before");
        file.write_at(0, b"after!").await.unwrap();
        file.close().await.unwrap();
        assert_eq!(fs.read("f").await.unwrap(), b"after!");
        assert_sound(&fs).await;
    });
}

#[test]
fn a_file_that_another_process_removed_is_stale() {
    block_on(async {
        let (mut bed, fs) = Bed::new(4096).await;
        fs.write("f", b"1").await.unwrap();
        let (reader, writer) =
            (fs.open_file("f", writing()).await.unwrap(), fs.open_file("f", writing()).await.unwrap());
        writer.write_at(0, b"2").await.unwrap();
        let other = bed.open().await.unwrap();
        other.remove_file("f").await.unwrap();
        fs.engine().refresh().await.unwrap();
        assert!(matches!(writer.flush().await, Err(Error::Stale)));
        assert!(matches!(reader.read_at(0, &mut [0]).await, Err(Error::Stale)));
        assert!(matches!(reader.write_at(0, b"3").await, Err(Error::Stale)));
        assert_sound(&fs).await;
    });
}

#[test]
fn the_second_of_two_processes_that_write_one_file_gets_a_conflict_and_can_go_on() {
    block_on(async {
        let (mut bed, fs) = Bed::new(4096).await;
        fs.write("f", b"0").await.unwrap();
        let other = bed.open().await.unwrap();
        let (a, b) = (fs.open_file("f", writing()).await.unwrap(), other.open_file("f", writing()).await.unwrap());
        a.write_at(0, b"a").await.unwrap();
        b.write_at(0, b"b").await.unwrap();
        a.flush().await.unwrap();
        assert!(b.flush().await.unwrap_err().is_conflict());
        other.engine().refresh().await.unwrap();
        b.write_at(0, b"b").await.unwrap();
        b.flush().await.unwrap();
        fs.engine().refresh().await.unwrap();
        assert_eq!(fs.read("f").await.unwrap(), b"b");
    });
}

#[test]
fn changing_attributes_does_not_disturb_a_writer() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let file = fs.open_file("f", writing()).await.unwrap();
        file.write_at(0, b"content").await.unwrap();
        fs.set_mode("f", 0o600).await.unwrap();
        fs.set_times("f", None, Some(strongroom_fs::Timestamp::default())).await.unwrap();
        fs.rename("f", "g").await.unwrap();
        file.close().await.unwrap();
        assert_eq!(fs.read("g").await.unwrap(), b"content");
        assert_sound(&fs).await;
    });
}

#[test]
fn times_that_no_row_can_hold_are_refused_wherever_they_come_in() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("f", b"f").await.unwrap();
        let before = fs.metadata("f").await.unwrap();
        let (most, more) = (Timestamp::new(-1, 999_999_999), Some(Timestamp { seconds: 0, nanos: 1_000_000_000 }));
        let is_refused = |result: Result<(), Error>| match result {
            Err(Error::Core(strongroom_core::Error::Invalid(what))) => what.contains("1000000000"),
            other => panic!("{other:?}"),
        };
        assert!(is_refused(fs.set_times("f", more, None).await));
        assert!(is_refused(fs.set_times("/", most, more).await));
        for times in [(more, None), (None, more)] {
            let attributes = Attributes { mtime: times.0, atime: times.1, ..Attributes::file() };
            for path in ["f", "new"] {
                let made = fs.transact(async |transaction: &mut FsTransaction| {
                    transaction.create_file_from(path, attributes, &mut &b"other"[..]).await.map(|_| ())
                });
                assert!(is_refused(made.await));
            }
        }
        assert_eq!(fs.metadata("f").await.unwrap(), before);
        assert!(!fs.exists("new").await.unwrap());
        fs.set_times("f", most, None).await.unwrap();
        assert_eq!(Some(fs.metadata("f").await.unwrap().atime), most);
        assert_sound(&fs).await;
    });
}

#[test]
fn open_options_mean_what_they_say() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let open = async |options| fs.open_file("f", options).await;
        assert!(matches!(open(OpenOptions::new()).await, Err(Error::NotFound { .. })));
        assert!(matches!(open(OpenOptions::new().write(true)).await, Err(Error::NotFound { .. })));
        assert!(matches!(open(OpenOptions::new().create(true)).await, Err(Error::WrongAccess { .. })));
        let file = open(OpenOptions::new().write(true).create_new(true).mode(0o640)).await.unwrap();
        assert_eq!(fs.metadata("f").await.unwrap().mode, 0o640);
        file.append(b"12345").await.unwrap();
        file.close().await.unwrap();
        let again = open(OpenOptions::new().write(true).create_new(true)).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        let file = open(OpenOptions::new().append(true)).await.unwrap();
        file.write_at(0, b"67").await.unwrap();
        file.close().await.unwrap();
        assert_eq!(fs.read("f").await.unwrap(), b"1234567");
        let file = open(OpenOptions::new().read(false).write(true).truncate(true)).await.unwrap();
        assert!(file.is_empty().await.unwrap());
        assert!(matches!(file.read_at(0, &mut [0]).await, Err(Error::WrongAccess { .. })));
        let file = open(OpenOptions::new()).await.unwrap();
        assert!(matches!(file.write_at(0, b"x").await, Err(Error::WrongAccess { .. })));
        assert!(matches!(fs.open_file("/", OpenOptions::new()).await, Err(Error::IsADirectory { .. })));
    });
}
