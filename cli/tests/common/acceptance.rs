//! What the acceptance suites share: their size, their seed, and looks at what is stored.
//!
//! `STRONGROOM_ACCEPTANCE=full` runs them at full size; `STRONGROOM_ACCEPTANCE_SEED=N` runs them with another seed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::{Scratch, list};

/// One of two sizes: quick, or full where that is asked for.
pub fn scaled<T>(quick: T, full: T) -> T {
    if std::env::var_os("STRONGROOM_ACCEPTANCE").is_some_and(|size| size == "full") { full } else { quick }
}

/// The seed of this run; it is shown when the test fails.
pub fn seed() -> u64 {
    let given = std::env::var("STRONGROOM_ACCEPTANCE_SEED").ok();
    let seed = given.map_or(1, |text| text.parse().expect("STRONGROOM_ACCEPTANCE_SEED is a number"));
    eprintln!("STRONGROOM_ACCEPTANCE_SEED={seed}");
    seed
}

/// The blobs of a repository in a folder, in the order of their names.
pub fn blobs(repository: &Path) -> Vec<PathBuf> {
    let mut paths = list(repository);
    paths.retain(|path| path.symlink_metadata().unwrap().is_file());
    paths.sort();
    paths
}

/// How much is stored in a folder, in bytes.
pub fn stored_bytes(repository: &Path) -> u64 {
    blobs(repository).iter().map(|blob| blob.metadata().unwrap().len()).sum()
}

/// Files in a tree, and the bytes in them.
pub fn measure(tree: &Path) -> (u64, u64) {
    let files = list(tree).into_iter().map(|path| path.symlink_metadata().unwrap()).filter(fs::Metadata::is_file);
    files.fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.len()))
}

/// Copies a folder of files and folders; the copies may be written to.
pub fn copy_folder(from: &Path, to: &Path) {
    for path in list(from) {
        let copy = to.join(path.strip_prefix(from).unwrap());
        if path.is_dir() {
            fs::create_dir_all(copy).unwrap();
        } else {
            fs::write(copy, fs::read(path).unwrap()).unwrap();
        }
    }
}

/// The report of `check --data`, which must find nothing.
pub fn check_is_clean(scratch: &Scratch, when: &str) -> serde_json::Value {
    let output = scratch.run(["check", "--data", "--json"]);
    assert_eq!(output.status.code(), Some(0), "check {when}: {}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whatever happened, it was no panic and no death by a signal.
pub fn did_not_panic(output: &Output, when: &str) {
    let stderr = text(&output.stderr);
    assert!(!stderr.contains("panicked"), "{when}: {stderr}");
    assert!(output.status.code().is_some_and(|code| code != 101), "{when}: {:?} {stderr}", output.status);
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
