//! What an application knows a content by stays with that content, and with no other.

use futures_lite::future::block_on;
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::env::Env;
use strongroom_fs::{AttributeChange, Error, FileSystem, OpenOptions, Options, Timestamp};

use super::support::{Bed, assert_sound};

const TAG: [u8; 16] = *b"read from a disk";

fn set_back() -> AttributeChange {
    AttributeChange { mtime: Timestamp::new(1_000, 5), ..AttributeChange::default() }
}

async fn bed() -> (Bed, FileSystem) {
    let crash = CrashOptions { yields: false, ..CrashOptions::default() };
    Bed::with(1, 4096, Options { versions: 3, ..Options::default() }, crash, Env::deterministic).await
}

async fn tag(fs: &FileSystem, path: &str) -> Option<[u8; 16]> {
    fs.metadata(path).await.unwrap().content_tag
}

async fn set(fs: &FileSystem, path: &str, tag: Option<[u8; 16]>) {
    fs.transact(async |transaction| transaction.set_content_tag(path, tag).await).await.unwrap();
}

#[test]
fn a_tag_is_nothing_about_the_file() {
    block_on(async {
        let (_bed, fs) = bed().await;
        fs.write("file", b"content").await.unwrap();
        let before = (fs.metadata("file").await.unwrap(), fs.snapshot());
        assert_eq!(before.0.content_tag, None);
        set(&fs, "file", Some(TAG)).await;
        let after = fs.metadata("file").await.unwrap();
        assert_eq!(after.content_tag, Some(TAG));
        assert_eq!(strongroom_fs::Metadata { content_tag: None, ..after }, before.0);
        assert_eq!(fs.snapshot().changes_since(&before.1).await.unwrap(), []);
        assert_eq!(fs.history("file").await.unwrap().len(), 1);
        set(&fs, "file", None).await;
        assert_eq!(fs.metadata("file").await.unwrap(), before.0);
        fs.create_dir("folder").await.unwrap();
        let refused = fs.transact(async |transaction| transaction.set_content_tag("folder", Some(TAG)).await).await;
        assert!(matches!(refused, Err(Error::IsADirectory { .. })), "{refused:?}");
        assert_sound(&fs).await;
    });
}

#[test]
fn a_tag_stays_with_its_content_whatever_else_changes() {
    block_on(async {
        let (mut bed, fs) = bed().await;
        fs.write("file", b"content").await.unwrap();
        set(&fs, "file", Some(TAG)).await;
        fs.rename("file", "other").await.unwrap();
        fs.hard_link("other", "link").await.unwrap();
        fs.set_attributes("link", set_back()).await.unwrap();
        fs.set_version_limit("link", Some(7)).await.unwrap();
        fs.prune_versions("link").await.unwrap();
        assert_eq!(tag(&fs, "other").await, Some(TAG));
        fs.copy_all("other", "copy").await.unwrap();
        assert_eq!(tag(&fs, "copy").await, Some(TAG));
        fs.engine().close().await.unwrap();
        let fs = bed.open().await.unwrap();
        assert_eq!(tag(&fs, "link").await, Some(TAG));
        assert_sound(&fs).await;
    });
}

#[test]
fn another_content_has_no_tag_though_it_has_the_size_and_time_of_the_one_before() {
    block_on(async {
        for change in ["write", "write-at", "handle", "append", "cut", "punch", "copy", "restore", "back and forth"] {
            let (_bed, fs) = bed().await;
            fs.write("file", b"first").await.unwrap();
            fs.write("file", b"other").await.unwrap();
            fs.write("source", b"third").await.unwrap();
            set(&fs, "file", Some(TAG)).await;
            match change {
                "write" => fs.write("file", b"third").await.unwrap(),
                "write-at" => {
                    fs.transact(async |transaction| transaction.write_at("file", 0, b"thir").await).await.unwrap();
                }
                "handle" => {
                    let file = fs.open_file("file", OpenOptions::new().write(true)).await.unwrap();
                    file.write_at(0, b"third").await.unwrap();
                    file.close().await.unwrap();
                }
                "append" => {
                    fs.transact(async |transaction| transaction.append("file", b"!").await.map(|_| ())).await.unwrap();
                }
                "cut" => fs.set_len("file", 1).await.unwrap(),
                "punch" => {
                    fs.transact(async |transaction| transaction.punch_hole("file", 0, 5).await).await.unwrap();
                }
                "copy" => drop(fs.copy("source", "file").await.unwrap()),
                "restore" => fs.restore_version("file", 1).await.unwrap(),
                // Nobody looked whether it is the same again.
                _ => {
                    fs.write("file", b"third").await.unwrap();
                    fs.write("file", b"other").await.unwrap();
                }
            }
            fs.set_attributes("file", set_back()).await.unwrap();
            assert_eq!(tag(&fs, "file").await, None, "{change}");
            assert_sound(&fs).await;
        }
    });
}

#[test]
fn an_earlier_state_has_the_tags_that_it_had() {
    block_on(async {
        let (_bed, fs) = bed().await;
        fs.write("file", b"first").await.unwrap();
        set(&fs, "file", Some(TAG)).await;
        // Its content is not to be given back.
        fs.copy_all("file", "kept").await.unwrap();
        let before = fs.snapshot();
        fs.write("file", b"other").await.unwrap();
        set(&fs, "file", Some([0; 16])).await;
        assert_eq!(before.metadata("file").await.unwrap().content_tag, Some(TAG));
        fs.remove_file("file").await.unwrap();
        fs.restore_from(&before, "file").await.unwrap();
        assert_eq!(tag(&fs, "file").await, Some(TAG));
        assert_sound(&fs).await;
    });
}

#[test]
fn whoever_tags_a_content_that_somebody_changes_meanwhile_is_told_of_the_conflict() {
    block_on(async {
        let (mut bed, fs) = bed().await;
        fs.write("file", b"first").await.unwrap();
        let other = bed.open().await.unwrap();
        let mut transaction = other.begin();
        transaction.set_content_tag("file", Some(TAG)).await.unwrap();
        fs.write("file", b"other").await.unwrap();
        let answer = transaction.commit().await;
        assert!(answer.as_ref().is_err_and(Error::is_conflict), "{answer:?}");
        assert_eq!(tag(&fs, "file").await, None);
    });
}
