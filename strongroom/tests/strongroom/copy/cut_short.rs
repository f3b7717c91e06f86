//! Copies that are refused, stopped or killed: what is left of them passes for no repository, and the source goes on.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use futures_lite::future::block_on;
use strongroom::{CopyOptions, Repository, blocking, core};

use super::states::{assert_clean, assert_same, names};
use super::stores::{Stores, close, core_error};

#[test]
fn blocks_that_are_too_small_are_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let stores = Stores::new("blocks");
    let source = blocking::Repository::create(stores.source(), stores.create("old").block_bytes(128 << 10)).unwrap();
    let place = folder.path().join("copy").display().to_string();
    let small = stores.create("new").block_bytes(8 << 10);
    let refused = core_error(source.copy(place.as_str(), small, CopyOptions::default()));
    assert!(
        matches!(refused, core::Error::BlocksTooSmall { block_bytes: 8_192, block_bytes_min: 16_384 }),
        "{refused}"
    );
    assert!(!folder.path().join("copy").exists());
    assert_eq!(source.snapshots().unwrap(), []);
    let fits = stores.create("new").block_bytes(16 << 10);
    let (copy, _) = source.copy(place.as_str(), fits, CopyOptions::default()).unwrap();
    copy.close().unwrap();
    source.close().unwrap();
}

#[test]
fn a_place_that_holds_a_repository_is_refused_and_left_alone() {
    block_on(async {
        let stores = Stores::new("taken");
        let source = stores.furnished_source().await;
        let other = Repository::create(stores.beside("other"), stores.create("other")).await.unwrap();
        other.fs().write("/other", b"other").await.unwrap();
        for place in [stores.beside("other"), stores.source()] {
            let refused = stores.copy_to(&place, &source, CopyOptions::default()).await;
            assert!(matches!(core_error(refused), core::Error::AlreadyExists));
        }
        assert_eq!(other.fs().read("/other").await.unwrap(), b"other");
        assert_clean(&other).await;
        assert_clean(&source).await;
        assert_eq!(names(&source).await.len(), 3);
        close([other, source]).await;
    });
}

#[test]
fn one_that_is_stopped_leaves_nothing_behind() {
    block_on(async {
        let stores = Stores::new("stopped");
        let source = stores.furnished_source().await;
        for calls in [0, 1, 40] {
            let mut left = calls;
            let mut progress = |_| {
                left -= 1;
                left >= 0
            };
            let options = CopyOptions { progress: Some(&mut progress), ..CopyOptions::default() };
            let stopped = stores.copy_to(&stores.copy(), &source, options).await;
            assert!(matches!(core_error(stopped), core::Error::Stopped));
            assert!(matches!(core_error(stores.open_copy().await), core::Error::NotARepository));
            assert_eq!(names(&source).await.len(), 3);
        }
        let (copy, _) = stores.copied(&source).await;
        assert_same(&source, &copy, "after it was stopped").await;
        assert_eq!(copy.engine().check(Default::default()).await.unwrap().notices, Vec::<String>::new());
        close([copy, source]).await;
    });
}

/// Copies until the progress was told so often, and dies there.
fn killed(source: &Repository, stores: &Stores, place: &str, calls: u32) {
    let mut left = calls;
    let mut progress = |_| {
        left -= 1;
        if left == 0 {
            resume_unwind(Box::new("killed"));
        }
        true
    };
    let options = CopyOptions { progress: Some(&mut progress), ..CopyOptions::default() };
    let copy = || block_on(stores.copy_to(place, source, options)).map(drop);
    assert!(catch_unwind(AssertUnwindSafe(copy)).is_err());
}

#[test]
fn what_is_left_of_one_that_was_killed_passes_for_no_repository() {
    let stores = Stores::new("killed");
    let source = block_on(stores.furnished_source());
    let place = stores.copy();
    killed(&source, &stores, &place, 30);
    block_on(async {
        let unfinished = |error| assert!(matches!(error, core::Error::UnfinishedCopy), "{error}");
        unfinished(core_error(stores.open_copy().await));
        unfinished(core_error(Repository::open(place.as_str(), stores.open("new").read_only(true)).await));
        unfinished(core_error(Repository::create(place.as_str(), stores.create("new")).await));
        unfinished(core_error(stores.copy_to(&place, &source, CopyOptions::default()).await));
        let wrong = Repository::open(place.as_str(), stores.open("old")).await;
        assert!(matches!(core_error(wrong), core::Error::WrongCredentials));
        let options = stores.header_options();
        assert!(strongroom::clear_header(place.as_str(), &options).await.unwrap().is_unfinished_copy);
        assert!(strongroom::destroy(place.as_str(), stores.open("new")).await.unwrap().deleted_count > 0);
        let (copy, _) = stores.copied(&source).await;
        assert!(!strongroom::clear_header(place.as_str(), &options).await.unwrap().is_unfinished_copy);
        close([copy, source]).await;
    });
}

#[test]
fn what_a_copy_that_died_kept_in_the_source_goes_with_the_next_and_what_a_living_one_keeps_stays() {
    let stores = Stores::new("held");
    let source = block_on(stores.furnished_source());
    killed(&source, &stores, &stores.beside("killed"), 20);
    block_on(async {
        assert_eq!(names(&source).await.len(), 4);
        // Its process lives, for all that can be known.
        let (copy, copied) = stores.copied(&source).await;
        assert_eq!((copied.snapshots, names(&source).await.len()), (3, 4));
        close([copy, source]).await;
        let source = stores.open_source().await;
        let place = stores.beside("2");
        let (copy, copied) = stores.copy_to(&place, &source, CopyOptions::default()).await.unwrap();
        assert_eq!((copied.snapshots, names(&source).await.len()), (3, 3));
        assert_same(&source, &copy, "after a copy died").await;
        close([copy, source]).await;
    });
}
