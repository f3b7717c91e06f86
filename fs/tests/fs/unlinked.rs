//! Files that are removed while they are open: they stay for who has them, and go with the last handle.

use futures_lite::future::block_on;
use strongroom_conformance::crash::{CrashOptions, Fault};
use strongroom_core::engine;
use strongroom_core::env::Env;
use strongroom_core::storage::{ErrorKind, Operation};
use strongroom_fs::{CheckOptions, Error, FileSystem, Follow, OpenOptions, Options, XattrMode};

use super::support::{Bed, assert_sound, chunks, content, noise, writing};

#[test]
fn a_removed_file_is_read_and_written_by_those_who_have_it_open_and_goes_with_the_last() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("f", noise(1, 30_000)).await.unwrap();
        fs.set_xattr("f", "a", noise(2, 9_000), XattrMode::Set, Follow::Yes).await.unwrap();
        let (a, b) =
            (fs.open_file("f", writing()).await.unwrap(), fs.open_file("f", OpenOptions::new()).await.unwrap());
        a.write_at(0, b"pending").await.unwrap();
        fs.remove_file("f").await.unwrap();
        assert!(!fs.exists("f").await.unwrap());
        assert_sound(&fs).await;
        let summary = fs.check(CheckOptions::default(), |finding| panic!("{finding}")).await.unwrap();
        assert_eq!((summary.orphans, summary.files), (1, 0));
        a.flush().await.unwrap();
        a.append(&noise(3, 20_000)).await.unwrap();
        a.sync().await.unwrap();
        assert_eq!(a.metadata().await.unwrap().nlink, 0);
        let read = content(&b).await;
        assert!(read.len() == 50_000 && read.starts_with(b"pending"));
        // The name is free for another.
        fs.write("f", b"another").await.unwrap();
        assert_ne!(fs.metadata("f").await.unwrap().inode, a.inode());
        a.close().await.unwrap();
        assert!(content(&b).await.len() == 50_000);
        b.close().await.unwrap();
        fs.remove_file("f").await.unwrap();
        assert_eq!(chunks(&fs).await, 0);
        assert_sound(&fs).await;
    });
}

#[test]
fn every_way_to_remove_a_name_spares_those_who_have_it_open() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir("d").await.unwrap();
        for path in ["d/a", "b", "c"] {
            fs.write(path, path).await.unwrap();
        }
        fs.hard_link("c", "again").await.unwrap();
        let open = async |path: &str| fs.open_file(path, OpenOptions::new()).await.unwrap();
        let (a, b, c) = (open("d/a").await, open("b").await, open("c").await);
        fs.remove_all("d").await.unwrap();
        fs.write("x", b"over").await.unwrap();
        fs.rename("x", "b").await.unwrap();
        fs.remove_file("c").await.unwrap();
        assert_eq!(
            (content(&a).await, content(&b).await, content(&c).await),
            (b"d/a".into(), b"b".into(), b"c".into())
        );
        assert_eq!(fs.read("b").await.unwrap(), b"over");
        // A transaction that is given up removes nothing, and what it had met stays.
        let mut transaction = fs.begin();
        transaction.remove_file("again").await.unwrap();
        drop(transaction);
        for file in [a, b, c] {
            drop(file);
        }
        // Handles that are dropped cannot wait: the next change gives the space back.
        fs.write("next", b"n").await.unwrap();
        assert_eq!(fs.read("again").await.unwrap(), b"c");
        let summary = fs.check(CheckOptions::default(), |finding| panic!("{finding}")).await.unwrap();
        assert_eq!((summary.orphans, summary.files), (0, 3));
        assert_sound(&fs).await;
    });
}

#[test]
fn a_file_opened_while_its_removal_waits_to_be_committed_is_not_pulled_away() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("f", b"content").await.unwrap();
        let mut removing = fs.begin();
        removing.remove_file("f").await.unwrap();
        let file = fs.open_file("f", OpenOptions::new()).await.unwrap();
        assert!(removing.commit().await.unwrap_err().is_conflict());
        fs.remove_file("f").await.unwrap();
        assert_eq!(content(&file).await, b"content");
        file.close().await.unwrap();
        assert_eq!(chunks(&fs).await, 0);
    });
}

#[test]
fn opens_and_removals_at_once_end_well() {
    let (_bed, fs) = block_on(Bed::threaded(4096, Options::default()));
    std::thread::scope(|scope| {
        for worker in 0..3_u64 {
            let fs = fs.clone();
            scope.spawn(move || {
                block_on(async {
                    for round in 0..60 {
                        if (round + worker) % 3 == 0 {
                            match fs.remove_file("f").await {
                                Ok(()) | Err(Error::NotFound { .. }) => {}
                                Err(error) => panic!("{error}"),
                            }
                            continue;
                        }
                        let file = fs.open_file("f", writing()).await.unwrap();
                        file.append(&noise(worker, 300)).await.unwrap();
                        let read = content(&file).await;
                        assert!(read.len() >= 300);
                        file.close().await.unwrap();
                    }
                });
            });
        }
    });
    block_on(async {
        if fs.exists("f").await.unwrap() {
            fs.remove_file("f").await.unwrap();
        }
        assert_sound(&fs).await;
        assert_eq!(chunks(&fs).await, 0);
    });
}

#[test]
fn after_a_crash_the_next_writer_gives_the_space_of_removed_files_back() {
    block_on(async {
        let crash = CrashOptions::default();
        let (mut bed, fs) = Bed::with(1, 4096, Options::default(), crash, Env::deterministic).await;
        fs.write("kept", b"kept").await.unwrap();
        let held = chunks(&fs).await;
        for name in ["f", "g"] {
            fs.write(name, noise(1, 90_000)).await.unwrap();
        }
        let files = [fs.open_file("f", writing()).await.unwrap(), fs.open_file("g", writing()).await.unwrap()];
        fs.remove_file("f").await.unwrap();
        fs.remove_all("g").await.unwrap();
        files[0].append(b"more").await.unwrap();
        files[0].flush().await.unwrap();
        files[0].append(b"lost").await.unwrap();
        assert!(chunks(&fs).await > held);
        bed.storage.crash(7);
        drop((files, fs));
        let fs = bed.open().await.unwrap();
        assert_eq!(chunks(&fs).await, held);
        let summary = fs.check(CheckOptions::default(), |finding| panic!("{finding}")).await.unwrap();
        assert_eq!((summary.orphans, summary.files), (0, 1));
        assert_sound(&fs).await;
    });
}

#[test]
fn a_writer_that_opens_beside_leaves_what_others_have_open_alone() {
    block_on(async {
        let (mut bed, fs) = Bed::new(4096).await;
        fs.write("f", b"content").await.unwrap();
        let file = fs.open_file("f", OpenOptions::new()).await.unwrap();
        fs.remove_file("f").await.unwrap();
        let other = bed.open().await.unwrap();
        other.write("x", b"x").await.unwrap();
        assert_eq!(other.reclaim_orphans().await.unwrap(), 0);
        fs.engine().refresh().await.unwrap();
        assert_eq!(content(&file).await, b"content");
        file.close().await.unwrap();
        fs.remove_file("x").await.unwrap();
        assert_eq!(chunks(&fs).await, 0);
        assert_sound(&fs).await;
    });
}

#[test]
fn a_process_leaves_alone_what_another_removed_and_has_open_though_it_meant_to_remove_it_too() {
    block_on(async {
        for is_aborted in [false, true] {
            let (mut bed, fs) = Bed::new(4096).await;
            fs.write("f", noise(1, 30_000)).await.unwrap();
            fs.write("held", b"an epoch of its own").await.unwrap();
            let other = bed.open().await.unwrap();
            let (mine, theirs) =
                (fs.open_file("f", writing()).await.unwrap(), other.open_file("f", writing()).await.unwrap());
            if is_aborted {
                let mut aborted = fs.begin();
                aborted.remove_file("f").await.unwrap();
                drop(aborted);
                other.remove_file("f").await.unwrap();
                fs.engine().refresh().await.unwrap();
            } else {
                other.remove_file("f").await.unwrap();
                // It takes the name, and finds that another was faster.
                assert!(matches!(fs.remove_file("f").await, Err(Error::NotFound { .. })));
            }
            mine.close().await.unwrap();
            fs.write("next", b"n").await.unwrap();
            other.engine().refresh().await.unwrap();
            assert!(content(&theirs).await == noise(1, 30_000));
            theirs.append(b"more").await.unwrap();
            theirs.flush().await.unwrap();
            assert_eq!(theirs.len().await.unwrap(), 30_004);
            theirs.close().await.unwrap();
            assert_sound(&other).await;
            for path in ["held", "next"] {
                other.remove_file(path).await.unwrap();
            }
            assert_eq!(chunks(&other).await, 0);
        }
    });
}

#[test]
fn a_writer_that_comes_while_orphans_are_looked_for_keeps_what_it_has_open() {
    // At each wait of the one that looks, another comes, removes what it has open, and the one that looks hears of it.
    for polls in 0.. {
        let has_ended = block_on(async {
            let crash = CrashOptions::default();
            let (mut bed, fs) = Bed::with(1, 4096, Options::default(), crash, Env::deterministic).await;
            for path in ["f", "g"] {
                fs.write(path, b"content").await.unwrap();
            }
            let held = fs.open_file("g", OpenOptions::new()).await.unwrap();
            fs.remove_file("g").await.unwrap();
            fs.engine().checkpoint().await.unwrap();
            // Each look at a row is one at storage.
            let looking =
                bed.open_tuned(engine::Tuning { node_cache_bytes_max: 0, ..super::support::tuning() }).await.unwrap();
            let other = bed.open().await.unwrap();
            let theirs = other.open_file("f", OpenOptions::new()).await.unwrap();
            let mut reclaiming = std::pin::pin!(looking.reclaim_orphans());
            let mut reclaimed = None;
            for _ in 0..polls {
                reclaimed = futures_lite::future::poll_once(reclaiming.as_mut()).await;
                if reclaimed.is_some() {
                    break;
                }
            }
            other.remove_file("f").await.unwrap();
            let has_ended = reclaimed.is_some();
            if !has_ended {
                // It has heard of all before it looks on, unless it is committing something.
                let mut hearing = std::pin::pin!(looking.engine().refresh());
                let mut heard = None;
                for _ in 0..200 {
                    heard = futures_lite::future::poll_once(hearing.as_mut()).await;
                    if heard.is_some() {
                        break;
                    }
                }
                assert_eq!(reclaiming.await.unwrap(), 0, "{polls} polls");
                if heard.is_none() {
                    hearing.await.unwrap();
                }
            }
            for fs in [&fs, &other] {
                fs.engine().refresh().await.unwrap();
            }
            assert_eq!((content(&held).await, content(&theirs).await), (b"content".to_vec(), b"content".to_vec()));
            has_ended
        });
        if has_ended {
            assert!(polls > 2, "it never waited");
            return;
        }
    }
}

#[test]
fn a_removed_file_stays_with_its_process_though_that_goes_on_under_another_epoch() {
    block_on(async {
        let (mut bed, fs) = Bed::new(4096).await;
        let open_epochs = async |fs: &FileSystem| fs.engine().info().await.unwrap().open_epochs;
        fs.write("f", noise(1, 30_000)).await.unwrap();
        let file = fs.open_file("f", writing()).await.unwrap();
        fs.remove_file("f").await.unwrap();
        // A barrier fails: what was put under the epoch and not committed cannot be relied on.
        bed.storage.fail_operation(Operation::Sync, 1, Fault::Refused(ErrorKind::Unavailable));
        assert!(fs.write("x", noise(2, 30_000)).await.is_err());
        fs.write("x", noise(2, 30_000)).await.unwrap();
        fs.engine().checkpoint().await.unwrap();
        assert_eq!(open_epochs(&fs).await, 2);
        let other = bed.open().await.unwrap();
        other.write("y", b"y").await.unwrap();
        assert_eq!(other.reclaim_orphans().await.unwrap(), 0);
        fs.engine().refresh().await.unwrap();
        assert!(content(&file).await == noise(1, 30_000));
        file.append(b"more").await.unwrap();
        file.flush().await.unwrap();
        // It is deleted by its process, as always, and goes with what was put for nothing.
        file.close().await.unwrap();
        assert_sound(&fs).await;
        let summary = fs.check(CheckOptions::default(), |finding| panic!("{finding}")).await.unwrap();
        assert_eq!(summary.orphans, 0);
        fs.engine().close().await.unwrap();
        other.engine().refresh().await.unwrap();
        assert_eq!(open_epochs(&other).await, 1);
        assert_sound(&other).await;
    });
}
