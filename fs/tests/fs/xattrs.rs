//! Extended attributes.

use futures_lite::future::block_on;
use strongroom_core::engine::Table;
use strongroom_fs::format::{INODE, XATTR};
use strongroom_fs::{
    CheckOptions, Error, Follow, XATTR_LIST_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XattrMode,
};

use super::support::{Bed, assert_sound, noise};

const SET: XattrMode = XattrMode::Set;

#[test]
fn files_directories_and_links_have_attributes_of_their_own() {
    block_on(async {
        let (mut bed, fs) = Bed::new(4096).await;
        fs.write("f", b"content").await.unwrap();
        fs.create_dir("d").await.unwrap();
        fs.symlink("f", "l").await.unwrap();
        assert!(!fs.metadata("f").await.unwrap().has_xattrs);
        let before = fs.metadata("f").await.unwrap();
        fs.set_xattr("f", "user.a", b"of the file", SET, Follow::Yes).await.unwrap();
        fs.set_xattr("d", "user.a", b"of the directory", SET, Follow::No).await.unwrap();
        fs.set_xattr("l", "user.a", b"of the link", SET, Follow::No).await.unwrap();
        fs.set_xattr("l", "user.b", b"through the link", SET, Follow::Yes).await.unwrap();
        let after = fs.metadata("f").await.unwrap();
        assert!(after.has_xattrs && after.ctime > before.ctime && after.mtime == before.mtime);
        fs.engine().close().await.unwrap();
        drop(fs);
        let fs = bed.open().await.unwrap();
        let get = async |path: &str, name: &str, follow| fs.xattr(path, name, follow).await.unwrap();
        assert_eq!(get("f", "user.a", Follow::Yes).await.unwrap(), b"of the file");
        assert_eq!(get("d", "user.a", Follow::Yes).await.unwrap(), b"of the directory");
        assert_eq!(get("l", "user.a", Follow::No).await.unwrap(), b"of the link");
        assert_eq!(get("l", "user.a", Follow::Yes).await.unwrap(), b"of the file");
        assert_eq!(get("l", "user.b", Follow::No).await, None);
        assert_eq!(fs.xattrs("f", Follow::Yes).await.unwrap(), [b"user.a", b"user.b"]);
        assert!(fs.xattrs("/", Follow::Yes).await.unwrap().is_empty());
        assert_sound(&fs).await;
        let summary = fs.check(CheckOptions::default(), |finding| panic!("{finding}")).await.unwrap();
        assert_eq!(summary.xattrs, 4);
    });
}

#[test]
fn making_replacing_and_removing_say_what_they_find() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("f", b"").await.unwrap();
        let set = async |mode| fs.set_xattr("f", "a", b"1", mode, Follow::Yes).await;
        assert!(matches!(set(XattrMode::Replace).await, Err(Error::NoXattr { .. })));
        set(XattrMode::Create).await.unwrap();
        assert!(matches!(set(XattrMode::Create).await, Err(Error::AlreadyExists { .. })));
        set(XattrMode::Replace).await.unwrap();
        fs.remove_xattr("f", "a", Follow::Yes).await.unwrap();
        assert!(matches!(fs.remove_xattr("f", "a", Follow::Yes).await, Err(Error::NoXattr { .. })));
        assert!(!fs.metadata("f").await.unwrap().has_xattrs);
        for name in [&b""[..], b"a\0b"] {
            let refused = fs.set_xattr("f", name, b"", SET, Follow::Yes).await;
            assert!(matches!(refused, Err(Error::InvalidPath { .. })));
        }
        assert!(matches!(fs.set_xattr("x", "a", b"", SET, Follow::Yes).await, Err(Error::NotFound { .. })));
        assert_sound(&fs).await;
    });
}

#[test]
fn every_size_up_to_the_limits_comes_back_and_none_above() {
    block_on(async {
        for block_bytes in [4096, 128 << 10] {
            let (_bed, fs) = Bed::new(block_bytes).await;
            fs.write("f", b"").await.unwrap();
            let longest = vec![0xff; XATTR_NAME_BYTES_MAX];
            for length in [0, 1, 100, 130, 140, 1_000, 2_000, 16_384, XATTR_VALUE_BYTES_MAX] {
                let value = noise(length as u64, length);
                fs.set_xattr("f", &longest, &value, SET, Follow::Yes).await.unwrap();
                assert!(fs.xattr("f", &longest, Follow::Yes).await.unwrap().unwrap() == value, "{length}");
                assert_sound(&fs).await;
            }
            let over = vec![0; XATTR_VALUE_BYTES_MAX + 1];
            let refused = fs.set_xattr("f", "a", &over, SET, Follow::Yes).await;
            assert!(matches!(refused, Err(Error::Core(strongroom_core::Error::LimitExceeded { .. }))));
            let long = vec![b'a'; XATTR_NAME_BYTES_MAX + 1];
            let refused = fs.set_xattr("f", &long, b"", SET, Follow::Yes).await;
            assert!(matches!(refused, Err(Error::NameTooLong { .. })));
            fs.remove_file("f").await.unwrap();
            assert_sound(&fs).await;
        }
    });
}

#[test]
fn names_of_one_file_together_have_a_limit() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("f", b"").await.unwrap();
        let name = |number: usize| format!("{number:0>255}");
        let mut transaction = fs.begin();
        for number in 0..XATTR_LIST_BYTES_MAX / 256 {
            transaction.set_xattr("f", name(number), b"", SET, Follow::Yes).await.unwrap();
        }
        let refused = transaction.set_xattr("f", "x", b"", SET, Follow::Yes).await;
        assert!(matches!(refused, Err(Error::Core(strongroom_core::Error::LimitExceeded { .. }))));
        // What is there can be replaced, and what was refused has changed nothing.
        transaction.set_xattr("f", name(0), b"other", SET, Follow::Yes).await.unwrap();
        transaction.commit().await.unwrap();
        assert_sound(&fs).await;
    });
}

#[test]
fn attributes_go_with_the_last_name_of_a_file() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let chunks = async || fs.engine().info().await.unwrap().chunks;
        fs.write("f", b"").await.unwrap();
        fs.hard_link("f", "g").await.unwrap();
        fs.set_xattr("f", "large", noise(1, 50_000), SET, Follow::Yes).await.unwrap();
        fs.set_xattr("f", "small", b"s", SET, Follow::Yes).await.unwrap();
        assert!(chunks().await > 0);
        fs.remove_file("f").await.unwrap();
        assert_eq!(fs.xattr("g", "small", Follow::Yes).await.unwrap().unwrap(), b"s");
        fs.remove_file("g").await.unwrap();
        assert_eq!(chunks().await, 0);
        assert_sound(&fs).await;
    });
}

#[test]
fn attributes_that_do_not_belong_are_found() {
    block_on(async {
        let planted: [(Table, &str); 3] = [
            (XATTR, "extended attributes of what does not exist"),
            (XATTR, "has extended attributes and does not say so"),
            (INODE, "says that it has extended attributes and has none"),
        ];
        for (number, (table, expected)) in planted.into_iter().enumerate() {
            let (_bed, fs) = Bed::new(4096).await;
            fs.write("f", b"").await.unwrap();
            let inode = fs.metadata("f").await.unwrap().inode.to_be_bytes();
            let mut transaction = fs.engine().begin();
            match number {
                0 => transaction.put(table, &[&77u64.to_be_bytes()[..], b"a"].concat(), &[0]).unwrap(),
                1 => transaction.put(table, &[&inode[..], b"a"].concat(), &[0]).unwrap(),
                _ => {
                    use strongroom_core::engine::View;
                    let mut row = transaction.get(table, &inode).await.unwrap().unwrap().to_vec();
                    row[2] |= 2;
                    transaction.put(table, &inode, &row).unwrap();
                }
            }
            transaction.commit().await.unwrap();
            let mut found = Vec::new();
            fs.check(CheckOptions { data: true }, |finding| found.push(finding.to_string())).await.unwrap();
            assert!(found.iter().any(|finding| finding.contains(expected)), "{found:?}");
        }
    });
}
