//! Damaged files get back what they have lost: from whatever is stored that has it, or from where they came from.

use std::io;

use futures_lite::future::block_on;
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::engine::{self, Repaired};
use strongroom_core::env::Env;
use strongroom_core::storage::Name;
use strongroom_fs::{Comparand, FileSystem, Options};

use super::support::{Bed, assert_sound, noise};

/// Bytes of elsewhere.
struct Elsewhere(Vec<u8>);

impl Comparand for Elsewhere {
    fn read_exact_at(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let there = self.0.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(there);
        Ok(())
    }

    fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
}

async fn repair(fs: &FileSystem) -> Repaired {
    let options = engine::CheckOptions { data: true, ..engine::CheckOptions::default() };
    let report = fs.engine().check(options).await.unwrap();
    fs.engine().repair(&report).await.unwrap()
}

/// The blocks that have chunks.
async fn blocks_of_chunks(bed: &mut Bed) -> Vec<Name> {
    let whole = bed.storage.snapshot_blobs();
    let mut blocks = Vec::new();
    for name in whole.keys() {
        bed.storage.remove(*name);
        if let Ok(fs) = bed.open().await
            && let Ok(report) = fs.engine().check(engine::CheckOptions::default()).await
        {
            let is_it = |finding: &engine::Finding| finding.damage.blob == Some(*name) && !finding.chunks.is_empty();
            blocks.extend(report.findings.iter().any(is_it).then_some(*name));
        }
        bed.storage.restore(whole.clone());
    }
    blocks
}

/// A file of two versions, the older one in a snapshot too, and every block with content of it gone; noted by a repair.
async fn lost(versions: u32) -> (Bed, FileSystem) {
    let options = Options { versions, ..Options::default() };
    let crash = CrashOptions { yields: false, ..CrashOptions::default() };
    let (mut bed, fs) = Bed::with(5, 16 << 10, options, crash, Env::deterministic).await;
    fs.write("file", noise(1, 200_000)).await.unwrap();
    fs.engine().create_snapshot("monday").await.unwrap();
    fs.write("file", noise(2, 150_000)).await.unwrap();
    fs.engine().checkpoint().await.unwrap();
    fs.engine().close().await.unwrap();
    drop(fs);
    let blocks = blocks_of_chunks(&mut bed).await;
    assert!(blocks.len() > 15, "{}", blocks.len());
    blocks.into_iter().for_each(|name| bed.storage.remove(name));
    let fs = bed.open().await.unwrap();
    assert!(fs.read("file").await.is_err());
    assert!(repair(&fs).await.damaged > 0);
    (bed, fs)
}

#[test]
fn content_that_is_written_again_heals_files_versions_and_snapshots() {
    block_on(async {
        let (mut bed, fs) = lost(3).await;
        assert!(fs.read("file").await.is_err());
        fs.write("older", noise(1, 200_000)).await.unwrap();
        assert_eq!(fs.read("older").await.unwrap(), noise(1, 200_000));
        assert!(fs.read("file").await.is_err());
        let history = fs.history("file").await.unwrap();
        assert_eq!(fs.read_version("file", history[0].number).await.unwrap(), noise(1, 200_000));
        fs.write("newer", noise(2, 150_000)).await.unwrap();
        fs.engine().close().await.unwrap();
        let fs = bed.open().await.unwrap();
        assert_eq!(fs.read("file").await.unwrap(), noise(2, 150_000));
        assert_sound(&fs).await;
    });
}

#[test]
fn a_file_is_mended_from_where_it_came_from_and_gets_no_version() {
    block_on(async {
        let (mut bed, fs) = lost(1).await;
        let before = fs.metadata("file").await.unwrap();
        let damaged = fs.engine().damaged_chunks().await.unwrap();
        assert!(fs.snapshot().refers_to(before.inode, &damaged).await.unwrap());
        assert!(fs.mend("file", &damaged, &mut Elsewhere(noise(2, 150_000))).await.unwrap());
        assert_eq!(fs.read("file").await.unwrap(), noise(2, 150_000));
        assert_eq!(fs.metadata("file").await.unwrap(), before);
        let damaged = fs.engine().damaged_chunks().await.unwrap();
        assert!(!fs.snapshot().refers_to(before.inode, &damaged).await.unwrap());
        // The version that it replaced is another content, and still lost.
        let older = fs.history("file").await.unwrap()[0].number;
        assert!(fs.read_version("file", older).await.is_err());
        fs.write("older", noise(1, 200_000)).await.unwrap();
        assert_eq!(fs.read_version("file", older).await.unwrap(), noise(1, 200_000));
        fs.engine().close().await.unwrap();
        assert_sound(&bed.open().await.unwrap()).await;
    });
}

#[test]
fn other_content_mends_nothing() {
    block_on(async {
        let (_bed, fs) = lost(1).await;
        let damaged = fs.engine().damaged_chunks().await.unwrap();
        for other in [noise(3, 150_000), noise(2, 100), Vec::new()] {
            assert!(!fs.mend("file", &damaged, &mut Elsewhere(other)).await.unwrap());
        }
        assert!(fs.read("file").await.is_err());
        assert_eq!(fs.engine().damaged_chunks().await.unwrap(), damaged);
        // All but the beginning is as it was: what of it is the same comes back.
        let mut almost = noise(2, 150_000);
        almost[0] ^= 1;
        assert!(!fs.mend("file", &damaged, &mut Elsewhere(almost)).await.unwrap());
        assert!(fs.read("file").await.is_err());
        assert!(fs.engine().damaged_chunks().await.unwrap().len() < damaged.len());
        fs.write("file", noise(2, 150_000)).await.unwrap();
        assert_eq!(fs.read("file").await.unwrap(), noise(2, 150_000));
    });
}
