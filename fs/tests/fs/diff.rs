//! What became of files between two states, where a file has several names.

use futures_lite::future::block_on;
use strongroom_fs::{Fate, FsSnapshot};

use super::support::{Bed, assert_sound};

async fn fates(before: &FsSnapshot, after: &FsSnapshot) -> Vec<(String, Fate)> {
    let changes = after.changes_since(before).await.unwrap();
    changes.into_iter().map(|change| (String::from_utf8(change.path).unwrap(), change.fate)).collect()
}

#[test]
fn a_file_that_changed_and_got_another_name_is_told_under_the_old_name_too() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("/old", b"before").await.unwrap();
        let before = fs.snapshot();
        fs.hard_link("/old", "/new").await.unwrap();
        fs.write("/old", b"after all").await.unwrap();
        let after = fs.snapshot();
        assert_eq!(fates(&before, &after).await, [("/new".into(), Fate::Added), ("/old".into(), Fate::Changed)]);
        assert_sound(&fs).await;
    });
}

#[test]
fn of_two_names_of_a_changed_file_the_one_that_was_not_renamed_is_told_as_changed() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.write("/a", b"before").await.unwrap();
        fs.hard_link("/a", "/b").await.unwrap();
        let before = fs.snapshot();
        fs.rename("/a", "/c").await.unwrap();
        fs.write("/b", b"after all").await.unwrap();
        let after = fs.snapshot();
        let renamed = Fate::Renamed { from: b"/a".to_vec(), is_changed: true };
        assert_eq!(fates(&before, &after).await, [("/b".into(), Fate::Changed), ("/c".into(), renamed)]);
        let renamed = Fate::Renamed { from: b"/c".to_vec(), is_changed: true };
        assert_eq!(fates(&after, &before).await, [("/a".into(), renamed), ("/b".into(), Fate::Changed)]);
        assert_sound(&fs).await;
    });
}

#[test]
fn a_file_that_has_its_path_in_another_directory_is_not_told_as_renamed_to_itself() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir("/a").await.unwrap();
        fs.write("/a/f", b"before").await.unwrap();
        let before = fs.snapshot();
        fs.rename("/a", "/b").await.unwrap();
        fs.create_dir("/a").await.unwrap();
        fs.rename("/b/f", "/a/f").await.unwrap();
        let moved = fs.snapshot();
        fs.write("/a/f", b"after all").await.unwrap();
        let after = fs.snapshot();
        let of_file = |fates: Vec<(String, Fate)>| {
            fates.into_iter().filter(|(path, _)| path == "/a/f").map(|(_, fate)| fate).collect::<Vec<_>>()
        };
        assert_eq!(of_file(fates(&before, &moved).await), [Fate::Attributes]);
        assert_eq!(of_file(fates(&before, &after).await), [Fate::Changed]);
        assert_eq!(of_file(fates(&after, &before).await), [Fate::Changed]);
    });
}
