//! A snapshot of everything is restored while files are open.

use futures_lite::future::block_on;
use strongroom::fs::{File, OpenOptions};
use strongroom::{CreateOptions, Credentials, Error, Repository, check, core};

async fn repository(name: &str) -> Repository {
    let options = CreateOptions::new(Credentials::password("correct horse")).kdf_millis(1).versions(2);
    Repository::create(format!("mem://{name}"), options).await.unwrap()
}

async fn open(repository: &Repository, path: &str) -> File {
    repository.fs().open_file(path, OpenOptions::new().write(true)).await.unwrap()
}

async fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.len().await.unwrap() as usize];
    file.read_exact_at(0, &mut bytes).await.unwrap();
    bytes
}

async fn assert_clean(repository: &Repository) {
    let options = check::CheckOptions { data: true };
    repository.check(options, |finding| panic!("{finding:?}")).await.unwrap();
}

/// Bytes of all files, those without a name too.
async fn file_bytes(repository: &Repository) -> u64 {
    repository.fs().content_bytes().await.unwrap().file_bytes
}

#[test]
fn files_that_are_not_in_it_stay_for_those_who_have_them_open() {
    block_on(async {
        let repository = repository("restored-open").await;
        let fs = repository.fs();
        repository.create_snapshot("empty").await.unwrap();
        fs.create_dir("/d").await.unwrap();
        fs.write("/d/clean", b"clean").await.unwrap();
        fs.write("/written", b"written").await.unwrap();
        fs.write("/nobody's", b"nobody's").await.unwrap();
        let (clean, written) = (open(&repository, "/d/clean").await, open(&repository, "/written").await);
        written.append(b" and more").await.unwrap();
        repository.restore_snapshot("empty").await.unwrap();
        assert!(fs.read_dir("/").await.unwrap().is_empty());
        assert_eq!(content(&clean).await, b"clean");
        assert_eq!(content(&written).await, b"written and more");
        assert_eq!(clean.metadata().await.unwrap().nlink, 0);
        assert_clean(&repository).await;
        clean.write_at(0, b"C").await.unwrap();
        clean.flush().await.unwrap();
        written.flush().await.unwrap();
        assert_eq!((content(&clean).await, content(&written).await), (b"Clean".into(), b"written and more".into()));
        assert_clean(&repository).await;
        // They go with their last handle.
        clean.close().await.unwrap();
        written.close().await.unwrap();
        assert_eq!(file_bytes(&repository).await, 0);
        assert_clean(&repository).await;
        repository.close().await.unwrap();
    });
}

#[test]
fn what_was_written_to_a_file_that_it_changes_is_lost_to_it_and_to_one_that_it_does_not_change_is_kept() {
    block_on(async {
        let repository = repository("restored-written").await;
        let fs = repository.fs();
        fs.write("/same", b"same").await.unwrap();
        fs.write("/other", b"then").await.unwrap();
        repository.create_snapshot("then").await.unwrap();
        fs.write("/other", b"now").await.unwrap();
        let (same, other) = (open(&repository, "/same").await, open(&repository, "/other").await);
        same.append(b" and more").await.unwrap();
        other.append(b" and more").await.unwrap();
        repository.restore_snapshot("then").await.unwrap();
        same.flush().await.unwrap();
        assert!(matches!(other.flush().await, Err(Error::Core(core::Error::Conflict))));
        assert_eq!(fs.read("/same").await.unwrap(), b"same and more");
        assert_eq!(content(&other).await, b"then");
        assert_clean(&repository).await;
        repository.close().await.unwrap();
    });
}

#[test]
fn a_file_that_was_removed_comes_back_under_its_handles() {
    block_on(async {
        let repository = repository("restored-removed").await;
        let fs = repository.fs();
        fs.write("/file", b"then").await.unwrap();
        repository.create_snapshot("then").await.unwrap();
        let file = open(&repository, "/file").await;
        fs.remove_file("/file").await.unwrap();
        file.append(b", and after").await.unwrap();
        file.flush().await.unwrap();
        repository.restore_snapshot("then").await.unwrap();
        assert_eq!(content(&file).await, b"then");
        file.close().await.unwrap();
        assert_eq!(fs.read("/file").await.unwrap(), b"then");
        assert_clean(&repository).await;
        repository.close().await.unwrap();
    });
}

#[test]
fn what_had_no_name_then_is_not_left_behind() {
    block_on(async {
        let repository = repository("restored-nameless").await;
        let fs = repository.fs();
        for path in ["/closed", "/open"] {
            fs.write(path, b"then").await.unwrap();
        }
        let (closed, open) = (open(&repository, "/closed").await, open(&repository, "/open").await);
        fs.remove_all("/").await.unwrap();
        repository.create_snapshot("nameless").await.unwrap();
        closed.close().await.unwrap();
        open.append(b" and now").await.unwrap();
        open.flush().await.unwrap();
        assert_eq!(file_bytes(&repository).await, 12);
        repository.restore_snapshot("nameless").await.unwrap();
        // What is open is its handles' still, and nobody else's to bring back.
        assert_eq!(content(&open).await, b"then and now");
        assert_clean(&repository).await;
        open.close().await.unwrap();
        assert_eq!(file_bytes(&repository).await, 0);
        assert_clean(&repository).await;
        repository.close().await.unwrap();
    });
}
