//! Copies that share what they copy.

use std::cell::Cell;

use futures_lite::future::{block_on, yield_now, zip};
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::env::Env;
use strongroom_fs::{
    AttributeChange, Attributes, Error, FileSystem, Follow, FsSnapshot, Kind, OpenOptions, Options, Timestamp,
    XattrMode,
};

use super::support::{Bed, Seen, assert_sound, chunks, noise, tree};

/// The state of now, which stays.
async fn kept(fs: &FileSystem) -> FsSnapshot {
    fs.engine().create_snapshot("then").await.unwrap();
    fs.at(fs.engine().open_snapshot("then").await.unwrap())
}

#[test]
fn a_copy_shares_its_chunks_until_one_of_the_two_changes() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let content = noise(1, 100_000);
        fs.write("f", &content).await.unwrap();
        fs.set_len("f", 150_000).await.unwrap();
        fs.set_mode("f", 0o600).await.unwrap();
        let held = chunks(&fs).await;
        assert_eq!(fs.copy("f", "g").await.unwrap(), 150_000);
        assert_eq!(chunks(&fs).await, held);
        let (f, g) = (fs.metadata("f").await.unwrap(), fs.metadata("g").await.unwrap());
        assert!(f.inode != g.inode && g.mode == 0o600 && g.size == 150_000);
        assert!(fs.read("g").await.unwrap() == fs.read("f").await.unwrap());
        assert_sound(&fs).await;
        fs.transact(async |transaction| transaction.write_at("g", 50_000, b"changed").await).await.unwrap();
        assert!(fs.read("f").await.unwrap()[..100_000] == content);
        fs.remove_file("f").await.unwrap();
        assert_eq!(&fs.read("g").await.unwrap()[50_000..50_007], b"changed");
        assert_sound(&fs).await;
        fs.remove_file("g").await.unwrap();
        assert_eq!(chunks(&fs).await, 0);
    });
}

#[test]
fn a_copy_over_a_file_replaces_its_content_and_keeps_its_attributes() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("f", b"new").await.unwrap();
        fs.write("g", noise(1, 50_000)).await.unwrap();
        fs.set_mode("g", 0o640).await.unwrap();
        let before = fs.metadata("g").await.unwrap();
        fs.symlink("g", "l").await.unwrap();
        fs.copy("f", "l").await.unwrap();
        let after = fs.metadata("g").await.unwrap();
        assert_eq!((after.inode, after.mode, after.size), (before.inode, 0o640, 3));
        assert!(after.mtime > before.mtime);
        assert_eq!(fs.copy("f", "f").await.unwrap(), 3);
        assert!(matches!(fs.copy("f", "/").await, Err(Error::IsADirectory { .. })));
        assert!(matches!(fs.copy("/", "x").await, Err(Error::IsADirectory { .. })));
        assert!(matches!(fs.copy("x", "y").await, Err(Error::NotFound { .. })));
        assert_eq!(fs.read("f").await.unwrap(), b"new");
        // Made and copied in one transaction, before any of it is committed.
        fs.transact(async |transaction| {
            transaction.write("n", noise(9, 9_000)).await?;
            transaction.copy("n", "o").await?;
            transaction.remove_file("n").await?;
            transaction.copy_range("o", 100, "o", 20_000, 500).await
        })
        .await
        .unwrap();
        assert!(fs.read("o").await.unwrap()[20_000..] == noise(9, 9_000)[100..600]);
        assert_sound(&fs).await;
    });
}

#[test]
fn stretches_are_shared_at_any_offsets() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let (from, to) = (noise(1, 60_000), noise(2, 40_000));
        for (from_offset, to_offset, length) in [
            (0, 0, 60_000),
            (0, 40_000, 100),
            (1, 39_999, 2),
            (59_999, 0, 10),
            (20_000, 50_000, 5_000),
            (777, 12_345, 20_001),
            (60_000, 0, 5),
        ] {
            fs.write("f", &from).await.unwrap();
            fs.write("g", &to).await.unwrap();
            let copied = fs.copy_range("f", from_offset, "g", to_offset, length).await.unwrap();
            let mut expected = to.clone();
            let source = &from[from_offset as usize..(from_offset + copied) as usize];
            assert_eq!(copied, length.min(60_000 - from_offset));
            if copied > 0 {
                let (start, end) = (to_offset as usize, to_offset as usize + source.len());
                expected.resize(expected.len().max(end), 0);
                expected[start..end].copy_from_slice(source);
            }
            assert!(fs.read("g").await.unwrap() == expected, "{from_offset} {to_offset} {length}");
            assert_sound(&fs).await;
        }
        let refused = fs.copy_range("g", 0, "g", 10, 11).await;
        assert!(matches!(refused, Err(Error::InvalidPath { .. })));
        assert_eq!(fs.copy_range("g", 0, "g", 11, 11).await.unwrap(), 11);
        let too_far = fs.copy_range("f", 0, "g", u64::MAX - 5, 10).await;
        assert!(matches!(too_far, Err(Error::FileTooLarge { .. })));
        assert_sound(&fs).await;
    });
}

#[test]
fn a_copy_in_small_steps_does_not_crumble_the_file() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let content = noise(3, 30_000);
        fs.write("f", &content).await.unwrap();
        fs.write("g", b"").await.unwrap();
        for step in 0..100 {
            fs.copy_range("f", step * 300, "g", step * 300, 300).await.unwrap();
        }
        assert!(fs.read("g").await.unwrap() == content);
        let extents = async |path: &str| {
            let inode = fs.metadata(path).await.unwrap().inode.to_be_bytes();
            use strongroom_core::engine::{Direction, View};
            let snapshot = fs.engine().snapshot();
            let (low, high) = ([&inode[..], &[0; 8]].concat(), [&inode[..], &[0xff; 8]].concat());
            let range = (std::ops::Bound::Included(&low[..]), std::ops::Bound::Included(&high[..]));
            let mut scan = snapshot.scan(strongroom_fs::format::EXTENT, range, Direction::Ascending);
            let mut count = 0;
            while scan.next().await.unwrap().is_some() {
                count += 1;
            }
            count
        };
        assert_eq!(extents("g").await, extents("f").await);
        assert_sound(&fs).await;
    });
}

#[test]
fn a_hole_is_punched_and_reads_as_zeros() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let mut content = noise(1, 80_000);
        fs.write("f", &content).await.unwrap();
        for (offset, length) in [(10, 5), (20_000, 30_000), (79_999, 100), (80_000, 5), (0, 0)] {
            fs.punch_hole("f", offset, length).await.unwrap();
            let end = (offset + length).min(80_000);
            for byte in &mut content[offset.min(80_000) as usize..end as usize] {
                *byte = 0;
            }
            assert!(fs.read("f").await.unwrap() == content);
            assert_sound(&fs).await;
        }
        fs.punch_hole("f", 0, u64::MAX).await.unwrap();
        assert_eq!(fs.metadata("f").await.unwrap().size, 80_000);
        assert_eq!(chunks(&fs).await, 0);
    });
}

async fn build(fs: &FileSystem) {
    let time = Timestamp::new(1_000_000, 5);
    fs.transact(async |transaction| {
        let attributes = Attributes { mode: 0o750, uid: 3, gid: 4, mtime: time, atime: time };
        transaction.create_dir_with("t", attributes).await?;
        transaction.create_dir("t/d").await?;
        transaction.create_file_from("t/d/f", attributes, &mut &noise(1, 70_000)[..]).await?;
        transaction.hard_link("t/d/f", "t/hard").await?;
        transaction.symlink("d/f", "t/link").await?;
        transaction.symlink(vec![b'x'; 4_000], "t/long").await?;
        transaction.write("t/sparse", b"").await?;
        transaction.write_at("t/sparse", 1 << 30, b"island").await?;
        for (path, follow) in [("t", Follow::Yes), ("t/d/f", Follow::Yes), ("t/link", Follow::No)] {
            transaction.set_xattr(path, "small", path, XattrMode::Set, follow).await?;
            transaction.set_xattr(path, "large", noise(7, 40_000), XattrMode::Set, follow).await?;
        }
        transaction.set_attributes("t", strongroom_fs::AttributeChange { mtime: time, ..Default::default() }).await
    })
    .await
    .unwrap();
}

#[test]
fn a_tree_is_copied_with_everything_that_belongs_to_it() {
    block_on(async {
        let (mut bed, fs) = Bed::new(4096).await;
        build(&fs).await;
        let held = chunks(&fs).await;
        fs.copy_all("t", "u").await.unwrap();
        assert_eq!(chunks(&fs).await, held);
        fs.engine().close().await.unwrap();
        drop(fs);
        let fs = bed.open().await.unwrap();
        for path in ["", "/d", "/d/f", "/hard", "/link", "/long", "/sparse"] {
            let (from, to) = (format!("t{path}"), format!("u{path}"));
            let (a, b) = (fs.symlink_metadata(&from).await.unwrap(), fs.symlink_metadata(&to).await.unwrap());
            assert_ne!(a.inode, b.inode);
            assert_eq!(
                (a.kind, a.mode, a.uid, a.gid, a.size, a.nlink, a.mtime, a.atime, a.has_xattrs),
                (b.kind, b.mode, b.uid, b.gid, b.size, b.nlink, b.mtime, b.atime, b.has_xattrs),
                "{path}"
            );
            assert!(b.btime > a.btime);
            let names = fs.xattrs(&from, Follow::No).await.unwrap();
            assert_eq!(names, fs.xattrs(&to, Follow::No).await.unwrap());
            for name in names {
                let (a, b) = (fs.xattr(&from, &name, Follow::No), fs.xattr(&to, &name, Follow::No));
                assert!(a.await.unwrap() == b.await.unwrap());
            }
            if a.kind == Kind::Symlink {
                assert_eq!(fs.read_link(&from).await.unwrap(), fs.read_link(&to).await.unwrap());
            }
        }
        assert_eq!(fs.metadata("u/hard").await.unwrap().inode, fs.metadata("u/d/f").await.unwrap().inode);
        assert!(fs.read("u/d/f").await.unwrap() == noise(1, 70_000));
        assert_sound(&fs).await;
        fs.remove_all("t").await.unwrap();
        assert!(fs.read("u/d/f").await.unwrap() == noise(1, 70_000));
        fs.remove_all("u").await.unwrap();
        assert_eq!(chunks(&fs).await, 0);
        assert_sound(&fs).await;
    });
}

#[test]
fn a_tree_is_not_copied_into_itself_nor_over_anything() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir_all("t/d").await.unwrap();
        fs.write("f", b"f").await.unwrap();
        assert!(matches!(fs.copy_all("t", "t/d/u").await, Err(Error::IntoItself { .. })));
        assert!(matches!(fs.copy_all("/", "u").await, Err(Error::IntoItself { .. })));
        assert!(matches!(fs.copy_all("t", "f").await, Err(Error::AlreadyExists { .. })));
        assert!(matches!(fs.copy_all("x", "u").await, Err(Error::NotFound { .. })));
        assert!(matches!(fs.copy_all("f", "u/").await, Err(Error::IsADirectory { .. } | Error::NotADirectory { .. })));
        fs.copy_all("f", "t/d/g").await.unwrap();
        fs.copy_all("t/", "u/").await.unwrap();
        let seen = tree(&fs).await;
        assert_eq!(seen.get("/u/d/g"), Some(&Seen::File(b"f".to_vec())));
        assert_sound(&fs).await;
    });
}

#[test]
fn a_large_tree_is_copied_in_several_transactions() {
    block_on(async {
        let (_bed, fs) = Bed::new(64 << 10).await;
        const FILES: usize = 10_500;
        fs.transact(async |transaction| {
            for directory in 0..3 {
                transaction.create_dir_all(format!("t/{directory}")).await?;
            }
            transaction.write("t/0/shared", b"shared").await?;
            for file in 0..FILES {
                transaction.hard_link("t/0/shared", format!("t/{}/{file:05}", file % 3)).await?;
            }
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
        let before = fs.snapshot().sequence();
        fs.copy_all("t", "u").await.unwrap();
        assert!(fs.snapshot().sequence() >= before + 2);
        for directory in 0..3 {
            let names = async |tree: &str| fs.read_dir(format!("{tree}/{directory}")).await.unwrap();
            let (from, to) = (names("t").await, names("u").await);
            assert!(from.iter().map(|entry| &entry.name).eq(to.iter().map(|entry| &entry.name)));
            let metadata = fs.metadata(format!("u/{directory}")).await.unwrap();
            assert_eq!(metadata.mtime, fs.metadata(format!("t/{directory}")).await.unwrap().mtime);
        }
        assert_eq!(fs.metadata("u/2/00002").await.unwrap().nlink, FILES as u64 + 1);
        assert_sound(&fs).await;
    });
}

#[test]
fn a_copy_of_what_has_several_names_is_made_anew_where_others_removed_the_first_meanwhile() {
    block_on(async {
        let crash = CrashOptions { yields: true, ..CrashOptions::default() };
        let (_bed, fs) = Bed::with(1, 64 << 10, Options::default(), crash, Env::deterministic).await;
        fs.transact(async |transaction| {
            transaction.create_dir_all("t/1").await?;
            transaction.write("t/0", b"has two names").await?;
            transaction.write("t/1/0", b"has many").await?;
            // So many that the second name of the first file comes with the third transaction.
            for name in 1..20_500 {
                transaction.hard_link("t/1/0", format!("t/1/{name:05}")).await?;
            }
            transaction.hard_link("t/0", "t/2").await
        })
        .await
        .unwrap();
        let is_copied = Cell::new(false);
        let copy = async {
            fs.copy_all("t", "u").await.unwrap();
            is_copied.set(true);
        };
        let meanwhile = async {
            while !fs.exists("u/0").await.unwrap() {
                yield_now().await;
            }
            let open = fs.open_file("u/0", OpenOptions::new()).await.unwrap();
            fs.remove_file("u/0").await.unwrap();
            assert!(!is_copied.get());
            open
        };
        let ((), open) = zip(copy, meanwhile).await;
        assert_eq!((open.metadata().await.unwrap().nlink, fs.metadata("u/2").await.unwrap().nlink), (0, 1));
        assert_eq!(fs.read("u/2").await.unwrap(), b"has two names");
        drop(open);
        fs.reclaim_orphans().await.unwrap();
        assert_eq!(fs.read("u/2").await.unwrap(), b"has two names");
        assert_sound(&fs).await;
    });
}

#[test]
fn states_of_another_repository_and_of_another_opening_are_refused() {
    block_on(async {
        let (mut bed, fs) = Bed::new(4096).await;
        let (_other, other) = Bed::new(4096).await;
        fs.write("f", noise(1, 10_000)).await.unwrap();
        other.write("f", noise(2, 10_000)).await.unwrap();
        let again = bed.open().await.unwrap();
        for state in [other.snapshot(), again.snapshot()] {
            let refused = |result: Result<(), Error>| match result {
                Err(Error::Core(strongroom_core::Error::Invalid(what))) => what.contains("another repository"),
                other => panic!("{other:?}"),
            };
            assert!(refused(fs.restore_from(&state, "f").await));
            let copied = fs.transact(async |transaction| transaction.copy_from(&state, "f", "g").await);
            assert!(refused(copied.await));
        }
        assert_eq!(fs.read("f").await.unwrap(), noise(1, 10_000));
        assert!(!fs.exists("g").await.unwrap());
        assert_sound(&fs).await;
    });
}

#[test]
fn what_is_restored_from_a_state_gets_the_directories_that_it_was_in_back_too() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir_all("a/private").await.unwrap();
        fs.write("a/private/key", b"key").await.unwrap();
        fs.set_xattr("a/private", "user.kept", b"yes", XattrMode::Set, Follow::No).await.unwrap();
        let change = AttributeChange {
            mode: Some(0o700),
            uid: Some(77),
            gid: Some(78),
            mtime: Some(Timestamp::from_nanos(1_000_000_000)),
            atime: None,
        };
        fs.set_attributes("a/private", change).await.unwrap();
        let then = kept(&fs).await;
        fs.remove_all("a").await.unwrap();
        fs.restore_from(&then, "a/../a//private/key/").await.unwrap();
        let metadata = fs.metadata("a/private").await.unwrap();
        let kept = (metadata.mode, metadata.uid, metadata.gid, metadata.mtime);
        assert_eq!(kept, (0o700, 77, 78, Timestamp::from_nanos(1_000_000_000)));
        assert_eq!(fs.xattr("a/private", "user.kept", Follow::No).await.unwrap().unwrap(), b"yes"[..]);
        assert_eq!(fs.read("a/private/key").await.unwrap(), b"key"[..]);
        assert_sound(&fs).await;
    });
}

#[test]
fn nothing_is_restored_through_a_link() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir_all("d/in").await.unwrap();
        fs.write("d/in/f", b"then").await.unwrap();
        fs.symlink("d", "l").await.unwrap();
        let then = kept(&fs).await;
        // By a link that was there: the file itself is named.
        let error = fs.restore_from(&then, "l/in/f").await.unwrap_err();
        assert!(matches!(&error, Error::InvalidPath { path, .. } if path == "/l"), "{error}");
        // Nor by a way back that went through one: what would be removed was not there.
        fs.write("x", b"since").await.unwrap();
        let mut transaction = fs.begin();
        let error = transaction.restore_from(&then, "l/../x").await.unwrap_err();
        assert!(matches!(&error, Error::NotFound { path } if path == "/x"), "{error}");
        transaction.commit().await.unwrap();
        assert_eq!(fs.read("x").await.unwrap(), b"since"[..]);
        // By a link that came since: what is behind it is another file.
        fs.remove_all("d").await.unwrap();
        fs.create_dir_all("other/in").await.unwrap();
        fs.write("other/in/f", b"of others").await.unwrap();
        fs.symlink("other", "d").await.unwrap();
        let error = fs.restore_from(&then, "d/in/f").await.unwrap_err();
        assert!(matches!(&error, Error::InvalidPath { path, .. } if path == "/d"), "{error}");
        assert_eq!(fs.read("other/in/f").await.unwrap(), b"of others"[..]);
        // One that leads nowhere is no way to make something there.
        fs.remove_file("d").await.unwrap();
        fs.symlink("nowhere", "d").await.unwrap();
        fs.restore_from(&then, "d/in/f").await.unwrap_err();
        assert!(matches!(fs.metadata("nowhere").await, Err(Error::NotFound { .. })));
        // In place of the link itself, it comes back.
        fs.restore_from(&then, "d").await.unwrap();
        assert_eq!(fs.read("d/in/f").await.unwrap(), b"then"[..]);
        fs.remove_all("d").await.unwrap();
        fs.write("d", b"a file").await.unwrap();
        let error = fs.restore_from(&then, "d/in/f").await.unwrap_err();
        assert!(matches!(&error, Error::NotADirectory { path } if path == "/d"), "{error}");
        assert_eq!(fs.read("d").await.unwrap(), b"a file"[..]);
        assert_sound(&fs).await;
    });
}

#[test]
fn content_of_a_state_that_nobody_kept_is_gone_once_it_was_given_up_and_nothing_is_run_again_for_it() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let is_gone = |result: Result<(), Error>| {
            assert!(matches!(result, Err(Error::Core(strongroom_core::Error::ContentGone))), "{result:?}");
        };
        fs.write("f", noise(1, 20_000)).await.unwrap();
        let then = fs.snapshot();
        fs.remove_file("f").await.unwrap();
        let mut runs = 0;
        let restored = fs.transact(async |transaction| {
            runs += 1;
            transaction.restore_from(&then, "f").await
        });
        is_gone(restored.await);
        assert_eq!(runs, 1);
        is_gone(fs.restore_from(&then, "f").await);
        // Given up while it runs, that is a conflict like others, and the next run is told.
        fs.write("g", noise(2, 20_000)).await.unwrap();
        let (then, mut runs) = (fs.snapshot(), 0);
        let copied = fs.transact(async |transaction| {
            runs += 1;
            transaction.copy_from(&then, "g", "h").await?;
            if runs == 1 {
                fs.remove_file("g").await?;
            }
            Ok::<_, Error>(())
        });
        is_gone(copied.await);
        assert_eq!(runs, 2);
        assert!(fs.read_dir("/").await.unwrap().is_empty());
        assert_sound(&fs).await;
    });
}
