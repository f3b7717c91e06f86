//! sled trusts its files, and panics on some of what was changed in them: here that is an error.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot set up its place fails

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use strongroom_conformance::block_on;
use strongroom_conformance::storage::{sample_bytes, sample_name};
use strongroom_core::storage::{BlockingMode, OpenContext, OpenMode, Storage};
use strongroom_sled::SledStorage;
use tempfile::TempDir;

const BLOBS: u64 = 60;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files
}

#[test]
fn what_was_changed_in_the_files_is_told_and_panics_nowhere() {
    // What the real medium does plays no part, so it may be memory.
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
    let (path, copy) = (root.path().join("db"), root.path().join("copy"));
    let env = strongroom::env::system().unwrap();
    let context = OpenContext::new(env).with_mode(OpenMode::CreateIfMissing).with_blocking(BlockingMode::Inline);
    let open = |path: &Path| block_on(SledStorage::open(path, &context));
    let storage = open(&path).unwrap();
    for number in 0..BLOBS {
        block_on(storage.put(sample_name(number), sample_bytes(number, 2_000))).unwrap();
    }
    // One that is a file of its own.
    block_on(storage.put(sample_name(BLOBS), sample_bytes(BLOBS, 700_000))).unwrap();
    drop(storage);
    // So that the snapshot knows of them.
    drop(open(&path).unwrap());

    let whole: Vec<_> = [files(&path), files(&path.join("blobs"))].concat();
    let whole: Vec<_> = whole.into_iter().map(|file| (fs::read(&file).unwrap(), file)).collect();
    // Those that are caught would each be shown.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut refused, mut served) = (0, 0);
    for (bytes, file) in &whole {
        let name = file.strip_prefix(&path).unwrap();
        // The log is used up to here.
        for at in (0..bytes.len().min(150_000)).step_by((bytes.len() / 300).max(11)) {
            fs::create_dir_all(copy.join("blobs")).unwrap();
            for (bytes, file) in &whole {
                fs::write(copy.join(file.strip_prefix(&path).unwrap()), bytes).unwrap();
            }
            let mut changed = bytes.clone();
            *changed.get_mut(at).unwrap() ^= 0x10;
            fs::write(copy.join(name), changed).unwrap();
            let work = || {
                let Ok(storage) = open(&copy) else { return false };
                for number in 0..=BLOBS {
                    // What is answered is what was put: wrong content is worse than none.
                    if let Ok(found) = block_on(storage.get(sample_name(number), None, 1 << 20)) {
                        let bytes = if number == BLOBS { 700_000 } else { 2_000 };
                        assert_eq!(found, sample_bytes(number, bytes));
                    }
                }
                let _ = block_on(storage.delete(sample_name(1)));
                let _ = block_on(storage.put(sample_name(100), sample_bytes(100, 20_000)));
                let _ = block_on(storage.sync());
                true
            };
            let outcome = catch_unwind(AssertUnwindSafe(work));
            match outcome.unwrap_or_else(|_| panic!("a panic where byte {at} of {} was changed", name.display())) {
                true => served += 1,
                false => refused += 1,
            }
            fs::remove_dir_all(&copy).unwrap();
        }
    }
    let _ = std::panic::take_hook();
    assert!(refused > 0 && served > 0, "{refused} were refused, {served} served");
}
