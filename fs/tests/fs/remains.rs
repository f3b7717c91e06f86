//! Files that hold more rows than one transaction deletes.

use std::pin::pin;

use futures_lite::future::{block_on, poll_fn};
use strongroom_conformance::crash::{CrashOptions, Loss};
use strongroom_conformance::cut;
use strongroom_core::env::Env;
use strongroom_fs::format::INODE;
use strongroom_fs::{Attributes, CheckOptions, Error, FileSystem, Follow, OpenOptions, Options, XattrMode};

use super::support::{Bed, assert_sound, chunks, noise};

/// Stretches of data in the file that is removed, each with a hole before it: rows for two transactions.
const ISLANDS: u64 = 5_000;
const SPACING: u64 = 1 << 10;

async fn bed(versions: u32, yields: bool) -> (Bed, FileSystem) {
    let options = Options { versions, ..Options::default() };
    Bed::with(1, 4096, options, CrashOptions { yields, ..CrashOptions::default() }, Env::deterministic).await
}

/// A file of many extents that share one chunk.
async fn islands(fs: &FileSystem, path: &str) {
    fs.transact(async |transaction| {
        let mut writer = transaction.write_file(path, Attributes::file()).await?;
        for number in 0..ISLANDS {
            writer.hole(SPACING - 1).await?;
            writer.write(&[(number % 200) as u8]).await?;
        }
        writer.finish().await.map(drop)
    })
    .await
    .unwrap();
}

async fn orphans(fs: &FileSystem) -> u64 {
    fs.check(CheckOptions { data: true }, |finding| panic!("{finding}")).await.unwrap().orphans
}

#[test]
fn removing_a_file_takes_no_more_memory_for_all_that_it_holds() {
    block_on(async {
        let (_bed, fs) = bed(0, false).await;
        let before = chunks(&fs).await;
        for path in ["f", "g", "h"] {
            islands(&fs, path).await;
        }
        // Whichever way its name goes.
        let mut transaction = fs.begin();
        transaction.remove_file("f").await.unwrap();
        transaction.write("over", b"over").await.unwrap();
        transaction.rename("over", "g").await.unwrap();
        assert!(transaction.pending_bytes() < 16 << 10, "{}", transaction.pending_bytes());
        transaction.commit().await.unwrap();
        fs.remove_all("h").await.unwrap();
        assert_eq!(fs.read("g").await.unwrap(), b"over");
        fs.remove_file("g").await.unwrap();
        // When that has answered, the space is there.
        assert_eq!((chunks(&fs).await, orphans(&fs).await), (before, 0));
        assert_sound(&fs).await;
    });
}

#[test]
fn a_transaction_that_removes_a_large_file_is_all_or_nothing() {
    block_on(async {
        let (_bed, fs) = bed(0, false).await;
        islands(&fs, "f").await;
        let size = fs.metadata("f").await.unwrap().size;
        let mut transaction = fs.begin();
        transaction.remove_file("f").await.unwrap();
        transaction.write("f", b"another").await.unwrap();
        drop(transaction);
        fs.write("next", b"n").await.unwrap();
        assert_eq!(fs.metadata("f").await.unwrap().size, size);
        assert_sound(&fs).await;
        // One that loses changes nothing either.
        let mut transaction = fs.begin();
        transaction.remove_file("f").await.unwrap();
        fs.transact(async |transaction| transaction.append("f", b"x").await).await.unwrap();
        assert!(transaction.commit().await.unwrap_err().is_conflict());
        assert_eq!(fs.metadata("f").await.unwrap().size, size + 1);
        assert_sound(&fs).await;
    });
}

#[test]
fn on_a_full_storage_a_large_file_can_be_removed_and_its_space_comes_back() {
    block_on(async {
        let crash = CrashOptions { locks: true, yields: false, ..CrashOptions::default() };
        let (mut bed, fs) = Bed::with(1, 16 << 10, Options::default(), crash, Env::deterministic).await;
        let before = chunks(&fs).await;
        fs.write("small", noise(1, 5_000)).await.unwrap();
        fs.transact(async |transaction| {
            let mut writer = transaction.write_file("large", Attributes::file()).await?;
            for number in 0..ISLANDS {
                writer.hole(SPACING).await?;
                writer.write(&noise(number, 600)).await?;
            }
            writer.finish().await.map(drop)
        })
        .await
        .unwrap();
        fs.engine().close().await.unwrap();
        drop(fs);
        // Nobody has it open, the one who made the medium neither.
        bed.storage.crash_with(Loss::Nothing);
        let blobs = bed.storage.snapshot_blobs();
        bed.storage.set_capacity(Some(blobs.values().map(|blob| blob.len() as u64).sum()));
        let fs = bed.open().await.unwrap();
        fs.remove_file("large").await.unwrap();
        assert_eq!(orphans(&fs).await, 0);
        fs.remove_file("small").await.unwrap();
        assert_eq!(chunks(&fs).await, before);
        fs.engine().close().await.unwrap();
        assert!(bed.storage.snapshot_blobs().len() < blobs.len() / 2);
        assert_sound(&bed.open().await.unwrap()).await;
    });
}

/// How often a future is polled until it answers.
async fn count_polls<T>(polls: &mut u64, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        *polls += 1;
        work.as_mut().poll(context)
    })
    .await
}

#[test]
fn whenever_a_removal_is_cut_short_the_file_is_whole_or_gone_and_the_next_writer_gives_back_the_rest() {
    const CUTS: u64 = 10;
    block_on(async {
        let (mut bed, fs) = bed(2, true).await;
        let before = chunks(&fs).await;
        // Versions and attributes are rows of the file, too.
        islands(&fs, "f").await;
        fs.set_xattr("f", "user.long", noise(3, 9_000), XattrMode::Set, Follow::Yes).await.unwrap();
        fs.set_len("f", SPACING * ISLANDS / 2).await.unwrap();
        fs.engine().close().await.unwrap();
        drop(fs);
        let whole = bed.storage.snapshot_blobs();
        let fs = bed.open().await.unwrap();
        let mut polls = 0;
        count_polls(&mut polls, fs.remove_file("f")).await.unwrap();
        assert_eq!((chunks(&fs).await, orphans(&fs).await), (before, 0));
        drop(fs);
        let mut seen = Vec::new();
        for number in 0..=CUTS {
            bed.storage.restore(whole.clone());
            let fs = bed.open().await.unwrap();
            cut(polls * number / CUTS, fs.remove_file("f")).await;
            bed.storage.crash(number);
            drop(fs);
            // Who only looks sees rows that are left, and no damage.
            let fs = bed.open_to_read().await.unwrap();
            seen.push((fs.exists("f").await.unwrap(), orphans(&fs).await));
            assert_sound(&fs).await;
            drop(fs);
            let fs = bed.open().await.unwrap();
            if fs.exists("f").await.unwrap() {
                assert_eq!(fs.metadata("f").await.unwrap().size, SPACING * ISLANDS / 2);
                fs.remove_file("f").await.unwrap();
            }
            assert_eq!((chunks(&fs).await, orphans(&fs).await), (before, 0), "cut {number} of {CUTS}");
            assert_sound(&fs).await;
        }
        assert!(seen.iter().all(|state| [(true, 0), (false, 1), (false, 0)].contains(state)), "{seen:?}");
        assert!(seen.contains(&(true, 0)) && seen.contains(&(false, 1)), "{seen:?}");
    });
}

#[test]
fn a_large_file_that_was_removed_while_open_goes_with_its_last_handle_at_once() {
    block_on(async {
        let (mut bed, fs) = bed(0, false).await;
        let before = chunks(&fs).await;
        islands(&fs, "f").await;
        let file = fs.open_file("f", OpenOptions::new()).await.unwrap();
        let other = bed.open().await.unwrap();
        let theirs = other.open_file("f", OpenOptions::new()).await.unwrap();
        fs.remove_file("f").await.unwrap();
        let mut byte = [0];
        assert_eq!(file.read_at(SPACING - 1, &mut byte).await.unwrap(), 1);
        file.close().await.unwrap();
        assert_eq!((chunks(&fs).await, orphans(&fs).await), (before, 0));
        other.engine().refresh().await.unwrap();
        assert!(matches!(theirs.read_at(0, &mut byte).await, Err(Error::Stale)));
        assert_sound(&fs).await;
    });
}

#[test]
fn one_damaged_orphan_keeps_no_others_and_costs_them_no_commits_of_their_own() {
    const ORPHANS: usize = 2_500;
    block_on(async {
        let (mut bed, fs) = bed(0, false).await;
        let paths: Vec<_> = (0..ORPHANS).map(|number| format!("f{number}")).collect();
        let mut transaction = fs.begin();
        for path in &paths {
            transaction.write(path, b"").await.unwrap();
        }
        transaction.commit().await.unwrap();
        let mut files = Vec::new();
        for path in &paths {
            files.push(fs.open_file(path, OpenOptions::new()).await.unwrap());
        }
        let broken = files[ORPHANS / 3].metadata().await.unwrap().inode;
        let mut transaction = fs.begin();
        for path in &paths {
            transaction.remove_file(path).await.unwrap();
        }
        transaction.commit().await.unwrap();
        let mut transaction = fs.engine().begin();
        transaction.put(INODE, &broken.to_be_bytes(), b"").unwrap();
        transaction.commit().await.unwrap();
        bed.storage.crash(1);
        drop((files, fs));

        let engine_only = bed.open_to_read().await.unwrap();
        let before = engine_only.engine().snapshot().sequence();
        drop(engine_only);
        let fs = bed.open().await.unwrap();
        // Whoever opens it for writing reclaims, and says what it met where it is asked to.
        assert!(matches!(fs.reclaim_orphans().await, Err(Error::Core(strongroom_core::Error::Damaged(_)))));
        let commits = fs.engine().snapshot().sequence() - before;
        assert!(commits <= 20, "{commits} commits for {ORPHANS} orphans");
        let mut findings = Vec::new();
        let found = fs.check(CheckOptions { data: true }, |finding| findings.push(finding.to_string())).await.unwrap();
        assert_eq!(found.orphans, 1, "{findings:?}");
    });
}
