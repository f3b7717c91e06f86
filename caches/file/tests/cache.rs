//! What a cache in a folder is for: it is there the next time, for all processes, whatever befalls its file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, thread};

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::Dice;
use strongroom_conformance::storage::{sample_bytes, sample_name};
use strongroom_core::cache::{Cache as _, Part};
use strongroom_core::env::Env;
use strongroom_core::storage::{Blocking, BlockingMode, ErrorKind, Name, Result};
use strongroom_file_cache::FileCache;

const BYTES_MAX: u64 = 4 << 20;
const PAGE: u64 = 16 << 10;
const BLOB_BYTES: usize = 128 << 10;

fn open(folder: &Path) -> FileCache {
    open_with(folder, BYTES_MAX).unwrap()
}

fn open_with(folder: &Path, bytes_max: u64) -> Result<FileCache> {
    block_on(FileCache::open(folder, bytes_max, Blocking::new(BlockingMode::Inline, Env::deterministic(1))))
}

fn name(number: u64) -> Name {
    sample_name(number)
}

fn blob(number: u64) -> Bytes {
    sample_bytes(number, BLOB_BYTES)
}

fn range(start: u64, end: u64) -> Part {
    Part::Range { start, end }
}

fn get(cache: &FileCache, number: u64, part: Part) -> Option<Bytes> {
    block_on(cache.get(name(number), part))
}

fn insert(cache: &FileCache, number: u64, part: Part) {
    block_on(cache.insert(name(number), part, part_of(number, part)));
}

fn part_of(number: u64, part: Part) -> Bytes {
    match part {
        Part::Whole => blob(number),
        Part::Range { start, end } => blob(number).slice(start as usize..end as usize),
    }
}

fn blocks(folder: &Path) -> PathBuf {
    folder.join("blocks")
}

#[test]
fn what_was_read_is_there_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    insert(&cache, 1, Part::Whole);
    insert(&cache, 2, range(2 * PAGE, 4 * PAGE));
    drop(cache);
    let cache = open(folder.path());
    assert_eq!(get(&cache, 1, Part::Whole), Some(blob(1)));
    assert_eq!(get(&cache, 1, range(PAGE + 5, 3 * PAGE + 7)), Some(part_of(1, range(PAGE + 5, 3 * PAGE + 7))));
    assert_eq!(get(&cache, 2, range(2 * PAGE, 4 * PAGE)), Some(part_of(2, range(2 * PAGE, 4 * PAGE))));
    assert_eq!(get(&cache, 2, range(2 * PAGE, 5 * PAGE)), None);
    assert_eq!(get(&cache, 2, Part::Whole), None);
    // Parts that overlap make up what lies in them.
    insert(&cache, 2, range(3 * PAGE, 6 * PAGE));
    assert_eq!(get(&cache, 2, range(2 * PAGE, 6 * PAGE)), Some(part_of(2, range(2 * PAGE, 6 * PAGE))));
}

#[test]
fn what_is_removed_is_gone_for_all_who_have_it_open() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (open(folder.path()), open(folder.path()));
    insert(&one, 1, Part::Whole);
    assert_eq!(get(&two, 1, range(0, 100)), Some(part_of(1, range(0, 100))));
    block_on(two.remove(name(1)));
    assert_eq!(get(&one, 1, range(0, 100)), None);
    // Nor does it come back by one who began to load before.
    let loaded = block_on(one.fetch(
        name(1),
        Part::Whole,
        Box::pin(async {
            two.remove(name(1)).await;
            Ok(blob(1))
        }),
    ));
    assert_eq!(loaded.unwrap(), blob(1));
    assert_eq!(get(&one, 1, Part::Whole), None);
}

#[test]
fn what_is_wanted_stays_and_what_is_not_goes() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    for number in 0..200 {
        insert(&cache, number, Part::Whole);
        assert!(get(&cache, 0, Part::Whole) == Some(blob(0)), "after {number}");
    }
    let kept = (0..200).filter(|number| get(&cache, *number, Part::Whole).is_some()).count();
    // Of 32 blobs for which there is room; sets are not equally full.
    assert!((24..=32).contains(&kept), "{kept}");
    let usage = block_on(cache.usage());
    assert!(usage.bytes <= BYTES_MAX && usage.bytes > BYTES_MAX / 2, "{usage:?}");
    assert!(fs::metadata(blocks(folder.path())).unwrap().len() <= BYTES_MAX);
}

#[test]
fn whatever_byte_of_the_file_rots_nothing_wrong_comes_out_and_it_heals() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = 0..12;
    let parts = [Part::Whole, range(0, PAGE), range(3 * PAGE, 5 * PAGE)];
    let mut dice = Dice::new(11);
    let mut misses = 0;
    for round in 0..60 {
        let cache = open(folder.path());
        numbers.clone().for_each(|number| insert(&cache, number, Part::Whole));
        for number in numbers.clone() {
            assert!(get(&cache, number, Part::Whole) == Some(blob(number)), "round {round}: {number}");
        }
        let length = fs::metadata(blocks(folder.path())).unwrap().len();
        let mut file = OpenOptions::new().read(true).write(true).open(blocks(folder.path())).unwrap();
        for _ in 0..200 {
            // The header, directories, pages.
            let place = match dice.below(4) {
                0 => dice.below(128),
                1 => 4096 + dice.below(8192),
                _ => dice.below(length),
            };
            file.seek(SeekFrom::Start(place)).unwrap();
            let mut byte = [0];
            file.read_exact(&mut byte).unwrap();
            file.seek(SeekFrom::Start(place)).unwrap();
            file.write_all(&[byte[0] ^ (1 << dice.below(8))]).unwrap();
        }
        drop(file);
        for number in numbers.clone() {
            for part in parts {
                match get(&cache, number, part) {
                    Some(found) => assert!(found == part_of(number, part), "round {round}: {part:?} of {number}"),
                    None => misses += 1,
                }
            }
        }
        // Whoever comes next finds it in order: the first to write has seen to the header.
        insert(&cache, 99, Part::Whole);
        drop(cache);
        assert!(open_with(folder.path(), BYTES_MAX).is_ok(), "round {round}");
    }
    assert!(misses > 0, "nothing rotted");
}

/// A power cut may leave zeros, or what was there before, of whatever was not synced.
#[test]
fn where_the_head_of_the_file_is_lost_it_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    for lost in [1, 16, 64, 512, 4096, 100_000] {
        for by in [0, 0xa5] {
            let cache = open(folder.path());
            insert(&cache, 1, Part::Whole);
            drop(cache);
            let mut file = OpenOptions::new().write(true).open(blocks(folder.path())).unwrap();
            file.write_all(&vec![by; lost]).unwrap();
            drop(file);
            let cache = open(folder.path());
            assert!(get(&cache, 1, Part::Whole).is_none_or(|found| found == blob(1)), "{lost} bytes");
            insert(&cache, 2, Part::Whole);
            assert!(get(&cache, 2, Part::Whole) == Some(blob(2)), "{lost} bytes");
            drop(cache);
            assert!(get(&open(folder.path()), 2, Part::Whole) == Some(blob(2)), "{lost} bytes");
        }
    }
    // What has another length than any is somebody's, who put it there since.
    let whole = fs::read(blocks(folder.path())).unwrap();
    fs::write(blocks(folder.path()), "somebody's letters").unwrap();
    assert_eq!(open_with(folder.path(), BYTES_MAX).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(fs::read(blocks(folder.path())).unwrap(), b"somebody's letters");
    fs::write(blocks(folder.path()), whole).unwrap();
    open(folder.path());
    // Nobody can tell without the mark.
    fs::write(blocks(folder.path()), vec![0; 4096]).unwrap();
    for mark in [&b""[..], b"strongroom", b"somebody's locks, of some kind"] {
        fs::write(folder.path().join("lock"), mark).unwrap();
        assert_eq!(open_with(folder.path(), BYTES_MAX).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(fs::read(folder.path().join("lock")).unwrap(), mark);
    }
}

#[test]
fn whatever_stands_in_the_file_nothing_comes_out_that_was_not_put_in() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    insert(&cache, 1, Part::Whole);
    for round in 0..40 {
        let mut file = OpenOptions::new().write(true).open(blocks(folder.path())).unwrap();
        file.seek(SeekFrom::Start(4096 + (round % 4) * 700)).unwrap();
        file.write_all(&sample_bytes(round, 16 << 10)).unwrap();
        for number in 0..20 {
            for part in
                [Part::Whole, range(0, 100), range(PAGE - 1, PAGE + 1), range(0, 0), range(u64::MAX - 1, u64::MAX)]
            {
                let found = get(&cache, number, part);
                assert!(found.is_none_or(|found| number == 1 && found == part_of(1, part)), "round {round}: {part:?}");
            }
        }
        insert(&cache, round, range(0, PAGE));
        block_on(cache.remove(name(round)));
        insert(&cache, 1, Part::Whole);
    }
}

#[test]
fn a_file_that_vanishes_or_is_cut_short_is_begun_anew_while_it_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    insert(&cache, 1, Part::Whole);
    let file = File::options().write(true).open(blocks(folder.path())).unwrap();
    file.set_len(3000).unwrap();
    assert_eq!(get(&cache, 1, Part::Whole), None);
    insert(&cache, 1, Part::Whole);
    assert_eq!(get(&cache, 1, Part::Whole), Some(blob(1)));
    file.set_len(0).unwrap();
    insert(&cache, 2, Part::Whole);
    assert_eq!(get(&open(folder.path()), 2, Part::Whole), Some(blob(2)));
    for what in [fs::remove_file(blocks(folder.path())), fs::remove_dir_all(folder.path())] {
        what.unwrap();
        insert(&cache, 3, Part::Whole);
        assert_eq!(get(&cache, 3, Part::Whole), Some(blob(3)));
        // Others find the same.
        assert_eq!(get(&open(folder.path()), 3, Part::Whole), Some(blob(3)));
    }
}

#[test]
fn another_size_begins_anew_unless_it_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    insert(&cache, 1, Part::Whole);
    let error = open_with(folder.path(), 2 * BYTES_MAX).unwrap_err();
    assert!(error.kind() == ErrorKind::Busy && error.to_string().contains("another size"), "{error}");
    assert_eq!(get(&cache, 1, Part::Whole), Some(blob(1)));
    drop(cache);
    let cache = open_with(folder.path(), BYTES_MAX / 2).unwrap();
    assert_eq!(get(&cache, 1, Part::Whole), None);
    insert(&cache, 1, Part::Whole);
    assert_eq!(get(&cache, 1, Part::Whole), Some(blob(1)));
    assert!(fs::metadata(blocks(folder.path())).unwrap().len() <= BYTES_MAX / 2);
}

#[cfg(unix)]
#[test]
fn what_leads_elsewhere_or_is_no_cache_is_left_alone_whatever_it_is() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("image");
    let nothing = folder.path().join("nothing");
    // As a file system in a file begins.
    let image = [vec![0; 4096], b"all that I have".to_vec()].concat();
    fs::write(&elsewhere, &image).unwrap();
    for name in ["blocks", "lock", "writing"] {
        let cache = folder.path().join(name).join("cache");
        fs::create_dir_all(&cache).unwrap();
        for target in [&elsewhere, &nothing] {
            symlink(target, cache.join(name)).unwrap();
            assert_eq!(open_with(&cache, BYTES_MAX).unwrap_err().kind(), ErrorKind::Invalid, "{name}");
            fs::remove_file(cache.join(name)).unwrap();
        }
        fs::hard_link(&elsewhere, cache.join(name)).unwrap();
        assert_eq!(open_with(&cache, BYTES_MAX).unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        fs::remove_file(cache.join(name)).unwrap();
        fs::create_dir(cache.join(name)).unwrap();
        assert_eq!(open_with(&cache, BYTES_MAX).unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        fs::remove_dir(cache.join(name)).unwrap();
        open_with(&cache, BYTES_MAX).unwrap();
    }
    assert!(fs::read(&elsewhere).unwrap() == image && !nothing.exists());
    let cache = folder.path().join("cache");
    fs::create_dir(&cache).unwrap();
    fs::copy(&elsewhere, blocks(&cache)).unwrap();
    assert_eq!(open_with(&cache, BYTES_MAX).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(fs::read(blocks(&cache)).unwrap() == image);
}

#[test]
fn a_process_that_holds_a_lock_for_ever_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    insert(&cache, 1, Part::Whole);
    insert(&cache, 2, Part::Whole);
    let held = File::open(folder.path().join("writing")).unwrap();
    held.lock().unwrap();
    // What is there is found, what comes is handed out and not kept, and what is removed is gone, for this handle at least.
    assert!(get(&cache, 1, Part::Whole) == Some(blob(1)));
    let loaded = block_on(cache.fetch(name(3), Part::Whole, Box::pin(async { Ok(blob(3)) })));
    assert!(loaded.unwrap() == blob(3) && get(&cache, 3, Part::Whole).is_none());
    for _ in 0..20 {
        block_on(cache.remove(name(1)));
    }
    assert!(get(&cache, 1, Part::Whole).is_none() && get(&cache, 2, Part::Whole) == Some(blob(2)));
    assert!(get(&open(folder.path()), 2, Part::Whole) == Some(blob(2)));
    drop(held);
    block_on(cache.remove(name(1)));
    insert(&cache, 1, Part::Whole);
    assert!(get(&cache, 1, Part::Whole) == Some(blob(1)));
    // Nor does it stop those who come.
    let held = File::open(folder.path().join("lock")).unwrap();
    drop(cache);
    held.lock().unwrap();
    assert_eq!(open_with(folder.path(), BYTES_MAX).unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn what_is_removed_while_the_file_is_made_anew_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    let loaded = block_on(cache.fetch(
        name(1),
        Part::Whole,
        Box::pin(async {
            cache.remove(name(1)).await;
            fs::remove_dir_all(folder.path()).unwrap();
            cache.insert(name(2), Part::Whole, blob(2)).await;
            Ok(blob(1))
        }),
    ));
    assert!(loaded.unwrap() == blob(1) && get(&cache, 1, Part::Whole).is_none());
}

#[test]
fn what_is_no_cache_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(blocks(folder.path()), "somebody's letters").unwrap();
    let error = open_with(folder.path(), BYTES_MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(fs::read(blocks(folder.path())).unwrap(), b"somebody's letters");
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(open_with(&file, BYTES_MAX).unwrap_err().to_string().contains("the cache in"));
}

#[cfg(unix)]
#[test]
fn nobody_else_can_look_into_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("a/cache");
    open(&inner);
    for (path, mode) in
        [(inner.clone(), 0o700), (blocks(&inner), 0o600), (inner.join("lock"), 0o600), (inner.join("writing"), 0o600)]
    {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{path:?}");
    }
}

/// Random steps on a few blobs, each of which has one content for ever; whatever is found must be that.
fn work(cache: &FileCache, seed: u64, steps: u64) -> u64 {
    let mut dice = Dice::new(seed);
    let mut hits = 0;
    for _ in 0..steps {
        let number = dice.below(40);
        let start = dice.below(8) * PAGE;
        let part = if dice.below(4) == 0 { Part::Whole } else { range(start, start + PAGE * (1 + dice.below(2))) };
        let part = if matches!(part, Part::Range { end, .. } if end > BLOB_BYTES as u64) { Part::Whole } else { part };
        match dice.below(12) {
            0 => block_on(cache.remove(name(number))),
            1..6 => insert(cache, number, part),
            _ => {
                if let Some(found) = get(cache, number, part) {
                    assert!(found == part_of(number, part), "{part:?} of {number}");
                    hits += 1;
                }
            }
        }
    }
    hits
}

#[test]
fn threads_with_handles_of_their_own_and_with_one_get_what_was_put() {
    let folder = tempfile::tempdir().unwrap();
    let shared = open(folder.path());
    let hits: u64 = thread::scope(|scope| {
        let workers: Vec<_> = (0..6)
            .map(|worker| {
                let (shared, folder) = (&shared, folder.path());
                scope.spawn(move || match worker % 2 {
                    0 => work(shared, worker, 400),
                    _ => work(&open(folder), worker, 400),
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert!(hits > 100, "{hits}");
}

const CHILD: &str = "STRONGROOM_CACHE_TEST_FOLDER";

/// Not a test by itself: what a process does that is killed.
#[test]
fn a_process_that_works_until_it_is_killed() {
    let Some(folder) = env::var_os(CHILD) else { return };
    let cache = open(Path::new(&folder));
    for seed in 0.. {
        work(&cache, seed, 50);
        println!("round");
    }
}

#[test]
fn processes_that_are_killed_leave_nothing_wrong_behind_and_hold_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    let done = AtomicBool::new(false);
    let mut rounds = BTreeMap::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for seed in 1000.. {
                work(&cache, seed, 50);
                if done.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        for kill in 0..8 {
            let mut child = Command::new(env::current_exe().unwrap())
                .args(["--exact", "--nocapture", "a_process_that_works_until_it_is_killed"])
                .env(CHILD, folder.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // Some way into its work.
            let (mut output, mut told) = (child.stdout.take().unwrap(), Vec::new());
            let mut buffer = [0; 64];
            while told.windows(5).filter(|window| window == b"round").count() < 1 + kill % 3 {
                let count = output.read(&mut buffer).unwrap();
                assert!(count > 0, "it ended by itself");
                told.extend_from_slice(&buffer[..count]);
            }
            child.kill().unwrap();
            rounds.insert(kill, child.wait().unwrap().success());
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(rounds.len(), 8);
    assert!(work(&open(folder.path()), 5, 400) > 20);
}
