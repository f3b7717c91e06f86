//! redb trusts its file, and panics on some of what was changed in it: here that is an error, also when a database is closed.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot set up its place fails

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use strongroom_conformance::block_on;
use strongroom_conformance::storage::{sample_bytes, sample_name};
use strongroom_core::storage::{BlockingMode, ErrorKind, OpenContext, OpenMode, Storage};
use strongroom_redb::RedbStorage;
use tempfile::TempDir;

#[test]
fn what_was_changed_in_the_file_is_told_and_panics_nowhere() {
    // What the real medium does plays no part, so it may be memory.
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
    let path = root.path().join("db");
    let env = strongroom::env::system().unwrap();
    let context = OpenContext::new(env).with_mode(OpenMode::CreateIfMissing).with_blocking(BlockingMode::Inline);
    let open = || block_on(RedbStorage::open(&path, &context));
    let storage = open().unwrap();
    for number in 0..20 {
        block_on(storage.put(sample_name(number), sample_bytes(number, 20_000))).unwrap();
    }
    drop(storage);
    let whole = fs::read(&path).unwrap();
    // Those that are caught would each be shown.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut refused, mut served) = (0, 0);
    // The header and the first trees; and where redb 4.6 keeps what is free in this file, which it looks at when it is closed.
    for at in (0..8192).chain(110 * 4096..114 * 4096).step_by(23) {
        let mut bytes = whole.clone();
        *bytes.get_mut(at).unwrap() ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let work = || {
            let Ok(storage) = open() else { return false };
            // What they answer is another test's.
            let _ = block_on(storage.delete(sample_name(1)));
            let _ = block_on(storage.put(sample_name(100), sample_bytes(100, 20_000)));
            let _ = block_on(storage.sync());
            true
        };
        let outcome = catch_unwind(AssertUnwindSafe(work));
        match outcome.unwrap_or_else(|_| panic!("a panic came out where byte {at} was changed")) {
            true => served += 1,
            false => refused += 1,
        }
    }
    let _ = std::panic::take_hook();
    assert!(refused > 0 && served > 0, "{refused} were refused, {served} served");
}

#[test]
fn a_file_that_was_cut_short_is_damaged() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("db");
    let env = strongroom::env::system().unwrap();
    let context = OpenContext::new(env).with_mode(OpenMode::CreateIfMissing).with_blocking(BlockingMode::Inline);
    let open = || block_on(RedbStorage::open(&path, &context));
    let storage = open().unwrap();
    for number in 0..20 {
        block_on(storage.put(sample_name(number), sample_bytes(number, 20_000))).unwrap();
    }
    drop(storage);
    let whole = fs::read(&path).unwrap();
    for eighths in 1..8 {
        fs::write(&path, whole.get(..whole.len() / 8 * eighths).unwrap()).unwrap();
        let told = match open() {
            Err(error) => error,
            // What is missing is missed when it is read.
            Ok(storage) => {
                let mut read =
                    (0..20).filter_map(|number| block_on(storage.get(sample_name(number), None, 1 << 20)).err());
                read.next_back().unwrap_or_else(|| panic!("{eighths} eighths are whole"))
            }
        };
        assert_eq!(told.kind(), ErrorKind::Corrupt, "{eighths} eighths: {told}");
    }
}
