//! A disk that fills up or becomes read-only under a process that goes on.
#![cfg(target_os = "linux")]

#[path = "../../../cli/tests/common/mounts.rs"]
mod mounts;

use std::path::{Path, PathBuf};

use futures_lite::future::block_on;
use strongroom::check::CheckOptions;
use strongroom::storage::ErrorKind;
use strongroom::{CreateOptions, Credentials, Error, KdfParameters, OpenOptions, Repository};
use strongroom_conformance::Dice;

fn kind(error: &Error) -> Option<ErrorKind> {
    match error {
        Error::Core(error) => error.storage_kind(),
        _ => None,
    }
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    (0..bytes).map(|_| dice.roll() as u8).collect()
}

struct Small {
    _scratch: tempfile::TempDir,
    disk: PathBuf,
}

impl Small {
    fn new(kib: u64) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let disk = scratch.path().join("disk");
        mounts::small_disk(&disk, kib);
        Self { _scratch: scratch, disk }
    }

    fn place(&self) -> String {
        self.disk.join("repo").display().to_string()
    }

    async fn create(&self) -> Repository {
        let options = CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM);
        Repository::create(&*self.place(), options.without_trusted_state().block_bytes(64 << 10)).await.unwrap()
    }

    async fn open(&self) -> Repository {
        let options = OpenOptions::new(Credentials::password("test")).without_trusted_state();
        Repository::open(&*self.place(), options).await.unwrap()
    }
}

async fn is_sound(repository: &Repository) {
    let report = repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).await.unwrap();
    assert_eq!(report.findings, 0);
}

async fn holds(repository: &Repository, files: impl IntoIterator<Item = u64>) {
    for number in files {
        assert!(repository.fs().read(format!("/{number}")).await.unwrap() == noise(number, 300_000), "file {number}");
    }
}

#[test]
fn one_process_meets_a_full_disk_makes_room_and_goes_on() {
    if !mounts::inside("full_disk::one_process_meets_a_full_disk_makes_room_and_goes_on") {
        return;
    }
    let small = Small::new(8 << 10);
    block_on(async {
        // What a writer keeps back for deletions on a full disk, it leaves there when it closes.
        let repository = small.create().await;
        repository.kv().put(b"key", b"value").await.unwrap();
        repository.close().await.unwrap();
        drop(repository);
        let repository = small.open().await;
        let fs = repository.fs();
        let mut stored = 0;
        let error = loop {
            match fs.write(format!("/{stored}"), noise(stored, 300_000)).await {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(kind(&error), Some(ErrorKind::Full), "{error}");
        assert!(error.to_string().contains("free some space"), "{error}");
        assert!(stored > 5, "{stored} files of 300 kB on a disk of 8 MiB");
        let filler = mounts::fill(&small.disk);
        holds(&repository, 0..stored).await;
        is_sound(&repository).await;
        // To the last byte: nothing new gets in, again and again, and deletions do.
        for _ in 0..2 {
            let error = fs.write("/new", noise(100, 300_000)).await.unwrap_err();
            assert_eq!(kind(&error), Some(ErrorKind::Full), "{error}");
        }
        for number in 0..3 {
            fs.remove_file(format!("/{number}")).await.unwrap_or_else(|error| panic!("file {number}: {error}"));
            holds(&repository, number + 1..stored).await;
        }
        is_sound(&repository).await;
        // What they gave back is enough to go on with, without any other space.
        fs.write("/0", noise(0, 300_000)).await.unwrap();
        holds(&repository, std::iter::once(0).chain(3..stored)).await;
        std::fs::remove_file(&filler).unwrap();
        mounts::remount(&small.disk, "size=12m");
        for number in [0, 1, 2] {
            fs.write(format!("/{number}"), noise(number, 300_000)).await.unwrap();
        }
        holds(&repository, 0..stored).await;
        is_sound(&repository).await;
        repository.close().await.unwrap();
        drop(repository);
        let repository = small.open().await;
        holds(&repository, 0..stored).await;
        is_sound(&repository).await;
        repository.close().await.unwrap();
    });
}

#[test]
fn a_disk_that_becomes_read_only_under_a_process_fails_changes_alone() {
    if !mounts::inside("full_disk::a_disk_that_becomes_read_only_under_a_process_fails_changes_alone") {
        return;
    }
    let small = Small::new(16 << 10);
    let ro = |disk: &Path| mounts::remount(disk, "ro");
    block_on(async {
        let repository = small.create().await;
        let fs = repository.fs();
        for number in 0..3 {
            fs.write(format!("/{number}"), noise(number, 300_000)).await.unwrap();
        }
        ro(&small.disk);
        for _ in 0..2 {
            let error = fs.write("/3", noise(3, 300_000)).await.unwrap_err();
            assert_eq!(kind(&error), Some(ErrorKind::ReadOnly), "{error}");
            let error = fs.remove_file("/0").await.unwrap_err();
            assert_eq!(kind(&error), Some(ErrorKind::ReadOnly), "{error}");
        }
        holds(&repository, 0..3).await;
        is_sound(&repository).await;
        mounts::remount(&small.disk, "rw");
        // What failed was told to those whom it concerned, and not to whoever comes next.
        fs.write("/3", noise(3, 300_000)).await.unwrap();
        holds(&repository, 0..4).await;
        is_sound(&repository).await;
        ro(&small.disk);
        // What closing would tidy up stays as it is.
        let _ = repository.close().await;
        drop(repository);
        mounts::remount(&small.disk, "rw");
        let repository = small.open().await;
        holds(&repository, 0..4).await;
        is_sound(&repository).await;
        repository.close().await.unwrap();
    });
}

/// Each opening is what a command is: it deletes one small file, which gives no block back, and whatever else it gave back
/// somebody takes at once.
#[test]
fn one_opening_after_the_other_deletes_from_a_disk_that_is_full_to_the_last_byte() {
    if !mounts::inside("full_disk::one_opening_after_the_other_deletes_from_a_disk_that_is_full_to_the_last_byte") {
        return;
    }
    const SMALL: u64 = 24;
    let small = Small::new(8 << 10);
    block_on(async {
        let repository = small.create().await;
        for number in 0..SMALL {
            repository.fs().write(format!("/small {number}"), noise(number, 700)).await.unwrap();
        }
        for number in 0..4 {
            repository.fs().write(format!("/{number}"), noise(number, 300_000)).await.unwrap();
        }
        repository.close().await.unwrap();
        drop(repository);
        for number in 0..SMALL {
            mounts::fill(&small.disk);
            let repository = small.open().await;
            let error = repository.fs().write("/new", noise(100, 300_000)).await.unwrap_err();
            assert_eq!(kind(&error), Some(ErrorKind::Full), "{error}");
            let removed = repository.fs().remove_file(format!("/small {number}")).await;
            removed.unwrap_or_else(|error| panic!("file {number}: {error}"));
            repository.close().await.unwrap_or_else(|error| panic!("closing after file {number}: {error}"));
        }
        let repository = small.open().await;
        holds(&repository, 0..4).await;
        is_sound(&repository).await;
    });
}
