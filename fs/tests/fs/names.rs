//! Names, directories and links.

use futures_lite::future::block_on;
use strongroom_core::engine::View;
use strongroom_fs::format::INODE;
use strongroom_fs::{
    AttributeChange, Attributes, Error, Kind, LINKS_MAX, NAME_BYTES_MAX, OpenOptions, SYMLINK_BYTES_MAX,
    SYMLINKS_FOLLOWED_MAX, Timestamp,
};

use super::support::{Bed, assert_sound};

macro_rules! refused {
    ($result:expr, $error:pat) => {
        match $result {
            Err($error) => {}
            other => panic!("{} answers {other:?}", stringify!($result)),
        }
    };
}

#[test]
fn what_is_made_is_there_after_opening_again() {
    block_on(async {
        let (mut bed, fs) = Bed::new(4096).await;
        fs.create_dir_all("a/b/c").await.unwrap();
        fs.write("/a/b/file", b"content").await.unwrap();
        fs.symlink("../b/file", "a/b/link").await.unwrap();
        fs.engine().close().await.unwrap();
        drop(fs);
        let fs = bed.open().await.unwrap();
        assert_eq!(fs.read("a/b/link").await.unwrap(), b"content");
        let names: Vec<_> =
            fs.read_dir("a/b").await.unwrap().into_iter().map(|entry| (entry.name, entry.kind)).collect();
        let expected = [("c", Kind::Directory), ("file", Kind::File), ("link", Kind::Symlink)];
        assert_eq!(names, expected.map(|(name, kind)| (name.as_bytes().to_vec(), kind)));
        assert_sound(&fs).await;
    });
}

#[test]
fn paths_are_walked_as_posix_says() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir_all("/a/b").await.unwrap();
        fs.write("a/f", b"1").await.unwrap();
        for path in ["a/f", "/a/f", "//a//./f", "a/b/../f", "../../a/f", "/a/b/.././f"] {
            assert_eq!(fs.read(path).await.unwrap(), b"1", "{path}");
        }
        fs.symlink("a/b", "to_b").await.unwrap();
        // `..` goes up from where the link led, not from where it is.
        assert_eq!(fs.read("to_b/../f").await.unwrap(), b"1");
        assert_eq!(fs.metadata("/").await.unwrap().kind, Kind::Directory);
        assert_eq!(fs.metadata("a/b/").await.unwrap().kind, Kind::Directory);
        assert_eq!(fs.symlink_metadata("to_b").await.unwrap().kind, Kind::Symlink);
        assert_eq!(fs.symlink_metadata("to_b/").await.unwrap().kind, Kind::Directory);
        refused!(fs.read("a/f/").await, Error::NotADirectory { .. });
        refused!(fs.read("a/f/x").await, Error::NotADirectory { .. });
        refused!(fs.read("a/x/y").await, Error::NotFound { .. });
        refused!(fs.read("a").await, Error::IsADirectory { .. });
        refused!(fs.read("").await, Error::InvalidPath { .. });
        refused!(fs.write("new/", b"").await, Error::NotFound { .. } | Error::IsADirectory { .. });
        refused!(fs.read("a\0b").await, Error::InvalidPath { .. });
        refused!(fs.read(vec![b'a'; 256]).await, Error::NameTooLong { .. });
        assert!(!fs.exists("a/x").await.unwrap() && fs.exists("a/b").await.unwrap());
    });
}

#[test]
fn a_name_may_be_any_bytes_up_to_255() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let name = [0xff; NAME_BYTES_MAX];
        fs.write(name, b"x").await.unwrap();
        let entries = fs.read_dir("/").await.unwrap();
        assert_eq!((entries[0].name.as_slice(), entries[0].name_str()), (name.as_slice(), None));
        assert_eq!(fs.read(name).await.unwrap(), b"x");
        assert_sound(&fs).await;
    });
}

#[test]
fn symbolic_links_lead_anywhere_and_loops_end() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir("d").await.unwrap();
        fs.symlink("/d/new", "absolute").await.unwrap();
        fs.write("absolute", b"through a link").await.unwrap();
        assert_eq!(fs.read("d/new").await.unwrap(), b"through a link");
        fs.symlink("loop2", "loop1").await.unwrap();
        fs.symlink("loop1", "loop2").await.unwrap();
        refused!(fs.read("loop1").await, Error::SymlinkLoop { .. });
        refused!(fs.metadata("loop2/x").await, Error::SymlinkLoop { .. });
        assert_eq!(fs.read_link("loop1").await.unwrap(), b"loop2");
        refused!(fs.read_link("d").await, Error::NotASymlink { .. });
        refused!(fs.symlink("", "empty").await, Error::InvalidPath { .. });
        refused!(fs.symlink("x", "d").await, Error::AlreadyExists { .. });
        let long = vec![b'y'; SYMLINK_BYTES_MAX];
        fs.symlink(&long, "long").await.unwrap();
        assert_eq!(fs.read_link("long").await.unwrap(), long);
        assert_eq!(fs.symlink_metadata("long").await.unwrap().size, long.len() as u64);
        refused!(fs.symlink([long.as_slice(), b"y"].concat(), "longer").await, Error::NameTooLong { .. });
        assert_sound(&fs).await;
        fs.remove_file("long").await.unwrap();
        assert_sound(&fs).await;
    });
}

#[test]
fn a_path_leads_through_forty_symbolic_links_and_no_more() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        assert_eq!(SYMLINKS_FOLLOWED_MAX, 40);
        fs.write("0", b"content").await.unwrap();
        // Each leads to the one before: through as many as it is called.
        for number in 1..=SYMLINKS_FOLLOWED_MAX + 1 {
            fs.symlink((number - 1).to_string(), number.to_string()).await.unwrap();
        }
        assert_eq!(fs.read("40").await.unwrap(), b"content");
        fs.write("40", b"changed").await.unwrap();
        assert_eq!(fs.read("0").await.unwrap(), b"changed");
        refused!(fs.read("41").await, Error::SymlinkLoop { .. });
        refused!(fs.metadata("41").await, Error::SymlinkLoop { .. });
        refused!(fs.write("41", b"lost").await, Error::SymlinkLoop { .. });
        assert_eq!(fs.read("0").await.unwrap(), b"changed");
        assert_eq!(fs.read_link("41").await.unwrap(), b"40");
        // Those on the way count too.
        fs.symlink("/", "root").await.unwrap();
        assert_eq!(fs.read("root/39").await.unwrap(), b"changed");
        refused!(fs.read("root/40").await, Error::SymlinkLoop { .. });
        assert_sound(&fs).await;
    });
}

#[test]
fn directories_are_made_once_and_removed_when_empty() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir("d/").await.unwrap();
        refused!(fs.create_dir("d").await, Error::AlreadyExists { .. });
        refused!(fs.create_dir("/").await, Error::AlreadyExists { .. });
        refused!(fs.create_dir("x/y").await, Error::NotFound { .. });
        fs.write("d/f", b"").await.unwrap();
        refused!(fs.create_dir("d/f/x").await, Error::NotADirectory { .. });
        refused!(fs.create_dir_all("d/f/x").await, Error::NotADirectory { .. });
        refused!(fs.remove_dir("d").await, Error::NotEmpty { .. });
        refused!(fs.remove_dir("d/f").await, Error::NotADirectory { .. });
        refused!(fs.remove_file("d").await, Error::IsADirectory { .. });
        refused!(fs.remove_dir("/").await, Error::InvalidPath { .. });
        refused!(fs.remove_dir("d/..").await, Error::InvalidPath { .. });
        fs.remove_file("d/f").await.unwrap();
        fs.remove_dir("d").await.unwrap();
        assert!(fs.read_dir("/").await.unwrap().is_empty());
        assert_sound(&fs).await;
    });
}

#[test]
fn a_directory_counts_its_subdirectories() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let nlink = async |path: &str| fs.metadata(path).await.unwrap().nlink;
        fs.create_dir_all("a/b").await.unwrap();
        fs.create_dir("a/c").await.unwrap();
        assert_eq!((nlink("/").await, nlink("a").await, nlink("a/b").await), (3, 4, 2));
        fs.rename("a/b", "b").await.unwrap();
        assert_eq!((nlink("/").await, nlink("a").await), (4, 3));
        fs.remove_all("a").await.unwrap();
        assert_eq!(nlink("/").await, 3);
        assert_sound(&fs).await;
    });
}

#[test]
fn rename_replaces_what_it_may_and_refuses_the_rest() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir_all("d/e").await.unwrap();
        fs.create_dir("empty").await.unwrap();
        fs.write("f", b"f").await.unwrap();
        fs.write("g", b"g").await.unwrap();
        refused!(fs.rename("d", "d/e/x").await, Error::IntoItself { .. });
        refused!(fs.rename("d", "d/x").await, Error::IntoItself { .. });
        refused!(fs.rename("f", "d").await, Error::IsADirectory { .. });
        refused!(fs.rename("d", "f").await, Error::NotADirectory { .. });
        refused!(fs.rename("empty", "d").await, Error::NotEmpty { .. });
        refused!(fs.rename("nothing", "x").await, Error::NotFound { .. });
        refused!(fs.rename("/", "x").await, Error::InvalidPath { .. });
        refused!(fs.rename("f", "h/").await, Error::NotADirectory { .. });
        refused!(fs.rename("d/e", "d/..").await, Error::InvalidPath { .. });
        fs.rename("f", "f").await.unwrap();
        fs.rename("f", "g").await.unwrap();
        assert_eq!(fs.read("g").await.unwrap(), b"f");
        fs.rename("d", "empty").await.unwrap();
        assert!(fs.exists("empty/e").await.unwrap() && !fs.exists("d").await.unwrap());
        fs.rename("empty/e", "/e/").await.unwrap();
        fs.hard_link("g", "same").await.unwrap();
        fs.rename("g", "same").await.unwrap();
        assert!(fs.exists("g").await.unwrap() && fs.exists("same").await.unwrap());
        assert_sound(&fs).await;
    });
}

#[test]
fn a_rename_that_must_not_replace_refuses_what_is_there() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("f", b"f").await.unwrap();
        fs.write("g", b"g").await.unwrap();
        fs.create_dir("empty").await.unwrap();
        fs.create_dir("d").await.unwrap();
        fs.hard_link("f", "same").await.unwrap();
        refused!(fs.rename_new("f", "g").await, Error::AlreadyExists { .. });
        refused!(fs.rename_new("f", "f").await, Error::AlreadyExists { .. });
        refused!(fs.rename_new("f", "same").await, Error::AlreadyExists { .. });
        refused!(fs.rename_new("d", "empty").await, Error::AlreadyExists { .. });
        refused!(fs.rename_new("nothing", "x").await, Error::NotFound { .. });
        refused!(fs.rename_new("d", "d/x").await, Error::IntoItself { .. });
        fs.rename_new("f", "d/f").await.unwrap();
        assert_eq!(fs.read("d/f").await.unwrap(), b"f");
        assert_eq!(fs.read("g").await.unwrap(), b"g");
        assert_sound(&fs).await;
    });
}

#[test]
fn two_names_change_places_whatever_they_stand_for() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let nlink = async |path: &str| fs.metadata(path).await.unwrap().nlink;
        fs.create_dir_all("a/d/inner").await.unwrap();
        fs.create_dir("b").await.unwrap();
        fs.write("b/f", b"file").await.unwrap();
        fs.symlink("/b/f", "l").await.unwrap();
        let before = fs.metadata("b/f").await.unwrap();
        fs.exchange("a/d/", "b/f").await.unwrap();
        assert_eq!(fs.read("a/d").await.unwrap(), b"file");
        assert!(fs.exists("b/f/inner").await.unwrap());
        assert_eq!((nlink("a").await, nlink("b").await), (2, 3));
        let after = fs.metadata("a/d").await.unwrap();
        assert!(after.inode == before.inode && after.ctime > before.ctime && after.mtime == before.mtime);
        fs.exchange("l", "a/d").await.unwrap();
        assert_eq!(fs.read_link("a/d").await.unwrap(), b"/b/f");
        assert_eq!(fs.read("l").await.unwrap(), b"file");
        fs.exchange("b", "b").await.unwrap();
        fs.hard_link("l", "same").await.unwrap();
        fs.exchange("l", "same").await.unwrap();
        refused!(fs.exchange("b", "b/f").await, Error::IntoItself { .. });
        refused!(fs.exchange("b/f/inner", "b").await, Error::IntoItself { .. });
        refused!(fs.exchange("b", "nothing").await, Error::NotFound { .. });
        refused!(fs.exchange("/", "b").await, Error::IntoItself { .. } | Error::InvalidPath { .. });
        refused!(fs.exchange("l/", "b").await, Error::NotADirectory { .. });
        refused!(fs.exchange("b/f", "b/f/..").await, Error::InvalidPath { .. });
        assert_sound(&fs).await;
    });
}

#[test]
fn a_file_has_so_many_names_and_no_more() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("f", b"f").await.unwrap();
        let inode = fs.metadata("f").await.unwrap().inode.to_be_bytes();
        let mut transaction = fs.engine().begin();
        let mut row = transaction.get(INODE, &inode).await.unwrap().unwrap().to_vec();
        row[16..20].copy_from_slice(&(LINKS_MAX - 1).to_le_bytes());
        transaction.put(INODE, &inode, &row).unwrap();
        transaction.commit().await.unwrap();
        fs.hard_link("f", "last").await.unwrap();
        refused!(fs.hard_link("f", "over").await, Error::TooManyLinks { .. });
        assert_eq!(fs.metadata("last").await.unwrap().nlink, u64::from(LINKS_MAX));
    });
}

#[test]
fn a_name_that_only_looks_like_dots_is_a_name() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        for name in ["...", ".hidden", "..x", " ", "a\\b", "\u{e9}", "e\u{301}"] {
            fs.write(name, name).await.unwrap();
            assert_eq!(fs.read(format!("./{name}")).await.unwrap(), name.as_bytes());
        }
        // Nothing is normalised: both spellings of one letter are names.
        assert_eq!(fs.read_dir("/").await.unwrap().len(), 7);
        for path in [".", "..", "d/.."] {
            fs.create_dir_all("d").await.unwrap();
            refused!(fs.remove_file(path).await, Error::IsADirectory { .. });
            refused!(fs.hard_link("...", path).await, Error::AlreadyExists { .. });
            refused!(fs.create_dir(path).await, Error::AlreadyExists { .. });
            assert_eq!(fs.metadata(path).await.unwrap().inode, strongroom_fs::ROOT);
        }
    });
}

#[test]
fn a_renamed_link_moves_and_not_what_it_leads_to() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("f", b"f").await.unwrap();
        fs.symlink("f", "l").await.unwrap();
        fs.rename("l", "m").await.unwrap();
        assert_eq!(fs.read_link("m").await.unwrap(), b"f");
        fs.remove_file("m").await.unwrap();
        assert_eq!(fs.read("f").await.unwrap(), b"f");
        assert_sound(&fs).await;
    });
}

#[test]
fn hard_links_share_content_until_the_last_is_gone() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("a", b"first").await.unwrap();
        fs.hard_link("a", "b").await.unwrap();
        fs.write("b", b"second").await.unwrap();
        assert_eq!(fs.read("a").await.unwrap(), b"second");
        let (a, b) = (fs.metadata("a").await.unwrap(), fs.metadata("b").await.unwrap());
        assert_eq!((a.inode, a.nlink), (b.inode, 2));
        assert_sound(&fs).await;
        fs.remove_file("a").await.unwrap();
        assert_eq!((fs.read("b").await.unwrap(), fs.metadata("b").await.unwrap().nlink), (b"second".to_vec(), 1));
        refused!(fs.hard_link("/", "x").await, Error::IsADirectory { .. });
        refused!(fs.hard_link("b", "b").await, Error::AlreadyExists { .. });
        fs.remove_file("b").await.unwrap();
        assert_sound(&fs).await;
    });
}

#[test]
fn a_tree_goes_with_everything_in_it_and_nothing_else() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.transact(async |transaction| {
            for index in 0..40 {
                transaction.create_dir_all(format!("t/{}/{index}", index % 7)).await?;
                transaction.write(format!("t/{}/{index}/f", index % 7), format!("{index}")).await?;
            }
            transaction.symlink("/keep", "t/link").await?;
            transaction.write("keep", b"kept").await
        })
        .await
        .unwrap();
        fs.hard_link("keep", "t/hard").await.unwrap();
        fs.remove_all("t").await.unwrap();
        let names: Vec<_> = fs.read_dir("/").await.unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [b"keep"]);
        assert_eq!(fs.metadata("keep").await.unwrap().nlink, 1);
        assert_sound(&fs).await;
        fs.create_dir_all("x/y").await.unwrap();
        fs.remove_all("/").await.unwrap();
        assert!(fs.read_dir("/").await.unwrap().is_empty());
        refused!(fs.remove_all("x").await, Error::NotFound { .. });
        assert_sound(&fs).await;
    });
}

#[test]
fn attributes_are_kept_and_times_follow_the_changes() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("f", b"1").await.unwrap();
        let made = fs.metadata("f").await.unwrap();
        assert_eq!((made.mode, made.mtime), (0o644, made.btime));
        fs.set_mode("f", 0o600).await.unwrap();
        fs.set_owner("f", 10, 20).await.unwrap();
        let before = Timestamp::new(-5, 7).unwrap();
        fs.set_times("f", Some(before), Some(before)).await.unwrap();
        let set = fs.metadata("f").await.unwrap();
        assert_eq!((set.mode, set.uid, set.gid, set.mtime, set.atime), (0o600, 10, 20, before, before));
        assert!(set.ctime > made.ctime && set.btime == made.btime);
        fs.write("f", b"2").await.unwrap();
        let written = fs.metadata("f").await.unwrap();
        assert!(written.mtime > made.mtime && written.ctime > set.ctime);
        assert_eq!((written.mode, written.uid), (0o600, 10));
        fs.set_mode("f", 0o640).await.unwrap();
        assert_eq!(fs.metadata("f").await.unwrap().mtime, written.mtime);

        fs.create_dir("d").await.unwrap();
        fs.set_times("d", None, Some(before)).await.unwrap();
        assert_eq!(fs.metadata("d").await.unwrap().mtime, before);
        fs.write("d/f", b"").await.unwrap();
        assert!(fs.metadata("d").await.unwrap().mtime > made.mtime);

        fs.symlink("f", "l").await.unwrap();
        let change = AttributeChange { uid: Some(99), ..AttributeChange::default() };
        fs.set_symlink_attributes("l", change).await.unwrap();
        assert_eq!((fs.symlink_metadata("l").await.unwrap().uid, fs.metadata("f").await.unwrap().uid), (99, 10));
    });
}

#[test]
fn times_that_are_set_hold_though_the_clock_was_set_back_since_the_content_changed() {
    block_on(async {
        let (mut bed, fs) = Bed::new(4096).await;
        fs.create_dir("d").await.unwrap();
        for path in ["f", "g", "d/f"] {
            for _ in 0..50 {
                fs.write(path, b"content").await.unwrap();
            }
        }
        drop(fs);
        // The clock of the next process begins where that of the first one did.
        let fs = bed.open().await.unwrap();
        let mtime = Timestamp::new(1_000_000, 5);
        for path in ["f", "d"] {
            fs.set_times(path, None, mtime).await.unwrap();
            assert_eq!(Some(fs.metadata(path).await.unwrap().mtime), mtime, "{path}");
        }
        let attributes = Attributes { mtime, ..Attributes::file() };
        fs.transact(async |transaction| transaction.create_file_from("g", attributes, &mut &b"next"[..]).await)
            .await
            .unwrap();
        assert_eq!(Some(fs.metadata("g").await.unwrap().mtime), mtime);
        // What is written after that overrules it.
        fs.write("f", b"next").await.unwrap();
        assert!(Some(fs.metadata("f").await.unwrap().mtime) > mtime);
    });
}

#[test]
fn what_is_written_overrules_a_time_set_by_hand_though_the_clock_was_set_back_since() {
    block_on(async {
        let (mut bed, fs) = Bed::new(4096).await;
        let mtime = Timestamp::new(1_000_000, 5);
        for path in ["f", "g"] {
            fs.write(path, b"content").await.unwrap();
            for _ in 0..50 {
                fs.set_times(path, None, mtime).await.unwrap();
            }
        }
        drop(fs);
        let fs = bed.open().await.unwrap();
        fs.write("f", b"another").await.unwrap();
        let file = fs.open_file("g", OpenOptions::new().write(true)).await.unwrap();
        file.write_at(0, b"another").await.unwrap();
        file.close().await.unwrap();
        for path in ["f", "g"] {
            assert!(Some(fs.metadata(path).await.unwrap().mtime) > mtime, "{path}");
        }
    });
}

#[test]
fn an_import_sets_attributes_as_it_makes() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let mtime = Timestamp::new(1_000_000, 5);
        let attributes = Attributes { mode: 0o751, uid: 1, gid: 2, mtime, atime: mtime };
        fs.transact(async |transaction| {
            transaction.create_dir_with("d", attributes).await?;
            transaction.symlink_with("x", "l", attributes).await?;
            transaction.create_file_from("f", attributes, &mut &b"content"[..]).await
        })
        .await
        .unwrap();
        for path in ["d", "l", "f"] {
            let metadata = fs.symlink_metadata(path).await.unwrap();
            assert_eq!((metadata.mode, metadata.uid, Some(metadata.mtime)), (0o751, 1, mtime), "{path}");
        }
        // Again, over what is there.
        fs.transact(async |transaction| transaction.create_file_from("f", attributes, &mut &b"other"[..]).await)
            .await
            .unwrap();
        assert_eq!(Some(fs.metadata("f").await.unwrap().mtime), mtime);
        assert_eq!(fs.read("f").await.unwrap(), b"other");
    });
}

#[test]
fn a_transaction_is_all_or_nothing() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let result: Result<(), Error> = fs
            .transact(async |transaction| {
                transaction.write("a", b"1").await?;
                assert_eq!(transaction.read("a").await?, b"1");
                transaction.create_dir("b").await?;
                transaction.create_dir("b").await
            })
            .await;
        refused!(result, Error::AlreadyExists { .. });
        assert!(fs.read_dir("/").await.unwrap().is_empty());
        // What was refused changed nothing, so the rest may be kept.
        let mut transaction = fs.begin();
        transaction.create_dir("b").await.unwrap();
        refused!(transaction.create_dir("b").await, Error::AlreadyExists { .. });
        refused!(transaction.rename("b", "b/c").await, Error::IntoItself { .. });
        transaction.commit().await.unwrap();
        assert!(fs.exists("b").await.unwrap());
        assert_sound(&fs).await;
    });
}

#[test]
fn a_transaction_with_an_unfinished_file_cannot_be_committed() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let mut transaction = fs.begin();
        let mut writer = transaction.write_file("f", Attributes::file()).await.unwrap();
        writer.write(b"half").await.unwrap();
        drop(writer);
        refused!(transaction.commit().await, Error::Interrupted);
        assert!(!fs.exists("f").await.unwrap());
    });
}

#[test]
fn a_transaction_in_which_an_operation_was_left_half_done_cannot_be_committed_whatever_comes_after_it() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("kept", b"kept").await.unwrap();
        let mut transaction = fs.begin();
        let mut writer = transaction.write_file("kept", Attributes::file()).await.unwrap();
        writer.write(b"half").await.unwrap();
        drop(writer);
        transaction.write("g", b"whole").await.unwrap();
        transaction.create_dir_all("d/e").await.unwrap();
        refused!(transaction.commit().await, Error::Interrupted);
        assert_eq!(fs.read_dir("/").await.unwrap().len(), 1);
        assert_eq!(fs.read("kept").await.unwrap(), b"kept");
        assert_sound(&fs).await;
    });
}

#[test]
fn a_snapshot_stays_as_it_was() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("f", b"before").await.unwrap();
        let snapshot = fs.snapshot();
        let file = snapshot.open_file("f").await.unwrap();
        fs.write("f", b"after!").await.unwrap();
        fs.write("g", b"").await.unwrap();
        assert_eq!(snapshot.read("f").await.unwrap(), b"before");
        let mut out = [0; 6];
        file.read_exact_at(0, &mut out).await.unwrap();
        assert_eq!(&out, b"before");
        assert!(!snapshot.exists("g").await.unwrap());
        refused!(file.write_at(0, b"x").await, Error::WrongAccess { .. });
    });
}

#[test]
fn a_repository_holds_one_file_system() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let again = strongroom_fs::FileSystem::create(fs.engine().clone(), strongroom_fs::Options::default()).await;
        refused!(again, Error::Core(strongroom_core::Error::AlreadyExists));
    });
}
