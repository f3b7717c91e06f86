//! Sources that others change and compact meanwhile, and sources on a storage that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_lite::future::block_on;
use strongroom::storage::Storage;
use strongroom::{CopyOptions, Error, Repository, SnapshotInfo, core};
use strongroom_conformance::flaky::{FlakyOptions, FlakyStorage, Rate, Rates};
use strongroom_memory::MemoryStorage;

use super::contents::noise;
use super::states::{assert_clean, content, names};
use super::stores::{Stores, close, core_error};

/// Copies a repository while another process removes everything and compacts, which gives readers no time.
fn copied_beside_another(stores: &Stores, read_only: bool) -> Result<(), Error> {
    let source = block_on(stores.empty_source());
    block_on(async {
        // Half of each block dies, so that the other half moves.
        let mut transaction = source.fs().begin();
        for number in 0..450_u64 {
            for kind in ["kept", "gone"] {
                let bytes = noise(number * 2 + u64::from(kind == "kept"), 30_000);
                transaction.write(format!("/{kind} {number}"), &bytes).await.unwrap();
            }
        }
        transaction.commit().await.unwrap();
        for number in 0..450 {
            source.fs().remove_file(format!("/gone {number}")).await.unwrap();
        }
        if !read_only {
            source.create_snapshot("monday").await.unwrap();
        }
        source.close().await.unwrap();
    });
    drop(source);
    let source = block_on(Repository::open(stores.source(), stores.open("old").read_only(read_only))).unwrap();
    let other = stores.opened_by_another();
    let (mut calls, moved) = (0, AtomicU64::new(0));
    let mut progress = |_| {
        calls += 1;
        if calls % 100 == 1 {
            other.fs().remove_all("/").unwrap();
            other.fs().write("/other", noise(calls, 300_000)).unwrap();
            let thorough = || strongroom::CompactOptions { thorough: true, ..Default::default() };
            // Once to move, and once to delete where it was.
            moved.fetch_add(other.compact(thorough()).unwrap().moved_bytes, Ordering::Relaxed);
            other.compact(thorough()).unwrap();
        }
        true
    };
    block_on(async {
        let expected = content(&source, None).await;
        let options = CopyOptions { progress: Some(&mut progress), ..CopyOptions::default() };
        let done = stores.copy_to(&stores.copy(), &source, options).await;
        // What nobody keeps does not move: it goes.
        assert!(read_only || moved.load(Ordering::Relaxed) > 6 << 20, "{moved:?}");
        let Ok((copy, copied)) = done else {
            assert!(matches!(core_error(stores.open_copy().await), core::Error::NotARepository));
            return done.map(drop);
        };
        assert_eq!((copied.left_behind, copied.snapshots), (None, 1));
        assert!(content(&copy, None).await == expected);
        assert!(content(&copy, Some("monday")).await == expected);
        source.refresh().await.unwrap();
        assert_eq!(names(&source).await, names(&copy).await);
        assert_clean(&copy).await;
        copy.close().await.unwrap();
        source.close().await
    })
}

#[test]
fn what_moves_while_it_is_read_is_found_where_it_is() {
    copied_beside_another(&Stores::new("moving"), false).unwrap();
}

#[test]
fn where_nobody_keeps_what_is_read_a_copy_says_that_it_is_gone() {
    let gone = copied_beside_another(&Stores::new("moving-and-read-only"), true);
    assert!(matches!(core_error(gone), core::Error::Expired));
}

/// A name tells nothing: what another process takes under that of a snapshot is another state.
#[test]
fn no_other_snapshot_of_the_same_name_is_copied_for_one_that_is_gone() {
    let stores = Stores::new("taken-again");
    block_on(async {
        let source = stores.empty_source().await;
        let mut transaction = source.fs().begin();
        for number in 0..900_u64 {
            transaction.write(format!("/{number}"), &noise(number, 30_000)).await.unwrap();
        }
        transaction.commit().await.unwrap();
        source.create_snapshot("latest").await.unwrap();
        source.fs().remove_all("/").await.unwrap();
        source.fs().write("/newest", b"here").await.unwrap();
        source.close().await.unwrap();
    });
    let source = block_on(stores.open_source());
    let other = stores.opened_by_another();
    let mut calls = 0;
    let mut progress = |_| {
        calls += 1;
        if calls == 1 {
            other.refresh().unwrap();
            let hold =
                other.snapshots().unwrap().into_iter().find(SnapshotInfo::is_hold).expect("one keeps what is copied");
            let refused = other.create_snapshot(&hold.name.replace('0', "1"));
            assert!(matches!(core_error(refused), core::Error::Invalid(_)));
            other.remove_snapshot("latest").unwrap();
            other.fs().write("/newest", "and again").unwrap();
            other.create_snapshot("latest").unwrap();
            for _ in 0..2 {
                other.compact(strongroom::CompactOptions { thorough: true, ..Default::default() }).unwrap();
            }
        }
        true
    };
    let options = CopyOptions { progress: Some(&mut progress), ..CopyOptions::default() };
    let copied = block_on(stores.copy_to(&stores.copy(), &source, options));
    assert!(matches!(core_error(copied.map(drop)), core::Error::Expired));
    // The source is as the other left it.
    block_on(source.refresh()).unwrap();
    let kept = block_on(source.snapshots()).unwrap();
    assert_eq!(kept.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["latest"]);
    block_on(source.close()).unwrap();
}

/// A storage of its own that fails as it is told to.
fn flaky(seed: u64) -> Arc<FlakyStorage> {
    Arc::new(FlakyStorage::new(Arc::new(MemoryStorage::new()), FlakyOptions { seed, ..FlakyOptions::default() }))
}

/// A repository in it with a file, which nothing is tried again for.
async fn source_in(storage: &Arc<FlakyStorage>, stores: &Stores) -> Repository {
    let place: Arc<dyn Storage> = storage.clone();
    let source = Repository::create(place, stores.create("old").without_retry()).await.unwrap();
    source.fs().write("/file", noise(1, 300_000)).await.unwrap();
    source
}

/// What keeps a source costs space in it: nobody is left to guess that it is still there.
#[test]
fn where_the_source_stays_kept_whoever_copies_is_told_though_the_copy_fails() {
    block_on(async {
        let (stores, storage) = (Stores::new("kept-on"), flaky(1));
        close([source_in(&storage, &stores).await]).await;
        let open = || async {
            let place: Arc<dyn Storage> = storage.clone();
            Repository::open(place, stores.open("old").without_retry()).await.unwrap()
        };
        for goes_on in [false, true] {
            let source = open().await;
            let mut progress = |_| {
                // Of calls that change something.
                storage.set_rates(Rates { timeouts: Rate::ALWAYS, ..Rates::default() });
                goes_on
            };
            let mut left_behind = None;
            let (progress, told) = (Some(&mut progress as _), Some(&mut left_behind));
            let options = CopyOptions { progress, left_behind: told, ..CopyOptions::default() };
            let done = stores.copy_to(&stores.beside(&goes_on.to_string()), &source, options).await;
            storage.clear_faults();
            match done {
                Ok((copy, copied)) => {
                    assert!(goes_on);
                    assert_eq!(copied.left_behind, left_behind);
                    close([copy]).await;
                }
                // Or what is read at the end comes no longer.
                Err(error) => assert!(goes_on || matches!(error, Error::Core(core::Error::Stopped)), "{error}"),
            }
            source.refresh().await.unwrap();
            let kept = names(&source).await;
            assert_eq!(kept.iter().map(|(name, _)| Some(name.clone())).collect::<Vec<_>>(), [left_behind]);
            close([source]).await;
        }
        // The next copy removes it.
        let source = open().await;
        let mut left_behind = None;
        let options = CopyOptions { left_behind: Some(&mut left_behind), ..CopyOptions::default() };
        let (copy, copied) = stores.copy_to(&stores.copy(), &source, options).await.unwrap();
        assert_eq!((copied.left_behind, left_behind), (None, None));
        assert_eq!(names(&source).await, []);
        close([copy, source]).await;
    });
}

/// Whatever fails, and whenever: what stays in the source is what was told.
#[test]
fn of_a_source_on_a_storage_that_fails_at_any_moment_nothing_stays_kept_unsaid() {
    block_on(async {
        let stores = Stores::new("unsaid");
        let (mut told, mut failed) = (0, 0);
        for seed in 0..40 {
            let storage = flaky(seed);
            let source = source_in(&storage, &stores).await;
            let often = Rate::per_mille(60);
            storage.set_rates(Rates { refusals: often, ambiguous: often, ..Rates::default() });
            let mut left_behind = None;
            let options = CopyOptions { left_behind: Some(&mut left_behind), ..CopyOptions::default() };
            let done = stores.copy_to(&stores.beside(&seed.to_string()), &source, options).await;
            failed += u64::from(done.is_err());
            storage.clear_faults();
            source.refresh().await.unwrap();
            let kept = names(&source).await;
            assert!(kept.iter().all(|(name, _)| Some(name) == left_behind.as_ref()), "seed {seed}: {kept:?}");
            told += u64::from(left_behind.is_some());
        }
        assert!(told > 0 && failed > 0, "{told} told, {failed} failed");
    });
}

/// Who is told that it failed looks for the cause where it is told to be.
#[test]
fn what_fails_in_the_copy_is_told_apart_from_what_fails_in_the_source() {
    block_on(async {
        let stores = Stores::new("told-apart");
        let often = Rate::per_mille(60);
        for in_copy in [false, true] {
            let mut failed = 0;
            for seed in 0..40 {
                let (here, there) = (flaky(seed), flaky(seed + 1_000));
                let source = source_in(&here, &stores).await;
                let faulty = if in_copy { &there } else { &here };
                faulty.set_rates(Rates { refusals: often, ambiguous: often, ..Rates::default() });
                let place: Arc<dyn Storage> = there.clone();
                let done = source.copy(place, stores.create("new").without_retry(), CopyOptions::default()).await;
                faulty.clear_faults();
                let Err(error) = done else { continue };
                failed += 1;
                // Nobody else has made anything there, but a lost answer may be of what this copy made.
                let is_of_copy = matches!(
                    error,
                    Error::Core(core::Error::InCopy(_) | core::Error::AlreadyExists | core::Error::UnfinishedCopy)
                );
                assert_eq!(is_of_copy, in_copy, "seed {seed}: {error}");
            }
            assert!(failed > 5, "{failed} failed, in the copy: {in_copy}");
        }
    });
}
