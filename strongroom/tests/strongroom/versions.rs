//! Versions of files through the API of threads.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use strongroom::blocking::Repository;
use strongroom::fs::VERSIONS_MAX;
use strongroom::{CreateOptions, Credentials, OpenOptions};

fn credentials() -> Credentials {
    Credentials::password("correct horse")
}

fn keeping(versions: u32) -> CreateOptions {
    CreateOptions::new(credentials()).kdf_millis(1).versions(versions)
}

#[test]
fn what_a_file_was_can_be_listed_read_compared_and_restored() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("repo").display().to_string();
    let repository = Repository::create(place.as_str(), keeping(4)).unwrap();
    let fs = repository.fs();
    fs.write("/letter", "Dear Anna,").unwrap();
    let mut file = fs.open_file_with("/letter", strongroom::fs::OpenOptions::new().append(true)).unwrap();
    file.write_all(b" how are you?").unwrap();
    file.close().unwrap();
    fs.write("/letter", "Dear Ben,").unwrap();
    repository.close().unwrap();

    let repository = Repository::open(place.as_str(), OpenOptions::new(credentials())).unwrap();
    let fs = repository.fs();
    assert_eq!(fs.options().versions, 4);
    let history = fs.history("/letter").unwrap();
    assert_eq!(history.iter().map(|version| version.size).collect::<Vec<_>>(), [10, 23, 9]);
    let mut second = fs.open_version("/letter", 2).unwrap();
    second.seek(SeekFrom::Start(5)).unwrap();
    let mut rest = String::new();
    second.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "Anna, how are you?");
    assert_eq!(fs.read_version("/letter", 1).unwrap(), b"Dear Anna,");
    assert_eq!(fs.diff_versions("/letter", 2, 2).unwrap(), []);
    assert_eq!(fs.diff_versions("/letter", 1, 2).unwrap().last().unwrap().end, 23);
    fs.restore_version("/letter", 2).unwrap();
    assert_eq!(fs.read("/letter").unwrap(), b"Dear Anna, how are you?");
    assert_eq!(fs.metadata("/letter").unwrap().versions, 3);
    assert!(fs.read_version("/letter", 9).unwrap_err().to_string().contains("only 1 to 4"));

    assert_eq!(fs.version_limit("/letter").unwrap(), None);
    fs.transact(|transaction| {
        transaction.restore_version("/letter", 3)?;
        transaction.set_version_limit("/letter", Some(1))?;
        transaction.prune_versions("/letter")
    })
    .unwrap();
    assert_eq!(fs.history("/letter").unwrap().iter().map(|version| version.number).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(fs.version_limit("/letter").unwrap(), Some(1));
    repository.close().unwrap();
}

#[test]
fn snapshots_keep_what_files_were_with_their_versions() {
    let repository = Repository::create("mem://versions-and-snapshots", keeping(2)).unwrap();
    let fs = repository.fs();
    for content in ["one", "two", "three"] {
        fs.write("/file", content).unwrap();
    }
    repository.create_snapshot("then").unwrap();
    for content in ["four", "five", "six", "seven"] {
        fs.write("/file", content).unwrap();
    }
    assert_eq!(fs.read_version("/file", 5).unwrap(), b"five");
    let clean =
        || repository.check(strongroom::check::CheckOptions { data: true }, |found| panic!("{found:?}")).unwrap();
    clean();
    repository.restore_snapshot("then").unwrap();
    assert_eq!(fs.read("/file").unwrap(), b"three");
    for (number, content) in [(1, "one"), (2, "two"), (3, "three")] {
        assert_eq!(fs.read_version("/file", number).unwrap(), content.as_bytes());
    }
    clean();
    fs.write("/file", "another four").unwrap();
    assert_eq!(fs.read_version("/file", 3).unwrap(), b"three");
    fs.remove_file("/file").unwrap();
    clean();
    repository.close().unwrap();
}

#[test]
fn a_repository_that_would_keep_too_many_versions_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("repo");
    let refused = Repository::create(place.display().to_string().as_str(), keeping(VERSIONS_MAX + 1)).unwrap_err();
    assert!(matches!(refused, strongroom::Error::Core(strongroom::core::Error::LimitExceeded { .. })), "{refused}");
    assert!(!place.exists());
}
