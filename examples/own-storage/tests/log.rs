//! The file itself: what a crash leaves of it, what is damage and what is none, what is somebody else's, and its space.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by them

use std::fs;
use std::path::{Path, PathBuf};

use own_storage::LogStorage;
use strongroom_conformance::block_on;
use strongroom_conformance::storage::{sample_bytes, sample_name};
use strongroom_core::env::Env;
use strongroom_core::storage::{
    BlockingMode, Change, Effect, ErrorKind, OpenContext, OpenMode, Put, Result, Storage as _, StorageExt as _,
};

const PAGE_BYTES: usize = 4096;
const BLOB_BYTES: usize = 1000;

struct Bed {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("log"), _folder: folder }
    }

    fn open_as(&self, mode: OpenMode) -> Result<LogStorage> {
        let context = OpenContext::new(Env::deterministic(1)).with_mode(mode).with_blocking(BlockingMode::Inline);
        block_on(LogStorage::open(&self.path, &context))
    }

    fn open(&self) -> LogStorage {
        self.open_as(OpenMode::CreateIfMissing).unwrap()
    }

    fn refused(&self) -> ErrorKind {
        self.open_as(OpenMode::Existing).map(drop).unwrap_err().kind()
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    fn beside(&self) -> PathBuf {
        self.path.with_file_name("log.new")
    }
}

async fn put(log: &LogStorage, number: u64) {
    assert_eq!(log.put(sample_name(number), sample_bytes(number, BLOB_BYTES)).await.unwrap(), Put::Created);
}

async fn holds(log: &LogStorage, number: u64) -> bool {
    match log.get_all(sample_name(number), u64::MAX).await {
        Ok(bytes) => bytes == sample_bytes(number, BLOB_BYTES),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound);
            false
        }
    }
}

/// The files of a log with one blob that a barrier covered, before and after two more that none did.
async fn with_a_tail(bed: &Bed) -> (usize, Vec<u8>) {
    let log = bed.open();
    put(&log, 1).await;
    log.sync().await.unwrap();
    let synced = bed.bytes().len();
    put(&log, 2).await;
    put(&log, 3).await;
    (synced, bed.bytes())
}

#[test]
fn a_tail_that_was_cut_short_anywhere_is_cut_off_and_what_is_put_then_is_found() {
    block_on(async {
        let bed = Bed::new();
        let (synced, whole) = with_a_tail(&bed).await;
        let frame = (whole.len() - synced) / 2;
        for length in (synced..whole.len()).step_by(97).chain([synced + frame - 1, synced + frame, whole.len() - 1]) {
            for garbage in [&[][..], &[0; 700], &[0xff; 41]] {
                fs::write(&bed.path, [&whole[..length], garbage].concat()).unwrap();
                let log = bed.open();
                assert!(holds(&log, 1).await);
                assert_eq!((holds(&log, 2).await, holds(&log, 3).await), (length >= synced + frame, false), "{length}");
                log.put(sample_name(4), sample_bytes(4, BLOB_BYTES)).await.unwrap();
                log.sync().await.unwrap();
                drop(log);
                assert!(holds(&bed.open(), 4).await, "{length}");
            }
        }
    });
}

#[test]
fn of_what_no_barrier_covered_a_torn_frame_takes_those_behind_it_along() {
    block_on(async {
        let bed = Bed::new();
        let (synced, mut whole) = with_a_tail(&bed).await;
        whole[synced + 500] ^= 1;
        fs::write(&bed.path, &whole).unwrap();
        let log = bed.open();
        assert_eq!((holds(&log, 1).await, holds(&log, 2).await, holds(&log, 3).await), (true, false, false));
        assert_eq!(bed.bytes().len(), synced);
    });
}

#[test]
fn damage_before_the_last_barrier_is_told_and_nothing_is_cut_off() {
    block_on(async {
        let bed = Bed::new();
        let log = bed.open();
        put(&log, 1).await;
        log.put_durable(sample_name(2), sample_bytes(2, BLOB_BYTES)).await.unwrap();
        drop(log);
        let whole = bed.bytes();
        for at in [PAGE_BYTES, PAGE_BYTES + 20, PAGE_BYTES + 60, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&bed.path, &damaged).unwrap();
            assert_eq!(bed.refused(), ErrorKind::Corrupt, "{at}");
            assert_eq!(bed.bytes(), damaged);
        }
        fs::write(&bed.path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(bed.refused(), ErrorKind::Corrupt, "cut short");
        // One of the two marks is enough.
        for at in [512, 1024] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&bed.path, &damaged).unwrap();
            assert!(holds(&bed.open(), 2).await);
        }
        let mut damaged = whole.clone();
        damaged[512] ^= 1;
        damaged[1024] ^= 1;
        fs::write(&bed.path, &damaged).unwrap();
        assert_eq!(bed.refused(), ErrorKind::Corrupt, "both marks");
    });
}

/// Up to where the log says that it is durable.
fn mark(bed: &Bed) -> usize {
    let bytes = bed.bytes();
    let at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    at(512).max(at(1024))
}

#[test]
fn each_barrier_covers_all_of_the_log_and_what_is_plain_is_covered_by_none() {
    block_on(async {
        let bed = Bed::new();
        let log = bed.open();
        assert_eq!(mark(&bed), PAGE_BYTES);
        for number in 0..3 {
            let [plain, durable] = [2 * number, 2 * number + 1];
            let covered = mark(&bed);
            put(&log, plain).await;
            assert_eq!(mark(&bed), covered);
            match number {
                0 => log.sync().await.unwrap(),
                1 => log.persist(&[sample_name(0)]).await.unwrap(),
                _ => drop(log.put_durable(sample_name(durable), sample_bytes(durable, BLOB_BYTES)).await.unwrap()),
            }
            assert_eq!(mark(&bed), bed.bytes().len());
        }
        put(&log, 7).await;
        drop(log);
        assert_eq!(mark(&bed), bed.bytes().len(), "the last handle is closed");
    });
}

#[test]
fn a_creation_that_was_cut_short_anywhere_is_none_and_can_be_finished() {
    let bed = Bed::new();
    drop(bed.open());
    let whole = bed.bytes();
    // From the mark on nothing but zeros is missing.
    const MARKED_BYTES: usize = 512 + 24;
    for length in [0, 1, 8, 12, 511, 520, MARKED_BYTES - 1, MARKED_BYTES, PAGE_BYTES - 1] {
        let zeros = [&whole[..length], &vec![0; PAGE_BYTES - length]].concat();
        for left in [&whole[..length], &zeros[..]] {
            fs::write(&bed.path, left).unwrap();
            if length < MARKED_BYTES {
                assert_eq!(bed.refused(), ErrorKind::NotFound, "{length}");
                assert_eq!(bed.bytes(), left);
            }
            block_on(async {
                let log = bed.open();
                put(&log, 1).await;
                drop(log);
                assert!(holds(&bed.open(), 1).await, "{length}");
            });
        }
    }
}

#[test]
fn what_is_something_else_is_refused_and_stays_as_it_is() {
    let bed = Bed::new();
    drop(bed.open());
    let mut later = bed.bytes();
    later[8] = 2;
    let cases = [
        (b"a letter".to_vec(), ErrorKind::Invalid),
        (vec![7; 100_000], ErrorKind::Invalid),
        (later, ErrorKind::Unsupported),
    ];
    for (bytes, kind) in cases {
        fs::write(&bed.path, &bytes).unwrap();
        for mode in [OpenMode::Existing, OpenMode::CreateIfMissing] {
            assert_eq!(bed.open_as(mode).map(drop).unwrap_err().kind(), kind);
            assert_eq!(bed.bytes(), bytes);
        }
    }
    fs::remove_file(&bed.path).unwrap();
    fs::create_dir(&bed.path).unwrap();
    assert_eq!(bed.refused(), ErrorKind::Invalid, "a folder");
}

#[test]
fn the_space_of_what_was_deleted_comes_back_at_the_next_opening() {
    block_on(async {
        let bed = Bed::new();
        let log = bed.open();
        let large = sample_bytes(9, 1 << 20);
        for number in 10..14 {
            log.put(sample_name(number), large.clone()).await.unwrap();
        }
        put(&log, 1).await;
        log.apply((10..14).map(|number| Change::Delete(sample_name(number))).collect()).await.unwrap();
        drop(log);
        let full = bed.bytes();
        // What a crash left of an earlier one is in nobody's way. What is no such thing stays, be it a log itself: then this one
        // stays long.
        let mut begun = full.clone();
        begun[12] = 1;
        for (left, is_begun) in
            [(&begun[..], true), (b"", true), (&full[..4096], false), (&full, false), (b"a letter", false)]
        {
            fs::write(&bed.path, &full).unwrap();
            fs::write(bed.beside(), left).unwrap();
            let log = bed.open();
            assert!(holds(&log, 1).await);
            assert_eq!(log.list_all(&[]).await.unwrap().len(), 1);
            assert_eq!(bed.bytes().len() < 10_000, is_begun, "{} bytes", bed.bytes().len());
            if is_begun {
                assert!(!bed.beside().exists());
                assert_eq!(bed.bytes()[12], 0, "it is a log by itself");
            } else {
                assert_eq!(fs::read(bed.beside()).unwrap(), left);
            }
            put(&log, 2).await;
            drop(log);
            assert!(holds(&bed.open(), 2).await);
        }
        // Of one that died after it gave it its place, and before it said so.
        fs::write(&bed.path, &begun).unwrap();
        drop(bed.open());
        assert_eq!(bed.bytes()[12], 0);
    });
}

#[test]
fn a_log_that_was_replaced_takes_nothing_that_would_be_lost() {
    block_on(async {
        let bed = Bed::new();
        let log = bed.open();
        put(&log, 1).await;
        replace(&bed.path);
        let errors = [
            log.put(sample_name(2), sample_bytes(2, 10)).await.map(drop).unwrap_err(),
            log.delete(sample_name(1)).await.unwrap_err(),
            log.sync().await.unwrap_err(),
            log.size(sample_name(2)).await.map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Other, Effect::None), "{error}");
        }
        assert!(holds(&log, 1).await, "what was put can be read");
    });
}

fn replace(path: &Path) {
    let other = path.with_file_name("other");
    fs::copy(path, &other).unwrap();
    fs::rename(other, path).unwrap();
}
