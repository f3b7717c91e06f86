//! Versions of files: what is kept, read, compared, restored and given up.

mod damage;
mod limits;
mod made;
mod model;
mod used;

use std::ops::Range;

use strongroom_conformance::crash::CrashOptions;
use strongroom_core::engine::Table;
use strongroom_core::env::Env;
use strongroom_fs::{Error, FileSystem, Options};

use super::support::Bed;

fn keeping(versions: u32) -> Options {
    Options { versions, ..Options::default() }
}

async fn bed(versions: u32) -> (Bed, FileSystem) {
    let crash = CrashOptions { yields: false, ..CrashOptions::default() };
    Bed::with(1, 16 << 10, keeping(versions), crash, Env::deterministic).await
}

async fn numbers(fs: &FileSystem, path: &str) -> Vec<u64> {
    fs.history(path).await.unwrap().iter().map(|version| version.number).collect()
}

async fn rows(fs: &FileSystem, table: Table) -> usize {
    use std::ops::Bound::Unbounded;
    use strongroom_core::engine::{Direction, View as _};
    let snapshot = fs.engine().snapshot();
    let mut scan = snapshot.scan(table, (Unbounded, Unbounded), Direction::Ascending);
    let mut count = 0;
    while scan.next().await.unwrap().is_some() {
        count += 1;
    }
    count
}

fn only(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

fn kinds_of(error: &Error) -> &'static str {
    match error {
        Error::NoSuchVersion { .. } => "no such version",
        Error::IsADirectory { .. } => "is a directory",
        Error::NotFound { .. } => "not found",
        Error::Core(strongroom_core::Error::LimitExceeded { .. }) => "limit",
        _ => "other",
    }
}
